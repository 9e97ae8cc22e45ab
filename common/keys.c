#include "common/keys.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zmq.h>

#include "common/arena.h"
#include "common/log.h"

#define FILE_MAX (64UL * 1024)
#define WHERE    "(docs/operations.md, \"Keys of the links\")"

/* In the order of the label values of links_refused_total. */
const struct link_ends link_ends[] = {
    {"jobs", STAGE_SCHEDULER, STAGE_FETCHER, true},
    {"pages", STAGE_NORMALIZER, STAGE_FETCHER, true},
    {"records", STAGE_WRITER, STAGE_NORMALIZER, true},
    {"acks", STAGE_SCHEDULER, STAGE_WRITER, true},
    {"control", STAGE_SCHEDULER, STAGE_CLI | STAGE_GATEWAY, false},
    {"pulse", STAGE_SCHEDULER | STAGE_FETCHER | STAGE_NORMALIZER | STAGE_WRITER,
     STAGE_CLI | STAGE_GATEWAY, false},
};
const size_t n_link_ends = sizeof(link_ends) / sizeof(link_ends[0]);

struct keys {
    const char *path; /* borrowed from the settings */
    unsigned char secret[CURVE_KEY_LEN], public[CURVE_KEY_LEN];
    struct key_list list;
    struct stat seen; /* the file as it was read last */
    bool refused;     /* it could not be understood, and that was said */
};

size_t link_ends_find(struct text link)
{
    size_t i = 0;

    while (i < n_link_ends && !text_is(link, link_ends[i].link))
        i++;
    return i;
}

/* ---- one key ---- */

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static struct text trimmed(struct text t)
{
    while (t.len > 0 && is_blank(t.at[0])) {
        t.at++;
        t.len--;
    }
    while (t.len > 0 && is_blank(t.at[t.len - 1]))
        t.len--;
    return t;
}

/* libzmq's decoder takes what overflows its 32 bits, so that two texts would be one key: what is
 * encoded again must be the same. */
static bool key_decode(unsigned char out[CURVE_KEY_LEN], struct text t)
{
    char text[CURVE_TEXT_LEN + 1] = "", again[CURVE_TEXT_LEN + 1] = "";
    bool good = false;

    if (t.len == CURVE_TEXT_LEN && !memchr(t.at, '\0', t.len)) {
        memcpy(text, t.at, t.len);
        good = zmq_z85_decode(out, text) && zmq_z85_encode(again, out, CURVE_KEY_LEN) &&
               strcmp(text, again) == 0;
    }
    explicit_bzero(text, sizeof(text));
    explicit_bzero(again, sizeof(again));
    return good;
}

enum status curve_key_parse(struct secret *out, struct text t, struct err *err)
{
    unsigned char key[CURVE_KEY_LEN];

    if (!key_decode(key, trimmed(t)))
        return err_set(err, ST_FATAL,
                       "write the 40 characters that \"usagectl keygen --curve\" prints after "
                       "\"secret\"");
    *out = secret_copy(key, sizeof(key));
    explicit_bzero(key, sizeof(key));
    return ST_OK;
}

void curve_key_print(char out[CURVE_TEXT_LEN + 1], const unsigned char key[CURVE_KEY_LEN])
{
    (void)zmq_z85_encode(out, key, CURVE_KEY_LEN);
}

/* ---- the file ---- */

static struct text word_next(struct text *line)
{
    struct text word = trimmed(*line);
    size_t len = 0;

    while (len < word.len && !is_blank(word.at[len]))
        len++;
    line->len = word.len - len;
    line->at = word.at + len;
    word.len = len;
    return word;
}

/* The names of `roles`, for people: "scheduler or fetcher". */
static const char *role_names(char *out, size_t size, unsigned roles)
{
    size_t len = 0;

    out[0] = '\0';
    for (unsigned bit = 1; bit <= STAGE_ALL && len < size; bit <<= 1)
        if (roles & bit)
            len +=
                (size_t)snprintf(out + len, size - len, "%s%s", len ? " or " : "", stage_name(bit));
    return out;
}

static enum status line_refuse(size_t number, const char *what, struct text word, struct err *err)
{
    char names[100];

