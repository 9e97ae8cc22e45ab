/* command.c - the table of commands, and how a command line is taken apart by it. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

struct opt_spec {
    const char *name;
    const char *value; /* NULL: a switch */
    const char *help;
};

static const struct opt_spec opt_specs[N_OPTS] = {
    [OPT_PROVIDER] = {"provider", "P", "whose API it is: usagectl providers lists them"},
    [OPT_BASE_URL] = {"base-url", "URL",
                      "where the API is, when not at the provider's own address"},
    [OPT_KEY_FILE] = {"key-file", "FILE", "read the key from FILE; - is standard input"},
    [OPT_LABEL] = {"label", "NAME=VALUE", "a label of your own; may be given several times"},
    [OPT_FROM_FILE] = {"from-file", "FILE", "many accounts from CSV; - is standard input"},
    [OPT_ACCOUNT] = {"account", "NAME", "this account alone"},
    [OPT_FEED] = {"feed", "FEED", "this feed alone (completions, costs, ...)"},
    [OPT_FROM] = {"from", "TIME", "beginning of the window: 2026-11-01, 2026-11-01T06:00:00Z, 7d"},
    [OPT_TO] = {"to", "TIME", "its end, not included; also: now"},
    [OPT_FILE] = {"file", "FILE", "one injection a line, JSON or CSV; - is standard input"},
    [OPT_WAIT] = {"wait", NULL,
                  "show progress and wait for the end; exit status 1 if an account failed"},
    [OPT_ALL] = {"all", NULL, "all of them"},
    [OPT_YES] = {"yes", NULL, "do not ask"},
    [OPT_PURGE] = {"purge", NULL, "delete its figures from usage_metrics, too"},
    [OPT_BY] = {"by", "D,...", "what to group by, in this order"},
    [OPT_SINCE] = {"since", "TIME", "from then on: 2026-11-01, today, 7d (default 30d)"},
    [OPT_UNTIL] = {"until", "TIME", "up to then, not included"},
    [OPT_TZ] = {"tz", "ZONE", "time zone of hours, days and months: Europe/Berlin (default UTC)"},
    [OPT_FORMAT] = {"format", "F", "table (default), csv or json"},
    [OPT_LIMIT] = {"limit", "N", "at most so many, the newest first (default 100)"},
    [OPT_CURVE] = {"curve", NULL, "a pair of CURVE keys for tcp:// links instead"},
    [OPT_HELP] = {"help", NULL, "this help"},
};

#define NONE                                                                                       \
    {                                                                                              \
        -1                                                                                         \
    }

static const char add_details[] =
    "The key is asked for on the terminal without showing it, or read with --key-file. It is "
    "stored\n"
    "sealed with ENCRYPTION_KEY. The account is read at once by a running scheduler.\n"
    "--from-file takes one account a line: NAME,PROVIDER,BASE_URL,KEY (an empty BASE_URL is the\n"
    "provider's own), or, with --provider, NAME,KEY. All are added or none.\n";
static const char check_details[] =
    "One bucket of one feed is asked for, or with --all of every feed. Nothing is stored.\n";
static const char inject_details[] =
    "A window of the past is read (again), whatever its length; a row in Postgres remembers it "
    "until\n"
    "it is done. --file takes one injection a line, all checked before the first is sent:\n"
    "  "
    "{\"account\":\"acme\",\"feed\":\"completions\",\"from\":\"2026-10-01\",\"to\":\"2026-11-01\"}"
    "\n"
    "  acme,completions,2026-10-01,2026-11-01          (an empty feed stands for all of them)\n";
static const char top_details[] =
    "Listens to the processes themselves (UF_PULSE), so it needs neither the database nor a "
    "gateway.\n"
    "On a terminal it is drawn anew each second until Ctrl-C; else one picture is printed.\n";
static const char alive_details[] =
    "0 as soon as a process is heard at UF_PULSE, 1 if none is within 4 seconds. For health "
    "checks:\n"
    "run beside a process, with its settings, it hears that one. A gateway is asked /healthz.\n";
static const char by_details[] =
    "Group by any of: day hour month account provider feed project user key model line_item tier\n"
    "batch. Default: usage by feed,model; cost by month,account. Figures that a provider gives by\n"
    "whole days are days of UTC and keep their date in every time zone. Currencies are never "
    "added\n"
    "up. Feeds that report once more what other feeds of the provider report (claude_code) count "
    "only\n"
    "when grouped by feed. In JSON, amounts and quantities are texts, so that no reader rounds "
    "them.\n";
