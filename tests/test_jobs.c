/* The jobs that are out: what acks and ends amount to, in any order they come in. */
#include "scheduler/jobs.h"

#include <stdlib.h>

#include "tests/check.h"

static const struct feed feed = {.name = "completions"};

static struct tracked_job *job_new(size_t n_windows)
{
    struct tracked_job *job = calloc(1, sizeof(*job));

    job->arena = arena_new();
    uuid_random(&job->job_id);
    job->windows = ARENA_ARRAY(job->arena, n_windows, struct job_window);
    job->n_windows = n_windows;
    for (size_t i = 0; i < n_windows; i++)
        job->windows[i].feed = &feed;
    return job;
}

/* One letter a page: C committed with a new row, U with an unchanged one, E without rows, D dead,
 * F fenced, '.' no word of it. */
static void acknowledge(struct tracked_job *job, uint32_t window, const char *pages)
{
    for (uint32_t seq = 0; pages[seq]; seq++) {
        struct ack ack = {.job_id = job->job_id,
                          .window = window,
                          .seq = seq,
                          .fate = pages[seq] == 'D'   ? PAGE_DEAD
                                  : pages[seq] == 'F' ? PAGE_FENCED
                                                      : PAGE_COMMITTED,
                          .complete_us = 100 * ((int64_t)seq + 1),
                          .inserted = pages[seq] == 'C',
                          .unchanged = pages[seq] == 'U'};
        if (pages[seq] == 'D')
            ack.detail = TEXT_LIT("not JSON");
        if (pages[seq] != '.')
            job_ack(job, &ack);
    }
}

#define SILENT UINT32_MAX /* the fetcher has not told */
static const struct {
    const char *name, *acks;
    const char *want_detail; /* words of it */
    int64_t told_complete, want_complete;
    uint32_t told_pages;
    enum ending told, want;
    bool lost, want_settled, want_empty;
} cases[] = {
    {"all committed and ok", "CCC", NULL, 400, 400, 3, END_OK, END_OK, false, true, false},
    {"ok without any page", "", NULL, 400, 400, 0, END_OK, END_OK, false, true, true},
    {"nothing but empty buckets", "EE", NULL, 400, 400, 2, END_OK, END_OK, false, true, true},
    {"unchanged rows are rows", "UE", NULL, 400, 400, 2, END_OK, END_OK, false, true, false},
    {"a page's word is further than the end's", "CC", NULL, 50, 200, 2, END_OK, END_OK, false, true,
     false},
    {"more acks than pages told", "CCC", NULL, 400, 400, 2, END_OK, END_OK, false, true, false},
    {"a gap in the middle: not yet", "C.C", "not committed before the lease ran out", 400, 100, 3,
     END_OK, END_DEADLINE, false, false, false},
    {"a gap in the middle, lost", "C.C", "not committed before the lease ran out", 400, 100, 3,
     END_OK, END_DEADLINE, true, true, false},
    {"a gap at the start", ".CC", "not committed", 400, 0, 3, END_OK, END_DEADLINE, true, true,
     false},
    {"a dead page in the middle", "CDC", "page 1 became a dead letter: not JSON", 400, 100, 3,
     END_OK, END_PROTOCOL, false, true, false},
    {"a dead page at the start", "DCC", "page 0 became", 400, 0, 3, END_OK, END_PROTOCOL, false,
     true, false},
    {"a dead page alone is not empty", "D", "page 0 became", 400, 0, 1, END_OK, END_PROTOCOL, false,
     true, false},
    {"a dead page outweighs the end", "CD", "page 1 became", 0, 100, 2, END_RATE_LIMITED,
     END_PROTOCOL, false, true, false},
    {"told, no acks: not yet", "", "not committed", 400, 0, 2, END_OK, END_DEADLINE, false, false,
     false},
    {"told, no acks, lost", "", "not committed", 400, 0, 2, END_OK, END_DEADLINE, true, true,
     false},
    {"acks, not told: not yet", "CC", "its fetcher was gone", 0, 200, SILENT, END_OK, END_DEADLINE,
     false, false, false},
    {"acks, not told, lost: what is there stays", "CC",
     "its fetcher was gone, or the lease ran out", 0, 200, SILENT, END_OK, END_DEADLINE, true, true,
     false},
    {"nothing at all, lost", "", "its fetcher was gone", 0, 0, SILENT, END_OK, END_DEADLINE, true,
     true, false},
    {"fenced off by a newer lease", "CF", "not committed", 400, 100, 2, END_OK, END_DEADLINE, false,
     true, false},
    {"our page cap", "CC", NULL, 0, 200, 2, END_PAGE_CAP, END_PAGE_CAP, false, true, false},
    {"an error after pages keeps them", "CC", "told", 0, 200, 2, END_RATE_LIMITED, END_RATE_LIMITED,
     false, true, false},
    {"an error before any page", "", "told", 0, 0, 0, END_AUTH_INVALID, END_AUTH_INVALID, false,
     true, true},
};

