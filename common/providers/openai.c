/* openai.c - OpenAI's organization usage and costs (docs/providers/openai.md). */
#include <string.h>

#include "common/clock.h"
#include "common/providers/asking.h"
#include "common/providers/reader.h"

/* ---- what is asked for: every grouping offered, but a cost's user, which leaks addresses ---- */

static const char *const by_completion[] = {"project_id", "user_id",      "api_key_id", "model",
                                            "batch",      "service_tier", NULL};
static const char *const by_model[] = {"project_id", "user_id", "api_key_id", "model", NULL};
static const char *const by_image[] = {"project_id", "user_id", "api_key_id", "model",
                                       "size",       "source",  NULL};
static const char *const by_project[] = {"project_id", NULL};
static const char *const by_store[] = {"project_id", "user_id", "api_key_id", "vector_store_id",
                                       NULL};
static const char *const by_search[] = {"project_id", "user_id",       "api_key_id",
                                        "model",      "context_level", NULL};
static const char *const by_line[] = {"project_id", "line_item", "api_key_id", NULL};
/* Costs by key are refused for a window that begins before 2025-12-06. */
static const char *const by_line_old[] = {"project_id", "line_item", NULL};
#define COSTS_BY_KEY_SINCE_S INT64_C(1764979200)

/* Usage refuses a limit above these. Costs say 180 and are known to answer fewer: coverage is
 * therefore told by next_page alone. */
static const struct width usage_widths[] = {{60, "1m", 1440}, {3600, "1h", 168}, {86400, "1d", 31}};
static const struct width cost_widths[] = {{86400, "1d", 180}};

/* ---- what comes back ---- */

