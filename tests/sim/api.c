/* OpenAI's organization API: authentication, parameters, page tokens, pages. */
#include "tests/sim/fault.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct filter {
    enum dim dim;
    char value[80];
};

struct query {
    struct sim *sim;
    uint32_t account;
    enum feed_id feed;
    int64_t start, end; /* end -1: open */
    bool has_start;
    int64_t width, limit; /* limit -1: the default */
    unsigned group_by;
    struct filter filters[64];
    size_t n_filters;
    const char *page;      /* the token, NULL = first page */
    struct answer *answer; /* holds the first refusal */
};

/* What a page token says: 40 bytes, in base64 as the provider's are. */
struct token {
    int64_t start;
    int64_t page;
    int64_t issued;
    uint64_t query; /* digest of everything that it is bound to */
    uint64_t seal;
};

/* A token text that a fault has invented, and the one that it stands for. */
struct alias {
    uint32_t account;
    enum feed_id feed;
    char *text, *token;
    struct alias *next;
};

static const struct {
    const char *name;
    int64_t seconds, max, dflt;
} widths[] = {{"1m", 60, 1440, 60}, {"1h", HOUR, 168, 24}, {"1d", DAY, 31, 7}};

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

int feed_by_name(const char *name)
{
    for (int i = 0; i < N_FEEDS; i++)
        if (strcmp(feed_infos[i].name, name) == 0)
            return i;
    return -1;
}

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
    unsigned long number = c->sim->ledger.accounts;
    char right[64];

    if (!*key) {
        answer_error(a, 401, NULL, NULL,
                     "You didn't provide an API key. You need to provide your API key in an "
                     "Authorization header using Bearer auth.");
        return false;
    }
    if (strncmp(key, "sk-admin-sim-", 13) == 0)
        number = strtoul(key + 13, NULL, 10);
    if (number >= c->sim->ledger.accounts) {
        refuse_key(a, key);
        return false;
    }
    struct account *account = sim_account(c->sim, (uint32_t)number);

    sim_key(c->sim, (uint32_t)number, account->generation, right);
    if (strcmp(key, right) != 0 || account->revoked) {
        refuse_key(a, key);
        return false;
    }
    c->account = account;
    c->account_number = (uint32_t)number;
    account->in_flight++;
    if (account->in_flight > account->max_in_flight)
        account->max_in_flight = account->in_flight;
    if (account->denied & (1U << (unsigned)feed)) {
        answer_error(
            a, 403, NULL, NULL,
            "You have insufficient permissions for this operation. Missing scopes: "
            "api.usage.read. Check that you have the correct role in your organization "
            "and, if you're using a restricted API key, that it has the necessary scopes.");
        return false;
    }
    return true;
}

/* True: the key has asked too often this minute. */
static bool rate_limited(struct call *c, struct answer *a)
{
    int64_t second = monotonic_us() / 1000000, limit = c->sim->options.rate_per_minute;
    char wait[24];

    if (limit == 0)
        return false;
    if (c->account->minute != second / 60) {
        c->account->minute = second / 60;
        c->account->in_minute = 0;
    }
    if (++c->account->in_minute <= limit)
        return false;
    answer_error(a, 429, NULL, "rate_limit_exceeded", "Rate limit reached for usage requests.");
    (void)snprintf(wait, sizeof wait, "%" PRId64, 60 - second % 60);
    answer_header(a, "Retry-After", wait);
    return true;
}

/* --- parameters --- */

