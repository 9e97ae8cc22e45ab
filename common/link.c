#include "common/link.h"

#include <dirent.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/handshake.h"
#include "common/keys.h"
#include "common/log.h"
#include "common/wire.h"

#define ENDPOINTS_MAX 32
#define PEERS_MAX     256
#define ADDRESS_MAX   128
#define PAGES_HWM     64
#define SMALL_HWM     1000
#define PULSE_HWM     16 /* for each listener: one that reads too slowly misses the newest */
#define PULSE_MAX     (1 << 20)
#define LINGER_MS     1000
#define CONNECT_MS    5000
/* Half of a lease as it is by default: what is lost with a connection is read again after that. Not
 * less: a peer that reads nothing so long, since Postgres is away, counts as gone, too. */
#define GONE_MS 60000
#define PULSE_LINGER                                                                               \
    500 /* that somebody leaves should be heard, but not wait for a listener that hangs */

#define REFRESH_LONELY_US                                                                          \
    (200 * US_PER_MS) /* while nobody is known: a stack that starts should not wait */
#define REFRESH_US    (2 * US_PER_S)
#define SWEEP_WAIT_MS 20

/* Connections over TCP: how soon what became of them is looked at, and tried again. */
#define LISTEN_US     (100 * US_PER_MS) /* while one of them is on its way */
#define ON_ITS_WAY_US (10 * US_PER_S)
#define RETRY_US      (200 * US_PER_MS) /* after all keys have failed once, then twice that, … */
#define RETRY_MAX_US  (2 * US_PER_S)
#define LOST_US       (35 * US_PER_S) /* longer than libzmq lets a handshake take */
#define TOLD_US       (INT64_C(3600) * US_PER_S)

#ifndef ZMQ_ZAP_ENFORCE_DOMAIN /* libzmq 4.3 knows it, and its header keeps it for drafts */
#define ZMQ_ZAP_ENFORCE_DOMAIN 93
#endif

struct kind_spec {
    const char *name;
    int socket_type;
    bool binds;
    bool socket_each; /* one socket a peer: what is said to one is not for another */
    int hwm;
};

static const struct kind_spec kinds[] = {
    [LINK_JOBS_OUT] = {"jobs", ZMQ_ROUTER, true, false, SMALL_HWM},
    [LINK_JOBS_IN] = {"jobs", ZMQ_DEALER, false, true, SMALL_HWM},
    [LINK_PAGES_OUT] = {"pages", ZMQ_PUSH, false, false, PAGES_HWM},
    [LINK_PAGES_IN] = {"pages", ZMQ_PULL, true, false, PAGES_HWM},
    [LINK_RECORDS_OUT] = {"records", ZMQ_PUSH, false, false, PAGES_HWM},
    [LINK_RECORDS_IN] = {"records", ZMQ_PULL, true, false, PAGES_HWM},
    [LINK_ACKS_OUT] = {"acks", ZMQ_ROUTER, false, false, SMALL_HWM},
    [LINK_ACKS_IN] = {"acks", ZMQ_DEALER, true, false, SMALL_HWM},
    [LINK_CONTROL_IN] = {"control", ZMQ_ROUTER, true, false, SMALL_HWM},
    [LINK_CONTROL_OUT] = {"control", ZMQ_DEALER, false, false, SMALL_HWM},
    /* not PUB, which on closing drops what is on its way: the pulse that tells of leaving */
    [LINK_PULSE_OUT] = {"pulse", ZMQ_XPUB, true, false, PULSE_HWM},
    [LINK_PULSE_IN] = {"pulse", ZMQ_SUB, false, false, SMALL_HWM},
};

struct endpoint {
    bool ipc;
    char *where;          /* ipc: the folder; tcp: HOST:PORT */
    char *bound_path;     /* ipc: the socket file to remove at the end */
    struct gaicb *lookup; /* tcp: a name being resolved, else NULL */
    char *lookup_host;
    bool failing;                /* the last look failed: said once */
    char found[16][ADDRESS_MAX]; /* tcp: addresses of the last good answer */
    size_t n_found;
};

struct peer {
    char address[ADDRESS_MAX];
    void *socket; /* its own with socket_each, else the link's */
    bool seen;    /* by the running refresh */
    bool missed;  /* by the one before */

    /* Over TCP. A connection that works is left alone, whatever the file of keys says meanwhile. */
    bool tcp;
    struct handshakes *handshakes; /* of its own socket */
    bool connected;                /* libzmq was told to, and not told to let go */
    bool heard;                    /* at least one event named it */
    bool up, failed;               /* by the newest event */
    enum handshake_what why;       /* it failed */
    size_t key, tried;             /* index of the server's key, and how many were tried since */
    unsigned rounds;               /* in which no key was good */
    bool told;
    int64_t since_us; /* it has been trying with this key, or was up */
    int64_t retry_us;
};

