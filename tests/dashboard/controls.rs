//! What an operator does by click, and that it is done: schedules, logs, tools, kinds, tasks, settings, the node.

use serde_json::{Value, json};

use crate::{
    browser::Browser,
    is_clean,
    seed::{ask, task},
    signed_in,
    support::{Node, until},
};

/// Fills the field of the open dialog that has this label.
#[track_caller]
fn fill(page: &mut Browser, label: &str, text: &str) {
    let find = format!(
        "[...document.querySelectorAll('dialog label')]
           .find((field) => field.querySelector('.form-name')?.textContent === {}).querySelector('input, textarea')",
        Value::from(label)
    );
    page.until(&find);
    page.eval(&format!("{find}.id = 'filled'"));
    page.fill("#filled", text);
    page.eval("document.getElementById('filled').removeAttribute('id')");
}

/// Clicks a button of the card with this heading.
#[track_caller]
fn click_in(page: &mut Browser, card: &str, button: &str) {
    let find = format!(
        "[...([...document.querySelectorAll('section.card')].find((card) => card.querySelector('h2').textContent === {})
           ?.querySelectorAll('button') ?? [])].find((b) => b.textContent === {} && !b.disabled)",
        Value::from(card),
        Value::from(button)
    );
    page.until(&find);
    page.eval(&format!("{find}.click()"));
}

#[test]
fn a_schedule_is_added_run_paused_resumed_and_removed() {
    let node = Node::start(&[]);
    let mut page = signed_in(&node);
    page.go("#/tasks/schedules");
    page.click("Add a schedule…");
    for (label, text) in [
        ("Name", "nightly"),
        ("When", "0 3 * * * Europe/Berlin"),
        ("Target", "counter/s"),
        ("Message", "Add"),
        ("Input (JSON)", r#"{"n":7}"#),
    ] {
        fill(&mut page, label, text);
    }
    page.click("Add");
    page.until("!document.querySelector('dialog') && document.querySelector('.schedule h2')");
    let schedule = || node.get("/api/v1/schedules/nightly").json;
    let added = schedule();
    let parts = [&added["cron"], &added["target"], &added["message"], &added["input"], &added["paused"]];
    let asked =
        [json!("0 3 * * * Europe/Berlin"), json!("counter/s"), json!("Add"), json!({"n": 7}), json!(false)];
    assert_eq!(parts, asked.each_ref());
    page.click("Run now");
    until("its task has run", || ask(&node, "s", "Get", json!({})) == json!({"total": 7}));
    page.click("Pause");
    until("it is paused", || schedule()["paused"] == true);
    page.until("document.querySelector('.schedule .badge').textContent === 'paused'");
    page.click("Resume");
    until("it goes on", || schedule()["paused"] == false);
    page.click("Remove");
    page.sees("It submits no more tasks");
    page.click("Remove");
    page.sees("No schedules");
    node.get("/api/v1/schedules/nightly").is_problem(404, "not_found");
    is_clean(&page, &node);
}

#[test]
fn the_log_is_held_up_filtered_by_level_and_follows_one_subject() {
    let node = Node::start(&[]);
    ask(&node, "a", "Crash", json!({"message": "before"}));
    let mut page = signed_in(&node);
    page.go("#/logs");
    page.sees("node.started");
    page.click("Pause");
    page.sees("held up;");
    ask(&node, "b", "Crash", json!({"message": "while it is held up"}));
    page.until(r"/held up; [1-9]\d* new/.test(document.querySelector('.log-note').textContent)");
    let shown = "document.querySelector('.log').textContent.includes('while it is held up')";
    assert_eq!(page.eval(shown), false);
    page.eval(
        "[...document.querySelectorAll('button')].find((b) => b.textContent.startsWith('Go on')).click()",
    );
    page.until(shown);

    let lines = |query: &str| {
        node.get(&format!("/api/v1/logs?tail=500{query}")).json["items"].as_array().unwrap().len()
    };
    page.eval(
        "(() => { const pick = document.querySelector('main select'); pick.value = 'error';
                  pick.dispatchEvent(new Event('change', {bubbles: true})); })()",
    );
    page.until("location.hash === '#/logs?level=error'");
    page.until(&format!("document.querySelectorAll('.log > li').length === {}", lines("&level=error")));
    let grave = "[...document.querySelectorAll('.log > li .level')].every((l) => ['error', 'critical'].includes(l.textContent))";
    assert_eq!(page.eval(grave), true);
    assert!(lines("&level=error") >= 2, "both crashes are");

    page.eval("document.querySelector('.log-follow[href*=\"counter%2Fb\"]').click()");
    page.until("location.hash === '#/logs?subject=counter%2Fb'");
    page.until(&format!("document.querySelectorAll('.log > li').length === {}", lines("&subject=counter/b")));
    ask(&node, "a", "Crash", json!({"message": "of another"}));
    ask(&node, "b", "Crash", json!({"message": "of the one that is followed"}));
    page.sees("of the one that is followed");
    assert_eq!(page.eval("document.querySelector('.log').textContent.includes('of another')"), false);
    page.click("Follow all");
    page.sees("of another");
    is_clean(&page, &node);
}

