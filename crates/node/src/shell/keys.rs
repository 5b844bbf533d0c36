//! The keys of a node with a clock, random numbers and the disk: what [`core::keys`](crate::core::keys) decides,
//! done.
//!
//! Whoever enters gets a [`KeyGuest`], and whoever is held credits for a [`KeyHold`]: dropped, they give back what
//! they took, so that a caller who vanishes leaves nothing behind. What was paid is on disk before the caller sees
//! the end of an answer. If the machine fails between the ledger's settlement and that, the one answer is not
//! counted; nothing is ever counted that the ledger did not charge.

use super::{now, random};
use crate::{
    core::keys::{
        KeyId, KeyOrder, KeyOrderError, KeyRecord, KeyRefused, KeyReport, KeyRing, OverBudget,
        SECRET_BYTES, Scope,
    },
    store::{Damage, Store, StoreError},
};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use talka_base::{Credits, decode, encode, hex};

/// Before the id in the store.
const RECORD_PREFIX: &str = "key/";

/// Before the secret: says whose key it is to people and to programs that look for lost keys. Clients of OpenAI's
/// API expect the first two letters.
const SECRET_PREFIX: &str = "sk-talka-";

/// All keys of a node. Cheap to clone.
#[derive(Clone)]
pub struct Keys {
    shared: Arc<Shelf>,
}

struct Shelf {
    ring: Mutex<KeyRing>,
    /// Held while a record is written, so that the last one written is the newest.
    writing: Mutex<()>,
    store: Arc<Store>,
}

/// A key as it is made: the only time that its secret is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewKey {
    /// What callers send.
    pub secret: KeySecret,
    /// All else.
    #[serde(flatten)]
    pub report: KeyReport,
}

/// What a caller shows to be let in. Debugging does not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeySecret(String);

impl KeySecret {
    /// The text that is sent.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for KeySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeySecret(not shown)")
    }
}

/// Why a key was not made or removed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum KeysError {
    /// The order makes no sense.
    #[error(transparent)]
    Order(#[from] KeyOrderError),
    /// There is no such key.
    #[error("no key has the name or id {found:?}")]
    NoKey { found: String },
    /// It could not be written down.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.ring().reports().len())
    }
}

impl Keys {
    /// The keys kept in `store`.
    ///
    /// # Errors
    /// [`StoreError`] if one cannot be read.
    pub fn open(store: Arc<Store>) -> Result<Self, StoreError> {
        let records: Result<Vec<KeyRecord>, _> = store
            .records(RECORD_PREFIX)?
            .into_iter()
            .map(|(record, bytes)| {
                let damaged = |source| Damage::Encoding { record, source };
                decode(&bytes).map_err(|error| store.corrupt(damaged(error)))
            })
            .collect();
        let ring = Mutex::new(KeyRing::of(records?));
        Ok(Self { shared: Arc::new(Shelf { ring, writing: Mutex::default(), store }) })
    }

    /// Makes a key. It is on disk when this returns.
    ///
    /// # Errors
    /// [`KeysError`]; there is no new key.
    pub async fn add(&self, order: KeyOrder) -> Result<NewKey, KeysError> {
        self.blocking(move |keys| {
            let _turn = keys.turn();
            let secret: [u8; SECRET_BYTES] = random();
            let record = keys.ring().draft(order, KeyId(random()), &secret, now())?;
            keys.write(&record)?;
            let (id, secret) =
                (record.id(), KeySecret(SECRET_PREFIX.to_owned() + &hex::show(&secret)));
            let mut ring = keys.ring();
            ring.add(record);
            let report = ring.report(id).expect("the ring's lock is held since it was added");
            Ok(NewKey { secret, report })
        })
        .await
    }

    /// All keys, by name.
    pub fn list(&self) -> Vec<KeyReport> {
        self.ring().reports()
    }

    /// Removes the key of this id or name. It lets nobody in when this returns.
    ///
    /// # Errors
    /// [`KeysError`]; the key is still there.
    pub async fn remove(&self, id_or_name: String) -> Result<KeyReport, KeysError> {
        self.blocking(move |keys| {
            let _turn = keys.turn();
            let no_key = || KeysError::NoKey { found: id_or_name.chars().take(80).collect() };
            let id = keys.ring().find(&id_or_name).ok_or_else(no_key)?;
            keys.shared.store.remove(&name_of(id))?;
            keys.ring().remove(id).ok_or_else(no_key)
        })
        .await
    }

    /// Whether `text` is written like a key that a node made, of this node or another.
    pub fn is_one(text: &str) -> bool {
        secret_in(text).is_some()
    }

    /// Lets in whoever shows `text` and wants to do what takes `scope`.
    ///
    /// # Errors
    /// [`KeyRefused`].
    pub fn enter(&self, text: &str, scope: Scope) -> Result<KeyGuest, KeyRefused> {
        let secret = secret_in(text).ok_or(KeyRefused::Unknown)?;
        let id = self.ring().enter(&secret, scope, now())?;
        Ok(KeyGuest(Arc::new(Entered { keys: self.clone(), id })))
    }