struct link {
    const struct kind_spec *spec;
    void *zmq;
    void *socket; /* NULL with socket_each */
    char *instance;
    size_t ends;                   /* index into link_ends */
    struct keys *keys;             /* NULL: no encryption */
    struct handshakes *handshakes; /* of the link's socket, when it goes over TCP */
    int64_t told_us[N_REFUSALS];
    struct endpoint endpoints[ENDPOINTS_MAX];
    size_t n_endpoints;
    struct peer peers[PEERS_MAX];
    size_t n_peers;
    int64_t next_refresh_us, next_listen_us;
    uint64_t generation;
};

/* ---- endpoints ---- */

static const char *configured(const struct config *cfg, const char *name)
{
    return strcmp(name, "jobs") == 0      ? cfg->jobs
           : strcmp(name, "pages") == 0   ? cfg->pages
           : strcmp(name, "records") == 0 ? cfg->records
           : strcmp(name, "acks") == 0    ? cfg->acks
           : strcmp(name, "pulse") == 0   ? cfg->pulse
                                          : cfg->control;
}

static enum status endpoint_parse(struct link *link, const char *text, struct err *err)
{
    struct endpoint *e = &link->endpoints[link->n_endpoints];
    const char *colon;

    if (link->n_endpoints == ENDPOINTS_MAX)
        return err_set(err, ST_FATAL, "more than %d endpoints in one list", ENDPOINTS_MAX);
    if (strncmp(text, "ipc://", 6) == 0 && text[6]) {
        *e = (struct endpoint){.ipc = true, .where = xstrdup(text + 6)};
    } else if (strncmp(text, "tcp://", 6) == 0) {
        colon = strrchr(text + 6, ':');
        if (!colon || colon == text + 6 || strspn(colon + 1, "0123456789") != strlen(colon + 1) ||
            !colon[1])
            return err_set(err, ST_FATAL, "endpoint '%s': write tcp://HOST:PORT", text);
        *e = (struct endpoint){.where = xstrdup(text + 6)};
    } else {
        return err_set(err, ST_FATAL, "endpoint '%s': write ipc://FOLDER or tcp://HOST:PORT", text);
    }
    link->n_endpoints++;
    return ST_OK;
}

static enum status endpoints_parse(struct link *link, const struct config *cfg, struct err *err)
{
    char *list = xstrdup(configured(cfg, link->spec->name));
    char *rest = list;
    enum status st = ST_OK;

    for (char *one; st == ST_OK && (one = strsep(&rest, ", "));)
        if (*one && (link->spec->binds || strncmp(one, "tcp://*:", 8) != 0))
            st = endpoint_parse(link, one, err);
    free(list);
    if (st == ST_OK && link->n_endpoints == 0)
        return err_set(err, ST_FATAL, "the list of endpoints of '%s' is empty%s", link->spec->name,
                       strchr(configured(cfg, link->spec->name), '*')
                           ? ": tcp://*:PORT is for who listens, nobody connects to it"
                           : "");
    return st;
}

/* ---- keys ---- */

static const char *first_tcp(const struct link *link)
{
    for (size_t i = 0; i < link->n_endpoints; i++)
        if (!link->endpoints[i].ipc)
            return link->endpoints[i].where;
    return NULL;
}

/* Both settings at once would leave open whether the links are encrypted, so they are refused. */
static enum status keys_get(struct link *link, const struct config *cfg, struct err *err)
{
    const char *tcp = first_tcp(link);

    if (!tcp)
        return ST_OK;
    if (cfg->allow_plaintext && cfg->curve_secret.len > 0)
        return err_set(err, ST_FATAL,
                       "UF_ALLOW_PLAINTEXT=1 and UF_CURVE_SECRET are both set, and tcp://%s can "
                       "not be both: unset one",
                       tcp);
    if (cfg->allow_plaintext)
        return ST_OK;
    if (cfg->curve_secret.len == 0)
        return err_set(err, ST_FATAL,
                       "endpoint 'tcp://%s' is not encrypted without UF_CURVE_SECRET and "
                       "UF_CURVE_KEYS (docs/operations.md, \"Keys of the links\"): set them, keep "
                       "to ipc:// on one machine, or set UF_ALLOW_PLAINTEXT=1 on a network that is "
                       "yours alone",
                       tcp);
    TRY(keys_open(&link->keys, cfg, err));
    return keys_check_link(link->keys, link->ends, link->spec->binds, err);
}

/* ---- sockets ---- */

static void set_int(void *socket, int option, int value)
{
    int rc = zmq_setsockopt(socket, option, &value, sizeof(value));

    (void)rc; /* every option and value here is valid for every socket that gets it */
}

