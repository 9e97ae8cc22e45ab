/* OpenAI: what is asked for, what each feed becomes, and what its refusals mean. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/providers/provider.h"
#include "common/providers/reader.h"
#include "tests/fakes/record_print.h"

#define T0   INT64_C(1793923200) /* 2026-11-06T00:00:00Z */
#define HOUR INT64_C(3600)
#define DAY  INT64_C(86400)

static const struct feed *openai_feed(const char *name)
{
    const struct feed *feed = feed_find(provider_find(TEXT_LIT("openai")), text_of(name));

    assert_non_null(feed);
    return feed;
}

static struct secret key_of(const char *key)
{
    return secret_copy(key, strlen(key));
}

/* ---- ask ---- */

struct ask_case {
    const char *name, *feed;
    int64_t from_s, to_s;
    uint32_t bucket_s;
    struct ask how;
    const char *base_url, *cursor;
    const char *want; /* the URL; NULL: refused */
};

#define BASE "https://api.openai.com/v1"
#define ORG  BASE "/organization/"
#define BY_COMPLETION                                                                              \
    "&group_by=project_id&group_by=user_id&group_by=api_key_id&group_by=model&group_by=batch"      \
    "&group_by=service_tier"
#define BY_MODEL "&group_by=project_id&group_by=user_id&group_by=api_key_id&group_by=model"

static const struct ask_case ask_cases[] = {
    {"an open window asks for the largest page",
     "completions",
     T0,
     0,
     3600,
     {0},
     BASE,
     NULL,
     ORG "usage/completions?start_time=1793923200&bucket_width=1h&limit=168" BY_COMPLETION},
    {"a closed window asks for no more buckets than it has",
     "completions",
     T0,
     T0 + 5 * HOUR,
     3600,
     {0},
     BASE,
     NULL,
     ORG
     "usage/"
     "completions?start_time=1793923200&end_time=1793941200&bucket_width=1h&limit=5" BY_COMPLETION},
    {"BR-010 days: at most 31",
     "embeddings",
     T0 - 90 * DAY,
     T0,
     86400,
     {0},
     BASE,
     NULL,
     ORG "usage/"
         "embeddings?start_time=1786147200&end_time=1793923200&bucket_width=1d&limit=31" BY_MODEL},
    {"BR-010 minutes: at most 1440",
     "moderations",
     T0,
     T0 + 7 * DAY,
     60,
     {0},
     BASE,
     NULL,
     ORG
     "usage/"
     "moderations?start_time=1793923200&end_time=1794528000&bucket_width=1m&limit=1440" BY_MODEL},
    {"BR-010 costs: at most 180",
     "costs",
     T0,
     T0 + 400 * DAY,
     86400,
     {0},
     BASE,
     NULL,
     ORG "costs?start_time=1793923200&end_time=1828483200&bucket_width=1d&limit=180"
         "&group_by=project_id&group_by=line_item&group_by=api_key_id"},
    {"a refused limit is left out",
     "vector_stores",
     T0,
     0,
     3600,
     {.default_limit = true},
     BASE,
     NULL,
     ORG "usage/vector_stores?start_time=1793923200&bucket_width=1h&group_by=project_id"},
    {"BR-032 a page token is percent-encoded",
     "code_interpreter_sessions",
     T0,
     0,
     3600,
     {0},
     BASE,
     "a+b/c=&d%25",
     ORG "usage/code_interpreter_sessions?start_time=1793923200&bucket_width=1h&limit=168"
         "&group_by=project_id&page=a%2Bb%2Fc%3D%26d%2525"},
    {"bytes above ASCII too, and nothing else is touched",
     "code_interpreter_sessions",
     T0,
     0,
     3600,
     {0},
     BASE,
     "page_AZ-09.~\xc3\xa9 \n",
     ORG "usage/code_interpreter_sessions?start_time=1793923200&bucket_width=1h&limit=168"
         "&group_by=project_id&page=page_AZ-09.~%C3%A9%20%0A"},
    {"costs before 2025-12-06 go without the key",
     "costs",
     1764979200 - DAY,
     1764979200,
     86400,
     {0},
     BASE,
     NULL,
     ORG "costs?start_time=1764892800&end_time=1764979200&bucket_width=1d&limit=1"
         "&group_by=project_id&group_by=line_item"},
    {"costs from that second on with it",
     "costs",
     1764979200,
     1764979200 + DAY,
     86400,
     {0},
     BASE,
     NULL,
     ORG "costs?start_time=1764979200&end_time=1765065600&bucket_width=1d&limit=1"
         "&group_by=project_id&group_by=line_item&group_by=api_key_id"},
    {"and without it again when asked to",
     "costs",
     T0,
     T0 + DAY,
     86400,
     {.reduced_grouping = true},
     BASE,
     NULL,
     ORG "costs?start_time=1793923200&end_time=1794009600&bucket_width=1d&limit=1"
         "&group_by=project_id&group_by=line_item"},
    {"other feeds have no such limit",
     "vector_stores",
     1764979200 - DAY,
     1764979200,
     86400,
     {.reduced_grouping = true},
     BASE,
     NULL,
     ORG "usage/vector_stores?start_time=1764892800&end_time=1764979200&bucket_width=1d&limit=1"
         "&group_by=project_id"},
    {"slashes at the end of the base URL are dropped",
     "vector_stores",
     T0,
     0,
     3600,
     {0},
     "http://127.0.0.1:8080/v1//",
     NULL,
     "http://127.0.0.1:8080/v1/organization/usage/vector_stores?start_time=1793923200"
     "&bucket_width=1h&limit=168&group_by=project_id"},
    {"a width the feed lacks is refused", "costs", T0, 0, 3600, {0}, BASE, NULL, NULL},
    {"a base URL with a query is refused", "costs", T0, 0, 86400, {0}, BASE "?x=1", NULL, NULL},
};

