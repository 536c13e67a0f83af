//! Chat templates: hostile templates, and hostile messages under the templates that models have.
#![no_main]

use engine::testing::CHAT_TEMPLATE;
use engine::{ChatMessage, ChatTemplate};
use libfuzzer_sys::fuzz_target;

/// What published templates do with turns: roles that must alternate, text that is stripped and split, JSON.
const ALTERNATING: &str = "\
{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% else %}{% set rest = messages %}{% endif %}\
{% for turn in rest %}{% if (turn['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('alternate') }}{% endif %}\
{{ bos_token if loop.first }}{{ turn['content'].strip().split('</think>')[-1] | tojson }}{% endfor %}";

/// Most bytes of a text for each byte of the messages: JSON writes six for some.
const MOST_GROWTH: usize = 16;

// The first byte chooses; a template and turns follow, a zero byte between them, role and text of a turn in lines of their own.
fuzz_target!(|data: &[u8]| {
    let (choices, rest) = fuzz::choice(data);
    let [template, turns] = fuzz::parts(rest);
    let turns = String::from_utf8_lossy(turns).into_owned();
    let lines: Vec<&str> = turns.split('\n').collect();
    let messages = lines.chunks(2).map(|turn| ChatMessage {
        role: turn[0].to_owned(),
        content: turn.get(1).copied().unwrap_or_default().to_owned(),
    });
    let messages: Vec<ChatMessage> = messages.collect();
    let hostile = String::from_utf8_lossy(template).into_owned();
    let (source, is_hostile) = match choices & 3 {
        0 => (CHAT_TEMPLATE.to_owned(), false),
        1 => (ALTERNATING.to_owned(), false),
        _ => (hostile, true),
    };
    let Ok(template) = ChatTemplate::new(source, Some("<s>".to_owned()), None) else {
        assert!(is_hostile);
        return;
    };
    if let Ok(text) = template.render(&messages, choices & 4 != 0) {
        let most = if is_hostile {
            64 << 20
        } else {
            MOST_GROWTH * turns.len() + 64 * messages.len() + 256
        };
        assert!(text.len() <= most, "{} bytes", text.len());
    }
});
