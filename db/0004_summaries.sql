-- Sums made ahead, so that a dashboard over a year and a thousand accounts opens at once.
--
-- The promise that readers build on: where usage_summed.valid, a day of an account is either in usage_unsummed_days, or
-- usage_days holds exactly the sums of its rows. The writer names the days it changes in the transaction that changes
-- them; usage_sum_up takes them off again. Whoever else changes rows makes all of it invalid in that same transaction,
-- until usage_sum_up has gone over all days. So a reader who takes from usage_metrics what is not summed up is exact
-- always, and only as fast as the summing up is far.
--
-- usage_account_days are the same by account, provider, feed and model alone, and so are the rows that a list of accounts
-- reads. usage_months and usage_account_months are sums of either.
--
-- usage_slots are the same for all accounts together, by the quarter of an hour, so that any zone's days can be made of
-- them, and usage_totals by the day of UTC. They hold for the days that are neither in usage_open_days nor, for any account,
-- in usage_unsummed_days.

-- Functions below keep this: names are looked for in our schema, and never first among somebody's temporary tables.
SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true);

CREATE TABLE usage_unsummed_days (
    account_id bigint NOT NULL,
    day        date NOT NULL,
    since      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (day, account_id)
);
CREATE INDEX usage_unsummed_days_since ON usage_unsummed_days (since, day);
COMMENT ON TABLE usage_unsummed_days IS 'Days (of UTC) that changed after they were summed up: their rows are read from usage_metrics until they are summed up again.';
COMMENT ON COLUMN usage_unsummed_days.since IS 'infinity: some sum of it may pass a bigint, so it stays here.';

CREATE TABLE usage_days (
    account_id          bigint NOT NULL,
    day                 date NOT NULL,
    provider            text NOT NULL,
    feed                text NOT NULL,
    project_id          text,
    user_id             text,
    api_key_id          text,
    model               text,
    service_tier        text,
    batch               boolean,
    line_item           text,
    quantity_unit       text,
    currency            text,
    input_tokens        bigint,
    cached_input_tokens bigint,
    cache_write_tokens  bigint,
    input_audio_tokens  bigint,
    output_audio_tokens bigint,
    output_tokens       bigint,
    num_requests        bigint,
    quantity            numeric,
    cost_amount         numeric,
    rows                bigint NOT NULL,
    last_start          timestamptz
);
CREATE INDEX usage_days_account ON usage_days (account_id, day);
CREATE INDEX usage_days_usage ON usage_days (day) WHERE cost_amount IS NULL;
CREATE INDEX usage_days_cost ON usage_days (day) WHERE cost_amount IS NOT NULL;
COMMENT ON TABLE usage_days IS 'Sums of usage_metrics by account, day (of UTC) and dimension, without dims. Made by usage_sum_up; never write to it.';
COMMENT ON COLUMN usage_days.last_start IS 'When the last of its buckets begins that are not whole days; null: none of them is.';

CREATE TABLE usage_months (LIKE usage_days);
ALTER TABLE usage_months DROP last_start;
ALTER TABLE usage_months RENAME day TO month;
CREATE INDEX usage_months_month ON usage_months (month, account_id);
COMMENT ON TABLE usage_months IS 'Sums of usage_days by month. A month of an account that has a day in usage_unsummed_days is not to be read here.';

CREATE TABLE usage_account_days (LIKE usage_days);
ALTER TABLE usage_account_days
    DROP project_id, DROP user_id, DROP api_key_id, DROP service_tier, DROP batch, DROP line_item;
CREATE INDEX usage_account_days_account ON usage_account_days (account_id, day);
CREATE INDEX usage_account_days_usage ON usage_account_days (day) WHERE cost_amount IS NULL;
CREATE INDEX usage_account_days_cost ON usage_account_days (day) WHERE cost_amount IS NOT NULL;
COMMENT ON TABLE usage_account_days IS 'Sums of usage_days by account, day, provider, feed and model alone. Holds where usage_days does.';

CREATE TABLE usage_account_months (LIKE usage_account_days);
ALTER TABLE usage_account_months DROP last_start;
ALTER TABLE usage_account_months RENAME day TO month;
CREATE INDEX usage_account_months_month ON usage_account_months (month, account_id);
COMMENT ON TABLE usage_account_months IS 'Sums of usage_account_days by month. Holds where usage_months does.';

