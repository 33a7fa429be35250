DROP INDEX greenroom_subscriptions_agent;
DELETE FROM greenroom_counts WHERE id = 104;
