//! `login`: a link that opens the dashboard.

use super::{Session, exit::Failure, out};
use crate::runtime::views::LoginLink;

/// `login`: prints a link that opens the dashboard once, with what the caller's token may do.
pub(super) fn login(session: &Session<'_>) -> Result<(), Failure> {
    let reply = session.client()?.post("/api/v1/login-links", Vec::new())?;
    if session.json() {
        return Ok(out::json(&reply.body)?);
    }
    Ok(out::line(&out::plain(reply.read::<LoginLink>()?.url.reveal()))?)
}
