"""What people read: tokens and money side by side, never one in place of the other.

tests/CASES.md lists the cases.
"""

import json
from decimal import Decimal

from harness import Stack, equal, matches
from runner import shared, test

DAY = "2026-10-05"


def tables():
    return Stack()


def account(name):
    """A fresh account, without a stage that would read it. Answers its id."""
    s = shared(tables)
    s.sql("DELETE FROM model_prices")
    return s, s.value("INSERT INTO accounts (name, provider, base_url, key_ciphertext, key_hint) VALUES (%s, 'openai', 'https://x', "
                      "'', '') RETURNING account_id", name)


def row(s, account_id, feed, hour=0, day=DAY, **columns):
    values = {"account_id": account_id, "provider": "openai", "feed": feed, "bucket_start": f"{day}T{hour:02}:00:00Z",
              "bucket_seconds": 86400 if feed == "costs" else 3600, "row_hash": 0, "first_seen_at": "now", "changed_at": "now"}
    values.update(columns)
    s.sql("SELECT usage_metrics_ensure_month(%s)", values["bucket_start"])
    s.sql(f"INSERT INTO usage_metrics (row_key, job_id, {', '.join(values)}) VALUES (gen_random_uuid(), gen_random_uuid(), "
          f"{', '.join(['%s'] * len(values))})", *values.values())


def price(s, model, kind, per_million):
    s.sql("INSERT INTO model_prices (provider, model, kind, per_million) VALUES ('openai', %s, %s, %s)", model, kind, per_million)


def bill(s, account_id):
    return s.value("SELECT sum(cost) FROM cost_daily WHERE account_id = %s", account_id)


def beside(s, account_id):
    """(billed, estimated, difference, unpriced tokens) of the day."""
    return s.sql("SELECT billed, estimated, difference, unpriced_tokens FROM reconciliation WHERE account_id = %s", account_id)


@test("BR-055 the same money by usage and by the cost report counts once")
def _():
    s, a = account("once")
    price(s, "m", "input", "2.50")
    row(s, a, "completions", model="m", input_tokens=1000000)
    row(s, a, "costs", line_item="m, input", cost_amount="2.50", currency="USD")
    equal(bill(s, a), Decimal("2.50"), "the bill")
    equal(beside(s, a), [(Decimal("2.50"), Decimal("2.50"), Decimal(0), 0)], "the bill beside the estimate")
    equal(s.value("SELECT sum(input_tokens) FROM usage_daily WHERE account_id = %s", a), 1000000, "tokens by day")
    equal(s.value("SELECT count(*) FROM usage_hourly WHERE account_id = %s", a), 1, "usage rows: no cost row among them")


@test("BR-055 Claude Code's tokens, which messages reports, too, are in no sum over feeds, and its estimate in no bill")
def _():
    s, a = account("claude")
    tokens = {"provider": "anthropic", "model": "claude", "input_tokens": 1000000, "cached_input_tokens": 800000, "output_tokens": 0}
    row(s, a, "messages", **tokens)
    row(s, a, "claude_code", bucket_seconds=86400, user_id="person_1", currency="USD", extra='{"estimated_cost": 9.75}', **tokens)
    row(s, a, "cost_report", provider="anthropic", bucket_seconds=86400, line_item="claude", cost_amount="0.95", currency="USD")
    s.sql("INSERT INTO model_prices (provider, model, kind, per_million) VALUES ('anthropic', 'claude', 'input', 3), "
          "('anthropic', 'claude', 'cached_input', 0.5)")
    equal(bill(s, a), Decimal("0.95"), "the bill")
    equal(beside(s, a), [(Decimal("0.95"), Decimal("1.0"), Decimal("-0.05"), 0)], "the bill beside the estimate")
    equal(s.value("SELECT sum(input_tokens) FROM usage_by_model WHERE account_id = %s", a), 1000000, "tokens by model")
    equal(s.sql("SELECT feed, input_tokens FROM usage_daily WHERE account_id = %s ORDER BY 1", a),
          [("claude_code", 1000000), ("messages", 1000000)], "each feed by itself")
    for by, want in (("model", [1000000]), ("feed", [1000000, 1000000])):
        shown = s.usagectl("usage", "--account", "claude", "--since", DAY, "--by", by, "--format", "json")
        equal([r["input_tokens"] for r in json.loads(shown.out)], want, f"usagectl usage --by {by}")


@test("BR-052 tokens without a line in the cost report make no bill; the estimate stands apart and shows the gap")
def _():
    s, a = account("refused-request")
    price(s, "m", "input", "3")
    row(s, a, "completions", model="m", input_tokens=12000)
    equal(bill(s, a), None, "the bill")
    equal(beside(s, a), [(None, Decimal("0.036"), None, 0)], "the bill beside the estimate")


@test("BR-053 a tier that the bill leaves out is there with its tokens, beside the bill")
def _():
    s, a = account("priority")
    price(s, "m", "input", "1")
    row(s, a, "completions", model="m", service_tier="default", input_tokens=2000000)
    row(s, a, "completions", model="m", service_tier="priority", input_tokens=500000)
    row(s, a, "costs", line_item="m, input", cost_amount="2.00", currency="USD")
    equal(beside(s, a), [(Decimal("2.00"), Decimal("2.5"), Decimal("-0.5"), 0)], "the bill beside the estimate")
    equal(s.sql("SELECT service_tier, input_tokens FROM usage_daily WHERE account_id = %s ORDER BY 1", a),
          [("default", 2000000), ("priority", 500000)], "tokens by tier")


