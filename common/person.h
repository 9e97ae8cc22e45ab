/* person.h - people in usage reports: an address never goes further than this.
 *
 * Some providers report by person and name them by e-mail address. What is stored is a keyed hash:
 * the same person is the same text in every row of this installation, and without the key nobody
 * can find out who it is, not by trying addresses either. */
#ifndef UF_PERSON_H
#define UF_PERSON_H

#include <stdbool.h>

#include "common/arena.h"
#include "common/secret.h"
#include "common/text.h"

struct people {
    const struct secret *key; /* UF_PERSON_KEY; empty = none */
    bool keep_email;          /* UF_KEEP_EMAIL: the address itself, for those who may */
};

/* "person_" and the first 128 bits of HMAC-SHA256(key, address in lower case) as hex digits; or the
 * address in lower case when it is to be kept; null without a key. In `a`. */
struct text person_of(const struct people *p, struct arena *a, struct text email);

#endif
