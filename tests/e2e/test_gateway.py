"""The gateway by a real HTTP client: figures equal to the tables, the trigger, its doors and its limits.

The description in gateway/openapi.yaml is held against the live server: every answer that these
tests get is checked by its schema.
"""

import base64
import contextlib
import json
import os
import random
import re
import socket
import subprocess
import threading
import time
import urllib.parse

import psycopg2
import yaml

from api import API, Client
from harness import BUILD, ROOT, Stack, check, equal, matches, wait_for
from pooled import PooledStack
from runner import shared, stack, test

SANITIZED = os.path.basename(BUILD) == "san"
TOKEN = "dashboard-token-of-the-tests"


def demo():
    """Rows of two accounts without a stage that would read them."""
    s = Stack()
    for number, (name, provider) in enumerate((("acme", "openai"), ("beta", "anthropic"), ("<script>", "openai"))):
        s.sql("ALTER TABLE accounts DROP CONSTRAINT IF EXISTS accounts_name_check")
        s.sql("INSERT INTO accounts (account_id, name, provider, base_url, key_ciphertext, key_hint) VALUES (%s, %s, %s, "
              "'https://api.example/v1', '', 'sk-…')", number + 1, name, provider)
    s.sql("SELECT usage_metrics_ensure_month(now() - m * interval '1 month') FROM generate_series(0, 2) m")
    s.sql("""INSERT INTO usage_metrics (account_id, provider, feed, bucket_start, bucket_seconds, row_key, row_hash, project_id, model,
             input_tokens, cached_input_tokens, output_tokens, num_requests, first_seen_at, changed_at, job_id)
             SELECT a, CASE a WHEN 2 THEN 'anthropic' ELSE 'openai' END, CASE a WHEN 2 THEN 'messages' ELSE 'completions' END,
             date_trunc('hour', now()) - h * interval '1 hour', 3600, gen_random_uuid(), 0,
             CASE WHEN m = 0 THEN NULL ELSE 'proj,"' || m END, CASE m WHEN 0 THEN '<script>alert(1)</script>' ELSE 'model-' || m END,
             1000000007::bigint * (h + 1) + m, h, h * 7 + m, CASE WHEN a = 1 THEN h END, now(), now(), gen_random_uuid()
             FROM generate_series(1, 2) a, generate_series(0, 400) h, generate_series(0, 2) m""")
    s.sql("""INSERT INTO usage_metrics (account_id, provider, feed, bucket_start, bucket_seconds, row_key, row_hash, quantity, quantity_unit,
             first_seen_at, changed_at, job_id) SELECT 1, 'openai', 'images', date_trunc('day', now(), 'UTC') - d * interval '1 day', 86400,
             gen_random_uuid(), 0, 1.50 + d, 'images', now(), now(), gen_random_uuid() FROM generate_series(0, 20) d""")
    s.sql("""INSERT INTO usage_metrics (account_id, provider, feed, bucket_start, bucket_seconds, row_key, row_hash, model, input_tokens,
             first_seen_at, changed_at, job_id) SELECT 2, 'anthropic', 'claude_code', date_trunc('day', now(), 'UTC') - d * interval '1 day',
             86400, gen_random_uuid(), 0, 'model-1', 5, now(), now(), gen_random_uuid() FROM generate_series(0, 9) d""")
    s.sql("""INSERT INTO usage_metrics (account_id, provider, feed, bucket_start, bucket_seconds, row_key, row_hash, line_item, cost_amount,
             currency, first_seen_at, changed_at, job_id) SELECT a, 'openai', 'costs', date_trunc('day', now(), 'UTC') - d * interval '1 day',
             86400, gen_random_uuid(), 0, 'item ' || a, 0.0000000000001 * d + 0.1, CASE WHEN d < 3 THEN 'EUR' ELSE 'USD' END, now(), now(),
             gen_random_uuid() FROM generate_series(1, 3, 2) a, generate_series(0, 20) d""")
    s.sql("""INSERT INTO account_feeds (account_id, feed, complete_from, watermark, last_attempt_at, last_success_at, last_error,
             last_error_detail, consecutive_failures)
             VALUES (1, 'completions', now() - interval '20 days', date_trunc('hour', now()), now(), now(), 'ok', NULL, 0),
             (1, 'costs', now() - interval '20 days', date_trunc('day', now()), now(), now(), 'auth_invalid', 'give a valid key', 3),
             (2, 'messages', now() - interval '20 days', date_trunc('hour', now()), now(), now(), 'ok', NULL, 0),
             (2, 'claude_code', now() - interval '20 days', date_trunc('hour', now()), now(), now(), 'ok', NULL, 0)""")
    s.sql("INSERT INTO fetch_runs (kind, requested_at, started_at, finished_at, accounts_total, accounts_ok, jobs) SELECT 'manual', "
          "now() - n * interval '1 minute', now(), now(), 1, 1, n % 2 FROM generate_series(1, 50) n")
    s.sql("INSERT INTO dead_letters (account_id, provider, feed, window_from, reason, json_path, job_id, last_seen_at) SELECT 1, 'openai', "
          "'completions', now(), 'reason, \"' || n, '$.data', gen_random_uuid(), now() - n / 3 * interval '1 minute' FROM generate_series(1, 30) n")
    s.sql("INSERT INTO usage_revisions (account_id, provider, feed, bucket_start, bucket_seconds, row_key, change, old_row, new_row, job_id) "
          "SELECT 2, 'anthropic', 'messages', now(), 3600, gen_random_uuid(), 'changed', '{\"input_tokens\": 1}', '{\"input_tokens\": 2}', "
          "gen_random_uuid() FROM generate_series(1, 25)")
    s.sql("INSERT INTO model_prices (provider, model, kind, per_million) VALUES ('openai', 'model-1', 'input', 1.25), "
          "('openai', 'model-1', 'output', 10), ('openai', 'model-1', 'cached_input', 0.125)")
    s.sql("ANALYZE")
    s.client = Client(s.start_gateway().port)
    return s


