/* top.c - top: what every process does now, as its pulse tells. In 80 columns, without colour; on a
 * terminal drawn anew each second, else once. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/progress.h"
#include "cli/pulses.h"
#include "cli/screen.h"
#include "cli/table.h"
#include "cli/top.h"
#include "common/clock.h"
#include "common/stage.h"

#define DRAW_US       (1 * US_PER_S)
#define SNAPSHOT_US   (3 * US_PER_S) /* two pulses of each, so that there are rates */
#define NAME_COLUMNS  28
#define ENTER_SCREEN  "\033[?1049h\033[?25l"
#define LEAVE_SCREEN  "\033[?25h\033[?1049l"
#define REDRAW        "\033[H"
#define CLEAR_TO_LINE "\033[K\n"
#define CLEAR_BELOW   "\033[J"

static const char *count(struct arena *a, int64_t n)
{
    return digits_grouped(a, text_of(arena_printf(a, "%" PRId64, n)));
}

/* "0", "0.4", "31.2", "12,345": no more digits than one looks at. */
static const char *rate(struct arena *a, double per_s)
{
    if (per_s <= 0)
        return "0";
    if (per_s < 100)
        return arena_printf(a, "%.1f", per_s < 0.05 ? 0.1 : per_s);
    return count(a, (int64_t)per_s);
}

static const char *bytes(struct arena *a, int64_t n)
{
    static const char *const units[] = {"KB", "MB", "GB", "TB", "PB", "EB"};
    double of = (double)n / 1000;
    size_t u = 0;

    if (n < 1000)
        return arena_printf(a, "%" PRId64 " bytes", n);
    for (; of >= 1000 && u + 1 < sizeof(units) / sizeof(units[0]); u++)
        of /= 1000;
    return arena_printf(a, "%.1f %s", of, units[u]);
}

/* An instance's name is ASCII (UF_INSTANCE); whatever else somebody sends becomes '?'. The middle
 * of a long one tells least, so both ends are kept. */
static const char *short_name(struct arena *a, struct text name)
{
    char *s = arena_copy(a, name.at, name.len);

    for (size_t i = 0; i < name.len; i++)
        if (s[i] < 0x20 || s[i] > 0x7e)
            s[i] = '?';
    if (name.len <= NAME_COLUMNS)
        return s;
    return arena_printf(a, "%.*s..%s", NAME_COLUMNS / 2 - 1, s,
                        s + name.len - NAME_COLUMNS / 2 + 1);
}

static void put_process(struct buf *b, const struct instance *i, int64_t now)
{
    const struct stage_kind *kind = stage_kind_of(i);
    const struct pulse_message *p = instance_pulse(i)->message;
    struct arena *a = b->arena;

    buf_printf(b, "%-10s  %-*s  %9s", kind->name, NAME_COLUMNS, short_name(a, p->instance),
               progress_span(a, p->uptime_ms / 1000));
    if (instance_fresh(i, now))
        buf_printf(b, " %8s %8s", rate(a, instance_rate(i, kind->work, 10, now)),
                   rate(a, instance_rate(i, kind->work, 60, now)));
    else
        buf_printf(
            b, " %17s",
            arena_printf(a, "silent %s", progress_span(a, instance_silent_us(i, now) / US_PER_S)));
    buf_printf(b, " %4s %3s\n", count(a, instance_total_of(i, M_LOG_LINES, "warn")),
               count(a, instance_total_of(i, M_LOG_LINES, "error")));
}

/* ---- what each kind does, in words ---- */

static int64_t sum(const struct instances *in, enum metric m, const char *label)
{
    int64_t total = 0;

    for (size_t k = 0; k < instances_count(in); k++) {
        const struct instance *i = instances_at(in, k);
        int64_t one = label ? instance_total_of(i, m, label) : instance_total(i, m);
        if (__builtin_add_overflow(total, one, &total))
            return INT64_MAX;
    }
    return total;
}

/* "123 ms"; "-" before there is one. */
static const char *mean(struct arena *a, const struct instances *in, enum metric m)
{
    double time_us = 0, n = (double)sum(in, m, NULL);

    for (size_t k = 0; k < instances_count(in); k++)
        time_us += (double)instance_time_us(instances_at(in, k), m);
    return n > 0 ? arena_printf(a, "%.0f ms", time_us / n / (double)US_PER_MS) : "-";
}

