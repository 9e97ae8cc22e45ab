"""Past windows on demand: by usagectl, and by whatever speaks ZeroMQ."""

import calendar
import json
import os
import subprocess
import time

from harness import Stack, check, equal, matches, wait_for
from runner import shared, stack, test


def running():
    s = Stack(sim={"accounts": 20, "days": 150}, env={"UF_BACKFILL": "2d"})
    s.start_all()
    s.add_accounts(range(3))
    s.run()
    return s


def month(ago):
    """(start, end) of a past month, in Unix seconds."""
    t = time.gmtime()
    m = t.tm_year * 12 + t.tm_mon - 1 - ago
    start, end = (calendar.timegm(((m + i) // 12, (m + i) % 12 + 1, 1, 0, 0, 0)) for i in (0, 1))
    return start, end


def text(seconds):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def has_month(s, number, start, end, feeds=None):
    """The month is in the table as the provider has it."""
    name, = s.names([number])
    want = sum(1 for line in s.sim.ledger([number], start, feeds=feeds).decode().splitlines()[1:]
               if start <= int(line.split(",")[2]) < end)
    got = s.value("SELECT count(*) FROM usage_metrics JOIN accounts USING (account_id) WHERE name = %s AND bucket_start >= "
                  "to_timestamp(%s) AND bucket_start < to_timestamp(%s) AND (%s::text[] IS NULL OR feed = ANY(%s))",
                  name, start, end, feeds, feeds)
    equal(got, want, f"rows of {name} in the window")
    check(want > 0, "the provider has nothing there: the test proves nothing")
    s.compare([number], s.sim.start_now - 2 * 86400 + 7200)


@test("inject: a past month, longer than one request, through usagectl")
def _():
    s = shared(running)
    start, end = month(2)
    done = s.usagectl("inject", "--account", "sim-000000", "--from", text(start), "--to", text(end), "--wait")
    has_month(s, 0, start, end)
    matches("rows", done.out + done.err, "the summary")
    asked = [p for _, _, path, p in s.sim.requests(0) if path.endswith("/completions") and int(p["start_time"][0]) < end]
    check(len(asked) >= 4, f"a month of hours in {len(asked)} requests: more than a request may ask for")


@test("inject: one feed alone")
def _():
    s = shared(running)
    start, end = month(3)
    s.usagectl("inject", "--account", "sim-000001", "--feed", "completions", "--from", text(start)[:10], "--to", text(end)[:10], "--wait")
    has_month(s, 1, start, end, ["completions"])
    equal(s.value("SELECT count(*) FROM usage_metrics JOIN accounts USING (account_id) WHERE name = 'sim-000001' AND "
                  "feed <> 'completions' AND bucket_start < to_timestamp(%s)", end), 0, "rows of other feeds in the window")


@test("inject: the same window again writes nothing")
def _():
    s = shared(running)
    start, end = month(2)
    args = ("inject", "--account", "sim-000000", "--from", text(start), "--to", text(end), "--wait")
    s.usagectl(*args)
    before = s.written()
    s.usagectl(*args)
    equal(s.written(), before, "number and place of the rows")


@test("inject: many at once from a file")
def _():
    s = shared(running)
    start, end = month(4)
    lines = "".join(json.dumps({"account": f"sim-{n:06d}", "feed": "costs", "from": text(start), "to": text(end)}) + "\n" for n in range(3))
    s.usagectl("inject", "--file", "-", "--wait", text=lines)
    for n in range(3):
        has_month(s, n, start, end, ["costs"])


@test("inject, run: asked for while the account's reading is being settled: not left until it is due again")
def _():
    s = shared(running)
    start, end = month(3)
    one = {"account": "sim-000000"}
    s.sql("CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.7); RETURN NULL; END'")
    s.sql("CREATE TRIGGER slow AFTER UPDATE ON accounts FOR EACH ROW WHEN (OLD.lease_job IS NOT NULL AND NEW.lease_job IS NULL) "
          "EXECUTE FUNCTION slow()")
    try:
        for ask in ({"cmd": "inject", "feed": "costs", "from": text(start), "to": text(end), **one}, {"cmd": "run", **one}, {"cmd": "run"}):
            s.control({"cmd": "run", **one})
            wait_for("a settlement", lambda: s.value("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep')"), every=0.01)
            answer = s.control(ask)
            wait_for(f"{ask}", lambda run=answer["run_id"]: s.control({"cmd": "run_status", "run_id": run})["state"] == "done", 20)
    finally:
        s.sql("DROP FUNCTION slow CASCADE")
    has_month(s, 0, start, end, ["costs"])


def documented_line():
    """The command that the docs show for a plain ZeroMQ tool."""
    root = os.path.join(os.path.dirname(__file__), "..", "..")
    for name in ("README.md", "docs/wire.md"):
        path = os.path.join(root, name)
        if os.path.exists(path):
            with open(path, encoding="utf-8") as f:
                for line in f:
                    if "import" in line and "zmq" in line and "python3 -c" in line:
                        return line.strip().lstrip("$ ")
    return None


@test("inject: a plain ZeroMQ tool, one JSON frame in, one out")
def _():
    s = shared(running)
    start, end = month(3)
    answer = s.control({"cmd": "inject", "account": "sim-000002", "feed": "completions", "from": text(start), "to": text(end)})
    equal(answer["ok"], True, f"answer {answer}")
    check(answer["jobs"] >= 1 and answer["run_id"], f"answer {answer}")
    equal(s.value("SELECT kind FROM fetch_runs WHERE run_id = %s", answer["run_id"]), "inject", "the row, there before the answer")
    wait_for("the injection", lambda: s.control({"cmd": "run_status", "run_id": answer["run_id"]})["state"] == "done", 30)
    has_month(s, 2, start, end, ["completions"])


@test("inject: the very line that the documentation shows for a ZeroMQ tool")
def _():
    s = shared(running)
    line = documented_line()
    check(line, "neither README.md nor docs/wire.md shows a python3 -c line with zmq")
    os.makedirs(os.path.join(s.folder, "var"), exist_ok=True)
    if not os.path.exists(os.path.join(s.folder, "var", "run")):
        os.symlink(os.path.join(s.folder, "run"), os.path.join(s.folder, "var", "run"))
    for name in ("acme", "demo-01", "demo-1", "sim-000000"):
        if name in line:
            line = line.replace(name, "sim-000001")
            break
    done = subprocess.run(["/bin/bash", "-c", line.replace("python3 -c", "/usr/bin/python3 -c")], cwd=s.folder, timeout=30,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={"PATH": "/usr/bin:/bin", "UF_RUN_DIR": s.folder + "/run"},
                          check=False)
    matches(r'"ok": ?true|.ok.: True', done.stdout.decode(), line)


@test("inject: an unknown account, feed or date is refused in words that say what to type")
def _():
    s = shared(running)
    for args, words in ((("--account", "sim-00000", "--from", "2026-01-01", "--to", "2026-02-01"), "sim-00000"),
                        (("--account", "sim-000000", "--feed", "completion", "--from", "2026-01-01", "--to", "2026-02-01"), "completions"),
                        (("--account", "sim-000000", "--from", "2026-13-01", "--to", "2026-02-01"), "2026-13-01"),
                        (("--account", "sim-000000", "--from", "yesterday-ish", "--to", "2026-02-01"), "yesterday-ish"),
                        (("--account", "sim-000000", "--from", "2026-02-01", "--to", "2026-01-01"), "before"),
                        (("--account", "sim-000000", "--from", "2026-02-01"), "--to")):
        done = s.usagectl("inject", *args, code=None)
        check(done.code in (1, 2), f"inject {args}: exit status {done.code}")
        matches(words, done.err, f"inject {args}")
    equal(s.control({"cmd": "inject", "account": "nobody", "from": "2026-01-01T00:00:00Z", "to": "2026-02-01T00:00:00Z"})["ok"], False, "ok")
    for request in (b"", b"{", b"[]", b'"run"', b"\xff\xfe", json.dumps({"cmd": "dance"}).encode(), b'{"cmd":"run","account":7}'):
        answer = s.control(request)
        equal(answer["ok"], False, f"{request!r}")
        check(answer["error"], f"{request!r}: {answer}")


@test("control: status, pause and resume")
def _():
    s = shared(running)
    status = s.control({"cmd": "status"})
    equal((status["ok"], status["paused"], len(status["fetchers"])), (True, False, 1), f"status {status}")
    s.control({"cmd": "pause"})
    s.sim.clear_stats()
    run = s.control({"cmd": "run", "account": "sim-000000"})
    time.sleep(1)
    equal(s.sim.requests(0), [], "requests while paused")
    equal(s.control({"cmd": "run_status", "run_id": run["run_id"]})["state"], "running", "state of a run while paused")
    s.control({"cmd": "resume"})
    wait_for("the run goes on", lambda: s.control({"cmd": "run_status", "run_id": run["run_id"]})["state"] == "done", 20)


@test("control: a run tells what is still to be read, however many its accounts are, and ends without the disabled ones")
def _():
    with stack(sim={"accounts": 1}) as s:  # nobody fetches
        s.wait_ready(s.start("scheduler"))
        s.control({"cmd": "pause"})
        s.sql("INSERT INTO accounts (name, provider, base_url, key_ciphertext, key_hint) "
              "SELECT 'a' || n, 'openai', 'http://127.0.0.1:9', '', '' FROM generate_series(1, 5000) AS n")
        run = s.control({"cmd": "run"})["run_id"]
        for _ in range(20):
            said = s.control({"cmd": "run_status", "run_id": run})
        equal((said["state"], said["accounts"]), ("running", {"total": 5000, "ok": 0, "failed": 0, "pending": 5000}), "before")
        s.sql("UPDATE accounts SET enabled = name = 'a5000'")
        equal(s.control({"cmd": "run_status", "run_id": run})["state"], "running", "state with one account that is enabled")
        s.sql("UPDATE accounts SET enabled = false")
        said = s.control({"cmd": "run_status", "run_id": run})
        equal((said["state"], said["accounts"]["pending"]), ("done", 0), "when all are disabled")
        s.one("scheduler").stop()
        wait_for("its server's processes, which tell what they have read when they end", lambda: s.value(
            "SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name LIKE 'uf-scheduler%%'"), 20)
        read = s.value("SELECT idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'run_accounts'")
        check(read < 30000, f"{read} rows of run_accounts were read to tell 22 times how a run of 5,000 is doing")


@test("BR-017 live windows go before what is owed, however much that is")
def _():
    s = shared(running)
    name, = s.add_accounts([5])
    s.run(account=name)
    s.sim.clear_stats()
    s.sim.fault(account=5, delay_ms=100)
    injected = s.control({"cmd": "inject", "account": name, "from": text(month(4)[0]), "to": text(month(1)[1])})
    wait_for("the injection has begun", lambda: s.sim.requests(5), 10)
    s.run(account=name)
    owed = s.value("SELECT count(*) FROM owed_windows WHERE run_id = %s AND state = 'pending'", injected["run_id"])
    check(owed, "the injection was done before the live windows were: they had to wait for it, or it was too small")
    s.sim.clear_faults()
    s.wait_backfill()
    has_month(s, 5, *month(4))
    has_month(s, 5, *month(2))


@test("backfill: a first reading that fails for days leaves no hole between the owed part and the live one")
def _():
    with stack(sim={"accounts": 1, "days": 60}, env={"UF_BACKFILL": "50d"}) as s:
        s.start_all()
        s.sim.fault(account=0, do="status", status=500)
        name, = s.add_accounts([0])
        s.run(account=name, code=1)
        # As if that had been two days ago: what was owed then ends where the live part began then.
        s.control({"cmd": "pause"})
        wait_for("no job is out", lambda: s.value("SELECT count(*) = 0 FROM accounts WHERE lease_until IS NOT NULL"), 20)
        moved = s.value("WITH m AS (UPDATE owed_windows SET to_at = to_at - interval '2 days' WHERE kind = 'backfill' RETURNING 1) "
                        "SELECT count(*) FROM m")
        check(moved, "nothing is owed: the backfill was not split, and the test proves nothing")
        s.sim.clear_faults()
        s.control({"cmd": "resume"})
        s.run(account=name)
        s.wait_backfill()
        s.compare([0], s.sim.start_now - s.sim.start_now % 86400 - 49 * 86400)
        s.stop_all()


@test("inject: resumed where it was after kill -9 of the scheduler")
def _():
    with stack(sim={"accounts": 2, "days": 150}, env={"UF_BACKFILL": "2d"}) as s:
        s.start_all()
        s.add_accounts([0])
        s.run()
        start, end = month(4)[0], month(2)[1]
        s.sim.clear_stats()
        s.sim.fault(delay_ms=30)
        answer = s.control({"cmd": "inject", "account": "sim-000000", "from": text(start), "to": text(end)})
        check(answer["jobs"] > 1, f"{answer['jobs']} job: nothing to be resumed")
        wait_for("a chunk is done", lambda: s.value("SELECT bool_or(done_to > from_at AND state = 'pending') FROM owed_windows "
                                                    "WHERE run_id = %s", answer["run_id"]), 40)
        s.one("scheduler").kill()
        done_to = s.value("SELECT max(done_to) FROM owed_windows WHERE run_id = %s AND feed = 'completions'", answer["run_id"])
        s.sim.clear_faults()
        s.sim.clear_stats()
        s.wait_ready(s.start("scheduler"))
        wait_for("the injection", lambda: s.control({"cmd": "run_status", "run_id": answer["run_id"]})["state"] == "done", 60)
        has_month(s, 0, start, end)
        again = min(int(p["start_time"][0]) for _, _, path, p in s.sim.requests(0) if path.endswith("/completions"))
        check(again >= done_to.timestamp(), f"begun again at {text(again)} although {done_to} was done")
        s.stop_all()
