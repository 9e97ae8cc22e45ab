#include "gateway/sums.h"

/* Without the time. `@` is the table's alias. */
#define NARROW_COLUMNS                                                                             \
    "@.provider, @.feed, @.model, @.quantity_unit, @.currency, @.input_tokens, "                   \
    "@.cached_input_tokens, @.cache_write_tokens, @.input_audio_tokens, @.output_audio_tokens, "   \
    "@.output_tokens, @.num_requests, @.quantity, @.cost_amount"
#define SHARED_COLUMNS  NARROW_COLUMNS ", @.service_tier, @.batch, @.line_item"
#define ACCOUNT_COLUMNS "@.account_id, " NARROW_COLUMNS
#define ALL_COLUMNS     "@.account_id, @.project_id, @.user_id, @.api_key_id, " SHARED_COLUMNS

/* When the figures of a table begin, and which of them stand for a whole day: a day of UTC, which
 * no zone can divide. SQL. */
struct times {
    const char *start, *whole_day;
};
static const struct times of_rows = {"m.bucket_start", "m.bucket_seconds >= 86400"};
static const struct times of_slots = {"u.slot", "u.whole_day"};

/* The accounts as an array, which an index can take. */
#define CHOSEN "ANY (ARRAY(SELECT account_id FROM chosen))"
#define VALID  "(SELECT valid FROM usage_summed)"

/* No zone's clock is off by less than a quarter of an hour. */
static bool slots_serve(const struct source *src)
{
    return src->together && src->span->by_days;
}

/* Every day of UTC is cut. */
static bool all_cut(const struct source *src)
{
    return src->by_hour || (src->by_day && src->zoned);
}

static bool rows_only(const struct source *src)
{
    return all_cut(src) && !slots_serve(src);
}

static bool by_account(const struct source *src)
{
    return params_has(src->params, "account");
}

static const char *columns(const struct source *src)
{
    if (slots_serve(src))
        return src->narrow ? NARROW_COLUMNS : SHARED_COLUMNS;
    return src->narrow ? ACCOUNT_COLUMNS : ALL_COLUMNS;
}

static const char *days_table(const struct source *src)
{
    return src->narrow ? "usage_account_days u" : "usage_days u";
}

static const char *months_table(const struct source *src)
{
    return src->narrow ? "usage_account_months u" : "usage_months u";
}

/* SQL dates: the first day of UTC that lies in the span as a whole, and the day after the last. */
static const char *first_day(const struct source *src, struct arena *a)
{
    return arena_printf(a,
                        "date_trunc('day', %s AT TIME ZONE 'UTC' + interval '1 day' - interval '1 "
                        "microsecond')::date",
                        src->span->from);
}

static const char *end_day(const struct source *src, struct arena *a)
{
    return src->span->to ? arena_printf(a, "(%s AT TIME ZONE 'UTC')::date", src->span->to)
                         : "'infinity'::date";
}

/* Whether a day that the end of the span cuts is looked at: it often is today, and nothing of it
 * lies behind the end. */
static bool end_is_known(const struct source *src)
{
    return src->span->to && src->span->by_days && !all_cut(src);
}

/* The day after the last one whose sums serve. */
static const char *stop_day(const struct source *src, struct arena *a)
{
    return end_is_known(src) ? "(SELECT day FROM stop)" : end_day(src, a);
}

/* ---- WITH ---- */

/* The day that the end cuts serves as well where nothing of it begins at the end or later, and its
 * figures for the whole day belong to the span. What of it is not summed up is read from rows. */
static void stop_write(const struct source *src, struct sql *s)
{
    const char *end = end_day(src, s->arena), *to = src->span->to;
    const char *late = arena_printf(s->arena,
                                    "SELECT FROM usage_account_days l WHERE l.day = %s AND "
                                    "l.last_start >= %s AND l.cost_amount",
                                    end, to);

    buf_printf(&s->text,
               ", stop AS MATERIALIZED (SELECT CASE WHEN %s AT TIME ZONE %s > %s AND NOT EXISTS "
               "(%s IS NULL) AND NOT EXISTS (%s IS NOT NULL) THEN %s + 1 ELSE %s END AS day)",
               to, src->span->zone, end, late, late, end, end);
}

