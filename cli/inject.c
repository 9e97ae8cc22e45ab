#include "cli/inject.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/progress.h"
#include "cli/table.h"
#include "common/clock.h"
#include "common/providers/provider.h"

#define FILE_MAX (64 << 20)

/* ---- what was typed ---- */

static enum status window_parse(struct injection *in, struct text from, struct text to,
                                int64_t now_us, struct err *err)
{
    char a[TIME_TEXT_MAX], b[TIME_TEXT_MAX];

    if (time_parse_since(&in->from_us, from, now_us, err) != ST_OK)
        return err_prefix(err, "from");
    if (time_parse_since(&in->to_us, to, now_us, err) != ST_OK)
        return err_prefix(err, "to");
    in->from_us = time_floor_us(in->from_us, 1);
    in->to_us = time_ceil_us(in->to_us, 1);
    if (in->from_us >= in->to_us)
        return err_set(err, ST_REJECT, "from (%s) must lie before to (%s)",
                       time_format(a, in->from_us), time_format(b, in->to_us));
    if (in->from_us >= now_us)
        return err_set(err, ST_REJECT, "from (%s) lies in the future: nothing was used there yet",
                       time_format(a, in->from_us));
    return ST_OK;
}

static enum status json_injection(struct text out[4], struct arena *a, struct text line,
                                  struct err *err)
{
    static const char *const names[] = {"account", "feed", "from", "to"};
    struct json_doc doc;

    TRY(json_parse(&doc, a, line, err));
    if (!json_is(doc.root, JSON_OBJECT))
        return err_set(err, ST_REJECT, "write one JSON object a line");
    for (const struct json *m = doc.root->first; m; m = m->next) {
        size_t i = 0;

        while (i < 4 && !text_is(m->key, names[i]))
            i++;
        if (i == 4 && !text_is(m->key, "cmd"))
            return err_set(err, ST_REJECT, "unknown member \"%.*s\": %s",
                           (int)(m->key.len < 60 ? m->key.len : 60), m->key.at,
                           cli_suggest(a, arena_copy(a, m->key.at, m->key.len), names, 4));
        if (i < 4 && m->type != JSON_STRING && m->type != JSON_NULL)
            return err_set(err, ST_REJECT, "\"%s\" must be a text", names[i]);
        if (i < 4)
            out[i] = json_string(m);
    }
    return ST_OK;
}

enum status injection_parse(struct injection *out, struct arena *a, struct text line,
                            int64_t now_us, struct err *err)
{
    struct text fields[4] = {TEXT_NULL, TEXT_NULL, TEXT_NULL, TEXT_NULL};
    size_t n;

    *out = (struct injection){0};
    if (memchr(line.at, '\0', line.len))
        return err_set(err, ST_REJECT, "a zero byte: is this a text file in UTF-8?");
    if (line.at[strspn(line.at, " \t")] == '{') {
        TRY(json_injection(fields, a, line, err));
    } else {
        TRY(csv_split(fields, &n, 4, a, line, err));
        if (n != 4)
            return err_set(err, ST_REJECT, "%zu fields: write ACCOUNT,FEED,FROM,TO, or JSON", n);
    }
    if (fields[0].len == 0)
        return err_set(err, ST_REJECT, "no account");
    if (fields[2].len == 0 || fields[3].len == 0)
        return err_set(err, ST_REJECT, "no %s", fields[2].len == 0 ? "from" : "to");
    out->account = arena_copy(a, fields[0].at, fields[0].len);
    out->feed = fields[1].len ? arena_copy(a, fields[1].at, fields[1].len) : NULL;
    return window_parse(out, fields[2], fields[3], now_us, err);
}

/* Account and feed, where there is a database to ask; the scheduler looks again. */
static enum status injection_check(struct cli *cli, const struct injection *in, struct err *err)
{
    struct pg_params p = {0};
    const struct provider *provider;
    const char *names[64];
    PGresult *r;
    size_t n = 0;

    if (!cli->cfg.database_url)
        return ST_OK;
    TRY(cli_account_known(cli, in->account, err));
    pg_param_text(&p, in->account);
    TRY(pg_query(cli->pg, &r, cli->arena, "SELECT provider, enabled FROM accounts WHERE name = $1",
                 &p, err));
    if (PQgetvalue(r, 0, 1)[0] != 't')
        return err_set(err, ST_REJECT, "account %s is disabled: usagectl account enable %s",
                       in->account, in->account);
    provider = provider_find(pg_text(r, 0, 0));
    if (!in->feed || !provider || feed_find(provider, text_of(in->feed)))
        return ST_OK;
    for (; n < provider->n_feeds && n < 64; n++)
        names[n] = provider->feeds[n].name;
    return err_set(err, ST_REJECT, "%s has no feed '%.60s': %s", provider->name, in->feed,
                   cli_suggest(cli->arena, in->feed, names, n));
}

/* ---- sending ---- */

