/* The reading of one account, without a network: a tiny provider, answers as lines of text, and the
 * whole of what the account did as a transcript. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/providers/reader.h"
#include "common/reading.h"
#include "fetcher/account.h"

#define T0_S   INT64_C(1793923200) /* 2026-11-06T00:00:00Z, hour 0 of all figures below */
#define HOUR_S INT64_C(3600)
#define KEY    "sk-admin-tiny-0123456789abcdef"

/* ---- the tiny provider ----
 *
 * A page: "FROM-TO >TOKEN", "FROM-TO ." (the last), "- >TOKEN" (no bucket); hours of T0, one bucket
 * an hour; "FROM-TO/CLOSED" when not all are closed. Anything else is no page. */

static enum status tiny_ask(struct request *out, struct arena *a, const struct credential *who,
                            const struct question *q, struct err *err)
{
    const struct secret *key = who->key;
    const struct feed *feed = q->feed;
    const struct ask *how = &q->how;
    struct text cursor = q->cursor;
    const char *part = "";

    if (feed->question_s) /* which hours */
        part = arena_printf(a, " %d-%d", (int)(q->window.from_us / US_PER_S - T0_S) / 3600,
                            (int)(q->window.to_us / US_PER_S - T0_S) / 3600);
    if (strcmp(feed->name, "unaskable") == 0)
        return err_set(err, ST_REJECT, "no way to ask");
    assert_int_equal(key->len, strlen(KEY));
    *out = (struct request){
        .url = arena_printf(a, "%s%s%s%s%s%.*s", feed->name, part,
                            how->default_limit ? " default" : "",
                            how->reduced_grouping ? " reduced" : "", cursor.at ? " " : "",
                            (int)cursor.len, cursor.at ? cursor.at : ""),
        .auth = {.name = "Authorization", .value = secret_copy(key->at, key->len)},
    };
    return ST_OK;
}

static enum status tiny_peek(struct peek *out, struct arena *a, const struct question *q,
                             struct text body, struct err *err)
{
    char *text = arena_copy(a, body.at, body.len), *rest = text;
    int64_t from = 0, to = 0, closed;
    struct peek peek = {0};

    (void)q;
    if (*rest == '-') {
        rest++;
    } else {
        from = strtoll(rest, &rest, 10);
        if (*rest != '-')
            return err_set(err, ST_REJECT, "not a page: %.20s", text);
        to = closed = strtoll(rest + 1, &rest, 10);
        if (*rest == '/')
            closed = strtoll(rest + 1, &rest, 10);
        peek.any = true;
        peek.from_us = (T0_S + from * HOUR_S) * US_PER_S;
        peek.to_us = (T0_S + to * HOUR_S) * US_PER_S;
        peek.closed_us = closed > from ? (T0_S + closed * HOUR_S) * US_PER_S : 0;
    }
    if (strncmp(rest, " >", 2) == 0) {
        peek.has_more = true;
        peek.cursor = text_of(rest + 2);
    } else if (strcmp(rest, " .") != 0) {
        return err_set(err, ST_REJECT, "cut off: %.20s", text);
    }
    *out = peek;
    return ST_OK;
}

static void tiny_refused(struct refusal *out, struct arena *a, const struct secret *key,
                         const struct question *q, uint32_t http_status, struct text body)
{
    (void)key;
    (void)q;
    *out = (struct refusal){
        .ending = http_status == 401   ? END_AUTH_INVALID
                  : http_status == 402 ? END_WRONG_KEY_KIND
                  : http_status == 403 ? END_SCOPE_MISSING
                  : http_status == 429 ? END_RATE_LIMITED
                  : http_status == 400 ? END_BAD_WINDOW
                                       : END_PROVIDER_ERROR,
        .cursor_expired = text_is(body, "expired"),
        .limit_refused = text_is(body, "limit"),
        .narrow_grouping = text_is(body, "grouping"),
        .detail = arena_printf(a, "said %.*s", (int)body.len, body.at),
    };
}

static const struct envelope in_buckets = {.results = "results"}, flat = {.data = "data"};
static const struct feed tiny_feeds[] = {
    {.name = "one", .envelope = &in_buckets},
    {.name = "two", .envelope = &in_buckets},
    {.name = "unaskable", .envelope = &in_buckets},
    {.name = "flat", .envelope = &flat, .question_s = 3 * 3600}};
static const struct provider tiny = {
    .name = "tiny",
    .title = "Tiny",
    .base_url = "https://tiny.example",
    .feeds = tiny_feeds,
    .n_feeds = 4,
    .ask = tiny_ask,
    .peek = tiny_peek,
    .refused = tiny_refused,
};

static const struct provider *find_tiny(struct text name)
{
    return text_is(name, "tiny") ? &tiny : NULL;
}

/* ---- a case ---- */

