//! Starts nodes, asks them, waits for them, and ends them however a test ends.

use serde_json::{Value, json};
use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read, Seek, Write},
    net::{SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{OnceLock, mpsc},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// When the harness gives up on what should long have happened. No test depends on its length.
const PATIENCE: Duration = Duration::from_secs(180);

/// The `talka` program with no setting of the person who runs the tests.
pub fn talka(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_talka"));
    command.args(args).stdin(Stdio::null());
    for name in ["TALKA_API_KEY", "TALKA_DATA_DIR", "TALKA_LOG", "HF_ENDPOINT", "HF_TOKEN"] {
        command.env_remove(name);
    }
    // No test reaches beyond this computer, or reads the token of whoever runs it.
    command.env("HF_HUB_OFFLINE", "1").env("HF_TOKEN_PATH", "");
    command.env("HF_HOME", "/nonexistent");
    command
}

/// What a finished program said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Said {
    /// Standard output of a command that did what was asked.
    #[track_caller]
    pub fn done(self) -> String {
        assert_eq!(self.code, 0, "{self:#?}");
        self.stdout
    }

    /// The one JSON document of a command that did what was asked.
    #[track_caller]
    pub fn json(self) -> Value {
        let stdout = self.done();
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"))
    }

    /// A command that failed with `code`, printed no answer and named each of `words`.
    #[track_caller]
    pub fn refused(self, code: i32, words: &[&str]) {
        assert_eq!((self.code, self.stdout.as_str()), (code, ""), "{self:#?}");
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is missing: {self:#?}");
        }
    }
}

/// Runs `command` to its end with `input` on standard input.
#[track_caller]
pub fn finish(command: &mut Command, input: &str) -> Said {
    // Files, not pipes: nobody need read while the program runs.
    let [stdout, stderr] = [(), ()].map(|()| tempfile::tempfile().expect("temporary file"));
    let copy = |file: &File| file.try_clone().expect("a second handle");
    command.stdin(Stdio::piped()).stdout(copy(&stdout)).stderr(copy(&stderr));
    let mut child = command.spawn().expect("talka starts");
    let mut stdin = child.stdin.take().expect("standard input is piped");
    // A program that refuses its arguments ends without reading.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let ended = poll(|| child.try_wait().expect("the process can be asked"));
    if ended.is_none() {
        child.kill().expect("the process can be killed");
    }
    let code = ended.and_then(|status| status.code()).unwrap_or(-1);
    let said = Said { code, stdout: text_of(stdout), stderr: text_of(stderr) };
    assert!(ended.is_some(), "does not end: {command:?}: {said:#?}");
    said
}

fn text_of(mut file: File) -> String {
    let mut text = String::new();
    file.rewind().expect("a file can be rewound");
    file.read_to_string(&mut text).expect("output is UTF-8");
    text
}

/// Asks `question` until it answers.
#[track_caller]
pub fn wait_for<T>(what: &str, question: impl FnMut() -> Option<T>) -> T {
    poll(question).unwrap_or_else(|| panic!("gave up waiting for {what}"))
}

fn poll<T>(mut question: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        let answer = question();
        if answer.is_some() {
            return answer;
        }
        thread::sleep(Duration::from_millis(20));
    }
    None
}

/// A reply over HTTP.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub body: Value,
    /// The upstream that the header names.
    pub upstream: Option<String>,
    /// The request's id that the header names.
    pub request: String,
}

impl Reply {
    /// The body of a success.
    #[track_caller]
    pub fn done(self) -> Value {
        assert_eq!(self.status, 200, "{self:#?}");
        self.body
    }

    /// An error with `status` and `code` whose message names each of `words`.
    #[track_caller]
    pub fn refused(self, status: u16, code: &str, words: &[&str]) {
        let error = &self.body["error"];
        assert_eq!((self.status, error["code"].as_str()), (status, Some(code)), "{self:#?}");
        let message = error["message"].as_str().unwrap_or_default();
        for word in words {
            assert!(message.contains(word), "{word:?} is missing: {self:#?}");
        }
    }
}

