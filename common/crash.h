/* crash.h - the points at which a process may die, for tests/torture.
 *
 *     CRASH_POINT("writer.batch.committed"); // stage, noun, verb
 *
 * Nothing at all, unless built with `make CRASH=1`. Then the environment says what happens:
 *   CRASH_POINT_LOG=FILE    the name of each point that is passed is appended, a line each time
 *   CRASH_POINT_AT=NAME[:K] the process dies there by SIGKILL, the K-th time it comes by (1)
 *   CRASH_POINT_ONCE=FILE   made at that moment; when it is there, nobody dies any more */
#ifndef UF_CRASH_H
#define UF_CRASH_H

#ifdef UF_CRASH_POINTS
#define CRASH_POINT(name) crash_point(name)
void crash_point(const char *name);
#else
#define CRASH_POINT(name) ((void)0)
#endif

#endif
