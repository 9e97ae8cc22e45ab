/* progress.h - waiting for runs: what they have done so far, and what became of them. */
#ifndef UF_CLI_PROGRESS_H
#define UF_CLI_PROGRESS_H

#include "cli/cli.h"
#include "cli/control.h"

/* Waits for the run's end and prints its summary. `label` goes in front of the progress ("" =
 * nothing). `failed` is set when an account of it failed. A scheduler that goes away is waited for;
 * ST_RETRY when none comes back. */
enum status progress_wait(struct cli *cli, struct control *control, const char *run_id,
                          const char *label, bool *failed, struct err *err) CHECKED;

/* "1h02m03s" without what is nought in front. In `a`. */
const char *progress_span(struct arena *a, int64_t seconds);

/* One line of progress, at most 79 columns. */
const char *progress_line(struct arena *a, const struct json *run, const char *label,
                          int64_t elapsed_us);

/* The summary of a run, and who failed and why. */
void progress_summary(struct arena *a, const struct json *run, int64_t elapsed_us, FILE *out);

#endif
