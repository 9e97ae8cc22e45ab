/* JSON of strangers: it is read as yajl reads it, whole and in outline, refused where yajl refuses
 * it (an outline only where a quote or bracket is missing), and what is read is printed as what
 * reads back the same, fit for Postgres. */
#include "common/json.h"
#include "common/json_scan.h"
#include "tests/fakes/yajl_tree.h"
#include "tests/fuzz/fuzz.h"

static void check_node(const struct json *node, int depth)
{
    size_t n = 0;

    HOLDS(depth <= JSON_DEPTH_MAX);
    HOLDS(fuzz_storable(node->key) && fuzz_storable(node->text));
    HOLDS(node->type != JSON_NUMBER || node->text.len > 0);
    for (const struct json *child = node->first; child; child = child->next, n++) {
        HOLDS((child->key.at != NULL) == (node->type == JSON_OBJECT));
        check_node(child, depth + 1);
    }
    HOLDS(n == node->n);
}

static void check_same(const struct json *ours, const struct json *theirs)
{
    const struct json *twin = theirs->first;

    HOLDS(ours->type == theirs->type && ours->n == theirs->n);
    HOLDS(text_eq(ours->key, theirs->key) && text_eq(ours->text, theirs->text));
    for (const struct json *child = ours->first; child; child = child->next, twin = twin->next) {
        HOLDS(twin != NULL);
        check_same(child, twin);
    }
    HOLDS(twin == NULL);
}

static void check_against_yajl(struct arena *a, struct text body, uint32_t levels)
{
    struct json_doc ours, theirs;
    struct err err = {0};
    enum status st = json_parse_outline(&ours, a, body, levels, &err);
    bool good = yajl_tree(&theirs, a, body, levels) == ST_OK, whole = levels > JSON_DEPTH_MAX;

    HOLDS((st == ST_OK) == (err.text[0] == '\0'));
    HOLDS(whole ? good == (st == ST_OK) : !good || st == ST_OK);
    if (!good)
        return;
    HOLDS(!whole || ours.repaired == theirs.repaired);
    check_same(ours.root, theirs.root);
}

/* The two ways to look for the end of what is plain, and of an array or object, from each place. */
static void check_scan(struct text t)
{
#ifdef __SSE2__
    for (size_t i = 0; i < t.len && i < 64; i++) {
        const char *from = t.at + i, *end = t.at + t.len;
        struct json_span slow = {.depth = 1}, fast = {.depth = 1};

        HOLDS(json_scan_portable(from, end) == json_scan_sse2(from, end));
        HOLDS(json_pass_portable(&slow, from, end) == json_pass_sse2(&fast, from, end));
        HOLDS(slow.depth == fast.depth && slow.commas == fast.commas);
    }
#else
    (void)t;
#endif
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct arena *a = arena_new();
    struct json_doc doc, again;
    struct buf once = {.arena = a}, twice = {.arena = a};
    struct err err;

    HOLDS(printable_snippet(a, fuzz_text(data, len), 40) != NULL);
    check_scan(fuzz_text(data, len));
    check_against_yajl(a, fuzz_text(data, len), JSON_DEPTH_MAX + 1);
    check_against_yajl(a, fuzz_text(data, len), 3);
    if (json_parse(&doc, a, fuzz_text(data, len), &err) == ST_OK) {
        check_node(doc.root, 0);
        json_print(&once, doc.root);
        HOLDS(json_parse(&again, a, (struct text){once.at, once.len}, &err) == ST_OK);
        HOLDS(!again.repaired);
        json_print(&twice, again.root);
        HOLDS(once.len == twice.len && memcmp(once.at, twice.at, once.len) == 0);
        (void)json_path(doc.root, "data.results.amount");
    }
    arena_free(&a);
    return 0;
}
