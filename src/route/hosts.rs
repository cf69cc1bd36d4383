//! From host and method to the router that knows the paths.

use std::collections::HashMap;

use crate::route::paths::{Leaf, Paths, PathsBuilder};
use crate::route::pattern::{Form, HostPattern, governed_as};

/// Rules by host and method while they are collected.
#[derive(Debug, Default)]
pub struct HostsBuilder {
    /// The method is `None` for rules of any method.
    paths: HashMap<(HostPattern, Option<String>), PathsBuilder>,
}

/// Rules by host, method and path. The cost of a lookup does not depend on their number.
#[derive(Debug, Default)]
pub struct Hosts {
    exact: HashMap<String, MethodPaths>,
    wildcard: HashMap<String, MethodPaths>,
    any: MethodPaths,
}

#[derive(Debug, Default)]
struct MethodPaths {
    /// Few, so that comparing them is faster than hashing.
    named: Vec<(String, Paths)>,
    any: Paths,
}

impl HostsBuilder {
    /// Adds a rule at a host, a method (`None`: any) and a path shape.
    ///
    /// # Errors
    ///
    /// The leaf that is already there and equally specific.
    pub fn insert(
        &mut self,
        host: &HostPattern,
        method: Option<&str>,
        form: Form,
        rule: usize,
    ) -> Result<(), Leaf> {
        self.paths
            .entry((host.clone(), method.map(str::to_owned)))
            .or_default()
            .insert(form, rule, method.is_some())
    }

    /// Puts `rule` in the place of the leaf there.
    pub fn replace(&mut self, host: &HostPattern, method: Option<&str>, shape: &str, rule: usize) {
        let key = (host.clone(), method.map(str::to_owned));
        if let Some(paths) = self.paths.get_mut(&key) {
            paths.replace(shape, rule);
        }
    }

    /// Makes the routers.
    ///
    /// # Errors
    ///
    /// The rule and the router's words, should it refuse a shape.
    pub fn build(self) -> Result<Hosts, (usize, String)> {
        let mut hosts = Hosts::default();
        for ((host, method), paths) in self.paths {
            let methods = match host {
                HostPattern::Exact(name) => hosts.exact.entry(name).or_default(),
                HostPattern::Wildcard(suffix) => hosts.wildcard.entry(suffix).or_default(),
                HostPattern::Any => &mut hosts.any,
            };
            let paths = paths.build()?;
            match method {
                Some(method) => {
                    methods.named.push((method, paths));
                }
                None => methods.any = paths,
            }
        }
        Ok(hosts)
    }
}

impl Hosts {
    /// The rule that governs: the most specific host that has one, there the most specific path.
    #[must_use]
    pub fn at(&self, host: &str, method: &str, path: &str) -> Option<&Leaf> {
        let method = governed_as(method);
        let exact = self.exact.get(host);
        let host = if self.wildcard.is_empty() { "" } else { host };
        let wildcards = parents(host).filter_map(|suffix| self.wildcard.get(suffix));
        exact
            .into_iter()
            .chain(wildcards)
            .chain([&self.any])
            .find_map(|methods| methods.at(method, path))
    }
}

impl MethodPaths {
    fn at(&self, method: &str, path: &str) -> Option<&Leaf> {
        let mut named = self.named.iter().filter(|(name, _)| name == method);
        let named = named.next().and_then(|(_, paths)| paths.at(path));
        named.max(self.any.at(path))
    }
}

/// `b.c` and `c` for `a.b.c`: longer first.
fn parents(host: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(host), |name| {
        name.split_once('.').map(|(_, rest)| rest)
    })
    .skip(1)
}
