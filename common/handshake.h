/* handshake.h - how the connections of a socket over TCP begin and end, as libzmq tells it.
 *
 * ZeroMQ connects by itself and says nothing about it, and after some failures it never tries
 * again. Its socket monitor tells; whoever listens must go on listening until handshakes_close,
 * since libzmq waits for the listener. */
#ifndef UF_HANDSHAKE_H
#define UF_HANDSHAKE_H

#include <stdbool.h>

enum handshake_what {
    HANDSHAKE_DONE,
    HANDSHAKE_GONE,        /* a connection ended, or an attempt after its failure */
    HANDSHAKE_KEY_REFUSED, /* the other end's doorkeeper does not accept our key */
    HANDSHAKE_NO_CURVE,    /* one end is encrypted, the other is not */
    HANDSHAKE_UNREADABLE,  /* the other end wanted somebody with another key */
    HANDSHAKE_BROKEN,      /* it went away: wrong key, wrong program, or stopped */
};

#define HANDSHAKE_ADDRESS_MAX 128

struct handshake_event {
    enum handshake_what what;
    char address[HANDSHAKE_ADDRESS_MAX]; /* "tcp://10.0.0.1:7700", as it was connected to */
};

struct handshakes;

/* Before the socket binds or connects. NULL: libzmq is out of sockets. */
struct handshakes *handshakes_watch(void *zmq_ctx, void *socket);
/* Before the socket is closed; accepts NULL. */
void handshakes_close(struct handshakes **h);

/* The next event, in their order; false when there is none. */
bool handshakes_next(struct handshakes *h, struct handshake_event *out);

#endif
