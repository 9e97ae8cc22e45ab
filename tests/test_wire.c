/* Messages between stages: what goes in comes out, and nothing damaged gets through or hurts. */
#include "common/wire.h"

#include <msgpack.h>
#include <stdlib.h>

#include "tests/check.h"

/* ---- one sample of each message ---- */

static const struct uuid job_id = {{1, 2, 3, 4, 5, 6, 0x47, 8, 0x89, 10, 11, 12, 13, 14, 15, 16}};
static const struct uuid scheduler_id = {{0xff, 0, 0xff}};

static const struct window asked = {
    .feed = {"completions", 11},
    .from_us = INT64_C(1793491200000000),
    .to_us = INT64_C(1793494800000000),
    .bucket_s = 3600,
    .complete_from_us = 7,
    .complete_us = INT64_MAX,
};
#define ORIGIN                                                                                     \
    {                                                                                              \
        .job_id = job_id, .scheduler_id = scheduler_id, .account_id = -5, .epoch = 3,              \
        .provider = {                                                                              \
            "openai",                                                                              \
            6                                                                                      \
        }                                                                                          \
    }

static const struct page_digest digest = {{0xd1, 0, 0xd1}};
static const struct known_pages known = {{{{0xd1, 0, 0xd1}}, {{2}}}, 2};

static void sample_job(struct buf *out)
{
    job_encode(out, &(struct job){.job_id = job_id,
                                  .scheduler_id = scheduler_id,
                                  .account_id = INT64_MIN,
                                  .epoch = INT64_MAX,
                                  .lease_ms = 300000,
                                  .account = TEXT_LIT("acme"),
                                  .provider = TEXT_LIT("openai"),
                                  .base_url = TEXT_LIT("https://api.openai.com/v1"),
                                  .sealed_key = TEXT_LIT("\1\0\2"),
                                  .page_cap = 100,
                                  .windows = &asked,
                                  .n_windows = 1,
                                  .known = &known});
}

static void sample_ready(struct buf *out)
{
    ready_encode(out, &(struct ready){.instance = TEXT_LIT("fetcher-1"),
                                      .capacity = UINT32_MAX,
                                      .held = &job_id,
                                      .n_held = 1});
}

static void sample_done(struct buf *out)
{
    const struct same_page same = {.seq = 3, .known = 7, .complete_us = 8};
    const struct window_end end = {.window = 63,
                                   .ending = END_BAD_WINDOW,
                                   .pages = 4,
                                   .same = &same,
                                   .n_same = 1,
                                   .complete_us = 9,
                                   .requests = 5,
                                   .bytes = INT64_MAX,
                                   .http_status = 429,
                                   .retry_after_s = 60,
                                   .detail = TEXT_LIT("wait a minute")};

    done_encode(out, &(struct done){.job_id = job_id, .ends = &end, .n_ends = 1});
}

static void sample_pages(struct buf *out)
{
    const struct page page = {.window = 1,
                              .seq = 2,
                              .asked = asked,
                              .complete_us = 3,
                              .last = true,
                              .digest = digest,
                              .body = TEXT_LIT("{\"data\":[]}")};

    pages_encode_head(out, &(struct pages){.origin = ORIGIN, .pages = &page, .n_pages = 1});
}

static void sample_records(struct buf *out)
{
    const struct span span = {1, 2};
    const struct dead bad = {TEXT_LIT("not a number"), TEXT_LIT("$.data[0]"), TEXT_LIT("{}")};
    struct record record;
    struct record_page page = {.window = 1,
                               .seq = 2,
                               .asked = asked,
                               .complete_us = 3,
                               .spans = &span,
                               .n_spans = 1,
                               .records = &record,
                               .n_records = 1,
                               .bad_rows = &bad,
                               .n_bad_rows = 1,
                               .digest = digest};

    record_clear(&record);
    record.bucket_start_us = 5;
    record.bucket_seconds = 3600;
    record.batch = TRI_FALSE;
    record.counts[COUNT_INPUT_TOKENS] = INT64_MAX;
    record.counts[COUNT_NUM_REQUESTS] = 0;
    record.texts[TEXT_MODEL] = TEXT_LIT("");
    record.texts[TEXT_COST_AMOUNT] = TEXT_LIT("0.1000000000000000000000000001");
    record_digest(&record, asked.feed);
    records_encode(out, &(struct records){.origin = ORIGIN, .pages = &page, .n_pages = 1});
}

static void sample_acks(struct buf *out)
{
    const struct ack ack = {.job_id = job_id,
                            .window = 1,
                            .seq = UINT32_MAX,
                            .fate = PAGE_DEAD,
                            .complete_us = 4,
                            .inserted = 5,
                            .updated = 6,
                            .removed = 7,
                            .unchanged = 8,
                            .detail = TEXT_LIT("not JSON"),
                            .digest = digest};

    acks_encode(out, &(struct acks){.acks = &ack, .n_acks = 1});
}

