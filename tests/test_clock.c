/* Times and durations: what is accepted, what is refused and how the refusal helps. */
#include "common/clock.h"

#include "tests/check.h"

static const struct {
    const char *name, *text;
    enum status want;
    const char *want_text; /* as time_format writes it, or words of the message */
} time_cases[] = {
    {"UTC", "2026-11-01T00:00:00Z", ST_OK, "2026-11-01T00:00:00Z"},
    {"lower case", "2026-11-01t00:00:00z", ST_OK, "2026-11-01T00:00:00Z"},
    {"an offset and a fraction", "2026-11-01T02:00:00.25+02:00", ST_OK,
     "2026-11-01T00:00:00.250000Z"},
    {"west of UTC", "2026-10-31T19:00:00-05:00", ST_OK, "2026-11-01T00:00:00Z"},
    {"a blank, no seconds", "2026-11-01 00:00Z", ST_OK, "2026-11-01T00:00:00Z"},
    {"a day", "2026-11-01", ST_OK, "2026-11-01T00:00:00Z"},
    {"the epoch", "1970-01-01", ST_OK, "1970-01-01T00:00:00Z"},
    {"the last second", "9999-12-31T23:59:59Z", ST_OK, "9999-12-31T23:59:59Z"},
    {"a leap day", "2028-02-29", ST_OK, "2028-02-29T00:00:00Z"},
    {"a leap day of a century", "2000-02-29", ST_OK, "2000-02-29T00:00:00Z"},
    {"finer than a microsecond is cut", "2026-11-01T00:00:00.123456789Z", ST_OK,
     "2026-11-01T00:00:00.123456Z"},
    {"no leap day", "2026-02-29", ST_REJECT, "no such day"},
    {"no leap day in 2100", "2100-02-29", ST_REJECT, "no such day"},
    {"31 April", "2026-04-31", ST_REJECT, "no such day"},
    {"month 13", "2026-13-01", ST_REJECT, "no such day"},
    {"month 0", "2026-00-01", ST_REJECT, "no such day"},
    {"day 0", "2026-01-00", ST_REJECT, "no such day"},
    {"hour 24", "2026-11-01T24:00:00Z", ST_REJECT, "no such day or time of day"},
    {"minute 60", "2026-11-01T00:60:00Z", ST_REJECT, "no such day or time of day"},
    {"second 60", "2026-11-01T00:00:60Z", ST_REJECT, "no such day or time of day"},
    {"no zone", "2026-11-01T00:00:00", ST_REJECT, "add Z for UTC"},
    {"no zone, no seconds", "2026-11-01 00:00", ST_REJECT, "add Z for UTC"},
    {"before 1970", "1969-12-31", ST_REJECT, "1970 to 9999"},
    {"before 1970 by its offset", "1970-01-01T00:00:00+02:00", ST_REJECT, "1970 to 9999"},
    {"after 9999 by its offset", "9999-12-31T23:59:59-01:00", ST_REJECT, "1970 to 9999"},
    {"an offset of 24 hours", "2026-11-01T00:00:00+24:00", ST_REJECT, "write \"2026-11-01\""},
    {"an offset without minutes", "2026-11-01T00:00:00+02", ST_REJECT, "write \"2026-11-01\""},
    {"an empty fraction", "2026-11-01T00:00:00.Z", ST_REJECT, "write \"2026-11-01\""},
    {"something after it", "2026-11-01T00:00:00Zx", ST_REJECT, "write \"2026-11-01\""},
    {"seconds since 1970", "1793491200", ST_REJECT, "2026-11-01T00:00:00Z"},
    {"the other order", "01.11.2026", ST_REJECT, "2026-11-01T02:00:00+02:00"},
    {"one digit", "2026-1-1", ST_REJECT, "write \"2026-11-01\""},
    {"empty", "", ST_REJECT, "write \"2026-11-01\""},
};

static void times(void **state)
{
    char text[TIME_TEXT_MAX];
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(time_cases); i++) {
        struct err err = {0};
        int64_t t = 0;
        enum status st = time_parse(&t, text_of(time_cases[i].text), &err);

        good &= same_int(time_cases[i].name, st, time_cases[i].want);
        if (st == ST_OK)
            good &= same_str(time_cases[i].name, time_format(text, t), time_cases[i].want_text);
        else
            good &= has_words(time_cases[i].name, err.text, time_cases[i].want_text);
    }
    assert_true(good);
}

static const struct {
    const char *name, *text;
    enum status want;
    const char *want_text;
} since_cases[] = {
    {"now", "now", ST_OK, "2026-11-25T01:30:00Z"},
    {"today", "today", ST_OK, "2026-11-25T00:00:00Z"},
    {"yesterday", "yesterday", ST_OK, "2026-11-24T00:00:00Z"},
    {"days ago", "7d", ST_OK, "2026-11-18T01:30:00Z"},
    {"hours ago", "36h", ST_OK, "2026-11-23T13:30:00Z"},
    {"minutes ago", "90m", ST_OK, "2026-11-25T00:00:00Z"},
    {"weeks ago", "2w", ST_OK, "2026-11-11T01:30:00Z"},
    {"a date", "2026-11-01", ST_OK, "2026-11-01T00:00:00Z"},
    {"a bad date keeps its own message", "2026-02-30", ST_REJECT, "no such day"},
    {"before 1970", "100000d", ST_REJECT, "before 1970"},
    {"a number alone", "7", ST_REJECT, "\"7d\""},
    {"a word", "last week", ST_REJECT, "\"yesterday\""},
};

