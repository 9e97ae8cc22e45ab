#include "fetcher/progress.h"

#include <inttypes.h>
#include <stdlib.h>

#include <xxhash.h>

#include "common/arena.h"
#include "common/clock.h"

void progress_start(struct progress *p, const struct window *asked)
{
    p->asked = asked;
    p->n_tokens = p->n_hulls = 0;
    p->from_start = false;
    p->in_order = true;
    p->end_us = p->closed_us = p->claimed_us = 0;
}

void progress_question(struct progress *p)
{
    p->n_tokens = 0;
}

void progress_close(struct progress *p)
{
    free(p->tokens);
    free(p->hulls);
    *p = (struct progress){0};
}

static uint64_t token_digest(const struct peek *peek)
{
    return peek->cursor.at ? XXH3_64bits(peek->cursor.at, peek->cursor.len) : 0;
}

static enum status check_token(const struct progress *p, const struct peek *peek, struct err *err)
{
    uint64_t digest = token_digest(peek);

    if (!peek->has_more)
        return ST_OK;
    if (!peek->cursor.at || peek->cursor.len == 0)
        return err_set(err, ST_REJECT, "a page says that more follows and gives no page token");
    for (size_t i = 0; i < p->n_tokens; i++)
        if (p->tokens[i] == digest)
            return err_set(err, ST_REJECT,
                           "page %zu gives a page token that was used already: it goes in circles",
                           p->n_tokens + 1);
    return ST_OK;
}

static enum status refuse_hull(const struct peek *peek, const char *why, struct err *err)
{
    char from[TIME_TEXT_MAX], to[TIME_TEXT_MAX];

    return err_set(err, ST_REJECT, "buckets of %s to %s %s", time_format(from, peek->from_us),
                   time_format(to, peek->to_us), why);
}

static enum status check_hull(const struct progress *p, const struct peek *peek, struct err *err)
{
    const struct window *w = p->asked;

    if (!peek->any)
        return ST_OK;
    if (peek->from_us < w->from_us || (w->to_us != 0 && peek->to_us > w->to_us))
        return refuse_hull(peek, "came, which were not asked for", err);
    if (p->n_hulls == 0 || peek->from_us >= p->end_us)
        return ST_OK;
    for (size_t i = 0; i < p->n_hulls; i++)
        if (peek->from_us < p->hulls[i].to_us && p->hulls[i].from_us < peek->to_us)
            return refuse_hull(peek, "came twice, on two pages", err);
    return ST_OK;
}

static void make_room(struct progress *p)
{
    if (p->n_tokens == p->cap || p->n_hulls == p->cap) {
        p->cap = p->cap ? 2 * p->cap : 32;
        p->tokens = xrealloc(p->tokens, p->cap, sizeof(*p->tokens));
        p->hulls = xrealloc(p->hulls, p->cap, sizeof(*p->hulls));
    }
}

static void remember(struct progress *p, const struct peek *peek)
{
    make_room(p);
    if (peek->has_more)
        p->tokens[p->n_tokens++] = token_digest(peek);
    if (!peek->any)
        return;
    if (p->n_hulls == 0)
        p->from_start = peek->from_us <= p->asked->from_us;
    else
        p->in_order &= peek->from_us >= p->end_us;
    p->hulls[p->n_hulls++] = (struct span){peek->from_us, peek->to_us};
    if (peek->to_us > p->end_us)
        p->end_us = peek->to_us;
    if (peek->closed_us > p->closed_us)
        p->closed_us = peek->closed_us;
}

static int64_t reached_us(const struct progress *p, bool last, int64_t now_us)
{
    bool open = p->asked->to_us == 0;

    if (last && open)
        return now_us > 0 ? now_us : p->closed_us;
    if (last)
        return p->asked->to_us;
    /* A first page that begins later than asked may be the newest of a provider that goes
     * backwards, so only the second tells. */
    if (!p->in_order || (!p->from_start && p->n_hulls < 2))
        return 0;
    return open ? p->closed_us : p->end_us;
}

enum status progress_token(struct progress *p, const struct peek *peek, struct err *err)
{
    TRY(check_token(p, peek, err));
    make_room(p);
    if (peek->has_more)
        p->tokens[p->n_tokens++] = token_digest(peek);
    return ST_OK;
}

enum status progress_page(struct progress *p, const struct peek *peek, bool last, int64_t date_s,
                          int64_t utc_us, struct err *err)
{
    int64_t now_us = date_s > 0 ? time_floor_us(date_s * US_PER_S, p->asked->bucket_s) : 0;
    int64_t limit_us = now_us > 0 ? now_us : time_floor_us(utc_us, p->asked->bucket_s);
    int64_t to_us;

    TRY(check_token(p, peek, err));
    TRY(check_hull(p, peek, err));
    remember(p, peek);
    to_us = reached_us(p, last, now_us);
    if (to_us > limit_us)
        to_us = limit_us; /* a bucket that is still open for the provider is not complete */
    if (to_us > p->asked->from_us && to_us > p->claimed_us)
        p->claimed_us = to_us;
    return ST_OK;
}
