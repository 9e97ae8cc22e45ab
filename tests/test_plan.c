/* Which window is read and when the next one is due: the ledger's state and a clock decide. */
#include "scheduler/plan.h"

#include "common/clock.h"
#include "tests/check.h"

#define HOUR INT64_C(3600)
#define DAY  INT64_C(86400)

static const struct width usage_widths[] = {{60, "1m", 1440}, {3600, "1h", 168}, {86400, "1d", 31}};
static const struct width cost_widths[] = {{86400, "1d", 180}};
static const struct feed usage = {
    .name = "completions", .widths = usage_widths, .n_widths = 3, .lookback_s = 2 * 3600};
static const struct feed costs = {.name = "costs",
                                  .widths = cost_widths,
                                  .n_widths = 1,
                                  .cadence_s = 3600,
                                  .lookback_s = 2 * 86400};

static int64_t us(const char *text)
{
    struct err err;
    int64_t t = 0;

    if (text)
        assert_int_equal(time_parse(&t, text_of(text), &err), ST_OK);
    return t;
}

static bool same_time(const char *name, int64_t got, int64_t want)
{
    char a[TIME_TEXT_MAX], b[TIME_TEXT_MAX];

    return same_str(name, got ? time_format(a, got) : NULL, want ? time_format(b, want) : NULL);
}

#define NOW   "2026-11-25T10:17:00Z"
#define FRESH 1 /* hours since the last audit */
#define NEVER 0
static const struct {
    const char *name;
    const struct feed *feed;
    int64_t bucket_s;
    const char *now, *complete_from, *watermark; /* NULL: never read */
    int64_t audited_3d_h, audited_30d_h;         /* hours ago */
    int64_t backfill_s;
    const char *want_from, *want_owed_from; /* owed: [this, want_from); NULL: nothing */
} live_cases[] = {
    {"first, hours, a week", &usage, HOUR, NOW, NULL, NULL, NEVER, NEVER, 7 * DAY,
     "2026-11-18T00:00:00Z", NULL},
    {"first, hours, 30 days: more than 4 pages of 168", &usage, HOUR, NOW, NULL, NULL, NEVER, NEVER,
     30 * DAY, "2026-10-28T00:00:00Z", "2026-10-26T00:00:00Z"},
    {"first, hours, 180 days", &usage, HOUR, NOW, NULL, NULL, NEVER, NEVER, 180 * DAY,
     "2026-10-28T00:00:00Z", "2026-05-29T00:00:00Z"},
    {"first, minutes, an hour", &usage, 60, NOW, NULL, NULL, NEVER, NEVER, HOUR,
     "2026-11-25T00:00:00Z", NULL},
    {"first, minutes, a week: more than 4 pages of 1440", &usage, 60, NOW, NULL, NULL, NEVER, NEVER,
     7 * DAY, "2026-11-21T00:00:00Z", "2026-11-18T00:00:00Z"},
    {"first, days, a week", &usage, DAY, NOW, NULL, NULL, NEVER, NEVER, 7 * DAY,
     "2026-11-18T00:00:00Z", NULL},
    {"first, days, 180 days: more than 4 pages of 31", &usage, DAY, NOW, NULL, NULL, NEVER, NEVER,
     180 * DAY, "2026-07-25T00:00:00Z", "2026-05-29T00:00:00Z"},
    {"first, costs know days only", &costs, HOUR, NOW, NULL, NULL, NEVER, NEVER, 180 * DAY,
     "2026-05-29T00:00:00Z", NULL},
    {"first, nothing of the past: its day is whole", &usage, HOUR, NOW, NULL, NULL, NEVER, NEVER, 0,
     "2026-11-25T00:00:00Z", NULL},
    {"first, minutes, an hour before midnight and now", &usage, 60, "2026-11-25T00:17:00Z", NULL,
     NULL, NEVER, NEVER, HOUR, "2026-11-24T00:00:00Z", NULL},
    {"first, over the year's end", &usage, HOUR, "2027-01-01T00:30:00Z", NULL, NULL, NEVER, NEVER,
     HOUR, "2026-12-31T00:00:00Z", NULL},
    {"first, hours over a leap day", &usage, HOUR, "2028-03-01T00:30:00Z", NULL, NULL, NEVER, NEVER,
     HOUR, "2028-02-29T00:00:00Z", NULL},
    {"first, over a leap day", &usage, DAY, "2028-03-01T00:30:00Z", NULL, NULL, NEVER, NEVER,
     2 * DAY, "2028-02-28T00:00:00Z", NULL},
    {"first, over a February without", &usage, DAY, "2027-03-01T00:30:00Z", NULL, NULL, NEVER,
     NEVER, 2 * DAY, "2027-02-27T00:00:00Z", NULL},
    {"later: the lookback", &usage, HOUR, NOW, "2026-11-01", "2026-11-25T10:00:00Z", FRESH, FRESH,
     7 * DAY, "2026-11-25T08:00:00Z", NULL},
    {"later: a watermark in the middle of a bucket", &usage, HOUR, NOW, "2026-11-01",
     "2026-11-25T09:30:00Z", FRESH, FRESH, 7 * DAY, "2026-11-25T07:00:00Z", NULL},
    {"later: a watermark ahead of the clock", &usage, HOUR, NOW, "2026-11-01",
     "2026-11-25T12:00:00Z", FRESH, FRESH, 7 * DAY, "2026-11-25T08:00:00Z", NULL},
    {"later: after a long rest nothing is left out", &usage, HOUR, NOW, "2026-01-01",
     "2026-06-01T00:00:00Z", FRESH, FRESH, 7 * DAY, "2026-05-31T22:00:00Z", NULL},
    {"later: costs look back over days", &costs, HOUR, NOW, "2026-11-01", "2026-11-25T00:00:00Z",
     FRESH, FRESH, 7 * DAY, "2026-11-23T00:00:00Z", NULL},
    {"the daily audit", &usage, HOUR, NOW, "2026-11-01", "2026-11-25T10:00:00Z", 24, FRESH, 7 * DAY,
     "2026-11-22T00:00:00Z", NULL},
    {"a moment before the daily audit", &usage, HOUR, NOW, "2026-11-01", "2026-11-25T10:00:00Z", 23,
     167, 7 * DAY, "2026-11-25T08:00:00Z", NULL},
    {"the weekly audit", &usage, HOUR, NOW, "2026-01-01", "2026-11-25T10:00:00Z", FRESH, 168,
     7 * DAY, "2026-10-26T00:00:00Z", NULL},
    {"an audit reads no further back than the feed was ever read", &usage, HOUR, NOW,
     "2026-11-24T00:00:00Z", "2026-11-25T10:00:00Z", 24, 168, 7 * DAY, "2026-11-24T00:00:00Z",
     NULL},
    {"never audited", &usage, HOUR, NOW, "2026-01-01", "2026-11-25T10:00:00Z", NEVER, NEVER,
     7 * DAY, "2026-10-26T00:00:00Z", NULL},
    {"the lookback over a month's end", &usage, HOUR, "2026-12-01T01:00:00Z", "2026-11-01",
     "2026-12-01T01:00:00Z", FRESH, FRESH, 7 * DAY, "2026-11-30T23:00:00Z", NULL},
};

