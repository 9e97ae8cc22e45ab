#include "fetcher/account.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/providers/reader.h"
#include "fetcher/joined.h"
#include "fetcher/known.h"
#include "fetcher/progress.h"

#define DETAIL_MAX       500 /* bytes (wire.h) */
#define CLOCK_SKEW_MAX_S 60
#define LIFE_FIRST       ((size_t)8 << 10) /* what a job of a dozen feeds takes */

struct account {
    struct arena *life; /* the job and what is said of its windows */
    const struct job *job;
    const struct provider *provider;
    const char *base_url;
    struct secret key;
    uint64_t credential; /* digest of provider and key */
    uint64_t random;
    int64_t ask_until_us; /* after that the lease is too short to bring pages home */

    struct window_end *ends;
    size_t at;                /* the window that is being read; n_windows: all have ended */
    struct question question; /* the window's, or the part of it that is asked for now */
    char *cursor_copy;        /* what question.cursor points to */
    struct body joined;       /* of a flat feed: the question's answers so far */
    struct same_page *same;   /* the window's pages that came as they are known */
    struct progress progress;
    uint32_t tries; /* failed ones, of this page */
    bool weary;     /* a window ended on trouble that may pass: the next ones get one try each,
                       until something answers */
    bool asking;
    bool stopping;
    int64_t wake_us;

    struct page pages[ACCOUNT_BUNDLE_PAGES]; /* of their bodies only the size is known here */
    size_t n_pages;
    struct body bodies; /* one after another: as one frame they travel for a quarter of what many
                           take */
};

/* Why a page did not come. */
struct trouble {
    enum ending ending;
    bool again; /* worth another try */
    struct retry_advice advice;
    const char *detail;
};

/* ---- windows ---- */

static bool has_ended(const struct account *a)
{
    return a->at == a->job->n_windows;
}

static const struct window *window_now(const struct account *a)
{
    return &a->job->windows[a->at];
}

static void cursor_set(struct account *a, struct text cursor)
{
    char *copy = NULL;

    if (cursor.at) {
        copy = xalloc(cursor.len + 1, 1);
        memcpy(copy, cursor.at, cursor.len);
    }
    free(a->cursor_copy);
    a->cursor_copy = copy;
    a->question.cursor = (struct text){copy, cursor.len};
}

/* A detail travels to people's screens: without the key, and not cut within a character. */
static struct text detail_keep(struct account *a, const char *detail)
{
    struct text t = redact(a->life, text_of(detail), &a->key);

    if (t.len > DETAIL_MAX) {
        t.len = DETAIL_MAX;
        while (t.len > 0 && ((unsigned char)t.at[t.len] & 0xc0) == 0x80)
            t.len--;
    }
    return t;
}

/* Asks for the window from `from_us` on: all of it, or as much as one question covers. */
static void question_open(struct account *a, int64_t from_us)
{
    const struct feed *feed = a->question.feed;
    struct window *asked = &a->question.window;
    int64_t to_us = from_us + feed->question_s * US_PER_S;

    *asked = *window_now(a);
    asked->from_us = from_us;
    if (feed->question_s > 0 && (asked->to_us == 0 || to_us < asked->to_us))
        asked->to_us = to_us;
    cursor_set(a, TEXT_NULL);
}

/* Opens the next window that can be asked for; with none left the key is not needed any more. */
static void windows_go_on(struct account *a)
{
    cursor_set(a, TEXT_NULL);
    a->question = (struct question){0};
    for (; !has_ended(a); a->at++) {
        a->question.feed = feed_find(a->provider, window_now(a)->feed);
        if (a->question.feed)
            break;
        a->ends[a->at].ending = END_BAD_WINDOW;
        a->ends[a->at].detail = text_of(
            arena_printf(a->life, "this version knows no feed \"%.*s\" of %s; update the fetcher",
                         (int)window_now(a)->feed.len, window_now(a)->feed.at, a->provider->name));
    }
    a->tries = 0;
    a->wake_us = 0;
    if (has_ended(a)) {
        secret_wipe(&a->key);
        return;
    }
    question_open(a, window_now(a)->from_us);
    progress_start(&a->progress, window_now(a));
}

