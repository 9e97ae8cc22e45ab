#include "common/providers/provider.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <string.h>
#include <strings.h>

const struct provider *provider_find(struct text name)
{
    for (size_t i = 0; i < n_providers; i++)
        if (text_is(name, providers[i]->name))
            return providers[i];
    return NULL;
}

const struct feed *feed_find(const struct provider *p, struct text name)
{
    for (size_t i = 0; i < p->n_feeds; i++)
        if (text_is(name, p->feeds[i].name))
            return &p->feeds[i];
    return NULL;
}

bool feed_names_people(const struct feed *f)
{
    for (size_t i = 0; i < f->n_fields; i++)
        if (f->fields[i].use == FIELD_PERSON)
            return true;
    return false;
}

const struct width *feed_width(const struct feed *f, int64_t bucket_s)
{
    const struct width *best = &f->widths[0];

    for (size_t i = 1; i < f->n_widths; i++)
        if (f->widths[i].bucket_s <= bucket_s)
            best = &f->widths[i];
    return best;
}

/* ---- base URLs ---- */

/* [host, host + len) as written, brackets of an IPv6 address included. Only what can not leave
 * this machine: a name like 127.0.0.1.example.com is somebody else's. */
static bool is_loopback(const char *host, size_t len)
{
    char name[64];
    struct in_addr v4;
    struct in6_addr v6;

    if (len == 0 || len >= sizeof(name))
        return false;
    memcpy(name, host, len);
    name[len] = '\0';
    if (strcasecmp(name, "localhost") == 0)
        return true;
    if (inet_pton(AF_INET, name, &v4) == 1)
        return ntohl(v4.s_addr) >> 24 == 127;
    if (name[0] != '[' || name[len - 1] != ']')
        return false;
    name[len - 1] = '\0';
    return inet_pton(AF_INET6, name + 1, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

static bool host_is_valid(const char *host, size_t len)
{
    char name[64];
    struct in6_addr v6;

    if (len == 0 || len > 253)
        return false;
    if (host[0] == '[') {
        if (len < 3 || len >= sizeof(name) || host[len - 1] != ']')
            return false;
        memcpy(name, host + 1, len - 2);
        name[len - 2] = '\0';
        return inet_pton(AF_INET6, name, &v6) == 1;
    }
    for (size_t i = 0; i < len; i++)
        if (!isalnum((unsigned char)host[i]) && !strchr("-._", host[i]))
            return false;
    return true;
}

/* ":8080" or nothing. */
static bool port_is_valid(const char *port, size_t len)
{
    long number = 0;

    if (len == 0)
        return true;
    if (len < 2 || len > 6)
        return false;
    for (size_t i = 1; i < len; i++) {
        if (!isdigit((unsigned char)port[i]))
            return false;
        number = number * 10 + (port[i] - '0');
    }
    return number >= 1 && number <= 65535;
}

static bool plain_allowed(const char *allow_http, const char *host, size_t host_len)
{
    if (strcmp(allow_http, "1") == 0)
        return true;
    for (const char *name = allow_http; *name;) {
        size_t len = strcspn(name, ",");
        if (len == host_len && strncasecmp(name, host, len) == 0)
            return true;
        name += len + (name[len] == ',');
    }
    return false;
}

const char *base_url_refused(struct arena *a, const char *url, const char *allow_http)
{
    const char *host, *host_end;
    size_t authority_len, host_len;
    bool plain = strncasecmp(url, "http://", 7) == 0;

    for (const char *c = url; *c; c++)
        if (*c <= ' ' || *c > '~' || *c == '\\')
            return "the base URL holds a blank or a character that no URL has: write it as "
                   "https://HOST/PATH";
    if (!plain && strncasecmp(url, "https://", 8) != 0)
        return arena_printf(a, "the base URL \"%.100s\" does not begin with https://", url);
    host = strstr(url, "//") + 2;
    authority_len = strcspn(host, "/?#");
    if (memchr(host, '@', authority_len))
        return "the base URL holds a user or password before '@': leave it out, the key is given "
               "by itself";
    if (strpbrk(url, "?#"))
        return arena_printf(a, "the base URL ends in a query or fragment: write %.*s",
                            (int)strcspn(url, "?#"), url);
    host_end = host[0] == '[' ? memchr(host, ']', authority_len) : memchr(host, ':', authority_len);
    if (host[0] == '[' && host_end)
        host_end++;
    host_len = host_end ? (size_t)(host_end - host) : authority_len;
    if (!host_is_valid(host, host_len))
        return arena_printf(a,
                            "the base URL \"%.100s\" has no usable host: write it as "
                            "https://HOST/PATH",
                            url);
    if (!port_is_valid(host + host_len, authority_len - host_len))
        return arena_printf(a, "the base URL \"%.100s\" has a port that is not 1 to 65535", url);
    if (plain && !is_loopback(host, host_len) && !plain_allowed(allow_http, host, host_len))
        return arena_printf(a,
                            "the key would travel unencrypted: write https://%.200s, or set "
                            "UF_ALLOW_HTTP=%.*s if this network is yours alone",
                            host, (int)host_len, host);
    return NULL;
}
