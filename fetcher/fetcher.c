#include "fetcher/fetcher.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <uv.h>

#include "common/arena.h"
#include "common/clock.h"
#include "common/crash.h"
#include "common/link.h"
#include "common/log.h"
#include "common/stage.h"
#include "common/wire.h"
#include "fetcher/account.h"
#include "fetcher/http.h"
#include "fetcher/schedulers.h"

#define HEARTBEAT_MS   1000
#define ABORT_AFTER_US (8 * US_PER_S) /* of asking to stop: requests on their way are dropped */
#define LEAVE_AFTER_US (9 * US_PER_S) /* what can not be handed on by then is read again */
#define NOBODY         UINT32_MAX

/* A job in hand. Kept small and in one array, since each new job looks through it. */
struct slot {
    struct fetcher *fetcher;
    struct account *account; /* NULL: free */
    struct uuid job_id;
    int64_t account_id;
    uint64_t credential;
    uint64_t scheduler; /* to whom `done` goes */
    uint32_t behind;    /* the slot that uses the same credential before this one, or NOBODY */
    bool queued;        /* in the list of those to be looked at */
    bool done_waits;    /* all is sent but `done` */
    struct transfer *transfer;
    int64_t began_us, lease_end_us;
};

struct fetcher {
    struct stage *stage;
    struct pulse *pulse;
    uv_loop_t loop;
    uv_prepare_t turn;
    uv_timer_t heartbeat, refresh;
    uv_poll_t signals, pages_wake, door;
    struct sealer *sealer;
    struct http *http;
    struct schedulers *schedulers;
    struct link *pages;
    struct arena *memory; /* of one answer or one message */
    uint64_t random;
    int64_t now_us, refresh_us;
    size_t in_flight;
    const char *allow_http;
    const char *instance;

    struct slot *slots;
    uv_timer_t *timers; /* one a slot, apart: they are large and seldom needed */
    uint32_t n_slots, n_used, n_behind;
    uint32_t *queue; /* a ring of slots to be looked at, each at most once */
    uint32_t queue_first, n_queue;
    bool blocked; /* the pages link is full: nothing is asked and no job wished for until it is not
                   */
    bool stopping, aborted;
    int64_t stop_us;
};

/* The turn before the next wait does the work. */
static void on_wake_time(uv_timer_t *timer)
{
    (void)timer;
}

static void on_news(uv_poll_t *poll, int status, int events)
{
    (void)poll;
    (void)status;
    (void)events;
}

/* ---- slots ---- */

static uint32_t slot_index(const struct fetcher *f, const struct slot *s)
{
    return (uint32_t)(s - f->slots);
}

static void look_at(struct fetcher *f, struct slot *s)
{
    if (s->queued || !s->account)
        return;
    s->queued = true;
    f->queue[(f->queue_first + f->n_queue++) % f->n_slots] = slot_index(f, s);
}

static void on_slot_time(uv_timer_t *timer)
{
    struct fetcher *f = timer->loop->data;

    look_at(f, &f->slots[timer - f->timers]);
}

/* Whoever has the same account or the same key and is at work, or NOBODY. */
static uint32_t find_ahead(const struct fetcher *f, const struct slot *s)
{
    for (uint32_t i = 0; i < f->n_slots; i++) {
        const struct slot *other = &f->slots[i];
        if (other == s || !other->account || other->behind != NOBODY)
            continue;
        if (other->account_id == s->account_id ||
            (s->credential != 0 && other->credential == s->credential))
            return i;
    }
    return NOBODY;
}

/* Those that waited behind it go on: the first at once, the others behind that one. */
static void slot_free(struct fetcher *f, struct slot *s)
{
    uint32_t gone = slot_index(f, s);

    account_close(&s->account);
    (void)uv_timer_stop(&f->timers[gone]);
    f->n_used--;
    for (uint32_t i = 0; f->n_behind > 0 && i < f->n_slots; i++) {
        struct slot *other = &f->slots[i];
        if (!other->account || other->behind != gone)
            continue;
        other->behind = find_ahead(f, other);
        if (other->behind != NOBODY)
            continue;
        f->n_behind--;
        look_at(f, other);
    }
}

