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

/* User and system; `who`: RUSAGE_SELF, or RUSAGE_CHILDREN of those that were waited for. */
static inline double cpu_seconds_of(int who)
{
    struct rusage used;

    if (getrusage(who, &used) < 0)
        abort();
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static inline double cpu_seconds(void)
{
    return cpu_seconds_of(RUSAGE_SELF);
}

/* One pair of one figure, for tests/bench/run: name, ours, limit. */
static inline void report(const char *figure, double ours, double limit)
{
    (void)printf("%s\t%.6g\t%.6g\n", figure, ours, limit);
    (void)fflush(stdout);
}

#endif
