"""How often a feed is asked: each cycle while it has data, hourly once it has had none for days, at once on demand.

Time is the database's, which runs ahead by leaps from one account's slot to the next; the provider's follows.
"""

import collections
import os
import sys
import time

from faked import clock, set_clock
from harness import FEEDS, PG_BIN, Process, Stack, check, equal, wait_for
from runner import shared, stack, test

CYCLE, HOUR, DAY = 900, 3600, 86400
NOTHING = {"object": "page", "data": [], "has_more": False, "next_page": None}
BUSY, QUIET = 0, 1  # accounts: with figures in each hour; without any


class Leaping(Stack):
    """A stack whose Postgres can be told what time it is."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.ahead = 0
        self.postgres.stop()
        self.clock, env = clock(self, "+0s")
        self.postgres.process = Process("postgres", [f"{PG_BIN}/postgres", "-D", self.postgres.data],
                                        {"PATH": "/usr/bin:/bin", **env}, self.postgres.log, "/", user="postgres")
        self.postgres.wait_ready()
        self.asked = collections.defaultdict(list)  # (account, feed): when
        self.told = 0

    def now(self):
        return self.value("SELECT extract(epoch FROM now())::float8")

    def idle(self):
        return self.value("SELECT count(*) = 0 FROM accounts WHERE next_due <= now() OR lease_until IS NOT NULL")

    def note(self):
        """Takes down what was asked since the last time."""
        requests, now = self.sim.requests(), self.now()
        for account, _, path, _ in requests[self.told:]:
            self.asked[account, path.rsplit("/", 1)[-1]].append(now)
        self.told = len(requests)

    def leap(self):
        """To the moment after the next account is due, and through its cycle."""
        now, due = self.sql("SELECT extract(epoch FROM now())::float8, extract(epoch FROM min(next_due))::float8 FROM accounts")[0]
        self.ahead += max(0, due - now) + 1
        set_clock(self.clock, f"+{self.ahead:.0f}s")
        wait_for("the database's clock", lambda: self.now() > due, 10)
        self.sim.advance(max(0, int(self.now() - self.sim.now())))
        wait_for("the cycle", self.idle, 30, 0.02)
        self.note()

    def leap_for(self, seconds):
        end = self.now() + seconds
        while self.now() < end:
            self.leap()

    def gaps(self, account, feed):
        times = self.asked[account, feed]
        return [later - sooner for sooner, later in zip(times, times[1:])]


def two_accounts():
    s = Leaping(sim={"accounts": 2})
    s.sim.fault(do="status", status=200, body=NOTHING, account=QUIET)
    s.start_all(scheduler={"UF_SCHEDULE": "*/15 * * * *", "UF_LEASE": "60s"})
    s.add_accounts([BUSY, QUIET], hold=False)
    wait_for("the first cycle", lambda: s.value("SELECT count(*) = 22 FROM account_feeds") and s.idle(), 30)
    s.told = len(s.sim.requests())  # begins between two slots
    return s


def in_use(s, account):
    """Feeds that have brought rows in the last three days."""
    return {feed for feed, in s.sql("SELECT DISTINCT feed FROM usage_metrics JOIN accounts USING (account_id) WHERE name = %s "
                                    "AND bucket_start > now() - interval '3 days'", f"sim-{account:06d}")} - {"costs"}


@test("cadence: a feed in use each cycle, one without data for days and costs each hour: 11 requests an hour of a quiet account")
def _():
    s = shared(two_accounts)
    used = in_use(s, BUSY)
    check({"completions", "embeddings"} <= used and len(used) < 10, f"feeds in use: {used}")
    equal(in_use(s, QUIET), set(), "feeds in use of the quiet account")
    s.leap_for(3 * HOUR + CYCLE)
    for feed in FEEDS:
        for account, every in ((BUSY, CYCLE if feed in used else HOUR), (QUIET, HOUR)):
            gaps = s.gaps(account, feed)
            check(len(gaps) >= 3 * HOUR // every - 1, f"account {account}, {feed}: asked {len(gaps) + 1} times")
            # the first slot after an hour less a tenth may come early, once
            wrong = [g for g in gaps[1:] if abs(g - every) > 30]
            check(not wrong and gaps[0] < every + 30, f"account {account}, {feed}: seconds between two questions: {gaps}")
    begin = s.asked[QUIET, "completions"][0]
    per_hour = [sum(begin + h * HOUR - 30 <= t < begin + (h + 1) * HOUR - 30 for (a, _), times in s.asked.items() if a == QUIET
                    for t in times) for h in range(3)]
    equal(per_hour[1:], [11, 11], "requests of the quiet account in an hour, four cycles")
    s.run("sim-000000")
    s.compare([BUSY])


@test("cadence: a quiet feed is asked at once on demand, and each cycle once it has data")
def _():
    s = shared(two_accounts)
    s.sim.clear_stats()
    s.told = 0
    s.run("sim-000001")
    equal(sorted(r[2].rsplit("/", 1)[-1] for r in s.sim.requests(QUIET)), sorted(FEEDS), "what a run asks")
    s.sim.clear_faults()
    check(s.value("SELECT empty_since < now() - interval '3 days' FROM account_feeds JOIN accounts USING (account_id) "
                  "WHERE name = 'sim-000001' AND feed = 'completions'"), "the quiet account's completions: not known as empty")
    s.sim.restate(QUIET, "completions", s.sim.now() - s.sim.now() % HOUR, "add")
    s.asked.clear()
    s.told = len(s.sim.requests())
    s.leap_for(2 * HOUR)
    equal(s.value("SELECT empty_since FROM account_feeds JOIN accounts USING (account_id) WHERE name = 'sim-000001' "
                  "AND feed = 'completions'"), None, "empty_since of a feed in use")
    gaps = s.gaps(QUIET, "completions")
    check(len(gaps) >= 3 and all(abs(g - CYCLE) < 30 for g in gaps[1:]), f"seconds between two questions: {gaps}")


@test("cadence: what an audit of a month finds of old figures does not bring a quiet feed back to each cycle")
def _():
    with stack(sim={"accounts": 1}, env={"UF_BACKFILL": "20d"}) as s:
        s.start_all()
        s.add_accounts([BUSY])
        s.run()
        s.wait_backfill()
        # nothing since then; what was there is still there
        s.sql("UPDATE account_feeds SET empty_since = now() - interval '5 days' WHERE feed = 'completions'")
        s.sql("UPDATE account_feeds SET audited_30d_at = now() - interval '8 days'")
        s.run()
        check(s.value("SELECT empty_since < now() - interval '4 days' AND next_due > now() + interval '50 minutes' FROM account_feeds "
                      "WHERE feed = 'completions'"), "an audit that found nothing new has ended the quiet")
        s.run()
        check(s.value("SELECT empty_since IS NULL FROM account_feeds WHERE feed = 'completions'"), "a cycle's rows have not")
        s.stop_all()


# ---- python3 tests/e2e/run.py --only "a day" prints what docs/performance.md says ----

@test("cadence: a day of a busy and of a quiet account, counted")
def _():
    if not os.environ.get("UF_MEASURE_DAY"):
        return  # minutes, and nothing that the tests above do not check
    with stack(make=two_accounts) as s:
        began = time.monotonic()
        s.leap_for(CYCLE * 4)
        s.asked.clear()
        s.leap_for(DAY)
        for account in (BUSY, QUIET):
            n = sum(len(times) for (a, _), times in s.asked.items() if a == account)
            print(f"account {account}: {n} requests a day, {n / 96:.2f} a cycle; feeds in use {sorted(in_use(s, account))}", flush=True)
        print(f"({time.monotonic() - began:.0f} s)", file=sys.stderr)
