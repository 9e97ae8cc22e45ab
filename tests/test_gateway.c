/* The gateway's parts that need no socket: keys and hosts, query strings, CSV, cursors, the spool.
 */
#include "common/json.h"
#include "gateway/access.h"
#include "gateway/params.h"
#include "gateway/routes.h"
#include "gateway/rowset.h"
#include "gateway/server.h"
#include "gateway/spool.h"
#include "gateway/trigger.h"

#include "tests/check.h"

/* ---- keys ---- */

#define KEY "0123456789abcdef0123456789abcdef"

static const struct {
    const char *name, *header;
    bool want;
} bearers[] = {
    {"the key", "Bearer " KEY, true},
    {"any case, blanks around", "bEARER   " KEY "  ", true},
    {"none", NULL, false},
    {"BR-098 undefined", "Bearer undefined", false},
    {"BR-098 null", "Bearer null", false},
    {"BR-098 empty", "Bearer ", false},
    {"BR-098 empty and short", "Bearer", false},
    {"no scheme", KEY, false},
    {"another scheme", "Basic " KEY, false},
    {"a letter less", "Bearer 0123456789abcdef0123456789abcde", false},
    {"a letter more", "Bearer " KEY "0", false},
    {"another letter", "Bearer 1123456789abcdef0123456789abcdef", false},
    {"a comma list", "Bearer " KEY ", " KEY, false},
};

static void a_key_opens_or_does_not(void **state)
{
    struct secret key = secret_copy(KEY, strlen(KEY));
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(bearers); i++)
        good &=
            same_int(bearers[i].name, key_matches(&key, bearer_token(text_of(bearers[i].header))),
                     bearers[i].want);
    secret_wipe(&key);
    good &= same_int("without a key nothing opens", key_matches(&key, TEXT_LIT("")), false);
    assert_true(good);
}

static const struct {
    const char *host;
    bool want;
} hosts[] = {
    {"localhost", true},
    {"LocalHost:8080", true},
    {"127.0.0.1", true},
    {"127.0.0.1:8080", true},
    {"127.9.9.9", true},
    {"[::1]", true},
    {"[::1]:8080", true},
    {NULL, false},
    {"", false},
    {"example.com", false},
    {"localhost.example.com", false},
    {"127.0.0.1.example.com", false},
    {"127.example.com", false},
    {"1270.0.0.1", false},
    {"[::1].example.com", false},
    {"[::2]", false},
    {"128.0.0.1", false},
};

static void a_host_is_local_by_its_own_name(void **state)
{
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(hosts); i++)
        good &= same_int(hosts[i].host ? hosts[i].host : "none",
                         host_is_local(text_of(hosts[i].host)), hosts[i].want);
    assert_true(good);
}

static const struct {
    const char *name, *body, *want;
} forms[] = {
    {"one", "token=abc", "abc"},
    {"second", "x=1&token=abc&y=2", "abc"},
    {"decoded", "token=a%2Bb+c%26", "a+b c&"},
    {"not decoded", "token=%zz%4", "%zz%4"},
    {"empty", "token=", ""},
    {"the first of two", "token=a&token=b", "a"},
    {"none", "tokens=a", NULL},
    {"a name alone", "token", NULL},
    {"nothing", "", NULL},
    {"ampersands", "&&&", NULL},
};

static void a_form_gives_its_value(void **state)
{
    struct arena *a = arena_new();
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(forms); i++) {
        struct text got = form_value(a, text_of(forms[i].body), "token");
        const char *text = got.at ? arena_copy(a, got.at, got.len) : NULL;

        good &= same_str(forms[i].name, text, forms[i].want);
    }
    arena_free(&a);
    assert_true(good);
}

static void a_rate_fills_again(void **state)
{
    struct rate rate = {0};
    int64_t now = 1000000;

    (void)state;
    for (int i = 0; i < 3; i++)
        assert_int_equal(rate_take(&rate, 3, 2000, now), 0);
    assert_int_equal(rate_take(&rate, 3, 2000, now), 2);
    assert_int_equal(rate_take(&rate, 3, 2000, now + 1000000), 1);
    assert_int_equal(rate_take(&rate, 3, 2000, now + 2000000), 0);
    assert_int_equal(rate_take(&rate, 3, 2000, now + 2000000), 2);
    for (int i = 0; i < 3; i++) /* a long pause does not save up more than the bucket holds */
        assert_int_equal(rate_take(&rate, 3, 2000, now + INT64_C(9000000000)), 0);
    assert_int_not_equal(rate_take(&rate, 3, 2000, now + INT64_C(9000000000)), 0);
}

/* ---- addresses ---- */

