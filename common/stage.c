#include "common/stage.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/arena.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/zap.h"

#define WATCHES_MAX 8
#define POLL_MAX    300 /* more than the peers of a link */

struct watch {
    struct link *link;
    bool paused;
};

struct stage {
    void *zmq;
    struct zap *zap; /* NULL: no keys, so no links over TCP but plain ones */
    struct watch watches[WATCHES_MAX];
    size_t n_watches;
    int fds[STAGE_FDS]; /* watched besides; -1: none */

    struct pulse *pulse; /* NULL: it counts nothing */
    struct link *pulse_link;
    struct arena *pulse_arena;
    int64_t beat_at_us;
    uint64_t told_lines[LOG_ERROR + 1]; /* of the log, by level */
};

/* Set by the signal handler, which can be given no argument. */
static atomic_int stop_asked;
static int wake_fd = -1;

static void on_signal(int signo)
{
    const uint64_t one = 1;
    int saved = errno;

    if (signo != SIGPIPE && atomic_fetch_add(&stop_asked, 1) > 0)
        _exit(111); /* asked twice: somebody does not want to wait */
    if (write(wake_fd, &one, sizeof(one)) < 0) {
        /* the counter is full: the loop is awake anyway */
    }
    errno = saved;
}

int stage_wake_fd(void)
{
    struct sigaction act = {.sa_handler = on_signal};

    if (wake_fd >= 0)
        return wake_fd;
    wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    sigemptyset(&act.sa_mask);
    (void)sigaction(SIGTERM, &act, NULL);
    (void)sigaction(SIGINT, &act, NULL);
    act.sa_handler = SIG_IGN;
    (void)sigaction(SIGPIPE, &act, NULL);
    secret_process_hide();
    return wake_fd;
}

bool stage_stopping(void)
{
    return atomic_load(&stop_asked) > 0;
}

enum status stage_open(struct stage **out, const char *name, const struct config *cfg,
                       struct err *err)
{
    struct stage *stage = xalloc(1, sizeof(*stage));

    *out = stage;
    for (size_t i = 0; i < STAGE_FDS; i++)
        stage->fds[i] = -1;
    heap_keep();
    log_open(name, cfg->log_level);
    if (stage_wake_fd() < 0)
        return err_set(err, ST_RETRY, "no event descriptor: %s", strerror(errno));
    stage->zmq = zmq_ctx_new();
    if (!stage->zmq)
        return err_set(err, ST_RETRY, "no ZeroMQ context: %s", zmq_strerror(errno));
    return cfg->curve_secret.len > 0 ? zap_open(&stage->zap, stage->zmq, cfg, err) : ST_OK;
}

/* ---- pulse ---- */

enum status stage_pulse_open(struct stage *stage, enum stage_mask kind, const struct config *cfg,
                             struct err *err)
{
    TRY(link_open(&stage->pulse_link, stage->zmq, LINK_PULSE_OUT, cfg, TEXT_NULL, err));
    stage->pulse = pulse_new(kind, cfg->instance);
    stage->pulse_arena = arena_new();
    return ST_OK;
}

struct pulse *stage_pulse(const struct stage *stage)
{
    return stage->pulse;
}

static void count_lines(struct stage *stage, enum log_level level, enum log_label label)
{
    uint64_t lines = log_lines(level);

    pulse_add(stage->pulse, M_LOG_LINES, label, 0, (int64_t)(lines - stage->told_lines[level]));
    stage->told_lines[level] = lines;
}

/* The socket also tells who begins and ends to listen; unread, that would pile up. */
static void subscriptions_drop(struct stage *stage)
{
    struct err ignored;
    struct msg m;

    while (link_recv(stage->pulse_link, 0, &m, &ignored) == ST_OK)
        msg_clear(&m);
}

static void publish(struct stage *stage, int64_t mono_us, bool leaving)
{
    struct buf b = {.arena = stage->pulse_arena};
    struct text message;
    struct err ignored; /* a pulse that is lost costs nothing */

    subscriptions_drop(stage);

    count_lines(stage, LOG_WARN, LOG_LABEL_WARN);
    count_lines(stage, LOG_ERROR, LOG_LABEL_ERROR);
    pulse_encode(&b, stage->pulse, mono_us, leaving);
    message = (struct text){b.at, b.len};
    if (link_send(stage->pulse_link, 0, &message, 1, &ignored) != ST_OK)
        LOG(DEBUG, "pulse.lost", KV("error", ignored.text));
    arena_reset(stage->pulse_arena);
}

void stage_beat(struct stage *stage, int64_t mono_us)
{
    if (stage->zap)
        zap_serve(stage->zap, stage->pulse);
    if (!stage->pulse || mono_us < stage->beat_at_us)
        return;
    link_count_refused(stage->pulse_link, stage->pulse, mono_us);
    for (size_t i = 0; i < stage->n_watches; i++)
        link_count_refused(stage->watches[i].link, stage->pulse, mono_us);
    publish(stage, mono_us, false);
    stage->beat_at_us = mono_us + PULSE_EVERY_US;
}

