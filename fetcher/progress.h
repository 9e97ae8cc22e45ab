/* progress.h - how far the pages of one window have brought us, and whether they make sense
 * together.
 *
 * Providers have sent the same token for ever, two tokens in turn, and an answer to another
 * question. Each of these would end as a hole or an endless loop, so a page that does not fit to
 * those before it is refused. */
#ifndef UF_FETCHER_PROGRESS_H
#define UF_FETCHER_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/providers/provider.h"
#include "common/status.h"
#include "common/wire.h"

struct progress {
    const struct window *asked; /* borrowed */
    uint64_t *tokens;           /* digests of all page tokens of this window */
    struct span *hulls;         /* [from, to) of the buckets of each page that had any */
    size_t n_tokens, n_hulls, cap;
    bool from_start;    /* the first page began where the window does */
    bool in_order;      /* each page begins where the one before ended, or later */
    int64_t end_us;     /* the last end of a bucket so far */
    int64_t closed_us;  /* the same of buckets as wide as asked */
    int64_t claimed_us; /* complete until here; 0: no progress yet */
};

/* Forgets the window before. `p` starts zeroed. */
void progress_start(struct progress *p, const struct window *asked);
void progress_close(struct progress *p);

/* Another question of the same window: its page tokens have nothing to do with those before. */
void progress_question(struct progress *p);
/* Takes the page token of an answer that is no page yet (joined.h). ST_REJECT: as below. */
enum status progress_token(struct progress *p, const struct peek *peek, struct err *err) CHECKED;

/* Takes a page: `peek` of a body that came at `date_s` of the provider's clock (-1: unknown) and
 * `utc_us` of this host's; `last`: it is the window's last one. Fills p->claimed_us: until where
 * the feed is complete once this page and all before it are stored.
 *
 * Until the last page that is the end of its buckets, as long as pages come in order; with the last
 * page it is the window's end, or for a window that is open to now the last closed bucket by the
 * provider's clock, so that a feed without usage advances, too. Never past the provider's now, or
 * this host's where that is not known: some list the open bucket with its whole width.
 *
 * ST_REJECT: more is said to follow but there is no token, or one that was used before; buckets
 * outside of the window, or among those of an earlier page. Then nothing is taken. */
enum status progress_page(struct progress *p, const struct peek *peek, bool last, int64_t date_s,
                          int64_t utc_us, struct err *err) CHECKED;

#endif
