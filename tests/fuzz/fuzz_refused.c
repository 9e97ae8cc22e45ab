/* What a provider says with a status other than 200, and the words that people see of it: never
 * with the key in it. Input: a byte of the status, a byte of the feed, then the body. */
#include "common/providers/provider.h"
#include "tests/fuzz/fuzz.h"

static const uint32_t statuses[] = {400, 401, 402, 403, 404, 405, 408, 409, 410, 413, 418, 422,
                                    429, 451, 500, 501, 502, 503, 504, 520, 529, 302, 204, 100};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static unsigned char key_bytes[] = "sk-admin-Zk3vQm81xT0aLpW7dRe5uYh2";
    const struct secret key = {key_bytes, sizeof(key_bytes) - 1};
    const struct provider *provider;
    struct question q = {0};
    struct arena *a;
    struct refusal r = {0};

    if (len < 2)
        return 0;
    a = arena_new();
    provider = data[1] & 0x40 ? &anthropic_provider : &openai_provider;
    q.feed = &provider->feeds[(data[1] & 0x3f) % provider->n_feeds];
    if (data[1] & 0x80)
        q.cursor = TEXT_LIT("token");
    provider->refused(&r, a, &key, &q, statuses[data[0] % (sizeof(statuses) / sizeof(statuses[0]))],
                      fuzz_text(data + 2, len - 2));
    HOLDS((unsigned)r.ending < N_ENDINGS && r.ending != END_OK);
    HOLDS(fuzz_storable(text_of(r.detail)));
    HOLDS(!fuzz_contains(text_of(r.detail), key.at, key.len));
    arena_free(&a);
    return 0;
}
