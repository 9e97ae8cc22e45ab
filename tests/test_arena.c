/* Arenas, the buffers in them, and the texts of errors. */
#include "common/arena.h"

#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/check.h"

static void memory_is_zeroed_after_a_reset_too(void **state)
{
    struct arena *a = arena_new();
    size_t dirty = 0;

    (void)state;
    for (int round = 0; round < 3; round++) {
        for (size_t size = 0; size < 3000; size += 7) {
            unsigned char *p = arena_alloc(a, 1, size);
            assert_int_equal((uintptr_t)p % _Alignof(max_align_t), 0);
            for (size_t i = 0; i < size; i++)
                dirty += p[i] != 0;
            memset(p, 0xaa, size);
        }
        arena_reset(a);
    }
    assert_int_equal(dirty, 0);
    arena_free(&a);
    assert_null(a);
    arena_free(&a); /* accepts NULL */
}

static void blocks_do_not_overlap(void **state)
{
    static const size_t sizes[] = {1, 15, 16, 17, 65535, 65536, 70000, 3 << 20, 1, 100000};
    unsigned char *blocks[ROWS(sizes)];
    struct arena *a = arena_new();

    (void)state;
    for (int round = 0; round < 2; round++) { /* the second finds kept chunks */
        for (size_t i = 0; i < ROWS(sizes); i++) {
            blocks[i] = arena_alloc(a, sizes[i], 1);
            memset(blocks[i], (int)i + 1, sizes[i]);
        }
        for (size_t i = 0; i < ROWS(sizes); i++) {
            assert_int_equal(blocks[i][0], i + 1);
            assert_int_equal(blocks[i][sizes[i] - 1], i + 1);
        }
        arena_reset(a);
    }
    arena_free(&a);
}

static void note(char *trace, char letter)
{
    trace[strlen(trace)] = letter;
}

static void note_a(void *arg)
{
    note(arg, 'a');
}

static void note_b(void *arg)
{
    note(arg, 'b');
}

static void deferred_calls_run_last_first_and_once(void **state)
{
    struct arena *a = arena_new();
    char trace[16] = "";

    (void)state;
    arena_defer(a, note_a, trace);
    arena_defer(a, note_b, trace);
    arena_reset(a);
    assert_string_equal(trace, "ba");
    arena_reset(a);
    assert_string_equal(trace, "ba");
    arena_defer(a, note_a, trace);
    arena_free(&a);
    assert_string_equal(trace, "baa");
}

static void copies_keep_null_apart_from_empty(void **state)
{
    struct arena *a = arena_new();

    (void)state;
    assert_null(arena_text(a, TEXT_NULL).at);
    assert_non_null(arena_text(a, TEXT_LIT("")).at);
    assert_true(text_is(arena_text(a, TEXT_LIT("abc")), "abc"));
    assert_string_equal(arena_copy(a, "abcdef", 3), "abc");
    assert_string_equal(arena_printf(a, "%s-%d", "x", 7), "x-7");
    assert_false(text_eq(TEXT_NULL, TEXT_LIT("")));
    assert_true(text_eq(TEXT_NULL, TEXT_NULL));
    arena_free(&a);
}

static void a_buffer_grows_in_place_and_beside_others(void **state)
{
    struct arena *a = arena_new();
    struct buf one = {.arena = a}, two = {.arena = a};
    size_t want = 0;

    (void)state;
    for (int i = 0; i < 20000; i++) { /* turns: none is ever the last block for long */
        buf_printf(&one, "%d,", i);
        buf_str(&two, "ab");
        buf_text(&two, TEXT_LIT("c"));
        want += 3;
    }
    assert_int_equal(two.len, want);
    assert_int_equal(strlen(two.at), want);
    assert_int_equal(one.len, strlen(one.at));
    for (size_t i = 0; i < want; i++)
        assert_int_equal(two.at[i], "abc"[i % 3]);
    assert_memory_equal(one.at + one.len - 6, "19999,", 6);
    arena_free(&a);
}

static void no_memory_ends_the_process_with_111(void **state)
{
    int status;
    pid_t child = fork();

    (void)state;
    if (child == 0) {
        (void)!freopen("/dev/null", "w", stderr);
        xalloc(SIZE_MAX, 2);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 111);
}

static const struct {
    const char *name, *text, *want;
} err_cases[] = {
    {"plain", "no such feed", "no such feed"},
    {"a line end can not forge a second line", "a\nb\tc\x7f", "a?b?c?"},
    {"other letters stay", "M\xc3\xbcnchen", "M\xc3\xbcnchen"},
};

static void errors_are_one_line(void **state)
{
    bool good = true;
    struct err err;

    (void)state;
    for (size_t i = 0; i < ROWS(err_cases); i++) {
        good &= same_int(err_cases[i].name, err_set(&err, ST_REJECT, "%s", err_cases[i].text),
                         ST_REJECT);
        good &= same_str(err_cases[i].name, err.text, err_cases[i].want);
    }
    good &= same_int("prefix keeps the status", err_prefix(&err, "row %d", 3), ST_REJECT);
    good &= same_str("prefix", err.text, "row 3: M\xc3\xbcnchen");
    good &= same_int("own text as argument", err_set(&err, ST_RETRY, "(%s)", err.text), ST_RETRY);
    good &= same_str("own text as argument", err.text, "(row 3: M\xc3\xbcnchen)");
    assert_true(good);
}

static void long_errors_are_cut_at_a_whole_character(void **state)
{
    char text[700];
    struct err err;
    size_t len;

    (void)state;
    for (size_t shift = 0; shift < 2; shift++) {
        memset(text, 'x', shift);
        for (size_t i = shift; i + 2 < sizeof(text); i += 2)
            memcpy(text + i, "\xc3\xbc", 3);
        (void)err_set(&err, ST_FATAL, "%s", text);
        len = strlen(err.text);
        assert_in_range(len, sizeof(err.text) - 2, sizeof(err.text) - 1);
        assert_int_equal((unsigned char)err.text[len - 1], 0xbc);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_zeroed_after_a_reset_too),
        cmocka_unit_test(blocks_do_not_overlap),
        cmocka_unit_test(deferred_calls_run_last_first_and_once),
        cmocka_unit_test(copies_keep_null_apart_from_empty),
        cmocka_unit_test(a_buffer_grows_in_place_and_beside_others),
        cmocka_unit_test(no_memory_ends_the_process_with_111),
        cmocka_unit_test(errors_are_one_line),
        cmocka_unit_test(long_errors_are_cut_at_a_whole_character),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
