/* GET /_sim/ledger: the rows that usage_metrics must hold, as CSV, streamed. */
#include "tests/sim/sim.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum column {
    C_INPUT,
    C_CACHED,
    C_CACHE_WRITE,
    C_INPUT_AUDIO,
    C_OUTPUT_AUDIO,
    C_OUTPUT,
    C_REQUESTS,
    N_COLUMNS,
};

static const struct {
    const char *name;
    enum column column;
} columns[] = {
    {"input_tokens", C_INPUT},
    {"input_cached_tokens", C_CACHED},
    {"input_cache_write_tokens", C_CACHE_WRITE},
    {"input_audio_tokens", C_INPUT_AUDIO},
    {"output_audio_tokens", C_OUTPUT_AUDIO},
    {"output_tokens", C_OUTPUT},
    {"num_model_requests", C_REQUESTS},
};

static const char header[] =
    "account,feed,bucket_start,bucket_seconds,project_id,user_id,api_key_id,model,service_tier,"
    "batch,line_item,dims,input_tokens,cached_input_tokens,cache_write_tokens,input_audio_tokens,"
    "output_audio_tokens,output_tokens,num_requests,quantity,quantity_unit,cost_amount,currency,"
    "extra,provider\n";

struct dump {
    const struct sim *sim;
    uint32_t account, last;
    unsigned feeds; /* one bit each */
    int64_t from, to, bucket;
    int64_t now;
    unsigned feed; /* of the next bucket, which begins at `at` */
    int64_t at;
    struct rows rows;
    struct code_records records;
    struct buf out;
    size_t sent;
};

static void write_dim(struct dump *d, enum dim dim, const struct row *row)
{
    char text[80];

    if (ledger_dim_text(&d->sim->ledger, d->account, dim, row->dim[dim], text))
        buf_csv_string(&d->out, text);
    buf_char(&d->out, ',');
}

/* A JSON object in the making; NULL is left out. */
static void add_text(struct buf *json, const char *name, const char *text)
{
    if (!text)
        return;
    buf_printf(json, "%c\"%s\":", json->len ? ',' : '{', name);
    buf_json_string(json, text);
}

static void add_number(struct buf *json, const char *name, int64_t v)
{
    buf_printf(json, "%c\"%s\":%" PRId64, json->len ? ',' : '{', name, v);
}

/* Writes the object as a field, and nothing if it has no member. */
static void write_json(struct dump *d, struct buf *json)
{
    if (json->len) {
        buf_add(json, "}", 2);
        buf_csv_string(&d->out, json->at);
    }
    buf_free(json);
}

/* What has no column of its own, by name. */
static void write_dims(struct dump *d, const struct row *row)
{
    static const enum dim others[] = {D_LEVEL, D_WINDOW, D_GEO,  D_SERVICE_ACCOUNT,
                                      D_SIZE,  D_SOURCE, D_STORE};
    struct buf json = {0};
    char text[80];

    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        if (d->feed == COST_REPORT && others[i] == D_GEO)
            add_text(&json, "cost_type", ledger_cost_type(row->dim[D_LINE]));
        if (ledger_dim_text(&d->sim->ledger, d->account, others[i], row->dim[others[i]], text))
            add_text(&json, dim_names[others[i]], text);
    }
    if (d->feed == COST_REPORT)
        add_text(&json, "token_type", ledger_token_type(row->dim[D_LINE]));
    write_json(d, &json);
    buf_char(&d->out, ',');
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct measure *)a)->name, ((const struct measure *)b)->name);
}

