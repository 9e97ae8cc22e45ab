/* libpq with bounded waits: which duty an error is, and that a connection is usable after it. */
#include "common/pg.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/stage.h"
#include "tests/private_pg.h"

static const struct {
    const char *name, *sqlstate;
    enum status want;
} status_cases[] = {
    {"none", NULL, ST_RETRY},
    {"empty: the connection was lost", "", ST_RETRY},
    {"connection failure", "08006", ST_RETRY},
    {"serialization failure", "40001", ST_RETRY},
    {"deadlock", "40P01", ST_RETRY},
    {"too many connections", "53300", ST_RETRY},
    {"disk full", "53100", ST_RETRY},
    {"lock not available", "55P03", ST_RETRY},
    {"statement timeout", "57014", ST_RETRY},
    {"shutdown", "57P01", ST_RETRY},
    {"starting up", "57P03", ST_RETRY},
    {"stopped inside a transaction for too long", "25P03", ST_RETRY},
    {"out of range", "22003", ST_REJECT},
    {"bytes that are no UTF-8", "22021", ST_REJECT},
    {"unique violation", "23505", ST_REJECT},
    {"check violation", "23514", ST_REJECT},
    {"no such table", "42P01", ST_FATAL},
    {"not allowed", "42501", ST_FATAL},
    {"wrong password", "28P01", ST_FATAL},
    {"no such database", "3D000", ST_FATAL},
    {"read-only transaction", "25006", ST_RETRY},
    {"internal error", "XX000", ST_FATAL},
    {"a class that begins alike", "2F000", ST_FATAL},
};

static void statuses(void **state)
{
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(status_cases); i++)
        good &= same_int(status_cases[i].name, pg_status(status_cases[i].sqlstate),
                         status_cases[i].want);
    assert_true(good);
}

static const struct {
    const char *name;
    struct text elements[3]; /* the first `n` */
    size_t n;
    const char *want;
} array_cases[] = {
    {"empty", {TEXT_NULL}, 0, "{}"},
    {"one", {TEXT_LIT("a")}, 1, "{\"a\"}"},
    {"null and the word", {TEXT_NULL, TEXT_LIT("NULL")}, 2, "{NULL,\"NULL\"}"},
    {"empty texts", {TEXT_LIT(""), TEXT_LIT("")}, 2, "{\"\",\"\"}"},
    {"a quote", {TEXT_LIT("a\"b")}, 1, "{\"a\\\"b\"}"},
    {"a backslash at the end", {TEXT_LIT("a\\"), TEXT_LIT("b")}, 2, "{\"a\\\\\",\"b\"}"},
    {"a backslash and a quote", {TEXT_LIT("\\\"")}, 1, "{\"\\\\\\\"\"}"},
    {"commas and braces",
     {TEXT_LIT("{a,b}"), TEXT_LIT("}"), TEXT_LIT(",")},
     3,
     "{\"{a,b}\",\"}\",\",\"}"},
    {"an injection", {TEXT_LIT("x\"},{\"y")}, 1, "{\"x\\\"},{\\\"y\"}"},
    {"blanks and line ends", {TEXT_LIT(" a\n\tb ")}, 1, "{\" a\n\tb \"}"},
    {"other alphabets",
     {TEXT_LIT("\303\244\342\202\254\360\237\231\202")},
     1,
     "{\"\303\244\342\202\254\360\237\231\202\"}"},
    {"apostrophes", {TEXT_LIT("'; drop table x; --")}, 1, "{\"'; drop table x; --\"}"},
};

static const char *array_of(struct arena *a, size_t i)
{
    struct pg_array array;

    pg_array_open(&array, a);
    for (size_t k = 0; k < array_cases[i].n; k++)
        pg_array_text(&array, array_cases[i].elements[k]);
    return pg_array_close(&array);
}