static void window_ends(struct account *a, enum ending ending, struct text detail)
{
    a->ends[a->at].ending = ending;
    a->ends[a->at].detail = detail;
    a->ends[a->at].complete_us = a->progress.claimed_us;
    a->at++;
    a->progress.claimed_us = 0;
    body_free(&a->joined);
}

static void windows_end(struct account *a, enum ending ending, struct text detail)
{
    while (!has_ended(a))
        window_ends(a, ending, detail);
    windows_go_on(a);
}

/* What is wrong with the key or the host is so for every feed: asking for the others would only
 * hammer. A missing right concerns one feed. */
static bool concerns_all(enum ending ending)
{
    return ending == END_AUTH_INVALID || ending == END_WRONG_KEY_KIND || ending == END_DNS ||
           ending == END_TLS;
}

static void trouble_settle(struct account *a, const struct trouble *t, int64_t mono_us)
{
    int64_t wait_us;

    a->tries++;
    if (t->again && a->tries < (a->weary ? 1 : ACCOUNT_TRIES_MAX) && !a->stopping) {
        wait_us = backoff_ms(a->tries, &t->advice, random_next(&a->random)) * US_PER_MS;
        if (mono_us + wait_us < a->ask_until_us) {
            a->wake_us = mono_us + wait_us;
            return;
        }
    }
    a->weary |= t->again;
    if (t->advice.wait_ms > 0)
        a->ends[a->at].retry_after_s = (t->advice.wait_ms + 999) / 1000;
    if (concerns_all(t->ending)) {
        windows_end(a, t->ending, detail_keep(a, t->detail));
        return;
    }
    window_ends(a, t->ending, detail_keep(a, t->detail));
    windows_go_on(a);
}

/* ---- answers ---- */

/* A page that came as it is known goes no further: the scheduler is told with `done`. */
static bool page_is_same(struct account *a, const struct page_digest *digest)
{
    struct window_end *end = &a->ends[a->at];
    size_t known = known_find(&a->job->known[a->at], digest);

    if (known == a->job->known[a->at].n || end->n_same == WIRE_KNOWN_MAX)
        return false;
    if (end->n_same == 0)
        end->same = a->same = ARENA_ARRAY(a->life, WIRE_KNOWN_MAX, struct same_page);
    a->same[end->n_same++] = (struct same_page){
        .seq = end->pages++, .known = (uint32_t)known, .complete_us = a->progress.claimed_us};
    return true;
}

/* The first body is taken as it came, the others join it. When there is no room, it is made for as
 * much as the windows that are left may bring: moving what is there is most of the work. */
static void bodies_add(struct account *a, struct answer *answer)
{
    size_t len = answer->body.len, rest = len * (a->job->n_windows - a->at);

    assert(answer->body.at); /* it was understood as a page */
    if (!a->bodies.at) {
        a->bodies = body_take(&answer->body);
        return;
    }
    if (a->bodies.cap - a->bodies.len < len && rest < ACCOUNT_BUNDLE_BYTES)
        body_reserve(&a->bodies, rest);
    body_append(&a->bodies, answer->body.at, len);
}

static void page_keep(struct account *a, struct answer *answer, bool last)
{
    struct page *page = &a->pages[a->n_pages];
    const struct text body = body_text(&answer->body);
    const struct page_digest digest = known_digest(a->job, &a->question, body);

    if (page_is_same(a, &digest))
        return;
    a->n_pages++;
    *page = (struct page){
        .window = (uint32_t)a->at,
        .seq = a->ends[a->at].pages++,
        .asked = a->question.window,
        .complete_us = a->progress.claimed_us,
        .last = last,
        .digest = digest,
        .body.len = body.len,
    };
    bodies_add(a, answer);
}

/* The provider's clock, or this host's when the answer does not tell it. */
static int64_t answer_now_us(const struct answer *answer)
{
    return answer->date_s > 0 ? answer->date_s * US_PER_S : answer->utc_us;
}

/* An answer of a flat feed joins those before it. Once it is the question's last, `answer` and
 * `peek` become those of the page they make together. On ST_REJECT `ending` says of which kind. */
static enum status join(struct account *a, struct answer *answer, struct peek *peek,
                        enum ending *ending, struct err *err)
{
    const struct window *asked = &a->question.window;
    int64_t closed_us = time_floor_us(answer_now_us(answer), asked->bucket_s);