/* Sorts the measures into columns, quantity and extra. */
static void write_usage(struct dump *d, const struct row *row)
{
    const struct feed_info *f = &feed_infos[d->feed];
    struct measure m[MAX_MEASURES];
    const struct measure *in[N_COLUMNS] = {NULL};
    const struct measure *quantity = NULL;
    struct buf extra = {0};
    size_t n = ledger_measures(&d->sim->ledger, d->account, (enum feed_id)d->feed, row, m);

    qsort(m, n, sizeof m[0], by_name);
    for (size_t i = 0; i < n; i++) {
        size_t c = 0;

        while (c < N_COLUMNS && strcmp(columns[c].name, m[i].name) != 0)
            c++;
        if (c < N_COLUMNS)
            in[columns[c].column] = &m[i];
        else if (f->unit_field && strcmp(m[i].name, f->unit_field) == 0)
            quantity = &m[i];
        else
            add_number(&extra, m[i].name, m[i].value);
    }
    for (int c = 0; c < N_COLUMNS; c++) {
        if (in[c])
            buf_i64(&d->out, in[c]->value);
        buf_char(&d->out, ',');
    }
    if (quantity)
        buf_i64(&d->out, quantity->value);
    buf_printf(&d->out, ",%s,,,", quantity ? f->unit : "");
    write_json(d, &extra);
}

static void write_messages(struct dump *d, const struct row *row)
{
    const int64_t *p = row->part;
    int64_t written = p[P_CACHE_WRITE] + p[P_CACHE_WRITE_1H];
    struct buf extra = {0};

    buf_printf(&d->out, "%" PRId64 ",%" PRId64 ",%" PRId64 ",,,%" PRId64 ",,%" PRId64 ",%s,,,",
               p[P_TEXT] + p[P_CACHED_TEXT] + written, p[P_CACHED_TEXT], written, p[P_OUT_TEXT],
               p[P_UNITS], feed_infos[MESSAGES].unit);
    add_number(&extra, "cache_creation.ephemeral_1h_input_tokens", p[P_CACHE_WRITE_1H]);
    add_number(&extra, "cache_creation.ephemeral_5m_input_tokens", p[P_CACHE_WRITE]);
    write_json(d, &extra);
}

static void write_cost(struct dump *d, const struct row *row)
{
    const char *unit = d->feed == COSTS ? ledger_line_unit(row->dim[D_LINE]) : NULL;

    for (int c = 0; c < N_COLUMNS; c++)
        buf_char(&d->out, ',');
    if (row->has_quantity)
        buf_decimal(&d->out, row->quantity, COST_QUANTITY_SCALE);
    buf_printf(&d->out, ",%s,", row->has_quantity && unit ? unit : "");
    buf_decimal(&d->out, row->amount, COST_SCALE);
    buf_str(&d->out, ",USD,");
}

static int64_t width_of(const struct dump *d)
{
    return feed_infos[d->feed].daily ? DAY : d->bucket;
}

static void begin_line(struct dump *d)
{
    buf_printf(&d->out, "%" PRIu32 ",%s,%" PRId64 ",%" PRId64 ",", d->account,
               feed_infos[d->feed].name, d->at, width_of(d));
}

static void end_line(struct dump *d)
{
    buf_printf(&d->out, ",%s\n", provider_names[feed_provider((enum feed_id)d->feed)]);
}

/* Who and where, up to the first count; the person as the lower-cased address. */
static void begin_code_line(struct dump *d, const struct code_record *c, const char *model)
{
    struct buf dims = {0};
    char email[sizeof c->actor];
    size_t n = 0;

    for (; c->actor[n]; n++)
        email[n] = (char)tolower((unsigned char)c->actor[n]);
    email[n] = '\0';
    begin_line(d);
    buf_char(&d->out, ',');
    if (!c->api_actor)
        buf_csv_string(&d->out, email);
    buf_printf(&d->out, ",,%s,,,,", model ? model : "");
    add_text(&dims, "actor.api_key_name", c->api_actor ? c->actor : NULL);
    add_text(&dims, "actor.type", c->api_actor ? "api_actor" : "user_actor");
    add_text(&dims, "customer_type", c->subscription ? "subscription" : "api");
    add_text(&dims, "subscription_type", c->subscription);
    add_text(&dims, "terminal_type", c->terminal);
    write_json(d, &dims);
    buf_char(&d->out, ',');
}

