/* status.c - status: the scheduler, its fetchers, who is heard, the last run, the accounts; cut to
 * the terminal, else to 80 columns. */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/control.h"
#include "cli/progress.h"
#include "cli/pulses.h"
#include "cli/screen.h"
#include "cli/table.h"
#include "common/clock.h"

#define STATUS_WAIT_US (2 * US_PER_S)
#define PULSES_WAIT_US (1800 * US_PER_MS) /* each is heard once a second, some late */
#define FETCHERS_SHOWN 20
#define LABEL_COLUMNS  11

static struct text member_text(const struct json *node, const char *name)
{
    return json_string(json_member(node, name));
}

static void show_scheduler(FILE *out, struct arena *a, const struct json *answer)
{
    struct text tick = member_text(answer, "next_tick");
    int64_t tick_us;
    struct err ignored;

    (void)fprintf(
        out, "scheduler  %s, up %s, %" PRId64 " jobs out%s\n",
        terminal_text(a, member_text(answer, "instance")),
        progress_span(a, answer_int(answer, "uptime_s")), answer_int(answer, "outstanding"),
        json_is(json_member(answer, "paused"), JSON_TRUE) ? ", PAUSED (usagectl resume goes on)"
                                                          : "");
    if (time_parse(&tick_us, tick, &ignored) == ST_OK) {
        int64_t left = (tick_us - clock_utc_us()) / US_PER_S;
        (void)fprintf(out, "next cycle %.*s, in %s\n", (int)tick.len, tick.at,
                      progress_span(a, left > 0 ? left : 0));
    }
}

static void show_fetchers(FILE *out, struct arena *a, const struct json *answer)
{
    const struct json *list = json_member(answer, "fetchers");
    size_t shown = 0;

    if (!list || list->n == 0) {
        (void)fputs("fetchers   none is connected: is uf-fetcher running?\n", out);
        return;
    }
    for (const struct json *f = list->first; f && shown < FETCHERS_SHOWN; f = f->next, shown++)
        (void)fprintf(out, "%-10s %s: %" PRId64 " of %" PRId64 " jobs, seen %.1f s ago\n",
                      shown ? "" : "fetchers", terminal_text(a, member_text(f, "instance")),
                      answer_int(f, "held"), answer_int(f, "capacity"),
                      (double)answer_int(f, "age_ms") / 1000);
    if (list->n > shown)
        (void)fprintf(out, "           and %zu more\n", list->n - shown);
}

/* The newest run, whoever did it: Postgres knows, also when no scheduler answers. */
static enum status show_last_run(FILE *out, struct cli *cli, struct err *err)
{
    PGresult *r;

    TRY(pg_query(cli->pg, &r, cli->arena,
                 "SELECT kind, to_char(requested_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'), "
                 "CASE WHEN finished_at IS NULL THEN 'running' ELSE 'done in ' || round(extract("
                 "epoch FROM finished_at - requested_at)::numeric, 1) || ' s' END, accounts_total, "
                 "accounts_ok, accounts_failed, rows_inserted, rows_updated, rows_removed, "
                 "rows_unchanged, pages, pages_unchanged FROM fetch_runs WHERE jobs > 0 OR "
                 "finished_at IS NULL "
                 "ORDER BY requested_at DESC LIMIT 1",
                 NULL, err));
    if (PQntuples(r) == 0) {
        (void)fputs("last run   none yet: usagectl run --wait\n", out);
        return ST_OK;
    }
    (void)fprintf(out, "last run   %s, asked for at %s UTC, %s\n", PQgetvalue(r, 0, 0),
                  PQgetvalue(r, 0, 1), PQgetvalue(r, 0, 2));
    (void)fprintf(out, "           accounts: %s, %s succeeded, %s failed\n",
                  digits_grouped(cli->arena, pg_text(r, 0, 3)),
                  digits_grouped(cli->arena, pg_text(r, 0, 4)),
                  digits_grouped(cli->arena, pg_text(r, 0, 5)));
    (void)fprintf(out, "           pages: %s, %s of them unchanged\n",
                  digits_grouped(cli->arena, pg_text(r, 0, 10)),
                  digits_grouped(cli->arena, pg_text(r, 0, 11)));
    (void)fprintf(
        out, "           rows: %s new, %s changed, %s removed, %s unchanged\n",
        digits_grouped(cli->arena, pg_text(r, 0, 6)), digits_grouped(cli->arena, pg_text(r, 0, 7)),
        digits_grouped(cli->arena, pg_text(r, 0, 8)), digits_grouped(cli->arena, pg_text(r, 0, 9)));
    return ST_OK;
}

static enum status show_accounts(FILE *out, struct cli *cli, struct err *err)
{
    PGresult *r;

