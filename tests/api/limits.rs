//! What one client may cost: slow ones, large ones, and what they are told.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::support::Node;

fn connect(node: &Node) -> TcpStream {
    let stream = TcpStream::connect(node.url.trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// Reads until the other side has closed.
fn to_the_end(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    // one that is reset has been closed as well
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("it is still open"),
        _ => String::from_utf8_lossy(&bytes).into_owned(),
    }
}

fn head(node: &Node, method: &str, path: &str, more: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n{more}\r\n",
        node.token
    )
}

#[test]
fn a_slow_client_is_not_waited_for() {
    let node = Node::start(&["http.timeout=500ms"]);
    let (nothing, mut slow_head, mut second, mut slow_body) =
        (connect(&node), connect(&node), connect(&node), connect(&node));
    let began = Instant::now();
    slow_head.write_all(b"GET /health/live HTTP/1.1\r\nHost: lo").unwrap();
    // whoever has not said who it is gets one answer a connection, and so no second head to be slow with
    second.write_all(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\nGET /hea").unwrap();
    let ask = "/api/v1/agents/counter/a/messages/Add";
    slow_body.write_all(head(&node, "POST", ask, "Content-Length: 100\r\n").as_bytes()).unwrap();
    slow_body.write_all(b"{\"n\":").unwrap();
    assert!(to_the_end(second).starts_with("HTTP/1.1 200"));
    assert!(to_the_end(nothing).starts_with("HTTP/1.1 408"));
    assert!(to_the_end(slow_head).starts_with("HTTP/1.1 408"));
    let answer = to_the_end(slow_body);
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("did not arrive in time: 5"), "{answer}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn slow_clients_leave_room_for_others() {
    let node = Node::start(&["http.timeout=30s"]);
    let slow: Vec<TcpStream> = (0..400)
        .map(|n| {
            let mut stream = connect(&node);
            let part =
                if n % 2 == 0 { "GET / HT" } else { "POST /login HTTP/1.1\r\nContent-Length: 9\r\n\r\n{" };
            stream.write_all(part.as_bytes()).unwrap();
            stream
        })
        .collect();
    let began = Instant::now();
    for _ in 0..50 {
        assert_eq!(node.get("/api/v1/me").status, 200);
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    drop(slow);
}

#[test]
#[cfg(target_os = "linux")]
fn who_takes_no_answer_is_let_go() {
    let node = Node::start(&["http.timeout=500ms"]);
    let reason = "x".repeat(9 << 20);
    let body = json!({ "reason": reason }).to_string();
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let address: std::net::SocketAddr = node.url.trim_start_matches("http://").parse().unwrap();
    socket.connect(&address.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    let length = format!("Content-Length: {}\r\n", body.len());
    let ask = "/api/v1/agents/counter/a/messages/Refuse";
    stream.write_all(head(&node, "POST", ask, &length).as_bytes()).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
    // it goes although nobody reads: seen by the table of connections, since looking is reading
    let local = stream.local_addr().unwrap().port();
    let began = Instant::now();
    while is_served(address.port(), local) {
        assert!(began.elapsed() < Duration::from_secs(20), "it is still held");
        std::thread::yield_now();
    }
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert!(to_the_end(stream).len() < reason.len(), "it was not all there");
}

/// Whether the server's end of a connection on this machine is there.
#[cfg(target_os = "linux")]
fn is_served(server: u16, client: u16) -> bool {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let ends = [format!(":{server:04X}"), format!(":{client:04X}")];
    table.lines().any(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (local, remote) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        local.ends_with(&ends[0]) && remote.ends_with(&ends[1])
    })
}

#[test]
fn heads_have_a_bound() {
    let node = Node::start(&[]);
    let many = (0..200).map(|n| format!("X-{n}: 1\r\n")).collect::<String>();
    let long = format!("X-Long: {}\r\n", "x".repeat(200_000));
    for more in [many, long] {
        let mut stream = connect(&node);
        // it may be refused before it is all written
        let _ = stream.write_all(head(&node, "GET", "/api/v1/me", &more).as_bytes());
        let answer = to_the_end(stream);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    assert_eq!(node.get("/api/v1/me").status, 200);
}

#[test]
fn a_request_has_an_id_by_which_it_is_found_in_the_log() {
    let mut node = Node::start(&["log.format=json"]);
    let given = [("X-Request-Id", "trace-7")];
    assert_eq!(node.send("GET", "/api/v1/me", &given, None).header("x-request-id"), Some("trace-7"));
    let path = "/api/v1/agents/counter/a/messages/Fail";
    let failed = node.send("POST", path, &given, Some(r#"{"message":"no"}"#));
    failed.is_problem(500, "handler_failed");
    let odd = node.send("GET", "/nowhere", &[("X-Request-Id", "a b")], None);
    let made = odd.header("x-request-id").unwrap();
    assert!(made != "a b" && made.len() == 36, "{made}");
    assert!(node.terminate().success());
    let told = node.told(&["http.failed"]);
    assert_eq!(told.len(), 1, "{}", node.log());
    for (field, value) in [
        ("request", json!("trace-7")),
        ("path", json!(path)),
        ("who", json!("node")),
        ("by", json!("127.0.0.1")),
        ("status", json!(500)),
        ("code", json!("handler_failed")),
        ("error", json!("no")),
    ] {
        assert_eq!(told[0][field], value, "{:?}", told[0]);
    }
}

#[test]
fn large_answers_are_compressed_for_those_who_understand() {
    let node = Node::start(&[]);
    let reason = "x".repeat(100_000);
    let body = json!({ "reason": reason }).to_string();
    let length =
        format!("Content-Length: {}\r\nConnection: close\r\nAccept-Encoding: br, gzip\r\n", body.len());
    let ask = "/api/v1/agents/counter/a/messages/Refuse";
    let mut stream = connect(&node);
    stream.write_all(head(&node, "POST", ask, &length).as_bytes()).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    let headers = text.split("\r\n\r\n").next().unwrap().to_lowercase();
    assert!(
        headers.contains("content-encoding: gzip") && headers.contains("vary: accept-encoding"),
        "{headers}"
    );
    assert!(bytes.len() < 10_000, "{}", bytes.len());
    let at = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
    let mut unpacked = String::new();
    flate2::read::GzDecoder::new(&bytes[at..]).read_to_string(&mut unpacked).unwrap();
    assert!(unpacked.contains(&reason));
    let plain = node.post(ask, &body);
    assert!(plain.header("content-encoding").is_none() && plain.text.contains(&reason));
    let small = node.send("GET", "/api/v1/me", &[("Accept-Encoding", "gzip")], None);
    assert!(small.header("content-encoding").is_none(), "{small:?}");
}
