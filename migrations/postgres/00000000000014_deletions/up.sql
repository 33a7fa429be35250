-- Agents that a person has deleted. Their rows stay, with the status 4 and a state of no content: an agent of
-- the same name goes on from that version, so that no late commit of the deleted one can come upon it.
INSERT INTO greenroom_counts (id, n) VALUES (104, 0);
-- Whose subscriptions end with it.
CREATE INDEX greenroom_subscriptions_agent ON greenroom_subscriptions (agent);

-- Deletes an agent that is at a version, or was deleted at it by the same caller before.
CREATE FUNCTION greenroom_delete_agent_1(
    p_id uuid, p_partition smallint, p_epoch bigint, p_version bigint, p_state bytea
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(7307498012);
    IF NOT EXISTS (SELECT 1 FROM greenroom_partitions p WHERE p.id = p_partition AND p.epoch = p_epoch) THEN
        RETURN false;
    END IF;
    UPDATE greenroom_agents a
       SET status = 4, reason = NULL, epoch = p_epoch, version = p_version + 2, state = p_state,
           created_at = now(), updated_at = now()
     WHERE a.id = p_id AND a.version = p_version;
    IF NOT FOUND THEN
        RETURN EXISTS (SELECT 1 FROM greenroom_agents a
                        WHERE a.id = p_id AND a.version = p_version + 2 AND a.epoch = p_epoch AND a.status = 4);
    END IF;
    DELETE FROM greenroom_snapshots s WHERE s.agent = p_id;
    DELETE FROM greenroom_subscriptions s WHERE s.agent = p_id;
    DELETE FROM greenroom_idempotency k WHERE k.scope = p_id;
    RETURN true;
END $$;
