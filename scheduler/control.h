/* control.h - the control socket's commands: one JSON object in, one out (docs/wire.md, "control").
 */
#ifndef UF_CONTROL_H
#define UF_CONTROL_H

#include "common/arena.h"
#include "common/text.h"
#include "scheduler/fetchers.h"
#include "scheduler/ledger.h"

/* What `status` tells besides the ledger. */
struct control_view {
    struct ledger *ledger;
    const struct fetchers *fetchers;
    size_t outstanding;
    int64_t started_us; /* monotonic */
    bool paused;
    bool woken; /* out: something may be due now */
};

/* Answers one request; always an answer, in `a`: {"ok":true,...} or {"ok":false,"error":"..."},
 * with "temporary":true where the same may succeed later. */
struct text control_answer(struct control_view *view, struct arena *a, struct text request);

#endif
