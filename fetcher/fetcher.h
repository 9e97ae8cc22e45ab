/* fetcher.h - the loop that reads many accounts at once.
 *
 * Each job it holds has a slot: an account (account.h) that is driven by what happens in the loop:
 * an answer, a moment that has come, room on the pages link. A second job for a credential that is
 * in use waits behind the first. */
#ifndef UF_FETCHER_FETCHER_H
#define UF_FETCHER_FETCHER_H

#include "common/options.h"
#include "common/status.h"

struct fetcher;

/* ST_FATAL: bad ENCRYPTION_KEY, endpoint or certificates; ST_RETRY: the system refused a
 * descriptor or the like. */
enum status fetcher_open(struct fetcher **out, const struct config *cfg, struct err *err) CHECKED;
void fetcher_close(struct fetcher **f); /* accepts NULL */

/* Works until asked to stop, and then finishes what is in hand within STAGE_STOP_MAX_US. */
void fetcher_run(struct fetcher *f);

#endif
