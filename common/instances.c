#include "common/instances.h"

#include <stdlib.h>
#include <string.h>

#include "common/arena.h"
#include "common/clock.h"

#define HISTORY 64 /* pulses: a minute, and a little */

const struct stage_kind stage_kinds[] = {
    {STAGE_SCHEDULER, "scheduler", M_ACCOUNTS_DUE, "accounts due", true, M_JOBS_SETTLED, "jobs"},
    {STAGE_FETCHER, "fetcher", M_JOBS_HELD, "jobs held", false, M_REQUESTS, "requests"},
    {STAGE_NORMALIZER, "normalizer", N_METRICS, NULL, false, M_RECORDS_MADE, "records"},
    {STAGE_WRITER, "writer", M_PAGES_WAITING, "pages waiting", false, M_ROWS_WRITTEN, "rows"},
};
const size_t n_stage_kinds = sizeof(stage_kinds) / sizeof(stage_kinds[0]);

/* The sums of one pulse. */
struct moment {
    int64_t mono_us;
    int64_t totals[N_METRICS];
};

struct instance {
    struct arena *arena; /* of the newest pulse */
    const struct pulse_seen *seen;
    int64_t heard_us;
    struct moment history[HISTORY]; /* a ring; the newest is at (n - 1) % HISTORY */
    size_t n;
};

struct instances {
    struct instance *list[INSTANCES_MAX];
    size_t n;
    struct arena *spare; /* the next pulse is read into it */
};

struct instances *instances_new(void)
{
    struct instances *in = xalloc(1, sizeof(*in));

    in->spare = arena_new();
    return in;
}

static void instance_free(struct instance *i)
{
    arena_free(&i->arena);
    free(i);
}

void instances_free(struct instances **in)
{
    if (!*in)
        return;
    for (size_t i = 0; i < (*in)->n; i++)
        instance_free((*in)->list[i]);
    arena_free(&(*in)->spare);
    free(*in);
    *in = NULL;
}

/* ---- the list ---- */

/* stage_mask's bits are in the order of the pipeline. */
static int compare(const struct pulse_seen *a, const struct pulse_seen *b)
{
    struct text x = a->message->instance, y = b->message->instance;
    int by_name;

    if (a->stage != b->stage)
        return a->stage < b->stage ? -1 : 1;
    by_name = memcmp(x.at, y.at, x.len < y.len ? x.len : y.len);
    return by_name != 0 ? by_name : (x.len > y.len) - (x.len < y.len);
}

/* Where it is, or where it belongs. */
static size_t place(const struct instances *in, const struct pulse_seen *seen, bool *found)
{
    size_t i = 0;

    while (i < in->n && compare(in->list[i]->seen, seen) < 0)
        i++;
    *found = i < in->n && compare(in->list[i]->seen, seen) == 0;
    return i;
}

static void take_out(struct instances *in, size_t i)
{
    instance_free(in->list[i]);
    in->n--;
    for (; i < in->n; i++)
        in->list[i] = in->list[i + 1];
}

static void put_in(struct instances *in, size_t i)
{
    for (size_t k = in->n++; k > i; k--)
        in->list[k] = in->list[k - 1];
    in->list[i] = xalloc(1, sizeof(struct instance));
    in->list[i]->arena = arena_new();
}

static void remember(struct instance *i, int64_t mono_us)
{
    struct moment *now = &i->history[i->n++ % HISTORY];

    *now = (struct moment){.mono_us = mono_us};
    for (size_t s = 0; s < i->seen->n_samples; s++) {
        int64_t *total = &now->totals[i->seen->samples[s].metric];
        if (__builtin_add_overflow(*total, i->seen->samples[s].value, total))
            *total = INT64_MAX;
    }
}

enum status instances_take(struct instances *in, struct text msg, int64_t mono_us, struct err *err)
{
    const struct pulse_seen *seen = NULL;
    struct arena *old;
    struct instance *i;
    bool found;
    size_t at;

    arena_reset(in->spare);
    TRY(pulse_decode(&seen, in->spare, arena_text(in->spare, msg), err));
    at = place(in, seen, &found);
    if (seen->message->leaving) {
        if (found)
            take_out(in, at);
        return ST_OK;
    }
    if (!found && in->n == INSTANCES_MAX)
        return err_set(err, ST_REJECT, "pulse: more than %d processes: %.*s is not watched",
                       INSTANCES_MAX, (int)seen->message->instance.len, seen->message->instance.at);
    if (!found)
        put_in(in, at);
    i = in->list[at];
    /* a new life under an old name counts from 0 again */
    if (found && i->seen->message->started_us != seen->message->started_us)
        i->n = 0;
    old = i->arena;
    i->arena = in->spare;
    in->spare = old;
    i->seen = seen;
    i->heard_us = mono_us;
    remember(i, mono_us);
    return ST_OK;
}

