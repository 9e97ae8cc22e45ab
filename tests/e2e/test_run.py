"""`make run` as a newcomer types it, in a copy of the tree: it works, and leaves nothing behind."""

import os
import re
import shutil
import signal
import subprocess
import time

from harness import BUILD, ROOT, Failed, Process, check, equal, matches, wait_for
from runner import test

LIMIT_S = 60


def copy_of_the_tree():
    """What git knows, at /tmp/uf-run-X, with the binaries that are built already."""
    folder = subprocess.run(["mktemp", "-d", "/tmp/uf-run-XXXXXX"], stdout=subprocess.PIPE, check=True).stdout.decode().strip()
    os.chmod(folder, 0o755)
    names = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, stdout=subprocess.PIPE,
                           check=True).stdout.split(b"\0")
    for name in filter(None, (n.decode() for n in names)):
        if os.path.isfile(os.path.join(ROOT, name)):
            os.makedirs(os.path.dirname(os.path.join(folder, name)), exist_ok=True)
            shutil.copy2(os.path.join(ROOT, name), os.path.join(folder, name))
    for part in ("bin", "obj", "tests/uf-sim", "libuf.a", "migrations.c", "assets.c"):
        source, target = os.path.join(BUILD, part), os.path.join(folder, "build", part)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        subprocess.run(["cp", "-a", source, target], check=True)
    return folder


def processes_of(folder):
    """Living processes that run from, or in, the folder."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                line = f.read().replace(b"\0", b" ").decode(errors="replace")
            where = os.readlink(f"/proc/{pid}/cwd") + " " + os.readlink(f"/proc/{pid}/exe")
        except OSError:
            continue
        if folder in line or folder in where:
            found.append((int(pid), line))
    return found


def clean_env():
    env = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG", "TERM")}
    env["UF_HTTP"] = "127.0.0.1:0"  # several of these may run at once
    return env


def with_tree(use):
    folder = copy_of_the_tree()
    try:
        use(folder)
        left = wait_for_none(folder)
        equal(left, [], "processes left behind")
    finally:
        for pid, _ in processes_of(folder):
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def wait_for_none(folder, seconds=5):
    end = time.monotonic() + seconds
    while processes_of(folder) and time.monotonic() < end:
        time.sleep(0.1)
    return processes_of(folder)


def once(folder):
    """make run ONCE=1, its exit status and what it said."""
    p = Process("make run", ["make", "run", "ONCE=1"], clean_env(), os.path.join(folder, "once.out"), folder, own_group=True)
    try:
        return p.child.wait(LIMIT_S), p.text()
    except subprocess.TimeoutExpired:
        raise Failed(f"make run ONCE=1 is not done after {LIMIT_S} s:\n{p.text()[-3000:]}") from None


@test("make run ONCE=1 shows a cycle over demo accounts, exits 0 and leaves no process")
def _():
    def use(folder):
        code, text = once(folder)
        equal(code, 0, "exit status\n" + text[-3000:])
        matches("simulat", text, "says that the data comes from a simulator")
        matches("demo", text, "names the demo accounts")
        check('"level":"error"' not in text, "error lines:\n" + text[-3000:])
        equal(wait_for_none(folder), [], "processes left behind by ONCE=1")
        secrets = os.path.join(folder, "var", "secrets")
        check(os.path.isdir(secrets), "no var/secrets")
        for name in os.listdir(secrets):
            equal(os.stat(os.path.join(secrets, name)).st_mode & 0o077, 0, f"rights of others on var/secrets/{name}")
        # A second start finds what the first one made.
        code, text = once(folder)
        equal(code, 0, "exit status of a second time\n" + text[-3000:])
    with_tree(use)


def interrupted(number):
    def use(folder):
        log = os.path.join(folder, "run.out")
        p = Process("make run", ["make", "run"], clean_env(), log, folder, own_group=True)
        wait_for("the first cycle's summary", lambda: re.search(r"Ctrl-C", p.text()) or not p.alive(), 120, 0.2)
        check(p.alive(), "make run ended by itself:\n" + p.text()[-3000:])
        wait_for("stages are up", lambda: len([1 for _, line in processes_of(folder) if "uf-" in line]) >= 4, 20)
        os.killpg(p.pid, number)  # as a terminal does
        try:
            p.child.wait(25)
        except subprocess.TimeoutExpired:
            check(False, f"make run did not end within 25 s of signal {number}:\n" + p.text()[-2000:])
    with_tree(use)


@test("make run ends at Ctrl-C and leaves no process")
def _():
    interrupted(signal.SIGINT)


@test("make run ends at SIGTERM and leaves no process")
def _():
    interrupted(signal.SIGTERM)
