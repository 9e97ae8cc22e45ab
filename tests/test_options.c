/* Settings: what a process takes from its environment, and how each refusal helps. */
#include "common/options.h"

#include <ctype.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/arena.h"
#include "tests/check.h"

#define HEX_KEY "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
#define DB      "DATABASE_URL=postgresql://uf:secret@db.example/usage"

/* An environment of its own for each case: NAME=value lines. */
static void environment(const char *lines)
{
    char copy[1024];
    char *line, *rest = copy;

    clearenv();
    (void)snprintf(copy, sizeof(copy), "%s", lines);
    while ((line = strsep(&rest, "\n"))) {
        char *equals = strchr(line, '=');
        if (!equals)
            continue;
        *equals = '\0';
        setenv(line, equals + 1, 1);
    }
}

static const struct {
    const char *name, *lines;
    enum stage_mask stage;
    const char *want; /* words of the message; NULL: loads */
} load_cases[] = {
    {"a scheduler with its database", DB, STAGE_SCHEDULER, NULL},
    {"a normalizer needs nothing", "", STAGE_NORMALIZER, NULL},
    {"usagectl needs nothing to begin with", "", STAGE_CLI, NULL},
    {"a fetcher with its key", "ENCRYPTION_KEY=" HEX_KEY, STAGE_FETCHER, NULL},
    {"an empty value counts as unset", DB "\nUF_LEASE=", STAGE_SCHEDULER, NULL},
    {"another program's variables are none of ours", DB "\nPATH=/bin\nUFO=1", STAGE_WRITER, NULL},
    {"another stage's setting is known", "UF_BATCH_MS=nonsense", STAGE_NORMALIZER, NULL},
    {"a keyword connection string", "DATABASE_URL=host=/run dbname=usage", STAGE_WRITER, NULL},
    {"no database", "", STAGE_SCHEDULER, "DATABASE_URL is not set"},
    {"no database, writer", "", STAGE_WRITER, "postgresql://USER:PASSWORD@HOST:5432/DATABASE"},
    {"no key", "", STAGE_FETCHER, "ENCRYPTION_KEY is not set"},
    {"a short key", "ENCRYPTION_KEY=abc", STAGE_FETCHER, "ENCRYPTION_KEY: an encryption key is 32"},
    {"a web address as database", "DATABASE_URL=https://abc.supabase.co", STAGE_WRITER,
     "begins with postgresql://"},
    {"a mistyped name", "UF_SCHEDUL=* * * * *", STAGE_NORMALIZER, "did you mean UF_SCHEDULE?"},
    {"letters swapped", "UF_BUKCET=1h", STAGE_NORMALIZER, "UF_BUKCET: did you mean UF_BUCKET?"},
    {"nothing near", "UF_COFFEE_MACHINE=1", STAGE_NORMALIZER, "--help lists the known ones"},
    {"a _FILE of what is no secret", "UF_LOG_FILE=/x", STAGE_NORMALIZER, "unknown setting"},
    {"below the range", DB "\nUF_LEASE=1s", STAGE_SCHEDULER,
     "UF_LEASE=\"1s\": out of range: 2s to 1h"},
    {"above the range", DB "\nUF_LEASE=2h", STAGE_SCHEDULER, "out of range: 2s to 1h"},
    {"a duration without unit", DB "\nUF_LEASE=120", STAGE_SCHEDULER, "no unit"},
    {"no number", DB "\nUF_PAGE_CAP=many", STAGE_SCHEDULER, "write a whole number"},
    {"a negative number", DB "\nUF_PAGE_CAP=-1", STAGE_SCHEDULER, "write a whole number"},
    {"a number beyond 64 bits", DB "\nUF_PAGE_CAP=99999999999999999999", STAGE_SCHEDULER,
     "too large"},
    {"zero of what must be one", DB "\nUF_MAX_OUTSTANDING=0", STAGE_SCHEDULER, "1 to 100000"},
    {"a size in another unit", "ENCRYPTION_KEY=" HEX_KEY "\nUF_MAX_BODY=16MB", STAGE_FETCHER,
     "\"16MiB\""},
    {"a size too large", "ENCRYPTION_KEY=" HEX_KEY "\nUF_MAX_BODY=1GiB", STAGE_FETCHER,
     "1KiB to 64MiB"},
    {"another bucket", DB "\nUF_BUCKET=15m", STAGE_SCHEDULER, "write 1m, 1h or 1d"},
    {"a bad schedule", DB "\nUF_SCHEDULE=*/15 * * 13 *", STAGE_SCHEDULER, "column 10, month"},
    {"a switch that is neither", "UF_ALLOW_PLAINTEXT=maybe", STAGE_NORMALIZER, "write 1 or 0"},
    {"another level", "UF_LOG=loud", STAGE_NORMALIZER, "write debug, info, warn or error"},
    {"a schema that needs quotes", DB "\nUF_SCHEMA=Usage", STAGE_WRITER, "write a plain SQL name"},
    {"a schema that begins with a digit", DB "\nUF_SCHEMA=1a", STAGE_WRITER, "plain SQL name"},
    {"a schema with a statement in it", DB "\nUF_SCHEMA=a;drop", STAGE_WRITER, "plain SQL name"},
    {"an instance with a slash", "UF_INSTANCE=a/b", STAGE_NORMALIZER, "letters, digits and '-'"},
    {"an endpoint without scheme", "UF_PAGES=localhost:5555", STAGE_NORMALIZER, "tcp://HOST:PORT"},
    {"an empty endpoint of a list", "UF_PAGES=tcp://a:1,", STAGE_NORMALIZER, "tcp://HOST:PORT"},
    {"a file that is not there", "ENCRYPTION_KEY=" HEX_KEY "\nUF_CA_FILE=/nonexistent",
     STAGE_FETCHER, "UF_CA_FILE=\"/nonexistent\": can not read"},
    {"a secret's file that is not there", "ENCRYPTION_KEY_FILE=/nonexistent", STAGE_FETCHER,
     "ENCRYPTION_KEY_FILE: can not read /nonexistent"},
    {"both a secret and its file", "ENCRYPTION_KEY=" HEX_KEY "\nENCRYPTION_KEY_FILE=/x",
     STAGE_FETCHER, "ENCRYPTION_KEY and ENCRYPTION_KEY_FILE are both set"},
    {"Supabase: a service key is no password",
     "NEXT_PUBLIC_SUPABASE_URL=https://abc.supabase.co\nSUPABASE_SERVICE_KEY=eyJ", STAGE_SCHEDULER,
     "no database password): set DATABASE_URL to the connection string (Supabase dashboard"},
    {"Supabase: the address alone", "NEXT_PUBLIC_SUPABASE_URL=https://abc.supabase.co",
     STAGE_SCHEDULER, "SUPABASE_DB_PASSWORD beside"},
    {"Supabase: the password alone", "SUPABASE_DB_PASSWORD=x", STAGE_SCHEDULER,
     "NEXT_PUBLIC_SUPABASE_URL=https://REF.supabase.co"},
    {"Supabase: an address of another kind",
     "NEXT_PUBLIC_SUPABASE_URL=http://127.0.0.1:54321\nSUPABASE_DB_PASSWORD=x", STAGE_SCHEDULER,
     "is not https://REF.supabase.co"},
};

