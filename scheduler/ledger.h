/* ledger.h - the scheduler's part of Postgres: claims, settlements, runs. Each is one transaction;
 * claims and settlements are not waited for. */
#ifndef UF_LEDGER_H
#define UF_LEDGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/arena.h"
#include "common/json.h"
#include "common/options.h"
#include "common/pg.h"
#include "common/pulse.h"
#include "scheduler/jobs.h"

/* What a claim found. */
struct claim {
    struct tracked_job **jobs; /* the caller's; the array is in the arena */
    size_t n_jobs;
    size_t n_claimed; /* accounts taken, also those with nothing to do; as many as asked: more may
                         be due */
    int64_t next_due_in_us; /* none claimed: from now until the next is due; else, or when there is
                               none: INT64_MAX */
    bool paused;
};

/* What the database told of the accounts of a claim, ordered by account, and how far it is read. */
struct claim_rows {
    PGresult *feeds, *owed;
    int feed_at, owed_at;
};

/* A claim on its way: which part of its transaction has been sent, and what the parts before
 * brought. */
struct claiming {
    enum { CLAIM_NONE, CLAIM_TAKES, CLAIM_READS, CLAIM_COMMITS } step;
    struct arena *arena;
    PGresult *paused, *accounts, *next_due;
    struct claim_rows rows;
    struct claim claim;
};

struct ledger {
    struct pg *pg;        /* claims, and between two of them all else */
    struct pg *settle_pg; /* settlements have a connection of their own: claims go on meanwhile */
    const struct config *cfg;
    struct slots slots;
    struct uuid scheduler_id;
    struct claiming claiming;
    int64_t tick_us;           /* the newest tick that has its run */
    bool run_begun;            /* the running settlement made it */
    struct tracked_job **ours; /* of the running settlement: those whose leases are still held */
    size_t n_ours;
    struct pulse *pulse; /* NULL: nothing is counted */
};
void ledger_close(struct ledger *l); /* forgets what is on its way; the connections stay */

/* Claims up to `max` due accounts under a lease and plans their windows. SKIP LOCKED: another
 * scheduler's claims, and accounts that a writer holds, are passed by. With ST_OK it is on its way,
 * one at a time; until ledger_claimed says how it ended, `pg` takes nothing else. */
enum status ledger_claim(struct ledger *l, size_t max, struct err *err) CHECKED;
/* `*done`: false while there is no answer yet, never with `wait`. Done with ST_OK: committed. */
enum status ledger_claimed(struct ledger *l, bool wait, struct claim *out, struct arena *a,
                           bool *done, struct err *err) CHECKED;

/* SQL: a due time before that of any account; the oldest is claimed first. */
#define LEDGER_FRONT                                                                               \
    "(SELECT least(now(), min(next_due) - interval '1 microsecond') FROM accounts WHERE enabled)"

/* How many accounts wait for a claim, as far as LEDGER_DUE_MAX. */
#define LEDGER_DUE_MAX 10000
enum status ledger_due(struct ledger *l, int64_t *out, struct err *err) CHECKED;

/* Writes down how jobs ended, moves watermarks, releases their leases. A job whose account has a
 * newer epoch is another's by now and changes nothing. Not waited for: with ST_OK it is on its way,
 * one at a time, and the jobs stay as they are until ledger_settled says how it ended. */
enum status ledger_settle(struct ledger *l, struct tracked_job *const *jobs, size_t n,
                          struct err *err) CHECKED;
/* `*done`: false while there is no answer yet, never with `wait`. Done with ST_OK: committed. */
enum status ledger_settled(struct ledger *l, bool wait, bool *done, struct err *err) CHECKED;

/* Adds what was acknowledged of `late` jobs, settled before, to the sums of their runs. */
enum status ledger_late(struct ledger *l, struct jobs *late, struct err *err) CHECKED;

/* ---- what is asked for on the control socket; ST_REJECT: err is the answer to the person ---- */

/* `account` null: all enabled ones. */
enum status ledger_run(struct ledger *l, struct text account, struct uuid *run_id,
                       int64_t *out_accounts, struct err *err) CHECKED;
/* A past window to be read beside the live ones. */
struct injection {
    struct text account;
    struct text feed; /* null: all feeds of the account */
    int64_t from_us, to_us;
};
/* `out_jobs`: chunks that its longest window takes. */
enum status ledger_inject(struct ledger *l, const struct injection *in, struct uuid *run_id,
                          int64_t *out_jobs, struct err *err) CHECKED;
enum status ledger_pause(struct ledger *l, bool paused, struct err *err) CHECKED;
/* Appends the run as JSON members (docs/wire.md, "control"). `run_id` NULL: the newest run, if any.
 */
enum status ledger_run_status(struct ledger *l, struct json_writer *w, const struct uuid *run_id,
                              struct err *err) CHECKED;

#endif
