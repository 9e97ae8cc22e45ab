#include "gateway/server.h"

#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "gateway/request.h"

#define HEADERS_MAX ((size_t)16 * 1024)
#define RUNS_A_TURN 64

struct connection {
    struct connection *prev, *next;
    int fd;
    int64_t deadline_us; /* INT64_MAX: a handler is at work */
};

struct server {
    struct gateway *gateway;
    struct MHD_Daemon *daemon;
    uv_poll_t *poll;
    uv_timer_t *alarm;
    int listen_fd;
    bool loopback, dirty;
    struct connection connections; /* a ring's head */
    struct request *requests;      /* that are not answered to the end */
    int64_t n_connections, n_requests, n_busy;
};

/* ---- connections ---- */

static void on_connection(void *cls, struct MHD_Connection *connection, void **context,
                          enum MHD_ConnectionNotificationCode code)
{
    struct server *h = cls;
    struct connection *c = *context;

    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        const union MHD_ConnectionInfo *info =
            MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);

        c = xalloc(1, sizeof(*c));
        c->fd = info ? info->connect_fd : -1;
        c->deadline_us = clock_mono_us() + SERVER_HEADERS_US;
        c->prev = &h->connections;
        c->next = h->connections.next;
        c->next->prev = c->prev->next = c;
        h->n_connections++;
        *context = c;
        return;
    }
    c->prev->next = c->next;
    c->next->prev = c->prev;
    h->n_connections--;
    free(c);
    *context = NULL;
}

static void deadline_set(struct MHD_Connection *connection, int64_t deadline_us)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct connection *c = info ? info->socket_context : NULL;

    if (c)
        c->deadline_us = deadline_us;
}

void server_sweep(struct server *h, int64_t now_us)
{
    for (struct connection *c = h->connections.next; c != &h->connections; c = c->next)
        if (now_us > c->deadline_us && c->fd >= 0)
            (void)shutdown(c->fd, SHUT_RDWR); /* libmicrohttpd sees the end, and closes it */
}

/* ---- a request ---- */

static enum MHD_Result param_add(void *cls, enum MHD_ValueKind kind, const char *key,
                                 size_t key_len, const char *value, size_t value_len)
{
    struct request *r = cls;
    struct params *p = &r->params;

    (void)kind;
    if (p->n == PARAMS_MAX) {
        p->too_many = true;
        return MHD_NO;
    }
    p->at[p->n++] = (struct param){
        arena_text(r->arena, (struct text){key, key_len}),
        arena_text(r->arena, (struct text){value ? value : "", value ? value_len : 0})};
    return MHD_YES;
}

static struct text client_address(struct request *r)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(r->connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    char host[NI_MAXHOST] = "";

    if (info && info->client_addr)
        (void)getnameinfo(info->client_addr,
                          info->client_addr->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6)
                                                                   : sizeof(struct sockaddr_in),
                          host, sizeof(host), NULL, 0, NI_NUMERICHOST);
    return text_of(arena_copy(r->arena, host, strlen(host)));
}

static struct request *request_new(struct server *h, struct MHD_Connection *connection,
                                   const char *path, const char *method)
{
    struct arena *a = arena_new();
    struct request *r = ARENA_NEW(a, struct request);

    r->arena = a;
    r->gateway = h->gateway;
    r->connection = connection;
    r->path = arena_copy(a, path, strlen(path));
    r->method = arena_copy(a, method, strlen(method));
    r->body = (struct buf){.arena = a};
    buf_str(&r->body, "");
    r->address = client_address(r);
    (void)MHD_get_connection_values_n(connection, MHD_GET_ARGUMENT_KIND, param_add, r);
    r->next = h->requests;
    if (r->next)
        r->next->prev = r;
    h->requests = r;
    deadline_set(connection, clock_mono_us() + SERVER_BODY_US);
    return r;
}

static void on_completed(void *cls, struct MHD_Connection *connection, void **context,
                         enum MHD_RequestTerminationCode code)
{
    struct server *h = cls;
    struct request *r = *context;
    struct arena *memory;

