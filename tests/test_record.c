/* The key and the hash of a usage record: stored in the table, so never to change. */
#include "common/record.h"

#include <xxhash.h>

#include "common/arena.h"
#include "tests/check.h"

static struct record base(void)
{
    struct record r;

    record_clear(&r);
    r.bucket_seconds = 3600;
    r.batch = TRI_FALSE;
    r.counts[COUNT_INPUT_TOKENS] = 100;
    r.texts[TEXT_PROJECT_ID] = TEXT_LIT("proj_1");
    r.texts[TEXT_MODEL] = TEXT_LIT("gpt-4o");
    r.texts[TEXT_QUANTITY] = TEXT_LIT("1.50");
    record_digest(&r, TEXT_LIT("completions"));
    return r;
}

static void a_cleared_record_holds_nothing(void **state)
{
    struct record r;

    (void)state;
    memset(&r, 0x55, sizeof(r));
    record_clear(&r);
    for (size_t i = 0; i < N_RECORD_COUNTS; i++)
        assert_true(r.counts[i] == COUNT_NULL);
    for (size_t i = 0; i < N_RECORD_TEXTS; i++)
        assert_null(r.texts[i].at);
    assert_int_equal(r.batch, TRI_NULL);
    assert_int_equal(r.bucket_seconds, 0);
}

/* The documented form, put together by hand. */
static void the_canonical_form(void **state)
{
    static const char key_form[] = "\x0b\0\0\0completions" /* feed */
                                   "\x04\0\0\0"
                                   "3600"
                                   "\x06\0\0\0proj_1"
                                   "\xff\xff\xff\xff" /* user_id */
                                   "\xff\xff\xff\xff" /* api_key_id */
                                   "\x06\0\0\0gpt-4o"
                                   "\xff\xff\xff\xff" /* service_tier */
                                   "\x05\0\0\0"
                                   "false"
                                   "\xff\xff\xff\xff"  /* line_item */
                                   "\xff\xff\xff\xff"; /* dims */
    static const char hash_form[] = "\x64\0\0\0\0\0\0\0"
                                    "\0\0\0\0\0\0\0\x80"
                                    "\0\0\0\0\0\0\0\x80"
                                    "\0\0\0\0\0\0\0\x80"
                                    "\0\0\0\0\0\0\0\x80"
                                    "\0\0\0\0\0\0\0\x80"
                                    "\0\0\0\0\0\0\0\x80"
                                    "\x03\0\0\0"
                                    "1.5"
                                    "\xff\xff\xff\xff\xff\xff\xff\xff"
                                    "\xff\xff\xff\xff\xff\xff\xff\xff";
    struct record r = base();
    XXH128_canonical_t want;

    (void)state;
    XXH128_canonicalFromHash(&want, XXH3_128bits(key_form, sizeof(key_form) - 1));
    assert_memory_equal(r.row_key, want.digest, 16);
    assert_true(r.row_hash == (int64_t)XXH3_64bits(hash_form, sizeof(hash_form) - 1));
}

static void append_part(struct buf *form, struct text t)
{
    const unsigned char len[4] = {(unsigned char)t.len, (unsigned char)(t.len >> 8),
                                  (unsigned char)(t.len >> 16), (unsigned char)(t.len >> 24)};

    buf_append(form, t.at ? (const char *)len : "\xff\xff\xff\xff", 4);
    buf_text(form, t);
}

/* Longer than what is gathered before it is hashed: nothing of the form changes at any length. */
static void the_canonical_form_of_long_texts(void **state)
{
    static char letters[5000];
    struct arena *a = arena_new();

    (void)state;
    memset(letters, 'x', sizeof(letters));
    for (size_t len = 900; len < sizeof(letters); len += len < 1100 ? 1 : 977) {
        struct buf key = {.arena = a}, hash = {.arena = a};
        struct record r = base();
        XXH128_canonical_t want;

        r.texts[TEXT_MODEL] = r.texts[TEXT_EXTRA] = (struct text){letters, len};
        record_digest(&r, TEXT_LIT("completions"));
        append_part(&key, TEXT_LIT("completions"));
        append_part(&key, TEXT_LIT("3600"));
        for (size_t i = TEXT_PROJECT_ID; i <= TEXT_SERVICE_TIER; i++)
            append_part(&key, r.texts[i]);
        append_part(&key, TEXT_LIT("false"));
        append_part(&key, TEXT_NULL);
        append_part(&key, TEXT_NULL);
        XXH128_canonicalFromHash(&want, XXH3_128bits(key.at, key.len));
        assert_memory_equal(r.row_key, want.digest, 16);
        for (size_t i = 0; i < N_RECORD_COUNTS; i++)
            buf_append(&hash, i == COUNT_INPUT_TOKENS ? "\x64\0\0\0\0\0\0\0" : "\0\0\0\0\0\0\0\x80",
                       8);
        append_part(&hash, TEXT_LIT("1.5"));
        append_part(&hash, TEXT_NULL);
        append_part(&hash, TEXT_NULL);
        append_part(&hash, TEXT_NULL);
        append_part(&hash, r.texts[TEXT_EXTRA]);
        assert_true(r.row_hash == (int64_t)XXH3_64bits(hash.at, hash.len));
        arena_reset(a);
    }
    arena_free(&a);
}

