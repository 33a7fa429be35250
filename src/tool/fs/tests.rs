//! What the file tools promise, over real directories.

use std::{collections::BTreeSet, fs, os::unix::fs::symlink, path::Path};

use proptest::prelude::*;
use tempfile::{TempDir, tempdir};

use super::{
    Listing, Refusal, Roots,
    list::{List, list},
    read::read,
    roots::Failure,
};

fn tree(files: &[(&str, &str)]) -> TempDir {
    let dir = tempdir().unwrap();
    for (path, text) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

fn ask(path: &str, cursor: Option<String>, limit: u32) -> List {
    List { path: path.to_owned(), cursor, limit: Some(limit) }
}

fn all(roots: &Roots, path: &str) -> Listing {
    list(roots, &ask(path, None, 500)).unwrap()
}

fn paths(listing: &Listing) -> Vec<&str> {
    listing.files.iter().map(|f| &*f.path).collect()
}

fn refusal<T: std::fmt::Debug>(result: Result<T, Failure>) -> Refusal {
    match result {
        Err(Failure::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn without_roots_everything_is_refused_with_the_remedy() {
    let roots = Roots::new(Vec::<String>::new());
    let refused = refusal(read(&roots, "a".into()));
    assert_eq!(refused, Refusal::NoRoots);
    assert!(refused.to_string().contains("tools.fs.roots"));
    assert_eq!(refusal(list(&roots, &ask("", None, 1))), Refusal::NoRoots);
}

#[test]
fn no_path_leads_out_of_the_root() {
    let outside = tree(&[("secret", "s")]);
    let dir = tree(&[("in/a.txt", "a")]);
    let secret = outside.path().join("secret");
    symlink(&secret, dir.path().join("link")).unwrap();
    symlink(outside.path(), dir.path().join("away")).unwrap();
    symlink("../in/a.txt", dir.path().join("in/same")).unwrap();
    let roots = Roots::new([dir.path()]);
    for path in ["../secret", "in/../../x", "in/../in/a.txt", secret.to_str().unwrap(), "/etc/passwd"] {
        assert!(matches!(refusal(read(&roots, path.into())), Refusal::Outside { .. }), "{path}");
    }
    for path in ["link", "away/secret"] {
        assert!(matches!(refusal(read(&roots, path.into())), Refusal::Denied { .. }), "{path}");
    }
    assert!(matches!(refusal(list(&roots, &ask("away", None, 9))), Refusal::Denied { .. }));
    assert_eq!(read(&roots, "in/same".into()).unwrap().text, "a");
    assert_eq!(paths(&all(&roots, "")), ["in/a.txt"]);
}

#[test]
fn absolute_paths_within_a_root_are_taken_and_given_back() {
    let (one, two) = (tree(&[("a", "1")]), tree(&[("d/b", "2")]));
    let roots = Roots::new([one.path(), two.path()]);
    let listing = all(&roots, two.path().to_str().unwrap());
    let path = two.path().join("d/b").to_str().unwrap().to_owned();
    assert_eq!(paths(&listing), [path.as_str()]);
    assert_eq!(read(&roots, path).unwrap().text, "2");
    assert_eq!(read(&roots, "./a".into()).unwrap().text, "1");
}

#[test]
fn links_pipes_large_files_and_built_things_are_passed_over() {
    let dir = tree(&[
        ("a.txt", "a"),
        ("big", "0123456789"),
        (".git/config", "x"),
        (".hidden/x", "x"),
        (".dotfile", "d"),
        ("target/x", "x"),
        ("node_modules/x", "x"),
        ("sub/target", "a file of that name"),
    ]);
    symlink(".", dir.path().join("loop")).unwrap();
    symlink("self", dir.path().join("self")).unwrap();
    let fifo = dir.path().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let roots = Roots::new([dir.path()]).max_file_bytes(9);
    let listing = all(&roots, "");
    assert_eq!(paths(&listing), [".dotfile", "a.txt"]);
    assert_eq!(listing.skipped, 5, "big, fifo, loop, self, sub/target");
    assert!(matches!(refusal(read(&roots, "big".into())), Refusal::TooLarge { max_bytes: 9, .. }));
    assert!(matches!(refusal(read(&roots, "fifo".into())), Refusal::NotRegular { .. }));
    assert!(matches!(refusal(read(&roots, "self".into())), Refusal::Missing { .. }));
    assert!(matches!(refusal(read(&roots, "".into())), Refusal::NotRegular { .. }));
    assert!(matches!(refusal(read(&roots, "nul\0".into())), Refusal::Missing { .. }));
}

#[test]
fn only_text_is_read() {
    let dir = tree(&[("text", "käse"), ("nul", "a\0b"), ("empty", "")]);
    fs::write(dir.path().join("latin"), b"k\xe4se").unwrap();
    let roots = Roots::new([dir.path()]);
    assert_eq!(read(&roots, "text".into()).unwrap().bytes, 5);
    assert_eq!(read(&roots, "empty".into()).unwrap().text, "");
    for path in ["nul", "latin"] {
        assert!(matches!(refusal(read(&roots, path.into())), Refusal::NotText { .. }), "{path}");
    }
    assert!(matches!(refusal(read(&roots, "gone".into())), Refusal::Missing { .. }));
    assert!(matches!(refusal(read(&roots, "text/x".into())), Refusal::Missing { .. }));
}

#[test]
fn an_unreadable_directory_is_counted_and_costs_only_itself() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tree(&[("a", "a"), ("shut/x", "x"), ("z", "z")]);
    let shut = dir.path().join("shut");
    fs::set_permissions(&shut, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read_dir(&shut).is_err() {
        let listing = all(&Roots::new([dir.path()]), "");
        assert_eq!((paths(&listing), listing.skipped), (vec!["a", "z"], 1));
    }
    fs::set_permissions(&shut, fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn a_single_file_is_its_own_listing() {
    let dir = tree(&[("d/a", "abc")]);
    let roots = Roots::new([dir.path()]);
    assert_eq!(paths(&all(&roots, "d/a")), ["d/a"]);
    assert_eq!(paths(&all(&roots, "d")), ["d/a"]);
    assert!(matches!(refusal(list(&roots, &ask("nowhere", None, 1))), Refusal::Missing { .. }));
}

#[test]
fn a_name_that_is_not_utf8_is_left_out() {
    use std::os::unix::ffi::OsStrExt as _;
    let dir = tree(&[("a", "a")]);
    let odd = std::ffi::OsStr::from_bytes(b"odd\xff");
    if fs::write(dir.path().join(odd), "x").is_ok() {
        assert_eq!(paths(&all(&Roots::new([dir.path()]), "")), ["a"]);
    }
}

fn by_hand(dir: &Path, prefix: &Path, found: &mut BTreeSet<Vec<String>>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = prefix.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            by_hand(&entry.path(), &path, found);
        } else {
            found.insert(path.iter().map(|n| n.to_str().unwrap().to_owned()).collect());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn pages_are_the_whole_in_order(
        files in prop::collection::btree_set("[ab.-]?[abA!]{1,2}(/[ab!.]{1,2}x){0,3}", 0..24),
        limit in 1u32..6,
    ) {
        let dir = tempdir().unwrap();
        for file in &files {
            let path = dir.path().join(file);
            let visible = !file.rsplit_once('/').is_some_and(|(d, _)| d.split('/').any(|n| n.starts_with('.')));
            if visible && fs::create_dir_all(path.parent().unwrap()).is_ok() && !path.is_dir() {
                fs::write(path, file).unwrap();
            }
        }
        let mut expected = BTreeSet::new();
        by_hand(dir.path(), Path::new(""), &mut expected);
        let expected: Vec<String> = expected.into_iter().map(|names| names.join("/")).collect();

        let roots = Roots::new([dir.path()]).max_file_bytes(8);
        let whole = all(&roots, "");
        let (mut paged, mut cursor) = (Listing::default(), None);
        loop {
            let page = list(&roots, &ask("", cursor, limit)).unwrap();
            prop_assert!(page.files.len() <= limit as usize);
            paged.files.extend(page.files);
            paged.skipped += page.skipped;
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        prop_assert_eq!(&paged, &whole);
        let offered: Vec<_> = expected.iter().filter(|p| p.len() <= 8).cloned().collect();
        prop_assert_eq!(paths(&whole), offered.iter().map(String::as_str).collect::<Vec<_>>());
        prop_assert_eq!(whole.skipped as usize, expected.len() - offered.len());
    }
}

/// A node that was started with its own folder as a root gave its token to whoever could call a tool.
#[test]
fn what_is_closed_is_reached_in_no_way() {
    let dir = tree(&[("open", "a"), ("data/token", "a"), ("data/deep/x", "a"), ("key.pem", "a")]);
    symlink("data", dir.path().join("way")).unwrap();
    let closed = ["data", "key.pem", "not there"].map(|name| dir.path().join(name));
    let roots = Roots::new([dir.path()]).closed(closed);
    assert_eq!(paths(&all(&roots, "")), ["open"]);
    for path in
        ["data/token", "./data/token", "way/token", "way", "data", "data/deep", "data/deep/x", "key.pem"]
    {
        let absolute = dir.path().join(path).to_string_lossy().into_owned();
        for path in [path, &absolute] {
            assert!(matches!(refusal(read(&roots, path.to_owned())), Refusal::Outside { .. }), "{path}");
            assert!(matches!(refusal(list(&roots, &ask(path, None, 9))), Refusal::Outside { .. }), "{path}");
        }
    }
    assert!(read(&roots, "open".to_owned()).is_ok());
}
