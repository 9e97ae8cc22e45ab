/* jobs.h - the jobs that are out: what was asked, what came back, what is committed.
 *
 * Life: claimed -> sent to a fetcher -> done (its pages are counted) and acknowledged, page by page
 * -> settled in the ledger. All of it may be forgotten: a lease that nobody settles runs out, and
 * the account is claimed again. */
#ifndef UF_JOBS_H
#define UF_JOBS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/arena.h"
#include "common/wire.h"
#include "scheduler/plan.h"

struct page_ack {
    bool acked;
    enum page_fate fate;
    int64_t complete_us;
    struct page_digest digest; /* under which the page may be known next time, or none */
    uint32_t rows;             /* that the table has of it */
};

/* What the table has of one feed (digests.h). */
struct known_page {
    struct page_digest digest;
    uint32_t rows;
};
struct known_feed {
    struct text feed;
    struct known_page pages[WIRE_KNOWN_MAX];
    size_t n;
};

struct job_window {
    struct window asked;
    const struct feed *feed;
    struct feed_state state; /* before */
    bool audits_3d, audits_30d;
    int64_t skipped_us;
    struct span backfill; /* to be owed once the claim is made; from == to: none */
    int64_t owed_id;      /* 0: a live window */
    bool owed_backfill;   /* nobody waits for it: the older part of a new account's figures */
    int64_t owed_to_us;
    int64_t owed_failures;
    const struct known_feed *known; /* pages of it that need not be read again; NULL: none */

    bool ended; /* the fetcher has told how */
    enum ending ending;
    uint32_t n_pages; /* sent, when ended */
    int64_t complete_us;
    uint32_t requests;
    int64_t retry_after_s;
    char *detail; /* in the job's arena; NULL = none */

    struct page_ack *pages; /* by seq */
    uint32_t cap_pages, n_acked;
    uint32_t n_same; /* of these: came as they are known, so that nothing had to be done */
    bool dead;       /* some page, or row of one, became a dead letter */
    uint64_t inserted, updated, removed, unchanged;
};

struct tracked_job {
    struct tracked_job *next; /* in its slot */
    struct arena *arena;      /* texts, windows */
    struct uuid job_id;
    int64_t account_id, epoch;
    struct text account, provider, base_url, sealed_key;
    bool owed;             /* its windows are owed ones */
    const char *problem;   /* why there is nothing to ask, for people; NULL = none */
    bool forced;           /* a run that was asked for waits for it */
    int64_t claimed_at_us; /* the database's clock */
    int64_t deadline_us;   /* monotonic: the lease's end, a moment early */
    char fetcher[64];      /* its instance; "" = not sent yet */
    bool done;             /* the fetcher is through with it */
    bool lost;             /* its fetcher is gone, or the lease ran out */
    struct job_window *windows;
    size_t n_windows;
    struct known_feed *known; /* of all feeds of the account, when it was claimed */
    size_t n_known;
};

struct jobs;
struct jobs *jobs_new(void);
void jobs_free(struct jobs **jobs);
void jobs_add(struct jobs *jobs, struct tracked_job *job); /* takes it over */
struct tracked_job *jobs_find(const struct jobs *jobs, const struct uuid *job_id);
/* Out of the table: the job is the caller's, to be ended by job_free. */
void jobs_remove(struct jobs *jobs, struct tracked_job *job);
void job_free(struct tracked_job *job);
size_t jobs_count(const struct jobs *jobs);
/* Calls `visit` for each; it may remove the job it is given. */
void jobs_each(struct jobs *jobs, void (*visit)(struct tracked_job *job, void *arg), void *arg);

void jobs_sort(struct tracked_job **jobs, size_t n); /* by their accounts */

/* A page's fate arrived; a second word on the same page is ignored. */
void job_ack(struct tracked_job *job, const struct ack *ack);
/* The fetcher told how its windows ended. */
void job_done(struct tracked_job *job, const struct done *done);
/* What was acknowledged is in the sums of its runs; from here on only what comes later counts. */
void job_counted(struct tracked_job *job);
/* Nothing more is to be waited for. */
bool job_settled(const struct tracked_job *job);

/* How a window ended, all in all. Only when every page is committed and the provider said it is
 * done: END_OK. */
struct verdict {
    enum ending ending;
    int64_t complete_us; /* committed without a gap from the window's start until here; 0: no
                            progress */
    bool empty;          /* nothing but empty buckets came */
    const char *detail;
};
struct verdict window_verdict(const struct tracked_job *job, const struct job_window *w);

#endif