static void sample_pulse(struct buf *out)
{
    static const int64_t cells[] = {3, 1234567};
    const struct wire_sample samples[] = {{.name = TEXT_LIT("request_duration_seconds"),
                                           .labels = {TEXT_LIT("openai")},
                                           .n_labels = 1,
                                           .cells = cells,
                                           .n_cells = 2},
                                          {.name = TEXT_LIT("log_lines_total"),
                                           .labels = {TEXT_LIT("warn")},
                                           .n_labels = 1,
                                           .value = INT64_MIN}};

    pulse_message_encode(out, &(struct pulse_message){.stage = TEXT_LIT("fetcher"),
                                                      .instance = TEXT_LIT("fetcher-1"),
                                                      .version = TEXT_LIT("0.1.0"),
                                                      .pid = 4711,
                                                      .started_us = 5,
                                                      .uptime_ms = 6,
                                                      .leaving = true,
                                                      .samples = samples,
                                                      .n_samples = 2});
}

static enum status try_job(struct arena *a, struct text msg, struct err *err)
{
    const struct job *out;

    return job_decode(&out, a, msg, err);
}

static enum status try_ready(struct arena *a, struct text msg, struct err *err)
{
    const struct ready *out;

    return ready_decode(&out, a, msg, err);
}

static enum status try_done(struct arena *a, struct text msg, struct err *err)
{
    const struct done *out;

    return done_decode(&out, a, msg, err);
}

static enum status try_pages(struct arena *a, struct text msg, struct err *err)
{
    static const struct text body = TEXT_LIT("{\"data\":[]}");
    const struct pages *out;

    return pages_decode(&out, a, msg, body, err);
}

static enum status try_records(struct arena *a, struct text msg, struct err *err)
{
    const struct records *out;

    return records_decode(&out, a, msg, err);
}

static enum status try_acks(struct arena *a, struct text msg, struct err *err)
{
    const struct acks *out;

    return acks_decode(&out, a, msg, err);
}

static enum status try_pulse(struct arena *a, struct text msg, struct err *err)
{
    const struct pulse_message *out;

    return pulse_message_decode(&out, a, msg, err);
}

#define WINDOW       "window", "feed", "from", "to", "bucket_s", "complete_from", "complete"
#define ORIGIN_NAMES "origin", "job_id", "scheduler_id", "account_id", "epoch", "provider"
#define DEAD         "dead", "reason", "json_path", "body"
#define SEVEN        "count", "count", "count", "count", "count", "count", "count"
#define TWELVE                                                                                     \
    "text", "text", "text", "text", "text", "text", "text", "text", "text", "text", "text", "text"

/* Every element of the sample in the order of the wire, by the name that a refusal gives it. An
 * array comes before its elements. */
static const struct message {
    const char *name;
    void (*sample)(struct buf *out);
    enum status (*decode)(struct arena *a, struct text msg, struct err *err);
    const char *names[64];
} messages[] = {
    {"job",
     sample_job,
     try_job,
     {"version", "kind", "job_id", "scheduler_id", "account_id", "epoch", "lease_ms", "account",
      "provider", "base_url", "sealed_key", "page_cap", "windows", WINDOW, "known", "digests"}},
    {"ready",
     sample_ready,
     try_ready,
     {"version", "kind", "instance", "capacity", "held", "job_id"}},
    {"done",
     sample_done,
     try_done,
     {"version", "kind", "job_id", "ends", "end", "window", "ending", "pages", "complete",
      "requests", "bytes", "http_status", "retry_after", "detail", "same", "same page", "seq",
      "known", "complete"}},
    {"pages",
     sample_pages,
     try_pages,
     {"version", "kind", ORIGIN_NAMES, "pages", "page", "window", "seq", WINDOW, "complete", "last",
      "digest", "size"}},
    {"records",
     sample_records,
     try_records,
     {"version",      "kind",           ORIGIN_NAMES, "pages",     "page",    "window",  "seq",
      WINDOW,         "complete",       "spans",      "span from", "span to", "records", "record",
      "bucket_start", "bucket_seconds", "row_key",    "row_hash",  "batch",   SEVEN,     TWELVE,
      DEAD,           "bad_rows",       DEAD,         "digest"}},
    {"acks",
     sample_acks,
     try_acks,
     {"version", "kind", "acks", "ack", "job_id", "window", "seq", "fate", "complete", "inserted",
      "updated", "removed", "unchanged", "detail", "digest"}},
    {"pulse", sample_pulse, try_pulse, {"version", "kind",    "stage",     "instance", "version",
                                        "pid",     "started", "uptime_ms", "leaving",  "samples",
                                        "sample",  "name",    "labels",    "label",    "value",
                                        "cell",    "cell",    "sample",    "name",     "labels",
                                        "label",   "value"}},
};

/* ---- damage ---- */

enum damage { KEEP, MAP, NIL, INT, HUGE_INT, LONG_TEXT, SHORT_BYTES, ONE_MORE, ONE_LESS };

struct damager {
    msgpack_packer pk;
    enum damage how;
    int64_t value; /* of INT */
    int target, at;
};

static int put_bytes(void *data, const char *bytes, size_t len)
{
    buf_append(data, bytes, len);
    return 0;
}

