/* openai.c - OpenAI's organization usage and costs (docs/providers/openai.md). */
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "common/clock.h"
#include "common/providers/provider.h"
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

static void percent_encode(struct buf *url, struct text t)
{
    for (size_t i = 0; i < t.len; i++) {
        unsigned char c = (unsigned char)t.at[i];
        if (c < 0x80 && (isalnum(c) || strchr("-._~", c)) && c != '\0')
            buf_append(url, &t.at[i], 1);
        else
            buf_printf(url, "%%%02X", c);
    }
}

/* The key becomes a header's value, so nothing in it may end the header. */
static enum status bearer(struct secret *out, const struct secret *key, struct err *err)
{
    char value[8 + 4096] = "Bearer ";
    size_t prefix = strlen(value);

    if (key->len == 0 || key->len > sizeof(value) - prefix)
        return err_set(err, ST_REJECT,
                       "the account's key is empty or too long: set it again with "
                       "usagectl account rotate-key");
    for (size_t i = 0; i < key->len; i++)
        if (key->at[i] <= ' ' || key->at[i] > '~')
            return err_set(err, ST_REJECT,
                           "the account's key holds a character that no key has: set it again with "
                           "usagectl account rotate-key");
    memcpy(value + prefix, key->at, key->len);
    *out = secret_copy(value, prefix + key->len);
    explicit_bzero(value, sizeof(value));
    return ST_OK;
}

static const struct width *asked_width(const struct feed *feed, const struct window *window)
{
    for (size_t i = 0; i < feed->n_widths; i++)
        if (feed->widths[i].bucket_s == window->bucket_s)
            return &feed->widths[i];
    return NULL;
}

/* The same for every page of a window, since a token is bound to the query that gave it. */
static void print_query(struct buf *url, const struct feed *feed, const struct window *window,
                        const struct width *width, const struct ask *how)
{
    bool old = feed->group_by_old &&
               (how->reduced_grouping || window->from_us < feed->old_before_s * US_PER_S);

    buf_printf(url, "?start_time=%" PRId64, window->from_us / US_PER_S);
    if (window->to_us != 0)
        buf_printf(url, "&end_time=%" PRId64, window->to_us / US_PER_S);
    buf_printf(url, "&bucket_width=%s", width->name);
    if (!how->default_limit) {
        int64_t limit = width->limit;
        int64_t n = (window->to_us - window->from_us) / (width->bucket_s * US_PER_S);
        if (window->to_us != 0 && n > 0 && n < limit)
            limit = n;
        buf_printf(url, "&limit=%" PRId64, limit);
    }
    for (const char *const *g = old ? feed->group_by_old : feed->group_by; *g; g++)
        buf_printf(url, "&group_by=%s", *g);
}

/* NOLINTNEXTLINE(readability-function-size): the parameters of provider.h */
static enum status openai_ask(struct request *out, struct arena *a, const char *base_url,
                              const struct secret *key, const struct feed *feed,
                              const struct window *window, const struct ask *how,
                              struct text cursor, struct err *err)
{
    struct buf url = {.arena = a};
    struct request request = {.headers = {"Accept: application/json", NULL}};
    const struct width *width = asked_width(feed, window);
    const char *why = base_url_refused(a, base_url, true); /* plain http is the caller's to judge */
    size_t base_len = strlen(base_url);

    if (why)
        return err_set(err, ST_REJECT, "%s", why);
    if (!width)
        return err_set(err, ST_REJECT, "feed %s has no buckets of %" PRIu32 " s", feed->name,
                       window->bucket_s);
    while (base_len > 0 && base_url[base_len - 1] == '/')
        base_len--;
    buf_append(&url, base_url, base_len);
    buf_str(&url, feed->path);
    print_query(&url, feed, window, width, how);
    if (cursor.at) {
        buf_str(&url, "&page=");
        percent_encode(&url, cursor);
    }
    request.url = url.at;
    request.auth.name = "Authorization";
    TRY(bearer(&request.auth.value, key, err));
    *out = request;
    return ST_OK;
}

/* ---- refusals ---- */

struct refused_answer {
    const char *said;  /* the provider's words, redacted, printable, short; "" = none */
    const char *param; /* "" = none */
};

static struct refused_answer answer_read(struct arena *a, const struct secret *key,
                                         struct text body)
{
    struct refused_answer answer = {"", ""};
    struct json_doc doc;
    struct err ignored = {0};
    struct text said = TEXT_NULL;
    const struct json *error;

    if (json_parse(&doc, a, body, &ignored) == ST_OK) {
        error = json_member(doc.root, "error");
        said = json_string(json_member(error, "message"));
        if (!said.at)
            said = json_string(error);
        if (json_string(json_member(error, "param")).at)
            answer.param = printable_snippet(a, json_string(json_member(error, "param")), 60);
    }
    if (!said.at)
        said = body; /* a gateway's page, perhaps: its beginning tells whose */
    if (said.at && said.len > 0)
        answer.said = printable_snippet(a, redact(a, said, key), 240);
    return answer;
}

static bool mentions(const char *said, const char *const *phrases)
{
    for (; *phrases; phrases++)
        if (strcasestr(said, *phrases))
            return true;
    return false;
}

