"""Each process under a login of its own that may do its part and nothing else (docs/security.md)."""

import contextlib
import http.client
import re

import psycopg2

from harness import check, equal, matches, wait_for
from pooled import PooledStack
from runner import stack, test

PARTS = ("scheduler", "writer", "gateway", "admin")


def logins(s, roles=None, writer=""):
    """As docs/security.md says it: one login for each part. `writer`: BYPASSRLS, where that can be given."""
    for part in PARTS:
        s.sql(f"CREATE ROLE app_{part} LOGIN {writer if part == 'writer' else ''} IN ROLE {roles[part] if roles else 'uf_' + part}")
    s.logins = {part: "app_" + part for part in ("scheduler", "writer", "gateway")} | {"usagectl": "app_admin"}


def says(s, login, statement):
    """None, or the SQLSTATE and words by which Postgres refuses it. Nothing of it stays."""
    with contextlib.closing(psycopg2.connect(s.postgres.url("uf", login))) as c:
        try:
            c.cursor().execute(statement)
            return None
        except psycopg2.Error as e:
            return f"{e.pgcode} {e.diag.message_primary}"
        finally:
            c.rollback()


def asked(port, path, key=None):
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(c):
        c.request("GET", path, headers={"x-cron-api-key": key} if key else {})
        answer = c.getresponse()
        return answer.status, answer.read().decode()


def refusals(s):
    """What Postgres refused for want of a right, by its own log."""
    with open(s.postgres.log, encoding="utf-8", errors="replace") as f:
        return [line for line in f.read().splitlines() if "permission denied" in line or "row-level security" in line]


def everything(s):
    """Cycles, an old injection, revised rows, a dead letter and its replay, the HTTP interface, each command."""
    s.add_accounts(range(4))
    s.run()
    s.wait_backfill()
    s.compare(range(4))
    hour = s.sim.last_hour()
    s.sim.restate(0, "completions", hour, percent=150, row=0)
    s.sim.restate(0, "embeddings", hour, "vanish")
    s.sim.restate(0, "completions", hour, "add")
    s.run()
    equal([row[0] for row in s.sql("SELECT DISTINCT change FROM usage_revisions ORDER BY 1")],
          ["appeared", "changed", "vanished"], "revisions")
    s.usagectl("inject", "--account", "sim-000001", "--from", "40d", "--to", "36d", "--wait")  # a month without a partition
    s.sim.fault(account=0, feed="completions", do="field", name="input_tokens", row=0, raw='"many"')
    s.run("sim-000000", code=None)
    s.run("sim-000000", code=None)  # the same again: counted on the same letter
    letter, times = s.sql("SELECT letter_id, occurrences FROM dead_letters WHERE closed_at IS NULL")[0]
    check(times >= 2, "the letter was not counted")
    s.sim.clear_faults()
    s.usagectl("dead", "list")
    s.usagectl("dead", "show", letter)
    s.usagectl("dead", "replay", letter, "--wait")
    s.run()
    s.compare(range(4))


def every_command(s):
    for args in (["status"], ["account", "list"], ["account", "show", "sim-000000"], ["account", "check", "sim-000000"],
                 ["account", "disable", "sim-000003"], ["account", "enable", "sim-000003"], ["usage"], ["cost"], ["revisions"],
                 ["summary"], ["doctor"], ["pause"], ["resume"]):
        s.usagectl(*args)
    s.usagectl("account", "rotate-key", "sim-000003", "--key-file", "-", text=s.sim.key(3))
    s.usagectl("account", "remove", "sim-000003", "--yes", "--purge")


def every_address(s):
    gateway = s.start_gateway()
    for path in ("usage?group_by=day,model", "cost?group_by=month,account", "accounts", "accounts?feeds=1", "runs", "dead?closed=1", "revisions"):
        status, text = asked(gateway.port, "/api/v1/" + path)
        equal((path, status), (path, 200), text[:300])
    wait_for("/readyz", lambda: asked(gateway.port, "/readyz")[0] == 200, 10)  # a pulse of each stage
    status, text = asked(gateway.port, "/metrics")
    equal(status, 200, text[:300])
    status, text = asked(gateway.port, "/api/cron/usage-fetcher?wait=30", s.cron_key)
    equal(status, 200, text[:300])


