#include "common/providers/reader.h"

#include <assert.h>
#include <endian.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/clock.h"
#include "common/decimal.h"
#include "common/utf8.h"

/* ---- the page: its buckets ---- */

struct bucket {
    int64_t start_us, end_us;
    size_t answer, index;     /* in a joined page, and in that answer's array */
    const struct json *first; /* of its results; of a flat feed there is one, at `index` */
    size_t n;
};

#define FIELDS_MAX     64 /* of one feed: one bit each in `seen` */
#define IDENTITIES_MAX 8
#define PARTS_MAX      (sizeof(((struct identity *)0)->parts) / sizeof(const char *))

/* What a feed's table says, in the form that is asked for with each row. Fields by their index. */
struct table {
    struct text paths[FIELDS_MAX];
    size_t same[FIELDS_MAX];              /* rows from this one on that have its path */
    uint64_t required, required_of_parts; /* of results, and of their breakdown's elements */
    struct {
        size_t whole, parts[PARTS_MAX], n_parts;
    } identities[IDENTITIES_MAX];
};

/* One page being read. */
struct reading {
    struct arena *arena;
    const struct feed *feed;
    const struct envelope *env;
    const struct window *window;
    const struct people *people;
    struct err *err;
    const char *path; /* of the page's fault */
    struct json_doc doc;
    bool joined;   /* the page is an array of answers */
    size_t answer; /* the one that is read */
    struct bucket *buckets;
    size_t n_buckets;
    struct table table;
};

static enum status page_fault(struct reading *r, const char *path, const char *why)
{
    r->path = path;
    return err_set(r->err, ST_REJECT, "%s: %s", path, why);
}

/* "$.data", and of a joined page "$[2].data". */
static const char *data_path(const struct reading *r, size_t answer)
{
    return r->joined ? arena_printf(r->arena, "$[%zu].%s", answer, r->env->data)
                     : arena_printf(r->arena, "$.%s", r->env->data);
}

/* The same of a bucket, or of its member `name` unless that is NULL. */
static enum status bucket_fault(struct reading *r, size_t index, const char *name, const char *why)
{
    return page_fault(r,
                      arena_printf(r->arena, "%s[%zu]%s%s", data_path(r, r->answer), index,
                                   name ? "." : "", name ? name : ""),
                      why);
}

/* RFC 3339, or a date alone: its start. What is ignored, here and below, is not cleared before:
 * twice a bucket, that was a twentieth of a fetcher's CPU. */
static enum status parse_time(struct reading *r, struct text t, int64_t *out_us)
{
    struct err ignored;

    if (t.len == strlen("2026-11-06"))
        t = text_of(arena_printf(r->arena, "%.*sT00:00:00Z", (int)t.len, t.at));
    return time_parse(out_us, t, &ignored);
}

static enum status read_time(struct reading *r, const struct json *bucket, size_t index,
                             const char *name, int64_t *out_us)
{
    const struct json *node = json_member(bucket, name);
    struct err ignored;
    int64_t seconds;

    if (r->env->times == TIMES_RFC3339) {
        if (!json_is(node, JSON_STRING) || parse_time(r, node->text, out_us) != ST_OK)
            return bucket_fault(r, index, name, "not an RFC 3339 time");
        return ST_OK;
    }
    if (!json_is(node, JSON_NUMBER) || int64_parse(&seconds, node->text, &ignored) != ST_OK ||
        seconds < 0 || seconds > INT64_C(253402300799))
        return bucket_fault(r, index, name, "not a time in seconds since 1970");
    *out_us = seconds * US_PER_S;
    return ST_OK;
}

static enum status read_bucket(struct reading *r, const struct json *node, size_t index)
{
    struct bucket *b = &r->buckets[r->n_buckets];
    const struct window *w = r->window;
    const struct json *results;
    int64_t width_us = w->bucket_s * US_PER_S;

    if (!json_is(node, JSON_OBJECT))
        return bucket_fault(r, index, NULL, "not a bucket");
    TRY(read_time(r, node, index, r->env->start, &b->start_us));
    TRY(read_time(r, node, index, r->env->end, &b->end_us));
    if (b->start_us % width_us != 0)
        return bucket_fault(r, index, NULL, "it does not begin on a multiple of its width");
    if (b->end_us <= b->start_us || b->end_us > b->start_us + width_us)
        return bucket_fault(r, index, NULL, "its end does not fit its start and width");
    if (b->start_us < w->from_us || (w->to_us != 0 && b->start_us >= w->to_us))
        return bucket_fault(r, index, NULL, "it is outside of the window that was asked for");
    results = json_member(node, r->env->results);
    if (!json_is(results, JSON_ARRAY))
        return bucket_fault(r, index, r->env->results, "not an array of results");
    b->index = index;
    b->first = results->first;
    b->n = results->n;
    r->n_buckets++;
    return ST_OK;
}

/* A result of a flat feed: a bucket's part, with the time in it. */
static enum status read_flat(struct reading *r, const struct json *node, size_t index)
{
    struct bucket *b = &r->buckets[r->n_buckets];
    const struct window *w = r->window;
    int64_t time_us;

    if (!json_is(node, JSON_OBJECT))
        return bucket_fault(r, index, NULL, "not a result");
    TRY(read_time(r, node, index, r->env->start, &time_us));
    if (time_us < w->from_us || (w->to_us != 0 && time_us >= w->to_us))
        return bucket_fault(r, index, NULL, "it is outside of the window that was asked for");
    b->start_us = time_floor_us(time_us, w->bucket_s);
    b->end_us = b->start_us + w->bucket_s * US_PER_S;
    b->answer = r->answer;
    b->index = index;
    b->first = node;
    b->n = 1;
    r->n_buckets++;
    return ST_OK;
}

/* A 200 without buckets: tells what came instead, because people must act on it. */
static enum status not_a_page(struct reading *r, const struct json *answer)
{
    const struct json *error = json_member(answer, "error");
    struct text said = json_string(json_member(error, "message"));

