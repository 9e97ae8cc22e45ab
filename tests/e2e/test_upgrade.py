"""Two versions of the messages side by side, as in an upgrade: the neighbours refuse each other's, say what to
do, and nothing is lost."""

import json

from harness import BIN, NEXT, STAGES, check, equal, wait_for
from runner import stack, test

ACCOUNTS = range(12)


def refusals(process):
    """What it refused of another version, in its own words."""
    lines = [json.loads(line) for line in process.text().splitlines() if "this program speaks version" in line]
    for line in lines:
        equal(line["level"], "warn", "the level of a refusal")
        words = line.get("error") or line.get("reason")
        check("upgrade the older" in words, f"a refusal that does not say what to do: {words}")
    return lines


def untouched(s):
    equal(s.value("SELECT count(*) FROM usage_metrics"), 0, "rows")
    equal(s.value("SELECT count(*) FROM dead_letters"), 0, "dead letters")
    equal(s.value("SELECT count(*) FROM account_feeds WHERE watermark IS NOT NULL"), 0, "watermarks")


# One stage of another version, and who then refuses what it hears.
@test("upgrade: a stage of another version among others: refused with a warning, nothing stored, nothing lost")
def _():
    for odd, refuses in (("scheduler", "scheduler"), ("fetcher", "scheduler"), ("normalizer", "normalizer"), ("writer", "writer")):
        with stack(sim={"accounts": 3, "density": "SMALL"}, env={"UF_BACKFILL": "2d", "UF_LEASE": "3s"}) as s:
            for stage in STAGES:
                s.wait_ready(s.start(stage, folder=NEXT if stage == odd else BIN))
            s.add_accounts(range(3))
            asked = s.background_usagectl("run", "--wait")
            wait_for(f"a refusal by the {refuses}, when the {odd} is newer", lambda: refusals(s.one(refuses)), 15)
            untouched(s)
            equal(s.one(odd).stop(), 0, f"exit status of the newer {odd}")
            s.wait_ready(s.start(odd))
            equal(asked.ended(60), 0, "usagectl run --wait, which was asked before")
            s.run()
            s.compare(range(3))
            equal(s.value("SELECT count(*) FROM dead_letters"), 0, "dead letters")
            s.stop_all()


@test("upgrade: one process after the other under load, and back again: the table is exact after each")
def _():
    with stack(sim={"accounts": len(ACCOUNTS), "density": "NORMAL"}, env={"UF_BACKFILL": "3d", "UF_LEASE": "4s"}) as s:
        s.start_all(**{stage: 2 for stage in STAGES})
        s.add_accounts(ACCOUNTS)
        for order, folder, first in ((STAGES, NEXT, "scheduler"), (STAGES[::-1], BIN, "fetcher")):
            s.sim.fault(do="nothing", delay_ms=100)  # so that there is always something on its way
            for stage in order:
                for old in s.of(stage):
                    s.usagectl("run")
                    equal(old.stop(), 0, f"exit status of {old.name}")
                    s.wait_ready(s.start(stage, folder=folder))
                    s.sim.restate(3, "completions", s.sim.last_hour(), "add")
                if stage == first:  # from here on schedulers and fetchers differ
                    wait_for("a refusal", lambda: any(refusals(p) for p in s.of("scheduler")), 15)
            s.sim.clear_faults()
            s.run()
            s.compare(ACCOUNTS)
        equal(s.value("SELECT count(*) FROM dead_letters"), 0, "dead letters")
        s.stop_all()
