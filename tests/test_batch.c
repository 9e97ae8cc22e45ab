/* Pages replace buckets, in a real Postgres: what is counted, kept, fenced and set aside. */
#include "writer/batch.h"

#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "tests/private_pg.h"

#define HOUR_US (3600 * US_PER_S)

static struct pg *pg;
static struct arena *arena;
static struct months months;

static int64_t us(const char *text)
{
    struct err err;
    int64_t t = 0;

    assert_int_equal(time_parse(&t, text_of(text), &err), ST_OK);
    return t;
}

static void tell(const char *sql)
{
    struct err err = {0};

    if (pg_exec(pg, sql, &err) != ST_OK)
        fail_msg("%s", err.text);
}

static const char *ask(const char *sql)
{
    struct err err = {0};
    PGresult *r = NULL;

    if (pg_query(pg, &r, arena, sql, NULL, &err) != ST_OK)
        fail_msg("%s: %s", sql, err.text);
    return PQntuples(r) ? arena_copy(arena, PQgetvalue(r, 0, 0), (size_t)PQgetlength(r, 0, 0))
                        : NULL;
}

/* The migrations, as usagectl applies them. */
static int migrated(void **state)
{
    struct buf sql = {.arena = arena_new()};
    char chunk[4096];
    size_t n;
    FILE *in;

    if (private_pg_start(state) < 0)
        return -1;
    if (private_pg_url[0]) {
        in = popen("echo 'CREATE TABLE schema_migrations (version integer);'; cat db/*.sql", "r");
        while (in && (n = fread(chunk, 1, sizeof(chunk), in)) > 0)
            buf_append(&sql, chunk, n);
        if (!in || pclose(in) != 0)
            return -1;
        pg_open(&pg, private_pg_url, "public", "test");
        tell(sql.at);
        pg_close(&pg);
    }
    arena_free(&sql.arena);
    return 0;
}

static int setup(void **state)
{
    (void)state;
    private_pg_open(&pg, &arena);
    if (!pg)
        return 0;
    tell("TRUNCATE usage_metrics, usage_revisions, dead_letters, accounts CASCADE; "
         "INSERT INTO accounts (account_id, name, provider, base_url, key_ciphertext, key_hint, "
         "lease_epoch) SELECT n, 'a' || n, 'openai', 'https://x', '', '', 2 "
         "FROM generate_series(1, 4) AS n");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    private_pg_close(&pg, &arena);
    return 0;
}

/* ---- pages ---- */

/* "model=tokens model=tokens ...": the rows of one bucket. */
static const struct record *rows_of(const char *rows, int64_t bucket_us, size_t *n)
{
    struct record *out = ARENA_ARRAY(arena, 16, struct record);

    *n = 0;
    while (*rows) {
        const char *eq = strchr(rows, '=');
        struct record *r = &out[(*n)++];
        char *end;
        record_clear(r);
        r->bucket_start_us = bucket_us;
        r->bucket_seconds = 3600;
        r->texts[TEXT_MODEL] =
            (struct text){arena_copy(arena, rows, (size_t)(eq - rows)), (size_t)(eq - rows)};
        r->counts[COUNT_INPUT_TOKENS] = strtoll(eq + 1, &end, 10);
        record_digest(r, TEXT_LIT("completions"));
        rows = *end == ' ' ? end + 1 : end;
    }
    return out;
}

static struct batch_page page_of(int64_t account_id, int64_t epoch, int64_t bucket_us,
                                 const char *rows)
{
    struct origin *origin = ARENA_NEW(arena, struct origin);
    struct record_page *page = ARENA_NEW(arena, struct record_page);
    struct span *span = ARENA_NEW(arena, struct span);

    *span = (struct span){bucket_us, bucket_us + HOUR_US};
    *origin =
        (struct origin){.account_id = account_id, .epoch = epoch, .provider = TEXT_LIT("openai")};
    uuid_random(&origin->job_id);
    page->asked =
        (struct window){.feed = TEXT_LIT("completions"), .from_us = bucket_us, .bucket_s = 3600};
    page->spans = span;
    page->n_spans = 1;
    page->records = rows_of(rows, bucket_us, &page->n_records);
    return (struct batch_page){.origin = origin, .page = page};
}

static enum status commit(struct batch_page *pages, size_t n)
{
    struct err err = {0};

    return batch_commit(pg, &months, pages, n, &err);
}

