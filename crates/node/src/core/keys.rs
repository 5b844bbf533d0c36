//! Keys that let callers in: what each may do, how much it may spend, how often it may call, until when.
//!
//! The ring decides who is let in and who pays. It reads no clock, writes no file, and sees no secret: it knows a
//! key by the hash of one. A budget counts what was spent and, for requests under way, the most that they may
//! still cost; so it is never passed, whatever runs at once. Whoever entered has to leave, and what was held is
//! paid or released: [`shell::keys`](crate::api::Keys) does that also for callers that vanish.

use super::pace::Pace;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::{collections::BTreeMap, fmt, str::FromStr};
use talka_base::{
    Credits, Encoded, Tick,
    hex::{self, HexError},
};

/// Most keys of a node: each is looked at by every call that shows a key, and all are in memory.
pub const KEYS_MAX: usize = 1_000;

/// The longest name of a key, in bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// Bytes of a secret: 256 random bits.
pub const SECRET_BYTES: usize = 32;

/// Names one key, random. Not secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId(pub [u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::show(&self.0))
    }
}

impl FromStr for KeyId {
    type Err = HexError;
    fn from_str(text: &str) -> Result<Self, HexError> {
        hex::parse(text).map(Self)
    }
}

impl Serialize for KeyId {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() { s.collect_str(self) } else { self.0.serialize(s) }
    }
}

impl<'de> Deserialize<'de> for KeyId {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        if d.is_human_readable() {
            String::deserialize(d)?.parse().map_err(D::Error::custom)
        } else {
            <[u8; 8]>::deserialize(d).map(Self)
        }
    }
}

/// What a call wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Ask models, and see which there are.
    Infer,
    /// See and change everything that the node's owner may.
    Admin,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Infer => "infer",
            Self::Admin => "admin",
        })
    }
}

impl FromStr for Scope {
    type Err = UnknownScope;
    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        [Self::Infer, Self::Admin]
            .into_iter()
            .find(|scope| scope.to_string() == text)
            .ok_or_else(|| UnknownScope { found: text.chars().take(40).collect() })
    }
}

/// Text that names no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected infer or admin, found {found:?}")]
pub struct UnknownScope {
    /// The text.
    pub found: String,
}

/// What its owner wants of a new key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyOrder {
    /// What people call it.
    pub name: String,
    /// What it is good for, at least one.
    pub scopes: Vec<Scope>,
    /// Where it ends.
    #[serde(flatten)]
    pub limits: KeyLimits,
    /// How long it is valid, in milliseconds; for good if absent.
    pub valid_ms: Option<u64>,
}

/// Where a key ends. What is absent has no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyLimits {
    /// What may be spent with it altogether.
    pub budget: Option<Credits>,
    /// Calls a minute.
    pub requests_per_minute: Option<u32>,
    /// Calls at once.
    pub concurrent: Option<u32>,
}

/// A key as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    id: KeyId,
    name: String,
    secret_hash: [u8; 32],
    scopes: Vec<Scope>,
    limits: KeyLimits,
    created_at: Tick,
    expires_at: Option<Tick>,
    spent: Credits,
}

impl Encoded for KeyRecord {
    const NAME: &'static str = "key record";
    const SIZE_MAX: usize = 512;
}

impl KeyRecord {
    /// Which key it is of.
    pub fn id(&self) -> KeyId {
        self.id
    }
}

/// A key as its owner sees it. Nothing here lets anybody in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyReport {
    /// Which one.
    pub id: KeyId,
    /// What people call it.
    pub name: String,
    /// What it is good for.
    pub scopes: Vec<Scope>,
    /// Where it ends.
    #[serde(flatten)]
    pub limits: KeyLimits,
    /// When it was made.
    pub created_at: Tick,
    /// The last moment of its validity.
    pub expires_at: Option<Tick>,
    /// What was spent with it.
    pub spent: Credits,
    /// The most that requests under way may still cost.
    pub held: Credits,
    /// Calls under way.
    pub running: u32,
}

/// Why a key is not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum KeyOrderError {
    /// The name is no name.
    #[error(
        "name has {found} bytes, expected 1 to {NAME_BYTES_MAX} and neither control characters nor the form of \
         a key's id"
    )]
    Name { found: usize },
    /// Another key is called so.
    #[error("a key called {name:?} is there already: choose another name, or remove that one")]
    NameTaken { name: String },
    /// Good for nothing.
    #[error("scopes is empty, expected infer, admin or both")]
    NoScope,
    /// A limit that nothing could keep.
    #[error("{limit} is 0, expected at least 1, or nothing for no limit")]
    Zero { limit: &'static str },
    /// There are many already.
    #[error("there are {KEYS_MAX} keys, the most a node keeps: remove some")]
    Full,
}

