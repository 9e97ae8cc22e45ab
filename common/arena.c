#include "common/arena.h"

#include <assert.h>
#include <malloc.h>
#include <sanitizer/asan_interface.h> /* its macros are empty unless built with ASan */
#include <stdalign.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HEAP_SPARE  (16 << 20) /* bytes that stay with the process when nothing is in them */
#define HEAP_BLOCK  (4 << 20)  /* smaller ones are not given a mapping of their own */
#define CHUNK_FIRST ((size_t)64 << 10)
#define CHUNK_MOST  ((size_t)1 << 20)
#define KEEP_MOST   ((size_t)8 << 20) /* kept by a reset: a full page with its tree and records */
#define ALIGNMENT   (alignof(max_align_t))

struct chunk {
    struct chunk *next;
    size_t size, used;
    alignas(max_align_t) char at[];
};

struct deferred {
    struct deferred *next;
    void (*end)(void *arg);
    void *arg;
};

struct arena {
    struct chunk *first;
    struct chunk *current; /* those after it are empty, kept by a reset */
    struct deferred *deferred;
};

void heap_keep(void)
{
#ifdef __GLIBC__
    (void)mallopt(M_TRIM_THRESHOLD, HEAP_SPARE);
    (void)mallopt(M_MMAP_THRESHOLD, HEAP_BLOCK);
#endif
}

void memory_out(void)
{
    static const char line[] = "{\"level\":\"error\",\"event\":\"memory.out\"}\n";

    if (write(STDERR_FILENO, line, sizeof(line) - 1) < 0) {
        /* nothing is left to tell it to */
    }
    _exit(111);
}

static size_t bytes_of(size_t count, size_t size)
{
    size_t bytes;

    if (__builtin_mul_overflow(count, size, &bytes) || bytes > PTRDIFF_MAX / 2)
        memory_out();
    return bytes;
}

void *xalloc(size_t count, size_t size)
{
    size_t bytes = bytes_of(count, size);
    void *p = calloc(1, bytes ? bytes : 1);

    if (!p)
        memory_out();
    return p;
}

void *xrealloc(void *p, size_t count, size_t size)
{
    size_t bytes = bytes_of(count, size);
    void *grown = realloc(p, bytes ? bytes : 1);

    if (!grown)
        memory_out();
    return grown;
}

char *xstrdup(const char *s)
{
    size_t size = strlen(s) + 1;

    return memcpy(xalloc(size, 1), s, size);
}