/// How a streamed answer went.
#[derive(Debug, Default, PartialEq)]
pub struct Streamed {
    pub text: String,
    pub finish: Option<String>,
    /// Code and message, if it broke off.
    pub error: Option<(String, String)>,
    /// Whether it ended as a complete answer does.
    pub done: bool,
    /// The upstream that the last chunk names.
    pub upstream: Option<String>,
    /// The answer's id.
    pub id: String,
    /// How many of its tokens had come with the last text.
    pub tokens: u64,
    /// The functions it calls, with their arguments, part after part.
    pub calls: Vec<(String, String)>,
}

/// A running node; killed when dropped, its log printed if the test failed.
#[derive(Debug)]
pub struct Node {
    pub http: String,
    pub id: String,
    pub network: String,
    pub dir: PathBuf,
    key: Option<String>,
    child: Child,
    log: PathBuf,
}

/// As [`Node::stream`], of whatever node is at `http`: a test may end that one meanwhile.
pub fn stream(http: &str, path: &str, body: &Value, mut seen: impl FnMut(&str)) -> Streamed {
    let mut body = body.clone();
    body["stream"] = true.into();
    let request = client().post(format!("{http}{path}")).json(&body);
    runtime().block_on(async {
        let mut response = request.send().await.expect("the node answers");
        assert_eq!(response.status().as_u16(), 200);
        let (mut streamed, mut pending) = (Streamed::default(), Vec::new());
        while let Ok(Some(piece)) = response.chunk().await {
            pending.extend_from_slice(&piece);
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = pending.drain(..=end).collect();
                streamed.take(std::str::from_utf8(&line).expect("events are UTF-8").trim_end());
            }
            seen(&streamed.text);
        }
        streamed
    })
}

/// Asks at `http` for a long answer of bard, and does `harm` in the middle of it: once more was said than the tokens that lie
/// between two vouchers have characters.
#[track_caller]
pub fn stream_harmed(http: &str, harm: impl FnOnce()) -> Streamed {
    let body = json!({"model": "bard", "prompt": "ROMEO:\n", "temperature": 0, "max_tokens": 240});
    let mut harm = Some(harm);
    let streamed = stream(http, "/v1/completions", &body, |text| {
        if text.len() > 300
            && let Some(harm) = harm.take()
        {
            harm();
        }
    });
    assert!(harm.is_none(), "{streamed:?}");
    streamed
}

/// A temporary folder for data directories.
pub fn folder() -> TempDir {
    tempfile::tempdir().expect("temporary folder")
}

/// An address that outlives the node: a port of this computer that is free now, for TCP and UDP, and that nobody gets
/// who asks for any port, since systems give those from higher ones.
pub fn lasting_address(host: [u8; 4]) -> SocketAddr {
    const PORTS: std::ops::Range<u32> = 20_000..30_000;
    // Tests that run now are other processes, or count on.
    let first = std::process::id().wrapping_mul(31).wrapping_add(next_number());
    let mut ports = (0..PORTS.len() as u32)
        .map(|at| PORTS.start + first.wrapping_add(at) % PORTS.len() as u32)
        .map(|port| SocketAddr::from((host, port as u16)));
    let is_free = |address: &SocketAddr| {
        UdpSocket::bind(address).is_ok() && std::net::TcpListener::bind(address).is_ok()
    };
    ports.find(is_free).expect("a free port")
}

/// The arguments every test node has: free ports of this computer only, unless `more` says which.
fn node_args<'a>(command: &[&'a str], dir: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let dir = dir.to_str().expect("the path is text");
    let mut args = [command, &["--data-dir", dir, "--threads", "1"], more].concat();
    for address in ["--p2p", "--http"] {
        if !more.contains(&address) {
            args.extend([address, "127.0.0.1:0"]);
        }
    }
    args
}

/// `talka up` on `dir`, ready.
#[track_caller]
pub fn up(dir: &Path, more: &[&str]) -> Node {
    Node::start(talka(&node_args(&["up"], dir, more)), dir, None)
}

/// `talka up` on `dir` with the hub at `endpoint`, ready.
#[track_caller]
pub fn up_with_hub(dir: &Path, more: &[&str], endpoint: &str) -> Node {
    let mut command = talka(&node_args(&["up"], dir, more));
    with_hub(&mut command, endpoint);
    Node::start(command, dir, None)
}

