"""Accounts of both providers in one run: every row arrives, exactly, whosever it is."""

import json
import time

from harness import ANTHROPIC_FEEDS, FEEDS, Stack, check, equal, matches, wait_for
from runner import shared, stack, test

HOUR, DAY = 3600, 86400
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
        s.wait_backfill()
        check(s.value("SELECT count(*) FROM usage_metrics WHERE user_id LIKE '%%@%%'") > 0, "no address in the table")
        s.compare(s.sim.anthropic_accounts)
        s.stop_all()


@test("anthropic: no address of a person in any table or log; the same person is the same hash in all rows")
def _():
    s = shared(mixed)
    for table, in s.sql("SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace"):
        found = s.value(f'SELECT count(*) FROM "{table}" t WHERE t::text LIKE \'%%@%%.%%\' AND t::text NOT LIKE \'%%127.0.0.1%%\'')
        equal(found, 0, f"rows of {table} with an address")
    for path in s.log_files():
        with open(path, errors="replace") as log:
            text = log.read()
        check("@corp.example" not in text.lower() and "email_address" not in text, f"an address in {path}")
    matches("^person_[0-9a-f]{32}$", s.value("SELECT min(user_id) FROM usage_metrics WHERE feed = 'claude_code' AND user_id IS NOT NULL"),
            "the hash")
    check(s.value("SELECT count(DISTINCT user_id) < count(*) FROM usage_metrics WHERE feed = 'claude_code' AND user_id IS NOT NULL"),
          "each row has a person of its own")


@test("anthropic: without UF_PERSON_KEY people are not told apart, and the log says what to do")
def _():
    with stack(sim={"accounts": 1, "anthropic": 1}) as s:
        for stage in ("scheduler", "fetcher", "writer"):
            s.start(stage)
        normalizer = s.start("normalizer", UF_PERSON_KEY=None)
        for process in s.of():
            s.wait_ready(process)
        s.add_accounts([1])
        s.run()
        check(s.value("SELECT count(*) FROM usage_metrics WHERE feed = 'claude_code'"), "no Claude Code rows")
        equal(s.value("SELECT count(*) FROM usage_metrics WHERE feed = 'claude_code' AND user_id IS NOT NULL"), 0, "rows of a person")
        matches('"page.people_dropped".*UF_PERSON_KEY', normalizer.text(), "the normalizer's log")


@test("anthropic: a restated, a vanished and a new row of each feed end as the provider has them now, as revisions")
def _():
    with stack(sim={"accounts": 1, "anthropic": 1, "density": "NORMAL"}, env={"UF_BACKFILL": "32d"}) as s:
        s.start_all(scheduler={"UF_LEASE": "60s"})
        s.add_accounts([1])
        s.run()
        s.wait_backfill()
        s.compare([1])
        equal(s.value("SELECT count(*) FROM usage_revisions"), 0, "revisions after the first cycle")
        now = s.sim.now()
        hour, day = now - now % HOUR - 50 * HOUR, now - now % DAY - 2 * DAY
        for feed, at in (("messages", hour), ("cost_report", day), ("claude_code", day)):
            s.sim.restate(1, feed, at, percent=150, row=0)
            s.sim.restate(1, feed, at + (HOUR if feed == "messages" else -DAY), "vanish")
            s.sim.restate(1, feed, at, "add", **({"amount": "-3.25"} if feed == "cost_report" else {}))
        s.sql("UPDATE account_feeds SET next_due = now(), audited_3d_at = now() - interval '2 days', audited_30d_at = now() - "
              "interval '8 days'")
        s.run()
        s.compare([1])
        found = dict(s.sql("SELECT feed || ' ' || change, count(*) FROM usage_revisions GROUP BY 1"))
        for feed in ANTHROPIC_FEEDS:
            for change in ("changed", "vanished", "appeared"):
                check(found.get(f"{feed} {change}"), f"no revision '{feed} {change}': {found}")


