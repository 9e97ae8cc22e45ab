#include "gateway/trigger.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/decimal.h"
#include "common/log.h"
#include "gateway/access.h"
#include "gateway/questions.h"
#include "gateway/request.h"

#define NAMED_MAX 5 /* failing accounts in the message; the list has up to a hundred */

enum phase { IDLE, ASKING, FOLLOWING };

struct trigger {
    struct gateway *gateway;
    struct rate rate;
    enum phase phase;
    char run_id[37];
    int64_t accounts;
    int64_t since_us; /* the run was asked for */
    bool status_asked;
    struct request *first; /* that wait */
};

void trigger_open(struct trigger **out, struct gateway *g)
{
    struct trigger *t = xalloc(1, sizeof(*t));

    *out = t;
    t->gateway = g;
}

void trigger_close(struct trigger **t)
{
    free(*t);
    *t = NULL;
}

/* ---- who waits ---- */

static void waiter_gone(struct request *r)
{
    struct request **link = &r->gateway->trigger->first;

    while (*link && *link != r)
        link = &(*link)->next_waiter;
    if (*link)
        *link = r->next_waiter;
    r->abandoned = NULL;
}

static void waiter_add(struct trigger *t, struct request *r)
{
    r->next_waiter = t->first;
    t->first = r;
    r->abandoned = waiter_gone;
}

/* ---- answers ---- */

static void answer_under_way(const struct trigger *t, struct request *r)
{
    struct buf b = {.arena = r->arena};
    struct json_writer w = {.out = &b};

    json_w_object(&w);
    json_w_key(&w, "run_id");
    json_w_str(&w, t->run_id);
    json_w_key(&w, "state");
    json_w_str(&w, "running");
    json_w_key(&w, "accounts");
    json_w_int(&w, t->accounts);
    json_w_key(&w, "joined");
    json_w_bool(&w, r->joined);
    json_w_end(&w);
    buf_str(&b, "\n");
    answer_json(r, MHD_HTTP_ACCEPTED, (struct text){b.at, b.len});
}

static void all_fail(struct trigger *t, enum status st, const struct err *err)
{
    while (t->first) {
        struct request *r = t->first;

        waiter_gone(r);
        if (st == ST_REJECT)
            answer_error(r, MHD_HTTP_CONFLICT, "%s", err->text);
        else
            answer_later(r, MHD_HTTP_SERVICE_UNAVAILABLE, 30, "%s", err->text);
    }
}

static int64_t count(const struct json *node, const char *path)
{
    const struct json *n = json_path(node, path);
    struct err ignored;
    int64_t v = 0;

    return json_is(n, JSON_NUMBER) && int64_parse(&v, n->text, &ignored) == ST_OK ? v : 0;
}

const char *trigger_message(struct arena *a, const struct json *run)
{
    const struct json *failures = json_member(run, "failures");
    int64_t ok = count(run, "accounts.ok"), failed = count(run, "accounts.failed"), named = 0;
    struct buf b = {.arena = a};

    buf_printf(&b, "%" PRId64 " account%s read", ok, ok == 1 ? "" : "s");
    if (failed == 0)
        return b.at;
    buf_printf(&b, "; %" PRId64 " of %" PRId64 " failed: ", failed, count(run, "accounts.total"));
    for (const struct json *f = failures ? failures->first : NULL; f && named < NAMED_MAX;
         f = f->next, named++) {
        struct text account = json_string(json_member(f, "account"));
        struct text error = json_string(json_member(f, "error"));

        buf_str(&b, named ? ", " : "");
        buf_text(&b, account);
        buf_str(&b, " (");
        buf_text(&b, error.at ? error : TEXT_LIT("no reason given"));
        buf_str(&b, ")");
    }
    if (failed > named)
        buf_printf(&b, " and %" PRId64 " more", failed - named);
    return b.at;
}

static void answer_summary(struct request *r, const struct json *run)
{
    static const char *const members[] = {"run_id", "state",           "accounts", "rows",
                                          "pages",  "pages_unchanged", "requests", "failures"};
    struct buf b = {.arena = r->arena};
    struct json_writer w = {.out = &b};

    json_w_object(&w);
    for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
        const struct json *member = json_member(run, members[i]);
        struct buf text = {.arena = r->arena};

        buf_str(&text, "");
        if (member)
            json_print(&text, member);
        json_w_key(&w, members[i]);
        json_w_raw(&w, member ? (struct text){text.at, text.len} : TEXT_NULL);
    }
    json_w_key(&w, "message");
    json_w_str(&w, trigger_message(r->arena, run));
    json_w_end(&w);
    buf_str(&b, "\n");
    answer_json(r, count(run, "accounts.failed") > 0 ? MHD_HTTP_BAD_GATEWAY : MHD_HTTP_OK,
                (struct text){b.at, b.len});
}

