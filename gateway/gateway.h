/* gateway.h - all HTTP of the pipeline: trigger, dashboard, figures, health, metrics.
 *
 *   browser, cron, Prometheus --HTTP--> [gateway] --control--> scheduler
 *                                          |  '----SQL, read-only----> Postgres
 *                                          '<------pulse------------- every stage
 *
 * One libuv loop has all of it: libmicrohttpd's epoll descriptor, libpq's and ZeroMQ's. Nothing in
 * it waits, so a slow query or a slow reader delays nobody else. */
#ifndef UF_GATEWAY_GATEWAY_H
#define UF_GATEWAY_GATEWAY_H

#include <stdint.h>
#include <uv.h>

#include "common/options.h"
#include "common/stage.h"
#include "common/status.h"

struct gateway {
    const struct config *cfg;
    struct stage *stage;
    uv_loop_t loop;
    uv_prepare_t turn;
    uv_poll_t signals;
    uv_timer_t each_second;
    int64_t now_us; /* monotonic, of this turn */
    int64_t started_us;
    int64_t stop_us; /* asked to stop then; 0: not */
    bool loop_open;

    struct server *server;       /* server.h: connections and their limits */
    struct query_pool *database; /* query.h */
    struct questions *questions; /* questions.h: the scheduler */
    struct stages *stages;       /* stages.h: the pulses */
    struct doors *doors;         /* access.h: keys, sessions, rates */
    struct trigger *trigger;     /* trigger.h: the run that triggers share */
    struct flights *flights;     /* flight.h: one query for many who ask the same */
    struct scrape *scrape;       /* health.h: what /metrics has of the database */
};

/* Listens, but answers only once gateway_run runs. ST_FATAL: an address that can not be listened
 * on, or a key that is missing or too short; ST_RETRY: no descriptor. */
enum status gateway_open(struct gateway **out, const struct config *cfg, struct err *err) CHECKED;
void gateway_close(struct gateway **g); /* accepts NULL */

/* Until asked to stop; what is being answered then has ten seconds. */
void gateway_run(struct gateway *g);

#endif