    if (!said.at)
        said = json_string(error);
    if (json_is_null(error))
        return page_fault(r, data_path(r, r->answer),
                          "no array of buckets; this is not a page of usage");
    return page_fault(r, "$.error",
                      arena_printf(r->arena, "an error with HTTP status 200: %s",
                                   printable_snippet(r->arena, redact(r->arena, said, NULL), 200)));
}

#define LEVELS_ALL (JSON_DEPTH_MAX + 1)
#define LEVELS_PEEK                                                                                \
    4 /* the page, its array, its buckets, their members; of the rest the number                   \
       */

static enum status scan_answer(struct reading *r, const struct json *answer)
{
    const struct json *data = json_member(answer, r->env->data);
    size_t index = 0;

    if (!json_is(data, JSON_ARRAY))
        return not_a_page(r, answer);
    for (const struct json *b = data->first; b; b = b->next, index++)
        TRY(feed_is_flat(r->feed) ? read_flat(r, b, index) : read_bucket(r, b, index));
    return ST_OK;
}

static size_t count_buckets(const struct reading *r)
{
    const struct json *data = json_member(r->doc.root, r->env->data);
    size_t n = 0;

    if (!r->joined)
        return json_is(data, JSON_ARRAY) ? data->n : 0;
    for (const struct json *answer = r->doc.root->first; answer; answer = answer->next) {
        data = json_member(answer, r->env->data);
        n += json_is(data, JSON_ARRAY) ? data->n : 0;
    }
    return n;
}

/* Body -> buckets, in the page's order. */
static enum status scan(struct reading *r, struct text body, uint32_t levels)
{
    const char *c = body.at;

    r->path = "$";
    while (c && c < body.at + body.len && strchr(" \t\r\n", *c))
        c++;
    if (c && c < body.at + body.len && *c == '<')
        return err_set(
            r->err, ST_REJECT,
            "the answer is HTML or XML, not JSON, so it is not the provider's: a proxy or "
            "gateway in between, or a wrong base URL? It begins: %s",
            printable_snippet(r->arena, redact(r->arena, body, NULL), 100));
    if (json_parse_outline(&r->doc, r->arena, body, levels, r->err) != ST_OK)
        return err_prefix(r->err, "the answer is not JSON");
    r->joined = feed_is_flat(r->feed) && json_is(r->doc.root, JSON_ARRAY);
    r->buckets = ARENA_ARRAY(r->arena, count_buckets(r), struct bucket);
    if (!r->joined)
        return scan_answer(r, r->doc.root);
    for (const struct json *answer = r->doc.root->first; answer; answer = answer->next) {
        TRY(scan_answer(r, answer));
        r->answer++;
    }
    return ST_OK;
}

/* ---- peek ---- */

static enum status read_cursor(struct reading *r, struct peek *out)
{
    const struct json *more = json_member(r->doc.root, r->env->has_more);
    const struct json *next = json_member(r->doc.root, r->env->next_page);
    const char *path = arena_printf(r->arena, "$.%s", r->env->next_page);

    if (!json_is(more, JSON_TRUE) && !json_is(more, JSON_FALSE))
        return page_fault(r, arena_printf(r->arena, "$.%s", r->env->has_more),
                          "neither true nor false, so the end of the data is not known");
    out->has_more = more->type == JSON_TRUE;
    if (!out->has_more)
        return ST_OK;
    out->cursor = arena_text(r->arena, json_string(next)); /* may outlive the body */
    if (!out->cursor.at || out->cursor.len == 0)
        return page_fault(r, path, "more pages are said to follow, but there is no page token");
    if (out->cursor.len > READER_CURSOR_MAX)
        return page_fault(r, path, "the page token is too long for a URL");
    return ST_OK;
}

enum status reader_peek(struct peek *out, struct arena *a, const struct question *q,
                        struct text body, struct err *err)
{
    struct reading r = {
        .arena = a, .feed = q->feed, .env = q->feed->envelope, .window = &q->window, .err = err};
    struct peek peek = {0};
    int64_t width_us = q->window.bucket_s * US_PER_S;

    TRY(scan(&r, body, LEVELS_PEEK));
    if (r.env->has_more)
        TRY(read_cursor(&r, &peek));
    for (size_t i = 0; i < r.n_buckets; i++) {
        const struct bucket *b = &r.buckets[i];
        if (!peek.any || b->start_us < peek.from_us)
            peek.from_us = b->start_us;
        if (!peek.any || b->start_us + width_us > peek.to_us)
            peek.to_us = b->start_us + width_us;
        if (b->end_us == b->start_us + width_us && b->end_us > peek.closed_us)
            peek.closed_us = b->end_us;
        peek.any = true;
        peek.n_results += b->n;
    }
    *out = peek;
    return ST_OK;
}

/* ---- one result ---- */

/* A member without a column: of dims (its value as JSON) or of extra (its number, plain). */
struct member {
    struct text name;
    struct text json;
};

/* How a list of members is printed. The rows of a page nearly always have the same members in the
 * same order, so what depends on the names alone is kept from the row before. */
struct layout {
    size_t n;
    struct text *names;  /* in the order they came */
    size_t *order;       /* for each in the order of printing: which of those it is */
    struct text *before; /* and what is printed in front of its value: {"name": */
    size_t size;         /* of all that */
};

struct row {
    struct record record;
    const struct json *node;
    const struct bucket *bucket;
    size_t result; /* in the bucket, for paths */
};

#define PATHS_KEPT 64 /* of a row: those beyond are looked up each time */

/* One result on its way to a row. */
struct build {
    const struct reading *r;
    struct row *row;
    struct member dims[READER_MEMBERS_MAX], extra[READER_MEMBERS_MAX];
    size_t n_dims, n_extra;
    struct layout dims_layout, extra_layout;
    const char *breakdown; /* the member that becomes rows of its own; NULL within those */
    /* The paths of the row before and what they are in the table, in the order they came: the next
     * row's are nearly always the same. */
    struct known_path {
        struct text path;
        size_t field; /* n_fields: none */
    } paths[PATHS_KEPT];
    size_t n_paths; /* come in this row */
    uint64_t seen;  /* a bit for each field of the feed's table that had a value */
    const struct json
        *values[FIELDS_MAX]; /* of those fields; of several of one path, the first's */
    size_t people_dropped;
    struct err err; /* why it is set aside */
    struct err why; /* the part of it that a number's parser tells */
    struct text at; /* and where in the result */
};

