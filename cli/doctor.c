/* doctor.c - doctor: looks at one thing after another and says what to do about each. */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/control.h"
#include "cli/table.h"
#include "common/clock.h"

#define DOCTOR_WAIT_US (2 * US_PER_S)
#define TROUBLES_SHOWN 20

static void line(struct cli *cli, bool good, const char *fmt, ...) PRINTF_LIKE(3, 4);

static void line(struct cli *cli, bool good, const char *fmt, ...)
{
    va_list ap;

    if (!good)
        cli->answer_is_no = true;
    (void)printf("%-4s ", good ? "ok" : "FIX");
    va_start(ap, fmt);
    (void)vprintf(fmt, ap);
    va_end(ap);
    (void)printf("\n");
}

static bool check_environment(struct cli *cli)
{
    struct err err = {0};
    bool good = config_load_env(&cli->cfg, STAGE_CLI, "usagectl", &err) == ST_OK;

    line(cli, good, "environment: %s",
         good ? "every UF_ name is known, every value fits" : err.text);
    return good;
}

static void check_key(struct cli *cli)
{
    struct err err = {0};

    if (cli_sealer(cli, &err) == ST_OK)
        line(cli, true, "ENCRYPTION_KEY: 32 bytes");
    else
        line(cli, false, "%s", err.text);
}

static void check_run_dir(struct cli *cli)
{
    const char *dir = cli->cfg.run_dir;

    if (strncmp(cli->cfg.control, "ipc://", 6) != 0)
        return;
    if (access(dir, W_OK | X_OK) == 0)
        line(cli, true, "run folder: %s", dir);
    else if (errno == ENOENT)
        line(cli, false,
             "run folder: there is no %s: start the stages, which make it, or set UF_RUN_DIR to "
             "theirs",
             dir);
    else
        line(cli, false, "run folder: %s: %s: set UF_RUN_DIR to a folder of your own", dir,
             strerror(errno));
}

static bool check_database(struct cli *cli)
{
    struct err err = {0};

    if (cli_database_any(cli, &err) != ST_OK) {
        line(cli, false, "database: %s", err.text);
        return false;
    }
    line(cli, true, "database: %s", database_url_redacted(cli->arena, cli->cfg.database_url));
    if (pg_check_schema(cli->pg, &err) != ST_OK) {
        line(cli, false, "schema: %s", err.text);
        return false;
    }
    line(cli, true, "schema: \"%s\", version %d", cli->cfg.schema, PG_SCHEMA_VERSION);
    return true;
}

/* ---- what this login may do ---- */

/* What the login has, beside what role_rights gives to its parts: the parts whose policies name a
 * role that it belongs to. Columns one by one, so that a right on a whole table is seen as each. */
static const char rights_sql[] =
    "WITH object AS (SELECT c.oid, c.relname, c.relowner FROM pg_class c WHERE c.relnamespace = "
    "current_schema()::regnamespace AND (c.relname IN (SELECT "
    "object FROM role_rights) OR c.oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = "
    "'usage_metrics'::regclass))), "
    "part AS (SELECT DISTINCT p.polname AS name FROM pg_policy p JOIN object o ON o.oid = "
    "p.polrelid, unnest(p.polroles) AS holder WHERE pg_has_role(holder, 'USAGE')), "
    "given AS (SELECT DISTINCT o.oid, replace(r.privilege, 'LOCK', 'UPDATE') AS privilege, "
    "CASE WHEN r.privilege <> 'DELETE' THEN a.attname END AS attname FROM role_rights r "
    "JOIN part p ON p.name = r.part JOIN object o ON o.relname = r.object "
    "JOIN pg_attribute a ON a.attrelid = o.oid AND a.attnum > 0 AND NOT a.attisdropped "
    "WHERE r.columns IS NULL OR a.attname = ANY (string_to_array(r.columns, ', '))), "
    "held AS (SELECT o.oid, p AS privilege, a.attname FROM object o JOIN pg_attribute a ON "
    "a.attrelid = o.oid AND a.attnum > 0 AND NOT a.attisdropped, unnest('{SELECT,INSERT,UPDATE}'"
    "::text[]) AS p WHERE has_column_privilege(o.oid, a.attnum, p) UNION ALL SELECT o.oid, p, NULL "
    "FROM object o, unnest('{DELETE,TRUNCATE,TRIGGER,REFERENCES}'::text[]) AS p "
    "WHERE has_table_privilege(o.oid, p)), "
    "lacks AS (SELECT * FROM given EXCEPT SELECT * FROM held), "
    "over AS (SELECT * FROM held EXCEPT SELECT * FROM given) "
    "SELECT current_user, (SELECT string_agg(name, ', ' ORDER BY name) FROM part), "
    "(SELECT concat_ws(', ', CASE WHEN rolsuper THEN 'superuser' END, CASE WHEN rolbypassrls THEN "
    "'BYPASSRLS' END, CASE WHEN rolcreaterole THEN 'CREATEROLE' END) FROM pg_roles "
    "WHERE rolname = current_user), "
    "(SELECT bool_or(pg_has_role(relowner, 'USAGE')) FROM object), "
    "(SELECT count(*) FROM lacks), (SELECT string_agg(DISTINCT privilege || ' on ' || "
    "oid::regclass, ', ') FROM lacks), "
    "(SELECT count(*) FROM over), (SELECT string_agg(what, ', ') FROM (SELECT DISTINCT privilege "
    "|| ' of ' || oid::regclass || coalesce('.' || attname, '') AS what FROM over ORDER BY 1 LIMIT "
    "3) AS few)";

