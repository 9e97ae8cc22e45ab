#include "tests/sim/ledger_inner.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WHO (BIT(PROJECT) | BIT(USER) | BIT(KEY))

const struct feed_info feed_infos[N_FEEDS] = {
    [COMPLETIONS] = {"completions", "organization.usage.completions.result",
                     WHO | BIT(MODEL) | BIT(BATCH) | BIT(TIER), NULL, NULL, true, true, false},
    [EMBEDDINGS] = {"embeddings", "organization.usage.embeddings.result", WHO | BIT(MODEL), NULL,
                    NULL, true, true, false},
    [MODERATIONS] = {"moderations", "organization.usage.moderations.result", WHO | BIT(MODEL), NULL,
                     NULL, true, true, false},
    [IMAGES] = {"images", "organization.usage.images.result",
                WHO | BIT(MODEL) | BIT(SIZE) | BIT(SOURCE), "images", "images", false, true, false},
    [AUDIO_SPEECHES] = {"audio_speeches", "organization.usage.audio_speeches.result",
                        WHO | BIT(MODEL), "characters", "characters", false, true, false},
    [AUDIO_TRANSCRIPTIONS] = {"audio_transcriptions",
                              "organization.usage.audio_transcriptions.result", WHO | BIT(MODEL),
                              "seconds", "seconds", false, true, false},
    [VECTOR_STORES] = {"vector_stores", "organization.usage.vector_stores.result", BIT(PROJECT),
                       "usage_bytes", "bytes", false, false, false},
    [CODE_INTERPRETER_SESSIONS] = {"code_interpreter_sessions",
                                   "organization.usage.code_interpreter_sessions.result",
                                   BIT(PROJECT), "num_sessions", "sessions", false, false, false},
    [FILE_SEARCH_CALLS] = {"file_search_calls", "organization.usage.file_searches.result",
                           WHO | BIT(STORE), "num_requests", "calls", false, false, false},
    [WEB_SEARCH_CALLS] = {"web_search_calls", "organization.usage.web_searches.result",
                          WHO | BIT(MODEL) | BIT(LEVEL), "num_requests", "calls", false, true,
                          false},
    [COSTS] = {"costs", "organization.costs.result", BIT(PROJECT) | BIT(LINE) | BIT(KEY), NULL,
               NULL, false, false, true},
    [MESSAGES] = {"messages", NULL,
                  BIT(WORKSPACE) | BIT(ACCOUNT) | BIT(KEY) | BIT(MODEL) | BIT(TIER) |
                      BIT(SERVICE_ACCOUNT) | BIT(WINDOW) | BIT(GEO) | BIT(SPEED),
                  "server_tool_use.web_search_requests", "web_searches", true, false, false},
    [COST_REPORT] = {"cost_report", NULL,
                     BIT(WORKSPACE) | BIT(LINE) | BIT(MODEL) | BIT(TIER) | BIT(WINDOW) | BIT(GEO),
                     NULL, NULL, false, false, true},
    [CLAUDE_CODE] = {"claude_code", NULL, 0, NULL, NULL, false, false, true},
};

const char *const dim_names[N_DIMS] = {
    "project_id",
    "user_id",
    "api_key_id",
    "model",
    "batch",
    "service_tier",
    "size",
    "source",
    "vector_store_id",
    "context_level",
    "line_item",
    "workspace_id",
    "account_id",
    "service_account_id",
    "context_window",
    "inference_geo",
    "speed",
};

const char *const provider_names[N_PROVIDERS] = {"openai", "anthropic"};

/* Prices in 1e-15 dollars: per token, or per unit for what is not counted in tokens. */
struct model {
    const char *name;
    int64_t input, cached, output, audio_in, audio_out, unit;
};

