/* inject.h - a window of the past that is to be read (again). */
#ifndef UF_CLI_INJECT_H
#define UF_CLI_INJECT_H

#include "cli/cli.h"
#include "cli/control.h"

struct injection {
    const char *account;
    const char *feed; /* NULL: all */
    int64_t from_us, to_us;
    const char *run_id; /* once it was sent */
};

/* Takes one line of a file: a JSON object, or ACCOUNT,FEED,FROM,TO. Texts in `a`.
 * ST_REJECT: err says what is wrong with it. */
enum status injection_parse(struct injection *out, struct arena *a, struct text line,
                            int64_t now_us, struct err *err) CHECKED;

/* Sends it and fills run_id. */
enum status injection_send(struct injection *in, struct cli *cli, struct control *control,
                           struct err *err) CHECKED;

#endif
