"""The provider's keys are seen nowhere (BR-095, BR-094), and are sealed to their account (BR-097)."""

import glob
import os
import subprocess

from harness import check, equal, matches
from runner import stack, test


def everything(s):
    """(where, bytes) of all that a stranger might read: logs, answers, command lines, tables."""
    for path in glob.glob(s.folder + "/**", recursive=True):
        if os.path.isfile(path) and "/pg/" not in path and not path.endswith(("accounts.csv", "encryption.key", ".sock")):
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
