/* JSON of strangers: what is read, what is mended, what is refused; and what we write. */
#include "tests/fakes/jansson.h"

#include "common/json.h"
#include "common/json_scan.h"

#include <stdlib.h>

#include "tests/check.h"

#define FFFD "\xef\xbf\xbd"

static const struct {
    const char *name, *body, *want;
    bool repaired;
} mend_cases[] = {
    {"plain", "\"abc\"", "abc", false},
    {"escapes", "\"a\\n\\t\\\"\\\\\\/b\"", "a\n\t\"\\/b", false},
    {"an escaped letter", "\"\\u00fc\"", "\xc3\xbc", false},
    {"a surrogate pair", "\"\\ud83d\\ude00\"", "\xf0\x9f\x98\x80", false},
    {"a surrogate pair in capitals", "\"\\uD83D\\uDE00\"", "\xf0\x9f\x98\x80", false},
    {"UTF-8", "\"M\xc3\xbcnchen \xf0\x9f\x98\x80\"", "M\xc3\xbcnchen \xf0\x9f\x98\x80", false},
    {"BR-049: an escaped NUL", "\"proj\\u0000x\"", "proj" FFFD "x", true},
    {"BR-049: a backslash before u0000 is no NUL", "\"proj\\\\u0000x\"", "proj\\u0000x", false},
    {"BR-049: a backslash and a NUL", "\"\\\\\\u0000\"", "\\" FFFD, true},
    {"BR-050: a lone high surrogate", "\"\\ud83d\"", FFFD, true},
    {"BR-050: a lone low surrogate", "\"\\ude00\"", FFFD, true},
    {"BR-050: a high one before a letter", "\"\\ud83dx\"", FFFD "x", true},
    {"BR-050: a high one before another escape", "\"\\ud83d\\n\"", FFFD "\n", true},
    {"BR-050: a high one before a pair", "\"\\ud83d\\ud83d\\ude00\"", FFFD "\xf0\x9f\x98\x80",
     true},
    {"BR-050: the wrong way round", "\"\\ude00\\ud83d\"", FFFD FFFD, true},
    {"BR-050: C0 80", "\"a\xc0\x80z\"", "a" FFFD FFFD "z", true},
    {"BR-050: ED A0 80", "\"a\xed\xa0\x80z\"", "a" FFFD FFFD FFFD "z", true},
    {"BR-050: F5 80 80 80", "\"a\xf5\x80\x80\x80z\"", "a" FFFD FFFD FFFD FFFD "z", true},
    {"a torn sequence", "\"a\xe2\x82\"", "a" FFFD FFFD, true},
    {"a byte order mark and blanks", "\xef\xbb\xbf \t\r\n\"x\" \n", "x", false},
};

static void texts_are_made_storable(void **state)
{
    struct arena *a = arena_new();
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(mend_cases); i++) {
        const char *name = mend_cases[i].name;
        struct json_doc doc = {0};
        struct err err = {0};
        struct text t;

        if (!same_int(name, json_parse(&doc, a, text_of(mend_cases[i].body), &err), ST_OK)) {
            print_error("%s\n", err.text);
            good = false;
            continue;
        }
        t = json_string(doc.root);
        good &= same_str(name, arena_copy(a, t.at, t.len), mend_cases[i].want);
        good &= same_int(name, doc.repaired, mend_cases[i].repaired);
    }
    assert_true(good);
    arena_free(&a);
}

