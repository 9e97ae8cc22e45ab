/* migrate.c - brings the schema to this program's version: all of it in one transaction, or none.
 */
#include <inttypes.h>
#include <stdio.h>

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

enum status cmd_migrate(struct cli *cli, const struct args *args, struct err *err)
{
    int64_t version;
    size_t applied = 0;

    (void)args;
    TRY(cli_database_any(cli, err));
    TRY(schema_lock(cli, err));
    TRY(version_read(cli, &version, err));
    for (size_t i = 0; i < n_migrations; i++) {
        if (migrations[i].version <= version)
            continue;
        TRY(apply(cli, &migrations[i], err));
        applied++;
    }
    TRY(pg_commit(cli->pg, err));
    if (applied == 0) {
        (void)printf("up to date (version %d)\n", newest());
        return ST_OK;
    }
    for (size_t i = 0; i < n_migrations; i++)
        if (migrations[i].version > version)
            (void)printf("applied %s\n", migrations[i].name);
    (void)printf("schema \"%s\" is at version %d\n", cli->cfg.schema, newest());
    return ST_OK;
}
