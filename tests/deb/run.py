#!/usr/bin/python3
"""The Debian package, used for real: built, judged by lintian, installed in a clean Debian 12 that is booted with its
own systemd, configured, started, looked into, hurt, scaled, upgraded, removed, purged. And each time it has read
something the question is whether the table is the simulator's ledger, row for row.

It needs root. Postgres and the simulator run outside; the machine reaches them by a folder and by this machine's
network. Last line: N passed, N failed.
"""

import base64
import contextlib
import glob
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "stack"), os.path.join(HERE, "..", "e2e")]

import harness  # noqa: E402
import story  # noqa: E402
from engine import Impossible  # noqa: E402
from harness import Failed, check, equal, matches, wait_for  # noqa: E402
from machine import Machine, status_of  # noqa: E402
from story import test  # noqa: E402

LIMIT_S = 600
SECRETS = "/etc/usage-fetcher/secrets"
POSTGRES = "/srv/postgres"  # where the machine sees its socket
SERVICES = ("uf-scheduler", "uf-fetcher@1", "uf-fetcher@2", "uf-normalizer@1", "uf-writer@1", "uf-gateway")
PROGRAMS = ["uf-scheduler", "uf-fetcher", "uf-normalizer", "uf-writer", "uf-gateway"]
PARTS = ("scheduler", "writer", "gateway", "usagectl")  # that have a database login
ACCOUNTS = range(4)


class Installed(harness.Stack):
    """The package in its machine, behind the harness's questions: usagectl(), sql(), compare()."""

    def __init__(self, machine, package, lintian):
        super().__init__(sim={"accounts": 3, "anthropic": 1}, migrate=False)
        self.machine, self.package, self.lintian = machine, package, lintian
        self.files_before = None
        with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as s:
            self.http_port = s.getsockname()[1]

    def usagectl(self, *args, code=0, text=None, seconds=90, **_):
        return harness.Result(code, self.machine.run("usagectl", *map(str, args), code=code, text=text or "", seconds=seconds), "")

    def add_accounts_of(self, provider, base_url, accounts):
        rows = "".join(f"sim-{n:06d},{self.sim.key(n)}\n" for n in accounts)
        self.usagectl("account", "add", "--from-file", "-", "--provider", provider, "--base-url", base_url, text=rows)

    def active(self, *units):
        return all(self.machine.show(unit, "ActiveState") == "active" for unit in units)

    def wait_active(self, *units):
        wait_for(f"{', '.join(units)} active", lambda: self.active(*units), 30, 0.2)

    def get(self, path, **headers):
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=10)) as c:
            c.request("GET", path, headers=headers)
            answer = c.getresponse()
            return answer.status, answer.read().decode()

    def log(self, unit):
        return self.machine.run("journalctl", "--no-pager", "-o", "cat", "-u", unit)

    def files(self):
        """Every file of the machine, without what apt, dpkg and the journal keep for themselves."""
        found = self.machine.run("find", "/", "-xdev", "-path", "/proc", "-prune", "-o", "-not", "-type", "d", "-print",
                                 "-o", "-path", "/etc/*", "-print").splitlines()
        return {f for f in found if not re.match(r"/(var/(lib/(apt|dpkg|systemd)|cache|log|tmp|backups)|run|srv|tmp|sys|dev)/|/etc/.*-$|/etc/mtab$|/\.", f)}

    def cycle(self, days_ago):
        """A day of the past of each account is read, and is exact."""
        day = self.sim.start_now // 86400 - days_ago
        dates = [time.strftime("%Y-%m-%d", time.gmtime(d * 86400)) for d in (day, day + 1)]
        self.usagectl("inject", "--file", "-", "--wait", text="".join(f"{name},,{dates[0]},{dates[1]}\n" for name in self.names(ACCOUNTS)))
        return self.compare(ACCOUNTS)


