/* Anthropic's half of the ledger: messages, the bill, Claude Code. */
#include "tests/sim/ledger_inner.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Prices in 1e-15 dollars a token; a cache read costs a tenth of an input token, a cache write for
 * five minutes 5/4 of it, one for an hour twice as much. */
struct model {
    const char *name, *title;
    int64_t input, output;
    bool old; /* from before its inference geography was recorded, and without a long context */
};

static const struct model models[] = {
    {"claude-sonnet-5", "Claude Sonnet 5", PER_MILLION(300), PER_MILLION(1500), false},
    {"claude-opus-5", "Claude Opus 5", PER_MILLION(500), PER_MILLION(2500), false},
    {"claude-haiku-4-5-20251001", "Claude Haiku 4.5", PER_MILLION(100), PER_MILLION(500), true},
    {"claude-3-haiku-20240307", "Claude Haiku 3", PER_MILLION(25), PER_MILLION(125), true},
};
enum { N_MODELS = sizeof models / sizeof models[0] };

static const char *const tiers[] = {"standard", "batch", "priority", "priority_on_demand"};
static const char *const windows[] = {"0-200k", "200k-1M"};
static const char *const geos[] = {"global", "us", "not_available"};
static const char *const speeds[] = {"standard", "fast"};
enum { TIER_STANDARD = 1, TIER_BATCH, TIER_PRIORITY };
enum { GEO_GLOBAL = 1, GEO_US, GEO_NOT_AVAILABLE };

/* D_LINE is one of these, plus 16 * the D_MODEL of a line about tokens. */
enum line {
    L_NONE,
    L_INPUT,
    L_OUTPUT,
    L_CACHE_READ,
    L_CACHE_5M,
    L_CACHE_1H,
    L_WEB_SEARCH,
    L_CODE_EXECUTION,
    L_SESSION,
    L_CREDIT,
    L_ADJUSTMENT,
    L_LATE,
    N_LINES,
};
static const struct {
    const char *text, *cost_type, *token_type;
} lines[N_LINES] = {
    [L_INPUT] = {"Input Tokens", "tokens", "uncached_input_tokens"},
    [L_OUTPUT] = {"Output Tokens", "tokens", "output_tokens"},
    [L_CACHE_READ] = {"Input Tokens, Cache Read", "tokens", "cache_read_input_tokens"},
    [L_CACHE_5M] = {"Input Tokens, Cache Write", "tokens",
                    "cache_creation.ephemeral_5m_input_tokens"},
    [L_CACHE_1H] = {"Input Tokens, Cache Write (1h)", "tokens",
                    "cache_creation.ephemeral_1h_input_tokens"},
    [L_WEB_SEARCH] = {"Web Search Usage", "web_search", NULL},
    [L_CODE_EXECUTION] = {"Code Execution Usage", "code_execution", NULL},
    [L_SESSION] = {"Session Usage", "session_usage", NULL},
    [L_CREDIT] = {"Credit", NULL, NULL},
    [L_ADJUSTMENT] = {"Rounding adjustment, \"fx\"", NULL, NULL},
    [L_LATE] = {"Late adjustment", NULL, NULL},
};

/* --- messages --- */

static void fill_who(const struct ledger *l, uint32_t account, uint64_t r, struct row *row)
{
    uint64_t n_workspaces = 1 + trait(l, account, T_PROJECTS) % 5;
    uint64_t key = roll(r, 1) % (n_workspaces + trait(l, account, T_KEYS) % 3);

    if (key % n_workspaces != 0) /* else: the default workspace, which has no identifier */
        row->dim[D_WORKSPACE] = (uint8_t)(key % n_workspaces);
    if (roll(r, 2) % 6 == 0)
        return; /* the console: no key */
    if (roll(r, 3) % 8 == 0 && !ledger_is_terse(l, account)) {
        row->dim[roll(r, 3) % 16 == 0 ? D_SERVICE_ACCOUNT : D_ACCOUNT] =
            (uint8_t)(1 + roll(r, 4) % 6); /* OAuth: no key either */
        return;
    }
    row->dim[D_KEY] = (uint8_t)(1 + key);
}

