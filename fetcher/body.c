#include "fetcher/body.h"

#include <stdlib.h>
#include <string.h>

#include "common/arena.h"

#define BODY_FIRST ((size_t)16 << 10)

void body_reserve(struct body *b, size_t more)
{
    if (b->cap - b->len >= more)
        return;
    b->cap = b->len + more;
    b->at = xrealloc(b->at, b->cap, 1);
}

void body_append(struct body *b, const void *from, size_t len)
{
    size_t cap = b->cap ? b->cap : BODY_FIRST;

    while (cap - b->len < len)
        cap *= 2;
    body_reserve(b, cap - b->len);
    memcpy(b->at + b->len, from, len);
    b->len += len;
}

struct body body_take(struct body *b)
{
    struct body taken = *b;

    *b = (struct body){0};
    return taken;
}

void body_free(struct body *b)
{
    free(b->at);
    *b = (struct body){0};
}
