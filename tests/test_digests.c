/* What is known of an account's pages from one job to the next, and when it is known no more. */
#include "scheduler/digests.h"

#include <stdlib.h>

#include "tests/check.h"

static const struct feed feeds[] = {{.name = "completions"}, {.name = "costs"}, {.name = "images"}};

static struct tracked_job *job_new(int64_t epoch)
{
    struct tracked_job *job = calloc(1, sizeof(*job));

    job->arena = arena_new();
    job->epoch = epoch;
    job->windows = ARENA_ARRAY(job->arena, WIRE_WINDOWS_MAX, struct job_window);
    return job;
}

static struct job_window *window_add(struct tracked_job *job, const struct feed *feed)
{
    struct job_window *w = &job->windows[job->n_windows++];

    w->feed = feed;
    return w;
}

/* The window's `n` pages are committed with a row each; page k's digest begins with `mark` + k. */
static void committed(struct tracked_job *job, uint32_t window, uint32_t n, uint8_t mark,
                      enum ending ending)
{
    const struct window_end end = {.window = window, .ending = ending, .pages = n};

    for (uint32_t seq = 0; seq < n; seq++)
        job_ack(job, &(struct ack){.window = window,
                                   .seq = seq,
                                   .fate = PAGE_COMMITTED,
                                   .complete_us = seq + 1,
                                   .inserted = 1,
                                   .digest = {{(uint8_t)(mark + seq)}}});
    job_done(job, &(struct done){.ends = &end, .n_ends = 1});
}

/* "completions 1 2; costs 9": each feed with the first bytes of its pages' digests. */
static const char *told(struct arena *a, struct tracked_job *job)
{
    struct buf b = {.arena = a};

    buf_str(&b, "");
    for (size_t i = 0; i < job->n_known; i++) {
        buf_printf(&b, "%s%.*s", i ? "; " : "", (int)job->known[i].feed.len, job->known[i].feed.at);
        for (size_t k = 0; k < job->known[i].n; k++)
            buf_printf(&b, " %u", (unsigned)job->known[i].pages[k].digest.at[0]);
    }
    return b.at;
}

/* A first job of epoch 1, which has read completions (1 2) and costs (9). */
static struct text after_first(struct arena *a)
{
    struct tracked_job *job = job_new(1);
    struct text out;

    (void)window_add(job, &feeds[0]);
    (void)window_add(job, &feeds[1]);
    committed(job, 0, 2, 1, END_OK);
    committed(job, 1, 1, 9, END_OK);
    out = digests_write(a, job);
    job_free(job);
    return out;
}

/* ---- what a second job, which reads completions, leaves known ---- */

static void nothing(struct tracked_job *job)
{
    (void)job;
}

static void is_lost(struct tracked_job *job)
{
    job->lost = true;
}

static void is_an_audit(struct tracked_job *job)
{
    job->windows[0].audits_3d = true;
}

static void is_a_weekly_audit(struct tracked_job *job)
{
    job->windows[0].audits_30d = true;
}

static void is_an_injection(struct tracked_job *job)
{
    job->windows[0].owed_id = 7;
}

static void an_injection_beside_it(struct tracked_job *job)
{
    window_add(job, &feeds[0])->owed_id = 7;
}

static void a_page_is_dead(struct tracked_job *job)
{
    job_ack(job, &(struct ack){.seq = 1, .fate = PAGE_DEAD, .digest = {{4}}});
}

static void a_page_is_fenced(struct tracked_job *job)
{
    job_ack(job, &(struct ack){.seq = 1, .fate = PAGE_FENCED, .digest = {{4}}});
}

static void a_page_has_no_digest(struct tracked_job *job)
{
    job_ack(job, &(struct ack){.seq = 1, .fate = PAGE_COMMITTED, .inserted = 1});
}

static void a_page_is_missing(struct tracked_job *job)
{
    const struct window_end end = {.ending = END_OK, .pages = 3};

    job_done(job, &(struct done){.ends = &end, .n_ends = 1});
}

static void it_reads_nothing(struct tracked_job *job)
{
    job->n_windows = 0;
    job->lost = true; /* as whoever has nothing to ask is settled */
}

static const struct {
    const char *name;
    void (*before)(struct tracked_job *job); /* its pages are told */
    uint32_t pages;
    enum ending ending;
    void (*after)(struct tracked_job *job);
    const char *want;
} cases[] = {
    {"what is read replaces what was known of the feed, and of no other", nothing, 2, END_OK,
     nothing, "costs 9; completions 5 6"},
    {"a job with nothing to ask changes nothing", nothing, 0, END_OK, it_reads_nothing,
     "completions 1 2; costs 9"},
    {"a lost lease: its pages may still be committed", nothing, 2, END_OK, is_lost, "costs 9"},
    {"an audit asks otherwise than the next cycle", nothing, 2, END_OK, is_an_audit, "costs 9"},
    {"the weekly one, too", nothing, 2, END_OK, is_a_weekly_audit, "costs 9"},
    {"an injection may have replaced what was known", nothing, 2, END_OK, is_an_injection,
     "costs 9"},
    {"one beside it, too", nothing, 2, END_OK, an_injection_beside_it, "costs 9"},
    {"a dead page", a_page_is_dead, 2, END_OK, nothing, "costs 9"},
    {"a fenced page", a_page_is_fenced, 2, END_OK, nothing, "costs 9"},
    {"a page that must be read each time", a_page_has_no_digest, 2, END_OK, nothing, "costs 9"},
    {"a page that was not acknowledged", nothing, 2, END_OK, a_page_is_missing, "costs 9"},
    {"our page cap", nothing, 2, END_PAGE_CAP, nothing, "costs 9"},
    {"an error after pages", nothing, 2, END_PROVIDER_ERROR, nothing, "costs 9"},
    {"as many pages as are kept", nothing, WIRE_KNOWN_MAX, END_OK, nothing,
     "costs 9; completions 5 6 7 8 9 10 11 12"},
    {"one more", nothing, WIRE_KNOWN_MAX + 1, END_OK, nothing, "costs 9"},
};

