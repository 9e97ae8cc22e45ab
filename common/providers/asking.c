#include "common/providers/asking.h"

#include <assert.h>
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "common/clock.h"

#define KEY_MAX 4096 /* bytes (secret.h: provider_key_clean) */

/* ---- the URL ---- */

const struct width *width_asked(const struct question *q)
{
    for (size_t i = 0; i < q->feed->n_widths; i++)
        if (q->feed->widths[i].bucket_s == q->window.bucket_s)
            return &q->feed->widths[i];
    return NULL;
}

enum status url_begin(struct buf *url, const struct credential *who, const struct question *q,
                      struct err *err)
{
    /* plain http is the caller's to judge */
    const char *why = base_url_refused(url->arena, who->base_url, "1");
    size_t len = strlen(who->base_url);

    if (why)
        return err_set(err, ST_REJECT, "%s", why);
    if (!width_asked(q))
        return err_set(err, ST_REJECT, "feed %s has no buckets of %" PRIu32 " s", q->feed->name,
                       q->window.bucket_s);
    while (len > 0 && who->base_url[len - 1] == '/')
        len--;
    buf_append(url, who->base_url, len);
    buf_str(url, q->feed->path);
    return ST_OK;
}

static void print_name(struct buf *url, const char *name)
{
    buf_str(url, strchr(url->at, '?') ? "&" : "?");
    buf_str(url, name);
    buf_str(url, "=");
}

void url_text(struct buf *url, const char *name, struct text value)
{
    print_name(url, name);
    for (size_t i = 0; i < value.len; i++) {
        unsigned char c = (unsigned char)value.at[i];
        if (c < 0x80 && (isalnum(c) || strchr("-._~:", c)) && c != '\0')
            buf_append(url, &value.at[i], 1);
        else
            buf_printf(url, "%%%02X", c);
    }
}

void url_number(struct buf *url, const char *name, int64_t value)
{
    print_name(url, name);
    buf_printf(url, "%" PRId64, value);
}

void url_groupings(struct buf *url, const char *name, const struct question *q)
{
    const struct feed *feed = q->feed;
    bool old = feed->group_by_old &&
               (q->how.reduced_grouping || q->window.from_us < feed->old_before_s * US_PER_S);
    const char *const *group = old ? feed->group_by_old : feed->group_by;

    for (; group && *group; group++)
        url_text(url, name, text_of(*group));
}

int64_t limit_asked(const struct question *q)
{
    const struct width *width = width_asked(q);
    int64_t n = (q->window.to_us - q->window.from_us) / (width->bucket_s * US_PER_S);

    if (q->how.default_limit)
        return 0;
    return q->window.to_us != 0 && n > 0 && n < width->limit ? n : width->limit;
}

/* ---- the key ---- */

/* The key becomes a header's value, so nothing in it may end the header. */
enum status key_header(struct request *out, const char *name, const char *prefix,
                       const struct secret *key, struct err *err)
{
    char value[16 + KEY_MAX + 1];
    int len;

    if (key->len == 0 || key->len > KEY_MAX)
        return err_set(err, ST_REJECT,
                       "the account's key is empty or too long: set it again with "
                       "usagectl account rotate-key");
    for (size_t i = 0; i < key->len; i++)
        if (key->at[i] <= ' ' || key->at[i] > '~')
            return err_set(err, ST_REJECT,
                           "the account's key holds a character that no key has: set it again with "
                           "usagectl account rotate-key");
    len = snprintf(value, sizeof(value), "%s%.*s", prefix, (int)key->len, (const char *)key->at);
    assert(len > 0 && (size_t)len < sizeof(value));
    out->auth.name = name;
    out->auth.value = secret_copy(value, (size_t)len);
    explicit_bzero(value, sizeof(value));
    return ST_OK;
}

bool key_is_kind(const struct provider *p, const struct secret *key)
{
    size_t len = p->key_prefix ? strlen(p->key_prefix) : 0;

    return key->len >= len && memcmp(key->at, p->key_prefix ? p->key_prefix : "", len) == 0;
}

/* ---- refusals ---- */

static const char *member_text(struct arena *a, const struct json *error, const char *name)
{
    struct text t = json_string(json_member(error, name));

    return t.at ? printable_snippet(a, t, 60) : "";
}

struct said said_read(struct arena *a, const struct secret *key, struct text body)
{
    struct said said = {"", "", ""};
    struct json_doc doc;
    struct err ignored = {0};
    struct text message = TEXT_NULL;
    const struct json *error;

