/* usagectl - the command line: accounts, runs, figures, and what to do when something is wrong.
 *
 *   person --argv--> [usagectl] --SQL--> Postgres
 *                        '-----JSON----> scheduler (control socket)
 *
 * Promise: an answer or one line that says what to do; a provider key is never printed.
 * Options: usagectl help.  Exit: 0 done, 1 the answer is no, 2 wrong use, 100 bad configuration,
 * 111 try again. */
#include <stdio.h>
#include <stdlib.h>

#include "cli/cli.h"
#include "common/log.h"

static enum status run(struct cli *cli, int argc, char **argv, struct err *err)
{
    const struct command *command;
    struct args args = {0};

    TRY(command_parse(&command, &args, cli->arena, argc, argv, err));
    if (!command || cli_has(&args, OPT_HELP)) {
        (void)fputs(command_help(cli->arena, command), stdout);
        return ST_OK;
    }
    if (!(command->flags & CLI_NO_CONFIG))
        TRY(config_load_env(&cli->cfg, STAGE_CLI, "usagectl", err));
    log_open("usagectl", getenv("UF_LOG") && cli->cfg.instance ? cli->cfg.log_level : LOG_ERROR);
    return command->run(cli, &args, err);
}

static int exit_status(const struct cli *cli, enum status st, const struct err *err)
{
    if (fflush(stdout) != 0 || ferror(stdout))
        return 111; /* nobody read the answer */
    if (st == ST_OK)
        return cli->answer_is_no ? CLI_EXIT_NO : 0;
    (void)fprintf(stderr, "usagectl: %s\n", err->text);
    return st == ST_REJECT ? CLI_EXIT_USAGE : st == ST_FATAL ? 100 : 111;
}

int main(int argc, char **argv)
{
    struct cli cli = {.arena = arena_new()};
    struct err err = {0};
    int code;

    secret_process_hide();
    log_open("usagectl", LOG_ERROR);
    code = exit_status(&cli, run(&cli, argc, argv, &err), &err);
    sealer_close(&cli.sealer);
    config_wipe(&cli.cfg);
    arena_free(&cli.arena); /* ends results before their connection */
    pg_close(&cli.pg);
    return code;
}
