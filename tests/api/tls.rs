//! TLS by the node itself, and addresses that others can reach.

use std::{fs, process::Command, time::Instant};

use crate::support::{CA, Node, cli_alone, trusting};

/// A file of `tests/support/tls`.
fn at(name: &str) -> String {
    format!("{}/tests/support/tls/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn a_node_with_a_certificate_speaks_tls_alone() {
    let (cert, key) = (at("server.pem"), at("server.key"));
    let node = Node::start(&[
        "http.bind=0.0.0.0:0",
        &format!("http.tls.cert={cert}"),
        &format!("http.tls.key={key}"),
    ]);
    assert!(node.url.starts_with("https://127.0.0.1:"), "{}", node.url);
    assert_eq!(node.get("/api/v1/me").json["name"], "node");
    let untrusted = node.cli(&["status"]);
    assert!(untrusted.code == 6 && untrusted.err.contains("--cacert"), "{untrusted:?}");
    assert_eq!(node.cli(&["status", "--cacert", CA]).code, 0);
    let wrong = node.cli(&["status", "--cacert", &key]);
    assert!(wrong.code == 2 && wrong.err.contains("holds no certificate"), "{wrong:?}");

    let link = node.cli(&["login", "--cacert", CA]);
    let path = link.out.trim_end().strip_prefix(&node.url).unwrap();
    let opened = node.send_bare("GET", path, &[], None);
    assert_eq!(opened.status, 303, "{opened:?}");
    assert!(opened.header("set-cookie").is_some_and(|set| set.ends_with("; Secure")), "{opened:?}");

    let plain = ureq::get(node.url.replace("https", "http")).call();
    assert!(plain.is_err(), "{plain:?}");
}

#[test]
fn a_certificate_is_renewed_while_the_node_runs() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    fs::copy(at("server.pem"), &cert).unwrap();
    fs::copy(at("server.key"), &key).unwrap();
    let sets = [format!("http.tls.cert={}", cert.display()), format!("http.tls.key={}", key.display())];
    let mut node = Node::start(&[&sets[0], &sets[1], "log.format=json"]);
    let told = |node: &Node, times: usize| {
        assert!(Command::new("kill").args(["-HUP", &node.pid().to_string()]).status().unwrap().success());
        let began = Instant::now();
        loop {
            let told = node.told(&["tls.reloaded"]);
            if told.len() == times {
                return told[times - 1].clone();
            }
            assert!(began.elapsed().as_secs() < 20, "{}", node.log());
        }
    };
    fs::write(&key, "none").unwrap();
    assert!(told(&node, 1)["error"].as_str().unwrap().contains("http.tls.key"));
    assert_eq!(node.get("/api/v1/me").status, 200, "what was read before is still shown");
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    fs::write(&cert, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    assert!(told(&node, 2)["error"].is_null());
    node.trust = trusting(&cert);
    assert_eq!(node.get("/api/v1/me").status, 200);
}

#[test]
fn what_is_not_safe_does_not_start() {
    let bare = cli_alone(&["run", "--set", "http.bind=0.0.0.0:0"]);
    assert!(bare.code == 9 && bare.err.contains("http.tls.cert"), "{bare:?}");
    let (cert, key) = (at("server.pem"), at("server.key"));
    for (cert, key, said) in [
        ("/nowhere.pem", key.as_str(), "http.tls.cert /nowhere.pem"),
        (&key, &key, "it holds no certificate"),
        (&cert, CA, "http.tls.key"),
        (&cert, "", "http.tls.cert is set without its key"),
    ] {
        let (cert, key) = (format!("http.tls.cert={cert}"), format!("http.tls.key={key}"));
        let refused = cli_alone(&["run", "--set", &cert, "--set", &key]);
        assert!(refused.code == 9 && refused.err.contains(said), "{refused:?}");
    }
}
