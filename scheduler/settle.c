#include "scheduler/ledger.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/crash.h"
#include "common/log.h"
#include "common/pg_binary.h"
#include "scheduler/digests.h"

/* FOR UPDATE: whoever adds to what an account is to do (run_accounts, owed_windows) holds its row
 * FOR KEY SHARE, by the foreign key. So either the release sees it, or it is added when the release
 * is over, and finds an account that it has to wake. */
static const char lock_sql[] =
    "SELECT a.account_id, a.lease_epoch FROM accounts a JOIN unnest($1::bigint[], $2::bigint[]) "
    "AS j (account_id, epoch) ON a.account_id = j.account_id AND a.lease_epoch = j.epoch ORDER BY "
    "a.account_id FOR UPDATE OF a";

/* How feeds' readings ended; the flags, as bits. An audit's moment is now(), when its flag is set.
 */
#define FEED_FAILED    1
#define FEED_AUDIT_3D  2
#define FEED_AUDIT_30D 4
#define FEEDS_FROM                                                                                 \
    "FROM unnest($1::bigint[], $2::text[], $3::timestamptz[], $4::timestamptz[], "                 \
    "$5::timestamptz[], $6::text[], $7::text[], $8::int[], $9::timestamptz[], $10::int[], "        \
    "$11::timestamptz[]) AS w (account_id, feed, complete_from, watermark, next_due, error, "      \
    "detail, flags, empty_since, bucket_s, resume) "
static const enum pg_type feed_types[] = {PG_BIGINT, PG_TEXT, PG_TIME, PG_TIME, PG_TIME, PG_TEXT,
                                          PG_TEXT,   PG_INT,  PG_TIME, PG_INT,  PG_TIME};
#define FEED_COLUMNS (sizeof(feed_types) / sizeof(feed_types[0]))

/* An upsert takes twice the time of an UPDATE, and nearly all rows are there; so those that were
 * missing at the claim are made apart. One that somebody made meanwhile stays as it is: the feed is
 * read again. Nobody makes one between the look and the INSERT, which would need a lock on the
 * account's row (lock_sql), so ON CONFLICT, half as dear again, is not needed. The look is an
 * anti-join, whose plan does not hang on how many rows Postgres expects. */
static const char feeds_insert_sql[] =
    "INSERT INTO account_feeds (account_id, feed, complete_from, watermark, next_due, "
    "last_attempt_at, last_success_at, last_error, last_error_detail, resume_from, "
    "consecutive_failures, empty_since, bucket_seconds, audited_3d_at, audited_30d_at) SELECT "
    "account_id, feed, CASE WHEN watermark IS NOT NULL THEN complete_from END, watermark, "
    "next_due, now(), CASE WHEN error = 'ok' THEN now() END, error, detail, resume, flags & 1, "
    "empty_since, bucket_s, CASE WHEN flags & 2 <> 0 THEN now() END, CASE WHEN flags & 4 <> 0 "
    "THEN now() END " FEEDS_FROM "WHERE NOT EXISTS (SELECT FROM account_feeds f WHERE "
    "f.account_id = w.account_id AND f.feed = w.feed)";

/* $12: the accounts. Their feeds are found by that, eleven by one descent of the index, and joined
 * by a hash of the rows, for which the transaction's settings make an exception. */