static void what_stays_known(void **state)
{
    struct arena *a = arena_new();
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(cases); i++) {
        struct tracked_job *second = job_new(2), *third = job_new(3);
        digests_read(second, after_first(a));
        good &= same_str(cases[i].name, told(a, second), "completions 1 2; costs 9");
        (void)window_add(second, &feeds[0]);
        cases[i].before(second);
        committed(second, 0, cases[i].pages, 5, cases[i].ending);
        cases[i].after(second);
        digests_read(third, digests_write(a, second));
        good &= same_str(cases[i].name, told(a, third), cases[i].want);
        job_free(second);
        job_free(third);
    }
    arena_free(&a);
    assert_true(good);
}

/* Whoever claimed the account in between, this program or an older one, may have changed what is
 * there. */
static void good_for_the_next_lease_only(void **state)
{
    static const int64_t epochs[] = {-1, 0, 1, 3, 4, INT64_MAX};
    struct arena *a = arena_new();

    (void)state;
    for (size_t i = 0; i < ROWS(epochs); i++) {
        struct tracked_job *job = job_new(epochs[i]);
        digests_read(job, after_first(a));
        assert_int_equal(job->n_known, 0);
        assert_null(digests_write(a, job).at);
        job_free(job);
    }
    arena_free(&a);
}

static void audits_and_injections_know_nothing(void **state)
{
    static void (*const kinds[])(struct tracked_job * job) = {nothing, is_an_audit,
                                                              is_a_weekly_audit, is_an_injection};
    struct arena *a = arena_new();

    (void)state;
    for (size_t i = 0; i < ROWS(kinds); i++) {
        struct tracked_job *job = job_new(2);
        digests_read(job, after_first(a));
        (void)window_add(job, &feeds[0]);
        (void)window_add(job, &feeds[2]);
        kinds[i](job);
        digests_give(job);
        if (i == 0) {
            assert_non_null(job->windows[0].known);
            assert_int_equal(job->windows[0].known->n, 2);
            assert_int_equal(job->windows[0].known->pages[1].digest.at[0], 2);
            assert_int_equal(job->windows[0].known->pages[1].rows, 1);
        } else {
            assert_null(job->windows[0].known);
        }
        assert_null(job->windows[1].known); /* nothing is known of it */
        job_free(job);
    }
    arena_free(&a);
}

/* Passed over twice in a row: it stays known, with its rows. */
static void what_is_passed_over_stays_known(void **state)
{
    struct arena *a = arena_new();
    struct text value = after_first(a);

    (void)state;
    for (int64_t epoch = 2; epoch < 5; epoch++) {
        const struct same_page same[] = {{.seq = 0, .known = 0, .complete_us = 1},
                                         {.seq = 1, .known = 1, .complete_us = 2}};
        const struct window_end end = {.ending = END_OK, .pages = 2, .same = same, .n_same = 2};
        struct tracked_job *job = job_new(epoch);
        digests_read(job, value);
        (void)window_add(job, &feeds[0]);
        digests_give(job);
        job_done(job, &(struct done){.ends = &end, .n_ends = 1});
        assert_true(job_settled(job));
        assert_int_equal(job->windows[0].unchanged, 2);
        value = digests_write(a, job);
        job_free(job);
    }
    {
        struct tracked_job *last = job_new(5);
        digests_read(last, value);
        assert_string_equal(told(a, last), "costs 9; completions 1 2");
        job_free(last);
    }
    arena_free(&a);
}

/* Each copy has just its own size, so that ASan sees a read beyond it. */
static void a_damaged_value_is_nothing(void **state)
{
    struct arena *a = arena_new();
    struct text good = after_first(a);

    (void)state;
    for (size_t len = 0; len < good.len; len++) {
        struct tracked_job *job = job_new(2);
        char *copy = malloc(len ? len : 1);
        memcpy(copy, good.at, len);
        digests_read(job, (struct text){copy, len});
        /* cut between two feeds it is a shorter list */
        assert_true(job->n_known == 0 || strcmp(told(a, job), "completions 1 2") == 0);
        free(copy);
        job_free(job);
    }
    for (size_t at = 0; at < good.len; at++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            struct tracked_job *job = job_new(2);
            char *copy = malloc(good.len);
            memcpy(copy, good.at, good.len);
            copy[at] = (char)(copy[at] ^ (1 << bit));
            digests_read(job, (struct text){copy, good.len});
            assert_true(job->n_known <= WIRE_WINDOWS_MAX);
            for (size_t i = 0; i < job->n_known; i++)
                assert_true(job->known[i].n <= WIRE_KNOWN_MAX);
            assert_true(at >= 9 || job->n_known == 0); /* the version and the epoch */
            free(copy);
            job_free(job);
        }
    }
    arena_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_stays_known),
        cmocka_unit_test(good_for_the_next_lease_only),
        cmocka_unit_test(audits_and_injections_know_nothing),
        cmocka_unit_test(what_is_passed_over_stays_known),
        cmocka_unit_test(a_damaged_value_is_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
