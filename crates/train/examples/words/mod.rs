//! Settings as words `NAME=VALUE`, for programs that measure how members exchange.

use std::str::FromStr;
use talka_train::{Centre, Compressor, Cut, Outer, Rule};

/// The words of a command line.
pub struct Words(pub Vec<String>);

impl Words {
    /// What follows `NAME=`; empty if it was not said.
    pub fn text(&self, name: &str) -> &str {
        let value = |word: &'_ String| word.strip_prefix(name)?.strip_prefix('=').map(str::len);
        let found = self.0.iter().find_map(|word| value(word).map(|len| &word[word.len() - len..]));
        found.unwrap_or_default()
    }

    /// The same as a number or another value that is read from text.
    pub fn get<T: FromStr>(&self, name: &str, usual: T) -> Result<T, String> {
        match self.text(name) {
            "" => Ok(usual),
            text => text.parse().map_err(|_| format!("{name}={text} cannot be read")),
        }
    }

    /// Whether this very word was said.
    pub fn says(&self, name: &str) -> bool {
        self.0.iter().any(|word| word == name)
    }

    /// `compressor=plain32|plain16|dense4|sparse`, `top=K`, `cut=flat|tensors|tiles`.
    pub fn compressor(&self) -> Result<Compressor, String> {
        let cut = match self.text("cut") {
            "" | "flat" => Cut::Flat,
            "tensors" => Cut::Tensors,
            "tiles" => Cut::Tiles,
            other => return Err(format!("cut={other} is none of flat, tensors, tiles")),
        };
        match self.text("compressor") {
            "" | "plain32" => Ok(Compressor::Plain32),
            "plain16" => Ok(Compressor::Plain16),
            "dense4" => Ok(Compressor::Dense4),
            "sparse" => Ok(Compressor::Sparse { cut, top: self.get("top", 64)? }),
            other => Err(format!("compressor={other} is none of plain32, plain16, dense4, sparse")),
        }
    }

    /// `rate=X`, `momentum=X`.
    pub fn outer(&self, usual: Outer) -> Result<Outer, String> {
        let rate = self.get("rate", usual.rate)?;
        Ok(Outer { rate, momentum: self.get("momentum", usual.momentum)? })
    }

    /// `centre=mean|trimmed|median|krum|geometric`, `clip`, `liars=N` of `members`.
    pub fn rule(&self, members: u16) -> Result<Rule, String> {
        let liars: u16 = self.get("liars", 0)?;
        let centre = match self.text("centre") {
            "" | "mean" => Centre::Mean,
            "trimmed" => Centre::Trimmed { per_mille: 1000 * liars / members.max(1) },
            "median" => Centre::Median,
            "krum" => Centre::Krum { liars, kept: members },
            "geometric" => Centre::GeometricMedian,
            other => {
                let known = "mean, trimmed, median, krum, geometric";
                return Err(format!("centre={other} is none of {known}"));
            }
        };
        Ok(Rule { clip: self.says("clip"), centre })
    }
}
