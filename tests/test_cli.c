/* usagectl without a database: what is typed, what is printed. */
#include <stdlib.h>

#include "cli/cli.h"
#include "cli/inject.h"
#include "cli/progress.h"
#include "cli/table.h"
#include "common/clock.h"
#include "common/wire.h"
#include "tests/check.h"

#define WORDS_MAX 12

/* ---- command lines ---- */

static const struct {
    const char *name;
    const char *typed; /* after usagectl */
    enum status want;
    const char *want_command; /* or words of the message */
} line_cases[] = {
    {"one word", "migrate", ST_OK, "migrate"},
    {"two words", "account list", ST_OK, "account list"},
    {"options after the words", "account add acme --provider openai --key-file -", ST_OK,
     "account add"},
    {"options between the words", "account add --provider=openai acme", ST_OK, "account add"},
    {"a word that begins with a dash, after --", "account show -- -x", ST_OK, "account show"},
    {"a word too few is fine with --help", "account show --help", ST_OK, "account show"},
    {"--version is a command", "--version", ST_OK, "version"},
    {"nothing is the general help", "", ST_OK, NULL},
    {"--help is the general help", "--help", ST_OK, NULL},
    {"revisions with all its options",
     "revisions --account a --feed costs --since 7d --limit 5 --format csv", ST_OK, "revisions"},
    {"revisions take no word", "revisions acme", ST_REJECT, "what is 'acme' for?"},
    {"a mistyped command", "migrat", ST_REJECT, "did you mean migrate?"},
    {"a mistyped group", "acount list", ST_REJECT, "did you mean account?"},
    {"a mistyped word of a group", "account lst", ST_REJECT, "did you mean list?"},
    {"a group alone", "dead", ST_REJECT, "known are: list, show, replay"},
    {"no likeness at all", "frobnicate", ST_REJECT, "known are: migrate, grant, account"},
    {"the hidden are not offered", "config", ST_REJECT, "known are: migrate"},
    {"a mistyped option", "run --wat", ST_REJECT, "did you mean --wait?"},
    {"a mistyped option with a value", "account list --formt=csv", ST_REJECT,
     "did you mean --format?"},
    {"an option of another command", "migrate --provider x", ST_REJECT, "usagectl help migrate"},
    {"an option without its value", "run --account", ST_REJECT, "--account needs a value"},
    {"a switch with a value", "run --wait=yes", ST_REJECT, "did you mean --wait?"},
    {"a short option", "run -x", ST_REJECT, "takes no option --x"},
    {"an option twice", "run --account a --account b", ST_REJECT, "--account is given twice"},
    {"a word too few", "account show", ST_REJECT, "needs NAME"},
    {"a word too many", "account show a b", ST_REJECT, "what is 'b' for?"},
    {"an option in front", "--wait run", ST_REJECT, "the command comes first"},
};

/* Splits at blanks, into a copy that lives in `a`. */
static int split(struct arena *a, const char *typed, char *argv[WORDS_MAX + 1])
{
    char *rest = arena_copy(a, typed, strlen(typed));
    int argc = 0;

    argv[argc++] = arena_copy(a, "usagectl", 8);
    for (char *word; argc < WORDS_MAX && (word = strsep(&rest, " "));)
        if (*word)
            argv[argc++] = word;
    argv[argc] = NULL;
    return argc;
}

static void lines(void **state)
{
    struct arena *a = arena_new();
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(line_cases); i++) {
        const char *name = line_cases[i].name;
        const struct command *command = NULL;
        char *argv[WORDS_MAX + 1];
        struct err err = {0};
        struct args args;
        int argc = split(a, line_cases[i].typed, argv);
        enum status st = command_parse(&command, &args, a, argc, argv, &err);

        good &= same_int(name, st, line_cases[i].want);
        if (st != ST_OK)
            good &= has_words(name, err.text, line_cases[i].want_command);
        else
            good &= same_str(name, command ? command->name : NULL, line_cases[i].want_command);
    }
    arena_free(&a);
    assert_true(good);
}

