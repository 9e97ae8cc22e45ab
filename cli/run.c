/* run.c - run, pause and resume. */
#include <inttypes.h>
#include <stdio.h>

#include "cli/cli.h"
#include "cli/control.h"
#include "cli/progress.h"

/* A mistyped name is better told here, with the nearest one, where there is a database to ask. */
static enum status account_check(struct cli *cli, const char *account, struct err *err)
{
    if (!account || !cli->cfg.database_url)
        return ST_OK;
    TRY(cli_database(cli, err));
    TRY(cli_account_known(cli, account, err));
    return pg_commit(cli->pg, err);
}

static enum status run_with(struct cli *cli, struct control *control, const struct args *args,
                            struct err *err)
{
    const char *const members[][2] = {{"account", args->values[OPT_ACCOUNT]}, {NULL, NULL}};
    const struct json *answer;
    struct text id;
    int64_t accounts;
    bool failed = false;

    TRY(control_ask(control, &answer, cli->arena, control_request(cli->arena, "run", members),
                    CONTROL_WAIT_US, err));
    id = json_string(json_member(answer, "run_id"));
    accounts = answer_int(answer, "accounts");
    (void)printf("run %.*s: %" PRId64 " account%s\n", (int)id.len, id.at ? id.at : "", accounts,
                 accounts == 1 ? "" : "s");
    (void)fflush(stdout);
    if (!cli_has(args, OPT_WAIT))
        return ST_OK;
    TRY(progress_wait(cli, control, arena_copy(cli->arena, id.at, id.len), "", &failed, err));
    cli->answer_is_no = failed;
    return ST_OK;
}

enum status cmd_run(struct cli *cli, const struct args *args, struct err *err)
{
    struct control *control = NULL;
    enum status st;

    TRY(account_check(cli, args->values[OPT_ACCOUNT], err));
    st = control_open(&control, &cli->cfg, err);
    if (st == ST_OK)
        st = run_with(cli, control, args, err);
    control_close(&control);
    return st;
}

static enum status say(struct cli *cli, const char *cmd, const char *done, struct err *err)
{
    struct control *control = NULL;
    const struct json *answer;
    enum status st = control_open(&control, &cli->cfg, err);

    if (st == ST_OK)
        st = control_ask(control, &answer, cli->arena, control_request(cli->arena, cmd, NULL),
                         CONTROL_WAIT_US, err);
    if (st == ST_OK)
        (void)puts(done);
    control_close(&control);
    return st;
}

enum status cmd_pause(struct cli *cli, const struct args *args, struct err *err)
{
    (void)args;
    return say(cli, "pause",
               "paused: what is being read is finished, nothing more is begun until usagectl "
               "resume",
               err);
}

enum status cmd_resume(struct cli *cli, const struct args *args, struct err *err)
{
    (void)args;
    return say(cli, "resume", "resumed", err);
}
