#include "scheduler/digests.h"

#include <string.h>

/* version, epoch (8 bytes, big-endian), then for each feed: length of its name, name, number of
 * pages, and for each page digest and rows (4 bytes, big-endian). */
#define VERSION   1
#define PAGE_SIZE (sizeof(struct page_digest) + 4)
/* Of a name of one letter and a single page, for no feed without a page is written: so the stored
 * length says how many feeds there can be, and no more room than that is taken. */
#define FEED_SIZE_MIN (1 + 1 + 1 + PAGE_SIZE)

/* ---- reading ---- */

struct bytes {
    const uint8_t *at;
    size_t left;
    bool bad;
};

static const uint8_t *take(struct bytes *b, size_t n)
{
    const uint8_t *at = b->at;

    b->bad |= n > b->left;
    if (b->bad)
        return NULL;
    b->at += n;
    b->left -= n;
    return at;
}

static uint64_t take_number(struct bytes *b, size_t n)
{
    const uint8_t *at = take(b, n);
    uint64_t v = 0;

    for (size_t i = 0; at && i < n; i++)
        v = v << 8 | at[i];
    return v;
}

static void take_feed(struct bytes *b, struct arena *a, struct known_feed *out)
{
    size_t len = (size_t)take_number(b, 1);
    const uint8_t *name = take(b, len);

    if (!name)
        return;
    out->feed = (struct text){arena_copy(a, name, len), len};
    out->n = (size_t)take_number(b, 1);
    b->bad |= out->n > WIRE_KNOWN_MAX;
    for (size_t i = 0; !b->bad && i < out->n; i++) {
        const uint8_t *digest = take(b, sizeof(struct page_digest));
        if (digest)
            memcpy(out->pages[i].digest.at, digest, sizeof(struct page_digest));
        out->pages[i].rows = (uint32_t)take_number(b, 4);
    }
}

void digests_read(struct tracked_job *job, struct text stored)
{
    struct bytes b = {(const uint8_t *)stored.at, stored.len, false};
    size_t n = 0, most;

    job->n_known = 0;
    if (!stored.at || take_number(&b, 1) != VERSION ||
        (int64_t)take_number(&b, 8) != job->epoch - 1)
        return;
    most = b.left / FEED_SIZE_MIN < WIRE_WINDOWS_MAX ? b.left / FEED_SIZE_MIN : WIRE_WINDOWS_MAX;
    job->known = ARENA_ARRAY(job->arena, most, struct known_feed);
    while (b.left > 0 && !b.bad && n < most)
        take_feed(&b, job->arena, &job->known[n++]);
    if (!b.bad && b.left == 0)
        job->n_known = n;
}

void digests_give(struct tracked_job *job)
{
    for (size_t i = 0; i < job->n_windows; i++) {
        struct job_window *w = &job->windows[i];
        if (w->owed_id || w->audits_3d || w->audits_30d)
            continue;
        for (size_t k = 0; k < job->n_known; k++)
            if (text_is(job->known[k].feed, w->feed->name))
                w->known = &job->known[k];
    }
}

/* ---- writing ---- */

static void put_number(struct buf *b, uint64_t v, size_t n)
{
    uint8_t bytes[8];

    for (size_t i = 0; i < n; i++)
        bytes[i] = (uint8_t)(v >> 8 * (n - 1 - i));
    buf_append(b, bytes, n);
}

static void put_feed(struct buf *b, struct text feed, size_t n_pages)
{
    put_number(b, feed.len, 1);
    buf_append(b, feed.at, feed.len);
    put_number(b, n_pages, 1);
}

static void put_page(struct buf *b, const struct page_digest *digest, uint32_t rows)
{
    buf_append(b, digest->at, sizeof(digest->at));
    put_number(b, rows, 4);
}

static bool was_read(const struct tracked_job *job, struct text feed)
{
    for (size_t i = 0; i < job->n_windows; i++)
        if (text_is(feed, job->windows[i].feed->name))
            return true;
    return false;
}

/* An injection or backfill of the same feed may have written over what the window read before. */
static bool is_written_over(const struct tracked_job *job, const struct job_window *w)
{
    for (size_t i = 0; i < job->n_windows; i++)
        if (job->windows[i].owed_id && job->windows[i].feed == w->feed)
            return true;
    return false;
}

/* Whether all of the window is in the table as it came, and nothing of this job can still reach it:
 * all of its pages are committed, and the lease was not lost. An audit's pages would not be asked
 * for again, nor would those of a long window. */
static bool is_known(const struct tracked_job *job, const struct job_window *w)
{
    if (job->lost || is_written_over(job, w) || w->audits_3d || w->audits_30d || !w->ended ||
        w->n_pages == 0 || w->n_pages > WIRE_KNOWN_MAX || window_verdict(job, w).ending != END_OK)
        return false;
    for (uint32_t seq = 0; seq < w->n_pages; seq++)
        if (!page_digest_is(&w->pages[seq].digest))
            return false;
    return true;
}

struct text digests_write(struct arena *a, const struct tracked_job *job)
{
    struct buf b = {.arena = a};
    size_t head;

    put_number(&b, VERSION, 1);
    put_number(&b, (uint64_t)job->epoch, 8);
    head = b.len;
    for (size_t i = 0; i < job->n_known; i++) {
        const struct known_feed *known = &job->known[i];
        if (was_read(job, known->feed))
            continue;
        put_feed(&b, known->feed, known->n);
        for (size_t k = 0; k < known->n; k++)
            put_page(&b, &known->pages[k].digest, known->pages[k].rows);
    }
    for (size_t i = 0; i < job->n_windows; i++) {
        const struct job_window *w = &job->windows[i];
        if (!is_known(job, w))
            continue;
        put_feed(&b, text_of(w->feed->name), w->n_pages);
        for (uint32_t seq = 0; seq < w->n_pages; seq++)
            put_page(&b, &w->pages[seq].digest, w->pages[seq].rows);
    }
    return b.len > head ? (struct text){b.at, b.len} : TEXT_NULL;
}
