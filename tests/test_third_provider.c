/* The provider of docs/adding-a-provider.md, read as the product reads its own: asked page by page
 * through account.h, and the pages that come out of that turned into rows by reader.h. */
#include "tests/check.h"

#include <stdlib.h>

#include "common/clock.h"
#include "common/providers/reader.h"
#include "fetcher/account.h"
#include "tests/fakes/acme_provider.h"
#include "tests/fakes/record_print.h"

#define T0    INT64_C(1793923200) /* 2026-11-06T00:00:00Z */
#define DAY_S INT64_C(86400)
#define KEY   "acme-admin-0123456789abcdefghij"

static const struct provider *find_acme(struct text name)
{
    return text_is(name, "acme") ? &acme_provider : NULL;
}

/* A row of usage at second `at` of the day. */
#define USED(at, team, in, out)                                                                    \
    "{\"time\":" at ",\"team\":" team ",\"key_id\":\"k1\",\"model\":\"large\",\"region\":\"eu\","  \
    "\"tokens\":{\"prompt\":" in ",\"cached\":1,\"completion\":" out "},\"calls\":1}"
#define CHARGED(at, sku, micros)                                                                   \
    "{\"time\":" at ",\"team\":\"red\",\"sku\":\"" sku "\",\"micros\":" micros "}"
#define ROWS_OF(total, list) "{\"total\":" total ",\"rows\":[" list "]}"
#define ASK_USAGE(from, to, offset)                                                                \
    "ask /usage?from=" from "&to=" to "&limit=500&offset=" offset "\n"
#define DAY_1 "1793923200"
#define DAY_2 "1794009600"
#define DAY_3 "1794096000"

