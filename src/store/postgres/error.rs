//! The mapping of Postgres errors.
//!
//! diesel-async does not hand SQLSTATEs on; [`super::wire`] writes them in front of the messages, so
//! that this reads codes, never texts (which are in the server's language).

use std::{error::Error as _, fmt};

use diesel::result::{ConnectionError, DatabaseErrorKind, Error as Sql};

use crate::store::StoreError;

/// What an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The connection went away.
    Lost,
    /// The server ends its work, or has only begun it.
    Restarting,
    /// It does not take writes.
    ReadOnly,
    /// It has no connection to spare.
    Crowded,
    /// A limit of time.
    TimedOut,
    /// No room on its disk.
    Full,
    /// Its device, or its memory, failed it.
    Ill,
    /// Somebody else was in the way: the same again, whole, may pass.
    Race,
    /// What is stored cannot be read.
    Corrupt,
    /// It does not let us in, or not do this.
    Forbidden,
    /// A pooler has given our prepared statements to others.
    Pooler,
    /// What was given to it: nothing but its own unit is to blame.
    Given,
    /// Anything else.
    Other,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "the connection was lost",
            Self::Restarting => "the server is going down or coming up",
            Self::ReadOnly => "the server is read-only",
            Self::Crowded => "the server has too many connections",
            Self::TimedOut => "the server's time limit was reached",
            Self::Full => "the server's disk is full",
            Self::Ill => "the server has trouble of its own",
            Self::Race => "another transaction was in the way",
            Self::Corrupt => "the server cannot read what it stores",
            Self::Forbidden => "the server does not allow it",
            Self::Pooler => {
                "the pooler mixes up prepared statements, and must support them (PgBouncer: 1.21 or later, \
                 with max_prepared_statements)"
            }
            Self::Given => "the server does not take such data",
            Self::Other => "the statement failed",
        })
    }
}

/// The SQLSTATE that stands in front of a message.
fn code(message: &str) -> Option<&str> {
    let (code, _) = message.strip_prefix('[')?.split_once("] ")?;
    (code.len() == 5 && code.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase())).then_some(code)
}

fn of_code(code: &str) -> Cause {
    match code {
        "57P01" | "57P02" | "57P03" | "57P04" => Cause::Restarting,
        "25006" => Cause::ReadOnly,
        "53300" => Cause::Crowded,
        "57014" | "55P03" => Cause::TimedOut,
        "25P03" | "25P04" | "57P05" => Cause::Lost,
        "53100" => Cause::Full,
        "40001" | "40P01" => Cause::Race,
        "42501" => Cause::Forbidden,
        "26000" | "42P05" => Cause::Pooler,
        _ => match code.get(..2) {
            Some("08") => Cause::Lost,
            Some("53" | "57" | "58") => Cause::Ill,
            Some("28") => Cause::Forbidden,
            Some("21" | "22" | "23" | "54") => Cause::Given,
            Some("XX") if code != "XX000" => Cause::Corrupt,
            _ => Cause::Other,
        },
    }
}

/// What a statement's error is about.
pub(super) fn cause(error: &Sql) -> Cause {
    match error {
        Sql::DatabaseError(kind, info) => match (code(info.message()), kind) {
            (Some(code), _) => of_code(code),
            (None, DatabaseErrorKind::UnableToSendCommand | DatabaseErrorKind::ClosedConnection) => {
                Cause::Lost
            }
            (None, DatabaseErrorKind::SerializationFailure) => Cause::Race,
            (None, _) => Cause::Other,
        },
        // never sent: a text with a NUL, an array that is too long
        Sql::SerializationError(_) | Sql::QueryBuilderError(_) | Sql::InvalidCString(_) => Cause::Given,
        Sql::DeserializationError(_) => Cause::Corrupt,
        Sql::RollbackErrorOnCommit { commit_error, .. } => cause(commit_error),
        Sql::BrokenTransactionManager => Cause::Lost,
        _ => Cause::Other,
    }
}

/// Whether the same, whole and unchanged, may pass when it is sent again.
pub(super) fn is_race(error: &Sql) -> bool {
    cause(error) == Cause::Race
}

/// Whether what one unit holds is to blame: a batch may be halved until it is found.
pub(super) fn is_units_own(error: &Sql) -> bool {
    cause(error) == Cause::Given
}

fn with(cause: Cause, text: &str) -> StoreError {
    let text = format!("{cause}: {text}");
    match cause {
        Cause::Full => StoreError::Full(text),
        Cause::Corrupt => StoreError::Corrupt(text),
        _ => StoreError::NotDone(text),
    }
}

/// Where the server says itself that it takes no writes.
pub(super) fn read_only() -> StoreError {
    // not refused for good: a standby may be promoted
    with(Cause::ReadOnly, "a standby, or default_transaction_read_only is on")
}

