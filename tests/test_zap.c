/* Keys of the links: the file that lists them, who is let in on which link, and how an end that
 * connects finds the key of the other. Over a real ZeroMQ context, on loopback. */
#include "common/zap.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include "common/clock.h"
#include "common/keys.h"
#include "common/link.h"
#include "common/log.h"
#include "tests/check.h"

#define PATIENCE_US (10 * US_PER_S)
#define SHORT_US    (400 * US_PER_MS)

/* Made once, to be the same in each table: A and B are public keys, and C has a '#' in the middle.
 */
#define A "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
#define B "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID"
#define C "Yne@#w-vo<fVvi]a<NY6T1ed:M$f#G*[IaLV{hID"

/* ---- the file ---- */

static const struct {
    const char *name, *file;
    size_t n;          /* keys */
    const char *words; /* of the message; NULL: it is a file of keys */
} file_cases[] = {
    {"nothing", "", 0, NULL},
    {"comments and blank lines", "# who\n\n   \n\t# more\n", 0, NULL},
    {"one key", "writer " A "\n", 1, NULL},
    {"no line end", "writer " A, 1, NULL},
    {"lines of Windows", "writer " A "\r\nfetcher " B "\r\n", 2, NULL},
    {"blanks around and between", "  writer \t " A "  \n", 1, NULL},
    {"a comment after the key", "writer " A " # of June\n", 1, NULL},
    {"a comment with no blank in it", "writer " A " #June\n", 1, NULL},
    {"a key with the sign of comments in it", "writer " C "\n", 1, NULL},
    {"two keys of one role", "writer " A "\nwriter " B "\n", 2, NULL},
    {"a line twice", "writer " A "\nwriter " A "\n", 1, NULL},
    {"all roles", "usagectl " A "\ngateway " B "\n", 2, NULL},
    {"one key for two roles", "writer " A "\n\nfetcher " A "\n", 0, "line 3: this key is listed"},
    {"a role that is none", "writer " A "\nwriters " B "\n", 0, "line 2: there is no role writers"},
    {"a role in capitals", "Writer " A "\n", 0, "there is no role Writer;"},
    {"a role alone", "writer\n", 0, "line 1: a public key is missing"},
    {"a key alone", A "\n", 0, "there is no role"},
    {"a comment in the key's place", "writer # later\n", 0, "no public key"},
    {"a key cut short", "writer rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf\n", 0, "no public key"},
    {"a key too long", "writer " A "0\n", 0, "no public key"},
    {"a character that Z85 does not have", "writer rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf~\n", 0,
     "no public key"},
    {"a group that overflows", "writer #####%kR.o@n%FcmmsL/@{H8]yf7rq:rM>}U?@Lns\n", 0,
     "no public key"},
    {"a key in hex", "writer 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n", 0,
     "no public key"},
    {"both keys on a line", "writer " A " " B "\n", 0, "something follows the key"},
};

static void files_of_keys(void **state)
{
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(file_cases); i++) {
        const char *name = file_cases[i].name;
        static struct key_list list;
        struct err err = {0};
        enum status st = key_list_parse(&list, text_of(file_cases[i].file), &err);

        good &= same_int(name, st, file_cases[i].words ? ST_REJECT : ST_OK);
        good &= has_words(name, err.text, file_cases[i].words);
        if (st == ST_OK)
            good &= same_int(name, (int64_t)list.n, (int64_t)file_cases[i].n);
    }
    assert_true(good);
}

static void a_file_has_a_limit(void **state)
{
    static char file[(KEYS_MAX + 1) * 64];
    static struct key_list list;
    struct err err = {0};
    size_t len = 0;

    (void)state;
    for (int i = 0; i <= KEYS_MAX; i++)
        len += (size_t)snprintf(file + len, sizeof(file) - len, "writer 0%04d%s\n", i, &A[5]);
    assert_int_equal(key_list_parse(&list, (struct text){file, len - 48}, &err), ST_OK);
    assert_int_equal(list.n, KEYS_MAX);
    assert_int_equal(key_list_parse(&list, (struct text){file, len}, &err), ST_REJECT);
    assert_true(has_words("one more", err.text, "line 257: more than 256 keys"));
}

