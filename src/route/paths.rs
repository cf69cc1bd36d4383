//! The radix router for the paths of one set of methods at one host.
//!
//! `matchit` does not take `{name}` and `{*rest}` in the same place, though here they may stand
//! side by side. Open-ended shapes therefore get a router for each depth, so that all of one router
//! end in `{*rest}` at the same segment. A lookup asks each router at most once and takes the most
//! specific answer; how many there are depends on how deep patterns are, not on how many.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use crate::route::pattern::{Form, Kind, Standing};

/// A rule's place at one path shape. The greater is the more specific.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Leaf {
    /// How specific the shape is; the leftmost difference decides.
    pub kinds: Arc<[Kind]>,
    /// How firmly the rule stands for it.
    pub standing: Standing,
    /// Whether the rule names the method.
    pub names_method: bool,
    /// Index of the rule. Never decides: equals are refused when the table is built.
    pub rule: usize,
}

/// Path shapes while they are collected: the best leaf of each.
#[derive(Debug, Default)]
pub struct PathsBuilder {
    best: BTreeMap<String, Leaf>,
}

/// Path shapes ready for lookup.
#[derive(Default)]
pub struct Paths {
    closed: matchit::Router<Leaf>,
    open_ended: Vec<matchit::Router<Leaf>>,
}

impl PathsBuilder {
    /// Adds a rule at a shape, where the firmer of two rules stays.
    ///
    /// # Errors
    ///
    /// The leaf already there, when neither is firmer; it stays.
    pub fn insert(&mut self, form: Form, rule: usize, names_method: bool) -> Result<(), Leaf> {
        let leaf = Leaf {
            kinds: form.kinds,
            standing: form.standing,
            names_method,
            rule,
        };
        match self.best.entry(form.shape) {
            Entry::Vacant(vacant) => {
                vacant.insert(leaf);
            }
            Entry::Occupied(occupied) if occupied.get().standing == leaf.standing => {
                return Err(occupied.get().clone());
            }
            Entry::Occupied(mut occupied) => {
                if occupied.get().standing < leaf.standing {
                    occupied.insert(leaf);
                }
            }
        }
        Ok(())
    }

    /// Puts `rule` in the place of the leaf at this shape.
    pub fn replace(&mut self, shape: &str, rule: usize) {
        if let Some(leaf) = self.best.get_mut(shape) {
            leaf.rule = rule;
        }
    }

    /// Makes the routers.
    ///
    /// # Errors
    ///
    /// The rule and the router's words, should it refuse a shape.
    pub fn build(self) -> Result<Paths, (usize, String)> {
        let mut closed = matchit::Router::new();
        let mut open_ended: BTreeMap<usize, matchit::Router<Leaf>> = BTreeMap::new();
        for (shape, leaf) in self.best {
            let rule = leaf.rule;
            let router = match leaf.kinds.last() {
                Some(Kind::Rest) => open_ended.entry(leaf.kinds.len()).or_default(),
                Some(Kind::Parameter | Kind::Literal) | None => &mut closed,
            };
            router
                .insert(shape, leaf)
                .map_err(|e| (rule, e.to_string()))?;
        }
        Ok(Paths {
            closed,
            open_ended: open_ended.into_values().collect(),
        })
    }
}

impl Paths {
    /// The most specific rule for this path.
    #[must_use]
    pub fn at(&self, path: &str) -> Option<&Leaf> {
        std::iter::once(&self.closed)
            .chain(&self.open_ended)
            .filter_map(|router| router.at(path).ok())
            .map(|found| found.value)
            .max()
    }
}

impl std::fmt::Debug for Paths {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Paths")
            .field("open_ended", &self.open_ended.len())
            .finish_non_exhaustive()
    }
}
