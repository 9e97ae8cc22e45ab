#include "scheduler/ledger.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/crash.h"
#include "common/log.h"
#include "common/pg_binary.h"
#include "scheduler/digests.h"

#define DUE_SLACK_US                                                                               \
    (5 * US_PER_S) /* a feed that is due in a moment goes along with its siblings */

#define JOB_BYTES ((size_t)8 << 10) /* holds eleven windows, their names and known pages */

/* MATERIALIZED: run again for a join, the subquery would lock more than its limit. OFFSET 0: what
 * waits is looked up for each account by itself; hashed, all of a run would be read for each claim.
 */
static const char claim_sql[] =
    "WITH due AS MATERIALIZED (SELECT account_id FROM accounts "
    "WHERE enabled AND next_due <= now() AND NOT (SELECT paused FROM pipeline) "
    "ORDER BY next_due LIMIT $1::bigint FOR NO KEY "
    "UPDATE SKIP LOCKED) UPDATE accounts a SET lease_epoch = lease_epoch + 1, lease_until = now() "
    "+ $2::interval, lease_job = gen_random_uuid(), lease_owner = $3::uuid, next_due = now() + "
    "$2::interval FROM due WHERE a.account_id = due.account_id "
    "RETURNING a.account_id, a.name, a.provider, a.base_url, a.key_ciphertext, a.lease_epoch, "
    "a.lease_job, now(), EXISTS (SELECT FROM (SELECT run_id FROM run_accounts "
    "WHERE account_id = a.account_id AND state = 'pending' OFFSET 0) ra JOIN fetch_runs r USING "
    "(run_id) WHERE r.kind = 'manual'), "
    "a.page_digests";

static const char feeds_sql[] =
    "SELECT account_id, feed, enabled, complete_from, watermark, next_due, empty_since, "
    "audited_3d_at, audited_30d_at, consecutive_failures, resume_from, bucket_seconds "
    "FROM account_feeds WHERE account_id = ANY ($1::bigint[]) ORDER BY 1";

static const char owed_sql[] =
    "SELECT DISTINCT ON (account_id, feed) account_id, feed, owed_id, done_to, "
    "to_at, failures, kind = 'backfill' FROM owed_windows WHERE account_id = ANY "
    "($1::bigint[]) AND state "
    "= 'pending' AND next_try_at <= now() ORDER BY account_id, feed, owed_id";

/* The row's text or bytea, for as long as the job lives. */
static struct text job_text(struct tracked_job *job, const PGresult *r, int row, int col)
{
    return arena_text(job->arena, pg_text(r, row, col));
}

static struct tracked_job *job_of_row(const struct ledger *l, const PGresult *r, int row)
{
    struct tracked_job *job = xalloc(1, sizeof(*job));
    int64_t lease_us = l->cfg->lease_s * US_PER_S;

    job->arena = arena_small(JOB_BYTES);
    job->account_id = pg_bin_int(r, row, 0);
    job->account = job_text(job, r, row, 1);
    job->provider = job_text(job, r, row, 2);
    job->base_url = job_text(job, r, row, 3);
    job->sealed_key = job_text(job, r, row, 4);
    job->epoch = pg_bin_int(r, row, 5);
    memcpy(job->job_id.at, PQgetvalue(r, row, 6), sizeof(job->job_id.at));
    job->claimed_at_us = pg_bin_time(r, row, 7);
    job->forced = pg_bin_int(r, row, 8);
    if (!PQgetisnull(r, row, 9))
        digests_read(job, pg_text(r, row, 9));
    /* given up a moment before others may claim it, so that progress can still be written down */
    job->deadline_us = clock_mono_us() + lease_us - lease_us / 20;
    return job;
}

static void read_states(struct feed_state *states, size_t n, const PGresult *r, int *at,
                        int64_t account_id)
{
    for (; pg_bin_seek(r, at, account_id); ++*at) {
        struct text name = pg_text(r, *at, 1);
        for (size_t i = 0; i < n; i++) {
            if (!text_is(name, states[i].feed->name))
                continue;
            states[i].stored = true;
            states[i].enabled = pg_bin_int(r, *at, 2);
            states[i].complete_from_us = pg_bin_time(r, *at, 3);
            states[i].watermark_us = pg_bin_time(r, *at, 4);
            states[i].next_due_us = pg_bin_time(r, *at, 5);
            states[i].empty_since_us = pg_bin_time(r, *at, 6);
            states[i].audited_3d_us = pg_bin_time(r, *at, 7);
            states[i].audited_30d_us = pg_bin_time(r, *at, 8);
            states[i].consecutive_failures = pg_bin_int(r, *at, 9);
            states[i].resume_us = pg_bin_time(r, *at, 10);
            states[i].bucket_s = pg_bin_int(r, *at, 11);
        }
    }
}

