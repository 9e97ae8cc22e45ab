"""A fetcher and a writer in one, without a provider and without rows: each job takes a fixed time and brings what was there.

What is measured with it is the scheduler alone: in which order, how many at once and how evenly its jobs come.
"""

import collections
import glob
import heapq
import os
import threading
import time

import msgpack
import zmq

NO_DIGEST = bytes(16)


class Stub:
    """Asks for `capacity` jobs and settles each after `answer_s`, `spread_s` more or less, in a thread of its own. It first reads
    nothing for `asleep_s`, and gives a sign of life every `beat_s`."""

    def __init__(self, run_dir, capacity, answer_s, spread_s=0, asleep_s=0, beat_s=1):
        self.run_dir, self.capacity, self.answer_s, self.spread_s = run_dir, capacity, answer_s, spread_s
        self.asleep_s, self.beat_s = asleep_s, beat_s
        self.beats = 0
        self.came = []  # (when, account), monotonic, as the jobs came
        self.firsts = {}  # account: when its first job came
        self.most = 0  # that it has held at once
        self.kept = set()  # accounts whose jobs are not settled before they are taken out of here
        self.error = None
        self._held = collections.Counter()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join(10)

    def _run(self):
        context = zmq.Context()
        jobs, acks = context.socket(zmq.DEALER), context.socket(zmq.ROUTER)
        try:
            jobs.setsockopt(zmq.ROUTING_ID, b"stub")
            acks.setsockopt(zmq.ROUTER_MANDATORY, 1)
            for socket, link in ((jobs, "jobs"), (acks, "acks")):
                socket.setsockopt(zmq.LINGER, 0)
                socket.set_hwm(1 if self.asleep_s else 0)
                for path in glob.glob(os.path.join(self.run_dir, link, "*.sock")):
                    socket.connect("ipc://" + path)
            self._serve(jobs, acks)
        except Exception as e:  # told by whoever waits for the jobs
            self.error = e
        finally:
            jobs.close()
            acks.close()
            context.term()

    def _serve(self, jobs, acks):
        waiting, beat, count = [], 0, 0
        if self.asleep_s:
            beat = self._beat(jobs)
            time.sleep(self.asleep_s)
        while not self._stop.is_set():
            now = time.monotonic()
            if now >= beat:
                beat = self._beat(jobs)
            if jobs.poll(5):
                while jobs.poll(0):
                    job = msgpack.unpackb(jobs.recv())
                    now = time.monotonic()
                    self.came.append((now, job[7]))
                    self.firsts.setdefault(job[7], now)
                    count += 1
                    spread_s = self.spread_s * (count * 37 % 200 / 100 - 1)  # 37: neighbours are far apart
                    heapq.heappush(waiting, (now + self.answer_s + spread_s, count, job))
            self.most = max(self.most, len(waiting))
            again = []
            while waiting and waiting[0][0] <= time.monotonic():
                entry = heapq.heappop(waiting)
                if entry[2][7] in self.kept:
                    again.append(entry)
                else:
                    self._settle(jobs, acks, entry[2])
            for entry in again:
                heapq.heappush(waiting, entry)

    def _beat(self, jobs):
        """Answers when the next one is due."""
        jobs.send(msgpack.packb([2, 2, "stub", self.capacity, []]))
        self.beats += 1
        return time.monotonic() + self.beat_s

    @staticmethod
    def _settle(jobs, acks, job):
        job_id, scheduler, windows = job[2], job[3], job[12]
        now = int(time.time() * 1e6)
        jobs.send(msgpack.packb([2, 3, job_id, [[i, 0, 1, now, 1, 0, 200, 0, None, []] for i in range(len(windows))]]))
        acks.send_multipart([scheduler, msgpack.packb(
            [2, 6, [[job_id, i, 0, 0, now, 0, 0, 0, 9, None, NO_DIGEST] for i in range(len(windows))]])])


def fill_ledger(cursor, accounts, feeds, scattered=False):
    """Accounts of these feeds each, read up to a while ago, all due: what an outage of six hours leaves. `account-1` first,
    `account-2` next, and so on, or in an order that is not that of their ids."""
    place = "n::bigint * 7919 % 900000" if scattered else "n"
    for statement in (
            "SET session_replication_role = replica",  # the rows refer to accounts that are there
            f"INSERT INTO accounts (account_id, name, provider, base_url, key_ciphertext, key_hint, next_due) "
            f"SELECT n, 'account-' || n, 'openai', 'https://api.openai.com/v1', decode(repeat('5a', 80), 'hex'), 'sk-', "
            f"now() - interval '6 hours' + {place} * interval '1 ms' FROM generate_series(1, {accounts}) AS n",
            f"INSERT INTO account_feeds (account_id, feed, complete_from, watermark, bucket_seconds, next_due, last_attempt_at, "
            f"last_success_at, last_error, audited_3d_at, audited_30d_at) SELECT n, feed, now() - interval '9 days', "
            f"now() - interval '7 hours', CASE feed WHEN 'costs' THEN 86400 ELSE 3600 END, now() - interval '6 hours', "
            f"now() - interval '7 hours', now() - interval '7 hours', 'ok', now() - interval '7 hours', now() - interval '7 hours' "
            f"FROM generate_series(1, {accounts}) AS n, unnest('{{{','.join(feeds)}}}'::text[]) AS feed "
            "ORDER BY n",  # together in the table, as one settlement writes them
            "SET session_replication_role = origin", "VACUUM ANALYZE accounts", "VACUUM ANALYZE account_feeds"):
        cursor.execute(statement)