/// `talka join` on `dir`, where no node runs, with the hub at `endpoint`, ready.
#[track_caller]
pub fn join_with_hub(invite: &str, dir: &Path, more: &[&str], endpoint: &str) -> Node {
    let mut command = talka(&node_args(&["join", invite], dir, more));
    with_hub(&mut command, endpoint);
    Node::start(command, dir, None)
}

/// Lets `command` fetch from the hub at `endpoint`.
pub fn with_hub<'a>(command: &'a mut Command, endpoint: &str) -> &'a mut Command {
    command.env_remove("HF_HUB_OFFLINE").env("HF_ENDPOINT", endpoint)
}

/// `talka up` on `dir` for callers with `key`, ready.
#[track_caller]
pub fn up_with_key(dir: &Path, key: &str) -> Node {
    let mut command = talka(&node_args(&["up"], dir, &[]));
    command.env("TALKA_API_KEY", key);
    Node::start(command, dir, Some(key.into()))
}

/// `talka up` on `dir` with these variables, ready.
#[track_caller]
pub fn up_with_env(dir: &Path, more: &[&str], variables: &[(&str, &str)]) -> Node {
    let mut command = talka(&node_args(&["up"], dir, more));
    command.envs(variables.iter().copied());
    Node::start(command, dir, None)
}

/// `talka` with exactly these arguments, which start a node on `dir` for callers with `key`, ready.
#[track_caller]
pub fn started(args: &[&str], dir: &Path, key: &str) -> Node {
    let mut command = talka(args);
    command.env("TALKA_DATA_DIR", dir).env("TALKA_API_KEY", key);
    Node::start(command, dir, Some(key.into()))
}

/// `talka join` on `dir`, where no node runs, ready.
#[track_caller]
pub fn join(invite: &str, dir: &Path, more: &[&str]) -> Node {
    Node::start(talka(&node_args(&["join", invite], dir, more)), dir, None)
}

/// A node that must refuse to start.
#[track_caller]
pub fn cannot_start(command: &[&str], dir: &Path, more: &[&str]) -> Said {
    finish(&mut talka(&node_args(command, dir, more)), "")
}

impl Node {
    #[track_caller]
    fn start(mut command: Command, dir: &Path, key: Option<String>) -> Self {
        let log = dir.with_extension(format!("{}.log", next_number()));
        let stderr = File::create(&log).expect("log file");
        let mut child =
            command.stdout(Stdio::piped()).stderr(stderr).spawn().expect("talka starts");
        let stdout = child.stdout.take().expect("standard output is piped");
        let unknown = String::new;
        let (http, id, network) = (unknown(), unknown(), unknown());
        // Owned before it is ready, so that a panic here kills it and prints its log.
        let mut node = Self { http, id, network, dir: dir.into(), key, child, log };
        let ready = first_line(stdout).expect("the node ends without a ready line");
        // The name comes last and may hold blanks.
        let fields = ready.strip_prefix("ready http=").and_then(|rest| {
            let (http, rest) = rest.split_once(" node=")?;
            Some((http, rest.split_once(" network=")?))
        });
        let (http, (id, network)) = fields.unwrap_or_else(|| panic!("not ready: {ready:?}"));
        (node.http, node.id, node.network) = (http.into(), id.into(), network.into());
        node
    }

    /// A client command that finds this node by its data directory.
    #[track_caller]
    pub fn cli(&self, args: &[&str]) -> Said {
        self.cli_with_input(args, "")
    }

    /// The same with something to read.
    #[track_caller]
    pub fn cli_with_input(&self, args: &[&str], input: &str) -> Said {
        let mut command = talka(args);
        command.arg("--data-dir").arg(&self.dir);
        if let Some(key) = &self.key {
            command.env("TALKA_API_KEY", key);
        }
        finish(&mut command, input)
    }

    /// `talka invite` with these flags.
    #[track_caller]
    pub fn invite(&self, flags: &[&str]) -> String {
        self.cli(&[&["invite"], flags].concat()).done().trim().to_owned()
    }

    /// Posts `body`.
    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> Reply {
        self.send(client().post(format!("{}{path}", self.http)).json(body))
    }

    /// Posts `body` as whoever has `key`.
    #[track_caller]
    pub fn post_with_key(&self, path: &str, body: &Value, key: &str) -> Reply {
        let request = client().post(format!("{}{path}", self.http)).json(body);
        reply(request.bearer_auth(key)).expect("the node answers")
    }

