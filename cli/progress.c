#include "cli/progress.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/table.h"
#include "common/clock.h"

#define POLL_MIN_US    (20 * US_PER_MS)
#define POLL_MAX_US    (300 * US_PER_MS)
#define PLAIN_US       (2 * US_PER_S)
#define AWAY_MAX_US    (120 * US_PER_S) /* a scheduler is restarted, Postgres too: both come back */
#define ESTIMATE_AFTER 3                /* seconds, before a rate tells anything */

struct progress {
    bool terminal;
    int64_t began_us, printed_us, away_us; /* away_us: since when nobody answers; 0 = they do */
    const char *label;
    struct control *control;
};

const char *progress_span(struct arena *a, int64_t seconds)
{
    if (seconds >= 3600)
        return arena_printf(a, "%" PRId64 "h%02dm%02ds", seconds / 3600, (int)(seconds / 60 % 60),
                            (int)(seconds % 60));
    if (seconds >= 60)
        return arena_printf(a, "%dm%02ds", (int)(seconds / 60), (int)(seconds % 60));
    return arena_printf(a, "%ds", (int)seconds);
}

static int64_t rows_of(const struct json *run)
{
    return answer_int(run, "rows.inserted") + answer_int(run, "rows.updated") +
           answer_int(run, "rows.removed") + answer_int(run, "rows.unchanged");
}

static const char *count(struct arena *a, int64_t n)
{
    return digits_grouped(a, text_of(arena_printf(a, "%" PRId64, n)));
}

const char *progress_line(struct arena *a, const struct json *run, const char *label,
                          int64_t elapsed_us)
{
    int64_t total = answer_int(run, "accounts.total"), failed = answer_int(run, "accounts.failed");
    int64_t done = answer_int(run, "accounts.ok") + failed;
    int64_t work = answer_int(run, "owed.seconds"), worked = answer_int(run, "owed.seconds_done");
    int64_t rows = rows_of(run), seconds = elapsed_us / US_PER_S;
    struct buf b = {.arena = a};

    buf_printf(&b, "%s%" PRId64 "/%" PRId64 " accounts", label, done, total);
    if (failed > 0)
        buf_printf(&b, ", %" PRId64 " failed", failed);
    if (work > 0)
        buf_printf(&b, ", %d %% of the window", (int)((double)worked * 100 / (double)work));
    buf_printf(&b, ", %s rows", count(a, rows));
    if (seconds >= 1)
        buf_printf(&b, " (%s/s)", count(a, rows * US_PER_S / elapsed_us));
    if (work == 0) {
        work = total;
        worked = done;
    }
    if (seconds >= ESTIMATE_AFTER && worked > 0 && worked < work)
        buf_printf(&b, ", %s left",
                   progress_span(
                       a, (int64_t)((double)seconds * (double)(work - worked) / (double)worked)));
    if (b.len > 79)
        b.at[79] = '\0';
    return b.at;
}

static void show(struct progress *p, const char *line, int64_t now_us)
{
    if (p->terminal) {
        (void)printf("\r%s\033[K", line);
        (void)fflush(stdout);
        return;
    }
    if (now_us - p->printed_us < PLAIN_US)
        return;
    p->printed_us = now_us;
    (void)printf("%s\n", line);
    (void)fflush(stdout);
}

static void show_end(const struct progress *p)
{
    if (p->terminal)
        (void)printf("\r\033[K");
}

/* ---- the end ---- */

static void summary_failures(struct arena *a, const struct json *run, FILE *out)
{
    const struct json *failures = json_member(run, "failures");
    int64_t failed = answer_int(run, "accounts.failed");
    size_t shown = failures ? failures->n : 0;

    for (const struct json *f = failures ? failures->first : NULL; f; f = f->next) {
        struct text ending = json_string(json_member(f, "error"));
        const char *advice = cli_advice(ending);

        (void)fprintf(out, "\nfailed: %s: %s\n  %s\n",
                      terminal_text(a, json_string(json_member(f, "account"))),
                      terminal_text(a, ending),
                      terminal_text(a, json_string(json_member(f, "detail"))));
        if (advice)
            (void)fprintf(out, "  What to do: %s\n", advice);
    }
    if (failed > (int64_t)shown)
        (void)fprintf(out, "\nand %" PRId64 " more: usagectl account list\n",
                      failed - (int64_t)shown);
}

