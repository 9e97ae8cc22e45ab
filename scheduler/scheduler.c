#include "scheduler/scheduler.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/crash.h"
#include "common/link.h"
#include "common/log.h"
#include "scheduler/control.h"
#include "scheduler/fetchers.h"
#include "scheduler/jobs.h"
#include "scheduler/ledger.h"

#define CLAIM_MAX       512 /* accounts of one claim: one transaction, one message each */
#define CLAIM_FEW       96  /* that little room waits for more ... */
#define CLAIM_GATHER_US (100 * US_PER_MS)        /* ... for so long after the claim before */
#define CLAIM_IDLE_US   (2 * US_PER_S)           /* other hands may have made an account due */
#define CLAIM_RETRY_US  (1 * US_PER_S)           /* Postgres is away */
#define SETTLE_MAX      512                      /* jobs of one settlement */
#define ENDED_MAX       ((size_t)2 * SETTLE_MAX) /* one on its way, and one that gathers meanwhile */
/* Many share one transaction, which costs about as much as for one; but not when few more come. */
#define SETTLE_WAIT_US  (200 * US_PER_MS)
#define SETTLE_QUIET_US (25 * US_PER_MS)
#define WATCH_US        (1 * US_PER_S) /* silent fetchers and ended leases are looked for this often */
#define BACKLOG_US      (5 * US_PER_S) /* how many accounts wait is counted this often */
#define TAKE_MAX        1000 /* messages of one link in one turn: the others have their turn, too */

enum { FD_CLAIM, FD_SETTLE }; /* the stage's slots */

struct scheduler {
    const struct config *cfg;
    struct stage *stage;
    struct pulse *pulse;
    struct link *jobs_link, *acks_link, *control_link;
    struct pg *pg, *settle_pg;
    struct ledger ledger;
    struct jobs *jobs;
    struct fetchers fetchers;

    struct tracked_job *ended[ENDED_MAX]; /* out of `jobs`, to be settled */
    size_t n_ended;
    size_t n_settling;  /* the first of them: their settlement is on its way */
    size_t settle_most; /* of one transaction */
    bool acks_held;     /* until it has ended */
    int64_t settle_began_us;
    struct jobs *late; /* settled when their leases had run out; acks may still come, for a lease */
    int64_t late_at_us;   /* some came: to be told then; 0: none */
    int64_t settle_at_us; /* 0: nothing waits */
    int64_t settle_by_us; /* that, however many more end meanwhile; 0: Postgres is away */
    size_t claim_want;    /* accounts it may take */
    int64_t claimed_us;   /* the last claim's begin */
    int64_t claim_at_us, watch_at_us, backlog_at_us, started_us;
    bool paused;
};

enum status scheduler_open(struct scheduler **out, const struct config *cfg, struct err *err)
{
    struct scheduler *s = xalloc(1, sizeof(*s));
    struct text id;

    *out = s;
    s->cfg = cfg;
    s->jobs = jobs_new();
    s->late = jobs_new();
    s->settle_most = SETTLE_MAX;
    s->started_us = clock_mono_us();
    s->fetchers.silence_us = cfg->lease_s * US_PER_S / 2 < FETCHER_SILENCE_MAX_US
                                 ? cfg->lease_s * US_PER_S / 2
                                 : FETCHER_SILENCE_MAX_US;
    TRY(stage_open(&s->stage, "scheduler", cfg, err));
    pg_open(&s->pg, cfg->database_url, cfg->schema, "uf-scheduler");
    TRY(pg_await(s->pg, stage_stopping, err));
    if (stage_stopping())
        return ST_OK;
    TRY(pg_check_schema(s->pg, err));
    pg_open(&s->settle_pg, cfg->database_url, cfg->schema, "uf-scheduler");
    s->ledger = (struct ledger){.pg = s->pg, .settle_pg = s->settle_pg, .cfg = cfg};
    uuid_random(&s->ledger.scheduler_id);
    slots_init(&s->ledger.slots, &cfg->schedule, clock_utc_us());
    id = (struct text){(const char *)s->ledger.scheduler_id.at, 16};
    TRY(link_open(&s->jobs_link, stage_zmq(s->stage), LINK_JOBS_OUT, cfg, TEXT_NULL, err));
    TRY(link_open(&s->acks_link, stage_zmq(s->stage), LINK_ACKS_IN, cfg, id, err));
    TRY(link_open(&s->control_link, stage_zmq(s->stage), LINK_CONTROL_IN, cfg, TEXT_NULL, err));
    TRY(stage_pulse_open(s->stage, STAGE_SCHEDULER, cfg, err));
    s->pulse = stage_pulse(s->stage);
    s->ledger.pulse = s->pulse;
    pulse_set(s->pulse, M_POSTGRES_UP, 1);
    stage_watch(s->stage, s->jobs_link);
    stage_watch(s->stage, s->acks_link);
    stage_watch(s->stage, s->control_link);
    return ST_OK;
}

