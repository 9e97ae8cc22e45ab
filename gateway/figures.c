#include "gateway/figures.h"

#include <stdio.h>
#include <string.h>

#include "common/options.h"
#include "gateway/bills.h"
#include "gateway/request.h"
#include "gateway/rowset.h"
#include "gateway/sums.h"

#define DIMENSIONS_MAX 6

enum report { USAGE = 1, BILLED = 2, ESTIMATED = 4 };

/* Grouped by `raw`, which is quick, and shown as `shown` of the groups that are left. In m, as in
 * sums.h. */
static const struct dimension {
    const char *name;
    unsigned reports;
    const char *raw;
    const char *shown;  /* @: raw's column */
    const char *filter; /* as text, for a parameter of this name; NULL: none */
} dimensions[] = {
    {"hour", USAGE, "date_trunc('hour', m.local)", "to_char(@, 'YYYY-MM-DD HH24:00')", NULL},
    {"day", USAGE | BILLED | ESTIMATED, "m.local::date", "to_char(@, 'YYYY-MM-DD')", NULL},
    {"month", USAGE | BILLED | ESTIMATED, "date_trunc('month', m.local)", "to_char(@, 'YYYY-MM')",
     NULL},
    {"account", USAGE | BILLED | ESTIMATED, "m.account_id",
     "coalesce((SELECT name FROM accounts a WHERE a.account_id = @), '(removed ' || @ || ')')",
     NULL},
    {"provider", USAGE | BILLED | ESTIMATED, "m.provider", "@", "m.provider"},
    {"feed", USAGE | BILLED, "m.feed", "@", "m.feed"},
    {"project", USAGE | BILLED, "m.project_id", "@", "m.project_id"},
    {"user", USAGE | BILLED, "m.user_id", "@", "m.user_id"},
    {"key", USAGE | BILLED, "m.api_key_id", "@", "m.api_key_id"},
    {"model", USAGE | BILLED | ESTIMATED, "m.model", "@", "m.model"},
    {"line_item", BILLED, "m.line_item", "@", "m.line_item"},
    {"tier", USAGE | BILLED, "m.service_tier", "@", "m.service_tier"},
    {"batch", USAGE, "m.batch", "@::text", NULL},
};
#define N_DIMENSIONS (sizeof(dimensions) / sizeof(dimensions[0]))

struct measure {
    struct column column;
    const char *sql;
};

static const struct measure usage_measures[] = {
    {{"input_tokens", COLUMN_COUNT}, "sum(m.input_tokens)"},
    {{"cached_input_tokens", COLUMN_COUNT}, "sum(m.cached_input_tokens)"},
    {{"cache_write_tokens", COLUMN_COUNT}, "sum(m.cache_write_tokens)"},
    {{"input_audio_tokens", COLUMN_COUNT}, "sum(m.input_audio_tokens)"},
    {{"output_tokens", COLUMN_COUNT}, "sum(m.output_tokens)"},
    {{"output_audio_tokens", COLUMN_COUNT}, "sum(m.output_audio_tokens)"},
    {{"num_requests", COLUMN_COUNT}, "sum(m.num_requests)"},
    {{"quantity", COLUMN_DECIMAL}, "trim_scale(sum(m.quantity))"},
    {{"rows", COLUMN_COUNT}, "sum(m.rows)"},
};
static const struct measure billed_measures[] = {
    {{"cost_amount", COLUMN_DECIMAL}, "trim_scale(sum(m.cost_amount))"},
    {{"rows", COLUMN_COUNT}, "sum(m.rows)"},
};
static const struct measure estimated_measures[] = {
    {{"estimated_cost", COLUMN_DECIMAL}, "trim_scale(sum(m.cost))"},
    {{"status", COLUMN_TEXT},
     "CASE WHEN count(m.cost) = count(*) THEN 'priced' WHEN count(m.cost) = 0 THEN 'unpriced' ELSE "
     "'partial' END"},
    {{"unpriced_tokens", COLUMN_COUNT}, "coalesce(sum(m.amount) FILTER (WHERE m.cost IS NULL), 0)"},
};

