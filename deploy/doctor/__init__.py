"""The doctor: checks a project from outside and in its database, and prints each problem with its remedy.

``python -m deploy.doctor`` prints one line for each check. It changes no setting. The probe that tries the S3 keys is
deleted again and starts no job. on-upload and push-back get a wake-up like pg_cron's, and do what is due.

The database checks are SQL (``ittybit.doctor()``, supabase/migrations/*_doctor.sql) and may be called from any editor.
"""
