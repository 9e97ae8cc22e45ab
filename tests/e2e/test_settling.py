"""When jobs that have ended are settled, and what else may have happened to their accounts meanwhile."""

import os
import time

from due import begun, due, wait_settled
from harness import FEEDS, check, equal, wait_for
from runner import test
from stub import Stub


@test("settle: while more jobs are out than have ended, those that end share a transaction")
def _():
    accounts, apart_s = 300, 0.2
    with due(accounts) as (s, scheduler):
        stub = Stub(os.path.join(s.folder, "run"), accounts, 0)
        stub.kept = {f"account-{n}" for n in range(1, accounts + 1)}
        with stub:
            wait_for("all jobs are out", lambda: stub.error or len(stub.came) == accounts, 30)
            for n in range(1, 101):
                stub.kept.discard(f"account-{n}")
                time.sleep(0.03)
            wait_for("these are settled", lambda: s.value("SELECT count(*) FROM accounts WHERE lease_until IS NOT NULL") == 200, 10)
            found = [began for began, _ in begun(scheduler, "jobs.settled")]
            check(len(found) > 5, f"{len(found)} settlements: the test proves nothing")
            gaps = [later - earlier for earlier, later in zip(found, found[1:])]
            check(min(gaps) > apart_s - 0.005, f"{min(gaps):.3f} s after the settlement before")  # the log has milliseconds
            stub.kept.clear()
            wait_settled(s)
        check(not stub.error, f"the stub: {stub.error}")
        check(sum(line["jobs"] for _, line in begun(scheduler, "jobs.settled")) >= accounts, "fewer jobs settled than accounts")  # some are due again
        s.stop_all()


@test("settle: a feed that somebody adds and turns off while its first reading goes on stays as it is; the others are noted")
def _():
    with due(1) as (s, scheduler):
        s.sql("DELETE FROM account_feeds")
        stub = Stub(os.path.join(s.folder, "run"), 1, 0)
        stub.kept = {"account-1"}
        with stub:
            wait_for("its job is out", lambda: stub.error or stub.came, 30)
            s.sql("INSERT INTO account_feeds (account_id, feed, enabled) VALUES (1, 'images', false)")
            stub.kept.clear()
            wait_settled(s)
        check(not stub.error, f"the stub: {stub.error}")
        equal(s.value("SELECT count(*) FROM account_feeds WHERE enabled AND last_error = 'ok'"), len(FEEDS) - 1, "feeds noted")
        equal(s.sql("SELECT enabled, last_attempt_at FROM account_feeds WHERE feed = 'images'")[0], (False, None), "the one that was added")
        check('"settle.retry"' not in scheduler.text(), "it was tried more than once")
        s.stop_all()
