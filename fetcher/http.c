#include "fetcher/http.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <curl/curl.h>
#include <openssl/crypto.h>
#include <xxhash.h>

#include "common/arena.h"
#include "common/clock.h"
#include "common/version.h"

/* Cost per request rises with the transfers of one multi handle (limits.md, d). */
#define TRANSFERS_PER_MULTI 128
#define CONNECT_TIMEOUT_S   10L
#define LOW_SPEED_BYTES     1L /* a second, averaged: less is a host that went silent */
#define HEADERS_MAX         ((size_t)128 << 10) /* all header lines of one answer */
#define BODY_KEPT           ((size_t)64 << 10)  /* memory for the next answer, at most */
#define STREAMS_PER_CONN    100                 /* what HTTP/2 servers usually allow */
#define ORIGIN_MAX          300
#define ORIGIN_LEN_MAX      512

struct multi {
    struct http *http;
    CURLM *curl;
    uv_timer_t *timer;
    size_t n_active;
};

/* A descriptor of libcurl's. */
struct watch {
    struct multi *multi; /* waits for it; NULL: none does */
    uint32_t events;     /* that epoll tells of; 0: it is not registered */
    bool connection;     /* its end is told (on_close) */
};

struct host {
    uint64_t origin; /* digest of scheme, name and port */
    size_t n_active;
    bool http2;
    struct transfer *first, *last; /* waiting for their turn */
    struct host *next;
};

struct transfer {
    struct http *http;
    CURL *easy;
    struct multi *multi; /* NULL: waiting for its host */
    struct host *host;
    struct transfer *next; /* in the host's line, or in the pool */
    struct curl_slist *headers;
    http_answered *answered;
    void *arg;
    struct body body;
    size_t headers_len;
    bool too_large, headers_too_large;
    char error[CURL_ERROR_SIZE];
};

struct http {
    uv_loop_t *loop;
    struct http_limits limits;
    CURLSH *share;
    struct multi *multis;
    size_t n_multis;
    int epoll;
    uv_poll_t *ready;      /* of `epoll` */
    struct watch *watches; /* by descriptor */
    size_t n_watches;
    struct host *hosts;
    size_t n_hosts;
    struct transfer *pool;
    struct transfer **all; /* every transfer ever made, for http_close */
    size_t n_all, cap_all;
    bool plain_proxy; /* the environment names one for plain HTTP */
    char date[48];    /* the last Date header */
    int64_t date_s;
    struct body spare; /* what the last answer was in, still in the processor's cache; empty */
};

static void multi_harvest(struct multi *m);

/* ---- libcurl's sockets and timer in the loop ---- */

static void free_handle(uv_handle_t *handle)
{
    free(handle);
}

static void on_timer(uv_timer_t *timer);

/* libcurl's time is finer than the loop's and the loop's stands still during a turn: rounded so
 * that the timer is never early. */
static void arm(struct multi *m, long timeout_ms)
{
    uv_update_time(m->http->loop);
    (void)uv_timer_start(m->timer, on_timer, timeout_ms > 0 ? (uint64_t)timeout_ms + 1 : 0, 0);
}

static void on_timer(uv_timer_t *timer)
{
    struct multi *m = timer->data;
    long timeout_ms = -1;
    int running;

    (void)curl_multi_socket_action(m->curl, CURL_SOCKET_TIMEOUT, 0, &running);
    multi_harvest(m);
    /* libcurl does not say the same moment twice, so one that was missed by a hair would never come
     * again. */
    if (!uv_is_active((uv_handle_t *)timer) &&
        curl_multi_timeout(m->curl, &timeout_ms) == CURLM_OK && timeout_ms >= 0)
        arm(m, timeout_ms);
}

static int set_timer(CURLM *curl, long timeout_ms, void *arg)
{
    struct multi *m = arg;

    (void)curl;
    if (!m->timer)
        return 0; /* closing */
    if (timeout_ms < 0)
        (void)uv_timer_stop(m->timer);
    else
        arm(m, timeout_ms);
    return 0;
}

