/* The reader: buckets of results -> records, one table of named cases per behaviour. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/providers/reader.h"
#include "tests/fakes/record_print.h"

#define T0   INT64_C(1793923200) /* 2026-11-06T00:00:00Z, a multiple of a day */
#define HOUR INT64_C(3600)
#define DAY  INT64_C(86400)

static const struct feed *openai_feed(const char *name)
{
    return feed_find(&openai_provider, text_of(name));
}

static struct record_page read_page(struct arena *a, const char *feed, const char *body, size_t len,
                                    struct page_notes *notes)
{
    const struct feed *f = openai_feed(feed);
    struct page page = {.window = 3,
                        .seq = 7,
                        .complete_us = 42,
                        .asked = {.feed = text_of(feed),
                                  .from_us = T0 * US_PER_S,
                                  .to_us = (T0 + 2 * DAY) * US_PER_S,
                                  .bucket_s = strcmp(feed, "costs") == 0 ? 86400 : 3600},
                        .body = {body, len}};
    struct raw_page raw = {f, &page, NULL};
    struct record_page got;
    struct err err = {0};
    enum status st = reader_read(&got, notes, a, &raw, &err);

    assert_int_equal(st, got.dead.reason.at ? ST_REJECT : ST_OK);
    assert_int_equal(got.window, 3);
    assert_int_equal(got.seq, 7);
    assert_int_equal(got.complete_us, 42);
    assert_int_equal(got.asked.bucket_s, page.asked.bucket_s);
    return got;
}

/* Short names: C completions rows, K cost rows, P(buckets) a page, B(n, rows) the n-th hour. */
#define P(buckets)                                                                                 \
    "{\"object\":\"page\",\"data\":[" buckets "],\"has_more\":false,\"next_page\":null}"
#define H0(rows)    "{\"start_time\":1793923200,\"end_time\":1793926800,\"results\":[" rows "]}"
#define H1(rows)    "{\"start_time\":1793926800,\"end_time\":1793930400,\"results\":[" rows "]}"
#define H3(rows)    "{\"start_time\":1793934000,\"end_time\":1793937600,\"results\":[" rows "]}"
#define D0(rows)    "{\"start_time\":1793923200,\"end_time\":1794009600,\"results\":[" rows "]}"
#define C_ROW(rest) "{\"object\":\"organization.usage.completions.result\"" rest "}"
#define C(in, rest)                                                                                \
    C_ROW(",\"input_tokens\":" in ",\"output_tokens\":2,\"num_model_requests\":1" rest)
#define K(amount, rest) "{\"object\":\"organization.costs.result\",\"amount\":" amount rest "}"
#define USD(value)      "{\"value\":" value ",\"currency\":\"usd\"}"

struct read_case {
    const char *name, *feed, *body, *want;
};

static void run(const struct read_case *cases, size_t n)
{
    struct arena *a = arena_new();

    for (size_t i = 0; i < n; i++) {
        struct page_notes notes;
        struct record_page got =
            read_page(a, cases[i].feed, cases[i].body, strlen(cases[i].body), &notes);
        const char *text = record_page_print(a, &got);
        if (strcmp(text, cases[i].want) != 0)
            fail_msg("%s: got:\n%swant:\n%s", cases[i].name, text, cases[i].want);
        arena_reset(a);
    }
    arena_free(&a);
}
#define RUN(cases) run((cases), sizeof(cases) / sizeof((cases)[0]))

#define IN_0  "1793923200/3600"
#define IN_1  "1793926800/3600"
#define OUT_2 " output_tokens=2 num_requests=1"
#define DAY_0 "1793923200/86400"

/* ---- rows ---- */

