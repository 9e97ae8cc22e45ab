"""How a process refuses to start: one line that says what to do, exit status 100."""

import os
import subprocess

from harness import AS_ROOT, BIN, STAGES, Failed, Stack, check, equal, matches, wait_for
from runner import shared, stack, test


def bare():
    """Postgres without our schema, and no simulator."""
    return Stack(migrate=False)


def migrated():
    return Stack()


def refused(s, binary, words, env, args=(), code=100):
    """Starts a process that must end by itself, with `words` in one line of error."""
    argv = [os.path.join(BIN, binary), *args]
    try:
        done = subprocess.run(argv, env=env, cwd=s.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=20, check=False)
    except subprocess.TimeoutExpired as e:
        raise Failed(f"{binary} went on running; it should have refused ({words})\n{(e.stderr or b'').decode()}") from None
    errors = done.stderr.decode()
    equal(done.returncode, code, f"{binary}: exit status\n{errors}")
    lines = [line for line in errors.splitlines() if '"level":"info"' not in line]
    equal(len(lines), 1, f"{binary}: lines of error\n{errors}")
    matches(words, lines[0], binary)
    return lines[0]


# ---- the environment ----

@test("start: no DATABASE_URL is said by name, exit 100, by each that needs one")
def _():
    s = shared(bare)
    for binary, stage in (("uf-scheduler", "scheduler"), ("uf-writer", "writer")):
        refused(s, binary, "DATABASE_URL", s.stage_env(stage, DATABASE_URL=None))
    refused(s, "usagectl", "DATABASE_URL", s.stage_env("usagectl", DATABASE_URL=None), ["status"])


@test("start: the Supabase variables without the database password say where the connection string is")
def _():
    s = shared(bare)
    for binary, stage, args in (("uf-scheduler", "scheduler", ()), ("uf-writer", "writer", ()), ("usagectl", "usagectl", ("migrate",))):
        env = s.stage_env(stage, DATABASE_URL=None, NEXT_PUBLIC_SUPABASE_URL="https://abcdefghijklmnopqrst.supabase.co",
                          SUPABASE_SERVICE_KEY="service-key-that-is-no-password")
        line = refused(s, binary, "connection string.*Connect.*SUPABASE_DB_PASSWORD", env, args)
        check("service-key-that-is-no-password" not in line, "the service key is shown")


@test("start: an unknown UF_ name is refused, with the nearest known one")
def _():
    s = shared(bare)
    for stage in STAGES:
        refused(s, "uf-" + stage, "UF_LEESE.*UF_LEASE", s.stage_env(stage, UF_LEESE="10s"))
    refused(s, "usagectl", "UF_BUKET.*UF_BUCKET", s.stage_env("usagectl", UF_BUKET="1h"), ["status"])


@test("start: a setting out of range names itself and what is allowed")
def _():
    s = shared(bare)
    refused(s, "uf-scheduler", "UF_BUCKET.*1h", s.stage_env("scheduler", UF_BUCKET="7m"))
    refused(s, "uf-scheduler", "UF_LEASE", s.stage_env("scheduler", UF_LEASE="never"))
    refused(s, "uf-fetcher", "UF_IN_FLIGHT", s.stage_env("fetcher", UF_IN_FLIGHT="0"))
    refused(s, "uf-normalizer", "UF_LOG.*info", s.stage_env("normalizer", UF_LOG="loud"))


@test("start: a bad cron expression is refused with the position of the error")
def _():
    s = shared(migrated)
    refused(s, "uf-scheduler", r"UF_SCHEDULE.*\b5\b.*hour", s.stage_env("scheduler", UF_SCHEDULE="*/5 25 * * *"))
    refused(s, "uf-scheduler", "UF_SCHEDULE", s.stage_env("scheduler", UF_SCHEDULE="* * *"))


@test("start: without ENCRYPTION_KEY the fetcher says what it needs; a malformed one is not shown")
def _():
    s = shared(bare)
    refused(s, "uf-fetcher", "ENCRYPTION_KEY.*keygen", s.stage_env("fetcher", ENCRYPTION_KEY_FILE=None))
    line = refused(s, "uf-fetcher", "ENCRYPTION_KEY.*32 random bytes",
                   s.stage_env("fetcher", ENCRYPTION_KEY_FILE=None, ENCRYPTION_KEY="tooshortkey"))
    check("tooshortkey" not in line, "the key is shown")


