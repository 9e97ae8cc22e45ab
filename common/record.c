#include "common/record.h"

#include <endian.h>
#include <inttypes.h>
#include <stdio.h>
#define XXH_STATIC_LINKING_ONLY /* the state on our stack */
#include <xxhash.h>

/* The order of the dimensions is part of the stored key: never to be changed. */
static const enum record_text before_batch[] = {TEXT_PROJECT_ID, TEXT_USER_ID, TEXT_API_KEY_ID,
                                                TEXT_MODEL, TEXT_SERVICE_TIER};
static const enum record_text after_batch[] = {TEXT_LINE_ITEM, TEXT_DIMS};
static const enum record_text measures[] = {TEXT_QUANTITY, TEXT_QUANTITY_UNIT, TEXT_COST_AMOUNT,
                                            TEXT_CURRENCY, TEXT_EXTRA};

void record_clear(struct record *r)
{
    *r = (struct record){.batch = TRI_NULL};
    for (size_t i = 0; i < N_RECORD_COUNTS; i++)
        r->counts[i] = COUNT_NULL;
}

struct hash {
    XXH3_state_t state;
    XXH_errorcode (*update)(XXH3_state_t *state, const void *at, size_t len);
};

static void hash_bytes(struct hash *h, const void *at, size_t len)
{
    h->update(&h->state, at, len); /* fails only on a NULL state */
}

static void hash_text(struct hash *h, struct text t)
{
    uint32_t len = htole32(t.len ? (uint32_t)t.len : UINT32_MAX); /* "" is null */

    hash_bytes(h, &len, sizeof(len));
    if (t.len)
        hash_bytes(h, t.at, t.len);
}

/* "1.50" -> "1.5", "2.00" -> "2". */
static struct text without_zeros(struct text t)
{
    if (!t.at || !memchr(t.at, '.', t.len))
        return t;
    while (t.at[t.len - 1] == '0')
        t.len--;
    if (t.at[t.len - 1] == '.')
        t.len--;
    return t;
}

static struct text batch_text(int8_t batch)
{
    if (batch == TRI_NULL)
        return TEXT_NULL;
    return batch == TRI_TRUE ? TEXT_LIT("true") : TEXT_LIT("false");
}

static void digest_key(struct record *r, struct text feed)
{
    struct hash h = {.update = XXH3_128bits_update};
    XXH128_canonical_t key;
    char seconds[16];

    XXH3_128bits_reset(&h.state);
    hash_text(&h, feed);
    (void)snprintf(seconds, sizeof(seconds), "%" PRIu32, r->bucket_seconds);
    hash_text(&h, text_of(seconds));
    for (size_t i = 0; i < sizeof(before_batch) / sizeof(before_batch[0]); i++)
        hash_text(&h, r->texts[before_batch[i]]);
    hash_text(&h, batch_text(r->batch));
    for (size_t i = 0; i < sizeof(after_batch) / sizeof(after_batch[0]); i++)
        hash_text(&h, r->texts[after_batch[i]]);
    XXH128_canonicalFromHash(&key, XXH3_128bits_digest(&h.state));
    memcpy(r->row_key, key.digest, sizeof(r->row_key));
}

static void digest_measures(struct record *r)
{
    struct hash h = {.update = XXH3_64bits_update};

    XXH3_64bits_reset(&h.state);
    for (size_t i = 0; i < N_RECORD_COUNTS; i++) {
        uint64_t count = htole64((uint64_t)r->counts[i]);
        hash_bytes(&h, &count, sizeof(count));
    }
    for (size_t i = 0; i < sizeof(measures) / sizeof(measures[0]); i++) {
        struct text t = r->texts[measures[i]];
        bool amount = measures[i] == TEXT_QUANTITY || measures[i] == TEXT_COST_AMOUNT;
        hash_text(&h, amount ? without_zeros(t) : t);
    }
    r->row_hash = (int64_t)XXH3_64bits_digest(&h.state);
}

void record_digest(struct record *r, struct text feed)
{
    digest_key(r, feed);
    digest_measures(r);
}