static void test_ask(void **state)
{
    struct arena *a = arena_new();
    struct secret key = key_of("sk-admin-abc");

    (void)state;
    for (size_t i = 0; i < sizeof(ask_cases) / sizeof(ask_cases[0]); i++) {
        const struct ask_case *c = &ask_cases[i];
        struct question q = {.feed = openai_feed(c->feed),
                             .window = {.feed = text_of(c->feed),
                                        .from_us = c->from_s * US_PER_S,
                                        .to_us = c->to_s * US_PER_S,
                                        .bucket_s = c->bucket_s},
                             .how = c->how,
                             .cursor = text_of(c->cursor)};
        struct credential who = {c->base_url, &key};
        struct request got = {0};
        struct err err = {0};
        enum status st = openai_provider.ask(&got, a, &who, &q, &err);
        if (st != (c->want ? ST_OK : ST_REJECT) || (c->want && strcmp(got.url, c->want) != 0))
            fail_msg("%s: got %d %s (%s), want %s", c->name, (int)st, got.url ? got.url : "",
                     err.text, c->want ? c->want : "a refusal");
        if (st == ST_OK) {
            assert_string_equal(got.auth.name, "Authorization");
            assert_int_equal(got.auth.value.len, strlen("Bearer sk-admin-abc"));
            assert_memory_equal(got.auth.value.at, "Bearer sk-admin-abc", got.auth.value.len);
            assert_string_equal(got.headers[0], "Accept: application/json");
            assert_null(strstr(got.url, "sk-admin"));
        }
        secret_wipe(&got.auth.value);
        arena_reset(a);
    }
    secret_wipe(&key);
    arena_free(&a);
}

static void test_ask_refuses_keys_that_split_a_header(void **state)
{
    static const char *const keys[] = {"sk-admin-a\r\nX: y", "sk-admin-a b", "sk-\xc3\xa9", ""};
    struct arena *a = arena_new();
    struct question q = {
        .feed = openai_feed("costs"),
        .window = {.feed = TEXT_LIT("costs"), .from_us = T0 * US_PER_S, .bucket_s = 86400}};

    (void)state;
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        struct secret key = key_of(keys[i]);
        struct request got = {0};
        struct err err = {0};
        struct credential who = {BASE, &key};
        assert_int_equal(openai_provider.ask(&got, a, &who, &q, &err), ST_REJECT);
        assert_null(got.auth.value.at);
        assert_null(strstr(err.text, "sk-"));
        secret_wipe(&key);
    }
    arena_free(&a);
}

