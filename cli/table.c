#include "cli/table.h"

#include <assert.h>
#include <string.h>

#include "cli/cli.h"
#include "common/json.h"
#include "common/utf8.h"

#define GAP "  "

void table_open(struct table *t, struct arena *a)
{
    *t = (struct table){.arena = a};
}

void table_column(struct table *t, const char *name, enum column_kind kind)
{
    t->columns[t->n_columns].name = name;
    t->columns[t->n_columns++].kind = kind;
}

void table_cell(struct table *t, struct text cell)
{
    if (t->n_cells == t->cap) {
        size_t cap = t->cap ? t->cap * 2 : 256;
        struct text *cells = ARENA_ARRAY(t->arena, cap, struct text);

        if (t->n_cells)
            memcpy(cells, t->cells, t->n_cells * sizeof(*cells));
        t->cells = cells;
        t->cap = cap;
    }
    t->cells[t->n_cells++] = cell;
}

void table_str(struct table *t, const char *cell)
{
    table_cell(t, text_of(cell));
}

/* ---- for people ---- */

const char *digits_grouped(struct arena *a, struct text number)
{
    size_t sign = number.len > 0 && number.at[0] == '-', whole = sign;
    struct buf b = {.arena = a};

    while (whole < number.len && number.at[whole] >= '0' && number.at[whole] <= '9')
        whole++;
    buf_append(&b, number.at, sign);
    for (size_t i = sign; i < whole; i++) {
        if (i > sign && (whole - i) % 3 == 0)
            buf_str(&b, ",");
        buf_append(&b, number.at + i, 1);
    }
    buf_append(&b, number.at + whole, number.len - whole);
    return b.at;
}

const char *terminal_text(struct arena *a, struct text t)
{
    struct buf b = {.arena = a};

    buf_str(&b, "");
    for (size_t i = 0; i < t.len;) {
        size_t n = utf8_sequence(t.at + i, t.len - i);
        unsigned char c = (unsigned char)t.at[i];
        /* C1 controls are two bytes in UTF-8, and terminals obey them */
        bool control =
            c < 0x20 || c == 0x7f || (n == 2 && c == 0xc2 && (unsigned char)t.at[i + 1] < 0xa0);

        if (n == 0 || control)
            buf_str(&b, "?");
        else
            buf_append(&b, t.at + i, n);
        i += n ? n : 1;
    }
    return b.at;
}

