#include "gateway/rowset.h"

#include <inttypes.h>
#include <stdlib.h>

#include "gateway/flight.h"
#include "gateway/request.h"

#define LIMIT_JSON INT64_C(1000)
#define LIMIT_MOST INT64_C(100000)
#define PIECE      ((size_t)32 * 1024) /* handed on at once */

/* ---- cursors: a JSON array of texts, in base64url ---- */

static const char digits64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

const char *cursor_write(struct arena *a, const struct text *keys, size_t n)
{
    struct buf json = {.arena = a}, out = {.arena = a};
    struct json_writer w = {.out = &json};

    json_w_array(&w);
    for (size_t i = 0; i < n; i++)
        json_w_text(&w, keys[i]);
    json_w_end(&w);
    for (size_t i = 0; i < json.len; i += 3) {
        size_t left = json.len - i;
        uint32_t v = (uint32_t)(unsigned char)json.at[i] << 16;

        if (left > 1)
            v |= (uint32_t)(unsigned char)json.at[i + 1] << 8;
        if (left > 2)
            v |= (uint32_t)(unsigned char)json.at[i + 2];
        for (size_t k = 0; k < (left > 2 ? 4 : left + 1); k++)
            buf_append(&out, &digits64[(v >> (18 - 6 * k)) & 63], 1);
    }
    return out.at;
}

static enum status base64_read(struct buf *out, struct text t, struct err *err)
{
    uint32_t v = 0, bits = 0;

    buf_str(out, "");
    for (size_t i = 0; i < t.len; i++) {
        const char *digit = t.at[i] ? strchr(digits64, t.at[i]) : NULL;
        char byte;

        if (!digit)
            return err_set(err, ST_REJECT, "not a cursor");
        v = (v << 6 | (uint32_t)(digit - digits64)) & 0xffffff;
        bits += 6;
        if (bits < 8)
            continue;
        bits -= 8;
        byte = (char)(v >> bits & 0xff);
        buf_append(out, &byte, 1);
    }
    return ST_OK;
}

enum status cursor_read(struct text *keys, size_t n, struct arena *a, struct text cursor,
                        struct err *err)
{
    struct buf json = {.arena = a};
    struct json_doc doc;
    size_t i = 0;

    if (base64_read(&json, cursor, err) == ST_OK &&
        json_parse(&doc, a, (struct text){json.at, json.len}, err) == ST_OK &&
        json_is(doc.root, JSON_ARRAY) && doc.root->n == n && !doc.repaired) {
        for (const struct json *one = doc.root->first; one; one = one->next, i++) {
            keys[i] = json_string(one);
            if (!keys[i].at)
                break;
        }
        if (i == n)
            return ST_OK;
    }
    return err_set(
        err, ST_REJECT,
        "this is no cursor of this list: take `next` of the answer before, and leave the "
        "other parameters as they were");
}

/* ---- CSV ---- */

void csv_field(struct buf *out, struct text value, bool first)
{
    bool quoted =
        value.at &&
        (value.len == 0 || memchr(value.at, '"', value.len) || memchr(value.at, ',', value.len) ||
         memchr(value.at, '\n', value.len) || memchr(value.at, '\r', value.len));
    size_t begin = 0;

    if (!first)
        buf_str(out, ",");
    if (!value.at)
        return;
    if (!quoted) {
        buf_append(out, value.at, value.len);
        return;
    }
    buf_str(out, "\"");
    for (size_t i = 0; i < value.len; i++) {
        if (value.at[i] != '"')
            continue;
        buf_append(out, value.at + begin, i + 1 - begin);
        buf_str(out, "\"");
        begin = i + 1;
    }
    buf_append(out, value.at + begin, value.len - begin);
    buf_str(out, "\"");
}

static void csv_heading(struct rowset *rs)
{
    for (size_t i = 0; i < rs->n_columns; i++)
        csv_field(&rs->out, text_of(rs->columns[i].name), i == 0);
    buf_str(&rs->out, "\r\n");
}

static void csv_row(struct rowset *rs, const PGresult *r)
{
    for (size_t i = 0; i < rs->n_columns; i++) {
        struct text value = pg_text(r, 0, (int)i);

        if (value.at && rs->columns[i].kind == COLUMN_BOOLEAN)
            value = value.at[0] == 't' ? TEXT_LIT("true") : TEXT_LIT("false");
        csv_field(&rs->out, value, i == 0);
    }
    buf_str(&rs->out, "\r\n");
}

/* ---- JSON ---- */

static void json_row(struct rowset *rs, const PGresult *r)
{
    struct json_writer *w = &rs->json;

    json_w_object(w);
    for (size_t i = 0; i < rs->n_columns; i++) {
        struct text value = pg_text(r, 0, (int)i);

        json_w_key(w, rs->columns[i].name);
        switch (rs->columns[i].kind) {
        case COLUMN_TEXT:
        case COLUMN_DECIMAL:
            json_w_text(w, value);
            break;
        case COLUMN_COUNT:
        case COLUMN_JSON:
            if (value.at)
                json_w_raw(w, value);
            else
                json_w_null(w);
            break;
        case COLUMN_BOOLEAN:
            if (value.at)
                json_w_bool(w, value.at[0] == 't');
            else
                json_w_null(w);
            break;
        }
    }
    json_w_end(w);
}

static void json_rows_begin(struct rowset *rs)
{
    json_w_key(&rs->json, "rows");
    json_w_array(&rs->json);
}

