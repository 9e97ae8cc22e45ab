"""What has gone wrong for others between provider and pipeline: paging, refusals, broken answers.

tests/CASES.md lists the cases; the simulator's faults play them.
"""

import time

from casebook import account, heals
from harness import FEEDS, check, equal, matches
from runner import stack, test

# Costs are the feed with more than one page: costs_page_limit=1 makes 8 of a week.

@test("BR-001 a page cap is not the end: complete after at most two runs")
def _():
    with stack(sim={"accounts": 3, "options": {"costs_page_limit": 1}}) as s:
        s.start_all(fetcher={"UF_PAGE_CAP": "5"}, scheduler={"UF_PAGE_CAP": "5"})
        name, = s.add_accounts([0])
        s.run(account=name, code=None)
        state = s.feed_state(name)["costs"]
        pages = len([r for r in s.sim.requests(0) if r[2].endswith("/costs")])
        check(pages <= 5 or state["error"] == "ok", f"{pages} pages in one job against a cap of 5, and yet {state}")
        s.run(account=name)
        s.compare([0])
        starts = [p["start_time"][0] for _, _, path, p in s.sim.requests(0) if path.endswith("/costs") and "page" not in p]
        check(len(starts) >= 2, f"costs was asked {starts}: the cap never struck")
        s.stop_all()


def no_token(cursor):
    s, number, name = account()
    s.sim.fault(account=number, feed="completions", do="cursor", cursor=cursor)
    s.run(account=name, code=1)
    state = s.feed_state(name)
    equal(state["completions"]["error"], "protocol", "how it ended")
    matches("more|next_page|token", state["completions"]["detail"], "what it says")
    equal(state["completions"]["watermark"], None, "the watermark")
    equal({state[f]["error"] for f in FEEDS if f != "completions"}, {"ok"}, "the other feeds")
    asked = s.sim.stats(number)["by_feed"]["completions"]
    check(asked <= 8, f"{asked} requests for a page without a token")
    heals(s, number, name)


@test("BR-002 has_more with next_page null is a protocol error, not the end")
def _():
    no_token("null")


@test("BR-002 has_more without next_page is a protocol error, not the end")
def _():
    no_token("absent")


@test("BR-002 has_more with an empty next_page is a protocol error, not the end")
def _():
    no_token("empty")


@test("BR-002 has_more with a number for next_page is a protocol error")
def _():
    no_token("number")


@test("BR-002 control: an empty page with a fresh token is legal and read on")
def _():
    s, number, name = account()
    s.sim.fault(account=number, do="empty_page", page=1)
    s.run(account=name)
    check(s.sim.fired()[0] >= len(FEEDS), "the fault never struck")
    s.compare([number])


@test("BR-004 a cursor that repeats is a protocol error; what follows stays owed")
def _():
    with stack(sim={"accounts": 3, "options": {"costs_page_limit": 1}}) as s:
        s.start_all()
        name, = s.add_accounts([0])
        s.sim.fault(account=0, feed="costs", do="cursor", cursor="same", page_over=2)
        s.run(account=name, code=1)
        state = s.feed_state(name)["costs"]
        equal(state["error"], "protocol", f"how it ended: {state}")
        asked = s.sim.stats(0)["by_feed"]["costs"]
        check(asked <= 20, f"{asked} requests along a repeating cursor")
        s.sim.clear_faults()
        s.run(account=name)
        s.compare([0])
        # Two cursors that take turns are the same circle, one longer.
        s.sim.fault(account=0, feed="costs", do="cursor", cursor="alternate")
        s.sql("UPDATE account_feeds SET watermark = NULL WHERE feed = 'costs'")
        s.sim.clear_stats()
        s.run(account=name, code=1)
        asked = s.sim.stats(0)["by_feed"]["costs"]
        check(asked <= 40, f"{asked} requests around two alternating cursors")
        s.sim.clear_faults()
        s.run(account=name)
        s.compare([0])
        s.stop_all()


