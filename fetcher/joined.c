#include "fetcher/joined.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/arena.h"

static void append(struct joined *j, const char *from, size_t len)
{
    if (j->cap - j->len < len) {
        j->cap = j->len + len > 2 * j->cap ? j->len + len : 2 * j->cap;
        j->body = xrealloc(j->body, j->cap, 1);
    }
    memcpy(j->body + j->len, from, len);
    j->len += len;
}

enum status joined_add(struct joined *j, struct text answer, struct err *err)
{
    if (j->len + answer.len + 2 > JOINED_MAX) {
        joined_clear(j);
        return err_set(err, ST_REJECT, "the answers to one question are more than %zu MiB in all",
                       JOINED_MAX >> 20);
    }
    append(j, j->len ? "," : "[", 1);
    append(j, answer.at, answer.len);
    return ST_OK;
}

char *joined_take(struct joined *j, size_t *len)
{
    char *body;

    assert(j->body);
    append(j, "]", 1);
    body = j->body;
    *len = j->len;
    *j = (struct joined){0};
    return body;
}

void joined_clear(struct joined *j)
{
    free(j->body);
    *j = (struct joined){0};
}
