/* late.c - acknowledgements that come after their job was settled: its lease had run out, and the
 * rows were committed all the same. They still belong to the sums of the job's runs. */
#include "common/clock.h"
#include "scheduler/ledger.h"

#define N_COLUMNS 11

/* The runs that a job served: those asked for before its claim and not over for its account by
 * then, its tick's, or that of its owed window. */
static const char late_sql[] =
    "WITH j AS (SELECT * FROM unnest($1::bigint[], $2::timestamptz[], $3::boolean[], "
    "$4::bigint[], $5::timestamptz[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], "
    "$10::bigint[], $11::bigint[]) AS j (account_id, claimed_at, forced, owed_id, tick, pages, "
    "inserted, updated, removed, unchanged, same)), hit AS (SELECT r.run_id AS run, j.* FROM j "
    "JOIN run_accounts ra USING "
    "(account_id) JOIN fetch_runs r USING (run_id) WHERE j.owed_id = 0 AND r.kind = 'manual' AND "
    "r.requested_at <= j.claimed_at AND coalesce(ra.finished_at, 'infinity') >= j.claimed_at "
    "UNION ALL SELECT r.run_id, j.* FROM j JOIN fetch_runs r ON r.tick = j.tick "
    "WHERE j.owed_id = 0 AND NOT j.forced "
    "UNION ALL SELECT o.run_id, j.* FROM j JOIN owed_windows o USING (account_id, owed_id)) "
    "UPDATE fetch_runs r SET pages = r.pages + s.pages, pages_unchanged = r.pages_unchanged + "
    "s.same, rows_inserted = r.rows_inserted + "
    "s.inserted, rows_updated = r.rows_updated + s.updated, rows_removed = r.rows_removed + "
    "s.removed, rows_unchanged = r.rows_unchanged + s.unchanged FROM (SELECT run, sum(pages) AS "
    "pages, sum(inserted) AS inserted, sum(updated) AS updated, sum(removed) AS removed, "
    "sum(unchanged) AS unchanged, sum(same) AS same FROM hit GROUP BY run) s WHERE r.run_id = "
    "s.run";

struct late_rows {
    const struct ledger *ledger;
    struct pg_array col[N_COLUMNS];
};

static void late_job(struct tracked_job *job, void *arg)
{
    struct late_rows *rows = arg;

    for (size_t i = 0; i < job->n_windows; i++) {
        const struct job_window *w = &job->windows[i];
        if (w->n_acked == 0)
            continue;
        pg_array_int(&rows->col[0], job->account_id);
        pg_array_time(&rows->col[1], job->claimed_at_us);
        pg_array_text(&rows->col[2], text_of(job->forced ? "t" : "f"));
        pg_array_int(&rows->col[3], w->owed_id);
        pg_array_time(&rows->col[4], tick_before(&rows->ledger->slots, job->claimed_at_us));
        pg_array_int(&rows->col[5], w->n_acked);
        pg_array_int(&rows->col[6], (int64_t)w->inserted);
        pg_array_int(&rows->col[7], (int64_t)w->updated);
        pg_array_int(&rows->col[8], (int64_t)w->removed);
        pg_array_int(&rows->col[9], (int64_t)w->unchanged);
        pg_array_int(&rows->col[10], w->n_same);
    }
}

static void late_told(struct tracked_job *job, void *arg)
{
    (void)arg;
    job_counted(job);
}

enum status ledger_late(struct ledger *l, struct jobs *late, struct err *err)
{
    struct arena *a = arena_new();
    struct late_rows rows = {.ledger = l};
    struct pg_params p = {0};
    enum status st;

    for (size_t i = 0; i < N_COLUMNS; i++)
        pg_array_open(&rows.col[i], a);
    jobs_each(late, late_job, &rows);
    for (size_t i = 0; i < N_COLUMNS; i++)
        pg_param_text(&p, pg_array_close(&rows.col[i]));
    st = pg_begin(l->pg, err);
    if (st == ST_OK)
        st = pg_query(l->pg, NULL, NULL, late_sql, &p, err);
    if (st == ST_OK)
        st = pg_commit(l->pg, err);
    if (st == ST_OK)
        jobs_each(late, late_told, NULL);
    else
        pg_rollback(l->pg);
    arena_free(&a);
    return st;
}
