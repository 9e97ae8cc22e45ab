/* What people see in a terminal: cut to its width, whole characters, and every figure in its place.
 */
#include "cli/top.h"

#include <stdlib.h>

#include "cli/screen.h"
#include "common/clock.h"
#include "tests/check.h"

static const struct {
    const char *name, *text;
    struct screen screen;
    const char *want;
} cut_cases[] = {
    {"what fits", "abc\ndef\n", {5, 9}, "abc|def|"},
    {"just as wide", "abcde", {5, 9}, "abcde|"},
    {"one too many", "abcdef", {5, 9}, "ab...|"},
    {"characters, not bytes",
     "\xc3\xa4\xc3\xb6\xc3\xbc\xc3\x9f.",
     {5, 9},
     "\xc3\xa4\xc3\xb6\xc3\xbc\xc3\x9f.|"},
    {"no character is cut in two",
     "\xc3\xa4\xc3\xb6\xc3\xbc\xc3\x9fxy",
     {5, 9},
     "\xc3\xa4\xc3\xb6...|"},
    {"more lines than rows", "a\nb\nc\n", {5, 2}, "a|b|"},
    {"an empty line", "a\n\nb\n", {5, 9}, "a||b|"},
    {"nothing", "", {5, 9}, ""},
};

static void lines_are_cut(void **state)
{
    bool good = true;

    (void)state;
    for (size_t i = 0; i < ROWS(cut_cases); i++) {
        struct buf out = {.arena = arena_new()};
        screen_write(&out, text_of(cut_cases[i].text), cut_cases[i].screen, "|");
        good &= same_str(cut_cases[i].name, out.at ? out.at : "", cut_cases[i].want);
        arena_free(&out.arena);
    }
    assert_true(good);
}

static void hear(struct instances *in, struct pulse **p, int64_t at_us)
{
    struct buf b = {.arena = arena_new()};
    struct err err = {0};

    pulse_encode(&b, *p, clock_mono_us() + 3661 * US_PER_S, false);
    if (instances_take(in, (struct text){b.at, b.len}, at_us, &err) != ST_OK)
        fail_msg("%s", err.text);
    arena_free(&b.arena);
}

static const char *const wanted[] = {
    "4 processes, 2026-11-25T03:00:00Z; work a second: jobs, requests, records, rows\n",
    "scheduler   PAUSED (usagectl resume goes on); 0 accounts due, 7 jobs out, room for 0\n",
    "            POSTGRES IS AWAY, says scheduler-1\n",
    "fetcher     0 jobs held, 0 requests under way; WAITS for normalizers\n",
    "            requests: 1,234 ok, 2 timeout; 1500 ms each, 5.1 MB\n",
    "normalizer  none is heard: is uf-normalizer running?\n",
    "            rows: 5 new, 0 changed, 0 removed, 0 unchanged\n",
    "\nSTAGE       PROCESS                              UP     10 S    1 MIN WARN ERR\n",
    "\nfetcher     fetcher-1                      1h01m01s      246      246    0   0\n",
    "\nwriter      a-name-that-i..-fills-a-line   1h01m01s         silent 9s    0   0\n",
};

static void the_picture(void **state)
{
    struct instances *in = instances_new();
    struct pulse *s = pulse_new(STAGE_SCHEDULER, "scheduler-1"),
                 *f = pulse_new(STAGE_FETCHER, "fetcher-1"),
                 *w = pulse_new(STAGE_WRITER, "a-name-that-is-so-long-that-it-fills-a-line"),
                 *w2 = pulse_new(STAGE_WRITER, "w2");
    struct buf out = {.arena = arena_new()}, cut = {.arena = out.arena};
    size_t openai = pulse_name(f, TEXT_LIT("openai"));
    bool good = true;

    (void)state;
    pulse_set(s, M_PAUSED, 1);
    pulse_set(s, M_JOBS_OUT, 7);
    pulse_set(w, M_POSTGRES_UP, 1);
    pulse_set(w2, M_POSTGRES_UP, 1);
    pulse_add(w, M_ROWS_WRITTEN, CHANGE_INSERTED, 0, 5);
    hear(in, &w, 1 * US_PER_S);
    hear(in, &s, 10 * US_PER_S);
    hear(in, &w2, 10 * US_PER_S);
    hear(in, &f, 5 * US_PER_S);
    pulse_add(f, M_REQUESTS, openai, OUTCOME_OK, 1234 - 6);
    pulse_add(f, M_REQUESTS, openai, OUTCOME_TIMEOUT, 2);
    pulse_observe(f, M_REQUEST_DURATION, openai, OUTCOME_OK, 1500000);
    pulse_add(f, M_BYTES_FETCHED, openai, 0, 5149999);
    pulse_set(f, M_PAGES_BLOCKED, 1);
    pulse_add(f, M_REQUESTS, openai, OUTCOME_OK, 6);
    hear(in, &f, 10 * US_PER_S + 24390); /* 1,236 in 5.02439 s */
    top_write(&out, in, INT64_C(1795575600) * US_PER_S + 5, 10 * US_PER_S + 24390);
    for (size_t i = 0; i < ROWS(wanted); i++)
        good &= has_words("picture", out.at, wanted[i]);
    screen_write(&cut, (struct text){out.at, out.len}, (struct screen){80, SIZE_MAX}, "\n");
    instances_free(&in);
    pulse_free(&s);
    pulse_free(&f);
    pulse_free(&w);
    pulse_free(&w2);
    arena_free(&out.arena);
    assert_true(good);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_are_cut),
        cmocka_unit_test(the_picture),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
