/* The normalizer: pages in at one link, records out at the other. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <xxhash.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/providers/reader.h"
#include "common/reading.h"
#include "normalizer/normalizer.h"
#include "tests/fakes/record_print.h"

#define T0 INT64_C(1793923200) /* 2026-11-06T00:00:00Z */

#define ROW(in)                                                                                    \
    "{\"object\":\"organization.usage.completions.result\",\"input_tokens\":" in                   \
    ",\"output_tokens\":2,\"num_model_requests\":1}"
#define PAGE(rows)                                                                                 \
    "{\"data\":[{\"start_time\":1793923200,\"end_time\":1793926800,\"results\":[" rows             \
    "]}],\"has_more\":false,\"next_page\":null}"
#define OUT " output_tokens=2 num_requests=1\n"

static struct origin origin_of(const char *provider)
{
    return (struct origin){.job_id = {{1, 2, 3}},
                           .scheduler_id = {{4}},
                           .account_id = 99,
                           .epoch = 5,
                           .provider = text_of(provider)};
}

static struct page page_of(const char *feed, uint32_t seq, const char *body)
{
    return (struct page){
        .window = 1,
        .seq = seq,
        .asked = {.feed = text_of(feed), .from_us = T0 * US_PER_S, .bucket_s = 3600},
        .complete_us = T0 * US_PER_S,
        .last = true,
        .body = text_of(body)};
}

/* ---- one page ---- */

static const struct {
    const char *name, *provider, *feed, *body, *want;
} page_cases[] = {
    {"a good page", "openai", "completions", PAGE(ROW("5")), "1793923200/3600 input_tokens=5" OUT},
    {"a row set aside, the other kept", "openai", "completions", PAGE(ROW("5") "," ROW("\"x\"")),
     "1793923200/3600 input_tokens=5" OUT
     "bad $.data[0].results[1].input_tokens: input_tokens: not a number\n"},
    {"a dead page", "openai", "completions", "{\"data\":null}",
     "dead $.data: $.data: no array of buckets; this is not a page of usage\n"},
    {"an unknown provider", "closedai", "completions", PAGE(ROW("5")),
     "dead : this version knows no such provider: are all stages of one version?\n"},
    {"an unknown feed", "openai", "dreams", PAGE(ROW("5")),
     "dead : this version knows no such feed of the provider: are all stages of one version?\n"},
};

static void test_pages(void **state)
{
    struct arena *a = arena_new();

    (void)state;
    for (size_t i = 0; i < sizeof(page_cases) / sizeof(page_cases[0]); i++) {
        struct origin origin = origin_of(page_cases[i].provider);
        struct page page = page_of(page_cases[i].feed, 7, page_cases[i].body);
        struct record_page got;
        const char *text;
        normalize_page(&got, a, &origin, &page, NULL);
        text = record_page_print(a, &got);
        if (strcmp(text, page_cases[i].want) != 0)
            fail_msg("%s: got:\n%swant:\n%s", page_cases[i].name, text, page_cases[i].want);
        assert_int_equal(got.window, 1);
        assert_int_equal(got.seq, 7);
        assert_int_equal(got.complete_us, T0 * US_PER_S);
        arena_reset(a);
    }
    arena_free(&a);
}

/* Under which digest the same page may be passed over next time. */
static const struct {
    const char *name, *provider, *feed, *body;
    bool sent, want;
} digest_cases[] = {
    {"a page that is all in", "openai", "completions", PAGE(ROW("5")), true, true},
    {"one without rows", "openai", "completions", PAGE(""), true, true},
    {"one that came without a digest", "openai", "completions", PAGE(ROW("5")), false, false},
    {"a row set aside", "openai", "completions", PAGE(ROW("5") "," ROW("\"x\"")), true, false},
    {"a dead page", "openai", "completions", "{\"data\":null}", true, false},
    {"an unknown feed", "openai", "dreams", PAGE(ROW("5")), true, false},
    {"people, whose names depend on settings of ours", "anthropic", "claude_code",
     "[{\"data\":[],\"has_more\":false,\"next_page\":null}]", true, false},
};

