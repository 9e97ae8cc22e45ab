#include "gateway/access.h"

#include <inttypes.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/arena.h"
#include "common/clock.h"
#include "common/log.h"
#include "gateway/assets.h"
#include "gateway/request.h"
#include "gateway/server.h"

#define DIGEST_LEN   32
#define CLIENTS_MAX  256
#define TRIES        10   /* wrong keys of one address at once */
#define TRY_MS       6000 /* and one more each six seconds */
#define COOKIE       "uf_session"
#define COOKIE_RULES "; Path=/; HttpOnly; SameSite=Strict"

struct session {
    unsigned char digest[DIGEST_LEN];
    int64_t until_us; /* 0: free */
};

struct client {
    char address[64];
    struct rate wrong;
};

struct doors {
    const struct config *cfg;
    struct session sessions[SESSIONS_MAX];
    struct client clients[CLIENTS_MAX];
};

void doors_open(struct doors **out, const struct config *cfg)
{
    *out = xalloc(1, sizeof(**out));
    (*out)->cfg = cfg;
}

void doors_close(struct doors **d)
{
    if (!*d)
        return;
    OPENSSL_cleanse(*d, sizeof(**d));
    free(*d);
    *d = NULL;
}

/* ---- parts ---- */

static void digest_of(unsigned char out[DIGEST_LEN], const void *at, size_t len)
{
    if (EVP_Digest(at, len, out, NULL, EVP_sha256(), NULL) != 1)
        exit(111); /* out of memory: being killed here is safe */
}

bool key_matches(const struct secret *key, struct text given)
{
    unsigned char want[DIGEST_LEN], got[DIGEST_LEN];

    if (key->len == 0 || !given.at || given.len == 0)
        return false;
    digest_of(want, key->at, key->len);
    digest_of(got, given.at, given.len);
    return CRYPTO_memcmp(want, got, DIGEST_LEN) == 0;
}

struct text bearer_token(struct text t)
{
    if (!t.at || t.len < 7 || strncasecmp(t.at, "Bearer ", 7) != 0)
        return TEXT_NULL;
    t.at += 7;
    t.len -= 7;
    while (t.len > 0 && t.at[0] == ' ') {
        t.at++;
        t.len--;
    }
    while (t.len > 0 && t.at[t.len - 1] == ' ')
        t.len--;
    return t;
}

bool host_is_local(struct text host)
{
    size_t len = host.len;

    if (!host.at || len == 0)
        return false;
    if (host.at[0] == '[')
        return len >= 5 && memcmp(host.at, "[::1]", 5) == 0 && (len == 5 || host.at[5] == ':');
    for (size_t i = 0; i < host.len; i++)
        if (host.at[i] == ':')
            len = len == host.len ? i : len;
    if (len == 9 && strncasecmp(host.at, "localhost", 9) == 0)
        return true;
    if (len < 9 || memcmp(host.at, "127.", 4) != 0)
        return false;
    for (size_t i = 0; i < len; i++)
        if (!strchr("0123456789.", host.at[i]))
            return false; /* 127.0.0.1.example */
    return true;
}

