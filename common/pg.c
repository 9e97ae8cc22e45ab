#include "common/pg.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/stage.h"
#include "common/utf8.h"

#define CONNECT_LIMIT_US (10 * US_PER_S)
#define COPY_CHUNK       ((size_t)1 << 20)

#define DEFERRED_RESULTS 4

/* The result of a deferred statement that somebody asked for. */
struct wanted {
    int nth; /* of the statements sent */
    PGresult **out;
    struct arena *a;
};

struct pg {
    char *url, *schema, *application_name;
    char *begin_sql, *settings_sql; /* the latter as one statement, without BEGIN */
    PGconn *conn;
    char sqlstate[6];
    int64_t wait_us;
    int64_t stop_by_us; /* asked to stop: no wait lasts longer; 0: not asked yet */
    bool deferring;     /* statements are sent and not waited for */
    int64_t deferred_until_us, copy_until_us;
    bool copy_asked;     /* sent, and not answered yet */
    struct err deferred; /* the first failure among their answers so far */
    bool committing;     /* a COMMIT is among them */
    bool committed;
    int n_sent, n_answered;
    struct wanted wanted[DEFERRED_RESULTS]; /* in the order of the statements */
    int n_wanted, n_given;
};

static void no_notice(void *arg, const char *text)
{
    (void)arg;
    (void)text;
}

/* Of each transaction, with which they end, so a pooler may hand the connection to anybody after.
 * The methods switched off: a batch's few keys must find their rows by the index, whatever the
 * planner thinks of a table that has just grown. jit: it would compile for longer than they run. */
static const struct {
    const char *name, *value;
} settings[] = {
    {"statement_timeout", "30s"},
    {"lock_timeout", "10s"},
    {"idle_in_transaction_session_timeout", "60s"},
    {"timezone", "UTC"},
    {"jit", "off"},
    {"enable_hashjoin", "off"},
    {"enable_mergejoin", "off"},
    {"enable_seqscan", "off"},
};

static void make_begin(struct pg *pg)
{
    struct arena *a = arena_new();
    struct buf begin = {.arena = a}, select = {.arena = a};

    buf_printf(&begin, "BEGIN; SET LOCAL search_path = \"%s\"", pg->schema);
    buf_printf(&select, "SELECT set_config('search_path', '\"%s\"', true)", pg->schema);
    for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
        buf_printf(&begin, "; SET LOCAL %s = '%s'", settings[i].name, settings[i].value);
        buf_printf(&select, ", set_config('%s', '%s', true)", settings[i].name, settings[i].value);
    }
    pg->begin_sql = xstrdup(begin.at);
    pg->settings_sql = xstrdup(select.at);
    arena_free(&a);
}

void pg_open(struct pg **out, const char *url, const char *schema, const char *application_name)
{
    struct pg *pg = xalloc(1, sizeof(*pg));
    pg->url = xstrdup(url);
    pg->schema = xstrdup(schema);
    pg->application_name = xstrdup(application_name);
    pg->wait_us = PG_WAIT_DEFAULT_US + 5 * US_PER_S; /* the server's own limit ends it first */
    make_begin(pg);
    *out = pg;
}

void pg_disconnect(struct pg *pg)
{
    if (pg->conn)
        PQfinish(pg->conn);
    pg->conn = NULL;
    pg->deferring = pg->copy_asked = false;
}

void pg_close(struct pg **pg)
{
    if (!*pg)
        return;
    pg_disconnect(*pg);
    explicit_bzero((*pg)->url, strlen((*pg)->url)); /* it may hold a password */
    free((*pg)->url);
    free((*pg)->schema);
    free((*pg)->application_name);
    free((*pg)->begin_sql);
    free((*pg)->settings_sql);
    free(*pg);
    *pg = NULL;
}

bool pg_connected(const struct pg *pg)
{
    return pg->conn && PQstatus(pg->conn) == CONNECTION_OK;
}

void pg_wait_limit(struct pg *pg, int64_t us)
{
    pg->wait_us = us;
}

const char *pg_sqlstate(const struct pg *pg)
{
    return pg->sqlstate;
}

