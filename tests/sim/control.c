/* /_sim/...: the tests' hands on the simulator. README.md has the list. */
#include "tests/sim/fault.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void answer_json(struct answer *a, json_t *v)
{
    char *text = json_dumps(v, JSON_COMPACT);

    buf_str(&a->body, text ? text : "null");
    free(text);
    json_decref(v);
    a->status = 200;
    a->content_type = "application/json";
}

static void answer_ok(struct answer *a)
{
    answer_json(a, json_pack("{s:b}", "ok", 1));
}

static void refuse(struct answer *a, const char *why)
{
    answer_error(a, 400, NULL, NULL, why);
}

static int64_t int_of(const json_t *v, const char *name, int64_t dflt)
{
    const json_t *i = json_object_get(v, name);

    return json_is_integer(i) ? json_integer_value(i) : dflt;
}

static int64_t argument(const struct call *c, const char *name, int64_t dflt)
{
    const char *v = MHD_lookup_connection_value(c->connection, MHD_GET_ARGUMENT_KIND, name);

    return v ? strtoll(v, NULL, 10) : dflt;
}

/* The account that `v` names; -1: refused. */
static int64_t account_of(const struct sim *s, const json_t *v, struct answer *a)
{
    int64_t account = int_of(v, "account", -1);

    if (account >= 0 && account < s->ledger.accounts)
        return account;
    refuse(a, "account: a number below the number of accounts is needed");
    return -1;
}

static void set_clock(struct sim *s, const json_t *v, struct answer *a)
{
    int64_t now = sim_now(s);
    int64_t to = int_of(v, "set", now + int_of(v, "advance", 0));

    if (to < now) {
        refuse(a, "the clock only moves forward");
        return;
    }
    if (to != now) {
        s->clock_us = to * 1000000;
        if (s->set_at_us)
            s->set_at_us = monotonic_us();
    }
    answer_json(a, json_pack("{s:I}", "now", (json_int_t)sim_now(s)));
}

static void list_keys(struct call *c, struct answer *a)
{
    const char *provider =
        MHD_lookup_connection_value(c->connection, MHD_GET_ARGUMENT_KIND, "provider");
    int64_t only = argument(c, "account", -1);
    char key[64];

    for (uint32_t i = 0; i < c->sim->ledger.accounts; i++) {
        const char *its = provider_names[ledger_provider(&c->sim->ledger, i)];

        if ((only >= 0 && only != i) || (provider && strcmp(provider, its) != 0))
            continue;
        sim_key(c->sim, i, c->sim->accounts[i] ? c->sim->accounts[i]->generation : 0, key);
        if (only < 0)
            buf_printf(&a->body, "sim-%06" PRIu32 ",", i);
        buf_printf(&a->body, "%s\n", key);
    }
    a->status = 200;
    a->content_type = "text/plain";
}

/* "-3.25" in 1e-15 dollars; false: not a plain decimal. */
static bool parse_amount(const char *text, __int128 *out)
{
    bool negative = *text == '-', point = false;
    int places = COST_SCALE;
    __int128 v = 0;

    for (text += negative; *text; text++) {
        if (*text == '.' && !point) {
            point = true;
            continue;
        }
        if (*text < '0' || *text > '9' || (point && places == 0) || v > INT64_MAX)
            return false;
        v = v * 10 + (*text - '0');
        places -= point;
    }
    while (places-- > 0)
        v *= 10;
    *out = negative ? -v : v;
    return true;
}

static void restate(struct sim *s, const json_t *v, struct answer *a)
{
    const char *feed = json_string_value(json_object_get(v, "feed"));
    const char *op = json_string_value(json_object_get(v, "op"));
    const char *amount = json_string_value(json_object_get(v, "amount"));
    int64_t account = account_of(s, v, a);
    struct restatement r = {.row = (int)int_of(v, "row", -1),
                            .percent = int_of(v, "percent", 150),
                            .bucket = int_of(v, "bucket", -1)};

    if (account < 0)
        return;
    r.account = (uint32_t)account;
    if (!feed || feed_by_name(feed) < 0) {
        refuse(a, "feed: no such feed");
        return;
    }
    r.feed = (enum feed_id)feed_by_name(feed);
    if (feed_provider(r.feed) != ledger_provider(&s->ledger, r.account)) {
        refuse(a, "feed: the account is another provider's");
        return;
    }
    if (!op || (strcmp(op, "change") != 0 && strcmp(op, "vanish") != 0 && strcmp(op, "add") != 0)) {
        refuse(a, "op: change, vanish or add");
        return;
    }
    r.op = *op == 'c' ? RESTATE_CHANGE : *op == 'v' ? RESTATE_VANISH : RESTATE_ADD;
    if (r.bucket < 0 || r.percent < 0 || !parse_amount(amount ? amount : "-3.25", &r.amount)) {
        refuse(a, "bucket: Unix seconds; percent: not negative; amount: a decimal in a string");
        return;
    }
    ledger_restate(&s->ledger, &r);
    answer_ok(a);
}

