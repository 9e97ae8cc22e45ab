#include "normalizer/normalizer.h"

#include <stdlib.h>
#include <zmq.h>

#include "common/clock.h"
#include "common/crash.h"
#include "common/link.h"
#include "common/log.h"
#include "common/providers/provider.h"
#include "common/providers/reader.h"
#include "common/reading.h"

/* How long one look for room lasts: bounds what a missed wake-up can cost. */
#define ROOM_WAIT_US (1 * US_PER_S)

struct normalizer {
    struct stage *stage;
    struct pulse *pulse;
    struct link *pages, *records;
    struct arena *arena;
    struct people people;
};

enum status normalizer_open(struct normalizer **out, const struct config *cfg, struct err *err)
{
    struct normalizer *n = xalloc(1, sizeof(*n));

    *out = n;
    n->arena = arena_new();
    n->people = (struct people){&cfg->person_key, cfg->keep_email};
    if (cfg->keep_email)
        LOG(WARN, "people.kept",
            KV("hint", "UF_KEEP_EMAIL=1: e-mail addresses of people are stored as they come"));
    TRY(stage_open(&n->stage, "normalizer", cfg, err));
    TRY(link_open(&n->records, stage_zmq(n->stage), LINK_RECORDS_OUT, cfg, TEXT_NULL, err));
    TRY(link_open(&n->pages, stage_zmq(n->stage), LINK_PAGES_IN, cfg, TEXT_NULL, err));
    TRY(stage_pulse_open(n->stage, STAGE_NORMALIZER, cfg, err));
    n->pulse = stage_pulse(n->stage);
    stage_watch(n->stage, n->pages);
    stage_watch(n->stage, n->records); /* nothing arrives there; it has to find its writers */
    return ST_OK;
}

void normalizer_close(struct normalizer **n)
{
    if (!*n)
        return;
    link_close(&(*n)->pages);
    link_close(&(*n)->records);
    stage_close(&(*n)->stage);
    arena_free(&(*n)->arena);
    free(*n);
    *n = NULL;
}

struct stage *normalizer_stage(const struct normalizer *n)
{
    return n->stage;
}

/* ---- page -> records ---- */

/* Whether the same page may be passed over next time: its rows are all there, and would be the same
 * under other settings of this process. */
static bool may_be_known(const struct feed *feed, const struct page *page,
                         const struct record_page *out)
{
    return page_digest_is(&page->digest) && !out->dead.reason.at && out->n_bad_rows == 0 &&
           !feed_names_people(feed);
}

static void log_notes(const struct origin *origin, const struct page *page,
                      const struct page_notes *notes, size_t n_bad_rows)
{
    char job[37];
    const char *id = uuid_format(job, &origin->job_id);

    if (notes->repeated_buckets + notes->equal_rows + notes->summed_rows > 0)
        LOG(WARN, "page.repeats", KV("account", origin->account_id), KV("job", id),
            KV("feed", page->asked.feed), KV("page", page->seq),
            KV("repeated_buckets", notes->repeated_buckets), KV("equal_rows", notes->equal_rows),
            KV("summed_rows", notes->summed_rows), KV("mixed_units", notes->mixed_units));
    if (notes->inconsistent_rows > 0)
        LOG(WARN, "page.inconsistent", KV("account", origin->account_id), KV("job", id),
            KV("feed", page->asked.feed), KV("page", page->seq),
            KV("rows", notes->inconsistent_rows), KV("first", notes->inconsistent_path));
    if (notes->repaired)
        LOG(WARN, "page.repaired", KV("account", origin->account_id), KV("job", id),
            KV("feed", page->asked.feed), KV("page", page->seq));
    if (notes->people_dropped > 0)
        LOG(WARN, "page.people_dropped", KV("account", origin->account_id), KV("job", id),
            KV("feed", page->asked.feed), KV("page", page->seq), KV("rows", notes->people_dropped),
            KV("hint", "set UF_PERSON_KEY to tell people apart by a hash; make one with usagectl "
                       "keygen"));
    if (n_bad_rows > 0)
        LOG(WARN, "page.rows_set_aside", KV("account", origin->account_id), KV("job", id),
            KV("feed", page->asked.feed), KV("page", page->seq), KV("rows", n_bad_rows));
}

