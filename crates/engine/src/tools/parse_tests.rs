//! Golden answers of each format, whole and damaged, and that cuts change nothing.

use super::*;
use proptest::prelude::*;

const FORMATS: [ToolFormat; 4] =
    [ToolFormat::Hermes, ToolFormat::Llama3, ToolFormat::Mistral, ToolFormat::Generic];

fn parser(format: ToolFormat) -> ToolParser {
    ToolParser::new(format, vec!["weather".into(), "add".into()])
}

fn read(format: ToolFormat, pieces: &[&str]) -> Parsed {
    let mut parser = parser(format);
    let mut all = Parsed::default();
    pieces.iter().for_each(|piece| all.extend(parser.push(piece)));
    all.extend(parser.finish());
    assert_eq!(all.calls.len(), parser.calls() as usize, "{all:?}");
    all
}

/// What `answer` is: its text, and its calls with their arguments.
fn check(format: ToolFormat, answer: &str, text: &str, calls: &[(&str, &str)]) {
    let found = read(format, &[answer]);
    let found_calls: Vec<_> = found
        .calls
        .iter()
        .map(|c| (c.name.as_deref().expect("named"), c.arguments.as_str()))
        .collect();
    assert_eq!((found.text.as_str(), found_calls.as_slice()), (text, calls), "{format:?} {answer}");
    assert!(found.calls.iter().zip(0..).all(|(call, index)| call.index == index));
}

const CITY: &str = r#"{"city": "R\"{öm"}"#;

