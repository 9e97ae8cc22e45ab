/* Anthropic's organization API: messages usage, the bill, Claude Code.
 *
 * The times are texts, the lists are bracketed, the money is cents in a text. The description that
 * the conformance tests judge by can not express a limit by bucket width nor see a bracketed
 * parameter; those are checked here. */
#include "tests/sim/serve.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CENT_SCALE (COST_SCALE - 2) /* the ledger's money is 1e-15 dollars, so 1e-13 cents */
#define DESCRIBED                                                                                  \
    (DIM_BIT(D_LINE) | DIM_BIT(D_MODEL) | DIM_BIT(D_TIER) | DIM_BIT(D_WINDOW) | DIM_BIT(D_GEO))

static const struct {
    const char *name;
    enum dim dim;
    const char *values[7]; /* those that there are; none = any text */
} filters[] = {
    {"account_ids[]", D_ACCOUNT, {NULL}},
    {"api_key_ids[]", D_KEY, {NULL}},
    {"workspace_ids[]", D_WORKSPACE, {NULL}},
    {"models[]", D_MODEL, {NULL}},
    {"service_account_ids[]", D_SERVICE_ACCOUNT, {NULL}},
    {"service_tiers[]",
     D_TIER,
     {"standard", "batch", "priority", "priority_on_demand", "flex", "flex_discount", NULL}},
    {"context_window[]", D_WINDOW, {"0-200k", "200k-1M", NULL}},
    {"inference_geos[]", D_GEO, {"global", "us", "not_available", NULL}},
    {"speeds[]", D_SPEED, {"standard", "fast", NULL}},
};

/* --- authentication --- */

static const char *header(const struct call *c, const char *name)
{
    const char *v = MHD_lookup_connection_value(c->connection, MHD_HEADER_KIND, name);

    return v ? v : "";
}

static bool authenticate(struct call *c, int feed, struct answer *a)
{
    const char *key = header(c, "x-api-key");
    unsigned long number = UINT32_MAX;

    if (!*key) {
        answer_error(a, 401, NULL, NULL, "x-api-key header is required");
        return false;
    }
    if (strncmp(key, "sk-ant-admin01-sim-", 19) == 0)
        number = strtoul(key + 19, NULL, 10);
    if (!serve_key(c, number, key)) { /* a workspace's key is answered like a wrong one */
        answer_error(a, 401, NULL, NULL, "invalid x-api-key");
        return false;
    }
    if (!*header(c, "anthropic-version")) {
        answer_error(a, 400, NULL, NULL, "anthropic-version: header is required");
        return false;
    }
    if (strcmp(header(c, "anthropic-version"), "2023-06-01") != 0) {
        answer_error(a, 400, NULL, NULL, "anthropic-version: is not a valid version");
        return false;
    }
    if (c->account->denied & (1U << (unsigned)feed)) {
        answer_error(a, 403, NULL, NULL,
                     "Your API key does not have permission to use the specified resource.");
        return false;
    }
    return true;
}

/* --- parameters --- */

static void refuse_value(struct query *q, const char *name, const char *must, const char *value)
{
    char message[300];

    (void)snprintf(message, sizeof message, "%s: %s, but got '%.80s'", name, must, value);
    refuse(q, name, NULL, message);
}

/* So many digits at *p, which moves on. -1: there are others. */
static int digits(const char **p, int n)
{
    int v = 0;

    for (; n > 0; n--, (*p)++) {
        if (**p < '0' || **p > '9')
            return -1;
        v = v * 10 + (**p - '0');
    }
    return v;
}

/* One of "-", "T", ":" and then two digits. */
static int after(const char **p, char mark)
{
    if (**p != mark)
        return -1;
    (*p)++;
    return digits(p, 2);
}

/* 2026-11-06; false: it is none. */
static bool parse_date(const char **p, struct tm *tm)
{
    struct tm again;
    time_t t;

    *tm = (struct tm){.tm_year = digits(p, 4) - 1900};
    tm->tm_mon = after(p, '-') - 1;
    tm->tm_mday = after(p, '-');
    again = *tm;
    t = timegm(&again);
    return t >= 0 && tm->tm_mon >= 0 && again.tm_mon == tm->tm_mon && again.tm_mday == tm->tm_mday;
}

