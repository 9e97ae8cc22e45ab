/* bills.h - which feeds report money. */
#ifndef UF_GATEWAY_BILLS_H
#define UF_GATEWAY_BILLS_H

#include "common/arena.h"

/* The calls that this feed of Anthropic reports are also in its feed `messages`: feed_repeats() of
 * the database. */
#define DOUBLE_FEED "claude_code"

/* The names of all feeds of all providers whose rows are a bill, as the text of a Postgres text[].
 * In `a`. */
const char *bills(struct arena *a);

#endif