#[test]
fn hermes_calls_are_read() {
    let format = ToolFormat::Hermes;
    let call = |name: &str, arguments: &str| {
        format!("<tool_call>\n{{\"name\": \"{name}\", \"arguments\": {arguments}}}\n</tool_call>")
    };
    check(format, &call("weather", CITY), "", &[("weather", CITY)]);
    let two = format!("Let me see.\n\n{}\n{}\n", call("weather", CITY), call("add", "{}"));
    check(format, &two, "Let me see.", &[("weather", CITY), ("add", "{}")]);
    let after = format!("{} Done.", call("add", r#"{"a": [1, {"b": 2}]}"#));
    check(format, &after, " Done.", &[("add", r#"{"a": [1, {"b": 2}]}"#)]);
    let apart = format!("{}{}{}", call("add", "{}"), " ".repeat(BLANKS_MAX + 9), call("add", "{}"));
    check(format, &apart, &" ".repeat(BLANKS_MAX + 1), &[("add", "{}"), ("add", "{}")]);
    // Parts in another order, arguments as text, none at all, a brace too few.
    let other = r#"<tool_call>{"arguments":{"a":1},"name":"add"}</tool_call>"#;
    check(format, other, "", &[("add", r#"{"a":1}"#)]);
    let text = r#"<tool_call>{"name":"add","arguments":"{\"a\":1}"}</tool_call>"#;
    check(format, text, "", &[("add", r#"{"a":1}"#)]);
    check(format, r#"<tool_call>{"name":"add"}</tool_call>"#, "", &[("add", "{}")]);
    let short = r#"<tool_call>{"name":"add","arguments":{}</tool_call> so"#;
    check(format, short, " so", &[("add", "{}")]);
}

#[test]
fn llama_calls_are_read() {
    let format = ToolFormat::Llama3;
    let call = |name: &str| format!("{{\"name\": \"{name}\", \"parameters\": {CITY}}}");
    check(format, &call("weather"), "", &[("weather", CITY)]);
    check(format, &format!("\n<|python_tag|>{}", call("add")), "", &[("add", CITY)]);
    let two = format!("{}; {}", call("weather"), call("add"));
    check(format, &two, "", &[("weather", CITY), ("add", CITY)]);
    let typed = r#"{"type": "function", "name": "add", "parameters": {"a":1}}"#;
    check(format, typed, "", &[("add", r#"{"a":1}"#)]);
    // In the midst of text JSON is an example.
    let text = format!("Such as {}", call("add"));
    check(format, &text, &text, &[]);
}

#[test]
fn mistral_calls_are_read() {
    let format = ToolFormat::Mistral;
    let call = |name: &str| format!("{{\"name\": \"{name}\", \"arguments\": {CITY}}}");
    let one = format!("[TOOL_CALLS] [{}]", call("weather"));
    check(format, &one, "", &[("weather", CITY)]);
    let two = format!("[TOOL_CALLS][{}, {}]", call("weather"), call("add"));
    check(format, &two, "", &[("weather", CITY), ("add", CITY)]);
    let named = r#"[TOOL_CALLS] [{"name": "add", "arguments": {}, "id": "Vv1q0aZ9B"}] ok"#;
    check(format, named, " ok", &[("add", "{}")]);
}

#[test]
fn plain_json_calls_are_read() {
    let format = ToolFormat::Generic;
    let call = |name: &str| format!("{{\"name\": \"{name}\", \"arguments\": {CITY}}}");
    check(format, &format!(" {}\n", call("add")), "", &[("add", CITY)]);
    let two = format!("{}\n{}", call("weather"), call("add"));
    check(format, &two, "", &[("weather", CITY), ("add", CITY)]);
    check(format, &format!("{}\nThere.", call("add")), "\nThere.", &[("add", CITY)]);
}

#[test]
fn what_is_no_call_stays_text() {
    for format in FORMATS {
        for text in [
            "",
            " ",
            "Hello {\"name\": \"add\", \"arguments\": {}}",
            "{\"name\": \"nobody\", \"arguments\": {}}",
            "{\"name\": \"add\", \"arguments\": 5}",
            "{\"name\": \"add\", \"argu",
            "{\"answer\": 42}",
            "{nonsense}",
            "<tool_call>soon</tool_call>",
            "<tool_call>{\"name\": 7}</tool_call>",
            "<<tool_ca",
            "[TOOL_CALLS] none",
            "[TOOL_CALLS] [5]",
            "[TOOL_CALLS] [",
            "<|python_tag|>print(1)",
            "\n\n a\n b\n",
        ] {
            check(format, text, text, &[]);
        }
    }
}

#[test]
fn arguments_come_as_they_are_written() {
    let mut parser = parser(ToolFormat::Hermes);
    let begun = parser.push(r#"<tool_call>{"name": "add", "arguments": {"a"#);
    let part = |name: Option<&str>, arguments: &str| CallPart {
        index: 0,
        name: name.map(str::to_owned),
        arguments: arguments.into(),
    };
    assert_eq!(begun.calls, [part(Some("add"), "{\"a")]);
    assert_eq!(parser.push("\": 1").calls, [part(None, "\": 1")]);
    assert_eq!(parser.push("}}").calls, [part(None, "}")]);
    // The length asked for may end an answer anywhere.
    assert_eq!(parser.push("</tool"), Parsed::default());
    assert_eq!(parser.finish(), Parsed::default());
}

/// Pieces of answers in all formats, good and bad.
fn answer() -> impl Strategy<Value = String> {
    let parts = [
        "<tool_call>",
        "</tool_call>",
        "[TOOL_CALLS]",
        "<|python_tag|>",
        "{\"name\": \"add\", \"arguments\": ",
        "{\"name\":\"weather\",\"parameters\":",
        "{\"arguments\": {\"x\": \"}\"}, \"name\": \"add\"}",
        "{\"a\": [1, \"\\\"{\"]}",
        "{",
        "}",
        "[",
        "]",
        ", ",
        "; ",
        "\n",
        "é",
        "words ",
        "\"",
    ];
    prop::collection::vec(prop::sample::select(parts.to_vec()), 0..14)
        .prop_map(|parts| parts.concat())
}

proptest! {
    /// However an answer is cut, the same comes of it; and where it holds no call, all of it is text.
    #[test]
    fn cuts_change_nothing(answer in answer(), cuts in prop::collection::vec(0_usize..200, 0..9)) {
        for format in FORMATS {
            let whole = read(format, &[&answer]);
            let mut ends: Vec<usize> =
                cuts.iter().map(|cut| answer.floor_char_boundary(*cut)).collect();
            ends.extend([0, answer.len()]);
            ends.sort_unstable();
            let pieces: Vec<&str> = ends.windows(2).map(|w| &answer[w[0]..w[1]]).collect();
            prop_assert_eq!(&read(format, &pieces), &whole);
            if whole.calls.is_empty() {
                prop_assert_eq!(&whole.text, &answer);
            }
        }
    }
}