/* ---- the run ---- */

static void on_status(void *arg, enum status st, const struct json *run, const struct err *err)
{
    struct trigger *t = arg;

    t->status_asked = false;
    if (t->phase != FOLLOWING || st == ST_RETRY)
        return; /* asked again in a second */
    if (st != ST_OK) {
        t->phase = IDLE;
        all_fail(t, ST_RETRY, err);
        return;
    }
    if (!text_is(json_string(json_member(run, "run_id")), t->run_id) ||
        !text_is(json_string(json_member(run, "state")), "done"))
        return;
    t->phase = IDLE;
    LOG(INFO, "trigger.done", KV("run", t->run_id), KV("ok", count(run, "accounts.ok")),
        KV("failed", count(run, "accounts.failed")));
    while (t->first) {
        struct request *r = t->first;

        waiter_gone(r);
        answer_summary(r, run);
    }
}

static void status_ask(struct trigger *t)
{
    char request[100];

    if (t->status_asked)
        return;
    t->status_asked = true;
    (void)snprintf(request, sizeof(request), "{\"cmd\":\"run_status\",\"run_id\":\"%s\"}",
                   t->run_id);
    question_ask(t->gateway->questions, text_of(request), on_status, t);
}

static void on_run(void *arg, enum status st, const struct json *answer, const struct err *err)
{
    struct trigger *t = arg;
    struct text id = json_string(json_member(answer, "run_id"));

    if (st != ST_OK || id.len != sizeof(t->run_id) - 1) {
        static const struct err odd = {ST_RETRY, "the scheduler's answer can not be read"};

        LOG(WARN, "trigger.failed", KV("error", st != ST_OK ? err->text : odd.text));
        t->phase = IDLE;
        all_fail(t, st != ST_OK ? st : ST_RETRY, st != ST_OK ? err : &odd);
        return;
    }
    memcpy(t->run_id, id.at, id.len);
    t->accounts = count(answer, "accounts");
    t->phase = FOLLOWING;
    LOG(INFO, "trigger.run", KV("run", t->run_id), KV("accounts", t->accounts));
    for (struct request *r = t->first, *next; r; r = next) {
        next = r->next_waiter;
        if (r->wait_until_us > 0)
            continue;
        waiter_gone(r);
        answer_under_way(t, r);
    }
}

void trigger_second(struct trigger *t, int64_t now_us)
{
    if (t->phase == FOLLOWING)
        status_ask(t);
    if (t->phase == ASKING)
        return; /* it is answered soon, one way or the other */
    for (struct request *r = t->first, *next; r; r = next) {
        next = r->next_waiter;
        if (now_us < r->wait_until_us)
            continue;
        waiter_gone(r);
        answer_under_way(t, r);
    }
}

/* ---- the handler ---- */

void trigger_asked(struct gateway *g, struct request *r)
{
    static const char *const known[] = {"wait", NULL};
    static const int64_t range[2] = {0, TRIGGER_WAIT_MAX_S};
    struct trigger *t = g->trigger;
    int64_t now = clock_mono_us(), wait_s = 0, later_s;
    struct bad_param bad = {0};

    if (params_check(&r->params, r->arena, known, &bad) != ST_OK ||
        params_number(&wait_s, &r->params, r->arena, "wait", range, &bad) != ST_OK) {
        answer_bad_parameter(r, bad.name, &bad.err);
        return;
    }
    later_s = rate_take(&t->rate, TRIGGER_SIZE, TRIGGER_REFILL_MS, now);
    if (later_s > 0) {
        answer_later(
            r, MHD_HTTP_TOO_MANY_REQUESTS, later_s,
            "too many triggers: a run reads all accounts that are due, one in some minutes "
            "is enough");
        return;
    }
    r->wait_until_us = wait_s > 0 ? now + wait_s * US_PER_S : 0;
    if (t->phase == FOLLOWING && now - t->since_us > TRIGGER_JOIN_US)
        t->phase = IDLE; /* its waiters have all been answered by then */
    r->joined = t->phase != IDLE;
    if (t->phase == FOLLOWING && wait_s == 0) {
        answer_under_way(t, r);
        return;
    }
    waiter_add(t, r);
    if (t->phase != IDLE)
        return;
    t->phase = ASKING;
    t->since_us = now;
    question_ask(g->questions, TEXT_LIT("{\"cmd\":\"run\"}"), on_run, t);
}