static const struct read_case row_cases[] = {
    {"a row", "completions", P(H0(C("5", ""))), IN_0 " input_tokens=5" OUT_2 "\n"},
    {"a zero is a reported zero", "completions", P(H0(C("0", ""))),
     IN_0 " input_tokens=0" OUT_2 "\n"},
    {"null is not reported, and no zero", "completions",
     P(H0(C("5", ",\"input_cached_tokens\":null"))), IN_0 " input_tokens=5" OUT_2 "\n"},
    {"BR-038 cached is a part of input", "completions",
     P(H0(C("1000", ",\"input_cached_tokens\":800"))),
     IN_0 " input_tokens=1000 cached_input_tokens=800" OUT_2 "\n"},
    {"BR-041 a total and its parts are not added", "completions",
     P(H0(C("5", ",\"input_uncached_tokens\":5,\"input_text_tokens\":5"))),
     IN_0 " input_tokens=5" OUT_2 " extra={\"input_text_tokens\":5,\"input_uncached_tokens\":5}\n"},
    {"BR-047 above 32 bits", "completions", P(H0(C("3000000000", ""))),
     IN_0 " input_tokens=3000000000" OUT_2 "\n"},
    {"BR-047 the largest count", "completions", P(H0(C("9223372036854775807", ""))),
     IN_0 " input_tokens=9223372036854775807" OUT_2 "\n"},
    {"a count with an exponent or a zero fraction is a count", "completions", P(H0(C("1.2e1", ""))),
     IN_0 " input_tokens=12" OUT_2 "\n"},
    {"BR-044 absent", "completions", P(H0(C("5", ""))), IN_0 " input_tokens=5" OUT_2 "\n"},
    {"BR-044 null", "completions",
     P(H0(C("5", ",\"project_id\":null,\"model\":null,\"api_source\":null"))),
     IN_0 " input_tokens=5" OUT_2 "\n"},
    {"BR-044 the empty text", "completions",
     P(H0(C("5", ",\"project_id\":\"\",\"model\":\"\",\"api_source\":\"\""))),
     IN_0 " input_tokens=5" OUT_2 "\n"},
    {"BR-044 the three of them are one row", "completions",
     P(H0(C("5", "") "," C("5", ",\"project_id\":null") "," C("5", ",\"project_id\":\"\""))),
     IN_0 " input_tokens=5" OUT_2 "\n"},
    {"an unknown text is a dimension", "completions", P(H0(C("5", ",\"api_source\":\"batch\""))),
     IN_0 " dims={\"api_source\":\"batch\"} input_tokens=5" OUT_2 "\n"},
    {"an unknown truth too", "completions", P(H0(C("5", ",\"z\":false,\"a\":true"))),
     IN_0 " dims={\"a\":true,\"z\":false} input_tokens=5" OUT_2 "\n"},
    {"an unknown number is kept", "completions", P(H0(C("5", ",\"new_tokens\":7"))),
     IN_0 " input_tokens=5" OUT_2 " extra={\"new_tokens\":7}\n"},
    {"its exponent is resolved", "completions", P(H0(C("5", ",\"ratio\":2.50e-3"))),
     IN_0 " input_tokens=5" OUT_2 " extra={\"ratio\":0.00250}\n"},
    {"an unknown object by its members", "completions",
     P(H0(C("5", ",\"tools\":{\"calls\":3,\"kind\":{\"name\":\"x\"},\"none\":null}"))),
     IN_0 " dims={\"tools.kind.name\":\"x\"} input_tokens=5" OUT_2 " extra={\"tools.calls\":3}\n"},
    {"an unknown array as a text", "completions", P(H0(C("5", ",\"tags\":[\"a\",1]"))),
     IN_0 " dims={\"tags\":\"[\\\"a\\\",1]\"} input_tokens=5" OUT_2 "\n"},
    {"an empty array is nothing", "completions", P(H0(C("5", ",\"tags\":[],\"o\":{}"))),
     IN_0 " input_tokens=5" OUT_2 "\n"},
    {"people are dropped, wherever they are", "completions",
     P(H0(C("5", ",\"user_email\":\"a@b.c\",\"Email\":1,\"by\":{\"owner_email_2\":\"a@b.c\"},"
                 "\"project_name\":\"x\",\"list\":[{\"email\":\"a@b.c\",\"n\":1}]"))),
     IN_0 " dims={\"list\":\"[{\\\"n\\\":1}]\"} input_tokens=5" OUT_2 "\n"},
    {"BR-034 dollars are no cents", "costs", P(D0(K(USD("412.80"), ""))),
     DAY_0 " cost_amount=412.80 currency=USD\n"},
    {"BR-035 a number", "costs", P(D0(K(USD("0.06"), ""))),
     DAY_0 " cost_amount=0.06 currency=USD\n"},
    {"BR-035 a text", "costs", P(D0(K(USD("\"0.0600000000\""), ""))),
     DAY_0 " cost_amount=0.0600000000 currency=USD\n"},
    {"BR-035 an exponent in a text", "costs", P(D0(K(USD("\"1e-7\""), ""))),
     DAY_0 " cost_amount=0.0000001 currency=USD\n"},
    {"BR-035 an exponent in a number", "costs", P(D0(K(USD("1E+2"), ""))),
     DAY_0 " cost_amount=100 currency=USD\n"},
    {"more digits than any double", "costs",
     P(D0(K(USD("12345678901234567890.123456789012345"), ""))),
     DAY_0 " cost_amount=12345678901234567890.123456789012345 currency=USD\n"},
    {"BR-040 a credit is negative", "costs", P(D0(K(USD("-12.50"), ",\"line_item\":\"credit\""))),
     DAY_0 " line_item=credit cost_amount=-12.50 currency=USD\n"},
    {"BR-112 a fraction of a quantity", "costs",
     P(D0(K(USD("1"), ",\"quantity\":0.333,\"quantity_unit\":\"duration_hours\""))),
     DAY_0 " quantity=0.333 quantity_unit=duration_hours cost_amount=1 currency=USD\n"},
    {"BR-049 a NUL in a name", "completions", P(H0(C("5", ",\"project_id\":\"proj\\u0000x\""))),
     IN_0 " project_id=proj\xef\xbf\xbdx input_tokens=5" OUT_2 "\n"},
    {"BR-050 a lone surrogate", "completions", P(H0(C("5", ",\"project_id\":\"\\ud83d\""))),
     IN_0 " project_id=\xef\xbf\xbd input_tokens=5" OUT_2 "\n"},
    {"no usage", "completions", P(""), ""},
    {"an empty bucket", "completions", P(H0("")), ""},
};

static void test_rows(void **state)
{
    (void)state;
    RUN(row_cases);
}

