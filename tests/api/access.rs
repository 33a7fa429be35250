//! Who may do what: tokens and their scopes, browsers' sessions, pages of other sites.

use serde_json::{Value, json};

use crate::support::{Answer, Node};

/// A client with a token or a session of its own.
struct Client<'a> {
    node: &'a Node,
    headers: Vec<(String, String)>,
}

impl<'a> Client<'a> {
    fn bearer(node: &'a Node, token: &str) -> Self {
        Self { node, headers: vec![("Authorization".into(), format!("Bearer {token}"))] }
    }

    fn cookie(node: &'a Node, answer: &Answer) -> Self {
        Self { node, headers: vec![("Cookie".into(), cookie(answer).into())] }
    }

    fn with(&self, name: &str, value: &str) -> Self {
        let mut headers = self.headers.clone();
        headers.push((name.into(), value.into()));
        Self { node: self.node, headers }
    }

    fn send(&self, method: &str, path: &str, body: Option<&str>) -> Answer {
        let headers: Vec<_> = self.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        self.node.send_bare(method, path, &headers, body)
    }

    fn get(&self, path: &str) -> Answer {
        self.send("GET", path, None)
    }

    fn post(&self, path: &str) -> Answer {
        self.send("POST", path, Some(""))
    }
}

/// The cookie that an answer sets, as it is sent back.
fn cookie(answer: &Answer) -> &str {
    answer.header("set-cookie").unwrap().split(';').next().unwrap()
}

fn add(node: &Node, name: &str, scope: &str) -> String {
    let made = node.post("/api/v1/tokens", &json!({"name": name, "scope": scope}).to_string());
    assert_eq!((made.status, &made.json["scope"]), (201, &json!(scope)), "{made:?}");
    made.json["token"].as_str().unwrap().to_owned()
}

/// A link's path, as a browser opens it.
fn path_of(node: &Node, link: &Answer) -> String {
    assert_eq!(link.status, 201, "{link:?}");
    link.json["url"].as_str().unwrap().strip_prefix(&node.url).unwrap().to_owned()
}

