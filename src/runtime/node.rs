//! What the parts of a node share.

/// What the parts of a node share.
pub(crate) struct Node {}