/* BR-056: three rows, and their sum is the organization's. */
static void test_projects_sum_to_the_whole(void **state)
{
    static const char body[] = P(H0(C("400", ",\"project_id\":\"a\"") "," C(
        "300", ",\"project_id\":\"b\"") "," C("200", ",\"project_id\":null")));
    struct arena *a = arena_new();
    struct page_notes notes;
    struct record_page got = read_page(a, "completions", body, strlen(body), &notes);
    int64_t sum = 0;

    (void)state;
    assert_int_equal(got.n_records, 3);
    for (size_t i = 0; i < got.n_records; i++)
        sum += got.records[i].counts[COUNT_INPUT_TOKENS];
    assert_int_equal(sum, 900);
    arena_free(&a);
}

/* ---- rows set aside ---- */

#define GOOD_1 IN_1 " input_tokens=1" OUT_2 "\n"
#define ROW_0  "bad $.data[0].results[0]."

static const struct read_case bad_cases[] = {
    {"a missing field", "completions",
     P(H0(C_ROW(",\"input_tokens\":5,\"output_tokens\":2")) "," H1(C("1", ""))),
     GOOD_1 ROW_0 "num_model_requests: num_model_requests: missing\n"},
    {"a missing field after a row that had it", "completions",
     P(H1(C("1", "") "," C_ROW(",\"input_tokens\":5,\"output_tokens\":2"))),
     GOOD_1 "bad $.data[0].results[1].num_model_requests: num_model_requests: missing\n"},
    {"a required null", "completions", P(H0(C("null", "")) "," H1(C("1", ""))),
     GOOD_1 ROW_0 "input_tokens: input_tokens: missing\n"},
    {"a count in a text", "completions", P(H0(C("\"5\"", "")) "," H1(C("1", ""))),
     GOOD_1 ROW_0 "input_tokens: input_tokens: not a number\n"},
    {"a negative count", "completions", P(H0(C("-5", "")) "," H1(C("1", ""))),
     GOOD_1 ROW_0 "input_tokens: input_tokens: a negative count\n"},
    {"a text that is a number", "completions",
     P(H0(C("5", ",\"project_id\":12")) "," H1(C("1", ""))),
     GOOD_1 ROW_0 "project_id: project_id: not a text\n"},
    {"batch that is a text", "completions", P(H0(C("5", ",\"batch\":\"yes\"")) "," H1(C("1", ""))),
     GOOD_1 ROW_0 "batch: batch: neither true nor false\n"},
    {"a known part that is no number", "completions",
     P(H0(C("5", ",\"input_text_tokens\":\"x\"")) "," H1(C("1", ""))),
     GOOD_1 ROW_0 "input_text_tokens: input_text_tokens: not a number\n"},
    {"an unknown kind of result", "completions",
     P(H0("{\"object\":\"organization.usage.decisions.result\",\"n\":1}") "," H1(C("1", ""))),
     GOOD_1 ROW_0 "object: object: a kind of result that this version does not know: "
                  "organization.usage.decisions.result\n"},
    {"a result that is no object", "completions", P(H0("[]") "," H1(C("1", ""))),
     GOOD_1 ROW_0 "result: result: not an object\n"},
    {"an amount that is no object", "costs", P(D0(K("1", ""))),
     ROW_0 "amount.value: amount.value: missing\n"},
    {"an amount without a currency", "costs", P(D0(K("{\"value\":1}", ""))),
     ROW_0 "amount.currency: amount.currency: missing\n"},
    {"a currency of four letters", "costs", P(D0(K("{\"value\":1,\"currency\":\"usdt\"}", ""))),
     ROW_0 "amount.currency: amount.currency: not a currency code of three letters\n"},
    {"a currency of digits", "costs", P(D0(K("{\"value\":1,\"currency\":\"u1d\"}", ""))),
     ROW_0 "amount.currency: amount.currency: not a currency code of three letters\n"},
    {"BR-035 null", "costs", P(D0(K(USD("null"), ""))),
     ROW_0 "amount.value: amount.value: missing\n"},
    {"BR-035 true", "costs", P(D0(K(USD("true"), ""))),
     ROW_0 "amount.value: amount.value: not a number\n"},
};

static void test_bad_rows(void **state)
{
    (void)state;
    RUN(bad_cases);
}

/* Amounts and counts whose refusal is worded elsewhere: set aside with the right path, and the
 * page's other row goes in. */
static const struct {
    const char *name, *feed, *body, *want_path;
} refused_numbers[] = {
    {"BR-035 a blank", "costs", P(D0(K(USD("\" 0.5\""), "") "," K(USD("1"), ""))),
     "$.data[0].results[0].amount.value"},
    {"BR-035 the empty text", "costs", P(D0(K(USD("\"\""), "") "," K(USD("1"), ""))),
     "$.data[0].results[0].amount.value"},
    {"BR-035 NaN", "costs", P(D0(K(USD("1"), "") "," K(USD("\"NaN\""), ""))),
     "$.data[0].results[1].amount.value"},
    {"BR-035 commas", "costs", P(D0(K(USD("\"1,234.50\""), "") "," K(USD("1"), ""))),
     "$.data[0].results[0].amount.value"},
    {"a monstrous exponent", "costs", P(D0(K(USD("1e999999999"), "") "," K(USD("1"), ""))),
     "$.data[0].results[0].amount.value"},
    {"a monstrous unknown number", "costs",
     P(D0(K(USD("1"), ",\"x\":1e999999999") "," K(USD("1"), ""))), "$.data[0].results[0].x"},
    {"BR-047 above the largest count", "completions",
     P(H0(C("9223372036854775808", "") "," C("1", ""))), "$.data[0].results[0].input_tokens"},
    {"a fraction of a token", "completions", P(H0(C("1.5", "") "," C("1", ""))),
     "$.data[0].results[0].input_tokens"},
};