static struct slot *slot_new(struct fetcher *f)
{
    for (uint32_t i = 0; i < f->n_slots; i++) {
        if (f->slots[i].account || f->slots[i].queued)
            continue;
        f->slots[i] = (struct slot){.fetcher = f, .behind = NOBODY, .began_us = f->now_us};
        f->n_used++;
        return &f->slots[i];
    }
    return NULL;
}

/* ---- what a slot wants ---- */

/* What of the metric requests_total an answer is. Whether its body makes sense is not known yet. */
static enum outcome_label outcome_of(const struct answer *answer)
{
    static const enum outcome_label failures[N_ENDINGS] = {
        [END_TIMEOUT] = OUTCOME_TIMEOUT,
        [END_TLS] = OUTCOME_TLS,
        [END_DNS] = OUTCOME_DNS,
        [END_PROTOCOL] = OUTCOME_PROTOCOL,
        [END_TOO_LARGE] = OUTCOME_TOO_LARGE,
    };
    uint32_t status = answer->http_status;

    if (status == 0)
        return failures[answer->failure] ? failures[answer->failure] : OUTCOME_PROVIDER_ERROR;
    if (status / 100 == 2)
        return OUTCOME_OK;
    if (status == 401 || status == 403)
        return OUTCOME_AUTH_INVALID;
    if (status == 429)
        return OUTCOME_RATE_LIMITED;
    return status / 100 == 4 && status != 408 ? OUTCOME_REFUSED : OUTCOME_PROVIDER_ERROR;
}

static void count_answer(struct fetcher *f, const struct slot *s, const struct answer *answer)
{
    size_t provider = pulse_name(f->pulse, account_job(s->account)->provider);
    enum outcome_label outcome = outcome_of(answer);

    pulse_add(f->pulse, M_REQUESTS, provider, outcome, 1);
    pulse_observe(f->pulse, M_REQUEST_DURATION, provider, outcome, answer->took_us);
    pulse_add(f->pulse, M_BYTES_FETCHED, provider, 0, (int64_t)answer->body.len);
}

static void on_answer(void *arg, struct answer *answer)
{
    struct slot *s = arg;
    struct fetcher *f = s->fetcher;

    s->transfer = NULL;
    count_answer(f, s, answer);
    CRASH_POINT("fetcher.answer.received");
    account_answer(s->account, answer, f->memory, clock_mono_us());
    CRASH_POINT("fetcher.answer.taken");
    arena_reset(f->memory);
    look_at(f, s);
}

static void ask(struct fetcher *f, struct slot *s)
{
    struct request request;
    struct err err = {0};

    if (account_ask(s->account, &request, f->memory, &err) == ST_OK) {
        CRASH_POINT("fetcher.request.sending");
        s->transfer = http_get(f->http, &request, account_has_begun(s->account), on_answer, s);
        secret_wipe(&request.auth.value);
    }
    arena_reset(f->memory);
}

static void free_body(void *body, void *hint)
{
    (void)hint;
    free(body);
}

/* Hands the pages in hand to a normalizer; their bodies are not copied. */
static bool send_pages(struct fetcher *f, struct slot *s)
{
    struct buf head = {.arena = f->memory};
    struct pages pages;
    struct err err = {0};
    enum status st;

    account_pages(s->account, &pages);
    pages_encode_head(&head, &pages);
    CRASH_POINT("fetcher.pages.sending");
    st = link_send_body(f->pages, (struct text){head.at, head.len}, pages.bodies, free_body, &err);
    arena_reset(f->memory);
    CRASH_POINT("fetcher.pages.sent");
    if (st != ST_OK)
        return false;
    pulse_add(f->pulse, M_PAGES_FETCHED, pulse_name(f->pulse, account_job(s->account)->provider), 0,
              (int64_t)pages.n_pages);
    account_pages_sent(s->account);
    return true;
}