@test("roles: every stage, command and address works with its own role, and asks for nothing that it lacks")
def _():
    with stack(sim={"accounts": 3, "anthropic": 1, "days": 60, "density": "NORMAL"}, env={"UF_BACKFILL": "3d"}) as s:
        logins(s, writer="BYPASSRLS")
        s.sql("REVOKE TEMPORARY ON DATABASE uf FROM PUBLIC")  # with BYPASSRLS it takes no temporary table
        s.start_all()
        everything(s)
        every_address(s)
        every_command(s)
        equal(refusals(s), [], "what Postgres refused")
        s.stop_all()


@test("roles: each with its own login through a transaction pooler")
def _():
    s = PooledStack(sim={"accounts": 3, "anthropic": 1, "days": 60, "density": "NORMAL"}, env={"UF_BACKFILL": "3d"})
    with contextlib.closing(s):
        logins(s)
        s.start_all()
        everything(s)
        equal(refusals(s), [], "what Postgres refused")
        s.stop_all()


# What each role must not do. Every statement is one that its process would have no use for.
REFUSED = [
    ("scheduler", "SELECT * FROM usage_metrics"),
    ("scheduler", "INSERT INTO usage_metrics (account_id, provider, feed, bucket_start, bucket_seconds, row_key, row_hash, "
                  "first_seen_at, changed_at, job_id) VALUES (1, 'openai', 'x', now(), 60, gen_random_uuid(), 1, now(), now(), gen_random_uuid())"),
    ("scheduler", "UPDATE usage_metrics SET cost_amount = 0"),
    ("scheduler", "DELETE FROM usage_metrics"),
    ("scheduler", "SELECT * FROM usage_revisions"),
    ("scheduler", "SELECT body FROM dead_letters"),
    ("scheduler", "UPDATE accounts SET key_ciphertext = ''"),
    ("scheduler", "UPDATE accounts SET base_url = 'http://elsewhere.example'"),
    ("scheduler", "UPDATE accounts SET enabled = false"),
    ("scheduler", "INSERT INTO accounts (name, provider, base_url, key_ciphertext, key_hint) VALUES ('x', 'openai', 'x', '', '')"),
    ("scheduler", "DELETE FROM accounts"),
    ("scheduler", "DELETE FROM account_feeds"),
    ("scheduler", "DELETE FROM fetch_runs"),
    ("scheduler", "SELECT usage_metrics_ensure_month(now())"),
    ("scheduler", "TRUNCATE owed_windows"),
    ("writer", "SELECT key_ciphertext FROM accounts"),
    ("writer", "SELECT a FROM accounts a"),
    ("writer", "SELECT name FROM accounts"),
    ("writer", "COPY accounts TO STDOUT"),
    ("writer", "UPDATE accounts SET key_ciphertext = ''"),
    ("writer", "UPDATE accounts SET updated_at = now()"),  # the column that lets it lock a row
    ("writer", "UPDATE accounts SET lease_epoch = lease_epoch + 1"),
    ("writer", "INSERT INTO accounts (updated_at) VALUES (now())"),
    ("writer", "DELETE FROM accounts"),
    ("writer", "SELECT * FROM account_feeds"),
    ("writer", "UPDATE account_feeds SET watermark = now()"),
    ("writer", "SELECT * FROM fetch_runs"),
    ("writer", "UPDATE usage_metrics SET account_id = 2"),
    ("writer", "UPDATE usage_metrics SET model = 'other'"),
    ("writer", "TRUNCATE usage_metrics"),
    ("writer", "DROP TABLE usage_metrics"),
    ("writer", "SELECT old_row FROM usage_revisions"),
    ("writer", "DELETE FROM usage_revisions"),
    ("writer", "UPDATE usage_revisions SET old_row = NULL"),
    ("writer", "DELETE FROM dead_letters"),
    ("writer", "UPDATE dead_letters SET closed_at = now()"),
    ("writer", "UPDATE pipeline SET paused = true"),
    ("writer", "SELECT role_grant('admin', 'app_writer')"),
    ("writer", "CREATE TABLE mine (a int)"),
    ("gateway", "SELECT key_ciphertext FROM accounts"),
    ("gateway", "SELECT * FROM accounts"),
    ("gateway", "SELECT count(a) FROM accounts a"),
    ("gateway", "SELECT a.* FROM accounts a JOIN account_health h USING (account_id)"),
    ("gateway", "SELECT body FROM dead_letters"),
    ("gateway", "SELECT name FROM accounts FOR SHARE"),
    ("gateway", "UPDATE accounts SET next_due = now()"),
    ("gateway", "INSERT INTO fetch_runs (kind) VALUES ('manual')"),
    ("gateway", "UPDATE account_feeds SET watermark = now()"),
    ("gateway", "DELETE FROM usage_metrics"),
    ("gateway", "UPDATE usage_metrics SET cost_amount = 0"),
    ("gateway", "INSERT INTO model_prices VALUES ('openai', 'x', 'input', now(), 1)"),
    ("gateway", "DELETE FROM usage_revisions"),
    ("gateway", "UPDATE pipeline SET paused = true"),
    ("gateway", "SELECT * FROM outbox"),
    ("gateway", "SELECT usage_metrics_ensure_month(now())"),
    ("admin", "INSERT INTO usage_metrics (account_id, provider, feed, bucket_start, bucket_seconds, row_key, row_hash, "
              "first_seen_at, changed_at, job_id) VALUES (1, 'openai', 'x', now(), 60, gen_random_uuid(), 1, now(), now(), gen_random_uuid())"),
    ("admin", "UPDATE usage_metrics SET cost_amount = 0"),
    ("admin", "UPDATE usage_revisions SET old_row = NULL"),
    ("admin", "UPDATE account_feeds SET watermark = now()"),
    ("admin", "UPDATE accounts SET lease_epoch = 0"),
    ("admin", "UPDATE accounts SET name = 'other'"),
    ("admin", "TRUNCATE usage_metrics"),
    ("admin", "DROP TABLE accounts CASCADE"),
    ("admin", "ALTER TABLE accounts DISABLE ROW LEVEL SECURITY"),
    ("admin", "CREATE POLICY mine ON accounts USING (true)"),
    ("admin", "DELETE FROM schema_migrations"),
    ("admin", "SELECT role_setup()"),
] + [(part, "SELECT * FROM {month}") for part in PARTS]

