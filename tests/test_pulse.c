/* What is counted, how it is told, and what a listener makes of it. */
#include "common/pulse.h"

#include <stdlib.h>

#include "common/clock.h"
#include "common/instances.h"
#include "common/version.h"
#include "tests/check.h"

/* ---- the table ---- */

static void the_table_is_sound(void **state)
{
    bool good = true;

    (void)state;
    for (size_t i = 0; i < N_METRICS; i++) {
        const struct metric_spec *m = &metrics[i];
        size_t len = m->name ? strlen(m->name) : 0;
        assert_true(len > 0 && m->help && m->stages);
        assert_true(!m->labels[1].name || m->labels[1].values); /* only the first may be open */
        good &= same_int(m->name, len > 6 && strcmp(m->name + len - 6, "_total") == 0,
                         m->kind == METRIC_COUNTER);
        good &= same_int(m->name, len > 8 && strcmp(m->name + len - 8, "_seconds") == 0,
                         m->kind == METRIC_HISTOGRAM);
        good &= same_int(m->name, m->help[strlen(m->help) - 1], '.');
        if (m->kind == METRIC_GAUGE)
            good &= same_str(m->name, m->labels[0].name, NULL); /* pulse_set has no labels */
        for (size_t k = 0; k < i; k++)
            assert_string_not_equal(m->name, metrics[k].name);
        for (size_t l = 0; l < METRIC_LABELS_MAX; l++)
            for (size_t v = 0; m->labels[l].values && v < m->labels[l].n_values; v++)
                assert_non_null(m->labels[l].values[v]);
    }
    for (size_t e = 0; e < N_ENDINGS; e++)
        good &= same_str("ending", metrics[M_WINDOWS_ENDED].labels[1].values[e],
                         ending_name((enum ending)e));
    for (size_t b = 1; b < PULSE_BOUNDS; b++)
        assert_true(pulse_bounds_us[b] > pulse_bounds_us[b - 1]);
    assert_true(good);
}

/* ---- from a process to a listener ---- */

static struct text encoded(struct arena *a, const struct pulse *p, int64_t mono_us, bool leaving)
{
    struct buf b = {.arena = a};

    pulse_encode(&b, p, mono_us, leaving);
    return (struct text){b.at, b.len};
}

static const struct pulse_sample *sample_of(const struct pulse_seen *seen, enum metric m,
                                            const char *first, const char *second)
{
    for (size_t i = 0; i < seen->n_samples; i++) {
        const struct pulse_sample *s = &seen->samples[i];
        if (s->metric == m && (!first || text_is(s->labels[0], first)) &&
            (!second || text_is(s->labels[1], second)))
            return s;
    }
    return NULL;
}

static void counts_arrive(void **state)
{
    struct pulse *p = pulse_new(STAGE_FETCHER, "fetcher-1");
    struct arena *a = arena_new();
    const struct pulse_seen *seen = NULL;
    const struct pulse_sample *s;
    size_t openai = pulse_name(p, TEXT_LIT("openai"));
    struct err err = {0};

    (void)state;
    assert_int_equal(pulse_name(p, TEXT_LIT("openai")), openai);
    pulse_add(p, M_REQUESTS, openai, OUTCOME_OK, 41);
    pulse_add(p, M_REQUESTS, openai, OUTCOME_OK, 1);
    pulse_add(p, M_REQUESTS, openai, OUTCOME_TIMEOUT, 2);
    pulse_set(p, M_JOBS_HELD, 7);
    pulse_observe(p, M_REQUEST_DURATION, openai, OUTCOME_OK, 5000);     /* the bound is inside */
    pulse_observe(p, M_REQUEST_DURATION, openai, OUTCOME_OK, 5001);     /* the next bucket */
    pulse_observe(p, M_REQUEST_DURATION, openai, OUTCOME_OK, 60000001); /* above all */
    pulse_observe(p, M_REQUEST_DURATION, openai, OUTCOME_OK, -5);       /* a clock that was set */
    assert_int_equal(
        pulse_decode(&seen, a, encoded(a, p, clock_mono_us() + 5 * US_PER_S, false), &err), ST_OK);
    assert_int_equal(seen->stage, STAGE_FETCHER);
    assert_true(text_is(seen->message->instance, "fetcher-1"));
    assert_true(text_is(seen->message->version, UF_VERSION));
    assert_in_range(seen->message->uptime_ms, 4990, 6000);
    assert_false(seen->message->leaving);
    s = sample_of(seen, M_REQUESTS, "openai", "ok");
    assert_true(s && s->value == 42 && !s->histogram);
    assert_int_equal(sample_of(seen, M_REQUESTS, NULL, "timeout")->value, 2);
    assert_null(sample_of(seen, M_REQUESTS, NULL, "dns")); /* has not happened */
    assert_int_equal(sample_of(seen, M_JOBS_HELD, NULL, NULL)->value, 7);
    assert_int_equal(sample_of(seen, M_LOG_LINES, "error", NULL)->value, 0); /* told all the same */
    assert_int_equal(sample_of(seen, M_PAGES_FETCHED, "openai", NULL)->value, 0);
    assert_null(sample_of(seen, M_BATCHES, NULL, NULL)); /* another stage's */
    s = sample_of(seen, M_REQUEST_DURATION, "openai", "ok");
    assert_int_equal(s->value, 4);
    assert_int_equal(s->histogram[0], 2);
    assert_int_equal(s->histogram[1], 1);
    assert_int_equal(s->histogram[PULSE_BOUNDS], 1);
    assert_int_equal(s->histogram[PULSE_BOUNDS + 1], 5000 + 5001 + 60000001);
    pulse_free(&p);
    pulse_add(p, M_REQUESTS, 0, 0, 1); /* without a pulse nothing is counted */
    arena_free(&a);
}

