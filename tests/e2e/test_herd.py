"""After an outage all accounts are due at once: they are worked off oldest first, no more at once than there is credit for,
without a second herd a cycle later, and whoever asks for one account does not wait for the others."""

import collections
import os

from due import due, wait_settled
from harness import check, equal, wait_for
from runner import test
from stub import Stub

ACCOUNTS, CAPACITY, ANSWER_S = 6000, 200, 0.25
CYCLE_S = 900
BATCH = 512  # a claim's; within one the order is free
AT_ONCE = 3 * CAPACITY  # jobs that may come before one that is asked for: what is out, and a claim or two on their way


def asked(s, stub, account):
    """Asks for the account; answers how many jobs came before its own."""
    began = len(stub.came)
    answer = s.control({"cmd": "run", "account": account}, 30)
    check(answer["ok"], f"a run of {account}: {answer}")
    return before(stub, account, began)


def before(stub, account, began):
    """How many jobs came after the first `began` and before the account's."""
    wait_for(f"a job of {account}", lambda: stub.error or any(who == account for _, who in stub.came[began:]), 30, 0.02)
    check(not stub.error, f"the stub: {stub.error}")
    return [who for _, who in stub.came[began:]].index(account)


@test("after an outage: oldest first, evenly, never more than the credit, and one that is asked for comes at once")
def _():
    with due(ACCOUNTS) as (s, _):
        counts = collections.Counter()
        with Stub(os.path.join(s.folder, "run"), CAPACITY, ANSWER_S) as stub:
            kept = f"account-{BATCH}"
            stub.kept.add(kept)
            wait_for("a tenth of the herd", lambda: stub.error or len(stub.came) > ACCOUNTS // 10, 60)
            check(not stub.error, f"the stub: {stub.error}")
            # the last of the herd; one that has been read; and one whose job is out
            manual = {f"account-{ACCOUNTS}": 1, "account-1": 2, kept: 2}
            took = {account: asked(s, stub, account) for account in list(manual)[:2]}
            check(s.control({"cmd": "run", "account": kept})["ok"], "a run of an account whose job is out")
            stub.kept.clear()
            took[kept] = before(stub, kept, len(stub.came))
            left = ACCOUNTS - len(stub.came)
            check(left > ACCOUNTS // 5, f"only {left} were left to be read: the test proves nothing")
            check(max(took.values()) < AT_ONCE, f"jobs that came before one that was asked for: {took}")
            wait_for("the whole herd", lambda: stub.error or len(stub.firsts) == ACCOUNTS, 120)
            check(not stub.error, f"the stub: {stub.error}")
            wait_settled(s)
            came = list(stub.came)
        check(stub.most <= CAPACITY, f"{stub.most} jobs at once, and credit for {CAPACITY}")
        firsts, again = [], []  # an account whose slot of the new cycle comes soon is read again, after those that are older
        for place, (_, account) in enumerate(came):
            if account not in manual:
                seen = account in counts
                (again if seen else firsts).append(place if seen else int(account.split("-")[1]))
            counts[account] += 1
        late = max(abs(place - one) for place, one in zip(sorted(firsts), firsts))
        check(late <= BATCH, f"an account came {late} places from where its age would have it")
        check(not again or again[0] > ACCOUNTS - BATCH, f"the first to be read again was the {again[:1]}. job")
        equal({account: counts[account] for account in manual}, manual, "jobs of those that were asked for")
        pauses = [later[0] - sooner[0] for sooner, later in zip(came, came[1:])]
        check(max(pauses) < 10, f"no job for {max(pauses):.1f} s")  # of some 8 s, when nothing else is at work
        # the next cycle has them scattered: no second herd
        minutes = collections.Counter(s.sql(f"SELECT (extract(epoch FROM next_due)::bigint % {CYCLE_S}) / 60 FROM accounts"))
        check(len(minutes) == CYCLE_S // 60 and max(minutes.values()) < 1.5 * ACCOUNTS * 60 / CYCLE_S,
              f"accounts due by minute of the cycle: {sorted(minutes.values())}")
        s.stop_all()


@test("a fetcher whose link is full is slow and not gone: what it holds stays its own, and it gets more as soon as it reads")
def _():
    accounts, capacity = 3000, 2800  # its link holds 1,000 and what the sockets take
    with due(accounts) as (s, scheduler):
        with Stub(os.path.join(s.folder, "run"), capacity, 0.1, asleep_s=4, beat_s=9) as stub:
            wait_for("all are read", lambda: stub.error or len(stub.firsts) == accounts, 60)
            check(not stub.error, f"the stub: {stub.error}")
            equal(stub.beats, 1, "signs of life until then")
            wait_settled(s)
        text = scheduler.text()
        check('"fetcher.full"' in text, "its link never was full: the test proves nothing")
        check('"job.orphaned"' not in text and '"fetcher.unreachable"' not in text, "it was taken for gone")
        s.stop_all()