/* ---- every feed, as it arrives and as it is stored ---- */

struct feed_case {
    const char *feed;
    uint32_t bucket_s;
    const char *result; /* one result of one bucket */
    const char *want;   /* its record, without the bucket */
};

static const struct feed_case feed_cases[] = {
    {"completions", 3600,
     "{\"object\":\"organization.usage.completions.result\",\"input_tokens\":48210,"
     "\"input_cached_tokens\":12000,\"input_cache_write_tokens\":210,"
     "\"input_uncached_tokens\":36000,\"input_text_tokens\":30000,\"input_audio_tokens\":5000,"
     "\"input_image_tokens\":1000,\"input_cached_text_tokens\":11000,"
     "\"input_cached_audio_tokens\":700,\"input_cached_image_tokens\":300,\"output_tokens\":9120,"
     "\"output_text_tokens\":9000,\"output_audio_tokens\":100,\"output_image_tokens\":20,"
     "\"num_model_requests\":61,\"project_id\":\"proj_1\",\"user_id\":\"user-1\","
     "\"api_key_id\":\"key_1\",\"model\":\"gpt-5-mini-2026-01-15\",\"batch\":true,"
     "\"service_tier\":\"default\"}",
     " project_id=proj_1 user_id=user-1 api_key_id=key_1 model=gpt-5-mini-2026-01-15"
     " service_tier=default batch=true input_tokens=48210 cached_input_tokens=12000"
     " cache_write_tokens=210 input_audio_tokens=5000 output_audio_tokens=100 output_tokens=9120"
     " num_requests=61"
     " extra={\"input_cached_audio_tokens\":700,\"input_cached_image_tokens\":300,"
     "\"input_cached_text_tokens\":11000,\"input_image_tokens\":1000,\"input_text_tokens\":30000,"
     "\"input_uncached_tokens\":36000,\"output_image_tokens\":20,\"output_text_tokens\":9000}\n"},
    {"completions", 60,
     "{\"object\":\"organization.usage.completions.result\",\"input_tokens\":1,"
     "\"output_tokens\":0,\"num_model_requests\":1,\"project_id\":null,\"user_id\":null,"
     "\"api_key_id\":null,\"model\":null,\"batch\":false,\"service_tier\":null,"
     "\"input_cached_tokens\":null}",
     " batch=false input_tokens=1 output_tokens=0 num_requests=1\n"},
    {"embeddings", 86400,
     "{\"object\":\"organization.usage.embeddings.result\",\"input_tokens\":10,"
     "\"num_model_requests\":2,\"model\":\"text-embedding-3-small\"}",
     " model=text-embedding-3-small input_tokens=10 num_requests=2\n"},
    {"moderations", 3600,
     "{\"object\":\"organization.usage.moderations.result\",\"input_tokens\":16,"
     "\"num_model_requests\":2,\"project_id\":\"p\"}",
     " project_id=p input_tokens=16 num_requests=2\n"},
    {"images", 3600,
     "{\"object\":\"organization.usage.images.result\",\"images\":2,\"num_model_requests\":1,"
     "\"size\":\"1024x1024\",\"source\":\"image.generation\",\"model\":\"dall-e-3\"}",
     " model=dall-e-3 dims={\"size\":\"1024x1024\",\"source\":\"image.generation\"} num_requests=1"
     " quantity=2 quantity_unit=images\n"},
    {"audio_speeches", 3600,
     "{\"object\":\"organization.usage.audio_speeches.result\",\"characters\":45,"
     "\"num_model_requests\":1,\"model\":\"tts-1\"}",
     " model=tts-1 num_requests=1 quantity=45 quantity_unit=characters\n"},
    {"audio_transcriptions", 3600,
     "{\"object\":\"organization.usage.audio_transcriptions.result\",\"seconds\":10,"
     "\"num_model_requests\":1,\"model\":\"whisper-1\"}",
     " model=whisper-1 num_requests=1 quantity=10 quantity_unit=seconds\n"},
    {"vector_stores", 86400,
     "{\"object\":\"organization.usage.vector_stores.result\",\"usage_bytes\":5368709120,"
     "\"project_id\":\"p\"}",
     " project_id=p quantity=5368709120 quantity_unit=bytes\n"},
    {"code_interpreter_sessions", 3600,
     "{\"object\":\"organization.usage.code_interpreter_sessions.result\",\"num_sessions\":7,"
     "\"project_id\":\"p\"}",
     " project_id=p quantity=7 quantity_unit=sessions\n"},
    {"file_search_calls", 3600,
     "{\"object\":\"organization.usage.file_searches.result\",\"num_requests\":2,"
     "\"project_id\":\"p\",\"user_id\":\"u\",\"api_key_id\":\"k\",\"vector_store_id\":\"vs_1\"}",
     " project_id=p user_id=u api_key_id=k dims={\"vector_store_id\":\"vs_1\"}"
     " quantity=2 quantity_unit=calls\n"},
    {"web_search_calls", 3600,
     "{\"object\":\"organization.usage.web_searches.result\",\"num_requests\":2,"
     "\"num_model_requests\":1,\"model\":\"m\",\"context_level\":\"high\"}",
     " model=m dims={\"context_level\":\"high\"} num_requests=1 quantity=2 quantity_unit=calls\n"},
    {"costs", 86400,
     "{\"object\":\"organization.costs.result\","
     "\"amount\":{\"value\":0.0025945,\"currency\":\"usd\"},\"line_item\":\"gpt-5-mini, input\","
     "\"project_id\":\"proj_1\",\"api_key_id\":\"key_1\",\"quantity\":5189,"
     "\"quantity_unit\":\"tokens\"}",
     " project_id=proj_1 api_key_id=key_1 line_item=gpt-5-mini, input"
     " quantity=5189 quantity_unit=tokens cost_amount=0.0025945 currency=USD\n"},
    {"costs", 86400, /* BR-034: dollars stay dollars; BR-112: a fraction of a quantity is kept */
     "{\"object\":\"organization.costs.result\",\"amount\":{\"value\":412.80,\"currency\":\"usd\"},"
     "\"line_item\":\"storage\",\"quantity\":0.125,\"quantity_unit\":\"gibibyte_hours\"}",
     " line_item=storage quantity=0.125 quantity_unit=gibibyte_hours cost_amount=412.80"
     " currency=USD\n"},
    {"costs", 86400, /* whose name and address it is, is nobody's business */
     "{\"object\":\"organization.costs.result\",\"amount\":{\"value\":\"12.50\","
     "\"currency\":\"usd\"},\"line_item\":null,\"project_id\":null,\"user_id\":null,"
     "\"user_email\":\"a@example.com\",\"project_name\":\"Secret\","
     "\"organization_name\":\"Example\",\"user_name\":\"Ann\"}",
     " cost_amount=12.50 currency=USD\n"},
};

