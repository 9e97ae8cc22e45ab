/* secret.h - provider keys, sealed at rest, open for one request only.
 *
 * Sealed form (bytea in accounts.key_ciphertext, docs/wire.md "sealed key"):
 *   1 byte version (1) | 4 bytes key id | 12 bytes nonce | ciphertext | 16 bytes tag
 * AES-256-GCM. The key id is the first 4 bytes of SHA-256("usage-fetcher key id" ||
 * ENCRYPTION_KEY): it tells which key sealed it without telling the key. Associated data: version,
 * key id, provider and account name, length-prefixed, so that a ciphertext moved to another account
 * does not open. */
#ifndef UF_SECRET_H
#define UF_SECRET_H

#include <stdbool.h>
#include <stdint.h>

#include "common/arena.h"
#include "common/status.h"
#include "common/text.h"

/* Bytes that must not be seen. There is no KV for it, so logging one does not compile. */
struct secret {
    unsigned char *at;
    size_t len;
};

#define ENCRYPTION_KEY_LEN 32

/* A copy outside of any arena, wiped by secret_wipe. */
struct secret secret_copy(const void *from, size_t len);
void secret_wipe(struct secret *s); /* wipes, frees, sets to empty; accepts an empty one */

/* 32 bytes from base64 (with or without padding, standard or URL alphabet) or 64 hex digits; blanks
 * and one pair of quotes around are trimmed. ST_FATAL: anything else; err says what is expected and
 * shows nothing of the text. */
enum status encryption_key_parse(struct secret *out, struct text t, struct err *err) CHECKED;

/* No core dump of this process, and no other process of the same user reads its memory or its
 * environment (PR_SET_DUMPABLE). A debugger that started the process stays. */
void secret_process_hide(void);

struct sealer; /* one ENCRYPTION_KEY (and an optional older one, still able to open) */
/* ST_FATAL: a key of another length. ST_RETRY: OpenSSL has no memory. */
enum status sealer_open(struct sealer **out, const struct secret *key, const struct secret *old_key,
                        struct err *err) CHECKED;
void sealer_close(struct sealer **s); /* wipes; accepts NULL */
/* Of the key that seals, and of the older one (the same when there is none). */
void sealer_key_ids(const struct sealer *s, unsigned char out[4], unsigned char old[4]);
/* Whether one of its keys sealed it, by the key id: it may still be damaged. */
bool sealer_opens(const struct sealer *s, struct text sealed);

/* `out` lives in `a`. ST_RETRY: OpenSSL has no memory. */
enum status secret_seal(struct text *out, struct arena *a, struct sealer *s, struct text provider,
                        struct text account, const struct secret *plain, struct err *err) CHECKED;

/* `out` is to be wiped by the caller. ST_REJECT: sealed by another ENCRYPTION_KEY (err says so),
 * moved from another account, damaged, or an unknown version. */
enum status secret_unseal(struct secret *out, struct sealer *s, struct text provider,
                          struct text account, struct text sealed, struct err *err) CHECKED;

/* A provider key as typed or pasted: surrounding blanks, line ends and one pair of quotes are
 * removed. ST_REJECT: empty, longer than 4096, or with control or non-ASCII characters inside (a
 * header could be split). */
enum status provider_key_clean(struct secret *out, struct text typed, struct err *err) CHECKED;

/* "sk-admin-…wXyZ": enough to tell keys apart, too little to use: the prefix up to the last '-'
 * among the first 12 characters, then the last 4 (none of it when shorter than 20). In `a`. */
const char *provider_key_hint(struct arena *a, const struct secret *key);

/* Random bytes from the system; never fails (ends the process with 111). */
void random_bytes(void *out, size_t len);

/* Bodies and error texts of strangers: any run of `key`'s bytes, and anything that looks like a
 * provider key (sk-..., Bearer ...), becomes "[redacted]". `key` may be NULL. In `a`. */
struct text redact(struct arena *a, struct text t, const struct secret *key);

#endif
