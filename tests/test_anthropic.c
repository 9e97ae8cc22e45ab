/* Anthropic's three reports: how they are asked for, what their rows become, what refusals mean. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/providers/provider.h"
#include "common/providers/reader.h"
#include "tests/fakes/record_print.h"

#define T0    INT64_C(1793923200) /* 2026-11-06T00:00:00Z */
#define ADMIN "sk-ant-admin01-abcdefghijklmnopqrstuvwxyz"

static const struct feed *feed_named(const char *name)
{
    const struct feed *feed = feed_find(provider_find(TEXT_LIT("anthropic")), text_of(name));

    assert_non_null(feed);
    return feed;
}

static struct question question_of(const char *feed, int64_t from_s, int64_t to_s,
                                   uint32_t bucket_s)
{
    return (struct question){.feed = feed_named(feed),
                             .window = {.feed = text_of(feed),
                                        .from_us = from_s * US_PER_S,
                                        .to_us = to_s * US_PER_S,
                                        .bucket_s = bucket_s}};
}

/* ---- ask ---- */

#define HOST "https://api.anthropic.com/v1/organizations/"
#define BY_MESSAGE                                                                                 \
    "&group_by%5B%5D=account_id&group_by%5B%5D=api_key_id&group_by%5B%5D=context_window"           \
    "&group_by%5B%5D=inference_geo&group_by%5B%5D=model&group_by%5B%5D=service_account_id"         \
    "&group_by%5B%5D=service_tier&group_by%5B%5D=workspace_id"

static const struct {
    const char *name, *feed;
    int64_t from_s, to_s;
    uint32_t bucket_s;
    bool default_limit;
    const char *cursor, *want;
} ask_cases[] = {
    {"messages by the hour, open", "messages", T0, 0, 3600, false, NULL,
     HOST
     "usage_report/messages?starting_at=2026-11-06T00:00:00Z&bucket_width=1h&limit=168" BY_MESSAGE},
    {"messages by the minute, a page token with what a URL can not hold", "messages", T0, T0 + 7200,
     60, false, "a+b/c=&d%25",
     HOST "usage_report/messages?starting_at=2026-11-06T00:00:00Z&ending_at=2026-11-06T02:00:00Z"
          "&bucket_width=1m&limit=120" BY_MESSAGE "&page=a%2Bb%2Fc%3D%26d%2525"},
    {"BR-010 never more than the maximum", "messages", T0 - INT64_C(400) * 86400, T0, 86400, false,
     NULL,
     HOST "usage_report/messages?starting_at=2025-10-02T00:00:00Z&ending_at=2026-11-06T00:00:00Z"
          "&bucket_width=1d&limit=31" BY_MESSAGE},
    {"BR-010 nor any once it was refused", "messages", T0, 0, 3600, true, NULL,
     HOST "usage_report/messages?starting_at=2026-11-06T00:00:00Z&bucket_width=1h" BY_MESSAGE},
    {"costs are daily", "cost_report", T0, 0, 86400, false, NULL,
     HOST "cost_report?starting_at=2026-11-06T00:00:00Z&bucket_width=1d&limit=31"
          "&group_by%5B%5D=workspace_id&group_by%5B%5D=description"},
    {"Claude Code names one day", "claude_code", T0, T0 + 86400, 86400, false, NULL,
     HOST "usage_report/claude_code?starting_at=2026-11-06&limit=1000"},
    {"and goes on by its token", "claude_code", T0, T0 + 86400, 86400, false, "page_2",
     HOST "usage_report/claude_code?starting_at=2026-11-06&limit=1000&page=page_2"},
    {"a width the feed lacks is refused", "cost_report", T0, 0, 3600, false, NULL, NULL},
};