static void add_faults(struct sim *s, const json_t *v, struct answer *a)
{
    size_t n = json_is_array(v) ? json_array_size(v) : 1;
    char problem[200];

    for (size_t i = 0; i < n; i++) {
        struct fault *f = fault_parse(json_is_array(v) ? json_array_get(v, i) : v, problem);

        if (!f) {
            refuse(a, problem);
            return;
        }
        faults_add(s, f);
    }
    answer_json(a, json_pack("{s:b, s:I}", "ok", 1, "id", (json_int_t)s->fault_serial));
}

/* {"account":3,"feeds":["completions"]}, {"account":3,"revoked":true}, {"account":3,"reissue":true}
 */
static void set_key(struct sim *s, const json_t *v, struct answer *a)
{
    const json_t *feeds = json_object_get(v, "feeds");
    int64_t number = account_of(s, v, a);
    struct account *account;
    char key[64];

    if (number < 0)
        return;
    account = sim_account(s, (uint32_t)number);
    if (json_is_array(feeds)) {
        account->denied = (1U << N_FEEDS) - 1;
        for (size_t i = 0; i < json_array_size(feeds); i++) {
            const char *name = json_string_value(json_array_get(feeds, i));

            if (!name || feed_by_name(name) < 0) {
                account->denied = 0;
                refuse(a, "feeds: no such feed");
                return;
            }
            account->denied &= ~(1U << (unsigned)feed_by_name(name));
        }
    } else if (json_is_null(feeds)) {
        account->denied = 0;
    }
    if (json_object_get(v, "revoked"))
        account->revoked = json_is_true(json_object_get(v, "revoked"));
    if (json_is_true(json_object_get(v, "reissue")))
        account->generation++;
    sim_key(s, (uint32_t)number, account->generation, key);
    answer_json(a, json_pack("{s:s}", "key", key));
}

static void set_options(struct sim *s, const json_t *v, struct answer *a)
{
    struct options *o = &s->options;
    const json_t *future = json_object_get(v, "refuse_future");
    const json_t *gzip = json_object_get(v, "gzip");

    if (json_is_boolean(future))
        o->refuse_future = json_is_true(future);
    if (json_is_boolean(gzip))
        o->no_gzip = !json_is_true(gzip);
    o->token_life_s = int_of(v, "token_life", o->token_life_s);
    o->rate_per_minute = int_of(v, "rate_per_minute", o->rate_per_minute);
    o->costs_page_limit = int_of(v, "costs_page_limit", o->costs_page_limit);
    s->ledger.settle_s = int_of(v, "settle", s->ledger.settle_s);
    answer_json(a, json_pack("{s:b, s:b, s:I, s:I, s:I, s:I}", "refuse_future", o->refuse_future,
                             "gzip", !o->no_gzip, "token_life", (json_int_t)o->token_life_s,
                             "rate_per_minute", (json_int_t)o->rate_per_minute, "costs_page_limit",
                             (json_int_t)o->costs_page_limit, "settle",
                             (json_int_t)s->ledger.settle_s));
}

static void count_status(json_t *into, unsigned status, uint64_t n)
{
    char name[16];

    (void)snprintf(name, sizeof name, "%u", status);
    json_object_set_new(
        into, name, json_integer(json_integer_value(json_object_get(into, name)) + (json_int_t)n));
}

static json_t *account_stats(const struct account *account, json_t *by_status, json_t *by_feed)
{
    json_t *out = json_object();

    for (int f = 0; f < N_FEEDS; f++) {
        json_t *feed = json_object();

        for (int i = 0; i < MAX_STATUSES && account->counts[f][i].n; i++) {
            count_status(feed, account->counts[f][i].status, account->counts[f][i].n);
            count_status(by_status, account->counts[f][i].status, account->counts[f][i].n);
            json_object_set_new(
                by_feed, feed_infos[f].name,
                json_integer(json_integer_value(json_object_get(by_feed, feed_infos[f].name)) +
                             (json_int_t)account->counts[f][i].n));
        }
        if (json_object_size(feed))
            json_object_set(out, feed_infos[f].name, feed);
        json_decref(feed);
    }
    json_object_set_new(out, "max_concurrent", json_integer(account->max_in_flight));
    return out;
}

