#include "cli/control.h"

#include <stdlib.h>
#include <zmq.h>

#include "common/clock.h"
#include "common/decimal.h"
#include "common/link.h"
#include "common/reply.h"

#define ANSWER_WAIT_US                                                                             \
    (INT64_C(30) * 1000000) /* a scheduler may be waiting for Postgres itself                      \
                             */

struct control {
    const struct config *cfg;
    void *zmq;
    struct link *link; /* NULL: to be opened */
};

enum status control_open(struct control **out, const struct config *cfg, struct err *err)
{
    struct control *c = xalloc(1, sizeof(*c));

    *out = c;
    c->cfg = cfg;
    c->zmq = zmq_ctx_new();
    if (!c->zmq)
        return err_set(err, ST_RETRY, "no ZeroMQ context: %s", zmq_strerror(zmq_errno()));
    return ST_OK;
}

void control_close(struct control **c)
{
    if (!*c)
        return;
    link_close(&(*c)->link);
    if ((*c)->zmq)
        (void)zmq_ctx_term((*c)->zmq);
    free(*c);
    *c = NULL;
}

/* Until `events` or `deadline_us`. */
static bool wait_for(struct control *c, short events, int64_t deadline_us)
{
    for (;;) {
        zmq_pollitem_t item = {.socket = link_socket(c->link, 0), .events = events};
        int64_t now = clock_mono_us(), until = link_deadline_us(c->link);

        if (now >= deadline_us)
            return false;
        if (until > deadline_us)
            until = deadline_us;
        if (zmq_poll(&item, 1, until > now ? (long)((until - now) / US_PER_MS + 1) : 0) > 0)
            return true;
        link_refresh(c->link, clock_mono_us());
    }
}

/* The empty frame in front is what a REQ socket sends. */
static enum status exchange(struct control *c, struct msg *out, struct text request,
                            int64_t wait_us, struct err *err)
{
    const struct text frames[] = {TEXT_LIT(""), request};

    if (!c->link)
        TRY(link_open(&c->link, c->zmq, LINK_CONTROL_OUT, c->cfg, TEXT_NULL, err));
    if (!wait_for(c, ZMQ_POLLOUT, clock_mono_us() + wait_us))
        return err_set(err, ST_RETRY,
                       "no scheduler answers at %s: is uf-scheduler running, and with this "
                       "UF_RUN_DIR or UF_CONTROL?",
                       c->cfg->control);
    TRY(link_send(c->link, 0, frames, 2, err));
    if (!wait_for(c, ZMQ_POLLIN, clock_mono_us() + ANSWER_WAIT_US))
        return err_set(err, ST_RETRY,
                       "the scheduler took the request and did not answer within %d s; usagectl "
                       "status shows whether it was done",
                       (int)(ANSWER_WAIT_US / US_PER_S));
    return link_recv(c->link, 0, out, err);
}

enum status control_ask(struct control *c, const struct json **answer, struct arena *a,
                        struct text request, int64_t wait_us, struct err *err)
{
    const struct json *reply = NULL;
    struct msg msg = {.n = 0};
    struct text body;
    enum status st = exchange(c, &msg, request, wait_us, err);

    if (st == ST_OK) {
        body = msg_frame(&msg, msg.n - 1);
        body.at = arena_copy(a, body.at, body.len);
        msg_clear(&msg);
        st = reply_read(&reply, a, body, err);
    }
    if (!reply) /* a late answer must not be taken for that of the next request */
        link_close(&c->link);
    if (st == ST_OK)
        *answer = reply;
    return st;
}

int64_t answer_int(const struct json *answer, const char *path)
{
    const struct json *node = json_path(answer, path);
    struct err ignored;
    int64_t v = 0;

    return json_is(node, JSON_NUMBER) && int64_parse(&v, node->text, &ignored) == ST_OK ? v : 0;
}

struct text control_request(struct arena *a, const char *cmd, const char *const (*members)[2])
{
    struct buf b = {.arena = a};
    struct json_writer w = {.out = &b};

    json_w_object(&w);
    json_w_key(&w, "cmd");
    json_w_str(&w, cmd);
    for (; members && (*members)[0]; members++) {
        if (!(*members)[1])
            continue;
        json_w_key(&w, (*members)[0]);
        json_w_str(&w, (*members)[1]);
    }
    json_w_end(&w);
    return (struct text){b.at, b.len};
}
