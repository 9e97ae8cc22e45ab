"""What has gone wrong for others between the processes: late pages, slow and absent peers, many rows.

tests/CASES.md lists the cases.
"""

import collections
import re
import threading
import time

from casebook import ends_exact
from harness import SANITIZED, check, equal, wait_for
from runner import stack, test


def commits(stack_, field):
    """The sum of one number over all batch.commit lines of all writers."""
    return sum(int(n) for p in stack_.processes if p.name.startswith("writer")
               for n in re.findall(rf'"batch.commit".*?"{field}":(\d+)', p.text()))


def settled(s, state="ok"):
    """Accounts that have ended so, in the newest run that was asked for."""
    return s.value("SELECT count(*) FROM run_accounts WHERE state = %s AND run_id = (SELECT run_id FROM fetch_runs "
                   "WHERE kind = 'manual' ORDER BY requested_at DESC LIMIT 1)", state)


def resident_mb(process):
    """Its memory; of a sanitizer's build, which keeps what was freed, nothing can be said."""
    if SANITIZED:
        return 0
    with open(f"/proc/{process.pid}/status", encoding="ascii") as f:
        return int(re.search(r"VmRSS:\s+(\d+) kB", f.read())[1]) / 1024


# ---- leases ----

@test("BR-067 a page that outlives its lease is refused, however late it comes")
def _():
    with stack(sim={"accounts": 6}, env={"UF_BACKFILL": "6d"}) as s:
        s.start_all(scheduler={"UF_LEASE": "4s"})
        s.add_accounts(range(6))
        first = s.one("writer")
        first.pause()  # alive, holds pages, and does nothing with them
        waiting = s.background_usagectl("run", "--wait")
        wait_for("all is read", lambda: s.one("fetcher").text().count('"job.done"') >= 6, 20)
        hour = s.sim.start_now - s.sim.start_now % 3600 - 7200
        for account in (0, 3):  # they have rows in each hour; what is held back is now out of date
            s.sim.restate(account, "completions", hour, percent=150)
        wait_for("the leases run out", lambda: '"lease.expired"' in s.one("scheduler").text(), 20)
        s.wait_ready(s.start("writer"))
        wait_for("newer jobs commit", lambda: s.value("SELECT count(DISTINCT account_id) FROM usage_metrics") > 1, 40)
        first.resume()
        wait_for("what the first writer held is refused", lambda: commits(s, "fenced") > 0, 30)
        ends_exact(s, waiting, range(6))
        equal(s.value("SELECT count(*) FROM usage_revisions"), 0, "changes by late pages")


# ---- peers that are slow, or not there ----

@test("BR-073 a fetcher that hardly moves holds no more than its credit; one that joins late gets its share")
def _():
    with stack(sim={"accounts": 80}, env={"UF_BACKFILL": "6d"}) as s:
        s.start_all(scheduler={"UF_LEASE": "30s"}, fetcher={"UF_IN_FLIGHT": "4", "UF_INSTANCE": "slow"})
        slow = s.one("fetcher")
        for name in ("quick-1", "quick-2"):
            s.wait_ready(s.start("fetcher", UF_IN_FLIGHT="4", UF_INSTANCE=name))
        wait_for("fetchers at the scheduler", lambda: len(s.control({"cmd": "status"})["fetchers"]) == 3, 20)
        s.add_accounts(range(80))
        s.sim.fault(delay_ms=40)
        ended = threading.Event()

        def crawl():  # about a hundredth of its speed
            while not ended.is_set():
                slow.pause()
                ended.wait(0.99)
                slow.resume()
                time.sleep(0.01)
        crawling = threading.Thread(target=crawl)
        crawling.start()
        try:
            waiting = s.background_usagectl("run", "--wait")
            time.sleep(2)
            late = s.start("fetcher", UF_IN_FLIGHT="4", UF_INSTANCE="late")
            most = 0

            def all_but_its_own():
                nonlocal most
                for f in s.control({"cmd": "status"})["fetchers"]:
                    most = max(most, f["held"] if f["instance"] == "slow" else 0)
                return settled(s) >= 76
            wait_for("the accounts that the slow one does not hold", all_but_its_own, 28)
        finally:
            ended.set()
            crawling.join()
        check(1 <= most <= 4, f"the slow fetcher held {most} jobs against a credit of 4")
        s.sim.clear_faults()
        check('"job.done"' in late.text(), "the fetcher that joined late had nothing to do")
        ends_exact(s, waiting, range(80))


