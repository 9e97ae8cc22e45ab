/* account.c - account list, show, enable, disable, remove. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/table.h"

#define UTC_MINUTE(expr) "to_char(" expr " AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI')"

/* Fills `t` with the rows of `r`, all columns as text. */
static void rows_add(struct table *t, const PGresult *r)
{
    for (int row = 0; row < PQntuples(r); row++)
        for (int col = 0; col < PQnfields(r); col++)
            table_cell(t, pg_text(r, row, col));
}

enum status cmd_account_list(struct cli *cli, const struct args *args, struct err *err)
{
    enum table_format format;
    struct table t;
    PGresult *r;

    TRY(table_format_parse(&format, cli->arena, args->values[OPT_FORMAT], err));
    TRY(cli_database(cli, err));
    TRY(pg_query(cli->pg, &r, cli->arena,
                 "SELECT a.name, a.provider, a.key_hint, h.state, " UTC_MINUTE(
                     "h.complete_until") ", nullif((SELECT string_agg(l.key || '=' || l.value, ' ' "
                                         "ORDER BY l.key) FROM "
                                         "jsonb_each_text(a.labels) l), ''), h.trouble "
                                         "FROM accounts a JOIN account_health h USING (account_id) "
                                         "ORDER BY a.name",
                 NULL, err));
    if (PQntuples(r) == 0 && format == FORMAT_TABLE) {
        (void)puts("no accounts yet: usagectl account add NAME --provider P (usagectl providers)");
        return ST_OK;
    }
    table_open(&t, cli->arena);
    table_column(&t, "account", COLUMN_TEXT);
    table_column(&t, "provider", COLUMN_TEXT);
    table_column(&t, "key", COLUMN_TEXT);
    table_column(&t, "state", COLUMN_TEXT);
    table_column(&t, format == FORMAT_TABLE ? "complete until (UTC)" : "complete_until",
                 COLUMN_TEXT);
    table_column(&t, "labels", COLUMN_TEXT);
    table_column(&t, "trouble", COLUMN_TEXT);
    rows_add(&t, r);
    table_print(&t, format, stdout);
    return ST_OK;
}

/* ---- show ---- */

static enum status show_feeds(struct cli *cli, const struct pg_params *p, struct err *err)
{
    struct table t;
    PGresult *r;

    TRY(pg_query(
        cli->pg, &r, cli->arena,
        "SELECT f.feed, f.last_error, " UTC_MINUTE("f.complete_from") ", " UTC_MINUTE(
            "f.watermark") ", " UTC_MINUTE("f.last_success_at") ", f.consecutive_failures FROM "
                                                                "account_feeds f JOIN accounts a "
                                                                "USING (account_id) "
                                                                "WHERE a.name = $1 ORDER BY f.feed",
        p, err));
    if (PQntuples(r) == 0) {
        (void)puts("\nnot read yet: usagectl run --account NAME --wait, with the stages running");
        return ST_OK;
    }
    (void)puts("");
    table_open(&t, cli->arena);
    table_column(&t, "feed", COLUMN_TEXT);
    table_column(&t, "last ending", COLUMN_TEXT);
    table_column(&t, "complete from", COLUMN_TEXT);
    table_column(&t, "until (UTC)", COLUMN_TEXT);
    table_column(&t, "last success", COLUMN_TEXT);
    table_column(&t, "failures", COLUMN_COUNT);
    rows_add(&t, r);
    table_print(&t, FORMAT_TABLE, stdout);
    return ST_OK;
}

static enum status show_trouble(struct cli *cli, const struct pg_params *p, struct err *err)
{
    PGresult *r;

    TRY(pg_query(cli->pg, &r, cli->arena,
                 "SELECT f.last_error, string_agg(f.feed, ', ' ORDER BY f.feed), "
                 "(array_agg(f.last_error_detail ORDER BY f.feed))[1] "
                 "FROM account_feeds f JOIN accounts a USING (account_id) "
                 "WHERE a.name = $1 AND f.consecutive_failures > 0 GROUP BY f.last_error "
                 "ORDER BY f.last_error",
                 p, err));
    for (int i = 0; i < PQntuples(r); i++) {
        const char *advice = cli_advice(pg_text(r, i, 0));

        (void)printf("\n%s (%s)\n  %s\n", PQgetvalue(r, i, 0), PQgetvalue(r, i, 1),
                     terminal_text(cli->arena, pg_text(r, i, 2)));
        if (advice)
            (void)printf("  What to do: %s\n", advice);
    }
    return ST_OK;
}

static enum status show_owed(struct cli *cli, const struct pg_params *p, struct err *err)
{
    PGresult *r;

    TRY(pg_query(cli->pg, &r, cli->arena,
                 "SELECT count(*), " UTC_MINUTE("min(w.done_to)") ", " UTC_MINUTE(
                     "max(w.to_at)") " FROM owed_windows w JOIN accounts a USING (account_id) "
                                     "WHERE a.name = $1 "
                                     "AND w.state = 'pending'",
                 p, err));
    if (pg_int(r, 0, 0) > 0)
        (void)printf("\nstill to be read of the past: %s windows, between %s and %s UTC\n",
                     PQgetvalue(r, 0, 0), PQgetvalue(r, 0, 1), PQgetvalue(r, 0, 2));
    return ST_OK;
}

enum status cmd_account_show(struct cli *cli, const struct args *args, struct err *err)
{
    static const char *const names[] = {"account", "provider", "base URL", "key", "state",
                                        "labels",  "added",    "next due", "now"};
    struct pg_params p = {0};
    PGresult *r;