static void a_secret_is_read_and_never_shown(void **state)
{
    static const char *const bad[] = {"", "x", (A "x"), ("secret " A), "~~~~~~~~~~"};
    struct secret secret;
    struct err err = {0};
    char text[CURVE_TEXT_LEN + 1];

    (void)state;
    assert_int_equal(curve_key_parse(&secret, TEXT_LIT(" " A "\n"), &err), ST_OK);
    curve_key_print(text, secret.at);
    assert_string_equal(text, A);
    secret_wipe(&secret);
    for (size_t i = 0; i < ROWS(bad); i++) {
        assert_int_equal(curve_key_parse(&secret, text_of(bad[i]), &err), ST_FATAL);
        assert_true(has_words(bad[i], err.text, "usagectl keygen --curve"));
        assert_null(strstr(err.text, A));
    }
}

/* ---- a rig: a folder with a file of keys, and processes as settings ---- */

struct person {
    char public[CURVE_TEXT_LEN + 1];
    struct secret secret;
};

static void *ctx;
static char folder[64], file[96], endpoint[64];
static struct person scheduler, scheduler2, fetcher, writer, stranger;
static struct zap *zap;
static int n_open; /* links; a test that fails leaves some */
static struct pulse *pulse;

static void person_make(struct person *p)
{
    char secret[CURVE_TEXT_LEN + 1];
    struct err err;

    assert_int_equal(zmq_curve_keypair(p->public, secret), 0);
    assert_int_equal(curve_key_parse(&p->secret, text_of(secret), &err), ST_OK);
}

static struct config settings(enum stage_mask stage, const struct person *who)
{
    return (struct config){.stage = stage,
                           .instance = "an-instance",
                           .curve_secret = who->secret,
                           .curve_keys = file,
                           .jobs = endpoint,
                           .pages = endpoint,
                           .records = endpoint,
                           .acks = endpoint,
                           .control = endpoint,
                           .pulse = endpoint};
}

static void list_keys(const char *format, ...) PRINTF_LIKE(1, 2);
static void list_keys(const char *format, ...)
{
    char next[128];
    va_list args;
    FILE *f;

    (void)snprintf(next, sizeof(next), "%s.next", file);
    f = fopen(next, "we");
    assert_non_null(f);
    va_start(args, format);
    (void)vfprintf(f, format, args);
    va_end(args);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(rename(next, file), 0);
}

static void list_all(void)
{
    list_keys("scheduler %s\nfetcher %s\nwriter %s\n", scheduler.public, fetcher.public,
              writer.public);
}

/* A socket that was closed lets go of its port a moment later, so whoever binds next gets another.
 */
static void endpoint_make(void)
{
    static int port;

    port = (port ? port : 20000 + (int)(getpid() % 10000)) + 1;
    (void)snprintf(endpoint, sizeof(endpoint), "tcp://127.0.0.1:%d", port);
}

static int setup(void **state)
{
    struct config cfg;
    struct err err = {0};

    (void)state;
    (void)strcpy(folder, "/tmp/uf-zap-XXXXXX");
    ctx = zmq_ctx_new();
    if (!ctx || !mkdtemp(folder))
        return -1;
    (void)snprintf(file, sizeof(file), "%s/curve.keys", folder);
    endpoint_make();
    person_make(&scheduler);
    person_make(&scheduler2);
    person_make(&fetcher);
    person_make(&writer);
    person_make(&stranger);
    list_all();
    cfg = settings(STAGE_SCHEDULER, &scheduler);
    pulse = pulse_new(STAGE_SCHEDULER, "an-instance");
    return zap_open(&zap, ctx, &cfg, &err) == ST_OK ? 0 : -1;
}

static int teardown(void **state)
{
    struct person *all[] = {&scheduler, &scheduler2, &fetcher, &writer, &stranger};
    char command[128];

    (void)state;
    zap_close(&zap);
    pulse_free(&pulse);
    if (n_open == 0) /* else it would wait for them for good */
        (void)zmq_ctx_term(ctx);
    n_open = 0;
    for (size_t i = 0; i < ROWS(all); i++)
        secret_wipe(&all[i]->secret);
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    return system(command);
}

static struct link *open_as(enum link_kind kind, enum stage_mask stage, const struct person *who)
{
    const struct config cfg = settings(stage, who);
    struct link *link = NULL;
    struct err err = {0};

