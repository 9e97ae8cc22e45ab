/* Keys: sealed so that only their own account opens them, cleaned when typed, and never shown. */
#include "common/secret.h"

#include <openssl/crypto.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/check.h"

#define HEX_KEY "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"

static const struct {
    const char *name, *text;
    enum status want;
} key_cases[] = {
    {"64 hex digits", HEX_KEY, ST_OK},
    {"capital hex digits", "000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F",
     ST_OK},
    {"base64", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", ST_OK},
    {"base64 without padding", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8", ST_OK},
    {"blanks around", " AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\r\n", ST_OK},
    {"quotes around", "\"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\"\n", ST_OK},
    {"single quotes and blanks around", " '" HEX_KEY "' ", ST_OK},
    {"one quote", "\"" HEX_KEY, ST_FATAL},
    {"empty", "", ST_FATAL},
    {"31 bytes of hex", "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", ST_FATAL},
    {"33 bytes of hex", HEX_KEY "20", ST_FATAL},
    {"a letter that is no hex digit",
     "g00102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1", ST_FATAL},
    {"31 bytes of base64", "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHw==", ST_FATAL},
    {"bits that stand for nothing", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9=", ST_FATAL},
    {"a blank inside", "AAECAwQFBgcICQoLDA0OD AREhMUFRYXGBkaGxwdHh8=", ST_FATAL},
    {"a password", "correct horse battery staple", ST_FATAL},
};

static void encryption_keys(void **state)
{
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(key_cases); i++) {
        const char *name = key_cases[i].name, *text = key_cases[i].text;
        struct secret key = {0};
        struct err err = {0};
        enum status st = encryption_key_parse(&key, text_of(text), &err);

        good &= same_int(name, st, key_cases[i].want);
        for (size_t k = 0; st == ST_OK && k < ENCRYPTION_KEY_LEN; k++)
            good &= same_int(name, key.at[k], (int64_t)k);
        if (st != ST_OK) {
            good &= has_words(name, err.text, "usagectl keygen");
            good &= same_int(name, *text && strstr(err.text, text), false);
        }
        secret_wipe(&key);
    }
    assert_true(good);
}

static void both_base64_alphabets(void **state)
{
    struct secret one = {0}, other = {0};
    struct err err;

    (void)state;
    assert_int_equal(
        encryption_key_parse(&one, TEXT_LIT("+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/8"), &err),
        ST_OK);
    assert_int_equal(
        encryption_key_parse(&other, TEXT_LIT("-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_8"), &err),
        ST_OK);
    assert_memory_equal(one.at, other.at, ENCRYPTION_KEY_LEN);
    secret_wipe(&one);
    secret_wipe(&other);
    assert_null(one.at);
    secret_wipe(&one); /* accepts an empty one */
}

/* ---- OpenSSL's allocations, which can be told to fail ---- */

static int allocations_left = -1; /* then they fail, one and all; below 0: never */

static bool refuses(void)
{
    if (allocations_left > 0)
        allocations_left--;
    return allocations_left == 0;
}

static void *take(size_t size, const char *file, int line)
{
    (void)file, (void)line;
    return refuses() ? NULL : malloc(size);
}

static void *grow(void *old, size_t size, const char *file, int line)
{
    (void)file, (void)line;
    return refuses() ? NULL : realloc(old, size);
}

static void drop(void *old, const char *file, int line)
{
    (void)file, (void)line;
    free(old);
}

/* ---- sealing ---- */

struct bench {
    struct arena *arena;
    struct sealer *sealer;
    struct secret key;
    struct err err;
};

static int bench_open(void **state)
{
    struct bench *b = calloc(1, sizeof(*b));
    struct secret master = {0};

    b->arena = arena_new();
    assert_int_equal(encryption_key_parse(&master, TEXT_LIT(HEX_KEY), &b->err), ST_OK);
    assert_int_equal(sealer_open(&b->sealer, &master, NULL, &b->err), ST_OK);
    secret_wipe(&master);
    b->key = secret_copy("sk-admin-abcdefghijklmnop", 25);
    *state = b;
    return 0;
}

static int bench_close(void **state)
{
    struct bench *b = *state;

    allocations_left = -1;
    sealer_close(&b->sealer);
    sealer_close(&b->sealer); /* accepts NULL */
    secret_wipe(&b->key);
    arena_free(&b->arena);
    free(b);
    return 0;
}

static struct text sealed_for(struct bench *b, const char *account)
{
    struct text out = TEXT_NULL;

    assert_int_equal(secret_seal(&out, b->arena, b->sealer, TEXT_LIT("openai"), text_of(account),
                                 &b->key, &b->err),
                     ST_OK);
    return out;
}

static enum status opened(struct bench *b, const char *provider, const char *account,
                          struct text sealed)
{
    struct secret plain = {0};
    enum status st =
        secret_unseal(&plain, b->sealer, text_of(provider), text_of(account), sealed, &b->err);

    if (st == ST_OK) {
        assert_int_equal(plain.len, b->key.len);
        assert_memory_equal(plain.at, b->key.at, plain.len);
    } else {
        assert_null(plain.at);
    }
    secret_wipe(&plain);
    return st;
}

static void br_097_two_seals_differ_and_both_open(void **state)
{
    struct bench *b = *state;
    struct text one = sealed_for(b, "acme"), other = sealed_for(b, "acme");
    unsigned char id[4], old[4];

    assert_int_equal(one.len, 1 + 4 + 12 + 25 + 16);
    assert_false(text_eq(one, other));
    assert_memory_not_equal(one.at + 5, other.at + 5, 12); /* the nonces */
    assert_int_equal(one.at[0], 1);
    sealer_key_ids(b->sealer, id, old);
    assert_memory_equal(one.at + 1, id, 4);
    assert_memory_equal(old, id, 4); /* there is no older one */
    assert_null(memmem(one.at, one.len, "admin", 5));
    assert_int_equal(opened(b, "openai", "acme", one), ST_OK);
    assert_int_equal(opened(b, "openai", "acme", other), ST_OK);
}

static void br_097_each_flipped_bit_is_refused(void **state)
{
    struct bench *b = *state;
    struct text sealed = sealed_for(b, "acme");

    for (size_t bit = 0; bit < sealed.len * 8; bit++) {
        struct text bad = arena_text(b->arena, sealed);
        char *at = arena_copy(b->arena, bad.at, bad.len);

        at[bit / 8] = (char)(at[bit / 8] ^ (1 << (bit % 8)));
        bad.at = at;
        if (opened(b, "openai", "acme", bad) != ST_REJECT)
            fail_msg("flipped bit %zu: opened", bit);
    }
    for (size_t len = 0; len < sealed.len; len++) {
        if (opened(b, "openai", "acme", (struct text){sealed.at, len}) != ST_REJECT)
            fail_msg("cut to %zu bytes: opened", len);
    }
}

static const struct {
    const char *name, *provider, *account;
} move_cases[] = {
    {"BR-097: swapped with another account", "openai", "other"},
    {"BR-097: another provider", "anthropic", "acme"},
    {"BR-097: the border between the names moved", "openaia", "cme"},
    {"BR-097: no names", "", ""},
};

static void br_097_moved_to_another_account_is_refused(void **state)
{
    struct bench *b = *state;
    struct text sealed = sealed_for(b, "acme");
    bool good = true;

    for (size_t i = 0; i < ROWS(move_cases); i++) {
        good &=
            same_int(move_cases[i].name,
                     opened(b, move_cases[i].provider, move_cases[i].account, sealed), ST_REJECT);
        good &= has_words(move_cases[i].name, b->err.text, "moved from another account");
    }
    assert_true(good);
}

static void another_encryption_key_is_named_as_the_reason(void **state)
{
    struct bench *b = *state;
    struct text sealed = sealed_for(b, "acme");
    struct sealer *ours = b->sealer, *newer = NULL, *both = NULL;
    struct secret fresh = secret_copy("0123456789abcdef0123456789abcdef", 32), old = {0};
    struct secret shorter = secret_copy("0123", 4);
    unsigned char id[4], old_id[4];

    assert_int_equal(encryption_key_parse(&old, TEXT_LIT(HEX_KEY), &b->err), ST_OK);
    assert_int_equal(sealer_open(&newer, &fresh, NULL, &b->err), ST_OK);
    b->sealer = newer;
    assert_int_equal(opened(b, "openai", "acme", sealed), ST_REJECT);
    assert_non_null(strstr(b->err.text, "another ENCRYPTION_KEY"));
    sealer_close(&newer);
    /* with the old one beside it, both open */
    assert_int_equal(sealer_open(&both, &fresh, &old, &b->err), ST_OK);
    b->sealer = both;
    assert_int_equal(opened(b, "openai", "acme", sealed), ST_OK);
    assert_int_equal(opened(b, "openai", "acme", sealed_for(b, "acme")), ST_OK);
    assert_true(sealer_opens(both, sealed) && sealer_opens(both, sealed_for(b, "acme")));
    assert_false(sealer_opens(ours, sealed_for(b, "acme")) || sealer_opens(both, TEXT_LIT("\1")));
    sealer_key_ids(both, id, old_id);
    assert_memory_equal(old_id, sealed.at + 1, 4);
    assert_memory_not_equal(id, old_id, 4);
    sealer_close(&both);
    assert_int_equal(sealer_open(&both, &shorter, NULL, &b->err), ST_FATAL);
    sealer_close(&both);
    b->sealer = ours;
    secret_wipe(&fresh);
    secret_wipe(&old);
    secret_wipe(&shorter);
}

/* ---- provider keys ---- */

static const struct {
    const char *name, *typed, *want; /* NULL: refused */
    const char *why;
} clean_cases[] = {
    {"BR-094: a line end behind", "sk-admin-test\n", "sk-admin-test", NULL},
    {"BR-094: a blank in front", " sk-admin-test", "sk-admin-test", NULL},
    {"BR-094: a second header line", "sk-admin-test\r\nX-Evil: 1", NULL, "character 14"},
    {"BR-094: a zero-width space inside", "sk-admin\xe2\x80\x8b-test", NULL, "not ASCII"},
    {"BR-094: empty", "", NULL, "empty"},
    {"blanks only", " \t\r\n", NULL, "empty"},
    {"quotes", "\"sk-admin-test\"", "sk-admin-test", NULL},
    {"single quotes and blanks", " 'sk-admin-test' \n", "sk-admin-test", NULL},
    {"quotes around nothing", "\"\"", NULL, "empty"},
    {"one quote", "\"sk-admin-test", "\"sk-admin-test", NULL},
    {"a tab inside", "sk-admin\ttest", NULL, "character 9"},
    {"a blank inside", "sk-admin test", NULL, "character 9"},
    {"a delete inside", "sk-admin\x7ftest", NULL, "character 9"},
};

static void br_094_pasted_keys(void **state)
{
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(clean_cases); i++) {
        const char *name = clean_cases[i].name;
        struct secret key = {0};
        struct err err = {0};
        enum status st = provider_key_clean(&key, text_of(clean_cases[i].typed), &err);

        good &= same_int(name, st, clean_cases[i].want ? ST_OK : ST_REJECT);
        if (st == ST_OK)
            good &= same_str(name, (const char *)key.at, clean_cases[i].want);
        good &= has_words(name, err.text, clean_cases[i].why);
        good &= same_int(name, strstr(err.text, "sk-") != NULL, false); /* never printed */
        secret_wipe(&key);
    }
    assert_true(good);
}

static void br_094_long_keys(void **state)
{
    struct secret key = {0};
    struct err err = {0};
    char typed[4098];

    (void)state;
    memset(typed, 'k', sizeof(typed));
    assert_int_equal(provider_key_clean(&key, (struct text){typed, 4097}, &err), ST_REJECT);
    assert_int_equal(provider_key_clean(&key, (struct text){typed, 4096}, &err), ST_OK);
    secret_wipe(&key);
}

static const struct {
    const char *name, *key, *want;
} hint_cases[] = {
    {"an admin key", "sk-admin-abcdefghijkwXyZ", "sk-admin-…wXyZ"},
    {"an Anthropic key", "sk-ant-admin01-abcdefghwXyZ", "sk-ant-…wXyZ"},
    {"no prefix", "abcdefghijklmnopqrstuvwXyZ", "…wXyZ"},
    {"short", "sk-admin-abcdefwXyZ", "…"},
    {"empty", "", "…"},
};

static void hints_show_little(void **state)
{
    struct arena *a = arena_new();
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(hint_cases); i++) {
        struct secret key = secret_copy(hint_cases[i].key, strlen(hint_cases[i].key));

        good &= same_str(hint_cases[i].name, provider_key_hint(a, &key), hint_cases[i].want);
        secret_wipe(&key);
    }
    assert_true(good);
    arena_free(&a);
}

