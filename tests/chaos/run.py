#!/usr/bin/python3
"""Chaos (BR-110): everything goes wrong at random for a while, and the table is the ledger all the same.

usage: run.py [--seconds 600] [--seed N] [--accounts 2000] [--only KINDS]

Two of each stage, one Postgres, one simulated provider. The first of each stage is reached by ipc, the second
by TCP through a proxy. Events are drawn from the seed: stages are killed, stopped, frozen, told a wrong time, and
their system calls and allocations fail (libfiu); Postgres is restarted, loses its clients, is locked, out of
connections and out of disk; the way to it and the links between stages are cut, delayed and reset; the provider
fails and changes its figures; and meanwhile cycles and injections are asked for. Each event is one line with its time. Then all
is healed, cycles are asked for until every account is ok, and usage_metrics has to equal the
simulator's ledger row for row. The same seed gives the same events at the same times; what they hit
depends on the machine. --only: kinds of events by name, with commas between.
Last line: N passed, N failed.
"""

import argparse
import contextlib
import glob
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))

import psycopg2  # noqa: E402
import zmq  # noqa: E402
import harness  # noqa: E402
from harness import STAGES, Failed, Stack, check, equal, wait_for  # noqa: E402
from proxy import Proxy  # noqa: E402

HOUR, DAY = 3600, 86400
BACKFILL_DAYS = 3
INSTANCES = 2
RESTART_AFTER_S = 0.3
STOP_LIMIT_S = 30  # ten seconds are promised; the machine is busy
MAX_RSS_KB = 200 * 1024
COMPARED_AT_ONCE = 200  # accounts
LINKS = {"jobs": "scheduler", "acks": "scheduler", "pages": "normalizer", "records": "writer"}  # and who binds it
FIU = [f"/usr/lib/fiu/fiu_{name}_preload.so" for name in ("run", "posix")]
FAKETIME = (sorted(glob.glob("/usr/lib/*/faketime/libfaketime.so.1")) or [None])[0]


class Slot:
    """One place for a stage, in which a supervisor keeps a process alive."""

    def __init__(self, stage, number):
        self.stage, self.name = stage, f"{stage}-{'ab'[number]}"
        self.process = None
        self.env = {}
        self.killed = self.paused = False
        self.calls_fail = ""  # which of its system calls fail, if any
        self.stop_by = None   # it was asked to stop, and has to end before
        self.start_at = 0.0
        self.rss_kb = 0
        self.starts = 0