static const struct {
    const char *name, *body, *want;
    bool below; /* the outermost array or object, so an outline passes over it */
} refused_cases[] = {
    {"empty", "", "empty", false},
    {"blanks only", " \n\t", "empty", false},
    {"a byte order mark only", "\xef\xbb\xbf", "empty", false},
    {"data after the value", "{\"a\":1} {\"b\":2}", "byte 9 (something follows the value)", false},
    {"a word after the value", "1 x", "follows", false},
    {"a text after the value that does not end", "1 \"x", "follows", false},
    {"cut off in an object", "{\"a\":1", "cut off", false},
    {"cut off in a text", "{\"a\":\"x", "cut off", false},
    {"cut off in an array", "[1,", "cut off", false},
    {"cut off in an escape", "\"\\u00", "not JSON", false},
    {"a comma too many", "[1,]", "not JSON", true},
    {"a comma before the end of an object", "{\"a\":1,}", "not JSON", true},
    {"a key without quotes", "{a:1}", "not JSON", true},
    {"single quotes", "{'a':1}", "not JSON", true},
    {"a comment", "/* x */ 1", "comment", false},
    {"blanks that are none of JSON's", "[1,\v2]", "not JSON", true},
    {"a form feed after the value", "1\f", "follows", false},
    {"a word in capitals", "True", "not JSON", false},
    {"a word cut off", "[nul", "byte 2 (no value)", false},
    {"a word too long", "[nulls]", "neither a comma nor", true},
    {"a plus sign", "+1", "not JSON", false},
    {"a sign alone", "-", "not JSON", false},
    {"a point without a digit before it", ".5", "not JSON", false},
    {"a member without a colon", "{\"a\" 1}", "colon", true},
    {"a name that says what one before meant", "[{\"a\\\"b\":1},{\"a\"b\":2}]", "colon", false},
    {"a bracket that closes another kind", "{\"a\":1]", "object's end", false},
    {"half a pair and four digits that are none", "\"\\ud83d\\uzzzz\"", "escape", false},
    {"a leading zero", "01", "not JSON", false},
    {"no digit after the point", "[1.]", "not JSON", true},
    {"no digit in the exponent", "[1e]", "not JSON", true},
    {"NaN", "NaN", "not JSON", false},
    {"a web page", "<html><body>502 Bad Gateway</body></html>", "<html>", false},
    {"a line end in a text", "\"a\nb\"", "not JSON", false},
    {"an escape that is none", "\"\\x\"", "not JSON", false},
    {"four digits that are none", "\"\\u12g4\"", "not JSON", false},
    {"33 levels", "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]", "deeper",
     true},
    {"the place counts from the first byte received", "\xef\xbb\xbf  [1}", "byte 8", false},
};

static void what_is_not_json_is_refused(void **state)
{
    struct arena *a = arena_new();
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(refused_cases); i++) {
        struct json_doc doc;
        struct err err = {0};

        good &= same_int(refused_cases[i].name,
                         json_parse(&doc, a, text_of(refused_cases[i].body), &err), ST_REJECT);
        good &= has_words(refused_cases[i].name, err.text, refused_cases[i].want);
        good &= same_int(refused_cases[i].name,
                         json_parse_outline(&doc, a, text_of(refused_cases[i].body), 1, &err),
                         refused_cases[i].below ? ST_OK : ST_REJECT);
    }
    good &= same_int("null text", json_parse(&(struct json_doc){0}, a, TEXT_NULL, &(struct err){0}),
                     ST_REJECT);
    assert_true(good);
    arena_free(&a);
}

static const struct {
    const char *name, *body, *want;
} print_cases[] = {
    {"digits beyond any double", "[12345678901234567890123456789.123456789012345678e-400]",
     "[12345678901234567890123456789.123456789012345678e-400]"},
    {"an exponent beyond any double", "{\"v\":1E+400}", "{\"v\":1E+400}"},
    {"the order of members", "{\"b\":1, \"a\":[true,false,null,{}], \"\":[]}",
     "{\"b\":1,\"a\":[true,false,null,{}],\"\":[]}"},
    {"a member given twice: the later wins", "{\"a\":1,\"b\":2,\"a\":3}", "{\"b\":2,\"a\":3}"},
    {"three times", "{\"a\":1,\"a\":2,\"a\":{\"a\":4,\"a\":5}}", "{\"a\":{\"a\":5}}"},
    {"twice by escape", "{\"a\":1,\"\\u0061\":2}", "{\"a\":2}"},
    {"escapes", "\"\\u0001\\n\\t\\\"\\\\\"", "\"\\u0001\\n\\t\\\"\\\\\""},
    {"32 levels", "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
     "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]"},
};

