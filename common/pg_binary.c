#include "common/pg_binary.h"

#include <assert.h>
#include <endian.h>
#include <string.h>

#define PG_EPOCH_US INT64_C(946684800000000) /* 2000-01-01, from which Postgres counts */

/* What stands before the elements of an array of one dimension. Big-endian. */
struct array_head {
    uint32_t n_dims, any_null, type, n, first;
};

void pg_columns_open(struct pg_column *columns, struct arena *a, const enum pg_type *types,
                     size_t n)
{
    static const struct array_head room;

    for (size_t i = 0; i < n; i++) {
        columns[i] = (struct pg_column){.buf = {.arena = a}, .type = types[i]};
        buf_append(&columns[i].buf, &room, sizeof(room));
    }
}

static void put(struct pg_column *c, const void *value, size_t len)
{
    uint32_t be_len = htobe32((uint32_t)len);

    buf_append(&c->buf, &be_len, sizeof(be_len));
    buf_append(&c->buf, value, len);
    c->n++;
}

void pg_column_null(struct pg_column *c)
{
    static const uint32_t no_len = UINT32_MAX; /* -1 */

    buf_append(&c->buf, &no_len, sizeof(no_len));
    c->any_null = true;
    c->n++;
}

void pg_column_int(struct pg_column *c, int64_t v)
{
    uint64_t be_8 = htobe64((uint64_t)v);
    uint32_t be_4 = htobe32((uint32_t)v);
    uint8_t byte = (uint8_t)v;

    if (c->type == PG_BIGINT) {
        put(c, &be_8, sizeof(be_8));
    } else if (c->type == PG_INT) {
        assert(v >= INT32_MIN && v <= INT32_MAX);
        put(c, &be_4, sizeof(be_4));
    } else {
        assert(c->type == PG_BOOL && (v == 0 || v == 1));
        put(c, &byte, sizeof(byte));
    }
}

/* Nothing in it needs a repair: most texts are names of ours. */
static bool is_ascii(struct text t)
{
    for (size_t i = 0; i < t.len; i++)
        if (t.at[i] == '\0' || t.at[i] & 0x80)
            return false;
    return true;
}

void pg_column_text(struct pg_column *c, struct text t)
{
    struct pg_params repaired = {0};

    assert(c->type == PG_TEXT || c->type == PG_BYTEA);
    if (!t.at) {
        pg_column_null(c);
    } else if (c->type == PG_BYTEA || is_ascii(t)) {
        put(c, t.at, t.len);
    } else {
        pg_param_utf8(&repaired, c->buf.arena, t);
        put(c, repaired.values[0], strlen(repaired.values[0]));
    }
}

void pg_column_time(struct pg_column *c, int64_t us)
{
    uint64_t be = htobe64((uint64_t)(us - PG_EPOCH_US));

    assert(c->type == PG_TIME);
    if (us == 0)
        pg_column_null(c);
    else
        put(c, &be, sizeof(be));
}

void pg_column_uuid(struct pg_column *c, const uint8_t at[16])
{
    assert(c->type == PG_UUID);
    put(c, at, 16);
}

/* Of the array, not of its elements. */
static unsigned array_type(enum pg_type type)
{
    switch (type) {
    case PG_BOOL:
        return 1000;
    case PG_BYTEA:
        return 1001;
    case PG_BIGINT:
        return 1016;
    case PG_INT:
        return 1007;
    case PG_TEXT:
        return 1009;
    case PG_TIME:
        return 1185;
    case PG_UUID:
        return 2951;
    }
    return 0;
}

void pg_param_columns(struct pg_params *p, struct pg_column *columns, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct pg_column *c = &columns[i];
        const struct array_head head = {htobe32(1), htobe32(c->any_null), htobe32(c->type),
                                        htobe32(c->n), htobe32(1)};
        memcpy(c->buf.at, &head, sizeof(head));
        pg_param_binary(p, array_type(c->type), c->buf.at, c->buf.len);
    }
}

int64_t pg_bin_int(const PGresult *r, int row, int col)
{
    const uint8_t *at = (const uint8_t *)PQgetvalue(r, row, col);
    int len = PQgetlength(r, row, col); /* 0 of a null */
    uint64_t v = 0;

    assert(len == 0 || len == 1 || len == 2 || len == 4 || len == 8);
    if (len > 1 && at[0] & 0x80)
        v = UINT64_MAX;
    for (int i = 0; i < len; i++)
        v = v << 8 | at[i];
    return (int64_t)v;
}

int64_t pg_bin_time(const PGresult *r, int row, int col)
{
    int64_t us = pg_bin_int(r, row, col);

    if (PQgetisnull(r, row, col))
        return 0;
    if (us == INT64_MAX || us == INT64_MIN) /* infinity, -infinity */
        return us;
    return us + PG_EPOCH_US;
}

bool pg_bin_seek(const PGresult *r, int *row, int64_t key)
{
    while (*row < PQntuples(r) && pg_bin_int(r, *row, 0) < key)
        ++*row;
    return *row < PQntuples(r) && pg_bin_int(r, *row, 0) == key;
}
