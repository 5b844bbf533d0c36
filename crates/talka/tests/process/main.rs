//! Real `talka` processes on this computer: what a user types and what comes back.
//!
//! Each test starts its own nodes in temporary data directories on free ports of 127.0.0.1. No test
//! asserts how long something takes; the harness gives up on what never happens.

mod alone;
mod asking;
mod backup;
mod beside;
mod clients;
mod collector;
mod container;
mod crash;
mod death;
mod dialects;
mod doctor;
mod epochs;
mod faults;
mod fetch;
mod forecast;
mod govern;
mod harness;
mod hub;
mod keys;
mod live;
mod member;
mod models;
mod ops;
mod owner;
mod parts;
mod payment;
mod proofs;
#[cfg(unix)]
mod pty;
mod refusals;
mod removal;
mod resume;
#[cfg(unix)]
mod service;
mod settings;
mod shelf;
mod survive;
#[cfg(unix)]
mod terminal;
mod together;
mod tools;
mod train;
mod train_together;
mod turns;
mod upstream;
mod witnesses;
