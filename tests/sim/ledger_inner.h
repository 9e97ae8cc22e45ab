/* ledger_inner.h - what the two halves of the ledger, one a provider, share. */
#ifndef SIM_LEDGER_INNER_H
#define SIM_LEDGER_INNER_H

#include "tests/sim/ledger.h"

#define BIT(d)             DIM_BIT(D_##d)
#define ALL_DIMS           ((1U << N_DIMS) - 1U)
#define PER_MILLION(cents) ((cents)*INT64_C(10000000)) /* cents per million tokens, per token */

enum { T_PROJECTS = 1, T_KEYS, T_VOLUME, T_ZONE, T_USES = 16, T_IDS = 64 };

uint64_t roll(uint64_t base, uint64_t what);
/* A number that belongs to the account for good. */
uint64_t trait(const struct ledger *l, uint32_t account, uint64_t what);
int64_t between(uint64_t r, int64_t low, int64_t high);
int64_t account_volume(const struct ledger *l, uint32_t account);
/* Adds the row to those with the same grouped dimensions. */
void merge(struct rows *out, const struct view *view, struct row *row);
/* The first restatement that may concern this bucket; NULL: none. */
const struct restatement *restated(const struct ledger *l, uint32_t account, enum feed_id feed,
                                   int64_t bucket);
bool restates(const struct restatement *s, uint32_t account, enum feed_id feed, int64_t bucket);
/* Applies the restatements of this bucket to row number n. False: the row has vanished. */
bool restate_row(const struct restatement *s, uint32_t account, enum feed_id feed, int64_t bucket,
                 int n, struct row *row);
void add_usage(const struct ledger *l, uint32_t account, enum feed_id feed, struct span span,
               const struct view *view, struct rows *out);

/* Anthropic: a row of the messages usage; the bill of one whole day; the text of a dimension. */
void fill_messages(const struct ledger *l, uint32_t account, uint64_t r, struct row *row);
void add_cost_report(const struct ledger *l, uint32_t account, struct span span,
                     const struct view *view, struct rows *out);
bool anthropic_dim_text(const struct ledger *l, uint32_t account, enum dim d, uint8_t value,
                        char *out);

#endif