static void trees_print_as_they_were_read(void **state)
{
    struct arena *a = arena_new();
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(print_cases); i++) {
        struct buf b = {.arena = a};
        struct json_doc doc;
        struct err err;

        assert_int_equal(json_parse(&doc, a, text_of(print_cases[i].body), &err), ST_OK);
        json_print(&b, doc.root);
        good &= same_str(print_cases[i].name, b.at, print_cases[i].want);
    }
    assert_true(good);
    arena_free(&a);
}

static void large_objects_keep_the_later_twin_too(void **state)
{
    struct arena *a = arena_new();
    struct buf b = {.arena = a};
    struct json_doc doc;
    struct err err;

    (void)state;
    buf_str(&b, "{\"k5\":\"early\"");
    for (int i = 0; i < 20000; i++)
        buf_printf(&b, ",\"k%d\":%d", i, i);
    buf_str(&b, ",\"k7\":\"late\"}");
    assert_int_equal(json_parse(&doc, a, (struct text){b.at, b.len}, &err), ST_OK);
    assert_int_equal(doc.root->n, 20000);
    assert_true(text_is(json_member(doc.root, "k5")->text, "5"));
    assert_true(text_is(json_string(json_member(doc.root, "k7")), "late"));
    assert_true(text_is(json_member(doc.root, "k19999")->text, "19999"));
    arena_free(&a);
}

/* ---- against another parser ---- */

static bool agrees(const struct json *ours, const json_t *theirs);

static bool children_agree(const struct json *ours, const json_t *theirs)
{
    bool object = ours->type == JSON_OBJECT;
    size_t i = 0;

    if (ours->n != (object ? json_object_size(theirs) : json_array_size(theirs)))
        return false;
    for (const struct json *c = ours->first; c; c = c->next, i++) {
        if (!agrees(c, object ? json_object_getn(theirs, c->key.at, c->key.len)
                              : json_array_get(theirs, i)))
            return false;
    }
    return i == ours->n;
}

static bool agrees(const struct json *ours, const json_t *theirs)
{
    if (!theirs)
        return false;
    switch (json_typeof(theirs)) {
    case JJSON_NULL:
        return ours->type == JSON_NULL;
    case JJSON_TRUE:
        return ours->type == JSON_TRUE;
    case JJSON_FALSE:
        return ours->type == JSON_FALSE;
    case JJSON_INTEGER:
    case JJSON_REAL:
        return ours->type == JSON_NUMBER &&
               strtod(ours->text.at, NULL) == json_number_value(theirs);
    case JJSON_STRING:
        return ours->type == JSON_STRING && ours->text.len == json_string_length(theirs) &&
               memcmp(ours->text.at, json_string_value(theirs), ours->text.len) == 0;
    case JJSON_ARRAY:
        return ours->type == JSON_ARRAY && children_agree(ours, theirs);
    case JJSON_OBJECT:
        return ours->type == JSON_OBJECT && children_agree(ours, theirs);
    }
    return false;
}

static const char page[] =
    "{\"object\":\"page\",\"data\":[{\"object\":\"bucket\",\"start_time\":1793923200,\"results\":[{"
    "\"input_tokens\":100,\"model\":\"gpt-4o\",\"project_id\":null,\"batch\":false,\"amount\":{"
    "\"value\":0.06,\"currency\":\"usd\"}}]}],\"has_more\":true,\"next_page\":\"page_A==\"}";

