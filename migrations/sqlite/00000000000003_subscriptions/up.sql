-- Who is subscribed to which topic: an agent at most once to each.
CREATE TABLE greenroom_subscriptions (
    -- `name`, or `name/key`.
    topic TEXT NOT NULL,
    agent BLOB NOT NULL,
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    -- The message that it takes from the topic.
    message TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (topic, agent)
);