static void test_every_feed(void **state)
{
    struct arena *a = arena_new();

    (void)state;
    for (size_t i = 0; i < sizeof(feed_cases) / sizeof(feed_cases[0]); i++) {
        const struct feed_case *c = &feed_cases[i];
        const char *body = arena_printf(
            a,
            "{\"object\":\"page\",\"data\":[{\"object\":\"bucket\",\"start_time\":1793923200,"
            "\"end_time\":%lld,\"results\":[%s]}],\"has_more\":false,\"next_page\":null}",
            (long long)(T0 + c->bucket_s), c->result);
        struct page page = {
            .asked = {.feed = text_of(c->feed), .from_us = T0 * US_PER_S, .bucket_s = c->bucket_s},
            .body = text_of(body)};
        const char *want = arena_printf(a, "1793923200/%u%s", c->bucket_s, c->want);
        struct raw_page raw = {openai_feed(c->feed), &page, NULL};
        struct record_page got;
        struct page_notes notes;
        struct err err = {0};
        assert_int_equal(reader_read(&got, &notes, a, &raw, &err), ST_OK);
        if (strcmp(record_page_print(a, &got), want) != 0)
            fail_msg("%s: got %swant %s", c->feed, record_page_print(a, &got), want);
        assert_int_equal(notes.inconsistent_rows, 0);
        assert_int_equal(got.n_spans, 1);
        assert_int_equal(got.spans[0].to_us, (T0 + c->bucket_s) * US_PER_S);
        arena_reset(a);
    }
    arena_free(&a);
}

