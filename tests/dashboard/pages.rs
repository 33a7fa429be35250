//! Every page: it opens, shows what is there, and asks nobody else; what it shows is text.

use std::path::PathBuf;

use serde_json::json;

use crate::{
    is_clean,
    seed::{HOSTILE_KEY, Seed, encoded, seed},
    signed_in,
    support::Node,
};

/// The pages, and what each is to show.
fn pages(seed: &Seed) -> Vec<(&'static str, String, &'static str)> {
    let page = |name, hash: &str, shows| (name, hash.to_owned(), shows);
    vec![
        page("overview", "#/", "Recent crashes"),
        page("tree", "#/tree", "counter/ledger"),
        page("agents", "#/agents", "quarantined"),
        page("agent", "#/agents/counter/ledger", "order-3"),
        page("agent-diff", "#/agents/counter/ledger?version=4&against=1", "ids[1]"),
        page("agent-history", "#/agents/counter/ledger/history", "version 4"),
        page("agent-tasks", "#/agents/counter/failing/tasks", "failed"),
        page("agent-events", "#/agents/counter/flaky/events", "agent.crashed"),
        page("tasks", "#/tasks", "cancelled"),
        page("tasks-filtered", "#/tasks?state=parked&target=counter%2Fshop-01", "parked"),
        ("task", format!("#/tasks/{}", seed.middle), "5 tasks"),
        ("task-dead", format!("#/tasks/{}", seed.dead), "closed on sundays"),
        ("task-waiting", format!("#/tasks/{}", seed.waiting), "waits for `approved`"),
        page("dead-letters", "#/tasks/dead", "closed on sundays"),
        page("schedules", "#/tasks/schedules", "Europe/Berlin"),
        page("crashes", "#/crashes", "src/agent/counter.rs"),
        ("crash", format!("#/crashes/{}", seed.crash), "Backtrace"),
        page("logs", "#/logs", "restart.planned"),
        page("system", "#/system", "64 of 64"),
        page("kinds", "#/system/kinds", "Persistence"),
        page("tools", "#/system/tools", "fs.read"),
        page("config", "#/system/config", "node.probe"),
        page("tokens", "#/system/tokens", "token"),
        page("audit", "#/system/audit", "agent.quarantine"),
    ]
}

/// What does not fit where it stands: buttons in a table, and a title that is squeezed into a column of letters.
const CUT_OFF: &str = r"(() => {
    const inner = (cell) => cell.getBoundingClientRect().right - parseFloat(getComputedStyle(cell).paddingRight) + 1;
    const beyond = (button) => button.getBoundingClientRect().right > inner(button.closest('td'));
    const buttons = [...document.querySelectorAll('td button')].filter((b) => b.offsetWidth > 0 && beyond(b));
    const title = document.querySelector('.top h1');
    return [...buttons, ...(title.offsetHeight > 70 ? [title] : [])].map((cut) => cut.innerText).join();
})()";

#[test]
fn each_page_shows_what_is_there_and_asks_nobody_else() {
    let node = Node::start(&[]);
    let seed = seed(&node);
    let mut page = signed_in(&node);
    for (name, hash, shows) in pages(&seed) {
        page.go(&hash);
        page.until(&format!("document.querySelector('main').innerText.includes({})", json!(shows)));
        let wide = page.eval("document.documentElement.scrollWidth <= innerWidth");
        assert_eq!(wide, true, "{name} is wider than the window");
        assert_eq!(page.eval(CUT_OFF), "", "on {name}");
    }
    is_clean(&page, &node);
}

#[test]
fn a_phone_needs_no_scrolling_sideways() {
    let folder = std::env::var_os("GREENROOM_SHOTS").map(PathBuf::from);
    let node = Node::start(&[]);
    let seed = seed(&node);
    let mut page = signed_in(&node);
    for (look, width, height, dark) in
        [("light", 1_320, 900, false), ("dark", 1_320, 900, true), ("phone", 390, 844, false)]
    {
        if folder.is_none() && look != "phone" {
            continue;
        }
        page.size(width, height, look == "phone");
        page.dark(dark);
        for (name, hash, shows) in pages(&seed) {
            page.go(&hash);
            page.until(&format!("document.querySelector('main').innerText.includes({})", json!(shows)));
            let overflow = page.eval("document.documentElement.scrollWidth - innerWidth");
            assert!(overflow.as_i64().is_some_and(|pixels| pixels <= 0), "{name} on a {look}: {overflow}");
            assert_eq!(page.eval(CUT_OFF), "", "{name} on a {look}");
            if let Some(folder) = &folder {
                page.shoot(&folder.join(format!("{name}-{look}.png")));
            }
        }
    }
    is_clean(&page, &node);
}

