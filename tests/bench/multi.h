/* multi.h - libcurl's multi_socket in a libuv loop and nothing else: what is fetched by it costs
 * the least that a fetcher of ours can come close to. */
#ifndef UF_BENCH_MULTI_H
#define UF_BENCH_MULTI_H

#include <curl/curl.h>
#include <uv.h>

struct multi {
    uv_loop_t *loop;
    uv_timer_t timer;
    CURLM *curl;
    /* A 200 came; anything else ends the program. The handle is free for the next request. */
    void (*answered)(struct multi *m, CURL *easy);
    void *owner;
};

void multi_open(struct multi *m, void (*answered)(struct multi *m, CURL *easy), void *owner);
void multi_add(struct multi *m, CURL *easy);
void multi_run(struct multi *m); /* until multi_stop */
void multi_stop(struct multi *m);

#endif