    TRY(cli_database(cli, err));
    TRY(cli_account_known(cli, args->words[0], err));
    pg_param_text(&p, args->words[0]);
    TRY(pg_query(cli->pg, &r, cli->arena,
                 "SELECT a.name, a.provider, a.base_url, a.key_hint, h.state, "
                 "nullif(a.labels::text, '{}'), " UTC_MINUTE(
                     "a.created_at") " || ' UTC', "
                                     "CASE WHEN a.enabled THEN " UTC_MINUTE(
                                         "a.next_due") " || ' UTC' END, "
                                                       "CASE WHEN a.lease_until > now() THEN "
                                                       "'being read now' END "
                                                       "FROM accounts a JOIN account_health h "
                                                       "USING (account_id) WHERE a.name = $1",
                 &p, err));
    for (int i = 0; i < PQnfields(r); i++)
        if (!PQgetisnull(r, 0, i))
            (void)printf("%-10s %s\n", names[i], terminal_text(cli->arena, pg_text(r, 0, i)));
    TRY(show_feeds(cli, &p, err));
    TRY(show_trouble(cli, &p, err));
    return show_owed(cli, &p, err);
}

/* ---- enable, disable, remove ---- */

static enum status enabled_set(struct cli *cli, const char *name, bool enabled, struct err *err)
{
    struct pg_params p = {0};
    PGresult *r;

    TRY(cli_database(cli, err));
    TRY(cli_account_known(cli, name, err));
    pg_param_text(&p, name);
    pg_param_text(&p, enabled ? "t" : "f");
    /* enabled: due at once, as a new one */
    TRY(pg_query(cli->pg, &r, cli->arena,
                 "UPDATE accounts SET enabled = $2::boolean, updated_at = now(), "
                 "next_due = CASE WHEN $2::boolean AND coalesce(lease_until, '-infinity') < now() "
                 "THEN now() ELSE next_due END WHERE name = $1 AND enabled <> $2::boolean "
                 "RETURNING 1",
                 &p, err));
    TRY(pg_commit(cli->pg, err));
    (void)printf("%s %s %s\n", name, PQntuples(r) ? "is" : "was already",
                 enabled ? "enabled" : "disabled");
    return ST_OK;
}

enum status cmd_account_enable(struct cli *cli, const struct args *args, struct err *err)
{
    return enabled_set(cli, args->words[0], true, err);
}

enum status cmd_account_disable(struct cli *cli, const struct args *args, struct err *err)
{
    return enabled_set(cli, args->words[0], false, err);
}

static enum status remove_confirmed(const struct args *args, bool *out, struct err *err)
{
    char answer[200] = "";

    *out = true;
    if (cli_has(args, OPT_YES))
        return ST_OK;
    if (!isatty(STDIN_FILENO))
        return err_set(err, ST_REJECT, "nobody is there to confirm it: add --yes");
    (void)printf(
        "Remove account %s, its key and its state%s? Type its name to confirm: ", args->words[0],
        cli_has(args, OPT_PURGE) ? ", AND DELETE all of its usage and cost" : "");
    (void)fflush(stdout);
    if (!fgets(answer, sizeof(answer), stdin))
        answer[0] = '\0';
    answer[strcspn(answer, "\n")] = '\0';
    *out = strcmp(answer, args->words[0]) == 0;
    return ST_OK;
}

enum status cmd_account_remove(struct cli *cli, const struct args *args, struct err *err)
{
    struct pg_params p = {0}, id = {0};
    bool confirmed;
    PGresult *r, *gone = NULL;

    TRY(cli_database(cli, err));
    TRY(cli_account_known(cli, args->words[0], err));
    pg_rollback(cli->pg); /* no transaction while a person thinks */
    TRY(remove_confirmed(args, &confirmed, err));
    if (!confirmed) {
        (void)puts("not removed");
        cli->answer_is_no = true;
        return ST_OK;
    }
    TRY(cli_database(cli, err));
    pg_param_text(&p, args->words[0]);
    /* The row goes first: a writer that still has pages of it waits for that lock, then finds no
     * account and drops them. */
    TRY(pg_query(cli->pg, &r, cli->arena,
                 "DELETE FROM accounts WHERE name = $1 RETURNING account_id", &p, err));
    if (PQntuples(r) == 0)
        return err_set(err, ST_REJECT, "account %s has just been removed by somebody else",
                       args->words[0]);
    pg_param_text(&id, PQgetvalue(r, 0, 0));
    if (cli_has(args, OPT_PURGE)) {
        TRY(pg_query(cli->pg, NULL, NULL, "SELECT usage_sums_forget($1::bigint)", &id, err));
        TRY(pg_query(cli->pg, &gone, cli->arena,
                     "DELETE FROM usage_metrics WHERE account_id = $1::bigint", &id, err));
        TRY(pg_query(cli->pg, NULL, NULL,
                     "DELETE FROM usage_revisions WHERE account_id = $1::bigint", &id, err));
        TRY(pg_query(cli->pg, NULL, NULL, "DELETE FROM dead_letters WHERE account_id = $1::bigint",
                     &id, err));
    }
    TRY(pg_commit(cli->pg, err));
    if (gone)
        (void)printf("removed %s and its %s rows of usage_metrics\n", args->words[0],
                     PQcmdTuples(gone));
    else
        (void)printf("removed %s; its rows of usage_metrics stay (account_id %s)\n", args->words[0],
                     PQgetvalue(r, 0, 0));
    return ST_OK;
}