class World:
    """The stack and what a supervisor, an operator and fate do to it."""

    def __init__(self, n_accounts):
        self.accounts = range(n_accounts)
        self.s = Stack(sim={"accounts": n_accounts, "density": "SMALL"},
                       env={"UF_BACKFILL": f"{BACKFILL_DAYS}d", "UF_LEASE": f"{10 + n_accounts // 100}s",
                            "UF_REQUEST_TIMEOUT": "5s"})
        self.began = time.monotonic()
        self.troubles = []    # what must not happen, in words
        self.undo = []        # (when, name, function): the ends of what lasts
        self.injected = {}    # account: how far back, acknowledged
        self.to_inject = {}
        self.asked = self.answered = 0
        self.slots = [Slot(stage, n) for stage in STAGES for n in range(INSTANCES)]
        self.disk = None
        self.proxies = {}     # to what: a proxy
        self.disk_full = False
        try:
            self.prepare()
        except BaseException:
            self.close()
            raise

    def prepare(self):
        self.mount_disk(600 + len(self.accounts) // 2)
        self.proxies["postgres"] = Proxy(os.path.join(self.s.postgres.folder, ".s.PGSQL.5432"))
        for slot in self.slots:
            if slot.stage in ("scheduler", "writer") and slot.name.endswith("b"):
                slot.env["DATABASE_URL"] = self.proxies["postgres"].url("uf")
        for link, port in zip(LINKS, free_ports(len(LINKS))):
            self.proxies[link] = Proxy(port)
            self.spread(link, port)
        self.s.add_accounts(self.accounts, hold=False)

    def spread(self, link, port):
        """The first of those who bind `link` keeps to ipc, the second listens on `port`; who connects knows
        both, the second by its proxy."""
        name = "UF_" + link.upper()
        known = f"ipc://{os.path.join(self.s.folder, 'run', link)},tcp://127.0.0.1:{self.proxies[link].port}"
        for slot in self.slots:
            slot.env["UF_ALLOW_PLAINTEXT"] = "1"
            if slot.stage != LINKS[link]:
                slot.env[name] = known
            elif slot.name.endswith("b"):
                slot.env[name] = f"tcp://127.0.0.1:{port}"

    def mount_disk(self, size_mb):
        """Moves Postgres to a small disk of its own, where mounting is permitted."""
        disk = os.path.join(self.s.postgres.folder, "disk")
        os.mkdir(disk)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "tmpfs", disk], check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode != 0:
            print("the disk never gets full: mounting a small one is not permitted here")
            return
        self.disk = disk
        self.s.sql("ALTER SYSTEM SET max_wal_size = '128MB'")
        self.s.postgres.stop()
        if harness.AS_ROOT:
            shutil.chown(disk, "postgres", "postgres")
        shutil.move(self.s.postgres.data, os.path.join(disk, "data"))
        self.s.postgres.data = os.path.join(disk, "data")
        subprocess.run(["chown", "-R", "--reference", disk, self.s.postgres.data], check=True)
        self.s.postgres.start()

    def close(self):
        for p in self.s.of():
            p.resume()
            p.kill()
        for proxy in self.proxies.values():
            proxy.close()
        if self.disk:
            if self.s.connection:
                self.s.connection.close()
                self.s.connection = None
            with contextlib.suppress(Failed):
                self.s.postgres.stop()
            subprocess.run(["umount", self.disk], check=False)
        self.s.close()

    def say(self, text):
        print(f"{time.monotonic() - self.began:7.1f} s  {text}", flush=True)

    def trouble(self, text):
        self.troubles.append(text)
        self.say("TROUBLE " + text)

    # -- the supervisor --

    def supervise(self):
        now = time.monotonic()
        for slot in self.slots:
            p = slot.process
            if p is None:
                if now >= slot.start_at:
                    slot.process = self.s.start(slot.stage, **slot.env)
                    slot.calls_fail = slot.env.get("FIU_ENABLE", "")
                    slot.killed, slot.paused, slot.stop_by = False, False, None
                    slot.starts += 1
            elif not p.alive():
                self.bury(slot, p)
            elif slot.stop_by and now > slot.stop_by:
                self.trouble(f"{p.name} did not end within {STOP_LIMIT_S} s of SIGTERM")
                p.kill()
                slot.killed = True
            else:
                self.weigh(slot)
        if not self.s.postgres.process.alive() and not self.disk_full:
            self.trouble("postgres ended by itself:\n" + self.s.postgres.process.text()[-1000:])
            self.start_postgres()

    def bury(self, slot, p):
        """Killed, stopped as asked, and 111 (start me again) are ends that may be."""
        code = p.child.returncode
        allowed = {111}
        if slot.killed:
            allowed.add(-signal.SIGKILL)
        if slot.stop_by:
            allowed.add(0)
            if not p.text():
                allowed.add(-signal.SIGTERM)  # it had not come to listen for that
        if slot.calls_fail:
            allowed |= deaths_of(slot.calls_fail)
        if code not in allowed:
            self.trouble(f"{p.name} ended with {code}:\n{p.text()[-1500:]}")
        self.s.processes.remove(p)
        slot.process = None
        slot.start_at = time.monotonic() + RESTART_AFTER_S

    @staticmethod
    def weigh(slot):
        with contextlib.suppress(OSError), open(f"/proc/{slot.process.pid}/status", encoding="ascii") as f:
            found = re.search(r"VmHWM:\s+(\d+) kB", f.read())
            if found:
                slot.rss_kb = max(slot.rss_kb, int(found[1]))

    def start_postgres(self):
        """Recovery may take its time on a busy machine."""
        try:
            self.s.postgres.start()
        except Failed:
            self.s.postgres.wait_ready()

    def wait(self, seconds):
        """Lives on for so long: supervises, and ends what has lasted long enough."""
        end = time.monotonic() + seconds
        while True:
            self.end_what_lasted()
            self.supervise()
            left = end - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(0.1, left))

    def end_what_lasted(self, all_of_it=False):
        now = time.monotonic()
        for entry in sorted(self.undo, key=lambda e: e[0]):
            if all_of_it or now >= entry[0]:
                self.undo.remove(entry)
                self.say(f"end of {entry[1]}")
                entry[2]()

    def lasts(self, seconds, name, end):
        self.undo.append((time.monotonic() + seconds, name, end))

    # -- the operator --

    def ask(self, request, seconds=3):
        """A request to any scheduler that listens; None when no one answered in time."""
        for path in glob.glob(os.path.join(self.s.folder, "run", "control", "*.sock")):
            with contextlib.closing(socket.socket(socket.AF_UNIX)) as probe:
                if probe.connect_ex(path) != 0:
                    continue
            context = zmq.Context()
            link = context.socket(zmq.REQ)
            link.setsockopt(zmq.LINGER, 0)
            try:
                link.connect("ipc://" + path)
                link.send(json.dumps(request).encode())
                if link.poll(seconds * 1000):
                    return json.loads(link.recv())
            finally:
                link.close()
                context.term()
        return None

    def ask_for_a_cycle(self):
        self.asked += 1
        answer = self.ask({"cmd": "run"})
        self.answered += bool(answer and answer.get("ok"))
        return answer

    def inject_what_is_due(self):
        for account, days in list(self.to_inject.items()):
            day = self.s.sim.start_now - self.s.sim.start_now % DAY
            answer = self.ask({"cmd": "inject", "account": f"sim-{account:06d}", "from": utc(day - days * DAY),
                               "to": utc(day - (BACKFILL_DAYS - 1) * DAY)})
            if answer and answer.get("ok"):
                self.injected[account] = max(days, self.injected.get(account, 0))
                del self.to_inject[account]


