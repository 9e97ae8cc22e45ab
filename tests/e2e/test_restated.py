"""What was complete and is reported otherwise since: restated rows, another bucket width; and all of it
through a transaction pooler."""

import collections
import csv
import io
import json
import shutil
import threading
import time
from decimal import Decimal

import psycopg2

from harness import Stack, check, equal, matches, wait_for
from pooled import POOL, PooledStack
from runner import shared, stack, test

HOUR, DAY = 3600, 86400


# ---- restated, vanished and new rows ----

NUMBERS = ("input_tokens cached_input_tokens cache_write_tokens input_audio_tokens output_audio_tokens output_tokens "
           "num_requests quantity cost_amount").split()


def restated():
    """Account 0 works round the clock, so that every hour has a row to restate."""
    s = Stack(sim={"accounts": 4, "density": "NORMAL"}, env={"UF_BACKFILL": "32d"})
    s.start_all(scheduler={"UF_LEASE": "60s"})
    s.add_accounts([0, 3])
    s.run()
    s.wait_backfill()
    s.compare([0, 3])
    equal(s.value("SELECT count(*) FROM usage_revisions"), 0, "revisions after the first cycle")
    return s


def ledger(s):
    """{(account, feed, bucket, dimensions): {measure: value}} of the provider, a month of it."""
    rows = {}
    for row in csv.DictReader(io.StringIO(s.sim.ledger([0, 3], s.sim.start_now - 31 * DAY).decode())):
        key = (f"sim-{int(row['account']):06d}", row["feed"], int(row["bucket_start"]), row["project_id"], row["user_id"],
               row["api_key_id"], row["model"], row["line_item"], row["dims"] and json.dumps(json.loads(row["dims"]), sort_keys=True))
        rows[key + (row["service_tier"], row["batch"][:1])] = {n: Decimal(row[n]) for n in NUMBERS if row[n]}
    return rows


def differences(before, after):
    """What `usage_revisions` has to say when the provider went from one to the other."""
    kinds = {(True, True): "changed", (True, False): "vanished", (False, True): "appeared"}
    return {key: (kinds[key in before, key in after], before.get(key), after.get(key))
            for key in before.keys() | after.keys() if before.get(key) != after.get(key)}


def revisions(s, after_id):
    """The same from the table, of the revisions with a higher number."""
    found = {}
    for account, feed, bucket, change, old, new in s.sql(
            "SELECT a.name, v.feed, extract(epoch FROM bucket_start)::bigint, change, old_row::text, new_row::text "
            "FROM usage_revisions v JOIN accounts a USING (account_id) WHERE revision_id > %s", after_id):
        old, new = (json.loads(r, parse_int=Decimal, parse_float=Decimal) if r else None for r in (old, new))
        r = new or old
        key = (account, feed, bucket) + tuple(r.get(k) or "" for k in ("project_id", "user_id", "api_key_id", "model", "line_item"))
        key += (r["dims"] and json.dumps(r["dims"], sort_keys=True) if "dims" in r else "", r.get("service_tier") or "",
                str(r.get("batch", ""))[:1].lower())
        check(key not in found, f"one row is revised twice: {key}")
        found[key] = (change, *({n: r[n] for n in NUMBERS if n in r} if r else None for r in (old, new)))
    return found


def restate(s, hour, day):
    """Each kind in `hour` (usage) and `day` (costs). Answers what is then to be found."""
    before = ledger(s)
    s.sim.restate(0, "completions", hour, percent=150, row=0)
    s.sim.restate(0, "embeddings", hour, "vanish")
    s.sim.restate(3, "completions", hour, "add")
    s.sim.restate(0, "costs", day, percent=90, row=0)
    s.sim.restate(3, "costs", day, "add", amount="-3.25")
    s.sim.restate(3, "costs", day, "vanish", row=0)
    wanted = differences(before, ledger(s))
    kinds = {(k[0], k[1], w[0]) for k, w in wanted.items()}
    kinds -= {("sim-000003", "completions", "changed")}  # what is added may be a part of a row that is there
    equal(kinds | {("sim-000003", "completions", "appeared")}, {
        ("sim-000000", "completions", "changed"), ("sim-000000", "embeddings", "vanished"), ("sim-000003", "completions", "appeared"),
        ("sim-000000", "costs", "changed"), ("sim-000003", "costs", "appeared"), ("sim-000003", "costs", "vanished")},
          "what the simulator restated")
    check(any(k[:2] == ("sim-000003", "completions") for k in wanted), "what was added shows")
    return wanted


