/* plan.h - when a feed is asked again, and for which window. Pure functions of the ledger's state.
 */
#ifndef UF_PLAN_H
#define UF_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "common/cron.h"
#include "common/providers/provider.h"
#include "common/wire.h"

/* What the ledger knows of one feed of one account; 0 = never. */
struct feed_state {
    const struct feed *feed;
    bool stored; /* it has its row; else all is as by default */
    bool enabled;
    int64_t resume_us; /* the last reading ended early: where it stopped */
    int64_t complete_from_us, watermark_us;
    int64_t bucket_s; /* width of the last reading */
    int64_t next_due_us;
    int64_t empty_since_us;
    int64_t audited_3d_us, audited_30d_us;
    int64_t consecutive_failures;
};

struct live_plan {
    struct window window;       /* to_us == 0: until the provider's now */
    bool audits_3d, audits_30d; /* the window reaches that far back because an audit is due */
    int64_t skipped_us; /* from here on old buckets that keep failing are left for later; 0: none */
    struct span backfill; /* a new feed's older part, to be read after; from == to: none */
};

/* The window of a cycle: behind the watermark by the feed's lookback, further when an audit is due
 * (once a day 3 days, once a week 30 days). Of a feed never read: as much of `backfill_s` as a few
 * pages hold; the older rest is set apart, so that live figures never wait for old ones. */
void plan_live(struct live_plan *out, const struct feed_state *state, int64_t now_us,
               int64_t bucket_s, int64_t backfill_s);

/* The next chunk of a window that is owed: at most OWED_CHUNK_PAGES pages of [done_to, to).
 * Reaching `now_us`, it is left open. */
#define OWED_CHUNK_PAGES 8
void plan_owed(struct window *out, const struct feed *feed, int64_t bucket_s, int64_t done_to_us,
               int64_t to_us, int64_t now_us);

/* [from, to) widened to whole UTC days: buckets of every width fit into them. */
struct span plan_align(int64_t from_us, int64_t to_us);

/* An account's place inside the cycle: the same in every cycle, spread by a hash of its id over the
 * shortest gap between two ticks. */
struct slots {
    struct cron schedule;
    int64_t gap_us; /* the shortest gap between ticks, looked at over a week */
    /* The tick that was found last, which is the next one from the other moment on: nearly all
     * accounts of a cycle ask for the same one or two, and to find a far one takes long. */
    int64_t tick_us, tick_from_us;
};
void slots_init(struct slots *s, const struct cron *schedule, int64_t now_us);
/* The account's first slot after `t_us`. */
int64_t slot_after(struct slots *s, int64_t account_id, int64_t t_us);
/* The last tick at or before `t_us`. */
int64_t tick_before(const struct slots *s, int64_t t_us);

struct outcome {
    enum ending ending;
    int64_t failures; /* in a row, this one included when it is one */
    int64_t retry_after_s;
};

/* Since when a feed has been without data, after a reading of [from_us, now) that went well; 0: it
 * is in use. `rows`: some came; `changed`: the table had not had them so. */
struct found {
    int64_t from_us;
    bool rows, changed;
    bool audit; /* it went far back: what had been there before tells nothing of today */
};
int64_t plan_empty_since(const struct feed_state *state, const struct found *found);

/* When a feed is due again after it ended so. `now_us`: the database's clock. */
int64_t plan_next_due(struct slots *s, int64_t account_id, const struct feed_state *state,
                      const struct outcome *how, int64_t now_us);

#endif
