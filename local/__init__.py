"""The embedded stack: PostgreSQL, Supabase and ittybit on one laptop, with no account."""