static void names_are_bounded(void **state)
{
    struct pulse *p = pulse_new(STAGE_NORMALIZER, "n");
    struct arena *a = arena_new();
    const struct pulse_seen *seen = NULL;
    struct err err = {0};

    (void)state;
    for (int i = 0; i < 2 * PULSE_NAMES_MAX; i++) {
        size_t name = pulse_name(p, text_of(arena_printf(a, "provider-%d", i)));
        assert_int_equal(name, i < PULSE_NAMES_MAX ? i : PULSE_NAMES_MAX);
        pulse_add(p, M_RECORDS_MADE, name, 0, 1);
    }
    assert_int_equal(pulse_name(p, TEXT_NULL), PULSE_NAMES_MAX);
    assert_int_equal(
        pulse_name(p, text_of("a name that is longer than any provider's name should ever be")),
        PULSE_NAMES_MAX);
    assert_int_equal(pulse_decode(&seen, a, encoded(a, p, 0, false), &err), ST_OK);
    assert_int_equal(seen->message->uptime_ms, 0);
    assert_int_equal(sample_of(seen, M_RECORDS_MADE, "provider-31", NULL)->value, 1);
    assert_int_equal(sample_of(seen, M_RECORDS_MADE, "other", NULL)->value, PULSE_NAMES_MAX);
    pulse_free(&p);
    arena_free(&a);
}

/* Everything that can be counted, counted. */
static void the_largest_message_fits(void **state)
{
    static const unsigned stages[] = {STAGE_SCHEDULER, STAGE_FETCHER, STAGE_NORMALIZER,
                                      STAGE_WRITER};
    struct arena *a = arena_new();

    (void)state;
    for (size_t i = 0; i < ROWS(stages); i++) {
        struct pulse *p = pulse_new(stages[i], "0123456789012345678901234567890123456789");
        const struct pulse_seen *seen = NULL;
        struct err err = {0};
        struct text msg;
        for (int n = 0; n < PULSE_NAMES_MAX; n++)
            (void)pulse_name(p, text_of(arena_printf(a, "a-provider-of-a-rather-long-name-%d", n)));
        for (enum metric m = 0; m < N_METRICS; m++) {
            const struct metric_label *l = metrics[m].labels;
            if (!(metrics[m].stages & stages[i]))
                continue;
            for (size_t x = 0; x < (l[0].name ? l[0].n_values : 1); x++)
                for (size_t y = 0; y < (l[1].name ? l[1].n_values : 1); y++)
                    for (int n = 0; n < 2; n++) /* and at the end of an int64 it stays */
                        if (metrics[m].kind == METRIC_HISTOGRAM)
                            pulse_observe(p, m, x, y, INT64_C(1) << 50);
                        else
                            pulse_add(p, m, x, y, INT64_MAX);
        }
        msg = encoded(a, p, clock_mono_us(), false);
        assert_true(msg.len < 1 << 20); /* what the link takes */
        if (pulse_decode(&seen, a, msg, &err) != ST_OK)
            fail_msg("%s", err.text);
        assert_int_equal(seen->n_samples, seen->message->n_samples);
        assert_true(seen->n_samples < WIRE_SAMPLES_MAX);
        pulse_free(&p);
    }
    arena_free(&a);
}

/* ---- what is not known here ---- */

