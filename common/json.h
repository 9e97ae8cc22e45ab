/* json.h - reading JSON of strangers into a tree, and writing our own.
 *
 * Reading is RFC 8259 to the letter, but for two kindnesses: a byte order mark in front, and text
 * that Postgres would refuse is mended: a NUL, a lone surrogate and bytes that are not UTF-8 become
 * U+FFFD, and the tree says so (`repaired`). A number keeps its own digits.
 *
 * The parser is our own because fetcher and normalizer look at every byte of every page with it,
 * and a library was the floor of both: yajl, the fastest in Debian, takes several times as long
 * (docs/performance.md). yajl and jansson are the judges it is tested against, and a fuzzer looks
 * for a body that it and yajl read differently (tests/fuzz/fuzz_json.c). */
#ifndef UF_JSON_H
#define UF_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/arena.h"
#include "common/status.h"
#include "common/text.h"

enum json_type {
    JSON_NULL,
    JSON_TRUE,
    JSON_FALSE,
    JSON_NUMBER,
    JSON_STRING,
    JSON_ARRAY,
    JSON_OBJECT
};

struct json {
    struct text key;    /* of an object's member; null elsewhere */
    struct text text;   /* a string's characters, a number's digits as received */
    struct json *first; /* children of an array or object, in order */
    struct json *next;  /* the sibling after this one */
    uint32_t n;         /* number of children */
    enum json_type type;
};

struct json_doc {
    const struct json *root;
    bool repaired; /* some text held what Postgres can not store */
};

#define JSON_DEPTH_MAX 32

/* The whole of `body` must be one value (white space around it, and a UTF-8 byte order mark before,
 * are fine). A member given twice: the later wins. The tree lives in `a`, but a text or a number
 * that needed no change is a slice of `body`, which has to live as long. ST_REJECT: not JSON, too
 * deep, empty; err tells the byte (the first is 1) and a short printable snippet. */
enum status json_parse(struct json_doc *out, struct arena *a, struct text body,
                       struct err *err) CHECKED;

/* The same, for whoever needs the frame alone: only the upper `levels` are read (the root is the
 * first, and always is). A lowest array or object has its `n` (doubles counted) and no children: of
 * what is in it nothing is checked but that it is all there, quotes and brackets in pairs. That
 * takes a sixth of the time. */
enum status json_parse_outline(struct json_doc *out, struct arena *a, struct text body,
                               uint32_t levels, struct err *err) CHECKED;

/* NULL when `node` is NULL, not an object, or has no such member. */
const struct json *json_member(const struct json *node, const char *key);
/* "a.b.c" through objects. */
const struct json *json_path(const struct json *node, const char *dotted);

bool json_is_null(const struct json *node); /* absent (NULL) or JSON null */
static inline bool json_is(const struct json *node, enum json_type type)
{
    return node && node->type == type;
}
/* The text of a string; null for anything else. */
struct text json_string(const struct json *node);

/* A node as compact JSON, appended to `b`. Members keep their order. */
void json_print(struct buf *b, const struct json *node);

/* Writing: commas and escapes are the writer's work. json_w_key inside objects only.
 *   json_w_object(&w); json_w_key(&w, "ok"); json_w_bool(&w, true); json_w_end(&w); */
struct json_writer {
    struct buf *out;
    uint32_t depth;
    uint64_t has_sibling; /* a bit per level */
    uint64_t is_object;
    bool after_key;
};
void json_w_object(struct json_writer *w);
void json_w_array(struct json_writer *w);
void json_w_end(struct json_writer *w); /* closes the innermost */
void json_w_key(struct json_writer *w, const char *key);
void json_w_key_text(struct json_writer *w, struct text key);
void json_w_text(struct json_writer *w, struct text t); /* null text -> null */
void json_w_str(struct json_writer *w, const char *s);  /* NULL -> null */
void json_w_int(struct json_writer *w, int64_t v);
void json_w_bool(struct json_writer *w, bool v);
void json_w_null(struct json_writer *w);
void json_w_raw(struct json_writer *w, struct text number_or_json); /* as it is */

/* At most `max` characters of `body`, control and non-ASCII bytes as '.', for error texts. */
const char *printable_snippet(struct arena *a, struct text body, size_t max);

#endif