@test("installed with apt in a clean Debian 12, with what it depends on")
def _(s):
    m = s.machine
    m.run("apt-get", "-qq", "update")
    # systemd comes first, so that what it makes is not taken for ours after the purge.
    m.run("apt-get", "-qq", "install", "-y", "--no-install-recommends", "systemd", "ca-certificates", seconds=120)
    s.files_before = s.files()
    m.write("/root/" + os.path.basename(s.package), "")
    shutil.copy(s.package, m.path("/root"))
    said = m.run("apt-get", "-qq", "install", "-y", "--no-install-recommends", "/root/" + os.path.basename(s.package), seconds=120)
    matches("next, put the connection string .* into /etc/usage-fetcher/secrets/database_url", said, "what apt says")
    equal(m.run("dpkg-query", "-W", "-f", "${Status}", "usage-fetcher"), "install ok installed", "status")
    for name in PROGRAMS:
        matches(rf"^{name} \d", m.run(name, "--version"), f"{name} --version")
    matches("usage: usagectl COMMAND", m.run("usagectl", "--help"), "usagectl --help")
    check(re.match(r"usage-fetcher:x:\d{3}:\d{3}:Usage Fetcher:/:/usr/sbin/nologin\n", m.run("getent", "passwd", "usage-fetcher")), "the user")


@test("lintian finds no error and no warning")
def _(s):
    said = s.lintian.communicate()[0].decode()
    equal((s.lintian.returncode, said), (0, ""), "lintian")


@test("the secrets are made at the installation, for root alone")
def _(s):
    said = s.machine.run("stat", "-c", "%n %a %U:%G %F", SECRETS, *[f"{SECRETS}/{n}" for n in (
        "encryption_key", "person_key", "cron_api_key", "dashboard_token", *[f"database_url.{p}" for p in PARTS])])
    equal([line.split(" ", 1)[1] for line in said.splitlines()],
          ["700 root:root directory"] + ["600 root:root regular file"] * 4 + ["777 root:root symbolic link"] * 4, "modes")
    values = {s.machine.read(f"{SECRETS}/{n}") for n in ("encryption_key", "person_key", "cron_api_key", "dashboard_token")}
    equal(len(values), 4, "different secrets")
    matches("Permission denied", s.machine.run("setpriv", "--reuid", "usage-fetcher", "--clear-groups", "cat", f"{SECRETS}/encryption_key", code=None),
            "the services' user and the folder of secrets")


@test("every program has its manual page")
def _(s):
    for page in [(1, "usagectl"), (7, "usage-fetcher")] + [(8, p) for p in PROGRAMS]:
        said = subprocess.run(["man", "-M", s.machine.path("/usr/share/man"), str(page[0]), page[1]], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, env={**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "80", "MANPAGER": "cat"}, check=False)
        check(said.returncode == 0 and page[1] in said.stdout.decode(), f"man {page}: {said.stdout.decode()}")


@test("systemd boots, and nothing of it runs before it is asked for")
def _(s):
    s.machine.boot(f"{s.postgres.folder}:{POSTGRES}")
    equal(s.machine.run("systemctl", "list-units", "--no-legend", "--all", "uf-*", "usage-fetcher*"), "", "units")
    equal(s.machine.run("systemctl", "is-enabled", "usage-fetcher.target", code=1).strip(), "disabled", "usage-fetcher.target")


@test("without a database it says which file is missing")
def _(s):
    said = s.machine.run("systemctl", "start", "uf-scheduler", code=None)
    said += s.machine.run("journalctl", "--no-pager", "-u", "uf-scheduler")
    matches("Assertion failed|AssertFileNotEmpty=/etc/usage-fetcher/secrets/database_url.scheduler", said, "journal")
    matches("DATABASE_URL is not set", s.machine.run("usagectl", "status", code=100), "usagectl status")


@test("configured and started with one command: every process is ready")
def _(s):
    m = s.machine
    m.run("install", "-m", "600", "/dev/stdin", f"{SECRETS}/database_url", text=f"postgresql:///uf?host={POSTGRES}&user=uf\n")
    m.write("/etc/usage-fetcher/usage-fetcher.env", m.read("/etc/usage-fetcher/usage-fetcher.env")
            + f'\nUF_SCHEDULE="{harness.NEVER}"\nUF_LEASE=10s\nUF_HTTP=127.0.0.1:{s.http_port}\n')
    m.run("systemctl", "enable", "--now", "usage-fetcher.target")
    s.wait_active("usage-fetcher-migrate", *SERVICES)
    for unit in SERVICES:
        check('"event":"stage.ready"' in s.log(unit), f"{unit} did not say that it is ready")
    s.person_key = base64.b64decode(m.read(f"{SECRETS}/person_key"))
    equal(m.run("systemctl", "list-units", "--failed", "--no-legend"), "", "failed units")


