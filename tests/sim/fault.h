/* fault.h - what is to go wrong: rules that pick requests, and what happens to those. */
#ifndef SIM_FAULT_H
#define SIM_FAULT_H

#include <jansson.h>

#include "tests/sim/sim.h"

enum fault_do {
    DO_NOTHING, /* only what every rule can have: delay_ms, headers */
    DO_STATUS,
    DO_DROP,
    DO_RESET,
    DO_TRUNCATE,
    DO_CUT,
    DO_DRIP,
    DO_CURSOR,
    DO_EMPTY_PAGE,
    DO_EXPIRED,
    DO_FIELD,
    DO_ADD_FIELDS,
    DO_DUPLICATE_BUCKET,
    DO_REVERSE_BUCKETS,
    DO_DUPLICATE_ROWS,
    DO_SPLIT_ROWS,
    DO_BOMB,
    DO_HUGE,
    DO_DATE,
    N_FAULT_DOS,
};

enum cursor_mode {
    CURSOR_NULL,
    CURSOR_ABSENT,
    CURSOR_EMPTY,
    CURSOR_SAME,
    CURSOR_ALTERNATE,
    CURSOR_LITERAL,
    CURSOR_NUMBER,
    N_CURSOR_MODES,
};

struct fault {
    uint64_t serial;
    /* which requests */
    int64_t account; /* -1 = all */
    int feed;        /* -1 = all */
    int64_t page, page_over, limit_over;
    bool with_token;
    int64_t after, every, times;
    int64_t seen, fired;
    /* what happens */
    enum fault_do what;
    enum cursor_mode cursor;
    unsigned status;
    char *body, *content_type, *name, *raw, *value;
    size_t raw_len;
    struct {
        char *name, *value;
    } headers[8];
    size_t n_headers;
    bool drop_field, quote;
    int64_t row, bytes, chunk, interval_ms, delay_ms, offset_s;
    struct fault *next;
};

/* The rules that hold for one request. */
struct effects {
    const struct fault *at[16];
    size_t n;
};

/* From a rule's JSON; NULL: `problem` says why not. */
struct fault *fault_parse(const json_t *rule, char problem[200]);
void faults_add(struct sim *s, struct fault *f);
void faults_clear(struct sim *s);
json_t *faults_json(const struct sim *s);

struct request_facts {
    uint32_t account;
    int feed;
    int64_t page;  /* 1 = without token */
    int64_t limit; /* -1 = none sent */
    bool token;
};
/* Counts the request against every rule and collects those that fire. */
void faults_match(struct sim *s, const struct request_facts *r, struct effects *out);
const struct fault *effects_find(const struct effects *e, enum fault_do what);

#endif
