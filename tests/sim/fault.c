#include "tests/sim/fault.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const what_names[N_FAULT_DOS] = {
    "nothing",
    "status",
    "drop",
    "reset",
    "truncate",
    "cut",
    "drip",
    "cursor",
    "empty_page",
    "expired",
    "field",
    "add_fields",
    "duplicate_bucket",
    "reverse_buckets",
    "duplicate_rows",
    "split_rows",
    "gzip_bomb",
    "huge",
    "date",
};
static const char *const cursor_names[N_CURSOR_MODES] = {
    "null", "absent", "empty", "same", "alternate", "literal", "number",
};

static char *text_of(const json_t *rule, const char *name)
{
    const json_t *v = json_object_get(rule, name);

    if (json_is_string(v))
        return xstrdup(json_string_value(v));
    if (!v || json_is_null(v))
        return NULL;
    char *dumped = json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY); /* "body": {...} */
    char *own = xstrdup(dumped ? dumped : "");

    free(dumped);
    return own;
}

static int64_t int_of(const json_t *rule, const char *name, int64_t dflt)
{
    const json_t *v = json_object_get(rule, name);

    return json_is_integer(v) ? json_integer_value(v) : dflt;
}

static int word_of(const json_t *rule, const char *name, const char *const *words, int n)
{
    const char *v = json_string_value(json_object_get(rule, name));

    for (int i = 0; v && i < n; i++)
        if (strcmp(v, words[i]) == 0)
            return i;
    return v ? -1 : 0;
}

static void parse_raw(struct fault *f, const json_t *rule)
{
    const char *hex = json_string_value(json_object_get(rule, "raw_hex"));

    f->raw = text_of(rule, "raw");
    f->raw_len = f->raw ? strlen(f->raw) : 0;
    if (!hex)
        return;
    free(f->raw);
    f->raw = xmalloc(strlen(hex) + 1);
    for (f->raw_len = 0; hex[0] && hex[1]; hex += 2) {
        const char pair[3] = {hex[0], hex[1], '\0'};

        f->raw[f->raw_len++] = (char)strtoul(pair, NULL, 16);
    }
}

static void parse_headers(struct fault *f, const json_t *rule)
{
    const char *name;
    json_t *value;
    json_t *headers = json_object_get(rule, "headers");

    json_object_foreach(headers, name, value)
    {
        if (f->n_headers == sizeof f->headers / sizeof f->headers[0] || !json_is_string(value))
            break;
        f->headers[f->n_headers].name = xstrdup(name);
        f->headers[f->n_headers++].value = xstrdup(json_string_value(value));
    }
}

static void parse_match(struct fault *f, const json_t *rule)
{
    const char *feed = json_string_value(json_object_get(rule, "feed"));

    f->account = int_of(rule, "account", -1);
    f->feed = feed && strcmp(feed, "all") != 0 ? feed_by_name(feed) : -1;
    f->page = int_of(rule, "page", 0);
    f->page_over = int_of(rule, "page_over", 0);
    f->limit_over = int_of(rule, "limit_over", -1);
    f->with_token = json_is_true(json_object_get(rule, "with_token")) || f->what == DO_EXPIRED;
    f->after = int_of(rule, "after", 0);
    f->every = int_of(rule, "every", 1);
    f->times = int_of(rule, "times", 0);
}

static void parse_what(struct fault *f, const json_t *rule)
{
    f->status = (unsigned)int_of(rule, "status", 200);
    f->body = text_of(rule, "body");
    f->content_type = text_of(rule, "content_type");
    f->name = text_of(rule, "name");
    f->value = text_of(rule, "value");
    f->drop_field = json_is_true(json_object_get(rule, "drop"));
    f->quote = json_is_true(json_object_get(rule, "quote"));
    f->row = int_of(rule, "row", -1);
    f->bytes = int_of(rule, "bytes", 0);
    f->chunk = int_of(rule, "chunk", 16);
    f->interval_ms = int_of(rule, "interval_ms", 100);
    f->delay_ms = int_of(rule, "delay_ms", 0);
    f->offset_s = int_of(rule, "date_offset", 0);
    parse_raw(f, rule);
    parse_headers(f, rule);
}

