-- Who may do what: one group role for each process, made here where the migrating login may make roles. What a process
-- is allowed is one table, role_rights; grants, row-level security, and what `usagectl doctor` compares come from it.

-- Functions below keep this: names are looked for in our schema, and never first among somebody's temporary tables.
SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true);

CREATE TABLE role_rights (
    part      text NOT NULL CHECK (part IN ('scheduler', 'writer', 'gateway', 'admin')),
    object    text NOT NULL,
    privilege text NOT NULL CHECK (privilege IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE', 'LOCK', 'EXECUTE')),
    columns   text,
    PRIMARY KEY (part, object, privilege)
);
COMMENT ON TABLE role_rights IS 'What each part of the pipeline may do, and nothing else. A later migration adds rows; usagectl migrate then grants them (db/README.md).';
COMMENT ON COLUMN role_rights.object IS 'A table or view, or a function with its argument types.';
COMMENT ON COLUMN role_rights.privilege IS 'LOCK: may lock rows (SELECT ... FOR NO KEY UPDATE asks for UPDATE on some column), and a policy refuses every change.';
COMMENT ON COLUMN role_rights.columns IS 'As GRANT takes them; null is all.';
INSERT INTO role_rights (part, object, privilege, columns) VALUES
    ('scheduler', 'accounts', 'SELECT', 'account_id, name, provider, base_url, key_ciphertext, enabled, next_due, lease_epoch, lease_until, lease_job, lease_owner'),
    ('scheduler', 'accounts', 'UPDATE', 'next_due, lease_epoch, lease_until, lease_job, lease_owner'),
    ('scheduler', 'account_feeds', 'SELECT', NULL),
    ('scheduler', 'account_feeds', 'INSERT', NULL),
    ('scheduler', 'account_feeds', 'UPDATE', NULL),
    ('scheduler', 'fetch_runs', 'SELECT', NULL),
    ('scheduler', 'fetch_runs', 'INSERT', NULL),
    ('scheduler', 'fetch_runs', 'UPDATE', NULL),
    ('scheduler', 'run_accounts', 'SELECT', NULL),
    ('scheduler', 'run_accounts', 'INSERT', NULL),
    ('scheduler', 'run_accounts', 'UPDATE', NULL),
    ('scheduler', 'owed_windows', 'SELECT', NULL),
    ('scheduler', 'owed_windows', 'INSERT', NULL),
    ('scheduler', 'owed_windows', 'UPDATE', NULL),
    ('scheduler', 'pipeline', 'SELECT', NULL),
    ('scheduler', 'pipeline', 'UPDATE', 'paused, paused_at'),
    ('scheduler', 'schema_migrations', 'SELECT', NULL),
    ('scheduler', 'role_rights', 'SELECT', NULL),

    ('writer', 'accounts', 'SELECT', 'account_id, lease_epoch'),
    ('writer', 'accounts', 'LOCK', 'updated_at'),
    ('writer', 'usage_metrics', 'SELECT', NULL),
    ('writer', 'usage_metrics', 'INSERT', NULL),
    ('writer', 'usage_metrics', 'UPDATE', 'row_hash, input_tokens, cached_input_tokens, cache_write_tokens, input_audio_tokens, output_audio_tokens, output_tokens, num_requests, quantity, quantity_unit, cost_amount, currency, extra, changed_at, job_id'),
    ('writer', 'usage_metrics', 'DELETE', NULL),
    ('writer', 'usage_revisions', 'SELECT', 'account_id, bucket_start, row_key, revised_at'),
    ('writer', 'usage_revisions', 'INSERT', NULL),
    ('writer', 'usage_revisions', 'UPDATE', 'new_row'),
    ('writer', 'dead_letters', 'SELECT', NULL),
    ('writer', 'dead_letters', 'INSERT', NULL),
    ('writer', 'dead_letters', 'UPDATE', 'window_to, body, occurrences, last_seen_at, job_id'),
    ('writer', 'schema_migrations', 'SELECT', NULL),
    ('writer', 'role_rights', 'SELECT', NULL),
    ('writer', 'usage_metrics_ensure_month(timestamptz)', 'EXECUTE', NULL),

    ('gateway', 'accounts', 'SELECT', 'account_id, name, provider, base_url, key_hint, enabled, labels, created_at, updated_at, next_due, lease_until'),
    ('gateway', 'account_feeds', 'SELECT', NULL),
    ('gateway', 'account_balances', 'SELECT', NULL),
    ('gateway', 'fetch_runs', 'SELECT', NULL),
    ('gateway', 'run_accounts', 'SELECT', NULL),
    ('gateway', 'owed_windows', 'SELECT', NULL),
    ('gateway', 'usage_metrics', 'SELECT', NULL),
    ('gateway', 'usage_revisions', 'SELECT', NULL),
    ('gateway', 'dead_letters', 'SELECT', 'letter_id, account_id, provider, feed, window_from, window_to, reason, json_path, sqlstate, occurrences, first_seen_at, last_seen_at, job_id, closed_at'),
    ('gateway', 'model_prices', 'SELECT', NULL),
    ('gateway', 'pipeline', 'SELECT', NULL),
    ('gateway', 'schema_migrations', 'SELECT', NULL),
    ('gateway', 'role_rights', 'SELECT', NULL),
    ('gateway', 'usage_hourly', 'SELECT', NULL),
    ('gateway', 'usage_daily', 'SELECT', NULL),
    ('gateway', 'usage_by_model', 'SELECT', NULL),
    ('gateway', 'cost_daily', 'SELECT', NULL),
    ('gateway', 'cost_estimate', 'SELECT', NULL),
    ('gateway', 'reconciliation', 'SELECT', NULL),
    ('gateway', 'account_health', 'SELECT', NULL),

    ('admin', 'accounts', 'SELECT', NULL),
    ('admin', 'accounts', 'INSERT', NULL),
    ('admin', 'accounts', 'UPDATE', 'base_url, key_ciphertext, key_hint, enabled, labels, updated_at, next_due'),
    ('admin', 'accounts', 'DELETE', NULL),
    ('admin', 'account_feeds', 'SELECT', NULL),
    ('admin', 'account_feeds', 'UPDATE', 'enabled, next_due'),
    ('admin', 'account_balances', 'SELECT', NULL),
    ('admin', 'fetch_runs', 'SELECT', NULL),
    ('admin', 'run_accounts', 'SELECT', NULL),
    ('admin', 'owed_windows', 'SELECT', NULL),
    ('admin', 'owed_windows', 'UPDATE', 'next_try_at'),
    ('admin', 'usage_metrics', 'SELECT', NULL),
    ('admin', 'usage_metrics', 'DELETE', NULL),
    ('admin', 'usage_revisions', 'SELECT', NULL),
    ('admin', 'usage_revisions', 'DELETE', NULL),
    ('admin', 'dead_letters', 'SELECT', NULL),
    ('admin', 'dead_letters', 'UPDATE', 'closed_at'),
    ('admin', 'dead_letters', 'DELETE', NULL),
    ('admin', 'model_prices', 'SELECT', NULL),
    ('admin', 'model_prices', 'INSERT', NULL),
    ('admin', 'model_prices', 'UPDATE', NULL),
    ('admin', 'model_prices', 'DELETE', NULL),
    ('admin', 'alert_rules', 'SELECT', NULL),
    ('admin', 'alert_rules', 'INSERT', NULL),
    ('admin', 'alert_rules', 'UPDATE', NULL),
    ('admin', 'alert_rules', 'DELETE', NULL),
    ('admin', 'alert_events', 'SELECT', NULL),
    ('admin', 'outbox', 'SELECT', NULL),
    ('admin', 'pipeline', 'SELECT', NULL),
    ('admin', 'schema_migrations', 'SELECT', NULL),
    ('admin', 'role_rights', 'SELECT', NULL),
    ('admin', 'usage_hourly', 'SELECT', NULL),
    ('admin', 'usage_daily', 'SELECT', NULL),
    ('admin', 'usage_by_model', 'SELECT', NULL),
    ('admin', 'cost_daily', 'SELECT', NULL),
    ('admin', 'cost_estimate', 'SELECT', NULL),
    ('admin', 'reconciliation', 'SELECT', NULL),
    ('admin', 'account_health', 'SELECT', NULL);

-- Nothing of ours is for everybody, nor for the roles of Supabase's HTTP interface, which get every new table of theirs.
CREATE FUNCTION role_close() RETURNS void
    LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    ours oid[] := ARRAY(SELECT to_regclass(object) FROM role_rights WHERE privilege <> 'EXECUTE'); -- read before it is altered
    own  record;
BEGIN
    FOR own IN SELECT oid::regclass AS name FROM pg_class WHERE oid = ANY (ours) AND relkind IN ('r', 'p') AND NOT relrowsecurity
    LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', own.name);
    END LOOP;
    FOR own IN SELECT oid::regclass AS name FROM pg_class
               WHERE oid = ANY (ours) AND relkind = 'v' AND NOT coalesce(reloptions @> '{security_invoker=true}', false)
    LOOP
        EXECUTE format('ALTER VIEW %s SET (security_invoker = true)', own.name);
    END LOOP;
    FOR own IN
        WITH relation AS (SELECT unnest(ours) AS id UNION SELECT inhrelid FROM pg_inherits WHERE inhparent = 'usage_metrics'::regclass),
             owned AS (SELECT id FROM relation UNION SELECT d.objid FROM pg_depend d JOIN relation ON d.refobjid = id
                       WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass), -- sequences
             object AS (SELECT 'TABLE' AS kind, c.oid::regclass::text AS name, c.relacl AS acl
                        FROM pg_class c JOIN owned ON c.oid = id WHERE c.relkind IN ('r', 'p', 'v', 'S')
                        UNION ALL SELECT 'FUNCTION', p.oid::regprocedure::text, coalesce(p.proacl, acldefault('f', p.proowner))
                        FROM pg_proc p WHERE p.oid IN (SELECT to_regprocedure(object) FROM role_rights WHERE privilege = 'EXECUTE')
                        OR p.pronamespace = current_schema()::regnamespace AND p.proname IN ('role_close', 'role_policy', 'role_grant', 'role_setup'))
        SELECT DISTINCT kind, name, coalesce(quote_ident(r.rolname), 'PUBLIC') AS stranger
        FROM object, aclexplode(acl) a LEFT JOIN pg_roles r ON r.oid = a.grantee
        WHERE a.grantee = 0 OR r.rolname IN ('anon', 'authenticated')
    LOOP
        EXECUTE format('REVOKE ALL ON %s %s FROM %s', own.kind, own.name, own.stranger);
    END LOOP;
END $$;

-- The policy of a part names its roles, so policies also tell which roles of one's own were given a part.
CREATE FUNCTION role_policy(part text, object regclass, role name, writes boolean, locks boolean) RETURNS void
    LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    command text := CASE WHEN writes OR locks THEN 'ALL' ELSE 'SELECT' END;
    checked text := CASE WHEN locks AND NOT writes THEN 'WITH CHECK (false)' ELSE '' END;
    old     record;
BEGIN
    SELECT polroles AS roles, (polcmd = '*') = (command = 'ALL') AND (polwithcheck IS NOT NULL) = (checked <> '') AS fits
    INTO old FROM pg_policy WHERE polrelid = object AND polname = part;
    IF old.fits AND quote_ident(role)::regrole = ANY (old.roles) THEN
        RETURN; -- so that nobody waits for the table's lock
    END IF;
    EXECUTE format('DROP POLICY IF EXISTS %I ON %s', part, object);
    EXECUTE format('CREATE POLICY %I ON %s FOR %s TO %s USING (true) %s', part, object, command,
                   (SELECT string_agg(DISTINCT r::regrole::text, ', ')
                    FROM unnest(old.roles || quote_ident(role)::regrole::oid) AS r), checked);
END $$;

CREATE FUNCTION role_grant(part text, role name) RETURNS void
    LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    rights role_rights[] := ARRAY(SELECT t FROM role_rights t WHERE t.part = role_grant.part); -- read before it is altered
    r      record;
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), role);
    FOR r IN SELECT t.object, bool_or(t.privilege IN ('INSERT', 'UPDATE', 'DELETE')) AS writes,
                    bool_or(t.privilege = 'LOCK') AS locks, bool_or(t.privilege = 'EXECUTE') AS runs,
                    string_agg(replace(t.privilege, 'LOCK', 'UPDATE') || coalesce(' (' || t.columns || ')', ''), ', ') AS what
             FROM unnest(rights) t GROUP BY t.object
    LOOP
        IF r.runs THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', r.object::regprocedure, role);
            CONTINUE;
        END IF;
        EXECUTE format('GRANT %s ON %s TO %I', r.what, r.object::regclass, role);
        IF EXISTS (SELECT FROM pg_class WHERE oid = r.object::regclass AND relkind IN ('r', 'p')) THEN
            PERFORM role_policy(part, r.object, role, r.writes, r.locks);
        END IF;
    END LOOP;