@test("start: a secret given twice, or in a file that can not be read, is refused")
def _():
    s = shared(bare)
    refused(s, "uf-fetcher", "ENCRYPTION_KEY.*ENCRYPTION_KEY_FILE", s.stage_env("fetcher", ENCRYPTION_KEY="00" * 32))
    refused(s, "uf-fetcher", "ENCRYPTION_KEY_FILE.*/nowhere/key", s.stage_env("fetcher", ENCRYPTION_KEY_FILE="/nowhere/key"))


@test("start: a run folder that can not be written is named, exit 100")
def _():
    s = shared(migrated)
    blocked = os.path.join(s.folder, "a-file")
    with open(blocked, "w", encoding="ascii") as f:
        f.write("not a folder\n")
    for stage in ("scheduler", "normalizer", "writer"):
        refused(s, "uf-" + stage, "a-file", s.stage_env(stage, UF_RUN_DIR=blocked + "/run"))


@test("start: an argument that is not known is refused; --help names every setting")
def _():
    s = shared(bare)
    for stage in STAGES:
        refused(s, "uf-" + stage, "--help", s.stage_env(stage), ["--frobnicate"])
        done = subprocess.run([os.path.join(BIN, "uf-" + stage), "--help"], env=s.stage_env(stage), stdout=subprocess.PIPE, check=False)
        equal(done.returncode, 0, "--help")
        matches("UF_RUN_DIR", done.stdout.decode(), "--help")


# ---- the database ----

@test("start: a schema that is not migrated says: usagectl migrate")
def _():
    s = shared(bare)
    refused(s, "uf-scheduler", "usagectl migrate", s.stage_env("scheduler"))
    refused(s, "uf-writer", "usagectl migrate", s.stage_env("writer"))
    refused(s, "usagectl", "usagectl migrate", s.stage_env("usagectl"), ["account", "list"])


@test("migrate: twice, and by two at once, is the same as once")
def _():
    with stack(migrate=False) as s:
        both = [s.background_usagectl("migrate") for _ in range(2)]
        for p in both:
            wait_for("migrate ends", lambda p=p: not p.alive(), 30)
            equal(p.child.returncode, 0, "migrate, two at once: " + p.text())
        s.usagectl("migrate")
        equal(s.value("SELECT count(*) FROM accounts"), 0, "accounts")


# ---- who holds what ----

def environment_of(pid):
    """Names only. A process that can not be traced shows its environment to root alone."""
    if not AS_ROOT:
        return set()
    with open(f"/proc/{pid}/environ", "rb") as f:
        return {v.split(b"=", 1)[0].decode() for v in f.read().split(b"\0") if v}


@test("separation: each stage runs with only what it needs, and asks for nothing more")
def _():
    with stack() as s:
        s.start_all()
        for stage, never in (("scheduler", "ENCRYPTION_KEY"), ("writer", "ENCRYPTION_KEY"), ("normalizer", "ENCRYPTION_KEY"),
                             ("normalizer", "DATABASE_URL"), ("fetcher", "DATABASE_URL")):
            names = environment_of(s.one(stage).pid)
            check(not any(n.startswith(never) for n in names), f"{stage} was given {never}: {names}")
        s.stop_all()


@test("separation: a stage does not read the secrets of another, even when they are there")
def _():
    with stack() as s:
        # A file that can not be read stops only who wants it.
        for stage in ("scheduler", "normalizer", "writer"):
            s.wait_ready(s.start(stage, ENCRYPTION_KEY_FILE="/nowhere/key"))
        for stage in ("fetcher", "normalizer"):
            s.wait_ready(s.start(stage, DATABASE_URL=None, DATABASE_URL_FILE="/nowhere/url"))
        s.stop_all()


@test("stop: SIGTERM of each idle stage ends it with 0 and removes its sockets")
def _():
    with stack() as s:
        s.start_all()
        s.stop_all()
        left = [os.path.join(d, f) for d, _, files in os.walk(os.path.join(s.folder, "run")) for f in files]
        equal(left, [], "files left in the run folder")