static void test_refused_numbers(void **state)
{
    struct arena *a = arena_new();

    (void)state;
    for (size_t i = 0; i < sizeof(refused_numbers) / sizeof(refused_numbers[0]); i++) {
        struct page_notes notes;
        struct record_page got = read_page(a, refused_numbers[i].feed, refused_numbers[i].body,
                                           strlen(refused_numbers[i].body), &notes);
        if (got.n_records != 1 || got.n_bad_rows != 1 ||
            !text_is(got.bad_rows[0].json_path, refused_numbers[i].want_path))
            fail_msg("%s: got:\n%swant one row and %s", refused_numbers[i].name,
                     record_page_print(a, &got), refused_numbers[i].want_path);
        assert_true(got.bad_rows[0].reason.len > 10);
        arena_reset(a);
    }
    arena_free(&a);
}

static void test_many_bad_rows_are_bounded(void **state)
{
    struct arena *a = arena_new();
    struct buf body = {.arena = a};
    struct page_notes notes;
    struct record_page got;
    const struct dead *last;

    (void)state;
    buf_str(&body, "{\"data\":[{\"start_time\":1793923200,\"end_time\":1793926800,\"results\":[0");
    for (int i = 1; i < 1000; i++)
        buf_str(&body, ",0");
    buf_str(&body, "]}]}");
    got = read_page(a, "completions", body.at, body.len, &notes);
    assert_int_equal(got.n_bad_rows, READER_BAD_ROWS_MAX);
    last = &got.bad_rows[got.n_bad_rows - 1];
    assert_non_null(strstr(last->reason.at, "900 rows more"));
    arena_free(&a);
}

/* A dead row keeps what it takes to mend it, and nobody's address or key. */
static void test_dead_rows_hold_no_secrets(void **state)
{
    struct arena *a = arena_new();
    struct page_notes notes;
    struct record_page got;
    static const char body[] =
        P(D0(K(USD("\"x\""), ",\"user_email\":\"ann@example.com\",\"line_item\":\"sk-admin-"
                             "abcdefghijklmnopqrstuvwxyz0123456789\",\"project_id\":\"p1\"")));

    (void)state;
    got = read_page(a, "costs", body, strlen(body), &notes);
    assert_int_equal(got.n_bad_rows, 1);
    assert_non_null(strstr(got.bad_rows[0].body.at, "\"project_id\":\"p1\""));
    assert_null(strstr(got.bad_rows[0].body.at, "example.com"));
    assert_null(strstr(got.bad_rows[0].body.at, "abcdefghijklmnop"));
    arena_free(&a);
}

/* ---- dead pages ---- */

static const struct read_case dead_cases[] = {
    {"BR-029 an error with 200", "completions",
     "{\"error\":{\"code\":\"internal\",\"message\":\"try later\"}}",
     "dead $.error: $.error: an error with HTTP status 200: try later\n"},
    {"BR-029 nothing", "completions", "{}",
     "dead $.data: $.data: no array of buckets; this is not a page of usage\n"},
    {"BR-029 null", "completions", "{\"data\":null,\"has_more\":false}",
     "dead $.data: $.data: no array of buckets; this is not a page of usage\n"},
    {"an array", "completions", "[]",
     "dead $.data: $.data: no array of buckets; this is not a page of usage\n"},
    {"a bucket that is none", "completions", "{\"data\":[3]}",
     "dead $.data[0]: $.data[0]: not a bucket\n"},
    {"results that are none", "completions",
     "{\"data\":[{\"start_time\":1793923200,\"end_time\":1793926800,\"results\":null}]}",
     "dead $.data[0].results: $.data[0].results: not an array of results\n"},
    {"a start that is no time", "completions",
     "{\"data\":[{\"start_time\":\"x\",\"end_time\":1793926800,\"results\":[]}]}",
     "dead $.data[0].start_time: $.data[0].start_time: not a time in seconds since 1970\n"},
    {"no end", "completions", "{\"data\":[{\"start_time\":1793923200,\"results\":[]}]}",
     "dead $.data[0].end_time: $.data[0].end_time: not a time in seconds since 1970\n"},
    {"a start off the grid", "completions",
     P(H0(C("5", "")) ",{\"start_time\":1793926860,\"end_time\":1793930400,\"results\":[]}"),
     "dead $.data[1]: $.data[1]: it does not begin on a multiple of its width\n"},
    {"an end before its start", "completions",
     "{\"data\":[{\"start_time\":1793923200,\"end_time\":1793923200,\"results\":[]}]}",
     "dead $.data[0]: $.data[0]: its end does not fit its start and width\n"},
    {"an end beyond its width", "completions",
     "{\"data\":[{\"start_time\":1793923200,\"end_time\":1793930400,\"results\":[]}]}",
     "dead $.data[0]: $.data[0]: its end does not fit its start and width\n"},
    {"before the window", "completions",
     "{\"data\":[{\"start_time\":1793919600,\"end_time\":1793923200,\"results\":[]}]}",
     "dead $.data[0]: $.data[0]: it is outside of the window that was asked for\n"},
    {"after the window", "completions",
     "{\"data\":[{\"start_time\":1794096000,\"end_time\":1794099600,\"results\":[]}]}",
     "dead $.data[0]: $.data[0]: it is outside of the window that was asked for\n"},
};

