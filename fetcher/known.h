/* known.h - whether a page came as it is known: its rows are in the table, so it goes no further.
 *
 * What is known comes with the job, since a fetcher keeps nothing: digests of pages that were
 * committed by the account's job before, and that nothing has replaced since
 * (scheduler/digests.h). */
#ifndef UF_FETCHER_KNOWN_H
#define UF_FETCHER_KNOWN_H

#include "common/providers/provider.h"
#include "common/wire.h"

/* Of all that a page's rows depend on: whose figures (the address and the sealed key, never the
 * key), what was asked, and the bytes that came. */
struct page_digest known_digest(const struct job *job, const struct question *q, struct text body);
/* The index of the page in `known`; `known->n`: it is not there. */
size_t known_find(const struct known_pages *known, const struct page_digest *bytes);

#endif