struct fetch_case {
    const char *name;
    const char *feeds; /* "one two" */
    int64_t to_h;      /* 0: open */
    int64_t host_h;    /* this host's clock; 0: far in the future */
    uint32_t page_cap; /* 0: 100 */
    enum { OTHER_NOTHING, OTHER_READING, OTHER_KEY, OTHER_URL, OTHER_WINDOW } other; /* than then */
    int64_t lease_s;                                                                 /* 0: 600 */
    const char *provider; /* NULL: "tiny" */
    const char *base_url; /* NULL: the provider's */
    const char *answers;  /* a line each: "STATUS [@HOUR] [after=S] [retry=MS] [never] BODY"; "dns",
                             "timeout", "large" instead of a status: none came; "stop"
                             before it: asked to stop while it was on its way */
    const char *before;   /* answers to the job before, whose pages are known then; NULL: none */
    const char *want;
};

static const struct fetch_case cases[] = {
    {.name = "pages in sequence, windows one after another",
     .feeds = "one two",
     .to_h = 6,
     .answers = "200 0-3 >a\n200 3-6 .\n200 0-6 .",
     .want = "ask one\nask one a\nask two\nsend 0:0<3 0:1<6. 1:0<6.\n"
             "one ok pages=2 to=6 requests=2\ntwo ok pages=1 to=6 requests=1\n"},
    {.name = "BR-001 a page cap is not the end",
     .feeds = "one two",
     .to_h = 9,
     .page_cap = 2,
     .answers = "200 0-3 >a\n200 3-6 >b\n200 0-9 .",
     .want = "ask one\nask one a\nask two\nsend 0:0<3 0:1<6 1:0<9.\n"
             "one page_cap pages=2 to=6 requests=2 (more pages follow)\n"
             "two ok pages=1 to=9 requests=1\n"},
    {.name = "BR-002 more without a token",
     .feeds = "one",
     .to_h = 9,
     .answers = "200 - >",
     .want = "ask one\none protocol pages=0 to=0 requests=1 (gives no page token)\n"},
    {.name = "BR-002 an empty page with a fresh token is read on",
     .feeds = "one",
     .to_h = 6,
     .answers = "200 - >a\n200 0-6 .",
     .want = "ask one\nask one a\nsend 0:0<0 0:1<6.\none ok pages=2 to=6 requests=2\n"},
    {.name = "BR-004 the same token again",
     .feeds = "one",
     .to_h = 9,
     .answers = "200 0-3 >a\n200 3-6 >a",
     .want = "ask one\nask one a\nsend 0:0<3\n"
             "one protocol pages=1 to=3 requests=2 (goes in circles)\n"},
    {.name = "BR-004 two tokens in turn",
     .feeds = "one",
     .to_h = 12,
     .answers = "200 0-3 >a\n200 3-6 >b\n200 6-9 >a",
     .want = "ask one\nask one a\nask one b\nsend 0:0<3 0:1<6\n"
             "one protocol pages=2 to=6 requests=3 (goes in circles)\n"},
    {.name = "a page that comes twice under new tokens",
     .feeds = "one",
     .to_h = 12,
     .answers = "200 0-3 >a\n200 0-3 >b",
     .want = "ask one\nask one a\nsend 0:0<3\n"
             "one protocol pages=1 to=3 requests=2 (came twice)\n"},
    {.name = "an answer to another question",
     .feeds = "one",
     .to_h = 6,
     .answers = "200 4-8 .",
     .want = "ask one\none protocol pages=0 to=0 requests=1 (not asked for)\n"},
    {.name = "BR-005 an expired token, after progress: from there in the next job",
     .feeds = "one",
     .to_h = 9,
     .answers = "200 0-3 >a\n400 expired",
     .want = "ask one\nask one a\nsend 0:0<3\n"
             "one page_cap pages=1 to=3 requests=2 (page token expired)\n"},
    {.name = "BR-005 an expired token without progress is a real error",
     .feeds = "one",
     .to_h = 9,
     .answers = "200 - >a\n400 expired",
     .want = "ask one\nask one a\nsend 0:0<0\n"
             "one bad_window pages=1 to=0 requests=2 (said expired)\n"},
    {.name = "BR-005 expired, but no token was sent",
     .feeds = "one",
     .to_h = 9,
     .answers = "400 expired",
     .want = "ask one\none bad_window pages=0 to=0 requests=1 (said expired)\n"},
    {.name = "BR-010 a refused limit: once more with the default",
     .feeds = "one two",
     .to_h = 6,
     .answers = "400 limit\n200 0-6 .\n200 0-6 .",
     .want = "ask one\nask one default\nask two\nsend 0:0<6. 1:0<6.\n"
             "one ok pages=1 to=6 requests=2\ntwo ok pages=1 to=6 requests=1\n"},
    {.name = "BR-010 only once",
     .feeds = "one",
     .to_h = 6,
     .answers = "400 limit\n400 limit",
     .want = "ask one\nask one default\n"
             "one bad_window pages=0 to=0 requests=2 (said limit)\n"},
    {.name = "a window too old for a grouping: once more without",
     .feeds = "one",
     .to_h = 6,
     .answers = "400 grouping\n200 0-3 >a\n200 3-6 .",
     .want = "ask one\nask one reduced\nask one reduced a\nsend 0:0<3 0:1<6.\n"
             "one ok pages=2 to=6 requests=3\n"},
    {.name = "BR-011 an error on a late page keeps the pages before",
     .feeds = "one",
     .to_h = 9,
     .answers = "200 0-3 >a\n503 x\n503 x\n503 x\n503 x",
     .want = "ask one\nask one a\nsend 0:0<3\nwait\nask one a\nwait\nask one a\nwait\n"
             "ask one a\none provider_error pages=1 to=3 requests=5 (said x)\n"},
    {.name = "BR-011 and goes on when it passes",
     .feeds = "one",
     .to_h = 6,
     .answers = "200 0-3 >a\n503 x\n200 3-6 .",
     .want = "ask one\nask one a\nsend 0:0<3\nwait\nask one a\nsend 0:1<6.\n"
             "one ok pages=2 to=6 requests=3\n"},
    {.name = "BR-011 a lease that runs short ends this window and the rest",
     .feeds = "one two",
     .to_h = 9,
     .lease_s = 100,
     .answers = "200 0-3 >a\n200 after=80 3-6 >b",
     .want = "ask one\nask one a\nsend 0:0<3 0:1<6\n"
             "one deadline pages=2 to=6 requests=2 (lease)\n"
             "two deadline pages=0 to=0 requests=0 (lease)\n"},
    {.name = "BR-023 an endpoint that vanished fails alone",
     .feeds = "one two",
     .to_h = 6,
     .answers = "404 gone\n200 0-6 .",
     .want = "ask one\nask two\nsend 1:0<6.\n"
             "one provider_error pages=0 to=0 requests=1 (said gone)\n"
             "two ok pages=1 to=6 requests=1\n"},
    {.name = "BR-025 a refused key is asked with once",
     .feeds = "one two",
     .to_h = 6,
     .answers = "401 no",
     .want = "ask one\none auth_invalid pages=0 to=0 requests=1 (said no)\n"
             "two auth_invalid pages=0 to=0 requests=0 (said no)\n"},
    {.name = "BR-025 so is one of the wrong kind",
     .feeds = "one two",
     .to_h = 6,
     .answers = "402 no",
     .want = "ask one\none wrong_key_kind pages=0 to=0 requests=1 (said no)\n"
             "two wrong_key_kind pages=0 to=0 requests=0 (said no)\n"},
    {.name = "BR-026 a missing right is one feed's",
     .feeds = "one two",
     .to_h = 6,
     .answers = "403 no\n200 0-6 .",
     .want = "ask one\nask two\nsend 1:0<6.\n"
             "one scope_missing pages=0 to=0 requests=1 (said no)\n"
             "two ok pages=1 to=6 requests=1\n"},
    {.name = "BR-028 HTML, nothing and half a page may pass",
     .feeds = "one",
     .to_h = 6,
     .answers = "200 <html>\n200 \n200 0-6\n200 0-6 .",
     .want = "ask one\nwait\nask one\nwait\nask one\nwait\nask one\nsend 0:0<6.\n"
             "one ok pages=1 to=6 requests=4\n"},
    {.name = "BR-028 and are no data when they do not",
     .feeds = "one",
     .to_h = 6,
     .answers = "502 <html>\n200 <html>\n200 \n200 <html>",
     .want = "ask one\nwait\nask one\nwait\nask one\nwait\nask one\n"
             "one protocol pages=0 to=0 requests=4 (not a page: <html>)\n"},
    {.name = "BR-032 a token arrives as it was given",
     .feeds = "one",
     .to_h = 6,
     .answers = "200 0-3 >a+b/c=&d%25\n200 3-6 .",
     .want = "ask one\nask one a+b/c=&d%25\nsend 0:0<3 0:1<6.\n"
             "one ok pages=2 to=6 requests=2\n"},
    {.name = "an open bucket of its whole width is not complete, by this host's clock if need be",
     .feeds = "one",
     .host_h = 5,
     .answers = "200 0-6 .",
     .want = "ask one\nsend 0:0<5.\none ok pages=1 to=5 requests=1\n"},
    {.name = "a flat feed's answers to one question are one page",
     .feeds = "flat one",
     .to_h = 6,
     .answers = "200 0-1 >a\n200 1-2 .\n200 3-4 .\n200 0-6 .",
     .want = "ask flat 0-3\nask flat 0-3 a\nask flat 3-6\nask one\n"
             "send 0:0<3[0-1 >a,1-2 .] 0:1<6.[3-4 .] 1:0<6.\n"
             "flat ok pages=2 to=6 requests=3\none ok pages=1 to=6 requests=1\n"},
    {.name = "a question without anything is a page, too, which clears what was there",
     .feeds = "flat",
     .to_h = 3,
     .answers = "200 - .",
     .want = "ask flat 0-3\nsend 0:0<3.[- .]\nflat ok pages=1 to=3 requests=1\n"},
    {.name = "page tokens belong to their question",
     .feeds = "flat",
     .to_h = 6,
     .answers = "200 0-1 >a\n200 1-2 .\n200 3-4 >a\n200 4-5 .",
     .want = "ask flat 0-3\nask flat 0-3 a\nask flat 3-6\nask flat 3-6 a\n"
             "send 0:0<3[0-1 >a,1-2 .] 0:1<6.[3-4 >a,4-5 .]\nflat ok pages=2 to=6 requests=4\n"},
    {.name = "BR-004 the same token again within a question",
     .feeds = "flat",
     .to_h = 6,
     .answers = "200 0-1 .\n200 3-4 >a\n200 4-5 >a",
     .want = "ask flat 0-3\nask flat 3-6\nask flat 3-6 a\nsend 0:0<3[0-1 .]\n"
             "flat protocol pages=1 to=3 requests=3 (goes in circles)\n"},
    {.name = "BR-005 an expired token within the first question",
     .feeds = "flat",
     .to_h = 6,
     .answers = "200 0-1 >a\n400 expired",
     .want = "ask flat 0-3\nask flat 0-3 a\n"
             "flat bad_window pages=0 to=0 requests=2 (said expired)\n"},
    {.name = "an answer that is asked for twice is in the page once",
     .feeds = "flat",
     .to_h = 3,
     .answers = "200 0-1 >a\n503 x\n200 1-2 .",
     .want = "ask flat 0-3\nask flat 0-3 a\nwait\nask flat 0-3 a\n"
             "send 0:0<3.[0-1 >a,1-2 .]\nflat ok pages=1 to=3 requests=3\n"},
    {.name = "a question that the lease cuts short is asked again as a whole",
     .feeds = "flat",
     .to_h = 6,
     .lease_s = 100,
     .answers = "200 0-1 .\n200 after=80 3-4 >a",
     .want = "ask flat 0-3\nask flat 3-6\nsend 0:0<3[0-1 .]\n"
             "flat deadline pages=1 to=3 requests=2 (lease)\n"},
    {.name = "a page cap counts questions of a flat feed",
     .feeds = "flat",
     .to_h = 6,
     .page_cap = 1,
     .answers = "200 0-1 >a\n200 1-2 .",
     .want = "ask flat 0-3\nask flat 0-3 a\nsend 0:0<3[0-1 >a,1-2 .]\n"
             "flat page_cap pages=1 to=3 requests=2 (more pages follow)\n"},
    {.name = "an open window ends with the question that holds the provider's now",
     .feeds = "flat",
     .answers = "200 @5 0-1 .\n200 @5 3-4 .",
     .want = "ask flat 0-3\nask flat 3-6\nsend 0:0<3[0-1 .] 0:1<5.[3-4 .]\n"
             "flat ok pages=2 to=5 requests=2\n"},
    {.name = "a provider in trouble is not asked four times for each feed",
     .feeds = "one two one",
     .to_h = 6,
     .answers = "503 x\n503 x\n503 x\n503 x\n503 x\n200 0-6 .",
     .want = "ask one\nwait\nask one\nwait\nask one\nwait\nask one\nask two\nask one\n"
             "send 2:0<6.\none provider_error pages=0 to=0 requests=4 (said x)\n"
             "two provider_error pages=0 to=0 requests=1 (said x)\n"
             "one ok pages=1 to=6 requests=1\n"},
    {.name = "a wait that is longer than the lease is the next job's",
     .feeds = "one",
     .to_h = 6,
     .answers = "429 retry=700000 x",
     .want = "ask one\none rate_limited pages=0 to=0 requests=1 retry=700 (said x)\n"},
    {.name = "a wait within the lease is kept",
     .feeds = "one",
     .to_h = 6,
     .answers = "429 retry=90000 x\n200 0-6 .",
     .want = "ask one\nwait 90\nask one\nsend 0:0<6.\none ok pages=1 to=6 requests=2\n"},
    {.name = "told not to try again",
     .feeds = "one",
     .to_h = 6,
     .answers = "503 never x",
     .want = "ask one\none provider_error pages=0 to=0 requests=1 (said x)\n"},
    {.name = "no name: tried again, and then said of all feeds",
     .feeds = "one two",
     .to_h = 6,
     .answers = "dns\ndns\ndns\ndns",
     .want = "ask one\nwait\nask one\nwait\nask one\nwait\nask one\n"
             "one dns pages=0 to=0 requests=4 (it broke)\n"
             "two dns pages=0 to=0 requests=0 (it broke)\n"},
    {.name = "a body that is too large would be so again",
     .feeds = "one two",
     .to_h = 6,
     .answers = "large\n200 0-6 .",
     .want = "ask one\nask two\nsend 1:0<6.\n"
             "one too_large pages=0 to=0 requests=1 (it broke)\n"
             "two ok pages=1 to=6 requests=1\n"},
    {.name = "redirects are not followed",
     .feeds = "one",
     .to_h = 6,
     .answers = "302 x",
     .want = "ask one\none provider_error pages=0 to=0 requests=1 (said x)\n"},
    {.name = "buckets from new to old are complete with the last page only",
     .feeds = "one",
     .to_h = 9,
     .answers = "200 6-9 >a\n200 3-6 >b\n200 0-3 .",
     .want = "ask one\nask one a\nask one b\nsend 0:0<0 0:1<0 0:2<9.\n"
             "one ok pages=3 to=9 requests=3\n"},
    {.name = "empty hours left out at the start tell on the second page",
     .feeds = "one",
     .to_h = 9,
     .page_cap = 2,
     .answers = "200 2-3 >a\n200 5-6 >b",
     .want = "ask one\nask one a\nsend 0:0<0 0:1<6\n"
             "one page_cap pages=2 to=6 requests=2 (more pages follow)\n"},
    {.name = "an open window is complete to its last closed bucket",
     .feeds = "one",
     .answers = "200 0-3 >a\n200 3-6/5 .",
     .want = "ask one\nask one a\nsend 0:0<3 0:1<5.\none ok pages=2 to=5 requests=2\n"},
    {.name = "an idle feed advances with the provider's clock",
     .feeds = "one",
     .answers = "200 @7 - .",
     .want = "ask one\nsend 0:0<7.\none ok pages=1 to=7 requests=1\n"},
    {.name = "but not without one",
     .feeds = "one",
     .answers = "200 - .",
     .want = "ask one\nsend 0:0<0.\none ok pages=1 to=0 requests=1\n"},
    {.name = "nothing is complete past the provider's now",
     .feeds = "one two",
     .to_h = 9,
     .answers = "200 @4 0-6 >a\n200 @4 6-9 .\n200 @8 0-9 .",
     .want = "ask one\nask one a\nask two\nsend 0:0<4 0:1<4. 1:0<8.\n"
             "one ok pages=2 to=4 requests=2\ntwo ok pages=1 to=8 requests=1\n"},
    {.name = "BR-008 a wrong clock is named",
     .feeds = "one",
     .to_h = 6,
     .answers = "400 @4 window",
     .want = "ask one\none bad_window pages=0 to=0 requests=1 (clock is)\n"},
    {.name = "asked to stop: the answer on its way is kept, nothing more is asked",
     .feeds = "one two",
     .to_h = 6,
     .answers = "200 0-3 >a\nstop 200 3-6 .",
     .want = "ask one\nask one a\nsend 0:0<3 0:1<6.\n"
             "one ok pages=2 to=6 requests=2\n"
             "two stopped pages=0 to=0 requests=0 (asked to stop)\n"},
    {.name = "asked to stop: no further try",
     .feeds = "one",
     .to_h = 6,
     .answers = "200 0-3 >a\nstop 503 x",
     .want = "ask one\nask one a\nsend 0:0<3\n"
             "one provider_error pages=1 to=3 requests=2 (said x)\n"},
    {.name = "a provider that this version does not know",
     .feeds = "one two",
     .provider = "other",
     .want = "one bad_window pages=0 to=0 requests=0 (no provider \"other\")\n"
             "two bad_window pages=0 to=0 requests=0 (no provider \"other\")\n"},
    {.name = "a feed that it does not know",
     .feeds = "three two",
     .to_h = 6,
     .answers = "200 0-6 .",
     .want = "ask two\nsend 1:0<6.\n"
             "three bad_window pages=0 to=0 requests=0 (no feed \"three\")\n"
             "two ok pages=1 to=6 requests=1\n"},
    {.name = "a feed that can not be asked for",
     .feeds = "unaskable two",
     .to_h = 6,
     .answers = "200 0-6 .",
     .want = "ask two\nsend 1:0<6.\n"
             "unaskable protocol pages=0 to=0 requests=0 (no way to ask)\n"
             "two ok pages=1 to=6 requests=1\n"},
    {.name = "a base URL that would send the key in the open",
     .feeds = "one",
     .base_url = "http://tiny.example",
     .want = "one protocol pages=0 to=0 requests=0 (https://tiny.example)\n"},
    {.name = "a page that is known goes no further, and counts",
     .feeds = "one two",
     .to_h = 6,
     .before = "200 0-6 .\n200 0-6 .",
     .answers = "200 0-6 .\n200 0-6 .",
     .want = "ask one\nask two\none ok pages=1 to=6 requests=1 same=0<6\n"
             "two ok pages=1 to=6 requests=1 same=0<6\n"},
    {.name = "of several pages only the changed one goes on",
     .feeds = "one",
     .to_h = 9,
     .before = "200 0-3 >a\n200 3-6 >b\n200 6-9 .",
     .answers = "200 0-3 >a\n200 3-5 >b\n200 6-9 .",
     .want = "ask one\nask one a\nask one b\nsend 0:1<5\n"
             "one ok pages=3 to=9 requests=3 same=0<3,2<9\n"},
    {.name = "a known page carries the watermark on with the provider's clock",
     .feeds = "one",
     .before = "200 @4 0-4 .",
     .answers = "200 @7 0-4 .",
     .want = "ask one\none ok pages=1 to=7 requests=1 same=0<7\n"},
    {.name = "a known page is looked at all the same: tokens in circles end it",
     .feeds = "one",
     .to_h = 9,
     .before = "200 0-3 >a\n200 3-9 .",
     .answers = "200 0-3 >a\n200 3-6 >a",
     .want = "ask one\nask one a\none protocol pages=1 to=3 requests=2 same=0<3 (goes in "
             "circles)\n"},
    {.name = "a page cap counts known pages",
     .feeds = "one",
     .to_h = 9,
     .page_cap = 1,
     .before = "200 0-3 >a",
     .answers = "200 0-3 >a",
     .want = "ask one\none page_cap pages=1 to=3 requests=1 same=0<3 (more pages follow)\n"},
    {.name = "the same bytes under another token are another page",
     .feeds = "one",
     .to_h = 6,
     .before = "200 0-3 >a\n200 3-6 .",
     .answers = "200 0-3 >b\n200 3-6 .",
     .want = "ask one\nask one b\nsend 0:0<3 0:1<6.\none ok pages=2 to=6 requests=2\n"},
    {.name = "and so are those of another feed",
     .feeds = "one two",
     .to_h = 6,
     .before = "200 0-6 .\n200 0-5 .",
     .answers = "200 0-5 .\n200 0-6 .",
     .want = "ask one\nask two\nsend 0:0<6. 1:0<6.\n"
             "one ok pages=1 to=6 requests=1\ntwo ok pages=1 to=6 requests=1\n"},
    {.name = "or asked for without what was refused",
     .feeds = "one",
     .to_h = 6,
     .before = "200 0-6 .",
     .answers = "400 grouping\n200 0-6 .",
     .want = "ask one\nask one reduced\nsend 0:0<6.\none ok pages=1 to=6 requests=2\n"},
    {.name = "or known as another version of this program read it",
     .feeds = "one",
     .to_h = 6,
     .before = "200 0-6 .",
     .other = OTHER_READING,
     .answers = "200 0-6 .",
     .want = "ask one\nsend 0:0<6.\none ok pages=1 to=6 requests=1\n"},
    {.name = "or asked for with another key",
     .feeds = "one",
     .to_h = 6,
     .before = "200 0-6 .",
     .other = OTHER_KEY,
     .answers = "200 0-6 .",
     .want = "ask one\nsend 0:0<6.\none ok pages=1 to=6 requests=1\n"},
    {.name = "or at another address",
     .feeds = "one",
     .to_h = 6,
     .before = "200 0-6 .",
     .other = OTHER_URL,
     .answers = "200 0-6 .",
     .want = "ask one\nsend 0:0<6.\none ok pages=1 to=6 requests=1\n"},
    {.name = "or over another window",
     .feeds = "one",
     .to_h = 6,
     .before = "200 0-6 .",
     .other = OTHER_WINDOW,
     .answers = "200 0-6 .",
     .want = "ask one\nsend 0:0<6.\none ok pages=1 to=6 requests=1\n"},
    {.name = "a joined page is known by all of its answers",
     .feeds = "flat",
     .to_h = 6,
     .before = "200 0-1 >a\n200 1-2 .\n200 3-4 .",
     .answers = "200 0-1 >a\n200 1-2 .\n200 4-5 .",
     .want = "ask flat 0-3\nask flat 0-3 a\nask flat 3-6\nsend 0:1<6.[4-5 .]\n"
             "flat ok pages=2 to=6 requests=3 same=0<3\n"},
    {.name = "a key that is echoed is not passed on",
     .feeds = "one",
     .to_h = 6,
     .answers = "401 bad " KEY " sent",
     .want = "ask one\none auth_invalid pages=0 to=0 requests=1 (said bad [redacted] sent)\n"},
};

