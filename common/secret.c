#include "common/secret.h"

#include <assert.h>
#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>

#define SEALED_VERSION   1
#define KEY_ID_LEN       4
#define NONCE_LEN        12
#define TAG_LEN          16
#define NONCE_AT         (1 + KEY_ID_LEN)
#define CIPHERTEXT_AT    (NONCE_AT + NONCE_LEN)
#define SEALED_MIN       (CIPHERTEXT_AT + TAG_LEN)
#define PROVIDER_KEY_MAX 4096
#define REDACTED         "[redacted]"
#define KEY_IN_WORD      20 /* "task-force" is no key, but "\\nsk-..." with this much after it is */

struct sealing_key {
    unsigned char id[KEY_ID_LEN];
    unsigned char at[ENCRYPTION_KEY_LEN];
};

struct sealer {
    EVP_CIPHER *cipher; /* fetched once: a fetch takes a lock and costs more than a key */
    EVP_CIPHER_CTX *ctx;
    struct sealing_key keys[2]; /* the one that seals, and an older one that still opens */
    size_t n_keys;
};

struct secret secret_copy(const void *from, size_t len)
{
    struct secret s = {xalloc(len + 1, 1), len};

    if (len)
        memcpy(s.at, from, len);
    return s;
}

void secret_wipe(struct secret *s)
{
    if (s->at) {
        OPENSSL_cleanse(s->at, s->len);
        free(s->at);
    }
    *s = (struct secret){0};
}

