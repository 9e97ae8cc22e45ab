/* trigger.h - /api/cron/usage-fetcher: one run for all who ask while it goes on.
 *
 *   idle --trigger--> asking the scheduler --run_id--> following it --done--> idle
 *
 * Whoever comes while a run is asked for or going on joins it, so a storm of triggers is one run.
 * The run is a row in Postgres before its id is answered: nothing is lost when a process ends. */
#ifndef UF_GATEWAY_TRIGGER_H
#define UF_GATEWAY_TRIGGER_H

#include <stdint.h>

#include "common/json.h"
#include "gateway/gateway.h"

struct request;
struct trigger;

#define TRIGGER_WAIT_MAX_S 900
#define TRIGGER_JOIN_US    (INT64_C(900) * 1000000) /* a run that goes on for longer is not joined */
#define TRIGGER_SIZE       30                       /* at once, */
#define TRIGGER_REFILL_MS  2000                     /* and one more each two seconds */

void trigger_open(struct trigger **out, struct gateway *g);
void trigger_close(struct trigger **t); /* accepts NULL */
void trigger_asked(struct gateway *g, struct request *r);
/* Each second: answers whose wait is over, asks how the run is doing. */
void trigger_second(struct trigger *t, int64_t now_us);

/* What the run's end means, in one line: "5 accounts read; 1 of 6 failed: acme (auth_invalid)". In
 * `a`. */
const char *trigger_message(struct arena *a, const struct json *run_status);

#endif