static void tell_done(struct fetcher *f, const struct slot *s, const struct done *done)
{
    const struct job *job = account_job(s->account);
    const struct window_end *worst = &done->ends[0];
    uint64_t bytes = 0;
    uint32_t pages = 0, same = 0, requests = 0;
    char id[37];

    for (size_t i = 0; i < done->n_ends; i++) {
        const struct window_end *end = &done->ends[i];
        pages += end->pages;
        same += (uint32_t)end->n_same;
        requests += end->requests;
        bytes += end->bytes;
        pulse_add(f->pulse, M_WINDOWS_ENDED, pulse_name(f->pulse, job->provider), end->ending, 1);
        if (end->ending > worst->ending)
            worst = end;
    }
    pulse_add(f->pulse, M_PAGES_SAME, pulse_name(f->pulse, job->provider), 0, same);
    if (worst->ending == END_OK || ending_is_partial(worst->ending))
        LOG(INFO, "job.done", KV("account", job->account), KV("account_id", job->account_id),
            KV("job", uuid_format(id, &job->job_id)), KV("provider", job->provider),
            KV("ending", ending_name(worst->ending)), KV("windows", (uint64_t)done->n_ends),
            KV("pages", pages), KV("unchanged", same), KV("requests", requests), KV("bytes", bytes),
            KV("took_ms", (f->now_us - s->began_us) / US_PER_MS));
    else
        LOG(WARN, "job.failed", KV("account", job->account), KV("account_id", job->account_id),
            KV("job", uuid_format(id, &job->job_id)), KV("provider", job->provider),
            KV("feed", job->windows[worst->window].feed), KV("ending", ending_name(worst->ending)),
            KV("http_status", worst->http_status), KV("windows", (uint64_t)done->n_ends),
            KV("pages", pages), KV("requests", requests), KV("bytes", bytes),
            KV("took_ms", (f->now_us - s->began_us) / US_PER_MS), KV("detail", worst->detail));
}

/* Tells how it went, once all pages are handed on. A scheduler that can not be told by the end of
 * the lease has given the job to somebody else. */
static void finish(struct fetcher *f, struct slot *s)
{
    struct buf message = {.arena = f->memory};
    struct done done;
    struct err err = {0};
    enum status st;

    account_done(s->account, &done);
    done_encode(&message, &done);
    CRASH_POINT("fetcher.done.sending");
    st = schedulers_send(f->schedulers, s->scheduler, (struct text){message.at, message.len}, &err);
    arena_reset(f->memory);
    CRASH_POINT("fetcher.done.sent");
    s->done_waits = st == ST_RETRY && f->now_us < s->lease_end_us;
    if (s->done_waits)
        return;
    tell_done(f, s, &done);
    slot_free(f, s);
}

static void block(struct fetcher *f)
{
    if (!f->blocked)
        schedulers_owe_ready(f->schedulers); /* no more jobs */
    f->blocked = true;
}

/* Does what the account wants, until it has to wait for something. */
static void drive(struct fetcher *f, struct slot *s)
{
    while (s->account && s->behind == NOBODY) {
        switch (account_next(s->account, f->now_us)) {
        case WANT_ASK:
            if (f->blocked)
                return; /* unblock() comes back to it */
            ask(f, s);
            break;
        case WANT_ANSWER:
            return;
        case WANT_TIME: {
            int64_t wait_us = account_wake_us(s->account) - f->now_us;
            (void)uv_timer_start(&f->timers[slot_index(f, s)], on_slot_time,
                                 (uint64_t)(wait_us / US_PER_MS + 1), 0);
            return;
        }
        case WANT_SEND:
            if (f->blocked || !send_pages(f, s)) {
                block(f);
                return;
            }
            break;
        case WANT_NOTHING:
            finish(f, s);
            return;
        }
    }
}

static void drive_queued(struct fetcher *f)
{
    while (f->n_queue > 0) {
        struct slot *s = &f->slots[f->queue[f->queue_first]];
        f->queue_first = (f->queue_first + 1) % f->n_slots;
        f->n_queue--;
        s->queued = false;
        drive(f, s);
    }
}

static void look_at_all(struct fetcher *f)
{
    for (uint32_t i = 0; i < f->n_slots; i++)
        look_at(f, &f->slots[i]);
}

/* Looks at the pages link, and goes on when it takes messages again. */
static bool unblock(struct fetcher *f)
{
    if (!link_writable(f->pages) || !f->blocked)
        return false;
    f->blocked = false;
    look_at_all(f);
    schedulers_owe_ready(f->schedulers);
    return true;
}

/* ---- jobs ---- */