static const char revisions_details[] =
    "A bucket that was complete and that the provider reports otherwise since: a row changed,\n"
    "vanished or appeared. The table shows the figures that differ, old -> new; csv and json have\n"
    "the old and the new row whole, each as a JSON text.\n";
static const char replay_details[] =
    "The letter's window is read again. With --wait the letter is closed when that went well and "
    "the\n"
    "same trouble did not come back; without it the letter stays open.\n";
static const char remove_details[] = "The account, its key and its state go. Its rows of "
                                     "usage_metrics stay, unless --purge is given.\n";

static const char prices_details[] =
    "CSV, all of the file or none of it; a price that is there is replaced:\n"
    "\n"
    "  provider,model,kind,per_million,currency,valid_from\n"
    "  anthropic,claude-sonnet-5,output,15,USD,2026-11-01\n"
    "\n"
    "kind is input (what is neither read from nor written to a cache), cached_input, cache_write "
    "or\n"
    "output. currency and valid_from may be left out: USD, and ever since. Prices make estimates\n"
    "(view cost_estimate); they are never added to what a provider bills.\n";
static const char rekey_details[] =
    "ENCRYPTION_KEY is the new key, ENCRYPTION_KEY_OLD the one before. First give both to every "
    "fetcher;\n"
    "then run this, while everything goes on. It may be stopped and run again at any time. After "
    "it "
    "says\n"
    "that all are sealed with the new key, and a lease later (UF_LEASE), no one needs the old "
    "one.\n";
static const char grant_details[] =
    "For a database whose login may not make roles: names a role that is there already instead of\n"
    "uf_scheduler, uf_writer, ... (docs/security.md). Needs the login that owns the tables.\n";

