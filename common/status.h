/* status.h - what a failure asks of the caller, and the words that explain it. */
#ifndef UF_STATUS_H
#define UF_STATUS_H

#define CHECKED                      __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt_at, args_at) __attribute__((format(printf, fmt_at, args_at)))

enum status {
    ST_OK = 0,
    ST_RETRY,  /* temporary: the same call may succeed later (timeout, 429, 5xx, link down) */
    ST_REJECT, /* permanent for this message: dead-letter it, go on with the next */
    ST_FATAL,  /* permanent for this process (bad config, wrong schema): log and exit */
};

/* The text of a failure, made where the facts are and logged once, where it is decided. */
struct err {
    enum status status;
    char text[512];
};

/* Returns any status but ST_OK. The only macro of this code that hides control flow. */
#define TRY(call)                                                                                  \
    do {                                                                                           \
        enum status try_status_ = (call);                                                          \
        if (try_status_ != ST_OK)                                                                  \
            return try_status_;                                                                    \
    } while (0)

/* Fills `err` (cut to fit, control characters replaced by '?') and returns `status`. */
enum status err_set(struct err *err, enum status status, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* Puts "prefix: " before the text that `err` has; returns err->status. */
enum status err_prefix(struct err *err, const char *fmt, ...) PRINTF_LIKE(2, 3);

#endif
