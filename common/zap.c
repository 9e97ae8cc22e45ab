#include "common/zap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "common/arena.h"
#include "common/keys.h"
#include "common/log.h"
#include "common/text.h"

#define SOURCES_MAX 64
#define ADDRESS_MAX 64
#define FRAMES_MAX  8

/* A request: version, request id, domain, address, routing id, mechanism, the client's public key.
 */
enum {
    ASK_VERSION,
    ASK_ID,
    ASK_DOMAIN,
    ASK_ADDRESS,
    ASK_ROUTING_ID,
    ASK_MECHANISM,
    ASK_KEY,
    N_ASK
};

/* Who was refused and has been told of in the log. */
struct source {
    char address[ADDRESS_MAX];
    size_t link;
    enum refusal_label why;
    unsigned char key[CURVE_KEY_LEN];
};

struct zap {
    void *socket;
    struct keys *keys;
    struct source sources[SOURCES_MAX];
    size_t n_sources; /* ever: the oldest make room */
};

enum status zap_open(struct zap **out, void *zmq_ctx, const struct config *cfg, struct err *err)
{
    struct zap *z = xalloc(1, sizeof(*z));
    const int no_linger = 0;

    *out = z;
    TRY(keys_open(&z->keys, cfg, err));
    z->socket = zmq_socket(zmq_ctx, ZMQ_REP);
    if (!z->socket || zmq_setsockopt(z->socket, ZMQ_LINGER, &no_linger, sizeof(no_linger)) < 0 ||
        zmq_bind(z->socket, "inproc://zeromq.zap.01") < 0)
        return err_set(err, ST_RETRY, "no doorkeeper for the links: %s", zmq_strerror(errno));
    LOG(INFO, "keys.read", KV("file", cfg->curve_keys), KV("keys", keys_count(z->keys)));
    return ST_OK;
}

void zap_close(struct zap **z)
{
    if (!*z)
        return;
    if ((*z)->socket)
        (void)zmq_close((*z)->socket);
    keys_close(&(*z)->keys);
    free(*z);
    *z = NULL;
}

void *zap_socket(const struct zap *z)
{
    return z->socket;
}

/* ---- who was refused ---- */

/* Once a source, link and reason, so that one that tries each second does not fill the log. */
static bool told_before(struct zap *z, const struct source *of)
{
    size_t n = z->n_sources < SOURCES_MAX ? z->n_sources : SOURCES_MAX;

    for (size_t i = 0; i < n; i++)
        if (z->sources[i].link == of->link && z->sources[i].why == of->why &&
            strcmp(z->sources[i].address, of->address) == 0)
            return true;
    z->sources[z->n_sources++ % SOURCES_MAX] = *of;
    return false;
}

/* Its key came in: when it is refused once more, that is news. */
static void forget(struct zap *z, const struct source *of)
{
    for (size_t i = 0; i < SOURCES_MAX; i++)
        if (z->sources[i].link == of->link &&
            memcmp(z->sources[i].key, of->key, CURVE_KEY_LEN) == 0)
            z->sources[i] = (struct source){.link = n_link_ends};
}

static void say_refused(const struct source *of, unsigned role)
{
    char text[CURVE_TEXT_LEN + 1] = "";
    const char *link = link_ends[of->link].link;

    curve_key_print(text, of->key);
    if (of->why == REFUSED_WRONG_ROLE)
        LOG(WARN, "link.refused", KV("link", link), KV("address", of->address), KV("key", text),
            KV("role", stage_name(role)),
            KV("reason", "a process of this role has no business on this link: was it given the "
                         "secret or the endpoints of another one?"));
    else
        LOG(WARN, "link.refused", KV("link", link), KV("address", of->address), KV("key", text),
            KV("reason", "this public key is not in UF_CURVE_KEYS: if the process is yours, add "
                         "the line ROLE KEY to the file; it is read again by itself"));
}

/* ---- answering ---- */

/* IPv4 comes as it looks to a socket that takes both. */
static void address_copy(char out[ADDRESS_MAX], struct text t)
{
    const struct text mapped = TEXT_LIT("::ffff:");

    if (t.len > mapped.len && memcmp(t.at, mapped.at, mapped.len) == 0) {
        t.at += mapped.len;
        t.len -= mapped.len;
    }
    if (t.len >= ADDRESS_MAX)
        t.len = ADDRESS_MAX - 1;
    if (t.len > 0)
        memcpy(out, t.at, t.len);
    out[t.len] = '\0';
}

static bool may_come_in(struct zap *z, const struct text ask[N_ASK], struct pulse *pulse)
{
    struct source source = {.link = link_ends_find(ask[ASK_DOMAIN])};
    unsigned role;

    if (source.link == n_link_ends || !text_is(ask[ASK_MECHANISM], "CURVE") ||
        ask[ASK_KEY].len != CURVE_KEY_LEN)
        return false;
    memcpy(source.key, ask[ASK_KEY].at, CURVE_KEY_LEN);
    if (keys_refresh(z->keys))
        LOG(INFO, "keys.read", KV("keys", keys_count(z->keys)));
    address_copy(source.address, ask[ASK_ADDRESS]);
    role = keys_role(z->keys, source.key);
    if (role & link_ends[source.link].connect) {
        forget(z, &source);
        return true;
    }
    source.why = role ? REFUSED_WRONG_ROLE : REFUSED_UNKNOWN_KEY;
    pulse_add(pulse, M_LINKS_REFUSED, source.link, source.why, 1);
    if (!told_before(z, &source))
        say_refused(&source, role);
    return false;
}

static void answer(struct zap *z, struct text id, bool yes)
{
    const struct text frames[] = {TEXT_LIT("1.0"),
                                  id,
                                  yes ? TEXT_LIT("200") : TEXT_LIT("400"),
                                  yes ? TEXT_LIT("OK") : TEXT_LIT("refused"),
                                  TEXT_LIT(""),  /* user id */
                                  TEXT_LIT("")}; /* metadata */
    const size_t n = sizeof(frames) / sizeof(frames[0]);

    for (size_t i = 0; i < n; i++)
        if (zmq_send(z->socket, frames[i].at ? frames[i].at : "", frames[i].len,
                     ZMQ_DONTWAIT | (i + 1 < n ? ZMQ_SNDMORE : 0)) < 0)
            return; /* whoever asked is gone */
}

/* One request; false when none is there. */
static bool serve_one(struct zap *z, struct pulse *pulse)
{
    zmq_msg_t frames[FRAMES_MAX];
    struct text ask[FRAMES_MAX] = {TEXT_NULL};
    size_t n = 0;
    bool more = true;

    while (more && n < FRAMES_MAX) {
        (void)zmq_msg_init(&frames[n]);
        if (zmq_msg_recv(&frames[n], z->socket, ZMQ_DONTWAIT) < 0) {
            (void)zmq_msg_close(&frames[n]);
            break;
        }
        ask[n] = (struct text){zmq_msg_data(&frames[n]), zmq_msg_size(&frames[n])};
        more = zmq_msg_more(&frames[n]);
        n++;
    }
    if (n > ASK_ID)
        answer(z, ask[ASK_ID],
               n == N_ASK && text_is(ask[ASK_VERSION], "1.0") && may_come_in(z, ask, pulse));
    for (size_t i = 0; i < n; i++)
        (void)zmq_msg_close(&frames[i]);
    return n > ASK_ID;
}

void zap_serve(struct zap *z, struct pulse *pulse)
{
    while (serve_one(z, pulse))
        continue;
}