/* One asked-for answer. */
struct figures {
    struct rowset rows;
    enum report report;
    const struct measure *measures;
    size_t n_measures;
    const char *unit_name, *unit_sql; /* never summed over */
    const char *which;                /* rows that it is about */
    size_t dims[DIMENSIONS_MAX];
    size_t n_dims;
    const char *sort; /* "-input_tokens"; NULL: by the dimensions */
    bool left_out;    /* the feed that reports calls twice */
    bool filled;      /* with rows for buckets without a figure */
    size_t bucket;    /* then the dimension that is time, of dims[] */
};

/* ---- what was asked ---- */

static enum status group_by_unknown(const struct figures *f, struct arena *a, const char *word,
                                    struct bad_param *bad)
{
    const char *names[N_DIMENSIONS], *near;
    struct buf all = {.arena = a};
    size_t n = 0;

    for (size_t i = 0; i < N_DIMENSIONS; i++) {
        if (!(dimensions[i].reports & (unsigned)f->report))
            continue;
        buf_printf(&all, "%s%s", n ? ", " : "", dimensions[i].name);
        names[n++] = dimensions[i].name;
    }
    near = nearest_word(word, names, n);
    if (near && strcmp(near, word) == 0)
        near = NULL;
    bad->name = "group_by";
    return err_set(&bad->err, ST_REJECT, "'%.40s' is no dimension here%s%s%s; they are: %s", word,
                   near ? ": did you mean " : "", near ? near : "", near ? "?" : "", all.at);
}

static enum status dimension_add(struct figures *f, struct arena *a, const char *word,
                                 struct bad_param *bad)
{
    size_t i = 0;

    while (i < N_DIMENSIONS && (strcmp(dimensions[i].name, word) != 0 ||
                                !(dimensions[i].reports & (unsigned)f->report)))
        i++;
    if (i == N_DIMENSIONS)
        return group_by_unknown(f, a, word, bad);
    bad->name = "group_by";
    for (size_t k = 0; k < f->n_dims; k++)
        if (f->dims[k] == i)
            return err_set(&bad->err, ST_REJECT, "%s is there twice", word);
    if (f->n_dims == DIMENSIONS_MAX)
        return err_set(&bad->err, ST_REJECT, "at most %d dimensions at once", DIMENSIONS_MAX);
    f->dims[f->n_dims++] = i;
    return ST_OK;
}

static enum status group_by_read(struct figures *f, struct request *r, struct bad_param *bad)
{
    const char *list;
    char *rest;

    TRY(params_one(&list, &r->params, r->arena, "group_by", bad));
    if (!list)
        list = "day";
    if (!*list)
        return ST_OK;
    rest = arena_copy(r->arena, list, strlen(list));
    for (const char *word; (word = strsep(&rest, ","));)
        TRY(dimension_add(f, r->arena, word, bad));
    return ST_OK;
}

static enum status sort_read(struct figures *f, struct request *r, struct bad_param *bad)
{
    static const char *const of_usage[] = {"input_tokens",   "-input_tokens", "output_tokens",
                                           "-output_tokens", "num_requests",  "-num_requests",
                                           "quantity",       "-quantity",     NULL};
    static const char *const of_cost[] = {"cost", "-cost", NULL};
    const char *const *words = f->report == USAGE ? of_usage : of_cost;
    size_t which = SIZE_MAX;

    TRY(params_word(&which, &r->params, r->arena, "sort", words, bad));
    if (which != SIZE_MAX)
        f->sort = words[which];
    f->rows.sorted = f->sort != NULL;
    return ST_OK;
}

static bool is_time(size_t dimension)
{
    return strstr(dimensions[dimension].raw, "m.local") != NULL;
}

static enum status fill_read(struct figures *f, struct request *r, struct bad_param *bad)
{
    size_t n = 0;

    TRY(params_switch(&f->filled, &r->params, r->arena, "fill", bad));
    if (!f->filled)
        return ST_OK;
    for (size_t i = 0; i < f->n_dims; i++) {
        if (is_time(f->dims[i])) {
            f->bucket = i;
            n++;
        }
    }
    bad->name = "fill";
    if (n != 1)
        return err_set(&bad->err, ST_REJECT,
                       "needs a group_by with one of hour, day and month, whose buckets it fills");
    return ST_OK;
}

/* ---- the statements ---- */

