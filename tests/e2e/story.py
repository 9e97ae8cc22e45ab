"""A story: tests of one stack, each of which goes on where the one before it ended."""

import contextlib
import time

TESTS = []


def test(name):
    """Registers a function of the stack as the next test."""
    def register(function):
        TESTS.append((name, function))
        return function
    return register


def indented(text):
    return "        " + text.strip().replace("\n", "\n        ")


def run(s, trouble, needed):
    """Answers (passed, failed). The first `needed` tests have to pass: what follows one of them that failed makes no
    sense, and is counted as one failure each. `trouble(s)`: what to show after a failure, as text."""
    passed = failed = 0
    for number, (name, function) in enumerate(TESTS):
        began = time.monotonic()
        try:
            function(s)
            passed += 1
            print(f"ok      {name}  ({time.monotonic() - began:.1f} s)", flush=True)
        except Exception as e:  # pylint: disable=broad-except
            failed += 1
            print(f"FAILED  {name}  ({time.monotonic() - began:.1f} s)\n{indented(f'{type(e).__name__}: {e}')}", flush=True)
            with contextlib.suppress(Exception):
                print(indented(trouble(s)), flush=True)
            if number < needed:
                return passed, len(TESTS) - passed
    return passed, failed
