//! Browsers' sessions, and the links that begin them: in memory, by their digests, and gone with the node.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};

use crate::{
    config::Secret,
    model::access::{Digest, NODE, Scope, StoredToken, draw},
};

/// How long a link can be used.
const LINK: SignedDuration = SignedDuration::from_mins(10);
/// How long a session lives, if its token does.
pub(in super::super) const SESSION_SECONDS: i64 = 12 * 3_600;
/// At most so many links, and so many sessions: who needs more loses the oldest.
const MAX_ENTRIES: usize = 1_000;
/// Of these, so many of one token: it cannot drive others out.
const MOST_OF_ONE: usize = 50;

/// What a token gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Grant {
    /// The token's name.
    pub(super) name: String,
    /// What it may do.
    pub(super) scope: Scope,
    /// By what it is found again; `None`: the node's own.
    pub(super) digest: Option<Digest>,
    /// When it ends.
    pub(super) expires_at: Option<Timestamp>,
}

impl Grant {
    /// What the node's own token gives.
    pub(super) fn node() -> Self {
        Self { name: NODE.to_owned(), scope: Scope::Admin, digest: None, expires_at: None }
    }

    /// What a stored token gives.
    pub(super) fn of(token: &StoredToken) -> Self {
        let StoredToken { name, scope, digest, expires_at, .. } = token;
        Self { name: name.clone(), scope: *scope, digest: Some(*digest), expires_at: *expires_at }
    }
}

/// A browser's session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Session {
    /// What it was begun with.
    pub(super) grant: Grant,
    /// What its requests name that change something.
    pub(super) csrf: Secret,
    /// When it ends.
    pub(super) expires_at: Timestamp,
}

/// All of them.
#[derive(Default)]
pub(super) struct Logins {
    links: HashMap<Digest, (Grant, Timestamp)>,
    sessions: HashMap<Digest, Session>,
}

impl Logins {
    /// Draws a link's code: it can be used once, until then.
    pub(super) fn invite(&mut self, grant: Grant, now: Timestamp) -> (String, Timestamp) {
        let (code, until) = (draw(), now.checked_add(LINK).unwrap_or(Timestamp::MAX));
        make_room(&mut self.links, now, |(_, until)| *until, |(given, _)| *given == grant);
        self.links.insert(Digest::of(code.as_bytes()), (grant, until));
        (code, until)
    }

    /// Takes a code: what it stands for, if it was not taken before and is not too old.
    pub(super) fn redeem(&mut self, code: &str, now: Timestamp) -> Option<Grant> {
        let (grant, until) = self.links.remove(&Digest::of(code.as_bytes()))?;
        (now < until).then_some(grant)
    }

    /// Begins a session: the cookie's value.
    pub(super) fn open(&mut self, grant: Grant, now: Timestamp) -> String {
        let most = now.checked_add(SignedDuration::from_secs(SESSION_SECONDS)).unwrap_or(Timestamp::MAX);
        let expires_at = grant.expires_at.map_or(most, |at| at.min(most));
        make_room(&mut self.sessions, now, |session| session.expires_at, |session| session.grant == grant);
        let cookie = draw();
        let session = Session { grant, csrf: draw().into(), expires_at };
        self.sessions.insert(Digest::of(cookie.as_bytes()), session);
        cookie
    }

    /// The session of a cookie, where it is not over.
    pub(super) fn session(&self, cookie: &str, now: Timestamp) -> Option<Session> {
        let found = self.sessions.get(&Digest::of(cookie.as_bytes()));
        found.filter(|session| now < session.expires_at).cloned()
    }

    /// Whether a session is still open.
    pub(super) fn is_open(&self, session: &Session, now: Timestamp) -> bool {
        self.sessions.values().any(|one| one.csrf == session.csrf && now < one.expires_at)
    }

    /// Ends the session of a cookie.
    pub(super) fn close(&mut self, cookie: &str) {
        self.sessions.remove(&Digest::of(cookie.as_bytes()));
    }
}

/// Forgets what has ended, and that which ends first where it is still too much: of the same token, before it is
/// of any.
fn make_room<T>(
    all: &mut HashMap<Digest, T>,
    now: Timestamp,
    end: impl Fn(&T) -> Timestamp,
    is_same: impl Fn(&T) -> bool,
) {
    if all.len() < MOST_OF_ONE {
        return;
    }
    all.retain(|_, one| now < end(one));
    let first = |of: &dyn Fn(&T) -> bool| {
        all.iter().filter(|(_, one)| of(one)).min_by_key(|(_, one)| end(one)).map(|(digest, _)| *digest)
    };
    let own = all.values().filter(|one| is_same(one)).count();
    let first = if own >= MOST_OF_ONE {
        first(&is_same)
    } else if all.len() >= MAX_ENTRIES {
        first(&|_| true)
    } else {
        None
    };
    if let Some(first) = first {
        all.remove(&first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_link_works_once_and_for_ten_minutes() {
        let mut logins = Logins::default();
        let (code, until) = logins.invite(Grant::node(), at(0));
        assert_eq!(until, at(600));
        assert_eq!(logins.redeem("gr_guessed", at(1)), None);
        assert_eq!(logins.redeem(&code, at(599)), Some(Grant::node()));
        assert_eq!(logins.redeem(&code, at(599)), None);
        let (late, _) = logins.invite(Grant::node(), at(0));
        assert_eq!(logins.redeem(&late, at(600)), None);
    }

    #[test]
    fn a_session_ends_by_itself_with_its_token_and_on_demand() {
        let mut logins = Logins::default();
        let cookie = logins.open(Grant::node(), at(0));
        let session = logins.session(&cookie, at(SESSION_SECONDS - 1)).unwrap();
        let csrf = session.csrf.reveal();
        assert!(csrf != cookie && csrf.len() > 60);
        assert!(!format!("{session:?}").contains(csrf), "it is not printed");
        assert_eq!(logins.session(&cookie, at(SESSION_SECONDS)), None);
        let short = Grant { expires_at: Some(at(60)), ..Grant::node() };
        let of_token = logins.open(short, at(0));
        assert!(logins.session(&of_token, at(59)).is_some() && logins.session(&of_token, at(60)).is_none());
        logins.close(&cookie);
        assert_eq!(logins.session(&cookie, at(1)), None);
    }

    #[test]
    fn there_is_a_bound_on_both() {
        let mut logins = Logins::default();
        let first = logins.open(Grant::node(), at(0));
        let of = |n: usize| Grant { name: n.to_string(), ..Grant::node() };
        for n in 1..=MAX_ENTRIES {
            logins.open(of(n), at(n as i64));
            logins.invite(of(n), at(n as i64 / 2)); // none has had its time at the end
        }
        logins.invite(of(1), at(1));
        assert_eq!((logins.sessions.len(), logins.links.len()), (MAX_ENTRIES, MAX_ENTRIES));
        assert_eq!(logins.session(&first, at(1)), None, "the oldest went");
    }

    /// A thousand logins with a token that may only read ended everybody's session.
    #[test]
    fn one_token_drives_nobody_else_out() {
        let mut logins = Logins::default();
        let admin = logins.open(Grant::node(), at(0));
        let reader = Grant { name: "reader".to_owned(), scope: Scope::Read, ..Grant::node() };
        for n in 1..=2 * MAX_ENTRIES {
            logins.open(reader.clone(), at(n as i64));
        }
        assert!(logins.session(&admin, at(1)).is_some());
        assert_eq!(logins.sessions.len(), MOST_OF_ONE + 1);
    }
}
