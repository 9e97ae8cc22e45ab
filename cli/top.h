/* top.h - the picture that "usagectl top" draws. */
#ifndef UF_CLI_TOP_H
#define UF_CLI_TOP_H

#include <stdint.h>

#include "common/arena.h"
#include "common/instances.h"

/* What all do together, then each process: in lines of at most 80 columns as long as no figure is
 * very large. */
void top_write(struct buf *out, const struct instances *in, int64_t utc_us, int64_t mono_us);

#endif
