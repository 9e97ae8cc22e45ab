/* bench fetcher - CPU of uf-fetcher for a request, pages handed on, against a bare libcurl loop.
 *
 * Usage: fetcher PID BASE_URL FROM_S IN_FLIGHT REQUESTS PAIRS [CA_FILE]
 *
 * PID is a running uf-fetcher in the same UF_RUN_DIR. This program is its scheduler and the sink of
 * its pages: IN_FLIGHT accounts at once, each a job of nine feeds with a page each, from a server
 * that answers any path with one page. The limit asks the same server for the same number of
 * bodies: one multi handle, multi_socket in a libuv loop, as many at once, bodies copied to memory
 * and dropped. */
#include "tests/bench/bench.h"

#include <string.h>
#include <unistd.h>

#include "common/link.h"
#include "common/wire.h"
#include "tests/bench/multi.h"

#define IN_FLIGHT_MAX 4096
#define FEEDS         9
#define WAIT_MS       10000 /* for the fetcher's next word */

static const char *const feeds[FEEDS] = {
    "completions",       "embeddings",           "moderations",   "images",
    "audio_speeches",    "audio_transcriptions", "vector_stores", "code_interpreter_sessions",
    "file_search_calls",
};

/* ---- ours: the scheduler and the sink of a real uf-fetcher ---- */

struct driver {
    struct config cfg;
    struct sealer *sealer;
    struct link *jobs, *pages;
    struct arena *arena;
    const char *base_url, *fetcher_pid;
    int64_t from_us;
    struct text fetcher;                /* its routing id */
    uint64_t asked, answered, received; /* requests, their answers, pages */
    size_t in_flight, out;
};

