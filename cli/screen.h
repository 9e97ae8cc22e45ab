/* screen.h - text that is cut to the width of whoever reads it. */
#ifndef UF_CLI_SCREEN_H
#define UF_CLI_SCREEN_H

#include <stddef.h>
#include <stdio.h>

#include "common/arena.h"
#include "common/text.h"

struct screen {
    size_t columns, rows;
};

/* The terminal's size; where there is none (a file, a pipe) 80 columns and no end of rows. */
struct screen screen_now(void);

/* `text` with each line cut to the screen's columns ("..." says so) and, with a terminal, only as
 * many lines as it has. Characters count, not bytes. `line_end` follows each line. */
void screen_write(struct buf *out, struct text text, struct screen screen, const char *line_end);

#endif