static void live_windows(void **state)
{
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(live_cases); i++) {
        const char *name = live_cases[i].name;
        int64_t now = us(live_cases[i].now);
        struct feed_state s = {.feed = live_cases[i].feed,
                               .enabled = true,
                               .complete_from_us = us(live_cases[i].complete_from),
                               .watermark_us = us(live_cases[i].watermark)};
        struct live_plan p;
        bool first = !live_cases[i].watermark;
        if (live_cases[i].audited_3d_h)
            s.audited_3d_us = now - live_cases[i].audited_3d_h * HOUR * US_PER_S;
        if (live_cases[i].audited_30d_h)
            s.audited_30d_us = now - live_cases[i].audited_30d_h * HOUR * US_PER_S;
        plan_live(&p, &s, now, live_cases[i].bucket_s, live_cases[i].backfill_s);
        good &= same_time(name, p.window.from_us, us(live_cases[i].want_from));
        good &= same_int(name, p.window.to_us, 0);
        good &= same_int(name, p.window.from_us % (p.window.bucket_s * US_PER_S), 0);
        good &= same_int(name, text_is(p.window.feed, s.feed->name), true);
        good &= same_time(name, p.window.complete_us, s.watermark_us);
        good &= same_time(name, p.window.complete_from_us, s.complete_from_us);
        good &= same_int(name, p.backfill.from_us < p.backfill.to_us,
                         live_cases[i].want_owed_from != NULL);
        if (live_cases[i].want_owed_from) {
            good &= same_time(name, p.backfill.from_us, us(live_cases[i].want_owed_from));
            good &= same_time(name, p.backfill.to_us, p.window.from_us);
        }
        good &= same_int(name, p.audits_3d,
                         first || !live_cases[i].audited_3d_h || live_cases[i].audited_3d_h >= 24);
        good &=
            same_int(name, p.audits_30d,
                     first || !live_cases[i].audited_30d_h || live_cases[i].audited_30d_h >= 168);
    }
    assert_true(good);
}

