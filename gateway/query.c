#include "gateway/query.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"

#define ROWS_A_TURN      2000 /* then the others have their turn */
#define CONNECT_LIMIT_US (10 * US_PER_S)
#define RECONNECT_US     (500 * US_PER_MS) /* a server that is away is not asked by every request */
#define SWEEP_MS         1000

enum conn_state { CONN_OFF, CONN_CONNECTING, CONN_IDLE, CONN_BUSY };

struct query {
    struct query_pool *pool;
    struct conn *conn; /* NULL: waits for one */
    struct query *next;
    const struct statement *statements;
    size_t n;
    const struct query_hears *hears;
    void *arg;
    int64_t deadline_us;
    bool paused;
};

struct conn {
    struct query_pool *pool;
    enum conn_state state;
    PGconn *pg;
    uv_poll_t *poll; /* closed later than the connection */
    int fd;
    struct query *query; /* NULL while busy: its transaction is being ended */
    size_t step;         /* 0: BEGIN, then the statements */
    enum status outcome; /* of the transaction so far */
    char sqlstate[6];
    struct err err;
    int64_t deadline_us;
};

struct query_pool {
    uv_loop_t *loop;
    char *url, *application_name, *begin_sql, *begin_heavy_sql;
    struct conn *conns;
    size_t n_conns;
    struct query *first, *last; /* that wait */
    uv_timer_t *sweep;
    uv_idle_t *idle;       /* has something to do right after this turn */
    int64_t away_until_us; /* connecting failed: not before */
    struct err away;
};

static void conn_progress(struct conn *c);
static void pool_pump(struct query_pool *pool);
static void on_idle(uv_idle_t *idle);

static void free_handle(uv_handle_t *handle)
{
    free(handle);
}

static void no_notice(void *arg, const char *text)
{
    (void)arg;
    (void)text;
}

/* ---- connections ---- */

static void conn_unwatch(struct conn *c)
{
    if (!c->poll)
        return;
    (void)uv_poll_stop(c->poll);
    uv_close((uv_handle_t *)c->poll, free_handle);
    c->poll = NULL;
    c->fd = -1;
}

static void conn_close(struct conn *c)
{
    conn_unwatch(c); /* before its descriptor is another's */
    if (c->pg)
        PQfinish(c->pg);
    c->pg = NULL;
    c->state = CONN_OFF;
    c->query = NULL;
}

static void on_socket(uv_poll_t *poll, int status, int events)
{
    struct conn *c = poll->data;

    (void)status; /* the next call to libpq finds out */
    (void)events;
    conn_progress(c);
    pool_pump(c->pool);
}

/* While it connects, libpq may go from one address's descriptor to the next one's. */
static void conn_watch(struct conn *c, int events)
{
    int fd = PQsocket(c->pg);

    if (fd != c->fd)
        conn_unwatch(c);
    if (fd < 0)
        return;
    if (!c->poll) {
        c->poll = xalloc(1, sizeof(*c->poll));
        c->poll->data = c;
        if (uv_poll_init(c->pool->loop, c->poll, fd) < 0) {
            free(c->poll);
            c->poll = NULL; /* the sweep's time limit ends it */
            return;
        }
        c->fd = fd;
    }
    (void)uv_poll_start(c->poll, events, on_socket);
}

static const char *one_line(const char *message, char *out, size_t size)
{
    size_t n = 0;

    for (; *message && n + 1 < size; message++)
        out[n++] = (char)(*message == '\n' || *message == '\t' ? ' ' : *message);
    while (n > 0 && out[n - 1] == ' ')
        n--;
    out[n] = '\0';
    return out;
}

/* Takes the query off; the asker hears how it ended. The connection is not touched. */
static void query_end(struct query *q, enum status st, const char *sqlstate, const struct err *err)
{
    const struct query_hears *hears = q->hears;
    void *arg = q->arg;

    if (q->conn)
        q->conn->query = NULL;
    free(q);
    hears->done(arg, st, sqlstate, err);
}

/* Everybody who waits would only wait for the same. */
static void pool_fail_waiting(struct query_pool *pool)
{
    struct query *q = pool->first;

    pool->first = pool->last = NULL;
    while (q) {
        struct query *next = q->next;
        query_end(q, ST_RETRY, "", &pool->away);
        q = next;
    }
}

