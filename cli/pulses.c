#include "cli/pulses.h"

#include <stdlib.h>
#include <zmq.h>

#include "common/arena.h"
#include "common/clock.h"
#include "common/link.h"
#include "common/log.h"

struct pulses {
    void *zmq;
    struct link *link;
    struct instances *instances;
};

enum status pulses_open(struct pulses **out, const struct config *cfg, struct err *err)
{
    struct pulses *p = xalloc(1, sizeof(*p));

    *out = p;
    p->instances = instances_new();
    p->zmq = zmq_ctx_new();
    if (!p->zmq)
        return err_set(err, ST_RETRY, "no ZeroMQ context: %s", zmq_strerror(zmq_errno()));
    return link_open(&p->link, p->zmq, LINK_PULSE_IN, cfg, TEXT_NULL, err);
}

void pulses_close(struct pulses **p)
{
    if (!*p)
        return;
    link_close(&(*p)->link);
    if ((*p)->zmq)
        (void)zmq_ctx_term((*p)->zmq);
    instances_free(&(*p)->instances);
    free(*p);
    *p = NULL;
}

static void take(struct pulses *p)
{
    enum status st = ST_OK;
    struct err err;
    struct msg m;

    while (st != ST_RETRY) {
        st = link_recv(p->link, 0, &m, &err);
        if (st == ST_OK &&
            instances_take(p->instances, msg_frame(&m, m.n - 1), clock_mono_us(), &err) != ST_OK)
            LOG(WARN, "pulse.refused", KV("error", err.text));
        msg_clear(&m);
    }
}

void pulses_listen(struct pulses *p, int64_t until_us, int wake_fd)
{
    bool go_on = true;

    while (go_on) {
        zmq_pollitem_t items[] = {{.socket = link_socket(p->link, 0), .events = ZMQ_POLLIN},
                                  {.fd = wake_fd, .events = ZMQ_POLLIN}};
        int64_t now = clock_mono_us(), due = link_deadline_us(p->link);
        int64_t wait_us = (due < until_us ? due : until_us) - now;
        int rc = zmq_poll(items, wake_fd >= 0 ? 2 : 1,
                          wait_us > 0 ? (long)(wait_us / US_PER_MS + 1) : 0);
        take(p);
        link_refresh(p->link, clock_mono_us());
        go_on = rc >= 0 && !items[1].revents && clock_mono_us() < until_us;
    }
    (void)instances_forget(p->instances, clock_mono_us());
}

const struct instances *pulses_instances(const struct pulses *p)
{
    return p->instances;
}