def newest(s):
    return s.value("SELECT coalesce(max(revision_id), 0) FROM usage_revisions")


def is_kept(s, wanted, after_id):
    s.compare([0, 3])
    got = revisions(s, after_id)
    equal(got, wanted, "usage_revisions, against what the provider restated")
    equal(s.value("SELECT count(*) FROM usage_revisions WHERE revised_at < now() - interval '10 minutes' OR revised_at > now() "
                  "OR job_id IS NULL"), 0, "revisions of another time, or of no job")


def audit_due(s, column, interval):
    s.sql(f"UPDATE account_feeds SET {column} = now() - interval '{interval}'")


@test("restated: a changed, vanished and new row within the lookback is followed by the next cycle, and kept")
def _():
    s = shared(restated)
    last, now = newest(s), s.sim.now()
    wanted = restate(s, s.sim.last_hour(), now - now % DAY - DAY)
    run = s.run()
    is_kept(s, wanted, last)
    equal(run["rows_inserted"] + run["rows_updated"] + run["rows_removed"], len(wanted), "rows that the run says it wrote")
    s.run()
    equal(newest(s), last + len(wanted), "revisions after a cycle that found nothing new")


@test("restated: what is older than the lookback is found by the daily audit, and not before")
def _():
    s = shared(restated)
    last, now = newest(s), s.sim.now()
    hour = now - now % HOUR - 2 * DAY
    wanted = restate(s, hour, hour - hour % DAY)
    s.run()
    early = revisions(s, last)
    equal(early, {k: w for k, w in wanted.items() if k[1] == "costs"}, "revisions before the audit (the lookback of costs is 3 days)")
    audit_due(s, "audited_3d_at", "25 hours")
    s.run()
    is_kept(s, wanted, last)


@test("restated: what is weeks old is found by the weekly audit, and not by the daily one")
def _():
    s = shared(restated)
    last, now = newest(s), s.sim.now()
    hour = now - now % HOUR - 20 * DAY
    wanted = restate(s, hour, hour - hour % DAY)
    audit_due(s, "audited_3d_at", "25 hours")
    s.run()
    equal(revisions(s, last), {}, "revisions before the weekly audit")
    audit_due(s, "audited_30d_at", "8 days")
    s.run()
    is_kept(s, wanted, last)
    equal(s.value("SELECT count(*) FROM account_feeds WHERE audited_30d_at < now() - interval '1 day'"), 0, "audits that are still due")


@test("usagectl revisions: newest first, only the figures that differ; csv and json have both rows whole")
def _():
    s = shared(restated)
    if not newest(s):
        now = s.sim.now()
        restate(s, s.sim.last_hour(), now - now % DAY - DAY)
        s.run()
    total = s.value("SELECT count(*) FROM usage_revisions")
    rows = json.loads(s.usagectl("revisions", "--format", "json").out)
    equal(len(rows), min(total, 100), "revisions as json")
    ids = s.sql("SELECT row_key::text, change FROM usage_revisions ORDER BY revision_id DESC LIMIT 100")
    equal([(r["row_key"], r["change"]) for r in rows], ids, "their order")
    for r in rows:
        old, new, job = s.sql("SELECT old_row, new_row, job_id::text FROM usage_revisions WHERE row_key = %s AND bucket_start = %s",
                              r["row_key"], r["bucket_start"])[0]
        equal(tuple(json.loads(r[k]) if r[k] else None for k in ("old_row", "new_row")), (old, new), "old and new row")
        equal(r["job_id"], job, "job")
    table = list(csv.DictReader(io.StringIO(s.usagectl("revisions", "--feed", "costs", "--limit", 2, "--format", "csv").out)))
    equal([r["feed"] for r in table], ["costs", "costs"], "two of costs, as csv")

    old, new = s.sql("SELECT old_row->>'num_requests', new_row->>'num_requests' FROM usage_revisions WHERE change = 'changed' "
                     "AND feed = 'completions' ORDER BY revision_id DESC LIMIT 1")[0]
    shown = s.usagectl("revisions", "--account", "sim-000000", "--feed", "completions", "--limit", 1).out
    matches(f"sim-000000 .*completions.* changed .*num_requests: {old} -> {new}", shown, "the table")
    check("model:" not in shown and "api_key_id" not in shown, f"what did not change is shown:\n{shown}")
    shown = s.usagectl("revisions", "--account", "sim-000003", "--feed", "costs").out
    matches(r"appeared .*cost_amount: - -> -3\.25", shown, "a row that appeared")
    matches(r"vanished .*cost_amount: \S+ -> -", shown, "a row that vanished")