const struct command commands[] = {
    {"migrate", "", "make or update the tables", NULL, NONE, 0, 0, 0, cmd_migrate},
    {"grant", "scheduler|writer|gateway|admin ROLE", "give a database role one part's rights",
     grant_details, NONE, 2, 2, 0, cmd_grant},
    {"account add",
     "NAME --provider P [--base-url U] [--key-file F|-] [--label k=v ...]",
     "add an account",
     add_details,
     {OPT_PROVIDER, OPT_BASE_URL, OPT_KEY_FILE, OPT_LABEL, OPT_FROM_FILE, -1},
     0,
     1,
     0,
     cmd_account_add},
    {"account list",
     "[--format table|csv|json]",
     "all accounts and how they are",
     NULL,
     {OPT_FORMAT, -1},
     0,
     0,
     0,
     cmd_account_list},
    {"account show", "NAME", "one account, feed by feed", NULL, NONE, 1, 1, 0, cmd_account_show},
    {"account check",
     "NAME [--all]",
     "ask the provider whether the key works",
     check_details,
     {OPT_ALL, -1},
     1,
     1,
     0,
     cmd_account_check},
    {"account rotate-key",
     "NAME [--key-file F|-]",
     "give an account a new key",
     NULL,
     {OPT_KEY_FILE, -1},
     1,
     1,
     0,
     cmd_account_rotate_key},
    {"account enable", "NAME", "read it again", NULL, NONE, 1, 1, 0, cmd_account_enable},
    {"account disable", "NAME", "stop reading it; what it has stays", NULL, NONE, 1, 1, 0,
     cmd_account_disable},
    {"account remove",
     "NAME [--yes] [--purge]",
     "forget an account",
     remove_details,
     {OPT_YES, OPT_PURGE, -1},
     1,
     1,
     0,
     cmd_account_remove},
    {"run",
     "[--account A] [--wait]",
     "read all accounts now",
     NULL,
     {OPT_ACCOUNT, OPT_WAIT, -1},
     0,
     0,
     0,
     cmd_run},
    {"inject",
     "--account A [--feed F] --from T --to T [--wait] | --file F|- [--wait]",
     "read a window of the past",
     inject_details,
     {OPT_ACCOUNT, OPT_FEED, OPT_FROM, OPT_TO, OPT_FILE, OPT_WAIT, -1},
     0,
     0,
     0,
     cmd_inject},
    {"pause", "", "claim no more accounts until resume", NULL, NONE, 0, 0, 0, cmd_pause},
    {"resume", "", "go on after pause", NULL, NONE, 0, 0, 0, cmd_resume},
    {"status", "", "scheduler, fetchers, last run, accounts", NULL, NONE, 0, 0, 0, cmd_status},
    {"top", "", "what every process does now, live", top_details, NONE, 0, 0, 0, cmd_top},
    {"alive", "", "is the process beside it at work? for health checks", alive_details, NONE, 0, 0,
     0, cmd_alive},
    {"usage",
     "[--by D,...] [--since T] [--until T] [--tz Z] [--account A] [--format F]",
     "tokens, requests and quantities, summed",
     by_details,
     {OPT_BY, OPT_SINCE, OPT_UNTIL, OPT_TZ, OPT_ACCOUNT, OPT_FORMAT, -1},
     0,
     0,
     0,
     cmd_usage},
    {"cost",
     "[--by D,...] [--since T] [--until T] [--tz Z] [--account A] [--format F]",
     "cost as billed by the providers, summed",
     by_details,
     {OPT_BY, OPT_SINCE, OPT_UNTIL, OPT_TZ, OPT_ACCOUNT, OPT_FORMAT, -1},
     0,
     0,
     0,
     cmd_cost},
    {"summary", "", "accounts with their figures", NULL, NONE, 0, 0, CLI_HIDDEN, cmd_summary},
    {"revisions",
     "[--account A] [--feed F] [--since T] [--limit N] [--format F]",
     "what providers changed in complete buckets",
     revisions_details,
     {OPT_ACCOUNT, OPT_FEED, OPT_SINCE, OPT_LIMIT, OPT_FORMAT, -1},
     0,
     0,
     0,
     cmd_revisions},
    {"dead list",
     "[--account A] [--all]",
     "pages that could not be understood",
     NULL,
     {OPT_ACCOUNT, OPT_ALL, -1},
     0,
     0,
     0,
     cmd_dead_list},
    {"dead show", "ID", "one of them, with what the provider sent", NULL, NONE, 1, 1, 0,
     cmd_dead_show},
    {"dead replay",
     "ID [--wait]",
     "read its window again",
     replay_details,
     {OPT_WAIT, -1},
     1,
     1,
     0,
     cmd_dead_replay},
    {"keygen",
     "[--curve]",
     "print a fresh ENCRYPTION_KEY",
     NULL,
     {OPT_CURVE, -1},
     0,
     0,
     CLI_NO_CONFIG,
     cmd_keygen},
    {"prices import", "FILE|-", "what a million tokens cost, for estimates", prices_details, NONE,
     1, 1, 0, cmd_prices_import},
    {"prices list",
     "[--format table|csv|json]",
     "the prices that estimates use",
     NULL,
     {OPT_FORMAT, -1},
     0,
     0,
     0,
     cmd_prices_list},
    {"rekey", "", "seal the accounts' keys with a new ENCRYPTION_KEY", rekey_details, NONE, 0, 0, 0,
     cmd_rekey},
    {"providers",
     "[--format table|csv|json]",
     "whose usage can be read, and by which key",
     NULL,
     {OPT_FORMAT, -1},
     0,
     0,
     CLI_NO_CONFIG,
     cmd_providers},
    {"doctor", "", "look at everything and say what to do", NULL, NONE, 0, 0, CLI_NO_CONFIG,
     cmd_doctor},
    {"config-markdown", "", "docs/config.md", NULL, NONE, 0, 0, CLI_NO_CONFIG | CLI_HIDDEN,
     cmd_config_markdown},
    {"version", "", "the program's version", NULL, NONE, 0, 0, CLI_NO_CONFIG, cmd_version},
    {"help", "[COMMAND]", "help for a command", NULL, NONE, 0, 2, CLI_NO_CONFIG, cmd_help},
};
const size_t n_commands = sizeof(commands) / sizeof(commands[0]);

bool cli_has(const struct args *args, enum opt opt)
{
    return args->values[opt] != NULL;
}

/* ---- finding ---- */

/* Length of the group in front of a two-word name, 0 for a name of one word. */
static size_t group_len(const struct command *c)
{
    const char *space = strchr(c->name, ' ');

    return space ? (size_t)(space - c->name) : 0;
}

static bool in_group(const struct command *c, const char *group)
{
    return group_len(c) == strlen(group) && strncmp(c->name, group, strlen(group)) == 0;
}

static bool is_group(const char *word)
{
    for (size_t i = 0; i < n_commands; i++)
        if (in_group(&commands[i], word))
            return true;
    return false;
}

