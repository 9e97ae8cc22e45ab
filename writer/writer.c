#include "writer/writer.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/crash.h"
#include "common/link.h"
#include "common/log.h"
#include "common/pg.h"
#include "common/utf8.h"
#include "common/wire.h"
#include "writer/batch.h"

/* A batch whose pages were the last for so long is committed: its accounts wait for it. */
#define QUIET_US       (50 * US_PER_MS)
#define RETRY_FIRST_US (200 * US_PER_MS)
#define RETRY_MAX_US   (5 * US_PER_S)
/* Acks for a scheduler that is not connected (yet) are kept for a moment: both may just have
 * started. */
#define ACK_RETRY_US     (100 * US_PER_MS)
#define ACK_PATIENCE_US  (15 * US_PER_S)
#define ACKS_WAITING_MAX 4096
/* Sums of days: soon when there is more to do, else looked for now and then; after the pages that
 * wait, but not for ever. */
#define SUMS_SOON_US     (100 * US_PER_MS)
#define SUMS_LATER_US    (5 * US_PER_S)
#define SUMS_PATIENCE_US (2 * US_PER_S)
#define SUMS_FAILED_US   (60 * US_PER_S) /* it may fail the same way again, after as long a wait */

struct waiting_ack {
    struct uuid scheduler_id;
    char *bytes;
    size_t len;
    int64_t give_up_us;
};

struct writer {
    const struct config *cfg;
    struct stage *stage;
    struct pulse *pulse;
    struct link *records, *acks;
    struct pg *pg;
    struct months months;

    struct arena *arena; /* of the open batch: messages, pages */
    struct batch_page *pages;
    size_t n_pages, cap_pages;
    size_t rows, bytes;
    int64_t opened_us;   /* first message taken; 0 = empty */
    int64_t came_us;     /* the last message */
    int64_t retry_at_us; /* Postgres was away: not before then; 0 = no trouble */
    int64_t retry_wait_us;

    struct waiting_ack *waiting;
    size_t n_waiting, cap_waiting;
    int64_t ack_retry_at_us;
    int64_t sums_at_us; /* days are summed up then */
};

enum status writer_open(struct writer **out, const struct config *cfg, struct err *err)
{
    struct writer *w = xalloc(1, sizeof(*w));

    *out = w;
    w->cfg = cfg;
    w->arena = arena_new();
    TRY(stage_open(&w->stage, "writer", cfg, err));
    pg_open(&w->pg, cfg->database_url, cfg->schema, "uf-writer");
    TRY(pg_await(w->pg, stage_stopping, err));
    if (stage_stopping())
        return ST_OK;
    TRY(pg_check_schema(w->pg, err));
    TRY(months_ahead(&w->months, w->pg, err));
    TRY(link_open(&w->acks, stage_zmq(w->stage), LINK_ACKS_OUT, cfg, TEXT_NULL, err));
    TRY(link_open(&w->records, stage_zmq(w->stage), LINK_RECORDS_IN, cfg, TEXT_NULL, err));
    TRY(stage_pulse_open(w->stage, STAGE_WRITER, cfg, err));
    w->pulse = stage_pulse(w->stage);
    pulse_set(w->pulse, M_POSTGRES_UP, 1);
    stage_watch(w->stage, w->records);
    stage_watch(w->stage, w->acks); /* nothing comes from it; its peers are refreshed */
    return ST_OK;
}

void writer_close(struct writer **w_at)
{
    struct writer *w = *w_at;

    if (!w)
        return;
    link_close(&w->records);
    link_close(&w->acks);
    pg_close(&w->pg);
    stage_close(&w->stage);
    arena_free(&w->arena);
    for (size_t i = 0; i < w->n_waiting; i++)
        free(w->waiting[i].bytes);
    free(w->waiting);
    free(w->pages);
    free(w);
    *w_at = NULL;
}

struct stage *writer_stage(const struct writer *w)
{
    return w->stage;
}

/* When an open batch is committed, however few its rows. */
static int64_t batch_due_us(const struct writer *w)
{
    int64_t full_us = w->opened_us + w->cfg->batch_ms * US_PER_MS;
    int64_t quiet_us = w->came_us + QUIET_US;

    if (w->retry_at_us)
        return w->retry_at_us;
    return quiet_us < full_us ? quiet_us : full_us;
}