    *ending = END_PROTOCOL;
    TRY(progress_token(&a->progress, peek, err));
    *ending = END_TOO_LARGE;
    TRY(joined_add(&a->joined, body_text(&answer->body), err));
    if (peek->has_more)
        return ST_OK;
    body_free(&answer->body);
    answer->body = joined_take(&a->joined);
    if (closed_us > asked->to_us)
        closed_us = asked->to_us;
    *peek = (struct peek){.any = true,
                          .from_us = asked->from_us,
                          .to_us = asked->to_us,
                          .closed_us = closed_us > asked->from_us ? closed_us : 0};
    return ST_OK;
}

/* After a page: on to the next one, the next question of the window, or its end. */
static void go_on_after(struct account *a, const struct peek *peek, bool last)
{
    if (last) {
        window_ends(a, END_OK, TEXT_NULL);
        windows_go_on(a);
    } else if (a->ends[a->at].pages >= a->job->page_cap) {
        window_ends(a, END_PAGE_CAP, TEXT_LIT("more pages follow; the next job goes on"));
        windows_go_on(a);
    } else if (peek->has_more) {
        cursor_set(a, peek->cursor);
    } else {
        progress_question(&a->progress);
        question_open(a, a->question.window.to_us);
    }
}

static void take_page(struct account *a, struct answer *answer, struct arena *turn, int64_t mono_us)
{
    struct trouble t = {.ending = END_PROTOCOL, .again = true, .advice = {.wait_ms = -1}};
    struct text body = body_text(&answer->body);
    const struct window *window = window_now(a);
    bool flat = feed_is_flat(a->question.feed), last;
    struct peek peek = {0};
    struct err err = {0};
    enum status st;

    /* A gateway's error page and half an answer come with 200, too; like a 5xx they may pass. */
    if (a->provider->peek(&peek, turn, &a->question, body, &err) != ST_OK) {
        t.detail = arena_printf(turn, "HTTP 200, but not a page of %s: %s", a->provider->title,
                                body.len > 0 ? err.text : "the body is empty");
        trouble_settle(a, &t, mono_us);
        return;
    }
    st = flat ? join(a, answer, &peek, &t.ending, &err) : ST_OK;
    last = !peek.has_more &&
           (a->question.feed->question_s == 0 ||
            a->question.window.to_us >= (window->to_us ? window->to_us : answer_now_us(answer)));
    /* What does not fit to the pages before would not fit the second time. */
    if (st == ST_OK && !(flat && peek.has_more)) {
        t.ending = END_PROTOCOL;
        st = progress_page(&a->progress, &peek, last, answer->date_s, answer->utc_us, &err);
    }
    if (st != ST_OK) {
        t.again = false;
        t.detail = arena_printf(turn, "%s; what is complete so far is kept, the rest stays owed",
                                err.text);
        trouble_settle(a, &t, mono_us);
        return;
    }
    a->tries = 0;
    a->weary = false;
    if (flat && peek.has_more) {
        cursor_set(a, peek.cursor);
        return;
    }
    page_keep(a, answer, last);
    go_on_after(a, &peek, last);
}

/* A clock that is wrong makes windows that the provider refuses, and nobody suspects it. */
static const char *with_clock(struct arena *turn, const struct answer *answer, const char *detail)
{
    int64_t ahead_s = answer->utc_us / US_PER_S - answer->date_s;

    if (answer->date_s < 0 || (ahead_s <= CLOCK_SKEW_MAX_S && ahead_s >= -CLOCK_SKEW_MAX_S))
        return detail;
    return arena_printf(
        turn, "%s (this host's clock is %" PRId64 " s %s the provider's: set it right)", detail,
        ahead_s < 0 ? -ahead_s : ahead_s, ahead_s < 0 ? "behind" : "before");
}

/* Whether the same window is asked for once more, in a way that the provider takes. A page token is
 * bound to its question, so only the first page may be asked for otherwise. */
