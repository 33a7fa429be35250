//! The tables, as diesel sees them. The columns are explained in `migrations`.

diesel::table! {
    use diesel::sql_types::*;
    use crate::store::values::types::*;

    greenroom_meta (name) {
        name -> Text,
        value -> BigInt,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::store::values::types::*;

    greenroom_tokens (name) {
        name -> Text,
        digest -> Binary,
        scope -> Text,
        created_at -> Moment,
        expires_at -> Nullable<Moment>,
        used_at -> Nullable<Moment>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::store::values::types::*;

    greenroom_acts (id) {
        id -> Uid,
        at -> Moment,
        who -> Text,
        address -> Nullable<Text>,
        action -> Text,
        subject -> Text,
        outcome -> Nullable<Text>,
        before -> Nullable<Binary>,
        after -> Nullable<Binary>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::store::values::types::*;

    greenroom_crashes (id) {
        id -> Uid,
        kind -> Text,
        place -> Text,
        first_at -> Moment,
        last_at -> Moment,
        count -> BigInt,
        crash -> Text,
        report -> Binary,
        backtrace -> Nullable<Binary>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::store::values::types::*;

    greenroom_paused (queue) {
        queue -> Text,
        at -> Moment,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::store::values::types::*;

    greenroom_nodes (id) {
        id -> Uid,
        name -> Text,
        started_at -> Moment,
        ended_at -> Nullable<Moment>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::store::values::types::*;

    greenroom_partitions (id) {
        id -> SmallInt,
        node -> Nullable<Uid>,
        epoch -> BigInt,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::store::values::types::*;

    greenroom_agents (id) {
        id -> Uid,
        partition -> SmallInt,
        kind -> Text,
        key -> Text,
        status -> SmallInt,
        reason -> Nullable<Text>,
        epoch -> BigInt,
        version -> BigInt,
        schema_version -> BigInt,
        created_at -> Moment,
        updated_at -> Moment,
        state -> Binary,
        held_at -> Nullable<Moment>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::store::values::types::*;

    greenroom_snapshots (agent, version) {
        agent -> Uid,
        version -> BigInt,
        epoch -> BigInt,
        at -> Moment,
        state -> Binary,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::store::values::types::*;

    greenroom_tasks (rowid) {
        rowid -> BigInt,
        id -> Uid,
        seq -> BigInt,
        partition -> SmallInt,
        lane -> SmallInt,
        target -> Text,
        message -> Text,
        state -> SmallInt,
        priority -> SmallInt,
        run_at -> Nullable<Moment>,
        attempt -> BigInt,
        lost -> BigInt,
        lost_alone -> BigInt,
        alone -> Bool,
        max_attempts -> BigInt,
        timeout_ms -> Nullable<BigInt>,
        waits_for -> BigInt,
        run_after_failure -> Bool,
        awaited -> Bool,
        cancel -> Bool,
        notify -> Nullable<Text>,
        batch -> Nullable<Uid>,
        parent -> Nullable<Uid>,
        tags -> Nullable<Text>,
        expires_at -> Nullable<Moment>,
        idempotency_key -> Nullable<Text>,
        node -> Nullable<Uid>,
        created_at -> Moment,
        started_at -> Nullable<Moment>,
        error -> Nullable<Binary>,
        input -> Binary,
        claim -> BigInt,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::store::values::types::*;

    greenroom_task_parents (parent, child) {
        parent -> Uid,
        child -> Uid,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::store::values::types::*;

    greenroom_task_edges (child, parent) {
        child -> Uid,
        parent -> Uid,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::store::values::types::*;

    greenroom_task_archive (rowid) {
        rowid -> BigInt,
        id -> Uid,
        seq -> BigInt,
        target -> Text,
        message -> Text,
        state -> SmallInt,
        priority -> SmallInt,
        run_at -> Nullable<Moment>,
        attempt -> BigInt,
        lost -> BigInt,
        max_attempts -> BigInt,
        timeout_ms -> Nullable<BigInt>,
        run_after_failure -> Bool,
        notify -> Nullable<Text>,
        batch -> Nullable<Uid>,
        parent -> Nullable<Uid>,
        tags -> Nullable<Text>,
        idempotency_key -> Nullable<Text>,
        node -> Nullable<Uid>,
        created_at -> Moment,
        started_at -> Nullable<Moment>,
        finished_at -> Moment,
        result -> Nullable<Binary>,
        error -> Nullable<Binary>,
        input -> Binary,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::store::values::types::*;

    greenroom_batches (id) {
        id -> Uid,
        size -> BigInt,
        open -> BigInt,
        succeeded -> BigInt,
        failed -> BigInt,
        notify -> Nullable<Text>,
        created_at -> Moment,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::store::values::types::*;

    greenroom_idempotency (scope, key) {
        scope -> Uid,
        key -> Text,
        request -> Binary,
        task -> Nullable<Uid>,
        reply -> Nullable<Binary>,
        expires_at -> Moment,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::store::values::types::*;

    greenroom_task_events (rowid) {
        rowid -> BigInt,
        task -> Uid,
        at -> Moment,
        event -> Text,
        attempt -> BigInt,
        node -> Nullable<Uid>,
        detail -> Nullable<Text>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::store::values::types::*;

    greenroom_counts (id) {
        id -> SmallInt,
        n -> BigInt,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::store::values::types::*;

    greenroom_conversations (id) {
        id -> Uid,
        title -> Nullable<Text>,
        metadata -> Binary,
        last_seq -> BigInt,
        version -> BigInt,
        created_at -> Moment,
        updated_at -> Moment,
        used_on -> Integer,
        deleted -> Bool,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::store::values::types::*;

    greenroom_messages (conversation, seq) {
        conversation -> Uid,
        seq -> BigInt,
        id -> Uid,
        role -> Text,
        created_at -> Moment,
        content -> Binary,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::store::values::types::*;

    greenroom_sessions (id) {
        id -> Text,
        version -> Uid,
        revision -> BigInt,
        ttl_ms -> BigInt,
        created_at -> Moment,
        updated_at -> Moment,
        expires_at -> Moment,
        expires_in -> Integer,
        data -> Binary,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::store::values::types::*;

    greenroom_subscriptions (topic, agent) {
        topic -> Text,
        agent -> Uid,
        kind -> Text,
        key -> Text,
        message -> Text,
        created_at -> Moment,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::store::values::types::*;

    greenroom_journal (task, hash, occurrence) {
        task -> Uid,
        hash -> Binary,
        occurrence -> BigInt,
        target -> Text,
        ordinal -> BigInt,
        answer -> Nullable<Binary>,
        at -> Moment,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::store::values::types::*;

    greenroom_waits (task, name, occurrence) {
        task -> Uid,
        name -> Text,
        occurrence -> BigInt,
        until -> Nullable<Moment>,
        open -> Bool,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::store::values::types::*;

    greenroom_signals (rowid) {
        rowid -> BigInt,
        task -> Uid,
        name -> Text,
        id -> Uid,
        body -> Binary,
        at -> Moment,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::store::values::types::*;

    greenroom_task_progress (task) {
        task -> Uid,
        at -> Moment,
        progress -> Binary,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::store::values::types::*;

    greenroom_task_logs (rowid) {
        rowid -> BigInt,
        task -> Uid,
        at -> Moment,
        level -> SmallInt,
        text -> Text,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::store::values::types::*;

    greenroom_schedules (name) {
        name -> Text,
        revision -> Uid,
        origin -> Text,
        paused -> Bool,
        spec -> Text,
        overlap -> Text,
        misfire -> Text,
        target -> Text,
        message -> Text,
        priority -> SmallInt,
        max_attempts -> Nullable<BigInt>,
        timeout_ms -> Nullable<BigInt>,
        tags -> Nullable<Text>,
        next_at -> Nullable<Moment>,
        last_at -> Nullable<Moment>,
        last_task -> Nullable<Uid>,
        created_at -> Moment,
        updated_at -> Moment,
        input -> Binary,
    }
}

diesel::table! {
    greenroom_settings (id) {
        id -> BigInt,
        generation -> BigInt,
        document -> Text,
    }
}

diesel::allow_tables_to_appear_in_same_query!(greenroom_agents, greenroom_snapshots);
diesel::allow_tables_to_appear_in_same_query!(greenroom_tasks, greenroom_task_edges, greenroom_task_parents);
diesel::allow_tables_to_appear_in_same_query!(greenroom_conversations, greenroom_messages);