void scheduler_close(struct scheduler **s_at)
{
    struct scheduler *s = *s_at;

    if (!s)
        return;
    link_close(&s->control_link);
    link_close(&s->acks_link);
    link_close(&s->jobs_link);
    for (size_t i = 0; i < s->n_ended; i++)
        job_free(s->ended[i]);
    jobs_free(&s->jobs);
    jobs_free(&s->late);
    ledger_close(&s->ledger);
    pg_close(&s->pg);
    pg_close(&s->settle_pg);
    stage_close(&s->stage);
    free(s);
    *s_at = NULL;
}

struct stage *scheduler_stage(const struct scheduler *s)
{
    return s->stage;
}

/* How many accounts a claim may take now; 0: somebody else has to move first. */
static size_t claim_room(const struct scheduler *s)
{
    size_t out = jobs_count(s->jobs), most = (size_t)s->cfg->max_outstanding;
    size_t room = fetchers_credit(&s->fetchers);

    if (out >= most || s->n_ended == ENDED_MAX)
        return 0;
    room = room < most - out ? room : most - out;
    return room < CLAIM_MAX ? room : CLAIM_MAX;
}

/* Requests wait in their link meanwhile. */
static bool is_claiming(const struct scheduler *s)
{
    return s->ledger.claiming.step != CLAIM_NONE;
}

/* A claim of few accounts costs Postgres nearly as much as one of many, so while the fetchers have
 * enough to do, a little room waits for more. INT64_MAX: somebody else has to move first. */
static int64_t claim_due_us(const struct scheduler *s)
{
    size_t room = claim_room(s);
    bool few = room < CLAIM_FEW && room < jobs_count(s->jobs);
    int64_t gathered_us = s->claimed_us + CLAIM_GATHER_US;

    if (room == 0 || is_claiming(s))
        return INT64_MAX;
    return few && gathered_us > s->claim_at_us ? gathered_us : s->claim_at_us;
}

int64_t scheduler_deadline_us(const struct scheduler *s)
{
    int64_t due = s->watch_at_us;

    if (s->settle_at_us && s->settle_at_us < due && s->n_settling == 0)
        due = s->settle_at_us;
    if (claim_due_us(s) < due)
        due = claim_due_us(s);
    return due;
}

/* ---- ends ---- */

/* When the jobs that have ended are settled: at once if no other is out, soon after the last if few
 * are. */
static int64_t settle_due_us(const struct scheduler *s, int64_t now_us)
{
    size_t out = jobs_count(s->jobs);
    int64_t wait_us = out == 0 ? 0 : out <= s->n_ended ? SETTLE_QUIET_US : SETTLE_WAIT_US;

    return now_us + wait_us < s->settle_by_us ? now_us + wait_us : s->settle_by_us;
}

static void end_if_settled(struct scheduler *s, struct tracked_job *job)
{
    int64_t now;

    if (!job_settled(job) || s->n_ended == ENDED_MAX)
        return; /* a full list is settled in this turn; the watch finds the rest */
    jobs_remove(s->jobs, job);
    s->ended[s->n_ended++] = job;
    now = clock_mono_us();
    if (!s->settle_at_us)
        s->settle_by_us = now + SETTLE_WAIT_US;
    if (s->settle_by_us)
        s->settle_at_us = settle_due_us(s, now);
}