/* Z or +01:00, as seconds; false: neither. */
static bool parse_zone(const char **p, int64_t *offset)
{
    char sign = **p;

    *offset = 0;
    if (sign == 'Z') {
        (*p)++;
        return true;
    }
    if (sign != '+' && sign != '-')
        return false;

    int hours = after(p, sign), minutes = after(p, ':');

    *offset = (sign == '-' ? -1 : 1) * (int64_t)(hours * 3600 + minutes * 60);
    return hours >= 0 && hours < 24 && minutes >= 0 && minutes < 60;
}

/* 2026-11-06T10:00:00Z, with a fraction or another zone; false: not RFC 3339. */
static bool parse_time(const char *text, int64_t *out)
{
    const char *p = text;
    int64_t offset;
    struct tm tm;

    if (!parse_date(&p, &tm))
        return false;
    tm.tm_hour = after(&p, 'T');
    tm.tm_min = after(&p, ':');
    tm.tm_sec = after(&p, ':');
    if (tm.tm_hour < 0 || tm.tm_hour > 23 || tm.tm_min < 0 || tm.tm_min > 59 || tm.tm_sec < 0 ||
        tm.tm_sec > 60)
        return false;
    if (*p == '.') {
        p++;
        if (digits(&p, 1) < 0)
            return false;
        p += strspn(p, "0123456789");
    }
    if (!parse_zone(&p, &offset) || *p)
        return false;
    *out = timegm(&tm) - offset;
    return true;
}

static void take_time(struct query *q, const char *name, const char *value, int64_t *out)
{
    const char *p = value;
    struct tm tm;

    if (q->feed == CLAUDE_CODE) {
        if (parse_date(&p, &tm) && !*p)
            *out = timegm(&tm);
        else
            refuse_value(q, name, "must be a date like 2026-11-06", value);
    } else if (!parse_time(value, out)) {
        refuse_value(q, name, "must be an RFC 3339 time like 2026-11-06T10:00:00Z", value);
    }
}

static void take_limit(struct query *q, const char *value)
{
    char *end = NULL;
    long long v = strtoll(value, &end, 10);

    if (*value && !*end && v >= 1 && v <= 1000000)
        q->limit = v;
    else
        refuse_value(q, "limit", "must be an integer greater than or equal to 1", value);
}

static void take_width(struct query *q, const char *value)
{
    for (size_t i = 0; i < N_WIDTHS; i++) {
        if (strcmp(value, widths[i].name) != 0 || (q->feed != MESSAGES && widths[i].seconds != DAY))
            continue;
        q->width = widths[i].seconds;
        return;
    }
    refuse_value(q, "bucket_width", q->feed == MESSAGES ? "must be 1m, 1h or 1d" : "must be 1d",
                 value);
}

static void need_beta(struct query *q, const char *name)
{
    if (!strstr(header(q->call, "anthropic-beta"), "fast-mode-2026-02-01"))
        refuse_value(q, name, "needs the header anthropic-beta: fast-mode-2026-02-01", "speed");
}

static void take_group(struct query *q, const char *value)
{
    if (q->feed == COST_REPORT) {
        if (strcmp(value, "description") == 0)
            q->group_by |= DESCRIBED;
        else if (strcmp(value, "workspace_id") == 0)
            q->group_by |= DIM_BIT(D_WORKSPACE);
        else
            refuse_value(q, "group_by[]", "must be workspace_id or description", value);
        return;
    }
    for (int d = 0; d < N_DIMS; d++) {
        if (!(feed_infos[q->feed].dims & DIM_BIT(d)) || strcmp(value, dim_names[d]) != 0)
            continue;
        q->group_by |= DIM_BIT(d);
        if (d == D_SPEED)
            need_beta(q, "group_by[]");
        return;
    }
    refuse_value(q, "group_by[]",
                 "must be account_id, api_key_id, context_window, inference_geo, model, "
                 "service_account_id, service_tier, speed or workspace_id",
                 value);
}

/* False: there is no such filter. */
static bool take_filter(struct query *q, const char *name, const char *value)
{
    for (size_t i = 0; i < sizeof filters / sizeof filters[0]; i++) {
        const char *const *v = filters[i].values;

        if (strcmp(name, filters[i].name) != 0)
            continue;
        while (*v && strcmp(*v, value) != 0)
            v++;
        if (!*v && filters[i].values[0])
            refuse_value(q, name, "no such value", value);
        if (filters[i].dim == D_SPEED)
            need_beta(q, name);
        add_filter(q, name, filters[i].dim, value);
        return true;
    }
    return false;
}

