/* spool.h - a streamed answer between the database, which is fast, and its reader, who may be slow.
 *
 * Bytes go in at one end and out at the other. The first 256 KiB lie in memory, what is more in an
 * unlinked temporary file, so that the connection to the database is free long before the last
 * byte is sent. Beyond SPOOL_FULL unread bytes the writer should wait. */
#ifndef UF_GATEWAY_SPOOL_H
#define UF_GATEWAY_SPOOL_H

#include <stdbool.h>
#include <stddef.h>

#define SPOOL_MEMORY ((size_t)256 * 1024)
#define SPOOL_FULL   ((size_t)64 * 1024 * 1024)

struct spool;

struct spool *spool_new(void);
void spool_free(struct spool **at); /* accepts NULL */

void spool_append(struct spool *s, const void *from, size_t len);
/* Nothing more comes. `good` false: the answer is broken, and its reader must see that. */
void spool_end(struct spool *s, bool good);

size_t spool_unread(const struct spool *s);
bool spool_full(const struct spool *s);    /* the writer should wait */
bool spool_drained(const struct spool *s); /* and may go on */

/* At most `max` bytes. 0: nothing for now. -1: the end. -2: broken, also when the file failed. */
#define SPOOL_AT_END (-1)
#define SPOOL_BROKEN (-2)
long spool_read(struct spool *s, void *to, size_t max);

#endif
