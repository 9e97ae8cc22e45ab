"""The links over TCP, each process with a key of its own (docs/operations.md)."""

import os
import re
import signal
import time

import zmq
import zmq.utils.z85

from harness import STAGES, Process, Stack, changed, check, equal, free_endpoints, wait_for

ROLES = STAGES + ("gateway", "usagectl")
LINKS = ("JOBS", "PAGES", "RECORDS", "ACKS", "CONTROL")


class TcpStack(Stack):
    """Every link over TCP on loopback; with `curve` each process has its own key, else none."""

    def __init__(self, curve=True, **how):
        self.curve = curve
        self.endpoints = dict(zip(LINKS, free_endpoints(len(LINKS))))
        self.pulses = dict(zip(STAGES, free_endpoints(len(STAGES))))
        self.pairs = {}  # role: (public, secret)
        super().__init__(**how)
        if curve:
            self.key_list = os.path.join(self.folder, "curve.keys")
            for role in ROLES:
                self.pairs[role] = self.new_pair()
            self.list_keys(*self.pairs.items())

    def new_pair(self):
        out = self.usagectl("keygen", "--curve").out
        return re.fullmatch(r"public (\S{40})\nsecret (\S{40})\n", out).groups()

    def list_keys(self, *pairs):
        """Writes the file of public keys as an editor or a deployment does: whole, in the other's place."""
        path = self.key_list + ".new"
        with open(path, "w", encoding="ascii") as f:
            f.write("# role  public key\n" + "".join(f"{role} {pair[0]}  # {role}'s\n" for role, pair in pairs))
        os.rename(path, self.key_list)

    def secret_file(self, role):
        path = os.path.join(self.folder, f"curve-{role}.secret")
        with open(os.open(path + ".new", os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w", encoding="ascii") as f:
            f.write(self.pairs[role][1] + "\n")
        os.replace(path + ".new", path)  # another one of the role may be reading it
        return path

    def stage_env(self, stage, **more):
        env = super().stage_env(stage)
        for link, endpoint in self.endpoints.items():
            env["UF_" + link] = endpoint
        env["UF_PULSE"] = self.pulses.get(stage, ",".join(self.pulses.values()))
        if not self.curve:
            env["UF_ALLOW_PLAINTEXT"] = "1"
        elif stage in self.pairs:
            env["UF_CURVE_SECRET_FILE"] = self.secret_file(stage)
            env["UF_CURVE_KEYS"] = self.key_list
        return changed(env, more)

    def control(self, request, seconds=10):
        with zmq.Context() as context, context.socket(zmq.REQ) as s:
            s.setsockopt(zmq.LINGER, 0)
            if self.curve:
                wear(s, self.pairs["usagectl"], self.pairs["scheduler"][0])
            s.connect(self.endpoints["CONTROL"])
            s.send_json(request)
            check(s.poll(seconds * 1000), f"no answer on the control socket to {request!r}")
            return s.recv_json()

    def restart(self, stage):
        """Stops a stage politely and starts it with the secret that the role has now."""
        old = self.one(stage)
        equal(old.stop(), 0, f"exit status of {old.name}")
        process = self.start(stage)
        self.wait_ready(process)
        return process


def wear(socket, pair, server_key):
    socket.curve_publickey, socket.curve_secretkey = pair[0].encode(), pair[1].encode()
    socket.curve_serverkey = server_key.encode()


def captured(s, interface, which, work):
    """The path of a capture of what passes an interface while work() runs. `which`: a filter in tcpdump's words."""
    path = os.path.join(s.folder, "wire.pcap")
    dump = Process("tcpdump", ["tcpdump", "-i", interface, "-U", "-s", "0", "-B", "16384", "-w", path, "-Z", "root", which],
                   {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, os.path.join(s.folder, "tcpdump.out"), s.folder)
    try:
        wait_for("tcpdump listening", lambda: "listening on" in dump.text() or not dump.alive(), 10)
        check(dump.alive(), f"tcpdump can not listen on {interface} (this test needs root):\n" + dump.text())
        work()
        time.sleep(1.5)  # the next pulses, too
    finally:
        if dump.alive():
            dump.stop(signal.SIGINT)
    check("\n0 packets dropped by kernel" in dump.text(), "tcpdump did not see everything:\n" + dump.text())
    return path


def secrets_of(s, accounts):
    """What must not be seen on the wire, {what: bytes}."""
    hidden = {f"the name of account {n}": name.encode() for n, name in zip(accounts, s.names(accounts))}
    hidden |= {f"the provider key of account {n}": s.sim.key(n).encode() for n in accounts}
    with open(s.key_file, "rb") as f:
        text = f.read().strip()
    hidden |= {"ENCRYPTION_KEY": text, "its bytes": bytes.fromhex(text.decode()), "CRON_API_KEY": s.cron_key.encode(),
               "a sealed key": s.value("SELECT key_ciphertext FROM accounts LIMIT 1").tobytes(),
               "a model": s.value("SELECT model FROM usage_metrics WHERE model IS NOT NULL LIMIT 1").encode(),
               "an account's base URL": s.sim.base_urls["openai"].encode(), "a command": b'"cmd"', "a provider": b"openai",
               "a metric": b"log_lines_total"}
    for role, (public, secret) in s.pairs.items():
        hidden |= {f"the secret of {role}": secret.encode(), f"its bytes ({role})": zmq.utils.z85.decode(secret),
                   f"the public key of {role}": zmq.utils.z85.decode(public)}
    return hidden