static void test_ask(void **state)
{
    struct arena *a = arena_new();
    struct secret key = secret_copy(ADMIN, strlen(ADMIN));
    const struct credential who = {"https://api.anthropic.com/", &key};

    (void)state;
    for (size_t i = 0; i < sizeof(ask_cases) / sizeof(ask_cases[0]); i++) {
        struct question q = question_of(ask_cases[i].feed, ask_cases[i].from_s, ask_cases[i].to_s,
                                        ask_cases[i].bucket_s);
        const char *want = ask_cases[i].want;
        struct request got = {0};
        struct err err = {0};
        enum status st;
        q.how.default_limit = ask_cases[i].default_limit;
        q.cursor = text_of(ask_cases[i].cursor);
        st = anthropic_provider.ask(&got, a, &who, &q, &err);
        if (st != (want ? ST_OK : ST_REJECT) || (want && strcmp(got.url, want) != 0))
            fail_msg("%s: got %d %s (%s), want %s", ask_cases[i].name, (int)st,
                     got.url ? got.url : "", err.text, want ? want : "a refusal");
        if (st == ST_OK) {
            assert_string_equal(got.auth.name, "x-api-key");
            assert_int_equal(got.auth.value.len, strlen(ADMIN));
            assert_memory_equal(got.auth.value.at, ADMIN, strlen(ADMIN));
            assert_string_equal(got.headers[1], "anthropic-version: 2023-06-01");
        }
        secret_wipe(&got.auth.value);
    }
    secret_wipe(&key);
    arena_free(&a);
}

/* ---- what comes back ---- */

#define PAGE(rows) "{\"data\":[" rows "],\"has_more\":false,\"next_page\":null}"
#define HOUR(results)                                                                              \
    PAGE("{\"starting_at\":\"2026-11-06T00:00:00Z\",\"ending_at\":\"2026-11-06T01:00:00Z\","       \
         "\"results\":[" results "]}")
#define DAY(results)                                                                               \
    PAGE("{\"starting_at\":\"2026-11-06T00:00:00Z\",\"ending_at\":\"2026-11-07T00:00:00Z\","       \
         "\"results\":[" results "]}")
#define NOBODY                                                                                     \
    ",\"api_key_id\":null,\"workspace_id\":null,\"model\":\"m\",\"service_tier\":\"standard\","    \
    "\"context_window\":null,\"inference_geo\":null,\"account_id\":null,"                          \
    "\"service_account_id\":null"
#define COST(amount, rest) "{\"amount\":" amount ",\"currency\":\"USD\"" rest "}"
#define CODE(who, rest)                                                                            \
    "{\"date\":\"2026-11-06T00:00:00Z\",\"actor\":" who ",\"organization_id\":\"o\","              \
    "\"customer_type\":\"api\",\"terminal_type\":\"vscode\"" rest "}"
#define ANN   "{\"type\":\"user_actor\",\"email_address\":\"Ann@Example.com\"}"
#define KEY_7 "{\"type\":\"api_actor\",\"api_key_name\":\"ci\"}"
#define MODEL(name, in, cents)                                                                     \
    "{\"model\":\"" name "\",\"tokens\":{\"input\":" in ",\"output\":5,\"cache_read\":70,"         \
    "\"cache_creation\":30},\"estimated_cost\":{\"amount\":" cents ",\"currency\":\"USD\"}}"
/* printf %s 'ann@example.com' | openssl dgst -sha256 -mac HMAC -macopt hexkey:0707..., the first 32
 */
#define PERSON "person_61b55fab9c26d32d104ec34ed67a68f9"

