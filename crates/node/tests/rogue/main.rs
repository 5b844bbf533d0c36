//! Nodes that break the rules, and a node that survives them, counts what they do and names them.
//!
//! The node is a whole one; the rogue is an endpoint of `talka-net` that says what it likes. Nothing here is
//! timed: a test waits until a fault is counted.

#![allow(missing_docs, reason = "a test binary")]

#[path = "../common/mod.rs"]
mod common;
mod founder;
mod frames;
mod head;
mod last;
mod rogue;
