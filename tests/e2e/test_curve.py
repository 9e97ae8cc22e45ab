"""The links over TCP: encrypted, each end known to the other, keys changed while all goes on."""

import contextlib
import json
import os
import re
import subprocess
import urllib.request

import zmq
from zmq.utils.monitor import recv_monitor_message

from harness import BIN, ROOT, STAGES, Failed, check, equal, matches, wait_for
from runner import shared, stack, test
from tcp import ROLES, TcpStack, captured, secrets_of, wear

ACCOUNTS = 6


def whole():
    s = TcpStack(sim={"accounts": ACCOUNTS, "density": "NORMAL"})
    s.start_all(scheduler={"UF_LEASE": "60s"})
    s.add_accounts(range(ACCOUNTS))
    return s


def get(port, path, **headers):
    with urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers), timeout=90) as r:
        return r.read().decode()


def refused(gateway, link):
    """{reason: how often} of the connections to a link that were not let in, as Prometheus sees it."""
    found = re.findall(r'usage_fetcher_links_refused_total\{([^}]*)\} (\d+)', get(gateway.port, "/metrics"))
    counts = {}
    for labels, n in found:
        of = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        if of["link"] == link:
            counts[of["reason"]] = counts.get(of["reason"], 0) + int(n)
    return counts


@test("curve: the whole pipeline over encrypted TCP makes the exact table")
def _():
    s = shared(whole)
    run = s.run()
    equal(run["accounts_ok"], ACCOUNTS, "accounts of the run")
    s.wait_backfill()
    s.compare(range(ACCOUNTS), s.sim.start_now - s.reach_s)
    top = wait_for("all stages in usagectl top", lambda: (
        lambda out: out if all(re.search(f"(?m)^{stage} ", out) for stage in STAGES) else None)(s.usagectl("top").out))
    check("no_curve" not in top, top)
    gateway = s.start_gateway()
    answer = json.loads(get(gateway.port, "/api/cron/usage-fetcher?wait=60", **{"x-cron-api-key": s.cron_key}))
    check(answer["run_id"], answer)
    wait_for("all stages at the gateway", lambda: all(f'"{stage}"' in get(gateway.port, "/api/v1/stages") for stage in STAGES))
    equal(s.control({"cmd": "status"})["ok"], True, "a status asked for with usagectl's key")
    gateway.stop()
    warnings = [line for p in s.of() for line in p.text().splitlines() if '"link.refused"' in line and '"warn"' in line]
    equal(warnings, [], "refusals among processes that have their keys")


# ---- who is not let in ----

# Who binds a link, who may connect to it, and the kind of socket that fits.
ENDS = {"JOBS": ("scheduler", {"fetcher"}, zmq.DEALER), "PAGES": ("normalizer", {"fetcher"}, zmq.PUSH),
        "RECORDS": ("writer", {"normalizer"}, zmq.PUSH), "ACKS": ("scheduler", {"writer"}, zmq.DEALER),
        "CONTROL": ("scheduler", {"usagectl", "gateway"}, zmq.DEALER), "PULSE": ("writer", {"usagectl", "gateway"}, zmq.SUB)}


def knock(s, link, pair, server_key, say=b"", seconds=5):
    """Connects as whoever has this pair (None: without encryption) and says something; answers whether
    it was let in: True, or the name of libzmq's event."""
    endpoint = s.pulses["writer"] if link == "PULSE" else s.endpoints[link]
    with zmq.Context() as context, context.socket(ENDS[link][2]) as one:
        one.setsockopt(zmq.LINGER, 0)
        if one.type == zmq.SUB:
            one.setsockopt(zmq.SUBSCRIBE, b"")
        if pair:
            wear(one, pair, server_key)
        monitor = one.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL |
                                         zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH)
        one.connect(endpoint)
        if say and one.type != zmq.SUB:
            one.send_multipart([b"", say] if one.type == zmq.DEALER else [say])
        check(monitor.poll(seconds * 1000), f"{link}: neither let in nor refused within {seconds} s")
        event = zmq.Event(recv_monitor_message(monitor)["event"])
        if event != zmq.Event.HANDSHAKE_SUCCEEDED and one.type != zmq.PUSH:
            check(not one.poll(300), f"{link}: something was answered")
        one.disable_monitor()
        return event == zmq.Event.HANDSHAKE_SUCCEEDED or event.name


def troubles(s):
    """Warnings and errors that are not about doorkeeping: what a stranger's message would cause."""
    return [line for p in s.of() for line in p.text().splitlines()
            if re.search('"level":"(warn|error)"', line) and '"link.refused"' not in line]


