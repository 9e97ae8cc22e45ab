/* server.h - libmicrohttpd in the gateway's loop: connections, their limits, and requests read
 * whole.
 *
 * Its epoll descriptor is one of many that the loop watches; it starts no thread. Each connection
 * has one deadline at a time: for the next request's headers, for its body, for reading the answer.
 * At the deadline it is cut, however slowly it goes on. */
#ifndef UF_GATEWAY_SERVER_H
#define UF_GATEWAY_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/arena.h"
#include "common/status.h"
#include "gateway/gateway.h"

struct server;

#define SERVER_HEADERS_US (INT64_C(15) * 1000000) /* between requests, too */
#define SERVER_BODY_US    (INT64_C(10) * 1000000)
#define SERVER_ANSWER_US  (INT64_C(300) * 1000000) /* an answer, to its last byte */
#define SERVER_IDLE_S     30                       /* without a byte in either direction */

/* `g` is borrowed. Listens on cfg->server. ST_FATAL: it can not be listened on (err says why), or
 * it is not loopback and there is no token. */
enum status server_open(struct server **out, struct gateway *g, struct err *err) CHECKED;
void server_close(struct server **at); /* accepts NULL */

/* Each turn of the loop, before it waits: does what there is to do, and sets the alarm for more. */
void server_turn(struct server *h);
/* Something was made ready outside of server_turn's own calls. */
void server_wake(struct server *h);
/* Takes no new connections. */
void server_quiesce(struct server *h);
/* Each second: cuts the connections whose deadline is over. */
void server_sweep(struct server *h, int64_t now_us);

bool server_loopback(const struct server *h); /* the address is loopback */
int64_t server_connections(const struct server *h);
int64_t server_requests(const struct server *h); /* answered, since the start */
int64_t server_busy(const struct server *h);     /* requests that are being answered */

/* Splits "HOST:PORT", "[::1]:8080" or ":8080" (every address). In `a`.
 * ST_FATAL: err says how it is written. */
enum status server_address(const char **host, const char **port, struct arena *a, const char *text,
                           struct err *err) CHECKED;

#endif