static void arrays(void **state)
{
    struct arena *a = arena_new();
    struct pg_array numbers, times, bytes;
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(array_cases); i++)
        good &= same_str(array_cases[i].name, array_of(a, i), array_cases[i].want);
    pg_array_open(&numbers, a);
    assert_false(numbers.any);
    pg_array_int(&numbers, INT64_MIN);
    pg_array_int(&numbers, INT64_MAX);
    good &=
        same_str("numbers", pg_array_close(&numbers), "{-9223372036854775808,9223372036854775807}");
    pg_array_open(&times, a);
    pg_array_time(&times, 0);
    pg_array_time(&times, INT64_C(1793491200000001));
    good &= same_str("times", pg_array_close(&times), "{NULL,\"2026-11-01T00:00:00.000001Z\"}");
    pg_array_open(&bytes, a);
    pg_array_bytea(&bytes, (struct text){"\0\\\"\377", 4});
    pg_array_bytea(&bytes, TEXT_LIT(""));
    pg_array_bytea(&bytes, TEXT_NULL);
    good &= same_str("bytes", pg_array_close(&bytes), "{\"\\\\x005c22ff\",\"\\\\x\",NULL}");
    arena_free(&a);
    assert_true(good);
}

static const struct {
    const char *name, *url;
    enum status want;
    const char *words;
} unreachable_cases[] = {
    {"nobody listens", "postgresql://127.0.0.1:1/x", ST_RETRY, "can not reach Postgres"},
    {"no socket", "postgresql:///x?host=/tmp/uf-no-such-folder", ST_RETRY, "can not reach"},
    {"not a URL", "postgresql://u:hunter2@[::1/x", ST_FATAL, "DATABASE_URL can not be read"},
    {"an unknown word", "postgresql://u:hunter2@127.0.0.1/x?colour=red", ST_FATAL,
     "DATABASE_URL can not be read"},
};

static void unreachable(void **state)
{
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(unreachable_cases); i++) {
        struct pg *pg;
        struct err err = {0};
        pg_open(&pg, unreachable_cases[i].url, "public", "test");
        good &=
            same_int(unreachable_cases[i].name, pg_connect(pg, &err), unreachable_cases[i].want);
        good &= has_words(unreachable_cases[i].name, err.text, unreachable_cases[i].words);
        good &= same_int("shows the password", strstr(err.text, "hunter2") != NULL, false);
        good &= same_int(unreachable_cases[i].name, pg_connected(pg), false);
        good &= same_str(unreachable_cases[i].name, pg_sqlstate(pg), "");
        pg_rollback(pg); /* nothing to roll back */
        pg_close(&pg);
        pg_close(&pg);
    }
    assert_true(good);
}

/* ---- with a server ---- */

static struct pg *pg;
static struct arena *arena;

static int setup(void **state)
{
    (void)state;
    private_pg_open(&pg, &arena);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    private_pg_close(&pg, &arena);
    return 0;
}

static int64_t ask(const char *sql)
{
    struct err err = {0};
    PGresult *r = NULL;

    if (pg_query(pg, &r, arena, sql, NULL, &err) != ST_OK)
        fail_msg("%s: %s", sql, err.text);
    return pg_int(r, 0, 0);
}

static void tell(const char *sql)
{
    struct err err = {0};

    if (pg_exec(pg, sql, &err) != ST_OK)
        fail_msg("%s: %s", sql, err.text);
}

/* Connected, and in no transaction: inside one, Postgres refuses this statement. */
static bool idle(void)
{
    struct err err;

    return pg_connected(pg) && pg_exec(pg, "DISCARD ALL", &err) == ST_OK;
}

static void arrays_arrive_whole(void **state)
{
    bool good = true;

    (void)state;
    NEEDS_POSTGRES();
    for (size_t i = 0; i < ROWS(array_cases); i++) {
        struct pg_params p = {0};
        struct err err = {0};
        PGresult *r = NULL;
        pg_param_text(&p, array_of(arena, i));
        assert_int_equal(pg_query(pg, &r, arena, "SELECT unnest($1::text[])", &p, &err), ST_OK);
        good &= same_int(array_cases[i].name, PQntuples(r), (int64_t)array_cases[i].n);
        for (int k = 0; k < PQntuples(r); k++)
            good &= same_int(array_cases[i].name,
                             text_eq(pg_text(r, k, 0), array_cases[i].elements[k]), true);
    }
    assert_true(good);
}