/* ", 3 timeout, 1 tls" of a metric's label values, without the first, which is the good one. */
static void put_troubles(struct buf *b, const struct instances *in, enum metric m, size_t label)
{
    const struct metric_label *l = &metrics[m].labels[label];

    for (size_t v = 1; v < l->n_values; v++) {
        int64_t n = sum(in, m, l->values[v]);
        if (n > 0)
            buf_printf(b, ", %s %s", count(b->arena, n), l->values[v]);
    }
}

static void put_scheduler(struct buf *b, const struct instances *in, const struct stage_sum *s)
{
    struct arena *a = b->arena;

    if (sum(in, M_PAUSED, NULL) > 0)
        buf_str(b, "PAUSED (usagectl resume goes on); ");
    buf_printf(b, "%s accounts due, %s jobs out, room for %s", count(a, s->queue),
               count(a, sum(in, M_JOBS_OUT, NULL)), count(a, sum(in, M_FETCHER_CREDIT, NULL)));
    buf_printf(b, "\n            settled: %s, %s lost; leases expired: %s",
               count(a, sum(in, M_JOBS_SETTLED, "done")), count(a, sum(in, M_JOBS_SETTLED, "lost")),
               count(a, sum(in, M_LEASES_EXPIRED, NULL)));
}

static void put_fetcher(struct buf *b, const struct instances *in, const struct stage_sum *s)
{
    struct arena *a = b->arena;

    buf_printf(b, "%s jobs held, %s requests under way%s", count(a, s->queue),
               count(a, sum(in, M_REQUESTS_IN_FLIGHT, NULL)),
               sum(in, M_PAGES_BLOCKED, NULL) > 0 ? "; WAITS for normalizers" : "");
    buf_printf(b, "\n            requests: %s ok", count(a, sum(in, M_REQUESTS, "ok")));
    put_troubles(b, in, M_REQUESTS, 1);
    buf_printf(b, "; %s each, %s", mean(a, in, M_REQUEST_DURATION),
               bytes(a, sum(in, M_BYTES_FETCHED, NULL)));
}

static void put_normalizer(struct buf *b, const struct instances *in, const struct stage_sum *s)
{
    struct arena *a = b->arena;

    (void)s;
    buf_printf(b, "%s records of %s pages", count(a, sum(in, M_RECORDS_MADE, NULL)),
               count(a, sum(in, M_PAGES_NORMALIZED, NULL)));
    if (sum(in, M_PAGES_DEAD, NULL) + sum(in, M_ROWS_SET_ASIDE, NULL) > 0)
        buf_printf(b, "; %s dead pages, %s rows set aside", count(a, sum(in, M_PAGES_DEAD, NULL)),
                   count(a, sum(in, M_ROWS_SET_ASIDE, NULL)));
    if (sum(in, M_RECORDS_BLOCKED, NULL) > 0)
        buf_str(b, "; WAITS for writers");
}

static void put_writer(struct buf *b, const struct instances *in, const struct stage_sum *s)
{
    struct arena *a = b->arena;

    buf_printf(b, "%s pages waiting; %s commits, %s each", count(a, s->queue),
               count(a, sum(in, M_BATCHES, NULL)), mean(a, in, M_COMMIT_DURATION));
    if (sum(in, M_PAGES_WRITTEN, "fenced") + sum(in, M_PAGES_WRITTEN, "dead") > 0)
        buf_printf(b, "; pages: %s fenced, %s dead", count(a, sum(in, M_PAGES_WRITTEN, "fenced")),
                   count(a, sum(in, M_PAGES_WRITTEN, "dead")));
    buf_printf(b, "\n            rows: %s new, %s changed, %s removed, %s unchanged",
               count(a, sum(in, M_ROWS_WRITTEN, "inserted")),
               count(a, sum(in, M_ROWS_WRITTEN, "updated")),
               count(a, sum(in, M_ROWS_WRITTEN, "removed")),
               count(a, sum(in, M_ROWS_WRITTEN, "unchanged")));
}

