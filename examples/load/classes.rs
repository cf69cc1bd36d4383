//! What is sent: classes of requests with weights, in a fixed order that spreads them evenly.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::str::FromStr;

use crate::{Failure, http};

/// `NAME=PATH:WEIGHT`, as on the command line.
#[derive(Clone, Debug)]
pub(crate) struct ClassArg {
    pub(crate) name: String,
    path: String,
    weight: i64,
}

impl FromStr for ClassArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('=').and_then(|(name, rest)| {
            let (path, weight) = rest.rsplit_once(':').unwrap_or((rest, "1"));
            Some((name, path, weight.parse().ok()?))
        });
        let (name, path, weight) = parts.ok_or("not NAME=PATH:WEIGHT")?;
        Ok(Self {
            name: name.to_owned(),
            path: path.to_owned(),
            weight,
        })
    }
}

/// A kind of request.
pub(crate) struct Class {
    pub(crate) name: String,
    pub(crate) is_paid: bool,
    path: String,
    request: Vec<u8>,
    weight: i64,
    credit: i64,
}

/// All kinds, and the supply of proofs for the paid ones.
pub(crate) struct Classes {
    pub(crate) all: Vec<Class>,
    proofs: Option<BufReader<File>>,
    again: Vec<String>,
    next: usize,
}

impl Classes {
    /// Plain and paid requests. Each proof is used once; with `reuse` they go round.
    pub(crate) fn new(
        plain: &[ClassArg],
        paid: &[ClassArg],
        proofs: Option<&Path>,
        reuse: bool,
    ) -> Result<Self, Failure> {
        let class = |arg: &ClassArg, is_paid| Class {
            name: arg.name.clone(),
            is_paid,
            path: arg.path.clone(),
            request: http::get(&arg.path, None),
            weight: arg.weight,
            credit: 0,
        };
        let mut all: Vec<_> = plain.iter().map(|arg| class(arg, false)).collect();
        all.extend(paid.iter().map(|arg| class(arg, true)));
        if all.is_empty() || (!paid.is_empty() && proofs.is_none()) {
            return Err("nothing to send, or nothing to pay with".into());
        }
        let mut proofs = proofs.map(File::open).transpose()?.map(BufReader::new);
        let mut again = Vec::new();
        if reuse && let Some(file) = proofs.take() {
            again = file.lines().collect::<Result<_, _>>()?;
        }
        Ok(Self {
            all,
            proofs,
            again,
            next: 0,
        })
    }

    /// Which class comes next: the one that has waited for its share the longest.
    pub(crate) fn pick(&mut self) -> usize {
        let total: i64 = self.all.iter().map(|class| class.weight).sum();
        for class in &mut self.all {
            class.credit += class.weight;
        }
        let most = self.all.iter().enumerate().max_by_key(|(_, c)| c.credit);
        let chosen = most.map_or(0, |(index, _)| index);
        self.all[chosen].credit -= total;
        chosen
    }

    /// The bytes of one request of this class; `None` when there are no proofs left.
    pub(crate) fn request(&mut self, class: usize) -> Result<Option<Vec<u8>>, Failure> {
        let class = &self.all[class];
        if !class.is_paid {
            return Ok(Some(class.request.clone()));
        }
        if !self.again.is_empty() {
            self.next = (self.next + 1) % self.again.len();
            return Ok(Some(http::get(&class.path, Some(&self.again[self.next]))));
        }
        let mut line = String::new();
        let read = self.proofs.as_mut().map(|file| file.read_line(&mut line));
        Ok(match read.transpose()? {
            None | Some(0) => None,
            Some(_) => Some(http::get(&class.path, Some(line.trim_end()))),
        })
    }
}
