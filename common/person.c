#include "common/person.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdlib.h>
#include <string.h>

#define PREFIX    "person_"
#define HASH_KEPT 16 /* bytes: enough that two people never meet */

/* Mailboxes are told apart without case in practice, and reports do not agree on it. ASCII only: a
 * domain's other letters arrive encoded, and a rare local part that differs stays itself. */
static struct text lower(struct arena *a, struct text email)
{
    char *copy = arena_copy(a, email.at, email.len);

    for (size_t i = 0; i < email.len; i++)
        if (copy[i] >= 'A' && copy[i] <= 'Z')
            copy[i] = (char)(copy[i] - 'A' + 'a');
    return (struct text){copy, email.len};
}

struct text person_of(const struct people *p, struct arena *a, struct text email)
{
    static const char hex[] = "0123456789abcdef";
    unsigned char hash[EVP_MAX_MD_SIZE];
    struct buf out = {.arena = a};

    if (!p->keep_email && p->key->len == 0)
        return TEXT_NULL;
    email = lower(a, email);
    if (p->keep_email)
        return email;
    if (!HMAC(EVP_sha256(), p->key->at, (int)p->key->len, (const unsigned char *)email.at,
              email.len, hash, NULL))
        abort(); /* SHA-256 is always there, and it allocates a few hundred bytes */
    buf_str(&out, PREFIX);
    for (size_t i = 0; i < HASH_KEPT; i++) {
        buf_append(&out, &hex[hash[i] >> 4], 1);
        buf_append(&out, &hex[hash[i] & 15], 1);
    }
    return (struct text){out.at, out.len};
}
