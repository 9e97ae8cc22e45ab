/* control.h - asking a scheduler: one JSON object there, one back. */
#ifndef UF_CLI_CONTROL_H
#define UF_CLI_CONTROL_H

#include "common/arena.h"
#include "common/json.h"
#include "common/options.h"
#include "common/status.h"

struct control;

#define CONTROL_WAIT_US (INT64_C(5) * 1000000) /* for a scheduler to be there */

/* Nothing is connected yet. `cfg` is borrowed until control_close. */
enum status control_open(struct control **out, const struct config *cfg, struct err *err) CHECKED;
void control_close(struct control **c); /* accepts NULL */

/* Asks whichever scheduler is there, waiting `wait_us` for one and then longer for its answer.
 * ST_RETRY: none is there, it did not answer, or it can not do it for now (err says which).
 * ST_REJECT: the scheduler's own refusal, in its words. `answer` lives in `a`. */
enum status control_ask(struct control *c, const struct json **answer, struct arena *a,
                        struct text request, int64_t wait_us, struct err *err) CHECKED;

/* An integer of an answer by its path, 0 when it is not there. */
int64_t answer_int(const struct json *answer, const char *path);

/* {"cmd":"run_status","run_id":"..."} and its like, up to four members; NULL values are left out.
 */
struct text control_request(struct arena *a, const char *cmd, const char *const (*members)[2]);

#endif
