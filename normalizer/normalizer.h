/* normalizer.h - takes pages as the fetchers received them and hands records to the writers.
 *
 * Life: opened with its two links; each turn of the loop takes what has arrived, one arena a
 * message; when no writer has room it waits for one and takes nothing, so that the flow stops
 * upstream and memory stays bounded. */
#ifndef UF_NORMALIZER_H
#define UF_NORMALIZER_H

#include "common/arena.h"
#include "common/options.h"
#include "common/person.h"
#include "common/stage.h"
#include "common/status.h"
#include "common/wire.h"

#define NORMALIZER_MESSAGE_MAX                                                                     \
    ((size_t)32 << 20)         /* one message's records; a larger page is alone */
#define NORMALIZER_TAKE_MAX 64 /* messages of one turn */

struct normalizer;

/* ST_FATAL: an endpoint that can not be used. */
enum status normalizer_open(struct normalizer **out, const struct config *cfg,
                            struct err *err) CHECKED;
void normalizer_close(struct normalizer **n); /* accepts NULL */

struct stage *normalizer_stage(const struct normalizer *n);

/* Takes what is there, without waiting for more. A message that can not be read is logged and
 * dropped: its job's lease brings it again. Waits while no writer has room; asked to stop, no
 * longer than STAGE_STOP_MAX_US. ST_FATAL: a link is broken. */
enum status normalizer_take(struct normalizer *n, struct err *err) CHECKED;

/* One page of `origin` -> `out`; never fails, since what can not be understood becomes a dead
 * letter. Logs what was odd about it. */
void normalize_page(struct record_page *out, struct arena *a, const struct origin *origin,
                    const struct page *page, const struct people *people);

/* How many of the pages, from the first, go into one message: at least one, and as many as stay
 * within NORMALIZER_MESSAGE_MAX. */
size_t normalizer_fit(const struct record_page *pages, size_t n_pages);

#endif
