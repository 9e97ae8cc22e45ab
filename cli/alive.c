/* alive.c - alive: whether a process says so itself, once a second and from its own loop; one that
 * hangs does not. */
#include <stdio.h>

#include "cli/cli.h"
#include "cli/pulses.h"
#include "common/clock.h"

#define ALIVE_WAIT_US (4 * US_PER_S)
#define LOOK_US       (50 * US_PER_MS)

enum status cmd_alive(struct cli *cli, const struct args *args, struct err *err)
{
    int64_t until_us = clock_mono_us() + ALIVE_WAIT_US;
    struct pulses *p = NULL;
    enum status st = pulses_open(&p, &cli->cfg, err);

    (void)args;
    while (st == ST_OK && instances_count(pulses_instances(p)) == 0 && clock_mono_us() < until_us)
        pulses_listen(p, clock_mono_us() + LOOK_US, -1);
    if (st == ST_OK) {
        cli->answer_is_no = instances_count(pulses_instances(p)) == 0;
        (void)puts(cli->answer_is_no ? "nothing is heard" : "alive");
    }
    pulses_close(&p);
    return st;
}