static const char *const bodies[] = {
    page,
    "[1,-1,0,-0,1.5,1e3,1E-3,2.5e+2,123456789012]",
    "[\"\",\"\\u00e9\\ud83d\\ude00\",\"\\b\\f\\n\\r\\t\\/\\\\\\\"\",\"\xe2\x82\xac\"]",
    "{\"a\":{\"b\":[{\"c\":[[],{}]}]},\"d\":\"e\",\"a\":1}",
    "  [ true , false , null ]  ",
    "[1 2]",
    "{\"a\" \"b\"}",
    "[1,2",
    "{\"a\":}",
    "[\"\\q\"]",
    "[-]",
    "[00]",
    "{\"a\":1}}",
    "tru",
};

static void another_parser_agrees(void **state)
{
    struct arena *a = arena_new();
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(bodies); i++) {
        json_t *theirs = json_loads(bodies[i], JSON_DECODE_ANY, NULL);
        struct json_doc doc = {0};
        struct err err;
        enum status st = json_parse(&doc, a, text_of(bodies[i]), &err);

        good &= same_int(bodies[i], st == ST_OK, theirs != NULL);
        if (st == ST_OK && theirs)
            good &= same_int(bodies[i], agrees(doc.root, theirs), true);
        json_decref(theirs);
    }
    assert_true(good);
    arena_free(&a);
}

/* Each cut and each single changed byte of a body: no crash, and never more than jansson takes. */
static void damaged_bodies_are_survived(void **state)
{
    static const char body[] = "{\"a\":[1.5e3,\"\\ud83d\\ude00\\n\",null],\"b\":{\"c\":true}}";
    struct arena *a = arena_new();
    bool good = true;

    (void)state;
    for (size_t i = 0; i < sizeof(body) - 1; i++) {
        char changed[sizeof(body)];
        struct json_doc doc;
        struct err err;

        good &= same_int("cut off", json_parse(&doc, a, (struct text){body, i}, &err), ST_REJECT);
        for (int byte = 0; byte < 256; byte++) {
            json_t *theirs;

            memcpy(changed, body, sizeof(body));
            changed[i] = (char)byte;
            theirs = json_loadb(changed, sizeof(body) - 1, JSON_ALLOW_NUL, NULL);
            if (json_parse(&doc, a, (struct text){changed, sizeof(body) - 1}, &err) == ST_OK)
                good &= same_int(changed, theirs || doc.repaired, true);
            else
                good &= same_int(changed, theirs == NULL, true);
            json_decref(theirs);
        }
        arena_reset(a);
    }
    assert_true(good);
    arena_free(&a);
}

/* Each byte at each place of a text of each length, so that it meets every edge of the blocks in
 * which the text is looked through. */
static void both_scans_stop_at_the_first_odd_byte(void **state)
{
    char text[40];

    (void)state;
    for (size_t len = 0; len <= sizeof(text); len++) {
        const char *end = text + len;
        memset(text, 'a', sizeof(text));
        assert_ptr_equal(json_scan_portable(text, end), end);
        assert_ptr_equal(json_scan(text, end), end);
        for (size_t at = 0; at < len; at++) {
            for (int byte = 0; byte < 256; byte++) {
                bool plain = byte >= 0x20 && byte < 0x80 && byte != '"' && byte != '\\';
                const char *want = plain ? end : text + at;
                text[at] = (char)byte;
                assert_ptr_equal(json_scan_portable(text, end), want);
                assert_ptr_equal(json_scan(text, end), want);
            }
            text[at] = at % 2 ? ' ' : '~'; /* the least and the largest that are plain */
        }
    }
}

static void assert_passes_agree(const char *from, const char *end)
{
    struct json_span slow = {.depth = 1}, fast = {.depth = 1};

    assert_ptr_equal(json_pass_portable(&slow, from, end), json_pass(&fast, from, end));
    assert_int_equal(slow.depth, fast.depth);
    assert_int_equal(slow.commas, fast.commas);
    if (slow.depth == 0)
        return; /* ended; the other one has looked at the rest of its block as well */
    assert_int_equal(slow.in_text, fast.in_text);
    assert_int_equal(slow.escaped, fast.escaped);
}

