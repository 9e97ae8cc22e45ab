"""What the stages tell of themselves: as many as there are, and the figures that the runs have."""

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time

import zmq

from harness import BIN, Stack, check, equal, free_endpoints, matches, wait_for
from pulses import Pulses
from runner import shared, stack, test

ACCOUNTS = 12


def whole():
    s = Stack(sim={"accounts": ACCOUNTS, "density": "NORMAL"})
    s.start_all(fetcher=3, writer=2, scheduler={"UF_LEASE": "60s"})
    s.add_accounts(range(ACCOUNTS))
    return s


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
        equal(total(heard, "pages_unchanged_total"), 0, "pages passed over, while nothing is known")
        equal(total(heard, "pages_normalized_total"), pages, "pages normalized")
        equal(total(heard, "pages_written_total", "committed"), pages, "pages written")
        equal(total(heard, "pages_acked_total", "committed"), pages, "pages acknowledged")
        for change, n in (("inserted", inserted), ("updated", updated), ("removed", removed), ("unchanged", unchanged)):
            equal(total(heard, "rows_total", change), n, f"rows {change}")
        equal(total(heard, "records_made_total"), inserted + updated + unchanged, "records made")
        equal(total(heard, "fetched_bytes_total"), total(heard, "normalized_bytes_total"), "bytes fetched and normalized")
        equal(total(heard, "jobs_settled_total", "done"), total(heard, "jobs_sent_total"), "jobs sent and settled")
        equal(total(heard, "jobs_settled_total", "lost"), 0, "jobs lost")
        s.run()
        same = s.run()["pages_unchanged"]
        check(same > ACCOUNTS * 8, f"{same} pages unchanged: too few to prove anything")
        wait_for("pulses that tell of them", lambda: total(pulses.listen(), "pages_unchanged_total") == same, 10)
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


@test("pulse: usagectl top and status name every process, in 80 columns")
def _():
    s = shared(whole)
    top = s.usagectl("top").out
    status = s.usagectl("status").out
    with Pulses(s) as pulses:
        heard = pulses.listen()
    for text, what in ((top, "top"), (status, "status")):
        wide = [line for line in text.splitlines() if len(line) > 80]
        check(not wide, f"{what}: lines of more than 80 columns: {wide}")
        check("\033" not in text, f"{what}: colours or cursor movements, and no terminal")
    for name in heard:
        matches(rf"(?m)^{heard[name]['stage']} +{name} .* 0 +0$", top, "top")
    requests = total(heard, "requests_total", "ok")
    matches(rf"requests: {requests:,} ok; \d+ ms each", top, "top")
    matches(rf"rows: {total(heard, 'rows_total', 'inserted'):,} new", top, "top")
    matches("processes  1 scheduler, 3 fetchers, 1 normalizer, 2 writers", status, "status")


class Terminal:
    """usagectl top on a terminal of 80 x 24."""

    def __init__(self, s):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
            os.chdir(s.folder)
            os.execve(os.path.join(BIN, "usagectl"), ["usagectl", "top"], {**s.stage_env("usagectl"), "TERM": "xterm"})
        self.seen = b""

    def screen(self):
        """The newest whole picture: what lies between the last two jumps to the upper left."""
        with contextlib.suppress(OSError):  # it has ended
            while select.select([self.fd], [], [], 0)[0]:
                self.seen += os.read(self.fd, 65536)
        pictures = self.seen.split(b"\033[H")
        return pictures[-2].decode().replace("\033[K\r\n", "\n").replace("\033[K\033[J", "") if len(pictures) > 2 else ""

    def end(self):
        os.kill(self.pid, signal.SIGINT)
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self.screen()
        os.close(self.fd)
        return code


