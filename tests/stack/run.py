#!/usr/bin/python3
"""The shipped Dockerfile and compose.yaml, run for real: built, started with the demo's accounts, scaled, hurt, looked
into, taken down; and each time the question is whether the table is the simulator's ledger, row for row.

It needs root, starts a Docker engine of its own and asks no image registry (engine.py). Last line: N passed, N failed.
"""

import base64
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "e2e"))

import harness  # noqa: E402
import story  # noqa: E402
from engine import Engine, Impossible  # noqa: E402
from harness import Failed, check, equal, matches, wait_for  # noqa: E402
from sim import Sim  # noqa: E402
from story import test  # noqa: E402
from test_roles import REFUSED, says  # noqa: E402

LIMIT_S = 600
FILES = ["-f", os.path.join(harness.ROOT, "compose.yaml"), "-f", os.path.join(HERE, "compose.test.yaml")]
STAGES = ("scheduler", "fetcher", "normalizer", "writer", "gateway")
ACCOUNTS = range(6)
COMPOSE_MD = os.path.join(harness.ROOT, "docs", "compose.md")


def documented(language, start):
    """The block of docs/compose.md that begins like this, as a reader would copy it."""
    with open(COMPOSE_MD, encoding="utf-8") as f:
        blocks = re.findall(rf"(?ms)^```{language}\n(.*?)^```$", f.read())
    found = [block for block in blocks if block.startswith(start)]
    equal(len(found), 1, f"blocks of docs/compose.md that begin with {start!r}")
    return found[0]


class DemoSim(Sim):
    """The simulator in its container, as the host reaches it."""

    def __init__(self, address):  # pylint: disable=super-init-not-called
        self.host, self.port = address, 8080
        self.openai_accounts, self.anthropic_accounts = range(4), range(4, 6)
        self.start_now = self.now()


