/* The life of a process: what ends a wait, what a signal does, what the exit status is. Each in a
 * child, since the stop flag is for good. */
#include "common/stage.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "tests/check.h"

#define TOO_LONG_US (20 * US_PER_S)
#define WRONG       1 /* exit status of a child that saw something wrong */

static const struct config cfg = {.instance = "one", .log_level = LOG_ERROR};

static struct stage *open_stage(void)
{
    struct stage *stage = NULL;
    struct err err;

    if (stage_open(&stage, "test", &cfg, &err) != ST_OK)
        _exit(WRONG);
    return stage;
}

static int64_t ms_since(int64_t began_us)
{
    return (clock_mono_us() - began_us) / US_PER_MS;
}

/* What a stage's main does. */
static int serve(void)
{
    struct stage *stage = open_stage();
    const int64_t began = clock_mono_us();

    if (stage_stopping())
        return WRONG;
    if (write(STDOUT_FILENO, "r", 1) != 1)
        return WRONG;
    while (stage_wait(stage, began + TOO_LONG_US))
        if (ms_since(began) > 10000)
            return WRONG;
    if (!stage_stopping() || stage_wait(stage, INT64_MAX)) /* stays stopped */
        return WRONG;
    stage_close(&stage);
    return stage_exit("test", ST_OK, NULL);
}

static int serve_without_limit(void)
{
    struct stage *stage = open_stage();

    if (write(STDOUT_FILENO, "r", 1) != 1)
        return WRONG;
    while (stage_wait(stage, INT64_MAX))
        ;
    stage_close(&stage);
    return 0;
}

/* Does not come to its end, as with Postgres away. */
static int hang(void)
{
    struct stage *stage = open_stage();

    (void)stage;
    if (write(STDOUT_FILENO, "r", 1) != 1)
        return WRONG;
    for (;;)
        (void)pause();
}

static int survive_a_broken_pipe(void)
{
    struct stage *stage = open_stage();
    int ends[2];

    if (pipe(ends) < 0 || close(ends[0]) < 0)
        return WRONG;
    if (write(ends[1], "x", 1) != -1 || errno != EPIPE || stage_stopping())
        return WRONG;
    if (prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) != 0)
        return WRONG; /* keys would be in a core file */
    stage_close(&stage);
    stage_close(&stage);
    return write(STDOUT_FILENO, "r", 1) == 1 ? 0 : WRONG;
}

static int exit_retry(void)
{
    struct err err;

    log_open("test", LOG_ERROR);
    (void)err_set(&err, ST_RETRY, "Postgres is away");
    return write(STDOUT_FILENO, "r", 1) == 1 ? stage_exit("test", ST_RETRY, &err) : WRONG;
}

static int exit_fatal(void)
{
    struct err err;

    log_open("test", LOG_ERROR);
    (void)err_set(&err, ST_FATAL, "UF_BUCKET is wrong");
    return write(STDOUT_FILENO, "r", 1) == 1 ? stage_exit("test", ST_FATAL, &err) : WRONG;
}

static const struct {
    const char *name;
    int (*life)(void);
    int signals[2];
    int want; /* exit status */
    const char *want_log;
} cases[] = {
    {"SIGTERM ends it well", serve, {SIGTERM}, 0, NULL},
    {"SIGINT, too", serve, {SIGINT}, 0, NULL},
    {"a wait without a deadline ends", serve_without_limit, {SIGTERM}, 0, NULL},
    {"one signal does not end what hangs, a second does", hang, {SIGTERM, SIGINT}, 111, NULL},
    {"a broken pipe is an error code, no end", survive_a_broken_pipe, {0}, 0, NULL},
    {"what may pass: 111", exit_retry, {0}, 111, "\"error\":\"Postgres is away\""},
    {"what will not: 100", exit_fatal, {0}, 100, "\"error\":\"UF_BUCKET is wrong\""},
};

static bool run_case(size_t i)
{
    char byte, log[2000] = "";
    ssize_t n;
    int ready[2] = {-1, -1}, errors[2] = {-1, -1}, status = 0;
    pid_t pid;

    assert_true(pipe(ready) == 0 && pipe(errors) == 0);
    pid = fork();
    if (pid == 0) {
        if (dup2(ready[1], STDOUT_FILENO) < 0 || dup2(errors[1], STDERR_FILENO) < 0)
            _exit(WRONG);
        (void)alarm(15);
        _exit(cases[i].life());
    }
    assert_true(pid > 0);
    (void)close(ready[1]);
    (void)close(errors[1]);
    n = read(ready[0], &byte, 1);
    for (size_t k = 0; n == 1 && k < 2 && cases[i].signals[k]; k++) {
        (void)usleep(100000); /* it waits by now */
        (void)kill(pid, cases[i].signals[k]);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (cases[i].want_log && read(errors[0], log, sizeof(log) - 1) < 0)
        log[0] = '\0';
    (void)close(ready[0]);
    (void)close(errors[0]);
    return same_int(cases[i].name, n, 1) && same_int(cases[i].name, WIFEXITED(status), true) &&
           same_int(cases[i].name, WEXITSTATUS(status), cases[i].want) &&
           has_words(cases[i].name, log, cases[i].want_log);
}

static void lives(void **state)
{
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(cases); i++)
        good &= run_case(i);
    assert_true(good);
}

