/* reading.h - which reading a page's digest stands for.
 *
 * A page that comes as it is known is not read again (fetcher/account.c). That is right only as
 * long as the same bytes make the same rows, so a digest is mixed with a digest of the program
 * between bytes and table (Makefile, READ_BY): whatever is changed there makes every page unknown
 * for one cycle. The normalizer mixes in its own, since it is the one that read; the fetcher
 * compares with its own, so while the two differ nothing is taken for known. */
#ifndef UF_READING_H
#define UF_READING_H

#include "common/wire.h"

/* The digest of a page, `bytes`, as this program reads it. */
struct page_digest reading_digest(const struct page_digest *bytes);

#endif