/* Why the rule makes no sense; NULL: it does. */
static const char *nonsense(const struct fault *f, const json_t *rule)
{
    const char *feed = json_string_value(json_object_get(rule, "feed"));

    if (feed && strcmp(feed, "all") != 0 && f->feed < 0)
        return "feed: no such feed";
    if (f->every < 1)
        return "every: must be at least 1";
    if (f->what == DO_FIELD && (!f->name || (!f->raw && !f->drop_field && !f->quote)))
        return "field: needs name, and raw, raw_hex, drop or quote";
    if (f->what == DO_ADD_FIELDS && !f->raw)
        return "add_fields: needs raw, for example \"\\\"x\\\":1\"";
    if (f->what == DO_CURSOR && f->cursor == CURSOR_LITERAL && !f->value)
        return "cursor literal: needs value";
    if (f->what == DO_STATUS && (f->status < 200 || f->status > 599))
        return "status: 200 to 599";
    if (f->bytes < 0 || f->bytes > 1 << 30)
        return "bytes: 0 to 1073741824";
    if (f->chunk < 1 || f->interval_ms < 0 || f->delay_ms < 0)
        return "chunk, interval_ms, delay_ms: must not be negative";
    return NULL;
}

static void fault_free(struct fault *f)
{
    free(f->body);
    free(f->content_type);
    free(f->name);
    free(f->raw);
    free(f->value);
    for (size_t i = 0; i < f->n_headers; i++) {
        free(f->headers[i].name);
        free(f->headers[i].value);
    }
    free(f);
}

/* A misspelt member would make a rule that never fires, and a test that proves nothing. */
static const char *unknown_member(const json_t *rule)
{
    static const char *const known[] = {
        "do",       "account", "feed",    "page",        "page_over", "limit_over",   "with_token",
        "after",    "every",   "times",   "status",      "body",      "content_type", "name",
        "value",    "drop",    "quote",   "row",         "bytes",     "chunk",        "interval_ms",
        "delay_ms", "raw",     "raw_hex", "date_offset", "headers",   "cursor",       "note",
    };
    const char *name;
    json_t *value;
    json_t *members = json_deep_copy(rule);
    const char *found = NULL;

    json_object_foreach(members, name, value)
    {
        size_t i = 0;

        while (i < sizeof known / sizeof known[0] && strcmp(name, known[i]) != 0)
            i++;
        if (i == sizeof known / sizeof known[0])
            found = "unknown member in the rule (see tests/sim/README.md)";
    }
    json_decref(members);
    return found;
}

struct fault *fault_parse(const json_t *rule, char problem[200])
{
    struct fault *f = xcalloc(1, sizeof *f);
    int what = word_of(rule, "do", what_names, N_FAULT_DOS);
    int cursor = word_of(rule, "cursor", cursor_names, N_CURSOR_MODES);
    const char *why = NULL;

    if (!json_is_object(rule))
        why = "a rule is a JSON object";
    else if (what < 0)
        why = "do: no such action";
    else if (cursor < 0)
        why = "cursor: null, absent, empty, same, alternate, literal or number";
    else
        why = unknown_member(rule);
    if (!why) {
        f->what = (enum fault_do)what;
        f->cursor = (enum cursor_mode)cursor;
        parse_what(f, rule);
        parse_match(f, rule);
        why = nonsense(f, rule);
    }
    if (!why)
        return f;
    (void)snprintf(problem, 200, "%s", why);
    fault_free(f);
    return NULL;
}

void faults_add(struct sim *s, struct fault *f)
{
    struct fault **at = &s->faults;

    while (*at)
        at = &(*at)->next;
    f->serial = ++s->fault_serial;
    *at = f;
}

void faults_clear(struct sim *s)
{
    while (s->faults) {
        struct fault *f = s->faults;

        s->faults = f->next;
        fault_free(f);
    }
}

json_t *faults_json(const struct sim *s)
{
    json_t *list = json_array();

    for (const struct fault *f = s->faults; f; f = f->next)
        json_array_append_new(list, json_pack("{s:I, s:s, s:I, s:I}", "id", (json_int_t)f->serial,
                                              "do", what_names[f->what], "seen",
                                              (json_int_t)f->seen, "fired", (json_int_t)f->fired));
    return list;
}

static bool concerns(const struct fault *f, const struct request_facts *r)
{
    return (f->account < 0 || f->account == r->account) && (f->feed < 0 || f->feed == r->feed) &&
           (f->page == 0 || f->page == r->page) && r->page > f->page_over &&
           (f->limit_over < 0 || r->limit > f->limit_over) && (!f->with_token || r->token);
}

void faults_match(struct sim *s, const struct request_facts *r, struct effects *out)
{
    for (struct fault *f = s->faults; f; f = f->next) {
        if (!concerns(f, r))
            continue;
        f->seen++;
        if (f->seen <= f->after || (f->seen - f->after - 1) % f->every != 0 ||
            (f->times && f->fired >= f->times) || out->n == sizeof out->at / sizeof out->at[0])
            continue;
        f->fired++;
        out->at[out->n++] = f;
    }
}

const struct fault *effects_find(const struct effects *e, enum fault_do what)
{
    for (size_t i = 0; i < e->n; i++)
        if (e->at[i]->what == what)
            return e->at[i];
    return NULL;
}