#define ALL_ROWS                                                                                   \
    "SELECT coalesce(string_agg(model || '=' || input_tokens, ' ' ORDER BY bucket_start, model), " \
    "'') FROM usage_metrics WHERE account_id = 1"

/* ---- replacing ---- */

static const struct {
    const char *name, *rows;
    uint32_t inserted, updated, removed, unchanged;
} replace_cases[] = {
    {"new", "a=1 b=2 c=3", 3, 0, 0, 0},
    {"the same again", "a=1 b=2 c=3", 0, 0, 0, 3},
    {"one grew", "a=1 b=20 c=3", 0, 1, 0, 2},
    {"one vanished", "a=1 b=20", 0, 0, 1, 2},
    {"one grew, one came, one vanished", "a=10 d=4", 1, 1, 1, 0},
    {"it shrank", "a=9 d=4", 0, 1, 0, 1},
    {"the bucket is empty now", "", 0, 0, 2, 0},
    {"it is back", "a=1", 1, 0, 0, 0},
};

static void buckets_are_replaced(void **state)
{
    int64_t hour = us("2026-10-05T10:00:00Z");
    bool good = true;

    (void)state;
    NEEDS_POSTGRES();
    for (size_t i = 0; i < ROWS(replace_cases); i++) {
        struct batch_page p = page_of(1, 2, hour, replace_cases[i].rows);
        const char *name = replace_cases[i].name;
        good &= same_int(name, commit(&p, 1), ST_OK);
        good &= same_int(name, p.fate, PAGE_COMMITTED);
        good &= same_int(name, p.inserted, replace_cases[i].inserted);
        good &= same_int(name, p.updated, replace_cases[i].updated);
        good &= same_int(name, p.removed, replace_cases[i].removed);
        good &= same_int(name, p.unchanged, replace_cases[i].unchanged);
        good &= same_str(name, ask(ALL_ROWS), replace_cases[i].rows);
    }
    good &= same_str("no revision of what was never complete",
                     ask("SELECT count(*) FROM usage_revisions"), "0");
    assert_true(good);
}

static void only_its_own_buckets(void **state)
{
    int64_t hour = us("2026-10-05T10:00:00Z");
    struct batch_page before[] = {page_of(1, 2, hour, "a=1"), page_of(1, 2, hour + HOUR_US, "a=2"),
                                  page_of(2, 2, hour, "a=3"), page_of(1, 2, hour, "x=4")};
    struct batch_page after = page_of(1, 2, hour, "");
    struct record_page *other;

    (void)state;
    NEEDS_POSTGRES();
    other = ARENA_NEW(arena, struct record_page);
    *other = *before[3].page;
    other->asked.feed = TEXT_LIT("embeddings"); /* of the same hour */
    before[3].page = other;
    assert_int_equal(commit(before, 4), ST_OK);
    assert_int_equal(commit(&after, 1), ST_OK);
    assert_int_equal(after.removed, 1);
    assert_string_equal(ask(ALL_ROWS), "x=4 a=2");
    assert_string_equal(ask("SELECT count(*) FROM usage_metrics WHERE account_id = 2"), "1");
}

static void the_later_page_wins(void **state)
{
    int64_t hour = us("2026-10-05T10:00:00Z");
    struct batch_page pages[] = {page_of(1, 2, hour, "a=1"), page_of(1, 2, hour, "a=7")};

    (void)state;
    NEEDS_POSTGRES();
    assert_int_equal(commit(pages, 2), ST_OK);
    assert_string_equal(ask(ALL_ROWS), "a=7");
    assert_int_equal(pages[0].inserted + pages[1].inserted, 1);
}

