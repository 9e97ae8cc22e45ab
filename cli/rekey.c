/* rekey.c - seals every account's key with a new ENCRYPTION_KEY, while the pipeline goes on.
 *
 * In batches, each a transaction of its own. A sealed key is replaced only if it is still the one
 * that was read, so a key that is rotated meanwhile stays; and what a run that was killed had
 * committed, the next one simply finds done. No account is locked while keys are opened. */
#include <inttypes.h>
#include <openssl/crypto.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "common/clock.h"

#define BATCH   200
#define TRIES   5 /* of a batch that Postgres refuses for now */
#define TELL_US (5 * US_PER_S)

struct rekey {
    struct cli *cli;
    unsigned char key_id[4];  /* the new key's */
    int64_t resealed;         /* by this process */
    int64_t strange, damaged; /* of one sweep: sealed by a third key; can not be opened */
    const char *name, *why;   /* the first of those */
    int64_t told_us;
};

/* The accounts of one transaction that are to be replaced. */
struct batch {
    int64_t last_id;
    int n;
    struct pg_array ids, old, new;
};

static const char read_sql[] =
    "SELECT account_id::text, name, provider, key_ciphertext FROM accounts WHERE account_id > "
    "$1::bigint AND substring(key_ciphertext FROM 2 FOR 4) <> $2 ORDER BY account_id LIMIT "
    "$3::bigint";

/* Locked in the order of their ids, as the scheduler and the writer do. */
static const char replace_sql[] =
    "WITH n AS (SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::bytea[]) AS n (id, old, new)), "
    "mine AS MATERIALIZED (SELECT a.account_id, n.new FROM accounts a JOIN n ON a.account_id = "
    "n.id "
    "AND a.key_ciphertext = n.old ORDER BY a.account_id FOR NO KEY UPDATE OF a), "
    "done AS (UPDATE accounts a SET key_ciphertext = mine.new, updated_at = now() FROM mine "
    "WHERE a.account_id = mine.account_id RETURNING 1) SELECT count(*) FROM done";

static enum status reseal(struct rekey *k, struct batch *b, struct arena *a, const PGresult *r,
                          int row, struct err *err)
{
    struct text name = pg_text(r, row, 1), provider = pg_text(r, row, 2), old = pg_text(r, row, 3);
    struct text new;
    struct secret plain;
    enum status st = secret_unseal(&plain, k->cli->sealer, provider, name, old, err);

    if (st == ST_REJECT) {
        if (sealer_opens(k->cli->sealer, old))
            k->damaged++;
        else
            k->strange++;
        if (!k->name) {
            k->name = arena_copy(k->cli->arena, name.at, name.len);
            k->why = arena_copy(k->cli->arena, err->text, strlen(err->text));
        }
        return ST_OK;
    }
    TRY(st);
    st = secret_seal(&new, a, k->cli->sealer, provider, name, &plain, err);
    secret_wipe(&plain);
    TRY(st);
    pg_array_text(&b->ids, pg_text(r, row, 0));
    pg_array_bytea(&b->old, old);
    pg_array_bytea(&b->new, new);
    return ST_OK;
}

/* Reads the accounts after `after` that are not sealed with the new key, and replaces them. */
static enum status batch_do(struct rekey *k, struct batch *b, struct arena *a, int64_t after,
                            struct err *err)
{
    struct cli *cli = k->cli;
    struct pg_params which = {.binary_result = true}, with = {0};
    PGresult *r;

    *b = (struct batch){.last_id = after};
    pg_array_open(&b->ids, a);
    pg_array_open(&b->old, a);
    pg_array_open(&b->new, a);
    TRY(cli_database(cli, err));
    pg_param_int(&which, a, after);
    pg_param_binary(&which, 17 /* bytea */, k->key_id, sizeof(k->key_id));
    pg_param_int(&which, a, BATCH);
    TRY(pg_query(cli->pg, &r, a, read_sql, &which, err));
    TRY(pg_commit(cli->pg, err)); /* nothing is held while keys are opened */
    b->n = PQntuples(r);
    for (int i = 0; i < b->n; i++)
        TRY(reseal(k, b, a, r, i, err));
    if (b->n > 0)
        b->last_id = strtoll(PQgetvalue(r, b->n - 1, 0), NULL, 10);
    if (!b->ids.any)
        return ST_OK;
    TRY(cli_database(cli, err));
    pg_param_text(&with, pg_array_close(&b->ids));
    pg_param_text(&with, pg_array_close(&b->old));
    pg_param_text(&with, pg_array_close(&b->new));
    TRY(pg_query(cli->pg, &r, a, replace_sql, &with, err));
    TRY(pg_commit(cli->pg, err));
    k->resealed += pg_int(r, 0, 0);
    return ST_OK;
}