/// Why a key does not let a caller in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum KeyRefused {
    /// No key has this secret.
    #[error("the API key is none of this node's keys: it may have been removed")]
    Unknown,
    /// Its time is over.
    #[error(
        "the API key {name:?} expired {minutes} minutes ago: ask the node's owner for a new one"
    )]
    Expired { name: String, minutes: u64 },
    /// It is for something else.
    #[error("the API key {name:?} lacks the scope {needed}, which this call needs")]
    Scope { name: String, needed: Scope },
    /// As many calls as it allows are under way.
    #[error("{running} calls with the API key {name:?} are running, the most it allows at once")]
    Concurrent { name: String, running: u32 },
    /// It was used too often lately.
    #[error("the API key {name:?} allows {per_minute} calls a minute: wait {wait_ms} ms")]
    Rate { name: String, per_minute: u32, wait_ms: u64 },
}

/// A request that may cost more than is left of its key's budget.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "this request may cost up to {needed}, but of the API key's budget of {budget} only {left} is left"
)]
pub struct OverBudget {
    /// The most that the request may cost.
    pub needed: Credits,
    /// What is neither spent nor held.
    pub left: Credits,
    /// The budget.
    pub budget: Credits,
}

/// All keys of a node.
#[derive(Debug, Default)]
pub struct KeyRing {
    keys: BTreeMap<KeyId, Live>,
}

/// A key and what is under way with it, which no restart survives.
#[derive(Debug)]
struct Live {
    record: KeyRecord,
    pace: Option<Pace>,
    running: u32,
    held: Credits,
}

impl KeyRing {
    /// The ring of these keys, with nothing under way.
    pub fn of(records: impl IntoIterator<Item = KeyRecord>) -> Self {
        let live = |record: KeyRecord| (record.id, Live::new(record));
        Self { keys: records.into_iter().map(live).collect() }
    }

    /// What would be kept of a new key with the id and secret that were drawn for it. The ring is unchanged.
    ///
    /// # Errors
    /// [`KeyOrderError`].
    pub fn draft(
        &self,
        order: KeyOrder,
        id: KeyId,
        secret: &[u8; SECRET_BYTES],
        now: Tick,
    ) -> Result<KeyRecord, KeyOrderError> {
        let KeyOrder { name, mut scopes, limits, valid_ms } = order;
        check_name(&name)?;
        check_limits(&limits, valid_ms)?;
        scopes.sort_unstable();
        scopes.dedup();
        if scopes.is_empty() {
            return Err(KeyOrderError::NoScope);
        }
        if self.keys.values().any(|live| live.record.name == name) {
            return Err(KeyOrderError::NameTaken { name });
        }
        if self.keys.len() >= KEYS_MAX {
            return Err(KeyOrderError::Full);
        }
        let expires_at = valid_ms.map(|ms| now.plus_ms(ms));
        let (secret_hash, spent) = (hash(secret), Credits::ZERO);
        Ok(KeyRecord { id, name, secret_hash, scopes, limits, created_at: now, expires_at, spent })
    }

    /// Lets a key that was drafted and kept be used.
    pub fn add(&mut self, record: KeyRecord) {
        self.keys.insert(record.id, Live::new(record));
    }

    /// Which key has this id or name.
    pub fn find(&self, id_or_name: &str) -> Option<KeyId> {
        let named = |live: &&Live| {
            live.record.name == id_or_name || live.record.id.to_string() == id_or_name
        };
        self.keys.values().find(named).map(|live| live.record.id)
    }

    /// Forgets a key: nobody enters with it any more, and those who did may finish.
    pub fn remove(&mut self, id: KeyId) -> Option<KeyReport> {
        self.keys.remove(&id).map(|live| live.report())
    }

    /// All keys, by name.
    pub fn reports(&self) -> Vec<KeyReport> {
        let mut reports: Vec<_> = self.keys.values().map(Live::report).collect();
        reports.sort_by(|a, b| a.name.cmp(&b.name));
        reports
    }

    /// One key.
    pub fn report(&self, id: KeyId) -> Option<KeyReport> {
        self.keys.get(&id).map(Live::report)
    }

    /// Lets a caller in who shows `secret` and wants to do what takes `scope`. It must [`leave`](Self::leave).
    ///
    /// # Errors
    /// [`KeyRefused`]; the call is not counted.
    pub fn enter(
        &mut self,
        secret: &[u8; SECRET_BYTES],
        scope: Scope,
        now: Tick,
    ) -> Result<KeyId, KeyRefused> {
        let hash = hash(secret);
        let found = self.keys.values_mut().find(|live| live.record.secret_hash == hash);
        let live = found.ok_or(KeyRefused::Unknown)?;
        live.check(scope, now)?;
        live.running += 1;
        Ok(live.record.id)
    }

    /// Ends the call of a caller that was let in.
    pub fn leave(&mut self, id: KeyId) {
        if let Some(live) = self.keys.get_mut(&id) {
            live.running = live.running.saturating_sub(1);
        }
    }