CREATE TABLE usage_slots (
    slot                timestamptz NOT NULL,
    whole_day           boolean NOT NULL,
    provider            text NOT NULL,
    feed                text NOT NULL,
    model               text,
    service_tier        text,
    batch               boolean,
    line_item           text,
    quantity_unit       text,
    currency            text,
    input_tokens        numeric,
    cached_input_tokens numeric,
    cache_write_tokens  numeric,
    input_audio_tokens  numeric,
    output_audio_tokens numeric,
    output_tokens       numeric,
    num_requests        numeric,
    quantity            numeric,
    cost_amount         numeric,
    rows                bigint NOT NULL
);
CREATE INDEX usage_slots_slot ON usage_slots (slot);
COMMENT ON TABLE usage_slots IS 'Sums of usage_metrics over all accounts, by the quarter of an hour in which a bucket begins. Made by usage_slots_sum; never write to it.';
COMMENT ON COLUMN usage_slots.whole_day IS 'Figures for a day of UTC, which no zone can divide.';

CREATE TABLE usage_totals (day date NOT NULL, LIKE usage_slots);
ALTER TABLE usage_totals DROP slot, DROP whole_day;
CREATE INDEX usage_totals_usage ON usage_totals (day) WHERE cost_amount IS NULL;
CREATE INDEX usage_totals_cost ON usage_totals (day) WHERE cost_amount IS NOT NULL;
COMMENT ON TABLE usage_totals IS 'Sums of usage_slots by day of UTC. Holds where usage_slots does.';

