"""A stack whose time leaps: the database's clock runs ahead from one account's slot to the next, the provider's follows."""

import collections

from faked import clock, set_clock
from harness import PG_BIN, Process, Stack, wait_for

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
    """Feeds whose first reading has brought rows: with old ones alone a feed is in use for some days more."""
    return {feed for feed, in s.sql("SELECT DISTINCT feed FROM usage_metrics JOIN accounts USING (account_id) WHERE name = %s",
                                    f"sim-{account:06d}")} - {"costs"}
