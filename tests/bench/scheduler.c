/* bench scheduler - accounts claimed, emitted, acknowledged and settled by uf-scheduler, against
 * one SQL loop that claims by SKIP LOCKED and updates the same rows.
 *
 * Usage: scheduler PID DATABASE_URL ACCOUNTS PAIRS
 *
 * PID is a running uf-scheduler in the same UF_RUN_DIR, on that database, whose accounts are all
 * due. This program is its fetchers and its writer: it takes a job, tells at once that each window
 * is done with one page, and acknowledges that page. No HTTP, no pages, no rows.
 *
 * The limit does on one connection what a claim and a settlement can not do without, batches of as
 * many: claim (one UPDATE of accounts), COMMIT; move the watermarks of all their feeds and release
 * the accounts (an UPDATE each), COMMIT. Both take from the same accounts, oldest first, in turn.
 */
#include "tests/bench/bench.h"

#include <string.h>

#include "common/link.h"
#include "common/log.h"
#include "common/pg.h"
#include "common/wire.h"

#define CAPACITY 1024 /* of four fetchers as they are by default */
#define BATCH    512  /* of the limit; a scheduler's claim takes as many */
#define CLAIM_SQL                                                                                  \
    "WITH due AS MATERIALIZED (SELECT account_id FROM accounts WHERE enabled AND next_due <= "     \
    "now() ORDER BY next_due LIMIT 512 FOR NO KEY UPDATE SKIP LOCKED) UPDATE accounts a SET "      \
    "lease_epoch = lease_epoch + 1, lease_until = now() + interval '2 minutes', lease_job = "      \
    "gen_random_uuid(), next_due = now() + interval '2 minutes' FROM due WHERE a.account_id = "    \
    "due.account_id RETURNING a.account_id"
#define FEEDS_SQL                                                                                  \
    "UPDATE account_feeds SET watermark = now(), next_due = now() + interval '15 minutes', "       \
    "last_attempt_at = now(), last_success_at = now(), last_error = 'ok' "                         \
    "WHERE account_id = ANY ($1::bigint[])"
#define RELEASE_SQL /* scattered as slots are */                                                   \
    "UPDATE accounts SET lease_until = NULL, lease_job = NULL, next_due = now() + (1 + random()) " \
    "* interval '15 minutes' WHERE account_id = ANY ($1::bigint[])"
#define BEAT_US (1 * US_PER_S) /* signs of life come so often */
#define STUCK_S 60

struct driver {
    struct config cfg;
    struct link *jobs, *acks;
    struct pg *pg;
    struct arena *message; /* what one message needs */
    uint32_t capacity;
    int64_t beat_us;
    uint64_t taken; /* jobs, ever */
    struct uuid scheduler;
    struct ack *ack; /* of this turn's jobs */
    size_t n_acks, cap_acks;
};

static void beat(struct driver *d, uint32_t capacity)
{
    const struct ready ready = {.instance = text_of(d->cfg.instance), .capacity = capacity};
    struct buf message = {.arena = d->message};
    struct err err = {0};
    struct text frame;

    ready_encode(&message, &ready);
    frame = (struct text){message.at, message.len};
    if (link_n_sockets(d->jobs) > 0 && link_send(d->jobs, 0, &frame, 1, &err) == ST_OK)
        d->beat_us = clock_mono_us() + BEAT_US;
    d->capacity = capacity;
}

static void acknowledge(struct driver *d, const struct job *job, uint32_t window,
                        int64_t complete_us)
{
    if (d->n_acks == d->cap_acks) {
        d->cap_acks = d->cap_acks ? 2 * d->cap_acks : 4096;
        d->ack = xrealloc(d->ack, d->cap_acks, sizeof(*d->ack));
    }
    d->ack[d->n_acks++] = (struct ack){.job_id = job->job_id,
                                       .window = window,
                                       .fate = PAGE_COMMITTED,
                                       .complete_us = complete_us,
                                       .unchanged = 9,
                                       .detail = TEXT_NULL};
}