static enum MHD_Result take_parameter(void *ctx, enum MHD_ValueKind kind, const char *name,
                                      const char *value)
{
    struct query *q = ctx;
    bool buckets = q->feed != CLAUDE_CODE;

    (void)kind;
    if (!value)
        value = "";
    if (strcmp(name, "starting_at") == 0) {
        q->has_start = true;
        take_time(q, name, value, &q->start);
    } else if (strcmp(name, "limit") == 0) {
        take_limit(q, value);
    } else if (strcmp(name, "page") == 0) {
        q->page = value;
    } else if (buckets && strcmp(name, "ending_at") == 0) {
        take_time(q, name, value, &q->end);
    } else if (buckets && strcmp(name, "bucket_width") == 0) {
        take_width(q, value);
    } else if (buckets && strcmp(name, "group_by[]") == 0) {
        take_group(q, value);
    } else if (q->feed != MESSAGES || !take_filter(q, name, value)) {
        refuse_value(q, name, "there is no such parameter", value);
    }
    return MHD_YES;
}

static void check_limit(struct query *q)
{
    int64_t max = 1000, dflt = 20;
    char must[64];

    for (size_t i = 0; i < N_WIDTHS && q->feed != CLAUDE_CODE; i++) {
        if (widths[i].seconds != q->width)
            continue;
        max = widths[i].max;
        dflt = widths[i].dflt;
    }
    if (q->limit > max) {
        char value[24];

        (void)snprintf(must, sizeof must, "must be less than or equal to %" PRId64, max);
        (void)snprintf(value, sizeof value, "%" PRId64, q->limit);
        refuse_value(q, "limit", must, value);
    }
    if (q->limit < 0)
        q->limit = dflt;
}

static void check_query(struct query *q)
{
    int64_t now = sim_now(q->sim);

    if (!q->has_start)
        refuse(q, "starting_at", NULL, "starting_at: Field required");
    check_limit(q);
    if (q->end >= 0 && q->end <= q->start)
        refuse(q, "ending_at", NULL, "Invalid date range: ending date must be after starting date");
    /* seen live, and not what the message says */
    if (q->feed == COST_REPORT && q->start >= now - now % DAY - DAY)
        refuse(q, "starting_at", NULL,
               "Invalid date range: ending date must be after starting date");
    if (q->end > now && q->sim->options.refuse_future)
        refuse(q, "ending_at", NULL, "ending_at: must not be in the future");
    q->first = q->feed == CLAUDE_CODE ? 0 : q->start - q->start % q->width;
}

/* --- buckets --- */

/* A fault that has a value put in quotes has nothing to do on a text. */
static void text_begin(struct writer *w)
{
    w->b->len -= w->quoting;
    w->quoting = false;
}

static void write_dim(struct writer *w, enum dim d, const char *name, const struct row *row)
{
    char text[80];

    if (!field_begin(w, name, name))
        return;
    text_begin(w);
    if (ledger_dim_text(&w->q->sim->ledger, w->q->account, d, row->dim[d], text))
        buf_json_string(w->b, text);
    else
        buf_str(w->b, "null");
}

static void write_text(struct writer *w, const char *name, const char *text)
{
    if (!field_begin(w, name, name))
        return;
    text_begin(w);
    if (text)
        buf_json_string(w->b, text);
    else
        buf_str(w->b, "null");
}

/* `path` begins with the names of the objects that it lies in, with a point after each. */
static void write_count(struct writer *w, const char *path, int64_t v)
{
    const char *name = strrchr(path, '.');

    if (!field_begin(w, name ? name + 1 : path, path))
        return;
    buf_i64(w->b, v);
    field_end(w);
}