static void put_damaged(struct damager *d)
{
    static char filler[1 << 21];

    switch (d->how) {
    case MAP:
        msgpack_pack_map(&d->pk, 0);
        break;
    case NIL:
        msgpack_pack_nil(&d->pk);
        break;
    case INT:
        msgpack_pack_int64(&d->pk, d->value);
        break;
    case HUGE_INT:
        msgpack_pack_uint64(&d->pk, UINT64_MAX);
        break;
    case LONG_TEXT:
        msgpack_pack_str(&d->pk, sizeof(filler));
        msgpack_pack_str_body(&d->pk, filler, sizeof(filler));
        break;
    case SHORT_BYTES:
        msgpack_pack_bin(&d->pk, 3);
        msgpack_pack_bin_body(&d->pk, "abc", 3);
        break;
    case KEEP:
    case ONE_MORE:
    case ONE_LESS:
        break;
    }
}

static void repack(struct damager *d, const msgpack_object *o)
{
    bool here = d->at++ == d->target;
    size_t n = o->type == MSGPACK_OBJECT_ARRAY ? o->via.array.size : 0;

    if (here && d->how != ONE_MORE && d->how != ONE_LESS && d->how != KEEP) {
        put_damaged(d);
        return;
    }
    if (o->type != MSGPACK_OBJECT_ARRAY) {
        msgpack_pack_object(&d->pk, *o);
        return;
    }
    msgpack_pack_array(&d->pk, n + (here && d->how == ONE_MORE) - (here && d->how == ONE_LESS));
    for (size_t i = 0; i < n - (here && d->how == ONE_LESS); i++)
        repack(d, &o->via.array.ptr[i]);
    if (here && d->how == ONE_MORE)
        msgpack_pack_nil(&d->pk);
}

/* The sample with its element number `target` damaged; 0 is the whole message. Answers the number
 * of elements, the whole one included. */
static int damaged(struct buf *out, const struct message *m, int target, enum damage how,
                   int64_t value)
{
    struct damager d = {.how = how, .value = value, .target = target};
    struct buf good = {.arena = out->arena};
    msgpack_unpacked u;

    m->sample(&good);
    msgpack_unpacked_init(&u);
    msgpack_packer_init(&d.pk, out, put_bytes);
    assert_int_equal(msgpack_unpack_next(&u, good.at, good.len, NULL), MSGPACK_UNPACK_SUCCESS);
    repack(&d, &u.data);
    msgpack_unpacked_destroy(&u);
    return d.at;
}

static bool refused(const char *name, const struct message *m, struct text msg, const char *words)
{
    struct arena *a = arena_new();
    struct err err = {0};
    bool good = same_int(name, m->decode(a, msg, &err), ST_REJECT) &&
                has_words(name, err.text, words) && same_int(name, err.status, ST_REJECT);

    arena_free(&a);
    return good;
}

static void every_element_is_checked(void **state)
{
    struct arena *a = arena_new();
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(messages); i++) {
        const struct message *m = &messages[i];
        struct buf same = {.arena = a};
        struct err err = {0};
        int n = damaged(&same, m, -1, KEEP, 0);
        good &= same_int(m->name, m->decode(a, (struct text){same.at, same.len}, &err), ST_OK);
        for (int k = 1; k < n; k++) {
            struct buf b = {.arena = a};
            const char *name = arena_printf(a, "%s: %s (%d) of another type", m->name,
                                            m->names[k - 1] ? m->names[k - 1] : "?", k);
            assert_non_null(m->names[k - 1]);
            (void)damaged(&b, m, k, MAP, 0);
            good &= refused(name, m, (struct text){b.at, b.len},
                            arena_printf(a, "%s: ", m->names[k - 1]));
        }
        good &= same_str(m->name, m->names[n - 1], NULL);
    }
    arena_free(&a);
    assert_true(good);
}

static void every_array_has_its_length(void **state)
{
    struct arena *a = arena_new();
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(messages); i++) {
        const struct message *m = &messages[i];
        for (int k = 0; k < 64 && (k == 0 || m->names[k - 1]); k++) {
            static const char *const arrays[] = {
                "windows", "window", "held",  "ends",    "end",      "origin",   "pages",
                "page",    "dead",   "spans", "records", "record",   "bad_rows", "acks",
                "ack",     "sample", "known", "same",    "same page"};
            struct buf more = {.arena = a}, less = {.arena = a};
            bool array = k == 0;
            for (size_t t = 0; k > 0 && t < ROWS(arrays); t++)
                array |= strcmp(m->names[k - 1], arrays[t]) == 0;
            (void)damaged(&more, m, k, ONE_MORE, 0);
            (void)damaged(&less, m, k, ONE_LESS, 0);
            if (!array || less.len == more.len)
                continue; /* a number that is called like an array */
            good &= refused(arena_printf(a, "%s: one more in %d", m->name, k), m,
                            (struct text){more.at, more.len}, ": ");
            /* these may be empty */
            if (k > 0 &&
                (strcmp(m->names[k - 1], "held") == 0 || strcmp(m->names[k - 1], "records") == 0 ||
                 strcmp(m->names[k - 1], "bad_rows") == 0 ||
                 strcmp(m->names[k - 1], "known") == 0 || strcmp(m->names[k - 1], "same") == 0))
                continue;
            good &= refused(arena_printf(a, "%s: one less in %d", m->name, k), m,
                            (struct text){less.at, less.len}, ": ");
        }
    }
    arena_free(&a);
    assert_true(good);
}