static enum status row_fault(struct build *b, struct text path, const char *why)
{
    b->at = path;
    return err_set(&b->err, ST_REJECT, "%.*s: %s", (int)path.len, path.at, why);
}

/* Names and addresses of people come unasked and are no business of a usage table. */
static bool is_personal(struct text key)
{
    static const char *const names[] = {"user_name", "project_name", "organization_name"};

    for (size_t i = 0; i + 5 <= key.len; i++)
        if (strncasecmp(key.at + i, "email", 5) == 0)
            return true;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (text_is(key, names[i]))
            return true;
    return false;
}

/* The first field that has this path; n_fields: none. */
static size_t field_search(const struct reading *r, struct text path)
{
    size_t i = 0;

    while (i < r->feed->n_fields && !text_eq(path, r->table.paths[i]))
        i++;
    return i;
}

/* Whether a field belongs to the elements of the feed's breakdown. */
static bool is_of_breakdown(const struct feed *feed, const struct field *f)
{
    size_t len = feed->breakdown ? strlen(feed->breakdown) : 0;

    return len > 0 && strncmp(f->path, feed->breakdown, len) == 0 && f->path[len] == '[';
}

static size_t identity_field(const struct reading *r, const char *path)
{
    size_t i = field_search(r, text_of(path));

    assert(i < r->feed->n_fields); /* an identity is one of fields */
    return i;
}

static void table_make(struct reading *r)
{
    const struct feed *feed = r->feed;
    struct table *t = &r->table;

    assert(feed->n_fields <= FIELDS_MAX && feed->n_identities <= IDENTITIES_MAX);
    for (size_t i = feed->n_fields; i-- > 0;) {
        const struct field *f = &feed->fields[i];
        uint64_t bit = f->required ? UINT64_C(1) << i : 0;
        t->paths[i] = text_of(f->path);
        t->same[i] = i + 1 < feed->n_fields && text_eq(t->paths[i], t->paths[i + 1])
                         ? t->same[i + 1] + 1
                         : 1;
        if (is_of_breakdown(feed, f))
            t->required_of_parts |= bit;
        else
            t->required |= bit;
    }
    for (size_t i = 0; i < feed->n_identities; i++) {
        const struct identity *id = &feed->identities[i];
        t->identities[i].whole = identity_field(r, id->whole);
        for (size_t k = 0; k < PARTS_MAX && id->parts[k]; k++, t->identities[i].n_parts++)
            t->identities[i].parts[k] = identity_field(r, id->parts[k]);
    }
}

static size_t field_of(struct build *b, struct text path)
{
    struct known_path *known;

    if (b->n_paths >= PATHS_KEPT)
        return field_search(b->r, path);
    known = &b->paths[b->n_paths++];
    if (!known->path.at || !text_eq(known->path, path))
        *known = (struct known_path){path, field_search(b->r, path)};
    return known->field;
}

/* "outer.inner": mostly the text that the row before had there. */
static struct text inner_path(const struct build *b, struct text outer, struct text name)
{
    struct text likely = b->n_paths < PATHS_KEPT ? b->paths[b->n_paths].path : TEXT_NULL;
    struct buf path = {.arena = b->r->arena};

    if (likely.at && likely.len == outer.len + 1 + name.len &&
        memcmp(likely.at, outer.at, outer.len) == 0 && likely.at[outer.len] == '.' &&
        memcmp(likely.at + outer.len + 1, name.at, name.len) == 0)
        return likely;
    buf_text(&path, outer);
    buf_str(&path, ".");
    buf_text(&path, name);
    return (struct text){path.at, path.len};
}

/* The number's digits or a text of digits, resolved to plain notation. */
static enum status take_decimal(struct build *b, struct text path, const struct json *m,
                                uint32_t places, struct text *out)
{
    struct decimal d;

    if (m->type != JSON_NUMBER && m->type != JSON_STRING)
        return row_fault(b, path, "not a number");
    if (places == 0 && decimal_is_plain(m->text)) {
        *out = m->text;
        return ST_OK;
    }
    if (decimal_parse(&d, b->r->arena, m->text, &b->why) != ST_OK)
        return row_fault(b, path, b->why.text);
    decimal_shift(&d, places);
    *out = decimal_format(&d, b->r->arena);
    return ST_OK;
}

static enum status take_count(struct build *b, const struct field *f, struct text path,
                              const struct json *m)
{
    int64_t *count = &b->row->record.counts[f->target];
    int64_t value;

    if (m->type != JSON_NUMBER)
        return row_fault(b, path, "not a number");
    if (int64_parse(&value, m->text, &b->why) != ST_OK)
        return row_fault(b, path, b->why.text);
    if (value < 0)
        return row_fault(b, path, "a negative count");
    if (f->use == FIELD_COUNT_ADD && *count != COUNT_NULL &&
        __builtin_add_overflow(value, *count, &value))
        return row_fault(b, path, "the sum is above the largest count");
    *count = value;
    return ST_OK;
}

static enum status take_currency(struct build *b, struct text path, const struct json *m)
{
    char *code;

    if (m->type != JSON_STRING || m->text.len != 3)
        return row_fault(b, path, "not a currency code of three letters");
    code = arena_copy(b->r->arena, m->text.at, 3);
    for (int i = 0; i < 3; i++) {
        if (code[i] >= 'a' && code[i] <= 'z')
            code[i] = (char)(code[i] - 'a' + 'A');
        if (code[i] < 'A' || code[i] > 'Z')
            return row_fault(b, path, "not a currency code of three letters");
    }
    b->row->record.texts[TEXT_CURRENCY] = (struct text){code, 3};
    return ST_OK;
}

/* Room for one more member; a name that is already there gives its place. */
static enum status add_member(struct build *b, struct member *list, size_t *n, struct text path,
                              struct member **out)
{
    for (size_t i = 0; i < *n; i++)
        if (text_eq(list[i].name, path)) {
            *out = &list[i];
            return ST_OK;
        }
    if (*n == READER_MEMBERS_MAX)
        return row_fault(b, path, "too many unknown members");
    *out = &list[(*n)++];
    (*out)->name = path;
    return ST_OK;
}