@test("BR-005 an expired page token is dropped and its window begun again, once")
def _():
    with stack(sim={"accounts": 3, "options": {"costs_page_limit": 2}}) as s:
        s.start_all()
        name, = s.add_accounts([0])
        s.sim.fault(account=0, feed="costs", do="expired", page=3, times=1)
        s.run(account=name)
        equal(s.sim.fired(), [1], "how often the fault struck")
        s.compare([0])
        # Tokens that are refused again and again make no circle: what came before each is kept.
        s.sim.clear_faults()
        s.sim.clear_stats()
        s.sim.fault(account=0, feed="costs", do="expired")
        s.sql("UPDATE account_feeds SET watermark = NULL WHERE feed = 'costs'")
        s.run(account=name, code=None)
        asked = s.sim.stats(0)["by_feed"]["costs"]
        check(asked <= 20, f"{asked} requests with tokens that are refused")
        s.sim.clear_faults()
        s.run(account=name)
        s.compare([0])
        # The same refusal of a request that carried no token is an error of its own.
        s.sim.clear_stats()
        s.sim.fault(account=0, feed="costs", do="status", status=400, body={"error": {
            "message": "Invalid page token: it has expired.", "type": "invalid_request_error", "param": "page", "code": None}})
        s.run(account=name, code=1)
        check(s.feed_state(name)["costs"]["error"] in ("bad_window", "protocol"), f"{s.feed_state(name)['costs']}")
        asked = s.sim.stats(0)["by_feed"]["costs"]
        check(asked <= 4, f"{asked} requests that are refused without a token")
        s.stop_all()


@test("BR-007 costs start on a UTC midnight; a refusal's body is kept, redacted")
def _():
    s, number, name = account()
    s.sim.fault(account=number, feed="costs", do="status", status=400,
                body={"error": {"message": "start_time is too recent for daily buckets, key {key}", "type": "invalid_request_error",
                                "param": "start_time", "code": None}})
    s.run(account=name, code=1)
    state = s.feed_state(name)["costs"]
    equal(state["error"], "bad_window", "how it ended")
    matches("too recent for daily buckets", state["detail"], "what is kept of the refusal")
    check(s.sim.key(number) not in state["detail"], "the key is in the detail")
    for _, _, path, p in s.sim.requests(number):
        width = 86400 if path.endswith("/costs") else 3600
        equal(int(p["start_time"][0]) % width, 0, f"start_time of {path}, off its bucket by")
    heals(s, number, name)


@test("BR-008 a host clock ahead of the provider's asks for nothing in its future")
def _():
    with stack(sim={"accounts": 2, "now": time.time() - 600, "options": {"refuse_future": True}}) as s:
        s.start_all()
        name, = s.add_accounts([0])
        s.run(account=name)
        s.compare([0])
        watermark = s.value("SELECT max(extract(epoch FROM watermark)) FROM account_feeds")
        check(watermark <= s.sim.now(), f"watermark {watermark} lies in the provider's future ({s.sim.now()})")
        s.stop_all()


@test("BR-010 no request is above the provider's limits")
def _():
    s, number, name = account()
    s.run(account=name)
    most = {"1m": 1440, "1h": 168, "1d": 31}
    for _, status, path, p in s.sim.requests(number):
        limit = int(p.get("limit", ["1"])[0])
        check(limit <= (180 if path.endswith("/costs") else most[p["bucket_width"][0]]), f"{path} {p}")
        equal(status, 200, path)


@test("BR-010 a limit that is refused falls back to the provider's default")
def _():
    s, number, name = account()
    s.sim.fault(account=number, do="status", status=400, limit_over=30, body={"error": {
        "message": "Invalid 'limit': integer above maximum value. Expected a value <= 30, but got 168 instead.",
        "type": "invalid_request_error", "param": "limit", "code": "integer_above_max_value"}})
    s.run(account=name)
    check(s.sim.fired()[0] > 0, "the fault never struck")
    s.compare([number])


@test("BR-011 an error on page 5 keeps pages 1 to 4; each run makes progress")
def _():
    with stack(sim={"accounts": 3, "options": {"costs_page_limit": 1}}) as s:
        s.start_all(fetcher={"UF_REQUEST_TIMEOUT": "5s"})
        name, = s.add_accounts([0])
        s.sim.fault(account=0, feed="costs", do="status", status=503, page=5)
        s.run(account=name, code=1)
        days = s.value("SELECT count(DISTINCT bucket_start) FROM usage_metrics WHERE feed = 'costs'")
        check(days >= 3, f"{days} days of the four that were read are in the table")
        state = s.feed_state(name)["costs"]
        check(state["watermark"] is not None, "four pages were committed and the watermark did not move")
        equal(state["error"], "provider_error", "how it ended")
        s.sim.clear_stats()
        s.sim.clear_faults()
        s.run(account=name)
        s.compare([0])
        s.sim.fault(account=0, feed="costs", do="status", status=503, every=2)
        s.sql("UPDATE account_feeds SET watermark = NULL WHERE feed = 'costs'")
        s.run(account=name)  # every second request fails: retries carry it through
        s.compare([0])
        s.stop_all()


