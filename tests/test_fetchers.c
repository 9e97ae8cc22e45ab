/* Who is given the next job. */
#include "scheduler/fetchers.h"

#include "tests/check.h"

#define SECOND INT64_C(1000000)

static struct fetchers all;

static struct fetcher *seen(const char *name, uint32_t capacity, int64_t mono_us)
{
    return fetchers_seen(&all, text_of(name), capacity, mono_us);
}

static int reset(void **state)
{
    (void)state;
    all = (struct fetchers){.n = 0};
    return 0;
}

static const struct {
    const char *name;
    struct {
        uint32_t capacity, held;
    } of[3]; /* a, b, c; capacity and held 0: not there */
    const char *want;
    size_t want_credit;
} pick_cases[] = {
    {"nobody is there", {{0, 0}}, NULL, 0},
    {"one alone", {{8, 0}}, "a", 8},
    {"one alone, full", {{8, 8}}, NULL, 0},
    {"one alone, over its capacity after it shrank", {{2, 8}}, NULL, 0},
    {"it wants nothing more", {{0, 3}}, NULL, 0},
    {"the idle one", {{8, 1}, {8, 0}}, "b", 15},
    {"the smaller share in use, not the fewer jobs", {{4, 2}, {100, 10}}, "b", 92},
    {"equal shares: the first", {{4, 2}, {100, 50}}, "a", 52},
    {"the full one is passed over", {{1, 1}, {8, 7}}, "b", 1},
    {"all full", {{1, 1}, {8, 8}, {3, 5}}, NULL, 0},
    {"a stopping one is passed over", {{0, 0}, {0, 2}, {9, 8}}, "c", 1},
    {"capacities of 32 bits do not overflow",
     {{UINT32_MAX, 1u << 31}, {UINT32_MAX, 1}},
     "b",
     (size_t)UINT32_MAX * 2 - (1u << 31) - 1},
};

static void picked(void **state)
{
    static const char *const names[] = {"a", "b", "c"};
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(pick_cases); i++) {
        const struct fetcher *got;
        (void)reset(NULL);
        for (size_t k = 0; k < 3; k++)
            if (pick_cases[i].of[k].capacity || pick_cases[i].of[k].held)
                seen(names[k], pick_cases[i].of[k].capacity, 0)->held = pick_cases[i].of[k].held;
        got = fetchers_pick(&all);
        good &= same_str(pick_cases[i].name, got ? got->instance : NULL, pick_cases[i].want);
        good &= same_int(pick_cases[i].name, (int64_t)fetchers_credit(&all),
                         (int64_t)pick_cases[i].want_credit);
    }
    assert_true(good);
}

/* BR-073: jobs go out in proportion to capacity, and nobody holds more than that. */
static void shared_by_capacity(void **state)
{
    struct fetcher *one;
    int given = 0;

    (void)state;
    (void)seen("small", 10, 0);
    (void)seen("large", 40, 0);
    for (; (one = fetchers_pick(&all)); given++) {
        one->held++;
        if (given == 24) {
            assert_in_range(fetchers_find(&all, "small")->held, 4, 6);
            assert_in_range(fetchers_find(&all, "large")->held, 19, 21);
        }
    }
    assert_int_equal(given, 50);
    assert_int_equal(fetchers_find(&all, "small")->held, 10);
    assert_int_equal(fetchers_credit(&all), 0);
}

static void a_sign_of_life_keeps_what_is_held(void **state)
{
    (void)state;
    seen("a", 8, 1)->held = 3;
    assert_int_equal(seen("a", 2, 5)->held, 3);
    assert_int_equal(all.n, 1);
    assert_int_equal(fetchers_find(&all, "a")->capacity, 2);
    assert_int_equal(fetchers_find(&all, "a")->seen_us, 5);
    assert_null(fetchers_find(&all, "b"));
}

static void full_until_its_next_sign_of_life(void **state)
{
    (void)state;
    seen("a", 8, 1)->held = 3;
    (void)seen("b", 2, 1);
    fetchers_find(&all, "a")->full = true;
    assert_int_equal(fetchers_credit(&all), 2);
    assert_string_equal(fetchers_pick(&all)->instance, "b");
    assert_int_equal(seen("a", 8, 2)->held, 3);
    assert_int_equal(fetchers_credit(&all), 7);
}

static const struct {
    const char *name;
    struct text id;
    bool want;
} name_cases[] = {
    {"empty", TEXT_LIT(""), false},
    {"63 bytes", TEXT_LIT("123456789012345678901234567890123456789012345678901234567890123"), true},
    {"64 bytes", TEXT_LIT("1234567890123456789012345678901234567890123456789012345678901234"),
     false},
    {"a zero byte, as ZeroMQ's own ids have", TEXT_LIT("\0abcd"), false},
};

static void names(void **state)
{
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(name_cases); i++)
        good &= same_int(name_cases[i].name, fetchers_seen(&all, name_cases[i].id, 1, 0) != NULL,
                         name_cases[i].want);
    assert_true(good);
}

static void no_more_than_the_list_holds(void **state)
{
    char name[16];

    (void)state;
    for (int i = 0; i < FETCHERS_MAX; i++) {
        (void)snprintf(name, sizeof(name), "f%d", i);
        assert_non_null(seen(name, 1, 0));
    }
    assert_null(seen("one more", 1, 0));
    assert_non_null(seen("f0", 2, 0));
    fetchers_drop(&all, "f7");
    fetchers_drop(&all, "f7");
    assert_int_equal(all.n, FETCHERS_MAX - 1);
    assert_non_null(seen("one more", 1, 0));
}

static void the_silent_go(void **state)
{
    char gone[64] = "";

    (void)state;
    all.silence_us = 3 * SECOND;
    (void)seen("old", 1, 0);
    (void)seen("older", 1, 0);
    (void)seen("young", 1, 5 * SECOND);
    assert_false(fetchers_drop_silent(&all, all.silence_us - 1, gone));
    assert_true(fetchers_drop_silent(&all, all.silence_us, gone));
    assert_string_equal(gone, "old");
    assert_true(fetchers_drop_silent(&all, all.silence_us, gone));
    assert_string_equal(gone, "older");
    assert_false(fetchers_drop_silent(&all, all.silence_us, gone));
    assert_int_equal(all.n, 1);
    assert_non_null(fetchers_find(&all, "young"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(picked),
        cmocka_unit_test_setup(shared_by_capacity, reset),
        cmocka_unit_test_setup(a_sign_of_life_keeps_what_is_held, reset),
        cmocka_unit_test_setup(full_until_its_next_sign_of_life, reset),
        cmocka_unit_test_setup(names, reset),
        cmocka_unit_test_setup(no_more_than_the_list_holds, reset),
        cmocka_unit_test_setup(the_silent_go, reset),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
