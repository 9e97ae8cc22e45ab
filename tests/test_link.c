/* Links over a real ZeroMQ context: who finds whom, what a full or lonely link answers, and what is
 * left when somebody goes. */
#include "common/link.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "tests/check.h"

#define PATIENCE_US (10 * US_PER_S)

static void *ctx;
static char folder[64];
static char endpoint[80];
static int n_open;      /* links; a test that fails leaves some */
static int64_t fake_us; /* refreshes are always due */

static struct link *open_link(enum link_kind kind, const char *instance, const char *where,
                              struct text id)
{
    const struct config cfg = {.jobs = where,
                               .pages = where,
                               .records = where,
                               .acks = where,
                               .control = where,
                               .pulse = where,
                               .instance = instance,
                               .allow_plaintext = true};
    struct link *link = NULL;
    struct err err = {0};
    enum status st = link_open(&link, ctx, kind, &cfg, id, &err);

    if (st != ST_OK)
        fail_msg("%s: %s", instance, err.text);
    n_open++;
    return link;
}

static void close_link(struct link **link)
{
    if (*link)
        n_open--;
    link_close(link);
}

static void refresh(struct link *link)
{
    fake_us += 100 * US_PER_S;
    link_refresh(link, clock_mono_us() + fake_us);
}

/* Sends one frame, waiting for somebody to be there. */
static enum status send_one(struct link *link, const char *text)
{
    const struct text frame = text_of(text);
    int64_t until = clock_mono_us() + PATIENCE_US;
    struct err err;

    while (link_send(link, 0, &frame, 1, &err) != ST_OK) {
        if (clock_mono_us() > until)
            return ST_RETRY;
        refresh(link);
        (void)usleep(10000);
    }
    return ST_OK;
}

static enum status recv_within(struct link *link, size_t socket, struct msg *m, int64_t wait_us)
{
    int64_t until = clock_mono_us() + wait_us;
    enum status st;
    struct err err;

    while ((st = link_recv(link, socket, m, &err)) == ST_RETRY && clock_mono_us() < until)
        (void)usleep(2000);
    return st;
}

static int drain(struct link *link, int64_t wait_us)
{
    struct msg m;
    int n = 0;

    while (recv_within(link, 0, &m, wait_us) == ST_OK) {
        msg_clear(&m);
        n++;
    }
    return n;
}

static int setup(void **state)
{
    (void)state;
    (void)strcpy(folder, "/tmp/uf-link-XXXXXX");
    ctx = zmq_ctx_new();
    if (!ctx || !mkdtemp(folder))
        return -1;
    (void)snprintf(endpoint, sizeof(endpoint), "ipc://%s/run/jobs", folder);
    return 0;
}

static int teardown(void **state)
{
    char command[128];

    (void)state;
    if (n_open == 0) /* else it would wait for them for good */
        (void)zmq_ctx_term(ctx);
    n_open = 0;
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    return system(command);
}

/* ---- folders ---- */

/* Sends until each has got something; then nothing is on its way. */
static bool both_reached(struct link *out, struct link *a, struct link *b)
{
    int64_t until = clock_mono_us() + PATIENCE_US;
    int got_a = 0, got_b = 0;

    while ((got_a == 0 || got_b == 0) && clock_mono_us() < until) {
        if (send_one(out, "page") != ST_OK)
            return false;
        got_a += drain(a, 50000);
        got_b += drain(b, 50000);
    }
    (void)drain(a, 200000);
    (void)drain(b, 200000);
    return got_a > 0 && got_b > 0;
}

