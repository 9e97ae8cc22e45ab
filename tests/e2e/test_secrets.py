"""The provider's keys are seen nowhere (BR-095, BR-094), and are sealed to their account (BR-097)."""

import base64
import glob
import os
import shutil
import signal
import subprocess

from harness import AS_ROOT, BIN, STAGES, Process, check, equal, matches, wait_for
from runner import stack, test


def everything(s):
    """(where, bytes) of all that a stranger might read: logs, answers, command lines, tables."""
    for path in glob.glob(s.folder + "/**", recursive=True):
        if os.path.isfile(path) and "/pg/" not in path and not path.endswith(("accounts.csv", ".key", ".sock")):
            with open(path, "rb") as f:
                yield path, f.read()
    for p in s.of():
        with open(f"/proc/{p.pid}/cmdline", "rb") as f:
            yield f"command line of {p.name}", f.read()
    dump = subprocess.run(["pg_dump", "--data-only", s.postgres.url("uf")], stdout=subprocess.PIPE, check=True).stdout
    yield "the database", dump
    with open(s.postgres.log, "rb") as f:
        yield "the log of Postgres", f.read()


@test("BR-095 a key that the provider echoes is in no log, table, answer or command line")
def _():
    with stack(sim={"accounts": 8}, env={"UF_LOG": "debug", "UF_BACKFILL": "2d"}) as s:
        s.start_all()
        s.add_accounts(range(8))
        body = {"error": {"message": "Incorrect API key provided: {key}. Bearer {key}", "type": "invalid_request_error", "code": None}}
        s.sim.fault(account=0, do="status", status=401, body=body)
        s.sim.fault(account=1, do="status", status=500, body=body)
        s.sim.fault(account=2, do="status", status=200, body=body)
        s.sim.fault(account=3, do="status", status=403, body=body)
        s.sim.fault(account=4, do="status", status=400, body=body)
        s.sim.fault(account=5, feed="completions", do="status", status=200, body={
            "object": "page", "has_more": False, "next_page": None, "data": [{"start_time": "{key}", "results": "{key}"}]})
        s.sim.fault(account=6, feed="completions", do="field", name="input_tokens", raw='"' + s.sim.key(6) + '"')
        s.run(code=1)
        s.usagectl("status", code=None)
        s.usagectl("doctor", code=None)
        s.usagectl("account", "show", "sim-000000")
        s.usagectl("account", "check", "sim-000000", code=None)
        s.usagectl("dead", "list")
        for letter, in s.sql("SELECT letter_id FROM dead_letters"):
            s.usagectl("dead", "show", letter)
        with open(s.key_file, encoding="ascii") as f:
            encryption_key = f.read().strip()
        secrets = {f"the key of account {n}": s.sim.key(n) for n in range(8)}
        secrets["ENCRYPTION_KEY"] = encryption_key
        looked = 0
        for where, data in everything(s):
            looked += 1
            for what, secret in secrets.items():
                check(secret.encode() not in data, f"{what} is in {where}")
                tail = secret[-12:]
                check(tail.encode() not in data, f"the last 12 characters of {what} are in {where}")
        check(looked > 8, f"only {looked} places were searched")
        s.stop_all()


@test("BR-097 a sealed key moved to another account does not open, and says so")
def _():
    with stack(sim={"accounts": 3}, env={"UF_BACKFILL": "2d"}) as s:
        s.start_all()
        one, two = s.add_accounts([0, 1])
        s.sql("UPDATE accounts SET key_ciphertext = (SELECT key_ciphertext FROM accounts WHERE name = %s) WHERE name = %s", one, two)
        s.run(code=1)
        equal(s.sim.requests(1), [], "requests of the second account")
        state = s.feed_state(two)["completions"]
        matches("(another|moved|does not open|rotate-key|damaged)", state["detail"], "what it says")
        s.compare([0])
        sealed = [bytes(c) for c, in s.sql("SELECT key_ciphertext FROM accounts")]
        check(all(s.sim.key(0).encode() not in c for c in sealed), "the key stands open in the table")


@test("BR-094 blanks and line ends around a pasted key are trimmed; inside they are refused")
def _():
    with stack(sim={"accounts": 3}, env={"UF_BACKFILL": "2d"}) as s:
        s.start_all()
        key = s.sim.key(0)
        add = ("account", "add", "pasted", "--provider", "openai", "--base-url", s.sim.base_url, "--key-file", "-")
        for bad in ("", "   \n", key[:9] + "\r\nX-Evil: 1", key[:9] + "\u200b" + key[9:]):
            done = s.usagectl(*add, text=bad, code=None)
            check(done.code in (1, 2), f"key {bad!r}: exit status {done.code}")
            check(key not in done.err + done.out, "the key is shown")
        s.usagectl(*add, text=f'  "{key}"\r\n')
        s.run()
        equal(s.value("SELECT count(*) > 0 FROM usage_metrics"), True, "rows")
        matches(key[-4:] + "$", s.value("SELECT key_hint FROM accounts WHERE name = 'pasted'"), "the hint")


def forms(secret):
    """As it is, and as it may be written elsewhere."""
    yield secret.encode()
    for raw in {secret.encode(), bytes.fromhex(secret) if len(secret) == 64 else secret.encode()}:
        yield raw
        yield raw.hex().encode()
        yield base64.b64encode(raw).rstrip(b"=")


