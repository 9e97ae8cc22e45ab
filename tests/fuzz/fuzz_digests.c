/* What is known of an account's pages: what is read is bounded, and written again it is the same.
 */
#include "scheduler/digests.h"

#include "tests/fuzz/fuzz.h"

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
        digests_read(&again, digests_write(job.arena, &job));
        HOLDS(again.n_known == job.n_known);
        for (size_t i = 0; i < job.n_known; i++)
            same_feed(&again.known[i], &job.known[i]);
    }
    arena_free(&job.arena);
    return 0;
}
