-- What comes before each part: a statement that cannot have its lock gives way, so that an upload which waits behind it
-- goes on; deploy/psql.sh tries again.
set local lock_timeout = '500ms';
set local client_min_messages = warning;
-- Nothing in public is taken for PostgreSQL's own.
set local search_path = '';
