#include "scheduler/plan.h"

#include "common/clock.h"

#define AUDIT_3D_EVERY_US   US_PER_DAY
#define AUDIT_30D_EVERY_US  (7 * US_PER_DAY)
#define EMPTY_FOR_US        (3 * US_PER_DAY) /* after that an empty feed is asked hourly */
#define LIVE_PAGES          4 /* of a first reading; what is older waits behind the live figures */
#define SKIP_AFTER_FAILURES 2
#define DAY_S               86400 /* the widest bucket */
#define HOUR_S              3600
#define HOUR_US             (HOUR_S * US_PER_S)
#define RETRY_FIRST_S       60

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* The latest start that the provider takes. */
static int64_t latest_start(const struct feed *feed, int64_t now_us)
{
    return feed->start_back_s ? time_floor_us(now_us, DAY_S) - feed->start_back_s * US_PER_S
                              : INT64_MAX;
}

/* A feed never read: as much of the backfill as a few pages hold, and the older rest apart. From a
 * day's beginning: should this reading be committed and never settled, and the next be of another
 * width, no day is held in two. */
static void plan_first(struct live_plan *out, const struct feed *feed, const struct width *width,
                       int64_t now_us, int64_t backfill_s)
{
    int64_t grouped_us = feed->old_before_s * US_PER_S;
    int64_t oldest = time_floor_us(now_us - backfill_s * US_PER_S, DAY_S);
    /* the pages hold `limit` buckets each, the open one among them */
    int64_t held_us = (LIVE_PAGES * (int64_t)width->limit - 1) * width->bucket_s * US_PER_S;
    int64_t from = oldest;

    if (oldest < time_floor_us(now_us, width->bucket_s) - held_us)
        from = time_floor_us(now_us - held_us, DAY_S);
    if (from < grouped_us && grouped_us < now_us)
        from = grouped_us;
    out->window.from_us = min64(from, latest_start(feed, now_us));
    out->backfill = (struct span){oldest, from};
    out->audits_3d = out->audits_30d = true; /* all is fresh */
}

void plan_live(struct live_plan *out, const struct feed_state *state, int64_t now_us,
               int64_t bucket_s, int64_t backfill_s)
{
    const struct feed *feed = state->feed;
    const struct width *width = feed_width(feed, bucket_s);
    bool other_width = state->bucket_s != 0 && state->bucket_s != width->bucket_s;
    int64_t from = state->resume_us;

    *out = (struct live_plan){.window = {.feed = text_of(feed->name), .bucket_s = width->bucket_s}};
    if (state->watermark_us == 0) {
        plan_first(out, feed, width, now_us, backfill_s);
        return;
    }
    /* Looking back anew, a reading that ends early each time would never get past what it looks
     * back on. */
    if (state->resume_us == 0) {
        from = min64(state->watermark_us, now_us) - feed->lookback_s * US_PER_S;
        out->audits_3d = now_us - state->audited_3d_us >= AUDIT_3D_EVERY_US;
        out->audits_30d = now_us - state->audited_30d_us >= AUDIT_30D_EVERY_US;
        if (out->audits_3d)
            from = min64(from, now_us - 3 * US_PER_DAY);
        if (out->audits_30d)
            from = min64(from, now_us - 30 * US_PER_DAY);
        from = max64(from, state->complete_from_us);
    }
    /* An old page that keeps failing must not keep the live figures away. */
    if (state->consecutive_failures >= SKIP_AFTER_FAILURES && from < state->watermark_us) {
        out->skipped_us = from;
        out->audits_3d = out->audits_30d = false;
        from = state->watermark_us;
    }
    /* Whole days where buckets of another width may stand: a day is never held in two. */
    from = min64(from, latest_start(feed, now_us));
    out->window.from_us = time_floor_us(
        from, other_width || out->audits_3d || out->audits_30d ? DAY_S : width->bucket_s);
    out->window.complete_from_us = state->complete_from_us;
    out->window.complete_us = state->watermark_us;
}

