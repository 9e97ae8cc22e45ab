/* bench links - jobs and pages over common/link.c against bare libzmq of the same pattern.
 *
 * Usage: links KEYS_FILE|- PAIRS JOBS BUNDLES OUR_JOBS OUR_PAGES BARE_JOBS BARE_PAGES
 *
 * The last four are endpoints, of one transport. With KEYS_FILE, which is written, both sides are
 * encrypted (CURVE); ours has its doorkeeper as well.
 *
 * jobs: ROUTER to DEALER and back, 200 bytes each way, 256 under way; round trips a second.
 * pages: PUSH to PULL, a head of 200 bytes and nine bodies of 8 KiB that are not copied; bundles a
 * second. Each connecting end is a process of its own. The bare ends have the same high-water marks
 * and otherwise libzmq's defaults; they wait in libzmq's own blocking calls. */
#include "tests/bench/bench.h"

#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "common/keys.h"
#include "common/link.h"
#include "common/log.h"
#include "common/zap.h"

#define UNDER_WAY 256
#define SMALL     200                /* bytes of a job, of its answer, of the head of a bundle */
#define BODY      ((size_t)9 * 8192) /* of a bundle: nine pages */
#define JOBS_HWM  1000               /* as in common/link.c */
#define PAGES_HWM 64
#define WAIT_MS   10000 /* for the other end's next word */

enum role { SCHEDULER, FETCHER, NORMALIZER, N_ROLES };
static const enum stage_mask stages[N_ROLES] = {STAGE_SCHEDULER, STAGE_FETCHER, STAGE_NORMALIZER};

static unsigned char public_keys[N_ROLES][CURVE_KEY_LEN], secret_keys[N_ROLES][CURVE_KEY_LEN];
static const char *keys_file; /* NULL: plain */
static const char small[SMALL];

static void zmq_must(int rc, const char *what)
{
    if (rc >= 0)
        return;
    (void)fprintf(stderr, "bench: %s: %s\n", what, zmq_strerror(zmq_errno()));
    exit(1);
}

static void make_keys(void)
{
    FILE *out = fopen(keys_file, "w");

    if (!out)
        give_up("the file of keys can not be written");
    for (size_t i = 0; i < N_ROLES; i++) {
        char open[CURVE_TEXT_LEN + 1], secret[CURVE_TEXT_LEN + 1];
        zmq_must(zmq_curve_keypair(open, secret), "zmq_curve_keypair");
        (void)fprintf(out, "%s %s\n", stage_name(stages[i]), open);
        if (!zmq_z85_decode(public_keys[i], open) || !zmq_z85_decode(secret_keys[i], secret))
            give_up("a key is not in Z85");
    }
    if (fclose(out) != 0)
        give_up("the file of keys can not be written");
}

/* ---- ours ---- */

struct end {
    void *zmq;
    struct zap *zap; /* NULL: it connects, or nothing is encrypted */
    struct link *link;
};

static void end_open(struct end *e, enum role role, enum link_kind kind, const char *endpoint,
                     bool binds)
{
    struct err err = {0};
    const struct config cfg = {.stage = stages[role],
                               .jobs = endpoint,
                               .pages = endpoint,
                               .instance = stage_name(stages[role]),
                               .allow_plaintext = !keys_file,
                               .curve_secret = {secret_keys[role], keys_file ? CURVE_KEY_LEN : 0},
                               .curve_keys = keys_file};

    e->zmq = zmq_ctx_new();
    if (keys_file && binds)
        must(zap_open(&e->zap, e->zmq, &cfg, &err), &err);
    must(link_open(&e->link, e->zmq, kind, &cfg, TEXT_NULL, &err), &err);
}

