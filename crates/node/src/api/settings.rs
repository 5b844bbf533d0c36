//! What a node's owner may see and change of it while it runs.

use super::{AdminError, Api};
use crate::{
    config::{MemoryShare, ModelChoice, StartError},
    core::owner::Opening,
    shell::{
        gauge::{self, Effort},
        hub::HubInput,
        models::KnownModel,
        open::own_model,
        settings::{HOURS_MAX, Limits},
    },
};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};
use talka_base::Credits;
use talka_engine::{ModelSource, kernels::Kernels};
use talka_plan::{availability::Hours, residency::Policy};
use tokio::task::spawn_blocking;

/// More threads than any machine has processors: a slip of the finger.
const THREADS_MAX: u32 = 1024;

/// A megabit a second: with less, whoever waits for a piece of a tensor gives up.
pub const BANDWIDTH_BYTES_MIN: u64 = 125_000;

/// How a node is set up, and the rules of its network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsReport {
    /// Threads that compute.
    pub threads: usize,
    /// Bytes a second that weights may take each way, from and to other computers; absent without a limit.
    pub bandwidth_bytes: Option<u64>,
    /// Memory for weights and caches, in bytes.
    pub memory_bytes: u64,
    /// How much of it is for caches.
    pub cache_bytes: u64,
    /// When it gives work to others; always, if there are none.
    pub hours: Vec<String>,
    /// Whether it does so only while nobody else needs the machine.
    pub when_idle: bool,
    /// Why it gives none now, if it does not, for people.
    pub closed: Option<String>,
    /// How several models share the memory: specialised, dynamic or mixed.
    pub sharing: String,
    /// What weights are quantised to when they are loaded.
    pub weights: Option<String>,
    /// Whether stages that hold weights differently may make one route.
    pub mixes_precision: bool,
    /// What the founder decided for all.
    pub rules: RulesReport,
}

/// A network's rules, which nobody can change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulesReport {
    /// What every new member is granted.
    pub grant: Credits,
    /// How long a request may hold credits, in milliseconds.
    pub reservation_ms_max: u64,
    /// Name of a precision and the factor of its price, in thousandths.
    pub price_per_mille: Vec<(String, u32)>,
}

/// What shall change; the rest stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LimitsChange {
    /// As [`SettingsReport::threads`].
    pub threads: Option<u32>,
    /// As [`SettingsReport::bandwidth_bytes`]; 0 ends the limit.
    pub bandwidth_bytes: Option<u64>,
    /// Memory for weights and caches, in bytes. The part of the caches stays as it was at the start.
    pub memory_bytes: Option<u64>,
    /// As [`SettingsReport::hours`].
    pub hours: Option<Vec<String>>,
    /// As [`SettingsReport::when_idle`].
    pub when_idle: Option<bool>,
}

impl Api {
    /// How this node is set up.
    pub fn settings(&self) -> SettingsReport {
        let shared = &self.shared;
        let settings = &shared.settings;
        let limits = settings.limits().clone();
        let closed = shared.view.borrow().nodes.first().and_then(|me| me.closed);
        let Opening { hours, when_idle } = limits.opening();
        SettingsReport {
            threads: settings.pool.threads(),
            bandwidth_bytes: Some(limits.bandwidth).filter(|rate| *rate > 0),
            memory_bytes: MemoryShare::of(limits.memory_bytes, None).sum(),
            cache_bytes: settings.caches_bytes,
            hours: hours.iter().map(Hours::to_string).collect(),
            when_idle,
            closed: closed.map(|why| why.to_string()),
            sharing: sharing(settings.policy).into(),
            weights: settings.weights.map(|encoding| encoding.to_string()),
            mixes_precision: shared.mixes_precision,
            rules: shared.desk().read(|ledger| rules(ledger.policy())),
        }
    }

    /// Changes limits from now on, also after a restart that does not say otherwise.
    ///
    /// # Errors
    /// [`AdminError::Setting`] names what cannot be so; nothing is changed.
    pub async fn limit(&self, change: LimitsChange) -> Result<SettingsReport, AdminError> {
        let shared = &self.shared;
        let limits = {
            let mut held = shared.settings.limits();
            let limits = self.limited(&held, change)?;
            limits.keep(&shared.store)?;
            held.clone_from(&limits);
            limits
        };
        shared.settings.pool.resize(limits.threads());
        shared.settings.bandwidth.set_rate(limits.bandwidth);
        let reserved = shared.settings.caches_bytes + shared.settings.extra_bytes;
        let memory = MemoryShare::of(limits.memory_bytes, None).sum();
        let (opening, weights_bytes) = (limits.opening(), memory.saturating_sub(reserved));
        self.tell_hub(|done| HubInput::Limit { opening, weights_bytes, done }).await?;
        Ok(self.settings())
    }