/* " AND ..." of the parameters that choose rows of usage_metrics or account_feeds. */
static void filters_write(const struct figures *f, struct sql *s, const struct request *r)
{
    for (size_t i = 0; i < N_DIMENSIONS; i++)
        if (dimensions[i].filter && (dimensions[i].reports & (unsigned)f->report))
            sql_filter(s, &r->params, dimensions[i].name, dimensions[i].filter);
    if (f->left_out)
        buf_str(&s->text, " AND NOT feed_repeats(m.provider, m.feed)");
}

static bool has_dimension(const struct figures *f, const char *name)
{
    for (size_t i = 0; i < f->n_dims; i++)
        if (strcmp(dimensions[f->dims[i]].name, name) == 0)
            return true;
    return false;
}

static void dims_write(const struct figures *f, struct buf *b, bool defined)
{
    for (size_t i = 0; i < f->n_dims; i++) {
        if (defined)
            buf_printf(b, "%s AS ", dimensions[f->dims[i]].raw);
        buf_printf(b, "d%zu, ", i);
    }
}

static void measures_write(const struct figures *f, struct buf *b)
{
    for (size_t i = 0; i < f->n_measures; i++)
        buf_printf(b, ", %s AS %s", f->measures[i].sql, f->measures[i].column.name);
}

/* " FROM m" as it is filtered, and " GROUP BY d0, d1, ..., ", which `unit` or more is to end. */
static void from_write(const struct figures *f, struct sql *s, const struct source *src,
                       const struct request *r)
{
    buf_str(&s->text, " ");
    source_from(src, s);
    buf_printf(&s->text, " WHERE %s", f->which);
    filters_write(f, s, r);
    buf_str(&s->text, " GROUP BY ");
    dims_write(f, &s->text, false);
}

/* The groups: columns d0, d1, ..., unit, and the measures' names. */
static void groups_write(const struct figures *f, struct sql *s, const struct source *src,
                         const struct request *r)
{
    struct buf *b = &s->text;

    buf_str(b, "SELECT ");
    dims_write(f, b, true);
    buf_printf(b, "%s AS unit", f->unit_sql);
    measures_write(f, b);
    from_write(f, s, src, r);
    buf_str(b, "unit");
}

/* The same of an estimate. Tokens are summed for each model as long as its prices last (spell `n`),
 * and only then priced: sums of exact products, as in the view cost_estimate. A price is looked up
 * once for each model and spell. What has no price keeps the currency of its model's other tokens.
 */
static void estimate_write(const struct figures *f, struct sql *s, const struct source *src,
                           const struct request *r)
{
    static const char *const kinds[] = {"input", "cached_input", "cache_write", "output"};
    const size_t n_kinds = sizeof(kinds) / sizeof(kinds[0]);
    struct buf *b = &s->text;

    buf_str(b, "SELECT ");
    dims_write(f, b, false);
    buf_str(b, "unit");
    measures_write(f, b);
    buf_str(b, " FROM (WITH tokens AS MATERIALIZED (SELECT ");
    dims_write(f, b, true);
    buf_str(b,
            "m.provider, m.model, coalesce(width_bucket(m.local::date - DATE '1970-01-01', (SELECT "
            "array_agg(DISTINCT valid_from - DATE '1970-01-01' ORDER BY valid_from - DATE "
            "'1970-01-01') FROM model_prices WHERE isfinite(valid_from))), 0) AS n, "
            "max(m.local::date) AS day, sum(m.input_tokens) - coalesce(sum(m.cached_input_tokens), "
            "0) - coalesce(sum(m.cache_write_tokens), 0) AS input, sum(m.cached_input_tokens) AS "
            "cached_input, sum(m.cache_write_tokens) AS cache_write, sum(m.output_tokens) AS "
            "output");
    from_write(f, s, src, r);
    buf_str(b, "m.provider, m.model, n), prices AS MATERIALIZED (SELECT k.provider, k.model, k.n");
    for (size_t i = 0; i < n_kinds; i++)
        buf_printf(b, ", %s.per_million AS %s, %s.currency AS %s_currency", kinds[i], kinds[i],
                   kinds[i], kinds[i]);
    buf_str(b, " FROM (SELECT provider, model, n, max(day) AS day FROM tokens GROUP BY provider, "
               "model, n) k");
    for (size_t i = 0; i < n_kinds; i++)
        buf_printf(b,
                   " LEFT JOIN LATERAL (SELECT per_million, currency FROM model_prices x WHERE "
                   "x.provider = k.provider AND x.model = k.model AND x.kind = '%s' AND "
                   "x.valid_from <= k.day ORDER BY x.valid_from DESC LIMIT 1) %s ON true",
                   kinds[i], kinds[i]);
    buf_str(b, ") SELECT ");
    dims_write(f, b, false);
    buf_str(b,
            "a.amount, a.amount * a.per_million * 0.000001 AS cost, coalesce(a.currency, least(");
    for (size_t i = 0; i < n_kinds; i++)
        buf_printf(b, "%sCASE WHEN t.%s <> 0 THEN p.%s_currency END", i ? ", " : "", kinds[i],
                   kinds[i]);
    buf_str(b, ")) AS unit FROM tokens t JOIN prices p USING (provider, model, n) CROSS JOIN "
               "LATERAL (VALUES ");
    for (size_t i = 0; i < n_kinds; i++)
        buf_printf(b, "%s(t.%s, p.%s, p.%s_currency)", i ? ", " : "", kinds[i], kinds[i], kinds[i]);
    buf_str(b, ") AS a (amount, per_million, currency) WHERE a.amount <> 0) m GROUP BY ");
    dims_write(f, b, false);
    buf_str(b, "unit");
}

