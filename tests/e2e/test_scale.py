"""What docs/scale.md relies on: accounts, with all that is theirs, can be spread over several databases or partitions."""

from harness import equal
from runner import stack, test

# Of the installation, or of its sums over all accounts: each database has its own (docs/scale.md says what becomes of them).
NOT_OF_AN_ACCOUNT = {"alert_rules", "fetch_runs", "model_prices", "outbox", "pipeline", "role_rights", "schema_migrations",
                     "usage_open_days", "usage_slots", "usage_summed", "usage_totals"}


@test("scale: every table of accounts has account_id in each of its unique keys, and no other key but a name binds two accounts")
def _():
    with stack() as s:
        tables = "pg_class t WHERE t.relnamespace = 'public'::regnamespace AND t.relkind IN ('r', 'p') AND NOT t.relispartition"
        of_account = "EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = t.oid AND a.attname = 'account_id' AND NOT a.attisdropped)"
        equal({t for t, in s.sql(f"SELECT relname FROM {tables} AND NOT {of_account}")}, NOT_OF_AN_ACCOUNT, "tables without account_id")
        keys = s.sql(f"SELECT t.relname, i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid) FROM {tables.split(' WHERE ')[0]} "
                     f"JOIN pg_index i ON i.indrelid = t.oid AND i.indisunique WHERE {tables.split(' WHERE ')[1]} AND {of_account}")
        equal([key for _, key, text in keys if "account_id" not in text.split("(", 1)[1].split(" WHERE ")[0]],
              ["accounts_name_key", "alert_events_pkey"], "unique keys without account_id: a name, and what belongs to a rule")
        ledger = {"accounts", "account_feeds", "account_balances", "run_accounts", "owed_windows", "usage_metrics", "usage_revisions",
                  "dead_letters", "usage_unsummed_days"}
        equal(ledger - {t for t, _, _ in keys}, set(), "tables of accounts without a key")
        # a reference from one account's row to another table's row that is not an account's holds the two in one database
        refers = s.sql(f"SELECT DISTINCT t.relname, c.confrelid::regclass::text FROM {tables.split(' WHERE ')[0]} JOIN pg_constraint c "
                       f"ON c.conrelid = t.oid AND c.contype = 'f' WHERE {tables.split(' WHERE ')[1]} AND {of_account}")
        equal({other for _, other in refers} & NOT_OF_AN_ACCOUNT, {"alert_rules", "fetch_runs"}, "tables that an account's rows refer to")
