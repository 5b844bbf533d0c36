//! Answers with rules: a grammar that they follow, and guesses that change nothing.

use crate::support::{greedy, kernels, open, pipeline, root};
use serde_json::{Value, json};
use std::{collections::BTreeMap, ops::ControlFlow, sync::OnceLock};
use talka_engine::{
    Choice, ChoiceRules, Chooser, Drafter, Finish, Grammar, GrammarCompiler, Guesser, LogitsWanted,
    LookUp, Model, Pipeline, SamplingParams, TokenLogProbs, generate_guessing,
};

fn bard() -> &'static Model {
    static BARD: OnceLock<Model> = OnceLock::new();
    BARD.get_or_init(|| open(&root().join("assets/models/bard")))
}

fn compiler() -> &'static GrammarCompiler {
    static COMPILER: OnceLock<GrammarCompiler> = OnceLock::new();
    COMPILER.get_or_init(|| GrammarCompiler::new(bard()).expect("a vocabulary"))
}

fn encode(text: &str) -> Vec<u32> {
    bard().tokenizer().encode(text, true).expect("bard spells any text")
}

fn sampling(temperature: f32, seed: u64) -> ChoiceRules {
    let sampling = SamplingParams { temperature, seed, ..SamplingParams::default() };
    ChoiceRules { sampling, ..ChoiceRules::default() }
}

/// Tokens of an answer by bard, and why it ended.
fn answer(
    rules: ChoiceRules,
    prompt: &str,
    grammar: Option<&Grammar>,
    guesser: &mut Guesser,
    tokens_max: u32,
) -> (Vec<u32>, Finish) {
    let prompt = encode(prompt);
    let state = grammar.map(|grammar| compiler().compile(grammar).expect("a grammar"));
    let mut chooser = Chooser::new(rules, &prompt, bard().eos_ids(), state);
    let mut tokens = Vec::new();
    let mut whole = pipeline(bard(), 2);
    let on_choice = |choice: &Choice| {
        tokens.push(choice.token);
        ControlFlow::Continue(())
    };
    let finish =
        generate_guessing(&mut whole, &prompt, &mut chooser, guesser, tokens_max, on_choice);
    let finish = finish.expect("generates");
    (tokens, finish)
}

/// The text of an answer that came to its end.
fn complete(rules: ChoiceRules, grammar: &Grammar, guesser: &mut Guesser) -> String {
    let (tokens, finish) = answer(rules, "ROMEO:\n", Some(grammar), guesser, 240);
    let text = bard().tokenizer().decode(&tokens).expect("text");
    assert_eq!(finish, Finish::End, "{text}");
    text
}

fn person() -> Grammar {
    Grammar::JsonSchema(json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 12},
            "age": {"type": "integer", "minimum": 0, "maximum": 120},
            "house": {"enum": ["Montague", "Capulet", null]},
            "friends": {"type": "array", "items": {"$ref": "#/$defs/friend"}, "maxItems": 2},
        },
        "$defs": {"friend": {"type": "string", "pattern": "^[A-Z][a-z]{1,6}$"}},
        "required": ["name", "age", "house", "friends"],
        "additionalProperties": false,
    }))
}

/// Whether `value` is what [`person`] describes.
fn check_person(value: &Value) {
    let name = value["name"].as_str().expect("a name");
    assert!((1..=12).contains(&name.chars().count()), "{value}");
    assert!(value["age"].as_u64().is_some_and(|age| age <= 120), "{value}");
    assert!([json!("Montague"), json!("Capulet"), Value::Null].contains(&value["house"]));
    let friends = value["friends"].as_array().expect("friends");
    assert!(friends.len() <= 2, "{value}");
    for friend in friends {
        let mut letters = friend.as_str().expect("a friend").chars();
        assert!(letters.next().is_some_and(|c| c.is_ascii_uppercase()), "{value}");
        assert!(letters.all(|c| c.is_ascii_lowercase()), "{value}");
    }
    assert_eq!(value.as_object().map(serde_json::Map::len), Some(4), "{value}");
}

#[test]
fn bard_follows_a_schema_at_any_temperature_with_and_without_guesses() {
    for (temperature, seed) in [(0.0, 0), (1.0, 1), (2.0, 2), (2.0, 3)] {
        let mut plain = Guesser::None;
        let text = complete(sampling(temperature, seed), &person(), &mut plain);
        check_person(&serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}")));
        let mut look_up = Guesser::LookUp(LookUp::default());
        assert_eq!(complete(sampling(temperature, seed), &person(), &mut look_up), text);
    }
}