static void test_digests(void **state)
{
    static const struct page_digest bytes = {{1, 2, 3}};
    const struct page_digest read = reading_digest(&bytes);
    struct arena *a = arena_new();

    (void)state;
    assert_false(page_digest_eq(&bytes, &read));
    for (size_t i = 0; i < sizeof(digest_cases) / sizeof(digest_cases[0]); i++) {
        struct origin origin = origin_of(digest_cases[i].provider);
        struct page page = page_of(digest_cases[i].feed, 7, digest_cases[i].body);
        struct record_page got;
        page.asked.to_us = page.asked.from_us + US_PER_DAY;
        if (digest_cases[i].sent)
            page.digest = bytes;
        normalize_page(&got, a, &origin, &page, NULL);
        if (page_digest_is(&got.digest) != digest_cases[i].want)
            fail_msg("%s: %s digest", digest_cases[i].name, digest_cases[i].want ? "no" : "a");
        if (digest_cases[i].want)
            assert_true(page_digest_eq(&got.digest, &read));
        arena_reset(a);
    }
    arena_free(&a);
}

/* ---- pages whose records are known, byte for byte ---- */

/* Pages of the provider simulator, and one of all that is odd. The digest is of all records with
 * their keys and hashes, and of what was set aside: whatever is made faster or moved, they stay as
 * they are. If one changes on purpose, so does what is stored of every row. */
static const struct {
    const char *file, *provider, *feed;
    uint32_t bucket_s;
    const char *want;
} golden_cases[] = {
    {"completions", "openai", "completions", 3600, "fabdd89c29da0f52aff36509780eb8a1"},
    {"embeddings", "openai", "embeddings", 3600, "b9acb0c8e12f5bba4484c2aae16ec2df"},
    {"images", "openai", "images", 3600, "aed4b1d66e4091e1568e28a44b159673"},
    {"file_search_calls", "openai", "file_search_calls", 3600, "ee89b13bbf617f043fe157077e92f66f"},
    {"web_search_calls", "openai", "web_search_calls", 3600, "f6a7a429a1dc8575110984b6388e66fe"},
    {"vector_stores", "openai", "vector_stores", 3600, "99aa06d3014798d86001c324468d497f"},
    {"costs", "openai", "costs", 86400, "7d7640cfae09895c0afacc0e923a4e74"},
    {"messages", "anthropic", "messages", 3600, "12aabf88d5704da453e35e44d9b18c42"},
    {"cost_report", "anthropic", "cost_report", 86400, "c6523bdc026fed6d2db26ce20c43cd37"},
    {"claude_code", "anthropic", "claude_code", 86400, "adb935c89fdf0c38dd493f73b726dacd"},
    {"odd", "openai", "completions", 3600, "5485fedc17b39050721096f73f490dc5"},
};

static struct text golden_page(struct arena *a, const char *name)
{
    FILE *in = fopen(arena_printf(a, "tests/golden/%s.json", name), "rb");
    struct buf b = {.arena = a};
    char chunk[4096];
    size_t n;

    assert_non_null(in); /* run from the top of the repository */
    while ((n = fread(chunk, 1, sizeof(chunk), in)) > 0)
        buf_append(&b, chunk, n);
    assert_int_equal(fclose(in), 0);
    return (struct text){b.at, b.len};
}

static const char *digest_of(struct arena *a, const struct record_page *page)
{
    struct buf all = {.arena = a}, hex = {.arena = a};
    XXH128_canonical_t digest;

    buf_str(&all, record_page_print(a, page));
    for (size_t i = 0; i < page->n_records; i++) {
        buf_append(&all, page->records[i].row_key, sizeof(page->records[i].row_key));
        buf_append(&all, &page->records[i].row_hash, sizeof(page->records[i].row_hash));
    }
    for (size_t i = 0; i < page->n_bad_rows; i++)
        buf_text(&all, page->bad_rows[i].body);
    XXH128_canonicalFromHash(&digest, XXH3_128bits(all.at, all.len));
    for (size_t i = 0; i < sizeof(digest.digest); i++)
        buf_printf(&hex, "%02x", digest.digest[i]);
    return hex.at;
}

static void test_golden(void **state)
{
    static const struct secret no_key;
    const struct people people = {&no_key, true};
    struct arena *a = arena_new();
    bool good = true;

    (void)state;
    for (size_t i = 0; i < sizeof(golden_cases) / sizeof(golden_cases[0]); i++) {
        struct origin origin = {.provider = text_of(golden_cases[i].provider)};
        struct page page = {.asked = {.feed = text_of(golden_cases[i].feed),
                                      .from_us = INT64_C(1794700800) * US_PER_S,
                                      .bucket_s = golden_cases[i].bucket_s},
                            .body = golden_page(a, golden_cases[i].file)};
        struct record_page got;
        const char *digest;

        normalize_page(&got, a, &origin, &page, &people);
        digest = digest_of(a, &got);
        if (strcmp(digest, golden_cases[i].want) != 0) {
            print_error("%s: got %s, want %s\n%s", golden_cases[i].file, digest,
                        golden_cases[i].want, record_page_print(a, &got));
            good = false;
        }
        arena_reset(a);
    }
    assert_true(good);
    arena_free(&a);
}

