#include "common/pulse.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/version.h"

#define NAME_MAX_LEN 40 /* of a label value that comes up while running */
#define N(list)      (sizeof(list) / sizeof((list)[0]))

/* ---- what is counted ---- */

static const char *const level_values[] = {"warn", "error"};
static const char *const link_values[] = {"jobs", "pages", "records", "acks", "control", "pulse"};
static const char *const refusal_values[N_REFUSALS] = {
    "unknown_key", "wrong_role", "wrong_server_key", "no_curve", "no_handshake"};
static const char *const settled_values[] = {"done", "lost"};
static const char *const run_values[] = {"scheduled", "manual", "inject"};
static const char *const fate_values[] = {"committed", "dead", "fenced"};
static const char *const change_values[] = {"inserted", "updated", "unchanged", "removed"};
static const char *const commit_values[] = {"ok", "retry", "refused"};
static const char *const outcome_values[N_OUTCOMES] = {
    "ok",      "auth_invalid", "rate_limited", "refused",  "provider_error",
    "timeout", "tls",          "dns",          "protocol", "too_large"};
/* As ending_name() has them. */
static const char *const ending_values[N_ENDINGS] = {"ok",
                                                     "page_cap",
                                                     "deadline",
                                                     "stopped",
                                                     "auth_invalid",
                                                     "scope_missing",
                                                     "wrong_key_kind",
                                                     "rate_limited",
                                                     "provider_error",
                                                     "timeout",
                                                     "tls",
                                                     "dns",
                                                     "protocol",
                                                     "too_large",
                                                     "bad_window"};

#define LABEL(name, values)                                                                        \
    {                                                                                              \
        name, values, N(values)                                                                    \
    }
#define PROVIDER                                                                                   \
    {                                                                                              \
        "provider", NULL, PULSE_NAMES_MAX + 1                                                      \
    }
#define EACH (STAGE_SCHEDULER | STAGE_FETCHER | STAGE_NORMALIZER | STAGE_WRITER)

