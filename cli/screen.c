#include "cli/screen.h"

#include <stdint.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cli/table.h"
#include "common/utf8.h"

#define COLUMNS_ELSE  80
#define COLUMNS_LEAST 20

struct screen screen_now(void)
{
    struct winsize size = {0};

    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= COLUMNS_LEAST &&
        size.ws_row > 1)
        return (struct screen){size.ws_col, size.ws_row};
    return (struct screen){COLUMNS_ELSE, SIZE_MAX};
}

static size_t step(struct text t, size_t at)
{
    size_t n = utf8_sequence(t.at + at, t.len - at);

    return n ? n : 1;
}

static void write_cut(struct buf *out, struct text line, size_t columns)
{
    size_t at = 0, n = 0, short_at = 0; /* short_at: where it ends when "..." follows */

    while (at < line.len && n < columns) {
        at += step(line, at);
        n++;
        if (n + 3 <= columns)
            short_at = at;
    }
    buf_append(out, line.at, at < line.len ? short_at : at);
    if (at < line.len)
        buf_str(out, "...");
}

void screen_write(struct buf *out, struct text text, struct screen screen, const char *line_end)
{
    struct text line;

    for (size_t row = 0; row < screen.rows && line_next(&line, &text); row++) {
        write_cut(out, line, screen.columns);
        buf_str(out, line_end);
    }
}
