/* bench.h - what the benchmark programs share: a clock, and failing aloud. */
#ifndef UF_BENCH_H
#define UF_BENCH_H

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "common/clock.h"
#include "common/status.h"

static inline _Noreturn void give_up(const char *why)
{
    (void)fprintf(stderr, "bench: %s\n", why);
    exit(1);
}

static inline void must(enum status st, const struct err *err)
{
    if (st == ST_OK)
        return;
    give_up(err->text);
}

static inline double seconds_since(int64_t mono_us)
{
    return (double)(clock_mono_us() - mono_us) / 1e6;
}

/* Of this process, user and system. */
static inline double cpu_seconds(void)
{
    struct rusage used;

    if (getrusage(RUSAGE_SELF, &used) < 0)
        abort();
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

/* One pair of one figure, for tests/bench/run: name, ours, limit. */
static inline void report(const char *figure, double ours, double limit)
{
    (void)printf("%s\t%.6g\t%.6g\n", figure, ours, limit);
    (void)fflush(stdout);
}

#endif
