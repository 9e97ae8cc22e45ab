/* Settings: NAME=VALUE lines as the environment of each process; and URLs by themselves. Files are
 * not named by strangers, so *_FILE stays out. */
#include "common/options.h"
#include "common/providers/provider.h"
#include "tests/fuzz/fuzz.h"

#define VARIABLES_MAX 32

extern char **environ;

static void load(enum stage_mask stage, const char *name)
{
    struct config cfg = {0};
    struct err err = {0};

    if (config_load_env(&cfg, stage, name, &err) == ST_OK) {
        HOLDS(cfg.page_cap > 0 && cfg.lease_s > 0 && cfg.batch_rows > 0 && cfg.max_body > 0);
        HOLDS(cfg.bucket_s == 60 || cfg.bucket_s == 3600 || cfg.bucket_s == 86400);
    } else {
        HOLDS(err.text[0]);
    }
    config_wipe(&cfg);
}

#define PASSWORD "Zq7-shown-to-nobody"

/* A password between two halves of whatever stands around it, in each form that libpq reads. */
static void check_redacted(struct arena *a, const char *before, const char *behind)
{
    const char *const urls[] = {
        arena_printf(a, "postgresql://uf:%s" PASSWORD "%s@db.example/usage", before, behind),
        arena_printf(a, "postgres://db.example/usage?x=%s&password=" PASSWORD "%s", before, behind),
        /* a quote may make the password a part of another value */
        strpbrk(before, "'=\\")
            ? ""
            : arena_printf(a, "user=uf %s password=" PASSWORD "%s", before, behind),
        arena_printf(a, "password='%s" PASSWORD "%s' host=db", strpbrk(before, "'\\") ? "" : before,
                     behind),
    };

    for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++)
        HOLDS(!strstr(database_url_redacted(a, urls[i]), PASSWORD));
}

static void check_url(struct arena *a, const char *url)
{
    size_t half = strlen(url) / 2;

    HOLDS(database_url_redacted(a, url));
    if (!strstr(url, PASSWORD)) /* the fuzzer learns it, and writes it where a host stands */
        check_redacted(a, arena_copy(a, url, half), url + half);
    (void)base_url_refused(a, url, "0");
    (void)base_url_refused(a, url, "1");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct arena *a = arena_new();
    char *variables[VARIABLES_MAX + 1] = {0};
    char **real = environ;
    struct text rest = fuzz_text(data, len);
    size_t n = 0;

    while (rest.len > 0 && n < VARIABLES_MAX) {
        struct text line = fuzz_line(&rest);
        char *variable = arena_copy(a, line.at, line.len);
        const char *value = strchr(variable, '=');
        check_url(a, variable);
        if (!value || memmem(variable, (size_t)(value - variable), "_FILE", 5))
            continue;
        variables[n++] = variable;
    }
    environ = variables;
    load(STAGE_SCHEDULER, "scheduler");
    load(STAGE_FETCHER, "fetcher");
    load(STAGE_CLI, "usagectl");
    environ = real;
    arena_free(&a);
    return 0;
}
