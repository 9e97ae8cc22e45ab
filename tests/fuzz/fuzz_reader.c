/* A provider's page, over every feed: what the fetcher sees of it, and the records it becomes.
 * Input: a byte that chooses feed and window, then the body. */
#include "common/clock.h"
#include "common/decimal.h"
#include "common/providers/provider.h"
#include "common/providers/reader.h"
#include "tests/fuzz/fuzz.h"

#define FROM_US (INT64_C(1793923200) * US_PER_S) /* 2026-11-06T00:00:00Z */
#define TO_US   (FROM_US + 2 * US_PER_DAY)

static void check_json(struct arena *a, struct text t)
{
    struct json_doc doc;
    struct err err;

    if (!t.at)
        return;
    HOLDS(json_parse(&doc, a, t, &err) == ST_OK && json_is(doc.root, JSON_OBJECT));
}

static void check_decimal(struct arena *a, struct text t)
{
    struct decimal d;
    struct err err;

    if (!t.at)
        return;
    HOLDS(decimal_parse(&d, a, t, &err) == ST_OK);
    HOLDS(text_eq(decimal_format(&d, a), t));
}

static bool in_some_span(const struct record_page *p, int64_t at_us)
{
    for (size_t i = 0; i < p->n_spans; i++)
        if (at_us >= p->spans[i].from_us && at_us < p->spans[i].to_us)
            return true;
    return false;
}

static void check_record(struct arena *a, const struct record_page *p, size_t i)
{
    const struct record *r = &p->records[i], *before = i ? r - 1 : NULL;
    struct record again = *r;

    HOLDS(in_some_span(p, r->bucket_start_us));
    HOLDS(r->bucket_seconds == p->asked.bucket_s);
    HOLDS(!before || before->bucket_start_us < r->bucket_start_us ||
          (before->bucket_start_us == r->bucket_start_us &&
           memcmp(before->row_key, r->row_key, sizeof(r->row_key)) < 0));
    for (size_t k = 0; k < N_RECORD_TEXTS; k++)
        HOLDS(fuzz_storable(r->texts[k]));
    check_json(a, r->texts[TEXT_DIMS]);
    check_json(a, r->texts[TEXT_EXTRA]);
    check_decimal(a, r->texts[TEXT_QUANTITY]);
    check_decimal(a, r->texts[TEXT_COST_AMOUNT]);
    HOLDS(!r->texts[TEXT_CURRENCY].at || r->texts[TEXT_CURRENCY].len == 3);
    record_digest(&again, p->asked.feed);
    HOLDS(memcmp(again.row_key, r->row_key, sizeof(r->row_key)) == 0);
    HOLDS(again.row_hash == r->row_hash);
}

/* Whatever became of the page, the writer must be able to read it. */
static void check_travels(struct arena *a, const struct record_page *p)
{
    const struct records out = {
        .origin = {.provider = TEXT_LIT("openai")}, .pages = p, .n_pages = 1};
    const struct records *in;
    struct buf b = {.arena = a};
    struct err err;

    records_encode(&b, &out);
    HOLDS(records_decode(&in, a, (struct text){b.at, b.len}, &err) == ST_OK);
    HOLDS(in->pages[0].n_records == p->n_records && in->pages[0].n_spans == p->n_spans);
    for (size_t i = 0; i < p->n_bad_rows; i++) {
        HOLDS(p->bad_rows[i].reason.at && fuzz_storable(p->bad_rows[i].reason));
        HOLDS(fuzz_storable(p->bad_rows[i].json_path) && fuzz_storable(p->bad_rows[i].body));
    }
}

static void check_spans(const struct record_page *p, const struct peek *peek)
{
    HOLDS(peek->any == (p->n_spans > 0));
    for (size_t i = 0; i < p->n_spans; i++) {
        HOLDS(p->spans[i].from_us < p->spans[i].to_us);
        HOLDS(p->spans[i].from_us >= p->asked.from_us && p->spans[i].from_us >= peek->from_us);
        HOLDS(p->asked.to_us == 0 || p->spans[i].to_us <= p->asked.to_us);
        HOLDS(p->spans[i].to_us <= peek->to_us);
    }
}

/* OpenAI's feeds, then Anthropic's. */
static const struct feed *feed_nth(size_t n)
{
    n %= openai_provider.n_feeds + anthropic_provider.n_feeds;
    return n < openai_provider.n_feeds ? &openai_provider.feeds[n]
                                       : &anthropic_provider.feeds[n - openai_provider.n_feeds];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    const struct people people = {.key = &(struct secret){0}};
    struct question q;
    struct raw_page raw;
    struct arena *a;
    struct page page = {.asked = {.from_us = FROM_US}};
    struct record_page got = {0};
    struct page_notes notes;
    struct peek peek = {0};
    struct err err;
    enum status peeked, st;

    if (len == 0)
        return 0;
    a = arena_new();
    q = (struct question){.feed = feed_nth(data[0] & 0x3f)};
    page.asked.feed = text_of(q.feed->name);
    page.asked.to_us = data[0] & 0x80 && !feed_is_flat(q.feed) ? 0 : TO_US;
    page.asked.bucket_s = feed_width(q.feed, data[0] & 0x40 ? 60 : 3600)->bucket_s;
    page.body = fuzz_text(data + 1, len - 1);
    q.window = page.asked;
    raw = (struct raw_page){q.feed, &page, &people};
    peeked = reader_peek(&peek, a, &q, page.body, &err);
    st = reader_read(&got, &notes, a, &raw, &err);
    if (peeked == ST_OK) {
        HOLDS(!peek.has_more || (peek.cursor.at && peek.cursor.len > 0));
        HOLDS(!peek.any || (peek.from_us < peek.to_us && peek.from_us >= FROM_US));
        HOLDS(peek.closed_us <= peek.to_us);
    }
    HOLDS(st == ST_OK || (st == ST_REJECT && got.dead.reason.at));
    HOLDS((st == ST_OK) == !got.dead.reason.at);
    HOLDS(fuzz_storable(got.dead.reason) && fuzz_storable(got.dead.body));
    HOLDS(!got.dead.reason.at || (got.n_records == 0 && got.n_spans == 0));
    if (st == ST_OK && peeked == ST_OK && !feed_is_flat(q.feed))
        check_spans(&got, &peek);
    for (size_t i = 0; i < got.n_records; i++)
        check_record(a, &got, i);
    check_travels(a, &got);
    arena_free(&a);
    return 0;
}
