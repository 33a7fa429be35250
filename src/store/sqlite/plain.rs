//! The few statements without values.

use diesel::{
    query_builder::{AstPass, QueryFragment, QueryId},
    sqlite::Sqlite,
};

macro_rules! plain {
    ($($name:ident = $sql:literal;)*) => {$(
        pub(super) struct $name;
        impl QueryId for $name {
            type QueryId = Self;
            const HAS_STATIC_QUERY_ID: bool = true;
        }
        impl QueryFragment<Sqlite> for $name {
            fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> diesel::QueryResult<()> {
                out.push_sql($sql);
                Ok(())
            }
        }
        impl<C> diesel::RunQueryDsl<C> for $name {}
    )*};
}

plain! {
    Begin = "BEGIN IMMEDIATE";
    Commit = "COMMIT";
    Savepoint = "SAVEPOINT unit";
    Release = "RELEASE unit";
    RollbackTo = "ROLLBACK TO unit";
}