/* BR-049: every digit arrives, and 0 is not null. */
static void values_arrive_whole(void **state)
{
    struct record_page *page;
    struct batch_page p;
    struct record *r;

    (void)state;
    NEEDS_POSTGRES();
    p = page_of(1, 2, us("2026-10-05T10:00:00Z"), "m=0");
    r = ARENA_NEW(arena, struct record);
    *r = p.page->records[0];
    r->batch = TRI_FALSE;
    r->counts[COUNT_NUM_REQUESTS] = INT64_MAX;
    r->texts[TEXT_COST_AMOUNT] = TEXT_LIT("123456789012345678901234567890.000000000000000000001");
    r->texts[TEXT_QUANTITY] = TEXT_LIT("-0.10");
    r->texts[TEXT_CURRENCY] = TEXT_LIT("USD");
    r->texts[TEXT_DIMS] = TEXT_LIT("{\"size\":\"\\u00e4\\\"\"}");
    r->texts[TEXT_EXTRA] = TEXT_LIT("{\"x\":0.1000000000000000055511151231257827}");
    record_digest(r, TEXT_LIT("completions"));
    page = ARENA_NEW(arena, struct record_page);
    *page = *p.page;
    page->records = r;
    p.page = page;
    for (int again = 0; again < 2; again++) {
        assert_int_equal(commit(&p, 1), ST_OK);
        assert_string_equal(
            ask("SELECT concat_ws('|', cost_amount, quantity, currency, dims->>'size', extra->'x', "
                "batch, input_tokens, num_requests, output_tokens IS NULL, project_id IS NULL, "
                "bucket_start AT TIME ZONE 'UTC', bucket_seconds) FROM usage_metrics"),
            "123456789012345678901234567890.000000000000000000001|-0.10|USD|\303\244\"|"
            "0.1000000000000000055511151231257827|f|0|9223372036854775807|t|t|"
            "2026-10-05 10:00:00|3600");
        /* the second time by UPDATE instead of COPY */
        tell("UPDATE usage_metrics SET row_hash = row_hash + 1, cost_amount = 1, quantity = 1, "
             "extra = NULL, num_requests = 1, input_tokens = 1, currency = NULL");
    }
    assert_int_equal(p.updated, 1);
}

/* ---- revisions ---- */

static const struct {
    const char *name, *before, *after;
    int64_t complete_from_h, complete_h; /* hours from the bucket's start */
    const char *want;                    /* change:old:new of each revision */
} revision_cases[] = {
    {"changed", "a=1", "a=2", -9, 1, "changed:1:2"},
    {"vanished", "a=1 b=2", "a=1", -9, 5, "vanished:2:-"},
    {"appeared", "a=1", "a=1 b=2", -9, 5, "appeared:-:2"},
    {"unchanged", "a=1", "a=1", -9, 5, ""},
    {"all three", "a=1 b=2", "a=3 c=4", -9, 1, "appeared:-:4 changed:1:3 vanished:2:-"},
    {"the bucket was still open", "a=1", "a=2", -9, 0, ""},
    {"never complete", "a=1", "a=2", 0, 0, ""},
    {"new where nothing had been read", "", "a=1", 1, 5, ""},
    {"changed where it had been injected", "a=1", "a=2", 1, 1, "changed:1:2"},
};

static void revisions(void **state)
{
    int64_t hour = us("2026-10-05T10:00:00Z");
    bool good = true;

    (void)state;
    NEEDS_POSTGRES();
    for (size_t i = 0; i < ROWS(revision_cases); i++) {
        struct batch_page before = page_of(1, 2, hour, revision_cases[i].before);
        struct batch_page after = page_of(1, 2, hour, revision_cases[i].after);
        struct record_page *page = ARENA_NEW(arena, struct record_page);
        *page = *after.page;
        if (revision_cases[i].complete_h || revision_cases[i].complete_from_h) {
            page->asked.complete_from_us = hour + revision_cases[i].complete_from_h * HOUR_US;
            page->asked.complete_us = hour + revision_cases[i].complete_h * HOUR_US;
        }
        after.page = page;
        tell("TRUNCATE usage_metrics, usage_revisions");
        good &= same_int(revision_cases[i].name, commit(&before, 1), ST_OK);
        good &= same_int(revision_cases[i].name, commit(&after, 1), ST_OK);
        good &= same_str(revision_cases[i].name,
                         ask("SELECT coalesce(string_agg(concat_ws(':', change, "
                             "coalesce(old_row->>'input_tokens', '-'), "
                             "coalesce(new_row->>'input_tokens', '-')), ' ' ORDER BY change), '') "
                             "FROM usage_revisions"),
                         revision_cases[i].want);
    }
    assert_true(good);
}

/* ---- sums ---- */

/* Rows that come, change and go: their day is named, so no sum is doubted. What others change is.
 */