static const char feeds_update_sql[] =
    "UPDATE account_feeds f SET complete_from = coalesce(f.complete_from, CASE WHEN w.watermark IS "
    "NOT NULL THEN w.complete_from END), watermark = greatest(f.watermark, w.watermark), next_due "
    "= w.next_due, last_attempt_at = now(), last_success_at = CASE WHEN w.error = 'ok' THEN now() "
    "ELSE f.last_success_at END, last_error = w.error, last_error_detail = w.detail, resume_from "
    "= CASE WHEN w.error = 'ok' THEN w.resume ELSE coalesce(w.resume, f.resume_from) END, "
    "consecutive_failures = CASE WHEN w.flags & 1 <> 0 THEN f.consecutive_failures + 1 WHEN "
    "w.error = 'ok' THEN 0 ELSE f.consecutive_failures END, empty_since = w.empty_since, "
    "bucket_seconds = CASE WHEN w.watermark IS NULL THEN f.bucket_seconds ELSE w.bucket_s END, "
    "audited_3d_at = CASE WHEN w.flags & 2 <> 0 THEN now() ELSE f.audited_3d_at END, "
    "audited_30d_at = CASE WHEN w.flags & 4 <> 0 THEN now() ELSE f.audited_30d_at END " FEEDS_FROM
    "WHERE f.account_id = ANY ($12::bigint[]) AND "
    "f.account_id = w.account_id AND f.feed = w.feed";

static const char owed_update_sql[] =
    "WITH w AS (SELECT * FROM unnest($1::bigint[], $2::timestamptz[], $3::text[], $4::bigint[], "
    "$5::text[], $6::text[], $7::timestamptz[], $8::bigint[], $9::bigint[], $10::bigint[], "
    "$11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[]) AS w (owed_id, done_to, state, "
    "failures, error, detail, next_try, requests, pages, inserted, updated, removed, unchanged, "
    "account_id)), done AS (UPDATE "
    "owed_windows o SET done_to = least(o.to_at, greatest(o.done_to, w.done_to)), state = "
    "w.state, failures = w.failures, error = w.error, detail = w.detail, next_try_at = "
    "coalesce(w.next_try, o.next_try_at) FROM w WHERE o.account_id = w.account_id AND o.owed_id = "
    "w.owed_id "
    "RETURNING o.run_id, w.*) UPDATE fetch_runs r SET started_at = coalesce(r.started_at, now()), "
    "jobs = r.jobs + 1, requests = r.requests + s.requests, pages = r.pages + s.pages, "
    "rows_inserted = r.rows_inserted + s.inserted, rows_updated = r.rows_updated + s.updated, "
    "rows_removed = r.rows_removed + s.removed, rows_unchanged = r.rows_unchanged + s.unchanged "
    "FROM (SELECT run_id, sum(requests) AS requests, sum(pages) AS pages, sum(inserted) AS "
    "inserted, sum(updated) AS updated, sum(removed) AS removed, sum(unchanged) AS unchanged "
    "FROM done GROUP BY run_id) s WHERE r.run_id = s.run_id";

/* Accounts all of whose owed windows of a run have ended; and feeds whose backfill now joins what
 * is complete. */
static const char owed_accounts_sql[] =
    "WITH over AS (UPDATE run_accounts ra SET state = CASE WHEN o.failed THEN 'failed' ELSE 'ok' "
    "END, error = o.error, detail = o.detail, finished_at = now() "
    "FROM (SELECT run_id, account_id, bool_or(state = 'failed') AS failed, max(error) FILTER "
    "(WHERE state = 'failed') AS error, max(detail) FILTER (WHERE state = 'failed') AS detail "
    "FROM owed_windows WHERE run_id IN (SELECT run_id FROM owed_windows "
    "WHERE (account_id, owed_id) IN (SELECT * FROM unnest($1::bigint[], $2::bigint[]))) GROUP BY "
    "1, 2 HAVING bool_and(state <> 'pending')) o "
    "WHERE ra.run_id = o.run_id AND ra.account_id = o.account_id AND ra.state = 'pending' "
    "RETURNING ra.run_id, o.failed), joined AS (UPDATE account_feeds f "
    "SET complete_from = least(f.complete_from, o.from_at) FROM owed_windows o "
    "WHERE (o.account_id, o.owed_id) IN (SELECT * FROM unnest($1::bigint[], $2::bigint[])) AND "
    "o.kind = 'backfill' AND o.state = 'done' AND "
    "f.account_id = o.account_id AND f.feed = o.feed AND f.complete_from = o.to_at) "
    "UPDATE fetch_runs r SET accounts_ok = r.accounts_ok + s.ok, accounts_failed = "
    "r.accounts_failed + s.failed FROM (SELECT run_id, count(*) FILTER (WHERE NOT failed) AS ok, "
    "count(*) FILTER (WHERE failed) AS failed FROM over GROUP BY 1) s "
    "WHERE r.run_id = s.run_id";