@test("accounts are added and a full cycle of both providers is exact")
def _(s):
    s.usagectl("pause")
    s.add_accounts(ACCOUNTS, hold=False)
    s.usagectl("resume")
    matches(r"succeeded +4\b", s.usagectl("run", "--wait").out, "usagectl run --wait")
    s.wait_backfill()
    rows = s.compare(ACCOUNTS)
    check(rows > 1000, f"only {rows} rows")
    print(f"        {rows} rows")


@test("the dashboard answers, and wants its token")
def _(s):
    wait_for("/readyz", lambda: '"ready":true' in s.get("/readyz")[1], 10, 0.2)
    equal(s.get("/api/v1/accounts")[0], 401, "without the token")
    token = s.machine.read(f"{SECRETS}/dashboard_token").strip()
    matches('"account":"sim-000000"', s.get("/api/v1/accounts", Authorization=f"Bearer {token}")[1], "with it")
    matches("usage_fetcher_", s.get("/metrics", Authorization=f"Bearer {token}")[1], "/metrics")


@test("each process is confined: its user, no capability, its filter, its secrets and no other's")
def _(s):
    secrets = [s.machine.read(f"{SECRETS}/{n}").strip() for n in ("database_url", "encryption_key", "person_key", "cron_api_key", "dashboard_token")]
    user = s.machine.run("id", "-u", "usage-fetcher").strip()
    want = {"uf-scheduler": "database_url", "uf-fetcher@1": "encryption_key", "uf-fetcher@2": "encryption_key", "uf-normalizer@1": "person_key",
            "uf-writer@1": "database_url", "uf-gateway": "cron_api_key dashboard_token database_url"}
    outside = os.readlink("/proc/self/ns/net")
    for unit, names in want.items():
        pid = s.machine.pid(unit)
        status = status_of(pid)
        equal(set(status["Uid"].split()), {user}, f"user of {unit}")
        equal({status[f"Cap{c}"] for c in ("Inh", "Prm", "Eff", "Bnd", "Amb")}, {"0" * 16}, f"capabilities of {unit}")
        equal((status["NoNewPrivs"], status["Seccomp"]), ("1", "2"), f"no new privileges and the filter of {unit}")
        equal(os.readlink(f"/proc/{pid}/ns/net") != outside, unit == "uf-normalizer@1", f"{unit} has a network of its own")
        inside = f"/proc/{pid}/root"
        equal(sorted(os.path.basename(f) for f in glob.glob(f"{inside}/run/credentials/*/*")), names.split(), f"secrets of {unit}")
        check(not os.listdir(f"{inside}/home") and not os.listdir(f"{inside}/root"), f"{unit} sees somebody's home")
        with open(f"/proc/{pid}/environ", "rb") as f:
            environ = f.read().decode()
        check(not any(secret in environ for secret in secrets), f"a secret is in the environment of {unit}")
        # What is written in its namespace, as its user.
        way = ["nsenter", "-t", str(pid), "-m", "-U", "-S", user, "-G", user, "sh", "-c"]
        for path, may in (("/run/usage-fetcher/x", True), ("/tmp/x", True), ("/etc/x", False), ("/var/tmp/x", True), ("/var/lib/x", False),
                          ("/usr/sbin/x", False), ("/dev/shm/x", None)):
            done = subprocess.run([*way, f"echo >{path} && rm {path}"], stderr=subprocess.DEVNULL, check=False)
            check(may is None or (done.returncode == 0) == may, f"{unit} {'can not' if may else 'can'} write {path}")


@test("kill -9 and status 111: started again; status 100: not")
def _(s):
    m = s.machine
    for unit in ("uf-fetcher@1", "uf-normalizer@1", "uf-writer@1", "uf-scheduler", "uf-gateway"):
        os.kill(m.pid(unit), signal.SIGKILL)
    for unit in ("uf-fetcher@1", "uf-normalizer@1", "uf-writer@1", "uf-scheduler", "uf-gateway"):
        wait_for(f"{unit} runs again", lambda u=unit: m.show(u, "NRestarts") == "1" and s.active(u), 20, 0.2)
    pid = m.pid("uf-normalizer@1")
    os.kill(pid, signal.SIGSTOP)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCONT):  # asked twice, it ends at once, with 111
        os.kill(pid, number)
    wait_for("uf-normalizer@1 runs again after 111", lambda: m.show("uf-normalizer@1", "NRestarts") == "2" and s.active("uf-normalizer@1"), 20, 0.2)
    matches("status=111", m.run("journalctl", "--no-pager", "-u", "uf-normalizer@1"), "journal")

    env = m.read("/etc/usage-fetcher/usage-fetcher.env")
    m.write("/etc/usage-fetcher/usage-fetcher.env", env + "\nUF_BATCH_MS=soon\n")
    m.run("systemctl", "restart", "uf-writer@1", code=1)
    time.sleep(3)
    equal((m.show("uf-writer@1", "ActiveState"), m.show("uf-writer@1", "ExecMainStatus")), ("failed", "100"), "uf-writer@1 with a wrong setting")
    matches("UF_BATCH_MS=.*write a whole number", s.log("uf-writer@1"), "journal")
    m.write("/etc/usage-fetcher/usage-fetcher.env", env)
    m.run("systemctl", "start", "uf-writer@1")
    s.cycle(12)