/* libcurl's descriptors are in an epoll of their own, which is one descriptor to the loop. A
 * uv_poll for each would be tried, registered and removed with each request; here a connection
 * stays registered while nobody uses it, and a request costs no system calls but its own. */
static struct watch *watch_of(struct http *h, curl_socket_t fd)
{
    size_t n = h->n_watches ? h->n_watches : 64;

    while (n <= (size_t)fd)
        n *= 2;
    if (n > h->n_watches) {
        h->watches = xrealloc(h->watches, n, sizeof(*h->watches));
        memset(h->watches + h->n_watches, 0, (n - h->n_watches) * sizeof(*h->watches));
        h->n_watches = n;
    }
    return &h->watches[fd];
}

/* Whether epoll tells of just these events from now on. */
static bool watch_events(struct http *h, curl_socket_t fd, uint32_t events)
{
    struct watch *w = watch_of(h, fd);
    struct epoll_event event = {.events = events, .data.fd = fd};
    int what = events == 0 ? EPOLL_CTL_DEL : w->events == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;

    if (w->events == events)
        return true;
    w->events = events;
    return epoll_ctl(h->epoll, what, fd, &event) == 0 || events == 0;
}

static void on_ready(uv_poll_t *poll, int status, int events)
{
    struct http *h = poll->data;
    struct epoll_event ready[128]; /* of more the loop tells again */
    int n = epoll_wait(h->epoll, ready, sizeof(ready) / sizeof(ready[0]), 0);

    (void)status;
    (void)events;
    for (int i = 0; i < n; i++) {
        curl_socket_t fd = ready[i].data.fd;
        struct multi *m = watch_of(h, fd)->multi;
        int flags = ready[i].events & ~(uint32_t)EPOLLOUT ? CURL_CSELECT_IN : 0, running;

        if (ready[i].events & EPOLLOUT)
            flags |= CURL_CSELECT_OUT;
        if (!m) { /* an idle connection, that its host has closed; libcurl sees it at its next use
                   */
            (void)watch_events(h, fd, 0);
            continue;
        }
        (void)curl_multi_socket_action(m->curl, fd, flags, &running);
        multi_harvest(m);
    }
}

static int set_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg)
{
    struct multi *m = arg;
    struct watch *w = watch_of(m->http, fd);
    uint32_t events = 0;

    (void)easy;
    (void)socket_arg;
    w->multi = what == CURL_POLL_REMOVE ? NULL : m;
    if (what == CURL_POLL_REMOVE && w->connection)
        return 0;
    if (what & CURL_POLL_IN)
        events |= EPOLLIN;
    if (what & CURL_POLL_OUT)
        events |= EPOLLOUT;
    return watch_events(m->http, fd, events) ? 0 : -1;
}

static curl_socket_t on_open(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
    struct http *h = arg;
    int fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);

    (void)purpose;
    if (fd >= 0)
        *watch_of(h, fd) = (struct watch){.connection = true};
    return fd; /* CURL_SOCKET_BAD is -1 */
}

/* The kernel lets go of a descriptor by itself; the next one of this number is another. */
static int on_close(void *arg, curl_socket_t fd)
{
    *watch_of(arg, fd) = (struct watch){0};
    return close(fd);
}

/* ---- one transfer ---- */

static size_t on_body(char *bytes, size_t size, size_t n, void *arg)
{
    struct transfer *t = arg;
    size_t len = size * n, max = t->http->limits.max_body;

    if (len > max - t->body.len) {
        t->too_large = true;
        return 0; /* ends the transfer: CURLE_WRITE_ERROR */
    }
    if (!t->body.at)
        t->body = body_take(&t->http->spare);
    body_append(&t->body, bytes, len);
    return len;
}

static void body_give_back(struct http *h, struct body *body)
{
    if (h->spare.at || body->cap > BODY_KEPT) {
        body_free(body);
        return;
    }
    h->spare = body_take(body);
    h->spare.len = 0;
}