/* " FROM accounts a LEFT JOIN account_feeds m ... WHERE true": the feeds that the figures come
 * from.
 */
static void feeds_write(const struct figures *f, struct sql *s, const struct request *r)
{
    buf_printf(&s->text,
               " FROM accounts a LEFT JOIN account_feeds m ON m.account_id = a.account_id AND "
               "m.enabled AND %s(m.feed = ANY(%s::text[]))",
               f->report == BILLED ? "" : "NOT ", sql_param(s, bills(r->arena)));
    sql_filter(s, &r->params, "feed", "m.feed");
    if (f->left_out)
        buf_str(&s->text, " AND m.feed <> '" DOUBLE_FEED "'");
    buf_str(&s->text, " WHERE true");
    sql_filter(s, &r->params, "account", "a.name");
    sql_filter(s, &r->params, "provider", "a.provider");
}

/* Where the groups tell accounts or providers apart, so does what is known of their feeds: the
 * column of `a` and, in `column`, that of the groups. NULL: what is known of all. */
static const char *scope(const struct figures *f, const char **column, struct arena *a)
{
    static const char *const names[] = {"account", "provider"};
    static const char *const columns[] = {"a.account_id", "a.provider"};

    for (size_t n = 0; n < 2; n++) {
        for (size_t i = 0; i < f->n_dims; i++) {
            if (strcmp(dimensions[f->dims[i]].name, names[n]) == 0) {
                *column = arena_printf(a, "x.d%zu", i);
                return columns[n];
            }
        }
    }
    return NULL;
}

/* The further CTEs `buckets`, of the range until now, and `cover`: from when until when all is
 * known. Half hours and half days meet every bucket, whatever the zone's clock does. */
static void buckets_write(const struct figures *f, struct sql *s, const struct span_sql *span,
                          const struct request *r)
{
    const struct dimension *time = &dimensions[f->dims[f->bucket]];
    const char *column, *of = scope(f, &column, r->arena);
    const char *end = span->to ? arena_printf(r->arena, "least(%s, now())", span->to) : "now()";
    struct buf *b = &s->text;

    buf_printf(
        b,
        ", buckets AS MATERIALIZED (SELECT DISTINCT %s AS bucket FROM (SELECT t AT TIME ZONE "
        "%s AS local FROM (SELECT generate_series(%s, %s, interval '%s') AS t UNION ALL "
        "SELECT %s) all_t WHERE t >= %s AND t < %s) m), cover AS MATERIALIZED (SELECT "
        "max(m.complete_from) AS complete_from, min(m.watermark) AS watermark, %s AS scope",
        time->raw, span->zone, span->from, end,
        strcmp(time->name, "hour") == 0 ? "30 minutes" : "12 hours",
        arena_printf(r->arena, "%s - interval '1 microsecond'", end), span->from, end,
        of ? of : "true");
    feeds_write(f, s, r);
    if (!of)
        buf_str(b, " AND a.enabled");
    buf_str(b, " GROUP BY scope)");
}