enum status pg_status(const char *sqlstate)
{
    /* Besides classes three codes: thrown out since the process was stopped inside a transaction,
     * and a server that is read-only for now (a failover, or a hosted one whose disk is full). */
    static const char *const retry[] = {"08", "40", "53", "55", "57", "25P03", "25P04", "25006"};
    static const char *const reject[] = {"22", "23"};

    if (!sqlstate || !*sqlstate)
        return ST_RETRY;
    for (size_t i = 0; i < sizeof(retry) / sizeof(retry[0]); i++)
        if (strncmp(sqlstate, retry[i], strlen(retry[i])) == 0)
            return ST_RETRY;
    for (size_t i = 0; i < sizeof(reject) / sizeof(reject[0]); i++)
        if (strncmp(sqlstate, reject[i], 2) == 0)
            return ST_REJECT;
    return ST_FATAL;
}

/* A server's or libpq's message on one line, without its trailing newline. */
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

/* ---- waiting ---- */

/* What is left until the deadline. Asked to stop, a stage has STAGE_STOP_MAX_US in all: of these
 * Postgres gets half, however many statements are still to come. */
static int64_t wait_left_us(struct pg *pg, int64_t deadline_us)
{
    int64_t now = clock_mono_us();

    if (stage_stopping() && !pg->stop_by_us)
        pg->stop_by_us = now + STAGE_STOP_MAX_US / 2;
    if (pg->stop_by_us && pg->stop_by_us < deadline_us)
        deadline_us = pg->stop_by_us;
    return deadline_us - now;
}

static bool wait_for(struct pg *pg, short events, int64_t deadline_us)
{
    struct pollfd fd = {.fd = PQsocket(pg->conn), .events = events};
    int64_t left = wait_left_us(pg, deadline_us);

    while (left > 0) {
        int rc = poll(&fd, 1, (int)((left + US_PER_MS - 1) / US_PER_MS));
        if (rc > 0)
            return true;
        if (rc < 0 && errno != EINTR)
            return false;
        left = wait_left_us(pg, deadline_us);
    }
    return false;
}

static enum status lost(struct pg *pg, const char *doing, struct err *err)
{
    char text[300];

    (void)err_set(err, ST_RETRY, "Postgres: %s: %s", doing,
                  one_line(PQerrorMessage(pg->conn), text, sizeof(text)));
    if (!text[0])
        (void)err_set(err, ST_RETRY, "Postgres: %s: no answer in time", doing);
    pg->sqlstate[0] = '\0';
    pg_disconnect(pg);
    return ST_RETRY;
}

static enum status flush(struct pg *pg, int64_t deadline_us, struct err *err)
{
    int rc;

    while ((rc = PQflush(pg->conn)) > 0) {
        if (!wait_for(pg, POLLIN | POLLOUT, deadline_us))
            return lost(pg, "send", err);
        if (!PQconsumeInput(pg->conn))
            return lost(pg, "send", err);
    }
    return rc < 0 ? lost(pg, "send", err) : ST_OK;
}

/* The next result, or NULL at the end of the command. */
static enum status next_result(struct pg *pg, PGresult **out, int64_t deadline_us, struct err *err)
{
    while (PQisBusy(pg->conn)) {
        if (!wait_for(pg, POLLIN, deadline_us))
            return lost(pg, "wait", err);
        if (!PQconsumeInput(pg->conn))
            return lost(pg, "receive", err);
    }
    *out = PQgetResult(pg->conn);
    return ST_OK;
}

static enum status failed(struct pg *pg, const PGresult *r, struct err *err)
{
    const char *code = PQresultErrorField(r, PG_DIAG_SQLSTATE);
    char text[400];

    (void)snprintf(pg->sqlstate, sizeof(pg->sqlstate), "%s", code ? code : "");
    return err_set(err, pg_status(pg->sqlstate), "Postgres: %s",
                   one_line(PQresultErrorMessage(r), text, sizeof(text)));
}

static void clear_result(void *r)
{
    PQclear(r);
}

/* Reads to the end of the command, so that the connection can be used again whatever happened. The
 * last good result is handed out; the first failure decides. */
static enum status drain(struct pg *pg, PGresult **out, int64_t deadline_us, struct err *err)
{
    enum status st = ST_OK;
    PGresult *last = NULL, *r;