static bool holds_job(const struct fetcher *f, const struct slot *s)
{
    for (uint32_t i = 0; i < f->n_slots; i++)
        if (&f->slots[i] != s && f->slots[i].account && uuid_eq(&f->slots[i].job_id, &s->job_id))
            return true;
    return false;
}

static void take_job(struct fetcher *f, struct text msg, uint64_t from)
{
    const struct account_rules rules = {f->sealer, provider_find, f->allow_http,
                                        random_next(&f->random)};
    struct slot *s = slot_new(f);
    struct err err = {0};
    enum status st;

    if (!s) {
        LOG(WARN, "job.refused", KV("reason", "more jobs came than were asked for"),
            KV("held", f->n_used));
        return;
    }
    st = account_open(&s->account, msg, &rules, f->now_us, &err);
    if (st == ST_OK) {
        s->job_id = account_job(s->account)->job_id;
        s->account_id = account_job(s->account)->account_id;
        s->credential = account_credential(s->account);
        s->scheduler = from;
        s->lease_end_us = f->now_us + account_job(s->account)->lease_ms * US_PER_MS;
    }
    if (st != ST_OK || holds_job(f, s)) {
        LOG(WARN, "job.refused", KV("reason", st != ST_OK ? err.text : "it is in hand already"));
        slot_free(f, s);
        return;
    }
    CRASH_POINT("fetcher.job.received");
    s->behind = find_ahead(f, s);
    f->n_behind += s->behind != NOBODY;
    if (f->stopping)
        account_stop(s->account);
    look_at(f, s);
}

static void refuse_message(const char *reason)
{
    LOG(WARN, "job.refused", KV("reason", reason));
}

/* Takes all that are there; answers whether there were any. */
static bool take_jobs(struct fetcher *f)
{
    struct msg msg;
    struct err err = {0};
    uint64_t from = 0;
    bool any = false;
    enum status st;

    while ((st = schedulers_receive(f->schedulers, &msg, &from, &err)) != ST_RETRY) {
        any = true;
        if (st != ST_OK)
            refuse_message(err.text);
        else if (msg.n != 1)
            refuse_message("a job is one frame");
        else
            take_job(f, msg_frame(&msg, 0), from);
        if (st == ST_OK)
            msg_clear(&msg);
    }
    return any;
}

static void send_ready(struct fetcher *f)
{
    size_t n = schedulers_count(f->schedulers);
    struct err err = {0};

    for (size_t i = 0; i < n; i++) {
        uint64_t to = schedulers_name(f->schedulers, i);
        size_t share = f->in_flight / n > 0 ? f->in_flight / n : 1;
        struct buf message = {.arena = f->memory};
        struct ready ready = {.instance = text_of(f->instance)};
        struct uuid *held;

        if (!schedulers_owed(f->schedulers, i))
            continue;
        held = ARENA_ARRAY(f->memory, f->n_used, struct uuid);
        for (uint32_t k = 0; k < f->n_slots; k++)
            if (f->slots[k].account && f->slots[k].scheduler == to)
                held[ready.n_held++] = f->slots[k].job_id;
        ready.held = held;
        ready.capacity = f->blocked || f->stopping ? 0 : (uint32_t)share;
        ready_encode(&message, &ready);
        CRASH_POINT("fetcher.ready.sending");
        if (schedulers_send(f->schedulers, to, (struct text){message.at, message.len}, &err) ==
            ST_OK)
            schedulers_paid(f->schedulers, i);
        CRASH_POINT("fetcher.ready.sent");
        arena_reset(f->memory);
    }
}

/* ---- the loop ---- */

/* Drops the requests of all slots, or only of those that are still in line for their host. */
static void drop_requests(struct fetcher *f, bool started_too)
{
    for (uint32_t i = 0; i < f->n_slots; i++) {
        struct slot *s = &f->slots[i];
        if (!s->account || !s->transfer || (!started_too && http_started(s->transfer)))
            continue;
        http_drop(f->http, s->transfer);
        s->transfer = NULL;
        account_abort(s->account);
    }
    look_at_all(f);
}

static void begin_stop(struct fetcher *f)
{
    CRASH_POINT("fetcher.stop.asked");
    f->stopping = true;
    f->stop_us = f->now_us;
    drop_requests(f, false);
    for (uint32_t i = 0; i < f->n_slots; i++)
        if (f->slots[i].account)
            account_stop(f->slots[i].account);
    schedulers_owe_ready(f->schedulers);
}

