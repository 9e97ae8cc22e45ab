#include "common/decimal.h"

#include <assert.h>
#include <string.h>

#define SHOWN(t) (int)((t).len < 40 ? (t).len : 40), (t).at ? (t).at : ""

#define PLAIN_DIGITS_MAX 100 /* far below DECIMAL_DIGITS_MAX: no limit is to be looked at */

/* The pieces of a JSON number, borrowed from its text. */
struct number {
    bool negative;
    struct text whole;    /* at least one digit, no needless zero in front */
    struct text fraction; /* empty when there is no point */
    int64_t exponent;
};

static struct text take_digits(struct text *t)
{
    struct text digits = {t->at, 0};

    while (digits.len < t->len && t->at[digits.len] >= '0' && t->at[digits.len] <= '9')
        digits.len++;
    t->at += digits.len;
    t->len -= digits.len;
    return digits;
}

static bool take_char(struct text *t, char c)
{
    if (t->len == 0 || t->at[0] != c)
        return false;
    t->at++;
    t->len--;
    return true;
}

/* "E+2". An exponent beyond what any accepted number has is cut to one that is refused later. */
static bool take_exponent(struct text *t, int64_t *out)
{
    struct text digits;
    bool negative;

    *out = 0;
    if (!take_char(t, 'e') && !take_char(t, 'E'))
        return true;
    negative = take_char(t, '-');
    if (!negative)
        take_char(t, '+');
    digits = take_digits(t);
    for (size_t i = 0; i < digits.len && *out < 1000000; i++)
        *out = *out * 10 + (digits.at[i] - '0');
    if (negative)
        *out = -*out;
    return digits.len > 0;
}

static enum status number_split(struct number *out, struct text t, struct err *err)
{
    struct text rest = t;
    bool good = t.at != NULL;

    *out = (struct number){.negative = good && take_char(&rest, '-')};
    if (good) {
        out->whole = take_digits(&rest);
        good = out->whole.len == 1 || (out->whole.len > 1 && out->whole.at[0] != '0');
    }
    if (good && take_char(&rest, '.')) {
        out->fraction = take_digits(&rest);
        good = out->fraction.len > 0;
    }
    if (good && take_exponent(&rest, &out->exponent) && rest.len == 0)
        return ST_OK;
    return err_set(err, ST_REJECT, "\"%.*s\" is no number: digits as in \"-12.50\" or \"1e-7\"",
                   SHOWN(t));
}

/* Canonical: no leading zeros, and zero is not negative. */
static void trim(struct decimal *d)
{
    while (d->digits.len > 1 && d->digits.at[0] == '0') {
        d->digits.at++;
        d->digits.len--;
    }
    if (d->digits.len == 1 && d->digits.at[0] == '0')
        d->negative = false;
}

static enum status too_long(struct text t, struct err *err)
{
    return err_set(err, ST_REJECT, "\"%.*s...\" has more than %d digits", SHOWN(t),
                   DECIMAL_DIGITS_MAX);
}

enum status decimal_parse(struct decimal *out, struct arena *a, struct text t, struct err *err)
{
    struct number n;
    int64_t scale;
    size_t zeros, len;
    char *digits;

    TRY(number_split(&n, t, err));
    assert(n.whole.at);
    scale = (int64_t)n.fraction.len - n.exponent;
    zeros = scale < 0 ? (size_t)-scale : 0; /* 1E+2 is 100 */
    len = n.whole.len + n.fraction.len + zeros;
    /* "0.", which decimal_format may have put in front, counts for nothing */
    if (len > DECIMAL_DIGITS_MAX + (n.whole.at[0] == '0') || scale > DECIMAL_DIGITS_MAX)
        return too_long(t, err);
    digits = arena_alloc(a, len, 1);
    memcpy(digits, n.whole.at, n.whole.len);
    if (n.fraction.len)
        memcpy(digits + n.whole.len, n.fraction.at, n.fraction.len);
    memset(digits + len - zeros, '0', zeros);
    out->negative = n.negative;
    out->digits = (struct text){digits, len};
    out->scale = scale < 0 ? 0 : (uint32_t)scale;
    trim(out);
    return ST_OK;
}

bool decimal_is_plain(struct text t)
{
    struct text whole, fraction;

    if (!t.at || t.len > PLAIN_DIGITS_MAX)
        return false;
    whole = take_digits(&t);
    if (whole.len == 0 || (whole.len > 1 && whole.at[0] == '0'))
        return false;
    if (take_char(&t, '.')) {
        fraction = take_digits(&t);
        if (fraction.len == 0)
            return false;
    }
    return t.len == 0;
}

void decimal_shift(struct decimal *d, uint32_t places)
{
    d->scale += places;
}

struct text decimal_format(const struct decimal *d, struct arena *a)
{
    struct buf b = {.arena = a};
    size_t whole = d->digits.len > d->scale ? d->digits.len - d->scale : 0;

    if (d->negative)
        buf_str(&b, "-");
    if (whole == 0)
        buf_str(&b, "0");
    buf_append(&b, d->digits.at, whole);
    if (d->scale > 0) {
        buf_str(&b, ".");
        for (size_t i = d->digits.len; i < d->scale; i++)
            buf_str(&b, "0");
        buf_append(&b, d->digits.at + whole, d->digits.len - whole);
    }
    return (struct text){b.at, b.len};
}

/* The digit with weight 10^place (place 0 is the last digit of scale `scale`). */
static int digit_at(const struct decimal *d, uint32_t scale, size_t place)
{
    size_t lift = scale - d->scale;

    if (place < lift || place - lift >= d->digits.len)
        return 0;
    return d->digits.at[d->digits.len - 1 - (place - lift)] - '0';
}

