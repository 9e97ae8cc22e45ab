/* metrics.h - /metrics: the text format of Prometheus, version 0.0.4.
 *
 * Appended part by part to one buffer: what the pulses tell, then what the database tells. The
 * Content-Type is METRICS_CONTENT_TYPE. Each part may be left out (no database: the pulses still
 * say why). Names begin with usage_fetcher_; HELP and TYPE precede each family; labels are escaped.
 */
#ifndef UF_GATEWAY_METRICS_H
#define UF_GATEWAY_METRICS_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/arena.h"
#include "common/instances.h"

#define METRICS_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"

/* Every series of every living process, with labels stage and process, and how many processes each
 * kind of stage has. */
void metrics_stages(struct buf *out, const struct instances *in, int64_t mono_us);

/* The accounts. `metrics_accounts_sql` has one parameter, the most accounts that are named
 * (METRICS_ACCOUNTS_MAX as text): worst first, failing ones and those that lag most; the totals
 * cover all. It reads account_health and a few counts; a scrape may use an answer that is some
 * seconds old. All values come as text. */
#define METRICS_ACCOUNTS_MAX 200
extern const char metrics_accounts_sql[];
/* `rows`: the answer of metrics_accounts_sql. NULL: there was none (the database is away), and
 * usage_fetcher_database_up is 0. */
void metrics_accounts(struct buf *out, const PGresult *rows);

/* A family of the caller's own: HELP and TYPE ("counter", "gauge"), then its samples. `labels` are
 * NULL-terminated pairs of name and value; `name` is without the prefix. */
void metrics_family(struct buf *out, const char *name, const char *type, const char *help);
void metrics_sample(struct buf *out, const char *name, const char *const (*labels)[2],
                    const char *value);

#endif
