#include "common/json.h"

#include <assert.h>
#include <inttypes.h>
#include <xxhash.h>

#include "common/json_scan.h"
#include "common/utf8.h"

/* ---- reading: one pass, each byte looked at once ---- */

/* Objects up to this many members are searched for doubles pair by pair, larger ones by a hash
 * table, so that a body made to be slow is not. */
#define FEW_MEMBERS 24

#define NODES_A_BLOCK 64 /* taken from the arena at once */

struct parser {
    struct arena *arena;
    const char *begin, *at, *end; /* all that was received, and the byte that is next */
    uint32_t depth;               /* arrays and objects that are open */
    uint32_t levels;              /* what is deeper is passed over */
    struct json *spare, *spare_end;
    const struct json *sister[JSON_DEPTH_MAX + 1]; /* of each depth: the object read last, a hint */
    bool repaired;
    const char *why; /* it is no JSON; NULL: too deep */
};

static bool refuse(struct parser *p, const char *why)
{
    p->why = why;
    return false;
}

/* The next byte that is not blank; -1 at the end. */
static int next_byte(struct parser *p)
{
    for (; p->at < p->end; p->at++) {
        char c = *p->at;
        if (c != ' ' && c != '\n' && c != '\r' && c != '\t')
            return (unsigned char)c;
    }
    return -1;
}

/* ---- texts ---- */

