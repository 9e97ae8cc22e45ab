#include "gateway/questions.h"

#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "common/clock.h"
#include "common/link.h"
#include "common/reply.h"

#define MESSAGES_A_TURN 100

struct question {
    struct question *next;
    uint64_t number;
    char *request; /* NULL once it is sent */
    int64_t deadline_us;
    question_heard *heard;
    void *arg;
};

struct questions {
    const struct config *cfg;
    struct link *link;
    uv_poll_t *poll;
    uv_timer_t *alarm;
    struct question *first;
    uint64_t last_number;
    struct arena *memory; /* of one answer */
};

static void free_handle(uv_handle_t *handle)
{
    free(handle);
}

/* ZeroMQ's descriptor says only "look again", and says it once: each turn of the loop looks. */
static void on_wake(uv_poll_t *poll, int status, int events)
{
    (void)poll;
    (void)status;
    (void)events;
}

static void on_alarm(uv_timer_t *timer)
{
    (void)timer; /* a turn follows */
}

enum status questions_open(struct questions **out, uv_loop_t *loop, void *zmq_ctx,
                           const struct config *cfg, struct err *err)
{
    struct questions *c = xalloc(1, sizeof(*c));
    size_t len = sizeof(int);
    int fd = -1;

    *out = c;
    c->cfg = cfg;
    c->memory = arena_new();
    c->alarm = xalloc(1, sizeof(*c->alarm));
    (void)uv_timer_init(loop, c->alarm);
    TRY(link_open(&c->link, zmq_ctx, LINK_CONTROL_OUT, cfg, TEXT_NULL, err));
    if (zmq_getsockopt(link_socket(c->link, 0), ZMQ_FD, &fd, &len) < 0)
        return err_set(err, ST_RETRY, "no descriptor: %s", zmq_strerror(zmq_errno()));
    c->poll = xalloc(1, sizeof(*c->poll));
    if (uv_poll_init(loop, c->poll, fd) < 0) {
        free(c->poll);
        c->poll = NULL;
        return err_set(err, ST_RETRY, "a descriptor can not be watched");
    }
    (void)uv_poll_start(c->poll, UV_READABLE, on_wake);
    return ST_OK;
}

static void question_free(struct question *q)
{
    free(q->request);
    free(q);
}

void questions_close(struct questions **at)
{
    struct questions *c = *at;

    if (!c)
        return;
    while (c->first) {
        struct question *q = c->first;

        c->first = q->next;
        question_free(q);
    }
    if (c->poll) {
        (void)uv_poll_stop(c->poll);
        uv_close((uv_handle_t *)c->poll, free_handle);
    }
    uv_close((uv_handle_t *)c->alarm, free_handle);
    link_close(&c->link);
    arena_free(&c->memory);
    free(c);
    *at = NULL;
}

void question_ask(struct questions *c, struct text request, question_heard *heard, void *arg)
{
    struct question *q = xalloc(1, sizeof(*q)), **last = &c->first;

    q->number = ++c->last_number;
    q->request = xalloc(request.len + 1, 1);
    memcpy(q->request, request.at, request.len);
    q->deadline_us = clock_mono_us() + QUESTION_FIND_US;
    q->heard = heard;
    q->arg = arg;
    while (*last)
        last = &(*last)->next;
    *last = q;
    (void)uv_timer_start(c->alarm, on_alarm, 0, 0);
}

/* ---- each turn ---- */

static void send_questions(struct questions *c, int64_t now_us)
{
    struct err ignored;

    for (struct question *q = c->first; q && link_writable(c->link); q = q->next) {
        const struct text frames[] = {
            {(const char *)&q->number, sizeof(q->number)}, TEXT_LIT(""), text_of(q->request)};

        if (!q->request)
            continue;
        if (link_send(c->link, 0, frames, 3, &ignored) != ST_OK)
            return;
        free(q->request);
        q->request = NULL;
        q->deadline_us = now_us + QUESTION_ANSWER_US;
    }
}

/* Takes the question that a message answers off the list. */
static struct question *answered(struct questions *c, struct text number)
{
    struct question **link = &c->first, *q;

    while (*link && (number.len != sizeof((*link)->number) ||
                     memcmp(number.at, &(*link)->number, number.len) != 0))
        link = &(*link)->next;
    q = *link;
    if (q)
        *link = q->next;
    return q;
}

static void hear(struct questions *c, struct question *q, struct text body)
{
    const struct json *reply;
    struct err err = {0};
    enum status st = reply_read(&reply, c->memory, body, &err);

    q->heard(q->arg, st, st == ST_OK ? reply : NULL, &err);
}

static void receive_answers(struct questions *c)
{
    struct err ignored;
    struct msg msg;

    for (int i = 0; i < MESSAGES_A_TURN; i++) {
        enum status st = link_recv(c->link, 0, &msg, &ignored);
        struct question *q;

        if (st == ST_RETRY)
            return;
        if (st != ST_OK)
            continue;
        q = msg.n == 3 ? answered(c, msg_frame(&msg, 0)) : NULL;
        if (q) {
            hear(c, q, msg_frame(&msg, 2));
            question_free(q);
            arena_reset(c->memory);
        }
        msg_clear(&msg);
    }
    (void)uv_timer_start(c->alarm, on_alarm, 0, 0); /* there may be more */
}

static void give_up(struct questions *c, int64_t now_us)
{
    struct question **link = &c->first;

    while (*link) {
        struct question *q = *link;
        struct err err;

        if (now_us < q->deadline_us) {
            link = &q->next;
            continue;
        }
        *link = q->next;
        if (q->request)
            (void)err_set(&err, ST_RETRY, "no scheduler answers at %s: is uf-scheduler running?",
                          c->cfg->control);
        else
            (void)err_set(&err, ST_RETRY,
                          "the scheduler took the request and did not answer in time; whether it "
                          "was done shows in /api/v1/runs");
        q->heard(q->arg, ST_RETRY, NULL, &err);
        question_free(q);
        link = &c->first; /* what was heard may have asked more */
    }
}

void questions_turn(struct questions *c, int64_t now_us)
{
    int64_t next;

    link_refresh(c->link, now_us);
    receive_answers(c);
    send_questions(c, now_us);
    receive_answers(c); /* the descriptor tells of nothing that sending has already seen */
    give_up(c, now_us);
    next = link_deadline_us(c->link);
    for (const struct question *q = c->first; q; q = q->next)
        if (q->deadline_us < next)
            next = q->deadline_us;
    next = next > now_us ? (next - now_us) / US_PER_MS + 1 : 0;
    if (!uv_is_active((uv_handle_t *)c->alarm) || uv_timer_get_due_in(c->alarm) > (uint64_t)next)
        (void)uv_timer_start(c->alarm, on_alarm, (uint64_t)next, 0);
}
