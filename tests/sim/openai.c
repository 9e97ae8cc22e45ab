/* OpenAI's organization API: authentication, parameters, page tokens, pages. */
#include "tests/sim/serve.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const struct {
    const char *name;
    enum dim dim;
} filters[] = {
    {"project_ids", D_PROJECT},  {"user_ids", D_USER},
    {"api_key_ids", D_KEY},      {"models", D_MODEL},
    {"batch", D_BATCH},          {"sizes", D_SIZE},
    {"sources", D_SOURCE},       {"vector_store_ids", D_STORE},
    {"context_levels", D_LEVEL},
};

/* --- authentication --- */

static void refuse_key(struct answer *a, const char *key)
{
    char message[400];
    size_t n = strlen(key);

    if (strncmp(key, "sk-admin-", 9) != 0 && strncmp(key, "sk-", 3) == 0) {
        answer_error(a, 401, NULL, "invalid_api_key",
                     "This endpoint requires an organization admin key (sk-admin-...). Project, "
                     "service account and user API keys can not read organization usage.");
        return;
    }
    (void)snprintf(message, sizeof message,
                   "Incorrect API key provided: %.8s%s%s. You can find your API key at "
                   "https://platform.openai.com/account/api-keys.",
                   key, n > 12 ? "****" : "", n > 12 ? key + n - 4 : "");
    answer_error(a, 401, NULL, "invalid_api_key", message);
}

/* Finds the account of the key. False: the answer says why not. */
static bool authenticate(struct call *c, int feed, struct answer *a)
{
    const char *header =
        MHD_lookup_connection_value(c->connection, MHD_HEADER_KIND, "Authorization");
    const char *key = header && strncasecmp(header, "Bearer ", 7) == 0 ? header + 7 : "";
    unsigned long number = UINT32_MAX;

    if (!*key) {
        answer_error(a, 401, NULL, NULL,
                     "You didn't provide an API key. You need to provide your API key in an "
                     "Authorization header using Bearer auth.");
        return false;
    }
    if (strncmp(key, "sk-admin-sim-", 13) == 0)
        number = strtoul(key + 13, NULL, 10);
    if (!serve_key(c, number, key)) {
        refuse_key(a, key);
        return false;
    }
    if (c->account->denied & (1U << (unsigned)feed)) {
        answer_error(
            a, 403, NULL, NULL,
            "You have insufficient permissions for this operation. Missing scopes: "
            "api.usage.read. Check that you have the correct role in your organization "
            "and, if you're using a restricted API key, that it has the necessary scopes.");
        return false;
    }
    return true;
}

/* --- parameters --- */

static void refuse_value(struct query *q, const char *param, const char *value,
                         const struct buf *allowed)
{
    struct buf m = {0};

    buf_printf(&m, "Invalid value: '%.100s'. Supported values are: %.*s.", value, (int)allowed->len,
               allowed->at);
    buf_char(&m, '\0');
    refuse(q, param, "invalid_value", m.at);
    buf_free(&m);
}

static void parse_int(struct query *q, const char *name, const char *value, int64_t *out)
{
    char *end = NULL, message[160];
    long long v = strtoll(value, &end, 10);

    if (*value && *end == '\0' && v >= 0 && v < INT64_C(1) << 40) {
        *out = v;
        return;
    }
    (void)snprintf(message, sizeof message,
                   "Invalid type for '%s': expected an integer, but got '%.60s' instead.", name,
                   value);
    refuse(q, name, "invalid_type", message);
}

static void parse_group(struct query *q, const char *value)
{
    unsigned can = feed_infos[q->feed].dims;
    struct buf allowed = {0};

    for (int d = 0; d < N_DIMS; d++) {
        if (!(can & DIM_BIT(d)))
            continue;
        if (strcmp(value, dim_names[d]) == 0) {
            q->group_by |= DIM_BIT(d);
            buf_free(&allowed);
            return;
        }
        buf_printf(&allowed, "%s'%s'", allowed.len ? ", " : "", dim_names[d]);
    }
    refuse_value(q, "group_by", value, &allowed);
    buf_free(&allowed);
}

static void parse_width(struct query *q, const char *value)
{
    static const char usage[] = "'1m', '1h', and '1d'", costs[] = "'1d'";
    struct buf allowed = {0};

    q->width = 0;
    for (size_t i = 0; i < N_WIDTHS; i++)
        if (strcmp(value, widths[i].name) == 0 && (q->feed != COSTS || widths[i].seconds == DAY))
            q->width = widths[i].seconds;
    if (q->width == 0) {
        q->width = DAY;
        buf_str(&allowed, q->feed == COSTS ? costs : usage);
        refuse_value(q, "bucket_width", value, &allowed);
        buf_free(&allowed);
    }
}

