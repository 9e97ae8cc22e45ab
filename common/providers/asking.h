/* asking.h - what providers have in common when they are asked, and when they refuse.
 *
 * The parts of a provider's `ask` and `refused` (provider.h), so that its file holds only what is
 * its own: names of parameters, its words for the usual mistakes. */
#ifndef UF_ASKING_H
#define UF_ASKING_H

#include "common/providers/provider.h"

/* Base URL and the feed's path. ST_REJECT: the base URL can not be used, or the feed has no buckets
 * of the window's width. */
enum status url_begin(struct buf *url, const struct credential *who, const struct question *q,
                      struct err *err) CHECKED;
/* "&name=value", or "?name=value" for the first one; the value percent-encoded. */
void url_text(struct buf *url, const char *name, struct text value);
void url_number(struct buf *url, const char *name, int64_t value);
/* The same name once for each grouping that the question has. */
void url_groupings(struct buf *url, const char *name, const struct question *q);

const struct width *width_asked(const struct question *q); /* NULL: the feed has no such width */
/* Buckets to ask for at once: at most as many as the window has, and never above the maximum.
 * 0: the provider's own default is to be used. */
int64_t limit_asked(const struct question *q);

/* The header that carries the key. `prefix` goes before it ("Bearer "). ST_REJECT: the key is empty
 * or too long, or holds what would end the header. */
enum status key_header(struct request *out, const char *name, const char *prefix,
                       const struct secret *key, struct err *err) CHECKED;

/* What came with a refusal: {"error": {"message", "type", "param"}} or {"error": "..."}, else the
 * beginning of the body, since a gateway's page tells whose it is. Redacted, printable, short; ""
 * where there is none. In `a`. */
struct said {
    const char *message, *type, *param;
};
struct said said_read(struct arena *a, const struct secret *key, struct text body);
/* Whether one of the phrases (NULL-terminated) is in what was said, without case. */
bool mentions(const char *said, const char *const *phrases);

/* The refusals that mean the same everywhere: 401 and 403 (the key, by its prefix), 404 and 410,
 * 408 and 504, 429, redirects, other 2xx, 400 and 422 of a page token, of a limit or of a time in
 * the future, and any other 4xx and 5xx. */
void refusal_usual(struct refusal *out, struct arena *a, const struct provider *p,
                   const struct question *q, uint32_t http_status, const struct said *said);
/* A key of the wrong kind, whatever the status. */
void refusal_key_kind(struct refusal *out, struct arena *a, const struct provider *p,
                      const struct said *said);
/* Whether `key` begins as the provider's right kind of key does; true when that is not known. */
bool key_is_kind(const struct provider *p, const struct secret *key);

#endif
