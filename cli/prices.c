/* prices.c - prices import, prices list: what a million tokens cost, for estimates. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/table.h"
#include "common/clock.h"
#include "common/decimal.h"
#include "common/providers/provider.h"

#define PRICES_FILE_MAX (16 << 20)
#define FIELDS          6

static const char heading[] = "provider,model,kind,per_million,currency,valid_from";

struct price {
    struct text provider, model, kind, per_million, currency, valid_from;
};

static enum status kind_check(struct text kind, struct arena *a, struct err *err)
{
    static const char *const kinds[] = {"input", "cached_input", "cache_write", "output"};
    static const size_t n = sizeof(kinds) / sizeof(kinds[0]);

    for (size_t i = 0; i < n; i++)
        if (text_is(kind, kinds[i]))
            return ST_OK;
    return err_set(err, ST_REJECT, "no kind of tokens is '%.*s': %s", (int)kind.len, kind.at,
                   cli_suggest(a, arena_copy(a, kind.at, kind.len), kinds, n));
}

static enum status amount_check(struct text amount, struct arena *a, struct err *err)
{
    struct decimal d;

    TRY(decimal_parse(&d, a, amount, err));
    if (d.negative)
        return err_set(err, ST_REJECT, "a price is not negative: '%.*s'", (int)amount.len,
                       amount.at);
    return ST_OK;
}

static enum status currency_check(struct text currency, struct err *err)
{
    bool good = currency.len == 3;

    for (size_t i = 0; good && i < 3; i++)
        good = currency.at[i] >= 'A' && currency.at[i] <= 'Z';
    return good ? ST_OK
                : err_set(err, ST_REJECT, "'%.*s' is no currency: write three capitals, as USD",
                          (int)currency.len, currency.at);
}

static enum status day_check(struct text day, struct arena *a, struct err *err)
{
    const char *start = arena_printf(a, "%.*sT00:00:00Z", (int)day.len, day.at);
    struct err ignored = {0};
    int64_t us;

    if (day.len != strlen("2026-11-01") || time_parse(&us, text_of(start), &ignored) != ST_OK)
        return err_set(err, ST_REJECT, "'%.*s' is no day: write it as 2026-11-01", (int)day.len,
                       day.at);
    return ST_OK;
}

static enum status price_parse(struct price *out, struct arena *a, struct text line,
                               struct err *err)
{
    struct text f[FIELDS] = {{0}};
    size_t n = 0;

    TRY(csv_split(f, &n, FIELDS, a, line, err));
    if (n < 4)
        return err_set(err, ST_REJECT,
                       "a price has at least provider, model, kind and per_million");
    *out = (struct price){f[0],
                          f[1],
                          f[2],
                          f[3],
                          n > 4 && f[4].len > 0 ? f[4] : TEXT_LIT("USD"),
                          n > 5 && f[5].len > 0 ? f[5] : TEXT_LIT("1970-01-01")};
    if (!provider_find(out->provider))
        return err_set(err, ST_REJECT, "no provider is '%.*s': usagectl providers lists them",
                       (int)out->provider.len, out->provider.at);
    if (out->model.len == 0)
        return err_set(err, ST_REJECT, "the model is missing");
    TRY(kind_check(out->kind, a, err));
    TRY(amount_check(out->per_million, a, err));
    TRY(currency_check(out->currency, err));
    return day_check(out->valid_from, a, err);
}

/* In one transaction: all of the file or none of it. A price that is there is replaced. */
static enum status prices_store(struct cli *cli, const struct price *list, size_t n,
                                struct err *err)
{
    struct pg_array columns[FIELDS];
    struct pg_params p = {0};

    for (size_t c = 0; c < FIELDS; c++)
        pg_array_open(&columns[c], cli->arena);
    for (size_t i = 0; i < n; i++) {
        pg_array_text(&columns[0], list[i].provider);
        pg_array_text(&columns[1], list[i].model);
        pg_array_text(&columns[2], list[i].kind);
        pg_array_text(&columns[3], list[i].per_million);
        pg_array_text(&columns[4], list[i].currency);
        pg_array_text(&columns[5], list[i].valid_from);
    }
    for (size_t c = 0; c < FIELDS; c++)
        pg_param_text(&p, pg_array_close(&columns[c]));
    TRY(cli_database(cli, err));
    /* of two lines for one price the later holds */
    TRY(pg_query(cli->pg, NULL, NULL,
                 "INSERT INTO model_prices (provider, model, kind, per_million, currency, "
                 "valid_from) SELECT DISTINCT ON (provider, model, kind, valid_from) provider, "
                 "model, kind, per_million, currency, valid_from FROM unnest($1::text[], "
                 "$2::text[], $3::text[], $4::numeric[], $5::text[], $6::date[]) WITH ORDINALITY "
                 "AS p (provider, model, kind, per_million, currency, valid_from, line) "
                 "ORDER BY provider, model, kind, valid_from, line DESC "
                 "ON CONFLICT (provider, model, kind, valid_from) DO UPDATE "
                 "SET per_million = excluded.per_million, currency = excluded.currency",
                 &p, err));
    return pg_commit(cli->pg, err);
}

enum status cmd_prices_import(struct cli *cli, const struct args *args, struct err *err)
{
    const char *path = args->words[0];
    struct text all, rest, line;
    struct price *list;
    size_t n = 0, number = 0, lines = 1;

    TRY(cli_read_file(&all, cli->arena, path, PRICES_FILE_MAX, err));
    for (size_t i = 0; i < all.len; i++)
        lines += all.at[i] == '\n';
    list = ARENA_ARRAY(cli->arena, lines, struct price);
    for (rest = all; line_next(&line, &rest);) {
        number++;
        if (line.len == 0 || line.at[0] == '#' ||
            (number == 1 && line.len >= 9 && memcmp(line.at, "provider,", 9) == 0))
            continue;
        if (price_parse(&list[n++], cli->arena, line, err) != ST_OK)
            return err_prefix(err, "%s, line %zu; no price was changed", path, number);
    }
    if (n == 0)
        return err_set(err, ST_REJECT, "%s holds no price; a line is %s", path, heading);
    TRY(prices_store(cli, list, n, err));
    (void)printf("%zu price%s imported\n", n, n == 1 ? "" : "s");
    return ST_OK;
}

enum status cmd_prices_list(struct cli *cli, const struct args *args, struct err *err)
{
    enum table_format format;
    struct table t;
    PGresult *r;

    TRY(table_format_parse(&format, cli->arena, args->values[OPT_FORMAT], err));
    TRY(cli_database(cli, err));
    TRY(pg_query(cli->pg, &r, cli->arena,
                 "SELECT provider, model, kind, per_million, currency, valid_from "
                 "FROM model_prices ORDER BY 1, 2, 3, 6",
                 NULL, err));
    if (PQntuples(r) == 0 && format == FORMAT_TABLE) {
        (void)printf("no prices yet: usagectl prices import FILE, with lines of %s\n", heading);
        return ST_OK;
    }
    table_open(&t, cli->arena);
    table_column(&t, "provider", COLUMN_TEXT);
    table_column(&t, "model", COLUMN_TEXT);
    table_column(&t, "kind", COLUMN_TEXT);
    table_column(&t, "per_million", COLUMN_AMOUNT);
    table_column(&t, "currency", COLUMN_TEXT);
    table_column(&t, "valid_from", COLUMN_TEXT);
    for (int row = 0; row < PQntuples(r); row++)
        for (int col = 0; col < PQnfields(r); col++)
            table_cell(&t, pg_text(r, row, col));
    table_print(&t, format, stdout);
    return ST_OK;
}