static void test_feed_table(void **state)
{
    static const char *const names[] = {
        "completions",       "embeddings",           "moderations",   "images",
        "audio_speeches",    "audio_transcriptions", "vector_stores", "code_interpreter_sessions",
        "file_search_calls", "web_search_calls",     "costs"};

    (void)state;
    assert_int_equal(openai_provider.n_feeds, sizeof(names) / sizeof(names[0]));
    for (size_t i = 0; i < openai_provider.n_feeds; i++) {
        const struct feed *f = openai_feed(names[i]);
        bool costs = strcmp(names[i], "costs") == 0;
        assert_true(f->n_fields <= 64); /* the reader keeps a bit for each */
        assert_int_equal(feed_width(f, 60)->bucket_s, costs ? 86400 : 60);
        assert_int_equal(feed_width(f, 3600)->bucket_s, costs ? 86400 : 3600);
        assert_int_equal(feed_width(f, 86400)->bucket_s, 86400);
        for (const char *const *g = f->group_by; *g; g++)
            assert_false(costs && strcmp(*g, "user_id") == 0);
    }
    assert_null(feed_find(&openai_provider, TEXT_LIT("dreams")));
    assert_null(provider_find(TEXT_LIT("openai2")));
}

/* ---- refusals ---- */

struct refusal_case {
    const char *name, *feed, *key;
    uint32_t http_status;
    const char *body;
    const char *want_detail; /* a part of it */
    enum ending want;
    bool sent_cursor, cursor_expired, limit_refused, narrow_grouping;
};

#define ADMIN "sk-admin-abcdefghijklmnopqrstuvwxyz0123456789"
#define ERROR(message, param)                                                                      \
    "{\"error\":{\"message\":\"" message "\",\"type\":\"invalid_request_error\",\"param\":" param  \
    ",\"code\":null}}"

