use super::*;

fn message(role: &str, content: &str) -> ChatMessage {
    ChatMessage {
        role: role.into(),
        content: content.into(),
    }
}

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::new(source.into(), Some("<s>".into()), None).expect("a valid template")
}

fn rendered(source: &str) -> String {
    let messages = [message("user", " <b>Hi</b> \"you\" é ")];
    (template(source).render(&messages, true)).expect("a template that runs")
}

#[test]
fn turns_are_written_as_the_tiny_model_reads_them() {
    let template = template(crate::testing::CHAT_TEMPLATE);
    let messages = [
        message("system", "Be brief."),
        message("user", "a <b> {{ c }}\n"),
    ];
    let expected =
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\na <b> {{ c }}\n<|im_end|>\n";
    let render = |prompt| {
        template
            .render(&messages, prompt)
            .expect("a template that runs")
    };
    assert_eq!(render(false), expected);
    assert_eq!(render(true), format!("{expected}<|im_start|>assistant\n"));
    assert_eq!(template.source(), crate::testing::CHAT_TEMPLATE);
}

#[test]
fn blocks_leave_no_blank_lines() {
    assert_eq!(
        rendered("a\n  {% if true %}\nb\n  {% endif %}\nc\n"),
        "a\nb\nc"
    );
}

#[test]
fn python_methods_and_slices_work() {
    assert_eq!(
        rendered("{{ messages[0].content.strip().upper()[:5] }}"),
        "<B>HI"
    );
    assert_eq!(rendered("{{ messages[0].get('name', 'x') }}"), "x");
    assert_eq!(
        rendered("{{ messages[0]['role'].startswith('us') }}"),
        "True"
    );
}

#[test]
fn missing_tokens_are_undefined() {
    assert_eq!(
        rendered("{{ bos_token }}{{ eos_token }}{{ eos_token is defined }}"),
        "<s>False"
    );
}

#[test]
fn json_is_written_as_python_writes_it() {
    assert_eq!(
        rendered("{{ {'a': [1, '<é>']} | tojson }}"),
        "{\"a\": [1, \"<é>\"]}"
    );
    assert_eq!(rendered("{{ [1] | tojson(indent=2) }}"), "[\n  1\n]");
}

#[test]
fn the_year_is_this_one() {
    let year = rendered("{{ strftime_now('%Y') }}");
    assert!(year.parse::<u32>().is_ok_and(|year| year >= 2025), "{year}");
}

#[test]
fn a_template_refuses_in_its_own_words() {
    let template = template("{{ raise_exception('roles must ' ~ 'alternate') }}");
    let error = template.render(&[], false).expect_err("a refusal");
    assert_eq!(
        error,
        TemplateError::Refused {
            message: "roles must alternate".into()
        }
    );
    insta::assert_snapshot!(error, @"the model's chat template refuses these messages: roles must alternate");
}

#[test]
fn failures_name_the_line() {
    let unparsed = ChatTemplate::new("a\n{% for x in %}".into(), None, None).expect_err("no Jinja");
    insta::assert_snapshot!(unparsed, @"the model's chat template does not parse: syntax error: unexpected end of block (in chat template:2)");
    let failed = template("\n{{ messages[7].content }}")
        .render(&[], false)
        .expect_err("no message");
    insta::assert_snapshot!(failed, @"the model's chat template fails on these messages: undefined value (in chat template:2)");
}

#[test]
fn a_file_without_a_template_has_none() {
    let metadata: HashMap<_, _> = (crate::testing::TinyModel::default().metadata().into_iter())
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
    let tokenizer = Tokenizer::from_metadata(&metadata).expect("a valid tokenizer");
    let of = |metadata: &_| ChatTemplate::from_metadata(metadata, &tokenizer);
    let found = of(&metadata)
        .expect("a valid template")
        .expect("a template");
    assert_eq!(found.eos_token.as_deref(), Some("<|im_end|>"));
    let mut other = metadata.clone();
    other.insert(TEMPLATE_KEY.into(), MetadataValue::Bool(true));
    assert_eq!(of(&other).err(), Some(TemplateError::NotText));
    other.remove(TEMPLATE_KEY);
    assert!(of(&other).expect("no template is no error").is_none());
}

