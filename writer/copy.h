/* copy.h - records in the binary form of COPY usage_metrics FROM STDIN. */
#ifndef UF_COPY_H
#define UF_COPY_H

#include "common/arena.h"
#include "common/wire.h"

/* The statement, with its columns in the order written here; others may follow it. */
extern const char copy_sql[];
/* The same where row-level security holds for this login, through which Postgres does not COPY: by
 * way of a table that lasts to the end of the transaction. */
extern const char copy_guarded_sql[];

void copy_begin(struct buf *b);
/* `now_us`: the database's clock, for first_seen_at and changed_at. */
void copy_row(struct buf *b, const struct origin *origin, struct text feed,
              const struct record *record, int64_t now_us);
void copy_end(struct buf *b);

#define PG_EPOCH_US (INT64_C(946684800) * 1000000) /* 2000-01-01, where Postgres counts from */

#endif