/* The value of the "XXXX" of an escape, or -1. */
static int32_t hex4(const char *at)
{
    int32_t value = 0;

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

/* What stands for what Postgres can not store: a NUL, half a surrogate pair. Beyond all code
 * points. */
#define CODE_REPAIRED UINT32_MAX

/* The "\uXXXX" at `at`, or two that are a pair. Answers its length; 0: it is none. */
static size_t read_code(const char *at, size_t len, uint32_t *code)
{
    int32_t unit = len >= 6 ? hex4(at + 2) : -1, low;

    if (unit < 0)
        return 0;
    *code = (uint32_t)unit;
    if (unit >= 0xd800 && unit <= 0xdfff) {
        *code = CODE_REPAIRED;
        low = unit <= 0xdbff && len >= 12 && at[6] == '\\' && at[7] == 'u' ? hex4(at + 8) : -1;
        if (low >= 0xdc00 && low <= 0xdfff) {
            *code = 0x10000 + (((uint32_t)unit & 0x3ff) << 10 | ((uint32_t)low & 0x3ff));
            return 12;
        }
    }
    if (unit == 0)
        *code = CODE_REPAIRED;
    return 6;
}

/* The escape at `at`, which is a backslash. Answers its length; 0: it is none. */
static size_t read_escape(const char *at, size_t len, uint32_t *code)
{
    static const char letters[] = "\"\\/bfnrt", means[] = "\"\\/\b\f\n\r\t";
    const char *letter;

    if (len < 2)
        return 0;
    if (at[1] == 'u')
        return read_code(at, len, code);
    letter = memchr(letters, at[1], sizeof(letters) - 1);
    if (!letter)
        return 0;
    *code = (unsigned char)means[letter - letters];
    return 2;
}

static void append_code(struct buf *b, uint32_t code)
{
    char utf8[4];
    size_t len = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;

    if (code == CODE_REPAIRED) {
        buf_str(b, UTF8_REPLACEMENT);
        return;
    }
    for (size_t i = len; i-- > 1; code >>= 6)
        utf8[i] = (char)(0x80 | (code & 0x3f));
    utf8[0] =
        (char)(len == 1 ? code : (0xf00u >> len & 0xff) | code); /* 110..., 1110..., 11110... */
    buf_append(b, utf8, len);
}

/* A text that was checked, with its escapes resolved and U+FFFD for each byte that is not UTF-8. */
static struct text resolved(struct arena *a, struct text raw)
{
    struct buf b = {.arena = a};
    const char *at = raw.at, *end = raw.at + raw.len;

    buf_reserve(&b, raw.len);
    while (at < end) {
        const char *stop = json_scan(at, end);
        uint32_t code = CODE_REPAIRED;
        size_t len;

        buf_append(&b, at, (size_t)(stop - at));
        at = stop;
        if (at == end)
            break;
        if (*at == '\\') {
            at += read_escape(at, (size_t)(end - at), &code);
            append_code(&b, code);
            continue;
        }
        len = utf8_sequence(at, (size_t)(end - at));
        if (len > 0)
            buf_append(&b, at, len);
        else
            append_code(&b, CODE_REPAIRED);
        at += len > 0 ? len : 1;
    }
    return (struct text){b.at, b.len};
}

/* What stands at p->at is not plain: an escape or a character beyond ASCII is passed over.
 * `verbatim` becomes false where its bytes can not stay as they are. */
static bool pass_odd(struct parser *p, bool *verbatim)
{
    size_t len, left = (size_t)(p->end - p->at);
    uint32_t code = 0;

    if ((unsigned char)*p->at < 0x20)
        return refuse(p, "a control character in a text");
    if (*p->at == '\\') {
        len = read_escape(p->at, left, &code);
        if (len == 0)
            return refuse(p, "an escape that is none");
        *verbatim = false;
        p->repaired |= code == CODE_REPAIRED;
    } else {
        len = utf8_sequence(p->at, left);
        if (len == 0) {
            *verbatim = false;
            p->repaired = true;
            len = 1;
        }
    }
    p->at += len;
    return true;
}

/* p->at is the quote it begins with. */
static bool read_text(struct parser *p, struct text *out)
{
    const char *from = ++p->at;
    bool verbatim = true;

    for (;;) {
        p->at = json_scan(p->at, p->end);
        if (p->at == p->end)
            return refuse(p, "cut off in a text");
        if (*p->at == '"')
            break;
        if (!pass_odd(p, &verbatim))
            return false;
    }
    *out = (struct text){from, (size_t)(p->at++ - from)};
    if (!verbatim)
        *out = resolved(p->arena, *out);
    return true;
}

/* ---- numbers and words ---- */

static bool pass_digits(struct parser *p)
{
    const char *from = p->at;

    while (p->at < p->end && *p->at >= '0' && *p->at <= '9')
        p->at++;
    return p->at > from;
}

static bool pass_byte(struct parser *p, char c)
{
    if (p->at == p->end || *p->at != c)
        return false;
    p->at++;
    return true;
}

static bool read_number(struct parser *p, struct text *out)
{
    const char *from = p->at;

    (void)pass_byte(p, '-');
    if (!pass_byte(p, '0') && !pass_digits(p))
        return refuse(p, "neither a value nor a number");
    if (pass_byte(p, '.') && !pass_digits(p))
        return refuse(p, "a number without digits after its point");
    if (pass_byte(p, 'e') || pass_byte(p, 'E')) {
        if (!pass_byte(p, '-'))
            (void)pass_byte(p, '+');
        if (!pass_digits(p))
            return refuse(p, "a number without digits in its exponent");
    }
    *out = (struct text){from, (size_t)(p->at - from)};
    return true;
}

static bool pass_word(struct parser *p, struct text word)
{
    if ((size_t)(p->end - p->at) < word.len || memcmp(p->at, word.at, word.len) != 0)
        return refuse(p, "no value");
    p->at += word.len;
    return true;
}

/* ---- doubles: a member that is given twice ---- */

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

    while (size < (size_t)object->n * 2)
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

/* `listed`: its members came in the order of its sister's, which has no doubles. */
static void drop_doubles(struct parser *p, struct json *object, bool listed)
{
    if (listed)
        return;
    if (object->n <= FEW_MEMBERS)
        drop_doubles_of_few(object);
    else
        drop_doubles_of_many(p->arena, object);
}

/* ---- arrays and objects ---- */

static bool is_beyond(const struct parser *p)
{
    return p->depth >= p->levels;
}

static struct json *node_new(struct parser *p)
{
    if (p->spare == p->spare_end) {
        p->spare = ARENA_ROOM(p->arena, NODES_A_BLOCK, struct json);
        p->spare_end = p->spare + NODES_A_BLOCK;
    }
    *p->spare = (struct json){.n = 0};
    return p->spare++;
}

static bool read_value(struct parser *p, struct json *node);

/* Steps behind the bracket that opens an array or object. */
static bool enter(struct parser *p)
{
    if (p->depth == JSON_DEPTH_MAX)
        return refuse(p, NULL);
    p->depth++;
    p->at++;
    return true;
}

/* After a child: whether another one follows. `closing` ends them; anything else is refused. */
static bool another(struct parser *p, char closing, bool *more)
{
    int c = next_byte(p);

    if (c != ',' && c != closing)
        return refuse(p, c < 0            ? "cut off"
                         : closing == ']' ? "neither a comma nor the array's end"
                                          : "neither a comma nor the object's end");
    p->at++;
    *more = c == ',';
    return true;
}

/* What is in the array or object that was entered is beyond what is kept: only counted. */
static bool pass_over(struct parser *p, struct json *node, char closing)
{
    struct json_span span = {.depth = 1};

    p->depth--;
    if (next_byte(p) == closing) {
        p->at++;
        return true;
    }
    p->at = json_pass(&span, p->at, p->end);
    if (span.depth > 0)
        return refuse(p, span.in_text ? "cut off in a text" : "cut off");
    if (p->at[-1] != closing)
        return refuse(p, "a bracket that closes another kind");
    node->n = (uint32_t)span.commas + 1;
    return true;
}

/* NOLINTNEXTLINE(misc-no-recursion): JSON_DEPTH_MAX bounds it */
static bool read_array(struct parser *p, struct json *array)
{
    struct json **tail = &array->first;
    bool more = true;

    if (!enter(p))
        return false;
    if (is_beyond(p))
        return pass_over(p, array, ']');
    if (next_byte(p) == ']') {
        p->at++;
        more = false;
    }
    while (more) {
        struct json *child = node_new(p);
        if (!read_value(p, child) || !another(p, ']', &more))
            return false;
        array->n++;
        *tail = child;
        tail = &child->next;
    }
    p->depth--;
    return true;
}

/* Whether the name at p->at, its quote included, is `likely` byte for byte. Of a name with escapes
 * or repairs the bytes are elsewhere, and say nothing of how it was written. */
static bool is_name(const struct parser *p, struct text likely)
{
    return likely.at >= p->begin && likely.at < p->end &&
           (size_t)(p->end - p->at) > likely.len + 1 && p->at[likely.len + 1] == '"' &&
           memcmp(p->at + 1, likely.at, likely.len) == 0;
}

/* "name":value. `likely`: the name that is expected, and becomes its key if it is that. */
static bool read_member(struct parser *p, struct json *member, const struct json *likely)
{
    int c = next_byte(p);

    if (c != '"')
        return refuse(p, c < 0 ? "cut off" : "no member's name in double quotes");
    if (likely && is_name(p, likely->key)) {
        member->key = likely->key;
        p->at += likely->key.len + 2;
    } else if (!read_text(p, &member->key)) {
        return false;
    }
    c = next_byte(p);
    if (c != ':')
        return refuse(p, c < 0 ? "cut off" : "no colon after a member's name");
    p->at++;
    return read_value(p, member);
}

/* Objects of one list nearly always have the same members in the same order, so whether one has
 * doubles is mostly seen by comparing it with its sister, name by name. */
static bool read_object(struct parser *p, struct json *object)
{
    struct json **tail = &object->first;
    const struct json *likely;
    bool listed = true, more = true;

    if (!enter(p))
        return false;
    if (is_beyond(p))
        return pass_over(p, object, '}');
    likely = p->sister[p->depth];
    if (next_byte(p) == '}') {
        p->at++;
        more = false;
    }
    while (more) {
        struct json *child = node_new(p);
        if (!read_member(p, child, likely) || !another(p, '}', &more))
            return false;
        object->n++;
        *tail = child;
        tail = &child->next;
        listed = listed && likely && text_eq(likely->key, child->key);
        if (listed) {
            child->key = likely->key; /* equal names at one place are compared at a glance */
            likely = likely->next;
        }
    }
    drop_doubles(p, object, listed);
    if (object->first)
        p->sister[p->depth] = object->first;
    p->depth--;
    return true;
}

/* NOLINTNEXTLINE(misc-no-recursion): JSON_DEPTH_MAX bounds it */
static bool read_value(struct parser *p, struct json *node)
{
    int c = next_byte(p);

    switch (c) {
    case '{':
        node->type = JSON_OBJECT;
        return read_object(p, node);
    case '[':
        node->type = JSON_ARRAY;
        return read_array(p, node);
    case '"':
        node->type = JSON_STRING;
        return read_text(p, &node->text);
    case 't':
        node->type = JSON_TRUE;
        return pass_word(p, TEXT_LIT("true"));
    case 'f':
        node->type = JSON_FALSE;
        return pass_word(p, TEXT_LIT("false"));
    case 'n':
        node->type = JSON_NULL;
        return pass_word(p, TEXT_LIT("null"));
    case '/':
        return refuse(p, "JSON has no comments");
    case -1:
        return refuse(p, "cut off");
    default:
        node->type = JSON_NUMBER;
        return read_number(p, &node->text);
    }
}

/* ---- a whole body ---- */

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

/* Why it is refused, with the place (the first byte is 1) and what stands around it. */
static enum status refused(const struct parser *p, struct err *err)
{
    size_t len = (size_t)(p->end - p->begin), index = (size_t)(p->at - p->begin);
    size_t place = index < len ? index + 1 : len;
    size_t from = index > 20 ? index - 20 : 0;

    if (!p->why)
        return err_set(err, ST_REJECT, "JSON at byte %zu: nested deeper than %d levels", place,
                       JSON_DEPTH_MAX);
    return err_set(err, ST_REJECT, "not JSON at byte %zu (%s): \"%s\"", place, p->why,
                   printable_snippet(p->arena, (struct text){p->begin + from, len - from}, 40));
}

enum status json_parse_outline(struct json_doc *out, struct arena *a, struct text body,
                               uint32_t levels, struct err *err)
{
    struct parser p = {.arena = a, .levels = levels};
    struct json *root;
    bool good;

    assert(levels > 0);
    if (body.len == 0)
        return err_set(err, ST_REJECT, "not JSON: the body is empty");
    p.begin = p.at = body.at;
    p.end = body.at + body.len;
    if (body.len >= 3 && memcmp(body.at, "\xef\xbb\xbf", 3) == 0)
        p.at += 3;
    if (next_byte(&p) < 0)
        return err_set(err, ST_REJECT, "not JSON: the body is empty");
    root = node_new(&p);
    good = read_value(&p, root);
    if (good && next_byte(&p) >= 0)
        good = refuse(&p, "something follows the value");
    if (!good)
        return refused(&p, err);
    *out = (struct json_doc){root, p.repaired};
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

/* ---- writing ---- */

/* The character at the front of `t`, which is not plain. Answers how many bytes it takes there. */
static size_t append_odd(struct buf *b, struct text t)
{
    size_t len = utf8_sequence(t.at, t.len);
    char c = t.at[0];

    if (len == 0)
        buf_str(b, UTF8_REPLACEMENT);
    else if (len > 1)
        buf_append(b, t.at, len);
    else if (c == '"' || c == '\\')
        buf_printf(b, "\\%c", c);
    else if (c == '\n')
        buf_str(b, "\\n");
    else if (c == '\t')
        buf_str(b, "\\t");
    else
        buf_printf(b, "\\u%04x", (unsigned)c);
    return len > 0 ? len : 1;
}

static void append_quoted(struct buf *b, struct text t)
{
    const char *at = t.at, *end = t.at + t.len;

    buf_reserve(b, t.len + 2);
    buf_str(b, "\"");
    while (at < end) {
        const char *stop = json_scan(at, end);
        buf_append(b, at, (size_t)(stop - at));
        at = stop;
        if (at < end)
            at += append_odd(b, (struct text){at, (size_t)(end - at)});
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
