/* pulses.h - listening to the stages themselves (UF_PULSE): it needs no gateway, no scheduler and
 * no database. */
#ifndef UF_CLI_PULSES_H
#define UF_CLI_PULSES_H

#include <stdbool.h>
#include <stdint.h>

#include "common/instances.h"
#include "common/options.h"
#include "common/status.h"

struct pulses;

/* Subscribes. `cfg` is borrowed until pulses_close. */
enum status pulses_open(struct pulses **out, const struct config *cfg, struct err *err) CHECKED;
void pulses_close(struct pulses **p); /* accepts NULL */

/* Takes what comes until `until_us` (monotonic), a signal or, if `wake_fd` is not -1, that
 * descriptor is readable. */
void pulses_listen(struct pulses *p, int64_t until_us, int wake_fd);
const struct instances *pulses_instances(const struct pulses *p);

#endif