    for (;;) {
        enum status got = next_result(pg, &r, deadline_us, err);
        if (got != ST_OK) {
            PQclear(last);
            return got;
        }
        if (!r)
            break;
        switch (PQresultStatus(r)) {
        case PGRES_COMMAND_OK:
        case PGRES_TUPLES_OK:
            PQclear(last);
            last = r;
            break;
        case PGRES_COPY_IN: /* handed to pg_copy; never seen here otherwise */
            PQclear(last);
            *out = r;
            return st;
        case PGRES_COPY_OUT:
        case PGRES_COPY_BOTH: /* nothing of ours asks for it, and it would never end here */
            PQclear(r);
            PQclear(last);
            return lost(pg, "unexpected COPY", err);
        default:
            if (st == ST_OK)
                st = failed(pg, r, err);
            PQclear(r);
        }
    }
    if (st == ST_OK && !pg_connected(pg))
        st = err_set(err, ST_RETRY, "Postgres: the connection was lost");
    if (st == ST_FATAL && !pg_connected(pg)) /* a pooler's last words have codes of their own */
        st = err->status = ST_RETRY;
    if (st != ST_OK) {
        PQclear(last);
        last = NULL;
        pg_rollback(pg);
    }
    *out = last;
    return st;
}

/* ---- connecting ---- */

/* Failures that no waiting mends. libpq gives no code for them, only the server's words. */
static bool hopeless(const char *message)
{
    static const char *const words[] = {
        "password authentication failed", "no pg_hba.conf entry", "does not exist",
        "no password supplied",           "invalid sslmode",      "certificate verify failed"};

    if (strstr(message, "No such file or directory")) /* the socket: not up yet */
        return false;
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        if (strstr(message, words[i]))
            return true;
    return false;
}

static enum status connect_failed(struct pg *pg, struct err *err)
{
    char text[300];

    one_line(PQerrorMessage(pg->conn), text, sizeof(text));
    pg_disconnect(pg);
    pg->sqlstate[0] = '\0';
    return err_set(err, hopeless(text) ? ST_FATAL : ST_RETRY, "can not reach Postgres: %s",
                   text[0] ? text : "no answer in time");
}

enum status pg_connect(struct pg *pg, struct err *err)
{
    const char *const keys[] = {"dbname",           "application_name", "client_encoding",
                                "connect_timeout",  "keepalives_idle",  "keepalives_interval",
                                "keepalives_count", "tcp_user_timeout", NULL};
    const char *const values[] = {
        pg->url, pg->application_name, "UTF8", "10", "30", "10", "3", "30000", NULL};
    int64_t deadline = clock_mono_us() + CONNECT_LIMIT_US;
    PostgresPollingStatusType state = PGRES_POLLING_WRITING;
    char *why = NULL;
    PQconninfoOption *parsed;

    if (pg_connected(pg))
        return ST_OK;
    pg_disconnect(pg);
    parsed = PQconninfoParse(pg->url, &why);
    if (!parsed) {
        bool no_memory = !why || strstr(why, "out of memory");
        PQfreemem(why); /* may show the password */
        if (no_memory)
            return err_set(err, ST_RETRY, "can not read DATABASE_URL: out of memory");
        return err_set(
            err, ST_FATAL,
            "DATABASE_URL can not be read; write postgresql://USER:PASSWORD@HOST/DATABASE");
    }
    PQconninfoFree(parsed);
    pg->conn = PQconnectStartParams(keys, values, 1);
    if (!pg->conn)
        return err_set(err, ST_RETRY, "can not reach Postgres: out of memory");
    PQsetNoticeProcessor(pg->conn, no_notice, NULL);
    while (PQstatus(pg->conn) != CONNECTION_BAD && state != PGRES_POLLING_OK) {
        if (!wait_for(pg, state == PGRES_POLLING_READING ? POLLIN : POLLOUT, deadline))
            return connect_failed(pg, err);
        state = PQconnectPoll(pg->conn);
        if (state == PGRES_POLLING_FAILED)
            break;
    }
    if (PQstatus(pg->conn) != CONNECTION_OK)
        return connect_failed(pg, err);
    (void)PQsetnonblocking(pg->conn, 1);
    return ST_OK;
}

enum status pg_await(struct pg *pg, bool (*stop)(void), struct err *err)
{
    int wait_ms = 100;

