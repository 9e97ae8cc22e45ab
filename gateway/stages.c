#include "gateway/stages.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/json.h"
#include "common/link.h"
#include "common/log.h"

#define LOOK_MS  500 /* silent processes, new sockets, and a wake-up that was missed */
#define TAKE_MAX 512 /* messages of one turn: the loop has other work, too */

struct stages {
    struct link *link;
    struct instances *instances;
    uv_poll_t *wake;
    uv_timer_t *look;
    bool full; /* said that there are too many */
};

/* ---- receiving ---- */

static void take_one(struct stages *s, struct msg *m)
{
    struct err err;

    if (m->n == 1 && instances_take(s->instances, msg_frame(m, 0), clock_mono_us(), &err) == ST_OK)
        return;
    if (m->n == 1 && instances_count(s->instances) == INSTANCES_MAX && s->full)
        return; /* each of its pulses would say it again */
    LOG(WARN, "pulse.refused", KV("error", m->n == 1 ? err.text : "not one frame"));
    s->full = instances_count(s->instances) == INSTANCES_MAX;
}

/* ZeroMQ's descriptor tells only that something has changed, so all that is there is taken; what is
 * over the limit of one turn waits for the timer. */
static void take(struct stages *s)
{
    struct msg m;
    struct err err;
    enum status st = ST_OK;

    for (int n = 0; n < TAKE_MAX && st != ST_RETRY; n++) {
        st = link_recv(s->link, 0, &m, &err);
        if (st == ST_OK)
            take_one(s, &m);
        msg_clear(&m);
    }
}

static void on_wake(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    take(poll->data);
}

static void on_look(uv_timer_t *timer)
{
    struct stages *s = timer->data;

    link_refresh(s->link, clock_mono_us());
    take(s);
    if (instances_forget(s->instances, clock_mono_us()) > 0)
        s->full = false;
}

/* ---- life ---- */

static void free_handle(uv_handle_t *handle)
{
    free(handle);
}

enum status stages_open(struct stages **out, uv_loop_t *loop, void *zmq_ctx,
                        const struct config *cfg, struct err *err)
{
    struct stages *s = xalloc(1, sizeof(*s));
    size_t len = sizeof(int);
    int fd = -1, rc;

    *out = s;
    s->instances = instances_new();
    TRY(link_open(&s->link, zmq_ctx, LINK_PULSE_IN, cfg, TEXT_NULL, err));
    if (zmq_getsockopt(link_socket(s->link, 0), ZMQ_FD, &fd, &len) < 0)
        return err_set(err, ST_RETRY, "no descriptor: %s", zmq_strerror(zmq_errno()));
    s->look = xalloc(1, sizeof(*s->look));
    (void)uv_timer_init(loop, s->look);
    s->look->data = s;
    (void)uv_timer_start(s->look, on_look, LOOK_MS, LOOK_MS);
    s->wake = xalloc(1, sizeof(*s->wake));
    rc = uv_poll_init(loop, s->wake, fd);
    if (rc < 0) {
        free(s->wake);
        s->wake = NULL;
        return err_set(err, ST_RETRY, "a descriptor can not be watched: %s", uv_strerror(rc));
    }
    s->wake->data = s;
    (void)uv_poll_start(s->wake, UV_READABLE, on_wake);
    take(s); /* what came before it was watched wakes nobody */
    return ST_OK;
}

void stages_close(struct stages **s_at)
{
    struct stages *s = *s_at;

    if (!s)
        return;
    if (s->wake)
        uv_close((uv_handle_t *)s->wake, free_handle);
    if (s->look)
        uv_close((uv_handle_t *)s->look, free_handle);
    link_close(&s->link);
    instances_free(&s->instances);
    free(s);
    *s_at = NULL;
}

const struct instances *stages_instances(const struct stages *s)
{
    return s->instances;
}

/* ---- telling ---- */

bool stages_ready(const struct stages *s, struct arena *a, const char **missing)
{
    struct buf names = {.arena = a};
    bool ready = true;

    for (size_t k = 0; k < n_stage_kinds; k++) {
        if (instances_sum(s->instances, &stage_kinds[k], clock_mono_us()).n_fresh > 0)
            continue;
        if (missing)
            buf_printf(&names, "%s%s", ready ? "" : ", ", stage_kinds[k].name);
        ready = false;
    }
    if (missing)
        *missing = names.at ? names.at : "";
    return ready;
}

static void put_text(struct json_writer *w, const char *key, struct text value)
{
    json_w_key(w, key);
    json_w_text(w, value);
}

static void put_int(struct json_writer *w, const char *key, int64_t value)
{
    json_w_key(w, key);
    json_w_int(w, value);
}

static void put_bool(struct json_writer *w, const char *key, bool value)
{
    json_w_key(w, key);
    json_w_bool(w, value);
}

static void put_double(struct json_writer *w, const char *key, double value)
{
    char digits[400];

    (void)snprintf(digits, sizeof(digits), "%.3f", value);
    json_w_key(w, key);
    json_w_raw(w, text_of(digits));
}