static void two_binders_share(void **state)
{
    struct link *a = open_link(LINK_PAGES_IN, "a", endpoint, TEXT_NULL);
    struct link *b = open_link(LINK_PAGES_IN, "b", endpoint, TEXT_NULL);
    struct link *out = open_link(LINK_PAGES_OUT, "f", endpoint, TEXT_NULL);
    int got_a, got_b;
    struct stat st;

    (void)state;
    assert_true(both_reached(out, a, b));
    for (int i = 0; i < 20; i++)
        assert_int_equal(send_one(out, "page"), ST_OK);
    got_a = drain(a, 500000);
    got_b = drain(b, 500000);
    assert_int_equal(got_a + got_b, 20);
    assert_true(got_a >= 5 && got_b >= 5);
    assert_int_equal(stat(endpoint + 6, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    /* one goes: all goes to the other */
    close_link(&b);
    refresh(out);
    (void)usleep(200000);
    for (int i = 0; i < 10; i++)
        assert_int_equal(send_one(out, "page"), ST_OK);
    assert_int_equal(drain(a, 500000), 10);
    /* and comes back */
    b = open_link(LINK_PAGES_IN, "b", endpoint, TEXT_NULL);
    refresh(out);
    assert_true(both_reached(out, a, b));
    close_link(&out);
    close_link(&a);
    close_link(&b);
}

static void in_any_order(void **state)
{
    struct link *out = open_link(LINK_PAGES_OUT, "f", endpoint, TEXT_NULL), *in;
    const struct text frame = TEXT_LIT("early");
    struct err err = {0};

    (void)state;
    assert_int_equal(link_send(out, 0, &frame, 1, &err), ST_RETRY);
    assert_false(link_writable(out));
    assert_true(link_deadline_us(out) <= clock_mono_us() + US_PER_S); /* it looks again soon */
    in = open_link(LINK_PAGES_IN, "n", endpoint, TEXT_NULL);
    assert_int_equal(link_deadline_us(in), INT64_MAX);
    assert_int_equal(send_one(out, "late"), ST_OK);
    assert_true(link_writable(out));
    assert_int_equal(drain(in, 500000), 1);
    close_link(&in);
    close_link(&out);
}

/* What a kill -9 leaves: a socket file that nobody listens on. */
static void leave_dead_socket(const char *path)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    (void)snprintf(to.sun_path, sizeof(to.sun_path), "%s", path);
    assert_int_equal(bind(fd, (const struct sockaddr *)&to, sizeof(to)), 0);
    (void)close(fd);
}

static void the_dead_are_swept(void **state)
{
    char dead[128], own[128], other[128];
    struct link *in, *out;

    (void)state;
    (void)snprintf(dead, sizeof(dead), "%s/dead.sock", endpoint + 6);
    (void)snprintf(own, sizeof(own), "%s/own.sock", endpoint + 6);
    (void)snprintf(other, sizeof(other), "%s/notes.txt", endpoint + 6);
    in = open_link(LINK_JOBS_OUT, "first", endpoint, TEXT_NULL);
    leave_dead_socket(dead);
    leave_dead_socket(own);
    (void)close(open(other, O_CREAT | O_WRONLY, 0600));
    out = open_link(LINK_JOBS_IN, "f", endpoint, TEXT_NULL);
    assert_int_equal(link_n_sockets(out), 1); /* the dead are passed over */
    close_link(&in);
    in = open_link(LINK_JOBS_OUT, "own", endpoint, TEXT_NULL); /* after a crash, under its name */
    assert_int_equal(access(dead, F_OK), -1);
    assert_int_equal(access(other, F_OK), 0);
    refresh(out);
    assert_int_equal(link_n_sockets(out), 1);
    close_link(&in);
    assert_int_equal(access(own, F_OK), -1);
    refresh(out);
    assert_int_equal(link_n_sockets(out), 0);
    close_link(&out);
}

static void sockets_come_and_go(void **state)
{
    struct link *one = open_link(LINK_JOBS_OUT, "s1", endpoint, TEXT_NULL), *two;
    struct link *out = open_link(LINK_JOBS_IN, "f", endpoint, TEXT_NULL);
    uint64_t generation = link_generation(out);

    (void)state;
    assert_int_equal(link_n_sockets(out), 1);
    refresh(out);
    assert_int_equal(link_generation(out), generation);
    two = open_link(LINK_JOBS_OUT, "s2", endpoint, TEXT_NULL);
    refresh(out);
    assert_int_equal(link_n_sockets(out), 2);
    assert_ptr_not_equal(link_socket(out, 0), link_socket(out, 1));
    assert_true(link_generation(out) != generation);
    generation = link_generation(out);
    close_link(&one);
    refresh(out);
    assert_int_equal(link_n_sockets(out), 1);
    assert_true(link_generation(out) != generation);
    close_link(&two);
    close_link(&out);
    close_link(&out); /* accepts NULL */
}

static void several_folders_in_one_list(void **state)
{
    char list[256], a[128], b[128];
    struct link *in, *out;

    (void)state;
    (void)snprintf(list, sizeof(list), "ipc://%s/x, ipc://%s/y,", folder, folder);
    (void)snprintf(a, sizeof(a), "%s/x/s.sock", folder);
    (void)snprintf(b, sizeof(b), "%s/y/s.sock", folder);
    in = open_link(LINK_JOBS_OUT, "s", list, TEXT_NULL);
    out = open_link(LINK_JOBS_IN, "f", list, TEXT_NULL);
    assert_int_equal(link_n_sockets(out), 2);
    assert_true(access(a, F_OK) == 0 && access(b, F_OK) == 0);
    close_link(&in);
    assert_true(access(a, F_OK) < 0 && access(b, F_OK) < 0);
    close_link(&out);
}

/* ---- refusals ---- */

static const struct {
    const char *name, *where;
    bool plaintext;
    const char *words;
} refused_cases[] = {
    {"tcp without the switch", "tcp://127.0.0.1:5555", false, "UF_ALLOW_PLAINTEXT=1"},
    {"tcp in a list without the switch", "ipc:///tmp/a,tcp://127.0.0.1:5555", false,
     "is not encrypted"},
    {"no port", "tcp://127.0.0.1", true, "write tcp://HOST:PORT"},
    {"an empty port", "tcp://127.0.0.1:", true, "write tcp://HOST:PORT"},
    {"a named port", "tcp://127.0.0.1:http", true, "write tcp://HOST:PORT"},
    {"no host", "tcp://:5555", true, "write tcp://HOST:PORT"},
    {"nothing after tcp", "tcp://", true, "write tcp://HOST:PORT"},
    {"no folder", "ipc://", true, "write ipc://FOLDER or tcp://HOST:PORT"},
    {"another scheme", "inproc://x", true, "write ipc://FOLDER or tcp://HOST:PORT"},
    {"a path alone", "/tmp/x", true, "write ipc://FOLDER"},
    {"upper case", "TCP://127.0.0.1:1", true, "write ipc://FOLDER"},
    {"nothing", "", true, "'jobs' is empty"},
    {"commas alone", " , ,", true, "'jobs' is empty"},
    {"not an address of ours", "tcp://192.0.2.1:5555", true, "can not listen on tcp://192.0.2.1"},
    {"a folder below a file", "ipc:///dev/null/x", true, "choose another UF_RUN_DIR"},
    {"a path longer than a socket's may be",
     "ipc:///tmp/uf-link-long/"
     "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
     true, "choose a shorter UF_RUN_DIR"},
    {"more endpoints than a list may have",
     "ipc://1,ipc://1,ipc://1,ipc://1,ipc://1,ipc://1,ipc://1,ipc://1,ipc://1,ipc://1,ipc://1,"
     "ipc://1,ipc://1,ipc://1,ipc://1,ipc://1,ipc://1,ipc://1,ipc://1,ipc://1,ipc://1,ipc://1,"
     "ipc://1,ipc://1,ipc://1,ipc://1,ipc://1,ipc://1,ipc://1,ipc://1,ipc://1,ipc://1,ipc://1",
     true, "more than 32 endpoints"},
};

/* A process and usagectl beside it have one environment. */
static void nobody_connects_to_a_star(void **state)
{
    const struct config both = {.control = "ipc:///tmp/uf-link-none,tcp://*:5555", .instance = "i"};
    const struct config star = {.control = "tcp://*:5555", .instance = "i"};
    struct link *link = NULL;
    struct err err = {0};

    (void)state;
    assert_int_equal(link_open(&link, ctx, LINK_CONTROL_OUT, &both, TEXT_NULL, &err), ST_OK);
    link_close(&link); /* without a key, and without UF_ALLOW_PLAINTEXT */
    assert_int_equal(link_open(&link, ctx, LINK_CONTROL_OUT, &star, TEXT_NULL, &err), ST_FATAL);
    assert_true(has_words("star alone", err.text, "nobody connects to it"));
    link_close(&link);
}

static void refusals(void **state)
{
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(refused_cases); i++) {
        const struct config cfg = {.jobs = refused_cases[i].where,
                                   .instance = "an-instance-with-quite-a-long-name",
                                   .allow_plaintext = refused_cases[i].plaintext};
        struct link *link = NULL;
        struct err err = {0};
        enum status st = link_open(&link, ctx, LINK_JOBS_OUT, &cfg, TEXT_NULL, &err);
        good &= same_int(refused_cases[i].name, st, ST_FATAL);
        good &= has_words(refused_cases[i].name, err.text, refused_cases[i].words);
        link_close(&link);
    }
    (void)rmdir("/tmp/uf-link-long/"
                "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
    (void)rmdir("/tmp/uf-link-long");
    assert_true(good);
}

static void an_instance_runs_once(void **state)
{
    struct link *first = open_link(LINK_JOBS_OUT, "twin", endpoint, TEXT_NULL), *second = NULL;
    const struct config cfg = {.jobs = endpoint, .instance = "twin"};
    struct link *out = open_link(LINK_JOBS_IN, "f", endpoint, TEXT_NULL);
    struct err err = {0};

    (void)state;
    assert_int_equal(link_open(&second, ctx, LINK_JOBS_OUT, &cfg, TEXT_NULL, &err), ST_FATAL);
    assert_true(has_words("twin", err.text, "UF_INSTANCE=twin is running already"));
    link_close(&second);
    refresh(out);
    assert_int_equal(link_n_sockets(out), 1); /* the refused one left the first's socket alone */
    close_link(&out);
    close_link(&first);
}

/* ---- tcp ---- */

static uint16_t free_port(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(at);
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    assert_int_equal(bind(fd, (const struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &len), 0);
    (void)close(fd);
    return ntohs(at.sin_port);
}

static void a_host_name_is_every_address(void **state)
{
    char bound[64], named[64];
    uint16_t port = free_port();
    struct link *in, *out;

    (void)state;
    (void)snprintf(bound, sizeof(bound), "tcp://127.0.0.1:%u", port);
    (void)snprintf(named, sizeof(named), "tcp://localhost:%u", port);
    in = open_link(LINK_PAGES_IN, "n", bound, TEXT_NULL);
    out = open_link(LINK_PAGES_OUT, "f", named, TEXT_NULL);
    assert_int_equal(send_one(out, "over tcp"), ST_OK);
    assert_int_equal(drain(in, 500000), 1);
    close_link(&out);
    close_link(&in);
}

/* ---- sending ---- */

static void a_router_knows_its_peers(void **state)
{
    struct link *s = open_link(LINK_JOBS_OUT, "s", endpoint, TEXT_NULL);
    struct link *f = open_link(LINK_JOBS_IN, "f1", endpoint, TEXT_NULL);
    const struct text to_nobody[] = {TEXT_LIT("nobody"), TEXT_LIT("job")};
    const struct text to_f1[] = {TEXT_LIT("f1"), TEXT_LIT("job")};
    struct msg m;
    struct err err = {0};

    (void)state;
    assert_int_equal(link_send(s, 0, to_nobody, 2, &err), ST_REJECT);
    assert_true(has_words("nobody", err.text, "jobs: "));
    assert_int_equal(send_one(f, "ready"), ST_OK);
    assert_int_equal(recv_within(s, 0, &m, PATIENCE_US), ST_OK);
    assert_int_equal(m.n, 2);
    assert_true(text_is(msg_frame(&m, 0), "f1") && text_is(msg_frame(&m, 1), "ready"));
    msg_clear(&m);
    assert_int_equal(link_send(s, 0, to_f1, 2, &err), ST_OK);
    assert_int_equal(recv_within(f, 0, &m, PATIENCE_US), ST_OK);
    assert_true(m.n == 1 && text_is(msg_frame(&m, 0), "job"));
    msg_clear(&m);
    assert_int_equal(link_recv(f, 0, &m, &err), ST_RETRY);
    close_link(&f);
    for (int i = 0; i < 500 && link_send(s, 0, to_f1, 2, &err) == ST_OK; i++)
        (void)usleep(10000);
    assert_int_equal(link_send(s, 0, to_f1, 2, &err), ST_REJECT);
    close_link(&s);
}

static void a_message_of_too_many_frames_is_dropped_whole(void **state)
{
    struct link *s = open_link(LINK_JOBS_OUT, "s", endpoint, TEXT_NULL);
    struct link *f = open_link(LINK_JOBS_IN, "f1", endpoint, TEXT_NULL);
    struct text frames[MSG_FRAMES_MAX + 5];
    struct msg m;
    struct err err = {0};

    (void)state;
    for (size_t i = 0; i < ROWS(frames); i++)
        frames[i] = TEXT_LIT("x");
    assert_int_equal(send_one(f, "before"), ST_OK);
    assert_int_equal(link_send(f, 0, frames, ROWS(frames), &err), ST_OK);
    assert_int_equal(link_send(f, 0, frames, MSG_FRAMES_MAX - 1, &err), ST_OK);
    assert_int_equal(recv_within(s, 0, &m, PATIENCE_US), ST_OK);
    msg_clear(&m);
    assert_int_equal(recv_within(s, 0, &m, PATIENCE_US), ST_REJECT);
    assert_int_equal(m.n, 0);
    assert_int_equal(recv_within(s, 0, &m, PATIENCE_US), ST_OK);
    assert_int_equal(m.n, MSG_FRAMES_MAX);
    msg_clear(&m);
    close_link(&f);
    close_link(&s);
}

static atomic_int freed; /* ZeroMQ's own thread frees */

static void count_free(void *body, void *hint)
{
    (void)hint;
    free(body);
    atomic_fetch_add(&freed, 1);
}

#define BODY_LEN ((size_t)64 << 10)

static enum status send_body(struct link *out)
{
    void *body = calloc(1, BODY_LEN);
    struct err err = {0};
    enum status st;

    st = link_send_body(out, TEXT_LIT("head"), (struct text){body, BODY_LEN}, count_free, &err);
    if (st != ST_OK)
        free(body); /* refused: still the caller's */
    return st;
}

/* BR-074: nobody reads, so the sender is told, and holds a bounded number of messages. */
static void a_full_link_says_so(void **state)
{
    struct link *out = open_link(LINK_PAGES_OUT, "f", endpoint, TEXT_NULL);
    struct link *in;
    struct msg m;
    int sent = 0, got = 0;

    (void)state;
    atomic_store(&freed, 0);
    assert_int_equal(send_body(out), ST_RETRY); /* nobody is there yet */
    in = open_link(LINK_PAGES_IN, "n", endpoint, TEXT_NULL);
    for (int i = 0; i < 1000 && !link_writable(out); i++) {
        link_refresh(out, clock_mono_us());
        (void)usleep(10000);
    }
    for (int full = 0; full < 20;) {
        if (send_body(out) == ST_OK) {
            sent++;
            full = 0;
        } else {
            full++;
            (void)usleep(20000);
        }
        assert_true(sent < 300);
    }
    assert_false(link_writable(out));
    while (recv_within(in, 0, &m, US_PER_S) == ST_OK) {
        assert_int_equal(m.n, 2);
        assert_int_equal(msg_frame(&m, 1).len, BODY_LEN);
        msg_clear(&m);
        got++;
    }
    assert_int_equal(got, sent);
    assert_true(link_writable(out));
    assert_int_equal(send_body(out), ST_OK);
    close_link(&in); /* with a message on its way */
    close_link(&out);
    (void)zmq_ctx_term(ctx);
    assert_int_equal(atomic_load(&freed), sent + 1);
    ctx = zmq_ctx_new();
}

static void bodies_that_never_leave_are_freed_once(void **state)
{
    struct link *in = open_link(LINK_PAGES_IN, "n", endpoint, TEXT_NULL);
    struct link *out = open_link(LINK_PAGES_OUT, "f", endpoint, TEXT_NULL);
    int sent = 0;

    (void)state;
    atomic_store(&freed, 0);
    for (int i = 0; i < 500 && !link_writable(out); i++)
        (void)usleep(10000);
    while (sent < 30 && send_body(out) == ST_OK)
        sent++;
    assert_true(sent > 0);
    close_link(&out);
    close_link(&in);
    (void)zmq_ctx_term(ctx);
    assert_int_equal(atomic_load(&freed), sent);
    ctx = zmq_ctx_new();
}

/* ---- acks find the scheduler that issued the job ---- */

static bool ack_arrives(struct link *writer, struct link *scheduler, struct text id)
{
    const struct text frames[] = {id, TEXT_LIT("ack")};
    int64_t until = clock_mono_us() + PATIENCE_US;
    struct msg m;
    struct err err;
    bool good;

    while (link_send(writer, 0, frames, 2, &err) != ST_OK) {
        if (clock_mono_us() > until)
            return false;
        refresh(writer);
        (void)usleep(20000);
    }
    if (recv_within(scheduler, 0, &m, PATIENCE_US) != ST_OK)
        return false;
    good = m.n == 1 && text_is(msg_frame(&m, 0), "ack");
    msg_clear(&m);
    return good;
}

static void acks_follow_the_scheduler(void **state)
{
    static const struct text first = TEXT_LIT("\x01\0aaaaaaaaaaaaaa"),
                             second = TEXT_LIT("\x02\0bbbbbbbbbbbbbb"),
                             third = TEXT_LIT("\x03\0cccccccccccccc");
    const struct text to_first[] = {first, TEXT_LIT("ack")};
    struct link *s = open_link(LINK_ACKS_IN, "s1", endpoint, first), *other;
    struct link *w = open_link(LINK_ACKS_OUT, "w", endpoint, TEXT_NULL);
    struct err err = {0};

    (void)state;
    assert_true(ack_arrives(w, s, first));
    /* it restarts at once under the same name: a new id at the old address */
    close_link(&s);
    s = open_link(LINK_ACKS_IN, "s1", endpoint, second);
    assert_true(ack_arrives(w, s, second));
    assert_int_equal(link_send(w, 0, to_first, 2, &err), ST_REJECT);
    /* another beside it: each gets its own */
    other = open_link(LINK_ACKS_IN, "s2", endpoint, third);
    assert_true(ack_arrives(w, other, third));
    assert_true(ack_arrives(w, s, second));
    assert_int_equal(drain(other, 50000) + drain(s, 50000), 0);
    close_link(&s);
    close_link(&w);
    close_link(&other);
}

/* A process of its own that fills the link until it is killed. */
static _Noreturn void fill(const char *address)
{
    static const char body[1024];
    void *own = zmq_ctx_new();
    void *push = zmq_socket(own, ZMQ_PUSH);

    (void)zmq_connect(push, address);
    for (;;)
        (void)zmq_send(push, body, sizeof(body), 0);
}

static void who_filled_a_link_may_die(void **state)
{
    struct link *in = open_link(LINK_PAGES_IN, "n1", endpoint, TEXT_NULL);
    char address[120];
    pid_t child;

    (void)state;
    (void)snprintf(address, sizeof(address), "%s/n1.sock", endpoint);
    child = fork();
    if (child == 0)
        fill(address);
    assert_true(child > 0);
    (void)usleep(500000);
    (void)kill(child, SIGKILL);
    (void)waitpid(child, NULL, 0);
    (void)usleep(3000000); /* longer than any timer of the link */
    assert_true(drain(in, 50000) >= 64);
    close_link(&in);
}

/* Whoever closes says so last; the listener finds the socket gone before it has read that. */
static void the_last_word_is_heard(void **state)
{
    struct link *out = open_link(LINK_PULSE_OUT, "p", endpoint, TEXT_NULL);
    struct link *in = open_link(LINK_PULSE_IN, "l", endpoint, TEXT_NULL);
    int64_t until = clock_mono_us() + PATIENCE_US;
    struct msg m;
    struct err err;

    (void)state;
    do { /* until the subscription is there */
        assert_int_equal(send_one(out, "here"), ST_OK);
        while (link_recv(out, 0, &m, &err) == ST_OK)
            msg_clear(&m);
        assert_true(clock_mono_us() < until);
    } while (recv_within(in, 0, &m, 50 * US_PER_MS) != ST_OK);
    msg_clear(&m);
    (void)drain(in, 100 * US_PER_MS);
    assert_int_equal(send_one(out, "leaving"), ST_OK);
    close_link(&out);
    refresh(in);
    assert_int_equal(recv_within(in, 0, &m, PATIENCE_US), ST_OK);
    assert_true(text_is(msg_frame(&m, 0), "leaving"));
    msg_clear(&m);
    refresh(in); /* now it is let go */
    close_link(&in);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_last_word_is_heard),
        TEST(two_binders_share),
        TEST(in_any_order),
        TEST(the_dead_are_swept),
        TEST(sockets_come_and_go),
        TEST(several_folders_in_one_list),
        TEST(refusals),
        TEST(nobody_connects_to_a_star),
        TEST(an_instance_runs_once),
        TEST(a_host_name_is_every_address),
        TEST(a_router_knows_its_peers),
        TEST(a_message_of_too_many_frames_is_dropped_whole),
        TEST(a_full_link_says_so),
        TEST(bodies_that_never_leave_are_freed_once),
        TEST(acks_follow_the_scheduler),
        TEST(who_filled_a_link_may_die),
    };

    log_open("test", LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
