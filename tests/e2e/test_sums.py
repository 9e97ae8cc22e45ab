"""Sums made ahead (usage_days, usage_slots and their kin): the gateway's figures are the same with them, without, and in between.

That they hold while the pipeline works, dies and starts again is asked at the end of every other test (Stack.check_sums).
"""

import contextlib
import datetime
import itertools
import random
import time
from decimal import Decimal

import psycopg2

from api import Client
from harness import Stack, check, equal, wait_for
from runner import stack, test

USAGE = "/api/v1/usage"
COST = "/api/v1/cost"


def season():
    """Two accounts over three months, and one that was removed; hours, whole days, a day on which nothing came after the
    morning, bills in two currencies, prices that change."""
    s = Stack()
    s.sql("INSERT INTO accounts (account_id, name, provider, base_url, key_ciphertext, key_hint) SELECT n, 'org-' || n, 'openai', "
          "'https://api.example/v1', '', 'sk-…' FROM generate_series(1, 2) n")
    s.sql("SELECT usage_metrics_ensure_month(now() - m * interval '1 month') FROM generate_series(0, 4) m")
    s.sql("""INSERT INTO usage_metrics (account_id, provider, feed, bucket_start, bucket_seconds, row_key, row_hash, project_id, model,
             service_tier, batch, input_tokens, cached_input_tokens, output_tokens, quantity, first_seen_at, changed_at, job_id)
             SELECT a, 'openai', CASE m WHEN 2 THEN 'images' ELSE 'completions' END, h, CASE m WHEN 2 THEN 86400 ELSE 3600 END,
             gen_random_uuid(), 0, CASE m WHEN 1 THEN 'proj_' || a END, CASE m WHEN 2 THEN NULL ELSE 'model-' || m END,
             CASE m WHEN 1 THEN 'flex' END, CASE a WHEN 2 THEN m = 1 END, CASE m WHEN 2 THEN NULL ELSE (extract(epoch FROM h)::bigint * (a + 7)) % 1000003 END, CASE m WHEN 1 THEN a END,
             CASE m WHEN 2 THEN NULL ELSE a * 3 + m END, CASE m WHEN 2 THEN 0.25 * a END, now(), now(), gen_random_uuid()
             FROM generate_series(1, 3) a, generate_series(0, 2) m,
             generate_series(date_trunc('day', now(), 'UTC') - interval '100 days', now(), interval '3 hours') h
             WHERE (m < 2 OR extract(hour FROM h AT TIME ZONE 'UTC') = 0) AND NOT (h > date_trunc('day', now(), 'UTC') - interval '42 hours'
             AND h < date_trunc('day', now(), 'UTC') - interval '24 hours')""")
    s.sql("""INSERT INTO usage_metrics (account_id, provider, feed, bucket_start, bucket_seconds, row_key, row_hash, line_item, cost_amount,
             currency, first_seen_at, changed_at, job_id) SELECT a, 'openai', 'costs', d, 86400, gen_random_uuid(), 0, 'item ' || a,
             0.0000000000001 * a + 0.1, CASE a WHEN 2 THEN 'EUR' ELSE 'USD' END, now(), now(), gen_random_uuid()
             FROM generate_series(1, 3) a, generate_series(date_trunc('day', now(), 'UTC') - interval '100 days', now(), interval '1 day') d""")
    s.sql("INSERT INTO model_prices (provider, model, kind, per_million, valid_from) VALUES ('openai', 'model-1', 'input', 1.25, '1970-01-01'), "
          "('openai', 'model-1', 'output', 10, '1970-01-01'), ('openai', 'model-1', 'input', 1.5, current_date - 45)")
    s.client = Client(s.start_gateway().port)
    return s


def sum_up(s):
    """All that the writers would, in time."""
    while s.value("SELECT usage_sum_up(100, '0s')") > 0:
        pass
    while s.value("SELECT usage_slots_sum('0s')"):
        pass
    equal(s.sql("SELECT valid, (SELECT count(*)::int FROM usage_unsummed_days), (SELECT count(*)::int FROM usage_open_days) FROM usage_summed"),
          [(True, 0, 0)], "summed up")


def back(days):
    """A day so long ago, as the API takes it."""
    return (datetime.datetime.now(datetime.timezone.utc).date() - datetime.timedelta(days=days)).isoformat()