const struct metric_spec metrics[N_METRICS] = {
    [M_LOG_LINES] = {"log_lines_total",
                     METRIC_COUNTER,
                     EACH,
                     {LABEL("level", level_values)},
                     "Lines of this level in the process's log."},
    [M_LINKS_REFUSED] = {"links_refused_total",
                         METRIC_COUNTER,
                         EACH,
                         {LABEL("link", link_values), LABEL("reason", refusal_values)},
                         "Connections over TCP that were not let in. unknown_key: not in "
                         "UF_CURVE_KEYS; wrong_role: a key of a role that has no business on this "
                         "link; wrong_server_key: it asked for somebody with another key (a client "
                         "that tries the keys of its file does, too); no_curve: not encrypted; "
                         "no_handshake: it hung up before that was known."},

    [M_ACCOUNTS_DUE] = {"accounts_due",
                        METRIC_GAUGE,
                        STAGE_SCHEDULER,
                        {{0}},
                        "Accounts that are due and wait for their claim (looked at every few "
                        "seconds; counts up to 10,000)."},
    [M_ACCOUNTS_CLAIMED] = {"accounts_claimed_total",
                            METRIC_COUNTER,
                            STAGE_SCHEDULER,
                            {{0}},
                            "Accounts claimed under a lease."},
    [M_RUNS_STARTED] = {"runs_started_total",
                        METRIC_COUNTER,
                        STAGE_SCHEDULER,
                        {LABEL("kind", run_values)},
                        "Cycles that this scheduler began, and runs that it was asked for."},
    [M_JOBS_SENT] =
        {"jobs_sent_total", METRIC_COUNTER, STAGE_SCHEDULER, {{0}}, "Jobs handed to a fetcher."},
    [M_JOBS_OUT] =
        {"jobs_out", METRIC_GAUGE, STAGE_SCHEDULER, {{0}}, "Jobs claimed and not yet settled."},
    [M_JOBS_SETTLED] = {"jobs_settled_total",
                        METRIC_COUNTER,
                        STAGE_SCHEDULER,
                        {LABEL("result", settled_values)},
                        "Jobs written down in the ledger; lost: their fetcher vanished, their "
                        "lease ran out, or the scheduler was asked to stop."},
    [M_LEASES_EXPIRED] = {"leases_expired_total",
                          METRIC_COUNTER,
                          STAGE_SCHEDULER,
                          {{0}},
                          "Jobs whose lease ran out."},
    [M_PAGES_ACKED] = {"pages_acked_total",
                       METRIC_COUNTER,
                       STAGE_SCHEDULER,
                       {LABEL("fate", fate_values)},
                       "Acknowledgements of pages, after COMMIT."},
    [M_FETCHERS] = {"fetchers_connected",
                    METRIC_GAUGE,
                    STAGE_SCHEDULER,
                    {{0}},
                    "Fetchers that this scheduler hears."},
    [M_FETCHER_CREDIT] = {"fetcher_credit",
                          METRIC_GAUGE,
                          STAGE_SCHEDULER,
                          {{0}},
                          "Jobs that its fetchers would take now."},
    [M_PAUSED] = {"paused",
                  METRIC_GAUGE,
                  STAGE_SCHEDULER,
                  {{0}},
                  "1 while no accounts are claimed (usagectl pause)."},

    [M_JOBS_HELD] = {"jobs_held", METRIC_GAUGE, STAGE_FETCHER, {{0}}, "Jobs in hand."},
    [M_REQUESTS_IN_FLIGHT] = {"requests_in_flight",
                              METRIC_GAUGE,
                              STAGE_FETCHER,
                              {{0}},
                              "HTTP requests on their way or in line for their host."},
    [M_REQUESTS] = {"requests_total",
                    METRIC_COUNTER,
                    STAGE_FETCHER,
                    {PROVIDER, LABEL("outcome", outcome_values)},
                    "HTTP requests that came to an end, retries included."},
    [M_REQUEST_DURATION] = {"request_duration_seconds",
                            METRIC_HISTOGRAM,
                            STAGE_FETCHER,
                            {PROVIDER, LABEL("outcome", outcome_values)},
                            "Time from sending a request to the last byte of its answer."},
    [M_BYTES_FETCHED] = {"fetched_bytes_total",
                         METRIC_COUNTER,
                         STAGE_FETCHER,
                         {PROVIDER},
                         "Bytes of answers, after decompression."},
    [M_PAGES_FETCHED] = {"pages_fetched_total",
                         METRIC_COUNTER,
                         STAGE_FETCHER,
                         {PROVIDER},
                         "Pages handed to a normalizer."},
    [M_PAGES_SAME] = {"pages_unchanged_total",
                      METRIC_COUNTER,
                      STAGE_FETCHER,
                      {PROVIDER},
                      "Pages that came as they are known, so that they go no further: their rows "
                      "are in the table."},
    [M_WINDOWS_ENDED] = {"windows_ended_total",
                         METRIC_COUNTER,
                         STAGE_FETCHER,
                         {PROVIDER, LABEL("ending", ending_values)},
                         "Windows of feeds whose reading ended, and how."},
    [M_PAGES_BLOCKED] = {"pages_blocked",
                         METRIC_GAUGE,
                         STAGE_FETCHER,
                         {{0}},
                         "1 while no normalizer takes pages, so that nothing is asked for."},

    [M_PAGES_NORMALIZED] = {"pages_normalized_total",
                            METRIC_COUNTER,
                            STAGE_NORMALIZER,
                            {PROVIDER},
                            "Pages that became records or a dead letter."},
    [M_BYTES_NORMALIZED] = {"normalized_bytes_total",
                            METRIC_COUNTER,
                            STAGE_NORMALIZER,
                            {PROVIDER},
                            "Bytes of those pages."},
    [M_RECORDS_MADE] =
        {"records_made_total", METRIC_COUNTER, STAGE_NORMALIZER, {PROVIDER}, "Usage records made."},
    [M_PAGES_DEAD] = {"pages_dead_total",
                      METRIC_COUNTER,
                      STAGE_NORMALIZER,
                      {PROVIDER},
                      "Pages that could not be understood."},
    [M_ROWS_SET_ASIDE] = {"rows_set_aside_total",
                          METRIC_COUNTER,
                          STAGE_NORMALIZER,
                          {PROVIDER},
                          "Rows that could not be understood on pages that could."},
    [M_RECORDS_BLOCKED] = {"records_blocked",
                           METRIC_GAUGE,
                           STAGE_NORMALIZER,
                           {{0}},
                           "1 while no writer takes records, so that no pages are taken."},

    [M_PAGES_WAITING] =
        {"pages_waiting", METRIC_GAUGE, STAGE_WRITER, {{0}}, "Pages of the open batch."},
    [M_BATCHES] = {"batches_total", METRIC_COUNTER, STAGE_WRITER, {{0}}, "Transactions committed."},
    [M_COMMIT_DURATION] = {"commit_duration_seconds",
                           METRIC_HISTOGRAM,
                           STAGE_WRITER,
                           {LABEL("result", commit_values)},
                           "Time of a transaction, from BEGIN to the answer to COMMIT."},
    [M_ROWS_WRITTEN] = {"rows_total",
                        METRIC_COUNTER,
                        STAGE_WRITER,
                        {LABEL("change", change_values)},
                        "Rows of usage_metrics in committed pages, by what became of them."},
    [M_PAGES_WRITTEN] = {"pages_written_total",
                         METRIC_COUNTER,
                         STAGE_WRITER,
                         {LABEL("fate", fate_values)},
                         "Pages of committed transactions; fenced: a newer lease is out, nothing "
                         "was changed."},
    [M_ACKS_WAITING] = {"acks_waiting",
                        METRIC_GAUGE,
                        STAGE_WRITER,
                        {{0}},
                        "Messages of acknowledgements for a scheduler that is not connected."},

    [M_POSTGRES_UP] = {"postgres_up",
                       METRIC_GAUGE,
                       STAGE_SCHEDULER | STAGE_WRITER,
                       {{0}},
                       "0 when the last transaction could not be made for now."},
    [M_POSTGRES_RETRIES] = {"postgres_retries_total",
                            METRIC_COUNTER,
                            STAGE_SCHEDULER | STAGE_WRITER,
                            {{0}},
                            "Transactions to be tried again: Postgres was away or busy."},
};