static void test_dead_pages(void **state)
{
    (void)state;
    RUN(dead_cases);
}

/* Bodies of any bytes: dead, with a body that Postgres stores, and no crash. */
static void test_not_json(void **state)
{
    static const struct text bodies[] = {
        TEXT_LIT(""),
        TEXT_LIT("<html><b>Bad Gateway</b></html>"),
        TEXT_LIT("{\"data\":[{\"start_time\":"),
        TEXT_LIT("\0\xc0\x80\xed\xa0\x80\xf5\x80\x80\x80\xe2\x82"),
        TEXT_LIT("{\"data\":[]} x"),
        {NULL, 0},
    };
    struct arena *a = arena_new();

    (void)state;
    for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
        struct page_notes notes;
        struct record_page got = read_page(a, "completions", bodies[i].at, bodies[i].len, &notes);
        assert_non_null(got.dead.reason.at);
        assert_string_equal(got.dead.json_path.at, "$");
        assert_int_equal(got.n_spans, 0);
        assert_int_equal(got.n_records, 0);
        assert_null(memchr(got.dead.body.at, '\0', got.dead.body.len));
        assert_null(strstr(got.dead.body.at, "\xc0"));
        arena_reset(a);
    }
    arena_free(&a);
}

static void test_dead_bodies_are_bounded(void **state)
{
    struct arena *a = arena_new();
    char *body = arena_alloc(a, 1, 200001);
    struct page_notes notes;
    struct record_page got;

    (void)state;
    memset(body, '\xff', 200000); /* each byte becomes three */
    got = read_page(a, "completions", body, 200000, &notes);
    assert_true(got.dead.body.len <= DEAD_BODY_MAX);
    assert_true(got.dead.body.len > DEAD_BODY_MAX - 4);
    assert_true(got.dead.reason.len < 1000);
    arena_free(&a);
}

/* ---- buckets ---- */

static const struct {
    const char *name, *body;
    size_t n_spans;
    struct span spans[3]; /* in hours from T0 */
    size_t repeated;
} span_cases[] = {
    {"none", P(""), 0, {{0, 0}}, 0},
    {"one, empty", P(H0("")), 1, {{0, 1}}, 0},
    {"neighbours make one span", P(H0("") "," H1("")), 1, {{0, 2}}, 0},
    {"a gap makes two", P(H0("") "," H1("") "," H3("")), 2, {{0, 2}, {3, 4}}, 0},
    {"in any order", P(H3("") "," H1("") "," H0("")), 2, {{0, 2}, {3, 4}}, 0},
    {"an open bucket counts whole",
     P("{\"start_time\":1793923200,\"end_time\":1793923260,\"results\":[]}"),
     1,
     {{0, 1}},
     0},
    {"a bucket twice", P(H0("") "," H1("") "," H0("")), 1, {{0, 2}}, 1},
};

static void test_spans(void **state)
{
    struct arena *a = arena_new();

    (void)state;
    for (size_t i = 0; i < sizeof(span_cases) / sizeof(span_cases[0]); i++) {
        struct page_notes notes;
        struct record_page got =
            read_page(a, "completions", span_cases[i].body, strlen(span_cases[i].body), &notes);
        if (got.n_spans != span_cases[i].n_spans ||
            notes.repeated_buckets != span_cases[i].repeated)
            fail_msg("%s: got %zu spans, %zu repeated", span_cases[i].name, got.n_spans,
                     notes.repeated_buckets);
        for (size_t k = 0; k < got.n_spans; k++) {
            assert_int_equal(got.spans[k].from_us,
                             (T0 + span_cases[i].spans[k].from_us * HOUR) * US_PER_S);
            assert_int_equal(got.spans[k].to_us,
                             (T0 + span_cases[i].spans[k].to_us * HOUR) * US_PER_S);
        }
        arena_reset(a);
    }
    arena_free(&a);
}

/* ---- rows of one key ---- */

static const struct read_case same_cases[] = {
    {"a bucket twice: the later wins", "completions",
     P(H0(C("5", "")) "," H1(C("1", "")) "," H0(C("6", ""))),
     IN_0 " input_tokens=6" OUT_2 "\n" IN_1 " input_tokens=1" OUT_2 "\n"},
    {"a bucket twice: the later wins, empty", "completions", P(H0(C("5", "")) "," H0("")), ""},
    {"equal rows are one", "completions", P(H0(C("5", "") "," C("5", ""))),
     IN_0 " input_tokens=5" OUT_2 "\n"},
    {"others are added", "completions",
     P(H0(C("5", ",\"input_cached_tokens\":3,\"n\":1") "," C("6", ",\"n\":0.5,\"m\":1"))),
     IN_0 " input_tokens=11 cached_input_tokens=3 output_tokens=4 num_requests=2"
          " extra={\"m\":1,\"n\":1.5}\n"},
    {"three of them too", "completions", P(H0(C("1", "") "," C("2", "") "," C("4", ""))),
     IN_0 " input_tokens=7 output_tokens=6 num_requests=3\n"},
    {"money is added exactly", "costs",
     P(D0(K(USD("0.1"), ",\"quantity\":1,\"quantity_unit\":\"tokens\"") "," K(
         USD("\"0.20000000000000000001\""), ",\"quantity\":2,\"quantity_unit\":\"tokens\""))),
     DAY_0 " quantity=3 quantity_unit=tokens cost_amount=0.30000000000000000001 currency=USD\n"},
    {"units that differ have no sum", "costs",
     P(D0(K(USD("1"), ",\"quantity\":1,\"quantity_unit\":\"tokens\"") "," K(
         USD("2"), ",\"quantity\":2,\"quantity_unit\":\"images\""))),
     DAY_0 " cost_amount=3 currency=USD\n"},
    {"a quantity beside none is kept", "costs",
     P(D0(K(USD("1"), "") "," K(USD("2"), ",\"quantity\":2,\"quantity_unit\":\"images\""))),
     DAY_0 " quantity=2 quantity_unit=images cost_amount=3 currency=USD\n"},
    {"currencies that differ are not added", "costs",
     P(D0(K(USD("1"), "") "," K("{\"value\":2,\"currency\":\"EUR\"}", ""))),
     DAY_0 " cost_amount=1 currency=USD\n"
           "bad $.data[0].results[1]: another row of the same key is in another currency\n"},
    {"a sum above the largest count", "completions",
     P(H0(C("9223372036854775807", "") "," C("1", ""))),
     IN_0 " input_tokens=9223372036854775807" OUT_2 "\n"
          "bad $.data[0].results[1]: added to another row of the same key, a count passes the "
          "largest one\n"},
};