#define JOBS_CTE                                                                                   \
    "WITH j AS (SELECT * FROM unnest($1::bigint[], $2::timestamptz[], $3::boolean[], "             \
    "$4::boolean[], $5::text[], $6::text[], $7::bigint[], $8::bigint[], $9::bigint[], "            \
    "$10::bigint[], $11::bigint[], $12::bigint[], $13::boolean[], $14::bigint[]) AS j "            \
    "(account_id, claimed_at, "                                                                    \
    "final, failed, error, detail, requests, pages, inserted, updated, removed, unchanged, "       \
    "forced, same)) "
static const enum pg_type run_types[] = {PG_BIGINT, PG_TIME,   PG_BOOL,   PG_BOOL,   PG_TEXT,
                                         PG_TEXT,   PG_BIGINT, PG_BIGINT, PG_BIGINT, PG_BIGINT,
                                         PG_BIGINT, PG_BIGINT, PG_BOOL,   PG_BIGINT};
#define RUN_COLUMNS (sizeof(run_types) / sizeof(run_types[0]))
#define RUN_SUMS                                                                                   \
    "started_at = coalesce(r.started_at, now()), jobs = r.jobs + s.jobs, "                         \
    "requests = r.requests + s.requests, pages = r.pages + s.pages, "                              \
    "pages_unchanged = r.pages_unchanged + s.same, "                                               \
    "rows_inserted = r.rows_inserted + s.inserted, rows_updated = r.rows_updated + s.updated, "    \
    "rows_removed = r.rows_removed + s.removed, rows_unchanged = r.rows_unchanged + s.unchanged, " \
    "accounts_ok = r.accounts_ok + s.ok, accounts_failed = r.accounts_failed + s.failed "
#define JOB_SUMS                                                                                   \
    "count(*) AS jobs, sum(requests) AS requests, sum(pages) AS pages, sum(inserted) AS "          \
    "inserted, "                                                                                   \
    "sum(updated) AS updated, sum(removed) AS removed, sum(unchanged) AS unchanged, "              \
    "sum(same) AS same, "                                                                          \
    "count(*) FILTER (WHERE final AND NOT failed) AS ok, "                                         \
    "count(*) FILTER (WHERE final AND failed) AS failed "

/* A job serves every run that was asked for before it was claimed. What waits is looked up for each
 * account by itself (OFFSET 0): of a run that has just begun Postgres knows nothing yet, expects a
 * few rows, and would go through all of them for each job. */
static const char manual_runs_sql[] = JOBS_CTE
    ", hit AS (SELECT ra.run_id, j.* FROM j JOIN LATERAL (SELECT run_id FROM run_accounts WHERE "
    "account_id = j.account_id AND state = 'pending' OFFSET 0) ra ON true JOIN "
    "fetch_runs r USING (run_id) WHERE r.kind = 'manual' AND "
    "r.requested_at <= j.claimed_at), over AS (UPDATE run_accounts ra "
    "SET state = CASE WHEN hit.failed THEN 'failed' ELSE 'ok' END, error = hit.error, detail = "
    "hit.detail, finished_at = now() FROM hit WHERE ra.run_id = hit.run_id AND ra.account_id = "
    "hit.account_id AND hit.final) UPDATE fetch_runs r SET " RUN_SUMS
    "FROM (SELECT run_id, " JOB_SUMS "FROM hit GROUP BY run_id) s "
    "WHERE r.run_id = s.run_id";

