"""The doctor: checks a project from outside and in its database, and prints each problem with its remedy.

``python -m deploy.doctor`` prints one line for each check. Nothing is changed: the probe that tries the S3 keys is
deleted again (a rule that it fits notes it as skipped), and the jobs that the functions are asked for do not exist.

The database's half is SQL (``ittybit.doctor()``, supabase/migrations/*_doctor.sql) and may be called from any editor.
"""
