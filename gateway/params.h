/* params.h - the query string: what may be in it, and how it becomes part of a statement. */
#ifndef UF_GATEWAY_PARAMS_H
#define UF_GATEWAY_PARAMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/arena.h"
#include "common/pg.h"
#include "common/status.h"
#include "common/text.h"

#define PARAMS_MAX      64
#define PARAM_VALUE_MAX 2000

struct param {
    struct text name, value; /* decoded; value "" when there was none */
};
struct params {
    struct param at[PARAMS_MAX];
    size_t n;
    bool too_many;
};

/* What is wrong with a parameter. */
struct bad_param {
    const char *name; /* NULL: with the query string as a whole */
    struct err err;
};

/* Every name must be one of `known` (NULL-terminated), every text UTF-8 and not too long.
 * ST_REJECT: err says what is meant instead. */
enum status params_check(const struct params *p, struct arena *a, const char *const *known,
                         struct bad_param *bad) CHECKED;

/* The one value of a parameter, NUL-terminated; NULL: not there. ST_REJECT: it is there twice. */
enum status params_one(const char **out, const struct params *p, struct arena *a, const char *name,
                       struct bad_param *bad) CHECKED;

/* A whole number in [least, most]; untouched when it is not there. */
enum status params_number(int64_t *out, const struct params *p, struct arena *a, const char *name,
                          const int64_t range[2], struct bad_param *bad) CHECKED;
/* "1" or "0"; untouched when it is not there. */
enum status params_switch(bool *out, const struct params *p, struct arena *a, const char *name,
                          struct bad_param *bad) CHECKED;
/* One of `words` (NULL-terminated), as its index; untouched when it is not there. */
enum status params_word(size_t *out, const struct params *p, struct arena *a, const char *name,
                        const char *const *words, struct bad_param *bad) CHECKED;
/* Each value must be one of `words`. */
enum status params_words(const struct params *p, const char *name, const char *const *words,
                         struct bad_param *bad) CHECKED;

bool params_has(const struct params *p, const char *name);
bool params_has_value(const struct params *p, const char *name, const char *value);

/* A statement being written. */
struct sql {
    struct arena *arena;
    struct buf text;
    struct pg_params params;
};
struct sql sql_new(struct arena *a);
/* "$3", whose value is `value`. In the arena. */
const char *sql_param(struct sql *s, const char *value);

/* `pattern` with `value` for each '@'. */
void sql_expand(struct buf *out, const char *pattern, const char *value);

/* " AND column = any of its values", for a parameter that may come several times; an empty value is
 * null. Nothing when it is not there. `column` is SQL of type text. */
void sql_filter(struct sql *s, const struct params *p, const char *name, const char *column);

/* from, to and tz. `zone`, `from`, `to` are SQL: a text and timestamptz; `to` NULL: no bound. */
struct span_sql {
    const char *zone, *from, *to;
    bool by_days; /* it begins and ends with days of the zone */
};
/* `thirty_days`: without a `from` it is that long ago, in days of the zone; else there is no bound.
 */
enum status sql_span(struct span_sql *out, struct sql *s, const struct params *p, bool thirty_days,
                     struct bad_param *bad) CHECKED;

#endif