static void conn_failed(struct conn *c, const char *doing)
{
    struct query_pool *pool = c->pool;
    struct query *q = c->query;
    bool connecting = c->state == CONN_CONNECTING;
    char text[300];
    struct err err;

    one_line(c->pg ? PQerrorMessage(c->pg) : "out of memory", text, sizeof(text));
    conn_close(c);
    (void)err_set(&err, ST_RETRY, "the database %s: %s", doing,
                  text[0] ? text : "no answer in time");
    if (q) {
        q->conn = NULL;
        query_end(q, ST_RETRY, "", &err);
    }
    if (!connecting)
        return;
    if (pool->away_until_us == 0)
        LOG(WARN, "postgres.away", KV("error", err.text));
    pool->away = err;
    pool->away_until_us = clock_mono_us() + RECONNECT_US;
    for (size_t i = 0; i < pool->n_conns; i++)
        if (pool->conns[i].state == CONN_BUSY)
            return; /* somebody is served, and will serve the others */
    pool_fail_waiting(pool);
}

static void conn_open(struct conn *c)
{
    const char *const keys[] = {"dbname",           "application_name", "client_encoding",
                                "connect_timeout",  "keepalives_idle",  "keepalives_interval",
                                "keepalives_count", "tcp_user_timeout", NULL};
    const char *const values[] = {
        c->pool->url, c->pool->application_name, "UTF8", "10", "30", "10", "3", "30000", NULL};

    c->state = CONN_CONNECTING;
    c->deadline_us = clock_mono_us() + CONNECT_LIMIT_US;
    c->pg = PQconnectStartParams(keys, values, 1);
    if (!c->pg || PQstatus(c->pg) == CONNECTION_BAD) {
        conn_failed(c, "can not be reached");
        return;
    }
    PQsetNoticeProcessor(c->pg, no_notice, NULL);
    conn_watch(c, UV_WRITABLE);
}

static void conn_connect(struct conn *c)
{
    switch (PQconnectPoll(c->pg)) {
    case PGRES_POLLING_READING:
        conn_watch(c, UV_READABLE);
        return;
    case PGRES_POLLING_WRITING:
        conn_watch(c, UV_WRITABLE);
        return;
    case PGRES_POLLING_OK:
        if (c->pool->away_until_us != 0)
            LOG(INFO, "postgres.back", KV("after", c->pool->away.text));
        c->pool->away_until_us = 0;
        (void)PQsetnonblocking(c->pg, 1);
        c->state = CONN_IDLE;
        conn_watch(c, UV_READABLE);
        return;
    case PGRES_POLLING_FAILED:
    case PGRES_POLLING_ACTIVE:
        break;
    }
    conn_failed(c, "can not be reached");
}

/* ---- one transaction ---- */

/* Sends what is next of the connection's transaction. */
static void conn_send(struct conn *c)
{
    const struct query *q = c->query;
    int sent;

    if (c->step == 0) {
        sent = PQsendQuery(c->pg, q->hears->heavy ? c->pool->begin_heavy_sql : c->pool->begin_sql);
    } else if (q && c->outcome == ST_OK && c->step <= q->n) {
        const struct statement *s = &q->statements[c->step - 1];
        const struct pg_params *p = &s->params;

        sent =
            PQsendQueryParams(c->pg, s->sql, p->n, p->types, p->values, p->lengths, p->formats, 0);
        if (sent && !s->whole)
            sent = PQsetSingleRowMode(c->pg);
    } else {
        sent = PQsendQuery(c->pg, "ROLLBACK"); /* nothing was changed: the shortest end */
    }
    if (!sent || PQflush(c->pg) < 0)
        conn_failed(c, "went away");
}

static void conn_take(struct conn *c, struct query *q)
{
    int64_t now = clock_mono_us();

    c->state = CONN_BUSY;
    c->query = q;
    c->step = 0;
    c->outcome = ST_OK;
    c->sqlstate[0] = '\0';
    c->deadline_us = now + QUERY_LIMIT_US;
    q->conn = c;
    conn_send(c);
}

/* One command has ended; what follows is sent, or the connection is free. */
static void conn_step(struct conn *c)
{
    struct query *q = c->query;
    bool ended = PQtransactionStatus(c->pg) == PQTRANS_IDLE;

    if (q && (c->outcome != ST_OK || c->step == q->n))
        query_end(q, c->outcome, c->sqlstate, &c->err); /* ROLLBACK follows unheard */
    if (!c->query && ended) {
        c->state = CONN_IDLE;
        return;
    }
    c->step++;
    conn_send(c);
}

static void conn_refused(struct conn *c, const PGresult *r)
{
    const char *code = PQresultErrorField(r, PG_DIAG_SQLSTATE);
    const char *message = PQresultErrorField(r, PG_DIAG_MESSAGE_PRIMARY);
    char text[400];

    if (c->outcome != ST_OK)
        return;
    (void)snprintf(c->sqlstate, sizeof(c->sqlstate), "%s", code ? code : "");
    c->outcome = err_set(&c->err, pg_status(c->sqlstate), "%s",
                         one_line(message ? message : PQresultErrorMessage(r), text, sizeof(text)));
}