static const struct refusal_case refusal_cases[] = {
    {"a revoked admin key", "costs", ADMIN, 401, ERROR("Incorrect API key provided", "null"),
     "rotate-key", END_AUTH_INVALID, .sent_cursor = false},
    {"a project key by its looks", "costs", "sk-proj-abcdefghijklmnopqrstuvwxyz", 401,
     ERROR("Incorrect API key provided", "null"), "Admin keys", END_WRONG_KEY_KIND,
     .sent_cursor = false},
    {"an old user key by its looks", "costs", "sk-abcdefghijklmnopqrstuvwxyz", 401, "", "sk-admin-",
     END_WRONG_KEY_KIND, .sent_cursor = false},
    {"another kind by the words", "costs", ADMIN, 401,
     ERROR("A Project API key can not be used here", "null"), "made by an owner",
     END_WRONG_KEY_KIND, .sent_cursor = false},
    {"an expired admin key is no other kind", "costs", ADMIN, 401,
     ERROR("Your admin API key has expired", "null"), "expired", END_AUTH_INVALID,
     .sent_cursor = false},
    {"BR-026 a missing right names the feed", "vector_stores", ADMIN, 403,
     ERROR("Missing scopes: api.usage.read", "null"),
     "may not read vector_stores. It has to be: an organization's admin key", END_SCOPE_MISSING,
     .sent_cursor = false},
    {"BR-023 an endpoint that has gone", "vector_stores", ADMIN, 404, ERROR("Unknown", "null"),
     "There is no /organization/usage/vector_stores", END_PROVIDER_ERROR, .sent_cursor = false},
    {"BR-010 a limit by its parameter", "costs", ADMIN, 400, ERROR("366 is too much", "\"limit\""),
     "366 is too much", END_BAD_WINDOW, .limit_refused = true},
    {"BR-010 a limit by the words", "images", ADMIN, 400,
     ERROR("Limit must be at most 168", "null"), "at most 168", END_BAD_WINDOW,
     .limit_refused = true},
    {"BR-005 a token that has expired", "costs", ADMIN, 400, ERROR("Invalid page", "\"page\""),
     "again from its start", END_BAD_WINDOW, .sent_cursor = true, .cursor_expired = true},
    {"BR-005 whatever the words", "costs", ADMIN, 400, ERROR("Bad request", "null"), "Bad request",
     END_BAD_WINDOW, .sent_cursor = true, .cursor_expired = true},
    {"BR-005 without a token it is a real error", "costs", ADMIN, 400, ERROR("Bad request", "null"),
     "Bad request", END_BAD_WINDOW, .sent_cursor = false},
    {"costs by key too far back", "costs", ADMIN, 400,
     ERROR("Grouping by api_key_id is possible from 1764979200 on", "\"start_time\""), "too old",
     END_BAD_WINDOW, .narrow_grouping = true},
    {"other feeds have no such limit", "images", ADMIN, 400,
     ERROR("start_time is bad", "\"start_time\""), "start_time is bad", END_BAD_WINDOW,
     .sent_cursor = false},
    {"BR-008 the future names the clock", "costs", ADMIN, 400,
     ERROR("start_time must not be in the future", "\"start_time\""), "clock", END_BAD_WINDOW,
     .sent_cursor = false},
    {"a rate limit", "costs", ADMIN, 429, ERROR("Slow down", "null"), "Slow down", END_RATE_LIMITED,
     .sent_cursor = false},
    {"a server's timeout", "costs", ADMIN, 408, "", "408", END_TIMEOUT, .sent_cursor = false},
    {"a failure", "costs", ADMIN, 503, ERROR("Overloaded", "null"), "Overloaded",
     END_PROVIDER_ERROR, .sent_cursor = false},
    {"BR-028 a gateway's page", "costs", ADMIN, 502, "<html>\n<b>Bad Gateway</b></html>",
     "Bad Gateway", END_PROVIDER_ERROR, .sent_cursor = false},
    {"a redirect", "costs", ADMIN, 302, "", "never followed", END_PROTOCOL, .sent_cursor = false},
    {"no content", "costs", ADMIN, 204, "", "204", END_PROTOCOL, .sent_cursor = false},
    {"BR-007 the key in the answer is not repeated", "costs", ADMIN, 400,
     ERROR("You sent Bearer " ADMIN " with it", "null"), "You sent", END_BAD_WINDOW,
     .sent_cursor = false},
};

static void test_refusals(void **state)
{
    struct arena *a = arena_new();

    (void)state;
    for (size_t i = 0; i < sizeof(refusal_cases) / sizeof(refusal_cases[0]); i++) {
        const struct refusal_case *c = &refusal_cases[i];
        struct secret key = key_of(c->key);
        struct question q = {.feed = openai_feed(c->feed),
                             .cursor = c->sent_cursor ? TEXT_LIT("tok") : TEXT_NULL};
        struct refusal got;
        openai_provider.refused(&got, a, &key, &q, c->http_status, text_of(c->body));
        if (got.ending != c->want || got.cursor_expired != c->cursor_expired ||
            got.limit_refused != c->limit_refused || got.narrow_grouping != c->narrow_grouping ||
            !strstr(got.detail, c->want_detail) || strlen(got.detail) > 500)
            fail_msg("%s: got %s %d %d %d \"%s\" (%zu bytes), want %s %d %d %d \"%s\"", c->name,
                     ending_name(got.ending), got.cursor_expired, got.limit_refused,
                     got.narrow_grouping, got.detail, strlen(got.detail), ending_name(c->want),
                     c->cursor_expired, c->limit_refused, c->narrow_grouping, c->want_detail);
        if (strstr(got.detail, c->key))
            fail_msg("%s: the detail holds the key", c->name);
        secret_wipe(&key);
        arena_reset(a);
    }
    arena_free(&a);
}

