DROP FUNCTION greenroom_ready_queues_1();
DROP FUNCTION greenroom_announced_1();
DROP FUNCTION greenroom_announce_1(uuid, text[]);
ALTER TABLE greenroom_nodes DROP COLUMN queues;
