/* What both providers' APIs are made of. OpenAI's paths are in openai.c, Anthropic's in
 * anthropic.c. */
#include "tests/sim/serve.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct width widths[N_WIDTHS] = {
    {"1m", 60, 1440, 60}, {"1h", HOUR, 168, 24}, {"1d", DAY, 31, 7}};

/* A token text that a fault has invented, and the one that it stands for. */
struct alias {
    uint32_t account;
    enum feed_id feed;
    char *text, *token;
    struct alias *next;
};

int feed_by_name(const char *name)
{
    for (int i = 0; i < N_FEEDS; i++)
        if (strcmp(feed_infos[i].name, name) == 0)
            return i;
    return -1;
}

/* --- authentication --- */

bool serve_key(struct call *c, unsigned long number, const char *key)
{
    char right[64];

    if (number >= c->sim->ledger.accounts)
        return false;

    struct account *account = sim_account(c->sim, (uint32_t)number);

    sim_key(c->sim, (uint32_t)number, account->generation, right);
    if (strcmp(key, right) != 0 || account->revoked)
        return false;
    c->account = account;
    c->account_number = (uint32_t)number;
    account->in_flight++;
    if (account->in_flight > account->max_in_flight)
        account->max_in_flight = account->in_flight;
    return true;
}

/* True: the key has asked too often this minute. */
static bool rate_limited(struct call *c, struct answer *a)
{
    int64_t second = monotonic_us() / 1000000, limit = c->sim->options.rate_per_minute;
    char wait[24];

    if (limit == 0)
        return false;
    if (c->account->minute != second / 60) {
        c->account->minute = second / 60;
        c->account->in_minute = 0;
    }
    if (++c->account->in_minute <= limit)
        return false;
    answer_error(a, 429, NULL, "rate_limit_exceeded", "Rate limit reached for usage requests.");
    (void)snprintf(wait, sizeof wait, "%" PRId64, 60 - second % 60);
    answer_header(a, "Retry-After", wait);
    return true;
}

/* --- parameters --- */

void refuse(struct query *q, const char *param, const char *code, const char *message)
{
    if (q->answer->status == 0)
        answer_error(q->answer, 400, param, code, message);
}

void add_filter(struct query *q, const char *name, enum dim dim, const char *value)
{
    if (q->n_filters == FILTERS_MAX || strlen(value) >= sizeof q->filters[0].value) {
        refuse(q, name, "invalid_value", "Too many or too long values.");
        return;
    }
    q->filters[q->n_filters].dim = dim;
    (void)snprintf(q->filters[q->n_filters++].value, sizeof q->filters[0].value, "%s", value);
}

bool keep_row(const void *query, const struct row *row)
{
    const struct query *q = query;
    unsigned asked = 0, found = 0;
    char text[80];

    for (size_t i = 0; i < q->n_filters; i++) {
        const struct filter *f = &q->filters[i];

        asked |= DIM_BIT(f->dim);
        if (ledger_dim_text(&q->sim->ledger, q->account, f->dim, row->dim[f->dim], text) &&
            strcmp(text, f->value) == 0)
            found |= DIM_BIT(f->dim);
    }
    return asked == found;
}

/* --- page tokens --- */

static const char base64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
#define TOKEN_TEXT 64 /* "page_", 56 digits, end */

static uint64_t digest(uint64_t h, const void *bytes, size_t n)
{
    const unsigned char *p = bytes;

    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * UINT64_C(0x100000001b3);
    return ledger_mix(h);
}

static uint64_t query_digest(const struct query *q)
{
    const int64_t numbers[] = {(int64_t)q->account, q->feed, q->start, q->end, q->width, q->limit,
                               q->group_by};
    uint64_t h = digest(q->sim->ledger.seed, numbers, sizeof numbers);

    for (size_t i = 0; i < q->n_filters; i++)
        h = digest(h + (uint64_t)q->filters[i].dim, q->filters[i].value,
                   strlen(q->filters[i].value));
    return h;
}