static void log_dead(const struct origin *origin, const struct page *page,
                     const struct record_page *out)
{
    char job[37];

    LOG(WARN, "page.dead", KV("account", origin->account_id),
        KV("job", uuid_format(job, &origin->job_id)), KV("feed", page->asked.feed),
        KV("page", page->seq), KV("reason", out->dead.reason), KV("path", out->dead.json_path));
}

void normalize_page(struct record_page *out, struct arena *a, const struct origin *origin,
                    const struct page *page, const struct people *people)
{
    const struct provider *provider = provider_find(origin->provider);
    const struct feed *feed = provider ? feed_find(provider, page->asked.feed) : NULL;
    const struct raw_page raw = {feed, page, people};
    struct page_notes notes = {0};
    struct err err = {0};

    if (!feed)
        reader_bury(out, a, page,
                    provider
                        ? "this version knows no such feed of the provider: are all stages of "
                          "one version?"
                        : "this version knows no such provider: are all stages of one version?",
                    NULL);
    else if (reader_read(out, &notes, a, &raw, &err) == ST_OK)
        log_notes(origin, page, &notes, out->n_bad_rows);
    if (out->dead.reason.at)
        log_dead(origin, page, out);
    else if (may_be_known(feed, page, out))
        out->digest = reading_digest(&page->digest);
}

/* A record without any text. */
#define RECORD_SIZE (60 + 9 * N_RECORD_COUNTS + 5 * N_RECORD_TEXTS)
_Static_assert(NORMALIZER_MESSAGE_MAX / RECORD_SIZE < WIRE_RECORDS_MAX,
               "a message that is small enough never holds too many records");
_Static_assert(READER_PAGE_MAX + (2 * READER_BAD_ROWS_MAX * DEAD_BODY_MAX) < WIRE_MESSAGE_MAX,
               "the largest page fits into a message");

/* An upper bound of what a page takes in a message. */
static size_t page_size(const struct record_page *page)
{
    size_t size = 200 + page->n_spans * 18 + page->dead.body.len + 2000;

    for (size_t i = 0; i < page->n_bad_rows; i++)
        size += page->bad_rows[i].body.len + 2000;
    for (size_t i = 0; i < page->n_records; i++) {
        size += RECORD_SIZE;
        for (size_t t = 0; t < N_RECORD_TEXTS; t++)
            size += page->records[i].texts[t].len;
    }
    return size;
}

size_t normalizer_fit(const struct record_page *pages, size_t n_pages)
{
    size_t size = 0;

    for (size_t i = 0; i < n_pages; i++) {
        size += page_size(&pages[i]);
        if (i > 0 && size > NORMALIZER_MESSAGE_MAX)
            return i;
    }
    return n_pages;
}

/* ---- handing on ---- */

/* Until a writer may have room, a signal, or ROOM_WAIT_US. */
static void wait_for_room(struct normalizer *n)
{
    zmq_pollitem_t wake[] = {{.socket = link_socket(n->records, 0), .events = ZMQ_POLLOUT},
                             {.fd = stage_wake_fd(), .events = ZMQ_POLLIN}};
    int64_t now_us = clock_mono_us();
    int64_t wait_us = link_deadline_us(n->records) - now_us;

    if (wait_us > ROOM_WAIT_US)
        wait_us = ROOM_WAIT_US;
    if (wait_us > 0) /* once asked to stop, the wake-up stays and would make this spin */
        (void)zmq_poll(wake, stage_stopping() ? 1 : 2,
                       (long)((wait_us + US_PER_MS - 1) / US_PER_MS));
    link_refresh(n->records, clock_mono_us());
    stage_beat(n->stage, clock_mono_us());
}

/* Sends one message, however long the writers need. ST_RETRY: asked to stop, and still no room. */
static enum status hand_on(struct normalizer *n, struct text message, struct err *err)
{
    int64_t give_up_us = INT64_MAX;
    bool told = false;
    enum status st;

