#include "gateway/health.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "gateway/metrics.h"
#include "gateway/request.h"
#include "gateway/server.h"
#include "gateway/stages.h"

#define KEEP_US (5 * US_PER_S)

/* One query, its answer as text, and who waits for it. */
struct shared {
    struct gateway *gateway;
    struct statement statement;
    struct query *query;
    struct request *first;
    struct arena *text; /* of the answer */
    struct buf answer;
    struct err err; /* err.status not ST_OK: the database did not answer */
    int64_t at_us;  /* 0: never */
    void (*read)(struct shared *s, const PGresult *r);
    void (*tell)(const struct shared *s, struct request *r);
};

struct scrape {
    struct shared ready, metrics;
    char limit[16];
};

/* ---- a shared query ---- */

static void shared_tell_all(struct shared *s)
{
    while (s->first) {
        struct request *r = s->first;

        s->first = r->next_waiter;
        r->abandoned = NULL;
        s->tell(s, r);
    }
}

static void on_rows(void *arg, size_t at, const PGresult *r)
{
    struct shared *s = arg;

    (void)at;
    s->read(s, r);
}

static void on_done(void *arg, enum status st, const char *sqlstate, const struct err *err)
{
    struct shared *s = arg;

    (void)sqlstate;
    s->query = NULL;
    s->at_us = clock_mono_us();
    s->err = (struct err){.status = st};
    if (st != ST_OK)
        s->err = *err;
    shared_tell_all(s);
}

static const struct query_hears hears = {.rows = on_rows, .done = on_done};

static void waiter_remove(struct shared *s, const struct request *r)
{
    struct request **link = &s->first;

    while (*link && *link != r)
        link = &(*link)->next_waiter;
    if (*link)
        *link = r->next_waiter;
}

static void waiter_gone(struct request *r)
{
    struct scrape *all = r->gateway->scrape;

    waiter_remove(&all->ready, r);
    waiter_remove(&all->metrics, r);
}

static void shared_asked(struct shared *s, struct request *r)
{
    if (s->at_us > 0 && clock_mono_us() - s->at_us < KEEP_US && !s->query) {
        s->tell(s, r);
        return;
    }
    r->next_waiter = s->first;
    s->first = r;
    r->abandoned = waiter_gone;
    if (s->query)
        return;
    arena_reset(s->text);
    s->answer = (struct buf){.arena = s->text};
    buf_str(&s->answer, "");
    s->query = query_start(s->gateway->database, &s->statement, 1, &hears, s);
}

static void shared_open(struct shared *s, struct gateway *g, const char *sql)
{
    s->gateway = g;
    s->text = arena_new();
    s->statement = (struct statement){.sql = sql, .whole = true};
}

static void shared_close(struct shared *s)
{
    query_drop(&s->query);
    arena_free(&s->text);
}

/* ---- ready ---- */

static void ready_read(struct shared *s, const PGresult *r)
{
    buf_text(&s->answer, pg_text(r, 0, 0));
}

static void put_check(struct json_writer *w, const char *name, bool ok, const char *detail)
{
    json_w_object(w);
    json_w_key(w, "name");
    json_w_str(w, name);
    json_w_key(w, "ok");
    json_w_bool(w, ok);
    json_w_key(w, "detail");
    json_w_str(w, ok ? NULL : detail);
    json_w_end(w);
}

/* Whether the schema is the one that this program was built for; `why` says what to do. */
static bool schema_good(const struct shared *s, struct arena *a, const char **why)
{
    long version = strtol(s->answer.at, NULL, 10);

    if (version == PG_SCHEMA_VERSION)
        return true;
    *why =
        version == 0 ? "the database has no tables of ours; run: usagectl migrate"
        : version < PG_SCHEMA_VERSION
            ? arena_printf(a, "it is at version %ld, this program needs %d; run: usagectl migrate",
                           version, PG_SCHEMA_VERSION)
            : arena_printf(a, "it is at version %ld, this program knows %d; upgrade it", version,
                           PG_SCHEMA_VERSION);
    return false;
}

