/* Money: two numbers, one a line. Read, written, shifted, added and made Postgres's: the same value
 * each time. */
#include "common/decimal.h"
#include "tests/fuzz/fuzz.h"

static unsigned be16(const struct buf *b, size_t i)
{
    return (unsigned)(unsigned char)b->at[2 * i] << 8 | (unsigned char)b->at[2 * i + 1];
}

/* Postgres's binary numeric as plain notation, written from its documentation alone. */
static struct text from_pg(struct arena *a, const struct buf *pg)
{
    int n = (int)be16(pg, 0), weight = (int16_t)be16(pg, 1);
    unsigned scale = be16(pg, 3);
    struct buf b = {.arena = a};
    size_t cut;

    HOLDS(pg->len == (4 + (size_t)n) * 2);
    HOLDS(n == 0 || (be16(pg, 4) != 0 && be16(pg, 3 + (size_t)n) != 0)); /* no zero at the ends */
    HOLDS(be16(pg, 2) == 0 || (be16(pg, 2) == 0x4000 && n > 0));
    if (be16(pg, 2))
        buf_str(&b, "-");
    if (n == 0 || weight < 0)
        buf_str(&b, "0");
    for (int w = n > 0 ? weight : -1; w >= 0; w--) {
        unsigned digit = weight - w < n ? be16(pg, 4 + (size_t)(weight - w)) : 0;
        HOLDS(digit < 10000);
        buf_printf(&b, w == weight ? "%u" : "%04u", digit);
    }
    if (scale == 0)
        return (struct text){b.at, b.len};
    buf_str(&b, ".");
    cut = b.len + scale;
    for (int w = -1; b.len < cut; w--) {
        int at = weight - w;
        buf_printf(&b, "%04u", n > 0 && at >= 0 && at < n ? be16(pg, 4 + (size_t)at) : 0);
    }
    for (size_t i = cut; i < b.len; i++)
        HOLDS(b.at[i] == '0'); /* no digit behind the scale */
    return (struct text){b.at, cut};
}

static bool check_one(struct decimal *d, struct arena *a, struct text t)
{
    struct decimal again, moved;
    struct text plain, sent;
    struct buf pg = {.arena = a};
    struct err err;

    if (decimal_parse(d, a, t, &err) != ST_OK)
        return false;
    HOLDS(d->digits.len > 0 && (d->digits.len == 1 || d->digits.at[0] != '0'));
    HOLDS(d->digits.len <= DECIMAL_DIGITS_MAX && d->scale <= DECIMAL_DIGITS_MAX);
    HOLDS(!d->negative || !text_is(d->digits, "0"));
    plain = decimal_format(d, a);
    HOLDS(decimal_parse(&again, a, plain, &err) == ST_OK);
    HOLDS(text_eq(again.digits, d->digits) && again.scale == d->scale &&
          again.negative == d->negative);
    moved = *d;
    decimal_shift(&moved, 2);
    HOLDS(moved.scale == d->scale + 2 && text_eq(moved.digits, d->digits));
    decimal_to_pg(&pg, plain);
    sent = from_pg(a, &pg);
    HOLDS(text_eq(sent, plain));
    return true;
}

static void check_sum(struct arena *a, const struct decimal *x, const struct decimal *y)
{
    struct decimal sum, mirror, back, minus = *y;
    struct err err;

    if (decimal_add(&sum, a, x, y, &err) != ST_OK)
        return;
    HOLDS(decimal_add(&mirror, a, y, x, &err) == ST_OK);
    HOLDS(text_eq(decimal_format(&sum, a), decimal_format(&mirror, a)));
    HOLDS(sum.scale == (x->scale > y->scale ? x->scale : y->scale));
    minus.negative = !text_is(y->digits, "0") && !y->negative;
    if (decimal_add(&back, a, &sum, &minus, &err) != ST_OK)
        return;
    HOLDS(back.scale == sum.scale && back.negative == x->negative);
    HOLDS(back.digits.len >= x->digits.len || text_is(x->digits, "0"));
    /* x again, with zeros behind where y has the larger scale */
    HOLDS(text_is(x->digits, "0") || memcmp(back.digits.at, x->digits.at, x->digits.len) == 0);
    for (size_t i = x->digits.len; i < back.digits.len; i++)
        HOLDS(back.digits.at[i] == '0');
}

static void check_int(struct arena *a, struct text t, const struct decimal *d)
{
    int64_t value;
    struct text plain;
    struct err err;
    const char *whole;
    size_t len;

    if (int64_parse(&value, t, &err) != ST_OK || !d)
        return;
    plain = decimal_format(d, a);
    whole = arena_printf(a, "%lld", (long long)value);
    len = strlen(whole);
    HOLDS(plain.len >= len && memcmp(plain.at, whole, len) == 0);
    HOLDS(plain.len == len || plain.at[len] == '.');
    for (size_t i = len + 1; i < plain.len; i++)
        HOLDS(plain.at[i] == '0');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct arena *a = arena_new();
    struct text rest = fuzz_text(data, len);
    struct text first = fuzz_line(&rest), second = fuzz_line(&rest);
    struct decimal x, y;
    bool x_good = check_one(&x, a, first), y_good = check_one(&y, a, second);

    check_int(a, first, x_good ? &x : NULL);
    check_int(a, second, y_good ? &y : NULL);
    if (x_good && y_good)
        check_sum(a, &x, &y);
    arena_free(&a);
    return 0;
}
