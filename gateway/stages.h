/* stages.h - the pipeline as the gateway sees it: every process's pulse, received in its libuv
 * loop.
 *
 *   UF_PULSE (SUB) --> struct instances --> /api/v1/stages, /readyz, /metrics
 *
 * The loop is never held up: what is there is taken, at most a bounded number of messages a turn.
 */
#ifndef UF_GATEWAY_STAGES_H
#define UF_GATEWAY_STAGES_H

#include <stdbool.h>
#include <uv.h>

#include "common/arena.h"
#include "common/instances.h"
#include "common/options.h"
#include "common/status.h"

struct stages;

/* Subscribes to UF_PULSE and listens in `loop`.
 * ST_FATAL: an endpoint that can not be used; ST_RETRY: no descriptor. */
enum status stages_open(struct stages **out, uv_loop_t *loop, void *zmq_ctx,
                        const struct config *cfg, struct err *err) CHECKED;
/* Before the ZeroMQ context ends; the loop must run once more for its handles to end. */
void stages_close(struct stages **s); /* accepts NULL */

/* For metrics_stages(). */
const struct instances *stages_instances(const struct stages *s);

/* Whether each kind of stage has at least one fresh pulse. `missing` (may be NULL; in `a`): the
 * kinds that have none, "fetcher, writer"; "" when all are there. */
bool stages_ready(const struct stages *s, struct arena *a, const char **missing);

/* The body of /api/v1/stages, appended to `out`:
 *
 * {"at":"2026-11-25T03:00:00Z",
 *  "stages":[                       in the order of the pipeline, all four, also those without any
 *   {"stage":"fetcher","ready":true,"instances":3,"fresh":3,
 *    "queue":12,"queue_of":"jobs held",           null when not known
 *    "work_of":"requests","work_10s":31.2,"work_60s":28.75,             a second
 *    "warnings":0,"errors":0}],
 *  "instances":[                    in the order of the pipeline, then by name
 *   {"stage":"fetcher","instance":"fetcher-1","version":"0.1.0","pid":4711,
 *    "started":"2026-11-25T02:00:00Z","uptime_s":3600,"silent_ms":412,"fresh":true,
 *    "queue":4,"work_10s":10.4,"work_60s":9.5,"warnings":0,"errors":0,
 *    "counters":{"requests_total":{"total":3405,"per_s_10s":10.4,"per_s_60s":9.5},...},
 *    "gauges":{"jobs_held":4,"requests_in_flight":4,...},
 *    "durations":{"request_duration_seconds":{"count":3405,"mean_s":0.123}}}]}
 *
 * Counters are summed over their labels; /metrics has them one by one. */
void stages_json(struct buf *out, const struct stages *s);
/* The same, of any instances at any time. */
void stages_write(struct buf *out, const struct instances *in, int64_t utc_us, int64_t mono_us);

#endif
