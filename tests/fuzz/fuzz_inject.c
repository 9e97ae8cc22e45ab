/* A file of injections, line by line, as usagectl inject --file reads it; and CSV alone. */
#include "cli/inject.h"
#include "cli/table.h"
#include "common/clock.h"
#include "tests/fuzz/fuzz.h"

#define NOW_US (INT64_C(1793923200) * US_PER_S)

static void check_line(struct arena *a, struct text line)
{
    char *copy = malloc(line.len + 1); /* ends with a NUL, as read_list makes it */
    struct text fields[8];
    struct injection in;
    struct err err;
    size_t n;

    HOLDS(copy);
    memcpy(copy, line.at, line.len);
    copy[line.len] = '\0';
    line.at = copy;
    if (injection_parse(&in, a, line, NOW_US, &err) == ST_OK) {
        HOLDS(in.account && in.account[0]);
        HOLDS(!in.feed || in.feed[0]);
        HOLDS(in.from_us < in.to_us && in.from_us >= 0 && in.from_us < NOW_US);
        HOLDS(in.from_us % US_PER_S == 0 && in.to_us % US_PER_S == 0);
    }
    if (csv_split(fields, &n, 8, a, line, &err) == ST_OK)
        HOLDS(n <= 8);
    HOLDS(fuzz_storable(text_of(terminal_text(a, line))));
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct arena *a = arena_new();
    struct text rest = fuzz_text(data, len), line;

    while (line_next(&line, &rest)) {
        check_line(a, line);
        arena_reset(a);
    }
    arena_free(&a);
    return 0;
}