static const char scheduled_run_sql[] = JOBS_CTE
    ", bad AS (INSERT INTO run_accounts (run_id, account_id, state, error, detail, finished_at) "
    "SELECT r.run_id, j.account_id, 'failed', j.error, j.detail, now() "
    "FROM j, fetch_runs r WHERE r.tick = $15::timestamptz AND j.final AND j.failed AND NOT "
    "j.forced ON CONFLICT DO NOTHING) UPDATE fetch_runs r SET " RUN_SUMS "FROM (SELECT " JOB_SUMS
    "FROM j WHERE NOT forced HAVING count(*) > 0) s "
    "WHERE r.tick = $15::timestamptz";

static const char finish_sql[] =
    "UPDATE fetch_runs SET finished_at = now() WHERE finished_at IS NULL AND accounts_ok + "
    "accounts_failed >= accounts_total AND accounts_ok + accounts_failed > 0";

/* Due when its next feed is, at once when more is owed, and before all others when a run of this
 * account alone waits. A job that had nothing to ask waits a minute, whatever it was that made its
 * account due. */
static const char release_sql[] =
    "WITH front AS MATERIALIZED (SELECT " LEDGER_FRONT " AS at) "
    "UPDATE accounts a SET lease_until = NULL, lease_job = NULL, lease_owner = NULL, next_due = "
    "greatest(CASE WHEN j.idle THEN now() + interval '1 minute' END, coalesce(least((SELECT "
    "min(f.next_due) FROM account_feeds f WHERE f.account_id = a.account_id AND f.enabled), "
    "(SELECT min(o.next_try_at) FROM owed_windows o WHERE o.account_id = a.account_id AND o.state "
    "= 'pending'), (SELECT min(CASE r.accounts_total WHEN 1 THEN front.at ELSE now() END) "
    "FROM run_accounts ra JOIN fetch_runs r USING (run_id), front "
    "WHERE ra.account_id = a.account_id AND ra.state = 'pending' AND r.kind = 'manual')), "
    "now() + interval '1 hour')), page_digests = j.digests "
    "FROM unnest($1::bigint[], $2::boolean[], $3::bytea[]) AS j (account_id, idle, digests) "
    "WHERE a.account_id = j.account_id";

static void close_all(struct pg_params *p, struct pg_array *arrays, size_t n)
{
    for (size_t i = 0; i < n; i++)
        pg_param_text(p, pg_array_close(&arrays[i]));
}

static void open_all(struct pg_array *arrays, size_t n, struct arena *a)
{
    for (size_t i = 0; i < n; i++)
        pg_array_open(&arrays[i], a);
}

static bool ending_failed(enum ending e)
{
    return e != END_OK && !ending_is_partial(e);
}

/* With a key that does not work the older figures would only be refused as well. */
static enum status backfill_waits(struct ledger *l, struct arena *a,
                                  struct tracked_job *const *jobs, size_t n, struct err *err)
{
    struct pg_array ids;
    struct pg_params p = {0};

    pg_array_open(&ids, a);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < jobs[i]->n_windows; k++)
            if (ending_is_auth(window_verdict(jobs[i], &jobs[i]->windows[k]).ending))
                pg_array_int(&ids, jobs[i]->account_id);
    if (!ids.any)
        return ST_OK;
    pg_param_text(&p, pg_array_close(&ids));
    return pg_query(l->settle_pg, NULL, NULL,
                    "UPDATE owed_windows SET next_try_at = now() + interval '1 hour' "
                    "WHERE account_id = ANY ($1::bigint[]) AND state = 'pending' "
                    "AND kind = 'backfill' AND next_try_at <= now()",
                    &p, err);
}

/* A reading that ended early tells of the feed only when rows came. */
static int64_t empty_since_us(const struct job_window *w, enum ending ending)
{
    const struct found found = {.from_us = w->asked.from_us,
                                .rows = w->inserted + w->updated + w->unchanged > 0,
                                .changed = w->inserted + w->updated + w->removed > 0,
                                .audit = w->audits_3d || w->audits_30d};

    return ending == END_OK || found.rows ? plan_empty_since(&w->state, &found)
                                          : w->state.empty_since_us;
}

