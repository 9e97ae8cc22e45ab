"""The real binaries, a real Postgres and the provider simulator, in a temporary folder of their own.

A test is a function with a name:

    @test("BR-019 a failed reading leaves no hole")
    def _():
        stack = shared(default_stack)
        ...

Every test ends with the question that matters: stack.compare(), is usage_metrics equal, row for row
and digit for digit, to the simulator's ledger? A line of level "error" in any log that the test did
not announce (allow=...) fails it. Only processes started here are ever signalled, and none outlives
the run: each is told by the kernel when the harness dies.
"""

import collections
import contextlib
import csv
import ctypes
import glob
import hashlib
import hmac
import io
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import psycopg2
import zmq

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
BUILD = os.path.join(ROOT, os.environ.get("BUILD", "build"))
BIN = os.path.join(BUILD, "bin")
NEXT = os.path.join(BUILD, "next")  # the stages that speak another version of the messages
PG_BIN = (sorted(glob.glob("/usr/lib/postgresql/*/bin")) or [""])[-1]
STAGES = ("scheduler", "fetcher", "normalizer", "writer")
FEEDS = ("completions embeddings moderations images audio_speeches audio_transcriptions vector_stores "
         "code_interpreter_sessions file_search_calls web_search_calls costs").split()
ANTHROPIC_FEEDS = "messages cost_report claude_code".split()
AS_ROOT = os.getuid() == 0


def _sanitized():
    with contextlib.suppress(OSError), open(os.path.join(BIN, "uf-writer"), "rb") as f:
        return b"__asan_init" in f.read()
    return False


SANITIZED = _sanitized()
NEVER = "0 0 29 2 *"  # a schedule that leaves a test alone: cycles start when the test asks


class Failed(Exception):
    """What a test found wrong, in words."""


def check(condition, message):
    if not condition:
        raise Failed(message)


def equal(got, want, what):
    if got != want:
        raise Failed(f"{what}: got {got!r}, want {want!r}")


def matches(pattern, text, what):
    if not re.search(pattern, text, re.I | re.S):
        raise Failed(f"{what}: want something like /{pattern}/, got:\n{text[-2000:]}")


def wait_for(what, ask, seconds=30, every=0.05):
    """The first true answer of ask(), or a failure that says what never came."""
    end = time.monotonic() + seconds
    while True:
        answer = ask()
        if answer:
            return answer
        if time.monotonic() > end:
            raise Failed(f"{what}: not within {seconds} s")
        time.sleep(every)


