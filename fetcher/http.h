/* http.h - many HTTP requests at once, in a libuv loop: libcurl's multi interface behind a small
 * door.
 *
 * Connections are kept and reused, HTTP/2 is used where the host offers it over TLS, bodies may be
 * compressed, redirects are not followed, certificates are verified, proxies are those of the usual
 * environment variables. A host gets at most `per_host` requests at a time until it has been seen
 * to speak HTTP/2, where one connection carries many; those above wait here and not in libcurl,
 * whose time limits would run meanwhile. */
#ifndef UF_FETCHER_HTTP_H
#define UF_FETCHER_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "common/providers/provider.h"
#include "common/status.h"
#include "fetcher/account.h"

struct http;
struct transfer;

struct http_limits {
    size_t in_flight; /* requests at once, over all hosts */
    size_t per_host;
    size_t max_body; /* bytes after decompression; more is END_TOO_LARGE */
    int64_t timeout_s;
    const char *ca_file; /* trusted beside the system's; NULL: none */
};

/* `answer->body` is the receiver's to take, who then leaves an empty or another one there. The
 * transfer is over when this is called. */
typedef void http_answered(void *arg, struct answer *answer);

/* ST_RETRY: libcurl or the loop refused. ST_FATAL: the file of certificates can not be read. */
enum status http_open(struct http **out, uv_loop_t *loop, const struct http_limits *limits,
                      struct err *err) CHECKED;
/* Drops what is on its way. The loop must run once more for handles to end. Accepts NULL. */
void http_close(struct http **h);

/* Asks, and calls `answered` from the loop, never from within. Copies what it needs of `request`.
 * When its host has no room, it waits in line: `ahead` puts it before the others, for those who
 * have begun and shall come to an end before new ones begin. */
struct transfer *http_get(struct http *h, const struct request *request, bool ahead,
                          http_answered *answered, void *arg);
/* Whether it is on its way, and not only in line for its host. */
bool http_started(const struct transfer *t);
/* `answered` will not be called. */
void http_drop(struct http *h, struct transfer *t);

#endif
