/* /metrics: what Prometheus reads, judged by its own promtool too. */
#include "gateway/metrics.h"

#include <stdlib.h>

#include "common/clock.h"
#include "common/json.h"
#include "common/pg.h"
#include "common/version.h"
#include "gateway/stages.h"
#include "tests/check.h"
#include "tests/private_pg.h"

#define NASTY "a \"quoted\\name\"\n\xff"

static void hear(struct instances *in, unsigned stage, const char *instance, bool busy)
{
    struct pulse *p = pulse_new(stage, instance);
    struct arena *a = arena_new();
    struct buf b = {.arena = a};
    struct err err = {0};

    if (busy && stage == STAGE_FETCHER) {
        size_t nasty = pulse_name(p, TEXT_LIT(NASTY));
        pulse_add(p, M_REQUESTS, nasty, OUTCOME_OK, 3);
        pulse_observe(p, M_REQUEST_DURATION, nasty, OUTCOME_OK, 5000);
        pulse_observe(p, M_REQUEST_DURATION, nasty, OUTCOME_OK, 1250000);
        pulse_observe(p, M_REQUEST_DURATION, nasty, OUTCOME_OK, 90000000);
        pulse_set(p, M_JOBS_HELD, 2);
    }
    pulse_encode(&b, p, clock_mono_us() + 90 * US_PER_S, false);
    if (instances_take(in, (struct text){b.at, b.len}, 10 * US_PER_S, &err) != ST_OK)
        fail_msg("%s", err.text);
    pulse_free(&p);
    arena_free(&a);
}

static struct instances *pipeline(void)
{
    struct instances *in = instances_new();

    hear(in, STAGE_SCHEDULER, "scheduler-1", false);
    hear(in, STAGE_FETCHER, "fetcher-1", true);
    hear(in, STAGE_FETCHER, "fetcher-2", false);
    hear(in, STAGE_WRITER, "writer-1", false);
    return in;
}

/* ---- pulses ---- */

#define WHO                                                                                        \
    "stage=\"fetcher\",process=\"fetcher-1\",provider=\"a \\\"quoted\\\\name\\\"\\n\xef\xbf\xbd\""

static const struct {
    const char *name, *want;
} line_cases[] = {
    {"a counter, its label escaped", "\nusage_fetcher_requests_total{" WHO ",outcome=\"ok\"} 3\n"},
    {"help and type come first",
     "\n# HELP usage_fetcher_requests_total HTTP requests that came to an "
     "end, retries included.\n# TYPE usage_fetcher_requests_total counter\n"},
    {"a bound is inside its bucket",
     "_duration_seconds_bucket{" WHO ",outcome=\"ok\",le=\"0.005\"} 1\n"},
    {"buckets are cumulative", "_duration_seconds_bucket{" WHO ",outcome=\"ok\",le=\"2.5\"} 2\n"},
    {"longer than all", "_duration_seconds_bucket{" WHO ",outcome=\"ok\",le=\"60\"} 2\n"},
    {"the last bucket has all", "_duration_seconds_bucket{" WHO ",outcome=\"ok\",le=\"+Inf\"} 3\n"},
    {"the sum, every digit", "_duration_seconds_sum{" WHO ",outcome=\"ok\"} 91.255\n"},
    {"the count", "_duration_seconds_count{" WHO ",outcome=\"ok\"} 3\n"},
    {"a gauge of each process",
     "\nusage_fetcher_jobs_held{stage=\"fetcher\",process=\"fetcher-1\"} 2\n"
     "usage_fetcher_jobs_held{stage=\"fetcher\",process=\"fetcher-2\"} 0\n"},
    {"how many of each kind", "\nusage_fetcher_stage_processes{stage=\"fetcher\"} 2\n"
                              "usage_fetcher_stage_processes{stage=\"normalizer\"} 0\n"},
    {"who they are",
     "\nusage_fetcher_process_info{stage=\"writer\",process=\"writer-1\",version=\"" UF_VERSION
     "\"} 1\n"},
    {"their silence",
     "\nusage_fetcher_process_silent_seconds{stage=\"writer\",process=\"writer-1\"} 0.5\n"},
};

static void pulses_as_text(void **state)
{
    struct instances *in = pipeline();
    struct buf b = {.arena = arena_new()};
    bool good = true;

    (void)state;
    metrics_stages(&b, in, 10 * US_PER_S + US_PER_S / 2);
    for (size_t i = 0; i < ROWS(line_cases); i++)
        good &= has_words(line_cases[i].name, b.at, line_cases[i].want);
    instances_free(&in);
    arena_free(&b.arena);
    assert_true(good);
}

/* ---- the database ---- */