CREATE TABLE usage_open_days (
    day   date PRIMARY KEY,
    since timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE usage_open_days IS 'Days of UTC whose usage_slots are older than the sums of some account.';

CREATE TABLE usage_summed (
    only_row       boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    valid          boolean NOT NULL DEFAULT false,
    named_until    bigint NOT NULL DEFAULT 0,
    months_until   date NOT NULL DEFAULT '1970-01-01',
    accounts_until bigint NOT NULL DEFAULT 0
);
INSERT INTO usage_summed DEFAULT VALUES;
COMMENT ON TABLE usage_summed IS 'One row: whether the sums are to be trusted, and how far usage_months is.';
COMMENT ON COLUMN usage_summed.valid IS 'Not before all days are in usage_days or usage_unsummed_days.';
COMMENT ON COLUMN usage_summed.named_until IS 'Where they are not valid: the days of the accounts up to this one are.';
COMMENT ON COLUMN usage_summed.months_until IS 'All months before this one are there, for every account.';
COMMENT ON COLUMN usage_summed.accounts_until IS 'Of that month those of the accounts up to this one are there already.';

CREATE FUNCTION usage_months_sum(of_accounts bigint[], of_month date) RETURNS void
    LANGUAGE sql SET search_path FROM CURRENT AS $$
    DELETE FROM usage_months WHERE month = of_month AND account_id = ANY (of_accounts);
    INSERT INTO usage_months
    SELECT account_id, of_month, provider, feed, project_id, user_id, api_key_id, model, service_tier, batch, line_item,
           quantity_unit, currency, sum(input_tokens), sum(cached_input_tokens), sum(cache_write_tokens),
           sum(input_audio_tokens), sum(output_audio_tokens), sum(output_tokens), sum(num_requests), sum(quantity),
           sum(cost_amount), sum(rows)
    FROM usage_days
    WHERE account_id = ANY (of_accounts) AND day >= of_month AND day < of_month + interval '1 month'
    GROUP BY account_id, provider, feed, project_id, user_id, api_key_id, model, service_tier, batch, line_item,
             quantity_unit, currency, cost_amount IS NULL;
    DELETE FROM usage_account_months WHERE month = of_month AND account_id = ANY (of_accounts);
    INSERT INTO usage_account_months
    SELECT account_id, of_month, provider, feed, model, quantity_unit, currency, sum(input_tokens), sum(cached_input_tokens),
           sum(cache_write_tokens), sum(input_audio_tokens), sum(output_audio_tokens), sum(output_tokens), sum(num_requests),
           sum(quantity), sum(cost_amount), sum(rows)
    FROM usage_account_days
    WHERE account_id = ANY (of_accounts) AND day >= of_month AND day < of_month + interval '1 month'
    GROUP BY account_id, provider, feed, model, quantity_unit, currency, cost_amount IS NULL
$$;

-- The next accounts of the month that is being summed up; after its last account the month after it, or the next one
-- of which anything is known.
CREATE FUNCTION usage_months_go_on(done usage_summed, most integer) RETURNS void
    LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    next bigint;
    ids  bigint[];
BEGIN
    IF done.accounts_until = 0 THEN
        done.months_until := coalesce(date_trunc('month', (SELECT min(day) FROM usage_days WHERE day >= done.months_until)),
                                      done.months_until);
    END IF;
    IF done.months_until + interval '1 month' > now() AT TIME ZONE 'UTC' - interval '1 day'
       OR (SELECT count(*) FROM (SELECT FROM usage_unsummed_days
                                 WHERE day < done.months_until + interval '1 month' AND since < 'infinity' LIMIT most) AS d) = most THEN
        RETURN; -- its days come first: each of them would have its month summed up again
    END IF;
    next := (SELECT min(account_id) FROM usage_days WHERE account_id > done.accounts_until);
    IF next IS NULL THEN
        done.months_until := done.months_until + interval '1 month';
        done.accounts_until := 0;
    ELSE
        ids := ARRAY(SELECT generate_series(next, next + most - 1));
        PERFORM usage_months_sum(ids, done.months_until);
        done.accounts_until := next + most - 1;
    END IF;
    UPDATE usage_summed SET months_until = done.months_until, accounts_until = done.accounts_until;
END $$;

CREATE FUNCTION usage_sum_again() RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT AS $$
    UPDATE usage_summed SET valid = false, named_until = 0 WHERE valid OR named_until > 0
$$;
COMMENT ON FUNCTION usage_sum_again IS 'Has everything summed up again: after rows of a single partition were changed by hand, which nothing notices.';

CREATE FUNCTION usage_changed_by_others() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM usage_sum_again();
    RETURN NULL;
END $$;
CREATE TRIGGER usage_changed_by_others AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON usage_metrics
    FOR EACH STATEMENT WHEN (current_setting('uf.sums', true) IS DISTINCT FROM 'kept')
    EXECUTE FUNCTION usage_changed_by_others();
COMMENT ON TRIGGER usage_changed_by_others ON usage_metrics IS 'A transaction that keeps the sums itself says so: SET LOCAL uf.sums = kept.';

-- The days of the next accounts, for a second at most (and one account at least), until all are named.
CREATE FUNCTION usage_days_name(done usage_summed) RETURNS void
    LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    FOR i IN 1 .. 20 LOOP
        done.named_until := (SELECT min(account_id) FROM
            (SELECT min(account_id) AS account_id FROM usage_metrics WHERE account_id > done.named_until
             UNION ALL SELECT min(account_id) FROM usage_days WHERE account_id > done.named_until) AS n);
        IF done.named_until IS NULL THEN
            UPDATE usage_summed SET valid = true, named_until = 0;
            RETURN;
        END IF;
        INSERT INTO usage_unsummed_days (account_id, day)
        SELECT DISTINCT account_id, (bucket_start AT TIME ZONE 'UTC')::date FROM usage_metrics WHERE account_id = done.named_until
        UNION SELECT account_id, day FROM usage_days WHERE account_id = done.named_until
        ON CONFLICT DO NOTHING;
        EXIT WHEN clock_timestamp() > now() + interval '1 second';
    END LOOP;
    UPDATE usage_summed SET named_until = done.named_until;
END $$;

-- Under the lock on its account no writer can change the day, nor name it, before this has ended.
CREATE FUNCTION usage_sum_up(most integer, after interval) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT
    SET jit = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off AS $$
DECLARE
    large   constant numeric := 9223372036854775807 / 31; -- so that a month's sums fit, too
    ids     bigint[];
    days    date[];
    seen    integer;
    done    usage_summed;
    touched record;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('usage_sum_up'), hashtext(current_schema())) THEN
        RETURN 0; -- another writer does it
    END IF;
    SELECT * INTO done FROM usage_summed FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0; -- somebody is changing rows
    END IF;
    IF NOT done.valid THEN
        PERFORM usage_days_name(done);
        RETURN most; -- at once again
    END IF;
    WITH oldest AS (
        SELECT account_id, day FROM usage_unsummed_days
        WHERE since <= now() - after
        ORDER BY since, day LIMIT most
    ), free AS (
        SELECT account_id FROM accounts WHERE account_id IN (SELECT account_id FROM oldest) FOR NO KEY UPDATE SKIP LOCKED
    )
    SELECT array_agg(o.account_id), array_agg(o.day) INTO ids, days FROM oldest o
    WHERE o.account_id IN (SELECT account_id FROM free) OR NOT EXISTS (SELECT FROM accounts a WHERE a.account_id = o.account_id);
    seen := coalesce(cardinality(ids), 0);
    IF seen > 0 THEN
        DELETE FROM usage_days d USING unnest(ids, days) AS o (account_id, day)
        WHERE d.account_id = o.account_id AND d.day = o.day;
        DELETE FROM usage_account_days d USING unnest(ids, days) AS o (account_id, day)
        WHERE d.account_id = o.account_id AND d.day = o.day;
        DELETE FROM usage_unsummed_days d USING unnest(ids, days) AS o (account_id, day)
        WHERE d.account_id = o.account_id AND d.day = o.day;
        WITH sums AS (
            SELECT m.account_id, o.day, m.provider, m.feed, m.project_id, m.user_id, m.api_key_id, m.model, m.service_tier, m.batch,
                   m.line_item, m.quantity_unit, m.currency, sum(m.input_tokens) AS c0, sum(m.cached_input_tokens) AS c1,
                   sum(m.cache_write_tokens) AS c2, sum(m.input_audio_tokens) AS c3, sum(m.output_audio_tokens) AS c4,
                   sum(m.output_tokens) AS c5, sum(m.num_requests) AS c6, sum(m.quantity) AS quantity,
                   sum(m.cost_amount) AS cost_amount, count(*) AS rows,
                   max(m.bucket_start) FILTER (WHERE m.bucket_seconds < 86400) AS last_start
            FROM unnest(ids, days) AS o (account_id, day)
            JOIN usage_metrics m ON m.account_id = o.account_id AND m.bucket_start >= o.day::timestamp AT TIME ZONE 'UTC'
                 AND m.bucket_start < (o.day + 1)::timestamp AT TIME ZONE 'UTC'
            GROUP BY m.account_id, o.day, m.provider, m.feed, m.project_id, m.user_id, m.api_key_id, m.model, m.service_tier,
                     m.batch, m.line_item, m.quantity_unit, m.currency, m.cost_amount IS NULL
        ), left_alone AS (
            INSERT INTO usage_unsummed_days (account_id, day, since)
            SELECT account_id, day, timestamptz 'infinity' FROM sums GROUP BY account_id, day
            HAVING greatest(sum(abs(c0)), sum(abs(c1)), sum(abs(c2)), sum(abs(c3)), sum(abs(c4)), sum(abs(c5)), sum(abs(c6))) > large
            RETURNING account_id, day
        )
        INSERT INTO usage_days
        SELECT account_id, day, provider, feed, project_id, user_id, api_key_id, model, service_tier, batch, line_item,
               quantity_unit, currency, c0, c1, c2, c3, c4, c5, c6, quantity, cost_amount, rows, last_start
        FROM sums WHERE (account_id, day) NOT IN (SELECT account_id, day FROM left_alone);
        INSERT INTO usage_account_days
        SELECT d.account_id, d.day, d.provider, d.feed, d.model, d.quantity_unit, d.currency, sum(d.input_tokens),
               sum(d.cached_input_tokens), sum(d.cache_write_tokens), sum(d.input_audio_tokens), sum(d.output_audio_tokens),
               sum(d.output_tokens), sum(d.num_requests), sum(d.quantity), sum(d.cost_amount), sum(d.rows), max(d.last_start)
        FROM unnest(ids, days) AS o (account_id, day) JOIN usage_days d ON d.account_id = o.account_id AND d.day = o.day
        GROUP BY d.account_id, d.day, d.provider, d.feed, d.model, d.quantity_unit, d.currency, d.cost_amount IS NULL;
        INSERT INTO usage_open_days (day) SELECT DISTINCT unnest(days) ON CONFLICT DO NOTHING;
    END IF;

    FOR touched IN SELECT date_trunc('month', o.day)::date AS month, array_agg(DISTINCT o.account_id) AS accounts
                   FROM unnest(ids, days) AS o (account_id, day)
                   WHERE o.day < done.months_until
                      OR o.day < done.months_until + interval '1 month' AND o.account_id <= done.accounts_until
                   GROUP BY 1
    LOOP
        PERFORM usage_months_sum(touched.accounts, touched.month);
    END LOOP;
    PERFORM usage_months_go_on(done, most);
    RETURN seen;
