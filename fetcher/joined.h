/* joined.h - the answers to one question of a flat feed, on their way to be one page.
 *
 * A bucket's results are spread over several answers there, and a page must hold whole buckets: so
 * they are kept until the provider says that no more follows. */
#ifndef UF_FETCHER_JOINED_H
#define UF_FETCHER_JOINED_H

#include "common/status.h"
#include "common/text.h"
#include "fetcher/body.h"

#define JOINED_MAX ((size_t)32 << 20) /* bytes of one page: a normalizer holds it several times */

/* `joined`: "[answer,answer", empty before the first. ST_REJECT: the page would pass JOINED_MAX.
 * Nothing is kept then. */
enum status joined_add(struct body *joined, struct text answer, struct err *err) CHECKED;
/* Gives the page away, a JSON array of the answers; `joined` is empty after. At least one was
 * added. */
struct body joined_take(struct body *joined);

#endif
