//! Asking what joining a network would come to, and answering somebody who asks.
//!
//! The guest measures itself and its link to the inviter, asks for the network's [`Outlook`] and reckons the rest
//! alone ([`core::forecast`](crate::core::forecast)). Nothing is kept: it shows a key that it forgets, opens no store,
//! and what it is told of the network ends with the answer.

use super::{
    Shared,
    fetch::FetchError,
    gauge::{self, Effort},
    hub::HubInput,
    join::{check_network, exchange, invites},
    links, meter,
    models::KnownModel,
    now,
    open::{open_models, own_model, parse_invite},
    random,
    settings::Limits,
};
use crate::{
    api::{AdminError, ForecastReport, ModelForecastReport, StageReport, WayReport},
    config::{MemoryShare, ModelChoice, NodeConfig, StartError},
    core::{
        Core, OwnModel,
        forecast::{Forecast, Way, held_bytes},
        frames::far_bytes,
    },
    wire::{
        Control, Grade,
        outlook::{ModelOutlook, Outlook, OutlookRequest},
    },
};
use std::{
    net::SocketAddr,
    sync::{Arc, PoisonError},
};
use talka_base::{Keypair, ModelShape, NodeId};
use talka_engine::kernels::{Kernels, ThreadPool};
use talka_net::{BindOptions, Endpoint, Invite, Lane, LinkSender};
use tokio::{sync::oneshot, task::spawn_blocking};

/// Tells a guest what the network has and does, or why not.
pub(crate) async fn host(
    shared: &Arc<Shared>,
    guest: NodeId,
    request: &OutlookRequest,
    sender: &LinkSender,
) {
    match outlook(shared, guest, request).await {
        Ok(outlook) => {
            let message = Control::Outlook(Box::new(outlook)).to_bytes();
            let _ = sender.send(Lane::Control, message).await;
            links::await_end(sender, "asked and answered").await;
        }
        Err(reason) => {
            tracing::warn!(guest = %guest.short(), reason, "refused to show the network");
            links::refuse(sender, &reason).await;
        }
    }
}

async fn outlook(
    shared: &Shared,
    guest: NodeId,
    request: &OutlookRequest,
) -> Result<Outlook, String> {
    let desk = shared.desk();
    check_network(desk.network(), request.network)?;
    {
        let _turn = shared.invites.lock().unwrap_or_else(PoisonError::into_inner);
        let book = invites(shared).map_err(|error| error.to_string())?;
        book.check(&request.secret, guest, now()).map_err(|error| error.to_string())?;
    }
    let (answer, asked) = oneshot::channel();
    let stopping = "this node is stopping";
    shared.hub.send(HubInput::Outlook { answer }).await.map_err(|_| stopping)?;
    let nodes = asked.await.map_err(|_| stopping)?;
    let model = |known: &Arc<KnownModel>| {
        let shape = *known.model.shape();
        let bytes = known.model.span_bytes(shape.span());
        ModelOutlook { id: known.id, name: known.name.clone(), shape, bytes, grade: known.grade }
    };
    let policy = desk.read(|ledger| ledger.policy().clone());
    Ok(Outlook::new(policy, shared.models.all().iter().map(model).collect(), nodes))
}

/// What a node with `config` would come to if it joined the network of its invitation.
///
/// # Errors
/// As [`Node::start`](super::Node::start) for the models, and as joining for the invitation.
pub(crate) async fn forecast(config: NodeConfig) -> Result<ForecastReport, StartError> {
    let invite = parse_invite(config.join.as_deref().unwrap_or_default())?;
    let unusable = |error: talka_net::InviteError| AdminError::Invite { reason: error.to_string() };
    invite.check_expiry(now()).map_err(unusable)?;
    let keys = Keypair::from_secret(&random());
    let me = NodeId(keys.public());
    let endpoint = bind(&config, keys).await?;
    let asked = ask(&endpoint, &invite).await;
    endpoint.close().await;
    let (outlook, round_trip_us) = asked?;
    let guest =
        spawn_blocking(move || Guest::measure(config, me, &outlook.models).map(|g| (g, outlook)));
    let (guest, outlook) = guest.await.expect("measuring does not panic")?;
    Ok(guest.report(&invite, outlook, round_trip_us))
}

