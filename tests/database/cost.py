"""Measures a statement by the pages and rows that it reads, which do not depend on the load of the machine."""

from __future__ import annotations

from tests.database.rows import Connection


def pages(connection: Connection, statement: str) -> int:
    """Run a statement and return how many pages it read, also in the functions that it calls."""
    [row] = connection.execute(f"explain (analyze, buffers, format json) {statement}".encode()).fetchall()
    [plan] = row["QUERY PLAN"]
    return int(plan["Plan"]["Shared Hit Blocks"]) + int(plan["Plan"]["Shared Read Blocks"])


def with_kept_plans(connection: Connection) -> None:
    """Use generic plans for the statements inside functions, as long-lived sessions do."""
    connection.execute("set plan_cache_mode = force_generic_plan")


def rows_scanned(connection: Connection, table: str) -> int:
    """Return how many of a table's rows this transaction has read without an index."""
    [row] = connection.execute(
        "select coalesce(sum(seq_tup_read), 0) as rows from pg_stat_xact_user_tables"
        " where schemaname || '.' || relname = %s",
        [table],
    ).fetchall()
    return int(row["rows"])
