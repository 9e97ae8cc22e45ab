#include "tests/bench/multi.h"

#include "common/arena.h"
#include "tests/bench/bench.h"

struct watched {
    uv_poll_t poll;
    struct multi *multi;
    curl_socket_t fd;
};

static void harvest(struct multi *m)
{
    const struct CURLMsg *msg;
    int left;

    while ((msg = curl_multi_info_read(m->curl, &left))) {
        CURL *easy = msg->easy_handle;
        long status = 0;
        if (msg->data.result != CURLE_OK)
            give_up(curl_easy_strerror(msg->data.result));
        (void)curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
        if (status != 200)
            give_up("the server does not answer 200");
        (void)curl_multi_remove_handle(m->curl, easy);
        m->answered(m, easy);
    }
}

static void ready(uv_poll_t *poll, int status, int events)
{
    struct watched *w = poll->data;
    int running, flags = (status < 0 ? CURL_CSELECT_ERR : 0) |
                         (events & UV_READABLE ? CURL_CSELECT_IN : 0) |
                         (events & UV_WRITABLE ? CURL_CSELECT_OUT : 0);
    struct multi *m = w->multi;

    (void)curl_multi_socket_action(m->curl, w->fd, flags, &running);
    harvest(m);
}

static void time_is_up(uv_timer_t *timer)
{
    struct multi *m = timer->data;
    int running;

    (void)curl_multi_socket_action(m->curl, CURL_SOCKET_TIMEOUT, 0, &running);
    harvest(m);
}

static int set_timer(CURLM *curl, long ms, void *arg)
{
    struct multi *m = arg;

    (void)curl;
    if (ms < 0)
        (void)uv_timer_stop(&m->timer);
    else
        (void)uv_timer_start(&m->timer, time_is_up, (uint64_t)ms, 0);
    return 0;
}

static void closed(uv_handle_t *handle)
{
    free(handle);
}

static int watch(CURL *easy, curl_socket_t fd, int what, void *arg, void *of)
{
    struct multi *m = arg;
    struct watched *w = of;

    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        if (w)
            uv_close((uv_handle_t *)&w->poll, closed);
        (void)curl_multi_assign(m->curl, fd, NULL);
        return 0;
    }
    if (!w) {
        w = xalloc(1, sizeof(*w));
        *w = (struct watched){.multi = m, .fd = fd};
        (void)uv_poll_init_socket(m->loop, &w->poll, fd);
        w->poll.data = w;
        (void)curl_multi_assign(m->curl, fd, w);
    }
    return uv_poll_start(
        &w->poll,
        (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0), ready);
}

void multi_open(struct multi *m, void (*answered)(struct multi *m, CURL *easy), void *owner)
{
    *m = (struct multi){
        .loop = uv_default_loop(), .curl = curl_multi_init(), .answered = answered, .owner = owner};
    (void)uv_timer_init(m->loop, &m->timer);
    m->timer.data = m;
    (void)curl_multi_setopt(m->curl, CURLMOPT_SOCKETFUNCTION, watch);
    (void)curl_multi_setopt(m->curl, CURLMOPT_SOCKETDATA, m);
    (void)curl_multi_setopt(m->curl, CURLMOPT_TIMERFUNCTION, set_timer);
    (void)curl_multi_setopt(m->curl, CURLMOPT_TIMERDATA, m);
}

void multi_add(struct multi *m, CURL *easy)
{
    if (curl_multi_add_handle(m->curl, easy) != CURLM_OK)
        give_up("curl_multi_add_handle");
}

void multi_run(struct multi *m)
{
    (void)uv_run(m->loop, UV_RUN_DEFAULT);
}

void multi_stop(struct multi *m)
{
    uv_stop(m->loop);
}
