/* json_scan.h - how far a JSON text is plain: the innermost loop of json.c.
 *
 * Plain is what stands for itself: ASCII but for control characters, '"' and '\'. Two functions
 * with one result: sixteen bytes a step where the processor has SSE2 (every x86-64), eight anywhere
 * else. tests/test_json.c and the fuzzer hold them against each other. */
#ifndef UF_JSON_SCAN_H
#define UF_JSON_SCAN_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

static inline bool json_is_plain(char c)
{
    unsigned char byte = (unsigned char)c;

    return byte >= 0x20 && byte < 0x80 && byte != '"' && byte != '\\';
}

/* `byte` in each of the eight. */
#define EIGHT_TIMES(byte) (UINT64_C(0x0101010101010101) * (byte))

/* The first byte of [at, end) that is not plain, or `end`. */
static inline const char *json_scan_portable(const char *at, const char *end)
{
    uint64_t eight;

    for (; end - at >= (ptrdiff_t)sizeof(eight); at += sizeof(eight)) {
        uint64_t control, quote, escape;

        /* A subtraction borrows into the top bit of a byte that was too small for it. What it
         * borrows from the next byte can only be taken for one more that is not plain. */
        memcpy(&eight, at, sizeof(eight));
        control = eight - EIGHT_TIMES(0x20);
        quote = (eight ^ EIGHT_TIMES('"')) - EIGHT_TIMES(1);
        escape = (eight ^ EIGHT_TIMES('\\')) - EIGHT_TIMES(1);
        if ((eight | control | quote | escape) & EIGHT_TIMES(0x80))
            break;
    }
    while (at < end && json_is_plain(*at))
        at++;
    return at;
}

#ifdef __SSE2__
static inline const char *json_scan_sse2(const char *at, const char *end)
{
    for (; end - at >= (ptrdiff_t)sizeof(__m128i); at += sizeof(__m128i)) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)at);
        /* signed: what is above 0x7f is below 0x20, too */
        __m128i odd = _mm_cmplt_epi8(bytes, _mm_set1_epi8(0x20));
        int mask;

        odd = _mm_or_si128(odd, _mm_cmpeq_epi8(bytes, _mm_set1_epi8('"')));
        odd = _mm_or_si128(odd, _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\\')));
        mask = _mm_movemask_epi8(odd);
        if (mask != 0)
            return at + __builtin_ctz((unsigned)mask);
    }
    return json_scan_portable(at, end);
}
#define json_scan json_scan_sse2
#else
#define json_scan json_scan_portable
#endif

#endif