def free_ports(n):
    """Below those that the kernel hands out: a stage that was killed has to find its port free again."""
    ports = []
    for port in random.sample(range(15000, 32000), 200):
        with contextlib.closing(socket.socket()) as s, contextlib.suppress(OSError):
            s.bind(("127.0.0.1", port))
            ports.append(port)
        if len(ports) == n:
            return ports
    raise Failed("no free ports")


def utc(seconds):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


# ---- events: each takes the world and its own random numbers, and answers what it did ----

EVENTS = {}


def event(name, weight, takes_s=0):
    def register(function):
        EVENTS[name] = (weight, function, takes_s)
        return function
    return register


def some_stage(w, r):
    """A process that runs and was not asked to stop."""
    slot = r.choice(w.slots)
    return slot if slot.process and slot.process.alive() and not slot.paused and not slot.stop_by else None


@event("kill", 10)
def _(w, r):
    slot = some_stage(w, r)
    if not slot:
        return "no one"
    slot.killed = True
    slot.process.kill()
    return slot.process.name


@event("term", 6)
def _(w, r):
    slot = some_stage(w, r)
    if not slot:
        return "no one"
    slot.stop_by = time.monotonic() + STOP_LIMIT_S
    slot.process.send(signal.SIGTERM)
    return slot.process.name


def freeze(w, slot, seconds):
    process, slot.paused = slot.process, True
    process.pause()

    def resume():
        process.resume()
        if slot.process is process:
            slot.paused = False
    w.lasts(seconds, f"freeze {process.name}", resume)


@event("freeze", 6)
def _(w, r):
    slot, seconds = some_stage(w, r), r.choice((0.5, 3, 8, 14))
    if not slot:
        return "no one"
    freeze(w, slot, seconds)
    return f"{slot.process.name} for {seconds} s"


@event("kill-all", 1)
def _(w, r):
    stage = r.choice(STAGES)
    for slot in w.slots:
        if slot.stage == stage and slot.process and slot.process.alive():
            slot.killed = True
            slot.process.kill()
    return f"every {stage}"


