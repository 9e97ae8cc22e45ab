/* bench writer - batch_commit against binary COPY of the same rows, batch by batch in turn.
 *
 * Usage: writer DATABASE_URL ROWS_THERE PAIRS [NAME[:ROWS_THERE]=WRITER_URL ...]
 *
 * Each further login writes rows of new accounts as the first does, its limit over its own
 * connection, reported as NAME; with ROWS_THERE into a database of its own, without a limit. Two
 * writers at once, the second in a process of its own, against one, both new accounts: reported as
 * two, and two of the limit as two copies.
 *
 * The limit copies into copy_limit, a twin of usage_metrics: same columns, key and partitions, and
 * as many rows. Both sides encode the rows while the clock runs, and send them in pieces. An
 * account is one job: nine feeds, eleven rows each over an hourly window; a batch is 50 accounts,
 * 4,950 rows.
 */
#include "tests/bench/bench.h"

#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "common/pg.h"
#include "writer/batch.h"
#include "writer/copy.h"

#define ACCOUNTS        ((size_t)50) /* of one batch */
#define FEEDS           9
#define ROWS            11         /* of one page */
#define HOURS           INT64_C(4) /* of one page's window; the last one is what a re-read finds changed */
#define PAGES           (ACCOUNTS * FEEDS) /* of one batch */
#define BATCH_ROWS      (PAGES * ROWS)
#define BATCHES         8                                /* of one pair */
#define FIRST_HOUR_US   (INT64_C(1793750400) * US_PER_S) /* inside one month */
#define ACCOUNTS_PER_DB 1000000

static const char *const feeds[FEEDS] = {
    "completions",       "embeddings",           "moderations",   "images",
    "audio_speeches",    "audio_transcriptions", "vector_stores", "code_interpreter_sessions",
    "file_search_calls",
};

/* What a batch brings of its accounts: their first reading; one that finds some of it changed; the
 * hours that follow. */
enum reading { FIRST, SOME_CHANGED, LATER_HOURS };

static void fill_texts(struct record *r, struct arena *a, int64_t account, size_t row)
{
    static const char *const models[] = {"gpt-5-mini-2026-01-15", "gpt-4o-2024-08-06",
                                         "text-embedding-3-small"};

    r->texts[TEXT_PROJECT_ID] =
        text_of(arena_printf(a, "proj_%08llx%04zx", (unsigned long long)account, row % 3));
    r->texts[TEXT_USER_ID] = text_of(
        arena_printf(a, "user-%016llx%zu", (unsigned long long)account * 2654435761u, row % 4));
    r->texts[TEXT_API_KEY_ID] =
        text_of(arena_printf(a, "key_%012llx%04zx", (unsigned long long)account * 40503u, row));
    r->texts[TEXT_MODEL] = text_of(models[row % 3]);
    r->texts[TEXT_SERVICE_TIER] = TEXT_LIT("default");
    r->batch = row % 2 ? TRI_TRUE : TRI_FALSE;
}

static int64_t first_hour_us(enum reading reading)
{
    return FIRST_HOUR_US + (reading == LATER_HOURS ? HOURS * 3600 * US_PER_S : 0);
}

/* Every tenth row of a page lies in its last hour: with SOME_CHANGED half of those are others than
 * before (a new key) and half have other figures, so 90 of 100 rows are as they were. */
static void fill_row(struct record *r, struct arena *a, int64_t account, size_t feed, size_t row,
                     enum reading reading)
{
    size_t at = feed * ROWS + row;
    bool touched = reading == SOME_CHANGED && at % 10 == 0;
    bool fresh = touched && at % 20 == 0;
    int64_t hour = at % 10 == 0 ? HOURS - 1 : (int64_t)(row % (HOURS - 1));

    record_clear(r);
    r->bucket_start_us = first_hour_us(reading) + hour * 3600 * US_PER_S;
    r->bucket_seconds = 3600;
    fill_texts(r, a, account, fresh ? row + 100 : row);
    r->counts[COUNT_INPUT_TOKENS] = 48210 + account % 1000 + (touched ? 17 : 0);
    r->counts[COUNT_CACHED_INPUT_TOKENS] = 12000;
    r->counts[COUNT_OUTPUT_TOKENS] = 9001 + (int64_t)row;
    r->counts[COUNT_INPUT_AUDIO_TOKENS] = 0;
    r->counts[COUNT_OUTPUT_AUDIO_TOKENS] = 0;
    r->counts[COUNT_NUM_REQUESTS] = 61;
    record_digest(r, text_of(feeds[feed]));
}