/* Characters, not bytes. */
static size_t width(const char *s)
{
    size_t n = 0;

    for (; *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

static size_t fraction_len(const char *s)
{
    const char *point = strchr(s, '.');

    return point ? strlen(point) : 0;
}

/* The column's texts as they are shown, and their width. */
static size_t column_texts(const struct table *t, size_t column, const char **out)
{
    size_t rows = t->n_cells / t->n_columns, widest = width(t->columns[column].name), fraction = 0;

    for (size_t r = 0; r < rows; r++) {
        struct text cell = t->cells[r * t->n_columns + column];

        out[r] = !cell.at                                 ? "-"
                 : t->columns[column].kind == COLUMN_TEXT ? terminal_text(t->arena, cell)
                                                          : digits_grouped(t->arena, cell);
        if (fraction_len(out[r]) > fraction)
            fraction = fraction_len(out[r]);
    }
    for (size_t r = 0; r < rows; r++) {
        if (t->columns[column].kind == COLUMN_AMOUNT)
            out[r] =
                arena_printf(t->arena, "%s%*s", out[r], (int)(fraction - fraction_len(out[r])), "");
        if (width(out[r]) > widest)
            widest = width(out[r]);
    }
    return widest;
}

/* No line ends in blanks. */
static void print_cell(FILE *out, const char *s, size_t widest, bool right, bool last)
{
    int pad = (int)(widest - width(s)), len = (int)strlen(s);

    while (last && len > 0 && s[len - 1] == ' ')
        len--;
    (void)fprintf(out, "%*s%.*s%*s", right ? pad : 0, "", len, s, right || last ? 0 : pad, "");
    (void)fputs(last ? "\n" : GAP, out);
}

static void print_table(const struct table *t, FILE *out)
{
    size_t rows = t->n_cells / t->n_columns;
    const char **texts[TABLE_COLUMNS_MAX];
    size_t widths[TABLE_COLUMNS_MAX];

    for (size_t c = 0; c < t->n_columns; c++) {
        texts[c] = ARENA_ARRAY(t->arena, rows + 1, const char *);
        widths[c] = column_texts(t, c, texts[c]);
    }
    for (size_t c = 0; c < t->n_columns; c++)
        print_cell(out, t->columns[c].name, widths[c], t->columns[c].kind != COLUMN_TEXT,
                   c + 1 == t->n_columns);
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < t->n_columns; c++)
            print_cell(out, texts[c][r], widths[c], t->columns[c].kind != COLUMN_TEXT,
                       c + 1 == t->n_columns);
}

/* ---- for programs ---- */

static void print_csv_cell(FILE *out, struct text cell)
{
    bool quoted = false;

    if (!cell.at)
        return; /* null is nothing, the empty text is "" */
    for (size_t i = 0; i < cell.len; i++)
        quoted |= strchr(",\"\r\n", cell.at[i]) != NULL;
    if (!quoted && cell.len > 0) {
        (void)fwrite(cell.at, 1, cell.len, out);
        return;
    }
    (void)fputc('"', out);
    for (size_t i = 0; i < cell.len; i++) {
        if (cell.at[i] == '"')
            (void)fputc('"', out);
        (void)fputc(cell.at[i], out);
    }
    (void)fputc('"', out);
}

static void print_csv(const struct table *t, FILE *out)
{
    for (size_t c = 0; c < t->n_columns; c++)
        (void)fprintf(out, "%s%s", c ? "," : "", t->columns[c].name);
    (void)fputs("\n", out);
    for (size_t i = 0; i < t->n_cells; i++) {
        print_csv_cell(out, t->cells[i]);
        (void)fputc((i + 1) % t->n_columns ? ',' : '\n', out);
    }
}

static void print_json(const struct table *t, FILE *out)
{
    struct buf b = {.arena = t->arena};
    struct json_writer w = {.out = &b};

    json_w_array(&w);
    for (size_t i = 0; i < t->n_cells; i++) {
        size_t c = i % t->n_columns;

        if (c == 0)
            json_w_object(&w);
        json_w_key(&w, t->columns[c].name);
        if (t->cells[i].at && t->columns[c].kind == COLUMN_COUNT)
            json_w_raw(&w, t->cells[i]);
        else
            json_w_text(&w, t->cells[i]);
        if (c + 1 == t->n_columns)
            json_w_end(&w);
    }
    json_w_end(&w);
    (void)fwrite(b.at, 1, b.len, out);
    (void)fputs("\n", out);
}

void table_print(const struct table *t, enum table_format format, FILE *out)
{
    assert(t->n_columns > 0 && t->n_cells % t->n_columns == 0);
    switch (format) {
    case FORMAT_TABLE:
        print_table(t, out);
        return;
    case FORMAT_CSV:
        print_csv(t, out);
        return;
    case FORMAT_JSON:
        print_json(t, out);
        return;
    }
}

enum status table_format_parse(enum table_format *out, struct arena *a, const char *word,
                               struct err *err)
{
    static const char *const names[] = {"table", "csv", "json"};

    *out = FORMAT_TABLE;
    for (size_t i = 0; word && i < 3; i++) {
        if (strcmp(word, names[i]) == 0) {
            *out = (enum table_format)i;
            return ST_OK;
        }
    }
    if (!word)
        return ST_OK;
    return err_set(err, ST_REJECT, "--format %.60s: %s", word, cli_suggest(a, word, names, 3));
}

/* ---- lines and CSV read ---- */

bool line_next(struct text *line, struct text *rest)
{
    const char *end;

    if (rest->len == 0)
        return false;
    end = memchr(rest->at, '\n', rest->len);
    line->at = rest->at;
    line->len = end ? (size_t)(end - rest->at) : rest->len;
    rest->at += line->len + (end != NULL);
    rest->len -= line->len + (end != NULL);
    if (line->len > 0 && line->at[line->len - 1] == '\r')
        line->len--;
    return true;
}

/* One field from `*at`, which is left behind its comma. */
static enum status csv_field(struct text *out, struct arena *a, const char **at, const char *end,
                             struct err *err)
{
    const char *p = *at;
    struct buf b = {.arena = a};

    buf_str(&b, "");
    if (p < end && *p == '"') {
        for (p++; p < end; p++) {
            if (*p == '"' && (p + 1 == end || p[1] != '"'))
                break;
            p += *p == '"';
            buf_append(&b, p, 1);
        }
        if (p == end)
            return err_set(err, ST_REJECT, "a quote does not end");
        if (++p < end && *p != ',')
            return err_set(err, ST_REJECT, "text after a closing quote");
    } else {
        for (; p < end && *p != ','; p++)
            buf_append(&b, p, 1);
        while (b.len > 0 && (b.at[b.len - 1] == ' ' || b.at[b.len - 1] == '\t'))
            b.at[--b.len] = '\0';
        while (b.len > 0 && (*b.at == ' ' || *b.at == '\t')) {
            b.at++;
            b.len--;
        }
    }
    *out = (struct text){b.at, b.len};
    *at = p;
    return ST_OK;
}

enum status csv_split(struct text *fields, size_t *n, size_t max, struct arena *a, struct text line,
                      struct err *err)
{
    const char *at = line.at, *end = line.at + line.len;

    for (*n = 0;; at++) {
        if (*n == max)
            return err_set(err, ST_REJECT, "more than %zu fields", max);
        TRY(csv_field(&fields[(*n)++], a, &at, end, err));
        if (at == end)
            return ST_OK;
    }
}
