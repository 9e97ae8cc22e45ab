#include "common/reading.h"

#define XXH_STATIC_LINKING_ONLY /* the state on our stack */
#include <xxhash.h>

#ifndef READING_ID /* the Makefile has a digest of the sources */
#include "common/version.h"
#define READING_ID UF_VERSION
#endif

struct page_digest reading_digest(const struct page_digest *bytes)
{
    struct page_digest out;
    XXH128_canonical_t canonical;
    XXH3_state_t state;

    XXH3_128bits_reset(&state);
    XXH3_128bits_update(&state, READING_ID, sizeof(READING_ID) - 1);
    XXH3_128bits_update(&state, bytes->at, sizeof(bytes->at));
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(&state));
    memcpy(out.at, canonical.digest, sizeof(out.at));
    return out;
}
