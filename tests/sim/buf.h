/* buf.h - a growing byte buffer, and the number texts that the simulator writes.
 *
 * Running out of memory ends the program: it is a test tool with bounded input. */
#ifndef SIM_BUF_H
#define SIM_BUF_H

#include <stddef.h>
#include <stdint.h>

struct buf {
    char *at;
    size_t len, cap;
};

void buf_free(struct buf *b);
void buf_reserve(struct buf *b, size_t more);
void buf_add(struct buf *b, const void *bytes, size_t len);
void buf_str(struct buf *b, const char *s);
void buf_char(struct buf *b, char c);
void buf_i64(struct buf *b, int64_t v);
void buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* v / 10^scale as a plain decimal without needless zeros: 12.5, -0.0025945, 0 */
void buf_decimal(struct buf *b, __int128 v, int scale);
/* The same value as a JSON number of JavaScript's kind: below 1e-6 in exponent form (1e-7). */
void buf_json_decimal(struct buf *b, __int128 v, int scale);
/* A JSON string with quotes; bytes from 0x80 up are copied. */
void buf_json_string(struct buf *b, const char *s);
/* A CSV field as COPY ... CSV reads it; the empty text is written "" and so differs from null. */
void buf_csv_string(struct buf *b, const char *s);

void *xmalloc(size_t n);
void *xcalloc(size_t n, size_t size);
void *xrealloc(void *p, size_t n);
char *xstrdup(const char *s);

#endif