static const struct {
    const char *name, *feed;
    uint32_t bucket_s;
    const char *body, *want;
} read_cases[] = {
    {"messages: all input is uncached, read and written", "messages", 3600,
     HOUR("{\"uncached_input_tokens\":15230,\"cache_read_input_tokens\":88000,"
          "\"cache_creation\":{\"ephemeral_5m_input_tokens\":4100,"
          "\"ephemeral_1h_input_tokens\":10},\"output_tokens\":6120,"
          "\"server_tool_use\":{\"web_search_requests\":3},\"api_key_id\":\"apikey_1\","
          "\"workspace_id\":\"wrkspc_1\",\"model\":\"claude-sonnet-5\","
          "\"service_tier\":\"standard\",\"context_window\":\"0-200k\","
          "\"inference_geo\":\"global\",\"account_id\":\"user_1\","
          "\"service_account_id\":\"svac_1\"}"),
     "1793923200/3600 project_id=wrkspc_1 user_id=user_1 api_key_id=apikey_1 "
     "model=claude-sonnet-5 service_tier=standard "
     "dims={\"context_window\":\"0-200k\",\"inference_geo\":\"global\","
     "\"service_account_id\":\"svac_1\"} input_tokens=107340 cached_input_tokens=88000 "
     "cache_write_tokens=4110 output_tokens=6120 quantity=3 quantity_unit=web_searches "
     "extra={\"cache_creation.ephemeral_1h_input_tokens\":10,"
     "\"cache_creation.ephemeral_5m_input_tokens\":4100}\n"},
    {"BR-038 200 uncached and 800 read are 1000", "messages", 3600,
     HOUR(
         "{\"uncached_input_tokens\":200,\"cache_read_input_tokens\":800,\"output_tokens\":1" NOBODY
         "}"),
     "1793923200/3600 model=m service_tier=standard input_tokens=1000 cached_input_tokens=800 "
     "output_tokens=1\n"},
    {"BR-037 written for 1 h and 5 min", "messages", 3600,
     HOUR("{\"uncached_input_tokens\":0,\"output_tokens\":1,"
          "\"cache_creation\":{\"ephemeral_1h_input_tokens\":700,"
          "\"ephemeral_5m_input_tokens\":300}" NOBODY "}"),
     "1793923200/3600 model=m service_tier=standard input_tokens=1000 cache_write_tokens=1000 "
     "output_tokens=1 extra={\"cache_creation.ephemeral_1h_input_tokens\":700,"
     "\"cache_creation.ephemeral_5m_input_tokens\":300}\n"},
    {"BR-037 written for 1 h alone", "messages", 3600,
     HOUR("{\"uncached_input_tokens\":0,\"output_tokens\":1,"
          "\"cache_creation\":{\"ephemeral_1h_input_tokens\":700}" NOBODY "}"),
     "1793923200/3600 model=m service_tier=standard input_tokens=700 cache_write_tokens=700 "
     "output_tokens=1 extra={\"cache_creation.ephemeral_1h_input_tokens\":700}\n"},
    {"BR-037 not reported is null, not 0", "messages", 3600,
     HOUR("{\"uncached_input_tokens\":5,\"output_tokens\":1" NOBODY "}"),
     "1793923200/3600 model=m service_tier=standard input_tokens=5 output_tokens=1\n"},
    {"a later field is kept", "messages", 3600,
     HOUR("{\"uncached_input_tokens\":5,\"output_tokens\":1,\"speed\":\"fast\","
          "\"server_tool_use\":{\"web_search_requests\":0,\"web_fetch_requests\":4}" NOBODY "}"),
     "1793923200/3600 model=m service_tier=standard dims={\"speed\":\"fast\"} input_tokens=5 "
     "output_tokens=1 quantity=0 quantity_unit=web_searches "
     "extra={\"server_tool_use.web_fetch_requests\":4}\n"},
    {"a row without its tokens is set aside", "messages", 3600, HOUR("{\"output_tokens\":1}"),
     "bad $.data[0].results[0].uncached_input_tokens: uncached_input_tokens: missing\n"},
    {"BR-034 cents become dollars by moving the point", "cost_report", 86400,
     DAY(COST("\"412.3875\"", ",\"workspace_id\":\"wrkspc_1\",\"description\":\"Output Tokens\","
                              "\"cost_type\":\"tokens\",\"token_type\":\"output_tokens\","
                              "\"model\":\"claude-sonnet-5\",\"service_tier\":\"standard\","
                              "\"context_window\":\"0-200k\",\"inference_geo\":\"global\"")),
     "1793923200/86400 project_id=wrkspc_1 model=claude-sonnet-5 service_tier=standard "
     "line_item=Output Tokens dims={\"context_window\":\"0-200k\",\"cost_type\":\"tokens\","
     "\"inference_geo\":\"global\",\"token_type\":\"output_tokens\"} cost_amount=4.123875 "
     "currency=USD\n"},
    {"Claude Code by a key", "claude_code", 86400,
     PAGE(CODE(KEY_7, ",\"core_metrics\":{\"num_sessions\":1},\"model_breakdown\":[]")),
     "1793923200/86400 dims={\"actor.api_key_name\":\"ci\",\"actor.type\":\"api_actor\","
     "\"customer_type\":\"api\",\"terminal_type\":\"vscode\"} quantity=1 "
     "quantity_unit=sessions\n"},
    {"a record of another day", "claude_code", 86400,
     PAGE("{\"date\":\"2026-11-07\",\"actor\":" ANN "}"),
     "dead $.data[0]: $.data[0]: it is outside of the window that was asked for\n"},
    {"a model's row without its tokens is set aside, the record's goes in", "claude_code", 86400,
     PAGE(CODE(KEY_7, ",\"core_metrics\":{\"num_sessions\":1},\"model_breakdown\":[{\"model\":"
                      "\"opus\"}]")),
     "1793923200/86400 dims={\"actor.api_key_name\":\"ci\",\"actor.type\":\"api_actor\","
     "\"customer_type\":\"api\",\"terminal_type\":\"vscode\"} quantity=1 quantity_unit=sessions\n"
     "bad $.data[0].model_breakdown[].tokens.output: model_breakdown[].tokens.output: missing\n"},
    {"a day without anything replaces what was there", "claude_code", 86400, PAGE(""), ""},
};

