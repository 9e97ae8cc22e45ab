#include "gateway/lists.h"

#include <string.h>

#include "gateway/request.h"
#include "gateway/rowset.h"

#define TIME_TEXT(expression)                                                                      \
    "to_char((" expression ") AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"

struct list_filter {
    const char *name, *column;
    const char *const *words; /* NULL: any */
};

struct list {
    const char *filename;
    struct column columns[COLUMNS_MAX]; /* to the first without a name */
    const char *select, *from;          /* with WHERE; the keys are the last of `select` */
    size_t n_keys;
    const char *after, *order; /* after: each '@' is a key of the cursor */
    struct list_filter filters[6];
    const char *known[16]; /* parameters besides those of every list */
    /* What else the parameters say, as " AND ...". */
    enum status (*more)(struct sql *s, const struct request *r, struct bad_param *bad);
};

/* ---- accounts ---- */

static const char *const account_states[] = {"disabled",    "failing",  "partly_failing",
                                             "no_data_yet", "late",     "catching_up",
                                             "zero",        "reported", NULL};

/* The words are explained in openapi.yaml, AccountState. */
#define ACCOUNT_STATE                                                                              \
    "CASE WHEN NOT a.enabled THEN 'disabled' WHEN f.failing > 0 AND f.failing = f.n THEN "         \
    "'failing' WHEN f.failing > 0 THEN 'partly_failing' WHEN f.n = 0 OR f.unread > 0 THEN "        \
    "'no_data_yet' WHEN a.next_due < now() - interval '30 minutes' THEN 'late' WHEN f.cut > 0 OR " \
    "EXISTS (SELECT 1 FROM owed_windows o WHERE o.account_id = a.account_id AND o.state = "        \
    "'pending') THEN 'catching_up' WHEN f.speaking = 0 THEN 'zero' ELSE 'reported' END"

/* clang-format off */
#define FEEDS_JSON                                                                                 \
    "(SELECT coalesce(jsonb_agg(jsonb_build_object("                                               \
    "'feed', f.feed, 'enabled', f.enabled, "                                                       \
    "'complete_from', " TIME_TEXT("f.complete_from") ", "                                          \
    "'complete_until', " TIME_TEXT("f.watermark") ", "                                             \
    "'last_attempt_at', " TIME_TEXT("f.last_attempt_at") ", "                                      \
    "'last_success_at', " TIME_TEXT("f.last_success_at") ", "                                      \
    "'last_error', f.last_error, 'last_error_detail', f.last_error_detail, "                       \
    "'consecutive_failures', f.consecutive_failures, "                                             \
    "'empty_since', " TIME_TEXT("f.empty_since") ", "                                              \
    "'next_due', " TIME_TEXT("f.next_due") ") ORDER BY f.feed), '[]') "                            \
    "FROM account_feeds f WHERE f.account_id = a.account_id)"

#define COMPLETE_UNTIL "CASE WHEN f.unread = 0 THEN f.watermark END"

static const struct list accounts = {
    .filename = "accounts.csv",
    .columns = {{"account", COLUMN_TEXT},
                {"provider", COLUMN_TEXT},
                {"enabled", COLUMN_BOOLEAN},
                {"state", COLUMN_TEXT},
                {"complete_from", COLUMN_TEXT},
                {"complete_until", COLUMN_TEXT},
                {"last_success_at", COLUMN_TEXT},
                {"next_due", COLUMN_TEXT},
                {"trouble", COLUMN_TEXT},
                {"advice", COLUMN_TEXT},
                {"base_url", COLUMN_TEXT},
                {"key_hint", COLUMN_TEXT},
                {"labels", COLUMN_JSON}},
    .select = "a.name, a.provider, a.enabled, " ACCOUNT_STATE ", "
              TIME_TEXT("f.complete_from") ", " TIME_TEXT(COMPLETE_UNTIL) ", "
              TIME_TEXT("f.last_success_at") ", " TIME_TEXT("a.next_due") ", "
              "f.trouble, f.advice, a.base_url, a.key_hint, a.labels",
    .from =
        "accounts a, LATERAL (SELECT count(*) AS n, count(*) FILTER (WHERE consecutive_failures > "
        "0) AS failing, count(*) FILTER (WHERE watermark IS NULL) AS unread, count(*) FILTER "
        "(WHERE last_error IN ('page_cap', 'deadline', 'stopped')) AS cut, count(*) FILTER (WHERE "
        "empty_since IS NULL) AS speaking, max(complete_from) AS complete_from, min(watermark) AS "
        "watermark, max(last_success_at) AS last_success_at, (array_agg(feed || ': ' || last_error "
        "ORDER BY consecutive_failures DESC, feed) FILTER (WHERE consecutive_failures > 0))[1] AS "
        "trouble, (array_agg(last_error_detail ORDER BY consecutive_failures DESC, feed) FILTER "
        "(WHERE consecutive_failures > 0))[1] AS advice FROM account_feeds WHERE account_id = "
        "a.account_id AND enabled) f WHERE true",
    .n_keys = 1,
    .after = " AND a.name COLLATE \"C\" > @",
    .order = " ORDER BY a.name COLLATE \"C\"",
    .filters = {{"account", "a.name", NULL},
                {"provider", "a.provider", NULL},
                {"state", "(" ACCOUNT_STATE ")", account_states}},
    .known = {"account", "provider", "state", "feeds"},
};
/* clang-format on */