static void refuse_key(struct refusal *out, struct arena *a, const struct secret *key,
                       const char *said)
{
    static const char *const other_kinds[] = {
        "project key",  "project api key",   "user key",          "user api key", "service account",
        "not an admin", "requires an admin", "need an admin key", "session key",  NULL};
    static const char admin[] = "sk-admin-";
    bool is_admin = key->len >= sizeof(admin) - 1 && memcmp(key->at, admin, sizeof(admin) - 1) == 0;

    if (!is_admin || mentions(said, other_kinds)) {
        out->ending = END_WRONG_KEY_KIND;
        out->detail = arena_printf(
            a,
            "This is no admin key, and usage needs one: an organization owner makes it at "
            "platform.openai.com, Settings, Organization, Admin keys (it begins with "
            "sk-admin-). Then: usagectl account rotate-key. OpenAI said: %s",
            said);
        return;
    }
    out->ending = END_AUTH_INVALID;
    out->detail = arena_printf(a,
                               "OpenAI does not accept this admin key: it was revoked, has "
                               "expired or is mistyped. Give a new one with usagectl account "
                               "rotate-key. OpenAI said: %s",
                               said);
}

/* HTTP 400 and 422: the query itself. */
static void refuse_query(struct refusal *out, struct arena *a, const struct feed *feed,
                         const struct refused_answer *answer, bool sent_cursor)
{
    static const char *const about_limit[] = {"limit", NULL};
    static const char *const about_clock[] = {"future", NULL};
    static const char *const about_key[] = {"api_key_id", NULL};

    out->ending = END_BAD_WINDOW;
    if (sent_cursor) {
        /* All but the token was accepted a page ago, so it is the token, whatever the words. */
        out->cursor_expired = true;
        out->detail = arena_printf(a,
                                   "The page token is no longer accepted; the window is read "
                                   "again from its start. OpenAI said: %s",
                                   answer->said);
    } else if (strcmp(answer->param, "limit") == 0 || mentions(answer->said, about_limit)) {
        out->limit_refused = true;
        out->detail = arena_printf(a, "The number of buckets a page was refused. OpenAI said: %s",
                                   answer->said);
    } else if (mentions(answer->said, about_clock)) {
        out->detail = arena_printf(a,
                                   "The time asked for lies in OpenAI's future: is this "
                                   "machine's clock right? OpenAI said: %s",
                                   answer->said);
    } else if (feed->group_by_old &&
               (strcmp(answer->param, "start_time") == 0 || mentions(answer->said, about_key))) {
        out->narrow_grouping = true;
        out->detail = arena_printf(a, "The window is too old to be grouped by key. OpenAI said: %s",
                                   answer->said);
    } else {
        out->detail = arena_printf(a, "OpenAI refused what was asked of %s. It said: %s",
                                   feed->name, answer->said);
    }
}

/* NOLINTNEXTLINE(readability-function-size): the parameters of provider.h */
static void openai_refused(struct refusal *out, struct arena *a, const struct feed *feed,
                           const struct secret *key, long http_status, struct text body,
                           bool sent_cursor)
{
    struct refused_answer answer = answer_read(a, key, body);

    *out = (struct refusal){.ending = END_PROVIDER_ERROR};
    if (http_status == 401) {
        refuse_key(out, a, key, answer.said);
    } else if (http_status == 403) {
        out->ending = END_SCOPE_MISSING;
        out->detail = arena_printf(a,
                                   "The key may not read %s: it needs the right api.usage.read "
                                   "(Settings, Organization, Admin keys). OpenAI said: %s",
                                   feed->name, answer.said);
    } else if (http_status == 404 || http_status == 410) {
        out->detail = arena_printf(a,
                                   "There is no %s at this base URL (HTTP %ld): the base URL is "
                                   "wrong (https://api.openai.com/v1 is OpenAI's), or the "
                                   "endpoint has gone. It said: %s",
                                   feed->path, http_status, answer.said);
    } else if (http_status == 400 || http_status == 422) {
        refuse_query(out, a, feed, &answer, sent_cursor);
    } else if (http_status == 429) {
        out->ending = END_RATE_LIMITED;
        out->detail = arena_printf(a,
                                   "OpenAI limits this organization's requests; asked again "
                                   "later. It said: %s",
                                   answer.said);
    } else if (http_status == 408) {
        out->ending = END_TIMEOUT;
        out->detail =
            arena_printf(a, "OpenAI gave up waiting (HTTP 408). It said: %s", answer.said);
    } else if (http_status >= 300 && http_status < 400) {
        out->ending = END_PROTOCOL;
        out->detail = arena_printf(a,
                                   "A redirect (HTTP %ld), which is never followed, since the "
                                   "key would go with it: put the address it leads to into the "
                                   "account's base URL, if it is OpenAI's.",
                                   http_status);
    } else if (http_status < 300) {
        out->ending = END_PROTOCOL;
        out->detail =
            arena_printf(a, "HTTP %ld instead of 200. It said: %s", http_status, answer.said);
    } else {
        out->detail = arena_printf(a, "OpenAI failed with HTTP %ld; asked again later. It said: %s",
                                   http_status, answer.said);
    }
}

const struct provider openai_provider = {
    .name = "openai",
    .base_url = "https://api.openai.com/v1",
    .key_help = "an organization's admin key (sk-admin-...), made by an owner at "
                "platform.openai.com, Settings, Organization, Admin keys; api.usage.read suffices",
    .feeds = feeds,
    .n_feeds = sizeof(feeds) / sizeof(feeds[0]),
    .ask = openai_ask,
    .peek = reader_peek,
    .refused = openai_refused,
    .read = reader_read,
};