/* A reading that ended early goes on where it stopped; it neither looks back nor audits. */
static void an_unfinished_reading_goes_on(void **state)
{
    struct feed_state s = {.feed = &usage,
                           .enabled = true,
                           .complete_from_us = us("2026-11-01"),
                           .watermark_us = us("2026-11-20T10:30:00Z"),
                           .resume_us = us("2026-11-20T05:30:00Z")};
    struct live_plan p;

    (void)state;
    plan_live(&p, &s, us(NOW), HOUR, 7 * DAY);
    assert_true(same_time("from", p.window.from_us, us("2026-11-20T05:00:00Z")));
    assert_int_equal(p.window.to_us, 0);
    assert_int_equal(p.backfill.from_us, p.backfill.to_us);
    assert_false(p.audits_3d || p.audits_30d);
    assert_int_equal(p.window.complete_us, s.watermark_us);
}

static const struct {
    const char *name;
    const struct feed *feed;
    const char *done_to, *to;
    const char *want_to, *want_complete; /* want_to NULL: open */
} owed_cases[] = {
    {"a chunk is 8 pages of 168 hours", &usage, "2026-05-29T00:00:00Z", "2026-10-28T00:00:00Z",
     "2026-07-24T00:00:00Z", "2026-07-24T00:00:00Z"},
    {"the last chunk", &usage, "2026-10-01T00:00:00Z", "2026-10-28T00:00:00Z",
     "2026-10-28T00:00:00Z", "2026-10-28T00:00:00Z"},
    {"costs go further", &costs, "2020-01-01T00:00:00Z", "2026-10-28T00:00:00Z",
     "2023-12-11T00:00:00Z", "2023-12-11T00:00:00Z"},
    {"an end in the last hour is left open", &usage, "2026-11-24T00:00:00Z", "2026-11-25T10:00:00Z",
     NULL, "2026-11-25T10:00:00Z"},
    {"an end an hour ago is not", &usage, "2026-11-24T00:00:00Z", "2026-11-25T09:00:00Z",
     "2026-11-25T09:00:00Z", "2026-11-25T09:00:00Z"},
    {"an end in the future is left open", &usage, "2026-11-24T00:00:00Z", "2026-12-01T00:00:00Z",
     NULL, "2026-12-01T00:00:00Z"},
    {"a chunk that ends before the future begins", &usage, "2026-09-01T00:00:00Z",
     "2026-12-01T00:00:00Z", "2026-10-27T00:00:00Z", "2026-10-27T00:00:00Z"},
};

static void owed_chunks(void **state)
{
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(owed_cases); i++) {
        const char *name = owed_cases[i].name;
        struct window w;
        plan_owed(&w, owed_cases[i].feed, HOUR, us(owed_cases[i].done_to), us(owed_cases[i].to),
                  us(NOW));
        good &= same_time(name, w.from_us, us(owed_cases[i].done_to));
        good &= same_time(name, w.to_us, us(owed_cases[i].want_to));
        good &= same_time(name, w.complete_us, us(owed_cases[i].want_complete));
        /* what appears there was never read: only changes are revisions */
        good &= same_time(name, w.complete_from_us, w.complete_us);
    }
    assert_true(good);
}

/* Chunk after chunk covers the whole without a gap, and comes to an end. */
static void chunks_join(void **state)
{
    int64_t at = us("2025-12-31T00:00:00Z"), to = us("2026-11-25T00:00:00Z");
    int chunks = 0;

    (void)state;
    while (at < to && chunks < 100) {
        struct window w;
        plan_owed(&w, &usage, HOUR, at, to, us(NOW));
        assert_int_equal(w.from_us, at);
        assert_true(w.to_us > at && w.to_us <= to);
        at = w.to_us;
        chunks++;
    }
    assert_int_equal(at, to);
    assert_int_equal(chunks, 6); /* 329 days by 56 */
}