static void write_code_sessions(struct dump *d, const struct code_record *c)
{
    struct buf extra = {0};
    char name[80];

    begin_code_line(d, c, NULL);
    buf_printf(&d->out, ",,,,,,,%" PRId64 ",sessions,,,", c->sessions);
    add_number(&extra, "core_metrics.commits_by_claude_code", c->commits);
    add_number(&extra, "core_metrics.lines_of_code.added", c->added);
    add_number(&extra, "core_metrics.lines_of_code.removed", c->removed);
    add_number(&extra, "core_metrics.pull_requests_by_claude_code", c->pull_requests);
    for (size_t i = 0; i < CODE_TOOLS; i++) {
        if (c->tools[i][0] < 0)
            continue;
        (void)snprintf(name, sizeof name, "tool_actions.%s.accepted", code_tools[i]);
        add_number(&extra, name, c->tools[i][0]);
        (void)snprintf(name, sizeof name, "tool_actions.%s.rejected", code_tools[i]);
        add_number(&extra, name, c->tools[i][1]);
    }
    write_json(d, &extra);
    end_line(d);
}

static void write_code_model(struct dump *d, const struct code_record *c, size_t m)
{
    const int64_t *t = c->models[m].tokens;
    struct buf extra = {0};

    begin_code_line(d, c, c->models[m].name);
    buf_printf(&d->out, "%" PRId64 ",%" PRId64 ",%" PRId64 ",,,%" PRId64 ",,,,,USD,",
               t[CODE_INPUT] + t[CODE_CACHE_READ] + t[CODE_CACHE_CREATION], t[CODE_CACHE_READ],
               t[CODE_CACHE_CREATION], t[CODE_OUTPUT]);
    buf_str(&extra, "{\"estimated_cost\":");
    buf_decimal(&extra, c->models[m].cost, COST_SCALE);
    write_json(d, &extra);
    end_line(d);
}

static void write_code_day(struct dump *d)
{
    ledger_code_day(&d->sim->ledger, d->account, d->at, d->now, &d->records);
    for (size_t i = 0; i < d->records.n; i++) {
        write_code_sessions(d, &d->records.at[i]);
        for (size_t m = 0; m < d->records.at[i].n_models; m++)
            write_code_model(d, &d->records.at[i], m);
    }
    d->at += DAY;
}

/* project_id to line_item: Anthropic's workspaces and accounts in the columns of projects, users.
 */
static void write_columns(struct dump *d, const struct row *row)
{
    static const enum dim order[N_PROVIDERS][7] = {
        [OPENAI] = {D_PROJECT, D_USER, D_KEY, D_MODEL, D_TIER, D_BATCH, D_LINE},
        [ANTHROPIC] = {D_WORKSPACE, D_ACCOUNT, D_KEY, D_MODEL, D_TIER, D_BATCH, D_LINE},
    };

    for (size_t i = 0; i < 7; i++)
        write_dim(d, order[feed_provider((enum feed_id)d->feed)][i], row);
}

static void write_bucket(struct dump *d)
{
    int64_t width = width_of(d);
    struct view view = {.group_by = feed_infos[d->feed].dims & ~DIM_BIT(D_SPEED)};
    struct span span = {d->at, d->at + width < d->now ? d->at + width : d->now, d->now};

    if (d->feed == COSTS && d->at < COSTS_BY_KEY_FROM)
        view.group_by &= ~DIM_BIT(D_KEY);
    ledger_read(&d->sim->ledger, d->account, (enum feed_id)d->feed, span, &view, &d->rows);
    for (size_t i = 0; i < d->rows.n; i++) {
        const struct row *row = &d->rows.at[i];

        begin_line(d);
        write_columns(d, row);
        write_dims(d, row);
        if (d->feed == COSTS || d->feed == COST_REPORT)
            write_cost(d, row);
        else if (d->feed == MESSAGES)
            write_messages(d, row);
        else
            write_usage(d, row);
        end_line(d);
    }
    d->at += width;
}

static void start_feed(struct dump *d)
{
    d->at = d->from - d->from % width_of(d);
}

