//! `/metrics`: what the node does, in numbers, for Prometheus and whatever reads its format.
//!
//! Decides names, units and labels. Labels are routes, statuses, kinds of faults, and names that this node's owner
//! gave or that its network has, of those a bounded number: they do not grow with requests. Never tells of a prompt,
//! an answer or a key. Who may read it: whoever may call the node.

pub mod http;
mod text;

use axum::{
    Extension, Router,
    extract::State,
    http::{HeaderName, header},
    routing::get,
};
use http::HttpCounts;
use std::{collections::BTreeMap, sync::Arc};
use talka_node::api::{Api, Counts, PeerReport, Status};
use text::{Decimal, Kind, Page};

/// Most nodes whose links are told one by one, those with the shortest way first.
const NODES_MAX: usize = 128;

/// The call.
pub fn routes() -> Router<Api> {
    Router::new().route("/metrics", get(metrics))
}

async fn metrics(
    State(api): State<Api>,
    Extension(http): Extension<Arc<HttpCounts>>,
) -> ([(HeaderName, &'static str); 1], String) {
    let status = api.status().await;
    let peers = api.peers().await;
    let mut page = Page::default();
    process(&mut page, &api, &status);
    http.tell(&mut page);
    answers(&mut page, &api, &status);
    models(&mut page, &status);
    credits(&mut page, &api, &status).await;
    network(&mut page, &status, peers);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page.into_text())
}

/// This process and what it has.
fn process(page: &mut Page, api: &Api, status: &Status) {
    let help = "Which Talka this is.";
    let mut build = page.family(Kind::Gauge, "talka_build_info", help);
    build.sample(&[("version", &status.version)], 1);
    let started = Decimal::thousandths(status.started_at.0);
    let help = "When it started, in seconds since 1970 UTC.";
    page.one(Kind::Gauge, "process_start_time_seconds", help, started);
    if let Some(bytes) = api.resident_bytes() {
        let help = "Memory that it takes.";
        page.one(Kind::Gauge, "process_resident_memory_bytes", help, bytes);
    }
    let cache = api.cache_use();
    let mut family = page.family(
        Kind::Gauge,
        "talka_cache_bytes",
        "Memory for caches: the most there may be, what answers under way may come to take, what is taken now.",
    );
    family.sample(&[("state", "most")], cache.most);
    family.sample(&[("state", "reserved")], cache.reserved);
    family.sample(&[("state", "taken")], cache.taken);
    let help = "How long layers computed here.";
    let busy = Decimal::thousandths(status.busy_ms);
    page.one(Kind::Counter, "talka_busy_seconds_total", help, busy);
    let help = "Bytes between this node and others, as payload of UDP.";
    let mut family = page.family(Kind::Counter, "talka_socket_bytes_total", help);
    family.sample(&[("direction", "sent")], status.socket_bytes_sent);
    family.sample(&[("direction", "received")], status.socket_bytes_received);
    let help = "Whether it gives no work to others.";
    page.one(Kind::Gauge, "talka_closed", help, u8::from(status.closed.is_some()));
}

/// What callers of this node got.
fn answers(page: &mut Page, api: &Api, status: &Status) {
    let counts = api.answer_counts();
    let help = "Requests for answers under way.";
    page.one(Kind::Gauge, "talka_requests_running", help, status.requests_running);
    let help = "As many of them this node admits at once.";
    page.one(Kind::Gauge, "talka_requests_max", help, api.requests_max());
    let help = "Requests that wait for their turn.";
    page.one(Kind::Gauge, "talka_requests_waiting", help, status.requests_waiting);
    let help = "Sequences that layers of this node hold, whoever asked.";
    page.one(Kind::Gauge, "talka_sessions_held", help, status.sessions_held);
    let help = "Answers that were begun, by how they ended.";
    let mut family = page.family(Kind::Counter, "talka_answers_total", help);
    family.sample(&[("end", "complete")], counts.complete);
    family.sample(&[("end", "failed")], counts.failed);
    family.sample(&[("end", "left")], counts.left);
    let help = "Tokens of prompts, of complete answers.";
    page.one(Kind::Counter, "talka_prompt_tokens_total", help, counts.prompt_tokens);
    let help = "Tokens of complete answers.";
    page.one(Kind::Counter, "talka_answer_tokens_total", help, counts.answer_tokens);
    let help = "Tokens chosen, of all answers, as they are said.";
    page.one(Kind::Counter, "talka_tokens_chosen_total", help, status.tokens_chosen);
    let help = "From a request to the first word of its answer.";
    page.histogram("talka_first_word_seconds", help, &counts.first_word_us, 6);
    let help = "How fast an answer's tokens followed its first one.";
    page.histogram("talka_answer_tokens_per_second", help, &counts.tokens_per_1000_s, 3);
    let help = "From a part of an answer being known to its being handed to the connection.";
    page.histogram("talka_handing_on_seconds", help, &counts.handing_on_us, 6);
    let mut family =
        page.family(Kind::Counter, "talka_upstream_asked_total", "Questions to services outside.");
    for upstream in &status.upstreams {
        family.sample(&[("upstream", &upstream.name)], upstream.asked);
    }
    let help = "Those that gave no answer, or none to the end.";
    let mut family = page.family(Kind::Counter, "talka_upstream_failed_total", help);
    for upstream in &status.upstreams {
        family.sample(&[("upstream", &upstream.name)], upstream.failed);
    }
}

fn models(page: &mut Page, status: &Status) {
    let help = "Whether live nodes serve all layers of a model.";
    let mut family = page.family(Kind::Gauge, "talka_model_complete", help);
    for model in &status.models {
        family.sample(&[("model", &model.name)], u8::from(model.complete));
    }
}

async fn credits(page: &mut Page, api: &Api, status: &Status) {
    let report = api.credits().await;
    let own = report.members.iter().find(|member| member.member == report.member);
    let help = "Credits of this node's member: free, and held for answers under way.";
    let mut family = page.family(Kind::Gauge, "talka_credits_gft", help);
    family.sample(&[("state", "free")], Decimal::millionths(report.balance.0));
    family.sample(&[("state", "reserved")], Decimal::millionths(report.reserved.0));
    if let Some(own) = own {
        let help = "Credits spent by this node's member.";
        let spent = Decimal::millionths(own.spent.0);
        page.one(Kind::Counter, "talka_credits_spent_gft_total", help, spent);
        let help = "Credits earned by this node's member.";
        let earned = Decimal::millionths(own.earned.0);
        page.one(Kind::Counter, "talka_credits_earned_gft_total", help, earned);
    }
    let help = "Entries of the ledger that are here.";
    page.one(Kind::Gauge, "talka_ledger_entries", help, status.ledger_height);
}

fn network(page: &mut Page, status: &Status, mut peers: Vec<PeerReport>) {
    let help = "Nodes of the network, this one included.";
    let mut family = page.family(Kind::Gauge, "talka_nodes", help);
    family.sample(&[("state", "alive")], status.nodes_alive);
    family.sample(&[("state", "known")], status.nodes_known);
    let mut faults = status.faults_of_strangers.clone();
    peers.iter().for_each(|peer| add(&mut faults, &peer.faults));
    let help = "What other nodes did wrong, by kind.";
    let mut family = page.family(Kind::Counter, "talka_faults_total", help);
    for (fault, count) in &faults {
        family.sample(&[("kind", fault.name())], count);
    }
    peers.retain(|peer| !peer.this && peer.alive);
    peers.sort_by_key(|peer| (peer.round_trip_us.unwrap_or(u32::MAX), peer.node));
    peers.truncate(NODES_MAX);
    let ids: BTreeMap<_, _> = peers.iter().map(|peer| (peer.node, peer.node.to_string())).collect();
    let help = "From this node to another one and back.";
    let mut family = page.family(Kind::Gauge, "talka_link_round_trip_seconds", help);
    for peer in &peers {
        if let Some(us) = peer.round_trip_us {
            family.sample(&[("node", &ids[&peer.node])], Decimal::millionths(us.into()));
        }
    }
    let help = "What goes between this node and another one, the slower way.";
    let mut family = page.family(Kind::Gauge, "talka_link_bytes_per_second", help);
    for peer in &peers {
        if let Some(bytes) = peer.link_bytes_per_second {
            family.sample(&[("node", &ids[&peer.node])], bytes);
        }
    }
}

fn add(sum: &mut Counts, more: &Counts) {
    for (fault, count) in more {
        let sum = sum.entry(*fault).or_default();
        *sum = sum.saturating_add(*count);
    }
}