static const struct {
    const char *name, *from, *to, *want_from, *want_to;
} align_cases[] = {
    {"whole days stay", "2026-11-01", "2026-11-02", "2026-11-01", "2026-11-02"},
    {"parts of days over a year's end", "2026-12-31T23:00:00Z", "2027-01-01T01:00:00Z",
     "2026-12-31", "2027-01-02"},
    {"an hour of a leap day", "2028-02-29T12:00:00Z", "2028-02-29T13:00:00Z", "2028-02-29",
     "2028-03-01"},
};

static void aligned(void **state)
{
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(align_cases); i++) {
        struct span s = plan_align(us(align_cases[i].from), us(align_cases[i].to));
        good &= same_time(align_cases[i].name, s.from_us, us(align_cases[i].want_from));
        good &= same_time(align_cases[i].name, s.to_us, us(align_cases[i].want_to));
    }
    assert_true(good);
}

/* What keeps failing is left out every now and then, and not forgotten. */
static void live_figures_pass_what_keeps_failing(void **state)
{
    struct feed_state s = {.feed = &usage,
                           .enabled = true,
                           .complete_from_us = us("2026-11-01"),
                           .watermark_us = us("2026-11-25T08:00:00Z"),
                           .resume_us = us("2026-11-03"),
                           .consecutive_failures = 1};
    struct live_plan p;

    (void)state;
    plan_live(&p, &s, us(NOW), HOUR, 7 * DAY);
    assert_true(same_time("once failed", p.window.from_us, us("2026-11-03")));
    assert_int_equal(p.skipped_us, 0);
    s.consecutive_failures = 2;
    plan_live(&p, &s, us(NOW), HOUR, 7 * DAY);
    assert_true(same_time("twice failed", p.window.from_us, s.watermark_us));
    assert_true(same_time("left out from", p.skipped_us, us("2026-11-03")));
    s.resume_us = 0; /* the very look back fails */
    plan_live(&p, &s, us(NOW), HOUR, 7 * DAY);
    assert_true(same_time("without the look back", p.window.from_us, s.watermark_us));
    assert_false(p.audits_3d || p.audits_30d);
}

/* Where buckets of another width may stand, a window begins with a whole day. */
static void another_width_reads_whole_days(void **state)
{
    struct feed_state s = {.feed = &usage,
                           .enabled = true,
                           .complete_from_us = us("2026-11-01"),
                           .watermark_us = us("2026-11-25T00:00:00Z"),
                           .audited_3d_us = us(NOW),
                           .audited_30d_us = us(NOW),
                           .bucket_s = DAY};
    struct live_plan p;

    (void)state;
    plan_live(&p, &s, us(NOW), HOUR, 7 * DAY);
    assert_true(same_time("from", p.window.from_us, us("2026-11-24")));
    s.bucket_s = HOUR;
    plan_live(&p, &s, us(NOW), HOUR, 7 * DAY);
    assert_true(same_time("from", p.window.from_us, us("2026-11-24T22:00:00Z")));
}

/* ---- slots ---- */

static struct slots slots_of(const char *schedule)
{
    struct cron cron;
    struct err err;
    struct slots s;

    assert_int_equal(cron_parse(&cron, text_of(schedule), &err), ST_OK);
    slots_init(&s, &cron, us(NOW));
    return s;
}

static const struct {
    const char *schedule;
    int64_t want_gap_s;
} gap_cases[] = {
    {"*/15 * * * *", 900},  {"* * * * *", 60},     {"0,50 * * * *", 600}, {"@hourly", 3600},
    {"0 9 * * 1-5", 86400}, {"0 0 29 2 *", 86400}, {"@monthly", 86400},   {"59 23,0 * * *", 3600},
};

static void gaps(void **state)
{
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(gap_cases); i++)
        good &= same_int(gap_cases[i].schedule, slots_of(gap_cases[i].schedule).gap_us / US_PER_S,
                         gap_cases[i].want_gap_s);
    assert_true(good);
}

/* BR-064: 96 slots on every day, the days of clock changes among them; each account at the same
 * place of each quarter of an hour. */