static void token_text(struct token *t, char out[TOKEN_TEXT])
{
    unsigned char bytes[sizeof *t + 2] = {0};
    size_t n = 5;

    t->seal = digest(77, t, sizeof *t - sizeof t->seal);
    memcpy(bytes, t, sizeof *t);
    memcpy(out, "page_", 5);
    for (size_t i = 0; i < sizeof *t; i += 3) {
        unsigned v = (unsigned)bytes[i] << 16 | (unsigned)bytes[i + 1] << 8 | bytes[i + 2];

        for (int shift = 18; shift >= 0; shift -= 6)
            out[n++] = base64[(v >> shift) & 63];
    }
    for (size_t pad = sizeof *t; pad % 3; pad++)
        out[n - 1 - (pad - sizeof *t)] = '=';
    out[n] = '\0';
}

static bool token_parse(const char *text, struct token *t)
{
    unsigned char bytes[sizeof *t + 2] = {0};
    char again[TOKEN_TEXT];
    size_t n = 0;

    if (strncmp(text, "page_", 5) != 0 || strlen(text) != 5 + (sizeof *t + 2) / 3 * 4)
        return false;
    for (const char *p = text + 5; *p; p += 4, n += 3) {
        unsigned v = 0;

        for (int i = 0; i < 4; i++) {
            const char *at = strchr(base64, p[i]);

            if (!at && p[i] != '=')
                return false;
            v = v << 6 | (at ? (unsigned)(at - base64) : 0);
        }
        bytes[n] = (unsigned char)(v >> 16);
        bytes[n + 1] = (unsigned char)(v >> 8);
        bytes[n + 2] = (unsigned char)v;
    }
    memcpy(t, bytes, sizeof *t);
    token_text(t, again);
    return strcmp(again, text) == 0;
}

static struct alias *alias_find(const struct query *q, const char *text)
{
    struct alias *a = q->sim->aliases;

    while (a && (a->account != q->account || a->feed != q->feed || strcmp(a->text, text) != 0))
        a = a->next;
    return a;
}

static const char *alias_resolve(const struct query *q, const char *text)
{
    const struct alias *a = alias_find(q, text);

    return a ? a->token : text;
}

static void alias_add(const struct query *q, const char *text, const char *token)
{
    struct alias *a = alias_find(q, text);

    if (!a) {
        a = xcalloc(1, sizeof *a);
        *a = (struct alias){q->account, q->feed, xstrdup(text), NULL, q->sim->aliases};
        q->sim->aliases = a;
    }
    free(a->token);
    a->token = xstrdup(token);
}

void api_forget_aliases(struct sim *s)
{
    while (s->aliases) {
        struct alias *a = s->aliases;

        s->aliases = a->next;
        free(a->text);
        free(a->token);
        free(a);
    }
}

/* Where the page begins. False: refused, the token is not one of this query or too old. */
static bool take_token(struct query *q, struct token *t)
{
    int64_t life = q->sim->options.token_life_s;

    *t = (struct token){.start = q->first, .page = 1, .issued = sim_now(q->sim)};
    if (!q->page)
        return true;
    if (!token_parse(alias_resolve(q, q->page), t) || t->query != query_digest(q)) {
        q->sim->stats.tokens_refused++;
        refuse(q, "page", "invalid_value", "Invalid page token.");
        return false;
    }
    if (life && t->issued + life < sim_now(q->sim)) {
        q->sim->stats.tokens_refused++;
        refuse(q, "page", "invalid_value", "Invalid page token: it has expired.");
        return false;
    }
    q->sim->stats.tokens_used++;
    return true;
}

/* --- rows --- */

bool field_begin(struct writer *w, const char *name, const char *path)
{
    for (size_t i = 0; i < w->fx->n; i++) {
        const struct fault *f = w->fx->at[i];

        if (f->what != DO_FIELD || strcmp(f->name, path) != 0 || (f->row >= 0 && f->row != w->row))
            continue;
        if (f->quote) {
            w->quoting = true;
            break;
        }
        if (!f->drop_field) {
            buf_printf(w->b, ",\"%s\":", name);
            buf_add(w->b, f->raw, f->raw_len);
        }
        return false;
    }
    buf_add(w->b, ",\"", 2);
    buf_str(w->b, name);
    buf_add(w->b, "\":", 2);
    if (w->quoting)
        buf_char(w->b, '"');
    return true;
}

void field_end(struct writer *w)
{
    if (w->quoting)
        buf_char(w->b, '"');
    w->quoting = false;
}

size_t object_begin(const struct writer *w)
{
    return w->b->len;
}