@event("postgres-restart", 3)
def _(w, r):
    how = r.choice(("fast", "immediate"))
    if w.disk_full:
        return "not while its disk is full"
    w.s.postgres.process.send(signal.SIGINT if how == "fast" else signal.SIGQUIT)
    w.s.postgres.process.ended(60)
    time.sleep(r.choice((0, 0, 1, 4)))
    w.start_postgres()
    return how


@event("postgres-crash", 1)
def _(w, r):
    """One backend dies by SIGKILL: Postgres throws all clients out and goes into recovery."""
    with database(w) as c:
        c.execute("SELECT pid FROM pg_stat_activity WHERE datname = 'uf' AND pid <> pg_backend_pid() ORDER BY pid")
        pids = [pid for pid, in c.fetchall()]
        if pids:
            os.kill(r.choice(pids), signal.SIGKILL)
    return "kill -9 of a backend"


@event("postgres-terminate", 4)
def _(w, r):
    share = r.choice((0.3, 1))
    with database(w) as c:
        c.execute("SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity WHERE datname = 'uf' "
                  "AND pid <> pg_backend_pid() AND random() < %s) p", (share,))
        return f"{c.fetchone()[0]} sessions"


@event("postgres-cancel", 3)
def _(w, r):
    """To a client the same as a statement that took too long."""
    cancelled = 0
    with database(w) as c:
        for _ in range(10):
            c.execute("SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE datname = 'uf' "
                      "AND pid <> pg_backend_pid() AND state <> 'idle'")
            cancelled += c.fetchone()[0]
            time.sleep(0.05)
    return f"{cancelled} statements"


@event("lock", 3)
def _(w, r):
    """A session locks every third account, or all."""
    remainder, seconds = r.randrange(4), r.choice((2, 6, 14))
    if any(name == "locks" for _, name, _ in w.undo):
        return "no, there are locks already"
    connection = psycopg2.connect(w.s.postgres.url("uf"))
    w.lasts(seconds, "locks", connection.close)
    with connection.cursor() as c:
        c.execute("SET lock_timeout = '5s'")
        c.execute("SELECT count(*) FROM (SELECT FROM accounts WHERE account_id %% 3 = %s OR %s = 3 ORDER BY account_id "
                  "FOR UPDATE) l", (remainder, remainder))
        return f"{c.fetchone()[0]} accounts for {seconds} s"


@event("frozen-transaction", 0.5, takes_s=80)
def _(w, r):
    """A writer sleeps inside a transaction until Postgres has thrown it out for that."""
    slots = [x for x in w.slots if x.stage == "writer" and x.process and x.process.alive() and not x.stop_by and not x.paused]
    if not slots:
        return "no one"
    w.ask_for_a_cycle()
    for _ in range(200):
        for slot in slots:
            slot.process.pause()
        time.sleep(0.02)
        with database(w) as c:
            c.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE '%writer%' AND state = 'idle in transaction'")
            found = c.fetchone()[0]
        if found:
            for slot in slots:
                freeze(w, slot, 65)
            return f"{found} writers for 65 s"
        for slot in slots:
            slot.process.resume()
        w.wait(0.02)
        slots = [x for x in slots if x.process and x.process.alive()]
    return "no writer was in one"


@event("connections", 2)
def _(w, r):
    seconds, sessions = r.choice((1, 4, 9)), []

    def end():
        for session in sessions:
            session.close()
    w.lasts(seconds, "sessions of strangers", end)
    with database(w) as c:
        c.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'uf' AND pid <> pg_backend_pid()")
    for _ in range(100):
        try:
            sessions.append(psycopg2.connect(w.s.postgres.url("uf")))
        except psycopg2.OperationalError:
            break
    return f"{len(sessions)} sessions of strangers, no more are to be had, for {seconds} s"


@event("disk-full", 2)
def _(w, r):
    seconds = r.choice((2, 5, 10))
    if not w.disk or w.disk_full:
        return "no"
    filler = os.path.join(w.disk, "filler")

    def end():
        os.unlink(filler)
        w.disk_full = False
        if not w.s.postgres.process.alive():
            w.say("postgres had ended on the full disk and is started again")
            w.start_postgres()
    w.disk_full = True
    w.lasts(seconds, "disk-full", end)
    with open(filler, "wb") as f:
        free = os.statvfs(w.disk)
        with contextlib.suppress(OSError):
            os.posix_fallocate(f.fileno(), 0, free.f_bavail * free.f_bsize)
    return f"{free.f_bavail * free.f_bsize >> 20} MB taken for {seconds} s"