    fn limited(&self, held: &Limits, change: LimitsChange) -> Result<Limits, AdminError> {
        let mut limits = held.clone();
        if let Some(bytes) = change.memory_bytes {
            let settings = &self.shared.settings;
            let reserved = settings.caches_bytes.saturating_add(settings.extra_bytes);
            if bytes <= reserved {
                let reason = format!(
                    "{bytes} bytes, expected more than the {reserved} that caches, adapters and drafts took \
                     at the start"
                );
                return Err(AdminError::Setting { name: "memory_bytes", reason });
            }
            limits.memory_bytes = Some(bytes);
        }
        if let Some(threads) = change.threads {
            if !(1..=THREADS_MAX).contains(&threads) {
                let reason = format!("{threads}, expected 1 to {THREADS_MAX}");
                return Err(AdminError::Setting { name: "threads", reason });
            }
            limits.threads = Some(threads);
        }
        if let Some(rate) = change.bandwidth_bytes {
            if (1..BANDWIDTH_BYTES_MIN).contains(&rate) {
                let reason = format!(
                    "{rate} bytes a second, expected at least {BANDWIDTH_BYTES_MIN}, or 0 for no limit"
                );
                return Err(AdminError::Setting { name: "bandwidth_bytes", reason });
            }
            limits.bandwidth = rate;
        }
        let mut opening = limits.opening();
        if let Some(hours) = change.hours {
            opening.hours = read_hours(&hours)?;
        }
        opening.when_idle = change.when_idle.unwrap_or(opening.when_idle);
        limits.open(&opening);
        Ok(limits)
    }

    /// How long whoever fetched so many bytes of a model for this node is to wait before the next ones.
    pub fn fetched(&self, bytes: u64) -> Duration {
        self.shared.settings.bandwidth.fetched(bytes)
    }

    /// What the models that this node knows are called.
    pub fn model_names(&self) -> Vec<String> {
        self.shared.models.all().iter().map(|known| known.name.clone()).collect()
    }

    /// Serves the model at `source` as `name` from now on, until the node stops. If it does so already, that model is
    /// woken if it rests.
    ///
    /// # Errors
    /// [`AdminError::Model`] if it cannot be opened, or there are too many.
    pub async fn serve(&self, name: String, source: ModelSource) -> Result<(), AdminError> {
        let shared = Arc::clone(&self.shared);
        let opened = spawn_blocking(move || {
            let kernels = Kernels::detect(Arc::clone(&shared.settings.pool));
            let choice = ModelChoice::here(name, source.clone());
            let known = KnownModel::open(&choice, source, shared.settings.weights, &kernels)?;
            let own =
                own_model(&known, gauge::bytes_per_second(&shared.settings.pool, Effort::GLANCE));
            Ok((Arc::new(known), Box::new(own)))
        });
        let opened = opened.await.expect("opening does not panic");
        let refused = |reason: String| AdminError::Model { reason };
        let (known, model) = opened.map_err(|error: StartError| refused(error.to_string()))?;
        let new = Arc::clone(&known);
        let known = self.shared.models.add(known).map_err(|found| {
            refused(format!("this node serves {found} models, the most that it can"))
        })?;
        if !Arc::ptr_eq(&known, &new) {
            return match (known.name == new.name, known.id == new.id) {
                (true, true) => self.rest(&known.name, false).await,
                (true, false) => {
                    Err(refused(format!("another model is called {} here", known.name)))
                }
                _ => Err(refused(format!("its weights are served already, as {}", known.name))),
            };
        }
        self.tell_hub(|done| HubInput::Serve { model, done }).await
    }

    /// Gives the layers of a model back and loads none of it, or ends that. Until the node starts again.
    ///
    /// # Errors
    /// [`AdminError::NoModel`] if nothing here is called so.
    pub async fn rest(&self, model: &str, rests: bool) -> Result<(), AdminError> {
        let shared = &self.shared;
        let Some(known) = shared.models.find(|known| known.name == model) else {
            let known = self.model_names();
            return Err(AdminError::NoModel { found: model.into(), known });
        };
        self.tell_hub(|done| HubInput::Rest { model: known.id, rests, done }).await
    }
}

fn read_hours(texts: &[String]) -> Result<Vec<Hours>, AdminError> {
    let wrong = |reason| AdminError::Setting { name: "hours", reason };
    if texts.len() > HOURS_MAX {
        return Err(wrong(format!("{} of them, expected at most {HOURS_MAX}", texts.len())));
    }
    let read = |text: &String| text.parse::<Hours>().map_err(|error| wrong(error.to_string()));
    texts.iter().map(read).collect()
}

fn sharing(policy: Policy) -> &'static str {
    match policy {
        Policy::Specialised => "specialised",
        Policy::Dynamic => "dynamic",
        Policy::Mixed => "mixed",
    }
}

fn rules(policy: &talka_ledger::Policy) -> RulesReport {
    let factors = policy.precision_per_mille;
    let named = [
        ("f32", factors.full),
        ("f16", factors.half),
        ("bf16", factors.brain),
        ("int8", factors.byte),
    ];
    RulesReport {
        grant: policy.grant,
        reservation_ms_max: policy.reservation_ms_max,
        price_per_mille: named.map(|(name, factor)| (name.to_owned(), factor)).to_vec(),
    }
}
