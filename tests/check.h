/* check.h - for tables of cases: a row that fails says its name, what came and what was wanted, and
 * the rows after it still run. */
#ifndef UF_CHECK_H
#define UF_CHECK_H

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define ROWS(table) (sizeof(table) / sizeof((table)[0]))

static inline bool same_str(const char *name, const char *got, const char *want)
{
    if (got == want || (got && want && strcmp(got, want) == 0))
        return true;
    print_error("%s: got %s, want %s\n", name, got ? got : "(null)", want ? want : "(null)");
    return false;
}

static inline bool same_int(const char *name, int64_t got, int64_t want)
{
    if (got == want)
        return true;
    print_error("%s: got %" PRId64 ", want %" PRId64 "\n", name, got, want);
    return false;
}

/* A message need only hold the words that help. */
static inline bool has_words(const char *name, const char *got, const char *words)
{
    if (!words || strstr(got, words))
        return true;
    print_error("%s: got \"%s\", want in it \"%s\"\n", name, got, words);
    return false;
}

#endif