static void put_postgres(struct buf *b, const struct instances *in, const struct stage_kind *kind)
{
    for (size_t k = 0; k < instances_count(in); k++) {
        const struct instance *i = instances_at(in, k);
        if (instance_stage(i) != kind->stage || instance_total(i, M_POSTGRES_UP) > 0)
            continue;
        buf_printf(b, "            POSTGRES IS AWAY, says %s\n",
                   short_name(b->arena, instance_pulse(i)->message->instance));
    }
}

static void put_kind(struct buf *b, const struct instances *in, size_t k, int64_t now)
{
    static void (*const put[])(struct buf *, const struct instances *, const struct stage_sum *) = {
        put_scheduler, put_fetcher, put_normalizer, put_writer};
    const struct stage_kind *kind = &stage_kinds[k];
    struct stage_sum s = instances_sum(in, kind, now);

    buf_printf(b, "%-10s  ", kind->name);
    if (s.n == 0) {
        buf_printf(b, "none is heard: is uf-%s running?\n", kind->name);
        return;
    }
    put[k](b, in, &s);
    buf_str(b, "\n");
    if (metrics[M_POSTGRES_UP].stages & kind->stage)
        put_postgres(b, in, kind);
}

void top_write(struct buf *out, const struct instances *in, int64_t utc_us, int64_t mono_us)
{
    char time[TIME_TEXT_MAX];
    size_t n = instances_count(in);

    buf_printf(out, "%zu process%s, %s; work a second: jobs, requests, records, rows\n\n", n,
               n == 1 ? "" : "es", time_format(time, utc_us - utc_us % US_PER_S));
    for (size_t k = 0; k < n_stage_kinds; k++)
        put_kind(out, in, k, mono_us);
    buf_printf(out, "\n%-10s  %-*s  %9s %8s %8s %4s %3s\n", "STAGE", NAME_COLUMNS, "PROCESS", "UP",
               "10 S", "1 MIN", "WARN", "ERR");
    for (size_t i = 0; i < n; i++)
        put_process(out, instances_at(in, i), mono_us);
}

/* ---- drawing ---- */

static void draw(const struct pulses *p, bool terminal)
{
    struct arena *a = arena_new();
    struct buf text = {.arena = a}, out = {.arena = a};

    top_write(&text, pulses_instances(p), clock_utc_us(), clock_mono_us());
    if (terminal)
        buf_str(&out, REDRAW);
    screen_write(&out, (struct text){text.at, text.len}, screen_now(),
                 terminal ? CLEAR_TO_LINE : "\n");
    if (terminal) {
        out.len--; /* the last line's end would scroll a full screen */
        buf_str(&out, CLEAR_BELOW);
    }
    (void)fwrite(out.at, 1, out.len, stdout);
    (void)fflush(stdout);
    arena_free(&a);
}

static void live(struct pulses *p)
{
    int wake_fd = stage_wake_fd(); /* Ctrl-C is answered here, so that the screen comes back */

    (void)fputs(ENTER_SCREEN, stdout);
    while (!stage_stopping() && !ferror(stdout)) {
        draw(p, true);
        pulses_listen(p, clock_mono_us() + DRAW_US, wake_fd);
    }
    (void)fputs(LEAVE_SCREEN, stdout);
    draw(p, false); /* what was seen last stays */
}

enum status cmd_top(struct cli *cli, const struct args *args, struct err *err)
{
    const char *term = getenv("TERM");
    struct pulses *p = NULL;
    enum status st = pulses_open(&p, &cli->cfg, err);

    (void)args;
    if (st == ST_OK && isatty(STDOUT_FILENO) && term && *term && strcmp(term, "dumb") != 0) {
        live(p);
    } else if (st == ST_OK) {
        pulses_listen(p, clock_mono_us() + SNAPSHOT_US, -1);
        if (instances_count(pulses_instances(p)) == 0)
            st = err_set(err, ST_RETRY,
                         "no process is heard at UF_PULSE=%s: is anything running, and with this "
                         "setting?",
                         cli->cfg.pulse);
        else
            draw(p, false);
    }
    pulses_close(&p);
    return st;
}
