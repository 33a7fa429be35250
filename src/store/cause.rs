//! Diagnosis of a store that fails, with a remedy.

use super::StoreError;

/// What is wrong with a store, as far as it can be recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// No room on its device.
    DiskFull,
    /// It takes no writes.
    ReadOnly,
    /// It lets nobody else in.
    TooManyConnections,
    /// All of our own connections to it are in use.
    PoolExhausted,
    /// A limit of time, of the server's.
    StatementTimeout,
    /// Nobody answers.
    Unreachable,
    /// Anything else.
    Other,
}

impl Cause {
    /// The name that events and reasons give.
    pub fn name(self) -> &'static str {
        match self {
            Self::DiskFull => "disk_full",
            Self::ReadOnly => "read_only",
            Self::TooManyConnections => "too_many_connections",
            Self::PoolExhausted => "pool_exhausted",
            Self::StatementTimeout => "statement_timeout",
            Self::Unreachable => "unreachable",
            Self::Other => "other",
        }
    }

    /// What to do about it.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::DiskFull => "make room on the store's device; greenroom doctor shows where it is",
            Self::ReadOnly => "the store takes no writes: is it a standby, or its device read-only?",
            Self::TooManyConnections => "raise the server's max_connections, or lower store.pool_size",
            Self::PoolExhausted => "raise store.pool_size, or look for long statements on the server",
            Self::StatementTimeout => {
                "look for locks and long statements on the server, or raise its timeout"
            }
            Self::Unreachable => {
                "is the server up, and reached from here? greenroom doctor shows its address"
            }
            Self::Other => "look at the error, and at the server's own log",
        }
    }
}

impl StoreError {
    /// Whether it may be over in a moment, with nobody doing anything: a server that is starting, or busy.
    pub fn may_pass(&self) -> bool {
        let passing = matches!(
            self.cause(),
            Cause::Unreachable | Cause::TooManyConnections | Cause::PoolExhausted | Cause::StatementTimeout
        );
        passing && matches!(self, Self::NotDone(_) | Self::Unknown(_))
    }

    /// What is wrong, by the words of the error: first the stores' own, then those of the servers and
    /// libraries behind them.
    pub fn cause(&self) -> Cause {
        if matches!(self, Self::Full(_)) {
            return Cause::DiskFull;
        }
        let text = self.to_string().to_ascii_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
        if says(&["no space left", "disk is full", "disk full"]) {
            Cause::DiskFull
        } else if says(&["read-only", "readonly", "read only"]) {
            Cause::ReadOnly
        } else if says(&["too many connections", "too many clients", "connection slots", "connection limit"])
        {
            Cause::TooManyConnections
        } else if says(&["connections were in use"]) {
            Cause::PoolExhausted
        } else if says(&["time limit", "statement timeout", "lock timeout"]) {
            Cause::StatementTimeout
        } else if says(&[
            "connect",
            "connection",
            "closed",
            "broken pipe",
            "reset by peer",
            "refused",
            "timed out",
            "does not answer",
            "shutting down",
            "going down",
            "cannot be reached",
            "starting up",
            "terminating",
        ]) {
            Cause::Unreachable
        } else {
            Cause::Other
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_recognised_by_the_servers_words() {
        for (text, cause) in [
            ("could not extend file \"base/1\": No space left on device", Cause::DiskFull),
            ("cannot execute UPDATE in a read-only transaction", Cause::ReadOnly),
            ("attempt to write a readonly database", Cause::ReadOnly),
            ("FATAL: sorry, too many clients already", Cause::TooManyConnections),
            ("remaining connection slots are reserved", Cause::TooManyConnections),
            ("all 16 connections were in use for 5s", Cause::PoolExhausted),
            ("canceling statement due to statement timeout", Cause::StatementTimeout),
            ("error connecting to server: Connection refused", Cause::Unreachable),
            ("the database system is starting up", Cause::Unreachable),
            ("deadlock detected", Cause::Other),
        ] {
            assert_eq!(StoreError::NotDone(text.to_owned()).cause(), cause, "{text}");
        }
        assert_eq!(StoreError::Full("x".to_owned()).cause(), Cause::DiskFull);
    }
}