const char *cli_suggest(struct arena *a, const char *word, const char *const *words, size_t n)
{
    const char *near = word ? nearest_word(word, words, n) : NULL;
    struct buf b = {.arena = a};

    if (near)
        return arena_printf(a, "did you mean %s?", near);
    buf_str(&b, "known are: ");
    for (size_t i = 0; i < n; i++)
        buf_printf(&b, "%s%s", i ? ", " : "", words[i]);
    return b.at;
}

/* The words that may stand first, or after a group. */
static size_t words_after(struct arena *a, const char *group, const char **out)
{
    size_t n = 0;

    for (size_t i = 0; i < n_commands; i++) {
        const struct command *c = &commands[i];
        size_t len = group_len(c);
        const char *word = c->name;

        if (c->flags & CLI_HIDDEN || (group && !in_group(c, group)))
            continue;
        if (group)
            word = c->name + len + 1;
        else if (len)
            word = arena_copy(a, c->name, len);
        if (n == 0 || strcmp(out[n - 1], word) != 0)
            out[n++] = word;
    }
    return n;
}

/* `*used` words of `words` are the command's name. */
static enum status command_find(const struct command **out, size_t *used, struct arena *a,
                                const char *const *words, size_t n_words, struct err *err)
{
    const char *known[64];
    bool group = is_group(words[0]);
    size_t n;

    *used = group ? 2 : 1;
    for (size_t i = 0; i < n_commands; i++) {
        const struct command *c = &commands[i];
        size_t len = group_len(c);

        if (group && in_group(c, words[0]) && n_words > 1 &&
            strcmp(c->name + len + 1, words[1]) == 0) {
            *out = c;
            return ST_OK;
        }
        if (!group && strcmp(c->name, words[0]) == 0) {
            *out = c;
            return ST_OK;
        }
    }
    n = words_after(a, group ? words[0] : NULL, known);
    if (!group)
        return err_set(err, ST_REJECT, "there is no command '%.60s': %s (usagectl help)", words[0],
                       cli_suggest(a, words[0], known, n));
    if (n_words < 2)
        return err_set(err, ST_REJECT, "'%s' needs a word after it; %s", words[0],
                       cli_suggest(a, NULL, known, n));
    return err_set(err, ST_REJECT, "there is no command '%s %.60s': %s (usagectl help %s)",
                   words[0], words[1], cli_suggest(a, words[1], known, n), words[0]);
}

/* ---- taking apart ---- */

static size_t opts_of(const struct command *c, int out[N_OPTS])
{
    size_t n = 0;

    for (; c->opts[n] >= 0; n++)
        out[n] = c->opts[n];
    out[n++] = OPT_HELP;
    return n;
}

static enum status unknown_option(const struct command *c, struct arena *a, const char *word,
                                  struct err *err)
{
    const char *names[N_OPTS];
    int opts[N_OPTS];
    size_t n = opts_of(c, opts);
    const char *near;
    char name[64];

    for (size_t i = 0; i < n; i++)
        names[i] = opt_specs[opts[i]].name;
    word += strspn(word, "-");
    (void)snprintf(name, sizeof(name), "%.*s", (int)strcspn(word, "="), word);
    near = nearest_word(name, names, n);
    if (near)
        return err_set(err, ST_REJECT, "'%s' takes no option --%s: did you mean --%s?", c->name,
                       name, near);
    return err_set(err, ST_REJECT, "'%s' takes no option --%s: see usagectl help %s", c->name, name,
                   arena_copy(a, c->name, strlen(c->name)));
}

static enum status option_put(const struct command *c, struct args *out, int opt, const char *value,
                              struct err *err)
{
    if (opt == OPT_LABEL) {
        if (out->n_labels == ARGS_MAX)
            return err_set(err, ST_REJECT, "more than %d labels", ARGS_MAX);
        out->labels[out->n_labels++] = value;
    } else if (out->values[opt]) {
        return err_set(err, ST_REJECT, "'%s': --%s is given twice", c->name, opt_specs[opt].name);
    }
    out->values[opt] = value ? value : "";
    return ST_OK;
}