/* `*sees`: whether the accounts may be looked at. */
static enum status check_role(struct cli *cli, bool *sees, struct err *err)
{
    const char *name, *parts, *power, *copies = "";
    PGresult *r;

    TRY(pg_query(cli->pg, &r, cli->arena, rights_sql, NULL, err));
    name = PQgetvalue(r, 0, 0);
    parts = PQgetvalue(r, 0, 1);
    power = PQgetvalue(r, 0, 2);
    *sees = strstr(parts, "admin") || PQgetvalue(r, 0, 3)[0] == 't';
    if (strstr(power, "superuser") || PQgetvalue(r, 0, 3)[0] == 't') {
        line(cli, true,
             "database login: %s is %s and may do everything; each process can have one that does "
             "its part only (docs/security.md)",
             name, strstr(power, "superuser") ? "a superuser" : "the owner of the tables");
        return ST_OK;
    }
    if (strcmp(parts, "writer") == 0) { /* to COPY straight into a table with row-level security */
        bool may = strcmp(power, "BYPASSRLS") == 0;

        copies = may ? " (and BYPASSRLS, to COPY)" : "; with BYPASSRLS it would write faster";
        power = may ? "" : power;
    }
    if (pg_int(r, 0, 4) > 0)
        line(cli, false,
             "database login: %s (%s) lacks %s: the owner of the tables runs usagectl migrate, "
             "which gives it",
             name, parts, PQgetvalue(r, 0, 5));
    if (power[0])
        line(cli, false, "database login: %s (%s) has %s: no process needs that (ALTER ROLE)", name,
             parts, power);
    if (pg_int(r, 0, 6) > 0)
        line(cli, false, "database login: %s (%s) may do more than its part, as %s: REVOKE it",
             name, parts, PQgetvalue(r, 0, 7));
    if (!power[0] && pg_int(r, 0, 4) == 0 && pg_int(r, 0, 6) == 0)
        line(cli, true, "database login: %s has the rights of %s, and no other%s", name, parts,
             copies);
    return ST_OK;
}

/* ---- accounts ---- */

static enum status check_accounts(struct cli *cli, struct err *err)
{
    unsigned char key_id[4] = {0}, old_id[4] = {0};
    struct pg_params p = {0};
    PGresult *r;

    if (cli->sealer)
        sealer_key_ids(cli->sealer, key_id, old_id);
    pg_param_binary(&p, 17 /* bytea */, key_id, sizeof(key_id));
    pg_param_binary(&p, 17 /* bytea */, old_id, sizeof(old_id));
    TRY(pg_query(
        cli->pg, &r, cli->arena,
        "SELECT count(*), count(*) FILTER (WHERE enabled), count(*) FILTER (WHERE id NOT "
        "IN ($1, $2)), min(name) FILTER (WHERE id NOT IN ($1, $2)), count(*) FILTER "
        "(WHERE id = $2 AND $1 <> $2) FROM (SELECT name, enabled, substring(key_ciphertext "
        "FROM 2 FOR 4) AS id FROM accounts) AS a",
        &p, err));
    if (pg_int(r, 0, 1) == 0)
        line(cli, false, "accounts: %s: %s",
             pg_int(r, 0, 0) ? "all are disabled" : "there are none",
             pg_int(r, 0, 0) ? "usagectl account enable NAME"
                             : "usagectl account add NAME --provider P");
    else
        line(cli, true, "accounts: %s, %s of them enabled", PQgetvalue(r, 0, 0),
             PQgetvalue(r, 0, 1));
    if (cli->sealer && pg_int(r, 0, 2) > 0)
        line(cli, false,
             "%s accounts (%s, ...) were sealed with another ENCRYPTION_KEY: set the one that "
             "they were added with, or usagectl account rotate-key NAME",
             PQgetvalue(r, 0, 2), PQgetvalue(r, 0, 3));
    if (cli->sealer && pg_int(r, 0, 4) > 0)
        line(cli, false, "%s accounts are still sealed with ENCRYPTION_KEY_OLD: usagectl rekey",
             PQgetvalue(r, 0, 4));
    return ST_OK;
}