    /* a socket that was closed lets go of its port a moment later */
    for (int tries = 0; link_open(&link, ctx, kind, &cfg, TEXT_NULL, &err) != ST_OK; tries++) {
        link_close(&link);
        if (tries == 100 || !strstr(err.text, "in use"))
            fail_msg("%s", err.text);
        (void)usleep(20000);
    }
    n_open++;
    return link;
}

static void close_link(struct link **link)
{
    n_open--;
    link_close(link);
}

/* What the loop of a stage does. */
static void turn(struct link *in, struct link *out)
{
    zap_serve(zap, pulse);
    link_count_refused(in, pulse, clock_mono_us());
    link_refresh(out, clock_mono_us());
    (void)usleep(2000);
}

/* Whether what `out` says arrives at `in`; each has a word of its own, and says it all the time. */
static bool reaches(struct link *out, struct link *in, int64_t patience_us)
{
    const struct text word = {(const char *)&out, sizeof(struct link *)};
    int64_t until = clock_mono_us() + patience_us;
    bool arrived = false;
    struct err err;
    struct msg m;

    while (!arrived && clock_mono_us() < until) {
        turn(in, out);
        for (size_t i = 0; i < link_n_sockets(out); i++)
            (void)!link_send(out, i, &word, 1, &err);
        while (link_recv(in, 0, &m, &err) == ST_OK) {
            arrived |= text_eq(msg_frame(&m, m.n - 1), word);
            msg_clear(&m);
        }
    }
    return arrived;
}

static int64_t refused(size_t link, enum refusal_label why)
{
    return pulse_value(pulse, M_LINKS_REFUSED, link, why);
}

/* ---- who comes in ---- */

static void a_role_comes_in_on_its_link_alone(void **state)
{
    struct link *in = open_as(LINK_JOBS_OUT, STAGE_SCHEDULER, &scheduler);
    struct link *good = open_as(LINK_JOBS_IN, STAGE_FETCHER, &fetcher);
    struct link *bad = open_as(LINK_JOBS_IN, STAGE_WRITER, &writer);

    (void)state;
    assert_true(reaches(good, in, PATIENCE_US));
    assert_false(reaches(bad, in, SHORT_US));
    assert_true(refused(0, REFUSED_WRONG_ROLE) > 0);
    assert_int_equal(refused(0, REFUSED_UNKNOWN_KEY), 0);
    assert_true(reaches(good, in, PATIENCE_US)); /* it is not disturbed */
    close_link(&good);
    close_link(&bad);
    close_link(&in);
}

/* A stranger has a file of its own, in which it is somebody. */
static void a_stranger_comes_in_once_it_is_listed(void **state)
{
    struct link *in = open_as(LINK_JOBS_OUT, STAGE_SCHEDULER, &scheduler), *out;

    (void)state;
    list_keys("scheduler %s\nfetcher %s\n", scheduler.public, stranger.public);
    out = open_as(LINK_JOBS_IN, STAGE_FETCHER, &stranger);
    list_all();
    assert_false(reaches(out, in, SHORT_US));
    assert_true(refused(0, REFUSED_UNKNOWN_KEY) > 0);
    list_keys("scheduler %s\nfetcher %s\nfetcher %s\n", scheduler.public, fetcher.public,
              stranger.public);
    assert_true(reaches(out, in, PATIENCE_US)); /* by itself */
    close_link(&out);
    close_link(&in);
}

static void nobody_comes_in_without_a_doorkeeper(void **state)
{
    struct link *in = open_as(LINK_JOBS_OUT, STAGE_SCHEDULER, &scheduler);
    struct link *out = open_as(LINK_JOBS_IN, STAGE_FETCHER, &fetcher);
    const struct text word = TEXT_LIT("a word");
    int64_t until = clock_mono_us() + SHORT_US;
    struct err err;
    struct msg m;

    (void)state;
    zap_close(&zap);
    while (clock_mono_us() < until) {
        link_refresh(out, clock_mono_us());
        assert_int_not_equal(link_send(out, 0, &word, 1, &err), ST_OK);
        assert_int_equal(link_recv(in, 0, &m, &err), ST_RETRY);
        (void)usleep(2000);
    }
    close_link(&out);
    close_link(&in);
}

