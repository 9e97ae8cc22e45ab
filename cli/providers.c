/* providers.c - providers: whose usage this build can read, and by which key. */
#include "cli/cli.h"
#include "cli/table.h"
#include "common/providers/provider.h"

static const char *feed_names(struct arena *a, const struct provider *p)
{
    struct buf out = {.arena = a};

    for (size_t i = 0; i < p->n_feeds; i++)
        buf_printf(&out, "%s%s", i ? " " : "", p->feeds[i].name);
    return out.at;
}

enum status cmd_providers(struct cli *cli, const struct args *args, struct err *err)
{
    enum table_format format;
    struct table t;

    TRY(table_format_parse(&format, cli->arena, args->values[OPT_FORMAT], err));
    if (format == FORMAT_TABLE) {
        for (size_t i = 0; i < n_providers; i++)
            (void)printf("%s%s (%s, %s)\n  key:   %s\n  feeds: %s\n", i ? "\n" : "",
                         providers[i]->name, providers[i]->title, providers[i]->base_url,
                         providers[i]->key_help, feed_names(cli->arena, providers[i]));
        return ST_OK;
    }
    table_open(&t, cli->arena);
    table_column(&t, "provider", COLUMN_TEXT);
    table_column(&t, "key_variable", COLUMN_TEXT);
    table_column(&t, "base_url", COLUMN_TEXT);
    table_column(&t, "key", COLUMN_TEXT);
    table_column(&t, "feeds", COLUMN_TEXT);
    for (size_t i = 0; i < n_providers; i++) {
        table_str(&t, providers[i]->name);
        table_str(&t, providers[i]->key_variable);
        table_str(&t, providers[i]->base_url);
        table_str(&t, providers[i]->key_help);
        table_str(&t, feed_names(cli->arena, providers[i]));
    }
    table_print(&t, format, stdout);
    return ST_OK;
}
