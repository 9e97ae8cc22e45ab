/* sim.h - the simulator's state, and how a request becomes an answer.
 *
 *   HTTP --> main.c --> serve.c --> openai.c, anthropic.c (their paths) --> ledger.c,
 *              |            |                                              ledger_anthropic.c
 *              |            '--> fault.c (what is to go wrong)
 *              '------> control.c (/_sim/...), dump.c (/_sim/ledger)
 *
 * One thread and one epoll descriptor; delayed answers are suspended connections with a timer. */
#ifndef SIM_SIM_H
#define SIM_SIM_H

#include <microhttpd.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/sim/buf.h"
#include "tests/sim/ledger.h"

#define MAX_STATUSES 12
#define LOG_LEN      20000

/* What is known of an account beyond the ledger; made when it is first asked for. */
struct account {
    unsigned denied;     /* DIM-like bits, one a feed: 403 */
    bool revoked;        /* every key of it: 401 */
    uint32_t generation; /* of the key; a reissued key ends the older ones */
    uint32_t in_flight, max_in_flight;
    int64_t minute; /* of the rate limit, and what it has used of it */
    int64_t in_minute;
    struct {
        unsigned status;
        uint64_t n;
    } counts[N_FEEDS][MAX_STATUSES];
};

struct timer {
    int64_t at_ms;
    struct MHD_Connection *resume;
    struct timer *next;
};

/* One past request, for tests that ask what was sent. */
struct logged {
    uint32_t account;
    unsigned status;
    char *uri;
};

struct options {
    bool refuse_future;       /* an end_time after the clock: 400 */
    bool no_gzip;             /* answer plainly whatever Accept-Encoding says */
    int64_t token_life_s;     /* 0 = for ever */
    int64_t rate_per_minute;  /* requests per key; 0 = no limit. Real minutes, not the clock's. */
    int64_t costs_page_limit; /* most buckets that a page of costs holds whatever was asked */
};

struct fault;
struct sim {
    struct ledger ledger;
    struct options options;
    int64_t clock_us;  /* UTC: of the clock, when it was last set */
    int64_t set_at_us; /* monotonic, of that moment; 0: the clock is frozen */
    struct account **accounts;
    struct fault *faults;
    uint64_t fault_serial;
    struct alias *aliases;
    struct timer *timers;
    struct MHD_Daemon *daemon;
    struct {
        uint64_t requests, connections, open, max_open, tokens_issued, tokens_used, tokens_refused;
    } stats;
    struct logged log[LOG_LEN];
    uint64_t n_logged;
    uint64_t request_serial;
};

enum send_how {
    SEND_WHOLE,
    SEND_CUT_OFF, /* Content-Length promises more than comes, then the connection is closed */
    SEND_RESET,   /* the same, closed by RST */
    SEND_DRIP,    /* `chunk` bytes every `interval_ms` */
    SEND_NOTHING, /* the connection is closed without an answer */
};

struct answer {
    enum provider_id provider; /* whose error envelope and headers it has */
    char request_id[32];
    unsigned status;
    const char *content_type;
    struct buf body;
    bool plain;   /* never compress */
    bool gzipped; /* the body is gzip already */
    struct {
        char *name, *value;
    } headers[12];
    size_t n_headers;
    enum send_how how;
    size_t send_len; /* CUT_OFF, RESET: so many bytes of the body */
    size_t chunk;
    int64_t interval_ms, delay_ms, date_offset_s;
};

/* One HTTP request, from its first line until its connection is done with it. */
struct call {
    struct sim *sim;
    struct MHD_Connection *connection;
    char *uri;        /* as sent */
    const char *path; /* decoded, without query */
    const char *method;
    struct buf upload;
    struct account *account; /* NULL: not authenticated */
    uint32_t account_number;
    struct MHD_Response *response; /* built; waits for its delay */
    unsigned status;
    bool drop, seen;
};

int64_t sim_now(const struct sim *s);
int64_t monotonic_us(void);
struct account *sim_account(struct sim *s, uint32_t number);
void sim_key(const struct sim *s, uint32_t number, uint32_t generation, char out[64]);
void sim_log(struct sim *s, const struct call *c, unsigned status);
/* Resumes the (suspended) connection after delay_ms. */
void sim_resume_after(struct sim *s, struct MHD_Connection *connection, int64_t delay_ms);

void answer_header(struct answer *a, const char *name, const char *value);
/* The provider's error envelope; param and code, which only OpenAI's has, may be NULL. */
void answer_error(struct answer *a, unsigned status, const char *param, const char *code,
                  const char *message);
void answer_free(struct answer *a);

/* /organization/..., /v1/organizations/...: fills the answer, faults included. */
void api_answer(struct call *c, struct answer *a);
void api_forget_aliases(struct sim *s);
/* /_sim/...: fills the answer; or returns a response that streams, which is then used instead. */
struct MHD_Response *control_answer(struct call *c, struct answer *a);
struct MHD_Response *dump_response(struct call *c, struct answer *a);
int feed_by_name(const char *name); /* -1: none */

#endif