static void each_tick_once(void **state)
{
    static const char *const days[] = {"2026-03-29", "2026-10-25", "2026-03-08", "2026-11-01",
                                       "2028-02-29", "2026-12-31", "2027-01-01"};
    struct slots s = slots_of("*/15 * * * *");

    (void)state;
    for (size_t d = 0; d < ROWS(days); d++) {
        int64_t midnight = us(days[d]);
        for (int64_t account = 1; account <= 50; account++) {
            int64_t first = slot_after(&s, account, midnight - 1), slot = first;
            int n = 0;
            for (; slot < midnight + DAY * US_PER_S; n++) {
                int64_t next = slot_after(&s, account, slot);
                assert_int_equal(next - slot, 900 * US_PER_S);
                assert_int_equal(slot_after(&s, account, next - 1), next);
                slot = next;
            }
            assert_int_equal(n, 96);
            assert_true(first - midnight < 900 * US_PER_S);
        }
    }
}

static void accounts_are_spread(void **state)
{
    struct slots s = slots_of("*/15 * * * *");
    int64_t tick = us("2026-11-25T10:15:00Z");
    int minutes[15] = {0};

    (void)state;
    for (int64_t account = 1; account <= 15000; account++)
        minutes[(slot_after(&s, account, tick - 1) - tick) / (60 * US_PER_S)]++;
    for (size_t i = 0; i < ROWS(minutes); i++)
        assert_in_range(minutes[i], 850, 1150);
}

static const struct {
    const char *name, *schedule, *t, *want;
} tick_cases[] = {
    {"between", "*/15 * * * *", NOW, "2026-11-25T10:15:00Z"},
    {"at it", "*/15 * * * *", "2026-11-25T10:15:00Z", "2026-11-25T10:15:00Z"},
    {"a moment before it", "*/15 * * * *", "2026-11-25T10:14:59.999999Z", "2026-11-25T10:00:00Z"},
    {"at the year's first moment", "*/15 * * * *", "2027-01-01T00:00:00Z", "2027-01-01T00:00:00Z"},
    {"over the year's end", "30 * * * *", "2027-01-01T00:10:00Z", "2026-12-31T23:30:00Z"},
    {"a day ago", "20 10 * * *", NOW, "2026-11-24T10:20:00Z"},
    {"working days only", "0 9 * * 1-5", "2026-11-29T10:00:00Z", "2026-11-27T09:00:00Z"},
    {"a month ago", "0 0 31 * *", NOW, "2026-10-31T00:00:00Z"},
    {"once a year", "0 0 1 1 *", NOW, "2026-01-01T00:00:00Z"},
    {"years ago", "0 0 29 2 *", "2027-11-25T00:00:00Z", "2024-02-29T00:00:00Z"},
    {"a leap day, the day before the next", "0 0 29 2 *", "2028-02-28T23:59:59Z",
     "2024-02-29T00:00:00Z"},
    {"a leap day", "0 0 29 2 *", "2028-02-29T00:00:00Z", "2028-02-29T00:00:00Z"},
};

static void ticks_before(void **state)
{
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(tick_cases); i++) {
        struct slots s = slots_of(tick_cases[i].schedule);
        good &= same_time(tick_cases[i].name, tick_before(&s, us(tick_cases[i].t)),
                          us(tick_cases[i].want));
    }
    assert_true(good);
}

/* ---- next due ---- */

static const struct {
    const char *name;
    const struct feed *feed;
    enum ending ending;
    bool slot; /* wanted: the account's first slot after `wait_s`; else just then */
    int64_t wait_s;
    int64_t failures, retry_after_s, empty_for_s;
} due_cases[] = {
    {"ok: the next slot", &usage, END_OK, true, 0, 1, 0, 0},
    {"ok: an hourly feed's next slot, about an hour later", &costs, END_OK, true, 3240, 1, 0, 0},
    {"empty for two days: as before", &usage, END_OK, true, 0, 1, 0, 2 * DAY},
    {"empty for three days: hourly", &usage, END_OK, true, 3240, 1, 0, 3 * DAY},
    {"an empty hourly feed stays hourly", &costs, END_OK, true, 3240, 1, 0, 9 * DAY},
    {"our page cap: at once", &usage, END_PAGE_CAP, false, 0, 1, 0, 0},
    {"the lease ran short: at once", &usage, END_DEADLINE, false, 0, 1, 0, 0},
    {"stopped: at once", &usage, END_STOPPED, false, 0, 9, 0, 0},
    {"a bad key is not hammered", &usage, END_AUTH_INVALID, true, 3240, 1, 0, 0},
    {"a missing scope", &usage, END_SCOPE_MISSING, true, 3240, 50, 0, 0},
    {"a key of another kind", &usage, END_WRONG_KEY_KIND, true, 3240, 1, 0, 0},
    {"first failure", &usage, END_PROVIDER_ERROR, false, 60, 1, 0, 0},
    {"second failure", &usage, END_TIMEOUT, false, 120, 2, 0, 0},
    {"sixth failure", &usage, END_DNS, false, 1920, 6, 0, 0},
    {"seventh failure: an hour at most", &usage, END_TLS, false, 3600, 7, 0, 0},
    {"thousandth failure", &usage, END_PROTOCOL, false, 3600, 1000, 0, 0},
    {"the provider wants more", &usage, END_RATE_LIMITED, false, 600, 1, 600, 0},
    {"the provider wants less", &usage, END_RATE_LIMITED, false, 60, 1, 10, 0},
    {"the provider wants more than our ceiling", &usage, END_RATE_LIMITED, false, 7200, 9, 7200, 0},
    {"too large", &usage, END_TOO_LARGE, false, 60, 1, 0, 0},
    {"a bad window", &usage, END_BAD_WINDOW, false, 240, 3, 0, 0},
};