static void options_and_words(void **state)
{
    struct arena *a = arena_new();
    const struct command *command;
    char *argv[WORDS_MAX + 1];
    struct err err = {0};
    struct args args;
    int argc = split(a, "account add --label a=1 acme --key-file - --label b=2", argv);

    (void)state;
    assert_int_equal(command_parse(&command, &args, a, argc, argv, &err), ST_OK);
    assert_int_equal(args.n_labels, 2);
    assert_string_equal(args.labels[0], "a=1");
    assert_string_equal(args.labels[1], "b=2");
    assert_string_equal(args.values[OPT_KEY_FILE], "-");
    assert_null(args.values[OPT_PROVIDER]);
    assert_int_equal(args.n_words, 1);
    assert_string_equal(args.words[0], "acme");
    arena_free(&a);
}

/* Every command has help; no line of it is wider than a terminal, but for synopses. */
static void help(void **state)
{
    struct arena *a = arena_new();
    bool good = true;

    (void)state;
    for (size_t i = 0; i < n_commands; i++) {
        struct text rest = text_of(command_help(a, &commands[i])), line;

        good &= has_words(commands[i].name, rest.at, commands[i].summary);
        (void)line_next(&line, &rest);
        while (line_next(&line, &rest))
            if (line.len > 100)
                good = same_str(commands[i].name, arena_copy(a, line.at, line.len), "shorter");
    }
    good &= has_words("general help", command_help(a, NULL), "account add");
    arena_free(&a);
    assert_true(good);
}

/* ---- tables ---- */

static void fill(struct table *t, struct arena *a)
{
    table_open(t, a);
    table_column(t, "model", COLUMN_TEXT);
    table_column(t, "tokens", COLUMN_COUNT);
    table_column(t, "cost", COLUMN_AMOUNT);
    table_str(t, "gpt, \"mini\"");
    table_str(t, "9007199254740993");
    table_str(t, "1234.50");
    table_cell(t, TEXT_NULL);
    table_str(t, "7");
    table_str(t, "0.000000000025");
    table_str(t, "");
    table_cell(t, TEXT_NULL);
    table_str(t, "-12");
}

static const struct {
    const char *name;
    enum table_format format;
    const char *want;
} print_cases[] = {
    {"for people", FORMAT_TABLE,
     "model                       tokens                cost\n"
     "gpt, \"mini\"  9,007,199,254,740,993  1,234.50\n"
     "-                                7      0.000000000025\n"
     "                                 -    -12\n"},
    {"CSV quotes, and keeps null apart from the empty text", FORMAT_CSV,
     "model,tokens,cost\n"
     "\"gpt, \"\"mini\"\"\",9007199254740993,1234.50\n"
     ",7,0.000000000025\n"
     "\"\",,-12\n"},
    {"JSON keeps digits: counts as numbers, amounts as texts", FORMAT_JSON,
     "[{\"model\":\"gpt, \\\"mini\\\"\",\"tokens\":9007199254740993,\"cost\":\"1234.50\"},"
     "{\"model\":null,\"tokens\":7,\"cost\":\"0.000000000025\"},"
     "{\"model\":\"\",\"tokens\":null,\"cost\":\"-12\"}]\n"},
};

static void tables(void **state)
{
    struct arena *a = arena_new();
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(print_cases); i++) {
        struct table t;
        char *got = NULL;
        size_t len;
        FILE *out = open_memstream(&got, &len);

        assert_non_null(out);
        fill(&t, a);
        table_print(&t, print_cases[i].format, out);
        assert_int_equal(fclose(out), 0);
        good &= same_str(print_cases[i].name, got, print_cases[i].want);
        free(got);
    }
    arena_free(&a);
    assert_true(good);
}

static const struct {
    const char *name, *number, *want;
} group_cases[] = {
    {"short", "123", "123"},
    {"four", "1234", "1,234"},
    {"six", "123456", "123,456"},
    {"negative", "-1234567", "-1,234,567"},
    {"negative, three", "-123", "-123"},
    {"the fraction stays", "1234567.0000025", "1,234,567.0000025"},
    {"nothing", "", ""},
};

static void groups(void **state)
{
    struct arena *a = arena_new();
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(group_cases); i++) {
        const char *got = digits_grouped(a, text_of(group_cases[i].number));
        good &= same_str(group_cases[i].name, got ? got : "", group_cases[i].want);
    }
    arena_free(&a);
    assert_true(good);
}

