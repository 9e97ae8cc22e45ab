#!/usr/bin/python3
"""Torture: the stages die by SIGKILL at each CRASH_POINT once, and the table is the ledger all the same.

usage: run.py [--short] [--only WORDS] [--lanes N]

A story is told once without a crash, which counts how often each point is passed; then once for each
point (and, at length, for later passes of it), in which the first process that comes there dies and is
started again, as a supervisor would. The story: a first cycle that meets a poisoned row; figures that
are restated; a second cycle; an older window, injected. It ends with the question whether usage_metrics
equals the simulator's ledger, and whether each change was kept once.

--short: one of each stage, each point once. Otherwise also two of each, more accounts, later passes.
Last line: N passed, N failed.
"""

import argparse
import contextlib
import glob
import json
import multiprocessing
import os
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
os.environ["BUILD"] = os.path.join(os.environ.get("BUILD", "build"), "crash")
sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))

import psycopg2  # noqa: E402
import zmq  # noqa: E402
import harness  # noqa: E402  (BUILD has to be set before)
from harness import STAGES, Failed, Stack, check, equal, wait_for  # noqa: E402

LEASE = "3s"  # what is lost is found when its lease ends
BACKFILL_DAYS = 2
STORY_LIMIT_S = 60
SHORT, LONG = (2, 2), (8, 16)  # accounts; days of the older window, more than a page from 7 on

# Points that the story does not pass, each with its reason.
NOT_PASSED = {}


def declared():
    """Every point in the sources, by name."""
    names = []
    for stage in STAGES:
        for path in sorted(glob.glob(os.path.join(ROOT, stage, "*.c"))):
            with open(path, encoding="utf-8") as f:
                names += re.findall(r'CRASH_POINT\("([^"]+)"\)', f.read())
    double = {n for n in names if names.count(n) > 1}
    check(not double, f"declared twice: {sorted(double)}")
    return names


