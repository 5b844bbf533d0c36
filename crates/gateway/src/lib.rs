//! HTTP for people and programs: OpenAI's and Anthropic's APIs, the administration calls, one page.
//!
//! Decides what a request must look like, who may ask, and which status and JSON an answer wears.
//! Never decides who is paid, who computes or what is true: every answer comes from
//! [`talka_node::api`], the only door used here. Sends nothing to any other host.
//!
//! Rooms: [`openai`] and [`anthropic`] `/v1`, [`admin`] and [`keys`] `/api` (its changes as they happen in `live`,
//! models on the disk in `shelf`, jobs in `training`), [`dashboard`] `/`, [`auth`], [`entrance`] and [`login`] who may ask, [`error`] the
//! one table from errors to statuses, [`fields`] JSON objects read by name, [`asking`], [`functions`], [`blocks`] and
//! [`answering`] what the dialects have in common, `watch` what holds for every request, `health` and [`metrics`] what
//! watches a node from outside, `openapi` all of it as a document.

pub mod admin;
pub mod answering;
pub mod anthropic;
pub mod asking;
pub mod auth;
pub mod blocks;
pub mod cors;
pub mod dashboard;
pub mod entrance;
pub mod error;
pub mod fields;
pub mod functions;
pub mod govern;
mod health;
pub mod keys;
mod listen;
mod live;
pub mod login;
pub mod member;
pub mod metrics;
pub mod openai;
mod openapi;
mod patience;
mod server;
mod shelf;
#[cfg(test)]
mod test_generation;
pub mod tls;
mod training;
mod watch;

pub use auth::{ApiKey, BindRefused, KeyError, check_bind};
pub use cors::{Origin, OriginError};
pub use listen::{Limits, STOPPING_MAX};
pub use login::{LoginLink, Logins};
pub use server::{GatewayConfig, serve};
pub use shelf::{Doing, Progress, PullReport, PullState, Shelf, ShelfError, ShelfModel};
pub use tls::{Tls, TlsError};