static enum status check_trouble(struct cli *cli, struct err *err)
{
    PGresult *r;
    int n;

    TRY(pg_query(cli->pg, &r, cli->arena,
                 "SELECT a.name, f.last_error, string_agg(f.feed, ', ' ORDER BY f.feed), "
                 "count(*) = (SELECT count(*) FROM account_feeds g WHERE g.account_id = "
                 "a.account_id), (array_agg(f.last_error_detail ORDER BY f.feed))[1] "
                 "FROM account_feeds f JOIN accounts a USING (account_id) "
                 "WHERE a.enabled AND f.enabled AND f.consecutive_failures > 0 "
                 "GROUP BY a.account_id, f.last_error ORDER BY a.name, f.last_error",
                 NULL, err));
    n = PQntuples(r);
    for (int i = 0; i < n && i < TROUBLES_SHOWN; i++) {
        const char *advice = cli_advice(pg_text(r, i, 1));

        line(cli, false, "%s: %s (%s): %s\n     What to do: %s", PQgetvalue(r, i, 0),
             PQgetvalue(r, i, 1), PQgetvalue(r, i, 3)[0] == 't' ? "all feeds" : PQgetvalue(r, i, 2),
             terminal_text(cli->arena, pg_text(r, i, 4)),
             advice ? advice : "usagectl account show NAME");
    }
    if (n > TROUBLES_SHOWN)
        line(cli, false, "and %d more: usagectl account list", n - TROUBLES_SHOWN);
    return ST_OK;
}

static enum status check_letters(struct cli *cli, struct err *err)
{
    PGresult *r;

    TRY(pg_query(cli->pg, &r, cli->arena,
                 "SELECT count(*) FROM dead_letters WHERE closed_at IS NULL", NULL, err));
    if (pg_int(r, 0, 0) > 0)
        line(cli, false,
             "dead letters: %s open: usagectl dead list, and after mending the reason usagectl "
             "dead replay ID --wait",
             PQgetvalue(r, 0, 0));
    return ST_OK;
}

static enum status check_ledger(struct cli *cli, struct err *err)
{
    bool sees = false;

    TRY(check_role(cli, &sees, err));
    if (!sees)
        return pg_commit(cli->pg, err);
    TRY(check_accounts(cli, err));
    TRY(check_trouble(cli, err));
    TRY(check_letters(cli, err));
    return pg_commit(cli->pg, err);
}

/* ---- stages ---- */

static void check_scheduler(struct cli *cli)
{
    struct control *control = NULL;
    const struct json *answer, *fetchers;
    struct err err = {0};
    enum status st = control_open(&control, &cli->cfg, &err);

    if (st == ST_OK)
        st = control_ask(control, &answer, cli->arena, control_request(cli->arena, "status", NULL),
                         DOCTOR_WAIT_US, &err);
    control_close(&control);
    if (st != ST_OK) {
        line(cli, false, "scheduler: %s", err.text);
        return;
    }
    line(cli, true, "scheduler: answers");
    if (json_is(json_member(answer, "paused"), JSON_TRUE))
        line(cli, false, "scheduler: it is paused: usagectl resume");
    fetchers = json_member(answer, "fetchers");
    if (fetchers && fetchers->n > 0)
        line(cli, true, "fetchers: %zu connected", (size_t)fetchers->n);
    else
        line(cli, false,
             "fetchers: none is connected: start uf-fetcher, with the scheduler's "
             "UF_RUN_DIR or UF_JOBS");
}

enum status cmd_doctor(struct cli *cli, const struct args *args, struct err *err)
{
    (void)args;
    if (!check_environment(cli))
        return ST_OK; /* all else depends on it */
    check_key(cli);
    check_run_dir(cli);
    if (check_database(cli) && check_ledger(cli, err) != ST_OK)
        line(cli, false, "database: %s", err->text);
    check_scheduler(cli);
    return ST_OK;
}