/* All jobs may be answered in one turn, which is more than a link holds. */
static void send_done(const struct driver *d, struct text message)
{
    zmq_pollitem_t on = {.socket = link_socket(d->jobs, 0), .events = ZMQ_POLLOUT};
    struct err err = {0};
    enum status st = link_send(d->jobs, 0, &message, 1, &err);

    if (st == ST_RETRY && zmq_poll(&on, 1, STUCK_S * 1000L) > 0)
        st = link_send(d->jobs, 0, &message, 1, &err);
    must(st, &err);
}

static void answer(struct driver *d, struct text message)
{
    struct err err = {0};
    struct buf out = {.arena = d->message};
    const struct job *job;
    struct window_end ends[WIRE_WINDOWS_MAX];
    struct done done;
    int64_t now = clock_utc_us();

    must(job_decode(&job, d->message, message, &err), &err);
    for (size_t i = 0; i < job->n_windows; i++) {
        ends[i] = (struct window_end){.window = (uint32_t)i,
                                      .ending = END_OK,
                                      .pages = 1,
                                      .complete_us = now,
                                      .requests = 1,
                                      .http_status = 200,
                                      .detail = TEXT_NULL};
        acknowledge(d, job, (uint32_t)i, now);
    }
    done = (struct done){.job_id = job->job_id, .ends = ends, .n_ends = job->n_windows};
    done_encode(&out, &done);
    send_done(d, (struct text){out.at, out.len});
    d->scheduler = job->scheduler_id;
    d->taken++;
}

static void send_acks(struct driver *d)
{
    const struct acks acks = {d->ack, d->n_acks};
    struct buf out = {.arena = d->message};
    struct err err = {0};
    struct text frames[2] = {{(const char *)d->scheduler.at, sizeof(d->scheduler.at)}, TEXT_NULL};

    if (d->n_acks == 0)
        return;
    acks_encode(&out, &acks);
    frames[1] = (struct text){out.at, out.len};
    must(link_send(d->acks, 0, frames, 2, &err), &err);
    d->n_acks = 0;
    arena_reset(d->message);
}

/* Takes what jobs are there, waiting at most `wait_ms` for the first. */
static void turn(struct driver *d, long wait_ms)
{
    int64_t now = clock_mono_us();
    struct err err = {0};
    struct msg in;

    link_refresh(d->jobs, now);
    link_refresh(d->acks, now);
    if (now >= d->beat_us)
        beat(d, d->capacity);
    if (link_n_sockets(d->jobs) > 0) {
        zmq_pollitem_t on = {.socket = link_socket(d->jobs, 0), .events = ZMQ_POLLIN};
        (void)zmq_poll(&on, 1, wait_ms);
        while (link_recv(d->jobs, 0, &in, &err) == ST_OK) {
            answer(d, msg_frame(&in, 0));
            msg_clear(&in);
            arena_reset(d->message);
        }
    }
    send_acks(d);
    arena_reset(d->message);
}

/* Jobs that the ledger has in the sums of its runs. */
static uint64_t settled(struct driver *d)
{
    struct err err = {0};
    struct arena *a = arena_new();
    PGresult *r;
    uint64_t n;

    must(pg_query(d->pg, &r, a, "SELECT coalesce(sum(jobs), 0)::bigint FROM public.fetch_runs",
                  NULL, &err),
         &err);
    n = (uint64_t)pg_int(r, 0, 0);
    arena_free(&a);
    return n;
}

/* Accounts a second, over at least `n` of them: from the credit for the first to the commit that
 * settles the last. */
static double ours(struct driver *d, uint64_t n)
{
    uint64_t target = d->taken + n;
    int64_t began = clock_mono_us();
    double took;

    beat(d, CAPACITY);
    while (d->taken < target) {
        turn(d, 10);
        if (seconds_since(began) > STUCK_S)
            give_up("no jobs from the scheduler");
    }
    beat(d, 0);
    while (settled(d) < d->taken) {
        turn(d, 10);
        if (seconds_since(began) > 2 * STUCK_S)
            give_up("the scheduler does not settle what it was told of");
    }
    took = seconds_since(began);
    return (double)(d->taken - target + n) / took;
}

