/* Log lines: always one line, always JSON, whatever stands in a field. */
#include "common/log.h"

#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/arena.h"
#include "tests/check.h"

static char captured[16384];

/* What `say` writes to stderr. */
static const char *capture(void (*say)(const void *arg), const void *arg)
{
    FILE *file = tmpfile();
    int kept = dup(STDERR_FILENO);
    size_t len;

    assert_non_null(file);
    dup2(fileno(file), STDERR_FILENO);
    say(arg);
    dup2(kept, STDERR_FILENO);
    close(kept);
    rewind(file);
    len = fread(captured, 1, sizeof(captured) - 1, file);
    captured[len] = '\0';
    (void)fclose(file);
    return captured;
}

static void say_text(const void *arg)
{
    LOG(WARN, "test.said", KV("text", *(const struct text *)arg));
}

static const struct {
    const char *name, *text, *want;
} text_cases[] = {
    {"plain", "abc", "abc"},
    {"quotes and backslashes", "a\"b\\c", "a\"b\\c"},
    {"a line end does not end the line", "a\nb\r\x01\x7f", "a\nb\r\x01\x7f"},
    {"other letters", "M\xc3\xbcnchen \xf0\x9f\x98\x80", "M\xc3\xbcnchen \xf0\x9f\x98\x80"},
    {"bytes that are not UTF-8", "a\xff\xc3", "a\xef\xbf\xbd\xef\xbf\xbd"},
    {"a surrogate", "\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
    {"empty", "", ""},
};

static void texts_come_back_as_they_were(void **state)
{
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(text_cases); i++) {
        struct text t = text_of(text_cases[i].text);
        const char *line = capture(say_text, &t);
        json_t *j = json_loads(line, 0, NULL);

        good &= same_int(text_cases[i].name, strchr(line, '\n') == line + strlen(line) - 1, true);
        good &= same_str(text_cases[i].name, json_string_value(json_object_get(j, "text")),
                         text_cases[i].want);
        json_decref(j);
    }
    assert_true(good);
}

static void say_all(const void *arg)
{
    (void)arg;
    LOG(ERROR, "test.all", KV("int", -5), KV("long", INT64_MIN), KV("uint", UINT64_MAX),
        KV("bool", (bool)true), KV("str", "s"), KV("none", (const char *)NULL),
        KV("null", TEXT_NULL));
    LOG(DEBUG, "test.hidden", KV("n", 1));
}

static void fields_are_typed_and_levels_are_obeyed(void **state)
{
    const char *line, *fields;

    (void)state;
    log_open("tester", LOG_INFO);
    line = capture(say_all, NULL);
    assert_int_equal(line[32], ','); /* {"ts":"2026-11-24T10:00:00.123Z", */
    fields = strchr(line, ',');
    assert_string_equal(
        fields, ",\"level\":\"error\",\"stage\":\"tester\",\"event\":\"test.all\",\"int\":-5,"
                "\"long\":-9223372036854775808,\"uint\":18446744073709551615,\"bool\":true,"
                "\"str\":\"s\",\"none\":null,\"null\":null}\n");
}

static void say_long(const void *arg)
{
    LOG(INFO, "test.long", KV("a", (const char *)arg), KV("b", (const char *)arg), KV("c", 1));
}

static void long_lines_stay_json_and_fit_a_pipe(void **state)
{
    char *text = malloc(10001);
    const char *line;
    json_t *j;

    (void)state;
    memset(text, 'x', 10000);
    text[10000] = '\0';
    line = capture(say_long, text);
    j = json_loads(line, 0, NULL);
    assert_non_null(j);
    assert_true(strlen(line) <= 4096);
    assert_in_range(json_string_length(json_object_get(j, "a")), 2000, 2100);
    assert_true(json_is_true(json_object_get(j, "cut"))); /* no room for b: it says so */
    assert_int_equal(json_integer_value(json_object_get(j, "c")), 1);
    json_decref(j);
    free(text);
}

static void level_names(void **state)
{
    enum log_level level = LOG_ERROR;

    (void)state;
    assert_true(log_level_parse(&level, "debug"));
    assert_int_equal(level, LOG_DEBUG);
    assert_true(log_level_parse(&level, "warn"));
    assert_int_equal(level, LOG_WARN);
    assert_false(log_level_parse(&level, "warning"));
    assert_false(log_level_parse(&level, ""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_come_back_as_they_were),
        cmocka_unit_test(fields_are_typed_and_levels_are_obeyed),
        cmocka_unit_test(long_lines_stay_json_and_fit_a_pipe),
        cmocka_unit_test(level_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
