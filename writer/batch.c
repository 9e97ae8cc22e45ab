#include "writer/batch.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "common/crash.h"
#include "common/log.h"
#include "common/pg_binary.h"
#include "writer/copy.h"

/* ---- the rows of one transaction, found by their primary key ---- */

enum row_state { ROW_NEW, ROW_SAME, ROW_CHANGED, ROW_GONE };

struct row {
    struct row *next; /* in its slot */
    int64_t account_id;
    int64_t bucket_us;
    uint8_t row_key[16]; /* with row_hash a copy of the record's, which lies far away */
    int64_t row_hash;
    const struct record *record; /* NULL: only the table has it */
    struct batch_page *page;
    enum row_state state;
};

struct work {
    struct arena *a;
    struct pg *pg;
    struct batch_page *pages; /* sorted views of them: */
    size_t n_pages;
    struct batch_page **by_feed; /* the live ones, by account and feed; all until fenced */
    size_t n_live;
    struct row **slots;
    size_t n_slots;   /* a power of two */
    struct row *rows; /* one for each record, in the order of the pages: by account and feed */
    size_t n_rows, n_new;
    struct row **gone;
    size_t n_gone, cap_gone;
    int64_t now_us;  /* the database's */
    bool guarded;    /* row-level security holds for this login */
    bool probes_all; /* also for pages that can have nothing there */
};

static size_t slot_of(const struct work *w, int64_t account_id, int64_t bucket_us,
                      const uint8_t key[16])
{
    uint64_t h;

    memcpy(&h, key, sizeof(h)); /* a digest already */
    h ^= (uint64_t)account_id * UINT64_C(0x9e3779b97f4a7c15) ^ (uint64_t)bucket_us;
    return (h ^ h >> 32) & (w->n_slots - 1);
}

static struct row *row_find(const struct work *w, int64_t account_id, int64_t bucket_us,
                            const uint8_t key[16])
{
    for (struct row *r = w->slots[slot_of(w, account_id, bucket_us, key)]; r; r = r->next)
        if (r->account_id == account_id && r->bucket_us == bucket_us &&
            memcmp(r->row_key, key, 16) == 0)
            return r;
    return NULL;
}

static void row_link(struct work *w, struct row *r)
{
    struct row **slot = &w->slots[slot_of(w, r->account_id, r->bucket_us, r->row_key)];

    r->next = *slot;
    *slot = r;
}

/* ---- partitions ---- */

static bool month_known(struct months *m, int64_t t_us, uint16_t **word, uint16_t *bit)
{
    time_t s = (time_t)(time_floor_us(t_us, 1) / US_PER_S);
    struct tm tm;

    (void)gmtime_r(&s, &tm);
    if (tm.tm_year < 70 || tm.tm_year >= 270)
        return false;
    *word = &m->month_bits[tm.tm_year - 70];
    *bit = (uint16_t)(1u << tm.tm_mon);
    return **word & *bit;
}

static enum status month_ensure(struct months *m, struct pg *pg, int64_t t_us, struct err *err)
{
    uint16_t *word = NULL, bit = 0;
    struct pg_params p = {0};
    char text[TIME_TEXT_MAX];

    if (month_known(m, t_us, &word, &bit))
        return ST_OK;
    TRY(pg_begin(pg, err));
    pg_param_text(&p, time_format(text, t_us));
    TRY(pg_query(pg, NULL, NULL, "SELECT usage_metrics_ensure_month($1::timestamptz)", &p, err));
    CRASH_POINT("writer.partition.made");
    TRY(pg_commit(pg, err));
    if (word)
        *word |= bit;
    return ST_OK;
}

enum status months_ahead(struct months *m, struct pg *pg, struct err *err)
{
    int64_t now = clock_utc_us();

    for (int i = 0; i <= 3; i++)
        TRY(month_ensure(m, pg, now + (int64_t)i * 30 * US_PER_DAY, err));
    return ST_OK;
}

static enum status months_of_batch(struct months *m, struct pg *pg, const struct batch_page *pages,
                                   size_t n, struct err *err)
{
    int64_t seen = INT64_MIN; /* a day: looked at already, as nearly all are */

    for (size_t i = 0; i < n; i++) {
        const struct record_page *p = pages[i].page;
        for (size_t k = 0; k < p->n_records; k++) {
            int64_t day = time_floor_us(p->records[k].bucket_start_us, 86400);
            if (day == seen)
                continue;
            TRY(month_ensure(m, pg, day, err));
            seen = day;
        }
    }
    return ST_OK;
}

/* ---- fence ---- */

