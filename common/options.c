#include "common/options.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "common/arena.h"
#include "common/clock.h"
#include "common/keys.h"
#include "common/text.h"
#include "common/version.h"

#define SECRET_FILE_MAX 65536
#define HELP_COLUMNS    80
#define WORD_MAX        64

enum kind {
    KIND_TEXT,
    KIND_FILE,
    KIND_IDENTIFIER,
    KIND_INSTANCE,
    KIND_HOSTS,
    KIND_ENDPOINTS,
    KIND_NUMBER,
    KIND_SIZE,
    KIND_DURATION,
    KIND_BUCKET,
    KIND_SWITCH,
    KIND_SCHEDULE,
    KIND_LEVEL,
    KIND_ENCRYPTION_KEY,
    KIND_SECRET,
    KIND_CURVE_SECRET,
    KIND_DATABASE, /* DATABASE_URL and the Supabase variables: database_find puts them together */
};

struct option {
    const char *name;
    enum kind kind;
    unsigned stages;          /* enum stage_mask: who reads it; 0 = not one of the stages */
    const char *initial;      /* the default; NULL = none */
    const char *least, *most; /* in the same form as a value; NULL = no limit */
    size_t offset;            /* in struct config */
    const char *group;        /* heading in docs/config.md */
    const char *meaning;
};

#define AT(field) offsetof(struct config, field)
#define NOWHERE   SIZE_MAX
#define RUN_DIR   "$UF_RUN_DIR" /* in a default: the run folder */

#define DATABASE "Database"
#define KEYS     "Keys"
#define CYCLES   "Cycles"
#define FETCHING "Fetching"
#define WRITING  "Writing"
#define LINKS    "Links between the processes"
#define HTTP     "Dashboard and HTTP interface"
#define PROCESS  "Every process"

