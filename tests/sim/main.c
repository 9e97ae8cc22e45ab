/* uf-sim - OpenAI's and Anthropic's organization APIs of made-up accounts, and the truth about
 * them.
 *
 *   fetcher --HTTP--> [uf-sim] <--/_sim/... tests: clock, faults, restated data, expected rows
 *
 * Promise: what it serves under /organization/... and /v1/organizations/... and what it lists under
 * /_sim/ledger are the same figures, and both depend on the seed, the clock and what the tests
 * ordered, on nothing else. One thread. Options: uf-sim --help.  Exit: 0 asked to
 * stop, 1 can not start, 2 wrong use. */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>

#include "tests/sim/fault.h"

int64_t monotonic_us(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

int64_t sim_now(const struct sim *s)
{
    return (s->clock_us + (s->set_at_us ? monotonic_us() - s->set_at_us : 0)) / 1000000;
}

struct account *sim_account(struct sim *s, uint32_t number)
{
    if (!s->accounts[number])
        s->accounts[number] = xcalloc(1, sizeof *s->accounts[number]);
    return s->accounts[number];
}

void sim_key(const struct sim *s, uint32_t number, uint32_t generation, char out[64])
{
    uint64_t h = ledger_mix(s->ledger.seed + ledger_mix(number + ((uint64_t)generation << 32)));

    (void)snprintf(out, 64, "%s-%06" PRIu32 "-%016" PRIx64,
                   ledger_provider(&s->ledger, number) == ANTHROPIC ? "sk-ant-admin01-sim"
                                                                    : "sk-admin-sim",
                   number, h);
}

void sim_log(struct sim *s, const struct call *c, unsigned status)
{
    struct logged *l = &s->log[s->n_logged++ % LOG_LEN];

    free(l->uri);
    *l = (struct logged){c->account ? c->account_number : UINT32_MAX, status, xstrdup(c->uri)};
    s->stats.requests++;
}

/* --- answers --- */

void answer_header(struct answer *a, const char *name, const char *value)
{
    if (a->n_headers == sizeof a->headers / sizeof a->headers[0])
        return;
    a->headers[a->n_headers].name = xstrdup(name);
    a->headers[a->n_headers++].value = xstrdup(value);
}

static void json_or_null(struct buf *b, const char *s)
{
    if (s)
        buf_json_string(b, s);
    else
        buf_str(b, "null");
}

static void anthropic_error(struct answer *a, const char *message)
{
    static const struct {
        unsigned status;
        const char *type;
    } types[] = {{401, "authentication_error"}, {403, "permission_error"}, {404, "not_found_error"},
                 {413, "request_too_large"},    {429, "rate_limit_error"}, {504, "timeout_error"},
                 {529, "overloaded_error"}};
    const char *type = a->status >= 500 ? "api_error" : "invalid_request_error";

    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (types[i].status == a->status)
            type = types[i].type;
    buf_printf(&a->body, "{\"type\":\"error\",\"error\":{\"type\":\"%s\",\"message\":", type);
    buf_json_string(&a->body, message);
    buf_printf(&a->body, "},\"request_id\":\"%s\"}", a->request_id);
}

void answer_error(struct answer *a, unsigned status, const char *param, const char *code,
                  const char *message)
{
    a->status = status;
    a->content_type = "application/json";
    a->body.len = 0;
    if (a->provider == ANTHROPIC) {
        anthropic_error(a, message);
        return;
    }
    buf_str(&a->body, "{\"error\":{\"message\":");
    buf_json_string(&a->body, message);
    buf_printf(&a->body, ",\"type\":\"%s\",\"param\":",
               status >= 500 ? "server_error" : "invalid_request_error");
    json_or_null(&a->body, param);
    buf_str(&a->body, ",\"code\":");
    json_or_null(&a->body, code);
    buf_str(&a->body, "}}");
}

void answer_free(struct answer *a)
{
    buf_free(&a->body);
    for (size_t i = 0; i < a->n_headers; i++) {
        free(a->headers[i].name);
        free(a->headers[i].value);
    }
    a->n_headers = 0;
}

static void gzip(struct buf *body)
{
    z_stream z = {0};
    struct buf out = {0};

    if (deflateInit2(&z, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        return;
    buf_reserve(&out, deflateBound(&z, body->len));
    z.next_in = (Bytef *)body->at;
    z.avail_in = (uInt)body->len;
    z.next_out = (Bytef *)out.at;
    z.avail_out = (uInt)out.cap;
    (void)deflate(&z, Z_FINISH);
    out.len = z.total_out;
    (void)deflateEnd(&z);
    buf_free(body);
    *body = out;
}

/* --- answers that do not travel as they should --- */

struct bent {
    struct sim *sim;
    struct MHD_Connection *connection;
    enum send_how how;
    char *bytes;
    size_t len, stop, chunk;
    int64_t interval_ms;
    bool rested;
};

static void reset_connection(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    const struct linger now = {1, 0};

    if (info)
        (void)setsockopt(info->connect_fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
}

static ssize_t bent_read(void *ctx, uint64_t pos, char *to, size_t max)
{
    struct bent *b = ctx;
    size_t n = b->len - (size_t)pos;

    if (b->how == SEND_DRIP) {
        if (!b->rested) {
            b->rested = true;
            sim_resume_after(b->sim, b->connection, b->interval_ms);
            return 0;
        }
        b->rested = false;
        n = n < b->chunk ? n : b->chunk;
    } else if (pos >= b->stop) {
        if (b->how == SEND_RESET)
            reset_connection(b->connection);
        return MHD_CONTENT_READER_END_WITH_ERROR;
    } else {
        n = b->stop - (size_t)pos;
    }
    n = n < max ? n : max;
    memcpy(to, b->bytes + pos, n);
    return (ssize_t)n;
}

static void bent_free(void *ctx)
{
    struct bent *b = ctx;

    free(b->bytes);
    free(b);
}

/* Takes the body's bytes. */
static struct MHD_Response *bent_response(struct call *c, struct answer *a)
{
    struct bent *b = xcalloc(1, sizeof *b);

    *b = (struct bent){.sim = c->sim,
                       .connection = c->connection,
                       .how = a->how,
                       .bytes = a->body.at,
                       .len = a->body.len,
                       .stop = a->send_len ? a->send_len : a->body.len / 2,
                       .chunk = a->chunk,
                       .interval_ms = a->interval_ms};
    if (b->stop > b->len)
        b->stop = b->len / 2;
    a->body = (struct buf){0};
    return MHD_create_response_from_callback(b->len, (size_t)16 * 1024, bent_read, b, bent_free);
}

/* --- HTTP --- */

void sim_resume_after(struct sim *s, struct MHD_Connection *connection, int64_t delay_ms)
{
    struct timer *t = xcalloc(1, sizeof *t);
    struct timer **at = &s->timers;

    t->at_ms = monotonic_us() / 1000 + delay_ms;
    t->resume = connection;
    while (*at && (*at)->at_ms <= t->at_ms)
        at = &(*at)->next;
    t->next = *at;
    *at = t;
    MHD_suspend_connection(connection);
}

/* Resumes what is due, or all. */
static void run_timers(struct sim *s, bool all)
{
    int64_t now = monotonic_us() / 1000;

    while (s->timers && (all || s->timers->at_ms <= now)) {
        struct timer *t = s->timers;

        s->timers = t->next;
        MHD_resume_connection(t->resume);
        free(t);
    }
}

/* How long the loop may sleep: until the next timer or the library's own. */
static int wait_ms(struct sim *s)
{
    MHD_UNSIGNED_LONG_LONG theirs = 0;
    int64_t wait = 60000;

    if (s->timers)
        wait = s->timers->at_ms - monotonic_us() / 1000;
    if (MHD_get_timeout(s->daemon, &theirs) == MHD_YES && (int64_t)theirs < wait)
        wait = (int64_t)theirs;
    return wait < 0 ? 0 : wait > 60000 ? 60000 : (int)wait;
}

static void add_headers(struct call *c, const struct answer *a, struct MHD_Response *r)
{
    time_t now = (time_t)(sim_now(c->sim) + a->date_offset_s);
    struct tm tm;
    char text[64];

    if (gmtime_r(&now, &tm) && strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &tm))
        (void)MHD_add_response_header(r, "Date", text);
    (void)MHD_add_response_header(r, a->provider == ANTHROPIC ? "request-id" : "x-request-id",
                                  a->request_id);
    (void)MHD_add_response_header(r, "Content-Type",
                                  a->content_type ? a->content_type : "application/json");
    for (size_t i = 0; i < a->n_headers; i++)
        (void)MHD_add_response_header(r, a->headers[i].name, a->headers[i].value);
}

static struct MHD_Response *build_response(struct call *c, struct answer *a)
{
    const char *accept =
        MHD_lookup_connection_value(c->connection, MHD_HEADER_KIND, "Accept-Encoding");
    struct MHD_Response *r;
    bool zip = !a->plain && !c->sim->options.no_gzip && accept && strstr(accept, "gzip") &&
               a->body.len > 0;

    if (zip)
        gzip(&a->body);
    if (a->how == SEND_WHOLE) {
        r = MHD_create_response_from_buffer(a->body.len, a->body.at, MHD_RESPMEM_MUST_FREE);
        a->body = (struct buf){0};
    } else {
        r = bent_response(c, a);
    }
    if (r && zip)
        (void)MHD_add_response_header(r, "Content-Encoding", "gzip");
    return r;
}

static void answer(struct call *c)
{
    struct answer a = {0};

    if (strncmp(c->path, "/v1/organizations/", 18) == 0)
        a.provider = ANTHROPIC;
    (void)snprintf(a.request_id, sizeof a.request_id, "req_sim%016" PRIx64,
                   ledger_mix(c->sim->ledger.seed + ++c->sim->request_serial));
    if (strncmp(c->path, "/_sim/", 6) == 0)
        c->response = control_answer(c, &a);
    else
        api_answer(c, &a);
    c->status = a.status;
    c->drop = a.how == SEND_NOTHING;
    if (!c->response && !c->drop)
        c->response = build_response(c, &a);
    if (c->response)
        add_headers(c, &a, c->response);
    if (a.delay_ms > 0)
        sim_resume_after(c->sim, c->connection, a.delay_ms);
    c->seen = a.delay_ms == 0; /* else it is sent when this is called again */
    answer_free(&a);
}

/* NOLINTNEXTLINE(readability-function-size): the library has eight parameters */
static enum MHD_Result on_request(void *ctx, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_len, void **state)
{
    struct call *c = *state;

    (void)version;
    if (!c->connection) { /* only the headers are there */
        c->sim = ctx;
        c->connection = connection;
        return MHD_YES;
    }
    if (*upload_len) {
        if (c->upload.len + *upload_len > 1 << 20)
            return MHD_NO;
        buf_add(&c->upload, upload, *upload_len);
        *upload_len = 0;
        return MHD_YES;
    }
    if (!c->response && !c->drop) {
        c->path = url;
        c->method = method;
        answer(c);
        if (!c->seen)
            return MHD_YES;
    }
    return c->drop || !c->response ? MHD_NO
                                   : MHD_queue_response(connection, c->status, c->response);
}

static void *on_uri(void *ctx, const char *uri, struct MHD_Connection *connection)
{
    struct call *c = xcalloc(1, sizeof *c);

    (void)ctx;
    (void)connection;
    c->uri = xstrdup(uri);
    return c;
}

static void on_completed(void *ctx, struct MHD_Connection *connection, void **state,
                         enum MHD_RequestTerminationCode why)
{
    struct call *c = *state;

    (void)ctx;
    (void)connection;
    (void)why;
    if (!c)
        return;
    if (c->account)
        c->account->in_flight--;
    if (c->response)
        MHD_destroy_response(c->response);
    buf_free(&c->upload);
    free(c->uri);
    free(c);
    *state = NULL;
}

static void on_connection(void *ctx, struct MHD_Connection *connection, void **socket_state,
                          enum MHD_ConnectionNotificationCode what)
{
    struct sim *s = ctx;

    (void)connection;
    (void)socket_state;
    if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
        s->stats.open--;
        return;
    }
    s->stats.connections++;
    if (++s->stats.open > s->stats.max_open)
        s->stats.max_open = s->stats.open;
}

/* --- start and end --- */

#define OPTION_HELP 256 /* no letter */

struct setup {
    int64_t port, accounts, anthropic, seed, now, days, settle;
    const char *port_file, *host;
    bool real, small;
};

static const char usage[] =
    "usage: uf-sim [options]\n"
    "  --port N             listen on this port (0, the default: any free one)\n"
    "  --host ADDRESS       and on this IPv4 address (127.0.0.1)\n"
    "  --port-file FILE     write the port there once listening\n"
    "  --accounts N         number of accounts, 1 to 10000000 (10)\n"
    "  --anthropic N        so many more, numbered after those, are Anthropic's (0)\n"
    "  --seed S             what the figures depend on (1)\n"
    "  --now UNIX_SECONDS   the clock (the time of the start)\n"
    "  --tick FROZEN|REAL   whether the clock moves by itself (FROZEN)\n"
    "  --days D             days of history before the clock (40)\n"
    "  --density SMALL|NORMAL  how many rows there are (NORMAL)\n"
    "  --settle SECONDS     how long a minute's figures go on rising after it (0)\n";

static bool number(const char *text, int64_t low, int64_t high, int64_t *out)
{
    char *end = NULL;
    long long v;

    errno = 0;
    v = strtoll(text, &end, 10);
    if (errno || !*text || *end || v < low || v > high) {
        (void)fprintf(stderr, "uf-sim: '%s' is not a number from %" PRId64 " to %" PRId64 "\n",
                      text, low, high);
        return false;
    }
    *out = v;
    return true;
}

static bool word(const char *text, const char *no, const char *yes, bool *out)
{
    *out = strcasecmp(text, yes) == 0;
    if (*out || strcasecmp(text, no) == 0)
        return true;
    (void)fprintf(stderr, "uf-sim: '%s' is neither %s nor %s\n", text, no, yes);
    return false;
}

static bool parse_option(struct setup *s, int c)
{
    switch (c) {
    case 'p':
        return number(optarg, 0, 65535, &s->port);
    case 'h':
        s->host = optarg;
        return true;
    case 'f':
        s->port_file = optarg;
        return true;
    case 'a':
        return number(optarg, 1, 10000000, &s->accounts);
    case 'b':
        return number(optarg, 0, 10000000, &s->anthropic);
    case 's':
        return number(optarg, 0, INT64_MAX, &s->seed);
    case 'n':
        return number(optarg, 86400, INT64_C(4102444800), &s->now);
    case 'd':
        return number(optarg, 0, 3650, &s->days);
    case 'l':
        return number(optarg, 0, 86400, &s->settle);
    case 't':
        return word(optarg, "FROZEN", "REAL", &s->real);
    case 'y':
        return word(optarg, "NORMAL", "SMALL", &s->small);
    default:
        (void)fputs(usage, stderr);
        return false;
    }
}

static bool parse_options(struct setup *s, int argc, char **argv)
{
    static const struct option options[] = {
        {"port", required_argument, NULL, 'p'},
        {"port-file", required_argument, NULL, 'f'},
        {"accounts", required_argument, NULL, 'a'},
        {"anthropic", required_argument, NULL, 'b'},
        {"seed", required_argument, NULL, 's'},
        {"now", required_argument, NULL, 'n'},
        {"days", required_argument, NULL, 'd'},
        {"tick", required_argument, NULL, 't'},
        {"density", required_argument, NULL, 'y'},
        {"settle", required_argument, NULL, 'l'},
        {"host", required_argument, NULL, 'h'},
        {"help", no_argument, NULL, OPTION_HELP},
        {NULL, 0, NULL, 0},
    };
    int c;

    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (c == OPTION_HELP) {
            (void)fputs(usage, stdout);
            exit(0);
        }
        if (!parse_option(s, c))
            return false;
    }
    if (optind < argc) {
        (void)fprintf(stderr, "uf-sim: '%s' is not an option\n%s", argv[optind], usage);
        return false;
    }
    return true;
}

static struct sim *sim_open(const struct setup *setup)
{
    struct sim *s = xcalloc(1, sizeof *s);

    s->ledger.seed = ledger_mix((uint64_t)setup->seed);
    s->ledger.first_anthropic = (uint32_t)setup->accounts;
    s->ledger.accounts = (uint32_t)(setup->accounts + setup->anthropic);
    s->ledger.small = setup->small;
    s->ledger.settle_s = setup->settle;
    s->ledger.history_from = setup->now - setup->now % DAY - setup->days * DAY;
    s->options.costs_page_limit = 31; /* seen live: 32 were asked for and 31 came */
    s->clock_us = setup->now * 1000000;
    s->set_at_us = setup->real ? monotonic_us() : 0;
    s->accounts = xcalloc(s->ledger.accounts, sizeof(struct account *)); /* untouched: free */
    return s;
}

static bool listen_on(struct sim *s, const char *host, int64_t port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};

    if (inet_pton(AF_INET, host, &at.sin_addr) != 1) {
        (void)fprintf(stderr, "uf-sim: '%s' is not an IPv4 address\n", host);
        return false;
    }
    s->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_SUPPRESS_DATE_NO_CLOCK, (uint16_t)port,
        NULL, NULL, on_request, s, MHD_OPTION_SOCK_ADDR, (struct sockaddr *)&at,
        MHD_OPTION_URI_LOG_CALLBACK, on_uri, NULL, MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, s, MHD_OPTION_CONNECTION_LIMIT, 16000U,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)32 * 1024, MHD_OPTION_END);
    if (!s->daemon)
        (void)fprintf(stderr, "uf-sim: can not listen on %s:%" PRId64 ": %s\n", host, port,
                      strerror(errno));
    return s->daemon;
}

