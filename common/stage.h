/* stage.h - the life of a process: one loop, one wait, ended by the earliest deadline.
 *
 * The stop flag in stage.c is the only mutable global of this code: signals have no other place.
 * SIGTERM and SIGINT ask to stop; a second one ends the process at once (111). SIGPIPE is ignored.
 * Core dumps are off and other processes do not see into this one (secret_process_hide), since keys
 * are in memory. */
#ifndef UF_STAGE_H
#define UF_STAGE_H

#include <stdbool.h>
#include <stdint.h>
#include <zmq.h>

#include "common/link.h"
#include "common/options.h"
#include "common/pulse.h"
#include "common/status.h"

#define STAGE_STOP_MAX_US (INT64_C(10) * 1000000) /* what is in hand is finished within this */

struct stage;

/* Installs signals, opens the log, makes the ZeroMQ context, and with keys (common/keys.h) the
 * doorkeeper of its links. */
enum status stage_open(struct stage **out, const char *name, const struct config *cfg,
                       struct err *err) CHECKED;
void stage_close(struct stage **stage); /* ends the context: close the links first; accepts NULL */

void *stage_zmq(const struct stage *stage);

/* From now on the process counts, and publishes its pulse each second (stage_wait does it).
 * `kind`: one bit. ST_FATAL: UF_PULSE can not be bound. */
enum status stage_pulse_open(struct stage *stage, enum stage_mask kind, const struct config *cfg,
                             struct err *err) CHECKED;
struct pulse *stage_pulse(const struct stage *stage); /* NULL before: it takes no counts */
/* Lets in whoever knocks over TCP, and publishes when a second has passed: for loops that are not
 * ours, and waits that take long. */
void stage_beat(struct stage *stage, int64_t mono_us);
/* Tells that somebody may be knocking; as any descriptor of ZeroMQ's, only of changes since the
 * last stage_beat. -1: there are no keys, so nobody has to be let in. */
int stage_door_fd(const struct stage *stage);

/* A link whose sockets wake stage_wait when a message is there. `links` stay the caller's. */
void stage_watch(struct stage *stage, struct link *link);
/* Stops receiving from it (back-pressure) or goes on. */
void stage_watch_pause(struct stage *stage, struct link *link, bool paused);

/* A descriptor that wakes stage_wait as well while something is to be read from it; -1: none.
 * `slot`: which of the stage's own ones it is, below STAGE_FDS. */
#define STAGE_FDS 2
void stage_watch_fd(struct stage *stage, size_t slot, int fd);

/* Logs "stage.ready" and tells a supervisor (NOTIFY_SOCKET) when there is one. Only now may the
 * others count on us. */
void stage_ready(const char *name);

/* Waits for a message, a signal or `deadline_us` (monotonic; INT64_MAX = none), refreshes links
 * that are due, and answers whether to go on. */
bool stage_wait(struct stage *stage, int64_t deadline_us);
bool stage_stopping(void);
/* For loops that are not ours (libuv): installs the same handlers, without a stage. `wake_fd`
 * becomes readable on a signal. */
int stage_wake_fd(void);

/* Logs `err` once if `st` is not ST_OK; returns the exit status: ST_OK 0, ST_FATAL 100, else 111.
 */
int stage_exit(const char *name, enum status st, const struct err *err);

#endif