static const int64_t three_cells[] = {1, 2, 3};
static const struct {
    const char *name;
    struct wire_sample sample;
    bool known;
} odd_samples[] = {
    {"a counter of ours", {.name = TEXT_LIT("jobs_sent_total"), .value = 3}, true},
    {"a metric of a later version", {.name = TEXT_LIT("jobs_dreamt_total")}, false},
    {"a metric of another stage", {.name = TEXT_LIT("batches_total"), .value = 3}, false},
    {"a counter below 0", {.name = TEXT_LIT("jobs_sent_total"), .value = -1}, false},
    {"a gauge below 0", {.name = TEXT_LIT("jobs_out"), .value = -1}, true},
    {"a label too many",
     {.name = TEXT_LIT("jobs_sent_total"), .labels = {TEXT_LIT("x")}, .n_labels = 1},
     false},
    {"a label too few", {.name = TEXT_LIT("log_lines_total"), .value = 3}, false},
    {"a histogram that is none",
     {.name = TEXT_LIT("jobs_sent_total"), .cells = three_cells, .n_cells = 3},
     false},
};

static void strangers_are_passed_over(void **state)
{
    struct arena *a = arena_new();
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(odd_samples); i++) {
        const struct pulse_message message = {.stage = TEXT_LIT("scheduler"),
                                              .instance = TEXT_LIT("s"),
                                              .version = TEXT_LIT("9"),
                                              .samples = &odd_samples[i].sample,
                                              .n_samples = 1};
        const struct pulse_seen *seen = NULL;
        struct buf b = {.arena = a};
        struct err err = {0};
        pulse_message_encode(&b, &message);
        good &= same_int(odd_samples[i].name,
                         pulse_decode(&seen, a, (struct text){b.at, b.len}, &err), ST_OK);
        good &= same_int(odd_samples[i].name, (int64_t)seen->n_samples, odd_samples[i].known);
    }
    arena_free(&a);
    assert_true(good);
}

/* ---- processes ---- */

struct teller {
    const char *stage, *instance;
    int64_t started_us, sent, settled;
    bool leaving;
};

static enum status tell(struct instances *in, const struct teller *t, int64_t mono_us)
{
    static struct err err;
    const struct wire_sample samples[] = {
        {.name = TEXT_LIT("jobs_sent_total"), .value = t->sent},
        {.name = TEXT_LIT("jobs_settled_total"),
         .labels = {TEXT_LIT("done")},
         .n_labels = 1,
         .value = t->settled},
        {.name = TEXT_LIT("jobs_settled_total"),
         .labels = {TEXT_LIT("lost")},
         .n_labels = 1,
         .value = 1},
        {.name = TEXT_LIT("accounts_due"), .value = t->sent},
    };
    const struct pulse_message message = {.stage = text_of(t->stage),
                                          .instance = text_of(t->instance),
                                          .version = TEXT_LIT("1"),
                                          .started_us = t->started_us,
                                          .leaving = t->leaving,
                                          .samples = samples,
                                          .n_samples = ROWS(samples)};
    struct arena *a = arena_new();
    struct buf b = {.arena = a};
    enum status st;

    pulse_message_encode(&b, &message);
    st = instances_take(in, (struct text){b.at, b.len}, mono_us, &err);
    arena_free(&a); /* it has its own copy */
    return st;
}

static const struct {
    const char *name;
    int64_t pulses;     /* one a second, each with 3 more */
    int64_t restart_at; /* it counts from 0 again; 0: never */
    int64_t silent_s;   /* after the last */
    double rate_10s, rate_60s;
    int64_t total;
} rate_cases[] = {
    {"one pulse tells no rate", 1, 0, 0, 0, 0, 3},
    {"two pulses", 2, 0, 0, 3, 3, 6},
    {"longer than the history", 500, 0, 0, 3, 3, 1500},
    {"a restart is no fall", 20, 19, 0, 3, 3, 6},
    {"who is silent does nothing", 20, 0, 6, 0, 0, 60},
};

