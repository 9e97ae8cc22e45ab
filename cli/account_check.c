/* account_check.c - account check: one small real request, and what its answer means. */
#include <curl/curl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/table.h"
#include "common/clock.h"
#include "common/providers/provider.h"
#include "common/version.h"

#define CONNECT_TIMEOUT_S 10L

struct subject {
    const char *name, *base_url;
    const struct provider *provider;
    struct secret key;
};

struct reply {
    struct buf body;
    size_t max;
    bool too_large;
    char error[CURL_ERROR_SIZE];
    long http_status;
};

/* What a feed said. */
struct verdict {
    enum ending ending;
    const char *detail; /* NULL when ok */
    size_t results;
};

static size_t on_body(char *bytes, size_t size, size_t n, void *arg)
{
    struct reply *r = arg;

    if (size * n > r->max - r->body.len) {
        r->too_large = true;
        return 0;
    }
    buf_append(&r->body, bytes, size * n);
    return size * n;
}

static enum ending ending_of(CURLcode code)
{
    switch ((int)code) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
        return END_DNS;
    case CURLE_OPERATION_TIMEDOUT:
        return END_TIMEOUT;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_INVALIDCERTSTATUS:
        return END_TLS;
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_BAD_CONTENT_ENCODING:
        return END_PROTOCOL;
    default:
        return END_PROVIDER_ERROR;
    }
}

static CURLcode easy_set(CURL *e, const struct request *request, const struct config *cfg,
                         struct reply *reply)
{
    CURLcode rc = CURLE_OK;

#define SET(option, value)                                                                         \
    if (rc == CURLE_OK)                                                                            \
    rc = curl_easy_setopt(e, option, value)
    SET(CURLOPT_URL, request->url);
    SET(CURLOPT_ERRORBUFFER, reply->error);
    SET(CURLOPT_WRITEFUNCTION, on_body);
    SET(CURLOPT_WRITEDATA, reply);
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_PROTOCOLS_STR, "http,https");
    SET(CURLOPT_FOLLOWLOCATION, 0L); /* the key would go with it */
    SET(CURLOPT_ACCEPT_ENCODING, "");
    SET(CURLOPT_USERAGENT, UF_USER_AGENT);
    SET(CURLOPT_SSL_VERIFYPEER, 1L);
    SET(CURLOPT_SSL_VERIFYHOST, 2L);
    SET(CURLOPT_CONNECTTIMEOUT, CONNECT_TIMEOUT_S);
    SET(CURLOPT_TIMEOUT, (long)cfg->request_timeout_s);
    if (cfg->ca_file)
        SET(CURLOPT_CAINFO, cfg->ca_file);
#undef SET
    return rc;
}

/* The request's headers with the key among them; `*key_line` is to be wiped. */
static struct curl_slist *headers_of(const struct request *request, struct arena *a,
                                     char **key_line)
{
    struct curl_slist *list = NULL;

    *key_line = arena_printf(a, "%s: %.*s", request->auth.name, (int)request->auth.value.len,
                             (const char *)request->auth.value.at);
    list = curl_slist_append(NULL, *key_line);
    for (size_t i = 0; list && i < 8 && request->headers[i]; i++) {
        struct curl_slist *longer = curl_slist_append(list, request->headers[i]);

        if (!longer)
            break;
        list = longer;
    }
    return list;
}

static CURLcode http_get(const struct request *request, const struct config *cfg, struct arena *a,
                         struct reply *reply)
{
    char *key_line;
    struct curl_slist *headers = headers_of(request, a, &key_line);
    CURL *e = curl_easy_init();
    CURLcode rc = e && headers ? easy_set(e, request, cfg, reply) : CURLE_OUT_OF_MEMORY;

    if (rc == CURLE_OK)
        rc = curl_easy_setopt(e, CURLOPT_HTTPHEADER, headers);
    if (rc == CURLE_OK)
        rc = curl_easy_perform(e);
    if (rc == CURLE_OK)
        (void)curl_easy_getinfo(e, CURLINFO_RESPONSE_CODE, &reply->http_status);
    explicit_bzero(key_line, strlen(key_line));
    if (headers)
        explicit_bzero(headers->data, strlen(headers->data));
    curl_slist_free_all(headers);
    curl_easy_cleanup(e);
    return rc;
}

/* The last closed bucket of the feed's widest width, or as many as its provider insists on: the
 * cheapest question there is. */
static struct question last_bucket(const struct feed *feed)
{
    uint32_t width = feed->widths[feed->n_widths - 1].bucket_s;
    int64_t to = time_floor_us(clock_utc_us(), width);

    return (struct question){
        .feed = feed,
        .window = {.feed = text_of(feed->name),
                   .from_us = to - ((int64_t)width + feed->start_back_s) * US_PER_S,
                   .to_us = to,
                   .bucket_s = width}};
}

static void judge(struct verdict *out, struct cli *cli, const struct subject *who,
                  const struct question *q, const struct reply *reply)
{
    struct text body = {reply->body.at, reply->body.len};
    struct refusal refusal = {0};
    struct peek peek = {0};
    struct err why = {0};

    *out = (struct verdict){END_OK, NULL, 0};
    if (reply->http_status != 200) {
        who->provider->refused(&refusal, cli->arena, &who->key, q, (uint32_t)reply->http_status,
                               body);
        *out = (struct verdict){refusal.ending, refusal.detail, 0};
    } else if (who->provider->peek(&peek, cli->arena, q, body, &why) != ST_OK) {
        *out = (struct verdict){END_PROTOCOL, arena_printf(cli->arena, "%s", why.text), 0};
    } else {
        out->results = peek.n_results;
    }
}