static void watch_job(struct tracked_job *job, void *arg)
{
    struct scheduler *s = arg;
    int64_t now = clock_mono_us();
    char id[37];

    if (!job->lost && now >= job->deadline_us) {
        struct fetcher *f = fetchers_find(&s->fetchers, job->fetcher);
        pulse_count(s->pulse, M_LEASES_EXPIRED);
        LOG(WARN, "lease.expired", KV("account", job->account_id),
            KV("job", uuid_format(id, &job->job_id)), KV("fetcher", job->fetcher),
            KV("done", job->done));
        if (f && !job->done && f->held > 0)
            f->held--;
        job->lost = true;
    }
    if (!job->lost && !job->done && !fetchers_find(&s->fetchers, job->fetcher)) {
        LOG(WARN, "job.orphaned", KV("account", job->account_id),
            KV("job", uuid_format(id, &job->job_id)), KV("fetcher", job->fetcher));
        job->lost = true;
    }
    end_if_settled(s, job);
}

/* ---- what comes late ---- */

/* A settled job is the caller's no more. */
static void end_or_keep(struct scheduler *s, struct tracked_job *job)
{
    if (!job->lost || !job->fetcher[0] || jobs_count(s->late) >= (size_t)s->cfg->max_outstanding) {
        job_free(job);
        return;
    }
    for (size_t i = 0; i < job->n_windows; i++)
        if (job->windows[i].n_acked > 0) /* its account was another's by then: not told yet */
            s->late_at_us = clock_mono_us();
    job->deadline_us = clock_mono_us() + s->cfg->lease_s * US_PER_S;
    jobs_add(s->late, job);
}

static void forget_late(struct tracked_job *job, void *arg)
{
    struct scheduler *s = arg;

    if (clock_mono_us() < job->deadline_us)
        return;
    jobs_remove(s->late, job);
    job_free(job);
}

static enum status tell_late(struct scheduler *s, struct err *err)
{
    enum status st;

    if (is_claiming(s) || !s->late_at_us || clock_mono_us() < s->late_at_us)
        return ST_OK;
    st = ledger_late(&s->ledger, s->late, err);
    s->late_at_us = st == ST_OK ? 0 : clock_mono_us() + CLAIM_RETRY_US;
    if (st != ST_RETRY)
        return st;
    LOG(WARN, "late.retry", KV("error", err->text));
    return ST_OK;
}

static void watch(struct scheduler *s)
{
    char gone[64];
    int64_t now = clock_mono_us();

    if (now < s->watch_at_us)
        return;
    while (fetchers_drop_silent(&s->fetchers, now, gone))
        LOG(WARN, "fetcher.gone", KV("fetcher", gone));
    jobs_each(s->jobs, watch_job, s);
    jobs_each(s->late, forget_late, s);
    s->watch_at_us = now + WATCH_US;
    pulse_set(s->pulse, M_JOBS_OUT, (int64_t)(jobs_count(s->jobs) + s->n_ended));
    pulse_set(s->pulse, M_FETCHERS, (int64_t)s->fetchers.n);
    pulse_set(s->pulse, M_FETCHER_CREDIT, (int64_t)fetchers_credit(&s->fetchers));
    pulse_set(s->pulse, M_PAUSED, s->paused);
}

/* Whether Postgres answered. */
static void count_postgres(struct scheduler *s, bool up)
{
    pulse_set(s->pulse, M_POSTGRES_UP, up);
    pulse_add(s->pulse, M_POSTGRES_RETRIES, 0, 0, !up);
}

/* An acknowledgement that comes while its lost job is being settled is neither in what was sent nor
 * late yet: it waits in its link until the answer is there. */
static void hold_acks(struct scheduler *s)
{
    bool lost = false;

    for (size_t i = 0; i < s->n_settling; i++)
        lost |= s->ended[i]->lost;
    s->acks_held = lost;
    stage_watch_pause(s->stage, s->acks_link, lost);
}

