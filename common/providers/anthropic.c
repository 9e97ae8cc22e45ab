/* anthropic.c - Anthropic's usage and cost reports for organizations, and Claude Code's
 * (docs/providers/anthropic.md). */
#include "common/clock.h"
#include "common/providers/asking.h"
#include "common/providers/reader.h"

/* ---- what is asked for: every grouping offered, but speed, which needs a beta header ---- */

static const char *const by_message[] = {"account_id",    "api_key_id",   "context_window",
                                         "inference_geo", "model",        "service_account_id",
                                         "service_tier",  "workspace_id", NULL};
static const char *const by_cost[] = {"workspace_id", "description", NULL};

static const struct width message_widths[] = {
    {60, "1m", 1440}, {3600, "1h", 168}, {86400, "1d", 31}};
static const struct width cost_widths[] = {{86400, "1d", 31}};
static const struct width day_widths[] = {{86400, "1d", 1}};

#define CODE_ROWS_MAX                                                                              \
    1000 /* records of a page; what is left out of it, not buckets, makes pages                    \
          */

/* ---- what comes back ---- */

static const struct envelope buckets = {
    .data = "data",
    .start = "starting_at",
    .end = "ending_at",
    .results = "results",
    .has_more = "has_more",
    .next_page = "next_page",
    .times = TIMES_RFC3339,
};
/* A list of records, each with its day: the records of one day are spread over pages. */
static const struct envelope records = {
    .data = "data",
    .start = "date",
    .has_more = "has_more",
    .next_page = "next_page",
    .times = TIMES_RFC3339,
};

#define KNOWN(name)                                                                                \
    {                                                                                              \
        .path = (name), .use = FIELD_IGNORE                                                        \
    }
#define TEXT(name, column)                                                                         \
    {                                                                                              \
        .path = (name), .use = FIELD_TEXT, .target = (column)                                      \
    }
#define DIM(name)                                                                                  \
    {                                                                                              \
        .path = (name), .use = FIELD_DIM                                                           \
    }
#define COUNT(name, column)                                                                        \
    {                                                                                              \
        .path = (name), .use = FIELD_COUNT, .target = (column), .required = true                   \
    }
/* input_tokens is all input, as everywhere in the table: the parts are added up */
#define INPUT(name)                                                                                \
    {                                                                                              \
        .path = (name), .use = FIELD_COUNT_ADD, .target = COUNT_INPUT_TOKENS                       \
    }
#define WRITTEN(name)                                                                              \
    {                                                                                              \
        .path = (name), .use = FIELD_COUNT_ADD, .target = COUNT_CACHE_WRITE_TOKENS                 \
    }
#define CACHED(name)                                                                               \
    {                                                                                              \
        .path = (name), .use = FIELD_COUNT, .target = COUNT_CACHED_INPUT_TOKENS                    \
    }
#define EXTRA(name)                                                                                \
    {                                                                                              \
        .path = (name), .use = FIELD_EXTRA                                                         \
    }
#define FIVE_MINUTES "cache_creation.ephemeral_5m_input_tokens"
#define ONE_HOUR     "cache_creation.ephemeral_1h_input_tokens"

static const struct field message_fields[] = {
    {.path = "uncached_input_tokens",
     .use = FIELD_COUNT_ADD,
     .target = COUNT_INPUT_TOKENS,
     .required = true},
    INPUT("cache_read_input_tokens"),
    CACHED("cache_read_input_tokens"),
    INPUT(FIVE_MINUTES),
    WRITTEN(FIVE_MINUTES),
    EXTRA(FIVE_MINUTES),
    INPUT(ONE_HOUR),
    WRITTEN(ONE_HOUR),
    EXTRA(ONE_HOUR),
    COUNT("output_tokens", COUNT_OUTPUT_TOKENS),
    {.path = "server_tool_use.web_search_requests", .use = FIELD_QUANTITY, .unit = "web_searches"},
    TEXT("api_key_id", TEXT_API_KEY_ID),
    TEXT("workspace_id", TEXT_PROJECT_ID),
    TEXT("model", TEXT_MODEL),
    TEXT("service_tier", TEXT_SERVICE_TIER),
    DIM("context_window"),
    DIM("inference_geo"),
    TEXT("account_id", TEXT_USER_ID),
    DIM("service_account_id"),
};
static const struct field cost_fields[] = {
    /* cents, as a text: "123.45" is $1.2345 */
    {.path = "amount", .use = FIELD_COST, .target = 2, .required = true},
    {.path = "currency", .use = FIELD_CURRENCY, .required = true},
    TEXT("workspace_id", TEXT_PROJECT_ID),
    TEXT("description", TEXT_LINE_ITEM),
    DIM("cost_type"),
    DIM("token_type"),
    TEXT("model", TEXT_MODEL),
    TEXT("service_tier", TEXT_SERVICE_TIER),
    DIM("context_window"),
    DIM("inference_geo"),
};

#define BY_MODEL "model_breakdown[]."
/* A record's own row has the sessions and what was done in them, a row a model its tokens. The cost
 * is the provider's estimate, so it is no cost_amount: that is what the cost report bills. */