static void parameters_and_results(void **state)
{
    struct pg_params p = {0};
    struct err err = {0};
    PGresult *r = NULL;

    (void)state;
    NEEDS_POSTGRES();
    pg_param_text(&p, NULL);
    pg_param_text(&p, "");
    pg_param_int(&p, arena, INT64_MIN);
    pg_param_binary(&p, 17, "\0\1", 2);
    assert_int_equal(pg_query(pg, &r, arena, "SELECT $1::text, $2::text, $3::bigint, $4", &p, &err),
                     ST_OK);
    assert_null(pg_text(r, 0, 0).at);
    assert_int_equal(pg_int(r, 0, 0), 0);
    assert_true(pg_text(r, 0, 1).at && pg_text(r, 0, 1).len == 0);
    assert_int_equal(pg_int(r, 0, 2), INT64_MIN);
    assert_true(text_is(pg_text(r, 0, 3), "\\x0001"));
    p = (struct pg_params){.binary_result = true};
    assert_int_equal(pg_query(pg, &r, arena, "SELECT 258::bigint", &p, &err), ST_OK);
    assert_memory_equal(PQgetvalue(r, 0, 0), "\0\0\0\0\0\0\1\2", 8);
    assert_int_equal(pg_query(pg, NULL, NULL, "SELECT 1", NULL, &err), ST_OK);
}

/* What is set for a transaction does not outlive it: a pooler may give the connection away. */
static void settings_end_with_the_transaction(void **state)
{
    struct err err = {0};

    (void)state;
    NEEDS_POSTGRES();
    assert_int_equal(ask("SELECT count(*) FROM pg_settings WHERE name = 'search_path' AND "
                         "setting = 'public'"),
                     0);
    assert_int_equal(pg_begin(pg, &err), ST_OK);
    assert_int_equal(ask("SELECT count(*) FROM pg_settings WHERE (name, setting) IN "
                         "(('search_path', '\"public\"'), ('search_path', 'public'), "
                         "('statement_timeout', '30000'), ('lock_timeout', '10000'), "
                         "('idle_in_transaction_session_timeout', '60000'), ('TimeZone', 'UTC'))"),
                     5);
    /* said where it is true only (db/, "usage_changed_by_others") */
    assert_int_equal(ask("SELECT count(current_setting('uf.sums', true))"), 0);
    assert_int_equal(pg_commit(pg, &err), ST_OK);
    assert_int_equal(ask("SELECT count(*) FROM pg_settings WHERE source = 'session' AND name IN "
                         "('search_path', 'statement_timeout', 'lock_timeout', 'jit')"),
                     0);
}

static const struct {
    const char *name, *sql;
    enum status want;
    const char *want_sqlstate;
} error_cases[] = {
    {"division by zero", "SELECT 1/0", ST_REJECT, "22012"},
    {"not unique", "INSERT INTO errors VALUES (1)", ST_REJECT, "23505"},
    {"a check", "INSERT INTO errors VALUES (-1)", ST_REJECT, "23514"},
    {"no such table", "SELECT * FROM nowhere", ST_FATAL, "42P01"},
    {"no SQL", "SELEKT", ST_FATAL, "42601"},
    {"a deadlock, as the server would say it",
     "DO $$BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '40P01'; END$$", ST_RETRY, "40P01"},
    {"a statement that takes too long", "SET LOCAL statement_timeout = '50ms'; SELECT pg_sleep(5)",
     ST_RETRY, "57014"},
    {"two in one, the second fails", "INSERT INTO errors VALUES (7); SELECT 1/0", ST_REJECT,
     "22012"},
};

static void errors_end_the_transaction(void **state)
{
    int64_t pid;
    bool good = true;

    (void)state;
    NEEDS_POSTGRES();
    tell("CREATE TABLE errors (n int PRIMARY KEY CHECK (n > 0)); INSERT INTO errors VALUES (1)");
    pid = ask("SELECT pg_backend_pid()");
    for (size_t i = 0; i < ROWS(error_cases); i++) {
        struct err err = {0};
        assert_int_equal(pg_begin(pg, &err), ST_OK);
        tell("INSERT INTO errors VALUES (2)");
        good &= same_int(error_cases[i].name, pg_exec(pg, error_cases[i].sql, &err),
                         error_cases[i].want);
        good &= same_str(error_cases[i].name, pg_sqlstate(pg), error_cases[i].want_sqlstate);
        good &= same_int(error_cases[i].name, err.status, error_cases[i].want);
        good &= has_words(error_cases[i].name, err.text, "Postgres: ERROR:");
        good &= same_int(error_cases[i].name, idle(), true);
        good &= same_int(error_cases[i].name, ask("SELECT count(*) FROM errors"), 1);
    }
    assert_true(good);
    assert_int_equal(ask("SELECT pg_backend_pid()"), pid);
    tell("DROP TABLE errors");
}

