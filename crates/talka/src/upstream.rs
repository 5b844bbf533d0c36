//! `--upstream`: a service to fall back on, as it is named on the command line.

use crate::{env, exit::UsageError, quantity};
use anyhow::{Context, Result};
use std::{fs, path::PathBuf, str::FromStr, time::Duration};
use talka_node::{Key, ServiceConfig, UpstreamChoice, UpstreamModel, UpstreamPrice};

/// The largest multiple of the network's price.
const MULTIPLE_MAX: f64 = 1_000.0;

/// `NAME=URL` and options after commas, as typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamFlag {
    name: String,
    address: String,
    models: Vec<UpstreamModel>,
    key: Option<KeyPlace>,
    price: UpstreamPrice,
    wait: Option<Duration>,
}

/// Where the key is. Never the key itself: other users can read a process's flags.
#[derive(Debug, Clone, PartialEq, Eq)]
enum KeyPlace {
    File(PathBuf),
    Variable(String),
}

/// Text that describes no upstream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamFlagError {
    /// No name or no address.
    #[error("expected NAME=URL, such as groq=https://api.groq.com/openai/v1")]
    Shape,
    /// An option that there is not.
    #[error(
        "{found:?} is no option of an upstream, expected model=NAME[=REMOTE], key-file=FILE, key-env=VAR, \
         multiple=X, price=GFT or wait=TIME"
    )]
    Option { found: String },
    /// An option's value is wrong.
    #[error("{option}={found:?}, expected {expected}")]
    Value { option: &'static str, found: String, expected: String },
    /// An option that may be given once.
    #[error("{option} is given twice, expected once")]
    Twice { option: &'static str },
    /// The flag itself holds what must not be seen.
    #[error(
        "a key is not given as a flag, which other users can read: use key-file=FILE or key-env=VAR"
    )]
    KeyShown,
}

impl FromStr for UpstreamFlag {
    type Err = UpstreamFlagError;

    fn from_str(text: &str) -> Result<Self, UpstreamFlagError> {
        let mut parts = text.split(',');
        let service = parts.next().and_then(|part| part.split_once('='));
        let (name, address) = service
            .filter(|(name, address)| !name.is_empty() && !address.is_empty())
            .ok_or(UpstreamFlagError::Shape)?;
        let mut flag = Self {
            name: name.into(),
            address: address.into(),
            models: Vec::new(),
            key: None,
            price: UpstreamPrice::default(),
            wait: None,
        };
        for part in parts {
            let unknown = || UpstreamFlagError::Option { found: part.chars().take(40).collect() };
            let (option, value) = part.split_once('=').ok_or_else(unknown)?;
            match option {
                "model" => flag.models.push(model(value)?),
                "key-file" => flag.set_key("key-file", value, |v| KeyPlace::File(v.into()))?,
                "key-env" => flag.set_key("key-env", value, |v| KeyPlace::Variable(v.into()))?,
                "multiple" => flag.price.multiple_per_mille = multiple(value)?,
                "price" => flag.price.per_thousand = price(value)?,
                "wait" => flag.wait = Some(wait(value)?),
                "key" | "api-key" => return Err(UpstreamFlagError::KeyShown),
                _ => return Err(UpstreamFlagError::Option { found: option.into() }),
            }
        }
        Ok(flag)
    }
}

impl UpstreamFlag {
    fn set_key(
        &mut self,
        option: &'static str,
        value: &str,
        place: fn(&str) -> KeyPlace,
    ) -> Result<(), UpstreamFlagError> {
        if value.is_empty() {
            return Err(wrong(option, value, "the place of a key"));
        }
        match self.key.replace(place(value)) {
            None => Ok(()),
            Some(_) => Err(UpstreamFlagError::Twice { option: "a key" }),
        }
    }

    /// Reads the key.
    ///
    /// # Errors
    /// If the file cannot be read, the variable is not set, or either holds no key.
    pub fn resolve(&self) -> Result<UpstreamChoice> {
        let key = self.key.as_ref().map(|place| self.read_key(place)).transpose()?;
        let mut service = ServiceConfig::new(&self.name, &self.address, key);
        service.first_max = self.wait.unwrap_or(service.first_max);
        Ok(UpstreamChoice { service, models: self.models.clone(), price: self.price })
    }

    fn read_key(&self, place: &KeyPlace) -> Result<Key> {
        let (text, origin) = match place {
            KeyPlace::File(path) => {
                let origin = format!("the file {}", path.display());
                let text = fs::read_to_string(path).with_context(|| {
                    format!("cannot read the key of upstream {} in {origin}", self.name)
                })?;
                (text, origin)
            }
            KeyPlace::Variable(name) => {
                let origin = format!("the variable {name}");
                let missing = || UsageError(format!("upstream {}: {origin} is not set", self.name));
                (env::read(name).ok_or_else(missing)?, origin)
            }
        };
        let wrong = |error| UsageError(format!("upstream {}, {origin}: {error}", self.name));
        Ok(Key::new(&text).map_err(wrong)?)
    }
}

