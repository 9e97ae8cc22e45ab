"""What has gone wrong for others between a page and a row: amounts, counts, dimensions, texts.

tests/CASES.md lists the cases; the simulator's faults play them.
"""

import json

from casebook import account, heals, row_of
from harness import check, equal, matches
from runner import test

# ---- normalizing ----

def with_field(feed, field, raw=None, row=0, **more):
    """One field of the first row of each page as given, one run."""
    s, number, name = account(feeds=[feed])
    rule = {"account": number, "feed": feed, "do": "field", "name": field, "row": row, **more}
    if raw is not None:
        rule["raw"] = raw
    s.sim.fault(**rule)
    done = s.run(account=name, code=None)
    check(s.sim.fired()[0] > 0, "the fault never struck")
    return s, number, name, done


def cost_of_first(s, name):
    return s.value("SELECT cost_amount::text FROM usage_metrics JOIN accounts USING (account_id) WHERE name = %s AND "
                   "feed = 'costs' AND line_item = 'e2e'", name)


def cost(raw):
    s, number, name = account()
    s.sim.fault(account=number, feed="costs", do="field", name="amount.value", row=0, raw=raw)
    s.sim.fault(account=number, feed="costs", do="field", name="line_item", row=0, raw='"e2e"')
    return s, number, name


@test("BR-034 OpenAI's amounts are dollars: 412.80 stays 412.80")
def _():
    s, number, name = cost("412.80")
    s.run(account=name)
    equal(float(cost_of_first(s, name)), 412.8, "cost_amount")
    equal(s.value("SELECT DISTINCT currency FROM usage_metrics WHERE feed = 'costs'"), "USD", "currency")


@test("BR-035 amounts as number, text and exponent are exact")
def _():
    for raw, want in (("0.06", "0.06"), ('"0.0600000000"', "0.06"), ('"1e-7"', "0.0000001"), ("1E+2", "100"),
                      ("0.1234567890123456789012345", "0.1234567890123456789012345"), ("-0.0", "0")):
        s, number, name = cost(raw)
        s.run(account=name)
        equal(s.value("SELECT trim_scale(cost_amount)::text FROM usage_metrics JOIN accounts USING (account_id) WHERE name = %s "
                      "AND line_item = 'e2e'", name), want, raw)


@test("BR-035 a bad amount sets its row aside with a reason; the page's others go in")
def _():
    for raw in ('""', '"NaN"', "null", "true", '"1,234.50"', '" 0.5"'):
        s, number, name = cost(raw)
        s.run(account=name, code=None)
        equal(s.sql("SELECT 1 FROM usage_metrics JOIN accounts USING (account_id) WHERE name = %s AND line_item = 'e2e'", name), [],
              f"rows with the amount {raw}")
        letters = s.sql("SELECT reason, json_path FROM dead_letters JOIN accounts USING (account_id) WHERE name = %s AND feed = 'costs'",
                        name)
        check(letters, f"amount {raw}: no dead letter")
        matches(r"results\[\d+\]\.amount", letters[0][1] or "", f"amount {raw}: where")
        check(s.value("SELECT count(*) FROM usage_metrics JOIN accounts USING (account_id) WHERE name = %s AND feed = 'costs'", name) > 0,
              f"amount {raw}: the page's other rows are not in")
        heals(s, number, name)


@test("BR-038 cached tokens are part of input; more cached than input is flagged and never negative")
def _():
    s, number, name, _ = with_field("completions", "input_cached_tokens", "999999999999")
    row = row_of(s, name, "completions", "cached_input_tokens = 999999999999")
    check(not row or int(row["input_tokens"]) >= 0, f"row: {row}")
    flagged = s.sql("SELECT 1 FROM dead_letters JOIN accounts USING (account_id) WHERE name = %s", name)
    logs = "".join(p.text() for p in s.of("normalizer"))
    check(flagged or "page.inconsistent" in logs, "nobody was told")
    negative = s.value("SELECT count(*) FROM cost_estimate WHERE estimated_cost < 0")
    equal(negative, 0, "negative estimates")
    s.sim.clear_faults()


