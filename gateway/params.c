#include "gateway/params.h"

#include <inttypes.h>
#include <stdio.h>

#include "common/clock.h"
#include "common/options.h"
#include "common/utf8.h"

static enum status refuse(struct bad_param *bad, const char *name)
{
    bad->name = name;
    return ST_REJECT;
}

static bool is_utf8(struct text t)
{
    for (size_t at = 0; at < t.len;) {
        size_t n = t.at[at] ? utf8_sequence(t.at + at, t.len - at) : 0;

        if (n == 0)
            return false;
        at += n;
    }
    return true;
}

static enum status name_check(struct text name, struct arena *a, const char *const *known,
                              struct bad_param *bad)
{
    struct buf all = {.arena = a};
    const char *near, *typed;
    size_t n = 0;

    for (; known[n]; n++) {
        if (text_is(name, known[n]))
            return ST_OK;
        buf_printf(&all, "%s%s", n ? ", " : "", known[n]);
    }
    typed = is_utf8(name) && name.len < 64 ? arena_copy(a, name.at, name.len) : "";
    near = nearest_word(typed, known, n);
    (void)err_set(&bad->err, ST_REJECT, "unknown parameter '%s'%s%s%s%s%s", typed,
                  near ? ": did you mean " : "", near ? near : "", near ? "?" : "",
                  n ? "; known here: " : "; none is known here", n ? all.at : "");
    return refuse(bad, typed);
}

enum status params_check(const struct params *p, struct arena *a, const char *const *known,
                         struct bad_param *bad)
{
    if (p->too_many) {
        (void)err_set(&bad->err, ST_REJECT, "more than %d parameters", PARAMS_MAX);
        return refuse(bad, NULL);
    }
    for (size_t i = 0; i < p->n; i++) {
        const struct param *one = &p->at[i];

        TRY(name_check(one->name, a, known, bad));
        if (one->value.len <= PARAM_VALUE_MAX && is_utf8(one->value))
            continue;
        (void)err_set(&bad->err, ST_REJECT,
                      one->value.len > PARAM_VALUE_MAX ? "longer than 2000 bytes"
                                                       : "not UTF-8, or with a zero byte");
        return refuse(bad, arena_copy(a, one->name.at, one->name.len));
    }
    return ST_OK;
}

bool params_has(const struct params *p, const char *name)
{
    for (size_t i = 0; i < p->n; i++)
        if (text_is(p->at[i].name, name))
            return true;
    return false;
}

bool params_has_value(const struct params *p, const char *name, const char *value)
{
    for (size_t i = 0; i < p->n; i++)
        if (text_is(p->at[i].name, name) && text_is(p->at[i].value, value))
            return true;
    return false;
}

enum status params_one(const char **out, const struct params *p, struct arena *a, const char *name,
                       struct bad_param *bad)
{
    *out = NULL;
    for (size_t i = 0; i < p->n; i++) {
        if (!text_is(p->at[i].name, name))
            continue;
        if (*out) {
            (void)err_set(&bad->err, ST_REJECT, "given twice: give it once");
            return refuse(bad, name);
        }
        *out = arena_copy(a, p->at[i].value.at, p->at[i].value.len);
    }
    return ST_OK;
}

enum status params_number(int64_t *out, const struct params *p, struct arena *a, const char *name,
                          const int64_t range[2], struct bad_param *bad)
{
    const char *value;
    int64_t n = 0;
    bool good;

    TRY(params_one(&value, p, a, name, bad));
    if (!value)
        return ST_OK;
    good = *value != '\0' && strlen(value) < 12 && strspn(value, "0123456789") == strlen(value);
    for (const char *c = value; good && *c; c++)
        n = n * 10 + (*c - '0');
    if (!good || n < range[0] || n > range[1]) {
        (void)err_set(&bad->err, ST_REJECT, "write a whole number from %" PRId64 " to %" PRId64,
                      range[0], range[1]);
        return refuse(bad, name);
    }
    *out = n;
    return ST_OK;
}

enum status params_switch(bool *out, const struct params *p, struct arena *a, const char *name,
                          struct bad_param *bad)
{
    static const char *const words[] = {"0", "1", NULL};
    size_t which = *out ? 1 : 0;

    TRY(params_word(&which, p, a, name, words, bad));
    *out = which == 1;
    return ST_OK;
}

static enum status word_find(size_t *out, struct text value, const char *name,
                             const char *const *words, struct bad_param *bad)
{
    char all[300] = "";

    for (size_t i = 0; words[i]; i++) {
        size_t at = strlen(all);

        if (text_is(value, words[i])) {
            *out = i;
            return ST_OK;
        }
        (void)snprintf(all + at, sizeof(all) - at, "%s%s", i ? ", " : "", words[i]);
    }
    (void)err_set(&bad->err, ST_REJECT, "write one of: %s", all);
    return refuse(bad, name);
}

