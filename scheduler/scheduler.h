/* scheduler.h - claims due accounts, hands out jobs, follows them to their end. */
#ifndef UF_SCHEDULER_H
#define UF_SCHEDULER_H

#include <stdint.h>

#include "common/options.h"
#include "common/stage.h"
#include "common/status.h"

struct scheduler;

/* Postgres reached (waits for it until asked to stop), schema checked, links bound. */
enum status scheduler_open(struct scheduler **out, const struct config *cfg,
                           struct err *err) CHECKED;
void scheduler_close(struct scheduler **s); /* accepts NULL */

struct stage *scheduler_stage(const struct scheduler *s);
/* When something is due that no message announces, monotonic. */
int64_t scheduler_deadline_us(const struct scheduler *s);

/* Takes what the links hold: signs of life and ends from fetchers, acks from writers, requests from
 * people. */
enum status scheduler_take(struct scheduler *s, struct err *err) CHECKED;
/* Writes down the jobs that have ended. Postgres away: they wait, and nothing new is claimed. */
enum status scheduler_settle(struct scheduler *s, struct err *err) CHECKED;
/* Claims as many accounts as there is credit for, and sends the jobs of what has been claimed. */
enum status scheduler_claim(struct scheduler *s, struct err *err) CHECKED;

/* Writes down how far the jobs that are out have come, and gives their leases back, so that the
 * next scheduler need not wait for them to run out. */
enum status scheduler_stop(struct scheduler *s, struct err *err) CHECKED;

#endif