void plan_owed(struct window *out, const struct feed *feed, int64_t bucket_s, int64_t done_to_us,
               int64_t to_us, int64_t now_us)
{
    const struct width *width = feed_width(feed, bucket_s);
    int64_t chunk_us = OWED_CHUNK_PAGES * (int64_t)width->limit * width->bucket_s * US_PER_S;
    int64_t grouped_us = feed->old_before_s * US_PER_S;
    int64_t end = min64(to_us, done_to_us + chunk_us);

    /* a window is asked for in one grouping: one side of the day from which all are offered */
    if (done_to_us < grouped_us && grouped_us < end)
        end = grouped_us;

    *out =
        (struct window){.feed = text_of(feed->name),
                        .from_us = min64(done_to_us, latest_start(feed, now_us)),
                        .bucket_s = width->bucket_s,
                        /* a row that is there was read before, and what is owed lies in the past */
                        .complete_from_us = end,
                        .complete_us = end};
    /* An end near now is left open: asked for, it might lie in the future of the provider's clock.
     */
    out->to_us = end > now_us - HOUR_US ? 0 : end;
}

struct span plan_align(int64_t from_us, int64_t to_us)
{
    return (struct span){time_floor_us(from_us, DAY_S), time_ceil_us(to_us, DAY_S)};
}

void slots_init(struct slots *s, const struct cron *schedule, int64_t now_us)
{
    int64_t tick = cron_next_us(schedule, now_us);
    int64_t until = now_us + 7 * US_PER_DAY;

    *s = (struct slots){.schedule = *schedule, .gap_us = US_PER_DAY};
    while (tick < until) {
        int64_t next = cron_next_us(schedule, tick);
        s->gap_us = min64(s->gap_us, next - tick);
        tick = next;
    }
}

/* splitmix64's finisher: neighbouring ids end far apart. */
static uint64_t scatter(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static int64_t tick_after(struct slots *s, int64_t t_us)
{
    if (t_us < s->tick_from_us || t_us >= s->tick_us) {
        s->tick_us = cron_next_us(&s->schedule, t_us);
        s->tick_from_us = t_us;
    }
    return s->tick_us;
}

int64_t slot_after(struct slots *s, int64_t account_id, int64_t t_us)
{
    int64_t offset = (int64_t)(scatter((uint64_t)account_id) % (uint64_t)s->gap_us);

    return tick_after(s, t_us - offset) + offset;
}

int64_t tick_before(const struct slots *s, int64_t t_us)
{
    int64_t tick = 0;

    for (int64_t back = HOUR_US; tick == 0 || tick > t_us; back *= 8) {
        if (back > INT64_C(30) * 366 * US_PER_DAY)
            return t_us; /* no tick in so many years: cron_parse refuses such schedules */
        tick = cron_next_us(&s->schedule, t_us - back);
    }
    for (int64_t next = tick; next <= t_us; next = cron_next_us(&s->schedule, next))
        tick = next;
    return tick;
}

int64_t plan_empty_since(const struct feed_state *state, const struct found *found)
{
    if (!found->rows)
        return state->empty_since_us ? min64(state->empty_since_us, found->from_us)
                                     : found->from_us;
    return found->audit && !found->changed ? state->empty_since_us : 0;
}

int64_t plan_next_due(struct slots *s, int64_t account_id, const struct feed_state *state,
                      const struct outcome *how, int64_t now_us)
{
    int64_t wait_s = RETRY_FIRST_S;

    if (how->ending == END_OK) {
        int64_t cadence_s = state->feed->cadence_s;
        if (state->empty_since_us && now_us - state->empty_since_us >= EMPTY_FOR_US)
            cadence_s = max64(cadence_s, HOUR_S);
        /* a tenth early, so that a slot which comes a moment before the hour is not passed over */
        return slot_after(s, account_id, now_us + cadence_s * US_PER_S * 9 / 10);
    }
    if (ending_is_partial(how->ending))
        return now_us;
    if (ending_is_auth(how->ending))
        return slot_after(s, account_id, now_us + HOUR_US * 9 / 10); /* not hammered */
    for (int64_t i = 1; i < how->failures && wait_s < HOUR_S; i++)
        wait_s *= 2;
    return now_us + max64(min64(wait_s, HOUR_S), how->retry_after_s) * US_PER_S;
}