    (void)code;
    if (!r)
        return;
    *context = NULL;
    memory = r->arena; /* which r itself is in */
    if (r->next)
        r->next->prev = r->prev;
    if (r->prev)
        r->prev->next = r->next;
    else
        h->requests = r->next;
    if (r->abandoned)
        r->abandoned(r);
    query_drop(&r->query);
    spool_free(&r->spool);
    if (r->response)
        MHD_destroy_response(r->response);
    h->n_busy -= r->handled;
    h->n_requests += r->handled;
    arena_free(&memory);
    deadline_set(connection, clock_mono_us() + SERVER_HEADERS_US);
}

/* libmicrohttpd calls with the headers, with each piece of the body, and with the end; and again
 * whenever the connection wakes up without an answer having been given. */
/* NOLINTNEXTLINE(readability-function-size): libmicrohttpd's eight parameters */
static enum MHD_Result on_request(void *cls, struct MHD_Connection *connection, const char *path,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_len, void **context)
{
    struct server *h = cls;
    struct request *r = *context;

    (void)version;
    if (!r) {
        *context = request_new(h, connection, path, method);
        return MHD_YES;
    }
    if (*upload_len > 0) {
        if (r->body.len + *upload_len > BODY_MAX)
            r->too_large = true; /* the rest is read and thrown away, in its time */
        else
            buf_append(&r->body, upload, *upload_len);
        *upload_len = 0;
        return MHD_YES;
    }
    if (!r->handled) {
        r->handled = true;
        h->n_busy++;
        deadline_set(connection, INT64_MAX);
        route(h->gateway, r);
    }
    if (!r->response) {
        r->suspended = true;
        MHD_suspend_connection(connection);
        return MHD_YES;
    }
    deadline_set(connection, clock_mono_us() + SERVER_ANSWER_US);
    return MHD_queue_response(connection, r->status, r->response);
}

struct text request_header(const struct request *r, const char *name)
{
    const char *value = NULL;
    size_t len = 0;

    if (MHD_lookup_connection_value_n(r->connection, MHD_HEADER_KIND, name, strlen(name), &value,
                                      &len) != MHD_YES)
        return TEXT_NULL;
    return (struct text){value ? value : "", value ? len : 0};
}

/* ---- answers ---- */

static void put(struct MHD_Response *response, const char *name, const char *value)
{
    if (MHD_add_response_header(response, name, value) != MHD_YES)
        exit(111); /* out of memory: being killed here is safe */
}

/* What every answer says; the page may load nothing but this gateway's own files. */
static void put_all(struct MHD_Response *response)
{
    put(response, "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'");
    put(response, "X-Content-Type-Options", "nosniff");
    put(response, "X-Frame-Options", "DENY");
    put(response, "Referrer-Policy", "no-referrer");
    put(response, "Cross-Origin-Opener-Policy", "same-origin");
    put(response, "Cross-Origin-Resource-Policy", "same-origin");
}

static void answer(struct request *r, unsigned status, struct MHD_Response *response)
{
    if (!response)
        exit(111); /* out of memory: being killed here is safe */
    put_all(response);
    r->status = status;
    r->response = response;
    LOG(DEBUG, "http.answered", KV("method", r->method), KV("path", r->path),
        KV("status", (int64_t)status), KV("client", r->address));
    answer_wake(r);
}

void answer_wake(struct request *r)
{
    if (!r->suspended)
        return;
    r->suspended = false;
    MHD_resume_connection(r->connection);
    server_wake(r->gateway->server);
}

static struct MHD_Response *from_copy(struct text body)
{
    void *copy = xalloc(body.len + 1, 1);

    if (body.len > 0)
        memcpy(copy, body.at, body.len);
    return MHD_create_response_from_buffer(body.len, copy, MHD_RESPMEM_MUST_FREE);
}