@test("one more fetcher and one more writer, and fewer again")
def _(s):
    m = s.machine
    m.run("systemctl", "enable", "--now", "uf-fetcher@3", "uf-writer@2")
    s.wait_active("uf-fetcher@3", "uf-writer@2")
    top = s.usagectl("top").out
    equal([len(re.findall(rf"(?m)^{stage} +{stage}-", top)) for stage in ("fetcher", "writer")], [3, 2], "fetchers and writers that usagectl top hears")
    s.cycle(11)
    m.run("systemctl", "disable", "--now", "uf-fetcher@2", "uf-writer@2")
    equal(s.active("uf-fetcher@2"), False, "uf-fetcher@2")
    s.cycle(10)


@test("each process with a login of its own")
def _(s):
    m = s.machine
    for part in PARTS:
        s.sql(f"CREATE ROLE app_{part} LOGIN {'BYPASSRLS' if part == 'writer' else ''} IN ROLE uf_{'admin' if part == 'usagectl' else part}")
        m.run("rm", f"{SECRETS}/database_url.{part}")
        m.write(f"{SECRETS}/database_url.{part}", f"postgresql:///uf?host={POSTGRES}&user=app_{part}\n", 0o600)
    m.run("systemctl", "restart", "usage-fetcher.target")
    s.wait_active("uf-scheduler", "uf-writer@1", "uf-gateway")
    matches("database login: app_usagectl has the rights of admin, and no other", s.usagectl("doctor", code=None).out, "usagectl doctor")
    matches("up to date", s.usagectl("migrate").out, "usagectl migrate, as the owner")
    s.cycle(13)
    wait_for("/readyz", lambda: '"ready":true' in s.get("/readyz")[1], 10, 0.2)
    users = {user for user, in s.sql("SELECT usename FROM pg_stat_activity WHERE datname = 'uf' AND usename <> 'uf'")}
    check(users >= {"app_scheduler", "app_writer", "app_gateway"}, f"logins at Postgres: {users}")


@test("a new ENCRYPTION_KEY, while everything goes on")
def _(s):
    m = s.machine
    m.run("sh", "-ec", f"""cd {SECRETS}
        mv encryption_key encryption_key_old
        usagectl keygen | install -m 600 /dev/stdin encryption_key
        mkdir -p /etc/systemd/system/uf-fetcher@.service.d
        cp /usr/share/doc/usage-fetcher/examples/rekey.conf /etc/systemd/system/uf-fetcher@.service.d/
        systemctl daemon-reload
        systemctl restart 'uf-fetcher@*'""")
    s.cycle(14)
    matches("4", s.usagectl("rekey").out, "usagectl rekey")
    m.run("sh", "-ec", f"""rm /etc/systemd/system/uf-fetcher@.service.d/rekey.conf {SECRETS}/encryption_key_old
        rmdir /etc/systemd/system/uf-fetcher@.service.d
        systemctl daemon-reload
        systemctl restart 'uf-fetcher@*'""")
    s.wait_active("uf-fetcher@1", "uf-fetcher@3")
    s.cycle(15)