static struct record_page read_body(struct arena *a, const char *feed, uint32_t bucket_s,
                                    const char *body, const struct people *people,
                                    struct page_notes *notes)
{
    struct page page = {.asked = {.feed = text_of(feed),
                                  .from_us = T0 * US_PER_S,
                                  .to_us = (T0 + 86400) * US_PER_S,
                                  .bucket_s = bucket_s},
                        .body = text_of(body)};
    struct raw_page raw = {feed_named(feed), &page, people};
    struct record_page got;
    struct err err = {0};
    enum status st = reader_read(&got, notes, a, &raw, &err);

    assert_int_equal(st, got.dead.reason.at ? ST_REJECT : ST_OK);
    return got;
}

static void test_read(void **state)
{
    struct arena *a = arena_new();
    struct secret none = {0};
    const struct people people = {&none, false};

    (void)state;
    for (size_t i = 0; i < sizeof(read_cases) / sizeof(read_cases[0]); i++) {
        struct page_notes notes;
        struct record_page got = read_body(a, read_cases[i].feed, read_cases[i].bucket_s,
                                           read_cases[i].body, &people, &notes);
        const char *text = record_page_print(a, &got);
        if (strcmp(text, read_cases[i].want) != 0)
            fail_msg("%s: got %swant %s", read_cases[i].name, text, read_cases[i].want);
        if (!got.dead.reason.at)
            assert_int_equal(got.n_spans, 1);
    }
    arena_free(&a);
}

/* Lines of one page in the order of their names, since row keys scatter them. */
static void assert_rows(const char *name, const struct record_page *got, struct arena *a,
                        const char *const *want)
{
    const char *text = record_page_print(a, got);
    size_t len = 0;

    for (; *want; want++) {
        if (!strstr(text, *want))
            fail_msg("%s: got %swant also %s", name, text, *want);
        len += strlen(*want);
    }
    if (strlen(text) != len)
        fail_msg("%s: more than wanted: %s", name, text);
}