@test("usagectl revisions: bad options say what is right; none is an answer, too")
def _():
    s = shared(restated)
    for args, words in ((["--account", "sim-00000"], "sim-000000"), (["--feed", "cost"], "did you mean costs"),
                        (["--since", "soon"], "--since"), (["--limit", "0"], "from 1 to"), (["--limit", "ten"], "from 1 to"),
                        (["--format", "xml"], "table")):
        matches(words, s.usagectl("revisions", *args, code=2).err, f"revisions {args}")
    matches("no revisions", s.usagectl("revisions", "--feed", "images").out, "no revisions")
    equal(json.loads(s.usagectl("revisions", "--feed", "images", "--format", "json").out), [], "none as json")


# ---- another bucket width ----

def overlapping(s):
    """Buckets of a feed that begin before another one of it, of whatever width, has ended."""
    return s.sql(
        "SELECT name, feed, bucket_start, bucket_seconds, held_to FROM (SELECT account_id, feed, bucket_start, bucket_seconds, "
        "max(bucket_start + make_interval(secs => bucket_seconds)) OVER (PARTITION BY account_id, feed ORDER BY bucket_start, "
        "bucket_seconds DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS held_to FROM (SELECT DISTINCT account_id, feed, "
        "bucket_start, bucket_seconds FROM usage_metrics) d) x JOIN accounts USING (account_id) WHERE bucket_start < held_to LIMIT 5")


def days_are_right(s, accounts, start):
    """Requests and tokens, day by day: a bucket held in two widths would count twice, one in none not at all."""
    want = collections.Counter()
    for row in csv.DictReader(io.StringIO(s.sim.ledger(accounts, start).decode())):
        day = int(row["bucket_start"]) // DAY * DAY
        for n in ("num_requests", "input_tokens"):
            want[f"sim-{int(row['account']):06d}", row["feed"], day, n] += int(row[n] or 0)
    got = collections.Counter()
    for account, feed, day, requests, tokens in s.sql(
            "SELECT a.name, feed, extract(epoch FROM date_trunc('day', bucket_start, 'UTC'))::bigint, sum(num_requests), "
            "sum(input_tokens) FROM usage_metrics JOIN accounts a USING (account_id) WHERE bucket_start >= to_timestamp(%s) "
            "GROUP BY 1, 2, 3", start):
        got[account, feed, day, "num_requests"] = int(requests or 0)
        got[account, feed, day, "input_tokens"] = int(tokens or 0)
    wrong = {k: (got[k], want[k]) for k in got.keys() | want.keys() if got[k] != want[k]}
    check(not wrong, f"{len(wrong)} sums of a day differ from the provider's, as (table, provider): {dict(list(wrong.items())[:5])}")
    check(sum(want.values()) > 0, "the provider has nothing: the test proves nothing")


def with_width(s, width, accounts, start):
    """One cycle of a scheduler with that UF_BUCKET, and what must hold after it."""
    for p in s.of("scheduler"):
        equal(p.stop(), 0, "the scheduler's exit status")
    s.wait_ready(s.start("scheduler", UF_BUCKET=width, UF_LEASE="60s"))
    s.run()
    s.wait_backfill()
    equal(overlapping(s), [], f"buckets of two widths over one moment, after UF_BUCKET={width}")
    days_are_right(s, accounts, start)


def widths(s):
    return {w for w, in s.sql("SELECT DISTINCT bucket_seconds FROM usage_metrics WHERE feed = 'completions'")}


