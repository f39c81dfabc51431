-- Runs before each SQL file: a statement that cannot get its lock in time gives way, so that uploads waiting behind it
-- go on. deploy/psql.sh tries again.
set local lock_timeout = '500ms';
set local client_min_messages = warning;
-- Nothing in schema public can shadow PostgreSQL's own functions.
set local search_path = '';
