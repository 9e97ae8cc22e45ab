/* schedulers.h - the schedulers that this fetcher takes jobs from: a socket each, which come and
 * go.
 *
 * What is sent here may be lost with its receiver: a lease that runs out is given anew. */
#ifndef UF_FETCHER_SCHEDULERS_H
#define UF_FETCHER_SCHEDULERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "common/link.h"
#include "common/options.h"
#include "common/status.h"
#include "common/wire.h"

struct schedulers;

/* The loop wakes when one of the sockets has something to say; what that is shows in
 * schedulers_receive. ST_FATAL, ST_RETRY: as link_open. */
enum status schedulers_open(struct schedulers **out, uv_loop_t *loop, void *zmq,
                            const struct config *cfg, struct err *err) CHECKED;
/* The loop must run once more for handles to end. Accepts NULL. */
void schedulers_close(struct schedulers **s);

/* Looks for new and gone ones when it is time. */
void schedulers_refresh(struct schedulers *s, int64_t mono_us);
int64_t schedulers_deadline_us(const struct schedulers *s);

size_t schedulers_count(const struct schedulers *s);
/* The name of the i-th one, which no other will ever have. */
uint64_t schedulers_name(const struct schedulers *s, size_t i);

/* The next message of any of them; `from` is its name. ST_RETRY: none is there
 * (err is left as it was). ST_REJECT: it was
 * malformed and is dropped. */
enum status schedulers_receive(struct schedulers *s, struct msg *out, uint64_t *from,
                               struct err *err) CHECKED;

/* ST_RETRY: not now. ST_REJECT: that scheduler is gone. */
enum status schedulers_send(struct schedulers *s, uint64_t to, struct text message,
                            struct err *err) CHECKED;

/* Each scheduler is owed a `ready`: at connect, when something changed, each second. */
void schedulers_owe_ready(struct schedulers *s);
bool schedulers_owed(const struct schedulers *s, size_t i);
void schedulers_paid(struct schedulers *s, size_t i);
/* Whether one that is owed would take it now. */
bool schedulers_can_pay(const struct schedulers *s);

#endif