static const struct {
    const char *text, *host, *port; /* host NULL: refused */
} addresses[] = {
    {"127.0.0.1:8080", "127.0.0.1", "8080"},
    {"[::1]:8080", "::1", "8080"},
    {":80", "", "80"},
    {"gateway.example:0", "gateway.example", "0"},
    {"8080", NULL, NULL},
    {"127.0.0.1", NULL, NULL},
    {"127.0.0.1:", NULL, NULL},
    {"127.0.0.1:http", NULL, NULL},
    {"127.0.0.1:65536", NULL, NULL},
    {"::1:8080", NULL, NULL},
    {"[::1:8080", NULL, NULL},
    {"[]:80", NULL, NULL},
    {"", NULL, NULL},
};

static void an_address_is_host_and_port(void **state)
{
    struct arena *a = arena_new();
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(addresses); i++) {
        const char *host = NULL, *port = NULL, *name = addresses[i].text;
        struct err err = {0};
        enum status st = server_address(&host, &port, a, name, &err);

        good &= same_int(name, st, addresses[i].host ? ST_OK : ST_FATAL);
        good &= same_str(name, host, addresses[i].host) && same_str(name, port, addresses[i].port);
        good &= addresses[i].host || has_words(name, err.text, "HOST:PORT");
    }
    arena_free(&a);
    assert_true(good);
}

/* ---- routes ---- */

static void methods_of_a_path(void **state)
{
    struct arena *a = arena_new();
    bool good = true;

    (void)state;
    good &= same_str("figures", route_methods(a, "/api/v1/usage"), "GET, HEAD");
    good &= same_str("trigger", route_methods(a, "/api/cron/usage-fetcher"), "GET, HEAD, POST");
    good &= same_str("logout", route_methods(a, "/logout"), "POST");
    good &= same_str("the page", route_methods(a, "/"), "GET, HEAD");
    good &= same_str("nothing", route_methods(a, "/api/v1/usage/"), "");
    for (size_t i = 0; i < n_routes; i++)
        good &= same_int(routes[i].path, routes[i].access == ACCESS_DASHBOARD,
                         strncmp(routes[i].path, "/api/v1/", 8) == 0 ||
                             strcmp(routes[i].path, "/metrics") == 0);
    arena_free(&a);
    assert_true(good);
}

/* ---- query strings ---- */

static struct params params_of(const char *const (*pairs)[2])
{
    struct params p = {.n = 0};

    for (; (*pairs)[0]; pairs++)
        p.at[p.n++] = (struct param){text_of((*pairs)[0]), text_of((*pairs)[1])};
    return p;
}

static const char *const known[] = {"from", "model", "limit", NULL};

static const struct {
    const char *name, *key, *value, *words; /* words NULL: fine */
} names[] = {
    {"known", "model", "gpt", NULL},
    {"empty value", "model", "", NULL},
    {"UTF-8", "model", "m\xc3\xbcller", NULL},
    {"near", "modle", "x", "did you mean model?"},
    {"far", "zzzzzzzzz", "x", "known here: from, model, limit"},
    {"case counts", "Model", "x", "unknown parameter 'Model'"},
    {"no name", "", "x", "unknown parameter ''"},
    {"not UTF-8", "model", "\xff", "UTF-8"},
    {"a name that is not UTF-8", "\xff", "x", "unknown parameter ''"},
};

static void parameters_are_known_and_text(void **state)
{
    struct arena *a = arena_new();
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(names); i++) {
        const char *const pairs[][2] = {{names[i].key, names[i].value}, {NULL, NULL}};
        struct params p = params_of(pairs);
        struct bad_param bad = {0};
        enum status st = params_check(&p, a, known, &bad);

        good &= same_int(names[i].name, st, names[i].words ? ST_REJECT : ST_OK);
        good &= has_words(names[i].name, bad.err.text, names[i].words);
    }
    arena_free(&a);
    assert_true(good);
}

static const struct {
    const char *value;
    int64_t want; /* -1: refused */
} numbers[] = {{"1", 1},
               {"500", 500},
               {"0500", 500},
               {"501", -1},
               {"0", -1},
               {"", -1},
               {"-1", -1},
               {"+1", -1},
               {"1e2", -1},
               {" 1", -1},
               {"1.0", -1},
               {"0x1", -1},
               {"9999999999999999999999", -1}};

static void a_number_is_a_whole_one_in_range(void **state)
{
    static const int64_t range[2] = {1, 500};
    struct arena *a = arena_new();
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(numbers); i++) {
        const char *const pairs[][2] = {{"limit", numbers[i].value}, {NULL, NULL}};
        struct params p = params_of(pairs);
        struct bad_param bad = {0};
        int64_t got = -1;
        enum status st = params_number(&got, &p, a, "limit", range, &bad);

        good &= same_int(numbers[i].value, st, numbers[i].want < 0 ? ST_REJECT : ST_OK);
        good &= same_int(numbers[i].value, got, numbers[i].want);
    }
    arena_free(&a);
    assert_true(good);
}

