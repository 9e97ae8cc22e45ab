/* usage.c - usage and cost: sums over usage_metrics, exact, grouped as asked. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "cli/cli.h"
#include "cli/table.h"
#include "common/clock.h"

/* A bucket's time on the clock of the zone asked for ($1). A figure for a whole day is a day of UTC
 * and keeps its date: no zone can divide it. */
#define LOCAL                                                                                      \
    "(CASE WHEN m.bucket_seconds >= 86400 THEN m.bucket_start AT TIME ZONE 'UTC' "                 \
    "ELSE m.bucket_start AT TIME ZONE $1 END)"

static const struct {
    const char *name, *sql;
} dimensions[] = {
    {"day", "to_char(" LOCAL ", 'YYYY-MM-DD')"},
    {"hour", "to_char(" LOCAL ", 'YYYY-MM-DD HH24:00')"},
    {"month", "to_char(" LOCAL ", 'YYYY-MM')"},
    {"account", "coalesce(a.name, '(removed ' || m.account_id || ')')"},
    {"provider", "m.provider"},
    {"feed", "m.feed"},
    {"project", "m.project_id"},
    {"user", "m.user_id"},
    {"key", "m.api_key_id"},
    {"model", "m.model"},
    {"line_item", "m.line_item"},
    {"tier", "m.service_tier"},
    {"batch", "m.batch::text"},
};
#define N_DIMENSIONS (sizeof(dimensions) / sizeof(dimensions[0]))

struct measure {
    const char *name, *heading, *sql;
    enum column_kind kind;
};

static const struct measure usage_measures[] = {
    {"input_tokens", "input", "sum(m.input_tokens)", COLUMN_COUNT},
    {"cached_input_tokens", "cached", "sum(m.cached_input_tokens)", COLUMN_COUNT},
    {"cache_write_tokens", "cache write", "sum(m.cache_write_tokens)", COLUMN_COUNT},
    {"input_audio_tokens", "audio in", "sum(m.input_audio_tokens)", COLUMN_COUNT},
    {"output_tokens", "output", "sum(m.output_tokens)", COLUMN_COUNT},
    {"output_audio_tokens", "audio out", "sum(m.output_audio_tokens)", COLUMN_COUNT},
    {"num_requests", "requests", "sum(m.num_requests)", COLUMN_COUNT},
    {"quantity", "quantity", "trim_scale(sum(m.quantity))", COLUMN_AMOUNT},
    {"quantity_unit", "unit", "m.quantity_unit", COLUMN_TEXT}, /* the last: grouped by */
};
static const struct measure cost_measures[] = {
    {"cost_amount", "cost", "trim_scale(sum(m.cost_amount))", COLUMN_AMOUNT},
    {"currency", "currency", "m.currency", COLUMN_TEXT},
};

struct report {
    const struct measure *measures;
    size_t n_measures;
    const char *which; /* rows that are meant */
    const char *by;    /* when none is asked for */
    bool whole_days;   /* the figures have no hours */
    enum table_format format;
    size_t dims[N_DIMENSIONS];
    size_t n_dims;
    const char *since_sql;   /* a timestamptz */
    const char *until_sql;   /* NULL: none */
    struct pg_params params; /* $1 zone, $2 since, $3 until, $4 account */
};

/* ---- what was typed ---- */

/* All of them, as the list is short; the nearest in front. */
static enum status by_unknown(struct arena *a, const char *word, const char *const *names,
                              struct err *err)
{
    const char *near = nearest_word(word, names, N_DIMENSIONS);

    return err_set(err, ST_REJECT, "--by '%.40s': %s%s%s%s", word, near ? "did you mean " : "",
                   near ? near : "", near ? "? " : "", cli_suggest(a, NULL, names, N_DIMENSIONS));
}

static enum status by_parse(struct report *rep, struct arena *a, const char *by, struct err *err)
{
    const char *names[N_DIMENSIONS];
    char *list = arena_copy(a, by, strlen(by));
    char *rest = list;

