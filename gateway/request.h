/* request.h - one HTTP request, from its last byte to its answer.
 *
 * Life: server.c reads it whole (bounded), routes.c hands it to a handler, and the handler calls
 * one answer_ function, at once or when a query or a scheduler has answered; until then the
 * connection sleeps. It ends when the answer is sent or the client has gone; a query of it is
 * dropped then. */
#ifndef UF_GATEWAY_REQUEST_H
#define UF_GATEWAY_REQUEST_H

#include <microhttpd.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/arena.h"
#include "common/json.h"
#include "common/status.h"
#include "common/text.h"
#include "gateway/assets.h"
#include "gateway/gateway.h"
#include "gateway/params.h"
#include "gateway/query.h"
#include "gateway/routes.h"
#include "gateway/spool.h"

#define BODY_MAX ((size_t)16384)

struct request {
    struct request *prev, *next; /* server.c: all that there are */
    struct gateway *gateway;
    struct MHD_Connection *connection;
    struct arena *arena;
    const struct route *route; /* NULL: a file, or nothing */
    const char *method, *path;
    struct text address; /* the client's, without port */
    struct params params;
    struct buf body;
    bool too_large;
    bool handled;   /* the handler has been called */
    bool suspended; /* the connection sleeps */

    void *handler;                        /* the handler's own, in the arena */
    struct query *query;                  /* that runs for it */
    struct spool *spool;                  /* a streamed answer */
    void (*abandoned)(struct request *r); /* the client went while a handler was at work */
    struct request *next_waiter;          /* trigger.c */
    int64_t wait_until_us;
    bool joined;

    unsigned status;
    struct MHD_Response *response; /* set: it is to be sent */
};

/* A request header; null when it was not sent. */
struct text request_header(const struct request *r, const char *name);

/* ---- answers: exactly one of them ---- */

/* Errors by their HTTP status: the code of the JSON follows from it. */
void answer_error(struct request *r, unsigned status, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* 400 for a query parameter; `parameter` may be NULL. */
void answer_bad_parameter(struct request *r, const char *parameter, const struct err *err);
/* 429 and 503: `retry_after_s` becomes Retry-After. */
void answer_later(struct request *r, unsigned status, int64_t retry_after_s, const char *fmt, ...)
    PRINTF_LIKE(4, 5);
/* The query's end, when it was no good one: 400, 503 or 500. */
void answer_query_failed(struct request *r, enum status st, const char *sqlstate,
                         const struct err *err);
void answer_json(struct request *r, unsigned status, struct text body);
void answer_text(struct request *r, unsigned status, const char *type, struct text body);
void answer_redirect(struct request *r, const char *to, const char *set_cookie);
/* 200, or 304 to who has it already. */
void answer_static(struct request *r, const struct asset *file, bool gzip);

/* 200, with what is and will be in r->spool; after the last byte spool_end, and answer_wake each
 * time the spool has something new. `filename` may be NULL. */
void answer_stream(struct request *r, const char *type, const char *filename);
void answer_wake(struct request *r);

#endif