static void write_messages(struct writer *w, const struct row *row)
{
    const struct ledger *l = &w->q->sim->ledger;
    size_t begin = w->b->len, at;

    write_count(w, "uncached_input_tokens", row->part[P_TEXT]);
    if (field_begin(w, "cache_creation", "cache_creation")) {
        at = object_begin(w);
        write_count(w, "cache_creation.ephemeral_1h_input_tokens", row->part[P_CACHE_WRITE_1H]);
        write_count(w, "cache_creation.ephemeral_5m_input_tokens", row->part[P_CACHE_WRITE]);
        object_end(w, at);
    }
    write_count(w, "cache_read_input_tokens", row->part[P_CACHED_TEXT]);
    write_count(w, "output_tokens", row->part[P_OUT_TEXT]);
    if (field_begin(w, "server_tool_use", "server_tool_use")) {
        at = object_begin(w);
        write_count(w, "server_tool_use.web_search_requests", row->part[P_UNITS]);
        object_end(w, at);
    }
    write_dim(w, D_KEY, "api_key_id", row);
    write_dim(w, D_WORKSPACE, "workspace_id", row);
    write_dim(w, D_MODEL, "model", row);
    write_dim(w, D_TIER, "service_tier", row);
    write_dim(w, D_WINDOW, "context_window", row);
    write_dim(w, D_GEO, "inference_geo", row);
    if (!ledger_is_terse(l, w->q->account)) { /* came later */
        write_dim(w, D_ACCOUNT, "account_id", row);
        write_dim(w, D_SERVICE_ACCOUNT, "service_account_id", row);
    }
    if (w->q->group_by & DIM_BIT(D_SPEED))
        write_dim(w, D_SPEED, "speed", row);
    result_end(w, begin);
}

static void write_cost(struct writer *w, const struct row *row)
{
    size_t begin = w->b->len;

    if (field_begin(w, "amount", "amount")) {
        text_begin(w);
        buf_char(w->b, '"');
        buf_decimal(w->b, row->amount, CENT_SCALE);
        buf_char(w->b, '"');
    }
    write_text(w, "currency", "USD");
    write_dim(w, D_WORKSPACE, "workspace_id", row);
    write_dim(w, D_LINE, "description", row);
    write_text(w, "cost_type", ledger_cost_type(row->dim[D_LINE]));
    write_text(w, "token_type", ledger_token_type(row->dim[D_LINE]));
    write_dim(w, D_MODEL, "model", row);
    write_dim(w, D_TIER, "service_tier", row);
    write_dim(w, D_WINDOW, "context_window", row);
    write_dim(w, D_GEO, "inference_geo", row);
    result_end(w, begin);
}

static void write_time(struct buf *b, int64_t at)
{
    time_t t = (time_t)at;
    char text[32];
    struct tm tm;

    (void)strftime(text, sizeof text, "\"%Y-%m-%dT%H:%M:%SZ\"", gmtime_r(&t, &tm));
    buf_str(b, text);
}

static void write_bucket(struct writer *w, int64_t from)
{
    const struct query *q = w->q;
    const struct view view = {
        .group_by = q->group_by, .keep = q->n_filters ? keep_row : NULL, .ctx = q};
    int64_t now = sim_now(q->sim), to = from + q->width;

    ledger_read(&q->sim->ledger, q->account, q->feed, (struct span){from, to < now ? to : now, now},
                &view, &w->rows);
    buf_str(w->b, "{\"starting_at\":");
    write_time(w->b, from);
    buf_str(w->b, ",\"ending_at\":");
    write_time(w->b, to);
    buf_str(w->b, ",\"results\":[");
    for (size_t i = 0; i < w->rows.n; i++) {
        if (i)
            buf_char(w->b, ',');
        write_row(w, &w->rows.at[i], q->feed == MESSAGES ? write_messages : write_cost);
    }
    buf_str(w->b, "]}");
}

/* Whole buckets, never clipped: the last one is open, and ends in the future. With `ending_at` only
 * those that have ended by then. Answers where the next page begins. */
static int64_t write_buckets(struct writer *w, const struct token *t, bool *more)
{
    const struct query *q = w->q;
    int64_t now = sim_now(q->sim), n = 0, next = t->start, last = now - now % q->width;

    if (q->end >= 0 && q->end - q->width < last)
        last = q->end - q->width;
    if (!effects_find(w->fx, DO_EMPTY_PAGE))
        while (n < q->limit && next + n * q->width <= last)
            n++;
    for (int64_t i = 0; i < n; i++) {
        int64_t from = next + (effects_find(w->fx, DO_REVERSE_BUCKETS) ? n - 1 - i : i) * q->width;

        if (i)
            buf_char(w->b, ',');
        write_bucket(w, from);
        if (i == 0 && effects_find(w->fx, DO_DUPLICATE_BUCKET)) {
            buf_char(w->b, ',');
            write_bucket(w, from);
        }
    }
    next += n * q->width;
    *more = next <= last;
    return next;
}