static int hex_value(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static struct text form_decode(struct arena *a, struct text t)
{
    char *out = arena_copy(a, t.at, t.len);
    size_t n = 0;

    for (size_t i = 0; i < t.len; i++) {
        int high = t.at[i] == '%' && i + 2 < t.len ? hex_value(t.at[i + 1]) : -1;
        int low = high >= 0 ? hex_value(t.at[i + 2]) : -1;

        if (low >= 0) {
            out[n++] = (char)(high * 16 + low);
            i += 2;
        } else {
            out[n++] = (char)(t.at[i] == '+' ? ' ' : t.at[i]);
        }
    }
    return (struct text){out, n};
}

struct text form_value(struct arena *a, struct text body, const char *name)
{
    size_t name_len = strlen(name);

    while (body.len > 0) {
        const char *end = memchr(body.at, '&', body.len);
        size_t len = end ? (size_t)(end - body.at) : body.len;

        if (len > name_len && memcmp(body.at, name, name_len) == 0 && body.at[name_len] == '=')
            return form_decode(a, (struct text){body.at + name_len + 1, len - name_len - 1});
        body.at += len + (end != NULL);
        body.len -= len + (end != NULL);
    }
    return TEXT_NULL;
}

int64_t rate_take(struct rate *rate, int64_t size, int64_t refill_ms, int64_t now_us)
{
    int64_t full_ms = size * refill_ms;

    if (rate->at_us == 0)
        rate->level_ms = full_ms;
    else
        rate->level_ms += (now_us - rate->at_us) / US_PER_MS;
    if (rate->level_ms > full_ms)
        rate->level_ms = full_ms;
    rate->at_us = now_us;
    if (rate->level_ms < refill_ms)
        return (refill_ms - rate->level_ms + 999) / 1000;
    rate->level_ms -= refill_ms;
    return 0;
}

/* ---- wrong keys ---- */

/* The client's bucket; a new one takes the place of who has been quiet for longest. */
static struct rate *wrong_of(struct doors *d, struct text address)
{
    struct client *oldest = &d->clients[0];

    for (size_t i = 0; i < CLIENTS_MAX; i++) {
        struct client *c = &d->clients[i];

        if (text_is(address, c->address))
            return &c->wrong;
        if (c->wrong.at_us < oldest->wrong.at_us)
            oldest = c;
    }
    *oldest = (struct client){{0}, {0, 0}};
    if (address.len < sizeof(oldest->address))
        memcpy(oldest->address, address.at, address.len);
    return &oldest->wrong;
}

/* Says no; to who tries too often, in a different way. */
static void refuse_key(struct gateway *g, struct request *r, const char *what)
{
    int64_t wait_s = rate_take(wrong_of(g->doors, r->address), TRIES, TRY_MS, clock_mono_us());

    if (wait_s > 0) {
        answer_later(r, MHD_HTTP_TOO_MANY_REQUESTS, wait_s,
                     "too many wrong keys from this address: wait, and check the key");
        return;
    }
    LOG(WARN, "access.refused", KV("path", r->path), KV("client", r->address));
    answer_error(r, MHD_HTTP_UNAUTHORIZED, "%s", what);
}

/* ---- sessions ---- */

static void session_token(struct request *r, char out[SESSION_CHARS + 1])
{
    unsigned char random[SESSION_CHARS / 2];
    struct doors *d = r->gateway->doors;
    struct session *s = &d->sessions[0];

    random_bytes(random, sizeof(random));
    for (size_t i = 0; i < sizeof(random); i++)
        (void)snprintf(out + 2 * i, 3, "%02x", random[i]);
    for (size_t i = 0; i < SESSIONS_MAX; i++)
        if (d->sessions[i].until_us < s->until_us)
            s = &d->sessions[i]; /* a free one, or the one that ends first */
    digest_of(s->digest, out, SESSION_CHARS);
    s->until_us = clock_mono_us() + SESSION_S * US_PER_S;
}

/* The session of the request's cookie; NULL: none that is known. */
static struct session *session_of(const struct request *r)
{
    unsigned char digest[DIGEST_LEN];
    struct session *found = NULL;
    const char *value = NULL;
    size_t len = 0;

    if (MHD_lookup_connection_value_n(r->connection, MHD_COOKIE_KIND, COOKIE, strlen(COOKIE),
                                      &value, &len) != MHD_YES ||
        !value || len != SESSION_CHARS)
        return NULL;
    digest_of(digest, value, len);
    for (size_t i = 0; i < SESSIONS_MAX; i++) {
        struct session *s = &r->gateway->doors->sessions[i];

        if (s->until_us > clock_mono_us() && CRYPTO_memcmp(s->digest, digest, DIGEST_LEN) == 0)
            found = s;
    }
    return found;
}

/* ---- doors ---- */

static bool cron_granted(struct gateway *g, struct request *r)
{
    struct text key = request_header(r, "x-cron-api-key");
    struct text bearer = bearer_token(request_header(r, "Authorization"));

    if (key_matches(&g->cfg->cron_api_key, key) || key_matches(&g->cfg->cron_api_key, bearer))
        return true;
    refuse_key(g, r,
               key.at || bearer.at
                   ? "the key is not CRON_API_KEY"
                   : "send CRON_API_KEY as the header x-cron-api-key, or as Authorization: Bearer");
    return false;
}

static bool dashboard_granted(struct gateway *g, struct request *r, bool is_page)
{
    struct text bearer;

    if (g->cfg->dashboard_token.len == 0) { /* then it listens on loopback only */
        if (host_is_local(request_header(r, "Host")))
            return true;
        answer_error(r, MHD_HTTP_FORBIDDEN,
                     "without UF_DASHBOARD_TOKEN only this host may ask, under the name localhost "
                     "or 127.0.0.1: set the token to use another name");
        return false;
    }
    if (session_of(r))
        return true;
    bearer = bearer_token(request_header(r, "Authorization"));
    if (key_matches(&g->cfg->dashboard_token, bearer))
        return true;
    if (is_page && !bearer.at)
        answer_redirect(r, "/login", NULL);
    else if (bearer.at)
        refuse_key(g, r, "the token is not UF_DASHBOARD_TOKEN");
    else
        answer_error(r, MHD_HTTP_UNAUTHORIZED,
                     "sign in at /login, or send UF_DASHBOARD_TOKEN as Authorization: Bearer");
    return false;
}

bool access_granted(struct gateway *g, struct request *r, enum access access, bool is_page)
{
    switch (access) {
    case ACCESS_OPEN:
        return true;
    case ACCESS_DASHBOARD:
        return dashboard_granted(g, r, is_page);
    case ACCESS_CRON:
        return cron_granted(g, r);
    }
    return false;
}

/* ---- login and logout ---- */

static void login_form(struct request *r, unsigned status, const char *message)
{
    static const char mark[] = "<!--message-->";
    const struct asset *form = asset_find("/login");
    const char *at = form ? memmem(form->body.at, form->body.len, mark, strlen(mark)) : NULL;
    struct buf b = {.arena = r->arena};

    if (!at) {
        answer_error(r, MHD_HTTP_INTERNAL_SERVER_ERROR, "this build has no login form");
        return;
    }
    buf_append(&b, form->body.at, (size_t)(at - form->body.at));
    buf_str(&b, message);
    at += strlen(mark);
    buf_append(&b, at, form->body.len - (size_t)(at - form->body.at));
    answer_text(r, status, "text/html; charset=utf-8", (struct text){b.at, b.len});
}

void login_page_asked(struct gateway *g, struct request *r)
{
    if (g->cfg->dashboard_token.len == 0)
        answer_redirect(r, "/", NULL);
    else
        login_form(r, MHD_HTTP_OK, "");
}

static bool is_https(const struct request *r)
{
    return text_is(request_header(r, "X-Forwarded-Proto"), "https");
}

void login_asked(struct gateway *g, struct request *r)
{
    struct text token = form_value(r->arena, (struct text){r->body.at, r->body.len}, "token");
    char session[SESSION_CHARS + 1];
    int64_t wait_s;

    if (g->cfg->dashboard_token.len == 0) {
        answer_redirect(r, "/", NULL);
        return;
    }
    if (!token.at) {
        answer_error(r, MHD_HTTP_BAD_REQUEST, "send the form field token");
        return;
    }
    if (!key_matches(&g->cfg->dashboard_token, token)) {
        wait_s = rate_take(wrong_of(g->doors, r->address), TRIES, TRY_MS, clock_mono_us());
        LOG(WARN, "login.refused", KV("client", r->address));
        if (wait_s > 0)
            answer_later(r, MHD_HTTP_TOO_MANY_REQUESTS, wait_s,
                         "too many wrong tokens from this address: wait, and check the token");
        else
            login_form(r, MHD_HTTP_UNAUTHORIZED,
                       "That is not the token. It is UF_DASHBOARD_TOKEN of the gateway.");
        return;
    }
    session_token(r, session);
    LOG(INFO, "login.done", KV("client", r->address));
    answer_redirect(r, "/",
                    arena_printf(r->arena, COOKIE "=%s" COOKIE_RULES "; Max-Age=%" PRId64 "%s",
                                 session, SESSION_S, is_https(r) ? "; Secure" : ""));
}

void logout_asked(struct gateway *g, struct request *r)
{
    struct session *s = session_of(r);

    (void)g;
    if (s)
        *s = (struct session){{0}, 0};
    answer_redirect(r, "/login", COOKIE "=" COOKIE_RULES "; Max-Age=0");
}