static void sums_stay_valid(void **state)
{
    static const char *const rounds[] = {"a=1 b=2", "a=1 b=2 c=3", "a=9 b=2 c=3", "a=9"};
    int64_t hour = us("2026-10-05T10:00:00Z");

    (void)state;
    NEEDS_POSTGRES();
    for (size_t i = 0; i < ROWS(rounds); i++) {
        struct batch_page p = page_of(1, 2, hour, rounds[i]);
        tell("TRUNCATE usage_unsummed_days; UPDATE usage_summed SET valid = true");
        assert_int_equal(commit(&p, 1), ST_OK);
        assert_string_equal(ask("SELECT valid FROM usage_summed"), "t");
        assert_string_equal(ask("SELECT account_id || ' ' || day FROM usage_unsummed_days"),
                            "1 2026-10-05");
    }
    assert_string_equal(ask(ALL_ROWS), "a=9");
    tell("UPDATE usage_metrics SET input_tokens = 8");
    assert_string_equal(ask("SELECT valid FROM usage_summed"), "f");
}

/* ---- the fence ---- */

static const struct {
    const char *name;
    int64_t account_id, epoch;
    enum page_fate want;
} fence_cases[] = {
    {"the lease that is out", 1, 2, PAGE_COMMITTED},
    {"an older lease", 2, 1, PAGE_FENCED},
    {"a lease that is not yet", 3, 3, PAGE_FENCED},
    {"an account that is gone", 99, 2, PAGE_FENCED},
};

static void old_leases_are_fenced_off(void **state)
{
    struct batch_page pages[ROWS(fence_cases)];
    bool good = true;

    (void)state;
    NEEDS_POSTGRES();
    for (size_t i = 0; i < ROWS(fence_cases); i++)
        pages[i] = page_of(fence_cases[i].account_id, fence_cases[i].epoch,
                           us("2026-10-05T10:00:00Z"), "a=1");
    assert_int_equal(commit(pages, ROWS(pages)), ST_OK);
    for (size_t i = 0; i < ROWS(fence_cases); i++) {
        good &= same_int(fence_cases[i].name, pages[i].fate, fence_cases[i].want);
        good &=
            same_int(fence_cases[i].name, pages[i].inserted, fence_cases[i].want == PAGE_COMMITTED);
    }
    good &=
        same_str("rows", ask("SELECT string_agg(account_id::text, ' ') FROM usage_metrics"), "1");
    assert_true(good);
}

/* A row of an old lease does not stand for the same row of the one that goes on. */
static void an_old_lease_hides_nothing(void **state)
{
    const int64_t hour = us("2026-10-05T10:00:00Z");

    (void)state;
    NEEDS_POSTGRES();
    for (int old_last = 0; old_last < 2; old_last++) {
        struct batch_page pages[2];
        pages[!old_last] = page_of(1, 1, hour, "a=5 b=5");
        pages[old_last] = page_of(1, 2, hour, old_last ? "a=2" : "a=1");
        assert_int_equal(commit(pages, 2), ST_OK);
        assert_int_equal(pages[!old_last].fate, PAGE_FENCED);
        assert_int_equal(pages[old_last].fate, PAGE_COMMITTED);
        assert_string_equal(
            ask("SELECT string_agg(model || '=' || input_tokens, ' ') FROM usage_metrics"),
            old_last ? "a=2" : "a=1");
    }
}

static const struct {
    const char *name;
    bool again; /* what the case before has written is there */
    int64_t epoch;
    uint32_t seq;
    uint32_t inserted, removed, unchanged;
    const char *rows; /* of account 1 after it */
} first_cases[] = {
    {"a feed's first page ever: nothing is looked for", false, 1, 0, 2, 0, 0, "a=1 b=1 old=9"},
    {"the same, whose COMMIT was not heard of: it is", true, 1, 0, 0, 1, 2, "a=1 b=1"},
    {"its second page", false, 1, 1, 2, 1, 0, "a=1 b=1"},
    {"a later lease", false, 2, 0, 2, 1, 0, "a=1 b=1"},
};

