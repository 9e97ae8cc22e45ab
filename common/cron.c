#include "common/cron.h"

#include <stddef.h>
#include <strings.h>
#include <time.h>

#include "common/clock.h"
#include "common/utf8.h"

struct field {
    const char *name;
    int least, most;
    const char *const *words; /* names of the values from `least` on; NULL = none */
    int n_words;
};

static const char *const month_words[] = {"jan", "feb", "mar", "apr", "may", "jun",
                                          "jul", "aug", "sep", "oct", "nov", "dec"};
static const char *const weekday_words[] = {"sun", "mon", "tue", "wed", "thu", "fri", "sat"};

static const struct field fields[] = {
    {"minute", 0, 59, NULL, 0},
    {"hour", 0, 23, NULL, 0},
    {"day of month", 1, 31, NULL, 0},
    {"month", 1, 12, month_words, 12},
    {"day of week", 0, 7, weekday_words, 7},
};
#define N_FIELDS (sizeof(fields) / sizeof(fields[0]))

static const struct {
    const char *name, *stands_for;
} nicknames[] = {
    {"@hourly", "0 * * * *"},   {"@daily", "0 0 * * *"},   {"@midnight", "0 0 * * *"},
    {"@weekly", "0 0 * * 0"},   {"@monthly", "0 0 1 * *"}, {"@yearly", "0 0 1 1 *"},
    {"@annually", "0 0 1 1 *"},
};

struct reader {
    struct text all;
    size_t at;
    struct err *err;
};

static bool at_end(const struct reader *r)
{
    return r->at == r->all.len;
}