static void *socket_new(const struct link *link, struct text routing_id)
{
    void *socket = zmq_socket(link->zmq, link->spec->socket_type);
    const bool pulse = link->spec->socket_type == ZMQ_XPUB || link->spec->socket_type == ZMQ_SUB;
    const int64_t message_max = pulse ? PULSE_MAX : WIRE_MESSAGE_MAX;

    if (!socket)
        return NULL;
    set_int(socket, ZMQ_SNDHWM, link->spec->hwm);
    set_int(socket, ZMQ_RCVHWM, link->spec->hwm);
    set_int(socket, ZMQ_LINGER, pulse ? PULSE_LINGER : LINGER_MS);
    set_int(socket, ZMQ_IPV6, 1);
    set_int(socket, ZMQ_RECONNECT_IVL, 100);
    set_int(socket, ZMQ_RECONNECT_IVL_MAX, 2000);
    /* The kernel tells that a host is gone. Not ZMQ_HEARTBEAT_IVL: a socket at its limit does not
     * read, so it misses the answers of a healthy peer; and when the peer of such a socket dies,
     * the next ping aborts the process (libzmq 4.3.4, "Assertion failed: !_io_error"). */
    set_int(socket, ZMQ_TCP_KEEPALIVE, 1);
    set_int(socket, ZMQ_TCP_KEEPALIVE_IDLE, 5);
    set_int(socket, ZMQ_TCP_KEEPALIVE_INTVL, 2);
    /* Without these two TCP repeats what was sent into a silent cut, and the greeting of a new
     * connection, after ever longer times, and a link comes back long after the cut has ended. */
    set_int(socket, ZMQ_TCP_MAXRT, GONE_MS);
    set_int(socket, ZMQ_CONNECT_TIMEOUT, CONNECT_MS);
    (void)zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &message_max, sizeof(message_max));
    if (routing_id.at)
        (void)zmq_setsockopt(socket, ZMQ_ROUTING_ID, routing_id.at, routing_id.len);
    /* A message is queued only for a peer that is there. It also makes a reconnecting ROUTER ask
     * its peer's name again: a scheduler that came back has a new one. A listener does not send,
     * and would with this lose what came last before its peer closed (libzmq 4.3.4). Over TCP it
     * stays: without it, what is heard after a second try with another key does not arrive. */
    if (!link->spec->binds && (link->spec->socket_type != ZMQ_SUB || first_tcp(link)))
        set_int(socket, ZMQ_IMMEDIATE, 1);
    if (link->spec->socket_type == ZMQ_SUB)
        (void)zmq_setsockopt(socket, ZMQ_SUBSCRIBE, "", 0);
    if (link->spec->socket_type == ZMQ_ROUTER) {
        set_int(socket, ZMQ_ROUTER_MANDATORY, 1);
        set_int(socket, ZMQ_ROUTER_HANDOVER, 1);
    }
    return socket;
}

static void set_key(void *socket, int option, const unsigned char key[CURVE_KEY_LEN])
{
    int rc = zmq_setsockopt(socket, option, key, CURVE_KEY_LEN);

    (void)rc;
}

/* What the socket binds or connects next has this security; what it has already keeps its own.
 * `server_key`: of whom it connects to. */
static void set_security(const struct link *link, void *socket, bool tcp,
                         const unsigned char *server_key)
{
    const char *domain = link->spec->name;

    if (!link->keys)
        return;
    if (!tcp) {
        set_int(socket, ZMQ_CURVE_SERVER, 0); /* no encryption: so libzmq means it */
        return;
    }
    set_key(socket, ZMQ_CURVE_PUBLICKEY, keys_public(link->keys));
    set_key(socket, ZMQ_CURVE_SECRETKEY, keys_secret(link->keys));
    if (!link->spec->binds) {
        set_key(socket, ZMQ_CURVE_SERVERKEY, server_key);
        return;
    }
    set_int(socket, ZMQ_CURVE_SERVER, 1);
    (void)zmq_setsockopt(socket, ZMQ_ZAP_DOMAIN, domain, strlen(domain));
    /* Else libzmq lets everybody in while there is no doorkeeper. */
    set_int(socket, ZMQ_ZAP_ENFORCE_DOMAIN, 1);
}

/* ---- binding ---- */

static enum status make_folder(const char *path, struct err *err)
{
    char *copy = xstrdup(path);
    enum status st = ST_OK;

    for (char *p = copy + 1; st == ST_OK; p++) {
        char c = *p;
        if (c != '/' && c != '\0')
            continue;
        *p = '\0';
        if (mkdir(copy, 0700) < 0 && errno != EEXIST)
            st = err_set(err, ST_FATAL, "can not make the folder %s: %s; choose another UF_RUN_DIR",
                         copy, strerror(errno));
        *p = c;
        if (c == '\0')
            break;
    }
    free(copy);
    if (st == ST_OK && access(path, W_OK | X_OK) < 0)
        return err_set(err, ST_FATAL,
                       "can not write to the folder %s: %s; choose another UF_RUN_DIR", path,
                       strerror(errno));
    return st;
}