    for (bool first = true; !stop(); first = false) {
        enum status st = pg_connect(pg, err);
        if (st != ST_RETRY)
            return st;
        if (first)
            LOG(WARN, "postgres.awaited", KV("error", err->text));
        (void)poll(NULL, 0, wait_ms); /* a signal ends it early */
        wait_ms = wait_ms < 1000 ? wait_ms * 2 : 1000;
    }
    return ST_OK;
}

/* ---- statements ---- */

void pg_param_text(struct pg_params *p, const char *value)
{
    p->values[p->n++] = value;
}

/* Calls buf_append for valid runs of `t`, and puts U+FFFD for the rest. `escape`: '"' and '\\' get
 * a backslash. */
static void append_utf8(struct buf *b, struct text t, bool escape)
{
    for (size_t at = 0; at < t.len;) {
        size_t len = t.at[at] ? utf8_sequence(t.at + at, t.len - at) : 0;
        if (escape && (t.at[at] == '"' || t.at[at] == '\\'))
            buf_str(b, "\\");
        if (len > 0)
            buf_append(b, t.at + at, len);
        else
            buf_str(b, UTF8_REPLACEMENT);
        at += len ? len : 1;
    }
}

void pg_param_utf8(struct pg_params *p, struct arena *a, struct text t)
{
    struct buf b = {.arena = a};

    buf_str(&b, "");
    append_utf8(&b, t, false);
    pg_param_text(p, t.at ? b.at : NULL);
}

void pg_param_int(struct pg_params *p, struct arena *a, int64_t v)
{
    p->values[p->n++] = arena_printf(a, "%" PRId64, v);
}

void pg_param_binary(struct pg_params *p, unsigned type, const void *value, size_t len)
{
    p->values[p->n] = value;
    p->lengths[p->n] = (int)len;
    p->formats[p->n] = 1;
    p->types[p->n++] = type;
}

/* What can go at once goes: Postgres works on it while the caller makes the next. */
static enum status deferred_sent(struct pg *pg, PGresult **out, struct arena *a, struct err *err)
{
    if (out) {
        assert(a && pg->n_wanted < DEFERRED_RESULTS);
        pg->wanted[pg->n_wanted++] = (struct wanted){.nth = pg->n_sent, .out = out, .a = a};
    }
    pg->n_sent++;
    return PQflush(pg->conn) < 0 ? lost(pg, "send", err) : ST_OK;
}

enum status pg_query(struct pg *pg, PGresult **out, struct arena *a, const char *sql,
                     const struct pg_params *params, struct err *err)
{
    static const struct pg_params none;
    const struct pg_params *p = params ? params : &none;
    int64_t deadline = clock_mono_us() + pg->wait_us;
    PGresult *r = NULL;

    TRY(pg_connect(pg, err));
    pg->sqlstate[0] = '\0';
    if (!PQsendQueryParams(pg->conn, sql, p->n, p->types, p->values, p->lengths, p->formats,
                           p->binary_result))
        return lost(pg, "query", err);
    if (pg->deferring)
        return deferred_sent(pg, out, a, err);
    TRY(flush(pg, deadline, err));
    TRY(drain(pg, &r, deadline, err));
    if (out)
        *out = r;
    if (r && a)
        arena_defer(a, clear_result, r);
    else
        PQclear(r);
    return ST_OK;
}

static enum status exec_until(struct pg *pg, const char *sql, int64_t deadline, struct err *err)
{
    PGresult *r = NULL;

    TRY(pg_connect(pg, err));
    pg->sqlstate[0] = '\0';
    if (!PQsendQuery(pg->conn, sql))
        return lost(pg, "query", err);
    TRY(flush(pg, deadline, err));
    TRY(drain(pg, &r, deadline, err));
    PQclear(r);
    return ST_OK;
}

enum status pg_exec(struct pg *pg, const char *sql, struct err *err)
{
    return exec_until(pg, sql, clock_mono_us() + pg->wait_us, err);
}

enum status pg_begin(struct pg *pg, struct err *err)
{
    int64_t deadline = clock_mono_us() + pg->wait_us;
    bool kept = pg_connected(pg);
    enum status st = exec_until(pg, pg->begin_sql, deadline, err);

