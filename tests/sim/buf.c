#include "tests/sim/buf.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *or_die(void *p)
{
    if (!p) {
        (void)fputs("uf-sim: out of memory\n", stderr);
        exit(1);
    }
    return p;
}

void *xmalloc(size_t n)
{
    return or_die(malloc(n ? n : 1));
}

void *xcalloc(size_t n, size_t size)
{
    return or_die(calloc(n ? n : 1, size));
}

void *xrealloc(void *p, size_t n)
{
    return or_die(realloc(p, n ? n : 1));
}

char *xstrdup(const char *s)
{
    return or_die(strdup(s));
}

void buf_free(struct buf *b)
{
    free(b->at);
    *b = (struct buf){0};
}

void buf_reserve(struct buf *b, size_t more)
{
    size_t want = b->len + more;

    if (want <= b->cap)
        return;
    if (want < b->cap * 2)
        want = b->cap * 2;
    if (want < 4096)
        want = 4096;
    b->at = xrealloc(b->at, want);
    b->cap = want;
}

void buf_add(struct buf *b, const void *bytes, size_t len)
{
    if (len == 0)
        return;
    buf_reserve(b, len);
    memcpy(b->at + b->len, bytes, len);
    b->len += len;
}

void buf_str(struct buf *b, const char *s)
{
    buf_add(b, s, strlen(s));
}

void buf_char(struct buf *b, char c)
{
    buf_reserve(b, 1);
    b->at[b->len++] = c;
}

/* The digits of v, right-aligned in out[40]; returns where they begin. */
static const char *digits(char out[41], unsigned __int128 v)
{
    char *p = out + 40;

    *p = '\0';
    for (; v > UINT64_MAX; v /= 10) /* a call each, where the processor divides 64 bits itself */
        *--p = (char)('0' + (int)(v % 10));
    for (uint64_t low = (uint64_t)v; low || !*p; low /= 10)
        *--p = (char)('0' + (int)(low % 10));
    return p;
}

/* Drops zeros at the end of a fraction of *places digits; all of them when v is 0. */
static unsigned __int128 without_zeros(unsigned __int128 v, int *places)
{
    uint64_t low;

    for (; v > UINT64_MAX && *places > 0 && v % 10 == 0; --*places)
        v /= 10;
    if (v > UINT64_MAX)
        return v;
    for (low = (uint64_t)v; *places > 0 && low % 10 == 0; --*places)
        low /= 10;
    return low;
}

void buf_i64(struct buf *b, int64_t v)
{
    char out[24];
    char *p = out + sizeof out;
    uint64_t u = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;

    do {
        *--p = (char)('0' + (int)(u % 10));
        u /= 10;
    } while (u);
    if (v < 0)
        *--p = '-';
    buf_add(b, p, (size_t)(out + sizeof out - p));
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list ap;
    int n;

    buf_reserve(b, 512);
    va_start(ap, fmt);
    n = vsnprintf(b->at + b->len, b->cap - b->len, fmt, ap);
    va_end(ap);
    if (n > 0 && (size_t)n >= b->cap - b->len) {
        buf_reserve(b, (size_t)n + 1);
        va_start(ap, fmt);
        n = vsnprintf(b->at + b->len, b->cap - b->len, fmt, ap);
        va_end(ap);
    }
    if (n > 0)
        b->len += (size_t)n;
}

void buf_decimal(struct buf *b, __int128 v, int scale)
{
    char text[41];
    unsigned __int128 u = v < 0 ? -(unsigned __int128)v : (unsigned __int128)v;

    u = without_zeros(u, &scale);
    const char *d = digits(text, u);
    int n = (int)strlen(d);

    if (v < 0)
        buf_char(b, '-');
    if (scale <= 0) {
        buf_str(b, d);
        return;
    }
    if (n > scale)
        buf_add(b, d, (size_t)(n - scale));
    else
        buf_char(b, '0');
    buf_char(b, '.');
    for (int i = n; i < scale; i++)
        buf_char(b, '0');
    buf_str(b, n > scale ? d + (n - scale) : d);
}

void buf_json_decimal(struct buf *b, __int128 v, int scale)
{
    char text[41];
    unsigned __int128 u = v < 0 ? -(unsigned __int128)v : (unsigned __int128)v;
    int places = scale;

    u = without_zeros(u, &places);
    const char *d = digits(text, u);
    int n = (int)strlen(d);

    if (u == 0 || n - places > -6) {
        buf_decimal(b, v, scale);
        return;
    }
    if (v < 0)
        buf_char(b, '-');
    buf_char(b, d[0]);
    if (n > 1) {
        buf_char(b, '.');
        buf_str(b, d + 1);
    }
    buf_printf(b, "e%d", n - places - 1);
}

void buf_json_string(struct buf *b, const char *s)
{
    buf_char(b, '"');
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;

        if (c == '"' || c == '\\') {
            buf_char(b, '\\');
            buf_char(b, *s);
        } else if (c < 0x20) {
            buf_printf(b, "\\u%04x", c);
        } else {
            buf_char(b, *s);
        }
    }
    buf_char(b, '"');
}

void buf_csv_string(struct buf *b, const char *s)
{
    if (*s && !strpbrk(s, ",\"\r\n\\ ")) {
        buf_str(b, s);
        return;
    }
    buf_char(b, '"');
    for (; *s; s++) {
        if (*s == '"')
            buf_char(b, '"');
        buf_char(b, *s);
    }
    buf_char(b, '"');
}
