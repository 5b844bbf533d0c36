//! A whole node that serves some layers of the bundled model.

use std::{path::Path, time::Duration};
use talka_base::LayerSpan;
use talka_node::{
    ModelChoice, ModelSource, Node, NodeConfig, Policy,
    api::{Fallback, GenerateRequest, Prompt, SamplingParams},
};
use tokio::time::{sleep, timeout};

/// When a test gives up on what should long have happened.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Layers of the bundled model.
pub const LAYERS: u32 = 6;

pub fn span(start: u32, end: u32) -> LayerSpan {
    LayerSpan::new(start, end).expect("not empty")
}

/// A node that serves `span` of the bundled model and no more.
pub async fn node(dir: &Path, span: LayerSpan) -> Node {
    let bard = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/models/bard");
    let model = ModelChoice {
        span: Some(span),
        ..ModelChoice::here("bard".into(), ModelSource::Folder(bard))
    };
    let config = NodeConfig {
        data_dir: dir.into(),
        name: "sound".into(),
        models: vec![model],
        threads: Some(1),
        bandwidth: None,
        memory_bytes: None,
        cache_bytes: None,
        weights: None,
        join: None,
        p2p_address: Some("127.0.0.1:0".parse().expect("an address")),
        p2p_announced: None,
        load: talka_node::Load::default(),
        upstreams: Vec::new(),
        policy: Policy::default(),
        mixes_precision: false,
        opening: talka_node::Opening::default(),
        grant: None,
        request_time: None,
        rules: None,
    };
    let node = Node::start(config).await.expect("the node starts");
    wait_for("its layers", async || {
        (!node.api().models().await[0].coverage.is_empty()).then_some(())
    })
    .await;
    node
}

/// Asks `question` until it answers.
pub async fn wait_for<T>(what: &str, mut question: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = question().await {
                return answer;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("gave up waiting for {what}"))
}

/// Asks for `max_tokens` tokens after `prompt`, each a piece of its own.
pub fn request(prompt: &str, max_tokens: u32) -> GenerateRequest {
    GenerateRequest {
        model: "bard".into(),
        prompt: Prompt::Text(prompt.into()),
        max_tokens: Some(max_tokens),
        sampling: SamplingParams::greedy(),
        stop: Vec::new(),
        min_tokens: 0,
        ignore_end: true,
        logprobs: None,
        echo: false,
        grammar: None,
        tools: None,
        guesses: false,
        fallback: Fallback::Never,
        resume: None,
    }
}