END $$;
COMMENT ON FUNCTION role_grant IS 'Gives a role that exists the rights of one part. Called by: usagectl grant.';

-- The group role uf_PART for each part, as far as this login may make roles; and every role that has a part gets what
-- the part needs in this version. `ready` is false where no role has the part.
CREATE FUNCTION role_setup() RETURNS TABLE (part text, roles text, ready boolean)
    LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    holder name;
BEGIN
    PERFORM role_close();
    FOREACH part IN ARRAY ARRAY['scheduler', 'writer', 'gateway', 'admin']
    LOOP
        IF to_regrole('uf_' || part) IS NULL THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', 'uf_' || part);
            EXCEPTION
                WHEN insufficient_privilege THEN NULL; -- said by `ready`
                WHEN duplicate_object OR unique_violation THEN NULL; -- another database's migration was first
            END;
        END IF;
        roles := NULL;
        FOR holder IN SELECT rolname FROM pg_roles WHERE rolname = 'uf_' || part
                      OR oid IN (SELECT unnest(p.polroles) FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
                                 WHERE p.polname = part AND c.relnamespace = current_schema()::regnamespace)
                      ORDER BY 1
        LOOP
            PERFORM role_grant(part, holder);
            roles := concat_ws(', ', roles, holder);
        END LOOP;
        ready := roles IS NOT NULL;
        RETURN NEXT;
    END LOOP;
