/* pg.h - libpq with bounded waits, and SQLSTATE turned into duty.
 *
 * Pooler-safe: no named prepared statements, no session state; what must be set is set with SET
 * LOCAL or as part of the query. Every call ends within its time limit. */
#ifndef UF_PG_H
#define UF_PG_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/arena.h"
#include "common/status.h"
#include "common/text.h"

struct pg;

/* Does not connect yet. `schema`: names in it are found without a prefix (search_path, set in each
 * transaction). */
void pg_open(struct pg **out, const char *url, const char *schema, const char *application_name);
void pg_close(struct pg **pg); /* accepts NULL */

/* Connects when not connected. ST_RETRY: not reachable, or refuses for now (err says why).
 * ST_FATAL: it can not work (wrong password, no such database, a URL that libpq can not read). */
enum status pg_connect(struct pg *pg, struct err *err) CHECKED;

/* The same at a process's start, where anything may be up before Postgres is: tries again until it
 * answers, or `stop()` says to give up (ST_OK, not connected). ST_FATAL: it never will be like
 * this. */
enum status pg_await(struct pg *pg, bool (*stop)(void), struct err *err) CHECKED;
bool pg_connected(const struct pg *pg);
void pg_disconnect(struct pg *pg);

#define PG_WAIT_DEFAULT_US (INT64_C(30) * 1000000)
void pg_wait_limit(struct pg *pg, int64_t us); /* of every later call */

/* Parameters of a statement, in text or binary form. */
struct pg_params {
    const char *values[24];
    int lengths[24];
    int formats[24];
    unsigned types[24]; /* OIDs; 0 = the server infers */
    int n;
    bool binary_result;
};
void pg_param_text(struct pg_params *p, const char *value); /* NULL = null */
/* Bytes of strangers: what Postgres refuses in a text (a NUL, bytes that are no UTF-8) becomes
 * U+FFFD. Null stays null. */
void pg_param_utf8(struct pg_params *p, struct arena *a, struct text t);
void pg_param_int(struct pg_params *p, struct arena *a, int64_t v);
void pg_param_binary(struct pg_params *p, unsigned type, const void *value, size_t len);

/* Runs one statement and waits for its end. `*out` (may be NULL) is cleared when `a` is reset.
 * `params` may be NULL. On a server's error the transaction, if any, is rolled back, and
 * pg_sqlstate tells the code. ST_RETRY, ST_REJECT, ST_FATAL: as pg_status says. */
enum status pg_query(struct pg *pg, PGresult **out, struct arena *a, const char *sql,
                     const struct pg_params *params, struct err *err) CHECKED;

/* Several statements without parameters in one round trip; the same errors. */
enum status pg_exec(struct pg *pg, const char *sql, struct err *err) CHECKED;

/* BEGIN with this schema as search_path and statement, lock and idle limits, in one round trip. A
 * connection that is found to be gone is made once more: nothing is lost with it yet. */
enum status pg_begin(struct pg *pg, struct err *err) CHECKED;
enum status pg_commit(struct pg *pg, struct err *err) CHECKED;
void pg_rollback(struct pg *pg); /* disconnects if even that fails */

/* Statements of a transaction without waiting for each: after pg_defer each pg_query is only sent,
 * and Postgres works while the caller does. Up to four of them may ask for their result, `out`,
 * which is there when all have been answered. A failure is told then, not by pg_query: the first
 * one, rolled back. Until then the connection takes nothing else. */
enum status pg_defer(struct pg *pg, struct err *err) CHECKED;
/* pg_begin and pg_defer at once, without waiting for BEGIN either; a connection that is found to be
 * gone is not made once more. */
enum status pg_begin_deferred(struct pg *pg, struct err *err) CHECKED;
/* Sends all; pg_deferred_poll or pg_deferred_wait tell when it is answered. The transaction goes
 * on: by pg_query, or once more by pg_defer. */
enum status pg_deferred_send(struct pg *pg, struct err *err) CHECKED;
/* The same, and waits for the answers. Errors as of pg_query. */
enum status pg_deferred_join(struct pg *pg, struct err *err) CHECKED;
/* The rest of a transaction: sends the COMMIT behind the others. */
enum status pg_deferred_commit(struct pg *pg, struct err *err) CHECKED;
/* Never waits; tells with `*done` that all is answered: ST_OK, committed if that was sent, else as
 * by pg_query. `*done` with ST_RETRY: the connection was lost or the time is up. */
enum status pg_deferred_poll(struct pg *pg, bool *done, struct err *err) CHECKED;
/* The same, waiting for the answer. */
enum status pg_deferred_wait(struct pg *pg, struct err *err) CHECKED;
int pg_socket(const struct pg *pg); /* readable when something came; -1: not connected */

/* COPY ... FROM STDIN of bytes already in COPY's form, in as many pieces as one likes: Postgres
 * reads one while the next is made. Other statements may stand before and behind it in `sql`, each
 * a round trip less. pg_copy_begin does not wait; the first pg_copy_put does. All of it
 * shares the time of one statement; after a failure the COPY is over. `out_rows`, of a COPY that
 * is the last statement, may be NULL. */
enum status pg_copy_begin(struct pg *pg, const char *sql, struct err *err) CHECKED;
enum status pg_copy_put(struct pg *pg, struct text data, struct err *err) CHECKED;
enum status pg_copy_end(struct pg *pg, int64_t *out_rows, struct err *err) CHECKED;

/* The last error's five characters, "" when there was none or the connection was lost. */
const char *pg_sqlstate(const struct pg *pg);
/* no SQLSTATE, or class 08, 40, 53, 55, 57, or thrown out of a transaction that took too long
 * (25P03, 25P04), or read-only for now (25006): RETRY; 22, 23: REJECT; else FATAL. */
enum status pg_status(const char *sqlstate);

/* The newest migration in db/: what this program was built for. */
#define PG_SCHEMA_VERSION 4

/* ST_FATAL when the database's schema is missing, older (err says: usagectl migrate) or newer (err
 * says: upgrade the program). */
enum status pg_check_schema(struct pg *pg, struct err *err) CHECKED;

/* Values of a result, checked. */
int64_t pg_int(const PGresult *r, int row, int col); /* text form; 0 for null */
struct text pg_text(const PGresult *r, int row,
                    int col); /* null for null; borrowed from the result */

/* An array literal in text form, for `$1::bigint[]` and the like, built element by element in an
 * arena. */
struct pg_array {
    struct buf buf;
    bool any, closed;
};
void pg_array_open(struct pg_array *arr, struct arena *a);
void pg_array_int(struct pg_array *arr, int64_t v);
void pg_array_text(struct pg_array *arr,
                   struct text t); /* quoted, repaired as by pg_param_utf8; null text -> NULL */
void pg_array_time(struct pg_array *arr, int64_t us); /* 0 -> NULL */
/* An element of a bytea[]: the bytes in Postgres's hexadecimal form; null text -> NULL. */
void pg_array_bytea(struct pg_array *arr, struct text raw);
const char *pg_array_close(struct pg_array *arr); /* may be asked for again */

#endif