static void plaintext_does_not_come_in(void **state)
{
    struct link *in = open_as(LINK_JOBS_OUT, STAGE_SCHEDULER, &scheduler), *out = NULL;
    const struct config cfg = {.allow_plaintext = true, .jobs = endpoint, .instance = "plain"};
    struct err err = {0};

    (void)state;
    assert_int_equal(link_open(&out, ctx, LINK_JOBS_IN, &cfg, TEXT_NULL, &err), ST_OK);
    n_open++;
    assert_false(reaches(out, in, SHORT_US));
    assert_true(refused(0, REFUSED_NO_CURVE) + refused(0, REFUSED_NO_HANDSHAKE) > 0);
    close_link(&out);
    close_link(&in);
}

/* ---- whom one connects to ---- */

static void the_right_key_is_found_among_several(void **state)
{
    struct link *in = open_as(LINK_JOBS_OUT, STAGE_SCHEDULER, &scheduler), *out;

    (void)state;
    list_keys("scheduler %s\nscheduler %s\nscheduler %s\nfetcher %s\n", scheduler2.public,
              stranger.public, scheduler.public, fetcher.public);
    out = open_as(LINK_JOBS_IN, STAGE_FETCHER, &fetcher);
    assert_true(reaches(out, in, PATIENCE_US));
    assert_true(refused(0, REFUSED_WRONG_SERVER_KEY) >= 2);
    close_link(&out);
    close_link(&in);
}

static void a_server_may_change_its_key(void **state)
{
    struct link *in = open_as(LINK_JOBS_OUT, STAGE_SCHEDULER, &scheduler);
    struct link *out = open_as(LINK_JOBS_IN, STAGE_FETCHER, &fetcher);
    uint64_t generation;
    void *socket;

    (void)state;
    assert_true(reaches(out, in, PATIENCE_US));
    generation = link_generation(out);
    socket = link_socket(out, 0);
    list_keys("scheduler %s\nscheduler %s\nfetcher %s\n", scheduler.public, scheduler2.public,
              fetcher.public);
    assert_true(reaches(out, in, PATIENCE_US));
    close_link(&in);
    in = open_as(LINK_JOBS_OUT, STAGE_SCHEDULER, &scheduler2);
    assert_true(reaches(out, in, PATIENCE_US));
    list_keys("scheduler %s\nfetcher %s\n", scheduler2.public, fetcher.public);
    assert_true(reaches(out, in, PATIENCE_US));
    /* for whoever uses the link it is one socket all the time */
    assert_true(link_socket(out, 0) == socket && link_generation(out) == generation);
    close_link(&out);
    close_link(&in);
}

static void a_damaged_file_changes_nothing(void **state)
{
    struct link *in = open_as(LINK_JOBS_OUT, STAGE_SCHEDULER, &scheduler);
    struct link *out = open_as(LINK_JOBS_IN, STAGE_FETCHER, &fetcher);

    (void)state;
    list_keys("scheduler %s\nfetcher half", scheduler.public);
    assert_true(reaches(out, in, PATIENCE_US));
    assert_int_equal(unlink(file), 0);
    close_link(&in);
    list_all();
    in = open_as(LINK_JOBS_OUT, STAGE_SCHEDULER, &scheduler);
    assert_true(reaches(out, in, PATIENCE_US));
    close_link(&out);
    close_link(&in);
}

/* One link over TCP and in a folder: there the folder's mode protects, and no keys are asked for.
 */
static void a_folder_beside_tcp_stays_plain(void **state)
{
    struct config cfg = settings(STAGE_SCHEDULER, &scheduler);
    struct link *in = NULL, *local = NULL, *remote;
    char both[192], ipc[96];
    struct err err = {0};

    (void)state;
    (void)snprintf(ipc, sizeof(ipc), "ipc://%s/run", folder);
    (void)snprintf(both, sizeof(both), "%s,%s", endpoint, ipc);
    cfg.jobs = both;
    assert_int_equal(link_open(&in, ctx, LINK_JOBS_OUT, &cfg, TEXT_NULL, &err), ST_OK);
    n_open++;
    remote = open_as(LINK_JOBS_IN, STAGE_FETCHER, &fetcher);
    cfg = (struct config){.jobs = ipc, .instance = "local"};
    assert_int_equal(link_open(&local, ctx, LINK_JOBS_IN, &cfg, TEXT_NULL, &err), ST_OK);
    n_open++;
    assert_true(reaches(local, in, PATIENCE_US));
    assert_true(reaches(remote, in, PATIENCE_US));
    close_link(&local);
    close_link(&remote);
    close_link(&in);
}

