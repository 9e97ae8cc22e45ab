/* record.h - one usage record: a row of usage_metrics as it travels from the normalizer to the
 * writer. */
#ifndef UF_RECORD_H
#define UF_RECORD_H

#include <stdbool.h>
#include <stdint.h>

#include "common/text.h"

enum record_count {
    COUNT_INPUT_TOKENS, /* all input, cached included, for every provider */
    COUNT_CACHED_INPUT_TOKENS,
    COUNT_CACHE_WRITE_TOKENS,
    COUNT_INPUT_AUDIO_TOKENS,
    COUNT_OUTPUT_AUDIO_TOKENS,
    COUNT_OUTPUT_TOKENS,
    COUNT_NUM_REQUESTS,
    N_RECORD_COUNTS,
};

enum record_text {
    /* dimensions: part of the row's key */
    TEXT_PROJECT_ID,
    TEXT_USER_ID,
    TEXT_API_KEY_ID,
    TEXT_MODEL,
    TEXT_SERVICE_TIER,
    TEXT_LINE_ITEM,
    TEXT_DIMS, /* JSON object, members sorted by name; null if none */
    /* measures */
    TEXT_QUANTITY, /* plain decimal */
    TEXT_QUANTITY_UNIT,
    TEXT_COST_AMOUNT, /* plain decimal, whole currency units */
    TEXT_CURRENCY,    /* upper-case ISO 4217 */
    TEXT_EXTRA,       /* JSON object of numbers we have no column for; null if none */
    N_RECORD_TEXTS,
};
#define N_RECORD_DIMENSIONS (TEXT_DIMS + 1)

#define COUNT_NULL INT64_MIN /* not reported; 0 is a reported zero */

enum tristate { TRI_NULL = -1, TRI_FALSE = 0, TRI_TRUE = 1 };

struct record {
    int64_t bucket_start_us;
    uint32_t bucket_seconds;
    int8_t batch; /* enum tristate */
    uint8_t row_key[16];
    int64_t row_hash;
    int64_t counts[N_RECORD_COUNTS];
    struct text texts[N_RECORD_TEXTS]; /* borrowed */
};

/* A record of nothing: every count COUNT_NULL, every text null, batch TRI_NULL. */
void record_clear(struct record *r);

/* Fills row_key and row_hash from the rest.
 *
 * row_key: XXH3-128 (big-endian canonical form) over: feed, then bucket_seconds as decimal text,
 * then the dimensions in the order project_id, user_id, api_key_id, model, service_tier, batch
 * ("true"/"false"), line_item, dims. Each part is its length as uint32 little-endian and its bytes;
 * null is the length 0xffffffff alone, and the empty text counts as null, so absent, null and ""
 * make one row. bucket_start is a column of the primary key and not hashed. row_hash: XXH3-64 over
 * the counts (int64 little-endian) and the measure texts, written the same way; quantity and cost
 * without trailing zeros after the point, so "1.50" and "1.5" are one value. */
void record_digest(struct record *r, struct text feed);

#endif