static void accounts_head_write(struct json_writer *w, const PGresult *r, void *arg)
{
    (void)arg;
    json_w_key(w, "states");
    json_w_raw(w, pg_text(r, 0, 0));
    json_w_key(w, "furthest_behind");
    json_w_raw(w, PQgetisnull(r, 0, 1) ? TEXT_NULL : pg_text(r, 0, 1));
}

/* How all of the accounts are, whatever state and page are asked for: a JSON object of counts by
 * state, and the account that is furthest behind, or null. */
static void accounts_head(struct rowset *rs, const struct request *r)
{
    struct sql s = sql_new(r->arena);

    buf_printf(&s.text,
               "WITH every AS MATERIALIZED (SELECT a.name, a.enabled, " ACCOUNT_STATE
               " AS state, " COMPLETE_UNTIL " AS until FROM %s",
               accounts.from);
    sql_filter(&s, &r->params, "account", "a.name");
    sql_filter(&s, &r->params, "provider", "a.provider");
    buf_str(
        &s.text,
        ") SELECT coalesce((SELECT jsonb_object_agg(state, n) FROM (SELECT state, count(*) AS n "
        "FROM every GROUP BY state) s), '{}'), (SELECT jsonb_build_object('account', name, "
        "'complete_until', " TIME_TEXT("until") ") FROM every WHERE enabled AND until IS NOT "
                                                "NULL ORDER BY until, name LIMIT 1)");
    rs->statements[rs->n_statements++] = (struct statement){.sql = s.text.at, .params = s.params};
    rs->head = accounts_head_write;
}

/* ---- runs ---- */

static const char *const run_kinds[] = {"scheduled", "manual", "inject", "backfill", NULL};

static enum status runs_more(struct sql *s, const struct request *r, struct bad_param *bad)
{
    bool worked = false;

    TRY(params_switch(&worked, &r->params, r->arena, "worked", bad));
    if (worked)
        buf_str(&s->text, " AND r.jobs > 0");
    return ST_OK;
}

static const struct list runs = {
    .filename = "runs.csv",
    .columns = {{"run_id", COLUMN_TEXT},
                {"kind", COLUMN_TEXT},
                {"state", COLUMN_TEXT},
                {"tick", COLUMN_TEXT},
                {"requested_at", COLUMN_TEXT},
                {"started_at", COLUMN_TEXT},
                {"finished_at", COLUMN_TEXT},
                {"seconds", COLUMN_DECIMAL},
                {"accounts_total", COLUMN_COUNT},
                {"accounts_ok", COLUMN_COUNT},
                {"accounts_failed", COLUMN_COUNT},
                {"jobs", COLUMN_COUNT},
                {"requests", COLUMN_COUNT},
                {"pages", COLUMN_COUNT},
                {"pages_unchanged", COLUMN_COUNT},
                {"rows_inserted", COLUMN_COUNT},
                {"rows_updated", COLUMN_COUNT},
                {"rows_removed", COLUMN_COUNT},
                {"rows_unchanged", COLUMN_COUNT},
                {"failures", COLUMN_JSON}},
    .select =
        "r.run_id, r.kind, CASE WHEN r.finished_at IS NOT NULL OR (r.kind <> 'scheduled' AND NOT "
        "EXISTS (SELECT 1 FROM run_accounts p JOIN accounts a USING (account_id) WHERE p.run_id = "
        "r.run_id AND p.state = 'pending' AND a.enabled)) THEN 'done' ELSE 'running' "
        "END, " TIME_TEXT("r.tick") ", " TIME_TEXT("r.requested_at") ", " TIME_TEXT(
            "r.started_at") ", " TIME_TEXT("r.finished_at") ", trim_scale(round(extract(epoch FROM "
                                                            "r.finished_at - "
                                                            "r.requested_at), 3)), "
                                                            "r.accounts_total, r.accounts_ok, "
                                                            "r.accounts_failed, r.jobs, "
                                                            "r.requests, r.pages, "
                                                            "r.pages_unchanged, r.rows_inserted, "
                                                            "r.rows_updated, r.rows_removed, "
                                                            "r.rows_unchanged, "
                                                            "(SELECT "
                                                            "coalesce(jsonb_agg(jsonb_build_object("
                                                            "'account', x.name, 'error', x.error, "
                                                            "'detail', x.detail) ORDER BY x.name), "
                                                            "'[]') FROM (SELECT a.name, ra.error, "
                                                            "ra.detail "
                                                            "FROM run_accounts ra JOIN accounts a "
                                                            "USING (account_id) WHERE ra.run_id = "
                                                            "r.run_id AND "
                                                            "ra.state = 'failed' ORDER BY a.name "
                                                            "LIMIT 100) x), r.requested_at, "
                                                            "r.run_id",
    .from = "fetch_runs r WHERE true",
    .n_keys = 2,
    .after = " AND (r.requested_at, r.run_id) < (@::timestamptz, @::uuid)",
    .order = " ORDER BY r.requested_at DESC, r.run_id DESC",
    .filters = {{"kind", "r.kind", run_kinds}, {"run", "r.run_id::text", NULL}},
    .known = {"kind", "run", "worked"},
    .more = runs_more,
};