static const struct model models[] = {
    {"gpt-5-mini-2026-01-15", PER_MILLION(25), 25000000, PER_MILLION(200), 0, 0, 0},
    {"gpt-5-2025-08-07", PER_MILLION(125), 125000000, PER_MILLION(1000), 0, 0, 0},
    {"gpt-5-nano-2025-08-07", PER_MILLION(5), 5000000, PER_MILLION(40), 0, 0, 0},
    {"gpt-4o-2024-08-06", PER_MILLION(250), PER_MILLION(125), PER_MILLION(1000), 0, 0, 0},
    {"gpt-realtime-2025-08-28", PER_MILLION(400), PER_MILLION(40), PER_MILLION(1600),
     PER_MILLION(3200), PER_MILLION(6400), 0},
    {"text-embedding-3-small", PER_MILLION(2), 0, 0, 0, 0, 0},
    {"text-embedding-3-large", PER_MILLION(13), 0, 0, 0, 0, 0},
    {"omni-moderation-latest", 0, 0, 0, 0, 0, 0},
    {"gpt-image-1", 0, 0, 0, 0, 0, INT64_C(42000000000000)},
    {"dall-e-3", 0, 0, 0, 0, 0, INT64_C(40000000000000)},
    {"tts-1", 0, 0, 0, 0, 0, INT64_C(15000000000)},
    {"tts-1-hd", 0, 0, 0, 0, 0, INT64_C(30000000000)},
    {"whisper-1", 0, 0, 0, 0, 0, INT64_C(100000000000)},
    {"gpt-4o-transcribe", 0, 0, 0, 0, 0, INT64_C(100000000000)},
};
enum { N_MODELS = sizeof models / sizeof models[0], M_REALTIME = 4 };

static const struct {
    uint8_t first, n;
} feed_models[N_FEEDS] = {
    [COMPLETIONS] = {0, 5},      [EMBEDDINGS] = {5, 2},      [MODERATIONS] = {7, 1},
    [IMAGES] = {8, 2},           [AUDIO_SPEECHES] = {10, 2}, [AUDIO_TRANSCRIPTIONS] = {12, 2},
    [WEB_SEARCH_CALLS] = {0, 4},
};

static const char *const tiers[] = {"default", "flex", "priority"};
static const char *const sizes[] = {"256x256", "512x512", "1024x1024", "1792x1792", "1024x1792"};
static const char *const sources[] = {"image.generation", "image.edit", "image.variation"};
static const char *const levels[] = {"low", "medium", "high"};

/* A cost line is 1 + model * 16 + kind (+ 8 for batch work), or one of the lines without a model.
 */
enum line_kind { L_INPUT, L_CACHED, L_OUTPUT, L_AUDIO_IN, L_AUDIO_OUT, L_UNITS, N_LINE_KINDS };
enum line_special {
    L_WEB_SEARCH = 240,
    L_FILE_SEARCH,
    L_SESSIONS,
    L_STORAGE,
    L_CREDIT,
    L_ADJUSTMENT,
    L_LATE,
};
static const char *const special_lines[] = {
    "web search tool calls", "file search tool calls", "code interpreter sessions",
    "vector store storage",  "credit grant",           "rounding adjustment, \"fx\"",
    "late adjustment",
};

uint64_t ledger_mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

uint64_t roll(uint64_t base, uint64_t what)
{
    return ledger_mix(base ^ (what * UINT64_C(0xd1342543de82ef95)));
}

/* A number that belongs to the account for good: how many projects, which feeds it uses. */
uint64_t trait(const struct ledger *l, uint32_t account, uint64_t what)
{
    return roll(roll(l->seed, 1000 + (uint64_t)account), what);
}

enum provider_id ledger_provider(const struct ledger *l, uint32_t account)
{
    return account >= l->first_anthropic ? ANTHROPIC : OPENAI;
}

enum provider_id feed_provider(enum feed_id feed)
{
    return feed >= MESSAGES ? ANTHROPIC : OPENAI;
}

uint32_t ledger_index(const struct ledger *l, uint32_t account)
{
    return account >= l->first_anthropic ? account - l->first_anthropic : account;
}

bool ledger_is_terse(const struct ledger *l, uint32_t account)
{
    return ledger_index(l, account) % 5 == 4;
}

/* Every third account works round the clock: in these feeds each of its hours has a row, so that a
 * test finds something whatever the time of day. */
static bool is_certain(const struct ledger *l, uint32_t account, enum feed_id feed)
{
    return ledger_index(l, account) % 3 == 0 &&
           (feed == COMPLETIONS || feed == EMBEDDINGS || feed == MESSAGES);
}