static int compare_pages(const void *a, const void *b)
{
    const struct batch_page *x = *(struct batch_page *const *)a,
                            *y = *(struct batch_page *const *)b;
    struct text fx = x->page->asked.feed, fy = y->page->asked.feed;
    int c;

    if (x->origin->account_id != y->origin->account_id)
        return x->origin->account_id < y->origin->account_id ? -1 : 1;
    c = memcmp(fx.at, fy.at, fx.len < fy.len ? fx.len : fy.len);
    return c ? c : (fx.len > fy.len) - (fx.len < fy.len);
}

static void sort_pages(struct work *w)
{
    w->by_feed = ARENA_ARRAY(w->a, w->n_pages, struct batch_page *);
    for (size_t i = 0; i < w->n_pages; i++) {
        struct batch_page *bp = &w->pages[i];
        bp->inserted = bp->updated = bp->removed = bp->unchanged = 0;
        w->by_feed[i] = bp;
    }
    qsort(w->by_feed, w->n_pages, sizeof(struct batch_page *), compare_pages);
    w->n_live = w->n_pages;
}

/* Locks the accounts in the order of their ids and reads their lease's epoch: a claim can not slip
 * in between this check and the COMMIT. */
static enum status fence_ask(struct work *w, PGresult **out, struct err *err)
{
    struct pg_column ids;
    struct pg_params p = {.binary_result = true};

    pg_columns_open(&ids, w->a, (const enum pg_type[]){PG_BIGINT}, 1);
    for (size_t i = 0; i < w->n_pages; i++)
        if (i == 0 || w->by_feed[i]->origin->account_id != w->by_feed[i - 1]->origin->account_id)
            pg_column_int(&ids, w->by_feed[i]->origin->account_id);
    pg_param_columns(&p, &ids, 1);
    return pg_query(w->pg, out, w->a,
                    "SELECT account_id, lease_epoch FROM accounts WHERE account_id = ANY "
                    "($1::bigint[]) ORDER BY account_id FOR NO KEY UPDATE",
                    &p, err);
}

/* What else the transaction has to know, and to say: the trigger on usage_metrics hears that it
 * names the days it changes (unsum_sql). */
static enum status moment_ask(struct work *w, PGresult **out, struct err *err)
{
    struct pg_params p = {.binary_result = true};

    return pg_query(w->pg, out, w->a,
                    "SELECT epoch_us(now()), row_security_active('usage_metrics'), "
                    "set_config('uf.sums', 'kept', true)",
                    &p, err);
}

/* Leaves the pages whose lease goes on. */
static void fence(struct work *w, const PGresult *r)
{
    size_t n = 0;
    int at = 0;

    for (size_t i = 0; i < w->n_pages; i++) {
        struct batch_page *bp = w->by_feed[i];
        bp->fate = PAGE_FENCED; /* also when the account is gone */
        while (at < PQntuples(r) && pg_bin_int(r, at, 0) < bp->origin->account_id)
            at++;
        if (at == PQntuples(r) || pg_bin_int(r, at, 0) != bp->origin->account_id ||
            pg_bin_int(r, at, 1) != bp->origin->epoch)
            continue;
        bp->fate = bp->refused || bp->page->dead.reason.at || bp->page->n_bad_rows ? PAGE_DEAD
                                                                                   : PAGE_COMMITTED;
        w->by_feed[n++] = bp;
    }
    w->n_live = n;
}

/* ---- collect and probe ---- */

/* The rows of the live pages, each once. */
static void collect(struct work *w)
{
    size_t total = 0;

    w->n_rows = 0;
    for (size_t i = 0; i < w->n_live; i++)
        total += w->by_feed[i]->refused ? 0 : w->by_feed[i]->page->n_records;
    for (w->n_slots = 64; w->n_slots < 2 * total; w->n_slots *= 2)
        ;
    w->slots = ARENA_ARRAY(w->a, w->n_slots, struct row *);
    w->rows = ARENA_ARRAY(w->a, total, struct row);
    for (size_t i = 0; i < w->n_live; i++) {
        struct batch_page *bp = w->by_feed[i];
        for (size_t k = 0; !bp->refused && k < bp->page->n_records; k++) {
            const struct record *rec = &bp->page->records[k];
            struct row *row =
                row_find(w, bp->origin->account_id, rec->bucket_start_us, rec->row_key);
            if (row) { /* one bucket on two pages: the later observation */
                row->row_hash = rec->row_hash;
                row->record = rec;
                row->page = bp;
                continue;
            }
            row = &w->rows[w->n_rows++];
            *row = (struct row){.account_id = bp->origin->account_id,
                                .bucket_us = rec->bucket_start_us,
                                .row_hash = rec->row_hash,
                                .record = rec,
                                .page = bp};
            memcpy(row->row_key, rec->row_key, sizeof(row->row_key));
            row_link(w, row);
        }
    }
}

