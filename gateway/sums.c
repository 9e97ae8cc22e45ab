#include "gateway/sums.h"

/* Without the time. `@` is the table's alias. */
#define SHARED_COLUMNS                                                                             \
    "@.provider, @.feed, @.model, @.service_tier, @.batch, @.line_item, @.quantity_unit, "         \
    "@.currency, @.input_tokens, @.cached_input_tokens, @.cache_write_tokens, "                    \
    "@.input_audio_tokens, @.output_audio_tokens, @.output_tokens, @.num_requests, @.quantity, "   \
    "@.cost_amount"
#define COLUMNS "@.account_id, @.project_id, @.user_id, @.api_key_id, " SHARED_COLUMNS

/* When the figures of a table begin, and which of them stand for a whole day: a day of UTC, which
 * no zone can divide. SQL. */
struct times {
    const char *start, *whole_day;
};
static const struct times of_rows = {"m.bucket_start", "m.bucket_seconds >= 86400"};
static const struct times of_slots = {"u.slot", "u.whole_day"};

/* The accounts as an array, which an index can take. */
#define CHOSEN "ANY (ARRAY(SELECT account_id FROM chosen))"

/* No zone's clock is off by less than a quarter of an hour. */
static bool slots_serve(const struct source *src)
{
    return src->together && src->span->by_days;
}

/* Sums by days of UTC can not be divided. */
static bool rows_only(const struct source *src)
{
    return (src->by_hour || src->by_zone) && !slots_serve(src);
}

static bool by_account(const struct source *src)
{
    return params_has(src->params, "account");
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

/* ---- WITH ---- */

/* " UNION SELECT account_id, day": the accounts that have sums on the days that `where` chooses.
 * The indexes on days are one for usage and one for costs. */
static void summed_accounts(const struct source *src, struct buf *b, const char *where)
{
    static const char *const kinds[] = {"IS NULL", "IS NOT NULL"};

    for (size_t i = 0; i < 2; i++) {
        buf_printf(b,
                   " UNION SELECT d.account_id, d.day FROM usage_days d WHERE %s AND d.cost_amount "
                   "%s",
                   where, kinds[i]);
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

/* Days at one end of the span that it cuts, unless it begins or ends with a day of UTC as `whole`
 * says. A day that any account has figures of is summed up or named as unsummed. */
static void cut_days(const struct source *src, struct sql *s, const char *whole, const char *from)
{
    summed_accounts(
        src, &s->text,
        arena_printf(s->arena, "d.day >= %s AND d.day < %s + 2 AND NOT (%s)", from, from, whole));
}

/* Days whose slots are not up to date: all rows of theirs are read, of each account that has any.
 */
static void slots_with(const struct source *src, struct sql *s)
{
    const char *first = first_day(src, s->arena), *end = end_day(src, s->arena);

    buf_printf(&s->text,
               "), open_days AS MATERIALIZED (SELECT day FROM changed UNION SELECT day FROM "
               "usage_open_days WHERE day >= %s - 2 AND day < %s + 2), unsummed AS MATERIALIZED "
               "(SELECT account_id, day FROM changed",
               first, end);
    summed_accounts(src, &s->text, "d.day = ANY (ARRAY(SELECT day FROM open_days))");
    buf_str(&s->text, ") ");
}

void source_with(const struct source *src, struct sql *s)
{
    const struct span_sql *span = src->span;
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
               ", %s AS MATERIALIZED (SELECT d.account_id, d.day FROM usage_unsummed_days d "
               "WHERE d.day >= %s - 2 AND d.day < %s + 2",
               slots_serve(src) ? "changed" : "unsummed", first, end);
    if (by_account(src))
        buf_str(b, " AND d.account_id = " CHOSEN);
    if (slots_serve(src)) {
        slots_with(src, s);
        return;
    }
    cut_days(src, s,
             arena_printf(s->arena, "%s AT TIME ZONE 'UTC' = date_trunc('day', %s AT TIME ZONE %s)",
                          span->from, span->from, span->zone),
             arena_printf(s->arena, "%s - 2", first));
    if (span->to)
        cut_days(src, s,
                 arena_printf(s->arena, "%s AT TIME ZONE 'UTC' = %s AND %s AT TIME ZONE %s <= %s",
                              span->to, end, span->to, span->zone, end),
                 end);
    buf_str(b, ")");
    if (!src->by_day)
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
    sql_expand(b, slots_serve(src) ? SHARED_COLUMNS : COLUMNS, table);
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

#define VALID "(SELECT valid FROM usage_summed)"

/* One branch over sums: `where` chooses its days or months. */
static void sums_select(const struct source *src, struct buf *b, const char *day, const char *table,
                        const char *where)
{
    buf_printf(b, "SELECT u.%s::timestamp AS local, ", day);
    sql_expand(b, COLUMNS, "u");
    buf_printf(b, ", u.rows FROM %s WHERE %s", table, where);
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
    const char *first = first_day(src, s->arena), *end = end_day(src, s->arena);
    struct buf *b = &s->text;

    if (src->by_day) {
        sums_select(
            src, b, "day", "usage_days u",
            arena_printf(s->arena, VALID " AND u.day >= %s AND u.day < %s" SUMMED, first, end));
        return;
    }
    sums_select(src, b, "month", "usage_months u",
                VALID
                " AND u.month >= " MONTHS_FROM " AND u.month < " MONTHS_TO
                " AND (u.account_id, u.month) NOT IN (SELECT account_id, month FROM open_months)");
    /* where no month is whole, both lie within [first, end) and meet */
    sums_select(src, b, "day", "usage_days u",
                arena_printf(s->arena,
                             VALID
                             " AND u.day >= %s AND u.day < %s AND u.day < coalesce(" MONTHS_FROM
                             ", 'infinity')" SUMMED,
                             first, end));
    sums_select(src, b, "day", "usage_days u",
                arena_printf(s->arena,
                             VALID " AND u.day >= %s AND u.day >= " MONTHS_TO
                                   " AND u.day < %s" SUMMED,
                             first, end));
    sums_select(src, b, "day",
                "open_months o JOIN usage_days u ON u.account_id = o.account_id AND u.day >= "
                "o.month AND u.day < o.month + interval '1 month'",
                VALID SUMMED);
}

static void slots_write(const struct source *src, struct buf *b)
{
    select_write(src, b, &of_slots, "u");
    buf_str(b, ", u.rows FROM usage_slots u WHERE " VALID " AND ");
    span_where(src, b, &of_slots);
    buf_str(b, " AND (u.slot AT TIME ZONE 'UTC')::date NOT IN (SELECT day FROM open_days) UNION "
               "ALL ");
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
        slots_write(src, b);
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