void progress_summary(struct arena *a, const struct json *run, int64_t elapsed_us, FILE *out)
{
    static const struct {
        const char *name, *path;
    } figures[] = {
        {"accounts", "accounts.total"},
        {"  succeeded", "accounts.ok"},
        {"  failed", "accounts.failed"},
        {"requests", "requests"},
        {"pages", "pages"},
        {"  unchanged", "pages_unchanged"},
        {"rows new", "rows.inserted"},
        {"rows changed", "rows.updated"},
        {"rows removed", "rows.removed"},
        {"rows unchanged", "rows.unchanged"},
    };
    struct text id = json_string(json_member(run, "run_id"));
    struct text kind = json_string(json_member(run, "kind"));

    (void)fprintf(out, "run %.*s (%.*s)", (int)id.len, id.at ? id.at : "", (int)kind.len,
                  kind.at ? kind.at : "");
    if (elapsed_us >= 0)
        (void)fprintf(out, ", %.1f s", (double)elapsed_us / (double)US_PER_S);
    (void)fprintf(out, "\n");
    for (size_t i = 0; i < sizeof(figures) / sizeof(figures[0]); i++)
        (void)fprintf(out, "  %-16s %12s\n", figures[i].name,
                      count(a, answer_int(run, figures[i].path)));
    if (answer_int(run, "owed.windows") > 0)
        (void)fprintf(out, "  %-16s %12s of %s\n", "windows read",
                      count(a, answer_int(run, "owed.windows_done")),
                      count(a, answer_int(run, "owed.windows")));
    summary_failures(a, run, out);
}

/* ---- waiting ---- */

/* Whether to go on waiting although nobody answered. */
static bool patient(struct progress *p)
{
    int64_t now = clock_mono_us();

    if (p->away_us == 0)
        p->away_us = now;
    if (now - p->away_us > AWAY_MAX_US)
        return false;
    show(p, now - p->away_us < 2 * US_PER_S ? "..." : "waiting for a scheduler to answer", now);
    return true;
}

/* Nobody waits for longer than a twentieth of what a run has taken before it is told that it is
 * over, and a long one is not asked for all the time. */
static void pause_after(int64_t elapsed_us)
{
    int64_t wait_us = elapsed_us / 20;
    struct timespec t = {0};

    if (wait_us < POLL_MIN_US)
        wait_us = POLL_MIN_US;
    if (wait_us > POLL_MAX_US)
        wait_us = POLL_MAX_US;
    t.tv_nsec = wait_us * 1000;
    (void)nanosleep(&t, NULL);
}

/* One look at the run. `*done` when it has ended and its summary was printed. */
static enum status look(struct progress *p, struct text request, struct arena *turn, bool *done,
                        bool *failed, struct err *err)
{
    const struct json *run;
    int64_t now;
    enum status st = control_ask(p->control, &run, turn, request, CONTROL_WAIT_US, err);

    now = clock_mono_us();
    if (st == ST_FATAL)
        return st;
    if (st != ST_OK)
        return patient(p) ? ST_OK : st;
    p->away_us = 0;
    *done = text_is(json_string(json_member(run, "state")), "done");
    if (!*done) {
        show(p, progress_line(turn, run, p->label, now - p->began_us), now);
        return ST_OK;
    }
    *failed = answer_int(run, "accounts.failed") > 0 || answer_int(run, "owed.windows_failed") > 0;
    show_end(p);
    progress_summary(turn, run, now - p->began_us, stdout);
    return ST_OK;
}

enum status progress_wait(struct cli *cli, struct control *control, const char *run_id,
                          const char *label, bool *failed, struct err *err)
{
    const char *const members[][2] = {{"run_id", run_id}, {NULL, NULL}};
    struct text request = control_request(cli->arena, "run_status", members);
    struct progress p = {.terminal = isatty(STDOUT_FILENO), .label = label, .control = control};
    struct arena *turn = arena_new();
    bool done = false;
    enum status st = ST_OK;

    p.began_us = clock_mono_us();
    p.printed_us = p.began_us;
    while (st == ST_OK && !done) {
        st = look(&p, request, turn, &done, failed, err);
        arena_reset(turn);
        if (st == ST_OK && !done)
            pause_after(clock_mono_us() - p.began_us);
    }
    if (st != ST_OK)
        show_end(&p);
    arena_free(&turn);
    return st;
}
