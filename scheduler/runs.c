/* runs.c - what people ask for: runs, injections, a pause, and how a run is doing. */
#include <inttypes.h>

#include "common/clock.h"
#include "common/crash.h"
#include "common/json.h"
#include "scheduler/ledger.h"

/* Ends a transaction: commits when all went well. */
static enum status finish(struct ledger *l, enum status st, struct err *err)
{
    if (st == ST_OK)
        st = pg_commit(l->pg, err);
    if (st != ST_OK)
        pg_rollback(l->pg);
    return st;
}

/* The account's id and provider, by name. ST_REJECT: err tells the person what to type. */
static enum status account_find(struct ledger *l, struct arena *a, struct text name,
                                int64_t *out_id, const struct provider **out_provider,
                                struct err *err)
{
    struct pg_params p = {0};
    PGresult *r;

    pg_param_text(&p, arena_copy(a, name.at, name.len));
    TRY(pg_query(l->pg, &r, a, "SELECT account_id, provider, enabled FROM accounts WHERE name = $1",
                 &p, err));
    if (PQntuples(r) == 0)
        return err_set(err, ST_REJECT,
                       "no account is named '%.*s'; usagectl account list shows the names",
                       (int)name.len, name.at);
    if (PQgetvalue(r, 0, 2)[0] != 't')
        return err_set(err, ST_REJECT, "account '%.*s' is disabled; usagectl account enable %.*s",
                       (int)name.len, name.at, (int)name.len, name.at);
    *out_id = pg_int(r, 0, 0);
    *out_provider = provider_find(pg_text(r, 0, 1));
    return ST_OK;
}

/* An account whose job is out now is claimed again when that ends: see lock_sql, release_sql. One
 * goes before all others, however many have been due for long: somebody waits for it. */
static enum status run_due(struct ledger *l, struct arena *a, int64_t account_id,
                           const char *run_id, struct err *err)
{
    struct pg_params p = {0};

    if (account_id)
        pg_param_int(&p, a, account_id);
    else
        pg_param_text(&p, run_id);
    return pg_query(l->pg, NULL, NULL,
                    account_id
                        ? "UPDATE accounts SET next_due = " LEDGER_FRONT
                          " WHERE account_id = $1::bigint AND (lease_until IS NULL OR lease_until "
                          "< now())"
                        : "UPDATE accounts SET next_due = now() WHERE account_id IN (SELECT "
                          "account_id FROM run_accounts WHERE run_id = $1::uuid) AND next_due > "
                          "now() AND (lease_until IS NULL OR lease_until < now())",
                    &p, err);
}

static enum status run_insert(struct ledger *l, struct arena *a, int64_t account_id,
                              const char *run_id, int64_t *out_accounts, struct err *err)
{
    struct pg_params run = {0}, who = {0};
    PGresult *r;

    pg_param_text(&run, run_id);
    pg_param_text(&who, run_id);
    pg_param_int(&who, a, account_id); /* 0: all */
    TRY(pg_query(l->pg, NULL, NULL,
                 "INSERT INTO fetch_runs (run_id, kind) VALUES ($1::uuid, 'manual')", &run, err));
    TRY(pg_query(l->pg, NULL, NULL,
                 "INSERT INTO run_accounts (run_id, account_id) "
                 "SELECT $1::uuid, account_id FROM accounts WHERE enabled AND ($2::bigint = 0 OR "
                 "account_id = $2::bigint) ORDER BY account_id", /* as settlements lock them */
                 &who, err));
    TRY(pg_query(l->pg, &r, a,
                 "UPDATE fetch_runs SET accounts_total = (SELECT count(*) "
                 "FROM run_accounts WHERE run_id = $1::uuid) WHERE run_id = $1::uuid "
                 "RETURNING accounts_total",
                 &run, err));
    *out_accounts = pg_int(r, 0, 0);
    if (*out_accounts == 0)
        return err_set(err, ST_REJECT,
                       "there is no enabled account; usagectl account add NAME --provider P");
    return run_due(l, a, account_id, run_id, err);
}

