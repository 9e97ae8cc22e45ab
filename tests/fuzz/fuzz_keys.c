/* The file of public keys: each that is accepted has a role, prints as it was written, is listed
 * once, and reads the same when it is written again. A refusal names a line. */
#include "common/keys.h"
#include "tests/fuzz/fuzz.h"

static bool has(struct text file, const char *word)
{
    return memmem(file.at, file.len, word, strlen(word)) != NULL;
}

static void holds(struct arena *a, struct text file, const struct key_list *list)
{
    static struct key_list again;
    struct buf b = {.arena = a};
    struct err err;

    HOLDS(list->n <= KEYS_MAX);
    buf_str(&b, "");
    for (size_t i = 0; i < list->n; i++) {
        char text[CURVE_TEXT_LEN + 1] = "";

        curve_key_print(text, list->keys[i].at);
        HOLDS(stage_name(list->keys[i].role));
        HOLDS(has(file, text) && has(file, stage_name(list->keys[i].role)));
        for (size_t k = 0; k < i; k++)
            HOLDS(memcmp(list->keys[i].at, list->keys[k].at, CURVE_KEY_LEN) != 0);
        buf_printf(&b, "%s %s\n", stage_name(list->keys[i].role), text);
    }
    HOLDS(key_list_parse(&again, (struct text){b.at, b.len}, &err) == ST_OK);
    HOLDS(again.n == list->n);
    for (size_t i = 0; i < list->n; i++)
        HOLDS(again.keys[i].role == list->keys[i].role &&
              memcmp(again.keys[i].at, list->keys[i].at, CURVE_KEY_LEN) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static struct key_list list;
    struct text file = fuzz_text(data, len);
    struct secret secret = {NULL, 0};
    struct arena *a;
    struct err err = {0};

    if (key_list_parse(&list, file, &err) == ST_OK) {
        a = arena_new();
        holds(a, file, &list);
        arena_free(&a);
    } else {
        HOLDS(err.status == ST_REJECT && strncmp(err.text, "line ", 5) == 0);
    }
    if (curve_key_parse(&secret, file, &err) == ST_OK)
        HOLDS(secret.len == CURVE_KEY_LEN);
    secret_wipe(&secret);
    return 0;
}