def free_endpoints(n):
    """TCP endpoints on loopback whose ports nobody has now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    endpoints = [f"tcp://127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    return endpoints


# ---- processes ----

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def _prepare_child():
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # Whoever started the tests in the background had SIGINT ignored, and a shell can not trap that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Process:
    """A child whose output goes to a file."""

    def __init__(self, name, argv, env, log, cwd, user=None, own_group=False):
        self.name, self.log = name, log
        kwargs = {}
        if user and AS_ROOT:
            kwargs = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}
        with open(log, "ab") as out:
            self.child = subprocess.Popen(argv, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                          preexec_fn=_prepare_child, start_new_session=own_group, **kwargs)
        self.pid = self.child.pid

    def alive(self):
        return self.child.poll() is None

    def send(self, number):
        if self.alive():
            self.child.send_signal(number)

    def kill(self):
        """kill -9, as a power cut would."""
        self.send(signal.SIGKILL)
        self.child.wait(10)

    def stop(self, number=signal.SIGTERM, seconds=12):
        """Asks it to end and answers its exit status; a failure if it does not end in time."""
        self.send(number)
        return self.ended(seconds)

    def ended(self, seconds=12):
        try:
            return self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failed(f"{self.name} did not end within {seconds} s") from None

    def pause(self):
        self.send(signal.SIGSTOP)

    def resume(self):
        self.send(signal.SIGCONT)

    def text(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return f.read()


# ---- Postgres ----

def postgres_template(path):
    """A data folder made once and copied for each stack: initdb costs seconds, a copy a moment."""
    if os.path.exists(os.path.join(path, "PG_VERSION")):
        return path
    making = path + ".making"
    shutil.rmtree(making, ignore_errors=True)
    os.makedirs(making, mode=0o700)
    who = {}
    if AS_ROOT:
        shutil.chown(making, "postgres", "postgres")
        who = {"user": "postgres", "group": "postgres", "extra_groups": []}
    done = subprocess.run([f"{PG_BIN}/initdb", "-D", making, "-U", "uf", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8",
                           "--no-sync"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/", check=False, **who)
    check(done.returncode == 0, "initdb failed:\n" + done.stdout.decode())
    os.rename(making, path)
    return path


class Postgres:
    """A private server on a unix socket. Durable enough for a kill of its clients, which is what is
    tested here; fsync is off because no test cuts the power."""

    def __init__(self, folder, template):
        self.folder = folder
        self.data = os.path.join(folder, "data")
        self.log = os.path.join(folder, "postgres.log")
        os.makedirs(folder, mode=0o755)
        subprocess.run(["cp", "-a", template, self.data], check=True)
        if AS_ROOT:
            shutil.chown(folder, "postgres", "postgres")
        with open(os.path.join(self.data, "postgresql.auto.conf"), "a", encoding="utf-8") as f:
            f.write(f"listen_addresses = ''\nunix_socket_directories = '{folder}'\nfsync = off\n"
                    "full_page_writes = off\nsynchronous_commit = on\nshared_buffers = 64MB\nmax_connections = 60\n"
                    "timezone = 'UTC'\nmax_wal_size = 4GB\nautovacuum = off\n")
        self.process = None

    def start(self):
        self.process = Process("postgres", [f"{PG_BIN}/postgres", "-D", self.data], {"PATH": "/usr/bin:/bin"},
                               self.log, "/", user="postgres")
        self.wait_ready()

    def wait_ready(self):
        def ready():
            try:
                psycopg2.connect(self.url("postgres")).close()
                return True
            except psycopg2.OperationalError:
                check(self.process.alive(), "postgres ended:\n" + self.process.text()[-1000:])
                return False
        wait_for("postgres ready", ready, 30)

    def stop(self):
        if self.process and self.process.alive():
            self.process.stop(signal.SIGINT, 20)  # SIGINT: its "fast" shutdown

    def url(self, database, user="uf"):
        return f"postgresql:///{database}?host={self.folder}&user={user}"


# ---- the whole stack ----

Result = collections.namedtuple("Result", "code out err")


def changed(env, changes):
    """The environment with these names set anew; None takes a name out."""
    return {name: value for name, value in {**env, **changes}.items() if value is not None}


class Stack:
    """Temporary folder, Postgres, simulator, secrets, and any number of each stage."""

    def __init__(self, sim=None, migrate=True, env=None):
        self.folder = tempfile.mkdtemp(prefix="uf-", dir="/tmp")
        os.chmod(self.folder, 0o755)
        self.logs = os.path.join(self.folder, "logs")
        os.makedirs(self.logs)
        self.env = dict(env or {})
        self.logins = {}  # {stage: its login in Postgres}; without one, the login that owns everything
        self.reach_s = int(self.env.get("UF_BACKFILL", "7d").removesuffix("d")) * 86400
        self.processes = []
        self.counts = collections.Counter()
        self.seen = collections.Counter()  # log bytes already looked at
        self.key_file = os.path.join(self.folder, "encryption.key")
        with open(os.open(self.key_file, os.O_CREAT | os.O_WRONLY, 0o600), "w", encoding="ascii") as f:
            f.write(os.urandom(32).hex() + "\n")
        self.person_key = os.urandom(32)  # what the normalizer hashes e-mail addresses with
        self.cron_key = os.urandom(20).hex()
        self.sim = None
        self.connection = None
        self.last_output = ""
        self.postgres = self.make_postgres(os.path.join(self.folder, "pg"), os.environ["UF_E2E_PG_TEMPLATE"])
        try:
            self.postgres.start()
            with contextlib.closing(psycopg2.connect(self.postgres.url("postgres"))) as c:
                c.autocommit = True
                c.cursor().execute("CREATE DATABASE uf")
            if sim:
                self.sim = self.make_sim(self.folder, os.path.join(self.folder, "simulator.log"), **sim)
            if migrate:
                self.usagectl("migrate")
        except BaseException:
            self.close()
            raise

    # -- what a stack of another kind has elsewhere --

    def make_postgres(self, folder, template):
        return Postgres(folder, template)

    def make_sim(self, folder, log, **how):
        return Sim(folder, log, **how)

    def on_its_host(self, name):
        """What comes before a command so that it runs where this process belongs."""
        del name
        return []

    # -- environments: each process gets what it needs and nothing else --

    def base_env(self):
        env = {"PATH": "/usr/bin:/bin", "UF_RUN_DIR": os.path.join(self.folder, "run"), "TZ": "America/New_York"}
        env.update(self.env)
        return env

    def stage_env(self, stage, **more):
        env = self.base_env()
        if stage == "gateway":
            env.setdefault("CRON_API_KEY", self.cron_key)
            env.setdefault("UF_HTTP", "127.0.0.1:0")
        if stage in ("scheduler", "writer", "usagectl", "gateway"):
            env["DATABASE_URL"] = self.postgres.url("uf", self.logins.get(stage, "uf"))
        if stage in ("fetcher", "usagectl"):
            env["ENCRYPTION_KEY_FILE"] = self.key_file
        if stage == "normalizer" and self.sim and self.sim.anthropic_accounts:
            env.setdefault("UF_PERSON_KEY", self.person_key.hex())
        if stage == "writer":
            env.setdefault("UF_SUM_AFTER", "1s")
        if stage == "scheduler":
            env.setdefault("UF_SCHEDULE", NEVER)
            env.setdefault("UF_LEASE", "10s")
        return changed(env, more)

    # -- stages --

    def start(self, stage, n=1, folder=BIN, **env):
        """Starts n of a stage, from `folder`; answers the (last) process."""
        process = None
        for _ in range(n):
            self.counts[stage] += 1
            name = f"{stage}-{self.counts[stage]}"
            process = Process(name, self.on_its_host(name) + [os.path.join(folder, "uf-" + stage)], self.stage_env(stage, **env),
                              os.path.join(self.logs, name + ".log"), self.folder)
            self.processes.append(process)
        return process

    def start_all(self, **how):
        """One of each, ready; fetcher=3 starts three, fetcher={"UF_IN_FLIGHT": "9"} one with that in
        its environment, fetcher=0 none."""
        for stage in STAGES:
            wish = how.get(stage, 1)
            if isinstance(wish, dict):
                self.start(stage, **wish)
            else:
                self.start(stage, wish)
        for process in self.of():
            self.wait_ready(process)
        return self

    def wait_ready(self, process, seconds=15):
        def ready():
            check(process.alive(), f"{process.name} ended with {process.child.returncode}:\n{process.text()[-1500:]}")
            return '"stage.ready"' in process.text()
        wait_for(f"{process.name} ready", ready, seconds)

    def start_gateway(self, **env):
        """A gateway, listening; answers its process, with `port`."""
        process = self.start("gateway", **env)
        self.wait_ready(process)
        process.port = int(re.search(r'"url":"http://[^"]*:(\d+)/"', process.text())[1])
        return process

    def of(self, stage=None):
        """The living ones of a stage, or of all."""
        return [p for p in self.processes if p.alive() and (stage is None or p.name.rsplit("-", 1)[0] == stage)]

    def one(self, stage):
        found = self.of(stage)
        check(found, f"no {stage} is running")
        return found[-1]

    def stop_all(self):
        """SIGTERM to every stage together; each has to end with 0 within 10 s."""
        living = self.of()
        for p in living:
            p.resume()
            p.send(signal.SIGTERM)
        wrong = [f"{p.name}: {code}" for p in living if (code := p.ended()) != 0]
        check(not wrong, "exit status of stages after SIGTERM: " + ", ".join(wrong))

    # -- the command line --

    def usagectl(self, *args, code=0, env=None, text=None, seconds=90, binary="usagectl"):
        """Runs it without a terminal; `code` is the exit status wanted (None: any)."""
        argv = [*self.on_its_host(binary), os.path.join(BIN, binary), *map(str, args)]
        try:
            done = subprocess.run(argv, env=self.stage_env("usagectl", **(env or {})), cwd=self.folder, timeout=seconds,
                                  input=(text or "").encode(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
        except subprocess.TimeoutExpired as e:
            raise Failed(f"{' '.join([binary, *map(str, args)])}: not done within {seconds} s\n"
                         f"{(e.stdout or b'').decode()[-1500:]}{(e.stderr or b'').decode()[-1500:]}") from None
        result = Result(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
        with open(os.path.join(self.logs, "usagectl.log"), "a", encoding="utf-8") as f:
            f.write(f"$ {' '.join([binary, *map(str, args)])}\n{result.out}{result.err}-> {result.code}\n")
        if code is not None and result.code != code:
            raise Failed(f"{' '.join([binary, *map(str, args)])}: exit status {result.code}, want {code}\n"
                         f"{result.out[-2000:]}{result.err[-2000:]}")
        return result

    def background_usagectl(self, *args, env=None):
        self.counts["bg"] += 1
        p = Process(f"usagectl-{self.counts['bg']}", [*self.on_its_host("usagectl"), os.path.join(BIN, "usagectl"), *map(str, args)],
                    self.stage_env("usagectl", **(env or {})), os.path.join(self.folder, f"usagectl-{self.counts['bg']}.out"), self.folder)
        self.processes.append(p)
        return p

    # -- the database --

    def sql(self, query, *args):
        """Rows of one statement, in a transaction of its own."""
        for attempt in (1, 2):
            try:
                if self.connection is None or self.connection.closed:
                    self.connection = psycopg2.connect(self.postgres.url("uf"))
                    self.connection.autocommit = True
                with self.connection.cursor() as c:
                    c.execute(query, args or None)
                    return c.fetchall() if c.description else []
            except (psycopg2.OperationalError, psycopg2.InterfaceError):
                self.connection = None  # the server was restarted: once more on a new connection
                if attempt == 2:
                    raise
        return []

    def value(self, query, *args):
        return self.sql(query, *args)[0][0]

    def last_run(self):
        """The newest run that was asked for, as a dict."""
        return self.value("SELECT to_jsonb(r) FROM fetch_runs r WHERE kind IN ('manual', 'inject') "
                          "ORDER BY requested_at DESC LIMIT 1")

    def feed_state(self, account):
        return {feed: {"error": error, "detail": detail or "", "failures": failures, "watermark": watermark}
                for feed, error, detail, failures, watermark in self.sql(
                    "SELECT feed, last_error, last_error_detail, consecutive_failures, watermark "
                    "FROM account_feeds JOIN accounts USING (account_id) WHERE name = %s", account)}

    def written(self):
        """A digest of where every row of usage_metrics lies and which transaction wrote it: it stays
        the same only if nothing was inserted, updated or deleted, not even to the same values."""
        return self.sql("SELECT count(*), sum(hashtextextended(tableoid::text || ctid::text || xmin::text, 0)) FROM usage_metrics")[0]

    # -- accounts and cycles: simulator account N is named sim-00000N --

    NAME_SQL = "'sim-' || lpad(w.account, 6, '0')"  # of a row of the ledger

    @staticmethod
    def names(accounts):
        return [f"sim-{n:06d}" for n in accounts]

    def add_accounts(self, accounts, hold=True):
        """Adds simulator accounts, of one provider or of both, as one would add many: from a file. Answers
        their names. `hold`: they are not due before a run asks for them, so that a test can first break something."""
        scheduler = bool(self.of("scheduler"))
        if hold and scheduler:
            self.control({"cmd": "pause"})
        for provider, base_url in self.sim.base_urls.items():
            its = [n for n in accounts if self.sim.provider(n) == provider]
            if its:
                self.add_accounts_of(provider, base_url, its)
        if hold:
            self.sql("UPDATE accounts SET next_due = now() + interval '1 year' WHERE name = ANY(%s)", self.names(accounts))
            if scheduler:
                self.control({"cmd": "resume"})
        return self.names(accounts)

    def add_accounts_of(self, provider, base_url, accounts):
        path = os.path.join(self.folder, "accounts.csv")
        with open(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w", encoding="ascii") as f:
            for n in accounts:
                f.write(f"sim-{n:06d},{self.sim.key(n)}\n")
        self.usagectl("account", "add", "--from-file", path, "--provider", provider, "--base-url", base_url)

    def wait_backfill(self, seconds=60):
        wait_for("the older part of the backfill", lambda: self.value(
            "SELECT count(*) = 0 FROM owed_windows WHERE state = 'pending'"), seconds)

    def run(self, account=None, code=0, seconds=60):
        """One cycle, waited for; `code` is the exit status wanted. Answers its row of fetch_runs."""
        args = ["run", "--wait"] + (["--account", account] if account else [])
        done = self.usagectl(*args, code=code, seconds=seconds)
        self.last_output = done.out + done.err
        run = self.last_run()
        check(run["finished_at"], f"usagectl run --wait came back before the run's end: {run}")
        return run

    # -- the question that every test ends with --

    COLUMNS = ("project_id user_id api_key_id model service_tier batch line_item dims input_tokens cached_input_tokens "
               "cache_write_tokens input_audio_tokens output_audio_tokens output_tokens num_requests quantity "
               "quantity_unit cost_amount currency extra").split()

    def person(self, email):
        """What user_id is for this address: a hash by the stack's key, or the address if that is kept."""
        if self.env.get("UF_KEEP_EMAIL") == "1":
            return email.lower()
        return "person_" + hmac.new(self.person_key, email.lower().encode(), hashlib.sha256).hexdigest()[:32]

    def with_persons(self, ledger):
        """The simulator's CSV with persons as the product stores them."""
        rows = list(csv.reader(io.StringIO(ledger.decode())))
        for row in rows:
            if row[1] == "claude_code" and row[5]:
                row[5] = self.person(row[5])
        out = io.StringIO()
        csv.writer(out).writerows(rows)
        return out.getvalue().encode()

    def compare(self, accounts, start=None, bucket=3600, feeds=None):
        """Whether usage_metrics equals the simulator's ledger, from `start` (Unix seconds; by default
        as far as a first cycle is sure to reach) to the simulator's now, for `feeds` (all).
        And nothing may be in the table that the ledger does not have, however old. A failure shows
        rows. Answers how many rows of these accounts the table has."""
        accounts = sorted(accounts)
        if start is None:
            start = self.sim.start_now - self.reach_s + 7200
        oldest = self.value("SELECT coalesce(min(extract(epoch FROM date_trunc('day', bucket_start, 'UTC')))::bigint, %s) "
                            "FROM usage_metrics JOIN accounts USING (account_id) WHERE name = ANY(%s)",
                            start, self.names(accounts))
        want = self.sim.ledger(accounts, min(start - start % 86400, oldest), bucket, feeds)
        if any(self.sim.provider(n) == "anthropic" for n in accounts):
            want = self.with_persons(want)
        numbers = ("quantity", "cost_amount")

        def column(name, side):
            if name in numbers:
                return f"trim_scale({side}::numeric)::text"
            if name in ("dims", "extra"):
                return f"{side}::jsonb"  # which compares numbers by value: 1.50 is 1.5
            return f"{side}::text"
        got_columns = ", ".join(f"{column(c, 'm.' + c)} AS {c}" for c in self.COLUMNS)
        want_columns = ", ".join(f"{column(c, 'w.' + c)} AS {c}" for c in self.COLUMNS)
        with contextlib.closing(psycopg2.connect(self.postgres.url("uf"))) as connection, connection.cursor() as c:
            c.execute("CREATE TEMP TABLE ledger (account text, feed text, bucket_start bigint, bucket_seconds text, "
                      + ", ".join(name + " text" for name in self.COLUMNS) + ", provider text)")
            c.copy_expert("COPY ledger FROM STDIN (FORMAT csv, HEADER)", io.BytesIO(want))
            c.execute(f"CREATE TEMP VIEW want AS SELECT {self.NAME_SQL} AS account, w.provider, "
                      f"w.feed, w.bucket_start, w.bucket_seconds, {want_columns} FROM ledger w")
            c.execute("CREATE TEMP TABLE got AS SELECT a.name AS account, m.provider, m.feed, "
                      "extract(epoch FROM m.bucket_start)::bigint AS bucket_start, "
                      f"m.bucket_seconds::text AS bucket_seconds, {got_columns} FROM usage_metrics m JOIN accounts a "
                      "USING (account_id) WHERE a.name = ANY(%s) AND (%s::text[] IS NULL OR m.feed = ANY(%s))",
                      (self.names(accounts), feeds, feeds))
            problems = []
            for title, query in (("at the provider, not in the table", f"SELECT * FROM want WHERE bucket_start >= {start} "
                                  "EXCEPT ALL SELECT * FROM got"),
                                 ("in the table, not at the provider", "SELECT * FROM got EXCEPT ALL SELECT * FROM want")):
                c.execute(f"CREATE TEMP TABLE differing AS {query}")
                c.execute("SELECT count(*), count(DISTINCT account), min(to_timestamp(bucket_start) AT TIME ZONE 'UTC'), "
                          "max(to_timestamp(bucket_start) AT TIME ZONE 'UTC'), string_agg(DISTINCT feed, ' ') FROM differing")
                n, n_accounts, first, last, which = c.fetchone()
                if n:
                    problems.append(f"{n} rows {title} ({n_accounts} accounts, {first} to {last}, {which}):")
                    c.execute("SELECT jsonb_strip_nulls(to_jsonb(d)) FROM differing d ORDER BY account, feed, bucket_start, "
                              "model, project_id, api_key_id, line_item LIMIT 4")
                    problems += ["  " + json.dumps(row) for row, in c.fetchall()]
                c.execute("DROP TABLE differing")
            check(not problems, "usage_metrics is not the simulator's ledger:\n" + "\n".join(problems))
            c.execute("SELECT count(*) FROM got")
            rows = c.fetchone()[0]
        self.check_sums()
        return rows

    def check_sums(self):
        """What is summed up must be the sums of the rows: usage_days and usage_slots of usage_metrics, the others of these."""
        groups = ("account_id, {day}, provider, feed, project_id, user_id, api_key_id, model, service_tier, batch, line_item, "
                  "quantity_unit, currency")
        measures = ("input_tokens", "cached_input_tokens", "cache_write_tokens", "input_audio_tokens", "output_audio_tokens",
                    "output_tokens", "num_requests", "quantity", "cost_amount")
        sums = ", ".join(f"sum({m})::numeric AS {m}" for m in measures)
        plain = ", ".join(f"{m}::numeric" for m in measures)
        days, months = groups.format(day="day"), groups.format(day="month")
        slots = "slot, whole_day, provider, feed, model, service_tier, batch, line_item, quantity_unit, currency"
        narrow = "account_id, {day}, provider, feed, model, quantity_unit, currency"
        totals = "day, provider, feed, model, service_tier, batch, line_item, quantity_unit, currency"
        whole = ("month < months_until AND NOT EXISTS (SELECT FROM usage_unsummed_days u WHERE u.account_id = m.account_id AND "
                 "date_trunc('month', u.day) = m.month)")
        closed = ("(slot AT TIME ZONE 'UTC')::date NOT IN (SELECT day FROM usage_open_days UNION SELECT day FROM usage_unsummed_days)")
        for title, table, want in (
                ("usage_days", f"SELECT {days}, {plain}, rows::numeric FROM usage_days d WHERE NOT EXISTS (SELECT FROM "
                 "usage_unsummed_days u WHERE u.account_id = d.account_id AND u.day = d.day)",
                 f"SELECT {days}, {sums}, count(*)::numeric FROM (SELECT *, (bucket_start AT TIME ZONE 'UTC')::date AS day FROM "
                 "usage_metrics) d WHERE NOT EXISTS (SELECT FROM usage_unsummed_days u WHERE u.account_id = d.account_id AND "
                 f"u.day = d.day) GROUP BY {days}, cost_amount IS NULL"),
                ("usage_months", f"SELECT {months}, {plain}, rows::numeric FROM usage_months m, usage_summed WHERE {whole}",
                 f"SELECT {months}, {sums}, sum(rows)::numeric FROM (SELECT *, date_trunc('month', day)::date AS month FROM "
                 f"usage_days) m, usage_summed WHERE {whole} GROUP BY {months}, cost_amount IS NULL"),
                ("usage_slots", f"SELECT {slots}, {plain}, rows::numeric FROM usage_slots WHERE {closed}",
                 f"SELECT {slots}, {sums}, count(*)::numeric FROM (SELECT *, date_bin('15 minutes', bucket_start, '2000-01-01Z') AS slot, "
                 f"bucket_seconds >= 86400 AS whole_day FROM usage_metrics) m WHERE {closed} GROUP BY {slots}, cost_amount IS NULL"),
                ("usage_account_days", f"SELECT {narrow.format(day='day')}, {plain}, rows::numeric FROM usage_account_days",
                 f"SELECT {narrow.format(day='day')}, {sums}, sum(rows)::numeric FROM usage_days GROUP BY {narrow.format(day='day')}, "
                 "cost_amount IS NULL"),
                ("usage_account_months", f"SELECT {narrow.format(day='month')}, {plain}, rows::numeric FROM usage_account_months m, "
                 f"usage_summed WHERE {whole}",
                 f"SELECT {narrow.format(day='month')}, {sums}, sum(rows)::numeric FROM usage_months m, usage_summed WHERE {whole} GROUP BY "
                 f"{narrow.format(day='month')}, cost_amount IS NULL"),
                ("usage_totals", f"SELECT {totals}, {plain}, rows::numeric FROM usage_totals",
                 f"SELECT {totals}, {sums}, sum(rows)::numeric FROM (SELECT *, (slot AT TIME ZONE 'UTC')::date AS day FROM usage_slots) s "
                 f"GROUP BY {totals}, cost_amount IS NULL")):
            if not self.value("SELECT valid FROM usage_summed"):
                return
            wrong = self.sql(f"(({table}) EXCEPT ALL ({want})) UNION ALL (({want}) EXCEPT ALL ({table}))")
            check(not wrong, f"{title} is not the sums of its rows: {len(wrong)} differ, as {wrong[:2]}")

    def ledger_rows(self, accounts, start=None, bucket=3600):
        """The simulator's rows as {key: measures}, to tell what has changed between two moments."""
        text = self.sim.ledger(accounts, start or self.sim.start_now - self.reach_s - 86400, bucket).decode()
        rows = {}
        for row in csv.reader(text.splitlines()[1:]):
            rows[tuple(row[:12])] = tuple(row[12:])
        return rows

    # -- control socket, spoken as any zmq tool would --

    def control(self, request, seconds=10):
        sockets = glob.glob(os.path.join(self.folder, "run", "control", "*"))
        check(sockets, "no control socket in the run folder")
        context = zmq.Context()
        s = context.socket(zmq.REQ)
        s.setsockopt(zmq.LINGER, 0)
        s.setsockopt(zmq.RCVTIMEO, seconds * 1000)
        try:
            s.connect("ipc://" + sockets[0])
            s.send(request if isinstance(request, bytes) else json.dumps(request).encode())
            return json.loads(s.recv())
        except zmq.Again:
            raise Failed(f"no answer on the control socket to {request!r}") from None
        finally:
            s.close()
            context.term()

    # -- logs --

    def log_files(self):
        return sorted(glob.glob(os.path.join(self.logs, "*.log")))

    def error_lines(self, allow=()):
        """Lines of level "error" since the last call that no pattern of `allow` matches."""
        found = []
        for path in self.log_files():
            if path.endswith("usagectl.log"):
                continue
            with open(path, "rb") as f:
                f.seek(self.seen[path])
                data = f.read()
            self.seen[path] += len(data)
            for line in data.decode(errors="replace").splitlines():
                if '"level":"error"' in line.replace(" ", "") or "Sanitizer" in line or "runtime error:" in line:
                    if not any(re.search(a, line) for a in allow):
                        found.append(f"{os.path.basename(path)}: {line[:600]}")
        return found

    def log_tails(self, last=3, troubles=6):
        """Of each log the last lines, and the last warnings and errors before them."""
        parts = []
        for path in self.log_files() + [self.postgres.log]:
            with open(path, encoding="utf-8", errors="replace") as f:
                lines = f.read().splitlines()
            head, tail = lines[:-last], lines[-last:]
            head = [line for line in head if re.search(r'"level":"(warn|error)"|ERROR|FATAL|PANIC', line)][-troubles:]
            if tail:
                parts.append(f"--- {os.path.basename(path)}\n" + "\n".join(line[:600] for line in head + tail))
        return "\n".join(parts)

    # -- the end --

    def close(self):
        for p in self.processes:
            if p.alive():
                p.send(signal.SIGCONT)
                p.kill()
        if self.sim:
            self.sim.close()
        if self.connection:
            self.connection.close()
        with contextlib.suppress(Failed):
            self.postgres.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


from sim import Sim  # noqa: E402  (it needs Process, from above)
