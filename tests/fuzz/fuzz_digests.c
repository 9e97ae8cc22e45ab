/* What is known of an account's pages: what is read is bounded, and written again it is the same.
 */
#include "scheduler/digests.h"

#include <stdlib.h>

#include "tests/fuzz/fuzz.h"

static struct text from_hex(struct arena *a, struct text hex)
{
    char *out = arena_alloc(a, hex.len / 2 + 1, 1);

    for (size_t i = 0; i < hex.len / 2; i++) {
        const char two[] = {hex.at[2 * i], hex.at[2 * i + 1], '\0'};
        out[i] = (char)strtoul(two, NULL, 16);
    }
    return (struct text){out, hex.len / 2};
}

static void same_feed(const struct known_feed *got, const struct known_feed *want)
{
    HOLDS(text_eq(got->feed, want->feed));
    HOLDS(got->n == want->n);
    HOLDS(memcmp(got->pages, want->pages, want->n * sizeof(want->pages[0])) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct tracked_job job = {.arena = arena_new()}, again = {.arena = job.arena};
    uint64_t epoch = 0;

    for (size_t i = 1; i < 9 && i < len; i++)
        epoch = epoch << 8 | data[i];
    job.epoch = (int64_t)(epoch & INT64_MAX) == INT64_MAX ? 1 : (int64_t)(epoch & INT64_MAX) + 1;
    job.epoch -= job.epoch == INT64_MAX;
    again.epoch = job.epoch + 1;
    digests_read(&job, fuzz_text(data, len));
    HOLDS(job.n_known <= WIRE_WINDOWS_MAX);
    for (size_t i = 0; i < job.n_known; i++)
        HOLDS(job.known[i].n <= WIRE_KNOWN_MAX);
    if (job.n_known > 0) {
        digests_read(&again, from_hex(job.arena, digests_write(job.arena, &job)));
        HOLDS(again.n_known == job.n_known);
        for (size_t i = 0; i < job.n_known; i++)
            same_feed(&again.known[i], &job.known[i]);
    }
    arena_free(&job.arena);
    return 0;
}