static void environments(void **state)
{
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(load_cases); i++) {
        const char *name = load_cases[i].name;
        struct config cfg = {0};
        struct err err = {0};
        enum status st;

        environment(load_cases[i].lines);
        st = config_load_env(&cfg, load_cases[i].stage, "tester", &err);
        good &= same_int(name, st, load_cases[i].want ? ST_FATAL : ST_OK);
        good &= has_words(name, err.text, load_cases[i].want);
        good &= same_int(name, strstr(err.text, HEX_KEY) != NULL, false);
        config_wipe(&cfg);
    }
    assert_true(good);
}

static void defaults(void **state)
{
    struct config cfg;
    struct err err;

    (void)state;
    environment(DB "\nUF_RUN_DIR=/run/uf");
    assert_int_equal(config_load_env(&cfg, STAGE_SCHEDULER, "scheduler", &err), ST_OK);
    assert_string_equal(cfg.database_url, "postgresql://uf:secret@db.example/usage");
    assert_string_equal(cfg.schema, "public");
    assert_int_equal(cfg.bucket_s, 3600);
    assert_int_equal(cfg.backfill_s, 7 * 86400);
    assert_int_equal(cfg.lease_s, 120);
    assert_int_equal(cfg.max_outstanding, 4096);
    assert_int_equal(cfg.in_flight, 256);
    assert_int_equal(cfg.per_host, 64);
    assert_int_equal(cfg.request_timeout_s, 60);
    assert_int_equal(cfg.page_cap, 200);
    assert_int_equal(cfg.max_body, 16 << 20);
    assert_int_equal(cfg.batch_rows, 5000);
    assert_int_equal(cfg.batch_bytes, 8 << 20);
    assert_int_equal(cfg.batch_ms, 250);
    assert_int_equal(cfg.log_level, LOG_INFO);
    assert_string_equal(cfg.allow_http, "0");
    assert_false(cfg.allow_plaintext);
    assert_null(cfg.ca_file);
    assert_int_equal(cfg.encryption_key.len, 0);
    assert_string_equal(cfg.run_dir, "/run/uf");
    assert_string_equal(cfg.jobs, "ipc:///run/uf/jobs");
    assert_string_equal(cfg.pages, "ipc:///run/uf/pages");
    assert_string_equal(cfg.records, "ipc:///run/uf/records");
    assert_string_equal(cfg.acks, "ipc:///run/uf/acks");
    assert_string_equal(cfg.control, "ipc:///run/uf/control");
    assert_string_equal(cfg.pulse, "ipc:///run/uf/pulse");
    assert_true(cfg.schedule.minutes ==
                (UINT64_C(1) | UINT64_C(1) << 15 | UINT64_C(1) << 30 | UINT64_C(1) << 45));
    assert_memory_equal(cfg.instance, "scheduler-", 10);
    assert_true(strlen(cfg.instance) > 17);
    config_wipe(&cfg);
}

