//! Whole models against what others computed for them: the transformers library for the tiny models of
//! `fixtures/reference`, and golden continuations of real ones.
//!
//! One program, so that it links once. How to add a family: put its folder under
//! `fixtures/reference` and its name into `reference::FAMILIES`.

mod damage;
mod golden;
mod reference;
mod support;