static void a_wait_ends_by_its_deadline(void **state)
{
    static const int64_t waits_ms[] = {-5000, 0, 1, 50, 300};
    struct stage *stage = open_stage();

    (void)state;
    for (size_t i = 0; i < ROWS(waits_ms); i++) {
        int64_t began = clock_mono_us(), deadline = began + waits_ms[i] * US_PER_MS;
        assert_true(stage_wait(stage, deadline));
        assert_true(clock_mono_us() >= deadline); /* not early, to spin */
        assert_true(ms_since(began) < (waits_ms[i] > 0 ? waits_ms[i] : 0) + 2000);
    }
    stage_close(&stage);
}

static void a_message_ends_a_wait(void **state)
{
    char folder[] = "/tmp/uf-stage-XXXXXX", endpoint[64], path[80];
    struct config links = cfg;
    const struct text frame = TEXT_LIT("hello");
    struct stage *stage = open_stage();
    struct link *in = NULL, *out = NULL;
    struct err err;
    int64_t began;

    (void)state;
    assert_non_null(mkdtemp(folder));
    (void)snprintf(endpoint, sizeof(endpoint), "ipc://%s/pages", folder);
    links.pages = endpoint;
    assert_int_equal(link_open(&in, stage_zmq(stage), LINK_PAGES_IN, &links, TEXT_NULL, &err), 0);
    assert_int_equal(link_open(&out, stage_zmq(stage), LINK_PAGES_OUT, &links, TEXT_NULL, &err), 0);
    stage_watch(stage, in);
    for (int i = 0; i < 500 && link_send(out, 0, &frame, 1, &err) != ST_OK; i++)
        (void)usleep(10000);
    began = clock_mono_us();
    assert_true(stage_wait(stage, began + TOO_LONG_US));
    assert_true(ms_since(began) < 5000);
    /* paused, the message that is still there wakes nobody: that is the back-pressure */
    stage_watch_pause(stage, in, true);
    began = clock_mono_us();
    assert_true(stage_wait(stage, began + 100 * US_PER_MS));
    assert_true(clock_mono_us() >= began + 100 * US_PER_MS);
    stage_watch_pause(stage, in, false);
    began = clock_mono_us();
    assert_true(stage_wait(stage, began + TOO_LONG_US));
    assert_true(ms_since(began) < 5000);
    link_close(&in);
    link_close(&out);
    stage_close(&stage);
    (void)snprintf(path, sizeof(path), "%s/pages", folder);
    (void)rmdir(path);
    assert_int_equal(rmdir(folder), 0);
}

/* Links that connect are looked at again in time, without a message or a deadline of the stage. */
static void a_wait_refreshes_links(void **state)
{
    char folder[] = "/tmp/uf-stage-XXXXXX", endpoint[64], path[80];
    struct config links = cfg;
    struct stage *stage = open_stage();
    struct link *in = NULL, *out = NULL;
    struct err err;
    int64_t began = clock_mono_us();

    (void)state;
    assert_non_null(mkdtemp(folder));
    (void)snprintf(endpoint, sizeof(endpoint), "ipc://%s/jobs", folder);
    links.jobs = endpoint;
    assert_int_equal(link_open(&out, stage_zmq(stage), LINK_JOBS_IN, &links, TEXT_NULL, &err), 0);
    assert_int_equal(link_n_sockets(out), 0);
    stage_watch(stage, out);
    assert_int_equal(link_open(&in, stage_zmq(stage), LINK_JOBS_OUT, &links, TEXT_NULL, &err), 0);
    while (link_n_sockets(out) == 0 && ms_since(began) < 10000)
        assert_true(stage_wait(stage, began + TOO_LONG_US));
    assert_int_equal(link_n_sockets(out), 1);
    link_close(&in);
    link_close(&out);
    stage_close(&stage);
    (void)snprintf(path, sizeof(path), "%s/jobs", folder);
    (void)rmdir(path);
    assert_int_equal(rmdir(folder), 0);
}

static void a_supervisor_hears_of_it(void **state)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    char folder[] = "/tmp/uf-stage-XXXXXX", got[32] = "";
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);

    (void)state;
    assert_non_null(mkdtemp(folder));
    (void)snprintf(at.sun_path, sizeof(at.sun_path), "%s/notify", folder);
    assert_int_equal(bind(fd, (const struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(setenv("NOTIFY_SOCKET", at.sun_path, 1), 0);
    stage_ready("test");
    assert_int_equal(unsetenv("NOTIFY_SOCKET"), 0);
    assert_int_equal(recv(fd, got, sizeof(got) - 1, 0), 7);
    assert_string_equal(got, "READY=1");
    stage_ready("test"); /* none to tell */
    assert_int_equal(recv(fd, got, sizeof(got), 0), -1);
    (void)close(fd);
    assert_int_equal(unlink(at.sun_path), 0);
    assert_int_equal(rmdir(folder), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lives),
        cmocka_unit_test(a_wait_ends_by_its_deadline),
        cmocka_unit_test(a_message_ends_a_wait),
        cmocka_unit_test(a_wait_refreshes_links),
        cmocka_unit_test(a_supervisor_hears_of_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
