/* keygen.c - keygen, version, config-markdown: what needs neither settings nor database. */
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <zmq.h>

#include "cli/cli.h"
#include "cli/migrations.h"
#include "common/version.h"

#define Z85_KEY 41 /* 40 characters and the end */

static enum status keygen_curve(struct err *err)
{
    char public_key[Z85_KEY], secret_key[Z85_KEY];

    if (zmq_curve_keypair(public_key, secret_key) != 0)
        return err_set(err, ST_FATAL, "this libzmq has no CURVE");
    (void)printf("public %s\nsecret %s\n", public_key, secret_key);
    explicit_bzero(secret_key, sizeof(secret_key));
    return ST_OK;
}

enum status cmd_keygen(struct cli *cli, const struct args *args, struct err *err)
{
    unsigned char key[ENCRYPTION_KEY_LEN], text[ENCRYPTION_KEY_LEN * 2];

    (void)cli;
    if (cli_has(args, OPT_CURVE))
        return keygen_curve(err);
    random_bytes(key, sizeof(key));
    (void)EVP_EncodeBlock(text, key, (int)sizeof(key));
    (void)printf("%s\n", (const char *)text);
    explicit_bzero(key, sizeof(key));
    explicit_bzero(text, sizeof(text));
    return ST_OK;
}

enum status cmd_version(struct cli *cli, const struct args *args, struct err *err)
{
    (void)cli;
    (void)args;
    (void)err;
    (void)printf("usagectl " UF_VERSION " (schema version %d)\n",
                 migrations[n_migrations - 1].version);
    return ST_OK;
}

enum status cmd_config_markdown(struct cli *cli, const struct args *args, struct err *err)
{
    (void)cli;
    (void)args;
    (void)err;
    config_write_markdown(stdout);
    return ST_OK;
}
