/* log.h - one JSON object a line, on stderr.
 *
 *   LOG(WARN, "fetch.retry", KV("account", id), KV("status", code), KV("wait_ms", wait));
 *   {"ts":"2026-11-24T10:00:00.123Z","level":"warn","stage":"fetcher","event":"fetch.retry",...}
 *
 * The event is a fixed noun.verb to search for. A line about a message carries account and job.
 * Bodies are never logged. A `struct secret` has no KV: printing one does not compile.
 * One write(2) a line, so lines of several processes on one stderr do not mix. */
#ifndef UF_LOG_H
#define UF_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/text.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

struct log_kv {
    const char *key;
    enum { KV_INT, KV_UINT, KV_BOOL, KV_STR, KV_TEXT } kind;
    union {
        int64_t i;
        uint64_t u;
        bool b;
        const char *s; /* NULL is written as null */
        struct text t;
    } v;
};

static inline struct log_kv log_kv_int(const char *k, int64_t v)
{
    return (struct log_kv){k, KV_INT, {.i = v}};
}
static inline struct log_kv log_kv_uint(const char *k, uint64_t v)
{
    return (struct log_kv){k, KV_UINT, {.u = v}};
}
static inline struct log_kv log_kv_bool(const char *k, bool v)
{
    return (struct log_kv){k, KV_BOOL, {.b = v}};
}
static inline struct log_kv log_kv_str(const char *k, const char *v)
{
    return (struct log_kv){k, KV_STR, {.s = v}};
}
static inline struct log_kv log_kv_text(const char *k, struct text v)
{
    return (struct log_kv){k, KV_TEXT, {.t = v}};
}

#define KV(key, value)                                                                             \
    _Generic((value),                                                                              \
        bool: log_kv_bool,                                                                         \
        int: log_kv_int,                                                                           \
        long: log_kv_int,                                                                          \
        long long: log_kv_int,                                                                     \
        unsigned: log_kv_uint,                                                                     \
        unsigned long: log_kv_uint,                                                                \
        unsigned long long: log_kv_uint,                                                           \
        char *: log_kv_str,                                                                        \
        const char *: log_kv_str,                                                                  \
        struct text: log_kv_text)(key, value)

#define LOG(level, event, ...)                                                                     \
    do {                                                                                           \
        if (log_on(LOG_##level)) {                                                                 \
            const struct log_kv log_kvs_[] = {__VA_ARGS__};                                        \
            log_write(LOG_##level, event, log_kvs_, sizeof(log_kvs_) / sizeof(log_kvs_[0]));       \
        }                                                                                          \
    } while (0)

/* `stage` names the process in every line (kept, not copied). Lines below `level` are dropped. */
void log_open(const char *stage, enum log_level level);
bool log_level_parse(enum log_level *out, const char *name); /* debug info warn error */
bool log_on(enum log_level level);
/* How many lines of a level were written. */
uint64_t log_lines(enum log_level level);
void log_write(enum log_level level, const char *event, const struct log_kv *kvs, size_t n);

#endif
