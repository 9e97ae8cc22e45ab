/* status.c - status: the scheduler, its fetchers, the last run, the accounts; in 80 columns. */
#include <inttypes.h>
#include <stdio.h>

#include "cli/cli.h"
#include "cli/control.h"
#include "cli/progress.h"
#include "cli/table.h"
#include "common/clock.h"

#define STATUS_WAIT_US (2 * US_PER_S)
#define FETCHERS_SHOWN 20

static struct text member_text(const struct json *node, const char *name)
{
    return json_string(json_member(node, name));
}

static void show_scheduler(struct arena *a, const struct json *answer)
{
    struct text tick = member_text(answer, "next_tick");
    int64_t tick_us;
    struct err ignored;

    (void)printf(
        "scheduler  %s, up %s, %" PRId64 " jobs out%s\n",
        terminal_text(a, member_text(answer, "instance")),
        progress_span(a, answer_int(answer, "uptime_s")), answer_int(answer, "outstanding"),
        json_is(json_member(answer, "paused"), JSON_TRUE) ? ", PAUSED (usagectl resume goes on)"
                                                          : "");
    if (time_parse(&tick_us, tick, &ignored) == ST_OK) {
        int64_t left = (tick_us - clock_utc_us()) / US_PER_S;
        (void)printf("next cycle %.*s, in %s\n", (int)tick.len, tick.at,
                     progress_span(a, left > 0 ? left : 0));
    }
}

static void show_fetchers(struct arena *a, const struct json *answer)
{
    const struct json *list = json_member(answer, "fetchers");
    size_t shown = 0;

    if (!list || list->n == 0) {
        (void)puts("fetchers   none is connected: is uf-fetcher running?");
        return;
    }
    for (const struct json *f = list->first; f && shown < FETCHERS_SHOWN; f = f->next, shown++)
        (void)printf("%-10s %s: %" PRId64 " of %" PRId64 " jobs, seen %.1f s ago\n",
                     shown ? "" : "fetchers", terminal_text(a, member_text(f, "instance")),
                     answer_int(f, "held"), answer_int(f, "capacity"),
                     (double)answer_int(f, "age_ms") / 1000);
    if (list->n > shown)
        (void)printf("           and %zu more\n", list->n - shown);
}

/* The newest run, whoever did it: Postgres knows, also when no scheduler answers. */
static enum status show_last_run(struct cli *cli, struct err *err)
{
    PGresult *r;

    TRY(pg_query(cli->pg, &r, cli->arena,
                 "SELECT kind, to_char(requested_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'), "
                 "CASE WHEN finished_at IS NULL THEN 'running' ELSE 'done in ' || round(extract("
                 "epoch FROM finished_at - requested_at)::numeric, 1) || ' s' END, accounts_total, "
                 "accounts_ok, accounts_failed, rows_inserted, rows_updated, rows_removed, "
                 "rows_unchanged FROM fetch_runs WHERE jobs > 0 OR finished_at IS NULL "
                 "ORDER BY requested_at DESC LIMIT 1",
                 NULL, err));
    if (PQntuples(r) == 0) {
        (void)puts("last run   none yet: usagectl run --wait");
        return ST_OK;
    }
    (void)printf("last run   %s, asked for at %s UTC, %s\n", PQgetvalue(r, 0, 0),
                 PQgetvalue(r, 0, 1), PQgetvalue(r, 0, 2));
    (void)printf("           accounts: %s, %s succeeded, %s failed\n",
                 digits_grouped(cli->arena, pg_text(r, 0, 3)),
                 digits_grouped(cli->arena, pg_text(r, 0, 4)),
                 digits_grouped(cli->arena, pg_text(r, 0, 5)));
    (void)printf(
        "           rows: %s new, %s changed, %s removed, %s unchanged\n",
        digits_grouped(cli->arena, pg_text(r, 0, 6)), digits_grouped(cli->arena, pg_text(r, 0, 7)),
        digits_grouped(cli->arena, pg_text(r, 0, 8)), digits_grouped(cli->arena, pg_text(r, 0, 9)));
    return ST_OK;
}

static enum status show_accounts(struct cli *cli, struct err *err)
{
    PGresult *r;

    TRY(pg_query(cli->pg, &r, cli->arena,
                 "SELECT state, count(*) FROM account_health GROUP BY 1 ORDER BY 2 DESC, 1", NULL,
                 err));
    (void)printf("accounts   ");
    if (PQntuples(r) == 0)
        (void)printf("none yet: usagectl account add NAME --provider P (usagectl providers)");
    for (int i = 0; i < PQntuples(r); i++)
        (void)printf("%s%s %s", i ? ", " : "", digits_grouped(cli->arena, pg_text(r, i, 1)),
                     PQgetvalue(r, i, 0));
    (void)printf("\n");
    TRY(pg_query(cli->pg, &r, cli->arena,
                 "SELECT (SELECT count(*) FROM owed_windows WHERE state = 'pending'), "
                 "(SELECT count(*) FROM dead_letters WHERE closed_at IS NULL)",
                 NULL, err));
    if (pg_int(r, 0, 0) > 0)
        (void)printf("owed       %s windows of the past are still to be read\n",
                     PQgetvalue(r, 0, 0));
    if (pg_int(r, 0, 1) > 0)
        (void)printf("dead       %s pages could not be understood: usagectl dead list\n",
                     PQgetvalue(r, 0, 1));
    return ST_OK;
}

enum status cmd_status(struct cli *cli, const struct args *args, struct err *err)
{
    struct control *control = NULL;
    const struct json *answer;
    struct err away = {0};
    enum status st;

    (void)args;
    TRY(cli_database(cli, err));
    TRY(pg_commit(cli->pg, err));
    st = control_open(&control, &cli->cfg, &away);
    if (st == ST_OK)
        st = control_ask(control, &answer, cli->arena, control_request(cli->arena, "status", NULL),
                         STATUS_WAIT_US, &away);
    control_close(&control);
    if (st == ST_FATAL)
        return err_set(err, st, "%s", away.text);
    if (st == ST_OK) {
        show_scheduler(cli->arena, answer);
        show_fetchers(cli->arena, answer);
    } else {
        (void)printf("scheduler  %s\n", away.text);
        cli->answer_is_no = true;
    }
    TRY(cli_database(cli, err));
    TRY(show_last_run(cli, err));
    return show_accounts(cli, err);
}