/* The live page whose buckets a row of the table lies in, or NULL. */
static struct batch_page *covering(const struct work *w, int64_t account_id, struct text feed,
                                   int64_t bucket_us)
{
    const struct origin origin = {.account_id = account_id};
    const struct record_page page = {.asked = {.feed = feed}};
    const struct batch_page key = {.origin = &origin, .page = &page};
    const struct batch_page *key_at = &key;
    size_t low = 0, high = w->n_live;

    while (low < high) {
        size_t mid = (low + high) / 2;
        if (compare_pages(&w->by_feed[mid], &key_at) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    for (; low < w->n_live && compare_pages(&w->by_feed[low], &key_at) == 0; low++) {
        const struct record_page *p = w->by_feed[low]->page;
        for (size_t i = 0; !w->by_feed[low]->refused && i < p->n_spans; i++)
            if (bucket_us >= p->spans[i].from_us && bucket_us < p->spans[i].to_us)
                return w->by_feed[low];
    }
    return NULL;
}

/* One row of the table, inside some page's buckets. */
static void meet(struct work *w, const PGresult *r, int i)
{
    int64_t account_id = pg_bin_int(r, i, 0);
    int64_t bucket_us = pg_bin_time(r, i, 1);
    const uint8_t *key = (const uint8_t *)PQgetvalue(r, i, 3);
    struct row *row = row_find(w, account_id, bucket_us, key);
    struct batch_page *bp;

    if (row) {
        if (row->record)
            row->state = row->row_hash == pg_bin_int(r, i, 4) ? ROW_SAME : ROW_CHANGED;
        return;
    }
    bp = covering(w, account_id, pg_text(r, i, 2), bucket_us);
    /* What looks vanished on a page with rows set aside may be one of those, reported and not
     * understood. */
    if (!bp || bp->part || bp->page->n_bad_rows > 0)
        return;
    row = ARENA_NEW(w->a, struct row);
    *row = (struct row){
        .account_id = account_id, .bucket_us = bucket_us, .page = bp, .state = ROW_GONE};
    memcpy(row->row_key, key, sizeof(row->row_key));
    row_link(w, row); /* two ranges may both show it */
    if (w->n_gone == w->cap_gone) {
        struct row **old = w->gone;
        w->cap_gone = w->cap_gone ? 2 * w->cap_gone : 64;
        w->gone = ARENA_ARRAY(w->a, w->cap_gone, struct row *);
        if (w->n_gone)
            memcpy(w->gone, old, w->n_gone * sizeof(struct row *));
    }
    w->gone[w->n_gone++] = row;
}

/* What a statement's rows lie in. Told apart from the rows, as values that the planner sees, it
 * leaves the partitions of all other months out of the plan. */
struct bounds {
    int64_t from_us, to_us;
};
#define BOUNDS_NONE                                                                                \
    {                                                                                              \
        INT64_MAX, INT64_MIN                                                                       \
    }
#define WITHIN_BOUNDS "m.bucket_start >= $1::timestamptz AND m.bucket_start <= $2::timestamptz"

static void bounds_take(struct bounds *b, int64_t from_us, int64_t to_us)
{
    b->from_us = from_us < b->from_us ? from_us : b->from_us;
    b->to_us = to_us > b->to_us ? to_us : b->to_us;
}

/* The first two parameters. */
static void bounds_params(struct pg_params *p, struct arena *a, const struct bounds *b)
{
    pg_param_text(p, time_format(arena_alloc(a, TIME_TEXT_MAX, 1), b->from_us));
    pg_param_text(p, time_format(arena_alloc(a, TIME_TEXT_MAX, 1), b->to_us));
}

/* The first page of a feed in the first lease that its account ever had: the table has no row of
 * that feed. Only if this page was committed and the answer was lost it does; then Postgres refuses
 * its rows as there already, and batch_commit probes for all. */
static bool is_very_first(const struct batch_page *bp)
{
    return bp->origin->epoch == 1 && bp->page->seq == 0;
}

/* How many of a page's spans are asked for. */
static size_t spans_probed(const struct work *w, const struct batch_page *bp)
{
    return bp->refused || (is_very_first(bp) && !w->probes_all) ? 0 : bp->page->n_spans;
}

static bool span_asked_before(const struct work *w, size_t page, size_t span)
{
    const struct span *s = &w->by_feed[page]->page->spans[span];

    for (size_t i = page; i-- > 0;) {
        const struct batch_page *bp = w->by_feed[i];
        if (bp->origin->account_id != w->by_feed[page]->origin->account_id)
            return false;
        for (size_t k = 0; k < spans_probed(w, bp); k++)
            if (bp->page->spans[k].from_us == s->from_us && bp->page->spans[k].to_us == s->to_us)
                return true;
    }
    return false;
}

/* Feeds of one account are mostly read over the same span, so each span is asked for once. */
static enum status probe_ask(struct work *w, PGresult **out, struct err *err)
{
    static const enum pg_type types[] = {PG_BIGINT, PG_TIME, PG_TIME};
    struct pg_column spans[3];
    struct pg_params p = {.binary_result = true};
    struct bounds all = BOUNDS_NONE;

    pg_columns_open(spans, w->a, types, 3);
    for (size_t i = 0; i < w->n_live; i++) {
        const struct batch_page *bp = w->by_feed[i];
        for (size_t k = 0; k < spans_probed(w, bp); k++) {
            if (span_asked_before(w, i, k))
                continue;
            pg_column_int(&spans[0], bp->origin->account_id);
            pg_column_time(&spans[1], bp->page->spans[k].from_us);
            pg_column_time(&spans[2], bp->page->spans[k].to_us);
            bounds_take(&all, bp->page->spans[k].from_us, bp->page->spans[k].to_us);
        }
    }
    *out = NULL;
    if (spans[0].n == 0)
        return ST_OK;
    bounds_params(&p, w->a, &all);
    pg_param_columns(&p, spans, 3);
    return pg_query(
        w->pg, out, w->a,
        "SELECT m.account_id, m.bucket_start, m.feed, m.row_key, m.row_hash "
        "FROM unnest($3::bigint[], $4::timestamptz[], $5::timestamptz[]) AS s (account_id, f, t) "
        "JOIN usage_metrics m ON m.account_id = s.account_id AND m.bucket_start >= s.f AND "
        "m.bucket_start < s.t WHERE " WITHIN_BOUNDS,
        &p, err);
}

static void count_rows(struct work *w)
{
    w->n_new = 0;
    for (size_t i = 0; i < w->n_rows; i++) {
        struct batch_page *bp = w->rows[i].page;
        switch (w->rows[i].state) {
        case ROW_NEW:
            bp->inserted++;
            w->n_new++;
            break;
        case ROW_CHANGED:
            bp->updated++;
            break;
        case ROW_SAME:
            bp->unchanged++;
            break;
        case ROW_GONE: /* counted where it is deleted */
            break;
        }
    }
}

/* ---- replace ---- */

static const char *key_text(struct arena *a, const uint8_t key[16])
{
    struct uuid u;
    char *out = arena_alloc(a, 37, 1);

    memcpy(u.at, key, 16);
    return uuid_format(out, &u);
}

/* The primary key comes first in every list of rows. */
#define KEY_TYPES   PG_BIGINT, PG_TIME, PG_UUID
#define KEY_COLUMNS 3

static void key_put(struct pg_column *columns, const struct row *row)
{
    pg_column_int(&columns[0], row->account_id);
    pg_column_time(&columns[1], row->bucket_us);
    pg_column_uuid(&columns[2], row->row_key);
}

static enum status delete_gone(struct work *w, struct err *err)
{
    static const enum pg_type types[] = {KEY_TYPES};
    struct pg_column keys[KEY_COLUMNS];
    struct pg_params p = {0};
    struct bounds all = BOUNDS_NONE;

    if (w->n_gone == 0)
        return ST_OK;
    pg_columns_open(keys, w->a, types, KEY_COLUMNS);
    for (size_t i = 0; i < w->n_gone; i++) {
        key_put(keys, w->gone[i]);
        bounds_take(&all, w->gone[i]->bucket_us, w->gone[i]->bucket_us);
        w->gone[i]->page->removed++;
    }
    bounds_params(&p, w->a, &all);
    pg_param_columns(&p, keys, KEY_COLUMNS);
    TRY(pg_query(w->pg, NULL, NULL,
                 "DELETE FROM usage_metrics m USING unnest($3::bigint[], $4::timestamptz[], "
                 "$5::uuid[]) AS k (a, b, r) WHERE m.account_id = k.a AND m.bucket_start = k.b "
                 "AND m.row_key = k.r AND " WITHIN_BOUNDS,
                 &p, err));
    CRASH_POINT("writer.rows.deleted");
    return ST_OK;
}

static const char update_sql[] =
    "UPDATE usage_metrics m SET row_hash = k.h, input_tokens = k.c0, cached_input_tokens = k.c1, "
    "cache_write_tokens = k.c2, input_audio_tokens = k.c3, output_audio_tokens = k.c4, "
    "output_tokens = k.c5, num_requests = k.c6, quantity = k.q::numeric, quantity_unit = k.u, "
    "cost_amount = k.m::numeric, currency = k.y, extra = k.e::jsonb, changed_at = now(), "
    "job_id = k.j "
    "FROM unnest($3::bigint[], $4::timestamptz[], $5::uuid[], $6::uuid[], $7::bigint[], "
    "$8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], "
    "$14::bigint[], $15::text[], $16::text[], $17::text[], $18::text[], $19::text[]) AS k "
    "(a, b, r, j, h, c0, c1, c2, c3, c4, c5, c6, q, u, m, y, e) "
    "WHERE m.account_id = k.a AND m.bucket_start = k.b AND m.row_key = k.r AND " WITHIN_BOUNDS;

enum {
    UPDATE_JOB = KEY_COLUMNS,
    UPDATE_HASH,
    UPDATE_COUNTS,
    UPDATE_MEASURES = UPDATE_COUNTS + N_RECORD_COUNTS,
    UPDATE_COLUMNS = UPDATE_MEASURES + N_RECORD_TEXTS - N_RECORD_DIMENSIONS
};

static void update_put(struct pg_column *columns, const struct row *row)
{
    const struct record *rec = row->record;

    key_put(columns, row);
    pg_column_uuid(&columns[UPDATE_JOB], row->page->origin->job_id.at);
    pg_column_int(&columns[UPDATE_HASH], rec->row_hash);
    for (size_t c = 0; c < N_RECORD_COUNTS; c++) {
        if (rec->counts[c] == COUNT_NULL)
            pg_column_null(&columns[UPDATE_COUNTS + c]);
        else
            pg_column_int(&columns[UPDATE_COUNTS + c], rec->counts[c]);
    }
    for (size_t t = N_RECORD_DIMENSIONS; t < N_RECORD_TEXTS; t++)
        pg_column_text(&columns[UPDATE_MEASURES + t - N_RECORD_DIMENSIONS], rec->texts[t]);
}

static enum status update_changed(struct work *w, struct err *err)
{
    static const enum pg_type types[UPDATE_COLUMNS] = {
        KEY_TYPES, PG_UUID,   PG_BIGINT, PG_BIGINT, PG_BIGINT, PG_BIGINT, PG_BIGINT, PG_BIGINT,
        PG_BIGINT, PG_BIGINT, PG_TEXT,   PG_TEXT,   PG_TEXT,   PG_TEXT,   PG_TEXT};
    struct pg_column columns[UPDATE_COLUMNS];
    struct pg_params p = {0};
    struct bounds all = BOUNDS_NONE;

    pg_columns_open(columns, w->a, types, UPDATE_COLUMNS);
    for (size_t i = 0; i < w->n_rows; i++) {
        const struct row *row = &w->rows[i];
        if (row->state != ROW_CHANGED)
            continue;
        update_put(columns, row);
        bounds_take(&all, row->bucket_us, row->bucket_us);
    }
    if (columns[0].n == 0)
        return ST_OK;
    bounds_params(&p, w->a, &all);
    pg_param_columns(&p, columns, UPDATE_COLUMNS);
    TRY(pg_query(w->pg, NULL, NULL, update_sql, &p, err));
    CRASH_POINT("writer.rows.updated");
    return ST_OK;
}

#define COPY_PIECE ((size_t)64 << 10) /* bytes; Postgres reads one while the next is made */

static int compare_rows(const void *a, const void *b)
{
    const struct row *x = *(struct row *const *)a, *y = *(struct row *const *)b;

    if (x->bucket_us != y->bucket_us)
        return x->bucket_us < y->bucket_us ? -1 : 1;
    return memcmp(x->row_key, y->row_key, sizeof(x->row_key));
}

/* The new rows of the account whose rows begin at `*at`, in the order of the primary key: whoever
 * reads a span of an account by it later meets them side by side in the table. */
static size_t new_of_account(const struct work *w, size_t *at, struct row **out)
{
    int64_t account_id = w->rows[*at].account_id;
    size_t n = 0;

    for (; *at < w->n_rows && w->rows[*at].account_id == account_id; ++*at)
        if (w->rows[*at].state == ROW_NEW)
            out[n++] = &w->rows[*at];
    qsort(out, n, sizeof(struct row *), compare_rows);
    return n;
}

/* Sends `sql`, in which a COPY is, and the new rows. */
static enum status copy_new(struct work *w, const char *sql, struct err *err)
{
    struct row **rows = ARENA_ARRAY(w->a, w->n_rows, struct row *);
    struct buf piece = {.arena = w->a};

    TRY(pg_copy_begin(w->pg, sql, err));
    copy_begin(&piece);
    for (size_t at = 0; at < w->n_rows;) {
        size_t n = new_of_account(w, &at, rows);
        for (size_t i = 0; i < n; i++) {
            copy_row(&piece, rows[i]->page->origin, rows[i]->page->page->asked.feed,
                     rows[i]->record, w->now_us);
            if (piece.len < COPY_PIECE)
                continue;
            TRY(pg_copy_put(w->pg, (struct text){piece.at, piece.len}, err));
            piece.len = 0;
        }
    }
    copy_end(&piece);
    TRY(pg_copy_put(w->pg, (struct text){piece.at, piece.len}, err));
    CRASH_POINT("writer.rows.copied");
    return pg_copy_end(w->pg, NULL, err);
}

/* ---- revisions ---- */

/* What happened to a bucket that had been complete, or NULL when it is no revision. */
static const char *revision_of(const struct row *row)
{
    const struct window *asked = &row->page->page->asked;
    int64_t width_us;

    if (row->state == ROW_SAME || row->bucket_us >= asked->complete_us)
        return NULL; /* as nearly all are; the record, far away, is not touched */
    width_us = (row->record ? row->record->bucket_seconds : asked->bucket_s) * US_PER_S;
    if (row->bucket_us + width_us > asked->complete_us)
        return NULL;
    if (row->state == ROW_NEW && row->bucket_us < asked->complete_from_us)
        return NULL; /* never read before */
    return row->state == ROW_NEW ? "appeared" : row->state == ROW_CHANGED ? "changed" : "vanished";
}

enum {
    REVISION_CHANGE = KEY_COLUMNS,
    REVISION_FEED,
    REVISION_PROVIDER,
    REVISION_WIDTH,
    REVISION_JOB,
    REVISION_COLUMNS
};

static void revision_put(struct pg_column *columns, const struct row *row)
{
    const char *change = revision_of(row);
    const struct batch_page *bp = row->page;

    if (!change)
        return;
    key_put(columns, row);
    pg_column_text(&columns[REVISION_CHANGE], text_of(change));
    pg_column_text(&columns[REVISION_FEED], bp->page->asked.feed);
    pg_column_text(&columns[REVISION_PROVIDER], bp->origin->provider);
    pg_column_int(&columns[REVISION_WIDTH],
                  row->record ? row->record->bucket_seconds : bp->page->asked.bucket_s);
    pg_column_uuid(&columns[REVISION_JOB], bp->origin->job_id.at);
}

/* The measures of a row, without what its key says already. */
#define ROW_JSON                                                                                   \
    "jsonb_strip_nulls(to_jsonb(m) - '{account_id,provider,feed,bucket_start,bucket_seconds,"      \
    "row_key,row_hash,first_seen_at,changed_at,job_id}'::text[])"

/* Before the rows change: what they were. The statement that follows the change adds what they are.
 */
static enum status revisions_before(struct work *w, struct pg_column *revisions, struct err *err)
{
    static const enum pg_type types[] = {KEY_TYPES, PG_TEXT, PG_TEXT, PG_TEXT, PG_INT, PG_UUID};
    struct pg_params p = {0};

    pg_columns_open(revisions, w->a, types, REVISION_COLUMNS);
    for (size_t i = 0; i < w->n_rows; i++)
        revision_put(revisions, &w->rows[i]);
    for (size_t i = 0; i < w->n_gone; i++)
        revision_put(revisions, w->gone[i]);
    if (revisions[0].n == 0)
        return ST_OK;
    pg_param_columns(&p, revisions, REVISION_COLUMNS);
    TRY(pg_query(
        w->pg, NULL, NULL,
        "INSERT INTO usage_revisions (account_id, provider, feed, bucket_start, bucket_seconds, "
        "row_key, change, old_row, job_id) SELECT k.a, k.p, k.f, k.b, coalesce(m.bucket_seconds, "
        "k.w), k.r, k.c, " ROW_JSON ", k.j "
        "FROM unnest($1::bigint[], $2::timestamptz[], $3::uuid[], $4::text[], $5::text[], "
        "$6::text[], $7::int[], $8::uuid[]) AS k (a, b, r, c, f, p, w, j) "
        "LEFT JOIN usage_metrics m ON m.account_id = k.a AND m.bucket_start = k.b AND m.row_key = "
        "k.r",
        &p, err));
    CRASH_POINT("writer.revisions.begun");
    return ST_OK;
}

static enum status revisions_after(struct work *w, struct pg_column *revisions, struct err *err)
{
    struct pg_params p = {0};

    if (revisions[0].n == 0)
        return ST_OK;
    pg_param_columns(&p, revisions, KEY_COLUMNS);
    TRY(pg_query(w->pg, NULL, NULL,
                 "UPDATE usage_revisions v SET new_row = " ROW_JSON " FROM usage_metrics m, "
                 "unnest($1::bigint[], $2::timestamptz[], $3::uuid[]) AS k (a, b, r) "
                 "WHERE v.account_id = k.a AND v.revised_at = now() AND v.bucket_start = k.b "
                 "AND v.row_key = k.r "
                 "AND m.account_id = k.a AND m.bucket_start = k.b AND m.row_key = k.r",
                 &p, err));
    CRASH_POINT("writer.revisions.ended");
    return ST_OK;
}

/* ---- sums ---- */

static int compare_days(const void *a, const void *b)
{
    const int64_t *x = a, *y = b;

    if (x[0] != y[0])
        return x[0] < y[0] ? -1 : 1;
    return (x[1] > y[1]) - (x[1] < y[1]);
}

/* The statement that names the days of accounts that change, whose sums are out of date with this
 * COMMIT; "" when none does. */
static void unsum_sql(struct work *w, struct buf *sql)
{
    int64_t(*days)[2] = arena_alloc(w->a, (w->n_rows + w->n_gone + 1) * sizeof(*days), 8);
    struct pg_array accounts, starts;
    size_t n = 0;

    for (size_t i = 0; i < w->n_rows + w->n_gone; i++) {
        const struct row *row = i < w->n_rows ? &w->rows[i] : w->gone[i - w->n_rows];
        if (row->state == ROW_SAME ||
            (n > 0 && days[n - 1][0] == row->account_id && row->bucket_us >= days[n - 1][1] &&
             row->bucket_us < days[n - 1][1] + US_PER_DAY))
            continue;
        days[n][0] = row->account_id;
        days[n++][1] = time_floor_us(row->bucket_us, 86400);
    }
    if (n == 0)
        return;
    qsort(days, n, sizeof(*days), compare_days);
    pg_array_open(&accounts, w->a);
    pg_array_open(&starts, w->a);
    for (size_t i = 0; i < n; i++) {
        if (i > 0 && compare_days(days[i], days[i - 1]) == 0)
            continue;
        pg_array_int(&accounts, days[i][0]);
        pg_array_time(&starts, days[i][1]);
    }
    buf_printf(sql,
               "INSERT INTO usage_unsummed_days (account_id, day) SELECT a, (d AT TIME ZONE "
               "'UTC')::date FROM unnest('%s'::bigint[], '%s'::timestamptz[]) AS k (a, d) ON "
               "CONFLICT DO NOTHING; ",
               pg_array_close(&accounts), pg_array_close(&starts));
}

/* Days whose sums are made in one go: a tenth of a second, while pages may wait. */
#define DAYS_AT_ONCE 50
/* No page is taken meanwhile, so what does not get through must give up long before a commit would.
 */
#define SUMS_LIMIT_SQL "SET LOCAL statement_timeout = '5s'"

enum status days_sum_up(struct pg *pg, int64_t after_s, bool *more, struct err *err)
{
    struct arena *a = arena_new();
    struct pg_params p = {0};
    PGresult *r;
    enum status st = pg_begin(pg, err);

    pg_param_int(&p, a, DAYS_AT_ONCE);
    pg_param_int(&p, a, after_s);
    if (st == ST_OK)
        st = pg_exec(pg, SUMS_LIMIT_SQL, err);
    if (st == ST_OK)
        st = pg_query(pg, &r, a,
                      "SELECT usage_sum_up($1::integer, make_interval(secs => $2::integer))", &p,
                      err);
    if (st == ST_OK && pg_int(r, 0, 0) > 0) {
        *more = true;
    } else if (st == ST_OK) { /* then the sums over all accounts */
        p = (struct pg_params){0};
        pg_param_int(&p, a, after_s);
        st = pg_query(pg, &r, a, "SELECT usage_slots_sum(make_interval(secs => $1::integer))", &p,
                      err);
        *more = st == ST_OK && text_is(pg_text(r, 0, 0), "t");
    }
    if (st == ST_OK) {
        CRASH_POINT("writer.days.summed");
        st = pg_commit(pg, err);
    }
    if (st != ST_OK)
        pg_rollback(pg);
    arena_free(&a);
    return st;
}

/* ---- dead letters ---- */

static enum status dead_letter_put(struct work *w, const struct batch_page *bp,
                                   const struct dead *dead, const char *sqlstate, struct err *err)
{
    const struct window *asked = &bp->page->asked;
    struct pg_params p = {0};
    char from[TIME_TEXT_MAX], to[TIME_TEXT_MAX];

    pg_param_int(&p, w->a, bp->origin->account_id);
    pg_param_utf8(&p, w->a, bp->origin->provider);
    pg_param_utf8(&p, w->a, asked->feed);
    pg_param_text(&p, time_format(from, asked->from_us));
    pg_param_text(&p, asked->to_us ? time_format(to, asked->to_us) : NULL);
    pg_param_utf8(&p, w->a, dead->reason);
    pg_param_utf8(&p, w->a, dead->json_path);
    pg_param_text(&p, sqlstate);
    pg_param_utf8(&p, w->a, dead->body.len > 0 ? dead->body : TEXT_NULL);
    pg_param_text(&p, key_text(w->a, bp->origin->job_id.at));
    TRY(pg_query(
        w->pg, NULL, NULL,
        "INSERT INTO dead_letters (account_id, provider, feed, window_from, window_to, reason, "
        "json_path, sqlstate, body, job_id) VALUES ($1::bigint, $2, $3, $4::timestamptz, "
        "$5::timestamptz, $6, $7, $8, $9, $10::uuid) ON CONFLICT (account_id, feed, md5(reason || "
        "coalesce(json_path, ''))) WHERE closed_at IS NULL DO UPDATE "
        "SET occurrences = dead_letters.occurrences + 1, last_seen_at = now(), window_to = "
        "excluded.window_to, body = excluded.body, job_id = excluded.job_id",
        &p, err));
    CRASH_POINT("writer.letter.written");
    return ST_OK;
}

#define BAD_ROWS_KEPT 100 /* of one page: the rest only repeats what is wrong with the provider */

static enum status dead_letters(struct work *w, struct err *err)
{
    for (size_t i = 0; i < w->n_live; i++) {
        const struct batch_page *bp = w->by_feed[i];
        if (bp->refused) {
            const struct dead dead = {.reason = text_of(bp->refused)};
            TRY(dead_letter_put(w, bp, &dead, bp->sqlstate, err));
        }
        if (bp->page->dead.reason.at)
            TRY(dead_letter_put(w, bp, &bp->page->dead, NULL, err));
        for (size_t k = 0; !bp->part && k < bp->page->n_bad_rows && k < BAD_ROWS_KEPT; k++)
            TRY(dead_letter_put(w, bp, &bp->page->bad_rows[k],
                                k < bp->n_misread || !bp->sqlstate[0] ? NULL : bp->sqlstate, err));
    }
    return ST_OK;
}

/* ---- the transaction ---- */

/* Locks, and finds out how the table differs from the pages. While Postgres does, the rows are told
 * apart as if no page were fenced; rarely one is. */
static enum status compare(struct work *w, struct err *err)
{
    PGresult *moment, *leases, *there;

    w->n_gone = 0;
    TRY(pg_begin_deferred(w->pg, err));
    sort_pages(w);
    TRY(moment_ask(w, &moment, err));
    TRY(fence_ask(w, &leases, err));
    TRY(probe_ask(w, &there, err));
    collect(w);
    TRY(pg_deferred_join(w->pg, err));
    CRASH_POINT("writer.batch.fenced");
    w->now_us = pg_bin_int(moment, 0, 0);
    w->guarded = pg_bin_int(moment, 0, 1);
    fence(w, leases);
    if (w->n_live < w->n_pages)
        collect(w);
    for (int i = 0; i < PQntuples(there); i++)
        meet(w, there, i);
    count_rows(w);
    CRASH_POINT("writer.batch.probed");
    return ST_OK;
}

/* The last statements go as one message: the days first, then the new rows, and COMMIT. Only the
 * rows of revisions can be read no sooner than all of them are there. */
static enum status replace(struct work *w, struct err *err)
{
    struct pg_column revisions[REVISION_COLUMNS];
    struct buf sql = {.arena = w->a};
    bool revised;

    TRY(pg_defer(w->pg, err));
    TRY(revisions_before(w, revisions, err));
    TRY(delete_gone(w, err));
    TRY(update_changed(w, err));
    TRY(dead_letters(w, err));
    revised = revisions[0].n > 0;
    unsum_sql(w, &sql);
    if (w->n_new > 0)
        buf_str(&sql, w->guarded ? copy_guarded_sql : copy_sql);
    buf_str(&sql, revised ? "" : "COMMIT");
    TRY(pg_deferred_join(w->pg, err));
    CRASH_POINT("writer.batch.committing");
    TRY(w->n_new > 0 ? copy_new(w, sql.at, err) : pg_exec(w->pg, sql.at, err));
    if (revised) {
        TRY(revisions_after(w, revisions, err));
        CRASH_POINT("writer.batch.revised");
        TRY(pg_commit(w->pg, err));
    }
    CRASH_POINT("writer.batch.committed");
    return ST_OK;
}

static enum status transact(struct work *w, struct err *err)
{
    bool kept = pg_connected(w->pg);
    enum status st = compare(w, err);

    /* as pg_begin does: a server that was restarted meanwhile shows only now */
    if (st == ST_RETRY && kept && !pg_connected(w->pg))
        st = compare(w, err);
    return st == ST_OK ? replace(w, err) : st;
}

enum status batch_commit(struct pg *pg, struct months *months, struct batch_page *pages, size_t n,
                         struct err *err)
{
    struct work w = {.a = arena_new(), .pg = pg, .pages = pages, .n_pages = n};
    enum status st = months_of_batch(months, pg, pages, n, err);

    if (st == ST_OK)
        st = transact(&w, err);
    if (st == ST_REJECT && strcmp(pg_sqlstate(pg), "23505") == 0) { /* unique_violation */
        pg_rollback(pg);
        w.probes_all = true;
        st = transact(&w, err);
    }
    if (st != ST_OK) {
        pg_rollback(pg);
        if (strcmp(pg_sqlstate(pg), "23514") == 0)
            *months = (struct months){{0}}; /* perhaps a partition was dropped: look again */
    }
    arena_free(&w.a);
    return st;
}