#[test]
fn a_tool_is_called_with_a_form_made_from_its_schema() {
    let node = Node::start(&[]);
    let mut page = signed_in(&node);
    page.go("#/system/tools");
    click_in(&mut page, "probe.stumble", "Call…");
    fill(&mut page, "to", "t");
    fill(&mut page, "id", "by-hand");
    page.click("Call");
    page.sees("percent is missing");
    assert_eq!(node.get("/api/v1/tools/probe.stumble").json["calls"], 0, "it was not called");
    fill(&mut page, "percent", "0");
    page.click("Call");
    page.sees("answered after");
    assert_eq!(ask(&node, "t", "List", json!({})), json!({"ids": ["by-hand"]}));
    assert_eq!(node.get("/api/v1/tools/probe.stumble").json["calls"], 1);
    page.click("Close");
    is_clean(&page, &node);
}

#[test]
fn the_tasks_of_a_kind_are_paused_and_resumed() {
    let node = Node::start(&[]);
    let mut page = signed_in(&node);
    page.go("#/system/kinds");
    click_in(&mut page, "counter", "Pause its tasks");
    page.sees("None of them is started until they are resumed");
    page.click("Pause");
    let paused = |is: bool| {
        until("it is taken over", || node.get("/api/v1/kinds/counter").json["paused"] == is);
    };
    paused(true);
    let id = task(&node, json!({"target": "counter/a", "message": "Add", "input": {"n": 1}}));
    assert_eq!(node.get(&format!("/api/v1/tasks/{id}?wait=300ms")).json["state"], "ready");
    click_in(&mut page, "counter", "Resume its tasks");
    paused(false);
    assert_eq!(node.get(&format!("/api/v1/tasks/{id}?wait=20s")).json["state"], "succeeded");
    is_clean(&page, &node);
}

#[test]
fn a_task_is_retried_and_cancelled() {
    let node = Node::start(&[]);
    let fails =
        json!({"target": "counter/a", "message": "Fail", "input": {"message": "no luck"}, "max_attempts": 1});
    let id = task(&node, fails);
    assert_eq!(node.get(&format!("/api/v1/tasks/{id}?wait=20s")).json["state"], "failed");
    // what is tried again waits, so that it can be told from what failed again
    assert_eq!(node.post("/api/v1/kinds/counter/pause", "").status, 202);
    let state = || node.get(&format!("/api/v1/tasks/{id}")).json["state"].clone();
    let mut page = signed_in(&node);
    page.go(&format!("#/tasks/{id}"));
    page.click("Retry");
    page.sees("It begins anew, with all its attempts");
    page.click("Retry");
    page.until("document.querySelector('main .badge').textContent === 'ready'");
    assert_eq!(state(), "ready");
    page.click("Cancel");
    page.sees("It will not run");
    assert_eq!(state(), "ready", "it is asked first");
    page.click("Cancel the task");
    page.until("document.querySelector('main .badge').textContent === 'cancelled'");
    assert_eq!(state(), "cancelled");
    is_clean(&page, &node);
}