/* As a stage waits: whoever knocks is let in, and links that are due are refreshed. */
static void end_wait(struct end *e, short events)
{
    zmq_pollitem_t on[2] = {{.events = events}, {.events = ZMQ_POLLIN}};
    bool there = link_n_sockets(e->link) > 0;
    int64_t wait_us = link_deadline_us(e->link) - clock_mono_us();
    int n = 1;

    on[0].socket = there ? link_socket(e->link, 0) : NULL;
    on[0].fd = -1;
    if (e->zap)
        on[n++].socket = zap_socket(e->zap);
    wait_us = wait_us < 0 ? 0 : wait_us < WAIT_MS * US_PER_MS ? wait_us : WAIT_MS * US_PER_MS;
    if (there)
        (void)zmq_poll(on, n, wait_us / US_PER_MS);
    else
        (void)usleep(1000);
    if (e->zap && (on[1].revents & ZMQ_POLLIN))
        zap_serve(e->zap, NULL);
    if (clock_mono_us() >= link_deadline_us(e->link))
        link_refresh(e->link, clock_mono_us());
}

static void our_fetcher(const char *endpoint, int start)
{
    const struct text answer = {small, SMALL};
    struct end e = {0};
    struct err err;
    struct msg in;

    (void)start;
    end_open(&e, FETCHER, LINK_JOBS_IN, endpoint, false);
    while (link_n_sockets(e.link) == 0 || link_send(e.link, 0, &answer, 1, &err) != ST_OK)
        end_wait(&e, ZMQ_POLLOUT); /* tells who it is, once somebody is there */
    for (;;) {
        end_wait(&e, ZMQ_POLLIN);
        while (link_n_sockets(e.link) > 0 && link_recv(e.link, 0, &in, &err) == ST_OK) {
            msg_clear(&in);
            must(link_send(e.link, 0, &answer, 1, &err), &err);
        }
    }
}

static char peer_bytes[256];

/* Round trips a second, over `n`. */
static double our_jobs(struct end *e, struct text *peer, uint64_t n)
{
    uint64_t sent = 0, answered = 0;
    int64_t began, word;
    struct err err;
    struct msg in;

    while (!peer->at) {
        end_wait(e, ZMQ_POLLIN);
        if (link_recv(e->link, 0, &in, &err) != ST_OK)
            continue;
        *peer = (struct text){memcpy(peer_bytes, msg_frame(&in, 0).at, msg_frame(&in, 0).len),
                              msg_frame(&in, 0).len};
        msg_clear(&in);
    }
    began = word = clock_mono_us();
    while (answered < n) {
        const struct text frames[] = {*peer, {small, SMALL}};
        for (; sent < n && sent - answered < UNDER_WAY; sent++)
            must(link_send(e->link, 0, frames, 2, &err), &err);
        end_wait(e, ZMQ_POLLIN);
        while (link_recv(e->link, 0, &in, &err) == ST_OK) {
            answered++;
            msg_clear(&in);
            word = 0;
        }
        if (word == 0)
            word = clock_mono_us();
        else if (clock_mono_us() - word > WAIT_MS * US_PER_MS)
            give_up("no word from the fetcher's end");
    }
    return (double)n / seconds_since(began);
}

static void free_body(void *body, void *hint)
{
    (void)hint;
    free(body);
}

static void *body_new(void)
{
    char *body = malloc(BODY);

    if (!body)
        give_up("out of memory");
    memset(body, 'x', BODY);
    return body;
}

/* How many bundles are wanted now. */
static uint64_t asked_for(int start)
{
    uint64_t n;

    if (read(start, &n, sizeof(n)) != (ssize_t)sizeof(n))
        exit(0); /* the benchmark is over */
    return n;
}

static void our_pages_out(const char *endpoint, int start)
{
    const struct text head = {small, SMALL};
    struct end e = {0};
    struct err err;

    end_open(&e, FETCHER, LINK_PAGES_OUT, endpoint, false);
    for (;;) {
        for (uint64_t n = asked_for(start); n > 0; n--) {
            const struct text body = {body_new(), BODY};
            while (link_send_body(e.link, head, body, free_body, &err) != ST_OK)
                end_wait(&e, ZMQ_POLLOUT);
        }
    }
}