/* ---- messages stay below the limits ---- */

static const struct {
    const char *name;
    size_t body_len[4]; /* of each page's dead letter; 0: no more pages */
    size_t n_records[4];
    size_t want;
} fit_cases[] = {
    {"small pages go together", {10, 10, 10}, {0}, 3},
    {"the third is too much", {15 << 20, 15 << 20, 15 << 20}, {0}, 2},
    {"one that is too large goes alone", {60 << 20, 10}, {0}, 1},
    {"records count too", {31 << 20, 1 << 19, 1 << 20}, {1, 60, 60}, 2},
};

static void test_fit(void **state)
{
    struct record *records = xalloc(60, sizeof(*records));

    (void)state;
    for (size_t i = 0; i < 60; i++)
        record_clear(&records[i]);
    for (size_t i = 0; i < sizeof(fit_cases) / sizeof(fit_cases[0]); i++) {
        struct record_page pages[4] = {0};
        size_t n = 0, got;
        for (; n < 4 && fit_cases[i].body_len[n] > 0; n++) {
            pages[n].dead.body = (struct text){"", fit_cases[i].body_len[n]};
            pages[n].records = records;
            pages[n].n_records = fit_cases[i].n_records[n];
        }
        got = normalizer_fit(pages, n);
        if (got != fit_cases[i].want)
            fail_msg("%s: got %zu, want %zu", fit_cases[i].name, got, fit_cases[i].want);
    }
    free(records);
}

/* ---- through the links ---- */

/* A fetcher's and a writer's end around a normalizer, in one folder. */
struct rig {
    char dir[64];
    struct arena *arena;
    struct config cfg;
    struct normalizer *n;
    void *zmq;
    struct link *to, *from;
};

static void rig_open(struct rig *rig)
{
    struct err err = {0};

    *rig = (struct rig){.dir = "/tmp/uf-test-XXXXXX", .arena = arena_new(), .zmq = zmq_ctx_new()};
    assert_non_null(mkdtemp(rig->dir));
    rig->cfg.pages = arena_printf(rig->arena, "ipc://%s/pages", rig->dir);
    rig->cfg.records = arena_printf(rig->arena, "ipc://%s/records", rig->dir);
    rig->cfg.pulse = arena_printf(rig->arena, "ipc://%s/pulse", rig->dir);
    rig->cfg.instance = "test";
    rig->cfg.log_level = LOG_ERROR; /* the warnings are asked for, and errors are not */
    if (normalizer_open(&rig->n, &rig->cfg, &err) != ST_OK ||
        link_open(&rig->to, rig->zmq, LINK_PAGES_OUT, &rig->cfg, TEXT_NULL, &err) != ST_OK)
        fail_msg("%s", err.text);
}

static void rig_listen(struct rig *rig)
{
    struct err err = {0};

    if (link_open(&rig->from, rig->zmq, LINK_RECORDS_IN, &rig->cfg, TEXT_NULL, &err) != ST_OK)
        fail_msg("%s", err.text);
}

static void rig_close(struct rig *rig)
{
    char *path;

    link_close(&rig->to);
    link_close(&rig->from);
    normalizer_close(&rig->n);
    assert_null(rig->n);
    normalizer_close(&rig->n); /* accepts NULL */
    zmq_ctx_term(rig->zmq);
    path = arena_printf(rig->arena, "%s/pages", rig->dir);
    (void)rmdir(path);
    path = arena_printf(rig->arena, "%s/records", rig->dir);
    (void)rmdir(path);
    path = arena_printf(rig->arena, "%s/pulse", rig->dir);
    (void)rmdir(path);
    assert_int_equal(rmdir(rig->dir), 0); /* nothing is left behind */
    arena_free(&rig->arena);
}

static void rig_send(struct rig *rig, const struct text *frames, size_t n)
{
    int64_t until_us = clock_mono_us() + 10 * US_PER_S;
    struct err err = {0};

    while (link_send(rig->to, 0, frames, n, &err) != ST_OK) {
        if (clock_mono_us() > until_us)
            fail_msg("not sent: %s", err.text);
        link_refresh(rig->to, clock_mono_us());
        (void)usleep(1000);
    }
}

static void rig_send_pages(struct rig *rig, const struct page *pages, size_t n)
{
    struct pages message = {.origin = origin_of("openai"), .pages = pages, .n_pages = n};
    struct buf head = {.arena = rig->arena};
    struct buf bodies = {.arena = rig->arena};

    pages_encode_head(&head, &message);
    for (size_t i = 0; i < n; i++)
        buf_text(&bodies, pages[i].body);
    rig_send(rig, (struct text[]){{head.at, head.len}, {bodies.at, bodies.len}}, 2);
}

