#include "common/crash.h"

#ifdef UF_CRASH_POINTS

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* One write, so that the lines of several processes do not mix. */
static void note(const char *file, const char *name)
{
    char line[128];
    int len = snprintf(line, sizeof(line), "%s\n", name);
    int fd = open(file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);

    if (fd < 0 || write(fd, line, (size_t)len) != len)
        abort(); /* a point that is not noted would pass for one that nobody passes */
    (void)close(fd);
}

/* Whether this is the process that dies, among all that are started with the same environment. */
static bool first(const char *file)
{
    int fd = open(file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    if (fd < 0)
        return false;
    (void)close(fd);
    return true;
}

static bool named(const char *at, const char *name)
{
    size_t len = strlen(name);

    return strncmp(at, name, len) == 0 && (at[len] == '\0' || at[len] == ':');
}

void crash_point(const char *name)
{
    static long passed; /* of the one point that CRASH_POINT_AT names */
    /* ZeroMQ sends from a thread of its own. What was handed to it gets away: that it does not is
     * what the point before the sending is for. */
    const struct timespec moment = {.tv_nsec = 20000000};
    const char *log = getenv("CRASH_POINT_LOG"), *at = getenv("CRASH_POINT_AT");
    const char *once = getenv("CRASH_POINT_ONCE"), *colon;
    long wanted = 1;

    if (log)
        note(log, name);
    if (!at || !named(at, name))
        return;
    colon = strchr(at, ':');
    if (colon)
        wanted = strtol(colon + 1, NULL, 10);
    if (++passed != wanted || (once && !first(once)))
        return;
    (void)nanosleep(&moment, NULL);
    (void)raise(SIGKILL);
}

#endif
