//! Calls of the functions that return rows; above all the group commit: one statement, a call of
//! `greenroom_commit_1` with an array for each column.
//!
//! One statement is one transaction: there is none to leave open, and no reply to lose between its
//! parts. What the arrays mean stands beside the function, in `migrations/postgres`.

use std::borrow::Cow;

use diesel::{
    pg::Pg,
    prelude::*,
    query_builder::{AstPass, Query, QueryFragment, QueryId},
    sql_types::{Array, BigInt, Binary, Bool, Integer, Nullable, SmallInt, Text},
};

use super::values::{
    Id, Micros,
    types::{Moment, Uid},
};

/// Declares arguments: each once, with its SQL type and what holds it in Rust.
macro_rules! arguments {
    ($(#[$meta:meta])* $name:ident { $($field:ident: $sql:ty = $rust:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Default)]
        pub(super) struct $name<'a> {
            $(pub(super) $field: $rust,)*
        }

        impl $name<'_> {
            fn arguments<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
                let mut comma = "";
                $(
                    out.push_sql(comma);
                    out.push_bind_param::<$sql, _>(&self.$field)?;
                    #[allow(unused_assignments, reason = "the last one is not needed")]
                    { comma = ", "; }
                )*
                Ok(())
            }
        }
    };
}

/// Declares the call of a function with its arguments and its answer.
macro_rules! call {
    ($(#[$meta:meta])* $name:ident = $head:literal, $tail:literal -> $answer:ty { $($field:ident: $sql:ty = $rust:ty,)* }) => {
        arguments! { $(#[$meta])* $name { $($field: $sql = $rust,)* } }

        impl QueryId for $name<'_> {
            type QueryId = $name<'static>;
            const HAS_STATIC_QUERY_ID: bool = true;
        }

        impl Query for $name<'_> {
            type SqlType = $answer;
        }

        impl QueryFragment<Pg> for $name<'_> {
            fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
                out.push_sql($head);
                self.arguments(out.reborrow())?;
                out.push_sql($tail);
                Ok(())
            }
        }
    };
}