    return err_set(err, ST_REJECT, "line %zu: %s%.*s; write ROLE PUBLIC_KEY, the role being %s",
                   number, what, (int)(word.len < 40 ? word.len : 40), word.at ? word.at : "",
                   role_names(names, sizeof(names), STAGE_ALL));
}

static enum status key_add(struct key_list *out, unsigned role, const unsigned char *key,
                           size_t number, struct err *err)
{
    for (size_t i = 0; i < out->n; i++) {
        if (memcmp(out->keys[i].at, key, CURVE_KEY_LEN) != 0)
            continue;
        if (out->keys[i].role == role)
            return ST_OK;
        return err_set(
            err, ST_REJECT,
            "line %zu: this key is listed for two roles: make each role a key of its own", number);
    }
    if (out->n == KEYS_MAX)
        return err_set(err, ST_REJECT, "line %zu: more than %d keys: remove the old ones", number,
                       KEYS_MAX);
    out->keys[out->n].role = role;
    memcpy(out->keys[out->n].at, key, CURVE_KEY_LEN);
    out->n++;
    return ST_OK;
}

/* A key may hold a '#', so a comment begins only where a word does, and never in the key's place.
 */
static enum status line_parse(struct key_list *out, struct text line, size_t number,
                              struct err *err)
{
    unsigned char key[CURVE_KEY_LEN];
    struct text role = word_next(&line), text, rest;
    unsigned bit;

    if (role.len == 0 || role.at[0] == '#')
        return ST_OK;
    bit = stage_of_name(role);
    if (bit == 0)
        return line_refuse(number, "there is no role ", role, err);
    text = word_next(&line);
    if (!key_decode(key, text))
        return line_refuse(number, text.len == 0 ? "a public key is missing" : "no public key",
                           TEXT_NULL, err);
    rest = word_next(&line);
    if (rest.len > 0 && rest.at[0] != '#')
        return line_refuse(number, "something follows the key", TEXT_NULL, err);
    return key_add(out, bit, key, number, err);
}

enum status key_list_parse(struct key_list *out, struct text file, struct err *err)
{
    out->n = 0;
    for (size_t number = 1; file.len > 0; number++) {
        const char *end = memchr(file.at, '\n', file.len);
        size_t len = end ? (size_t)(end - file.at) : file.len;

        TRY(line_parse(out, (struct text){file.at, len}, number, err));
        len += end ? 1 : 0;
        file.at += len;
        file.len -= len;
    }
    return ST_OK;
}

static enum status file_read(struct key_list *out, const char *path, struct err *err)
{
    char *bytes = xalloc(FILE_MAX + 1, 1);
    FILE *f = fopen(path, "re");
    enum status st;
    size_t len;

    if (!f) {
        free(bytes);
        return err_set(err, ST_FATAL, "can not read this file: %s", strerror(errno));
    }
    len = fread(bytes, 1, FILE_MAX + 1, f);
    if (ferror(f))
        st = err_set(err, ST_FATAL, "can not read this file: %s", strerror(errno));
    else if (len > FILE_MAX)
        st = err_set(err, ST_FATAL, "larger than %lu bytes: not a file of keys", FILE_MAX);
    else
        st = key_list_parse(out, (struct text){bytes, len}, err);
    (void)fclose(f);
    free(bytes);
    return st;
}

/* ---- the keys of a process ---- */

static void public_of(unsigned char out[CURVE_KEY_LEN], const unsigned char secret[CURVE_KEY_LEN])
{
    char secret_text[CURVE_TEXT_LEN + 1], public_text[CURVE_TEXT_LEN + 1] = "";

    (void)zmq_z85_encode(secret_text, secret, CURVE_KEY_LEN);
    (void)zmq_curve_public(public_text, secret_text);
    (void)zmq_z85_decode(out, public_text);
    explicit_bzero(secret_text, sizeof(secret_text));
}

static enum status own_key_check(const struct keys *k, const struct config *cfg, struct err *err)
{
    unsigned role = keys_role(k, k->public);
    const char *name = stage_name(cfg->stage);
    char text[CURVE_TEXT_LEN + 1];