enum status injection_send(struct injection *in, struct cli *cli, struct control *control,
                           struct err *err)
{
    char from[TIME_TEXT_MAX], to[TIME_TEXT_MAX];
    const char *const members[][2] = {{"account", in->account},
                                      {"feed", in->feed},
                                      {"from", time_format(from, in->from_us)},
                                      {"to", time_format(to, in->to_us)},
                                      {NULL, NULL}};
    const struct json *answer;
    struct text id;
    int64_t jobs;

    TRY(control_ask(control, &answer, cli->arena, control_request(cli->arena, "inject", members),
                    CONTROL_WAIT_US, err));
    id = json_string(json_member(answer, "run_id"));
    jobs = answer_int(answer, "jobs");
    in->run_id = arena_copy(cli->arena, id.at ? id.at : "", id.len);
    (void)printf("run %s: %s %s, %s to %s, %" PRId64 " job%s\n", in->run_id, in->account,
                 in->feed ? in->feed : "all feeds", from, to, jobs, jobs == 1 ? "" : "s");
    (void)fflush(stdout);
    return ST_OK;
}

static enum status send_all(struct cli *cli, struct control *control, struct injection *list,
                            size_t n, bool wait, struct err *err)
{
    for (size_t i = 0; i < n; i++)
        if (injection_send(&list[i], cli, control, err) != ST_OK)
            return i == 0 ? err->status
                          : err_prefix(err, "%zu of %zu injections were sent, and then", i, n);
    for (size_t i = 0; wait && i < n; i++) {
        const char *label =
            n == 1 ? "" : arena_printf(cli->arena, "injection %zu of %zu: ", i + 1, n);
        bool failed = false;

        TRY(progress_wait(cli, control, list[i].run_id, label, &failed, err));
        cli->answer_is_no |= failed;
    }
    return ST_OK;
}

/* ---- the command ---- */

static enum status read_list(struct cli *cli, const char *path, struct injection **out, size_t *n,
                             struct err *err)
{
    struct text all, rest, line;
    size_t lines = 1, number = 0;
    int64_t now = clock_utc_us();

    TRY(cli_read_file(&all, cli->arena, path, FILE_MAX, err));
    for (size_t i = 0; i < all.len; i++)
        lines += all.at[i] == '\n';
    *out = ARENA_ARRAY(cli->arena, lines, struct injection);
    *n = 0;
    for (rest = all; line_next(&line, &rest);) {
        number++;
        line.at = arena_copy(cli->arena, line.at, line.len);
        if (line.len == 0 || line.at[0] == '#' ||
            (number == 1 && line.len >= 8 && memcmp(line.at, "account,", 8) == 0))
            continue;
        if (injection_parse(&(*out)[*n], cli->arena, line, now, err) != ST_OK ||
            injection_check(cli, &(*out)[*n], err) != ST_OK)
            return err_prefix(err, "%s, line %zu; nothing was sent", path, number);
        (*n)++;
    }
    return *n > 0 ? ST_OK : err_set(err, ST_REJECT, "%s holds no injection", path);
}

static enum status read_one(struct cli *cli, const struct args *args, struct injection *out,
                            struct err *err)
{
    static const struct {
        enum opt opt;
        const char *missing;
    } needed[] = {{OPT_ACCOUNT, "--account NAME"},
                  {OPT_FROM, "--from TIME"},
                  {OPT_TO, "--to TIME (or: --to now)"}};

    for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++)
        if (!cli_has(args, needed[i].opt))
            return err_set(err, ST_REJECT, "'inject' needs %s", needed[i].missing);
    *out = (struct injection){.account = args->values[OPT_ACCOUNT], .feed = args->values[OPT_FEED]};
    if (window_parse(out, text_of(args->values[OPT_FROM]), text_of(args->values[OPT_TO]),
                     clock_utc_us(), err) != ST_OK)
        return err_prefix(err, "inject");
    return injection_check(cli, out, err);
}

static enum status read_any(struct cli *cli, const struct args *args, struct injection **list,
                            size_t *n, struct err *err)
{
    if (cli->cfg.database_url)
        TRY(cli_database(cli, err));
    if (cli_has(args, OPT_FILE)) {
        if (cli_has(args, OPT_ACCOUNT) || cli_has(args, OPT_FEED) || cli_has(args, OPT_FROM) ||
            cli_has(args, OPT_TO))
            return err_set(err, ST_REJECT,
                           "--file brings account, feed, from and to: leave out "
                           "the other options");
        TRY(read_list(cli, args->values[OPT_FILE], list, n, err));
    } else {
        *list = ARENA_NEW(cli->arena, struct injection);
        *n = 1;
        TRY(read_one(cli, args, *list, err));
    }
    return cli->pg ? pg_commit(cli->pg, err) : ST_OK;
}

enum status cmd_inject(struct cli *cli, const struct args *args, struct err *err)
{
    struct injection *list = NULL;
    struct control *control = NULL;
    size_t n = 0;
    enum status st;

    TRY(read_any(cli, args, &list, &n, err));
    st = control_open(&control, &cli->cfg, err);
    if (st == ST_OK)
        st = send_all(cli, control, list, n, cli_has(args, OPT_WAIT), err);
    control_close(&control);
    return st;
}
