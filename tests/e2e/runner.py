"""Tests by name, stacks that several tests share, and what is printed of both."""

import contextlib
import sys
import time
import traceback

from harness import Failed, Stack

TESTS = []
_shared = {}


def test(name, allow=()):
    """Registers a function as a test. `allow`: patterns of error lines that belong to it."""
    def register(function):
        TESTS.append((name, function, tuple(allow)))
        return function
    return register


def shared(make):
    """The stack that `make` made, one for all tests that ask; a failed test ends it."""
    if make not in _shared:
        _shared[make] = make()
    return _shared[make]


@contextlib.contextmanager
def stack(make=Stack, **settings):
    """A stack for one test alone."""
    s = make(**settings)
    _shared[id(s)] = s
    try:
        yield s
        _check_logs(s)
    except BaseException as e:
        if not hasattr(e, "tails"):
            e.tails = s.log_tails()
        raise
    finally:
        del _shared[id(s)]
        s.close()


_allow = ()


def _check_logs(s):
    lines = s.error_lines(_allow)
    if lines:
        raise Failed("unexpected error lines in the logs:\n  " + "\n  ".join(lines[:10]))


def _run_one(name, function, allow):
    global _allow
    _allow = allow
    began = time.monotonic()
    try:
        function()
        for s in _shared.values():
            _check_logs(s)
        print(f"ok      {name}  ({time.monotonic() - began:.1f} s)", flush=True)
        return True
    except Exception as e:  # a test's own mistake is a failed test, too
        print(f"FAILED  {name}  ({time.monotonic() - began:.1f} s)")
        text = str(e) if isinstance(e, Failed) else "".join(traceback.format_exception(e)[-6:])
        where = [f for f in traceback.extract_tb(e.__traceback__) if "/e2e/test_" in f.filename]
        if where:
            print(f"        at {where[-1].filename.rsplit('/', 1)[-1]}:{where[-1].lineno}: {where[-1].line}")
        print("        " + text.replace("\n", "\n        "))
        tails = getattr(e, "tails", None) or "\n".join(s.log_tails() for s in _shared.values())
        print("        " + tails.replace("\n", "\n        "), flush=True)
        _close_shared()
        return False


def _stop_shared():
    for s in _shared.values():
        s.stop_all()


def _close_shared():
    for s in list(_shared.values()):
        s.close()
    _shared.clear()


def run(only=None):
    """Runs what was registered; answers (passed, failed)."""
    passed = failed = 0
    try:
        for name, function, allow in TESTS:
            if only and only not in name:
                continue
            if _run_one(name, function, allow):
                passed += 1
            else:
                failed += 1
        if any(s.of() for s in _shared.values()):
            good = _run_one("stop: each stage that the tests shared ends with 0 (under sanitizers: without a leak)", _stop_shared, ())
            passed, failed = passed + good, failed + (not good)
    finally:
        _close_shared()
    return passed, failed


def main_of_module(module, only):
    sys.modules.setdefault(module, __import__(module))
    passed, failed = run(only)
    print(f"{passed} passed, {failed} failed")
    return 0 if failed == 0 else 1