static bool uses_feed(const struct ledger *l, uint32_t account, enum feed_id feed)
{
    return is_certain(l, account, feed) || trait(l, account, T_USES + (uint64_t)feed) % 100 <
                                               (feed == COMPLETIONS || feed == MESSAGES ? 97 : 70);
}

/* How busy an hour of the account's own clock is, in percent: nights and weekends are quiet. */
static uint64_t busyness(int64_t local)
{
    static const uint8_t by_hour[24] = {5,  3,  2,  0,  0,  4,  15, 40, 70, 90, 95, 90,
                                        80, 90, 95, 95, 85, 70, 50, 40, 30, 20, 15, 10};
    int64_t day = local / DAY;
    uint64_t busy = by_hour[(local / HOUR) % 24];

    return (day + 4) % 7 == 0 || (day + 4) % 7 == 6 ? busy / 4 : busy; /* 1970-01-01: Thursday */
}

int64_t between(uint64_t r, int64_t low, int64_t high)
{
    return low + (int64_t)(r % (uint64_t)(high - low + 1));
}

int64_t account_volume(const struct ledger *l, uint32_t account)
{
    /* one account in 16 counts in thousands of millions, beyond 32 bits */
    return ledger_index(l, account) % 16 == 1 ? 60000 : between(trait(l, account, T_VOLUME), 1, 12);
}

static void fill_dims(const struct ledger *l, uint32_t account, enum feed_id feed, uint64_t r,
                      struct row *row)
{
    unsigned has = feed_infos[feed].dims;
    uint64_t n_projects = 1 + trait(l, account, T_PROJECTS) % 5;
    uint64_t key = roll(r, 1) % (n_projects + trait(l, account, T_KEYS) % 3);

    row->dim[D_PROJECT] = (uint8_t)(1 + key % n_projects);
    if (has & BIT(KEY) && roll(r, 2) % 12 != 0) /* else: the playground, which has no key */
        row->dim[D_KEY] = (uint8_t)(1 + key);
    if (has & BIT(USER) && roll(r, 3) % 6 != 0) /* else: a service account */
        row->dim[D_USER] = (uint8_t)(1 + (key + roll(r, 4) % 2) % 6);
    if (has & BIT(MODEL))
        row->dim[D_MODEL] =
            (uint8_t)(1 + feed_models[feed].first + roll(r, 5) % feed_models[feed].n);
    if (has & BIT(BATCH))
        row->dim[D_BATCH] = (uint8_t)(1 + (roll(r, 6) % 8 == 0));
    if (has & BIT(TIER) && roll(r, 7) % 10 != 0)
        row->dim[D_TIER] = (uint8_t)(1 + (roll(r, 7) % 5 == 1) + (roll(r, 7) % 35 == 1));
    if (has & BIT(SIZE))
        row->dim[D_SIZE] = (uint8_t)(1 + roll(r, 8) % 5);
    if (has & BIT(SOURCE))
        row->dim[D_SOURCE] = (uint8_t)(1 + roll(r, 9) % 3);
    if (has & BIT(STORE) && roll(r, 10) % 10 != 0)
        row->dim[D_STORE] = (uint8_t)(1 + roll(r, 10) % 4);
    if (has & BIT(LEVEL))
        row->dim[D_LEVEL] = (uint8_t)(1 + roll(r, 11) % 3);
}

static void fill_tokens(enum feed_id feed, uint64_t r, int64_t volume, struct row *row)
{
    int64_t input = between(roll(r, 20), 200, 90000) * volume;

    row->part[P_REQUESTS] = between(roll(r, 21), 1, 400);
    if (feed != COMPLETIONS) {
        row->part[P_TEXT] = input;
        return;
    }
    row->part[P_CACHED_TEXT] = input / 1000 * between(roll(r, 22), 0, 600);
    row->part[P_CACHE_WRITE] = roll(r, 23) % 3 == 0 ? input / 100 * between(roll(r, 23), 1, 20) : 0;
    row->part[P_TEXT] = input - row->part[P_CACHED_TEXT] - row->part[P_CACHE_WRITE];
    row->part[P_OUT_TEXT] = between(roll(r, 24), 20, 30000) * volume;
    if (row->dim[D_MODEL] == 1 + M_REALTIME) {
        row->part[P_AUDIO] = between(roll(r, 25), 0, 9000) * volume;
        row->part[P_CACHED_AUDIO] = between(roll(r, 26), 0, 900);
        row->part[P_OUT_AUDIO] = between(roll(r, 27), 1, 7000) * volume;
    }
    if (roll(r, 28) % 4 == 0) {
        row->part[P_IMAGE] = between(roll(r, 29), 1, 4000);
        row->part[P_CACHED_IMAGE] = between(roll(r, 30), 0, 500);
        row->part[P_OUT_IMAGE] = between(roll(r, 31), 0, 800);
    }
}

