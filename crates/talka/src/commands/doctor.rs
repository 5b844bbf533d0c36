//! `talka doctor`: looks for what keeps Talka from working and says what to do about it.
//!
//! `gather` looks, `facts` is what it saw, `judge` says what that means. The one file it writes, to see whether it can,
//! it removes again.

mod facts;
mod gather;
mod judge;
mod route;

use crate::{
    cli::{DoctorAction, DoctorArgs, NodeAt},
    exit::Exit,
    output,
};
use anyhow::Result;
use judge::{Finding, Grade, judge};

pub async fn run(args: DoctorArgs) -> Result<Exit> {
    match args.action {
        Some(DoctorAction::Route { model }) => route::run(&args.at, &model).await,
        None => look(args.at).await,
    }
}

async fn look(at: NodeAt) -> Result<Exit> {
    let findings = judge(&gather::gather(&at).await?);
    if at.json {
        output::json(&findings)?;
    } else {
        findings.iter().try_for_each(print)?;
    }
    let failed = findings.iter().any(|finding| finding.grade == Grade::Failed);
    Ok(if failed { Exit::Failed } else { Exit::Done })
}

fn print(finding: &Finding) -> std::io::Result<()> {
    let grade = match finding.grade {
        Grade::Ok => "ok",
        Grade::Note => "note",
        Grade::Failed => "FAILED",
    };
    output::line(format!("{grade:<7} {:<8} {}", finding.check, finding.found))?;
    match &finding.advice {
        Some(advice) => output::line(format!("{:<16} to do: {advice}", "")),
        None => Ok(()),
    }
}