static void test_rows_of_one_key(void **state)
{
    (void)state;
    RUN(same_cases);
}

/* A sum is the same row as one that came added up: else each cycle would rewrite it. */
static void test_sums_have_the_digest_of_their_value(void **state)
{
    static const char parts[] = P(H0(C("5", ",\"n\":1") "," C("6", ",\"n\":2")));
    static const char whole[] =
        P(H0(C_ROW(",\"input_tokens\":11,\"output_tokens\":4,\"num_model_requests\":2,\"n\":3")));
    struct arena *a = arena_new();
    struct page_notes notes;
    struct record_page summed = read_page(a, "completions", parts, strlen(parts), &notes);
    struct record_page plain;

    (void)state;
    assert_int_equal(notes.summed_rows, 1);
    plain = read_page(a, "completions", whole, strlen(whole), &notes);
    assert_int_equal(summed.n_records, 1);
    assert_int_equal(summed.records[0].row_hash, plain.records[0].row_hash);
    assert_memory_equal(summed.records[0].row_key, plain.records[0].row_key, 16);
    arena_free(&a);
}

/* BR-049, BR-050: what was put in place of text that Postgres can not store is told. */
static void test_repairs_are_told(void **state)
{
    static const char odd[] = P(H0(C("5", ",\"model\":\"a\\u0000b\"")));
    static const char even[] = P(H0(C("5", ",\"model\":\"a\\u0001b\"")));
    struct arena *a = arena_new();
    struct page_notes notes;

    (void)state;
    (void)read_page(a, "completions", odd, strlen(odd), &notes);
    assert_true(notes.repaired);
    (void)read_page(a, "completions", even, strlen(even), &notes);
    assert_false(notes.repaired);
    arena_free(&a);
}

/* BR-046: what is a text's and what is the next one's is part of the key. */
static void test_keys_do_not_run_together(void **state)
{
    static const char body[] =
        P(D0(K(USD("1"), ",\"project_id\":\"a|b\",\"line_item\":\"c\"") "," K(
            USD("2"), ",\"project_id\":\"a\",\"line_item\":\"b|c\"")));
    struct arena *a = arena_new();
    struct page_notes notes;
    struct record_page got = read_page(a, "costs", body, strlen(body), &notes);

    (void)state;
    assert_int_equal(got.n_records, 2);
    assert_int_equal(notes.summed_rows, 0);
    assert_true(memcmp(got.records[0].row_key, got.records[1].row_key, 16) < 0);
    arena_free(&a);
}

static void test_records_are_sorted(void **state)
{
    struct arena *a = arena_new();
    struct buf body = {.arena = a};
    struct page_notes notes;
    struct record_page got;

    (void)state;
    buf_str(&body, "{\"data\":[");
    for (int h = 9; h >= 0; h--) {
        buf_printf(&body, "%s{\"start_time\":%lld,\"end_time\":%lld,\"results\":[",
                   h == 9 ? "" : ",", (long long)(T0 + h * HOUR), (long long)(T0 + (h + 1) * HOUR));
        for (int i = 0; i < 50; i++)
            buf_printf(&body,
                       "%s{\"object\":\"organization.usage.completions.result\",\"model\":\"m%d\","
                       "\"input_tokens\":%d,\"output_tokens\":1,\"num_model_requests\":1}",
                       i ? "," : "", i, i);
        buf_str(&body, "]}");
    }
    buf_str(&body, "]}");
    got = read_page(a, "completions", body.at, body.len, &notes);
    assert_int_equal(got.n_records, 500);
    for (size_t i = 1; i < got.n_records; i++) {
        const struct record *x = &got.records[i - 1], *y = &got.records[i];
        assert_true(
            x->bucket_start_us < y->bucket_start_us ||
            (x->bucket_start_us == y->bucket_start_us && memcmp(x->row_key, y->row_key, 16) < 0));
    }
    arena_free(&a);
}

/* ---- notes ---- */