static int by_key(const void *a, const void *b)
{
    const struct record *x = a, *y = b;

    if (x->bucket_start_us != y->bucket_start_us)
        return x->bucket_start_us < y->bucket_start_us ? -1 : 1;
    return memcmp(x->row_key, y->row_key, sizeof(x->row_key));
}

static void fill_page(struct batch_page *bp, struct arena *a, const struct origin *origin,
                      size_t feed, enum reading reading)
{
    struct record_page *page = ARENA_NEW(a, struct record_page);
    struct record *records = ARENA_ARRAY(a, ROWS, struct record);
    struct span *span = ARENA_NEW(a, struct span);

    for (size_t i = 0; i < ROWS; i++)
        fill_row(&records[i], a, origin->account_id, feed, i, reading);
    qsort(records, ROWS, sizeof(*records), by_key);
    span->from_us = first_hour_us(reading);
    span->to_us = span->from_us + HOURS * 3600 * US_PER_S;
    page->window = (uint32_t)feed;
    page->asked =
        (struct window){.feed = text_of(feeds[feed]), .from_us = span->from_us, .bucket_s = 3600};
    page->spans = span;
    page->n_spans = 1;
    page->records = records;
    page->n_records = ROWS;
    *bp = (struct batch_page){.origin = origin, .page = page};
}

/* Accounts `first` to `first` + ACCOUNTS - 1. */
static struct batch_page *batch_of(struct arena *a, int64_t first, enum reading reading)
{
    struct batch_page *pages = ARENA_ARRAY(a, PAGES, struct batch_page);

    for (size_t i = 0; i < ACCOUNTS; i++) {
        struct origin *origin = ARENA_NEW(a, struct origin);
        *origin = (struct origin){.account_id = first + (int64_t)i,
                                  .epoch = reading == FIRST ? 1 : 2,
                                  .provider = TEXT_LIT("openai")};
        uuid_random(&origin->job_id);
        for (size_t f = 0; f < FEEDS; f++)
            fill_page(&pages[i * FEEDS + f], a, origin, f, reading);
    }
    return pages;
}

/* The limit: the same rows, the same transaction frame, one COPY. */
static double copy_batch(struct pg *pg, const struct batch_page *pages, const char *sql)
{
    struct err err = {0};
    struct arena *a = arena_new();
    struct buf b = {.arena = a};
    int64_t began = clock_mono_us();
    double took;

    must(pg_begin(pg, &err), &err);
    must(pg_copy_begin(pg, sql, &err), &err);
    copy_begin(&b);
    for (size_t i = 0; i < PAGES; i++) {
        for (size_t k = 0; k < ROWS; k++)
            copy_row(&b, pages[i].origin, pages[i].page->asked.feed, &pages[i].page->records[k],
                     clock_utc_us());
        if (b.len < 64 << 10 && i < PAGES - 1)
            continue;
        if (i == PAGES - 1)
            copy_end(&b);
        must(pg_copy_put(pg, (struct text){b.at, b.len}, &err), &err);
        b.len = 0;
    }
    must(pg_copy_end(pg, NULL, &err), &err);
    must(pg_commit(pg, &err), &err);
    took = seconds_since(began);
    arena_free(&a);
    return took;
}

static double commit_batch(struct pg *pg, struct months *months, struct batch_page *pages)
{
    struct err err = {0};
    int64_t began = clock_mono_us();

    must(batch_commit(pg, months, pages, PAGES, &err), &err);
    return seconds_since(began);
}

static void expect(const struct batch_page *pages, uint32_t inserted, uint32_t updated)
{
    uint32_t in = 0, up = 0;

    for (size_t i = 0; i < PAGES; i++) {
        in += pages[i].inserted;
        up += pages[i].updated;
    }
    if (in < inserted - inserted / 10 || in > inserted + inserted / 10 ||
        up < updated - updated / 10 || up > updated + updated / 10) {
        (void)fprintf(stderr, "bench: %u rows inserted and %u updated, not about %u and %u\n", in,
                      up, inserted, updated);
        exit(1);
    }
}

/* copy_sql, into the twin. */
static const char *limit_sql(struct arena *a)
{
    const char *columns = strchr(copy_sql, '(');

    return arena_printf(a, "COPY copy_limit %s", columns);
}

static void run_each(struct pg *pg, const char *const *sql)
{
    struct err err = {0};

    for (; *sql; sql++)
        must(pg_exec(pg, *sql, &err), &err);
}

