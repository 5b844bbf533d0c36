//! Commands and flags about what members decide together.

use super::NodeAt;
use crate::quantity;
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;
use talka_node::{
    api::{Action, Choice},
    base::{Credits, MemberId, ModelId, NodeId},
};

#[derive(Debug, Args)]
pub struct GovernArgs {
    #[command(subcommand)]
    pub action: Option<GovernAction>,
    #[command(flatten)]
    pub at: NodeAt,
}

#[derive(Debug, Subcommand)]
pub enum GovernAction {
    /// Lists what members proposed, the latest first (the default)
    #[command(after_help = "Example: talka govern list")]
    List,
    /// Proposes something to the members
    #[command(
        after_help = "Example: talka govern policy > p.json; (edit it); talka govern propose \"Less for newcomers\" --policy p.json\n         \
                      talka govern propose \"Four of us witness\" --witnesses NODE,NODE,NODE,NODE"
    )]
    Propose(Box<ProposeArgs>),
    /// Votes in the name of this node's member; a vote stands
    #[command(after_help = "Example: talka govern vote 5f0c yes")]
    Vote {
        /// Its id, or enough of its beginning
        proposal: String,
        /// How
        choice: VoteChoice,
    },
    /// Shows one proposal whole
    #[command(after_help = "Example: talka govern show 5f0c")]
    Show {
        /// Its id, or enough of its beginning
        proposal: String,
    },
    /// Prints the rules of money in force as JSON
    #[command(after_help = "Example: talka govern policy")]
    Policy,
}

#[derive(Debug, Args)]
pub struct ProposeArgs {
    /// What people read
    pub title: String,
    /// Vote for two days instead of a week, and at once
    #[arg(long)]
    pub emergency: bool,
    #[command(flatten)]
    pub what: ProposedAction,
}

/// What is done if it is approved.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct ProposedAction {
    /// Other rules of money: a file such as `talka govern policy` prints
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Take no requests for a model, by its id
    #[arg(long, value_name = "MODEL")]
    pub forbid: Option<ModelId>,
    /// Take requests for a model again
    #[arg(long, value_name = "MODEL")]
    pub allow: Option<ModelId>,
    /// Suspend a member: it keeps its credits, but asks for nothing and does not vote
    #[arg(long, value_name = "MEMBER")]
    pub suspend: Option<MemberId>,
    /// Let a suspended member act again
    #[arg(long, value_name = "MEMBER")]
    pub reinstate: Option<MemberId>,
    /// Take so much of a member's stake and held earnings, and burn it
    #[arg(long, value_name = "MEMBER=GFT", value_parser = penalty)]
    pub slash: Option<(MemberId, Credits)>,
    /// Have these nodes witness in place of those before: 1, 4, 7 and so on, of as many members; only where the rules'
    /// governance.appoints is true
    #[arg(long, value_name = "NODE,...", value_delimiter = ',')]
    pub witnesses: Option<Vec<NodeId>>,
}

impl ProposedAction {
    /// The action, where it needs no file.
    pub fn action(&self) -> Option<Action> {
        let model = |model: ModelId, is_allowed| Action::Model { model, is_allowed };
        let member = |member: MemberId, is_suspended| Action::Member { member, is_suspended };
        let slash = |(member, penalty)| Action::Slash { member, penalty, reporter: None };
        let witnesses = |mut witnesses: Vec<NodeId>| {
            witnesses.sort_unstable();
            Action::Witnesses { witnesses }
        };
        self.forbid
            .map(|id| model(id, false))
            .or_else(|| self.allow.map(|id| model(id, true)))
            .or_else(|| self.suspend.map(|id| member(id, true)))
            .or_else(|| self.reinstate.map(|id| member(id, false)))
            .or_else(|| self.slash.map(slash))
            .or_else(|| self.witnesses.clone().map(witnesses))
    }
}

fn penalty(text: &str) -> Result<(MemberId, Credits), String> {
    let (member, gft) = text.split_once('=').ok_or("expected MEMBER=GFT")?;
    let member = member.parse::<MemberId>().map_err(|e| e.to_string())?;
    Ok((member, quantity::credits(gft).map_err(|e| e.to_string())?))
}

/// How to vote.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum VoteChoice {
    /// For it
    Yes,
    /// Against it
    No,
    /// Neither; counts for the quorum
    Abstain,
}

impl From<VoteChoice> for Choice {
    fn from(choice: VoteChoice) -> Self {
        match choice {
            VoteChoice::Yes => Self::Yes,
            VoteChoice::No => Self::No,
            VoteChoice::Abstain => Self::Abstain,
        }
    }
}
