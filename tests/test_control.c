/* The control socket's answers to requests that no database is needed to refuse, and what whoever
 * asked makes of an answer. */
#include "scheduler/control.h"

#include "common/reply.h"
#include "tests/check.h"

static const struct {
    const char *name, *request, *want; /* words of the error */
} cases[] = {
    {"nothing", "", "empty"},
    {"no JSON", "status", "JSON"},
    {"torn JSON", "{\"cmd\":\"sta", "JSON"},
    {"two objects", "{\"cmd\":\"status\"}{\"cmd\":\"status\"}", "JSON"},
    {"a list", "[{\"cmd\":\"status\"}]", "send one JSON object, as {\"cmd\":\"status\"}"},
    {"a text", "\"status\"", "send one JSON object"},
    {"null", "null", "send one JSON object"},
    {"no command", "{}", "\"cmd\" is missing"},
    {"null for a command", "{\"cmd\":null}", "\"cmd\" is missing"},
    {"a number for a command", "{\"cmd\":1}", "\"cmd\" must be a text"},
    {"an object for a command", "{\"cmd\":{}}", "\"cmd\" must be a text"},
    {"another command", "{\"cmd\":\"fly\"}",
     "one of run, inject, run_status, status, pause, resume"},
    {"upper case", "{\"cmd\":\"STATUS\"}", "unknown \"cmd\""},
    {"an empty command", "{\"cmd\":\"\"}", "unknown \"cmd\""},
    {"a command with a zero byte", "{\"cmd\":\"status\\u0000\"}", "unknown \"cmd\""},
    {"run: account is a number", "{\"cmd\":\"run\",\"account\":7}", "\"account\" must be a text"},
    {"run: account is a list", "{\"cmd\":\"run\",\"account\":[\"a\"]}",
     "\"account\" must be a text"},
    {"inject: no account", "{\"cmd\":\"inject\",\"from\":\"2026-10-01\",\"to\":\"2026-11-01\"}",
     "\"account\" is missing"},
    {"inject: feed is a boolean",
     "{\"cmd\":\"inject\",\"account\":\"a\",\"feed\":true,\"from\":\"2026-10-01\","
     "\"to\":\"2026-11-01\"}",
     "\"feed\" must be a text"},
    {"inject: no from", "{\"cmd\":\"inject\",\"account\":\"a\",\"to\":\"2026-11-01\"}",
     "\"from\" is missing"},
    {"inject: no to", "{\"cmd\":\"inject\",\"account\":\"a\",\"from\":\"2026-10-01\"}",
     "\"to\" is missing"},
    {"inject: seconds since 1970",
     "{\"cmd\":\"inject\",\"account\":\"a\",\"from\":1793491200,\"to\":\"2026-11-01\"}",
     "\"from\" must be a text"},
    {"inject: no such day",
     "{\"cmd\":\"inject\",\"account\":\"a\",\"from\":\"2026-02-30\",\"to\":\"2026-11-01\"}",
     "\"from\": "},
    {"inject: no zone",
     "{\"cmd\":\"inject\",\"account\":\"a\",\"from\":\"2026-10-01\","
     "\"to\":\"2026-11-01T00:00:00\"}",
     "add Z for UTC"},
    {"inject: an end before its start",
     "{\"cmd\":\"inject\",\"account\":\"a\",\"from\":\"2020-11-01\",\"to\":\"2020-10-01\"}",
     "must lie before"},
    {"inject: no length",
     "{\"cmd\":\"inject\",\"account\":\"a\",\"from\":\"2020-11-01\",\"to\":\"2020-11-01\"}",
     "must lie before"},
    {"inject: the future",
     "{\"cmd\":\"inject\",\"account\":\"a\",\"from\":\"9000-01-01\",\"to\":\"9000-02-01\"}",
     "lies in the future"},
    {"inject: more than ten years",
     "{\"cmd\":\"inject\",\"account\":\"a\",\"from\":\"1999-01-01\",\"to\":\"2026-02-01\"}",
     "more than ten years"},
    {"run_status: no id", "{\"cmd\":\"run_status\"}", "\"run_id\" is missing"},
    {"run_status: a number", "{\"cmd\":\"run_status\",\"run_id\":3}", "\"run_id\" must be a text"},
    {"run_status: no UUID", "{\"cmd\":\"run_status\",\"run_id\":\"latest\"}", "must be a UUID"},
    {"a quote in what is wrong", "{\"cmd\" \"x\\\"y\"}", "JSON"},
};

