#include "common/reply.h"

enum status reply_read(const struct json **out, struct arena *a, struct text body, struct err *err)
{
    struct json_doc doc = {0};
    enum status st = json_parse(&doc, a, body, err);
    struct text why;

    *out = doc.root;
    if (st != ST_OK)
        return err_set(err, ST_RETRY, "the scheduler's answer can not be read");
    if (json_is(json_member(doc.root, "ok"), JSON_TRUE))
        return ST_OK;
    why = json_string(json_member(doc.root, "error"));
    st = json_is(json_member(doc.root, "temporary"), JSON_TRUE) ? ST_RETRY : ST_REJECT;
    return err_set(err, st, "%.*s", (int)why.len, why.at ? why.at : "");
}