@test("curve: on each link exactly those come in whose role has business there")
def _():
    s = shared(whole)
    s.run()
    gateway = s.start_gateway()
    before = troubles(s)
    pause = b'{"cmd":"pause"}'
    for link, (server, allowed, _) in ENDS.items():
        server_key = s.pairs[server][0]
        for role in ROLES:
            got = knock(s, link, s.pairs[role], server_key, b"" if role in allowed else pause)
            equal(got, True if role in allowed else "HANDSHAKE_FAILED_AUTH", f"{link} with the key of {role}")
        stranger = tuple(k.decode() for k in zmq.curve_keypair())
        equal(knock(s, link, stranger, server_key, pause), "HANDSHAKE_FAILED_AUTH", f"{link} with a stranger's key")
        got = knock(s, link, None, None, pause)  # which event depends on who hangs up first
        check(got in ("HANDSHAKE_FAILED_PROTOCOL", "HANDSHAKE_FAILED_NO_DETAIL"), f"{link} without encryption: {got}")
        equal(knock(s, link, s.pairs[next(iter(allowed))], stranger[0], pause), "HANDSHAKE_FAILED_NO_DETAIL",
              f"{link} asking for another server")

        def counted(link=link, allowed=allowed):
            n = refused(gateway, link.lower())
            return (n.get("unknown_key") == 1 and n.get("wrong_role") == len(ROLES) - len(allowed) and
                    n.get("wrong_server_key", 0) >= 1 and n.get("no_curve", 0) + n.get("no_handshake", 0) >= 1)
        try:
            wait_for(f"refusals of {link} counted", counted, 10)
        except Failed as e:
            raise Failed(f"{e}: {refused(gateway, link.lower())}") from None
        log = s.one(server).text()
        for reason in ("not in UF_CURVE_KEYS", "no business on this link"):
            told = [line for line in log.splitlines() if f'"link":"{link.lower()}"' in line and reason in line]
            equal(len(told), 1, f"lines about {link}, {reason}")
    gateway.stop()
    equal(troubles(s), before, "troubles that came of it")
    equal(s.control({"cmd": "status"})["paused"], False, "paused by a stranger")
    equal(s.value("SELECT count(*) FROM dead_letters"), 0, "dead letters")
    s.run()
    s.wait_backfill()
    s.compare(range(ACCOUNTS), s.sim.start_now - s.reach_s)


# ---- keys change ----

@test("curve: each role's key takes another's place while cycles run, and none is lost")
def _():
    s = shared(whole)
    s.run()
    for role in STAGES:
        old, new = s.pairs[role], s.new_pair()
        others = [item for item in s.pairs.items() if item[0] != role]
        s.list_keys((role, old), (role, new), *others)
        s.run()  # with the old one
        asked = s.control({"cmd": "run"})["run_id"]
        s.pairs[role] = new
        s.restart(role)
        wait_for(f"the cycle in which {role} changed its key", lambda asked=asked: s.value(
            "SELECT finished_at IS NOT NULL FROM fetch_runs WHERE run_id = %s", asked), 45)
        equal(s.sql("SELECT accounts_ok, accounts_failed FROM fetch_runs WHERE run_id = %s", asked), [(ACCOUNTS, 0)],
              f"accounts of the cycle in which {role} changed its key")
        s.list_keys(*s.pairs.items())
        s.run()
        link = next(link for link, (_, allowed, _) in ENDS.items() if role in allowed) if role != "scheduler" else None
        if link:
            server_key = s.pairs[ENDS[link][0]][0]
            equal(knock(s, link, old, server_key), "HANDSHAKE_FAILED_AUTH", f"{role}'s old key on {link}")
            equal(knock(s, link, new, server_key), True, f"{role}'s new key on {link}")
    s.wait_backfill()
    s.compare(range(ACCOUNTS), s.sim.start_now - s.reach_s)


@test("curve: a file of keys that is damaged while all runs changes nothing but a line in the logs", allow=["line 8: no public key"])
def _():
    s = shared(whole)
    with open(s.key_list, "a", encoding="ascii") as f:
        f.write("fetcher not-a-key\n")
    process = s.start("fetcher")
    equal(process.ended(), 100, "exit status of a fetcher with a damaged file")
    matches(r"UF_CURVE_KEYS=.*line \d+: no public key; write ROLE PUBLIC_KEY", process.text(), "what it says")
    wait_for("those that run say so", lambda: '"keys.refused"' in s.one("fetcher").text(), 15)
    since = s.value("SELECT now()")
    run_id = s.control({"cmd": "run"})["run_id"]
    wait_for("a cycle", lambda: s.sql("SELECT 1 FROM fetch_runs WHERE run_id = %s AND finished_at > %s AND accounts_ok = %s",
                                      run_id, since, ACCOUNTS))
    s.list_keys(*s.pairs.items())
    s.restart("fetcher")
    s.run()


# ---- what a bystander sees ----

def seen_on_the_wire(curve):
    with stack_of(curve) as s:
        s.start_all()
        s.add_accounts(range(ACCOUNTS))
        ports = sorted(e.rsplit(":", 1)[1] for e in {*s.endpoints.values(), *s.pulses.values()})
        path = captured(s, "lo", " or ".join(f"tcp port {p}" for p in ports), lambda: (s.run(), s.usagectl("top"), s.usagectl("status")))
        with open(path, "rb") as f:
            bytes_ = f.read()
        check(len(bytes_) > 100000, f"only {len(bytes_)} bytes were captured")
        s.wait_backfill()
        s.compare(range(ACCOUNTS), s.sim.start_now - s.reach_s)
        seen = sorted(what for what, hidden in secrets_of(s, range(ACCOUNTS)).items() if hidden in bytes_)
        s.stop_all()
        return seen