/* What is in the middle of being told. */
struct telling {
    const struct fetch_case *c;
    struct arena *arena;
    struct buf told;
    struct account *account;
    const char *answers; /* what is left of them */
    int64_t mono_us;
    struct text sealed;          /* the key, as the account has it */
    struct known_pages known[4]; /* of each window */
};

static long long hours(int64_t us)
{
    return us == 0 ? 0 : (long long)((us / US_PER_S - T0_S) / HOUR_S);
}

/* One word of the answer's line, when it is the one that is looked for. */
static bool take_word(const char **line, const char *word, long long *value)
{
    size_t len = strlen(word);
    char *end;

    if (strncmp(*line, word, len) != 0)
        return false;
    *line += len;
    if (value) {
        *value = strtoll(*line, &end, 10);
        *line = end;
    }
    *line += **line == ' ';
    return true;
}

static void read_status(struct answer *out, const char **line)
{
    long long status = 0;

    out->error = "it broke";
    if (take_word(line, "dns", NULL))
        out->failure = END_DNS;
    else if (take_word(line, "timeout", NULL))
        out->failure = END_TIMEOUT;
    else if (take_word(line, "large", NULL)) {
        out->failure = END_TOO_LARGE;
        out->lasting = true;
    } else {
        assert_true(take_word(line, "", &status));
        out->http_status = (uint32_t)status;
    }
}

