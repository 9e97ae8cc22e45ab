#include "fetcher/schedulers.h"

#include <stdlib.h>

#include "common/arena.h"
#include "common/clock.h"

struct scheduler {
    uint64_t name;
    void *socket;
    uv_poll_t *poll;
    bool owed; /* a `ready` */
};

struct schedulers {
    uv_loop_t *loop;
    struct link *link;
    uint64_t generation;
    uint64_t last_name;
    struct scheduler *all; /* in the link's order */
    size_t n;
    size_t next; /* whose turn it is to be received from */
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

static void watch(struct schedulers *s, struct scheduler *of)
{
    int fd = -1;
    size_t len = sizeof(fd);

    of->poll = xalloc(1, sizeof(*of->poll));
    if (zmq_getsockopt(of->socket, ZMQ_FD, &fd, &len) < 0 ||
        uv_poll_init(s->loop, of->poll, fd) < 0) {
        free(of->poll);
        of->poll = NULL; /* the turn of each second still looks */
        return;
    }
    (void)uv_poll_start(of->poll, UV_READABLE, on_wake);
}

static void unwatch(struct scheduler *of)
{
    if (!of->poll)
        return;
    (void)uv_poll_stop(of->poll);
    uv_close((uv_handle_t *)of->poll, free_handle);
    of->poll = NULL;
}

/* The set of sockets has changed: keeps those that are still there. The gone ones' descriptors must
 * leave the loop now, before their numbers are given to others. */
static void follow(struct schedulers *s)
{
    size_t n = link_n_sockets(s->link);
    struct scheduler *now = xalloc(n, sizeof(*now));

    for (size_t i = 0; i < n; i++) {
        void *socket = link_socket(s->link, i);
        for (size_t k = 0; k < s->n && !now[i].socket; k++) {
            if (s->all[k].socket != socket)
                continue;
            now[i] = s->all[k];
            s->all[k] = (struct scheduler){0};
        }
    }
    for (size_t k = 0; k < s->n; k++)
        unwatch(&s->all[k]);
    for (size_t i = 0; i < n; i++) {
        if (now[i].socket)
            continue;
        now[i] = (struct scheduler){
            .name = ++s->last_name, .socket = link_socket(s->link, i), .owed = true};
        watch(s, &now[i]);
    }
    free(s->all);
    s->all = now;
    s->n = n;
    s->next = 0;
    s->generation = link_generation(s->link);
}

enum status schedulers_open(struct schedulers **out, uv_loop_t *loop, void *zmq,
                            const struct config *cfg, struct err *err)
{
    struct schedulers *s = xalloc(1, sizeof(*s));

    *out = s;
    s->loop = loop;
    TRY(link_open(&s->link, zmq, LINK_JOBS_IN, cfg, TEXT_NULL, err));
    follow(s);
    return ST_OK;
}

void schedulers_close(struct schedulers **schedulers)
{
    struct schedulers *s = *schedulers;

    if (!s)
        return;
    for (size_t i = 0; i < s->n; i++)
        unwatch(&s->all[i]);
    link_close(&s->link);
    free(s->all);
    free(s);
    *schedulers = NULL;
}

void schedulers_refresh(struct schedulers *s, int64_t mono_us)
{
    if (mono_us < link_deadline_us(s->link))
        return;
    link_refresh(s->link, mono_us);
    if (link_generation(s->link) != s->generation) {
        follow(s);
        schedulers_owe_ready(s); /* the capacity is shared anew */
    }
}

int64_t schedulers_deadline_us(const struct schedulers *s)
{
    return link_deadline_us(s->link);
}

size_t schedulers_count(const struct schedulers *s)
{
    return s->n;
}

uint64_t schedulers_name(const struct schedulers *s, size_t i)
{
    return s->all[i].name;
}

static bool has_event(void *socket, int event)
{
    int events = 0;
    size_t len = sizeof(events);

    return zmq_getsockopt(socket, ZMQ_EVENTS, &events, &len) == 0 && (events & event);
}

enum status schedulers_receive(struct schedulers *s, struct msg *out, uint64_t *from,
                               struct err *err)
{
    for (size_t tried = 0; tried < s->n; tried++) {
        size_t i = s->next;
        s->next = (i + 1) % s->n;
        *from = s->all[i].name;
        if (has_event(s->all[i].socket, ZMQ_POLLIN))
            return link_recv(s->link, i, out, err);
    }
    return ST_RETRY;
}

enum status schedulers_send(struct schedulers *s, uint64_t to, struct text message, struct err *err)
{
    for (size_t i = 0; i < s->n; i++)
        if (s->all[i].name == to)
            return link_send(s->link, i, &message, 1, err);
    return err_set(err, ST_REJECT, "the scheduler is gone");
}

void schedulers_owe_ready(struct schedulers *s)
{
    for (size_t i = 0; i < s->n; i++)
        s->all[i].owed = true;
}

bool schedulers_owed(const struct schedulers *s, size_t i)
{
    return s->all[i].owed;
}

void schedulers_paid(struct schedulers *s, size_t i)
{
    s->all[i].owed = false;
}

bool schedulers_can_pay(const struct schedulers *s)
{
    for (size_t i = 0; i < s->n; i++)
        if (s->all[i].owed && has_event(s->all[i].socket, ZMQ_POLLOUT))
            return true;
    return false;
}