static void ask_for(int start, uint64_t n)
{
    if (write(start, &n, sizeof(n)) != (ssize_t)sizeof(n))
        give_up("the other end is gone");
}

/* Bundles a second, over `n`. */
static double our_pages(struct end *e, int start, uint64_t n)
{
    int64_t began = clock_mono_us(), word = began;
    uint64_t received = 0;
    struct err err;
    struct msg in;

    ask_for(start, n);
    while (received < n) {
        end_wait(e, ZMQ_POLLIN);
        while (link_recv(e->link, 0, &in, &err) == ST_OK) {
            if (in.n != 2)
                give_up("a bundle is not whole");
            received++;
            msg_clear(&in);
            word = 0;
        }
        if (word == 0)
            word = clock_mono_us();
        else if (clock_mono_us() - word > WAIT_MS * US_PER_MS)
            give_up("no word from the other end");
    }
    return (double)n / seconds_since(began);
}

/* ---- bare libzmq ---- */

static void set_int(void *socket, int option, int value)
{
    zmq_must(zmq_setsockopt(socket, option, &value, sizeof(value)), "zmq_setsockopt");
}

static void set_key(void *socket, int option, const unsigned char *key)
{
    zmq_must(zmq_setsockopt(socket, option, key, CURVE_KEY_LEN), "zmq_setsockopt");
}

static void *bare_open(int type, int hwm, const char *endpoint, bool binds)
{
    void *socket = zmq_socket(zmq_ctx_new(), type);

    set_int(socket, ZMQ_SNDHWM, hwm);
    set_int(socket, ZMQ_RCVHWM, hwm);
    set_int(socket, ZMQ_RCVTIMEO, binds ? WAIT_MS : -1);
    if (keys_file && binds) {
        set_int(socket, ZMQ_CURVE_SERVER, 1);
        set_key(socket, ZMQ_CURVE_SECRETKEY, secret_keys[SCHEDULER]);
    } else if (keys_file) {
        set_key(socket, ZMQ_CURVE_SERVERKEY, public_keys[SCHEDULER]);
        set_key(socket, ZMQ_CURVE_PUBLICKEY, public_keys[FETCHER]);
        set_key(socket, ZMQ_CURVE_SECRETKEY, secret_keys[FETCHER]);
    }
    zmq_must(binds ? zmq_bind(socket, endpoint) : zmq_connect(socket, endpoint), endpoint);
    return socket;
}

static void bare_fetcher(const char *endpoint, int start)
{
    void *socket = bare_open(ZMQ_DEALER, JOBS_HWM, endpoint, false);
    zmq_msg_t in;

    (void)start;
    zmq_must(zmq_send(socket, small, SMALL, 0), "zmq_send");
    (void)zmq_msg_init(&in);
    while (zmq_msg_recv(&in, socket, 0) >= 0)
        zmq_must(zmq_send(socket, small, SMALL, 0), "zmq_send");
}

static double bare_jobs(void *socket, struct text *peer, uint64_t n)
{
    static char name[256];
    int64_t began;
    zmq_msg_t in;
    uint64_t sent = 0, answered = 0;
    int len;

    (void)zmq_msg_init(&in);
    if (!peer->at) {
        zmq_must(len = zmq_recv(socket, name, sizeof(name), 0), "zmq_recv");
        *peer = (struct text){name, (size_t)len};
        zmq_must(zmq_msg_recv(&in, socket, 0), "zmq_msg_recv");
    }
    began = clock_mono_us();
    while (answered < n) {
        for (; sent < n && sent - answered < UNDER_WAY; sent++) {
            zmq_must(zmq_send(socket, peer->at, peer->len, ZMQ_SNDMORE), "zmq_send");
            zmq_must(zmq_send(socket, small, SMALL, 0), "zmq_send");
        }
        zmq_must(zmq_msg_recv(&in, socket, 0), "zmq_msg_recv");
        zmq_must(zmq_msg_recv(&in, socket, 0), "zmq_msg_recv");
        answered++;
    }
    return (double)n / seconds_since(began);
}