static void plan_live_windows(const struct ledger *l, struct tracked_job *job,
                              const struct feed_state *states, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct live_plan plan;
        struct job_window *w;
        if (!states[i].enabled ||
            (!job->forced && states[i].next_due_us > job->claimed_at_us + DUE_SLACK_US))
            continue;
        plan_live(&plan, &states[i], job->claimed_at_us, l->cfg->bucket_s, l->cfg->backfill_s);
        w = &job->windows[job->n_windows++];
        *w = (struct job_window){.asked = plan.window,
                                 .feed = states[i].feed,
                                 .state = states[i],
                                 .audits_3d = plan.audits_3d,
                                 .audits_30d = plan.audits_30d,
                                 .skipped_us = plan.skipped_us,
                                 .backfill = plan.backfill};
    }
}

static void plan_owed_windows(const struct ledger *l, struct tracked_job *job,
                              const struct feed_state *states, size_t n, const PGresult *owed,
                              int *at)
{
    for (; pg_bin_seek(owed, at, job->account_id); ++*at) {
        struct text name = pg_text(owed, *at, 1);
        for (size_t i = 0; i < n && job->n_windows < n; i++) {
            struct job_window *w = &job->windows[job->n_windows];
            if (!text_is(name, states[i].feed->name))
                continue;
            *w = (struct job_window){.feed = states[i].feed,
                                     .state = states[i],
                                     .owed_id = pg_bin_int(owed, *at, 2),
                                     .owed_to_us = pg_bin_time(owed, *at, 4),
                                     .owed_failures = pg_bin_int(owed, *at, 5),
                                     .owed_backfill = pg_bin_int(owed, *at, 6)};
            plan_owed(&w->asked, states[i].feed, l->cfg->bucket_s, pg_bin_time(owed, *at, 3),
                      w->owed_to_us, job->claimed_at_us);
            job->n_windows++;
        }
    }
    job->owed = true;
}

/* Live windows first; what is owed only when none of them is due. */
static void plan_job(const struct ledger *l, struct arena *a, struct tracked_job *job,
                     struct claim_rows *rows)
{
    const struct provider *p = provider_find(job->provider);
    size_t n = p ? p->n_feeds : 0;
    struct feed_state *states;

    if (!p) {
        job->problem = "this build does not know the account's provider; update the programs";
        LOG(WARN, "account.unknown_provider", KV("account", job->account),
            KV("provider", job->provider));
    }
    n = n < WIRE_WINDOWS_MAX ? n : WIRE_WINDOWS_MAX;
    states = ARENA_ARRAY(a, n, struct feed_state);
    for (size_t i = 0; i < n; i++)
        states[i] = (struct feed_state){.feed = &p->feeds[i], .enabled = true};
    read_states(states, n, rows->feeds, &rows->feed_at, job->account_id);
    /* live ones or owed ones, and of these one a feed */
    job->windows = ARENA_ARRAY(job->arena, n, struct job_window);
    plan_live_windows(l, job, states, n);
    if (job->n_windows == 0)
        plan_owed_windows(l, job, states, n, rows->owed, &rows->owed_at);
    digests_give(job);
}

/* The older part of a long first backfill becomes owed windows of a run of its own, once. */
static enum status owe_backfill(struct ledger *l, struct arena *a, const struct tracked_job *job,
                                struct err *err)
{
    struct pg_array feeds, froms, tos;
    struct pg_params p = {0};

