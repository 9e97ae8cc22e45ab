#include "fetcher/joined.h"

#include <assert.h>

enum status joined_add(struct body *joined, struct text answer, struct err *err)
{
    if (joined->len + answer.len + 2 > JOINED_MAX) {
        body_free(joined);
        return err_set(err, ST_REJECT, "the answers to one question are more than %zu MiB in all",
                       JOINED_MAX >> 20);
    }
    body_append(joined, joined->len ? "," : "[", 1);
    body_append(joined, answer.at, answer.len);
    return ST_OK;
}

struct body joined_take(struct body *joined)
{
    assert(joined->at);
    body_append(joined, "]", 1);
    return body_take(joined);
}