static void conn_result(struct conn *c, const PGresult *r)
{
    const struct query *q = c->query;
    bool of_statement = q && c->step >= 1 && c->step <= q->n;

    switch (PQresultStatus(r)) {
    case PGRES_SINGLE_TUPLE:
        if (of_statement)
            q->hears->rows(q->arg, c->step - 1, r);
        return;
    case PGRES_TUPLES_OK:
        if (of_statement && q->statements[c->step - 1].whole)
            q->hears->rows(q->arg, c->step - 1, r);
        return;
    case PGRES_COMMAND_OK:
        return;
    default:
        conn_refused(c, r);
    }
}

/* What has arrived, at most a turn's rows of it. */
static void conn_receive(struct conn *c)
{
    for (int n = 0; c->state == CONN_BUSY; n++) {
        PGresult *r;

        if (c->query && c->query->paused) {
            (void)uv_poll_stop(c->poll);
            return;
        }
        if (n == ROWS_A_TURN) {
            (void)uv_idle_start(c->pool->idle, on_idle);
            return;
        }
        if (PQisBusy(c->pg))
            break;
        r = PQgetResult(c->pg);
        if (!r) {
            if (PQstatus(c->pg) != CONNECTION_OK) {
                conn_failed(c, "went away");
                return;
            }
            conn_step(c);
            continue;
        }
        conn_result(c, r);
        PQclear(r);
    }
    if (c->state != CONN_OFF)
        conn_watch(c,
                   UV_READABLE | (c->state == CONN_BUSY && PQflush(c->pg) > 0 ? UV_WRITABLE : 0));
}

static void conn_progress(struct conn *c)
{
    switch (c->state) {
    case CONN_OFF:
        return;
    case CONN_CONNECTING:
        conn_connect(c);
        return;
    case CONN_IDLE: /* nobody asked: the server says goodbye */
        if (!PQconsumeInput(c->pg) || PQstatus(c->pg) != CONNECTION_OK)
            conn_close(c);
        return;
    case CONN_BUSY:
        if (PQflush(c->pg) < 0 || !PQconsumeInput(c->pg)) {
            conn_failed(c, "went away");
            return;
        }
        conn_receive(c);
        return;
    }
}

/* ---- the queue ---- */

/* Takes the first that may run off the queue; NULL: none. */
static struct query *pool_next(struct query_pool *pool)
{
    struct query **link = &pool->first, *before = NULL, *q;
    size_t heavy = 0;

    for (size_t i = 0; i < pool->n_conns; i++)
        heavy += pool->conns[i].query && pool->conns[i].query->hears->heavy;
    while (*link && (*link)->hears->heavy && heavy + 1 >= pool->n_conns && pool->n_conns > 1) {
        before = *link;
        link = &before->next;
    }
    q = *link;
    if (!q)
        return NULL;
    *link = q->next;
    if (pool->last == q)
        pool->last = before;
    return q;
}

static void pool_pump(struct query_pool *pool)
{
    size_t connecting = 0, waiting = 0;
    struct query *q;

    for (size_t i = 0; i < pool->n_conns; i++) {
        struct conn *c = &pool->conns[i];

        while (c->state == CONN_IDLE && (q = pool_next(pool)))
            conn_take(c, q);
        connecting += c->state == CONN_CONNECTING;
    }
    for (q = pool->first; q; q = q->next)
        waiting++;
    for (size_t i = 0; i < pool->n_conns && waiting > connecting; i++) {
        if (pool->conns[i].state != CONN_OFF || clock_mono_us() < pool->away_until_us)
            continue;
        connecting++;
        conn_open(&pool->conns[i]);
    }
}

static void on_idle(uv_idle_t *idle)
{
    struct query_pool *pool = idle->data;

    (void)uv_idle_stop(idle);
    for (size_t i = 0; i < pool->n_conns; i++)
        if (pool->conns[i].state == CONN_BUSY)
            conn_progress(&pool->conns[i]);
    pool_pump(pool);
}

/* Waited too long in the queue. */
static void sweep_waiting(struct query_pool *pool, int64_t now_us)
{
    static const struct err late = {ST_RETRY, "every connection to the database is taken"};

    while (pool->first && pool->first->deadline_us < now_us) {
        struct query *q = pool->first;

        pool->first = q->next;
        if (!pool->first)
            pool->last = NULL;
        query_end(q, ST_RETRY, "", &late);
    }
}

static void on_sweep(uv_timer_t *timer)
{
    struct query_pool *pool = timer->data;
    int64_t now = clock_mono_us();

    for (size_t i = 0; i < pool->n_conns; i++) {
        struct conn *c = &pool->conns[i];
        bool limited = c->state == CONN_CONNECTING || c->state == CONN_BUSY;

        if (limited && now > c->deadline_us)
            conn_failed(c, c->state == CONN_CONNECTING ? "can not be reached" : "took too long");
    }
    sweep_waiting(pool, now);
    pool_pump(pool);
}

