"""Pages that come as they were last read go no further than the fetcher; and every way in which passing one
over would leave a wrong figure in the table."""

import time

from harness import BIN, NEXT, STAGES, Stack, check, equal, wait_for
from runner import shared, stack, test

HOUR, DAY = 3600, 86400
# Its rows name people, and what is stored of a person depends on the normalizer's settings: read each time.
READ_ALWAYS = "claude_code"


def quiet():
    """Account 0 (OpenAI) and 3 (Anthropic) have figures in every hour. After two runs every page that a cycle asks for is
    known: the first run reaches further back."""
    s = Stack(sim={"accounts": 3, "anthropic": 1}, env={"UF_BACKFILL": "4d"})
    s.start_all(scheduler={"UF_LEASE": "60s"})
    s.add_accounts(range(4))
    settle_down(s)
    s.wait_backfill()
    s.compare(range(4))
    return s


def settle_down(s):
    """Until every page that can be known is."""
    s.run()
    s.run()


def lookback(s, feed="completions"):
    """Start of the last bucket that had ended, which each cycle reads again."""
    now = s.sim.now()
    return now - now % DAY - DAY if feed == "costs" else s.sim.last_hour()


def known(s, account="sim-000000"):
    """Bytes that are kept of what is known of an account."""
    return s.value("SELECT coalesce(length(page_digests), 0) FROM accounts WHERE name = %s", account)


def one_feed(s, account="sim-000000", feed="completions"):
    """Value of a measure that the restatements of this module change."""
    return s.value("SELECT sum(input_tokens)::bigint FROM usage_metrics JOIN accounts USING (account_id) "
                   "WHERE name = %s AND feed = %s", account, feed)


def commits(s):
    return s.one("writer").text().count('"event":"batch.commit"')


def clock(seconds):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def inject(s, start, end, *more):
    s.usagectl("inject", "--account", "sim-000000", "--from", clock(start), "--to", clock(end), *more)


@test("unchanged: pages that come as they were read last are settled without normalizer and writer, and counted")
def _():
    s = shared(quiet)
    again = s.run()
    before, committed = s.written(), commits(s)
    run = s.run()
    always = sum(1 for r in s.sim.requests() if r[2].endswith(READ_ALWAYS)) // 4
    equal(run["pages_unchanged"], run["pages"] - always, "pages passed over, of all but Claude Code's")
    equal(again["pages_unchanged"], run["pages_unchanged"], "pages passed over in the cycle before")
    for column in ("pages", "rows_unchanged", "requests", "accounts_ok"):
        equal(run[column], again[column], f"{column}, as in the cycle before")
    for column in ("rows_inserted", "rows_updated", "rows_removed", "accounts_failed"):
        equal(run[column], 0, column)
    check(run["rows_unchanged"] > 20, "rows that are not written again are counted as unchanged")
    equal(s.written(), before, "number and place of the rows")
    check(commits(s) - committed <= always, "commits of a cycle in which only Claude Code is read")
    equal(s.value("SELECT count(*) FROM account_feeds WHERE last_error <> 'ok' OR consecutive_failures > 0 "
                  "OR last_success_at < now() - interval '1 minute'"), 0, "feeds that are not told as read just now")
    said = s.control({"cmd": "run_status", "run_id": run["run_id"]})
    equal(said["pages_unchanged"], run["pages_unchanged"], "run_status")
    check(f"    unchanged {run['pages_unchanged']:>17}\n" in s.last_output, "usagectl run --wait tells of them:\n" + s.last_output)
    check(f"{run['pages_unchanged']} of them unchanged" in s.usagectl("status").out, "usagectl status tells of them")
    s.compare(range(4))


@test("unchanged: the watermark follows the provider's clock all the same")
def _():
    with stack(sim={"accounts": 1}, env={"UF_BACKFILL": "2d"}) as s:
        s.start_all()
        s.add_accounts([0])
        settle_down(s)
        marks = {f: v["watermark"] for f, v in s.feed_state("sim-000000").items()}
        s.sim.fault(do="date", date_offset=HOUR)
        run = s.run()
        check(run["pages_unchanged"] == run["pages"] > 0, f"{run['pages_unchanged']} of {run['pages']} pages unchanged")
        after = {f: v["watermark"] for f, v in s.feed_state("sim-000000").items()}
        moved = {f for f in after if after[f] > marks[f]}
        check("completions" in moved and len(moved) >= 10, f"watermarks that moved: {moved}")
        s.stop_all()