void secret_process_hide(void)
{
    const struct rlimit none = {0};

    (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    (void)setrlimit(RLIMIT_CORE, &none);
}

void random_bytes(void *out, size_t len)
{
    unsigned char *at = out;

    while (len > 0) {
        ssize_t n = getrandom(at, len, 0);
        if (n < 0 && errno != EINTR)
            _exit(111); /* without it nothing here is safe */
        if (n > 0) {
            at += n;
            len -= (size_t)n;
        }
    }
}

/* ---- ENCRYPTION_KEY ---------------------------------------------------------------------- */

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static struct text trimmed(struct text t)
{
    while (t.len > 0 && is_space(t.at[0])) {
        t.at++;
        t.len--;
    }
    while (t.len > 0 && is_space(t.at[t.len - 1]))
        t.len--;
    return t;
}

/* What quotes in a file of settings leave behind. */
static struct text unquoted(struct text t)
{
    t = trimmed(t);
    if (t.len >= 2 && (t.at[0] == '"' || t.at[0] == '\'') && t.at[t.len - 1] == t.at[0])
        t = trimmed((struct text){t.at + 1, t.len - 2});
    return t;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
        return (c | 0x20) - 'a' + 10;
    return -1;
}

static int base64_digit(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    if (c == '+' || c == '-')
        return 62;
    if (c == '/' || c == '_')
        return 63;
    return -1;
}

static bool hex_decode(unsigned char out[ENCRYPTION_KEY_LEN], struct text t)
{
    if (t.len != (size_t)ENCRYPTION_KEY_LEN * 2)
        return false;
    for (size_t i = 0; i < ENCRYPTION_KEY_LEN; i++) {
        int high = hex_digit(t.at[2 * i]), low = hex_digit(t.at[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        out[i] = (unsigned char)(high * 16 + low);
    }
    return true;
}

/* 32 bytes are 43 digits, and one '=' if padded. */
static bool base64_decode(unsigned char out[ENCRYPTION_KEY_LEN], struct text t)
{
    uint32_t bits = 0;
    size_t n = 0;
    int have = 0;

    if (t.len == 44 && t.at[43] == '=')
        t.len--;
    if (t.len != 43)
        return false;
    for (size_t i = 0; i < t.len; i++) {
        int digit = base64_digit(t.at[i]);
        if (digit < 0)
            return false;
        bits = (bits << 6 | (uint32_t)digit) & 0xffff;
        have += 6;
        if (have >= 8) {
            have -= 8;
            out[n++] = (unsigned char)(bits >> have);
        }
    }
    return n == ENCRYPTION_KEY_LEN && (bits & 3) == 0; /* the last two bits stand for nothing */
}

enum status encryption_key_parse(struct secret *out, struct text t, struct err *err)
{
    unsigned char key[ENCRYPTION_KEY_LEN];

    t = unquoted(t);
    if (!hex_decode(key, t) && !base64_decode(key, t)) {
        OPENSSL_cleanse(key, sizeof(key));
        return err_set(err, ST_FATAL,
                       "an encryption key is 32 random bytes, written as 44 characters of base64 "
                       "or 64 hex digits (this has %zu characters); make one with \"usagectl "
                       "keygen\"",
                       t.len);
    }
    *out = secret_copy(key, sizeof(key));
    OPENSSL_cleanse(key, sizeof(key));
    return ST_OK;
}

/* ---- sealing ------------------------------------------------------------------------------- */

/* Every OpenSSL has what we use, so it lacks memory. */
static enum status openssl_refused(struct err *err, const char *what)
{
    char why[160] = "unknown reason";
    unsigned long code = ERR_get_error();

    if (code)
        ERR_error_string_n(code, why, sizeof(why));
    ERR_clear_error();
    return err_set(err, ST_RETRY, "OpenSSL: %s: %s", what, why);
}

static enum status sealing_key_set(struct sealing_key *k, const struct secret *key, struct err *err)
{
    static const char label[] = "usage-fetcher key id";
    unsigned char input[sizeof(label) - 1 + ENCRYPTION_KEY_LEN], digest[SHA256_DIGEST_LENGTH];
    unsigned len;
    int done;

    if (key->len != ENCRYPTION_KEY_LEN)
        return err_set(err, ST_FATAL, "an encryption key has %d bytes, this one %zu",
                       ENCRYPTION_KEY_LEN, key->len);
    memcpy(input, label, sizeof(label) - 1);
    memcpy(input + sizeof(label) - 1, key->at, key->len);
    done = EVP_Digest(input, sizeof(input), digest, &len, EVP_sha256(), NULL);
    OPENSSL_cleanse(input, sizeof(input));
    if (!done)
        return openssl_refused(err, "SHA-256");
    memcpy(k->id, digest, KEY_ID_LEN);
    memcpy(k->at, key->at, key->len);
    return ST_OK;
}

enum status sealer_open(struct sealer **out, const struct secret *key, const struct secret *old_key,
                        struct err *err)
{
    struct sealer *s = xalloc(1, sizeof(*s));

    *out = s;
    s->cipher = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    s->ctx = EVP_CIPHER_CTX_new();
    if (!s->cipher || !s->ctx)
        return openssl_refused(err, "AES-256-GCM");
    TRY(sealing_key_set(&s->keys[s->n_keys++], key, err));
    if (old_key && old_key->len > 0)
        TRY(sealing_key_set(&s->keys[s->n_keys++], old_key, err));
    return ST_OK;
}

void sealer_close(struct sealer **s)
{
    if (!*s)
        return;
    EVP_CIPHER_CTX_free((*s)->ctx); /* wipes the key schedule */
    EVP_CIPHER_free((*s)->cipher);
    OPENSSL_cleanse(*s, sizeof(**s));
    free(*s);
    *s = NULL;
}

void sealer_key_ids(const struct sealer *s, unsigned char out[4], unsigned char old[4])
{
    memcpy(out, s->keys[0].id, KEY_ID_LEN);
    memcpy(old, s->keys[s->n_keys - 1].id, KEY_ID_LEN);
}

static bool associate(EVP_CIPHER_CTX *ctx, const void *at, size_t bytes)
{
    int len;

    return bytes == 0 || EVP_CipherUpdate(ctx, NULL, &len, at, (int)bytes) == 1;
}

/* The length before the text keeps ("ab", "c") apart from ("a", "bc"). */
static bool associate_text(EVP_CIPHER_CTX *ctx, struct text t)
{
    const unsigned char len[4] = {(unsigned char)(t.len >> 24), (unsigned char)(t.len >> 16),
                                  (unsigned char)(t.len >> 8), (unsigned char)t.len};

    return associate(ctx, len, sizeof(len)) && associate(ctx, t.at, t.len);
}

/* The associated data: whose key it is. */
static bool associate_owner(EVP_CIPHER_CTX *ctx, const struct sealing_key *key,
                            struct text provider, struct text account)
{
    const unsigned char version = SEALED_VERSION;

    return associate(ctx, &version, 1) && associate(ctx, key->id, KEY_ID_LEN) &&
           associate_text(ctx, provider) && associate_text(ctx, account);
}

/* NOLINTNEXTLINE(readability-function-size): its parameters are what a seal is made of */
enum status secret_seal(struct text *out, struct arena *a, struct sealer *s, struct text provider,
                        struct text account, const struct secret *plain, struct err *err)
{
    size_t total = SEALED_MIN + plain->len;
    unsigned char *sealed = arena_alloc(a, total, 1);
    unsigned char *ciphertext = sealed + CIPHERTEXT_AT;
    int len = 0, rest = 0;
    bool done;

    assert(plain->len > 0 && plain->len <= PROVIDER_KEY_MAX);
    sealed[0] = SEALED_VERSION;
    memcpy(sealed + 1, s->keys[0].id, KEY_ID_LEN);
    random_bytes(sealed + NONCE_AT, NONCE_LEN);
    done =
        EVP_EncryptInit_ex2(s->ctx, s->cipher, s->keys[0].at, sealed + NONCE_AT, NULL) == 1 &&
        associate_owner(s->ctx, &s->keys[0], provider, account) &&
        EVP_EncryptUpdate(s->ctx, ciphertext, &len, plain->at, (int)plain->len) == 1 &&
        EVP_EncryptFinal_ex(s->ctx, ciphertext + len, &rest) == 1 &&
        EVP_CIPHER_CTX_ctrl(s->ctx, EVP_CTRL_AEAD_GET_TAG, TAG_LEN, ciphertext + plain->len) == 1;
    EVP_CIPHER_CTX_reset(s->ctx);
    if (!done)
        return openssl_refused(err, "sealing a key");
    *out = (struct text){(char *)sealed, total};
    return ST_OK;
}

static const struct sealing_key *key_of(const struct sealer *s, const unsigned char *id)
{
    for (size_t i = 0; i < s->n_keys; i++) {
        if (memcmp(s->keys[i].id, id, KEY_ID_LEN) == 0)
            return &s->keys[i];
    }
    return NULL;
}

bool sealer_opens(const struct sealer *s, struct text sealed)
{
    return sealed.len >= SEALED_MIN && key_of(s, (const unsigned char *)sealed.at + 1);
}

static enum status sealed_check(struct text sealed, struct err *err)
{
    if (!sealed.at || sealed.len == 0)
        return err_set(err, ST_REJECT, "the account has no key: usagectl account rotate-key");
    if (sealed.at[0] != SEALED_VERSION)
        return err_set(err, ST_REJECT, "sealed key: version %d is unknown, this program knows %d",
                       (unsigned char)sealed.at[0], SEALED_VERSION);
    if (sealed.len < SEALED_MIN || sealed.len > SEALED_MIN + PROVIDER_KEY_MAX)
        return err_set(err, ST_REJECT, "sealed key: damaged, %zu bytes are no sealed key",
                       sealed.len);
    return ST_OK;
}

/* Opens `in` into `plain`, which has the length that is expected; false when the tag does not
 * match. The caller has initialized the cipher and told whose key it is. */
static bool opens(struct sealer *s, const unsigned char *in, struct secret *plain)
{
    unsigned char tag[TAG_LEN];
    int len = 0, rest = 0;

    memcpy(tag, in + CIPHERTEXT_AT + plain->len, TAG_LEN);
    if (EVP_DecryptUpdate(s->ctx, plain->at, &len, in + CIPHERTEXT_AT, (int)plain->len) != 1 ||
        EVP_CIPHER_CTX_ctrl(s->ctx, EVP_CTRL_AEAD_SET_TAG, TAG_LEN, tag) != 1)
        memory_out();
    return EVP_DecryptFinal_ex(s->ctx, plain->at + len, &rest) == 1;
}

enum status secret_unseal(struct secret *out, struct sealer *s, struct text provider,
                          struct text account, struct text sealed, struct err *err)
{
    const unsigned char *in = (const unsigned char *)sealed.at;
    const struct sealing_key *key;
    struct secret plain;
    bool good;

    TRY(sealed_check(sealed, err));
    key = key_of(s, in + 1);
    if (!key)
        return err_set(err, ST_REJECT,
                       "sealed with another ENCRYPTION_KEY (id %02x%02x%02x%02x, ours is "
                       "%02x%02x%02x%02x): give the one it was sealed with, or set the account's "
                       "key again with \"usagectl account rotate-key\"",
                       in[1], in[2], in[3], in[4], s->keys[0].id[0], s->keys[0].id[1],
                       s->keys[0].id[2], s->keys[0].id[3]);
    plain = (struct secret){xalloc(sealed.len - SEALED_MIN + 1, 1), sealed.len - SEALED_MIN};
    /* Only the tag says that a key is damaged: nobody is to set it again because memory was out. */
    if (EVP_DecryptInit_ex2(s->ctx, s->cipher, key->at, in + NONCE_AT, NULL) != 1 ||
        !associate_owner(s->ctx, key, provider, account))
        memory_out();
    good = opens(s, in, &plain);
    EVP_CIPHER_CTX_reset(s->ctx);
    ERR_clear_error();
    if (!good) {
        secret_wipe(&plain);
        return err_set(err, ST_REJECT,
                       "the sealed key is damaged or was moved from another account: set it again "
                       "with \"usagectl account rotate-key\"");
    }
    *out = plain;
    return ST_OK;
}

/* ---- provider keys --------------------------------------------------------------------------- */

enum status provider_key_clean(struct secret *out, struct text typed, struct err *err)
{
    struct text t = unquoted(typed);

    if (t.len == 0)
        return err_set(err, ST_REJECT, "the key is empty");
    if (t.len > PROVIDER_KEY_MAX)
        return err_set(err, ST_REJECT, "the key is longer than %d characters: not a key",
                       PROVIDER_KEY_MAX);
    for (size_t i = 0; i < t.len; i++) {
        unsigned char c = (unsigned char)t.at[i];
        if (c <= 0x20 || c == 0x7f)
            return err_set(err, ST_REJECT,
                           "the key has a blank, line end or control character inside, at "
                           "character %zu: copy it again, and only it",
                           i + 1);
        if (c > 0x7f)
            return err_set(err, ST_REJECT,
                           "the key has a character inside that is not ASCII (perhaps an invisible "
                           "one), at byte %zu: copy it again, and only it",
                           i + 1);
    }
    *out = secret_copy(t.at, t.len);
    return ST_OK;
}

const char *provider_key_hint(struct arena *a, const struct secret *key)
{
    const char *at = (const char *)key->at;
    int prefix = 0;

    if (key->len < 20)
        return arena_copy(a, "…", strlen("…"));
    for (int i = 0; i < 12; i++) {
        if (at[i] == '-')
            prefix = i + 1;
    }
    return arena_printf(a, "%.*s…%.4s", prefix, at, at + key->len - 4);
}

static bool is_key_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.' || c == '~' || c == '+' || c == '/' || c == '=' ||
           c == '*'; /* some providers echo a key with its middle starred out */
}

static size_t key_run(struct text t, size_t from)
{
    size_t end = from;

    while (end < t.len && is_key_char(t.at[end]))
        end++;
    return end - from;
}

/* "It begins with sk-admin-." speaks of keys and shows none. */
static bool names_a_prefix(struct text run)
{
    while (run.len > 0 && run.at[run.len - 1] == '.')
        run.len--;
    return run.len < KEY_IN_WORD && run.len > 0 && run.at[run.len - 1] == '-';
}

/* Length of what looks like a key at `at`, with `*keep` bytes before it that may stay. */
static size_t key_like(struct text t, size_t at, size_t *keep)
{
    static const struct {
        const char *begins;
        size_t least; /* characters after it; fewer are a word, not a key */
    } shapes[] = {{"sk-", 6}, {"Bearer ", 1}, {"bearer ", 1}, {"sess-", 12}, {"xai-", 12}};
    bool in_word =
        at > 0 && is_key_char(t.at[at - 1]) && t.at[at - 1] != '=' && t.at[at - 1] != '/';

    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        size_t n = strlen(shapes[i].begins), run;

        if (t.len - at < n || memcmp(t.at + at, shapes[i].begins, n) != 0)
            continue;
        run = key_run(t, at + n);
        if (run < shapes[i].least || (in_word && run < KEY_IN_WORD))
            continue;
        if (names_a_prefix((struct text){t.at + at + n, run}))
            continue;
        *keep = shapes[i].begins[n - 1] == ' ' ? n : 0; /* "Bearer" itself is no secret */
        return n + run;
    }
    return 0;
}

struct text redact(struct arena *a, struct text t, const struct secret *key)
{
    struct buf b = {.arena = a};
    size_t done = 0;

    if (!t.at)
        return TEXT_NULL;
    for (size_t at = 0; at < t.len;) {
        size_t keep = 0, len = 0;

        if (key && key->len > 0 && t.len - at >= key->len &&
            memcmp(t.at + at, key->at, key->len) == 0)
            len = key->len;
        if (len == 0)
            len = key_like(t, at, &keep);
        if (len == 0) {
            at++;
            continue;
        }
        buf_append(&b, t.at + done, at + keep - done);
        buf_str(&b, REDACTED);
        at += len;
        done = at;
    }
    buf_append(&b, t.at + done, t.len - done);
    return (struct text){b.at, b.len};
}