static char peek(const struct reader *r)
{
    if (at_end(r))
        return '\0';
    return r->all.at[r->at];
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static bool take(struct reader *r, char c)
{
    if (at_end(r) || peek(r) != c)
        return false;
    r->at++;
    return true;
}

static enum status refuse(const struct reader *r, size_t at, const struct field *f, const char *why)
{
    if (f->words)
        return err_set(r->err, ST_REJECT,
                       "cron expression, column %zu, %s: %s; allowed are %d-%d, %s-%s and *, with "
                       "lists (1,3), ranges (1-5) and steps (*/2)",
                       at + 1, f->name, why, f->least, f->most, f->words[0],
                       f->words[f->n_words - 1]);
    return err_set(r->err, ST_REJECT,
                   "cron expression, column %zu, %s: %s; allowed are %d-%d and *, with lists "
                   "(1,3), ranges (1-5) and steps (*/2)",
                   at + 1, f->name, why, f->least, f->most);
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_letter(char c)
{
    return (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
}

static enum status read_number(struct reader *r, const struct field *f, int *out)
{
    size_t start = r->at;
    int value = 0;

    while (is_digit(peek(r))) {
        value = value * 10 + (peek(r) - '0');
        r->at++;
        if (value > 1000)
            return refuse(r, start, f, "too large");
    }
    if (r->at == start)
        return refuse(r, start, f, at_end(r) ? "a value is missing" : "not a value");
    *out = value;
    return ST_OK;
}

static enum status read_value(struct reader *r, const struct field *f, int *out)
{
    size_t start = r->at;

    if (is_letter(peek(r)) && f->words) {
        while (is_letter(peek(r)))
            r->at++;
        for (int i = 0; i < f->n_words; i++) {
            if (r->at - start == 3 && strncasecmp(r->all.at + start, f->words[i], 3) == 0) {
                *out = f->least + i;
                return ST_OK;
            }
        }
        return refuse(r, start, f, "unknown name");
    }
    TRY(read_number(r, f, out));
    if (*out < f->least || *out > f->most)
        return refuse(r, start, f, "out of range");
    return ST_OK;
}

/* One part of a list: "*", "5", "1-5", each with or without "/n". */
static enum status read_part(struct reader *r, const struct field *f, uint64_t *bits)
{
    size_t start = r->at;
    int last = f->most == 7 ? 6 : f->most; /* 7 is Sunday again */
    int from = f->least, to = last, step = 1;
    bool open = true; /* "5/10" goes on to the end of the range */

    if (!take(r, '*')) {
        TRY(read_value(r, f, &from));
        to = from;
        if (take(r, '-')) {
            open = false;
            TRY(read_value(r, f, &to));
            if (f->most == 7 && to == 0 && from > 0)
                to = 7; /* fri-sun */
            if (to < from)
                return refuse(r, start, f, "the range ends before it begins");
        }
    }
    if (take(r, '/')) {
        size_t at = r->at;
        TRY(read_number(r, f, &step));
        if (step < 1 || step > f->most)
            return refuse(r, at, f, "the step is out of range");
        if (open) {
            from = from > last ? f->least : from; /* "7/2" is "0/2" */
            to = last;
        }
    }
    for (int v = from; v <= to; v += step)
        *bits |= UINT64_C(1) << (f->most == 7 ? v % 7 : v);
    return ST_OK;
}

static enum status read_field(struct reader *r, const struct field *f, uint64_t *bits, bool *any)
{
    while (is_blank(peek(r)))
        r->at++;
    *bits = 0;
    *any = peek(r) == '*'; /* as crontab(5): also with a step */
    do {
        TRY(read_part(r, f, bits));
    } while (take(r, ','));
    if (!at_end(r) && !is_blank(peek(r)))
        return refuse(r, r->at, f, "unexpected character");
    return ST_OK;
}

/* Whether some day of the allowed months can be one of the allowed days (29 February counts). */
static bool has_a_date(const struct cron *c)
{
    static const int lengths[] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};

    if (c->any_day || !c->any_weekday)
        return true;
    for (int month = 1; month <= 12; month++) {
        uint32_t days = (uint32_t)((UINT64_C(1) << (lengths[month - 1] + 1)) - 1);
        if ((c->months & (1U << month)) && (c->days & days))
            return true;
    }
    return false;
}

static struct text trimmed(struct text t, size_t *skipped)
{
    *skipped = 0;
    while (t.len > 0 && is_blank(t.at[t.len - 1]))
        t.len--;
    while (*skipped < t.len && is_blank(t.at[*skipped]))
        (*skipped)++;
    return t;
}

static enum status nickname_find(struct text *t, size_t start, struct err *err)
{
    for (size_t i = 0; i < sizeof(nicknames) / sizeof(nicknames[0]); i++) {
        struct text name = text_of(nicknames[i].name);
        if (t->len - start == name.len && strncasecmp(t->at + start, name.at, name.len) == 0) {
            *t = text_of(nicknames[i].stands_for);
            return ST_OK;
        }
    }
    return err_set(err, ST_REJECT,
                   "cron expression, column %zu: unknown name; known are @hourly @daily @midnight "
                   "@weekly @monthly @yearly @annually",
                   start + 1);
}

enum status cron_parse(struct cron *out, struct text t, struct err *err)
{
    uint64_t bits[N_FIELDS];
    bool any[N_FIELDS];
    struct reader r = {.err = err};
    struct cron c;
    struct text written = t;
    size_t start;

    t = trimmed(t, &start);
    if (start < t.len && t.at[start] == '@')
        TRY(nickname_find(&t, start, err));
    r.all = t;
    for (size_t i = 0; i < N_FIELDS; i++)
        TRY(read_field(&r, &fields[i], &bits[i], &any[i]));
    while (is_blank(peek(&r)))
        r.at++;
    if (!at_end(&r))
        return err_set(err, ST_REJECT,
                       "cron expression, column %zu: more than the five fields minute, hour, day "
                       "of month, month, day of week",
                       r.at + 1);
    c = (struct cron){bits[0],
                      (uint32_t)bits[1],
                      (uint32_t)bits[2],
                      (uint16_t)bits[3],
                      (uint8_t)bits[4],
                      any[2],
                      any[4],
                      {0}};
    written.len = utf8_cut(written.at, written.len, sizeof(c.text) - 1);
    memcpy(c.text, written.at, written.len);
    if (!has_a_date(&c))
        return err_set(err, ST_REJECT,
                       "cron expression, column 1: no date ever matches: none of its months has "
                       "such a day of month");
    *out = c;
    return ST_OK;
}

static bool day_matches(const struct cron *c, const struct tm *tm)
{
    bool day = c->days & (1U << tm->tm_mday), weekday = c->weekdays & (1U << tm->tm_wday);

    if (c->any_day || c->any_weekday)
        return day && weekday;
    return day || weekday;
}

/* The steps to the first bit that is set from `from` on; -1: none is. */
static int64_t steps_to(uint64_t bits, int from)
{
    uint64_t left = bits >> from;

    return left ? __builtin_ctzll(left) : -1;
}

int64_t cron_next_us(const struct cron *c, int64_t t_us)
{
    /* Months first, then days, so that 29 February costs at most 96 steps and a month's days
     * (1897-1904, 2097-2104). */
    int64_t at_s = time_floor_us(t_us, 60) / US_PER_S + 60;

    for (;;) {
        time_t s = (time_t)at_s;
        struct tm tm;
        int64_t steps, into_hour_s;

        gmtime_r(&s, &tm);
        into_hour_s = INT64_C(60) * tm.tm_min;
        if (!(c->months & (1U << (tm.tm_mon + 1)))) {
            struct tm next = {.tm_year = tm.tm_year, .tm_mon = tm.tm_mon + 1, .tm_mday = 1};
            at_s = timegm(&next);
        } else if (!day_matches(c, &tm) || (steps = steps_to(c->hours, tm.tm_hour)) < 0) {
            at_s += (INT64_C(24) - tm.tm_hour) * 3600 - into_hour_s;
        } else if (steps > 0) {
            at_s += steps * 3600 - into_hour_s;
        } else if ((steps = steps_to(c->minutes, tm.tm_min)) < 0) {
            at_s += 3600 - into_hour_s;
        } else {
            return (at_s + steps * 60) * US_PER_S;
        }
    }
}