/* libmicrohttpd takes constant bytes by a pointer that is not: it does not write to them. */
static struct MHD_Response *from_constant(struct text body)
{
    void *at;

    memcpy(&at, &body.at, sizeof(at));
    return MHD_create_response_from_buffer(body.len, at, MHD_RESPMEM_PERSISTENT);
}

static struct MHD_Response *dynamic(const char *type, struct text body)
{
    struct MHD_Response *response = from_copy(body);

    if (!response)
        exit(111); /* out of memory: being killed here is safe */
    put(response, "Content-Type", type);
    put(response, "Cache-Control", "no-store");
    return response;
}

void answer_text(struct request *r, unsigned status, const char *type, struct text body)
{
    answer(r, status, dynamic(type, body));
}

void answer_json(struct request *r, unsigned status, struct text body)
{
    answer(r, status, dynamic("application/json", body));
}

static const char *error_code(unsigned status)
{
    static const struct {
        unsigned status;
        const char *code;
    } codes[] = {{400, "bad_request"}, {401, "unauthorized"},       {403, "forbidden"},
                 {404, "not_found"},   {405, "method_not_allowed"}, {409, "conflict"},
                 {413, "too_large"},   {429, "too_many"},           {503, "unavailable"},
                 {504, "timeout"}};

    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
        if (codes[i].status == status)
            return codes[i].code;
    return "internal";
}

static struct MHD_Response *error_response(struct request *r, unsigned status,
                                           const char *parameter, const char *message)
{
    struct buf b = {.arena = r->arena};
    struct json_writer w = {.out = &b};

    json_w_object(&w);
    json_w_key(&w, "error");
    json_w_str(&w, error_code(status));
    json_w_key(&w, "message");
    json_w_str(&w, message);
    if (parameter) {
        json_w_key(&w, "parameter");
        json_w_str(&w, parameter);
    }
    json_w_end(&w);
    buf_str(&b, "\n");
    return dynamic("application/json", (struct text){b.at, b.len});
}

void answer_error(struct request *r, unsigned status, const char *fmt, ...)
{
    struct MHD_Response *response;
    char message[600];
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(message, sizeof(message), fmt, args);
    va_end(args);
    response = error_response(r, status, NULL, message);
    if (status == MHD_HTTP_UNAUTHORIZED)
        put(response, "WWW-Authenticate", "Bearer realm=\"usage-fetcher\"");
    if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
        put(response, "Allow", route_methods(r->arena, r->path));
    if (status == MHD_HTTP_CONTENT_TOO_LARGE)
        put(response, "Connection", "close");
    answer(r, status, response);
}

void answer_bad_parameter(struct request *r, const char *parameter, const struct err *err)
{
    struct buf b = {.arena = r->arena};

    if (parameter && *parameter && !strstr(err->text, "unknown parameter"))
        buf_printf(&b, "%s: ", parameter);
    buf_str(&b, err->text);
    answer(r, MHD_HTTP_BAD_REQUEST, error_response(r, MHD_HTTP_BAD_REQUEST, parameter, b.at));
}

void answer_later(struct request *r, unsigned status, int64_t retry_after_s, const char *fmt, ...)
{
    struct MHD_Response *response;
    char message[600];
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(message, sizeof(message), fmt, args);
    va_end(args);
    response = error_response(r, status, NULL, message);
    put(response, "Retry-After", arena_printf(r->arena, "%" PRId64, retry_after_s));
    answer(r, status, response);
}