static void answer_next(struct telling *t)
{
    size_t line_len = strcspn(t->answers, "\n");
    const char *line = arena_copy(t->arena, t->answers, line_len);
    struct answer answer = {.date_s = -1, .advice = {.wait_ms = -1}};
    struct arena *turn = arena_new();
    long long value, after_s = 1;

    if (line_len == 0)
        fail_msg("%s: it asks more than there are answers, after:\n%s", t->c->name, t->told.at);
    t->answers += line_len + (t->answers[line_len] == '\n');
    if (take_word(&line, "stop ", NULL))
        account_stop(t->account);
    read_status(&answer, &line);
    if (take_word(&line, "@", &value))
        answer.date_s = T0_S + value * HOUR_S;
    (void)take_word(&line, "after=", &after_s);
    if (take_word(&line, "retry=", &value))
        answer.advice.wait_ms = value;
    if (take_word(&line, "never", NULL))
        answer.advice.verdict = RETRY_NO;
    answer.utc_us = (T0_S + (t->c->host_h ? t->c->host_h : 1000) * HOUR_S) * US_PER_S;
    answer.body.len = answer.body.cap = strlen(line);
    answer.body.at = memcpy(malloc(answer.body.cap + 1), line, answer.body.len);
    t->mono_us += after_s * US_PER_S;
    account_answer(t->account, &answer, turn, t->mono_us);
    body_free(&answer.body);
    arena_free(&turn);
}

