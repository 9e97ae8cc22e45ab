"""The provider of docs/adding-a-provider.md, built into the stages for this test, read from a small server into
Postgres: whoever adds a provider by that page gets every row, exactly."""

import collections
import contextlib
import decimal
import http.server
import json
import os
import random
import threading
import time
import urllib.parse
import urllib.request

from harness import BUILD, STAGES, Stack, check, equal
from runner import stack, test

THIRD = os.path.join(BUILD, "third")  # the programs that know Acme, too
USAGECTL = os.path.join(THIRD, "usagectl")
KEY = "acme-admin-0123456789abcdefghij"
HOUR, DAY = 3600, 86400
PAGE_MAX = 7  # rows: small, so that every day has several pages


class Acme(http.server.ThreadingHTTPServer):
    """GET /v2/usage and /v2/charges by from, to, offset and limit. Rows have a time each, and no order."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.daemon_threads = True
        self.asked = []  # (feed, from, to, offset)
        dice = random.Random(4)
        today = int(time.time()) // DAY * DAY
        self.rows = {"usage": [], "charges": []}
        for hour in range(today - 5 * DAY, int(time.time()) - HOUR, HOUR):
            for _ in range(dice.randrange(4)):
                self.rows["usage"].append({
                    "time": hour + dice.randrange(HOUR), "team": dice.choice(("red", "blue", None)), "key_id": f"k{dice.randrange(3)}",
                    "model": dice.choice(("large", "small")), "region": "eu",
                    "tokens": {"prompt": dice.randrange(10**6), "cached": 0, "completion": dice.randrange(2**40)}, "calls": 1})
        for day in range(today - 5 * DAY, today, DAY):
            for n in range(20):
                self.rows["charges"].append({"time": day, "team": "red", "sku": f"sku {n}", "micros": dice.randrange(-10**5, 10**13)})

    def part(self, feed, start, end):
        return [row for row in self.rows[feed] if start <= row["time"] < end]

    def covered(self, feed):
        """The rows of all that was asked for."""
        spans = {(start, end) for f, start, end, _ in self.asked if f == feed}
        return [row for row in self.rows[feed] if any(start <= row["time"] < end for start, end in spans)]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        query = {name: int(value) for name, value in urllib.parse.parse_qsl(url.query)}
        feed = url.path.removeprefix("/v2/")
        if self.headers["Authorization"] != "Bearer " + KEY:
            self.answer(401, {"error": "unknown key"})
            return
        self.server.asked.append((feed, query["from"], query["to"], query["offset"]))
        rows = self.server.part(feed, query["from"], query["to"])
        first = query["offset"]
        self.answer(200, {"total": len(rows), "rows": rows[first:first + min(PAGE_MAX, query["limit"])]})

    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def acme():
    server = Acme()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


def want_usage(rows):
    """What usage_metrics is to hold: rows of one hour and key are one."""
    sums = collections.Counter()
    for row in rows:
        key = (row["time"] // HOUR * HOUR, row["team"], row["key_id"], row["model"], row["region"])
        for name, value in (("in", row["tokens"]["prompt"]), ("out", row["tokens"]["completion"]), ("calls", row["calls"])):
            sums[key, name] += value
    return sorted((*map(str, key), sums[key, "in"], sums[key, "out"], sums[key, "calls"]) for key in {k for k, _ in sums})


def got_usage(s):
    rows = s.sql("SELECT extract(epoch FROM bucket_start)::bigint, project_id, api_key_id, model, dims->>'region', input_tokens, "
                 "output_tokens, num_requests FROM usage_metrics WHERE provider = 'acme' AND feed = 'usage'")
    return sorted((*map(str, row[:5]), *row[5:]) for row in rows)


def want_charges(rows):
    return sorted((row["time"], row["team"], row["sku"], decimal.Decimal(row["micros"]).scaleb(-6), "USD") for row in rows)


def got_charges(s):
    return sorted(s.sql("SELECT extract(epoch FROM bucket_start)::bigint, project_id, line_item, cost_amount, currency "
                        "FROM usage_metrics WHERE provider = 'acme' AND feed = 'charges'"))


def add_account(s, server, key=KEY):
    s.usagectl("account", "add", "one", "--provider", "acme", "--base-url", f"http://127.0.0.1:{server.server_port}/v2",
               "--key-file", "-", text=key + "\n", binary=USAGECTL)


def compare(s, server):
    for what, got, want in (("usage", got_usage(s), want_usage(server.covered("usage"))),
                            ("charges", got_charges(s), want_charges(server.covered("charges")))):
        check(want, f"{what}: nothing was asked for")
        check(got == want, f"{what}: {len(got)} rows, want {len(want)}; the first that differ: "
              f"{[pair for pair in zip(got, want) if pair[0] != pair[1]][:2]}")


def compare_bill(s, gateway):
    """The gateway knows by the provider's table which feeds are bills."""
    oldest = s.value("SELECT to_char(min(bucket_start), 'YYYY-MM-DD') FROM usage_metrics WHERE feed = 'charges'")
    with urllib.request.urlopen(f"http://127.0.0.1:{gateway.port}/api/v1/cost?group_by=provider&from={oldest}T00:00:00Z", timeout=10) as answer:
        bill = json.load(answer)
    total = sum(row[3] for row in got_charges(s))
    equal([(row["provider"], decimal.Decimal(row["cost_amount"]), row["currency"]) for row in bill["rows"]], [("acme", total, "USD")], "the bill")
    check(bill["coverage"]["complete_until"], f"how far the bill is complete: {bill}")


@test("third provider: flat rows, pages by offset and millionths of a dollar arrive row for row and digit for digit")
def _():
    with acme() as server, stack(env={"UF_BACKFILL": "3d"}) as s:
        for stage in STAGES:
            s.wait_ready(s.start(stage, folder=THIRD))
        add_account(s, server)
        checked = s.usagectl("account", "check", "one", binary=USAGECTL)
        equal(checked.out, "one: ok, the key can read usage, charges\n", "account check")
        s.run("one")
        s.wait_backfill()
        compare(s, server)
        check(max(offset for _, _, _, offset in server.asked) > PAGE_MAX, "no day had a third page: the test proves nothing")
        equal(s.value("SELECT count(*) FROM dead_letters"), 0, "dead letters")

        # restated: a row changed, one gone, one new
        yesterday = [row for row in server.rows["charges"] if row["time"] == max(r["time"] for r in server.rows["charges"])]
        yesterday[0]["micros"] += 1
        server.rows["charges"].remove(yesterday[1])
        server.rows["charges"].append({**yesterday[2], "sku": "sku new"})
        s.sql("UPDATE account_feeds SET next_due = now()")
        s.run("one")
        compare(s, server)
        compare_bill(s, s.start_gateway(folder=THIRD))
        s.stop_all()


@test("third provider: a key of another kind is told so, and stages that do not know the provider say what to do",
      allow=("account.unknown_provider",))
def _():
    with acme() as server, stack() as s:
        s.start_all()
        add_account(s, server, key="acme-user-0123456789")
        checked = s.usagectl("account", "check", "one", code=1, binary=USAGECTL)
        check("wrong_key_kind" in checked.out and "acme-admin-" in checked.out, checked.out)
        s.run("one", code=1)
        check("does not know the account's provider; update the programs" in s.last_output, s.last_output)
        equal(server.asked, [], "what older stages asked")
        s.stop_all()
