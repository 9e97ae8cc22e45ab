/* clock.h - time as int64 microseconds since 1970-01-01T00:00:00Z; durations on the monotonic
 * clock. */
#ifndef UF_CLOCK_H
#define UF_CLOCK_H

#include <stdint.h>

#include "common/arena.h"
#include "common/status.h"
#include "common/text.h"

#define US_PER_MS  INT64_C(1000)
#define US_PER_S   INT64_C(1000000)
#define US_PER_DAY (INT64_C(86400) * US_PER_S)

int64_t clock_utc_us(void);  /* CLOCK_REALTIME */
int64_t clock_mono_us(void); /* CLOCK_MONOTONIC */

/* Down and up to a multiple of `width_s` seconds since the epoch, for times before it too. */
int64_t time_floor_us(int64_t t_us, int64_t width_s);
int64_t time_ceil_us(int64_t t_us, int64_t width_s);

/* "2026-11-01T00:00:00Z", "2026-11-01T02:00:00.25+02:00", "2026-11-01 00:00Z", "2026-11-01" (UTC
 * midnight). A date-time without a zone is refused, because nobody can know whose clock was meant.
 * ST_REJECT: any other text; err shows the accepted forms. Range: years 1970 to 9999. */
enum status time_parse(int64_t *out_us, struct text t, struct err *err) CHECKED;

/* As time_parse, and also "now", "today", "yesterday" and "7d", "36h", "90m", "2w" ago. `now_us` is
 * the clock. */
enum status time_parse_since(int64_t *out_us, struct text t, int64_t now_us,
                             struct err *err) CHECKED;

/* "90s" "15m" "2h" "7d" "1w", whole numbers, several parts allowed ("1h30m"); no unit is refused,
 * but "0" is fine. Seconds. ST_REJECT: anything else. */
enum status duration_parse(int64_t *out_s, struct text t, struct err *err) CHECKED;

/* RFC 3339 in UTC: "2026-11-01T00:00:00Z", with ".123456" only when not whole seconds. */
#define TIME_TEXT_MAX 40
const char *time_format(char out[TIME_TEXT_MAX], int64_t t_us);
/* "1h30m", "7d", "45s": what duration_parse reads back. */
const char *duration_format(char out[TIME_TEXT_MAX], int64_t s);

/* RFC 9110 HTTP date (the IMF form, and the two obsolete ones) -> seconds since the epoch, or -1.
 */
int64_t http_date_parse(struct text t);

#endif