static const char ledger_sql[] =
    "INSERT INTO accounts (account_id, name, provider, base_url, key_ciphertext, key_hint, "
    "enabled) "
    "SELECT i, 'acct-' || i, 'openai', 'https://x', '', '', i <> 9 FROM generate_series(1, 9) AS i;"
    "INSERT INTO account_feeds (account_id, feed, watermark, bucket_seconds, last_attempt_at, "
    "last_success_at, last_error, consecutive_failures) "
    "SELECT i, 'completions', now() - i * interval '1 hour' - interval '30 minutes', 3600, now(), "
    "now(), 'ok', 0 FROM generate_series(1, 8) AS i;"
    "INSERT INTO account_feeds (account_id, feed, watermark, bucket_seconds, last_attempt_at, "
    "last_success_at, last_error, consecutive_failures) "
    "SELECT i, 'costs', now() - interval '20 hours', 86400, now(), now(), CASE WHEN i = 2 THEN "
    "'auth_invalid' ELSE 'ok' END, CASE WHEN i = 2 THEN 3 ELSE 0 END FROM generate_series(1, 8) AS "
    "i;"
    "INSERT INTO fetch_runs (kind, jobs, finished_at, accounts_failed) VALUES ('manual', 3, "
    "'2026-11-25T03:00:00Z', 2), ('inject', 0, NULL, 0)";

static const struct {
    const char *name, *want;
    bool absent;
} account_cases[] = {
    {"the failing one is first",
     "# TYPE usage_fetcher_account_lag_seconds gauge\n"
     "usage_fetcher_account_lag_seconds{account=\"acct-2\",provider=\""
     "openai\"} 5400\nusage_fetcher_account_lag_seconds{account=\"acct-8\"",
     false},
    {"only as many as are asked for", "account=\"acct-6\"", true},
    {"a day that has not ended is not missing",
     "account_lag_seconds{account=\"acct-7\",provider="
     "\"openai\"} 23400\n",
     false},
    {"why it fails",
     "\nusage_fetcher_account_failing{account=\"acct-2\",provider=\"openai\",ending="
     "\"auth_invalid\"} 1\n",
     false},
    {"those that do not",
     "\nusage_fetcher_account_failing{account=\"acct-8\",provider=\"openai\","
     "ending=\"\"} 0\n",
     false},
    {"all accounts count", "\nusage_fetcher_accounts{state=\"ok\"} 7\n", false},
    {"states that nobody has", "\nusage_fetcher_accounts{state=\"failing\"} 0\n", false},
    {"partly", "\nusage_fetcher_accounts{state=\"partly failing\"} 1\n", false},
    {"disabled ones", "\nusage_fetcher_accounts{state=\"disabled\"} 1\n", false},
    {"the farthest behind", "\nusage_fetcher_account_lag_max_seconds 27000\n", false},
    {"dead letters", "\nusage_fetcher_dead_letters_open 0\n", false},
    {"runs", "\nusage_fetcher_runs_unfinished 1\n", false},
    {"the last run's time", "\nusage_fetcher_last_run_timestamp_seconds 1795575600\n", false},
    {"the last run's failures", "\nusage_fetcher_last_run_accounts_failed 2\n", false},
    {"the database is there", "usage_fetcher_database_up 1\n", false},
};

static struct pg *pg;

static int migrated(void **state)
{
    struct buf sql = {.arena = arena_new()};
    char chunk[4096];
    struct err err = {0};
    size_t n;
    FILE *in;

    if (private_pg_start(state) < 0)
        return -1;
    if (private_pg_url[0]) {
        in = popen("echo 'CREATE TABLE schema_migrations (version integer);'; cat db/*.sql", "r");
        while (in && (n = fread(chunk, 1, sizeof(chunk), in)) > 0)
            buf_append(&sql, chunk, n);
        pg_open(&pg, private_pg_url, "public", "test");
        if (!in || pclose(in) != 0 || pg_connect(pg, &err) != ST_OK ||
            pg_begin(pg, &err) != ST_OK || pg_exec(pg, sql.at, &err) != ST_OK ||
            pg_commit(pg, &err) != ST_OK)
            return -1;
    }
    arena_free(&sql.arena);
    return 0;
}

static int ended(void **state)
{
    pg_close(&pg);
    return private_pg_stop(state);
}

/* In one transaction, so that now() stands still. */
static void ledger_as_text(struct buf *out, const char *most)
{
    struct pg_params p = {0};
    struct err err = {0};
    PGresult *r = NULL;

    pg_param_text(&p, most);
    if (pg_begin(pg, &err) != ST_OK || pg_exec(pg, ledger_sql, &err) != ST_OK ||
        pg_query(pg, &r, out->arena, metrics_accounts_sql, &p, &err) != ST_OK)
        fail_msg("%s", err.text);
    metrics_accounts(out, r);
    pg_rollback(pg);
}

