/* Money stays the digits that were received; counts are whole and within 64 bits. */
#include "common/decimal.h"

#include "tests/check.h"

#define ZEROS_9 "000000000"
#define ZEROS_99                                                                                   \
    ZEROS_9 "0" ZEROS_9 "0" ZEROS_9 "0" ZEROS_9 "0" ZEROS_9 "0" ZEROS_9 "0" ZEROS_9 "0" ZEROS_9    \
            "0" ZEROS_9 "0" ZEROS_9
#define ZEROS_999                                                                                  \
    ZEROS_99 "0" ZEROS_99 "0" ZEROS_99 "0" ZEROS_99 "0" ZEROS_99 "0" ZEROS_99 "0" ZEROS_99         \
             "0" ZEROS_99 "0" ZEROS_99 "0" ZEROS_99

static const struct {
    const char *name, *text;
    enum status want;
    const char *want_text;
} parse_cases[] = {
    {"BR-035: a number", "0.06", ST_OK, "0.06"},
    {"BR-035: trailing zeros stay", "0.0600000000", ST_OK, "0.0600000000"},
    {"BR-035: a small exponent", "1e-7", ST_OK, "0.0000001"},
    {"BR-035: a large exponent", "1E+2", ST_OK, "100"},
    {"BR-035: a blank in front is refused", " 0.5", ST_REJECT, NULL},
    {"BR-035: empty is refused", "", ST_REJECT, NULL},
    {"BR-035: NaN is refused", "NaN", ST_REJECT, NULL},
    {"BR-035: null is refused", "null", ST_REJECT, NULL},
    {"BR-035: true is refused", "true", ST_REJECT, NULL},
    {"BR-035: a group separator is refused", "1,234.50", ST_REJECT, NULL},
    {"a tenth that no double holds", "0.1", ST_OK, "0.1"},
    {"an exponent is resolved, not rounded", "2.5e-11", ST_OK, "0.000000000025"},
    {"digits beyond a double", "12345678901234567890.123456789012345678", ST_OK,
     "12345678901234567890.123456789012345678"},
    {"negative", "-12.50", ST_OK, "-12.50"},
    {"negative zero is zero", "-0.00", ST_OK, "0.00"},
    {"a whole zero with an exponent", "0e5", ST_OK, "0"},
    {"an exponent inside the fraction", "1.2345e2", ST_OK, "123.45"},
    {"an exponent of zero", "7e0", ST_OK, "7"},
    {"leading zeros of the fraction", "0.000", ST_OK, "0.000"},
    {"a trailing letter is refused", "1.5x", ST_REJECT, NULL},
    {"a plus is refused", "+1", ST_REJECT, NULL},
    {"no digit after the point", "1.", ST_REJECT, NULL},
    {"no digit before the point", ".5", ST_REJECT, NULL},
    {"a leading zero", "01", ST_REJECT, NULL},
    {"a minus alone", "-", ST_REJECT, NULL},
    {"no exponent after e", "1e", ST_REJECT, NULL},
    {"no exponent after the sign", "1e-", ST_REJECT, NULL},
    {"two points", "1.2.3", ST_REJECT, NULL},
    {"Infinity", "Infinity", ST_REJECT, NULL},
    {"hexadecimal", "0x10", ST_REJECT, NULL},
    {"a blank behind", "1 ", ST_REJECT, NULL},
    {"more than 1000 digits by exponent", "1e1000", ST_REJECT, NULL},
    {"1000 places", "1e-1000", ST_OK, "0." ZEROS_999 "1"},
    {"1000 places, written out", "0." ZEROS_999 "1", ST_OK, "0." ZEROS_999 "1"},
    {"1001 places, written out", "0.0" ZEROS_999 "1", ST_REJECT, NULL},
    {"more than 1000 places by exponent", "1e-1001", ST_REJECT, NULL},
    {"an exponent beyond 64 bits", "1e99999999999999999999", ST_REJECT, NULL},
    {"a negative exponent beyond 64 bits", "1e-99999999999999999999", ST_REJECT, NULL},
};

static void parses(void **state)
{
    struct arena *a = arena_new();
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(parse_cases); i++) {
        struct decimal d = {0};
        struct err err = {0};
        enum status st = decimal_parse(&d, a, text_of(parse_cases[i].text), &err);

        good &= same_int(parse_cases[i].name, st, parse_cases[i].want);
        if (st == ST_OK)
            good &=
                same_str(parse_cases[i].name, decimal_format(&d, a).at, parse_cases[i].want_text);
        else
            good &= same_int(parse_cases[i].name, err.text[0] != '\0', true);
    }
    assert_true(good);
    arena_free(&a);
}