enum status ledger_run(struct ledger *l, struct text account, struct uuid *run_id,
                       int64_t *out_accounts, struct err *err)
{
    struct arena *a = arena_new();
    const struct provider *provider;
    int64_t account_id = 0;
    char id[37];
    enum status st = pg_begin(l->pg, err);

    uuid_random(run_id);
    if (st == ST_OK && account.at)
        st = account_find(l, a, account, &account_id, &provider, err);
    if (st == ST_OK)
        st = run_insert(l, a, account_id, uuid_format(id, run_id), out_accounts, err);
    CRASH_POINT("scheduler.run.committing");
    st = finish(l, st, err);
    CRASH_POINT("scheduler.run.committed");
    arena_free(&a);
    return st;
}

/* ---- injections ---- */

/* An injection as rows of owed_windows. */
struct owed_rows {
    int64_t account_id;
    const struct provider *provider;
    struct pg_array feeds, froms, tos;
    int64_t jobs; /* chunks of the longest window */
};

static enum status no_such_feed(const struct provider *provider, struct arena *a, struct text feed,
                                struct err *err)
{
    struct buf names = {.arena = a};

    for (size_t i = 0; i < provider->n_feeds; i++)
        buf_printf(&names, "%s%s", i ? ", " : "", provider->feeds[i].name);
    return err_set(err, ST_REJECT, "%s has no feed '%.*s'; its feeds are: %s", provider->name,
                   (int)feed.len, feed.at, names.at);
}

static enum status plan_injection(const struct ledger *l, struct owed_rows *rows, struct arena *a,
                                  const struct injection *in, struct err *err)
{
    const struct provider *p = rows->provider;

    pg_array_open(&rows->feeds, a);
    pg_array_open(&rows->froms, a);
    pg_array_open(&rows->tos, a);
    for (size_t i = 0; i < p->n_feeds; i++) {
        const struct feed *f = &p->feeds[i];
        const struct width *width = feed_width(f, l->cfg->bucket_s);
        struct span whole = plan_align(in->from_us, in->to_us);
        int64_t chunk_us = OWED_CHUNK_PAGES * (int64_t)width->limit * width->bucket_s * US_PER_S;
        int64_t jobs = (whole.to_us - whole.from_us + chunk_us - 1) / chunk_us;
        if (in->feed.at && !text_is(in->feed, f->name))
            continue;
        pg_array_text(&rows->feeds, text_of(f->name));
        pg_array_time(&rows->froms, whole.from_us);
        pg_array_time(&rows->tos, whole.to_us);
        rows->jobs = jobs > rows->jobs ? jobs : rows->jobs;
    }
    return rows->feeds.any ? ST_OK : no_such_feed(p, a, in->feed, err);
}

static enum status injection_insert(struct ledger *l, struct arena *a, struct owed_rows *rows,
                                    const char *run_id, struct err *err)
{
    struct pg_params p = {0}, due = {0};

    pg_param_text(&p, run_id);
    pg_param_int(&p, a, rows->account_id);
    pg_param_text(&p, pg_array_close(&rows->feeds));
    pg_param_text(&p, pg_array_close(&rows->froms));
    pg_param_text(&p, pg_array_close(&rows->tos));
    TRY(pg_query(
        l->pg, NULL, NULL,
        "WITH run AS (INSERT INTO fetch_runs (run_id, kind, accounts_total) VALUES ($1::uuid, "
        "'inject', 1) RETURNING run_id), ra AS (INSERT INTO run_accounts (run_id, account_id) "
        "SELECT run_id, $2::bigint FROM run) INSERT INTO owed_windows (run_id, account_id, feed, "
        "kind, from_at, to_at, done_to) SELECT run_id, $2::bigint, feed, 'inject', f, t, f "
        "FROM run, unnest($3::text[], $4::timestamptz[], $5::timestamptz[]) AS n (feed, f, t)",
        &p, err));
    pg_param_int(&due, a, rows->account_id);
    return pg_query(l->pg, NULL, NULL,
                    "UPDATE accounts SET next_due = now() WHERE account_id = $1::bigint AND "
                    "next_due > now() AND (lease_until IS NULL OR lease_until < now())",
                    &due, err);
}