/* Brackets, quotes, backslashes and commas in any order, up to some blocks of 64. */
static void both_passes_end_at_the_same_bracket(void **state)
{
    static const char bytes[] = "[{}]]\"\"\\,, a";
    uint32_t random = 1;
    char text[200];

    (void)state;
    for (int round = 0; round < 20000; round++) {
        size_t kinds = round % 2 ? sizeof(bytes) - 1 : 5; /* deep ones without texts, too */
        for (size_t i = 0; i < sizeof(text); i++) {
            random = random * 1664525 + 1013904223;
            text[i] = bytes[(random >> 16) % kinds];
            if (random >> 28 < 5) /* what means nothing, so that blocks differ */
                text[i] = 'x';
        }
        assert_passes_agree(text, text + sizeof(text));
        assert_passes_agree(text + round % 64, text + 64 + round % 137);
    }
}

/* Lists of objects: the names of one are compared with those of the one before. */
static const struct {
    const char *name, *body, *want;
} sister_cases[] = {
    {"the same names", "[{\"a\":1,\"b\":2},{\"a\":3,\"b\":4}]",
     "[{\"a\":1,\"b\":2},{\"a\":3,\"b\":4}]"},
    {"a double after the same names", "[{\"a\":1,\"b\":2},{\"a\":3,\"b\":4,\"a\":5}]",
     "[{\"a\":1,\"b\":2},{\"b\":4,\"a\":5}]"},
    {"a double in both", "[{\"a\":1,\"b\":2,\"a\":3},{\"a\":1,\"b\":2,\"a\":3}]",
     "[{\"b\":2,\"a\":3},{\"b\":2,\"a\":3}]"},
    {"a double in the first", "[{\"a\":1,\"b\":2,\"a\":3},{\"b\":1,\"a\":2}]",
     "[{\"b\":2,\"a\":3},{\"b\":1,\"a\":2}]"},
    {"fewer, then a double", "[{\"a\":1,\"b\":2},{\"a\":3},{\"a\":4,\"a\":5}]",
     "[{\"a\":1,\"b\":2},{\"a\":3},{\"a\":5}]"},
    {"other names, and a double", "[{\"a\":1,\"b\":2},{\"b\":3,\"b\":4}]",
     "[{\"a\":1,\"b\":2},{\"b\":4}]"},
    {"another kind between", "[{\"a\":1},{},{\"x\":{\"a\":1,\"a\":2}},{\"a\":2,\"a\":3}]",
     "[{\"a\":1},{},{\"x\":{\"a\":2}},{\"a\":3}]"},
    {"a longer name", "[{\"ab\":1},{\"abc\":2,\"ab\":3}]", "[{\"ab\":1},{\"abc\":2,\"ab\":3}]"},
    {"a shorter name", "[{\"ab\":1},{\"a\":2}]", "[{\"ab\":1},{\"a\":2}]"},
    {"an empty name", "[{\"\":1},{\"\":2},{\"a\":3}]", "[{\"\":1},{\"\":2},{\"a\":3}]"},
    {"blanks around the names", "[{\"a\":1},{ \"a\" : 2, \"a\":3}]", "[{\"a\":1},{\"a\":3}]"},
    {"the name written with an escape", "[{\"a\":1},{\"\\u0061\":2,\"a\":3}]",
     "[{\"a\":1},{\"a\":3}]"},
    {"a name with an escape", "[{\"a\\\"b\":1},{\"a\\\"b\":2}]", "[{\"a\\\"b\":1},{\"a\\\"b\":2}]"},
};

static void doubles_are_seen_beside_sisters(void **state)
{
    struct arena *a = arena_new();
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(sister_cases); i++) {
        struct buf b = {.arena = a};
        struct json_doc doc;
        struct err err;

        assert_int_equal(json_parse(&doc, a, text_of(sister_cases[i].body), &err), ST_OK);
        json_print(&b, doc.root);
        good &= same_str(sister_cases[i].name, b.at, sister_cases[i].want);
    }
    assert_true(good);
    arena_free(&a);
}

