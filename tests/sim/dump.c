/* GET /_sim/ledger: the rows that usage_metrics must hold, as CSV, streamed. */
#include "tests/sim/sim.h"

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
    "extra\n";

struct dump {
    const struct sim *sim;
    uint32_t account, last;
    unsigned feeds; /* one bit each */
    int64_t from, to, bucket;
    int64_t now;
    unsigned feed; /* of the next bucket, which begins at `at` */
    int64_t at;
    struct rows rows;
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

static void write_dims(struct dump *d, const struct row *row)
{
    static const enum dim others[] = {D_LEVEL, D_SIZE, D_SOURCE, D_STORE}; /* sorted by name */
    struct buf json = {0};
    char text[80];

    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        if (!ledger_dim_text(&d->sim->ledger, d->account, others[i], row->dim[others[i]], text))
            continue;
        buf_printf(&json, "%c\"%s\":", json.len ? ',' : '{', dim_names[others[i]]);
        buf_json_string(&json, text);
    }
    if (json.len) {
        buf_add(&json, "}", 2);
        buf_csv_string(&d->out, json.at);
    }
    buf_char(&d->out, ',');
    buf_free(&json);
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
    size_t n = ledger_measures(d->account, (enum feed_id)d->feed, row, m);

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
            buf_printf(&extra, "%c\"%s\":%" PRId64, extra.len ? ',' : '{', m[i].name, m[i].value);
    }
    for (int c = 0; c < N_COLUMNS; c++) {
        if (in[c])
            buf_i64(&d->out, in[c]->value);
        buf_char(&d->out, ',');
    }
    if (quantity)
        buf_i64(&d->out, quantity->value);
    buf_printf(&d->out, ",%s,,,", quantity ? f->unit : "");
    if (extra.len) {
        buf_add(&extra, "}", 2);
        buf_csv_string(&d->out, extra.at);
    }
    buf_free(&extra);
}

static void write_cost(struct dump *d, const struct row *row)
{
    const char *unit = ledger_line_unit(row->dim[D_LINE]);

    for (int c = 0; c < N_COLUMNS; c++)
        buf_char(&d->out, ',');
    if (row->has_quantity)
        buf_decimal(&d->out, row->quantity, COST_QUANTITY_SCALE);
    buf_printf(&d->out, ",%s,", row->has_quantity && unit ? unit : "");
    buf_decimal(&d->out, row->amount, COST_SCALE);
    buf_str(&d->out, ",USD,");
}

static void write_bucket(struct dump *d)
{
    int64_t width = d->feed == COSTS ? DAY : d->bucket;
    struct view view = {.group_by = feed_infos[d->feed].dims};
    struct span span = {d->at, d->at + width < d->now ? d->at + width : d->now, d->now};

    if (d->feed == COSTS && d->at < COSTS_BY_KEY_FROM)
        view.group_by &= ~DIM_BIT(D_KEY);
    ledger_read(&d->sim->ledger, d->account, (enum feed_id)d->feed, span, &view, &d->rows);
    for (size_t i = 0; i < d->rows.n; i++) {
        const struct row *row = &d->rows.at[i];

        buf_printf(&d->out, "%" PRIu32 ",%s,%" PRId64 ",%" PRId64 ",", d->account,
                   feed_infos[d->feed].name, d->at, width);
        for (int dim = D_PROJECT; dim <= D_MODEL; dim++)
            write_dim(d, (enum dim)dim, row);
        write_dim(d, D_TIER, row);
        write_dim(d, D_BATCH, row);
        write_dim(d, D_LINE, row);
        write_dims(d, row);
        if (d->feed == COSTS)
            write_cost(d, row);
        else
            write_usage(d, row);
        buf_char(&d->out, '\n');
    }
    d->at += width;
}

static void start_feed(struct dump *d)
{
    d->at = d->from - d->from % (d->feed == COSTS ? DAY : d->bucket);
}

/* Goes on to the next bucket that is to be written. False: that was all. */
static bool next_bucket(struct dump *d)
{
    const int64_t end = d->to < d->now ? d->to : d->now;

    for (;;) {
        if (d->at < end && d->feeds & (1U << d->feed))
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
        while (d->out.len < (size_t)256 * 1024 && next_bucket(d))
            write_bucket(d);
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
