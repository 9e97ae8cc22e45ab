-- Pages that come as they were last read go no further than the fetcher.

ALTER TABLE accounts ADD COLUMN page_digests bytea;
COMMENT ON COLUMN accounts.page_digests IS 'For the scheduler: digests of the pages that usage_metrics holds as they were last read, with the lease under which they were written (scheduler/digests.h). Good for the next lease only. Null: none; every page is then read.';

UPDATE role_rights SET columns = columns || ', page_digests'
WHERE part = 'scheduler' AND object = 'accounts' AND privilege IN ('SELECT', 'UPDATE');

ALTER TABLE fetch_runs ADD COLUMN pages_unchanged bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN fetch_runs.pages_unchanged IS 'Of pages: those that came as they were known. Nothing had to be done for them; their rows are in rows_unchanged.';

COMMENT ON COLUMN account_feeds.empty_since IS 'From here on no reading has brought rows, but for old ones in an audit. After three days such a feed is asked hourly.';
