#include "common/json.h"

#include <assert.h>
#include <inttypes.h>
#include <stdalign.h>
#include <xxhash.h>
#include <yajl/yajl_parse.h>

#include "common/utf8.h"

/* Objects up to this many members are searched for doubles pair by pair, larger ones by a hash
 * table, so that a body made to be slow is not. */
#define FEW_MEMBERS 24

struct parser {
    struct arena *arena;
    const char *body; /* our copy: texts without escapes point into it */
    size_t body_len;
    size_t skipped; /* bytes received before it: byte order mark, blanks */
    struct json *root;
    struct {
        struct json *node;
        struct json **tail; /* where its next child goes */
    } open[JSON_DEPTH_MAX];
    uint32_t depth;
    uint32_t levels;    /* what is deeper is not kept */
    struct json beyond; /* stands for all of that */
    struct text key;    /* of the value to come */
    bool too_deep;
};

/* yajl's own buffers live in the arena too: freed by its reset, whatever happens. */
#define BLOCK_HEAD alignof(max_align_t) /* before each block: its size, for realloc */

static void *yajl_take(void *ctx, size_t size)
{
    char *block = arena_alloc(ctx, 1, BLOCK_HEAD + size);

    memcpy(block, &size, sizeof(size));
    return block + BLOCK_HEAD;
}

static void *yajl_grow(void *ctx, void *old, size_t size)
{
    void *grown = yajl_take(ctx, size);
    size_t old_size;

    if (old) {
        memcpy(&old_size, (char *)old - BLOCK_HEAD, sizeof(old_size));
        memcpy(grown, old, old_size < size ? old_size : size);
    }
    return grown;
}

static void yajl_drop(void *ctx, void *old)
{
    (void)ctx;
    (void)old;
}

static struct text kept(struct parser *p, const unsigned char *at, size_t len)
{
    const char *s = (const char *)at;

    if (s >= p->body && s < p->body + p->body_len)
        return (struct text){s, len};
    return (struct text){arena_copy(p->arena, s, len), len}; /* yajl resolved escapes in a buffer */
}

static bool is_beyond(const struct parser *p)
{
    return p->depth >= p->levels;
}

static struct json *add(struct parser *p, enum json_type type)
{
    struct json *node;

    if (is_beyond(p)) {
        p->open[p->depth - 1].node->n++;
        return &p->beyond;
    }
    node = ARENA_NEW(p->arena, struct json);
    node->type = type;
    node->key = p->key;
    p->key = TEXT_NULL;
    if (p->depth == 0) {
        p->root = node;
    } else {
        *p->open[p->depth - 1].tail = node;
        p->open[p->depth - 1].tail = &node->next;
        p->open[p->depth - 1].node->n++;
    }
    return node;
}

static int on_null(void *ctx)
{
    add(ctx, JSON_NULL);
    return 1;
}

static int on_boolean(void *ctx, int value)
{
    add(ctx, value ? JSON_TRUE : JSON_FALSE);
    return 1;
}

static int on_number(void *ctx, const char *at, size_t len)
{
    struct json *node = add(ctx, JSON_NUMBER);

    if (!is_beyond(ctx))
        node->text = kept(ctx, (const unsigned char *)at, len);
    return 1;
}

static int on_string(void *ctx, const unsigned char *at, size_t len)
{
    struct json *node = add(ctx, JSON_STRING);

    if (!is_beyond(ctx))
        node->text = kept(ctx, at, len);
    return 1;
}

static int on_key(void *ctx, const unsigned char *at, size_t len)
{
    struct parser *p = ctx;

    if (!is_beyond(p))
        p->key = kept(p, at, len);
    return 1;
}

static int open_node(struct parser *p, enum json_type type)
{
    struct json *node;

    if (p->depth == JSON_DEPTH_MAX) {
        p->too_deep = true;
        return 0;
    }
    node = add(p, type);
    p->open[p->depth].node = node;
    p->open[p->depth].tail = &node->first;
    p->depth++;
    return 1;
}

static int on_start_map(void *ctx)
{
    return open_node(ctx, JSON_OBJECT);
}

static int on_start_array(void *ctx)
{
    return open_node(ctx, JSON_ARRAY);
}

static int on_end_array(void *ctx)
{
    struct parser *p = ctx;

    p->depth--;
    return 1;
}

static bool has_later_twin(const struct json *node)
{
    for (const struct json *later = node->next; later; later = later->next) {
        if (later->key.len == node->key.len &&
            memcmp(later->key.at, node->key.at, node->key.len) == 0)
            return true;
    }
    return false;
}