static const struct {
    const char *name, *text, *key, *want;
} redact_cases[] = {
    {"nothing to hide", "no such feed", "s3cr3t", "no such feed"},
    {"the key itself", "key s3cr3t is bad, s3cr3t!", "s3cr3t",
     "key [redacted] is bad, [redacted]!"},
    {"the key inside a word", "xs3cr3ts3cr3ty", "s3cr3t", "x[redacted][redacted]y"},
    {"an OpenAI key", "Incorrect API key provided: sk-admin-abc_DEF-123.", NULL,
     "Incorrect API key provided: [redacted]"},
    {"a key with stars", "{\"message\":\"bad key sk-proj-********abcd\"}", NULL,
     "{\"message\":\"bad key [redacted]\"}"},
    {"an Anthropic key", "\"sk-ant-admin01-abcdef\"", NULL, "\"[redacted]\""},
    {"a header", "Authorization: Bearer abc.def-ghi\r\nX: y", NULL,
     "Authorization: Bearer [redacted]\r\nX: y"},
    {"a prefix in help", "it begins with sk-admin-, or sk-ant-admin01-.", NULL,
     "it begins with sk-admin-, or sk-ant-admin01-."},
    {"a parameter", "?key=sk-abcdef123&x=1", NULL, "?key=[redacted]&x=1"},
    {"behind an escaped line end", "a\\nsk-abcdefghijklmnopqrstuvwxyz", NULL, "a\\n[redacted]"},
    {"a word with sk- inside stays", "task-force and risk-free", NULL, "task-force and risk-free"},
    {"a short word stays", "sk-1 Bearer", NULL, "sk-1 Bearer"},
    {"empty", "", NULL, ""},
};