    if (json_parse(&doc, a, body, &ignored) == ST_OK) {
        error = json_member(doc.root, "error");
        message = json_string(json_member(error, "message"));
        if (!message.at)
            message = json_string(error);
        said.type = member_text(a, error, "type");
        said.param = member_text(a, error, "param");
    }
    if (!message.at)
        message = body;
    if (message.at && message.len > 0)
        said.message = printable_snippet(a, redact(a, message, key), 240);
    return said;
}

bool mentions(const char *said, const char *const *phrases)
{
    for (; *phrases; phrases++)
        if (strcasestr(said, *phrases))
            return true;
    return false;
}

void refusal_key_kind(struct refusal *out, struct arena *a, const struct provider *p,
                      const struct said *said)
{
    out->ending = END_WRONG_KEY_KIND;
    out->detail = arena_printf(a,
                               "This key is of another kind than usage needs: %s. Then: usagectl "
                               "account rotate-key. %s said: %s",
                               p->key_help, p->title, said->message);
}

/* HTTP 400 and 422: the query itself. */
static void refuse_query(struct refusal *out, struct arena *a, const struct provider *p,
                         const struct question *q, const struct said *said)
{
    static const char *const about_limit[] = {"limit", NULL};
    static const char *const about_clock[] = {"future", NULL};

    out->ending = END_BAD_WINDOW;
    if (q->cursor.at) {
        /* All but the token was accepted a page ago, so it is the token, whatever the words. */
        out->cursor_expired = true;
        out->detail = arena_printf(a,
                                   "The page token is no longer accepted; the window is read "
                                   "again from its start. %s said: %s",
                                   p->title, said->message);
    } else if (strcmp(said->param, "limit") == 0 || mentions(said->message, about_limit)) {
        out->limit_refused = true;
        out->detail = arena_printf(a, "The number of results a page was refused. %s said: %s",
                                   p->title, said->message);
    } else if (mentions(said->message, about_clock)) {
        out->detail = arena_printf(a,
                                   "The time asked for lies in %s's future: is this machine's "
                                   "clock right? It said: %s",
                                   p->title, said->message);
    } else {
        out->detail = arena_printf(a, "%s refused what was asked of %s. It said: %s", p->title,
                                   q->feed->name, said->message);
    }
}

void refusal_usual(struct refusal *out, struct arena *a, const struct provider *p,
                   const struct question *q, uint32_t http_status, const struct said *said)
{
    *out = (struct refusal){.ending = END_PROVIDER_ERROR};
    if (http_status == 401) {
        out->ending = END_AUTH_INVALID;
        out->detail = arena_printf(a,
                                   "%s does not accept this key: it was revoked, has expired or is "
                                   "mistyped. Give a new one with usagectl account rotate-key. It "
                                   "said: %s",
                                   p->title, said->message);
    } else if (http_status == 403) {
        out->ending = END_SCOPE_MISSING;
        out->detail = arena_printf(a, "The key may not read %s. It has to be: %s. %s said: %s",
                                   q->feed->name, p->key_help, p->title, said->message);
    } else if (http_status == 404 || (http_status == 410 && !q->cursor.at)) {
        out->detail =
            arena_printf(a,
                         "There is no %s at this base URL (HTTP %" PRIu32 "): the base "
                         "URL is wrong (%s is %s's), or the endpoint has gone. It said: "
                         "%s",
                         q->feed->path, http_status, p->base_url, p->title, said->message);
    } else if (http_status == 400 || http_status == 422 || http_status == 410) {
        refuse_query(out, a, p, q, said);
    } else if (http_status == 429) {
        out->ending = END_RATE_LIMITED;
        out->detail = arena_printf(a,
                                   "%s limits this organization's requests; asked again later. It "
                                   "said: %s",
                                   p->title, said->message);
    } else if (http_status == 408 || http_status == 504) {
        out->ending = END_TIMEOUT;
        out->detail = arena_printf(a, "%s gave up waiting (HTTP %" PRIu32 "). It said: %s",
                                   p->title, http_status, said->message);
    } else if (http_status >= 300 && http_status < 400) {
        out->ending = END_PROTOCOL;
        out->detail = arena_printf(a,
                                   "HTTP %" PRIu32 ", a redirect, which is never followed, since "
                                   "the key would go with it: set the account's base URL to the "
                                   "final address, if it is %s's",
                                   http_status, p->title);
    } else if (http_status < 400) {
        out->ending = END_PROTOCOL;
        out->detail = arena_printf(a, "HTTP %" PRIu32 " instead of 200. %s said: %s", http_status,
                                   p->title, said->message);
    } else {
        out->detail = arena_printf(a,
                                   "%s failed with HTTP %" PRIu32 "; asked again later. It "
                                   "said: %s",
                                   p->title, http_status, said->message);
    }
}