@test("BR-074 no writer for a while: the others stay alive and small, and go on by themselves")
def _():
    with stack(sim={"accounts": 60, "density": "NORMAL"}, env={"UF_BACKFILL": "6d"}) as s:
        s.start_all(writer=0, scheduler={"UF_LEASE": "4s"})
        s.add_accounts(range(60))
        before = {p.name: resident_mb(p) for p in s.of()}
        waiting = s.background_usagectl("run", "--wait")
        end = time.monotonic() + 13  # three leases run out
        while time.monotonic() < end:
            equal(s.control({"cmd": "status"})["ok"], True, "the scheduler's answer meanwhile")
            time.sleep(0.5)
        check('"lease.expired"' in s.one("scheduler").text(), "no lease ran out: the test proves nothing")
        for p in s.of():
            if p.name in before:
                check(p.alive(), f"{p.name} ended")
                check(resident_mb(p) < before[p.name] + 96, f"{p.name} grew from {before[p.name]:.0f} to {resident_mb(p):.0f} MB")
        equal(s.value("SELECT count(*) FROM account_feeds WHERE watermark IS NOT NULL"), 0, "watermarks without a row written")
        s.wait_ready(s.start("writer"))
        ends_exact(s, waiting, range(60), 90)


@test("BR-074 a writer at a tenth of its speed: all stay small, nothing is dropped, and nothing is asked for twice afterwards")
def _():
    with stack(sim={"accounts": 150, "density": "NORMAL"}, env={"UF_BACKFILL": "6d"}) as s:
        s.start_all(scheduler={"UF_LEASE": "60s"})
        s.add_accounts(range(150))
        writer = s.one("writer")
        before = {p.name: resident_mb(p) for p in s.of()}
        most = dict(before)
        waiting = s.background_usagectl("run", "--wait")
        wait_for("the first commit", lambda: commits(s, "inserted") > 0, 20)
        began = time.monotonic()
        while time.monotonic() < began + 8 and settled(s) < 150:  # its backends in Postgres wait along with it
            writer.pause()
            time.sleep(0.18)
            writer.resume()
            time.sleep(0.02)
            for p in s.of():
                if p.name in before:
                    most[p.name] = max(most[p.name], resident_mb(p))
        check(time.monotonic() > began + 1, "all was over before: the test proves nothing")
        ends_exact(s, waiting, range(150), 90)
        for name, mb in most.items():
            check(mb < before[name] + 96, f"{name} grew from {before[name]:.0f} to {mb:.0f} MB")
        for p in s.processes:
            for word in ("dropped", "lease.expired", "fetcher.gone"):
                check(word not in p.text(), f"{p.name} tells of {word}")
        asked = collections.Counter((account, path, str(sorted(query.items()))) for account, _, path, query in s.sim.requests())
        equal([what for what, times in asked.items() if times > 1], [], "what was asked for more than once")


# ---- amounts ----

@test("BR-085 records are written by thousands, not one by one")
def _():
    with stack(sim={"accounts": 150, "density": "NORMAL"}, env={"UF_BACKFILL": "6d"}) as s:
        s.start_all(scheduler={"UF_LEASE": "60s"})
        s.add_accounts(range(150))
        s.run(seconds=90)
        rows, batches = commits(s, "inserted"), len(re.findall('"batch.commit"', s.one("writer").text()))
        check(rows > 50000, f"only {rows} rows: too few to prove anything")
        check(rows / batches > 1000, f"{rows} rows in {batches} transactions")
        took = commits(s, "us") / 1000000
        check(rows / took > 2000, f"{rows} rows in transactions of {took:.1f} s together")
        s.compare(range(150))
        s.stop_all()


@test("BR-022 thirty days, one after another: no process grows")
def _():
    with stack(sim={"accounts": 6}, env={"UF_BACKFILL": "2d"}) as s:
        s.start_all()
        s.add_accounts(range(6))
        sizes = {}
        for day in range(30):
            s.sim.advance(86400)
            s.run()
            if day == 9:
                sizes = {p.name: resident_mb(p) for p in s.of() if not p.name.startswith("usagectl")}
        s.compare(range(6))
        for p in s.of():
            if p.name in sizes:
                check(resident_mb(p) < sizes[p.name] + 12, f"{p.name} grew from {sizes[p.name]:.0f} to {resident_mb(p):.0f} MB")
        s.stop_all()
