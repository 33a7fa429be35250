//! Calls that are not made, and files that stay small and say what they are.

use crate::source;

/// What ends a process or drops a message without a word, and where it stands for a reason.
/// Whoever adds a line here says why the call cannot hurt there.
const BANNED: &[&str] = &[
    ".unwrap()",
    ".expect(",
    ".unwrap_err()",
    "panic!(",
    "todo!(",
    "unimplemented!(",
    "unreachable!(",
    "dbg!(",
    "do_send(",
    "process::exit(",
    "process::abort(",
];

const ALLOWED: &[(&str, &str, &str)] = &[
    ("src/agent/counter.rs", "panic!(", "the probe's `Crash`: panicking is what it is for"),
    ("src/tool/probe.rs", "panic!(", "`probe.crash`: panicking is what it is for"),
    ("src/agent/counter.rs", "process::abort(", "the probe's `Abort`: it is what it is for"),
    ("src/agent/turn/mod.rs", "panic!(", "`Turn::resource` says so in its contract: the turn crashes"),
    ("src/agent/answer.rs", "panic!(", "a const function: it can fail at compile time alone"),
    ("src/app/mod.rs", "unreachable!(", "only `shutdown` takes the node, and that takes the runtime too"),
    (
        "src/runtime/dispatcher/ended.rs",
        "do_send(",
        "the end of a task must not be lost to a full mailbox; slots bound how many there are",
    ),
    ("src/runtime/dispatcher/newborns.rs", "do_send(", "nor the beginning of one: slots bound them too"),
    ("src/runtime/tool_cell.rs", "do_send(", "nor the end of a call: what runs at once bounds them"),
];

/// The longest file, without its tests.
const MAX_LINES: usize = 500;

#[test]
fn nothing_ends_the_process_or_drops_a_message_silently() {
    let (mut wrong, mut used) = (Vec::new(), vec![false; ALLOWED.len()]);
    for source in source::below("src").iter().filter(|s| !s.is_test()) {
        for (n, line) in source.code().lines().enumerate() {
            for call in BANNED.iter().filter(|call| line.contains(**call)) {
                match ALLOWED.iter().position(|(path, allowed, _)| *path == source.path && allowed == call) {
                    Some(at) => used[at] = true,
                    None => wrong.push(format!("{}:{}: {call}", source.path, n + 1)),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "calls that are not made here:\n{}", wrong.join("\n"));
    let idle: Vec<_> = ALLOWED.iter().zip(&used).filter(|(_, used)| !**used).map(|(a, _)| a.0).collect();
    assert!(idle.is_empty(), "allowed, but not there any more: {}", idle.join(", "));
}

#[test]
fn every_file_says_what_it_is() {
    let folders = ["src", "tests", "examples", "benches"];
    let present = folders.iter().filter(|f| source::root().join(f).is_dir());
    let silent: Vec<_> = present
        .flat_map(|folder| source::below(folder))
        .filter(|source| !source.text.starts_with("//! "))
        .map(|source| source.path)
        .collect();
    assert!(silent.is_empty(), "begin with a `//!` line: {}", silent.join(", "));
}

#[test]
fn files_stay_small() {
    let long: Vec<_> = source::below("src")
        .iter()
        .filter(|source| !source.is_test())
        .map(|source| (source.product().lines().count(), &source.path))
        .filter(|(lines, _)| *lines > MAX_LINES)
        .map(|(lines, path)| format!("{path}: {lines} lines"))
        .collect();
    assert!(long.is_empty(), "over {MAX_LINES} lines, split by noun: {}", long.join(", "));
}