/// The error of a read, or of a statement whose transaction is not committed: nothing has happened.
pub(super) fn of_statement(error: &Sql) -> StoreError {
    with(cause(error), &error.to_string())
}

/// The error of a commit, or of a single statement that is its own transaction: where no answer
/// came it may have happened.
pub(super) fn of_commit(error: &Sql) -> StoreError {
    match cause(error) {
        cause @ (Cause::Lost | Cause::Restarting) => StoreError::Unknown(format!("{cause}: {error}")),
        cause => with(cause, &error.to_string()),
    }
}

/// The error of connecting, or of a statement of tokio-postgres's own.
pub(super) fn of_client(error: &tokio_postgres::Error) -> StoreError {
    let cause = match error.code() {
        Some(code) => of_code(code.code()),
        None => Cause::Lost,
    };
    // its own text leaves out the best part
    let mut text = error.as_db_error().map_or_else(|| error.to_string(), |db| db.message().to_owned());
    let mut source = error.source().filter(|_| error.as_db_error().is_none());
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    match (cause, error.as_db_error()) {
        (Cause::Lost, None) => StoreError::NotDone(format!("the server cannot be reached: {text}")),
        (cause, _) => with(cause, &text),
    }
}

/// The error of setting up a connection.
pub(super) fn of_setup(error: &ConnectionError) -> StoreError {
    match error {
        ConnectionError::CouldntSetupConfiguration(error) => of_statement(error),
        error => StoreError::NotDone(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sql(message: &str) -> Sql {
        Sql::DatabaseError(DatabaseErrorKind::Unknown, Box::new(message.to_owned()))
    }

    #[test]
    fn a_code_decides_in_whatever_language_the_text_is() {
        let known = [
            ("[53100] konnte Datei nicht erweitern", Cause::Full),
            ("[53300] zu viele Verbindungen", Cause::Crowded),
            ("[57P01] Verbindung wird abgebrochen", Cause::Restarting),
            ("[57P03] Datenbanksystem startet", Cause::Restarting),
            ("[57014] Anfrage abgebrochen", Cause::TimedOut),
            ("[25006] nur lesen", Cause::ReadOnly),
            ("[40P01] Verklemmung", Cause::Race),
            ("[40001] x", Cause::Race),
            ("[22P05] x", Cause::Given),
            ("[23505] x", Cause::Given),
            ("[54000] x", Cause::Given),
            ("[42P01] x", Cause::Other),
            ("[26000] prepared statement \"s13\" does not exist", Cause::Pooler),
            ("[XX001] x", Cause::Corrupt),
            ("[XX000] x", Cause::Other),
            ("[58030] x", Cause::Ill),
            ("[28P01] x", Cause::Forbidden),
            ("no code", Cause::Other),
            ("[hello] no code", Cause::Other),
        ];
        for (message, expected) in known {
            assert_eq!(cause(&sql(message)), expected, "{message}");
        }
        assert!(is_race(&sql("[40P01] x")) && !is_race(&sql("[23505] x")));
        assert!(is_units_own(&sql("[22021] x")) && !is_units_own(&sql("[53100] x")));
    }

    #[test]
    fn operators_hear_of_the_cause_in_whatever_language_the_text_is() {
        use crate::store::Cause as Told;

        for (message, expected) in [
            ("[53100] konnte Datei nicht erweitern", Told::DiskFull),
            ("[25006] kann UPDATE nicht ausfuehren", Told::ReadOnly),
            ("[53300] tut mir leid", Told::TooManyConnections),
            ("[57014] storniere Anfrage", Told::StatementTimeout),
            ("[57P01] breche ab auf Anweisung", Told::Unreachable),
            ("[57P03] startet gerade", Told::Unreachable),
            ("[08006] weg", Told::Unreachable),
            ("[40P01] Verklemmung", Told::Other),
        ] {
            assert_eq!(of_statement(&sql(message)).cause(), expected, "{message}");
        }
    }

    #[test]
    fn a_lost_answer_is_unknown_to_a_commit_and_nothing_to_a_read() {
        let lost = Sql::DatabaseError(
            DatabaseErrorKind::UnableToSendCommand,
            Box::new("connection closed".to_owned()),
        );
        assert!(matches!(of_commit(&lost), StoreError::Unknown(_)));
        assert!(matches!(of_statement(&lost), StoreError::NotDone(_)));
        let ended = sql("[57P01] terminating connection due to administrator command");
        assert!(matches!(of_commit(&ended), StoreError::Unknown(_)));
        assert!(matches!(of_commit(&sql("[53100] x")), StoreError::Full(_)));
        assert!(matches!(of_commit(&sql("[25006] x")), StoreError::NotDone(t) if t.contains("read-only")));
    }
}
