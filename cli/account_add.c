/* account_add.c - account add (one, or many from a file) and account rotate-key: how keys come in.
 *
 * A key comes from the terminal without echo, from a file or from standard input; never from argv,
 * where others can see it. It is sealed before it goes to Postgres and is never printed. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <termios.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/table.h"
#include "common/json.h"
#include "common/providers/asking.h"

#define KEY_FILE_MAX      65536
#define ACCOUNTS_FILE_MAX (256 << 20)
#define INSERT_ROWS       2000 /* accounts of one statement */
#define FIELDS_MAX        8

/* An account to be added; all but the key is checked text in the arena. */
struct newcomer {
    struct text name, base_url;
    const struct provider *provider;
    const char *hint;
    struct text sealed;
    bool odd; /* its key does not look like one of this provider's */
};

/* ---- keys ---- */

/* Nothing to do: that it came ends the reading. */
static void on_signal(int signo)
{
    (void)signo;
}

/* Typed characters are shown again whatever ends the reading, Ctrl-C included. */
static enum status terminal_read(char *out, size_t size, const char *prompt, struct err *err)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP};
    const struct sigaction ours = {.sa_handler = on_signal}; /* no SA_RESTART */
    struct sigaction theirs[sizeof(signals) / sizeof(signals[0])];
    struct termios shown, hidden;
    bool got;

    if (tcgetattr(STDIN_FILENO, &shown) < 0)
        return err_set(err, ST_REJECT, "can not hide what is typed (%s): use --key-file",
                       strerror(errno));
    hidden = shown;
    hidden.c_lflag &= ~(tcflag_t)ECHO;
    hidden.c_lflag |= ECHONL;
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        (void)sigaction(signals[i], &ours, &theirs[i]);
    (void)fprintf(stderr, "%s", prompt);
    (void)fflush(stderr);
    got = tcsetattr(STDIN_FILENO, TCSAFLUSH, &hidden) == 0 && fgets(out, (int)size, stdin);
    (void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &shown);
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        (void)sigaction(signals[i], &theirs[i], NULL);
    if (got)
        return ST_OK;
    (void)fputs("\n", stderr);
    return err_set(err, ST_REJECT, "no key was typed; nothing was changed");
}

static enum status key_read(struct cli *cli, struct secret *out, const struct args *args,
                            const struct provider *provider, struct err *err)
{
    const char *path = args->values[OPT_KEY_FILE];
    struct text typed;
    char line[8192];
    enum status st;

    if (path) {
        TRY(cli_read_file(&typed, cli->arena, path, KEY_FILE_MAX, err));
        st = provider_key_clean(out, typed, err);
        return st == ST_OK ? ST_OK : err_prefix(err, "the key in %s", path);
    }
    if (!isatty(STDIN_FILENO))
        return err_set(err, ST_REJECT,
                       "no terminal to ask for the key: use --key-file FILE, or "
                       "--key-file - for standard input");
    (void)fprintf(stderr, "Key wanted: %s.\n", provider->key_help);
    st = terminal_read(line, sizeof(line), "Key (not shown): ", err);
    if (st == ST_OK)
        st = provider_key_clean(out, text_of(line), err);
    explicit_bzero(line, sizeof(line));
    return st;
}

static void warn_odd(const struct provider *provider, const char *whose)
{
    (void)fprintf(stderr, "usagectl: warning: %s not look as expected. Wanted: %s\n", whose,
                  provider->key_help);
}

static enum status key_seal(struct cli *cli, struct newcomer *n, const struct secret *key,
                            struct err *err)
{
    n->hint = provider_key_hint(cli->arena, key);
    n->odd =
        !key_is_kind(n->provider, key); /* worth a warning: providers change their keys' looks */
    return secret_seal(&n->sealed, cli->arena, cli->sealer, text_of(n->provider->name), n->name,
                       key, err);
}

/* ---- what was typed ---- */

static enum status provider_parse(const struct provider **out, struct arena *a, const char *name,
                                  struct err *err)
{
    const char **names = ARENA_ARRAY(a, n_providers, const char *);