def deaths_of(calls):
    """Some libraries hold that a call can not fail: libzmq asserts what errno is and throws when memory is out,
    libcurl divides by the size of a table that it did not get. That is a death like others; the supervisor starts
    the stage again. Our own allocations end with 111."""
    return {-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGFPE} if "libc/mm" in calls else {-signal.SIGABRT}


def other_world(w, slot, seconds, name, env):
    """The stage is killed, and lives with `env` for a while; then it is killed again, and all is as before."""
    def begin_anew():
        if slot.process and slot.process.alive():
            slot.killed = True
            slot.process.kill()

    def end():
        for key in env:
            del slot.env[key]
        begin_anew()
    slot.env.update(env)
    begin_anew()
    w.lasts(seconds, name, end)


@event("wrong-time", 3)
def _(w, r):
    """A stage's host is an hour off. What it hears from others is not."""
    slot, hours, seconds = some_stage(w, r), r.choice((-1, 1)), r.choice((5, 15))
    if not slot or not FAKETIME or "LD_PRELOAD" in slot.env:
        return "no one" if FAKETIME else "no: Debian's faketime is not installed"

    other_world(w, slot, seconds, f"wrong time of {slot.name}",
                {"LD_PRELOAD": FAKETIME, "FAKETIME": f"{hours:+d}h", "FAKETIME_DONT_FAKE_MONOTONIC": "1"})
    return f"{slot.name} {hours:+d} h for {seconds} s"


@event("failing-calls", 5)
def _(w, r):
    """System calls and allocations of one stage fail at random. Not `close`: libfiu's keeps the descriptor,
    Linux' never does. The stage may end of it by 111 or as in `deaths_of`, never by 100 (do not restart me)."""
    slot, seconds = some_stage(w, r), r.choice((5, 10, 20))
    calls, probability = r.choice(("posix/io/rw/*", "posix/io/net/*", "posix/io/oc/open", "libc/mm/*")), r.choice((0.0001, 0.001, 0.01))
    if not slot or not os.path.exists(FIU[0]) or "LD_PRELOAD" in slot.env:
        return "no one" if os.path.exists(FIU[0]) else "no: Debian's libfiu0 is not installed"
    other_world(w, slot, seconds, f"failing calls of {slot.name}",
                {"LD_PRELOAD": " ".join(FIU), "FIU_ENABLE": f"enable_random name={calls},probability={probability}"})
    return f"{slot.name}: {calls}, one of {1 / probability:.0f}, for {seconds} s"


@event("link", 10)
def _(w, r):
    """To Postgres from one scheduler and one writer; and between stages, over TCP."""
    which = r.choice(("postgres", "postgres", *LINKS))
    what, seconds = r.choice(("cut", "reset", "delay", "refuse") + ("lost COMMIT",) * (which == "postgres")), r.choice((1, 4, 8))
    proxy = w.proxies[which]
    if what == "lost COMMIT":
        proxy.lose_commits += r.choice((1, 3))
        return f"postgres: the answers to the next {proxy.lose_commits} COMMITs; so far {proxy.lost}"
    if what in ("cut", "reset"):
        proxy.cut(reset=what == "reset")
        return f"{which}: {what}"
    if what == "delay":
        proxy.delay_s = r.choice((0.02, 0.2, 1))
    else:
        proxy.refuse = True
        proxy.cut(reset=False)
    w.lasts(seconds, f"link {which}: {what}", proxy.heal)
    return f"{which}: {what} for {seconds} s"