def questions():
    """Ranges that begin and end with months, days, hours, in zones ahead and behind; every kind of grouping."""
    today = datetime.datetime.now(datetime.timezone.utc).date()
    first = today.replace(day=1)
    ranges = [((first - datetime.timedelta(days=80)).replace(day=1).isoformat(), (today + datetime.timedelta(days=1)).isoformat()),
              (back(95), None), (back(33), back(2)), (back(1), None), (back(40) + "T05:00:00Z", back(3) + "T18:00:00Z"),
              (back(10) + "T03:00:00Z", back(10) + "T21:00:00Z"), (first.isoformat(), None)]
    for (start, end), zone in itertools.product(ranges, ("UTC", "Europe/Berlin", "America/Denver", "Asia/Kolkata", "Pacific/Kiritimati")):
        for path, fixed, groups in ((USAGE, {}, ("", "day", "month", "account", "model,project", "month,account", "month,tier", "day,batch", "account,tier")),
                                    (COST, {"basis": "billed"}, ("", "day", "account", "month,line_item", "month,account")),
                                    (COST, {"basis": "estimated"}, ("", "month,model", "day,account", "account"))):
            for group in groups:
                yield path, {**fixed, "from_": start, "to": end, "tz": zone, "group_by": group}


def special():
    """Figures that some filter or end picks out."""
    for group in ("", "account"):  # the morning is in the span, the figures for the whole day are not
        yield USAGE, {"from_": back(10), "to": back(2), "tz": "America/Denver", "group_by": group}
    for group in ("account", "day", "hour"):
        yield USAGE, {"from_": back(60), "account": ["org-2", "org-1"], "group_by": group, "tz": "America/Denver"}
        yield USAGE, {"from_": back(60), "project": "", "model": "model-0", "group_by": group}
        yield USAGE, {"from_": back(60), "tier": "flex", "group_by": group, "tz": "Asia/Kolkata"}
        yield USAGE, {"from_": back(60), "account": "org-2", "feed": "images", "group_by": group.replace("hour", "month"), "tz": "America/Denver"}


@test("sums made ahead and rows give the same figures, to the last digit")
def _():
    with stack(season) as s:
        asked = random.Random(7).sample([(path, {k: v for k, v in q.items() if v is not None}) for path, q in questions()], 200)
        asked += special()
        equal(s.value("SELECT valid FROM usage_summed"), False, "rows that no writer wrote are not trusted to be summed up")
        rows = [s.client.get(path, **query).rows() for path, query in asked]
        check(sum(len(r) for r in rows) > 1000, "there is something to compare")

        def same(when):
            time.sleep(2.2)  # answers are kept for two seconds
            for (path, query), want in zip(asked, rows, strict=True):
                equal(s.client.get(path, **query).rows(), want, f"{when}: {path} {query}")

        sum_up(s)
        s.check_sums()
        months = s.value("SELECT count(DISTINCT month)::int FROM usage_months")
        check(months >= 3, f"{months} months are summed up")
        same("all of it summed up")
        # As a writer does it; nobody has summed up the day since.
        s.sql("BEGIN; SET LOCAL uf.sums = 'kept'; UPDATE usage_metrics SET input_tokens = input_tokens + 1 WHERE account_id = 1 AND bucket_start "
              "BETWEEN now() - interval '50 days' AND now() - interval '48 days'; INSERT INTO usage_unsummed_days SELECT DISTINCT account_id, "
              "(bucket_start AT TIME ZONE 'UTC')::date FROM usage_metrics WHERE account_id = 1 AND bucket_start BETWEEN now() - interval '50 days' "
              "AND now() - interval '48 days'; COMMIT")
        time.sleep(2.2)
        changed = [s.client.get(path, **query).rows() for path, query in asked]
        check(changed != rows, "the change shows at once")
        s.sql("SELECT usage_sum_again()")
        rows = changed
        same("from rows alone")
        s.sql("UPDATE usage_summed SET valid = true, named_until = 0")
        same("some days from rows")
        # All days but one of one account are summed up, and no day's slots.
        while s.value("SELECT usage_sum_up(100, '0s')") > 0:
            pass
        s.sql("INSERT INTO usage_unsummed_days SELECT 1, current_date - 49")
        s.sql("INSERT INTO usage_open_days SELECT current_date - n FROM generate_series(0, 99) n ON CONFLICT DO NOTHING")
        same("the accounts' days summed up, slots not")
        sum_up(s)
        s.check_sums()
        same("summed up again")