static void print_without_people(struct json_writer *w, const struct json *node);

static enum status add_dim(struct build *b, struct text path, const struct json *m)
{
    struct buf out = {.arena = b->r->arena};
    struct json_writer w = {.out = &out};
    struct member *dim;

    if (m->type == JSON_STRING && m->text.len == 0)
        return ST_OK; /* absent, null and "" are one */
    TRY(add_member(b, b->dims, &b->n_dims, path, &dim));
    if (m->type == JSON_ARRAY) {
        struct buf inner = {.arena = b->r->arena};
        struct json_writer array = {.out = &inner};
        print_without_people(&array, m);
        json_w_text(&w, (struct text){inner.at, inner.len});
    } else {
        json_print(&out, m);
    }
    dim->json = (struct text){out.at, out.len};
    return ST_OK;
}

/* `name`: its own in extra. */
static enum status add_extra(struct build *b, struct text path, const struct json *m,
                             struct text name, uint32_t places)
{
    struct member *extra;

    if (m->type != JSON_NUMBER)
        return row_fault(b, path, "not a number");
    TRY(add_member(b, b->extra, &b->n_extra, name, &extra));
    return take_decimal(b, path, m, places, &extra->json);
}

static enum status take_person(struct build *b, enum record_text target, struct text path,
                               const struct json *m)
{
    struct text *person = &b->row->record.texts[target];

    if (m->type != JSON_STRING)
        return row_fault(b, path, "not a text");
    if (m->text.len == 0)
        return ST_OK;
    *person = person_of(b->r->people, b->r->arena, m->text);
    b->people_dropped += !person->at;
    return ST_OK;
}

static enum status take_text(struct build *b, enum record_text target, struct text path,
                             const struct json *m)
{
    if (m->type != JSON_STRING)
        return row_fault(b, path, "not a text");
    if (m->text.len > 0) /* absent, null and "" are one */
        b->row->record.texts[target] = m->text;
    return ST_OK;
}

static enum status take_known(struct build *b, const struct field *f, struct text path,
                              const struct json *m)
{
    struct record *rec = &b->row->record;

    if (m->type == JSON_NULL)
        return ST_OK;
    b->seen |= UINT64_C(1) << (f - b->r->feed->fields);
    switch (f->use) {
    case FIELD_TEXT:
        return take_text(b, (enum record_text)f->target, path, m);
    case FIELD_QUANTITY_UNIT:
        return take_text(b, TEXT_QUANTITY_UNIT, path, m);
    case FIELD_BATCH:
        if (m->type != JSON_TRUE && m->type != JSON_FALSE)
            return row_fault(b, path, "neither true nor false");
        rec->batch = m->type == JSON_TRUE ? TRI_TRUE : TRI_FALSE;
        return ST_OK;
    case FIELD_DIM:
        if (m->type != JSON_STRING && m->type != JSON_TRUE && m->type != JSON_FALSE)
            return row_fault(b, path, "not a text");
        return add_dim(b, path, m);
    case FIELD_COUNT:
    case FIELD_COUNT_ADD:
        return take_count(b, f, path, m);
    case FIELD_QUANTITY:
        if (f->unit)
            rec->texts[TEXT_QUANTITY_UNIT] = text_of(f->unit);
        return take_decimal(b, path, m, 0, &rec->texts[TEXT_QUANTITY]);
    case FIELD_COST:
        if (f->unit)
            rec->texts[TEXT_CURRENCY] = text_of(f->unit);
        return take_decimal(b, path, m, (uint32_t)f->target, &rec->texts[TEXT_COST_AMOUNT]);
    case FIELD_CURRENCY:
        return take_currency(b, path, m);
    case FIELD_EXTRA:
        return add_extra(b, path, m, f->name ? text_of(f->name) : path, (uint32_t)f->target);
    case FIELD_PERSON:
        return take_person(b, (enum record_text)f->target, path, m);
    case FIELD_IGNORE:
        return ST_OK;
    }
    return ST_OK;
}

/* All rows of the table that have this path, the first of which is `field`. */
static enum status take_fields(struct build *b, size_t field, struct text path,
                               const struct json *m)
{
    size_t end = field + b->r->table.same[field];

    b->values[field] = m;
    for (; field < end; field++)
        TRY(take_known(b, &b->r->feed->fields[field], path, m));
    return ST_OK;
}

/* NOLINTNEXTLINE(misc-no-recursion): as deep as the JSON, which JSON_DEPTH_MAX bounds */
static enum status take_member(struct build *b, struct text path, const struct json *m)
{
    size_t field = field_of(b, path);

    if (field < b->r->feed->n_fields)
        return take_fields(b, field, path, m);
    if (is_personal(m->key) || (b->breakdown && text_is(path, b->breakdown)))
        return ST_OK;
    if (path.len > READER_NAME_MAX)
        return row_fault(b, TEXT_LIT("unknown member"), "its name is too long");
    switch (m->type) {
    case JSON_NULL:
        return ST_OK;
    case JSON_TRUE:
    case JSON_FALSE:
    case JSON_STRING:
        return add_dim(b, path, m);
    case JSON_NUMBER:
        return add_extra(b, path, m, path, 0);
    case JSON_ARRAY:
        return m->n > 0 ? add_dim(b, path, m) : ST_OK;
    case JSON_OBJECT:
        for (const struct json *in = m->first; in; in = in->next)
            TRY(take_member(b, inner_path(b, path, in->key), in));
        return ST_OK;
    }
    return ST_OK;
}

static int text_compare(struct text a, struct text b)
{
    int c = memcmp(a.at, b.at, a.len < b.len ? a.len : b.len);

    return c != 0 ? c : (a.len > b.len) - (a.len < b.len);
}

struct named {
    struct text name;
    size_t index;
};

static int by_name(const void *a, const void *b)
{
    const struct named *left = a, *right = b;

    return text_compare(left->name, right->name);
}