static const struct {
    const char *name, *feed;
    int64_t days;
    uint32_t bucket_s;
    const char *answers[8]; /* "STATUS BODY" */
    const char *want;       /* what was asked, how it ended, the rows of each page */
} cases[] = {
    {"a day on one page",
     "usage",
     1,
     3600,
     {"200 " ROWS_OF("1", USED("1793926800", "\"red\"", "10", "5"))},
     ASK_USAGE(DAY_1, DAY_2, "0") "ok pages=1 complete=" DAY_2 "\n"
                                  "page " DAY_1 "-" DAY_2 " spans=1\n"
                                  "1793926800/3600 project_id=red api_key_id=k1 model=large "
                                  "dims={\"region\":\"eu\"} input_tokens=10 cached_input_tokens=1 "
                                  "output_tokens=5 num_requests=1\n"},
    {"an hour's rows on two pages are one page here, and one row when their key is the same",
     "usage",
     1,
     3600,
     {"200 " ROWS_OF(
          "3", USED("1793926800", "\"red\"", "10", "5") "," USED("1793930399", "null", "7", "7")),
      "200 " ROWS_OF("3", USED("1793930000", "\"red\"", "32", "0"))},
     ASK_USAGE(DAY_1, DAY_2, "0") ASK_USAGE(
         DAY_1, DAY_2,
         "2") "ok pages=1 complete=" DAY_2 "\n"
              "page " DAY_1 "-" DAY_2 " spans=1\n"
              "1793926800/3600 project_id=red api_key_id=k1 model=large dims={\"region\":\"eu\"} "
              "input_tokens=42 cached_input_tokens=2 output_tokens=5 num_requests=2\n"
              "1793926800/3600 api_key_id=k1 model=large dims={\"region\":\"eu\"} input_tokens=7 "
              "cached_input_tokens=1 output_tokens=7 num_requests=1\n"},
    {"two days are two questions, and an empty one is a page that clears",
     "usage",
     2,
     3600,
     {"200 " ROWS_OF("0", ""), "200 " ROWS_OF("1", USED("1794009600", "\"red\"", "1", "2"))},
     ASK_USAGE(DAY_1, DAY_2, "0")
         ASK_USAGE(DAY_2, DAY_3, "0") "ok pages=2 complete=" DAY_3 "\n"
                                      "page " DAY_1 "-" DAY_2 " spans=1\n"
                                      "page " DAY_2 "-" DAY_3 " spans=1\n"
                                      "1794009600/3600 project_id=red "
                                      "api_key_id=k1 model=large "
                                      "dims={\"region\":\"eu\"} "
                                      "input_tokens=1 cached_input_tokens="
                                      "1 output_tokens=2 num_requests=1\n"},
    {"millionths are exact: the smallest, a credit, none, more digits than a double has",
     "charges",
     1,
     86400,
     {"200 " ROWS_OF("4", CHARGED(DAY_1, "a", "1") "," CHARGED(DAY_1, "b", "-2500000") "," CHARGED(
                              DAY_1, "c", "0") "," CHARGED(DAY_1, "d", "12345678901234567890123"))},
     "ask /charges?from=" DAY_1 "&to=" DAY_2 "&limit=500&offset=0\nok pages=1 complete=" DAY_2 "\n"
     "page " DAY_1 "-" DAY_2 " spans=1\n"
     "1793923200/86400 project_id=red line_item=c cost_amount=0.000000 currency=USD\n"
     "1793923200/86400 project_id=red line_item=d cost_amount=12345678901234567.890123 "
     "currency=USD\n"
     "1793923200/86400 project_id=red line_item=b cost_amount=-2.500000 currency=USD\n"
     "1793923200/86400 project_id=red line_item=a cost_amount=0.000001 currency=USD\n"},
    {"a row without its money is set aside, its neighbour goes in",
     "charges",
     1,
     86400,
     {"200 " ROWS_OF("2", "{\"time\":" DAY_1 ",\"sku\":\"a\"}," CHARGED(DAY_1, "b", "7"))},
     "ask /charges?from=" DAY_1 "&to=" DAY_2 "&limit=500&offset=0\nok pages=1 complete=" DAY_2 "\n"
     "page " DAY_1 "-" DAY_2 " spans=1\n"
     "1793923200/86400 project_id=red line_item=b cost_amount=0.000007 currency=USD\n"
     "bad $[0].rows[0].micros: micros: missing\n"},
    {"a list that grows while it is paged is not stored by halves",
     "usage",
     1,
     3600,
     {"200 " ROWS_OF("2", USED(DAY_1, "\"red\"", "1", "2")),
      "200 " ROWS_OF("3", USED(DAY_1, "\"red\"", "3", "4")),
      "200 " ROWS_OF("3", USED(DAY_1, "\"red\"", "3", "4")),
      "200 " ROWS_OF("3", USED(DAY_1, "\"red\"", "3", "4")),
      "200 " ROWS_OF("3", USED(DAY_1, "\"red\"", "3", "4"))},
     ASK_USAGE(DAY_1, DAY_2, "0") ASK_USAGE(DAY_1, DAY_2, "1") ASK_USAGE(DAY_1, DAY_2, "1")
         ASK_USAGE(DAY_1, DAY_2, "1") ASK_USAGE(DAY_1, DAY_2, "1") "protocol pages=0 complete=0 "
                                                                   "(2 rows and has 3 now)\n"},
    {"a page without rows, when more are said to follow, is no endless loop",
     "usage",
     1,
     3600,
     {"200 " ROWS_OF("2", USED(DAY_1, "\"red\"", "1", "2")), "200 " ROWS_OF("2", "")},
     ASK_USAGE(DAY_1, DAY_2, "0")
         ASK_USAGE(DAY_1, DAY_2, "1") "protocol pages=0 complete=0 (goes in circles)\n"},
    {"a row at the window's end was not asked for",
     "usage",
     1,
     3600,
     {"200 " ROWS_OF("1", USED(DAY_2, "\"red\"", "1", "2")),
      "200 " ROWS_OF("1", USED(DAY_1, "\"red\"", "1", "2"))},
     ASK_USAGE(DAY_1, DAY_2, "0")
         ASK_USAGE(DAY_1, DAY_2, "0") "ok pages=1 complete=" DAY_2 "\n"
                                      "page " DAY_1 "-" DAY_2 " spans=1\n"
                                      "1793923200/3600 project_id=red "
                                      "api_key_id=k1 model=large "
                                      "dims={\"region\":\"eu\"} "
                                      "input_tokens=1 cached_input_tokens="
                                      "1 output_tokens=2 num_requests=1\n"},
    {"an answer without its total is no page",
     "usage",
     1,
     3600,
     {"200 {\"rows\":[]}", "200 {\"rows\":[]}", "200 {\"rows\":[]}", "200 {\"rows\":[]}"},
     ASK_USAGE(DAY_1, DAY_2, "0") ASK_USAGE(DAY_1, DAY_2, "0") ASK_USAGE(DAY_1, DAY_2, "0")
         ASK_USAGE(DAY_1, DAY_2,
                   "0") "protocol pages=0 complete=0 (not a page of Acme: $.total)\n"},
    {"a refused limit: once more with Acme's own",
     "usage",
     1,
     3600,
     {"400 {\"error\":\"limit is too large\"}", "200 " ROWS_OF("0", "")},
     ASK_USAGE(DAY_1, DAY_2, "0") "ask /usage?from=" DAY_1 "&to=" DAY_2
                                  "&offset=0\nok pages=1 complete=" DAY_2 "\npage " DAY_1 "-" DAY_2
                                  " spans=1\n"},
    {"a key that was revoked",
     "usage",
     1,
     3600,
     {"401 {\"error\":\"bad key\"}"},
     ASK_USAGE(DAY_1, DAY_2, "0") "auth_invalid pages=0 complete=0 (It said: bad key)\n"},
    {"a key without the right to charges",
     "charges",
     1,
     86400,
     {"403 {\"error\":\"no\"}"},
     "ask /charges?from=" DAY_1 "&to=" DAY_2 "&limit=500&offset=0\n"
     "scope_missing pages=0 complete=0 (may not read charges)\n"},
};