static const struct {
    const char *name, *rows;
    size_t inconsistent;
    const char *path;
} identity_cases[] = {
    {"cached above input", C("100", ",\"input_cached_tokens\":800"), 1,
     "$.data[0].results[0].input_tokens"},
    {"parts that make the whole",
     C("100", ",\"input_cached_tokens\":60,\"input_cache_write_tokens\":10,"
              "\"input_uncached_tokens\":30"),
     0, NULL},
    {"parts that do not",
     C("100", "") "," C("100", ",\"model\":\"x\",\"input_cached_tokens\":60,"
                               "\"input_cache_write_tokens\":10,\"input_uncached_tokens\":31"),
     1, "$.data[0].results[1].input_tokens"},
    {"not all parts are reported", C("100", ",\"input_cached_tokens\":60"), 0, NULL},
    {"modalities that do not make the uncached",
     C("100", ",\"input_uncached_tokens\":100,\"input_text_tokens\":50,\"input_audio_tokens\":10,"
              "\"input_image_tokens\":10"),
     1, "$.data[0].results[0].input_uncached_tokens"},
};

/* BR-038: flagged and stored as reported. */
static void test_identities(void **state)
{
    struct arena *a = arena_new();

    (void)state;
    for (size_t i = 0; i < sizeof(identity_cases) / sizeof(identity_cases[0]); i++) {
        struct page_notes notes;
        const char *body = arena_printf(
            a, "{\"data\":[{\"start_time\":1793923200,\"end_time\":1793926800,\"results\":[%s]}]}",
            identity_cases[i].rows);
        struct record_page got = read_page(a, "completions", body, strlen(body), &notes);
        const char *path = notes.inconsistent_path ? notes.inconsistent_path : "none";
        const char *want = identity_cases[i].path ? identity_cases[i].path : "none";
        if (notes.inconsistent_rows != identity_cases[i].inconsistent || strcmp(path, want) != 0)
            fail_msg("%s: got %zu %s, want %zu %s", identity_cases[i].name, notes.inconsistent_rows,
                     path, identity_cases[i].inconsistent, want);
        assert_int_equal(got.n_bad_rows, 0);
        assert_true(got.n_records > 0);
        arena_reset(a);
    }
    arena_free(&a);
}

/* What would make a page grow without bound on its way is refused. */
static void test_growth_is_bounded(void **state)
{
    struct arena *a = arena_new();
    struct buf members = {.arena = a}, name = {.arena = a}, text = {.arena = a};
    struct page_notes notes;
    struct record_page got;
    const char *body;

    (void)state;
    for (int i = 0; i <= READER_MEMBERS_MAX; i++)
        buf_printf(&members, ",\"n%d\":1", i);
    for (int i = 0; i <= READER_NAME_MAX; i++)
        buf_str(&name, "x");
    for (int i = 0; i <= READER_TEXT_MAX; i++)
        buf_str(&text, "x");
#define HEAD                                                                                       \
    "{\"object\":\"organization.usage.completions.result\",\"input_tokens\":1,"                    \
    "\"output_tokens\":1,\"num_model_requests\":1"
    body = arena_printf(a,
                        "{\"data\":[{\"start_time\":1793923200,\"end_time\":1793926800,"
                        "\"results\":[" HEAD "%s}," HEAD ",\"%s\":1}," HEAD
                        ",\"a\":{\"%s\":1}}," HEAD ",\"model\":\"%s\"}]}]}",
                        members.at, name.at, name.at, text.at);
#undef HEAD
    got = read_page(a, "completions", body, strlen(body), &notes);
    assert_int_equal(got.n_records, 0);
    assert_int_equal(got.n_bad_rows, 4);
    assert_non_null(strstr(got.bad_rows[0].reason.at, "too many unknown members"));
    assert_non_null(strstr(got.bad_rows[1].reason.at, "too long"));
    assert_non_null(strstr(got.bad_rows[2].reason.at, "too long"));
    assert_non_null(strstr(got.bad_rows[3].reason.at, "longer"));
    for (size_t i = 0; i < got.n_bad_rows; i++)
        assert_true(got.bad_rows[i].json_path.len < 1000);
    arena_free(&a);
}

static void test_a_page_fits_into_a_message(void **state)
{
    struct arena *a = arena_new();
    struct buf text = {.arena = a}, body = {.arena = a};
    struct page_notes notes;
    struct record_page got;

    (void)state;
    for (int i = 0; i < 10000; i++)
        buf_str(&text, "0123456789012345678901234567890123456789012345678901234567890123456789"
                       "012345678901234567890123456789");
    buf_str(&body, "{\"data\":[{\"start_time\":1793923200,\"end_time\":1793926800,\"results\":[");
    for (int i = 0; i < 45; i++)
        buf_printf(&body,
                   "%s{\"object\":\"organization.usage.completions.result\",\"input_tokens\":1,"
                   "\"output_tokens\":1,\"num_model_requests\":1,\"model\":\"%d%s\"}",
                   i ? "," : "", i, text.at);
    buf_str(&body, "]}]}");
    got = read_page(a, "completions", body.at, body.len, &notes);
    assert_non_null(got.dead.reason.at);
    assert_non_null(strstr(got.dead.reason.at, "too large"));
    assert_int_equal(got.n_records, 0);
    assert_int_equal(got.n_spans, 0);
    arena_free(&a);
}

/* ---- peek ---- */

struct peek_case {
    const char *name, *body;
    const char *want; /* "more CURSOR from to closed n" in hours from T0; NULL: refused */
};