#[test]
fn bard_speaks_json_when_told_to() {
    for seed in 0..4 {
        let mut rules = sampling(1.0, seed);
        // A model that has seen no JSON closes no string by itself.
        let [quote, brace] = ["\"", "}"].map(|text| encode(text)[0]);
        rules.sampling.logit_bias = vec![(quote, 20.0), (brace, 20.0)];
        let text = complete(rules, &Grammar::JsonObject, &mut Guesser::None);
        let value: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        assert!(value.is_object(), "{text}");
    }
}

#[test]
fn bard_keeps_to_a_regular_expression_and_to_a_grammar() {
    let regex = Grammar::Regex("(to be|not to be), [a-z]{3,8}[.!]".into());
    let text = complete(sampling(1.0, 5), &regex, &mut Guesser::None);
    let (choice, word) = text.split_once(", ").expect("a comma");
    assert!(["to be", "not to be"].contains(&choice), "{text}");
    let word = word.strip_suffix(['.', '!']).expect("an end");
    assert!((3..=8).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_lowercase()));

    let sum = Grammar::Lark("start: number (\"+\" number)~1..3\nnumber: /[0-9]{1,3}/".into());
    let text = complete(sampling(1.0, 6), &sum, &mut Guesser::None);
    assert!((2..=4).contains(&text.split('+').count()), "{text}");
    assert!(text.split('+').all(|n| n.parse::<u32>().is_ok()), "{text}");
}

/// Sentencepiece spells blanks and bytes in its own way.
#[test]
fn a_sentencepiece_model_follows_an_expression_with_blanks_and_foreign_letters() {
    let folder = root().join("../shared/models/stories260k");
    if !folder.exists() {
        eprintln!("SKIPPED: no stories260k in {}", folder.display());
        return;
    }
    let model = open(&folder);
    let compiler = GrammarCompiler::new(&model).expect("a vocabulary");
    let regex = Grammar::Regex("[A-Z][a-z]{2,5} é [a-z]{3}\\n[€]!".into());
    for seed in 0..3 {
        let prompt = model.tokenizer().encode("Once upon a time", true).expect("encodes");
        let state = compiler.compile(&regex).expect("an expression");
        let mut chooser = Chooser::new(sampling(1.0, seed), &prompt, model.eos_ids(), Some(state));
        let mut bytes = Vec::new();
        let on_choice = |choice: &Choice| {
            bytes.extend_from_slice(model.tokenizer().token_bytes(choice.token));
            ControlFlow::Continue(())
        };
        let (mut whole, mut look_up) = (pipeline(&model, 1), Guesser::LookUp(LookUp::default()));
        let finish =
            generate_guessing(&mut whole, &prompt, &mut chooser, &mut look_up, 60, on_choice);
        assert_eq!(finish.expect("generates"), Finish::End);
        let text = String::from_utf8(bytes).expect("whole characters");
        let (name, rest) = text.split_once(" é ").expect("a foreign letter");
        assert!((3..=6).contains(&name.len()), "{text}");
        assert!(rest.ends_with("\n€!") && rest.len() == 3 + "\n€!".len(), "{text}");
    }
}

#[test]
fn a_grammar_that_llguidance_refuses_is_refused_with_its_reason() {
    let refused = |grammar: Grammar, word: &str| {
        let reason = compiler().compile(&grammar).expect_err("refused").reason;
        assert!(reason.contains(word), "{word:?} is missing from {reason:?}");
        assert!(!reason.contains("<state>"), "its inner state is nobody's business: {reason}");
    };
    refused(Grammar::JsonSchema(json!({"type": "nonsense"})), "nonsense");
    refused(Grammar::JsonSchema(json!({"$ref": "http://example.org/x"})), "ref");
    refused(Grammar::JsonSchema(json!(5)), "");
    refused(Grammar::Regex("a(".into()), "");
    refused(Grammar::Lark("start: missing".into()), "missing");
    refused(Grammar::Lark(String::new()), "");
    refused(Grammar::Regex("x".repeat(2 << 20)), "at most");
}

