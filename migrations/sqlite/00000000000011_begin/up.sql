-- Nothing to do here: functions of Postgres alone.
SELECT 1;