    /* A server or a pooler that was restarted meanwhile shows only now. A BEGIN that came to
     * nothing may be sent twice; what follows it may not. */
    if (st == ST_RETRY && kept && !pg_connected(pg) && clock_mono_us() < deadline)
        st = exec_until(pg, pg->begin_sql, deadline, err);
    return st;
}

enum status pg_commit(struct pg *pg, struct err *err)
{
    struct arena *a = arena_new();
    PGresult *r = NULL;
    enum status st = pg_query(pg, &r, a, "COMMIT", NULL, err);

    /* of a transaction that had failed, COMMIT succeeds and says ROLLBACK */
    if (st == ST_OK && strcmp(PQcmdStatus(r), "COMMIT") != 0)
        st = err_set(err, ST_RETRY, "Postgres: the transaction had failed and was rolled back");
    arena_free(&a);
    return st;
}

void pg_rollback(struct pg *pg)
{
    int64_t deadline = clock_mono_us() + 5 * US_PER_S;
    struct err ignored = {0};
    PGresult *r = NULL;

    if (!pg->conn)
        return;
    /* of statements that were sent and not answered nothing is to be waited for */
    if (!pg_connected(pg) || pg->deferring || PQtransactionStatus(pg->conn) == PQTRANS_UNKNOWN) {
        pg_disconnect(pg);
        return;
    }
    if (PQtransactionStatus(pg->conn) == PQTRANS_IDLE)
        return;
    if (!PQsendQuery(pg->conn, "ROLLBACK") || flush(pg, deadline, &ignored) != ST_OK) {
        pg_disconnect(pg);
        return;
    }
    while (pg->conn && next_result(pg, &r, deadline, &ignored) == ST_OK && r)
        PQclear(r);
    if (pg->conn && PQtransactionStatus(pg->conn) != PQTRANS_IDLE)
        pg_disconnect(pg);
}

/* ---- the rest of a transaction, not waited for ---- */

int pg_socket(const struct pg *pg)
{
    return pg->conn ? PQsocket(pg->conn) : -1;
}

enum status pg_defer(struct pg *pg, struct err *err)
{
    if (!pg_connected(pg) || !PQenterPipelineMode(pg->conn))
        return lost(pg, "pipeline", err);
    pg->deferring = true;
    pg->deferred = (struct err){.status = ST_OK};
    pg->committing = pg->committed = false;
    pg->n_sent = pg->n_answered = pg->n_wanted = pg->n_given = 0;
    return ST_OK;
}

enum status pg_begin_deferred(struct pg *pg, struct err *err)
{
    TRY(pg_connect(pg, err));
    TRY(pg_defer(pg, err));
    TRY(pg_query(pg, NULL, NULL, "BEGIN", NULL, err));
    return pg_query(pg, NULL, NULL, pg->settings_sql, NULL, err);
}

/* Sent to the last byte: what only waits in this process would hold its locks for as long as the
 * caller is busy. */
enum status pg_deferred_send(struct pg *pg, struct err *err)
{
    pg->deferred_until_us = clock_mono_us() + pg->wait_us;
    if (!PQpipelineSync(pg->conn))
        return lost(pg, "pipeline", err);
    return flush(pg, pg->deferred_until_us, err);
}

enum status pg_deferred_commit(struct pg *pg, struct err *err)
{
    TRY(pg_query(pg, NULL, NULL, "COMMIT", NULL, err));
    pg->committing = true;
    return pg_deferred_send(pg, err);
}

/* The answer of the next statement. The first failure decides; those that follow were skipped
 * because of it. */
static void take_deferred(struct pg *pg, PGresult *r)
{
    const struct wanted *wanted = &pg->wanted[pg->n_given];

    switch (PQresultStatus(r)) {
    case PGRES_COMMAND_OK:
        pg->committed = strcmp(PQcmdStatus(r), "COMMIT") == 0;
        break;
    case PGRES_TUPLES_OK:
        break;
    default:
        if (pg->deferred.status == ST_OK)
            (void)failed(pg, r, &pg->deferred);
    }
    if (pg->n_given < pg->n_wanted && wanted->nth == pg->n_answered) {
        *wanted->out = r;
        arena_defer(wanted->a, clear_result, r);
        pg->n_given++;
    } else {
        PQclear(r);
    }
    pg->n_answered++;
}