/* Accounts, and rows of older hours: what a batch does not ask for. */
static void fill(struct pg *pg, int64_t rows_there)
{
    static const char accounts_sql[] =
        "INSERT INTO accounts (account_id, name, provider, base_url, key_ciphertext, key_hint, "
        "lease_epoch) SELECT n, 'a' || n, 'openai', 'https://x', '', '', 1 "
        "FROM generate_series(1, 200000) AS n";
    static const char rows_sql[] =
        "INSERT INTO usage_metrics (account_id, provider, feed, bucket_start, bucket_seconds, "
        "row_key, row_hash, project_id, user_id, api_key_id, model, input_tokens, output_tokens, "
        "num_requests, first_seen_at, changed_at, job_id) SELECT 1 + n %% 200000, 'openai', "
        "'completions', timestamptz '2026-11-01Z' + n / 200000 * interval '1 hour', 3600, "
        "md5(n::text)::uuid, n, 'proj_0123456789abcd', 'user-0123456789abcdef', "
        "'key_0123456789abcdef', 'gpt-5-mini-2026-01-15', n, n, n, now(), now(), "
        "gen_random_uuid() FROM generate_series(0, %lld - 1) AS n";
    struct arena *a = arena_new();

    run_each(pg,
             (const char *const[]){"SELECT usage_metrics_ensure_month('2026-11-01')", accounts_sql,
                                   arena_printf(a, rows_sql, (long long)rows_there),
                                   "VACUUM ANALYZE usage_metrics", "VACUUM ANALYZE accounts",
                                   "CHECKPOINT", NULL});
    arena_free(&a);
}

static void make_twin(struct pg *pg)
{
    static const char table_sql[] =
        "CREATE TABLE copy_limit (LIKE usage_metrics INCLUDING ALL) PARTITION BY RANGE "
        "(bucket_start)";
    static const char months_sql[] =
        "DO $$ DECLARE p record; BEGIN FOR p IN SELECT relname, pg_get_expr(relpartbound, c.oid) "
        "AS bounds FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid WHERE inhparent = "
        "'usage_metrics'::regclass LOOP EXECUTE format('CREATE TABLE %I PARTITION OF copy_limit "
        "%s', 'copy_limit_' || right(p.relname, 7), p.bounds); END LOOP; END $$";

    run_each(pg, (const char *const[]){table_sql, months_sql,
                                       "INSERT INTO copy_limit SELECT * FROM usage_metrics",
                                       "GRANT INSERT ON copy_limit TO uf_writer",
                                       "VACUUM ANALYZE copy_limit", "CHECKPOINT", NULL});
}

/* A backend maps a page of the shared memory when it first meets it, which costs more than a row
 * there. Here it meets them all, as one that has been at work for a while. */
static void warm(struct pg *pg)
{
    static const char rows_sql[] =
        "SELECT sum(row_hash) FROM usage_metrics WHERE account_id <= 40000";

    run_each(pg,
             (const char *const[]){"BEGIN", "SET LOCAL enable_seqscan = off",
                                   "SET LOCAL enable_bitmapscan = off", rows_sql, "COMMIT", NULL});
}

static int64_t wal_at(struct pg *pg)
{
    struct err err = {0};
    struct arena *a = arena_new();
    PGresult *r;
    int64_t at;

    must(pg_query(pg, &r, a, "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint", NULL, &err),
         &err);
    at = pg_int(r, 0, 0);
    arena_free(&a);
    return at;
}

/* ---- two writers ---- */

struct second {
    int order;  /* a word when the table is filled; the first account to write; how, to begin */
    int report; /* a word when it is ready, when batches are made, and when they are committed */
};

static int64_t hear(int from)
{
    int64_t word;

    if (read(from, &word, sizeof(word)) != (ssize_t)sizeof(word))
        exit(1); /* the other one said why */
    return word;
}

static void say(int to, int64_t word)
{
    if (write(to, &word, sizeof(word)) != (ssize_t)sizeof(word))
        exit(1);
}

/* Batches are made before the clock runs. */
static void make_batches(struct batch_page **batches, struct arena *a, int64_t first)
{
    for (int i = 0; i < BATCHES; i++)
        batches[i] = batch_of(a, first + i * (int64_t)ACCOUNTS, FIRST);
}

enum how { BY_US, BY_COPY };

static void write_batches(struct pg *pg, struct months *months, struct batch_page **batches,
                          const char *limit, enum how how)
{
    for (int i = 0; i < BATCHES; i++) {
        if (how == BY_COPY) {
            (void)copy_batch(pg, batches[i], limit);
            continue;
        }
        (void)commit_batch(pg, months, batches[i]);
        expect(batches[i], (uint32_t)BATCH_ROWS, 0);
    }
}

