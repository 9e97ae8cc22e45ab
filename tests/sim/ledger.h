/* ledger.h - the truth that the simulator serves: usage and cost of any number of accounts.
 *
 * Every figure is a pure function of (seed, account, feed, hour, row), so a million accounts cost
 * no memory. A small table of restatements lies on top. Each row has a total for its hour, split
 * over the minutes by weights that add up exactly, so minutes, hours and days always agree; what
 * the clock has not reached yet is not there yet. Costs are those tokens times a price list, plus a
 * few credits and adjustments, in whole 1e-15 dollars. */
#ifndef SIM_LEDGER_H
#define SIM_LEDGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/sim/buf.h"

#define HOUR                3600
#define DAY                 86400
#define COSTS_BY_KEY_FROM   1764979200 /* 2025-12-06: costs are not known by key before it */
#define COST_SCALE          15
#define COST_QUANTITY_SCALE 6

enum feed_id {
    COMPLETIONS,
    EMBEDDINGS,
    MODERATIONS,
    IMAGES,
    AUDIO_SPEECHES,
    AUDIO_TRANSCRIPTIONS,
    VECTOR_STORES,
    CODE_INTERPRETER_SESSIONS,
    FILE_SEARCH_CALLS,
    WEB_SEARCH_CALLS,
    COSTS,
    N_FEEDS,
};

enum dim {
    D_PROJECT,
    D_USER,
    D_KEY,
    D_MODEL,
    D_BATCH,
    D_TIER,
    D_SIZE,
    D_SOURCE,
    D_STORE,
    D_LEVEL,
    D_LINE,
    N_DIMS,
};
#define DIM_BIT(d) (1U << (unsigned)(d))

/* What is counted. Everything else that a row shows (input_tokens, ...) is a sum of these, so the
 * provider's identities hold in any split. */
enum part {
    P_TEXT, /* uncached input, per modality */
    P_AUDIO,
    P_IMAGE,
    P_CACHED_TEXT,
    P_CACHED_AUDIO,
    P_CACHED_IMAGE,
    P_CACHE_WRITE,
    P_OUT_TEXT,
    P_OUT_AUDIO,
    P_OUT_IMAGE,
    P_REQUESTS, /* num_model_requests */
    P_UNITS,    /* images, characters, seconds, bytes, sessions, calls */
    N_PARTS,
};

struct row {
    uint8_t dim[16]; /* 0 = null, else 1 + index; see ledger_dim_text */
    int64_t part[N_PARTS];
    __int128 amount;   /* costs: 1e-15 dollars */
    __int128 quantity; /* costs: 1e-6 units */
    bool has_quantity;
};

struct rows {
    struct row *at;
    size_t n, cap;
};

struct feed_info {
    const char *name;              /* last part of the path */
    const char *object;            /* results[].object */
    unsigned dims;                 /* DIM_BITs that can be grouped by */
    const char *unit_field, *unit; /* P_UNITS: its JSON field and what a usage row's quantity is */
    bool tokens, requests;         /* has input_tokens, has num_model_requests */
};
extern const struct feed_info feed_infos[N_FEEDS];
extern const char *const dim_names[N_DIMS]; /* "project_id", ... */

enum restate_op { RESTATE_CHANGE, RESTATE_VANISH, RESTATE_ADD };

struct restatement {
    uint32_t account;
    enum feed_id feed;
    int64_t bucket; /* hour; for costs the day */
    enum restate_op op;
    int row;         /* only this row of the hour; -1 = all */
    int64_t percent; /* CHANGE: of what it was */
    __int128 amount; /* ADD to costs */
    uint64_t serial;
    struct restatement *next;
};

struct ledger {
    uint64_t seed;
    uint32_t accounts;
    int64_t history_from; /* nothing before it */
    bool small;           /* few rows */
    int64_t settle_s;     /* a minute's figures go on rising for so long after it has ended */
    struct restatement *restated[4096];
    uint64_t n_restated;
};

/* Which rows count, and which dimensions stay apart; the others are null in the answer. */
struct view {
    unsigned group_by;                                 /* DIM_BITs */
    bool (*keep)(const void *ctx, const struct row *); /* NULL = all */
    const void *ctx;
    bool as_first_reported; /* without the restatements */
};

/* A measure of a usage row, by the name that the provider's JSON gives it. */
struct measure {
    const char *name;
    int64_t value;
};
#define MAX_MEASURES 20

struct span {
    int64_t from, to; /* UTC seconds, whole minutes, but that `to` may be `now` */
    int64_t now;      /* the clock */
};

/* Fills `out` with the rows of [from, to), merged by the grouped dimensions. */
void ledger_read(const struct ledger *l, uint32_t account, enum feed_id feed, struct span span,
                 const struct view *view, struct rows *out);
/* The text of a dimension; false: null. `out` has 80 bytes. */
bool ledger_dim_text(const struct ledger *l, uint32_t account, enum dim d, uint8_t value,
                     char *out);
/* The measures of a usage row, in the order of the provider's JSON; returns their number. */
size_t ledger_measures(uint32_t account, enum feed_id feed, const struct row *row,
                       struct measure out[MAX_MEASURES]);
/* The unit of a cost row's quantity; NULL = none that the provider names. */
const char *ledger_line_unit(uint8_t line);
/* Accounts whose completions rows lack the newer token fields, as older answers do. */
bool ledger_is_terse(uint32_t account);
void ledger_restate(struct ledger *l, const struct restatement *r);
void ledger_forget_restatements(struct ledger *l);
uint64_t ledger_mix(uint64_t x);

#endif
