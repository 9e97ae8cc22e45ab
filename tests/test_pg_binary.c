/* Values to and from Postgres in its binary form, against its text form of the same. */
#include "common/pg_binary.h"

#include "common/clock.h"
#include "tests/private_pg.h"

static struct pg *pg;
static struct arena *arena;

static int setup(void **state)
{
    (void)state;
    private_pg_open(&pg, &arena);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    private_pg_close(&pg, &arena);
    return 0;
}

static const enum pg_type types[] = {PG_BIGINT, PG_INT, PG_BOOL, PG_TEXT, PG_BYTEA, PG_TIME};
#define N_TYPES ROWS(types)

static const struct {
    const char *name;
    int64_t bigint, integer, boolean;
    struct text text, bytea;
    int64_t time_us;
    const char *want; /* as Postgres shows it */
} rows[] = {
    {"plain", 7, -3, 1, TEXT_LIT("costs"), TEXT_LIT("\x01\xff"), 1795570188000001,
     "7 -3 true costs \\x01ff 2026-11-25 01:29:48.000001+00"},
    {"ends of the ranges", INT64_MIN, INT32_MAX, 0, TEXT_LIT(""), TEXT_LIT(""), -1,
     "-9223372036854775808 2147483647 false  \\x 1969-12-31 23:59:59.999999+00"},
    {"nulls", INT64_MAX, INT32_MIN, 0, TEXT_NULL, TEXT_NULL, 0,
     "9223372036854775807 -2147483648 false - - -"},
    {"what needs no quotes here", 0, 0, 0, TEXT_LIT("{\"a\\\",NULL}"), TEXT_LIT("\\x"), 1,
     "0 0 false {\"a\\\",NULL} \\x5c78 1970-01-01 00:00:00.000001+00"},
    {"a text of strangers is repaired", 0, 0, 0, TEXT_LIT("\xc3\xa9 \xff"), TEXT_LIT("\xff"), 1,
     "0 0 false \xc3\xa9 \xef\xbf\xbd \\xff 1970-01-01 00:00:00.000001+00"},
};

/* All rows of the table, or the first `n`, in one result; shown as text or left in binary form. */
static PGresult *unnested(const char *select, size_t n, bool binary)
{
    struct pg_column col[N_TYPES];
    struct pg_params p = {.binary_result = binary};
    struct err err = {0};
    PGresult *r = NULL;

    pg_columns_open(col, arena, types, N_TYPES);
    for (size_t i = 0; i < n; i++) {
        pg_column_int(&col[0], rows[i].bigint);
        pg_column_int(&col[1], rows[i].integer);
        pg_column_int(&col[2], rows[i].boolean);
        pg_column_text(&col[3], rows[i].text);
        pg_column_text(&col[4], rows[i].bytea);
        pg_column_time(&col[5], rows[i].time_us);
    }
    pg_param_columns(&p, col, N_TYPES);
    if (pg_query(pg, &r, arena,
                 arena_printf(arena,
                              "SELECT %s FROM unnest($1::bigint[], $2::int[], $3::boolean[], "
                              "$4::text[], $5::bytea[], $6::timestamptz[]) AS w (a, b, c, d, e, f)",
                              select),
                 &p, &err) != ST_OK)
        fail_msg("%s", err.text);
    return r;
}

static void columns_arrive_whole(void **state)
{
    bool good = true;
    PGresult *r;

    (void)state;
    NEEDS_POSTGRES();
    r = unnested("concat_ws(' ', a, b, c::text, coalesce(d, '-'), coalesce(e::text, '-'), "
                 "coalesce((f AT TIME ZONE 'UTC')::text || '+00', '-'))",
                 ROWS(rows), false);
    good &= same_int("rows", PQntuples(r), ROWS(rows));
    for (int i = 0; i < PQntuples(r); i++)
        good &= same_str(rows[i].name, PQgetvalue(r, i, 0), rows[i].want);
    assert_true(good);
    assert_int_equal(PQntuples(unnested("a", 0, false)), 0);
}

static void values_come_back(void **state)
{
    bool good = true;
    PGresult *r;

    (void)state;
    NEEDS_POSTGRES();
    r = unnested("a, b, c, d, e, f, b::smallint", 1, true);
    good &= same_int("smallint", pg_bin_int(r, 0, 6), -3);
    r = unnested("a, b, c, d, e, f", ROWS(rows) - 1, true); /* the last one's text is another now */
    for (int i = 0; i < PQntuples(r); i++) {
        good &= same_int(rows[i].name, pg_bin_int(r, i, 0), rows[i].bigint);
        good &= same_int(rows[i].name, pg_bin_int(r, i, 1), rows[i].integer);
        good &= same_int(rows[i].name, pg_bin_int(r, i, 2), rows[i].boolean);
        good &= same_int(rows[i].name, text_eq(pg_text(r, i, 3), rows[i].text), true);
        good &= same_int(rows[i].name, text_eq(pg_text(r, i, 4), rows[i].bytea), true);
        good &= same_int(rows[i].name, pg_bin_time(r, i, 5), rows[i].time_us);
    }
    r = unnested("null::bigint, null::timestamptz, 'infinity'::timestamptz, "
                 "'-infinity'::timestamptz, 'epoch'::timestamptz",
                 1, true);
    good &= same_int("null", pg_bin_int(r, 0, 0), 0);
    good &= same_int("null time", pg_bin_time(r, 0, 1), 0);
    good &= same_int("infinity", pg_bin_time(r, 0, 2), INT64_MAX);
    good &= same_int("-infinity", pg_bin_time(r, 0, 3), INT64_MIN);
    good &= same_int("1970", pg_bin_time(r, 0, 4), 0);
    assert_true(good);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(columns_arrive_whole, setup, teardown),
        cmocka_unit_test_setup_teardown(values_come_back, setup, teardown),
    };

    return cmocka_run_group_tests(tests, private_pg_start, private_pg_stop);
}
