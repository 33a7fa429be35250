-- Nothing to do here: on SQLite the keys were asked before.
SELECT 1;