    pg_array_open(&feeds, a);
    pg_array_open(&froms, a);
    pg_array_open(&tos, a);
    for (size_t i = 0; i < job->n_windows; i++) {
        const struct job_window *w = &job->windows[i];
        if (w->backfill.from_us == w->backfill.to_us)
            continue;
        pg_array_text(&feeds, text_of(w->feed->name));
        pg_array_time(&froms, w->backfill.from_us);
        pg_array_time(&tos, w->backfill.to_us);
    }
    if (!feeds.any)
        return ST_OK;
    pg_param_int(&p, a, job->account_id);
    pg_param_text(&p, pg_array_close(&feeds));
    pg_param_text(&p, pg_array_close(&froms));
    pg_param_text(&p, pg_array_close(&tos));
    return pg_query(
        l->pg, NULL, NULL,
        "WITH n AS (SELECT * FROM unnest($2::text[], $3::timestamptz[], $4::timestamptz[]) "
        "AS n (feed, f, t)), "
        /* a first reading that brought nothing home is planned anew, and begins later */
        "grown AS (UPDATE owed_windows o SET to_at = n.t, state = 'pending' FROM n "
        "WHERE o.account_id = $1::bigint AND o.feed = n.feed AND o.kind = 'backfill' "
        "AND (o.to_at < n.t OR o.state = 'failed')), "
        "new AS (SELECT * FROM n WHERE NOT EXISTS (SELECT FROM owed_windows o "
        "WHERE o.account_id = $1::bigint AND o.feed = n.feed AND o.kind = 'backfill')), "
        "run AS (INSERT INTO fetch_runs (kind, accounts_total) SELECT 'backfill', 1 "
        "WHERE EXISTS (SELECT FROM new) RETURNING run_id), "
        "ra AS (INSERT INTO run_accounts (run_id, account_id) "
        "SELECT run_id, $1::bigint FROM run) "
        "INSERT INTO owed_windows (run_id, account_id, feed, kind, from_at, to_at, done_to) "
        "SELECT run_id, $1::bigint, feed, 'backfill', f, t, f FROM new, run",
        &p, err);
}

/* Wider buckets than before are written down as soon as they are asked for: they may be committed
 * and then neither complete nor settled, and whoever reads narrower ones next begins with whole
 * days. */
static enum status widths_note(struct ledger *l, struct arena *a, const struct claim *claim,
                               struct err *err)
{
    struct pg_array ids, feeds, widths;
    struct pg_params p = {0};

    pg_array_open(&ids, a);
    pg_array_open(&feeds, a);
    pg_array_open(&widths, a);
    for (size_t i = 0; i < claim->n_jobs; i++) {
        for (size_t k = 0; k < claim->jobs[i]->n_windows; k++) {
            const struct job_window *w = &claim->jobs[i]->windows[k];
            if (w->owed_id || w->state.bucket_s == 0 || w->asked.bucket_s <= w->state.bucket_s)
                continue;
            pg_array_int(&ids, claim->jobs[i]->account_id);
            pg_array_text(&feeds, text_of(w->feed->name));
            pg_array_int(&widths, w->asked.bucket_s);
        }
    }
    if (!ids.any)
        return ST_OK;
    pg_param_text(&p, pg_array_close(&ids));
    pg_param_text(&p, pg_array_close(&feeds));
    pg_param_text(&p, pg_array_close(&widths));
    return pg_query(l->pg, NULL, NULL,
                    "UPDATE account_feeds f SET bucket_seconds = n.b "
                    "FROM unnest($1::bigint[], $2::text[], $3::int[]) AS n (a, feed, b) "
                    "WHERE f.account_id = n.a AND f.feed = n.feed",
                    &p, err);
}

/* Of a herd that is being claimed, the least due time lies behind all index entries that the claims
 * have left, so this is asked only when nothing was claimed. */
static const char next_due_sql[] =
    "SELECT epoch_us(min(next_due)) - epoch_us(now()) FROM accounts WHERE enabled";

/* ---- a claim: parts of a transaction, each sent in one go when the one before is answered ---- */

static enum status take(struct ledger *l, size_t max, struct err *err)
{
    struct claiming *c = &l->claiming;
    struct pg_params p = {.binary_result = true};
    char scheduler[37];

    pg_param_int(&p, c->arena, (int64_t)max);
    pg_param_text(&p, arena_printf(c->arena, "%" PRId64 " seconds", l->cfg->lease_s));
    pg_param_text(&p, uuid_format(scheduler, &l->scheduler_id));
    TRY(pg_begin_deferred(l->pg, err));
    TRY(pg_query(l->pg, &c->paused, c->arena, "SELECT paused FROM pipeline", NULL, err));
    TRY(pg_query(l->pg, &c->accounts, c->arena, claim_sql, &p, err));
    return pg_deferred_send(l->pg, err);
}

/* What is known of the accounts; of none, when the next is due. */
static enum status read_feeds(struct ledger *l, struct err *err)
{
    struct claiming *c = &l->claiming;
    struct pg_params p = {.binary_result = true};
    struct pg_column id;

