//! Tasks that are accepted together: the order among them.

use std::collections::HashMap;

/// A circle among tasks of which each (by its place) comes after others, in its order; `None`: there is none.
///
/// Takes time in proportion to tasks and their parents (depth first, each task once).
pub fn circle(after: &[Vec<usize>]) -> Option<Vec<usize>> {
    // 0: not seen, 1: on the way that is being gone, 2: done
    let mut seen = vec![0_u8; after.len()];
    for start in 0..after.len() {
        let mut way: Vec<(usize, usize)> = Vec::new();
        let mut next = Some(start);
        loop {
            if let Some(task) = next.take() {
                match seen.get_mut(task) {
                    Some(state @ 0) => {
                        *state = 1;
                        way.push((task, 0));
                    }
                    Some(1) => {
                        let circle = way.iter().map(|(on, _)| *on).skip_while(|on| *on != task);
                        return Some(circle.chain([task]).collect());
                    }
                    _ => {}
                }
            }
            let Some((task, tried)) = way.last_mut() else { break };
            next = after.get(*task).and_then(|parents| parents.get(*tried)).copied();
            *tried += 1;
            if next.is_none() {
                if let Some(state) = seen.get_mut(*task) {
                    *state = 2;
                }
                way.pop();
            }
        }
    }
    None
}

/// Names with what they stand for, each once.
///
/// # Errors
/// The place of one that is there before.
pub fn by_name<'n>(names: impl Iterator<Item = Option<&'n str>>) -> Result<HashMap<&'n str, usize>, usize> {
    let mut known = HashMap::new();
    for (n, name) in names.enumerate() {
        if let Some(name) = name
            && known.insert(name, n).is_some()
        {
            return Err(n);
        }
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_circle_is_told_in_its_order() {
        assert_eq!(circle(&[]), None);
        assert_eq!(circle(&[vec![1, 2], vec![3], vec![3], vec![]]), None);
        assert_eq!(circle(&[vec![0]]), Some(vec![0, 0]));
        assert_eq!(circle(&[vec![], vec![2], vec![0, 3], vec![1]]), Some(vec![1, 2, 3, 1]));
    }

    #[test]
    fn a_long_chain_needs_no_stack() {
        let chain: Vec<Vec<usize>> =
            (0..200_000_usize).map(|n| n.checked_sub(1).into_iter().collect()).collect();
        assert_eq!(circle(&chain), None);
    }

    #[test]
    fn a_name_stands_for_one() {
        let names = |all: &[Option<&'static str>]| by_name(all.iter().copied()).map(|known| known.len());
        assert_eq!(names(&[Some("a"), None, Some("b"), None]), Ok(2));
        assert_eq!(names(&[Some("a"), None, Some("a")]), Err(2));
    }

    proptest! {
        #[test]
        fn what_only_looks_back_has_no_circle_and_one_edge_more_makes_one(
            parents in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..4), 2..40),
            chosen in any::<prop::sample::Index>(),
        ) {
            let mut after: Vec<Vec<usize>> = Vec::new();
            for (n, parents) in parents.iter().enumerate() {
                let before = parents.iter().filter(|_| n > 0).map(|p| p.index(n.max(1))).collect();
                after.push(before);
            }
            prop_assert_eq!(circle(&after), None);
            // The ancestor of somebody is made to come after it.
            let child = chosen.index(after.len());
            if let Some(parent) = after[child].first().copied() {
                after[parent].push(child);
                let found = circle(&after).unwrap();
                prop_assert_eq!(found.first(), found.last());
                for pair in found.windows(2) {
                    prop_assert!(after[pair[0]].contains(&pair[1]));
                }
            }
        }
    }
}
