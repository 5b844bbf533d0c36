//! One `talka up` on this computer, for checks and measurements from outside.

use crate::cargo::tool;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};

/// Nobody waits longer for an answer that is not streamed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running node; killed, and its data removed, when dropped.
pub struct Node {
    /// Where it answers, such as `127.0.0.1:40123`.
    pub http: String,
    process: Child,
    place: PathBuf,
}

/// What came back.
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The body as text.
    pub body: String,
}

impl Node {
    /// `program up` with `arguments` on a fresh data directory at `place`, ready.
    ///
    /// # Errors
    /// If it does not say that it is ready; what it logged is in `log` beside the data.
    pub fn start(program: &Path, place: &Path, arguments: &[&str]) -> Result<Self> {
        if place.exists() {
            fs::remove_dir_all(place)?;
        }
        fs::create_dir_all(place)?;
        let log = fs::File::create(place.with_extension("log"))?;
        let mut command = tool(program);
        command.args(["up", "--http", "127.0.0.1:0", "--offline", "--data-dir"]).arg(place);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut process = command.spawn().context("cannot start talka")?;
        let output = process.stdout.take().context("its output is piped")?;
        let mut node = Self { http: String::new(), process, place: place.into() };
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let http = line.strip_prefix("ready http=http://").and_then(|rest| rest.split(' ').next());
        node.http = http.with_context(|| format!("the node did not start: {line:?}"))?.into();
        Ok(node)
    }

    /// Gets `path`, which must be there.
    ///
    /// # Errors
    /// If it is not answered with 200.
    pub fn get(&self, path: &str) -> Result<String> {
        let mut stream = self.send("GET", path, "")?;
        let mut text = Vec::new();
        stream.read_to_end(&mut text)?;
        let reply = parsed(&text)?;
        ensure!(reply.status == 200, "{path} answered {}: {}", reply.status, reply.body);
        Ok(reply.body)
    }

    /// The number of `sample` in `/metrics`.
    ///
    /// # Errors
    /// If there is none.
    pub fn metric(&self, sample: &str) -> Result<f64> {
        let page = self.get("/metrics")?;
        let line = page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        Ok(line.with_context(|| format!("no {sample}"))?.parse()?)
    }

    /// Begins to post `body` to `path`: what is read from the stream is the whole answer, head included.
    ///
    /// # Errors
    /// If the node does not listen.
    pub fn post(&self, path: &str, body: &Value) -> Result<TcpStream> {
        self.send("POST", path, &body.to_string())
    }

    fn send(&self, method: &str, path: &str, body: &str) -> Result<TcpStream> {
        let mut stream = TcpStream::connect(&self.http)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.http,
            body.len()
        )?;
        Ok(stream)
    }
}

/// An answer that was read to its end. Bodies in chunks are left as they came.
fn parsed(text: &[u8]) -> Result<Reply> {
    let text = String::from_utf8_lossy(text);
    let (head, body) = text.split_once("\r\n\r\n").context("an answer without a head")?;
    let status = head.split(' ').nth(1).context("an answer without a status")?.parse()?;
    Ok(Reply { status, body: body.into() })
}

impl Drop for Node {
    fn drop(&mut self) {
        // One that ended by itself needs no killing.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_a_status_and_a_body() {
        let reply = parsed(b"HTTP/1.1 404 Not Found\r\na: b\r\n\r\n{}").expect("an answer");
        assert_eq!((reply.status, reply.body.as_str()), (404, "{}"));
        assert!(parsed(b"HTTP/1.1 200 OK\r\n").is_err());
    }
}
