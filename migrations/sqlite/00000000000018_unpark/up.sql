-- Nothing to do here: a function of Postgres alone.
SELECT 1;
