//! Backtraces of panics, one for each site.
//!
//! Walking the stack costs as much as unwinding it, and finding names for its addresses a thousand times
//! more. So the hook walks it for the first panic of a site alone, and names are looked for later, where
//! nobody waits. Neither is done while the other is: they share a lock, and an arbiter must not wait for
//! names.

use std::{
    backtrace::Backtrace,
    collections::{HashMap, HashSet},
    sync::atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;

/// How many sites are told apart; those that come later have no backtrace.
const SITES: usize = 1_024;
/// How many calls are kept …
const MAX_CALLS: usize = 64;
/// … and how much text.
const MAX_BYTES: usize = 16 << 10;
/// The call below which there is nothing of the user's.
const BELOW: &str = "greenroom::runtime::crashes::guard::";
/// Calls above which there is nothing of the user's.
const ABOVE: [&str; 5] = [
    "core::panicking::",
    "std::panicking::",
    "__rustc::rust_begin_unwind",
    "rust_begin_unwind",
    "core::option::",
];

#[derive(Default)]
struct Sites {
    seen: HashSet<String>,
    /// Walked, and not yet asked for.
    fresh: HashMap<String, Backtrace>,
}

static SITES_SEEN: Mutex<Option<Sites>> = Mutex::new(None);
static NAMING: AtomicBool = AtomicBool::new(false);

/// For the hook: walks the stack of a panic if it is the first one of its site.
pub(super) fn note(site: &str) {
    if NAMING.load(Ordering::Acquire) {
        return;
    }
    {
        let mut sites = SITES_SEEN.lock();
        let sites = sites.get_or_insert_default();
        if sites.seen.contains(site) || sites.seen.len() >= SITES {
            return;
        }
        sites.seen.insert(site.to_owned());
    }
    let trace = Backtrace::force_capture();
    SITES_SEEN.lock().get_or_insert_default().fresh.insert(site.to_owned(), trace);
}

/// The backtrace of a site, for the first who asks.
pub(super) fn take(site: &str) -> Option<Backtrace> {
    SITES_SEEN.lock().as_mut()?.fresh.remove(site)
}

/// Has the next panic of this site walked again.
pub(super) fn again(site: &str) {
    if let Some(sites) = SITES_SEEN.lock().as_mut() {
        sites.seen.remove(site);
    }
}

/// A backtrace with names, of the user's calls alone. Blocks, the first time for long.
pub(super) fn name(trace: &Backtrace) -> String {
    NAMING.store(true, Ordering::Release);
    let text = trace.to_string();
    NAMING.store(false, Ordering::Release);
    users(&text)
}

/// The calls between the panic's own and the runtime's.
fn users(text: &str) -> String {
    let mut calls: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in text.lines() {
        let line = line.trim();
        match (line.split_once(": "), calls.last_mut()) {
            (Some((number, name)), _) if number.bytes().all(|b| b.is_ascii_digit()) => {
                calls.push((name, Vec::new()));
            }
            (_, Some((_, places))) => places.push(line),
            _ => {}
        }
    }
    let end =
        calls.iter().position(|(name, _)| name.starts_with(BELOW) || name.contains(&format!("<{BELOW}")));
    let calls = calls.get(..end.unwrap_or(calls.len())).unwrap_or_default();
    let is_panic = |name: &str| ABOVE.iter().any(|above| name.starts_with(above));
    let start = calls.iter().rposition(|(name, _)| is_panic(name)).map_or(0, |last| last + 1);
    let mut told = String::new();
    for (name, places) in calls.get(start..).unwrap_or_default().iter().take(MAX_CALLS) {
        let places: String = places.iter().map(|place| format!("\n    {place}")).collect();
        if told.len() + name.len() + places.len() > MAX_BYTES {
            break;
        }
        if !told.is_empty() {
            told.push('\n');
        }
        told.push_str(name);
        told.push_str(&places);
    }
    told
}

#[cfg(test)]
mod tests {
    use super::super::guard::{guard, install_hook};
    use super::*;

    #[inline(never)]
    fn deeper(n: u8) -> u8 {
        if n == 0 { panic!("at the bottom") } else { deeper(n - 1) + 1 }
    }

    fn site() -> String {
        guard(|| deeper(3)).unwrap_err().1.unwrap()
    }

    #[test]
    fn the_first_panic_of_a_site_is_walked_and_told_without_the_runtimes_calls() {
        install_hook();
        let site = site();
        let trace = take(&site).expect("it was the first");
        let told = name(&trace);
        let calls: Vec<&str> = told.lines().filter(|line| !line.starts_with(' ')).collect();
        assert!(calls.iter().filter(|call| call.ends_with("deeper")).count() >= 1, "{told}");
        assert!(calls[0].ends_with("deeper") && told.contains("trace.rs:"), "{told}");
        assert!(calls.len() < 12 && !told.contains("crashes::guard"), "{told}");
        // no other, until it is asked for
        assert_eq!(self::site(), site);
        assert!(take(&site).is_none());
        again(&site);
        assert_eq!(self::site(), site);
        assert!(take(&site).is_some());
    }

    #[test]
    fn what_cannot_be_cut_is_bounded() {
        let text: String =
            (0..500).map(|n| format!("  {n}: call_{n}\n   at {}\n", "x".repeat(1_000))).collect();
        let told = users(&text);
        assert!(told.starts_with("call_0\n    at x") && told.len() <= MAX_BYTES, "{}", told.len());
        assert_eq!(users(""), "");
    }
}
