"""What the stages tell of themselves: as many as there are, and the figures that the runs have."""

import glob
import os
import time

import msgpack
import zmq

from harness import STAGES, Stack, check, equal, matches, wait_for
from runner import shared, stack, test

ACCOUNTS = 12


def whole():
    s = Stack(sim={"accounts": ACCOUNTS, "density": "NORMAL"})
    s.start_all(fetcher=3, writer=2, scheduler={"UF_LEASE": "60s"})
    s.add_accounts(range(ACCOUNTS))
    return s


class Pulses:
    """Subscribes as any ZeroMQ tool would; knows the newest pulse of each process."""

    def __init__(self, stack_):
        self.folder = os.path.join(stack_.folder, "run", "pulse")
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.SUB)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.SUBSCRIBE, b"")
        self.known = set()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()
        self.context.term()

    def listen(self, seconds=2.5):
        """The newest of each, {instance: pulse}; those that were heard in this time."""
        heard, end = {}, time.monotonic() + seconds
        for path in set(glob.glob(os.path.join(self.folder, "*.sock"))) - self.known:
            self.socket.connect("ipc://" + path)
            self.known.add(path)
        while (left := end - time.monotonic()) > 0:
            if not self.socket.poll(left * 1000):
                break
            version, kind, stage, instance, program, pid, started, uptime, leaving, samples = msgpack.unpackb(self.socket.recv())
            equal((version, kind), (1, 7), "version and kind of a pulse")
            heard[instance] = {"stage": stage, "version": program, "pid": pid, "started": started, "uptime_ms": uptime,
                               "leaving": leaving, "samples": {(name, *labels): value for name, labels, value in samples}}
        return heard


def total(pulses, name, *labels):
    """Summed over processes and over the labels that are not named."""
    return sum(value[-1] and sum(value[:-1]) if isinstance(value, list) else value
               for p in pulses.values() for key, value in p["samples"].items()
               if key[0] == name and set(labels) <= set(key[1:]))


@test("pulse: counters are what the run's record says")
def _():
    s = shared(whole)
    with Pulses(s) as pulses:
        s.run()
        s.wait_backfill()
        s.compare(range(ACCOUNTS), s.sim.start_now - s.reach_s)
        requests, pages, inserted, updated, removed, unchanged, jobs, runs = s.sql(
            "SELECT sum(requests)::bigint, sum(pages)::bigint, sum(rows_inserted)::bigint, sum(rows_updated)::bigint, "
            "sum(rows_removed)::bigint, sum(rows_unchanged)::bigint, sum(jobs)::bigint, count(*) FROM fetch_runs "
            "WHERE jobs > 0")[0]
        heard = wait_for("pulses that have seen the end", lambda: (
            h := pulses.listen(), total(h, "jobs_settled_total") >= jobs and total(h, "jobs_out") == 0)[1] and h)
        equal(sorted(p["stage"] for p in heard.values()),
              ["fetcher"] * 3 + ["normalizer"] + ["scheduler"] + ["writer"] * 2, "processes that are heard")
        check(requests > ACCOUNTS * 11 and inserted > 1000, f"{requests} requests, {inserted} rows: too few to prove anything")
        equal(total(heard, "requests_total"), requests, "requests")
        equal(total(heard, "requests_total", "openai", "ok"), requests, "requests that went well")
        equal(total(heard, "request_duration_seconds"), requests, "requests whose time was taken")
        equal(total(heard, "pages_fetched_total"), pages, "pages fetched")
        equal(total(heard, "pages_normalized_total"), pages, "pages normalized")
        equal(total(heard, "pages_written_total", "committed"), pages, "pages written")
        equal(total(heard, "pages_acked_total", "committed"), pages, "pages acknowledged")
        for change, n in (("inserted", inserted), ("updated", updated), ("removed", removed), ("unchanged", unchanged)):
            equal(total(heard, "rows_total", change), n, f"rows {change}")
        equal(total(heard, "records_made_total"), inserted + updated + unchanged, "records made")
        equal(total(heard, "fetched_bytes_total"), total(heard, "normalized_bytes_total"), "bytes fetched and normalized")
        equal(total(heard, "jobs_settled_total", "done"), total(heard, "jobs_sent_total"), "jobs sent and settled")
        equal(total(heard, "jobs_settled_total", "lost"), 0, "jobs lost")
        equal(total(heard, "runs_started_total", "manual"), 1, "runs asked for")
        equal(total(heard, "batches_total"), total(heard, "commit_duration_seconds", "ok"), "transactions and their times")
        equal(total(heard, "postgres_up"), 3, "processes that reach Postgres")
        equal(total(heard, "fetchers_connected"), 3, "fetchers that the scheduler hears")
        equal(total(heard, "windows_ended_total", "ok"), total(heard, "windows_ended_total"), "windows that ended well")
        for name, p in heard.items():
            process = next(q for q in s.of(p["stage"]) if q.pid == p["pid"])
            lines = process.text().count('"level":"warn"')
            equal(p["samples"][("log_lines_total", "warn")], lines, f"warnings of {name}")
            check(abs(p["started"] / 1e6 - time.time()) < 300, f"start of {name}: {p['started']}")