static const struct {
    const char *name, *field, *words;
    int64_t value;
    int message; /* index into messages */
    enum damage how;
} range_cases[] = {
    {"an older version", "version", "version 1, but this program speaks version 2", 1, 0, INT},
    {"a newer version", "version", "version 3, but this program speaks version 2", 3, 3, INT},
    {"an unknown kind", "kind", "kind: not an integer in range", 8, 0, INT},
    {"another kind", "kind", "kind 6, but job (1) was expected", WIRE_ACKS, 0, INT},
    {"another kind", "kind", "kind 1, but acks (6) was expected", WIRE_JOB, 5, INT},
    {"a short id", "job_id", "job_id: not bytes of the right length", 0, 0, SHORT_BYTES},
    {"no id", "job_id", "job_id: not bytes", 0, 0, NIL},
    {"an unsigned beyond int64", "account_id", "account_id: not an integer", 0, 0, HUGE_INT},
    {"a negative epoch", "epoch", "epoch: not an integer in range", -1, 0, INT},
    {"a lease that is over", "lease_ms", "lease_ms", -1, 0, INT},
    {"a lease over a day", "lease_ms", "lease_ms", 86400001, 0, INT},
    {"no account", "account", "account: missing", 0, 0, NIL},
    {"a long account", "account", "account: not a text of allowed length", 0, 0, LONG_TEXT},
    {"a number for a text", "base_url", "base_url: not a text", 1, 0, INT},
    {"text for bytes", "sealed_key", "sealed_key: not bytes", 0, 0, LONG_TEXT},
    {"no page", "page_cap", "page_cap", 0, 0, INT},
    {"pages beyond 32 bits", "page_cap", "page_cap", INT64_C(4294967296), 0, INT},
    {"before 1970", "from", "from: not an integer in range", -1, 0, INT},
    {"a window that ends at its start", "to", "to: not after from", INT64_C(1793491200000000), 0,
     INT},
    {"a window that ends before its start", "to", "to: not after from", 1, 0, INT},
    {"no width", "bucket_s", "bucket_s", 0, 0, INT},
    {"a width over a leap year", "bucket_s", "bucket_s", 31622401, 0, INT},
    {"credit beyond 32 bits", "capacity", "capacity", INT64_C(4294967296), 1, INT},
    {"window 64", "window", "window", WIRE_WINDOWS_MAX, 2, INT},
    {"an ending we do not have", "ending", "ending", N_ENDINGS, 2, INT},
    {"a negative ending", "ending", "ending", -1, 2, INT},
    {"bytes beyond int64", "bytes", "bytes", 0, 2, HUGE_INT},
    {"a wait of years", "retry_after", "retry_after", 31622401, 2, INT},
    {"a long detail", "detail", "detail", 0, 2, LONG_TEXT},
    {"a number for a boolean", "last", "last: not a boolean", 7, 3, INT},
    {"no provider", "provider", "provider: missing", 0, 3, NIL},
    {"a page that counts from -1", "seq", "seq", -1, 3, INT},
    {"half a span", "spans", "spans: end: more elements", 0, 4, ONE_MORE},
    {"a span of no end", "span to", "span to", 0, 4, NIL},
    {"a width of 0", "bucket_seconds", "bucket_seconds", 0, 4, INT},
    {"a width beyond Postgres's integer", "bucket_seconds", "bucket_seconds", INT64_C(2147483648),
     4, INT},
    {"a short key", "row_key", "row_key: not bytes of the right length", 0, 4, SHORT_BYTES},
    {"a fourth batch state", "batch", "batch", 2, 4, INT},
    {"a count that means null", "count", "count", INT64_MIN, 4, INT},
    {"a count beyond int64", "count", "count", 0, 4, HUGE_INT},
    {"a dimension over a megabyte", "text", "text", 0, 4, LONG_TEXT},
    {"a long reason", "reason", "reason", 0, 4, LONG_TEXT},
    {"a fate we do not have", "fate", "fate", 3, 5, INT},
    {"rows beyond 32 bits", "removed", "removed", INT64_C(4294967296), 5, INT},
    {"a pulse without a stage", "stage", "stage: missing", 0, 6, NIL},
    {"a label over 100 bytes", "label", "label: not a text", 0, 6, LONG_TEXT},
    {"a histogram that counts down", "cell", "cell: not an integer in range", -1, 6, INT},
    {"a sum that others would overflow", "cell", "cell", INT64_MAX, 6, INT},
    {"half a digest", "digests", "digests: not bytes of the right length", 0, 0, SHORT_BYTES},
    {"known pages of a window that is not there", "known", "known: not an array of allowed length",
     0, 0, ONE_MORE},
    {"a page that no job knows", "known", "known: not an integer in range", WIRE_KNOWN_MAX, 2, INT},
    {"a short digest", "digest", "digest: not bytes of the right length", 0, 3, SHORT_BYTES},
    {"no digest", "digest", "digest: not bytes", 0, 5, NIL},
    {"no number", "inserted", "inserted: not an integer in range", 0, 5, NIL},
};

static void ranges(void **state)
{
    struct arena *a = arena_new();
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(range_cases); i++) {
        const struct message *m = &messages[range_cases[i].message];
        struct buf b = {.arena = a};
        int at = 1;
        while (m->names[at - 1] && strcmp(m->names[at - 1], range_cases[i].field) != 0)
            at++;
        assert_non_null(m->names[at - 1]);
        if (strcmp(range_cases[i].field, "window") == 0 && m->names[at][0] == 'f')
            at++; /* not the array of that name */
        (void)damaged(&b, m, at, range_cases[i].how, range_cases[i].value);
        good &= refused(range_cases[i].name, m, (struct text){b.at, b.len}, range_cases[i].words);
    }
    arena_free(&a);
    assert_true(good);
}