/* ---- dead letters, revisions ---- */

static void account_ids(struct sql *s, const struct request *r, const char *column)
{
    if (!params_has(&r->params, "account"))
        return;
    buf_printf(&s->text, " AND %s IN (SELECT account_id FROM accounts x WHERE true", column);
    sql_filter(s, &r->params, "account", "x.name");
    buf_str(&s->text, ")");
}

static enum status dead_more(struct sql *s, const struct request *r, struct bad_param *bad)
{
    bool closed = false;

    TRY(params_switch(&closed, &r->params, r->arena, "closed", bad));
    if (!closed)
        buf_str(&s->text, " AND d.closed_at IS NULL");
    account_ids(s, r, "d.account_id");
    return ST_OK;
}

static const struct list dead = {
    .filename = "dead.csv",
    .columns = {{"letter_id", COLUMN_COUNT},
                {"account", COLUMN_TEXT},
                {"provider", COLUMN_TEXT},
                {"feed", COLUMN_TEXT},
                {"window_from", COLUMN_TEXT},
                {"window_to", COLUMN_TEXT},
                {"reason", COLUMN_TEXT},
                {"json_path", COLUMN_TEXT},
                {"sqlstate", COLUMN_TEXT},
                {"occurrences", COLUMN_COUNT},
                {"first_seen_at", COLUMN_TEXT},
                {"last_seen_at", COLUMN_TEXT},
                {"closed_at", COLUMN_TEXT}},
    .select =
        "d.letter_id, coalesce(a.name, '(removed ' || d.account_id || ')'), "
        "d.provider, "
        "d.feed, " TIME_TEXT("d.window_from") ", " TIME_TEXT(
            "d.window_to") ", d.reason, "
                           "d.json_path, d.sqlstate, d.occurrences, " TIME_TEXT(
                               "d."
                               "first_"
                               "seen_"
                               "at") ", " TIME_TEXT("d.last_seen_at") ", " TIME_TEXT("d.closed_"
                                                                                     "at") ", "
                                                                                           "d."
                                                                                           "las"
                                                                                           "t_"
                                                                                           "see"
                                                                                           "n_"
                                                                                           "at,"
                                                                                           " "
                                                                                           "d."
                                                                                           "let"
                                                                                           "ter"
                                                                                           "_"
                                                                                           "id",
    .from = "dead_letters d LEFT JOIN accounts a USING (account_id) WHERE true",
    .n_keys = 2,
    .after = " AND (d.last_seen_at, d.letter_id) < (@::timestamptz, @::bigint)",
    .order = " ORDER BY d.last_seen_at DESC, d.letter_id DESC",
    .filters = {{"provider", "d.provider", NULL}, {"feed", "d.feed", NULL}},
    .known = {"account", "provider", "feed", "closed"},
    .more = dead_more,
};

static const char *const changes[] = {"changed", "vanished", "appeared", NULL};

static enum status revisions_more(struct sql *s, const struct request *r, struct bad_param *bad)
{
    struct span_sql span;

    TRY(sql_span(&span, s, &r->params, false, bad));
    /* named once, since without a bound it would be a parameter that nothing tells the type of */
    buf_printf(&s->text, " AND %s IS NOT NULL", span.zone);
    if (span.from)
        buf_printf(&s->text, " AND v.revised_at >= %s", span.from);
    if (span.to)
        buf_printf(&s->text, " AND v.revised_at < %s", span.to);
    account_ids(s, r, "v.account_id");
    return ST_OK;
}