static void drop_doubles_of_few(struct json *object)
{
    struct json **link = &object->first;

    while (*link) {
        if (has_later_twin(*link)) {
            *link = (*link)->next;
            object->n--;
        } else {
            link = &(*link)->next;
        }
    }
}

/* The slot of `key`: the member that has it, or NULL where it would go. */
static const struct json **slot_of(const struct json **table, size_t size, struct text key)
{
    size_t at = (size_t)XXH3_64bits(key.at, key.len) & (size - 1);

    while (table[at] && !text_eq(table[at]->key, key))
        at = (at + 1) & (size - 1);
    return &table[at];
}

static void drop_doubles_of_many(struct arena *a, struct json *object)
{
    struct json **link = &object->first;
    const struct json **table; /* open addressing, at most half full */
    size_t size = 64;

    while (size < object->n * 2)
        size *= 2;
    table = ARENA_ARRAY(a, size, const struct json *);
    for (const struct json *m = object->first; m; m = m->next)
        *slot_of(table, size, m->key) = m; /* a later one takes the place */
    while (*link) {
        if (*slot_of(table, size, (*link)->key) != *link) {
            *link = (*link)->next;
            object->n--;
        } else {
            link = &(*link)->next;
        }
    }
}

static int on_end_map(void *ctx)
{
    struct parser *p = ctx;
    struct json *object;
    bool hollow = is_beyond(p);

    object = p->open[--p->depth].node;
    if (hollow)
        return 1;
    if (object->n <= FEW_MEMBERS)
        drop_doubles_of_few(object);
    else
        drop_doubles_of_many(p->arena, object);
    return 1;
}

static const yajl_callbacks callbacks = {
    .yajl_null = on_null,
    .yajl_boolean = on_boolean,
    .yajl_number = on_number, /* all numbers, as text */
    .yajl_string = on_string,
    .yajl_start_map = on_start_map,
    .yajl_map_key = on_key,
    .yajl_end_map = on_end_map,
    .yajl_start_array = on_start_array,
    .yajl_end_array = on_end_array,
};

/* Length of the ASCII run at the front, eight bytes at a time: bodies are ASCII nearly always. */
static size_t ascii_run(const char *at, size_t len)
{
    size_t i = 0;
    uint64_t eight;

    for (; i + sizeof(eight) <= len; i += sizeof(eight)) {
        memcpy(&eight, at + i, sizeof(eight));
        if (eight & UINT64_C(0x8080808080808080))
            break;
    }
    while (i < len && (unsigned char)at[i] < 0x80)
        i++;
    return i;
}

/* Length of the valid UTF-8 at the front. */
static size_t utf8_run(const char *at, size_t len)
{
    size_t i = 0, n;

    for (;;) {
        i += ascii_run(at + i, len - i);
        n = utf8_sequence(at + i, len - i);
        if (n == 0)
            return i;
        i += n;
    }
}

/* Appends `t` with U+FFFD in place of each byte that is not UTF-8. Returns whether any was. */
static bool append_repaired(struct buf *b, struct text t)
{
    bool repaired = false;

    while (t.len > 0) {
        size_t good = utf8_run(t.at, t.len);
        buf_append(b, t.at, good);
        if (good < t.len) {
            buf_str(b, UTF8_REPLACEMENT);
            repaired = true;
            good++;
        }
        t.at += good;
        t.len -= good;
    }
    return repaired;
}

/* The value of the "XXXX" of an escape, or -1. */
static int32_t hex4(const char *at, size_t len)
{
    int32_t value = 0;

    if (len < 4)
        return -1;
    for (size_t i = 0; i < 4; i++) {
        char c = at[i];
        if (c >= '0' && c <= '9')
            value = value * 16 + (c - '0');
        else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
            value = value * 16 + ((c | 0x20) - 'a' + 10);
        else
            return -1;
    }
    return value;
}

/* Overwrites escapes of NUL and of lone surrogates with \ufffd, which is as long. yajl would make
 * '?' or a real NUL of them. Returns whether there was one. */
static bool repair_escapes(char *at, size_t len)
{
    char *end = at + len;
    bool repaired = false;

    while (at < end && (at = memchr(at, '\\', (size_t)(end - at))) && end - at >= 2) {
        int32_t unit = at[1] == 'u' ? hex4(at + 2, (size_t)(end - at - 2)) : -1;
        if (unit < 0) {
            at += 2; /* another escape, or none at all: yajl's to judge */
            continue;
        }
        if (unit >= 0xd800 && unit <= 0xdbff && end - at >= 12 && at[6] == '\\' && at[7] == 'u') {
            int32_t low = hex4(at + 8, 4);
            if (low >= 0xdc00 && low <= 0xdfff) {
                at += 12;
                continue;
            }
        }
        if (unit == 0 || (unit >= 0xd800 && unit <= 0xdfff)) {
            memcpy(at + 2, (const char[]){'f', 'f', 'f', 'd'}, 4);
            repaired = true;
        }
        at += 6;
    }
    return repaired;
}