@test("BR-043 an estimate says what it leaves out: a model or a kind without a price is no $0")
def _():
    s, a = account("unpriced")
    price(s, "half", "input", "1")
    row(s, a, "completions", model="half", input_tokens=1000000, output_tokens=300)
    row(s, a, "completions", model="none", input_tokens=5000)
    equal(s.sql("SELECT model, estimated_cost, status, unpriced_tokens FROM cost_estimate WHERE account_id = %s ORDER BY 1", a),
          [("half", Decimal(1), "partial", 300), ("none", None, "unpriced", 5000)], "estimates")
    equal(bill(s, a), None, "the bill: an estimate is not in it")
    # Whatever the real price of a long context is, the provider's own figure is what counts.
    row(s, a, "costs", line_item="half, long context", cost_amount="7.30", currency="USD")
    equal(bill(s, a), Decimal("7.30"), "the bill")


@test("BR-038 cached tokens are priced once, and the uncached rest is never negative money by itself")
def _():
    s, a = account("cached")
    price(s, "m", "input", "10")
    price(s, "m", "cached_input", "1")
    row(s, a, "completions", model="m", input_tokens=1000000, cached_input_tokens=800000)
    equal(s.value("SELECT estimated_cost FROM cost_estimate WHERE account_id = %s", a), Decimal("2.8"), "200,000 at 10 and 800,000 at 1")


@test("BR-040 a negative day is a negative day")
def _():
    s, a = account("credit")
    row(s, a, "costs", line_item="use", cost_amount="3.10", currency="USD")
    row(s, a, "costs", line_item="credit", cost_amount="-12.50", currency="USD")
    equal(bill(s, a), Decimal("-9.40"), "the bill")
    equal(beside(s, a), [(Decimal("-9.40"), None, None, 0)], "the bill beside the estimate")
    done = s.usagectl("cost", "--since", DAY, "--by", "account", "--format", "csv").out
    equal([line for line in done.splitlines() if "credit" in line], ["credit,-9.4,USD,2"], f"usagectl cost:\n{done}")


@test("BR-047 a month of thirty days of a hundred million tokens, and a row of three thousand million, add up")
def _():
    s, a = account("large")
    for day in range(1, 31):
        row(s, a, "completions", day=f"2026-09-{day:02}", model="m", input_tokens=100000000)
    row(s, a, "completions", day="2026-09-30", hour=1, model="m", input_tokens=3000000000)
    row(s, a, "completions", day="2026-09-30", hour=2, model="m", input_tokens=2**63 - 1)
    total = 30 * 100000000 + 3000000000 + 2**63 - 1
    for view in ("usage_daily", "usage_by_model", "usage_hourly"):
        equal(int(s.value(f"SELECT sum(input_tokens) FROM {view} WHERE account_id = %s", a)), total, view)
    out = s.usagectl("usage", "--since", "2026-09-01", "--by", "account", "--format", "json").out
    equal(str(total) in out, True, f"the sum in usagectl usage:\n{out[-600:]}")


PRICES = """provider,model,kind,per_million,currency,valid_from
# by the list of the provider
openai,gpt-x,input,2.50
openai,gpt-x,output,10,USD,2026-10-01
openai,gpt-x,output,8.000000000000000001,USD,2026-10-05
openai,gpt-x,output,9,USD,2026-10-05
"""


@test("usagectl prices import: all of a file or none; the later line holds; estimates follow, exactly")
def _():
    s, a = account("priced")
    row(s, a, "completions", model="gpt-x", input_tokens=3_000_000, output_tokens=1_000_001)
    equal(s.usagectl("prices", "import", "-", text=PRICES).out, "4 prices imported\n", "the first import")
    equal(s.value("SELECT estimated_cost FROM cost_estimate WHERE account_id = %s", a), Decimal("16.500009"), "the estimate")
    for line, says in (("openai,gpt-x,input", "at least provider, model, kind and per_million"),
                       ("openei,gpt-x,input,1", "no provider is 'openei'"), ("openai,gpt-x,inputs,1", "input"),
                       ("openai,gpt-x,input,-1", "not negative"), ("openai,gpt-x,input,1,usd", "USD"),
                       ("openai,gpt-x,input,1,USD,2026-02-30", "no day"), ("openai,,input,1", "model is missing")):
        done = s.usagectl("prices", "import", "-", text="openai,gpt-x,input,99\n" + line + "\n", code=2)
        matches(says, done.err, line)
        matches("line 2; no price was changed", done.err, line)
    listed = s.usagectl("prices", "list", "--format", "csv").out
    equal(listed, "provider,model,kind,per_million,currency,valid_from\nopenai,gpt-x,input,2.50,USD,1970-01-01\n"
          "openai,gpt-x,output,10,USD,2026-10-01\nopenai,gpt-x,output,9,USD,2026-10-05\n", "the prices after refused files")
