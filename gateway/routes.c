#include "gateway/routes.h"

#include <string.h>

#include "gateway/access.h"
#include "gateway/assets.h"
#include "gateway/figures.h"
#include "gateway/health.h"
#include "gateway/lists.h"
#include "gateway/request.h"
#include "gateway/trigger.h"

const struct route routes[] = {
    {"GET", "/api/cron/usage-fetcher", ACCESS_CRON, trigger_asked},
    {"POST", "/api/cron/usage-fetcher", ACCESS_CRON, trigger_asked},

    {"GET", "/api/v1/usage", ACCESS_DASHBOARD, usage_asked},
    {"GET", "/api/v1/cost", ACCESS_DASHBOARD, cost_asked},
    {"GET", "/api/v1/accounts", ACCESS_DASHBOARD, accounts_asked},
    {"GET", "/api/v1/runs", ACCESS_DASHBOARD, runs_asked},
    {"GET", "/api/v1/dead", ACCESS_DASHBOARD, dead_asked},
    {"GET", "/api/v1/revisions", ACCESS_DASHBOARD, revisions_asked},
    {"GET", "/api/v1/stages", ACCESS_DASHBOARD, stages_asked},

    {"GET", "/healthz", ACCESS_OPEN, healthz_asked},
    {"GET", "/readyz", ACCESS_OPEN, readyz_asked},
    {"GET", "/metrics", ACCESS_DASHBOARD, metrics_asked},

    {"GET", "/login", ACCESS_OPEN, login_page_asked},
    {"POST", "/login", ACCESS_OPEN, login_asked},
    {"POST", "/logout", ACCESS_OPEN, logout_asked},
};
const size_t n_routes = sizeof(routes) / sizeof(routes[0]);

static const char *method_of(const struct request *r)
{
    return strcmp(r->method, "HEAD") == 0 ? "GET" : r->method;
}

const struct asset *asset_find(const char *path)
{
    for (size_t i = 0; i < n_assets; i++)
        if (strcmp(assets[i].path, path) == 0)
            return &assets[i];
    return NULL;
}

const char *route_methods(struct arena *a, const char *path)
{
    struct buf b = {.arena = a};

    buf_str(&b, "");
    if (asset_find(path))
        buf_str(&b, "GET, HEAD");
    for (size_t i = 0; i < n_routes; i++)
        if (strcmp(routes[i].path, path) == 0 && !strstr(b.at, routes[i].method))
            buf_printf(&b, "%s%s", b.len ? ", " : "",
                       strcmp(routes[i].method, "GET") == 0 ? "GET, HEAD" : routes[i].method);
    return b.at;
}

static const struct route *route_find(const struct request *r)
{
    for (size_t i = 0; i < n_routes; i++)
        if (strcmp(routes[i].path, r->path) == 0 && strcmp(routes[i].method, method_of(r)) == 0)
            return &routes[i];
    return NULL;
}

static void file_asked(struct gateway *g, struct request *r, const struct asset *file)
{
    struct text accepted = request_header(r, "Accept-Encoding");
    bool gzip = file->gzip.at && accepted.at && memmem(accepted.at, accepted.len, "gzip", 4);

    if (access_granted(g, r, file->open ? ACCESS_OPEN : ACCESS_DASHBOARD,
                       strcmp(r->path, "/") == 0))
        answer_static(r, file, gzip);
}

void route(struct gateway *g, struct request *r)
{
    const struct asset *file;
    const char *methods;

    if (r->too_large) {
        answer_error(r, MHD_HTTP_CONTENT_TOO_LARGE, "a body has at most %zu bytes here", BODY_MAX);
        return;
    }
    r->route = route_find(r);
    if (r->route) {
        if (access_granted(g, r, r->route->access, false))
            r->route->handle(g, r);
        return;
    }
    file = asset_find(r->path);
    if (file && strcmp(method_of(r), "GET") == 0) {
        file_asked(g, r, file);
        return;
    }
    methods = route_methods(r->arena, r->path);
    if (*methods)
        answer_error(r, MHD_HTTP_METHOD_NOT_ALLOWED, "this path takes %s", methods);
    else
        answer_error(r, MHD_HTTP_NOT_FOUND,
                     "there is nothing at this path; /api/openapi.yaml describes what there is");
}