/* The days of UTC that no sum over a day serves: at the ends of the span, unless it begins and ends
 * with days of UTC, and where a day's hours belong to two groups. A span that begins with a day of
 * a zone cuts one day at each end, any other also the day whose figure is for the whole of it. */
static void cut_days_write(const struct source *src, struct sql *s)
{
    const char *first = first_day(src, s->arena), *end = end_day(src, s->arena);
    const struct span_sql *span = src->span;
    int reach = span->by_days ? 1 : 2;
    struct buf *b = &s->text;

    /* without an end: to the last day of which anything is known */
    buf_printf(b,
               ", cut_days AS MATERIALIZED (SELECT d.day::date AS day FROM generate_series((%s - "
               "%d)::timestamp, least(%s + %d, (SELECT greatest((SELECT max(day) FROM "
               "usage_unsummed_days), (SELECT max(day) FROM usage_open_days), (SELECT max(day) "
               "FROM usage_totals WHERE cost_amount IS NULL), (SELECT max(day) FROM usage_totals "
               "WHERE cost_amount IS NOT NULL), 'epoch')))::timestamp, '1 day') AS d (day) WHERE ",
               first, reach, end, reach - 1);
    if (all_cut(src)) {
        buf_str(b, "true)");
        return;
    }
    buf_printf(b, "d.day < %s AND %s AT TIME ZONE 'UTC' <> date_trunc('day', %s AT TIME ZONE %s)",
               first, span->from, span->from, span->zone);
    if (span->to)
        buf_printf(b,
                   " OR d.day >= %s AND (%s AT TIME ZONE 'UTC' <> %s OR %s AT TIME ZONE %s > %s)",
                   stop_day(src, s->arena), span->to, end, span->to, span->zone, end);
    if (src->by_month && src->zoned)
        buf_printf(b,
                   " OR date_trunc('month', d.day AT TIME ZONE 'UTC' AT TIME ZONE %s) <> "
                   "date_trunc('month', (d.day + interval '1 day' - interval '1 microsecond') AT "
                   "TIME ZONE 'UTC' AT TIME ZONE %s)",
                   span->zone, span->zone);
    buf_str(b, ")");
}

/* " UNION SELECT account_id, day": the accounts that have sums of the days that `chosen` selects.
 * The indexes on days are one for usage and one for costs. */
static void summed_accounts(const struct source *src, struct buf *b, const char *chosen)
{
    static const char *const kinds[] = {"IS NULL", "IS NOT NULL"};

    for (size_t i = 0; i < 2; i++) {
        buf_printf(b,
                   " UNION SELECT d.account_id, d.day FROM usage_account_days d WHERE d.day = ANY "
                   "(ARRAY(%s)) AND d.cost_amount %s",
                   chosen, kinds[i]);
        if (by_account(src))
            buf_str(b, " AND d.account_id = " CHOSEN);
    }
}

/* Whole months that are summed up: [m0, m1), empty where there is none. */
static void months_write(const struct source *src, struct sql *s)
{
    const char *first = first_day(src, s->arena), *end = end_day(src, s->arena);
    struct buf *b = &s->text;

    buf_printf(b,
               ", bounds AS MATERIALIZED (SELECT m0, greatest(m0, m1) AS m1 FROM (SELECT "
               "date_trunc('month', %s + interval '1 month' - interval '1 day')::date AS m0, "
               "least(date_trunc('month', %s)::date, months_until) AS m1 FROM usage_summed) b",
               first, end);
    if (src->priced)
        buf_str(b, " WHERE NOT EXISTS (SELECT FROM model_prices p WHERE p.valid_from > m0 AND "
                   "p.valid_from < m1 AND extract(day FROM p.valid_from) <> 1)");
    buf_str(b, "), open_months AS MATERIALIZED (SELECT DISTINCT u.account_id, date_trunc('month', "
               "u.day)::date AS month FROM unsummed u, bounds b WHERE u.day >= b.m0 AND u.day < "
               "b.m1)");
}

/* No month serves: its days are told apart, or are not those of UTC. */
static bool days_only(const struct source *src)
{
    return src->by_day || (src->by_month && src->zoned);
}