static void what_needs_no_change_is_a_slice_of_the_body(void **state)
{
    static const char body[] = "{\"a\":\"M\xc3\xbcnchen\",\"n\":12,\"e\":\"\\n\"}";
    struct arena *a = arena_new();
    struct json_doc doc;
    struct err err;

    (void)state;
    assert_int_equal(json_parse(&doc, a, text_of(body), &err), ST_OK);
    assert_ptr_equal(doc.root->first->key.at, body + 2);
    assert_ptr_equal(json_member(doc.root, "a")->text.at, body + 6);
    assert_ptr_equal(json_member(doc.root, "n")->text.at, strstr(body, "12"));
    assert_string_equal(json_member(doc.root, "e")->text.at, "\n"); /* a copy */
    arena_free(&a);
}

static void members_and_paths(void **state)
{
    struct arena *a = arena_new();
    struct json_doc doc;
    struct err err;

    (void)state;
    assert_int_equal(
        json_parse(&doc, a, TEXT_LIT("{\"a\":{\"b\":{\"c\":\"x\"},\"ab\":null},\"n\":5}"), &err),
        ST_OK);
    assert_true(text_is(json_string(json_path(doc.root, "a.b.c")), "x"));
    assert_true(json_is(json_path(doc.root, "n"), JSON_NUMBER));
    assert_null(json_path(doc.root, "a.b.c.d"));
    assert_null(json_path(doc.root, "a.x.c"));
    assert_null(json_path(NULL, "a"));
    assert_null(json_member(doc.root, "b"));
    assert_null(json_member(json_member(doc.root, "n"), "b"));
    assert_null(json_string(json_member(doc.root, "n")).at);
    assert_true(json_is_null(json_path(doc.root, "a.ab")));
    assert_true(json_is_null(NULL));
    assert_false(json_is_null(doc.root));
    assert_int_equal(doc.root->n, 2);
    assert_string_equal(printable_snippet(a, TEXT_LIT("ab\n\xc3\xbc<z>"), 6), "ab...<");
    arena_free(&a);
}

static void writing(void **state)
{
    struct arena *a = arena_new();
    struct buf b = {.arena = a};
    struct json_writer w = {.out = &b};

    (void)state;
    json_w_object(&w);
    json_w_key(&w, "ok");
    json_w_bool(&w, true);
    json_w_key(&w, "list");
    json_w_array(&w);
    json_w_int(&w, INT64_MIN);
    json_w_null(&w);
    json_w_object(&w);
    json_w_end(&w);
    json_w_raw(&w, TEXT_LIT("0.10"));
    json_w_raw(&w, TEXT_NULL);
    json_w_end(&w);
    json_w_key_text(&w, TEXT_LIT("a\"b"));
    json_w_str(&w, "x\x01\n\xff\xc3\xbc");
    json_w_key(&w, "none");
    json_w_str(&w, NULL);
    json_w_key(&w, "empty");
    json_w_text(&w, TEXT_LIT(""));
    json_w_end(&w);
    assert_string_equal(b.at, "{\"ok\":true,\"list\":[-9223372036854775808,null,{},0.10,null],"
                              "\"a\\\"b\":\"x\\u0001\\n" FFFD "\xc3\xbc\",\"none\":null,"
                              "\"empty\":\"\"}");
    arena_free(&a);
}

