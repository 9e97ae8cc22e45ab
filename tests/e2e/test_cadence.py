"""How often a feed is asked: each cycle while it has data, hourly once it has had none for days, at once on demand."""

from harness import FEEDS, check, equal
from leaping import BUSY, QUIET, in_use, two_accounts
from runner import shared, stack, test

CYCLE, HOUR = 900, 3600


@test("cadence: a feed in use each cycle, one without data for days and costs each hour: 11 requests an hour of a quiet account")
def _():
    s = shared(two_accounts)
    used = in_use(s, BUSY)
    check({"completions", "embeddings"} <= used and len(used) < 10, f"feeds in use: {used}")
    equal(in_use(s, QUIET), set(), "feeds in use of the quiet account")
    s.leap_for(3 * HOUR + CYCLE)
    for feed in FEEDS:
        for account, every in ((BUSY, CYCLE if feed in used else HOUR), (QUIET, HOUR)):
            gaps = s.gaps(account, feed)
            check(len(gaps) >= 3 * HOUR // every - 1, f"account {account}, {feed}: asked {len(gaps) + 1} times")
            # the first slot after an hour less a tenth may come early, once
            wrong = [g for g in gaps[1:] if abs(g - every) > 30]
            check(not wrong and gaps[0] < every + 30, f"account {account}, {feed}: seconds between two questions: {gaps}")
    begin = s.asked[QUIET, "completions"][0]
    per_hour = [sum(begin + h * HOUR - 30 <= t < begin + (h + 1) * HOUR - 30 for (a, _), times in s.asked.items() if a == QUIET
                    for t in times) for h in range(3)]
    equal(per_hour[1:], [11, 11], "requests of the quiet account in an hour, four cycles")
    s.run("sim-000000")
    s.compare([BUSY])


@test("cadence: a quiet feed is asked at once on demand, and each cycle once it has data")
def _():
    s = shared(two_accounts)
    s.sim.clear_stats()
    s.told = 0
    s.run("sim-000001")
    equal(sorted(r[2].rsplit("/", 1)[-1] for r in s.sim.requests(QUIET)), sorted(FEEDS), "what a run asks")
    s.sim.clear_faults()
    check(s.value("SELECT empty_since < now() - interval '3 days' FROM account_feeds JOIN accounts USING (account_id) "
                  "WHERE name = 'sim-000001' AND feed = 'completions'"), "the quiet account's completions: not known as empty")
    s.sim.restate(QUIET, "completions", s.sim.now() - s.sim.now() % HOUR, "add")
    s.asked.clear()
    s.told = len(s.sim.requests())
    s.leap_for(2 * HOUR)
    equal(s.value("SELECT empty_since FROM account_feeds JOIN accounts USING (account_id) WHERE name = 'sim-000001' "
                  "AND feed = 'completions'"), None, "empty_since of a feed in use")
    gaps = s.gaps(QUIET, "completions")
    check(len(gaps) >= 3 and all(abs(g - CYCLE) < 30 for g in gaps[1:]), f"seconds between two questions: {gaps}")


@test("cadence: what an audit of a month finds of old figures does not bring a quiet feed back to each cycle")
def _():
    with stack(sim={"accounts": 1}, env={"UF_BACKFILL": "20d"}) as s:
        s.start_all()
        s.add_accounts([BUSY])
        s.run()
        s.wait_backfill()
        # nothing since then; what was there is still there
        s.sql("UPDATE account_feeds SET empty_since = now() - interval '5 days' WHERE feed = 'completions'")
        s.sql("UPDATE account_feeds SET audited_30d_at = now() - interval '8 days'")
        s.run()
        check(s.value("SELECT empty_since < now() - interval '4 days' AND next_due > now() + interval '50 minutes' FROM account_feeds "
                      "WHERE feed = 'completions'"), "an audit that found nothing new has ended the quiet")
        s.run()
        check(s.value("SELECT empty_since IS NULL FROM account_feeds WHERE feed = 'completions'"), "a cycle's rows have not")
        s.stop_all()