static void a_filter_is_parameters_and_never_text_of_the_statement(void **state)
{
    const char *const pairs[][2] = {{"model", "a'; DROP TABLE accounts; --"},
                                    {"model", "b\"\\,{}"},
                                    {"model", ""},
                                    {NULL, NULL}};
    struct arena *a = arena_new();
    struct params p = params_of(pairs);
    struct sql s = sql_new(a);

    (void)state;
    sql_filter(&s, &p, "model", "m.model");
    sql_filter(&s, &p, "feed", "m.feed"); /* not asked for */
    assert_string_equal(s.text.at, " AND (m.model = ANY($1::text[]) OR m.model IS NULL)");
    assert_int_equal(s.params.n, 1);
    assert_string_equal(s.params.values[0], "{\"a'; DROP TABLE accounts; --\",\"b\\\"\\\\,{}\"}");
    arena_free(&a);
}

static const struct {
    const char *name, *zone, *from, *to, *words; /* words NULL: fine */
} spans[] = {
    {"nothing", NULL, NULL, NULL, NULL},
    {"days", "Europe/Berlin", "2026-11-01", "2026-12-01", NULL},
    {"moments", "UTC", "2026-11-01T00:00:00Z", "now", NULL},
    {"ago", "America/Argentina/Buenos_Aires", "7d", "yesterday", NULL},
    {"no zone", "", NULL, NULL, "zone's name"},
    {"a sign that means the opposite", "UTC+3", NULL, NULL, "zone's name"},
    {"a quote", "UTC' --", NULL, NULL, "zone's name"},
    {"a path", "../etc/passwd", NULL, NULL, "zone's name"},
    {"a slash at the end", "Europe/", NULL, NULL, "zone's name"},
    {"no such day", NULL, "2026-02-30", NULL, ""},
    {"a time without a zone", NULL, "2026-02-03T00:00:00", NULL, "Z for UTC"},
    {"no time", NULL, NULL, "soon", ""},
};

static void a_span_is_what_was_typed(void **state)
{
    struct arena *a = arena_new();
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(spans); i++) {
        struct params p = {.n = 0};
        struct sql s = sql_new(a);
        struct span_sql span = {0};
        struct bad_param bad = {0};
        const char *const given[][2] = {
            {"tz", spans[i].zone}, {"from", spans[i].from}, {"to", spans[i].to}};

        for (size_t k = 0; k < 3; k++)
            if (given[k][1])
                p.at[p.n++] = (struct param){text_of(given[k][0]), text_of(given[k][1])};
        good &= same_int(spans[i].name, sql_span(&span, &s, &p, true, &bad),
                         spans[i].words ? ST_REJECT : ST_OK);
        good &= has_words(spans[i].name, bad.err.text, spans[i].words);
        good &= spans[i].words || (span.from && span.zone && !span.to == !spans[i].to);
    }
    arena_free(&a);
    assert_true(good);
}

/* ---- CSV, cursors ---- */

static const struct {
    const char *value, *want;
} fields[] = {
    {"plain", "plain"},     {NULL, ""},         {"", "\"\""},         {"a,b", "\"a,b\""},
    {"a\"b", "\"a\"\"b\""}, {"\"", "\"\"\"\""}, {"a\nb", "\"a\nb\""}, {"a\rb", "\"a\rb\""},
    {"=1+1", "=1+1"}};

static void a_csv_field_is_quoted_when_it_must_be(void **state)
{
    struct arena *a = arena_new();
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(fields); i++) {
        struct buf b = {.arena = a};

        buf_str(&b, "");
        csv_field(&b, text_of(fields[i].value), true);
        good &= same_str(fields[i].want, b.at, fields[i].want);
    }
    arena_free(&a);
    assert_true(good);
}

static void a_cursor_comes_back_as_it_went(void **state)
{
    static const struct text keys[] = {TEXT_LIT("2026-11-01"), TEXT_LIT(""),
                                       TEXT_LIT("m\xc3\xbcller \"x\" \\ \xf0\x9f\x92\xb8")};
    struct arena *a = arena_new();

    (void)state;
    for (size_t n = 1; n <= ROWS(keys); n++) {
        const char *cursor = cursor_write(a, keys, n);
        struct text got[ROWS(keys)];
        struct err err;

        assert_int_equal(cursor_read(got, n, a, text_of(cursor), &err), ST_OK);
        for (size_t i = 0; i < n; i++)
            assert_true(text_eq(got[i], keys[i]));
        assert_int_equal(cursor_read(got, n % 3 + 1, a, text_of(cursor), &err), ST_REJECT);
        for (size_t len = 0; len < strlen(cursor); len++) /* torn anywhere */
            assert_int_equal(cursor_read(got, n, a, (struct text){cursor, len}, &err), ST_REJECT);
    }
    arena_free(&a);
}

