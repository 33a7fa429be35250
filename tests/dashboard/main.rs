//! The dashboard, in a real browser, against a real node.
//!
//! `GREENROOM_SHOTS=FOLDER` has pictures of every page put there: light, dark, and as wide as a phone.

#![allow(
    clippy::duplicate_mod,
    reason = "Postgres and Chromium are each found by their own copy of the same search"
)]

mod actions;
#[path = "../support/browser.rs"]
mod browser;
mod connection;
mod controls;
mod pages;
#[path = "../support/postgres.rs"]
mod postgres;
mod seed;
#[path = "../support/mod.rs"]
mod support;
mod troubles;

use browser::Browser;
use postgres::port;
use support::Node;

/// A browser in which somebody has signed in.
fn signed_in(node: &Node) -> Browser {
    let link = node.post("/api/v1/login-links", "");
    let mut page = Browser::open(link.json["url"].as_str().unwrap());
    page.until("document.querySelector('.side') && document.querySelector('main .page')");
    page
}

/// Nothing was logged as an error or thrown, and nothing was asked of anybody but the node.
#[track_caller]
fn is_clean(page: &Browser, node: &Node) {
    assert_eq!(page.complaints, [""; 0]);
    let own = |url: &&String| url.starts_with(&node.url) || url.starts_with("data:") || *url == "about:blank";
    let foreign: Vec<&String> = page.requests.iter().filter(|url| !own(url)).collect();
    assert!(!page.requests.is_empty() && foreign.is_empty(), "{foreign:?}");
}