    for (size_t i = 0; i < N_DIMENSIONS; i++)
        names[i] = dimensions[i].name;
    for (char *word; (word = strsep(&rest, ","));) {
        size_t i = 0;

        word += strspn(word, " ");
        word[strcspn(word, " ")] = '\0';
        while (i < N_DIMENSIONS && strcmp(names[i], word) != 0)
            i++;
        if (i == N_DIMENSIONS)
            return by_unknown(a, word, names, err);
        for (size_t k = 0; k < rep->n_dims; k++)
            if (rep->dims[k] == i)
                return err_set(err, ST_REJECT, "--by: %s is there twice", names[i]);
        if (rep->whole_days && strcmp(names[i], "hour") == 0)
            return err_set(err, ST_REJECT, "cost comes by whole days: use --by day");
        rep->dims[rep->n_dims++] = i;
    }
    return ST_OK;
}

static enum status zone_check(struct cli *cli, const char **zone, struct err *err)
{
    const char *near;
    PGresult *r;

    if (!*zone || strcmp(*zone, "UTC") == 0) {
        *zone = "UTC";
        return ST_OK;
    }
    TRY(pg_query(cli->pg, &r, cli->arena, "SELECT name FROM pg_timezone_names ORDER BY name", NULL,
                 err));
    for (int i = 0; i < PQntuples(r); i++)
        if (strcasecmp(PQgetvalue(r, i, 0), *zone) == 0) {
            *zone = PQgetvalue(r, i, 0);
            return ST_OK;
        }
    near = cli_nearest_row(r, 0, cli->arena, *zone);
    return err_set(err, ST_REJECT, "--tz %.60s: %s", *zone,
                   near ? arena_printf(cli->arena, "did you mean %s?", near)
                        : "write a name as Europe/Berlin or America/New_York");
}

/* "2026-11-01", "today" and "yesterday" are days of the zone asked for; moments are moments. */
static enum status moment(const char **sql, struct pg_params *p, struct arena *a,
                          const char *option, const char *typed, struct err *err)
{
    char text[TIME_TEXT_MAX];
    int place = p->n + 1;
    int64_t us;

    if (time_parse_since(&us, text_of(typed), clock_utc_us(), err) != ST_OK)
        return err_prefix(err, "--%s", option);
    if (strcmp(typed, "today") == 0 || strcmp(typed, "yesterday") == 0) {
        pg_param_text(p, typed[0] == 't' ? "0 days" : "1 day");
        *sql = arena_printf(a,
                            "((date_trunc('day', now() AT TIME ZONE $1) - $%d::interval) AT TIME "
                            "ZONE $1)",
                            place);
    } else if (strlen(typed) == strlen("2026-11-01") && typed[4] == '-') {
        pg_param_text(p, typed);
        *sql = arena_printf(a, "($%d::timestamp AT TIME ZONE $1)", place);
    } else {
        pg_param_text(p, arena_printf(a, "%s", time_format(text, us)));
        *sql = arena_printf(a, "$%d::timestamptz", place);
    }
    return ST_OK;
}

static enum status span_parse(struct report *rep, struct arena *a, const struct args *args,
                              struct err *err)
{
    if (cli_has(args, OPT_SINCE)) {
        TRY(moment(&rep->since_sql, &rep->params, a, "since", args->values[OPT_SINCE], err));
    } else {
        /* thirty days of the calendar, today among them */
        rep->since_sql = "((date_trunc('day', now() AT TIME ZONE $1) - interval '29 days') AT TIME "
                         "ZONE $1)";
    }
    if (cli_has(args, OPT_UNTIL))
        TRY(moment(&rep->until_sql, &rep->params, a, "until", args->values[OPT_UNTIL], err));
    return ST_OK;
}

/* ---- the query ---- */

static bool by_feed(const struct report *rep)
{
    for (size_t i = 0; i < rep->n_dims; i++)
        if (strcmp(dimensions[rep->dims[i]].name, "feed") == 0)
            return true;
    return false;
}