/* libcurl fixes the type. NOLINTNEXTLINE(readability-non-const-parameter) */
static size_t on_header(char *bytes, size_t size, size_t n, void *arg)
{
    struct transfer *t = arg;

    (void)bytes;
    t->headers_len += size * n;
    t->headers_too_large = t->headers_len > HEADERS_MAX;
    return t->headers_too_large ? 0 : size * n;
}

/* What is the same for every request is set once, when the handle is made. */
static CURLcode set_once(struct transfer *t)
{
    const struct http_limits *limits = &t->http->limits;
    CURL *e = t->easy;
    CURLcode rc = CURLE_OK;

#define SET(option, value)                                                                         \
    if (rc == CURLE_OK)                                                                            \
    rc = curl_easy_setopt(e, option, value)
    SET(CURLOPT_PRIVATE, t);
    SET(CURLOPT_SHARE, t->http->share);
    SET(CURLOPT_ERRORBUFFER, t->error);
    SET(CURLOPT_WRITEFUNCTION, on_body);
    SET(CURLOPT_WRITEDATA, t);
    SET(CURLOPT_HEADERFUNCTION, on_header);
    SET(CURLOPT_HEADERDATA, t);
    SET(CURLOPT_OPENSOCKETFUNCTION, on_open);
    SET(CURLOPT_OPENSOCKETDATA, t->http);
    SET(CURLOPT_CLOSESOCKETFUNCTION, on_close);
    SET(CURLOPT_CLOSESOCKETDATA, t->http);
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
    SET(CURLOPT_PROTOCOLS_STR, "http,https");
    SET(CURLOPT_FOLLOWLOCATION, 0L);
    SET(CURLOPT_ACCEPT_ENCODING, "");
    SET(CURLOPT_USERAGENT, UF_USER_AGENT);
    SET(CURLOPT_SSL_VERIFYPEER, 1L);
    SET(CURLOPT_SSL_VERIFYHOST, 2L);
    SET(CURLOPT_CONNECTTIMEOUT, CONNECT_TIMEOUT_S);
    SET(CURLOPT_TIMEOUT, (long)limits->timeout_s);
    SET(CURLOPT_LOW_SPEED_LIMIT, LOW_SPEED_BYTES);
    /* Late enough for a host that thinks long before its first byte. */
    SET(CURLOPT_LOW_SPEED_TIME, (long)(limits->timeout_s * 3 / 4));
    SET(CURLOPT_TCP_KEEPALIVE, 1L);
    /* The folder of the system's certificates stays trusted beside the file. */
    if (limits->ca_file)
        SET(CURLOPT_CAINFO, limits->ca_file);
#undef SET
    return rc;
}

static struct transfer *transfer_new(struct http *h)
{
    struct transfer *t = h->pool;

    if (t) {
        h->pool = t->next;
        t->next = NULL;
        return t;
    }
    t = xalloc(1, sizeof(*t));
    t->http = h;
    t->easy = curl_easy_init();
    if (!t->easy || set_once(t) != CURLE_OK)
        memory_out();
    if (h->n_all == h->cap_all) {
        h->cap_all = h->cap_all ? 2 * h->cap_all : 64;
        h->all = xrealloc(h->all, h->cap_all, sizeof(struct transfer *));
    }
    h->all[h->n_all++] = t;
    return t;
}

static void headers_wipe(struct transfer *t)
{
    for (struct curl_slist *s = t->headers; s; s = s->next)
        OPENSSL_cleanse(s->data, strlen(s->data));
    curl_slist_free_all(t->headers);
    t->headers = NULL;
}

/* Back to the pool, without the key. */
static void transfer_end(struct transfer *t)
{
    headers_wipe(t);
    (void)curl_easy_setopt(t->easy, CURLOPT_HTTPHEADER, NULL);
    body_give_back(t->http, &t->body);
    t->answered = NULL;
    t->multi = NULL;
    t->host = NULL;
    t->next = t->http->pool;
    t->http->pool = t;
}

