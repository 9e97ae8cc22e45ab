/* json_scan.h - the innermost loops of json.c: how far a text is plain, and where an array or
 * object ends.
 *
 * Plain is what stands for itself: ASCII but for control characters, '"' and '\'. Of each there are
 * two functions with one result: one for processors with SSE2 (every x86-64), sixteen or 64 bytes a
 * step, and one for any other. tests/test_json.c and the fuzzer hold them against each other. */
#ifndef UF_JSON_SCAN_H
#define UF_JSON_SCAN_H

#include <stdbool.h>
#include <stddef.h>
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

/* What is known behind the bracket that opened an array or object. */
struct json_span {
    size_t depth;  /* arrays and objects that are open: 1 to begin with, 0 once it has ended */
    size_t commas; /* between its own children */
    bool in_text, escaped;
};

/* The byte behind the bracket that closes it, or `end` when that is not there. Nothing is checked
 * but that quotes and brackets come in pairs, of whichever kind. */
static inline const char *json_pass_portable(struct json_span *p, const char *at, const char *end)
{
    for (; at < end && p->depth > 0; at++) {
        if (p->escaped) {
            p->escaped = false;
            continue;
        }
        if (*at == '\\') {
            p->escaped = true;
        } else if (*at == '"') {
            p->in_text = !p->in_text;
        } else if (!p->in_text) {
            p->commas += *at == ',' && p->depth == 1;
            p->depth += *at == '{' || *at == '[';
            p->depth -= *at == '}' || *at == ']';
        }
    }
    return at;
}

#ifdef __SSE2__
/* A bit for each of 64 bytes. */
struct json_marks {
    uint64_t quotes, escapes, opening, closing, commas;
};

static inline uint64_t json_equal_sse2(__m128i bytes, char c)
{
    return (uint16_t)_mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_set1_epi8(c)));
}

static inline void json_mark_sse2(struct json_marks *m, const char *at)
{
    *m = (struct json_marks){0};
    for (int i = 0; i < 64; i += 16) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)(at + i));
        /* the two kinds of brackets are one bit apart */
        __m128i curly = _mm_or_si128(bytes, _mm_set1_epi8(0x20));
        m->quotes |= json_equal_sse2(bytes, '"') << i;
        m->escapes |= json_equal_sse2(bytes, '\\') << i;
        m->commas |= json_equal_sse2(bytes, ',') << i;
        m->opening |= json_equal_sse2(curly, '{') << i;
        m->closing |= json_equal_sse2(curly, '}') << i;
    }
}

/* Of the bytes that follow a backslash. */
static inline uint64_t json_escaped(struct json_span *p, uint64_t escapes)
{
    uint64_t escaped = p->escaped;

    escapes &= ~escaped;
    p->escaped = false;
    while (escapes) {
        uint64_t bit = escapes & -escapes;
        escaped |= bit << 1;
        p->escaped = bit >> 63;
        escapes &= ~(bit | bit << 1);
    }
    return escaped;
}

/* Of the bytes within texts, with the quote that begins each: what has an odd number of quotes up
 * to it. */
static inline uint64_t json_in_texts(struct json_span *p, uint64_t quotes)
{
    for (int shift = 1; shift < 64; shift *= 2)
        quotes ^= quotes << shift;
    if (p->in_text)
        quotes = ~quotes;
    p->in_text = quotes >> 63;
    return quotes;
}

static inline size_t json_count_bits(uint64_t bits)
{
    size_t n = 0;

    for (; bits; bits &= bits - 1)
        n++;
    return n;
}

static inline const char *json_pass_sse2(struct json_span *p, const char *at, const char *end)
{
    for (; end - at >= 64; at += 64) {
        struct json_marks m;
        uint64_t brackets, escaped, texts;

        json_mark_sse2(&m, at);
        escaped = json_escaped(p, m.escapes);
        texts = escaped | json_in_texts(p, m.quotes & ~escaped);
        m.commas &= ~texts;
        for (brackets = (m.opening | m.closing) & ~texts; brackets; brackets &= brackets - 1) {
            uint64_t bit = brackets & -brackets;
            if (p->depth == 1)
                p->commas += json_count_bits(m.commas & (bit - 1));
            m.commas &= -bit;
            p->depth += m.opening & bit ? 1 : -(size_t)1;
            if (p->depth == 0)
                return at + __builtin_ctzll(bit) + 1;
        }
        if (p->depth == 1)
            p->commas += json_count_bits(m.commas);
    }
    return json_pass_portable(p, at, end);
}
#define json_pass json_pass_sse2
#else
#define json_pass json_pass_portable
#endif

#endif