static void bare_pages_out(const char *endpoint, int start)
{
    void *socket = bare_open(ZMQ_PUSH, PAGES_HWM, endpoint, false);
    zmq_msg_t frame;

    for (;;) {
        for (uint64_t n = asked_for(start); n > 0; n--) {
            zmq_must(zmq_send(socket, small, SMALL, ZMQ_SNDMORE), "zmq_send");
            zmq_must(zmq_msg_init_data(&frame, body_new(), BODY, free_body, NULL),
                     "zmq_msg_init_data");
            zmq_must(zmq_msg_send(&frame, socket, 0), "zmq_msg_send");
        }
    }
}

static double bare_pages(void *socket, int start, uint64_t n)
{
    int64_t began = clock_mono_us();
    zmq_msg_t in;

    (void)zmq_msg_init(&in);
    ask_for(start, n);
    for (uint64_t i = 0; i < 2 * n; i++)
        zmq_must(zmq_msg_recv(&in, socket, 0), "zmq_msg_recv");
    return (double)n / seconds_since(began);
}

/* ---- who plays whom ---- */

/* Forks the process of the other end, before this one has any socket; it dies with this one. What
 * comes back is for ask_for. */
static int other_end(void (*life)(const char *endpoint, int start), const char *endpoint)
{
    int ends[2];
    pid_t pid;

    if (pipe(ends) < 0 || (pid = fork()) < 0)
        give_up("no process for the other end");
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)close(ends[1]);
        life(endpoint, ends[0]);
        _exit(1);
    }
    (void)close(ends[0]);
    return ends[1];
}

int main(int argc, char **argv)
{
    struct end our_scheduler = {0}, our_normalizer = {0};
    struct text our_peer = TEXT_NULL, bare_peer = TEXT_NULL;
    void *bare_scheduler, *bare_normalizer;
    uint64_t jobs, bundles;
    int our_fetcher_pages, bare_fetcher_pages;

    if (argc != 9) {
        (void)fprintf(stderr, "usage: links KEYS_FILE|- PAIRS JOBS BUNDLES OUR_JOBS OUR_PAGES "
                              "BARE_JOBS BARE_PAGES\n");
        return 2;
    }
    log_open("bench", LOG_WARN);
    keys_file = strcmp(argv[1], "-") == 0 ? NULL : argv[1];
    if (keys_file)
        make_keys();
    jobs = strtoull(argv[3], NULL, 10);
    bundles = strtoull(argv[4], NULL, 10);
    (void)other_end(our_fetcher, argv[5]);
    our_fetcher_pages = other_end(our_pages_out, argv[6]);
    (void)other_end(bare_fetcher, argv[7]);
    bare_fetcher_pages = other_end(bare_pages_out, argv[8]);
    end_open(&our_scheduler, SCHEDULER, LINK_JOBS_OUT, argv[5], true);
    end_open(&our_normalizer, NORMALIZER, LINK_PAGES_IN, argv[6], true);
    bare_scheduler = bare_open(ZMQ_ROUTER, JOBS_HWM, argv[7], true);
    bare_normalizer = bare_open(ZMQ_PULL, PAGES_HWM, argv[8], true);
    for (long i = strtol(argv[2], NULL, 10); i >= 0; i--) {
        double ours = our_jobs(&our_scheduler, &our_peer, jobs);
        double bare = bare_jobs(bare_scheduler, &bare_peer, jobs);
        double our_bundles = our_pages(&our_normalizer, our_fetcher_pages, bundles);
        double bare_bundles = bare_pages(bare_normalizer, bare_fetcher_pages, bundles);
        if (i == strtol(argv[2], NULL, 10))
            continue; /* the first round connects */
        report("jobs", ours, bare);
        report("pages", our_bundles, bare_bundles);
    }
    link_close(&our_scheduler.link);
    link_close(&our_normalizer.link);
    return 0;
}