END $$;
COMMENT ON FUNCTION role_setup IS 'Closes everything to strangers, makes the roles of the pipeline and gives them their rights; again after each migration. Called by: usagectl migrate.';

-- Rows are reached through usage_metrics, whose grants and policies count then. A month by itself is nobody's.
CREATE OR REPLACE FUNCTION usage_metrics_ensure_month(at timestamptz) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    first date := date_trunc('month', at AT TIME ZONE 'UTC')::date;
    part  text := 'usage_metrics_' || to_char(first, 'YYYY_MM');
    ours  text := format('%I.%I', current_schema(), part); -- a caller may have a temporary table of that name
    other text;
BEGIN
    IF to_regclass(ours) IS NOT NULL THEN
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('usage_metrics_ensure_month'));
    IF to_regclass(ours) IS NOT NULL THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE TABLE %s (LIKE usage_metrics INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', ours);
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', ours);
    -- A hosted Postgres may give every new table to the roles of its HTTP interface.
    FOR other IN SELECT DISTINCT coalesce(quote_ident(r.rolname), 'PUBLIC')
                 FROM pg_class c, aclexplode(c.relacl) a LEFT JOIN pg_roles r ON r.oid = a.grantee
                 WHERE c.oid = to_regclass(ours) AND a.grantee <> c.relowner
    LOOP
        EXECUTE format('REVOKE ALL ON TABLE %s FROM %s', ours, other);
    END LOOP;
    EXECUTE format('ALTER TABLE usage_metrics ATTACH PARTITION %s FOR VALUES FROM (%L) TO (%L)', ours,
                   first::text || ' 00:00:00+00', (first + interval '1 month')::date::text || ' 00:00:00+00');
END $$;

SELECT * FROM role_setup();
