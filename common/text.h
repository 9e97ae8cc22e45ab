/* text.h - bytes that somebody else owns: a pointer and a length, not NUL-terminated.
 *
 * `at == NULL` is SQL's null and JSON's null; `at != NULL, len == 0` is the empty text. */
#ifndef UF_TEXT_H
#define UF_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

struct text {
    const char *at;
    size_t len;
};

#define TEXT_NULL         ((struct text){NULL, 0})
#define TEXT_LIT(literal) ((struct text){(literal), sizeof(literal) - 1})

static inline struct text text_of(const char *s)
{
    return (struct text){s, s ? strlen(s) : 0};
}

static inline bool text_eq(struct text a, struct text b)
{
    if (!a.at || !b.at)
        return a.at == b.at;
    return a.len == b.len && (a.at == b.at || memcmp(a.at, b.at, a.len) == 0);
}

static inline bool text_is(struct text a, const char *s)
{
    return a.at && a.len == strlen(s) && memcmp(a.at, s, a.len) == 0;
}

#endif