/* Beside a page of an account that has long been read. */
static void the_first_page_ever_is_not_probed(void **state)
{
    const int64_t hour = us("2026-10-05T10:00:00Z");
    bool good = true;

    (void)state;
    NEEDS_POSTGRES();
    for (size_t i = 0; i < ROWS(first_cases); i++) {
        const char *name = first_cases[i].name;
        struct batch_page before[] = {page_of(1, 2, hour, "old=9"), page_of(2, 2, hour, "a=1 x=1")};
        struct batch_page pages[] = {page_of(1, first_cases[i].epoch, hour, "a=1 b=1"),
                                     page_of(2, 2, hour, "a=2 b=1")};
        struct record_page *first = ARENA_NEW(arena, struct record_page);

        *first = *pages[0].page;
        first->seq = first_cases[i].seq;
        pages[0].page = first;
        if (!first_cases[i].again) {
            tell("TRUNCATE usage_metrics; UPDATE accounts SET lease_epoch = 2");
            good &= same_int(name, commit(before, 2), ST_OK);
        }
        tell(arena_printf(arena, "UPDATE accounts SET lease_epoch = %d WHERE account_id = 1",
                          (int)first_cases[i].epoch));
        good &= same_int(name, commit(pages, 2), ST_OK);
        good &= same_int(name, pages[0].inserted, first_cases[i].inserted);
        good &= same_int(name, pages[0].removed, first_cases[i].removed);
        good &= same_int(name, pages[0].unchanged, first_cases[i].unchanged);
        good &= same_int(name, pages[1].inserted + pages[1].updated + pages[1].removed,
                         first_cases[i].again ? 0 : 3);
        good &= same_str(name, ask(ALL_ROWS), first_cases[i].rows);
    }
    assert_true(good);
}

/* A server that was restarted between two batches costs neither of them. */
static void a_batch_on_a_new_connection(void **state)
{
    struct batch_page p = page_of(1, 2, us("2026-10-05T10:00:00Z"), "a=1");

    (void)state;
    NEEDS_POSTGRES();
    assert_int_equal(commit(&p, 1), ST_OK);
    private_pg_terminate(pg);
    assert_int_equal(commit(&p, 1), ST_OK);
    assert_int_equal(p.unchanged, 1);
}

/* ---- partitions ---- */

/* BR-091 */
static void every_month_has_a_place(void **state)
{
    const int64_t old = us("2025-09-25T00:00:00Z"), last = us("2026-12-31T23:00:00Z"),
                  far = us("2031-02-28T23:00:00Z");
    struct batch_page pages[] = {page_of(1, 2, old, "old=1"), page_of(1, 2, last, "last=1"),
                                 page_of(1, 2, last + HOUR_US, "first=1"),
                                 page_of(1, 2, far, "far=1")};
    struct months none = {{0}};
    struct err err = {0};

    (void)state;
    NEEDS_POSTGRES();
    assert_int_equal(months_ahead(&none, pg, &err), ST_OK);
    assert_int_equal(months_ahead(&none, pg, &err), ST_OK);
    assert_int_equal(commit(pages, 4), ST_OK);
    assert_string_equal(ask(ALL_ROWS), "old=1 last=1 first=1 far=1");
    assert_string_equal(ask("SELECT count(*) FROM usage_metrics_2025_09"), "1");
    assert_string_equal(ask("SELECT count(*) FROM usage_metrics_2026_12"), "1");
    assert_string_equal(ask("SELECT count(*) FROM usage_metrics_2027_01"), "1");
    /* somebody drops an old month while we run: the next batch but one finds out */
    tell("DROP TABLE usage_metrics_2025_09");
    pages[0] = page_of(1, 2, old, "old=2");
    assert_true(commit(pages, 1) != ST_OK);
    assert_int_equal(commit(pages, 1), ST_OK);
    assert_string_equal(ask(ALL_ROWS), "old=2 last=1 first=1 far=1");
}

/* ---- what Postgres refuses ---- */

/* BR-089, BR-113: a hundred batches refused, and the same one connection goes on. */
static void refused_batches_leave_no_trace(void **state)
{
    int64_t hour = us("2026-10-05T10:00:00Z");
    struct batch_page pages[] = {page_of(1, 2, hour, "good=1"), page_of(2, 2, hour, "\xff=2")};
    const char *pid;

    (void)state;
    NEEDS_POSTGRES();
    pid = ask("SELECT pg_backend_pid()");
    for (int i = 0; i < 100; i++) {
        assert_int_equal(commit(pages, 2), ST_REJECT);
        assert_string_equal(pg_sqlstate(pg), "22021");
        tell("DISCARD ALL"); /* refused inside a transaction */
    }
    assert_string_equal(ask("SELECT count(*) FROM usage_metrics"), "0");
    assert_string_equal(ask("SELECT pg_backend_pid()"), pid);
    assert_string_equal(
        ask("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'test'"), "1");
    assert_int_equal(commit(pages, 1), ST_OK); /* the good one alone */
    /* and the bad one as the dead letter that the writer makes of it */
    pages[1].refused = "Postgres: invalid byte sequence";
    memcpy(pages[1].sqlstate, "22021", 6);
    assert_int_equal(commit(&pages[1], 1), ST_OK);
    assert_int_equal(pages[1].fate, PAGE_DEAD);
    assert_int_equal(pages[1].inserted, 0);
    assert_string_equal(ask("SELECT concat_ws('|', account_id, feed, reason, sqlstate, "
                            "occurrences, body IS NULL) FROM dead_letters"),
                        "2|completions|Postgres: invalid byte sequence|22021|1|t");
}