/* What passes as plain is what comes out of parsing and formatting it, too. */
static const struct {
    const char *name, *text;
    bool want;
} plain_cases[] = {
    {"whole", "12", true},
    {"zero", "0", true},
    {"zeros behind the point stay", "0.060", true},
    {"zeros alone", "0.000", true},
    {"a hundred digits",
     "123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123"
     "4567890",
     true},
    {"more are left to the parser",
     "123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123"
     "45678901",
     false},
    {"negative: it may be zero", "-0.0", false},
    {"an exponent", "1e2", false},
    {"a leading zero", "00", false},
    {"no digit after the point", "1.", false},
    {"no digit before it", ".5", false},
    {"a second point", "1.2.3", false},
    {"a blank", "1 ", false},
    {"empty", "", false},
};

static void plain_numbers_are_known(void **state)
{
    struct arena *a = arena_new();
    bool good = !decimal_is_plain(TEXT_NULL);

    (void)state;
    for (size_t i = 0; i < ROWS(plain_cases); i++) {
        struct text t = text_of(plain_cases[i].text);
        struct decimal d = {0};
        struct err err;

        good &= same_int(plain_cases[i].name, decimal_is_plain(t), plain_cases[i].want);
        if (plain_cases[i].want && decimal_parse(&d, a, t, &err) != ST_OK)
            good &= same_str(plain_cases[i].name, err.text, "");
        else if (plain_cases[i].want)
            good &= same_str(plain_cases[i].name, decimal_format(&d, a).at, t.at);
    }
    assert_true(good);
    arena_free(&a);
}

static void a_null_text_is_refused(void **state)
{
    struct arena *a = arena_new();
    struct decimal d;
    struct err err;
    int64_t n;

    (void)state;
    assert_int_equal(decimal_parse(&d, a, TEXT_NULL, &err), ST_REJECT);
    assert_int_equal(int64_parse(&n, TEXT_NULL, &err), ST_REJECT);
    arena_free(&a);
}

static const struct {
    const char *name, *text;
    uint32_t places;
    const char *want;
} shift_cases[] = {
    {"cents to dollars", "123.78912", 2, "1.2378912"},
    {"a small amount", "5", 2, "0.05"},
    {"negative", "-5", 2, "-0.05"},
    {"zero", "0", 2, "0.00"},
    {"no places", "1.5", 0, "1.5"},
};

static void shifts(void **state)
{
    struct arena *a = arena_new();
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(shift_cases); i++) {
        struct decimal d;
        struct err err;

        assert_int_equal(decimal_parse(&d, a, text_of(shift_cases[i].text), &err), ST_OK);
        decimal_shift(&d, shift_cases[i].places);
        good &= same_str(shift_cases[i].name, decimal_format(&d, a).at, shift_cases[i].want);
    }
    assert_true(good);
    arena_free(&a);
}

static const struct {
    const char *name, *one, *other, *want;
} add_cases[] = {
    {"a tenth and two", "0.1", "0.2", "0.3"},
    {"the larger scale", "1.5", "0.25", "1.75"},
    {"a carry through all digits", "999.99", "0.01", "1000.00"},
    {"to zero", "1.50", "-1.5", "0.00"},
    {"a smaller negative", "5", "-0.75", "4.25"},
    {"a larger negative", "0.75", "-5", "-4.25"},
    {"two negatives", "-0.75", "-5", "-5.75"},
    {"a borrow through all digits", "1000", "-0.001", "999.999"},
    {"zero", "0", "0", "0"},
    {"far apart", "100000000000000000000", "0.00000000000000000001",
     "100000000000000000000.00000000000000000001"},
};

static void adds(void **state)
{
    struct arena *a = arena_new();
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(add_cases); i++) {
        struct decimal one, other, sum;
        struct err err;

        assert_int_equal(decimal_parse(&one, a, text_of(add_cases[i].one), &err), ST_OK);
        assert_int_equal(decimal_parse(&other, a, text_of(add_cases[i].other), &err), ST_OK);
        assert_int_equal(decimal_add(&sum, a, &one, &other, &err), ST_OK);
        good &= same_str(add_cases[i].name, decimal_format(&sum, a).at, add_cases[i].want);
        assert_int_equal(decimal_add(&sum, a, &other, &one, &err), ST_OK);
        good &= same_str(add_cases[i].name, decimal_format(&sum, a).at, add_cases[i].want);
    }
    assert_true(good);
    arena_free(&a);
}

