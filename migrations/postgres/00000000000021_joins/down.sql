CREATE OR REPLACE FUNCTION greenroom_tell_batches_1(p_batches uuid[], p_attempts bigint) RETURNS void LANGUAGE sql AS $$
    INSERT INTO greenroom_tasks (id, partition, lane, target, message, state, priority, max_attempts, input)
    SELECT greenroom_uuid7(), b.partition, 0, b.notify::json ->> 'target', b.notify::json ->> 'message', 2, 0,
           p_attempts,
           convert_to(format('{"batch":"%s","succeeded":%s,"failed":%s}', b.id, b.succeeded, b.failed), 'UTF8')
      FROM greenroom_batches b
     WHERE b.id = ANY (p_batches) AND b.notify IS NOT NULL
     ORDER BY b.id
$$;

DROP FUNCTION greenroom_keep_joined_1(uuid, uuid, bytea);