#[test]
fn a_directory_has_its_template_in_one_of_two_files() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let metadata: HashMap<_, _> = (crate::testing::TinyModel::default().metadata().into_iter())
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
    let tokenizer = Tokenizer::from_metadata(&metadata).expect("a valid tokenizer");
    let read = || ChatTemplate::from_directory(folder.path(), &tokenizer);
    let write = |file: &str, text: &str| {
        fs_err::write(folder.path().join(file), text).expect("a writable folder");
    };
    let refusal = || {
        let error = read().expect_err("a refusal").to_string();
        error.replace(&folder.path().display().to_string(), "DIR")
    };
    let shown = || {
        let template = read().expect("a valid template").expect("a template");
        template.render(&[], false).expect("a template that runs")
    };
    assert!(read().expect("no file is no error").is_none());
    write("tokenizer_config.json", "{}");
    assert!(read().expect("no key is no error").is_none());
    write(
        "tokenizer_config.json",
        r#"{"chat_template": "one {{ eos_token }}"}"#,
    );
    assert_eq!(shown(), "one <|im_end|>");
    write(
        "tokenizer_config.json",
        r#"{"chat_template": [{"name": "tool_use", "template": "T"}, {"name": "rag", "template": "R"}]}"#,
    );
    insta::assert_snapshot!(refusal(), @"DIR/tokenizer_config.json: `chat_template` has no template called `default`; it has `tool_use`, `rag`");
    write(
        "tokenizer_config.json",
        r#"{"chat_template": [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]}"#,
    );
    assert_eq!(shown(), "D");
    write("chat_template.jinja", "its own {{ bos_token }}");
    assert_eq!(shown(), "its own <|im_start|>");
    fs_err::remove_file(folder.path().join("chat_template.jinja")).expect("a file just written");
    write("tokenizer_config.json", "{");
    insta::assert_snapshot!(refusal(), @"DIR/tokenizer_config.json: cannot read the chat template: EOF while parsing an object at line 1 column 1");
}

