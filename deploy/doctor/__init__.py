"""The doctor: looks at a project from outside and from its database, and says what is wrong and what to do about it.

``python -m deploy.doctor`` prints one line for each check. Nothing is changed: what it stores to try the S3 keys it
deletes again, and the jobs that it asks the functions for do not exist.

The database's half is SQL (``ittybit.doctor()``, supabase/migrations/*_doctor.sql) and may be called from any editor.
"""