static void test_costs_are_exact(void **state)
{
    static const char *const want[] = {
        "1793923200/86400 line_item=a cost_amount=-12.50 currency=USD\n",
        "1793923200/86400 line_item=b cost_amount=0.01 currency=USD\n",
        "1793923200/86400 line_item=c cost_amount=123456789012345678.90123456789012345678 "
        "currency=USD\n",
        NULL};
    struct arena *a = arena_new();
    struct page_notes notes;
    struct record_page got =
        read_body(a, "cost_report", 86400,
                  DAY(COST("\"-1250\"", ",\"description\":\"a\"") "," COST(
                      "\"1\"", ",\"description\":\"b\"") "," COST("\"12345678901234567890."
                                                                  "123456789012345678\"",
                                                                  ",\"description\":\"c\"")),
                  NULL, &notes);

    (void)state;
    assert_rows("BR-034, BR-040 cents, a credit, digits that no double holds", &got, a, want);
    arena_free(&a);
}

#define WORK                                                                                       \
    ",\"core_metrics\":{\"num_sessions\":4,\"lines_of_code\":{\"added\":120,\"removed\":7},"       \
    "\"commits_by_claude_code\":2,\"pull_requests_by_claude_code\":1},"                            \
    "\"tool_actions\":{\"edit_tool\":{\"accepted\":9,\"rejected\":1}}"
#define OWNER(id)                                                                                  \
    "1793923200/86400 user_id=" id " dims={\"actor.type\":\"user_actor\","                         \
    "\"customer_type\":\"api\",\"terminal_type\":\"vscode\"} "
#define OWNER_OF(id, model)                                                                        \
    "1793923200/86400 user_id=" id " model=" model " dims={\"actor.type\":\"user_actor\","         \
    "\"customer_type\":\"api\",\"terminal_type\":\"vscode\"} "

/* A day in two answers: the same person twice, in two spellings, adds up. */
static const char joined[] = "[" PAGE(CODE(
    ANN, WORK ",\"model_breakdown\":[" MODEL("opus", "100", "12.5") "," MODEL(
             "haiku", "1", "0.0001") "]")) "," PAGE(CODE("{\"type\":\"user_actor\","
                                                         "\"email_address\":\"ann@example.com\"}",
                                                         ",\"core_metrics\":{\"num_sessions\":1},"
                                                         "\"model_breakdown\":[" MODEL(
                                                             "opus", "7", "1e2") "]")) "]";

static void test_claude_code(void **state)
{
    static const char *const want[] = {
        OWNER(PERSON) "quantity=5 quantity_unit=sessions extra={\"core_metrics.commits_by_claude_"
                      "code\":2,\"core_metrics.lines_of_code.added\":120,"
                      "\"core_metrics.lines_of_code.removed\":7,"
                      "\"core_metrics.pull_requests_by_claude_code\":1,"
                      "\"tool_actions.edit_tool.accepted\":9,"
                      "\"tool_actions.edit_tool.rejected\":1}\n",
        OWNER_OF(PERSON, "opus") "input_tokens=307 cached_input_tokens=140 cache_write_tokens=60 "
                                 "output_tokens=10 currency=USD extra={\"estimated_cost\":1.125}\n",
        OWNER_OF(PERSON, "haiku") "input_tokens=101 cached_input_tokens=70 cache_write_tokens=30 "
                                  "output_tokens=5 currency=USD "
                                  "extra={\"estimated_cost\":0.000001}\n",
        NULL};
    struct arena *a = arena_new();
    char bytes[32];
    struct secret key;
    struct people people = {&key, false};
    struct page_notes notes;
    struct record_page got;

    (void)state;
    memset(bytes, 7, sizeof(bytes));
    key = secret_copy(bytes, sizeof(bytes));
    got = read_body(a, "claude_code", 86400, joined, &people, &notes);
    assert_rows("a day in two answers", &got, a, want);
    assert_int_equal(notes.people_dropped, 0);
    assert_int_equal(got.n_spans, 1);
    assert_int_equal(got.spans[0].from_us, T0 * US_PER_S);
    assert_int_equal(got.spans[0].to_us, (T0 + 86400) * US_PER_S);
    secret_wipe(&key);
    arena_free(&a);
}