    c->claim.paused = PQgetvalue(c->paused, 0, 0)[0] == 't';
    c->claim.n_claimed = (size_t)PQntuples(c->accounts);
    TRY(pg_defer(l->pg, err));
    if (c->claim.n_claimed == 0) {
        TRY(pg_query(l->pg, &c->next_due, c->arena, next_due_sql, NULL, err));
        c->step = CLAIM_COMMITS;
        return pg_deferred_commit(l->pg, err);
    }
    pg_columns_open(&id, c->arena, (const enum pg_type[]){PG_BIGINT}, 1);
    for (int i = 0; i < PQntuples(c->accounts); i++)
        pg_column_int(&id, pg_bin_int(c->accounts, i, 0));
    pg_param_columns(&p, &id, 1);
    TRY(pg_query(l->pg, &c->rows.feeds, c->arena, feeds_sql, &p, err));
    TRY(pg_query(l->pg, &c->rows.owed, c->arena, owed_sql, &p, err));
    c->step = CLAIM_READS;
    return pg_deferred_send(l->pg, err);
}

static enum status plan(struct ledger *l, struct err *err)
{
    struct claiming *c = &l->claiming;
    struct claim *claim = &c->claim;

    claim->jobs = ARENA_ARRAY(c->arena, claim->n_claimed, struct tracked_job *);
    for (int i = 0; i < PQntuples(c->accounts); i++)
        claim->jobs[claim->n_jobs++] = job_of_row(l, c->accounts, i);
    jobs_sort(claim->jobs, claim->n_jobs);
    TRY(pg_defer(l->pg, err));
    for (size_t i = 0; i < claim->n_jobs; i++) {
        plan_job(l, c->arena, claim->jobs[i], &c->rows);
        TRY(owe_backfill(l, c->arena, claim->jobs[i], err));
    }
    TRY(widths_note(l, c->arena, claim, err));
    CRASH_POINT("scheduler.claim.planned");
    c->step = CLAIM_COMMITS;
    return pg_deferred_commit(l->pg, err);
}

static void claim_drop(struct ledger *l)
{
    struct claiming *c = &l->claiming;

    for (size_t i = 0; i < c->claim.n_jobs; i++)
        job_free(c->claim.jobs[i]);
    arena_free(&c->arena);
    *c = (struct claiming){0};
}

static enum status claim_failed(struct ledger *l, enum status st)
{
    pg_rollback(l->pg);
    claim_drop(l);
    return st;
}

enum status ledger_claim(struct ledger *l, size_t max, struct err *err)
{
    enum status st;

    l->claiming = (struct claiming){.arena = arena_new(), .step = CLAIM_TAKES};
    st = take(l, max, err);
    return st == ST_OK ? ST_OK : claim_failed(l, st);
}

/* Committed: what was found is the caller's. */
static void hand_out(struct ledger *l, struct claim *out, struct arena *a)
{
    struct claiming *c = &l->claiming;

    *out = c->claim;
    out->next_due_in_us =
        c->next_due && !PQgetisnull(c->next_due, 0, 0) ? pg_int(c->next_due, 0, 0) : INT64_MAX;
    out->jobs = ARENA_ARRAY(a, out->n_jobs, struct tracked_job *);
    for (size_t i = 0; i < out->n_jobs; i++)
        out->jobs[i] = c->claim.jobs[i];
    c->claim.n_jobs = 0;
    claim_drop(l);
}

enum status ledger_claimed(struct ledger *l, bool wait, struct claim *out, struct arena *a,
                           bool *done, struct err *err)
{
    for (;;) {
        enum status st;
        *done = true;
        st = wait ? pg_deferred_wait(l->pg, err) : pg_deferred_poll(l->pg, done, err);
        if (!*done)
            return ST_OK;
        if (st == ST_OK && l->claiming.step == CLAIM_COMMITS) {
            hand_out(l, out, a);
            return ST_OK;
        }
        if (st == ST_OK)
            st = l->claiming.step == CLAIM_TAKES ? read_feeds(l, err) : plan(l, err);
        if (st != ST_OK)
            return claim_failed(l, st);
    }
}

void ledger_close(struct ledger *l)
{
    claim_drop(l);
    free(l->ours);
    l->ours = NULL;
}

enum status ledger_due(struct ledger *l, int64_t *out, struct err *err)
{
    struct arena *a = arena_new();
    PGresult *r = NULL;
    enum status st = pg_begin(l->pg, err);

    if (st == ST_OK)
        st = pg_query(l->pg, &r, a,
                      "SELECT count(*) FROM (SELECT 1 FROM accounts WHERE enabled AND next_due <= "
                      "now() LIMIT 10000) AS due",
                      NULL, err);
    if (st == ST_OK)
        *out = pg_int(r, 0, 0);
    if (st == ST_OK)
        st = pg_commit(l->pg, err);
    if (st != ST_OK)
        pg_rollback(l->pg);
    arena_free(&a);
    return st;
}
