"""What has gone wrong for others between the processes: slow and absent peers, leases, COMMITs that fail,
rows that Postgres refuses.

tests/CASES.md lists the cases.
"""

import contextlib
import re
import threading
import time

import psycopg2

from harness import check, equal, matches, wait_for
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
    with open(f"/proc/{process.pid}/status", encoding="ascii") as f:
        return int(re.search(r"VmRSS:\s+(\d+) kB", f.read())[1]) / 1024


def ends_exact(s, waiting, accounts, seconds=60):
    wait_for("usagectl run --wait", lambda: not waiting.alive(), seconds)
    equal(waiting.child.returncode, 0, "usagectl run --wait:\n" + waiting.text())
    s.compare(accounts)
    s.stop_all()


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


# ---- commits ----

def commit_fails(s, times):
    """The next so many COMMITs of new rows fail, at COMMIT and not before."""
    s.sql("CREATE SEQUENCE commits_failed")
    s.sql("CREATE FUNCTION commit_fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF nextval('commits_failed') <= "
          f"{times} THEN RAISE EXCEPTION 'not now' USING ERRCODE = '40001'; END IF; RETURN NULL; END $$")
    for part, in s.sql("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'usage_metrics'::regclass"):
        s.sql(f"CREATE CONSTRAINT TRIGGER commit_fails AFTER INSERT ON {part} DEFERRABLE INITIALLY DEFERRED FOR EACH ROW "
              "EXECUTE FUNCTION commit_fail()")


@test("BR-076 a COMMIT that fails is tried again with the same batch")
def _():
    with stack(sim={"accounts": 5}, env={"UF_BACKFILL": "6d"}) as s:
        s.start_all()
        s.add_accounts(range(5))
        commit_fails(s, 3)
        waiting = s.background_usagectl("run", "--wait")
        wait_for("usagectl run --wait", lambda: not waiting.alive(), 60)
        equal(len(re.findall('"commit.retry"', s.one("writer").text())), 3, "commits that failed")
        check('"lease.expired"' not in s.one("scheduler").text(), "the batch came back with a new lease, not from the writer")
        ends_exact(s, waiting, range(5))


@test("BR-077 a writer that dies with a batch whose COMMIT failed: its pages are owed, and come again")
def _():
    with stack(sim={"accounts": 5}, env={"UF_BACKFILL": "6d"}) as s:
        s.start_all(scheduler={"UF_LEASE": "5s"})
        s.add_accounts(range(5))
        commit_fails(s, 1000000000)
        waiting = s.background_usagectl("run", "--wait")
        wait_for("commits fail", lambda: s.one("writer").text().count('"commit.retry"') >= 2, 30)
        s.one("writer").kill()
        wait_for("the leases run out", lambda: '"lease.expired"' in s.one("scheduler").text(), 20)
        equal(s.value("SELECT count(*) FROM usage_metrics"), 0, "rows, after no COMMIT")
        equal(s.value("SELECT count(*) FROM account_feeds WHERE watermark IS NOT NULL"), 0, "watermarks, after no COMMIT")
        s.sql("DROP FUNCTION commit_fail() CASCADE")
        s.wait_ready(s.start("writer"))
        ends_exact(s, waiting, range(5))