static void header_add(struct transfer *t, const char *line)
{
    struct curl_slist *longer = curl_slist_append(t->headers, line);

    if (!longer)
        memory_out();
    t->headers = longer;
}

/* The length of scheme, name and port. */
static size_t origin_len(const char *url)
{
    const char *name = strstr(url, "://");

    return name ? (size_t)(name - url) + 3 + strcspn(name + 3, "/?#") : strlen(url);
}

/* libcurl parses and prints a URL for each request, character by character, a fifth of what a
 * request costs when all of it is in CURLOPT_URL. The URLs are made by us, of characters that need
 * no quoting (base_url_refused, url_text). A proxy of plain HTTP wants all of it in one. */
static CURLcode set_url(struct transfer *t, const char *url)
{
    size_t len = origin_len(url);
    char origin[ORIGIN_LEN_MAX];
    bool split = url[len] == '/' && len < sizeof(origin) &&
                 (!t->http->plain_proxy || strncmp(url, "https:", 6) == 0);
    CURLcode rc = curl_easy_setopt(t->easy, CURLOPT_REQUEST_TARGET, split ? url + len : NULL);

    if (rc != CURLE_OK || !split)
        return rc == CURLE_OK ? curl_easy_setopt(t->easy, CURLOPT_URL, url) : rc;
    memcpy(origin, url, len);
    origin[len] = '\0';
    return curl_easy_setopt(t->easy, CURLOPT_URL, origin);
}

static void set_request(struct transfer *t, const struct request *request)
{
    size_t line_len = strlen(request->auth.name) + 2 + request->auth.value.len;
    char *line = xalloc(line_len + 1, 1);
    bool tls = strncmp(request->url, "https:", 6) == 0;

    for (size_t i = 0; i < sizeof(request->headers) / sizeof(request->headers[0]); i++)
        if (request->headers[i])
            header_add(t, request->headers[i]);
    (void)snprintf(line, line_len + 1, "%s: %.*s", request->auth.name, (int)request->auth.value.len,
                   (const char *)request->auth.value.at);
    header_add(t, line);
    OPENSSL_cleanse(line, line_len);
    free(line);

    t->headers_len = 0;
    t->too_large = t->headers_too_large = false;
    t->error[0] = '\0';
    if (set_url(t, request->url) != CURLE_OK ||
        curl_easy_setopt(t->easy, CURLOPT_HTTPHEADER, t->headers) != CURLE_OK)
        memory_out();
    /* Waiting for a connection that may be shared makes sense where HTTP/2 may be offered. */
    (void)curl_easy_setopt(t->easy, CURLOPT_PIPEWAIT, tls ? 1L : 0L);
}

/* ---- what became of it ---- */

static struct text header_of(CURL *easy, const char *name)
{
    struct curl_header *header;

    if (curl_easy_header(easy, name, 0, CURLH_HEADER, -1, &header) != CURLHE_OK)
        return TEXT_NULL;
    return text_of(header->value);
}

struct failure {
    CURLcode code;
    enum ending ending;
    bool lasting;
    const char *advice;
};

static const struct failure failures[] = {
    {CURLE_COULDNT_RESOLVE_HOST, END_DNS, false, "check the host name and the name server"},
    {CURLE_COULDNT_RESOLVE_PROXY, END_DNS, false, "the proxy's name; check the proxy variables"},
    {CURLE_OPERATION_TIMEDOUT, END_TIMEOUT, false, "no complete answer in time"},
    {CURLE_COULDNT_CONNECT, END_PROVIDER_ERROR, false, "not reachable"},
    {CURLE_PEER_FAILED_VERIFICATION, END_TLS, true,
     "the certificate is not trusted; UF_CA_FILE names further ones"},
    {CURLE_SSL_CONNECT_ERROR, END_TLS, false, "no TLS handshake"},
    {CURLE_SSL_CACERT_BADFILE, END_TLS, true, "a file of certificates can not be read"},
    {CURLE_SSL_CIPHER, END_TLS, true, "no common cipher"},
    {CURLE_SSL_INVALIDCERTSTATUS, END_TLS, true, "the certificate's status is bad"},
    {CURLE_URL_MALFORMAT, END_PROTOCOL, true, "the base URL is malformed"},
    {CURLE_UNSUPPORTED_PROTOCOL, END_PROTOCOL, true, "the base URL must be http or https"},
    {CURLE_WEIRD_SERVER_REPLY, END_PROTOCOL, false, "the host does not speak HTTP"},
    {CURLE_BAD_CONTENT_ENCODING, END_PROTOCOL, false, "the compressed body is damaged"},
};

