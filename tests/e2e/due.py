"""A scheduler alone, and accounts that are all due."""

import contextlib
import datetime
import json

from harness import FEEDS, wait_for
from runner import stack
from stub import fill_ledger


@contextlib.contextmanager
def due(accounts):
    """A stack with a scheduler, ready, and so many accounts; nothing else runs."""
    with stack() as s:
        s.sql("SELECT 1")  # it has a connection
        with s.connection.cursor() as cursor:
            fill_ledger(cursor, accounts, FEEDS)
        scheduler = s.start("scheduler", UF_SCHEDULE="*/15 * * * *", UF_LEASE="60s")
        s.wait_ready(scheduler)
        yield s, scheduler


def wait_settled(s):
    wait_for("all is settled", lambda: s.value("SELECT count(*) = 0 FROM accounts WHERE lease_until IS NOT NULL"), 20)


def begun(scheduler, event):
    """Of each line of the log about something that took a while: when that began, in seconds, and the line. The log has milliseconds."""
    for line in map(json.loads, scheduler.text().splitlines()):
        if line["event"] == event:
            ended = datetime.datetime.fromisoformat(line["ts"].replace("Z", "+00:00")).timestamp()
            yield ended - line["us"] / 1e6, line