#[test]
fn a_person_says_what_became_of_an_interrupted_effect() {
    let node = Node::start(&[]);
    let interrupted = || {
        let id =
            task(&node, json!({"target": "tool:probe.hold", "input": {"ms": 600_000}, "timeout": "50ms"}));
        let at = format!("/api/v1/tasks/{id}");
        until("nobody knows", || node.get(&at).json["state"] == "outcome_unknown");
        id
    };
    let (happened, failed) = (interrupted(), interrupted());
    let told = |id: &str| node.get(&format!("/api/v1/tasks/{id}")).json;
    let mut page = signed_in(&node);
    page.go(&format!("#/tasks/{happened}"));
    page.click("Say what happened…");
    page.click("It succeeded");
    page.until("document.querySelector('main .badge').textContent === 'succeeded'");
    assert_eq!(told(&happened)["state"], "succeeded");
    page.go(&format!("#/tasks/{failed}"));
    page.click("Say what happened…");
    fill(&mut page, "Or it did not: why", "the bank says no");
    page.click("It failed");
    page.until("document.querySelector('main .badge').textContent === 'failed'");
    let task = told(&failed);
    assert_eq!(task["state"], "failed");
    assert!(task["error"]["message"].as_str().unwrap().contains("the bank says no"), "{task}");
    is_clean(&page, &node);
}

/// Of two operators who changed one key the first was written over, and neither was told.
#[test]
fn a_setting_that_somebody_else_has_changed_is_not_written_over_unseen() {
    let node = Node::start(&[]);
    let set = |key: &str, value: Value| {
        let changed = node.send("PATCH", "/api/v1/config", &[], Some(&json!({key: value}).to_string()));
        assert_eq!(changed.status, 200, "{changed:?}");
    };
    let slots = || {
        let all = node.get("/api/v1/config").json;
        all["items"].as_array().unwrap().iter().find(|one| one["key"] == "tasks.slots").unwrap()["value"]
            .clone()
    };
    let mut page = signed_in(&node);
    let begin = |page: &mut Browser, value: &str| {
        page.go("#/system/config?find=tasks.slots");
        page.click("Change");
        page.eval("document.querySelector('dialog input').value = ''");
        page.fill("dialog input", value);
    };
    begin(&mut page, "7");
    set("tasks.max_lost", json!(9));
    page.click("Change");
    page.sees("tasks.slots: in force at once");
    assert_eq!(slots(), 7, "another key is no hindrance");
    page.until("!document.querySelector('dialog')");
    page.until("document.querySelector('tbody td + td').textContent === '7'");

    begin(&mut page, "8");
    set("tasks.slots", json!(5));
    page.click("Change");
    page.until(
        "document.querySelector('dialog .form-error')?.textContent.includes('it is 5 now, from config set')",
    );
    assert_eq!(slots(), 5, "it is not written over unseen");
    page.click("Change");
    page.until("!document.querySelector('dialog')");
    assert_eq!(slots(), 8, "and now it was seen");

    // what waits for a restart is shown as it was
    page.go("#/system/config?find=http.timeout");
    page.click("Change");
    page.eval("document.querySelector('dialog input').value = ''");
    page.fill("dialog input", "40s");
    set("http.timeout", json!("20s"));
    page.click("Change");
    page.until("document.querySelector('dialog .form-error')?.textContent.includes('may be this one')");
    let kept = node.cli(&["config", "set", "http.timeout", "20s"]);
    assert!(kept.err.contains("nothing has changed"), "it is not written over unseen: {kept:?}");
}

#[test]
fn the_node_is_stopped() {
    let mut node = Node::start(&[]);
    let mut page = signed_in(&node);
    page.go("#/system");
    page.click("Stop the node…");
    page.sees("nothing that was acknowledged is lost");
    assert_eq!(node.get("/health/live").status, 200, "it is asked first");
    is_clean(&page, &node);
    page.click("Stop the node");
    page.until("!document.querySelector('dialog') && !document.getElementById('banner').hidden");
    assert_eq!(node.wait_for_end().code(), Some(0), "{}", node.log());
}