static void given_values(void **state)
{
    struct config cfg;
    struct err err;

    (void)state;
    environment("ENCRYPTION_KEY=" HEX_KEY "\nUF_MAX_BODY=512KiB\nUF_ALLOW_HTTP=1\nUF_LOG=debug\n"
                "UF_INSTANCE=fetcher-7\nUF_REQUEST_TIMEOUT=1m30s\nUF_JOBS=tcp://a:1, tcp://b:2\n"
                "UF_LEASE=20s\nUF_CA_FILE=/dev/null");
    assert_int_equal(config_load_env(&cfg, STAGE_FETCHER, "fetcher", &err), ST_OK);
    assert_int_equal(cfg.max_body, 512 << 10);
    assert_string_equal(cfg.allow_http, "1");
    assert_int_equal(cfg.log_level, LOG_DEBUG);
    assert_string_equal(cfg.instance, "fetcher-7");
    assert_int_equal(cfg.request_timeout_s, 90);
    assert_string_equal(cfg.jobs, "tcp://a:1, tcp://b:2");
    assert_string_equal(cfg.ca_file, "/dev/null");
    assert_int_equal(cfg.encryption_key.len, ENCRYPTION_KEY_LEN);
    assert_int_equal(cfg.encryption_key.at[31], 31);
    assert_int_equal(cfg.lease_s, 120); /* the scheduler's: not read here */
    assert_null(cfg.database_url);
    config_wipe(&cfg);
    assert_null(cfg.encryption_key.at);
}

static void secrets_are_not_read_where_they_are_not_used(void **state)
{
    struct config cfg;
    struct err err;

    (void)state;
    environment(DB "\nENCRYPTION_KEY_FILE=/nonexistent");
    assert_int_equal(config_load_env(&cfg, STAGE_SCHEDULER, "scheduler", &err), ST_OK);
    assert_int_equal(cfg.encryption_key.len, 0);
    config_wipe(&cfg);
}