void answer_query_failed(struct request *r, enum status st, const char *sqlstate,
                         const struct err *err)
{
    if (strcmp(sqlstate, "57014") == 0) /* its statement_timeout */
        answer_later(r, MHD_HTTP_SERVICE_UNAVAILABLE, 60,
                     "the database took longer than " QUERY_STATEMENT_LIMIT
                     ": ask for a shorter range, fewer dimensions, or one account");
    else if (st == ST_RETRY)
        answer_later(r, MHD_HTTP_SERVICE_UNAVAILABLE, 5, "%s", err->text);
    else if (strcmp(sqlstate, "22023") == 0 && strstr(err->text, "time zone"))
        answer_bad_parameter(r, "tz",
                             &(const struct err){ST_REJECT,
                                                 "the database knows no such time zone; write a "
                                                 "name as Europe/Berlin"});
    else if (strncmp(sqlstate, "22", 2) == 0)
        answer_bad_parameter(r, NULL, err);
    else {
        LOG(ERROR, "query.failed", KV("path", r->path), KV("sqlstate", sqlstate),
            KV("error", err->text));
        answer_error(r, MHD_HTTP_INTERNAL_SERVER_ERROR,
                     "the database refused the query: %s; is its schema of this version? usagectl "
                     "doctor looks",
                     err->text);
    }
}

void answer_redirect(struct request *r, const char *to, const char *set_cookie)
{
    struct MHD_Response *response = from_copy(TEXT_LIT(""));

    if (!response)
        exit(111); /* out of memory: being killed here is safe */
    put(response, "Location", to);
    put(response, "Cache-Control", "no-store");
    if (set_cookie)
        put(response, "Set-Cookie", set_cookie);
    answer(r, MHD_HTTP_SEE_OTHER, response);
}

void answer_static(struct request *r, const struct asset *file, bool gzip)
{
    struct text known = request_header(r, "If-None-Match");
    bool same = text_is(known, file->etag);
    struct text body = gzip ? file->gzip : file->body;
    struct MHD_Response *response;

    if (same)
        response = from_copy(TEXT_LIT(""));
    else
        response = from_constant(body);
    if (!response)
        exit(111); /* out of memory: being killed here is safe */
    put(response, "ETag", file->etag);
    put(response, "Cache-Control", "no-cache");
    put(response, "Vary", "Accept-Encoding");
    if (!same)
        put(response, "Content-Type", file->type);
    if (!same && gzip)
        put(response, "Content-Encoding", "gzip");
    answer(r, same ? MHD_HTTP_NOT_MODIFIED : MHD_HTTP_OK, response);
}

/* ---- a streamed answer ---- */

static ssize_t stream_read(void *cls, uint64_t position, char *to, size_t max)
{
    struct request *r = cls;
    long n = spool_read(r->spool, to, max);

    (void)position;
    if (n > 0) {
        if (r->query && spool_drained(r->spool))
            query_pause(r->query, false);
        return n;
    }
    if (n == SPOOL_AT_END)
        return MHD_CONTENT_READER_END_OF_STREAM;
    if (n == SPOOL_BROKEN) {
        LOG(WARN, "http.answer_cut", KV("path", r->path), KV("client", r->address));
        return MHD_CONTENT_READER_END_WITH_ERROR; /* the client sees a body without its end */
    }
    r->suspended = true;
    MHD_suspend_connection(r->connection);
    return 0;
}

void answer_stream(struct request *r, const char *type, const char *filename)
{
    struct MHD_Response *response =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 32768, stream_read, r, NULL);

    if (!response)
        exit(111); /* out of memory: being killed here is safe */
    put(response, "Content-Type", type);
    put(response, "Cache-Control", "no-store");
    if (filename)
        put(response, "Content-Disposition",
            arena_printf(r->arena, "attachment; filename=\"%s\"", filename));
    answer(r, MHD_HTTP_OK, response);
}

/* ---- the daemon ---- */

enum status server_address(const char **host, const char **port, struct arena *a, const char *text,
                           struct err *err)
{
    const char *colon = strrchr(text, ':');
    size_t len = colon ? (size_t)(colon - text) : 0;

    if (!colon || !colon[1] || strspn(colon + 1, "0123456789") != strlen(colon + 1) ||
        strlen(colon + 1) > 5 || strtol(colon + 1, NULL, 10) > 65535 ||
        (text[0] == '[' && (len < 3 || text[len - 1] != ']')) ||
        (text[0] != '[' && memchr(text, ':', len)))
        return err_set(err, ST_FATAL,
                       "UF_HTTP=\"%.80s\": write HOST:PORT, as 127.0.0.1:8080 or [::1]:8080", text);
    *host = text[0] == '[' ? arena_copy(a, text + 1, len - 2) : arena_copy(a, text, len);
    *port = arena_copy(a, colon + 1, strlen(colon + 1));
    return ST_OK;
}