/* Whether somebody listens on a unix socket. A connect is the only way to know. */
static bool socket_alive(const char *path)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    size_t len = strlen(path);
    bool alive;
    int fd;

    if (len >= sizeof(to.sun_path))
        return false;
    memcpy(to.sun_path, path, len + 1);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return true; /* not known: keep it */
    alive = connect(fd, (const struct sockaddr *)&to, sizeof(to)) == 0 || errno == EAGAIN;
    (void)close(fd);
    return alive;
}

/* Calls `found` for each "*.sock" in `dir`. */
static void each_socket(struct link *link, const char *dir,
                        void (*found)(struct link *link, const char *path))
{
    DIR *d = opendir(dir);
    const struct dirent *entry;
    char path[ADDRESS_MAX];

    if (!d)
        return;
    while ((entry = readdir(d))) {
        size_t len = strlen(entry->d_name);
        if (len < 6 || strcmp(entry->d_name + len - 5, ".sock") != 0)
            continue;
        if ((size_t)snprintf(path, sizeof(path), "%s/%s", dir, entry->d_name) < sizeof(path))
            found(link, path);
    }
    (void)closedir(d);
}

/* Looked at twice: between another process's bind and its listen a living socket looks dead. */
static void sweep_dead(struct link *link, const char *path)
{
    (void)link;
    if (socket_alive(path))
        return;
    (void)poll(NULL, 0, SWEEP_WAIT_MS);
    if (!socket_alive(path))
        (void)unlink(path);
}

static enum status bind_ipc(struct link *link, struct endpoint *e, struct err *err)
{
    char address[ADDRESS_MAX];
    struct sockaddr_un limit;

    TRY(make_folder(e->where, err));
    each_socket(link, e->where, sweep_dead);
    if ((size_t)snprintf(address, sizeof(address), "ipc://%s/%s.sock", e->where, link->instance) >=
            sizeof(address) ||
        strlen(address + 6) >= sizeof(limit.sun_path))
        return err_set(
            err, ST_FATAL,
            "the socket path %s/%s.sock is longer than %zu bytes; choose a shorter UF_RUN_DIR",
            e->where, link->instance, sizeof(limit.sun_path) - 1);
    /* a dead one of our own name is replaced by the bind */
    if (socket_alive(address + 6))
        return err_set(err, ST_FATAL, "UF_INSTANCE=%s is running already (%s answers)",
                       link->instance, address + 6);
    if (zmq_bind(link->socket, address) < 0)
        return err_set(err, ST_FATAL, "can not listen on %s: %s", address, zmq_strerror(errno));
    e->bound_path = xstrdup(address + 6);
    return ST_OK;
}

static enum status bind_tcp(struct link *link, const struct endpoint *e, struct err *err)
{
    char address[ADDRESS_MAX];

    set_security(link, link->socket, true, NULL);
    (void)snprintf(address, sizeof(address), "tcp://%s", e->where);
    if (zmq_bind(link->socket, address) < 0)
        return err_set(err, ST_FATAL, "can not listen on %s: %s", address, zmq_strerror(errno));
    return ST_OK;
}

/* Folders first: the name by which the doorkeeper is asked can not be taken back from a socket, and
 * would have it asked about them, too. */
static enum status bind_all(struct link *link, struct err *err)
{
    if (link->keys)
        link->handshakes = handshakes_watch(link->zmq, link->socket);
    for (size_t i = 0; i < link->n_endpoints; i++)
        if (link->endpoints[i].ipc)
            TRY(bind_ipc(link, &link->endpoints[i], err));
    for (size_t i = 0; i < link->n_endpoints; i++)
        if (!link->endpoints[i].ipc)
            TRY(bind_tcp(link, &link->endpoints[i], err));
    return ST_OK;
}

static void say_turned_away(const struct link *link, enum refusal_label why)
{
    const char *name = link->spec->name;

    if (why == REFUSED_NO_CURVE)
        LOG(WARN, "link.refused", KV("link", name),
            KV("reason", "somebody connects without encryption: give that process UF_CURVE_SECRET "
                         "and UF_CURVE_KEYS, and take UF_ALLOW_PLAINTEXT away"));
    else if (why == REFUSED_WRONG_SERVER_KEY)
        LOG(INFO, "link.refused", KV("link", name),
            KV("reason", "somebody asked for another key than that of this process; it is nothing "
                         "when a client tries the keys of its file in turn"));
    else
        LOG(INFO, "link.refused", KV("link", name),
            KV("reason", "somebody connected and hung up before a key was seen: without "
                         "encryption, or to see whether the port is open"));
}

