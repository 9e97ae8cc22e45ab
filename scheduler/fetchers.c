#include "scheduler/fetchers.h"

#include <string.h>

struct fetcher *fetchers_find(struct fetchers *f, const char *instance)
{
    for (size_t i = 0; i < f->n; i++)
        if (strcmp(f->list[i].instance, instance) == 0)
            return &f->list[i];
    return NULL;
}

struct fetcher *fetchers_seen(struct fetchers *f, struct text routing_id, uint32_t capacity,
                              int64_t mono_us)
{
    char instance[sizeof(f->list[0].instance)];
    struct fetcher *one;

    if (routing_id.len == 0 || routing_id.len >= sizeof(instance) ||
        memchr(routing_id.at, '\0', routing_id.len))
        return NULL;
    memcpy(instance, routing_id.at, routing_id.len);
    instance[routing_id.len] = '\0';
    one = fetchers_find(f, instance);
    if (!one) {
        if (f->n == FETCHERS_MAX)
            return NULL;
        one = &f->list[f->n++];
        *one = (struct fetcher){0};
        memcpy(one->instance, instance, sizeof(instance));
    }
    one->capacity = capacity;
    one->full = false;
    one->seen_us = mono_us;
    return one;
}

static uint32_t credit(const struct fetcher *one)
{
    return one->capacity > one->held && !one->full ? one->capacity - one->held : 0;
}

struct fetcher *fetchers_pick(struct fetchers *f)
{
    struct fetcher *best = NULL;

    for (size_t i = 0; i < f->n; i++) {
        struct fetcher *one = &f->list[i];
        if (credit(one) == 0)
            continue;
        /* the smaller share of its capacity in use; compared crosswise, without dividing */
        if (!best || (uint64_t)one->held * best->capacity < (uint64_t)best->held * one->capacity)
            best = one;
    }
    return best;
}

size_t fetchers_credit(const struct fetchers *f)
{
    size_t sum = 0;

    for (size_t i = 0; i < f->n; i++)
        sum += credit(&f->list[i]);
    return sum;
}

void fetchers_drop(struct fetchers *f, const char *instance)
{
    struct fetcher *one = fetchers_find(f, instance);

    if (one)
        *one = f->list[--f->n];
}

bool fetchers_drop_silent(struct fetchers *f, int64_t mono_us, char gone[64])
{
    for (size_t i = 0; i < f->n; i++) {
        if (mono_us - f->list[i].seen_us < f->silence_us)
            continue;
        memcpy(gone, f->list[i].instance, 64);
        f->list[i] = f->list[--f->n];
        return true;
    }
    return false;
}