int64_t writer_deadline_us(const struct writer *w)
{
    int64_t due = INT64_MAX;

    if (w->n_pages > 0)
        due = batch_due_us(w);
    if (w->n_waiting > 0 && w->ack_retry_at_us < due)
        due = w->ack_retry_at_us;
    if (w->n_pages == 0 && w->sums_at_us < due)
        due = w->sums_at_us;
    return due;
}

/* ---- acknowledging ---- */

static enum status ack_send(struct writer *w, const struct uuid *to, struct text bytes,
                            struct err *err)
{
    const struct text frames[] = {{(const char *)to->at, sizeof(to->at)}, bytes};

    return link_send(w->acks, 0, frames, 2, err);
}

static void ack_wait(struct writer *w, const struct uuid *to, struct text bytes)
{
    struct waiting_ack *wa;

    if (w->n_waiting == ACKS_WAITING_MAX)
        return; /* its lease runs out and the pages are read again */
    if (w->n_waiting == w->cap_waiting) {
        w->cap_waiting = w->cap_waiting ? 2 * w->cap_waiting : 16;
        w->waiting = xrealloc(w->waiting, w->cap_waiting, sizeof(*w->waiting));
    }
    if (w->n_waiting == 0)
        w->ack_retry_at_us = clock_mono_us() + ACK_RETRY_US;
    wa = &w->waiting[w->n_waiting++];
    *wa = (struct waiting_ack){.scheduler_id = *to,
                               .bytes = xalloc(bytes.len, 1),
                               .len = bytes.len,
                               .give_up_us = clock_mono_us() + ACK_PATIENCE_US};
    memcpy(wa->bytes, bytes.at, bytes.len);
}

static void acks_retry(struct writer *w)
{
    int64_t now = clock_mono_us();
    size_t kept = 0;
    struct err err;

    if (w->n_waiting == 0 || now < w->ack_retry_at_us)
        return;
    for (size_t i = 0; i < w->n_waiting; i++) {
        struct waiting_ack *wa = &w->waiting[i];
        enum status st = ack_send(w, &wa->scheduler_id, (struct text){wa->bytes, wa->len}, &err);
        if (st != ST_OK && now < wa->give_up_us && !stage_stopping()) {
            w->waiting[kept++] = *wa;
            continue;
        }
        if (st != ST_OK)
            LOG(WARN, "ack.dropped", KV("error", err.text));
        free(wa->bytes);
    }
    w->n_waiting = kept;
    w->ack_retry_at_us = now + ACK_RETRY_US;
}

/* One message for each scheduler that issued some of the pages. */
static void acknowledge(struct writer *w, const struct batch_page *pages, size_t n)
{
    struct arena *a = arena_new();
    bool *said = ARENA_ARRAY(a, n, bool);
    struct ack *acks = ARENA_ARRAY(a, n, struct ack);
    struct err err;

    for (size_t i = 0; i < n; i++) {
        const struct uuid *to = &pages[i].origin->scheduler_id;
        struct acks message = {.acks = acks};
        struct buf b = {.arena = a};
        if (said[i])
            continue;
        for (size_t k = i; k < n; k++) {
            const struct batch_page *bp = &pages[k];
            struct text why = bp->refused                ? text_of(bp->refused)
                              : bp->page->dead.reason.at ? bp->page->dead.reason
                              : bp->page->n_bad_rows     ? bp->page->bad_rows[0].reason
                                                         : TEXT_NULL;
            if (said[k] || !uuid_eq(to, &bp->origin->scheduler_id))
                continue;
            said[k] = true;
            if (why.at)
                why.len = utf8_cut(why.at, why.len, 500); /* it goes into a table */
            acks[message.n_acks++] = (struct ack){.job_id = bp->origin->job_id,
                                                  .window = bp->page->window,
                                                  .seq = bp->page->seq,
                                                  .fate = bp->fate,
                                                  .complete_us = bp->page->complete_us,
                                                  .inserted = bp->inserted,
                                                  .updated = bp->updated,
                                                  .removed = bp->removed,
                                                  .unchanged = bp->unchanged,
                                                  .detail = why,
                                                  .digest = bp->page->digest};
            if (bp->fate != PAGE_COMMITTED)
                acks[message.n_acks - 1].digest = (struct page_digest){{0}};
        }
        acks_encode(&b, &message);
        CRASH_POINT("writer.acks.sending");
        if (ack_send(w, to, (struct text){b.at, b.len}, &err) != ST_OK)
            ack_wait(w, to, (struct text){b.at, b.len});
        CRASH_POINT("writer.acks.sent");
    }
    arena_free(&a);
}