/* Anything else is a connection that broke: cut off, reset, half a body. */
static const struct failure broken = {CURLE_OK, END_PROVIDER_ERROR, false, "the connection broke"};

static void say_failure(const struct transfer *t, CURLcode code, char text[512],
                        struct answer *answer)
{
    const struct failure *f = &broken;

    for (size_t i = 0; i < sizeof(failures) / sizeof(failures[0]); i++)
        if (failures[i].code == code)
            f = &failures[i];
    answer->http_status = 0;
    answer->failure = f->ending;
    answer->lasting = f->lasting;
    (void)snprintf(text, 512, "%s: %s", f->advice,
                   t->error[0] ? t->error : curl_easy_strerror(code));
    if (t->too_large) {
        answer->failure = END_TOO_LARGE;
        answer->lasting = true;
        (void)snprintf(text, 512,
                       "the answer is larger than %zu bytes after decompression (UF_MAX_BODY)",
                       t->http->limits.max_body);
    } else if (t->headers_too_large) {
        answer->failure = END_PROTOCOL;
        (void)snprintf(text, 512, "the answer's headers are larger than %zu bytes", HEADERS_MAX);
    }
    answer->error = text;
}

/* Answers of the same second say the same. -1: it says nothing. */
static int64_t date_of(struct http *h, struct text date)
{
    if (!date.at || date.len >= sizeof(h->date))
        return -1;
    if (strcmp(date.at, h->date) != 0) {
        memcpy(h->date, date.at, date.len + 1);
        h->date_s = http_date_parse(date);
    }
    return h->date_s;
}

static void transfer_answer(struct transfer *t, CURLcode code)
{
    struct http *h = t->http;
    http_answered *answered = t->answered;
    void *arg = t->arg;
    struct answer answer = {.utc_us = clock_utc_us(), .advice = {.wait_ms = -1}};
    char error[512];
    curl_off_t took_us = 0;
    long status = 0;

    (void)curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
    (void)curl_easy_getinfo(t->easy, CURLINFO_TOTAL_TIME_T, &took_us);
    answer.http_status = status > 0 ? (uint32_t)status : 0;
    answer.took_us = took_us;
    answer.date_s = date_of(h, header_of(t->easy, "Date"));
    if (status != 200)
        answer.advice = retry_advice_read(header_of(t->easy, "Retry-After"),
                                          header_of(t->easy, "retry-after-ms"),
                                          header_of(t->easy, "x-should-retry"), answer.utc_us);
    if (code != CURLE_OK)
        say_failure(t, code, error, &answer);
    else
        answer.body = body_take(&t->body);
    transfer_end(t);
    answered(arg, &answer);
    body_give_back(h, &answer.body);
}

/* ---- hosts: who may start ---- */

static uint64_t origin_digest(const char *url)
{
    return XXH3_64bits(url, origin_len(url));
}

static struct host *host_of(struct http *h, const char *url)
{
    uint64_t origin = origin_digest(url);
    struct host *host;

    for (host = h->hosts; host; host = host->next)
        if (host->origin == origin)
            return host;
    host = xalloc(1, sizeof(*host));
    host->origin = origin;
    host->next = h->hosts;
    h->hosts = host;
    h->n_hosts++;
    return host;
}