@test("anthropic: page tokens that repeat, alternate, expire or are missing within a day end as such, nothing half is stored (BR-002, BR-004, BR-005)")
def _():
    with stack(sim={"accounts": 1, "anthropic": 3}) as s:
        s.start_all()
        s.sim.fault(do="cursor", cursor="same", feed="claude_code")
        s.add_accounts([3])
        s.run(code=1)
        equal(s.sql("SELECT last_error FROM account_feeds WHERE feed = 'claude_code'"), [("protocol",)], "how Claude Code ended")
        equal(s.value("SELECT count(*) FROM usage_metrics WHERE feed = 'claude_code'"), 0, "rows of days without an end")
        s.sim.clear_faults()
        s.sim.fault(do="expired", feed="claude_code", times=1)
        s.sql("UPDATE account_feeds SET next_due = now()")
        s.run(code=None)
        s.sim.clear_faults()
        s.sql("UPDATE account_feeds SET next_due = now()")
        s.run()
        s.wait_backfill()
        s.compare([3], s.sim.start_now - s.reach_s)


@test("anthropic: a workspace's key is wrong_key_kind with what to do; account check says in one line what a key reads")
def _():
    with stack(sim={"accounts": 1, "anthropic": 2}) as s:
        s.start_all()
        url = s.sim.base_urls["anthropic"]
        s.usagectl("account", "add", "wrong", "--provider", "anthropic", "--base-url", url, "--key-file", "-",
                   text=s.sim.project_key(1))
        s.usagectl("account", "add", "right", "--provider", "anthropic", "--base-url", url, "--key-file", "-", text=s.sim.key(2))
        s.run(code=1)
        ends = s.sql("SELECT DISTINCT last_error, last_error_detail FROM account_feeds JOIN accounts USING (account_id) WHERE name = 'wrong'")
        equal(ends[0][0], "wrong_key_kind", "how the workspace's key ended")
        matches("sk-ant-admin.*rotate-key", ends[0][1], "what to do")
        equal(len([r for r in s.sim.requests() if r[1] == 401]), 1, "requests with the wrong key: it is not hammered (BR-025)")
        s.usagectl("account", "rotate-key", "wrong", "--key-file", "-", text=s.sim.key(1))
        s.run()
        s.wait_backfill()
        equal(s.value("SELECT count(*) FROM owed_windows WHERE state <> 'done'"), 0, "older windows that were given up")
        check(s.value("SELECT count(*) FROM usage_metrics JOIN accounts USING (account_id) WHERE name = 'wrong' AND "
                      "bucket_start < now() - interval '6 days' AND feed = 'claude_code'"), "the older part never came")
        said = s.usagectl("account", "check", "right").out
        equal(said, "right: ok, the key can read messages, cost_report, claude_code\n", "account check")
        s.usagectl("account", "rotate-key", "wrong", "--key-file", "-", text=s.sim.project_key(1))
        said = s.usagectl("account", "check", "wrong", code=1).out
        matches("^wrong: nothing can be read: wrong_key_kind: .*sk-ant-admin", said, "account check of the wrong key")
        s.sim.set_key(2, feeds=["messages"])
        said = s.usagectl("account", "check", "right", code=1).out
        matches("cost_report: scope_missing", said, "account check of a narrow key")
        matches("right: ok, the key can read messages\n", said, "what it can read")