PROVIDER = {
    "429 storm": {"do": "status", "status": 429, "headers": {"Retry-After": "1"}, "every": 2},
    "429 for all": {"do": "status", "status": 429, "headers": {"Retry-After": "2"}},
    "500": {"do": "status", "status": 500, "body": "oops: {key}", "every": 2},
    "502 as HTML": {"do": "status", "status": 502, "body": "<html>Bad gateway</html>", "content_type": "text/html", "every": 3},
    "503 for all": {"do": "status", "status": 503},
    "slow drip": {"do": "drip", "chunk": 40, "interval_ms": 300, "every": 20},
    "timeouts": {"do": "nothing", "delay_ms": 7000, "every": 20},
    "half bodies": {"do": "cut", "every": 3},
    "truncated bodies": {"do": "truncate", "every": 3},
    "resets": {"do": "reset", "every": 3},
    "no answers": {"do": "drop", "every": 3},
    "expired tokens": {"do": "expired"},
}


@event("provider", 8)
def _(w, r):
    name, seconds = r.choice(sorted(PROVIDER)), r.choice((1, 3, 6))
    w.s.sim.clear_faults()  # one trouble at a time: the one before ends here
    w.undo = [u for u in w.undo if not u[1].startswith("provider:")]
    w.s.sim.fault(**PROVIDER[name])
    w.lasts(seconds, f"provider: {name}", w.s.sim.clear_faults)
    return f"{name} for {seconds} s"


@event("restate", 10)
def _(w, r):
    """What each cycle looks back on: the last whole hour, yesterday's costs."""
    now, done = w.s.sim.now(), []
    for _ in range(r.choice((1, 5, 25))):
        account, feed, op = r.choice(w.accounts), r.choice(("completions", "embeddings", "costs")), r.choice(("change", "vanish", "add"))
        bucket = now - now % DAY - DAY if feed == "costs" else now - now % HOUR - HOUR
        more = {"change": {"percent": r.randrange(10, 300)}, "vanish": {}, "add": {"amount": "-3.25"} if feed == "costs" else {}}
        w.s.sim.restate(account, feed, bucket, op, **more[op])
        done.append(f"{account} {feed} {op}")
    return f"{len(done)} buckets: {', '.join(done[:3])}"


@event("clock", 4)
def _(w, r):
    seconds = r.choice((1, 60, 300, 900))
    w.s.sim.advance(seconds)
    return f"+{seconds} s at the provider"


@event("run", 14)
def _(w, r):
    answer = w.ask_for_a_cycle()
    return json.dumps(answer)


@event("inject", 3)
def _(w, r):
    w.to_inject[r.choice(w.accounts)] = r.randrange(BACKFILL_DAYS + 1, 10)
    w.inject_what_is_due()
    return f"{len(w.injected)} acknowledged, {len(w.to_inject)} to be asked again"


@contextlib.contextmanager
def database(w):
    with contextlib.closing(psycopg2.connect(w.s.postgres.url("uf"))) as connection:
        connection.autocommit = True
        with connection.cursor() as c:
            yield c


def script(seed, seconds, kinds):
    """The whole story beforehand, so that it does not depend on how it goes: (when, name, random numbers)."""
    r, when = random.Random(seed), 0.5
    names = sorted(kinds)
    while when < seconds:
        name = r.choices(names, [EVENTS[n][0] for n in names])[0]
        own = random.Random(r.random())
        if when + EVENTS[name][2] <= seconds:
            yield when, name, own
        when += r.expovariate(1 / 1.2)


def play(w, seed, seconds, kinds):
    """Answers how often each kind of event came."""
    counts = {}
    w.began = time.monotonic()
    for when, name, r in script(seed, seconds, kinds):
        w.wait(max(0.0, w.began + when - time.monotonic()))
        if time.monotonic() - w.began > seconds:
            break
        counts[name] = counts.get(name, 0) + 1
        try:
            w.say(f"{name}: {EVENTS[name][1](w, r)}")
        except (psycopg2.OperationalError, psycopg2.InterfaceError) as e:
            w.say(f"{name}: not possible now: {str(e).splitlines()[0]}")
    w.wait(max(0.0, w.began + seconds - time.monotonic()))
    return counts


# ---- the end ----

def heal(w):
    w.say("all is healed")
    w.end_what_lasted(all_of_it=True)
    w.s.sim.clear_faults()
    for proxy in w.proxies.values():
        proxy.heal()
    w.s.postgres.wait_ready()
    w.wait(1)

    def ready():
        w.wait(0)
        return all(x.process and not x.stop_by and '"stage.ready"' in x.process.text() for x in w.slots)
    wait_for("every stage ready", ready, 60)