# ---- what was known and is so no more ----

def there_and_back(s, meanwhile):
    """A figure that changes, is seen by something else than a cycle, and changes back: the cycle after sees the page it
    knew once."""
    settle_down(s)
    first = one_feed(s)
    s.sim.restate(0, "completions", lookback(s), percent=150)
    meanwhile(s)
    seen = one_feed(s)
    check(seen > first, "the other reading did not see the change: the test proves nothing")
    s.sim._ask("DELETE", "restatements")
    s.run()
    equal(one_feed(s), first, "the figure, once it is again what it was")
    s.compare(range(4))


@test("unchanged: value 5, an injection sees 6, the cycle sees 5 again: the table says 5")
def _():
    there_and_back(shared(quiet), lambda s: inject(s, lookback(s), lookback(s) + HOUR, "--feed", "completions", "--wait"))


@test("unchanged: value 5, an audit sees 6, the cycle sees 5 again: the table says 5")
def _():
    def audit(s):
        s.sql("UPDATE account_feeds SET audited_3d_at = now() - interval '25 hours'")
        equal(s.run("sim-000000")["pages_unchanged"], 0, "pages that an audit passes over")
    there_and_back(shared(quiet), audit)


@test("unchanged: value 5, a cycle sees 6, the next one 5 again: the table says 5")
def _():
    there_and_back(shared(quiet), lambda s: s.run())


@test("unchanged: value 5, another width sees 6, the cycle sees 5 again: the table says 5")
def _():
    with stack(sim={"accounts": 1}, env={"UF_BACKFILL": "2d"}) as s:
        s.start_all()
        s.add_accounts([0])
        settle_down(s)
        for width, sees in (("1d", 150), ("1h", None)):
            if sees:
                s.sim.restate(0, "completions", lookback(s), percent=sees)
            else:
                s.sim._ask("DELETE", "restatements")
            s.one("scheduler").stop()
            s.wait_ready(s.start("scheduler", UF_BUCKET=width))
            s.run()
        s.run()
        s.run()
        s.compare([0], s.sim.now() - s.sim.now() % DAY)
        s.stop_all()


@test("unchanged: value 5, a commit of 6 that no scheduler lives to hear of, then 5 again: the table says 5")
def _():
    with stack(sim={"accounts": 1}, env={"UF_BACKFILL": "2d", "UF_LEASE": "3s"}) as s:
        s.start_all()
        s.add_accounts([0])
        for how in ("injected", "in a cycle"):
            settle_down(s)
            first, at = one_feed(s), lookback(s)
            check(known(s) > 100, "nothing is known: the test proves nothing")
            s.sim.restate(0, "completions", at, percent=150)
            s.sim.fault(do="nothing", delay_ms=700)
            if how == "injected":
                inject(s, at, at + HOUR, "--feed", "completions")
            else:
                s.usagectl("run")
            held = s.one("scheduler")
            wait_for("the job is out", lambda: s.value("SELECT lease_until IS NOT NULL FROM accounts"), 10)
            time.sleep(0.3)  # it has left the scheduler
            held.pause()
            s.sim.clear_faults()
            wait_for("the change in the table", lambda: one_feed(s) > first, 15)
            held.kill()
            s.sim._ask("DELETE", "restatements")
            s.wait_ready(s.start("scheduler"))
            s.run(seconds=60)
            equal(one_feed(s), first, f"the figure, {how}, once it is again what it was")
            s.compare([0])
        s.stop_all()


