/* serve.h - what both providers' APIs are made of: queries, page tokens, fields, faults. */
#ifndef SIM_SERVE_H
#define SIM_SERVE_H

#include "tests/sim/fault.h"

struct filter {
    enum dim dim;
    char value[80];
};

#define FILTERS_MAX 64

struct query {
    struct sim *sim;
    struct call *call;
    uint32_t account;
    enum feed_id feed;
    int64_t start, end; /* end -1: open */
    int64_t first;      /* where the first page begins: set by the check */
    bool has_start;
    int64_t width, limit; /* limit -1: the default */
    unsigned group_by;
    struct filter *filters; /* FILTERS_MAX: apart, since nearly all requests have none */
    size_t n_filters;
    const char *page;      /* the token, NULL = first page */
    struct answer *answer; /* holds the first refusal */
};

/* What a page token says: 40 bytes, in base64 as the provider's are. */
struct token {
    int64_t start; /* of the page's first bucket; of a Claude Code day the number of the record */
    int64_t page;
    int64_t issued;
    uint64_t query; /* digest of everything that it is bound to */
    uint64_t seal;
};

struct writer {
    struct buf *b;
    const struct effects *fx;
    const struct query *q;
    struct rows rows;
    int64_t row; /* number of the row on this page */
    bool quoting;
};

struct width {
    const char *name;
    int64_t seconds, max, dflt; /* max, dflt: of `limit` */
};
#define N_WIDTHS 3
extern const struct width widths[N_WIDTHS];

/* What differs between the providers. */
struct api {
    /* Finds the account of the key. False: the answer says why not. */
    bool (*authenticate)(struct call *c, int feed, struct answer *a);
    MHD_KeyValueIterator parse_parameter; /* its first argument is the struct query */
    void (*check)(struct query *q);       /* what needs more than one parameter */
    void (*write_page)(struct query *q, const struct token *t, const struct effects *fx);
};

void openai_answer(struct call *c, struct answer *a);
void anthropic_answer(struct call *c, struct answer *a);
void serve_feed(struct call *c, int feed, const struct api *api, struct answer *a);
/* Whether it is the account's key of now; if so, the call is that account's from here on. */
bool serve_key(struct call *c, unsigned long number, const char *key);

/* The first refusal is the answer; param and code may be NULL. */
void refuse(struct query *q, const char *param, const char *code, const char *message);
/* One value more of a list by which rows are picked; `name` is the list's. */
void add_filter(struct query *q, const char *name, enum dim dim, const char *value);
bool keep_row(const void *query, const struct row *row);

/* Writes `,"name":` unless a fault has the field dropped or its value replaced (false). */
bool field_begin(struct writer *w, const char *name, const char *path);
void field_end(struct writer *w);
/* An object as a member: its members are written between these two. */
size_t object_begin(const struct writer *w);
void object_end(struct writer *w, size_t at);
/* The members that a fault adds, and the end of a row that began at `at`. */
void result_end(struct writer *w, size_t at);
void write_row(struct writer *w, const struct row *row,
               void (*write_result)(struct writer *w, const struct row *row));
/* "has_more" and "next_page", as a fault may have them. */
void write_cursor(struct writer *w, const struct token *here, int64_t next, bool more);

#endif