static bool is_loopback(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET) {
        struct sockaddr_in in;

        memcpy(&in, address, sizeof(in));
        return ntohl(in.sin_addr.s_addr) >> 24 == 127;
    }
    if (address->sa_family == AF_INET6) {
        struct sockaddr_in6 in6;

        memcpy(&in6, address, sizeof(in6));
        return IN6_IS_ADDR_LOOPBACK(&in6.sin6_addr);
    }
    return false;
}

static enum status listen_on(struct server *h, const struct addrinfo *ai, const char *text,
                             struct err *err)
{
    const int on = 1;

    h->loopback = is_loopback(ai->ai_addr);
    if (!h->loopback && h->gateway->cfg->dashboard_token.len == 0)
        return err_set(err, ST_FATAL,
                       "UF_HTTP=\"%.80s\" is reachable from other hosts, and UF_DASHBOARD_TOKEN is "
                       "not set: set it (\"usagectl keygen\" makes one), or listen on 127.0.0.1",
                       text);
    h->listen_fd = socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (h->listen_fd < 0)
        return err_set(err, ST_RETRY, "no socket: %s", strerror(errno));
    (void)setsockopt(h->listen_fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(h->listen_fd, ai->ai_addr, ai->ai_addrlen) < 0 || listen(h->listen_fd, 511) < 0)
        return err_set(err, ST_FATAL,
                       "can not listen on UF_HTTP=\"%.80s\": %s; set UF_HTTP to an address of this "
                       "host and a free port",
                       text, strerror(errno));
    return ST_OK;
}

static enum status listen_open(struct server *h, struct err *err)
{
    static const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    const char *text = h->gateway->cfg->http, *host = "", *port = "";
    struct arena *a = arena_new();
    struct addrinfo *list = NULL;
    enum status st = server_address(&host, &port, a, text, err);

    if (st == ST_OK) {
        int rc = getaddrinfo(*host ? host : NULL, port, &hints, &list);

        st = rc == 0 ? listen_on(h, list, text, err)
                     : err_set(err, ST_FATAL, "UF_HTTP=\"%.80s\": %s", text, gai_strerror(rc));
    }
    if (list)
        freeaddrinfo(list);
    arena_free(&a);
    return st;
}