class Theatre:
    """One Postgres and one simulator, in which the story is told again and again."""

    def __init__(self, accounts, old_days):
        self.accounts = range(accounts)
        self.old_days = old_days  # of the older window
        self.s = Stack(sim={"accounts": accounts, "density": "SMALL"},
                       env={"UF_BACKFILL": f"{BACKFILL_DAYS}d", "UF_LEASE": LEASE, "UF_BATCH_MS": "50"})
        self.s.add_accounts(self.accounts)
        self.s.sql("UPDATE accounts SET next_due = now() + interval '1 year'")
        self._admin("ALTER DATABASE uf RENAME TO uf_fresh")
        self.env = {}
        self.deaths = []
        self.asked_to_stop = set()

    def _admin(self, *statements):
        if self.s.connection:
            self.s.connection.close()
            self.s.connection = None
        with contextlib.closing(psycopg2.connect(self.s.postgres.url("postgres"))) as c:
            c.autocommit = True
            for statement in statements:
                c.cursor().execute(statement)

    def clear(self):
        """As nobody had ever been here."""
        for p in self.s.processes:
            p.kill()
        self.s.processes.clear()
        for path in self.s.log_files():
            os.unlink(path)
        self.s.seen.clear()
        for name in ("run", "passed", "died"):
            path = os.path.join(self.s.folder, name)
            shutil.rmtree(path, ignore_errors=True) if os.path.isdir(path) else None
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        self._admin("DROP DATABASE IF EXISTS uf WITH (FORCE)", "CREATE DATABASE uf TEMPLATE uf_fresh")
        self.s.sim.clear_faults()
        self.s.sim._ask("DELETE", "restatements")
        self.deaths, self.asked_to_stop = [], set()

    # -- the supervisor --

    def supervise(self):
        """Starts again who has died. Only the death that was ordered may happen."""
        for p in list(self.s.processes):
            if p.alive():
                continue
            code = p.child.returncode
            self.s.processes.remove(p)
            if code == -signal.SIGKILL:
                self.deaths.append(p.name)
            else:
                check(code == 0 and p.pid in self.asked_to_stop,
                      f"{p.name} ended with {code}:\n{p.text()[-1500:]}")
            check(len(self.deaths) < 2, f"died more than once: {self.deaths}")
            self.s.start(p.name.rsplit("-", 1)[0], **self.env)

    def wait(self, what, ask, seconds=STORY_LIMIT_S):
        def look():
            self.supervise()
            return ask()
        wait_for(what, look, seconds, every=0.02)

    def terminate(self, stage):
        for p in self.s.of(stage):
            self.asked_to_stop.add(p.pid)
            p.send(signal.SIGTERM)

    # -- what the story does --

    def _live_sockets(self):
        for path in sorted(glob.glob(os.path.join(self.s.folder, "run", "control", "*.sock"))):
            with contextlib.closing(socket.socket(socket.AF_UNIX)) as s:
                if s.connect_ex(path) == 0:
                    yield path

    def ask(self, request):
        """Asks until there is an answer, as a person would after a scheduler died on the question."""
        def answered():
            for path in self._live_sockets():
                context = zmq.Context()
                s = context.socket(zmq.REQ)
                s.setsockopt(zmq.LINGER, 0)
                try:
                    s.connect("ipc://" + path)
                    s.send(json.dumps(request).encode())
                    deaths = len(self.deaths)
                    end = time.monotonic() + 3
                    while time.monotonic() < end and len(self.deaths) == deaths:
                        if s.poll(50):
                            answer = json.loads(s.recv())
                            check(answer.get("ok"), f"{request}: {answer}")
                            return True
                        self.supervise()
                finally:
                    s.close()
                    context.term()
            return False
        self.wait(f"an answer to {request}", answered)

    def wait_idle(self, what):
        self.wait(what, lambda: self.s.value(
            "SELECT NOT EXISTS (SELECT FROM run_accounts WHERE state = 'pending') "
            "AND NOT EXISTS (SELECT FROM owed_windows WHERE state = 'pending') "
            "AND NOT EXISTS (SELECT FROM accounts WHERE lease_job IS NOT NULL)"))

    def restate(self):
        sim, now = self.s.sim, self.s.sim.now()
        hour, yesterday = now - now % 3600 - 3600, now - now % 86400 - 86400
        sim.restate(0, "completions", hour, "change", percent=130)
        sim.restate(0, "embeddings", hour, "vanish")
        sim.restate(0, "costs", yesterday, "add", amount="-3.25")

    def tell(self, env, instances, stop=None):
        """The story; `stop`: the stage that is asked to stop in the middle of the second cycle."""
        self.clear()
        self.env = env
        s, day = self.s, 86400
        old = s.sim.start_now - s.sim.start_now % day - (BACKFILL_DAYS + self.old_days) * day
        s.sim.fault(do="field", feed="completions", name="input_tokens", raw='"poison"', row=0, account=1, times=1)
        for stage in STAGES:
            s.start(stage, instances, **env)
        self.ask({"cmd": "run"})
        self.wait_idle("the first cycle")
        self.restate()
        self.ask({"cmd": "run"})
        if stop:
            time.sleep(0.1)
            self.terminate(stop)
        self.ask({"cmd": "inject", "account": "sim-000000", "from": self._text(old),
                  "to": self._text(old + (self.old_days + 1) * day)})
        self.wait_idle("the second cycle and the older window")
        self.examine(old)

    @staticmethod
    def _text(seconds):
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))

    def examine(self, old):
        s = self.s
        s.compare(self.accounts)
        s.compare([0], start=old)
        equal(s.sql("SELECT feed, last_error FROM account_feeds WHERE last_error IS DISTINCT FROM 'ok'"), [],
              "feeds that did not end well")
        # A change that is made again after a crash is the same change.
        equal(s.sql("SELECT feed, change, count(*) FROM usage_revisions GROUP BY feed, change, account_id, row_key, bucket_start "
                    "HAVING count(*) > 1"), [], "changes kept more than once")
        equal(dict(s.sql("SELECT change, count(*) > 0 FROM usage_revisions GROUP BY 1")),
              {"appeared": True, "changed": True, "vanished": True}, "changes kept")
        equal(s.value("SELECT count(*) FROM dead_letters") <= 1, True, "at most one dead letter")
        lines = s.error_lines()
        check(not lines, "unexpected error lines in the logs:\n" + "\n".join(lines[:10]))

    # -- with a death, and without --

    def count(self, instances):
        """How often each point is passed when nobody dies."""
        log = os.path.join(self.s.folder, "passed")
        self.tell({"CRASH_POINT_LOG": log}, instances)
        self.s.stop_all()
        with open(log, encoding="ascii") as f:
            names = f.read().split()
        return {name: names.count(name) for name in names}

    def die(self, instances, point, k):
        """The story with a death; answers whether anybody came to the point."""
        died = os.path.join(self.s.folder, "died")
        stage = point.split(".")[0]
        self.tell({"CRASH_POINT_AT": f"{point}:{k}", "CRASH_POINT_ONCE": died}, instances,
                  stop=stage if ".stop." in point else None)
        return os.path.exists(died)


