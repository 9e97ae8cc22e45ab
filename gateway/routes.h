/* routes.h - which path is whose: one const table.
 *
 *   {"GET", "/api/v1/usage", ACCESS_DASHBOARD, usage_asked},
 *
 * A row is method, path (exact), who may ask, and the handler. GET answers HEAD, too. What no row
 * matches is an embedded file (assets.h), or a 404; a path that has rows of other methods is a 405.
 * gateway/openapi.yaml describes every row, and a test holds both against each other.
 *
 * A handler gets a whole request: headers, parameters and body are read, access is granted. It
 * calls exactly one of the answer_ functions of request.h, now or later: until then the connection
 * sleeps. Handlers never block. */
#ifndef UF_GATEWAY_ROUTES_H
#define UF_GATEWAY_ROUTES_H

#include <stddef.h>

struct arena;
struct gateway;
struct request;

enum access {
    ACCESS_OPEN,      /* anybody: health, the login form */
    ACCESS_DASHBOARD, /* a session, or UF_DASHBOARD_TOKEN as Bearer; without a token: loopback */
    ACCESS_CRON,      /* CRON_API_KEY */
};

struct route {
    const char *method, *path;
    enum access access;
    void (*handle)(struct gateway *g, struct request *r);
};

extern const struct route routes[];
extern const size_t n_routes;

/* Finds the row, asks for access, calls the handler; or answers why not. */
void route(struct gateway *g, struct request *r);
/* "GET, HEAD, POST": what a path takes; "" when there is nothing. In `a`. */
const char *route_methods(struct arena *a, const char *path);

#endif