enum status params_word(size_t *out, const struct params *p, struct arena *a, const char *name,
                        const char *const *words, struct bad_param *bad)
{
    const char *value;

    TRY(params_one(&value, p, a, name, bad));
    return value ? word_find(out, text_of(value), name, words, bad) : ST_OK;
}

enum status params_words(const struct params *p, const char *name, const char *const *words,
                         struct bad_param *bad)
{
    size_t ignored;

    for (size_t i = 0; i < p->n; i++)
        if (text_is(p->at[i].name, name))
            TRY(word_find(&ignored, p->at[i].value, name, words, bad));
    return ST_OK;
}

/* ---- as SQL ---- */

struct sql sql_new(struct arena *a)
{
    return (struct sql){.arena = a, .text = {.arena = a}};
}

const char *sql_param(struct sql *s, const char *value)
{
    pg_param_text(&s->params, value);
    return arena_printf(s->arena, "$%d", s->params.n);
}

void sql_expand(struct buf *out, const char *pattern, const char *value)
{
    for (;;) {
        size_t len = strcspn(pattern, "@");

        buf_append(out, pattern, len);
        if (pattern[len] == '\0')
            return;
        buf_str(out, value);
        pattern += len + 1;
    }
}

void sql_filter(struct sql *s, const struct params *p, const char *name, const char *column)
{
    struct pg_array values;
    bool null = false;

    if (!params_has(p, name))
        return;
    pg_array_open(&values, s->arena);
    for (size_t i = 0; i < p->n; i++) {
        if (!text_is(p->at[i].name, name))
            continue;
        if (p->at[i].value.len == 0)
            null = true;
        else
            pg_array_text(&values, p->at[i].value);
    }
    buf_printf(&s->text, " AND (%s = ANY(%s::text[])", column,
               sql_param(s, pg_array_close(&values)));
    if (null)
        buf_printf(&s->text, " OR %s IS NULL", column);
    buf_str(&s->text, ")");
}

/* A zone's name. Postgres also takes "UTC+3", whose sign means the opposite of what people read. */
static bool is_zone(const char *s)
{
    bool letter = true; /* must come next */

    if (strlen(s) > 60)
        return false;
    for (; *s; s++) {
        bool alpha = (*s >= 'A' && *s <= 'Z') || (*s >= 'a' && *s <= 'z');

        if (letter && !alpha)
            return false;
        if (!alpha && !strchr("_-/", *s))
            return false;
        letter = *s == '/';
    }
    return !letter;
}

/* "2026-11-01", "today" and "yesterday" are days of the zone; moments are moments. */
static enum status moment(const char **out, struct span_sql *span, struct sql *s,
                          const struct params *p, const char *name, struct bad_param *bad)
{
    char text[TIME_TEXT_MAX];
    const char *typed;
    int64_t us;

    *out = NULL;
    TRY(params_one(&typed, p, s->arena, name, bad));
    if (!typed)
        return ST_OK;
    if (time_parse_since(&us, text_of(typed), clock_utc_us(), &bad->err) != ST_OK)
        return refuse(bad, name);
    us = time_floor_us(us, 1); /* askers of one moment ask the same (flight.h) */
    if (strcmp(typed, "today") == 0 || strcmp(typed, "yesterday") == 0)
        *out = arena_printf(s->arena,
                            "((date_trunc('day', now() AT TIME ZONE %s) - interval '%d days') AT "
                            "TIME ZONE %s)",
                            span->zone, typed[0] == 't' ? 0 : 1, span->zone);
    else if (strlen(typed) == strlen("2026-11-01") && typed[4] == '-')
        *out = arena_printf(s->arena, "(%s::timestamp AT TIME ZONE %s)", sql_param(s, typed),
                            span->zone);
    else {
        *out = arena_printf(s->arena, "%s::timestamptz",
                            sql_param(s, arena_printf(s->arena, "%s", time_format(text, us))));
        span->by_days = false;
    }
    return ST_OK;
}

enum status sql_span(struct span_sql *out, struct sql *s, const struct params *p, bool thirty_days,
                     struct bad_param *bad)
{
    const char *zone;

    TRY(params_one(&zone, p, s->arena, "tz", bad));
    if (zone && !is_zone(zone)) {
        (void)err_set(&bad->err, ST_REJECT,
                      "write a zone's name, as Europe/Berlin, America/New_York or UTC");
        return refuse(bad, "tz");
    }
    out->zone = arena_printf(s->arena, "%s::text", sql_param(s, zone ? zone : "UTC"));
    out->by_days = true;
    TRY(moment(&out->from, out, s, p, "from", bad));
    TRY(moment(&out->to, out, s, p, "to", bad));
    if (!out->from && thirty_days) /* of the calendar, today among them */
        out->from = arena_printf(s->arena,
                                 "((date_trunc('day', now() AT TIME ZONE %s) - interval '29 days') "
                                 "AT TIME ZONE %s)",
                                 out->zone, out->zone);
    return ST_OK;
}