static void next_due(void **state)
{
    struct slots s = slots_of("*/15 * * * *");
    int64_t now = us(NOW);
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(due_cases); i++) {
        const struct outcome how = {due_cases[i].ending, due_cases[i].failures,
                                    due_cases[i].retry_after_s};
        struct feed_state f = {.feed = due_cases[i].feed};
        int64_t want = now + due_cases[i].wait_s * US_PER_S;
        if (due_cases[i].empty_for_s)
            f.empty_since_us = now - due_cases[i].empty_for_s * US_PER_S;
        if (due_cases[i].slot)
            want = slot_after(&s, 77, want);
        good &= same_time(due_cases[i].name, plan_next_due(&s, 77, &f, &how, now), want);
    }
    assert_true(good);
}

/* ---- a feed without data ---- */

static const struct {
    const char *name;
    int64_t was_h;  /* hours that it had been empty for; 0: in use */
    int64_t from_h; /* the reading went back so far */
    bool rows, changed, audit;
    int64_t want_h;
} empty_cases[] = {
    {"rows: in use", 0, 2, true, true, false, 0},
    {"rows that were there: in use", 0, 2, true, false, false, 0},
    {"rows after days without", 100, 2, true, true, false, 0},
    {"nothing: since the begin of what was read", 0, 2, false, false, false, 2},
    {"nothing, again: since the first time", 50, 2, false, false, false, 50},
    {"nothing in a first reading of a week", 0, 168, false, false, true, 168},
    {"nothing in an audit of three days", 10, 72, false, false, true, 72},
    {"the last rows vanished", 0, 2, false, true, false, 2},
    {"an audit sees old rows: not in use again", 100, 720, true, false, true, 100},
    {"an audit sees a change: in use", 100, 720, true, true, true, 0},
    {"an audit of a feed in use", 0, 72, true, false, true, 0},
};

static void a_feed_without_data(void **state)
{
    int64_t now = us(NOW);
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(empty_cases); i++) {
        const struct feed_state f = {
            .empty_since_us =
                empty_cases[i].was_h ? now - empty_cases[i].was_h * HOUR * US_PER_S : 0};
        const struct found found = {now - empty_cases[i].from_h * HOUR * US_PER_S,
                                    empty_cases[i].rows, empty_cases[i].changed,
                                    empty_cases[i].audit};
        good &=
            same_time(empty_cases[i].name, plan_empty_since(&f, &found),
                      empty_cases[i].want_h ? now - empty_cases[i].want_h * HOUR * US_PER_S : 0);
    }
    assert_true(good);
}

/* What an account's feeds cost: each asked with one request whenever it is due, as plan_next_due
 * says, over two weeks of cycles every 15 minutes. */
static const struct {
    const char *name;
    size_t in_use, idle, hourly; /* feeds; idle: without data, but asked for as often */
    int64_t want_a_day, want_longest_s;
} cost_cases[] = {
    {"everything in use: 11 feeds", 10, 0, 1, 984, 900},
    {"one in use: less than 4 a cycle", 1, 9, 1, 336, 900},
    {"a quiet account: less than 3 a cycle", 0, 10, 1, 264, 3600},
};

