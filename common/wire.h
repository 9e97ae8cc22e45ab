/* wire.h - the messages between stages: versioned msgpack, bounded, leftovers refused
 * (docs/wire.md).
 *
 * Every message is an array that begins with [version, kind, ...]. Decoders refuse another version,
 * another kind, a missing or surplus element, a value out of range, and bytes left over: ST_REJECT,
 * and err names the field. What a decoder returns borrows the message's bytes, which must outlive
 * it; the rest lives in `a`. */
#ifndef UF_WIRE_H
#define UF_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/arena.h"
#include "common/record.h"
#include "common/status.h"
#include "common/text.h"

#ifndef WIRE_VERSION /* the tests of an upgrade build another */
#define WIRE_VERSION 2
#endif
#define WIRE_WINDOWS_MAX 64         /* windows of one job */
#define WIRE_PAGES_MAX   64         /* pages of one message */
#define WIRE_RECORDS_MAX 1000000    /* records of one message */
#define WIRE_MESSAGE_MAX (64 << 20) /* bytes of one message; ZMQ_MAXMSGSIZE on every link */
#define WIRE_KNOWN_MAX   8          /* pages of one window that a job knows from the last reading */

struct uuid {
    uint8_t at[16];
};
void uuid_random(struct uuid *out);
const char *uuid_format(char out[37], const struct uuid *u);
bool uuid_parse(struct uuid *out, struct text t);
static inline bool uuid_eq(const struct uuid *a, const struct uuid *b)
{
    return memcmp(a->at, b->at, 16) == 0;
}

/* How the reading of a window ended. Only END_OK means that the provider said it is done. */
enum ending {
    END_OK,
    END_PAGE_CAP, /* more is there: our own cap, go on in the next job */
    END_DEADLINE, /* more is there: the lease ran short, go on in the next job */
    END_STOPPED,  /* more is there: the fetcher was asked to stop */
    END_AUTH_INVALID,
    END_SCOPE_MISSING,
    END_WRONG_KEY_KIND,
    END_RATE_LIMITED,
    END_PROVIDER_ERROR,
    END_TIMEOUT,
    END_TLS,
    END_DNS,
    END_PROTOCOL,
    END_TOO_LARGE,
    END_BAD_WINDOW,
    N_ENDINGS,
};
const char *ending_name(enum ending e); /* "ok", "page_cap", ..., as in account_feeds.last_error */
bool ending_is_partial(
    enum ending e);                 /* page_cap, deadline, stopped: no error, but more is there */
bool ending_is_auth(enum ending e); /* auth_invalid, scope_missing, wrong_key_kind */

/* [from, to) of one feed, to be read page by page. to_us == 0: until the provider's now, the open
 * bucket included. Both are multiples of bucket_s. */
struct window {
    struct text feed;
    int64_t from_us, to_us;
    uint32_t bucket_s;
    /* [complete_from_us, complete_us) had been read before: a change of a bucket in there is a
     * revision. 0, 0: none of it. */
    int64_t complete_from_us, complete_us;
};

/* Of what was asked and the bytes that came; once read, also of how they were read (reading_digest,
 * providers/reader.h). All zero: none. */
struct page_digest {
    uint8_t at[16];
};
bool page_digest_is(const struct page_digest *d); /* whether there is one */
static inline bool page_digest_eq(const struct page_digest *a, const struct page_digest *b)
{
    return memcmp(a->at, b->at, sizeof(a->at)) == 0;
}

/* Pages that usage_metrics holds as they were last read. */
struct known_pages {
    struct page_digest at[WIRE_KNOWN_MAX];
    size_t n;
};

/* job: one order to read one account's windows. scheduler -> fetcher */
struct job {
    struct uuid job_id, scheduler_id;
    int64_t account_id;
    int64_t epoch;        /* of the lease: a page that carries an older one is discarded */
    int64_t lease_ms;     /* left when sent; the fetcher stops asking well before (durations, not
                             clocks, cross hosts) */
    struct text account;  /* name: part of the sealed key's associated data */
    struct text provider; /* its name (providers/provider.h) */
    struct text base_url;
    struct text sealed_key;
    uint32_t page_cap;
    const struct window *windows; /* at most one for each feed */
    size_t n_windows;
    const struct known_pages *known; /* one for each window; NULL: none of any */
};
void job_encode(struct buf *out, const struct job *job);
enum status job_decode(const struct job **out, struct arena *a, struct text msg,
                       struct err *err) CHECKED;

/* ready: a fetcher's sign of life and its credit. fetcher -> scheduler, on connect, each second,
 * and at stop (capacity 0). */
struct ready {
    struct text instance;
    uint32_t capacity;       /* jobs it wants to hold from this scheduler at once */
    const struct uuid *held; /* jobs of this scheduler it holds now */
    size_t n_held;
};
void ready_encode(struct buf *out, const struct ready *r);
enum status ready_decode(const struct ready **out, struct arena *a, struct text msg,
                         struct err *err) CHECKED;

/* A page that came as it is known. It goes no further: its rows are in the table already. */
struct same_page {
    uint32_t seq;
    uint32_t known;      /* index into the window's known pages */
    int64_t complete_us; /* as of a page that is sent on */
};

