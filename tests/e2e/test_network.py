"""Each stage, Postgres and the provider on a host of its own: what a real network does to the pipeline, and what it shows
to a bystander. Everything that leaves a host is encrypted: the links, the way to Postgres, the way to the provider."""

import contextlib
import os
import re
import socket
import ssl
import subprocess
import threading
import time

import psycopg2

from harness import PG_BIN, STAGES, Postgres, Process, check, equal, wait_for
from network import NETWORK, TOOLS, Network
from runner import stack, test
from sim import Sim
from tcp import TcpStack, captured, secrets_of

FETCHERS, NORMALIZERS = ("fetcher-1", "fetcher-2"), ("normalizer-1", "normalizer-2")
HOSTS = ("postgres", "scheduler-1", "scheduler-2", *FETCHERS, *NORMALIZERS, "writer-1", "gateway", "provider", "desk")
PORTS = {"JOBS": ("scheduler", 7701), "PAGES": ("normalizer", 7702), "RECORDS": ("writer", 7703), "ACKS": ("scheduler", 7704),
         "CONTROL": ("scheduler", 7705), "PULSE": (None, 7706)}
BINDS = {"scheduler": ("JOBS", "ACKS", "CONTROL"), "normalizer": ("PAGES",), "writer": ("RECORDS",)}
CUT_S = 60


class FarPostgres(Postgres):
    """A server on a host of its own that takes encrypted connections only."""

    def __init__(self, folder, template, network, certificate):
        super().__init__(folder, template)
        self.network = network
        self.password = os.urandom(12).hex()
        with open(os.path.join(self.data, "postgresql.auto.conf"), "a", encoding="utf-8") as f:
            f.write("listen_addresses = '*'\nport = 5432\nssl = on\n"
                    f"ssl_cert_file = '{certificate}.crt'\nssl_key_file = '{certificate}.key'\n")
        with open(os.path.join(self.data, "pg_hba.conf"), "a", encoding="utf-8") as f:
            f.write(f"hostssl all all {NETWORK}.0/24 scram-sha-256\n")

    def start(self):
        self.process = Process("postgres", [*self.network.at("postgres", user="postgres"), f"{PG_BIN}/postgres", "-D", self.data],
                               {"PATH": "/usr/bin:/bin"}, self.log, "/")
        self.wait_ready()
        with contextlib.closing(psycopg2.connect(self.url("postgres"))) as c:  # through the folder, as the tests ask
            c.autocommit = True
            c.cursor().execute("ALTER ROLE uf PASSWORD %s", (self.password,))


class NetStack(TcpStack):
    """The pipeline on hosts of their own. What the test itself asks comes from the bridge's address."""

    def __init__(self, **how):
        self.network = Network(HOSTS)
        self.ca_file = None
        super().__init__(**how)

    def certificate(self, folder, name, owner):
        """A key pair for the host `name`, self-signed; answers its path without the ending."""
        path = os.path.join(folder, name)
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                        "-keyout", path + ".key", "-out", path + ".crt", "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"],
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        subprocess.run(["chown", owner, path + ".key"], check=True)
        return path

    def make_postgres(self, folder, template):
        self.postgres_cert = self.certificate(self.folder, "postgres", "postgres")
        return FarPostgres(folder, template, self.network, self.postgres_cert)

    def make_sim(self, folder, log, **how):
        self.ca_file = self.certificate(self.folder, "provider", "root") + ".crt"
        sim = Sim(folder, log, host=self.network.addresses["provider"], before=self.network.at("provider"), **how)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.ca_file, self.ca_file.removesuffix("crt") + "key")
        ready = threading.Event()
        self.network.thread("provider", lambda: encrypted_front(context, (sim.host, sim.port), ready))
        check(ready.wait(10), "nobody listens at the provider's")
        sim.base_urls = {"openai": "https://provider/v1", "anthropic": "https://provider"}
        return sim

    def on_its_host(self, name):
        if name.split("-")[0] == "usagectl":
            return self.network.at("desk")
        return self.network.at(name if name in self.network.addresses else name.split("-")[0])

    def stage_env(self, stage, **more):
        env = super().stage_env(stage)
        binds = BINDS.get(stage, ())
        for link, (host, port) in PORTS.items():
            env["UF_" + link] = f"tcp://{'*' if link in binds else host}:{port}"
        pulse = PORTS["PULSE"][1]
        env["UF_PULSE"] = f"tcp://*:{pulse}" if stage in STAGES else ",".join(f"tcp://{one}:{pulse}" for one in STAGES)
        if "DATABASE_URL" in env:
            env["DATABASE_URL"] = (f"postgresql://uf:{self.postgres.password}@postgres/uf?sslmode=verify-full"
                                   f"&sslrootcert={self.postgres_cert}.crt")
        if stage in ("fetcher", "usagectl") and self.ca_file:
            env["UF_CA_FILE"] = self.ca_file
        for name, value in more.items():
            env[name] = value
        return env

    def control(self, request, seconds=10):
        self.endpoints["CONTROL"] = f"tcp://{self.network.addresses['scheduler-1']}:{PORTS['CONTROL'][1]}"
        return super().control(request, seconds)

    def close(self):
        super().close()
        self.network.close()