enum status pg_deferred_poll(struct pg *pg, bool *done, struct err *err)
{
    bool synced = false;

    *done = true;
    if (!pg->deferring || !pg_connected(pg) || !PQconsumeInput(pg->conn))
        return lost(pg, "receive", err);
    while (!synced) {
        PGresult *r;
        if (PQisBusy(pg->conn)) {
            *done = wait_left_us(pg, pg->deferred_until_us) <= 0;
            return *done ? lost(pg, "wait", err) : ST_OK;
        }
        r = PQgetResult(pg->conn);
        if (!r) { /* between two statements */
            if (!pg_connected(pg))
                return lost(pg, "receive", err);
            continue;
        }
        synced = PQresultStatus(r) == PGRES_PIPELINE_SYNC;
        if (synced)
            PQclear(r);
        else
            take_deferred(pg, r);
    }
    if (!PQexitPipelineMode(pg->conn))
        return lost(pg, "pipeline", err);
    pg->deferring = false;
    if (pg->deferred.status == ST_OK && pg->committing && !pg->committed)
        (void)err_set(&pg->deferred, ST_RETRY, "Postgres: the transaction was rolled back");
    if (pg->deferred.status == ST_OK)
        return ST_OK;
    pg_rollback(pg);
    *err = pg->deferred;
    return err->status;
}

enum status pg_deferred_wait(struct pg *pg, struct err *err)
{
    for (;;) {
        bool done;
        enum status st = pg_deferred_poll(pg, &done, err);
        if (done)
            return st;
        (void)wait_for(pg, POLLIN, pg->deferred_until_us); /* the poll tells why it ended */
    }
}

enum status pg_deferred_join(struct pg *pg, struct err *err)
{
    if (pg->n_sent == 0 && pg_connected(pg) && PQexitPipelineMode(pg->conn)) {
        pg->deferring = false;
        return ST_OK;
    }
    TRY(pg_deferred_send(pg, err));
    return pg_deferred_wait(pg, err);
}

/* ---- COPY ---- */

enum status pg_copy_begin(struct pg *pg, const char *sql, struct err *err)
{
    TRY(pg_connect(pg, err));
    pg->copy_until_us = clock_mono_us() + pg->wait_us;
    pg->sqlstate[0] = '\0';
    if (!PQsendQuery(pg->conn, sql))
        return lost(pg, "copy", err);
    pg->copy_asked = true;
    return flush(pg, pg->copy_until_us, err);
}

/* Postgres is ready for the rows. */
static enum status copy_ready(struct pg *pg, struct err *err)
{
    PGresult *r = NULL;
    bool good;

    if (!pg->copy_asked)
        return ST_OK;
    pg->copy_asked = false;
    TRY(drain(pg, &r, pg->copy_until_us, err));
    good = r && PQresultStatus(r) == PGRES_COPY_IN;
    PQclear(r);
    return good ? ST_OK : err_set(err, ST_FATAL, "Postgres: the statement is no COPY FROM STDIN");
}

enum status pg_copy_put(struct pg *pg, struct text data, struct err *err)
{
    TRY(copy_ready(pg, err));
    for (size_t at = 0; at < data.len;) {
        size_t n = data.len - at < COPY_CHUNK ? data.len - at : COPY_CHUNK;
        int rc = PQputCopyData(pg->conn, data.at + at, (int)n);
        if (rc < 0)
            return lost(pg, "copy", err);
        if (rc > 0)
            at += n;
        TRY(flush(pg, pg->copy_until_us, err));
    }
    return ST_OK;
}

enum status pg_copy_end(struct pg *pg, int64_t *out_rows, struct err *err)
{
    PGresult *r = NULL;
    int rc;

    TRY(copy_ready(pg, err));
    while ((rc = PQputCopyEnd(pg->conn, NULL)) == 0)
        TRY(flush(pg, pg->copy_until_us, err));
    if (rc < 0)
        return lost(pg, "copy", err);
    TRY(flush(pg, pg->copy_until_us, err));
    TRY(drain(pg, &r, pg->copy_until_us, err));
    if (out_rows)
        *out_rows = r ? strtoll(PQcmdTuples(r), NULL, 10) : 0;
    PQclear(r);
    return ST_OK;
}

/* ---- schema ---- */