static void tell_ask(struct telling *t)
{
    struct arena *turn = arena_new();
    struct request request;
    struct err err = {0};

    if (account_ask(t->account, &request, turn, &err) == ST_OK) {
        buf_printf(&t->told, "ask %s\n", request.url);
        secret_wipe(&request.auth.value);
    }
    arena_free(&turn);
}

/* Waits of the jitter differ; the others are told in seconds. */
static void tell_wait(struct telling *t)
{
    int64_t wait_us = account_wake_us(t->account) - t->mono_us;

    assert_true(wait_us > 0);
    if (wait_us > BACKOFF_MAX_MS * US_PER_MS)
        buf_printf(&t->told, "wait %lld\n", (long long)(wait_us / US_PER_S));
    else
        buf_str(&t->told, "wait\n");
    t->mono_us += wait_us;
}

static void tell_pages(struct telling *t)
{
    struct pages pages;
    char *bodies;

    account_pages(t->account, &pages);
    assert_int_equal(pages.origin.account_id, 42);
    buf_str(&t->told, "send");
    for (size_t i = 0; i < pages.n_pages; i++) {
        const struct page *p = &pages.pages[i];
        buf_printf(&t->told, " %u:%u<%lld%s", (unsigned)p->window, (unsigned)p->seq,
                   hours(p->complete_us), p->last ? "." : "");
        if (p->body.at[0] == '[') /* joined: what the page holds */
            buf_printf(&t->told, "%.*s", (int)p->body.len, p->body.at);
        if (t->known[p->window].n < WIRE_KNOWN_MAX)
            t->known[p->window].at[t->known[p->window].n++] =
                t->c->other == OTHER_READING ? p->digest : reading_digest(&p->digest);
    }
    buf_str(&t->told, "\n");
    account_pages_sent(t->account);
    memcpy(&bodies, &pages.bodies.at, sizeof(bodies)); /* ours now, and no longer only to read */
    free(bodies);
}

