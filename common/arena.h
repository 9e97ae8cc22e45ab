/* arena.h - memory that dies together: all that one message needs, freed by one reset.
 *
 * Input is bounded at the door, so running out of memory is not handled: the process ends with
 * status 111, which is safe because being killed on any line is. */
#ifndef UF_ARENA_H
#define UF_ARENA_H

#include <stddef.h>
#include <string.h>

#include "common/status.h"
#include "common/text.h"

struct arena;

struct arena *arena_new(void);
/* For what lives on by the thousand: begins with room for `first` bytes, and grows as any does. */
struct arena *arena_small(size_t first);
void arena_free(struct arena **a); /* accepts NULL */

/* Ends the life of all that was allocated, runs the deferred calls last-in first-out, and keeps
 * up to 8 MiB of memory for the next message. */
void arena_reset(struct arena *a);

/* Zeroed, aligned for any type; never NULL. `count` x `size` may be 0. */
void *arena_alloc(struct arena *a, size_t count, size_t size);
#define ARENA_NEW(a, type)          ((type *)arena_alloc((a), 1, sizeof(type)))
#define ARENA_ARRAY(a, count, type) ((type *)arena_alloc((a), (count), sizeof(type)))

/* The same, not zeroed: for a large list of which each element is written whole before it is read.
 */
void *arena_room(struct arena *a, size_t count, size_t size);
#define ARENA_ROOM(a, count, type) ((type *)arena_room((a), (count), sizeof(type)))

/* A NUL-terminated copy. */
char *arena_copy(struct arena *a, const void *from, size_t len);
struct text arena_text(struct arena *a, struct text t); /* null stays null */
char *arena_printf(struct arena *a, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* Calls `end(arg)` at the next reset or free. */
void arena_defer(struct arena *a, void (*end)(void *arg), void *arg);

/* A byte buffer that grows inside an arena (the old block is left to the reset). */
struct buf {
    struct arena *arena;
    char *at; /* NUL-terminated after each append */
    size_t len, cap;
};
void buf_reserve(struct buf *b, size_t more); /* room for `more` bytes and the NUL */
static inline void buf_append(struct buf *b, const void *from, size_t len)
{
    if (b->cap - b->len <= len)
        buf_reserve(b, len);
    if (len)
        memcpy(b->at + b->len, from, len);
    b->len += len;
    b->at[b->len] = '\0';
}
void buf_text(struct buf *b, struct text t);
static inline void buf_str(struct buf *b, const char *s) /* a literal's length costs nothing */
{
    buf_append(b, s, strlen(s));
}
void buf_printf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* Says so and ends the process with 111. For libraries' allocations, too: one that failed is no
 * reason to doubt a key, a message or the configuration. */
_Noreturn void memory_out(void);

/* For processes in which bundles and batches of a hundred KiB to some MiB come and go all the time:
 * with glibc's usual limits most of them go back to the kernel, which then gives the next one clean
 * pages, one fault each. That was half of what a normalizer or a writer used. */
void heap_keep(void);

/* For what lives as long as the process; ends it with 111 when memory is out. */
void *xalloc(size_t count, size_t size); /* zeroed */
void *xrealloc(void *p, size_t count, size_t size);
char *xstrdup(const char *s);

#endif
