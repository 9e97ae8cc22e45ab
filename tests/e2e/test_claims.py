"""A claim is not waited for: while Postgres works on it the scheduler goes on, and what has to know how it ended has its
turn then."""

import contextlib
import os
import signal
import threading
import time

import psycopg2

from due import begun, due, wait_settled
from harness import check, equal, wait_for
from pulses import Pulses
from runner import test
from stub import Stub

ACCOUNTS, CAPACITY = 300, 100


@contextlib.contextmanager
def claiming():
    """A scheduler whose claims take accounts and then wait for `blocker` to end its transaction."""
    with due(ACCOUNTS) as (s, scheduler):
        blocker = psycopg2.connect(s.postgres.url("uf"))
        with blocker.cursor() as cursor:
            cursor.execute("LOCK TABLE account_feeds IN ACCESS EXCLUSIVE MODE")
        with Stub(os.path.join(s.folder, "run"), CAPACITY, 0.1) as stub:
            claim_waits(s)
            try:
                yield s, scheduler, stub, blocker
            finally:
                blocker.close()


def claim_waits(s):
    wait_for("a claim that waits", lambda: s.value("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock')"), 10, 0.02)


def never(what, ask, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        check(not ask(), what)
        time.sleep(0.05)


class Asking(threading.Thread):
    """A request on the control socket that is not waited for."""

    def __init__(self, s, request):
        super().__init__(daemon=True)
        self.s, self.request, self.answer = s, request, None
        self.start()

    def run(self):
        self.answer = self.s.control(self.request, 30)


@test("claim: while Postgres works on it the scheduler hears its fetchers; a request is answered when it is over")
def _():
    with claiming() as (s, scheduler, stub, blocker):
        status = Asking(s, {"cmd": "status"})
        with Pulses(s) as pulses:
            wait_for("a pulse that tells of the fetcher", lambda: any(
                p["samples"].get(("fetchers_connected",)) for p in pulses.listen(1.2).values()), 5)
        check(status.answer is None and not stub.came, "it was not the claim that was waited for")
        s.sql("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        wait_for("a claim that failed", lambda: '"claim.retry"' in scheduler.text(), 5)
        wait_for("the answer", lambda: status.answer, 5)
        equal(s.value("SELECT count(*) FROM accounts WHERE lease_epoch > 0"), 0, "accounts with a lease of it")
        claim_waits(s)
        blocker.rollback()
        wait_for("all are read", lambda: stub.error or len(stub.firsts) == ACCOUNTS, 30)
        check(not stub.error, f"the stub: {stub.error}")
        wait_settled(s)
        s.stop_all()


@test("claim: when a pause is answered nothing more is claimed")
def _():
    with claiming() as (s, _, stub, blocker):
        pause = Asking(s, {"cmd": "pause"})
        never("an answer before the claim's", lambda: pause.answer, 0.5)
        blocker.rollback()
        wait_for("the answer", lambda: pause.answer, 10)
        claimed = s.value("SELECT sum(lease_epoch) FROM accounts")
        equal(claimed, CAPACITY, "accounts claimed")
        never("more than these claimed", lambda: s.value("SELECT sum(lease_epoch) FROM accounts") > claimed, 3)
        equal(len(stub.came), CAPACITY, "their jobs")
        s.stop_all()


@test("claim: a scheduler that is asked to stop gives back what it has just claimed, and sends none of it")
def _():
    with claiming() as (s, scheduler, stub, blocker):
        scheduler.send(signal.SIGTERM)
        never("an end before the claim's", lambda: not scheduler.alive(), 0.5)
        blocker.rollback()
        equal(scheduler.ended(), 0, "exit status")
        equal(s.sql("SELECT count(*), count(lease_until), count(*) FILTER (WHERE next_due <= now()) FROM accounts WHERE lease_epoch > 0")[0],
              (CAPACITY, 0, CAPACITY), "accounts claimed, with a lease, due")
        equal(len(stub.came), 0, "jobs sent")


@test("claim: while the fetchers have enough to do a little room waits for more")
def _():
    accounts, few, apart_s = 4000, 96, 0.1
    with due(accounts) as (s, scheduler):
        with Stub(os.path.join(s.folder, "run"), 200, 0.3, spread_s=0.2) as stub:
            wait_for("all are read", lambda: stub.error or len(stub.firsts) == accounts, 60)
            check(not stub.error, f"the stub: {stub.error}")
            wait_settled(s)
        claimed, before, gaps = 0, None, []
        for began, line in begun(scheduler, "accounts.claimed"):
            if claimed > accounts * 3 // 4:  # in the end there are few because no more are due
                continue
            claimed += line["accounts"]
            if before and line["accounts"] < few:
                gaps.append(began - before)
            before = began
        check(len(gaps) > 20, f"{len(gaps)} claims of few accounts: the test proves nothing")
        check(min(gaps) > apart_s - 0.005, f"{min(gaps):.3f} s after the claim before")  # the log has milliseconds
        s.stop_all()