static enum status feed_check(struct verdict *out, struct cli *cli, const struct subject *who,
                              const struct feed *feed, struct err *err)
{
    struct reply reply = {.body = {.arena = cli->arena}, .max = (size_t)cli->cfg.max_body};
    const struct credential credential = {who->base_url, &who->key};
    const struct question q = last_bucket(feed);
    struct request request;
    CURLcode rc;

    TRY(who->provider->ask(&request, cli->arena, &credential, &q, err));
    rc = http_get(&request, &cli->cfg, cli->arena, &reply);
    secret_wipe(&request.auth.value);
    if (reply.too_large) {
        *out = (struct verdict){END_TOO_LARGE, "the answer is larger than UF_MAX_BODY", 0};
        return ST_OK;
    }
    if (rc != CURLE_OK) {
        *out = (struct verdict){ending_of(rc),
                                arena_printf(cli->arena, "%s: %s", who->base_url,
                                             reply.error[0] ? reply.error : curl_easy_strerror(rc)),
                                0};
        return ST_OK;
    }
    judge(out, cli, who, &q, &reply);
    return ST_OK;
}

/* The same answer waits at every other feed. */
static bool concerns_all(enum ending ending)
{
    return ending == END_AUTH_INVALID || ending == END_WRONG_KEY_KIND || ending == END_DNS ||
           ending == END_TLS || ending == END_TIMEOUT;
}

static void tell_trouble(struct cli *cli, const char *name, const char *feed,
                         const struct verdict *v)
{
    const char *advice = cli_advice(text_of(ending_name(v->ending)));

    cli->answer_is_no = true;
    (void)printf("%s: %s: %s: %s\n", name, concerns_all(v->ending) ? "nothing can be read" : feed,
                 ending_name(v->ending), terminal_text(cli->arena, text_of(v->detail)));
    if (advice)
        (void)printf("  What to do: %s\n", advice);
}

static enum status subject_load(struct subject *out, struct cli *cli, const char *name,
                                struct err *err)
{
    struct pg_params p = {0};
    unsigned char *sealed;
    size_t sealed_len = 0;
    PGresult *r;
    enum status st;

    TRY(cli_sealer(cli, err));
    TRY(cli_database(cli, err));
    TRY(cli_account_known(cli, name, err));
    pg_param_text(&p, name);
    TRY(pg_query(cli->pg, &r, cli->arena,
                 "SELECT provider, base_url, key_ciphertext FROM accounts WHERE name = $1", &p,
                 err));
    TRY(pg_commit(cli->pg, err)); /* no transaction while the provider thinks */
    *out = (struct subject){
        .name = name, .base_url = PQgetvalue(r, 0, 1), .provider = provider_find(pg_text(r, 0, 0))};
    if (!out->provider)
        return err_set(err, ST_REJECT, "this build has no provider '%s'", PQgetvalue(r, 0, 0));
    sealed = PQunescapeBytea((const unsigned char *)PQgetvalue(r, 0, 2), &sealed_len);
    if (!sealed)
        memory_out();
    st = secret_unseal(&out->key, cli->sealer, text_of(out->provider->name), text_of(name),
                       (struct text){(const char *)sealed, sealed_len}, err);
    PQfreemem(sealed);
    if (st != ST_OK)
        (void)err_prefix(err, "%s", name);
    return st == ST_REJECT ? ST_FATAL : st;
}

/* One line of what the key can read, and one for each feed that it can not. */
static enum status check_feeds(struct cli *cli, const struct subject *who, bool details,
                               struct err *err)
{
    struct buf readable = {.arena = cli->arena};
    struct verdict v = {0};

    for (size_t i = 0; i < who->provider->n_feeds && !concerns_all(v.ending); i++) {
        const struct feed *feed = &who->provider->feeds[i];

        TRY(feed_check(&v, cli, who, feed, err));
        if (v.ending != END_OK)
            tell_trouble(cli, who->name, feed->name, &v);
        else if (details)
            (void)printf("%s: %s: ok, %zu results in the last closed bucket\n", who->name,
                         feed->name, v.results);
        if (v.ending == END_OK)
            buf_printf(&readable, "%s%s", readable.len ? ", " : "", feed->name);
    }
    if (readable.len > 0)
        (void)printf("%s: ok, the key can read %s\n", who->name, readable.at);
    return ST_OK;
}

enum status cmd_account_check(struct cli *cli, const struct args *args, struct err *err)
{
    struct subject who = {0};
    const char *why;
    enum status st = subject_load(&who, cli, args->words[0], err);

    if (st != ST_OK)
        return st;
    why = base_url_refused(cli->arena, who.base_url, cli->cfg.allow_http);
    if (why)
        st = err_set(err, ST_REJECT, "%s", why);
    else if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        st = err_set(err, ST_RETRY, "libcurl can not start");
    else
        st = check_feeds(cli, &who, cli_has(args, OPT_ALL), err);
    secret_wipe(&who.key);
    return st;
}
