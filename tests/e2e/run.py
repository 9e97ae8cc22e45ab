#!/usr/bin/python3
"""End to end: every tests/e2e/test_*.py, each in a process of its own, a few at a time.

usage: run.py [--only WORDS] [--jobs N] [MODULE ...]
WORDS: part of a test's name. Last line: N passed, N failed.
"""

import argparse
import glob
import os
import re
import subprocess
import sys
import tempfile
import shutil
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
MODULE_LIMIT_S = 900  # the longest takes two minutes on an idle machine, and seven on a busy one
FIRST = ("test_network", "test_pipeline", "test_commits", "test_crash", "test_clocks", "test_fetching", "test_cycle", "test_run")  # they take longest


def modules(chosen):
    names = sorted(os.path.basename(p)[:-3] for p in glob.glob(os.path.join(HERE, "test_*.py")))
    unknown = [c for c in chosen if c not in names]
    if unknown:
        sys.exit(f"run.py: no such module: {', '.join(unknown)}; there are: {', '.join(names)}")
    return list(chosen) or sorted(names, key=lambda n: FIRST.index(n) if n in FIRST else len(FIRST))


def run_many(names, only, jobs, logs):
    """Starts at most `jobs` modules at once; answers [passed, failed]."""
    waiting, running, counts = list(names), {}, [0, 0]
    while waiting or running:
        while waiting and len(running) < jobs:
            name = waiting.pop(0)
            log = open(os.path.join(logs, f"e2e-{name}.log"), "w+", encoding="utf-8", errors="replace")
            argv = [sys.executable, os.path.abspath(__file__), "--child", name] + (["--only", only] if only else [])
            running[name] = (subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log), log, time.monotonic())
        time.sleep(0.05)
        for name, (child, log, began) in list(running.items()):
            if child.poll() is None:
                if time.monotonic() - began > MODULE_LIMIT_S:
                    child.kill()
                continue
            del running[name]
            log.seek(0)
            text = log.read()
            log.close()
            last = re.search(r"^(\d+) passed, (\d+) failed\n\Z", text, re.M)
            print(f"== {name} ({time.monotonic() - began:.0f} s)")
            print(text[: last.start()] if last else text, end="", flush=True)
            if last:
                counts[0] += int(last[1])
                counts[1] += int(last[2])
            else:
                counts[1] += 1
                print(f"FAILED  {name} ended with {child.returncode} before its last test")
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only")
    parser.add_argument("--jobs", type=int, default=int(os.environ.get("UF_E2E_JOBS", "3")))
    parser.add_argument("--child")
    parser.add_argument("modules", nargs="*")
    args = parser.parse_args()
    if args.child:
        import runner
        return runner.main_of_module(args.child, args.only)

    import harness
    logs = os.path.join(harness.BUILD, "test-logs")
    os.makedirs(logs, exist_ok=True)
    template = tempfile.mkdtemp(prefix="uf-pg-", dir="/tmp")
    os.chmod(template, 0o755)
    if harness.AS_ROOT:
        shutil.chown(template, "postgres", "postgres")
    try:
        os.environ["UF_E2E_PG_TEMPLATE"] = harness.postgres_template(os.path.join(template, "data"))
        passed, failed = run_many(modules(args.modules), args.only, args.jobs, logs)
    finally:
        shutil.rmtree(template, ignore_errors=True)
    if passed + failed == 0:
        failed = 1
    print(f"{passed} passed, {failed} failed")
    return 0 if failed == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
