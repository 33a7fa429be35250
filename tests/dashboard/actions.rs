//! What a person does: act on agents and tasks, say something, use the keyboard.

use serde_json::json;

use crate::{
    is_clean,
    seed::{ask, seed, task},
    signed_in,
    support::Node,
};

#[test]
fn an_agent_is_paused_and_resumed() {
    let node = Node::start(&[]);
    ask(&node, "a", "Add", json!({"n": 1}));
    let mut page = signed_in(&node);
    page.go("#/agents/counter/a");
    page.click("Pause");
    page.sees("wait until it is resumed");
    page.until("document.querySelector('dialog[open]').contains(document.activeElement)");
    page.eval("[...document.querySelectorAll('dialog .button')].at(-1).click()");
    page.until(
        "!document.querySelector('dialog') && document.querySelector('main .badge').textContent === 'paused'",
    );
    assert_eq!(node.get("/api/v1/agents/counter/a").json["status"], "paused");
    page.click("Resume");
    page.eval("[...document.querySelectorAll('dialog .button')].at(-1).click()");
    page.until("document.querySelector('main .badge').textContent !== 'paused'");
    assert_ne!(node.get("/api/v1/agents/counter/a").json["status"], "paused");
    is_clean(&page, &node);
}

#[test]
fn a_state_is_edited_rolled_back_and_deleted() {
    let node = Node::start(&[]);
    ask(&node, "a", "Add", json!({"n": 1}));
    let mut page = signed_in(&node);
    page.go("#/agents/counter/a");
    page.click("Edit…");
    page.eval("document.querySelector('dialog textarea').value = '{\"total\": \"many\", \"ids\": []}'");
    page.click("Write it");
    page.until("document.querySelector('dialog .form-error')?.textContent.length > 0");
    page.eval("document.querySelector('dialog textarea').value = '{\"total\": 41, \"ids\": []}'");
    page.click("Write it");
    page.sees("total: 41");
    assert_eq!(ask(&node, "a", "Get", json!({})), json!({"total": 41}));
    page.go("#/agents/counter/a/history");
    page.click("Go back to it…");
    page.click("Roll back");
    page.until("!document.querySelector('dialog')");
    assert_eq!(ask(&node, "a", "Get", json!({})), json!({"total": 1}));
    page.click("Delete this agent…");
    page.click("Delete for good");
    page.until("location.hash === '#/agents'");
    node.get("/api/v1/agents/counter/a").is_problem(404, "not_found");
    page.go("#/system/audit");
    for action in ["agent.edit", "agent.rollback", "agent.delete"] {
        page.sees(action);
    }
}

#[test]
fn a_message_is_sent_with_a_form_made_from_its_schema() {
    let node = Node::start(&[]);
    ask(&node, "a", "Add", json!({"n": 1}));
    let mut page = signed_in(&node);
    page.go("#/agents/counter/a");
    page.click("Send a message");
    page.sees("How much; may be negative.");
    page.click("Send");
    page.sees("n is missing");
    page.fill("dialog input[type=number]", "41");
    page.click("Send");
    page.sees("total: 42");
    page.click("JSON");
    page.until("JSON.parse(document.querySelector('dialog textarea').value).n === 41");
    page.eval("document.querySelector('dialog textarea').value = '{\"n\": \"two\"}'");
    page.click("Send");
    page.until("document.querySelector('dialog .answer code')?.textContent === '/n'");
    page.click("Close");
    page.until("!document.querySelector('dialog')");
    page.sees("total: 42");
    assert_eq!(ask(&node, "a", "Get", json!({})), json!({"total": 42}));
}

#[test]
fn dead_letters_are_brought_back_one_by_one_and_by_a_filter() {
    let node = Node::start(&[]);
    let fail = |key: &str| {
        let target = format!("counter/{key}");
        let id = task(
            &node,
            json!({"target": target, "message": "Fail", "input": {"message": "no luck"}, "max_attempts": 1}),
        );
        assert_eq!(node.get(&format!("/api/v1/tasks/{id}?wait=20s")).json["state"], "failed");
        id
    };
    let ids = [fail("a"), fail("a"), fail("b")];
    // what is brought back waits, so that it can be told from what failed again
    assert_eq!(node.post("/api/v1/kinds/counter/pause", "").status, 202);
    let mut page = signed_in(&node);
    page.go("#/tasks/dead");
    page.until("document.querySelectorAll('tbody tr').length === 3");
    page.eval("document.querySelector('tbody tr button').click()");
    page.until("document.querySelectorAll('tbody tr').length === 2");
    page.go("#/tasks/dead?target=counter%2Fa");
    page.until("document.querySelectorAll('tbody tr').length === 2");
    page.click("Retry these…");
    page.sees("Retry 2 tasks?");
    page.click("Retry 2 tasks");
    page.sees("2 tasks brought back");
    page.sees("No dead letters");
    for id in &ids {
        assert_eq!(node.get(&format!("/api/v1/tasks/{id}")).json["state"], "ready");
    }
    is_clean(&page, &node);
}