END $$;
COMMENT ON FUNCTION usage_sum_up IS 'Sums up at most so many of the days that changed so long ago; answers how many there were. Called by the writers, mostly when they have nothing else to do.';

-- A day that has no unsummed account is that of its rows. Nothing can change it meanwhile: an account that is named
-- after this has begun keeps readers off the day's slots, and opens it again.
CREATE FUNCTION usage_slots_sum(after interval) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT
    SET jit = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off AS $$
DECLARE
    next date;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('usage_sum_up'), hashtext(current_schema()))
       OR NOT (SELECT valid FROM usage_summed) THEN
        RETURN false;
    END IF;
    next := (SELECT o.day FROM usage_open_days o
             WHERE o.since <= now() - after AND NOT EXISTS (SELECT FROM usage_unsummed_days u WHERE u.day = o.day)
             ORDER BY o.since, o.day LIMIT 1);
    IF next IS NULL THEN
        RETURN false;
    END IF;
    DELETE FROM usage_slots WHERE slot >= next::timestamp AT TIME ZONE 'UTC' AND slot < (next + 1)::timestamp AT TIME ZONE 'UTC';
    INSERT INTO usage_slots
    SELECT date_bin('15 minutes', m.bucket_start, '2000-01-01Z'), m.bucket_seconds >= 86400, m.provider, m.feed, m.model,
           m.service_tier, m.batch, m.line_item, m.quantity_unit, m.currency, sum(m.input_tokens), sum(m.cached_input_tokens),
           sum(m.cache_write_tokens), sum(m.input_audio_tokens), sum(m.output_audio_tokens), sum(m.output_tokens),
           sum(m.num_requests), sum(m.quantity), sum(m.cost_amount), count(*)
    FROM (SELECT account_id FROM usage_account_days WHERE day = next AND cost_amount IS NULL
          UNION SELECT account_id FROM usage_account_days WHERE day = next AND cost_amount IS NOT NULL) a
    JOIN usage_metrics m ON m.account_id = a.account_id AND m.bucket_start >= next::timestamp AT TIME ZONE 'UTC'
         AND m.bucket_start < (next + 1)::timestamp AT TIME ZONE 'UTC'
    GROUP BY 1, 2, m.provider, m.feed, m.model, m.service_tier, m.batch, m.line_item, m.quantity_unit, m.currency,
             m.cost_amount IS NULL;
    DELETE FROM usage_totals WHERE day = next AND cost_amount IS NULL;
    DELETE FROM usage_totals WHERE day = next AND cost_amount IS NOT NULL;
    INSERT INTO usage_totals
    SELECT next, provider, feed, model, service_tier, batch, line_item, quantity_unit, currency, sum(input_tokens),
           sum(cached_input_tokens), sum(cache_write_tokens), sum(input_audio_tokens), sum(output_audio_tokens), sum(output_tokens),
           sum(num_requests), sum(quantity), sum(cost_amount), sum(rows)
    FROM usage_slots
    WHERE slot >= next::timestamp AT TIME ZONE 'UTC' AND slot < (next + 1)::timestamp AT TIME ZONE 'UTC'
    GROUP BY provider, feed, model, service_tier, batch, line_item, quantity_unit, currency, cost_amount IS NULL;
    DELETE FROM usage_open_days WHERE day = next;
    RETURN true;
