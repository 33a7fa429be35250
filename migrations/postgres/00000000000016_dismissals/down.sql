DROP FUNCTION greenroom_dismiss_many_1(uuid[], smallint[], text);