/* What is known of a host is worth keeping, but not for every host that was ever asked. */
static void hosts_trim(struct http *h)
{
    struct host **at = &h->hosts;

    if (h->n_hosts <= ORIGIN_MAX + h->limits.in_flight)
        return;
    while (*at) {
        struct host *host = *at;
        if (host->n_active > 0 || host->first) {
            at = &host->next;
            continue;
        }
        *at = host->next;
        free(host);
        h->n_hosts--;
    }
}

static bool host_has_room(const struct http *h, const struct host *host)
{
    size_t most = h->limits.per_host * (host->http2 ? STREAMS_PER_CONN : 1);

    return host->n_active < most;
}

static void transfer_start(struct transfer *t)
{
    struct http *h = t->http;
    struct multi *m = &h->multis[0];

    for (size_t i = 1; i < h->n_multis; i++)
        if (h->multis[i].n_active < m->n_active)
            m = &h->multis[i];
    t->multi = m;
    m->n_active++;
    t->host->n_active++;
    if (curl_multi_add_handle(m->curl, t->easy) != CURLM_OK)
        memory_out();
}

static void host_go_on(struct http *h, struct host *host)
{
    while (host->first && host_has_room(h, host)) {
        struct transfer *t = host->first;
        host->first = t->next;
        t->next = NULL;
        transfer_start(t);
    }
    if (!host->first)
        host->last = NULL;
}

static void transfer_leave(struct transfer *t)
{
    (void)curl_multi_remove_handle(t->multi->curl, t->easy);
    t->multi->n_active--;
    t->host->n_active--;
}

static void multi_harvest(struct multi *m)
{
    const struct CURLMsg *msg;
    int left;

    while ((msg = curl_multi_info_read(m->curl, &left))) {
        CURLcode code = msg->data.result; /* the message dies with the handle's removal */
        struct host *host;
        struct transfer *t;
        void *of;
        long version = 0;

        if (msg->msg != CURLMSG_DONE)
            continue;
        (void)curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, &of);
        t = of;
        host = t->host;
        (void)curl_easy_getinfo(t->easy, CURLINFO_HTTP_VERSION, &version);
        if (version != 0)
            host->http2 = version == CURL_HTTP_VERSION_2_0;
        transfer_leave(t);
        host_go_on(m->http, host);
        transfer_answer(t, code);
    }
}

static void line_join(struct host *host, struct transfer *t, bool ahead)
{
    if (!host->first) {
        host->first = host->last = t;
    } else if (ahead) {
        t->next = host->first;
        host->first = t;
    } else {
        host->last->next = t;
        host->last = t;
    }
}

struct transfer *http_get(struct http *h, const struct request *request, bool ahead,
                          http_answered *answered, void *arg)
{
    struct transfer *t = transfer_new(h);

    hosts_trim(h);
    t->answered = answered;
    t->arg = arg;
    t->host = host_of(h, request->url);
    set_request(t, request);
    if (host_has_room(h, t->host))
        transfer_start(t);
    else
        line_join(t->host, t, ahead);
    return t;
}

static void line_leave(struct host *host, const struct transfer *t)
{
    struct transfer *before = NULL;

    for (struct transfer *at = host->first; at; before = at, at = at->next) {
        if (at != t)
            continue;
        if (before)
            before->next = t->next;
        else
            host->first = t->next;
        if (host->last == t)
            host->last = before;
        return;
    }
}

void http_drop(struct http *h, struct transfer *t)
{
    struct host *host = t->host;

    if (t->multi)
        transfer_leave(t);
    else
        line_leave(host, t);
    transfer_end(t);
    host_go_on(h, host);
}

bool http_started(const struct transfer *t)
{
    return t->multi != NULL;
}

/* ---- life ---- */

