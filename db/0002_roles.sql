-- Who may do what: one group role for each process, made here where the migrating login may make roles. What a process
-- is allowed is one table, role_rights(); grants, row-level security, and what `usagectl doctor` compares come from it.

-- Functions below keep this: names are looked for in our schema, and never first among somebody's temporary tables.
SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true);

CREATE FUNCTION role_rights() RETURNS TABLE (part text, object text, privilege text, columns text)
    LANGUAGE sql IMMUTABLE SET search_path FROM CURRENT AS $$ VALUES
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
    ('admin', 'usage_hourly', 'SELECT', NULL),
    ('admin', 'usage_daily', 'SELECT', NULL),
    ('admin', 'usage_by_model', 'SELECT', NULL),
    ('admin', 'cost_daily', 'SELECT', NULL),
    ('admin', 'cost_estimate', 'SELECT', NULL),
    ('admin', 'reconciliation', 'SELECT', NULL),
    ('admin', 'account_health', 'SELECT', NULL)
$$;
COMMENT ON FUNCTION role_rights IS 'What each part of the pipeline may do, and nothing else. columns: null is all. LOCK: may lock rows (SELECT ... FOR NO KEY UPDATE asks for UPDATE on some column), and a policy refuses every change.';

-- The policy of a part names its roles, so policies also tell which roles of one's own were given a part.
CREATE FUNCTION role_policy(part text, object regclass, role name, writes boolean, locks boolean) RETURNS void
    LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    old oid[] := (SELECT polroles FROM pg_policy WHERE polrelid = object AND polname = part);
BEGIN
    IF old IS NULL THEN
        EXECUTE format('CREATE POLICY %I ON %s FOR %s TO %I USING (true)', part, object,
                       CASE WHEN writes OR locks THEN 'ALL' ELSE 'SELECT' END, role);
        IF locks THEN
            EXECUTE format('ALTER POLICY %I ON %s WITH CHECK (false)', part, object);
        END IF;
    ELSIF NOT (SELECT oid FROM pg_roles WHERE rolname = role) = ANY (old) THEN
        EXECUTE format('ALTER POLICY %I ON %s TO %s, %I', part, object,
                       (SELECT string_agg(r::regrole::text, ', ') FROM unnest(old) AS r), role);
    END IF;
END $$;

CREATE FUNCTION role_grant(part text, role name) RETURNS void
    LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    r record;
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), role);
    FOR r IN SELECT t.object, bool_or(t.privilege IN ('INSERT', 'UPDATE', 'DELETE')) AS writes,
                    bool_or(t.privilege = 'LOCK') AS locks, bool_or(t.privilege = 'EXECUTE') AS runs,
                    string_agg(replace(t.privilege, 'LOCK', 'UPDATE') || coalesce(' (' || t.columns || ')', ''), ', ') AS what
             FROM role_rights() t WHERE t.part = role_grant.part GROUP BY t.object
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
    EXECUTE format('GRANT EXECUTE ON FUNCTION role_rights() TO %I', role);
END $$;
COMMENT ON FUNCTION role_grant IS 'Gives a role that exists the rights of one part. Called by: usagectl grant.';

-- The group role uf_PART for each part, as far as this login may make roles; and every role that has a part gets what
-- the part needs in this version. `ready` is false where no role has the part.
CREATE FUNCTION role_setup() RETURNS TABLE (part text, roles text, ready boolean)
    LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    holder name;
BEGIN
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
COMMENT ON FUNCTION role_setup IS 'Makes the roles of the pipeline and gives them their rights, again after each migration. Called by: usagectl migrate.';

-- Rows are reached through usage_metrics, whose grants and policies count then. A month by itself is nobody's.
CREATE OR REPLACE FUNCTION usage_metrics_ensure_month(at timestamptz) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    first date := date_trunc('month', at AT TIME ZONE 'UTC')::date;
    part  text := 'usage_metrics_' || to_char(first, 'YYYY_MM');
    ours  text := format('%I.%I', current_schema(), part); -- a caller may have a temporary table of that name
    other name;
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
    FOR other IN SELECT DISTINCT r.rolname FROM pg_class c, aclexplode(c.relacl) a JOIN pg_roles r ON r.oid = a.grantee
                 WHERE c.oid = to_regclass(ours) AND a.grantee <> c.relowner
    LOOP
        EXECUTE format('REVOKE ALL ON TABLE %s FROM %I', ours, other);
    END LOOP;
    EXECUTE format('ALTER TABLE usage_metrics ATTACH PARTITION %s FOR VALUES FROM (%L) TO (%L)', ours,
                   first::text || ' 00:00:00+00', (first + interval '1 month')::date::text || ' 00:00:00+00');
END $$;

-- Nothing for everybody, nor for the roles of Supabase's HTTP interface, which get every new table of theirs.
DO $$
DECLARE
    stranger text;
    object   text;
BEGIN
    FOR stranger IN SELECT 'PUBLIC' UNION ALL SELECT quote_ident(rolname) FROM pg_roles WHERE rolname IN ('anon', 'authenticated')
    LOOP
        FOR object IN SELECT DISTINCT c.oid::regclass::text FROM pg_class c
                      WHERE c.relnamespace = current_schema()::regnamespace
                      AND (c.relname = 'schema_migrations' OR c.relname IN (SELECT r.object FROM role_rights() r)
                           OR c.oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'usage_metrics'::regclass)
                           OR c.relkind = 'S' AND EXISTS (SELECT FROM pg_depend d JOIN pg_class t ON t.oid = d.refobjid
                               JOIN role_rights() r ON r.object = t.relname
                               WHERE d.objid = c.oid AND t.relnamespace = c.relnamespace))
        LOOP
            EXECUTE format('REVOKE ALL ON %s FROM %s', object, stranger);
        END LOOP;
        FOREACH object IN ARRAY ARRAY['usage_metrics_ensure_month(timestamptz)', 'role_rights()', 'role_setup()', 'role_grant(text, name)',
                                      'role_policy(text, regclass, name, boolean, boolean)']
        LOOP
            EXECUTE format('REVOKE ALL ON FUNCTION %s FROM %s', object, stranger);
        END LOOP;
    END LOOP;
END $$;

SELECT * FROM role_setup();
