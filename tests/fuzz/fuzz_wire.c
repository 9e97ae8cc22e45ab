/* Every message between stages: what is accepted, encoded again, is accepted again and the same. */
#include "common/wire.h"
#include "tests/fuzz/fuzz.h"

#define MESSAGE(name, type)                                                                        \
    static bool recode_##name(struct buf *out, struct arena *a, struct text msg)                   \
    {                                                                                              \
        const struct type *m = NULL;                                                               \
        struct err err;                                                                            \
        if (name##_decode(&m, a, msg, &err) != ST_OK)                                              \
            return false;                                                                          \
        name##_encode(out, m);                                                                     \
        return true;                                                                               \
    }

MESSAGE(job, job)
MESSAGE(ready, ready)
MESSAGE(done, done)
MESSAGE(records, records)
MESSAGE(acks, acks)
MESSAGE(pulse_message, pulse_message)

/* Of what follows the head each page has as much as it tells of. */
static bool recode_pages(struct buf *out, struct arena *a, struct text msg)
{
    static const struct text bodies = {"{}{\"data\":[]}", 13};
    const struct pages *m = NULL;
    struct err err;

    for (size_t len = 0; len <= bodies.len; len++) {
        size_t at = 0;
        if (pages_decode(&m, a, msg, (struct text){bodies.at, len}, &err) != ST_OK)
            continue;
        for (size_t i = 0; i < m->n_pages; at += m->pages[i++].body.len)
            HOLDS(m->pages[i].body.at == bodies.at + at);
        HOLDS(at == len);
        pages_encode_head(out, m);
        return true;
    }
    return false;
}

static bool (*const recode[])(struct buf *out, struct arena *a, struct text msg) = {
    [WIRE_JOB] = recode_job,
    [WIRE_READY] = recode_ready,
    [WIRE_DONE] = recode_done,
    [WIRE_PAGES] = recode_pages,
    [WIRE_RECORDS] = recode_records,
    [WIRE_ACKS] = recode_acks,
    [WIRE_PULSE] = recode_pulse_message,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct arena *a = arena_new();
    struct buf once = {.arena = a}, twice = {.arena = a};
    enum wire_kind kind;
    struct err err;

    for (size_t k = WIRE_JOB; k <= WIRE_PULSE; k++) {
        if (!recode[k](&once, a, fuzz_text(data, len)))
            continue;
        HOLDS(wire_kind_of(&kind, fuzz_text(data, len), &err) == ST_OK && kind == k);
        HOLDS(recode[k](&twice, a, (struct text){once.at, once.len}));
        HOLDS(once.len == twice.len && memcmp(once.at, twice.at, once.len) == 0);
        break;
    }
    arena_free(&a);
    return 0;
}