ALLOWED = [
    ("scheduler", "SELECT key_ciphertext FROM accounts FOR NO KEY UPDATE"),
    ("writer", "SELECT account_id, lease_epoch FROM accounts ORDER BY account_id FOR NO KEY UPDATE"),
    ("writer", "SELECT usage_metrics_ensure_month('2019-05-01')"),
    ("gateway", "SELECT * FROM account_health"),
    ("gateway", "SELECT * FROM reconciliation"),
    ("admin", "SELECT key_ciphertext FROM accounts"),
    ("admin", "DELETE FROM usage_metrics"),
]


def one_account(s):
    s.sql("INSERT INTO accounts (name, provider, base_url, key_ciphertext, key_hint) VALUES ('a', 'openai', 'x', '\\x0102', 'x')")
    s.sql("INSERT INTO usage_metrics (account_id, provider, feed, bucket_start, bucket_seconds, row_key, row_hash, first_seen_at, "
          "changed_at, job_id) SELECT account_id, 'openai', 'x', now(), 60, gen_random_uuid(), 1, now(), now(), gen_random_uuid() FROM accounts")
    s.sql("INSERT INTO usage_revisions (account_id, provider, feed, bucket_start, bucket_seconds, row_key, change, job_id) "
          "SELECT account_id, 'openai', 'x', now(), 60, gen_random_uuid(), 'changed', gen_random_uuid() FROM accounts")
    return s.value("SELECT max(c.relname) FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid WHERE relkind = 'r'")