static void tell_all(struct telling *t)
{
    for (;;) {
        switch (account_next(t->account, t->mono_us)) {
        case WANT_ASK:
            tell_ask(t);
            break;
        case WANT_ANSWER:
            answer_next(t);
            break;
        case WANT_TIME:
            tell_wait(t);
            break;
        case WANT_SEND:
            tell_pages(t);
            break;
        case WANT_NOTHING:
            return;
        }
    }
}

/* How the windows ended. A detail is told as the words of it that `want` has in brackets. */
static void tell_ends(struct telling *t)
{
    struct done done;
    const char *at = t->c->want;

    account_done(t->account, &done);
    for (size_t i = 0; i < done.n_ends; i++) {
        const struct window_end *e = &done.ends[i];
        struct text feed = account_job(t->account)->windows[i].feed;
        const char *detail = arena_copy(t->arena, e->detail.at ? e->detail.at : "", e->detail.len);
        const char *open, *close = NULL;
        buf_printf(&t->told, "%.*s %s pages=%u to=%lld requests=%u", (int)feed.len, feed.at,
                   ending_name(e->ending), (unsigned)e->pages, hours(e->complete_us),
                   (unsigned)e->requests);
        if (e->retry_after_s)
            buf_printf(&t->told, " retry=%lld", (long long)e->retry_after_s);
        for (size_t k = 0; k < e->n_same; k++)
            buf_printf(&t->told, "%s%u<%lld", k ? "," : " same=", (unsigned)e->same[k].seq,
                       hours(e->same[k].complete_us));
        if (e->detail.at && (open = strstr(at, " (")) && (close = strstr(open, ")\n"))) {
            const char *words = arena_copy(t->arena, open + 2, (size_t)(close - open - 2));
            buf_printf(&t->told, " (%s)", strstr(detail, words) ? words : detail);
            at = close;
        } else if (e->detail.at) {
            buf_printf(&t->told, " (%s)", detail);
        }
        buf_str(&t->told, "\n");
    }
}