static void dead_letters_are_kept_once(void **state)
{
    int64_t hour = us("2026-10-05T10:00:00Z");
    const struct dead bad = {TEXT_LIT("not a number"), TEXT_LIT("$.x"), TEXT_LIT("{\"x\":1}")};
    struct batch_page p = page_of(1, 2, hour, "good=1"), whole = page_of(1, 2, hour, "");
    struct record_page *page = ARENA_NEW(arena, struct record_page),
                       *dead = ARENA_NEW(arena, struct record_page);

    (void)state;
    NEEDS_POSTGRES();
    *page = *p.page;
    page->bad_rows = &bad;
    page->n_bad_rows = 1;
    p.page = page;
    *dead = *whole.page;
    dead->n_spans = 0;
    dead->dead = (struct dead){TEXT_LIT("not JSON"), TEXT_NULL, TEXT_LIT("<html>")};
    whole.page = dead;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(commit(&p, 1), ST_OK);
        assert_int_equal(p.fate, PAGE_DEAD);
        assert_int_equal(commit(&whole, 1), ST_OK);
        assert_int_equal(whole.fate, PAGE_DEAD);
    }
    assert_string_equal(ask(ALL_ROWS), "good=1"); /* the page's other rows went in, and stayed */
    assert_string_equal(ask("SELECT string_agg(concat_ws('|', reason, json_path, body, "
                            "occurrences), ' ' ORDER BY reason) FROM dead_letters"),
                        "not JSON|<html>|3 not a number|$.x|{\"x\":1}|3");
}

/* ---- two writers ---- */

#define ROUNDS 60

/* The same four accounts, forwards or backwards; exits 0 when each round was committed. */
static int write_rounds(bool backwards)
{
    struct months own = {{0}};
    struct err err = {0};

    pg_open(&pg, private_pg_url, "public", "other");
    for (int round = 0; round < ROUNDS; round++) {
        struct batch_page pages[4];
        char rows[64];
        (void)snprintf(rows, sizeof(rows), "a=%d b=%d %s=1", round, round + backwards,
                       backwards ? "x" : "y");
        for (int64_t k = 0; k < 4; k++)
            pages[k] = page_of(backwards ? 4 - k : k + 1, 2, us("2026-10-05T10:00:00Z"), rows);
        if (batch_commit(pg, &own, pages, 4, &err) != ST_OK)
            return 1;
    }
    pg_close(&pg);
    return 0;
}

/* BR-088 */
static void two_writers_do_not_deadlock(void **state)
{
    pid_t children[4];
    bool good = true;

    (void)state;
    NEEDS_POSTGRES();
    pg_disconnect(pg); /* not to be shared with the children */
    for (size_t i = 0; i < ROWS(children); i++) {
        children[i] = fork();
        if (children[i] == 0)
            _exit(write_rounds(i % 2));
    }
    for (size_t i = 0; i < ROWS(children); i++) {
        int status = 0;
        assert_int_equal(waitpid(children[i], &status, 0), children[i]);
        good &= same_int("writer", status, 0);
    }
    good &= same_str("deadlocks", ask("SELECT sum(deadlocks) FROM pg_stat_database"), "0");
    good &= same_str("rows of one writer's round, three for each account",
                     ask("SELECT count(*) || '|' || count(DISTINCT account_id) FROM usage_metrics"),
                     "12|4");
    assert_true(good);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(buckets_are_replaced),
        TEST(only_its_own_buckets),
        TEST(the_later_page_wins),
        TEST(values_arrive_whole),
        TEST(revisions),
        TEST(sums_stay_valid),
        TEST(old_leases_are_fenced_off),
        TEST(an_old_lease_hides_nothing),
        TEST(a_batch_on_a_new_connection),
        TEST(the_first_page_ever_is_not_probed),
        TEST(every_month_has_a_place),
        TEST(refused_batches_leave_no_trace),
        TEST(dead_letters_are_kept_once),
        TEST(two_writers_do_not_deadlock),
    };

    log_open("test", LOG_ERROR);
    return cmocka_run_group_tests(tests, migrated, private_pg_stop);
}
