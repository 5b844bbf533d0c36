//! What a model may say under each prescription, letter by letter.

use super::*;
use crate::{grammar::GrammarCompiler, text::tests::bytes_and, tools::ToolParser};

fn tool(name: &str, strict: bool) -> Tool {
    let parameters = json!({
        "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": false,
    });
    Tool { name: name.into(), description: None, parameters: Some(parameters), strict }
}

fn wish(choice: ToolChoice, parallel: bool) -> ToolUse {
    let bare = Tool { parameters: None, ..tool("now", false) };
    ToolUse { tools: vec![tool("add", true), bare], choice, parallel }
}

/// Whether an answer may be `text` and end there. The last token of the vocabulary is the end.
fn may_say(form: &Grammar, special: &[&str], text: &str) -> bool {
    let special = [special, &["<end>"]].concat();
    let tokenizer = bytes_and(&special);
    let end = 255 + special.len() as u32;
    let compiler = GrammarCompiler::of(&tokenizer, end + 1, &[end]).expect("a vocabulary");
    let mut state = compiler.compile(form).unwrap_or_else(|error| panic!("{error}: {form:?}"));
    let tokens = tokenizer.encode(text, false).expect("bytes spell any text");
    let mut complete = false;
    for token in tokens {
        if complete || state.allows(&[token]) == 0 {
            return false;
        }
        complete = state.accept(token).expect("it was allowed");
    }
    let mut logits = vec![0.0; end as usize + 1];
    complete || state.mask(&mut logits).is_ok() && logits[end as usize] == 0.0
}

fn form(format: ToolFormat, wish: &ToolUse, otherwise: Option<&Grammar>) -> Option<Grammar> {
    format.form(wish, otherwise, |_| None)
}

/// Checks that `good` may be said and is read as `calls` calls, and that each of `bad` may not.
fn check(format: ToolFormat, wish: &ToolUse, good: &[(&str, u32)], bad: &[&str]) {
    let form = form(format, wish, None).expect("a form");
    for (text, calls) in good {
        assert!(may_say(&form, &[], text), "{format:?} {text}");
        let mut parser = ToolParser::new(format, vec!["add".into(), "now".into()]);
        parser.push(text);
        assert_eq!(parser.calls(), *calls, "{format:?} {text}");
    }
    for text in bad {
        assert!(!may_say(&form, &[], text), "{format:?} {text}");
    }
}

const HERMES: &str = "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1}}\n</tool_call>";
const LLAMA: &str = "{\"name\": \"add\", \"parameters\": {\"a\": 2}}";
const GENERIC: &str = "{\"name\": \"add\", \"arguments\": {\"a\": 2}}";
const NOW: &str = "{\"name\": \"now\", \"arguments\": {}}";

#[test]
fn a_required_call_is_all_that_may_be_said() {
    let one = wish(ToolChoice::Required, false);
    let two = format!("{HERMES}\n{HERMES}");
    let wrong = HERMES.replace('1', "3");
    check(ToolFormat::Hermes, &one, &[(HERMES, 1)], &["", "Hi", &two, &wrong, "<tool_call>"]);
    let tagged = format!("<|python_tag|>{LLAMA}");
    check(ToolFormat::Llama3, &one, &[(LLAMA, 1)], &["", "Hi", GENERIC, &tagged]);
    let list = format!("[TOOL_CALLS] [{GENERIC}]");
    let lists = format!("[TOOL_CALLS] [{GENERIC}, {NOW}]");
    check(ToolFormat::Mistral, &one, &[(&list, 1)], &["", GENERIC, &lists]);
    check(ToolFormat::Generic, &one, &[(GENERIC, 1), (NOW, 1)], &["", LLAMA, "{}"]);
}

#[test]
fn several_calls_follow_each_other_where_they_may() {
    let several = wish(ToolChoice::Required, true);
    let two = format!("{HERMES}\n{HERMES}");
    check(ToolFormat::Hermes, &several, &[(HERMES, 1), (&two, 2)], &["", "\n"]);
    let two = format!("{LLAMA}; {LLAMA}");
    check(ToolFormat::Llama3, &several, &[(&two, 2)], &["; "]);
    let two = format!("[TOOL_CALLS] [{GENERIC}, {NOW}]");
    check(ToolFormat::Mistral, &several, &[(&two, 2)], &["[TOOL_CALLS] []"]);
    let two = format!("{GENERIC}\n{NOW}");
    check(ToolFormat::Generic, &several, &[(&two, 2)], &["\n"]);
}

#[test]
fn a_named_function_is_called_once() {
    let named = wish(ToolChoice::Named("now".into()), true);
    let two = format!("{NOW}\n{NOW}");
    check(ToolFormat::Generic, &named, &[(NOW, 1)], &["", GENERIC, &two]);
}

#[test]
fn where_a_function_is_strict_text_stays_free() {
    let auto = wish(ToolChoice::Auto, true);
    let called = format!("Let me see.\n\n{HERMES}\n{HERMES}");
    let wrong = HERMES.replace('1', "3");
    let loose = HERMES.replace("add", "now");
    let good = [("", 0), ("Hi\n{", 0), (called.as_str(), 2), (loose.as_str(), 1)];
    check(ToolFormat::Hermes, &auto, &good, &[&wrong, "<tool_call>Hi"]);
    check(ToolFormat::Generic, &auto, &[("", 0), (" Hi {", 0), (GENERIC, 1)], &["{\"a\""]);
    let free = ToolUse { tools: vec![tool("add", false)], ..auto };
    let single = ToolUse { parallel: false, ..free.clone() };
    check(ToolFormat::Hermes, &single, &[("Hi", 0), (HERMES, 1), (&wrong, 1)], &[&called]);
    assert_eq!(form(ToolFormat::Hermes, &free, None), None);
}

#[test]
fn a_mark_may_be_a_token() {
    let token = |_: &str| Some(256);
    let list = format!("[TOOL_CALLS] [{GENERIC}]");
    for (choice, text) in [(ToolChoice::Required, String::new()), (ToolChoice::Auto, "So: ".into())]
    {
        let form = ToolFormat::Mistral.form(&wish(choice, false), None, token).expect("a form");
        assert!(may_say(&form, &["[TOOL_CALLS]"], &format!("{text}{list}")), "{form:?}");
        let wrong = list.replace('2', "3");
        assert!(!may_say(&form, &["[TOOL_CALLS]"], &format!("{text}{wrong}")), "{form:?}");
    }
}

#[test]
fn an_answer_that_calls_nothing_may_have_a_form_of_its_own() {
    let schema = json!({"type": "object", "properties": {"b": {"const": 1}}, "required": ["b"]});
    let otherwise = Grammar::JsonSchema(schema);
    for strict in [true, false] {
        let wish = ToolUse { tools: vec![tool("add", strict)], ..wish(ToolChoice::Auto, true) };
        let form = form(ToolFormat::Hermes, &wish, Some(&otherwise)).expect("a form");
        assert!(may_say(&form, &[], "{\"b\": 1}") && may_say(&form, &[], HERMES));
        assert!(!may_say(&form, &[], "Hi") && !may_say(&form, &[], "{\"b\": 2}"));
        assert_eq!(may_say(&form, &[], &HERMES.replace('1', "3")), !strict);
    }
}