/// `LOCAL` or `LOCAL=REMOTE`; names may hold colons.
fn model(text: &str) -> Result<UpstreamModel, UpstreamFlagError> {
    let (local, remote) = text.split_once('=').unwrap_or((text, text));
    if local.is_empty() || remote.is_empty() {
        return Err(wrong(
            "model",
            text,
            "NAME, or NAME=REMOTE where the service calls it otherwise",
        ));
    }
    Ok(UpstreamModel { local: local.into(), remote: remote.into() })
}

fn multiple(text: &str) -> Result<u32, UpstreamFlagError> {
    let thousandths = text.parse::<f64>().ok().map(|number| (number * 1_000.0).round());
    let fits = |number: &f64| *number > 1_000.0 && *number <= MULTIPLE_MAX * 1_000.0;
    let expected = "a number above 1 up to 1000, such as 2.5: the network's own work stays cheaper";
    thousandths
        .filter(fits)
        .map(|number| number as u32)
        .ok_or_else(|| wrong("multiple", text, expected))
}

fn price(text: &str) -> Result<talka_node::base::Credits, UpstreamFlagError> {
    quantity::credits(text).map_err(|error| wrong("price", text, error.expected()))
}

fn wait(text: &str) -> Result<Duration, UpstreamFlagError> {
    quantity::duration(text).map_err(|error| wrong("wait", text, error.expected()))
}

fn wrong(option: &'static str, found: &str, expected: &str) -> UpstreamFlagError {
    UpstreamFlagError::Value { option, found: found.into(), expected: expected.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use talka_node::base::Credits;

    fn read(text: &str) -> UpstreamFlag {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn refused(text: &str, words: &str) {
        let error = text.parse::<UpstreamFlag>().expect_err(text).to_string();
        assert!(error.contains(words), "{text}: {error}");
    }

    #[test]
    fn an_upstream_is_a_name_an_address_and_options() {
        let flag = read("home=http://127.0.0.1:11434/v1");
        assert_eq!(
            (flag.name.as_str(), flag.address.as_str()),
            ("home", "http://127.0.0.1:11434/v1")
        );
        assert_eq!(
            (flag.models.len(), &flag.key, flag.price),
            (0, &None, UpstreamPrice::default())
        );

        let flag = read(
            "groq=https://api.groq.com/openai/v1,model=llama-3.1-8b-instant,model=small=llama3.2:1b,\
             key-env=GROQ_API_KEY,multiple=2.5,price=0.5,wait=5s",
        );
        let names: Vec<_> =
            flag.models.iter().map(|m| (m.local.as_str(), m.remote.as_str())).collect();
        let same = "llama-3.1-8b-instant";
        assert_eq!(names, [(same, same), ("small", "llama3.2:1b")]);
        assert_eq!(flag.key, Some(KeyPlace::Variable("GROQ_API_KEY".into())));
        let price = UpstreamPrice { multiple_per_mille: 2_500, per_thousand: Credits(500_000) };
        assert_eq!((flag.price, flag.wait), (price, Some(Duration::from_secs(5))));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for text in ["", "groq", "=https://x/v1", "groq="] {
            refused(text, "expected NAME=URL");
        }
        refused("a=http://x/v1,model", "no option");
        refused("a=http://x/v1,speed=7", "\"speed\" is no option");
        refused("a=http://x/v1,model=", "expected NAME");
        refused("a=http://x/v1,model=a=", "expected NAME");
        for multiple in ["1", "0.5", "x", "1001", "NaN", "inf"] {
            refused(&format!("a=http://x/v1,multiple={multiple}"), "above 1");
        }
        refused("a=http://x/v1,price=-1", "GFT");
        refused("a=http://x/v1,wait=5", "time span");
        refused("a=http://x/v1,key-file=a,key-env=B", "twice");
        refused("a=http://x/v1,key-env=", "place of a key");
        refused("a=http://x/v1,key=sk-secret", "key-file=FILE");
        let error = "a=http://x/v1,key=sk-secret".parse::<UpstreamFlag>().expect_err("shown");
        assert!(!error.to_string().contains("secret"));
    }

    #[test]
    fn a_key_comes_from_its_place() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let file = folder.path().join("key");
        let flag = read(&format!("a=https://x/v1,key-file={}", file.display()));
        assert!(flag.resolve().expect_err("no file").to_string().contains("upstream a"));
        for (text, is_key) in [("sk-1\n", true), ("", false), ("two words", false)] {
            fs::write(&file, text).expect("written");
            assert_eq!(flag.resolve().is_ok(), is_key, "{text:?}");
        }
        let unset = read("a=https://x/v1,key-env=TALKA_TEST_OF_A_VARIABLE_THAT_IS_NOT_SET");
        assert!(unset.resolve().expect_err("unset").to_string().contains("is not set"));
    }
}