const char *printable_snippet(struct arena *a, struct text body, size_t max)
{
    size_t len = body.len < max ? body.len : max;
    char *out = arena_copy(a, body.at, len);

    for (size_t i = 0; i < len; i++) {
        if (out[i] < 0x20 || out[i] > 0x7e)
            out[i] = '.';
    }
    return out;
}

/* Why yajl stopped, with the place and what stands around it. */
static enum status refused(const struct parser *p, yajl_handle h, struct err *err)
{
    size_t at = yajl_get_bytes_consumed(h);
    size_t from;
    char *why;

    if (at > p->body_len)
        at = p->body_len;
    if (p->too_deep)
        return err_set(err, ST_REJECT, "JSON at byte %zu: nested deeper than %d levels",
                       p->skipped + at, JSON_DEPTH_MAX);
    from = at > 20 ? at - 20 : 0;
    why = (char *)yajl_get_error(h, 0, NULL, 0);
    why[strcspn(why, "\n")] = '\0';
    return err_set(
        err, ST_REJECT, "not JSON at byte %zu (%s): \"%s\"", p->skipped + at, why,
        printable_snippet(p->arena, (struct text){p->body + from, p->body_len - from}, 40));
}

/* A copy of the body in the arena that yajl reads right. */
static struct text prepared(struct arena *a, struct text body, bool *repaired)
{
    struct buf b = {.arena = a};

    *repaired = append_repaired(&b, body);
    *repaired |= repair_escapes(b.at, b.len);
    return (struct text){b.at, b.len};
}

enum status json_parse_outline(struct json_doc *out, struct arena *a, struct text body,
                               uint32_t levels, struct err *err)
{
    yajl_alloc_funcs memory = {yajl_take, yajl_grow, yajl_drop, a};
    struct parser p = {.arena = a, .levels = levels};
    bool repaired;
    size_t received = body.len;
    yajl_handle h;

    if (body.len >= 3 && memcmp(body.at, "\xef\xbb\xbf", 3) == 0) {
        body.at += 3;
        body.len -= 3;
    }
    while (body.len > 0 && strchr(" \t\r\n", body.at[0]) && body.at[0]) {
        body.at++;
        body.len--;
    }
    if (body.len == 0)
        return err_set(err, ST_REJECT, "not JSON: the body is empty");
    p.skipped = received - body.len;
    body = prepared(a, body, &repaired);
    p.body = body.at;
    p.body_len = body.len;
    h = yajl_alloc(&callbacks, &memory, &p);
    yajl_config(h, yajl_dont_validate_strings, 1); /* done above */
    if (yajl_parse(h, (const unsigned char *)body.at, body.len) != yajl_status_ok ||
        yajl_complete_parse(h) != yajl_status_ok)
        return refused(&p, h, err);
    *out = (struct json_doc){p.root, repaired};
    return ST_OK;
}

enum status json_parse(struct json_doc *out, struct arena *a, struct text body, struct err *err)
{
    return json_parse_outline(out, a, body, JSON_DEPTH_MAX + 1, err);
}

const struct json *json_member(const struct json *node, const char *key)
{
    size_t len = strlen(key);

    if (!json_is(node, JSON_OBJECT))
        return NULL;
    for (const struct json *m = node->first; m; m = m->next) {
        if (m->key.len == len && memcmp(m->key.at, key, len) == 0)
            return m;
    }
    return NULL;
}

const struct json *json_path(const struct json *node, const char *dotted)
{
    while (json_is(node, JSON_OBJECT)) {
        size_t len = strcspn(dotted, ".");
        const struct json *m = node->first;

        while (m && !(m->key.len == len && memcmp(m->key.at, dotted, len) == 0))
            m = m->next;
        node = m;
        if (dotted[len] == '\0')
            return node;
        dotted += len + 1;
    }
    return NULL;
}

bool json_is_null(const struct json *node)
{
    return !node || node->type == JSON_NULL;
}

struct text json_string(const struct json *node)
{
    return json_is(node, JSON_STRING) ? node->text : TEXT_NULL;
}