static void fill_parts(const struct ledger *l, uint32_t account, enum feed_id feed, uint64_t r,
                       struct row *row)
{
    static const int64_t unit_max[N_FEEDS] = {
        [IMAGES] = 60,
        [AUDIO_SPEECHES] = 90000,
        [AUDIO_TRANSCRIPTIONS] = 40000,
        [VECTOR_STORES] = INT64_C(8796093022208),
        [CODE_INTERPRETER_SESSIONS] = 40,
        [FILE_SEARCH_CALLS] = 900,
        [WEB_SEARCH_CALLS] = 500,
    };
    int64_t volume = account_volume(l, account);

    if (feed_infos[feed].tokens) {
        fill_tokens(feed, r, volume, row);
        return;
    }
    row->part[P_UNITS] = between(roll(r, 40), 1, unit_max[feed] ? unit_max[feed] : 1);
    if (feed_infos[feed].requests)
        row->part[P_REQUESTS] = between(roll(r, 41), 1, 300);
}

/* Share of the hour's total that lies before minute m, in 1/960: even, with a jitter. */
static int64_t share_before(uint64_t r, int64_t m)
{
    if (m <= 0)
        return 0;
    return m >= 60 ? 960 : m * 16 + (int64_t)(roll(r, 100 + (uint64_t)m) % 16);
}

/* What lies in minutes [m, n) of the hour. */
static int64_t part_between(uint64_t r, int64_t total, int64_t m, int64_t n)
{
    return (int64_t)((__int128)total * share_before(r, n) / 960 -
                     (__int128)total * share_before(r, m) / 960);
}

/* Cuts the hour's totals down to the span, as the clock lets them be seen. False: nothing left. */
static bool cut_to_span(const struct ledger *l, uint64_t r, int64_t hour, struct span span,
                        struct row *row)
{
    int64_t m = span.from > hour ? (span.from - hour) / 60 : 0;
    int64_t n = span.to < hour + HOUR ? (span.to - hour + 59) / 60 : 60;
    bool settled = hour + n * 60 + l->settle_s <= span.now;
    int64_t any = 0;

    for (int p = 0; p < N_PARTS; p++) {
        int64_t total = row->part[p], sum = 0;

        if (total == 0)
            continue;
        for (int64_t i = m; i < n && !settled; i++) {
            int64_t age = span.now - (hour + i * 60), full = 60 + l->settle_s;

            if (age <= 0)
                break;
            sum += (int64_t)((__int128)part_between(r, total, i, i + 1) *
                             (age < full ? age : full) / full);
        }
        row->part[p] = settled ? part_between(r, total, m, n) : sum;
        any |= row->part[p];
    }
    return any != 0;
}

void merge(struct rows *out, const struct view *view, struct row *row)
{
    if (view->keep && !view->keep(view->ctx, row))
        return;
    for (unsigned d = 0; d < N_DIMS; d++)
        if (!(view->group_by & DIM_BIT(d)))
            row->dim[d] = 0;
    for (size_t i = 0; i < out->n; i++) {
        struct row *to = &out->at[i];

        if (memcmp(to->dim, row->dim, sizeof to->dim) != 0)
            continue;
        for (int p = 0; p < N_PARTS; p++)
            to->part[p] += row->part[p];
        to->amount += row->amount;
        to->quantity += row->quantity;
        return;
    }
    if (out->n == out->cap) {
        out->cap = out->cap ? out->cap * 2 : 64;
        out->at = xrealloc(out->at, out->cap * sizeof *out->at);
    }
    out->at[out->n++] = *row;
}