/* Goes on to the next bucket that is to be written. False: that was all. */
static bool next_bucket(struct dump *d)
{
    const int64_t end = d->to < d->now ? d->to : d->now;

    for (;;) {
        if (d->at < end && d->feeds & (1U << d->feed) &&
            feed_provider((enum feed_id)d->feed) == ledger_provider(&d->sim->ledger, d->account))
            return true;
        if (++d->feed == N_FEEDS) {
            if (d->account == d->last) {
                d->feed--;
                d->feeds = 0;
                return false;
            }
            d->account++;
            d->feed = 0;
        }
        start_feed(d);
    }
}

static ssize_t read_more(void *ctx, uint64_t pos, char *to, size_t max)
{
    struct dump *d = ctx;

    (void)pos;
    if (d->sent == d->out.len) {
        d->out.len = d->sent = 0;
        while (d->out.len < (size_t)256 * 1024 && next_bucket(d)) {
            if (d->feed == CLAUDE_CODE)
                write_code_day(d);
            else
                write_bucket(d);
        }
        if (d->out.len == 0)
            return MHD_CONTENT_READER_END_OF_STREAM;
    }
    if (max > d->out.len - d->sent)
        max = d->out.len - d->sent;
    memcpy(to, d->out.at + d->sent, max);
    d->sent += max;
    return (ssize_t)max;
}

static void dump_free(void *ctx)
{
    struct dump *d = ctx;

    buf_free(&d->out);
    free(d->rows.at);
    free(d->records.at);
    free(d);
}

static int64_t argument(struct call *c, const char *name, int64_t dflt)
{
    const char *v = MHD_lookup_connection_value(c->connection, MHD_GET_ARGUMENT_KIND, name);

    return v ? strtoll(v, NULL, 10) : dflt;
}

/* feeds=completions,costs; absent = all. 0: an unknown name. */
static unsigned feed_bits(struct call *c)
{
    const char *v = MHD_lookup_connection_value(c->connection, MHD_GET_ARGUMENT_KIND, "feeds");
    unsigned bits = 0;
    char word[64];

    if (!v)
        return (1U << N_FEEDS) - 1;
    while (*v) {
        size_t n = strcspn(v, ",");

        (void)snprintf(word, sizeof word, "%.*s", (int)n, v);
        if (feed_by_name(word) < 0)
            return 0;
        bits |= 1U << (unsigned)feed_by_name(word);
        v += n + (v[n] == ',');
    }
    return bits;
}

struct MHD_Response *dump_response(struct call *c, struct answer *a)
{
    const char *range =
        MHD_lookup_connection_value(c->connection, MHD_GET_ARGUMENT_KIND, "accounts");
    struct sim *s = c->sim;
    struct dump *d = xcalloc(1, sizeof *d);
    unsigned long first = 0, last = s->ledger.accounts - 1;
    char *end = NULL;

    if (range) {
        first = last = strtoul(range, &end, 10);
        if (*end == '-')
            last = strtoul(end + 1, &end, 10);
    }
    *d = (struct dump){
        .sim = s, .account = (uint32_t)first, .last = (uint32_t)last, .feeds = feed_bits(c)};
    d->now = sim_now(s);
    d->from = argument(c, "from", s->ledger.history_from);
    d->to = argument(c, "to", d->now);
    d->bucket = argument(c, "bucket", HOUR);
    if ((end && *end) || first > last || last >= s->ledger.accounts || d->feeds == 0 ||
        d->from < 0 || (d->bucket != 60 && d->bucket != HOUR && d->bucket != DAY)) {
        dump_free(d);
        answer_error(a, 400, NULL, NULL,
                     "ledger?accounts=A-B&from=UNIX&to=UNIX&bucket=60|3600|86400&feeds=F,G: one of "
                     "these is out of range.");
        return NULL;
    }
    start_feed(d);
    buf_str(&d->out, header);
    a->status = 200;
    a->content_type = "text/csv";

    return MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, (size_t)64 * 1024, read_more, d,
                                             dump_free);
}
