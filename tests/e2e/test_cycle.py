"""The main job: every row of many accounts arrives, exactly; the next cycle writes what changed."""

import time

from harness import FEEDS, STAGES, Failed, Stack, check, equal, wait_for
from runner import shared, stack, test

ACCOUNTS = 200


def whole():
    s = Stack(sim={"accounts": ACCOUNTS, "density": "NORMAL"})
    s.start_all(scheduler={"UF_LEASE": "60s"})
    s.add_accounts(range(ACCOUNTS))
    return s


@test("equality: 200 accounts x 11 feeds x 7 days, row for row and digit for digit")
def _():
    s = shared(whole)
    run = s.run()
    equal(run["accounts_ok"], ACCOUNTS, "accounts that succeeded")
    equal(run["accounts_failed"], 0, "accounts that failed")
    s.compare(range(ACCOUNTS))
    # The oldest hour is beyond what one request may ask for, so it is owed and follows.
    s.wait_backfill()
    rows = s.compare(range(ACCOUNTS), s.sim.start_now - s.reach_s)
    check(rows > 100000, f"only {rows} rows: too few to prove anything")
    equal(s.sql("SELECT sum(rows_inserted)::bigint, sum(rows_updated + rows_removed)::bigint FROM fetch_runs")[0], (rows, 0),
          "rows that the runs say they inserted, and changed")
    equal(sorted(f for f, in s.sql("SELECT DISTINCT feed FROM usage_metrics")), sorted(FEEDS), "feeds in the table")
    reach = s.value("SELECT max(date_trunc('hour', now() - interval '7 days') - bucket_start) FROM usage_metrics "
                    "WHERE feed = 'completions'")
    check(abs(reach.total_seconds()) <= 86400, f"the first cycle reaches 7 days back, not 7 days and {reach}")
    equal(s.value("SELECT count(*) FROM account_feeds WHERE watermark IS NULL OR last_error <> 'ok'"), 0,
          "feeds without a watermark, or not ok")


@test("equality: a second cycle, 15 minutes later, writes only the buckets that grew")
def _():
    s = shared(whole)
    if not s.value("SELECT count(*) FROM usage_metrics"):
        s.run()
    before = s.ledger_rows(range(ACCOUNTS))
    s.sim.advance(15 * 60)
    after = s.ledger_rows(range(ACCOUNTS))
    changed = {k for k in after if before.get(k) != after[k]}
    run = s.run()
    s.compare(range(ACCOUNTS))
    check(changed, "nothing grew in 15 minutes: the test proves nothing")
    equal(run["rows_inserted"] + run["rows_updated"], len(changed), "rows written, against rows that changed at the provider")
    equal(run["rows_removed"], 0, "rows removed")
    check(run["rows_unchanged"] > len(changed), "lookback: most of what is read again is unchanged")
    start = s.sim.now() - s.sim.settle_s
    old = s.value("SELECT count(*) FROM usage_metrics WHERE changed_at > first_seen_at AND feed <> 'costs' "
                  "AND extract(epoch FROM bucket_start) + bucket_seconds < %s", start - 15 * 60)
    equal(old, 0, "rows of settled buckets that were written again")


@test("equality: a third cycle at the same clock writes nothing at all")
def _():
    s = shared(whole)
    if not s.value("SELECT count(*) FROM usage_metrics"):
        s.run()
    before = s.written()
    run = s.run()
    equal(s.written(), before, "number and place of the rows")
    for column in ("rows_inserted", "rows_updated", "rows_removed"):
        equal(run[column], 0, column)
    s.compare(range(ACCOUNTS))
    equal(s.value("SELECT count(*) FROM dead_letters"), 0, "dead letters")


@test("scale: three fetchers, two normalizers, two writers, two schedulers give the same table")
def _():
    with stack(sim={"accounts": 60}, env={"UF_LOG": "debug"}) as s:
        s.start_all(fetcher=0, normalizer=2, writer=2, scheduler=2)
        for _ in range(3):  # none of them has room for all
            s.wait_ready(s.start("fetcher", UF_IN_FLIGHT="8"))
        # Work is handed out as it comes: only who is connected by then gets some.
        wait_for("fetchers at the scheduler", lambda: len(s.control({"cmd": "status"})["fetchers"]) == 3, 20)
        time.sleep(2.5)  # the other links look for newcomers every two seconds
        s.add_accounts(range(60))
        run = s.run()
        equal(run["accounts_ok"], 60, "accounts that succeeded")
        s.compare(range(60))
        for p in s.of("fetcher") + s.of("writer"):
            check("job.done" in p.text() or "batch.commit" in p.text(), f"{p.name} had nothing to do")
        for p in s.of("normalizer"):
            check("pages.normalized" in p.text(), f"{p.name} had nothing to do")
        s.stop_all()


