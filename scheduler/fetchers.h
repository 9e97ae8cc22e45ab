/* fetchers.h - who may be given a job: the fetchers that are alive, and their credit. */
#ifndef UF_FETCHERS_H
#define UF_FETCHERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/wire.h"

#define FETCHERS_MAX           256
#define FETCHER_SILENCE_MAX_US (INT64_C(10) * 1000000) /* signs of life come each second */

struct fetcher {
    char instance[64]; /* its routing id on the jobs link */
    uint32_t capacity; /* as it said last; 0: it wants nothing more */
    uint32_t held;     /* jobs sent to it and not told as done */
    bool full;         /* its link takes no more: until it tells of something done, or lives */
    int64_t seen_us;   /* monotonic */
};

struct fetchers {
    struct fetcher list[FETCHERS_MAX];
    size_t n;
    int64_t silence_us; /* who says nothing for so long is gone */
};

/* A sign of life. Answers NULL when there are too many, or the name is too long. */
struct fetcher *fetchers_seen(struct fetchers *f, struct text routing_id, uint32_t capacity,
                              int64_t mono_us);
struct fetcher *fetchers_find(struct fetchers *f, const char *instance);
/* The one with the least to do for its size, or NULL when nobody has credit. */
struct fetcher *fetchers_pick(struct fetchers *f);
/* Jobs that could be sent now. */
size_t fetchers_credit(const struct fetchers *f);
/* Takes out one that has been silent for too long and tells its name in `gone`; false: none. */
bool fetchers_drop_silent(struct fetchers *f, int64_t mono_us, char gone[64]);
void fetchers_drop(struct fetchers *f, const char *instance);

#endif