#define MORE(more_and_next) "{\"data\":[" H0(C("5", "")) "]," more_and_next "}"

static const struct peek_case peek_cases[] = {
    {"the end", P(H0(C("5", "") "," C("6", "")) "," H1("")), "end - 0 2 2 2"},
    {"more", MORE("\"has_more\":true,\"next_page\":\"page_2\""), "more page_2 0 1 1 1"},
    {"an open bucket is not closed",
     P(H0("") ",{\"start_time\":1793926800,\"end_time\":1793926860,\"results\":[]}"),
     "end - 0 2 1 0"},
    {"in any order", P(H3("") "," H0("")), "end - 0 4 4 0"},
    {"BR-029 only an empty array means no usage", P(""), "end - none"},
    {"BR-002 an empty page with a token is read on",
     "{\"object\":\"page\",\"data\":[],\"has_more\":true,\"next_page\":\"p\"}", "more p none"},
    {"a token after the end is not followed", MORE("\"has_more\":false,\"next_page\":\"p\""),
     "end - 0 1 1 1"},
    {"BR-002 more without a token: null",
     "{\"object\":\"page\",\"data\":[],\"has_more\":true,\"next_page\":null}", NULL},
    {"BR-002 absent", MORE("\"has_more\":true"), NULL},
    {"BR-002 empty", MORE("\"has_more\":true,\"next_page\":\"\""), NULL},
    {"BR-002 a number", MORE("\"has_more\":true,\"next_page\":2"), NULL},
    {"has_more is missing", MORE("\"next_page\":null"), NULL},
    {"has_more is null", MORE("\"has_more\":null"), NULL},
    {"has_more is a text", MORE("\"has_more\":\"false\""), NULL},
    {"BR-028 HTML", "<html><body>Bad Gateway</body></html>", NULL},
    {"BR-028 nothing", "", NULL},
    {"BR-029 an error", "{\"error\":{\"message\":\"try later\"}}", NULL},
    {"BR-029 no data", "{}", NULL},
    {"BR-029 null data", "{\"data\":null}", NULL},
    {"off the grid", P("{\"start_time\":1793923260,\"end_time\":1793926800,\"results\":[]}"), NULL},
    {"outside of the window",
     P("{\"start_time\":1793919600,\"end_time\":1793923200,\"results\":[]}"), NULL},
};

static const char *peek_print(struct arena *a, const struct peek *p)
{
    const char *head =
        arena_printf(a, "%s %.*s", p->has_more ? "more" : "end",
                     p->cursor.at ? (int)p->cursor.len : 1, p->cursor.at ? p->cursor.at : "-");
    int64_t hour_us = HOUR * US_PER_S, t0_us = T0 * US_PER_S;

    if (!p->any)
        return arena_printf(a, "%s none", head);
    return arena_printf(a, "%s %" PRId64 " %" PRId64 " %" PRId64 " %zu", head,
                        (p->from_us - t0_us) / hour_us, (p->to_us - t0_us) / hour_us,
                        p->closed_us ? (p->closed_us - t0_us) / hour_us : -1, p->n_results);
}

static void test_peek(void **state)
{
    struct arena *a = arena_new();
    struct question q = {.feed = openai_feed("completions"),
                         .window = {.feed = TEXT_LIT("completions"),
                                    .from_us = T0 * US_PER_S,
                                    .to_us = (T0 + 2 * DAY) * US_PER_S,
                                    .bucket_s = 3600}};

    (void)state;
    for (size_t i = 0; i < sizeof(peek_cases) / sizeof(peek_cases[0]); i++) {
        const struct peek_case *c = &peek_cases[i];
        struct peek got = {0};
        struct err err = {0};
        enum status st = openai_provider.peek(&got, a, &q, text_of(c->body), &err);
        const char *text = st == ST_OK ? peek_print(a, &got) : NULL;
        if ((text == NULL) != (c->want == NULL) || (text && strcmp(text, c->want) != 0))
            fail_msg("%s: got %s (%s), want %s", c->name, text ? text : "a refusal", err.text,
                     c->want ? c->want : "a refusal");
        if (st != ST_OK)
            assert_int_equal(st, ST_REJECT);
        arena_reset(a);
    }
    arena_free(&a);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_projects_sum_to_the_whole),
        cmocka_unit_test(test_bad_rows),
        cmocka_unit_test(test_refused_numbers),
        cmocka_unit_test(test_many_bad_rows_are_bounded),
        cmocka_unit_test(test_dead_rows_hold_no_secrets),
        cmocka_unit_test(test_dead_pages),
        cmocka_unit_test(test_not_json),
        cmocka_unit_test(test_dead_bodies_are_bounded),
        cmocka_unit_test(test_spans),
        cmocka_unit_test(test_rows_of_one_key),
        cmocka_unit_test(test_sums_have_the_digest_of_their_value),
        cmocka_unit_test(test_repairs_are_told),
        cmocka_unit_test(test_keys_do_not_run_together),
        cmocka_unit_test(test_records_are_sorted),
        cmocka_unit_test(test_identities),
        cmocka_unit_test(test_growth_is_bounded),
        cmocka_unit_test(test_a_page_fits_into_a_message),
        cmocka_unit_test(test_peek),
    };

    return cmocka_run_group_tests_name("reader", tests, NULL, NULL);
}
