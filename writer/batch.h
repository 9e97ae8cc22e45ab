/* batch.h - one transaction: pages replace the buckets that they report.
 *
 *   fence   lock the accounts' rows, in order; pages of an older lease are discarded
 *   probe   what does the table hold in the pages' buckets? Not asked for a feed's first page ever
 *   replace COPY the new rows, UPDATE the changed, DELETE the vanished, leave the equal alone
 *
 * The lock on the account's row is held to the end, so two writers never work on one account at
 * once: no deadlock, no unique violation, and a claim (SKIP LOCKED) passes by. */
#ifndef UF_BATCH_H
#define UF_BATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/pg.h"
#include "common/wire.h"

/* A page on its way into the table, and what became of it. In one lease a feed has one window, and
 * a number in it is that of one page only (wire.h): the first page of all is known by that. */
struct batch_page {
    const struct origin *origin;
    const struct record_page *page;
    enum page_fate fate;
    uint32_t inserted, updated, removed, unchanged;
    bool part; /* some rows of a page that Postgres refuses: what it lacks has not vanished, and its
                * bad rows are told by another part */
    size_t n_misread;    /* of the page's bad rows; Postgres refused those that follow */
    const char *refused; /* why Postgres refuses the page: it goes in as a dead letter; else NULL */
    char sqlstate[6];    /* of what it refused */
};

/* Months whose partition is known to be there: bit m of month_bits[y] is month m of year 1970 + y.
 */
struct months {
    uint16_t month_bits[200];
};

/* Makes the partitions of this month and the next three. */
enum status months_ahead(struct months *m, struct pg *pg, struct err *err) CHECKED;

/* Commits `n` pages in one transaction and fills their fate and counts. Nothing of them is in the
 * table unless ST_OK (or a COMMIT whose answer was lost: doing it again is then harmless).
 * ST_RETRY: Postgres away or busy. ST_REJECT: Postgres refuses some row of these pages, pg_sqlstate
 * tells. ST_FATAL: the database is not as this program needs it. */
enum status batch_commit(struct pg *pg, struct months *months, struct batch_page *pages, size_t n,
                         struct err *err) CHECKED;

/* Sums up some of the days that batches changed so long ago, for readers of many of them (db/,
 * "Sums made ahead"). `more`: there may be more. Errors as of batch_commit; nothing depends on it.
 */
enum status days_sum_up(struct pg *pg, int64_t after_s, bool *more, struct err *err) CHECKED;

#endif
