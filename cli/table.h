/* table.h - rows of text, printed for people, as CSV (RFC 4180) or as JSON.
 *
 * Figures are text from Postgres to the output: never a double. For people, whole digits are
 * grouped by commas, decimal points stand below each other and null is "-"; CSV and JSON carry the
 * digits as they are. */
#ifndef UF_CLI_TABLE_H
#define UF_CLI_TABLE_H

#include <stddef.h>
#include <stdio.h>

#include "common/arena.h"
#include "common/status.h"
#include "common/text.h"

enum table_format { FORMAT_TABLE, FORMAT_CSV, FORMAT_JSON };

enum column_kind {
    COLUMN_TEXT,
    COLUMN_COUNT,  /* whole numbers: right-aligned; a number in JSON */
    COLUMN_AMOUNT, /* decimals: aligned at the point; a text in JSON, so that nobody rounds it */
};

#define TABLE_COLUMNS_MAX 32

struct table {
    struct arena *arena;
    struct {
        const char *name;
        enum column_kind kind;
    } columns[TABLE_COLUMNS_MAX];
    size_t n_columns;
    struct text *cells; /* row by row */
    size_t n_cells, cap;
};

void table_open(struct table *t, struct arena *a);
void table_column(struct table *t, const char *name, enum column_kind kind);
/* The next cell of the row, kept by reference; null is SQL's. */
void table_cell(struct table *t, struct text cell);
void table_str(struct table *t, const char *cell);
void table_print(const struct table *t, enum table_format format, FILE *out);

/* "1234567" -> "1,234,567"; signs and fractions stay. In `a`. */
const char *digits_grouped(struct arena *a, struct text number);

/* NULL: "table". ST_REJECT: unknown. */
enum status table_format_parse(enum table_format *out, struct arena *a, const char *word,
                               struct err *err) CHECKED;

/* Text of strangers, fit for a terminal: control characters become '?'; invalid bytes too. */
const char *terminal_text(struct arena *a, struct text t);

/* Splits one CSV line ("" inside quotes is a quote) into at most `max` fields, in `a`.
 * ST_REJECT: a quote that does not end, text after a closing quote, or more fields. */
enum status csv_split(struct text *fields, size_t *n, size_t max, struct arena *a, struct text line,
                      struct err *err) CHECKED;

/* Takes the next line of `rest`, without its end; false at the end of the text. */
bool line_next(struct text *line, struct text *rest);

#endif