/* ---- committing ---- */

static void count_commit(struct pulse *p, const struct batch_page *pages, size_t n)
{
    pulse_count(p, M_BATCHES);
    for (size_t i = 0; i < n; i++) {
        pulse_add(p, M_ROWS_WRITTEN, CHANGE_INSERTED, 0, pages[i].inserted);
        pulse_add(p, M_ROWS_WRITTEN, CHANGE_UPDATED, 0, pages[i].updated);
        pulse_add(p, M_ROWS_WRITTEN, CHANGE_UNCHANGED, 0, pages[i].unchanged);
        pulse_add(p, M_ROWS_WRITTEN, CHANGE_REMOVED, 0, pages[i].removed);
        pulse_add(p, M_PAGES_WRITTEN, pages[i].fate, 0, 1);
    }
}

/* How a transaction went, whatever it was. */
static void count_try(struct writer *w, enum status st, int64_t began_us)
{
    enum commit_label how = st == ST_OK       ? COMMIT_OK
                            : st == ST_REJECT ? COMMIT_REFUSED
                                              : COMMIT_RETRY;

    pulse_observe(w->pulse, M_COMMIT_DURATION, how, 0, clock_mono_us() - began_us);
    pulse_set(w->pulse, M_POSTGRES_UP, how != COMMIT_RETRY);
    pulse_add(w->pulse, M_POSTGRES_RETRIES, 0, 0, how == COMMIT_RETRY);
}

static void log_commit(const struct batch_page *pages, size_t n, int64_t began_us)
{
    int64_t inserted = 0, updated = 0, removed = 0, unchanged = 0, fenced = 0, dead = 0;

    for (size_t i = 0; i < n; i++) {
        inserted += pages[i].inserted;
        updated += pages[i].updated;
        removed += pages[i].removed;
        unchanged += pages[i].unchanged;
        fenced += pages[i].fate == PAGE_FENCED;
        dead += pages[i].fate == PAGE_DEAD;
    }
    LOG(INFO, "batch.commit", KV("pages", (int64_t)n), KV("inserted", inserted),
        KV("updated", updated), KV("removed", removed), KV("unchanged", unchanged),
        KV("fenced", fenced), KV("dead", dead), KV("us", clock_mono_us() - began_us));
}

/* The rows of one page that Postgres refuses, found by halves. */
struct refusal {
    struct dead *rows; /* REFUSED_MAX; the page's misread rows come before them */
    size_t n;
    char sqlstate[6];
    uint32_t inserted, updated, unchanged; /* of the rows that it took */
};

#define REFUSED_MAX 20 /* of one page: with more the page is refused as a whole */

/* Commits rows [from, from + n) of a page, except those that are refused alone. ST_REJECT: there
 * are too many of them. */
static enum status commit_rows(struct writer *w, const struct batch_page *whole, size_t from,
                               size_t n, struct refusal *refusal, struct err *err)
{
    struct record_page some = *whole->page;
    struct batch_page part = {.origin = whole->origin, .page = &some, .part = true};
    enum status st;

    some.records += from;
    some.n_records = n;
    st = batch_commit(w->pg, &w->months, &part, 1, err);
    if (st == ST_OK) {
        refusal->inserted += part.inserted;
        refusal->updated += part.updated;
        refusal->unchanged += part.unchanged;
    }
    if (st != ST_REJECT)
        return st;
    if (n > 1) {
        TRY(commit_rows(w, whole, from, n / 2, refusal, err));
        return commit_rows(w, whole, from + n / 2, n - n / 2, refusal, err);
    }
    if (refusal->n - whole->page->n_bad_rows == REFUSED_MAX)
        return ST_REJECT;
    refusal->rows[refusal->n++] = (struct dead){
        .reason = {arena_copy(w->arena, err->text, strlen(err->text)), strlen(err->text)}};
    memcpy(refusal->sqlstate, pg_sqlstate(w->pg), sizeof(refusal->sqlstate));
    return ST_OK;
}

/* Takes the rows out of a page that Postgres refuses: they are committed, or become its bad rows.
 * ST_REJECT: that does not help. */
static enum status page_sift(struct writer *w, struct batch_page *bp, struct refusal *refusal,
                             struct err *err)
{
    const struct record_page *page = bp->page;
    struct record_page *rest = ARENA_NEW(w->arena, struct record_page);