USAGE = "/api/v1/usage"
COST = "/api/v1/cost"
SUMS = ("input_tokens", "cached_input_tokens", "output_tokens", "num_requests")


# ---- figures ----

@test("usage: sums by day, model, account and project are the table's, digit for digit")
def _():
    s = shared(demo)
    for dims, columns in (("day", ["(bucket_start AT TIME ZONE 'UTC')::date::text"]), ("account", ["name"]), ("model", ["model"]),
                          ("project,model", ["project_id", "model"]), ("feed", ["feed"]), ("provider", ["m.provider"]), ("", [])):
        got = s.client.get(USAGE, group_by=dims).rows()
        want = s.sql(f"SELECT {''.join(c + ', ' for c in columns)}quantity_unit, {', '.join(f'sum({c})' for c in SUMS)}, "
                     "trim_scale(sum(quantity))::text, count(*) FROM usage_metrics m JOIN accounts USING (account_id) WHERE cost_amount IS "
                     f"NULL AND (feed <> 'claude_code' OR {'true' if dims == 'feed' else 'false'}) AND bucket_start >= date_trunc('day', now(), 'UTC') - interval '29 days' "
                     f"GROUP BY {''.join(c + ', ' for c in columns)}quantity_unit")
        key = lambda row: tuple(str(v or "") for v in row[: len(columns) + 1])  # noqa: E731
        want = sorted((tuple(None if v is None else v if isinstance(v, str) else int(v) for v in row) for row in want), key=key)
        names = (dims.split(",") if dims else []) + ["quantity_unit", *SUMS, "quantity", "rows"]
        equal([tuple(row[n] for n in names) for row in got], want, f"group_by={dims}")


