/* backoff.h - how long to wait before trying again: full jitter, and what the other side asks for.
 */
#ifndef UF_BACKOFF_H
#define UF_BACKOFF_H

#include <stdint.h>

#include "common/text.h"

#define BACKOFF_BASE_MS INT64_C(1000)
#define BACKOFF_MAX_MS  INT64_C(30000)

/* What the headers of an answer say about trying again. */
struct retry_advice {
    int64_t wait_ms; /* -1: nothing was said */
    enum { RETRY_UNSAID, RETRY_YES, RETRY_NO } verdict;
};

/* Header values, null when absent: `Retry-After` (seconds, or an HTTP date to be compared with
 * `utc_us`), `retry-after-ms` (wins: it is the finer one), `x-should-retry` ("true", "false"). What
 * can not be read counts as unsaid; a wait is at most a day. */
struct retry_advice retry_advice_read(struct text retry_after, struct text retry_after_ms,
                                      struct text should_retry, int64_t utc_us);

/* The wait before the next try after `tries` (at least 1) failed ones: evenly spread over
 * [0, min(BACKOFF_MAX_MS, BACKOFF_BASE_MS x 2^(tries - 1))], so that many who failed together do
 * not come back together. When the other side named a wait: that, and up to a quarter of a second
 * more for the same reason. */
int64_t backoff_ms(uint32_t tries, const struct retry_advice *advice, uint64_t random);

/* The next number of a splitmix64 sequence: for jitter, never for secrets. */
uint64_t random_next(uint64_t *state);

#endif
