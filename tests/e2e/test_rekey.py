"""usagectl rekey: a new ENCRYPTION_KEY while everything goes on, stopped in the middle, run again (docs/security.md)."""

import contextlib
import hashlib
import os
import threading

import psycopg2

from harness import Failed, check, equal, matches, wait_for
from runner import stack, test

ACCOUNTS = range(12)
MANY = 700  # further accounts, so that there are several batches; nobody reads them


def key_file(s, name):
    path = os.path.join(s.folder, name)
    with open(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600), "w", encoding="ascii") as f:
        f.write(f'"{os.urandom(32).hex()}" \n')  # quotes and blanks, as a file of settings may leave them
    return path


def key_id(path):
    with open(path, encoding="ascii") as f:
        return hashlib.sha256(b"usage-fetcher key id" + bytes.fromhex(f.read().strip().strip('"'))).digest()[:4]


def sealed_with(s, path):
    return s.value("SELECT count(*) FROM accounts WHERE substring(key_ciphertext FROM 2 FOR 4) = %s", psycopg2.Binary(key_id(path)))


class Cycles(threading.Thread):
    """One run after the other, each waited for."""

    def __init__(self, s):
        super().__init__(daemon=True)
        self.s, self.stopping, self.n, self.failure = s, threading.Event(), 0, None

    def run(self):
        while not self.stopping.is_set():
            try:
                self.s.usagectl("run", "--wait")  # status 0: no account failed
                self.n += 1
            except Failed as e:
                self.failure = e
                return

    def whole(self):
        """Waits until one that began from now on is over."""
        wanted = self.n + 2
        wait_for("a cycle", lambda: self.n >= wanted or self.failure, 60)
        if self.failure:
            raise self.failure

    def stop(self):
        self.stopping.set()
        self.join(60)
        if self.failure:
            raise self.failure


def many_more(s):
    path = os.path.join(s.folder, "many.csv")
    with open(path, "w", encoding="ascii") as f:
        f.writelines(f"idle-{n:04d},sk-admin-idle-{n:020d}\n" for n in range(MANY))
    s.usagectl("account", "add", "--from-file", path, "--provider", "openai", "--base-url", s.sim.base_url)
    s.sql("UPDATE accounts SET enabled = false WHERE name LIKE 'idle-%%'")


def fetchers_with(s, **env):
    """A rolling restart: the new one is there before the old one goes."""
    old = s.of("fetcher")
    s.wait_ready(s.start("fetcher", **env))
    for p in old:
        equal(p.stop(), 0, f"exit status of {p.name}")


@test("rekey: under load, killed in the middle, run again; accounts added meanwhile; no account ever fails")
def _():
    with stack(sim={"accounts": len(ACCOUNTS) + 2, "density": "NORMAL"}, env={"UF_BACKFILL": "2d"}) as s:
        old, new = s.key_file, key_file(s, "new.key")
        s.start_all(fetcher=2)
        s.add_accounts(ACCOUNTS)
        many_more(s)
        cycles = Cycles(s)
        cycles.start()
        cycles.whole()
        fetchers_with(s, ENCRYPTION_KEY_FILE=new, ENCRYPTION_KEY_OLD_FILE=old)
        both = {"ENCRYPTION_KEY_FILE": new, "ENCRYPTION_KEY_OLD_FILE": old}
        matches(f"{len(ACCOUNTS) + MANY} accounts are still sealed with ENCRYPTION_KEY_OLD: usagectl rekey",
                s.usagectl("doctor", code=1, env=both).out, "doctor")

        # It waits for a row of a later batch, and is killed there.
        with contextlib.closing(psycopg2.connect(s.postgres.url("uf"))) as holder:
            holder.cursor().execute("SELECT 1 FROM accounts WHERE name = 'idle-0500' FOR UPDATE")
            killed = s.background_usagectl("rekey", env=both)
            wait_for("the second batch", lambda: sealed_with(s, new) >= 200, 20)
            killed.kill()
            holder.rollback()
        cycles.whole()
        half = sealed_with(s, new)
        check(0 < half < len(ACCOUNTS) + MANY, f"{half} are sealed with the new key")

        s.add_accounts([len(ACCOUNTS)], hold=False)  # by somebody who does not know the new key yet
        done = s.usagectl("rekey", env=both)
        total = len(ACCOUNTS) + MANY + 1
        matches(f"^{total - half} accounts sealed anew; {total} of {total} are", done.out, "the second run")
        matches(f"^0 accounts sealed anew; {total} of {total} are", s.usagectl("rekey", env=both).out, "a third run")
        equal((sealed_with(s, old), sealed_with(s, new)), (0, total), "accounts by key")
        cycles.whole()
        cycles.stop()

        s.key_file = new
        fetchers_with(s)
        s.add_accounts([len(ACCOUNTS) + 1])
        s.run()
        s.compare(range(len(ACCOUNTS) + 2))
        equal(s.sql("SELECT name, feed, last_error FROM account_feeds JOIN accounts USING (account_id) WHERE consecutive_failures > 0"), [],
              "feeds that failed")
        equal(s.value("SELECT sum(accounts_failed) FROM fetch_runs"), 0, "accounts that failed in any run")
        s.stop_all()


