//! The inverted index of a shelf: pure, bounded, and never wrong by leaving a file out.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::phrase::{Word, fold, words};

/// How large an index may grow, in bytes of its JSON.
pub(super) const MAX_BYTES: usize = 256 << 10;
/// Longer words are not kept.
const MAX_WORD_BYTES: usize = 128;
/// What a word takes besides its letters: quotes, colon, comma, and a set of files.
const WORD_OVERHEAD: usize = 24;

/// A set of at most 64 files, by their place on the shelf.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Files(u64);

impl Files {
    /// How many places there are.
    pub const MAX: usize = u64::BITS as usize;

    /// The first `n` places.
    pub fn first(n: usize) -> Self {
        Self((0..n.min(Self::MAX)).fold(0, |bits, place| bits | 1 << place))
    }

    pub fn insert(&mut self, place: usize) {
        self.0 |= bit(place);
    }

    /// Whether it was there.
    pub fn remove(&mut self, place: usize) -> bool {
        let had = self.0 & bit(place) != 0;
        self.0 &= !bit(place);
        had
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn places(self) -> impl Iterator<Item = usize> {
        (0..Self::MAX).filter(move |place| self.0 & bit(*place) != 0)
    }
}

fn bit(place: usize) -> u64 {
    1u64.checked_shl(u32::try_from(place).unwrap_or(u32::MAX)).unwrap_or(0)
}

/// Which files may hold which words.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Index {
    words: BTreeMap<String, Files>,
    /// Files whose words did not fit: they may hold anything.
    unindexed: Files,
}

impl Index {
    /// Takes in a file. What does not fit is remembered as a file that may hold anything.
    pub fn add(&mut self, place: usize, text: &str) {
        let folded = fold(text);
        let found: BTreeSet<&str> = words(&folded).collect();
        let new = found.iter().filter(|w| !self.words.contains_key(**w)).map(|w| w.len() + WORD_OVERHEAD);
        let fits = self.bytes() + new.sum::<usize>() <= MAX_BYTES;
        if !fits || found.iter().any(|word| word.len() > MAX_WORD_BYTES) {
            return self.unindexed.insert(place);
        }
        for word in found {
            self.words.entry(word.to_owned()).or_default().insert(place);
        }
    }

    /// The files that may hold all of these words.
    pub fn find(&self, wanted: &[Word]) -> Files {
        let all = wanted.iter().fold(u64::MAX, |files, word| files & self.holding(word).0);
        Files(all | self.unindexed.0)
    }

    fn holding(&self, word: &Word) -> Files {
        if !word.open_start && !word.open_end {
            return self.words.get(&word.text).copied().unwrap_or_default();
        }
        let matching = self.words.iter().filter(|(term, _)| word.matches(term));
        Files(matching.fold(0, |files, (_, those)| files | those.0))
    }

    fn bytes(&self) -> usize {
        self.words.keys().map(|word| word.len() + WORD_OVERHEAD).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::agent::library::phrase::Phrase;

    #[test]
    fn files_is_a_set() {
        let mut files = Files::first(3);
        assert!(files.remove(1) && !files.remove(1));
        assert_eq!(files.places().collect::<Vec<_>>(), [0, 2]);
        files.insert(64); // no such place
        assert_eq!(files, Files(0b101));
        assert_eq!(Files::first(64), Files(u64::MAX));
    }

    #[test]
    fn an_index_is_bounded_and_what_does_not_fit_may_hold_anything() {
        let mut index = Index::default();
        index.add(0, "a word that fits");
        let many: String = (0..40_000).map(|n| format!("{n:x} ")).collect();
        index.add(1, &many);
        index.add(2, &"x".repeat(MAX_WORD_BYTES + 1));
        assert!(serde_json::to_vec(&index).unwrap().len() <= MAX_BYTES + 64);
        assert_eq!(index.find(&Phrase::new("9c3f").words).places().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(index.find(&Phrase::new("word").words).places().collect::<Vec<_>>(), [0, 1, 2]);
    }

    proptest! {
        #[test]
        fn what_grep_finds_is_found(
            files in prop::collection::vec("([a-cA-CßİΣ_]{1,3}[ .(\\n]{0,2}){0,12}", 1..8),
            pick in any::<prop::sample::Index>(),
            cut in any::<(prop::sample::Index, prop::sample::Index)>(),
        ) {
            let mut index = Index::default();
            for (place, text) in files.iter().enumerate() {
                index.add(place, text);
            }
            let lines: Vec<&str> = files.iter().flat_map(|f| f.lines()).filter(|l| !l.is_empty()).collect();
            prop_assume!(!lines.is_empty());
            let chars: Vec<char> = pick.get(&lines).chars().collect();
            let (a, b) = (cut.0.index(chars.len()), cut.1.index(chars.len()));
            let query: String = chars[a.min(b)..=a.max(b)].iter().collect();
            let phrase = Phrase::new(&query);
            prop_assume!(!phrase.words.is_empty());
            let candidates: Vec<usize> = index.find(&phrase.words).places().collect();
            for (place, text) in files.iter().enumerate() {
                let grep: Vec<u64> =
                    text.lines().zip(1..).filter(|(l, _)| l.contains(&query)).map(|(_, n)| n).collect();
                let hits = phrase.hits("p", text, 99);
                let exact: Vec<u64> = hits.iter().filter(|h| h.score == 3).map(|h| h.line).collect();
                prop_assert_eq!(exact, grep);
                prop_assert!(hits.is_empty() || candidates.contains(&place));
            }
        }
    }
}