static const struct {
    const char *name, *text, *want;
} terminal_cases[] = {
    {"plain", "gpt-5", "gpt-5"},
    {"letters of the world stay", "K\xc3\xb6ln \xe6\x97\xa5", "K\xc3\xb6ln \xe6\x97\xa5"},
    {"escape", "\x1b[2Jx", "?[2Jx"},
    {"line end", "a\nb", "a?b"},
    {"C1 control",
     "\xc2\x9b"
     "2J",
     "?2J"},
    {"no-break space is no control", "\xc2\xa0", "\xc2\xa0"},
    {"not UTF-8", "a\xff\xfe", "a??"},
};

static void terminals(void **state)
{
    struct arena *a = arena_new();
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(terminal_cases); i++)
        good &= same_str(terminal_cases[i].name, terminal_text(a, text_of(terminal_cases[i].text)),
                         terminal_cases[i].want);
    arena_free(&a);
    assert_true(good);
}

/* ---- lines of files ---- */

static const struct {
    const char *name, *line;
    enum status want;
    const char *want_fields; /* joined by |, or words of the message */
} csv_cases[] = {
    {"plain", "a,b,c", ST_OK, "a|b|c"},
    {"empty fields", ",,", ST_OK, "||"},
    {"one empty field", "", ST_OK, ""},
    {"blanks around are not meant", " a , b", ST_OK, "a|b"},
    {"quoted comma, quote and blank", "\"a,b\",\"say \"\"hi\"\"\",\" c \"", ST_OK,
     "a,b|say \"hi\"| c "},
    {"a quote without end", "\"a,b", ST_REJECT, "does not end"},
    {"text after a quote", "\"a\"b,c", ST_REJECT, "after a closing quote"},
    {"too many", "1,2,3,4,5", ST_REJECT, "more than 4 fields"},
};

static void csv_lines(void **state)
{
    struct arena *a = arena_new();
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(csv_cases); i++) {
        struct text fields[4];
        struct buf got = {.arena = a};
        struct err err = {0};
        size_t n = 0;
        enum status st = csv_split(fields, &n, 4, a, text_of(csv_cases[i].line), &err);

        buf_str(&got, "");
        for (size_t k = 0; st == ST_OK && k < n; k++) {
            buf_str(&got, k ? "|" : "");
            buf_text(&got, fields[k]);
        }
        good &= same_int(csv_cases[i].name, st, csv_cases[i].want);
        good &= st == ST_OK ? same_str(csv_cases[i].name, got.at, csv_cases[i].want_fields)
                            : has_words(csv_cases[i].name, err.text, csv_cases[i].want_fields);
    }
    arena_free(&a);
    assert_true(good);
}

static const struct {
    const char *name, *line;
    enum status want;
    const char *want_text; /* account feed from to, or words of the message */
} injection_cases[] = {
    {"CSV", "acme,costs,2026-10-01,2026-11-01", ST_OK,
     "acme costs 2026-10-01T00:00:00Z 2026-11-01T00:00:00Z"},
    {"CSV, all feeds", "acme,,2026-10-01,2026-11-01", ST_OK,
     "acme - 2026-10-01T00:00:00Z 2026-11-01T00:00:00Z"},
    {"CSV, until now", "acme,,7d,now", ST_OK, "acme - 2026-11-17T10:00:00Z 2026-11-24T10:00:00Z"},
    {"JSON", "{\"account\":\"acme\",\"feed\":\"costs\",\"from\":\"2026-10-01\",\"to\":\"today\"}",
     ST_OK, "acme costs 2026-10-01T00:00:00Z 2026-11-24T00:00:00Z"},
    {"JSON as the control socket takes it",
     "{\"cmd\":\"inject\",\"account\":\"acme\",\"feed\":null,\"from\":\"2026-10-01T00:00:00Z\","
     "\"to\":\"2026-11-01T00:00:00Z\"}",
     ST_OK, "acme - 2026-10-01T00:00:00Z 2026-11-01T00:00:00Z"},
    {"a field too few", "acme,costs,2026-10-01", ST_REJECT, "3 fields"},
    {"no account", ",costs,2026-10-01,2026-11-01", ST_REJECT, "no account"},
    {"no end", "acme,costs,2026-10-01,", ST_REJECT, "no to"},
    {"a date that is none", "acme,costs,2026-10-01,soon", ST_REJECT, "to: "},
    {"the wrong way round", "acme,costs,2026-11-01,2026-10-01", ST_REJECT, "must lie before"},
    {"empty", "acme,costs,2026-10-01,2026-10-01", ST_REJECT, "must lie before"},
    {"the future", "acme,costs,2026-12-01,2026-12-02", ST_REJECT, "in the future"},
    {"a mistyped member", "{\"acount\":\"acme\",\"from\":\"2026-10-01\",\"to\":\"2026-11-01\"}",
     ST_REJECT, "did you mean account?"},
    {"a number for a time", "{\"account\":\"acme\",\"from\":1,\"to\":\"2026-11-01\"}", ST_REJECT,
     "\"from\" must be a text"},
    {"cut off", "{\"account\":\"acme\"", ST_REJECT, ""},
};