def encrypted_front(context, behind, ready):
    """Takes encrypted connections on port 443 and hands on what they say, in the clear, on the same host."""
    def pump(source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def serve(raw):
        with contextlib.suppress(OSError), context.wrap_socket(raw, server_side=True) as near, socket.create_connection(behind) as far:
            back = threading.Thread(target=pump, args=(far, near), daemon=True)
            back.start()
            pump(near, far)
            back.join()

    with socket.create_server(("0.0.0.0", 443), backlog=256) as server:
        ready.set()
        while True:
            threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()


@contextlib.contextmanager
def net_stack(accounts, anthropic, curve=True, **env):
    with stack(make=NetStack, curve=curve, sim={"accounts": accounts, "anthropic": anthropic, "density": "NORMAL"}, env=env) as s:
        yield s
        s.stop_all()


# ---- cuts ----

@test("network: the writer cut from Postgres and the fetchers from the normalizers, 60 s each, nobody told: the table is exact")
def _():
    accounts = range(8)
    with net_stack(accounts=6, anthropic=2, UF_LEASE="20s", UF_BACKFILL="4d") as s:
        s.start_all(scheduler=2, fetcher=2, normalizer=2)
        s.add_accounts(accounts)
        s.run()
        s.wait_backfill()
        s.compare(accounts)
        ids = [p.pid for p in s.of()]
        day = s.sim.start_now // 86400
        s.sim.fault(do="nothing", delay_ms=400)  # so that there is always something on its way
        for name in s.names(accounts):
            s.control({"cmd": "inject", "account": name, "from": stamp(day - 34), "to": stamp(day - 4)})
        wait_for("pages on their way", lambda: s.value("SELECT count(*) > 1000 FROM usage_metrics WHERE bucket_start < %s", stamp(day - 4)))

        s.network.cut(["writer-1"], ["postgres"])
        began = time.monotonic()
        until(began + 3)  # what Postgres had been given already
        before = s.written()
        s.sim.advance(3600)
        for n in accounts[:6]:
            s.sim.restate(n, "completions", s.sim.now() // 3600 * 3600 - 7200, "add")
        asked = s.control({"cmd": "run"})["run_id"]
        until(began + 25)
        equal(s.written(), before, "rows written although the writer is cut off")
        s.network.cut(FETCHERS, NORMALIZERS)
        s.usagectl("status")
        until(began + CUT_S)
        check(s.network.lost("postgres", "writer-1") > 0, "nothing of the writer's was lost: there was no cut")
        s.network.heal(["writer-1"], ["postgres"])
        until(began + 25 + CUT_S)
        for pair in [(a, b) for a in NORMALIZERS for b in FETCHERS]:
            check(s.network.lost(*pair) > 0, f"nothing from {pair[1]} to {pair[0]} was lost: there was no cut")
        s.sim.clear_faults()
        s.network.heal(FETCHERS, NORMALIZERS)
        healed = time.monotonic()

        wait_for("every window is read", lambda: s.value("SELECT count(*) = 0 FROM owed_windows WHERE state = 'pending'"), 90, 0.3)
        wait_for("every run that was asked for has ended", lambda: s.value(
            "SELECT count(*) = 0 FROM fetch_runs WHERE finished_at IS NULL AND kind <> 'scheduled'"), 30, 0.3)
        print(f"        all was read {time.monotonic() - healed:.0f} s after the last cut was healed")
        equal(s.sql("SELECT accounts_ok, accounts_failed FROM fetch_runs WHERE run_id = %s", asked), [(len(accounts), 0)],
              "the run that was asked for during the cut")
        s.run()
        s.compare(accounts, start=(day - 34) * 86400)
        equal([p.pid for p in s.of()], ids, "the processes: none has ended")
        equal(s.value("SELECT count(*) FROM dead_letters"), 0, "dead letters")


def until(moment):
    time.sleep(max(0, moment - time.monotonic()))


def stamp(day):
    return time.strftime("%Y-%m-%dT00:00:00Z", time.gmtime(day * 86400))


# ---- what a bystander sees ----

def packets(path, port):
    done = subprocess.run(["tcpdump", "-r", path, "-n", "--count", f"tcp port {port}"], env=TOOLS, check=True, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL)
    return int(re.match(rb"\d+", done.stdout)[0])


def seen_on_the_wire(curve):
    """What of the secrets a bystander sees; each way on which something went has to be in the capture."""
    accounts = range(4)
    with net_stack(accounts=3, anthropic=1, UF_BACKFILL="2d", curve=curve) as s:
        def whole_life():
            s.start_all(scheduler=2, fetcher=2, normalizer=2)
            s.wait_ready(s.start("gateway"))
            s.add_accounts(accounts)
            s.run()
            s.usagectl("top")
            s.usagectl("status")
        path = captured(s, "switch", f"not host {NETWORK}.1", whole_life)  # not what the test itself asks
        ways = [port for _, port in PORTS.values()] + [5432, 443]
        equal([port for port in ways if packets(path, port) < 12], [], "ports without traffic in the capture")
        s.wait_backfill()
        s.compare(accounts)
        with open(path, "rb") as f:
            bytes_ = f.read()
        hidden = secrets_of(s, accounts) | {"the database's password": s.postgres.password.encode()}
        return sorted(what for what, secret in hidden.items() if secret in bytes_)


@test("network: a bystander sees no key, no token, no account's name and no figures' names")
def _():
    equal(seen_on_the_wire(curve=True), [], "seen in the captured stream")


@test("network: with UF_ALLOW_PLAINTEXT=1 a bystander sees them (so the test above can fail)")
def _():
    seen = seen_on_the_wire(curve=False)
    wanted = {f"the name of account {n}" for n in range(4)} | {"a sealed key", "a model", "a command", "a provider", "a metric"}
    equal(sorted(wanted - set(seen)), [], "what should have been seen in plaintext")
