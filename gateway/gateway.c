#include "gateway/gateway.h"

#include <stdlib.h>
#include <sys/resource.h>

#include "common/arena.h"
#include "common/clock.h"
#include "common/log.h"
#include "gateway/access.h"
#include "gateway/flight.h"
#include "gateway/health.h"
#include "gateway/query.h"
#include "gateway/questions.h"
#include "gateway/server.h"
#include "gateway/stages.h"
#include "gateway/trigger.h"

/* Before the loop waits. What any of it makes ready for the others is done in the same turn, since
 * server_turn comes last and its alarm brings the next one. */
static void on_turn(uv_prepare_t *prepare)
{
    struct gateway *g = prepare->data;

    g->now_us = clock_mono_us();
    if (stage_stopping() && g->stop_us == 0) {
        g->stop_us = g->now_us;
        server_quiesce(g->server);
    }
    questions_turn(g->questions, g->now_us);
    server_turn(g->server);
    if (g->stop_us > 0 &&
        (server_busy(g->server) == 0 || g->now_us - g->stop_us > STAGE_STOP_MAX_US - US_PER_S))
        uv_stop(&g->loop);
}

static void on_second(uv_timer_t *timer)
{
    struct gateway *g = timer->data;

    g->now_us = clock_mono_us();
    server_sweep(g->server, g->now_us);
    trigger_second(g->trigger, g->now_us);
}

static void on_signal(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    (void)uv_poll_stop(poll); /* stage_stopping() knows; its descriptor would stay readable */
}

/* A connection is a descriptor, and the usual soft limit of 1,024 is there for select(2) alone. */
static void allow_descriptors(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

enum status gateway_open(struct gateway **out, const struct config *cfg, struct err *err)
{
    struct gateway *g = xalloc(1, sizeof(*g));

    *out = g;
    g->cfg = cfg;
    g->started_us = g->now_us = clock_mono_us();
    allow_descriptors();
    (void)uv_loop_init(&g->loop);
    g->loop_open = true;
    (void)uv_prepare_init(&g->loop, &g->turn);
    (void)uv_timer_init(&g->loop, &g->each_second);
    g->turn.data = g->each_second.data = g;
    TRY(stage_open(&g->stage, "gateway", cfg, err));
    doors_open(&g->doors, cfg);
    query_pool_open(&g->database, &g->loop, cfg);
    flights_open(&g->flights);
    scrape_open(&g->scrape, g);
    trigger_open(&g->trigger, g);
    TRY(questions_open(&g->questions, &g->loop, stage_zmq(g->stage), cfg, err));
    TRY(stages_open(&g->stages, &g->loop, stage_zmq(g->stage), cfg, err));
    TRY(server_open(&g->server, g, err));
    if (uv_poll_init(&g->loop, &g->signals, stage_wake_fd()) < 0)
        return err_set(err, ST_RETRY, "signals can not be watched");
    (void)uv_poll_start(&g->signals, UV_READABLE, on_signal);
    (void)uv_prepare_start(&g->turn, on_turn);
    (void)uv_timer_start(&g->each_second, on_second, 1000, 1000);
    return ST_OK;
}

void gateway_run(struct gateway *g)
{
    (void)uv_run(&g->loop, UV_RUN_DEFAULT);
    if (server_busy(g->server) > 0)
        LOG(WARN, "gateway.left", KV("requests", server_busy(g->server)));
}

static void close_handle(uv_handle_t *handle, void *arg)
{
    (void)arg;
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

void gateway_close(struct gateway **gateway)
{
    struct gateway *g = *gateway;

    if (!g)
        return;
    server_close(&g->server); /* first: requests let go of the others */
    trigger_close(&g->trigger);
    scrape_close(&g->scrape);
    flights_close(&g->flights);
    query_pool_close(&g->database);
    questions_close(&g->questions);
    stages_close(&g->stages);
    doors_close(&g->doors);
    if (g->loop_open) {
        uv_walk(&g->loop, close_handle, NULL);
        while (uv_run(&g->loop, UV_RUN_NOWAIT) != 0)
            continue;
        (void)uv_loop_close(&g->loop);
    }
    stage_close(&g->stage);
    free(g);
    *gateway = NULL;
}
