/* decimal.h - money and quantities as the digits that were received: never a double, never rounded.
 */
#ifndef UF_DECIMAL_H
#define UF_DECIMAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/arena.h"
#include "common/status.h"
#include "common/text.h"

/* value = (negative ? -1 : 1) x digits x 10^-scale. Canonical: no leading zero but a single "0";
 * the scale as received is kept ("1.50" keeps its zero); zero is never negative. */
struct decimal {
    bool negative;
    struct text digits; /* "0".."9" only, at least one */
    uint32_t scale;     /* digits after the point */
};

#define DECIMAL_DIGITS_MAX 1000 /* with the exponent resolved; more is refused, not cut */

/* JSON number syntax, alone, with optional exponent; also a leading "+" is refused.
 * "0.06", "-12.50", "1e-7" -> 0.0000001, "1E+2" -> 100, "2.5e-11" -> 0.000000000025.
 * `out->digits` lives in `a`. ST_REJECT: anything else ("", " 0.5", "NaN", "1,234.50", "1.", ".5",
 * "01"). */
enum status decimal_parse(struct decimal *out, struct arena *a, struct text t,
                          struct err *err) CHECKED;

/* Whether `t` is a number as decimal_format would write it again, digit for digit: then there is no
 * need for either. Sure of a yes only: negative, very long and odd ones are left to decimal_parse.
 */
bool decimal_is_plain(struct text t);

/* Moves the point `places` to the left: cents to dollars is 2. */
void decimal_shift(struct decimal *d, uint32_t places);

/* Plain notation, as Postgres numeric reads it: "-12.50", "0.0000001". NUL-terminated, in `a`. */
struct text decimal_format(const struct decimal *d, struct arena *a);

/* a + b, exact; the larger scale. In `arena`. ST_REJECT: over DECIMAL_DIGITS_MAX. */
enum status decimal_add(struct decimal *out, struct arena *arena, const struct decimal *a,
                        const struct decimal *b, struct err *err) CHECKED;

/* Postgres binary numeric (base 10,000 digits) of plain notation as decimal_format writes it,
 * appended to `b` without a length. `t` must come from decimal_format: anything else is our bug. */
void decimal_to_pg(struct buf *b, struct text t);

/* A JSON number that must be an integer within int64: "12", "1.2e1" and "12.0" are 12.
 * ST_REJECT: a fraction, or out of range. */
enum status int64_parse(int64_t *out, struct text t, struct err *err) CHECKED;

#endif
