//! What to try next, by a problem's code and by what was asked for.

/// The command to try next, or what else to do; `path`: of the request.
pub(super) fn advice(code: &str, path: &str, program: &str) -> Option<String> {
    let thing = Thing::of(path);
    let command = |command: String| format!("{program} {command}");
    Some(match code {
        "unauthorized" => format!(
            "give the node's token with --token or GREENROOM_TOKEN; {program} looks for it in the data directory (--data-dir)"
        ),
        "forbidden" => format!("it takes a token with a wider scope: {program} tokens ls shows them"),
        "unknown_kind" => command("kinds ls".to_owned()),
        "unknown_message" => match thing {
            Thing::Agent { kind, .. } => command(format!("kinds show {kind}")),
            _ => command("kinds show KIND".to_owned()),
        },
        "not_found" => command(thing.list()),
        "wrong_state" | "refused" | "ask_cycle" | "diverged" => command(thing.show()),
        "handler_failed" => match thing {
            Thing::Agent { kind, key } => command(format!("logs --subject {kind}/{key}")),
            Thing::Tool(name) => command(format!("logs --subject tool:{name}")),
            _ => command("logs".to_owned()),
        },
        "malformed" | "invalid" => match thing {
            Thing::Agent { kind, .. } => format!("{program} kinds show {kind} tells what its messages hold"),
            Thing::Tool(name) => format!("{program} tools show {name} tells what it takes"),
            Thing::Config => command("config show --origin".to_owned()),
            _ => format!("{program} schema prints what every message holds"),
        },
        "too_large" => format!("{program} config show limits tells how much may be sent"),
        "timed_out" => format!("nothing happened: try again; {program} tree shows what takes so long"),
        "slow" => "try again, on a better connection".to_owned(),
        "idempotency_conflict" => "take another --idempotency-key for another request".to_owned(),
        "precondition_failed" => "look again, and name the version that you see".to_owned(),
        "precondition_required" => "name the version that it is about".to_owned(),
        "method_not_allowed" => {
            format!("the node is of another version: {program} doctor shows both")
        }
        "unavailable" => format!("try again shortly; {program} status says why"),
        "overloaded" => format!(
            "try again shortly; {program} tree shows where messages wait, and {program} status whether too many tasks do"
        ),
        "full" => "make room on the node's disk".to_owned(),
        "outcome_unknown" => "to repeat it safely, give both attempts the same --idempotency-key".to_owned(),
        _ => return None,
    })
}

/// What a request was about.
enum Thing<'p> {
    Agent { kind: &'p str, key: &'p str },
    Kind,
    Task(&'p str),
    Schedule(&'p str),
    Tool(&'p str),
    Crash,
    Token,
    Node,
    Config,
    Other,
}

impl<'p> Thing<'p> {
    fn of(path: &'p str) -> Self {
        let path = path.split('?').next().unwrap_or_default();
        let mut parts = path.strip_prefix("/api/v1/").unwrap_or_default().split('/');
        let room = parts.next().unwrap_or_default();
        let (name, key) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        match room {
            "agents" if !key.is_empty() => Self::Agent { kind: name, key },
            "agents" | "kinds" => Self::Kind,
            "tasks" => Self::Task(name),
            "schedules" => Self::Schedule(name),
            "tools" => Self::Tool(name),
            "crashes" => Self::Crash,
            "tokens" => Self::Token,
            "nodes" => Self::Node,
            "config" => Self::Config,
            _ => Self::Other,
        }
    }

    /// The command that lists all of its sort.
    fn list(&self) -> String {
        match self {
            Self::Agent { kind, .. } => format!("agents ls {kind}"),
            Self::Kind => "kinds ls".to_owned(),
            Self::Task(_) => "tasks ls".to_owned(),
            Self::Schedule(_) => "schedules ls".to_owned(),
            Self::Tool(_) => "tools ls".to_owned(),
            Self::Crash => "crashes ls".to_owned(),
            Self::Token => "tokens ls".to_owned(),
            Self::Node => "nodes ls".to_owned(),
            Self::Config => "config show".to_owned(),
            Self::Other => "status".to_owned(),
        }
    }

    /// The command that shows it.
    fn show(&self) -> String {
        match self {
            Self::Agent { kind, key } => format!("agents show {kind}/{key}"),
            Self::Task(id) if !matches!(*id, "" | "batch" | "retry" | "dismiss") => {
                format!("tasks show {id}")
            }
            Self::Schedule(name) if !name.is_empty() => format!("schedules show {name}"),
            Self::Tool(name) if !name.is_empty() => format!("tools show {name}"),
            other => other.list(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::PROBLEM_CODES;

    #[test]
    fn every_problem_has_something_to_try_next() {
        for code in PROBLEM_CODES.iter().filter(|code| **code != "handler_crashed") {
            for path in ["/api/v1/agents/counter/a/messages/Add", "/api/v1/tasks", "/api/v1/kinds/x", "/x"] {
                let said = advice(code, path, "mine");
                assert!(said.is_some_and(|said| !said.is_empty()), "{code} of {path}");
            }
        }
        assert_eq!(advice("new", "/api/v1/tasks", "mine"), None);
    }

    #[test]
    fn the_command_is_about_what_was_asked_for() {
        let said = |code, path| advice(code, path, "mine").unwrap_or_default();
        assert_eq!(said("not_found", "/api/v1/agents/counter/zz?state=true"), "mine agents ls counter");
        assert_eq!(said("not_found", "/api/v1/tasks/x"), "mine tasks ls");
        assert_eq!(said("not_found", "/api/v1/tokens/x"), "mine tokens ls");
        assert_eq!(said("wrong_state", "/api/v1/tasks/x/cancel"), "mine tasks show x");
        assert_eq!(said("wrong_state", "/api/v1/tasks/retry"), "mine tasks ls");
        assert_eq!(
            said("unknown_message", "/api/v1/agents/counter/a/messages/Ad"),
            "mine kinds show counter"
        );
    }
}
