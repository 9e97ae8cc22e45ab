/* copy.h - records in the binary form of COPY usage_metrics FROM STDIN. */
#ifndef UF_COPY_H
#define UF_COPY_H

#include "common/arena.h"
#include "common/wire.h"

extern const char copy_sql[]; /* the statement, with its columns in the order written here */

void copy_begin(struct buf *b);
/* `now_us`: the database's clock, for first_seen_at and changed_at. */
void copy_row(struct buf *b, const struct origin *origin, struct text feed,
              const struct record *record, int64_t now_us);
void copy_end(struct buf *b);

#define PG_EPOCH_US (INT64_C(946684800) * 1000000) /* 2000-01-01, where Postgres counts from */

#endif
