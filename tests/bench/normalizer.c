/* bench normalizer - a page's bytes to packed records, and the fetcher's peek, against yajl alone.
 *
 * Usage: normalizer FEED FROM_S BUCKET_S PAIRS FILE
 *
 * FILE is a page as the provider sends it, of an open-ended window that begins at FROM_S. yajl
 * reads the same bytes with callbacks that do nothing, as it comes. */
#include "tests/bench/bench.h"

#include <string.h>
#include <yajl/yajl_parse.h>

#include "common/providers/provider.h"
#include "normalizer/normalizer.h"

#define SLICE_US (60 * US_PER_MS) /* of each side of a pair */

struct bench {
    struct arena *arena;
    struct origin origin;
    struct page page;
    const struct feed *feed;
};

static void normalize(struct bench *b)
{
    struct record_page out;
    struct records records = {.origin = b->origin, .pages = &out, .n_pages = 1};
    struct buf message = {.arena = b->arena};

    normalize_page(&out, b->arena, &b->origin, &b->page, NULL);
    if (out.dead.reason.at || out.n_bad_rows > 0 || out.n_records == 0) {
        (void)fprintf(stderr, "bench: the page is not read as it should be\n");
        exit(1);
    }
    records_encode(&message, &records);
    arena_reset(b->arena);
}

static void peek(struct bench *b)
{
    struct question q = {.feed = b->feed, .window = b->page.asked};
    struct peek out;
    struct err err = {0};

    must(openai_provider.peek(&out, b->arena, &q, b->page.body, &err), &err);
    arena_reset(b->arena);
}

/* ---- the limit ---- */

static int nothing(void *ctx)
{
    (void)ctx;
    return 1;
}

static int nothing_bool(void *ctx, int value)
{
    (void)ctx;
    (void)value;
    return 1;
}

static int nothing_number(void *ctx, const char *at, size_t len)
{
    (void)ctx;
    (void)at;
    (void)len;
    return 1;
}

static int nothing_text(void *ctx, const unsigned char *at, size_t len)
{
    (void)ctx;
    (void)at;
    (void)len;
    return 1;
}

static void yajl_alone(struct bench *b)
{
    static const yajl_callbacks callbacks = {
        .yajl_null = nothing,
        .yajl_boolean = nothing_bool,
        .yajl_number = nothing_number,
        .yajl_string = nothing_text,
        .yajl_start_map = nothing,
        .yajl_map_key = nothing_text,
        .yajl_end_map = nothing,
        .yajl_start_array = nothing,
        .yajl_end_array = nothing,
    };
    yajl_handle h = yajl_alloc(&callbacks, NULL, NULL);

    if (yajl_parse(h, (const unsigned char *)b->page.body.at, b->page.body.len) != yajl_status_ok ||
        yajl_complete_parse(h) != yajl_status_ok) {
        (void)fprintf(stderr, "bench: yajl refuses the page\n");
        exit(1);
    }
    yajl_free(h);
}

/* MB of CPU second: the machine's other tenants cost less noise than on the clock. */
static double rate(struct bench *b, void (*step)(struct bench *b))
{
    double began = cpu_seconds(), took;
    size_t n = 0;

    do {
        for (int i = 0; i < 4; i++, n++)
            step(b);
        took = cpu_seconds() - began;
    } while (took < (double)SLICE_US / 1e6);
    return (double)(n * b->page.body.len) / 1e6 / took;
}

static struct text read_file(struct arena *a, const char *path)
{
    struct buf b = {.arena = a};
    char chunk[65536];
    size_t n;
    FILE *in = fopen(path, "rb");

    if (!in) {
        perror(path);
        exit(1);
    }
    while ((n = fread(chunk, 1, sizeof(chunk), in)) > 0)
        buf_append(&b, chunk, n);
    (void)fclose(in);
    return (struct text){b.at, b.len};
}

int main(int argc, char **argv)
{
    struct arena *kept = arena_new();
    struct bench b = {.arena = arena_new(), .origin = {.provider = TEXT_LIT("openai")}};

    heap_keep(); /* as a stage does */
    if (argc != 6) {
        (void)fprintf(stderr, "usage: normalizer FEED FROM_S BUCKET_S PAIRS FILE\n");
        return 2;
    }
    b.feed = feed_find(&openai_provider, text_of(argv[1]));
    if (!b.feed)
        return 2;
    b.page.asked = (struct window){.feed = text_of(argv[1]),
                                   .from_us = strtoll(argv[2], NULL, 10) * US_PER_S,
                                   .bucket_s = (uint32_t)strtoul(argv[3], NULL, 10)};
    b.page.body = read_file(kept, argv[5]);
    for (long i = strtol(argv[4], NULL, 10); i > 0; i--) {
        double limit = rate(&b, yajl_alone);
        report("normalize", rate(&b, normalize), limit);
        limit = rate(&b, yajl_alone);
        report("peek", rate(&b, peek), limit);
    }
    arena_free(&b.arena);
    arena_free(&kept);
    return 0;
}