/* Of another process, user and system. */
static double cpu_of(const char *pid)
{
    char path[64], line[1024];
    unsigned long long user, system;
    const char *at;
    FILE *in;

    (void)snprintf(path, sizeof(path), "/proc/%s/stat", pid);
    in = fopen(path, "r");
    if (!in || !fgets(line, sizeof(line), in) || !(at = strrchr(line, ')')))
        give_up("the fetcher has ended");
    (void)fclose(in);
    /* NOLINTNEXTLINE(cert-err34-c): the kernel wrote it */
    if (sscanf(at + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user, &system) !=
        2)
        give_up("/proc/PID/stat is not as expected");
    return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

static void send_job(struct driver *d, uint16_t account)
{
    struct err err = {0};
    struct window windows[FEEDS];
    struct buf message = {.arena = d->arena};
    char name[32], key[32];
    struct secret plain = {(unsigned char *)key, 0};
    struct job job = {.account_id = 1 + account,
                      .epoch = 1,
                      .lease_ms = 60000,
                      .account = {name, 0},
                      .provider = TEXT_LIT("openai"),
                      .base_url = text_of(d->base_url),
                      .page_cap = 10,
                      .windows = windows,
                      .n_windows = FEEDS};
    struct text frames[2] = {d->fetcher};
    enum status st;

    uuid_random(&job.job_id);
    memcpy(job.job_id.at, &account, sizeof(account)); /* tells whose `done` it is */
    uuid_random(&job.scheduler_id);
    job.account.len = (size_t)snprintf(name, sizeof(name), "bench-%u", account);
    plain.len = (size_t)snprintf(key, sizeof(key), "sk-admin-bench-%08u", account);
    must(secret_seal(&job.sealed_key, d->arena, d->sealer, job.provider, job.account, &plain, &err),
         &err);
    for (size_t f = 0; f < FEEDS; f++)
        windows[f] =
            (struct window){.feed = text_of(feeds[f]), .from_us = d->from_us, .bucket_s = 3600};
    job_encode(&message, &job);
    frames[1] = (struct text){message.at, message.len};
    while ((st = link_send(d->jobs, 0, frames, 2, &err)) == ST_RETRY) { /* 1,000 at once fill it */
        zmq_pollitem_t on = {.socket = link_socket(d->jobs, 0), .events = ZMQ_POLLOUT};
        if (zmq_poll(&on, 1, WAIT_MS) <= 0)
            give_up("the fetcher takes no jobs");
    }
    must(st, &err);
    d->asked += FEEDS;
    d->out++;
}

static void take_done(struct driver *d, struct text message, uint64_t target)
{
    struct err err = {0};
    const struct done *done;
    uint16_t account;

    must(done_decode(&done, d->arena, message, &err), &err);
    for (size_t i = 0; i < done->n_ends; i++) {
        if (done->ends[i].ending != END_OK) {
            (void)fprintf(stderr, "bench: %s: %.*s\n", ending_name(done->ends[i].ending),
                          (int)done->ends[i].detail.len, done->ends[i].detail.at);
            exit(1);
        }
        d->answered += done->ends[i].requests;
    }
    d->out--;
    memcpy(&account, done->job_id.at, sizeof(account));
    if (d->asked < target)
        send_job(d, account);
}

static void take_jobs_link(struct driver *d, uint64_t target)
{
    struct err err = {0};
    struct msg in;
    enum wire_kind kind;

    while (link_recv(d->jobs, 0, &in, &err) == ST_OK) {
        must(wire_kind_of(&kind, msg_frame(&in, 1), &err), &err);
        if (!d->fetcher.at) {
            struct text id = msg_frame(&in, 0);
            char *kept = malloc(id.len);
            if (!kept)
                give_up("out of memory");
            memcpy(kept, id.at, id.len);
            d->fetcher = (struct text){kept, id.len};
        }
        if (kind == WIRE_DONE)
            take_done(d, msg_frame(&in, 1), target);
        msg_clear(&in);
        arena_reset(d->arena);
    }
}

static void take_pages_link(struct driver *d)
{
    struct err err = {0};
    struct msg in;

    while (link_recv(d->pages, 0, &in, &err) == ST_OK) {
        const struct pages *pages;
        must(pages_decode(&pages, d->arena, msg_frame(&in, 0), msg_frame(&in, 1), &err), &err);
        d->received += pages->n_pages;
        msg_clear(&in);
        arena_reset(d->arena);
    }
}

static void turn(struct driver *d, uint64_t target)
{
    zmq_pollitem_t on[] = {{.socket = link_socket(d->jobs, 0), .events = ZMQ_POLLIN},
                           {.socket = link_socket(d->pages, 0), .events = ZMQ_POLLIN}};

    if (zmq_poll(on, 2, WAIT_MS) <= 0)
        give_up("no word from the fetcher");
    take_pages_link(d);
    take_jobs_link(d, target);
}

/* CPU seconds of the fetcher for one request, over about `requests`. */
static double ours(struct driver *d, uint64_t requests)
{
    uint64_t began_answers = d->answered, target = d->asked + requests;
    double began;

    while (!d->fetcher.at)
        turn(d, 0);
    began = cpu_of(d->fetcher_pid);
    for (size_t i = 0; i < d->in_flight; i++)
        send_job(d, (uint16_t)i);
    while (d->out > 0 || d->received < d->answered)
        turn(d, target);
    return (cpu_of(d->fetcher_pid) - began) / (double)(d->answered - began_answers);
}

static void driver_open(struct driver *d)
{
    struct err err = {0};
    void *zmq = zmq_ctx_new();

    must(config_load_env(&d->cfg, STAGE_ALL & ~STAGE_DATABASE, "bench", &err), &err);
    must(sealer_open(&d->sealer, &d->cfg.encryption_key, NULL, &err), &err);
    must(link_open(&d->jobs, zmq, LINK_JOBS_OUT, &d->cfg, TEXT_NULL, &err), &err);
    must(link_open(&d->pages, zmq, LINK_PAGES_IN, &d->cfg, TEXT_NULL, &err), &err);
    d->arena = arena_new();
}

/* ---- the limit: libcurl and libuv, and nothing else ---- */

struct bare {
    struct multi multi;
    CURL *easy[IN_FLIGHT_MAX];
    struct body {
        char bytes[65536];
        size_t len;
    } bodies[IN_FLIGHT_MAX];
    size_t in_flight;
    struct curl_slist *headers;
    uint64_t to_start, to_answer;
};

static size_t bare_body(char *at, size_t size, size_t n, void *arg)
{
    struct body *b = arg;

    if (size * n > sizeof(b->bytes) - b->len)
        return 0;
    memcpy(b->bytes + b->len, at, size * n);
    b->len += size * n;
    return size * n;
}

static void bare_start(struct bare *b, CURL *easy)
{
    char *body;

    b->to_start--;
    (void)curl_easy_getinfo(easy, CURLINFO_PRIVATE, &body);
    ((struct body *)(void *)body)->len = 0;
    multi_add(&b->multi, easy);
}

static void bare_answered(struct multi *m, CURL *easy)
{
    struct bare *b = m->owner;

    b->to_answer--;
    if (b->to_start > 0)
        bare_start(b, easy);
    if (b->to_answer == 0)
        multi_stop(m);
}

static void bare_open(struct bare *b, const char *base_url, const char *ca_file)
{
    struct arena *a = arena_new();
    const char *url =
        arena_printf(a,
                     "%s/organization/usage/completions?start_time=1795483788&bucket_width=1h&"
                     "limit=168&group_by=project_id&group_by=user_id&group_by=api_key_id",
                     base_url);

    multi_open(&b->multi, bare_answered, b);
    b->headers = curl_slist_append(NULL, "Authorization: Bearer sk-admin-bench-00000000");
    for (size_t i = 0; i < b->in_flight; i++) {
        CURL *e = b->easy[i] = curl_easy_init();
        (void)curl_easy_setopt(e, CURLOPT_URL, url);
        (void)curl_easy_setopt(e, CURLOPT_HTTPHEADER, b->headers);
        (void)curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, bare_body);
        (void)curl_easy_setopt(e, CURLOPT_WRITEDATA, &b->bodies[i]);
        (void)curl_easy_setopt(e, CURLOPT_PRIVATE, &b->bodies[i]);
        (void)curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
        (void)curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
        (void)curl_easy_setopt(e, CURLOPT_PIPEWAIT, strncmp(url, "https", 5) == 0 ? 1L : 0L);
        if (ca_file)
            (void)curl_easy_setopt(e, CURLOPT_CAINFO, ca_file);
    }
    arena_free(&a);
}