@contextlib.contextmanager
def stack_of(curve):
    with stack(make=TcpStack, curve=curve, sim={"accounts": ACCOUNTS, "density": "NORMAL"}) as s:
        yield s


@test("curve: a bystander sees no key, no token, no account's name and no figures' names")
def _():
    equal(seen_on_the_wire(curve=True), [], "seen in the captured stream")


@test("curve: without encryption a bystander sees the names (so the test above can fail)")
def _():
    seen = seen_on_the_wire(curve=False)
    wanted = {f"the name of account {n}" for n in range(ACCOUNTS)} | {"a sealed key", "a model", "a command", "a provider", "a metric"}
    equal(sorted(wanted - set(seen)), [], "what should have been seen in plaintext")
    equal([what for what in seen if "secret" in what or "ENCRYPTION" in what or "provider key" in what], [],
          "secrets that even a plain link never carries")


# ---- what is told at the start ----

@test("curve: each thing that is missing or wrong ends the start with one line that says what to do", allow=["UF_CURVE"])
def _():
    with stack(make=TcpStack) as s:
        writer = s.pairs["writer"]
        listed = os.path.join(s.folder, "other.keys")

        def keys(*roles, extra=""):
            with open(listed, "w", encoding="ascii") as f:
                f.write("".join(f"{role} {s.pairs[role][0]}\n" for role in roles) + extra)
            return listed
        none = {"UF_CURVE_SECRET_FILE": None, "UF_CURVE_KEYS": None}
        cases = (
            ("no keys at all", none, "is not encrypted without UF_CURVE_SECRET and UF_CURVE_KEYS .*operations.md"),
            ("no secret", {"UF_CURVE_SECRET_FILE": None}, "is not encrypted without UF_CURVE_SECRET"),
            ("no file", {"UF_CURVE_KEYS": None}, "UF_CURVE_KEYS is not set: name the file"),
            ("a file that is not there", {"UF_CURVE_KEYS": "/nonexistent"}, 'UF_CURVE_KEYS=."/nonexistent.": can not read'),
            ("a secret that is none", {"UF_CURVE_SECRET_FILE": None, "UF_CURVE_SECRET": "x" * 39}, "UF_CURVE_SECRET: write the 40"),
            ("a file without ourselves", {"UF_CURVE_KEYS": keys("scheduler", "normalizer")},
             re.escape('add the line \\"writer ' + json.dumps(writer[0])[1:-1])),
            ("another role's secret", {"UF_CURVE_SECRET_FILE": s.secret_file("fetcher")},
             "is the secret of the fetcher, and this is the writer"),
        )
        for name, env, words in cases:
            process = s.start("writer", **env)
            equal(process.ended(), 100, f"{name}: exit status")
            matches(words, process.text(), name)
            check(writer[1] not in process.text(), f"{name}: the secret is shown")
        keys("scheduler", "writer")
        for name, env, words in (("a file without the other end", {"UF_CURVE_KEYS": listed},
                                  "lists no key of a normalizer, which this process needs for the link 'records'"),
                                 ("both", {"UF_ALLOW_PLAINTEXT": "1"}, "are both set")):
            process = s.start("writer", **env)
            equal(process.ended(), 100, f"{name}: exit status")
            matches(words, process.text(), name)
        done = s.usagectl("run", code=100, env=none)
        matches("is not encrypted without UF_CURVE_SECRET", done.err, "usagectl without keys")


@test("curve: the commands in docs/operations.md make keys that work, and the one in docs/wire.md asks the scheduler")
def _():
    with open(os.path.join(ROOT, "docs", "operations.md"), encoding="utf-8") as f:
        making = re.search(r"(?m)^    mkdir -m 700 keys\n(?:    .*\n)+", f.read())[0]
    with open(os.path.join(ROOT, "docs", "wire.md"), encoding="utf-8") as f:
        asking = re.search(r"(?m)^    \$ (/usr/bin/python3 -c .*curve_secretkey.*)$", f.read())[1]
    with stack(make=TcpStack) as s:
        env = {"PATH": f"{BIN}:/usr/bin:/bin"}
        subprocess.run(["bash", "-euc", making], cwd=s.folder, env=env, check=True)
        keys = os.path.join(s.folder, "keys")
        for role in ROLES:
            with open(os.path.join(keys, role + ".secret"), encoding="ascii") as f:
                s.pairs[role] = (None, f.read().strip())
        s.key_list = os.path.join(keys, "curve.keys")
        s.start_all()
        asking = asking.replace("tcp://127.0.0.1:7704", s.endpoints["CONTROL"])
        done = subprocess.run(["bash", "-euc", asking], cwd=keys, env=env, timeout=30, stdout=subprocess.PIPE, check=True)
        equal(json.loads(done.stdout)["ok"], True, "the scheduler's answer")
        s.usagectl("status")
