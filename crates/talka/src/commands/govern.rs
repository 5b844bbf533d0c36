//! `talka govern`: what members decide together.

use crate::{
    cli::{GovernAction, GovernArgs, ProposeArgs, ProposedAction},
    client::Client,
    exit::Exit,
    output::{self, Table},
    quantity,
};
use anyhow::{Context, Result, bail};
use std::{fs, path::Path};
use talka_node::{
    api::{Action, LedgerPolicy, ProposalOrder, ProposalReport, Stage},
    base::Tick,
};

pub async fn run(args: GovernArgs) -> Result<Exit> {
    let client = Client::find(&args.at)?;
    let json = args.at.json;
    match args.action.unwrap_or(GovernAction::List) {
        GovernAction::List => list(&client.proposals().await?, json)?,
        GovernAction::Propose(order) => one(&client.propose(&proposed(*order)?).await?, json)?,
        GovernAction::Vote { proposal, choice } => {
            let proposal = find(client.proposals().await?, &proposal)?.id;
            one(&client.vote(&proposal, choice.into()).await?, json)?;
        }
        GovernAction::Show { proposal } => {
            one(&find(client.proposals().await?, &proposal)?, json)?;
        }
        // People who want it edit it: it is JSON for them too.
        GovernAction::Policy => output::json(&client.policy().await?)?,
    }
    Ok(Exit::Done)
}

fn proposed(args: ProposeArgs) -> Result<ProposalOrder> {
    let action = match (&args.what, args.what.action()) {
        (_, Some(action)) => action,
        (ProposedAction { policy: Some(path), .. }, None) => {
            Action::Parameters(Box::new(policy_in(path)?))
        }
        (_, None) => bail!("nothing is proposed"),
    };
    Ok(ProposalOrder { title: args.title, is_emergency: args.emergency, action })
}

/// The rules that a file holds, such as `talka govern policy` prints.
pub fn policy_in(path: &Path) -> Result<LedgerPolicy> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| format!("{} is no policy", path.display()))
}

/// The proposal whose id begins so.
fn find(proposals: Vec<ProposalReport>, beginning: &str) -> Result<ProposalReport> {
    let beginning = beginning.to_lowercase();
    let mut found = proposals.into_iter().filter(|p| p.id.to_string().starts_with(&beginning));
    match (found.next(), found.next()) {
        (Some(proposal), None) => Ok(proposal),
        (None, _) => bail!("no proposal begins with {beginning:?}; see `talka govern list`"),
        (Some(_), Some(_)) => bail!("several proposals begin with {beginning:?}: say more of it"),
    }
}

fn list(proposals: &[ProposalReport], json: bool) -> Result<()> {
    if json {
        return Ok(output::json(proposals)?);
    }
    let mut table =
        Table::new(["ID", "TITLE", "BY", "WHAT", "STAGE", "YES", "NO", "ABSTAIN", "OF", "VOTED"]);
    for proposal in proposals {
        table.row([
            proposal.id.short(),
            proposal.title.clone(),
            proposal.member_name.clone(),
            proposal.action.kind().into(),
            stage(proposal, quantity::now()),
            proposal.votes.yes.to_string(),
            proposal.votes.no.to_string(),
            proposal.votes.abstain.to_string(),
            proposal.electorate.to_string(),
            proposal.voted.map(|choice| format!("{choice:?}").to_lowercase()).unwrap_or_default(),
        ]);
    }
    Ok(table.print()?)
}

/// Where it stands, and how long still.
fn stage(proposal: &ProposalReport, now: Tick) -> String {
    let until = |at: Tick| quantity::show_ms(at.since_ms(now));
    match proposal.stage {
        Stage::Review => format!("review, {} to the vote", until(proposal.voting_from)),
        Stage::Voting => format!("voting, {} left", until(proposal.voting_until)),
        Stage::Approved => format!("approved, in force in {}", until(proposal.decided_at)),
        Stage::Rejected => "rejected".into(),
        Stage::Enacted => "enacted".into(),
    }
}

fn one(proposal: &ProposalReport, json: bool) -> Result<()> {
    if json {
        return Ok(output::json(proposal)?);
    }
    let ProposalReport { id, title, member_name, votes, electorate, .. } = proposal;
    output::line(format!("{id}"))?;
    output::line(format!("{title}, by {member_name}: {}", stage(proposal, quantity::now())))?;
    let (yes, no, abstain) = (votes.yes, votes.no, votes.abstain);
    output::line(format!("yes {yes}, no {no}, abstain {abstain} of {electorate}"))?;
    Ok(output::line(serde_json::to_string_pretty(&proposal.action)?)?)
}
