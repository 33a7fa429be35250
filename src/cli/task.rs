//! One task, as `tasks show` prints it.

use std::time::Duration;

use super::{
    Session, advice,
    exit::Failure,
    out::{self, Paint},
    tasks::path,
    when,
};
use crate::model::{
    task::{OnParentFailed, TaskState, TaskView, TaskWait},
    units::print_duration,
};

pub(super) fn show(session: &Session<'_>, id: &str, input: bool) -> Result<(), Failure> {
    let asked = if input { "?input=true" } else { "" };
    let reply = session.client()?.get(&format!("{}{asked}", path(id)))?;
    if session.json() {
        return Ok(out::json(&reply.body)?);
    }
    let task: TaskView = reply.read()?;
    let hints = advice::for_task(&task, session.program);
    out::line(&lines(task, Paint::of_stdout()).join("\n"))?;
    for hint in hints {
        out::note(&Paint::of_stderr().dim(&format!("→ {hint}")));
    }
    Ok(())
}

fn lines(task: TaskView, paint: Paint) -> Vec<String> {
    let state = match task.state {
        TaskState::Succeeded => paint.green(task.state.name()),
        TaskState::Failed | TaskState::OutcomeUnknown => paint.red(task.state.name()),
        _ => paint.yellow(task.state.name()),
    };
    let mut lines = vec![format!("{}  {state}", paint.bold(&task.id.to_string()))];
    let mut fact = |name: &str, text: String| lines.push(format!("{name:>9}: {}", out::plain(&text)));
    for (name, text) in facts(&task) {
        fact(name, text);
    }
    for text in waits_for(&task) {
        fact("waits for", text);
    }
    if let Some(progress) = task.progress {
        fact("progress", progress.to_string());
    }
    if let Some(input) = task.input {
        fact("input", input.get().to_owned());
    }
    if let Some(result) = task.result {
        fact("result", result.get().to_owned());
    }
    if let Some(error) = task.error {
        fact("error", format!("{}: {}", error.code, error.message));
        for cause in error.chain {
            fact("because", cause);
        }
        if let Some(crash) = error.crash_id {
            fact("crash", crash);
        }
    }
    lines
}

/// What it is, and what its submitter chose.
fn facts(task: &TaskView) -> Vec<(&'static str, String)> {
    let at = |at| format!("{} ({})", when::exact(at), when::ago(at));
    let timeout = task.timeout_ms.map(|ms| print_duration(Duration::from_millis(ms)));
    let runs = task.on_parent_failed.filter(|how| *how == OnParentFailed::Run);
    let all = [
        ("target", Some(task.target.to_string())),
        ("message", task.message.clone()),
        ("attempt", Some(format!("{} of {}", task.attempt, task.max_attempts))),
        ("lost", (task.lost > 0).then(|| task.lost.to_string())),
        ("timeout", timeout),
        ("priority", Some(task.priority.to_string())),
        ("tags", (!task.tags.is_empty()).then(|| task.tags.join(", "))),
        ("key", task.idempotency_key.clone()),
        ("parent", task.parent.map(|id| id.to_string())),
        ("batch", task.batch.map(|id| id.to_string())),
        ("notifies", task.notify.as_ref().map(|notify| format!("{} {}", notify.target, notify.message))),
        ("runs", runs.map(|_| "even if a prerequisite fails".to_owned())),
        ("accepted", Some(at(task.created_at))),
        ("due", task.run_at.filter(|due| *due != task.created_at).map(at)),
        ("expires", task.expires_at.map(at)),
        ("started", task.started_at.map(at)),
        ("ended", task.finished_at.map(at)),
        ("node", task.node.clone()),
    ];
    all.into_iter().filter_map(|(name, text)| Some((name, text?))).collect()
}

fn waits_for(task: &TaskView) -> Vec<String> {
    let wait = |TaskWait { signal, batch, until }: &TaskWait| {
        let what = match (signal, batch) {
            (Some(name), _) => format!("signal {name}"),
            (None, Some(batch)) => format!("the end of batch {batch}"),
            (None, None) => "something".to_owned(),
        };
        match until {
            Some(at) => format!("{what}, until {} ({})", when::exact(*at), when::ago(*at)),
            None => what,
        }
    };
    let shown = &task.prerequisites;
    let mut all: Vec<String> = task.waits.iter().map(wait).collect();
    all.extend(shown.iter().map(|one| format!("{} ({}, {})", one.id, one.state.name(), one.target)));
    match (shown.len(), task.waiting_for.unwrap_or_default() as usize) {
        (0, count @ 1..) => all.push(format!("{count} tasks")),
        (n, count) if count > n => all.push(format!("{} more tasks", count - n)),
        _ => {}
    }
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(more: serde_json::Value) -> String {
        let mut task = json!({
            "id": "01a2042c-2ece-713c-be69-e95672407ec4", "target": "tool:order", "state": "ready",
            "attempt": 0, "lost": 0, "max_attempts": 3, "priority": 0, "created_at": "2026-01-01T00:00:00Z",
        });
        task.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        lines(serde_json::from_value(task).unwrap(), Paint::NONE).join("\n")
    }

    #[test]
    fn what_was_chosen_is_shown_and_nothing_else() {
        let plain = shown(json!({}));
        let names: Vec<_> =
            plain.lines().skip(1).map(|line| line.split(':').next().unwrap().trim()).collect();
        assert_eq!(names, ["target", "attempt", "priority", "accepted"], "{plain}");
        let chosen = shown(json!({
            "expires_at": "2026-01-02T00:00:00Z", "timeout_ms": 90_000, "on_parent_failed": "run",
            "idempotency_key": "k", "notify": {"target": "desk/a", "message": "Order.done"}, "lost": 1,
        }));
        for line in [
            "  expires: 2026-01-02T00:00:00.000Z",
            "  timeout: 1m30s",
            "     runs: even if a prerequisite fails",
            "      key: k",
            " notifies: desk/a Order.done",
            "     lost: 1",
        ] {
            assert!(chosen.lines().any(|shown| shown.starts_with(line)), "{line}: {chosen}");
        }
    }

    #[test]
    fn what_it_waits_for_is_shown() {
        let id = "01a2042c-2ece-713c-be69-e95672407ec4";
        let waits = shown(json!({"state": "waiting", "waits": [
            {"signal": "approved", "until": "2026-01-02T00:00:00Z"}, {"batch": id},
        ]}));
        assert!(waits.contains("\nwaits for: signal approved, until 2026-01-02T00:00:00.000Z ("), "{waits}");
        assert!(waits.contains(&format!("\nwaits for: the end of batch {id}")), "{waits}");
        let blocked = |prerequisites: serde_json::Value| {
            shown(json!({"state": "blocked", "waiting_for": 3, "prerequisites": prerequisites}))
        };
        let some = blocked(json!([{"id": id, "target": "counter/a", "state": "running"}]));
        assert!(
            some.ends_with(&format!("waits for: {id} (running, counter/a)\nwaits for: 2 more tasks")),
            "{some}"
        );
        assert!(blocked(json!([])).ends_with("waits for: 3 tasks"));
    }
}