/* The doorkeeper counts whom it refuses; these do not come as far as to it, and libzmq does not
 * tell from where they are. */
void link_count_refused(struct link *link, struct pulse *pulse, int64_t mono_us)
{
    struct handshake_event event;

    if (!link->spec->binds)
        return;
    while (handshakes_next(link->handshakes, &event)) {
        enum refusal_label why = event.what == HANDSHAKE_NO_CURVE     ? REFUSED_NO_CURVE
                                 : event.what == HANDSHAKE_UNREADABLE ? REFUSED_WRONG_SERVER_KEY
                                 : event.what == HANDSHAKE_BROKEN     ? REFUSED_NO_HANDSHAKE
                                                                      : N_REFUSALS;
        if (why == N_REFUSALS)
            continue;
        pulse_add(pulse, M_LINKS_REFUSED, link->ends, why, 1);
        if (mono_us < link->told_us[why])
            continue;
        link->told_us[why] = mono_us + TOLD_US;
        say_turned_away(link, why);
    }
}

/* ---- connecting ---- */

static size_t n_server_keys(const struct link *link)
{
    size_t n = 0;

    while (link->keys && keys_of(link->keys, link_ends[link->ends].bind, n))
        n++;
    return n;
}

/* Where to begin: a host is often named after the role that runs on it. */
static size_t likely_key(const struct link *link, const char *where)
{
    const struct listed_key *key;

    for (size_t i = 0;
         link->keys && (key = keys_of(link->keys, link_ends[link->ends].bind, i)) != NULL; i++)
        if (strstr(where, stage_name(key->role)))
            return i;
    return 0;
}

static bool peer_connect(struct link *link, struct peer *p, int64_t mono_us)
{
    size_t n = n_server_keys(link);
    const unsigned char *key =
        n ? keys_of(link->keys, link_ends[link->ends].bind, (p->key + p->tried) % n)->at : NULL;

    if (p->tcp && link->keys && !key)
        return false; /* the file lost them all; one may come back */
    set_security(link, p->socket, p->tcp, key);
    if (zmq_connect(p->socket, p->address) < 0)
        return false;
    p->connected = true;
    p->up = p->failed = false;
    p->since_us = mono_us;
    return true;
}

static void peer_disconnect(struct peer *p)
{
    if (p->connected)
        (void)zmq_disconnect(p->socket, p->address);
    p->connected = false;
}

static void peer_say_refused(const struct link *link, const struct peer *p)
{
    char own[CURVE_TEXT_LEN + 1] = "";
    const char *reason =
        p->why == HANDSHAKE_KEY_REFUSED
            ? "it does not accept our key: add it to its UF_CURVE_KEYS under our role"
        : p->why == HANDSHAKE_NO_CURVE
            ? "one end is encrypted and the other is not: give both UF_CURVE_SECRET, or both "
              "UF_ALLOW_PLAINTEXT=1"
        : link->keys ? "it has none of the keys that UF_CURVE_KEYS lists for who listens there, "
                       "takes no encryption, or is no process of this program: compare both ends"
                     : "what listens there wants encryption, or is no process of this program";

    if (link->keys)
        curve_key_print(own, keys_public(link->keys));
    LOG(WARN, "link.refused", KV("link", link->spec->name), KV("address", p->address),
        KV("our_key", link->keys ? own : NULL), KV("reason", reason));
}

/* The next key at once, and after the last one all again in a while. libzmq itself would try this
 * one again, or after some failures nothing any more. */
static void peer_failed(struct link *link, struct peer *p, int64_t mono_us)
{
    size_t n = n_server_keys(link);
    int64_t wait_us = 0;

    peer_disconnect(p);
    p->failed = false;
    if (p->why != HANDSHAKE_KEY_REFUSED)
        p->tried++;
    if (p->why == HANDSHAKE_KEY_REFUSED || n == 0 || p->tried % n == 0) {
        wait_us = p->rounds < 4 ? RETRY_US << p->rounds : RETRY_MAX_US;
        p->rounds++;
    }
    if (p->rounds >= 2 && !p->told) { /* once may be a process that was just stopping */
        peer_say_refused(link, p);
        p->told = true;
    }
    p->retry_us = mono_us + wait_us;
}

static void peer_hear(const struct link *link, struct peer *p, const struct handshake_event *event,
                      int64_t mono_us)
{
    size_t n = n_server_keys(link);

    p->heard = true;
    switch (event->what) {
    case HANDSHAKE_DONE:
        p->up = true;
        p->failed = p->told = false;
        p->rounds = 0;
        p->key = n ? (p->key + p->tried) % n : 0;
        p->tried = 0;
        LOG(DEBUG, "link.up", KV("link", link->spec->name), KV("address", p->address));
        return;
    case HANDSHAKE_GONE:
        if (p->up)
            p->since_us = mono_us;
        p->up = false;
        return;
    case HANDSHAKE_KEY_REFUSED:
    case HANDSHAKE_NO_CURVE:
    case HANDSHAKE_UNREADABLE:
    case HANDSHAKE_BROKEN:
        p->up = false;
        p->failed = true;
        p->why = event->what;
        return;
    }
}