static _Noreturn void second_writer(const char *url, struct second with)
{
    struct batch_page *batches[BATCHES];
    struct months months = {0};
    struct arena *a = arena_new(), *kept = arena_new();
    const char *limit = limit_sql(kept);
    struct pg *pg;

    pg_open(&pg, url, "public", "bench");
    pg_wait_limit(pg, 300 * US_PER_S);
    (void)hear(with.order);
    warm(pg);
    say(with.report, 0);
    for (;;) {
        make_batches(batches, a, hear(with.order));
        say(with.report, 0);
        write_batches(pg, &months, batches, limit, (enum how)hear(with.order));
        say(with.report, 0);
        arena_reset(a);
    }
}

/* Before this process has a connection. */
static struct second second_start(const char *url)
{
    int order[2], report[2];
    pid_t pid;

    if (pipe(order) < 0 || pipe(report) < 0 || (pid = fork()) < 0) {
        perror("bench");
        exit(1);
    }
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)close(order[1]);
        (void)close(report[0]);
        second_writer(url, (struct second){order[0], report[1]});
    }
    (void)close(order[0]);
    (void)close(report[1]);
    return (struct second){order[1], report[0]};
}

/* Of batches of the same rows, or of as many of the same kind. */
struct seconds {
    double ours[BATCHES], limit[BATCHES];
    size_t n;
};

struct login {
    const char *name;
    struct pg *pg;
    struct months months;
    bool elsewhere; /* in a database of its own, without a limit */
    struct seconds took;
};

struct bench {
    struct login owner;
    struct login logins[4]; /* further ones */
    size_t n_logins;
    struct second second;
    const char *limit;
    int64_t account;       /* the next new one */
    int64_t limit_account; /* the next one that is new in copy_limit and never in usage_metrics */
};

static void ours_and_limit(const struct bench *b, struct login *l, bool limit_first,
                           struct batch_page *pages, const struct batch_page *limit_pages,
                           struct seconds *took)
{
    size_t i = took->n++;

    if (limit_first && limit_pages)
        took->limit[i] = copy_batch(l->pg, limit_pages, b->limit);
    took->ours[i] = commit_batch(l->pg, &l->months, pages);
    if (!limit_first && limit_pages)
        took->limit[i] = copy_batch(l->pg, limit_pages, b->limit);
}

