/* Times, durations, HTTP dates, retry advice and UUIDs: what is accepted is written as what reads
 * back the same. Input: one text. */
#include "common/backoff.h"
#include "common/clock.h"
#include "common/wire.h"
#include "tests/fuzz/fuzz.h"

#define YEAR_10000_US (INT64_C(253402300800) * US_PER_S)
#define NOW_US        (INT64_C(1793923200) * US_PER_S)

static void check_times(struct text t)
{
    char out[TIME_TEXT_MAX];
    int64_t at, again;
    struct err err;

    if (time_parse(&at, t, &err) == ST_OK) {
        HOLDS(at >= 0 && at < YEAR_10000_US);
        HOLDS(time_parse(&again, text_of(time_format(out, at)), &err) == ST_OK && again == at);
    }
    if (time_parse_since(&at, t, NOW_US, &err) == ST_OK)
        HOLDS(at >= 0 && at < YEAR_10000_US);
    if (duration_parse(&at, t, &err) == ST_OK) {
        HOLDS(at >= 0);
        HOLDS(duration_parse(&again, text_of(duration_format(out, at)), &err) == ST_OK);
        HOLDS(again == at);
    }
}

static void check_advice(struct text t)
{
    const struct retry_advice by_date = retry_advice_read(t, TEXT_NULL, TEXT_NULL, NOW_US);
    const struct retry_advice by_ms = retry_advice_read(TEXT_NULL, t, t, NOW_US);
    int64_t at = http_date_parse(t);

    HOLDS(at >= -1);
    HOLDS(by_date.wait_ms >= -1 && by_date.wait_ms <= 86400000);
    HOLDS(by_ms.wait_ms >= -1 && by_ms.wait_ms <= 86400000);
    HOLDS(backoff_ms(1, &by_date, 7) >= 0 && backoff_ms(60, &by_ms, UINT64_MAX) >= 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct text t = fuzz_text(data, len);
    struct uuid id, again;
    char out[37];

    check_times(t);
    check_advice(t);
    if (uuid_parse(&id, t))
        HOLDS(uuid_parse(&again, text_of(uuid_format(out, &id))) && uuid_eq(&id, &again));
    return 0;
}
