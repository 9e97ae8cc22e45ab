#include "gateway/metrics.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/pg.h"
#include "common/utf8.h"

#define PREFIX "usage_fetcher_"

/* ---- the format ---- */

/* A HELP text has no quotes around it: only backslash and line end are escaped. Source:
 * prometheus.io/docs/instrumenting/exposition_formats. */
static void put_escaped(struct buf *out, struct text t, bool quoted)
{
    for (size_t i = 0; i < t.len;) {
        size_t n = utf8_sequence(t.at + i, t.len - i);
        char c = t.at[i];
        if (n == 0)
            buf_str(out, UTF8_REPLACEMENT);
        else if (c == '\\')
            buf_str(out, "\\\\");
        else if (c == '\n')
            buf_str(out, "\\n");
        else if (c == '"' && quoted)
            buf_str(out, "\\\"");
        else
            buf_append(out, t.at + i, n);
        i += n ? n : 1;
    }
}

static void put_label(struct buf *out, const char *name, struct text value)
{
    buf_printf(out, "%s%s=\"", out->at[out->len - 1] == '{' ? "" : ",", name);
    put_escaped(out, value, true);
    buf_str(out, "\"");
}

/* Microseconds as seconds, every digit. */
static const char *seconds(char text[48], int64_t us)
{
    int len = snprintf(text, 48, "%" PRId64 ".%06" PRId64, us / US_PER_S, us % US_PER_S);

    while (text[len - 1] == '0')
        text[--len] = '\0';
    if (text[len - 1] == '.')
        text[--len] = '\0';
    return text;
}

void metrics_family(struct buf *out, const char *name, const char *type, const char *help)
{
    buf_printf(out, "# HELP " PREFIX "%s ", name);
    put_escaped(out, text_of(help), false);
    buf_printf(out, "\n# TYPE " PREFIX "%s %s\n", name, type);
}

void metrics_sample(struct buf *out, const char *name, const char *const (*labels)[2],
                    const char *value)
{
    buf_printf(out, PREFIX "%s", name);
    if (labels && (*labels)[0]) {
        buf_str(out, "{");
        for (; (*labels)[0]; labels++)
            put_label(out, (*labels)[0], text_of((*labels)[1]));
        buf_str(out, "}");
    }
    buf_printf(out, " %s\n", value);
}

/* ---- pulses ---- */

static void open_sample(struct buf *out, const char *name, const char *suffix,
                        const struct instance *i)
{
    const struct pulse_message *p = instance_pulse(i)->message;

    buf_printf(out, PREFIX "%s%s{", name, suffix);
    put_label(out, "stage", p->stage);
    put_label(out, "process", p->instance);
}

static void open_series(struct buf *out, const char *suffix, const struct instance *i,
                        const struct pulse_sample *s)
{
    const struct metric_spec *m = &metrics[s->metric];

    open_sample(out, m->name, suffix, i);
    for (size_t l = 0; l < METRIC_LABELS_MAX && m->labels[l].name; l++)
        put_label(out, m->labels[l].name, s->labels[l]);
}

static void put_histogram(struct buf *out, const struct instance *i, const struct pulse_sample *s)
{
    char text[48];
    int64_t below = 0;

    for (size_t b = 0; b <= PULSE_BOUNDS; b++) {
        below += s->histogram[b];
        open_series(out, "_bucket", i, s);
        put_label(out, "le",
                  text_of(b < PULSE_BOUNDS ? seconds(text, pulse_bounds_us[b]) : "+Inf"));
        buf_printf(out, "} %" PRId64 "\n", below);
    }
    open_series(out, "_sum", i, s);
    buf_printf(out, "} %s\n", seconds(text, s->histogram[PULSE_BOUNDS + 1]));
    open_series(out, "_count", i, s);
    buf_printf(out, "} %" PRId64 "\n", below);
}

