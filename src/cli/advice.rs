//! What to try next, by a problem's code and by what was asked for.

use std::collections::HashSet;

use percent_encoding::percent_decode_str;

use crate::model::task::{POISON, TaskState, TaskView};

/// Where nobody knows whether a write was done.
pub(super) const UNKNOWN: &str =
    "look whether it was done; what takes an --idempotency-key is repeated safely with the same";

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
        "wrong_state" => match thing {
            Thing::Tool(name) => format!("when the cause is mended: {program} kinds resume tool:{name}"),
            other => command(other.show()),
        },
        "refused" | "ask_cycle" | "diverged" => command(thing.show()),
        "handler_failed" => match thing {
            Thing::Agent { kind, key } => {
                format!("its turn was undone; {program} agents state {kind}/{key} shows what it works with")
            }
            other => command(other.show()),
        },
        "malformed" | "invalid" => match thing {
            Thing::Agent { kind, .. } => format!("{program} kinds show {kind} tells what its messages hold"),
            Thing::Tool(name) => format!("{program} tools show {name} tells what it takes"),
            Thing::Config => command("config show --origin".to_owned()),
            _ => format!("{program} schema prints what every message holds"),
        },
        "too_large" => format!("{program} config show tells how much may be sent (limits.*)"),
        "timed_out" => match thing {
            Thing::Agent { kind, key } => {
                format!("{program} agents show {kind}/{key} shows what it is at, and what waits")
            }
            _ => format!("{program} tree shows what takes so long"),
        },
        "slow" => "try again, on a better connection".to_owned(),
        "idempotency_conflict" => "take another --idempotency-key for another request".to_owned(),
        "precondition_failed" => match thing {
            Thing::Config => format!("{program} config show --origin tells how it is now; then do it again"),
            _ => "look again, and name the version that you see".to_owned(),
        },
        "precondition_required" => "name the version that it is about".to_owned(),
        "method_not_allowed" => {
            format!("the node is of another version: {program} doctor shows both")
        }
        "unavailable" => format!("try again shortly; {program} status says why"),
        "overloaded" => format!(
            "try again shortly; {program} tree shows where messages wait, and {program} status says whether too many tasks do"
        ),
        "full" => "make room on the node's disk".to_owned(),
        "outcome_unknown" => UNKNOWN.to_owned(),
        _ => return None,
    })
}

/// What may be done about a task that waits for a person: to send the signals that it waits for (`JSON` is what each
/// is to say), to say what became of it, or to try it again or let it rest.
pub(super) fn for_task(task: &TaskView, program: &str) -> Vec<String> {
    let id = task.id;
    let tasks = |rest: String| format!("{program} tasks {rest}");
    match task.state {
        TaskState::Failed => {
            let error = task.error.as_ref();
            let crash = error.and_then(|error| error.crash_id.as_ref());
            let mut all: Vec<String> =
                crash.map(|crash| format!("{program} crashes show {crash}")).into_iter().collect();
            all.push(match error.is_some_and(|error| error.code == POISON) {
                true => format!(
                    "it takes its node down when it runs; when the program is mended: {}",
                    tasks(format!("retry {id}"))
                ),
                false => format!("when the cause is mended: {}", tasks(format!("retry {id}"))),
            });
            all.push(format!("if nobody needs it: {}", tasks(format!("dismiss {id}"))));
            all
        }
        TaskState::OutcomeUnknown => vec![
            format!("if it took effect: {}", tasks(format!("resolve {id} --succeeded JSON"))),
            format!("if it did not: {}", tasks(format!("resolve {id} --failed WHY"))),
            format!("if it may happen again: {}", tasks(format!("retry {id}"))),
        ],
        _ => {
            let mut named = HashSet::new();
            let names = task.waits.iter().filter_map(|wait| wait.signal.as_deref());
            let names = names.filter(|name| named.insert(*name));
            names.map(|name| tasks(format!("signal {id} {name} JSON"))).collect()
        }
    }
}

/// What a request was about.
enum Thing {
    Agent { kind: String, key: String },
    Kind,
    Task(String),
    Schedule(String),
    Tool(String),
    Crash,
    Token,
    Node,
    Config,
    Other,
}

