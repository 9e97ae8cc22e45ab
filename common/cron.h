/* cron.h - "every 15 minutes" and its like: five fields, in UTC. */
#ifndef UF_CRON_H
#define UF_CRON_H

#include <stdbool.h>
#include <stdint.h>

#include "common/status.h"
#include "common/text.h"

/* A bit per allowed value. */
struct cron {
    uint64_t minutes; /* 0-59 */
    uint32_t hours;   /* 0-23 */
    uint32_t days;    /* 1-31 */
    uint16_t months;  /* 1-12 */
    uint8_t weekdays; /* 0-6, Sunday is 0 (7 in the text, too) */
    bool any_day;     /* day of month was '*': only weekdays decide, and vice versa */
    bool any_weekday; /* both restricted: either may match, as in crontab(5) */
    char text[100];   /* as written, for people; cut when longer */
};

/* minute hour day-of-month month day-of-week; lists, ranges, steps (a-b, a-b/n, a/n, and a star
 * with or without /n), names (jan, mon; any case), and @hourly @daily @midnight @weekly @monthly
 * @yearly @annually. ST_REJECT: err tells the position (1-based column), the field and what is
 * allowed; also when no date can ever match (31 February). */
enum status cron_parse(struct cron *out, struct text t, struct err *err) CHECKED;

/* The first tick strictly after `t_us`; ticks fall on whole minutes of UTC. */
int64_t cron_next_us(const struct cron *c, int64_t t_us);

#endif
