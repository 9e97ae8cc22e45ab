/* query.h - asking Postgres without waiting: a few connections, one loop, rows as they come.
 *
 * Each query is one read-only transaction of one or more statements. All settings are made inside
 * of it (SET LOCAL), nothing is prepared by name, so that any transaction pooler may stand between.
 * Queries take turns in the order of asking. One that takes too long, or whose asker has gone,
 * loses its connection; a new one is made for the next. */
#ifndef UF_GATEWAY_QUERY_H
#define UF_GATEWAY_QUERY_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

#include "common/options.h"
#include "common/pg.h"
#include "common/status.h"

struct query_pool;
struct query;

#define QUERY_STATEMENT_LIMIT "30s"                   /* the server's */
#define QUERY_LIMIT_US        (INT64_C(60) * 1000000) /* ours: with a reader that stops reading */
#define QUERY_QUEUE_LIMIT_US  (INT64_C(30) * 1000000) /* waiting for a connection */

/* Nothing is connected yet. `cfg` is borrowed. */
void query_pool_open(struct query_pool **out, uv_loop_t *loop, const struct config *cfg);
/* Queries that run are dropped unheard. The loop must run once more for its handles to end. */
void query_pool_close(struct query_pool **at); /* accepts NULL */

struct statement {
    const char *sql;
    struct pg_params params;
    bool whole; /* the result at once, not row by row */
};

/* `arg` is the asker's. */
struct query_hears {
    /* It may take long: such queries leave one connection free for the others. */
    bool heavy;
    /* One row of statement number `at`; with `whole` all rows, maybe none. `r` ends with the call.
     * query_pause may be called in it, query_drop may not. */
    void (*rows)(void *arg, size_t at, const PGresult *r);
    /* The end, once. ST_OK: all rows were heard. ST_RETRY: the database is away or too slow.
     * ST_REJECT, ST_FATAL: it refused; `sqlstate` says why. The query is gone afterwards. */
    void (*done)(void *arg, enum status st, const char *sqlstate, const struct err *err);
};

/* `statements` (and what they point to) live until the end. `done` is never called from inside. */
struct query *query_start(struct query_pool *pool, const struct statement *statements, size_t n,
                          const struct query_hears *hears, void *arg);
void query_pause(struct query *q, bool paused); /* the asker can take no more rows for now */
void query_drop(struct query **at);             /* nothing more is heard; accepts NULL */

#endif
