#include "scheduler/control.h"

#include "common/clock.h"
#include "common/json.h"

struct command {
    const char *name;
    /* Members of the answer after "ok":true. */
    enum status (*run)(struct control_view *view, struct json_writer *w, const struct json *request,
                       struct err *err);
};

/* A member that must be a text when it is there. */
static enum status text_member(struct text *out, const struct json *request, const char *name,
                               bool required, struct err *err)
{
    const struct json *m = json_member(request, name);

    *out = TEXT_NULL;
    if (json_is_null(m)) {
        if (required)
            return err_set(err, ST_REJECT, "\"%s\" is missing", name);
        return ST_OK;
    }
    *out = json_string(m);
    if (!out->at)
        return err_set(err, ST_REJECT, "\"%s\" must be a text", name);
    return ST_OK;
}

static enum status time_member(int64_t *out_us, const struct json *request, const char *name,
                               struct err *err)
{
    struct text t;

    TRY(text_member(&t, request, name, true, err));
    if (time_parse(out_us, t, err) != ST_OK)
        return err_prefix(err, "\"%s\"", name);
    return ST_OK;
}

static void put_run_id(struct json_writer *w, const struct uuid *run_id)
{
    char id[37];

    json_w_key(w, "run_id");
    json_w_str(w, uuid_format(id, run_id));
}

static enum status command_run(struct control_view *view, struct json_writer *w,
                               const struct json *request, struct err *err)
{
    struct text account;
    struct uuid run_id;
    int64_t accounts;

    TRY(text_member(&account, request, "account", false, err));
    TRY(ledger_run(view->ledger, account, &run_id, &accounts, err));
    pulse_add(view->ledger->pulse, M_RUNS_STARTED, RUN_MANUAL, 0, 1);
    put_run_id(w, &run_id);
    json_w_key(w, "accounts");
    json_w_int(w, accounts);
    view->woken = true;
    return ST_OK;
}

static enum status command_inject(struct control_view *view, struct json_writer *w,
                                  const struct json *request, struct err *err)
{
    struct injection in;
    struct uuid run_id;
    int64_t jobs;

    TRY(text_member(&in.account, request, "account", true, err));
    TRY(text_member(&in.feed, request, "feed", false, err));
    TRY(time_member(&in.from_us, request, "from", err));
    TRY(time_member(&in.to_us, request, "to", err));
    TRY(ledger_inject(view->ledger, &in, &run_id, &jobs, err));
    pulse_add(view->ledger->pulse, M_RUNS_STARTED, RUN_INJECT, 0, 1);
    put_run_id(w, &run_id);
    json_w_key(w, "jobs");
    json_w_int(w, jobs);
    view->woken = true;
    return ST_OK;
}

static enum status command_run_status(struct control_view *view, struct json_writer *w,
                                      const struct json *request, struct err *err)
{
    struct text id;
    struct uuid run_id;

    TRY(text_member(&id, request, "run_id", true, err));
    if (!uuid_parse(&run_id, id))
        return err_set(err, ST_REJECT, "\"run_id\" must be a UUID, as run and inject answer it");
    return ledger_run_status(view->ledger, w, &run_id, err);
}

static void put_fetchers(struct json_writer *w, const struct fetchers *f)
{
    int64_t now = clock_mono_us();

    json_w_key(w, "fetchers");
    json_w_array(w);
    for (size_t i = 0; i < f->n; i++) {
        json_w_object(w);
        json_w_key(w, "instance");
        json_w_str(w, f->list[i].instance);
        json_w_key(w, "capacity");
        json_w_int(w, f->list[i].capacity);
        json_w_key(w, "held");
        json_w_int(w, f->list[i].held);
        json_w_key(w, "age_ms");
        json_w_int(w, (now - f->list[i].seen_us) / US_PER_MS);
        json_w_end(w);
    }
    json_w_end(w);
}

static enum status put_last_run(struct ledger *l, struct json_writer *w, struct err *err)
{
    struct buf run = {.arena = w->out->arena};
    struct json_writer in = {.out = &run};
    enum status st;

