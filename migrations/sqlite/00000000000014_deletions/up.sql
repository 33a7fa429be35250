-- Agents that a person has deleted. Their rows stay, with the status 4 and a state of no content: an agent of
-- the same name goes on from that version, so that no late commit of the deleted one can come upon it.
INSERT INTO greenroom_counts (id, n) VALUES (104, 0);
-- Whose subscriptions end with it.
CREATE INDEX greenroom_subscriptions_agent ON greenroom_subscriptions (agent);