static enum status options_parse(const struct command *c, struct args *out, struct arena *a,
                                 int argc, char **argv, struct err *err)
{
    struct option longs[N_OPTS + 1] = {0};
    int opts[N_OPTS], at, got;
    size_t n = opts_of(c, opts);

    for (size_t i = 0; i < n; i++)
        longs[i] =
            (struct option){.name = opt_specs[opts[i]].name,
                            .has_arg = opt_specs[opts[i]].value ? required_argument : no_argument};
    optind = 0; /* anew, also after an earlier call */
    opterr = 0;
    while ((got = getopt_long(argc, argv, "-:h", longs, &at)) != -1) {
        const char *word = argv[optind > 0 ? optind - 1 : 0];

        if (got == 0)
            TRY(option_put(c, out, opts[at], optarg, err));
        else if (got == 'h')
            TRY(option_put(c, out, OPT_HELP, NULL, err));
        else if (got == 1 && out->n_words < ARGS_MAX)
            out->words[out->n_words++] = optarg;
        else if (got == ':')
            return err_set(err, ST_REJECT, "'%s': %.60s needs a value after it", c->name, word);
        else
            return unknown_option(c, a, word, err);
    }
    for (; optind < argc && out->n_words < ARGS_MAX; optind++)
        out->words[out->n_words++] = argv[optind];
    return ST_OK;
}

enum status command_parse(const struct command **command, struct args *out, struct arena *a,
                          int argc, char **argv, struct err *err)
{
    const char *words[2];
    size_t n = 0, used;

    *command = NULL;
    *out = (struct args){0};
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
        return ST_OK;
    if (strcmp(argv[1], "--version") == 0)
        return command_find(command, &used, a, (const char *const[]){"version"}, 1, err);
    if (argv[1][0] == '-')
        return err_set(err, ST_REJECT,
                       "the command comes first, its options after it: usagectl "
                       "help shows all commands");
    for (; n < 2 && (int)n + 1 < argc && argv[n + 1][0] != '-'; n++)
        words[n] = argv[n + 1];
    TRY(command_find(command, &used, a, words, n, err));
    /* getopt skips its first word: the last one of the command's name */
    TRY(options_parse(*command, out, a, argc - (int)used, argv + used, err));
    if (cli_has(out, OPT_HELP))
        return ST_OK;
    if (out->n_words < (*command)->words_min)
        return err_set(err, ST_REJECT, "'%s' needs %s", (*command)->name, (*command)->synopsis);
    if (out->n_words > (*command)->words_max)
        return err_set(err, ST_REJECT, "'%s': what is '%.60s' for? usagectl %s %s",
                       (*command)->name, out->words[(*command)->words_max], (*command)->name,
                       (*command)->synopsis);
    return ST_OK;
}

/* ---- help ---- */

static void help_list(struct buf *b, const char *group)
{
    for (size_t i = 0; i < n_commands; i++) {
        const struct command *c = &commands[i];

        if (!(c->flags & CLI_HIDDEN) && (!group || in_group(c, group)))
            buf_printf(b, "  %-20s %s\n", c->name, c->summary);
    }
}

const char *command_help(struct arena *a, const struct command *command)
{
    struct buf b = {.arena = a};
    int opts[N_OPTS];
    size_t n;

    if (!command) {
        buf_str(&b, "usage: usagectl COMMAND [options]\n\n");
        help_list(&b, NULL);
        buf_str(&b, "\nusagectl help COMMAND tells more. Settings come from the environment "
                    "(docs/config.md).\n"
                    "Exit status: 0 done, 1 the answer is no, 2 wrong use, 100 configuration, 111 "
                    "try again.\n");
        return b.at;
    }
    n = opts_of(command, opts);
    buf_printf(&b, "usage: usagectl %s %s\n%s\n\n", command->name, command->synopsis,
               command->summary);
    if (command->details)
        buf_printf(&b, "%s\n", command->details);
    for (size_t i = 0; i < n; i++) {
        const struct opt_spec *o = &opt_specs[opts[i]];
        const char *left =
            arena_printf(a, "--%s%s%s", o->name, o->value ? " " : "", o->value ? o->value : "");
        buf_printf(&b, "  %-20s %s\n", left, o->help);
    }
    return b.at;
}

enum status command_help_words(const char **out, struct arena *a, const char *const *words,
                               size_t n_words, struct err *err)
{
    const struct command *command = NULL;
    struct buf b = {.arena = a};
    size_t used;

    if (n_words == 1 && is_group(words[0])) {
        help_list(&b, words[0]);
        *out = b.at;
        return ST_OK;
    }
    if (n_words > 0)
        TRY(command_find(&command, &used, a, words, n_words, err));
    *out = command_help(a, command);
    return ST_OK;
}

enum status cmd_help(struct cli *cli, const struct args *args, struct err *err)
{
    const char *text;

    TRY(command_help_words(&text, cli->arena, args->words, args->n_words, err));
    (void)fputs(text, stdout);
    return ST_OK;
}
