/* acme_provider.c - a provider that does not exist, written by following docs/adding-a-provider.md
 * and nothing else, to keep that page true: flat rows, pages by offset, money in millionths. */
#include "tests/fakes/acme_provider.h"

#include <inttypes.h>
#include <string.h>

#include "common/clock.h"
#include "common/decimal.h"
#include "common/providers/asking.h"
#include "common/providers/reader.h"

#define ROWS_MAX 500 /* of one page */

/* ---- what comes back ---- */

static const struct envelope rows = {.data = "rows", .start = "time", .times = TIMES_UNIX_S};

static const struct field usage_fields[] = {
    {.path = "time", .use = FIELD_IGNORE},
    {.path = "team", .use = FIELD_TEXT, .target = TEXT_PROJECT_ID},
    {.path = "key_id", .use = FIELD_TEXT, .target = TEXT_API_KEY_ID},
    {.path = "model", .use = FIELD_TEXT, .target = TEXT_MODEL},
    {.path = "region", .use = FIELD_DIM},
    {.path = "tokens.prompt", .use = FIELD_COUNT, .target = COUNT_INPUT_TOKENS, .required = true},
    {.path = "tokens.cached", .use = FIELD_COUNT, .target = COUNT_CACHED_INPUT_TOKENS},
    {.path = "tokens.completion",
     .use = FIELD_COUNT,
     .target = COUNT_OUTPUT_TOKENS,
     .required = true},
    {.path = "calls", .use = FIELD_COUNT, .target = COUNT_NUM_REQUESTS},
};
static const struct field charge_fields[] = {
    {.path = "time", .use = FIELD_IGNORE},
    {.path = "team", .use = FIELD_TEXT, .target = TEXT_PROJECT_ID},
    {.path = "sku", .use = FIELD_TEXT, .target = TEXT_LINE_ITEM},
    {.path = "micros", .use = FIELD_COST, .target = 6, .unit = "USD", .required = true},
};

static const struct width hour[] = {{3600, "hour", 24}}, day[] = {{86400, "day", 1}};
static const struct feed feeds[] = {
    {.name = "usage",
     .path = "/usage",
     .envelope = &rows,
     .widths = hour,
     .n_widths = 1,
     .fields = usage_fields,
     .n_fields = sizeof(usage_fields) / sizeof(usage_fields[0]),
     .question_s = 86400,
     .settle_s = 3600,
     .lookback_s = 2 * 3600},
    {.name = "charges",
     .path = "/charges",
     .envelope = &rows,
     .widths = day,
     .n_widths = 1,
     .fields = charge_fields,
     .n_fields = sizeof(charge_fields) / sizeof(charge_fields[0]),
     .question_s = 86400,
     .cadence_s = 3600,
     .settle_s = 3 * 86400,
     .lookback_s = 3 * 86400},
};

/* ---- the page token: "OFFSET/TOTAL" ---- */

struct place {
    int64_t offset;
    int64_t total; /* as the first answer had it; -1: this is the first */
};

static struct place place_of(const struct question *q)
{
    const struct place first = {0, -1};
    struct text cursor = q->cursor;
    const char *slash = cursor.at ? memchr(cursor.at, '/', cursor.len) : NULL;
    size_t len = slash ? (size_t)(slash - cursor.at) : 0;
    struct place at;
    struct err ignored;

    if (!slash || int64_parse(&at.offset, (struct text){cursor.at, len}, &ignored) != ST_OK ||
        int64_parse(&at.total, (struct text){slash + 1, cursor.len - len - 1}, &ignored) != ST_OK)
        return first;
    return at;
}

/* ---- asking ---- */

static enum status acme_ask(struct request *out, struct arena *a, const struct credential *who,
                            const struct question *q, struct err *err)
{
    struct buf url = {.arena = a};
    struct request request = {.headers = {"Accept: application/json", NULL}};

    TRY(url_begin(&url, who, q, err));
    url_number(&url, "from", q->window.from_us / US_PER_S);
    url_number(&url, "to", q->window.to_us / US_PER_S);
    if (!q->how.default_limit)
        url_number(&url, "limit", ROWS_MAX);
    url_number(&url, "offset", place_of(q).offset);
    request.url = url.at;
    TRY(key_header(&request, "Authorization", "Bearer ", who->key, err));
    *out = request;
    return ST_OK;
}

/* ---- pages ---- */

static enum status read_total(int64_t *out, struct arena *a, struct text body, struct err *err)
{
    struct json_doc doc;
    const struct json *total;

    TRY(json_parse_outline(&doc, a, body, 2, err));
    total = json_member(doc.root, "total");
    if (!json_is(total, JSON_NUMBER))
        return err_set(err, ST_REJECT, "$.total: not a number, so the end of the rows is unknown");
    return int64_parse(out, total->text, err);
}

static enum status acme_peek(struct peek *out, struct arena *a, const struct question *q,
                             struct text body, struct err *err)
{
    struct place at = place_of(q);
    struct peek peek;
    int64_t total = 0, next;

    TRY(reader_peek(&peek, a, q, body, err)); /* the rows are rows, and of this window */
    TRY(read_total(&total, a, body, err));
    if (at.total >= 0 && total != at.total)
        return err_set(err, ST_REJECT,
                       "the list had %" PRId64 " rows and has %" PRId64
                       " now, so offsets have shifted; it is read again from its start",
                       at.total, total);
    next = at.offset + (int64_t)peek.n_results;
    peek.has_more = next < total;
    if (peek.has_more)
        peek.cursor = text_of(arena_printf(a, "%" PRId64 "/%" PRId64, next, total));
    *out = peek;
    return ST_OK;
}

/* ---- refusals ---- */

static void acme_refused(struct refusal *out, struct arena *a, const struct secret *key,
                         const struct question *q, uint32_t http_status, struct text body)
{
    struct said said = said_read(a, key, body);

    refusal_usual(out, a, &acme_provider, q, http_status, &said);
    if (http_status == 401 && !key_is_kind(&acme_provider, key))
        refusal_key_kind(out, a, &acme_provider, &said);
}

const struct provider acme_provider = {
    .name = "acme",
    .title = "Acme",
    .base_url = "https://api.acme.example/v2",
    .key_help = "an admin key (acme-admin-...), made by the owner at acme.example, Settings, Keys",
    .key_prefix = "acme-admin-",
    .key_variable = "ACME_ADMIN_KEY",
    .feeds = feeds,
    .n_feeds = sizeof(feeds) / sizeof(feeds[0]),
    .ask = acme_ask,
    .peek = acme_peek,
    .refused = acme_refused,
};
