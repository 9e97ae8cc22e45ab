/* reply.h - what a scheduler answers to whoever asks it (docs/wire.md, "Control"). */
#ifndef UF_REPLY_H
#define UF_REPLY_H

#include "common/arena.h"
#include "common/json.h"
#include "common/status.h"
#include "common/text.h"

/* Body: {"ok":true,...} or {"ok":false,"error","temporary"}. `out` is the whole of it, of a refusal
 * too; NULL when it can not be read, so that nothing is known of who sent it. It lives in `a`, and
 * `body` has to live as long. ST_REJECT: a refusal, err has its words. ST_RETRY: one that says it
 * is temporary, or no JSON. */
enum status reply_read(const struct json **out, struct arena *a, struct text body,
                       struct err *err) CHECKED;

#endif