static int compare_doubles(const void *a, const void *b)
{
    const double *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

/* By the median: now and then a batch waits for a new file of the WAL, or a busy disk. */
static double rows_a_second(double *seconds)
{
    qsort(seconds, BATCHES, sizeof(*seconds), compare_doubles);
    return (double)BATCH_ROWS / ((seconds[BATCHES / 2 - 1] + seconds[BATCHES / 2]) / 2);
}

static void report_seconds(const char *name, struct seconds *took, bool has_limit)
{
    report(name, rows_a_second(took->ours), has_limit ? rows_a_second(took->limit) : 1);
    took->n = 0;
}

static void new_accounts(struct bench *b, struct arena *a, struct login *l, bool limit_first)
{
    struct batch_page *pages = batch_of(a, b->account, FIRST);

    ours_and_limit(b, l, limit_first, pages, l->elsewhere ? NULL : pages, &l->took);
    expect(pages, (uint32_t)BATCH_ROWS, 0);
    b->account += (int64_t)ACCOUNTS;
}

/* As a claim does, before the accounts from `first` on are read once more. */
static void next_lease(struct pg *pg, struct arena *a, int64_t first)
{
    const char *sql = arena_printf(a,
                                   "UPDATE accounts SET lease_epoch = 2 WHERE account_id >= "
                                   "%" PRId64 " AND account_id < %" PRId64,
                                   first, first + (int64_t)ACCOUNTS);

    run_each(pg, (const char *const[]){sql, NULL});
}

/* Of a batch in which all is as the last one has left it. */
static void unchanged(struct bench *b, struct batch_page *pages)
{
    int64_t wal = wal_at(b->owner.pg);

    (void)commit_batch(b->owner.pg, &b->owner.months, pages);
    expect(pages, 0, 0);
    report("wal", (double)(wal_at(b->owner.pg) - wal) / (double)BATCH_ROWS, 1);
}

static void pair(struct bench *b)
{
    struct arena *a = arena_new();
    struct seconds again = {0}, later = {0};

    for (int i = 0; i < BATCHES; i++) {
        int64_t first = b->account;
        struct batch_page *pages;

        arena_reset(a);
        new_accounts(b, a, &b->owner, i % 2);
        next_lease(b->owner.pg, a, first);
        pages = batch_of(a, first, SOME_CHANGED);
        ours_and_limit(b, &b->owner, i % 2, pages, batch_of(a, b->limit_account, FIRST), &again);
        expect(pages, (uint32_t)BATCH_ROWS / 20, (uint32_t)BATCH_ROWS / 20);
        b->limit_account += (int64_t)ACCOUNTS;
        if (i == BATCHES - 1)
            unchanged(b, pages);
        pages = batch_of(a, first, LATER_HOURS);
        ours_and_limit(b, &b->owner, i % 2, pages, pages, &later);
        expect(pages, (uint32_t)BATCH_ROWS, 0);
        for (size_t k = 0; k < b->n_logins; k++)
            new_accounts(b, a, &b->logins[k], i % 2);
    }
    report_seconds("new", &b->owner.took, true);
    report_seconds("again", &again, true);
    report_seconds("later", &later, true);
    for (size_t i = 0; i < b->n_logins; i++)
        report_seconds(b->logins[i].name, &b->logins[i].took, !b->logins[i].elsewhere);
    arena_free(&a);
}

/* Rows a second of two writers, and of one of them alone. */
static void pair_of_two(struct bench *b, const char *figure, enum how how)
{
    const int64_t share = BATCHES * (int64_t)ACCOUNTS;
    const double rows = (double)(BATCHES * BATCH_ROWS);
    struct batch_page *batches[BATCHES];
    struct arena *a = arena_new();
    double alone, both;
    int64_t began;

    make_batches(batches, a, b->account);
    began = clock_mono_us();
    write_batches(b->owner.pg, &b->owner.months, batches, b->limit, how);
    alone = seconds_since(began);
    arena_reset(a);

    say(b->second.order, b->account + share);
    make_batches(batches, a, b->account + 2 * share);
    (void)hear(b->second.report);
    began = clock_mono_us();
    say(b->second.order, how);
    write_batches(b->owner.pg, &b->owner.months, batches, b->limit, how);
    (void)hear(b->second.report);
    both = seconds_since(began);
    arena_free(&a);
    b->account += 3 * share;
    report(figure, 2 * rows / both, rows / alone);
}

static void login_open(struct login *l, struct arena *a, const char *given)
{
    const char *url = strchr(given, '=');
    size_t name_len = strcspn(given, ":=");

    l->name = arena_copy(a, given, name_len);
    l->elsewhere = given[name_len] == ':';
    pg_open(&l->pg, url + 1, "public", "bench");
    pg_wait_limit(l->pg, 1800 * US_PER_S);
    if (l->elsewhere)
        fill(l->pg, strtoll(given + name_len + 1, NULL, 10));
}

static void warm_all(struct bench *b)
{
    warm(b->owner.pg);
    for (size_t i = 0; i < b->n_logins; i++)
        warm(b->logins[i].pg);
    say(b->second.order, 0);
    (void)hear(b->second.report);
}

int main(int argc, char **argv)
{
    struct bench b = {.account = 1, .limit_account = ACCOUNTS_PER_DB};
    struct arena *a = arena_new();

    heap_keep(); /* as a stage does */
    if (argc < 4 || argc > 8) {
        (void)fprintf(stderr,
                      "usage: writer DATABASE_URL ROWS_THERE PAIRS [NAME[:ROWS_THERE]=URL ...]\n");
        return 2;
    }
    b.second = second_start(argv[1]);
    pg_open(&b.owner.pg, argv[1], "public", "bench");
    pg_wait_limit(b.owner.pg, 1800 * US_PER_S);
    for (int i = 4; i < argc; i++)
        login_open(&b.logins[b.n_logins++], a, argv[i]);
    b.limit = limit_sql(a);
    fill(b.owner.pg, strtoll(argv[2], NULL, 10));
    make_twin(b.owner.pg);
    warm_all(&b);
    for (long i = strtol(argv[3], NULL, 10); i > 0; i--) {
        pair(&b);
        pair_of_two(&b, "two", BY_US);
        pair_of_two(&b, "two copies", BY_COPY);
    }
    for (size_t i = 0; i < b.n_logins; i++)
        pg_close(&b.logins[i].pg);
    pg_close(&b.owner.pg);
    arena_free(&a);
    return 0;
}