static const struct option options[] = {
    {"DATABASE_URL", KIND_DATABASE, STAGE_DATABASE, NULL, NULL, NULL, AT(database_url), DATABASE,
     "Postgres connection string: postgresql://USER:PASSWORD@HOST:5432/DATABASE"},
    {"NEXT_PUBLIC_SUPABASE_URL", KIND_DATABASE, STAGE_DATABASE, NULL, NULL, NULL, NOWHERE, DATABASE,
     "https://REF.supabase.co; with SUPABASE_DB_PASSWORD it stands for DATABASE_URL"},
    {"SUPABASE_DB_PASSWORD", KIND_DATABASE, STAGE_DATABASE, NULL, NULL, NULL, NOWHERE, DATABASE,
     "password of the Supabase project's Postgres"},
    {"SUPABASE_SERVICE_KEY", KIND_DATABASE, STAGE_DATABASE, NULL, NULL, NULL, NOWHERE, DATABASE,
     "not used: it is a key of Supabase's HTTP API, and no database password"},
    {"UF_SCHEMA", KIND_IDENTIFIER, STAGE_DATABASE, "public", NULL, NULL, AT(schema), DATABASE,
     "schema of the tables"},

    {"ENCRYPTION_KEY", KIND_ENCRYPTION_KEY, STAGE_FETCHER | STAGE_CLI, NULL, NULL, NULL,
     AT(encryption_key), KEYS,
     "seals the providers' keys in the database: 32 bytes as base64 or 64 hex digits; make one "
     "with \"usagectl keygen\""},
    {"ENCRYPTION_KEY_OLD", KIND_ENCRYPTION_KEY, STAGE_FETCHER | STAGE_CLI, NULL, NULL, NULL,
     AT(encryption_key_old), KEYS,
     "the ENCRYPTION_KEY before this one, which still opens what it sealed, until \"usagectl "
     "rekey\" "
     "is done"},
    {"UF_PERSON_KEY", KIND_ENCRYPTION_KEY, STAGE_NORMALIZER, NULL, NULL, NULL, AT(person_key), KEYS,
     "turns the e-mail addresses in a provider's reports into hashes before anything is stored: 32 "
     "bytes as base64 or 64 hex digits; without it people are not told apart"},
    {"UF_KEEP_EMAIL", KIND_SWITCH, STAGE_NORMALIZER, "0", NULL, NULL, AT(keep_email), KEYS,
     "1 = store e-mail addresses of people as they come, in usage_metrics.user_id"},
    {"CRON_API_KEY", KIND_SECRET, STAGE_GATEWAY, NULL, NULL, NULL, AT(cron_api_key), KEYS,
     "what the HTTP trigger asks its callers for: at least 32 characters; make one with "
     "\"usagectl keygen\""},
    {"UF_DASHBOARD_TOKEN", KIND_SECRET, STAGE_GATEWAY, NULL, NULL, NULL, AT(dashboard_token), KEYS,
     "what the dashboard and the HTTP interface ask for: at least 16 characters; without it they "
     "answer this host only"},

    {"UF_SCHEDULE", KIND_SCHEDULE, STAGE_SCHEDULER | STAGE_CLI, "*/15 * * * *", NULL, NULL,
     AT(schedule), CYCLES, "when a cycle begins: minute hour day month weekday, in UTC"},
    {"UF_BUCKET", KIND_BUCKET, STAGE_SCHEDULER | STAGE_CLI, "1h", NULL, NULL, AT(bucket_s), CYCLES,
     "width of the usage buckets asked for; a feed that has no such width uses its next "
     "narrower one"},
    {"UF_BACKFILL", KIND_DURATION, STAGE_SCHEDULER | STAGE_CLI, "7d", "1h", "3650d", AT(backfill_s),
     CYCLES, "how far back a new account's first cycle reaches, to the beginning of a day (UTC)"},
    {"UF_LEASE", KIND_DURATION, STAGE_SCHEDULER, "120s", "2s", "1h", AT(lease_s), CYCLES,
     "how long a job may take, from its claim to the last acknowledgement, before it is offered "
     "again"},
    {"UF_MAX_OUTSTANDING", KIND_NUMBER, STAGE_SCHEDULER, "4096", "1", "100000", AT(max_outstanding),
     CYCLES, "jobs claimed and not yet settled, per scheduler"},
    {"UF_PAGE_CAP", KIND_NUMBER, STAGE_SCHEDULER | STAGE_FETCHER, "200", "1", "100000",
     AT(page_cap), CYCLES, "pages of one feed in one job; what is left is read by the next job"},

    {"UF_IN_FLIGHT", KIND_NUMBER, STAGE_FETCHER, "256", "1", "10000", AT(in_flight), FETCHING,
     "accounts that one fetcher reads at once"},
    {"UF_PER_HOST", KIND_NUMBER, STAGE_FETCHER, "64", "1", "10000", AT(per_host), FETCHING,
     "connections of one fetcher to one host"},
    {"UF_REQUEST_TIMEOUT", KIND_DURATION, STAGE_FETCHER | STAGE_CLI, "60s", "1s", "10m",
     AT(request_timeout_s), FETCHING, "one HTTP request, from connecting to the last byte"},
    {"UF_MAX_BODY", KIND_SIZE, STAGE_FETCHER | STAGE_CLI, "16MiB", "1KiB", "64MiB", AT(max_body),
     FETCHING, "largest answer taken, after decompression"},
    {"UF_ALLOW_HTTP", KIND_HOSTS, STAGE_FETCHER | STAGE_CLI, "0", NULL, NULL, AT(allow_http),
     FETCHING,
     "hosts, with commas between, that plain http:// may go to beside this one; 1 = any; keys then "
     "travel unencrypted"},
    {"UF_CA_FILE", KIND_FILE, STAGE_FETCHER | STAGE_CLI, NULL, NULL, NULL, AT(ca_file), FETCHING,
     "PEM file of certificates to trust beside the system's"},
    {"UF_FETCHERS", KIND_NUMBER, 0, "2", "1", "1000", NOWHERE, FETCHING,
     "fetchers that \"make run\" starts"},

    {"UF_BATCH_ROWS", KIND_NUMBER, STAGE_WRITER, "5000", "1", "1000000", AT(batch_rows), WRITING,
     "a batch is committed once it has this many rows"},
    {"UF_BATCH_BYTES", KIND_SIZE, STAGE_WRITER, "8MiB", "1KiB", "64MiB", AT(batch_bytes), WRITING,
     "or once it has this many bytes"},
    {"UF_BATCH_MS", KIND_NUMBER, STAGE_WRITER, "250", "0", "60000", AT(batch_ms), WRITING,
     "or this many milliseconds after its first row, or sooner when no more come"},
    {"UF_SUM_AFTER", KIND_DURATION, STAGE_WRITER, "2m", "0s", "1d", AT(sum_after_s), WRITING,
     "a day that has changed is summed up for the gateway's figures this long after"},

    {"UF_RUN_DIR", KIND_TEXT, STAGE_ALL, "var/run", NULL, NULL, AT(run_dir), LINKS,
     "folder of the sockets by which the processes of one machine meet"},
    {"UF_JOBS", KIND_ENDPOINTS, STAGE_SCHEDULER | STAGE_FETCHER, "ipc://" RUN_DIR "/jobs", NULL,
     NULL, AT(jobs), LINKS, "scheduler to fetcher: jobs"},
    {"UF_PAGES", KIND_ENDPOINTS, STAGE_FETCHER | STAGE_NORMALIZER, "ipc://" RUN_DIR "/pages", NULL,
     NULL, AT(pages), LINKS, "fetcher to normalizer: raw pages"},
    {"UF_RECORDS", KIND_ENDPOINTS, STAGE_NORMALIZER | STAGE_WRITER, "ipc://" RUN_DIR "/records",
     NULL, NULL, AT(records), LINKS, "normalizer to writer: usage records"},
    {"UF_ACKS", KIND_ENDPOINTS, STAGE_WRITER | STAGE_SCHEDULER, "ipc://" RUN_DIR "/acks", NULL,
     NULL, AT(acks), LINKS, "writer to scheduler: what was committed"},
    {"UF_CONTROL", KIND_ENDPOINTS, STAGE_SCHEDULER | STAGE_CLI | STAGE_GATEWAY,
     "ipc://" RUN_DIR "/control", NULL, NULL, AT(control), LINKS,
     "requests to the scheduler, as JSON"},
    {"UF_PULSE", KIND_ENDPOINTS, STAGE_ALL, "ipc://" RUN_DIR "/pulse", NULL, NULL, AT(pulse), LINKS,
     "what each process says of itself"},
    {"UF_CURVE_SECRET", KIND_CURVE_SECRET, STAGE_ALL, NULL, NULL, NULL, AT(curve_secret), LINKS,
     "this process's own secret key for tcp:// endpoints: the 40 characters after \"secret\" that "
     "\"usagectl keygen --curve\" prints"},
    {"UF_CURVE_KEYS", KIND_FILE, STAGE_ALL, NULL, NULL, NULL, AT(curve_keys), LINKS,
     "file of the public keys of all processes for tcp:// endpoints, a line each: ROLE PUBLIC_KEY; "
     "read again when it changes"},
    {"UF_ALLOW_PLAINTEXT", KIND_SWITCH, STAGE_ALL, "0", NULL, NULL, AT(allow_plaintext), LINKS,
     "1 = tcp:// endpoints without encryption and without keys"},

    {"UF_HTTP", KIND_TEXT, STAGE_GATEWAY, "127.0.0.1:8080", NULL, NULL, AT(http), HTTP,
     "address of the dashboard and the HTTP interface; other hosts reach it only when "
     "UF_DASHBOARD_TOKEN is set"},
    {"UF_HTTP_CONNECTIONS", KIND_NUMBER, STAGE_GATEWAY, "1000", "10", "100000",
     AT(http_connections), HTTP, "connections at once; more wait"},
    {"UF_HTTP_DATABASE", KIND_NUMBER, STAGE_GATEWAY, "4", "1", "64", AT(http_database), HTTP,
     "connections of the gateway to Postgres; queries take turns on them"},

    {"UF_INSTANCE", KIND_INSTANCE, STAGE_ALL, NULL, NULL, NULL, AT(instance), PROCESS,
     "the process's name in logs and socket folders: letters, digits and '-'; by default its "
     "stage, process id and a random part"},
    {"UF_LOG", KIND_LEVEL, STAGE_ALL, "info", NULL, NULL, AT(log_level), PROCESS,
     "least level of the lines on stderr: debug, info, warn or error"},
};
#define N_OPTIONS (sizeof(options) / sizeof(options[0]))