call! {
    /// The arguments of the commit, in the order of the function.
    CommitCall = "SELECT * FROM greenroom_commit_1(", ")" -> (Integer, SmallInt, Nullable<Uid>, Integer) {
        node: Nullable<Uid> = Option<Id>,
        history: Integer = i32,
        o_unit: Array<Integer> = Vec<i32>,
        o_partition: Array<SmallInt> = Vec<i16>,
        o_epoch: Array<BigInt> = Vec<i64>,
        s_unit: Array<Integer> = Vec<i32>,
        s_id: Array<Uid> = Vec<Id>,
        s_partition: Array<SmallInt> = Vec<i16>,
        s_kind: Array<Text> = Vec<&'a str>,
        s_key: Array<Text> = Vec<&'a str>,
        s_epoch: Array<BigInt> = Vec<i64>,
        s_base: Array<BigInt> = Vec<i64>,
        s_schema: Array<BigInt> = Vec<i64>,
        s_state: Array<Binary> = Vec<Cow<'a, [u8]>>,
        s_keep: Array<Bool> = Vec<bool>,
        s_judged: Array<Uid> = Vec<Id>,
        f_unit: Array<Integer> = Vec<i32>,
        f_task: Array<Uid> = Vec<Id>,
        f_attempt: Array<BigInt> = Vec<i64>,
        f_from: Array<Integer> = Vec<i32>,
        f_to: Array<SmallInt> = Vec<i16>,
        f_run_at: Array<Nullable<Moment>> = Vec<Option<Micros>>,
        f_result: Array<Nullable<Binary>> = Vec<Option<&'a [u8]>>,
        f_error: Array<Nullable<Binary>> = Vec<Option<Vec<u8>>>,
        f_event: Array<Nullable<Text>> = Vec<Option<&'static str>>,
        f_detail: Array<Nullable<Text>> = Vec<Option<String>>,
        k_unit: Array<Integer> = Vec<i32>,
        k_scope: Array<Uid> = Vec<Id>,
        k_key: Array<Text> = Vec<&'a str>,
        k_request: Array<Binary> = Vec<&'a [u8]>,
        k_task: Array<Nullable<Uid>> = Vec<Option<Id>>,
        k_reply: Array<Nullable<Binary>> = Vec<Option<&'a [u8]>>,
        k_expires_at: Array<Moment> = Vec<Micros>,
        n_unit: Array<Integer> = Vec<i32>,
        n_id: Array<Uid> = Vec<Id>,
        n_partition: Array<SmallInt> = Vec<i16>,
        n_lane: Array<SmallInt> = Vec<i16>,
        n_target: Array<Text> = Vec<String>,
        n_message: Array<Text> = Vec<&'a str>,
        n_priority: Array<SmallInt> = Vec<i16>,
        n_run_at: Array<Nullable<Moment>> = Vec<Option<Micros>>,
        n_max_attempts: Array<BigInt> = Vec<i64>,
        n_timeout_ms: Array<Nullable<BigInt>> = Vec<Option<i64>>,
        n_run_after_failure: Array<Bool> = Vec<bool>,
        n_notify: Array<Nullable<Text>> = Vec<Option<String>>,
        n_batch: Array<Nullable<Uid>> = Vec<Option<Id>>,
        n_parent: Array<Nullable<Uid>> = Vec<Option<Id>>,
        n_tags: Array<Nullable<Text>> = Vec<Option<String>>,
        n_expires_at: Array<Nullable<Moment>> = Vec<Option<Micros>>,
        n_idempotency_key: Array<Nullable<Text>> = Vec<Option<&'a str>>,
        n_input: Array<Binary> = Vec<&'a [u8]>,
        d_unit: Array<Integer> = Vec<i32>,
        d_child: Array<Uid> = Vec<Id>,
        d_parent: Array<Uid> = Vec<Id>,
        b_unit: Array<Integer> = Vec<i32>,
        b_id: Array<Uid> = Vec<Id>,
        b_size: Array<BigInt> = Vec<i64>,
        b_notify: Array<Nullable<Text>> = Vec<Option<String>>,
        b_partition: Array<Nullable<SmallInt>> = Vec<Option<i16>>,
    }
}

arguments! {
    /// What the commit of conversations and sessions takes beside that, in the order of the function.
    EntityArguments {
        c_unit: Array<Integer> = Vec<i32>,
        c_id: Array<Uid> = Vec<Id>,
        c_title: Array<Nullable<Text>> = Vec<Option<&'a str>>,
        c_metadata: Array<Binary> = Vec<Vec<u8>>,
        c_delete: Array<Bool> = Vec<bool>,
        m_unit: Array<Integer> = Vec<i32>,
        m_id: Array<Uid> = Vec<Id>,
        m_conversation: Array<Uid> = Vec<Id>,
        m_role: Array<Text> = Vec<&'a str>,
        m_content: Array<Binary> = Vec<&'a [u8]>,
        x_unit: Array<Integer> = Vec<i32>,
        x_id: Array<Text> = Vec<&'a str>,
        x_change: Array<SmallInt> = Vec<i16>,
        x_version: Array<Uid> = Vec<Id>,
        x_data: Array<Binary> = Vec<&'a [u8]>,
        x_ttl_ms: Array<BigInt> = Vec<i64>,
        x_expect: Array<SmallInt> = Vec<i16>,
        x_expected: Array<Uid> = Vec<Id>,
    }
}

/// The commit of units of which some touch conversations or sessions.
#[derive(Debug, Default)]
pub(super) struct EntityCall<'a> {
    pub(super) entities: EntityArguments<'a>,
    pub(super) rest: CommitCall<'a>,
}

impl QueryId for EntityCall<'_> {
    type QueryId = EntityCall<'static>;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl Query for EntityCall<'_> {
    type SqlType = (Integer, SmallInt, Nullable<Uid>, Integer);
}

impl QueryFragment<Pg> for EntityCall<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("SELECT * FROM greenroom_commit_2(");
        self.arguments(out.reborrow())?;
        out.push_sql(")");
        Ok(())
    }
}

impl EntityCall<'_> {
    fn arguments<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        self.entities.arguments(out.reborrow())?;
        out.push_sql(", ");
        self.rest.arguments(out)
    }
}