HOLDS = {  # what a process is given, and nothing else
    "scheduler": {"database password"}, "writer": {"database password"}, "normalizer": {"UF_PERSON_KEY"}, "fetcher": set(),
    "gateway": {"database password", "CRON_API_KEY", "UF_DASHBOARD_TOKEN"}}


@test("BR-095 after kills, restarts and refusals of every kind no secret is in any log, table, command line or other process",
      allow=["Postgres", "postgres", "stage.exit"])
def _():
    with stack(sim={"accounts": 8, "anthropic": 2, "density": "NORMAL"}, env={"UF_LOG": "debug", "UF_BACKFILL": "2d", "UF_LEASE": "3s"}) as s:
        password, token = "Pa55-" + os.urandom(12).hex(), "token-" + os.urandom(12).hex()
        s.sql(f"ALTER ROLE uf PASSWORD '{password}'")
        url = s.postgres.url
        s.postgres.url = lambda database, user="uf": url(database, user) + "&password=" + password
        secrets = {f"key of account {n}": s.sim.key(n) for n in range(10)}
        with open(s.key_file, encoding="ascii") as f:
            secrets["ENCRYPTION_KEY"] = f.read().strip()
        secrets |= {"CRON_API_KEY": s.cron_key, "UF_DASHBOARD_TOKEN": token, "UF_PERSON_KEY": s.person_key.hex(), "database password": password}
        s.start_all()
        s.start_gateway(UF_DASHBOARD_TOKEN=token)
        s.add_accounts(range(10))
        body = {"error": {"message": "Incorrect API key provided: {key}. Bearer {key}", "x-api-key": "{key}"}, "data": [{"results": "{key}"}]}
        places = {}
        for turn, stage in enumerate(STAGES * 2):
            for account, status in enumerate((401, 500, 200, 403, 400, 429, 302)):
                s.sim.fault(account=account, do="status", status=status, body=body, times=5)
            s.sim.fault(account=7, feed="completions", do="field", name="input_tokens", raw='"' + s.sim.key(7) + '"')
            s.sim.fault(account=8, do="nothing", delay_ms=50)
            wait_for("a run can be asked for", lambda: s.usagectl("run", code=None).code == 0, 20)  # also just after Postgres was stopped
            for p in s.of():  # while all are at work
                for what in ("cmdline", "environ"):
                    with open(f"/proc/{p.pid}/{what}", "rb") as f:
                        places[f"{what} of {p.name}"] = f.read()
            s.one(stage).send(signal.SIGSEGV if turn % 2 else signal.SIGKILL)
            if turn == 3:
                s.postgres.stop()
                s.usagectl("status", code=None)
                s.postgres.start()
            s.wait_ready(s.start(stage))
            s.sim.clear_faults()
        s.usagectl("status", code=None, env={"DATABASE_URL": url("uf") + "&port=1&password=" + password})
        s.usagectl("status", code=100, env={"DATABASE_URL": "postgresql://uf:" + password + "@[bad/uf"})
        s.usagectl("account", "add", "bad", "--provider", "openai", "--key-file", "-", text=s.sim.key(0) + "\r\nX: 1", code=2)
        s.sim.fault(account=7, feed="completions", do="field", name="input_tokens", raw='"' + s.sim.key(7) + '"')
        s.run(code=None)
        for args in (["doctor"], ["dead", "list"], ["account", "check", "sim-000000"], ["account", "show", "sim-000000"]):
            s.usagectl(*args, code=None)
        for letter, in s.sql("SELECT letter_id FROM dead_letters"):
            s.usagectl("dead", "show", letter)
        places |= dict(everything(s))
        check(len(places) > 20, f"only {len(places)} places were searched")
        for where, data in places.items():
            holder = where.rsplit(" of ", 1)[-1].rsplit("-", 1)[0]
            own = HOLDS.get(holder, set()) if where.startswith("environ") else set()
            for what, secret in secrets.items():
                check(what in own or not any(form in data for form in forms(secret)), f"{what} is in {where}")
        for what, secret in secrets.items():  # the search finds what is there
            if what in HOLDS["gateway"]:
                check(secret.encode() in places["environ of gateway-1"], f"{what} was not given to the gateway")
        s.stop_all()


@test("BR-095 another process of the same user sees neither memory nor environment, and a crash leaves no core file")
def _():
    if not AS_ROOT:
        return  # it takes another user's process
    with stack(migrate=False) as s:
        folder = os.path.join(s.folder, "nobody")
        os.makedirs(folder)
        shutil.chown(folder, "nobody")
        env = s.stage_env("normalizer", UF_RUN_DIR=folder, UF_PERSON_KEY=os.urandom(32).hex())
        p = Process("normalizer", [os.path.join(BIN, "uf-normalizer")], env, os.path.join(s.logs, "nobody.log"), folder, user="nobody")
        s.processes.append(p)
        wait_for("it is ready", lambda: "stage.ready" in p.text(), 10)
        for what in ("environ", "mem", "maps"):
            done = subprocess.run(["head", "-c", "1", f"/proc/{p.pid}/{what}"], user="nobody", group="nogroup", extra_groups=[],
                                  stderr=subprocess.PIPE, check=False)
            matches("Permission denied", done.stderr.decode(), f"/proc/PID/{what}")
        with open(f"/proc/{p.pid}/limits", encoding="ascii") as f:
            matches(r"Max core file size +0 +0 ", f.read(), "limits")
        p.send(signal.SIGSEGV)
        p.ended(5)
        equal([n for n in os.listdir(folder) if n.startswith("core")], [], "core files")