/// A free port, and nothing asked of the router: it is for one question.
async fn bind(config: &NodeConfig, keys: Keypair) -> Result<Endpoint, StartError> {
    let mut options = BindOptions { port_mapping: false, ..BindOptions::everywhere(keys, 0) };
    if let Some(address) = config.p2p_address {
        options.addresses = vec![SocketAddr::new(address.ip(), 0)];
    }
    Ok(Endpoint::bind(options).await?)
}

/// The inviter's answer, and microseconds to it and back.
async fn ask(endpoint: &Endpoint, invite: &Invite) -> Result<(Outlook, u32), AdminError> {
    let inviter = invite.inviter;
    let unreachable = |reason: String| AdminError::Unreachable { inviter, reason };
    let link = endpoint.connect(inviter, &invite.addresses).await;
    let (sender, mut receiver) = link.map_err(|e| unreachable(e.to_string()))?.split();
    let request = OutlookRequest { network: invite.network, secret: invite.secret.0 };
    let answer = exchange(&sender, &mut receiver, &Control::Look(request)).await;
    let round_trip = sender.round_trip();
    sender.close("asked");
    let outlook = match answer.map_err(unreachable)? {
        Control::Outlook(outlook) => *outlook,
        Control::Refused { reason } => return Err(AdminError::Invite { reason }),
        _ => return Err(unreachable("it answered with something else".into())),
    };
    let round_trip = round_trip.ok_or_else(|| unreachable("the link ended at once".into()))?;
    Ok((outlook, u32::try_from(round_trip.as_micros()).unwrap_or(u32::MAX)))
}

/// What would join, measured.
struct Guest {
    config: NodeConfig,
    me: NodeId,
    weights_bytes: u64,
    bytes_per_second: f64,
    models: Vec<GuestModel>,
}

struct GuestModel {
    own: OwnModel,
    shape: ModelShape,
    /// A layer of it was run.
    is_measured: bool,
}

impl Guest {
    /// Opens the models whose files are here and runs a layer of each; of the others the network said what they are.
    fn measure(config: NodeConfig, me: NodeId, told: &[ModelOutlook]) -> Result<Self, StartError> {
        let kernels =
            Kernels::detect(ThreadPool::new(Limits::default().unless_told(&config).threads()));
        let opened = open_models(&config, &kernels)?;
        let bytes_per_second = gauge::bytes_per_second(kernels.pool(), Effort::GLANCE);
        let extra: u64 = opened.iter().flatten().map(|known| known.extra_bytes()).sum();
        let memory = MemoryShare::of(config.memory_bytes, config.cache_bytes);
        let mut models = Vec::with_capacity(opened.len());
        for (choice, known) in config.models.iter().zip(&opened) {
            models.push(match known {
                Some(known) => GuestModel::here(known, &kernels, bytes_per_second),
                None => GuestModel::elsewhere(choice, &config, told, bytes_per_second)?,
            });
        }
        models[0].own.is_core = true;
        let weights_bytes = memory.weights.saturating_sub(extra);
        Ok(Self { config, me, weights_bytes, bytes_per_second, models })
    }

