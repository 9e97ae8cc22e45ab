"""What has gone wrong for others between the batch and the table: COMMITs that fail, connections that end, rows
that Postgres refuses.

tests/CASES.md lists the cases.
"""

import contextlib
import re
import time

import psycopg2

from casebook import ends_exact
from harness import check, equal, matches, wait_for
from runner import stack, test


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


@test("a batch goes off when no more pages come, however long it might wait for them")
def _():
    with stack(sim={"accounts": 1}, env={"UF_BACKFILL": "2d"}) as s:
        s.start_all(writer={"UF_BATCH_MS": "60000"})
        s.add_accounts([0])
        s.run(seconds=30)
        s.compare([0], s.sim.start_now - 86400)


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
            struck += s.value("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_progress_copy WHERE command = 'COPY FROM'")
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
        start = (s.sim.start_now - s.reach_s) // 86400 * 86400  # a first reading begins with a day, and the rows may lie in any hour of it
        want = len([k for k in s.ledger_rows([0], start) if k[1] == "completions"])
        got = s.value("SELECT count(*) FROM usage_metrics JOIN accounts USING (account_id) WHERE name = 'sim-000000' AND "
                      "feed = 'completions' AND bucket_start >= to_timestamp(%s)", start)
        check(want - 2 <= got < want, f"{got} of the feed's {want} rows are in, against two that were refused")
        s.sim.clear_faults()
        s.run()
        s.compare(range(6))
        s.stop_all()


@test("runs: rows whose COMMIT took longer than their lease are in the run's sums")
def _():
    with stack(sim={"accounts": 5}, env={"UF_BACKFILL": "6d"}) as s:
        s.start_all(scheduler={"UF_LEASE": "3s"})
        s.add_accounts(range(5))
        s.sql("CREATE SEQUENCE commits_slow")
        s.sql("CREATE FUNCTION commit_slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF nextval('commits_slow') = 1 THEN "
              "PERFORM pg_sleep(4); END IF; RETURN NULL; END $$")
        for part, in s.sql("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'usage_metrics'::regclass"):
            s.sql(f"CREATE CONSTRAINT TRIGGER commit_slow AFTER INSERT ON {part} DEFERRABLE INITIALLY DEFERRED FOR EACH ROW "
                  "EXECUTE FUNCTION commit_slow()")
        s.run()
        check('"lease.expired"' in s.one("scheduler").text(), "no lease ran out: the test proves nothing")
        wait_for("the run's sum is the table's rows", lambda: s.last_run()["rows_inserted"] == s.value("SELECT count(*) FROM usage_metrics"), 5)
        s.compare(range(5))
        s.stop_all()


@test("a settlement that is too much for Postgres at once is made in smaller parts, and the run ends")
def _():
    with stack(sim={"accounts": 40, "density": "SMALL"}) as s:
        s.start_all(scheduler={"UF_LEASE": "60s"})
        s.add_accounts(range(40))
        s.sql("""CREATE FUNCTION too_much() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                     IF (SELECT count(DISTINCT account_id) FROM written) > 3 THEN
                         RAISE EXCEPTION 'canceling statement due to statement timeout' USING ERRCODE = '57014';
                     END IF;
                     RETURN NULL;
                 END $$""")
        s.sql("CREATE TRIGGER too_much AFTER INSERT ON account_feeds REFERENCING NEW TABLE AS written FOR EACH STATEMENT "
              "EXECUTE FUNCTION too_much()")
        run = s.run()
        equal(run["accounts_ok"], 40, "accounts that succeeded")
        s.compare(range(40))
        matches('"settle.retry"', s.one("scheduler").text(), "the scheduler's log")


@test("while Postgres keeps a settlement waiting, others are claimed and read")
def _():
    with stack(sim={"accounts": 2, "density": "SMALL"}) as s:
        s.start_all()
        s.add_accounts(range(2))
        s.run()
        with contextlib.closing(psycopg2.connect(s.postgres.url("uf"))) as other:
            other.cursor().execute("UPDATE account_feeds SET enabled = true WHERE feed = 'costs' AND account_id = "
                                   "(SELECT account_id FROM accounts WHERE name = 'sim-000000')")
            held = s.background_usagectl("run", "--account", "sim-000000", "--wait")
            wait_for("a settlement that waits", lambda: s.value(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'uf-scheduler' AND wait_event_type = 'Lock'"), 5)
            s.sim.clear_stats()
            free = s.background_usagectl("run", "--account", "sim-000001", "--wait")
            wait_for("the other account is read meanwhile", lambda: len(s.sim.requests(1)) >= 11, 5)
            check(held.alive() and free.alive(), "a run has ended without its settlement")
            other.rollback()
        for waiting in (held, free):
            equal(waiting.ended(30), 0, "exit status of a run")
        s.compare(range(2))
        s.stop_all()