# How far the provider's clock goes on before each reading; the last one comes within the hour.
@test("bucket width: 1h, 1d, 1h again: no moment is held twice, and every day adds up")
def _():
    accounts = range(6)
    for steps in ((5 * HOUR, 3 * HOUR, 7 * HOUR), (30 * HOUR, 26 * HOUR, 10), (600, 600, 600)):
        begin = int(time.time()) - sum(steps) - 60
        with stack(sim={"accounts": 6, "density": "NORMAL", "now": begin}, env={"UF_BACKFILL": "8d"}) as s:
            start = begin - begin % DAY - 2 * DAY  # well within what the first cycle reads
            s.start_all(scheduler=0)
            s.add_accounts(accounts)
            with_width(s, "1h", accounts, start)
            for width, step in zip(("1d", "1h", "1h"), steps):
                s.sim.advance(step)
                with_width(s, width, accounts, start)
                if width == "1d":
                    equal(widths(s), {HOUR, DAY}, "widths of completions after a cycle by days")
            now = s.sim.now()
            equal(s.value("SELECT count(*) FROM usage_metrics WHERE feed <> 'costs' AND bucket_seconds <> 3600 AND bucket_start >= "
                          "to_timestamp(%s)", now - now % DAY), 0, "rows of today that are still by day")


@test("bucket width: 1h, 1d, 1h with audits due at each: a month of days adds up")
def _():
    accounts = range(3)
    begin = int(time.time()) - 31 * HOUR
    with stack(sim={"accounts": 3, "density": "NORMAL", "now": begin}, env={"UF_BACKFILL": "20d"}) as s:
        start = begin - begin % DAY - 17 * DAY
        s.start_all(scheduler=0)
        s.add_accounts(accounts)
        with_width(s, "1h", accounts, start)
        for width in ("1d", "1h"):
            s.sim.advance(15 * HOUR)
            audit_due(s, "audited_30d_at", "8 days")
            with_width(s, width, accounts, start)
            equal(s.value("SELECT count(*) FROM usage_metrics WHERE feed <> 'costs' AND bucket_seconds <> %s AND bucket_start >= "
                          "to_timestamp(%s)", HOUR if width == "1h" else DAY, start), 0, f"rows of another width after {width}")
        s.compare(accounts, start)


def asked_now(s):
    """How many accounts have had a request since the numbers were cleared, answered or not."""
    return sum(a["max_concurrent"] > 0 for a in s.sim.stats()["accounts"].values())


@test("bucket width: back to 1h after a death between the commit of days and their settlement: no moment is held twice")
def _():
    accounts = range(3)
    begin = int(time.time()) // DAY * DAY - DAY + 10 * HOUR
    with stack(sim={"accounts": 3, "density": "NORMAL", "now": begin}, env={"UF_BACKFILL": "5d"}) as s:
        start = begin - begin % DAY - DAY
        s.start_all(scheduler=0)
        s.add_accounts(accounts)
        with_width(s, "1h", accounts, start)
        s.sim.advance(5 * HOUR)
        s.one("scheduler").stop()
        s.sim.clear_stats()
        s.sim.fault(do="nothing", delay_ms=1000)
        dies = s.start("scheduler", UF_BUCKET="1d")
        s.wait_ready(dies)
        asked = s.background_usagectl("run")
        wait_for("a request of each job", lambda: asked_now(s) == len(accounts), 10, 0.005)
        asked.ended()
        dies.pause()  # the pages come a second later; it does not hear of them
        wait_for("the days committed", lambda: DAY in widths(s), 10)
        dies.kill()
        equal(s.value("SELECT count(*) FROM accounts WHERE lease_until > now()"), len(accounts), "leases that nobody settled")
        s.sim.clear_faults()
        with_width(s, "1h", accounts, start)


@test("bucket width: a first reading by days that dies before it settles, then 1h: no moment is held twice")
def _():
    accounts = range(3)
    begin = int(time.time()) // DAY * DAY - DAY + 15 * HOUR
    with stack(sim={"accounts": 3, "density": "NORMAL", "now": begin}, env={"UF_BACKFILL": "1d"}) as s:
        s.start_all(scheduler=0)
        s.add_accounts(accounts)
        s.sim.clear_stats()
        s.sim.fault(do="nothing", delay_ms=1000)
        dies = s.start("scheduler", UF_BUCKET="1d")
        s.wait_ready(dies)
        asked = s.background_usagectl("run")
        wait_for("a request of each job", lambda: asked_now(s) == len(accounts), 10, 0.005)
        asked.ended()
        dies.pause()
        wait_for("the days committed", lambda: DAY in widths(s), 10)
        dies.kill()
        equal(s.value("SELECT count(*) FROM account_feeds WHERE watermark IS NOT NULL"), 0, "feeds that were settled")
        s.sim.clear_faults()
        with_width(s, "1h", accounts, begin - begin % DAY)
        equal(widths(s), {HOUR}, "widths of completions")


