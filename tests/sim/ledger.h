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
    MESSAGES, /* from here on: Anthropic's */
    COST_REPORT,
    CLAUDE_CODE,
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
    D_WORKSPACE,
    D_ACCOUNT,
    D_SERVICE_ACCOUNT,
    D_WINDOW,
    D_GEO,
    D_SPEED,
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
    P_CACHE_WRITE,    /* Anthropic: for five minutes */
    P_CACHE_WRITE_1H, /* Anthropic: for an hour */
    P_OUT_TEXT,
    P_OUT_AUDIO,
    P_OUT_IMAGE,
    P_REQUESTS, /* num_model_requests */
    P_UNITS,    /* images, characters, seconds, bytes, sessions, calls, web searches */
    N_PARTS,
};

struct row {
    uint8_t dim[24]; /* 0 = null, else 1 + index; see ledger_dim_text */
    int64_t part[N_PARTS];
    __int128 amount;   /* costs: 1e-15 dollars */
    __int128 quantity; /* costs: 1e-6 units */
    bool has_quantity;
};

struct rows {
    struct row *at;
    size_t n, cap;
};

enum provider_id { OPENAI, ANTHROPIC, N_PROVIDERS };
extern const char *const provider_names[N_PROVIDERS];

struct feed_info {
    const char *name;              /* last part of the path */
    const char *object;            /* results[].object; NULL = there is none */
    unsigned dims;                 /* DIM_BITs that can be grouped by */
    const char *unit_field, *unit; /* P_UNITS: its JSON field and what a usage row's quantity is */
    bool tokens, requests;         /* has input_tokens, has num_model_requests */
    bool daily;                    /* by whole UTC days only */
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
    uint32_t first_anthropic; /* the accounts from this number on are Anthropic's */
    int64_t history_from;     /* nothing before it */
    bool small;               /* few rows */
    int64_t settle_s;         /* a minute's figures go on rising for so long after it has ended */
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

enum provider_id ledger_provider(const struct ledger *l, uint32_t account);
enum provider_id feed_provider(enum feed_id feed);
/* The account's number among those of its provider, on which its habits depend. */
uint32_t ledger_index(const struct ledger *l, uint32_t account);
/* Fills `out` with the rows of [from, to), merged by the grouped dimensions. */
void ledger_read(const struct ledger *l, uint32_t account, enum feed_id feed, struct span span,
                 const struct view *view, struct rows *out);
/* The text of a dimension; false: null. `out` has 80 bytes. */
bool ledger_dim_text(const struct ledger *l, uint32_t account, enum dim d, uint8_t value,
                     char *out);
/* The measures of a usage row, in the order of the provider's JSON; returns their number. */
size_t ledger_measures(const struct ledger *l, uint32_t account, enum feed_id feed,
                       const struct row *row, struct measure out[MAX_MEASURES]);
/* One record of a Claude Code day: a person or a key, at one kind of terminal. */
#define CODE_TOOLS  4
#define CODE_MODELS 3
enum code_tokens { CODE_INPUT, CODE_OUTPUT, CODE_CACHE_READ, CODE_CACHE_CREATION, N_CODE_TOKENS };
struct code_record {
    char actor[80];           /* an e-mail address as the person wrote it, or the name of a key */
    bool api_actor;           /* the latter */
    const char *subscription; /* NULL = customer_type "api" */
    const char *terminal;
    int64_t sessions, added, removed, commits, pull_requests;
    int64_t tools[CODE_TOOLS][2]; /* accepted, rejected; -1 = the tool is not listed */
    size_t n_models;
    struct {
        const char *name;
        int64_t tokens[N_CODE_TOKENS];
        __int128 cost; /* 1e-15 dollars: an estimate */
    } models[CODE_MODELS];
};
struct code_records {
    struct code_record *at;
    size_t n, cap;
};
extern const char *const code_tools[CODE_TOOLS];
/* Fills `out` with the records of the UTC day that begins at `day`, as they are to be seen now. */
void ledger_code_day(const struct ledger *l, uint32_t account, int64_t day, int64_t now,
                     struct code_records *out);
/* Anthropic: cost_type and token_type of a cost line; NULL = null. */
const char *ledger_cost_type(uint8_t line);
const char *ledger_token_type(uint8_t line);
/* The unit of a cost row's quantity; NULL = none that the provider names. */
const char *ledger_line_unit(uint8_t line);
/* Accounts whose completions rows lack the newer token fields, as older answers do. */
bool ledger_is_terse(const struct ledger *l, uint32_t account);
void ledger_restate(struct ledger *l, const struct restatement *r);
void ledger_forget_restatements(struct ledger *l);
uint64_t ledger_mix(uint64_t x);

#endif