/* After the CTE `groups`: these, and one of every kind for each bucket in which it has none. What
 * all feeds have been read for and none has a figure of was zero. Of a bucket that the range cuts,
 * the part within counts. */
static void filled_write(const struct figures *f, struct sql *s, const struct span_sql *span,
                         const struct request *r)
{
    const char *column = "true", *unit = dimensions[f->dims[f->bucket]].name;
    const char *bucket = arena_printf(r->arena, "x.d%zu::timestamp", f->bucket);
    struct buf *b = &s->text;

    (void)scope(f, &column, r->arena);
    buckets_write(f, s, span, r);
    buf_str(b, ", kinds AS MATERIALIZED (SELECT DISTINCT ");
    for (size_t i = 0; i < f->n_dims; i++)
        if (i != f->bucket)
            buf_printf(b, "d%zu, ", i);
    buf_str(b, "unit FROM groups");
    if (f->n_dims == 1) /* nothing at all is of one kind */
        buf_str(b, " UNION ALL SELECT NULL WHERE NOT EXISTS (SELECT FROM groups)");
    buf_str(b, ") SELECT ");
    for (size_t i = 0; i < f->n_dims; i++)
        buf_printf(b, "x.d%zu, ", i);
    buf_str(b, "x.unit");
    for (size_t i = 0; i < f->n_measures; i++)
        buf_printf(b, ", CASE WHEN x.there THEN x.%s WHEN k.known THEN %s END AS %s",
                   f->measures[i].column.name,
                   f->measures[i].column.kind == COLUMN_TEXT ? "'priced'" : "0",
                   f->measures[i].column.name);
    buf_str(b, ", CASE WHEN x.there AND k.known THEN 'reported' WHEN x.there THEN 'partial' WHEN "
               "k.known THEN 'zero' ELSE 'no_data_yet' END AS coverage FROM (SELECT ");
    dims_write(f, b, false);
    buf_str(b, "unit, bool_or(there) AS there");
    for (size_t i = 0; i < f->n_measures; i++)
        buf_printf(b, ", max(%s) AS %s", f->measures[i].column.name, f->measures[i].column.name);
    buf_str(b, " FROM (SELECT *, true AS there FROM groups UNION ALL SELECT ");
    for (size_t i = 0; i < f->n_dims; i++)
        buf_printf(b, i == f->bucket ? "bucket, " : "d%zu, ", i);
    buf_str(b, "unit");
    for (size_t i = 0; i < f->n_measures; i++)
        buf_str(b, ", NULL");
    buf_str(b, ", false FROM buckets CROSS JOIN kinds) u GROUP BY ");
    dims_write(f, b, false);
    buf_printf(b,
               "unit) x LEFT JOIN cover c ON c.scope = %s CROSS JOIN LATERAL (SELECT "
               "coalesce(greatest(%s AT TIME ZONE %s, %s) >= c.complete_from AND least((%s + "
               "interval '1 %s') AT TIME ZONE %s, %s) <= c.watermark, false) AS known) k",
               column, bucket, span->zone, span->from, bucket, unit, span->zone,
               span->to ? span->to : "'infinity'");
}

/* An estimate is by days of UTC: the span's local days stand for the days of that date. */
static struct span_sql span_of_days(struct arena *a, const struct span_sql *span)
{
    struct span_sql days = {.zone = "'UTC'::text", .by_days = true};

    days.from = arena_printf(a, "(date_trunc('day', %s AT TIME ZONE %s) AT TIME ZONE 'UTC')",
                             span->from, span->zone);
    if (span->to)
        days.to = arena_printf(a,
                               "(date_trunc('day', %s AT TIME ZONE %s + interval '1 day' - "
                               "interval '1 microsecond') AT TIME ZONE 'UTC')",
                               span->to, span->zone);
    return days;
}

/* " ORDER BY" the keys, and WHERE they come after the cursor. In "C" order, which no locale moves.
 */