/* 5 ms to a minute: a commit is short, a page of a slow provider long. */
const int64_t pulse_bounds_us[PULSE_BOUNDS] = {5000,     10000,    25000,   50000,   100000,
                                               250000,   500000,   1000000, 2500000, 5000000,
                                               10000000, 30000000, 60000000};

/* ---- counting ---- */

struct pulse {
    unsigned stage;
    const char *instance;
    int64_t started_us, started_mono_us;
    size_t first[N_METRICS]; /* cell; of metrics that this stage does not have too: none is read */
    char names[PULSE_NAMES_MAX][NAME_MAX_LEN + 1];
    size_t n_names;
    int64_t cells[]; /* of each series; PULSE_HISTOGRAM_CELLS for a histogram's */
};

static size_t label_size(const struct metric_spec *m, size_t label)
{
    return m->labels[label].name ? m->labels[label].n_values : 1;
}

static size_t series_cells(const struct metric_spec *m)
{
    return m->kind == METRIC_HISTOGRAM ? PULSE_HISTOGRAM_CELLS : 1;
}

static size_t metric_cells(const struct metric_spec *m)
{
    return label_size(m, 0) * label_size(m, 1) * series_cells(m);
}

struct pulse *pulse_new(unsigned stage, const char *instance)
{
    size_t n = 0;
    struct pulse *p;

    for (size_t m = 0; m < N_METRICS; m++)
        n += metrics[m].stages & stage ? metric_cells(&metrics[m]) : 0;
    p = xalloc(1, sizeof(*p) + n * sizeof(p->cells[0]));
    n = 0;
    for (size_t m = 0; m < N_METRICS; m++) {
        p->first[m] = n;
        n += metrics[m].stages & stage ? metric_cells(&metrics[m]) : 0;
    }
    p->stage = stage;
    p->instance = instance;
    p->started_us = clock_utc_us();
    p->started_mono_us = clock_mono_us();
    return p;
}

void pulse_free(struct pulse **p)
{
    free(*p);
    *p = NULL;
}

