/* sums.h - where the figures of a span are read: sums made ahead, and rows for what has none.
 *
 * By account:
 *   months       usage_months: whole months, where the grouping needs no days
 *   days         usage_days: whole days of UTC
 *                (of both the smaller usage_account_*, where it asks for account, provider, feed
 * and model alone) rows         usage_metrics: days that have changed since they were summed up
 * (the latest ones always), and days that are cut: by an end of the span, or between two groups All
 * accounts together, where nothing asks for an account or what belongs to one: totals usage_totals:
 * whole days of UTC slots        usage_slots: days that are cut days, rows   as above, of the days
 * on which some account has changed
 *
 * They never overlap and leave nothing out (db/, "Sums made ahead"), so an answer is exact
 * whatever has been summed up so far. */
#ifndef UF_GATEWAY_SUMS_H
#define UF_GATEWAY_SUMS_H

#include <stdbool.h>

#include "gateway/params.h"

struct source {
    const struct span_sql *span;
    const struct params *params; /* "account" chooses accounts */
    bool together;               /* neither grouped nor chosen by account, project, user or key */
    bool narrow;   /* neither grouped nor chosen by other than account, provider, feed and model */
    bool by_hour;  /* then without figures for whole days, which have no hour */
    bool by_day;   /* the days of a month are told apart */
    bool by_month; /* the months are */
    bool zoned;    /* by the clock of a zone that is not UTC */
    bool priced;   /* a month in which a price changes is not one figure */
};

/* "WITH ... " to stand before the statement. */
void source_with(const struct source *src, struct sql *s);
/* "FROM (...) m". Its columns are those of usage_days, except `day`, and not the ones that `narrow`
 * and `together` say are not asked for; and `local`, the time on the clock of the span's zone: of a
 * bucket's start, or of a slot, day or month that is summed up. */
void source_from(const struct source *src, struct sql *s);

#endif