static void stop_when_asked(struct fetcher *f)
{
    if (!f->stopping && stage_stopping())
        begin_stop(f);
    if (f->stopping && !f->aborted && f->now_us - f->stop_us >= ABORT_AFTER_US) {
        f->aborted = true;
        drop_requests(f, true);
    }
}

static void arm_refresh(struct fetcher *f)
{
    int64_t due_us = link_deadline_us(f->pages), wait_us;

    if (schedulers_deadline_us(f->schedulers) < due_us)
        due_us = schedulers_deadline_us(f->schedulers);
    if (due_us == f->refresh_us)
        return;
    f->refresh_us = due_us;
    wait_us = due_us > f->now_us ? due_us - f->now_us : 0;
    (void)uv_timer_start(&f->refresh, on_wake_time, (uint64_t)(wait_us / US_PER_MS + 1), 0);
}

/* Runs each time before the loop waits. All sends and receives on ZeroMQ happen here: its
 * descriptors tell only that something has changed since the socket was last looked at, so each is
 * looked at last thing before waiting, and nothing that happens in between can be missed. */
static void on_turn(uv_prepare_t *prepare)
{
    struct fetcher *f = prepare->loop->data;
    bool more;

    f->now_us = clock_mono_us();
    schedulers_refresh(f->schedulers, f->now_us);
    link_refresh(f->pages, f->now_us);
    stop_when_asked(f);
    stage_beat(f->stage, f->now_us);
    do {
        drive_queued(f);
        send_ready(f);
        more = take_jobs(f);
        more |= unblock(f);
        more |= schedulers_can_pay(f->schedulers); /* receiving noticed a new connection */
    } while (more || f->n_queue > 0);
    arm_refresh(f);
    if (f->stopping && (f->n_used == 0 || f->now_us - f->stop_us >= LEAVE_AFTER_US))
        uv_stop(&f->loop);
}

/* Still in line for its host when the lease runs short: by then somebody else may have the job. */
static void leave_line(struct fetcher *f, struct slot *s)
{
    if (http_started(s->transfer) || f->now_us < account_ask_until_us(s->account))
        return;
    http_drop(f->http, s->transfer);
    s->transfer = NULL;
    account_unask(s->account);
    look_at(f, s);
}

static void on_heartbeat(uv_timer_t *timer)
{
    struct fetcher *f = timer->loop->data;
    int64_t n_asked = 0;

    f->now_us = clock_mono_us();
    schedulers_owe_ready(f->schedulers);
    for (uint32_t i = 0; i < f->n_slots; i++) {
        struct slot *s = &f->slots[i];
        if (s->done_waits)
            look_at(f, s);
        n_asked += s->transfer != NULL;
        if (s->transfer)
            leave_line(f, s);
    }
    pulse_set(f->pulse, M_JOBS_HELD, f->n_used);
    pulse_set(f->pulse, M_REQUESTS_IN_FLIGHT, n_asked);
    pulse_set(f->pulse, M_PAGES_BLOCKED, f->blocked);
}

static void on_signal(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    (void)uv_poll_stop(poll); /* stage_stopping() knows; its descriptor would stay readable */
}

void fetcher_run(struct fetcher *f)
{
    (void)uv_run(&f->loop, UV_RUN_DEFAULT);
    CRASH_POINT("fetcher.stop.finished");
    if (f->n_used > 0)
        LOG(WARN, "fetcher.left", KV("jobs", f->n_used),
            KV("reason", "they could not be handed on in time; their leases give them anew"));
}

/* ---- life ---- */

static enum status loop_open(struct fetcher *f, struct err *err)
{
    int rc = uv_loop_init(&f->loop);

    if (rc < 0)
        return err_set(err, ST_RETRY, "no event loop: %s", uv_strerror(rc));
    f->loop.data = f;
    (void)uv_prepare_init(&f->loop, &f->turn);
    (void)uv_timer_init(&f->loop, &f->heartbeat);
    (void)uv_timer_init(&f->loop, &f->refresh);
    for (uint32_t i = 0; i < f->n_slots; i++)
        (void)uv_timer_init(&f->loop, &f->timers[i]);
    return ST_OK;
}

