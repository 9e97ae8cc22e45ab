/* normalizer - makes usage records of raw pages.
 *
 *   fetcher --pages--> [normalizer] --records--> writer
 *
 * Promise: every page that arrives leaves as records or as a dead letter with its reason; a page
 * that is lost here on the way is read again when its job's lease runs out. Holds no secret, no
 * database and no state: any number of it may run.
 * Options: uf-normalizer --help.  Exit: 0 asked to stop, 100 bad configuration, 111 start me again.
 */
#include "common/crash.h"
#include "common/options.h"
#include "common/stage.h"
#include "normalizer/normalizer.h"

static enum status run(struct normalizer **n, int argc, char **argv, struct err *err)
{
    struct config cfg;

    TRY(config_load(&cfg, STAGE_NORMALIZER, "normalizer", "makes usage records of raw pages", argc,
                    argv, err));
    TRY(normalizer_open(n, &cfg, err)); /* links bound and connecting */
    stage_ready("normalizer");          /* only now may the others count on us */

    while (stage_wait(normalizer_stage(*n), INT64_MAX)) /* until asked to stop */
        TRY(normalizer_take(*n, err));                  /* pages -> records, handed on */
    CRASH_POINT("normalizer.stop.asked");
    return ST_OK;
}

int main(int argc, char **argv)
{
    struct normalizer *n = NULL;
    struct err err = {0};
    enum status st = run(&n, argc, argv, &err);

    normalizer_close(&n);
    return stage_exit("normalizer", st, &err);
}