@test("rekey: a key rotated meanwhile stays; what no key opens is said, and is not touched")
def _():
    with stack(sim={"accounts": 4}) as s:
        old, new, third = s.key_file, key_file(s, "new.key"), key_file(s, "third.key")
        both = {"ENCRYPTION_KEY_FILE": new, "ENCRYPTION_KEY_OLD_FILE": old}
        s.add_accounts(range(4))
        s.usagectl("account", "rotate-key", "sim-000001", "--key-file", "-", text=s.sim.key(1), env={"ENCRYPTION_KEY_FILE": third})
        s.sql("UPDATE accounts SET key_ciphertext = set_byte(key_ciphertext, 20, get_byte(key_ciphertext, 20) # 1) WHERE name = 'sim-000002'")
        before = s.sql("SELECT name, key_ciphertext FROM accounts WHERE name IN ('sim-000001', 'sim-000002') ORDER BY 1")
        done = s.usagectl("rekey", env=both, code=1)
        matches("2 accounts sealed anew; 2 of 4 .*1 were sealed with a key that is neither.*1 do not open.*sim-000001: sealed with another",
                done.out, "what it says")
        equal([(n, bytes(c)) for n, c in s.sql("SELECT name, key_ciphertext FROM accounts WHERE name IN ('sim-000001', 'sim-000002') ORDER BY 1")],
              [(n, bytes(c)) for n, c in before], "those accounts")

        # Held up between reading and replacing, while the account gets another key.
        with contextlib.closing(psycopg2.connect(s.postgres.url("uf"))) as holder:
            s.sql("UPDATE accounts SET key_ciphertext = (SELECT key_ciphertext FROM accounts WHERE name = 'sim-000001') WHERE name = 'sim-000003'")
            s.usagectl("account", "rotate-key", "sim-000003", "--key-file", "-", text=s.sim.key(3))
            holder.cursor().execute("UPDATE accounts SET key_ciphertext = '\\x00' WHERE name = 'sim-000003'")
            slow = s.background_usagectl("rekey", env=both)
            wait_for("rekey waits", lambda: s.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'") > 0, 20)
            holder.commit()
            equal(slow.ended(30), 1, "exit status")
        equal(bytes(s.value("SELECT key_ciphertext FROM accounts WHERE name = 'sim-000003'")), b"\0", "the key that was set meanwhile")


@test("rekey: without the old key, or with the same twice, it says what is missing")
def _():
    with stack() as s:
        matches("ENCRYPTION_KEY_OLD is not set", s.usagectl("rekey", code=100).err, "without the old one")
        matches("are the same key", s.usagectl("rekey", code=100, env={"ENCRYPTION_KEY_OLD_FILE": s.key_file}).err, "the same twice")
        done = s.usagectl("rekey", env={"ENCRYPTION_KEY_OLD": "ab" * 32})
        matches("^0 accounts sealed anew; 0 of 0", done.out, "no accounts")
        bad = s.usagectl("rekey", code=100, env={"ENCRYPTION_KEY_OLD": "ab" * 31 + "a\n"})
        matches("ENCRYPTION_KEY_OLD: an encryption key is 32", bad.err, "a bad old key")
        check("abab" not in bad.err, "the key is shown")