static const char *report_sql(struct report *rep, struct arena *a, const char *account)
{
    const char *unit = rep->measures[rep->n_measures - 1].sql;
    struct buf b = {.arena = a};

    buf_str(&b, "SELECT ");
    for (size_t i = 0; i < rep->n_dims; i++)
        buf_printf(&b, "%s, ", dimensions[rep->dims[i]].sql);
    for (size_t i = 0; i < rep->n_measures; i++)
        buf_printf(&b, "%s, ", rep->measures[i].sql);
    buf_printf(&b,
               "count(*) FROM usage_metrics m LEFT JOIN accounts a USING (account_id) WHERE %s "
               /* whole partitions are left out by this one; the exact bound follows */
               "AND m.bucket_start >= %s - interval '2 days' "
               "AND CASE WHEN m.bucket_seconds < 86400 THEN m.bucket_start >= %s ELSE "
               "m.bucket_start AT TIME ZONE 'UTC' >= date_trunc('day', %s AT TIME ZONE $1) END ",
               rep->which, rep->since_sql, rep->since_sql, rep->since_sql);
    if (rep->until_sql)
        buf_printf(&b,
                   "AND CASE WHEN m.bucket_seconds < 86400 THEN m.bucket_start < %s ELSE "
                   "m.bucket_start AT TIME ZONE 'UTC' < %s AT TIME ZONE $1 END ",
                   rep->until_sql, rep->until_sql);
    if (!by_feed(rep))
        buf_str(&b, "AND NOT feed_repeats(m.provider, m.feed) ");
    if (account) {
        pg_param_text(&rep->params, account);
        buf_printf(&b, "AND a.name = $%d ", rep->params.n);
    }
    for (size_t i = 0; i < rep->n_dims; i++)
        if (strcmp(dimensions[rep->dims[i]].name, "hour") == 0)
            buf_str(&b, "AND m.bucket_seconds <= 3600 "); /* a day's figure has no hour */
    buf_str(&b, "GROUP BY ");
    for (size_t i = 0; i < rep->n_dims; i++)
        buf_printf(&b, "%zu, ", i + 1);
    buf_printf(&b, "%s ORDER BY ", unit);
    for (size_t i = 0; i < rep->n_dims; i++)
        buf_printf(&b, "%zu, ", i + 1);
    buf_str(&b, unit);
    return b.at;
}

static bool all_null(const PGresult *r, int col)
{
    for (int row = 0; row < PQntuples(r); row++)
        if (!PQgetisnull(r, row, col))
            return false;
    return true;
}

static void report_print(const struct report *rep, struct arena *a, const PGresult *r)
{
    bool table = rep->format == FORMAT_TABLE, shown[TABLE_COLUMNS_MAX] = {false};
    int n = PQnfields(r);
    struct table t;

    table_open(&t, a);
    for (int col = 0; col < n; col++) {
        size_t i = (size_t)col;

        shown[col] = true;
        if (i < rep->n_dims) {
            table_column(&t, dimensions[rep->dims[i]].name, COLUMN_TEXT);
        } else if (col + 1 == n) {
            table_column(&t, "rows", COLUMN_COUNT);
        } else {
            const struct measure *m = &rep->measures[i - rep->n_dims];

            shown[col] = !table || !all_null(r, col); /* for people, nothing that is not there */
            if (shown[col])
                table_column(&t, table ? m->heading : m->name, m->kind);
        }
    }
    for (int row = 0; row < PQntuples(r); row++)
        for (int col = 0; col < n; col++)
            if (shown[col])
                table_cell(&t, pg_text(r, row, col));
    table_print(&t, rep->format, stdout);
}

/* Which time the figures cover. Its parameters are those of the report without the account. */
static enum status span_print(struct cli *cli, const struct report *rep, const struct pg_params *p,
                              struct err *err)
{
    PGresult *r;

    TRY(pg_query(cli->pg, &r, cli->arena,
                 arena_printf(cli->arena,
                              "SELECT to_char(%s AT TIME ZONE $1, 'YYYY-MM-DD HH24:MI'), "
                              "to_char(%s AT TIME ZONE $1, 'YYYY-MM-DD HH24:MI')",
                              rep->since_sql, rep->until_sql ? rep->until_sql : "now()"),
                 p, err));
    (void)printf("(%s to %s, %s; other times: --since, --until)\n", PQgetvalue(r, 0, 0),
                 rep->until_sql ? PQgetvalue(r, 0, 1) : "now", p->values[0]);
    return ST_OK;
}