static void live_row(struct ledger *l, const struct tracked_job *job, const struct job_window *w,
                     struct pg_column *col)
{
    struct verdict v = window_verdict(job, w);
    bool ok = v.ending == END_OK;
    bool progress = v.complete_us > w->asked.from_us;
    const struct outcome how = {v.ending, w->state.consecutive_failures + 1, w->retry_after_s};
    struct feed_state now = w->state;

    now.empty_since_us = empty_since_us(w, v.ending);
    pg_column_int(&col[0], job->account_id);
    pg_column_text(&col[1], text_of(w->feed->name));
    pg_column_time(&col[2], w->asked.from_us);
    pg_column_time(&col[3], v.complete_us);
    pg_column_time(&col[4],
                   plan_next_due(&l->slots, job->account_id, &now, &how, job->claimed_at_us));
    pg_column_text(&col[5], text_of(ending_name(v.ending)));
    pg_column_text(&col[6], ok ? TEXT_NULL : text_of(v.detail));
    /* an audit that ended early is carried on from where it stopped */
    pg_column_int(&col[7], (ending_failed(v.ending) ? FEED_FAILED : 0) |
                               ((ok || progress) && w->audits_3d ? FEED_AUDIT_3D : 0) |
                               ((ok || progress) && w->audits_30d ? FEED_AUDIT_30D : 0));
    pg_column_time(&col[8], now.empty_since_us);
    pg_column_int(&col[9], w->asked.bucket_s);
    pg_column_time(&col[10], w->skipped_us != 0 ? w->skipped_us
                             : !ok && progress  ? v.complete_us
                                                : 0);
}

static enum status settle_live(struct ledger *l, struct arena *a, struct tracked_job *const *jobs,
                               size_t n, struct err *err)
{
    struct pg_column known[FEED_COLUMNS], fresh[FEED_COLUMNS], accounts;
    struct pg_params p = {0}, missing = {0};

    pg_columns_open(known, a, feed_types, FEED_COLUMNS);
    pg_columns_open(fresh, a, feed_types, FEED_COLUMNS);
    pg_columns_open(&accounts, a, feed_types, 1);
    for (size_t i = 0; i < n; i++) {
        pg_column_int(&accounts, jobs[i]->account_id);
        for (size_t k = 0; k < jobs[i]->n_windows; k++) {
            const struct job_window *w = &jobs[i]->windows[k];
            if (!w->owed_id)
                live_row(l, jobs[i], w, w->state.stored ? known : fresh);
        }
    }
    if (known[0].n + fresh[0].n == 0)
        return ST_OK;
    if (fresh[0].n > 0) {
        pg_param_columns(&missing, fresh, FEED_COLUMNS);
        TRY(pg_query(l->settle_pg, NULL, NULL, feeds_insert_sql, &missing, err));
    }
    if (known[0].n > 0) {
        pg_param_columns(&p, known, FEED_COLUMNS);
        pg_param_columns(&p, &accounts, 1);
        TRY(pg_query(l->settle_pg, NULL, NULL, "SET LOCAL enable_hashjoin = on", NULL, err));
        TRY(pg_query(l->settle_pg, NULL, NULL, feeds_update_sql, &p, err));
        TRY(pg_query(l->settle_pg, NULL, NULL, "SET LOCAL enable_hashjoin = off", NULL, err));
    }
    return backfill_waits(l, a, jobs, n, err);
}

#define OWED_COLUMNS 14
#define OWED_TRIES   5 /* in a row without progress, for what may pass by itself */
#define KEY_WAIT_S   3600

