//! `talka ledger verify` of a file: needs no node, and nothing of this computer's.

use crate::{cli::VerifyArgs, output};
use anyhow::{Context, Result, ensure};
use std::{fs, path::Path};
use talka_node::{
    api::{ConsistentReport, ProvedReport, Trust, check_consistency, check_evidence, check_proof},
    base::NodeId,
};

/// Checks the file that is named. Says whether one was.
pub fn run(args: &VerifyArgs, json: bool) -> Result<bool> {
    let checkpoint = args.checkpoint.as_deref().map(read).transpose()?;
    let (founder, witnesses) = (args.founder, args.witnesses.as_slice());
    let trust = Trust { checkpoint: checkpoint.as_deref(), founder, witnesses };
    let what = &args.what;
    if let Some(file) = &what.proof {
        proof(&read(file)?, trust, json)?;
    } else if let Some(file) = &what.consistency {
        consistency(&read(file)?, trust, json)?;
    } else if let Some(file) = &what.evidence {
        let accused = founder.context("expected the accused with --founder")?;
        evidence(&read(file)?, accused, json)?;
    } else {
        return Ok(false);
    }
    Ok(true)
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

fn proof(proof: &[u8], trust: Trust<'_>, json: bool) -> Result<()> {
    ensure!(
        trust.checkpoint.is_some() || trust.founder.is_some(),
        "a proof needs something to believe: name the founder's key with --founder, or a checkpoint \
         with --checkpoint"
    );
    let report = check_proof(proof, trust)?;
    if json {
        return Ok(output::json(&report)?);
    }
    let ProvedReport { claim, network, size, block, signature_checked, cosignatures, .. } = &report;
    let basis = basis(*signature_checked, *cosignatures, trust);
    output::line(format!("holds: {claim}"))?;
    output::line(format!(
        "in the log of network {network}, {size} entries, block {block}, {basis}"
    ))?;
    Ok(())
}

fn consistency(proof: &[u8], trust: Trust<'_>, json: bool) -> Result<()> {
    let old = trust.checkpoint.context("expected the older checkpoint with --checkpoint")?;
    let report = check_consistency(proof, old, trust)?;
    if json {
        return Ok(output::json(&report)?);
    }
    let ConsistentReport { network, old, size, signature_checked, cosignatures } = &report;
    let basis = basis(*signature_checked, *cosignatures, trust);
    output::line(format!(
        "holds: the log of {size} entries begins with all {old} of the older one"
    ))?;
    output::line(format!("in the log of network {network}, {basis}"))?;
    Ok(())
}

fn evidence(evidence: &[u8], accused: NodeId, json: bool) -> Result<()> {
    let report = check_evidence(evidence, accused)?;
    if json {
        return Ok(output::json(&report)?);
    }
    output::line(format!("holds: {accused} signed {}", report.claim))?;
    output::line(format!("of the ledger of network {}", report.network))?;
    Ok(())
}

/// What the answer rests on, for people.
fn basis(signature_checked: bool, cosignatures: usize, trust: Trust<'_>) -> String {
    let signed = if signature_checked { "signed by the founder" } else { "given as right" };
    match trust.witnesses.len() {
        0 => signed.to_owned(),
        all => format!("{signed}, cosigned by {cosignatures} of {all} witnesses"),
    }
}
