#include "common/backoff.h"

#include <stdbool.h>

#include "common/clock.h"

#define WAIT_MAX_MS (INT64_C(86400) * 1000)
#define SPREAD_MS   250 /* on top of a wait that the other side named */

/* Digits with an optional fraction ("12", "12.5"), times `unit_ms`, rounded up: asking a moment too
 * early is the one thing to avoid. */
static bool number_ms(int64_t *out_ms, struct text t, int64_t unit_ms)
{
    int64_t whole = 0;
    size_t i = 0;
    bool more = false;

    if (!t.at || t.len == 0)
        return false;
    for (; i < t.len && t.at[i] >= '0' && t.at[i] <= '9'; i++)
        if (whole < WAIT_MAX_MS)
            whole = whole * 10 + (t.at[i] - '0');
    if (i == 0)
        return false;
    if (i < t.len && t.at[i] == '.') {
        for (i++; i < t.len && t.at[i] >= '0' && t.at[i] <= '9'; i++)
            more |= t.at[i] != '0';
    }
    if (i != t.len)
        return false;
    *out_ms = whole >= WAIT_MAX_MS / unit_ms ? WAIT_MAX_MS : (whole + more) * unit_ms;
    return true;
}

static int64_t date_ms(struct text t, int64_t utc_us)
{
    int64_t at_s = http_date_parse(t);
    int64_t wait_ms;

    if (at_s < 0)
        return -1;
    wait_ms = (at_s * US_PER_S - utc_us) / US_PER_MS;
    if (wait_ms < 0)
        return 0;
    return wait_ms < WAIT_MAX_MS ? wait_ms : WAIT_MAX_MS;
}

struct retry_advice retry_advice_read(struct text retry_after, struct text retry_after_ms,
                                      struct text should_retry, int64_t utc_us)
{
    struct retry_advice advice = {.wait_ms = -1, .verdict = RETRY_UNSAID};

    if (!number_ms(&advice.wait_ms, retry_after_ms, 1) &&
        !number_ms(&advice.wait_ms, retry_after, 1000) && retry_after.at)
        advice.wait_ms = date_ms(retry_after, utc_us);
    if (text_is(should_retry, "true"))
        advice.verdict = RETRY_YES;
    else if (text_is(should_retry, "false"))
        advice.verdict = RETRY_NO;
    return advice;
}

int64_t backoff_ms(uint32_t tries, const struct retry_advice *advice, uint64_t random)
{
    uint32_t doublings = tries > 0 ? tries - 1 : 0;
    int64_t ceiling_ms = BACKOFF_MAX_MS;

    if (advice->wait_ms >= 0)
        return advice->wait_ms + (int64_t)(random % (SPREAD_MS + 1));
    if (doublings < 5) /* 1 s x 2^5 is above the ceiling */
        ceiling_ms = BACKOFF_BASE_MS << doublings;
    return (int64_t)(random % ((uint64_t)ceiling_ms + 1));
}

uint64_t random_next(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}
