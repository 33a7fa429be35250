//! Clients that send ahead of their answers: served in order, and never held in memory.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    thread,
    time::Duration,
};

use crate::support::Node;

fn connect(node: &Node) -> TcpStream {
    let stream = TcpStream::connect(node.url.trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

fn head(node: &Node, line: &str, more: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n{more}\r\n", node.token)
}

/// Reads one answer: its status and body.
fn answer(reader: &mut BufReader<TcpStream>) -> (String, String) {
    let (mut status, mut length) = (String::new(), 0);
    reader.read_line(&mut status).unwrap();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        match line.trim_end().to_ascii_lowercase().split_once(": ") {
            Some(("content-length", bytes)) => length = bytes.parse().unwrap(),
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    (status.trim_end().to_owned(), String::from_utf8(body).unwrap())
}

#[test]
fn requests_sent_ahead_are_answered_in_their_order() {
    let node = Node::start(&[]);
    let mut stream = connect(&node);
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let all: String =
        (0..600).map(|n| head(&node, &format!("GET /api/v1/agents/counter/none-{n}/state"), "")).collect();
    let writer = thread::spawn(move || stream.write_all(all.as_bytes()).unwrap());
    for n in 0..600 {
        let (status, body) = answer(&mut reader);
        assert!(
            status.contains("404") && body.contains(&format!("counter/none-{n}")),
            "{n}: {status} {body}"
        );
    }
    writer.join().unwrap();
}

#[test]
fn bodies_of_all_sizes_come_on_one_connection() {
    let node = Node::start(&[]);
    let mut stream = connect(&node);
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let body = r#"{"n":1}"#;
    let line = "POST /api/v1/agents/counter/a/messages/Add";
    let mut total = 0;
    // around what is handed on at once, with the head and without, and far beyond
    for padding in (0..600).step_by(7).chain((3_400..4_200).step_by(3)).chain([50_000, 1_000_000]) {
        let body = " ".repeat(padding) + body;
        let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        let sized = head(&node, line, &format!("Content-Length: {}\r\n", body.len())) + &body;
        for request in [sized, head(&node, line, "Transfer-Encoding: chunked\r\n") + &chunked] {
            stream.write_all(request.as_bytes()).unwrap();
            total += 1;
            let expected = ("HTTP/1.1 200 OK".to_owned(), format!("{{\"total\":{total}}}"));
            assert_eq!(answer(&mut reader), expected, "with {padding} spaces");
        }
    }
}

#[test]
fn requests_sent_ahead_take_no_memory() {
    let node = Node::start(&[]);
    let used = || {
        let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    let sleep = r#"{"ms":60000}"#;
    let before = used();
    let clients: Vec<TcpStream> = (0..20)
        .map(|n| {
            let mut stream = connect(&node);
            let line = format!("POST /api/v1/agents/counter/s{n}/messages/Sleep?timeout=60s");
            let first = head(&node, &line, &format!("Content-Length: {}\r\n", sleep.len())) + sleep;
            stream.write_all(first.as_bytes()).unwrap();
            stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
            // until it takes no more
            let many = "GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n".repeat(1_000);
            while stream.write_all(many.as_bytes()).is_ok() {}
            stream
        })
        .collect();
    let each = used().saturating_sub(before) / clients.len() as u64;
    assert!(each < 1_536, "{each} KiB a connection");
}
