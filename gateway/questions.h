/* questions.h - asking the scheduler without waiting: many questions at once, one socket.
 *
 * Each question carries a number that comes back with the answer (an envelope frame, which a ROUTER
 * returns as it came), so a late answer is never taken for another question's. */
#ifndef UF_GATEWAY_QUESTIONS_H
#define UF_GATEWAY_QUESTIONS_H

#include <stdint.h>
#include <uv.h>

#include "common/json.h"
#include "common/options.h"
#include "common/status.h"

struct questions;

#define QUESTION_FIND_US   (INT64_C(3) * 1000000)  /* for a scheduler to be there */
#define QUESTION_ANSWER_US (INT64_C(15) * 1000000) /* for its answer */

/* `answer` is {"ok":true,...} and ends with the call; NULL unless ST_OK. ST_RETRY: no scheduler is
 * there, it did not answer in time, or its database is away. ST_REJECT: its refusal, in its words.
 */
typedef void question_heard(void *arg, enum status st, const struct json *answer,
                            const struct err *err);

enum status questions_open(struct questions **out, uv_loop_t *loop, void *zmq_ctx,
                           const struct config *cfg, struct err *err) CHECKED;
/* Questions that are open are dropped unheard. */
void questions_close(struct questions **at); /* accepts NULL */

/* `heard` is called once, never from inside. `request` is copied. */
void question_ask(struct questions *c, struct text request, question_heard *heard, void *arg);

/* Each turn of the loop: sends, receives, gives up what is too old. */
void questions_turn(struct questions *c, int64_t now_us);

#endif
