DROP FUNCTION greenroom_delete_agent_1(uuid, smallint, bigint, bigint, bytea);
DROP INDEX greenroom_subscriptions_agent;
DELETE FROM greenroom_counts WHERE id = 104;