/// Renderings by transformers 5.23.0 (`apply_chat_template`) with the tokens of this test.
#[test]
fn what_published_templates_are_made_of_renders_as_in_transformers() {
    let messages = [
        message("system", " Be brief. "),
        message("user", " a\n"),
        message("assistant", "<think>\nhm\n</think>\n\nb"),
        message("user", "c"),
    ];
    let render = |source: &str| {
        ChatTemplate::new(source.into(), Some("<s>".into()), Some("</s>".into()))
            .expect("a valid template")
            .render(&messages, true)
            .expect("a template that runs")
    };
    let alternating = "\
{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set rule = messages[0]['content'] | trim %}\
{% else %}{% set rest = messages %}{% endif %}{% for turn in rest %}\
{% if (turn['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('turns must alternate') }}{% endif %}\
{{ bos_token if loop.first and rule is defined }}[{{ loop.index }}/{{ loop.length }}]\
{{ turn['content'].strip() ~ (eos_token if loop.last else '') }}{% endfor %}";
    assert_eq!(
        render(alternating),
        "<s>[1/3]a[2/3]<think>\nhm\n</think>\n\nb[3/3]c</s>"
    );
    let thinking = r"{%- set state = namespace(asked=0, last=messages | length - 1) %}
{%- for turn in messages[::-1] %}
    {%- if turn.role == 'user' and turn.content is string and not turn.content.startswith('<') %}
        {%- set state.asked = state.asked + 1 %}
        {%- set state.last = [state.last, messages | length - 1 - loop.index0] | min %}
    {%- endif %}
{%- endfor %}
{{- state.asked ~ ' ' ~ state.last }}
{%- for turn in messages if turn.role == 'assistant' %}
    {%- set words = turn.content.split('</think>')[-1].lstrip('\n') %}
    {{- '|' + turn.content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') + '|' + words }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '\n>' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- 'quiet' }}
    {%- endif %}
{%- endif %}
";
    assert_eq!(render(thinking), "2 1|hm|b\n>");
    let tools = r"{%- if not tools is defined %}{%- set tools = 'undefined' %}{%- endif %}
{{- tools is none }} {{ documents is not none }} {{ date is defined }}
{%- for turn in messages | selectattr('role', 'equalto', 'user') | list %}
{%- generation %}
{{ turn | tojson }}
{%- endgeneration %}
{%- if 'tool_calls' in turn %}call{% endif %}
{%- endfor %} {{ {'z': [1, none, true], 'a': 'é'} | tojson }} {{ messages | map(attribute='role') | join(',') }}";
    assert_eq!(
        render(tools),
        r#"True False False{"role": "user", "content": " a\n"}{"role": "user", "content": "c"} {"z": [1, null, true], "a": "é"} system,user,assistant,user"#
    );
}

#[test]
fn characters_outside_ascii_are_escaped_on_request() {
    assert_eq!(
        rendered("{{ 'é🚆' | tojson(ensure_ascii=True) }}"),
        r#""\u00e9\ud83d\ude86""#
    );
}

fn failed(source: &str) -> TemplateError {
    template(source)
        .render(&[message("user", "x")], false)
        .expect_err("a refusal")
}

#[test]
fn a_tag_whose_ends_share_a_percent_sign_is_a_mistake_of_the_template() {
    for source in [
        "{% generation %}x{%}",
        "generation {%}%}",
        "{%{% generation %}",
    ] {
        let error = ChatTemplate::new(source.into(), None, None).expect_err("no Jinja");
        assert!(matches!(error, TemplateError::Syntax { .. }), "{error}");
    }
}

#[test]
fn a_template_that_does_not_end_runs_out_of_instructions() {
    let rows = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
    assert_eq!(failed(rows), TemplateError::Endless);
    let macros = "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}";
    assert!(matches!(
        failed(macros),
        TemplateError::Failed { .. } | TemplateError::Endless
    ));
}

#[test]
fn a_template_that_writes_too_much_is_stopped() {
    let long = "{% for a in range(9999) %}{{ 'x' * 99999 }}{% endfor %}";
    assert_eq!(failed(long), TemplateError::TooMuchText);
    let one = "{{ 'x' * 99999999 }}";
    assert_eq!(failed(one), TemplateError::TooMuchText);
}

#[test]
fn a_template_longer_than_any_is_not_read() {
    let error = ChatTemplate::new("x".repeat(MOST_SOURCE + 1), None, None).expect_err("a refusal");
    assert_eq!(
        error,
        TemplateError::TooLarge {
            bytes: MOST_SOURCE + 1
        }
    );
}

#[test]
fn a_number_in_a_template_buys_no_memory() {
    let asked = [
        "{{ [1] | batch(9999999999999) }}",
        "{{ [1] | slice(9999999999999) }}",
        "{{ 'x' | indent(9999999999999, true) }}",
        "{{ 'x' | indent(width=9999999999999, first=true) }}",
        "{{ '%9999999999999d' | format(1) }}",
        "{{ '%99999999999999999999999d' | format(1) }}",
        "{{ '%*d' | format(9999999999999, 1) }}",
        "{{ '{:9999999999999}'.format(1) }}",
        "{{ '{:{}}'.format(1, 9999999999999) }}",
        "{{ [1] | tojson(indent=9999999999999) }}",
        "{{ ('x' * 99999).replace('x', 'y' * 99999) }}",
        "{{ ('x' * 99999) | replace('x', 'y' * 99999) }}",
        "{{ ('x' * 99999).join(range(99999)) }}",
        "{{ range(99999) | join('x' * 99999) }}",
    ];
    for source in asked {
        let error = failed(source);
        assert!(error.to_string().contains("too large"), "{source}: {error}");
    }
}

#[test]
fn what_a_template_may_ask_for_still_works() {
    assert_eq!(
        rendered("{{ [1, 2, 3] | batch(2) | list }}"),
        "[[1, 2], [3]]"
    );
    assert_eq!(rendered("{{ 'a\nb' | indent(2) }}"), "a\n  b");
    assert_eq!(rendered("{{ '%5d|%-3s|' | format(7, 'x') }}"), "    7|x  |");
    assert_eq!(rendered("{{ '{:>4}'.format(2024) }}"), "2024");
    assert_eq!(rendered("{{ '{}'.format(20240101) }}"), "20240101");
    assert_eq!(
        rendered("{{ 'a-b'.replace('-', '+') }}{{ 'ab' | replace('b', 'c') }}"),
        "a+bac"
    );
    assert_eq!(
        rendered("{{ ', '.join(['a', 1]) }}|{{ ['a', 1] | join('-') }}|{{ 'ab' | join }}"),
        "a, 1|a-1|ab"
    );
}

/// Published templates take some two hundred instructions for a turn.
#[test]
fn a_long_conversation_is_far_from_the_limit() {
    let turns: Vec<ChatMessage> = (0..10_000)
        .map(|turn| message(if turn % 2 == 0 { "user" } else { "assistant" }, "yes"))
        .collect();
    let template = template(crate::testing::CHAT_TEMPLATE);
    let text = template.render(&turns, true).expect("ten thousand turns");
    assert_eq!(text.matches("<|im_start|>").count(), 10_001);
}
