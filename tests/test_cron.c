/* When a cycle begins: the five fields, their refusals, and ticks over changes of the clock. */
#include "common/cron.h"

#include <stdlib.h>
#include <time.h>

#include "common/clock.h"
#include "tests/check.h"

static int64_t at(const char *text)
{
    struct err err;
    int64_t t = 0;

    assert_int_equal(time_parse(&t, text_of(text), &err), ST_OK);
    return t;
}

static const struct {
    const char *name, *expression, *after, *want;
} next_cases[] = {
    {"every minute", "* * * * *", "2026-11-25T01:30:00Z", "2026-11-25T01:31:00Z"},
    {"within a minute", "* * * * *", "2026-11-25T01:30:59.999999Z", "2026-11-25T01:31:00Z"},
    {"strictly after", "*/15 * * * *", "2026-11-25T01:30:00Z", "2026-11-25T01:45:00Z"},
    {"just before", "*/15 * * * *", "2026-11-25T01:29:59Z", "2026-11-25T01:30:00Z"},
    {"over midnight", "*/15 * * * *", "2026-12-31T23:45:00Z", "2027-01-01T00:00:00Z"},
    {"a list", "5,35 * * * *", "2026-11-25T01:06:00Z", "2026-11-25T01:35:00Z"},
    {"a range", "0 9-17 * * *", "2026-11-25T17:00:00Z", "2026-11-26T09:00:00Z"},
    {"a range with a step", "0 8-18/4 * * *", "2026-11-25T13:00:00Z", "2026-11-25T16:00:00Z"},
    {"a value with a step goes on", "10/20 * * * *", "2026-11-25T01:31:00Z",
     "2026-11-25T01:50:00Z"},
    {"a month by name", "0 0 1 Feb *", "2026-11-25", "2027-02-01T00:00:00Z"},
    {"a weekday by name", "0 0 * * MON", "2026-11-25", "2026-11-30T00:00:00Z"},
    {"weekdays by names", "0 0 * * mon-fri", "2026-11-27T12:00:00Z", "2026-11-30T00:00:00Z"},
    {"Sunday is 0", "0 0 * * 0", "2026-11-25", "2026-11-29T00:00:00Z"},
    {"Sunday is 7", "0 0 * * 7", "2026-11-25", "2026-11-29T00:00:00Z"},
    {"each second day of the week, from a Sunday that is 7", "0 0 * * 7/2", "2026-11-25",
     "2026-11-26T00:00:00Z"},
    {"the same, on Sunday", "0 0 * * 7/2", "2026-11-28T01:00:00Z", "2026-11-29T00:00:00Z"},
    {"Friday to Sunday", "0 0 * * 5-7", "2026-11-28T01:00:00Z", "2026-11-29T00:00:00Z"},
    {"Friday to Sunday by names", "0 0 * * fri-sun", "2026-11-28T01:00:00Z",
     "2026-11-29T00:00:00Z"},
    {"a leap day", "0 0 29 2 *", "2026-11-25", "2028-02-29T00:00:00Z"},
    {"no leap day in 2100", "0 0 29 2 *", "2096-02-29", "2104-02-29T00:00:00Z"},
    {"the 31st skips short months", "0 0 31 * *", "2026-03-31", "2026-05-31T00:00:00Z"},
    {"day and weekday restricted: either", "0 0 13 * 5", "2026-11-01", "2026-11-06T00:00:00Z"},
    {"day and weekday restricted: or the other", "0 0 12 * 5", "2026-11-07",
     "2026-11-12T00:00:00Z"},
    {"any day: only the weekday decides", "0 0 * * 5", "2026-11-07", "2026-11-13T00:00:00Z"},
    {"any weekday: only the day decides", "0 0 13 * *", "2026-11-01", "2026-11-13T00:00:00Z"},
    {"an impossible day beside a weekday", "0 0 31 2 1", "2026-11-25", "2027-02-01T00:00:00Z"},
    {"blanks around and between", "  0\t12  * * *  ", "2026-11-25", "2026-11-25T12:00:00Z"},
    {"@hourly", "@hourly", "2026-11-25T01:30:00Z", "2026-11-25T02:00:00Z"},
    {"@daily", "@daily", "2026-11-25T01:30:00Z", "2026-11-26T00:00:00Z"},
    {"@midnight", "@Midnight", "2026-11-25T01:30:00Z", "2026-11-26T00:00:00Z"},
    {"@weekly", "@weekly", "2026-11-25T01:30:00Z", "2026-11-29T00:00:00Z"},
    {"@monthly", "@monthly", "2026-11-25T01:30:00Z", "2026-12-01T00:00:00Z"},
    {"@yearly", "@yearly", "2026-11-25T01:30:00Z", "2027-01-01T00:00:00Z"},
    {"@annually", "@annually", "2026-11-25T01:30:00Z", "2027-01-01T00:00:00Z"},
};

