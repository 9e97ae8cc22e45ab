#include "common/record.h"

#include <endian.h>
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

/* What is hashed is gathered first: one call for all of it is several times as fast as one for each
 * part. The streaming form, with the same result, is for what does not fit. */
struct hash {
    XXH_errorcode (*reset)(XXH3_state_t *state);
    XXH_errorcode (*update)(XXH3_state_t *state, const void *at, size_t len);
    size_t n;     /* bytes gathered */
    bool spilled; /* and others before them that are in `state` already */
    char gathered[1024];
    XXH3_state_t state;
};

static void hash_begin(struct hash *h, XXH_errorcode (*reset)(XXH3_state_t *state),
                       XXH_errorcode (*update)(XXH3_state_t *state, const void *at, size_t len))
{
    h->reset = reset;
    h->update = update;
    h->n = 0;
    h->spilled = false;
}

static void hash_spill(struct hash *h, const void *at, size_t len)
{
    if (!h->spilled)
        h->reset(&h->state);
    h->spilled = true;
    h->update(&h->state, h->gathered, h->n); /* fails only on a NULL state */
    h->update(&h->state, at, len);
    h->n = 0;
}

static inline void hash_bytes(struct hash *h, const void *at, size_t len)
{
    if (len > sizeof(h->gathered) - h->n) {
        hash_spill(h, at, len);
        return;
    }
    memcpy(h->gathered + h->n, at, len);
    h->n += len;
}

static inline void hash_text(struct hash *h, struct text t)
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

#define DIGITS_MAX 10 /* of a uint32_t */

static struct text digits_of(char out[DIGITS_MAX], uint32_t v)
{
    size_t at = DIGITS_MAX;

    do {
        out[--at] = (char)('0' + v % 10);
        v /= 10;
    } while (v > 0);
    return (struct text){out + at, DIGITS_MAX - at};
}

static struct text batch_text(int8_t batch)
{
    if (batch == TRI_NULL)
        return TEXT_NULL;
    return batch == TRI_TRUE ? TEXT_LIT("true") : TEXT_LIT("false");
}

static void digest_key(struct record *r, struct text feed)
{
    struct hash h;
    XXH128_canonical_t key;
    char seconds[DIGITS_MAX];

    hash_begin(&h, XXH3_128bits_reset, XXH3_128bits_update);
    hash_text(&h, feed);
    hash_text(&h, digits_of(seconds, r->bucket_seconds));
    for (size_t i = 0; i < sizeof(before_batch) / sizeof(before_batch[0]); i++)
        hash_text(&h, r->texts[before_batch[i]]);
    hash_text(&h, batch_text(r->batch));
    for (size_t i = 0; i < sizeof(after_batch) / sizeof(after_batch[0]); i++)
        hash_text(&h, r->texts[after_batch[i]]);
    if (h.spilled)
        hash_spill(&h, NULL, 0);
    XXH128_canonicalFromHash(&key, h.spilled ? XXH3_128bits_digest(&h.state)
                                             : XXH3_128bits(h.gathered, h.n));
    memcpy(r->row_key, key.digest, sizeof(r->row_key));
}

static void digest_measures(struct record *r)
{
    struct hash h;

    hash_begin(&h, XXH3_64bits_reset, XXH3_64bits_update);
    for (size_t i = 0; i < N_RECORD_COUNTS; i++) {
        uint64_t count = htole64((uint64_t)r->counts[i]);
        hash_bytes(&h, &count, sizeof(count));
    }
    for (size_t i = 0; i < sizeof(measures) / sizeof(measures[0]); i++) {
        struct text t = r->texts[measures[i]];
        bool amount = measures[i] == TEXT_QUANTITY || measures[i] == TEXT_COST_AMOUNT;
        hash_text(&h, amount ? without_zeros(t) : t);
    }
    if (h.spilled)
        hash_spill(&h, NULL, 0);
    r->row_hash =
        (int64_t)(h.spilled ? XXH3_64bits_digest(&h.state) : XXH3_64bits(h.gathered, h.n));
}

void record_digest(struct record *r, struct text feed)
{
    digest_key(r, feed);
    digest_measures(r);
}