static void tell(struct rekey *k)
{
    int64_t now = clock_mono_us();

    if (now - k->told_us < TELL_US)
        return;
    k->told_us = now;
    (void)fprintf(stderr, "%" PRId64 " accounts sealed with the new key so far\n", k->resealed);
}

/* Every account once. What a busy Postgres refuses is tried again. */
static enum status sweep(struct rekey *k, struct err *err)
{
    int64_t after = 0;

    k->strange = k->damaged = 0;
    k->name = k->why = NULL;
    for (int failures = 0;;) {
        int64_t strange = k->strange, damaged = k->damaged;
        struct arena *a = arena_new();
        struct batch b;
        enum status st = batch_do(k, &b, a, after, err);

        arena_free(&a);
        if (st == ST_RETRY && ++failures < TRIES) {
            pg_rollback(k->cli->pg);
            k->strange = strange;
            k->damaged = damaged;
            (void)poll(NULL, 0, 200 * failures);
            continue;
        }
        TRY(st);
        failures = 0;
        tell(k);
        if (b.n < BATCH)
            return ST_OK;
        after = b.last_id;
    }
}

static enum status conclude(const struct rekey *k, struct err *err)
{
    struct cli *cli = k->cli;
    struct pg_params p = {0};
    int64_t all, sealed;
    PGresult *r;

    TRY(cli_database(cli, err));
    pg_param_binary(&p, 17 /* bytea */, k->key_id, sizeof(k->key_id));
    TRY(pg_query(cli->pg, &r, cli->arena,
                 "SELECT count(*), count(*) FILTER (WHERE substring(key_ciphertext FROM 2 FOR 4) = "
                 "$1) FROM accounts",
                 &p, err));
    TRY(pg_commit(cli->pg, err));
    all = pg_int(r, 0, 0);
    sealed = pg_int(r, 0, 1);
    (void)printf("%" PRId64 " accounts sealed anew; %" PRId64 " of %" PRId64
                 " are sealed with the new ENCRYPTION_KEY\n",
                 k->resealed, sealed, all);
    if (k->strange > 0)
        (void)printf("%" PRId64 " were sealed with a key that is neither this nor "
                     "ENCRYPTION_KEY_OLD: set ENCRYPTION_KEY_OLD to theirs and run this again\n",
                     k->strange);
    if (k->damaged > 0)
        (void)printf("%" PRId64 " do not open: usagectl account rotate-key\n", k->damaged);
    if (k->name)
        (void)printf("the first is %s: %s\n", k->name, k->why);
    else if (sealed < all)
        (void)printf("the others were added or rotated just now with the old key: give the new one "
                     "to whoever did, and run this again\n");
    cli->answer_is_no = sealed < all;
    if (sealed == all)
        (void)printf("Once the jobs that are out have ended (UF_LEASE), nobody needs "
                     "ENCRYPTION_KEY_OLD.\n");
    return ST_OK;
}

enum status cmd_rekey(struct cli *cli, const struct args *args, struct err *err)
{
    const struct config *cfg = &cli->cfg;
    struct rekey k = {.cli = cli, .told_us = clock_mono_us()};
    unsigned char old_id[4];
    int64_t before;
    enum status st;

    (void)args;
    TRY(cli_sealer(cli, err));
    if (cfg->encryption_key_old.len == 0)
        return err_set(err, ST_FATAL,
                       "ENCRYPTION_KEY_OLD is not set: rekey opens with it what the new "
                       "ENCRYPTION_KEY then seals");
    if (CRYPTO_memcmp(cfg->encryption_key.at, cfg->encryption_key_old.at, ENCRYPTION_KEY_LEN) == 0)
        return err_set(err, ST_FATAL,
                       "ENCRYPTION_KEY and ENCRYPTION_KEY_OLD are the same key: make a new one "
                       "with \"usagectl keygen\"");
    sealer_key_ids(cli->sealer, k.key_id, old_id);
    do { /* until nobody has added one under the old key meanwhile */
        before = k.resealed;
        st = sweep(&k, err);
    } while (st == ST_OK && k.resealed > before);
    if (st == ST_RETRY)
        return err_prefix(err,
                          "%" PRId64 " accounts are sealed anew, the others open with the old "
                          "key as before; run this again",
                          k.resealed);
    TRY(st);
    return conclude(&k, err);
}
