/* revisions.c - what the providers changed in buckets that had been complete. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/table.h"
#include "common/clock.h"
#include "common/decimal.h"
#include "common/providers/provider.h"

#define LIMIT_DEFAULT 100
#define LIMIT_MAX     1000000

/* Every provider's feeds, each once: an account may not be given, and revisions outlive it. */
static enum status feed_known(struct cli *cli, const char *feed, struct err *err)
{
    const char *names[128];
    size_t n = 0;

    for (size_t i = 0; i < n_providers; i++) {
        if (feed_find(providers[i], text_of(feed)))
            return ST_OK;
        for (size_t k = 0; k < providers[i]->n_feeds && n < 128; k++)
            names[n++] = providers[i]->feeds[k].name;
    }
    return err_set(err, ST_REJECT, "there is no feed '%.60s': %s", feed,
                   cli_suggest(cli->arena, feed, names, n));
}

static enum status limit_parse(int64_t *out, const char *typed, struct err *err)
{
    if (!typed) /* *out stands */
        return ST_OK;
    if (int64_parse(out, text_of(typed), err) != ST_OK || *out < 1 || *out > LIMIT_MAX)
        return err_set(err, ST_REJECT, "--limit '%.40s': a whole number from 1 to %d", typed,
                       LIMIT_MAX);
    return ST_OK;
}

/* $1 since, $2 account, $3 feed, $4 one more than the limit. For people: which row it is, and of
 * its figures those that differ. */
static const char select_table[] =
    "SELECT to_char(v.revised_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'), "
    "coalesce(a.name, '(removed ' || v.account_id || ')'), v.feed, "
    "to_char(v.bucket_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'), "
    "concat_ws(', ', w.r->>'model', w.r->>'line_item', w.r->>'project_id'), v.change, "
    "(SELECT string_agg(key || ': ' || coalesce(o.value, '-') || ' -> ' || coalesce(n.value, '-'), "
    "', ' ORDER BY key) FROM jsonb_each_text(v.old_row) o FULL JOIN jsonb_each_text(v.new_row) n "
    "USING (key) WHERE o.value IS DISTINCT FROM n.value AND key <> ALL ('{project_id,user_id,"
    "api_key_id,model,service_tier,batch,line_item,dims}'::text[])), v.job_id ";
/* For programs: all of both rows. */
static const char select_whole[] =
    "SELECT to_char(v.revised_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), "
    "coalesce(a.name, '(removed ' || v.account_id || ')'), v.provider, v.feed, "
    "to_char(v.bucket_start AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), "
    "v.bucket_seconds, v.change, v.old_row, v.new_row, v.row_key, v.job_id ";
static const char from_where[] =
    "FROM usage_revisions v LEFT JOIN accounts a USING (account_id), "
    "LATERAL (SELECT coalesce(v.new_row, v.old_row) AS r) w "
    "WHERE v.revised_at >= $1::timestamptz AND ($2::text IS NULL OR a.name = $2) "
    "AND ($3::text IS NULL OR v.feed = $3) "
    "ORDER BY v.revised_at DESC, v.revision_id DESC LIMIT $4::bigint";

static enum status revisions_load(PGresult **out, struct cli *cli, const struct args *args,
                                  enum table_format format, int64_t limit, struct err *err)
{
    const char *account = args->values[OPT_ACCOUNT], *feed = args->values[OPT_FEED];
    const char *since = cli_has(args, OPT_SINCE) ? args->values[OPT_SINCE] : "30d";
    struct pg_params p = {0};
    char text[TIME_TEXT_MAX];
    int64_t since_us;

    if (time_parse_since(&since_us, text_of(since), clock_utc_us(), err) != ST_OK)
        return err_prefix(err, "--since");
    if (feed)
        TRY(feed_known(cli, feed, err));
    TRY(cli_database(cli, err));
    if (account)
        TRY(cli_account_known(cli, account, err));
    pg_param_text(&p, time_format(text, since_us));
    pg_param_text(&p, account);
    pg_param_text(&p, feed);
    pg_param_int(&p, cli->arena, limit + 1);
    return pg_query(cli->pg, out, cli->arena,
                    arena_printf(cli->arena, "%s%s",
                                 format == FORMAT_TABLE ? select_table : select_whole, from_where),
                    &p, err);
}

enum status cmd_revisions(struct cli *cli, const struct args *args, struct err *err)
{
    static const char *const headings[] = {"seen (UTC)", "account", "feed",         "bucket (UTC)",
                                           "row",        "change",  "what differs", "job"};
    static const char *const names[] = {"revised_at",   "account",        "provider", "feed",
                                        "bucket_start", "bucket_seconds", "change",   "old_row",
                                        "new_row",      "row_key",        "job_id"};
    enum table_format format;
    struct table t;
    PGresult *r = NULL;
    int64_t limit = LIMIT_DEFAULT;
    int n;

    TRY(table_format_parse(&format, cli->arena, args->values[OPT_FORMAT], err));
    TRY(limit_parse(&limit, args->values[OPT_LIMIT], err));
    TRY(revisions_load(&r, cli, args, format, limit, err));
    n = PQntuples(r) > limit ? (int)limit : PQntuples(r);
    if (n == 0 && format == FORMAT_TABLE) {
        (void)puts("no revisions (other times: --since)");
        return ST_OK;
    }
    table_open(&t, cli->arena);
    for (int col = 0; col < PQnfields(r); col++) {
        const char *name = format == FORMAT_TABLE ? headings[col] : names[col];
        table_column(&t, name, strcmp(name, "bucket_seconds") == 0 ? COLUMN_COUNT : COLUMN_TEXT);
    }
    for (int row = 0; row < n; row++)
        for (int col = 0; col < PQnfields(r); col++)
            table_cell(&t, pg_text(r, row, col));
    table_print(&t, format, stdout);
    if (n < PQntuples(r)) /* not into the figures: a program reads those */
        (void)fprintf(stderr, "the newest %d; there are more: --limit\n", n);
    return ST_OK;
}