static const struct {
    const char *name, *body;
    uint32_t levels;
    const char *want;
} outline_cases[] = {
    {"all of it", "{\"a\":[1,{\"b\":\"c\"}]}", 4, "{\"a\":[1,{\"b\":\"c\"}]}"},
    {"the root alone", "{\"a\":[1,{\"b\":\"c\"}]}", 1, "{}"},
    {"hollow arrays and objects", "{\"a\":[1],\"b\":{\"c\":{\"d\":2}},\"e\":3}", 2,
     "{\"a\":[],\"b\":{},\"e\":3}"},
    {"what is kept follows what is not", "[[{\"a\":[\"\\n\"]}],{\"b\":true}]", 3,
     "[[{}],{\"b\":true}]"},
    {"doubles above the edge", "{\"a\":{\"x\":1},\"a\":{\"y\":{\"z\":1}}}", 3,
     "{\"a\":{\"y\":{}}}"},
    {"doubles below the edge", "{\"a\":{\"x\":1,\"x\":2},\"b\":0}", 2, "{\"a\":{},\"b\":0}"},
};

static void an_outline_keeps_the_upper_levels(void **state)
{
    struct arena *a = arena_new();
    bool good = true;
    struct json_doc doc;
    struct err err = {0};

    (void)state;
    for (size_t i = 0; i < ROWS(outline_cases); i++) {
        struct buf out = {.arena = a};
        good &= same_int(outline_cases[i].name,
                         json_parse_outline(&doc, a, text_of(outline_cases[i].body),
                                            outline_cases[i].levels, &err),
                         ST_OK);
        json_print(&out, doc.root);
        good &= same_str(outline_cases[i].name, out.at, outline_cases[i].want);
    }
    assert_int_equal(
        json_parse_outline(&doc, a, TEXT_LIT("{\"r\":[{\"x\":[1,2]},[3],4]}"), 2, &err), ST_OK);
    assert_int_equal(json_member(doc.root, "r")->n, 3);
    assert_true(good);
    arena_free(&a);
}

static const struct {
    const char *name, *body;
    bool good;
} passed_over_cases[] = {
    {"a bracket in a text", "[[\"]\"]]", true},
    {"a quote in a text", "[[\"\\\"]\"]]", true},
    {"a backslash before the quote that ends a text", "[[\"\\\\\"]]", true},
    {"what only a whole reading sees", "[[1,,{\"a\" tru}]]", true},
    {"33 levels", "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]", true},
    {"cut off in a text", "[[\"a]]", false},
    {"cut off behind a backslash", "[[\"a\\\"]]", false},
    {"a bracket too few", "[[{}]", false},
    {"a bracket too many", "[[]]]", false},
    {"a bracket of the other kind", "[[1}]", false},
};

static void an_outline_passes_over_what_is_below(void **state)
{
    struct arena *a = arena_new();
    struct json_doc doc;
    struct err err;
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(passed_over_cases); i++)
        good &= same_int(passed_over_cases[i].name,
                         json_parse_outline(&doc, a, text_of(passed_over_cases[i].body), 2, &err),
                         passed_over_cases[i].good ? ST_OK : ST_REJECT);
    for (uint32_t levels = 1; levels <= 6; levels++) {
        good &= same_int(page, json_parse_outline(&doc, a, text_of(page), levels, &err), ST_OK);
        for (size_t len = 0; len < sizeof(page) - 1; len++)
            good &= same_int("half a page",
                             json_parse_outline(&doc, a, (struct text){page, len}, levels, &err),
                             ST_REJECT);
    }
    assert_true(good);
    arena_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_are_made_storable),
        cmocka_unit_test(what_is_not_json_is_refused),
        cmocka_unit_test(trees_print_as_they_were_read),
        cmocka_unit_test(large_objects_keep_the_later_twin_too),
        cmocka_unit_test(another_parser_agrees),
        cmocka_unit_test(damaged_bodies_are_survived),
        cmocka_unit_test(both_scans_stop_at_the_first_odd_byte),
        cmocka_unit_test(both_passes_end_at_the_same_bracket),
        cmocka_unit_test(doubles_are_seen_beside_sisters),
        cmocka_unit_test(what_needs_no_change_is_a_slice_of_the_body),
        cmocka_unit_test(members_and_paths),
        cmocka_unit_test(an_outline_keeps_the_upper_levels),
        cmocka_unit_test(an_outline_passes_over_what_is_below),
        cmocka_unit_test(writing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