@test("BR-082 an account's commit moves its own watermark and nobody else's")
def _():
    with stack(sim={"accounts": 2}, env={"UF_BACKFILL": "6d"}) as s:
        s.start_all(scheduler={"UF_LEASE": "6s"}, writer={"UF_BATCH_MS": "0"})
        held, free = s.add_accounts(range(2))
        s.sim.fault(account=0, delay_ms=150)
        waiting = s.background_usagectl("run", "--wait")
        wait_for("the first account's job is out", lambda: s.sim.requests(0), 20)
        with contextlib.closing(psycopg2.connect(s.postgres.url("uf"))) as other:
            other.cursor().execute("SELECT 1 FROM accounts WHERE name = %s FOR UPDATE", (held,))
            wait_for("the second account is settled", lambda: len([f for f in s.feed_state(free).values() if f["watermark"]]) == 11, 20)
            wait_for("the writer has rows of the first", lambda: s.value(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'uf-writer' AND wait_event_type = 'Lock'"), 20)
            s.one("writer").kill()
        equal([f for f in s.feed_state(held).values() if f["watermark"]], [], "watermarks of the account that was not committed")
        s.wait_ready(s.start("writer"))
        ends_exact(s, waiting, range(2))


@test("BR-092 the writer's connection ends in the middle of COPY: the batch is owed and written")
def _():
    with stack(sim={"accounts": 20}, env={"UF_BACKFILL": "6d"}) as s:
        s.start_all()
        s.add_accounts(range(20))
        s.sql("CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.0002); RETURN NEW; END $$")
        s.sql("CREATE TRIGGER slowly BEFORE INSERT ON usage_metrics FOR EACH ROW EXECUTE FUNCTION slowly()")
        waiting = s.background_usagectl("run", "--wait")
        struck = 0
        while waiting.alive() and struck < 5:
            struck += s.value("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'uf-writer' "
                              "AND state = 'active' AND query LIKE 'COPY %%'")
            time.sleep(0.05)
        check(struck, "no COPY was struck: the test proves nothing")
        s.sql("DROP FUNCTION slowly() CASCADE")
        ends_exact(s, waiting, range(20), 90)


@test("BR-080 BR-089 rows that Postgres refuses are set aside, the page's others go in, and the window stays owed")
def _():
    with stack(sim={"accounts": 6}, env={"UF_BACKFILL": "6d"}) as s:
        s.start_all()
        s.add_accounts(range(6))
        s.sql("ALTER TABLE usage_metrics ADD CONSTRAINT picky CHECK (model IS DISTINCT FROM 'refused')")
        for row in (17, 5):
            s.sim.fault(account=0, feed="completions", do="field", name="model", row=row, raw='"refused"')
        s.sim.fault(account=3, feed="embeddings", do="field", name="model", raw='"refused"')
        run = s.run(code=1)
        equal((run["accounts_ok"], run["accounts_failed"]), (4, 2), "accounts that succeeded, and failed")
        s.compare((1, 2, 4, 5))
        for name, bad in (("sim-000000", "completions"), ("sim-000003", "embeddings")):
            state = s.feed_state(name)
            equal(state[bad]["watermark"], None, f"{name}: the watermark of the feed")
            matches("check constraint", state[bad]["detail"], f"{name}: what the feed says")
            equal({f["error"] for n, f in state.items() if n != bad}, {"ok"}, f"{name}: the account's other feeds")
        letters = s.sql("SELECT feed, sqlstate, count(*), sum(occurrences) FROM dead_letters GROUP BY 1, 2 ORDER BY 1")
        equal(letters, [("completions", "23514", 2, 2), ("embeddings", "23514", 1, 1)], "dead letters: two rows, and a page of bad rows")
        start = (s.sim.start_now - s.reach_s + 7200) // 3600 * 3600
        want = len([k for k in s.ledger_rows([0], start) if k[1] == "completions"])
        got = s.value("SELECT count(*) FROM usage_metrics JOIN accounts USING (account_id) WHERE name = 'sim-000000' AND "
                      "feed = 'completions' AND bucket_start >= to_timestamp(%s)", start)
        check(want - 2 <= got < want, f"{got} of the feed's {want} rows are in, against two that were refused")
        s.sim.clear_faults()
        s.run()
        s.compare(range(6))
        s.stop_all()


# ---- amounts ----

@test("BR-085 records are written by thousands, not one by one")
def _():
    with stack(sim={"accounts": 150, "density": "NORMAL"}, env={"UF_BACKFILL": "6d"}) as s:
        s.start_all(scheduler={"UF_LEASE": "60s"})
        s.add_accounts(range(150))
        began = time.monotonic()
        s.run(seconds=90)
        took = time.monotonic() - began
        rows, batches = commits(s, "inserted"), len(re.findall('"batch.commit"', s.one("writer").text()))
        check(rows > 50000, f"only {rows} rows: too few to prove anything")
        check(rows / batches > 1000, f"{rows} rows in {batches} transactions")
        check(rows / took > 2000, f"{rows} rows in {took:.1f} s")
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