static void our_own_limit_ends_a_wait(void **state)
{
    struct err err = {0};
    int64_t began = clock_mono_us();

    (void)state;
    NEEDS_POSTGRES();
    pg_wait_limit(pg, 200 * US_PER_MS);
    assert_int_equal(pg_exec(pg, "SELECT pg_sleep(20)", &err), ST_RETRY);
    assert_true(has_words("limit", err.text, "no answer in time"));
    assert_true(clock_mono_us() - began < 10 * US_PER_S);
    assert_false(pg_connected(pg));
    pg_wait_limit(pg, PG_WAIT_DEFAULT_US);
    assert_int_equal(ask("SELECT 5"), 5); /* connects again by itself */
}

/* A stage in the middle of statements that do not come back, as behind somebody's locks. */
static void a_stop_ends_all_waits_in_time(void **state)
{
    int64_t began = clock_mono_us();
    int status = 0;
    pid_t child;

    (void)state;
    NEEDS_POSTGRES();
    child = fork();
    if (child == 0) {
        struct pg *own;
        struct err err = {0};
        (void)stage_wake_fd(); /* listens for SIGTERM */
        pg_open(&own, private_pg_url, "public", "stops");
        for (int i = 0; i < 3; i++)
            if (pg_exec(own, "SELECT pg_sleep(20)", &err) != ST_RETRY)
                _exit(1);
        _exit(0);
    }
    (void)usleep(500 * 1000);
    assert_int_equal(kill(child, SIGTERM), 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_true(clock_mono_us() - began < STAGE_STOP_MAX_US);
}

static enum status copy_all(const char *sql, struct text data, int64_t *out_rows, struct err *err)
{
    TRY(pg_copy_begin(pg, sql, err));
    TRY(pg_copy_put(pg, data, err));
    return pg_copy_end(pg, out_rows, err);
}

static const struct {
    const char *name;
    bool begin, copy;
} lost_cases[] = {
    {"outside a transaction", false, false},
    {"inside one", true, false},
    {"before COPY", false, true},
    {"before COPY inside a transaction", true, true},
};

static void a_lost_connection(void **state)
{
    bool good = true;

    (void)state;
    NEEDS_POSTGRES();
    tell("CREATE TABLE lost (n int)");
    for (size_t i = 0; i < ROWS(lost_cases); i++) {
        struct err err = {0};
        enum status st;
        if (lost_cases[i].begin)
            assert_int_equal(pg_begin(pg, &err), ST_OK);
        private_pg_terminate(pg);
        st = lost_cases[i].copy ? copy_all("COPY lost FROM STDIN", TEXT_LIT("1\n"), NULL, &err)
                                : pg_exec(pg, "INSERT INTO lost VALUES (1)", &err);
        good &= same_int(lost_cases[i].name, st, ST_RETRY);
        good &= has_words(lost_cases[i].name, err.text, "Postgres");
        pg_rollback(pg);
        good &= same_int(lost_cases[i].name, ask("SELECT count(*) FROM lost"), 0);
        good &= same_int(lost_cases[i].name, idle(), true);
    }
    assert_true(good);
    tell("DROP TABLE lost");
}

static void a_transaction_begins_on_a_new_connection(void **state)
{
    struct err err = {0};
    int64_t pid;

    (void)state;
    NEEDS_POSTGRES();
    pid = ask("SELECT pg_backend_pid()");
    private_pg_terminate(pg);
    assert_int_equal(pg_begin(pg, &err), ST_OK);
    assert_int_not_equal(ask("SELECT pg_backend_pid()"), pid);
    assert_int_equal(ask("SELECT count(*) FROM pg_settings WHERE (name, setting) = "
                         "('statement_timeout', '30000')"),
                     1);
    assert_int_equal(pg_commit(pg, &err), ST_OK);
}

static const struct {
    const char *name, *lines;
    size_t repeat_last; /* lines more, so that COPY goes on long after the error */
    enum status want;
    const char *want_sqlstate;
} copy_cases[] = {
    {"a check fails", "1\n2\n9\n", 0, ST_REJECT, "23514"},
    {"no number", "1\nx\n", 0, ST_REJECT, "22P02"},
    {"too many columns", "1\t2\n", 0, ST_REJECT, "22P04"},
    {"megabytes after the error", "x\n1\n", 2000000, ST_REJECT, "22P02"},
    {"good", "1\n2\n3\n", 0, ST_OK, ""},
    {"nothing", "", 0, ST_OK, ""},
    {"good megabytes", "1\n", 2000000, ST_OK, ""},
};

/* BR-092, BR-113: whatever COPY answers is read to the end; the connection is idle after it. */
static void copies(void **state)
{
    bool good = true;

    (void)state;
    NEEDS_POSTGRES();
    tell("CREATE TABLE copies (n int CHECK (n < 5))");
    for (size_t i = 0; i < ROWS(copy_cases); i++) {
        struct buf b = {.arena = arena};
        struct err err = {0};
        int64_t rows = -1, lines = 0;
        buf_str(&b, copy_cases[i].lines);
        for (size_t k = 0; k < copy_cases[i].repeat_last; k++)
            buf_append(&b, "1\n", 2);
        for (size_t k = 0; k < b.len; k++)
            lines += b.at[k] == '\n';
        assert_int_equal(pg_begin(pg, &err), ST_OK);
        good &=
            same_int(copy_cases[i].name,
                     copy_all("COPY copies FROM STDIN", (struct text){b.at, b.len}, &rows, &err),
                     copy_cases[i].want);
        good &= same_str(copy_cases[i].name, pg_sqlstate(pg), copy_cases[i].want_sqlstate);
        if (copy_cases[i].want == ST_OK)
            good &= same_int(copy_cases[i].name, rows, lines);
        pg_rollback(pg);
        good &= same_int(copy_cases[i].name, idle(), true);
        good &= same_int(copy_cases[i].name, ask("SELECT count(*) FROM copies"), 0);
    }
    assert_true(good);
    tell("DROP TABLE copies");
}

static void a_hundred_refused_copies(void **state)
{
    int64_t pid;

    (void)state;
    NEEDS_POSTGRES();
    tell("CREATE TABLE hundred (n int CHECK (n < 5))");
    pid = ask("SELECT pg_backend_pid()");
    for (int i = 0; i < 100; i++) {
        struct err err = {0};
        assert_int_equal(pg_begin(pg, &err), ST_OK);
        assert_int_equal(copy_all("COPY hundred FROM STDIN", TEXT_LIT("1\n9\n"), NULL, &err),
                         ST_REJECT);
        assert_true(idle());
    }
    assert_int_equal(ask("SELECT pg_backend_pid()"), pid);
    assert_int_equal(ask("SELECT count(*) FROM hundred"), 0);
    /* what an earlier test has left asleep is not idle */
    assert_int_equal(ask("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'test' "
                         "AND (state = 'idle' OR pid = pg_backend_pid())"),
                     1);
    tell("DROP TABLE hundred");
}

static void a_copy_that_is_none(void **state)
{
    struct err err = {0};

    (void)state;
    NEEDS_POSTGRES();
    assert_int_equal(copy_all("SELECT 1", TEXT_LIT("1\n"), NULL, &err), ST_FATAL);
    assert_true(idle());
    assert_int_equal(copy_all("COPY nowhere FROM STDIN", TEXT_LIT("1\n"), NULL, &err), ST_FATAL);
    assert_string_equal(pg_sqlstate(pg), "42P01");
    assert_true(idle());
}

static void what_no_waiting_mends(void **state)
{
    struct pg *lost = NULL;
    struct err err = {0};
    char *url;

    (void)state;
    NEEDS_POSTGRES();
    url = arena_printf(arena, "%s&dbname=no_such_database", private_pg_url);
    pg_open(&lost, url, "public", "test");
    assert_int_equal(pg_connect(lost, &err), ST_FATAL);
    assert_true(has_words("database", err.text, "does not exist"));
    pg_close(&lost);
}

static const struct {
    const char *name, *sql;
    enum status want;
    const char *words;
} schema_cases[] = {
    {"nothing there", "SELECT 1", ST_FATAL, "run: usagectl migrate"},
    {"nothing applied", "CREATE TABLE public.schema_migrations (version int)", ST_FATAL,
     "is at version 0"},
    {"newer", "INSERT INTO schema_migrations VALUES (9999)", ST_FATAL, "upgrade the program"},
};

static void schema_versions(void **state)
{
    struct err err = {0};
    bool good = true;

    (void)state;
    NEEDS_POSTGRES();
    for (size_t i = 0; i < ROWS(schema_cases); i++) {
        tell(schema_cases[i].sql);
        good &= same_int(schema_cases[i].name, pg_check_schema(pg, &err), schema_cases[i].want);
        good &= has_words(schema_cases[i].name, err.text, schema_cases[i].words);
        good &= same_int(schema_cases[i].name, idle(), true);
    }
    tell(arena_printf(arena, "UPDATE schema_migrations SET version = %d", PG_SCHEMA_VERSION));
    good &= same_int("as wanted", pg_check_schema(pg, &err), ST_OK);
    tell("DROP TABLE schema_migrations");
    assert_true(good);
}

/* COMMIT may stand behind COPY in the same message, and is done only when the COPY was good. */
static void copy_among_statements(void **state)
{
    static const char sql[] = "INSERT INTO among VALUES (1); COPY among FROM STDIN; "
                              "INSERT INTO among VALUES (3); COMMIT";
    struct err err = {0};

    (void)state;
    NEEDS_POSTGRES();
    tell("CREATE TABLE among (n int PRIMARY KEY)");
    assert_int_equal(pg_begin(pg, &err), ST_OK);
    assert_int_equal(copy_all(sql, TEXT_LIT("1\n"), NULL, &err), ST_REJECT);
    assert_string_equal(pg_sqlstate(pg), "23505");
    assert_true(idle());
    assert_int_equal(ask("SELECT count(*) FROM among"), 0);
    assert_int_equal(pg_begin(pg, &err), ST_OK);
    assert_int_equal(copy_all(sql, TEXT_LIT("2\n"), NULL, &err), ST_OK);
    assert_true(idle());
    assert_int_equal(ask("SELECT sum(n) FROM among"), 6);
    assert_int_equal(copy_all("SELECT 1", TEXT_LIT("2\n"), NULL, &err), ST_FATAL);
    assert_int_equal(copy_all("COPY absent FROM STDIN", TEXT_LIT("2\n"), NULL, &err), ST_FATAL);
    assert_string_equal(pg_sqlstate(pg), "42P01");
    assert_true(idle());
    tell("DROP TABLE among");
}

#define WITH_PG(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

static void put(int64_t v)
{
    struct pg_params p = {0};
    struct err err = {0};

    pg_param_int(&p, arena, v);
    if (pg_query(pg, NULL, NULL, "INSERT INTO deferred VALUES ($1::bigint)", &p, &err) != ST_OK)
        fail_msg("%s", err.text);
}

static void begin_deferred(void)
{
    struct err err = {0};

    assert_int_equal(pg_begin(pg, &err), ST_OK);
    assert_int_equal(pg_defer(pg, &err), ST_OK);
}

/* Sent and not waited for, a transaction is whole all the same, and the connection is free after.
 */
static void a_deferred_commit(void **state)
{
    struct err err = {0};
    bool done = false;
    int polls = 0;

    (void)state;
    NEEDS_POSTGRES();
    tell("CREATE TABLE deferred (v bigint PRIMARY KEY)");
    begin_deferred();
    assert_int_equal(pg_query(pg, NULL, NULL, "SELECT pg_sleep(0.3)", NULL, &err), ST_OK);
    put(1);
    put(2);
    assert_int_equal(pg_deferred_commit(pg, &err), ST_OK);
    for (int64_t began = clock_mono_us(); !done; polls++) {
        assert_int_equal(pg_deferred_poll(pg, &done, &err), ST_OK);
        assert_true(clock_mono_us() - began < 10 * US_PER_S);
    }
    assert_true(polls > 1); /* it did not wait */
    assert_int_equal(ask("SELECT sum(v) FROM deferred"), 3);
    begin_deferred();
    put(3);
    assert_int_equal(pg_deferred_commit(pg, &err), ST_OK);
    assert_int_equal(pg_deferred_wait(pg, &err), ST_OK);
    assert_int_equal(ask("SELECT sum(v) FROM deferred"), 6);
    tell("DROP TABLE deferred");
    assert_true(idle());
}

/* Answers to those who asked, and the transaction goes on. */
static void deferred_results(void **state)
{
    struct err err = {0};
    PGresult *first = NULL, *last = NULL;

    (void)state;
    NEEDS_POSTGRES();
    tell("CREATE TABLE deferred (v bigint PRIMARY KEY)");
    assert_int_equal(pg_begin_deferred(pg, &err), ST_OK);
    assert_int_equal(pg_query(pg, &first, arena, "SHOW statement_timeout", NULL, &err), ST_OK);
    put(1);
    assert_int_equal(pg_query(pg, &last, arena, "SELECT v + 6 FROM deferred", NULL, &err), ST_OK);
    assert_int_equal(pg_deferred_join(pg, &err), ST_OK);
    assert_string_equal(PQgetvalue(first, 0, 0), "30s");
    assert_int_equal(pg_int(last, 0, 0), 7);
    assert_int_equal(pg_defer(pg, &err), ST_OK);
    assert_int_equal(pg_deferred_join(pg, &err), ST_OK); /* of nothing */
    assert_int_equal(ask("SELECT sum(v) FROM deferred"), 1);
    assert_int_equal(pg_defer(pg, &err), ST_OK);
    put(1);
    put(2);
    assert_int_equal(pg_deferred_join(pg, &err), ST_REJECT);
    assert_string_equal(pg_sqlstate(pg), "23505");
    assert_true(idle());
    assert_int_equal(ask("SELECT count(*) FROM deferred"), 0);
    assert_int_equal(pg_begin_deferred(pg, &err), ST_OK);
    put(1);
    assert_int_equal(pg_deferred_join(pg, &err), ST_OK);
    assert_int_equal(pg_commit(pg, &err), ST_OK);
    assert_int_equal(ask("SELECT sum(v) FROM deferred"), 1);
    tell("DROP TABLE deferred");
}

/* The first failure is told, not those that follow from it, and nothing of the rest is done. */
static void a_deferred_failure(void **state)
{
    struct err err = {0};

    (void)state;
    NEEDS_POSTGRES();
    tell("CREATE TABLE deferred (v bigint PRIMARY KEY)");
    begin_deferred();
    put(1);
    put(1);
    put(2);
    assert_int_equal(pg_deferred_commit(pg, &err), ST_OK);
    assert_int_equal(pg_deferred_wait(pg, &err), ST_REJECT);
    assert_string_equal(pg_sqlstate(pg), "23505");
    assert_non_null(strstr(err.text, "deferred_pkey"));
    assert_true(idle());
    assert_int_equal(ask("SELECT count(*) FROM deferred"), 0);
    begin_deferred(); /* given up half way: what was sent is undone */
    put(1);
    pg_rollback(pg);
    assert_int_equal(ask("SELECT count(*) FROM deferred"), 0);
    tell("DROP TABLE deferred");
}

static void a_deferred_loss(void **state)
{
    struct err err = {0};

    (void)state;
    NEEDS_POSTGRES();
    begin_deferred();
    assert_int_equal(
        pg_query(pg, NULL, NULL, "SELECT pg_terminate_backend(pg_backend_pid())", NULL, &err),
        ST_OK);
    assert_int_equal(pg_deferred_commit(pg, &err), ST_OK);
    assert_int_equal(pg_deferred_wait(pg, &err), ST_RETRY);
    assert_false(pg_connected(pg));
    assert_int_equal(pg_socket(pg), -1);
    pg_wait_limit(pg, US_PER_S / 2);
    begin_deferred();
    assert_int_equal(pg_query(pg, NULL, NULL, "SELECT pg_sleep(20)", NULL, &err), ST_OK);
    assert_int_equal(pg_deferred_commit(pg, &err), ST_OK);
    assert_int_equal(pg_deferred_wait(pg, &err), ST_RETRY);
    assert_non_null(strstr(err.text, "no answer in time"));
    assert_int_equal(ask("SELECT 1"), 1); /* by a new connection */
    assert_true(idle());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(statuses),
        cmocka_unit_test(arrays),
        cmocka_unit_test(unreachable),
        WITH_PG(arrays_arrive_whole),
        WITH_PG(a_stop_ends_all_waits_in_time),
        WITH_PG(parameters_and_results),
        WITH_PG(settings_end_with_the_transaction),
        WITH_PG(errors_end_the_transaction),
        WITH_PG(our_own_limit_ends_a_wait),
        WITH_PG(a_lost_connection),
        WITH_PG(a_transaction_begins_on_a_new_connection),
        WITH_PG(copies),
        WITH_PG(copy_among_statements),
        WITH_PG(a_hundred_refused_copies),
        WITH_PG(a_copy_that_is_none),
        WITH_PG(a_deferred_commit),
        WITH_PG(deferred_results),
        WITH_PG(a_deferred_failure),
        WITH_PG(a_deferred_loss),
        WITH_PG(what_no_waiting_mends),
        WITH_PG(schema_versions),
    };

    return cmocka_run_group_tests(tests, private_pg_start, private_pg_stop);
}