@test("pulse: a stage that stops is gone at once, one that is killed after half a minute, live on a terminal")
def _():
    with stack() as s:
        s.start_all(normalizer=2)
        killed, stopped = s.of("normalizer")
        terminal = Terminal(s)
        wait_for("two normalizers", lambda: len(re.findall("(?m)^normalizer +normalizer-", terminal.screen())) == 2)
        equal(stopped.stop(), 0, "exit status")
        wait_for("one of them gone", lambda: f"normalizer-{stopped.pid}-" not in terminal.screen(), 12)
        check(f"normalizer-{killed.pid}-" in terminal.screen(), "the other one is not there")
        killed.kill()
        wait_for("the silence of the killed one", lambda: re.search(
            f"normalizer-{killed.pid}-.* silent [5-9]s", terminal.screen()), 12)
        with Pulses(s) as pulses:
            heard = pulses.listen()
            equal(sorted(p["stage"] for p in heard.values()), ["fetcher", "scheduler", "writer"], "who is heard")
        matches("1 scheduler, 1 fetcher, NO normalizer, 1 writer", s.usagectl("status").out, "status")
        matches("normalizer  none is heard: is uf-normalizer running", s.usagectl("top").out, "top")
        wait_for("the killed one gone", lambda: f"normalizer-{killed.pid}-" not in terminal.screen(), 32)
        new = s.start("normalizer")
        wait_for("a new one", lambda: f"normalizer-{new.pid}-" in terminal.screen(), 10)
        lines = terminal.screen().split("\n")
        check(len(lines) <= 24 and all(len(line) <= 80 for line in lines), f"a picture of more than 80 x 24: {lines}")
        equal(terminal.end(), 0, "exit status of top after Ctrl-C")
        check(terminal.seen.startswith(b"\033[?1049h") and b"\033[?1049l" in terminal.seen, "the terminal is not given back")
        s.stop_all()
        done = s.usagectl("top", code=111)
        matches("no process is heard at UF_PULSE=ipc://.*/run/pulse", done.err, "top without any process")


@test("pulse: Postgres away shows, and Postgres back")
def _():
    with stack() as s:
        s.start_all()
        s.postgres.stop()
        wait_for("the scheduler's word", lambda: "POSTGRES IS AWAY, says scheduler" in s.usagectl("top").out)
        s.postgres.start()
        wait_for("Postgres back", lambda: "POSTGRES IS AWAY" not in s.usagectl("top").out)
        s.stop_all()


@test("pulse: over TCP every instance of a scaled stage is heard, and a listener that hangs delays nobody")
def _():
    with stack(env={"UF_ALLOW_PLAINTEXT": "1"}) as s:
        binds = free_endpoints(5)
        for n in range(2):
            s.start("fetcher", UF_PULSE=binds[n])
        s.start_all(scheduler={"UF_PULSE": binds[2]}, fetcher=0, normalizer={"UF_PULSE": binds[3]},
                    writer={"UF_PULSE": binds[4]})
        context = zmq.Context()
        hung = context.socket(zmq.SUB)  # takes nothing
        hung.setsockopt(zmq.RCVHWM, 1)
        hung.setsockopt(zmq.SUBSCRIBE, b"")
        for one in binds:
            hung.connect(one)
        top = s.usagectl("top", env={"UF_PULSE": ",".join(binds)}).out
        equal(re.findall("(?m)^([a-z]+) +[a-z]+-[0-9]+-", top), ["scheduler", "fetcher", "fetcher", "normalizer", "writer"],
              "stages that are heard")
        s.stop_all()
        hung.close(0)
        context.term()


@test("pulse: usagectl alive hears the process beside it, not one that hangs, and needs no key for that")
def _():
    with stack() as s:
        env = {"UF_PULSE": f"ipc://{s.folder}/run/pulse,tcp://*:{free_endpoints(1)[0].rsplit(':', 1)[1]}"}
        normalizer = s.start("normalizer", UF_ALLOW_PLAINTEXT="1", **env)
        s.wait_ready(normalizer)
        began = time.monotonic()
        equal(s.usagectl("alive", env=env).out, "alive\n", "beside a process at work")
        check(time.monotonic() - began < 3, "usagectl alive waits longer than a pulse takes")
        normalizer.pause()
        time.sleep(0.2)
        equal(s.usagectl("alive", env=env, code=1).out, "nothing is heard\n", "beside one that hangs")
        normalizer.resume()
        equal(s.usagectl("alive", env=env).out, "alive\n", "when it goes on")
        s.stop_all()
