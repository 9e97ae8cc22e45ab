"""Hosts whose clocks are wrong: ticks and leases go by the database's clock.

tests/CASES.md lists the cases.
"""

import glob
import os
import time

from harness import check, equal, wait_for
from runner import stack, test

FAKETIME = (sorted(glob.glob("/usr/lib/*/faketime/libfaketime.so.1")) or [None])[0]


def clock(s, offset):
    """An environment in which the host's clock is off by what the file says, and can be set while the process runs."""
    check(FAKETIME, "Debian's faketime is not installed")
    path = os.path.join(s.folder, "clock")
    set_clock(path, offset)
    return path, {"LD_PRELOAD": FAKETIME, "FAKETIME_TIMESTAMP_FILE": path, "FAKETIME_CACHE_DURATION": "1",
                  "FAKETIME_DONT_FAKE_MONOTONIC": "1", "ASAN_OPTIONS": "verify_asan_link_order=0"}


def set_clock(path, offset):
    with open(path + ".new", "w", encoding="ascii") as f:
        f.write(offset + "\n")
    os.rename(path + ".new", path)


def first_stamp(process):
    return process.text().split('"ts":"', 1)[1][:19]


@test("BR-068 two schedulers, one 90 s fast and then set back an hour, give each account one job a tick")
def _():
    with stack(sim={"accounts": 8}, env={"UF_BACKFILL": "2d"}) as s:
        names = s.add_accounts(range(8), hold=False)
        s.start_all(scheduler=0)
        path, env = clock(s, "+90s")
        fast = s.start("scheduler", UF_SCHEDULE="* * * * *", **env)
        right = s.start("scheduler", UF_SCHEDULE="* * * * *")
        began = time.time()
        for p in (fast, right):
            s.wait_ready(p)
        ahead = time.strptime(first_stamp(fast), "%Y-%m-%dT%H:%M:%S")
        check(time.mktime(ahead) - time.mktime(time.gmtime(began)) > 60, f"the fast clock shows {first_stamp(fast)}: the test proves nothing")

        def claims():
            return dict(s.sql("SELECT name, lease_epoch FROM accounts"))
        wait_for("each account's first job", lambda: min(claims().values()) >= 1, 30)
        set_clock(path, "-3600s")
        wait_for("each account's third job", lambda: min(claims().values()) >= 3, 150, 0.5)
        ticks = int((time.time() - began) / 60) + 2  # the new account's first job, and each minute begun
        for name, n in claims().items():
            check(n <= ticks, f"{name} was read {n} times in {time.time() - began:.0f} s")
        check('"accounts.claimed"' in fast.text() and '"accounts.claimed"' in right.text(), "one scheduler had nothing to do")
        twice = s.sql("SELECT tick, count(*) FROM fetch_runs WHERE kind = 'scheduled' GROUP BY 1 HAVING count(*) > 1")
        equal(twice, [], "ticks that ran twice")
        wrong = s.sql("SELECT tick FROM fetch_runs WHERE kind = 'scheduled' AND (tick > now() OR tick < now() - interval '10 minutes')")
        equal(wrong, [], "ticks by the wrong clock")
        equal(s.sim.stats()["max_concurrent_per_key"], 1, "requests of one key at once")
        wait_for("no job is out", lambda: s.value("SELECT count(*) = 0 FROM accounts WHERE lease_until IS NOT NULL"), 20)
        equal(sorted(names), sorted(claims()), "accounts")
        s.compare(range(8))
        s.stop_all()