    fn report(self, invite: &Invite, outlook: Outlook, round_trip_us: u32) -> ForecastReport {
        let Outlook { policy, nodes, nodes_left_out, .. } = outlook;
        let mut names: Vec<(NodeId, String)> =
            nodes.iter().map(|(node, heartbeat)| (*node, heartbeat.name.clone())).collect();
        names.push((self.me, self.config.name.clone()));
        let own = self.models.iter().map(|model| model.own.clone()).collect();
        let (name, residency) = (self.config.name.clone(), self.config.policy);
        let core = Core::new(self.me, name, self.weights_bytes, residency, own)
            .mixing(self.config.mixes_precision)
            .visiting(now(), nodes, (invite.inviter, round_trip_us));
        let models = self.models.iter().filter_map(|model| {
            let GuestModel { own, shape, .. } = model;
            let forecast = core.forecast(own.id, shape, &policy, invite.inviter)?;
            Some(model.report(forecast, &names))
        });
        ForecastReport {
            network: invite.network,
            network_name: invite.network_name.clone(),
            inviter: invite.inviter,
            inviter_name: name_of(&names, invite.inviter),
            round_trip_us,
            nodes: names.len() - 1,
            nodes_left_out,
            memory_bytes: self.weights_bytes,
            read_bytes_per_s: self.bytes_per_second as u64,
            models: models.collect(),
        }
    }
}

impl GuestModel {
    fn here(known: &KnownModel, kernels: &Kernels, bytes_per_second: f64) -> Self {
        let mut own = own_model(known, bytes_per_second);
        let layer_us = known.try_layer(kernels, bytes_per_second);
        own.layer_us = layer_us.unwrap_or(own.layer_us);
        Self { own, shape: *known.model.shape(), is_measured: layer_us.is_some() }
    }

    /// A model that would be fetched from the others.
    fn elsewhere(
        choice: &ModelChoice,
        config: &NodeConfig,
        told: &[ModelOutlook],
        bytes_per_second: f64,
    ) -> Result<Self, StartError> {
        let name = choice.name.clone();
        let Some(model) = told.iter().find(|model| model.name == name) else {
            let reasons = "the inviter does not have it".into();
            let source = Box::new(FetchError::Nobody { reasons });
            return Err(StartError::Fetch { name, source });
        };
        let shape = model.shape;
        if let Some(span) = choice.span.filter(|span| span.end() > shape.layers) {
            return Err(StartError::NoSuchLayers { name, layers: shape.layers, span });
        }
        let grade = Grade::of(shape.precision, config.weights);
        let bytes = held_bytes(model.bytes, shape.precision, model.grade, grade);
        let layer_bytes = bytes / u64::from(shape.layers);
        let layers = choice.span.map_or(shape.layers, |span| span.len());
        let own = OwnModel {
            grade,
            frame_bytes: far_bytes(&shape),
            is_core: choice.span.is_some(),
            pinned: choice.span,
            bytes: layer_bytes * u64::from(layers),
            layer_us: meter::read_us(layer_bytes, bytes_per_second),
            ..OwnModel::new(model.id, name, shape.layers, layer_bytes)
        };
        Ok(Self { own, shape, is_measured: false })
    }

    fn report(&self, forecast: Forecast, names: &[(NodeId, String)]) -> ModelForecastReport {
        let way = |way: Way| WayReport {
            hops: way.hops.iter().map(|hop| stage(hop.node, hop.span, names)).collect(),
            token_us: way.us,
            tokens_per_s: 1e6 / way.us as f64,
            link_bytes: way.link_bytes,
        };
        let layers: u32 = forecast.spans.iter().map(|span| span.len()).sum();
        ModelForecastReport {
            model: self.own.name.clone(),
            layers: self.own.layers,
            layer_us: self.own.layer_us,
            layer_measured: self.is_measured,
            serves: forecast.spans,
            bytes: self.own.layer_bytes * u64::from(layers),
            missing: forecast.missing,
            alone: forecast.alone.map(way),
            together: forecast.together.map(way),
            before: forecast.before.map(way),
            after: forecast.after.map(way),
            credits_per_hour: forecast.credits_per_hour,
        }
    }
}

fn stage(node: NodeId, span: talka_base::LayerSpan, names: &[(NodeId, String)]) -> StageReport {
    StageReport { node, name: name_of(names, node), span }
}

fn name_of(names: &[(NodeId, String)], node: NodeId) -> String {
    let known = names.iter().find(|(other, _)| *other == node);
    known.map_or_else(|| node.short(), |(_, name)| name.clone())
}