static void owed_row(const struct tracked_job *job, const struct job_window *w,
                     struct pg_array *col)
{
    struct verdict v = window_verdict(job, w);
    bool open_end = w->asked.to_us == 0;
    bool done = v.ending == END_OK && (open_end || w->asked.to_us >= w->owed_to_us);
    bool progress = v.complete_us > w->asked.from_us;
    int64_t failures = ending_failed(v.ending) ? (progress ? 1 : w->owed_failures + 1) : 0;
    bool waits = w->owed_backfill && ending_is_auth(v.ending); /* for another key */
    bool hopeless = !waits && (ending_is_auth(v.ending) || v.ending == END_BAD_WINDOW ||
                               failures >= OWED_TRIES);
    int64_t wait_s = waits ? KEY_WAIT_S : 5 * failures;

    pg_array_int(&col[0], w->owed_id);
    pg_array_time(&col[1], done ? w->owed_to_us : v.complete_us);
    pg_array_text(&col[2], text_of(done                                  ? "done"
                                   : ending_failed(v.ending) && hopeless ? "failed"
                                                                         : "pending"));
    pg_array_int(&col[3], failures);
    pg_array_text(&col[4], v.ending == END_OK ? TEXT_NULL : text_of(ending_name(v.ending)));
    pg_array_text(&col[5], v.ending == END_OK ? TEXT_NULL : text_of(v.detail));
    if (w->retry_after_s > wait_s)
        wait_s = w->retry_after_s;
    pg_array_time(&col[6], failures == 0 ? 0 : job->claimed_at_us + wait_s * US_PER_S);
    pg_array_int(&col[7], w->requests);
    pg_array_int(&col[8], w->n_acked);
    pg_array_int(&col[9], (int64_t)w->inserted);
    pg_array_int(&col[10], (int64_t)w->updated);
    pg_array_int(&col[11], (int64_t)w->removed);
    pg_array_int(&col[12], (int64_t)w->unchanged);
    pg_array_int(&col[13], job->account_id);
}

static enum status settle_owed(struct ledger *l, struct arena *a, struct tracked_job *const *jobs,
                               size_t n, struct err *err)
{
    struct pg_array col[OWED_COLUMNS];
    struct pg_params p = {0}, touched = {0};

    open_all(col, OWED_COLUMNS, a);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < jobs[i]->n_windows; k++)
            if (jobs[i]->windows[k].owed_id)
                owed_row(jobs[i], &jobs[i]->windows[k], col);
    if (!col[0].any)
        return ST_OK;
    close_all(&p, col, OWED_COLUMNS);
    TRY(pg_query(l->settle_pg, NULL, NULL, owed_update_sql, &p, err));
    pg_param_text(&touched, pg_array_close(&col[13])); /* accounts */
    pg_param_text(&touched, pg_array_close(&col[0]));
    return pg_query(l->settle_pg, NULL, NULL, owed_accounts_sql, &touched, err);
}

/* The run of the tick that the newest of these claims lies in, by the database's clock. A new tick
 * ends the run before: accounts that were not due in it have nothing to add. */
static enum status tick_run(struct ledger *l, struct arena *a, struct tracked_job *const *jobs,
                            size_t n, struct err *err)
{
    int64_t newest = 0, tick;
    struct pg_params p = {0};
    char text[TIME_TEXT_MAX];
    PGresult *made;

    for (size_t i = 0; i < n; i++)
        if (jobs[i]->claimed_at_us > newest)
            newest = jobs[i]->claimed_at_us;
    tick = tick_before(&l->slots, newest);
    if (tick <= l->tick_us)
        return ST_OK;
    pg_param_text(&p, time_format(text, tick));
    TRY(pg_query(l->settle_pg, NULL, NULL,
                 "UPDATE fetch_runs SET finished_at = now() WHERE finished_at IS NULL AND kind = "
                 "'scheduled' AND tick < $1::timestamptz",
                 &p, err));
    TRY(pg_query(l->settle_pg, &made, a,
                 "INSERT INTO fetch_runs (kind, tick, accounts_total) "
                 "SELECT 'scheduled', $1::timestamptz, count(*) "
                 "FROM accounts WHERE enabled ON CONFLICT (tick) "
                 "WHERE tick IS NOT NULL DO NOTHING",
                 &p, err));
    l->run_begun = PQcmdTuples(made)[0] == '1'; /* else another scheduler did */
    l->tick_us = tick;
    return ST_OK;
}