size_t pulse_name(struct pulse *p, struct text name)
{
    if (!p || !name.at || name.len > NAME_MAX_LEN)
        return PULSE_NAMES_MAX;
    for (size_t i = 0; i < p->n_names; i++)
        if (text_is(name, p->names[i]))
            return i;
    if (p->n_names == PULSE_NAMES_MAX)
        return PULSE_NAMES_MAX;
    memcpy(p->names[p->n_names], name.at, name.len);
    return p->n_names++;
}

/* The first cell of a series. A metric of another stage, or a label out of range, is our own bug.
 */
static int64_t *cell(struct pulse *p, enum metric m, size_t a, size_t b)
{
    const struct metric_spec *of = &metrics[m];

    assert((of->stages & p->stage) && a < label_size(of, 0) && b < label_size(of, 1));
    return &p->cells[p->first[m] + (a * label_size(of, 1) + b) * series_cells(of)];
}

static void grow(int64_t *at, int64_t n)
{
    if (__builtin_add_overflow(*at, n, at))
        *at = INT64_MAX;
}

void pulse_add(struct pulse *p, enum metric m, size_t a, size_t b, int64_t n)
{
    if (p)
        grow(cell(p, m, a, b), n);
}

void pulse_set(struct pulse *p, enum metric m, int64_t value)
{
    if (p)
        *cell(p, m, 0, 0) = value;
}

void pulse_observe(struct pulse *p, enum metric m, size_t a, size_t b, int64_t us)
{
    int64_t *at;
    size_t bound = 0;

    if (!p)
        return;
    at = cell(p, m, a, b);
    while (bound < PULSE_BOUNDS && us > pulse_bounds_us[bound])
        bound++;
    grow(&at[bound], 1);
    grow(&at[PULSE_BOUNDS + 1], us > 0 ? us : 0);
}

static int64_t observations(const int64_t *histogram)
{
    int64_t n = 0;

    for (size_t i = 0; i <= PULSE_BOUNDS; i++)
        grow(&n, histogram[i]);
    return n;
}

int64_t pulse_value(const struct pulse *p, enum metric m, size_t a, size_t b)
{
    const struct metric_spec *of = &metrics[m];
    const int64_t *at = &p->cells[p->first[m] + (a * label_size(of, 1) + b) * series_cells(of)];

    return of->kind == METRIC_HISTOGRAM ? observations(at) : *at;
}

/* ---- telling ---- */

static const struct {
    unsigned stage;
    const char *name;
} stages[] = {
    {STAGE_SCHEDULER, "scheduler"},
    {STAGE_FETCHER, "fetcher"},
    {STAGE_NORMALIZER, "normalizer"},
    {STAGE_WRITER, "writer"},
};

const char *pulse_stage_name(unsigned stage)
{
    for (size_t i = 0; i < N(stages); i++)
        if (stages[i].stage == stage)
            return stages[i].name;
    return NULL;
}

static struct text label_value(const struct pulse *p, const struct metric_label *label, size_t i)
{
    if (label->values)
        return text_of(label->values[i]);
    return i < PULSE_NAMES_MAX ? text_of(p->names[i]) : TEXT_LIT("other");
}

/* Told always, so that a listener sees the first rise; but of a name that comes up while running
 * only once it has, and of its second label only what has happened, since most of it never does. */
static bool is_told(const struct pulse *p, const struct metric_spec *m, size_t a, const int64_t *at)
{
    if (!m->labels[0].name || m->labels[0].values)
        return true;
    if (!m->labels[1].name)
        return a < p->n_names || *at != 0;
    for (size_t i = 0; i < series_cells(m); i++)
        if (at[i])
            return true;
    return false;
}

static void tell(struct wire_sample *out, const struct pulse *p, const struct metric_spec *m,
                 size_t a, size_t b, const int64_t *at)
{
    const size_t index[METRIC_LABELS_MAX] = {a, b};

    *out = (struct wire_sample){.name = text_of(m->name)};
    while (out->n_labels < METRIC_LABELS_MAX && m->labels[out->n_labels].name) {
        out->labels[out->n_labels] =
            label_value(p, &m->labels[out->n_labels], index[out->n_labels]);
        out->n_labels++;
    }
    if (m->kind == METRIC_HISTOGRAM) {
        out->cells = at;
        out->n_cells = PULSE_HISTOGRAM_CELLS;
    } else {
        out->value = *at;
    }
}