/* How the settlement on its way ended. After a failure half as many are tried, so that a slow
 * Postgres is not asked for too much again and again. ST_RETRY: not now. */
static enum status settle_end(struct scheduler *s, enum status st, struct err *err)
{
    size_t n = s->n_settling;

    s->n_settling = 0;
    hold_acks(s);
    stage_watch_fd(s->stage, FD_SETTLE, -1);
    count_postgres(s, st == ST_OK);
    if (st == ST_RETRY) {
        LOG(WARN, "settle.retry", KV("error", err->text), KV("jobs", (int64_t)n));
        s->settle_most = n > 1 ? n / 2 : 1;
        s->settle_at_us = clock_mono_us() + CLAIM_RETRY_US;
        s->settle_by_us = 0;
        return st;
    }
    TRY(st);
    LOG(INFO, "jobs.settled", KV("jobs", (int64_t)n),
        KV("us", clock_mono_us() - s->settle_began_us));
    for (size_t i = 0; i < n; i++) {
        pulse_add(s->pulse, M_JOBS_SETTLED, s->ended[i]->lost ? SETTLED_LOST : SETTLED_DONE, 0, 1);
        end_or_keep(s, s->ended[i]);
    }
    s->n_ended -= n;
    memmove(s->ended, s->ended + n, s->n_ended * sizeof(struct tracked_job *));
    s->settle_most = s->settle_most < SETTLE_MAX / 2 ? 2 * s->settle_most : SETTLE_MAX;
    s->claim_at_us = 0; /* some may be due again at once */
    s->watch_at_us = 0;
    return ST_OK;
}

/* The first of those that have ended, as many as Postgres takes within its limits. */
static enum status settle_begin(struct scheduler *s, struct err *err)
{
    enum status st;

    s->n_settling = s->n_ended < s->settle_most ? s->n_ended : s->settle_most;
    s->settle_began_us = clock_mono_us();
    if (s->n_settling == s->n_ended)
        s->settle_at_us = 0;
    st = ledger_settle(&s->ledger, s->ended, s->n_settling, err);
    if (st != ST_OK)
        return settle_end(s, st, err);
    hold_acks(s);
    stage_watch_fd(s->stage, FD_SETTLE, pg_socket(s->settle_pg));
    return ST_OK;
}

static enum status settle_look(struct scheduler *s, bool wait, struct err *err)
{
    bool done;
    enum status st = ledger_settled(&s->ledger, wait, &done, err);

    return done ? settle_end(s, st, err) : ST_OK;
}

enum status scheduler_settle(struct scheduler *s, struct err *err)
{
    enum status st = ST_OK;

    watch(s);
    TRY(tell_late(s, err));
    if (s->n_settling > 0)
        st = settle_look(s, false, err);
    if (st == ST_OK && s->n_settling == 0 && s->n_ended > 0 &&
        (clock_mono_us() >= s->settle_at_us || s->n_ended >= SETTLE_MAX))
        st = settle_begin(s, err);
    return st == ST_RETRY ? ST_OK : st; /* it is tried again in a second */
}

/* ---- messages ---- */

static void take_ready(struct scheduler *s, struct text from, struct arena *a, struct text body)
{
    const struct ready *ready = NULL;
    struct err err;

    if (ready_decode(&ready, a, body, &err) != ST_OK) {
        LOG(WARN, "message.refused", KV("error", err.text));
        return;
    }
    CRASH_POINT("scheduler.ready.received");
    if (!fetchers_seen(&s->fetchers, from, ready->capacity, clock_mono_us()))
        LOG(WARN, "fetcher.refused", KV("fetcher", ready->instance));
}

static void take_done(struct scheduler *s, struct text from, struct arena *a, struct text body)
{
    const struct done *done = NULL;
    struct tracked_job *job;
    struct fetcher *f;
    struct err err;

    if (done_decode(&done, a, body, &err) != ST_OK) {
        LOG(WARN, "message.refused", KV("error", err.text));
        return;
    }
    job = jobs_find(s->jobs, &done->job_id);
    if (!job || job->done || !text_is(from, job->fetcher))
        return; /* of an earlier life, or of a lease that has ended */
    f = fetchers_find(&s->fetchers, job->fetcher);
    if (f) {
        f->held -= f->held > 0;
        f->full = false; /* it reads */
    }
    CRASH_POINT("scheduler.done.received");
    job_done(job, done);
    end_if_settled(s, job);
}

