/* instances.h - the processes that are alive, as their pulses tell: the newest of each, and how
 * fast its counters rise.
 *
 * Bounded: at most INSTANCES_MAX processes, one pulse and one minute of sums each. Whoever is
 * silent for PULSE_FORGET_US, or says that it leaves, is forgotten. */
#ifndef UF_INSTANCES_H
#define UF_INSTANCES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/pulse.h"
#include "common/status.h"
#include "common/text.h"

#define INSTANCES_MAX 256

struct instances;
struct instance;

struct instances *instances_new(void);
void instances_free(struct instances **in); /* accepts NULL */

/* ST_REJECT: no pulse, or one process too many; err says which. */
enum status instances_take(struct instances *in, struct text msg, int64_t mono_us,
                           struct err *err) CHECKED;
/* Drops those that are gone. Answers how many. */
size_t instances_forget(struct instances *in, int64_t mono_us);

/* Sorted in the order of the pipeline, then by name; an index is stable until the next take or
 * forget. */
size_t instances_count(const struct instances *in);
const struct instance *instances_at(const struct instances *in, size_t i);

const struct pulse_seen *instance_pulse(const struct instance *i); /* the newest */
int64_t instance_silent_us(const struct instance *i, int64_t mono_us);
bool instance_fresh(const struct instance *i, int64_t mono_us);
/* One bit of enum stage_mask. */
unsigned instance_stage(const struct instance *i);
bool instance_has(const struct instance *i, enum metric m);

/* A counter or gauge summed over its labels; of a histogram the number of observations. */
int64_t instance_total(const struct instance *i, enum metric m);
/* Only of the series that have this label value. */
int64_t instance_total_of(const struct instance *i, enum metric m, const char *label);
/* The sum of what a histogram observed. */
int64_t instance_time_us(const struct instance *i, enum metric m);
/* A second, over the last `window_s` (at most 60), or over what is known of it. 0 before the second
 * pulse, and for one that is silent. */
double instance_rate(const struct instance *i, enum metric m, int64_t window_s, int64_t mono_us);

/* What a person wants to know first of each kind of stage. */
struct stage_kind {
    unsigned stage; /* one bit of enum stage_mask */
    const char *name;
    enum metric queue; /* N_METRICS: not known */
    const char *queue_words;
    bool queue_shared; /* each instance tells the same queue: sums take the longest */
    enum metric work;
    const char *work_words; /* "requests" */
};
extern const struct stage_kind stage_kinds[];
extern const size_t n_stage_kinds;
const struct stage_kind *stage_kind_of(const struct instance *i);

/* Living instances of one kind, the sums of their queues and rates. */
struct stage_sum {
    size_t n, n_fresh;
    int64_t queue;
    double work_10s, work_60s; /* a second */
    int64_t warnings, errors;  /* log lines since their start */
};
struct stage_sum instances_sum(const struct instances *in, const struct stage_kind *kind,
                               int64_t mono_us);

#endif
