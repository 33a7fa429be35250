//! What diesel's errors mean to the store.

use diesel::result::{DatabaseErrorKind, Error};

use crate::store::StoreError;

pub(super) fn of_read(e: &Error) -> StoreError {
    StoreError::NotDone(e.to_string())
}
pub(super) fn of_write(e: &Error) -> StoreError {
    StoreError::NotDone(e.to_string())
}
pub(super) fn of_commit(e: &Error) -> StoreError {
    StoreError::Unknown(e.to_string())
}
pub(super) fn is_race(e: &Error) -> bool {
    matches!(
        e,
        Error::DatabaseError(DatabaseErrorKind::UniqueViolation | DatabaseErrorKind::SerializationFailure, _)
    )
}
pub(super) fn is_units_own(e: &Error) -> bool {
    match e {
        Error::DatabaseError(kind, _) => !matches!(
            kind,
            DatabaseErrorKind::UnableToSendCommand
                | DatabaseErrorKind::ClosedConnection
                | DatabaseErrorKind::ReadOnlyTransaction
        ),
        Error::SerializationError(_) => true,
        _ => false,
    }
}