static const struct {
    const char *name, *content, *want; /* words of the message; NULL: loads */
    size_t len;
} file_cases[] = {
    {"a line", HEX_KEY "\n", NULL, 65},        {"a line of Windows", HEX_KEY "\r\n", NULL, 66},
    {"no line end", HEX_KEY, NULL, 64},        {"empty", "", "is empty", 0},
    {"a line end alone", "\n", "is empty", 1}, {"a NUL inside", "ab\0cd", "NUL byte", 5},
};

static void secrets_from_files(void **state)
{
    char path[] = "/tmp/uf-test-XXXXXX", lines[128];
    int fd = mkstemp(path);
    bool good = true;

    (void)state;
    assert_true(fd >= 0);
    (void)snprintf(lines, sizeof(lines), "ENCRYPTION_KEY_FILE=%s", path);
    for (size_t i = 0; i < ROWS(file_cases); i++) {
        struct config cfg = {0};
        struct err err = {0};

        assert_int_equal(ftruncate(fd, 0), 0);
        assert_int_equal(pwrite(fd, file_cases[i].content, file_cases[i].len, 0),
                         file_cases[i].len);
        environment(lines);
        good &= same_int(file_cases[i].name, config_load_env(&cfg, STAGE_FETCHER, "f", &err),
                         file_cases[i].want ? ST_FATAL : ST_OK);
        good &= has_words(file_cases[i].name, err.text, file_cases[i].want);
        config_wipe(&cfg);
    }
    close(fd);
    unlink(path);
    assert_true(good);
}

static void supabase_becomes_a_connection_string(void **state)
{
    struct config cfg;
    struct err err;

    (void)state;
    environment("NEXT_PUBLIC_SUPABASE_URL=https://abcdef.supabase.co/\n"
                "SUPABASE_DB_PASSWORD=p@ss/w:d%");
    assert_int_equal(config_load_env(&cfg, STAGE_WRITER, "writer", &err), ST_OK);
    assert_string_equal(cfg.database_url,
                        "postgresql://postgres:p%40ss%2Fw%3Ad%25@db.abcdef.supabase.co:5432/"
                        "postgres?sslmode=require");
    config_wipe(&cfg);
}

static void usagectl_asks_later(void **state)
{
    struct config cfg;
    struct err err;

    (void)state;
    environment("SUPABASE_SERVICE_KEY=eyJ");
    assert_int_equal(config_load_env(&cfg, STAGE_CLI, "usagectl", &err), ST_OK);
    assert_null(cfg.database_url);
    assert_int_equal(config_need_database(&cfg, &err), ST_FATAL);
    assert_non_null(strstr(err.text, "no database password"));
    config_wipe(&cfg);
}

static const struct {
    const char *name, *url, *want;
} url_cases[] = {
    {"a password", "postgresql://uf:secret@db.example/usage", "postgresql://uf@db.example/usage"},
    {"an @ in the password", "postgres://uf:s@cret@db/usage", "postgres://uf@db/usage"},
    {"no password", "postgresql://uf@db/usage", "postgresql://uf@db/usage"},
    {"no user", "postgresql:///usage?host=/run&password=secret", "postgresql:///usage"},
    {"a parameter", "postgresql://uf@db/usage?password=secret", "postgresql://uf@db/usage"},
    {"keywords", "host=db password=secret user=uf dbname=usage", "host=db user=uf dbname=usage"},
    {"a quoted password", "password='a host=b \\' c' host = db", "host=db"},
    {"an open quote", "host=db password='secret", "host=db"},
    {"a password that looks like a URL", "host=db password=a://secret", "host=db"},
    {"an @ in a password parameter", "postgresql://db/usage?password=secret@x",
     "postgresql://[redacted]"},
    {"an @ behind a ? in the password", "postgresql://uf:se?cr@et@db/usage",
     "postgresql://[redacted]"},
};

static void connection_strings_without_password(void **state)
{
    struct arena *a = arena_new();
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(url_cases); i++)
        good &= same_str(url_cases[i].name, database_url_redacted(a, url_cases[i].url),
                         url_cases[i].want);
    assert_true(good);
    arena_free(&a);
}