static void seal(struct telling *t, struct sealer *sealer)
{
    struct secret key = secret_copy(KEY, sizeof(KEY) - 1);
    struct err err = {0};

    assert_int_equal(secret_seal(&t->sealed, t->arena, sealer,
                                 text_of(t->c->provider ? t->c->provider : "tiny"),
                                 TEXT_LIT("acme"), &key, &err),
                     ST_OK);
    secret_wipe(&key);
}

/* `again`: the second of two jobs, which knows the pages of the first. */
static struct text encode_job(const struct telling *t, bool again)
{
    const struct fetch_case *c = t->c;
    int64_t later_h = again && c->other == OTHER_WINDOW;
    struct window windows[4];
    struct job job = {.account_id = 42,
                      .epoch = 1,
                      .lease_ms = (c->lease_s ? c->lease_s : 600) * 1000,
                      .account = TEXT_LIT("acme"),
                      .provider = text_of(c->provider ? c->provider : "tiny"),
                      .base_url = text_of(c->base_url                      ? c->base_url
                                          : again && c->other == OTHER_URL ? "https://b.example"
                                                                           : ""),
                      .sealed_key = t->sealed,
                      .page_cap = c->page_cap ? c->page_cap : 100,
                      .windows = windows,
                      .known = again ? t->known : NULL};
    struct buf out = {.arena = t->arena};