    TRY(pg_query(cli->pg, &r, cli->arena,
                 "SELECT state, count(*) FROM account_health GROUP BY 1 ORDER BY 2 DESC, 1", NULL,
                 err));
    (void)fprintf(out, "accounts   ");
    if (PQntuples(r) == 0)
        (void)fprintf(out, "none yet: usagectl account add NAME --provider P (usagectl providers)");
    for (int i = 0; i < PQntuples(r); i++)
        (void)fprintf(out, "%s%s %s", i ? ", " : "", digits_grouped(cli->arena, pg_text(r, i, 1)),
                      PQgetvalue(r, i, 0));
    (void)fprintf(out, "\n");
    TRY(pg_query(cli->pg, &r, cli->arena,
                 "SELECT (SELECT count(*) FROM owed_windows WHERE state = 'pending'), "
                 "(SELECT count(*) FROM dead_letters WHERE closed_at IS NULL)",
                 NULL, err));
    if (pg_int(r, 0, 0) > 0)
        (void)fprintf(out, "owed       %s windows of the past are still to be read\n",
                      PQgetvalue(r, 0, 0));
    if (pg_int(r, 0, 1) > 0)
        (void)fprintf(out, "dead       %s pages could not be understood: usagectl dead list\n",
                      PQgetvalue(r, 0, 1));
    return ST_OK;
}

/* Who is heard. Of the scheduler and the fetchers the scheduler knows more. */
static void show_processes(FILE *out, struct arena *a, const struct instances *in)
{
    int64_t now = clock_mono_us(), warnings = 0, errors = 0;

    (void)fprintf(out, "processes ");
    for (size_t k = 0; k < n_stage_kinds; k++) {
        struct stage_sum sum = instances_sum(in, &stage_kinds[k], now);
        if (sum.n_fresh == 0)
            (void)fprintf(out, "%s NO %s", k ? "," : "", stage_kinds[k].name);
        else
            (void)fprintf(out, "%s %zu %s%s", k ? "," : "", sum.n_fresh, stage_kinds[k].name,
                          sum.n_fresh == 1 ? "" : "s");
        warnings += sum.warnings;
        errors += sum.errors;
    }
    (void)fprintf(out, "; usagectl top\n");
    if (warnings + errors > 0)
        (void)fprintf(out, "           their logs: %s warnings, %s errors\n",
                      digits_grouped(a, text_of(arena_printf(a, "%" PRId64, warnings))),
                      digits_grouped(a, text_of(arena_printf(a, "%" PRId64, errors))));
}

/* Why no scheduler answers, and what to do: broken into lines, since nothing of it may be cut. */
static void show_away(FILE *out, const char *text)
{
    const size_t room = screen_now().columns - LABEL_COLUMNS;
    const char *label = "scheduler";

    while (*text) {
        size_t len = strlen(text), at = room;
        if (len > room) {
            while (at > 0 && text[at] != ' ')
                at--;
            len = at > 0 ? at : room;
        }
        (void)fprintf(out, "%-*s%.*s\n", LABEL_COLUMNS, label, (int)len, text);
        text += len + strspn(text + len, " ");
        label = "";
    }
}

static enum status show_pipeline(FILE *out, struct cli *cli, struct pulses *pulses, struct err *err)
{
    int64_t listen_until_us = clock_mono_us() + PULSES_WAIT_US;
    struct control *control = NULL;
    const struct json *answer;
    struct err away = {0};
    enum status st = control_open(&control, &cli->cfg, &away);

    if (st == ST_OK)
        st = control_ask(control, &answer, cli->arena, control_request(cli->arena, "status", NULL),
                         STATUS_WAIT_US, &away);
    control_close(&control);
    if (st == ST_FATAL)
        return err_set(err, st, "%s", away.text);
    if (st == ST_OK) {
        show_scheduler(out, cli->arena, answer);
        show_fetchers(out, cli->arena, answer);
    } else {
        show_away(out, away.text);
        cli->answer_is_no = true;
    }
    pulses_listen(pulses, listen_until_us, -1);
    show_processes(out, cli->arena, pulses_instances(pulses));
    return ST_OK;
}

static enum status show_all(FILE *out, struct cli *cli, struct err *err)
{
    struct pulses *pulses = NULL;
    enum status st = pulses_open(&pulses, &cli->cfg, err);

    if (st == ST_OK)
        st = show_pipeline(out, cli, pulses, err);
    pulses_close(&pulses);
    TRY(st);
    TRY(cli_database(cli, err));
    TRY(show_last_run(out, cli, err));
    return show_accounts(out, cli, err);
}

enum status cmd_status(struct cli *cli, const struct args *args, struct err *err)
{
    struct buf cut = {.arena = cli->arena};
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    enum status st;

    (void)args;
    if (!out)
        return err_set(err, ST_RETRY, "out of memory");
    st = cli_database(cli, err);
    if (st == ST_OK)
        st = pg_commit(cli->pg, err);
    if (st == ST_OK)
        st = show_all(out, cli, err);
    (void)fclose(out);
    screen_write(&cut, (struct text){text, len}, (struct screen){screen_now().columns, SIZE_MAX},
                 "\n");
    free(text);
    if (cut.len > 0)
        (void)fwrite(cut.at, 1, cut.len, stdout);
    return st;
}
