"""A stack whose every process reaches Postgres through a transaction pooler."""

import contextlib
import os
import shutil

import psycopg2

from harness import AS_ROOT, Process, Stack, check, wait_for

POOL = 3
LOGINS = ("uf", "app_scheduler", "app_writer", "app_gateway", "app_admin")


class PooledStack(Stack):
    """Every process of the product reaches Postgres through PgBouncer in transaction mode, with fewer
    server connections than there are clients; the harness looks on from a connection of its own."""

    def __init__(self, **settings):
        super().__init__(migrate=False, **settings)
        direct = self.postgres.url
        self.postgres.url = lambda database, user="uf": direct(database, user) + "&application_name=harness"
        self.pool_folder = os.path.join(self.folder, "pool")
        try:
            self.start_pool()
            self.usagectl("migrate")
        except BaseException:
            self.close()
            raise

    def start_pool(self):
        os.makedirs(self.pool_folder)
        config = os.path.join(self.pool_folder, "pgbouncer.ini")
        with open(config, "w", encoding="ascii") as f:
            # The pooler logs in for its clients: the name of a database tells as whom.
            f.write("[databases]\n" + "".join(f"{name} = host={self.postgres.folder} dbname=uf user={name}\n" for name in LOGINS)
                    + f"[pgbouncer]\nlisten_addr =\n"
                    f"listen_port = 6432\nunix_socket_dir = {self.pool_folder}\nauth_type = any\nadmin_users = uf\npool_mode = transaction\n"
                    f"default_pool_size = {POOL}\nmax_db_connections = {POOL}\nmax_client_conn = 50\nlog_connections = 0\n"
                    "log_disconnections = 0\n")
        if AS_ROOT:  # PgBouncer refuses to run as root
            shutil.chown(self.pool_folder, "postgres", "postgres")
        self.pool = Process("pgbouncer", ["/usr/sbin/pgbouncer", config], {"PATH": "/usr/bin:/bin"},
                            os.path.join(self.folder, "pgbouncer.log"), "/", user="postgres")
        self.processes.append(self.pool)

        def ready():
            check(self.pool.alive(), "pgbouncer ended:\n" + self.pool.text()[-1000:])
            return os.path.exists(os.path.join(self.pool_folder, ".s.PGSQL.6432"))
        wait_for("pgbouncer ready", ready, 10)

    def of(self, stage=None):
        return [p for p in super().of(stage) if p is not self.pool]

    def pool_url(self, database):
        return f"postgresql:///{database}?host={self.pool_folder}&port=6432&user=uf"

    def stage_env(self, stage, **more):
        env = super().stage_env(stage, **more)
        if "DATABASE_URL" in env:
            env["DATABASE_URL"] = self.pool_url(self.logins.get(stage, "uf"))
        return env

    def pool_shows(self, what):
        """Rows of one of its SHOW commands, of the database uf."""
        with contextlib.closing(psycopg2.connect(self.pool_url("pgbouncer"))) as connection:
            connection.autocommit = True
            with connection.cursor() as c:
                c.execute("SHOW " + what)
                names = [d[0] for d in c.description]
                return [row for values in c.fetchall() if (row := dict(zip(names, values)))["database"] == "uf"]