static const struct envelope envelope = {
    .data = "data",
    .start = "start_time",
    .end = "end_time",
    .results = "results",
    .object = "object",
    .has_more = "has_more",
    .next_page = "next_page",
    .times = TIMES_UNIX_S,
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
#define PART(name, column)                                                                         \
    {                                                                                              \
        .path = (name), .use = FIELD_COUNT, .target = (column)                                     \
    }
#define COUNT(name, column)                                                                        \
    {                                                                                              \
        .path = (name), .use = FIELD_COUNT, .target = (column), .required = true                   \
    }
#define QUANTITY(name, unit_name)                                                                  \
    {                                                                                              \
        .path = (name), .use = FIELD_QUANTITY, .unit = (unit_name), .required = true               \
    }
#define EXTRA(name)                                                                                \
    {                                                                                              \
        .path = (name), .use = FIELD_EXTRA                                                         \
    }

#define OWNER                                                                                      \
    KNOWN("object"), TEXT("project_id", TEXT_PROJECT_ID), TEXT("user_id", TEXT_USER_ID),           \
        TEXT("api_key_id", TEXT_API_KEY_ID)
#define MODEL    TEXT("model", TEXT_MODEL)
#define REQUESTS COUNT("num_model_requests", COUNT_NUM_REQUESTS)

/* input_tokens is all input; the audio figure is its uncached audio, and audio from the cache
 * stands beside it in extra. */
static const struct field completions_fields[] = {
    OWNER,
    MODEL,
    {.path = "batch", .use = FIELD_BATCH},
    TEXT("service_tier", TEXT_SERVICE_TIER),
    REQUESTS,
    COUNT("input_tokens", COUNT_INPUT_TOKENS),
    COUNT("output_tokens", COUNT_OUTPUT_TOKENS),
    PART("input_cached_tokens", COUNT_CACHED_INPUT_TOKENS),
    PART("input_cache_write_tokens", COUNT_CACHE_WRITE_TOKENS),
    PART("input_audio_tokens", COUNT_INPUT_AUDIO_TOKENS),
    PART("output_audio_tokens", COUNT_OUTPUT_AUDIO_TOKENS),
    EXTRA("input_uncached_tokens"),
    EXTRA("input_text_tokens"),
    EXTRA("input_image_tokens"),
    EXTRA("input_cached_text_tokens"),
    EXTRA("input_cached_audio_tokens"),
    EXTRA("input_cached_image_tokens"),
    EXTRA("output_text_tokens"),
    EXTRA("output_image_tokens"),
};
static const struct identity completions_identities[] = {
    {"input_tokens",
     {"input_cached_tokens", "input_cache_write_tokens", "input_uncached_tokens"},
     true},
    {"input_uncached_tokens",
     {"input_text_tokens", "input_audio_tokens", "input_image_tokens"},
     true},
    {"input_tokens", {"input_cached_tokens", "input_cache_write_tokens"}, false},
};
static const struct field tokens_fields[] = {OWNER, MODEL, REQUESTS,
                                             COUNT("input_tokens", COUNT_INPUT_TOKENS)};
static const struct field images_fields[] = {OWNER,         MODEL,    DIM("size"),
                                             DIM("source"), REQUESTS, QUANTITY("images", "images")};
static const struct field speeches_fields[] = {OWNER, MODEL, REQUESTS,
                                               QUANTITY("characters", "characters")};
static const struct field transcriptions_fields[] = {OWNER, MODEL, REQUESTS,
                                                     QUANTITY("seconds", "seconds")};
static const struct field stores_fields[] = {OWNER, QUANTITY("usage_bytes", "bytes")};
static const struct field sessions_fields[] = {OWNER, QUANTITY("num_sessions", "sessions")};
static const struct field file_searches_fields[] = {OWNER, DIM("vector_store_id"),
                                                    QUANTITY("num_requests", "calls")};
static const struct field web_searches_fields[] = {OWNER, MODEL, DIM("context_level"), REQUESTS,
                                                   QUANTITY("num_requests", "calls")};
static const struct field costs_fields[] = {
    OWNER,
    TEXT("line_item", TEXT_LINE_ITEM),
    /* dollars, not cents: the point stays where it is */
    {.path = "amount.value", .use = FIELD_COST, .target = 0, .required = true},
    {.path = "amount.currency", .use = FIELD_CURRENCY, .required = true},
    {.path = "quantity", .use = FIELD_QUANTITY},
    {.path = "quantity_unit", .use = FIELD_QUANTITY_UNIT},
};

#define KIND(name)                                                                                 \
    (const char *const[])                                                                          \
    {                                                                                              \
        "organization." name ".result", NULL                                                       \
    }
#define FIELDS(table) .fields = (table), .n_fields = sizeof(table) / sizeof((table)[0])

/* A usage bucket goes on growing for minutes after its end, so each cycle reads two hours again. */
#define USAGE(feed_name, kind, groups)                                                             \
    .name = (feed_name), .path = "/organization/usage/" feed_name,                                 \
    .result_objects = KIND("usage." kind), .group_by = (groups), .envelope = &envelope,            \
    .widths = usage_widths, .n_widths = sizeof(usage_widths) / sizeof(usage_widths[0]),            \
    .cadence_s = 0, .settle_s = 3600, .lookback_s = 2 * 3600

static const struct feed feeds[] = {
    {USAGE("completions", "completions", by_completion), FIELDS(completions_fields),
     .identities = completions_identities,
     .n_identities = sizeof(completions_identities) / sizeof(completions_identities[0])},
    {USAGE("embeddings", "embeddings", by_model), FIELDS(tokens_fields)},
    {USAGE("moderations", "moderations", by_model), FIELDS(tokens_fields)},
    {USAGE("images", "images", by_image), FIELDS(images_fields)},
    {USAGE("audio_speeches", "audio_speeches", by_model), FIELDS(speeches_fields)},
    {USAGE("audio_transcriptions", "audio_transcriptions", by_model),
     FIELDS(transcriptions_fields)},
    {USAGE("vector_stores", "vector_stores", by_project), FIELDS(stores_fields)},
    {USAGE("code_interpreter_sessions", "code_interpreter_sessions", by_project),
     FIELDS(sessions_fields)},
    /* these two do not repeat the path in their results' kind */
    {USAGE("file_search_calls", "file_searches", by_store), FIELDS(file_searches_fields)},
    {USAGE("web_search_calls", "web_searches", by_search), FIELDS(web_searches_fields)},
    /* daily figures that are restated for days, without notice */
    {.name = "costs",
     .path = "/organization/costs",
     .result_objects = KIND("costs"),
     .group_by = by_line,
     .group_by_old = by_line_old,
     .old_before_s = COSTS_BY_KEY_SINCE_S,
     .envelope = &envelope,
     .widths = cost_widths,
     .n_widths = sizeof(cost_widths) / sizeof(cost_widths[0]),
     FIELDS(costs_fields),
     .cadence_s = 3600,
     .settle_s = 3 * 86400,
     .lookback_s = 3 * 86400},
};

/* ---- asking ---- */

static enum status openai_ask(struct request *out, struct arena *a, const struct credential *who,
                              const struct question *q, struct err *err)
{
    struct buf url = {.arena = a};
    struct request request = {.headers = {"Accept: application/json", NULL}};
    int64_t limit;

    TRY(url_begin(&url, who, q, err));
    url_number(&url, "start_time", q->window.from_us / US_PER_S);
    if (q->window.to_us != 0)
        url_number(&url, "end_time", q->window.to_us / US_PER_S);
    url_text(&url, "bucket_width", text_of(width_asked(q)->name));
    limit = limit_asked(q);
    if (limit > 0)
        url_number(&url, "limit", limit);
    url_groupings(&url, "group_by", q);
    if (q->cursor.at)
        url_text(&url, "page", q->cursor);
    request.url = url.at;
    TRY(key_header(&request, "Authorization", "Bearer ", who->key, err));
    *out = request;
    return ST_OK;
}

/* ---- refusals ---- */

static void openai_refused(struct refusal *out, struct arena *a, const struct secret *key,
                           const struct question *q, uint32_t http_status, struct text body)
{
    static const char *const other_kinds[] = {
        "project key",  "project api key",   "user key",          "user api key", "service account",
        "not an admin", "requires an admin", "need an admin key", "session key",  NULL};
    static const char *const about_key[] = {"api_key_id", NULL};
    static const char *const about_clock[] = {"future", NULL};
    struct said said = said_read(a, key, body);

    refusal_usual(out, a, &openai_provider, q, http_status, &said);
    if (http_status == 401 &&
        (!key_is_kind(&openai_provider, key) || mentions(said.message, other_kinds))) {
        refusal_key_kind(out, a, &openai_provider, &said);
        return;
    }
    if (out->ending != END_BAD_WINDOW || out->cursor_expired || out->limit_refused)
        return;
    if (q->feed->group_by_old && !mentions(said.message, about_clock) &&
        (strcmp(said.param, "start_time") == 0 || mentions(said.message, about_key))) {
        out->narrow_grouping = true;
        out->detail = arena_printf(a, "The window is too old to be grouped by key. OpenAI said: %s",
                                   said.message);
    }
}

const struct provider openai_provider = {
    .name = "openai",
    .title = "OpenAI",
    .base_url = "https://api.openai.com/v1",
    .key_help = "an organization's admin key (sk-admin-...), made by an owner at "
                "platform.openai.com, Settings, Organization, Admin keys; api.usage.read suffices",
    .key_prefix = "sk-admin-",
    .key_variable = "OPENAI_ADMIN_KEY",
    .feeds = feeds,
    .n_feeds = sizeof(feeds) / sizeof(feeds[0]),
    .ask = openai_ask,
    .peek = reader_peek,
    .refused = openai_refused,
};
