/* digests.h - pages that usage_metrics holds as they were last read, so that they need not be read
 * again when they come once more.
 *
 * Kept in accounts.page_digests, all feeds of an account in one value, with the epoch of the lease
 * under which they were written. They are good for the very next lease only: whatever was claimed
 * in between, by whomever, may have committed something newer. What a job brings home replaces what
 * was known of the feeds that it read; of the others all stays. */
#ifndef UF_SCHEDULER_DIGESTS_H
#define UF_SCHEDULER_DIGESTS_H

#include "common/arena.h"
#include "scheduler/jobs.h"

/* Fills `job->known` from the stored value; it stays empty when that is null, damaged, of another
 * version, or not of the lease just before the job's. */
void digests_read(struct tracked_job *job, struct text stored);
/* Gives each window what may be taken for known in it: nothing where the table is to be compared
 * with the provider anew (audits, injections, backfills). */
void digests_give(struct tracked_job *job);
/* The value to be stored once the job is settled; null: nothing is known. */
struct text digests_write(struct arena *a, const struct tracked_job *job);

#endif