/* Takes one value of a filter or of group_by. */
static void parse_listed(struct query *q, int filter, const char *value)
{
    if (filter < 0)
        parse_group(q, value);
    else
        add_filter(q, filters[filter].name, filters[filter].dim, value);
}

/* name=a, name[]=a or name=a,b. False: no such list parameter on this path. */
static bool parse_list(struct query *q, const char *name, const char *value)
{
    char word[100];
    size_t len = strlen(name);
    int filter = -2;

    if (len > 2 && strcmp(name + len - 2, "[]") == 0)
        len -= 2;
    if (len == 8 && strncmp(name, "group_by", 8) == 0)
        filter = -1;
    for (int i = 0; i < (int)(sizeof filters / sizeof filters[0]); i++)
        if (strlen(filters[i].name) == len && strncmp(name, filters[i].name, len) == 0 &&
            feed_infos[q->feed].dims & DIM_BIT(filters[i].dim))
            filter = i;
    if (filter == -2)
        return false;
    for (const char *p = value;; p++) {
        size_t n = strcspn(p, ",");

        (void)snprintf(word, sizeof word, "%.*s", (int)n, p);
        parse_listed(q, filter, word);
        p += n;
        if (!*p)
            return true;
    }
}

static enum MHD_Result parse_parameter(void *ctx, enum MHD_ValueKind kind, const char *name,
                                       const char *value)
{
    struct query *q = ctx;
    char message[160];

    (void)kind;
    if (!value)
        value = "";
    if (strcmp(name, "start_time") == 0) {
        q->has_start = true;
        parse_int(q, name, value, &q->start);
    } else if (strcmp(name, "end_time") == 0) {
        parse_int(q, name, value, &q->end);
    } else if (strcmp(name, "limit") == 0) {
        parse_int(q, name, value, &q->limit);
    } else if (strcmp(name, "bucket_width") == 0) {
        parse_width(q, value);
    } else if (strcmp(name, "page") == 0) {
        q->page = value;
    } else if (!parse_list(q, name, value)) {
        (void)snprintf(message, sizeof message, "Unknown parameter: '%.80s'.", name);
        refuse(q, name, "unknown_parameter", message);
    }
    return MHD_YES;
}

/* The checks that need more than one parameter. */
static void check_query(struct query *q)
{
    char message[200];
    int64_t max = 180, dflt = 7;

    for (size_t i = 0; i < N_WIDTHS && q->feed != COSTS; i++) {
        if (widths[i].seconds != q->width)
            continue;
        max = widths[i].max;
        dflt = widths[i].dflt;
    }
    if (!q->has_start)
        refuse(q, "start_time", "missing_required_parameter",
               "Missing required parameter: 'start_time'.");
    if (q->limit > max || q->limit == 0) {
        (void)snprintf(message, sizeof message,
                       "Invalid 'limit': integer %s value. Expected a value %s %" PRId64
                       ", but got %" PRId64 " instead.",
                       q->limit ? "above maximum" : "below minimum",
                       q->limit ? "<=" : ">=", q->limit ? max : 1, q->limit);
        refuse(q, "limit", q->limit ? "integer_above_max_value" : "integer_below_min_value",
               message);
    }
    if (q->limit < 0)
        q->limit = dflt;
    q->first = q->start - q->start % 60;
    if (q->end >= 0 && q->end <= q->start)
        refuse(q, "end_time", "invalid_value", "'end_time' must be after 'start_time'.");
    if (q->end > sim_now(q->sim) && q->sim->options.refuse_future)
        refuse(q, "end_time", "invalid_value", "'end_time' must not be in the future.");
    if (q->feed == COSTS && q->group_by & DIM_BIT(D_KEY) && q->start < COSTS_BY_KEY_FROM) {
        (void)snprintf(message, sizeof message,
                       "Grouping by api_key_id is only available for start_time on or after %d.",
                       COSTS_BY_KEY_FROM);
        refuse(q, "start_time", "invalid_request_error", message);
    }
}

/* --- the page --- */

static void write_dims(struct writer *w, const struct row *row)
{
    char text[80];

    for (int d = 0; d < N_DIMS; d++) {
        if (!(feed_infos[w->q->feed].dims & DIM_BIT(d)) ||
            !field_begin(w, dim_names[d], dim_names[d]))
            continue;
        w->quoting = false;
        if (!ledger_dim_text(&w->q->sim->ledger, w->q->account, (enum dim)d, row->dim[d], text))
            buf_add(w->b, "null", 4);
        else if (d == D_BATCH)
            buf_str(w->b, text);
        else
            buf_json_string(w->b, text);
    }
}

