"""What a statement costs the database: pages and rows it touched, which no other load on the machine changes."""

from __future__ import annotations

from tests.database.rows import Connection


def pages(connection: Connection, statement: str) -> int:
    """Run a statement and return how many pages it read, those of the functions that it calls included."""
    [row] = connection.execute(f"explain (analyze, buffers, format json) {statement}".encode()).fetchall()
    [plan] = row["QUERY PLAN"]
    return int(plan["Plan"]["Shared Hit Blocks"]) + int(plan["Plan"]["Shared Read Blocks"])


def with_kept_plans(connection: Connection) -> None:
    """Let statements inside functions be planned once and for all values, as sessions that live long come to do."""
    connection.execute("set plan_cache_mode = force_generic_plan")


def rows_scanned(connection: Connection, table: str) -> int:
    """Return how many of a table's rows this transaction has read without an index."""
    [row] = connection.execute(
        "select coalesce(sum(seq_tup_read), 0) as rows from pg_stat_xact_user_tables"
        " where schemaname || '.' || relname = %s",
        [table],
    ).fetchall()
    return int(row["rows"])