def quiet(w):
    return w.s.value("SELECT NOT EXISTS (SELECT FROM run_accounts WHERE state = 'pending') "
                     "AND NOT EXISTS (SELECT FROM owed_windows WHERE state = 'pending') "
                     "AND NOT EXISTS (SELECT FROM accounts WHERE lease_job IS NOT NULL)")


def live_until(w, what, ask, end):
    def look():
        w.wait(0.1)
        return ask()
    wait_for(what, look, max(1.0, end - time.monotonic()), every=0.2)


def all_accounts_ok(w, seconds):
    """Cycles until one, which began when nothing was out, ends well for every account."""
    end = time.monotonic() + seconds
    while True:
        while w.to_inject:
            w.inject_what_is_due()
            w.wait(0.1)
        try:
            live_until(w, "nothing out", lambda: quiet(w), end)
            answer = w.ask_for_a_cycle()
            if not answer or not answer.get("ok"):
                continue
            live_until(w, "the last cycle", lambda: w.s.value(
                "SELECT finished_at IS NOT NULL FROM fetch_runs WHERE run_id = %s", answer["run_id"]), end)
            live_until(w, "nothing out after the last cycle", lambda: quiet(w), end)
        except Failed as e:
            raise Failed(f"{e}\n{left_over(w)}") from None
        states = dict(w.s.sql("SELECT state, count(*) FROM account_health GROUP BY 1"))
        failed = w.s.value("SELECT accounts_failed FROM fetch_runs WHERE run_id = %s", answer["run_id"])
        w.say(f"a cycle ended: {failed} accounts failed; {states}")
        if failed == 0 and states == {"ok": len(w.accounts)}:
            return
        check(time.monotonic() < end, f"not every account is ok: {states}\n{left_over(w)}")


def left_over(w):
    return "\n".join(f"{what}: {w.s.sql(query)}" for what, query in (
        ("pending accounts of runs", "SELECT run_id, count(*) FROM run_accounts WHERE state = 'pending' GROUP BY 1"),
        ("owed", "SELECT to_jsonb(o) FROM owed_windows o WHERE state = 'pending' LIMIT 5"),
        ("leased", "SELECT account_id, lease_epoch, lease_until, next_due, now() FROM accounts WHERE lease_job IS NOT NULL LIMIT 5"),
        ("health", "SELECT account, state, trouble, advice FROM account_health WHERE state <> 'ok' LIMIT 5")))


def compare(w):
    rows = 0
    plain = [a for a in w.accounts if a not in w.injected]
    for i in range(0, len(plain), COMPARED_AT_ONCE):
        rows += w.s.compare(plain[i:i + COMPARED_AT_ONCE])
    today = w.s.sim.start_now - w.s.sim.start_now % DAY
    for account, days in w.injected.items():
        rows += w.s.compare([account], start=today - days * DAY)
    w.say(f"{rows} rows, {len(w.injected)} accounts with older windows: equal to the ledger")


def one_width(w):
    equal(w.s.sql("SELECT account_id, feed, date_trunc('day', bucket_start, 'UTC') FROM usage_metrics GROUP BY 1, 2, 3 "
                  "HAVING count(DISTINCT bucket_seconds) > 1 LIMIT 5"), [], "days in two bucket widths")


def watermarks(w):
    equal(w.s.sql("SELECT account_id, feed, watermark FROM account_feeds WHERE watermark > to_timestamp(%s) OR watermark IS NULL "
                  "LIMIT 5", w.s.sim.now() + 1), [], "watermarks that are null or beyond the provider's now")


def sessions(w):
    time.sleep(1)
    equal(w.s.sql("SELECT application_name, state, query FROM pg_stat_activity WHERE state LIKE 'idle in transaction%%' "
                  "AND state_change < now() - interval '1 second'"), [], "sessions idle in transaction")
    n = w.s.value("SELECT count(*) FROM pg_stat_activity WHERE datname = 'uf' AND pid <> pg_backend_pid()")
    check(n <= 4 * INSTANCES, f"{n} sessions of {2 * INSTANCES} schedulers and writers")