/* --- Claude Code --- */

static void write_metrics(struct writer *w, const struct code_record *c)
{
    size_t at, lines;

    if (!field_begin(w, "core_metrics", "core_metrics"))
        return;
    at = object_begin(w);
    write_count(w, "core_metrics.num_sessions", c->sessions);
    if (field_begin(w, "lines_of_code", "core_metrics.lines_of_code")) {
        lines = object_begin(w);
        write_count(w, "core_metrics.lines_of_code.added", c->added);
        write_count(w, "core_metrics.lines_of_code.removed", c->removed);
        object_end(w, lines);
    }
    write_count(w, "core_metrics.commits_by_claude_code", c->commits);
    write_count(w, "core_metrics.pull_requests_by_claude_code", c->pull_requests);
    object_end(w, at);
}

static void write_tools(struct writer *w, const struct code_record *c)
{
    char path[80];
    size_t at, tool;

    if (!field_begin(w, "tool_actions", "tool_actions"))
        return;
    at = object_begin(w);
    for (size_t i = 0; i < CODE_TOOLS; i++) {
        (void)snprintf(path, sizeof path, "tool_actions.%s", code_tools[i]);
        if (c->tools[i][0] < 0 || !field_begin(w, code_tools[i], path))
            continue;
        tool = object_begin(w);
        (void)snprintf(path, sizeof path, "tool_actions.%s.accepted", code_tools[i]);
        write_count(w, path, c->tools[i][0]);
        (void)snprintf(path, sizeof path, "tool_actions.%s.rejected", code_tools[i]);
        write_count(w, path, c->tools[i][1]);
        object_end(w, tool);
    }
    object_end(w, at);
}

static void write_model(struct writer *w, const struct code_record *c, size_t m)
{
    const int64_t *tokens = c->models[m].tokens;
    size_t begin = object_begin(w), at;

    write_text(w, "model", c->models[m].name);
    if (field_begin(w, "tokens", "tokens")) {
        at = object_begin(w);
        write_count(w, "tokens.input", tokens[CODE_INPUT]);
        write_count(w, "tokens.output", tokens[CODE_OUTPUT]);
        write_count(w, "tokens.cache_read", tokens[CODE_CACHE_READ]);
        write_count(w, "tokens.cache_creation", tokens[CODE_CACHE_CREATION]);
        object_end(w, at);
    }
    if (field_begin(w, "estimated_cost", "estimated_cost")) {
        at = object_begin(w);
        if (field_begin(w, "amount", "estimated_cost.amount")) {
            buf_json_decimal(w->b, c->models[m].cost, CENT_SCALE);
            field_end(w);
        }
        if (field_begin(w, "currency", "estimated_cost.currency"))
            buf_str(w->b, "\"USD\"");
        object_end(w, at);
    }
    object_end(w, begin);
}

static void write_actor(struct writer *w, const struct code_record *c)
{
    size_t at;

    if (!field_begin(w, "actor", "actor"))
        return;
    at = object_begin(w);
    if (field_begin(w, "type", "actor.type"))
        buf_str(w->b, c->api_actor ? "\"api_actor\"" : "\"user_actor\"");
    if (c->api_actor && field_begin(w, "api_key_name", "actor.api_key_name"))
        buf_json_string(w->b, c->actor);
    if (!c->api_actor && field_begin(w, "email_address", "actor.email_address"))
        buf_json_string(w->b, c->actor);
    object_end(w, at);
}

static void write_record(struct writer *w, const struct code_record *c)
{
    size_t begin = w->b->len;
    char organization[40];

    (void)snprintf(organization, sizeof organization, "00000000-0000-4000-8000-%012" PRIu32,
                   w->q->account);
    if (field_begin(w, "date", "date"))
        write_time(w->b, w->q->start);
    write_actor(w, c);
    write_text(w, "organization_id", organization);
    write_text(w, "customer_type", c->subscription ? "subscription" : "api");
    write_text(w, "subscription_type", c->subscription);
    write_text(w, "terminal_type", c->terminal);
    write_metrics(w, c);
    write_tools(w, c);
    if (field_begin(w, "model_breakdown", "model_breakdown")) {
        buf_char(w->b, '[');
        for (size_t m = 0; m < c->n_models; m++) {
            if (m)
                buf_char(w->b, ',');
            write_model(w, c, m);
        }
        buf_char(w->b, ']');
    }
    result_end(w, begin);
}