static void say_listening(const struct server *h)
{
    struct sockaddr_storage at;
    socklen_t len = sizeof(at);
    char host[NI_MAXHOST], port[NI_MAXSERV], url[NI_MAXHOST + NI_MAXSERV + 16];

    if (getsockname(h->listen_fd, (struct sockaddr *)&at, &len) < 0 ||
        getnameinfo((const struct sockaddr *)&at, len, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return;
    (void)snprintf(url, sizeof(url), strchr(host, ':') ? "http://[%s]:%s/" : "http://%s:%s/", host,
                   port);
    LOG(INFO, "http.listening", KV("url", url));
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct server *h = poll->data;

    (void)status;
    (void)events;
    h->dirty = true; /* server_turn comes before the loop waits again */
}

static void on_alarm(uv_timer_t *timer)
{
    struct server *h = timer->data;

    h->dirty = true;
}

static void mhd_log(void *cls, const char *fmt, va_list args) PRINTF_LIKE(2, 0);
static void mhd_log(void *cls, const char *fmt, va_list args)
{
    char text[300];

    (void)cls;
    if (!log_on(LOG_DEBUG))
        return; /* of strangers' malformed requests, mostly */
    (void)vsnprintf(text, sizeof(text), fmt, args);
    text[strcspn(text, "\n")] = '\0';
    LOG(DEBUG, "http.library", KV("text", text));
}

static enum status daemon_open(struct server *h, struct err *err)
{
    const union MHD_DaemonInfo *info;
    int rc;

    h->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL, NULL, on_request, h,
        MHD_OPTION_EXTERNAL_LOGGER, mhd_log, NULL, MHD_OPTION_LISTEN_SOCKET, h->listen_fd,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, h, MHD_OPTION_NOTIFY_COMPLETED, on_completed,
        h, MHD_OPTION_CONNECTION_LIMIT, (unsigned)h->gateway->cfg->http_connections,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)SERVER_IDLE_S, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        HEADERS_MAX + 32768, MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
    if (!h->daemon)
        return err_set(err, ST_RETRY, "the HTTP server does not start");
    info = MHD_get_daemon_info(h->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    rc = info ? uv_poll_init(&h->gateway->loop, h->poll, info->epoll_fd) : UV_EBADF;
    if (rc < 0) {
        free(h->poll);
        h->poll = NULL;
        return err_set(err, ST_RETRY, "the HTTP server can not be watched: %s", uv_strerror(rc));
    }
    h->poll->data = h;
    (void)uv_poll_start(h->poll, UV_READABLE, on_poll);
    return ST_OK;
}

enum status server_open(struct server **out, struct gateway *g, struct err *err)
{
    struct server *h = xalloc(1, sizeof(*h));

    *out = h;
    h->gateway = g;
    h->listen_fd = -1;
    h->connections.prev = h->connections.next = &h->connections;
    h->alarm = xalloc(1, sizeof(*h->alarm));
    (void)uv_timer_init(&g->loop, h->alarm);
    h->alarm->data = h;
    TRY(listen_open(h, err));
    h->poll = xalloc(1, sizeof(*h->poll));
    TRY(daemon_open(h, err));
    h->dirty = true;
    say_listening(h);
    return ST_OK;
}

static void free_handle(uv_handle_t *handle)
{
    free(handle);
}

void server_close(struct server **at)
{
    struct server *h = *at;

    if (!h)
        return;
    if (h->poll) {
        (void)uv_poll_stop(h->poll);
        uv_close((uv_handle_t *)h->poll, free_handle);
    }
    uv_close((uv_handle_t *)h->alarm, free_handle);
    for (struct request *r = h->requests; r; r = r->next)
        answer_wake(r); /* libmicrohttpd does not end while a connection sleeps */
    if (h->daemon)
        MHD_stop_daemon(h->daemon); /* closes the listening socket, too */
    else if (h->listen_fd >= 0)
        (void)close(h->listen_fd);
    free(h);
    *at = NULL;
}

void server_quiesce(struct server *h)
{
    int fd = MHD_quiesce_daemon(h->daemon);

    if (fd >= 0)
        (void)close(fd);
}

void server_wake(struct server *h)
{
    h->dirty = true;
}

/* A turn is bounded, so that others have theirs; the alarm at 0 then brings the next one at once.
 */
void server_turn(struct server *h)
{
    MHD_UNSIGNED_LONG_LONG wait_ms = 0;

    for (int i = 0; i < RUNS_A_TURN; i++) {
        bool at_once = MHD_get_timeout(h->daemon, &wait_ms) == MHD_YES && wait_ms == 0;

        if (!h->dirty && !at_once)
            break;
        h->dirty = false;
        (void)MHD_run(h->daemon);
    }
    if (MHD_get_timeout(h->daemon, &wait_ms) != MHD_YES)
        (void)uv_timer_stop(h->alarm);
    else
        (void)uv_timer_start(h->alarm, on_alarm, h->dirty ? 0 : wait_ms, 0);
}

bool server_loopback(const struct server *h)
{
    return h->loopback;
}

int64_t server_connections(const struct server *h)
{
    return h->n_connections;
}

int64_t server_requests(const struct server *h)
{
    return h->n_requests;
}

int64_t server_busy(const struct server *h)
{
    return h->n_busy;
}
