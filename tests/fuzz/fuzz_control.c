/* A request on the control socket, with Postgres away: one JSON object comes back, and nothing but
 * a command that is understood asks for a transaction. */
#include "common/clock.h"
#include "scheduler/control.h"
#include "tests/fuzz/fuzz.h"

/* In place of pg_begin (ld --wrap, see Makefile), so that no command reaches a database. */
/* NOLINTBEGIN(bugprone-reserved-identifier): ld's names */
enum status __wrap_pg_begin(struct pg *pg, struct err *err);
enum status __wrap_pg_begin(struct pg *pg, struct err *err)
{
    HOLDS(pg);
    return err_set(err, ST_RETRY, "Postgres is away");
}
/* NOLINTEND(bugprone-reserved-identifier) */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static struct pg *pg;
    struct arena *a = arena_new();
    struct config cfg = {.bucket_s = 3600, .instance = "s1"};
    struct ledger ledger = {.cfg = &cfg};
    const struct fetchers fetchers = {.n = 0};
    struct control_view view = {.ledger = &ledger, .fetchers = &fetchers};
    struct json_doc doc;
    struct err err;
    struct text answer;

    if (!pg)
        pg_open(&pg, "postgresql://127.0.0.1:1/none", "public", "fuzz");
    ledger.pg = pg;
    HOLDS(cron_parse(&ledger.slots.schedule, TEXT_LIT("*/15 * * * *"), &err) == ST_OK);
    answer = control_answer(&view, a, fuzz_text(data, len));
    HOLDS(json_parse(&doc, a, answer, &err) == ST_OK && !doc.repaired);
    HOLDS(json_is(json_member(doc.root, "ok"), JSON_FALSE)); /* Postgres is away for all of them */
    HOLDS(json_string(json_member(doc.root, "error")).len > 0);
    HOLDS(!view.woken && !view.paused && !pg_connected(pg));
    arena_free(&a);
    return 0;
}
