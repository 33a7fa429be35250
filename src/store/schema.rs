//! The tables, as diesel sees them. `migrations` says what the columns mean.

diesel::table! {
    greenroom_meta (name) {
        name -> Text,
        value -> BigInt,
    }
}

diesel::table! {
    greenroom_nodes (id) {
        id -> Binary,
        name -> Text,
        started_at -> BigInt,
        ended_at -> Nullable<BigInt>,
    }
}

diesel::table! {
    greenroom_partitions (id) {
        id -> SmallInt,
        node -> Nullable<Binary>,
        epoch -> BigInt,
    }
}

diesel::table! {
    greenroom_agents (id) {
        id -> Binary,
        partition -> SmallInt,
        kind -> Text,
        key -> Text,
        status -> SmallInt,
        reason -> Nullable<Text>,
        epoch -> BigInt,
        version -> BigInt,
        schema_version -> BigInt,
        created_at -> BigInt,
        updated_at -> BigInt,
        state -> Binary,
    }
}

diesel::table! {
    greenroom_snapshots (agent, version) {
        agent -> Binary,
        version -> BigInt,
        epoch -> BigInt,
        at -> BigInt,
        state -> Binary,
    }
}

diesel::table! {
    greenroom_tasks (rowid) {
        rowid -> BigInt,
        id -> Binary,
        seq -> BigInt,
        partition -> SmallInt,
        lane -> SmallInt,
        target -> Text,
        message -> Text,
        state -> SmallInt,
        priority -> SmallInt,
        run_at -> Nullable<BigInt>,
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
        batch -> Nullable<Binary>,
        parent -> Nullable<Binary>,
        tags -> Nullable<Text>,
        expires_at -> Nullable<BigInt>,
        idempotency_key -> Nullable<Text>,
        node -> Nullable<Binary>,
        created_at -> BigInt,
        started_at -> Nullable<BigInt>,
        error -> Nullable<Binary>,
        input -> Binary,
    }
}

diesel::table! {
    greenroom_task_parents (parent, child) {
        parent -> Binary,
        child -> Binary,
    }
}

diesel::table! {
    greenroom_task_archive (rowid) {
        rowid -> BigInt,
        id -> Binary,
        seq -> BigInt,
        target -> Text,
        message -> Text,
        state -> SmallInt,
        priority -> SmallInt,
        run_at -> Nullable<BigInt>,
        attempt -> BigInt,
        lost -> BigInt,
        max_attempts -> BigInt,
        timeout_ms -> Nullable<BigInt>,
        run_after_failure -> Bool,
        notify -> Nullable<Text>,
        batch -> Nullable<Binary>,
        parent -> Nullable<Binary>,
        tags -> Nullable<Text>,
        idempotency_key -> Nullable<Text>,
        node -> Nullable<Binary>,
        created_at -> BigInt,
        started_at -> Nullable<BigInt>,
        finished_at -> BigInt,
        result -> Nullable<Binary>,
        error -> Nullable<Binary>,
        input -> Binary,
    }
}

diesel::table! {
    greenroom_batches (id) {
        id -> Binary,
        size -> BigInt,
        open -> BigInt,
        succeeded -> BigInt,
        failed -> BigInt,
        notify -> Nullable<Text>,
        created_at -> BigInt,
    }
}

diesel::table! {
    greenroom_idempotency (scope, key) {
        scope -> Binary,
        key -> Text,
        request -> Binary,
        task -> Nullable<Binary>,
        reply -> Nullable<Binary>,
        expires_at -> BigInt,
    }
}

diesel::table! {
    greenroom_task_events (rowid) {
        rowid -> BigInt,
        task -> Binary,
        at -> BigInt,
        event -> Text,
        attempt -> BigInt,
        node -> Nullable<Binary>,
        detail -> Nullable<Text>,
    }
}

diesel::table! {
    greenroom_counts (id) {
        id -> SmallInt,
        n -> BigInt,
    }
}
