/* Waiting before the next try: what headers ask for, and full jitter. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "common/backoff.h"
#include "common/clock.h"

#define NOW_US (INT64_C(1794009600) * US_PER_S) /* Sat, 07 Nov 2026 00:00:00 GMT */

struct advice_case {
    const char *name, *retry_after, *retry_after_ms, *should_retry;
    int64_t want_ms;
    int want_verdict;
};

static const struct advice_case advice_cases[] = {
    {"nothing is said", NULL, NULL, NULL, -1, RETRY_UNSAID},
    {"seconds", "7", NULL, NULL, 7000, RETRY_UNSAID},
    {"zero seconds", "0", NULL, NULL, 0, RETRY_UNSAID},
    {"a fraction is rounded up", "1.5", NULL, NULL, 2000, RETRY_UNSAID},
    {"a date", "Sat, 07 Nov 2026 00:00:30 GMT", NULL, NULL, 30000, RETRY_UNSAID},
    {"a date in the past is now", "Fri, 06 Nov 2026 00:00:00 GMT", NULL, NULL, 0, RETRY_UNSAID},
    {"milliseconds", NULL, "1500", NULL, 1500, RETRY_UNSAID},
    {"milliseconds are the finer word", "9", "1500", NULL, 1500, RETRY_UNSAID},
    {"bad milliseconds leave the seconds", "9", "soon", NULL, 9000, RETRY_UNSAID},
    {"nonsense is unsaid", "soon", NULL, NULL, -1, RETRY_UNSAID},
    {"an empty value is unsaid", "", "", "", -1, RETRY_UNSAID},
    {"a negative wait is unsaid", "-5", NULL, NULL, -1, RETRY_UNSAID},
    {"seconds with a tail are unsaid", "5s", NULL, NULL, -1, RETRY_UNSAID},
    {"at most a day", "99999999999999999999999", NULL, NULL, 86400000, RETRY_UNSAID},
    {"a date at most a day ahead", "Sat, 07 Nov 2099 00:00:00 GMT", NULL, NULL, 86400000,
     RETRY_UNSAID},
    {"do", NULL, NULL, "true", -1, RETRY_YES},
    {"do not", "3", NULL, "false", 3000, RETRY_NO},
    {"neither", NULL, NULL, "maybe", -1, RETRY_UNSAID},
};

static void test_advice(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(advice_cases) / sizeof(advice_cases[0]); i++) {
        const struct advice_case *c = &advice_cases[i];
        struct retry_advice got = retry_advice_read(
            text_of(c->retry_after), text_of(c->retry_after_ms), text_of(c->should_retry), NOW_US);
        if (got.wait_ms != c->want_ms || (int)got.verdict != c->want_verdict)
            fail_msg("%s: got %lld ms, %d; want %lld ms, %d", c->name, (long long)got.wait_ms,
                     (int)got.verdict, (long long)c->want_ms, c->want_verdict);
    }
}

struct wait_case {
    const char *name;
    uint32_t tries;
    int64_t advice_ms, want_min_ms, want_max_ms;
};

static const struct wait_case wait_cases[] = {
    {"after the first try", 1, -1, 0, 1000},
    {"doubled", 2, -1, 0, 2000},
    {"doubled again", 3, -1, 0, 4000},
    {"up to the ceiling", 6, -1, 0, 30000},
    {"and not above", 4000000000U, -1, 0, 30000},
    {"a wish is met, and not by all at once", 1, 7000, 7000, 7250},
    {"a wish of none", 3, 0, 0, 250},
};

/* Each bound must be kept always and come near within 2,000 draws. */
static void test_waits(void **state)
{
    uint64_t random = 7;

    (void)state;
    for (size_t i = 0; i < sizeof(wait_cases) / sizeof(wait_cases[0]); i++) {
        const struct wait_case *c = &wait_cases[i];
        const struct retry_advice advice = {.wait_ms = c->advice_ms};
        int64_t least = INT64_MAX, most = -1, slack = (c->want_max_ms - c->want_min_ms) / 20;

        for (int draw = 0; draw < 2000; draw++) {
            int64_t ms = backoff_ms(c->tries, &advice, random_next(&random));
            least = ms < least ? ms : least;
            most = ms > most ? ms : most;
        }
        if (least < c->want_min_ms || most > c->want_max_ms || least > c->want_min_ms + slack ||
            most < c->want_max_ms - slack)
            fail_msg("%s: got %lld to %lld ms, want %lld to %lld", c->name, (long long)least,
                     (long long)most, (long long)c->want_min_ms, (long long)c->want_max_ms);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_advice),
        cmocka_unit_test(test_waits),
    };

    return cmocka_run_group_tests_name("backoff", tests, NULL, NULL);
}