static const struct {
    unsigned bit;
    const char *name;
} stage_names[] = {
    {STAGE_SCHEDULER, "scheduler"}, {STAGE_FETCHER, "fetcher"}, {STAGE_NORMALIZER, "normalizer"},
    {STAGE_WRITER, "writer"},       {STAGE_GATEWAY, "gateway"}, {STAGE_CLI, "usagectl"},
};
#define N_STAGES (sizeof(stage_names) / sizeof(stage_names[0]))

const char *stage_name(unsigned stage)
{
    for (size_t i = 0; i < N_STAGES; i++)
        if (stage_names[i].bit == stage)
            return stage_names[i].name;
    return NULL;
}

unsigned stage_of_name(struct text name)
{
    for (size_t i = 0; i < N_STAGES; i++)
        if (text_is(name, stage_names[i].name))
            return stage_names[i].bit;
    return 0;
}

/* The texts of settings are needed until the last line of the process; kept where a leak checker
 * sees them. */
static struct arena *texts(void)
{
    static struct arena *kept;

    if (!kept)
        kept = arena_new();
    return kept;
}

static bool is_secret(const struct option *o)
{
    return o->kind == KIND_ENCRYPTION_KEY || o->kind == KIND_SECRET ||
           o->kind == KIND_CURVE_SECRET ||
           (o->kind == KIND_DATABASE && strcmp(o->name, "NEXT_PUBLIC_SUPABASE_URL") != 0);
}

static const char *kind_name(enum kind kind)
{
    switch (kind) {
    case KIND_TEXT:
    case KIND_INSTANCE:
        return "text";
    case KIND_FILE:
        return "file";
    case KIND_HOSTS:
        return "0, 1 or hosts";
    case KIND_IDENTIFIER:
        return "lower-case SQL name";
    case KIND_ENDPOINTS:
        return "endpoints";
    case KIND_NUMBER:
        return "number";
    case KIND_SIZE:
        return "size";
    case KIND_DURATION:
        return "duration";
    case KIND_BUCKET:
        return "1m, 1h or 1d";
    case KIND_SWITCH:
        return "0 or 1";
    case KIND_SCHEDULE:
        return "cron expression";
    case KIND_LEVEL:
        return "level";
    case KIND_ENCRYPTION_KEY:
    case KIND_SECRET:
    case KIND_CURVE_SECRET:
        return "secret";
    case KIND_DATABASE:
        return "connection";
    }
    return "";
}

/* ---- values ---------------------------------------------------------------------------- */

static enum status number_parse(int64_t *out, struct text t, struct err *err)
{
    int64_t value = 0;

    if (t.len == 0)
        return err_set(err, ST_FATAL, "write a whole number");
    for (size_t i = 0; i < t.len; i++) {
        if (t.at[i] < '0' || t.at[i] > '9')
            return err_set(err, ST_FATAL, "write a whole number");
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, t.at[i] - '0', &value))
            return err_set(err, ST_FATAL, "too large");
    }
    *out = value;
    return ST_OK;
}

static enum status size_parse(int64_t *out, struct text t, struct err *err)
{
    static const struct {
        const char *suffix;
        int64_t bytes;
    } suffixes[] = {{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}};
    int64_t unit = 1;

    for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
        size_t n = strlen(suffixes[i].suffix);
        if (t.len > n && memcmp(t.at + t.len - n, suffixes[i].suffix, n) == 0) {
            unit = suffixes[i].bytes;
            t.len -= n;
            break;
        }
    }
    if (number_parse(out, t, err) != ST_OK)
        return err_set(err, ST_FATAL, "write bytes, or \"512KiB\" or \"16MiB\"");
    if (__builtin_mul_overflow(*out, unit, out))
        return err_set(err, ST_FATAL, "too large");
    return ST_OK;
}

