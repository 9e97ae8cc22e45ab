"""A small company's accounts, read by the real pipeline from the simulator: what the page is tested on.

Every state an account can be in is there, and a provider that names a model <script>alert(1)</script>.
"""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))

import harness  # noqa: E402

DAYS = 62  # this month and the last
MARKUP = "<script>alert(1)</script>"
HEALTHY = {"acme-prod": 0, "acme-staging": 10, "acme-research": 2, "support-bot": 3, "search": 6, "data-team": 7,
           "mobile": 8, "translations": 19, "labs": 12, "eval-runs": 13}
REVOKED = "billing-eu"
SCOPED = "agency"
LATE = "nightly-jobs"
UNREAD = "new-hire"
OFF = "old-project"
QUIET = "idle-sandbox"
YOUNG = ("labs", "images")  # a feed of which older days were never read
PRICES = """provider,model,kind,per_million,currency,valid_from
openai,{model},input,1.25,USD,2026-01-01
openai,{model},cached_input,0.125,USD,2026-01-01
openai,{model},output,10,USD,2026-01-01
"""


def add(stack, name, number):
    stack.usagectl("account", "add", name, "--provider", "openai", "--base-url", stack.sim.base_url, "--key-file", "-",
                   text=stack.sim.key(number) + "\n")


def prices(stack):
    """List prices for all models but the last two by name, so that an estimate is not whole."""
    stack.sql("""INSERT INTO model_prices (provider, model, kind, per_million, currency, valid_from)
                 SELECT 'openai', model, kind, price, 'USD', '2026-01-01'
                 FROM (SELECT model, row_number() OVER (ORDER BY model DESC) AS place
                       FROM (SELECT DISTINCT model FROM usage_metrics WHERE model IS NOT NULL AND cost_amount IS NULL
                             AND model NOT LIKE '<%%') m) n,
                      (VALUES ('input', 1.25), ('cached_input', 0.125), ('cache_write', 1.5), ('output', 10)) p (kind, price)
                 WHERE place > 2""")


def stack():
    s = harness.Stack(sim={"accounts": 40, "days": DAYS}, env={"UF_BACKFILL": f"{DAYS}d"})
    s.start_all(fetcher=2)
    # before the accounts: they may be read as soon as they are added
    s.sim.fault(account=2, feed="completions", do="field", name="model", raw='"' + MARKUP + '"', row=0)
    s.sim.fault(account=21, feed="completions", do="field", name="input_tokens", raw='"many"', row=0, times=1)
    for name, number in {**HEALTHY, REVOKED: 14, SCOPED: 15, LATE: 16, OFF: 21, QUIET: 18}.items():
        add(s, name, number)
    s.run(code=None, seconds=180)
    s.wait_backfill(180)
    prices(s)
    s.sim.set_key(14, revoked=True)
    s.sim.set_key(15, feeds=["completions", "embeddings", "costs"])
    now = s.sim.now()
    hour = now - now % 3600
    for back in (2, 3):
        s.sim.restate(0, "completions", hour - back * 3600)
    day = now - now % 86400
    s.sim.restate(6, "costs", day - 3 * 86400, op="add", amount="-12.503125")
    s.run(code=1, seconds=120)
    s.usagectl("account", "disable", OFF)
    s.control({"cmd": "pause"})
    add(s, UNREAD, 20)
    ids = "(SELECT account_id FROM accounts WHERE name = %s)"
    s.sql(f"DELETE FROM usage_metrics WHERE account_id = {ids}", QUIET)
    s.sql(f"UPDATE account_feeds SET empty_since = now() - interval '9 days' WHERE account_id = {ids}", QUIET)
    s.sql(f"UPDATE account_feeds SET complete_from = now() - interval '3 days' WHERE feed = %s AND account_id = {ids}", *YOUNG[::-1])
    s.sql("UPDATE accounts SET next_due = now() - interval '27 hours' WHERE name = %s", LATE)
    s.sql(f"UPDATE account_feeds SET watermark = watermark - interval '27 hours' WHERE account_id = {ids}", LATE)
    return s