static bool layout_fits(const struct layout *layout, const struct member *list, size_t n)
{
    if (layout->n != n)
        return false;
    for (size_t i = 0; i < n; i++)
        if (!text_eq(layout->names[i], list[i].name))
            return false;
    return true;
}

static void layout_make(struct layout *layout, struct arena *a, const struct member *list, size_t n)
{
    struct named *sorted = ARENA_ARRAY(a, n, struct named);

    *layout = (struct layout){.n = n,
                              .names = ARENA_ARRAY(a, n, struct text),
                              .order = ARENA_ARRAY(a, n, size_t),
                              .before = ARENA_ARRAY(a, n, struct text)};
    for (size_t i = 0; i < n; i++) {
        layout->names[i] = list[i].name;
        sorted[i] = (struct named){list[i].name, i};
    }
    qsort(sorted, n, sizeof(*sorted), by_name);
    for (size_t i = 0; i < n; i++) {
        struct buf before = {.arena = a};
        struct json_writer w = {.out = &before};
        json_w_object(&w);
        json_w_key_text(&w, sorted[i].name);
        if (i > 0)
            before.at[0] = ',';
        layout->order[i] = sorted[i].index;
        layout->before[i] = (struct text){before.at, before.len};
        layout->size += before.len;
    }
}

/* An object of members sorted by name: the same facts give the same bytes, and so the same digest.
 */
static struct text members_print(struct arena *a, struct layout *layout, const struct member *list,
                                 size_t n)
{
    struct buf out = {.arena = a};
    size_t size;

    if (n == 0)
        return TEXT_NULL;
    if (!layout_fits(layout, list, n))
        layout_make(layout, a, list, n);
    size = layout->size + 1;
    for (size_t i = 0; i < n; i++)
        size += list[i].json.len;
    buf_reserve(&out, size);
    for (size_t i = 0; i < n; i++) {
        buf_text(&out, layout->before[i]);
        buf_text(&out, list[layout->order[i]].json);
    }
    buf_str(&out, "}");
    return (struct text){out.at, out.len};
}

static enum status check_kind(struct build *b)
{
    const char *const *known = b->r->feed->result_objects;
    const struct json *object;

    if (!known)
        return ST_OK;
    object = json_member(b->row->node, b->r->env->object);
    for (; *known; known++)
        if (text_is(json_string(object), *known))
            return ST_OK;
    return row_fault(b, text_of(b->r->env->object),
                     arena_printf(b->r->arena,
                                  "a kind of result that this version does not know: %s",
                                  printable_snippet(b->r->arena, json_string(object), 100)));
}

/* What all rows get once their members are taken: completeness, dims and extra, digests. */
static enum status finish_row(struct build *b, bool of_breakdown)
{
    const struct table *t = &b->r->table;
    uint64_t missing = (of_breakdown ? t->required_of_parts : t->required) & ~b->seen;
    struct row *row = b->row;

    if (missing)
        return row_fault(b, t->paths[__builtin_ctzll(missing)], "missing");
    row->record.texts[TEXT_DIMS] = members_print(b->r->arena, &b->dims_layout, b->dims, b->n_dims);
    row->record.texts[TEXT_EXTRA] =
        members_print(b->r->arena, &b->extra_layout, b->extra, b->n_extra);
    for (size_t i = 0; i < N_RECORD_TEXTS; i++)
        if (row->record.texts[i].len > READER_TEXT_MAX)
            return row_fault(b, TEXT_LIT("result"), "a text in it is longer than a row may hold");
    record_digest(&row->record, text_of(b->r->feed->name));
    return ST_OK;
}

/* b->row has its node; this fills the record. */
static enum status build_row(struct build *b)
{
    const struct json *node = b->row->node;

    if (node->type != JSON_OBJECT)
        return row_fault(b, TEXT_LIT("result"), "not an object");
    TRY(check_kind(b));
    b->breakdown = b->r->feed->breakdown;
    for (const struct json *m = node->first; m; m = m->next)
        TRY(take_member(b, m->key, m));
    return finish_row(b, false);
}

/* A row of one element of the breakdown: the dimensions of `whole`, whose dims are the first
 * `n_dims` of b->dims, and its own figures. */
static enum status build_part(struct build *b, const struct record *whole, size_t n_dims,
                              const struct json *element)
{
    struct record *part = &b->row->record;

    b->breakdown = NULL;
    b->n_dims = n_dims;
    b->n_extra = 0;
    b->seen = 0;
    for (size_t i = 0; i < TEXT_DIMS; i++)
        part->texts[i] = whole->texts[i];
    part->batch = whole->batch;
    if (element->type != JSON_OBJECT)
        return row_fault(b, text_of(b->r->feed->breakdown), "it holds what is not an object");
    for (const struct json *m = element->first; m; m = m->next)
        TRY(take_member(b,
                        text_of(arena_printf(b->r->arena, "%s[].%.*s", b->r->feed->breakdown,
                                             (int)m->key.len, m->key.at)),
                        m));
    return finish_row(b, true);
}

/* ---- soft checks ---- */

/* Whether a result keeps what the provider says of its totals and their parts. */
static bool identity_holds(const struct build *b, size_t identity)
{
    const struct table *t = &b->r->table;
    const struct json *whole = b->values[t->identities[identity].whole];
    bool exact = b->r->feed->identities[identity].exact;
    struct err ignored; /* never read, so not cleared for each row */
    int64_t total = 0, parts = 0;

    if (!json_is(whole, JSON_NUMBER) || int64_parse(&total, whole->text, &ignored) != ST_OK)
        return true;
    for (size_t i = 0; i < t->identities[identity].n_parts; i++) {
        const struct json *part = b->values[t->identities[identity].parts[i]];
        int64_t value;
        if (json_is_null(part) && exact)
            return true; /* not all reported: nothing to compare */
        if (json_is_null(part))
            continue;
        if (!json_is(part, JSON_NUMBER) || int64_parse(&value, part->text, &ignored) != ST_OK ||
            __builtin_add_overflow(parts, value, &parts))
            return true; /* the row's own reading has told */
    }
    return exact ? parts == total : parts <= total;
}