void source_with(const struct source *src, struct sql *s)
{
    const char *first, *end;
    struct buf *b = &s->text;

    if (rows_only(src) && !by_account(src))
        return;
    buf_str(b, "WITH chosen AS MATERIALIZED (SELECT a.account_id FROM accounts a WHERE true");
    sql_filter(s, src->params, "account", "a.name");
    buf_str(b, ")");
    if (rows_only(src)) {
        buf_str(b, " ");
        return;
    }
    first = first_day(src, s->arena);
    end = end_day(src, s->arena);
    buf_printf(b,
               ", changed AS MATERIALIZED (SELECT d.account_id, d.day FROM usage_unsummed_days d "
               "WHERE d.day >= %s - 2 AND d.day < %s + 2",
               first, end);
    if (by_account(src))
        buf_str(b, " AND d.account_id = " CHOSEN);
    buf_str(b, ")");
    if (end_is_known(src))
        stop_write(src, s);
    cut_days_write(src, s);
    if (slots_serve(src))
        buf_printf(b,
                   ", open_days AS MATERIALIZED (SELECT day FROM changed UNION SELECT day FROM "
                   "usage_open_days WHERE day >= %s - 2 AND day < %s + 2)",
                   first, end);
    buf_str(b, ", unsummed AS MATERIALIZED (SELECT account_id, day FROM changed");
    summed_accounts(src, b,
                    slots_serve(src)
                        ? "SELECT day FROM cut_days INTERSECT SELECT day FROM open_days"
                        : "SELECT day FROM cut_days");
    buf_str(b, ")");
    if (!slots_serve(src) && !days_only(src))
        months_write(src, s);
    buf_str(b, " ");
}

/* ---- FROM ---- */

/* "SELECT local, ...": the start on the clock of the zone. A figure for a whole day keeps its date.
 */
static void select_write(const struct source *src, struct buf *b, const struct times *t,
                         const char *table)
{
    buf_printf(b,
               "SELECT CASE WHEN %s THEN %s AT TIME ZONE 'UTC' ELSE %s AT TIME ZONE %s END AS "
               "local, ",
               t->whole_day, t->start, t->start, src->span->zone);
    sql_expand(b, columns(src), table);
}

/* What lies in the span. Days near it are chosen first, by plain bounds that an index and the table
 * of partitions can take; the exact ones follow. */
static void span_where(const struct source *src, struct buf *b, const struct times *t)
{
    const struct span_sql *span = src->span;

    buf_printf(b,
               "%s >= %s - interval '2 days' AND CASE WHEN %s THEN %s AT TIME ZONE 'UTC' >= "
               "date_trunc('day', %s AT TIME ZONE %s) ELSE %s >= %s END",
               t->start, span->from, t->whole_day, t->start, span->from, span->zone, t->start,
               span->from);
    if (span->to)
        buf_printf(b,
                   " AND %s < %s + interval '2 days' AND CASE WHEN %s THEN %s AT TIME ZONE 'UTC' < "
                   "%s AT TIME ZONE %s ELSE %s < %s END",
                   t->start, span->to, t->whole_day, t->start, span->to, span->zone, t->start,
                   span->to);
    if (src->by_hour)
        buf_printf(b, " AND NOT (%s)", t->whole_day);
}

static void rows_select(const struct source *src, struct buf *b)
{
    select_write(src, b, &of_rows, "m");
    buf_str(b, ", 1::bigint AS rows FROM usage_metrics m WHERE ");
    span_where(src, b, &of_rows);
}

/* One branch over sums: `where` chooses its days or months. */
static void sums_select(const struct source *src, struct buf *b, const char *day, const char *table,
                        const char *where)
{
    buf_printf(b, "SELECT u.%s::timestamp AS local, ", day);
    sql_expand(b, columns(src), "u");
    buf_printf(b, ", u.rows FROM %s WHERE " VALID " AND %s", table, where);
    if (by_account(src))
        buf_str(b, " AND u.account_id = " CHOSEN);
    buf_str(b, " UNION ALL ");
}

/* NOT IN: a hash of what is left out, whatever the planner thinks of the bounds. */
#define SUMMED      " AND (u.account_id, u.day) NOT IN (SELECT account_id, day FROM unsummed)"
#define MONTHS_FROM "(SELECT m0 FROM bounds)"
#define MONTHS_TO   "(SELECT m1 FROM bounds)"