    if (page->n_records == 0 || bp->refused || bp->sqlstate[0])
        return ST_REJECT;
    refusal->rows = ARENA_ARRAY(w->arena, page->n_bad_rows + REFUSED_MAX, struct dead);
    refusal->n = page->n_bad_rows;
    if (page->n_bad_rows > 0)
        memcpy(refusal->rows, page->bad_rows, page->n_bad_rows * sizeof(struct dead));
    TRY(commit_rows(w, bp, 0, page->n_records, refusal, err));
    *rest = *page;
    rest->n_records = 0;
    rest->bad_rows = refusal->rows;
    rest->n_bad_rows = refusal->n;
    bp->n_misread = page->n_bad_rows;
    bp->page = rest;
    memcpy(bp->sqlstate, refusal->sqlstate, sizeof(bp->sqlstate));
    LOG(WARN, "rows.refused", KV("account", bp->origin->account_id), KV("feed", page->asked.feed),
        KV("rows", (int64_t)(refusal->n - page->n_bad_rows)),
        KV("error", refusal->rows[refusal->n - 1].reason));
    return ST_OK;
}

static enum status commit_sifted(struct writer *w, struct batch_page *bp,
                                 const struct refusal *refusal, struct err *err)
{
    int64_t began = clock_mono_us();
    enum status st = batch_commit(w->pg, &w->months, bp, 1, err);

    count_try(w, st, began);
    TRY(st);
    bp->inserted += refusal->inserted;
    bp->updated += refusal->updated;
    bp->unchanged += refusal->unchanged;
    count_commit(w->pulse, bp, 1);
    log_commit(bp, 1, began);
    acknowledge(w, bp, 1);
    return ST_OK;
}

/* Commits pages[0..n), halving until a page that Postgres refuses is alone, and then that page's
 * rows, until what it refuses is a row: about 2 log2(n) more tries for each. Good rows go in, bad
 * ones become dead letters. */
static enum status commit_halving(struct writer *w, struct batch_page *pages, size_t n,
                                  struct err *err)
{
    int64_t began = clock_mono_us();
    struct refusal refusal = {0};
    enum status st = batch_commit(w->pg, &w->months, pages, n, err);

    count_try(w, st, began);
    if (st == ST_OK) {
        count_commit(w->pulse, pages, n);
        log_commit(pages, n, began);
        acknowledge(w, pages, n);
        return ST_OK;
    }
    if (st != ST_REJECT)
        return st;
    if (n > 1) {
        TRY(commit_halving(w, pages, n / 2, err));
        return commit_halving(w, pages + n / 2, n - n / 2, err);
    }
    if (pages->refused)
        return err_set(err, ST_FATAL, "Postgres refuses even the dead letter of a page: %s",
                       pg_sqlstate(w->pg));
    st = page_sift(w, pages, &refusal, err);
    if (st == ST_OK)
        st = commit_sifted(w, pages, &refusal, err);
    if (st != ST_REJECT)
        return st;
    LOG(WARN, "page.refused", KV("account", pages->origin->account_id),
        KV("feed", pages->page->asked.feed), KV("error", err->text));
    pages->refused = arena_copy(w->arena, err->text, strlen(err->text));
    memcpy(pages->sqlstate, pg_sqlstate(w->pg), sizeof(pages->sqlstate));
    return commit_halving(w, pages, 1, err);
}

static void batch_clear(struct writer *w)
{
    w->n_pages = w->rows = w->bytes = 0;
    w->opened_us = w->retry_at_us = w->retry_wait_us = 0;
    arena_reset(w->arena);
    stage_watch_pause(w->stage, w->records, false);
}

static enum status commit(struct writer *w, struct err *err)
{
    enum status st = commit_halving(w, w->pages, w->n_pages, err);

    if (st == ST_RETRY) {
        /* The whole batch again: what was committed meets itself and changes nothing. */
        w->retry_wait_us = w->retry_wait_us ? w->retry_wait_us * 2 : RETRY_FIRST_US;
        if (w->retry_wait_us > RETRY_MAX_US)
            w->retry_wait_us = RETRY_MAX_US;
        w->retry_at_us = clock_mono_us() + w->retry_wait_us;
        stage_watch_pause(w->stage, w->records, true);
        LOG(WARN, "commit.retry", KV("error", err->text), KV("pages", (int64_t)w->n_pages),
            KV("wait_ms", w->retry_wait_us / US_PER_MS));
        return ST_OK;
    }
    if (st == ST_OK)
        batch_clear(w);
    return st;
}