#[test]
fn what_agents_and_logs_say_is_text_and_nothing_else() {
    let node = Node::start(&[]);
    let seed = seed(&node);
    let mut page = signed_in(&node);
    let own = format!("#/agents/counter/{}", encoded(HOSTILE_KEY));
    for hash in [
        "#/",
        "#/tree",
        "#/agents",
        &own,
        &format!("#/crashes/{}", seed.crash),
        "#/tasks/dead",
        "#/agents/counter/flaky/events",
        "#/logs",
    ] {
        page.go(hash);
        page.until("document.querySelector('main').textContent.includes('<img src=x')");
        assert_eq!(page.eval("document.querySelectorAll('img').length"), 0, "{hash}");
        // neither controls nor marks that turn the direction are in it, but spelt out
        let acts = page.eval(r"/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/.test(document.body.textContent)");
        assert_eq!(acts, false, "{hash}");
    }
    page.go(&own);
    page.until(r"document.querySelector('main').textContent.includes('\\u{202e}evil')");
    assert_ne!(page.eval("document.title"), "taken");
    is_clean(&page, &node);
}

/// A prefix was looked for on one page of fifty, of which the status left few or none: "No agent like that".
#[test]
fn an_agent_is_found_by_prefix_and_status_wherever_it_stands() {
    let node = Node::start(&[]);
    for n in 0..120 {
        assert_eq!(node.ask(&format!("many-{n:03}"), "Add", r#"{"n":1}"#).status, 200);
    }
    assert_eq!(node.post("/api/v1/agents/counter/many-117/pause", "").status, 202);
    let mut page = signed_in(&node);
    page.go("#/agents?find=many-&status=paused");
    page.until("document.querySelector('tbody')?.innerText.includes('many-117')");
    assert_eq!(page.eval("document.querySelectorAll('tbody tr').length"), 1);
    // without a status they come by pages, all of them
    page.go("#/agents?find=counter%2Fmany-");
    page.until("document.querySelectorAll('tbody tr').length === 50");
    for (shows, rows) in [("many-050", 50), ("many-119", 20)] {
        page.eval(
            "[...document.querySelectorAll('button')].find((b) => b.innerText === 'Next page').click()",
        );
        page.until(&format!(
            "document.querySelector('tbody').innerText.includes('{shows}') && document.querySelectorAll('tbody tr').length === {rows}"
        ));
    }
    page.go("#/agents?find=many-&status=stopped");
    page.until("document.querySelector('main').innerText.includes('No agent like that')");
    is_clean(&page, &node);
}

#[test]
fn filters_stand_in_the_address_and_the_way_back_works() {
    let node = Node::start(&[]);
    seed(&node);
    let mut page = signed_in(&node);
    page.go("#/tasks");
    page.eval(
        "(() => { const pick = document.querySelector('main select'); pick.value = 'failed';
                  pick.dispatchEvent(new Event('change', {bubbles: true})); })()",
    );
    page.until("location.hash === '#/tasks?state=failed'");
    page.until(
        "[...document.querySelectorAll('tbody tr')].length === 2 && !document.querySelector('main.stale')",
    );
    page.eval("history.back()");
    page.until("location.hash === '#/tasks' && document.querySelectorAll('tbody tr').length > 5");
    page.until("document.querySelector('main select').value === ''");
    page.go("#/agents");
    page.fill("main input[type=search]", "shop-0");
    page.press("Enter");
    page.until(
        "location.hash.includes('find=shop-0') && document.querySelectorAll('tbody tr').length === 10",
    );
    is_clean(&page, &node);
}
