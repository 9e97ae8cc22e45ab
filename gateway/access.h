/* access.h - who may ask: keys in constant time, sessions, and how often.
 *
 * Keys are compared by their SHA-256, so that time tells neither their length nor their beginning.
 * Sessions are in memory alone: a restart ends them. */
#ifndef UF_GATEWAY_ACCESS_H
#define UF_GATEWAY_ACCESS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/secret.h"
#include "common/text.h"
#include "gateway/gateway.h"
#include "gateway/routes.h"

struct request;
struct doors;

#define SESSION_S     INT64_C(43200)
#define SESSIONS_MAX  1000
#define SESSION_CHARS 64

void doors_open(struct doors **out, const struct config *cfg);
void doors_close(struct doors **d); /* wipes; accepts NULL */

/* Whether `r` may go on. When not, it has been answered: 401, 403, 429, or for a page the way to
 * the login. */
bool access_granted(struct gateway *g, struct request *r, enum access access, bool is_page);

/* GET and POST /login, POST /logout. */
void login_page_asked(struct gateway *g, struct request *r);
void login_asked(struct gateway *g, struct request *r);
void logout_asked(struct gateway *g, struct request *r);

/* ---- parts, for tests ---- */

/* Of an Authorization header, the word after "Bearer "; null for anything else. */
struct text bearer_token(struct text t);
bool key_matches(const struct secret *key, struct text given);
/* "localhost", 127.x.x.x or [::1], with any port: a page of another site that has its name pointed
 * at this host sends that name. */
bool host_is_local(struct text host);
/* The value of `name` in an application/x-www-form-urlencoded body, decoded; null when it is not
 * there. In `a`. */
struct text form_value(struct arena *a, struct text body, const char *name);

/* A bucket of `size` that fills by one in `refill_ms`. */
struct rate {
    int64_t level_ms; /* as time: size x refill_ms when full */
    int64_t at_us;    /* when that was so */
};
/* Takes one. Answers 0, or how many seconds to wait for one. */
int64_t rate_take(struct rate *rate, int64_t size, int64_t refill_ms, int64_t now_us);

#endif
