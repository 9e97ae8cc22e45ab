/* keys.h - who may speak to whom over TCP: the key pair of this process and everybody's public
 * keys.
 *
 * Over tcp:// every link is encrypted and both ends are authenticated (CURVE). Each process has a
 * secret of its own (UF_CURVE_SECRET). The file UF_CURVE_KEYS, the same everywhere, lists the
 * public keys by role. The end that binds lets in those whose role has business on that very link;
 * the end that connects wants the key of the role that binds it. A role may have several keys: two
 * are valid at once while one takes the other's place.
 *
 * The file:  # whole lines and what follows a key may be comments
 *            scheduler rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7
 *            fetcher   Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID  # second data centre */
#ifndef UF_KEYS_H
#define UF_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/options.h"
#include "common/secret.h"
#include "common/status.h"
#include "common/text.h"

#define CURVE_KEY_LEN  32 /* bytes */
#define CURVE_TEXT_LEN 40 /* characters, in Z85 */
#define KEYS_MAX       256

/* The two ends of a link, as bits of enum stage_mask. */
struct link_ends {
    const char *link;
    unsigned bind, connect;
    bool needed; /* it is of no use with nobody to connect */
};
extern const struct link_ends link_ends[];
extern const size_t n_link_ends;
/* Its index in link_ends; n_link_ends when there is no such link. */
size_t link_ends_find(struct text link);

struct listed_key {
    unsigned role; /* one bit of enum stage_mask */
    unsigned char at[CURVE_KEY_LEN];
};

struct key_list {
    struct listed_key keys[KEYS_MAX];
    size_t n;
};

/* 32 bytes from Z85; blanks around are trimmed. ST_FATAL: anything else; err shows nothing of it.
 */
enum status curve_key_parse(struct secret *out, struct text t, struct err *err) CHECKED;
void curve_key_print(char out[CURVE_TEXT_LEN + 1], const unsigned char key[CURVE_KEY_LEN]);

/* A file of public keys. ST_REJECT: err names the line and what to write. */
enum status key_list_parse(struct key_list *out, struct text file, struct err *err) CHECKED;

struct keys;

/* ST_FATAL: a setting is missing, the file can not be read or understood, or our own public key is
 * not in it under our role. */
enum status keys_open(struct keys **out, const struct config *cfg, struct err *err) CHECKED;
void keys_close(struct keys **k); /* wipes; accepts NULL */

/* ST_FATAL: the file lists no key of a role that the link can not do without. */
enum status keys_check_link(const struct keys *k, size_t link, bool binds, struct err *err) CHECKED;

/* Reads the file again when it has changed; whether it did. One that can not be understood is said
 * once, and the keys before it stay in force. */
bool keys_refresh(struct keys *k);
size_t keys_count(const struct keys *k);

const unsigned char *keys_secret(const struct keys *k);
const unsigned char *keys_public(const struct keys *k);

/* The role that a public key is listed for; 0: none. */
unsigned keys_role(const struct keys *k, const unsigned char key[CURVE_KEY_LEN]);
/* The i-th key of any of `roles`, in the order of the file; NULL after the last. It is good until
 * the next keys_refresh. */
const struct listed_key *keys_of(const struct keys *k, unsigned roles, size_t i);

#endif