/* Each copy has just its own size, so that ASan sees a read beyond it. */
static void torn_and_flipped(void **state)
{
    struct arena *a = arena_new();
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(messages); i++) {
        const struct message *m = &messages[i];
        struct buf b = {.arena = a};
        char *copy;
        m->sample(&b);
        for (size_t len = 0; len < b.len; len++) {
            copy = malloc(len ? len : 1);
            memcpy(copy, b.at, len);
            good &= refused(arena_printf(a, "%s cut at %zu", m->name, len), m,
                            (struct text){copy, len}, "message: not msgpack");
            free(copy);
        }
        copy = malloc(b.len + 1);
        memcpy(copy, b.at, b.len);
        copy[b.len] = 0;
        good &= refused(m->name, m, (struct text){copy, b.len + 1}, "1 bytes are left over");
        for (size_t at = 0; at < b.len * 8; at++) {
            struct arena *own = arena_new();
            struct err err = {0};
            enum status st;
            copy[at / 8] = (char)(b.at[at / 8] ^ (1 << at % 8));
            st = m->decode(own, (struct text){copy, b.len}, &err);
            good &= st == ST_OK || same_int(m->name, st, ST_REJECT);
            good &= st == ST_OK || err.text[0];
            copy[at / 8] = b.at[at / 8];
            arena_free(&own);
        }
        free(copy);
    }
    arena_free(&a);
    assert_true(good);
}

static const struct {
    const char *name;
    struct text bytes;
    const char *words;
} alien_cases[] = {
    {"nothing", TEXT_NULL, "not msgpack"},
    {"no bytes", TEXT_LIT(""), "not msgpack"},
    {"a number", TEXT_LIT("\x01"), "not an array"},
    {"a map", TEXT_LIT("\x80"), "not an array"},
    {"an empty array", TEXT_LIT("\x90"), "version: missing"},
    {"a version alone", TEXT_LIT("\x91\x01"), "kind: missing"},
    {"JSON", TEXT_LIT("{\"cmd\":\"status\"}"), "left over"},
    {"the byte that msgpack never uses", TEXT_LIT("\xc1"), "not msgpack"},
    {"an array of 4 billion", TEXT_LIT("\xdd\xff\xff\xff\xff\x01\x01"), "not msgpack"},
    {"an array of one more than there is", TEXT_LIT("\xdc\0\3\1\1"), "not msgpack"},
    {"a map of 2 billion", TEXT_LIT("\xdf\x7f\xff\xff\xff"), "not msgpack"},
    {"a large array inside", TEXT_LIT("\x93\1\1\xdd\x7f\xff\xff\xff\1"), "not msgpack"},
    {"a text of 4 GB", TEXT_LIT("\x93\1\1\xdb\xff\xff\xff\xff\1"), "not msgpack"},
    {"arrays without end",
     TEXT_LIT("\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91"
              "\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91"),
     "not msgpack"},
};

static void aliens(void **state)
{
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(alien_cases); i++) {
        enum wire_kind kind;
        struct err err = {0};
        for (size_t m = 0; m < ROWS(messages); m++)
            good &= refused(alien_cases[i].name, &messages[m], alien_cases[i].bytes,
                            alien_cases[i].words);
        good &= same_int(alien_cases[i].name, wire_kind_of(&kind, alien_cases[i].bytes, &err),
                         ST_REJECT);
    }
    for (size_t m = 0; m < ROWS(messages); m++) {
        struct arena *a = arena_new();
        struct buf b = {.arena = a};
        enum wire_kind kind;
        struct err err = {0};
        messages[m].sample(&b);
        good &= same_int(messages[m].name, wire_kind_of(&kind, (struct text){b.at, b.len}, &err),
                         ST_OK);
        good &= same_int(messages[m].name, kind, (int64_t)m + WIRE_JOB);
        arena_free(&a);
    }
    assert_true(good);
}

/* ---- round trips ---- */

static void encode(struct buf *b, struct arena *a, void (*sample)(struct buf *out))
{
    *b = (struct buf){.arena = a};
    sample(b);
}

#define SAME_INT(a, b)  assert_int_equal(a, b)
#define SAME_TEXT(a, b) assert_true(text_eq(a, b))

static void same_window(const struct window *w)
{
    SAME_TEXT(w->feed, asked.feed);
    SAME_INT(w->from_us, asked.from_us);
    SAME_INT(w->to_us, asked.to_us);
    SAME_INT(w->bucket_s, asked.bucket_s);
    SAME_INT(w->complete_from_us, asked.complete_from_us);
    SAME_INT(w->complete_us, asked.complete_us);
}

static void same_origin(const struct origin *o)
{
    assert_true(uuid_eq(&o->job_id, &job_id));
    assert_true(uuid_eq(&o->scheduler_id, &scheduler_id));
    SAME_INT(o->account_id, -5);
    SAME_INT(o->epoch, 3);
    SAME_TEXT(o->provider, TEXT_LIT("openai"));
}

