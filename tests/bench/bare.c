/* bare - a pipeline of two processes that does the least: what ours is measured against.
 *
 * Usage: bare DATABASE_URL BASE_URL ENDPOINT FIRST_ACCOUNT FEED:FROM_S:WIDTH_S ... < KEYS
 *
 * KEYS has a line "NAME,KEY" an account; their ids in the database count from FIRST_ACCOUNT. One
 * process asks for one page of each feed, 64 accounts at once, and sends the bodies of an account
 * as one message over ENDPOINT; the other makes records of them, 50 accounts a transaction, with
 * the product's own normalize_page and batch_commit. There is no ledger, no lease, no
 * acknowledgement, no retry, and what fails ends it. Prints the seconds that it took and the CPU
 * seconds of the fetching and of the writing process. */
#include "tests/bench/bench.h"

#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

#include "common/pg.h"
#include "common/providers/provider.h"
#include "normalizer/normalizer.h"
#include "tests/bench/multi.h"
#include "writer/batch.h"

#define IN_FLIGHT 64
#define FEEDS_MAX 16
#define BODY_MAX  ((size_t)256 << 10) /* of an account's pages */
#define BATCH     ((size_t)50)        /* accounts */

struct asked {
    struct window window;
    const char *url;
};

struct bare {
    const char *database_url, *base_url, *endpoint;
    int64_t first_account;
    struct asked feeds[FEEDS_MAX];
    size_t n_feeds;
    struct arena *arena;
    struct text *keys; /* of the accounts */
    size_t n_accounts;
};

/* An account's pages on their way: where each ends, then their bytes. */
struct parcel {
    uint32_t account;
    uint32_t ends[FEEDS_MAX];
    char bytes[BODY_MAX];
};
#define PARCEL_HEAD offsetof(struct parcel, bytes)

/* ---- fetching ---- */

struct slot {
    CURL *easy;
    struct curl_slist *headers;
    size_t n_feeds; /* answered */
    size_t len;
    struct parcel parcel;
};

struct fetching {
    struct bare *bare;
    struct multi multi;
    void *out;
    size_t begun, ended; /* accounts */
};

static size_t take_body(char *at, size_t size, size_t n, void *arg)
{
    struct slot *s = arg;

    if (size * n > BODY_MAX - s->len)
        return 0;
    memcpy(s->parcel.bytes + s->len, at, size * n);
    s->len += size * n;
    return size * n;
}

static void ask(struct fetching *f, struct slot *s)
{
    (void)curl_easy_setopt(s->easy, CURLOPT_URL, f->bare->feeds[s->n_feeds].url);
    multi_add(&f->multi, s->easy);
}

static void next_account(struct fetching *f, struct slot *s)
{
    char header[256];
    struct text key = f->bare->keys[f->begun];

    curl_slist_free_all(s->headers);
    (void)snprintf(header, sizeof(header), "Authorization: Bearer %.*s", (int)key.len, key.at);
    s->headers = curl_slist_append(NULL, header);
    (void)curl_easy_setopt(s->easy, CURLOPT_HTTPHEADER, s->headers);
    s->parcel.account = (uint32_t)f->begun++;
    s->n_feeds = s->len = 0;
    ask(f, s);
}

static void answered(struct multi *m, CURL *easy)
{
    struct fetching *f = m->owner;
    char *private;
    struct slot *s;

    (void)curl_easy_getinfo(easy, CURLINFO_PRIVATE, &private);
    s = (struct slot *)(void *)private;
    s->parcel.ends[s->n_feeds++] = (uint32_t)s->len;
    if (s->n_feeds < f->bare->n_feeds) {
        ask(f, s);
        return;
    }
    if (zmq_send(f->out, &s->parcel, PARCEL_HEAD + s->len, 0) < 0)
        give_up("zmq_send");
    if (f->begun < f->bare->n_accounts)
        next_account(f, s);
    if (++f->ended == f->bare->n_accounts)
        multi_stop(m);
}

static _Noreturn void fetch(struct bare *b)
{
    struct fetching f = {.bare = b};
    void *zmq = zmq_ctx_new();

    f.out = zmq_socket(zmq, ZMQ_PUSH);
    if (zmq_connect(f.out, b->endpoint) < 0)
        give_up("zmq_connect");
    multi_open(&f.multi, answered, &f);
    for (size_t i = 0; i < IN_FLIGHT && f.begun < b->n_accounts; i++) {
        struct slot *s = xalloc(1, sizeof(*s));
        s->easy = curl_easy_init();
        (void)curl_easy_setopt(s->easy, CURLOPT_WRITEFUNCTION, take_body);
        (void)curl_easy_setopt(s->easy, CURLOPT_WRITEDATA, s);
        (void)curl_easy_setopt(s->easy, CURLOPT_PRIVATE, s);
        (void)curl_easy_setopt(s->easy, CURLOPT_NOSIGNAL, 1L);
        next_account(&f, s);
    }
    multi_run(&f.multi);
    (void)zmq_close(f.out);
    (void)zmq_ctx_term(zmq); /* once all is sent */
    _exit(0);
}

/* ---- writing ---- */