static struct peer *peer_find(struct link *link, const char *address)
{
    for (size_t i = 0; i < link->n_peers; i++)
        if (strcmp(link->peers[i].address, address) == 0)
            return &link->peers[i];
    return NULL;
}

static void hear_all(struct link *link, int64_t mono_us)
{
    struct handshake_event event;
    struct peer *p;

    while (handshakes_next(link->handshakes, &event))
        if ((p = peer_find(link, event.address)) != NULL)
            peer_hear(link, p, &event, mono_us);
    for (size_t i = 0; i < link->n_peers; i++)
        while (handshakes_next(link->peers[i].handshakes, &event))
            peer_hear(link, &link->peers[i], &event, mono_us);
}

/* What became of the connections over TCP: the failed ones are tried again, with another key when
 * there is one, and so is one of which nothing is heard for long. */
static void listen_to_peers(struct link *link, int64_t mono_us)
{
    bool on_its_way = false;

    hear_all(link, mono_us);
    if (link->keys)
        (void)keys_refresh(link->keys);
    for (size_t i = 0; i < link->n_peers; i++) {
        struct peer *p = &link->peers[i];
        if (!p->tcp || p->up)
            continue;
        if (p->connected && p->heard && !p->failed && mono_us - p->since_us > LOST_US) {
            p->failed = true;
            p->why = HANDSHAKE_BROKEN;
        }
        if (p->failed)
            peer_failed(link, p, mono_us);
        if (!p->connected && mono_us >= p->retry_us && !peer_connect(link, p, mono_us))
            p->retry_us = mono_us + RETRY_MAX_US;
        on_its_way |= mono_us - p->since_us < ON_ITS_WAY_US;
    }
    link->next_listen_us = mono_us + (on_its_way ? LISTEN_US : REFRESH_US);
}

static void peer_add(struct link *link, const struct endpoint *e, const char *address,
                     int64_t mono_us)
{
    struct peer *p;

    for (size_t i = 0; i < link->n_peers; i++) {
        if (strcmp(link->peers[i].address, address) == 0) {
            link->peers[i].seen = true;
            return;
        }
    }
    if (link->n_peers == PEERS_MAX)
        return;
    p = &link->peers[link->n_peers];
    *p = (struct peer){
        .seen = true, .socket = link->socket, .tcp = !e->ipc, .key = likely_key(link, e->where)};
    memcpy(p->address, address, strlen(address) + 1);
    if (link->spec->socket_each) {
        p->socket = socket_new(link, text_of(link->instance));
        if (p->socket && p->tcp)
            p->handshakes = handshakes_watch(link->zmq, p->socket);
    }
    if (!p->socket || !peer_connect(link, p, mono_us)) {
        LOG(WARN, "link.refused", KV("link", link->spec->name), KV("address", address),
            KV("error", zmq_strerror(errno)));
        handshakes_close(&p->handshakes);
        if (link->spec->socket_each && p->socket)
            (void)zmq_close(p->socket);
        return;
    }
    if (p->tcp)
        link->next_listen_us = mono_us + LISTEN_US;
    link->n_peers++;
    link->generation++;
    LOG(DEBUG, "link.peer", KV("link", link->spec->name), KV("address", address));
}

static void peer_drop(struct link *link, size_t i)
{
    struct peer *p = &link->peers[i];

    LOG(DEBUG, "link.gone", KV("link", link->spec->name), KV("address", p->address));
    handshakes_close(&p->handshakes);
    if (link->spec->socket_each)
        (void)zmq_close(p->socket);
    else
        peer_disconnect(p);
    *p = link->peers[--link->n_peers];
    link->generation++;
}

static void add_if_alive(struct link *link, const char *path)
{
    static char nowhere[] = "";
    static const struct endpoint ipc = {.ipc = true, .where = nowhere};
    char address[ADDRESS_MAX + 8];

    if (!socket_alive(path))
        return;
    (void)snprintf(address, sizeof(address), "ipc://%s", path);
    if (strlen(address) < ADDRESS_MAX)
        peer_add(link, &ipc, address, 0);
}

static void say_unresolved(struct link *link, struct endpoint *e, const char *why)
{
    if (!e->failing)
        LOG(WARN, "link.unresolved", KV("link", link->spec->name), KV("host", e->where),
            KV("error", why));
    e->failing = true;
}

