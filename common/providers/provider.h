/* provider.h - what the pipeline must know of a provider: tables of feeds and fields, and three
 * small functions.
 *
 * One file a provider and its row in list.c (docs/adding-a-provider.md). `ask`, `peek` (where the
 * next page is, which buckets came) and `refused` are used by the fetcher, the field tables by the
 * normalizer (common/providers/reader.c). */
#ifndef UF_PROVIDER_H
#define UF_PROVIDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/arena.h"
#include "common/json.h"
#include "common/person.h"
#include "common/record.h"
#include "common/secret.h"
#include "common/status.h"
#include "common/wire.h"

/* What one field of a result becomes. */
enum field_use {
    FIELD_TEXT,      /* column `target` (enum record_text), a dimension */
    FIELD_BATCH,     /* the batch column */
    FIELD_DIM,       /* a member of dims, by its own name */
    FIELD_COUNT,     /* column `target` (enum record_count) */
    FIELD_COUNT_ADD, /* added to that column: parts of one total */
    FIELD_QUANTITY,  /* quantity; its unit is `unit`, or the field of FIELD_QUANTITY_UNIT */
    FIELD_QUANTITY_UNIT,
    FIELD_COST, /* cost_amount, after moving the point `target` places to the left; its currency is
                   `unit`, or the field of FIELD_CURRENCY */
    FIELD_CURRENCY,
    FIELD_EXTRA,  /* a number kept in extra, by its name, after moving the point by `target` places
                   */
    FIELD_PERSON, /* an e-mail address: column user_id has its keyed hash (person.h) */
    FIELD_IGNORE, /* known and not needed (object); or a person's name: dropped */
};

/* One member of a result. Several rows of one path that follow each other all get it: a number may
 * be part of a total, and kept by itself. */
struct field {
    const char *path; /* "input_tokens", "amount.value"; "model_breakdown[].model" of a breakdown */
    enum field_use use;
    int target;
    const char *unit;
    const char *name; /* in extra; NULL = its path */
    bool required;
};

/* Counts that contain each other, so that nobody adds a total and its parts. Checked softly: a row
 * that breaks it is stored as the provider reported it, and logged. */
struct identity {
    const char *whole;
    const char *parts[4]; /* NULL-terminated */
    bool exact; /* the parts make the whole (when all are reported); else they are at most it */
};

struct width {
    uint32_t bucket_s;
    const char *name; /* "1h" */
    uint32_t limit;   /* the most buckets that may be asked for at once */
};

struct feed {
    const char *name; /* last part of the path: "completions" */
    const char *path; /* below the base URL: "/organization/usage/completions" */
    const char *const
        *result_objects;         /* accepted `object` values, NULL-terminated; NULL = not checked */
    const char *const *group_by; /* NULL-terminated; NULL = the feed has no groupings */
    const char *const *group_by_old; /* for a window that begins before old_before_s, or when the
                                        provider refuses group_by; NULL = no such limit */
    int64_t old_before_s;
    const struct envelope *envelope;   /* what surrounds the results (reader.h) */
    const struct identity *identities; /* n_identities of them */
    size_t n_identities;
    const struct width *widths; /* ascending; the feed uses the widest that is not above UF_BUCKET,
                                   else its narrowest */
    size_t n_widths;
    const struct field *fields;
    size_t n_fields;
    const char *breakdown; /* an array in a result each element of which is a row of its own, with
                              the result's dimensions; its fields are named "NAME[].…"; or NULL */
    uint32_t question_s; /* one question covers so much of a window, a day for instance; 0 = all of
                            it. Flat feeds (reader.h) need it: it says which buckets they replace */
    uint32_t start_back_s; /* a window begins at least so long before today's start, since the
                              provider refuses a later one; 0 = no such limit */
    uint32_t cadence_s;    /* asked at most this often; 0 = every cycle */
    uint32_t settle_s;     /* a closed bucket is still revised for this long */
    uint32_t lookback_s;   /* how far each cycle reads back behind the watermark */
};

struct provider;

/* Whose figures, and by which key. Both borrowed. */
struct credential {
    const char *base_url;
    const struct secret *key;
};

/* How a window is asked for, apart from its cursor: bound to a token, so kept for all pages of it.
 */
