"""Accounts of both providers in one run: every row arrives, exactly, whosever it is."""

from harness import ANTHROPIC_FEEDS, FEEDS, Stack, check, equal, wait_for
from runner import shared, stack, test

OPENAI, ANTHROPIC = 6, 12
ACCOUNTS = range(OPENAI + ANTHROPIC)


def mixed():
    s = Stack(sim={"accounts": OPENAI, "anthropic": ANTHROPIC, "density": "NORMAL"})
    s.start_all(scheduler={"UF_LEASE": "60s"})
    s.add_accounts(ACCOUNTS)
    s.run()
    return s


def second_pages(s):
    """The Claude Code days that were asked for in more than one page: (account, date)."""
    return {(n, q["starting_at"][0]) for n, _, path, q in s.sim.requests() if path.endswith("/claude_code") and "page" in q}


def rows_of_others(s):
    return s.value("SELECT count(*) FROM usage_metrics m JOIN accounts a USING (account_id) WHERE m.provider <> a.provider")


@test("equality: accounts of OpenAI and of Anthropic in one run, row for row and digit for digit")
def _():
    s = shared(mixed)
    equal(s.last_run()["accounts_ok"], len(ACCOUNTS), "accounts that succeeded")
    s.compare(ACCOUNTS)
    s.wait_backfill()
    s.compare(ACCOUNTS, s.sim.start_now - s.reach_s)
    equal(sorted(f for f, in s.sql("SELECT DISTINCT feed FROM usage_metrics")), sorted(FEEDS + ANTHROPIC_FEEDS), "feeds in the table")
    equal(rows_of_others(s), 0, "rows of a provider that the account is not of")


@test("equality: 15 minutes later Anthropic's open buckets have grown, and at the same clock nothing is written")
def _():
    s = shared(mixed)
    s.sim.advance(15 * 60)
    s.run()
    s.compare(s.sim.anthropic_accounts)
    before = s.written()
    s.run()
    equal(s.written(), before, "where the rows lie, after a cycle in which nothing changed")


@test("Claude Code: days of more records than a page holds are whole, and no e-mail address is stored")
def _():
    s = shared(mixed)
    most = s.value("SELECT max(n) FROM (SELECT count(*) AS n FROM usage_metrics WHERE feed = 'claude_code' AND model IS NULL "
                   "GROUP BY account_id, bucket_start) days")
    check(most > 1000, f"no day had more than {most} records: the test proves nothing")
    check(second_pages(s), "no day was asked for in more than one page")
    equal(s.value("SELECT count(*) FROM usage_metrics m WHERE m::text LIKE '%@%' AND feed = 'claude_code'"), 0,
          "rows with an e-mail address")
    check(s.value("SELECT count(DISTINCT user_id) FROM usage_metrics WHERE feed = 'claude_code'") > 5, "people are told apart")
    s.compare(s.sim.anthropic_accounts, feeds=["claude_code"])


@test("Anthropic restates: rows changed, vanished and added, in every feed, are the provider's after the next cycle")
def _():
    s = shared(mixed)
    number = s.sim.anthropic_accounts[0]
    hour = s.sim.now() // 3600 * 3600
    day = hour - hour % 86400
    for feed, bucket in (("messages", hour - 3600), ("cost_report", day - 3 * 86400), ("claude_code", day - 86400)):
        s.sim.restate(number, feed, bucket, "change", percent=150)
        s.sim.restate(number, feed, bucket, "vanish", row=0)
        s.sim.restate(number, feed, bucket, "add")
    run = s.run()
    check(run["rows_removed"] >= 2, f"rows removed: {run['rows_removed']}")
    s.compare(s.sim.anthropic_accounts)


@test("Anthropic: a workspace's key is wrong_key_kind, 529 provider_error, 429 rate_limited; then all is there")
def _():
    s = shared(mixed)
    accounts = list(s.sim.anthropic_accounts[:3])
    names = s.names(accounts)
    s.sim.fault(do="status", status=529, account=accounts[1])
    s.sim.fault(do="status", status=429, account=accounts[2], headers={"retry-after": "600"})
    s.usagectl("account", "rotate-key", names[0], "--key-file", "-", text=s.sim.project_key(accounts[0]) + "\n")
    s.run(code=None)
    for name, error in zip(names, ("wrong_key_kind", "provider_error", "rate_limited")):
        equal({f: state["error"] for f, state in s.feed_state(name).items()}, dict.fromkeys(ANTHROPIC_FEEDS, error), name)
    s.sim.clear_faults()
    s.usagectl("account", "rotate-key", names[0], "--key-file", "-", text=s.sim.key(accounts[0]) + "\n")
    wait_for("a run in which all is well", lambda: s.run(code=None)["accounts_failed"] == 0, 60, 1)
    s.compare(s.sim.anthropic_accounts)


@test("Claude Code: a fetcher killed between two pages of a day, and a page that fails, leave no half day")
def _():
    with stack(sim={"accounts": 1, "anthropic": 3, "density": "NORMAL"}) as s:
        s.start_all(scheduler={"UF_LEASE": "5s"})
        s.add_accounts(s.sim.anthropic_accounts)
        s.sim.fault(do="nothing", feed="claude_code", page=2, delay_ms=3000)
        waiting = s.background_usagectl("run", "--wait")
        wait_for("a second page is asked for", lambda: any(s.sim.fired()), 20)
        s.one("fetcher").kill()
        s.sim.clear_faults()
        s.sim.fault(do="status", status=500, feed="claude_code", page=2, times=2)
        s.wait_ready(s.start("fetcher"))
        wait_for("usagectl run --wait", lambda: not waiting.alive(), 60)
        wait_for("a run in which all is well", lambda: s.run(code=None)["accounts_failed"] == 0, 60, 1)
        s.wait_backfill()
        check(second_pages(s), "no day had a second page: the test proves nothing")
        s.compare(s.sim.anthropic_accounts, s.sim.start_now - s.reach_s)
        s.stop_all()


@test("UF_KEEP_EMAIL=1: addresses are stored, lower-cased")
def _():
    with stack(sim={"accounts": 1, "anthropic": 1, "density": "NORMAL"}, env={"UF_KEEP_EMAIL": "1"}) as s:
        s.start_all()
        s.add_accounts(s.sim.anthropic_accounts)
        s.run()
        check(s.value("SELECT count(*) FROM usage_metrics WHERE user_id LIKE '%%@%%'") > 0, "no address in the table")
        s.compare(s.sim.anthropic_accounts)
        s.stop_all()