class ComposeStack(harness.Stack):
    """The compose stack behind the harness's questions: sql(), compare()."""

    NAME_SQL = "'demo-' || w.provider || '-' || w.account"

    def __init__(self, engine):  # pylint: disable=super-init-not-called
        self.engine = engine
        self.env = {}
        self.reach_s = 7 * 86400
        self.connection = self.sim = self.postgres = None

    def names(self, accounts):
        return [f"demo-{self.sim.provider(n)}-{n}" for n in accounts]

    def compose(self, *args, ok=True, seconds=180, text=None):
        done = subprocess.run(["docker", "compose", *FILES, "--profile", "demo", *args], env=self.engine.env, timeout=seconds,
                              input=(text or "").encode(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        out = done.stdout.decode(errors="replace")
        if ok and done.returncode != 0:
            raise Failed(f"docker compose {' '.join(args)}: status {done.returncode}\n{out[-3000:]}")
        return out

    def shell(self, commands, cwd, seconds=120):
        """What somebody types who has named the files in COMPOSE_FILE."""
        env = {**self.engine.env, "COMPOSE_FILE": ":".join(FILES[1::2]), "COMPOSE_PROFILES": "demo"}
        done = subprocess.run(["bash", "-euc", commands], env=env, cwd=cwd, timeout=seconds, check=False, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
        check(done.returncode == 0, f"{commands}: status {done.returncode}\n{done.stdout.decode(errors='replace')[-3000:]}")

    def up(self, **scale):
        self.compose("up", "-d", "--wait", *[word for stage, n in scale.items() for word in ("--scale", f"{stage}={n}")])

    def containers(self, service):
        return self.compose("ps", "--quiet", service).split()

    def inspect(self, container):
        return json.loads(self.engine.docker("inspect", container))[0]

    def address(self, service, network):
        found = self.inspect(self.containers(service)[0])["NetworkSettings"]["Networks"]
        return found[f"usage-fetcher_{network}"]["IPAddress"]

    def secret(self, name):
        return self.compose("run", "--rm", "-T", "--no-deps", "keys", "show", name).strip().splitlines()[-1]

    def look_inside(self):
        """Who can be asked from outside the stack: the simulator, Postgres by any service's login, else as its owner."""
        self.sim = DemoSim(self.address("simulator", "outside"))
        at = f"@{self.address('postgres', 'database')}:"
        urls = {service: self.secret(service + "/database_url").replace("@postgres:", at)
                for service in ("migrate", "scheduler", "writer", "gateway", "usagectl")}
        self.postgres = type("Postgres", (), {"url": lambda _, database, service="migrate": urls[service]})()
        self.person_key = base64.b64decode(self.secret("person_key"))

    def in_scheduler(self, *args, **how):
        return self.compose("exec", "-T", "scheduler", "usagectl", *args, **how)

    def slow_cycle(self, days_ago):
        """Starts an injection of a week for each account that takes half a minute; answers what waits for its end."""
        self.sim.fault(do="nothing", delay_ms=3000)
        last = self.sim.start_now // 86400 - days_ago
        spec = "".join(f"{name},,{time.strftime('%Y-%m-%d', time.gmtime((last - 7) * 86400))},"
                       f"{time.strftime('%Y-%m-%d', time.gmtime(last * 86400))}\n" for name in self.names(ACCOUNTS))
        self.in_scheduler("inject", "--file", "-", text=spec)

        def finish():
            self.sim.clear_faults()
            wait_for("every window is read", lambda: self.value("SELECT count(*) = 0 FROM owed_windows WHERE state = 'pending'"), 90, 0.3)
            wait_for("every run has ended", lambda: self.value("SELECT count(*) = 0 FROM fetch_runs WHERE finished_at IS NULL"), 90, 0.3)
            return self.compare(ACCOUNTS, start=(last - 7) * 86400)
        return finish


@test("the images are built, and the runtime layer is small")
def _(s):
    s.compose("build", seconds=400)
    size = json.loads(s.engine.docker("image", "inspect", "usage-fetcher:local"))[0]["Size"]
    base = json.loads(s.engine.docker("image", "inspect", "debian:bookworm-slim"))[0]["Size"]
    print(f"        the image: {size / 1e6:.0f} MB, {(size - base) / 1e6:.0f} MB of it on top of its base")
    check(size - base < 40e6, "the runtime has grown beyond 40 MB on top of its base")


@test("up --wait --scale fetcher=3: everything is healthy, with the demo's accounts")
def _(s):
    began = time.monotonic()
    s.up(fetcher=3)
    print(f"        {time.monotonic() - began:.0f} s")
    s.look_inside()
    equal(len(s.containers("fetcher")), 3, "fetchers")
    health = [s.inspect(c)["State"]["Health"]["Status"] for stage in STAGES for c in s.containers(stage)]
    equal(health, ["healthy"] * 7, "health of the stages")
    equal(s.value("SELECT count(*) FROM accounts"), 6, "accounts")


@test("a full cycle of both providers is exact")
def _(s):
    matches(r"succeeded +6\b", s.in_scheduler("run", "--wait"), "usagectl run --wait")
    rows = s.compare(ACCOUNTS)
    check(rows > 3000, f"only {rows} rows")
    print(f"        {rows} rows")


@test("every container is locked down, and no secret is in its environment")
def _(s):
    secrets = [s.secret(name) for name in ("encryption_key", "cron_api_key", "dashboard_token", "person_key", "fetcher/curve_secret")]
    secrets += [re.search(":([^:@]+)@", s.postgres.url("usage", service))[1] for service in ("migrate", "scheduler", "writer", "gateway", "usagectl")]
    for name in s.compose("ps", "--all", "--quiet").split():
        it = s.inspect(name)
        service, host = it["Config"]["Labels"]["com.docker.compose.service"], it["HostConfig"]
        check(host["ReadonlyRootfs"] and host["CapDrop"] == ["ALL"] and not host["CapAdd"] and host["Init"]
              and host["SecurityOpt"] == ["no-new-privileges:true"] and not host["Privileged"], f"{service} is not locked down: {host}")
        equal(it["Config"]["User"], "postgres" if service == "postgres" else "10001:10001", f"user of {service}")
        check(host["Memory"] and host["NanoCpus"] and host["PidsLimit"], f"{service} has no limits")
        equal(sorted(p for p in host["PortBindings"] or {}), ["8080/tcp"] if service == "gateway" else [], f"ports of {service}")
        for binding in (host["PortBindings"] or {}).get("8080/tcp", []):
            equal(binding["HostIp"], "127.0.0.1", "address of the one published port")
        shown = s.engine.docker("inspect", name)
        check(not any(secret in shown for secret in secrets), f"a secret is in docker inspect of {service}")


@test("each service has its own secrets and no other's")
def _(s):
    want = {"scheduler": "curve_keys curve_secret database_url", "writer": "curve_keys curve_secret database_url",
            "fetcher": "curve_keys curve_secret encryption_key", "normalizer": "curve_keys curve_secret person_key",
            "gateway": "cron_api_key curve_keys curve_secret dashboard_token database_url"}
    for stage, names in want.items():
        equal(s.compose("exec", "-T", stage, "ls", "/run/secrets").split(), names.split(), f"secrets of {stage}")
    check("Permission denied" in s.compose("exec", "-T", "--user", "65534", "fetcher", "cat", "/run/secrets/encryption_key", ok=False),
          "another user of the container reads the key")
    check("Read-only file system" in s.compose("exec", "-T", "fetcher", "sh", "-c", "echo x >/run/secrets/encryption_key", ok=False),
          "a service can write its secrets")


@test("each service has its own login in Postgres, with the rights of its part and no other; each provider key is sealed there")
def _(s):
    wrong = []
    for service, part in (("scheduler", "scheduler"), ("writer", "writer"), ("gateway", "gateway"), ("usagectl", "admin")):
        url = s.postgres.url("usage", service)
        check(url.startswith(f"postgresql://app_{part}:"), f"{service} logs in by {url.split(':')[1]}")
        statements = [text.format(month="usage_metrics_" + time.strftime("%Y_%m", time.gmtime(s.sim.start_now)))
                      for of, text in REFUSED if of == part and not (part == "writer" and "SET updated_at" in text)]
        check(len(statements) > 9, f"only {len(statements)} things were tried as {part}")
        wrong += [f"{part} may {text}" for text in statements if not (says(s, service, text) or "").startswith("42501 ")]
        if not says(s, service, "CREATE TEMPORARY TABLE mine (a int)"):
            wrong.append(f"{part} makes a temporary table")
    check(not wrong, "\n".join(wrong))
    for stage, part, more in (("scheduler", "scheduler", ""), ("writer", "writer", " (and BYPASSRLS, to COPY)"), ("gateway", "gateway", "")):
        matches(re.escape(f"ok   database login: app_{part} has the rights of {part}, and no other{more}"),
                s.compose("exec", "-T", stage, "usagectl", "doctor", ok=False), f"usagectl doctor in {stage}")
    matches("ok   database login: app_admin has the rights of admin, and no other",
            s.compose("run", "--rm", "-T", "--no-deps", "usagectl", "doctor", ok=False), "usagectl doctor")
    sealed = b"".join(bytes(key) for key, in s.sql("SELECT key_ciphertext FROM accounts"))
    check(sealed and b"sk-a" not in sealed, "a provider's key can be read in the database")


@test("only the fetchers reach out; the gateway is reached from this host and reaches nobody")
def _(s):
    with open("/etc/apt/sources.list.d/debian.sources", encoding="utf-8") as f:
        there = re.search(r"^URIs: *https?://([^/\s]+)", f.read(), re.M)[1]
    address = output_of("getent", "ahostsv4", there).split()[0]
    reached = {stage: "reached" in s.compose("exec", "-T", stage, "timeout", "4", "bash", "-c",
                                             f"exec 3<>/dev/tcp/{address}/80 && echo reached", ok=False)
               for stage in STAGES + ("postgres",)}
    equal(reached, {"scheduler": False, "fetcher": True, "normalizer": False, "writer": False, "gateway": False, "postgres": False},
          "who reaches the Internet")
    token = s.secret("dashboard_token")
    matches('"ready":true', http_get("/readyz")[1], "/readyz")
    matches('"account":"demo-openai-0"', http_get("/api/v1/accounts", Authorization=f"Bearer {token}")[1], "/api/v1/accounts")
    equal(http_get("/api/v1/accounts")[0], 401, "/api/v1/accounts without the token")


@test("a host name stands for every replica")
def _(s):
    found = set(s.compose("exec", "-T", "gateway", "getent", "ahosts", "fetcher").split()) & \
        {s.inspect(c)["NetworkSettings"]["Networks"]["usage-fetcher_pipeline"]["IPAddress"] for c in s.containers("fetcher")}
    equal(len(found), 3, "addresses of the name fetcher")
    top = s.compose("run", "--rm", "-T", "--no-deps", "usagectl", "top")
    equal(len(re.findall("(?m)^fetcher +fetcher-", top)), 3, "fetchers that usagectl top hears")


@test("docker compose exec scheduler usagectl inject, and a ZeroMQ tool from another container")
def _(s):
    day = s.sim.start_now // 86400
    dates = [time.strftime("%Y-%m-%d", time.gmtime((day - back) * 86400)) for back in (11, 9, 7)]
    s.in_scheduler("inject", "--account", "demo-openai-0", "--from", dates[0], "--to", dates[1], "--wait")
    request = json.dumps({"cmd": "inject", "account": "demo-openai-0", "from": dates[1] + "T00:00:00Z", "to": dates[2] + "T00:00:00Z"})
    python = documented("python", "import zmq\n")
    check(len(re.findall("(?m)^s\\.send_string\\('.*'\\)$", python)) == 1, f"no request in the program of docs/compose.md:\n{python}")
    python = re.sub(r"(?m)^(s\.send_string)\('.*'\)$", lambda m: f"{m[1]}({request!r})", python)
    tool = ["run", "--rm", "--network", "usage-fetcher_pipeline", "--user", "10001", "-v", "usage-fetcher_secrets-usagectl:/run/secrets:ro",
            "--entrypoint", "python3", "postgres:15", "-c"]
    answer = json.loads(s.engine.docker(*tool, python).splitlines()[-1])
    check(answer.get("ok") is True, f"answer to the injection: {answer}")
    wait_for("the injection is done", lambda: s.value("SELECT finished_at IS NOT NULL FROM fetch_runs WHERE run_id = %s", answer["run_id"]))
    plain = re.sub(r"(?m)^s\.curve_.*$", "s.rcvtimeo, s.linger = 3000, 0", python)
    matches("zmq.error.Again", s.engine.docker(*tool, plain, check=False), "the same without keys")
    s.compare([0], start=(day - 11) * 86400)


@test("rescaled 3 -> 5 -> 1 during a cycle: exact")
def _(s):
    finish = s.slow_cycle(7)
    s.up(fetcher=5, normalizer=2, writer=2)
    check(s.value("SELECT count(*) > 0 FROM owed_windows WHERE state = 'pending'"), "the cycle was over before the rescaling")
    equal([len(s.containers(stage)) for stage in ("fetcher", "normalizer", "writer")], [5, 2, 2], "replicas")
    s.up(fetcher=1, normalizer=1, writer=1)
    equal(len(s.containers("fetcher")), 1, "fetchers")
    finish()


@test("kill -9 of each stage's process from the host, during a cycle: started again, exact")
def _(s):
    finish = s.slow_cycle(14)
    for stage in ("fetcher", "normalizer", "writer", "scheduler", "gateway"):
        container = s.containers(stage)[0]
        init = s.inspect(container)["State"]["Pid"]
        with open(f"/proc/{init}/task/{init}/children", encoding="ascii") as f:
            os.kill(int(f.read().split()[0]), signal.SIGKILL)
        wait_for(f"{stage} is started again", lambda c=container: s.inspect(c)["RestartCount"] == 1
                 and s.inspect(c)["State"]["Running"], 20, 0.2)
    finish()
    for stage in STAGES:
        wait_for(f"{stage} is healthy again",
                 lambda c=s.containers(stage)[0]: s.inspect(c)["State"]["Health"]["Status"] == "healthy", 40, 0.5)


@test("backup and restore, as docs/compose.md has them: the next cycle makes the table exact")
def _(s):
    with tempfile.TemporaryDirectory() as folder:
        s.shell(documented("sh", "docker compose exec -T postgres pg_dump"), folder)
        s.sim.advance(3 * 3600)
        s.in_scheduler("run", "--wait")
        s.compare(ACCOUNTS)
        rows = s.value("SELECT count(*) FROM usage_metrics")
        s.connection.close()
        s.shell(documented("sh", "docker compose stop"), folder)
    check(s.value("SELECT count(*) FROM usage_metrics") < rows, "the dump has what came after it")
    matches(r"succeeded +6\b", s.in_scheduler("run", "--wait"), "usagectl run --wait")
    s.compare(ACCOUNTS)


@test("a new ENCRYPTION_KEY, as docs/compose.md has it: every account is sealed anew and read on")
def _(s):
    sealed = s.sql("SELECT account_id, key_ciphertext FROM accounts ORDER BY 1")
    commands = documented("sh", "docker compose run --rm --no-deps -T keys show encryption_key >old_key")
    with tempfile.TemporaryDirectory() as folder:
        s.shell(commands.replace(":compose.rekey.yaml", ":" + os.path.join(harness.ROOT, "compose.rekey.yaml")), folder)
        with open(os.path.join(folder, "new_key"), encoding="ascii") as f:
            equal(s.secret("encryption_key"), f.read().strip(), "the key of the stack")
    now = s.sql("SELECT account_id, key_ciphertext FROM accounts ORDER BY 1")
    check(all(bytes(a[1]) != bytes(b[1]) for a, b in zip(sealed, now, strict=True)), "some account is sealed as it was")
    s.up()
    s.compose("run", "--rm", "-T", "--no-deps", "keys", "drop", "encryption_key_old")
    check("only encryption_key_old" in s.compose("run", "--rm", "-T", "--no-deps", "keys", "drop", "encryption_key", ok=False), "drop")
    s.sim.advance(3600)
    matches(r"succeeded +6\b", s.in_scheduler("run", "--wait"), "usagectl run --wait with the new key alone")
    s.compare(ACCOUNTS)


@test("no file of an image is writable for all, or setuid or setgid")
def _(s):
    for image in ("usage-fetcher:local", "usage-fetcher-simulator:local"):
        found = s.engine.docker("run", "--rm", "--user", "0", "--entrypoint", "find", image, "/", "-xdev", "(",
                                "-type", "f", "-perm", "/6002", "-o", "-type", "d", "-perm", "-0002", "!", "-perm", "-1000", ")", "-print")
        equal(found, "", f"in {image}")
        owned = s.engine.docker("run", "--rm", "--user", "0", "--entrypoint", "find", image, "/", "-xdev", "-user", "10001", "-print")
        check(all(line.startswith(("/run/", "/secrets/")) for line in owned.splitlines()), f"the stages' user owns in {image}:\n{owned}")


@test("no error is in any log that no kill explains, and no secret")
def _(s):
    logs = s.compose("logs", "--no-color", "--no-log-prefix", *STAGES)
    errors = [line for line in logs.splitlines() if '"level":"error"' in line]
    equal(errors, [], "lines of level error")
    for name in ("encryption_key", "person_key", "cron_api_key", "dashboard_token", "fetcher/curve_secret", "owner_password"):
        check(s.secret(name) not in logs, f"{name} is in the logs")
    check("sk-admin-sim" not in logs and "sk-ant-admin01-sim" not in logs, "a provider's key is in the logs")


@test("down: every stage ends in time, and nothing is left")
def _(s):
    if s.connection:
        s.connection.close()
    began = time.monotonic()
    s.compose("stop", *STAGES)
    codes = {stage: s.inspect(c)["State"]["ExitCode"] for stage in STAGES for c in s.compose("ps", "-a", "-q", stage).split()}
    equal(codes, {stage: 0 for stage in STAGES}, "exit status after stop")
    check(time.monotonic() - began < 20, "stopping took longer than 20 s")
    s.compose("down", "--volumes")
    equal(s.engine.docker("ps", "-a", "-q") + s.engine.docker("volume", "ls", "-q"), "", "containers and volumes after down")


@test("with your own Postgres, by the override: a full cycle is exact")
def _(s):
    docker = s.engine.docker
    FILES.insert(2, "-f")
    FILES.insert(3, os.path.join(harness.ROOT, "compose.own-postgres.yaml"))
    password = os.urandom(12).hex()
    docker("run", "--detach", "--name", "elsewhere", "--entrypoint", "bash", "postgres:15", "-c",
           f"echo {password} >/tmp/password; POSTGRES_DB=usage POSTGRES_PASSWORD_FILE=/tmp/password exec entrypoint postgres")
    matches("has no connection string", s.compose("run", "--rm", "-T", "--no-deps", "keys", ok=False), "a start without a connection string")
    s.compose("run", "--rm", "-T", "--no-deps", "keys", "put", "database_url", text=f"postgresql://postgres:{password}@elsewhere:5432/usage\n")
    s.compose("create")
    docker("network", "connect", "--alias", "elsewhere", "usage-fetcher_database", "elsewhere")
    s.up()
    equal(s.containers("postgres"), [], "bundled Postgres")
    s.sim = DemoSim(s.address("simulator", "outside"))
    networks = s.inspect("elsewhere")["NetworkSettings"]["Networks"]
    url = f"postgresql://postgres:{password}@{networks['usage-fetcher_database']['IPAddress']}:5432/usage"
    s.postgres = type("Postgres", (), {"url": lambda _, database: url})()
    s.person_key = base64.b64decode(s.compose("run", "--rm", "-T", "--no-deps", "keys", "show", "person_key").strip().splitlines()[-1])
    matches(r"succeeded +6\b", s.in_scheduler("run", "--wait"), "usagectl run --wait")
    s.compare(ACCOUNTS)
    s.connection.close()
    docker("rm", "--force", "elsewhere")
    s.compose("down", "--volumes")


def http_get(path, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def output_of(*argv):
    return subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False).stdout.decode(errors="replace")


def trouble(s):
    lines = s.compose("logs", "--no-color", "--tail", "40", ok=False).splitlines()
    return "\n".join([s.compose("ps", "-a", "--format", "{{.Name}}: {{.Status}}", ok=False).strip()] +
                     [line[:400] for line in lines if re.search(r'"level":"(warn|error)"|ERROR|FATAL|usagectl:', line)])


def too_late():
    print(f"FAILED  not done within {LIMIT_S} s\n0 passed, 1 failed", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)


def limit():
    timer = threading.Timer(LIMIT_S, too_late)
    timer.daemon = True
    timer.start()
    return timer


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    preparing = limit()
    folder = tempfile.mkdtemp(prefix="uf-stack-")
    engine = s = None
    passed, failed = 0, 1
    try:
        began = time.monotonic()
        engine = Engine(folder, os.path.join(harness.BUILD, "stack"))
        engine.env.update(UF_SCHEDULE=harness.NEVER, UF_LEASE="30s")
        engine.start()
        engine.make_base_images()
        print(f"an engine with its base images: {time.monotonic() - began:.0f} s", flush=True)
        preparing.cancel()
        limit()  # of what is ours: images, stack, tests
        s = ComposeStack(engine)
        passed, failed = story.run(s, trouble, needed=2)  # images, and a start
    except Impossible as e:
        print(f"FAILED  {e}", flush=True)
    finally:
        with contextlib.suppress(Exception):
            if s:
                s.compose("down", "--volumes", "--timeout", "1", ok=False)
        if engine:
            engine.stop()
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{passed} passed, {failed} failed")
    return 0 if failed == 0 and passed else 1


if __name__ == "__main__":
    sys.exit(main())
