#include "writer/copy.h"

#include "common/decimal.h"

#define N_COLUMNS 30

#define COLUMNS                                                                                    \
    "account_id, provider, feed, bucket_start, bucket_seconds, row_key, row_hash, project_id, "    \
    "user_id, api_key_id, model, service_tier, batch, line_item, dims, input_tokens, "             \
    "cached_input_tokens, cache_write_tokens, input_audio_tokens, output_audio_tokens, "           \
    "output_tokens, num_requests, quantity, quantity_unit, cost_amount, currency, extra, "         \
    "first_seen_at, changed_at, job_id"

const char copy_sql[] = "COPY usage_metrics (" COLUMNS ") FROM STDIN (FORMAT binary); ";
const char copy_guarded_sql[] =
    "CREATE TEMPORARY TABLE uf_incoming (LIKE usage_metrics) ON COMMIT DROP; "
    "COPY pg_temp.uf_incoming (" COLUMNS ") FROM STDIN (FORMAT binary); "
    "INSERT INTO usage_metrics (" COLUMNS ") SELECT " COLUMNS " FROM pg_temp.uf_incoming; ";

static void put_be(struct buf *b, uint64_t v, size_t bytes)
{
    char out[8];

    for (size_t i = 0; i < bytes; i++)
        out[i] = (char)(v >> (8 * (bytes - 1 - i)));
    buf_append(b, out, bytes);
}

static void put_null(struct buf *b)
{
    put_be(b, UINT32_MAX, 4);
}

static void put_int64(struct buf *b, int64_t v)
{
    put_be(b, 8, 4);
    put_be(b, (uint64_t)v, 8);
}

static void put_bytes(struct buf *b, const void *at, size_t len)
{
    put_be(b, len, 4);
    buf_append(b, at, len);
}

static void put_text(struct buf *b, struct text t)
{
    if (t.at)
        put_bytes(b, t.at, t.len);
    else
        put_null(b);
}

static void put_jsonb(struct buf *b, struct text t)
{
    if (!t.at) {
        put_null(b);
        return;
    }
    put_be(b, t.len + 1, 4);
    put_be(b, 1, 1); /* the version of jsonb's binary form */
    buf_append(b, t.at, t.len);
}

static void put_numeric(struct buf *b, struct text t)
{
    size_t length_at;

    if (!t.at) {
        put_null(b);
        return;
    }
    length_at = b->len;
    put_be(b, 0, 4);
    decimal_to_pg(b, t);
    for (size_t i = 0; i < 4; i++)
        b->at[length_at + i] = (char)((b->len - length_at - 4) >> (8 * (3 - i)));
}

static void put_count(struct buf *b, int64_t v)
{
    if (v == COUNT_NULL)
        put_null(b);
    else
        put_int64(b, v);
}

void copy_begin(struct buf *b)
{
    static const char signature[] = "PGCOPY\n\377\r\n"; /* its own NUL belongs to it */

    buf_append(b, signature, sizeof(signature));
    put_be(b, 0, 4); /* flags */
    put_be(b, 0, 4); /* length of the header's extension */
}

void copy_row(struct buf *b, const struct origin *origin, struct text feed, const struct record *r,
              int64_t now_us)
{
    put_be(b, N_COLUMNS, 2);
    put_int64(b, origin->account_id);
    put_text(b, origin->provider);
    put_text(b, feed);
    put_int64(b, r->bucket_start_us - PG_EPOCH_US);
    put_be(b, 4, 4);
    put_be(b, r->bucket_seconds, 4);
    put_bytes(b, r->row_key, sizeof(r->row_key));
    put_int64(b, r->row_hash);
    for (int i = TEXT_PROJECT_ID; i <= TEXT_SERVICE_TIER; i++)
        put_text(b, r->texts[i]);
    if (r->batch == TRI_NULL)
        put_null(b);
    else
        put_bytes(b, r->batch == TRI_TRUE ? "\1" : "\0", 1);
    put_text(b, r->texts[TEXT_LINE_ITEM]);
    put_jsonb(b, r->texts[TEXT_DIMS]);
    for (size_t i = 0; i < N_RECORD_COUNTS; i++)
        put_count(b, r->counts[i]);
    put_numeric(b, r->texts[TEXT_QUANTITY]);
    put_text(b, r->texts[TEXT_QUANTITY_UNIT]);
    put_numeric(b, r->texts[TEXT_COST_AMOUNT]);
    put_text(b, r->texts[TEXT_CURRENCY]);
    put_jsonb(b, r->texts[TEXT_EXTRA]);
    put_int64(b, now_us - PG_EPOCH_US);
    put_int64(b, now_us - PG_EPOCH_US);
    put_bytes(b, origin->job_id.at, sizeof(origin->job_id.at));
}

void copy_end(struct buf *b)
{
    put_be(b, UINT16_MAX, 2);
}