def lane(size, tasks, results):
    """A process that takes tasks until None: (instances, point, pass). Without a point it counts."""
    theatre = None
    try:
        for instances, point, k in iter(tasks.get, None):
            began = time.monotonic()
            try:
                theatre = theatre or Theatre(*size)
                what = theatre.count(instances) if point is None else theatre.die(instances, point, k)
                trouble = None
            except Exception as e:  # a mistake of this program is a failure, too
                text = str(e) if isinstance(e, Failed) else "".join(traceback.format_exception(e)[-6:])
                what, trouble = None, text + "\n" + (theatre.s.log_tails() if theatre else "")
            results.put((instances, point, k, what, trouble, time.monotonic() - began))
    finally:
        if theatre:
            theatre.s.close()


def later_passes(count):
    """Which passes besides the first one are worth a death."""
    return sorted(k for k in {count // 2, count - 1} if k > 1)


def name_of(instances, point, k):
    return f"{point}, pass {k}" + (", two of each" if instances == 2 else "")


def count_all(ways, tasks, results):
    """The stories without a death. Answers {instances: {point: passes}} and the failures' texts."""
    for instances in ways:
        tasks.put((instances, None, 0))
    counts, failures = {}, []
    for _ in ways:
        instances, _, _, passed, trouble, _ = results.get()
        counts[instances] = passed or {}
        if trouble:
            failures.append(f"the story without a death, {instances} of each\n{trouble}")
    for instances in ways:
        missed = [p for p in declared() if p not in counts[instances] and p not in NOT_PASSED]
        if missed:
            failures.append(f"points that the story does not pass, {instances} of each: {', '.join(missed)}")
    return counts, failures


def run_all(plan, tasks, results):
    """Answers (equal, not reached, failures)."""
    for task in plan:
        tasks.put(task)
    same, not_reached, failures = 0, [], []
    for _ in plan:
        instances, point, k, reached, trouble, seconds = results.get()
        name = name_of(instances, point, k)
        if trouble is None and not reached and k == 1:
            trouble = "nobody came by"
        if trouble:
            failures.append(f"{name}\n{trouble}")
            print(f"FAILED  {name} ({seconds:.1f} s)\n        " + trouble.replace("\n", "\n        "), flush=True)
        elif reached:
            same += 1
            print(f"ok      {name} ({seconds:.1f} s)", flush=True)
        else:
            not_reached.append(name)
    return same, not_reached, failures


def build():
    done = subprocess.run(["make", "-s", "-j2", "CRASH=1", f"BUILD={harness.BUILD}", "all",
                           os.path.join(harness.BUILD, "tests", "uf-sim")], cwd=ROOT, check=False)
    if done.returncode != 0:
        sys.exit("the build with crash points failed")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--lanes", type=int, default=4)
    args = parser.parse_args()
    began = time.monotonic()
    build()
    template = tempfile.mkdtemp(prefix="uf-pg-", dir="/tmp")
    os.chmod(template, 0o755)
    if harness.AS_ROOT:
        shutil.chown(template, "postgres", "postgres")
    tasks, results = multiprocessing.Queue(), multiprocessing.Queue()
    lanes = []
    try:
        os.environ["UF_E2E_PG_TEMPLATE"] = harness.postgres_template(os.path.join(template, "data"))
        ways = (1,) if args.short else (1, 2)
        lanes = [multiprocessing.Process(target=lane, args=(SHORT if args.short else LONG, tasks, results))
                 for _ in range(args.lanes)]
        for p in lanes:
            p.start()
        counts, failures = count_all(ways, tasks, results)
        for failure in failures:
            print("FAILED  " + failure)
        plan = [(n, point, k) for n in ways for point, count in sorted(counts[n].items()) if args.only in point
                for k in [1] + ([] if args.short else later_passes(count // n))]
        same, not_reached, more = run_all(plan, tasks, results)
        for _ in lanes:
            tasks.put(None)
        for p in lanes:
            p.join(30)
    finally:
        for p in lanes:
            p.kill()
        shutil.rmtree(template, ignore_errors=True)
    failures += more
    if not_reached:
        print(f"not reached, since the death before took another course: {'; '.join(not_reached)}")
    print(f"{len(declared())} points, {len(plan)} runs with a death, {len(plan) - len(not_reached)} died there, "
          f"{same} ended equal to the ledger; {time.monotonic() - began:.0f} s")
    passed = same + len(ways) - len([f for f in failures if f.startswith("the story")])
    print(f"{passed} passed, {len(failures)} failed")
    return 0 if not failures else 1


if __name__ == "__main__":
    sys.exit(main())