@test("unchanged: a lease that ran out: what its fetcher passed over then counts for nothing")
def _():
    with stack(sim={"accounts": 1}, env={"UF_BACKFILL": "2d", "UF_LEASE": "4s"}) as s:
        s.start_all()
        s.add_accounts([0])
        settle_down(s)
        late = s.one("fetcher")
        s.sim.fault(do="nothing", delay_ms=800)
        asked = s.background_usagectl("run", "--wait")
        wait_for("the job is out", lambda: s.value("SELECT lease_until IS NOT NULL FROM accounts"), 10)
        wait_for("the first question", lambda: s.sim.requests()[-1][2].endswith("completions"), 10)
        late.pause()
        s.sim.clear_faults()
        s.sim.restate(0, "completions", lookback(s), percent=150)
        s.wait_ready(s.start("fetcher"))
        equal(asked.ended(60), 0, "usagectl run --wait")
        seen = one_feed(s)
        late.resume()
        wait_for("the late fetcher is through", lambda: late.text().count('"job.done"') >= 3 or late.text().count('"job.failed"') > 0, 30)
        time.sleep(0.5)
        equal(one_feed(s), seen, "the figure after the late fetcher's word")
        s.compare([0])
        run = s.run()
        s.compare([0])
        check(run["accounts_failed"] == 0, "a run after that")
        s.stop_all()


@test("unchanged: whoever claims in between without knowing of digests, as an older scheduler does, ends them")
def _():
    s = shared(quiet)
    settle_down(s)
    check(s.run()["pages_unchanged"] > 10, "pages unchanged before")
    s.sql("UPDATE accounts SET lease_epoch = lease_epoch + 1")
    equal(s.run()["pages_unchanged"], 0, "pages unchanged after another's claim")
    check(s.run()["pages_unchanged"] > 10, "pages unchanged after ours")
    s.sql("UPDATE accounts SET page_digests = '\\x0102030405'")
    equal(s.run()["pages_unchanged"], 0, "pages unchanged when the value is damaged")
    s.compare(range(4))


# ---- hand edits and dead letters ----

@test("unchanged: a hand edit is healed by the daily audit and by an injection, if not by a cycle before")
def _():
    s = shared(quiet)
    for heal in ("audit", "inject"):
        settle_down(s)
        at = lookback(s)
        s.sql("UPDATE usage_metrics SET input_tokens = 1, row_hash = 1 FROM accounts a WHERE a.account_id = usage_metrics.account_id "
              "AND a.name = 'sim-000000' AND feed = 'completions' AND bucket_start = to_timestamp(%s)", at)
        s.run()
        check(s.value("SELECT count(*) > 0 FROM usage_metrics WHERE input_tokens = 1 AND row_hash = 1"), "a cycle has read the page again: "
              "the test proves nothing")
        if heal == "audit":
            s.sql("UPDATE account_feeds SET audited_3d_at = now() - interval '25 hours'")
            s.run()
        else:
            inject(s, at, at + HOUR, "--wait")
        s.compare(range(4))


@test("unchanged: a page of which a row became a dead letter is read each time")
def _():
    s = shared(quiet)
    settle_down(s)
    plain = s.run("sim-000000")
    equal(plain["pages_unchanged"], plain["pages"], "pages unchanged before")
    s.sim.fault(do="field", account=0, feed="completions", name="input_tokens", raw='"x"', row=0)
    for n in (1, 2):
        run = s.run("sim-000000", code=1)
        equal(run["pages_unchanged"], run["pages"] - 1, f"pages unchanged, time {n}")
        equal(s.value("SELECT occurrences FROM dead_letters WHERE feed = 'completions'"), n, "times that the letter came")
    s.sim.clear_faults()
    run = s.run("sim-000000")
    equal(run["pages_unchanged"], run["pages"] - 1, "pages unchanged once the row can be read")
    s.run("sim-000000")  # after two failures a reading begins later; this one looks back again
    run = s.run("sim-000000")
    equal(run["pages_unchanged"], run["pages"], "pages unchanged after that")
    s.compare(range(4))


# ---- several pages ----

