//! The models measured: published shapes, random weights.

/// A llama-shaped model whose head is its embedding.
pub struct Shape {
    /// Also the name of its folder.
    pub name: &'static str,
    pub hidden: u64,
    pub layers: u64,
    pub heads: u64,
    pub kv_heads: u64,
    pub ffn: u64,
    pub vocab: u64,
}

/// SmolLM 135M and Llama 3.2 1B.
pub const SHAPES: [Shape; 2] = [
    Shape {
        name: "135m",
        hidden: 576,
        layers: 30,
        heads: 9,
        kv_heads: 3,
        ffn: 1_536,
        vocab: 49_152,
    },
    Shape {
        name: "1240m",
        hidden: 2_048,
        layers: 16,
        heads: 32,
        kv_heads: 8,
        ffn: 8_192,
        vocab: 128_256,
    },
];

/// The base of the rotary angles, and what the norms add; speed does not depend on them.
pub const ROPE_THETA: f32 = 10_000.0;
pub const NORM_EPSILON: f32 = 1e-5;
/// Room for the prompt and what follows.
pub const CONTEXT: u64 = 4_096;

/// One tensor under both of its names.
pub struct Tensor {
    pub hugging_face: String,
    pub gguf: String,
    /// `[N, K]`, K fastest, or `[K]` for the weights of a norm.
    pub dims: Vec<u64>,
}

impl Tensor {
    fn new(hugging_face: &str, gguf: &str, dims: &[u64]) -> Self {
        let [hugging_face, gguf] = [hugging_face, gguf].map(|name| format!("{name}.weight"));
        Self { hugging_face, gguf, dims: dims.into() }
    }

    pub fn elements(&self) -> u64 {
        self.dims.iter().product()
    }

    /// Norms are kept as f32 in GGUF, where llama.cpp wants them so.
    pub fn is_norm(&self) -> bool {
        self.dims.len() == 1
    }
}

impl Shape {
    pub fn head_dim(&self) -> u64 {
        self.hidden / self.heads
    }

    /// All tensors, in the order of their use.
    pub fn tensors(&self) -> Vec<Tensor> {
        let mut tensors =
            vec![Tensor::new("model.embed_tokens", "token_embd", &[self.vocab, self.hidden])];
        for layer in 0..self.layers {
            let tensor = |hugging_face, gguf, dims: &[u64]| {
                let hugging_face = format!("model.layers.{layer}.{hugging_face}");
                Tensor::new(&hugging_face, &format!("blk.{layer}.{gguf}"), dims)
            };
            let (hidden, ffn, kv) = (self.hidden, self.ffn, self.kv_heads * self.head_dim());
            tensors.extend([
                tensor("input_layernorm", "attn_norm", &[hidden]),
                tensor("self_attn.q_proj", "attn_q", &[hidden, hidden]),
                tensor("self_attn.k_proj", "attn_k", &[kv, hidden]),
                tensor("self_attn.v_proj", "attn_v", &[kv, hidden]),
                tensor("self_attn.o_proj", "attn_output", &[hidden, hidden]),
                tensor("post_attention_layernorm", "ffn_norm", &[hidden]),
                tensor("mlp.gate_proj", "ffn_gate", &[ffn, hidden]),
                tensor("mlp.up_proj", "ffn_up", &[ffn, hidden]),
                tensor("mlp.down_proj", "ffn_down", &[hidden, ffn]),
            ]);
        }
        tensors.push(Tensor::new("model.norm", "output_norm", &[self.hidden]));
        tensors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shapes_are_the_published_ones() {
        let parameters = SHAPES.map(|s| s.tensors().iter().map(Tensor::elements).sum::<u64>());
        assert_eq!(parameters, [134_515_008, 1_235_814_400]);
    }
}
