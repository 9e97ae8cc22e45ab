/* JSON of strangers: what is read is printed as what reads back the same, fit for Postgres. */
#include "common/json.h"
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct arena *a = arena_new();
    struct json_doc doc, again;
    struct buf once = {.arena = a}, twice = {.arena = a};
    struct err err;

    HOLDS(printable_snippet(a, fuzz_text(data, len), 40) != NULL);
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