static void order_write(const struct figures *f, struct sql *s)
{
    const struct rowset *rs = &f->rows;
    struct buf *b = &s->text;

    if (rs->has_cursor) {
        buf_str(b, " WHERE (");
        for (size_t i = 0; i < rs->n_keys; i++)
            buf_printf(b, "%skey%zu COLLATE \"C\"", i ? ", " : "", i);
        buf_str(b, ") > (");
        for (size_t i = 0; i < rs->n_keys; i++)
            buf_printf(b, "%s%s", i ? ", " : "",
                       sql_param(s, arena_copy(s->arena, rs->cursor[i].at, rs->cursor[i].len)));
        buf_str(b, ")");
    }
    buf_str(b, " ORDER BY ");
    if (f->sort)
        buf_printf(b, "%s %s, ",
                   strstr(f->sort, "cost") ? f->measures[0].column.name
                                           : f->sort + (f->sort[0] == '-'),
                   f->sort[0] == '-' ? "DESC NULLS LAST" : "ASC NULLS FIRST");
    for (size_t i = 0; i < rs->n_keys; i++)
        buf_printf(b, "%skey%zu COLLATE \"C\"", i ? ", " : "", i);
    rowset_limit(rs, s);
}

/* Grouped or chosen by any of `names`, which end with NULL. */
static bool asks_for(const struct figures *f, const struct request *r, const char *const *names)
{
    for (; *names; names++)
        if (has_dimension(f, *names) || params_has(&r->params, *names))
            return true;
    return false;
}

static struct source source_of(const struct figures *f, const struct request *r,
                               const struct span_sql *span, const char *zone)
{
    static const char *const of_one[] = {"account", "project", "user", "key", NULL};
    static const char *const fine[] = {"project", "user",  "key", "line_item",
                                       "tier",    "batch", NULL};

    return (struct source){
        .span = span,
        .params = &r->params,
        .together = !asks_for(f, r, of_one),
        .narrow = !asks_for(f, r, fine),
        .by_hour = has_dimension(f, "hour"),
        .by_day = has_dimension(f, "day"),
        .by_month = has_dimension(f, "month"),
        .zoned = f->report != ESTIMATED && zone && strcmp(zone, "UTC") != 0,
        .priced = f->report == ESTIMATED,
    };
}

static enum status rows_statement(struct figures *f, struct request *r, struct bad_param *bad)
{
    struct rowset *rs = &f->rows;
    struct sql s = sql_new(r->arena);
    struct span_sql span;
    struct source src;
    const char *zone;

    TRY(sql_span(&span, &s, &r->params, true, bad));
    TRY(params_one(&zone, &r->params, r->arena, "tz", bad));
    if (f->report == ESTIMATED)
        span = span_of_days(r->arena, &span);
    src = source_of(f, r, &span, zone);
    source_with(&src, &s);
    buf_str(&s.text, "SELECT ");
    for (size_t i = 0; i < f->n_dims; i++)
        buf_printf(&s.text, "s%zu, ", i);
    buf_str(&s.text, "unit");
    for (size_t i = 0; i < f->n_measures; i++)
        buf_printf(&s.text, ", %s", f->measures[i].column.name);
    if (f->filled)
        buf_str(&s.text, ", coverage");
    for (size_t i = 0; i < rs->n_keys; i++)
        buf_printf(&s.text, ", key%zu", i);
    buf_str(&s.text, " FROM (SELECT *, ");
    for (size_t i = 0; i < f->n_dims; i++)
        buf_printf(&s.text, "coalesce(s%zu, '') AS key%zu, ", i, i);
    buf_printf(&s.text, "coalesce(unit, '') AS key%zu FROM (SELECT *", f->n_dims);
    for (size_t i = 0; i < f->n_dims; i++) {
        const char *column = arena_printf(r->arena, "g.d%zu", i);

        buf_str(&s.text, ", ");
        sql_expand(&s.text, dimensions[f->dims[i]].shown, column);
        buf_printf(&s.text, " AS s%zu", i);
    }
    buf_str(&s.text, f->filled ? " FROM (WITH groups AS MATERIALIZED (" : " FROM (");
    if (f->report == ESTIMATED)
        estimate_write(f, &s, &src, r);
    else
        groups_write(f, &s, &src, r);
    if (f->filled) {
        buf_str(&s.text, ")");
        filled_write(f, &s, &span, r);
    }
    buf_str(&s.text, ") g) shown) keyed");
    order_write(f, &s);
    rs->statements[rs->n_statements++] = (struct statement){.sql = s.text.at, .params = s.params};
    return ST_OK;
}