static void a_sum_of_too_many_digits_is_refused(void **state)
{
    struct arena *a = arena_new();
    struct decimal large, small, sum;
    struct err err;

    (void)state;
    assert_int_equal(decimal_parse(&large, a, TEXT_LIT("1e999"), &err), ST_OK);
    assert_int_equal(decimal_parse(&small, a, TEXT_LIT("0.5"), &err), ST_OK);
    assert_int_equal(decimal_add(&sum, a, &large, &small, &err), ST_REJECT);
    assert_int_equal(decimal_add(&sum, a, &small, &small, &err), ST_OK);
    arena_free(&a);
}

/* As numeric_send of Postgres writes them: groups, weight, sign, scale, then the groups. */
static const struct {
    const char *name, *text;
    size_t n;
    int want[12];
} pg_cases[] = {
    {"zero", "0", 4, {0, 0, 0, 0}},
    {"zero with places", "0.00", 4, {0, 0, 0, 2}},
    {"one", "1", 5, {1, 0, 0, 0, 1}},
    {"groups on both sides", "12345.678", 7, {3, 1, 0, 3, 1, 2345, 6780}},
    {"negative", "-0.5", 5, {1, 0xffff, 0x4000, 1, 5000}},
    {"small", "0.000000012", 6, {2, 0xfffe, 0, 9, 1, 2000}},
    {"trailing zero groups are dropped", "100000000", 5, {1, 2, 0, 0, 1}},
    {"a zero group inside", "1.00005", 7, {3, 0, 0, 5, 1, 0, 5000}},
    {"trailing places are kept in the scale", "1.5000000000", 6, {2, 0, 0, 10, 1, 5000}},
    {"a ten-thousandth", "0.0001", 5, {1, 0xffff, 0, 4, 1}},
};

static void postgres_binary(void **state)
{
    struct arena *a = arena_new();
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(pg_cases); i++) {
        struct buf b = {.arena = a};

        decimal_to_pg(&b, text_of(pg_cases[i].text));
        good &= same_int(pg_cases[i].name, (int64_t)b.len, (int64_t)pg_cases[i].n * 2);
        for (size_t k = 0; k < pg_cases[i].n && 2 * k + 1 < b.len; k++) {
            const unsigned char *at = (const unsigned char *)b.at + 2 * k;
            good &= same_int(pg_cases[i].name, at[0] * 256 + at[1], pg_cases[i].want[k]);
        }
    }
    assert_true(good);
    arena_free(&a);
}

static const struct {
    const char *name, *text;
    enum status want;
    int64_t want_value;
} int_cases[] = {
    {"whole", "12", ST_OK, 12},
    {"zero", "0", ST_OK, 0},
    {"negative", "-7", ST_OK, -7},
    {"an exponent", "1.2e1", ST_OK, 12},
    {"a fraction of zeros", "12.0", ST_OK, 12},
    {"a negative exponent that divides", "1200e-2", ST_OK, 12},
    {"the largest", "9223372036854775807", ST_OK, INT64_MAX},
    {"the smallest", "-9223372036854775808", ST_OK, INT64_MIN},
    {"zero with a huge exponent", "0e999999999999", ST_OK, 0},
    {"one more than the largest", "9223372036854775808", ST_REJECT, 0},
    {"one less than the smallest", "-9223372036854775809", ST_REJECT, 0},
    {"a large exponent", "1e19", ST_REJECT, 0},
    {"a huge exponent", "1e999999999999", ST_REJECT, 0},
    {"a fraction", "1.5", ST_REJECT, 0},
    {"a fraction by exponent", "1e-1", ST_REJECT, 0},
    {"far below one", "1e-999999999999", ST_REJECT, 0},
    {"a text", "many", ST_REJECT, 0},
    {"empty", "", ST_REJECT, 0},
};

static void whole_numbers(void **state)
{
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(int_cases); i++) {
        struct err err = {0};
        int64_t v = 0;
        enum status st = int64_parse(&v, text_of(int_cases[i].text), &err);

        good &= same_int(int_cases[i].name, st, int_cases[i].want);
        good &= same_int(int_cases[i].name, v, int_cases[i].want_value);
    }
    assert_true(good);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parses),
        cmocka_unit_test(plain_numbers_are_known),
        cmocka_unit_test(a_null_text_is_refused),
        cmocka_unit_test(shifts),
        cmocka_unit_test(adds),
        cmocka_unit_test(a_sum_of_too_many_digits_is_refused),
        cmocka_unit_test(postgres_binary),
        cmocka_unit_test(whole_numbers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
