#include "scheduler/jobs.h"

#include <stdlib.h>
#include <string.h>

#define N_SLOTS 8192 /* a power of two; about as many as jobs may be out */

struct jobs {
    struct tracked_job *slots[N_SLOTS];
    size_t n;
};

struct jobs *jobs_new(void)
{
    return xalloc(1, sizeof(struct jobs));
}

void job_free(struct tracked_job *job)
{
    for (size_t i = 0; i < job->n_windows; i++)
        free(job->windows[i].pages);
    arena_free(&job->arena);
    free(job);
}

void jobs_free(struct jobs **jobs)
{
    if (!*jobs)
        return;
    for (size_t i = 0; i < N_SLOTS; i++) {
        while ((*jobs)->slots[i]) {
            struct tracked_job *job = (*jobs)->slots[i];
            (*jobs)->slots[i] = job->next;
            job_free(job);
        }
    }
    free(*jobs);
    *jobs = NULL;
}

/* A job id is random already. */
static size_t slot_of(const struct uuid *id)
{
    return ((size_t)id->at[15] << 8 | id->at[14]) & (N_SLOTS - 1);
}

void jobs_add(struct jobs *jobs, struct tracked_job *job)
{
    struct tracked_job **slot = &jobs->slots[slot_of(&job->job_id)];

    job->next = *slot;
    *slot = job;
    jobs->n++;
}

struct tracked_job *jobs_find(const struct jobs *jobs, const struct uuid *job_id)
{
    struct tracked_job *job = jobs->slots[slot_of(job_id)];

    while (job && !uuid_eq(&job->job_id, job_id))
        job = job->next;
    return job;
}

void jobs_remove(struct jobs *jobs, struct tracked_job *job)
{
    struct tracked_job **at = &jobs->slots[slot_of(&job->job_id)];

    while (*at != job)
        at = &(*at)->next;
    *at = job->next;
    job->next = NULL;
    jobs->n--;
}

size_t jobs_count(const struct jobs *jobs)
{
    return jobs->n;
}

void jobs_each(struct jobs *jobs, void (*visit)(struct tracked_job *job, void *arg), void *arg)
{
    for (size_t i = 0; i < N_SLOTS; i++) {
        struct tracked_job *next;
        for (struct tracked_job *job = jobs->slots[i]; job; job = next) {
            next = job->next;
            visit(job, arg);
        }
    }
}

static int compare_accounts(const void *a, const void *b)
{
    const struct tracked_job *x = *(struct tracked_job *const *)a,
                             *y = *(struct tracked_job *const *)b;

    return (x->account_id > y->account_id) - (x->account_id < y->account_id);
}

void jobs_sort(struct tracked_job **jobs, size_t n)
{
    qsort(jobs, n, sizeof(struct tracked_job *), compare_accounts);
}

#define SEQ_MAX 1000000 /* far over any page cap: a larger one is not ours */

/* NULL: there is no such page, or it had its word already. */
static struct page_ack *page_waiting(struct job_window *w, uint32_t seq)
{
    if (seq > SEQ_MAX)
        return NULL;
    if (seq >= w->cap_pages) {
        uint32_t cap = seq < 4 ? 4 : 2 * seq;
        w->pages = xrealloc(w->pages, cap, sizeof(*w->pages));
        memset(&w->pages[w->cap_pages], 0, (cap - w->cap_pages) * sizeof(*w->pages));
        w->cap_pages = cap;
    }
    return w->pages[seq].acked ? NULL : &w->pages[seq];
}

void job_ack(struct tracked_job *job, const struct ack *ack)
{
    struct job_window *w = ack->window < job->n_windows ? &job->windows[ack->window] : NULL;
    struct page_ack *page = w ? page_waiting(w, ack->seq) : NULL;

    if (!page)
        return;
    *page = (struct page_ack){.acked = true,
                              .fate = ack->fate,
                              .complete_us = ack->complete_us,
                              .digest = ack->digest,
                              .rows = ack->inserted + ack->updated + ack->unchanged};
    w->n_acked++;
    w->inserted += ack->inserted;
    w->updated += ack->updated;
    w->removed += ack->removed;
    w->unchanged += ack->unchanged;
    if (ack->fate == PAGE_DEAD) {
        w->dead = true;
        if (!w->detail)
            w->detail = arena_printf(job->arena, "page %u became a dead letter: %.*s", ack->seq,
                                     ack->detail.at ? (int)ack->detail.len : 0,
                                     ack->detail.at ? ack->detail.at : "");
    }
}

/* Pages that came as they are known: what they hold was committed by the job before. */
static void take_same(struct job_window *w, const struct window_end *e)
{
    for (size_t i = 0; i < e->n_same; i++) {
        const struct same_page *same = &e->same[i];
        const struct known_page *known;
        struct page_ack *page;
        if (!w->known || same->known >= w->known->n || same->seq >= e->pages)
            continue; /* not what the job told: the page stays owed */
        known = &w->known->pages[same->known];
        page = page_waiting(w, same->seq);
        if (!page)
            continue;
        *page = (struct page_ack){.acked = true,
                                  .fate = PAGE_COMMITTED,
                                  .complete_us = same->complete_us,
                                  .digest = known->digest,
                                  .rows = known->rows};
        w->n_acked++;
        w->n_same++;
        w->unchanged += known->rows;
    }
}

void job_done(struct tracked_job *job, const struct done *done)
{
    for (size_t i = 0; i < done->n_ends; i++) {
        const struct window_end *e = &done->ends[i];
        struct job_window *w;
        if (e->window >= job->n_windows)
            continue;
        w = &job->windows[e->window];
        w->ended = true;
        w->ending = e->ending;
        w->n_pages = e->pages;
        w->complete_us = e->complete_us;
        w->requests = e->requests;
        w->retry_after_s = e->retry_after_s;
        take_same(w, e);
        if (e->detail.at && !w->dead)
            w->detail = arena_copy(job->arena, e->detail.at, e->detail.len);
    }
    job->done = true;
}

void job_counted(struct tracked_job *job)
{
    for (size_t i = 0; i < job->n_windows; i++) {
        struct job_window *w = &job->windows[i];
        w->n_acked = w->n_same = 0;
        w->inserted = w->updated = w->removed = w->unchanged = 0;
    }
}

bool job_settled(const struct tracked_job *job)
{
    if (job->lost)
        return true;
    if (!job->done)
        return false;
    for (size_t i = 0; i < job->n_windows; i++)
        if (job->windows[i].ended && job->windows[i].n_acked < job->windows[i].n_pages)
            return false;
    return true;
}

struct verdict window_verdict(const struct tracked_job *job, const struct job_window *w)
{
    struct verdict v = {.ending = END_DEADLINE, .detail = w->detail};
    uint32_t seq = 0;

    while (seq < w->cap_pages && w->pages[seq].acked && w->pages[seq].fate == PAGE_COMMITTED) {
        if (w->pages[seq].complete_us > v.complete_us)
            v.complete_us = w->pages[seq].complete_us;
        seq++;
    }
    v.empty = w->inserted + w->updated + w->unchanged == 0 && !w->dead;
    if (w->dead) {
        v.ending = END_PROTOCOL;
    } else if (w->ended && seq >= w->n_pages) {
        v.ending = w->ending;
        if (w->complete_us > v.complete_us)
            v.complete_us = w->complete_us;
    } else {
        v.empty = false;
        v.detail = job->done ? "its pages were not committed before the lease ran out"
                             : "its fetcher was gone, or the lease ran out";
    }
    return v;
}
