"""What the tests of cases share: one stack, and simulator accounts of their own for each test."""

import itertools

from harness import Stack, equal, wait_for
from runner import shared

_numbers = itertools.count(10)


def running():
    s = Stack(sim={"accounts": 1000, "density": "NORMAL"}, env={"UF_BACKFILL": "6d"})
    s.start_all()
    return s


def account(first_run=False, feeds=("completions", "costs"), last_hour=False):
    """A stack, the number of a new account that has rows in `feeds` (with last_hour: in the last one that is over), and its name."""
    s = shared(running)
    s.sim.clear_faults()
    since, until = s.sim.start_now - 5 * 86400, s.sim.now()
    if last_hour:
        since = until = s.sim.last_hour()
    number = next(_numbers)
    while not set(feeds) <= {k[1] for k in s.ledger_rows([number], since) if int(k[2]) <= until}:
        number = next(_numbers)
    name, = s.add_accounts([number])
    if first_run:
        s.run(account=name)
        s.compare([number])
        s.sim.clear_stats()
    return s, number, name


def heals(s, number, name):
    """The fault is over: a run, and the table is the ledger."""
    s.sim.clear_faults()
    run = s.run(account=name)
    s.compare([number])
    for feed, state in s.feed_state(name).items():
        equal(state["error"], "ok", f"{feed} after the fault is over")
    return run


def row_of(s, name, feed, where="true"):
    """The columns of the first row, as JSON with numbers as text."""
    found = s.sql(f"SELECT jsonb_object_agg(k, v) FROM (SELECT to_jsonb(m) j FROM usage_metrics m JOIN accounts a USING (account_id) "
                  f"WHERE a.name = %s AND feed = %s AND {where} ORDER BY bucket_start, row_key LIMIT 1) x, jsonb_each_text(j) e(k, v)",
                  name, feed)
    return found[0][0] or {}


def ends_exact(s, waiting, accounts, seconds=60):
    """The run that `waiting` waits for succeeds, and the table is the ledger."""
    wait_for("usagectl run --wait", lambda: not waiting.alive(), seconds)
    equal(waiting.child.returncode, 0, "usagectl run --wait:\n" + waiting.text())
    s.compare(accounts)
    s.stop_all()