/* One case on its way. */
struct telling {
    struct arena *arena;
    struct buf told, rows;
    struct account *account;
    const struct feed *feed;
};

static void ask(struct telling *t)
{
    const char *base = acme_provider.base_url;
    struct arena *turn = arena_new();
    struct request request = {0};
    struct err err = {0};

    assert_int_equal(account_ask(t->account, &request, turn, &err), ST_OK);
    assert_memory_equal(request.url, base, strlen(base));
    assert_string_equal(request.auth.name, "Authorization");
    assert_int_equal(request.auth.value.len, strlen("Bearer " KEY));
    buf_printf(&t->told, "ask %s\n", request.url + strlen(base));
    secret_wipe(&request.auth.value);
    arena_free(&turn);
}

static void answer(struct telling *t, const char *text, int64_t mono_us)
{
    struct answer answer = {.date_s = T0 + 9 * DAY_S, .advice = {.wait_ms = -1}};
    struct arena *turn = arena_new();
    char *body;

    answer.http_status = (uint32_t)strtoul(text, &body, 10);
    answer.body.len = answer.body.cap = strlen(++body);
    answer.body.at = memcpy(malloc(answer.body.cap + 1), body, answer.body.len);
    account_answer(t->account, &answer, turn, mono_us);
    body_free(&answer.body);
    arena_free(&turn);
}

/* What the normalizer does with the pages in hand. */
static void take_pages(struct telling *t)
{
    struct secret none = {0};
    const struct people people = {&none, false};
    struct pages pages;
    char *bodies;

    account_pages(t->account, &pages);
    for (size_t i = 0; i < pages.n_pages; i++) {
        const struct page *page = &pages.pages[i];
        struct raw_page raw = {t->feed, page, &people};
        struct record_page got;
        struct page_notes notes;
        struct err err = {0};

        assert_int_equal(reader_read(&got, &notes, t->arena, &raw, &err), ST_OK);
        buf_printf(&t->rows, "page %" PRId64 "-%" PRId64 " spans=%zu\n%s",
                   page->asked.from_us / US_PER_S, page->asked.to_us / US_PER_S, got.n_spans,
                   record_page_print(t->arena, &got));
    }
    account_pages_sent(t->account);
    memcpy(&bodies, &pages.bodies.at, sizeof(bodies)); /* ours now, as the link's elsewhere */
    free(bodies);
}

static void tell_end(struct telling *t, const char *want)
{
    const char *words = strrchr(want, '(');
    struct done done;

    account_done(t->account, &done);
    buf_printf(&t->told, "%s pages=%" PRIu32 " complete=%" PRId64, ending_name(done.ends[0].ending),
               done.ends[0].pages, done.ends[0].complete_us / US_PER_S);
    if (done.ends[0].detail.at && words) { /* a detail need only hold the words that help */
        char *part = arena_copy(t->arena, words + 1, strlen(words + 1) - strlen(")\n"));
        bool there = memmem(done.ends[0].detail.at, done.ends[0].detail.len, part, strlen(part));
        buf_printf(&t->told, " (%s)",
                   there ? part
                         : arena_copy(t->arena, done.ends[0].detail.at, done.ends[0].detail.len));
    }
    buf_str(&t->told, "\n");
    if (t->rows.at)
        buf_str(&t->told, t->rows.at);
}

