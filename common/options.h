/* options.h - every setting of every process: one const table of rows, one struct of values.
 *
 * From the table come --help, the environment's names, the checks and docs/config.md. Settings come
 * from the environment alone; each secret may also come from the file that NAME_FILE names. */
#ifndef UF_OPTIONS_H
#define UF_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "common/cron.h"
#include "common/log.h"
#include "common/secret.h"
#include "common/status.h"

enum stage_mask {
    STAGE_SCHEDULER = 1 << 0,
    STAGE_FETCHER = 1 << 1,
    STAGE_NORMALIZER = 1 << 2,
    STAGE_WRITER = 1 << 3,
    STAGE_CLI = 1 << 4,
    STAGE_GATEWAY = 1 << 5,
    /* those that reach Postgres */
    STAGE_DATABASE = STAGE_SCHEDULER | STAGE_WRITER | STAGE_CLI | STAGE_GATEWAY,
    STAGE_ALL = 63,
};

/* Values a process does not use (by the table's mask) keep their defaults, and secrets it does not
 * use are never read. Texts live as long as the process. */
struct config {
    enum stage_mask stage;    /* which process this is: one bit */
    const char *database_url; /* DATABASE_URL, or derived from the Supabase variables; NULL only if
                                 unused */
    const char *schema;       /* UF_SCHEMA */
    struct secret encryption_key;     /* ENCRYPTION_KEY, decoded */
    struct secret encryption_key_old; /* ENCRYPTION_KEY_OLD, decoded; empty: none */
    struct secret person_key;         /* UF_PERSON_KEY, decoded; empty = none */
    bool keep_email;                  /* UF_KEEP_EMAIL: addresses are stored, not hashed */
    struct secret cron_api_key;       /* CRON_API_KEY */
    struct secret dashboard_token;    /* UF_DASHBOARD_TOKEN; empty: none */

    struct cron schedule; /* UF_SCHEDULE */
    int64_t bucket_s;     /* UF_BUCKET: 60, 3600 or 86400 */
    int64_t backfill_s;   /* UF_BACKFILL */
    int64_t lease_s; /* UF_LEASE: how long a claim may take, from claim to last acknowledgement */
    int64_t
        max_outstanding; /* UF_MAX_OUTSTANDING: jobs claimed and not yet settled, per scheduler */
    int64_t in_flight;   /* UF_IN_FLIGHT: accounts one fetcher reads at once */
    int64_t per_host;    /* UF_PER_HOST: connections of one fetcher to one host */
    int64_t request_timeout_s; /* UF_REQUEST_TIMEOUT: one HTTP request, from connect to last byte */
    int64_t page_cap;          /* UF_PAGE_CAP: pages of one feed in one job */
    int64_t max_body;          /* UF_MAX_BODY: bytes of one answer after decompression */
    const char *allow_http;    /* UF_ALLOW_HTTP: "0", "1" or hosts: plain http:// beyond loopback */
    const char *ca_file; /* UF_CA_FILE: certificates to trust beside the system's; NULL = none */
    int64_t batch_rows;  /* UF_BATCH_ROWS */
    int64_t batch_bytes; /* UF_BATCH_BYTES */
    int64_t batch_ms;    /* UF_BATCH_MS */
    int64_t sum_after_s; /* UF_SUM_AFTER */

    const char *http;         /* UF_HTTP */
    int64_t http_connections; /* UF_HTTP_CONNECTIONS */
    int64_t http_database;    /* UF_HTTP_DATABASE: connections to Postgres */

    struct secret curve_secret; /* UF_CURVE_SECRET, decoded; empty: none */
    const char *curve_keys;     /* UF_CURVE_KEYS: file of everybody's public keys; NULL: none */
    bool allow_plaintext;       /* UF_ALLOW_PLAINTEXT: tcp:// endpoints without encryption */
    const char *run_dir;        /* UF_RUN_DIR */
    const char *jobs;  /* UF_JOBS ... UF_CONTROL: endpoint lists; default ipc://$UF_RUN_DIR/NAME */
    const char *pages; /* UF_PAGES */
    const char *records;  /* UF_RECORDS */
    const char *acks;     /* UF_ACKS */
    const char *control;  /* UF_CONTROL */
    const char *pulse;    /* UF_PULSE */
    const char *instance; /* UF_INSTANCE: this process's name in logs and socket folders; default
                             STAGE-PID-RANDOM */
    enum log_level log_level; /* UF_LOG */
};

/* Reads the environment for one process (`stage`: one bit; `name` "scheduler"). argv may be
 * "--help" (prints the process's options on stdout and ends with 0) or "--version"; anything else
 * on it is refused. An empty value counts as unset. ST_FATAL, and err names the variable and what
 * is allowed: an unknown UF_ name (with the nearest known one), a value out of range, NAME and
 * NAME_FILE both set, an unreadable file, a missing required one. The Supabase variables without
 * SUPABASE_DB_PASSWORD: err says where the connection string is found. */
enum status config_load(struct config *out, enum stage_mask stage, const char *name,
                        const char *summary, int argc, char **argv, struct err *err) CHECKED;
/* The same without looking at argv (usagectl has its own). */
enum status config_load_env(struct config *out, enum stage_mask stage, const char *name,
                            struct err *err) CHECKED;
void config_wipe(struct config *cfg); /* its secrets */

/* For usagectl, where each command asks for what it needs. ST_FATAL: there is no database_url; err
 * says which variables are missing and where the connection string is found. */
enum status config_need_database(const struct config *cfg, struct err *err) CHECKED;

/* docs/config.md, from the table. */
void config_write_markdown(FILE *out);

/* DATABASE_URL without its password, for messages ("postgresql://uf@db.example/usage"). Static
 * storage is not used: the text lives in `a`. */
const char *database_url_redacted(struct arena *a, const char *url);

/* "scheduler"; NULL for what is not one bit of enum stage_mask. And back: 0 for an unknown name. */
const char *stage_name(unsigned stage);
unsigned stage_of_name(struct text name);

/* The closest of `words` (n of them) to a mistyped `word`, or NULL when none is near: for "did you
 * mean". */
const char *nearest_word(const char *word, const char *const *words, size_t n);

#endif