static size_t rounded(size_t bytes)
{
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static struct chunk *chunk_new(size_t size)
{
    struct chunk *c = malloc(sizeof(*c) + size);

    if (!c)
        memory_out();
    c->next = NULL;
    c->size = size;
    c->used = 0;
    ASAN_POISON_MEMORY_REGION(c->at, size);
    return c;
}

static void chunk_free(struct chunk *c)
{
    ASAN_UNPOISON_MEMORY_REGION(c->at, c->size);
    free(c);
}

struct arena *arena_small(size_t first)
{
    struct arena *a = xalloc(1, sizeof(*a));

    a->first = chunk_new(rounded(first));
    a->current = a->first;
    return a;
}

struct arena *arena_new(void)
{
    return arena_small(CHUNK_FIRST);
}

/* The next chunk becomes the current one: a kept one when it is large enough, else a new one. */
static void advance(struct arena *a, size_t bytes)
{
    struct chunk *next = a->current->next;
    size_t size = a->current->size * 2;

    if (!next || next->size < bytes) {
        if (size > CHUNK_MOST)
            size = CHUNK_MOST;
        next = chunk_new(size > bytes ? size : bytes);
        next->next = a->current->next;
        a->current->next = next;
    }
    a->current = next;
}

/* Not zeroed. `bytes` is a multiple of ALIGNMENT. `asked` of them may be touched. */
static void *take(struct arena *a, size_t bytes, size_t asked)
{
    struct chunk *c = a->current;
    char *at;

    if (c->size - c->used < bytes) {
        advance(a, bytes);
        c = a->current;
    }
    at = c->at + c->used;
    c->used += bytes;
    ASAN_UNPOISON_MEMORY_REGION(at, asked);
    (void)asked;
    return at;
}

void *arena_room(struct arena *a, size_t count, size_t size)
{
    size_t asked = bytes_of(count, size);

    return take(a, rounded(asked ? asked : 1), asked);
}

void *arena_alloc(struct arena *a, size_t count, size_t size)
{
    return memset(arena_room(a, count, size), 0, bytes_of(count, size));
}

char *arena_copy(struct arena *a, const void *from, size_t len)
{
    char *at = take(a, rounded(bytes_of(len + 1, 1)), len + 1);

    if (len)
        memcpy(at, from, len);
    at[len] = '\0';
    return at;
}

struct text arena_text(struct arena *a, struct text t)
{
    if (!t.at)
        return TEXT_NULL;
    return (struct text){arena_copy(a, t.at, t.len), t.len};
}

char *arena_printf(struct arena *a, const char *fmt, ...)
{
    va_list args, again;
    char *at;
    int len;

    va_start(args, fmt);
    va_copy(again, args);
    len = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    assert(len >= 0);
    at = arena_alloc(a, (size_t)len + 1, 1);
    (void)vsnprintf(at, (size_t)len + 1, fmt, again);
    va_end(again);
    return at;
}

void arena_defer(struct arena *a, void (*end)(void *arg), void *arg)
{
    struct deferred *d = ARENA_NEW(a, struct deferred);

    d->end = end;
    d->arg = arg;
    d->next = a->deferred;
    a->deferred = d;
}

static void run_deferred(struct arena *a)
{
    while (a->deferred) {
        struct deferred *d = a->deferred;
        a->deferred = d->next; /* unlinked first: `end` may allocate or defer */
        d->end(d->arg);
    }
}

void arena_reset(struct arena *a)
{
    struct chunk **link = &a->first;
    size_t kept = 0;

    run_deferred(a);
    while (*link) {
        struct chunk *c = *link;
        if (kept + c->size > KEEP_MOST && c != a->first) {
            *link = c->next;
            chunk_free(c);
            continue;
        }
        kept += c->size;
        c->used = 0;
        ASAN_POISON_MEMORY_REGION(c->at, c->size);
        link = &c->next;
    }
    a->current = a->first;
}

void arena_free(struct arena **a)
{
    if (!*a)
        return;
    run_deferred(*a);
    for (struct chunk *c = (*a)->first, *next; c; c = next) {
        next = c->next;
        chunk_free(c);
    }
    free(*a);
    *a = NULL;
}

/* Room for `more` bytes and a NUL: at the same place when nothing was allocated since, else in a
 * new block of at least twice the size. */
void buf_reserve(struct buf *b, size_t more)
{
    struct chunk *c = b->arena->current;
    size_t need = bytes_of(b->len + more + 1, 1);
    size_t cap, extra;
    char *at;

    if (need <= b->cap)
        return;
    cap = rounded(need > b->cap * 2 ? need : b->cap * 2);
    extra = cap - b->cap;
    if (b->cap && b->at + b->cap == c->at + c->used && c->size - c->used >= extra) {
        ASAN_UNPOISON_MEMORY_REGION(c->at + c->used, extra);
        c->used += extra;
        b->cap = cap;
        return;
    }
    at = take(b->arena, cap, cap);
    if (b->len)
        memcpy(at, b->at, b->len);
    b->at = at;
    b->cap = cap;
}

void buf_text(struct buf *b, struct text t)
{
    buf_append(b, t.at, t.len);
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list args, again;
    int len;

    va_start(args, fmt);
    va_copy(again, args);
    len = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    assert(len >= 0);
    buf_reserve(b, (size_t)len);
    (void)vsnprintf(b->at + b->len, (size_t)len + 1, fmt, again);
    va_end(again);
    b->len += (size_t)len;
}
