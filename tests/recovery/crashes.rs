//! A handler that panics all day long.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Instant,
};

use crate::{clients::sized, support::Node};

fn rss(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1_024
}

/// So many crashes, among as many messages that are none.
fn storm(node: &Arc<Node>, crashes: usize, base: usize) {
    let next = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..16)
        .map(|_| {
            let (node, next) = (node.clone(), next.clone());
            std::thread::spawn(move || {
                loop {
                    let n = next.fetch_add(1, SeqCst);
                    if n >= crashes * 2 {
                        break;
                    }
                    let key = format!("k{}", n / 2 % 10);
                    if n % 2 == 0 {
                        node.ask(&key, "Crash", "{}").is_problem(500, "handler_crashed");
                    } else {
                        let body = format!(r#"{{"id":"{}"}}"#, base + n);
                        let answer = node.ask(&key, "Append", &body);
                        assert_eq!(answer.status, 200, "{answer:?}");
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn thousands_of_crashes_lose_no_other_message_and_fill_neither_log_nor_memory() {
    let node = Arc::new(Node::start(&[
        "supervision.max_restarts=1000000",
        "supervision.backoff_min=1ms",
        "supervision.backoff_max=1ms",
    ]));
    let (crashes, began) = (sized(1_200, 10_000), Instant::now());
    storm(&node, crashes, 0);
    let before = rss(node.pid());
    storm(&node, crashes, 1_000_000);
    let grown = rss(node.pid()).saturating_sub(before);
    assert!(grown < 24 << 20, "{grown} bytes more");
    let mut ids = 0;
    for n in 0..10 {
        let list = node.ask(&format!("k{n}"), "List", "{}");
        let mut list: Vec<_> = list.json["ids"].as_array().unwrap().iter().map(|i| i.to_string()).collect();
        list.sort();
        list.dedup();
        ids += list.len();
    }
    assert_eq!(ids, crashes * 2);
    // In ten seconds: five crashes of four lines, as many failed requests, and what was left out of either.
    let most = 60 + 27 * (usize::try_from(began.elapsed().as_secs()).unwrap() / 10 + 1);
    let lines = node.log().lines().count();
    assert!(lines < most, "{lines} lines of log for {} crashes, and {most} are the most", crashes * 2);
}