void fill_messages(const struct ledger *l, uint32_t account, uint64_t r, struct row *row)
{
    int64_t volume = account_volume(l, account);
    int64_t input = between(roll(r, 20), 200, 90000) * volume;
    uint64_t model = roll(r, 5) % N_MODELS;

    fill_who(l, account, r, row);
    row->dim[D_MODEL] = (uint8_t)(1 + model);
    row->dim[D_TIER] = (uint8_t)(roll(r, 7) % 8 < 5 ? TIER_STANDARD : 1 + roll(r, 7) % 4);
    row->dim[D_WINDOW] = (uint8_t)(1 + (!models[model].old && roll(r, 8) % 7 == 0));
    row->dim[D_GEO] = (uint8_t)(models[model].old     ? GEO_NOT_AVAILABLE
                                : roll(r, 9) % 5 == 0 ? GEO_US
                                                      : GEO_GLOBAL);
    row->dim[D_SPEED] = (uint8_t)(1 + (model == 1 && roll(r, 10) % 4 == 0));
    row->part[P_TEXT] = input;
    row->part[P_CACHED_TEXT] = roll(r, 22) % 4 ? input / 10 * between(roll(r, 22), 0, 60) : 0;
    row->part[P_CACHE_WRITE] = roll(r, 23) % 2 ? input / 100 * between(roll(r, 23), 1, 80) : 0;
    row->part[P_CACHE_WRITE_1H] = roll(r, 24) % 5 == 0 ? between(roll(r, 24), 1, 9000) * volume : 0;
    row->part[P_OUT_TEXT] = between(roll(r, 25), 20, 30000) * volume;
    row->part[P_UNITS] = roll(r, 26) % 4 == 0 ? between(roll(r, 26), 1, 300) : 0;
}

/* --- the bill --- */

static const struct view inner = {.group_by = ALL_DIMS};

static void add_cost(struct rows *out, const struct row *of, enum line line, int64_t quantity,
                     int64_t price)
{
    struct row row = {.amount = (__int128)quantity * price};

    if (quantity == 0)
        return;
    row.dim[D_WORKSPACE] = of->dim[D_WORKSPACE];
    row.dim[D_LINE] = (uint8_t)line;
    if (lines[line].token_type) {
        row.dim[D_LINE] = (uint8_t)(line + 16 * of->dim[D_MODEL]);
        row.dim[D_MODEL] = of->dim[D_MODEL];
        row.dim[D_TIER] = of->dim[D_TIER] == TIER_BATCH ? TIER_BATCH : TIER_STANDARD;
        row.dim[D_WINDOW] = of->dim[D_WINDOW];
        row.dim[D_GEO] = of->dim[D_GEO];
    }
    merge(out, &inner, &row);
}

static void price_messages(const struct row *of, struct rows *out)
{
    const struct model *m = &models[of->dim[D_MODEL] - 1];
    /* twentieths of the list price: half for batch, 11/10 in the US, twice in the long context */
    int64_t share = (of->dim[D_TIER] == TIER_BATCH ? INT64_C(1) : 2) *
                    (of->dim[D_GEO] == GEO_US ? 11 : 10) * (of->dim[D_WINDOW] == 2 ? 2 : 1);
    int64_t input = m->input / 20 * share, output = m->output / 20 * share;
    const int64_t *p = of->part;

    add_cost(out, of, L_WEB_SEARCH, p[P_UNITS], INT64_C(10000000000000));
    if (of->dim[D_TIER] == TIER_PRIORITY)
        return; /* is billed elsewhere */
    add_cost(out, of, L_INPUT, p[P_TEXT], input);
    add_cost(out, of, L_OUTPUT, p[P_OUT_TEXT], output);
    add_cost(out, of, L_CACHE_READ, p[P_CACHED_TEXT], input / 10);
    add_cost(out, of, L_CACHE_5M, p[P_CACHE_WRITE], input / 4 * 5);
    add_cost(out, of, L_CACHE_1H, p[P_CACHE_WRITE_1H], input * 2);
}

static void add_line(struct rows *out, const struct view *view, enum line line, uint8_t workspace,
                     __int128 amount)
{
    struct row row = {.amount = amount};

    row.dim[D_LINE] = (uint8_t)line;
    row.dim[D_WORKSPACE] = workspace;
    merge(out, view, &row);
}