/* The job has ended, and its settlement has not begun. */
static struct tracked_job *find_ended(const struct scheduler *s, const struct uuid *job_id)
{
    for (size_t i = s->n_settling; i < s->n_ended; i++)
        if (uuid_eq(&s->ended[i]->job_id, job_id))
            return s->ended[i];
    return NULL;
}

static void take_acks(struct scheduler *s, struct arena *a, struct text body)
{
    const struct acks *acks = NULL;
    struct err err;

    if (acks_decode(&acks, a, body, &err) != ST_OK) {
        LOG(WARN, "message.refused", KV("error", err.text));
        return;
    }
    CRASH_POINT("scheduler.acks.received");
    for (size_t i = 0; i < acks->n_acks; i++) {
        struct tracked_job *job = jobs_find(s->jobs, &acks->acks[i].job_id);
        pulse_add(s->pulse, M_PAGES_ACKED, acks->acks[i].fate, 0, 1);
        if (job) {
            job_ack(job, &acks->acks[i]);
            end_if_settled(s, job);
        } else if ((job = jobs_find(s->late, &acks->acks[i].job_id))) {
            job_ack(job, &acks->acks[i]);
            s->late_at_us = clock_mono_us();
        } else if ((job = find_ended(s, &acks->acks[i].job_id))) {
            job_ack(job, &acks->acks[i]);
        }
    }
}

static void take_control(struct scheduler *s, struct arena *a, struct msg *m)
{
    struct control_view view = {.ledger = &s->ledger,
                                .fetchers = &s->fetchers,
                                .outstanding = jobs_count(s->jobs),
                                .started_us = s->started_us,
                                .paused = s->paused};
    struct text frames[MSG_FRAMES_MAX];
    struct err err;

    CRASH_POINT("scheduler.request.received");
    /* Whatever envelope a REQ or DEALER put before its one frame goes back with the answer. */
    for (size_t i = 0; i + 1 < m->n; i++)
        frames[i] = msg_frame(m, i);
    frames[m->n - 1] = control_answer(&view, a, msg_frame(m, m->n - 1));
    s->paused = view.paused;
    if (view.woken)
        s->claim_at_us = 0;
    CRASH_POINT("scheduler.answer.sending");
    if (link_send(s->control_link, 0, frames, m->n, &err) != ST_OK)
        LOG(WARN, "control.unanswered", KV("error", err.text));
    CRASH_POINT("scheduler.answer.sent");
}

static void take_message(struct scheduler *s, struct link *link, struct arena *a, struct msg *m)
{
    enum wire_kind kind;
    struct err err;

    if (link == s->control_link) {
        if (m->n >= 2)
            take_control(s, a, m);
    } else if (link == s->acks_link) {
        take_acks(s, a, msg_frame(m, m->n - 1));
    } else if (m->n != 2 || wire_kind_of(&kind, msg_frame(m, 1), &err) != ST_OK) {
        LOG(WARN, "message.refused", KV("error", m->n != 2 ? "not one frame" : err.text));
    } else if (kind == WIRE_READY) {
        take_ready(s, msg_frame(m, 0), a, msg_frame(m, 1));
    } else if (kind == WIRE_DONE) {
        take_done(s, msg_frame(m, 0), a, msg_frame(m, 1));
    } else {
        LOG(WARN, "message.refused", KV("error", "a fetcher sends ready and done only"));
    }
}

/* Its messages wait until Postgres has answered. */
static bool is_held(const struct scheduler *s, const struct link *link)
{
    return (link == s->acks_link && s->acks_held) || (link == s->control_link && is_claiming(s));
}

enum status scheduler_take(struct scheduler *s, struct err *err)
{
    struct link *links[] = {s->acks_link, s->jobs_link, s->control_link};
    struct arena *a = arena_new();
    struct msg m;

