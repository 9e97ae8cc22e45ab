/* rowset.h - rows of a query as a streamed answer, JSON or CSV, page by page.
 *
 * The last `n_keys` columns of the statement are not shown: they are the place of a row in the
 * order (as text), and become the cursor. So the statement orders by them, and with a cursor begins
 * after it. */
#ifndef UF_GATEWAY_ROWSET_H
#define UF_GATEWAY_ROWSET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/json.h"
#include "gateway/params.h"
#include "gateway/query.h"

struct request;

enum column_kind {
    COLUMN_TEXT,    /* a JSON string */
    COLUMN_COUNT,   /* an integer, written as it is */
    COLUMN_DECIMAL, /* exact digits: a JSON string */
    COLUMN_BOOLEAN,
    COLUMN_JSON, /* JSON already */
};

struct column {
    const char *name;
    enum column_kind kind;
};

#define COLUMNS_MAX 32
#define KEYS_MAX    8

/* Filled by a handler, lives in the request's arena. */
struct rowset {
    struct column columns[COLUMNS_MAX];
    size_t n_columns, n_keys;
    const char *filename; /* of the CSV */
    /* Members of the JSON object before "rows", from the row of the first of two statements; NULL:
     * there is one statement only. */
    void (*head)(struct json_writer *w, const PGresult *r, void *arg);
    void *head_arg;
    struct statement statements[2];
    size_t n_statements;
    bool csv;
    bool heavy;                   /* sums over many rows */
    bool sorted;                  /* by something else than the keys: no cursor */
    int64_t limit;                /* INT64_MAX: none */
    struct text cursor[KEYS_MAX]; /* from the request; cursor[0].at NULL: from the beginning */
    bool has_cursor;

    struct buf out; /* the rest is rowset.c's own */
    struct arena *row_arena;
    struct json_writer json;
    int64_t n;
    bool more, begun;
    bool small; /* gathered, and shared with others who ask the same; else streamed */
    struct text last[KEYS_MAX];
    struct arena *last_arena;
};

/* The parameters that every list has: limit, cursor, format, and Accept. ST_REJECT as in params.h.
 */
enum status rowset_params(struct rowset *rs, struct request *r, struct bad_param *bad) CHECKED;

/* " LIMIT n", one more than are shown. */
void rowset_limit(const struct rowset *rs, struct sql *s);

/* Starts the query; the answer follows. */
void rowset_answer(struct rowset *rs, struct request *r);

/* A place in the order as one opaque word, and back. ST_REJECT: none of ours. */
const char *cursor_write(struct arena *a, const struct text *keys, size_t n);
enum status cursor_read(struct text *keys, size_t n, struct arena *a, struct text cursor,
                        struct err *err) CHECKED;

/* One CSV field (RFC 4180). Null is the empty field, so an empty text is "". */
void csv_field(struct buf *out, struct text value, bool first);

#endif