static void split_counts(int64_t *first, int64_t *second, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        first[i] = second[i] / 3;
        second[i] -= first[i];
    }
}

/* One record as two that add up to it. */
static void split_record(struct code_record *first, struct code_record *second)
{
    split_counts(&first->sessions, &second->sessions, 1);
    split_counts(&first->added, &second->added, 1);
    split_counts(&first->removed, &second->removed, 1);
    split_counts(&first->commits, &second->commits, 1);
    split_counts(&first->pull_requests, &second->pull_requests, 1);
    for (size_t i = 0; i < CODE_TOOLS; i++)
        if (first->tools[i][0] >= 0)
            split_counts(first->tools[i], second->tools[i], 2);
    for (size_t i = 0; i < first->n_models; i++) {
        split_counts(first->models[i].tokens, second->models[i].tokens, N_CODE_TOKENS);
        first->models[i].cost = second->models[i].cost / 3;
        second->models[i].cost -= first->models[i].cost;
    }
}

static void write_one(struct writer *w, const struct code_record *c, bool again)
{
    struct code_record parts[2] = {*c, *c};
    bool split = effects_find(w->fx, DO_SPLIT_ROWS);

    if (split)
        split_record(&parts[0], &parts[1]);
    write_record(w, &parts[0]);
    if (!split && !again && !effects_find(w->fx, DO_DUPLICATE_ROWS))
        return;
    buf_char(w->b, ',');
    write_record(w, &parts[1]);
}

/* The records from number t->start on, at most `limit`: pages end where they end, inside the day.
 */
static int64_t write_records(struct writer *w, const struct token *t, bool *more)
{
    const struct query *q = w->q;
    struct code_records day = {0};
    size_t from = (size_t)t->start, n = 0;

    ledger_code_day(&q->sim->ledger, q->account, q->start, sim_now(q->sim), &day);
    if (from < day.n && !effects_find(w->fx, DO_EMPTY_PAGE))
        n = day.n - from < (size_t)q->limit ? day.n - from : (size_t)q->limit;
    for (size_t i = 0; i < n; i++) {
        if (i)
            buf_char(w->b, ',');
        write_one(w, &day.at[from + (effects_find(w->fx, DO_REVERSE_BUCKETS) ? n - 1 - i : i)],
                  i == 0 && effects_find(w->fx, DO_DUPLICATE_BUCKET));
    }
    *more = from + n < day.n;
    free(day.at);
    return (int64_t)(from + n);
}

/* --- the page --- */

static void write_page(struct query *q, const struct token *t, const struct effects *fx)
{
    struct writer w = {.b = &q->answer->body, .fx = fx, .q = q};
    bool more = false;
    int64_t next;

    buf_str(w.b, "{\"data\":[");
    next = q->feed == CLAUDE_CODE ? write_records(&w, t, &more) : write_buckets(&w, t, &more);
    buf_char(w.b, ']');
    write_cursor(&w, t, next, more);
    buf_char(w.b, '}');
    q->answer->status = 200;
    q->answer->content_type = "application/json";
    free(w.rows.at);
}

void anthropic_answer(struct call *c, struct answer *a)
{
    static const struct api api = {authenticate, take_parameter, check_query, write_page};
    static const struct {
        const char *path;
        enum feed_id feed;
    } paths[] = {{"/v1/organizations/usage_report/messages", MESSAGES},
                 {"/v1/organizations/cost_report", COST_REPORT},
                 {"/v1/organizations/usage_report/claude_code", CLAUDE_CODE}};

    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        if (strcmp(c->path, paths[i].path) != 0)
            continue;
        if (strcmp(c->method, "GET") == 0)
            serve_feed(c, (int)paths[i].feed, &api, a);
        else
            answer_error(a, 405, NULL, NULL, "Method Not Allowed");
        return;
    }
    answer_error(a, 404, NULL, NULL, "Not Found");
}