#[test]
fn a_token_is_shown_once_and_works_until_it_is_taken_away() {
    let node = Node::start(&[]);
    assert_eq!(node.get("/api/v1/tokens").json["items"], json!([]));
    let token = add(&node, "ci", "read");
    let client = Client::bearer(&node, &token);
    assert_eq!(client.get("/api/v1/status").status, 200);
    let me = client.get("/api/v1/me").json;
    assert_eq!(me, json!({"name": "ci", "scope": "read", "csrf": null, "expires_at": null}));
    let listed = node.get("/api/v1/tokens");
    assert!(!listed.text.contains(&token) && !listed.text.contains("digest"), "{listed:?}");
    assert_eq!(
        (&listed.json["items"][0]["name"], &listed.json["items"][0]["scope"]),
        (&json!("ci"), &json!("read"))
    );
    node.post("/api/v1/tokens", r#"{"name":"ci","scope":"admin"}"#).is_problem(409, "wrong_state");
    for (bad, pointer) in [
        (json!({"name": "node", "scope": "read"}), "/name"),
        (json!({"name": "a b", "scope": "read"}), "/name"),
        (json!({"name": "a", "scope": "root"}), "/scope"),
        (json!({"name": "a", "scope": "read", "expires_in": "soon"}), "/expires_in"),
        (json!({"name": "a", "scope": "read", "expires_in": "0s"}), "/expires_in"),
    ] {
        let answer = node.post("/api/v1/tokens", &bad.to_string());
        answer.is_problem(422, "invalid");
        assert_eq!(answer.json["errors"][0]["pointer"], pointer, "{answer:?}");
    }
    // noted beside the answer, not before it
    let began = std::time::Instant::now();
    while node.get("/api/v1/tokens").json["items"][0]["last_used"].is_null() {
        assert!(began.elapsed().as_secs() < 10, "it was shown");
    }
    assert_eq!(node.send("DELETE", "/api/v1/tokens/ci", &[], None).status, 204);
    client.get("/api/v1/status").is_problem(401, "unauthorized");
    node.send("DELETE", "/api/v1/tokens/ci", &[], None).is_problem(404, "not_found");
}

#[test]
fn a_token_expires_and_outlives_the_node() {
    let mut node = Node::start(&[]);
    let kept = add(&node, "kept", "operate");
    let short = node.post("/api/v1/tokens", r#"{"name":"short","scope":"read","expires_in":"700ms"}"#);
    let until = short.json["expires_at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let short = short.json["token"].as_str().unwrap().to_owned();
    let ends = loop {
        let answer = Client::bearer(&node, &short).get("/api/v1/me");
        if answer.status != 200 {
            break answer;
        }
        assert!(jiff::Timestamp::now() <= until + jiff::SignedDuration::from_secs(1), "{answer:?}");
    };
    ends.is_problem(401, "unauthorized");
    node.kill();
    node.start_again();
    assert_eq!(Client::bearer(&node, &kept).get("/api/v1/me").json["name"], "kept");
    Client::bearer(&node, &short).get("/api/v1/me").is_problem(401, "unauthorized");
}

#[test]
fn each_scope_may_what_it_says() {
    let node = Node::start(&[]);
    let [read, operate, admin] = ["read", "operate", "admin"].map(|scope| add(&node, scope, scope));
    let [read, operate, admin] = [&read, &operate, &admin].map(|token| Client::bearer(&node, token));
    let refused = |client: &Client<'_>, method: &str, path: &str, needed: &str| {
        let answer = client.send(method, path, (method == "POST").then_some(""));
        answer.is_problem(403, "forbidden");
        assert!(answer.text.contains(&format!("scope `{needed}`")), "{answer:?}");
    };
    for path in ["/api/v1/agents", "/api/v1/config", "/metrics", "/api/v1/logs"] {
        assert_eq!(read.get(path).status, 200, "{path}");
    }
    for path in [
        "/api/v1/agents/counter/a/messages/Get",
        "/api/v1/agents/counter/a/stop",
        "/api/v1/tasks",
        "/api/v1/tasks/batch",
        "/api/v1/tasks/retry",
        "/api/v1/tasks/x/cancel",
        "/api/v1/schedules",
        "/api/v1/kinds/counter/pause",
        "/api/v1/tools/probe.wait/call",
        "/api/v1/conversations",
    ] {
        refused(&read, "POST", path, "operate");
    }
    refused(&read, "PUT", "/api/v1/sessions/a", "operate");
    refused(&read, "DELETE", "/api/v1/sessions/a", "operate");
    // who knows a session's id may be taken for its owner
    refused(&read, "PUT", "/api/v1/sessions/of-somebody", "operate");
    refused(&read, "PUT", "/api/v1/%73essions/of-somebody", "operate");
    let log = node.log();
    assert!(log.contains("http.refused") && !log.contains("of-somebody"), "{log}");
    assert_eq!(operate.post("/api/v1/agents/counter/a/messages/Get").status, 200);
    assert_eq!(operate.post("/api/v1/agents/counter/a/restart").status, 202);
    for (method, path) in [
        ("GET", "/api/v1/tokens"),
        ("POST", "/api/v1/tokens"),
        ("DELETE", "/api/v1/tokens/read"),
        ("POST", "/api/v1/nodes/self/stop"),
    ] {
        refused(&operate, method, path, "admin");
        refused(&read, method, path, "admin");
    }
    assert_eq!(admin.get("/api/v1/tokens").json["items"].as_array().unwrap().len(), 3);
    assert_eq!(admin.send("DELETE", "/api/v1/tokens/read", None).status, 204);
}

#[test]
fn a_link_opens_a_session_once() {
    let node = Node::start(&[]);
    let token = add(&node, "anna", "operate");
    let link = Client::bearer(&node, &token).post("/api/v1/login-links");
    let path = path_of(&node, &link);
    assert_eq!(node.send_bare("HEAD", &path, &[], None).status, 405, "a preview does not use it up");
    let opened = node.send_bare("GET", &path, &[], None);
    assert_eq!((opened.status, opened.header("location")), (303, Some("/")), "{opened:?}");
    let set = opened.header("set-cookie").unwrap();
    for part in ["; HttpOnly", "; SameSite=Strict", "; Path=/", "; Max-Age=43200"] {
        assert!(set.starts_with("greenroom=gr_") && set.contains(part), "{part}: {set}");
    }
    assert!(!set.contains("Secure"), "{set}");
    let again = node.send_bare("GET", &path, &[], None);
    assert_eq!(again.status, 401, "{again:?}");
    assert!(again.header("set-cookie").is_none() && again.text.contains("greenroom login"), "{again:?}");

    let browser = Client::cookie(&node, &opened);
    let me = browser.get("/api/v1/me").json;
    assert_eq!((&me["name"], &me["scope"]), (&json!("anna"), &json!("operate")));
    let csrf = me["csrf"].as_str().unwrap();
    let act = "/api/v1/agents/counter/a/messages/Get";
    browser.post(act).is_problem(403, "forbidden");
    browser.with("X-CSRF-Token", "gr_other").post(act).is_problem(403, "forbidden");
    let page = browser.with("X-CSRF-Token", csrf);
    assert_eq!(page.post(act).status, 200);
    assert_eq!(page.with("Origin", &node.url).post(act).status, 200);
    page.with("Origin", "http://evil.example").post(act).is_problem(403, "forbidden");
    page.post("/api/v1/nodes/self/stop").is_problem(403, "forbidden");

    browser.post("/logout").is_problem(403, "forbidden");
    let out = page.post("/logout");
    assert_eq!(out.status, 204);
    assert!(out.header("set-cookie").is_some_and(|set| set.contains("Max-Age=0")), "{out:?}");
    browser.get("/api/v1/me").is_problem(401, "unauthorized");
}

#[test]
fn a_session_ends_with_its_token_and_with_the_node() {
    let mut node = Node::start(&[]);
    let token = add(&node, "anna", "read");
    let login = |node: &Node, token: &str| {
        node.send_bare("POST", "/login", &[], Some(&json!({"token": token}).to_string()))
    };
    let annas = login(&node, &token);
    assert_eq!((annas.status, annas.text.as_str()), (204, ""), "{annas:?}");
    let own = login(&node, &format!(" {}\n", node.token));
    assert_eq!(Client::cookie(&node, &own).get("/api/v1/me").json["scope"], "admin");
    let path = path_of(&node, &Client::bearer(&node, &token).post("/api/v1/login-links"));
    assert_eq!(Client::cookie(&node, &annas).get("/api/v1/me").json["name"], "anna");
    node.send("DELETE", "/api/v1/tokens/anna", &[], None);
    Client::cookie(&node, &annas).get("/api/v1/me").is_problem(401, "unauthorized");
    assert_eq!(node.send_bare("GET", &path, &[], None).status, 401, "nor does its link work");
    // another token of that name is another
    add(&node, "anna", "admin");
    Client::cookie(&node, &annas).get("/api/v1/me").is_problem(401, "unauthorized");

    login(&node, "gr_guess").is_problem(401, "unauthorized");
    login(&node, "").is_problem(401, "unauthorized");
    node.send_bare("POST", "/login", &[], Some("{}")).is_problem(422, "invalid");
    let own_cookie = cookie(&own).to_owned();
    node.kill();
    node.start_again();
    node.send_bare("GET", "/api/v1/me", &[("Cookie", &own_cookie)], None).is_problem(401, "unauthorized");
}

#[test]
fn pages_of_other_sites_are_refused_everywhere() {
    let node = Node::start(&[]);
    let foreign: [&[(&str, &str)]; 4] = [
        &[("Origin", "http://evil.example")],
        &[("Origin", "null")],
        &[("Sec-Fetch-Site", "cross-site")],
        &[("Sec-Fetch-Site", "same-site"), ("Sec-Fetch-Mode", "no-cors")],
    ];
    for headers in foreign {
        for (method, path) in [
            ("GET", "/api/v1/status"),
            ("GET", "/api/v1/events"),
            ("GET", "/api/v1/logs"),
            ("POST", "/api/v1/agents/counter/a/messages/Get"),
            ("OPTIONS", "/api/v1/status"),
            ("POST", "/login"),
            ("GET", "/metrics"),
            ("GET", "/"),
        ] {
            let body = (method == "POST").then_some("{}");
            node.send(method, path, headers, body).is_problem(403, "forbidden");
        }
    }
    let link =
        [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "document")];
    assert_eq!(node.send_bare("GET", "/", &link, None).status, 200);
    assert_eq!(node.send("GET", "/api/v1/status", &[("Origin", &node.url)], None).status, 200);
}

#[test]
fn every_answer_tells_the_browser_to_be_careful() {
    let node = Node::start(&[]);
    let answers = [
        node.send_bare("GET", "/", &[], None),
        node.send_bare("GET", "/nowhere", &[], None),
        node.send_bare("GET", "/api/v1/status", &[], None),
        node.send("GET", "/api/v1/status", &[("Origin", "http://evil.example")], None),
        node.send_bare("GET", "/login?code=x", &[], None),
        node.get("/api/v1/status"),
        node.get("/api/v1/tasks/never"),
        node.get("/metrics"),
    ];
    for answer in &answers {
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("x-frame-options", "DENY"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{answer:?}");
        }
        let policy = answer.header("content-security-policy").unwrap();
        assert!(
            policy.starts_with("default-src 'none';") && policy.contains("frame-ancestors 'none'"),
            "{policy}"
        );
        assert!(answer.header("access-control-allow-origin").is_none(), "{answer:?}");
    }
    let cached = |answer: &Answer| answer.header("cache-control").map(str::to_owned);
    assert!(answers[2..4].iter().all(|a| cached(a).as_deref() == Some("no-store")));
    assert!(answers[5..7].iter().all(|a| cached(a).as_deref() == Some("no-store")));
}

#[test]
fn the_nodes_own_token_is_in_no_list() {
    let node = Node::start(&[]);
    let me: Value = node.get("/api/v1/me").json;
    assert_eq!((&me["name"], &me["scope"]), (&json!("node"), &json!("admin")));
    assert_eq!(node.get("/api/v1/tokens").json["items"], json!([]));
    let short = &node.token[..node.token.len() - 1];
    for wrong in [short, &format!("{}0", node.token), ""] {
        Client::bearer(&node, wrong).get("/api/v1/me").is_problem(401, "unauthorized");
    }
}