static void verdicts(void **state)
{
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(cases); i++) {
        struct tracked_job *job = job_new(1);
        struct verdict v;
        const struct window_end end = {.ending = cases[i].told,
                                       .pages = cases[i].told_pages,
                                       .complete_us = cases[i].told_complete,
                                       .detail =
                                           cases[i].told == END_OK ? TEXT_NULL : TEXT_LIT("told")};
        acknowledge(job, 0, cases[i].acks);
        if (cases[i].told_pages != SILENT)
            job_done(job, &(struct done){.job_id = job->job_id, .ends = &end, .n_ends = 1});
        job->lost = cases[i].lost;
        v = window_verdict(job, &job->windows[0]);
        good &= same_int(cases[i].name, job_settled(job), cases[i].want_settled);
        good &= same_str(cases[i].name, ending_name(v.ending), ending_name(cases[i].want));
        good &= same_int(cases[i].name, v.complete_us, cases[i].want_complete);
        good &= same_int(cases[i].name, v.empty, cases[i].want_empty);
        good &= has_words(cases[i].name, v.detail ? v.detail : "", cases[i].want_detail);
        job_free(job);
    }
    assert_true(good);
}

static void a_second_word_is_ignored(void **state)
{
    struct tracked_job *job = job_new(1);
    struct job_window *w = &job->windows[0];

    (void)state;
    acknowledge(job, 0, "CC");
    acknowledge(job, 0, "DU");
    acknowledge(job, 0, "CC");
    assert_int_equal(w->n_acked, 2);
    assert_int_equal(w->inserted, 2);
    assert_int_equal(w->unchanged, 0);
    assert_false(w->dead);
    job_free(job);
}

static void acks_come_in_any_order(void **state)
{
    struct tracked_job *job = job_new(1);
    const struct window_end end = {.ending = END_OK, .pages = 1000, .complete_us = 2000};

    (void)state;
    job_done(job, &(struct done){.job_id = job->job_id, .ends = &end, .n_ends = 1});
    for (uint32_t seq = 1000; seq-- > 0;) {
        assert_false(job_settled(job));
        job_ack(job, &(struct ack){.seq = seq, .complete_us = seq + 1, .inserted = 1});
    }
    assert_true(job_settled(job));
    assert_int_equal(job->windows[0].inserted, 1000);
    assert_int_equal(window_verdict(job, &job->windows[0]).ending, END_OK);
    assert_int_equal(window_verdict(job, &job->windows[0]).complete_us, 2000);
    job_free(job);
}