const struct restatement *restated(const struct ledger *l, uint32_t account, enum feed_id feed,
                                   int64_t bucket)
{
    return l->n_restated
               ? l->restated[(account * 31U + (unsigned)feed * 7U + (unsigned)(bucket / HOUR)) %
                             4096]
               : NULL;
}

bool restates(const struct restatement *s, uint32_t account, enum feed_id feed, int64_t bucket)
{
    return s->account == account && s->feed == feed && s->bucket == bucket;
}

/* Applies the restatements of this bucket to row number n. False: the row has vanished. */
bool restate_row(const struct restatement *s, uint32_t account, enum feed_id feed, int64_t bucket,
                 int n, struct row *row)
{
    for (; s; s = s->next) {
        if (!restates(s, account, feed, bucket) || (s->row >= 0 && s->row != n))
            continue;
        if (s->op == RESTATE_VANISH)
            return false;
        if (s->op == RESTATE_CHANGE) {
            for (int p = 0; p < N_PARTS; p++)
                row->part[p] = (int64_t)((__int128)row->part[p] * s->percent / 100);
            row->amount = row->amount * s->percent / 100;
            row->quantity = row->quantity * s->percent / 100;
        }
    }
    return true;
}

/* What one hour of one feed is made of. */
struct hour {
    const struct ledger *l;
    uint32_t account;
    enum feed_id feed;
    bool used, certain; /* the account uses the feed; each hour has a row */
    int64_t zone;       /* seconds that the account's clock is ahead */
    uint64_t base, row_base;
    int64_t at;
    const struct restatement *restated; /* NULL: as first reported */
};

static void add_row(const struct hour *h, uint64_t number, struct span span,
                    const struct view *view, struct rows *out)
{
    uint64_t r = roll(h->row_base, (uint64_t)h->at * 64 + number);
    struct row row = {0};

    if (h->feed == MESSAGES) {
        fill_messages(h->l, h->account, r, &row);
    } else {
        fill_dims(h->l, h->account, h->feed, r, &row);
        fill_parts(h->l, h->account, h->feed, r, &row);
    }
    if (number < 64 && !restate_row(h->restated, h->account, h->feed, h->at, (int)number, &row))
        return;
    if (cut_to_span(h->l, r, h->at, span, &row))
        merge(out, view, &row);
}

static void add_hour(const struct hour *h, struct span span, const struct view *view,
                     struct rows *out)
{
    static const uint8_t chance[2][4] = {{100, 60, 30, 10}, {25, 5, 0, 0}};
    uint64_t busy = busyness(h->at + h->zone) *
                    (h->feed == COMPLETIONS || h->feed == MESSAGES ? 100 : 40) / 100;
    uint64_t r = roll(h->base, (uint64_t)h->at);

    for (uint64_t n = 0; h->used && h->at >= h->l->history_from && n < 4; n++)
        if ((n == 0 && h->certain) || roll(r, n) % 10000 < busy * chance[h->l->small][n])
            add_row(h, n, span, view, out);
    for (const struct restatement *s = h->restated; s; s = s->next)
        if (s->op == RESTATE_ADD && restates(s, h->account, h->feed, h->at))
            add_row(h, 1000 + s->serial, span, view, out);
}

/* --- costs --- */

static uint8_t model_line(uint8_t model, enum line_kind kind, bool batch)
{
    return (uint8_t)(1 + (model - 1) * 16 + (int)kind + (batch ? 8 : 0));
}

static void add_cost(struct rows *out, const struct view *view, const struct row *of, uint8_t line,
                     int64_t quantity, int64_t price)
{
    struct row row = {0};

    if (quantity == 0 || price == 0)
        return;
    row.dim[D_PROJECT] = of->dim[D_PROJECT];
    row.dim[D_KEY] = of->dim[D_KEY];
    row.dim[D_LINE] = line;
    row.has_quantity = true;
    row.amount = (__int128)quantity * price;
    row.quantity = (__int128)quantity * 1000000;
    if (line == L_STORAGE) { /* bytes held for an hour -> GiB hours, cut to six places */
        row.quantity = (row.quantity) >> 30;
        row.amount = row.quantity * price;
    }
    merge(out, view, &row);
}