/* ---- before the rows: what was asked, and how far it is known ---- */

#define TIME_TEXT(expression)                                                                      \
    "to_char((" expression ") AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"

#define FIRST_PARTIAL "(min(ARRAY[c.name, c.first_partial]) FILTER (WHERE c.partial > 0))"

static enum status head_statement(struct figures *f, struct request *r, struct bad_param *bad)
{
    struct sql s = sql_new(r->arena);
    struct span_sql span;
    const char *partial;
    struct buf *b = &s.text;

    TRY(sql_span(&span, &s, &r->params, true, bad));
    partial = arena_printf(r->arena, "(m.feed) FILTER (WHERE m.complete_from > %s)", span.from);
    buf_printf(b, "SELECT " TIME_TEXT("%s") ", " TIME_TEXT("%s") ", %s, ", span.from,
               span.to ? span.to : "NULL::timestamptz", span.zone);
    buf_str(b, "count(*), count(*) FILTER (WHERE c.unread), ");
    buf_str(b, TIME_TEXT("max(c.complete_from)") ", ");
    buf_str(b, TIME_TEXT("min(c.watermark)") ", ");
    buf_str(b, "EXISTS (SELECT 1 FROM account_feeds x WHERE x.feed = '" DOUBLE_FEED "'), ");
    buf_str(b, "coalesce(sum(c.feeds), 0), coalesce(sum(c.partial), 0), ");
    buf_str(b, FIRST_PARTIAL "[1], " FIRST_PARTIAL "[2] ");
    buf_printf(b,
               "FROM (SELECT a.name, bool_or(m.watermark IS NULL) AS unread, max(m.complete_from) "
               "AS complete_from, min(m.watermark) AS watermark, count(m.complete_from) AS feeds, "
               "count%s AS partial, min%s AS first_partial",
               partial, partial);
    feeds_write(f, &s, r);
    buf_str(b, " AND a.enabled GROUP BY a.account_id) c");
    f->rows.statements[f->rows.n_statements++] =
        (struct statement){.sql = b->at, .params = s.params};
    return ST_OK;
}

static void head_write(struct json_writer *w, const PGresult *r, void *arg)
{
    const struct figures *f = arg;

    json_w_key(w, "range");
    json_w_object(w);
    json_w_key(w, "from");
    json_w_text(w, pg_text(r, 0, 0));
    json_w_key(w, "to");
    json_w_text(w, pg_text(r, 0, 1));
    json_w_key(w, "tz");
    json_w_text(w, pg_text(r, 0, 2));
    json_w_end(w);
    json_w_key(w, "coverage");
    json_w_object(w);
    json_w_key(w, "accounts");
    json_w_raw(w, pg_text(r, 0, 3));
    json_w_key(w, "accounts_without_data");
    json_w_raw(w, pg_text(r, 0, 4));
    json_w_key(w, "complete_from");
    json_w_text(w, pg_text(r, 0, 5));
    json_w_key(w, "complete_until");
    json_w_text(w, pg_text(r, 0, 6));
    json_w_key(w, "feeds");
    json_w_raw(w, pg_text(r, 0, 8));
    json_w_key(w, "feeds_partial");
    json_w_raw(w, pg_text(r, 0, 9));
    json_w_key(w, "first_partial");
    if (pg_text(r, 0, 10).at) {
        json_w_object(w);
        json_w_key(w, "account");
        json_w_text(w, pg_text(r, 0, 10));
        json_w_key(w, "feed");
        json_w_text(w, pg_text(r, 0, 11));
        json_w_end(w);
    } else {
        json_w_null(w);
    }
    json_w_end(w);
    json_w_key(w, "left_out");
    json_w_array(w);
    if (f->left_out && text_is(pg_text(r, 0, 7), "t"))
        json_w_str(w, DOUBLE_FEED);
    json_w_end(w);
    if (f->report == USAGE)
        return;
    json_w_key(w, "basis");
    json_w_str(w, f->report == BILLED ? "billed" : "estimated");
}