static void json_rows_end(struct rowset *rs, struct request *r)
{
    struct json_writer *w = &rs->json;

    json_w_end(w);
    json_w_key(w, "next");
    if (rs->more && !rs->sorted)
        json_w_str(w, cursor_write(r->arena, rs->last, rs->n_keys));
    else
        json_w_null(w);
    json_w_key(w, "more");
    json_w_bool(w, rs->more);
    json_w_end(w);
    buf_str(&rs->out, "\n");
}

/* ---- the query's rows ---- */

/* The buffer's arena is the row's own, so that an endless answer does not grow the request's. */
static void hand_on(struct rowset *rs, struct request *r, bool all)
{
    if (rs->small || rs->out.len == 0 || (!all && rs->out.len < PIECE))
        return;
    spool_append(r->spool, rs->out.at, rs->out.len);
    arena_reset(rs->row_arena);
    rs->out = (struct buf){.arena = rs->row_arena};
    answer_wake(r);
}

/* The first row is there (or the end): no error can come instead of the answer any more. */
static void begin(struct rowset *rs, struct request *r)
{
    if (rs->begun || rs->small)
        return;
    rs->begun = true;
    answer_stream(r, rs->csv ? "text/csv; charset=utf-8" : "application/json",
                  rs->csv ? rs->filename : NULL);
}

static void keep_place(struct rowset *rs, const PGresult *r)
{
    arena_reset(rs->last_arena);
    for (size_t i = 0; i < rs->n_keys; i++)
        rs->last[i] = arena_text(rs->last_arena, pg_text(r, 0, (int)(rs->n_columns + i)));
}

static void on_rows(void *arg, size_t at, const PGresult *result)
{
    struct request *r = arg;
    struct rowset *rs = r->handler;

    if (at + 1 < rs->n_statements) {
        if (!rs->csv)
            rs->head(&rs->json, result, rs->head_arg);
        return;
    }
    if (rs->n == 0 && !rs->csv)
        json_rows_begin(rs);
    if (rs->n == rs->limit) {
        rs->more = true;
        return;
    }
    rs->n++;
    if (rs->csv)
        csv_row(rs, result);
    else
        json_row(rs, result);
    keep_place(rs, result);
    begin(rs, r);
    hand_on(rs, r, false);
    if (!rs->small && r->query && spool_full(r->spool))
        query_pause(r->query, true);
}

static void on_done(void *arg, enum status st, const char *sqlstate, const struct err *err)
{
    struct request *r = arg;
    struct rowset *rs = r->handler;

    r->query = NULL;
    if (st == ST_OK) {
        if (rs->n == 0 && !rs->csv)
            json_rows_begin(rs);
        if (!rs->csv)
            json_rows_end(rs, r);
        begin(rs, r);
        hand_on(rs, r, true);
    }
    if (rs->small) {
        if (st == ST_OK)
            flight_answer(r, (struct text){rs->out.at, rs->out.len});
        else
            flight_fail(r, st, sqlstate, err);
        return;
    }
    if (st != ST_OK && !rs->begun) {
        answer_query_failed(r, st, sqlstate, err);
        return;
    }
    spool_end(r->spool, st == ST_OK);
    answer_wake(r);
}

static const struct query_hears quick = {.rows = on_rows, .done = on_done};
static const struct query_hears slow = {.heavy = true, .rows = on_rows, .done = on_done};

static void free_arena(void *arena)
{
    struct arena *a = arena;

    arena_free(&a);
}

void rowset_answer(struct rowset *rs, struct request *r)
{
    rs->small = !rs->csv && rs->limit <= LIMIT_JSON;
    if (rs->small && flight_join(r, rs->statements, rs->n_statements))
        return;
    rs->row_arena = arena_new();
    rs->last_arena = arena_new();
    arena_defer(r->arena, free_arena, rs->row_arena);
    arena_defer(r->arena, free_arena, rs->last_arena);
    rs->out = (struct buf){.arena = rs->row_arena};
    rs->json = (struct json_writer){.out = &rs->out};
    r->handler = rs;
    if (!rs->small)
        r->spool = spool_new();
    if (rs->csv)
        csv_heading(rs);
    else
        json_w_object(&rs->json);
    r->query = query_start(r->gateway->database, rs->statements, rs->n_statements,
                           rs->heavy ? &slow : &quick, r);
}

/* ---- what every list may be asked ---- */

static enum status cursor_param(struct rowset *rs, struct request *r, struct bad_param *bad)
{
    const char *cursor;

    TRY(params_one(&cursor, &r->params, r->arena, "cursor", bad));
    if (!cursor)
        return ST_OK;
    bad->name = "cursor";
    if (rs->sorted)
        return err_set(&bad->err, ST_REJECT, "a list with sort has no cursor: raise limit");
    rs->has_cursor = true;
    return cursor_read(rs->cursor, rs->n_keys, r->arena, text_of(cursor), &bad->err);
}

enum status rowset_params(struct rowset *rs, struct request *r, struct bad_param *bad)
{
    static const char *const formats[] = {"json", "csv", NULL};
    static const int64_t range[2] = {1, LIMIT_MOST};
    struct text accept = request_header(r, "Accept");
    size_t format = accept.at && accept.len >= 8 && memcmp(accept.at, "text/csv", 8) == 0 ? 1 : 0;

    TRY(params_word(&format, &r->params, r->arena, "format", formats, bad));
    rs->csv = format == 1;
    rs->limit = rs->csv ? INT64_MAX : LIMIT_JSON;
    TRY(params_number(&rs->limit, &r->params, r->arena, "limit", range, bad));
    return cursor_param(rs, r, bad);
}

void rowset_limit(const struct rowset *rs, struct sql *s)
{
    if (rs->limit < INT64_MAX)
        buf_printf(&s->text, " LIMIT %" PRId64, rs->limit + 1);
}