static void write_cost(struct writer *w, const struct row *row)
{
    bool by_line = w->q->group_by & DIM_BIT(D_LINE);
    const char *unit = ledger_line_unit(row->dim[D_LINE]);

    if (field_begin(w, "amount", "amount")) {
        size_t at = object_begin(w);

        if (field_begin(w, "value", "amount.value")) {
            buf_json_decimal(w->b, row->amount, COST_SCALE);
            field_end(w);
        }
        if (field_begin(w, "currency", "amount.currency"))
            buf_str(w->b, "\"usd\"");
        object_end(w, at);
    }
    if (field_begin(w, "quantity", "quantity")) {
        if (by_line && row->has_quantity)
            buf_json_decimal(w->b, row->quantity, COST_QUANTITY_SCALE);
        else
            buf_add(w->b, "null", 4);
        field_end(w);
    }
    if (field_begin(w, "quantity_unit", "quantity_unit")) {
        w->quoting = false;
        if (by_line && unit)
            buf_json_string(w->b, unit);
        else
            buf_add(w->b, "null", 4);
    }
}

static void write_result(struct writer *w, const struct row *row)
{
    struct measure m[MAX_MEASURES];
    size_t n, at = w->b->len;

    if (field_begin(w, "object", "object"))
        buf_json_string(w->b, feed_infos[w->q->feed].object);
    if (w->q->feed == COSTS) {
        write_cost(w, row);
    } else {
        n = ledger_measures(&w->q->sim->ledger, w->q->account, w->q->feed, row, m);
        for (size_t i = 0; i < n; i++) {
            if (!field_begin(w, m[i].name, m[i].name))
                continue;
            buf_i64(w->b, m[i].value);
            field_end(w);
        }
    }
    write_dims(w, row);
    result_end(w, at);
}

static void write_bucket(struct writer *w, int64_t from, int64_t to)
{
    const struct query *q = w->q;
    const struct view view = {
        .group_by = q->group_by, .keep = q->n_filters ? keep_row : NULL, .ctx = q};
    int64_t now = sim_now(q->sim);
    struct span span = {from, to < now ? to - to % 60 : to, now};

    ledger_read(&q->sim->ledger, q->account, q->feed, span, &view, &w->rows);
    buf_str(w->b, "{\"object\":\"bucket\",\"start_time\":");
    buf_i64(w->b, from);
    buf_str(w->b, ",\"end_time\":");
    buf_i64(w->b, to);
    buf_str(w->b, ",\"results\":[");
    for (size_t i = 0; i < w->rows.n; i++) {
        if (i)
            buf_char(w->b, ',');
        write_row(w, &w->rows.at[i], write_result);
    }
    buf_str(w->b, "]}");
}

static int64_t bucket_end(const struct query *q, int64_t from, int64_t end)
{
    int64_t to = from - from % q->width + q->width;

    return to < end ? to : end;
}

static void write_page(struct query *q, const struct token *t, const struct effects *fx)
{
    struct writer w = {.b = &q->answer->body, .fx = fx, .q = q};
    int64_t now = sim_now(q->sim), end = q->end >= 0 && q->end < now ? q->end : now, starts[1440];
    int64_t limit = q->limit, next = t->start;
    size_t n = 0;

    if (q->feed == COSTS && limit > q->sim->options.costs_page_limit)
        limit = q->sim->options.costs_page_limit;
    for (; next < end && (int64_t)n < limit; next = bucket_end(q, next, end))
        starts[n++] = next;
    if (effects_find(fx, DO_EMPTY_PAGE)) {
        n = 0;
        next = t->start;
    }
    buf_str(w.b, "{\"object\":\"page\",\"data\":[");
    for (size_t i = 0; i < n; i++) {
        int64_t from = starts[effects_find(fx, DO_REVERSE_BUCKETS) ? n - 1 - i : i];

        if (i)
            buf_char(w.b, ',');
        write_bucket(&w, from, bucket_end(q, from, end));
        if (i == 0 && effects_find(fx, DO_DUPLICATE_BUCKET)) {
            buf_char(w.b, ',');
            write_bucket(&w, from, bucket_end(q, from, end));
        }
    }
    buf_char(w.b, ']');
    write_cursor(&w, t, next, next < end);
    buf_char(w.b, '}');
    q->answer->status = 200;
    q->answer->content_type = "application/json";
    free(w.rows.at);
}

void openai_answer(struct call *c, struct answer *a)
{
    static const struct api api = {authenticate, parse_parameter, check_query, write_page};
    const char *path = c->path;
    int feed = -1;

    if (strncmp(path, "/v1/", 4) == 0)
        path += 3;
    if (strncmp(path, "/organization/usage/", 20) == 0)
        feed = feed_by_name(path + 20);
    if (feed >= COSTS)
        feed = -1;
    if (strcmp(path, "/organization/costs") == 0)
        feed = COSTS;
    if (feed < 0)
        answer_error(a, 404, NULL, "unknown_url", "Invalid URL.");
    else if (strcmp(c->method, "GET") != 0)
        answer_error(a, 405, NULL, "method_not_supported", "Only GET is supported here.");
    else
        serve_feed(c, feed, &api, a);
}