    json_w_object(&in);
    st = ledger_run_status(l, &in, NULL, err);
    json_w_end(&in);
    if (st == ST_RETRY || st == ST_FATAL)
        return st;
    json_w_key(w, "last_run");
    if (st == ST_OK)
        json_w_raw(w, (struct text){run.at, run.len});
    else
        json_w_null(w); /* there was none */
    return ST_OK;
}

static enum status command_status(struct control_view *view, struct json_writer *w,
                                  const struct json *request, struct err *err)
{
    const struct ledger *l = view->ledger;
    char id[37], tick[TIME_TEXT_MAX];

    (void)request;
    json_w_key(w, "instance");
    json_w_str(w, l->cfg->instance);
    json_w_key(w, "scheduler_id");
    json_w_str(w, uuid_format(id, &l->scheduler_id));
    json_w_key(w, "uptime_s");
    json_w_int(w, (clock_mono_us() - view->started_us) / US_PER_S);
    json_w_key(w, "paused");
    json_w_bool(w, view->paused);
    json_w_key(w, "outstanding");
    json_w_int(w, (int64_t)view->outstanding);
    json_w_key(w, "schedule");
    json_w_str(w, l->slots.schedule.text);
    json_w_key(w, "next_tick");
    json_w_str(w, time_format(tick, cron_next_us(&l->slots.schedule, clock_utc_us())));
    put_fetchers(w, view->fetchers);
    return put_last_run(view->ledger, w, err);
}

static enum status pause(struct control_view *view, struct json_writer *w, bool paused,
                         struct err *err)
{
    TRY(ledger_pause(view->ledger, paused, err));
    view->paused = paused;
    view->woken = !paused;
    json_w_key(w, "paused");
    json_w_bool(w, paused);
    return ST_OK;
}

static enum status command_pause(struct control_view *view, struct json_writer *w,
                                 const struct json *request, struct err *err)
{
    (void)request;
    return pause(view, w, true, err);
}

static enum status command_resume(struct control_view *view, struct json_writer *w,
                                  const struct json *request, struct err *err)
{
    (void)request;
    return pause(view, w, false, err);
}

static const struct command commands[] = {
    {"run", command_run},       {"inject", command_inject}, {"run_status", command_run_status},
    {"status", command_status}, {"pause", command_pause},   {"resume", command_resume},
};
#define N_COMMANDS (sizeof(commands) / sizeof(commands[0]))

static enum status dispatch(struct control_view *view, struct json_writer *w,
                            const struct json *request, struct err *err)
{
    struct text name;

    if (!json_is(request, JSON_OBJECT))
        return err_set(err, ST_REJECT, "send one JSON object, as {\"cmd\":\"status\"}");
    TRY(text_member(&name, request, "cmd", true, err));
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (text_is(name, commands[i].name))
            return commands[i].run(view, w, request, err);
    return err_set(err, ST_REJECT,
                   "unknown \"cmd\"; it is one of run, inject, run_status, status, pause, resume");
}

struct text control_answer(struct control_view *view, struct arena *a, struct text request)
{
    struct buf out = {.arena = a}, refusal = {.arena = a};
    struct json_writer w = {.out = &out}, no = {.out = &refusal};
    struct json_doc doc = {0};
    struct err err = {0};
    enum status st;

    json_w_object(&w);
    json_w_key(&w, "ok");
    json_w_bool(&w, true);
    st = json_parse(&doc, a, request, &err);
    if (st == ST_OK)
        st = dispatch(view, &w, doc.root, &err);
    if (st == ST_OK) {
        json_w_end(&w);
        return (struct text){out.at, out.len};
    }
    json_w_object(&no);
    json_w_key(&no, "ok");
    json_w_bool(&no, false);
    json_w_key(&no, "error");
    json_w_str(&no, err.text);
    if (st == ST_RETRY) {
        json_w_key(&no, "temporary");
        json_w_bool(&no, true);
    }
    json_w_end(&no);
    return (struct text){refusal.at, refusal.len};
}