/* "$.data[3].results[0]", of a flat feed "$.data[17]". */
static const char *row_path(const struct reading *r, const struct row *row)
{
    const struct bucket *b = row->bucket;
    const char *data = data_path(r, b->answer);

    if (feed_is_flat(r->feed))
        return arena_printf(r->arena, "%s[%zu]", data, b->index);
    return arena_printf(r->arena, "%s[%zu].%s[%zu]", data, b->index, r->env->results, row->result);
}

static void check_identities(const struct build *b, struct page_notes *notes)
{
    const struct reading *r = b->r;

    for (size_t i = 0; i < r->feed->n_identities; i++) {
        if (identity_holds(b, i))
            continue;
        if (notes->inconsistent_rows++ == 0)
            notes->inconsistent_path =
                arena_printf(r->arena, "%s.%s", row_path(r, b->row), r->feed->identities[i].whole);
        return;
    }
}

/* ---- two rows of one key ---- */

static enum status add_decimals(struct arena *a, struct text *into, struct text from,
                                struct err *err)
{
    struct decimal x, y, sum;

    if (!from.at)
        return ST_OK;
    if (!into->at) {
        *into = from;
        return ST_OK;
    }
    TRY(decimal_parse(&x, a, *into, err));
    TRY(decimal_parse(&y, a, from, err));
    TRY(decimal_add(&sum, a, &x, &y, err));
    *into = decimal_format(&sum, a);
    return ST_OK;
}

/* The members of an `extra` that members_print wrote. Room for `more` behind them. */
static enum status extra_read(struct member **out, size_t *n, struct arena *a, struct text extra,
                              size_t more, struct err *err)
{
    struct json_doc doc;
    struct member *list;

    TRY(json_parse(&doc, a, extra, err));
    *out = list = ARENA_ARRAY(a, doc.root->n + more, struct member);
    *n = doc.root->n;
    for (const struct json *m = doc.root->first; m; m = m->next)
        *list++ = (struct member){m->key, m->text};
    return ST_OK;
}

static enum status add_extras(struct arena *a, struct text *into, struct text from, struct err *err)
{
    struct layout layout = {.n = 0};
    struct member *sum, *add;
    size_t n, n_add;

    if (!into->at)
        *into = from;
    else if (from.at) {
        TRY(extra_read(&add, &n_add, a, from, 0, err));
        TRY(extra_read(&sum, &n, a, *into, n_add, err));
        for (size_t i = 0; i < n_add; i++) {
            size_t k = 0;
            while (k < n && !text_eq(sum[k].name, add[i].name))
                k++;
            if (k < n)
                TRY(add_decimals(a, &sum[k].json, add[i].json, err));
            else
                sum[n++] = add[i];
        }
        *into = members_print(a, &layout, sum, n);
    }
    return ST_OK;
}

/* Quantities of different units have no sum: the money is what must stay right, so the quantity
 * becomes unknown. */
static enum status add_quantities(struct arena *a, struct record *into, const struct record *from,
                                  struct page_notes *notes, struct err *err)
{
    struct text *unit = &into->texts[TEXT_QUANTITY_UNIT];

    if (!from->texts[TEXT_QUANTITY].at)
        return ST_OK;
    if (into->texts[TEXT_QUANTITY].at && !text_eq(*unit, from->texts[TEXT_QUANTITY_UNIT])) {
        notes->mixed_units++;
        into->texts[TEXT_QUANTITY] = TEXT_NULL;
        *unit = TEXT_NULL;
        return ST_OK;
    }
    *unit = from->texts[TEXT_QUANTITY_UNIT];
    return add_decimals(a, &into->texts[TEXT_QUANTITY], from->texts[TEXT_QUANTITY], err);
}

/* Adds `from` to `into`, which is unchanged unless ST_OK. ST_REJECT: they have no sum. */
static enum status add_row(const struct reading *r, struct row *into, const struct row *from,
                           struct page_notes *notes, struct err *err)
{
    struct row sum = *into;
    struct record *rec = &sum.record;
    const struct text *add = from->record.texts;

    for (size_t i = 0; i < N_RECORD_COUNTS; i++) {
        int64_t value = from->record.counts[i];
        if (value == COUNT_NULL)
            continue;
        if (rec->counts[i] != COUNT_NULL && __builtin_add_overflow(value, rec->counts[i], &value))
            return err_set(err, ST_REJECT,
                           "added to another row of the same key, a count passes the largest one");
        rec->counts[i] = value;
    }
    if (rec->texts[TEXT_CURRENCY].at && add[TEXT_CURRENCY].at &&
        !text_eq(rec->texts[TEXT_CURRENCY], add[TEXT_CURRENCY]))
        return err_set(err, ST_REJECT, "another row of the same key is in another currency");
    if (add[TEXT_CURRENCY].at)
        rec->texts[TEXT_CURRENCY] = add[TEXT_CURRENCY];
    TRY(add_decimals(r->arena, &rec->texts[TEXT_COST_AMOUNT], add[TEXT_COST_AMOUNT], err));
    TRY(add_extras(r->arena, &rec->texts[TEXT_EXTRA], add[TEXT_EXTRA], err));
    TRY(add_quantities(r->arena, rec, &from->record, notes, err));
    record_digest(rec, text_of(r->feed->name));
    *into = sum;
    return ST_OK;
}

/* ---- dead letters ---- */

/* What is kept of bytes of strangers: without keys, as UTF-8, at most DEAD_BODY_MAX bytes. */
static struct text dead_body(struct arena *a, struct text t)
{
    struct buf out = {.arena = a};

    if (t.len > DEAD_BODY_MAX)
        t.len = DEAD_BODY_MAX;
    t = redact(a, t, NULL);
    buf_str(&out, "");
    for (size_t at = 0; at < t.len;) {
        size_t len = t.at[at] ? utf8_sequence(t.at + at, t.len - at) : 0;
        if (out.len + (len ? len : strlen(UTF8_REPLACEMENT)) > DEAD_BODY_MAX)
            break;
        if (len > 0)
            buf_append(&out, t.at + at, len);
        else
            buf_str(&out, UTF8_REPLACEMENT);
        at += len ? len : 1;
    }
    return (struct text){out.at, out.len};
}

