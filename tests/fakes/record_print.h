/* record_print.h - records as short lines of text, for tests that say what they want in words.
 *
 *   "1793923200/3600 project_id=p1 model=m1 input_tokens=5 batch=true"
 *
 * Only what is not null, dimensions first; bad rows as "bad PATH: REASON", a dead page as
 * "dead PATH: REASON". */
#ifndef UF_TESTS_RECORD_PRINT_H
#define UF_TESTS_RECORD_PRINT_H

#include <inttypes.h>
#include <stddef.h>

#include "common/arena.h"
#include "common/clock.h"
#include "common/record.h"
#include "common/wire.h"

static inline void record_print(struct buf *out, const struct record *r)
{
    static const char *const texts[N_RECORD_TEXTS] = {
        "project_id", "user_id",  "api_key_id",    "model",       "service_tier", "line_item",
        "dims",       "quantity", "quantity_unit", "cost_amount", "currency",     "extra"};
    static const char *const counts[N_RECORD_COUNTS] = {
        "input_tokens",        "cached_input_tokens", "cache_write_tokens", "input_audio_tokens",
        "output_audio_tokens", "output_tokens",       "num_requests"};

    buf_printf(out, "%" PRId64 "/%" PRIu32, r->bucket_start_us / US_PER_S, r->bucket_seconds);
    for (size_t i = 0; i < N_RECORD_DIMENSIONS; i++)
        if (r->texts[i].at)
            buf_printf(out, " %s=%.*s", texts[i], (int)r->texts[i].len, r->texts[i].at);
    if (r->batch != TRI_NULL)
        buf_printf(out, " batch=%s", r->batch == TRI_TRUE ? "true" : "false");
    for (size_t i = 0; i < N_RECORD_COUNTS; i++)
        if (r->counts[i] != COUNT_NULL)
            buf_printf(out, " %s=%" PRId64, counts[i], r->counts[i]);
    for (size_t i = N_RECORD_DIMENSIONS; i < N_RECORD_TEXTS; i++)
        if (r->texts[i].at)
            buf_printf(out, " %s=%.*s", texts[i], (int)r->texts[i].len, r->texts[i].at);
    buf_str(out, "\n");
}

static inline void dead_print(struct buf *out, const char *kind, const struct dead *d)
{
    buf_printf(out, "%s %.*s: %.*s\n", kind, (int)d->json_path.len,
               d->json_path.at ? d->json_path.at : "", (int)d->reason.len, d->reason.at);
}

static inline const char *record_page_print(struct arena *a, const struct record_page *p)
{
    struct buf out = {.arena = a};

    buf_str(&out, "");
    for (size_t i = 0; i < p->n_records; i++)
        record_print(&out, &p->records[i]);
    for (size_t i = 0; i < p->n_bad_rows; i++)
        dead_print(&out, "bad", &p->bad_rows[i]);
    if (p->dead.reason.at)
        dead_print(&out, "dead", &p->dead);
    return out.at;
}

#endif