static struct text encode_job(struct arena *a, size_t i, struct sealer *sealer)
{
    struct secret key = secret_copy(KEY, strlen(KEY));
    struct window window = {.feed = text_of(cases[i].feed),
                            .from_us = T0 * US_PER_S,
                            .to_us = (T0 + cases[i].days * DAY_S) * US_PER_S,
                            .bucket_s = cases[i].bucket_s};
    struct job job = {.account_id = 1,
                      .epoch = 1,
                      .lease_ms = 600000,
                      .account = TEXT_LIT("one"),
                      .provider = TEXT_LIT("acme"),
                      .base_url = TEXT_LIT(""),
                      .page_cap = 100,
                      .windows = &window,
                      .n_windows = 1};
    struct buf out = {.arena = a};
    struct err err = {0};

    assert_int_equal(secret_seal(&job.sealed_key, a, sealer, job.provider, job.account, &key, &err),
                     ST_OK);
    secret_wipe(&key);
    job_encode(&out, &job);
    return (struct text){out.at, out.len};
}

static bool run_case(size_t i, struct sealer *sealer)
{
    const struct account_rules rules = {sealer, find_acme, "0", 7};
    struct telling t = {.arena = arena_new(),
                        .feed = feed_find(&acme_provider, text_of(cases[i].feed))};
    int64_t mono_us = US_PER_S;
    size_t answers = 0;
    enum account_want want;
    struct err err = {0};
    bool same;

    t.told.arena = t.rows.arena = t.arena;
    assert_int_equal(
        account_open(&t.account, encode_job(t.arena, i, sealer), &rules, mono_us, &err), ST_OK);
    while ((want = account_next(t.account, mono_us)) != WANT_NOTHING) {
        if (want == WANT_SEND)
            take_pages(&t);
        else if (want == WANT_TIME)
            mono_us = account_wake_us(t.account);
        else if (want == WANT_ASK)
            ask(&t);
        else if (cases[i].answers[answers])
            answer(&t, cases[i].answers[answers++], mono_us);
        else
            fail_msg("%s: it asks more than there are answers, after:\n%s", cases[i].name,
                     t.told.at);
    }
    tell_end(&t, cases[i].want);
    account_close(&t.account);
    same = same_str(cases[i].name, t.told.at, cases[i].want) &&
           same_str(cases[i].name, cases[i].answers[answers], NULL);
    arena_free(&t.arena);
    return same;
}

static void test_reading(void **state)
{
    char hex[64];
    struct secret key;
    struct sealer *sealer;
    struct err err = {0};
    bool good = true;

    (void)state;
    memset(hex, '7', sizeof(hex));
    assert_int_equal(encryption_key_parse(&key, (struct text){hex, sizeof(hex)}, &err), ST_OK);
    assert_int_equal(sealer_open(&sealer, &key, NULL, &err), ST_OK);
    secret_wipe(&key);
    for (size_t i = 0; i < ROWS(cases); i++)
        good &= run_case(i, sealer);
    sealer_close(&sealer);
    assert_true(good);
}

/* A key that does not begin as Acme's admin keys do is named as the reason. */
static void test_other_key(void **state)
{
    struct arena *a = arena_new();
    struct secret key = secret_copy("acme-user-1", strlen("acme-user-1"));
    struct question q = {.feed = &acme_provider.feeds[0]};
    struct refusal got;

    (void)state;
    acme_provider.refused(&got, a, &key, &q, 401, TEXT_LIT("{\"error\":\"bad key\"}"));
    assert_int_equal(got.ending, END_WRONG_KEY_KIND);
    assert_non_null(strstr(got.detail, "acme-admin-"));
    secret_wipe(&key);
    arena_free(&a);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reading),
        cmocka_unit_test(test_other_key),
    };

    return cmocka_run_group_tests_name("third_provider", tests, NULL, NULL);
}
