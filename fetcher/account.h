/* account.h - the reading of one account: one job, its windows one after another, page by page.
 *
 *   job -> (request -> answer -> page)... -> bundles of pages -> done
 *
 * It knows nothing of sockets and clocks: whoever drives it asks what it wants, does that, and
 * tells it what came. One request is on its way at a time, because the limits of providers are per
 * credential. Life: opened with a job, closed when it wants nothing more. The key is open from the
 * first request to the last answer and wiped after. */
#ifndef UF_FETCHER_ACCOUNT_H
#define UF_FETCHER_ACCOUNT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/arena.h"
#include "common/backoff.h"
#include "common/providers/provider.h"
#include "common/secret.h"
#include "common/status.h"
#include "common/wire.h"
#include "fetcher/body.h"

#define ACCOUNT_TRIES_MAX    4  /* of one page */
#define ACCOUNT_BUNDLE_PAGES 32 /* a bundle goes off at whichever of the two comes first */
#define ACCOUNT_BUNDLE_BYTES ((size_t)512 * 1024)

struct account;

struct account_rules {
    struct sealer *sealer;                                /* borrowed, for account_open only */
    const struct provider *(*find)(struct text provider); /* provider_find */
    const char *allow_http;
    uint64_t seed; /* of the jitter */
};

/* What came of one request. */
struct answer {
    uint32_t http_status; /* 0: no answer came; `failure`, `lasting` and `error` say why */
    enum ending failure;
    bool lasting; /* trying again now would end the same way */
    const char *error;
    int64_t date_s;  /* the Date header, seconds since the epoch; -1: none */
    int64_t utc_us;  /* this host's clock when it came */
    int64_t took_us; /* from sending the request */
    struct retry_advice advice;
    struct body body;
};

enum account_want {
    WANT_ASK,     /* account_ask, and later account_answer */
    WANT_ANSWER,  /* a request is on its way */
    WANT_TIME,    /* nothing before account_wake_us */
    WANT_SEND,    /* account_pages is to go out before anything more is asked */
    WANT_NOTHING, /* all pages are sent; account_done says how it ended */
};

/* Takes the job in `msg`, whose bytes are copied. A job that can not be read (unknown provider, a
 * key that does not open) is no failure here: its windows have ended and say why.
 * ST_REJECT: `msg` is no job (docs/wire.md). */
enum status account_open(struct account **out, struct text msg, const struct account_rules *rules,
                         int64_t mono_us, struct err *err) CHECKED;
void account_close(struct account **a); /* accepts NULL */

const struct job *account_job(const struct account *a);
/* Tells credentials apart: accounts that have the same one must not be asked for at the same time.
 * 0: the key did not open, and nothing will be asked. */
uint64_t account_credential(const struct account *a);

/* What is to be done now. When the lease runs short it ends its windows by itself. */
enum account_want account_next(struct account *a, int64_t mono_us);
int64_t account_wake_us(const struct account *a); /* monotonic, for WANT_TIME */

/* The next request; its texts live in `turn`, its auth.value is to be wiped by the caller.
 * ST_REJECT: there is none after all, and the windows concerned have ended: ask account_next. */
enum status account_ask(struct account *a, struct request *out, struct arena *turn,
                        struct err *err) CHECKED;
/* May take `answer->body`, and then leaves an empty or another one. `turn`: memory for the time of
 * this call. */
void account_answer(struct account *a, struct answer *answer, struct arena *turn, int64_t mono_us);

/* Whether anything was asked for this job already. */
bool account_has_begun(const struct account *a);
/* The request was never sent: there was no room for it until account_ask_until_us had passed. */
void account_unask(struct account *a);
int64_t account_ask_until_us(const struct account *a); /* monotonic */

/* Asked to stop: nothing more is asked; a request on its way may still be answered. */
void account_stop(struct account *a);
/* Nothing more is waited for, either: the driver has dropped the request. */
void account_abort(struct account *a);

/* The pages in hand, borrowed until account_pages_sent: then `out->bodies`, malloc'ed, is whoever's
 * sent them. */
void account_pages(struct account *a, struct pages *out);
void account_pages_sent(struct account *a);

/* How the windows ended; borrowed. For WANT_NOTHING. */
void account_done(const struct account *a, struct done *out);

#endif