/* Says where it listens. The file appears whole or not at all. */
static bool announce(const struct sim *s, const struct setup *setup)
{
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_BIND_PORT);
    unsigned port = info ? info->port : 0;
    char temporary[4096];
    FILE *f;

    if (setup->port_file) {
        (void)snprintf(temporary, sizeof temporary, "%s.new", setup->port_file);
        f = fopen(temporary, "w");
        if (!f || fprintf(f, "%u\n", port) < 0 || fclose(f) != 0 ||
            rename(temporary, setup->port_file) != 0) {
            (void)fprintf(stderr, "uf-sim: can not write %s: %s\n", setup->port_file,
                          strerror(errno));
            return false;
        }
    }
    (void)printf("uf-sim: http://%s:%u, %" PRId64 " accounts, ", setup->host, port,
                 setup->accounts);
    if (setup->anthropic)
        (void)printf("%" PRId64 " of Anthropic, ", setup->anthropic);
    (void)printf("seed %" PRId64 ", now %" PRId64 "\n", setup->seed, setup->now);
    return fflush(stdout) == 0;
}

/* A connection is a descriptor, and the usual soft limit is 1024. */
static void allow_many_connections(void)
{
    struct rlimit files;

    if (getrlimit(RLIMIT_NOFILE, &files) != 0)
        return;
    files.rlim_cur = files.rlim_max < 65536 ? files.rlim_max : 65536;
    (void)setrlimit(RLIMIT_NOFILE, &files);
}