/* Without a key for the hash nobody is told apart; with UF_KEEP_EMAIL the address stays. */
static void test_people(void **state)
{
    struct arena *a = arena_new();
    struct secret none = {0};
    struct people people = {&none, false};
    struct page_notes notes;
    struct record_page got = read_body(a, "claude_code", 86400, joined, &people, &notes);
    const char *text = record_page_print(a, &got);

    (void)state;
    assert_null(strstr(text, "user_id"));
    assert_null(strstr(text, "xample"));
    assert_int_equal(notes.people_dropped, 2);
    people.keep_email = true;
    got = read_body(a, "claude_code", 86400, joined, &people, &notes);
    assert_non_null(strstr(record_page_print(a, &got), "user_id=ann@example.com"));
    /* what is set aside or buried shows no address, whatever is kept elsewhere */
    got = read_body(a, "claude_code", 86400,
                    PAGE(CODE(ANN, ",\"core_metrics\":{\"num_sessions\":true}")), &people, &notes);
    assert_int_equal(got.n_bad_rows, 1);
    assert_null(memmem(got.bad_rows[0].body.at, got.bad_rows[0].body.len, "xample", 6));
    arena_free(&a);
}

/* ---- peek ---- */

static const struct {
    const char *name, *feed, *body;
    bool good, has_more;
    const char *cursor;
    size_t n_results;
} peek_cases[] = {
    {"a page of buckets", "messages", HOUR("{},{}"), true, false, NULL, 2},
    {"records, more follow", "claude_code",
     "{\"data\":[" CODE(ANN, "") "],\"has_more\":true,\"next_page\":\"p2\"}", true, true, "p2", 1},
    {"a day without any", "claude_code", PAGE(""), true, false, NULL, 0},
    {"BR-002 more without a token", "claude_code",
     "{\"data\":[],\"has_more\":true,\"next_page\":null}", false, false, NULL, 0},
    {"a record of another day", "claude_code", PAGE("{\"date\":\"2026-11-05\"}"), false, false,
     NULL, 0},
    {"a record without its day", "claude_code", PAGE("{}"), false, false, NULL, 0},
    {"BR-029 an error with 200", "messages",
     "{\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"try later\"}}", false,
     false, NULL, 0},
    {"a joined page is no answer", "messages", "[" PAGE("") "]", false, false, NULL, 0},
};

static void test_peek(void **state)
{
    struct arena *a = arena_new();

    (void)state;
    for (size_t i = 0; i < sizeof(peek_cases) / sizeof(peek_cases[0]); i++) {
        bool hourly = strcmp(peek_cases[i].feed, "messages") == 0;
        struct question q = question_of(peek_cases[i].feed, T0, T0 + 86400, hourly ? 3600 : 86400);
        struct peek got = {0};
        struct err err = {0};
        enum status st = anthropic_provider.peek(&got, a, &q, text_of(peek_cases[i].body), &err);
        if ((st == ST_OK) != peek_cases[i].good || got.has_more != peek_cases[i].has_more ||
            got.n_results != peek_cases[i].n_results ||
            !text_eq(got.cursor, text_of(peek_cases[i].cursor)))
            fail_msg("%s: got %d more=%d %zu results (%s)", peek_cases[i].name, (int)st,
                     got.has_more, got.n_results, err.text);
    }
    arena_free(&a);
}

/* ---- refusals ---- */

#define ERROR(type, message)                                                                       \
    "{\"type\":\"error\",\"error\":{\"type\":\"" type "\",\"message\":\"" message                  \
    "\"},\"request_id\":\"req_1\"}"