@test("anthropic: an injection of one past day reaches each feed, near now or far back")
def _():
    with stack(sim={"accounts": 1, "anthropic": 1}, env={"UF_BACKFILL": "1d"}) as s:
        s.start_all()
        s.add_accounts([1])
        s.run()
        for back in (1, 20):
            day = time.strftime("%Y-%m-%d", time.gmtime(s.sim.now() - back * DAY))
            end = time.strftime("%Y-%m-%d", time.gmtime(s.sim.now() - (back - 1) * DAY))
            said = s.usagectl("inject", "--account", "sim-000001", "--from", day, "--to", end, "--wait")
            equal(said.code, 0, f"the injection of {day}")
        day = s.sim.now() - s.sim.now() % DAY - 20 * DAY
        want = {k for k in s.ledger_rows([1], day) if day <= int(k[2]) < day + DAY}
        equal(s.value("SELECT count(*) FROM usage_metrics WHERE bucket_start >= to_timestamp(%s) AND bucket_start < to_timestamp(%s)",
                      day, day + DAY), len(want), "rows of the day")
        equal([r for r in s.sim.requests() if r[1] == 400], [], "refused requests")


@test("anthropic: usage sums count a call once, though Claude Code reports it again (BR-041)")
def _():
    s = shared(mixed)
    rows = json.loads(s.usagectl("usage", "--by", "provider", "--format", "json", "--since", "3d").out)
    by_feed = json.loads(s.usagectl("usage", "--by", "provider,feed", "--format", "json", "--since", "3d").out)
    total = sum(r["input_tokens"] or 0 for r in rows if r["provider"] == "anthropic")
    parts = {r["feed"]: r["input_tokens"] or 0 for r in by_feed if r["provider"] == "anthropic" and r["feed"] != "claude_code"}
    code = sum(r["input_tokens"] or 0 for r in by_feed if r["feed"] == "claude_code")
    check(code > 0, "no tokens by Claude Code: the test proves nothing")
    equal(total, sum(parts.values()), "Anthropic's input tokens, against those of its feeds that do not repeat")


@test("BR-007 the first cycle, and an injection of yesterday, ask Anthropic for nothing that is too recent")
def _():
    s = shared(mixed)
    name = s.names(s.sim.anthropic_accounts)[3]
    now = s.sim.now()
    iso = lambda t: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(t))
    s.usagectl("inject", "--account", name, "--feed", "cost_report", "--from", iso(now - 86400), "--to", iso(now), "--wait")
    s.usagectl("inject", "--account", name, "--feed", "claude_code", "--from", iso(now - 4 * 86400), "--to", iso(now), "--wait")
    refused = [r for r in s.sim.requests() if r[1] == 400]
    check(not refused, f"refused by the provider: {refused[:3]}")
    starts = {q["starting_at"][0] for _, _, path, q in s.sim.requests() if path.endswith("/cost_report")}
    check(starts and all(t.endswith("T00:00:00Z") for t in starts), f"the bill was asked for from {starts}")
    s.compare(s.sim.anthropic_accounts)


@test("BR-034 BR-037 BR-038 Anthropic's amounts are cents; cache reads and nested cache writes are input")
def _():
    s = shared(mixed)
    number = s.sim.anthropic_accounts[6]
    name, = s.names([number])
    s.sim.fault(do="field", account=number, feed="cost_report", name="amount", raw='"412.80"', row=0)
    for path, value in (("uncached_input_tokens", 200), ("cache_read_input_tokens", 800), ("cache_creation", '{"ephemeral_1h_input_tokens":30}')):
        s.sim.fault(do="field", account=number, feed="messages", name=path, raw=str(value))
    s.run(name)
    check(all(s.sim.fired()), f"faults that never struck: {s.sim.fired()}")
    equal(s.value("SELECT count(*) FROM usage_metrics JOIN accounts USING (account_id) WHERE name = %s AND cost_amount = 4.128", name), 1,
          "rows of $4.128")
    equal(s.sql("SELECT DISTINCT input_tokens, cached_input_tokens, cache_write_tokens, extra::text FROM usage_metrics "
                "JOIN accounts USING (account_id) WHERE name = %s AND feed = 'messages' "
                "AND bucket_start > now() - interval '90 min'", name),
          [(1030, 800, 30, '{"cache_creation.ephemeral_1h_input_tokens": 30}')], "input tokens of the last hour")
    s.sim.clear_faults()
    s.run(name)
    s.compare([number])
