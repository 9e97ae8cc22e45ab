#include "common/wire.h"

#include <inttypes.h>
#include <msgpack.h>

#include "common/secret.h"

/* ---- uuid ---- */

void uuid_random(struct uuid *out)
{
    random_bytes(out->at, sizeof(out->at));
    out->at[6] = (uint8_t)((out->at[6] & 0x0f) | 0x40);
    out->at[8] = (uint8_t)((out->at[8] & 0x3f) | 0x80);
    out->at[0] |= 1; /* ZeroMQ keeps routing ids that begin with a zero byte for itself */
}

const char *uuid_format(char out[37], const struct uuid *u)
{
    static const char hex[] = "0123456789abcdef";
    char *p = out;

    for (size_t i = 0; i < sizeof(u->at); i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *p++ = '-';
        *p++ = hex[u->at[i] >> 4];
        *p++ = hex[u->at[i] & 15];
    }
    *p = '\0';
    return out;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

bool uuid_parse(struct uuid *out, struct text t)
{
    size_t at = 0;

    if (!t.at || t.len != 36)
        return false;
    for (size_t i = 0; i < sizeof(out->at); i++) {
        int high, low;
        if (i == 4 || i == 6 || i == 8 || i == 10)
            if (t.at[at++] != '-')
                return false;
        high = hex_digit(t.at[at++]);
        low = hex_digit(t.at[at++]);
        if (high < 0 || low < 0)
            return false;
        out->at[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

/* ---- endings ---- */

static const char *const ending_names[N_ENDINGS] = {
    [END_OK] = "ok",
    [END_PAGE_CAP] = "page_cap",
    [END_DEADLINE] = "deadline",
    [END_STOPPED] = "stopped",
    [END_AUTH_INVALID] = "auth_invalid",
    [END_SCOPE_MISSING] = "scope_missing",
    [END_WRONG_KEY_KIND] = "wrong_key_kind",
    [END_RATE_LIMITED] = "rate_limited",
    [END_PROVIDER_ERROR] = "provider_error",
    [END_TIMEOUT] = "timeout",
    [END_TLS] = "tls",
    [END_DNS] = "dns",
    [END_PROTOCOL] = "protocol",
    [END_TOO_LARGE] = "too_large",
    [END_BAD_WINDOW] = "bad_window",
};

const char *ending_name(enum ending e)
{
    return ending_names[e];
}

bool ending_is_partial(enum ending e)
{
    return e == END_PAGE_CAP || e == END_DEADLINE || e == END_STOPPED;
}

bool ending_is_auth(enum ending e)
{
    return e == END_AUTH_INVALID || e == END_SCOPE_MISSING || e == END_WRONG_KEY_KIND;
}

/* ---- digests ---- */

bool page_digest_is(const struct page_digest *d)
{
    static const struct page_digest none;

    return !page_digest_eq(d, &none);
}

/* ---- writing ---- */

static int put_bytes(void *data, const char *bytes, size_t len)
{
    buf_append(data, bytes, len);
    return 0;
}

static msgpack_packer packer(struct buf *out, enum wire_kind kind, size_t n_fields)
{
    msgpack_packer pk;

    msgpack_packer_init(&pk, out, put_bytes);
    msgpack_pack_array(&pk, n_fields + 2);
    msgpack_pack_uint8(&pk, WIRE_VERSION);
    msgpack_pack_uint8(&pk, (uint8_t)kind);
    return pk;
}

static void put_text(msgpack_packer *pk, struct text t)
{
    if (!t.at) {
        msgpack_pack_nil(pk);
        return;
    }
    msgpack_pack_str(pk, t.len);
    msgpack_pack_str_body(pk, t.at, t.len);
}

static void put_bin(msgpack_packer *pk, const void *at, size_t len)
{
    msgpack_pack_bin(pk, len);
    msgpack_pack_bin_body(pk, at, len);
}

static void put_uuid(msgpack_packer *pk, const struct uuid *u)
{
    put_bin(pk, u->at, sizeof(u->at));
}

static void put_digest(msgpack_packer *pk, const struct page_digest *d)
{
    put_bin(pk, d->at, sizeof(d->at));
}

static void put_bool(msgpack_packer *pk, bool b)
{
    if (b)
        msgpack_pack_true(pk);
    else
        msgpack_pack_false(pk);
}

#define WINDOW_FIELDS 6
static void put_window(msgpack_packer *pk, const struct window *w)
{
    msgpack_pack_array(pk, WINDOW_FIELDS);
    put_text(pk, w->feed);
    msgpack_pack_int64(pk, w->from_us);
    msgpack_pack_int64(pk, w->to_us);
    msgpack_pack_uint32(pk, w->bucket_s);
    msgpack_pack_int64(pk, w->complete_from_us);
    msgpack_pack_int64(pk, w->complete_us);
}

#define ORIGIN_FIELDS 5
static void put_origin(msgpack_packer *pk, const struct origin *o)
{
    msgpack_pack_array(pk, ORIGIN_FIELDS);
    put_uuid(pk, &o->job_id);
    put_uuid(pk, &o->scheduler_id);
    msgpack_pack_int64(pk, o->account_id);
    msgpack_pack_int64(pk, o->epoch);
    put_text(pk, o->provider);
}

/* ---- reading ---- */

/* One message being taken apart: elements of one array, in order. The first fault is kept and
 * every later read answers zero, so that decoders read on without a check a line. */
struct reader {
    struct arena *arena;
    struct err *err;
    const msgpack_object *at; /* next element */
    size_t left;
    const char *what; /* the array's name, for messages */
    bool bad;
};

static void fault(struct reader *r, const char *field, const char *wanted)
{
    if (!r->bad)
        (void)err_set(r->err, ST_REJECT, "%s: %s: %s", r->what, field, wanted);
    r->bad = true;
}

static const msgpack_object *next(struct reader *r, const char *field)
{
    if (r->bad)
        return NULL;
    if (r->left == 0) {
        fault(r, field, "missing");
        return NULL;
    }
    r->left--;
    return r->at++;
}

static int64_t get_int(struct reader *r, const char *field, int64_t min, int64_t max)
{
    const msgpack_object *o = next(r, field);

    if (!o)
        return 0;
    if (o->type == MSGPACK_OBJECT_POSITIVE_INTEGER && o->via.u64 <= INT64_MAX &&
        (int64_t)o->via.u64 >= min && (int64_t)o->via.u64 <= max)
        return (int64_t)o->via.u64;
    if (o->type == MSGPACK_OBJECT_NEGATIVE_INTEGER && o->via.i64 >= min && o->via.i64 <= max)
        return o->via.i64;
    fault(r, field, "not an integer in range");
    return 0;
}

static uint32_t get_u32(struct reader *r, const char *field)
{
    return (uint32_t)get_int(r, field, 0, UINT32_MAX);
}

static int64_t get_time(struct reader *r, const char *field)
{
    return get_int(r, field, 0, INT64_MAX);
}

static bool get_bool(struct reader *r, const char *field)
{
    const msgpack_object *o = next(r, field);

    if (!o)
        return false;
    if (o->type != MSGPACK_OBJECT_BOOLEAN) {
        fault(r, field, "not a boolean");
        return false; /* o holds something else */
    }
    return o->via.boolean;
}

static struct text get_text_or_null(struct reader *r, const char *field, size_t max)
{
    const msgpack_object *o = next(r, field);

    if (!o || o->type == MSGPACK_OBJECT_NIL)
        return TEXT_NULL;
    if (o->type != MSGPACK_OBJECT_STR || o->via.str.size > max) {
        fault(r, field, "not a text of allowed length");
        return TEXT_NULL;
    }
    return (struct text){o->via.str.ptr ? o->via.str.ptr : "", o->via.str.size};
}

static struct text get_text(struct reader *r, const char *field, size_t max)
{
    struct text t = get_text_or_null(r, field, max);

    if (!t.at)
        fault(r, field, "missing");
    return t;
}

static struct text get_bin(struct reader *r, const char *field, size_t max)
{
    const msgpack_object *o = next(r, field);

    if (!o)
        return TEXT_NULL;
    if (o->type != MSGPACK_OBJECT_BIN || o->via.bin.size > max) {
        fault(r, field, "not bytes of allowed length");
        return TEXT_NULL;
    }
    return (struct text){o->via.bin.ptr ? o->via.bin.ptr : "", o->via.bin.size};
}

static void get_fixed(struct reader *r, const char *field, void *out, size_t len)
{
    struct text t = get_bin(r, field, len);

    if (t.at && t.len == len)
        memcpy(out, t.at, len);
    else
        fault(r, field, "not bytes of the right length");
}

static struct uuid get_uuid(struct reader *r, const char *field)
{
    struct uuid u = {{0}};

    get_fixed(r, field, u.at, sizeof(u.at));
    return u;
}

static struct page_digest get_digest(struct reader *r)
{
    struct page_digest d = {{0}};

    get_fixed(r, "digest", d.at, sizeof(d.at));
    return d;
}

/* An array inside: `out` reads its elements. */
static size_t get_array(struct reader *r, const char *field, size_t min, size_t max,
                        struct reader *out)
{
    const msgpack_object *o = next(r, field);

    *out = (struct reader){.arena = r->arena, .err = r->err, .what = field, .bad = r->bad};
    if (!o)
        return 0;
    if (o->type != MSGPACK_OBJECT_ARRAY || o->via.array.size < min || o->via.array.size > max) {
        fault(r, field, "not an array of allowed length");
        out->bad = true;
        return 0;
    }
    out->at = o->via.array.ptr;
    out->left = o->via.array.size;
    return o->via.array.size;
}

/* Ends an inner array: nothing may be left, and its fault is its owner's. */
static void array_end(struct reader *r, struct reader *inner)
{
    if (inner->left > 0)
        fault(inner, "end", "more elements than this version knows");
    r->bad |= inner->bad;
}

static void unpacked_free(void *arg)
{
    msgpack_unpacked_destroy(arg);
}

/* How the forms from 0xc0 on go on: bytes of a length, bytes of content besides, and how many
 * elements each unit of the length stands for. Source: github.com/msgpack/msgpack, spec.md. */
static const struct form {
    uint8_t length_bytes, content, elements;
} forms[32] = {
    [0x04] = {1, 0, 0}, [0x05] = {2, 0, 0},  [0x06] = {4, 0, 0},                     /* bin */
    [0x07] = {1, 1, 0}, [0x08] = {2, 1, 0},  [0x09] = {4, 1, 0},                     /* ext */
    [0x0a] = {0, 4, 0}, [0x0b] = {0, 8, 0},                                          /* float */
    [0x0c] = {0, 1, 0}, [0x0d] = {0, 2, 0},  [0x0e] = {0, 4, 0}, [0x0f] = {0, 8, 0}, /* uint */
    [0x10] = {0, 1, 0}, [0x11] = {0, 2, 0},  [0x12] = {0, 4, 0}, [0x13] = {0, 8, 0}, /* int */
    [0x14] = {0, 2, 0}, [0x15] = {0, 3, 0},  [0x16] = {0, 5, 0},                     /* fixext */
    [0x17] = {0, 9, 0}, [0x18] = {0, 17, 0}, [0x19] = {1, 0, 0}, [0x1a] = {2, 0, 0},
    [0x1b] = {4, 0, 0},                     /* str */
    [0x1c] = {2, 0, 1}, [0x1d] = {4, 0, 1}, /* array */
    [0x1e] = {2, 0, 2}, [0x1f] = {4, 0, 2}, /* map */
};

/* Whether no array claims more elements than bytes follow. msgpack-c takes memory for all that is
 * claimed before it looks further, so nine bytes could ask it for 100 GB. */
static bool claims_fit(struct text msg)
{
    const unsigned char *at = (const unsigned char *)msg.at;
    uint64_t left = msg.len, owed = 1; /* bytes; elements to come */

    while (left > 0 && owed <= left) {
        unsigned char b = *at;
        struct form f = b >= 0xc0 && b <= 0xdf ? forms[b - 0xc0] : (struct form){0};
        uint64_t length = 0, skip;
        if (left < 1u + f.length_bytes)
            return true; /* torn: msgpack-c says so */
        for (size_t i = 1; i <= f.length_bytes; i++)
            length = length << 8 | at[i];
        if (b >= 0x80 && b <= 0x9f) {
            length = b & 15;
            f.elements = b < 0x90 ? 2 : 1;
        } else if (b >= 0xa0 && b <= 0xbf) {
            length = b & 31;
        }
        owed += length * f.elements;
        skip = UINT64_C(1) + f.length_bytes + f.content + (f.elements ? 0 : length);
        if (--owed == 0 || skip >= left)
            return owed <= left;
        at += skip;
        left -= skip;
    }
    return owed <= left;
}

static enum status message_open(struct reader *r, struct arena *a, struct text msg,
                                enum wire_kind *kind, struct err *err)
{
    msgpack_unpacked *u = ARENA_NEW(a, msgpack_unpacked);
    size_t off = 0;
    int64_t version;

    *kind = WIRE_JOB;
    *r = (struct reader){.arena = a, .err = err, .what = "message"};
    msgpack_unpacked_init(u);
    arena_defer(a, unpacked_free, u);
    if (!msg.at || !claims_fit(msg) ||
        msgpack_unpack_next(u, msg.at, msg.len, &off) != MSGPACK_UNPACK_SUCCESS)
        return err_set(err, ST_REJECT, "message: not msgpack");
    if (off != msg.len)
        return err_set(err, ST_REJECT, "message: %zu bytes are left over", msg.len - off);
    if (u->data.type != MSGPACK_OBJECT_ARRAY)
        return err_set(err, ST_REJECT, "message: not an array");
    r->at = u->data.via.array.ptr;
    r->left = u->data.via.array.size;
    version = get_int(r, "version", 0, INT64_MAX);
    *kind = (enum wire_kind)get_int(r, "kind", WIRE_JOB, WIRE_PULSE);
    if (r->bad)
        return err->status;
    if (version != WIRE_VERSION)
        return err_set(err, ST_REJECT,
                       "message: version %" PRId64 ", but this program speaks version %d: upgrade "
                       "the older of the two; the work is done again then",
                       version, WIRE_VERSION);
    return ST_OK;
}

static enum status message_expect(struct reader *r, struct arena *a, struct text msg,
                                  enum wire_kind wanted, const char *what, struct err *err)
{
    enum wire_kind kind;

    TRY(message_open(r, a, msg, &kind, err));
    if (kind != wanted)
        return err_set(err, ST_REJECT, "message: kind %d, but %s (%d) was expected", (int)kind,
                       what, (int)wanted);
    r->what = what;
    return ST_OK;
}

static enum status message_end(struct reader *r)
{
    if (r->left > 0)
        fault(r, "end", "more elements than this version knows");
    return r->bad ? r->err->status : ST_OK;
}

enum status wire_kind_of(enum wire_kind *out, struct text msg, struct err *err)
{
    struct arena *a = arena_new();
    struct reader r;
    enum status st = message_open(&r, a, msg, out, err);

    arena_free(&a);
    return st;
}

static void get_window(struct reader *r, struct window *w)
{
    struct reader in;

    get_array(r, "window", WINDOW_FIELDS, WINDOW_FIELDS, &in);
    w->feed = get_text(&in, "feed", 100);
    w->from_us = get_time(&in, "from");
    w->to_us = get_time(&in, "to");
    w->bucket_s = (uint32_t)get_int(&in, "bucket_s", 1, INT64_C(31622400));
    w->complete_from_us = get_time(&in, "complete_from");
    w->complete_us = get_time(&in, "complete");
    if (!in.bad && w->to_us != 0 && w->to_us <= w->from_us)
        fault(&in, "to", "not after from");
    array_end(r, &in);
}

static void get_origin(struct reader *r, struct origin *o)
{
    struct reader in;

    get_array(r, "origin", ORIGIN_FIELDS, ORIGIN_FIELDS, &in);
    o->job_id = get_uuid(&in, "job_id");
    o->scheduler_id = get_uuid(&in, "scheduler_id");
    o->account_id = get_int(&in, "account_id", INT64_MIN, INT64_MAX);
    o->epoch = get_int(&in, "epoch", 0, INT64_MAX);
    o->provider = get_text(&in, "provider", 100);
    array_end(r, &in);
}

/* ---- job ---- */

void job_encode(struct buf *out, const struct job *job)
{
    msgpack_packer pk = packer(out, WIRE_JOB, 12);

    put_uuid(&pk, &job->job_id);
    put_uuid(&pk, &job->scheduler_id);
    msgpack_pack_int64(&pk, job->account_id);
    msgpack_pack_int64(&pk, job->epoch);
    msgpack_pack_int64(&pk, job->lease_ms);
    put_text(&pk, job->account);
    put_text(&pk, job->provider);
    put_text(&pk, job->base_url);
    put_bin(&pk, job->sealed_key.at, job->sealed_key.len);
    msgpack_pack_uint32(&pk, job->page_cap);
    msgpack_pack_array(&pk, job->n_windows);
    for (size_t i = 0; i < job->n_windows; i++)
        put_window(&pk, &job->windows[i]);
    msgpack_pack_array(&pk, job->known ? job->n_windows : 0);
    for (size_t i = 0; job->known && i < job->n_windows; i++)
        put_bin(&pk, job->known[i].at, job->known[i].n * sizeof(struct page_digest));
}

static void get_known(struct reader *r, struct job *job)
{
    struct known_pages *known;
    struct reader in;
    size_t n = get_array(r, "known", 0, job->n_windows, &in);

    if (n != 0 && n != job->n_windows)
        fault(&in, "known", "not one for each window");
    job->known = known = ARENA_ARRAY(r->arena, job->n_windows, struct known_pages);
    for (size_t i = 0; i < n && !in.bad; i++) {
        struct text digests = get_bin(&in, "digests", sizeof(known[i].at));
        if (digests.len % sizeof(struct page_digest) != 0)
            fault(&in, "digests", "not bytes of the right length");
        else if (digests.len > 0)
            memcpy(known[i].at, digests.at, digests.len);
        known[i].n = digests.len / sizeof(struct page_digest);
    }
    array_end(r, &in);
}

enum status job_decode(const struct job **out, struct arena *a, struct text msg, struct err *err)
{
    struct job *job = ARENA_NEW(a, struct job);
    struct window *windows;
    struct reader r, in;

    TRY(message_expect(&r, a, msg, WIRE_JOB, "job", err));
    job->job_id = get_uuid(&r, "job_id");
    job->scheduler_id = get_uuid(&r, "scheduler_id");
    job->account_id = get_int(&r, "account_id", INT64_MIN, INT64_MAX);
    job->epoch = get_int(&r, "epoch", 0, INT64_MAX);
    job->lease_ms = get_int(&r, "lease_ms", 0, INT64_C(86400000));
    job->account = get_text(&r, "account", 200);
    job->provider = get_text(&r, "provider", 100);
    job->base_url = get_text(&r, "base_url", 2000);
    job->sealed_key = get_bin(&r, "sealed_key", 8192);
    job->page_cap = (uint32_t)get_int(&r, "page_cap", 1, UINT32_MAX);
    job->n_windows = get_array(&r, "windows", 1, WIRE_WINDOWS_MAX, &in);
    job->windows = windows = ARENA_ARRAY(a, job->n_windows, struct window);
    for (size_t i = 0; i < job->n_windows; i++)
        get_window(&in, &windows[i]);
    array_end(&r, &in);
    get_known(&r, job);
    TRY(message_end(&r));
    *out = job;
    return ST_OK;
}

/* ---- ready ---- */

void ready_encode(struct buf *out, const struct ready *ready)
{
    msgpack_packer pk = packer(out, WIRE_READY, 3);

    put_text(&pk, ready->instance);
    msgpack_pack_uint32(&pk, ready->capacity);
    msgpack_pack_array(&pk, ready->n_held);
    for (size_t i = 0; i < ready->n_held; i++)
        put_uuid(&pk, &ready->held[i]);
}

enum status ready_decode(const struct ready **out, struct arena *a, struct text msg,
                         struct err *err)
{
    struct ready *ready = ARENA_NEW(a, struct ready);
    struct uuid *held;
    struct reader r, in;

    TRY(message_expect(&r, a, msg, WIRE_READY, "ready", err));
    ready->instance = get_text(&r, "instance", 200);
    ready->capacity = get_u32(&r, "capacity");
    ready->n_held = get_array(&r, "held", 0, 100000, &in);
    ready->held = held = ARENA_ARRAY(a, ready->n_held, struct uuid);
    for (size_t i = 0; i < ready->n_held; i++)
        held[i] = get_uuid(&in, "job_id");
    array_end(&r, &in);
    TRY(message_end(&r));
    *out = ready;
    return ST_OK;
}

/* ---- done ---- */

#define SAME_FIELDS 3
#define END_FIELDS  10
void done_encode(struct buf *out, const struct done *d)
{
    msgpack_packer pk = packer(out, WIRE_DONE, 2);

    put_uuid(&pk, &d->job_id);
    msgpack_pack_array(&pk, d->n_ends);
    for (size_t i = 0; i < d->n_ends; i++) {
        const struct window_end *e = &d->ends[i];
        msgpack_pack_array(&pk, END_FIELDS);
        msgpack_pack_uint32(&pk, e->window);
        msgpack_pack_uint8(&pk, (uint8_t)e->ending);
        msgpack_pack_uint32(&pk, e->pages);
        msgpack_pack_int64(&pk, e->complete_us);
        msgpack_pack_uint32(&pk, e->requests);
        msgpack_pack_uint64(&pk, e->bytes);
        msgpack_pack_uint32(&pk, e->http_status);
        msgpack_pack_int64(&pk, e->retry_after_s);
        put_text(&pk, e->detail);
        msgpack_pack_array(&pk, e->n_same);
        for (size_t k = 0; k < e->n_same; k++) {
            msgpack_pack_array(&pk, SAME_FIELDS);
            msgpack_pack_uint32(&pk, e->same[k].seq);
            msgpack_pack_uint32(&pk, e->same[k].known);
            msgpack_pack_int64(&pk, e->same[k].complete_us);
        }
    }
}

static void get_same(struct reader *r, struct window_end *e)
{
    struct same_page *same;
    struct reader list, in;

    e->n_same = get_array(r, "same", 0, WIRE_KNOWN_MAX, &list);
    e->same = same = ARENA_ARRAY(r->arena, e->n_same, struct same_page);
    for (size_t i = 0; i < e->n_same; i++) {
        get_array(&list, "same page", SAME_FIELDS, SAME_FIELDS, &in);
        same[i].seq = get_u32(&in, "seq");
        same[i].known = (uint32_t)get_int(&in, "known", 0, WIRE_KNOWN_MAX - 1);
        same[i].complete_us = get_time(&in, "complete");
        array_end(&list, &in);
    }
    array_end(r, &list);
}

static void get_end(struct reader *r, struct window_end *e)
{
    struct reader in;

    get_array(r, "end", END_FIELDS, END_FIELDS, &in);
    e->window = (uint32_t)get_int(&in, "window", 0, WIRE_WINDOWS_MAX - 1);
    e->ending = (enum ending)get_int(&in, "ending", 0, N_ENDINGS - 1);
    e->pages = get_u32(&in, "pages");
    e->complete_us = get_time(&in, "complete");
    e->requests = get_u32(&in, "requests");
    e->bytes = (uint64_t)get_int(&in, "bytes", 0, INT64_MAX);
    e->http_status = get_u32(&in, "http_status");
    e->retry_after_s = get_int(&in, "retry_after", 0, INT64_C(31622400));
    e->detail = get_text_or_null(&in, "detail", 500);
    get_same(&in, e);
    array_end(r, &in);
}

enum status done_decode(const struct done **out, struct arena *a, struct text msg, struct err *err)
{
    struct done *d = ARENA_NEW(a, struct done);
    struct window_end *ends;
    struct reader r, in;

    TRY(message_expect(&r, a, msg, WIRE_DONE, "done", err));
    d->job_id = get_uuid(&r, "job_id");
    d->n_ends = get_array(&r, "ends", 1, WIRE_WINDOWS_MAX, &in);
    d->ends = ends = ARENA_ARRAY(a, d->n_ends, struct window_end);
    for (size_t i = 0; i < d->n_ends; i++)
        get_end(&in, &ends[i]);
    array_end(&r, &in);
    TRY(message_end(&r));
    *out = d;
    return ST_OK;
}

/* ---- pages ---- */

#define PAGE_FIELDS 7
void pages_encode_head(struct buf *out, const struct pages *p)
{
    msgpack_packer pk = packer(out, WIRE_PAGES, 2);

    put_origin(&pk, &p->origin);
    msgpack_pack_array(&pk, p->n_pages);
    for (size_t i = 0; i < p->n_pages; i++) {
        const struct page *page = &p->pages[i];
        msgpack_pack_array(&pk, PAGE_FIELDS);
        msgpack_pack_uint32(&pk, page->window);
        msgpack_pack_uint32(&pk, page->seq);
        put_window(&pk, &page->asked);
        msgpack_pack_int64(&pk, page->complete_us);
        put_bool(&pk, page->last);
        put_digest(&pk, &page->digest);
        msgpack_pack_uint64(&pk, page->body.len);
    }
}

static void get_page(struct reader *r, struct page *page)
{
    struct reader in;

    get_array(r, "page", PAGE_FIELDS, PAGE_FIELDS, &in);
    page->window = (uint32_t)get_int(&in, "window", 0, WIRE_WINDOWS_MAX - 1);
    page->seq = get_u32(&in, "seq");
    get_window(&in, &page->asked);
    page->complete_us = get_time(&in, "complete");
    page->last = get_bool(&in, "last");
    page->digest = get_digest(&in);
    page->body.len = (size_t)get_int(&in, "size", 0, INT64_MAX);
    array_end(r, &in);
}

/* Gives each page its part of the bodies; answers whether they come to just all of them. */
static bool share_out(struct page *pages, size_t n, struct text bodies)
{
    for (size_t i = 0; i < n; i++) {
        struct text *body = &pages[i].body;
        if (body->len > bodies.len)
            return false;
        body->at = bodies.at;
        bodies.at += body->len;
        bodies.len -= body->len;
    }
    return bodies.len == 0;
}

enum status pages_decode(const struct pages **out, struct arena *a, struct text head,
                         struct text bodies, struct err *err)
{
    struct pages *p = ARENA_NEW(a, struct pages);
    struct page *pages;
    struct reader r, in;

    TRY(message_expect(&r, a, head, WIRE_PAGES, "pages", err));
    get_origin(&r, &p->origin);
    p->n_pages = get_array(&r, "pages", 1, WIRE_PAGES_MAX, &in);
    p->pages = pages = ARENA_ARRAY(a, p->n_pages, struct page);
    for (size_t i = 0; i < p->n_pages; i++)
        get_page(&in, &pages[i]);
    array_end(&r, &in);
    TRY(message_end(&r));
    if (!share_out(pages, p->n_pages, bodies))
        return err_set(err, ST_REJECT,
                       "pages: their sizes do not come to the %zu bytes that follow", bodies.len);
    p->bodies = bodies;
    *out = p;
    return ST_OK;
}

/* ---- records ---- */

#define DEAD_FIELDS 3
static void put_dead(msgpack_packer *pk, const struct dead *d)
{
    msgpack_pack_array(pk, DEAD_FIELDS);
    put_text(pk, d->reason);
    put_text(pk, d->json_path);
    if (d->body.at)
        put_bin(pk, d->body.at, d->body.len);
    else
        put_bin(pk, "", 0);
}

static void get_dead(struct reader *r, struct dead *d)
{
    struct reader in;

    get_array(r, "dead", DEAD_FIELDS, DEAD_FIELDS, &in);
    d->reason = get_text_or_null(&in, "reason", 1000);
    d->json_path = get_text_or_null(&in, "json_path", 1000);
    d->body = get_bin(&in, "body", 65536);
    array_end(r, &in);
}

/* A record is written without msgpack's packer, which hands on a few bytes at a time through a
 * callback: with a page's thousands of records that was a quarter of the normalizer's time. The
 * bytes are those that it would write: of each form the shortest (tests/test_wire.c compares). */

/* The lowest `n` bytes of `v`, the highest of those first, behind the byte that names the form. */
static char *write_form(char *at, uint8_t form, uint64_t v, size_t n)
{
    uint64_t be = htobe64(v);

    *at++ = (char)form;
    memcpy(at, (const char *)&be + sizeof(be) - n, n);
    return at + n;
}

static char *write_int(char *at, int64_t v)
{
    uint64_t bits = (uint64_t)v;

    if (v >= -32 && v <= 127) {
        *at = (char)v;
        return at + 1;
    }
    if (v > 0)
        return v <= UINT8_MAX    ? write_form(at, 0xcc, bits, 1)
               : v <= UINT16_MAX ? write_form(at, 0xcd, bits, 2)
               : v <= UINT32_MAX ? write_form(at, 0xce, bits, 4)
                                 : write_form(at, 0xcf, bits, 8);
    return v >= INT8_MIN    ? write_form(at, 0xd0, bits, 1)
           : v >= INT16_MIN ? write_form(at, 0xd1, bits, 2)
           : v >= INT32_MIN ? write_form(at, 0xd2, bits, 4)
                            : write_form(at, 0xd3, bits, 8);
}

#define WRITTEN_NIL ((char)0xc0)

static char *write_text(char *at, struct text t)
{
    if (!t.at) {
        *at = WRITTEN_NIL;
        return at + 1;
    }
    if (t.len < 32)
        *at++ = (char)(0xa0 | t.len);
    else
        at = t.len <= UINT8_MAX    ? write_form(at, 0xd9, t.len, 1)
             : t.len <= UINT16_MAX ? write_form(at, 0xda, t.len, 2)
                                   : write_form(at, 0xdb, t.len, 4);
    memcpy(at, t.at, t.len);
    return at + t.len;
}

#define RECORD_FIELDS (5 + N_RECORD_COUNTS + N_RECORD_TEXTS)
#define RECORD_SIZE_MAX                                                                            \
    (64 + (size_t)9 * N_RECORD_COUNTS + (size_t)5 * N_RECORD_TEXTS) /* no texts */
_Static_assert(RECORD_FIELDS > 15, "a shorter array has a shorter form");

static size_t record_size_max(const struct record *rec)
{
    size_t size = RECORD_SIZE_MAX;

    for (size_t i = 0; i < N_RECORD_TEXTS; i++)
        size += rec->texts[i].len;
    return size;
}

static void put_record(struct buf *out, const struct record *rec)
{
    char *at;

    buf_reserve(out, record_size_max(rec));
    at = write_form(out->at + out->len, 0xdc, RECORD_FIELDS, 2); /* an array */
    at = write_int(at, rec->bucket_start_us);
    at = write_int(at, rec->bucket_seconds);
    at = write_form(at, 0xc4, sizeof(rec->row_key), 1); /* bytes */
    memcpy(at, rec->row_key, sizeof(rec->row_key));
    at += sizeof(rec->row_key);
    at = write_int(at, rec->row_hash);
    at = write_int(at, rec->batch);
    for (size_t i = 0; i < N_RECORD_COUNTS; i++) {
        if (rec->counts[i] == COUNT_NULL)
            *at++ = WRITTEN_NIL;
        else
            at = write_int(at, rec->counts[i]);
    }
    for (size_t i = 0; i < N_RECORD_TEXTS; i++)
        at = write_text(at, rec->texts[i]);
    *at = '\0'; /* as after each append */
    out->len = (size_t)(at - out->at);
}

static int64_t get_count(struct reader *r)
{
    if (!r->bad && r->left > 0 && r->at->type == MSGPACK_OBJECT_NIL) {
        r->left--;
        r->at++;
        return COUNT_NULL;
    }
    return get_int(r, "count", INT64_MIN + 1, INT64_MAX);
}

static void get_record(struct reader *r, struct record *rec)
{
    struct reader in;

    get_array(r, "record", RECORD_FIELDS, RECORD_FIELDS, &in);
    rec->bucket_start_us = get_time(&in, "bucket_start");
    rec->bucket_seconds = (uint32_t)get_int(&in, "bucket_seconds", 1, INT32_MAX);
    get_fixed(&in, "row_key", rec->row_key, sizeof(rec->row_key));
    rec->row_hash = get_int(&in, "row_hash", INT64_MIN, INT64_MAX);
    rec->batch = (int8_t)get_int(&in, "batch", TRI_NULL, TRI_TRUE);
    for (size_t i = 0; i < N_RECORD_COUNTS; i++)
        rec->counts[i] = get_count(&in);
    for (size_t i = 0; i < N_RECORD_TEXTS; i++)
        rec->texts[i] = get_text_or_null(&in, "text", 1 << 20);
    array_end(r, &in);
}

#define RECORD_PAGE_FIELDS 9
static void put_record_page(msgpack_packer *pk, const struct record_page *p)
{
    msgpack_pack_array(pk, RECORD_PAGE_FIELDS);
    msgpack_pack_uint32(pk, p->window);
    msgpack_pack_uint32(pk, p->seq);
    put_window(pk, &p->asked);
    msgpack_pack_int64(pk, p->complete_us);
    msgpack_pack_array(pk, p->n_spans * 2);
    for (size_t i = 0; i < p->n_spans; i++) {
        msgpack_pack_int64(pk, p->spans[i].from_us);
        msgpack_pack_int64(pk, p->spans[i].to_us);
    }
    msgpack_pack_array(pk, p->n_records);
    for (size_t i = 0; i < p->n_records; i++)
        put_record(pk->data, &p->records[i]);
    put_dead(pk, &p->dead);
    msgpack_pack_array(pk, p->n_bad_rows);
    for (size_t i = 0; i < p->n_bad_rows; i++)
        put_dead(pk, &p->bad_rows[i]);
    put_digest(pk, &p->digest);
}

static void get_spans(struct reader *r, struct record_page *p)
{
    struct reader in;
    struct span *spans;
    size_t n = get_array(r, "spans", 0, (size_t)2 * WIRE_RECORDS_MAX, &in);

    p->n_spans = n / 2;
    p->spans = spans = ARENA_ARRAY(r->arena, p->n_spans, struct span);
    for (size_t i = 0; i < p->n_spans; i++) {
        spans[i].from_us = get_time(&in, "span from");
        spans[i].to_us = get_time(&in, "span to");
    }
    array_end(r, &in);
}

static void get_record_page(struct reader *r, struct record_page *p)
{
    struct reader in, list;
    struct record *records;
    struct dead *bad;

    get_array(r, "page", RECORD_PAGE_FIELDS, RECORD_PAGE_FIELDS, &in);
    p->window = (uint32_t)get_int(&in, "window", 0, WIRE_WINDOWS_MAX - 1);
    p->seq = get_u32(&in, "seq");
    get_window(&in, &p->asked);
    p->complete_us = get_time(&in, "complete");
    get_spans(&in, p);
    p->n_records = get_array(&in, "records", 0, WIRE_RECORDS_MAX, &list);
    p->records = records = ARENA_ARRAY(r->arena, p->n_records, struct record);
    for (size_t i = 0; i < p->n_records && !list.bad; i++)
        get_record(&list, &records[i]);
    array_end(&in, &list);
    get_dead(&in, &p->dead);
    p->n_bad_rows = get_array(&in, "bad_rows", 0, WIRE_RECORDS_MAX, &list);
    p->bad_rows = bad = ARENA_ARRAY(r->arena, p->n_bad_rows, struct dead);
    for (size_t i = 0; i < p->n_bad_rows && !list.bad; i++)
        get_dead(&list, &bad[i]);
    array_end(&in, &list);
    p->digest = get_digest(&in);
    array_end(r, &in);
}

/* Nearly all of what the records will take: growing would copy them again and again. */
static size_t records_room(const struct records *records)
{
    size_t room = 1024;

    for (size_t i = 0; i < records->n_pages; i++) {
        const struct record_page *p = &records->pages[i];
        room += p->n_spans * 18;
        for (size_t k = 0; k < p->n_records; k++)
            room += record_size_max(&p->records[k]);
    }
    return room;
}

void records_encode(struct buf *out, const struct records *records)
{
    msgpack_packer pk;

    buf_reserve(out, records_room(records));
    pk = packer(out, WIRE_RECORDS, 2);
    put_origin(&pk, &records->origin);
    msgpack_pack_array(&pk, records->n_pages);
    for (size_t i = 0; i < records->n_pages; i++)
        put_record_page(&pk, &records->pages[i]);
}

enum status records_decode(const struct records **out, struct arena *a, struct text msg,
                           struct err *err)
{
    struct records *records = ARENA_NEW(a, struct records);
    struct record_page *pages;
    struct reader r, in;

    TRY(message_expect(&r, a, msg, WIRE_RECORDS, "records", err));
    get_origin(&r, &records->origin);
    records->n_pages = get_array(&r, "pages", 1, WIRE_PAGES_MAX, &in);
    records->pages = pages = ARENA_ARRAY(a, records->n_pages, struct record_page);
    for (size_t i = 0; i < records->n_pages && !in.bad; i++)
        get_record_page(&in, &pages[i]);
    array_end(&r, &in);
    TRY(message_end(&r));
    *out = records;
    return ST_OK;
}

/* ---- acks ---- */

#define ACK_FIELDS 11
void acks_encode(struct buf *out, const struct acks *acks)
{
    msgpack_packer pk = packer(out, WIRE_ACKS, 1);

    msgpack_pack_array(&pk, acks->n_acks);
    for (size_t i = 0; i < acks->n_acks; i++) {
        const struct ack *ack = &acks->acks[i];
        msgpack_pack_array(&pk, ACK_FIELDS);
        put_uuid(&pk, &ack->job_id);
        msgpack_pack_uint32(&pk, ack->window);
        msgpack_pack_uint32(&pk, ack->seq);
        msgpack_pack_uint8(&pk, (uint8_t)ack->fate);
        msgpack_pack_int64(&pk, ack->complete_us);
        msgpack_pack_uint32(&pk, ack->inserted);
        msgpack_pack_uint32(&pk, ack->updated);
        msgpack_pack_uint32(&pk, ack->removed);
        msgpack_pack_uint32(&pk, ack->unchanged);
        put_text(&pk, ack->detail);
        put_digest(&pk, &ack->digest);
    }
}

static void get_ack(struct reader *r, struct ack *ack)
{
    struct reader in;

    get_array(r, "ack", ACK_FIELDS, ACK_FIELDS, &in);
    ack->job_id = get_uuid(&in, "job_id");
    ack->window = (uint32_t)get_int(&in, "window", 0, WIRE_WINDOWS_MAX - 1);
    ack->seq = get_u32(&in, "seq");
    ack->fate = (enum page_fate)get_int(&in, "fate", PAGE_COMMITTED, PAGE_FENCED);
    ack->complete_us = get_time(&in, "complete");
    ack->inserted = get_u32(&in, "inserted");
    ack->updated = get_u32(&in, "updated");
    ack->removed = get_u32(&in, "removed");
    ack->unchanged = get_u32(&in, "unchanged");
    ack->detail = get_text_or_null(&in, "detail", 500);
    ack->digest = get_digest(&in);
    array_end(r, &in);
}

enum status acks_decode(const struct acks **out, struct arena *a, struct text msg, struct err *err)
{
    struct acks *acks = ARENA_NEW(a, struct acks);
    struct ack *list;
    struct reader r, in;

    TRY(message_expect(&r, a, msg, WIRE_ACKS, "acks", err));
    acks->n_acks = get_array(&r, "acks", 1, 100000, &in);
    acks->acks = list = ARENA_ARRAY(a, acks->n_acks, struct ack);
    for (size_t i = 0; i < acks->n_acks && !in.bad; i++)
        get_ack(&in, &list[i]);
    array_end(&r, &in);
    TRY(message_end(&r));
    *out = acks;
    return ST_OK;
}

/* ---- pulse ---- */

#define SAMPLE_FIELDS 3
static void put_sample(msgpack_packer *pk, const struct wire_sample *s)
{
    msgpack_pack_array(pk, SAMPLE_FIELDS);
    put_text(pk, s->name);
    msgpack_pack_array(pk, s->n_labels);
    for (size_t i = 0; i < s->n_labels; i++)
        put_text(pk, s->labels[i]);
    if (s->n_cells == 0) {
        msgpack_pack_int64(pk, s->value);
        return;
    }
    msgpack_pack_array(pk, s->n_cells);
    for (size_t i = 0; i < s->n_cells; i++)
        msgpack_pack_int64(pk, s->cells[i]);
}

void pulse_message_encode(struct buf *out, const struct pulse_message *p)
{
    msgpack_packer pk = packer(out, WIRE_PULSE, 8);

    put_text(&pk, p->stage);
    put_text(&pk, p->instance);
    put_text(&pk, p->version);
    msgpack_pack_int64(&pk, p->pid);
    msgpack_pack_int64(&pk, p->started_us);
    msgpack_pack_int64(&pk, p->uptime_ms);
    put_bool(&pk, p->leaving);
    msgpack_pack_array(&pk, p->n_samples);
    for (size_t i = 0; i < p->n_samples; i++)
        put_sample(&pk, &p->samples[i]);
}

static void get_sample(struct reader *r, struct wire_sample *s)
{
    struct reader in, labels, cells;
    int64_t *list;

    get_array(r, "sample", SAMPLE_FIELDS, SAMPLE_FIELDS, &in);
    s->name = get_text(&in, "name", 100);
    s->n_labels = get_array(&in, "labels", 0, WIRE_LABELS_MAX, &labels);
    for (size_t i = 0; i < s->n_labels; i++)
        s->labels[i] = get_text(&labels, "label", 100);
    array_end(&in, &labels);
    if (in.bad || in.left == 0 || in.at->type != MSGPACK_OBJECT_ARRAY) {
        s->value = get_int(&in, "value", INT64_MIN, INT64_MAX);
        array_end(r, &in);
        return;
    }
    s->n_cells = get_array(&in, "histogram", 2, WIRE_CELLS_MAX, &cells);
    s->cells = list = ARENA_ARRAY(r->arena, s->n_cells, int64_t);
    for (size_t i = 0; i < s->n_cells; i++)
        list[i] = get_int(&cells, "cell", 0, INT64_MAX / WIRE_CELLS_MAX);
    array_end(&in, &cells);
    array_end(r, &in);
}

enum status pulse_message_decode(const struct pulse_message **out, struct arena *a, struct text msg,
                                 struct err *err)
{
    struct pulse_message *p = ARENA_NEW(a, struct pulse_message);
    struct wire_sample *list;
    struct reader r, in;

    TRY(message_expect(&r, a, msg, WIRE_PULSE, "pulse", err));
    p->stage = get_text(&r, "stage", 40);
    p->instance = get_text(&r, "instance", 200);
    p->version = get_text(&r, "version", 40);
    p->pid = get_int(&r, "pid", 0, INT64_MAX);
    p->started_us = get_time(&r, "started");
    p->uptime_ms = get_int(&r, "uptime_ms", 0, INT64_MAX);
    p->leaving = get_bool(&r, "leaving");
    p->n_samples = get_array(&r, "samples", 0, WIRE_SAMPLES_MAX, &in);
    p->samples = list = ARENA_ARRAY(a, p->n_samples, struct wire_sample);
    for (size_t i = 0; i < p->n_samples && !in.bad; i++)
        get_sample(&in, &list[i]);
    array_end(&r, &in);
    TRY(message_end(&r));
    *out = p;
    return ST_OK;
}