static enum status bucket_parse(int64_t *out, struct text t, struct err *err)
{
    if (text_is(t, "1m"))
        *out = 60;
    else if (text_is(t, "1h"))
        *out = 3600;
    else if (text_is(t, "1d"))
        *out = 86400;
    else
        return err_set(err, ST_FATAL, "write 1m, 1h or 1d");
    return ST_OK;
}

static enum status switch_parse(bool *out, const char *value, struct err *err)
{
    static const char *const on[] = {"1", "true", "yes", "on"};
    static const char *const off[] = {"0", "false", "no", "off"};

    for (size_t i = 0; i < sizeof(on) / sizeof(on[0]); i++) {
        if (strcasecmp(value, on[i]) == 0 || strcasecmp(value, off[i]) == 0) {
            *out = strcasecmp(value, on[i]) == 0;
            return ST_OK;
        }
    }
    return err_set(err, ST_FATAL, "write 1 or 0");
}

/* One of the kinds that end up as an int64. */
static enum status integer_parse(int64_t *out, enum kind kind, const char *value, struct err *err)
{
    if (kind == KIND_DURATION)
        return duration_parse(out, text_of(value), err);
    if (kind == KIND_SIZE)
        return size_parse(out, text_of(value), err);
    if (kind == KIND_BUCKET)
        return bucket_parse(out, text_of(value), err);
    return number_parse(out, text_of(value), err);
}

static enum status integer_load(int64_t *out, const struct option *o, const char *value,
                                struct err *err)
{
    int64_t least = 0, most = INT64_MAX;

    TRY(integer_parse(out, o->kind, value, err));
    if (o->least)
        TRY(integer_parse(&least, o->kind, o->least, err));
    if (o->most)
        TRY(integer_parse(&most, o->kind, o->most, err));
    if (*out < least || *out > most)
        return err_set(err, ST_FATAL, "out of range: %s to %s", o->least, o->most);
    return ST_OK;
}

static bool only_of(const char *value, const char *allowed)
{
    return value[strspn(value, allowed)] == '\0';
}

