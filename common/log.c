#include "common/log.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/utf8.h"

#define LINE_MOST  PIPE_BUF /* a pipe takes this much in one piece: lines do not mix */
#define VALUE_MOST 2048     /* of one text, as written */
#define TAIL       24       /* kept free for: ,"cut":true}\n */

/* Every line needs them, and a log call has no object to take them from. Set once, at the start. */
static const char *log_stage = "";
static enum log_level log_least = LOG_INFO;
static uint64_t log_written[LOG_ERROR + 1]; /* lines, by level */

static const char *const level_names[] = {"debug", "info", "warn", "error"};

struct line {
    char at[LINE_MOST];
    size_t len;
    bool cut; /* something did not fit */
};

void log_open(const char *stage, enum log_level level)
{
    log_stage = stage;
    log_least = level;
}

bool log_level_parse(enum log_level *out, const char *name)
{
    for (size_t i = 0; i < sizeof(level_names) / sizeof(level_names[0]); i++) {
        if (strcmp(name, level_names[i]) == 0) {
            *out = (enum log_level)i;
            return true;
        }
    }
    return false;
}

bool log_on(enum log_level level)
{
    return level >= log_least;
}

static bool put(struct line *l, const char *from, size_t len)
{
    if (len > sizeof(l->at) - TAIL - l->len) {
        l->cut = true;
        return false;
    }
    memcpy(l->at + l->len, from, len);
    l->len += len;
    return true;
}

static bool put_str(struct line *l, const char *s)
{
    return put(l, s, strlen(s));
}

/* One character as JSON wants it. Returns its length in `from`. */
static size_t escape(char out[8], struct text from)
{
    unsigned char c = (unsigned char)from.at[0];
    size_t n = utf8_sequence(from.at, from.len);

    if (n == 0) {
        memcpy(out, UTF8_REPLACEMENT, sizeof(UTF8_REPLACEMENT));
        return 1;
    }
    if (c == '"' || c == '\\')
        (void)snprintf(out, 8, "\\%c", c);
    else if (c == '\n')
        (void)snprintf(out, 8, "\\n");
    else if (c < 0x20 || c == 0x7f)
        (void)snprintf(out, 8, "\\u%04x", c);
    else
        (void)snprintf(out, 8, "%.*s", (int)n, from.at);
    return n;
}

static bool put_quoted(struct line *l, struct text t)
{
    size_t start = l->len;
    char piece[8];

    if (!put_str(l, "\""))
        return false;
    for (size_t i = 0; i < t.len;) {
        i += escape(piece, (struct text){t.at + i, t.len - i});
        if (l->len - start > VALUE_MOST)
            return put_str(l, "...\"");
        if (!put_str(l, piece))
            return false;
    }
    return put_str(l, "\"");
}

static bool put_value(struct line *l, const struct log_kv *kv)
{
    char number[32];

    switch (kv->kind) {
    case KV_INT:
        (void)snprintf(number, sizeof(number), "%" PRId64, kv->v.i);
        return put_str(l, number);
    case KV_UINT:
        (void)snprintf(number, sizeof(number), "%" PRIu64, kv->v.u);
        return put_str(l, number);
    case KV_BOOL:
        return put_str(l, kv->v.b ? "true" : "false");
    case KV_STR:
        return kv->v.s ? put_quoted(l, text_of(kv->v.s)) : put_str(l, "null");
    case KV_TEXT:
        return kv->v.t.at ? put_quoted(l, kv->v.t) : put_str(l, "null");
    }
    return false;
}

static void put_member(struct line *l, const struct log_kv *kv)
{
    size_t before = l->len;

    if (put_str(l, ",") && put_quoted(l, text_of(kv->key)) && put_str(l, ":") && put_value(l, kv))
        return;
    l->len = before; /* whole members only: the line stays JSON */
}

static void put_time(struct line *l)
{
    struct timespec now;
    struct tm tm;
    char text[64];

    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    (void)snprintf(text, sizeof(text), "{\"ts\":\"%04d-%02d-%02dT%02d:%02d:%02d.%03dZ\"",
                   tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec,
                   (int)(now.tv_nsec / 1000000));
    put_str(l, text);
}

uint64_t log_lines(enum log_level level)
{
    return log_written[level];
}

void log_write(enum log_level level, const char *event, const struct log_kv *kvs, size_t n)
{
    struct line l = {.len = 0};
    const struct log_kv head[] = {
        log_kv_str("level", level_names[level]),
        log_kv_str("stage", log_stage),
        log_kv_str("event", event),
    };
    int saved = errno;
    ssize_t done;

    log_written[level]++;
    put_time(&l);
    for (size_t i = 0; i < sizeof(head) / sizeof(head[0]); i++)
        put_member(&l, &head[i]);
    for (size_t i = 0; i < n; i++)
        put_member(&l, &kvs[i]);
    l.len += (size_t)snprintf(l.at + l.len, TAIL, "%s}\n", l.cut ? ",\"cut\":true" : "");
    do {
        done = write(STDERR_FILENO, l.at, l.len);
    } while (done < 0 && errno == EINTR);
    errno = saved; /* logging an error must not change it */
}