static void test_long_refusals_stay_short(void **state)
{
    static const uint32_t statuses[] = {200, 302, 400, 401, 403, 404, 408, 422, 429, 500};
    struct arena *a = arena_new();
    struct secret key = key_of("sk-proj-x");
    char *body = arena_alloc(a, 1, 100001);

    (void)state;
    memset(body, 'x', 100000);
    for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++) {
        struct question q = {.feed = openai_feed("code_interpreter_sessions"),
                             .cursor = i % 2 == 0 ? TEXT_LIT("tok") : TEXT_NULL};
        struct refusal got;
        openai_provider.refused(&got, a, &key, &q, statuses[i], text_of(body));
        assert_true(strlen(got.detail) <= 500);
    }
    secret_wipe(&key);
    arena_free(&a);
}

/* ---- base URLs ---- */

static const struct {
    const char *url;
    const char *allow_http;
    const char *want; /* NULL: may be used; else a part of the reason */
} base_url_cases[] = {
    {"https://api.openai.com/v1", "0", NULL},
    {"HTTPS://api.openai.com", "0", NULL},
    {"https://proxy.example:8443/openai/v1/", "0", NULL},
    {"http://127.0.0.1:9000/v1", "0", NULL},
    {"http://localhost:9000", "0", NULL},
    {"http://[::1]:9000/v1", "0", NULL},
    {"http://sim:9000/v1", "1", NULL},
    {"http://sim:9000/v1", "0", "UF_ALLOW_HTTP=sim "},
    {"http://sim:9000/v1", "simulator,SIM", NULL},
    {"http://sim/", "sim", NULL},
    {"http://sim:9000/v1", "simulator,si", "unencrypted"},
    {"http://sim.example/v1", "sim", "unencrypted"},
    {"http://[::2]:9000/", "[::2]", NULL},
    {"http://10.0.0.1/", "0", "unencrypted"},
    {"http://[::2]/", "0", "unencrypted"},
    {"http://127.0.0.1.example.com/", "0", "unencrypted"},
    {"http://localhost.example.com/", "0", "unencrypted"},
    {"http://127.0.0.1@example.com/", "1", "'@'"},
    {"https://u:p@example.com/", "0", "'@'"},
    {"https://example.com/v1?key=1", "0", "write https://example.com/v1"},
    {"https://example.com/#x", "0", "write https://example.com/"},
    {"api.openai.com/v1", "0", "https://"},
    {"ftp://example.com", "1", "https://"},
    {"", "1", "https://"},
    {"https://", "0", "host"},
    {"https:///v1", "0", "host"},
    {"https://exa mple.com", "0", "blank"},
    {"https://example.com/\n", "0", "blank"},
    {"https://example.com\\@evil.example/", "0", "blank"},
    {"https://example.com:0/", "0", "port"},
    {"https://example.com:65536/", "0", "port"},
    {"https://example.com:x/", "0", "port"},
    {"https://[::1", "0", "host"},
    {"https://[zz]/", "0", "host"},
};

static void test_base_urls(void **state)
{
    struct arena *a = arena_new();

    (void)state;
    for (size_t i = 0; i < sizeof(base_url_cases) / sizeof(base_url_cases[0]); i++) {
        const char *want = base_url_cases[i].want;
        const char *got = base_url_refused(a, base_url_cases[i].url, base_url_cases[i].allow_http);
        if ((want == NULL) != (got == NULL) || (want && !strstr(got, want)))
            fail_msg("%s: got %s, want %s", base_url_cases[i].url, got ? got : "no refusal",
                     want ? want : "no refusal");
    }
    arena_free(&a);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ask),
        cmocka_unit_test(test_ask_refuses_keys_that_split_a_header),
        cmocka_unit_test(test_every_feed),
        cmocka_unit_test(test_feed_table),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_long_refusals_stay_short),
        cmocka_unit_test(test_base_urls),
    };

    return cmocka_run_group_tests_name("openai", tests, NULL, NULL);
}