enum status pg_check_schema(struct pg *pg, struct err *err)
{
    struct arena *a = arena_new();
    struct pg_params p = {0};
    PGresult *r = NULL;
    enum status st;
    int64_t version;

    pg_param_text(&p, arena_printf(a, "\"%s\".schema_migrations", pg->schema));
    st = pg_query(pg, &r, a, "SELECT to_regclass($1) IS NOT NULL", &p, err);
    if (st == ST_OK && PQgetvalue(r, 0, 0)[0] != 't')
        st = err_set(err, ST_FATAL,
                     "the database has no tables of ours in schema \"%s\"; run: usagectl migrate",
                     pg->schema);
    if (st == ST_OK)
        st = pg_query(pg, &r, a,
                      arena_printf(a,
                                   "SELECT coalesce(max(version), 0) FROM \"%s\".schema_migrations",
                                   pg->schema),
                      NULL, err);
    if (st != ST_OK && strcmp(pg->sqlstate, "42501") == 0)
        st = err_set(err, ST_FATAL,
                     "this database login has no part in schema \"%s\": it has to be a member of "
                     "uf_scheduler, uf_writer, uf_gateway or uf_admin (docs/security.md)",
                     pg->schema);
    if (st == ST_OK) {
        version = pg_int(r, 0, 0);
        if (version < PG_SCHEMA_VERSION)
            st = err_set(err, ST_FATAL,
                         "the schema is at version %" PRId64
                         ", this program needs %d; run: usagectl migrate",
                         version, PG_SCHEMA_VERSION);
        else if (version > PG_SCHEMA_VERSION)
            st = err_set(err, ST_FATAL,
                         "the schema is at version %" PRId64
                         ", this program knows only %d; upgrade the program",
                         version, PG_SCHEMA_VERSION);
    }
    arena_free(&a);
    return st;
}

/* ---- values ---- */

int64_t pg_int(const PGresult *r, int row, int col)
{
    return PQgetisnull(r, row, col) ? 0 : strtoll(PQgetvalue(r, row, col), NULL, 10);
}

struct text pg_text(const PGresult *r, int row, int col)
{
    if (PQgetisnull(r, row, col))
        return TEXT_NULL;
    return (struct text){PQgetvalue(r, row, col), (size_t)PQgetlength(r, row, col)};
}

void pg_array_open(struct pg_array *arr, struct arena *a)
{
    *arr = (struct pg_array){.buf = {.arena = a}};
    buf_str(&arr->buf, "{");
}

static void array_comma(struct pg_array *arr)
{
    if (arr->any)
        buf_str(&arr->buf, ",");
    arr->any = true;
}

void pg_array_int(struct pg_array *arr, int64_t v)
{
    array_comma(arr);
    buf_printf(&arr->buf, "%" PRId64, v);
}

void pg_array_text(struct pg_array *arr, struct text t)
{
    array_comma(arr);
    if (!t.at) {
        buf_str(&arr->buf, "NULL");
        return;
    }
    buf_str(&arr->buf, "\"");
    append_utf8(&arr->buf, t, true);
    buf_str(&arr->buf, "\"");
}

void pg_array_time(struct pg_array *arr, int64_t us)
{
    char text[TIME_TEXT_MAX];

    array_comma(arr);
    if (us == 0)
        buf_str(&arr->buf, "NULL");
    else
        buf_printf(&arr->buf, "\"%s\"", time_format(text, us));
}

void pg_array_bytea(struct pg_array *arr, struct text raw)
{
    static const char digits[] = "0123456789abcdef";

    array_comma(arr);
    if (!raw.at) {
        buf_str(&arr->buf, "NULL");
        return;
    }
    buf_str(&arr->buf, "\"\\\\x"); /* its backslash is escaped, as in any quoted element */
    for (size_t i = 0; i < raw.len; i++) {
        const unsigned char byte = (unsigned char)raw.at[i];
        const char two[] = {digits[byte >> 4], digits[byte & 15]};
        buf_append(&arr->buf, two, sizeof(two));
    }
    buf_str(&arr->buf, "\"");
}

const char *pg_array_close(struct pg_array *arr)
{
    if (!arr->closed)
        buf_str(&arr->buf, "}");
    arr->closed = true;
    return arr->buf.at;
}