/* Money that no messages row explains. */
static void add_special_costs(const struct ledger *l, uint32_t account, int64_t day,
                              struct rows *out)
{
    uint64_t r = roll(trait(l, account, 9), (uint64_t)day);

    if (day < l->history_from)
        return;
    if (roll(r, 1) % 9 == 0)
        add_line(out, &inner, L_CREDIT, 0,
                 -(__int128)between(roll(r, 2), 1, 5000) * INT64_C(10000000000000));
    if (roll(r, 3) % 3 == 0)
        add_line(out, &inner, L_ADJUSTMENT, 1,
                 (__int128)account * INT64_C(1000000000000000) +
                     (__int128)(roll(r, 5) % UINT64_C(1000000000000000)));
    if (roll(r, 6) % 3 == 0)
        add_line(out, &inner, L_CODE_EXECUTION, 0,
                 (__int128)between(roll(r, 7), 1, 99) * INT64_C(50000000000000));
    if (roll(r, 8) % 8 == 0)
        add_line(out, &inner, L_SESSION, 1,
                 (__int128)between(roll(r, 9), 1, 9999) * INT64_C(1333333333333));
}

void add_cost_report(const struct ledger *l, uint32_t account, struct span span,
                     const struct view *view, struct rows *out)
{
    /* a restated usage hour leaves the bill alone until that is restated too */
    static const struct view split = {.group_by = BIT(WORKSPACE) | BIT(MODEL) | BIT(TIER) |
                                                  BIT(WINDOW) | BIT(GEO),
                                      .as_first_reported = true};
    int64_t day = span.from - span.from % DAY;
    const struct restatement *s = restated(l, account, COST_REPORT, day);
    struct rows usage = {0}, bill = {0};

    add_usage(l, account, MESSAGES, span, &split, &usage);
    for (size_t i = 0; i < usage.n; i++)
        price_messages(&usage.at[i], &bill);
    add_special_costs(l, account, day, &bill);
    for (size_t i = 0; i < bill.n; i++)
        if (restate_row(s, account, COST_REPORT, day, (int)i, &bill.at[i]))
            merge(out, view, &bill.at[i]);
    for (; s; s = s->next)
        if (s->op == RESTATE_ADD && restates(s, account, COST_REPORT, day))
            add_line(out, view, L_LATE, 1, s->amount);
    free(usage.at);
    free(bill.at);
}

const char *ledger_cost_type(uint8_t line)
{
    return lines[line % 16].cost_type;
}

const char *ledger_token_type(uint8_t line)
{
    return lines[line % 16].token_type;
}

/* --- texts --- */

static void id_text(const struct ledger *l, uint32_t account, enum dim d, uint8_t value,
                    const char *prefix, char *out)
{
    static const char digits[] = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
    uint64_t id = trait(l, account, T_IDS + (uint64_t)d * 256 + value);
    size_t n = strlen(prefix);

    memcpy(out, prefix, n);
    for (int i = 0; i < 20; i++) {
        id = ledger_mix(id);
        out[n++] = digits[id % (sizeof digits - 1)];
    }
    out[n] = '\0';
}

bool anthropic_dim_text(const struct ledger *l, uint32_t account, enum dim d, uint8_t value,
                        char *out)
{
    static const char *const prefix[N_DIMS] = {[D_WORKSPACE] = "wrkspc_01",
                                               [D_ACCOUNT] = "user_01",
                                               [D_KEY] = "apikey_01",
                                               [D_SERVICE_ACCOUNT] = "svac_01"};
    const char *text = NULL;

    if (prefix[d]) {
        id_text(l, account, d, value, prefix[d], out);
        return true;
    }
    if (d == D_MODEL)
        text = models[value - 1].name;
    else if (d == D_TIER)
        text = tiers[value - 1];
    else if (d == D_WINDOW)
        text = windows[value - 1];
    else if (d == D_GEO)
        text = geos[value - 1];
    else if (d == D_SPEED)
        text = speeds[value - 1];
    else if (d == D_LINE)
        text = lines[value % 16].text;
    if (d == D_LINE && value >= 16) {
        (void)snprintf(out, 80, "%s Usage - %s", models[value / 16 - 1].title, text);
        return true;
    }
    (void)snprintf(out, 80, "%s", text ? text : "");
    return text;
}

/* --- Claude Code --- */