static void keep_answers(struct endpoint *e, const struct addrinfo *list)
{
    const char *port = strrchr(e->where, ':') + 1;
    char host[NI_MAXHOST];

    e->n_found = 0;
    for (const struct addrinfo *ai = list; ai && e->n_found < 16; ai = ai->ai_next) {
        if (getnameinfo(ai->ai_addr, ai->ai_addrlen, host, sizeof(host), NULL, 0, NI_NUMERICHOST))
            continue;
        (void)snprintf(e->found[e->n_found], ADDRESS_MAX,
                       ai->ai_family == AF_INET6 ? "tcp://[%.64s]:%.8s" : "tcp://%.64s:%.8s", host,
                       port);
        e->n_found++;
    }
    e->failing = false;
}

/* Resolving runs in the C library's own helper, so that a silent name server can not stop our loop;
 * an answer is picked up at the next refresh. */
static void lookup_start(struct endpoint *e)
{
    static const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    const char *colon = strrchr(e->where, ':');
    size_t len = (size_t)(colon - e->where);
    char *host;
    struct gaicb *g;

    if (e->where[0] == '[' && len > 2)
        host = strndup(e->where + 1, len - 2);
    else
        host = strndup(e->where, len);
    g = xalloc(1, sizeof(*g));
    g->ar_name = e->lookup_host = host;
    g->ar_request = &hints;
    e->lookup = g;
    if (getaddrinfo_a(GAI_NOWAIT, &e->lookup, 1, NULL) != 0) {
        free(host);
        free(g);
        e->lookup = NULL;
    }
}

static void lookup_end(struct link *link, struct endpoint *e)
{
    int rc;

    if (!e->lookup || (rc = gai_error(e->lookup)) == EAI_INPROGRESS)
        return;
    if (rc == 0)
        keep_answers(e, e->lookup->ar_result);
    else
        say_unresolved(link, e, gai_strerror(rc));
    if (e->lookup->ar_result)
        freeaddrinfo(e->lookup->ar_result);
    free(e->lookup_host);
    free(e->lookup);
    e->lookup = NULL;
}

static void look_for_peers(struct link *link, int64_t mono_us)
{
    bool looking = false;

    for (size_t i = 0; i < link->n_peers; i++)
        link->peers[i].seen = false;
    for (size_t i = 0; i < link->n_endpoints; i++) {
        struct endpoint *e = &link->endpoints[i];
        if (e->ipc) {
            each_socket(link, e->where, add_if_alive);
            continue;
        }
        lookup_end(link, e);
        for (size_t k = 0; k < e->n_found; k++)
            peer_add(link, e, e->found[k], mono_us);
        if (!e->lookup)
            lookup_start(e);
        looking |= e->lookup != NULL && e->n_found == 0;
    }
    for (size_t i = link->n_peers; i-- > 0;) {
        struct peer *p = &link->peers[i];
        /* Letting go drops what has not been read; the pulse that tells of leaving may still be on
         * its way when the socket's file is gone. */
        bool waits = link->spec->socket_type == ZMQ_SUB && !p->missed;
        p->missed = !p->seen;
        if (!p->seen && !waits)
            peer_drop(link, i);
    }
    link->next_refresh_us =
        mono_us + (link->n_peers == 0 || looking ? REFRESH_LONELY_US : REFRESH_US);
}

void link_refresh(struct link *link, int64_t mono_us)
{
    if (link->spec->binds)
        return;
    if (mono_us >= link->next_listen_us)
        listen_to_peers(link, mono_us);
    if (mono_us >= link->next_refresh_us)
        look_for_peers(link, mono_us);
}

int64_t link_deadline_us(const struct link *link)
{
    if (link->spec->binds)
        return INT64_MAX;
    return link->next_listen_us < link->next_refresh_us ? link->next_listen_us
                                                        : link->next_refresh_us;
}

/* ---- life ---- */

enum status link_open(struct link **out, void *zmq_ctx, enum link_kind kind,
                      const struct config *cfg, struct text routing_id, struct err *err)
{
    struct link *link = xalloc(1, sizeof(*link));

    *out = link;
    link->spec = &kinds[kind];
    link->zmq = zmq_ctx;
    link->instance = xstrdup(cfg->instance);
    link->ends = link_ends_find(text_of(link->spec->name));
    link->next_listen_us = INT64_MAX; /* until somebody is connected over TCP */
    TRY(endpoints_parse(link, cfg, err));
    TRY(keys_get(link, cfg, err));
    if (!link->spec->socket_each) {
        link->socket = socket_new(link, routing_id);
        if (!link->socket)
            return err_set(err, ST_RETRY, "no socket for '%s': %s", link->spec->name,
                           zmq_strerror(errno));
    }
    if (link->spec->binds)
        return bind_all(link, err);
    if (link->socket && first_tcp(link))
        link->handshakes = handshakes_watch(link->zmq, link->socket);
    link_refresh(link, clock_mono_us());
    return ST_OK;
}