static void put_metric(struct buf *out, const struct instances *in, enum metric m)
{
    static const char *const types[] = {
        [METRIC_COUNTER] = "counter", [METRIC_GAUGE] = "gauge", [METRIC_HISTOGRAM] = "histogram"};

    metrics_family(out, metrics[m].name, types[metrics[m].kind], metrics[m].help);
    for (size_t k = 0; k < instances_count(in); k++) {
        const struct instance *i = instances_at(in, k);
        const struct pulse_seen *seen = instance_pulse(i);
        for (size_t s = 0; s < seen->n_samples; s++) {
            const struct pulse_sample *sample = &seen->samples[s];
            if (sample->metric != m)
                continue;
            if (sample->histogram) {
                put_histogram(out, i, sample);
                continue;
            }
            open_series(out, "", i, sample);
            buf_printf(out, "} %" PRId64 "\n", sample->value);
        }
    }
}

static void put_processes(struct buf *out, const struct instances *in, int64_t mono_us)
{
    char text[48];

    metrics_family(out, "stage_processes", "gauge", "Processes of this kind whose pulse is fresh.");
    for (size_t k = 0; k < n_stage_kinds; k++)
        buf_printf(out, PREFIX "stage_processes{stage=\"%s\"} %zu\n", stage_kinds[k].name,
                   instances_sum(in, &stage_kinds[k], mono_us).n_fresh);
    metrics_family(out, "process_info", "gauge", "1 for each process that is known.");
    for (size_t k = 0; k < instances_count(in); k++) {
        open_sample(out, "process_info", "", instances_at(in, k));
        put_label(out, "version", instance_pulse(instances_at(in, k))->message->version);
        buf_str(out, "} 1\n");
    }
    metrics_family(out, "process_start_time_seconds", "gauge",
                   "When it was started, in seconds since 1970, by its own clock.");
    for (size_t k = 0; k < instances_count(in); k++) {
        const struct instance *i = instances_at(in, k);
        open_sample(out, "process_start_time_seconds", "", i);
        buf_printf(out, "} %s\n", seconds(text, instance_pulse(i)->message->started_us));
    }
    metrics_family(out, "process_silent_seconds", "gauge",
                   "Since its last pulse; one comes each second.");
    for (size_t k = 0; k < instances_count(in); k++) {
        const struct instance *i = instances_at(in, k);
        open_sample(out, "process_silent_seconds", "", i);
        buf_printf(out, "} %s\n", seconds(text, instance_silent_us(i, mono_us)));
    }
}

void metrics_stages(struct buf *out, const struct instances *in, int64_t mono_us)
{
    put_processes(out, in, mono_us);
    for (enum metric m = 0; m < N_METRICS; m++)
        put_metric(out, in, m);
}

/* ---- the database ---- */

/* Rows of (family, account, provider, word, value), in the order of the families. A lag is not
 * told of an account that has never been complete until any time. */