static void job_ready_done_come_back(void **state)
{
    struct arena *a = arena_new();
    struct err err = {0};
    const struct job *job;
    const struct ready *ready;
    const struct done *done;
    struct buf b;

    (void)state;
    encode(&b, a, sample_job);
    SAME_INT(job_decode(&job, a, (struct text){b.at, b.len}, &err), ST_OK);
    assert_true(uuid_eq(&job->job_id, &job_id) && uuid_eq(&job->scheduler_id, &scheduler_id));
    SAME_INT(job->account_id, INT64_MIN);
    SAME_INT(job->epoch, INT64_MAX);
    SAME_INT(job->lease_ms, 300000);
    SAME_TEXT(job->account, TEXT_LIT("acme"));
    SAME_TEXT(job->provider, TEXT_LIT("openai"));
    SAME_TEXT(job->base_url, TEXT_LIT("https://api.openai.com/v1"));
    SAME_TEXT(job->sealed_key, TEXT_LIT("\1\0\2"));
    SAME_INT(job->page_cap, 100);
    SAME_INT(job->n_windows, 1);
    same_window(&job->windows[0]);
    SAME_INT(job->known[0].n, 2);
    assert_true(page_digest_eq(&job->known[0].at[0], &known.at[0]));
    assert_true(page_digest_eq(&job->known[0].at[1], &known.at[1]));
    encode(&b, a, sample_ready);
    SAME_INT(ready_decode(&ready, a, (struct text){b.at, b.len}, &err), ST_OK);
    SAME_TEXT(ready->instance, TEXT_LIT("fetcher-1"));
    SAME_INT(ready->capacity, UINT32_MAX);
    assert_true(ready->n_held == 1 && uuid_eq(&ready->held[0], &job_id));
    encode(&b, a, sample_done);
    SAME_INT(done_decode(&done, a, (struct text){b.at, b.len}, &err), ST_OK);
    assert_true(done->n_ends == 1 && uuid_eq(&done->job_id, &job_id));
    SAME_INT(done->ends[0].window, 63);
    SAME_INT(done->ends[0].ending, END_BAD_WINDOW);
    SAME_INT(done->ends[0].pages, 4);
    SAME_INT(done->ends[0].complete_us, 9);
    SAME_INT(done->ends[0].requests, 5);
    SAME_INT(done->ends[0].bytes, INT64_MAX);
    SAME_INT(done->ends[0].http_status, 429);
    SAME_INT(done->ends[0].retry_after_s, 60);
    SAME_TEXT(done->ends[0].detail, TEXT_LIT("wait a minute"));
    SAME_INT(done->ends[0].n_same, 1);
    SAME_INT(done->ends[0].same[0].seq, 3);
    SAME_INT(done->ends[0].same[0].known, 7);
    SAME_INT(done->ends[0].same[0].complete_us, 8);
    arena_free(&a);
}

static void pages_and_acks_come_back(void **state)
{
    struct arena *a = arena_new();
    struct err err = {0};
    const struct text bodies = TEXT_LIT("{\"data\":[]}{}");
    const struct page two[] = {{.asked = asked, .body = {"", 11}},
                               {.asked = asked, .body = {"", 2}}};
    const struct pages *pages;
    const struct acks *acks;
    struct buf b;

    (void)state;
    encode(&b, a, sample_pages);
    SAME_INT(
        pages_decode(&pages, a, (struct text){b.at, b.len}, (struct text){bodies.at, 11}, &err),
        ST_OK);
    same_origin(&pages->origin);
    SAME_INT(pages->n_pages, 1);
    SAME_INT(pages->pages[0].window, 1);
    SAME_INT(pages->pages[0].seq, 2);
    same_window(&pages->pages[0].asked);
    SAME_INT(pages->pages[0].complete_us, 3);
    assert_true(pages->pages[0].last);
    assert_true(page_digest_eq(&pages->pages[0].digest, &digest));
    assert_ptr_equal(pages->pages[0].body.at, bodies.at);
    b = (struct buf){.arena = a};
    pages_encode_head(&b, &(struct pages){.origin = ORIGIN, .pages = two, .n_pages = 2});
    SAME_INT(pages_decode(&pages, a, (struct text){b.at, b.len}, bodies, &err), ST_OK);
    assert_ptr_equal(pages->bodies.at, bodies.at);
    SAME_TEXT(pages->pages[0].body, TEXT_LIT("{\"data\":[]}"));
    SAME_TEXT(pages->pages[1].body, TEXT_LIT("{}"));
    for (size_t n = 0; n < 15; n++) { /* 13 are told of */
        struct text some = {"0123456789abcdef", n};
        enum status want = n == 13 ? ST_OK : ST_REJECT;
        SAME_INT(pages_decode(&pages, a, (struct text){b.at, b.len}, some, &err), want);
        assert_true(want == ST_OK || has_words("sizes", err.text, "their sizes"));
    }
    encode(&b, a, sample_acks);
    SAME_INT(acks_decode(&acks, a, (struct text){b.at, b.len}, &err), ST_OK);
    assert_true(acks->n_acks == 1 && uuid_eq(&acks->acks[0].job_id, &job_id));
    SAME_INT(acks->acks[0].window, 1);
    SAME_INT(acks->acks[0].seq, UINT32_MAX);
    SAME_INT(acks->acks[0].fate, PAGE_DEAD);
    SAME_INT(acks->acks[0].complete_us, 4);
    SAME_INT(acks->acks[0].inserted, 5);
    SAME_INT(acks->acks[0].updated, 6);
    SAME_INT(acks->acks[0].removed, 7);
    SAME_INT(acks->acks[0].unchanged, 8);
    SAME_TEXT(acks->acks[0].detail, TEXT_LIT("not JSON"));
    assert_true(page_digest_eq(&acks->acks[0].digest, &digest));
    arena_free(&a);
}