static void loop_batch(struct driver *d, struct arena *a)
{
    struct err err = {0};
    struct pg_array ids;
    struct pg_params p = {0};
    PGresult *r;

    must(pg_begin(d->pg, &err), &err);
    must(pg_query(d->pg, &r, a, CLAIM_SQL, NULL, &err), &err);
    must(pg_commit(d->pg, &err), &err);
    if (PQntuples(r) != BATCH)
        give_up("too few accounts are due");
    pg_array_open(&ids, a);
    for (int i = 0; i < BATCH; i++)
        pg_array_int(&ids, pg_int(r, i, 0));
    pg_param_text(&p, pg_array_close(&ids));
    must(pg_begin(d->pg, &err), &err);
    must(pg_query(d->pg, NULL, NULL, FEEDS_SQL, &p, &err), &err);
    must(pg_query(d->pg, NULL, NULL, RELEASE_SQL, &p, &err), &err);
    must(pg_commit(d->pg, &err), &err);
}

static double limit(struct driver *d, uint64_t n)
{
    struct arena *a = arena_new();
    double took = 0;
    uint64_t done = 0;

    for (; done < n; done += BATCH) {
        int64_t began = clock_mono_us();
        loop_batch(d, a);
        took += seconds_since(began);
        arena_reset(a);
        turn(d, 0); /* the scheduler still knows its fetcher */
    }
    arena_free(&a);
    return (double)done / took;
}

/* The most memory that a process has held, in MiB. */
static double peak_mib(const char *pid)
{
    char path[64], line[256];
    long kib = -1;
    FILE *in;

    (void)snprintf(path, sizeof(path), "/proc/%s/status", pid);
    in = fopen(path, "r");
    if (!in)
        give_up("the scheduler has ended");
    while (fgets(line, sizeof(line), in))
        if (strncmp(line, "VmHWM:", 6) == 0)
            kib = strtol(line + 6, NULL, 10);
    (void)fclose(in);
    return (double)kib / 1024;
}

int main(int argc, char **argv)
{
    static struct driver d;
    struct err err = {0};
    void *zmq = zmq_ctx_new();
    uint64_t accounts;

    if (argc != 5) {
        (void)fprintf(stderr, "usage: scheduler PID DATABASE_URL ACCOUNTS PAIRS\n");
        return 2;
    }
    log_open("bench", LOG_WARN);
    accounts = strtoull(argv[3], NULL, 10);
    d.message = arena_new();
    must(config_load_env(&d.cfg, STAGE_FETCHER, "bench", &err), &err);
    must(link_open(&d.jobs, zmq, LINK_JOBS_IN, &d.cfg, TEXT_NULL, &err), &err);
    must(link_open(&d.acks, zmq, LINK_ACKS_OUT, &d.cfg, TEXT_NULL, &err), &err);
    pg_open(&d.pg, argv[2], "public", "bench");
    pg_wait_limit(d.pg, 300 * US_PER_S);
    must(pg_connect(d.pg, &err), &err);
    while (link_n_sockets(d.jobs) == 0 || d.beat_us == 0)
        turn(&d, 10);
    (void)ours(&d, BATCH); /* links and plans are there, the cycle has its run */
    (void)limit(&d, BATCH);
    for (long i = strtol(argv[4], NULL, 10); i > 0; i--) {
        double rate = ours(&d, accounts);
        report("accounts", rate, limit(&d, accounts));
    }
    report("memory", peak_mib(argv[1]), 64);
    link_close(&d.jobs);
    link_close(&d.acks);
    pg_close(&d.pg);
    arena_free(&d.message);
    free(d.ack);
    return 0;
}
