-- What it made quicker stays so.
SELECT 1;
