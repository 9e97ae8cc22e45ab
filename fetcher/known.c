#include "fetcher/known.h"

#define XXH_STATIC_LINKING_ONLY /* the state on our stack */
#include <xxhash.h>

#include "common/providers/reader.h"
#include "common/reading.h"

static void add_text(XXH3_state_t *state, struct text t)
{
    uint64_t len = t.at ? t.len : UINT64_MAX; /* so that no two lists of texts are one */

    XXH3_128bits_update(state, &len, sizeof(len));
    if (t.len > 0)
        XXH3_128bits_update(state, t.at, t.len);
}

struct page_digest known_digest(const struct job *job, const struct question *q, struct text body)
{
    const int64_t numbers[] = {q->window.from_us, q->window.to_us, q->window.bucket_s,
                               q->how.default_limit, q->how.reduced_grouping};
    struct page_digest out;
    XXH128_canonical_t canonical;
    XXH3_state_t state;

    XXH3_128bits_reset(&state);
    add_text(&state, job->provider);
    add_text(&state, job->base_url);
    add_text(&state, job->sealed_key);
    add_text(&state, q->window.feed);
    XXH3_128bits_update(&state, numbers, sizeof(numbers));
    /* a joined page has all the answers to its question */
    add_text(&state, feed_is_flat(q->feed) ? TEXT_NULL : q->cursor);
    add_text(&state, body);
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(&state));
    memcpy(out.at, canonical.digest, sizeof(out.at));
    return out;
}

size_t known_find(const struct known_pages *known, const struct page_digest *bytes)
{
    const struct page_digest read = reading_digest(bytes);
    size_t i = 0;

    while (i < known->n && !page_digest_eq(&known->at[i], &read))
        i++;
    return i;
}