/* NOLINTNEXTLINE(misc-no-recursion): as deep as the JSON, which JSON_DEPTH_MAX bounds */
static void print_without_people(struct json_writer *w, const struct json *node)
{
    struct buf scalar = {.arena = w->out->arena};

    if (node->type != JSON_OBJECT && node->type != JSON_ARRAY) {
        json_print(&scalar, node);
        json_w_raw(w, (struct text){scalar.at, scalar.len});
        return;
    }
    if (node->type == JSON_OBJECT)
        json_w_object(w);
    else
        json_w_array(w);
    for (const struct json *m = node->first; m; m = m->next) {
        if (node->type == JSON_OBJECT && is_personal(m->key))
            continue;
        if (node->type == JSON_OBJECT)
            json_w_key_text(w, m->key);
        print_without_people(w, m);
    }
    json_w_end(w);
}

static struct text dead_json(struct arena *a, const struct json *node)
{
    struct buf out = {.arena = a};
    struct json_writer w = {.out = &out};

    print_without_people(&w, node);
    return dead_body(a, (struct text){out.at, out.len});
}

static void page_clear(struct record_page *out, const struct page *page)
{
    *out = (struct record_page){.window = page->window,
                                .seq = page->seq,
                                .asked = page->asked,
                                .complete_us = page->complete_us};
}

void reader_bury(struct record_page *out, struct arena *a, const struct page *page,
                 const char *reason, const char *json_path)
{
    struct json_doc doc;
    struct err ignored = {0};
    bool parsed = json_parse(&doc, a, page->body, &ignored) == ST_OK;

    page_clear(out, page);
    out->dead.reason = dead_body(a, text_of(reason));
    out->dead.json_path = text_of(json_path);
    out->dead.body = parsed ? dead_json(a, doc.root) : dead_body(a, page->body);
}

/* The page's rows set aside: a bounded list. */
struct bad_rows {
    struct dead list[READER_BAD_ROWS_MAX];
    size_t n, total;
};

static void set_aside(const struct reading *r, struct bad_rows *bad, const struct row *row,
                      struct text at, const char *reason)
{
    struct dead *d;
    const char *path;

    bad->total++;
    if (bad->n == READER_BAD_ROWS_MAX)
        return;
    path =
        arena_printf(r->arena, "%s%s%.*s", row_path(r, row), at.len ? "." : "", (int)at.len, at.at);
    d = &bad->list[bad->n++];
    *d = (struct dead){.reason = dead_body(r->arena, text_of(reason)),
                       .json_path = text_of(path),
                       .body = dead_json(r->arena, row->node)};
}

/* ---- read ---- */

static int by_start(const void *a, const void *b)
{
    const struct bucket *left = a, *right = b;

    if (left->start_us != right->start_us)
        return left->start_us < right->start_us ? -1 : 1;
    return left->index < right->index ? -1 : 1;
}

/* A row on its way to its place: sorted instead of the row, which is large. */
struct place {
    int64_t bucket_start_us;
    uint64_t key_front; /* the key's first bytes, ordered as they are */
    struct row *row;
};

/* By key; rows of one key in the page's order, so that a sum does not depend on the sort. */
static int by_key(const void *a, const void *b)
{
    const struct place *left = a, *right = b;
    int key;

    if (left->bucket_start_us != right->bucket_start_us)
        return left->bucket_start_us < right->bucket_start_us ? -1 : 1;
    if (left->key_front != right->key_front)
        return left->key_front < right->key_front ? -1 : 1;
    key = memcmp(left->row->record.row_key, right->row->record.row_key,
                 sizeof(left->row->record.row_key));
    if (key != 0)
        return key;
    return left->row < right->row ? -1 : left->row > right->row;
}

/* Sorts the buckets, drops all but the last of each start, and lists the spans they cover. Of a
 * flat feed all are parts, and the page covers what was asked for. */
static void settle_buckets(struct reading *r, struct record_page *out, struct page_notes *notes)
{
    int64_t width_us = r->window->bucket_s * US_PER_S;
    struct span *spans = ARENA_ARRAY(r->arena, r->n_buckets + 1, struct span);
    size_t n = 0, n_spans = 0;

    out->spans = spans;
    if (feed_is_flat(r->feed)) {
        spans[0] = (struct span){r->window->from_us, r->window->to_us};
        out->n_spans = 1;
        return;
    }

    if (r->n_buckets > 0)
        qsort(r->buckets, r->n_buckets, sizeof(*r->buckets), by_start);
    for (size_t i = 0; i < r->n_buckets; i++) {
        struct bucket *b = &r->buckets[i];
        if (i + 1 < r->n_buckets && r->buckets[i + 1].start_us == b->start_us) {
            notes->repeated_buckets++;
            continue;
        }
        if (n_spans > 0 && spans[n_spans - 1].to_us == b->start_us)
            spans[n_spans - 1].to_us += width_us;
        else
            spans[n_spans++] = (struct span){b->start_us, b->start_us + width_us};
        r->buckets[n++] = *b;
    }
    r->n_buckets = n;
    out->n_spans = n_spans;
}

static size_t row_size(const struct row *row)
{
    size_t size = sizeof(struct record);

    for (size_t i = 0; i < N_RECORD_TEXTS; i++)
        size += row->record.texts[i].len;
    return size;
}

/* The rows of a page as they come. */
struct rows {
    struct row *list;
    size_t n, size; /* bytes */
    struct bad_rows *bad;
    struct page_notes *notes;
};

static void row_start(struct rows *rows, struct build *b, const struct bucket *bucket,
                      const struct json *node, size_t result)
{
    struct row *row = &rows->list[rows->n];

    *row = (struct row){.node = node, .bucket = bucket, .result = result};
    record_clear(&row->record);
    row->record.bucket_start_us = bucket->start_us;
    row->record.bucket_seconds = b->r->window->bucket_s;
    b->row = row;
}

