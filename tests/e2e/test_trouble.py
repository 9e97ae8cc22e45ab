"""One account's trouble: its own code, its own advice, and nobody else waits for it."""

import contextlib
import http.server
import os
import ssl
import subprocess
import threading
import time

from harness import FEEDS, Stack, check, equal, matches
from runner import shared, test

HEALTHY = range(3)  # accounts that have to come through whatever happens to the others


def running():
    s = Stack(sim={"accounts": 500}, env={"UF_BACKFILL": "6d"})
    s.start_all(fetcher={"UF_REQUEST_TIMEOUT": "6s"})
    s.add_accounts(HEALTHY)
    return s


def add(s, name, base_url, key="sk-admin-e2e-0123456789abcdefghij", code=0):
    return s.usagectl("account", "add", name, "--provider", "openai", "--base-url", base_url, "--key-file", "-",
                      text=key + "\n", code=code)


def forget(s, *names):
    for name in names:
        s.usagectl("account", "disable", name)


def ending(s, account, want, words, feeds=FEEDS):
    """Every one of the feeds ended so, and tells people what to do."""
    state = s.feed_state(account)
    for feed in feeds:
        equal(state[feed]["error"], want, f"{account}, {feed}: how it ended ({state[feed]['detail']})")
        matches(words, state[feed]["detail"], f"{account}, {feed}: what it says")


def fails(s, account, want, words):
    """A run over everything: this account fails as wanted, the healthy ones succeed meanwhile."""
    run = s.run(code=1)
    ending(s, account, want, words)
    equal(run["accounts_failed"], 1, "accounts that failed")
    equal(run["accounts_ok"], len(HEALTHY), "accounts that succeeded")
    equal(s.sql("SELECT a.name, r.state, r.error FROM run_accounts r JOIN accounts a USING (account_id) "
                "WHERE run_id = %s AND state <> 'ok'", run["run_id"]), [(account, "failed", want)], "what the run says of it")
    matches(account + ".*" + want, s.last_output, "the run's summary")
    s.compare(HEALTHY)
    forget(s, account)


@test("trouble: a refused key is auth_invalid")
def _():
    s = shared(running)
    add(s, "no-key", s.sim.base_url, key="sk-admin-nobody-knows-this-one-0000")
    fails(s, "no-key", "auth_invalid", "key")


@test("trouble: a project key is wrong_key_kind, and says which key to make")
def _():
    s = shared(running)
    add(s, "project-key", s.sim.base_url, key=s.sim.project_key(4), code=None)
    if s.sql("SELECT 1 FROM accounts WHERE name = 'project-key'"):
        fails(s, "project-key", "wrong_key_kind", "admin")


@test("trouble: connection refused")
def _():
    s = shared(running)
    add(s, "refused", "http://127.0.0.1:9/v1")
    fails(s, "refused", "provider_error|timeout|dns".split("|")[0], "(refused|connect)")


@test("trouble: a host name that does not resolve is dns")
def _():
    s = shared(running)
    add(s, "nohost", "https://no-such-host.invalid/v1")
    fails(s, "nohost", "dns", "no-such-host.invalid")


@test("trouble: a certificate that nobody signed is tls, and the key is never sent")
def _():
    s = shared(running)
    seen = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append(self.headers.get("authorization"))
            self.send_error(500)

        def log_message(self, *args):
            pass

    cert, key = os.path.join(s.folder, "self.crt"), os.path.join(s.folder, "self.key")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "2",
                    "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"],
                   check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.handle_error = lambda *args: None
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        add(s, "selfsigned", f"https://127.0.0.1:{server.server_address[1]}/v1")
        fails(s, "selfsigned", "tls", "certificate")
    finally:
        server.shutdown()
        server.server_close()
    equal(seen, [], "requests that reached a server whose certificate is not to be trusted")


@test("trouble: a base URL that can not be used is refused when the account is added")
def _():
    s = shared(running)
    for url, words in (("ftp://api.example/v1", "https"), ("http://api.example/v1", "https|UF_ALLOW_HTTP"),
                       ("https://user:pass@api.example/v1", "user|password"), ("https://api.example/v1?x=1", r"\?|query"),
                       ("api.example/v1", "https"), ("", "URL|https")):
        done = add(s, "badurl", url, code=2)
        matches(words, done.err, f"base URL '{url}'")
    equal(s.sql("SELECT name FROM accounts WHERE name = 'badurl'"), [], "accounts added")


