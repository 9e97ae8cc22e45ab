/* pulse.h - what a process counts, and how it tells whoever listens.
 *
 * Each process has one struct pulse: a fixed array with a cell for each series (a metric and its
 * labels). Counting is an addition; nothing is allocated. Once a second the whole is published on
 * UF_PULSE (docs/wire.md, "pulse"). Nobody has to listen, a lost pulse costs nothing since the next
 * one has the same counters, and a listener that is slow misses pulses and delays nobody.
 *
 * What is counted is one const table, `metrics`: the message, Prometheus, the dashboard and
 * "usagectl top" all come from it. */
#ifndef UF_PULSE_H
#define UF_PULSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/arena.h"
#include "common/options.h"
#include "common/status.h"
#include "common/text.h"
#include "common/wire.h"

#define PULSE_EVERY_US  (INT64_C(1) * 1000000)
#define PULSE_FRESH_US  (INT64_C(5) * 1000000)  /* silent for longer: something is wrong with it */
#define PULSE_FORGET_US (INT64_C(30) * 1000000) /* silent for longer: it is gone */

enum metric {
    M_LOG_LINES, /* every stage */
    M_LINKS_REFUSED,

    M_ACCOUNTS_DUE, /* scheduler */
    M_ACCOUNTS_CLAIMED,
    M_RUNS_STARTED,
    M_JOBS_SENT,
    M_JOBS_OUT,
    M_JOBS_SETTLED,
    M_LEASES_EXPIRED,
    M_PAGES_ACKED,
    M_FETCHERS,
    M_FETCHER_CREDIT,
    M_PAUSED,

    M_JOBS_HELD, /* fetcher */
    M_REQUESTS_IN_FLIGHT,
    M_REQUESTS,
    M_REQUEST_DURATION,
    M_BYTES_FETCHED,
    M_PAGES_FETCHED,
    M_PAGES_SAME,
    M_WINDOWS_ENDED,
    M_PAGES_BLOCKED,

    M_PAGES_NORMALIZED, /* normalizer */
    M_BYTES_NORMALIZED,
    M_RECORDS_MADE,
    M_PAGES_DEAD,
    M_ROWS_SET_ASIDE,
    M_RECORDS_BLOCKED,

    M_PAGES_WAITING, /* writer */
    M_BATCHES,
    M_COMMIT_DURATION,
    M_ROWS_WRITTEN,
    M_PAGES_WRITTEN,
    M_ACKS_WAITING,

    M_POSTGRES_UP, /* scheduler, writer */
    M_POSTGRES_RETRIES,

    N_METRICS,
};

enum metric_kind { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };

#define METRIC_LABELS_MAX 2

/* One label: its values are known here, or (values NULL) are names that come up while running. */
struct metric_label {
    const char *name; /* NULL: no such label */
    const char *const *values;
    size_t n_values;
};

struct metric_spec {
    const char *name; /* as in Prometheus, without the prefix */
    enum metric_kind kind;
    unsigned stages; /* enum stage_mask: who has it */
    struct metric_label labels[METRIC_LABELS_MAX];
    const char *help;
};

extern const struct metric_spec metrics[N_METRICS];

/* Upper bounds of a histogram's buckets; durations are counted in microseconds. */
#define PULSE_BOUNDS 13
extern const int64_t pulse_bounds_us[PULSE_BOUNDS];
#define PULSE_HISTOGRAM_CELLS (PULSE_BOUNDS + 2) /* a count for each bound, one above, the sum */

/* Values of labels, as the second word of pulse_add. */
enum log_label { LOG_LABEL_WARN, LOG_LABEL_ERROR };
enum refusal_label { /* links_refused_total; its link is an index of link_ends (common/keys.h) */
                     REFUSED_UNKNOWN_KEY,
                     REFUSED_WRONG_ROLE,
                     REFUSED_WRONG_SERVER_KEY,
                     REFUSED_NO_CURVE,
                     REFUSED_NO_HANDSHAKE,
                     N_REFUSALS,
};
enum settled_label { SETTLED_DONE, SETTLED_LOST };
enum run_label { RUN_SCHEDULED, RUN_MANUAL, RUN_INJECT };
enum fate_label { FATE_COMMITTED, FATE_DEAD, FATE_FENCED }; /* as enum page_fate */
enum change_label { CHANGE_INSERTED, CHANGE_UPDATED, CHANGE_UNCHANGED, CHANGE_REMOVED };
enum commit_label { COMMIT_OK, COMMIT_RETRY, COMMIT_REFUSED };
enum outcome_label {
    OUTCOME_OK,
    OUTCOME_AUTH_INVALID,
    OUTCOME_RATE_LIMITED,
    OUTCOME_REFUSED, /* another 4xx */
    OUTCOME_PROVIDER_ERROR,
    OUTCOME_TIMEOUT,
    OUTCOME_TLS,
    OUTCOME_DNS,
    OUTCOME_PROTOCOL,
    OUTCOME_TOO_LARGE,
    N_OUTCOMES,
};

/* ---- counting ---- */

struct pulse;

/* `stage`: one bit of enum stage_mask. */
struct pulse *pulse_new(unsigned stage, const char *instance);
void pulse_free(struct pulse **p); /* accepts NULL */

/* The index of a label value that is not known beforehand (a provider's name). At most
 * PULSE_NAMES_MAX of them; all others are "other". */
#define PULSE_NAMES_MAX 32
size_t pulse_name(struct pulse *p, struct text name);

/* `a`, `b`: indexes of the label values, 0 where the metric has none. A NULL pulse counts nothing,
 * so that parts of a stage can be tested alone. */
void pulse_add(struct pulse *p, enum metric m, size_t a, size_t b, int64_t n);
static inline void pulse_count(struct pulse *p, enum metric m)
{
    pulse_add(p, m, 0, 0, 1);
}
void pulse_set(struct pulse *p, enum metric m, int64_t value); /* gauges: no labels */
void pulse_observe(struct pulse *p, enum metric m, size_t a, size_t b, int64_t us);
/* What a series has now: for tests. */
int64_t pulse_value(const struct pulse *p, enum metric m, size_t a, size_t b);

/* ---- telling ---- */

/* Everything, as one message (docs/wire.md, "pulse"). `leaving`: the last one, it was asked to
 * stop. */
void pulse_encode(struct buf *out, const struct pulse *p, int64_t mono_us, bool leaving);

/* ---- listening ---- */

struct pulse_sample {
    enum metric metric;
    struct text labels[METRIC_LABELS_MAX];
    int64_t value;            /* of a counter or gauge; of a histogram: how many were observed */
    const int64_t *histogram; /* PULSE_HISTOGRAM_CELLS of them, not cumulative; else NULL */
};

struct pulse_seen {
    unsigned stage; /* one bit of enum stage_mask */
    const struct pulse_message *message;
    const struct pulse_sample *samples;
    size_t n_samples;
};

/* ST_REJECT: no pulse, or of a stage that is not known. A metric that this program does not know,
 * or knows otherwise, is passed over: listeners and stages need not be of one age. What comes back
 * borrows `msg`, the rest lives in `a`. */
enum status pulse_decode(const struct pulse_seen **out, struct arena *a, struct text msg,
                         struct err *err) CHECKED;

/* "fetcher"; NULL for a bit that has no pulse. */
const char *pulse_stage_name(unsigned stage);

#endif