static void price_row(enum feed_id feed, const struct row *of, const struct view *view,
                      struct rows *out)
{
    uint8_t m = of->dim[D_MODEL];
    bool batch = of->dim[D_BATCH] == 2;
    int64_t half = batch ? 2 : 1;
    const int64_t *p = of->part;

    if (feed == WEB_SEARCH_CALLS) {
        add_cost(out, view, of, L_WEB_SEARCH, p[P_UNITS], INT64_C(10000000000000));
    } else if (feed == FILE_SEARCH_CALLS) {
        add_cost(out, view, of, L_FILE_SEARCH, p[P_UNITS], INT64_C(2500000000000));
    } else if (feed == CODE_INTERPRETER_SESSIONS) {
        add_cost(out, view, of, L_SESSIONS, p[P_UNITS], INT64_C(30000000000000));
    } else if (feed == VECTOR_STORES) {
        add_cost(out, view, of, L_STORAGE, p[P_UNITS], INT64_C(4167000)); /* per 1e-6 GiB hours */
    } else if (m) {
        const struct model *model = &models[m - 1];

        add_cost(out, view, of, model_line(m, L_INPUT, batch),
                 p[P_TEXT] + p[P_IMAGE] + p[P_CACHE_WRITE], model->input / half);
        add_cost(out, view, of, model_line(m, L_CACHED, batch),
                 p[P_CACHED_TEXT] + p[P_CACHED_AUDIO] + p[P_CACHED_IMAGE], model->cached / half);
        add_cost(out, view, of, model_line(m, L_OUTPUT, batch), p[P_OUT_TEXT] + p[P_OUT_IMAGE],
                 model->output / half);
        add_cost(out, view, of, model_line(m, L_AUDIO_IN, batch), p[P_AUDIO],
                 model->audio_in / half);
        add_cost(out, view, of, model_line(m, L_AUDIO_OUT, batch), p[P_OUT_AUDIO],
                 model->audio_out / half);
        add_cost(out, view, of, model_line(m, L_UNITS, false), p[P_UNITS], model->unit);
    }
}

static void add_line(struct rows *out, const struct view *view, enum line_special line,
                     uint8_t project, __int128 amount)
{
    struct row row = {.amount = amount};

    row.dim[D_LINE] = (uint8_t)line;
    row.dim[D_PROJECT] = project;
    merge(out, view, &row);
}

/* Money that no usage row explains: credits, and adjustments with more digits than a double has. */
static void add_special_costs(const struct ledger *l, uint32_t account, int64_t day,
                              const struct view *view, struct rows *out)
{
    uint64_t r = roll(trait(l, account, 9), (uint64_t)day);

    if (day < l->history_from)
        return;
    if (roll(r, 1) % 12 == 0)
        add_line(out, view, L_CREDIT, 0,
                 -(__int128)between(roll(r, 2), 1, 5000) * INT64_C(10000000000000));
    if (roll(r, 3) % 6 == 0)
        add_line(out, view, L_ADJUSTMENT, 1,
                 roll(r, 4) % 3 == 0 ? (__int128)between(roll(r, 5), 1, 9) * 100000000
                                     : (__int128)account * INT64_C(1000000000000000) +
                                           (__int128)(roll(r, 5) % UINT64_C(1000000000000000)));
}

void add_usage(const struct ledger *l, uint32_t account, enum feed_id feed, struct span span,
               const struct view *view, struct rows *out)
{
    struct hour h = {
        .l = l,
        .account = account,
        .feed = feed,
        .used = uses_feed(l, account, feed),
        .certain = is_certain(l, account, feed),
        .zone = (int64_t)(trait(l, account, T_ZONE) % 24) * HOUR,
        .base = trait(l, account, 8 + (uint64_t)feed * 100),
        .row_base = roll(trait(l, account, 7), (uint64_t)feed + 1),
    };

    for (h.at = span.from - span.from % HOUR; h.at < span.to; h.at += HOUR) {
        h.restated = view->as_first_reported ? NULL : restated(l, account, feed, h.at);
        add_hour(&h, span, view, out);
    }
}