    *out = provider_find(text_of(name));
    if (*out)
        return ST_OK;
    for (size_t i = 0; i < n_providers; i++)
        names[i] = providers[i]->name;
    return err_set(err, ST_REJECT, "this build has no provider '%.60s': %s", name,
                   cli_suggest(a, name, names, n_providers));
}

static enum status name_check(struct text name, struct err *err)
{
    static const char first[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    bool good = name.len > 0 && name.len <= 100 && strchr(first, name.at[0]) != NULL;

    for (size_t i = 0; good && i < name.len; i++)
        good = name.at[i] && (strchr(first, name.at[i]) || strchr("._-", name.at[i]));
    if (good)
        return ST_OK;
    return err_set(err, ST_REJECT,
                   "'%.*s' can not be an account's name: letters, digits, '.', '_' and '-', at "
                   "most 100, beginning with a letter or digit",
                   (int)(name.len < 100 ? name.len : 100), name.at);
}

static enum status base_url_check(struct cli *cli, struct newcomer *n, const char *url,
                                  struct err *err)
{
    const char *why;

    if (!url)
        url = n->provider->base_url;
    why = base_url_refused(cli->arena, url, cli->cfg.allow_http);
    if (why)
        return err_set(err, ST_REJECT, "%s", why);
    n->base_url = text_of(url);
    return ST_OK;
}

/* --label k=v ... as a JSON object. */
static enum status labels_parse(const char **out, struct arena *a, const struct args *args,
                                struct err *err)
{
    struct buf b = {.arena = a};
    struct json_writer w = {.out = &b};

    json_w_object(&w);
    for (size_t i = 0; i < args->n_labels; i++) {
        const char *label = args->labels[i], *eq = strchr(label, '=');

        if (!eq || eq == label)
            return err_set(err, ST_REJECT, "--label %.60s: write --label name=value", label);
        json_w_key_text(&w, (struct text){label, (size_t)(eq - label)});
        json_w_str(&w, eq + 1);
    }
    json_w_end(&w);
    *out = b.at;
    return ST_OK;
}

/* ---- into the table ---- */

static enum status name_taken(struct text name, struct err *err)
{
    return err_set(err, ST_REJECT,
                   "there is an account %.*s already: usagectl account rotate-key %.*s gives it a "
                   "new key, account remove forgets it",
                   (int)name.len, name.at, (int)name.len, name.at);
}

static enum status insert_some(struct cli *cli, const struct newcomer *n, size_t count,
                               const char *labels, struct err *err)
{
    struct pg_array names, providers_, urls, sealed, hints;
    struct pg_params p = {0};
    struct arena *a = arena_new();
    struct pg_array *const arrays[] = {&names, &providers_, &urls, &sealed, &hints};
    PGresult *r;
    enum status st;

    for (size_t i = 0; i < 5; i++)
        pg_array_open(arrays[i], a);
    for (size_t i = 0; i < count; i++) {
        pg_array_text(&names, n[i].name);
        pg_array_text(&providers_, text_of(n[i].provider->name));
        pg_array_text(&urls, n[i].base_url);
        pg_array_bytea(&sealed, n[i].sealed);
        pg_array_text(&hints, text_of(n[i].hint));
    }
    for (size_t i = 0; i < 5; i++)
        pg_param_text(&p, pg_array_close(arrays[i]));
    pg_param_text(&p, labels);
    st = pg_query(cli->pg, &r, a,
                  "WITH new (name, provider, base_url, sealed, hint) AS (SELECT * FROM "
                  "unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::text[])), "
                  "put AS (INSERT INTO accounts (name, provider, base_url, key_ciphertext, "
                  "key_hint, labels) SELECT name, provider, base_url, sealed, hint, $6::jsonb FROM "
                  "new ON CONFLICT (name) DO NOTHING RETURNING name) "
                  "SELECT name, false FROM (SELECT name FROM new EXCEPT SELECT name FROM put) old "
                  "UNION ALL SELECT name, true FROM new GROUP BY name HAVING count(*) > 1 "
                  "ORDER BY 2 DESC LIMIT 1",
                  &p, err);
    if (st == ST_OK && PQntuples(r) > 0 && PQgetvalue(r, 0, 1)[0] == 't')
        st = err_set(err, ST_REJECT, "%s is there twice", PQgetvalue(r, 0, 0));
    else if (st == ST_OK && PQntuples(r) > 0)
        st = name_taken(pg_text(r, 0, 0), err);
    arena_free(&a);
    return st;
}

static enum status insert_all(struct cli *cli, const struct newcomer *n, size_t count,
                              const char *labels, struct err *err)
{
    TRY(cli_database(cli, err));
    for (size_t at = 0; at < count; at += INSERT_ROWS)
        TRY(insert_some(cli, n + at, count - at < INSERT_ROWS ? count - at : INSERT_ROWS, labels,
                        err));
    return pg_commit(cli->pg, err);
}

/* ---- many ---- */

/* NAME,PROVIDER,BASE_URL,KEY, or with --provider NAME,KEY; an empty field takes the option's or the
 * provider's own value. */
static enum status line_parse(struct cli *cli, struct newcomer *out, const struct args *args,
                              struct text line, struct err *err)
{
    const char *provider = args->values[OPT_PROVIDER], *url = args->values[OPT_BASE_URL];
    struct text fields[FIELDS_MAX];
    struct secret key = {0};
    size_t n;
    enum status st;