@test("BR-013 BR-019 an error leaves the watermark; no hole and no double after it")
def _():
    s, number, name = account(first_run=True)
    before = s.feed_state(name)
    s.sim.advance(3600)
    s.sim.fault(account=number, do="status", status=500)
    s.run(account=name, code=1)
    after = s.feed_state(name)
    for feed in FEEDS:
        if after[feed]["error"] == "ok":  # costs are asked hourly
            continue
        equal(after[feed]["error"], "provider_error", feed)
        equal(after[feed]["watermark"], before[feed]["watermark"], f"{feed}: watermark after an error")
        equal(after[feed]["failures"], 1, f"{feed}: failures in a row")
    heals(s, number, name)


@test("BR-014 a minute that grows after it has closed ends with its last figure, in one row")
def _():
    with stack(sim={"accounts": 2, "settle": 900}, env={"UF_BUCKET": "1m", "UF_BACKFILL": "1d"}) as s:
        s.start_all()
        name, = s.add_accounts([0])
        s.run(account=name)
        start = s.sim.start_now - 86400 + 7200
        s.compare([0], start, 60)
        before = s.ledger_rows([0], start, 60)
        s.sim.advance(14 * 60)
        after = s.ledger_rows([0], start, 60)
        grown = [k for k in before if before[k] != after[k] and int(k[2]) + int(k[3]) <= s.sim.start_now]
        check(grown, "no closed minute grew: the test proves nothing")
        s.run(account=name)
        s.compare([0], start, 60)
        s.stop_all()


@test("BR-016 a restatement of three days ago is found by costs' lookback; the old figure is kept")
def _():
    s, number, name = account(first_run=True)
    day = s.sim.now() - s.sim.now() % 86400 - 2 * 86400
    s.sim.restate(number, "costs", day, "change", percent=150)
    s.sim.advance(3600)
    s.sql("UPDATE account_feeds SET next_due = now() WHERE feed = 'costs'")
    s.run(account=name)
    s.compare([number])
    check(s.value("SELECT count(*) FROM usage_revisions r JOIN accounts USING (account_id) WHERE name = %s AND feed = 'costs' "
                  "AND change = 'changed' AND old_row IS NOT NULL", name) > 0, "no revision was kept")


@test("BR-022 the newest observation wins, rows that vanish are removed, new ones added")
def _():
    s, number, name = account(first_run=True, feeds=("completions", "embeddings"), last_hour=True)
    hour = s.sim.last_hour()
    s.sim.restate(number, "completions", hour, "change", percent=130)
    s.sim.restate(number, "embeddings", hour, "vanish")
    run = s.run(account=name)
    s.compare([number])
    changes = dict(s.sql("SELECT change, count(*) FROM usage_revisions r JOIN accounts USING (account_id) WHERE name = %s GROUP BY 1",
                         name))
    equal(changes.get("vanished", 0), run["rows_removed"], "revisions of rows that vanished, against rows removed")
    equal(changes.get("changed", 0), run["rows_updated"], "revisions of rows that changed, against rows updated")
    check(run["rows_updated"] > 0 and run["rows_removed"] > 0, "nothing changed: the test proves nothing")
    s.sim._ask("DELETE", "restatements")
    s.run(account=name)
    s.compare([number])


@test("BR-025 a revoked key is parked after a few refusals; a new key goes on from the watermark")
def _():
    s, number, name = account(first_run=True)
    s.sim.set_key(number, revoked=True)
    for _ in range(3):
        s.run(account=name, code=1)
    state = s.feed_state(name)
    equal({state[f]["error"] for f in FEEDS if state[f]["failures"]}, {"auth_invalid"}, "how the feeds ended")
    wait = s.value("SELECT extract(epoch FROM next_due - now()) FROM accounts WHERE name = %s", name)
    check(wait > 30 * 60, f"the account is due again in {wait:.0f} s: a refused key must not be hammered")
    asked = len(s.sim.requests(number))
    check(asked <= 3 * len(FEEDS), f"{asked} requests with a key that is refused")
    key = s.sim.set_key(number, revoked=False, reissue=True)
    s.usagectl("account", "rotate-key", name, "--key-file", "-", text=key + "\n")
    s.sim.clear_stats()
    heals(s, number, name)
    oldest = min(int(p["start_time"][0]) for _, _, path, p in s.sim.requests(number) if path.endswith("/completions"))
    check(oldest > s.sim.now() - 2 * 86400, "the new key began again from the first window")