const char *const code_tools[CODE_TOOLS] = {"edit_tool", "multi_edit_tool", "notebook_edit_tool",
                                            "write_tool"};

/* An address like ada.lovelace3@corp.example; on some days written with capitals. */
static void write_email(uint64_t person, bool capitals, char *out, size_t size)
{
    static const char *const first[] = {"ada",  "alan",  "barbara", "edsger", "frances",  "grace",
                                        "john", "karen", "ken",     "leslie", "margaret", "tony"};
    static const char *const last[] = {"allen",   "dijkstra", "hamilton", "hoare", "hopper",
                                       "lamport", "liskov",   "lovelace", "turing"};
    char number[24] = "";

    if (person >= 108)
        (void)snprintf(number, sizeof number, "%llu", (unsigned long long)(person / 108));
    (void)snprintf(out, size, "%s.%s%s@corp.example", first[person % 12], last[person / 12 % 9],
                   number);
    if (!capitals)
        return;
    out[0] = (char)toupper(out[0]);
    strchr(out, '.')[1] = (char)toupper(strchr(out, '.')[1]);
    if (person % 2)
        for (char *p = strchr(out, '@'); *p; p++)
            *p = (char)toupper(*p);
}

/* How many records a day has. */
static size_t code_day_len(const struct ledger *l, uint32_t account, int64_t day)
{
    uint64_t r = roll(trait(l, account, 10), (uint64_t)day);
    uint32_t index = ledger_index(l, account);
    bool certain = index % 3 == 0;

    if (day < l->history_from)
        return 0;
    if (index % 8 == 2 && day / DAY % 5 == 0) /* more than one answer holds at the largest limit */
        return (size_t)between(r, 1200, 2600);
    if (!certain && trait(l, account, T_USES + CLAUDE_CODE) % 4 == 0)
        return 0;
    return (size_t)between(r, certain, l->small ? 6 : 45);
}

static void scale_code(struct code_record *c, int64_t num, int64_t den)
{
    int64_t *counts[] = {&c->sessions, &c->added, &c->removed, &c->commits, &c->pull_requests};

    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        *counts[i] = (int64_t)((__int128)*counts[i] * num / den);
    for (size_t t = 0; t < CODE_TOOLS; t++)
        for (size_t i = 0; i < 2 && c->tools[t][0] >= 0; i++)
            c->tools[t][i] = (int64_t)((__int128)c->tools[t][i] * num / den);
    for (size_t m = 0; m < c->n_models; m++) {
        for (size_t i = 0; i < N_CODE_TOKENS; i++)
            c->models[m].tokens[i] = (int64_t)((__int128)c->models[m].tokens[i] * num / den);
        c->models[m].cost = c->models[m].cost * num / den;
    }
}

static void fill_code_models(const struct ledger *l, uint32_t account, uint64_t r,
                             struct code_record *c)
{
    int64_t volume = account_volume(l, account);

    c->n_models = roll(r, 20) % 9 == 0 ? 0 : 1 + roll(r, 20) % CODE_MODELS;
    for (size_t i = 0; i < c->n_models; i++) {
        const struct model *m = &models[i];
        uint64_t q = roll(r, 30 + i);
        int64_t *t = c->models[i].tokens;

        c->models[i].name = m->name;
        t[CODE_INPUT] = between(roll(q, 1), 1, 90000) * volume;
        t[CODE_OUTPUT] = between(roll(q, 2), 1, 40000) * volume;
        t[CODE_CACHE_READ] = roll(q, 3) % 5 ? between(roll(q, 3), 1, 900000) * volume : 0;
        t[CODE_CACHE_CREATION] = roll(q, 4) % 5 ? between(roll(q, 4), 1, 60000) * volume : 0;
        c->models[i].cost = (__int128)t[CODE_INPUT] * m->input +
                            (__int128)t[CODE_OUTPUT] * m->output +
                            (__int128)t[CODE_CACHE_READ] * m->input / 10 +
                            (__int128)t[CODE_CACHE_CREATION] * m->input * 5 / 4;
        if (roll(q, 5) % 6 == 0) /* with more digits than a double has, or nearly nothing */
            c->models[i].cost =
                (__int128)(roll(q, 6) % UINT64_C(9000000000000000)) >> (roll(q, 7) % 2 ? 0 : 30);
    }
}