/* Length of the front of `t` that needs no escape. */
static size_t plain_run(struct text t)
{
    size_t i = 0;

    while (i < t.len && (unsigned char)t.at[i] >= 0x20 && t.at[i] != '"' && t.at[i] != '\\')
        i++;
    return i;
}

static void append_quoted(struct buf *b, struct text t)
{
    buf_str(b, "\"");
    while (t.len > 0) {
        size_t n = plain_run(t);
        append_repaired(b, (struct text){t.at, n});
        if (n < t.len) {
            char c = t.at[n];
            if (c == '"' || c == '\\')
                buf_printf(b, "\\%c", c);
            else if (c == '\n')
                buf_str(b, "\\n");
            else if (c == '\t')
                buf_str(b, "\\t");
            else
                buf_printf(b, "\\u%04x", (unsigned)c);
            n++;
        }
        t.at += n;
        t.len -= n;
    }
    buf_str(b, "\"");
}

static void print_children(struct buf *b, const struct json *node);

/* As deep as the tree: at most JSON_DEPTH_MAX. */
void json_print(struct buf *b, const struct json *node)
{
    switch (node->type) {
    case JSON_NULL:
        buf_str(b, "null");
        return;
    case JSON_TRUE:
        buf_str(b, "true");
        return;
    case JSON_FALSE:
        buf_str(b, "false");
        return;
    case JSON_NUMBER:
        buf_text(b, node->text);
        return;
    case JSON_STRING:
        append_quoted(b, node->text);
        return;
    case JSON_ARRAY:
    case JSON_OBJECT:
        print_children(b, node);
        return;
    }
}

static void print_children(struct buf *b, const struct json *node)
{
    bool object = node->type == JSON_OBJECT;

    buf_str(b, object ? "{" : "[");
    for (const struct json *child = node->first; child; child = child->next) {
        if (child != node->first)
            buf_str(b, ",");
        if (object) {
            append_quoted(b, child->key);
            buf_str(b, ":");
        }
        json_print(b, child);
    }
    buf_str(b, object ? "}" : "]");
}

static uint64_t level_bit(const struct json_writer *w)
{
    assert(w->depth < 64);
    return UINT64_C(1) << w->depth;
}

/* A comma when something stands before on this level. */
static void separate(struct json_writer *w)
{
    if (w->has_sibling & level_bit(w))
        buf_str(w->out, ",");
    w->has_sibling |= level_bit(w);
}

static void before_value(struct json_writer *w)
{
    if (w->after_key) {
        w->after_key = false;
        return;
    }
    assert(!(w->is_object & level_bit(w))); /* a value in an object needs its key first */
    separate(w);
}

static void open_level(struct json_writer *w, bool object)
{
    before_value(w);
    buf_str(w->out, object ? "{" : "[");
    w->depth++;
    w->has_sibling &= ~level_bit(w);
    w->is_object &= ~level_bit(w);
    if (object)
        w->is_object |= level_bit(w);
}

void json_w_object(struct json_writer *w)
{
    open_level(w, true);
}

void json_w_array(struct json_writer *w)
{
    open_level(w, false);
}

void json_w_end(struct json_writer *w)
{
    assert(w->depth > 0 && !w->after_key);
    buf_str(w->out, w->is_object & level_bit(w) ? "}" : "]");
    w->depth--;
}

void json_w_key_text(struct json_writer *w, struct text key)
{
    assert((w->is_object & level_bit(w)) && !w->after_key);
    separate(w);
    append_quoted(w->out, key);
    buf_str(w->out, ":");
    w->after_key = true;
}

void json_w_key(struct json_writer *w, const char *key)
{
    json_w_key_text(w, text_of(key));
}

void json_w_text(struct json_writer *w, struct text t)
{
    before_value(w);
    if (t.at)
        append_quoted(w->out, t);
    else
        buf_str(w->out, "null");
}

void json_w_str(struct json_writer *w, const char *s)
{
    json_w_text(w, text_of(s));
}

void json_w_int(struct json_writer *w, int64_t v)
{
    before_value(w);
    buf_printf(w->out, "%" PRId64, v);
}

void json_w_bool(struct json_writer *w, bool v)
{
    before_value(w);
    buf_str(w->out, v ? "true" : "false");
}

void json_w_null(struct json_writer *w)
{
    json_w_text(w, TEXT_NULL);
}

void json_w_raw(struct json_writer *w, struct text number_or_json)
{
    before_value(w);
    if (number_or_json.at)
        buf_text(w->out, number_or_json);
    else
        buf_str(w->out, "null");
}