static void records_come_back(void **state)
{
    struct arena *a = arena_new();
    struct err err = {0};
    const struct records *records;
    const struct record_page *p;
    const struct record *r;
    struct buf b;

    (void)state;
    encode(&b, a, sample_records);
    SAME_INT(records_decode(&records, a, (struct text){b.at, b.len}, &err), ST_OK);
    same_origin(&records->origin);
    SAME_INT(records->n_pages, 1);
    p = &records->pages[0];
    SAME_INT(p->window, 1);
    SAME_INT(p->seq, 2);
    same_window(&p->asked);
    SAME_INT(p->complete_us, 3);
    assert_true(p->n_spans == 1 && p->spans[0].from_us == 1 && p->spans[0].to_us == 2);
    SAME_TEXT(p->dead.reason, TEXT_NULL);
    SAME_TEXT(p->dead.json_path, TEXT_NULL);
    SAME_INT(p->n_bad_rows, 1);
    SAME_TEXT(p->bad_rows[0].reason, TEXT_LIT("not a number"));
    SAME_TEXT(p->bad_rows[0].json_path, TEXT_LIT("$.data[0]"));
    SAME_TEXT(p->bad_rows[0].body, TEXT_LIT("{}"));
    assert_true(page_digest_eq(&p->digest, &digest));
    SAME_INT(p->n_records, 1);
    r = &p->records[0];
    SAME_INT(r->bucket_start_us, 5);
    SAME_INT(r->bucket_seconds, 3600);
    SAME_INT(r->batch, TRI_FALSE);
    SAME_INT(r->counts[COUNT_INPUT_TOKENS], INT64_MAX);
    SAME_INT(r->counts[COUNT_NUM_REQUESTS], 0);
    SAME_INT(r->counts[COUNT_OUTPUT_TOKENS], COUNT_NULL);
    SAME_TEXT(r->texts[TEXT_MODEL], TEXT_LIT(""));
    SAME_TEXT(r->texts[TEXT_PROJECT_ID], TEXT_NULL);
    SAME_TEXT(r->texts[TEXT_COST_AMOUNT], TEXT_LIT("0.1000000000000000000000000001"));
    arena_free(&a);
}

static int append_bytes(void *buf, const char *bytes, size_t len)
{
    buf_append(buf, bytes, len);
    return 0;
}

/* What msgpack's own packer makes of a record, byte for byte. */
static void packed_by_msgpack(struct buf *out, const struct record *r)
{
    msgpack_packer pk;

    msgpack_packer_init(&pk, out, append_bytes);
    msgpack_pack_array(&pk, 5 + N_RECORD_COUNTS + N_RECORD_TEXTS);
    msgpack_pack_int64(&pk, r->bucket_start_us);
    msgpack_pack_uint32(&pk, r->bucket_seconds);
    msgpack_pack_bin(&pk, sizeof(r->row_key));
    msgpack_pack_bin_body(&pk, r->row_key, sizeof(r->row_key));
    msgpack_pack_int64(&pk, r->row_hash);
    msgpack_pack_int8(&pk, r->batch);
    for (size_t i = 0; i < N_RECORD_COUNTS; i++) {
        if (r->counts[i] == COUNT_NULL)
            msgpack_pack_nil(&pk);
        else
            msgpack_pack_int64(&pk, r->counts[i]);
    }
    for (size_t i = 0; i < N_RECORD_TEXTS; i++) {
        if (r->texts[i].at) {
            msgpack_pack_str(&pk, r->texts[i].len);
            msgpack_pack_str_body(&pk, r->texts[i].at, r->texts[i].len);
        } else {
            msgpack_pack_nil(&pk);
        }
    }
}

static void check_record_bytes(struct arena *a, const struct record *record)
{
    struct record_page page = {.asked = asked, .records = record, .n_records = 1};
    struct buf got = {.arena = a}, want = {.arena = a};

    records_encode(&got, &(struct records){.origin = ORIGIN, .pages = &page, .n_pages = 1});
    packed_by_msgpack(&want, record);
    assert_non_null(memmem(got.at, got.len, want.at, want.len));
    assert_int_equal(got.at[got.len], '\0');
    arena_reset(a);
}