/* Messages of strangers: nothing beyond the job's own windows is touched. */
static void what_is_not_ours_is_ignored(void **state)
{
    struct tracked_job *job = job_new(2);
    const struct window_end ends[] = {{.window = 63, .ending = END_OK, .pages = 5},
                                      {.window = 0, .ending = END_OK, .pages = 1}};

    (void)state;
    job_ack(job, &(struct ack){.window = 2});
    job_ack(job, &(struct ack){.window = UINT32_MAX});
    job_ack(job, &(struct ack){.seq = UINT32_MAX});
    assert_int_equal(job->windows[0].n_acked + job->windows[1].n_acked, 0);
    job_done(job, &(struct done){.job_id = job->job_id, .ends = ends, .n_ends = 2});
    assert_false(job_settled(job));
    acknowledge(job, 0, "C");
    /* the fetcher is through and said nothing of window 1: it is owed, not waited for */
    assert_true(job_settled(job));
    assert_int_equal(window_verdict(job, &job->windows[0]).ending, END_OK);
    assert_int_equal(window_verdict(job, &job->windows[1]).ending, END_DEADLINE);
    job_free(job);
}

static void windows_end_by_themselves(void **state)
{
    struct tracked_job *job = job_new(3);
    const struct window_end ends[] = {
        {.window = 0, .ending = END_OK, .pages = 1, .complete_us = 500},
        {.window = 1, .ending = END_SCOPE_MISSING, .detail = TEXT_LIT("no right")},
        {.window = 2, .ending = END_OK, .pages = 2, .complete_us = 700}};

    (void)state;
    acknowledge(job, 2, "CD");
    acknowledge(job, 0, "C");
    job_done(job, &(struct done){.job_id = job->job_id, .ends = ends, .n_ends = 3});
    assert_true(job_settled(job));
    assert_int_equal(window_verdict(job, &job->windows[0]).ending, END_OK);
    assert_int_equal(window_verdict(job, &job->windows[0]).complete_us, 500);
    assert_int_equal(window_verdict(job, &job->windows[1]).ending, END_SCOPE_MISSING);
    assert_string_equal(window_verdict(job, &job->windows[1]).detail, "no right");
    assert_int_equal(window_verdict(job, &job->windows[2]).ending, END_PROTOCOL);
    assert_int_equal(window_verdict(job, &job->windows[2]).complete_us, 100);
    job_free(job);
}

/* What the fetcher passed over is committed, by the job before; what it can not have passed over
 * stays owed. */
static void known_pages_are_committed(void **state)
{
    static const struct {
        const char *name;
        struct same_page same;
        enum ending want;
        bool known, want_settled;
    } told[] = {
        {"as it was given", {.seq = 1, .known = 1, .complete_us = 200}, END_OK, true, true},
        {"a page that the job did not know", {1, 2, 200}, END_DEADLINE, true, false},
        {"a job that knew none", {1, 0, 200}, END_DEADLINE, false, false},
        {"a page beyond the last", {3, 1, 400}, END_DEADLINE, true, false},
        {"a page that was acknowledged", {0, 1, 100}, END_DEADLINE, true, false},
    };
    const struct known_feed known = {
        .pages = {{{{1}}, .rows = 5}, {{{2}}, .rows = 7}}, .n = 2, .feed = TEXT_LIT("completions")};
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(told); i++) {
        struct tracked_job *job = job_new(1);
        struct job_window *w = &job->windows[0];
        const struct window_end end = {
            .ending = END_OK, .pages = 3, .same = &told[i].same, .n_same = 1};
        struct verdict v;
        w->known = told[i].known ? &known : NULL;
        acknowledge(job, 0, "C.U");
        job_done(job, &(struct done){.job_id = job->job_id, .ends = &end, .n_ends = 1});
        v = window_verdict(job, w);
        good &= same_int(told[i].name, job_settled(job), told[i].want_settled);
        good &= same_str(told[i].name, ending_name(v.ending), ending_name(told[i].want));
        good &= same_int(told[i].name, w->n_same, told[i].want_settled);
        good &= same_int(told[i].name, (int64_t)w->unchanged, told[i].want_settled ? 8 : 1);
        good &= same_int(told[i].name, v.complete_us, told[i].want_settled ? 300 : 100);
        job_free(job);
    }
    assert_true(good);
}

