/* writer - commits usage records to Postgres, in batches.
 *
 *   normalizer --records--> [writer] --COPY, commit--> usage_metrics
 *                               '-----acks, after commit----> scheduler
 *
 * Promise: a page is acknowledged only after its transaction has committed, and a page that arrives
 * twice changes nothing. Killed on any line, it costs a repeat and never a row.
 * Options: uf-writer --help. Exit: 0 asked to stop, 100 bad configuration, 111 start me again. */
#include "common/options.h"
#include "common/stage.h"
#include "writer/writer.h"

static enum status run(struct writer **w, struct config *cfg, int argc, char **argv,
                       struct err *err)
{
    TRY(config_load(cfg, STAGE_WRITER, "writer", "commits usage records to Postgres, in batches",
                    argc, argv, err));
    TRY(writer_open(w, cfg, err)); /* Postgres reached, schema checked, links bound */
    if (stage_stopping())
        return ST_OK;      /* while it waited for Postgres: nothing is open */
    stage_ready("writer"); /* only now may the others count on us */

    while (stage_wait(writer_stage(*w), writer_deadline_us(*w))) { /* until asked to stop */
        TRY(writer_take(*w, err));                                 /* link -> open batch */
        TRY(writer_commit_if_due(*w, err)); /* COPY, commit, and only then acknowledge */
    }
    return writer_finish(*w, err); /* what the open batch still holds */
}

int main(int argc, char **argv)
{
    struct config cfg = {0};
    struct writer *w = NULL;
    struct err err = {0};
    enum status st = run(&w, &cfg, argc, argv, &err);

    writer_close(&w);
    config_wipe(&cfg);
    return stage_exit("writer", st, &err); /* logs err, once; maps st to the exit status */
}