static enum status report(struct cli *cli, const struct args *args, struct report *rep,
                          struct err *err)
{
    const char *by = args->values[OPT_BY], *zone = args->values[OPT_TZ];
    const char *account = args->values[OPT_ACCOUNT], *sql;
    struct pg_params span;
    PGresult *r;

    TRY(table_format_parse(&rep->format, cli->arena, args->values[OPT_FORMAT], err));
    TRY(by_parse(rep, cli->arena, by ? by : rep->by, err));
    TRY(cli_database(cli, err));
    TRY(zone_check(cli, &zone, err));
    pg_param_text(&rep->params, zone);
    TRY(span_parse(rep, cli->arena, args, err));
    if (account)
        TRY(cli_account_known(cli, account, err));
    span = rep->params;
    sql = report_sql(rep, cli->arena, account);
    TRY(pg_query(cli->pg, &r, cli->arena, sql, &rep->params, err));
    if (rep->format != FORMAT_TABLE) {
        report_print(rep, cli->arena, r);
        return ST_OK;
    }
    if (PQntuples(r) == 0)
        (void)puts("no figures");
    else
        report_print(rep, cli->arena, r);
    return span_print(cli, rep, &span, err);
}

enum status cmd_usage(struct cli *cli, const struct args *args, struct err *err)
{
    struct report rep = {.measures = usage_measures,
                         .n_measures = sizeof(usage_measures) / sizeof(usage_measures[0]),
                         .which = "m.cost_amount IS NULL",
                         .by = "feed,model"};

    return report(cli, args, &rep, err);
}

enum status cmd_cost(struct cli *cli, const struct args *args, struct err *err)
{
    struct report rep = {.measures = cost_measures,
                         .n_measures = sizeof(cost_measures) / sizeof(cost_measures[0]),
                         .which = "m.cost_amount IS NOT NULL",
                         .by = "month,account",
                         .whole_days = true};

    return report(cli, args, &rep, err);
}

/* The last thirty days account by account: what `make run` shows of its first cycle. */
enum status cmd_summary(struct cli *cli, const struct args *args, struct err *err)
{
    static const struct {
        const char *name;
        enum column_kind kind;
    } columns[] = {{"account", COLUMN_TEXT},   {"state", COLUMN_TEXT},  {"rows", COLUMN_COUNT},
                   {"requests", COLUMN_COUNT}, {"input", COLUMN_COUNT}, {"output", COLUMN_COUNT},
                   {"cost", COLUMN_AMOUNT}};
    struct table t;
    PGresult *r;

    (void)args;
    TRY(cli_database(cli, err));
    TRY(pg_query(cli->pg, &r, cli->arena,
                 "WITH f AS (SELECT account_id, currency, count(*) AS n, sum(num_requests) AS "
                 "requests, sum(input_tokens) FILTER (WHERE once) AS input, sum(output_tokens) "
                 "FILTER (WHERE once) AS output, sum(cost_amount) AS cost FROM (SELECT *, NOT "
                 "feed_repeats(provider, feed) AS once FROM usage_metrics WHERE bucket_start >= "
                 "now() - interval '30 days') m GROUP BY 1, 2) "
                 "SELECT h.account, h.state, coalesce(sum(f.n), 0), sum(f.requests), sum(f.input), "
                 "sum(f.output), string_agg(trim_scale(f.cost) || ' ' || f.currency, ', ' ORDER BY "
                 "f.currency) FROM account_health h LEFT JOIN f USING (account_id) "
                 "GROUP BY h.account, h.state ORDER BY 3 DESC, 1 LIMIT 40",
                 NULL, err));
    table_open(&t, cli->arena);
    for (size_t i = 0; i < sizeof(columns) / sizeof(columns[0]); i++)
        table_column(&t, columns[i].name, columns[i].kind);
    for (int row = 0; row < PQntuples(r); row++)
        for (int col = 0; col < PQnfields(r); col++)
            table_cell(&t, pg_text(r, row, col));
    table_print(&t, FORMAT_TABLE, stdout);
    return ST_OK;
}