    fn ring(&self) -> MutexGuard<'_, KeyRing> {
        self.shared.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.shared.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, record: &KeyRecord) -> Result<(), StoreError> {
        self.shared.store.put(&name_of(record.id()), &encode(record))
    }

    /// Writing waits for the disk: not on the threads that serve everybody.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> T {
        let keys = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&keys)).await;
        done.expect("keeping keys does not panic")
    }
}

fn name_of(id: KeyId) -> String {
    format!("{RECORD_PREFIX}{id}")
}

fn secret_in(text: &str) -> Option<[u8; SECRET_BYTES]> {
    hex::parse(text.strip_prefix(SECRET_PREFIX)?).ok()
}

/// A call that a key let in; it ends when the last copy is dropped.
#[derive(Debug, Clone)]
pub struct KeyGuest(Arc<Entered>);

#[derive(Debug)]
struct Entered {
    keys: Keys,
    id: KeyId,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.keys.ring().leave(self.id);
    }
}

impl KeyGuest {
    /// Sets aside the most that a request may cost.
    ///
    /// # Errors
    /// [`OverBudget`].
    pub(crate) fn hold(&self, most: Credits) -> Result<KeyHold, OverBudget> {
        self.0.keys.ring().hold(self.0.id, most)?;
        Ok(KeyHold { guest: self.clone(), most, is_open: true })
    }
}

/// A part of a key's budget. Given back when dropped.
#[derive(Debug)]
pub(crate) struct KeyHold {
    guest: KeyGuest,
    most: Credits,
    is_open: bool,
}

impl KeyHold {
    /// Charges what a request cost. Should the disk fail, it counts until the node ends.
    pub(crate) async fn pay(mut self, cost: Credits) {
        self.is_open = false;
        let (keys, id, most) = (self.guest.0.keys.clone(), self.guest.0.id, self.most);
        let written = keys.blocking(move |keys| {
            // Drawn under the writers' lock, a record is never older than the one before it.
            let _turn = keys.turn();
            let record = keys.ring().pay(id, most, cost);
            record.map_or(Ok(()), |record| keys.write(&record))
        });
        if let Err(error) = written.await {
            tracing::error!(key = %id, %error, "what was spent with a key is not written down");
        }
    }
}

impl Drop for KeyHold {
    fn drop(&mut self) {
        if self.is_open {
            self.guest.0.keys.ring().release(self.guest.0.id, self.most);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::keys::KeyLimits;
    use tempfile::TempDir;

    fn open(dir: &TempDir) -> Keys {
        Keys::open(Arc::new(Store::open(dir.path()).expect("a store"))).expect("its keys")
    }

    fn order(name: &str) -> KeyOrder {
        let limits =
            KeyLimits { budget: Some(Credits(100)), concurrent: Some(1), ..KeyLimits::default() };
        KeyOrder { name: name.into(), scopes: vec![Scope::Infer], limits, valid_ms: None }
    }

    #[tokio::test]
    async fn a_key_outlives_a_restart_with_what_was_spent() {
        let dir = tempfile::tempdir().expect("a folder");
        let keys = open(&dir);
        let made = keys.add(order("bob")).await.expect("a key");
        let secret = made.secret.reveal().to_owned();
        assert!(Keys::is_one(&secret) && !format!("{made:?}").contains(&secret[10..]));
        let guest = keys.enter(&secret, Scope::Infer).expect("let in");
        guest.hold(Credits(80)).expect("within the budget").pay(Credits(30)).await;
        drop((guest, keys));

        let keys = open(&dir);
        let guest = keys.enter(&secret, Scope::Infer).expect("let in");
        assert!(guest.hold(Credits(71)).is_err() && guest.hold(Credits(70)).is_ok());
        assert_eq!((keys.list()[0].spent, keys.list()[0].held), (Credits(30), Credits::ZERO));
        drop(guest);
        keys.remove("bob".into()).await.expect("it is there");
        assert!(matches!(keys.remove("bob".into()).await, Err(KeysError::NoKey { .. })));
        drop(keys);
        assert_eq!(open(&dir).list(), []);
    }

    #[tokio::test]
    async fn a_secret_is_kept_nowhere() {
        let dir = tempfile::tempdir().expect("a folder");
        let keys = open(&dir);
        let made = keys.add(order("bob")).await.expect("a key");
        let secret = secret_in(made.secret.reveal()).expect("a key");
        drop(keys);
        for entry in std::fs::read_dir(dir.path()).expect("the folder") {
            let bytes = std::fs::read(entry.expect("a file").path()).expect("its bytes");
            assert!(!bytes.windows(SECRET_BYTES).any(|window| window == secret));
        }
    }

    #[tokio::test]
    async fn a_caller_who_vanishes_leaves_nothing_behind() {
        let dir = tempfile::tempdir().expect("a folder");
        let keys = open(&dir);
        let made = keys.add(order("bob")).await.expect("a key");
        let enter = || keys.enter(made.secret.reveal(), Scope::Infer);
        let guest = enter().expect("let in");
        let (copy, hold) = (guest.clone(), guest.hold(Credits(100)).expect("the budget"));
        drop(guest);
        assert!(matches!(enter(), Err(KeyRefused::Concurrent { running: 1, .. })));
        drop((copy, hold));
        assert_eq!(keys.list()[0].held, Credits::ZERO);
        assert!(enter().expect("let in again").hold(Credits(100)).is_ok());
    }
}