    TRY(csv_split(fields, &n, FIELDS_MAX, cli->arena, line, err));
    if (n != 4 && !(n == 2 && provider))
        return err_set(err, ST_REJECT, "%zu fields: write NAME,PROVIDER,BASE_URL,KEY%s", n,
                       provider ? " or NAME,KEY" : ", or NAME,KEY with --provider");
    if (n == 4 && fields[1].len > 0)
        provider = fields[1].at;
    if (n == 4 && fields[2].len > 0)
        url = fields[2].at;
    if (!provider)
        return err_set(err, ST_REJECT, "no provider: write it as the second field, or --provider");
    out->name = fields[0];
    TRY(name_check(out->name, err));
    TRY(provider_parse(&out->provider, cli->arena, provider, err));
    TRY(base_url_check(cli, out, url, err));
    TRY(provider_key_clean(&key, fields[n - 1], err));
    st = key_seal(cli, out, &key, err);
    secret_wipe(&key);
    return st;
}

/* One line, however many there are. */
static void warn_odd_ones(struct arena *a, const struct newcomer *n, size_t count)
{
    const struct newcomer *first = NULL;
    size_t odd = 0;

    for (size_t i = 0; i < count; i++) {
        odd += n[i].odd;
        if (n[i].odd && !first)
            first = &n[i];
    }
    if (first)
        warn_odd(first->provider,
                 odd == 1 ? arena_printf(a, "the key of %s does", first->name.at)
                          : arena_printf(a, "the keys of %zu accounts (the first: %s) do", odd,
                                         first->name.at));
}

static bool is_heading(struct text line)
{
    return line.len >= 5 && strncasecmp(line.at, "name,", 5) == 0;
}

static enum status add_many(struct cli *cli, const struct args *args, const char *labels,
                            struct err *err)
{
    const char *path = args->values[OPT_FROM_FILE];
    struct newcomer *n;
    struct text all, rest, line;
    size_t count = 0, number = 0, lines = 1;

    TRY(cli_read_file(&all, cli->arena, path, ACCOUNTS_FILE_MAX, err));
    for (size_t i = 0; i < all.len; i++)
        lines += all.at[i] == '\n';
    n = ARENA_ARRAY(cli->arena, lines, struct newcomer);
    for (rest = all; line_next(&line, &rest);) {
        number++;
        if (line.len == 0 || line.at[0] == '#' || (number == 1 && is_heading(line)))
            continue;
        if (line_parse(cli, &n[count++], args, line, err) != ST_OK)
            return err_prefix(err, "%s, line %zu; no account was added", path, number);
    }
    if (count == 0)
        return err_set(err, ST_REJECT, "%s holds no account", path);
    if (insert_all(cli, n, count, labels, err) != ST_OK)
        return err_prefix(err, "no account was added");
    warn_odd_ones(cli->arena, n, count);
    (void)printf("added %zu account%s\n", count, count == 1 ? "" : "s");
    return ST_OK;
}

/* ---- one ---- */

/* Asks for the key of `n` and seals it. No transaction is open meanwhile: a person may be typing.
 */
static enum status key_take(struct cli *cli, struct newcomer *n, const struct args *args,
                            struct err *err)
{
    struct secret key = {0};
    enum status st;