/* The costs of [from, to), which lies within one day. */
static void add_day_costs(const struct ledger *l, uint32_t account, struct span span,
                          const struct view *view, struct rows *out)
{
    /* a restated usage hour leaves the bill alone until that is restated too */
    static const struct view split = {.group_by = BIT(PROJECT) | BIT(KEY) | BIT(MODEL) | BIT(BATCH),
                                      .as_first_reported = true};
    int64_t day = span.from - span.from % DAY;
    const struct restatement *s = restated(l, account, COSTS, day);
    const struct view inner = {.group_by = ALL_DIMS};
    struct rows usage = {0}, lines = {0};

    for (int feed = 0; feed < COSTS; feed++) {
        usage.n = 0;
        add_usage(l, account, (enum feed_id)feed, span, &split, &usage);
        for (size_t i = 0; i < usage.n; i++)
            price_row((enum feed_id)feed, &usage.at[i], &inner, &lines);
    }
    if (span.from == day)
        add_special_costs(l, account, day, &inner, &lines);
    for (size_t i = 0; i < lines.n; i++)
        if (restate_row(s, account, COSTS, day, (int)i, &lines.at[i]))
            merge(out, view, &lines.at[i]);
    for (; s; s = s->next)
        if (s->op == RESTATE_ADD && restates(s, account, COSTS, day))
            add_line(out, view, L_LATE, 1, s->amount);
    free(usage.at);
    free(lines.at);
}

void ledger_read(const struct ledger *l, uint32_t account, enum feed_id feed, struct span span,
                 const struct view *view, struct rows *out)
{
    out->n = 0;
    if (span.to > span.now)
        span.to = span.now;
    if (!feed_infos[feed].daily) {
        add_usage(l, account, feed, span, view, out);
        return;
    }
    while (span.from < span.to) {
        int64_t next = span.from - span.from % DAY + DAY;
        struct span part = {span.from, next < span.to ? next : span.to, span.now};

        if (feed == COSTS)
            add_day_costs(l, account, part, view, out);
        else if (next <= span.now) /* Anthropic's bill has no rows for a day that is not over */
            add_cost_report(l, account, part, view, out);
        span.from = next;
    }
}

size_t ledger_measures(const struct ledger *l, uint32_t account, enum feed_id feed,
                       const struct row *row, struct measure out[MAX_MEASURES])
{
    const struct feed_info *f = &feed_infos[feed];
    const int64_t *p = row->part;
    int64_t uncached = p[P_TEXT] + p[P_AUDIO] + p[P_IMAGE];
    int64_t cached = p[P_CACHED_TEXT] + p[P_CACHED_AUDIO] + p[P_CACHED_IMAGE];
    size_t n = 0;

    if (f->tokens)
        out[n++] = (struct measure){"input_tokens", uncached + cached + p[P_CACHE_WRITE]};
    if (feed == COMPLETIONS) {
        out[n++] = (struct measure){"input_cached_tokens", cached};
        out[n++] =
            (struct measure){"output_tokens", p[P_OUT_TEXT] + p[P_OUT_AUDIO] + p[P_OUT_IMAGE]};
        out[n++] = (struct measure){"input_audio_tokens", p[P_AUDIO]};
        out[n++] = (struct measure){"output_audio_tokens", p[P_OUT_AUDIO]};
    }
    if (feed == COMPLETIONS && !ledger_is_terse(l, account)) {
        out[n++] = (struct measure){"input_cache_write_tokens", p[P_CACHE_WRITE]};
        out[n++] = (struct measure){"input_uncached_tokens", uncached};
        out[n++] = (struct measure){"input_text_tokens", p[P_TEXT]};
        out[n++] = (struct measure){"output_text_tokens", p[P_OUT_TEXT]};
        out[n++] = (struct measure){"input_cached_text_tokens", p[P_CACHED_TEXT]};
        out[n++] = (struct measure){"input_cached_audio_tokens", p[P_CACHED_AUDIO]};
        out[n++] = (struct measure){"input_image_tokens", p[P_IMAGE]};
        out[n++] = (struct measure){"input_cached_image_tokens", p[P_CACHED_IMAGE]};
        out[n++] = (struct measure){"output_image_tokens", p[P_OUT_IMAGE]};
    }
    if (f->unit_field)
        out[n++] = (struct measure){f->unit_field, p[P_UNITS]};
    if (f->requests)
        out[n++] = (struct measure){"num_model_requests", p[P_REQUESTS]};
    return n;
}