static enum status text_check(enum kind kind, const char *value, struct err *err)
{
    if (kind == KIND_IDENTIFIER && (!only_of(value, "abcdefghijklmnopqrstuvwxyz0123456789_") ||
                                    isdigit(value[0]) || strlen(value) > 63))
        return err_set(err, ST_FATAL,
                       "write a plain SQL name: a-z, 0-9 and _, not beginning with a digit, at "
                       "most 63 characters");
    if (kind == KIND_INSTANCE &&
        (!only_of(value, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") ||
         strlen(value) > 64))
        return err_set(err, ST_FATAL, "write letters, digits and '-', at most 64");
    if (kind == KIND_HOSTS &&
        !only_of(value, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:[],"))
        return err_set(err, ST_FATAL, "write 0, 1, or host names with commas between");
    if (kind == KIND_FILE && access(value, R_OK) != 0)
        return err_set(err, ST_FATAL, "can not read this file: %s", strerror(errno));
    return ST_OK;
}

static enum status endpoints_check(const char *list, struct err *err)
{
    for (;;) {
        size_t len = strcspn(list, ",");
        while (len > 0 && *list == ' ') {
            list++;
            len--;
        }
        if (len <= 6 || (strncmp(list, "ipc://", 6) != 0 && strncmp(list, "tcp://", 6) != 0))
            return err_set(err, ST_FATAL,
                           "write ipc://FOLDER or tcp://HOST:PORT, several with commas between");
        if (list[len] == '\0')
            return ST_OK;
        list += len + 1;
    }
}

/* A default that lies in the run folder. */
static const char *in_run_dir(const struct config *cfg, const char *value)
{
    const char *at = strstr(value, RUN_DIR);

    if (!at)
        return arena_copy(texts(), value, strlen(value));
    return arena_printf(texts(), "%.*s%s%s", (int)(at - value), value, cfg->run_dir,
                        at + strlen(RUN_DIR));
}

/* Checks `value` and puts it in its place. The message is completed by the caller. */
static enum status value_set(struct config *cfg, const struct option *o, const char *value,
                             struct err *err)
{
    void *to = (char *)cfg + o->offset;

    switch (o->kind) {
    case KIND_ENDPOINTS:
        TRY(endpoints_check(value, err));
        *(const char **)to = in_run_dir(cfg, value);
        return ST_OK;
    case KIND_TEXT:
    case KIND_FILE:
    case KIND_IDENTIFIER:
    case KIND_INSTANCE:
    case KIND_HOSTS:
        TRY(text_check(o->kind, value, err));
        *(const char **)to = arena_copy(texts(), value, strlen(value));
        return ST_OK;
    case KIND_NUMBER:
    case KIND_SIZE:
    case KIND_DURATION:
    case KIND_BUCKET:
        return integer_load(to, o, value, err);
    case KIND_SWITCH:
        return switch_parse(to, value, err);
    case KIND_SCHEDULE:
        return cron_parse(to, text_of(value), err);
    case KIND_LEVEL:
        if (!log_level_parse(to, value))
            return err_set(err, ST_FATAL, "write debug, info, warn or error");
        return ST_OK;
    case KIND_ENCRYPTION_KEY:
        return encryption_key_parse(to, text_of(value), err);
    case KIND_SECRET:
        if (provider_key_clean(to, text_of(value), err) != ST_OK)
            return err->status = ST_FATAL;
        return ST_OK;
    case KIND_CURVE_SECRET:
        return curve_key_parse(to, text_of(value), err);
    case KIND_DATABASE:
        return ST_OK;
    }
    return ST_OK;
}

/* ---- where values come from -------------------------------------------------------------- */

/* A variable's value; NULL when unset or empty. */
static const char *env(const char *name)
{
    const char *value = getenv(name);

    return value && *value ? value : NULL;
}

static enum status secret_file_read(const char **out, const char *name, const char *path,
                                    struct err *err)
{
    char *bytes = arena_alloc(texts(), SECRET_FILE_MAX + 1, 1);
    FILE *f = fopen(path, "re");
    size_t len;

    if (!f)
        return err_set(err, ST_FATAL, "%s: can not read %s: %s", name, path, strerror(errno));
    len = fread(bytes, 1, SECRET_FILE_MAX + 1, f);
    if (ferror(f)) {
        err_set(err, ST_FATAL, "%s: can not read %s: %s", name, path, strerror(errno));
        (void)fclose(f);
        return ST_FATAL;
    }
    (void)fclose(f);
    if (len > SECRET_FILE_MAX)
        return err_set(err, ST_FATAL, "%s: %s is larger than %d bytes: not a secret", name, path,
                       SECRET_FILE_MAX);
    while (len > 0 && (bytes[len - 1] == '\n' || bytes[len - 1] == '\r'))
        len--;
    bytes[len] = '\0';
    if (len == 0)
        return err_set(err, ST_FATAL, "%s: %s is empty", name, path);
    if (strlen(bytes) != len)
        return err_set(err, ST_FATAL, "%s: %s holds a NUL byte: not a text file", name, path);
    *out = bytes;
    return ST_OK;
}

/* From NAME, or for a secret from the file that NAME_FILE names; NULL when neither is set. */
static enum status value_find(const char **out, const struct option *o, struct err *err)
{
    char file_name[WORD_MAX];
    const char *path;

    *out = env(o->name);
    if (!is_secret(o))
        return ST_OK;
    (void)snprintf(file_name, sizeof(file_name), "%s_FILE", o->name);
    path = env(file_name);
    if (!path)
        return ST_OK;
    if (*out)
        return err_set(err, ST_FATAL, "%s and %s are both set: unset one", o->name, file_name);
    return secret_file_read(out, file_name, path, err);
}

static const struct option *option_find(const char *name)
{
    for (size_t i = 0; i < N_OPTIONS; i++) {
        if (strcmp(options[i].name, name) == 0)
            return &options[i];
    }
    return NULL;
}

static enum status named_value(const char **out, const char *name, struct err *err)
{
    return value_find(out, option_find(name), err);
}

/* ---- the database ------------------------------------------------------------------------ */

static const char *percent_encoded(const char *s)
{
    struct buf b = {.arena = texts()};

    buf_str(&b, "");
    for (; *s; s++) {
        if (isalnum((unsigned char)*s) || strchr("-._~", *s))
            buf_append(&b, s, 1);
        else
            buf_printf(&b, "%%%02X", (unsigned char)*s);
    }
    return b.at;
}

/* https://REF.supabase.co -> the project's own Postgres. */
static enum status supabase_url(const char **out, const char *url, const char *password,
                                struct err *err)
{
    static const char scheme[] = "https://", domain[] = ".supabase.co";
    const char *ref = url + strlen(scheme);
    size_t len;

    if (strncmp(url, scheme, strlen(scheme)) == 0) {
        len = strspn(ref, "abcdefghijklmnopqrstuvwxyz0123456789-");
        if (len > 0 && strncmp(ref + len, domain, strlen(domain)) == 0 &&
            only_of(ref + len + strlen(domain), "/")) {
            *out = arena_printf(
                texts(),
                "postgresql://postgres:%s@db.%.*s.supabase.co:5432/postgres?sslmode=require",
                percent_encoded(password), (int)len, ref);
            return ST_OK;
        }
    }
    return err_set(err, ST_FATAL,
                   "NEXT_PUBLIC_SUPABASE_URL=\"%.80s\" is not https://REF.supabase.co, so the "
                   "database can not be derived from it: set DATABASE_URL to the connection string "
                   "(Supabase dashboard, \"Connect\")",
                   url);
}

static enum status connection_string_check(const char *url, struct err *err)
{
    if (strncmp(url, "postgresql://", 13) == 0 || strncmp(url, "postgres://", 11) == 0 ||
        (!strstr(url, "://") && strchr(url, '=')))
        return ST_OK;
    return err_set(err, ST_FATAL,
                   "DATABASE_URL is no Postgres connection string: it begins with postgresql://, "
                   "as in postgresql://USER:PASSWORD@HOST:5432/DATABASE (for Supabase: dashboard, "
                   "\"Connect\")");
}

/* DATABASE_URL, or what the Supabase variables stand for; NULL when they do not suffice. */
static enum status database_find(const char **out, struct err *err)
{
    const char *url, *project, *password;

    *out = NULL;
    TRY(named_value(&url, "DATABASE_URL", err));
    if (url) {
        TRY(connection_string_check(url, err));
        *out = arena_copy(texts(), url, strlen(url));
        return ST_OK;
    }
    TRY(named_value(&project, "NEXT_PUBLIC_SUPABASE_URL", err));
    TRY(named_value(&password, "SUPABASE_DB_PASSWORD", err));
    if (project && password)
        return supabase_url(out, project, password, err);
    return ST_OK;
}

enum status config_need_database(const struct config *cfg, struct err *err)
{
    if (cfg->database_url)
        return ST_OK;
    if (env("SUPABASE_DB_PASSWORD") || env("SUPABASE_DB_PASSWORD_FILE"))
        return err_set(err, ST_FATAL,
                       "SUPABASE_DB_PASSWORD is set, but not which project it opens: set "
                       "NEXT_PUBLIC_SUPABASE_URL=https://REF.supabase.co, or DATABASE_URL to the "
                       "connection string (Supabase dashboard, \"Connect\")");
    if (env("NEXT_PUBLIC_SUPABASE_URL") || env("SUPABASE_SERVICE_KEY") ||
        env("SUPABASE_SERVICE_KEY_FILE"))
        return err_set(err, ST_FATAL,
                       "the Supabase variables hold no database password (a SUPABASE_SERVICE_KEY "
                       "is a key of the HTTP API, and no database password): set DATABASE_URL to "
                       "the connection string (Supabase dashboard, \"Connect\"), or "
                       "SUPABASE_DB_PASSWORD beside NEXT_PUBLIC_SUPABASE_URL");
    return err_set(err, ST_FATAL,
                   "DATABASE_URL is not set: give the Postgres connection string, as in "
                   "postgresql://USER:PASSWORD@HOST:5432/DATABASE (for Supabase: dashboard, "
                   "\"Connect\")");
}

/* ---- names that nobody knows --------------------------------------------------------------- */

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Letters to change, add, drop or swap with their neighbour to get from one word to the other. */
static size_t word_distance(const char *a, const char *b)
{
    size_t rows[3][WORD_MAX + 1]; /* of a's prefixes: two before, one before, this one */
    size_t len_a = strlen(a), len_b = strlen(b);

    if (len_a > WORD_MAX || len_b > WORD_MAX)
        return SIZE_MAX;
    for (size_t j = 0; j <= len_b; j++)
        rows[0][j] = j;
    for (size_t i = 1; i <= len_a; i++) {
        size_t *row = rows[i % 3];
        const size_t *above = rows[(i + 2) % 3], *before = rows[(i + 1) % 3];

        row[0] = i;
        for (size_t j = 1; j <= len_b; j++) {
            int x = tolower((unsigned char)a[i - 1]), y = tolower((unsigned char)b[j - 1]);

            row[j] = smaller(above[j - 1] + (x != y), smaller(above[j], row[j - 1]) + 1);
            if (i > 1 && j > 1 && x == tolower((unsigned char)b[j - 2]) &&
                y == tolower((unsigned char)a[i - 2]))
                row[j] = smaller(row[j], before[j - 2] + 1);
        }
    }
    return rows[len_a % 3][len_b];
}

const char *nearest_word(const char *word, const char *const *words, size_t n)
{
    size_t limit = strlen(word) / 3 + 1; /* beyond it the likeness is chance */
    const char *best = NULL;
    size_t least = (limit < 4 ? limit : 4) + 1;

    for (size_t i = 0; i < n; i++) {
        size_t d = word_distance(word, words[i]);
        if (d < least) {
            least = d;
            best = words[i];
        }
    }
    return best;
}

static bool is_known(const char *name)
{
    char without[WORD_MAX];
    size_t len = strlen(name);
    const struct option *o = option_find(name);

    if (o)
        return true;
    if (len <= 5 || len >= sizeof(without) || strcmp(name + len - 5, "_FILE") != 0)
        return false;
    (void)snprintf(without, sizeof(without), "%.*s", (int)(len - 5), name);
    o = option_find(without);
    return o && is_secret(o);
}

/* A mistyped setting would otherwise be ignored in silence. */
static enum status unknown_refuse(struct err *err)
{
    const char *known[N_OPTIONS];

    for (size_t i = 0; i < N_OPTIONS; i++)
        known[i] = options[i].name;
    for (char **e = environ; e && *e; e++) {
        char name[WORD_MAX];
        const char *near;

        if (strncmp(*e, "UF_", 3) != 0)
            continue;
        (void)snprintf(name, sizeof(name), "%.*s", (int)strcspn(*e, "="), *e);
        if (is_known(name))
            continue;
        near = nearest_word(name, known, N_OPTIONS);
        if (near)
            return err_set(err, ST_FATAL, "unknown setting %s: did you mean %s?", name, near);
        return err_set(err, ST_FATAL, "unknown setting %s: --help lists the known ones", name);
    }
    return ST_OK;
}

/* ---- loading ------------------------------------------------------------------------------- */

static enum status option_load(struct config *cfg, const struct option *o, unsigned stage,
                               struct err *err)
{
    const char *value = NULL;
    enum status st;

    if (o->offset == NOWHERE || o->kind == KIND_DATABASE)
        return ST_OK;
    if (o->stages & stage)
        TRY(value_find(&value, o, err));
    if (!value && !o->initial)
        return ST_OK;
    st = value_set(cfg, o, value ? value : o->initial, err);
    if (st == ST_OK)
        return ST_OK;
    if (is_secret(o))
        err_prefix(err, "%s", o->name);
    else
        err_prefix(err, "%s=\"%.80s\"", o->name, value ? value : o->initial);
    err->status = ST_FATAL;
    return ST_FATAL;
}

static const char *instance_default(const char *name)
{
    unsigned char random[3];

    random_bytes(random, sizeof(random));
    return arena_printf(texts(), "%s-%d-%02x%02x%02x", name, (int)getpid(), random[0], random[1],
                        random[2]);
}

/* A key that callers must know. A short one can be guessed, and "undefined" is what a deployment
 * sends that lost its own. */
static enum status shared_key_check(const struct secret *key, const char *name, size_t least,
                                    struct err *err)
{
    if (key->len < least)
        return err_set(err, ST_FATAL,
                       "%s %s: give at least %zu characters; \"usagectl keygen\" makes one", name,
                       key->len == 0 ? "is not set" : "is too short", least);
    for (size_t i = 0; i < key->len; i++)
        if (key->at[i] <= ' ' || key->at[i] > '~')
            return err_set(err, ST_FATAL,
                           "%s holds a blank, a control or a non-ASCII character, which no header "
                           "carries: give letters and digits",
                           name);
    return ST_OK;
}

static enum status gateway_check(const struct config *cfg, struct err *err)
{
    TRY(shared_key_check(&cfg->cron_api_key, "CRON_API_KEY", 32, err));
    if (cfg->dashboard_token.len > 0)
        TRY(shared_key_check(&cfg->dashboard_token, "UF_DASHBOARD_TOKEN", 16, err));
    return ST_OK;
}

static enum status config_fill(struct config *cfg, unsigned stage, const char *name,
                               struct err *err)
{
    cfg->stage = stage;
    TRY(unknown_refuse(err));
    for (size_t i = 0; i < N_OPTIONS; i++)
        TRY(option_load(cfg, &options[i], stage, err));
    if (!cfg->instance)
        cfg->instance = instance_default(name);
    if (stage & STAGE_DATABASE)
        TRY(database_find(&cfg->database_url, err));
    if (stage & STAGE_CLI)
        return ST_OK; /* "usagectl keygen" needs nothing: each command asks for itself */
    if (stage & STAGE_DATABASE)
        TRY(config_need_database(cfg, err));
    if ((stage & STAGE_FETCHER) && cfg->encryption_key.len == 0)
        return err_set(
            err, ST_FATAL,
            "ENCRYPTION_KEY is not set: give the key that the accounts' keys were sealed "
            "with, or make the first one with \"usagectl keygen\"");
    if (stage & STAGE_GATEWAY)
        TRY(gateway_check(cfg, err));
    return ST_OK;
}

enum status config_load_env(struct config *out, enum stage_mask stage, const char *name,
                            struct err *err)
{
    struct config cfg = {0};
    enum status st = config_fill(&cfg, stage, name, err);

    if (st != ST_OK)
        config_wipe(&cfg);
    else
        *out = cfg;
    return st;
}

void config_wipe(struct config *cfg)
{
    secret_wipe(&cfg->encryption_key);
    secret_wipe(&cfg->encryption_key_old);
    secret_wipe(&cfg->person_key);
    secret_wipe(&cfg->curve_secret);
    secret_wipe(&cfg->cron_api_key);
    secret_wipe(&cfg->dashboard_token);
}

/* ---- help ---------------------------------------------------------------------------------- */

/* Words of `s`, broken at HELP_COLUMNS, each line indented. */
static void print_wrapped(struct buf *out, const char *s, size_t indent)
{
    size_t column = 0;

    while (*s) {
        size_t word = strcspn(s, " ");

        if (column > indent && column + 1 + word > HELP_COLUMNS) {
            buf_str(out, "\n");
            column = 0;
        }
        if (column == 0) {
            buf_printf(out, "%*s", (int)indent, "");
            column = indent;
        } else {
            buf_str(out, " ");
            column++;
        }
        buf_printf(out, "%.*s", (int)word, s);
        column += word;
        s += word;
        s += strspn(s, " ");
    }
    buf_str(out, "\n");
}

static void print_option(struct buf *out, const struct option *o)
{
    buf_printf(out, "\n  %s%s  (%s", o->name, is_secret(o) ? "[_FILE]" : "", kind_name(o->kind));
    if (o->least)
        buf_printf(out, ", %s to %s", o->least, o->most);
    if (o->initial)
        buf_printf(out, "; default %s", o->initial);
    buf_str(out, ")\n");
    print_wrapped(out, o->meaning, 6);
}

static void print_help(struct buf *out, unsigned stage, const char *name, const char *summary)
{
    buf_printf(out, "uf-%s\n", name);
    print_wrapped(out, summary, 2);
    buf_printf(out, "\nUsage: uf-%s [--help | --version]\n\n", name);
    print_wrapped(out,
                  "Settings come from the environment. NAME_FILE names a file that holds the value "
                  "of NAME. An empty value counts as unset.",
                  0);
    for (size_t i = 0; i < N_OPTIONS; i++) {
        if (options[i].stages & stage)
            print_option(out, &options[i]);
    }
    buf_str(out, "\nExit status: 0 asked to stop, 100 do not start me again before the reason is\n"
                 "mended, 111 start me again.\n");
}

/* For --help and --version: says it on stdout and ends. */
static _Noreturn void tell(const struct buf *b)
{
    bool told = fwrite(b->at, 1, b->len, stdout) == b->len && fflush(stdout) == 0;

    exit(told ? 0 : 111);
}

/* NOLINTNEXTLINE(readability-function-size): six facts of a process, and err */
enum status config_load(struct config *out, enum stage_mask stage, const char *name,
                        const char *summary, int argc, char **argv, struct err *err)
{
    struct buf b = {.arena = texts()};

    if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        print_help(&b, stage, name, summary);
        tell(&b);
    }
    if (argc > 1 && strcmp(argv[1], "--version") == 0) {
        buf_printf(&b, "uf-%s " UF_VERSION "\n", name);
        tell(&b);
    }
    secret_process_hide();
    if (argc > 1)
        return err_set(err, ST_FATAL,
                       "unknown argument \"%.80s\": settings come from the environment, see --help",
                       argv[1]);
    return config_load_env(out, stage, name, err);
}

static void write_used_by(struct buf *out, unsigned stages)
{
    const char *comma = "";

    if (stages == STAGE_ALL) {
        buf_str(out, "all");
        return;
    }
    for (size_t i = 0; i < N_STAGES; i++) {
        if (stages & stage_names[i].bit) {
            buf_printf(out, "%s%s", comma, stage_names[i].name);
            comma = ", ";
        }
    }
    if (stages == 0)
        buf_str(out, "-");
}

static void write_row(struct buf *out, const struct option *o)
{
    buf_printf(out, "| `%s`%s | %s", o->name, is_secret(o) ? " (or `_FILE`)" : "",
               kind_name(o->kind));
    if (o->least)
        buf_printf(out, ", %s to %s", o->least, o->most);
    if (o->initial)
        buf_printf(out, " | `%s` | ", o->initial);
    else
        buf_str(out, " | | ");
    write_used_by(out, o->stages);
    buf_printf(out, " | %s |\n", o->meaning);
}

static void write_markdown(struct buf *out)
{
    const char *group = "";

    buf_str(
        out,
        "# Settings\n\n"
        "Written by `make docs/config.md` from the table in `common/options.c`; do not edit.\n\n"
        "All settings come from the environment, and an empty value counts as unset. A secret "
        "may instead\n"
        "stand in a file that `NAME_FILE` names. A process that finds an unknown `UF_` name, or "
        "a value it\n"
        "can not use, says so and ends with status 100.\n");
    for (size_t i = 0; i < N_OPTIONS; i++) {
        if (strcmp(group, options[i].group) != 0) {
            group = options[i].group;
            buf_printf(
                out,
                "\n## %s\n\n| name | kind | default | used by | meaning |\n|---|---|---|---|---|\n",
                group);
        }
        write_row(out, &options[i]);
    }
}

void config_write_markdown(FILE *out)
{
    struct buf b = {.arena = texts()};

    write_markdown(&b);
    (void)fwrite(b.at, 1, b.len, out); /* the caller sees it by ferror */
}

/* ---- connection strings in messages -------------------------------------------------------- */

static const char *uri_redacted(struct arena *a, const char *url)
{
    const char *rest = strstr(url, "://") + 3;
    const char *at = strrchr(rest, '@'); /* a password may hold an '@' that was not encoded */
    const char *host = at ? at + 1 : rest;
    size_t user = at ? strcspn(rest, ":@") : 0;

    if (at && memchr(rest, '?', (size_t)(at - rest))) /* of a password, here or in the query */
        return arena_printf(a, "%.*s[redacted]", (int)(rest - url), url);
    return arena_printf(a, "%.*s%.*s%s%.*s", (int)(rest - url), url, (int)user, rest, at ? "@" : "",
                        (int)strcspn(host, "?"), host);
}

/* Length of a value of the key=value form, quoted or not. */
static size_t conninfo_value(const char *s)
{
    size_t i = 1;

    if (*s != '\'')
        return strcspn(s, " \t\n");
    while (s[i] && s[i] != '\'')
        i += s[i] == '\\' && s[i + 1] ? 2 : 1;
    return s[i] ? i + 1 : i;
}

static const char *conninfo_redacted(struct arena *a, const char *s)
{
    static const char *const shown[] = {"host", "port", "dbname", "user"};
    struct buf b = {.arena = a};

    buf_str(&b, "");
    for (s += strspn(s, " \t\n"); *s; s += strspn(s, " \t\n")) {
        size_t name = strcspn(s, "= \t\n");
        const char *value = s + name + strspn(s + name, " \t\n");
        size_t len;

        if (*value != '=')
            break;
        value++;
        value += strspn(value, " \t\n");
        len = conninfo_value(value);
        for (size_t i = 0; i < sizeof(shown) / sizeof(shown[0]); i++) {
            if (strlen(shown[i]) == name && memcmp(shown[i], s, name) == 0)
                buf_printf(&b, "%s%s=%.*s", b.len ? " " : "", shown[i], (int)len, value);
        }
        s = value + len;
    }
    return b.at;
}

const char *database_url_redacted(struct arena *a, const char *url)
{
    bool is_uri = strncmp(url, "postgresql://", 13) == 0 || strncmp(url, "postgres://", 11) == 0;

    return is_uri ? uri_redacted(a, url) : conninfo_redacted(a, url); /* as libpq decides */
}