static enum status multi_open(struct multi *m, struct http *h, struct err *err)
{
    m->http = h;
    m->curl = curl_multi_init();
    if (!m->curl)
        return err_set(err, ST_RETRY, "libcurl: no multi handle");
    m->timer = xalloc(1, sizeof(*m->timer));
    (void)uv_timer_init(h->loop, m->timer);
    m->timer->data = m;
    (void)curl_multi_setopt(m->curl, CURLMOPT_SOCKETFUNCTION, set_socket);
    (void)curl_multi_setopt(m->curl, CURLMOPT_SOCKETDATA, m);
    (void)curl_multi_setopt(m->curl, CURLMOPT_TIMERFUNCTION, set_timer);
    (void)curl_multi_setopt(m->curl, CURLMOPT_TIMERDATA, m);
    (void)curl_multi_setopt(m->curl, CURLMOPT_PIPELINING, CURLPIPE_MULTIPLEX);
    (void)curl_multi_setopt(m->curl, CURLMOPT_MAXCONNECTS, (long)TRANSFERS_PER_MULTI);
    return ST_OK;
}

static enum status epoll_open(struct http *h, struct err *err)
{
    uv_poll_t *ready;

    h->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (h->epoll < 0)
        return err_set(err, ST_RETRY, "no descriptor: %s", strerror(errno));
    ready = xalloc(1, sizeof(*ready));
    ready->data = h;
    if (uv_poll_init(h->loop, ready, h->epoll) < 0) {
        free(ready);
        return err_set(err, ST_RETRY, "a descriptor can not be watched");
    }
    h->ready = ready;
    (void)uv_poll_start(h->ready, UV_READABLE, on_ready);
    return ST_OK;
}

enum status http_open(struct http **out, uv_loop_t *loop, const struct http_limits *limits,
                      struct err *err)
{
    struct http *h = xalloc(1, sizeof(*h));

    *out = h;
    h->loop = loop;
    h->limits = *limits;
    h->date_s = -1;
    h->epoll = -1;
    h->plain_proxy = getenv("http_proxy") || getenv("all_proxy") || getenv("ALL_PROXY");
    if (limits->ca_file && access(limits->ca_file, R_OK) < 0)
        return err_set(err, ST_FATAL, "UF_CA_FILE=%s can not be read", limits->ca_file);
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return err_set(err, ST_RETRY, "libcurl can not start");
    h->share = curl_share_init();
    if (!h->share ||
        curl_share_setopt(h->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_DNS) != CURLSHE_OK ||
        curl_share_setopt(h->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION) != CURLSHE_OK)
        return err_set(err, ST_RETRY, "libcurl: no share handle");
    TRY(epoll_open(h, err));
    h->n_multis = (limits->in_flight + TRANSFERS_PER_MULTI - 1) / TRANSFERS_PER_MULTI;
    h->multis = xalloc(h->n_multis, sizeof(*h->multis));
    for (size_t i = 0; i < h->n_multis; i++)
        TRY(multi_open(&h->multis[i], h, err));
    return ST_OK;
}

void http_close(struct http **http)
{
    struct http *h = *http;

    if (!h)
        return;
    for (size_t i = 0; i < h->n_all; i++) {
        struct transfer *t = h->all[i];
        if (t->multi)
            transfer_leave(t);
        headers_wipe(t);
        curl_easy_cleanup(t->easy);
        body_free(&t->body);
        free(t);
    }
    for (size_t i = 0; i < h->n_multis; i++) {
        struct multi *m = &h->multis[i];
        if (m->curl)
            (void)curl_multi_cleanup(m->curl);
        if (m->timer)
            uv_close((uv_handle_t *)m->timer, free_handle);
        m->timer = NULL;
    }
    if (h->ready)
        uv_close((uv_handle_t *)h->ready, free_handle);
    if (h->epoll >= 0)
        (void)close(h->epoll);
    if (h->share)
        (void)curl_share_cleanup(h->share);
    for (struct host *host = h->hosts, *next; host; host = next) {
        next = host->next;
        free(host);
    }
    body_free(&h->spare);
    free(h->multis);
    free(h->watches);
    free(h->all);
    free(h);
    *http = NULL;
}