/* ---- handlers ---- */

static void columns_set(struct figures *f)
{
    struct rowset *rs = &f->rows;

    for (size_t i = 0; i < f->n_dims; i++)
        rs->columns[rs->n_columns++] = (struct column){dimensions[f->dims[i]].name, COLUMN_TEXT};
    rs->columns[rs->n_columns++] = (struct column){f->unit_name, COLUMN_TEXT};
    for (size_t i = 0; i < f->n_measures; i++)
        rs->columns[rs->n_columns++] = f->measures[i].column;
    if (f->filled)
        rs->columns[rs->n_columns++] = (struct column){"coverage", COLUMN_TEXT};
    rs->n_keys = f->n_dims + 1;
    rs->heavy = true;
    rs->head = head_write;
    rs->head_arg = f;
}

/* The parameters that this report knows. */
static enum status names_check(const struct figures *f, struct request *r, struct bad_param *bad)
{
    const char *known[N_DIMENSIONS + 13] = {"group_by", "from", "to",     "tz",     "account",
                                            "sort",     "fill", "format", "cursor", "limit"};
    size_t n = 10;

    if (f->report != USAGE)
        known[n++] = "basis";
    for (size_t i = 0; i < N_DIMENSIONS; i++)
        if (dimensions[i].filter && (dimensions[i].reports & (unsigned)f->report))
            known[n++] = dimensions[i].name;
    known[n] = NULL;
    return params_check(&r->params, r->arena, known, bad);
}

static enum status figures_read(struct figures *f, struct request *r, struct bad_param *bad)
{
    TRY(names_check(f, r, bad));
    TRY(group_by_read(f, r, bad));
    TRY(sort_read(f, r, bad));
    TRY(fill_read(f, r, bad));
    columns_set(f);
    TRY(rowset_params(&f->rows, r, bad));
    f->left_out = !params_has_value(&r->params, "feed", DOUBLE_FEED) &&
                  !has_dimension(f, "feed"); /* then no sum goes over feeds */
    if (!f->rows.csv)
        TRY(head_statement(f, r, bad));
    return rows_statement(f, r, bad);
}

static void figures_answer(struct figures *f, struct request *r)
{
    struct bad_param bad = {0};

    if (figures_read(f, r, &bad) == ST_OK)
        rowset_answer(&f->rows, r);
    else
        answer_bad_parameter(r, bad.name, &bad.err);
}

void usage_asked(struct gateway *g, struct request *r)
{
    struct figures *f = ARENA_NEW(r->arena, struct figures);

    (void)g;
    f->report = USAGE;
    f->measures = usage_measures;
    f->n_measures = sizeof(usage_measures) / sizeof(usage_measures[0]);
    f->unit_name = "quantity_unit";
    f->unit_sql = "m.quantity_unit";
    f->which = "m.cost_amount IS NULL";
    f->rows.filename = "usage.csv";
    figures_answer(f, r);
}

void cost_asked(struct gateway *g, struct request *r)
{
    static const char *const bases[] = {"billed", "estimated", NULL};
    struct figures *f = ARENA_NEW(r->arena, struct figures);
    struct bad_param bad = {0};
    size_t basis = 0;

    (void)g;
    if (params_word(&basis, &r->params, r->arena, "basis", bases, &bad) != ST_OK) {
        answer_bad_parameter(r, bad.name, &bad.err);
        return;
    }
    f->report = basis == 0 ? BILLED : ESTIMATED;
    f->measures = basis == 0 ? billed_measures : estimated_measures;
    f->n_measures = basis == 0 ? sizeof(billed_measures) / sizeof(billed_measures[0])
                               : sizeof(estimated_measures) / sizeof(estimated_measures[0]);
    f->unit_name = "currency";
    f->unit_sql = "m.currency";
    f->which =
        basis == 0 ? "m.cost_amount IS NOT NULL" : "m.cost_amount IS NULL AND m.model IS NOT NULL";
    f->rows.filename = basis == 0 ? "cost.csv" : "cost-estimated.csv";
    figures_answer(f, r);
}
