/* cli.h - usagectl: one table of commands, and what every command is given.
 *
 * A command returns ST_OK when it could answer; the answer itself may be a no (cli->answer_is_no).
 * ST_REJECT is the person's mistake: err says what to type instead.
 * Exit: 0 done, 1 the answer is no, 2 wrong use (ST_REJECT), 100 configuration (ST_FATAL), 111 try
 * again (ST_RETRY). */
#ifndef UF_CLI_H
#define UF_CLI_H

#include <stdbool.h>
#include <stddef.h>

#include "common/arena.h"
#include "common/options.h"
#include "common/pg.h"
#include "common/secret.h"
#include "common/status.h"

#define CLI_EXIT_NO    1
#define CLI_EXIT_USAGE 2

/* The options of all commands; a command lists those that it takes. */
enum opt {
    OPT_PROVIDER,
    OPT_BASE_URL,
    OPT_KEY_FILE,
    OPT_LABEL,
    OPT_FROM_FILE,
    OPT_ACCOUNT,
    OPT_FEED,
    OPT_FROM,
    OPT_TO,
    OPT_FILE,
    OPT_WAIT,
    OPT_ALL,
    OPT_YES,
    OPT_PURGE,
    OPT_BY,
    OPT_SINCE,
    OPT_UNTIL,
    OPT_TZ,
    OPT_FORMAT,
    OPT_LIMIT,
    OPT_CURVE,
    OPT_HELP,
    N_OPTS,
};

#define ARGS_MAX 64 /* words after a command, and labels */

/* A command line, taken apart. Texts are argv's. */
struct args {
    const char *values[N_OPTS]; /* NULL: not given; a switch that is given: "" */
    const char *labels[ARGS_MAX];
    size_t n_labels;
    const char *words[ARGS_MAX]; /* what is no option */
    size_t n_words;
};

struct cli {
    struct arena *arena; /* lives as long as the process */
    struct config cfg;
    struct pg *pg; /* NULL before cli_database */
    struct sealer *sealer;
    bool answer_is_no;
};

enum { CLI_NO_CONFIG = 1, CLI_HIDDEN = 2 };

struct command {
    const char *name;     /* "account add" */
    const char *synopsis; /* what follows the name */
    const char *summary;  /* one line */
    const char *details;  /* NULL, or what the help of this command adds */
    int opts[N_OPTS];     /* enum opt, ended by -1 */
    size_t words_min, words_max;
    unsigned flags;
    enum status (*run)(struct cli *cli, const struct args *args, struct err *err);
};

extern const struct command commands[];
extern const size_t n_commands;

/* Finds the command that argv names and takes its options apart. `*command` is NULL for the general
 * help. ST_REJECT: err says what to type. */
enum status command_parse(const struct command **command, struct args *out, struct arena *a,
                          int argc, char **argv, struct err *err) CHECKED;
/* Help for one command, for a group ("account") or, with NULL, for all. */
const char *command_help(struct arena *a, const struct command *command);
enum status command_help_words(const char **out, struct arena *a, const char *const *words,
                               size_t n_words, struct err *err) CHECKED;

/* ---- shared by the commands ---- */

/* Connects, checks the schema, and begins a transaction fit for reports (whole tables may be read).
 * A second call begins another transaction on the same connection. */
enum status cli_database(struct cli *cli, struct err *err) CHECKED;
/* The same without looking at the schema's version. */
enum status cli_database_any(struct cli *cli, struct err *err) CHECKED;
/* Opens ENCRYPTION_KEY and ENCRYPTION_KEY_OLD into cli->sealer. ST_FATAL: none is set. */
enum status cli_sealer(struct cli *cli, struct err *err) CHECKED;

/* ST_REJECT with the nearest name when no account has this one. Needs cli_database. */
enum status cli_account_known(struct cli *cli, const char *name, struct err *err) CHECKED;
/* The nearest of the `column` of `sql`'s rows to `word`, or NULL. */
const char *cli_nearest_row(const PGresult *rows, int column, struct arena *a, const char *word);
/* "did you mean X?", or "known are: A, B". In `a`. */
const char *cli_suggest(struct arena *a, const char *word, const char *const *words, size_t n);

/* The whole of a file, or of standard input for "-", up to `max` bytes. ST_REJECT: can not be read,
 * or longer. */
enum status cli_read_file(struct text *out, struct arena *a, const char *path, size_t max,
                          struct err *err) CHECKED;

bool cli_has(const struct args *args, enum opt opt);

/* What to do about an ending: one text each, as in account_feeds.last_error. NULL: unknown code. */
const char *cli_advice(struct text ending);

/* ---- the commands ---- */

#define COMMAND(name)                                                                              \
    enum status name(struct cli *cli, const struct args *args, struct err *err) CHECKED
COMMAND(cmd_migrate);
COMMAND(cmd_grant);
COMMAND(cmd_account_add);
COMMAND(cmd_account_rotate_key);
COMMAND(cmd_account_list);
COMMAND(cmd_account_show);
COMMAND(cmd_account_check);
COMMAND(cmd_account_enable);
COMMAND(cmd_account_disable);
COMMAND(cmd_account_remove);
COMMAND(cmd_run);
COMMAND(cmd_inject);
COMMAND(cmd_prices_import);
COMMAND(cmd_prices_list);
COMMAND(cmd_providers);
COMMAND(cmd_pause);
COMMAND(cmd_resume);
COMMAND(cmd_status);
COMMAND(cmd_top);
COMMAND(cmd_alive);
COMMAND(cmd_usage);
COMMAND(cmd_cost);
COMMAND(cmd_summary);
COMMAND(cmd_revisions);
COMMAND(cmd_dead_list);
COMMAND(cmd_dead_show);
COMMAND(cmd_dead_replay);
COMMAND(cmd_keygen);
COMMAND(cmd_rekey);
COMMAND(cmd_doctor);
COMMAND(cmd_config_markdown);
COMMAND(cmd_version);
COMMAND(cmd_help);

#endif
