//! The sources, read once: files, their code without comments, texts and tests.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// One Rust file.
pub struct Source {
    /// Below the root, with `/`.
    pub path: String,
    pub text: String,
}

impl Source {
    /// The room it belongs to: the first folder or file below `src`.
    pub fn room(&self) -> &str {
        let below = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let first = below.split('/').next().unwrap_or(below);
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// Whether all of it is test code.
    pub fn is_test(&self) -> bool {
        self.path.starts_with("tests/") || self.path.ends_with("/tests.rs")
    }

    /// Its lines up to the test module, which stands last.
    pub fn product(&self) -> &str {
        let mut tests = self.text.match_indices("\n#[cfg(test)]\n");
        let opens =
            |at: usize| self.text[at + 14..].lines().next().is_some_and(|l| l.ends_with("mod tests {"));
        let end = tests.find(|(at, _)| opens(*at)).map_or(self.text.len(), |(at, _)| at);
        &self.text[..end]
    }

    /// [`Source::product`] with comments, texts and characters blanked; lines stay where they were.
    pub fn code(&self) -> String {
        blank(self.product())
    }
}

/// Every Rust file below `folder`, in order.
pub fn below(folder: &str) -> Vec<Source> {
    let mut found = Vec::new();
    walk(&root().join(folder), &mut |path| {
        if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(path).expect("a source is UTF-8");
            found.push(Source { path: name(path), text });
        }
    });
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!found.is_empty(), "no sources below {folder}");
    found
}

/// A path below the root, with `/`.
pub fn name(path: &Path) -> String {
    let below = path.strip_prefix(root()).unwrap_or(path);
    below.components().map(|c| c.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

/// Calls `f` with every file below `folder`, without what is built or hidden.
pub fn walk(folder: &Path, f: &mut dyn FnMut(&Path)) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if matches!(name.as_str(), "target" | ".git" | "greenroom-data") {
            continue;
        }
        if path.is_dir() {
            walk(&path, f);
        } else {
            f(&path);
        }
    }
}

/// Blanks comments, texts and characters.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes.get(at + 1) == Some(&b'/') => text[at..].find('\n').map_or(bytes.len(), |n| at + n),
            b'/' if bytes.get(at + 1) == Some(&b'*') => {
                text[at..].find("*/").map_or(bytes.len(), |n| at + n + 2)
            }
            b'"' => quoted(bytes, at),
            b'r' if is_raw(bytes, at) => raw(text, at),
            // A character, not a lifetime: 'x' or '\n'.
            b'\'' if bytes.get(at + 1) == Some(&b'\\') => {
                text[at + 3..].find('\'').map_or(bytes.len(), |n| at + 3 + n + 1)
            }
            b'\'' if bytes.get(at + 2) == Some(&b'\'') => at + 3,
            _ => {
                at += 1;
                continue;
            }
        };
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn quoted(bytes: &[u8], from: usize) -> usize {
    let mut at = from + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn is_raw(bytes: &[u8], at: usize) -> bool {
    let word_before = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    let quote = bytes[at + 1..].iter().position(|b| *b != b'#');
    !word_before && quote.is_some_and(|n| bytes[at + 1 + n] == b'"')
}

fn raw(text: &str, from: usize) -> usize {
    let hashes = text[from + 1..].bytes().take_while(|b| *b == b'#').count();
    let close = format!("\"{}", "#".repeat(hashes));
    let body = from + 2 + hashes;
    text[body..].find(&close).map_or(text.len(), |n| body + n + close.len())
}

#[test]
fn what_is_not_code_is_blanked() {
    let text =
        "let a = \"x.unwrap()\"; // b\nlet c: &'a str = r#\"d \" e\"#; let f = '\"'; g /* h */ '\\'' i";
    let left = "let a =              ;     \nlet c: &'a str =           ; let f =    ; g              i";
    assert_eq!(
        blank(text).split_whitespace().collect::<Vec<_>>(),
        left.split_whitespace().collect::<Vec<_>>()
    );
    assert_eq!(blank(text).len(), text.len());
}
