/* fetcher - reads the usage of accounts from their providers, page by page.
 *
 *   scheduler --job (key inside, sealed)--> [fetcher] --pages, raw--> normalizer
 *                  ^------------ready, done------'  '--HTTPS--> provider
 *
 * Promise: a page goes on as it was received, and `done` says of each window how far it was read;
 * only "ok" means that the provider had no more. Keys are open here alone, in memory, while their
 * account is read. Killed on any line, it costs a repeat: a lease that runs out is given anew.
 * Options: fetcher --help.  Exit: 0 asked to stop, 100 bad configuration, 111 start me again. */
#include "common/options.h"
#include "common/stage.h"
#include "fetcher/fetcher.h"

static enum status run(struct fetcher **f, struct config *cfg, int argc, char **argv,
                       struct err *err)
{
    TRY(config_load(cfg, STAGE_FETCHER, "fetcher",
                    "reads the usage of accounts from their providers", argc, argv, err));
    TRY(fetcher_open(f, cfg, err)); /* key usable, links open */
    stage_ready("fetcher");         /* only now may the others count on us */
    fetcher_run(*f);                /* until asked to stop, and what is in hand is finished */
    return ST_OK;
}

int main(int argc, char **argv)
{
    struct config cfg = {0};
    struct fetcher *f = NULL;
    struct err err = {0};
    enum status st = run(&f, &cfg, argc, argv, &err);

    fetcher_close(&f);
    config_wipe(&cfg);
    return stage_exit("fetcher", st, &err); /* logs err, once; maps st to the exit status */
}
