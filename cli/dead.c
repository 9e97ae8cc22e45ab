/* dead.c - dead list, show, replay: pages that could not be understood. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/inject.h"
#include "cli/progress.h"
#include "cli/table.h"
#include "common/clock.h"

#define UTC_MINUTE(expr) "to_char(" expr " AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI')"
#define ACCOUNT_NAME     "coalesce(a.name, '(removed ' || d.account_id || ')')"

static enum status id_parse(const char *word, struct err *err)
{
    if (*word && strlen(word) <= 18 && word[strspn(word, "0123456789")] == '\0')
        return ST_OK;
    return err_set(err, ST_REJECT, "'%.40s' is no letter's number: usagectl dead list shows them",
                   word);
}

enum status cmd_dead_list(struct cli *cli, const struct args *args, struct err *err)
{
    static const char *const headings[] = {"id",    "account",         "feed",   "window (UTC)",
                                           "times", "last seen (UTC)", "closed", "reason"};
    struct pg_params p = {0};
    struct table t;
    PGresult *r;

    TRY(cli_database(cli, err));
    if (cli_has(args, OPT_ACCOUNT))
        TRY(cli_account_known(cli, args->values[OPT_ACCOUNT], err));
    pg_param_text(&p, args->values[OPT_ACCOUNT]);
    pg_param_text(&p, cli_has(args, OPT_ALL) ? "t" : "f");
    TRY(pg_query(
        cli->pg, &r, cli->arena,
        "SELECT d.letter_id, " ACCOUNT_NAME
        ", d.feed, " UTC_MINUTE("d.window_from") ", d.occurrences, " UTC_MINUTE(
            "d.last_seen_at") ", " UTC_MINUTE("d.closed_at") ", left(d.reason, 100) || coalesce(' "
                                                             "at ' || d.json_path, '') "
                                                             "FROM dead_letters d LEFT JOIN "
                                                             "accounts a USING (account_id) "
                                                             "WHERE ($1::text IS NULL OR a.name = "
                                                             "$1) AND ($2::boolean OR d.closed_at "
                                                             "IS NULL) "
                                                             "ORDER BY d.letter_id DESC LIMIT 1000",
        &p, err));
    if (PQntuples(r) == 0) {
        (void)puts("no dead letters");
        return ST_OK;
    }
    table_open(&t, cli->arena);
    for (int col = 0; col < PQnfields(r); col++)
        if (col != 6 || cli_has(args, OPT_ALL))
            table_column(&t, headings[col], col == 0 || col == 4 ? COLUMN_COUNT : COLUMN_TEXT);
    for (int row = 0; row < PQntuples(r); row++)
        for (int col = 0; col < PQnfields(r); col++)
            if (col != 6 || cli_has(args, OPT_ALL))
                table_cell(&t, pg_text(r, row, col));
    table_print(&t, FORMAT_TABLE, stdout);
    return ST_OK;
}

/* ---- show ---- */

/* Line ends stay, so that a body can be read; what a terminal would obey does not. */
static void print_body(struct arena *a, struct text body)
{
    struct text line;

    while (line_next(&line, &body))
        (void)printf("%s\n", terminal_text(a, line));
}

static enum status letter_missing(const char *id, struct err *err)
{
    return err_set(err, ST_REJECT, "there is no dead letter %s: usagectl dead list --all", id);
}

enum status cmd_dead_show(struct cli *cli, const struct args *args, struct err *err)
{
    static const char *const names[] = {"account", "provider", "feed",     "window",
                                        "reason",  "where",    "SQLSTATE", "times",
                                        "first",   "last",     "job",      "closed"};
    struct pg_params p = {0};
    PGresult *r;