def memory(w):
    for slot in w.slots:
        w.say(f"{slot.name}: at most {slot.rss_kb / 1024:.0f} MB, started {slot.starts} times")
    heavy = [f"{x.name}: {x.rss_kb} kB" for x in w.slots if x.rss_kb > MAX_RSS_KB]
    check(not heavy, "over 200 MB: " + ", ".join(heavy))


def no_key(w):
    """Neither in a log nor in what people are shown."""
    pattern = re.compile(rb"sk-admin-sim-\d{6}-[0-9a-f]{8,}")
    with open(w.s.key_file, "rb") as f:
        sealing_key = f.read().strip()
    check(pattern.fullmatch(w.s.sim.key(0).encode()), "the simulator's keys look otherwise than is searched for")
    for path in w.s.log_files() + [w.s.postgres.log]:
        with open(path, "rb") as f:
            text = f.read()
        check(not pattern.search(text) and sealing_key not in text, f"a key stands in {os.path.basename(path)}")
    shown = w.s.value("SELECT coalesce((SELECT string_agg(body, '') FROM dead_letters), '') || "
                      "coalesce((SELECT string_agg(last_error_detail, '') FROM account_feeds), '') || "
                      "coalesce((SELECT string_agg(detail, '') FROM run_accounts), '')")
    check(not pattern.search(shown.encode()), "a key stands in the database")


def supervision(w):
    check(not w.troubles, "\n".join(w.troubles))


def prove(w):
    """Answers [passed, failed]."""
    counts = [0, 0]
    for what, proof in (
            ("every stage comes back", heal),
            ("every account ends ok", lambda w: all_accounts_ok(w, 180 + len(w.accounts) * 0.3)),
            ("usage_metrics equals the ledger", compare), ("no bucket in two widths", one_width),
            ("no watermark beyond the provider's now", watermarks), ("no session idle in a transaction", sessions),
            ("memory under 200 MB", memory), ("no key in a log", no_key), ("no one ended as he must not", supervision)):
        try:
            proof(w)
            counts[0] += 1
            w.say(f"ok      {what}")
        except Exception as e:  # a mistake of this program is a failure, too
            counts[1] += 1
            text = str(e) if isinstance(e, Failed) else traceback.format_exc()
            w.say(f"FAILED  {what}\n        " + text.replace("\n", "\n        "))
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--seed", type=int, default=random.randrange(1, 10**6))
    parser.add_argument("--accounts", type=int, default=2000)
    parser.add_argument("--only", default=",".join(EVENTS))
    args = parser.parse_args()
    kinds = args.only.split(",")
    if unknown := [k for k in kinds if k not in EVENTS]:
        parser.error(f"no such kind of event: {', '.join(unknown)}; there are: {', '.join(sorted(EVENTS))}")
    again = f"--seed {args.seed} --seconds {args.seconds} --accounts {args.accounts}"
    print(f"seed {args.seed}; again: tests/chaos/run.py {again}", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("asked to stop"))  # the disk is unmounted all the same
    template = tempfile.mkdtemp(prefix="uf-pg-", dir="/tmp")
    os.chmod(template, 0o755)
    if harness.AS_ROOT:
        shutil.chown(template, "postgres", "postgres")
    w, counts = None, [0, 1]
    try:
        os.environ["UF_E2E_PG_TEMPLATE"] = harness.postgres_template(os.path.join(template, "data"))
        w = World(args.accounts)
        done = play(w, args.seed, args.seconds, kinds)
        counts = prove(w)
        print("events: " + ", ".join(f"{name} {n}" for name, n in sorted(done.items())))
        if counts[1]:
            print(w.s.log_tails())
    finally:
        if w:
            w.close()
        shutil.rmtree(template, ignore_errors=True)
    print(f"seed {args.seed}; again: tests/chaos/run.py {again}")
    print(f"{counts[0]} passed, {counts[1]} failed")
    return 0 if not counts[1] else 1


if __name__ == "__main__":
    sys.exit(main())