static const struct {
    const char *name, *feed, *key;
    uint32_t http_status;
    const char *body, *want_detail;
    enum ending want;
    bool sent_cursor, cursor_expired, limit_refused;
} refusal_cases[] = {
    {"a workspace's key", "messages", "sk-ant-api03-abcdefghijklmnop", 401,
     ERROR("authentication_error", "invalid x-api-key"), "sk-ant-admin", END_WRONG_KEY_KIND, false,
     false, false},
    {"a workspace's key that is known but may not", "messages", "sk-ant-api03-abcdefghijklmnop",
     403, ERROR("permission_error", "no"), "rotate-key", END_WRONG_KEY_KIND, false, false, false},
    {"an admin key that was revoked", "messages", ADMIN, 401,
     ERROR("authentication_error", "invalid x-api-key"), "revoked", END_AUTH_INVALID, false, false,
     false},
    {"BR-026 a missing right names the feed", "claude_code", ADMIN, 403,
     ERROR("permission_error", "no"), "may not read claude_code", END_SCOPE_MISSING, false, false,
     false},
    {"BR-007 too recent a start for costs", "cost_report", ADMIN, 400,
     ERROR("invalid_request_error", "Invalid date range: ending date must be after starting date"),
     "so recent a start", END_BAD_WINDOW, false, false, false},
    {"BR-010 a limit", "messages", ADMIN, 400,
     ERROR("invalid_request_error", "limit: must be at most 168"), "at most 168", END_BAD_WINDOW,
     false, false, true},
    {"BR-005 a token of another query, or an expired one", "messages", ADMIN, 400,
     ERROR("invalid_request_error", "Invalid page"), "from its start", END_BAD_WINDOW, true, true,
     false},
    {"BR-005 gone", "messages", ADMIN, 410, ERROR("invalid_request_error", "refreshed"),
     "from its start", END_BAD_WINDOW, true, true, false},
    {"BR-023 an endpoint that has gone", "claude_code", ADMIN, 404,
     ERROR("not_found_error", "Not found"),
     "There is no /v1/organizations/usage_report/claude_code", END_PROVIDER_ERROR, false, false,
     false},
    {"a rate limit", "messages", ADMIN, 429, ERROR("rate_limit_error", "slow down"), "slow down",
     END_RATE_LIMITED, false, false, false},
    {"overloaded", "messages", ADMIN, 529, ERROR("overloaded_error", "Overloaded"), "529",
     END_PROVIDER_ERROR, false, false, false},
    {"a timeout over there", "messages", ADMIN, 504, ERROR("timeout_error", "late"), "late",
     END_TIMEOUT, false, false, false},
    {"a redirect", "messages", ADMIN, 302, "", "never followed", END_PROTOCOL, false, false, false},
};

static void test_refusals(void **state)
{
    struct arena *a = arena_new();

    (void)state;
    for (size_t i = 0; i < sizeof(refusal_cases) / sizeof(refusal_cases[0]); i++) {
        struct secret key = secret_copy(refusal_cases[i].key, strlen(refusal_cases[i].key));
        struct question q = {.feed = feed_named(refusal_cases[i].feed)};
        struct refusal got;
        if (refusal_cases[i].sent_cursor)
            q.cursor = TEXT_LIT("tok");
        anthropic_provider.refused(&got, a, &key, &q, refusal_cases[i].http_status,
                                   text_of(refusal_cases[i].body));
        if (got.ending != refusal_cases[i].want ||
            got.cursor_expired != refusal_cases[i].cursor_expired ||
            got.limit_refused != refusal_cases[i].limit_refused || strlen(got.detail) > 500 ||
            !strstr(got.detail, refusal_cases[i].want_detail))
            fail_msg("%s: got %s %d %d \"%s\"", refusal_cases[i].name, ending_name(got.ending),
                     got.cursor_expired, got.limit_refused, got.detail);
        secret_wipe(&key);
    }
    arena_free(&a);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ask),
        cmocka_unit_test(test_read),
        cmocka_unit_test(test_costs_are_exact),
        cmocka_unit_test(test_claude_code),
        cmocka_unit_test(test_people),
        cmocka_unit_test(test_peek),
        cmocka_unit_test(test_refusals),
    };

    return cmocka_run_group_tests_name("anthropic", tests, NULL, NULL);
}