const char metrics_accounts_sql[] =
    "WITH late AS (SELECT account_id, max(greatest(extract(epoch FROM now() - watermark) - "
    "coalesce(bucket_seconds, 3600), 0)) AS lag FROM account_feeds WHERE enabled GROUP BY 1), "
    "h AS MATERIALIZED (SELECT account, provider, enabled, state, trouble, lag, extract(epoch FROM "
    "last_success_at) AS success FROM account_health LEFT JOIN late USING (account_id)), "
    "worst AS (SELECT *, row_number() OVER (ORDER BY state <> 'failing', state <> 'partly "
    "failing', lag DESC NULLS FIRST, account) AS place FROM h WHERE enabled), "
    "named AS (SELECT * FROM worst WHERE place <= $1::bigint), "
    "last_run AS (SELECT * FROM fetch_runs WHERE finished_at IS NOT NULL AND jobs > 0 ORDER BY "
    "requested_at DESC LIMIT 1) "
    "SELECT 'account_lag_seconds' AS family, account, provider, NULL AS word, "
    "trim_scale(round(lag, 3))::text AS value, 1 AS part, place FROM named WHERE lag IS NOT NULL "
    "UNION ALL SELECT 'account_last_success_timestamp_seconds', account, provider, NULL, "
    "trim_scale(round(success, 3))::text, 2, place FROM named WHERE success IS NOT NULL "
    "UNION ALL SELECT 'account_failing', account, provider, coalesce(split_part(trouble, ': ', 2), "
    "''), (state IN ('failing', 'partly failing'))::int::text, 3, place FROM named "
    "UNION ALL SELECT 'accounts', NULL, NULL, s, (SELECT count(*) FROM h WHERE state = s)::text, "
    "4, place FROM unnest(ARRAY['ok', 'new', 'catching up', 'partly failing', 'failing', "
    "'disabled']) WITH ORDINALITY AS u (s, place) "
    "UNION ALL SELECT 'account_lag_max_seconds', NULL, NULL, NULL, "
    "trim_scale(round(max(lag), 3))::text, 5, 1 FROM h WHERE enabled HAVING max(lag) IS NOT NULL "
    "UNION ALL SELECT 'dead_letters_open', NULL, NULL, NULL, count(*)::text, 6, 1 FROM "
    "dead_letters WHERE closed_at IS NULL "
    "UNION ALL SELECT 'owed_windows', NULL, NULL, NULL, count(*)::text, 7, 1 FROM owed_windows "
    "WHERE state = 'pending' "
    "UNION ALL SELECT 'runs_unfinished', NULL, NULL, NULL, count(*)::text, 8, 1 FROM fetch_runs "
    "WHERE finished_at IS NULL "
    "UNION ALL SELECT 'last_run_timestamp_seconds', NULL, NULL, NULL, "
    "trim_scale(round(extract(epoch FROM finished_at), 3))::text, 9, 1 FROM last_run "
    "UNION ALL SELECT 'last_run_accounts_failed', NULL, NULL, NULL, accounts_failed::text, 10, 1 "
    "FROM last_run ORDER BY part, place";

static const struct {
    const char *name;
    const char *word; /* what the row's word is; NULL: none */
    const char *help;
} families[] = {
    {"account_lag_seconds", NULL,
     "For how long a bucket that has ended has been missing, in the account's feed that is "
     "farthest behind. At most 200 accounts, worst first."},
    {"account_last_success_timestamp_seconds", NULL,
     "When a reading of some feed of the account last ended well. The same accounts."},
    {"account_failing", "ending",
     "1 while some feed of the account can not be read; ending says why. The same accounts."},
    {"accounts", "state", "Accounts by their state, all of them."},
    {"account_lag_max_seconds", NULL, "The largest account_lag_seconds of all enabled accounts."},
    {"dead_letters_open", NULL, "Pages that could not be understood and still wait for somebody."},
    {"owed_windows", NULL, "Windows of the past that are still to be read."},
    {"runs_unfinished", NULL, "Runs that have begun or were asked for and have not ended."},
    {"last_run_timestamp_seconds", NULL, "When the newest run ended."},
    {"last_run_accounts_failed", NULL, "Accounts that failed in the newest run that has ended."},
};

static void put_row(struct buf *out, const PGresult *r, int row, const char *word)
{
    struct text account = pg_text(r, row, 1), provider = pg_text(r, row, 2);

    buf_printf(out, PREFIX "%s", PQgetvalue(r, row, 0));
    if (account.at || word) {
        buf_str(out, "{");
        if (account.at) {
            put_label(out, "account", account);
            put_label(out, "provider", provider);
        }
        if (word)
            put_label(out, word, pg_text(r, row, 3));
        buf_str(out, "}");
    }
    buf_printf(out, " %s\n", PQgetvalue(r, row, 4));
}

void metrics_accounts(struct buf *out, const PGresult *rows)
{
    int row = 0, n = rows ? PQntuples(rows) : 0;

    metrics_family(out, "database_up", "gauge",
                   "Whether the gateway has an answer of the database.");
    metrics_sample(out, "database_up", NULL, rows ? "1" : "0");
    for (size_t f = 0; f < sizeof(families) / sizeof(families[0]); f++) {
        if (!rows)
            return;
        metrics_family(out, families[f].name, "gauge", families[f].help);
        for (; row < n && strcmp(PQgetvalue(rows, row, 0), families[f].name) == 0; row++)
            put_row(out, rows, row, families[f].word);
    }
}