/* Counts the series of a metric that are to be told, and writes them down when `out` is given. */
static size_t tell_metric(struct wire_sample *out, const struct pulse *p, size_t metric)
{
    const struct metric_spec *m = &metrics[metric];
    const int64_t *at = &p->cells[p->first[metric]];
    size_t n = 0;

    for (size_t a = 0; a < label_size(m, 0); a++) {
        for (size_t b = 0; b < label_size(m, 1); b++, at += series_cells(m)) {
            if (!is_told(p, m, a, at))
                continue;
            if (out)
                tell(&out[n], p, m, a, b, at);
            n++;
        }
    }
    return n;
}

static size_t tell_all(struct wire_sample *out, const struct pulse *p)
{
    size_t n = 0;

    for (size_t m = 0; m < N_METRICS; m++)
        if (metrics[m].stages & p->stage)
            n += tell_metric(out ? out + n : NULL, p, m);
    return n;
}

void pulse_encode(struct buf *out, const struct pulse *p, int64_t mono_us, bool leaving)
{
    struct wire_sample *samples = ARENA_ARRAY(out->arena, tell_all(NULL, p), struct wire_sample);
    struct pulse_message message = {.stage = text_of(pulse_stage_name(p->stage)),
                                    .instance = text_of(p->instance),
                                    .version = TEXT_LIT(UF_VERSION),
                                    .pid = getpid(),
                                    .started_us = p->started_us,
                                    .leaving = leaving,
                                    .samples = samples,
                                    .n_samples = tell_all(samples, p)};

    if (mono_us > p->started_mono_us)
        message.uptime_ms = (mono_us - p->started_mono_us) / US_PER_MS;
    pulse_message_encode(out, &message);
}

/* ---- listening ---- */

static bool metric_find(enum metric *out, const struct wire_sample *s, unsigned stage)
{
    for (size_t i = 0; i < N_METRICS; i++) {
        const struct metric_spec *m = &metrics[i];
        size_t n_labels = 0;
        if (!text_is(s->name, m->name))
            continue;
        while (n_labels < METRIC_LABELS_MAX && m->labels[n_labels].name)
            n_labels++;
        *out = (enum metric)i;
        return (m->stages & stage) && s->n_labels == n_labels &&
               (m->kind != METRIC_COUNTER || s->value >= 0) &&
               s->n_cells == (m->kind == METRIC_HISTOGRAM ? PULSE_HISTOGRAM_CELLS : 0);
    }
    return false;
}

static unsigned stage_find(struct text name)
{
    for (size_t i = 0; i < N(stages); i++)
        if (text_is(name, stages[i].name))
            return stages[i].stage;
    return 0;
}

enum status pulse_decode(const struct pulse_seen **out, struct arena *a, struct text msg,
                         struct err *err)
{
    struct pulse_seen *seen = ARENA_NEW(a, struct pulse_seen);
    struct pulse_sample *known;

    TRY(pulse_message_decode(&seen->message, a, msg, err));
    seen->stage = stage_find(seen->message->stage);
    if (!seen->stage)
        return err_set(err, ST_REJECT, "pulse: stage: unknown '%.*s'",
                       (int)seen->message->stage.len, seen->message->stage.at);
    seen->samples = known = ARENA_ARRAY(a, seen->message->n_samples, struct pulse_sample);
    for (size_t i = 0; i < seen->message->n_samples; i++) {
        const struct wire_sample *s = &seen->message->samples[i];
        struct pulse_sample *to = &known[seen->n_samples];
        if (!metric_find(&to->metric, s, seen->stage))
            continue;
        memcpy(to->labels, s->labels, sizeof(to->labels));
        to->histogram = s->n_cells > 0 ? s->cells : NULL;
        to->value = to->histogram ? observations(s->cells) : s->value;
        seen->n_samples++;
    }
    *out = seen;
    return ST_OK;
}