static void show_stats(struct call *c, struct answer *a)
{
    struct sim *s = c->sim;
    json_t *accounts = json_object(), *by_status = json_object(), *by_feed = json_object();
    int64_t only = argument(c, "account", -1);
    uint32_t max = 0;
    char name[16];

    for (uint32_t i = 0; i < s->ledger.accounts; i++) {
        if (!s->accounts[i] || (only >= 0 && only != i))
            continue;
        if (s->accounts[i]->max_in_flight > max)
            max = s->accounts[i]->max_in_flight;
        (void)snprintf(name, sizeof name, "%" PRIu32, i);
        json_object_set_new(accounts, name, account_stats(s->accounts[i], by_status, by_feed));
    }
    answer_json(a, json_pack("{s:I, s:o, s:o, s:I, s:{s:I, s:I, s:I}, s:{s:I, s:I, s:I}, s:o}",
                             "requests", (json_int_t)s->stats.requests, "by_status", by_status,
                             "by_feed", by_feed, "max_concurrent_per_key", (json_int_t)max,
                             "connections", "total", (json_int_t)s->stats.connections, "open",
                             (json_int_t)s->stats.open, "max", (json_int_t)s->stats.max_open,
                             "tokens", "issued", (json_int_t)s->stats.tokens_issued, "used",
                             (json_int_t)s->stats.tokens_used, "refused",
                             (json_int_t)s->stats.tokens_refused, "accounts", accounts));
}

static void clear_stats(struct sim *s, struct answer *a)
{
    uint64_t open = s->stats.open;

    memset(&s->stats, 0, sizeof s->stats);
    s->stats.open = s->stats.max_open = open;
    for (uint32_t i = 0; i < s->ledger.accounts; i++) {
        if (!s->accounts[i])
            continue;
        memset(s->accounts[i]->counts, 0, sizeof s->accounts[i]->counts);
        s->accounts[i]->max_in_flight = s->accounts[i]->in_flight;
    }
    for (size_t i = 0; i < LOG_LEN; i++) {
        free(s->log[i].uri);
        s->log[i].uri = NULL;
    }
    s->n_logged = 0;
    answer_ok(a);
}

/* One line a request, oldest first: account, status, the URI as it was sent. */
static void show_requests(struct call *c, struct answer *a)
{
    const struct sim *s = c->sim;
    int64_t only = argument(c, "account", -1);

    for (uint64_t i = s->n_logged > LOG_LEN ? s->n_logged - LOG_LEN : 0; i < s->n_logged; i++) {
        const struct logged *l = &s->log[i % LOG_LEN];

        if (only < 0 || only == l->account)
            buf_printf(&a->body, "%" PRId64 " %u %s\n",
                       l->account == UINT32_MAX ? -1 : (int64_t)l->account, l->status, l->uri);
    }
    a->status = 200;
    a->content_type = "text/plain";
}

static void post(struct call *c, const char *path, struct answer *a)
{
    static const struct {
        const char *path;
        void (*handle)(struct sim *, const json_t *, struct answer *);
    } posts[] = {{"clock", set_clock},
                 {"restate", restate},
                 {"fault", add_faults},
                 {"key", set_key},
                 {"options", set_options}};
    json_error_t error;
    json_t *v = json_loadb(c->upload.at ? c->upload.at : "", c->upload.len, 0, &error);

    for (size_t i = 0; i < sizeof posts / sizeof posts[0]; i++) {
        if (strcmp(path, posts[i].path) != 0)
            continue;
        if (v)
            posts[i].handle(c->sim, v, a);
        else
            refuse(a, error.text);
    }
    json_decref(v);
}

struct MHD_Response *control_answer(struct call *c, struct answer *a)
{
    const char *path = c->path + strlen("/_sim/");
    struct sim *s = c->sim;

    if (strcmp(c->method, "POST") == 0) {
        post(c, path, a);
    } else if (strcmp(c->method, "GET") == 0) {
        if (strcmp(path, "ledger") == 0)
            return dump_response(c, a);
        if (strcmp(path, "keys") == 0)
            list_keys(c, a);
        else if (strcmp(path, "stats") == 0)
            show_stats(c, a);
        else if (strcmp(path, "requests") == 0)
            show_requests(c, a);
        else if (strcmp(path, "clock") == 0)
            answer_json(a, json_pack("{s:I}", "now", (json_int_t)sim_now(s)));
        else if (strcmp(path, "faults") == 0)
            answer_json(a, faults_json(s));
        else if (strcmp(path, "options") == 0)
            set_options(s, NULL, a);
    } else if (strcmp(c->method, "DELETE") == 0) {
        if (strcmp(path, "faults") == 0) {
            faults_clear(s);
            answer_ok(a);
        } else if (strcmp(path, "stats") == 0) {
            clear_stats(s, a);
        } else if (strcmp(path, "restatements") == 0) {
            ledger_forget_restatements(&s->ledger);
            answer_ok(a);
        }
    }
    if (a->status == 0)
        answer_error(a, 404, NULL, NULL,
                     "No such control path or method; see tests/sim/README.md.");
    return NULL;
}