# ---- through PgBouncer ----

class Watch(threading.Thread):
    """Counts, as long as it runs, the server connections that are not the harness's."""

    def __init__(self, url):
        super().__init__(daemon=True)
        self.connection = psycopg2.connect(url)
        self.connection.autocommit = True
        self.ended = threading.Event()
        self.looks, self.most = 0, 0
        self.start()

    def run(self):
        while not self.ended.wait(0.02):
            with self.connection.cursor() as c:
                c.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = 'uf' AND application_name <> 'harness'")
                self.most = max(self.most, c.fetchone()[0])
                self.looks += 1

    def stop(self):
        self.ended.set()
        self.join(10)
        self.connection.close()


@test("PgBouncer in transaction mode, three server connections: migrate, twenty accounts, cycles, equality")
def _():
    s = shared(lambda: PooledStack(sim={"accounts": 20, "density": "NORMAL"}, env={"UF_BACKFILL": "3d"}))
    s.start_all(scheduler=2, writer=2)
    watch = Watch(s.postgres.url("uf"))
    s.add_accounts(range(20))
    equal(s.run()["accounts_ok"], 20, "accounts that succeeded")
    s.compare(range(20))
    for _ in range(3):
        s.sim.advance(20 * 60)
        s.sim.restate(0, "completions", s.sim.last_hour(), percent=120)
        equal(s.run()["accounts_ok"], 20, "accounts that succeeded")
    s.compare(range(20))
    check(s.value("SELECT count(*) FROM usage_revisions") > 0, "no revision was kept through the pooler")
    s.usagectl("status")
    s.usagectl("cost")
    s.usagectl("revisions")
    s.usagectl("doctor")
    watch.stop()
    check(watch.looks > 50, f"the connections were looked at {watch.looks} times only")
    check(1 <= watch.most <= POOL, f"{watch.most} server connections, the pool has {POOL}")
    transactions = sum(r["total_xact_count"] for r in s.pool_shows("STATS"))
    check(transactions > 50, f"only {transactions} transactions went through the pooler")
    clients = [c for c in s.pool_shows("CLIENTS") if c["user"] == "uf"]
    check(len(clients) > POOL, f"{len(clients)} clients for {POOL} server connections: nothing had to be shared")
    wait_for("no transaction left open", lambda: s.value(
        "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = 'uf' AND application_name <> 'harness' AND xact_start IS NOT NULL"), 5)
    equal([(r["cl_waiting"], r["sv_active"]) for r in s.pool_shows("POOLS")], [(0, 0)], "who waits for, or holds, a server connection")
    for p in s.of():
        lines = [line for line in p.text().splitlines() if "prepared statement" in line or "search_path" in line]
        check(not lines, f"{p.name}: {lines[:2]}")
    s.stop_all()


@test("PgBouncer restarted under load: every stage goes on by itself, and the table is the ledger", allow=["Postgres"])
def _():
    s = shared(lambda: PooledStack(sim={"accounts": 40, "density": "NORMAL"}, env={"UF_BACKFILL": "6d", "UF_BATCH_MS": "20"}))
    s.start_all()
    s.add_accounts(range(40))
    asked = s.background_usagectl("run")
    wait_for("the first rows", lambda: s.value("SELECT count(*) > 0 FROM usage_metrics"), 20, 0.01)
    s.pool.kill()
    asked.ended(30)
    shutil.rmtree(s.pool_folder)
    s.start_pool()
    s.usagectl("run")  # the scheduler may notice only now that its connection is gone
    s.run()
    s.compare(range(40))
    equal(s.value("SELECT count(*) FROM dead_letters"), 0, "dead letters")
    s.stop_all()