/* Keeps the row that was begun, or sets it aside when `built` is not ST_OK. */
static enum status row_end(struct reading *r, struct rows *rows, struct build *b, enum status built)
{
    if (built != ST_OK) {
        set_aside(r, rows->bad, b->row, b->at, b->err.text);
        return ST_OK;
    }
    rows->size += row_size(b->row);
    rows->n++;
    if (rows->size > READER_PAGE_MAX)
        return page_fault(r, "$", "its records are too large for one message");
    return ST_OK;
}

/* One result -> its row, and one more for each element of its breakdown. */
static enum status take_result(struct reading *r, struct rows *rows, struct build *b,
                               const struct bucket *bucket, const struct json *node, size_t result)
{
    const struct json *elements;
    struct record whole;
    enum status built;
    size_t n_dims;

    b->n_dims = b->n_extra = b->n_paths = b->people_dropped = 0;
    b->seen = 0;
    for (size_t i = 0; i < r->feed->n_fields; i++)
        b->values[i] = NULL;
    row_start(rows, b, bucket, node, result);
    built = build_row(b);
    whole = b->row->record;
    n_dims = b->n_dims;
    if (built == ST_OK)
        check_identities(b, rows->notes);
    rows->notes->people_dropped += b->people_dropped;
    TRY(row_end(r, rows, b, built));
    elements = built == ST_OK && r->feed->breakdown ? json_member(node, r->feed->breakdown) : NULL;
    if (!json_is(elements, JSON_ARRAY))
        return ST_OK;
    for (const struct json *e = elements->first; e; e = e->next) {
        row_start(rows, b, bucket, node, result);
        TRY(row_end(r, rows, b, build_part(b, &whole, n_dims, e)));
    }
    return ST_OK;
}

static size_t count_rows(const struct reading *r)
{
    size_t n = 0;

    for (size_t i = 0; i < r->n_buckets; i++)
        n += r->buckets[i].n;
    for (size_t i = 0; r->feed->breakdown && i < r->n_buckets; i++) {
        const struct json *node = r->buckets[i].first;
        for (size_t k = 0; k < r->buckets[i].n; k++, node = node->next) {
            const struct json *elements = json_member(node, r->feed->breakdown);
            n += json_is(elements, JSON_ARRAY) ? elements->n : 0;
        }
    }
    return n;
}

/* Results -> rows. ST_REJECT: they are more than a message may carry. */
static enum status build_rows(struct reading *r, struct rows *rows)
{
    struct build *b = ARENA_NEW(r->arena, struct build);

    table_make(r);
    b->r = r;
    rows->list = ARENA_ROOM(r->arena, count_rows(r), struct row);
    for (size_t i = 0; i < r->n_buckets; i++) {
        const struct bucket *bucket = &r->buckets[i];
        const struct json *node = bucket->first;
        for (size_t result = 0; result < bucket->n; result++, node = node->next)
            TRY(take_result(r, rows, b, bucket, node, result));
    }
    return ST_OK;
}

static const struct place *sorted(const struct reading *r, const struct rows *rows)
{
    struct place *places = ARENA_ROOM(r->arena, rows->n, struct place);

    for (size_t i = 0; i < rows->n; i++) {
        struct row *row = &rows->list[i];
        uint64_t front;
        memcpy(&front, row->record.row_key, sizeof(front));
        places[i] = (struct place){row->record.bucket_start_us, be64toh(front), row};
    }
    if (rows->n > 0)
        qsort(places, rows->n, sizeof(*places), by_key);
    return places;
}

static bool same_key(const struct record *a, const struct record *b)
{
    return a->bucket_start_us == b->bucket_start_us &&
           memcmp(a->row_key, b->row_key, sizeof(a->row_key)) == 0;
}

/* Rows -> records, sorted and without a key twice. */
static void merge_rows(struct reading *r, struct rows *rows, struct record_page *out)
{
    const struct place *places = sorted(r, rows);
    struct record *records = ARENA_ROOM(r->arena, rows->n, struct record);
    size_t n = 0;
    struct row *last = NULL;

    for (size_t i = 0; i < rows->n; i++) {
        struct row *row = places[i].row;
        struct err why;
        if (!last || !same_key(&last->record, &row->record)) {
            last = row;
            records[n++] = row->record;
            continue;
        }
        if (last->record.row_hash == row->record.row_hash) {
            rows->notes->equal_rows++;
            continue;
        }
        why = (struct err){0};
        if (add_row(r, last, row, rows->notes, &why) != ST_OK) {
            set_aside(r, rows->bad, row, TEXT_LIT(""), why.text);
            continue;
        }
        rows->notes->summed_rows++;
        records[n - 1] = last->record;
    }
    out->records = records;
    out->n_records = n;
}

static enum status read_page(struct reading *r, struct record_page *out, struct page_notes *notes,
                             struct text body)
{
    struct bad_rows *bad = ARENA_NEW(r->arena, struct bad_rows);
    struct rows rows = {.bad = bad, .notes = notes};

    TRY(scan(r, body, LEVELS_ALL));
    notes->repaired = r->doc.repaired;
    settle_buckets(r, out, notes);
    TRY(build_rows(r, &rows));
    merge_rows(r, &rows, out);
    if (bad->total > bad->n) {
        struct dead *last = &bad->list[bad->n - 1];
        last->reason =
            text_of(arena_printf(r->arena, "%.*s (and %zu rows more of this page)",
                                 (int)last->reason.len, last->reason.at, bad->total - bad->n));
    }
    out->bad_rows = bad->list;
    out->n_bad_rows = bad->n;
    return ST_OK;
}

enum status reader_read(struct record_page *out, struct page_notes *notes, struct arena *a,
                        const struct raw_page *raw, struct err *err)
{
    struct reading r = {.arena = a,
                        .feed = raw->feed,
                        .env = raw->feed->envelope,
                        .window = &raw->page->asked,
                        .people = raw->people,
                        .err = err};
    enum status st;

    *notes = (struct page_notes){0};
    page_clear(out, raw->page);
    st = read_page(&r, out, notes, raw->page->body);
    if (st == ST_REJECT)
        reader_bury(out, a, raw->page, err->text, r.path);
    return st;
}