END $$;
COMMENT ON FUNCTION usage_slots_sum IS 'Sums up the slots of one day that was opened so long ago; false: there is none. Called by the writers when there are no days of accounts to sum up.';

CREATE FUNCTION usage_sums_forget(account bigint) RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT AS $$
    SELECT set_config('uf.sums', 'kept', true);
    SELECT pg_advisory_xact_lock(hashtext('usage_sum_up'), hashtext(current_schema()));
    INSERT INTO usage_open_days (day)
    SELECT day FROM usage_days WHERE account_id = account UNION SELECT day FROM usage_unsummed_days WHERE account_id = account
    ON CONFLICT DO NOTHING;
    DELETE FROM usage_days WHERE account_id = account;
    DELETE FROM usage_months WHERE account_id = account;
    DELETE FROM usage_account_days WHERE account_id = account;
    DELETE FROM usage_account_months WHERE account_id = account;
    DELETE FROM usage_unsummed_days WHERE account_id = account;
$$;
COMMENT ON FUNCTION usage_sums_forget IS 'Before all rows of an account are deleted, in the same transaction: then the other sums stay valid. Called by: usagectl account remove --purge.';

INSERT INTO role_rights (part, object, privilege) VALUES
    ('writer', 'usage_unsummed_days', 'INSERT'),
    ('writer', 'usage_sum_up(integer, interval)', 'EXECUTE'),
    ('writer', 'usage_slots_sum(interval)', 'EXECUTE'),
    ('gateway', 'usage_unsummed_days', 'SELECT'),
    ('gateway', 'usage_days', 'SELECT'),
    ('gateway', 'usage_months', 'SELECT'),
    ('gateway', 'usage_account_days', 'SELECT'),
    ('gateway', 'usage_account_months', 'SELECT'),
    ('gateway', 'usage_totals', 'SELECT'),
    ('gateway', 'usage_summed', 'SELECT'),
    ('gateway', 'usage_slots', 'SELECT'),
    ('gateway', 'usage_open_days', 'SELECT'),
    ('admin', 'usage_sums_forget(bigint)', 'EXECUTE'),
    ('admin', 'usage_sum_again()', 'EXECUTE');
