#include "common/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/utf8.h"

/* Into `err`, cut at a whole character and on one line: texts of strangers end up here. */
static void keep(struct err *err, const char *text)
{
    size_t len = utf8_cut(text, strlen(text), sizeof(err->text) - 1);

    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c < 0x20 || c == 0x7f)
            err->text[i] = '?';
        else
            err->text[i] = text[i];
    }
    err->text[len] = '\0';
}

enum status err_set(struct err *err, enum status status, const char *fmt, ...)
{
    char text[sizeof(err->text) * 2]; /* not into err->text: it may be one of the arguments */
    va_list args;

    va_start(args, fmt);
    if (vsnprintf(text, sizeof(text), fmt, args) < 0)
        text[0] = '\0';
    va_end(args);
    keep(err, text);
    err->status = status;
    return status;
}

enum status err_prefix(struct err *err, const char *fmt, ...)
{
    char prefix[sizeof(err->text)];
    char text[sizeof(err->text) * 2 + 3];
    va_list args;

    va_start(args, fmt);
    if (vsnprintf(prefix, sizeof(prefix), fmt, args) < 0)
        prefix[0] = '\0';
    va_end(args);
    if (snprintf(text, sizeof(text), "%s: %s", prefix, err->text) > 0)
        keep(err, text);
    return err->status;
}