@test("roles: what each role must not do is refused, by a right or by a policy")
def _():
    with stack() as s:
        logins(s)
        month = one_account(s)
        wrong = [f"{part} may: {statement}" for part, statement in REFUSED
                 if not re.match("42501 ", says(s, "app_" + part, statement.format(month=month)) or "")]
        wrong += [f"{part} may not: {statement}: {refused}" for part, statement in ALLOWED
                  if (refused := says(s, "app_" + part, statement))]
        s.sql("CREATE ROLE app_copier LOGIN BYPASSRLS IN ROLE uf_writer")  # only the column that lets it lock is open to it
        wrong += [f"writer with BYPASSRLS may: {statement}" for part, statement in REFUSED if part == "writer"
                  and not re.match("42501 ", says(s, "app_copier", statement.format(month=month)) or "") and "SET updated_at" not in statement]
        check(not wrong, "\n".join(wrong))
        equal(s.sql("SELECT relname FROM pg_class WHERE relkind IN ('r', 'p', 'v') AND relnamespace = 'public'::regnamespace AND NOT relispartition "
                    "AND relname NOT IN (SELECT object FROM role_rights)"), [], "tables and views that are no part's")
        equal(s.sql("SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace AND NOT relrowsecurity"),
              [], "tables without row-level security")
        equal(s.sql("SELECT polrelid::regclass, polname FROM pg_policy WHERE 0 = ANY (polroles)"), [], "policies for everybody")
        equal(s.sql("SELECT relname FROM pg_class WHERE relkind = 'v' AND relnamespace = 'public'::regnamespace "
                    "AND NOT coalesce(reloptions @> '{security_invoker=true}', false)"), [], "views that read as their owner")
        equal(s.sql("SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prosecdef AND "
                    "NOT coalesce(proconfig @> '{\"search_path=public, pg_temp\"}', false)"), [], "functions of the owner, with any search path")


@test("roles: a writer's temporary tables do not lead the function that makes partitions astray")
def _():
    with stack() as s:
        logins(s)
        with contextlib.closing(psycopg2.connect(s.postgres.url("uf", "app_writer"))) as c, c, c.cursor() as cursor:
            cursor.execute("CREATE TEMP TABLE usage_metrics_2019_05 (a int); CREATE TEMP TABLE usage_metrics (a int); "
                           "SELECT usage_metrics_ensure_month('2019-05-01')")
        equal(s.value("SELECT count(*) FROM pg_class WHERE oid = to_regclass('public.usage_metrics_2019_05') AND relrowsecurity "
                      "AND relispartition"), 1, "the partition")


@test("roles: on a host that gives every new table to its HTTP interface, that sees and does nothing")
def _():
    with stack(migrate=False) as s:
        s.sql("CREATE ROLE anon LOGIN; CREATE ROLE authenticated LOGIN; GRANT USAGE ON SCHEMA public TO anon, authenticated; "
              "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO anon, authenticated; "
              "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON SEQUENCES TO anon, authenticated; "
              "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON FUNCTIONS TO anon, authenticated")
        s.usagectl("migrate")
        one_account(s)
        s.sql("SELECT usage_metrics_ensure_month('2019-05-01')")
        relations = s.sql("SELECT relname, relkind FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v')")
        check(len(relations) > 25, f"only {relations}")
        for login in ("anon", "authenticated"):
            wrong = [f"{login} may {statement} {r}" for r, kind in relations
                     for statement in (["SELECT FROM"] if kind == "v" else ["SELECT FROM", "DELETE FROM", "TRUNCATE"])
                     if not re.match("42501 ", says(s, login, f"{statement} {r}") or "")]
            wrong += [f"{login} may {f}" for f in ("usage_metrics_ensure_month(now())", "role_setup()", "role_grant('admin', 'anon')", "role_close()")
                      if not re.match("42501 ", says(s, login, f"SELECT {f}") or "")]
            check(not wrong, "\n".join(wrong))