static void refuse(struct query *q, const char *param, const char *code, const char *message)
{
    if (q->answer->status == 0)
        answer_error(q->answer, 400, param, code, message);
}

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
    for (size_t i = 0; i < 3; i++)
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
    if (filter < 0) {
        parse_group(q, value);
    } else if (q->n_filters == sizeof q->filters / sizeof q->filters[0] ||
               strlen(value) >= sizeof q->filters[0].value) {
        refuse(q, filters[filter].name, "invalid_value", "Too many or too long values.");
    } else {
        struct filter *f = &q->filters[q->n_filters++];

        f->dim = filters[filter].dim;
        (void)snprintf(f->value, sizeof f->value, "%s", value);
    }
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

    for (size_t i = 0; i < 3 && q->feed != COSTS; i++) {
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

static bool keep_row(const void *ctx, const struct row *row)
{
    const struct query *q = ctx;
    unsigned asked = 0, found = 0;
    char text[80];

    for (size_t i = 0; i < q->n_filters; i++) {
        const struct filter *f = &q->filters[i];

        asked |= DIM_BIT(f->dim);
        if (ledger_dim_text(&q->sim->ledger, q->account, f->dim, row->dim[f->dim], text) &&
            strcmp(text, f->value) == 0)
            found |= DIM_BIT(f->dim);
    }
    return asked == found;
}

/* --- page tokens --- */

static const char base64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
#define TOKEN_TEXT 64 /* "page_", 56 digits, end */

static uint64_t digest(uint64_t h, const void *bytes, size_t n)
{
    const unsigned char *p = bytes;

    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * UINT64_C(0x100000001b3);
    return ledger_mix(h);
}

static uint64_t query_digest(const struct query *q)
{
    const int64_t numbers[] = {(int64_t)q->account, q->feed, q->start, q->end, q->width, q->limit,
                               q->group_by};
    uint64_t h = digest(q->sim->ledger.seed, numbers, sizeof numbers);

    for (size_t i = 0; i < q->n_filters; i++)
        h = digest(h + (uint64_t)q->filters[i].dim, q->filters[i].value,
                   strlen(q->filters[i].value));
    return h;
}

static void token_text(struct token *t, char out[TOKEN_TEXT])
{
    unsigned char bytes[sizeof *t + 2] = {0};
    size_t n = 5;

    t->seal = digest(77, t, sizeof *t - sizeof t->seal);
    memcpy(bytes, t, sizeof *t);
    memcpy(out, "page_", 5);
    for (size_t i = 0; i < sizeof *t; i += 3) {
        unsigned v = (unsigned)bytes[i] << 16 | (unsigned)bytes[i + 1] << 8 | bytes[i + 2];

        for (int shift = 18; shift >= 0; shift -= 6)
            out[n++] = base64[(v >> shift) & 63];
    }
    for (size_t pad = sizeof *t; pad % 3; pad++)
        out[n - 1 - (pad - sizeof *t)] = '=';
    out[n] = '\0';
}

static bool token_parse(const char *text, struct token *t)
{
    unsigned char bytes[sizeof *t + 2] = {0};
    char again[TOKEN_TEXT];
    size_t n = 0;

    if (strncmp(text, "page_", 5) != 0 || strlen(text) != 5 + (sizeof *t + 2) / 3 * 4)
        return false;
    for (const char *p = text + 5; *p; p += 4, n += 3) {
        unsigned v = 0;

        for (int i = 0; i < 4; i++) {
            const char *at = strchr(base64, p[i]);

            if (!at && p[i] != '=')
                return false;
            v = v << 6 | (at ? (unsigned)(at - base64) : 0);
        }
        bytes[n] = (unsigned char)(v >> 16);
        bytes[n + 1] = (unsigned char)(v >> 8);
        bytes[n + 2] = (unsigned char)v;
    }
    memcpy(t, bytes, sizeof *t);
    token_text(t, again);
    return strcmp(again, text) == 0;
}

static struct alias *alias_find(const struct query *q, const char *text)
{
    struct alias *a = q->sim->aliases;

    while (a && (a->account != q->account || a->feed != q->feed || strcmp(a->text, text) != 0))
        a = a->next;
    return a;
}

static const char *alias_resolve(const struct query *q, const char *text)
{
    const struct alias *a = alias_find(q, text);

    return a ? a->token : text;
}

static void alias_add(const struct query *q, const char *text, const char *token)
{
    struct alias *a = alias_find(q, text);

    if (!a) {
        a = xcalloc(1, sizeof *a);
        *a = (struct alias){q->account, q->feed, xstrdup(text), NULL, q->sim->aliases};
        q->sim->aliases = a;
    }
    free(a->token);
    a->token = xstrdup(token);
}

void api_forget_aliases(struct sim *s)
{
    while (s->aliases) {
        struct alias *a = s->aliases;

        s->aliases = a->next;
        free(a->text);
        free(a->token);
        free(a);
    }
}

/* Where the page begins. False: refused, the token is not one of this query or too old. */
static bool take_token(struct query *q, struct token *t)
{
    int64_t life = q->sim->options.token_life_s;

    *t = (struct token){.start = q->start - q->start % 60, .page = 1, .issued = sim_now(q->sim)};
    if (!q->page)
        return true;
    if (!token_parse(alias_resolve(q, q->page), t) || t->query != query_digest(q)) {
        q->sim->stats.tokens_refused++;
        refuse(q, "page", "invalid_value", "Invalid page token.");
        return false;
    }
    if (life && t->issued + life < sim_now(q->sim)) {
        q->sim->stats.tokens_refused++;
        refuse(q, "page", "invalid_value", "Invalid page token: it has expired.");
        return false;
    }
    q->sim->stats.tokens_used++;
    return true;
}

/* --- the page --- */

struct writer {
    struct buf *b;
    const struct effects *fx;
    const struct query *q;
    struct rows rows;
    int64_t row; /* number of the row on this page */
    bool quoting;
};

/* Writes `,"name":` unless a fault has the field dropped or its value replaced (false). */
static bool field_begin(struct writer *w, const char *name, const char *path)
{
    for (size_t i = 0; i < w->fx->n; i++) {
        const struct fault *f = w->fx->at[i];

        if (f->what != DO_FIELD || strcmp(f->name, path) != 0 || (f->row >= 0 && f->row != w->row))
            continue;
        if (f->quote) {
            w->quoting = true;
            break;
        }
        if (!f->drop_field) {
            buf_printf(w->b, ",\"%s\":", name);
            buf_add(w->b, f->raw, f->raw_len);
        }
        return false;
    }
    buf_add(w->b, ",\"", 2);
    buf_str(w->b, name);
    buf_add(w->b, "\":", 2);
    if (w->quoting)
        buf_char(w->b, '"');
    return true;
}

static void field_end(struct writer *w)
{
    if (w->quoting)
        buf_char(w->b, '"');
    w->quoting = false;
}

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
        size_t at = w->b->len;

        if (field_begin(w, "value", "amount.value")) {
            buf_json_decimal(w->b, row->amount, COST_SCALE);
            field_end(w);
        }
        if (field_begin(w, "currency", "amount.currency"))
            buf_str(w->b, "\"usd\"");
        if (w->b->len == at)
            buf_char(w->b, '{');
        w->b->at[at] = '{'; /* in place of the first comma */
        buf_char(w->b, '}');
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
        n = ledger_measures(w->q->account, w->q->feed, row, m);
        for (size_t i = 0; i < n; i++) {
            if (!field_begin(w, m[i].name, m[i].name))
                continue;
            buf_i64(w->b, m[i].value);
            field_end(w);
        }
    }
    write_dims(w, row);
    for (size_t i = 0; i < w->fx->n; i++)
        if (w->fx->at[i]->what == DO_ADD_FIELDS &&
            (w->fx->at[i]->row < 0 || w->fx->at[i]->row == w->row)) {
            buf_char(w->b, ',');
            buf_add(w->b, w->fx->at[i]->raw, w->fx->at[i]->raw_len);
        }
    w->b->at[at] = '{'; /* in place of the first comma */
    buf_char(w->b, '}');
    w->row++;
}