/* ---- for the askers ---- */

struct query *query_start(struct query_pool *pool, const struct statement *statements, size_t n,
                          const struct query_hears *hears, void *arg)
{
    struct query *q = xalloc(1, sizeof(*q));

    q->pool = pool;
    q->statements = statements;
    q->n = n;
    q->hears = hears;
    q->arg = arg;
    q->deadline_us = clock_mono_us() + QUERY_QUEUE_LIMIT_US;
    if (pool->last)
        pool->last->next = q;
    else
        pool->first = q;
    pool->last = q;
    /* not in here: a connection that fails at once would call `done` before the asker has it */
    (void)uv_idle_start(pool->idle, on_idle);
    return q;
}

void query_pause(struct query *q, bool paused)
{
    if (q->paused == paused)
        return;
    q->paused = paused;
    if (!paused && q->conn) /* rows may wait inside of libpq, where no descriptor tells of them */
        (void)uv_idle_start(q->pool->idle, on_idle);
}

void query_drop(struct query **at)
{
    struct query *q = *at, **link;

    if (!q)
        return;
    *at = NULL;
    if (q->conn) {
        conn_close(q->conn); /* the server notices, at the latest by its statement's limit */
    } else {
        struct query *before = NULL;

        for (link = &q->pool->first; *link && *link != q; link = &(*link)->next)
            before = *link;
        if (*link)
            *link = q->next;
        if (q->pool->last == q)
            q->pool->last = before;
    }
    free(q);
}

/* ---- life ---- */

void query_pool_open(struct query_pool **out, uv_loop_t *loop, const struct config *cfg)
{
    /* A deadline in the server for each statement; jit and helpers would begin for longer
     * than they run. */
    static const char begin[] =
        "BEGIN READ ONLY; SET LOCAL search_path = \"%s\"; SET LOCAL statement_timeout = '%s'; SET "
        "LOCAL idle_in_transaction_session_timeout = '60s'; SET LOCAL timezone = 'UTC'; SET LOCAL "
        "datestyle = 'ISO'; SET LOCAL jit = off; SET LOCAL work_mem = '32MB'; SET LOCAL "
        "max_parallel_workers_per_gather = 0";
    /* Sums over many rows: the planner takes days that have to be read from rows for a hundred
     * times as many as they are, and would sort them all for fear of a hash that does not fit. */
    static const char heavy[] = "; SET LOCAL enable_sort = off";
    struct query_pool *pool = xalloc(1, sizeof(*pool));
    size_t len = sizeof(begin) + strlen(cfg->schema) + sizeof(QUERY_STATEMENT_LIMIT);

    *out = pool;
    pool->loop = loop;
    pool->url = xstrdup(cfg->database_url);
    pool->application_name = xstrdup(cfg->instance);
    pool->begin_sql = xalloc(1, len);
    (void)snprintf(pool->begin_sql, len, begin, cfg->schema, QUERY_STATEMENT_LIMIT);
    len += sizeof(heavy);
    pool->begin_heavy_sql = xalloc(1, len);
    (void)snprintf(pool->begin_heavy_sql, len, "%s%s", pool->begin_sql, heavy);
    pool->n_conns = (size_t)cfg->http_database;
    pool->conns = xalloc(pool->n_conns, sizeof(*pool->conns));
    for (size_t i = 0; i < pool->n_conns; i++) {
        pool->conns[i].pool = pool;
        pool->conns[i].fd = -1;
    }
    pool->sweep = xalloc(1, sizeof(*pool->sweep));
    pool->idle = xalloc(1, sizeof(*pool->idle));
    (void)uv_timer_init(loop, pool->sweep);
    (void)uv_idle_init(loop, pool->idle);
    pool->sweep->data = pool->idle->data = pool;
    (void)uv_timer_start(pool->sweep, on_sweep, SWEEP_MS, SWEEP_MS);
}

void query_pool_close(struct query_pool **at)
{
    struct query_pool *pool = *at;

    if (!pool)
        return;
    for (size_t i = 0; i < pool->n_conns; i++) {
        free(pool->conns[i].query);
        conn_close(&pool->conns[i]);
    }
    while (pool->first) {
        struct query *q = pool->first;
        pool->first = q->next;
        free(q);
    }
    uv_close((uv_handle_t *)pool->sweep, free_handle);
    uv_close((uv_handle_t *)pool->idle, free_handle);
    explicit_bzero(pool->url, strlen(pool->url)); /* it may hold a password */
    free(pool->url);
    free(pool->application_name);
    free(pool->begin_sql);
    free(pool->begin_heavy_sql);
    free(pool->conns);
    free(pool);
    *at = NULL;
}