/* ---- what is refused at the start ---- */

static void settings_that_do_not_fit(void **state)
{
    struct config cfg[8];
    const char *const words[] = {
        "is not encrypted without UF_CURVE_SECRET",
        "is not encrypted without UF_CURVE_SECRET",
        "UF_CURVE_KEYS is not set",
        "can not read this file",
        "is the secret of the fetcher, and this is the scheduler",
        "does not list the public key of UF_CURVE_SECRET: add the line \"scheduler ",
        "are both set",
        NULL,
    };
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(cfg); i++)
        cfg[i] = settings(STAGE_SCHEDULER, &scheduler);
    cfg[0].curve_secret = (struct secret){NULL, 0};
    cfg[0].curve_keys = NULL;
    cfg[1].curve_secret = (struct secret){NULL, 0};
    cfg[2].curve_keys = NULL;
    cfg[3].curve_keys = "/nonexistent";
    cfg[4].curve_secret = fetcher.secret;
    cfg[5].curve_secret = stranger.secret;
    cfg[6].allow_plaintext = true;
    for (size_t i = 0; i < ROWS(cfg); i++) {
        struct link *link = NULL;
        struct err err = {0};
        enum status st = link_open(&link, ctx, LINK_JOBS_OUT, &cfg[i], TEXT_NULL, &err);

        good &= same_int(words[i] ? words[i] : "good", st, words[i] ? ST_FATAL : ST_OK);
        good &= has_words("the message", err.text, words[i]);
        link_close(&link);
    }
    assert_true(good);
}

static const struct {
    const char *name;
    enum link_kind kind;
    enum stage_mask stage;
    const char *list; /* beside the process's own line */
    const char *words;
} other_end_cases[] = {
    {"nobody to take jobs", LINK_JOBS_OUT, STAGE_SCHEDULER, "", "no key of a fetcher"},
    {"nobody to give jobs", LINK_JOBS_IN, STAGE_FETCHER, "writer " A "\n", "no key of a scheduler"},
    {"nobody to take pages", LINK_PAGES_OUT, STAGE_FETCHER, "", "no key of a normalizer"},
    {"nobody to ask", LINK_CONTROL_OUT, STAGE_CLI, "", "no key of a scheduler"},
    {"nobody who asks", LINK_CONTROL_IN, STAGE_SCHEDULER, "", NULL},
    {"nobody who listens", LINK_PULSE_OUT, STAGE_WRITER, "", NULL},
    {"nobody to listen to", LINK_PULSE_IN, STAGE_GATEWAY, "usagectl " A "\n",
     "no key of a scheduler or fetcher or normalizer or writer"},
    {"one to listen to", LINK_PULSE_IN, STAGE_GATEWAY, "writer " A "\n", NULL},
};

static void a_file_without_the_other_end(void **state)
{
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(other_end_cases); i++) {
        const char *name = other_end_cases[i].name;
        struct config cfg = settings(other_end_cases[i].stage, &scheduler);
        struct link *link = NULL;
        struct err err = {0};

        endpoint_make();
        list_keys("%s %s\n%s", stage_name(other_end_cases[i].stage), scheduler.public,
                  other_end_cases[i].list);
        good &=
            same_int(name, link_open(&link, ctx, other_end_cases[i].kind, &cfg, TEXT_NULL, &err),
                     other_end_cases[i].words ? ST_FATAL : ST_OK);
        good &= has_words(name, err.text, other_end_cases[i].words);
        link_close(&link);
    }
    assert_true(good);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_of_keys),
        cmocka_unit_test(a_file_has_a_limit),
        cmocka_unit_test(a_secret_is_read_and_never_shown),
        TEST(a_role_comes_in_on_its_link_alone),
        TEST(a_stranger_comes_in_once_it_is_listed),
        TEST(nobody_comes_in_without_a_doorkeeper),
        TEST(plaintext_does_not_come_in),
        TEST(the_right_key_is_found_among_several),
        TEST(a_server_may_change_its_key),
        TEST(a_damaged_file_changes_nothing),
        TEST(a_folder_beside_tcp_stays_plain),
        TEST(settings_that_do_not_fit),
        TEST(a_file_without_the_other_end),
    };

    log_open("test", LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