static void take_parcel(const struct bare *b, struct arena *a, zmq_msg_t *message,
                        struct batch_page *pages)
{
    const struct parcel *p = zmq_msg_data(message);
    struct origin *origin = ARENA_NEW(a, struct origin);
    uint32_t from = 0;

    *origin = (struct origin){.account_id = b->first_account + p->account,
                              .provider = TEXT_LIT("openai")};
    for (size_t i = 0; i < b->n_feeds; i++) {
        const struct page page = {.asked = b->feeds[i].window,
                                  .last = true,
                                  .body = {p->bytes + from, p->ends[i] - from}};
        struct record_page *out = ARENA_NEW(a, struct record_page);
        normalize_page(out, a, origin, &page, NULL);
        if (out->dead.reason.at)
            give_up("a page is not read as it should be");
        pages[i] = (struct batch_page){.origin = origin, .page = out};
        from = p->ends[i];
    }
}

static void write_all(const struct bare *b, void *in)
{
    static struct batch_page pages[BATCH * FEEDS_MAX];
    zmq_msg_t messages[BATCH];
    struct arena *a = arena_new();
    struct months months = {{0}};
    struct err err = {0};
    struct pg *pg;
    size_t n = 0;

    pg_open(&pg, b->database_url, "public", "bare");
    for (size_t taken = 0; taken < b->n_accounts;) {
        (void)zmq_msg_init(&messages[n]);
        if (zmq_msg_recv(&messages[n], in, 0) < 0)
            give_up("zmq_msg_recv");
        take_parcel(b, a, &messages[n], &pages[n * b->n_feeds]);
        n++;
        if (++taken < b->n_accounts && n < BATCH)
            continue;
        must(batch_commit(pg, &months, pages, n * b->n_feeds, &err), &err);
        for (size_t i = 0; i < n * b->n_feeds; i++)
            if (pages[i].fate != PAGE_COMMITTED)
                give_up("a page was not committed");
        while (n > 0)
            (void)zmq_msg_close(&messages[--n]);
        arena_reset(a);
    }
    pg_close(&pg);
    arena_free(&a);
}

/* ---- what to do ---- */

static void read_feed(struct bare *b, const char *given)
{
    struct err err = {0};
    unsigned char letter = 'x';
    struct secret nobody = {&letter, 1};
    const struct credential who = {b->base_url, &nobody};
    struct asked *asked = &b->feeds[b->n_feeds++];
    size_t len = strcspn(given, ":");
    struct request request = {0};
    struct question q = {.feed = feed_find(&openai_provider, (struct text){given, len})};
    char *end;

    if (!q.feed || given[len] != ':')
        give_up("no such feed");
    asked->window = (struct window){.feed = text_of(q.feed->name),
                                    .from_us = strtoll(given + len + 1, &end, 10) * US_PER_S};
    asked->window.bucket_s = (uint32_t)strtoul(end + 1, NULL, 10);
    q.window = asked->window;
    must(openai_provider.ask(&request, b->arena, &who, &q, &err), &err);
    asked->url = request.url;
}

static void read_keys(struct bare *b)
{
    size_t cap = 1024;
    char line[512];

    b->keys = xrealloc(NULL, cap, sizeof(*b->keys));
    while (fgets(line, sizeof(line), stdin)) {
        const char *key = strchr(line, ',');
        size_t len = key ? strcspn(++key, "\r\n,") : 0;
        if (len == 0)
            give_up("a line is no NAME,KEY");
        if (b->n_accounts == cap)
            b->keys = xrealloc(b->keys, cap *= 2, sizeof(*b->keys));
        b->keys[b->n_accounts++] = (struct text){arena_copy(b->arena, key, len), len};
    }
}

int main(int argc, char **argv)
{
    struct bare b = {.arena = arena_new()};
    int64_t began;
    void *zmq, *in;
    pid_t child;

    heap_keep(); /* as a stage does */
    if (argc < 6 || argc > 5 + FEEDS_MAX) {
        (void)fprintf(stderr, "usage: bare DATABASE_URL BASE_URL ENDPOINT FIRST_ACCOUNT "
                              "FEED:FROM_S:WIDTH_S ... < KEYS\n");
        return 2;
    }
    b.database_url = argv[1];
    b.base_url = argv[2];
    b.endpoint = argv[3];
    b.first_account = strtoll(argv[4], NULL, 10);
    for (int i = 5; i < argc; i++)
        read_feed(&b, argv[i]);
    read_keys(&b);
    began = clock_mono_us();
    child = fork();
    if (child < 0)
        give_up("fork");
    if (child == 0)
        fetch(&b);
    zmq = zmq_ctx_new();
    in = zmq_socket(zmq, ZMQ_PULL);
    if (zmq_bind(in, b.endpoint) < 0)
        give_up("zmq_bind");
    write_all(&b, in);
    (void)waitpid(child, NULL, 0);
    (void)printf("%.6f\t%.6f\t%.6f\n", seconds_since(began), cpu_seconds_of(RUSAGE_CHILDREN),
                 cpu_seconds());
    (void)zmq_close(in);
    (void)zmq_ctx_term(zmq);
    arena_free(&b.arena);
    return 0;
}