void object_end(struct writer *w, size_t at)
{
    if (w->b->len == at)
        buf_char(w->b, '{');
    w->b->at[at] = '{'; /* in place of the first comma */
    buf_char(w->b, '}');
}

void result_end(struct writer *w, size_t at)
{
    for (size_t i = 0; i < w->fx->n; i++)
        if (w->fx->at[i]->what == DO_ADD_FIELDS &&
            (w->fx->at[i]->row < 0 || w->fx->at[i]->row == w->row)) {
            buf_char(w->b, ',');
            buf_add(w->b, w->fx->at[i]->raw, w->fx->at[i]->raw_len);
        }
    object_end(w, at);
    w->row++;
}

/* One row as two that add up to it. */
static void split_row(const struct row *row, struct row *first, struct row *second)
{
    *first = *second = *row;
    for (int p = 0; p < N_PARTS; p++) {
        first->part[p] = row->part[p] / 3;
        second->part[p] = row->part[p] - first->part[p];
    }
    first->amount = row->amount / 3;
    second->amount = row->amount - first->amount;
    first->quantity = row->quantity / 3;
    second->quantity = row->quantity - first->quantity;
}

void write_row(struct writer *w, const struct row *row,
               void (*write_result)(struct writer *w, const struct row *row))
{
    struct row parts[2] = {*row, *row};
    bool twice = effects_find(w->fx, DO_DUPLICATE_ROWS);

    if (effects_find(w->fx, DO_SPLIT_ROWS)) {
        split_row(row, &parts[0], &parts[1]);
        twice = true;
    }
    write_result(w, &parts[0]);
    if (twice) {
        buf_char(w->b, ',');
        write_result(w, &parts[1]);
    }
}

void write_cursor(struct writer *w, const struct token *here, int64_t next, bool more)
{
    const struct fault *f = effects_find(w->fx, DO_CURSOR);
    struct token t = {.start = next,
                      .page = here->page + 1,
                      .issued = sim_now(w->q->sim),
                      .query = query_digest(w->q)};
    char text[TOKEN_TEXT];

    if (f && f->cursor == CURSOR_ALTERNATE && here->page > 1) {
        t.issued = here->issued; /* so that the same page has the same token again */
        if (here->page > 2) {
            t.start = here->start - (next - here->start);
            t.page = here->page - 1;
        }
    }
    token_text(&t, text);
    if (f && f->cursor == CURSOR_SAME && w->q->page)
        (void)snprintf(text, sizeof text, "%s", alias_resolve(w->q, w->q->page));
    buf_printf(w->b, ",\"has_more\":%s", more || f ? "true" : "false");
    if (f && f->cursor == CURSOR_ABSENT)
        return;
    buf_str(w->b, ",\"next_page\":");
    if (f && f->cursor == CURSOR_EMPTY) {
        buf_str(w->b, "\"\"");
    } else if (f && f->cursor == CURSOR_NUMBER) {
        buf_str(w->b, "12");
    } else if (f && f->cursor == CURSOR_LITERAL) {
        alias_add(w->q, f->value, text);
        buf_json_string(w->b, f->value);
        w->q->sim->stats.tokens_issued++;
    } else if ((f && f->cursor == CURSOR_NULL) || (!f && !more)) {
        buf_str(w->b, "null");
    } else {
        buf_json_string(w->b, text);
        w->q->sim->stats.tokens_issued++;
    }
}

/* --- faults that are about the answer as a whole --- */

static void whole_body(struct answer *a, const struct fault *f, const char *key)
{
    const char *body = f->body ? f->body : "";
    const char *hole;

    a->status = f->status;
    a->content_type = f->content_type ? f->content_type : "application/json";
    while ((hole = strstr(body, "{key}")) != NULL) {
        buf_add(&a->body, body, (size_t)(hole - body));
        buf_str(&a->body, key);
        body = hole + 5;
    }
    buf_str(&a->body, body);
    if (!f->body && f->status >= 400)
        answer_error(a, f->status, NULL, NULL, "The server had an error; this one was asked for.");
}