/* Whatever is wrong, the answer is one JSON object that says so. */
static void refused(void **state)
{
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(cases); i++) {
        struct arena *a = arena_new();
        struct config cfg = {.bucket_s = 3600};
        struct ledger ledger = {.cfg = &cfg};
        struct fetchers fetchers = {.n = 0};
        struct control_view view = {.ledger = &ledger, .fetchers = &fetchers};
        struct json_doc doc = {0};
        struct err err = {0};
        struct text answer, error;

        pg_open(&ledger.pg, "postgresql://127.0.0.1:1/none", "public", "test");
        answer = control_answer(&view, a, text_of(cases[i].request));
        good &= same_int(cases[i].name, json_parse(&doc, a, answer, &err), ST_OK);
        good &= same_int(cases[i].name, json_is(json_member(doc.root, "ok"), JSON_FALSE), true);
        good &= same_int(cases[i].name, doc.root ? (int64_t)doc.root->n : 0, 2);
        error = json_string(json_member(doc.root, "error"));
        good &= has_words(cases[i].name, error.at ? arena_copy(a, error.at, error.len) : "",
                          cases[i].want);
        good &= same_int(cases[i].name, view.woken, false);
        good &= same_int(cases[i].name, pg_connected(ledger.pg), false);
        pg_close(&ledger.pg);
        arena_free(&a);
    }
    assert_true(good);
}

static void postgres_away_is_said(void **state)
{
    static const char *const requests[] = {
        "{\"cmd\":\"run\"}", "{\"cmd\":\"status\"}", "{\"cmd\":\"pause\"}",
        "{\"cmd\":\"run_status\",\"run_id\":\"01020304-0506-4708-890a-0b0c0d0e0f10\"}",
        "{\"cmd\":\"inject\",\"account\":\"a\",\"from\":\"2020-10-01\",\"to\":\"2020-11-01\"}"};
    struct cron cron;
    struct err err;
    bool good = true;

    (void)state;
    assert_int_equal(cron_parse(&cron, TEXT_LIT("*/15 * * * *"), &err), ST_OK);
    for (size_t i = 0; i < ROWS(requests); i++) {
        struct arena *a = arena_new();
        struct config cfg = {.bucket_s = 3600, .instance = "s1"};
        struct ledger ledger = {.cfg = &cfg, .slots = {.schedule = cron}};
        struct fetchers fetchers = {.n = 0};
        struct control_view view = {.ledger = &ledger, .fetchers = &fetchers};
        struct json_doc doc = {0};
        struct text answer;

        pg_open(&ledger.pg, "postgresql://127.0.0.1:1/none", "public", "test");
        answer = control_answer(&view, a, text_of(requests[i]));
        good &= same_int(requests[i], json_parse(&doc, a, answer, &err), ST_OK);
        good &= same_int(requests[i], json_is(json_member(doc.root, "ok"), JSON_FALSE), true);
        good &=
            has_words(requests[i], arena_copy(a, answer.at, answer.len), "can not reach Postgres");
        good &= same_int(requests[i], json_is(json_member(doc.root, "temporary"), JSON_TRUE), true);
        good &= same_int(requests[i], view.paused || view.woken, false);
        pg_close(&ledger.pg);
        arena_free(&a);
    }
    assert_true(good);
}

static const struct {
    const char *name, *body, *want_words;
    enum status want;
    bool want_read;
} replies[] = {
    {"done", "{\"ok\":true,\"jobs\":1}", "", ST_OK, true},
    {"refused", "{\"ok\":false,\"error\":\"no such run\"}", "no such run", ST_REJECT, true},
    {"for now", "{\"ok\":false,\"error\":\"busy\",\"temporary\":true}", "busy", ST_RETRY, true},
    {"without a word", "{}", "", ST_REJECT, true},
    {"no object", "[]", "", ST_REJECT, true},
    {"torn", "{\"ok\":tr", "can not be read", ST_RETRY, false},
    {"nothing", "", "can not be read", ST_RETRY, false},
};

static void replies_are_read(void **state)
{
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(replies); i++) {
        struct arena *a = arena_new();
        const struct json *reply;
        struct err err = {0};

        good &= same_int(replies[i].name, reply_read(&reply, a, text_of(replies[i].body), &err),
                         replies[i].want);
        good &= has_words(replies[i].name, err.text, replies[i].want_words);
        good &= same_int(replies[i].name, reply != NULL, replies[i].want_read);
        arena_free(&a);
    }
    assert_true(good);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refused),
        cmocka_unit_test(postgres_away_is_said),
        cmocka_unit_test(replies_are_read),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