@test("BR-040 a credit is kept as a negative cost and summed")
def _():
    s, number, name = cost("-12.50")
    s.run(account=name)
    equal(float(cost_of_first(s, name)), -12.5, "cost_amount")
    equal(s.value("SELECT sum(cost) FROM cost_daily WHERE account = %s", name),
          s.value("SELECT sum(cost_amount) FROM usage_metrics JOIN accounts USING (account_id) WHERE name = %s", name), "sum over cost_daily")


@test("BR-044 a dimension absent, null and empty are one row, for every dimension")
def _():
    by_feed = {"completions": ("project_id", "user_id", "api_key_id", "model", "service_tier", "batch"), "images": ("size", "source"),
               "file_search_calls": ("vector_store_id",), "web_search_calls": ("context_level",), "costs": ("line_item",)}
    s, number, name = account()
    counts = []
    for how in ({"drop": True}, {"raw": "null"}, {"raw": '""'}):
        s.sim.clear_faults()
        for feed, dimensions in by_feed.items():
            for dimension in dimensions:
                if dimension == "batch" and how.get("raw") == '""':
                    how = {"raw": "null"}  # batch is no text
                s.sim.fault(account=number, feed=feed, do="field", name=dimension, **how)
        s.sql("UPDATE account_feeds SET watermark = NULL, next_due = now() WHERE account_id = (SELECT account_id FROM accounts "
              "WHERE name = %s)", name)
        s.run(account=name)
        counts.append(s.sql("SELECT feed, bucket_start, row_key FROM usage_metrics JOIN accounts USING (account_id) WHERE name = %s "
                            "ORDER BY 1, 2, 3", name))
    check(counts[0], "no rows at all")
    check(counts[0] == counts[1], "absent and null make different rows")
    check(counts[1] == counts[2], "null and empty make different rows")
    s.sql("UPDATE account_feeds SET watermark = NULL, next_due = now() WHERE account_id = (SELECT account_id FROM accounts "
          "WHERE name = %s)", name)
    heals(s, number, name)


@test("BR-046 'a|b' beside 'c' and 'a' beside 'b|c' are two rows")
def _():
    s, number, name = account()
    for row, project, line in ((0, "a|b", "c"), (1, "a", "b|c")):
        s.sim.fault(account=number, feed="costs", do="field", name="project_id", row=row, raw=json.dumps(project))
        s.sim.fault(account=number, feed="costs", do="field", name="line_item", row=row, raw=json.dumps(line))
        s.sim.fault(account=number, feed="costs", do="field", name="api_key_id", row=row, raw="null")
    s.run(account=name)
    equal(s.sql("SELECT project_id, line_item FROM usage_metrics JOIN accounts USING (account_id) WHERE name = %s AND "
                "line_item IN ('c', 'b|c') ORDER BY 1", name), [("a", "b|c"), ("a|b", "c")], "rows")


@test("BR-047 token counts above 2^31 are kept and summed; above 2^63-1 the row is set aside")
def _():
    s, number, name, _ = with_field("completions", "input_tokens", "3000000000")
    equal(s.value("SELECT count(*) FROM usage_metrics JOIN accounts USING (account_id) WHERE name = %s AND input_tokens = 3000000000",
                  name), 1, "rows of three billion")
    check(s.value("SELECT max(input_tokens) FROM usage_daily WHERE account = %s", name) >= 3000000000, "sum over usage_daily")
    s, number, name, _ = with_field("completions", "input_tokens", "9223372036854775807", row=-1)
    check(s.value("SELECT max(input_tokens) FROM usage_by_model WHERE account = %s", name) > 2**63, "sums do not overflow")
    s, number, name, _ = with_field("completions", "input_tokens", "9223372036854775808")
    check(s.sql("SELECT reason FROM dead_letters JOIN accounts USING (account_id) WHERE name = %s", name), "2^63: no dead letter")
    heals(s, number, name)