/* What changes the key (the row) and what the hash (its measures). */
struct change {
    const char *name;
    void (*change)(struct record *r);
    bool key, hash;
};

static void set_model(struct record *r)
{
    r->texts[TEXT_MODEL] = TEXT_LIT("gpt-4o-mini");
}
static void set_batch_null(struct record *r)
{
    r->batch = TRI_NULL;
}
static void set_batch_true(struct record *r)
{
    r->batch = TRI_TRUE;
}
static void set_width(struct record *r)
{
    r->bucket_seconds = 86400;
}
static void set_start(struct record *r)
{
    r->bucket_start_us = 3600000000;
}
static void set_user_empty(struct record *r)
{
    r->texts[TEXT_USER_ID] = TEXT_LIT("");
}
static void set_dims(struct record *r)
{
    r->texts[TEXT_DIMS] = TEXT_LIT("{\"size\":\"1024x1024\"}");
}
static void swap_neighbours(struct record *r)
{
    r->texts[TEXT_USER_ID] = r->texts[TEXT_PROJECT_ID];
    r->texts[TEXT_PROJECT_ID] = TEXT_NULL;
}
static void set_count(struct record *r)
{
    r->counts[COUNT_INPUT_TOKENS] = 101;
}
static void set_count_null(struct record *r)
{
    r->counts[COUNT_INPUT_TOKENS] = COUNT_NULL;
}
static void set_count_zero(struct record *r)
{
    r->counts[COUNT_OUTPUT_TOKENS] = 0;
}
static void trim_quantity(struct record *r)
{
    r->texts[TEXT_QUANTITY] = TEXT_LIT("1.5");
}
static void set_quantity(struct record *r)
{
    r->texts[TEXT_QUANTITY] = TEXT_LIT("15");
}
static void set_unit(struct record *r)
{
    r->texts[TEXT_QUANTITY_UNIT] = TEXT_LIT("images");
}
static void set_extra(struct record *r)
{
    r->texts[TEXT_EXTRA] = TEXT_LIT("{\"n\":1}");
}

static const struct change changes[] = {
    {"another model is another row", set_model, true, false},
    {"batch null is not false", set_batch_null, true, false},
    {"batch true is not false", set_batch_true, true, false},
    {"another width is another row", set_width, true, false},
    {"the bucket's start is a column of its own", set_start, false, false},
    {"empty is null", set_user_empty, false, false},
    {"dims are part of the key", set_dims, true, false},
    {"a text in the neighbour's place", swap_neighbours, true, false},
    {"a count", set_count, false, true},
    {"a count that is null", set_count_null, false, true},
    {"zero is not null", set_count_zero, false, true},
    {"1.50 is 1.5", trim_quantity, false, false},
    {"a quantity", set_quantity, false, true},
    {"a unit", set_unit, false, true},
    {"extra", set_extra, false, true},
};

static void what_makes_a_row_and_what_a_change(void **state)
{
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(changes); i++) {
        struct record before = base(), after = base();

        changes[i].change(&after);
        record_digest(&after, TEXT_LIT("completions"));
        good &= same_int(changes[i].name, memcmp(before.row_key, after.row_key, 16) != 0,
                         changes[i].key);
        good &= same_int(changes[i].name, before.row_hash != after.row_hash, changes[i].hash);
    }
    assert_true(good);
}

static const struct {
    const char *name, *one, *other;
    bool same;
} amount_cases[] = {
    {"no zeros after the point", "2.00", "2", true},
    {"zeros before the point stay", "200", "2", false},
    {"zero", "0.00", "0", true},
    {"a zero inside", "1.05", "1.5", false},
    {"negative", "-1.50", "-1.5", true},
};

static void amounts_are_values(void **state)
{
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(amount_cases); i++) {
        struct record one = base(), other = base();

        one.texts[TEXT_COST_AMOUNT] = text_of(amount_cases[i].one);
        other.texts[TEXT_COST_AMOUNT] = text_of(amount_cases[i].other);
        record_digest(&one, TEXT_LIT("costs"));
        record_digest(&other, TEXT_LIT("costs"));
        good &=
            same_int(amount_cases[i].name, one.row_hash == other.row_hash, amount_cases[i].same);
    }
    assert_true(good);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_cleared_record_holds_nothing),
        cmocka_unit_test(the_canonical_form),
        cmocka_unit_test(the_canonical_form_of_long_texts),
        cmocka_unit_test(what_makes_a_row_and_what_a_change),
        cmocka_unit_test(amounts_are_values),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