static void times_since(void **state)
{
    char text[TIME_TEXT_MAX];
    bool good = true;
    struct err err = {0};
    int64_t now = 0;

    (void)state;
    assert_int_equal(time_parse(&now, TEXT_LIT("2026-11-25T01:30:00Z"), &err), ST_OK);
    for (size_t i = 0; i < ROWS(since_cases); i++) {
        int64_t t = 0;
        enum status st = time_parse_since(&t, text_of(since_cases[i].text), now, &err);

        good &= same_int(since_cases[i].name, st, since_cases[i].want);
        if (st == ST_OK)
            good &= same_str(since_cases[i].name, time_format(text, t), since_cases[i].want_text);
        else
            good &= has_words(since_cases[i].name, err.text, since_cases[i].want_text);
    }
    assert_true(good);
}

static const struct {
    const char *name, *text;
    enum status want;
    int64_t want_s;
    const char *want_text; /* as duration_format writes it, or words of the message */
} duration_cases[] = {
    {"seconds", "90s", ST_OK, 90, "1m30s"},
    {"minutes", "15m", ST_OK, 900, "15m"},
    {"hours", "2h", ST_OK, 7200, "2h"},
    {"days", "7d", ST_OK, 604800, "7d"},
    {"weeks", "1w", ST_OK, 604800, "7d"},
    {"parts", "1h30m", ST_OK, 5400, "1h30m"},
    {"all parts", "1w1d1h1m1s", ST_OK, 694861, "8d1h1m1s"},
    {"nothing", "0", ST_OK, 0, "0s"},
    {"no seconds", "0s", ST_OK, 0, "0s"},
    {"no unit", "90", ST_REJECT, 0, "no unit"},
    {"no unit at the end", "1h30", ST_REJECT, 0, "no unit"},
    {"no number", "h", ST_REJECT, 0, "1h30m"},
    {"small before large", "30m1h", ST_REJECT, 0, "no duration"},
    {"a unit twice", "1h1h", ST_REJECT, 0, "no duration"},
    {"negative", "-1h", ST_REJECT, 0, "no duration"},
    {"a fraction", "1.5h", ST_REJECT, 0, "no duration"},
    {"a blank", "1 h", ST_REJECT, 0, "no duration"},
    {"another unit", "3y", ST_REJECT, 0, "no duration"},
    {"empty", "", ST_REJECT, 0, "no duration"},
    {"beyond 64 bits", "99999999999999999999s", ST_REJECT, 0, "too long"},
    {"beyond what microseconds hold", "9223372036855s", ST_REJECT, 0, "too long"},
};

static void durations(void **state)
{
    char text[TIME_TEXT_MAX];
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(duration_cases); i++) {
        struct err err = {0};
        int64_t s = 0;
        enum status st = duration_parse(&s, text_of(duration_cases[i].text), &err);

        good &= same_int(duration_cases[i].name, st, duration_cases[i].want);
        if (st != ST_OK) {
            good &= has_words(duration_cases[i].name, err.text, duration_cases[i].want_text);
            continue;
        }
        good &= same_int(duration_cases[i].name, s, duration_cases[i].want_s);
        good &=
            same_str(duration_cases[i].name, duration_format(text, s), duration_cases[i].want_text);
        good &= same_int("read back", duration_parse(&s, text_of(text), &err), ST_OK);
        good &= same_int("read back", s, duration_cases[i].want_s);
    }
    assert_true(good);
}

static const struct {
    const char *name, *text;
    int64_t want;
} http_cases[] = {
    {"the form of today", "Sun, 06 Nov 1994 08:49:37 GMT", 784111777},
    {"RFC 850", "Sunday, 06-Nov-94 08:49:37 GMT", 784111777},
    {"asctime", "Sun Nov  6 08:49:37 1994", 784111777},
    {"no such day", "Sun, 31 Feb 2026 08:49:37 GMT", -1},
    {"seconds", "120", -1},
    {"something after it", "Sun, 06 Nov 1994 08:49:37 GMT x", -1},
    {"another zone", "Sun, 06 Nov 1994 08:49:37 CET", -1},
    {"empty", "", -1},
    {"long", "Sun, 06 Nov 1994 08:49:37 GMT                                            ", -1},
};

static void http_dates(void **state)
{
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(http_cases); i++)
        good &= same_int(http_cases[i].name, http_date_parse(text_of(http_cases[i].text)),
                         http_cases[i].want);
    good &= same_int("null", http_date_parse(TEXT_NULL), -1);
    assert_true(good);
}

static void floors_and_ceilings(void **state)
{
    const int64_t hour = 3600 * US_PER_S;

    (void)state;
    assert_int_equal(time_floor_us(hour, 3600), hour);
    assert_int_equal(time_floor_us(hour - 1, 3600), 0);
    assert_int_equal(time_floor_us(-1, 3600), -hour);
    assert_int_equal(time_floor_us(-hour, 3600), -hour);
    assert_int_equal(time_ceil_us(hour, 3600), hour);
    assert_int_equal(time_ceil_us(1, 3600), hour);
    assert_int_equal(time_ceil_us(-1, 3600), 0);
    assert_true(clock_utc_us() > INT64_C(1700000000) * US_PER_S);
    assert_true(clock_mono_us() >= 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(times),
        cmocka_unit_test(times_since),
        cmocka_unit_test(durations),
        cmocka_unit_test(http_dates),
        cmocka_unit_test(floors_and_ceilings),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