static void summed_write(const struct source *src, struct sql *s)
{
    const char *first = first_day(src, s->arena), *stop = stop_day(src, s->arena);
    const char *days = days_table(src);
    struct buf *b = &s->text;

    if (days_only(src)) {
        sums_select(src, b, "day", days,
                    arena_printf(s->arena, "u.day >= %s AND u.day < %s" SUMMED, first, stop));
        return;
    }
    sums_select(src, b, "month", months_table(src),
                "u.month >= " MONTHS_FROM " AND u.month < " MONTHS_TO
                " AND (u.account_id, u.month) NOT IN (SELECT account_id, month FROM open_months)");
    /* where no month is whole, both lie within [first, stop) and meet */
    sums_select(src, b, "day", days,
                arena_printf(s->arena,
                             "u.day >= %s AND u.day < %s AND u.day < coalesce(" MONTHS_FROM
                             ", 'infinity')" SUMMED,
                             first, stop));
    sums_select(src, b, "day", days,
                arena_printf(s->arena,
                             "u.day >= %s AND u.day >= " MONTHS_TO " AND u.day < %s" SUMMED, first,
                             stop));
    sums_select(src, b, "day",
                arena_printf(s->arena,
                             "open_months o JOIN %s ON u.account_id = o.account_id AND u.day >= "
                             "o.month AND u.day < o.month + interval '1 month'",
                             days),
                "true" SUMMED);
}

/* Totals of whole days, slots of days that are cut, and of a day on which some account has changed
 * the other accounts' sums. */
static void together_write(const struct source *src, struct sql *s)
{
    const char *first = first_day(src, s->arena), *stop = stop_day(src, s->arena);
    struct buf *b = &s->text;

    if (!all_cut(src)) {
        sums_select(src, b, "day", "usage_totals u",
                    arena_printf(s->arena,
                                 "u.day >= %s AND u.day < %s AND u.day NOT IN (SELECT day FROM "
                                 "cut_days UNION ALL SELECT day FROM open_days)",
                                 first, stop));
        sums_select(
            src, b, "day", days_table(src),
            arena_printf(s->arena,
                         "u.day >= %s AND u.day < %s AND u.day = ANY (ARRAY(SELECT day FROM "
                         "open_days EXCEPT SELECT day FROM cut_days))" SUMMED,
                         first, stop));
    }
    /* OFFSET 0: one look into the index for each day */
    buf_str(b, "SELECT m.* FROM cut_days c CROSS JOIN LATERAL (");
    select_write(src, b, &of_slots, "u");
    buf_str(b, ", u.rows FROM usage_slots u WHERE ");
    span_where(src, b, &of_slots);
    buf_str(b, " AND u.slot >= c.day::timestamp AT TIME ZONE 'UTC' AND u.slot < (c.day + "
               "1)::timestamp AT TIME ZONE 'UTC' OFFSET 0) m WHERE " VALID
               " AND c.day NOT IN (SELECT day FROM open_days) UNION ALL ");
}

void source_from(const struct source *src, struct sql *s)
{
    struct buf *b = &s->text;

    buf_str(b, "FROM (");
    if (rows_only(src)) {
        rows_select(src, b);
        if (by_account(src))
            buf_str(b, " AND m.account_id = " CHOSEN);
        buf_str(b, ") m");
        return;
    }
    if (slots_serve(src))
        together_write(src, s);
    else
        summed_write(src, s);
    rows_select(src, b); /* all of them, where the sums are not to be trusted */
    if (by_account(src))
        buf_str(b, " AND m.account_id = " CHOSEN);
    buf_str(b, " AND NOT " VALID " UNION ALL ");
    /* OFFSET 0: one look into the index for each day, never a join over whole partitions */
    buf_str(b, "SELECT m.* FROM unsummed u CROSS JOIN LATERAL (");
    rows_select(src, b);
    buf_str(b,
            " AND m.account_id = u.account_id AND m.bucket_start >= u.day::timestamp AT TIME "
            "ZONE 'UTC' AND m.bucket_start < (u.day + 1)::timestamp AT TIME ZONE 'UTC' OFFSET 0) "
            "m WHERE " VALID ") m");
}