/* What goes wrong here is told and tried again much later: it must not keep pages waiting. */
static void sum_up_if_due(struct writer *w)
{
    int64_t now = clock_mono_us(), later = SUMS_LATER_US;
    bool more = false;
    struct err err;

    if (w->retry_at_us || now < w->sums_at_us + (w->n_pages > 0 ? SUMS_PATIENCE_US : 0))
        return;
    if (days_sum_up(w->pg, w->cfg->sum_after_s, &more, &err) != ST_OK) {
        LOG(WARN, "sums.retry", KV("error", err.text), KV("wait_ms", SUMS_FAILED_US / US_PER_MS));
        w->sums_at_us = clock_mono_us() + SUMS_FAILED_US;
        return;
    }
    if (w->cfg->sum_after_s * US_PER_S < later)
        later = w->cfg->sum_after_s * US_PER_S;
    w->sums_at_us = clock_mono_us() + (more || later < SUMS_SOON_US ? SUMS_SOON_US : later);
}

enum status writer_commit_if_due(struct writer *w, struct err *err)
{
    bool full;

    acks_retry(w);
    sum_up_if_due(w);
    pulse_set(w->pulse, M_PAGES_WAITING, (int64_t)w->n_pages);
    pulse_set(w->pulse, M_ACKS_WAITING, (int64_t)w->n_waiting);
    if (w->n_pages == 0)
        return ST_OK;
    full = w->rows >= (size_t)w->cfg->batch_rows || w->bytes >= (size_t)w->cfg->batch_bytes;
    if ((full && !w->retry_at_us) || clock_mono_us() >= batch_due_us(w))
        return commit(w, err);
    return ST_OK;
}

enum status writer_finish(struct writer *w, struct err *err)
{
    CRASH_POINT("writer.stop.asked");
    pg_wait_limit(w->pg, STAGE_STOP_MAX_US / 2);
    if (w->n_pages > 0)
        TRY(commit(w, err));
    if (w->n_pages > 0) /* Postgres is away; the leases bring these pages back */
        LOG(WARN, "batch.left", KV("pages", (int64_t)w->n_pages));
    acks_retry(w);
    CRASH_POINT("writer.stop.finished");
    return ST_OK;
}

/* ---- taking ---- */

static void message_end(void *arg)
{
    (void)zmq_msg_close(arg);
}

static void batch_add(struct writer *w, const struct records *records, size_t bytes)
{
    w->came_us = clock_mono_us();
    if (w->n_pages == 0)
        w->opened_us = w->came_us;
    while (w->n_pages + records->n_pages > w->cap_pages) {
        w->cap_pages = w->cap_pages ? 2 * w->cap_pages : 256;
        w->pages = xrealloc(w->pages, w->cap_pages, sizeof(*w->pages));
    }
    for (size_t i = 0; i < records->n_pages; i++) {
        w->pages[w->n_pages++] =
            (struct batch_page){.origin = &records->origin, .page = &records->pages[i]};
        w->rows += records->pages[i].n_records;
    }
    w->bytes += bytes;
}

/* The message's bytes move into the batch's arena, since its records point into them. */
static enum status take_message(struct writer *w, struct msg *m, struct err *err)
{
    zmq_msg_t *kept = ARENA_NEW(w->arena, zmq_msg_t);
    const struct records *records = NULL;
    struct text bytes;

    if (m->n != 1)
        return err_set(err, ST_REJECT, "records: %zu frames, but one was expected", m->n);
    (void)zmq_msg_init(kept);
    (void)zmq_msg_move(kept, &m->frames[0]);
    arena_defer(w->arena, message_end, kept);
    bytes = (struct text){zmq_msg_data(kept), zmq_msg_size(kept)};
    TRY(records_decode(&records, w->arena, bytes, err));
    batch_add(w, records, bytes.len);
    CRASH_POINT("writer.records.received");
    return ST_OK;
}

enum status writer_take(struct writer *w, struct err *err)
{
    struct msg m;

    while (!w->retry_at_us && w->rows < (size_t)w->cfg->batch_rows &&
           w->bytes < (size_t)w->cfg->batch_bytes) {
        enum status st = link_recv(w->records, 0, &m, err);
        if (st == ST_RETRY)
            return ST_OK; /* the link is empty */
        if (st == ST_OK)
            st = take_message(w, &m, err);
        msg_clear(&m);
        if (st == ST_REJECT)
            LOG(WARN, "message.refused", KV("error", err->text));
        else if (st != ST_OK)
            return st;
    }
    return ST_OK;
}
