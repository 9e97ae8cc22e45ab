/* pg_binary.h - values to and from Postgres in its binary form, where there are thousands of them:
 * neither side prints or reads a digit.
 *
 * Rows for a statement are columns that it unnests, `unnest($1::bigint[], $2::text[])`: opened
 * together, one value put into each for every row, then given as parameters. */
#ifndef UF_PG_BINARY_H
#define UF_PG_BINARY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/arena.h"
#include "common/pg.h"

/* Elements' types, by their fixed OIDs. */
enum pg_type {
    PG_BOOL = 16,
    PG_BYTEA = 17,
    PG_BIGINT = 20,
    PG_INT = 23,
    PG_TEXT = 25,
    PG_TIME = 1184, /* timestamptz */
    PG_UUID = 2950
};

struct pg_column {
    struct buf buf;
    enum pg_type type;
    uint32_t n;
    bool any_null;
};

/* `types`: of the `n` columns, in order. */
void pg_columns_open(struct pg_column *columns, struct arena *a, const enum pg_type *types,
                     size_t n);
void pg_column_int(struct pg_column *c, int64_t v); /* PG_BIGINT, PG_INT (v fits), PG_BOOL (0, 1) */
/* PG_TEXT: repaired as by pg_param_utf8; PG_BYTEA: as it is. Null text -> NULL. */
void pg_column_text(struct pg_column *c, struct text t);
void pg_column_time(struct pg_column *c, int64_t us); /* since 1970; 0 -> NULL */
void pg_column_uuid(struct pg_column *c, const uint8_t at[16]);
void pg_column_null(struct pg_column *c); /* of any type */
/* The next `n` parameters, when all rows are in. */
void pg_param_columns(struct pg_params *p, struct pg_column *columns, size_t n);

/* Values of a result that was asked for with `binary_result`. pg_text works for texts and bytea. */
int64_t pg_bin_int(const PGresult *r, int row, int col); /* of 1, 2, 4 or 8 bytes; null -> 0 */
/* Microseconds since 1970; null -> 0. */
int64_t pg_bin_time(const PGresult *r, int row, int col);
/* Of a result in the order of its first column, an integer: moves *row on past all that are less
 * than `key`, and tells whether it has come to one that is. */
bool pg_bin_seek(const PGresult *r, int *row, int64_t key);

#endif