static void what_a_quiet_account_costs(void **state)
{
    struct slots s = slots_of("*/15 * * * *");
    const struct outcome ok = {END_OK, 1, 0};
    int64_t midnight = us("2026-11-25T00:00:00Z"), days = 14;
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(cost_cases); i++) {
        size_t n = cost_cases[i].in_use + cost_cases[i].idle + cost_cases[i].hourly;
        int64_t requests = 0, longest = 0;
        for (size_t k = 0; k < n; k++) {
            bool idle = k >= cost_cases[i].in_use && k < n - cost_cases[i].hourly;
            struct feed_state f = {.feed = k < n - cost_cases[i].hourly ? &usage : &costs};
            int64_t due = slot_after(&s, 77, midnight - 1), last = due;
            if (idle)
                f.empty_since_us = midnight - 3 * DAY * US_PER_S;
            while (due < midnight + days * DAY * US_PER_S) {
                requests++;
                if (!idle && f.feed == &usage && due - last > longest)
                    longest = due - last;
                last = due;
                due = plan_next_due(&s, 77, &f, &ok, due + 2 * US_PER_S);
            }
        }
        good &= same_int(cost_cases[i].name, requests / days, cost_cases[i].want_a_day);
        good &=
            same_int(cost_cases[i].name, longest <= cost_cases[i].want_longest_s * US_PER_S, true);
    }
    assert_true(good);
}

/* ---- a day of cycles ---- */

static const struct {
    const char *name, *schedule;
    int64_t reading_s;                     /* how long each reading takes */
    int64_t from_s, to_s;                  /* no scheduler between these moments of the day */
    int64_t want_readings, want_longest_s; /* from the begin of one to the begin of the next */
} day_cases[] = {
    {"BR-020: six seconds of work a minute", "* * * * *", 6, 0, 0, 1440, 60},
    {"BR-065: readings of 20 minutes, every 15", "*/15 * * * *", 1200, 0, 0, 72, 1200},
    {"BR-065: readings just short of the schedule", "*/15 * * * *", 899, 0, 0, 96, 900},
    {"BR-070: suspended for two hours", "*/15 * * * *", 2, 36000, 43200, 89, 8100},
    {"BR-070: suspended for the day's first hour", "*/15 * * * *", 2, 0, 3600, 93, 900},
};

/* One account's day: a reading begins when the account is due and nothing is in flight. It takes
 * all that is owed, so no matter how many ticks have passed, it is one. */
static void a_day_of_cycles(void **state)
{
    const struct outcome ok = {END_OK, 1, 0};
    const struct feed_state f = {.feed = &usage};
    int64_t midnight = us("2026-11-25T00:00:00Z");
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(day_cases); i++) {
        struct slots s = slots_of(day_cases[i].schedule);
        int64_t from = midnight + day_cases[i].from_s * US_PER_S;
        int64_t to = midnight + day_cases[i].to_s * US_PER_S;
        int64_t due = slot_after(&s, 77, midnight - 1), free_at = midnight, last = 0;
        int64_t readings = 0, longest = 0;
        for (;;) {
            int64_t begin = due > free_at ? due : free_at;
            if (begin >= from && begin < to)
                begin = to;
            if (begin >= midnight + DAY * US_PER_S)
                break;
            if (last && begin - last > longest)
                longest = begin - last;
            last = begin;
            readings++;
            free_at = begin + day_cases[i].reading_s * US_PER_S;
            due = plan_next_due(&s, 77, &f, &ok, begin);
        }
        good &= same_int(day_cases[i].name, readings, day_cases[i].want_readings);
        good &=
            same_int(day_cases[i].name, longest <= day_cases[i].want_longest_s * US_PER_S, true);
    }
    assert_true(good);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(live_windows),
        cmocka_unit_test(an_unfinished_reading_goes_on),
        cmocka_unit_test(owed_chunks),
        cmocka_unit_test(chunks_join),
        cmocka_unit_test(aligned),
        cmocka_unit_test(another_width_reads_whole_days),
        cmocka_unit_test(live_figures_pass_what_keeps_failing),
        cmocka_unit_test(gaps),
        cmocka_unit_test(each_tick_once),
        cmocka_unit_test(accounts_are_spread),
        cmocka_unit_test(ticks_before),
        cmocka_unit_test(next_due),
        cmocka_unit_test(a_feed_without_data),
        cmocka_unit_test(what_a_quiet_account_costs),
        cmocka_unit_test(a_day_of_cycles),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
