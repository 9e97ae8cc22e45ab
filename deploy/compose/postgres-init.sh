#!/bin/bash
# Runs once, when the bundled Postgres makes its data folder: the logins of the stack. The tables' owner is no superuser,
# and each process has a login with the rights of its part (docs/security.md). The password of the superuser is for
# nobody: docker compose exec postgres psql -U postgres usage needs none.
set -eu
password() { cat "/run/secrets/$1_password"; }
psql -X -q -v ON_ERROR_STOP=1 -U postgres -d postgres \
    -v owner="$(password owner)" -v scheduler="$(password scheduler)" -v writer="$(password writer)" \
    -v gateway="$(password gateway)" -v admin="$(password admin)" <<'SQL'
CREATE ROLE uf_scheduler NOLOGIN;
CREATE ROLE uf_writer NOLOGIN;
CREATE ROLE uf_gateway NOLOGIN;
CREATE ROLE uf_admin NOLOGIN;
CREATE ROLE app_owner LOGIN PASSWORD :'owner';
CREATE ROLE app_scheduler LOGIN PASSWORD :'scheduler' IN ROLE uf_scheduler;
CREATE ROLE app_writer LOGIN PASSWORD :'writer' IN ROLE uf_writer BYPASSRLS; -- why: docs/security.md
CREATE ROLE app_gateway LOGIN PASSWORD :'gateway' IN ROLE uf_gateway;
CREATE ROLE app_admin LOGIN PASSWORD :'admin' IN ROLE uf_admin;
ALTER DATABASE usage OWNER TO app_owner;
REVOKE ALL ON DATABASE usage FROM PUBLIC;
GRANT CONNECT ON DATABASE usage TO uf_scheduler, uf_writer, uf_gateway, uf_admin;
SQL
psql -X -q -v ON_ERROR_STOP=1 -U postgres -d usage -c 'ALTER SCHEMA public OWNER TO app_owner'
