//! Any text to token ids, any ids to text, and a stream of tokens put together with stop strings.
#![no_main]

use engine::Tokenizer;
use engine::text::TextAssembler;
use fuzz::models;
use libfuzzer_sys::fuzz_target;

// The first byte chooses a tokenizer; a text follows, and after a zero byte what is read as a stop string and as ids.
fuzz_target!(|data: &[u8]| {
    let (choices, rest) = fuzz::choice(data);
    let [text, stop] = fuzz::parts(rest);
    let tokenizers = models::tokenizers();
    let index = usize::from(choices) % tokenizers.len();
    let tokenizer = &tokenizers[index];
    let text = String::from_utf8_lossy(text);
    let ids = tokenizer.encode(&text, true);
    assert!(ids.iter().all(|id| (*id as usize) < tokenizer.vocabulary()));
    // Qwen's words are brought into a normal form first, and sentence pieces write a space as a character of its own.
    let is_changed = matches!(index, 4 | 7);
    if !is_changed {
        assert_eq!(tokenizer.decode(&tokenizer.encode(&text, false)), text);
    }
    let _ = tokenizer.encode_continuation(&text);
    let wide = stop.chunks(4).map(|chunk| {
        let mut bytes = [0; 4];
        bytes[..chunk.len()].copy_from_slice(chunk);
        u32::from_le_bytes(bytes)
    });
    let wide: Vec<u32> = stop
        .iter()
        .map(|byte| u32::from(*byte))
        .chain(wide)
        .collect();
    let _ = tokenizer.decode(&wide);
    let _ = tokenizer.decode_text(&wide);
    assembled(tokenizer, &wide, &String::from_utf8_lossy(stop));
    assembled(tokenizer, &ids, &String::from_utf8_lossy(stop));
});

/// What a stream shows is the whole text up to its first stop string.
fn assembled(tokenizer: &Tokenizer, ids: &[u32], stop: &str) {
    let stop = stop.chars().take(3).collect::<String>();
    let mut assembler = TextAssembler::new(vec![stop.clone()]);
    let mut shown = String::new();
    let mut bytes = Vec::new();
    for id in ids {
        let piece = assembler.push(tokenizer.token_bytes(*id), tokenizer.is_special(*id));
        shown += &piece.text;
        if !tokenizer.is_special(*id) {
            bytes.extend_from_slice(tokenizer.token_bytes(*id));
        }
    }
    shown += &assembler.finish();
    let whole = String::from_utf8_lossy(&bytes);
    let end = if stop.is_empty() {
        None
    } else {
        whole.find(&stop)
    };
    assert_eq!(shown, whole[..end.unwrap_or(whole.len())]);
}