static void next_ticks(void **state)
{
    char text[TIME_TEXT_MAX];
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(next_cases); i++) {
        struct err err = {0};
        struct cron c;

        if (!same_int(next_cases[i].name, cron_parse(&c, text_of(next_cases[i].expression), &err),
                      ST_OK)) {
            print_error("%s\n", err.text);
            good = false;
            continue;
        }
        good &= same_str(next_cases[i].name,
                         time_format(text, cron_next_us(&c, at(next_cases[i].after))),
                         next_cases[i].want);
    }
    assert_true(good);
}

static const struct {
    const char *name, *expression, *where, *what;
} refused_cases[] = {
    {"empty", "", "column 1", "minute: a value is missing"},
    {"four fields", "* * * *", "column 8", "day of week: a value is missing"},
    {"six fields", "* * * * * *", "column 11", "more than the five fields"},
    {"minute 60", "60 * * * *", "column 1", "minute: out of range"},
    {"hour 24", "0 24 * * *", "column 3", "hour: out of range"},
    {"day 0", "0 0 0 * *", "column 5", "day of month: out of range"},
    {"day 32", "0 0 32 * *", "column 5", "allowed are 1-31"},
    {"month 13", "0 0 * 13 *", "column 7", "month: out of range"},
    {"weekday 8", "0 0 * * 8", "column 9", "day of week: out of range"},
    {"the place inside a list", "0,15,61 * * * *", "column 6", "out of range"},
    {"a word", "often * * * *", "column 1", "not a value"},
    {"an unknown month", "0 0 * foo *", "column 7", "unknown name"},
    {"a name too long", "0 0 * january *", "column 7", "jan-dec"},
    {"a backward range", "0 17-9 * * *", "column 3", "ends before it begins"},
    {"a step of 0", "*/0 * * * *", "column 3", "step"},
    {"a step too large", "*/60 * * * *", "column 3", "step"},
    {"no step", "*/ * * * *", "column 3", "not a value"},
    {"an open range", "5- * * * *", "column 3", "not a value"},
    {"an empty part of a list", "1,,2 * * * *", "column 3", "not a value"},
    {"negative", "-5 * * * *", "column 1", "not a value"},
    {"a fraction", "1.5 * * * *", "column 2", "unexpected character"},
    {"a large number", "99999999999999999999 * * * *", "column 1", "too large"},
    {"an unknown nickname", "@often", "column 1", "@hourly"},
    {"@reboot", "@reboot", "column 1", "@hourly"},
    {"31 February", "0 0 31 2 *", "column", "no date ever matches"},
    {"30 February", "0 0 30 feb *", "column", "no date ever matches"},
    {"31 of short months", "0 0 31 4,6,9,11 *", "column", "no date ever matches"},
};

static void refusals_tell_the_place(void **state)
{
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(refused_cases); i++) {
        struct err err = {0};
        struct cron c;

        good &= same_int(refused_cases[i].name,
                         cron_parse(&c, text_of(refused_cases[i].expression), &err), ST_REJECT);
        good &= has_words(refused_cases[i].name, err.text, refused_cases[i].where);
        good &= has_words(refused_cases[i].name, err.text, refused_cases[i].what);
    }
    assert_true(good);
}

static const struct {
    const char *name, *zone, *day;
} clock_cases[] = {
    {"BR-064: Berlin, clocks go forward", "Europe/Berlin", "2026-03-29"},
    {"BR-064: Berlin, clocks go back", "Europe/Berlin", "2026-10-25"},
    {"BR-064: New York, clocks go forward", "America/New_York", "2026-03-08"},
    {"BR-064: New York, clocks go back", "America/New_York", "2026-11-01"},
    {"BR-064: a plain day", "Europe/Berlin", "2026-06-15"},
};

static void ninety_six_ticks_on_every_day(void **state)
{
    bool good = true;
    struct err err;
    struct cron c;

    (void)state;
    assert_int_equal(cron_parse(&c, TEXT_LIT("*/15 * * * *"), &err), ST_OK);
    for (size_t i = 0; i < ROWS(clock_cases); i++) {
        int64_t from = at(clock_cases[i].day), to = from + US_PER_DAY, last = from - 900 * US_PER_S;
        int64_t ticks = 0;

        setenv("TZ", clock_cases[i].zone, 1);
        tzset();
        for (int64_t t = cron_next_us(&c, from - 1); t < to; t = cron_next_us(&c, t)) {
            good &= same_int(clock_cases[i].name, t - last, 900 * US_PER_S);
            last = t;
            ticks++;
        }
        good &= same_int(clock_cases[i].name, ticks, 96);
    }
    unsetenv("TZ");
    tzset();
    assert_true(good);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(next_ticks),
        cmocka_unit_test(refusals_tell_the_place),
        cmocka_unit_test(ninety_six_ticks_on_every_day),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