#[test]
fn dead_letters_are_dismissed_one_by_one_and_by_a_filter() {
    let node = Node::start(&[]);
    let fail = |key: &str| {
        let target = format!("counter/{key}");
        let id = task(
            &node,
            json!({"target": target, "message": "Fail", "input": {"message": "no luck"}, "max_attempts": 1}),
        );
        assert_eq!(node.get(&format!("/api/v1/tasks/{id}?wait=20s")).json["state"], "failed");
        id
    };
    let ids = [fail("a"), fail("b"), fail("b"), fail("c")];
    let mut page = signed_in(&node);
    page.go("#/tasks/dead");
    page.until("document.querySelectorAll('tbody tr').length === 4");
    page.eval(
        "[...document.querySelectorAll('tbody tr button')].find((b) => b.textContent === 'Dismiss').click()",
    );
    page.until("document.querySelectorAll('tbody tr').length === 3");
    page.go("#/tasks/dead?target=counter%2Fb");
    page.until("document.querySelectorAll('tbody tr').length === 2");
    page.click("Dismiss these…");
    page.sees("Dismiss 2 tasks?");
    page.click("Dismiss 2 tasks");
    page.sees("2 tasks dismissed");
    page.sees("No dead letters");
    page.go(&format!("#/tasks/{}", ids[0]));
    page.click("Dismiss");
    page.until("document.querySelector('dialog[open]')");
    page.eval(
        "[...document.querySelectorAll('dialog button')].find((b) => b.textContent === 'Dismiss').click()",
    );
    page.until("document.querySelector('main .badge').textContent === 'cancelled'");
    page.sees("an operator dismissed the dead letter");
    for id in &ids {
        assert_eq!(node.get(&format!("/api/v1/tasks/{id}")).json["state"], "cancelled");
    }
    is_clean(&page, &node);
}

#[test]
fn a_family_keeps_its_lines_when_its_tasks_have_ended() {
    let node = Node::start(&[]);
    let one = |name: &str, after: &[&str]| json!({"name": name, "target": "counter/f", "message": "Append", "input": {"id": name}, "after": after});
    let tasks = [one("a", &[]), one("b", &["a"]), one("c", &["a"]), one("d", &["b", "c"])];
    let accepted = node.post("/api/v1/tasks/batch", &json!({ "tasks": tasks }).to_string());
    let last = accepted.json["items"][3]["id"].as_str().unwrap().to_owned();
    assert_eq!(node.get(&format!("/api/v1/tasks/{last}?wait=20s")).json["state"], "succeeded");
    let family = node.get(&format!("/api/v1/tasks/{last}/family")).json;
    assert_eq!(family["edges"].as_array().unwrap().len(), 4, "{family}");
    let mut page = signed_in(&node);
    page.go(&format!("#/tasks/{last}"));
    page.until("document.querySelectorAll('.dag-edge').length === 4");
    is_clean(&page, &node);
}

#[test]
fn a_task_is_signalled_and_seen_to_its_end() {
    let node = Node::start(&[]);
    let seed = seed(&node);
    let mut page = signed_in(&node);
    page.go(&format!("#/tasks/{}", seed.waiting));
    page.sees("the signal approved");
    page.click("Signal…");
    page.until("document.querySelector('dialog input').value === 'approved'");
    page.fill("dialog textarea", "{\"by\": \"ada\"}");
    page.click("Send");
    page.until("document.querySelector('main .badge').textContent === 'succeeded'");
    page.sees("by: \"ada\"");
    is_clean(&page, &node);
}

#[test]
fn tokens_are_made_and_settings_changed() {
    let node = Node::start(&[]);
    let mut page = signed_in(&node);
    page.go("#/system/tokens");
    page.click("Add a token…");
    page.fill("dialog input", "ada");
    page.click("Add");
    page.sees("This is shown once:");
    let token = page.eval("document.querySelector('dialog p code').textContent");
    let bearer = format!("Bearer {}", token.as_str().unwrap());
    let me = node.send_bare("GET", "/api/v1/me", &[("Authorization", &bearer)], None);
    assert_eq!((me.status, &me.json["name"]), (200, &json!("ada")));
    page.click("Close");
    page.until("[...document.querySelectorAll('tbody td')].some((cell) => cell.textContent === 'ada')");
    page.go("#/system/config?find=log.level");
    page.click("Change");
    page.eval("document.querySelector('dialog input').value = ''");
    page.fill("dialog input", "shout");
    page.click("Change");
    page.until("document.querySelector('dialog .form-error')?.textContent.includes('shout')");
    page.eval("document.querySelector('dialog input').value = ''");
    page.fill("dialog input", "debug");
    page.click("Change");
    page.sees("log.level: in force at once");
    page.until("!document.querySelector('dialog') && document.querySelector('tbody td + td').textContent === 'debug'");
}

#[test]
fn the_keyboard_is_enough() {
    let node = Node::start(&[]);
    seed(&node);
    let mut page = signed_in(&node);
    page.press("?");
    page.until("document.querySelector('dialog[open] h2').textContent === 'Keys'");
    page.press("Escape");
    page.until("!document.querySelector('dialog')");
    for (key, hash) in
        [("t", "#/tasks"), ("c", "#/crashes"), ("s", "#/tree"), ("l", "#/logs"), ("a", "#/agents")]
    {
        page.press("g");
        page.press(key);
        page.until(&format!("location.hash === '{hash}' && document.querySelector('main .page')"));
    }
    page.until("document.querySelectorAll('tr.row').length > 5");
    for key in ["j", "j", "k", "j"] {
        page.press(key);
    }
    page.until("document.activeElement === document.querySelectorAll('tr.row')[1]");
    page.press("Enter");
    page.until("location.hash.startsWith('#/agents/counter/')");
    page.press("g");
    page.press("t");
    page.until("location.hash === '#/tasks' && document.querySelector('main input[type=search]')");
    page.press("/");
    page.until("document.activeElement === document.querySelector('main input[type=search]')");
    // in a field the letters are letters
    page.press("j");
    page.until("document.activeElement.value === 'j'");
    page.press("Escape");
    page.until("document.activeElement === document.body && location.hash === '#/tasks'");
    page.eval("document.querySelector('.skip').focus()");
    page.press("Enter");
    page.until("document.activeElement === document.querySelector('main') && location.hash === '#/tasks'");
    is_clean(&page, &node);
}