@test("unchanged: of several pages of an answer only the changed one is read, and rows that vanish from it go")
def _():
    s = shared(quiet)
    s.sim.options(costs_page_limit=1)
    settle_down(s)
    run = s.run("sim-000000")
    costs = sum(1 for r in s.sim.requests(0)[-run["requests"]:] if r[2].endswith("costs"))
    check(costs >= 4, f"{costs} pages of costs: too few to prove anything")
    equal(run["pages_unchanged"], run["pages"], "pages unchanged")
    day = lookback(s, "costs") - DAY
    for op in ({"op": "change", "percent": 90}, {"op": "vanish"}, {"op": "add", "amount": "-3.25"}):
        s.sim.restate(0, "costs", day, **op)
        run = s.run("sim-000000")
        equal(run["pages_unchanged"], run["pages"] - 1, f"pages unchanged after {op}")
        check(run["rows_inserted"] + run["rows_updated"] + run["rows_removed"] > 0, f"nothing changed by {op}")
        s.compare(range(4))
        run = s.run("sim-000000")
        equal(run["pages_unchanged"], run["pages"], "pages unchanged after that")
    s.sim._ask("DELETE", "restatements")
    equal(s.run("sim-000000")["pages_unchanged"], run["pages"] - 1, "pages unchanged once all is as first reported")
    s.compare(range(4))
    s.sim.options(costs_page_limit=31)


# ---- whose figures, and which program ----

@test("unchanged: another key, another address, or the account added anew: everything is read")
def _():
    s = shared(quiet)
    settle_down(s)
    key = s.sim.set_key(0, reissue=True)
    s.usagectl("account", "rotate-key", "sim-000000", "--key-file", "-", text=key + "\n")
    equal(s.run("sim-000000")["pages_unchanged"], 0, "pages unchanged under another key")
    check(s.run("sim-000000")["pages_unchanged"] > 10, "pages unchanged after that")
    s.sql("UPDATE accounts SET base_url = %s WHERE name = 'sim-000000'", s.sim.base_urls["anthropic"])  # served there, too
    equal(s.run("sim-000000")["pages_unchanged"], 0, "pages unchanged at another address")
    check(s.run("sim-000000")["pages_unchanged"] > 10, "pages unchanged after that")
    s.compare(range(4))
    s.usagectl("account", "remove", "sim-000000", "--yes")
    s.add_accounts([0])
    equal(s.run("sim-000000")["pages_unchanged"], 0, "pages unchanged of an account that was added anew")
    s.wait_backfill()
    s.compare(range(4))


@test("unchanged: another version reads everything once, whatever it knows; a restart alone reads nothing again")
def _():
    with stack(sim={"accounts": 2}, env={"UF_BACKFILL": "2d", "UF_LEASE": "20s"}) as s:
        s.start_all()
        s.add_accounts([0, 1])
        settle_down(s)
        equal((run := s.run())["pages_unchanged"], run["pages"], "pages unchanged")
        for folder, passed_over in ((BIN, True), (NEXT, False), (BIN, False)):
            s.stop_all()
            for stage in STAGES:
                s.wait_ready(s.start(stage, folder=folder))
            s.usagectl("run")
            wait_for("the run", lambda: s.last_run()["finished_at"], 30)
            run = s.last_run()
            equal(run["pages_unchanged"], run["pages"] if passed_over else 0, f"pages unchanged, {folder.rsplit('/', 1)[-1]}")
            s.compare([0, 1])
        s.stop_all()


@test("unchanged: two schedulers, three fetchers, two of the rest: what one knows the other uses")
def _():
    with stack(sim={"accounts": 30}, env={"UF_BACKFILL": "2d"}) as s:
        s.start_all(scheduler=2, fetcher=3, normalizer=2, writer=2)
        s.add_accounts(range(30))
        settle_down(s)
        for _ in range(3):
            run = s.run()
            equal(run["pages_unchanged"], run["pages"], "pages unchanged")
        s.sim.restate(3, "completions", lookback(s), "add")
        run = s.run()
        equal(run["pages_unchanged"], run["pages"] - 1, "pages unchanged after one changed")
        s.compare(range(30))
        s.stop_all()


@test("unchanged: a long backfill and a long injection leave no more to be kept than a cycle asks for")
def _():
    with stack(sim={"accounts": 1, "days": 400}, env={"UF_BACKFILL": "60d", "UF_LEASE": "60s"}) as s:
        s.start_all()
        s.add_accounts([0])
        settle_down(s)
        s.wait_backfill()
        inject(s, s.sim.now() - 390 * DAY, s.sim.now() - 300 * DAY, "--wait")
        settle_down(s)
        check(200 < known(s) < 800, f"{known(s)} bytes are kept of 11 feeds")
        s.stop_all()
