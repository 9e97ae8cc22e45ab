/* fuzz.h - one libFuzzer target for each decoder: whatever bytes come, nothing is read or written
 * out of bounds, nothing hangs, and what a decoder accepts keeps its promises.
 *
 * `make fuzz SECONDS=60` builds and runs them (tests/fuzz/run). */
#ifndef UF_FUZZ_H
#define UF_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/arena.h"
#include "common/text.h"
#include "common/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* A promise. abort() makes libFuzzer keep the input. */
#define HOLDS(promise)                                                                             \
    do {                                                                                           \
        if (!(promise)) {                                                                          \
            (void)fprintf(stderr, "%s:%d: broken: %s\n", __FILE__, __LINE__, #promise);            \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static inline struct text fuzz_text(const uint8_t *data, size_t len)
{
    return (struct text){(const char *)data, len};
}

/* Takes the text up to the next line end, and the line end. */
static inline struct text fuzz_line(struct text *rest)
{
    const char *end = rest->len ? memchr(rest->at, '\n', rest->len) : NULL;
    struct text line = {rest->at, end ? (size_t)(end - rest->at) : rest->len};
    size_t used = line.len + (end ? 1 : 0);

    rest->at += used;
    rest->len -= used;
    return line;
}

/* What Postgres takes as a text: UTF-8 without a zero byte. */
static inline bool fuzz_storable(struct text t)
{
    size_t n;

    for (size_t i = 0; i < t.len; i += n) {
        n = utf8_sequence(t.at + i, t.len - i);
        if (n == 0 || t.at[i] == '\0')
            return false;
    }
    return true;
}

static inline bool fuzz_contains(struct text t, const void *part, size_t len)
{
    return t.at && memmem(t.at, t.len, part, len) != NULL;
}

#endif