arguments! {
    /// What the commit of subscriptions takes beside that, in the order of the function.
    SubscriptionArguments {
        t_unit: Array<Integer> = Vec<i32>,
        t_topic: Array<Text> = Vec<&'a str>,
        t_agent: Array<Uid> = Vec<Id>,
        t_kind: Array<Text> = Vec<&'a str>,
        t_key: Array<Text> = Vec<&'a str>,
        t_message: Array<Nullable<Text>> = Vec<Option<&'a str>>,
    }
}

/// The commit of units of which some begin or end subscriptions.
#[derive(Debug, Default)]
pub(super) struct SubscriptionCall<'a> {
    pub(super) subscriptions: SubscriptionArguments<'a>,
    pub(super) rest: EntityCall<'a>,
}

impl QueryId for SubscriptionCall<'_> {
    type QueryId = SubscriptionCall<'static>;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl Query for SubscriptionCall<'_> {
    type SqlType = <EntityCall<'static> as Query>::SqlType;
}

impl QueryFragment<Pg> for SubscriptionCall<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("SELECT * FROM greenroom_commit_3(");
        self.subscriptions.arguments(out.reborrow())?;
        out.push_sql(", ");
        self.rest.arguments(out.reborrow())?;
        out.push_sql(")");
        Ok(())
    }
}

arguments! {
    /// Which schedule is moved on, from where and where to, in the order of the function.
    MoveArguments {
        unit: Integer = i32,
        name: Text = &'a str,
        revision: Nullable<Uid> = Option<Id>,
        from: Nullable<Moment> = Option<Micros>,
        next: Nullable<Moment> = Option<Micros>,
        fired: Nullable<Moment> = Option<Micros>,
        task: Nullable<Uid> = Option<Id>,
    }
}

/// The commit of one unit that moves a schedule on.
#[derive(Debug, Default)]
pub(super) struct FireCall<'a> {
    pub(super) to: MoveArguments<'a>,
    pub(super) rest: CommitCall<'a>,
}

impl QueryId for FireCall<'_> {
    type QueryId = FireCall<'static>;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl Query for FireCall<'_> {
    type SqlType = <CommitCall<'static> as Query>::SqlType;
}

impl QueryFragment<Pg> for FireCall<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("SELECT * FROM greenroom_fire_1(");
        self.to.arguments(out.reborrow())?;
        out.push_sql(", ");
        self.rest.arguments(out.reborrow())?;
        out.push_sql(")");
        Ok(())
    }
}

call! {
    /// The commit of units that are nothing but an agent's next state; answers those that were met.
    StatesCall = "SELECT * FROM greenroom_commit_states_1(", ")" -> Integer {
        history: Integer = i32,
        unit: Array<Integer> = Vec<i32>,
        id: Array<Uid> = Vec<Id>,
        partition: Array<SmallInt> = Vec<i16>,
        epoch: Array<BigInt> = Vec<i64>,
        base: Array<BigInt> = Vec<i64>,
        schema: Array<BigInt> = Vec<i64>,
        state: Array<Binary> = Vec<Cow<'a, [u8]>>,
        keep: Array<Bool> = Vec<bool>,
    }
}

call! {
    /// The ends of tasks by whoever runs them; answers which have ended.
    EndsCall = "SELECT unnest(greenroom_end_1(", "))" -> Uid {
        node: Nullable<Uid> = Option<Id>,
        task: Array<Uid> = Vec<Id>,
        attempt: Array<BigInt> = Vec<i64>,
        to: Array<SmallInt> = Vec<i16>,
        result: Array<Nullable<Binary>> = Vec<Option<&'a [u8]>>,
        error: Array<Nullable<Binary>> = Vec<Option<Vec<u8>>>,
    }
}