/* Nothing but known pages: the rows that they have tell whether the feed is empty. */
static void known_pages_tell_of_emptiness(void **state)
{
    (void)state;
    for (uint32_t rows = 0; rows <= 1; rows++) {
        struct tracked_job *job = job_new(1);
        const struct known_feed known = {.pages = {{{{1}}, rows}}, .n = 1};
        const struct same_page same = {0, 0, 100};
        const struct window_end end = {.ending = END_OK, .pages = 1, .same = &same, .n_same = 1};
        job->windows[0].known = &known;
        job_done(job, &(struct done){.job_id = job->job_id, .ends = &end, .n_ends = 1});
        assert_int_equal(window_verdict(job, &job->windows[0]).empty, rows == 0);
        job_free(job);
    }
}

/* BR-082: two accounts' pages in one batch, of windows and numbers that are alike: each
 * acknowledgement is one job's, and no other's watermark moves. */
static void acks_of_another_account_move_nothing(void **state)
{
    struct jobs *jobs = jobs_new();
    struct tracked_job *a = job_new(2), *b = job_new(2);
    const struct window_end ends[] = {
        {.window = 0, .ending = END_OK, .pages = 2, .complete_us = 200},
        {.window = 1, .ending = END_OK, .pages = 1, .complete_us = 100}};

    (void)state;
    jobs_add(jobs, a);
    jobs_add(jobs, b);
    job_done(a, &(struct done){.job_id = a->job_id, .ends = ends, .n_ends = 2});
    job_done(b, &(struct done){.job_id = b->job_id, .ends = ends, .n_ends = 2});
    acknowledge(jobs_find(jobs, &b->job_id), 0, "CC");
    acknowledge(jobs_find(jobs, &b->job_id), 1, "C");
    assert_true(job_settled(b));
    assert_false(job_settled(a));
    a->lost = true; /* the writer died with its rows in memory */
    for (size_t w = 0; w < 2; w++) {
        assert_int_equal(window_verdict(a, &a->windows[w]).complete_us, 0);
        assert_int_equal(window_verdict(a, &a->windows[w]).ending, END_DEADLINE);
    }
    assert_int_equal(window_verdict(b, &b->windows[0]).complete_us, 200);
    jobs_free(&jobs);
}

static void remove_each(struct tracked_job *job, void *arg)
{
    struct jobs *jobs = arg;

    jobs_remove(jobs, job);
    job_free(job);
}

static void table_of_jobs(void **state)
{
    enum { N = 20000 }; /* more than it has slots */
    struct jobs *jobs = jobs_new();
    struct uuid *ids = calloc(N, sizeof(*ids)), other;

    (void)state;
    for (size_t i = 0; i < N; i++) {
        struct tracked_job *job = job_new(1);
        ids[i] = job->job_id;
        jobs_add(jobs, job);
    }
    uuid_random(&other);
    assert_null(jobs_find(jobs, &other));
    assert_int_equal(jobs_count(jobs), N);
    for (size_t i = 0; i < N; i += 2) {
        struct tracked_job *job = jobs_find(jobs, &ids[i]);
        assert_non_null(job);
        jobs_remove(jobs, job);
        job_free(job);
        assert_null(jobs_find(jobs, &ids[i]));
    }
    assert_int_equal(jobs_count(jobs), N / 2);
    assert_non_null(jobs_find(jobs, &ids[1]));
    jobs_each(jobs, remove_each, jobs);
    assert_int_equal(jobs_count(jobs), 0);
    jobs_add(jobs, job_new(1)); /* freed with the table */
    jobs_free(&jobs);
    assert_null(jobs);
    jobs_free(&jobs);
    free(ids);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(verdicts),
        cmocka_unit_test(a_second_word_is_ignored),
        cmocka_unit_test(acks_come_in_any_order),
        cmocka_unit_test(what_is_not_ours_is_ignored),
        cmocka_unit_test(known_pages_are_committed),
        cmocka_unit_test(known_pages_tell_of_emptiness),
        cmocka_unit_test(windows_end_by_themselves),
        cmocka_unit_test(acks_of_another_account_move_nothing),
        cmocka_unit_test(table_of_jobs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