    /// Sets `most` aside for a request, until it is paid or released. A key that was removed meanwhile no longer
    /// has a budget, and its last calls are its owner's.
    ///
    /// # Errors
    /// [`OverBudget`]; nothing is held.
    pub fn hold(&mut self, id: KeyId, most: Credits) -> Result<(), OverBudget> {
        let Some(live) = self.keys.get_mut(&id) else { return Ok(()) };
        let left = live.left();
        match live.record.limits.budget {
            Some(budget) if most > left => Err(OverBudget { needed: most, left, budget }),
            _ => {
                live.held = Credits(live.held.0.saturating_add(most.0));
                Ok(())
            }
        }
    }

    /// Gives back what was held for a request that cost nothing.
    pub fn release(&mut self, id: KeyId, most: Credits) {
        if let Some(live) = self.keys.get_mut(&id) {
            live.held = Credits(live.held.0.saturating_sub(most.0));
        }
    }

    /// Charges what a request really cost, of the `most` that was held; returns what is to be kept, unless the key
    /// is gone. The ledger never charges more than it held, and neither does a key.
    pub fn pay(&mut self, id: KeyId, most: Credits, cost: Credits) -> Option<KeyRecord> {
        self.release(id, most);
        let live = self.keys.get_mut(&id)?;
        let spent = &mut live.record.spent;
        *spent = Credits(spent.0.saturating_add(cost.min(most).0));
        Some(live.record.clone())
    }
}

impl Live {
    fn new(record: KeyRecord) -> Self {
        let pace = record.limits.requests_per_minute.map(Pace::new);
        Self { record, pace, running: 0, held: Credits::ZERO }
    }

    /// Whether one more call may come. The rate comes last: a call refused for something else is not counted.
    fn check(&mut self, needed: Scope, now: Tick) -> Result<(), KeyRefused> {
        let name = || self.record.name.clone();
        if let Some(end) = self.record.expires_at.filter(|end| now > *end) {
            return Err(KeyRefused::Expired { name: name(), minutes: now.since_ms(end) / 60_000 });
        }
        if !self.record.scopes.contains(&needed) {
            return Err(KeyRefused::Scope { name: name(), needed });
        }
        if self.record.limits.concurrent.is_some_and(|most| self.running >= most) {
            return Err(KeyRefused::Concurrent { name: name(), running: self.running });
        }
        let taken = self.pace.as_mut().map_or(Ok(()), |pace| pace.take(now));
        let per_minute = self.record.limits.requests_per_minute.unwrap_or_default();
        let name = self.record.name.clone();
        taken.map_err(|wait_ms| KeyRefused::Rate { name, per_minute, wait_ms })
    }

    /// What is neither spent nor held of the budget.
    fn left(&self) -> Credits {
        let budget = self.record.limits.budget.map_or(u64::MAX, |budget| budget.0);
        Credits(budget.saturating_sub(self.record.spent.0).saturating_sub(self.held.0))
    }

    fn report(&self) -> KeyReport {
        let record = self.record.clone();
        KeyReport {
            id: record.id,
            name: record.name,
            scopes: record.scopes,
            limits: record.limits,
            created_at: record.created_at,
            expires_at: record.expires_at,
            spent: record.spent,
            held: self.held,
            running: self.running,
        }
    }
}

/// A key is asked for by id or name, so that no name may look like an id.
fn check_name(name: &str) -> Result<(), KeyOrderError> {
    let is_bounded = (1..=NAME_BYTES_MAX).contains(&name.len()) && name.trim() == name;
    if is_bounded && !name.chars().any(char::is_control) && name.parse::<KeyId>().is_err() {
        Ok(())
    } else {
        Err(KeyOrderError::Name { found: name.len() })
    }
}

fn check_limits(limits: &KeyLimits, valid_ms: Option<u64>) -> Result<(), KeyOrderError> {
    let KeyLimits { budget, requests_per_minute, concurrent } = *limits;
    let zero = [
        ("budget", budget == Some(Credits::ZERO)),
        ("requests_per_minute", requests_per_minute == Some(0)),
        ("concurrent", concurrent == Some(0)),
        ("valid_ms", valid_ms == Some(0)),
    ];
    let zero = zero.into_iter().find(|(_, is_zero)| *is_zero);
    zero.map_or(Ok(()), |(limit, _)| Err(KeyOrderError::Zero { limit }))
}

/// A slow hash would protect secrets that people choose and attackers guess. Nobody guesses 256 random bits, so a
/// plain hash hides them as well, and costs a call a microsecond. That hashes are not compared in constant time
/// tells nothing: whoever measures it cannot choose the hash.
fn hash(secret: &[u8; SECRET_BYTES]) -> [u8; 32] {
    blake3::derive_key("talka 2026 api key", secret)
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