/* Record number n of the day. Three records in a row are one actor's, at three terminals. */
static void fill_code_record(const struct ledger *l, uint32_t account, int64_t day, uint64_t n,
                             struct code_record *c)
{
    static const char *const terminals[] = {"vscode", "iTerm.app", "tmux", "Apple_Terminal",
                                            "unknown"};
    static const char *const subscriptions[] = {"enterprise", "team"};
    uint64_t r = roll(roll(trait(l, account, 11), (uint64_t)day), n);
    uint64_t actor = n / 3, habit = trait(l, account, 4000 + actor);

    *c = (struct code_record){.api_actor = habit % 7 == 3};
    if (c->api_actor)
        (void)snprintf(c->actor, sizeof c->actor, "ci key %llu", (unsigned long long)actor);
    else
        write_email(actor, roll(r, 1) % 3 == 0, c->actor, sizeof c->actor);
    if (!c->api_actor && habit % 3 != 0)
        c->subscription = subscriptions[habit % 2];
    c->terminal = terminals[(n % 3 + actor + (uint64_t)(day / DAY)) % 5];
    c->sessions = between(roll(r, 2), 1, 30);
    c->added = between(roll(r, 3), 0, 5000);
    c->removed = between(roll(r, 4), 0, 2000);
    c->commits = between(roll(r, 5), 0, 12);
    c->pull_requests = between(roll(r, 6), 0, 3);
    for (size_t t = 0; t < CODE_TOOLS; t++) {
        bool listed = roll(r, 10 + t) % 5 != 0;

        c->tools[t][0] = listed ? between(roll(r, 14 + t), 0, 400) : -1;
        c->tools[t][1] = listed ? between(roll(r, 18 + t), 0, 40) : -1;
    }
    fill_code_models(l, account, r, c);
}

/* Cuts the record down to what is known of it now: its work takes an hour to four, and is reported
 * up to an hour late. False: nothing yet. */
static bool cut_code_record(uint64_t r, int64_t begin, int64_t now, struct code_record *c)
{
    int64_t length = between(roll(r, 51), 1, 4), left = (DAY - begin % DAY) / HOUR;
    int64_t seen = now - between(roll(r, 52), 0, 60) * 60 - begin;

    if (length > left)
        length = left;
    if (seen <= 0)
        return false;
    if (seen < length * HOUR)
        scale_code(c, seen, length * HOUR);
    return true;
}

/* Applies the restatements of the day to record number n. False: it has vanished. */
static bool restate_code(const struct restatement *s, uint32_t account, int64_t day, int n,
                         struct code_record *c)
{
    for (; s; s = s->next) {
        if (!restates(s, account, CLAUDE_CODE, day) || (s->row >= 0 && s->row != n))
            continue;
        if (s->op == RESTATE_VANISH)
            return false;
        if (s->op == RESTATE_CHANGE)
            scale_code(c, s->percent, 100);
    }
    return true;
}

static void add_code_record(struct code_records *out, const struct code_record *c)
{
    if (out->n == out->cap) {
        out->cap = out->cap ? out->cap * 2 : 64;
        out->at = xrealloc(out->at, out->cap * sizeof *out->at);
    }
    out->at[out->n++] = *c;
}

void ledger_code_day(const struct ledger *l, uint32_t account, int64_t day, int64_t now,
                     struct code_records *out)
{
    const struct restatement *s = restated(l, account, CLAUDE_CODE, day);
    uint64_t r = roll(trait(l, account, 12), (uint64_t)day);
    size_t n = code_day_len(l, account, day);
    struct code_record c;

    out->n = 0;
    for (size_t i = 0; i < n; i++) {
        /* the first begins at midnight, so that a test finds one whatever the time of day */
        int64_t begin = i == 0 ? day : day + between(roll(r, i + 5000), 0, 23) * HOUR;

        fill_code_record(l, account, day, i, &c);
        if (cut_code_record(roll(r, i), begin, now, &c) &&
            restate_code(s, account, day, (int)i, &c))
            add_code_record(out, &c);
    }
    for (; s; s = s->next) {
        if (s->op != RESTATE_ADD || !restates(s, account, CLAUDE_CODE, day))
            continue;
        fill_code_record(l, account, day, 30000 + s->serial * 3, &c);
        add_code_record(out, &c);
    }
}