/* CPU seconds of this process for one request. */
static double limit(struct bare *b, uint64_t requests)
{
    double began = cpu_seconds();

    b->to_start = b->to_answer = requests;
    for (size_t i = 0; i < b->in_flight; i++)
        bare_start(b, b->easy[i]);
    multi_run(&b->multi);
    return (cpu_seconds() - began) / (double)requests;
}

int main(int argc, char **argv)
{
    static struct driver d;
    static struct bare b;
    uint64_t requests;

    if (argc < 7) {
        (void)fprintf(stderr,
                      "usage: fetcher PID BASE_URL FROM_S IN_FLIGHT REQUESTS PAIRS [CA_FILE]\n");
        return 2;
    }
    d.fetcher_pid = argv[1];
    d.base_url = argv[2];
    d.from_us = strtoll(argv[3], NULL, 10) * US_PER_S;
    d.in_flight = b.in_flight = strtoull(argv[4], NULL, 10);
    requests = strtoull(argv[5], NULL, 10);
    if (d.in_flight < 1 || d.in_flight > IN_FLIGHT_MAX)
        give_up("so many at once are not measured here");
    driver_open(&d);
    bare_open(&b, d.base_url, argc > 7 ? argv[7] : NULL);
    (void)ours(&d, requests / 3); /* connections made */
    (void)limit(&b, requests / 3 + b.in_flight);
    for (long i = strtol(argv[6], NULL, 10); i > 0; i--) {
        double us = ours(&d, requests) * 1e6;
        report("cpu", us, limit(&b, requests) * 1e6);
    }
    link_close(&d.jobs);
    link_close(&d.pages);
    return 0;
}