/* One row as two that add up to it. */
static void split_row(const struct row *row, struct row *first, struct row *second)
{
    *first = *second = *row;
    for (int p = 0; p < N_PARTS; p++) {
        first->part[p] = row->part[p] / 3;
        second->part[p] = row->part[p] - first->part[p];
    }
    first->amount = row->amount / 3;
    second->amount = row->amount - first->amount;
    first->quantity = row->quantity / 3;
    second->quantity = row->quantity - first->quantity;
}

static void write_row(struct writer *w, const struct row *row)
{
    struct row parts[2] = {*row, *row};
    bool twice = effects_find(w->fx, DO_DUPLICATE_ROWS);

    if (effects_find(w->fx, DO_SPLIT_ROWS)) {
        split_row(row, &parts[0], &parts[1]);
        twice = true;
    }
    write_result(w, &parts[0]);
    if (twice) {
        buf_char(w->b, ',');
        write_result(w, &parts[1]);
    }
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
        write_row(w, &w->rows.at[i]);
    }
    buf_str(w->b, "]}");
}

/* "has_more" and "next_page", as a fault may have them. */
static void write_cursor(struct writer *w, const struct token *here, int64_t next, bool more)
{
    const struct fault *f = effects_find(w->fx, DO_CURSOR);
    struct token t = {.start = next,
                      .page = here->page + 1,
                      .issued = sim_now(w->q->sim),
                      .query = query_digest(w->q)};
    char text[TOKEN_TEXT];

    if (f && f->cursor == CURSOR_ALTERNATE && here->page > 1) {
        t.issued = here->issued; /* so that the same page has the same token again */
        if (here->page > 2) {
            t.start = here->start - (next - here->start);
            t.page = here->page - 1;
        }
    }
    token_text(&t, text);
    if (f && f->cursor == CURSOR_SAME && w->q->page)
        (void)snprintf(text, sizeof text, "%s", alias_resolve(w->q, w->q->page));
    buf_printf(w->b, ",\"has_more\":%s", more || f ? "true" : "false");
    if (f && f->cursor == CURSOR_ABSENT)
        return;
    buf_str(w->b, ",\"next_page\":");
    if (f && f->cursor == CURSOR_EMPTY) {
        buf_str(w->b, "\"\"");
    } else if (f && f->cursor == CURSOR_NUMBER) {
        buf_str(w->b, "12");
    } else if (f && f->cursor == CURSOR_LITERAL) {
        alias_add(w->q, f->value, text);
        buf_json_string(w->b, f->value);
        w->q->sim->stats.tokens_issued++;
    } else if ((f && f->cursor == CURSOR_NULL) || (!f && !more)) {
        buf_str(w->b, "null");
    } else {
        buf_json_string(w->b, text);
        w->q->sim->stats.tokens_issued++;
    }
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

/* --- faults that are about the answer as a whole --- */

static void whole_body(struct answer *a, const struct fault *f, const char *key)
{
    const char *body = f->body ? f->body : "";
    const char *hole;

    a->status = f->status;
    a->content_type = f->content_type ? f->content_type : "application/json";
    while ((hole = strstr(body, "{key}")) != NULL) {
        buf_add(&a->body, body, (size_t)(hole - body));
        buf_str(&a->body, key);
        body = hole + 5;
    }
    buf_str(&a->body, body);
    if (!f->body && f->status >= 400)
        answer_error(a, f->status, NULL, NULL, "The server had an error; this one was asked for.");
}

static void huge_body(struct answer *a, const struct fault *f)
{
    buf_str(&a->body, "{\"object\":\"page\",\"data\":[");
    buf_reserve(&a->body, (size_t)f->bytes + 64);
    memset(a->body.at + a->body.len, ' ', (size_t)f->bytes);
    a->body.len += (size_t)f->bytes;
    buf_str(&a->body, "],\"has_more\":false,\"next_page\":null}");
    a->plain = f->what == DO_HUGE;
    a->status = 200;
    a->content_type = "application/json";
}

/* True: the fault is the whole answer. */
static bool answer_instead(struct answer *a, const struct effects *fx, const char *key, bool token)
{
    for (size_t i = 0; i < fx->n; i++) {
        const struct fault *f = fx->at[i];

        if (f->what == DO_STATUS) {
            whole_body(a, f, key);
            return true;
        }
        if (f->what == DO_BOMB || f->what == DO_HUGE) {
            huge_body(a, f);
            return true;
        }
        if (f->what == DO_EXPIRED && token) {
            answer_error(a, 400, "page", "invalid_value", "Invalid page token: it has expired.");
            return true;
        }
    }
    return false;
}

/* How the answer travels. */
static void bend(struct answer *a, const struct effects *fx)
{
    for (size_t i = 0; i < fx->n; i++) {
        const struct fault *f = fx->at[i];

        a->delay_ms += f->delay_ms;
        a->date_offset_s += f->offset_s;
        for (size_t h = 0; h < f->n_headers; h++)
            answer_header(a, f->headers[h].name, f->headers[h].value);
        if (f->what == DO_DROP) {
            a->how = SEND_NOTHING;
        } else if (f->what == DO_RESET || f->what == DO_TRUNCATE) {
            a->how = f->what == DO_RESET ? SEND_RESET : SEND_CUT_OFF;
            a->send_len = f->bytes > 0 ? (size_t)f->bytes : 0; /* 0: half of it */
        } else if (f->what == DO_CUT) {
            size_t keep = f->bytes > 0 ? (size_t)f->bytes : a->body.len / 2;

            a->body.len = keep < a->body.len ? keep : a->body.len;
        } else if (f->what == DO_DRIP) {
            a->how = SEND_DRIP;
            a->chunk = (size_t)f->chunk;
            a->interval_ms = f->interval_ms;
        }
    }
}

static void answer_feed(struct call *c, int feed, struct answer *a)
{
    struct query q = {
        .sim = c->sim, .feed = (enum feed_id)feed, .end = -1, .limit = -1, .answer = a};
    struct effects fx = {0};
    struct token t = {.page = 1}, sent = {0};
    char key[64];

    q.width = DAY;
    if (!authenticate(c, feed, a) || rate_limited(c, a))
        return;
    q.account = c->account_number;
    (void)MHD_get_connection_values(c->connection, MHD_GET_ARGUMENT_KIND, parse_parameter, &q);

    struct request_facts facts = {q.account, feed, 1, q.limit, q.page != NULL};

    if (q.page && token_parse(alias_resolve(&q, q.page), &sent))
        facts.page = sent.page;
    faults_match(c->sim, &facts, &fx);
    sim_key(c->sim, q.account, c->account->generation, key);
    check_query(&q);
    if (effects_find(&fx, DO_STATUS)) { /* wins over whatever else is wrong */
        answer_free(a);
        *a = (struct answer){0};
    }
    if (a->status == 0 && !answer_instead(a, &fx, key, q.page != NULL) && take_token(&q, &t))
        write_page(&q, &t, &fx);
    bend(a, &fx);
}

void api_answer(struct call *c, struct answer *a)
{
    const char *path = c->path;
    int feed = -1;

    if (strncmp(path, "/v1/", 4) == 0)
        path += 3;
    if (strncmp(path, "/organization/usage/", 20) == 0)
        feed = feed_by_name(path + 20);
    if (feed == COSTS)
        feed = -1;
    if (strcmp(path, "/organization/costs") == 0)
        feed = COSTS;
    if (feed < 0) {
        answer_error(a, 404, NULL, "unknown_url", "Invalid URL.");
    } else if (strcmp(c->method, "GET") != 0) {
        answer_error(a, 405, NULL, "method_not_supported", "Only GET is supported here.");
    } else {
        answer_feed(c, feed, a);
    }
    if (c->account && feed >= 0) {
        for (int i = 0; i < MAX_STATUSES; i++) {
            if (c->account->counts[feed][i].n && c->account->counts[feed][i].status != a->status)
                continue;
            c->account->counts[feed][i].status = a->status;
            c->account->counts[feed][i].n++;
            break;
        }
    }
    sim_log(c->sim, c, a->status);
}
