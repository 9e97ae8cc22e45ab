#include "common/clock.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <time.h>

#define TIME_FORMS     "write \"2026-11-01\", \"2026-11-01T00:00:00Z\" or \"2026-11-01T02:00:00+02:00\""
#define DURATION_FORMS "write \"90s\", \"15m\", \"2h\", \"7d\", \"1w\" or \"1h30m\""
#define END_OF_9999_S  INT64_C(253402300800)
#define SHOWN(t)       (int)((t).len < 40 ? (t).len : 40), (t).at ? (t).at : ""

static int64_t clock_us(clockid_t id)
{
    struct timespec t;

    clock_gettime(id, &t);
    return (int64_t)t.tv_sec * US_PER_S + t.tv_nsec / 1000;
}

int64_t clock_utc_us(void)
{
    return clock_us(CLOCK_REALTIME);
}

int64_t clock_mono_us(void)
{
    return clock_us(CLOCK_MONOTONIC);
}

int64_t time_floor_us(int64_t t_us, int64_t width_s)
{
    int64_t width_us = width_s * US_PER_S;
    int64_t over = t_us % width_us;

    return t_us - (over < 0 ? over + width_us : over);
}

int64_t time_ceil_us(int64_t t_us, int64_t width_s)
{
    int64_t down = time_floor_us(t_us, width_s);

    return down == t_us ? down : down + width_s * US_PER_S;
}

/* Reads exactly `n` digits off the front of `t`. */
static bool take_digits(struct text *t, size_t n, int *out)
{
    int value = 0;

    if (t->len < n)
        return false;
    for (size_t i = 0; i < n; i++) {
        if (t->at[i] < '0' || t->at[i] > '9')
            return false;
        value = value * 10 + (t->at[i] - '0');
    }
    t->at += n;
    t->len -= n;
    *out = value;
    return true;
}

static bool take_char(struct text *t, const char *any_of)
{
    if (t->len == 0 || !t->at[0] || !strchr(any_of, t->at[0]))
        return false;
    t->at++;
    t->len--;
    return true;
}

/* ".25" -> 250000. What is finer than a microsecond is cut off. */
static bool take_fraction(struct text *t, int64_t *out_us)
{
    int64_t unit = US_PER_S / 10;
    size_t digits = 0;
    int d;

    *out_us = 0;
    if (!take_char(t, "."))
        return true;
    while (take_digits(t, 1, &d)) {
        *out_us += d * unit;
        unit /= 10;
        digits++;
    }
    return digits >= 1 && digits <= 9;
}

/* "Z", "+02:00" -> seconds east of UTC. */
static bool take_zone(struct text *t, int64_t *out_s)
{
    int hours, minutes;
    bool west = t->len > 0 && t->at[0] == '-';

    *out_s = 0;
    if (take_char(t, "Zz"))
        return true;
    if (!take_char(t, "+-") || !take_digits(t, 2, &hours) || !take_char(t, ":") ||
        !take_digits(t, 2, &minutes) || hours > 23 || minutes > 59)
        return false;
    *out_s = (hours * INT64_C(3600) + minutes * INT64_C(60)) * (west ? -1 : 1);
    return true;
}

/* Seconds since the epoch; false when there is no such day ("30 February"). */
static bool seconds_of(int64_t *out_s, struct tm tm)
{
    struct tm normal = tm;

    *out_s = timegm(&normal);
    return normal.tm_mday == tm.tm_mday && normal.tm_mon == tm.tm_mon;
}

enum status time_parse(int64_t *out_us, struct text t, struct err *err)
{
    struct text rest = t;
    struct tm tm = {0};
    int64_t s, fraction_us = 0, zone_s = 0;
    int year, month;

    if (!take_digits(&rest, 4, &year) || !take_char(&rest, "-") || !take_digits(&rest, 2, &month) ||
        !take_char(&rest, "-") || !take_digits(&rest, 2, &tm.tm_mday))
        return err_set(err, ST_REJECT, "\"%.*s\" is no time: " TIME_FORMS, SHOWN(t));
    if (rest.len > 0) {
        if (!take_char(&rest, "Tt ") || !take_digits(&rest, 2, &tm.tm_hour) ||
            !take_char(&rest, ":") || !take_digits(&rest, 2, &tm.tm_min) ||
            (take_char(&rest, ":") &&
             (!take_digits(&rest, 2, &tm.tm_sec) || !take_fraction(&rest, &fraction_us))))
            return err_set(err, ST_REJECT, "\"%.*s\" is no time: " TIME_FORMS, SHOWN(t));
        if (rest.len == 0)
            return err_set(err, ST_REJECT,
                           "\"%.*s\" has no time zone: add Z for UTC, or an offset as in +02:00",
                           SHOWN(t));
        if (!take_zone(&rest, &zone_s) || rest.len > 0)
            return err_set(err, ST_REJECT, "\"%.*s\" is no time: " TIME_FORMS, SHOWN(t));
    }
    tm.tm_year = year - 1900;
    tm.tm_mon = month - 1;
    if (month < 1 || month > 12 || tm.tm_hour > 23 || tm.tm_min > 59 || tm.tm_sec > 59 ||
        !seconds_of(&s, tm))
        return err_set(err, ST_REJECT, "\"%.*s\": there is no such day or time of day", SHOWN(t));
    s -= zone_s;
    if (year < 1970 || s < 0 || s >= END_OF_9999_S)
        return err_set(err, ST_REJECT, "\"%.*s\" is out of range: years 1970 to 9999", SHOWN(t));
    *out_us = s * US_PER_S + fraction_us;
    return ST_OK;
}