/* Around each length at which msgpack takes another form. */
static void records_are_written_as_msgpack_would(void **state)
{
    static const int64_t edges[] = {
        0,     32,    127,       128,        255,       256,          32767, 32768,
        65535, 65536, INT32_MAX, UINT32_MAX, INT64_MAX, -1,           -32,   -33,
        -128,  -129,  -32768,    -32769,     INT32_MIN, INT64_MIN + 1};
    static const size_t lengths[] = {0, 1, 31, 32, 255, 256, 65535, 65536};
    static char letters[65536];
    struct arena *a = arena_new();
    struct record r;

    (void)state;
    memset(letters, 'x', sizeof(letters));
    record_clear(&r);
    memset(r.row_key, 0xa5, sizeof(r.row_key));
    for (size_t i = 0; i < ROWS(edges); i++) {
        for (int64_t near = edges[i] < INT64_MIN + 2 ? 0 : -1; near <= (edges[i] < INT64_MAX);
             near++) {
            r.counts[COUNT_INPUT_TOKENS] = r.bucket_start_us = r.row_hash = edges[i] + near;
            r.bucket_seconds = (uint32_t)edges[i];
            r.batch = edges[i] % 2 ? TRI_TRUE : TRI_NULL;
            check_record_bytes(a, &r);
        }
    }
    for (size_t i = 0; i < ROWS(lengths); i++) {
        r.texts[TEXT_MODEL] = r.texts[TEXT_EXTRA] = (struct text){letters, lengths[i]};
        check_record_bytes(a, &r);
    }
    arena_free(&a);
}

/* ---- ids and endings ---- */

static const struct {
    const char *name, *text;
    bool want;
} uuid_cases[] = {
    {"lower case", "01020304-0506-4708-890a-0b0c0d0e0f10", true},
    {"upper case", "FFFFFFFF-FFFF-4FFF-8FFF-FFFFFFFFFFFF", true},
    {"of zeros", "00000000-0000-0000-0000-000000000000", true},
    {"empty", "", false},
    {"too short", "01020304-0506-4708-890a-0b0c0d0e0f1", false},
    {"too long", "01020304-0506-4708-890a-0b0c0d0e0f100", false},
    {"in braces", "{1020304-0506-4708-890a-0b0c0d0e0f1}", false},
    {"no hyphens", "0102030405064708890a0b0c0d0e0f100000", false},
    {"a hyphen too many", "01020304-0506-4708-890a-0b0c-d0e0f10", false},
    {"no hex digit", "01020304-0506-4708-890a-0b0c0d0e0f1g", false},
    {"a blank", "01020304-0506-4708-890a-0b0c0d0e0f1 ", false},
};

static void uuids(void **state)
{
    struct uuid u, other;
    char text[37];
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(uuid_cases); i++)
        good &= same_int(uuid_cases[i].name, uuid_parse(&u, text_of(uuid_cases[i].text)),
                         uuid_cases[i].want);
    good &= same_int("null", uuid_parse(&u, TEXT_NULL), false);
    good &= same_str("format", uuid_format(text, &job_id), uuid_cases[0].text);
    assert_true(good);
    for (int i = 0; i < 1000; i++) {
        uuid_random(&u);
        uuid_random(&other);
        assert_false(uuid_eq(&u, &other));
        assert_int_equal(u.at[6] >> 4, 4);
        assert_int_equal(u.at[8] >> 6, 2);
        assert_true(u.at[0] != 0); /* ZeroMQ would refuse it as a routing id */
        assert_true(uuid_parse(&other, text_of(uuid_format(text, &u))));
        assert_true(uuid_eq(&u, &other));
    }
}

static const struct {
    const char *name;
    enum ending ending;
    bool partial, auth;
} ending_cases[] = {
    {"ok", END_OK, false, false},
    {"page_cap", END_PAGE_CAP, true, false},
    {"deadline", END_DEADLINE, true, false},
    {"stopped", END_STOPPED, true, false},
    {"auth_invalid", END_AUTH_INVALID, false, true},
    {"scope_missing", END_SCOPE_MISSING, false, true},
    {"wrong_key_kind", END_WRONG_KEY_KIND, false, true},
    {"rate_limited", END_RATE_LIMITED, false, false},
    {"provider_error", END_PROVIDER_ERROR, false, false},
    {"timeout", END_TIMEOUT, false, false},
    {"tls", END_TLS, false, false},
    {"dns", END_DNS, false, false},
    {"protocol", END_PROTOCOL, false, false},
    {"too_large", END_TOO_LARGE, false, false},
    {"bad_window", END_BAD_WINDOW, false, false},
};

static void endings(void **state)
{
    bool good = ROWS(ending_cases) == N_ENDINGS;

    (void)state;
    for (size_t i = 0; i < ROWS(ending_cases); i++) {
        enum ending e = ending_cases[i].ending;
        good &= same_int("order", e, (int64_t)i); /* it is on the wire */
        good &= same_str("name", ending_name(e), ending_cases[i].name);
        good &= same_int(ending_cases[i].name, ending_is_partial(e), ending_cases[i].partial);
        good &= same_int(ending_cases[i].name, ending_is_auth(e), ending_cases[i].auth);
    }
    assert_true(good);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(job_ready_done_come_back),
        cmocka_unit_test(pages_and_acks_come_back),
        cmocka_unit_test(records_come_back),
        cmocka_unit_test(records_are_written_as_msgpack_would),
        cmocka_unit_test(every_element_is_checked),
        cmocka_unit_test(every_array_has_its_length),
        cmocka_unit_test(ranges),
        cmocka_unit_test(torn_and_flipped),
        cmocka_unit_test(aliens),
        cmocka_unit_test(uuids),
        cmocka_unit_test(endings),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
