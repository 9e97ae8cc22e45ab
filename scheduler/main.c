/* scheduler - decides what is read when, and follows each job to its end.
 *
 *   ledger (Postgres) --claim--> [scheduler] --jobs--> fetcher
 *          ^----settle-------------'  ^--acks-- writer    ^--control-- usagectl, any ZeroMQ tool
 *
 * Promise: an account has one job at a time (lease and epoch); a watermark moves only over pages
 * that are committed; whatever is lost on the way is claimed again when its lease has run out.
 * Options: uf-scheduler --help. Exit: 0 asked to stop, 100 bad configuration, 111 start me again.
 */
#include "common/options.h"
#include "common/stage.h"
#include "scheduler/scheduler.h"

static enum status run(struct scheduler **s, struct config *cfg, int argc, char **argv,
                       struct err *err)
{
    TRY(config_load(cfg, STAGE_SCHEDULER, "scheduler",
                    "decides what is read when, and follows each job to its end", argc, argv, err));
    TRY(scheduler_open(s, cfg, err)); /* Postgres reached, schema checked, links bound */
    if (stage_stopping())
        return ST_OK;         /* while it waited for Postgres: nothing is open */
    stage_ready("scheduler"); /* only now may the others count on us */

    while (stage_wait(scheduler_stage(*s), scheduler_deadline_us(*s))) { /* until asked to stop */
        TRY(scheduler_take(*s, err));   /* signs of life, ends, acks, requests */
        TRY(scheduler_settle(*s, err)); /* what has ended goes into the ledger */
        TRY(scheduler_claim(*s, err));  /* what is due goes out, as far as there is credit */
    }
    return scheduler_stop(*s, err); /* leases are given back */
}

int main(int argc, char **argv)
{
    struct config cfg = {0};
    struct scheduler *s = NULL;
    struct err err = {0};
    enum status st = run(&s, &cfg, argc, argv, &err);

    scheduler_close(&s);
    config_wipe(&cfg);
    return stage_exit("scheduler", st, &err); /* logs err, once; maps st to the exit status */
}
