/* A schedule: what is accepted has a next tick, later than any time given, that it matches, and
 * none between. Input: eight bytes of time, then the text. */
#include <time.h>

#include "common/clock.h"
#include "common/cron.h"
#include "tests/fuzz/fuzz.h"

#define MINUTE_US (60 * US_PER_S)

static bool matches(const struct cron *c, int64_t t_us)
{
    time_t s = (time_t)(time_floor_us(t_us, 60) / US_PER_S);
    struct tm tm;
    bool day, weekday;

    (void)gmtime_r(&s, &tm);
    day = c->days >> tm.tm_mday & 1;
    weekday = c->weekdays >> tm.tm_wday & 1;
    return (c->minutes >> tm.tm_min & 1) && (c->hours >> tm.tm_hour & 1) &&
           (c->months >> (tm.tm_mon + 1) & 1) &&
           (c->any_day || c->any_weekday ? day && weekday : day || weekday);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct cron c;
    struct err err;
    int64_t from, tick;
    uint64_t bits;

    if (len < sizeof(bits))
        return 0;
    memcpy(&bits, data, sizeof(bits));
    from = (int64_t)(bits % (uint64_t)(INT64_C(200) * 366 * US_PER_DAY)); /* 1970 to 2170 */
    if (cron_parse(&c, fuzz_text(data + sizeof(bits), len - sizeof(bits)), &err) != ST_OK) {
        HOLDS(err.status == ST_REJECT && err.text[0]);
        return 0;
    }
    tick = cron_next_us(&c, from);
    HOLDS(tick > from);
    HOLDS(tick % MINUTE_US == 0);
    HOLDS(matches(&c, tick));
    HOLDS(cron_next_us(&c, tick) > tick);
    HOLDS(cron_next_us(&c, tick - 1) == tick);
    for (int64_t t = time_floor_us(from, 60) + MINUTE_US, n = 0; t < tick && n < 3000;
         t += MINUTE_US, n++)
        HOLDS(!matches(&c, t));
    return 0;
}