    pg_rollback(cli->pg);
    TRY(key_read(cli, &key, args, n->provider, err));
    st = key_seal(cli, n, &key, err);
    secret_wipe(&key);
    TRY(st);
    if (n->odd)
        warn_odd(n->provider, "this key does");
    return ST_OK;
}

static enum status add_one(struct cli *cli, const struct args *args, const char *labels,
                           struct err *err)
{
    struct newcomer n = {.name = text_of(args->words[0])};
    struct pg_params p = {0};
    PGresult *r;

    TRY(name_check(n.name, err));
    TRY(provider_parse(&n.provider, cli->arena, args->values[OPT_PROVIDER], err));
    TRY(base_url_check(cli, &n, args->values[OPT_BASE_URL], err));
    TRY(cli_database(cli, err));
    pg_param_text(&p, n.name.at);
    TRY(pg_query(cli->pg, &r, cli->arena, "SELECT 1 FROM accounts WHERE name = $1", &p, err));
    if (PQntuples(r) > 0)
        return name_taken(n.name, err);
    TRY(key_take(cli, &n, args, err));
    TRY(insert_all(cli, &n, 1, labels, err));
    (void)printf("added %s (%s, key %s)\n", n.name.at, n.provider->name, n.hint);
    return ST_OK;
}

enum status cmd_account_add(struct cli *cli, const struct args *args, struct err *err)
{
    const char *labels = NULL;

    TRY(labels_parse(&labels, cli->arena, args, err));
    if (cli_has(args, OPT_FROM_FILE)) {
        if (args->n_words > 0 || cli_has(args, OPT_KEY_FILE))
            return err_set(err, ST_REJECT,
                           "--from-file brings names and keys: leave out NAME and --key-file");
        TRY(cli_sealer(cli, err));
        return add_many(cli, args, labels, err);
    }
    if (args->n_words == 0)
        return err_set(err, ST_REJECT,
                       "'account add' needs the account's NAME (a word of your own), or "
                       "--from-file");
    if (!cli_has(args, OPT_PROVIDER))
        return err_set(err, ST_REJECT,
                       "whose account is it? Add --provider P; usagectl providers lists them");
    TRY(cli_sealer(cli, err));
    return add_one(cli, args, labels, err);
}

/* ---- a new key ---- */

enum status cmd_account_rotate_key(struct cli *cli, const struct args *args, struct err *err)
{
    struct newcomer n = {.name = text_of(args->words[0])};
    struct pg_params p = {0};
    PGresult *r;

    TRY(cli_sealer(cli, err));
    TRY(cli_database(cli, err));
    TRY(cli_account_known(cli, args->words[0], err));
    pg_param_text(&p, args->words[0]);
    TRY(pg_query(cli->pg, &r, cli->arena, "SELECT provider FROM accounts WHERE name = $1", &p,
                 err));
    TRY(provider_parse(&n.provider, cli->arena, PQgetvalue(r, 0, 0), err));
    TRY(key_take(cli, &n, args, err));
    TRY(cli_database(cli, err));
    pg_param_binary(&p, 17 /* bytea */, n.sealed.at, n.sealed.len);
    pg_param_text(&p, n.hint);
    /* Due now, feed by feed, so that trouble with the old key ends as soon as it can. */
    TRY(pg_query(cli->pg, NULL, NULL,
                 "WITH a AS (UPDATE accounts SET key_ciphertext = $2, key_hint = $3, updated_at = "
                 "now(), next_due = CASE WHEN lease_until > now() THEN next_due ELSE now() END "
                 "WHERE name = $1 RETURNING account_id), o AS (UPDATE owed_windows w "
                 "SET next_try_at = now() FROM a WHERE w.account_id = a.account_id "
                 "AND w.state = 'pending') "
                 "UPDATE account_feeds f SET next_due = now() FROM a WHERE f.account_id = "
                 "a.account_id",
                 &p, err));
    TRY(pg_commit(cli->pg, err));
    (void)printf("%s has the key %s now and is read at once\n", n.name.at, n.hint);
    return ST_OK;
}