    TRY(id_parse(args->words[0], err));
    TRY(cli_database(cli, err));
    pg_param_text(&p, args->words[0]);
    TRY(pg_query(
        cli->pg, &r, cli->arena,
        "SELECT " ACCOUNT_NAME
        ", d.provider, d.feed, " UTC_MINUTE("d.window_from") " || coalesce(' to ' || " UTC_MINUTE("d.window_to") ", ' on') || ' UTC', d.reason, d.json_path, d.sqlstate, d.occurrences, " UTC_MINUTE(
            "d.first_seen_at") " || ' UTC', " UTC_MINUTE("d.last_seen_at") " || ' UTC', "
                                                                           "d.job_id, " UTC_MINUTE(
                                                                               "d.closed_at") " || "
                                                                                              "' "
                                                                                              "UTC'"
                                                                                              ", "
                                                                                              "d."
                                                                                              "body"
                                                                                              " "
                                                                                              "FROM"
                                                                                              " dea"
                                                                                              "d_"
                                                                                              "lett"
                                                                                              "ers "
                                                                                              "d "
                                                                                              "LEFT"
                                                                                              " JOI"
                                                                                              "N "
                                                                                              "acco"
                                                                                              "unts"
                                                                                              " a "
                                                                                              "USIN"
                                                                                              "G "
                                                                                              "(acc"
                                                                                              "ount"
                                                                                              "_id)"
                                                                                              " "
                                                                                              "WHER"
                                                                                              "E "
                                                                                              "d."
                                                                                              "lett"
                                                                                              "er_"
                                                                                              "id "
                                                                                              "= "
                                                                                              "$1::"
                                                                                              "bigi"
                                                                                              "nt",
        &p, err));
    if (PQntuples(r) == 0)
        return letter_missing(args->words[0], err);
    for (int i = 0; i < (int)(sizeof(names) / sizeof(names[0])); i++)
        if (!PQgetisnull(r, 0, i))
            (void)printf("%-9s %s\n", names[i], terminal_text(cli->arena, pg_text(r, 0, i)));
    if (PQgetisnull(r, 0, 12))
        return ST_OK;
    (void)puts("\nwhat the provider sent (its beginning, without secrets):");
    print_body(cli->arena, pg_text(r, 0, 12));
    return ST_OK;
}

/* ---- replay ---- */

struct letter {
    struct injection window;
    const char *id, *occurrences;
    bool closed;
};

static enum status letter_load(struct letter *out, struct cli *cli, const char *id, struct err *err)
{
    struct pg_params p = {0};
    PGresult *r;

    TRY(id_parse(id, err));
    TRY(cli_database(cli, err));
    pg_param_text(&p, id);
    TRY(pg_query(cli->pg, &r, cli->arena,
                 "SELECT a.name, d.feed, epoch_us(d.window_from), epoch_us(coalesce(d.window_to, "
                 "now())), d.occurrences, d.closed_at IS NOT NULL "
                 "FROM dead_letters d LEFT JOIN accounts a USING (account_id) "
                 "WHERE d.letter_id = $1::bigint",
                 &p, err));
    TRY(pg_commit(cli->pg, err));
    if (PQntuples(r) == 0)
        return letter_missing(id, err);
    if (PQgetisnull(r, 0, 0))
        return err_set(err, ST_REJECT, "the account of letter %s was removed: nothing to read", id);
    *out = (struct letter){.window = {.account = PQgetvalue(r, 0, 0),
                                      .feed = PQgetvalue(r, 0, 1),
                                      .from_us = pg_int(r, 0, 2),
                                      .to_us = pg_int(r, 0, 3)},
                           .id = id,
                           .occurrences = PQgetvalue(r, 0, 4),
                           .closed = PQgetvalue(r, 0, 5)[0] == 't'};
    return ST_OK;
}

/* Closes it unless the same trouble came again meanwhile. */
static enum status letter_close(struct cli *cli, const struct letter *l, struct err *err)
{
    struct pg_params p = {0};
    PGresult *r;

    TRY(cli_database(cli, err));
    pg_param_text(&p, l->id);
    pg_param_text(&p, l->occurrences);
    TRY(pg_query(cli->pg, &r, cli->arena,
                 "UPDATE dead_letters SET closed_at = now() WHERE letter_id = $1::bigint AND "
                 "closed_at IS NULL AND occurrences = $2::integer "
                 "RETURNING 1",
                 &p, err));
    TRY(pg_commit(cli->pg, err));
    cli->answer_is_no = PQntuples(r) == 0;
    if (cli->answer_is_no)
        (void)printf("letter %s stays open: the same trouble came again\n", l->id);
    else
        (void)printf("letter %s is closed\n", l->id);
    return ST_OK;
}

static enum status replay(struct cli *cli, struct control *control, struct letter *l, bool wait,
                          struct err *err)
{
    bool failed = false;

    TRY(injection_send(&l->window, cli, control, err));
    if (!wait) {
        (void)printf("letter %s stays open; replay it with --wait to have it closed when all is "
                     "well\n",
                     l->id);
        return ST_OK;
    }
    TRY(progress_wait(cli, control, l->window.run_id, "", &failed, err));
    if (!failed)
        return letter_close(cli, l, err);
    (void)printf("letter %s stays open: its window could not be read\n", l->id);
    cli->answer_is_no = true;
    return ST_OK;
}

enum status cmd_dead_replay(struct cli *cli, const struct args *args, struct err *err)
{
    struct control *control = NULL;
    struct letter l = {0};
    enum status st;

    TRY(letter_load(&l, cli, args->words[0], err));
    if (l.closed) {
        (void)printf("letter %s is closed already\n", l.id);
        return ST_OK;
    }
    st = control_open(&control, &cli->cfg, err);
    if (st == ST_OK)
        st = replay(cli, control, &l, cli_has(args, OPT_WAIT), err);
    control_close(&control);
    return st;
}