    while ((st = link_send(n->records, 0, &message, 1, err)) == ST_RETRY) {
        int64_t now_us = clock_mono_us();
        if (stage_stopping() && give_up_us == INT64_MAX)
            give_up_us = now_us + STAGE_STOP_MAX_US - ROOM_WAIT_US;
        if (now_us >= give_up_us)
            return st;
        if (!told)
            LOG(INFO, "records.wait", KV("why", err->text));
        told = true;
        pulse_set(n->pulse, M_RECORDS_BLOCKED, 1);
        wait_for_room(n);
    }
    pulse_set(n->pulse, M_RECORDS_BLOCKED, 0);
    return st;
}

static void count_page(struct normalizer *n, const struct origin *origin, const struct page *page,
                       const struct record_page *out)
{
    size_t provider = pulse_name(n->pulse, origin->provider);

    pulse_add(n->pulse, M_PAGES_NORMALIZED, provider, 0, 1);
    pulse_add(n->pulse, M_BYTES_NORMALIZED, provider, 0, (int64_t)page->body.len);
    pulse_add(n->pulse, M_RECORDS_MADE, provider, 0, (int64_t)out->n_records);
    pulse_add(n->pulse, M_PAGES_DEAD, provider, 0, out->dead.reason.at != NULL);
    pulse_add(n->pulse, M_ROWS_SET_ASIDE, provider, 0, (int64_t)out->n_bad_rows);
}

static enum status translate(struct normalizer *n, struct msg *in, struct err *err)
{
    struct arena *a = n->arena;
    struct record_page *out;
    const struct pages *pages;
    size_t n_records = 0;

    if (in->n != 2)
        return err_set(err, ST_REJECT, "pages: %zu frames, not a head and the bodies", in->n);
    TRY(pages_decode(&pages, a, msg_frame(in, 0), msg_frame(in, 1), err));
    CRASH_POINT("normalizer.pages.received");
    out = ARENA_ARRAY(a, pages->n_pages, struct record_page);
    for (size_t i = 0; i < pages->n_pages; i++) {
        normalize_page(&out[i], a, &pages->origin, &pages->pages[i], &n->people);
        n_records += out[i].n_records;
        count_page(n, &pages->origin, &pages->pages[i], &out[i]);
    }
    for (size_t at = 0, fit; at < pages->n_pages; at += fit) {
        struct records records = {.origin = pages->origin, .pages = out + at};
        struct buf message = {.arena = a};
        fit = records.n_pages = normalizer_fit(out + at, pages->n_pages - at);
        records_encode(&message, &records);
        CRASH_POINT("normalizer.records.sending");
        TRY(hand_on(n, (struct text){message.at, message.len}, err));
        CRASH_POINT("normalizer.records.sent");
    }
    LOG(DEBUG, "pages.normalized", KV("account", pages->origin.account_id),
        KV("pages", pages->n_pages), KV("records", n_records));
    return ST_OK;
}

/* Settles one message: handed on, or dropped with its reason in the log. */
static enum status handle(struct normalizer *n, struct msg *in, struct err *err)
{
    enum status st = translate(n, in, err);

    msg_clear(in);
    arena_reset(n->arena);
    if (st == ST_RETRY) /* only when stopping: the lease brings these pages again */
        LOG(WARN, "records.dropped", KV("error", err->text));
    if (st == ST_REJECT)
        LOG(WARN, "pages.dropped", KV("error", err->text));
    return st == ST_FATAL ? st : ST_OK;
}

enum status normalizer_take(struct normalizer *n, struct err *err)
{
    struct msg in;

    for (int i = 0; i < NORMALIZER_TAKE_MAX && !stage_stopping(); i++) {
        enum status st = link_recv(n->pages, 0, &in, err);
        if (st == ST_OK)
            TRY(handle(n, &in, err));
        else if (st == ST_REJECT)
            LOG(WARN, "pages.dropped", KV("error", err->text));
        else
            return st == ST_RETRY ? ST_OK : st; /* nothing more is there, or the link is broken */
    }
    return ST_OK;
}