static void injections(void **state)
{
    struct arena *a = arena_new();
    struct err err = {0};
    bool good = true;
    int64_t now;

    (void)state;
    assert_int_equal(time_parse(&now, TEXT_LIT("2026-11-24T10:00:00Z"), &err), ST_OK);
    for (size_t i = 0; i < ROWS(injection_cases); i++) {
        const char *name = injection_cases[i].name;
        char from[TIME_TEXT_MAX], to[TIME_TEXT_MAX];
        struct injection in;
        enum status st = injection_parse(&in, a, text_of(injection_cases[i].line), now, &err);

        good &= same_int(name, st, injection_cases[i].want);
        good &=
            st == ST_OK
                ? same_str(name,
                           arena_printf(a, "%s %s %s %s", in.account, in.feed ? in.feed : "-",
                                        time_format(from, in.from_us), time_format(to, in.to_us)),
                           injection_cases[i].want_text)
                : has_words(name, err.text, injection_cases[i].want_text);
    }
    arena_free(&a);
    assert_true(good);
}

static void an_injection_with_a_zero_byte(void **state)
{
    struct arena *a = arena_new();
    struct injection in;
    struct err err;

    (void)state;
    assert_int_equal(injection_parse(&in, a, TEXT_LIT("\0acme,costs,2026-10-01,2026-11-01"),
                                     INT64_C(1793923200) * US_PER_S, &err),
                     ST_REJECT);
    assert_true(has_words("a zero byte", err.text, "zero byte"));
    arena_free(&a);
}

/* ---- progress ---- */

static const struct {
    const char *name, *run;
    int64_t elapsed_s;
    const char *want;
} progress_cases[] = {
    {"at the start", "{\"accounts\":{\"total\":200,\"ok\":0,\"failed\":0}}", 0,
     "0/200 accounts, 0 rows"},
    {"half way",
     "{\"accounts\":{\"total\":200,\"ok\":99,\"failed\":1},\"rows\":{\"inserted\":40000,"
     "\"unchanged\":2000}}",
     10, "100/200 accounts, 1 failed, 42,000 rows (4,200/s), 10s left"},
    {"one account with a long window",
     "{\"accounts\":{\"total\":1,\"ok\":0,\"failed\":0},\"rows\":{\"inserted\":100},\"owed\":{"
     "\"seconds\":1000,\"seconds_done\":250}}",
     100, "0/1 accounts, 25 % of the window, 100 rows (1/s), 5m00s left"},
};

static void progress(void **state)
{
    struct arena *a = arena_new();
    struct err err = {0};
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(progress_cases); i++) {
        struct json_doc doc;

        assert_int_equal(json_parse(&doc, a, text_of(progress_cases[i].run), &err), ST_OK);
        good &= same_str(progress_cases[i].name,
                         progress_line(a, doc.root, "", progress_cases[i].elapsed_s * US_PER_S),
                         progress_cases[i].want);
    }
    arena_free(&a);
    assert_true(good);
}

/* Each ending but ok tells people what to do. */
static void endings(void **state)
{
    bool good = true;

    (void)state;
    for (int e = END_OK + 1; e < N_ENDINGS; e++) {
        const char *name = ending_name((enum ending)e);
        good &= has_words(name, cli_advice(text_of(name)) ? "advice" : "", "advice");
    }
    assert_null(cli_advice(TEXT_LIT("ok")));
    assert_null(cli_advice(TEXT_NULL));
    assert_true(good);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines),
        cmocka_unit_test(options_and_words),
        cmocka_unit_test(help),
        cmocka_unit_test(tables),
        cmocka_unit_test(groups),
        cmocka_unit_test(terminals),
        cmocka_unit_test(csv_lines),
        cmocka_unit_test(injections),
        cmocka_unit_test(progress),
        cmocka_unit_test(endings),
        cmocka_unit_test(an_injection_with_a_zero_byte),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
