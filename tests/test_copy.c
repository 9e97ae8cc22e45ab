/* A record in COPY's binary form, byte by byte. That Postgres reads the values back: test_batch. */
#include "writer/copy.h"

#include "tests/check.h"

#define US INT64_C(1000000)

/* Takes fields off a row, as the server would. */
struct taker {
    const unsigned char *at, *end;
};

static uint64_t take(struct taker *t, size_t n)
{
    uint64_t v = 0;

    assert_true((size_t)(t->end - t->at) >= n);
    for (size_t i = 0; i < n; i++)
        v = v << 8 | *t->at++;
    return v;
}

static bool null_field(struct taker *t, const char *name)
{
    return same_int(name, (int64_t)take(t, 4), UINT32_MAX);
}

static bool int_field(struct taker *t, const char *name, size_t width, int64_t want)
{
    bool good = same_int(name, (int64_t)take(t, 4), (int64_t)width);

    return same_int(name, (int64_t)take(t, width), want) && good;
}

static bool bytes_field(struct taker *t, const char *name, const void *want, size_t len)
{
    bool good = same_int(name, (int64_t)take(t, 4), (int64_t)len);

    assert_true((size_t)(t->end - t->at) >= len);
    good = good && memcmp(t->at, want, len) == 0;
    if (!good)
        print_error("%s: other bytes than wanted\n", name);
    t->at += len;
    return good;
}

static const struct origin origin = {
    .job_id = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}},
    .account_id = 42,
    .provider = {"openai", 6},
};
static const int64_t now_us = PG_EPOCH_US + 77;

static struct taker row(struct buf *b, const struct record *r)
{
    copy_row(b, &origin, TEXT_LIT("completions"), r, now_us);
    return (struct taker){(const unsigned char *)b->at, (const unsigned char *)b->at + b->len};
}

static bool head(struct taker *t, const struct record *r)
{
    bool good = same_int("columns", (int64_t)take(t, 2), 30);

    good &= int_field(t, "account_id", 8, 42);
    good &= bytes_field(t, "provider", "openai", 6);
    good &= bytes_field(t, "feed", "completions", 11);
    good &= int_field(t, "bucket_start", 8, r->bucket_start_us - PG_EPOCH_US);
    good &= int_field(t, "bucket_seconds", 4, r->bucket_seconds);
    good &= bytes_field(t, "row_key", r->row_key, 16);
    good &= int_field(t, "row_hash", 8, r->row_hash);
    return good;
}

static bool tail(struct taker *t)
{
    bool good = int_field(t, "first_seen_at", 8, 77);

    good &= int_field(t, "changed_at", 8, 77);
    good &= bytes_field(t, "job_id", origin.job_id.at, 16);
    return good & same_int("bytes left", t->end - t->at, 0);
}

static void a_record_of_nothing(void **state)
{
    struct buf b = {.arena = arena_new()};
    struct record r;
    struct taker t;
    bool good;

    (void)state;
    record_clear(&r);
    r.bucket_start_us = PG_EPOCH_US - US; /* before Postgres's own epoch */
    r.bucket_seconds = 60;
    record_digest(&r, TEXT_LIT("completions"));
    t = row(&b, &r);
    good = head(&t, &r);
    for (int i = 0; i < 20; i++) /* all between row_hash and first_seen_at */
        good &= null_field(&t, "null");
    good &= tail(&t);
    arena_free(&b.arena);
    assert_true(good);
}

static void a_record_of_everything(void **state)
{
    struct buf b = {.arena = arena_new()};
    struct record r;
    struct taker t;
    bool good;

    (void)state;
    record_clear(&r);
    r.bucket_start_us = PG_EPOCH_US + 3600 * US;
    r.bucket_seconds = 86400;
    r.batch = TRI_TRUE;
    for (int i = 0; i < N_RECORD_COUNTS; i++)
        r.counts[i] = i ? i : INT64_MAX;
    for (int i = 0; i < N_RECORD_TEXTS; i++)
        r.texts[i] = TEXT_LIT("t\303\244");
    r.texts[TEXT_API_KEY_ID] = TEXT_LIT("");
    r.texts[TEXT_DIMS] = TEXT_LIT("{\"size\":\"1024\"}");
    r.texts[TEXT_QUANTITY] = TEXT_LIT("10000.5");
    r.texts[TEXT_COST_AMOUNT] = TEXT_LIT("-0.06");
    r.texts[TEXT_CURRENCY] = TEXT_LIT("USD");
    r.texts[TEXT_EXTRA] = TEXT_LIT("{}");
    record_digest(&r, TEXT_LIT("completions"));
    t = row(&b, &r);
    good = head(&t, &r);
    good &= bytes_field(&t, "project_id", "t\303\244", 3);
    good &= bytes_field(&t, "user_id", "t\303\244", 3);
    good &= bytes_field(&t, "api_key_id", "", 0); /* empty is not null */
    good &= bytes_field(&t, "model", "t\303\244", 3);
    good &= bytes_field(&t, "service_tier", "t\303\244", 3);
    good &= int_field(&t, "batch", 1, 1);
    good &= bytes_field(&t, "line_item", "t\303\244", 3);
    good &= bytes_field(&t, "dims", "\1{\"size\":\"1024\"}", 16);
    for (int i = 0; i < N_RECORD_COUNTS; i++)
        good &= int_field(&t, "count", 8, i ? i : INT64_MAX);
    /* numeric: digits to base 10,000, weight of the first, sign, digits after the point */
    good &= bytes_field(&t, "quantity", "\0\3\0\1\0\0\0\1\0\1\0\0\x13\x88", 14);
    good &= bytes_field(&t, "quantity_unit", "t\303\244", 3);
    good &= bytes_field(&t, "cost_amount", "\0\1\xff\xff\x40\0\0\2\2\x58", 10);
    good &= bytes_field(&t, "currency", "USD", 3);
    good &= bytes_field(&t, "extra", "\1{}", 3);
    good &= tail(&t);
    arena_free(&b.arena);
    assert_true(good);
}

static const struct {
    const char *name;
    int8_t batch;
    uint64_t want_len;
    uint64_t want;
} batch_cases[] = {
    {"true", TRI_TRUE, 1, 1}, {"false", TRI_FALSE, 1, 0}, {"null", TRI_NULL, UINT32_MAX, 0}};

static void batch_has_three_states(void **state)
{
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(batch_cases); i++) {
        struct buf b = {.arena = arena_new()};
        struct record r;
        struct taker t;
        record_clear(&r);
        r.batch = batch_cases[i].batch;
        t = row(&b, &r);
        good &= head(&t, &r);
        for (int k = 0; k < 5; k++)
            good &= null_field(&t, "null");
        good &=
            same_int(batch_cases[i].name, (int64_t)take(&t, 4), (int64_t)batch_cases[i].want_len);
        if (batch_cases[i].want_len == 1)
            good &=
                same_int(batch_cases[i].name, (int64_t)take(&t, 1), (int64_t)batch_cases[i].want);
        arena_free(&b.arena);
    }
    assert_true(good);
}

static void the_frame_around(void **state)
{
    struct buf b = {.arena = arena_new()};

    (void)state;
    copy_begin(&b);
    copy_end(&b);
    assert_int_equal(b.len, 21);
    assert_memory_equal(b.at, "PGCOPY\n\377\r\n\0\0\0\0\0\0\0\0\0\377\377", 21);
    arena_free(&b.arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_frame_around),
        cmocka_unit_test(a_record_of_nothing),
        cmocka_unit_test(a_record_of_everything),
        cmocka_unit_test(batch_has_three_states),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