struct ask {
    bool default_limit;    /* without `limit` */
    bool reduced_grouping; /* without the groupings that old windows refuse */
};

/* What one request asks for. All but the cursor stays the same for all of its pages. */
struct question {
    const struct feed *feed;
    struct window window; /* or as much of it as one question covers (feed->question_s) */
    struct ask how;
    struct text cursor; /* the page token; null for the first page */
};

/* One HTTP request. Texts live in the arena; the key is in a header and nowhere else. */
struct request {
    const char *url;
    struct {
        const char *name;
        struct secret value;
    } auth;                 /* header that carries the key; wiped by the caller */
    const char *headers[8]; /* "name: value", NULL-terminated */
};

/* What the fetcher must know of a page before it hands it on. */
struct peek {
    bool has_more;
    struct text cursor;     /* the next page's token; null when !has_more */
    bool any;               /* at least one bucket came */
    int64_t from_us, to_us; /* hull of the buckets, by start and start + width */
    int64_t closed_us;      /* end of the last bucket that is as wide as asked; 0 = none */
    size_t n_results;
};

/* What an HTTP answer that is not 200 means. */
struct refusal {
    enum ending ending;
    bool cursor_expired;  /* ask again from the window's first page */
    bool limit_refused;   /* ask again with the provider's default limit */
    bool narrow_grouping; /* ask again without the grouping that this window is too old for */
    const char *detail;   /* what happened and what to do, for people; in the arena */
};

/* What was odd about a page that was read all the same: for the log, by whoever knows the job. */
struct page_notes {
    size_t repeated_buckets; /* listed twice; the later was taken */
    size_t equal_rows;       /* same key and same measures: one row */
    size_t summed_rows;      /* same key, other measures: added up */
    size_t mixed_units;      /* of those: quantities of different units, so no quantity is stored */
    size_t inconsistent_rows;
    const char *inconsistent_path; /* the first of them; NULL = none */
    bool repaired;                 /* a text held what Postgres can not store */
    size_t people_dropped; /* addresses that became nothing, since there is no key for the hash */
};

/* A page to be read. All borrowed. */
struct raw_page {
    const struct feed *feed;
    const struct page *page;
    const struct people *people;
};

struct provider {
    const char *name;         /* "openai": as in accounts.provider */
    const char *title;        /* "OpenAI": as its users write it */
    const char *base_url;     /* as the vendor's own SDK has it */
    const char *key_help;     /* one line: which key, where to make it */
    const char *key_prefix;   /* which the right kind of key begins with; NULL = not known */
    const char *key_variable; /* environment variable from which `make run` adds an account */
    const struct feed *feeds;
    size_t n_feeds;

    /* How to ask. ST_REJECT: the account's base URL or key can not be used (err says why). */
    enum status (*ask)(struct request *out, struct arena *a, const struct credential *who,
                       const struct question *q, struct err *err);
    /* Where the next page is. Usually reader_peek (reader.h). ST_REJECT: the body is not a page of
     * this provider (ending protocol). */
    enum status (*peek)(struct peek *out, struct arena *a, const struct question *q,
                        struct text body, struct err *err);
    /* Why it refused. Usually some lines before refusal_usual (asking.h). */
    void (*refused)(struct refusal *out, struct arena *a, const struct secret *key,
                    const struct question *q, uint32_t http_status, struct text body);
};

extern const struct provider anthropic_provider;
extern const struct provider openai_provider;

extern const struct provider *const providers[]; /* list.c */
extern const size_t n_providers;

const struct provider *provider_find(struct text name); /* NULL: unknown */
const struct feed *feed_find(const struct provider *p, struct text name);
/* Whether its rows name people: what is stored of them depends on the normalizer's settings. */
bool feed_names_people(const struct feed *f);
/* The width that the feed uses under UF_BUCKET. */
const struct width *feed_width(const struct feed *f, int64_t bucket_s);
/* Whether a base URL may be used: https, or http to loopback, or http to a host that `allow_http`
 * (UF_ALLOW_HTTP: "0", "1" for any, or names with commas between) has; no user, query or fragment.
 * NULL: yes; else why not and what to write instead, in `a`. */
const char *base_url_refused(struct arena *a, const char *url, const char *allow_http);

#endif