    /// Opens a login link; the cookie that it gives, if it is good.
    #[track_caller]
    pub fn open_link(&self, link: &str) -> Option<String> {
        runtime().block_on(async {
            let response = client().get(link).send().await.expect("the node answers");
            let set = response.headers().get("set-cookie")?.to_str().expect("text");
            set.split(';').next().map(str::to_owned)
        })
    }

    /// Gets `path` as the node's own page does, with this cookie and no key.
    #[track_caller]
    pub fn get_with_cookie(&self, path: &str, cookie: &str) -> Reply {
        let request = client().get(format!("{}{path}", self.http)).header("cookie", cookie);
        reply(request).expect("the node answers")
    }

    /// Gets `path`.
    #[track_caller]
    pub fn get(&self, path: &str) -> Reply {
        self.send(client().get(format!("{}{path}", self.http)))
    }

    /// Gets `path`, which may be anything: its status, its request id and its text.
    #[track_caller]
    pub fn text(&self, path: &str) -> (u16, String, String) {
        let request = client().get(format!("{}{path}", self.http));
        runtime().block_on(async {
            let response = request.send().await.expect("the node answers");
            let id = response.headers()["x-request-id"].to_str().expect("text").to_owned();
            (response.status().as_u16(), id, response.text().await.expect("a body"))
        })
    }

    #[track_caller]
    fn send(&self, request: reqwest::RequestBuilder) -> Reply {
        let request = match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        };
        reply(request).expect("the node answers")
    }

    /// Whether all layers of its first model are served by somebody.
    pub fn is_complete(&self) -> bool {
        self.get("/api/models").done()[0]["complete"] == true
    }

    /// Posts `body` with `"stream": true` and calls `seen` with the text so far after each piece.
    pub fn stream(&self, path: &str, body: &Value, seen: impl FnMut(&str)) -> Streamed {
        stream(&self.http, path, body, seen)
    }

    /// Reads server-sent events of `path` and hands `seen` their names and data, until it says that this was enough. Says
    /// whether it did before the stream ended.
    pub fn follow(&self, path: &str, mut seen: impl FnMut(&str, Value) -> bool) -> bool {
        let request = client().get(format!("{}{path}", self.http));
        runtime().block_on(async {
            let mut response = request.send().await.expect("the node answers");
            assert_eq!(response.status().as_u16(), 200);
            let (mut name, mut pending) = (String::new(), Vec::new());
            while let Some(piece) =
                response.chunk().await.expect("the stream ends, and is not cut off")
            {
                pending.extend_from_slice(&piece);
                while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = pending.drain(..=end).collect();
                    let line = std::str::from_utf8(&line).expect("events are UTF-8").trim_end();
                    if let Some(text) = line.strip_prefix("event: ") {
                        text.clone_into(&mut name);
                    } else if let Some(data) = line.strip_prefix("data: ") {
                        let data = serde_json::from_str(data).expect("data is JSON");
                        if seen(&name, data) {
                            return true;
                        }
                    }
                }
            }
            false
        })
    }

    /// Posts `body` with `"stream": true`; the named events and their data, once all have come.
    #[track_caller]
    pub fn events(&self, path: &str, body: &Value) -> Vec<(String, Value)> {
        let mut body = body.clone();
        body["stream"] = true.into();
        let request = client().post(format!("{}{path}", self.http)).json(&body);
        let text = runtime().block_on(async {
            let response = request.send().await.expect("the node answers");
            assert_eq!(response.status().as_u16(), 200);
            response.text().await.expect("events are UTF-8")
        });
        let event = |frame: &str| {
            let (name, data) = frame.strip_prefix("event: ")?.split_once("\ndata: ")?;
            Some((name.to_owned(), serde_json::from_str(data).expect("events are JSON")))
        };
        // A comment says that the node is still there.
        let frames = text.split_terminator("\n\n").filter(|frame| !frame.starts_with(':'));
        frames.map(|frame| event(frame).unwrap_or_else(|| panic!("no event: {frame:?}"))).collect()
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Every ledger entry this node holds.
    #[track_caller]
    pub fn ledger(&self) -> Vec<Value> {
        let lines = self.cli(&["ledger", "export"]).done();
        lines.lines().map(|line| serde_json::from_str(line).expect("one entry a line")).collect()
    }

    /// SIGKILL, and gone.
    pub fn kill(&mut self) {
        self.child.kill().expect("the process can be killed");
        self.child.wait().expect("the process ends");
    }

    /// Sends it a signal, such as STOP.
    #[cfg(unix)]
    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &id]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// SIGTERM, and its exit code.
    #[cfg(unix)]
    pub fn terminate(mut self) -> Option<i32> {
        let id = self.child.id().to_string();
        let asked = Command::new("kill").args(["-TERM", &id]).status().expect("kill runs");
        assert!(asked.success());
        wait_for("a clean end", || self.child.try_wait().expect("the process can be asked")).code()
    }
}