/* A connection is a descriptor, and the usual soft limit of 1,024 is there for select(2) alone. */
static void allow_descriptors(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* `poll` is closed by loop_close when it was opened. */
static enum status watch(struct fetcher *f, uv_poll_t *poll, int fd, uv_poll_cb on_readable,
                         struct err *err)
{
    int rc = uv_poll_init(&f->loop, poll, fd);

    if (rc == 0)
        rc = uv_poll_start(poll, UV_READABLE, on_readable);
    if (rc < 0)
        return err_set(err, ST_RETRY, "a descriptor can not be watched: %s", uv_strerror(rc));
    return ST_OK;
}

static void close_handle(uv_handle_t *handle, void *arg)
{
    (void)arg;
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

/* All handles that are still open live in `f`, so they end before it does. */
static void loop_close(struct fetcher *f)
{
    uv_walk(&f->loop, close_handle, NULL);
    while (uv_run(&f->loop, UV_RUN_NOWAIT) != 0)
        continue;
    (void)uv_loop_close(&f->loop);
}

enum status fetcher_open(struct fetcher **out, const struct config *cfg, struct err *err)
{
    struct fetcher *f = xalloc(1, sizeof(*f));
    const struct http_limits limits = {
        .in_flight = (size_t)cfg->in_flight,
        .per_host = (size_t)cfg->per_host,
        .max_body = (size_t)cfg->max_body,
        .timeout_s = cfg->request_timeout_s,
        .ca_file = cfg->ca_file,
    };
    int pages_fd = -1;
    size_t len = sizeof(pages_fd);

    *out = f;
    f->in_flight = (size_t)cfg->in_flight;
    f->allow_http = cfg->allow_http;
    f->instance = cfg->instance;
    f->n_slots =
        2 * (uint32_t)cfg->in_flight; /* a scheduler that comes halves the others' shares */
    f->slots = xalloc(f->n_slots, sizeof(*f->slots));
    f->timers = xalloc(f->n_slots, sizeof(*f->timers));
    f->queue = xalloc(f->n_slots, sizeof(*f->queue));
    f->memory = arena_new();
    random_bytes(&f->random, sizeof(f->random));
    allow_descriptors();
    TRY(loop_open(f, err));
    TRY(stage_open(&f->stage, "fetcher", cfg, err));
    TRY(sealer_open(&f->sealer, &cfg->encryption_key, &cfg->encryption_key_old, err));
    TRY(http_open(&f->http, &f->loop, &limits, err));
    TRY(link_open(&f->pages, stage_zmq(f->stage), LINK_PAGES_OUT, cfg, TEXT_NULL, err));
    TRY(schedulers_open(&f->schedulers, &f->loop, stage_zmq(f->stage), cfg, err));
    TRY(stage_pulse_open(f->stage, STAGE_FETCHER, cfg, err));
    f->pulse = stage_pulse(f->stage);
    if (zmq_getsockopt(link_socket(f->pages, 0), ZMQ_FD, &pages_fd, &len) < 0)
        return err_set(err, ST_RETRY, "no descriptor: %s", zmq_strerror(errno));
    TRY(watch(f, &f->pages_wake, pages_fd, on_news, err));
    if (stage_door_fd(f->stage) >= 0)
        TRY(watch(f, &f->door, stage_door_fd(f->stage), on_news, err));
    TRY(watch(f, &f->signals, stage_wake_fd(), on_signal, err));
    (void)uv_prepare_start(&f->turn, on_turn);
    (void)uv_timer_start(&f->heartbeat, on_heartbeat, HEARTBEAT_MS, HEARTBEAT_MS);
    return ST_OK;
}

void fetcher_close(struct fetcher **fetcher)
{
    struct fetcher *f = *fetcher;

    if (!f)
        return;
    for (uint32_t i = 0; i < f->n_slots; i++)
        account_close(&f->slots[i].account);
    http_close(&f->http);
    schedulers_close(&f->schedulers);
    loop_close(f);
    link_close(&f->pages);
    sealer_close(&f->sealer);
    stage_close(&f->stage);
    arena_free(&f->memory);
    free(f->slots);
    free(f->timers);
    free(f->queue);
    free(f);
    *fetcher = NULL;
}