static void put_time(struct json_writer *w, const char *key, int64_t utc_us)
{
    char text[TIME_TEXT_MAX];

    json_w_key(w, key);
    json_w_str(w, time_format(text, utc_us - utc_us % US_PER_S));
}

static void put_kind(struct json_writer *w, const struct instances *in,
                     const struct stage_kind *kind, int64_t now)
{
    struct stage_sum sum = instances_sum(in, kind, now);

    json_w_object(w);
    put_text(w, "stage", text_of(kind->name));
    put_bool(w, "ready", sum.n_fresh > 0);
    put_int(w, "instances", (int64_t)sum.n);
    put_int(w, "fresh", (int64_t)sum.n_fresh);
    json_w_key(w, "queue");
    if (kind->queue < N_METRICS)
        json_w_int(w, sum.queue);
    else
        json_w_null(w);
    put_text(w, "queue_of", text_of(kind->queue_words));
    put_text(w, "work_of", text_of(kind->work_words));
    put_double(w, "work_10s", sum.work_10s);
    put_double(w, "work_60s", sum.work_60s);
    put_int(w, "warnings", sum.warnings);
    put_int(w, "errors", sum.errors);
    json_w_end(w);
}

static void put_counters(struct json_writer *w, const struct instance *i, int64_t now)
{
    json_w_key(w, "counters");
    json_w_object(w);
    for (enum metric m = 0; m < N_METRICS; m++) {
        if (!instance_has(i, m) || metrics[m].kind != METRIC_COUNTER)
            continue;
        json_w_key(w, metrics[m].name);
        json_w_object(w);
        put_int(w, "total", instance_total(i, m));
        put_double(w, "per_s_10s", instance_rate(i, m, 10, now));
        put_double(w, "per_s_60s", instance_rate(i, m, 60, now));
        json_w_end(w);
    }
    json_w_end(w);
}

static void put_gauges(struct json_writer *w, const struct instance *i)
{
    json_w_key(w, "gauges");
    json_w_object(w);
    for (enum metric m = 0; m < N_METRICS; m++)
        if (instance_has(i, m) && metrics[m].kind == METRIC_GAUGE)
            put_int(w, metrics[m].name, instance_total(i, m));
    json_w_end(w);
}

static void put_durations(struct json_writer *w, const struct instance *i)
{
    json_w_key(w, "durations");
    json_w_object(w);
    for (enum metric m = 0; m < N_METRICS; m++) {
        int64_t n = instance_total(i, m);
        if (!instance_has(i, m) || metrics[m].kind != METRIC_HISTOGRAM)
            continue;
        json_w_key(w, metrics[m].name);
        json_w_object(w);
        put_int(w, "count", n);
        json_w_key(w, "mean_s");
        if (n > 0) {
            char digits[400];
            (void)snprintf(digits, sizeof(digits), "%.6f",
                           (double)instance_time_us(i, m) / (double)n / (double)US_PER_S);
            json_w_raw(w, text_of(digits));
        } else {
            json_w_null(w);
        }
        json_w_end(w);
    }
    json_w_end(w);
}

static void put_instance(struct json_writer *w, const struct instance *i, int64_t now)
{
    const struct pulse_message *p = instance_pulse(i)->message;
    const struct stage_kind *kind = stage_kind_of(i);

    json_w_object(w);
    put_text(w, "stage", p->stage);
    put_text(w, "instance", p->instance);
    put_text(w, "version", p->version);
    put_int(w, "pid", p->pid);
    put_time(w, "started", p->started_us);
    put_int(w, "uptime_s", p->uptime_ms / 1000);
    put_int(w, "silent_ms", instance_silent_us(i, now) / US_PER_MS);
    put_bool(w, "fresh", instance_fresh(i, now));
    json_w_key(w, "queue");
    if (kind->queue < N_METRICS)
        json_w_int(w, instance_total(i, kind->queue));
    else
        json_w_null(w);
    put_double(w, "work_10s", instance_rate(i, kind->work, 10, now));
    put_double(w, "work_60s", instance_rate(i, kind->work, 60, now));
    put_int(w, "warnings", instance_total_of(i, M_LOG_LINES, "warn"));
    put_int(w, "errors", instance_total_of(i, M_LOG_LINES, "error"));
    put_counters(w, i, now);
    put_gauges(w, i);
    put_durations(w, i);
    json_w_end(w);
}

void stages_write(struct buf *out, const struct instances *in, int64_t utc_us, int64_t mono_us)
{
    struct json_writer w = {.out = out};

    json_w_object(&w);
    put_time(&w, "at", utc_us);
    json_w_key(&w, "stages");
    json_w_array(&w);
    for (size_t k = 0; k < n_stage_kinds; k++)
        put_kind(&w, in, &stage_kinds[k], mono_us);
    json_w_end(&w);
    json_w_key(&w, "instances");
    json_w_array(&w);
    for (size_t i = 0; i < instances_count(in); i++)
        put_instance(&w, instances_at(in, i), mono_us);
    json_w_end(&w);
    json_w_end(&w);
}

void stages_json(struct buf *out, const struct stages *s)
{
    stages_write(out, s->instances, clock_utc_us(), clock_mono_us());
}
