#include "gateway/spool.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#include "common/arena.h"

struct spool {
    char *memory; /* SPOOL_MEMORY bytes at most */
    size_t cap, len, read;
    int fd; /* -1: no file yet */
    off_t file_len, file_read;
    bool ended, broken;
};

struct spool *spool_new(void)
{
    struct spool *s = xalloc(1, sizeof(*s));

    s->fd = -1;
    return s;
}

void spool_free(struct spool **at)
{
    if (!*at)
        return;
    if ((*at)->fd >= 0)
        (void)close((*at)->fd);
    free((*at)->memory);
    free(*at);
    *at = NULL;
}

static int file_open(void)
{
    const char *folder = getenv("TMPDIR");
    char path[] = "/tmp/uf-answer-XXXXXX";
    int fd =
        open(folder && *folder ? folder : "/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC | O_EXCL, 0600);

    if (fd >= 0)
        return fd;
    fd = mkostemp(path, O_CLOEXEC); /* a file system that has no O_TMPFILE */
    if (fd >= 0)
        (void)unlink(path);
    return fd;
}

static void file_append(struct spool *s, const char *from, size_t len)
{
    if (s->fd < 0)
        s->fd = file_open();
    while (len > 0 && !s->broken) {
        ssize_t n = s->fd < 0 ? -1 : pwrite(s->fd, from, len, s->file_len);

        if (n <= 0) {
            s->broken = true; /* the disk is full: the reader sees a broken answer, no short one */
            return;
        }
        from += n;
        len -= (size_t)n;
        s->file_len += n;
    }
}

void spool_append(struct spool *s, const void *from, size_t len)
{
    if (s->file_len > 0 || s->len - s->read + len > SPOOL_MEMORY) {
        file_append(s, from, len);
        return;
    }
    if (s->read > 0) {
        memmove(s->memory, s->memory + s->read, s->len - s->read);
        s->len -= s->read;
        s->read = 0;
    }
    if (s->cap < s->len + len) {
        while (s->cap < s->len + len)
            s->cap = s->cap ? s->cap * 2 : 4096;
        s->memory = xrealloc(s->memory, s->cap, 1);
    }
    if (len > 0)
        memcpy(s->memory + s->len, from, len);
    s->len += len;
}

void spool_end(struct spool *s, bool good)
{
    s->ended = true;
    s->broken |= !good;
}

size_t spool_unread(const struct spool *s)
{
    return s->len - s->read + (size_t)(s->file_len - s->file_read);
}

bool spool_full(const struct spool *s)
{
    return spool_unread(s) > SPOOL_FULL;
}

bool spool_drained(const struct spool *s)
{
    return spool_unread(s) < SPOOL_FULL / 2;
}

long spool_read(struct spool *s, void *to, size_t max)
{
    size_t in_memory = s->len - s->read;
    ssize_t n;

    if (s->broken)
        return SPOOL_BROKEN;
    if (in_memory > 0) {
        if (max > in_memory)
            max = in_memory;
        memcpy(to, s->memory + s->read, max);
        s->read += max;
        return (long)max;
    }
    if (s->file_read < s->file_len) {
        if ((size_t)(s->file_len - s->file_read) < max)
            max = (size_t)(s->file_len - s->file_read);
        n = pread(s->fd, to, max, s->file_read);
        if (n <= 0)
            return SPOOL_BROKEN;
        s->file_read += n;
        if (s->file_read == s->file_len) { /* read to its end: from here on memory again */
            s->file_read = s->file_len = 0;
            if (ftruncate(s->fd, 0) < 0)
                s->broken = true;
        }
        return n;
    }
    return s->ended ? SPOOL_AT_END : 0;
}
