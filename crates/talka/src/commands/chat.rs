//! `talka chat`: a conversation on the terminal, or on pipes.
//!
//! Keeps the conversation here; the node keeps none. When it outgrows the model's context, the
//! oldest turns are left out, and the user is told.

use super::requests::{self, CHAT_COMPLETIONS};
use crate::{
    cli::ChatArgs,
    client::{Client, ClientError},
    exit::{Exit, explain},
    output,
};
use anyhow::Result;
use serde::Serialize;
use serde_json::{Value, json};
use std::io::{self, BufRead, IsTerminal};
use tokio::{signal, sync::mpsc};

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Message {
    role: &'static str,
    content: String,
}

/// What was said so far. Turns alternate: user, assistant, user, ...
#[derive(Debug, Default)]
struct Conversation {
    system: Option<Message>,
    turns: Vec<Message>,
}

impl Conversation {
    fn new(system: Option<String>) -> Self {
        let system = system.map(|content| Message { role: "system", content });
        Self { system, turns: Vec::new() }
    }

    fn messages(&self) -> Vec<&Message> {
        self.system.iter().chain(&self.turns).collect()
    }

    fn say(&mut self, content: String) {
        self.turns.push(Message { role: "user", content });
    }

    /// What the model answered; what came before an interruption counts as its answer.
    fn answered(&mut self, content: String) {
        self.turns.push(Message { role: "assistant", content });
    }

    /// Takes back what was just said, since it got no answer.
    fn unsay(&mut self) {
        self.turns.pop();
    }

    /// Leaves out the oldest question and its answer; false if only the newest question is left.
    fn forget_oldest(&mut self) -> bool {
        let more = self.turns.len() >= 3;
        if more {
            self.turns.drain(..2);
        }
        more
    }
}

/// Everything a turn needs but what is said.
struct Chat {
    client: Client,
    /// Model and sampling, as every request of this conversation has them.
    body: Value,
    /// Show answers as they come; otherwise only the last document is printed.
    stream: bool,
}

pub async fn run(args: ChatArgs) -> Result<Exit> {
    let client = Client::find(&args.at)?;
    let picked = client.pick(args.sampling.model.as_deref()).await?;
    let body = requests::body(&picked, &args.sampling);
    let chat = Chat { client, body, stream: !args.at.json };
    let mut conversation = Conversation::new(args.system);
    let person = io::stdin().is_terminal();
    if person {
        eprintln!("Talking to {}. /exit or Ctrl-D ends, Ctrl-C stops an answer.", picked.name);
    }
    let mut lines = stdin_lines();
    while let Some(line) = next_line(&mut lines, person).await? {
        match line.trim() {
            "" => {}
            "/exit" => break,
            said => {
                conversation.say(said.to_owned());
                match chat.turn(&mut conversation).await {
                    Ok(answer) => conversation.answered(answer),
                    Err(error) if person => {
                        conversation.unsay();
                        eprintln!("error: {}", explain(&error));
                    }
                    Err(error) => return Err(error),
                }
            }
        }
    }
    if args.at.json {
        output::json(&json!({ "model": picked.name, "messages": conversation.messages() }))?;
    }
    Ok(Exit::Done)
}

impl Chat {
    /// The answer to the newest message, shown as it comes.
    async fn turn(&self, conversation: &mut Conversation) -> Result<String> {
        loop {
            match self.ask(conversation).await {
                Err(error) if too_long(&error) && conversation.forget_oldest() => {
                    eprintln!(
                        "(the conversation outgrew the model's context; its oldest turn is left out)"
                    );
                }
                answer => return answer,
            }
        }
    }

    async fn ask(&self, conversation: &Conversation) -> Result<String> {
        let mut body = self.body.clone();
        body["messages"] = serde_json::to_value(conversation.messages())?;
        body["stream"] = true.into();
        let mut stopped = std::pin::pin!(signal::ctrl_c());
        let mut text = String::new();
        let mut answer = tokio::select! {
            answer = self.client.stream(CHAT_COMPLETIONS, &body) => answer?,
            _ = &mut stopped => return Ok(text),
        };
        loop {
            let piece = tokio::select! {
                piece = answer.next() => piece?,
                _ = &mut stopped => None,
            };
            let Some(piece) = piece else { break };
            text.push_str(&piece);
            if self.stream {
                output::text_now(&piece)?;
            }
        }
        if self.stream {
            output::line("")?;
        }
        Ok(text)
    }
}

fn too_long(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref(),
        Some(ClientError::Answered { code: Some(code), .. }) if code == "context_length_exceeded"
    )
}

/// The next line, or `None` at the end of input or at Ctrl-C while waiting for one.
async fn next_line(
    lines: &mut mpsc::Receiver<io::Result<String>>,
    person: bool,
) -> Result<Option<String>> {
    if person {
        output::text_now("> ")?;
    }
    let line = tokio::select! {
        line = lines.recv() => line.transpose()?,
        _ = signal::ctrl_c() => None,
    };
    if person && line.is_none() {
        output::line("")?;
    }
    Ok(line)
}

/// Standard input, line by line. A thread of its own: a read of a terminal cannot be cancelled, and
/// must not keep the program from ending.
fn stdin_lines() -> mpsc::Receiver<io::Result<String>> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_turns_go_first_and_the_newest_question_stays() {
        let mut conversation = Conversation::new(Some("be brief".into()));
        for (question, answer) in [("a", "A"), ("b", "B")] {
            conversation.say(question.into());
            conversation.answered(answer.into());
        }
        conversation.say("c".into());
        let said = |c: &Conversation| {
            c.messages().iter().map(|m| m.content.clone()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(said(&conversation), "be brief a A b B c");
        assert!(conversation.forget_oldest());
        assert_eq!(said(&conversation), "be brief b B c");
        assert!(conversation.forget_oldest());
        assert!(!conversation.forget_oldest());
        assert_eq!(said(&conversation), "be brief c");
        conversation.unsay();
        assert_eq!(said(&conversation), "be brief");
    }
}
