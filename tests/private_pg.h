/* private_pg.h - a Postgres server of the test's own, for what no script of libpq can stand for.
 *
 * Group setup and teardown of cmocka. Without PostgreSQL's binaries the tests that need it are
 * skipped, and it is said. */
#ifndef UF_PRIVATE_PG_H
#define UF_PRIVATE_PG_H

#include <stdlib.h>
#include <sys/stat.h>

#include "common/arena.h"
#include "common/pg.h"
#include "tests/check.h"

static char private_pg_folder[] = "/tmp/uf-test-pg-XXXXXX";
static char private_pg_url[512]; /* "": there is none */

static inline int private_pg_start(void **state)
{
    char command[256], line[512] = "";
    FILE *out;
    int status;

    (void)state;
    if (!mkdtemp(private_pg_folder) || chmod(private_pg_folder, 0755) < 0)
        return -1;
    (void)snprintf(command, sizeof(command), "UF_PG_FSYNC=off deploy/pg-private start %s 2>&1",
                   private_pg_folder);
    out = popen(command, "r");
    if (!out)
        return -1;
    while (fgets(line, sizeof(line), out))
        line[strcspn(line, "\n")] = '\0';
    status = pclose(out);
    if (status == 0) {
        memcpy(private_pg_url, line, sizeof(line));
        return 0;
    }
    print_message("%s\n", line);
    return strstr(line, "no Postgres server here") ? 0 : -1;
}

static inline int private_pg_stop(void **state)
{
    char command[256];

    (void)state;
    (void)snprintf(command, sizeof(command), "%s deploy/pg-private stop %s; rm -rf %s",
                   private_pg_url[0] ? "" : ": ", private_pg_folder, private_pg_folder);
    return system(command);
}

/* Ends the connection from another one, as a restart of the server would. */
static inline void private_pg_terminate(struct pg *pg)
{
    struct arena *a = arena_new();
    struct pg_params p = {0};
    struct err err = {0};
    PGresult *r = NULL;
    struct pg *other;
    int64_t left = 1;

    assert_int_equal(pg_query(pg, &r, a, "SELECT pg_backend_pid()", NULL, &err), ST_OK);
    pg_param_int(&p, a, pg_int(r, 0, 0));
    pg_open(&other, private_pg_url, "public", "other");
    assert_int_equal(pg_query(other, NULL, NULL, "SELECT pg_terminate_backend($1::int)", &p, &err),
                     ST_OK);
    while (left > 0) {
        assert_int_equal(pg_query(other, &r, a,
                                  "SELECT count(*), pg_sleep(0.01) FROM pg_stat_activity WHERE pid "
                                  "= $1::int",
                                  &p, &err),
                         ST_OK);
        left = pg_int(r, 0, 0);
    }
    pg_close(&other);
    arena_free(&a);
}

/* What a test begins with: a connection that is not connected yet (without a server NULL), and
 * memory. */
static inline void private_pg_open(struct pg **pg, struct arena **arena)
{
    *arena = arena_new();
    if (private_pg_url[0])
        pg_open(pg, private_pg_url, "public", "test");
}

static inline void private_pg_close(struct pg **pg, struct arena **arena)
{
    arena_free(arena);
    pg_close(pg);
}

#define NEEDS_POSTGRES()                                                                           \
    do {                                                                                           \
        if (!private_pg_url[0])                                                                    \
            skip();                                                                                \
    } while (0)

#endif