static void ready_tell(const struct shared *s, struct request *r)
{
    static const char *const kinds[] = {"scheduler", "fetcher", "normalizer", "writer"};
    struct buf b = {.arena = r->arena}, list = {.arena = r->arena};
    struct json_writer w = {.out = &list};
    const char *missing = "", *why = NULL;
    bool database = s->err.status == ST_OK || s->err.status == ST_FATAL;
    bool no_table = s->err.status == ST_FATAL; /* it answered, and has no such table */
    bool schema = database && !no_table && schema_good(s, r->arena, &why);
    bool pipeline = stages_ready(r->gateway->stages, r->arena, &missing);
    bool ready = database && schema && pipeline;

    if (no_table)
        why = "the database has no tables of ours; run: usagectl migrate";
    json_w_array(&w);
    put_check(&w, "database", database, s->err.text);
    put_check(&w, "schema", schema, database ? why : "not known: the database does not answer");
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        put_check(&w, kinds[i], !strstr(missing, kinds[i]),
                  "no pulse: is it running, and with this UF_RUN_DIR or UF_PULSE?");
    json_w_end(&w);
    buf_printf(&b, "{\"ready\":%s,\"checks\":%s}\n", ready ? "true" : "false", list.at);
    answer_json(r, ready ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE, (struct text){b.at, b.len});
}

/* ---- metrics ---- */

static void metrics_read(struct shared *s, const PGresult *r)
{
    metrics_accounts(&s->answer, r);
}

static void put_own(struct buf *out, const char *name, const char *type, const char *help,
                    int64_t value)
{
    static const char *const none[][2] = {{NULL, NULL}};

    metrics_family(out, name, type, help);
    metrics_sample(out, name, none, arena_printf(out->arena, "%" PRId64, value));
}

static void metrics_tell(const struct shared *s, struct request *r)
{
    struct gateway *g = r->gateway;
    struct buf b = {.arena = r->arena};

    metrics_stages(&b, stages_instances(g->stages), clock_mono_us());
    if (s->err.status == ST_OK)
        buf_append(&b, s->answer.at, s->answer.len);
    else
        metrics_accounts(&b, NULL);
    put_own(&b, "http_connections", "gauge", "Connections to the gateway, now.",
            server_connections(g->server));
    put_own(&b, "http_requests_total", "counter", "Requests that the gateway has answered.",
            server_requests(g->server));
    answer_text(r, MHD_HTTP_OK, METRICS_CONTENT_TYPE, (struct text){b.at, b.len});
}

/* ---- life ---- */

void scrape_open(struct scrape **out, struct gateway *g)
{
    struct scrape *s = xalloc(1, sizeof(*s));

    *out = s;
    shared_open(&s->ready, g, "SELECT coalesce(max(version), 0) FROM schema_migrations");
    s->ready.read = ready_read;
    s->ready.tell = ready_tell;
    shared_open(&s->metrics, g, metrics_accounts_sql);
    (void)snprintf(s->limit, sizeof(s->limit), "%d", METRICS_ACCOUNTS_MAX);
    pg_param_text(&s->metrics.statement.params, s->limit);
    s->metrics.read = metrics_read;
    s->metrics.tell = metrics_tell;
}

void scrape_close(struct scrape **at)
{
    if (!*at)
        return;
    shared_close(&(*at)->ready);
    shared_close(&(*at)->metrics);
    free(*at);
    *at = NULL;
}

/* ---- handlers ---- */

/* These take no parameters; a mistyped one would otherwise be ignored in silence. */
static bool plain(struct request *r)
{
    static const char *const known[] = {NULL};
    struct bad_param bad = {0};

    if (params_check(&r->params, r->arena, known, &bad) == ST_OK)
        return true;
    answer_bad_parameter(r, bad.name, &bad.err);
    return false;
}

void healthz_asked(struct gateway *g, struct request *r)
{
    (void)g;
    if (plain(r))
        answer_json(r, MHD_HTTP_OK, TEXT_LIT("{\"alive\":true}\n"));
}

void readyz_asked(struct gateway *g, struct request *r)
{
    if (plain(r))
        shared_asked(&g->scrape->ready, r);
}

void metrics_asked(struct gateway *g, struct request *r)
{
    if (plain(r))
        shared_asked(&g->scrape->metrics, r);
}

void stages_asked(struct gateway *g, struct request *r)
{
    struct buf b = {.arena = r->arena};

    if (!plain(r))
        return;
    stages_json(&b, g->stages);
    buf_str(&b, "\n");
    answer_json(r, MHD_HTTP_OK, (struct text){b.at, b.len});
}