static bool ask_otherwise(struct account *a, const struct refusal *r)
{
    struct ask *asked = &a->question.how;
    bool *how = r->limit_refused ? &asked->default_limit : &asked->reduced_grouping;

    if (a->question.cursor.at || *how || (!r->limit_refused && !r->narrow_grouping))
        return false;
    *how = true;
    LOG(WARN, r->limit_refused ? "limit.refused" : "grouping.refused",
        KV("account", a->job->account), KV("account_id", a->job->account_id),
        KV("provider", a->job->provider), KV("feed", window_now(a)->feed),
        KV("reason", redact(a->life, text_of(r->detail), &a->key)));
    return true;
}

static void token_expired(struct account *a, const struct refusal *r)
{
    if (a->progress.claimed_us > 0)
        window_ends(a, END_PAGE_CAP,
                    TEXT_LIT("page token expired: going on from what is complete"));
    else
        window_ends(a, END_BAD_WINDOW, detail_keep(a, r->detail));
    windows_go_on(a);
}

static void take_refusal(struct account *a, const struct answer *answer, struct arena *turn,
                         int64_t mono_us)
{
    struct text body = body_text(&answer->body);
    uint32_t status = answer->http_status;
    struct trouble t = {.advice = answer->advice};
    struct refusal r = {0};

    a->provider->refused(&r, turn, &a->key, &a->question, status, body);
    if (!r.detail)
        r.detail = arena_printf(turn, "HTTP %" PRIu32, status);
    if (ask_otherwise(a, &r))
        return;
    if (r.cursor_expired && a->question.cursor.at) {
        token_expired(a, &r);
        return;
    }
    t.ending = r.ending == END_OK ? END_PROTOCOL : r.ending;
    t.detail = t.ending == END_BAD_WINDOW ? with_clock(turn, answer, r.detail) : r.detail;
    t.again = status == 408 || status == 409 || status == 429 || status >= 500;
    if (answer->advice.verdict == RETRY_NO)
        t.again = false;
    if (answer->advice.verdict == RETRY_YES && !ending_is_auth(t.ending))
        t.again = true;
    trouble_settle(a, &t, mono_us);
}

void account_answer(struct account *a, struct answer *answer, struct arena *turn, int64_t mono_us)
{
    struct window_end *end = &a->ends[a->at];

    assert(a->asking);
    a->asking = false;
    end->requests++;
    end->bytes += answer->body.len;
    end->http_status = answer->http_status;
    if (answer->http_status == 200) {
        take_page(a, answer, turn, mono_us);
    } else if (answer->http_status != 0) {
        take_refusal(a, answer, turn, mono_us);
    } else {
        struct trouble t = {answer->failure, !answer->lasting, answer->advice, answer->error};
        trouble_settle(a, &t, mono_us);
    }
    if (a->stopping)
        account_stop(a);
}

/* ---- driving ---- */

static bool is_full(const struct account *a)
{
    return a->n_pages == ACCOUNT_BUNDLE_PAGES || a->bodies.len >= ACCOUNT_BUNDLE_BYTES;
}

enum account_want account_next(struct account *a, int64_t mono_us)
{
    if (!has_ended(a) && !a->asking && mono_us >= a->ask_until_us)
        windows_end(a, END_DEADLINE, TEXT_LIT("the lease ran short; the next job goes on"));
    /* A wait is a good moment to hand on what is there: it may be long. */
    if (a->n_pages > 0 && (has_ended(a) || is_full(a) || a->wake_us > mono_us))
        return WANT_SEND;
    if (has_ended(a))
        return WANT_NOTHING;
    if (a->asking)
        return WANT_ANSWER;
    return a->wake_us > mono_us ? WANT_TIME : WANT_ASK;
}

int64_t account_wake_us(const struct account *a)
{
    return a->wake_us;
}

enum status account_ask(struct account *a, struct request *out, struct arena *turn, struct err *err)
{
    const struct credential who = {a->base_url, &a->key};
    enum status st;

    assert(!a->asking && !has_ended(a));
    *out = (struct request){0};
    st = a->provider->ask(out, turn, &who, &a->question, err);
    if (st != ST_OK) {
        secret_wipe(&out->auth.value);
        window_ends(a, END_PROTOCOL, detail_keep(a, err->text));
        windows_go_on(a);
        return err_set(err, ST_REJECT, "nothing to ask");
    }
    a->asking = true;
    a->wake_us = 0;
    return ST_OK;
}