static enum status check_span(int64_t from_us, int64_t to_us, struct err *err)
{
    char from[TIME_TEXT_MAX], to[TIME_TEXT_MAX];

    if (from_us >= to_us)
        return err_set(err, ST_REJECT, "'from' (%s) must lie before 'to' (%s)",
                       time_format(from, from_us), time_format(to, to_us));
    if (from_us >= clock_utc_us())
        return err_set(err, ST_REJECT,
                       "'from' (%s) lies in the future; nothing has been used there yet",
                       time_format(from, from_us));
    if (to_us - from_us > 3660 * US_PER_DAY)
        return err_set(err, ST_REJECT,
                       "more than ten years in one injection; take a shorter window");
    return ST_OK;
}

static enum status inject(struct ledger *l, struct arena *a, const struct injection *in,
                          struct owed_rows *rows, const char *run_id, struct err *err)
{
    TRY(check_span(in->from_us, in->to_us, err));
    TRY(pg_begin(l->pg, err));
    TRY(account_find(l, a, in->account, &rows->account_id, &rows->provider, err));
    if (!rows->provider)
        return err_set(err, ST_REJECT, "this build does not know the provider of account '%.*s'",
                       (int)in->account.len, in->account.at);
    TRY(plan_injection(l, rows, a, in, err));
    return injection_insert(l, a, rows, run_id, err);
}

enum status ledger_inject(struct ledger *l, const struct injection *in, struct uuid *run_id,
                          int64_t *out_jobs, struct err *err)
{
    struct arena *a = arena_new();
    struct owed_rows rows = {0};
    char id[37];
    enum status st;

    uuid_random(run_id);
    st = inject(l, a, in, &rows, uuid_format(id, run_id), err);
    CRASH_POINT("scheduler.inject.committing");
    st = finish(l, st, err);
    CRASH_POINT("scheduler.inject.committed");
    *out_jobs = rows.jobs;
    arena_free(&a);
    return st;
}

enum status ledger_pause(struct ledger *l, bool paused, struct err *err)
{
    struct pg_params p = {0};
    enum status st = pg_begin(l->pg, err);

    pg_param_text(&p, paused ? "t" : "f");
    if (st == ST_OK)
        st = pg_query(l->pg, NULL, NULL,
                      "UPDATE pipeline SET paused = $1::boolean, paused_at = CASE WHEN "
                      "$1::boolean THEN now() END",
                      &p, err);
    return finish(l, st, err);
}

/* ---- how a run is doing ---- */

/* Asked again and again of a run that may have a million accounts, so it counts none of them. */
static const char run_sql[] =
    "SELECT r.run_id, r.kind, r.finished_at IS NOT NULL OR (r.kind <> 'scheduled' AND NOT EXISTS "
    "(SELECT FROM run_accounts ra JOIN accounts a USING (account_id) WHERE ra.run_id = r.run_id "
    "AND ra.state = 'pending' AND a.enabled)), r.accounts_total, r.accounts_ok, "
    "r.accounts_failed, r.rows_inserted, "
    "r.rows_updated, r.rows_removed, r.rows_unchanged, r.pages, r.pages_unchanged, r.requests, "
    "o.n, o.done, o.failed, o.seconds, o.seconds_done FROM fetch_runs r, LATERAL (SELECT "
    "count(*) AS n, "
    "count(*) FILTER (WHERE state = 'done') AS done, count(*) FILTER (WHERE state = 'failed') AS "
    "failed, coalesce(sum(extract(epoch from to_at - from_at)), 0)::bigint AS seconds, "
    "coalesce(sum(extract(epoch from done_to - from_at)), 0)::bigint AS seconds_done "
    "FROM owed_windows WHERE run_id = r.run_id) o ";

static void put_counts(struct json_writer *w, const PGresult *r, int first_col,
                       const char *const *keys)
{
    for (int i = 0; keys[i]; i++) {
        json_w_key(w, keys[i]);
        json_w_int(w, pg_int(r, 0, first_col + i));
    }
}