void link_close(struct link **link_at)
{
    struct link *link = *link_at;

    if (!link)
        return;
    for (size_t i = 0; i < link->n_peers; i++) {
        handshakes_close(&link->peers[i].handshakes);
        if (link->spec->socket_each)
            (void)zmq_close(link->peers[i].socket);
    }
    handshakes_close(&link->handshakes);
    if (link->socket)
        (void)zmq_close(link->socket);
    for (size_t i = 0; i < link->n_endpoints; i++) {
        if (link->endpoints[i].lookup && gai_cancel(link->endpoints[i].lookup) != EAI_NOTCANCELED)
            lookup_end(link, &link->endpoints[i]);
        if (link->endpoints[i].bound_path)
            (void)unlink(link->endpoints[i].bound_path);
        free(link->endpoints[i].bound_path);
        free(link->endpoints[i].where);
    }
    keys_close(&link->keys);
    free(link->instance);
    free(link);
    *link_at = NULL;
}

size_t link_n_sockets(const struct link *link)
{
    return link->spec->socket_each ? link->n_peers : 1;
}

void *link_socket(const struct link *link, size_t i)
{
    return link->spec->socket_each ? link->peers[i].socket : link->socket;
}

uint64_t link_generation(const struct link *link)
{
    return link->generation;
}

bool link_writable(struct link *link)
{
    int events = 0;
    size_t len = sizeof(events);

    return zmq_getsockopt(link_socket(link, 0), ZMQ_EVENTS, &events, &len) == 0 &&
           (events & ZMQ_POLLOUT);
}

/* ---- messages ---- */

struct text msg_frame(struct msg *m, size_t i)
{
    zmq_msg_t *frame = &m->frames[i];

    return (struct text){zmq_msg_data(frame), zmq_msg_size(frame)};
}

void msg_clear(struct msg *m)
{
    for (size_t i = 0; i < m->n; i++)
        (void)zmq_msg_close(&m->frames[i]);
    m->n = 0;
}

static void drop_rest(void *socket)
{
    zmq_msg_t frame;
    int more = 1;

    while (more) {
        (void)zmq_msg_init(&frame);
        more = zmq_msg_recv(&frame, socket, ZMQ_DONTWAIT) >= 0 && zmq_msg_more(&frame);
        (void)zmq_msg_close(&frame);
    }
}

enum status link_recv(struct link *link, size_t socket, struct msg *out, struct err *err)
{
    void *from = link_socket(link, socket);

    out->n = 0;
    do {
        zmq_msg_t *frame = &out->frames[out->n];
        if (out->n == MSG_FRAMES_MAX) {
            drop_rest(from);
            msg_clear(out);
            return err_set(err, ST_REJECT, "a message of more than %d frames", MSG_FRAMES_MAX);
        }
        (void)zmq_msg_init(frame);
        if (zmq_msg_recv(frame, from, ZMQ_DONTWAIT) < 0) {
            (void)zmq_msg_close(frame);
            msg_clear(out);
            return err_set(err, ST_RETRY, "%s: %s", link->spec->name, zmq_strerror(errno));
        }
        out->n++;
    } while (zmq_msg_more(&out->frames[out->n - 1]));
    return ST_OK;
}

static enum status send_failed(const struct link *link, struct err *err)
{
    return err_set(err, errno == EHOSTUNREACH ? ST_REJECT : ST_RETRY, "%s: %s", link->spec->name,
                   zmq_strerror(errno));
}

enum status link_send(struct link *link, size_t socket, const struct text *frames, size_t n,
                      struct err *err)
{
    void *to = link_socket(link, socket);

    /* Only the first frame can be refused: once it is taken, libzmq takes the rest of the message.
     */
    for (size_t i = 0; i < n; i++)
        if (zmq_send(to, frames[i].at ? frames[i].at : "", frames[i].len,
                     ZMQ_DONTWAIT | (i + 1 < n ? ZMQ_SNDMORE : 0)) < 0)
            return send_failed(link, err);
    return ST_OK;
}

enum status link_send_body(struct link *link, struct text head, struct text body,
                           void (*free_body)(void *body, void *hint), struct err *err)
{
    void *to = link_socket(link, 0), *owned;
    zmq_msg_t frame;

    if (zmq_send(to, head.at, head.len, ZMQ_DONTWAIT | ZMQ_SNDMORE) < 0)
        return send_failed(link, err);
    memcpy(&owned, &body.at, sizeof(owned)); /* whose owner ZeroMQ becomes */
    if (zmq_msg_init_data(&frame, owned, body.len, free_body, NULL) < 0)
        memory_out();
    /* Refused now, the peer has just gone and the message with it. The pages are read again. */
    if (zmq_msg_send(&frame, to, 0) < 0)
        (void)zmq_msg_close(&frame);
    return ST_OK;
}
