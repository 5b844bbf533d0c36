//! `talka run`: continues a text.

use super::requests::{self, COMPLETIONS};
use crate::{cli::RunArgs, client::Client, exit::Exit, output};
use anyhow::Result;
use serde_json::Value;

pub async fn run(args: RunArgs) -> Result<Exit> {
    let client = Client::find(&args.at)?;
    let picked = client.pick(args.sampling.model.as_deref()).await?;
    let mut body = requests::body(&picked, &args.sampling);
    body["prompt"] = args.prompt.into();
    if args.at.json {
        let document: Value = client.complete(COMPLETIONS, &body).await?;
        output::json(&document)?;
        return Ok(Exit::Done);
    }
    body["stream"] = true.into();
    let mut answer = client.stream(COMPLETIONS, &body).await?;
    while let Some(text) = answer.next().await? {
        output::text_now(&text)?;
    }
    if output::watched() {
        // The shell's next prompt belongs on its own line; a pipe gets the text and nothing else.
        output::line("")?;
    }
    Ok(Exit::Done)
}