bool account_has_begun(const struct account *a)
{
    return a->at > 0 || a->ends[0].requests > 0;
}

void account_unask(struct account *a)
{
    a->asking = false;
}

int64_t account_ask_until_us(const struct account *a)
{
    return a->ask_until_us;
}

void account_stop(struct account *a)
{
    a->stopping = true;
    if (!a->asking)
        windows_end(a, END_STOPPED,
                    TEXT_LIT("the fetcher was asked to stop; the next job goes on"));
}

void account_abort(struct account *a)
{
    a->asking = false;
    account_stop(a);
}

void account_pages(struct account *a, struct pages *out)
{
    const char *at = a->bodies.at;

    for (size_t i = 0; i < a->n_pages; at += a->pages[i++].body.len)
        a->pages[i].body.at = at;
    *out = (struct pages){
        .origin = {a->job->job_id, a->job->scheduler_id, a->job->account_id, a->job->epoch,
                   a->job->provider},
        .pages = a->pages,
        .n_pages = a->n_pages,
        .bodies = {a->bodies.at, a->bodies.len},
    };
}

void account_pages_sent(struct account *a)
{
    a->n_pages = 0;
    a->bodies = (struct body){0};
}

void account_done(const struct account *a, struct done *out)
{
    *out = (struct done){a->job->job_id, a->ends, a->job->n_windows};
}

const struct job *account_job(const struct account *a)
{
    return a->job;
}

uint64_t account_credential(const struct account *a)
{
    return a->credential;
}

/* ---- life ---- */

/* Why this account can not be asked for at all, or NULL. Fills the ending. */
static const char *prepare(struct account *a, const struct account_rules *rules,
                           enum ending *ending)
{
    const struct job *job = a->job;
    const char *refused;
    struct err err = {0};

    a->provider = rules->find(job->provider);
    *ending = END_BAD_WINDOW;
    if (!a->provider)
        return arena_printf(a->life, "this version knows no provider \"%.*s\"; update the fetcher",
                            (int)job->provider.len, job->provider.at);
    a->base_url = job->base_url.len > 0 ? arena_copy(a->life, job->base_url.at, job->base_url.len)
                                        : a->provider->base_url;
    *ending = END_PROTOCOL;
    refused = base_url_refused(a->life, a->base_url, rules->allow_http);
    if (refused)
        return refused;
    *ending = END_AUTH_INVALID;
    if (secret_unseal(&a->key, rules->sealer, job->provider, job->account, job->sealed_key, &err) !=
        ST_OK)
        return arena_copy(a->life, err.text, strlen(err.text));
    a->credential = XXH3_64bits_withSeed(a->key.at, a->key.len,
                                         XXH3_64bits(job->provider.at, job->provider.len));
    return NULL;
}

enum status account_open(struct account **out, struct text msg, const struct account_rules *rules,
                         int64_t mono_us, struct err *err)
{
    struct account *a = xalloc(1, sizeof(*a));
    struct text copy;
    enum ending ending;
    const char *why;
    int64_t lease_us, reserve_us;

    *out = a;
    a->life = arena_small(LIFE_FIRST);
    copy = (struct text){arena_copy(a->life, msg.at, msg.len), msg.len};
    TRY(job_decode(&a->job, a->life, copy, err));
    a->ends = ARENA_ARRAY(a->life, a->job->n_windows, struct window_end);
    for (size_t i = 0; i < a->job->n_windows; i++)
        a->ends[i].window = (uint32_t)i;
    a->random = rules->seed;
    lease_us = a->job->lease_ms * US_PER_MS;
    reserve_us = lease_us / 5; /* for the pages to be stored and acknowledged */
    a->ask_until_us = mono_us + lease_us - reserve_us;
    why = prepare(a, rules, &ending);
    if (why)
        while (!has_ended(a))
            window_ends(a, ending, text_of(why));
    else
        windows_go_on(a);
    return ST_OK;
}

void account_close(struct account **account)
{
    struct account *a = *account;

    if (!a)
        return;
    body_free(&a->bodies);
    cursor_set(a, TEXT_NULL);
    body_free(&a->joined);
    progress_close(&a->progress);
    secret_wipe(&a->key);
    arena_free(&a->life);
    free(a);
    *account = NULL;
}
