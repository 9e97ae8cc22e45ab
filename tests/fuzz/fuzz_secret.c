/* Keys: as typed, as configured, and sealed. Input: one text, tried as each. */
#include "common/secret.h"
#include "tests/fuzz/fuzz.h"

static const struct text provider = {"openai", 6}, account = {"acme", 4};

static struct sealer *sealer(void)
{
    static struct sealer *s;
    static unsigned char bytes[ENCRYPTION_KEY_LEN] = {1, 2, 3}, old[ENCRYPTION_KEY_LEN] = {4, 5};
    const struct secret key = {bytes, sizeof(bytes)}, old_key = {old, sizeof(old)};
    struct err err;

    if (!s)
        HOLDS(sealer_open(&s, &key, &old_key, &err) == ST_OK);
    return s;
}

static void check_sealed(struct arena *a, const uint8_t *data, size_t len)
{
    struct secret plain = {0}, whole;
    struct text sealed;
    struct err err;

    /* nobody without the key makes a sealed text */
    HOLDS(secret_unseal(&plain, sealer(), provider, account, fuzz_text(data, len), &err) ==
          ST_REJECT);
    if (len == 0)
        return;
    whole = secret_copy(data, len);
    HOLDS(secret_seal(&sealed, a, sealer(), provider, account, &whole, &err) == ST_OK);
    HOLDS(secret_unseal(&plain, sealer(), provider, account, sealed, &err) == ST_OK);
    HOLDS(plain.len == len && memcmp(plain.at, data, len) == 0);
    secret_wipe(&plain);
    HOLDS(secret_unseal(&plain, sealer(), provider, TEXT_LIT("other"), sealed, &err) == ST_REJECT);
    ((char *)arena_copy(a, sealed.at, sealed.len))[0] = 1;
    secret_wipe(&whole);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct arena *a = arena_new();
    struct secret got = {0};
    struct err err = {0};
    const char *hint;

    if (encryption_key_parse(&got, fuzz_text(data, len), &err) == ST_OK) {
        HOLDS(got.len == ENCRYPTION_KEY_LEN);
        secret_wipe(&got);
    } else {
        HOLDS(len < 16 || !fuzz_contains(text_of(err.text), data, len));
    }
    if (provider_key_clean(&got, fuzz_text(data, len), &err) == ST_OK) {
        HOLDS(got.len > 0 && got.len <= 4096);
        for (size_t i = 0; i < got.len; i++)
            HOLDS(got.at[i] >= ' ' && got.at[i] <= '~');
        hint = provider_key_hint(a, &got);
        HOLDS(got.len < 20 || !fuzz_contains(text_of(hint), got.at, got.len));
        secret_wipe(&got);
    }
    check_sealed(a, data, len);
    arena_free(&a);
    return 0;
}