    for (size_t i = 0; i < sizeof(links) / sizeof(links[0]); i++) {
        enum status st = is_held(s, links[i]) ? ST_RETRY : ST_OK;
        for (int n = 0; n < TAKE_MAX && st != ST_RETRY; n++) {
            st = link_recv(links[i], 0, &m, err);
            if (st == ST_OK)
                take_message(s, links[i], a, &m);
            msg_clear(&m);
            arena_reset(a);
        }
    }
    arena_free(&a);
    return ST_OK;
}

/* ---- claims ---- */

/* Whether this fetcher has the job now; else it gets none for the moment. */
static bool hand_over(struct scheduler *s, struct tracked_job *job, struct fetcher *f,
                      struct text message)
{
    const struct text frames[] = {{f->instance, strlen(f->instance)}, message};
    struct err err;
    enum status st;

    CRASH_POINT("scheduler.job.sending");
    st = link_send(s->jobs_link, 0, frames, 2, &err);
    if (st == ST_OK) {
        CRASH_POINT("scheduler.job.sent");
        memcpy(job->fetcher, f->instance, sizeof(job->fetcher));
        f->held++;
        pulse_count(s->pulse, M_JOBS_SENT);
    } else if (st == ST_RETRY) { /* slow, and not gone: what it holds is still its own */
        LOG(WARN, "fetcher.full", KV("fetcher", f->instance), KV("held", (int64_t)f->held));
        f->full = true;
    } else {
        LOG(WARN, "fetcher.unreachable", KV("fetcher", f->instance), KV("error", err.text));
        fetchers_drop(&s->fetchers, f->instance); /* its next sign of life brings it back */
    }
    return st == ST_OK;
}

/* The job goes to the fetcher with the least to do. Nobody takes it: its lease is given back. */
static void send_job(struct scheduler *s, struct tracked_job *job, struct arena *a)
{
    struct window *windows = ARENA_ARRAY(a, job->n_windows, struct window);
    struct known_pages *known = ARENA_ARRAY(a, job->n_windows, struct known_pages);
    struct job message = {.job_id = job->job_id,
                          .scheduler_id = s->ledger.scheduler_id,
                          .account_id = job->account_id,
                          .epoch = job->epoch,
                          .lease_ms = (job->deadline_us - clock_mono_us()) / US_PER_MS,
                          .account = job->account,
                          .provider = job->provider,
                          .base_url = job->base_url,
                          .sealed_key = job->sealed_key,
                          .page_cap = (uint32_t)s->cfg->page_cap,
                          .windows = windows,
                          .n_windows = job->n_windows,
                          .known = known};
    struct buf b = {.arena = a};
    struct fetcher *f;

    for (size_t i = 0; i < job->n_windows; i++) {
        const struct known_feed *pages = job->windows[i].known;
        windows[i] = job->windows[i].asked;
        known[i].n = pages ? pages->n : 0;
        for (size_t k = 0; k < known[i].n; k++)
            known[i].at[k] = pages->pages[k].digest;
    }
    if (message.lease_ms < 0)
        message.lease_ms = 0;
    job_encode(&b, &message);
    while ((f = fetchers_pick(&s->fetchers)))
        if (hand_over(s, job, f, (struct text){b.at, b.len}))
            return;
    job->lost = true;
}

static void start_job(struct scheduler *s, struct tracked_job *job, struct arena *a)
{
    char id[37];

    CRASH_POINT("scheduler.claim.committed");
    if (job->n_windows == 0 || stage_stopping())
        job->lost = true; /* nobody is asked: its lease is released, its due time worked out */
    else
        send_job(s, job, a);
    LOG(DEBUG, "job.sent", KV("account", job->account_id), KV("job", uuid_format(id, &job->job_id)),
        KV("windows", (int64_t)job->n_windows), KV("fetcher", job->fetcher));
    jobs_add(s->jobs, job);
    end_if_settled(s, job);
}

/* How many accounts wait for a claim: for people, so at leisure. */
static enum status count_backlog(struct scheduler *s, struct err *err)
{
    int64_t due = 0;
    enum status st;

