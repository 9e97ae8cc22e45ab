#include "tests/fakes/yajl_tree.h"

#include <stdlib.h>
#include <yajl/yajl_parse.h>

#include "common/utf8.h"

struct tree {
    struct arena *arena;
    struct json *root;
    struct {
        struct json *node;
        struct json **tail; /* where its next child goes */
    } open[JSON_DEPTH_MAX];
    uint32_t depth, levels;
    struct json beyond; /* stands for what is deeper than `levels` */
    struct text key;    /* of the value to come */
};

static struct json *add(struct tree *t, enum json_type type)
{
    struct json *node;

    if (t->depth > 0)
        t->open[t->depth - 1].node->n++;
    if (t->depth >= t->levels)
        return &t->beyond;
    node = ARENA_NEW(t->arena, struct json);
    node->type = type;
    node->key = t->key;
    t->key = TEXT_NULL;
    if (t->depth == 0) {
        t->root = node;
    } else {
        *t->open[t->depth - 1].tail = node;
        t->open[t->depth - 1].tail = &node->next;
    }
    return node;
}

static int on_null(void *tree)
{
    add(tree, JSON_NULL);
    return 1;
}

static int on_boolean(void *tree, int value)
{
    add(tree, value ? JSON_TRUE : JSON_FALSE);
    return 1;
}

static int on_number(void *tree, const char *at, size_t len)
{
    struct tree *t = tree;

    add(t, JSON_NUMBER)->text = (struct text){arena_copy(t->arena, at, len), len};
    return 1;
}

static int on_string(void *tree, const unsigned char *at, size_t len)
{
    struct tree *t = tree;

    add(t, JSON_STRING)->text = (struct text){arena_copy(t->arena, at, len), len};
    return 1;
}

static int on_key(void *tree, const unsigned char *at, size_t len)
{
    struct tree *t = tree;

    t->key = (struct text){arena_copy(t->arena, at, len), len};
    return 1;
}

static int on_start(struct tree *t, enum json_type type)
{
    struct json *node;

    if (t->depth == JSON_DEPTH_MAX)
        return 0;
    node = add(t, type);
    t->open[t->depth].node = node;
    t->open[t->depth].tail = &node->first;
    t->depth++;
    return 1;
}

static int on_start_map(void *tree)
{
    return on_start(tree, JSON_OBJECT);
}

static int on_start_array(void *tree)
{
    return on_start(tree, JSON_ARRAY);
}

static int on_end_array(void *tree)
{
    struct tree *t = tree;

    t->depth--;
    return 1;
}

static bool has_later_twin(const struct json *node)
{
    for (const struct json *later = node->next; later; later = later->next)
        if (text_eq(later->key, node->key))
            return true;
    return false;
}

static int on_end_map(void *tree)
{
    struct tree *t = tree;
    struct json *object;
    bool hollow = t->depth >= t->levels;

    object = t->open[--t->depth].node;
    if (hollow)
        return 1;
    for (struct json **link = &object->first; *link;) {
        if (has_later_twin(*link)) {
            *link = (*link)->next;
            object->n--;
        } else {
            link = &(*link)->next;
        }
    }
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

/* The "XXXX" of an escape, or -1. */
static long unit_at(struct text t, size_t at)
{
    char hex[5] = "", *end;

    if (at + 6 > t.len || t.at[at] != '\\' || t.at[at + 1] != 'u')
        return -1;
    for (size_t i = 0; i < 4; i++) {
        hex[i] = t.at[at + 2 + i];
        if (!hex[i] || !strchr("0123456789abcdefABCDEF", hex[i]))
            return -1;
    }
    return strtol(hex, &end, 16);
}

/* Overwrites escapes of NUL and of lone surrogates: yajl would make '?' or a real NUL of them. */
static bool repair_escapes(char *at, size_t len)
{
    struct text t = {at, len};
    bool repaired = false;

    for (size_t i = 0; i < len; i++) {
        long unit = unit_at(t, i), low;
        if (at[i] != '\\')
            continue;
        low = unit_at(t, i + 6);
        if (unit >= 0xd800 && unit <= 0xdbff && low >= 0xdc00 && low <= 0xdfff) {
            i += 11;
        } else if (unit == 0 || (unit >= 0xd800 && unit <= 0xdfff)) {
            memcpy(at + i + 2, (const char[]){'f', 'f', 'f', 'd'}, 4);
            repaired = true;
            i += 5;
        } else {
            i++; /* the escaped character may be a backslash */
        }
    }
    return repaired;
}

/* yajl is lenient in two things: it takes a vertical tab and a form feed for blanks, and does not
 * mind a text that is begun after the value and never ends. The body is made such that it minds. */
static struct text prepared(struct arena *a, struct text body, bool *repaired)
{
    struct buf b = {.arena = a};

    for (size_t i = 0, n; i < body.len; i += n ? n : 1) {
        n = utf8_sequence(body.at + i, body.len - i);
        if (n == 0)
            buf_str(&b, UTF8_REPLACEMENT);
        else if (body.at[i] == '\v' || body.at[i] == '\f')
            buf_str(&b, "\x01");
        else
            buf_append(&b, body.at + i, n);
        *repaired |= n == 0;
    }
    buf_str(&b, "\n");
    *repaired |= repair_escapes(b.at, b.len);
    return (struct text){b.at, b.len};
}

enum status yajl_tree(struct json_doc *out, struct arena *a, struct text body, uint32_t levels)
{
    struct tree t = {.arena = a, .levels = levels};
    bool repaired = false, good;
    yajl_handle h;

    if (body.len >= 3 && memcmp(body.at, "\xef\xbb\xbf", 3) == 0) {
        body.at += 3;
        body.len -= 3;
    }
    body = prepared(a, body, &repaired);
    h = yajl_alloc(&callbacks, NULL, &t);
    yajl_config(h, yajl_dont_validate_strings, 1); /* done above */
    good = yajl_parse(h, (const unsigned char *)body.at, body.len) == yajl_status_ok &&
           yajl_complete_parse(h) == yajl_status_ok;
    yajl_free(h);
    if (!good)
        return ST_REJECT;
    *out = (struct json_doc){t.root, repaired};
    return ST_OK;
}
