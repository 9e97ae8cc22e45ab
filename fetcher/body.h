/* body.h - bytes that grow as an answer comes in, malloc'ed, for they change hands without a copy:
 * from libcurl to the account, and from there to the pages link.
 *
 * All zero is an empty one. */
#ifndef UF_FETCHER_BODY_H
#define UF_FETCHER_BODY_H

#include <stddef.h>

#include "common/text.h"

struct body {
    char *at; /* NULL: none yet */
    size_t len, cap;
};

/* Makes room for `more` bytes behind those that are there. */
void body_reserve(struct body *b, size_t more);
void body_append(struct body *b, const void *from, size_t len);
/* Gives it away; `b` is empty after. */
struct body body_take(struct body *b);
void body_free(struct body *b); /* `b` is empty after */

/* Borrowed; never null. */
static inline struct text body_text(const struct body *b)
{
    return (struct text){b->at ? b->at : "", b->len};
}

#endif