static int compare_size(const struct decimal *a, const struct decimal *b, uint32_t scale,
                        size_t places)
{
    for (size_t i = places; i-- > 0;) {
        int diff = digit_at(a, scale, i) - digit_at(b, scale, i);
        if (diff != 0)
            return diff;
    }
    return 0;
}

enum status decimal_add(struct decimal *out, struct arena *arena, const struct decimal *a,
                        const struct decimal *b, struct err *err)
{
    uint32_t scale = a->scale > b->scale ? a->scale : b->scale;
    size_t len_a = a->digits.len + (scale - a->scale), len_b = b->digits.len + (scale - b->scale);
    size_t places = (len_a > len_b ? len_a : len_b) + 1; /* room for the carry */
    const struct decimal *large = a, *small = b;
    char *digits = arena_alloc(arena, places, 1);
    int carry = 0, sign;

    if (compare_size(a, b, scale, places) < 0) {
        large = b;
        small = a;
    }
    sign = a->negative == b->negative ? 1 : -1;
    for (size_t i = 0; i < places; i++) {
        int sum = digit_at(large, scale, i) + sign * digit_at(small, scale, i) + carry;
        carry = sum > 9 ? 1 : sum < 0 ? -1 : 0;
        digits[places - 1 - i] = (char)('0' + sum - 10 * carry);
    }
    *out = (struct decimal){large->negative, {digits, places}, scale};
    trim(out);
    if (out->digits.len > DECIMAL_DIGITS_MAX)
        return too_long(out->digits, err);
    return ST_OK;
}

static void append_be16(struct buf *b, unsigned v)
{
    const unsigned char bytes[2] = {(unsigned char)(v >> 8), (unsigned char)v};

    buf_append(b, bytes, sizeof(bytes));
}

/* Digit at `place` (0 = units, 1 = tens, -1 = tenths) of plain notation whose point is at
 * `point`. */
static unsigned plain_digit(struct text t, size_t point, int64_t place)
{
    int64_t at = (int64_t)point - 1 - place;

    if (place < 0)
        at++; /* the point itself */
    if (at < 0 || at >= (int64_t)t.len)
        return 0;
    assert(t.at[at] >= '0' && t.at[at] <= '9');
    return (unsigned)(t.at[at] - '0');
}

/* Base-10,000 digit of weight 10000^weight. */
static unsigned group_at(struct text t, size_t point, int64_t weight)
{
    unsigned value = 0;

    for (int64_t i = 3; i >= 0; i--)
        value = value * 10 + plain_digit(t, point, weight * 4 + i);
    return value;
}

void decimal_to_pg(struct buf *b, struct text t)
{
    bool negative = t.len > 0 && t.at[0] == '-';
    const char *dot;
    size_t point, scale;
    int64_t first, last;

    if (negative) {
        t.at++;
        t.len--;
    }
    assert(t.len > 0);
    dot = memchr(t.at, '.', t.len);
    point = dot ? (size_t)(dot - t.at) : t.len;
    scale = dot ? t.len - point - 1 : 0;
    first = ((int64_t)point + 3) / 4 - 1;
    last = -(((int64_t)scale + 3) / 4);
    while (first >= last && group_at(t, point, first) == 0)
        first--; /* Postgres wants neither leading nor trailing zero groups */
    while (last <= first && group_at(t, point, last) == 0)
        last++;
    append_be16(b, (unsigned)(first >= last ? first - last + 1 : 0));
    append_be16(b, (unsigned)(first >= last ? first : 0) & 0xffff);
    append_be16(b, negative ? 0x4000 : 0);
    append_be16(b, (unsigned)scale);
    for (int64_t w = first; w >= last; w--)
        append_be16(b, group_at(t, point, w));
}

/* Nearly all counts: some digits and nothing else. 18 of them always fit. */
static bool take_short_count(int64_t *out, struct text t)
{
    int64_t value = 0;

    if (!t.at || t.len == 0 || t.len > 18 || (t.at[0] == '0' && t.len > 1))
        return false;
    for (size_t i = 0; i < t.len; i++) {
        if (t.at[i] < '0' || t.at[i] > '9')
            return false;
        value = value * 10 + (t.at[i] - '0');
    }
    *out = value;
    return true;
}

enum status int64_parse(int64_t *out, struct text t, struct err *err)
{
    struct number n;
    size_t len, whole;
    int64_t value = 0;

    if (take_short_count(out, t))
        return ST_OK;
    TRY(number_split(&n, t, err));
    len = n.whole.len + n.fraction.len;
    if ((int64_t)n.whole.len + n.exponent < 0)
        whole = 0;
    else
        whole = (size_t)((int64_t)n.whole.len + n.exponent);
    for (size_t i = 0; i < len || i < whole; i++) {
        char c = '0';

        if (i < n.whole.len)
            c = n.whole.at[i];
        else if (i < len)
            c = n.fraction.at[i - n.whole.len];
        if (i >= whole) {
            if (c != '0')
                return err_set(err, ST_REJECT, "\"%.*s\" is not a whole number", SHOWN(t));
            continue;
        }
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_sub_overflow(value, c - '0', &value)) /* downwards: INT64_MIN fits too */
            return err_set(err, ST_REJECT, "\"%.*s\" is beyond 64 bits", SHOWN(t));
    }
    if (!n.negative && __builtin_sub_overflow(0, value, &value))
        return err_set(err, ST_REJECT, "\"%.*s\" is beyond 64 bits", SHOWN(t));
    *out = value;
    return ST_OK;
}