/// Posts `body` with `"stream": true`, with `key` if one is given, and leaves after the first piece.
pub fn try_stream_once(http: &str, path: &str, body: &Value, key: Option<&str>) {
    let mut body = body.clone();
    body["stream"] = true.into();
    runtime().block_on(async {
        let request = client().post(format!("{http}{path}")).json(&body);
        let request = match key {
            Some(key) => request.bearer_auth(key),
            None => request,
        };
        let mut response = request.send().await.expect("the node answers");
        response.chunk().await.expect("a piece");
    });
}

/// Posts `body` to a node that may be dying.
pub fn try_post(http: &str, path: &str, body: &Value) -> Result<Reply, reqwest::Error> {
    reply(client().post(format!("{http}{path}")).json(body))
}

fn reply(request: reqwest::RequestBuilder) -> Result<Reply, reqwest::Error> {
    runtime().block_on(async {
        let response = request.send().await?;
        let header = |name: &str| {
            let value = response.headers().get(name);
            value.map(|value| value.to_str().expect("text").to_owned())
        };
        let upstream = header("x-talka-upstream");
        let request = header("x-request-id").expect("every answer has an id");
        let status = response.status().as_u16();
        Ok(Reply { status, body: response.json().await?, upstream, request })
    })
}

impl Streamed {
    fn take(&mut self, line: &str) {
        let Some(data) = line.strip_prefix("data: ") else { return };
        if data == "[DONE]" {
            self.done = true;
            return;
        }
        let event: Value = serde_json::from_str(data).expect("events are JSON");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        if let Some(error) = event.get("error") {
            self.error = Some((text(&error["code"]), text(&error["message"])));
        }
        let choice = &event["choices"][0];
        self.id = text(&event["id"]);
        self.tokens = event["talka"]["tokens"].as_u64().unwrap_or(self.tokens);
        self.text += &text(&choice["text"]);
        self.text += &text(&choice["delta"]["content"]);
        for part in choice["delta"]["tool_calls"].as_array().into_iter().flatten() {
            let function = &part["function"];
            if let Some(name) = function["name"].as_str() {
                assert_eq!(part["index"], self.calls.len());
                self.calls.push((name.into(), String::new()));
            }
            let call = self.calls.last_mut().expect("a call begins with a name");
            call.1 += &text(&function["arguments"]);
        }
        if let Some(upstream) = event["talka"]["upstream"].as_str() {
            self.upstream = Some(upstream.into());
        }
        if let Some(finish) = choice["finish_reason"].as_str() {
            self.finish = Some(finish.into());
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already; all that matters is that it is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            eprintln!("--- log of {} ({}) ---\n{log}---", self.dir.display(), self.id);
        }
    }
}

/// The first line of `stdout`; what follows is read and dropped, so that the writer never blocks.
fn first_line(stdout: impl Read + Send + 'static) -> Option<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            // Only the first is waited for.
            let _ = sender.send(line);
        }
    });
    receiver.recv_timeout(PATIENCE).ok()
}

fn next_number() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn client() -> &'static reqwest::Client {
    static CLIENT: OnceLock<reqwest::Client> = OnceLock::new();
    CLIENT.get_or_init(|| {
        // The client wants cryptography even for plain HTTP; it may be there already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = reqwest::Client::builder().no_proxy().timeout(PATIENCE);
        // What a login link answers is read, not followed.
        let builder = builder.redirect(reqwest::redirect::Policy::none());
        // A killed node's idle connections must not be taken for its successor's.
        builder.pool_max_idle_per_host(0).build().expect("an HTTP client")
    })
}

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new().expect("an async runtime"))
}
