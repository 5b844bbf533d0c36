//! Commands and flags about this node's member: its stake and its keys.

use super::NodeAt;
use crate::quantity;
use clap::{Args, Subcommand};
use std::{path::PathBuf, time::Duration};
use talka_node::{
    api::LOCK_DAYS_DEFAULT,
    base::{Credits, MemberId, NodeId},
};

#[derive(Debug, Args)]
pub struct MemberArgs {
    #[command(subcommand)]
    pub action: Option<MemberAction>,
    #[command(flatten)]
    pub at: NodeAt,
}

#[derive(Debug, Subcommand)]
pub enum MemberAction {
    /// Shows the stake, and which keys act for this node's member (the default)
    #[command(after_help = "Example: talka member show")]
    Show,
    /// Locks credits: they vouch for this node's member, and can be lost
    #[command(after_help = "Example: talka member stake 1000 --days 90")]
    Stake {
        /// How many credits, in GFT
        #[arg(value_name = "GFT", value_parser = quantity::credits)]
        credits: Credits,
        /// For how long all that is staked is locked at least
        #[arg(long, default_value_t = LOCK_DAYS_DEFAULT)]
        days: u16,
    },
    /// Has staked credits back, once they are not locked any more
    #[command(after_help = "Example: talka member unstake 1000")]
    Unstake {
        /// How many credits, in GFT
        #[arg(value_name = "GFT", value_parser = quantity::credits)]
        credits: Credits,
    },
    /// Makes a root key in a new file and prints its id; asks no node
    #[command(after_help = "Example: talka member key /media/stick/root.key")]
    Key {
        /// The file, which must not be there
        file: PathBuf,
    },
    /// Hands the account to a root key; from then on only nodes that it delegates to act for the member
    #[command(
        after_help = "Example: talka member root 8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c"
    )]
    Root {
        /// The id that `talka member key` printed
        key: MemberId,
        #[command(flatten)]
        by: Signing,
    },
    /// Lets a node act for the member for a while
    #[command(after_help = "Example: talka member delegate --for 30d --root /media/stick/root.key")]
    Delegate {
        /// The node [default: the one that is asked]
        node: Option<NodeId>,
        /// For how long: 24h, 30d; a year at most
        #[arg(long = "for", value_name = "TIME", value_parser = quantity::duration)]
        valid: Duration,
        #[command(flatten)]
        by: Signing,
    },
    /// Takes from a node what it was delegated
    #[command(
        after_help = "Example: talka member revoke 3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29 --root /media/stick/root.key"
    )]
    Revoke {
        /// The node
        node: NodeId,
        #[command(flatten)]
        by: Signing,
    },
    /// Signs an order that was printed elsewhere, and prints it; asks no node
    #[command(
        after_help = "Example: talka member sign order.json --root root.key > signed.json (on a computer that is never online)"
    )]
    Sign {
        /// What `talka member root`, `delegate` or `revoke` printed
        order: PathBuf,
        /// The file of the root key
        #[arg(long, value_name = "FILE")]
        root: PathBuf,
    },
    /// Passes on what a root key signed
    #[command(after_help = "Example: talka member submit signed.json")]
    Submit {
        /// What `talka member sign` printed
        order: PathBuf,
    },
}

/// Who signs an order about keys.
#[derive(Debug, Args)]
pub struct Signing {
    /// The file of the root key; it does not leave this computer. Without it the order is printed, to be
    /// signed by `talka member sign` where the key is
    #[arg(long, value_name = "FILE")]
    pub root: Option<PathBuf>,
}