@test("a fetcher as on another machine: over TCP, encrypted, with the example's settings")
def _(s):
    m = s.machine
    ports = dict(zip(("jobs", "pages"), (e.rsplit(":", 1)[1] for e in harness.free_endpoints(2))))
    public = ""
    for role in ("scheduler", "fetcher", "normalizer", "writer", "gateway", "usagectl"):
        pair = dict(line.split(" ", 1) for line in m.run("usagectl", "keygen", "--curve").splitlines())
        public += f"{role} {pair['public']}\n"
        m.write(f"{SECRETS}/curve_secret.{role if role == 'usagectl' else 'uf-' + role}", pair["secret"] + "\n", 0o600)
    m.write("/etc/usage-fetcher/curve.keys", public)
    env = m.read("/etc/usage-fetcher/usage-fetcher.env")
    m.write("/etc/usage-fetcher/usage-fetcher.env", env + "".join(
        f"UF_{link.upper()}=ipc:///run/usage-fetcher/{link},tcp://*:{port}\n" for link, port in ports.items()))
    example = m.read("/usr/share/doc/usage-fetcher/examples/tcp.conf")
    m.run("mkdir", "-p", "/etc/systemd/system/uf-.service.d", "/etc/systemd/system/uf-fetcher@9.service.d")
    m.write("/etc/systemd/system/uf-.service.d/tcp.conf", example)
    m.write("/etc/systemd/system/uf-fetcher@9.service.d/elsewhere.conf",
            "[Service]\nEnvironmentFile=\n" + "".join(f"Environment=UF_{link.upper()}=tcp://127.0.0.1:{port}\n" for link, port in ports.items()))
    m.run("systemctl", "daemon-reload")
    m.run("systemctl", "restart", "usage-fetcher.target")
    m.run("systemctl", "stop", "uf-fetcher@1", "uf-fetcher@3")
    m.run("systemctl", "start", "uf-fetcher@9")
    s.wait_active("uf-scheduler", "uf-normalizer@1", "uf-writer@1", "uf-fetcher@9")
    s.cycle(8)
    check('"event":"job.done"' in s.log("uf-fetcher@9"), "the fetcher over TCP did nothing")
    m.run("systemctl", "stop", "uf-fetcher@9")
    m.run("rm", "-r", "/etc/systemd/system/uf-.service.d", "/etc/systemd/system/uf-fetcher@9.service.d")
    m.write("/etc/usage-fetcher/usage-fetcher.env", env)
    m.run("systemctl", "daemon-reload")
    m.run("systemctl", "restart", "usage-fetcher.target")
    s.wait_active("uf-scheduler", "uf-normalizer@1", "uf-writer@1", "uf-fetcher@1", "uf-fetcher@3")


@test("stop and start of the target reach every process, and each ends with 0")
def _(s):
    m = s.machine
    running = ("uf-scheduler", "uf-fetcher@1", "uf-fetcher@3", "uf-normalizer@1", "uf-writer@1", "uf-gateway")
    m.run("systemctl", "stop", "usage-fetcher.target")  # which does not wait for its parts
    for unit in running:
        wait_for(f"{unit} has ended", lambda u=unit: m.show(u, "ActiveState") != "deactivating", 15, 0.2)
        equal((m.show(unit, "ActiveState"), m.show(unit, "Result"), m.show(unit, "ExecMainStatus")), ("inactive", "success", "0"), unit)
    m.run("systemctl", "start", "usage-fetcher.target")
    s.wait_active(*running)


@test("after a reboot everything runs again")
def _(s):
    s.machine.stop()
    s.machine.boot(f"{s.postgres.folder}:{POSTGRES}")
    s.wait_active("uf-scheduler", "uf-fetcher@1", "uf-fetcher@3", "uf-normalizer@1", "uf-writer@1", "uf-gateway")
    s.cycle(7)


@test("upgraded: settings and secrets stay, what runs goes on with the new programs")
def _(s):
    m = s.machine
    newer = os.path.join(m.folder, "newer")
    subprocess.run(["dpkg-deb", "-R", s.package, newer], check=True)
    for path, change in (("DEBIAN/control", lambda t: re.sub(r"(?m)^Version: .*", r"\g<0>.1", t)),
                         ("etc/usage-fetcher/usage-fetcher.env", lambda t: t + "\n# new in this version\n")):
        with open(os.path.join(newer, path), "r+", encoding="utf-8") as f:
            text = f.read()
            f.seek(0)
            f.write(change(text))
    subprocess.run(["dpkg-deb", "-b", "--root-owner-group", "-Znone", newer, m.path("/root/newer.deb")], check=True, stdout=subprocess.DEVNULL)
    running = ("uf-scheduler", "uf-fetcher@1", "uf-fetcher@3", "uf-normalizer@1", "uf-writer@1", "uf-gateway")
    before = {unit: m.pid(unit) for unit in running}
    key, env = m.read(f"{SECRETS}/encryption_key"), m.read("/etc/usage-fetcher/usage-fetcher.env")
    m.run("dpkg", "--force-confdef", "--force-confold", "-i", "/root/newer.deb", seconds=120)
    s.wait_active(*running)
    for unit in running:
        check(m.pid(unit) not in (0, before[unit]), f"{unit} still runs the old program")
    equal(m.read(f"{SECRETS}/encryption_key"), key, "encryption_key")
    equal(m.read("/etc/usage-fetcher/usage-fetcher.env"), env, "settings that were changed here")
    check("# new in this version" in m.read("/etc/usage-fetcher/usage-fetcher.env.dpkg-dist"), "the new version's settings are not beside them")
    equal(s.active("uf-fetcher@2", "uf-writer@2"), False, "what was disabled")
    s.cycle(9)