@test("BR-049 an escaped NUL becomes U+FFFD and the batch goes in")
def _():
    s, number, name, _ = with_field("completions", "project_id", '"proj\\u0000x"')
    equal(row_of(s, name, "completions", "project_id LIKE 'proj_x'").get("project_id"), "proj\ufffdx", "project_id")
    rows = s.value("SELECT count(*) FROM usage_metrics JOIN accounts USING (account_id) WHERE name = %s", name)
    check(rows > 100, f"only {rows} rows went in")


@test("BR-050 lone surrogates and bytes that are no UTF-8 become U+FFFD and the batch goes in")
def _():
    for how in ({"raw": '"x\\ud83d"'}, {"raw_hex": "2278c08022"}, {"raw_hex": "2278eda08022"}, {"raw_hex": "2278f580808022"}):
        s, number, name, _ = with_field("completions", "project_id", row=0, **how)
        found = row_of(s, name, "completions", "project_id LIKE 'x%%'").get("project_id", "")
        check(found.startswith("x\ufffd") and found.strip("x\ufffd") == "", f"{how}: project_id {found!r}")
        rows = s.value("SELECT count(*) FROM usage_metrics JOIN accounts USING (account_id) WHERE name = %s", name)
        check(rows > 100, f"{how}: only {rows} rows went in")


@test("BR-056 tokens stand by project once: the sum of the table is the provider's sum")
def _():
    s, number, name = account(first_run=True)
    total = sum(int(r[0]) for k, r in s.ledger_rows([number], s.sim.start_now - s.reach_s + 7200).items() if k[1] == "completions")
    got = s.value("SELECT sum(input_tokens) FROM usage_metrics JOIN accounts USING (account_id) WHERE name = %s AND "
                  "feed = 'completions' AND bucket_start >= to_timestamp(%s)", name, (s.sim.start_now - s.reach_s + 7200) // 3600 * 3600)
    equal(int(got), total, "input tokens of all projects")
    equal(s.value("SELECT count(*) FROM usage_metrics WHERE feed = 'costs' AND (input_tokens IS NOT NULL OR output_tokens IS NOT NULL)"),
          0, "cost rows with tokens")


@test("BR-112 seconds keep their fraction, bytes their size, an unknown measure is kept")
def _():
    s, number, name = account(feeds=["audio_transcriptions", "vector_stores", "audio_speeches"])
    s.sim.fault(account=number, feed="audio_transcriptions", do="field", name="seconds", row=0, raw="521.5")
    s.sim.fault(account=number, feed="vector_stores", do="field", name="usage_bytes", row=0, raw="1099511627776")
    s.sim.fault(account=number, feed="audio_speeches", do="add_fields", raw='"syllables":77.25,"api_source":"batch-ui"')
    s.run(account=name)
    for feed, where, want in (("audio_transcriptions", "quantity = 521.5", ("521.5", "seconds")),
                              ("vector_stores", "quantity = 1099511627776", ("1099511627776", "bytes"))):
        row = row_of(s, name, feed, where)
        equal((row.get("quantity"), row.get("quantity_unit")), want, feed)
    row = row_of(s, name, "audio_speeches")
    equal(json.loads(row["extra"]).get("syllables"), 77.25, "the unknown number in extra")
    equal(json.loads(row["dims"]).get("api_source"), "batch-ui", "the unknown text in dims")


@test("normalizing: an unknown kind of result is set aside and counted, the rest goes in")
def _():
    s, number, name, _ = with_field("images", "object", '"organization.usage.decisions.result"')
    check(s.sql("SELECT 1 FROM dead_letters JOIN accounts USING (account_id) WHERE name = %s", name), "no dead letter")
    out = s.usagectl("dead", "list").out
    matches(name, out, "usagectl dead list")
    heals(s, number, name)
