//! Why a store did not do what it was asked.

/// Why a whole call failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Nothing happened; the call may be repeated.
    #[error("the store did not take it: {0}")]
    NotDone(String),
    /// The call may or may not have taken effect: send the same units again.
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
    /// No room is left on the device.
    #[error("the disk is full: {0}")]
    Full(String),
    /// The device failed to keep a commit: the process must end.
    #[error("the device failed to keep a commit: {0}")]
    Fatal(String),
    /// The stored data cannot be read.
    #[error("the stored data cannot be read: {0}")]
    Corrupt(String),
    /// Another process uses it, or it was made by a newer version.
    #[error("{0}")]
    Refused(String),
}