@test("no error is in any log that was not asked for, and no secret")
def _(s):
    logs = s.machine.run("journalctl", "--no-pager", "-o", "cat", "-u", "uf-*")
    errors = [line for line in logs.splitlines() if '"level":"error"' in line and "UF_BATCH_MS" not in line]
    equal(errors, [], "lines of level error")
    for name in ("encryption_key", "person_key", "cron_api_key", "dashboard_token"):
        check(s.machine.read(f"{SECRETS}/{name}").strip() not in logs, f"{name} is in the logs")
    check("sk-admin-sim" not in logs and "sk-ant-admin01-sim" not in logs, "a provider's key is in the logs")


@test("removed: nothing runs, settings and secrets stay; purged: nothing is left")
def _(s):
    m = s.machine
    m.run("apt-get", "-qq", "remove", "-y", "usage-fetcher", seconds=120)
    equal(m.processes_of(m.run("id", "-u", "usage-fetcher").strip()), [], "processes of its user")
    check(not os.path.exists(m.path("/usr/sbin/uf-writer")) and os.path.exists(m.path(f"{SECRETS}/encryption_key"))
          and os.path.exists(m.path("/etc/usage-fetcher/usage-fetcher.env")), "what removing leaves")
    m.run("apt-get", "-qq", "purge", "-y", "usage-fetcher", seconds=120)
    m.run("apt-get", "-qq", "autoremove", "--purge", "-y", seconds=120)
    equal(sorted(s.files() - s.files_before), ["/root/newer.deb"] + ["/root/" + os.path.basename(s.package)], "files that are left")
    check(not os.path.exists(m.path("/run/usage-fetcher")), "its run folder is left")
    equal(m.run("systemctl", "list-units", "--failed", "--no-legend"), "", "failed units")


def trouble(s):
    return s.machine.run("journalctl", "--no-pager", "-n", "40") if s.machine.leader else ""


def built():
    done = subprocess.run([os.path.join(harness.ROOT, "deploy/make-deb"), harness.BUILD], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode != 0:
        raise Impossible("the package is not built:\n" + done.stdout.decode(errors="replace")[-3000:])
    return next(line for line in done.stdout.decode().split() if "dbgsym" not in line)


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    signal.signal(signal.SIGALRM, lambda *_: sys.exit(f"FAILED  not done within {LIMIT_S} s\n0 passed, 1 failed"))
    signal.alarm(LIMIT_S)
    folder = tempfile.mkdtemp(prefix="uf-deb-")
    os.environ["UF_E2E_PG_TEMPLATE"] = harness.postgres_template(os.path.join(harness.BUILD, "tests", "pg-template"))
    machine = s = None
    passed, failed = 0, 1
    try:
        began = time.monotonic()
        package = built()
        print(f"the package: {time.monotonic() - began:.0f} s, {os.path.getsize(package) / 1e6:.1f} MB", flush=True)
        began = time.monotonic()
        lintian = subprocess.Popen(["lintian", "--allow-root", "--fail-on", "error,warning", package], stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT)  # beside the making of the machine
        machine = Machine(folder, os.path.join(harness.BUILD, "stack"))
        print(f"a clean Debian 12: {time.monotonic() - began:.0f} s", flush=True)
        s = Installed(machine, package, lintian)
        passed, failed = story.run(s, trouble, len(story.TESTS))
    except (Impossible, Failed) as e:
        print(f"FAILED  {e}", flush=True)
    finally:
        if machine:
            machine.stop()
        if s:
            s.close()
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{passed} passed, {failed} failed")
    return 0 if failed == 0 and passed else 1


if __name__ == "__main__":
    sys.exit(main())
