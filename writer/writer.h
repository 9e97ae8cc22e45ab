/* writer.h - the open batch: pages taken from the link, on their way to one commit. */
#ifndef UF_WRITER_H
#define UF_WRITER_H

#include <stdint.h>

#include "common/options.h"
#include "common/stage.h"
#include "common/status.h"

struct writer;

/* Postgres reached (waits for it until asked to stop), schema checked, partitions made ahead, links
 * open. ST_FATAL: it never will be like this. */
enum status writer_open(struct writer **out, const struct config *cfg, struct err *err) CHECKED;
void writer_close(struct writer **w); /* accepts NULL */

struct stage *writer_stage(const struct writer *w);

/* When writer_commit_if_due has something to do, monotonic. */
int64_t writer_deadline_us(const struct writer *w);

/* Link -> open batch, until the link is empty or the batch is full. */
enum status writer_take(struct writer *w, struct err *err) CHECKED;

/* Commits when the batch is full, old enough, or waits to be tried again; acknowledges what was
 * committed. Postgres away is no failure here: the batch waits, and nothing more is received. */
enum status writer_commit_if_due(struct writer *w, struct err *err) CHECKED;

/* Commits what the open batch still holds; gives up (ST_OK: its pages are read again) when Postgres
 * is away for longer than a stop may take. */
enum status writer_finish(struct writer *w, struct err *err) CHECKED;

#endif
