//! A question in the words of the API.

use serde_json::{Map, Value, json};

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What was said.
    pub content: String,
}

/// What is to be continued.
#[derive(Debug, Clone, PartialEq)]
pub enum Wording {
    /// A conversation.
    Chat(Vec<Message>),
    /// Plain text.
    Text(String),
    /// Token ids of the service's own vocabulary.
    Tokens(Vec<u32>),
}

/// What an answer must look like.
#[derive(Debug, Clone, PartialEq)]
pub enum Form {
    /// Any JSON object.
    Object,
    /// JSON that a schema describes.
    Schema(Value),
}

/// What to ask. Only what is not the API's own default is said, as services differ in what they know.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the API's own parameters")]
pub struct Question {
    /// The model, as the service calls it.
    pub model: String,
    pub wording: Wording,
    /// Most tokens of the answer.
    pub max_tokens: u32,
    pub temperature: f32,
    pub top_p: f32,
    pub frequency_penalty: f32,
    pub presence_penalty: f32,
    pub logit_bias: Vec<(u32, f32)>,
    /// 31 bits: what every service takes.
    pub seed: u32,
    pub stop: Vec<String>,
    pub form: Option<Form>,
}

impl Question {
    /// What follows the service's address.
    pub(crate) fn path(&self) -> &'static [&'static str] {
        match self.wording {
            Wording::Chat(_) => &["chat", "completions"],
            Wording::Text(_) | Wording::Tokens(_) => &["completions"],
        }
    }

    pub(crate) fn body(&self) -> Value {
        let mut body = Map::new();
        let mut say = |name: &str, value: Value| body.insert(name.into(), value);
        say("model", self.model.as_str().into());
        match &self.wording {
            Wording::Chat(messages) => {
                let turn = |m: &Message| json!({ "role": m.role, "content": m.content });
                say("messages", messages.iter().map(turn).collect());
            }
            Wording::Text(text) => drop(say("prompt", text.as_str().into())),
            Wording::Tokens(ids) => drop(say("prompt", ids.clone().into())),
        }
        say("max_tokens", self.max_tokens.into());
        say("seed", (self.seed & 0x7fff_ffff).into());
        let numbers = [
            ("temperature", self.temperature, 1.0),
            ("top_p", self.top_p, 1.0),
            ("frequency_penalty", self.frequency_penalty, 0.0),
            ("presence_penalty", self.presence_penalty, 0.0),
        ];
        for (name, value, usual) in numbers {
            if value != usual {
                say(name, decimal(value));
            }
        }
        if !self.logit_bias.is_empty() {
            let biases = self.logit_bias.iter().map(|(id, bias)| (id.to_string(), decimal(*bias)));
            say("logit_bias", Value::Object(biases.collect()));
        }
        if !self.stop.is_empty() {
            say("stop", self.stop.clone().into());
        }
        if let Some(form) = &self.form {
            say("response_format", response_format(form));
        }
        say("stream", true.into());
        say("stream_options", json!({ "include_usage": true }));
        Value::Object(body)
    }
}

fn response_format(form: &Form) -> Value {
    match form {
        Form::Object => json!({ "type": "json_object" }),
        Form::Schema(schema) => json!({
            "type": "json_schema",
            "json_schema": { "name": "answer", "schema": schema, "strict": true },
        }),
    }
}

/// The number as a person wrote it: 0.7, where its f32 is 0.699999988.
fn decimal(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(wording: Wording) -> Question {
        Question {
            model: "m".into(),
            wording,
            max_tokens: 5,
            temperature: 1.0,
            top_p: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: u32::MAX,
            stop: Vec::new(),
            form: None,
        }
    }

    #[test]
    fn only_what_is_wanted_is_said() {
        let question = plain(Wording::Text("once".into()));
        assert_eq!(question.path(), ["completions"]);
        let expected = json!({
            "model": "m", "prompt": "once", "max_tokens": 5, "seed": 0x7fff_ffff, "stream": true,
            "stream_options": { "include_usage": true },
        });
        assert_eq!(question.body(), expected);
        assert_eq!(plain(Wording::Tokens(vec![1, 2])).body()["prompt"], json!([1, 2]));
    }

    #[test]
    fn all_that_is_wanted_is_said() {
        let message = Message { role: "user".into(), content: "hi".into() };
        let question = Question {
            temperature: 0.7,
            top_p: 0.0,
            frequency_penalty: -1.5,
            presence_penalty: 2.0,
            logit_bias: vec![(7, -100.0)],
            stop: vec!["x".into()],
            form: Some(Form::Schema(json!({"type": "object"}))),
            ..plain(Wording::Chat(vec![message]))
        };
        assert_eq!(question.path(), ["chat", "completions"]);
        let body = question.body();
        assert_eq!(body["messages"], json!([{"role": "user", "content": "hi"}]));
        assert_eq!((&body["temperature"], &body["top_p"]), (&json!(0.7), &json!(0.0)));
        assert_eq!(
            (&body["frequency_penalty"], &body["presence_penalty"]),
            (&json!(-1.5), &json!(2.0))
        );
        assert_eq!((&body["logit_bias"], &body["stop"]), (&json!({"7": -100.0}), &json!(["x"])));
        assert_eq!(body["response_format"]["json_schema"]["schema"], json!({"type": "object"}));
        let form = Question { form: Some(Form::Object), ..question };
        assert_eq!(form.body()["response_format"], json!({"type": "json_object"}));
    }
}