impl Thing {
    fn of(path: &str) -> Self {
        let path = path.split('?').next().unwrap_or_default();
        let mut parts = path.strip_prefix("/api/v1/").unwrap_or_default().split('/');
        let mut next =
            || percent_decode_str(parts.next().unwrap_or_default()).decode_utf8_lossy().into_owned();
        let (room, name, key) = (next(), next(), next());
        match &*room {
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
            Self::Agent { kind, .. } => format!("agents ls --kind {kind}"),
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
            Self::Task(id) if !matches!(&**id, "" | "batch" | "retry" | "dismiss") => {
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
    use crate::{http::PROBLEM_CODES, model::supervision::restart_command};

    /// The commands in a text: what follows the program's name, up to what is said of it.
    fn commands(text: &str) -> Vec<Vec<&str>> {
        let said = |word: &&str| !matches!(*word, "tells" | "shows" | "says" | "prints" | "looks");
        let rest = text.split("mine ").skip(1);
        rest.map(|rest| rest.split_whitespace().take_while(said).collect()).collect()
    }

    #[test]
    fn every_problem_has_something_to_try_next_and_what_it_names_is_a_command() {
        let paths = [
            "/api/v1/agents/counter/a/messages/Add?mode=ask",
            "/api/v1/tasks",
            "/api/v1/tasks/x/cancel",
            "/api/v1/schedules/n",
            "/api/v1/tools/fs.read/call",
            "/api/v1/crashes/x",
            "/api/v1/tokens/x",
            "/api/v1/nodes/x/drain",
            "/api/v1/kinds/x",
            "/api/v1/config",
            "/x",
        ];
        for code in PROBLEM_CODES.iter().filter(|code| **code != "handler_crashed") {
            for path in paths {
                let said = advice(code, path, "mine").unwrap_or_default();
                assert!(!said.is_empty(), "{code} of {path}");
                for command in commands(&said).iter().filter(|command| !command.is_empty()) {
                    let read = super::super::parse_for_test(command);
                    assert!(
                        read.is_ok(),
                        "{code} of {path}: {said}: {}",
                        read.err().map_or_else(String::new, |e| e.to_string())
                    );
                }
            }
        }
        assert_eq!(advice("new", "/api/v1/tasks", "mine"), None);
    }

    #[test]
    fn what_a_task_waits_for_a_person_to_do_is_done_by_a_command() {
        let id = "01a2042c-2ece-713c-be69-e95672407ec4";
        let said = |state: &str, more: serde_json::Value| {
            let mut task = serde_json::json!({
                "id": id, "target": "tool:order", "state": state, "attempt": 0, "lost": 0, "max_attempts": 3,
                "priority": 0, "created_at": "2026-01-01T00:00:00Z",
            });
            task.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let said = for_task(&serde_json::from_value(task).unwrap(), "mine");
            for command in said.iter().flat_map(|said| commands(said)) {
                assert!(super::super::parse_for_test(&command).is_ok(), "{command:?}");
            }
            said
        };
        let signals = said(
            "waiting",
            serde_json::json!({"waits": [
                {"signal": "approved"}, {"signal": "paid:7"}, {"signal": "approved"}, {"batch": id},
            ]}),
        );
        let signal = |name| format!("mine tasks signal {id} {name} JSON");
        assert_eq!(signals, [signal("approved"), signal("paid:7")]);

        let failed = |code: &str, crash: Option<&str>| {
            let error = serde_json::json!({"code": code, "message": "no", "chain": [], "crash_id": crash});
            said("failed", serde_json::json!({"error": error}))
        };
        let plain = failed("timed_out", None);
        assert_eq!(plain[0], format!("when the cause is mended: mine tasks retry {id}"));
        assert_eq!(plain[1], format!("if nobody needs it: mine tasks dismiss {id}"));
        assert_eq!(failed("handler_crashed", Some(id))[0], format!("mine crashes show {id}"));
        assert!(failed(POISON, None)[0].starts_with("it takes its node down"));
        assert_eq!(said("outcome_unknown", serde_json::json!({})).len(), 3);
        assert!(said("succeeded", serde_json::json!({})).is_empty());
    }

    #[test]
    fn what_supervision_has_stopped_is_brought_back_by_a_command() {
        for subject in ["counter/a", "tool:fs.read"] {
            let said = restart_command(subject).replace("greenroom ", "mine ");
            for command in commands(&said) {
                assert!(super::super::parse_for_test(&command).is_ok(), "{said}");
                assert_eq!(command.last(), Some(&subject));
            }
        }
    }

    #[test]
    fn the_command_is_about_what_was_asked_for() {
        let said = |code, path| advice(code, path, "mine").unwrap_or_default();
        assert_eq!(
            said("not_found", "/api/v1/agents/counter/zz?state=true"),
            "mine agents ls --kind counter"
        );
        assert_eq!(
            said("refused", "/api/v1/agents/counter/a%2Fb/messages/Add"),
            "mine agents show counter/a/b"
        );
        assert_eq!(said("not_found", "/api/v1/tasks/x"), "mine tasks ls");
        assert_eq!(said("not_found", "/api/v1/tokens/x"), "mine tokens ls");
        assert_eq!(said("wrong_state", "/api/v1/tasks/x/cancel"), "mine tasks show x");
        assert_eq!(said("wrong_state", "/api/v1/tasks/retry"), "mine tasks ls");
        assert_eq!(
            said("wrong_state", "/api/v1/tools/fs.read/call"),
            "when the cause is mended: mine kinds resume tool:fs.read"
        );
        assert_eq!(
            said("unknown_message", "/api/v1/agents/counter/a/messages/Ad"),
            "mine kinds show counter"
        );
    }
}