call! {
    /// What running task functions have come to; answers the refused.
    RecordCall = "SELECT * FROM greenroom_record_1(", ")" -> Integer {
        node: Nullable<Uid> = Option<Id>,
        u_unit: Array<Integer> = Vec<i32>,
        u_task: Array<Uid> = Vec<Id>,
        u_claim: Array<BigInt> = Vec<i64>,
        j_unit: Array<Integer> = Vec<i32>,
        j_task: Array<Uid> = Vec<Id>,
        j_hash: Array<Binary> = Vec<&'a [u8]>,
        j_occurrence: Array<BigInt> = Vec<i64>,
        j_target: Array<Text> = Vec<&'a str>,
        j_ordinal: Array<BigInt> = Vec<i64>,
        j_answer: Array<Nullable<Binary>> = Vec<Option<Vec<u8>>>,
        d_unit: Array<Integer> = Vec<i32>,
        d_task: Array<Uid> = Vec<Id>,
        d_hash: Array<Binary> = Vec<&'a [u8]>,
        d_occurrence: Array<BigInt> = Vec<i64>,
        w_unit: Array<Integer> = Vec<i32>,
        w_task: Array<Uid> = Vec<Id>,
        w_name: Array<Text> = Vec<&'a str>,
        w_occurrence: Array<BigInt> = Vec<i64>,
        w_until: Array<Nullable<Moment>> = Vec<Option<Micros>>,
        w_seen: Array<BigInt> = Vec<i64>,
    }
}

call! {
    /// A claim; its answer are the columns of a claimed row.
    ClaimCall = "SELECT id, seq, target, message, priority, attempt, lost, max_attempts, timeout_ms, notify, \
                 batch, run_at, input, claim, expires_at FROM greenroom_claim_4(", ")"
    -> (
        Uid, BigInt, Text, Text, SmallInt, BigInt, BigInt, BigInt, Nullable<BigInt>, Nullable<Text>,
        Nullable<Uid>, Nullable<Moment>, Binary, BigInt, Nullable<Moment>
    ) {
        boot: Nullable<Uid> = Option<Id>,
        lane: Array<SmallInt> = Vec<i16>,
        limit: Array<Integer> = Vec<i32>,
        except: Array<Text> = Vec<&'a str>,
        alone: Bool = bool,
        queue: Array<Text> = Vec<&'a str>,
        at_most: Array<Integer> = Vec<i32>,
        durable: Array<Text> = Vec<&'a str>,
        each: Integer = i32,
        look: Integer = i32,
    }
}

/// The commit of units that are nothing but submissions: what they submit, and which of it may begin.
#[derive(Debug, Default)]
pub(super) struct SubmitCall<'a> {
    pub(super) tasks: CommitCall<'a>,
    pub(super) begin: Vec<bool>,
}

impl QueryId for SubmitCall<'_> {
    type QueryId = SubmitCall<'static>;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl Query for SubmitCall<'_> {
    type SqlType = (Integer, Nullable<BigInt>, Nullable<BigInt>);
}

impl QueryFragment<Pg> for SubmitCall<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        macro_rules! arguments {
            ($($field:ident: $sql:ty,)*) => {
                $(
                    out.push_bind_param::<$sql, _>(&self.tasks.$field)?;
                    out.push_sql(", ");
                )*
            };
        }
        out.push_sql("SELECT * FROM greenroom_submit_1(");
        arguments! {
            node: Nullable<Uid>,
            n_unit: Array<Integer>,
            n_id: Array<Uid>,
            n_partition: Array<SmallInt>,
            n_lane: Array<SmallInt>,
            n_target: Array<Text>,
            n_message: Array<Text>,
            n_priority: Array<SmallInt>,
            n_run_at: Array<Nullable<Moment>>,
            n_max_attempts: Array<BigInt>,
            n_timeout_ms: Array<Nullable<BigInt>>,
            n_run_after_failure: Array<Bool>,
            n_notify: Array<Nullable<Text>>,
            n_batch: Array<Nullable<Uid>>,
            n_parent: Array<Nullable<Uid>>,
            n_tags: Array<Nullable<Text>>,
            n_expires_at: Array<Nullable<Moment>>,
            n_idempotency_key: Array<Nullable<Text>>,
            n_input: Array<Binary>,
        }
        out.push_bind_param::<Array<Bool>, _>(&self.begin)?;
        out.push_sql(")");
        Ok(())
    }
}

/// A refused unit: which, why (see the function), of what.
pub(super) type Refused = (i32, i16, Option<Id>, i32);