/* A live job in the sums of runs: failed when some feed failed, final unless more is to come at
 * once. */
static void run_row(struct arena *a, const struct tracked_job *job, struct pg_column *col)
{
    int64_t requests = 0, pages = 0, inserted = 0, updated = 0, removed = 0, unchanged = 0;
    int64_t same = 0;
    struct text error = TEXT_NULL, detail = TEXT_NULL;
    bool final = true;

    if (job->problem) {
        error = text_of(ending_name(END_BAD_WINDOW));
        detail = text_of(job->problem);
    }
    for (size_t k = 0; k < job->n_windows; k++) {
        const struct job_window *w = &job->windows[k];
        struct verdict v = window_verdict(job, w);
        requests += w->requests;
        pages += w->n_acked;
        same += w->n_same;
        inserted += (int64_t)w->inserted;
        updated += (int64_t)w->updated;
        removed += (int64_t)w->removed;
        unchanged += (int64_t)w->unchanged;
        if (ending_failed(v.ending) && !error.at) {
            error = text_of(ending_name(v.ending));
            detail = text_of(arena_printf(a, "%s: %s", w->feed->name, v.detail ? v.detail : ""));
        }
        final &= !ending_is_partial(v.ending);
    }
    pg_column_int(&col[0], job->account_id);
    pg_column_time(&col[1], job->claimed_at_us);
    pg_column_int(&col[2], final || error.at);
    pg_column_int(&col[3], error.at != NULL);
    pg_column_text(&col[4], error);
    pg_column_text(&col[5], detail);
    pg_column_int(&col[6], requests);
    pg_column_int(&col[7], pages);
    pg_column_int(&col[8], inserted);
    pg_column_int(&col[9], updated);
    pg_column_int(&col[10], removed);
    pg_column_int(&col[11], unchanged);
    pg_column_int(&col[12], job->forced);
    pg_column_int(&col[13], same);
}

static enum status settle_runs(struct ledger *l, struct arena *a, struct tracked_job *const *jobs,
                               size_t n, struct err *err)
{
    struct pg_column col[RUN_COLUMNS];
    struct pg_params p = {0};
    char tick[TIME_TEXT_MAX];
    bool forced = false, scheduled = false;

    pg_columns_open(col, a, run_types, RUN_COLUMNS);
    for (size_t i = 0; i < n; i++) {
        /* with nothing to ask it only matters to a run that waits for it */
        if ((jobs[i]->owed || jobs[i]->n_windows == 0) && !jobs[i]->forced)
            continue;
        run_row(a, jobs[i], col);
        forced |= jobs[i]->forced;
        scheduled |= !jobs[i]->forced;
    }
    if (col[0].n == 0)
        return ST_OK;
    pg_param_columns(&p, col, RUN_COLUMNS);
    if (forced)
        TRY(pg_query(l->settle_pg, NULL, NULL, manual_runs_sql, &p, err));
    if (!scheduled)
        return ST_OK;
    pg_param_text(&p, time_format(tick, l->tick_us));
    return pg_query(l->settle_pg, NULL, NULL, scheduled_run_sql, &p, err);
}

/* Keeps those of `jobs` whose lease is still ours, and locks their accounts in the order of their
 * ids, as the writers do. */