@test("order: stages in any order, before Postgres is there, find each other")
def _():
    with stack(sim={"accounts": 5}) as s:
        s.add_accounts(range(5))
        s.postgres.stop()
        s.start("fetcher")
        s.start("normalizer")
        writer = s.start("writer")
        for stage in ("writer", "scheduler"):
            waiting = s.start(stage)
            wait_for(f"the {stage} says that Postgres is not there", lambda: "can not reach Postgres" in waiting.text(), 15)
            check(waiting.alive(), f"the {stage} does not wait for Postgres")
            equal(waiting.stop(), 0, f"exit status of a {stage} that was asked to stop while it waited")
        s.postgres.start()
        s.wait_ready(writer)
        s.start("scheduler")
        equal(s.run()["accounts_ok"], 5, "accounts that succeeded")
        s.compare(range(5))
        s.stop_all()


@test("order: writer first, scheduler last; and the reverse")
def _():
    for order in (tuple(reversed(STAGES)), STAGES):
        with stack(sim={"accounts": 3}) as s:
            s.add_accounts(range(3))
            for stage in order:
                s.wait_ready(s.start(stage))
            equal(s.run()["accounts_ok"], 3, f"accounts that succeeded, started as {order}")
            s.compare(range(3))
            s.stop_all()


@test("the comparison itself: a digit changed, a row missing, a row too many are each found")
def _():
    with stack(sim={"accounts": 2}, env={"UF_BACKFILL": "2d"}) as s:
        s.start_all()
        s.add_accounts([0])
        s.run()
        s.compare([0])
        day = "bucket_start = (SELECT max(bucket_start) FROM usage_metrics WHERE feed = 'costs') AND feed = 'costs'"
        for what, damage, repair in (
                ("the last digit of a cost", f"UPDATE usage_metrics SET cost_amount = cost_amount + 0.000000000000001 WHERE {day}",
                 f"UPDATE usage_metrics SET cost_amount = cost_amount - 0.000000000000001 WHERE {day}"),
                ("a missing row", f"CREATE TABLE kept AS SELECT * FROM usage_metrics WHERE {day}; DELETE FROM usage_metrics WHERE {day}",
                 "INSERT INTO usage_metrics SELECT * FROM kept"),
                ("a row too many", f"INSERT INTO usage_metrics SELECT (jsonb_populate_record(m, jsonb_build_object('row_key', "
                 f"gen_random_uuid()))).* FROM usage_metrics m WHERE {day}",
                 "DELETE FROM usage_metrics m WHERE feed = 'costs' AND NOT EXISTS (SELECT FROM kept k WHERE k.row_key = m.row_key) "
                 "AND bucket_start = (SELECT max(bucket_start) FROM kept)")):
            s.sql(damage)
            try:
                s.compare([0])
            except Failed:
                s.sql(repair)
                s.compare([0])
                continue
            raise Failed(f"{what} was not noticed")


@test("schedule: a tick of UF_SCHEDULE starts a cycle by itself, once, with two schedulers (BR-068)")
def _():
    with stack(sim={"accounts": 4}) as s:
        s.add_accounts(range(4), hold=False)
        s.start_all(scheduler=0)
        for _ in range(2):
            s.wait_ready(s.start("scheduler", UF_SCHEDULE="* * * * *"))
        wait_for("a scheduled run that ended", lambda: s.value(
            "SELECT count(*) FROM fetch_runs WHERE kind = 'scheduled' AND finished_at IS NOT NULL"), 90, 0.5)
        s.compare(range(4))
        twice = s.sql("SELECT tick, count(*) FROM fetch_runs WHERE kind = 'scheduled' GROUP BY 1 HAVING count(*) > 1")
        equal(twice, [], "ticks that ran twice")
        run = s.sql("SELECT jobs, accounts_total FROM fetch_runs WHERE kind = 'scheduled' AND finished_at IS NOT NULL "
                    "ORDER BY tick LIMIT 1")[0]
        check(run[0] <= 2 * 4, f"{run[0]} jobs for 4 accounts in one tick")
        s.stop_all()
