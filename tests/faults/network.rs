//! The way between a node and its Postgres misbehaves.

use std::time::Duration;

use crate::{
    clients::{sized, survives},
    postgres::Database,
    support::Node,
    weather::{Proxy, Weather},
};

/// The reply to a commit is lost: the same units are sent again, and are recognised.
#[test]
fn a_lost_reply_loses_and_doubles_nothing() {
    let database = Database::new();
    let (proxy, url) = Proxy::before(&database.url());
    let mut node = Node::start(&[&format!("store.url={url}")]);
    let rounds = sized(3, 20);
    survives(&mut node, rounds, |_, round| {
        proxy.set(if round < rounds { Weather::Swallow(20 + round as u64) } else { Weather::Fair });
    });
    assert!(proxy.swallowed() > 10, "only {} replies were lost", proxy.swallowed());
}

#[test]
fn a_slow_and_a_cut_line_lose_nothing() {
    let database = Database::new();
    let (proxy, url) = Proxy::before(&database.url());
    let mut node = Node::start(&[&format!("store.url={url}")]);
    let rounds = sized(6, 20);
    survives(&mut node, rounds, |_, round| match round % 3 {
        _ if round == rounds => proxy.set(Weather::Fair),
        0 => proxy.set(Weather::Slow(Duration::from_millis(20))),
        1 => {
            proxy.set(Weather::Down);
            proxy.set(Weather::Fair);
        }
        _ => {
            proxy.set(Weather::Dark);
            // long enough for whoever waits to notice
            std::thread::sleep(Duration::from_millis(1_500));
            proxy.set(Weather::Down);
            proxy.set(Weather::Fair);
        }
    });
}