static const struct list revisions = {
    .filename = "revisions.csv",
    .columns = {{"revision_id", COLUMN_COUNT},
                {"account", COLUMN_TEXT},
                {"provider", COLUMN_TEXT},
                {"feed", COLUMN_TEXT},
                {"bucket_start", COLUMN_TEXT},
                {"bucket_seconds", COLUMN_COUNT},
                {"change", COLUMN_TEXT},
                {"revised_at", COLUMN_TEXT},
                {"old_row", COLUMN_JSON},
                {"new_row", COLUMN_JSON}},
    .select = "v.revision_id, coalesce(a.name, '(removed ' || v.account_id || ')'), v.provider, "
              "v.feed, " TIME_TEXT("v.bucket_start") ", v.bucket_seconds, v.change, " TIME_TEXT(
                  "v.revised_at") ", v.old_row, v.new_row, v.revised_at, v.revision_id",
    .from = "usage_revisions v LEFT JOIN accounts a USING (account_id) WHERE true",
    .n_keys = 2,
    .after = " AND (v.revised_at, v.revision_id) < (@::timestamptz, @::bigint)",
    .order = " ORDER BY v.revised_at DESC, v.revision_id DESC",
    .filters = {{"provider", "v.provider", NULL},
                {"feed", "v.feed", NULL},
                {"change", "v.change", changes}},
    .known = {"account", "provider", "feed", "change", "from", "to", "tz"},
    .more = revisions_more,
};

/* ---- all of them ---- */

static void after_write(struct sql *s, const struct list *list, const struct rowset *rs)
{
    const char *rest = list->after;

    for (size_t i = 0; i < rs->n_keys; i++) {
        size_t len = strcspn(rest, "@");

        buf_append(&s->text, rest, len);
        buf_str(&s->text, sql_param(s, arena_copy(s->arena, rs->cursor[i].at, rs->cursor[i].len)));
        rest += len + 1;
    }
    buf_str(&s->text, rest);
}

static enum status list_names(const struct list *list, struct request *r, struct bad_param *bad)
{
    const char *known[20] = {"limit", "cursor", "format"};
    size_t n = 3;

    for (size_t i = 0; list->known[i]; i++)
        known[n++] = list->known[i];
    return params_check(&r->params, r->arena, known, bad);
}

static enum status list_read(struct rowset *rs, const struct list *list, struct request *r,
                             struct bad_param *bad)
{
    struct sql s = sql_new(r->arena);
    bool feeds = false;

    TRY(list_names(list, r, bad));
    while (list->columns[rs->n_columns].name) {
        rs->columns[rs->n_columns] = list->columns[rs->n_columns];
        rs->n_columns++;
    }
    rs->n_keys = list->n_keys;
    rs->filename = list->filename;
    TRY(rowset_params(rs, r, bad));
    buf_printf(&s.text, "SELECT %s", list->select);
    if (list == &accounts) {
        if (!rs->csv)
            accounts_head(rs, r);
        TRY(params_switch(&feeds, &r->params, r->arena, "feeds", bad));
        if (feeds) {
            rs->columns[rs->n_columns++] = (struct column){"feeds", COLUMN_JSON};
            buf_str(&s.text, ", " FEEDS_JSON);
        }
        buf_str(&s.text, ", a.name");
    }
    buf_printf(&s.text, " FROM %s", list->from);
    for (const struct list_filter *f = list->filters; f->name; f++) {
        if (f->words)
            TRY(params_words(&r->params, f->name, f->words, bad));
        sql_filter(&s, &r->params, f->name, f->column);
    }
    if (list->more)
        TRY(list->more(&s, r, bad));
    if (rs->has_cursor)
        after_write(&s, list, rs);
    buf_str(&s.text, list->order);
    rowset_limit(rs, &s);
    rs->statements[rs->n_statements++] = (struct statement){.sql = s.text.at, .params = s.params};
    return ST_OK;
}

static void list_answer(const struct list *list, struct request *r)
{
    struct rowset *rs = ARENA_NEW(r->arena, struct rowset);
    struct bad_param bad = {0};

    if (list_read(rs, list, r, &bad) == ST_OK)
        rowset_answer(rs, r);
    else
        answer_bad_parameter(r, bad.name, &bad.err);
}

void accounts_asked(struct gateway *g, struct request *r)
{
    (void)g;
    list_answer(&accounts, r);
}

void runs_asked(struct gateway *g, struct request *r)
{
    (void)g;
    list_answer(&runs, r);
}

void dead_asked(struct gateway *g, struct request *r)
{
    (void)g;
    list_answer(&dead, r);
}

void revisions_asked(struct gateway *g, struct request *r)
{
    (void)g;
    list_answer(&revisions, r);
}
