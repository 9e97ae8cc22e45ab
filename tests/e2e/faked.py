"""A clock that a process is told, and that can be set while it runs: Debian's faketime."""

import glob
import os

from harness import check

FAKETIME = (sorted(glob.glob("/usr/lib/*/faketime/libfaketime.so.1")) or [None])[0]


def clock(s, offset):
    """An environment in which the host's clock is off by what the file says, and can be set while the process runs."""
    check(FAKETIME, "Debian's faketime is not installed")
    path = os.path.join(s.folder, "clock")
    set_clock(path, offset)
    return path, {"LD_PRELOAD": FAKETIME, "FAKETIME_TIMESTAMP_FILE": path, "FAKETIME_CACHE_DURATION": "1",
                  "FAKETIME_DONT_FAKE_MONOTONIC": "1", "ASAN_OPTIONS": "verify_asan_link_order=0"}


def set_clock(path, offset):
    with open(path + ".new", "w", encoding="ascii") as f:
        f.write(offset + "\n")
    os.rename(path + ".new", path)