/* done: how each window of a job ended. fetcher -> scheduler */
struct window_end {
    uint32_t window; /* index into the job's windows */
    enum ending ending;
    uint32_t pages; /* numbered 0 .. pages-1: sent on, but for these: */
    const struct same_page *same;
    size_t n_same;         /* at most WIRE_KNOWN_MAX */
    int64_t complete_us;   /* once all pages are acknowledged the feed is complete until here; 0: no
                              progress */
    uint32_t requests;     /* made, retries included */
    uint64_t bytes;        /* of bodies, decompressed */
    uint32_t http_status;  /* of the last answer; 0 = none came */
    int64_t retry_after_s; /* the provider's wish; 0 = none */
    struct text detail;    /* for people: what happened and what to do; redacted; at most 500 bytes;
                              null when ok */
};
struct done {
    struct uuid job_id;
    const struct window_end *ends; /* one for each window of the job */
    size_t n_ends;
};
void done_encode(struct buf *out, const struct done *d);
enum status done_decode(const struct done **out, struct arena *a, struct text msg,
                        struct err *err) CHECKED;

/* What pages and records carry of their job. */
struct origin {
    struct uuid job_id, scheduler_id;
    int64_t account_id;
    int64_t epoch;
    struct text provider;
};

/* pages: raw bodies as received. fetcher -> normalizer. One frame of head, then one frame a body,
 * so that a body is never copied. */
struct page {
    uint32_t window; /* index into the job's windows */
    uint32_t seq;    /* 0, 1, ... within the window */
    struct window asked;
    int64_t
        complete_us; /* with this page and all before it stored, the feed is complete until here */
    bool last;       /* the provider said that no more follows */
    struct page_digest digest;
    struct text body; /* a part of `bodies` below */
};
struct pages {
    struct origin origin;
    const struct page *pages;
    size_t n_pages;
    struct text bodies; /* those of all pages, one after another: the frame after the head */
};
void pages_encode_head(struct buf *out, const struct pages *p);
/* Pages refer to `bodies`, which is not copied. */
enum status pages_decode(const struct pages **out, struct arena *a, struct text head,
                         struct text bodies, struct err *err) CHECKED;

/* records: whole buckets that replace what the table has. normalizer -> writer */
struct span {
    int64_t from_us, to_us;
};
struct dead {
    struct text reason;    /* null: not a dead letter */
    struct text json_path; /* "$.data[3].results[0].amount.value"; may be null */
    struct text body;      /* redacted, at most 64 KiB */
};
struct record_page {
    uint32_t window, seq;
    struct window asked;
    int64_t complete_us;
    const struct span
        *spans; /* buckets the page reported, empty ones too: their rows are replaced */
    size_t n_spans;
    const struct record *records; /* sorted by (bucket_start, row_key), no key twice */
    size_t n_records;
    struct dead dead; /* the page itself, when reason is set: spans and records are then empty */
    const struct dead
        *bad_rows; /* rows set aside, the page's others go in; its window stays owed */
    size_t n_bad_rows;
    struct page_digest digest; /* none when the page may not be taken for known */
};
struct records {
    struct origin origin;
    const struct record_page *pages;
    size_t n_pages;
};
void records_encode(struct buf *out, const struct records *r);
enum status records_decode(const struct records **out, struct arena *a, struct text msg,
                           struct err *err) CHECKED;

/* ack: what became of pages, after COMMIT. writer -> the scheduler that issued the job */
enum page_fate { PAGE_COMMITTED, PAGE_DEAD, PAGE_FENCED };
struct ack {
    struct uuid job_id;
    uint32_t window, seq;
    enum page_fate fate;
    int64_t complete_us; /* the page's own: how far its feed is complete with all pages up to it */
    uint32_t inserted, updated, removed, unchanged;
    struct text detail; /* why dead, at most 500 bytes; else null */
    struct page_digest digest;
};
struct acks {
    const struct ack *acks;
    size_t n_acks;
};
void acks_encode(struct buf *out, const struct acks *a);
enum status acks_decode(const struct acks **out, struct arena *a, struct text msg,
                        struct err *err) CHECKED;

/* pulse: what a process counts (common/pulse.h). any stage -> whoever listens */
#define WIRE_SAMPLES_MAX 4096
#define WIRE_LABELS_MAX  2
#define WIRE_CELLS_MAX   64
struct wire_sample {
    struct text name;
    struct text labels[WIRE_LABELS_MAX];
    size_t n_labels;
    int64_t value; /* of a counter or gauge */
    const int64_t
        *cells;     /* of a histogram: a count for each bucket, then the sum in microseconds */
    size_t n_cells; /* 0: no histogram */
};
struct pulse_message {
    struct text stage, instance, version;
    int64_t pid;
    int64_t started_us; /* UTC, by the sender's clock */
    int64_t uptime_ms;
    bool leaving; /* its last one */
    const struct wire_sample *samples;
    size_t n_samples;
};
void pulse_message_encode(struct buf *out, const struct pulse_message *p);
enum status pulse_message_decode(const struct pulse_message **out, struct arena *a, struct text msg,
                                 struct err *err) CHECKED;

/* The kind of a message, for sockets that carry several; ST_REJECT when it is no message of this
 * version. */
enum wire_kind {
    WIRE_JOB = 1,
    WIRE_READY,
    WIRE_DONE,
    WIRE_PAGES,
    WIRE_RECORDS,
    WIRE_ACKS,
    WIRE_PULSE
};
enum status wire_kind_of(enum wire_kind *out, struct text msg, struct err *err) CHECKED;

#endif