@test("roles: a table of a later migration is closed to strangers and given to its parts; a changed right changes the policy")
def _():
    with stack(migrate=False) as s:
        s.sql("CREATE ROLE anon LOGIN; GRANT USAGE ON SCHEMA public TO anon; ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO anon, PUBLIC; "
              "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON SEQUENCES TO anon")
        s.usagectl("migrate")
        logins(s)
        matches("takes the login that owns the tables", s.usagectl("migrate", code=100).err, "migrate as somebody else")
        s.logins["usagectl"] = "uf"
        s.sql("CREATE TABLE digests (id bigint GENERATED ALWAYS AS IDENTITY, a int); CREATE VIEW digests_all AS SELECT * FROM digests; "
              "INSERT INTO role_rights VALUES ('writer', 'digests', 'SELECT', NULL), ('writer', 'digests', 'INSERT', 'a'), "
              "('gateway', 'digests', 'SELECT', NULL), ('gateway', 'digests_all', 'SELECT', NULL)")
        equal(says(s, "anon", "SELECT FROM digests"), None, "anon before usagectl migrate")  # or the next check shows nothing
        s.usagectl("migrate")

        def may(login, statement):
            refused = says(s, login, statement)
            check(not refused or refused.startswith("42501 "), f"{login}: {statement}: {refused}")
            return not refused
        for login in ("anon", "app_scheduler", "app_admin"):
            equal([may(login, x) for x in ("SELECT FROM digests", "SELECT FROM digests_all", "SELECT nextval('digests_id_seq')")], [False] * 3, login)
        equal([may("app_writer", x) for x in ("INSERT INTO digests (a) VALUES (1)", "SELECT FROM digests", "DELETE FROM digests", "SELECT FROM digests_all")],
              [True, True, False, False], "the writer")
        equal([may("app_gateway", x) for x in ("SELECT FROM digests_all", "INSERT INTO digests (a) VALUES (1)")], [True, False], "the gateway")
        equal(s.value("SELECT relrowsecurity FROM pg_class WHERE oid = 'digests'::regclass"), True, "row-level security")
        s.sql("GRANT INSERT ON digests TO uf_gateway")
        equal(may("app_gateway", "INSERT INTO digests (a) VALUES (1)"), False, "the gateway, given more by mistake: the policy refuses")
        s.sql("INSERT INTO role_rights VALUES ('gateway', 'digests', 'INSERT', NULL)")
        s.usagectl("migrate")
        equal(may("app_gateway", "INSERT INTO digests (a) VALUES (1)"), True, "the gateway, given more by a migration")


@test("roles: where the login may not make roles the migration says how; roles of one's own are given each part")
def _():
    with stack(sim={"accounts": 3, "anthropic": 1, "days": 60, "density": "NORMAL"}, env={"UF_BACKFILL": "3d"}, migrate=False) as s:
        s.sql("CREATE ROLE owner LOGIN; ALTER DATABASE uf OWNER TO owner")
        s.logins = {"usagectl": "owner"}
        done = s.usagectl("migrate")
        matches("at version.*may not make roles.*CREATE ROLE uf_scheduler NOLOGIN; CREATE ROLE uf_writer NOLOGIN.*usagectl grant scheduler ROLE",
                done.out, "usagectl migrate")
        equal(s.sql("SELECT rolname FROM pg_roles WHERE rolname ~ '^uf_'"), [], "roles")
        matches("owner of the tables", s.usagectl("doctor", code=None).out, "doctor of the owner")
        for word in ("postman", "all"):
            matches("scheduler, writer, gateway", s.usagectl("grant", word, "owner", code=2).err, word)
        matches("no role 'team_writer'", s.usagectl("grant", "writer", "team_writer", code=2).err, "a role that is not there")
        roles = {part: f'"Team {part}"' for part in PARTS}
        for part in PARTS:
            s.sql(f"CREATE ROLE {roles[part]}")
            s.usagectl("grant", part, roles[part].strip('"'))
            s.usagectl("grant", part, roles[part].strip('"'))  # twice is once
        logins(s, roles)
        s.start_all()
        everything(s)
        every_address(s)
        every_command(s)
        equal(refusals(s), [], "what Postgres refused")
        wrong = [f"{part} may: {statement}" for part, statement in REFUSED
                 if not re.match("42501 ", says(s, "app_" + part, statement.format(month="schema_migrations")) or "")
                 and "{month}" not in statement]
        check(not wrong, "\n".join(wrong))
        # Later an administrator makes the others, and both hold.
        s.sql("".join(f"CREATE ROLE uf_{part}; CREATE ROLE late_{part} LOGIN IN ROLE uf_{part};" for part in PARTS))
        s.logins["usagectl"] = "owner"
        matches("up to date.*uf_scheduler.*Team writer, uf_writer", s.usagectl("migrate").out.replace('"', ""), "usagectl migrate again")
        for login in ("app_writer", "late_writer"):
            equal(says(s, login, "SELECT account_id FROM accounts FOR NO KEY UPDATE"), None, login)
            matches("^42501", says(s, login, "UPDATE accounts SET updated_at = now()"), login)
        s.stop_all()