int stage_door_fd(const struct stage *stage)
{
    int fd = -1;
    size_t len = sizeof(fd);

    if (!stage->zap || zmq_getsockopt(zap_socket(stage->zap), ZMQ_FD, &fd, &len) < 0)
        return -1;
    return fd;
}

void stage_close(struct stage **stage)
{
    if (!*stage)
        return;
    if ((*stage)->pulse)
        publish(*stage, clock_mono_us(), true);
    link_close(&(*stage)->pulse_link);
    pulse_free(&(*stage)->pulse);
    arena_free(&(*stage)->pulse_arena);
    zap_close(&(*stage)->zap);
    if ((*stage)->zmq)
        zmq_ctx_term((*stage)->zmq);
    free(*stage);
    *stage = NULL;
}

void *stage_zmq(const struct stage *stage)
{
    return stage->zmq;
}

void stage_watch_fd(struct stage *stage, size_t slot, int fd)
{
    stage->fds[slot] = fd;
}

void stage_watch(struct stage *stage, struct link *link)
{
    if (stage->n_watches < WATCHES_MAX)
        stage->watches[stage->n_watches++] = (struct watch){.link = link};
}

void stage_watch_pause(struct stage *stage, struct link *link, bool paused)
{
    for (size_t i = 0; i < stage->n_watches; i++)
        if (stage->watches[i].link == link)
            stage->watches[i].paused = paused;
}

/* sd_notify(3)'s protocol is one datagram, so it needs no library. */
static void notify_supervisor(const char *text)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    size_t len = path ? strlen(path) : 0;
    int fd;

    if (len == 0 || len >= sizeof(to.sun_path))
        return;
    memcpy(to.sun_path, path, len);
    if (path[0] == '@')
        to.sun_path[0] = '\0';
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    (void)sendto(fd, text, strlen(text), MSG_NOSIGNAL, (const struct sockaddr *)&to,
                 (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len));
    (void)close(fd);
}

void stage_ready(const char *name)
{
    LOG(INFO, "stage.ready", KV("name", name), KV("pid", (int64_t)getpid()));
    notify_supervisor("READY=1");
}

static size_t poll_items(const struct stage *stage, zmq_pollitem_t items[POLL_MAX])
{
    size_t n = 0;

    items[n++] = (zmq_pollitem_t){.fd = wake_fd, .events = ZMQ_POLLIN};
    for (size_t i = 0; i < STAGE_FDS; i++)
        if (stage->fds[i] >= 0)
            items[n++] = (zmq_pollitem_t){.fd = stage->fds[i], .events = ZMQ_POLLIN};
    if (stage->zap)
        items[n++] = (zmq_pollitem_t){.socket = zap_socket(stage->zap), .events = ZMQ_POLLIN};
    for (size_t i = 0; i < stage->n_watches; i++) {
        const struct watch *w = &stage->watches[i];
        if (w->paused)
            continue;
        for (size_t s = 0; s < link_n_sockets(w->link) && n < POLL_MAX; s++)
            items[n++] = (zmq_pollitem_t){.socket = link_socket(w->link, s), .events = ZMQ_POLLIN};
    }
    return n;
}

/* Waits for the items at most until `until_us`; whether one of them, or a signal, ended it. */
static bool wait_once(zmq_pollitem_t *items, size_t n, int64_t until_us)
{
    int64_t wait_us = until_us - clock_mono_us();

    /* rounded up: waking a little early would only spin */
    return zmq_poll(items, (int)n,
                    until_us == INT64_MAX ? -1
                    : wait_us <= 0        ? 0
                                          : (long)((wait_us + US_PER_MS - 1) / US_PER_MS)) != 0;
}

bool stage_wait(struct stage *stage, int64_t deadline_us)
{
    zmq_pollitem_t items[POLL_MAX];
    size_t n;
    bool woken;

    for (size_t i = 0; i < stage->n_watches; i++) {
        int64_t due = link_deadline_us(stage->watches[i].link);
        if (due < deadline_us)
            deadline_us = due;
    }
    if (stage_stopping())
        return false;
    n = poll_items(stage, items);
    do { /* a pulse in between is nothing that the stage has to wake for */
        int64_t beat_us = stage->pulse ? stage->beat_at_us : INT64_MAX;
        woken = wait_once(items, n, beat_us < deadline_us ? beat_us : deadline_us);
        stage_beat(stage, clock_mono_us());
    } while (!woken && clock_mono_us() < deadline_us);
    for (size_t i = 0; i < stage->n_watches; i++)
        link_refresh(stage->watches[i].link, clock_mono_us());
    return !stage_stopping();
}

int stage_exit(const char *name, enum status st, const struct err *err)
{
    if (st == ST_OK) {
        LOG(INFO, "stage.exit", KV("name", name));
        return 0;
    }
    LOG(ERROR, "stage.exit", KV("name", name), KV("error", err->text));
    return st == ST_FATAL ? 100 : 111;
}