/* Records as they come out, the normalizer turning in between; ends the test after ten seconds.
 */
static const struct records *rig_receive(struct rig *rig, bool turn)
{
    int64_t until_us = clock_mono_us() + 10 * US_PER_S;
    const struct records *got = NULL;
    struct msg in;
    struct err err = {0};

    while (link_recv(rig->from, 0, &in, &err) != ST_OK) {
        if (clock_mono_us() > until_us)
            fail_msg("no records came");
        if (turn) {
            (void)stage_wait(normalizer_stage(rig->n), clock_mono_us() + 10 * US_PER_MS);
            assert_int_equal(normalizer_take(rig->n, &err), ST_OK);
        } else {
            (void)usleep(1000);
        }
    }
    assert_int_equal(in.n, 1);
    struct text copy = arena_text(rig->arena, msg_frame(&in, 0));
    msg_clear(&in);
    if (records_decode(&got, rig->arena, copy, &err) != ST_OK)
        fail_msg("%s", err.text);
    return got;
}

static void test_pages_become_records(void **state)
{
    const struct page pages[] = {page_of("completions", 0, PAGE(ROW("5"))),
                                 page_of("completions", 1, "<html>"),
                                 page_of("completions", 2, PAGE(""))};
    const struct records *got;
    struct origin origin = origin_of("openai");
    struct rig rig;

    (void)state;
    rig_open(&rig);
    rig_listen(&rig);
    rig_send_pages(&rig, pages, 3);
    got = rig_receive(&rig, true);
    assert_true(uuid_eq(&got->origin.job_id, &origin.job_id));
    assert_true(uuid_eq(&got->origin.scheduler_id, &origin.scheduler_id));
    assert_int_equal(got->origin.account_id, 99);
    assert_int_equal(got->origin.epoch, 5);
    assert_int_equal(got->n_pages, 3);
    assert_string_equal(record_page_print(rig.arena, &got->pages[0]),
                        "1793923200/3600 input_tokens=5" OUT);
    assert_non_null(got->pages[1].dead.reason.at);
    assert_int_equal(got->pages[1].seq, 1);
    assert_int_equal(got->pages[1].n_spans, 0);
    assert_int_equal(got->pages[2].n_spans, 1); /* an empty bucket removes what was there */
    assert_int_equal(got->pages[2].n_records, 0);
    rig_close(&rig);
}

/* What is no pages message at all is dropped, and the next one is read. */
static void test_garbage_is_dropped(void **state)
{
    const struct page page = page_of("completions", 4, PAGE(ROW("5")));
    const struct text garbage[] = {TEXT_LIT("\x93\x01\x04"), TEXT_LIT("x")};
    struct rig rig;

    (void)state;
    rig_open(&rig);
    rig_listen(&rig);
    rig_send(&rig, garbage, 1);
    rig_send(&rig, garbage, 2);
    rig_send_pages(&rig, &page, 1);
    assert_int_equal(rig_receive(&rig, true)->pages[0].seq, 4);
    rig_close(&rig);
}

struct late_writer {
    struct rig *rig;
    const struct records *got;
};

static void *listen_late(void *arg)
{
    struct late_writer *late = arg;

    (void)usleep(300000);
    rig_listen(late->rig);
    late->got = rig_receive(late->rig, false);
    return NULL;
}

/* No writer yet: the page waits in hand, and goes out when one comes. */
static void test_waits_for_a_writer(void **state)
{
    const struct page page = page_of("completions", 4, PAGE(ROW("5")));
    struct rig rig;
    struct late_writer late = {&rig, NULL};
    struct err err = {0};
    pthread_t thread;

    (void)state;
    rig_open(&rig);
    rig_send_pages(&rig, &page, 1);
    assert_int_equal(pthread_create(&thread, NULL, listen_late, &late), 0);
    (void)stage_wait(normalizer_stage(rig.n), clock_mono_us() + 5 * US_PER_S);
    assert_int_equal(normalizer_take(rig.n, &err), ST_OK);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_non_null(late.got);
    assert_int_equal(late.got->pages[0].n_records, 1);
    rig_close(&rig);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pages),
        cmocka_unit_test(test_digests),
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_fit),
        cmocka_unit_test(test_pages_become_records),
        cmocka_unit_test(test_garbage_is_dropped),
        cmocka_unit_test(test_waits_for_a_writer),
    };

    log_open("test", LOG_ERROR);
    return cmocka_run_group_tests_name("normalizer", tests, NULL, NULL);
}