@test("roles: doctor says what a login lacks and what it may do beyond its part", allow=["has no part in schema"])
def _():
    with stack() as s:
        logins(s)
        s.sql("CREATE ROLE stranger LOGIN")

        def doctor(login):
            s.logins["usagectl"] = login
            return s.usagectl("doctor", code=None).out
        stage = s.start("writer", DATABASE_URL=s.postgres.url("uf", "stranger"))
        equal(stage.ended(), 100, "exit status of a stage whose login has no part")
        matches("has no part in schema", stage.text(), "what it says")
        for part in PARTS:
            matches(f"ok   database login: app_{part} has the rights of {part}, and no other", doctor("app_" + part), part)
        matches("ok   database login: uf is a superuser", doctor("uf"), "superuser")
        matches("FIX  schema: this database login has no part in schema .public.: .*uf_admin", doctor("stranger"), "stranger")
        s.sql("GRANT SELECT (key_ciphertext) ON accounts TO app_writer; GRANT TRUNCATE ON usage_metrics TO uf_writer")
        matches(r"FIX  database login: app_writer \(writer\) may do more than its part, as SELECT of accounts.key_ciphertext, TRUNCATE of usage_metrics",
                doctor("app_writer"), "too much")
        s.sql("REVOKE INSERT ON usage_revisions FROM uf_writer; REVOKE UPDATE (watermark) ON account_feeds FROM uf_scheduler; "
              "REVOKE UPDATE ON pipeline FROM uf_scheduler; REVOKE UPDATE (paused) ON pipeline FROM uf_scheduler")
        matches(r"FIX  database login: app_writer \(writer\) lacks INSERT on usage_revisions", doctor("app_writer"), "too little")
        matches(r"FIX  database login: app_scheduler \(scheduler\) lacks UPDATE on pipeline", doctor("app_scheduler"), "a column lacks")
        s.sql("REVOKE TRUNCATE ON usage_metrics FROM uf_writer; REVOKE SELECT (key_ciphertext) ON accounts FROM app_writer; "
              "GRANT INSERT ON usage_revisions TO uf_writer")
        matches("no other; with BYPASSRLS it would write faster", doctor("app_writer"), "a writer without BYPASSRLS")
        s.sql("ALTER ROLE app_writer BYPASSRLS")
        matches(r"ok   database login: app_writer has the rights of writer, and no other \(and BYPASSRLS, to COPY\)", doctor("app_writer"), "with it")
        s.sql("ALTER ROLE app_gateway CREATEROLE BYPASSRLS")
        matches("FIX  database login: app_gateway .* has BYPASSRLS, CREATEROLE", doctor("app_gateway"), "powers")
        s.logins["usagectl"] = "uf"
        s.usagectl("migrate")  # gives what lacks
        matches("ok   database login: app_scheduler", doctor("app_scheduler"), "after migrate")
        s.sql("GRANT uf_writer TO app_scheduler")
        matches("ok   database login: app_scheduler has the rights of scheduler, writer", doctor("app_scheduler"), "two parts")