static void huge_body(struct answer *a, const struct fault *f)
{
    buf_str(&a->body, "{\"object\":\"page\",\"data\":[");
    buf_reserve(&a->body, (size_t)f->bytes + 64);
    memset(a->body.at + a->body.len, ' ', (size_t)f->bytes);
    a->body.len += (size_t)f->bytes;
    buf_str(&a->body, "],\"has_more\":false,\"next_page\":null}");
    a->plain = f->what == DO_HUGE;
    a->status = 200;
    a->content_type = "application/json";
}

/* True: the fault is the whole answer. */
static bool answer_instead(struct answer *a, const struct effects *fx, const char *key, bool token)
{
    for (size_t i = 0; i < fx->n; i++) {
        const struct fault *f = fx->at[i];

        if (f->what == DO_STATUS) {
            whole_body(a, f, key);
            return true;
        }
        if (f->what == DO_BOMB || f->what == DO_HUGE) {
            huge_body(a, f);
            return true;
        }
        if (f->what == DO_EXPIRED && token) {
            answer_error(a, 400, "page", "invalid_value", "Invalid page token: it has expired.");
            return true;
        }
    }
    return false;
}

/* How the answer travels. */
static void bend(struct answer *a, const struct effects *fx)
{
    for (size_t i = 0; i < fx->n; i++) {
        const struct fault *f = fx->at[i];

        a->delay_ms += f->delay_ms;
        a->date_offset_s += f->offset_s;
        for (size_t h = 0; h < f->n_headers; h++)
            answer_header(a, f->headers[h].name, f->headers[h].value);
        if (f->what == DO_DROP) {
            a->how = SEND_NOTHING;
        } else if (f->what == DO_RESET || f->what == DO_TRUNCATE) {
            a->how = f->what == DO_RESET ? SEND_RESET : SEND_CUT_OFF;
            a->send_len = f->bytes > 0 ? (size_t)f->bytes : 0; /* 0: half of it */
        } else if (f->what == DO_CUT) {
            size_t keep = f->bytes > 0 ? (size_t)f->bytes : a->body.len / 2;

            a->body.len = keep < a->body.len ? keep : a->body.len;
        } else if (f->what == DO_DRIP) {
            a->how = SEND_DRIP;
            a->chunk = (size_t)f->chunk;
            a->interval_ms = f->interval_ms;
        }
    }
}

static void count_status(struct account *account, int feed, unsigned status)
{
    for (int i = 0; i < MAX_STATUSES; i++) {
        if (account->counts[feed][i].n && account->counts[feed][i].status != status)
            continue;
        account->counts[feed][i].status = status;
        account->counts[feed][i].n++;
        break;
    }
}

static void answer_feed(struct call *c, int feed, const struct api *api, struct answer *a)
{
    struct filter filters[FILTERS_MAX];
    struct query q = {.sim = c->sim,
                      .call = c,
                      .feed = (enum feed_id)feed,
                      .end = -1,
                      .limit = -1,
                      .filters = filters,
                      .answer = a};
    struct effects fx = {0};
    struct token t = {.page = 1}, sent = {0};
    char key[64];

    q.width = DAY;
    if (!api->authenticate(c, feed, a) || rate_limited(c, a))
        return;
    q.account = c->account_number;
    (void)MHD_get_connection_values(c->connection, MHD_GET_ARGUMENT_KIND, api->parse_parameter, &q);

    struct request_facts facts = {q.account, feed, 1, q.limit, q.page != NULL};

    if (q.page && token_parse(alias_resolve(&q, q.page), &sent))
        facts.page = sent.page;
    faults_match(c->sim, &facts, &fx);
    sim_key(c->sim, q.account, c->account->generation, key);
    api->check(&q);
    if (effects_find(&fx, DO_STATUS)) { /* wins over whatever else is wrong */
        answer_free(a);
        a->status = 0;
    }
    if (a->status == 0 && !answer_instead(a, &fx, key, q.page != NULL) && take_token(&q, &t))
        api->write_page(&q, &t, &fx);
    bend(a, &fx);
}

void serve_feed(struct call *c, int feed, const struct api *api, struct answer *a)
{
    answer_feed(c, feed, api, a);
    if (c->account)
        count_status(c->account, feed, a->status);
}

void api_answer(struct call *c, struct answer *a)
{
    if (a->provider == ANTHROPIC)
        anthropic_answer(c, a);
    else
        openai_answer(c, a);
    sim_log(c->sim, c, a->status);
}