/* Those still to be read: of a scheduled run, which takes whoever is due, that is not known. */
static int64_t accounts_pending(const PGresult *r, bool scheduled, bool done)
{
    int64_t left = pg_int(r, 0, 3) - pg_int(r, 0, 4) - pg_int(r, 0, 5);

    return scheduled || done || left < 0 ? 0 : left;
}

static void put_run(struct json_writer *w, const PGresult *r)
{
    static const char *const accounts[] = {"total", "ok", "failed", NULL};
    static const char *const rows[] = {"inserted", "updated", "removed", "unchanged", NULL};
    static const char *const work[] = {"pages", "pages_unchanged", "requests", NULL};
    static const char *const owed[] = {"windows", "windows_done", "windows_failed",
                                       "seconds", "seconds_done", NULL};
    bool scheduled = text_is(pg_text(r, 0, 1), "scheduled");
    bool done = PQgetvalue(r, 0, 2)[0] == 't';

    json_w_key(w, "run_id");
    json_w_text(w, pg_text(r, 0, 0));
    json_w_key(w, "kind");
    json_w_text(w, pg_text(r, 0, 1));
    json_w_key(w, "state");
    json_w_str(w, done ? "done" : "running");
    json_w_key(w, "accounts");
    json_w_object(w);
    put_counts(w, r, 3, accounts);
    json_w_key(w, "pending");
    json_w_int(w, accounts_pending(r, scheduled, done));
    json_w_end(w);
    json_w_key(w, "rows");
    json_w_object(w);
    put_counts(w, r, 6, rows);
    json_w_end(w);
    put_counts(w, r, 10, work);
    json_w_key(w, "owed");
    json_w_object(w);
    put_counts(w, r, 13, owed);
    json_w_end(w);
}

static enum status put_failures(struct ledger *l, struct json_writer *w, struct arena *a,
                                const char *run_id, struct err *err)
{
    struct pg_params p = {0};
    PGresult *r;

    pg_param_text(&p, run_id);
    TRY(pg_query(l->pg, &r, a,
                 "SELECT a.name, ra.error, ra.detail FROM run_accounts ra JOIN accounts a USING "
                 "(account_id) WHERE ra.run_id = $1::uuid AND ra.state = 'failed' ORDER BY a.name "
                 "LIMIT 100",
                 &p, err));
    json_w_key(w, "failures");
    json_w_array(w);
    for (int i = 0; i < PQntuples(r); i++) {
        json_w_object(w);
        json_w_key(w, "account");
        json_w_text(w, pg_text(r, i, 0));
        json_w_key(w, "error");
        json_w_text(w, pg_text(r, i, 1));
        json_w_key(w, "detail");
        json_w_text(w, pg_text(r, i, 2));
        json_w_end(w);
    }
    json_w_end(w);
    return ST_OK;
}

static enum status run_status(struct ledger *l, struct json_writer *w, struct arena *a,
                              const struct uuid *run_id, struct err *err)
{
    struct pg_params p = {0};
    PGresult *r;
    char id[37];

    if (run_id)
        pg_param_text(&p, uuid_format(id, run_id));
    TRY(pg_query(l->pg, &r, a,
                 arena_printf(a, "%s%s", run_sql,
                              run_id ? "WHERE r.run_id = $1::uuid"
                                     : "WHERE r.jobs > 0 ORDER BY r.requested_at DESC LIMIT 1"),
                 &p, err));
    if (PQntuples(r) == 0)
        return err_set(err, ST_REJECT, "no such run");
    put_run(w, r);
    return put_failures(l, w, a, arena_copy(a, PQgetvalue(r, 0, 0), 36), err);
}

enum status ledger_run_status(struct ledger *l, struct json_writer *w, const struct uuid *run_id,
                              struct err *err)
{
    struct arena *a = arena_new();
    enum status st = pg_begin(l->pg, err);

    if (st == ST_OK)
        st = run_status(l, w, a, run_id, err);
    st = finish(l, st, err);
    arena_free(&a);
    return st;
}
