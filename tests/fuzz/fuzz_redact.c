/* Text of strangers, shown to people: a known key is never in it. */
#include "common/secret.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static unsigned char key_bytes[] = "q9X-not_like:any+key/7Zt";
    const struct secret key = {key_bytes, sizeof(key_bytes) - 1};
    struct arena *a = arena_new();
    struct text with = redact(a, fuzz_text(data, len), &key);
    struct text without = redact(a, fuzz_text(data, len), NULL);

    HOLDS(!fuzz_contains(with, key.at, key.len));
    HOLDS(fuzz_contains(fuzz_text(data, len), key.at, key.len) || with.len <= without.len);
    arena_free(&a);
    return 0;
}