size_t instances_forget(struct instances *in, int64_t mono_us)
{
    size_t gone = 0;

    for (size_t i = in->n; i-- > 0;) {
        if (instance_silent_us(in->list[i], mono_us) < PULSE_FORGET_US)
            continue;
        take_out(in, i);
        gone++;
    }
    return gone;
}

size_t instances_count(const struct instances *in)
{
    return in->n;
}

const struct instance *instances_at(const struct instances *in, size_t i)
{
    return in->list[i];
}

/* ---- one of them ---- */

const struct pulse_seen *instance_pulse(const struct instance *i)
{
    return i->seen;
}

int64_t instance_silent_us(const struct instance *i, int64_t mono_us)
{
    return mono_us > i->heard_us ? mono_us - i->heard_us : 0;
}

bool instance_fresh(const struct instance *i, int64_t mono_us)
{
    return instance_silent_us(i, mono_us) < PULSE_FRESH_US;
}

unsigned instance_stage(const struct instance *i)
{
    return i->seen->stage;
}

bool instance_has(const struct instance *i, enum metric m)
{
    return (metrics[m].stages & i->seen->stage) != 0;
}

int64_t instance_total(const struct instance *i, enum metric m)
{
    return i->history[(i->n - 1) % HISTORY].totals[m];
}

int64_t instance_total_of(const struct instance *i, enum metric m, const char *label)
{
    int64_t total = 0;

    for (size_t s = 0; s < i->seen->n_samples; s++) {
        const struct pulse_sample *sample = &i->seen->samples[s];
        if (sample->metric == m &&
            (text_is(sample->labels[0], label) || text_is(sample->labels[1], label)) &&
            __builtin_add_overflow(total, sample->value, &total))
            return INT64_MAX;
    }
    return total;
}

int64_t instance_time_us(const struct instance *i, enum metric m)
{
    int64_t total = 0;

    for (size_t s = 0; s < i->seen->n_samples; s++) {
        const struct pulse_sample *sample = &i->seen->samples[s];
        if (sample->metric == m && sample->histogram &&
            __builtin_add_overflow(total, sample->histogram[PULSE_BOUNDS + 1], &total))
            return INT64_MAX;
    }
    return total;
}

const struct stage_kind *stage_kind_of(const struct instance *i)
{
    const struct stage_kind *kind = stage_kinds;

    while (kind->stage != i->seen->stage) /* pulse_decode lets no other through */
        kind++;
    return kind;
}

double instance_rate(const struct instance *i, enum metric m, int64_t window_s, int64_t mono_us)
{
    const struct moment *newest = &i->history[(i->n - 1) % HISTORY], *from = newest;
    size_t known = i->n < HISTORY ? i->n : HISTORY;

    if (!instance_fresh(i, mono_us))
        return 0;
    for (size_t back = 1; back < known; back++) {
        from = &i->history[(i->n - 1 - back) % HISTORY];
        if (newest->mono_us - from->mono_us >= window_s * US_PER_S)
            break;
    }
    if (from->mono_us == newest->mono_us || newest->totals[m] < from->totals[m])
        return 0;
    return (double)(newest->totals[m] - from->totals[m]) * (double)US_PER_S /
           (double)(newest->mono_us - from->mono_us);
}

struct stage_sum instances_sum(const struct instances *in, const struct stage_kind *kind,
                               int64_t mono_us)
{
    struct stage_sum sum = {0};

    for (size_t k = 0; k < in->n; k++) {
        const struct instance *i = in->list[k];
        int64_t queue = kind->queue < N_METRICS ? instance_total(i, kind->queue) : 0;
        if (instance_stage(i) != kind->stage)
            continue;
        sum.n++;
        sum.n_fresh += instance_fresh(i, mono_us);
        sum.queue = !kind->queue_shared ? sum.queue + queue : queue > sum.queue ? queue : sum.queue;
        sum.work_10s += instance_rate(i, kind->work, 10, mono_us);
        sum.work_60s += instance_rate(i, kind->work, 60, mono_us);
        sum.warnings += instance_total_of(i, M_LOG_LINES, "warn");
        sum.errors += instance_total_of(i, M_LOG_LINES, "error");
    }
    return sum;
}