    for (const char *f = c->feeds; *f; f += strcspn(f, " "), f += *f == ' ')
        windows[job.n_windows++] =
            (struct window){.feed = {f, strcspn(f, " ")},
                            .from_us = (T0_S - later_h * HOUR_S) * US_PER_S,
                            .to_us = c->to_h ? (T0_S + c->to_h * HOUR_S) * US_PER_S : 0,
                            .bucket_s = 3600};
    job_encode(&out, &job);
    return (struct text){out.at, out.len};
}

static struct sealer *sealer_of(char digit)
{
    char hex[64];
    struct secret key;
    struct sealer *sealer;
    struct err err = {0};

    memset(hex, digit, sizeof(hex));
    assert_int_equal(encryption_key_parse(&key, (struct text){hex, sizeof(hex)}, &err), ST_OK);
    assert_int_equal(sealer_open(&sealer, &key, NULL, &err), ST_OK);
    secret_wipe(&key);
    return sealer;
}

static void tell_job(struct telling *t, struct sealer *opens, const char *answers, bool again)
{
    const struct account_rules rules = {opens, find_tiny, "0", 7};
    struct err err = {0};

    t->answers = answers ? answers : "";
    t->told.len = 0;
    buf_str(&t->told, "");
    t->mono_us = 1000 * US_PER_S;
    assert_int_equal(account_open(&t->account, encode_job(t, again), &rules, t->mono_us, &err),
                     ST_OK);
    tell_all(t);
    tell_ends(t);
    account_close(&t->account);
}

static bool run_case(const struct fetch_case *c, struct sealer *seals, struct sealer *opens)
{
    struct telling t = {.c = c, .arena = arena_new()};
    bool same;

    t.told.arena = t.arena;
    seal(&t, seals);
    if (c->before)
        tell_job(&t, opens, c->before, false);
    if (c->other == OTHER_KEY)
        seal(&t, seals);
    tell_job(&t, opens, c->answers, c->before != NULL);
    same = strcmp(t.told.at, c->want) == 0;
    if (!same)
        print_error("%s: got\n%swant\n%s\n", c->name, t.told.at, c->want);
    if (*t.answers)
        print_error("%s: answers are left: %s\n", c->name, t.answers);
    same = same && !*t.answers;
    arena_free(&t.arena);
    return same;
}

static void test_cases(void **state)
{
    struct sealer *sealer = sealer_of('7');
    size_t bad = 0;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        bad += !run_case(&cases[i], sealer, sealer);
    sealer_close(&sealer);
    assert_int_equal(bad, 0);
}

static void test_key_of_another_installation(void **state)
{
    static const struct fetch_case c = {
        .name = "sealed by another ENCRYPTION_KEY",
        .feeds = "one",
        .to_h = 6,
        .want = "one auth_invalid pages=0 to=0 requests=0 (ENCRYPTION_KEY)\n"};
    struct sealer *theirs = sealer_of('7'), *ours = sealer_of('8');
    bool same = run_case(&c, theirs, ours);

    (void)state;
    sealer_close(&theirs);
    sealer_close(&ours);
    assert_true(same);
}

/* 70 pages go in bundles of 32. */
static void test_bundles(void **state)
{
    struct fetch_case c = {.name = "bundles", .feeds = "one", .to_h = 70};
    struct arena *a = arena_new();
    struct buf answers = {.arena = a}, want = {.arena = a};
    struct sealer *sealer = sealer_of('7');

    (void)state;
    for (int i = 0; i < 70; i++) {
        buf_printf(&answers, "200 %d-%d ", i, i + 1);
        buf_printf(&answers, i < 69 ? ">p%d\n" : ".", i);
    }
    for (int i = 0, from = 0; i < 70; i++) {
        buf_printf(&want, i > 0 ? "ask one p%d\n" : "ask one\n", i - 1);
        if (i != 31 && i != 63 && i != 69)
            continue;
        buf_str(&want, "send");
        for (; from <= i; from++)
            buf_printf(&want, " 0:%d<%d%s", from, from + 1, from == 69 ? "." : "");
        buf_str(&want, "\n");
    }
    buf_str(&want, "one ok pages=70 to=70 requests=70\n");
    c.answers = answers.at;
    c.want = want.at;
    assert_true(run_case(&c, sealer, sealer));
    sealer_close(&sealer);
    arena_free(&a);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),
        cmocka_unit_test(test_key_of_another_installation),
        cmocka_unit_test(test_bundles),
    };

    return cmocka_run_group_tests_name("fetcher", tests, NULL, NULL);
}