fn prompts() -> [&'static str; 3] {
    ["ROMEO:\nBut soft", "one two three one two three one two", "KING HENRY:\n"]
}

/// A draft model that guesses well: bard itself.
fn drafter(cost: f64) -> Guesser {
    let stage = bard().stage(bard().shape().span(), &kernels()).expect("a stage");
    let pipeline = Pipeline::new(vec![stage], bard().shape().context).expect("a whole model");
    Guesser::Drafter(Box::new(Drafter::new(pipeline, cost)))
}

#[test]
fn guesses_change_no_greedy_answer() {
    for prompt in prompts() {
        let expected = greedy(&mut pipeline(bard(), 1), &encode(prompt), 120);
        for mut guesser in [Guesser::None, Guesser::LookUp(LookUp::default()), drafter(0.05)] {
            let rules = ChoiceRules { ignore_end: true, ..sampling(0.0, 0) };
            let (tokens, _) = answer(rules, prompt, None, &mut guesser, 120);
            assert_eq!(tokens, expected, "{prompt:?} with {guesser:?}");
        }
    }
}

#[test]
fn looked_up_guesses_change_no_draw() {
    for (seed, prompt) in (0..).zip(prompts()) {
        let of = |mut guesser| answer(sampling(0.9, seed), prompt, None, &mut guesser, 120);
        assert_eq!(of(Guesser::LookUp(LookUp::default())), of(Guesser::None));
    }
}

/// Goal: drafted guesses keep the distribution of whole answers. Method: the third token drawn many
/// times with and without a drafter that has not heard the prompt, compared by how often each comes.
#[test]
fn drafted_guesses_keep_the_distribution() {
    const DRAWS: u32 = 1_000;
    let prompt = encode("ROMEO:\nBut soft, what light through yonder");
    let (last, before) = prompt.split_last().expect("a prompt");
    let mut whole = pipeline(bard(), 1);
    whole.run(before, LogitsWanted::None).expect("runs");
    let mut third = |mut guesser: Guesser, seeds: std::ops::Range<u32>| {
        let mut counts = BTreeMap::<u32, u32>::new();
        for seed in seeds {
            let mut rules = sampling(1.2, u64::from(seed));
            rules.sampling.top_k = 4;
            whole.truncate(before.len() as u32);
            let mut chooser = Chooser::new(rules, &prompt, &[], None);
            let mut token = 0;
            let on_choice = |choice: &Choice| {
                token = choice.token;
                ControlFlow::Continue(())
            };
            generate_guessing(&mut whole, &[*last], &mut chooser, &mut guesser, 3, on_choice)
                .expect("generates");
            *counts.entry(token).or_default() += 1;
        }
        counts
    };
    let plain = third(Guesser::None, 0..DRAWS);
    let drafted = third(drafter(0.0), DRAWS..2 * DRAWS);
    for token in plain.keys().chain(drafted.keys()) {
        let share = |counts: &BTreeMap<u32, u32>| {
            f64::from(counts.get(token).copied().unwrap_or(0)) / f64::from(DRAWS)
        };
        // Four standard deviations of the difference of two shares of 1/2 are 0.09.
        let (a, b) = (share(&plain), share(&drafted));
        assert!((a - b).abs() < 0.09, "token {token}: {a} without, {b} with a drafter");
    }
}

/// A chosen token is as likely as the row it was drawn from says, whoever guessed it.
#[test]
fn log_probabilities_do_not_depend_on_guesses() {
    let prompt = "one two three one two three one two";
    let reports = |mut guesser: Guesser| {
        let rules = ChoiceRules { logprobs: Some(3), ..sampling(0.0, 0) };
        let ids = encode(prompt);
        let mut chooser = Chooser::new(rules, &ids, &[], None);
        let mut reports: Vec<TokenLogProbs> = Vec::new();
        let on_choice = |choice: &Choice| {
            reports.extend(choice.logprobs.clone());
            ControlFlow::Continue(())
        };
        let mut whole = pipeline(bard(), 1);
        generate_guessing(&mut whole, &ids, &mut chooser, &mut guesser, 40, on_choice)
            .expect("generates");
        reports
    };
    let plain = reports(Guesser::None);
    assert_eq!(plain, reports(Guesser::LookUp(LookUp::default())));
    for report in &plain {
        assert_eq!((report.token, report.logprob), report.top[0], "greedy takes the likeliest");
    }
}
