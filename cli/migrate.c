/* migrate.c - brings the schema to this program's version: all of it in one transaction, or none.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/migrations.h"

static int newest(void)
{
    return n_migrations ? migrations[n_migrations - 1].version : 0;
}

/* Under a lock that ends with the transaction, so two at once wait for each other. */
static enum status schema_lock(struct cli *cli, struct err *err)
{
    struct pg_params p = {0};
    PGresult *r;

    TRY(pg_exec(cli->pg, "SET LOCAL lock_timeout = '300s'; SET LOCAL client_min_messages = warning",
                err));
    pg_param_text(&p, cli->cfg.schema);
    TRY(pg_query(cli->pg, NULL, NULL,
                 "SELECT pg_advisory_xact_lock(hashtext('usage-fetcher migrate'), hashtext($1))",
                 &p, err));
    TRY(pg_query(cli->pg, &r, cli->arena, "SELECT 1 FROM pg_namespace WHERE nspname = $1", &p,
                 err));
    if (PQntuples(r) > 0)
        return ST_OK;
    return pg_exec(cli->pg, arena_printf(cli->arena, "CREATE SCHEMA \"%s\"", cli->cfg.schema), err);
}

static enum status version_read(struct cli *cli, int64_t *out, struct err *err)
{
    PGresult *r;

    TRY(pg_query(cli->pg, &r, cli->arena, "SELECT to_regclass('schema_migrations') IS NOT NULL",
                 NULL, err));
    if (PQgetvalue(r, 0, 0)[0] != 't')
        TRY(pg_exec(cli->pg,
                    "CREATE TABLE schema_migrations (version integer PRIMARY KEY, name text NOT "
                    "NULL, applied_at timestamptz NOT NULL DEFAULT now()); "
                    "ALTER TABLE schema_migrations ENABLE ROW LEVEL SECURITY; "
                    "COMMENT ON TABLE schema_migrations IS 'The numbered files of db/ that have "
                    "been applied. Written by: usagectl migrate.'",
                    err));
    TRY(pg_query(cli->pg, &r, cli->arena, "SELECT max(version) FROM schema_migrations", NULL, err));
    *out = pg_int(r, 0, 0);
    if (*out > newest())
        return err_set(err, ST_FATAL,
                       "the schema is at version %" PRId64
                       " and this program knows only %d: use a newer program; nothing was changed",
                       *out, newest());
    return ST_OK;
}

static enum status apply(struct cli *cli, const struct migration *m, struct err *err)
{
    struct pg_params p = {0};

    if (pg_exec(cli->pg, m->sql, err) != ST_OK)
        return err_prefix(err, "migration %s was not applied, nothing was changed", m->name);
    pg_param_int(&p, cli->arena, m->version);
    pg_param_text(&p, m->name);
    return pg_query(cli->pg, NULL, NULL,
                    "INSERT INTO schema_migrations (version, name) VALUES ($1::integer, $2)", &p,
                    err);
}

static const char *const parts[] = {"scheduler", "writer", "gateway", "admin"};

/* Roles belong to the whole server, so a login may own a database and still not make them. */
static void roles_say(struct cli *cli, const PGresult *r)
{
    struct buf have = {.arena = cli->arena}, lack = {.arena = cli->arena};
    const char *first = NULL;

    for (int i = 0; i < PQntuples(r); i++) {
        const char *part = PQgetvalue(r, i, 0);

        if (PQgetvalue(r, i, 2)[0] == 't') {
            buf_printf(&have, "%s%s", have.len ? ", " : "", PQgetvalue(r, i, 1));
            continue;
        }
        buf_printf(&lack, "%sCREATE ROLE uf_%s NOLOGIN;", lack.len ? " " : "", part);
        first = first ? first : part;
    }
    if (have.len)
        (void)printf("roles: %s\n", have.at);
    if (lack.len)
        (void)printf("roles: this login may not make roles. Nothing is broken: the processes work "
                     "under a login that owns\nthe tables. To give each one only its part "
                     "(docs/security.md), have an administrator say\n  %s\nand run usagectl "
                     "migrate again; or name a role that is there: usagectl grant %s ROLE\n",
                     lack.at, first);
}

/* Says what a refusal for want of a right means here. */
static enum status refused(const struct cli *cli, enum status st, struct err *err)
{
    if (st == ST_OK || !cli->pg || strcmp(pg_sqlstate(cli->pg), "42501") != 0)
        return st;
    return err_prefix(err, "this takes the login that owns the tables (docs/security.md)");
}

static enum status migrate(struct cli *cli, struct err *err)
{
    int64_t version;
    size_t applied = 0;
    PGresult *roles;

    TRY(cli_database_any(cli, err));
    TRY(schema_lock(cli, err));
    TRY(version_read(cli, &version, err));
    for (size_t i = 0; i < n_migrations; i++) {
        if (migrations[i].version <= version)
            continue;
        TRY(apply(cli, &migrations[i], err));
        applied++;
    }
    TRY(pg_query(cli->pg, &roles, cli->arena, "SELECT part, roles, ready FROM role_setup()", NULL,
                 err));
    TRY(pg_commit(cli->pg, err));
    for (size_t i = 0; i < n_migrations; i++)
        if (migrations[i].version > version)
            (void)printf("applied %s\n", migrations[i].name);
    if (applied == 0)
        (void)printf("up to date (version %d)\n", newest());
    else
        (void)printf("schema \"%s\" is at version %d\n", cli->cfg.schema, newest());
    roles_say(cli, roles);
    return ST_OK;
}

enum status cmd_migrate(struct cli *cli, const struct args *args, struct err *err)
{
    (void)args;
    return refused(cli, migrate(cli, err), err);
}

static enum status grant(struct cli *cli, const char *part, const char *role, struct err *err)
{
    size_t n = sizeof(parts) / sizeof(parts[0]);
    struct pg_params p = {0};
    bool known = false;
    PGresult *r;

    for (size_t i = 0; i < n; i++)
        known = known || strcmp(part, parts[i]) == 0;
    if (!known)
        return err_set(err, ST_REJECT, "'%.60s' is no part of the pipeline: %s", part,
                       cli_suggest(cli->arena, part, parts, n));
    TRY(cli_database(cli, err));
    pg_param_text(&p, role);
    TRY(pg_query(cli->pg, &r, cli->arena, "SELECT 1 FROM pg_roles WHERE rolname = $1", &p, err));
    if (PQntuples(r) == 0)
        return err_set(err, ST_REJECT,
                       "this server has no role '%.60s': have an administrator say CREATE ROLE "
                       "(docs/security.md)",
                       role);
    TRY(schema_lock(cli, err));
    pg_param_text(&p, part);
    TRY(pg_query(cli->pg, NULL, NULL, "SELECT role_grant($2, $1::name)", &p, err));
    TRY(pg_commit(cli->pg, err));
    (void)printf("role %s may do what the %s does, and nothing else by this\n", role, part);
    return ST_OK;
}

enum status cmd_grant(struct cli *cli, const struct args *args, struct err *err)
{
    return refused(cli, grant(cli, args->words[0], args->words[1], err), err);
}
