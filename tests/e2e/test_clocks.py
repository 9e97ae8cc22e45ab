"""Hosts whose clocks are wrong: ticks and leases go by the database's clock, what is now by the provider's. And
the calendar's seams: leap days, ends of months and years, days of 23 and 25 hours.

tests/CASES.md lists the cases.
"""

import collections
import csv
import datetime
import io
import json
import time
import zoneinfo

from faked import clock, set_clock
from harness import NEVER, STAGES, Stack, check, equal, wait_for
from runner import shared, stack, test


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


# ---- each host's clock, and the provider's ----

@test("clocks: an hour fast or slow on the host of any one stage, or of them all: the table is the ledger")
def _():
    for offset in ("+3600s", "-3600s"):
        with stack(sim={"accounts": 3, "options": {"refuse_future": True}}, env={"UF_BACKFILL": "2d"}) as s:
            s.start_all()
            names = s.add_accounts(range(3))
            s.run(account=names[0])
            for wrong in [[stage] for stage in STAGES] + [STAGES]:
                before = {stage: s.one(stage) for stage in wrong}
                for stage in wrong:
                    before[stage].stop()
                    s.wait_ready(s.start(stage, **clock(s, offset)[1]))
                off = time.mktime(time.strptime(first_stamp(s.one(wrong[0])), "%Y-%m-%dT%H:%M:%S")) - time.mktime(time.gmtime())
                check(abs(off - int(offset[:-1])) < 60, f"{wrong[0]} shows {first_stamp(s.one(wrong[0]))}: the test proves nothing")
                s.sim.restate(0, "completions", s.sim.last_hour(), "add")
                s.run()
                s.compare(range(3))
                beyond = s.sql("SELECT feed, watermark FROM account_feeds WHERE watermark > to_timestamp(%s)", s.sim.now())
                equal(beyond, [], f"watermarks beyond the provider's now, with {' '.join(wrong)} at {offset}")
                for stage in wrong:
                    s.one(stage).stop()
                    s.wait_ready(s.start(stage))
            equal(s.value("SELECT count(*) FROM accounts WHERE lease_until > now() + interval '1 minute'"), 0, "leases by a wrong clock")
            s.stop_all()


@test("clocks: a provider whose Date is two hours ahead of ours, or behind: complete until its now, and not further")
def _():
    for hours in (2, -2):
        with stack(sim={"accounts": 2, "now": time.time() + hours * 3600, "options": {"refuse_future": True}}, env={"UF_BACKFILL": "2d"}) as s:
            s.start_all()
            s.add_accounts(range(2))
            for _ in range(2):
                s.run()
                s.compare(range(2))
                marks = s.value("SELECT array_agg(DISTINCT extract(epoch FROM watermark)::bigint) FROM account_feeds WHERE feed <> 'costs'")
                now = s.sim.now()
                check(all(now - 3600 <= m <= now + 1 for m in marks), f"watermarks {marks}, the provider's now is {now}")
                s.sim.advance(1800)
            s.stop_all()


# ---- the calendar ----

