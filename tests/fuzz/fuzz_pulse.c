/* What a listener takes from any sender: the list of processes stays whole, and all that is made of
 * it (JSON, Prometheus, the terminal) can be made. */
#include "cli/screen.h"
#include "cli/top.h"
#include "common/clock.h"
#include "common/instances.h"
#include "common/json.h"
#include "gateway/metrics.h"
#include "gateway/stages.h"
#include "tests/fuzz/fuzz.h"

/* No line is wider than 80 characters, and nothing in it moves a cursor. */
static void screen_holds(struct text text)
{
    size_t columns = 0;

    for (size_t i = 0; i < text.len;) {
        size_t n = utf8_sequence(text.at + i, text.len - i);
        HOLDS(n > 0 && ((unsigned char)text.at[i] >= 0x20 || text.at[i] == '\n'));
        columns = text.at[i] == '\n' ? 0 : columns + 1;
        HOLDS(columns <= 80);
        i += n;
    }
}

static void all_can_be_told(const struct instances *in)
{
    struct arena *a = arena_new();
    struct buf json = {.arena = a}, text = {.arena = a}, top = {.arena = a}, cut = {.arena = a};
    struct json_doc doc;
    struct err err;

    stages_write(&json, in, 0, US_PER_S);
    HOLDS(json_parse(&doc, a, (struct text){json.at, json.len}, &err) == ST_OK);
    HOLDS(json_member(doc.root, "instances")->n == instances_count(in));
    metrics_stages(&text, in, US_PER_S);
    for (struct text rest = {text.at, text.len}; rest.len > 0;) {
        struct text line = fuzz_line(&rest);
        HOLDS(line.len > 14 && (line.at[0] == '#' || memcmp(line.at, "usage_fetcher_", 14) == 0));
    }
    top_write(&top, in, 0, US_PER_S);
    screen_write(&cut, (struct text){top.at, top.len}, (struct screen){80, SIZE_MAX}, "\n");
    screen_holds((struct text){cut.at, cut.len});
    arena_free(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct instances *in = instances_new();
    struct pulse *p = pulse_new(STAGE_WRITER, "w");
    struct buf own = {.arena = arena_new()};
    struct err err;

    pulse_encode(&own, p, 0, false);
    HOLDS(instances_take(in, (struct text){own.at, own.len}, 0, &err) == ST_OK);
    for (int64_t second = 0; second < 2; second++) {
        if (instances_take(in, fuzz_text(data, len), second * US_PER_S, &err) != ST_OK)
            HOLDS(err.status == ST_REJECT && err.text[0]);
        HOLDS(instances_count(in) <= 2);
    }
    all_can_be_told(in);
    HOLDS(instances_forget(in, 100 * US_PER_S) <= 2 && instances_count(in) == 0);
    instances_free(&in);
    pulse_free(&p);
    arena_free(&own.arena);
    return 0;
}