@test("a change by hand is noticed, and counts at once")
def _():
    with stack(season) as s:
        sum_up(s)
        before = s.client.get(COST, group_by="").rows()
        s.sql("UPDATE usage_metrics SET cost_amount = cost_amount + 1 WHERE feed = 'costs' AND account_id = 2 AND bucket_start = "
              "date_trunc('day', now(), 'UTC') - interval '20 days'")
        time.sleep(2.2)
        after = s.client.get(COST, group_by="").rows()
        equal([Decimal(a["cost_amount"]) - Decimal(b["cost_amount"]) for a, b in zip(after, before, strict=True)], [1, 0], "EUR, USD")
        equal(s.value("SELECT valid FROM usage_summed"), False, "the sums are not trusted")
        sum_up(s)
        s.check_sums()


@test("an account removed with its rows leaves all other sums valid")
def _():
    with stack(season) as s:
        sum_up(s)
        s.usagectl("account", "remove", "org-2", "--yes", "--purge")
        equal(s.value("SELECT valid FROM usage_summed"), True, "the sums are trusted")
        equal(s.sql("SELECT account_id, count(*) > 0 FROM usage_days GROUP BY 1 ORDER BY 1"), [(1, True), (3, True)], "accounts with sums")
        s.check_sums()
        want = s.client.get(COST, group_by="account").rows()
        sum_up(s)
        s.check_sums()
        time.sleep(2.2)
        equal(s.client.get(COST, group_by="account").rows(), want, "the same figures")


@test("summing up that does not get through gives up in 5 s, and is left alone for a minute; pages do not wait for it")
def _():
    with stack(sim={"accounts": 1}) as s, contextlib.closing(psycopg2.connect(s.postgres.url("uf"))) as other:
        trying = lambda: s.value("SELECT count(*)::int FROM pg_stat_activity WHERE query LIKE '%%usage_sum_up%%' AND "  # noqa: E731
                                 "wait_event_type = 'Lock'")
        s.start_all()
        s.add_accounts([0])
        s.run()
        wait_for("all is summed up", lambda: s.value("SELECT valid AND NOT EXISTS (SELECT FROM usage_unsummed_days) FROM usage_summed"), 20)
        other.cursor().execute("LOCK TABLE usage_days")
        s.sql("INSERT INTO usage_unsummed_days (account_id, day) SELECT account_id, current_date FROM accounts")
        wait_for("a writer that waits to sum up", trying, 10, 0.05)
        began = time.monotonic()
        wait_for("it gives up", lambda: '"sums.retry"' in s.one("writer").text(), 9, 0.05)
        check(time.monotonic() - began > 3, "it tried for a while")
        began = time.monotonic()
        s.run()
        check(time.monotonic() - began < 4, f"a cycle took {time.monotonic() - began:.1f} s")
        while time.monotonic() < began + 7:  # it is looked for each second where all is well
            equal(trying(), 0, "tried again so soon")
            time.sleep(0.1)
        other.rollback()
        s.compare([0])
        s.stop_all()


@test("sums that pass a bigint are no sums: their rows are read")
def _():
    with stack(season) as s:
        s.sql("UPDATE usage_metrics SET input_tokens = 9223372036854775807 WHERE account_id = 1 AND model = 'model-0' AND bucket_start BETWEEN "
              "now() - interval '4 days' AND now() - interval '3 days'")
        want = s.client.get(USAGE, group_by="account").rows()
        check(max(r["input_tokens"] or 0 for r in want) > 7 * 9223372036854775807, want)
        while s.value("SELECT usage_sum_up(100, '0s')") > 0:
            pass
        equal(s.value("SELECT bool_and(since = 'infinity') AND count(*) BETWEEN 1 AND 2 FROM usage_unsummed_days"), True, "it stays unsummed")
        time.sleep(2.2)
        equal(s.client.get(USAGE, group_by="account").rows(), want, "the same figures")
        s.check_sums()