static void accounts_as_text(void **state)
{
    struct buf b = {.arena = arena_new()};
    bool good = true;

    (void)state;
    NEEDS_POSTGRES();
    ledger_as_text(&b, "3");
    for (size_t i = 0; i < ROWS(account_cases); i++)
        good &=
            account_cases[i].absent
                ? same_int(account_cases[i].name, strstr(b.at, account_cases[i].want) != NULL, 0)
                : has_words(account_cases[i].name, b.at, account_cases[i].want);
    b.len = 0;
    metrics_accounts(&b, NULL);
    assert_string_equal(b.at,
                        "# HELP usage_fetcher_database_up Whether the gateway has an answer of "
                        "the database.\n# TYPE usage_fetcher_database_up gauge\n"
                        "usage_fetcher_database_up 0\n");
    arena_free(&b.arena);
    assert_true(good);
}

static void a_family_of_ones_own(void **state)
{
    struct buf b = {.arena = arena_new()};
    static const char *const labels[][2] = {{"path", "/a\"b"}, {"code", "200"}, {NULL, NULL}};

    (void)state;
    metrics_family(&b, "http_requests_total", "counter", "With a back\\slash.");
    metrics_sample(&b, "http_requests_total", labels, "7");
    metrics_sample(&b, "http_requests_total", NULL, "8");
    assert_string_equal(b.at, "# HELP usage_fetcher_http_requests_total With a back\\\\slash.\n"
                              "# TYPE usage_fetcher_http_requests_total counter\n"
                              "usage_fetcher_http_requests_total{path=\"/a\\\"b\",code=\"200\"} 7\n"
                              "usage_fetcher_http_requests_total 8\n");
    arena_free(&b.arena);
}

/* All of it, as a scrape has it, through Prometheus's own check. */
static void promtool_agrees(void **state)
{
    struct instances *in = pipeline();
    struct buf b = {.arena = arena_new()};
    FILE *check = popen("promtool check metrics >&2", "w");

    (void)state;
    assert_non_null(check);
    metrics_stages(&b, in, 10 * US_PER_S);
    if (private_pg_url[0])
        ledger_as_text(&b, "200");
    else
        metrics_accounts(&b, NULL);
    assert_int_equal(fwrite(b.at, 1, b.len, check), b.len);
    assert_int_equal(pclose(check), 0);
    instances_free(&in);
    arena_free(&b.arena);
}

/* ---- /api/v1/stages ---- */

static const struct {
    const char *name, *want;
} json_cases[] = {
    {"when",
     "{\"at\":\"2026-11-25T03:00:00Z\",\"stages\":[{\"stage\":\"scheduler\",\"ready\":true,"},
    {"a kind with its sums",
     "{\"stage\":\"fetcher\",\"ready\":true,\"instances\":2,\"fresh\":2,\"queue\":2,\"queue_of\":"
     "\"jobs held\",\"work_of\":\"requests\",\"work_10s\":0.000,\"work_60s\":0.000,"
     "\"warnings\":0,\"errors\":0}"},
    {"a kind that nobody hears",
     "{\"stage\":\"normalizer\",\"ready\":false,\"instances\":0,\"fresh\":0,\"queue\":null,"
     "\"queue_of\":null,"},
    {"a process", "\"uptime_s\":90,\"silent_ms\":0,\"fresh\":true,\"queue\":2,"},
    {"a counter", "\"requests_total\":{\"total\":3,\"per_s_10s\":0.000,\"per_s_60s\":0.000}"},
    {"gauges", "\"gauges\":{\"jobs_held\":2,\"requests_in_flight\":0,\"pages_blocked\":0}"},
    {"durations", "\"request_duration_seconds\":{\"count\":3,\"mean_s\":30.418333}"},
    {"no durations", "\"commit_duration_seconds\":{\"count\":0,\"mean_s\":null}"},
};

static void pulses_as_json(void **state)
{
    struct instances *in = pipeline();
    struct buf b = {.arena = arena_new()};
    struct json_doc doc;
    struct err err = {0};
    bool good = true;

    (void)state;
    stages_write(&b, in, INT64_C(1795575600) * US_PER_S, 10 * US_PER_S);
    for (size_t i = 0; i < ROWS(json_cases); i++)
        good &= has_words(json_cases[i].name, b.at, json_cases[i].want);
    if (json_parse(&doc, b.arena, (struct text){b.at, b.len}, &err) != ST_OK)
        fail_msg("%s", err.text);
    assert_int_equal(json_member(doc.root, "stages")->n, 4);
    assert_int_equal(json_member(doc.root, "instances")->n, 4);
    instances_free(&in);
    arena_free(&b.arena);
    assert_true(good);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pulses_as_text),       cmocka_unit_test(accounts_as_text),
        cmocka_unit_test(a_family_of_ones_own), cmocka_unit_test(promtool_agrees),
        cmocka_unit_test(pulses_as_json),
    };

    return cmocka_run_group_tests(tests, migrated, ended);
}
