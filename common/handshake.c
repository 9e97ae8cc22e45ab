#include "common/handshake.h"

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "common/arena.h"
#include "common/secret.h"

#define EVENTS                                                                                     \
    (ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |                        \
     ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH |                       \
     ZMQ_EVENT_DISCONNECTED)

struct handshakes {
    void *watched;
    void *heard;
};

/* The name is random: one that was used before may still be bound while its socket is taken down.
 */
struct handshakes *handshakes_watch(void *zmq_ctx, void *socket)
{
    struct handshakes *h = xalloc(1, sizeof(*h));
    const int no_limit = 0; /* at a limit libzmq's own thread would wait for us */
    uint64_t random;
    char name[64];

    random_bytes(&random, sizeof(random));
    (void)snprintf(name, sizeof(name), "inproc://handshakes-%016" PRIx64, random);
    h->heard = zmq_socket(zmq_ctx, ZMQ_PAIR);
    if (h->heard && zmq_setsockopt(h->heard, ZMQ_RCVHWM, &no_limit, sizeof(no_limit)) == 0 &&
        zmq_socket_monitor(socket, name, EVENTS) == 0) {
        h->watched = socket;
        if (zmq_connect(h->heard, name) == 0)
            return h;
    }
    handshakes_close(&h);
    return NULL;
}

void handshakes_close(struct handshakes **h)
{
    if (!*h)
        return;
    if ((*h)->watched) /* first: it must never tell into the void */
        (void)zmq_socket_monitor((*h)->watched, NULL, 0);
    if ((*h)->heard)
        (void)zmq_close((*h)->heard);
    free(*h);
    *h = NULL;
}

static enum handshake_what meaning(uint16_t event, uint32_t value)
{
    switch (event) {
    case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
        return HANDSHAKE_DONE;
    case ZMQ_EVENT_DISCONNECTED:
        return HANDSHAKE_GONE;
    case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH:
        return HANDSHAKE_KEY_REFUSED;
    case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
        return value == ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH ? HANDSHAKE_NO_CURVE
               : value == ZMQ_PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC    ? HANDSHAKE_UNREADABLE
                                                                   : HANDSHAKE_BROKEN;
    default:
        return HANDSHAKE_BROKEN;
    }
}

/* From the second try on libzmq names an IPv4 address as a socket for both families sees it. */
static void address_copy(char out[HANDSHAKE_ADDRESS_MAX], const char *from, size_t len)
{
    static const char mapped[] = "tcp://[::ffff:";
    const size_t prefix = sizeof(mapped) - 1;
    const char *close = memchr(from, ']', len);

    if (len < HANDSHAKE_ADDRESS_MAX && len > prefix && memcmp(from, mapped, prefix) == 0 && close)
        (void)snprintf(out, HANDSHAKE_ADDRESS_MAX, "tcp://%.*s%.*s",
                       (int)(close - from) - (int)prefix, from + prefix,
                       (int)(from + len - close) - 1, close + 1);
    else
        (void)snprintf(out, HANDSHAKE_ADDRESS_MAX, "%.*s", (int)len, from);
}

/* An event is two frames: its number (16 bits) and value (32 bits), and the address. */
bool handshakes_next(struct handshakes *h, struct handshake_event *out)
{
    unsigned char head[6];
    char address[HANDSHAKE_ADDRESS_MAX];
    uint16_t event;
    uint32_t value;
    int len;

    if (!h || zmq_recv(h->heard, head, sizeof(head), ZMQ_DONTWAIT) != (int)sizeof(head))
        return false;
    len = zmq_recv(h->heard, address, sizeof(address), ZMQ_DONTWAIT);
    if (len < 0)
        return false;
    memcpy(&event, head, sizeof(event));
    memcpy(&value, head + sizeof(event), sizeof(value));
    out->what = meaning(event, value);
    address_copy(out->address, address,
                 (size_t)len < sizeof(address) ? (size_t)len : sizeof(address));
    return true;
}
