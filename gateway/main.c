/* gateway - all HTTP: cron trigger, dashboard, figures, health, metrics.
 *
 *   browser, cron, Prometheus --HTTP--> [gateway] --control--> scheduler
 *                                          |  '----SQL, read-only----> Postgres
 *                                          '<------pulse------------- every stage
 *
 * Promise: it changes nothing but by asking the scheduler for a run, and no asker, however slow,
 * holds up another. Its end loses nothing: a run that it asked for is a row in Postgres.
 * Options: uf-gateway --help. Exit: 0 asked to stop, 100 bad configuration, 111 start me again. */
#include "common/options.h"
#include "common/stage.h"
#include "gateway/gateway.h"

static enum status run(struct gateway **g, struct config *cfg, int argc, char **argv,
                       struct err *err)
{
    TRY(config_load(cfg, STAGE_GATEWAY, "gateway",
                    "all HTTP: cron trigger, dashboard, figures, health, metrics", argc, argv,
                    err));
    TRY(gateway_open(g, cfg, err)); /* it listens; Postgres and the scheduler may come later */
    stage_ready("gateway");
    gateway_run(*g); /* until asked to stop */
    return ST_OK;
}

int main(int argc, char **argv)
{
    struct config cfg = {0};
    struct gateway *g = NULL;
    struct err err = {0};
    enum status st = run(&g, &cfg, argc, argv, &err);

    gateway_close(&g);
    config_wipe(&cfg);
    return stage_exit("gateway", st, &err); /* logs err, once; maps st to the exit status */
}