enum status time_parse_since(int64_t *out_us, struct text t, int64_t now_us, struct err *err)
{
    int64_t today_us = time_floor_us(now_us, US_PER_DAY / US_PER_S);
    int64_t ago_s = 0;
    struct err unused;

    if (text_is(t, "now")) {
        *out_us = now_us;
        return ST_OK;
    }
    if (text_is(t, "today")) {
        *out_us = today_us;
        return ST_OK;
    }
    if (text_is(t, "yesterday")) {
        *out_us = today_us - US_PER_DAY;
        return ST_OK;
    }
    if (time_parse(out_us, t, err) == ST_OK)
        return ST_OK;
    if (t.len > 4 && t.at[4] == '-')
        return err->status; /* it was meant as a date: its own message helps most */
    if (duration_parse(&ago_s, t, &unused) != ST_OK)
        return err_set(err, ST_REJECT,
                       "\"%.*s\" is no time: write \"now\", \"today\", \"yesterday\", \"7d\" or "
                       "\"36h\" (ago), \"2026-11-01\" or \"2026-11-01T00:00:00Z\"",
                       SHOWN(t));
    if (ago_s > now_us / US_PER_S)
        return err_set(err, ST_REJECT, "\"%.*s\" ago is before 1970", SHOWN(t));
    *out_us = now_us - ago_s * US_PER_S;
    return ST_OK;
}

static const struct {
    char letter;
    int64_t seconds;
} units[] = {{'w', 604800}, {'d', 86400}, {'h', 3600}, {'m', 60}, {'s', 1}};
#define N_UNITS (sizeof(units) / sizeof(units[0]))

/* Index of the unit's letter among those after `from`: parts go from large to small, once each. */
static size_t unit_after(char letter, size_t from)
{
    while (from < N_UNITS && units[from].letter != letter)
        from++;
    return from;
}

enum status duration_parse(int64_t *out_s, struct text t, struct err *err)
{
    struct text rest = t;
    int64_t total = 0;
    size_t unit = 0;

    if (text_is(t, "0")) {
        *out_s = 0;
        return ST_OK;
    }
    do {
        int64_t value = 0, part;
        size_t digits = 0;
        bool over = false;
        int d;

        while (take_digits(&rest, 1, &d)) {
            over = over || __builtin_mul_overflow(value, 10, &value) ||
                   __builtin_add_overflow(value, d, &value);
            digits++;
        }
        if (digits > 0 && rest.len == 0)
            return err_set(err, ST_REJECT, "\"%.*s\" has no unit: " DURATION_FORMS, SHOWN(t));
        unit = rest.len > 0 ? unit_after(rest.at[0], unit) : N_UNITS;
        if (digits == 0 || unit == N_UNITS)
            return err_set(err, ST_REJECT, "\"%.*s\" is no duration: " DURATION_FORMS, SHOWN(t));
        over = over || __builtin_mul_overflow(value, units[unit].seconds, &part) ||
               __builtin_add_overflow(total, part, &total);
        if (over || total > INT64_MAX / US_PER_S)
            return err_set(err, ST_REJECT, "\"%.*s\" is too long", SHOWN(t));
        rest.at++;
        rest.len--;
        unit++;
    } while (rest.len > 0);
    *out_s = total;
    return ST_OK;
}

const char *time_format(char out[TIME_TEXT_MAX], int64_t t_us)
{
    int64_t whole_us = time_floor_us(t_us, 1);
    time_t s = (time_t)(whole_us / US_PER_S);
    char fraction[8] = "";
    struct tm tm;

    gmtime_r(&s, &tm);
    if (t_us != whole_us)
        (void)snprintf(fraction, sizeof(fraction), ".%06d", (int)(t_us - whole_us));
    (void)snprintf(out, TIME_TEXT_MAX, "%04d-%02d-%02dT%02d:%02d:%02d%sZ", tm.tm_year + 1900,
                   tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, fraction);
    return out;
}

const char *duration_format(char out[TIME_TEXT_MAX], int64_t s)
{
    size_t at = 0;

    out[0] = '\0';
    if (s < 0) {
        out[at++] = '-';
        s = -s;
    }
    for (size_t i = 1; i < N_UNITS; i++) { /* days, not weeks: easier to compare */
        int64_t n = s / units[i].seconds;
        s %= units[i].seconds;
        if (n > 0 || (i == N_UNITS - 1 && (at == 0 || out[at - 1] == '-')))
            at +=
                (size_t)snprintf(out + at, TIME_TEXT_MAX - at, "%" PRId64 "%c", n, units[i].letter);
    }
    return out;
}

int64_t http_date_parse(struct text t)
{
    static const char *const forms[] = {
        "%a, %d %b %Y %H:%M:%S GMT", /* IMF-fixdate */
        "%A, %d-%b-%y %H:%M:%S GMT", /* RFC 850 */
        "%a %b %d %H:%M:%S %Y",      /* asctime */
    };
    char copy[64];

    if (!t.at || t.len >= sizeof(copy))
        return -1;
    memcpy(copy, t.at, t.len);
    copy[t.len] = '\0';
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        struct tm tm = {0};
        const char *end = strptime(copy, forms[i], &tm);
        int64_t s;

        if (end == copy + t.len && seconds_of(&s, tm) && s >= 0)
            return s;
    }
    return -1;
}