static void rates(void **state)
{
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(rate_cases); i++) {
        struct instances *in = instances_new();
        struct teller t = {.stage = "scheduler", .instance = "s", .started_us = 1};
        const char *name = rate_cases[i].name;
        const struct instance *one;
        int64_t now = 0;
        for (int64_t k = 1; k <= rate_cases[i].pulses; k++) {
            now = k * US_PER_S;
            if (k == rate_cases[i].restart_at)
                t = (struct teller){.stage = "scheduler", .instance = "s", .started_us = 2};
            t.sent += 3;
            assert_int_equal(tell(in, &t, now), ST_OK);
        }
        now += rate_cases[i].silent_s * US_PER_S;
        assert_int_equal(instances_count(in), 1);
        one = instances_at(in, 0);
        good &= same_int(name, (int64_t)(1000 * instance_rate(one, M_JOBS_SENT, 10, now)),
                         (int64_t)(1000 * rate_cases[i].rate_10s));
        good &= same_int(name, (int64_t)(1000 * instance_rate(one, M_JOBS_SENT, 60, now)),
                         (int64_t)(1000 * rate_cases[i].rate_60s));
        good &= same_int(name, instance_total(one, M_JOBS_SENT), rate_cases[i].total);
        good &= same_int(name, instance_total(one, M_JOBS_SETTLED), 1);
        good &= same_int(name, instance_total_of(one, M_JOBS_SETTLED, "lost"), 1);
        instances_free(&in);
    }
    assert_true(good);
}

/* A burst that ended 30 s ago shows in the minute and not in the ten seconds. */
static void a_burst_fades(void **state)
{
    struct instances *in = instances_new();
    struct teller t = {.stage = "scheduler", .instance = "s"};

    (void)state;
    for (int64_t k = 0; k <= 60; k++) {
        t.sent += k <= 30 ? 2 : 0;
        assert_int_equal(tell(in, &t, k * US_PER_S), ST_OK);
    }
    assert_true(instance_rate(instances_at(in, 0), M_JOBS_SENT, 10, 60 * US_PER_S) == 0);
    assert_true(instance_rate(instances_at(in, 0), M_JOBS_SENT, 60, 60 * US_PER_S) == 1);
    instances_free(&in);
}

static void the_gone_are_forgotten(void **state)
{
    struct instances *in = instances_new();
    struct teller a = {.stage = "writer", .instance = "b"},
                  b = {.stage = "fetcher", .instance = "z"},
                  c = {.stage = "fetcher", .instance = "a"};
    struct stage_sum sum;

    (void)state;
    assert_int_equal(tell(in, &a, 0), ST_OK);
    assert_int_equal(tell(in, &b, 0), ST_OK);
    assert_int_equal(tell(in, &c, 10 * US_PER_S), ST_OK);
    assert_int_equal(instances_count(in), 3);
    assert_true(text_is(instance_pulse(instances_at(in, 0))->message->instance, "a"));
    assert_true(text_is(instance_pulse(instances_at(in, 1))->message->instance, "z"));
    assert_int_equal(instance_stage(instances_at(in, 2)), STAGE_WRITER);
    sum = instances_sum(in, &stage_kinds[1], 10 * US_PER_S);
    assert_int_equal(sum.n, 2);
    assert_int_equal(sum.n_fresh, 1);
    assert_int_equal(instances_forget(in, PULSE_FORGET_US - 1), 0);
    assert_int_equal(instances_forget(in, PULSE_FORGET_US), 2);
    assert_int_equal(instances_count(in), 1);
    c.leaving = true;
    assert_int_equal(tell(in, &c, 11 * US_PER_S), ST_OK);
    assert_int_equal(instances_count(in), 0);
    assert_int_equal(tell(in, &c, 12 * US_PER_S), ST_OK); /* a stranger who leaves */
    assert_int_equal(instances_count(in), 0);
    a.stage = "gardener";
    assert_int_equal(tell(in, &a, 0), ST_REJECT);
    instances_free(&in);
}

static void there_are_not_too_many(void **state)
{
    struct instances *in = instances_new();
    struct teller t = {.stage = "scheduler", .sent = 5};
    char name[20];

    (void)state;
    t.instance = name;
    for (int i = 0; i < INSTANCES_MAX + 3; i++) {
        (void)snprintf(name, sizeof(name), "s%d", i);
        assert_int_equal(tell(in, &t, 0), i < INSTANCES_MAX ? ST_OK : ST_REJECT);
    }
    (void)snprintf(name, sizeof(name), "s7");
    assert_int_equal(tell(in, &t, 0), ST_OK); /* one that is known */
    assert_int_equal(instances_count(in), INSTANCES_MAX);
    /* they all tell of the same accounts that are due */
    assert_int_equal(instances_sum(in, &stage_kinds[0], 0).queue, 5);
    instances_free(&in);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_table_is_sound),
        cmocka_unit_test(counts_arrive),
        cmocka_unit_test(names_are_bounded),
        cmocka_unit_test(the_largest_message_fits),
        cmocka_unit_test(strangers_are_passed_over),
        cmocka_unit_test(rates),
        cmocka_unit_test(a_burst_fades),
        cmocka_unit_test(the_gone_are_forgotten),
        cmocka_unit_test(there_are_not_too_many),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