@test("usage: a zone moves the days; a whole day's figure keeps its date")
def _():
    s = shared(demo)
    got = s.client.get(USAGE, group_by="day", tz="Asia/Kolkata", feed="completions", from_="2026-01-01").rows()
    want = s.sql("SELECT to_char(bucket_start AT TIME ZONE 'Asia/Kolkata', 'YYYY-MM-DD'), sum(input_tokens)::bigint FROM usage_metrics "
                 "WHERE feed = 'completions' GROUP BY 1 ORDER BY 1")
    equal([(r["day"], r["input_tokens"]) for r in got], want, "days in Kolkata")
    got = s.client.get(USAGE, group_by="day", tz="Asia/Kolkata", feed="images").rows()
    equal(got[-1]["day"], time.strftime("%Y-%m-%d", time.gmtime()), "the newest whole day")
    hours = s.client.get(USAGE, group_by="hour", from_="2d").rows()
    check(all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:00", r["hour"]) for r in hours) and len(hours) in (48, 49), hours[:2])


@test("usage: what two feeds report is counted once, unless one of them is asked for")
def _():
    s = shared(demo)
    both = s.client.get(USAGE, group_by="", provider="anthropic").json()
    equal(both["left_out"], ["claude_code"], "left_out")
    equal(both["rows"][0]["input_tokens"], int(s.value("SELECT sum(input_tokens) FROM usage_metrics WHERE feed = 'messages'")), "messages")
    alone = s.client.get(USAGE, group_by="", feed="claude_code").json()
    equal((alone["rows"][0]["input_tokens"], alone["left_out"]), (50, []), "claude_code")


@test("usage: filters, several of one, null as the empty value, and a top list")
def _():
    s = shared(demo)
    got = s.client.get(USAGE, group_by="model", model=["model-1", "<script>alert(1)</script>"]).rows()
    equal([r["model"] for r in got], ["<script>alert(1)</script>", "model-1"], "two models")
    got = s.client.get(USAGE, group_by="project", project=["", 'proj,"1']).rows()
    equal({r["project"] for r in got}, {None, 'proj,"1'}, "a project and none")
    equal(s.client.get(USAGE, account="nobody").rows(), [], "no such account")
    top = s.client.get(USAGE, group_by="model", sort="-input_tokens", limit=2).json()
    equal(([r["model"] for r in top["rows"]], top["next"], top["more"]), (["model-2", "model-1"], None, True), "top two")


@test("cost: exact decimals, one currency a row, and bill and estimate apart")
def _():
    s = shared(demo)
    got = s.client.get(COST, group_by="account").json()
    equal(got["basis"], "billed", "basis")
    want = s.sql("SELECT name, currency, trim_scale(sum(cost_amount))::text FROM usage_metrics JOIN accounts USING (account_id) WHERE "
                 "cost_amount IS NOT NULL GROUP BY 1, 2 ORDER BY name COLLATE \"C\", 2")
    equal([(r["account"], r["currency"], r["cost_amount"]) for r in got["rows"]], want, "cost by account")
    got = s.client.get(COST, basis="estimated", group_by="model,account").json()
    want = s.sql("SELECT model, account, currency, trim_scale(sum(estimated_cost))::text FROM cost_estimate WHERE day >= current_date - 29 "
                 "GROUP BY 1, 2, 3 ORDER BY model COLLATE \"C\", account COLLATE \"C\"")
    equal([(r["model"], r["account"], r["currency"], r["estimated_cost"]) for r in got["rows"]], want, "estimate")
    check({r["status"] for r in got["rows"]} == {"priced", "unpriced"} and not any("cost_amount" in r for r in got["rows"]), got["rows"][0])
    s.client.get(COST, 400, basis="estimated", group_by="project")
    s.client.get(COST, 400, group_by="hour")


@test("coverage tells no data yet from zero")
def _():
    s = shared(demo)
    got = s.client.get(USAGE).json()["coverage"]
    equal((got["accounts"], got["accounts_without_data"]), (3, 1), "one account was never read")
    got = s.client.get(USAGE, account="acme").json()["coverage"]
    equal((got["accounts_without_data"], got["complete_until"]),
          (0, s.value("SELECT to_char(date_trunc('hour', now(), 'UTC') AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')")), "acme")
    bill = s.client.get(COST, account="acme").json()["coverage"]
    matches("T00:00:00Z", bill["complete_until"], "a bill is complete by days")


@test("coverage names what has been read from a later day on only")
def _():
    s = shared(demo)
    partial = lambda path, **q: [s.client.get(path, **q).json()["coverage"][k] for k in ("feeds", "feeds_partial", "first_partial")]  # noqa: E731
    equal(partial(USAGE), [2, 2, {"account": "acme", "feed": "completions"}], "thirty days, of which twenty were read")
    equal(partial(USAGE, from_="5d"), [2, 0, None], "five days")
    equal(partial(COST, account="beta"), [0, 0, None], "no feed that bills")
    s.sql("UPDATE account_feeds SET complete_from = now() - interval '2 days' WHERE feed = 'messages'")
    equal(partial(USAGE, from_="6d"), [2, 1, {"account": "beta", "feed": "messages"}], "one of two")
    s.sql("UPDATE account_feeds SET complete_from = now() - interval '20 days' WHERE feed = 'messages'")


@test("BR-061 fill=1 tells zero from no data, and a bucket that is not whole from one that is")
def _():
    s = shared(demo)
    day = lambda back: s.value("SELECT (now() AT TIME ZONE 'UTC')::date - %s", back).isoformat()  # noqa: E731
    rows = s.client.get(COST, group_by="day,account", account="acme", from_=day(25), fill=1).rows()
    got = {(r["day"], r["currency"]): (r["cost_amount"], r["coverage"]) for r in rows}
    equal(len(got), len(rows), "each once")
    amounts = dict(s.sql("SELECT (now() AT TIME ZONE 'UTC')::date - (bucket_start AT TIME ZONE 'UTC')::date, trim_scale(cost_amount)::text "
                         "FROM usage_metrics WHERE account_id = 1 AND cost_amount IS NOT NULL"))
    want = {}
    for d in range(26):
        figure = (amounts.get(d), "reported" if 0 < d < 20 else "partial")  # today goes on, and the first day was read from some hour on
        nothing = ("0", "zero") if 0 < d < 20 else (None, "no_data_yet")
        want[day(d), "EUR"] = figure if d < 3 else nothing
        want[day(d), "USD"] = figure if 3 <= d <= 20 else nothing
    equal(got, want, "26 days")
    rows = s.client.get(USAGE, group_by="hour", account="acme", project="nobody", from_="3d", to="2d", tz="Asia/Kolkata", fill=1).rows()
    check(len(rows) in (24, 25) and all(r["coverage"] == "zero" and r["input_tokens"] == 0 for r in rows), f"hours of nothing: {rows[:2]}")
    months = s.client.get(USAGE, group_by="month,provider", provider="anthropic", from_="2025-01-15", to="2025-04-02", fill=1).rows()
    equal(months, [], "of a provider without a figure there is no row to fill")
    months = s.client.get(USAGE, group_by="month", provider="anthropic", from_="2025-01-15", to="2025-04-02", fill=1).rows()
    equal([(r["month"], r["input_tokens"], r["coverage"]) for r in months], [(f"2025-0{m}", None, "no_data_yet") for m in range(1, 5)], "months")
    model = s.client.get(COST, basis="estimated", group_by="day,model", account="acme", model="model-1", from_=day(3), fill=1).rows()
    equal([r["coverage"] for r in model], ["reported", "reported", "reported", "partial"], "an estimate")


@test("fill=1 goes by the clock of the zone, also where it changes")
def _():
    s = shared(demo)
    for zone, start, end, hours in (("Europe/Berlin", "2026-03-29", "2026-03-30", 23), ("Europe/Berlin", "2026-10-25", "2026-10-26", 24),
                                    ("Asia/Kathmandu", "2026-03-29", "2026-03-30", 24), ("America/New_York", "2026-03-08", "2026-03-09", 23)):
        rows = s.client.get(USAGE, group_by="hour", from_=start, to=end, tz=zone, feed="nothing", fill=1).rows()
        names = [r["hour"] for r in rows]
        check(len(set(names)) == hours == len(names) and {n[:10] for n in names} == {start}, f"{zone} {start}: {names}")
    for zone in ("Europe/Berlin", "Pacific/Auckland", "America/Santiago"):
        days = [r["day"] for r in s.client.get(USAGE, group_by="day", from_="2026-01-01", to="2026-11-01", tz=zone, feed="nothing", fill=1).rows()]
        equal((days[0], days[-1], len(days), len(set(days))), ("2026-01-01", "2026-10-31", 304, 304), zone)


# ---- lists, CSV, pages ----

LISTS = ((USAGE, {"group_by": "hour,model,account"}), (USAGE, {"group_by": "day,account,model", "fill": "1"}), (COST, {"group_by": "day,account"}), ("/api/v1/accounts", {"feeds": "1"}),
         ("/api/v1/runs", {}), ("/api/v1/dead", {}), ("/api/v1/revisions", {}))


@test("CSV has the rows of the JSON: every list, every member, quotes and commas and all")
def _():
    s = shared(demo)
    for path, query in LISTS:
        rows = s.client.get(path, limit=100000, **query).rows()
        answer = s.client.get(path, format="csv", **query)
        matches(r"^text/csv; charset=utf-8$", answer.headers["Content-Type"], path)
        text = answer.csv()
        equal(len(text), len(rows), f"{path}: rows")
        check(rows, f"{path}: no rows")
        for one, other in zip(rows, text):
            equal(list(other), list(one), f"{path}: columns")
            for name, value in one.items():
                got = other[name]
                if isinstance(value, (dict, list)):
                    got = json.loads(got)
                else:
                    value = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
                equal(got, value, f"{path}: {name}")
        check(answer.body.endswith(b"\r\n") and answer.body.count(b"\r\n") >= len(rows), f"{path}: line ends")
        accepted = s.client.ask(path + "?" + urllib.parse.urlencode(query), headers={"Accept": "text/csv"})
        equal(accepted.body, answer.body, f"{path}: Accept: text/csv")


@test("pages by cursor are the whole list, each row once")
def _():
    s = shared(demo)
    for path, query in LISTS:
        whole = s.client.get(path, limit=100000, **query).json()
        equal((whole["next"], whole["more"]), (None, False), path)
        limit = max(1, len(whole["rows"]) // 3 - 1)
        pages, cursor = [], None
        while True:
            page = s.client.get(path, limit=limit, **query, **({"cursor": cursor} if cursor else {})).json()
            check(len(page["rows"]) <= limit, f"{path}: {len(page['rows'])} rows of {limit}")
            pages += page["rows"]
            cursor = page["next"]
            equal(page["more"], cursor is not None, f"{path}: more")
            if not cursor:
                break
        equal(pages, whole["rows"], path)


@test("accounts: their states, with the reason and what to do")
def _():
    s = shared(demo)
    rows = {r["account"]: r for r in s.client.get("/api/v1/accounts", feeds="1").rows()}
    acme = rows["acme"]
    equal((acme["state"], acme["trouble"], acme["advice"]), ("partly_failing", "costs: auth_invalid", "give a valid key"), "acme")
    equal(rows["<script>"]["state"], "no_data_yet", "never read")
    equal({f["feed"]: f["last_error"] for f in acme["feeds"]}, {"completions": "ok", "costs": "auth_invalid"}, "feeds")
    changes = (("enabled = false", "disabled"), ("enabled = true", "zero"), ("next_due = now() - interval '1 hour'", "late"))
    s.sql("UPDATE account_feeds SET empty_since = now() WHERE account_id = 2")
    for change, state in changes:
        s.sql(f"UPDATE accounts SET {change} WHERE name = 'beta'")
        time.sleep(2.1)  # answers are kept for two seconds
        equal(s.client.get("/api/v1/accounts", account="beta").rows()[0]["state"], state, change)
    s.sql("UPDATE accounts SET next_due = now() WHERE name = 'beta'")
    s.sql("UPDATE account_feeds SET empty_since = NULL WHERE account_id = 2")
    equal([r["account"] for r in s.client.get("/api/v1/accounts", state=["no_data_yet", "partly_failing"]).rows()], ["<script>", "acme"],
          "by state")


@test("a bad question is answered with what is wrong and what to write")
def _():
    s = shared(demo)
    cases = (
        (USAGE, {"group_by": "modle"}, "group_by", "did you mean model"), (USAGE, {"group_by": "day,day"}, "group_by", "twice"),
        (USAGE, {"group_by": "line_item"}, "group_by", "no dimension"), (USAGE, {"acount": "x"}, "acount", "did you mean account"),
        (USAGE, {"from": "2026-13-01"}, "from", "."), (USAGE, {"from": "2026-01-01T00:00:00"}, "from", "zone|Z for UTC"),
        (USAGE, {"tz": "Europe/Berlyn"}, "tz", "Europe/Berlin"), (USAGE, {"tz": "UTC+3"}, "tz", "name"), (USAGE, {"limit": "0"}, "limit", "1 to"),
        (USAGE, {"limit": "1e3"}, "limit", "whole number"), (USAGE, {"limit": ["1", "2"]}, "limit", "twice"),
        (USAGE, {"sort": "-rows"}, "sort", "one of"), (USAGE, {"cursor": "abc"}, "cursor", "no cursor"), (USAGE, {"format": "xml"}, "format", "json, csv"),
        (USAGE, {"model": "x" * 3000}, "model", "2000"), (USAGE, {"model": b"\xff"}, "model", "UTF-8"), (USAGE, {"model": "a\0b"}, "model", "zero byte"),
        (USAGE, {"fill": "1", "group_by": "account"}, "fill", "hour, day and month"), (USAGE, {"fill": "yes"}, "fill", "0, 1"),
        (USAGE, {"fill": "1", "group_by": "day,month"}, "fill", "one of"), (COST, {"basis": "both"}, "basis", "billed, estimated"), ("/api/v1/runs", {"kind": "x"}, "kind", "scheduled"),
        ("/api/v1/runs", {"cursor": base64.urlsafe_b64encode(b'["x","y"]').decode().rstrip("=")}, None, "invalid input"),
        ("/api/v1/accounts", {"state": "good"}, "state", "disabled"), ("/api/v1/dead", {"closed": "yes"}, "closed", "0, 1"),
        ("/api/v1/stages", {"x": "1"}, "x", "unknown"), (USAGE, [("model", "m")] * 70, None, "64"))
    for path, query, parameter, words in cases:
        text = urllib.parse.urlencode(query, doseq=True)
        answer = s.client.ask(f"{path}?{text}")
        equal(answer.status, 400, f"{path}?{text[:80]} {answer.body[:300]}")
        equal(answer.json().get("parameter"), parameter, f"{path}?{text[:80]}: parameter")
        matches(words, answer.json()["message"], f"{path}?{text[:80]}")
    for method, path, status in (("GET", "/nothing", 404), ("POST", USAGE, 405), ("DELETE", "/", 405), ("GET", "/logout", 405), ("GET", "/../etc/passwd", 404)):
        answer = s.client.ask(path, method)
        equal((answer.status, answer.headers["Content-Type"]), (status, "application/json"), f"{method} {path}")
        check(answer.json()["message"], path)
    matches("GET, HEAD", s.client.ask(USAGE, "POST").headers["Allow"], "Allow")
    equal(s.client.ask("/login", "POST", body="token=" + "x" * 20000).status, 413, "a large body")


@test("openapi.yaml and the routes have the same paths and methods; the file is served")
def _():
    s = shared(demo)
    with open(os.path.join(ROOT, "gateway", "routes.c"), encoding="utf-8") as f:
        rows = set(re.findall(r'\{"(GET|POST)", "([^"]+)", ACCESS_', f.read()))
    want = {(method.upper(), path) for path, methods in API["paths"].items() for method in methods}
    equal(sorted(rows), sorted(want), "routes")
    equal(yaml.safe_load(s.client.get("/api/openapi.yaml").body), API, "the served description")
    for method, path in sorted(want):
        for name in (p.get("name") or p["$ref"].rsplit("/", 1)[1] for p in API["paths"][path][method.lower()].get("parameters", [])):
            if path.startswith("/api/v1"):
                answer = s.client.ask(path, method, **{name: "1"})
                check("unknown parameter" not in answer.body.decode(), f"{path}: {name} is described and not known")


@test("pages: security headers, an ETag that spares the body, compression")
def _():
    s = shared(demo)
    answer = s.client.get("/")
    for name, words in (("Content-Security-Policy", "default-src 'none'.*frame-ancestors 'none'"), ("X-Content-Type-Options", "nosniff"),
                        ("Referrer-Policy", "no-referrer"), ("Content-Type", "text/html")):
        matches(words, answer.headers[name] or "", name)
    check("unsafe" not in answer.headers["Content-Security-Policy"], "unsafe in the CSP")
    again = s.client.ask("/", headers={"If-None-Match": answer.headers["ETag"]})
    equal((again.status, again.body), (304, b""), "not modified")
    small = s.client.ask("/api/openapi.yaml", headers={"Accept-Encoding": "gzip"})
    equal(small.headers["Content-Encoding"], "gzip", "compressed")
    equal(s.client.ask("/", "HEAD").headers["Content-Length"], str(len(answer.body)), "HEAD")


# ---- doors ----

def guarded():
    s = Stack()
    s.client = Client(s.start_gateway(UF_DASHBOARD_TOKEN=TOKEN).port)
    return s


@test("access: without a token, only this host under its own name")
def _():
    s = shared(demo)
    for host, status in (("evil.example", 403), ("127.0.0.1.evil.example:80", 403), ("localhost.evil.example", 403), ("", 403), ("localhost:1", 200),
                         ("127.0.0.1", 200), ("[::1]:8080", 200)):
        equal(s.client.ask("/api/v1/runs", headers={"Host": host}).status, status, f"Host: {host}")


@test("access: login, session, bearer, logout; wrong tokens are slowed down")
def _():
    s = shared(guarded)
    c = s.client
    equal((c.ask("/api/v1/runs").status, c.ask("/metrics").status, c.ask("/").status), (401, 401, 303), "without a session")
    equal(c.ask("/").headers["Location"], "/login", "the way to the login")
    equal((c.ask("/healthz").status, c.ask("/login").status), (200, 200), "open to all")
    for bearer in ("undefined", "", "null", TOKEN[:-1], TOKEN + "x"):
        equal(c.ask("/api/v1/runs", headers={"Authorization": f"Bearer {bearer}"}).status, 401, f"Bearer {bearer}")
    equal(c.ask("/api/v1/runs", headers={"Authorization": f"Bearer {TOKEN}"}).status, 200, "the token")
    wrong = c.ask("/login", "POST", body="token=wrong")
    equal(wrong.status, 401, "a wrong token")
    matches("not the token", wrong.body.decode(), "the form says so")
    answer = c.ask("/login", "POST", body=urllib.parse.urlencode({"token": TOKEN}))
    equal((answer.status, answer.headers["Location"]), (303, "/"), "login")
    matches(r"^uf_session=[0-9a-f]{64}; Path=/; HttpOnly; SameSite=Strict; Max-Age=43200$", answer.headers["Set-Cookie"], "cookie")
    cookie = {"Cookie": answer.headers["Set-Cookie"].split(";")[0]}
    equal((c.ask("/", headers=cookie).status, c.ask("/api/v1/runs", headers=cookie).status), (200, 200), "with the session")
    equal(c.ask("/logout", "POST", headers=cookie).status, 303, "logout")
    equal(c.ask("/api/v1/runs", headers=cookie).status, 401, "after the logout")
    statuses = [c.ask("/login", "POST", body="token=guess").status for _ in range(12)]
    equal(statuses[-1], 429, f"guesses {statuses}")
    equal(c.ask("/login", "POST", body=urllib.parse.urlencode({"token": TOKEN})).status, 303, "the right one still opens")
    check(TOKEN not in s.one("gateway").text() and s.cron_key not in s.one("gateway").text(), "a key is in the log")


@test("BR-098 the start is refused without a secret that can not be guessed")
def _():
    s = shared(demo)
    cases = (({"CRON_API_KEY": None}, "CRON_API_KEY is not set.*keygen"), ({"CRON_API_KEY": ""}, "CRON_API_KEY is not set"),
             ({"CRON_API_KEY": "undefined"}, "too short.*32"), ({"CRON_API_KEY": "x" * 31}, "too short"), ({"CRON_API_KEY": "x" * 20 + " " + "y" * 20}, "blank"),
             ({"UF_DASHBOARD_TOKEN": "short"}, "UF_DASHBOARD_TOKEN is too short"), ({"UF_HTTP": "0.0.0.0:0"}, "UF_DASHBOARD_TOKEN is not set"),
             ({"UF_HTTP": "8080"}, "HOST:PORT"), ({"UF_HTTP": "127.0.0.1:99999"}, "HOST:PORT"),
             ({"UF_HTTP": f"127.0.0.1:{s.client.port}"}, "in use.*free port"), ({"DATABASE_URL": None}, "DATABASE_URL is not set"))
    for env, words in cases:
        done = subprocess.run([os.path.join(BUILD, "bin", "uf-gateway")], env=s.stage_env("gateway", **env), cwd=s.folder,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=10, check=False)
        equal(done.returncode, 100, f"{env}: {done.stderr.decode()[-300:]}")
        matches(words, done.stderr.decode(), str(env))


# ---- the trigger ----

TRIGGER = "/api/cron/usage-fetcher"


def pipeline():
    s = Stack(sim={"accounts": 3})
    s.start_all()
    s.add_accounts([0, 1, 2])
    s.client = Client(s.start_gateway().port)
    s.key = {"x-cron-api-key": s.cron_key}
    return s


@test("trigger: both headers, GET and POST; every other key is 401")
def _():
    s = shared(pipeline)
    for headers in ({}, {"Authorization": "Bearer undefined"}, {"Authorization": "Bearer "}, {"Authorization": "Bearer null"},
                    {"x-cron-api-key": ""}, {"x-cron-api-key": s.cron_key[:-1]}, {"Authorization": s.cron_key}):
        answer = s.client.ask(TRIGGER, headers=headers)
        equal(answer.status, 401, str(headers))
        check(s.cron_key not in answer.body.decode(), "the key is in the answer")
    equal(s.value("SELECT count(*) FROM fetch_runs WHERE kind = 'manual'"), 0, "no run")
    for method in ("GET", "POST"):
        for headers in (s.key, {"authorization": f"bearer {s.cron_key}"}):
            answer = s.client.ask(TRIGGER, method, headers=headers)
            equal(answer.status, 202, f"{method} {list(headers)}: {answer.body}")
            check(s.value("SELECT count(*) FROM fetch_runs WHERE run_id = %s", answer.json()["run_id"]) == 1, "its run is a row")


@test("trigger: wait answers with the summary; triggers in a run join it")
def _():
    s = shared(pipeline)
    runs = s.value("SELECT count(*) FROM fetch_runs WHERE kind = 'manual'")
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(s.client.ask(TRIGGER, headers=s.key, wait=30))) for _ in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    equal({a.status for a in answers}, {200}, [a.body for a in answers][:2])
    equal(len({a.json()["run_id"] for a in answers}), 1, "one run for all")
    check(s.value("SELECT count(*) FROM fetch_runs WHERE kind = 'manual'") <= runs + 1, "more than one run")
    summary = answers[0].json()
    equal((summary["accounts"]["ok"], summary["failures"], summary["message"]), (3, [], "3 accounts read"), "summary")
    s.compare([0, 1, 2])


@test("docs/triggers.md: its curl calls, its JSON, its workflow and its timer")
def _():
    with open(os.path.join(ROOT, "docs", "triggers.md"), encoding="utf-8") as f:
        text = f.read()
    blocks = re.findall(r"```(\w+)\n(.*?)```", text, re.S)
    equal(json.loads(next(b for kind, b in blocks if kind == "json"))["crons"][0]["path"], TRIGGER, "vercel.json")
    workflow = yaml.safe_load(next(b for kind, b in blocks if kind == "yaml"))
    step = workflow["jobs"]["trigger"]["steps"][0]
    crontab = next(b for kind, b in blocks if kind == "crontab").strip()
    unit = next(b for kind, b in blocks if kind == "ini" and "ExecStart" in b)
    s = shared(pipeline)
    header = os.path.join(s.folder, ".usage-fetcher-header")
    with open(header, "w", encoding="ascii") as f:
        f.write(f"x-cron-api-key: {s.cron_key}\n")
    here = f"http://127.0.0.1:{s.client.port}"
    env = {"PATH": "/usr/bin:/bin", "HOME": s.folder, "CRON_API_KEY": s.cron_key, "URL": here}
    calls = [("workflow", step["run"]), ("crontab", crontab.split(" ", 5)[5]), ("unit", re.search(r"ExecStart=(.*)", unit)[1].replace("%d/header", header))]
    calls += [(f"curl {n}", line) for n, line in enumerate(re.findall(r"^curl .*", next(b for kind, b in blocks if kind == "sh"), re.M))]
    for name, command in calls:
        done = subprocess.run(["sh", "-c", command.replace("http://127.0.0.1:8080", here)], env=env, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=120, check=False)
        check(b'"run_id"' in done.stdout, f"{name}: {done.stdout} {done.stderr}")
        equal(done.returncode, 0, f"{name}: {done.stderr}")


@test("trigger: a failing account makes it 502, with its name, reason and advice")
def _():
    s = shared(pipeline)
    # a trigger joins the run before until the gateway has heard of its end
    wait_for("the end of earlier runs", lambda: s.value("SELECT count(*) = 0 FROM fetch_runs WHERE finished_at IS NULL "
                                                        "AND kind = 'manual'"))
    time.sleep(2.5)
    s.sim.set_key(1, revoked=True)
    answer = s.client.ask(TRIGGER, headers=s.key, wait=60)
    equal(answer.status, 502, answer.body)
    failure = answer.json()["failures"][0]
    equal((failure["account"], failure["error"]), ("sim-000001", "auth_invalid"), "failure")
    matches(r"2 accounts read; 1 of 3 failed: sim-000001 \(auth_invalid\)", answer.json()["message"], "message")
    row = s.client.get("/api/v1/accounts", account="sim-000001").rows()[0]
    matches("failing", row["state"], "its state")
    check(row["advice"], "no advice")
    runs = s.client.get("/api/v1/runs", run=answer.json()["run_id"]).rows()
    equal([f["account"] for f in runs[0]["failures"]], ["sim-000001"], "the run names it, too")


@test("readyz, stages and metrics see every stage, and miss one that is gone")
def _():
    s = shared(pipeline)
    wait_for("ready", lambda: s.client.ask("/readyz").status == 200, 20, 0.5)
    stages = s.client.get("/api/v1/stages").json()
    equal([(x["stage"], x["ready"]) for x in stages["stages"]], [(n, True) for n in ("scheduler", "fetcher", "normalizer", "writer")], "stages")
    text = s.client.get("/metrics").body.decode()
    for name in ("usage_fetcher_database_up 1", 'usage_fetcher_stage_processes{stage="writer"} 1', "usage_fetcher_http_requests_total"):
        check(name in text, f"/metrics lacks {name}")
    s.one("normalizer").kill()
    answer = wait_for("not ready", lambda: (a := s.client.ask("/readyz")).status == 503 and a, 20, 0.5)
    bad = [c["name"] for c in answer.json()["checks"] if not c["ok"]]
    equal(bad, ["normalizer"], "the one that is missing")
    s.wait_ready(s.start("normalizer"))


@test("trigger: no scheduler is 503 with the reason; a storm is 429 with Retry-After")
def _():
    s = shared(pipeline)
    s.one("scheduler").kill()

    def refused():
        answer = s.client.ask(TRIGGER, headers=s.key, seconds=30)
        equal(answer.status, 503, answer.body)
        check(int(answer.headers["Retry-After"]) > 0, "Retry-After")
        reason = answer.json()["message"]
        matches("uf-scheduler running|did not answer in time", reason, "reason")
        return "uf-scheduler running" in reason

    # What was sent in the moment of its death was taken by a socket that nobody reads any more.
    wait_for("a scheduler known to be away", refused, 40)
    s.wait_ready(s.start("scheduler"))
    wait_for("a run again", lambda: s.client.ask(TRIGGER, headers=s.key).status == 202, 10, 0.3)
    answers = [s.client.ask(TRIGGER, headers=s.key) for _ in range(60)]
    equal({a.status for a in answers}, {202, 429}, "a storm")
    check(int(answers[-1].headers["Retry-After"]) >= 1, "Retry-After")


# ---- nobody holds up another ----

def quick(client, path="/healthz", within=3.0):
    began = time.monotonic()
    status = client.ask(path, seconds=20).status
    took = time.monotonic() - began
    check(status == 200 and took < within * (5 if SANITIZED else 1), f"{path}: {status} after {took:.2f} s")


@test("a slow query holds up nobody: figures wait, lists and health answer")
def _():
    s = shared(demo)
    with contextlib.closing(psycopg2.connect(s.postgres.url("uf"))) as blocker:
        blocker.cursor().execute("LOCK TABLE usage_metrics IN ACCESS EXCLUSIVE MODE")
        answers = []
        threads = [threading.Thread(target=lambda n=n: answers.append(s.client.ask(USAGE, model=f"m{n}").status)) for n in range(12)]
        for t in threads:
            t.start()
        time.sleep(0.5)
        for path in ("/healthz", "/api/v1/runs", "/api/v1/accounts", "/metrics", "/"):
            quick(s.client, path)
        equal(answers, [], "while the table is locked")
        blocker.rollback()
        for t in threads:
            t.join()
    equal(set(answers), {200}, "afterwards")


@test("slow readers of large answers hold up nobody, and memory stays small")
def _():
    s = shared(demo)
    s.sql("""INSERT INTO usage_metrics (account_id, provider, feed, bucket_start, bucket_seconds, row_key, row_hash, model, user_id, input_tokens,
             first_seen_at, changed_at, job_id) SELECT 3, 'openai', 'embeddings', date_trunc('hour', now()), 3600, gen_random_uuid(), 0,
             'm' || n, repeat('u', 100) || n, n, now(), now(), gen_random_uuid() FROM generate_series(1, 40000) n""")
    path = f"{USAGE}?group_by=day,user,model&format=csv&feed=embeddings"
    readers = []
    for _ in range(10):
        r = socket.create_connection(("127.0.0.1", s.client.port))
        r.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        r.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        readers.append(r)
    time.sleep(1)
    for _ in range(5):
        quick(s.client, "/api/v1/runs")
    quick(s.client, USAGE + "?group_by=day&feed=images", 20)  # behind the readers' queries, not behind the readers
    whole = s.client.ask(path)
    equal(len(whole.csv()), 40000, "a reader that reads")
    pid = s.one("gateway").pid
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        rss_mb = int(re.search(r"VmRSS:\s+(\d+)", f.read())[1]) // 1024
    check(rss_mb < 120 or SANITIZED, f"{rss_mb} MiB with ten slow readers")
    for r in readers:
        r.close()
    s.sql("DELETE FROM usage_metrics WHERE feed = 'embeddings'")


@test("slow loris: a request that never ends is cut off, however it trickles")
def _():
    s = shared(demo)
    slow = []
    for n in range(40):
        c = socket.create_connection(("127.0.0.1", s.client.port))
        c.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" if n % 2 else
                  b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n")
        slow.append(c)
    began = time.monotonic()
    while slow and time.monotonic() - began < 25:
        quick(s.client)
        for c in list(slow):
            try:
                c.sendall(b"X")
                c.settimeout(0.001)
                ended = c.recv(100) == b""
            except (TimeoutError, socket.timeout):
                ended = False
            except OSError:
                ended = True
            if ended:
                slow.remove(c)
        time.sleep(1)
    equal(len(slow), 0, "connections that trickle, after 25 s")


@test("the database goes away and comes back: 503 with Retry-After, then the figures")
def _():
    with stack() as s:
        s.wait_ready(s.start("scheduler"))
        client = Client(s.start_gateway().port)
        client.get(USAGE)
        s.postgres.stop()
        time.sleep(2.1)
        answer = client.ask(TRIGGER, headers={"x-cron-api-key": s.cron_key}, seconds=30)
        equal(answer.status, 503, f"a trigger: {answer.body}")
        check(int(answer.headers["Retry-After"]) > 0 and "Postgres" in answer.json()["message"], f"a trigger: {answer.body}")
        answer = client.ask(USAGE)
        equal(answer.status, 503, answer.body)
        check(int(answer.headers["Retry-After"]) > 0 and answer.json()["message"], "Retry-After")
        ready = wait_for("not ready", lambda: (a := client.ask("/readyz")).status == 503 and not a.json()["checks"][0]["ok"] and a, 10)
        check(ready.json()["checks"][0]["detail"], "no reason")
        check("usage_fetcher_database_up 0" in client.get("/metrics").body.decode(), "database_up")
        s.postgres.start()
        wait_for("figures again", lambda: client.ask(USAGE).status == 200, 15, 0.3)


@test("through PgBouncer in transaction mode: every list")
def _():
    s = PooledStack(sim=None)
    try:
        s.client = Client(s.start_gateway().port)
        for path, query in LISTS:
            for _ in range(3):
                s.client.get(path, **query)
                s.client.get(path, format="csv", **query)
        equal(s.client.ask("/metrics").status, 200, "metrics")
    finally:
        s.close()


@test("asked to stop, it answers what it has begun and ends with 0")
def _():
    with stack() as s:
        gateway = s.start_gateway()
        client = Client(gateway.port)
        client.get("/api/v1/runs")
        with contextlib.closing(psycopg2.connect(s.postgres.url("uf"))) as blocker:
            blocker.cursor().execute("LOCK TABLE fetch_runs IN ACCESS EXCLUSIVE MODE")
            answers = []
            asker = threading.Thread(target=lambda: answers.append(client.ask("/api/v1/runs", limit=3).status))
            asker.start()
            time.sleep(0.3)
            gateway.send(15)
            time.sleep(0.5)
            check(gateway.alive(), "it left in the middle of an answer")
            blocker.rollback()
        asker.join()
        equal((answers, gateway.ended()), ([200], 0), "answer and exit status")


# ---- malformed requests, load ----

METHODS = (b"GET", b"POST", b"HEAD", b"PUT", b"OPTIONS", b"TRACE", b"CONNECT", b"get", b"", b"G\0T", b"A" * 3000)


def malformed(rng):
    """One request of a kind that strangers send: half right, torn, huge, or noise."""
    paths = [p.encode() for p in API["paths"]] + [b"/", b"//", b"/..%2f", b"*", b"http://x/", b"/%", b"/%zz", b"/\xff", b"/" + b"a" * 20000]
    query = rng.choice([b"", b"?", b"?=", b"?a", b"?&&&", b"?group_by=" + b"day," * rng.randrange(50), b"?limit=%00", b"?cursor=" + bytes(
        rng.choice(b"ABCabc_-=%") for _ in range(rng.randrange(60))), b"?model=" + bytes(rng.randrange(256) for _ in range(20)),
        b"?from=" + rng.choice([b"9999999d", b"-1d", b"0000-00-00", b"2026-02-30", b"today", b"'; --"]), b"?" + b"&".join([b"feed=x"] * 100)])
    head = rng.choice(METHODS[:5] + METHODS) + b" " + rng.choice(paths) + query + b" " + rng.choice([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/9.9", b"", b"HTTX"])
    lines = [rng.choice([b"Host: localhost", b"Host:", b"Host: a\r\nHost: b", b""]), rng.choice([
        b"Content-Length: 5", b"Content-Length: -1", b"Content-Length: 99999999999999999999", b"Transfer-Encoding: chunked",
        b"Content-Length: 3\r\nTransfer-Encoding: chunked", b"Authorization: Bearer", b"Authorization: " + b"x" * 9000, b"Cookie: uf_session=" + b"0" * 64,
        b"Cookie: ;;;=;", b"X: " + bytes(rng.randrange(1, 256) for _ in range(40)).replace(b"\n", b""), b"no colon", b" folded", b": empty",
        b"Expect: 100-continue", b"Connection: upgrade", b"Accept: text/csv", b"If-None-Match: \"", b"Accept-Encoding: gzip"])]
    end = rng.choice([b"\r\n", b"\n", b"\r\n", b"\r\n"])
    body = rng.choice([b"", b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"ffffffffffffffff\r\n", b"token=" + b"%" * rng.randrange(100), bytes(rng.randrange(256) for _ in range(50))])
    request = head + end + end.join(line for line in lines if line) + end + end + body
    if rng.random() < 0.2:
        request = request[: rng.randrange(len(request) + 1)]
    if rng.random() < 0.2:
        at = rng.randrange(len(request) + 1)
        request = request[:at] + bytes(rng.randrange(256) for _ in range(rng.randrange(1, 9))) + request[at:]
    return request


def send_malformed(port, request):
    with contextlib.suppress(OSError), contextlib.closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as c:
        c.sendall(request)
        c.shutdown(socket.SHUT_WR)
        c.settimeout(0.05)  # what is torn is not answered, and cut off later
        while c.recv(65536):
            pass


@test("malformed requests over the socket: no crash, and the next one is answered")
def _():
    s = shared(demo)
    gateway, senders, each = s.one("gateway"), 8, 1250 if SANITIZED else 250

    def sender(seed):
        rng = random.Random(20261125 + seed)
        for _ in range(each):
            if not gateway.alive():
                return
            send_malformed(s.client.port, malformed(rng))
    threads = [threading.Thread(target=sender, args=(n,)) for n in range(senders)]
    for t in threads:
        t.start()
    while any(t.is_alive() for t in threads):
        check(gateway.alive(), f"it died:\n{gateway.text()[-3000:]}")
        quick(s.client, within=5)
        time.sleep(1)
    check(gateway.alive(), f"it died:\n{gateway.text()[-3000:]}")
    quick(s.client, USAGE, 5.0)


@test("load: 200 connections on metrics, usage and the trigger, no error on a socket")
def _():
    s = shared(demo)
    for path in ("/metrics", USAGE + "?group_by=day,model", TRIGGER):
        done = subprocess.run(["wrk", "-t2", "-c200", "-d3s", "--timeout", "10s", "-H", f"x-cron-api-key: {s.cron_key}",
                               f"http://127.0.0.1:{s.client.port}{path}"], stdout=subprocess.PIPE, check=True)
        text = done.stdout.decode()
        check("Socket errors" not in text, text)
        check(path == TRIGGER or "Non-2xx" not in text, text)
        requests = int(re.search(r"(\d+) requests in", text)[1])
        check(requests > (100 if SANITIZED else 1000), text)
    quick(s.client)
