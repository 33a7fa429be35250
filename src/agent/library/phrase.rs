//! Phrases: splitting text into words, the words that a phrase needs, and where it occurs in a text.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// At most so many characters of a line are shown.
const EXCERPT_CHARS: usize = 160;

/// A line that answers a search.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hit {
    /// The file.
    pub path: String,
    /// The line, from 1.
    pub line: u64,
    /// 3: the phrase as it was given · 2: in other case · 1: all of its words, elsewhere on the line.
    pub score: u8,
    /// The line, or the part of it around the phrase.
    pub excerpt: String,
}

/// A word that a text must hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Word {
    /// In lower case.
    pub text: String,
    /// Whether it may be the end of a longer word.
    pub open_start: bool,
    /// Whether it may be the beginning of a longer word.
    pub open_end: bool,
}

impl Word {
    /// Whether `term` is this word, as far as the phrase says where it begins and ends.
    pub fn matches(&self, term: &str) -> bool {
        match (self.open_start, self.open_end) {
            (false, false) => term == self.text,
            (true, false) => term.ends_with(&self.text),
            (false, true) => term.starts_with(&self.text),
            (true, true) => term.contains(&self.text),
        }
    }
}

/// Something to search for.
#[derive(Debug, Clone)]
pub(super) struct Phrase {
    exact: String,
    folded: String,
    pub words: Vec<Word>,
}

impl Phrase {
    pub fn new(text: &str) -> Self {
        let folded = fold(text);
        let mut words: Vec<Word> =
            words(&folded).map(|w| Word { text: w.to_owned(), open_start: false, open_end: false }).collect();
        // `grep ndle` finds `handle`: a phrase may begin and end within a word, though not elsewhere.
        if let Some(first) = words.first_mut() {
            first.open_start = folded.starts_with(is_word);
        }
        if let Some(last) = words.last_mut() {
            last.open_end = folded.ends_with(is_word);
        }
        Self { exact: text.to_owned(), folded, words }
    }

    /// The lines of `text` that answer, best first, at most `limit`.
    pub fn hits(&self, path: &str, text: &str, limit: usize) -> Vec<Hit> {
        let mut hits: Vec<Hit> = text
            .lines()
            .zip(1..)
            .filter_map(|(content, line)| {
                let (score, at) = self.score(content)?;
                Some(Hit { path: path.to_owned(), line, score, excerpt: excerpt(content, at) })
            })
            .collect();
        hits.sort_by_key(|hit| std::cmp::Reverse(hit.score)); // stable: lines stay in order
        hits.truncate(limit);
        hits
    }

    /// How well a line answers, and at which character.
    fn score(&self, line: &str) -> Option<(u8, usize)> {
        let chars = |text: &str, at| text.get(..at).map_or(0, |before| before.chars().count());
        if let Some(at) = line.find(&self.exact) {
            return Some((3, chars(line, at)));
        }
        let folded = fold(line);
        if let Some(at) = folded.find(&self.folded) {
            return Some((2, chars(&folded, at)));
        }
        let all = self.words.iter().all(|word| words(&folded).any(|term| word.matches(term)));
        (all && self.words.len() > 1).then_some((1, 0))
    }
}

/// Lower case, character by character: what is part of a text stays part of it.
pub(super) fn fold(text: &str) -> String {
    text.chars().flat_map(char::to_lowercase).collect()
}

/// The words of a folded text.
pub(super) fn words(folded: &str) -> impl Iterator<Item = &str> {
    folded.split(|c| !is_word(c)).filter(|word| !word.is_empty())
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn excerpt(line: &str, at: usize) -> String {
    let indent = line.chars().take_while(|c| c.is_whitespace()).count();
    let end = line.trim_end().chars().count();
    let start = if end.saturating_sub(indent) <= EXCERPT_CHARS {
        indent
    } else {
        at.saturating_sub(EXCERPT_CHARS / 4).max(indent)
    };
    line.trim_end().chars().skip(start).take(EXCERPT_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(query: &str, text: &str) -> Vec<(u64, u8)> {
        Phrase::new(query).hits("p", text, 10).into_iter().map(|h| (h.line, h.score)).collect()
    }

    #[test]
    fn exact_lines_come_first_then_other_case_then_scattered_words() {
        let text = "agent the\nThe Agent\nthe agent\nagents these\nnothing";
        assert_eq!(scores("the agent", text), [(3, 3), (2, 2), (1, 1)]);
    }

    #[test]
    fn a_phrase_may_begin_and_end_within_words() {
        assert_eq!(scores("ndle(tu", "fn handle(turn)"), [(1, 3)]);
        assert_eq!(scores("and", "fn handle(turn)"), [(1, 3)]);
        assert_eq!(scores("(turn ", "fn handle(turns)"), []);
    }

    #[test]
    fn long_lines_are_shown_around_the_phrase() {
        let line = format!("  {}needle{}", "a ".repeat(300), " b".repeat(300));
        let hit = Phrase::new("needle").hits("p", &line, 1).remove(0);
        assert!(hit.excerpt.contains("needle"));
        assert_eq!(hit.excerpt.chars().count(), EXCERPT_CHARS);
        assert_eq!(Phrase::new("x").hits("p", "   x y  ", 1).remove(0).excerpt, "x y");
    }
}
