/* utf8.h - which bytes are UTF-8, as Postgres and JSON demand it. */
#ifndef UF_UTF8_H
#define UF_UTF8_H

#include <stddef.h>

#define UTF8_REPLACEMENT "\xef\xbf\xbd" /* U+FFFD */

/* Length of the valid UTF-8 sequence at `at` (1 to 4), or 0 when the bytes there are none: cut off,
 * overlong, a surrogate, or above U+10FFFF. */
static inline size_t utf8_sequence(const char *at, size_t len)
{
    const unsigned char *s = (const unsigned char *)at;
    unsigned char low = 0x80, high = 0xbf; /* what the second byte may be */
    size_t want;

    if (len == 0)
        return 0;
    if (s[0] < 0x80)
        return 1;
    if (s[0] >= 0xc2 && s[0] <= 0xdf)
        want = 2;
    else if (s[0] >= 0xe0 && s[0] <= 0xef)
        want = 3;
    else if (s[0] >= 0xf0 && s[0] <= 0xf4)
        want = 4;
    else
        return 0;
    if (len < want)
        return 0;
    if (s[0] == 0xe0)
        low = 0xa0; /* below it: overlong */
    else if (s[0] == 0xed)
        high = 0x9f; /* above it: a surrogate */
    else if (s[0] == 0xf0)
        low = 0x90;
    else if (s[0] == 0xf4)
        high = 0x8f;
    if (s[1] < low || s[1] > high)
        return 0;
    for (size_t i = 2; i < want; i++) {
        if (s[i] < 0x80 || s[i] > 0xbf)
            return 0;
    }
    return want;
}

/* How many of the first `max` bytes can stay when a text of `len` is cut there, so that no sequence
 * is torn. */
static inline size_t utf8_cut(const char *at, size_t len, size_t max)
{
    size_t end = max;

    if (len <= max)
        return len;
    while (end > 0 && max - end < 4 && ((unsigned char)at[end] & 0xc0) == 0x80)
        end--;
    return end;
}

#endif
