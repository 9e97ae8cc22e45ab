/* database.c - what the commands share: the connection, names of accounts, the sealing key, files.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

/* pg_begin's limits and planner settings are those of the pipeline, which touches few rows and must
 * not wait; a report may read a whole table, and takes its time. */
static const char report_sql[] =
    "SET LOCAL statement_timeout = '300s'; SET LOCAL enable_hashjoin = on; "
    "SET LOCAL enable_mergejoin = on; SET LOCAL enable_seqscan = on";
#define REPORT_WAIT_US (INT64_C(310) * 1000000)

enum status cli_database_any(struct cli *cli, struct err *err)
{
    if (!cli->pg) {
        TRY(config_need_database(&cli->cfg, err));
        pg_open(&cli->pg, cli->cfg.database_url, cli->cfg.schema, "usagectl");
        pg_wait_limit(cli->pg, REPORT_WAIT_US);
    }
    if (pg_connect(cli->pg, err) != ST_OK)
        return err_prefix(err, "%s", database_url_redacted(cli->arena, cli->cfg.database_url));
    TRY(pg_begin(cli->pg, err));
    return pg_exec(cli->pg, report_sql, err);
}

enum status cli_database(struct cli *cli, struct err *err)
{
    TRY(cli_database_any(cli, err));
    return pg_check_schema(cli->pg, err);
}

enum status cli_sealer(struct cli *cli, struct err *err)
{
    if (cli->sealer)
        return ST_OK;
    if (cli->cfg.encryption_key.len == 0)
        return err_set(err, ST_FATAL,
                       "ENCRYPTION_KEY is not set: make one with \"usagectl keygen\" and give the "
                       "same to the fetchers");
    return sealer_open(&cli->sealer, &cli->cfg.encryption_key, &cli->cfg.encryption_key_old, err);
}

const char *cli_nearest_row(const PGresult *rows, int column, struct arena *a, const char *word)
{
    int n = PQntuples(rows);
    const char **names = ARENA_ARRAY(a, (size_t)n + 1, const char *);

    for (int i = 0; i < n; i++)
        names[i] = PQgetvalue(rows, i, column);
    return nearest_word(word, names, (size_t)n);
}

enum status cli_account_known(struct cli *cli, const char *name, struct err *err)
{
    struct pg_params p = {0};
    const char *near;
    PGresult *r;

    pg_param_text(&p, name);
    TRY(pg_query(cli->pg, &r, cli->arena, "SELECT 1 FROM accounts WHERE name = $1", &p, err));
    if (PQntuples(r) > 0)
        return ST_OK;
    /* of a great many accounts those that begin alike suffice */
    TRY(pg_query(cli->pg, &r, cli->arena,
                 "SELECT name FROM accounts ORDER BY left(lower(name), 1) <> left(lower($1), 1), "
                 "name LIMIT 20000",
                 &p, err));
    if (PQntuples(r) == 0)
        return err_set(err, ST_REJECT,
                       "there is no account '%.100s', nor any other: usagectl account add %.100s "
                       "--provider P",
                       name, name);
    near = cli_nearest_row(r, 0, cli->arena, name);
    if (near)
        return err_set(err, ST_REJECT, "there is no account '%.100s': did you mean %s?", name,
                       near);
    return err_set(err, ST_REJECT,
                   "there is no account '%.100s': usagectl account list shows the names", name);
}

static enum status read_all(struct buf *b, FILE *f, const char *path, size_t max, struct err *err)
{
    char chunk[65536];
    size_t n;

    while ((n = fread(chunk, 1, sizeof(chunk), f)) > 0) {
        if (b->len + n > max)
            return err_set(err, ST_REJECT, "%s is longer than %zu bytes", path, max);
        buf_append(b, chunk, n);
    }
    explicit_bzero(chunk, sizeof(chunk)); /* it may have been a key */
    if (ferror(f))
        return err_set(err, ST_REJECT, "can not read %s: %s", path, strerror(errno));
    return ST_OK;
}

enum status cli_read_file(struct text *out, struct arena *a, const char *path, size_t max,
                          struct err *err)
{
    struct buf b = {.arena = a};
    bool is_stdin = strcmp(path, "-") == 0;
    FILE *f = is_stdin ? stdin : fopen(path, "re");
    enum status st;

    if (!f)
        return err_set(err, ST_REJECT, "can not read %s: %s", path, strerror(errno));
    buf_str(&b, "");
    st = read_all(&b, f, is_stdin ? "standard input" : path, max, err);
    if (!is_stdin)
        (void)fclose(f);
    *out = (struct text){b.at, b.len};
    return st;
}