static const struct {
    const char *name, *word, *want;
} word_cases[] = {
    {"itself", "status", "status"},         {"a letter less", "statu", "status"},
    {"a letter more", "injectt", "inject"}, {"a wrong letter", "ran", "run"},
    {"two swapped", "rnu", "run"},          {"capitals", "DOCTOR", "doctor"},
    {"far from all", "coffee", NULL},       {"empty", "", NULL},
};

static void near_words(void **state)
{
    static const char *const words[] = {"status", "inject", "run", "doctor", "account"};
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(word_cases); i++)
        good &= same_str(word_cases[i].name, nearest_word(word_cases[i].word, words, ROWS(words)),
                         word_cases[i].want);
    assert_true(good);
}

/* What a process that is started with `argument` prints on stdout, and how it ends. */
static int started_with(const char *argument, char *out, size_t size)
{
    char name[] = "uf-scheduler", copy[32];
    char *argv[] = {name, copy, NULL};
    int ends[2], status;
    size_t len = 0;
    ssize_t n;
    pid_t child;

    (void)snprintf(copy, sizeof(copy), "%s", argument);
    assert_int_equal(pipe(ends), 0);
    child = fork();
    if (child == 0) {
        struct config cfg;
        struct err err;

        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        _exit(config_load(&cfg, STAGE_SCHEDULER, "scheduler", "claims due accounts", 2, argv,
                          &err) == ST_FATAL
                  ? 100
                  : 99);
    }
    close(ends[1]);
    while (len < size - 1 && (n = read(ends[0], out + len, size - 1 - len)) > 0)
        len += (size_t)n;
    out[len] = '\0';
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void arguments(void **state)
{
    static char out[16384];

    (void)state;
    environment("");
    assert_int_equal(started_with("--help", out, sizeof(out)), 0);
    assert_non_null(strstr(out, "claims due accounts"));
    assert_non_null(strstr(out, "UF_SCHEDULE  (cron expression; default */15 * * * *)"));
    assert_non_null(strstr(out, "DATABASE_URL[_FILE]"));
    assert_null(strstr(out, "UF_BATCH_MS")); /* the writer's */
    for (const char *line = out; *line; line += strcspn(line, "\n") + 1)
        assert_true(strcspn(line, "\n") <= 80);
    assert_int_equal(started_with("--version", out, sizeof(out)), 0);
    assert_memory_equal(out, "uf-scheduler ", 13);
    assert_int_equal(started_with("--fast", out, sizeof(out)), 100);
    assert_string_equal(out, "");
}

static void the_document_has_every_setting(void **state)
{
    static const char *const names[] = {"DATABASE_URL", "ENCRYPTION_KEY", "CRON_API_KEY",
                                        "UF_HTTP",      "UF_FETCHERS",    "UF_SCHEDULE",
                                        "UF_LOG",       "UF_PULSE",       "SUPABASE_SERVICE_KEY"};
    char *text = NULL;
    size_t len;
    FILE *f = open_memstream(&text, &len);

    (void)state;
    config_write_markdown(f);
    assert_int_equal(fclose(f), 0);
    for (size_t i = 0; i < ROWS(names); i++) {
        char row[64];
        (void)snprintf(row, sizeof(row), "| `%s`", names[i]);
        if (!strstr(text, row))
            fail_msg("%s is missing", names[i]);
    }
    assert_non_null(strstr(text, "## Database"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(environments),
        cmocka_unit_test(defaults),
        cmocka_unit_test(given_values),
        cmocka_unit_test(secrets_are_not_read_where_they_are_not_used),
        cmocka_unit_test(secrets_from_files),
        cmocka_unit_test(supabase_becomes_a_connection_string),
        cmocka_unit_test(usagectl_asks_later),
        cmocka_unit_test(connection_strings_without_password),
        cmocka_unit_test(near_words),
        cmocka_unit_test(arguments),
        cmocka_unit_test(the_document_has_every_setting),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
