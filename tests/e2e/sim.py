"""The provider simulator as a test sees it: its clock, its faults, its ledger (tests/sim/README.md)."""

import http.client
import json
import os
import time
import urllib.parse

from harness import BUILD, Failed, Process, check, wait_for

BINARY = os.path.join(BUILD, "tests", "uf-sim")


class Sim:
    """Frozen clock that starts at the real time, so that our own windows and its history meet."""

    def __init__(self, folder, log, accounts=10, anthropic=0, density="SMALL", seed=1, days=40, settle=0, now=None,
                 options=None, host="127.0.0.1", before=()):
        """`accounts` of OpenAI, then `anthropic` of Anthropic, numbered from `accounts` on. `before` the
        command: what makes it run elsewhere; it then listens on `host`."""
        self.openai_accounts = range(accounts)
        self.anthropic_accounts = range(accounts, accounts + anthropic)
        self.host = host
        self.start_now = int(now or time.time())
        self.settle_s = settle
        port_file = os.path.join(folder, "sim.port")
        self.process = Process("simulator", [
            *before, BINARY, "--host", host, "--port", "0", "--port-file", port_file, "--accounts", str(accounts),
            "--anthropic", str(anthropic), "--seed", str(seed), "--now",
            str(self.start_now), "--tick", "FROZEN", "--days", str(days), "--density", density, "--settle", str(settle)],
            {"PATH": "/usr/bin:/bin"}, log, folder)

        def port():
            check(self.process.alive(), "the simulator ended: " + self.process.text()[-1000:])
            try:
                with open(port_file, encoding="ascii") as f:
                    return int(f.read() or 0)
            except FileNotFoundError:
                return 0
        self.port = wait_for("the simulator listens", port, 10)
        self.base_url = f"http://{host}:{self.port}/v1"
        self.base_urls = {"openai": self.base_url, "anthropic": f"http://{host}:{self.port}"}
        if options:
            self.options(**options)

    def _ask(self, method, path, body=None, **query):
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        try:
            if query:
                path += "?" + urllib.parse.urlencode({k: v for k, v in query.items() if v is not None})
            connection.request(method, "/_sim/" + path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != 200:
                raise Failed(f"simulator: {method} {path} {body}: {answer.status} {text.decode()}")
            return text
        finally:
            connection.close()

    # -- the clock --

    def now(self):
        return json.loads(self._ask("GET", "clock"))["now"]

    def last_hour(self):
        """The start of the last hour that is over."""
        return self.now() // 3600 * 3600 - 3600

    def advance(self, seconds):
        self._ask("POST", "clock", {"advance": seconds})

    # -- what goes wrong --

    def fault(self, **rule):
        """{"do": "status", "status": 503, "account": 3, "feed": "costs", "times": 2} and its like."""
        self._ask("POST", "fault", rule)

    def clear_faults(self):
        self._ask("DELETE", "faults")

    def fired(self):
        """How often each rule has struck: a fault that never did proves nothing."""
        return [f["fired"] for f in json.loads(self._ask("GET", "faults"))]

    def options(self, **values):
        self._ask("POST", "options", values)

    def set_key(self, account, **change):
        """feeds=[...]: only those may be read; revoked=True; reissue=True. Answers the key that is right now."""
        return json.loads(self._ask("POST", "key", {"account": account, **change}))["key"]

    def restate(self, account, feed, bucket, op="change", **more):
        self._ask("POST", "restate", {"account": account, "feed": feed, "bucket": bucket, "op": op, **more})

    # -- what it knows --

    def key(self, account):
        return self._ask("GET", "keys", account=account).decode().strip()

    def provider(self, account):
        return "anthropic" if account in self.anthropic_accounts else "openai"

    def project_key(self, account):
        """A key of the wrong kind: a project's, a workspace's."""
        return self.key(account).replace("sk-admin-", "sk-proj-").replace("sk-ant-admin01-", "sk-ant-api03-")

    def stats(self, account=None):
        return json.loads(self._ask("GET", "stats", account=account))

    def clear_stats(self):
        self._ask("DELETE", "stats")

    def requests(self, account=None):
        """[(account, status, path, {parameter: [values]})], oldest first."""
        found = []
        for line in self._ask("GET", "requests", account=account).decode().splitlines():
            number, status, uri = line.split(" ", 2)
            url = urllib.parse.urlsplit(uri)
            found.append((int(number), int(status), url.path, urllib.parse.parse_qs(url.query, keep_blank_values=True)))
        return found

    def ledger(self, accounts, start, bucket=3600, feeds=None):
        """The rows that usage_metrics must hold, as CSV."""
        accounts = sorted(accounts)
        text = b""
        first = previous = accounts[0]
        for account in accounts[1:] + [None]:
            if account is not None and account == previous + 1:
                previous = account
                continue
            part = self._ask("GET", "ledger", accounts=f"{first}-{previous}", bucket=bucket, feeds=",".join(feeds) if feeds else None,
                             **{"from": start})
            text += part if not text else part.split(b"\n", 1)[1]
            first = previous = account
        return text

    def close(self):
        if self.process.alive():
            self.process.kill()