/* The one loop: HTTP, timers, until SIGTERM or SIGINT. */
static bool serve(struct sim *s)
{
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    struct epoll_event on = {.events = EPOLLIN}, got[2];
    int loop = epoll_create1(EPOLL_CLOEXEC), stop;
    sigset_t signals;

    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGTERM);
    (void)sigaddset(&signals, SIGINT);
    (void)sigprocmask(SIG_BLOCK, &signals, NULL);
    stop = signalfd(-1, &signals, SFD_CLOEXEC);
    on.data.fd = stop;
    if (loop < 0 || stop < 0 || !info || epoll_ctl(loop, EPOLL_CTL_ADD, stop, &on) != 0)
        return false;
    on.data.fd = info->epoll_fd;
    if (epoll_ctl(loop, EPOLL_CTL_ADD, info->epoll_fd, &on) != 0)
        return false;
    for (;;) {
        run_timers(s, false); /* first: it takes MHD_run to let a resumed connection go on */
        (void)MHD_run(s->daemon);

        int n = epoll_wait(loop, got, 2, wait_ms(s));

        for (int i = 0; i < n; i++)
            if (got[i].data.fd == stop)
                return true;
    }
}

static void sim_close(struct sim *s)
{
    if (s->daemon) {
        run_timers(s, true);
        MHD_stop_daemon(s->daemon);
    }
    faults_clear(s);
    api_forget_aliases(s);
    ledger_forget_restatements(&s->ledger);
    for (uint32_t i = 0; i < s->ledger.accounts; i++)
        free(s->accounts[i]);
    for (size_t i = 0; i < LOG_LEN; i++)
        free(s->log[i].uri);
    free(s->accounts);
    free(s);
}

int main(int argc, char **argv)
{
    struct setup setup = {
        .host = "127.0.0.1", .accounts = 10, .seed = 1, .now = time(NULL), .days = 40};

    (void)signal(SIGPIPE, SIG_IGN);
    if (!parse_options(&setup, argc, argv))
        return 2;

    allow_many_connections();

    struct sim *s = sim_open(&setup);
    bool ok = listen_on(s, setup.host, setup.port) && announce(s, &setup) && serve(s);

    sim_close(s);
    return ok ? 0 : 1;
}
