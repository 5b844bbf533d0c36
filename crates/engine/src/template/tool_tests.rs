//! Conversations with functions, rendered by templates of each family as transformers renders them.

use super::*;
use serde_json::json;

/// The parts of the template of Qwen 2.5 that concern functions.
const QWEN: &str = r#"{%- if tools %}
    {{- '<|im_start|>system\n# Tools\n<tools>' }}
    {%- for tool in tools %}
        {{- "\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\n</tools>\nreturn within <tool_call></tool_call>:<|im_end|>\n" }}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content %}
            {{- '\n' + message.content }}
        {%- endif %}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {{- '\n<tool_call>\n{"name": "' }}
            {{- tool_call.name }}
            {{- '", "arguments": ' }}
            {{- tool_call.arguments | tojson }}
            {{- '}\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\n<tool_response>\n' }}
        {{- message.content }}
        {{- '\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
"#;

/// The parts of Mistral 7B v0.3's.
const MISTRAL: &str = r#"{{- bos_token }}
{%- for message in messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is defined and tools is not none and loop.first %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {{- '"' + key + '": ' + val|tojson }}
                    {%- if not loop.last %}{{- ", " }}{%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" }}{%- endif %}
            {%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {{- "[INST] " + message["content"] + "[/INST]" }}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for tool_call in message.tool_calls %}
            {%- set out = tool_call.function|tojson %}
            {{- out[:-1] }}
            {%- if not tool_call.id is defined or tool_call.id|length != 9 %}
                {{- raise_exception("Tool call IDs should be alphanumeric strings with length 9!") }}
            {%- endif %}
            {{- ', "id": "' + tool_call.id + '"}' }}
            {%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" + eos_token }}{%- endif %}
        {%- endfor %}
    {%- elif message["role"] == "tool" %}
        {{- '[TOOL_RESULTS] {"content": ' + message.content|string + ', ' }}
        {{- '"call_id": "' + message.tool_call_id + '"}[/TOOL_RESULTS]' }}
    {%- endif %}
{%- endfor %}
"#;

/// The parts of Llama 3.2's.
const LLAMA: &str = r#"{%- if tools is defined and tools is not none %}
    {{- "Environment: ipython\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\n\n" }}
    {%- endfor %}
{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- message['role'] + ': ' + message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("This model only supports single tool-calls at once!") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- 'assistant: ' }}
        {{- '{"name": "' + tool_call.name + '", ' }}
        {{- '"parameters": ' }}
        {{- tool_call.arguments | tojson }}
        {{- "}" }}
        {{- "<|eot_id|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "ipython: " + message.content + "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
"#;

/// Knows neither functions nor the system, and wants turns.
const GEMMA: &str = r#"{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{%- for message in messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('turns') }}{% endif %}
    {{- message['role'] + ': ' + message['content'] + '\n' }}
{%- endfor %}"#;

fn weather() -> Tool {
    Tool {
        name: "weather".into(),
        description: Some("Now, in <a> city".into()),
        parameters: Some(json!({"type": "object", "properties": {"city": {"type": "string"}}})),
        strict: false,
    }
}

/// A question, two calls, their results.
fn conversation() -> Vec<ChatMessage> {
    let call = |id: &str, city: &str| ToolCall {
        id: id.into(),
        name: "weather".into(),
        arguments: json!({ "city": city }).to_string(),
    };
    let result = |id: &str, text: &str| ChatMessage {
        tool_call_id: Some(id.into()),
        name: Some("weather".into()),
        ..ChatMessage::new("tool", text)
    };
    let calls = vec![call("call_one", "Rome"), call("call_two", "Oslo")];
    let asked = ChatMessage { tool_calls: calls, ..ChatMessage::new("assistant", "") };
    let user = ChatMessage::new("user", "Where is it warm?");
    vec![user, asked, result("call_one", "30"), result("call_two", "3")]
}

fn render(template: &str, messages: &[ChatMessage], tools: &[Tool]) -> String {
    let config = json!({"bos_token": "<s>", "eos_token": "</s>"});
    let config = config.as_object().expect("an object").clone();
    let file = Some(template.as_bytes().to_vec());
    let template = ChatTemplate::read(&config, file).expect("a template");
    template.render(messages, tools, true).expect("renders")
}

const DESCRIBED: &str = "{\"name\": \"weather\", \"description\": \"Now, in <a> city\", \
    \"parameters\": {\"type\": \"object\", \"properties\": {\"city\": {\"type\": \"string\"}}}}";

#[test]
fn qwen_is_told_of_functions_as_published() {
    let expected = format!(
        "<|im_start|>system\n# Tools\n<tools>\n{{\"type\": \"function\", \"function\": {DESCRIBED}}}\n\
         </tools>\nreturn within <tool_call></tool_call>:<|im_end|>\n\
         <|im_start|>user\nWhere is it warm?<|im_end|>\n\
         <|im_start|>assistant\n\
         <tool_call>\n{{\"name\": \"weather\", \"arguments\": {{\"city\": \"Rome\"}}}}\n</tool_call>\n\
         <tool_call>\n{{\"name\": \"weather\", \"arguments\": {{\"city\": \"Oslo\"}}}}\n</tool_call><|im_end|>\n\
         <|im_start|>user\n<tool_response>\n30\n</tool_response>\n\
         <tool_response>\n3\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
    );
    assert_eq!(render(QWEN, &conversation(), &[weather()]), expected);
}

#[test]
fn mistral_gets_ids_that_it_takes() {
    let expected = format!(
        "<s>[AVAILABLE_TOOLS] [{{\"type\": \"function\", \"function\": {DESCRIBED}}}][/AVAILABLE_TOOLS]\
         [INST] Where is it warm?[/INST]\
         [TOOL_CALLS] [{{\"name\": \"weather\", \"arguments\": {{\"city\": \"Rome\"}}, \"id\": \"000000000\"}}, \
         {{\"name\": \"weather\", \"arguments\": {{\"city\": \"Oslo\"}}, \"id\": \"000000001\"}}]</s>\
         [TOOL_RESULTS] {{\"content\": 30, \"call_id\": \"000000000\"}}[/TOOL_RESULTS]\
         [TOOL_RESULTS] {{\"content\": 3, \"call_id\": \"000000001\"}}[/TOOL_RESULTS]"
    );
    assert_eq!(render(MISTRAL, &conversation(), &[weather()]), expected);
}

#[test]
fn llama_gets_one_call_a_message() {
    let found = render(LLAMA, &conversation(), &[weather()]);
    let (functions, rest) = found.split_once("\n\nuser: ").expect("functions come first");
    assert!(functions.starts_with("Environment: ipython\n{\n    \"type\": \"function\",\n"));
    let expected = "Where is it warm?<|eot_id|>\
        assistant: {\"name\": \"weather\", \"parameters\": {\"city\": \"Rome\"}}<|eot_id|>\
        assistant: {\"name\": \"weather\", \"parameters\": {\"city\": \"Oslo\"}}<|eot_id|>\
        ipython: 30<|eot_id|>ipython: 3<|eot_id|>";
    assert_eq!(rest, expected);
}

#[test]
fn a_template_without_functions_gets_them_in_words() {
    let words = format!(
        "Functions:\n{DESCRIBED}\nTo call one, answer only {{\"name\": NAME, \"arguments\": {{...}}}}, \
         one call a line."
    );
    let talk = "Where is it warm?\n\
        assistant: {\"name\": \"weather\", \"arguments\": {\"city\": \"Rome\"}}\n\
        {\"name\": \"weather\", \"arguments\": {\"city\": \"Oslo\"}}\n\
        user: weather returned: 30\nweather returned: 3\n";
    let messages = conversation();
    let found = render(FALLBACK, &messages, &[weather()]);
    assert_eq!(found, format!("<s>system: {words}\nuser: {talk}assistant:"));
    let found = render(GEMMA, &messages, &[weather()]);
    assert_eq!(found, format!("user: {words}\n\n{talk}"));
    assert_eq!(render(GEMMA, &messages, &[]), format!("user: {talk}"));
    let system = [&[ChatMessage::new("system", "Be brief.")], &messages[..1]].concat();
    let found = render(FALLBACK, &system, &[weather()]);
    assert_eq!(
        found,
        format!("<s>system: Be brief.\n\n{words}\nuser: Where is it warm?\nassistant:")
    );
}

#[test]
fn a_model_may_have_a_template_for_functions() {
    let config = json!({"chat_template": [
        {"name": "default", "template": "plain"},
        {"name": "tool_use", "template": "{{ tools | length }} <tool_call>"},
    ]});
    let template = ChatTemplate::read(config.as_object().expect("an object"), None);
    let template = template.expect("a template");
    assert_eq!(template.tool_format(), ToolFormat::Hermes);
    let user = [ChatMessage::new("user", "hi")];
    assert_eq!(template.render(&user, &[], true).expect("renders"), "plain");
    assert_eq!(template.render(&user, &[weather()], true).expect("renders"), "1 <tool_call>");
}