static void what_looks_like_a_key_is_redacted(void **state)
{
    struct arena *a = arena_new();
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(redact_cases); i++) {
        const char *k = redact_cases[i].key;
        struct secret key = secret_copy(k, k ? strlen(k) : 0);

        good &= same_str(redact_cases[i].name,
                         redact(a, text_of(redact_cases[i].text), k ? &key : NULL).at,
                         redact_cases[i].want);
        secret_wipe(&key);
    }
    assert_null(redact(a, TEXT_NULL, NULL).at);
    assert_true(good);
    arena_free(&a);
}

static void random_bytes_differ(void **state)
{
    unsigned char one[32] = {0}, other[32] = {0};

    (void)state;
    random_bytes(one, sizeof(one));
    random_bytes(other, sizeof(other));
    assert_memory_not_equal(one, other, sizeof(one));
}

/* The exit status of a process whose OpenSSL gets `n` allocations to open a good key with. */
static int opens_with(struct bench *b, struct text sealed, int n)
{
    int status = 0;
    pid_t child = fork();

    if (child == 0) {
        struct secret plain = {0};
        (void)!freopen("/dev/null", "w", stderr);
        allocations_left = n;
        _exit((int)secret_unseal(&plain, b->sealer, TEXT_LIT("openai"), TEXT_LIT("acme"), sealed,
                                 &b->err));
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* Nobody is told that his key is damaged when it is memory that is short. */
static void memory_that_is_out_is_no_damaged_key(void **state)
{
    struct bench *b = *state;
    struct text sealed = sealed_for(b, "acme");
    int status = -1;

    for (int n = 1; n < 50 && status != ST_OK; n++) {
        status = opens_with(b, sealed, n);
        assert_int_equal(status, status == ST_OK ? ST_OK : 111);
        if (n == 1)
            assert_int_equal(status, 111); /* or the test proves nothing */
    }
    assert_int_equal(status, ST_OK);
}

static void memory_that_is_out_is_tried_again_at_start(void **state)
{
    struct bench *b = *state;
    struct secret master = secret_copy("0123456789abcdef0123456789abcdef", ENCRYPTION_KEY_LEN);
    struct sealer *sealer = NULL;

    allocations_left = 1;
    assert_int_equal(sealer_open(&sealer, &master, NULL, &b->err), ST_RETRY);
    allocations_left = -1;
    sealer_close(&sealer);
    secret_wipe(&master);
}

#define SEALING(test) cmocka_unit_test_setup_teardown(test, bench_open, bench_close)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(encryption_keys),
        cmocka_unit_test(both_base64_alphabets),
        SEALING(br_097_two_seals_differ_and_both_open),
        SEALING(br_097_each_flipped_bit_is_refused),
        SEALING(br_097_moved_to_another_account_is_refused),
        SEALING(another_encryption_key_is_named_as_the_reason),
        SEALING(memory_that_is_out_is_no_damaged_key),
        SEALING(memory_that_is_out_is_tried_again_at_start),
        cmocka_unit_test(br_094_pasted_keys),
        cmocka_unit_test(br_094_long_keys),
        cmocka_unit_test(hints_show_little),
        cmocka_unit_test(what_looks_like_a_key_is_redacted),
        cmocka_unit_test(random_bytes_differ),
    };

    if (!CRYPTO_set_mem_functions(take, grow, drop)) /* before OpenSSL's first allocation */
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