static const struct field code_fields[] = {
    KNOWN("date"),
    DIM("actor.type"),
    {.path = "actor.email_address", .use = FIELD_PERSON, .target = TEXT_USER_ID},
    DIM("actor.api_key_name"),
    KNOWN("organization_id"),
    DIM("customer_type"),
    DIM("subscription_type"),
    DIM("terminal_type"),
    {.path = "core_metrics.num_sessions", .use = FIELD_QUANTITY, .unit = "sessions"},
    EXTRA("core_metrics.lines_of_code.added"),
    EXTRA("core_metrics.lines_of_code.removed"),
    EXTRA("core_metrics.commits_by_claude_code"),
    EXTRA("core_metrics.pull_requests_by_claude_code"),
    TEXT(BY_MODEL "model", TEXT_MODEL),
    INPUT(BY_MODEL "tokens.input"),
    COUNT(BY_MODEL "tokens.output", COUNT_OUTPUT_TOKENS),
    INPUT(BY_MODEL "tokens.cache_read"),
    CACHED(BY_MODEL "tokens.cache_read"),
    INPUT(BY_MODEL "tokens.cache_creation"),
    WRITTEN(BY_MODEL "tokens.cache_creation"),
    {.path = BY_MODEL "estimated_cost.amount",
     .use = FIELD_EXTRA,
     .name = "estimated_cost",
     .target = 2}, /* cents here, too, but as a number */
    {.path = BY_MODEL "estimated_cost.currency", .use = FIELD_CURRENCY},
};

#define ROWS(table, member, count) .member = (table), .count = sizeof(table) / sizeof((table)[0])

static const struct feed feeds[] = {
    /* complete within minutes, sometimes later */
    {.name = "messages",
     .path = "/v1/organizations/usage_report/messages",
     .group_by = by_message,
     .envelope = &buckets,
     ROWS(message_widths, widths, n_widths),
     ROWS(message_fields, fields, n_fields),
     .cadence_s = 0,
     .settle_s = 3600,
     .lookback_s = 2 * 3600},
    /* daily figures about a day late, restated without notice; a start in the current or the
     * previous day is refused */
    {.name = "cost_report",
     .path = "/v1/organizations/cost_report",
     .group_by = by_cost,
     .envelope = &buckets,
     ROWS(cost_widths, widths, n_widths),
     ROWS(cost_fields, fields, n_fields),
     .start_back_s = 3 * 86400,
     .cadence_s = 3600,
     .settle_s = 3 * 86400,
     .lookback_s = 3 * 86400},
    /* one day a request, up to an hour late */
    {.name = "claude_code",
     .path = "/v1/organizations/usage_report/claude_code",
     .envelope = &records,
     ROWS(day_widths, widths, n_widths),
     ROWS(code_fields, fields, n_fields),
     .breakdown = "model_breakdown",
     .question_s = 86400,
     .cadence_s = 3600,
     .settle_s = 86400,
     .lookback_s = 86400},
};

/* ---- asking ---- */

/* Buckets: a range in RFC 3339, arrays in the bracket form. */
static void ask_for_buckets(struct buf *url, const struct question *q)
{
    char time[TIME_TEXT_MAX];
    int64_t limit = limit_asked(q);

    url_text(url, "starting_at", text_of(time_format(time, q->window.from_us)));
    if (q->window.to_us != 0)
        url_text(url, "ending_at", text_of(time_format(time, q->window.to_us)));
    url_text(url, "bucket_width", text_of(width_asked(q)->name));
    if (limit > 0)
        url_number(url, "limit", limit);
    url_groupings(url, "group_by%5B%5D", q); /* group_by[] */
}

/* Claude Code: one day, named by its date. */
static void ask_for_records(struct buf *url, const struct question *q)
{
    char time[TIME_TEXT_MAX];

    url_text(url, "starting_at", (struct text){time_format(time, q->window.from_us), 10});
    if (!q->how.default_limit)
        url_number(url, "limit", CODE_ROWS_MAX);
}

static enum status anthropic_ask(struct request *out, struct arena *a, const struct credential *who,
                                 const struct question *q, struct err *err)
{
    struct buf url = {.arena = a};
    struct request request = {
        .headers = {"Accept: application/json", "anthropic-version: 2023-06-01", NULL}};

    TRY(url_begin(&url, who, q, err));
    if (q->feed->envelope == &records)
        ask_for_records(&url, q);
    else
        ask_for_buckets(&url, q);
    if (q->cursor.at)
        url_text(&url, "page", q->cursor);
    request.url = url.at;
    TRY(key_header(&request, "x-api-key", "", who->key, err));
    *out = request;
    return ST_OK;
}

/* ---- refusals ---- */

static void anthropic_refused(struct refusal *out, struct arena *a, const struct secret *key,
                              const struct question *q, uint32_t http_status, struct text body)
{
    static const char *const about_range[] = {"date range", NULL};
    struct said said = said_read(a, key, body);

    refusal_usual(out, a, &anthropic_provider, q, http_status, &said);
    if ((http_status == 401 || http_status == 403) && !key_is_kind(&anthropic_provider, key))
        refusal_key_kind(out, a, &anthropic_provider, &said);
    else if (out->ending == END_BAD_WINDOW && !out->cursor_expired &&
             mentions(said.message, about_range))
        out->detail = arena_printf(a,
                                   "Anthropic has no figures for so recent a start yet, or this "
                                   "machine's clock is wrong; asked again later. It said: %s",
                                   said.message);
}

const struct provider anthropic_provider = {
    .name = "anthropic",
    .title = "Anthropic",
    .base_url = "https://api.anthropic.com",
    .key_help = "an organization's admin key (sk-ant-admin01-...), made by an admin at "
                "platform.claude.com, Settings, Admin keys; a workspace's key can not read usage",
    .key_prefix = "sk-ant-admin",
    .key_variable = "ANTHROPIC_ADMIN_KEY",
    .feeds = feeds,
    .n_feeds = sizeof(feeds) / sizeof(feeds[0]),
    .ask = anthropic_ask,
    .peek = reader_peek,
    .refused = anthropic_refused,
};