@test("trouble: a base URL without the API's path is a provider's 404, told as such")
def _():
    s = shared(running)
    add(s, "badpath", s.sim.base_url.removesuffix("/v1") + "/nothing-here", key=s.sim.key(5))
    run = s.run(account="badpath", code=1)
    equal(run["accounts_failed"], 1, "accounts that failed")
    state = s.feed_state("badpath")
    for feed in FEEDS:
        check(state[feed]["error"] not in (None, "ok"), f"{feed}: {state[feed]}")
        matches("404", state[feed]["detail"], f"{feed}: what it says")
    forget(s, "badpath")


@test("BR-026 403 of one feed is scope_missing there; its siblings go on")
def _():
    s = shared(running)
    name, = s.add_accounts([10])
    s.sim.fault(account=10, feed="vector_stores", do="status", status=403)
    s.run(account=name, code=1)
    ending(s, name, "scope_missing", "(right|scope|permission|api.usage.read)", ["vector_stores"])
    others = [f for f in FEEDS if f != "vector_stores"]
    state = s.feed_state(name)
    for feed in others:
        equal(state[feed]["error"], "ok", feed)
    s.compare([10], feeds=others)
    s.sim.clear_faults()
    s.run(account=name)
    s.compare([10])
    forget(s, name)


@test("BR-023 an endpoint that vanished (404) fails that feed alone and says so")
def _():
    s = shared(running)
    name, = s.add_accounts([11])
    s.run(account=name)
    s.sim.fault(account=11, feed="web_search_calls", do="status", status=404)
    s.run(account=name, code=1)
    state = s.feed_state(name)
    equal(sorted(f for f in FEEDS if state[f]["error"] != "ok"), ["web_search_calls"], "feeds that failed")
    matches("404", state["web_search_calls"]["detail"], "what it says")
    s.sim.clear_faults()
    s.run(account=name)
    s.compare([11])
    forget(s, name)


@test("trouble: a slow drip and a storm of 429 delay no one else")
def _():
    s = shared(running)
    slow, storm = s.add_accounts([12, 13])
    s.sim.fault(account=12, do="drip", chunk=1, interval_ms=400)
    s.sim.fault(account=13, do="status", status=429, headers={"Retry-After": "1"})
    began = time.monotonic()
    waiting = s.background_usagectl("run", "--wait")
    while True:
        states = dict(s.sql("SELECT a.name, r.state FROM run_accounts r JOIN accounts a USING (account_id) JOIN fetch_runs f "
                            "USING (run_id) WHERE a.name IN ('sim-000000', 'sim-000001', 'sim-000002') AND f.run_id = "
                            "(SELECT run_id FROM fetch_runs ORDER BY requested_at DESC LIMIT 1)"))
        if len(states) == 3 and set(states.values()) == {"ok"}:
            break
        check(time.monotonic() - began < 10, f"after 10 s the healthy accounts are: {states}")
        time.sleep(0.05)
    check(time.monotonic() - began < 6, "the healthy accounts waited for the slow one")
    check(waiting.alive(), "the run was over before the slow account: the test proves nothing")
    s.sim.clear_faults()
    check(waiting.child.wait(90) in (0, 1), "usagectl run --wait")
    s.run(account=slow)
    s.run(account=storm)
    s.compare([*HEALTHY, 12, 13])
    forget(s, slow, storm)


@test("trouble: 429 for good is rated rate_limited, and Retry-After is obeyed")
def _():
    s = shared(running)
    name, = s.add_accounts([14])
    s.sim.fault(account=14, do="status", status=429, headers={"Retry-After": "1"})
    s.run(account=name, code=1)
    state = s.feed_state(name)
    equal({state[f]["error"] for f in FEEDS}, {"rate_limited"}, "how the feeds ended")
    s.sim.clear_faults()
    s.run(account=name)
    s.compare([14])
    forget(s, name)


@test("trouble: another ENCRYPTION_KEY can not open the accounts' keys, and says so")
def _():
    with contextlib.closing(Stack(sim={"accounts": 2})) as s:
        s.add_accounts(range(2))
        other = os.path.join(s.folder, "other.key")
        with open(other, "w", encoding="ascii") as f:
            f.write("ab" * 32 + "\n")
        s.start_all(fetcher={"ENCRYPTION_KEY_FILE": other})
        s.run(code=1)
        for name in s.names(range(2)):
            for feed, state in s.feed_state(name).items():
                check(state["error"] not in (None, "ok"), f"{name} {feed} {state}")
                matches("ENCRYPTION_KEY", state["detail"], f"{name}, {feed}: what it says")
        equal(s.sim.requests(), [], "requests made with a key that did not open")