static const char *line_text(uint8_t line, char *out)
{
    static const char *const kinds[2][8] = {
        {"input", "cached input", "output", "audio input", "audio output", "usage", "", ""},
        {"batch input", "batch cached input", "batch output", "batch audio input",
         "batch audio output", "batch usage", "", ""},
    };

    if (line >= L_WEB_SEARCH)
        return special_lines[line - L_WEB_SEARCH];
    (void)snprintf(out, 80, "%s, %s", models[(line - 1) / 16].name,
                   kinds[(line - 1) % 16 / 8][(line - 1) % 8]);
    return out;
}

static void id_text(const struct ledger *l, uint32_t account, enum dim d, uint8_t value, char *out)
{
    static const char *const prefix[N_DIMS] = {
        [D_PROJECT] = "proj_", [D_USER] = "user-", [D_KEY] = "key_", [D_STORE] = "vs_"};
    static const char hex[] = "0123456789abcdef";
    uint64_t id = trait(l, account, T_IDS + (uint64_t)d * 256 + value);
    size_t n = strlen(prefix[d]);

    memcpy(out, prefix[d], n);
    for (int i = 0; i < 16; i++)
        out[n + (size_t)i] = hex[(id >> (i * 4)) & 15];
    out[n + 16] = '\0';
}

bool ledger_dim_text(const struct ledger *l, uint32_t account, enum dim d, uint8_t value, char *out)
{
    const char *text = NULL;

    if (value == 0)
        return false;
    if (ledger_provider(l, account) == ANTHROPIC)
        return anthropic_dim_text(l, account, d, value, out);
    switch (d) {
    case D_PROJECT:
    case D_USER:
    case D_KEY:
    case D_STORE:
        id_text(l, account, d, value, out);
        return true;
    case D_MODEL:
        text = models[value - 1].name;
        break;
    case D_BATCH:
        text = value == 2 ? "true" : "false";
        break;
    case D_TIER:
        text = tiers[value - 1];
        break;
    case D_SIZE:
        text = sizes[value - 1];
        break;
    case D_SOURCE:
        text = sources[value - 1];
        break;
    case D_LEVEL:
        text = levels[value - 1];
        break;
    case D_LINE:
        text = line_text(value, out);
        break;
    case D_WORKSPACE:
    case D_ACCOUNT:
    case D_SERVICE_ACCOUNT:
    case D_WINDOW:
    case D_GEO:
    case D_SPEED:
    case N_DIMS:
        return false;
    }
    if (text != out)
        memcpy(out, text, strlen(text) + 1);
    return true;
}

const char *ledger_line_unit(uint8_t line)
{
    if (line == L_STORAGE)
        return "gibibyte_hours";
    if (line >= L_WEB_SEARCH || line == 0)
        return NULL;
    if ((line - 1) % 8 != L_UNITS)
        return "tokens";

    int model = (line - 1) / 16;

    if (model < feed_models[AUDIO_SPEECHES].first)
        return "images";
    return model < feed_models[AUDIO_TRANSCRIPTIONS].first ? "characters" : "duration_seconds";
}

void ledger_restate(struct ledger *l, const struct restatement *r)
{
    struct restatement *s = xmalloc(sizeof *s);
    struct restatement **at;

    *s = *r;
    s->next = NULL;
    s->serial = ++l->n_restated;
    s->bucket -= s->bucket % (feed_infos[s->feed].daily ? DAY : HOUR);
    at = &l->restated[(s->account * 31U + (unsigned)s->feed * 7U + (unsigned)(s->bucket / HOUR)) %
                      4096];
    while (*at) /* in the order given */
        at = &(*at)->next;
    *at = s;
}

void ledger_forget_restatements(struct ledger *l)
{
    for (size_t i = 0; i < sizeof l->restated / sizeof l->restated[0]; i++) {
        while (l->restated[i]) {
            struct restatement *s = l->restated[i];

            l->restated[i] = s->next;
            free(s);
        }
    }
    l->n_restated = 0;
}
