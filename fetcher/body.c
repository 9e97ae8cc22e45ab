#include "fetcher/body.h"

#include <stdlib.h>
#include <string.h>

#include "common/arena.h"

#define BODY_FIRST ((size_t)16 << 10)

void body_append(struct body *b, const void *from, size_t len)
{
    size_t cap = b->cap ? b->cap : BODY_FIRST;

    while (cap - b->len < len)
        cap *= 2;
    if (cap != b->cap) {
        b->at = xrealloc(b->at, cap, 1);
        b->cap = cap;
    }
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