    if (clock_mono_us() < s->backlog_at_us)
        return ST_OK;
    st = ledger_due(&s->ledger, &due, err);
    if (st == ST_OK)
        pulse_set(s->pulse, M_ACCOUNTS_DUE, due);
    s->backlog_at_us = clock_mono_us() + BACKLOG_US;
    return st == ST_RETRY ? ST_OK : st; /* whoever claims or settles says so */
}

/* No claim is on its way any more. */
static enum status claim_over(struct scheduler *s, enum status st, struct err *err)
{
    stage_watch_pause(s->stage, s->control_link, false);
    stage_watch_fd(s->stage, FD_CLAIM, -1);
    count_postgres(s, st == ST_OK);
    if (st != ST_RETRY)
        return st;
    LOG(WARN, "claim.retry", KV("error", err->text));
    s->claim_at_us = clock_mono_us() + CLAIM_RETRY_US;
    return ST_OK;
}

static void take_claim(struct scheduler *s, const struct claim *claim, struct arena *a)
{
    s->paused = claim->paused;
    pulse_add(s->pulse, M_ACCOUNTS_CLAIMED, 0, 0, (int64_t)claim->n_claimed);
    for (size_t i = 0; i < claim->n_jobs; i++)
        start_job(s, claim->jobs[i], a);
    if (claim->n_claimed > 0)
        LOG(INFO, "accounts.claimed", KV("accounts", (int64_t)claim->n_claimed),
            KV("us", clock_mono_us() - s->claimed_us));
    if (claim->n_claimed == s->claim_want)
        s->claim_at_us = 0; /* more may be due */
    else if (claim->n_claimed == 0 && claim->next_due_in_us > 0 &&
             claim->next_due_in_us < CLAIM_IDLE_US)
        s->claim_at_us = s->claimed_us + claim->next_due_in_us;
}

static enum status claim_look(struct scheduler *s, bool wait, struct err *err)
{
    struct arena *a = arena_new();
    struct claim claim;
    bool done;
    enum status st = ledger_claimed(&s->ledger, wait, &claim, a, &done, err);

    if (done && st == ST_OK)
        take_claim(s, &claim, a);
    arena_free(&a);
    return done ? claim_over(s, st, err) : ST_OK;
}

/* One on its way is looked at; when it has ended, what waits for its connection has a turn before
 * the next. */
enum status scheduler_claim(struct scheduler *s, struct err *err)
{
    enum status st;

    if (is_claiming(s))
        return claim_look(s, false, err);
    if (stage_stopping())
        return ST_OK;
    TRY(count_backlog(s, err));
    if (clock_mono_us() < claim_due_us(s))
        return ST_OK;
    s->claim_want = claim_room(s);
    s->claimed_us = clock_mono_us();
    s->claim_at_us = s->claimed_us + CLAIM_IDLE_US;
    st = ledger_claim(&s->ledger, s->claim_want, err);
    if (st != ST_OK)
        return claim_over(s, st, err);
    stage_watch_pause(s->stage, s->control_link, true);
    stage_watch_fd(s->stage, FD_CLAIM, pg_socket(s->pg));
    return ST_OK;
}

/* ---- the end ---- */

static void give_up(struct tracked_job *job, void *arg)
{
    job->lost = true;
    end_if_settled(arg, job);
}

/* Settles all that is out as given up, until Postgres does not take it. */
enum status scheduler_stop(struct scheduler *s, struct err *err)
{
    enum status st = ST_OK;

    CRASH_POINT("scheduler.stop.asked");
    if (is_claiming(s))
        TRY(claim_look(s, true, err));
    TRY(scheduler_take(s, err));
    if (s->n_settling > 0)
        st = settle_look(s, true, err);
    jobs_each(s->jobs, give_up, s);
    while (st == ST_OK && s->n_ended > 0) {
        st = settle_begin(s, err);
        if (st == ST_OK)
            st = settle_look(s, true, err);
        jobs_each(s->jobs, give_up, s);
    }
    CRASH_POINT("scheduler.stop.settled");
    return st == ST_RETRY ? ST_OK : st;
}