static const char *const no_cursors[] = {"",       "a",          "!!!!",    "WzFd" /* [1] */,
                                         "bnVsbA", "eyJhIjoxfQ", "W251bGxd" /* [null] */};

static void what_is_no_cursor_is_refused(void **state)
{
    struct arena *a = arena_new();
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(no_cursors); i++) {
        struct text key;
        struct err err = {0};

        good &= same_int(no_cursors[i], cursor_read(&key, 1, a, text_of(no_cursors[i]), &err),
                         ST_REJECT);
        good &= has_words(no_cursors[i], err.text, "no cursor of this list");
    }
    arena_free(&a);
    assert_true(good);
}

/* ---- the spool ---- */

#define SPOOLED ((size_t)9 << 20) /* far beyond what memory holds */

static unsigned char byte_at(size_t position)
{
    return (unsigned char)(position * 2654435761u >> 13);
}

static void a_spool_gives_what_it_took_in_order(void **state)
{
    struct spool *s = spool_new();
    unsigned char part[70001];
    size_t put = 0, got = 0, turn = 0;
    long n = 0;

    (void)state;
    assert_int_equal(spool_read(s, part, sizeof(part)), 0);
    for (; n != SPOOL_AT_END; turn++) {
        size_t most = turn / 100 % 2 == 0 ? sizeof(part) : 1777; /* it fills, and drains again */

        for (size_t k = 0; put < SPOOLED && k < sizeof(part) - most / 2; k++)
            part[k] = byte_at(put + k);
        if (put < SPOOLED)
            spool_append(s, part, sizeof(part) - most / 2);
        put += put < SPOOLED ? sizeof(part) - most / 2 : 0;
        if (put >= SPOOLED)
            spool_end(s, true);
        n = spool_read(s, part, most);
        assert_true(n >= 0 || n == SPOOL_AT_END);
        for (long k = 0; k < n; k++)
            assert_int_equal(part[k], byte_at(got++));
        assert_int_equal(spool_unread(s), put - got);
    }
    assert_int_equal(got, put);
    spool_free(&s);
}

static void a_broken_spool_says_so(void **state)
{
    struct spool *s = spool_new();
    char part[8];

    (void)state;
    spool_append(s, "abc", 3);
    assert_false(spool_full(s));
    spool_end(s, false);
    assert_int_equal(spool_read(s, part, sizeof(part)), SPOOL_BROKEN);
    spool_free(&s);
}

/* ---- the trigger's one line ---- */

static const struct {
    const char *run, *want;
} messages[] = {
    {"{\"accounts\":{\"total\":1,\"ok\":1,\"failed\":0},\"failures\":[]}", "1 account read"},
    {"{\"accounts\":{\"total\":3,\"ok\":2,\"failed\":1},\"failures\":[{\"account\":\"acme\","
     "\"error\":"
     "\"auth_invalid\",\"detail\":\"x\"}]}",
     "2 accounts read; 1 of 3 failed: acme (auth_invalid)"},
    {"{\"accounts\":{\"total\":2,\"ok\":0,\"failed\":2},\"failures\":[{\"account\":\"a\",\"error\":"
     "null}]}",
     "0 accounts read; 2 of 2 failed: a (no reason given) and 1 more"},
    {"{}", "0 accounts read"},
};

static void a_run_is_said_in_one_line(void **state)
{
    struct arena *a = arena_new();
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(messages); i++) {
        struct json_doc doc;
        struct err err;

        assert_int_equal(json_parse(&doc, a, text_of(messages[i].run), &err), ST_OK);
        good &= same_str(messages[i].run, trigger_message(a, doc.root), messages[i].want);
    }
    arena_free(&a);
    assert_true(good);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_key_opens_or_does_not),
        cmocka_unit_test(a_host_is_local_by_its_own_name),
        cmocka_unit_test(a_form_gives_its_value),
        cmocka_unit_test(a_rate_fills_again),
        cmocka_unit_test(an_address_is_host_and_port),
        cmocka_unit_test(methods_of_a_path),
        cmocka_unit_test(parameters_are_known_and_text),
        cmocka_unit_test(a_number_is_a_whole_one_in_range),
        cmocka_unit_test(a_filter_is_parameters_and_never_text_of_the_statement),
        cmocka_unit_test(a_span_is_what_was_typed),
        cmocka_unit_test(a_csv_field_is_quoted_when_it_must_be),
        cmocka_unit_test(a_cursor_comes_back_as_it_went),
        cmocka_unit_test(what_is_no_cursor_is_refused),
        cmocka_unit_test(a_spool_gives_what_it_took_in_order),
        cmocka_unit_test(a_broken_spool_says_so),
        cmocka_unit_test(a_run_is_said_in_one_line),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
