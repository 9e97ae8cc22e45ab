/* link.h - a ZeroMQ socket between two stages, and whom it reaches.
 *
 * Workers connect, the elder stage binds. An endpoint is one of, or a comma-separated list of:
 *   ipc://DIR         binds DIR/INSTANCE.sock (folder made, 0700; dead sockets in it are swept);
 *                     connects to every socket in DIR, looked at again every few seconds
 *   tcp://HOST:PORT   binds that address ("*" = all); connects to every address that HOST resolves
 *                     to, resolved again every few seconds, and nowhere when HOST is "*": a stage
 *                     and usagectl beside it may share a list of an ipc folder and such an address
 *
 * Over tcp:// both ends are encrypted and authenticated (common/keys.h), unless UF_ALLOW_PLAINTEXT
 * says otherwise; ipc:// is protected by its folder's mode. Limits: high-water marks of 64 messages
 * on links that carry pages, 1,000 on others; ZMQ_MAXMSGSIZE. A send never blocks: a full link
 * answers ST_RETRY. */
#ifndef UF_LINK_H
#define UF_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <zmq.h>

#include "common/arena.h"
#include "common/options.h"
#include "common/pulse.h"
#include "common/status.h"
#include "common/text.h"

enum link_kind {
    LINK_JOBS_OUT,    /* scheduler: ROUTER, binds; a peer is a fetcher */
    LINK_JOBS_IN,     /* fetcher: one DEALER for each scheduler, connects */
    LINK_PAGES_OUT,   /* fetcher: PUSH, connects */
    LINK_PAGES_IN,    /* normalizer: PULL, binds */
    LINK_RECORDS_OUT, /* normalizer: PUSH, connects */
    LINK_RECORDS_IN,  /* writer: PULL, binds */
    LINK_ACKS_OUT, /* writer: ROUTER, connects; a peer is a scheduler, named by its scheduler_id */
    LINK_ACKS_IN,  /* scheduler: DEALER with its scheduler_id as routing id, binds */
    LINK_CONTROL_IN,  /* scheduler: ROUTER, binds */
    LINK_CONTROL_OUT, /* usagectl: DEALER that speaks like REQ, connects */
    LINK_PULSE_OUT,   /* every stage: PUB, binds; what nobody takes is dropped */
    LINK_PULSE_IN,    /* gateway, usagectl top: SUB, connects */
};

struct link;

/* `routing_id` (LINK_ACKS_IN: the scheduler_id's 16 bytes; others: null).
 * ST_FATAL: an endpoint that can not be parsed or bound, or tcp:// without keys; err names it and
 * says what to do. */
enum status link_open(struct link **out, void *zmq_ctx, enum link_kind kind,
                      const struct config *cfg, struct text routing_id, struct err *err) CHECKED;
void link_close(struct link **link); /* accepts NULL; waits at most 1 s for what is queued */

/* Connecting kinds: looks at folders and host names again when due, connects to the new, drops the
 * gone; tries again, with the other keys too, what could not be connected over TCP. Call it when
 * link_deadline_us has come. Never fails: trouble is logged once until it changes. Binding kinds:
 * nothing. */
void link_refresh(struct link *link, int64_t mono_us);
int64_t link_deadline_us(const struct link *link); /* monotonic; INT64_MAX for binding kinds */

/* Binding kinds: counts in `pulse` who was refused before the doorkeeper (common/zap.h) saw a key.
 * Call it each second or so; connecting kinds: nothing. */
void link_count_refused(struct link *link, struct pulse *pulse, int64_t mono_us);

/* The sockets of a link: one, but for LINK_JOBS_IN one a peer, changing with link_refresh. An index
 * is stable until the next link_refresh; `generation` changes when the set does. */
size_t link_n_sockets(const struct link *link);
void *link_socket(const struct link *link, size_t i);
uint64_t link_generation(const struct link *link);

/* A received message: frames as they came. Freed by msg_clear. `peer` is the routing id that a
 * ROUTER put before. */
#define MSG_FRAMES_MAX 8
struct msg {
    zmq_msg_t frames[MSG_FRAMES_MAX];
    size_t n;
};
struct text msg_frame(struct msg *m, size_t i);
void msg_clear(struct msg *m);

/* One whole message without waiting. ST_RETRY: none is there. ST_REJECT: it had too many frames and
 * was dropped. */
enum status link_recv(struct link *link, size_t socket, struct msg *out, struct err *err) CHECKED;

/* Sends `n` frames as one message, without waiting; each frame's bytes are copied by ZeroMQ.
 * ROUTER kinds: frames[0] is the peer. ST_RETRY: the link is full or nobody is connected. ST_REJECT
 * (ROUTER): no such peer. */
enum status link_send(struct link *link, size_t socket, const struct text *frames, size_t n,
                      struct err *err) CHECKED;

/* The same, of two frames: head is copied, body is not; ZeroMQ calls `free_body(body.at, NULL)`
 * when it is done with it. On any status but ST_OK the body is still the caller's. */
enum status link_send_body(struct link *link, struct text head, struct text body,
                           void (*free_body)(void *body, void *hint), struct err *err) CHECKED;

/* Whether a send on socket 0 would be taken now (ZMQ_EVENTS & ZMQ_POLLOUT). */
bool link_writable(struct link *link);

#endif