LAST_YEAR = time.gmtime().tm_year - 1
LEAP_YEAR = (LAST_YEAR // 4) * 4
SEAMS = {
    "a leap day": (f"{LEAP_YEAR}-02-28", f"{LEAP_YEAR}-03-02"),
    "no leap day, and spring's days of 23 hours": (f"{LAST_YEAR - (LAST_YEAR == LEAP_YEAR)}-02-27", f"{LAST_YEAR - (LAST_YEAR == LEAP_YEAR)}-04-08"),
    "autumn's days of 25 hours": (f"{LAST_YEAR}-09-29", f"{LAST_YEAR}-11-05"),
    "a year's end": (f"{LAST_YEAR - 1}-12-30", f"{LAST_YEAR}-01-03"),
}
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia")


def epoch(day):
    return int(datetime.datetime.fromisoformat(day + "T00:00:00+00:00").timestamp())


def injected():
    oldest = min(epoch(start) for start, _ in SEAMS.values())
    s = Stack(sim={"accounts": 1, "density": "NORMAL", "days": int(time.time() - oldest) // 86400 + 2}, env={"UF_BACKFILL": "1d", "UF_SCHEDULE": NEVER})
    s.start_all(scheduler={"UF_LEASE": "60s"})
    s.add_accounts([0])
    for start, end in SEAMS.values():
        s.usagectl("inject", "--account", "sim-000000", "--from", start, "--to", end, "--wait")
    return s


def provider_rows(s):
    """The ledger's rows within the seams."""
    oldest = min(epoch(start) for start, _ in SEAMS.values())
    spans = [(epoch(start), epoch(end)) for start, end in SEAMS.values()]
    rows = csv.DictReader(io.StringIO(s.sim.ledger([0], oldest).decode()))
    return [r for r in rows if any(a <= int(r["bucket_start"]) < b for a, b in spans)]


@test("calendar: leap day, ends of months and years: each bucket is there once, with its figures")
def _():
    s = shared(injected)
    want, got = collections.Counter(), collections.Counter()
    for r in provider_rows(s):
        at = (r["feed"], int(r["bucket_start"]), int(r["bucket_seconds"]))
        want[at] += 1
        want[(*at, "requests")] += int(r["num_requests"] or 0)
        want[(*at, "input")] += int(r["input_tokens"] or 0)
    for start, end in SEAMS.values():
        for feed, bucket, width, rows, requests, tokens in s.sql(
                "SELECT feed, extract(epoch FROM bucket_start)::bigint, bucket_seconds, count(*), coalesce(sum(num_requests), 0)::bigint, "
                "coalesce(sum(input_tokens), 0)::bigint FROM usage_metrics WHERE bucket_start >= to_timestamp(%s) AND "
                "bucket_start < to_timestamp(%s) GROUP BY 1, 2, 3", epoch(start), epoch(end)):
            at = (feed, bucket, width)
            got[at], got[(*at, "requests")], got[(*at, "input")] = rows, requests, tokens
    wrong = {k: (got[k], want[k]) for k in got.keys() | want.keys() if got[k] != want[k]}
    check(not wrong, f"{len(wrong)} buckets differ, as (table, provider): {dict(list(wrong.items())[:5])}")
    days = {time.strftime("%Y-%m-%d", time.gmtime(k[1])) for k in want}
    for day in (f"{LEAP_YEAR}-02-29", f"{LEAP_YEAR}-03-01", f"{LAST_YEAR - 1}-12-31", f"{LAST_YEAR}-01-01"):
        check(day in days, f"the provider has nothing on {day}: the test proves nothing")
    for day, next_day in SEAMS.values():
        check(s.value("SELECT count(*) > 0 FROM usage_metrics WHERE bucket_start >= to_timestamp(%s) AND bucket_start < "
                      "to_timestamp(%s)", epoch(day), epoch(next_day)), f"nothing from {day} to {next_day}")


@test("calendar: usage --tz: days of 23 and 25 hours, half and quarter hours: each hour counts once, on its own day")
def _():
    s = shared(injected)
    rows = [r for r in provider_rows(s) if r["feed"] != "costs"]
    for name in ZONES:
        zone = zoneinfo.ZoneInfo(name)
        for seam, (start, end) in SEAMS.items():
            # a day within, for what lies before midnight elsewhere was not asked for
            since, until = (datetime.date.fromisoformat(d) + datetime.timedelta(days=n) for d, n in ((start, 1), (end, -1)))
            want, hours = collections.Counter(), collections.Counter()
            for r in rows:
                local = datetime.datetime.fromtimestamp(int(r["bucket_start"]), zone)
                if since <= local.date() < until and int(r["bucket_seconds"]) == 3600:
                    want[local.date().isoformat()] += int(r["num_requests"] or 0)
                    hours[local.strftime("%Y-%m-%d %H:00")] += int(r["num_requests"] or 0)
            for by, expected in (("day", want), ("hour", hours)):
                got = collections.Counter()
                for line in json.loads(s.usagectl("usage", "--by", by, "--tz", name, "--since", since, "--until", until,
                                                  "--format", "json").out):
                    got[line[by]] += int(line["num_requests"] or 0)
                wrong = {k: (got[k], expected[k]) for k in got.keys() | expected.keys() if got[k] != expected[k]}
                check(not wrong, f"{name}, {seam}, requests by {by}, as (shown, provider's): {dict(list(wrong.items())[:5])}")
                check(sum(got.values()) > 0, f"{name}, {seam}: nothing is shown")