    if (role == cfg->stage)
        return ST_OK;
    curve_key_print(text, k->public);
    if (role != 0)
        return err_set(err, ST_FATAL,
                       "UF_CURVE_SECRET is the secret of the %s, and this is the %s: give each its "
                       "own " WHERE,
                       stage_name(role), name ? name : "");
    return err_set(err, ST_FATAL,
                   "UF_CURVE_KEYS=%s does not list the public key of UF_CURVE_SECRET: add the line "
                   "\"%s %s\", or give the secret that belongs to a listed key",
                   k->path, name ? name : "", text);
}

enum status keys_open(struct keys **out, const struct config *cfg, struct err *err)
{
    struct keys *k = xalloc(1, sizeof(*k));

    *out = k;
    if (cfg->curve_secret.len != CURVE_KEY_LEN)
        return err_set(err, ST_FATAL,
                       "UF_CURVE_SECRET is not set: make a pair of keys with \"usagectl keygen "
                       "--curve\" " WHERE);
    if (!cfg->curve_keys)
        return err_set(err, ST_FATAL,
                       "UF_CURVE_KEYS is not set: name the file that lists everybody's public "
                       "keys " WHERE);
    k->path = cfg->curve_keys;
    memcpy(k->secret, cfg->curve_secret.at, CURVE_KEY_LEN);
    public_of(k->public, k->secret);
    (void)stat(k->path, &k->seen); /* before: what changes meanwhile is read again */
    if (file_read(&k->list, k->path, err) != ST_OK) {
        (void)err_prefix(err, "UF_CURVE_KEYS=%.200s", k->path);
        return err->status = ST_FATAL;
    }
    return own_key_check(k, cfg, err);
}

void keys_close(struct keys **k)
{
    if (!*k)
        return;
    explicit_bzero(*k, sizeof(**k));
    free(*k);
    *k = NULL;
}

enum status keys_check_link(const struct keys *k, size_t link, bool binds, struct err *err)
{
    const struct link_ends *ends = &link_ends[link];
    unsigned others = binds ? ends->connect : ends->bind;
    char names[80];

    if ((binds && !ends->needed) || keys_of(k, others, 0))
        return ST_OK;
    return err_set(err, ST_FATAL,
                   "UF_CURVE_KEYS=%s lists no key of a %s, which this process needs for the link "
                   "'%s': add the line ROLE PUBLIC_KEY " WHERE,
                   k->path, role_names(names, sizeof(names), others), ends->link);
}

static bool same_file(const struct stat *a, const struct stat *b)
{
    return a->st_ino == b->st_ino && a->st_dev == b->st_dev && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

/* One that was refused may have been half written, so it is looked at until it is whole. */
bool keys_refresh(struct keys *k)
{
    struct key_list *list;
    struct stat now = {0};
    struct err err = {0};
    bool changed = false;

    (void)stat(k->path, &now);
    if (same_file(&now, &k->seen) && !k->refused)
        return false;
    list = xalloc(1, sizeof(*list));
    if (file_read(list, k->path, &err) == ST_OK) {
        k->list = *list;
        k->refused = false;
        changed = true;
    } else if (!k->refused) {
        k->refused = true;
        LOG(WARN, "keys.refused", KV("file", k->path), KV("error", err.text),
            KV("now", "the keys that were read before stay in force"));
    }
    k->seen = now;
    free(list);
    return changed;
}

size_t keys_count(const struct keys *k)
{
    return k->list.n;
}

const unsigned char *keys_secret(const struct keys *k)
{
    return k->secret;
}

const unsigned char *keys_public(const struct keys *k)
{
    return k->public;
}

unsigned keys_role(const struct keys *k, const unsigned char key[CURVE_KEY_LEN])
{
    for (size_t i = 0; i < k->list.n; i++)
        if (memcmp(k->list.keys[i].at, key, CURVE_KEY_LEN) == 0)
            return k->list.keys[i].role;
    return 0;
}

const struct listed_key *keys_of(const struct keys *k, unsigned roles, size_t i)
{
    for (size_t at = 0; at < k->list.n; at++)
        if ((k->list.keys[at].role & roles) && i-- == 0)
            return &k->list.keys[at];
    return NULL;
}
