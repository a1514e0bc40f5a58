-- Making and dropping partitions waits for whoever reads the table, and everybody who counts waits
-- behind it. Rather fail soon: it is tried again, and partitions are made days ahead.

alter function ensure_usage_partitions(date, integer) set lock_timeout = '2s';
alter function drop_usage_events(date) set lock_timeout = '2s';