def garbled(status, content_type, body, endings, words=""):
    s, number, name = account()
    s.sim.fault(account=number, feed="completions", do="status", status=status, content_type=content_type, body=body)
    s.run(account=name, code=1)
    state = s.feed_state(name)["completions"]
    check(state["error"] in endings, f"how it ended: {state}")
    matches(words, state["detail"], "what it says")
    check(state["detail"].isprintable() and len(state["detail"]) <= 500, f"not fit to print: {state['detail']!r}")
    equal(state["watermark"], None, "the watermark")
    equal(s.value("SELECT count(*) FROM usage_metrics JOIN accounts USING (account_id) WHERE name = %s AND feed = 'completions'",
                  name), 0, "rows")
    heals(s, number, name)


HTML = "<html><head><title>502 Bad Gateway</title></head><body>nginx \u0007\u001b[31m</body></html>"


@test("BR-028 a gateway's 502 in HTML is a provider_error with a printable snippet")
def _():
    garbled(502, "text/html", HTML, ("provider_error",), "502")


@test("BR-028 a 200 in HTML is not data")
def _():
    garbled(200, "text/html", HTML, ("protocol", "provider_error"))


@test("BR-028 a 200 that calls HTML JSON is not data")
def _():
    garbled(200, "application/json", HTML, ("protocol", "provider_error"))


@test("BR-028 a 200 with an empty body is not data")
def _():
    garbled(200, "application/json", "", ("protocol", "provider_error"))


@test("BR-029 a 200 with an error object is not 'nothing billed'")
def _():
    garbled(200, "application/json", {"error": {"code": "internal", "message": "try later"}}, ("protocol", "provider_error"))


@test("BR-029 a 200 with {} is not 'nothing billed'")
def _():
    garbled(200, "application/json", "{}", ("protocol", "provider_error"))


@test("BR-029 a 200 with data null is not 'nothing billed'")
def _():
    garbled(200, "application/json", {"data": None, "has_more": False}, ("protocol", "provider_error"))


@test("BR-032 a page token travels percent-encoded and comes back byte for byte")
def _():
    s, number, name = account(first_run=True)  # short windows: one page a feed, but for the fault's
    token = "a+b/c=&d%25 é#?"
    s.sim.fault(account=number, do="empty_page", page=1)
    s.sim.fault(account=number, do="cursor", cursor="literal", value=token, page=1)
    s.run(account=name)
    s.compare([number])
    sent = [p["page"][0] for _, _, _, p in s.sim.requests(number) if "page" in p]
    equal(set(sent), {token}, "tokens that came back")


# ---- bodies, connections ----

def transient(**fault):
    """Strikes each feed's first request; a retry must carry it through within the run."""
    s, number, name = account()
    for feed in ("completions", "costs", "images"):
        s.sim.fault(account=number, feed=feed, times=1, **fault)
    s.run(account=name)
    equal(s.sim.fired(), [1, 1, 1], "how often the faults struck")
    s.compare([number])


for _title, _fault in (("503", {"do": "status", "status": 503}), ("429 with retry-after-ms", {"do": "status", "status": 429, "headers":
                        {"retry-after-ms": "50"}}), ("a connection closed without an answer", {"do": "drop"}),
                       ("a connection reset in the middle", {"do": "reset"}), ("a body cut short of its length", {"do": "truncate"})):
    test(f"retry: {_title} is overcome within the run")(lambda fault=_fault: transient(**fault))


@test("limits: a body above UF_MAX_BODY is too_large, compressed or not")
def _():
    for what in ("gzip_bomb", "huge"):
        s, number, name = account()
        s.sim.fault(account=number, feed="images", do=what, bytes=20 << 20)
        s.run(account=name, code=1)
        equal(s.feed_state(name)["images"]["error"], "too_large", what)
        heals(s, number, name)


@test("paging: buckets in reverse, twice, rows twice, rows split: the same table")
def _():
    for what in ("reverse_buckets", "duplicate_bucket", "duplicate_rows"):
        s, number, name = account()
        s.sim.fault(account=number, do=what)
        s.run(account=name)
        s.compare([number])
    s, number, name = account()
    s.sim.fault(account=number, feed="completions", do="split_rows")
    s.run(account=name)
    s.compare([number], feeds=[f for f in FEEDS if f != "completions"])
    s.sim.clear_faults()
    s.sql("UPDATE account_feeds SET watermark = NULL WHERE account_id = (SELECT account_id FROM accounts WHERE name = %s)", name)
    heals(s, number, name)


@test("pacing: one request in flight a key, by default")
def _():
    s, number, name = account()
    s.sim.fault(account=number, delay_ms=20)
    s.run(account=name)
    equal(s.sim.stats(number)["max_concurrent_per_key"], 1, "requests of one key at once")
