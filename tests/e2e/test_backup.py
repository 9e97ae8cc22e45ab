"""The way back from a backup, as docs/operations.md describes it."""

import os
import subprocess

from harness import PG_BIN, check, equal, wait_for
from runner import stack, test

ACCOUNTS = range(8)


def postgres_tool(s, name, *args):
    done = subprocess.run([f"{PG_BIN}/{name}", *args], env={"PATH": "/usr/bin:/bin"}, cwd=s.folder, timeout=60, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    check(done.returncode == 0, f"{name}: status {done.returncode}\n{done.stdout.decode()[-2000:]}")


@test("backup: a dump taken in the middle of a cycle, restored hours later: the next cycle makes the table exact")
def _():
    with stack(sim={"accounts": 6, "anthropic": 2, "density": "NORMAL"}, env={"UF_BACKFILL": "3d"}) as s:
        s.start_all(fetcher=2)
        s.add_accounts(ACCOUNTS)
        s.run()
        s.wait_backfill()

        s.sim.advance(2 * 3600)
        s.sim.fault(do="nothing", delay_ms=300)
        asked = s.background_usagectl("run", "--wait")
        wait_for("a lease that is out", lambda: s.value("SELECT count(*) > 0 FROM accounts WHERE lease_until IS NOT NULL"))
        dump = os.path.join(s.folder, "usage.dump")
        postgres_tool(s, "pg_dump", "-Fc", "-f", dump, s.postgres.url("uf"))
        check(asked.alive(), "the cycle was over before the dump")
        equal(asked.ended(60), 0, "the cycle during which it was taken")
        s.sim.clear_faults()

        s.sim.advance(5 * 3600)  # what comes after the dump is lost with the database
        s.sim.restate(1, "completions", s.sim.last_hour(), "add")
        s.run()
        s.compare(ACCOUNTS)
        rows = s.value("SELECT count(*) FROM usage_metrics")
        s.stop_all()
        s.connection.close()
        postgres_tool(s, "dropdb", "-h", s.postgres.folder, "-U", "uf", "uf")
        postgres_tool(s, "createdb", "-h", s.postgres.folder, "-U", "uf", "uf")
        postgres_tool(s, "pg_restore", "--exit-on-error", "-d", s.postgres.url("uf"), dump)
        check(s.value("SELECT count(*) FROM usage_metrics") < rows, "the dump has what came after it")

        s.usagectl("migrate")
        s.start_all(fetcher=2)
        s.usagectl("doctor", code=None)
        s.run()
        s.wait_backfill()
        s.compare(ACCOUNTS)
        s.usagectl("doctor")
        s.stop_all()