static enum status lock_ours(struct ledger *l, struct arena *a, struct tracked_job **jobs,
                             size_t *n, struct err *err)
{
    struct pg_column col[2];
    struct pg_params p = {.binary_result = true};
    PGresult *r;
    size_t kept = 0;
    int at = 0;

    jobs_sort(jobs, *n);
    pg_columns_open(col, a, (const enum pg_type[]){PG_BIGINT, PG_BIGINT}, 2);
    for (size_t i = 0; i < *n; i++) {
        pg_column_int(&col[0], jobs[i]->account_id);
        pg_column_int(&col[1], jobs[i]->epoch);
    }
    pg_param_columns(&p, col, 2);
    TRY(pg_query(l->settle_pg, &r, a, lock_sql, &p, err));
    for (size_t i = 0; i < *n; i++)
        /* an account's lost job and the one after it may end in the same moment */
        if (pg_bin_seek(r, &at, jobs[i]->account_id) && pg_bin_int(r, at, 1) == jobs[i]->epoch)
            jobs[kept++] = jobs[i];
    if (kept < *n)
        LOG(WARN, "lease.lost", KV("jobs", (int64_t)(*n - kept)));
    *n = kept;
    return ST_OK;
}

/* Only what the client has to know is waited for: whose leases are still ours, and the tick's run.
 * The rest is sent. */
static enum status settle(struct ledger *l, struct arena *a, struct tracked_job **ours, size_t *n,
                          struct err *err)
{
    struct pg_column col[3];
    struct pg_params p = {0};

    CRASH_POINT("scheduler.settle.begun");
    TRY(pg_begin(l->settle_pg, err));
    TRY(lock_ours(l, a, ours, n, err));
    CRASH_POINT("scheduler.settle.locked");
    TRY(tick_run(l, a, ours, *n, err));
    TRY(pg_defer(l->settle_pg, err));
    TRY(settle_live(l, a, ours, *n, err));
    TRY(settle_owed(l, a, ours, *n, err));
    CRASH_POINT("scheduler.watermark.moved");
    TRY(settle_runs(l, a, ours, *n, err));
    pg_columns_open(col, a, (const enum pg_type[]){PG_BIGINT, PG_BOOL, PG_BYTEA}, 3);
    for (size_t i = 0; i < *n; i++) {
        pg_column_int(&col[0], ours[i]->account_id);
        pg_column_int(&col[1], ours[i]->n_windows == 0);
        pg_column_text(&col[2], digests_write(a, ours[i]));
    }
    pg_param_columns(&p, col, 3);
    TRY(pg_query(l->settle_pg, NULL, NULL, release_sql, &p, err));
    TRY(pg_query(l->settle_pg, NULL, NULL, finish_sql, NULL, err));
    CRASH_POINT("scheduler.settle.committing");
    return pg_deferred_commit(l->settle_pg, err);
}

static void settle_failed(struct ledger *l)
{
    l->tick_us = 0; /* its row may be gone with the transaction */
    pg_rollback(l->settle_pg);
    free(l->ours);
    l->ours = NULL;
}

enum status ledger_settle(struct ledger *l, struct tracked_job *const *jobs, size_t n,
                          struct err *err)
{
    struct arena *a = arena_new();
    enum status st;

    l->run_begun = false;
    l->n_ours = n;
    l->ours = xalloc(n, sizeof(struct tracked_job *));
    memcpy(l->ours, jobs, n * sizeof(struct tracked_job *));
    st = settle(l, a, l->ours, &l->n_ours, err);
    if (st != ST_OK)
        settle_failed(l);
    arena_free(&a);
    return st;
}

enum status ledger_settled(struct ledger *l, bool wait, bool *done, struct err *err)
{
    enum status st;

    *done = true;
    st = wait ? pg_deferred_wait(l->settle_pg, err) : pg_deferred_poll(l->settle_pg, done, err);
    if (!*done)
        return ST_OK;
    if (st != ST_OK) {
        settle_failed(l);
        return st;
    }
    CRASH_POINT("scheduler.settle.committed");
    pulse_add(l->pulse, M_RUNS_STARTED, RUN_SCHEDULED, 0, l->run_begun);
    for (size_t i = 0; i < l->n_ours; i++)
        job_counted(l->ours[i]); /* of the others, what came may still be told as late */
    free(l->ours);
    l->ours = NULL;
    return ST_OK;
}
