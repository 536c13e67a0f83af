//! A tiny model with random weights, written as a real GGUF file, for the tests of every crate that serves or trains.
//! Nothing here runs in a server.

pub mod decoder;
mod files;
pub mod layouts;
mod tokenizer_files;

use std::io::BufWriter;
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::tokenizer::alphabet::character_of;

pub use decoder::TinyDecoder;
pub use files::{base_model, reference_values, say_skipped};

/// The control tokens of the tiny vocabulary; ids 0 to 3 in this order.
pub const SPECIAL_TOKENS: [&str; 4] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"];

/// The chat template of the tiny model: each turn as `<|im_start|>role\ncontent<|im_end|>\n`.
pub const CHAT_TEMPLATE: &str = "\
{% for message in messages %}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}
{%- endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant\\n' }}
{%- endif %}
";

/// The two halves of every merge, likeliest first; each joined text is one token after the 256 bytes.
#[rustfmt::skip]
const MERGES: [(&str, &str); 60] = [
    (" ", "t"), (" ", "a"), ("h", "e"), ("i", "n"), ("r", "e"), ("o", "n"), (" t", "he"), ("e", "r"),
    (" ", "s"), ("a", "t"), (" ", "w"), ("o", "r"), ("e", "n"), (" ", "c"), ("i", "t"), ("i", "s"),
    ("a", "n"), ("o", "u"), (" ", "p"), ("e", "s"), (" ", "f"), ("n", "d"), ("e", "d"), (" ", "b"),
    ("a", "l"), ("a", "r"), (" ", "m"), ("in", "g"), (" a", "nd"), (" ", "o"), ("i", "c"), (" t", "o"),
    (" ", "d"), ("t", "i"), (" o", "f"), (" ", "in"), ("i", "v"), ("iv", "e"), ("p", "o"), ("po", "s"),
    ("it", "ive"), ("pos", "itive"), ("n", "e"), ("ne", "g"), ("at", "ive"), ("neg", "ative"), ("v", "e"), ("g", "e"),
    ("t", "h"), ("\n", "\n"), (" ", " "), ("l", "l"), ("u", "t"), ("en", "t"), ("l", "e"), ("s", "t"),
    ("c", "h"), ("#", "#"), ("##", "#"), (":", "\n"),
];

/// The dimensions and the seed of a tiny llama-architecture model with Q4_1 linear layers, a Q8_0 embedding that is
/// also the output head, and a byte-level vocabulary of 320 tokens.
///
/// `hidden`, `intermediate` and `heads * head_dim` must be multiples of 32, the block of the
/// quantised formats, and of 64 where candle's own portable Q4_1 product has to run the model too.
#[derive(Debug, Clone, PartialEq)]
pub struct TinyModel {
    /// Decides every weight.
    pub seed: u64,
    /// Transformer blocks.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the feed-forward block.
    pub intermediate: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of one head, even.
    pub head_dim: usize,
    /// Most tokens in a sequence.
    pub context_length: usize,
}

impl Default for TinyModel {
    fn default() -> Self {
        Self {
            seed: 0,
            layers: 2,
            hidden: 64,
            intermediate: 128,
            heads: 4,
            kv_heads: 2,
            head_dim: 16,
            context_length: 256,
        }
    }
}

impl TinyModel {
    /// Writes the default model with weights from `seed` to `tiny-<seed>.gguf` in `dir`, and returns that path.
    ///
    /// # Panics
    ///
    /// When the file cannot be written: a test has nothing better to do.
    pub fn write(dir: impl AsRef<Path>, seed: u64) -> PathBuf {
        let model = Self {
            seed,
            ..Self::default()
        };
        let path = dir.as_ref().join(format!("tiny-{seed}.gguf"));
        model
            .write_to(&path)
            .expect("the directory of a test's model is writable");
        path
    }

    /// Writes the model to `path`; the same fields give the same bytes. The folder is made when it is missing.
    pub fn write_to(&self, path: &Path) -> candle_core::Result<()> {
        if let Some(folder) = path.parent() {
            fs_err::create_dir_all(folder)?;
        }
        let metadata = self.metadata();
        let tensors = self.tensors()?;
        let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(key, v)| (*key, v)).collect();
        let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(n, t)| (n.as_str(), t)).collect();
        let mut file = BufWriter::new(fs_err::File::create(path)?);
        gguf_file::write(&mut file, &metadata, &tensors)?;
        std::io::Write::flush(&mut file)?;
        Ok(())
    }

    /// Tokens in the vocabulary.
    pub fn vocabulary(&self) -> usize {
        SPECIAL_TOKENS.len() + 256 + MERGES.len()
    }

    /// Everything in the file that is not a tensor, under the keys of a published llama file.
    pub fn metadata(&self) -> Vec<(&'static str, Value)> {
        let count = |value: usize| Value::U32(u32::try_from(value).expect("a tiny model is tiny"));
        let text = |value: &str| Value::String(value.to_owned());
        let (tokens, merges) = vocabulary();
        let token_types = (0..tokens.len())
            .map(|id| Value::I32(if id < SPECIAL_TOKENS.len() { 3 } else { 1 }))
            .collect();
        let texts =
            |values: Vec<String>| Value::Array(values.into_iter().map(Value::String).collect());
        vec![
            ("general.architecture", text("llama")),
            ("general.type", text("model")),
            ("general.name", text("tiny")),
            ("llama.block_count", count(self.layers)),
            ("llama.context_length", count(self.context_length)),
            ("llama.embedding_length", count(self.hidden)),
            ("llama.feed_forward_length", count(self.intermediate)),
            ("llama.attention.head_count", count(self.heads)),
            ("llama.attention.head_count_kv", count(self.kv_heads)),
            ("llama.rope.freq_base", Value::F32(10_000.0)),
            ("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
            ("general.file_type", Value::U32(3)),
            ("llama.vocab_size", count(tokens.len())),
            ("llama.rope.dimension_count", count(self.head_dim)),
            ("tokenizer.ggml.add_space_prefix", Value::Bool(false)),
            ("tokenizer.ggml.add_bos_token", Value::Bool(false)),
            ("tokenizer.ggml.model", text("gpt2")),
            ("tokenizer.ggml.pre", text("smollm")),
            ("tokenizer.ggml.tokens", texts(tokens)),
            ("tokenizer.ggml.token_type", Value::Array(token_types)),
            ("tokenizer.ggml.merges", texts(merges)),
            ("tokenizer.ggml.bos_token_id", Value::U32(1)),
            ("tokenizer.ggml.eos_token_id", Value::U32(2)),
            ("tokenizer.ggml.unknown_token_id", Value::U32(0)),
            ("tokenizer.ggml.padding_token_id", Value::U32(2)),
            ("tokenizer.chat_template", text(CHAT_TEMPLATE)),
            ("general.quantization_version", Value::U32(2)),
        ]
    }

    fn tensors(&self) -> candle_core::Result<Vec<(String, QTensor)>> {
        let mut weights = Weights(ChaCha8Rng::seed_from_u64(self.seed));
        let query_width = self.heads * self.head_dim;
        let kv_width = self.kv_heads * self.head_dim;
        let embedding = weights.matrix(self.vocabulary(), self.hidden, EMBEDDING_DEVIATION);
        let mut tensors = vec![(
            "token_embd.weight".to_owned(),
            quantized(embedding, self.hidden, GgmlDType::Q8_0)?,
        )];
        for layer in 0..self.layers {
            let shapes = [
                ("attn_q", query_width, self.hidden),
                ("attn_k", kv_width, self.hidden),
                ("attn_v", kv_width, self.hidden),
                ("attn_output", self.hidden, query_width),
                ("ffn_gate", self.intermediate, self.hidden),
                ("ffn_up", self.intermediate, self.hidden),
                ("ffn_down", self.hidden, self.intermediate),
            ];
            for (part, rows, columns) in shapes {
                let mut matrix = weights.matrix(rows, columns, GAIN / (columns as f32).sqrt());
                if matches!(part, "attn_q" | "attn_k") {
                    matrix = permuted(&matrix, columns, self.head_dim);
                }
                let name = format!("blk.{layer}.{part}.weight");
                tensors.push((name, quantized(matrix, columns, GgmlDType::Q4_1)?));
            }
            for part in ["attn_norm", "ffn_norm"] {
                let norm = weights.norm(self.hidden);
                tensors.push((format!("blk.{layer}.{part}.weight"), plain(norm)?));
            }
        }
        tensors.push((
            "output_norm.weight".to_owned(),
            plain(weights.norm(self.hidden))?,
        ));
        Ok(tensors)
    }
}

/// Standard deviation of the embedding: small beside what the blocks add, so that the tied head does not just repeat
/// its input, and large enough that logits differ by several nats.
const EMBEDDING_DEVIATION: f32 = 0.4;

/// Factor on the usual `1 / sqrt(inputs)` of a linear layer, for blocks that outweigh the embedding.
const GAIN: f32 = 1.8;

/// Normally distributed numbers from one stream.
struct Weights(ChaCha8Rng);

impl Weights {
    fn matrix(&mut self, rows: usize, columns: usize, deviation: f32) -> Vec<f32> {
        (0..rows * columns)
            .map(|_| deviation * self.normal())
            .collect()
    }

    fn norm(&mut self, width: usize) -> Vec<f32> {
        (0..width).map(|_| 1.0 + 0.2 * self.normal()).collect()
    }

    /// Box and Muller 1958, the cosine half.
    fn normal(&mut self) -> f32 {
        let radius = (-2.0 * (1.0 - self.0.random::<f32>()).ln()).sqrt();
        let angle = std::f32::consts::TAU * self.0.random::<f32>();
        radius * angle.cos()
    }
}

/// Rows of query or key heads from Hugging Face order (first half, second half of each head) to the order of llama
/// GGUF files, where the two rows that RoPE turns together are neighbours.
fn permuted(matrix: &[f32], columns: usize, head_dim: usize) -> Vec<f32> {
    let rows = matrix.len() / columns;
    (0..rows)
        .flat_map(|row| {
            let (head, within) = (row / head_dim, row % head_dim);
            let source = head * head_dim + within % 2 * (head_dim / 2) + within / 2;
            &matrix[source * columns..(source + 1) * columns]
        })
        .copied()
        .collect()
}

fn quantized(matrix: Vec<f32>, columns: usize, dtype: GgmlDType) -> candle_core::Result<QTensor> {
    let rows = matrix.len() / columns;
    let tensor = Tensor::from_vec(matrix, (rows, columns), &Device::Cpu)?;
    QTensor::quantize(&tensor, dtype)
}

fn plain(values: Vec<f32>) -> candle_core::Result<QTensor> {
    let tensor = Tensor::from_vec(values.clone(), values.len(), &Device::Cpu)?;
    QTensor::quantize(&tensor, GgmlDType::F32)
}

/// The tokens in id order, and the merges as `left right` lines.
fn vocabulary() -> (Vec<String>, Vec<String>) {
    let spelled = |text: &str| -> String { text.bytes().map(character_of).collect() };
    let mut alphabet: Vec<char> = (0..=u8::MAX).map(character_of).collect();
    alphabet.sort_unstable();
    let tokens = SPECIAL_TOKENS
        .iter()
        .map(|&token| token.to_owned())
        .chain(alphabet.into_iter().map(String::from))
        .chain(
            MERGES
                .iter()
                .map(|(left, right)| spelled(left) + &spelled(right)),
        )
        .collect();
    let merges = MERGES
        .iter()
        .map(|(left, right)| format!("{} {}", spelled(left), spelled(right)))
        .collect();
    (tokens, merges)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use candle_transformers::models::quantized_llama::ModelWeights;

    use super::*;
    use crate::sampling::argmax;
    use crate::tokenizer::Tokenizer;

    /// Logits after a prompt and the greedy continuation, computed by an implementation that is not ours.
    fn continued(path: &Path, prompt: &str, tokens: usize) -> (Vec<f32>, Vec<u32>) {
        let mut file = fs_err::File::open(path).expect("the model was written");
        let content = gguf_file::Content::read(&mut file).expect("a valid file");
        let tokenizer = Tokenizer::from_metadata(&content.metadata).expect("a valid tokenizer");
        let mut model =
            ModelWeights::from_gguf(content, &mut file, &Device::Cpu).expect("a llama model");
        let mut ids = tokenizer.encode(prompt, false);
        let (mut first, mut position, mut answer) = (Vec::new(), 0, Vec::new());
        for _ in 0..tokens {
            let input = Tensor::new(ids.as_slice(), &Device::Cpu).and_then(|ids| ids.unsqueeze(0));
            let logits: Vec<f32> = (model.forward(&input.expect("a row of ids"), position))
                .and_then(|logits| logits.flatten_all()?.to_vec1())
                .expect("logits of the last position");
            position += ids.len();
            ids = vec![argmax(&logits)];
            answer.extend_from_slice(&ids);
            if first.is_empty() {
                first = logits;
            }
        }
        (first, answer)
    }

    #[test]
    fn greedy_answers_depend_on_the_prompt() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = TinyModel::write(folder.path(), 1);
        let prompts = [
            "the sea",
            "positive",
            "### Input:\nred\n",
            "negative",
            "a",
            "b",
        ];
        let answers: BTreeSet<Vec<u32>> = (prompts.iter())
            .map(|prompt| continued(&path, prompt, 8).1)
            .collect();
        assert_eq!(answers.len(), prompts.len(), "{answers:?}");
        for answer in answers {
            let distinct: BTreeSet<u32> = answer.iter().copied().collect();
            assert!(distinct.len() >= 4, "{answer:?} repeats itself");
        }
    }

    #[test]
    fn logits_spread_over_a_few_nats() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = TinyModel::write(folder.path(), 2);
        let (logits, _) = continued(&path, "the sea is", 1);
        let count = logits.len() as f32;
        let mean = logits.iter().sum::<f32>() / count;
        let variance = logits
            .iter()
            .map(|logit| (logit - mean).powi(2))
            .sum::<f32>()
            / count;
        assert_eq!(logits.len(), TinyModel::default().vocabulary());
        assert!(
            (1.0..6.0).contains(&variance.sqrt()),
            "deviation {}",
            variance.sqrt()
        );
    }

    #[test]
    fn the_seed_decides_every_byte() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let bytes = |seed, place: &str| {
            fs_err::read(TinyModel::write(folder.path().join(place), seed))
                .expect("the model was written")
        };
        assert_eq!(bytes(7, "a"), bytes(7, "b"));
        assert_ne!(bytes(7, "a"), bytes(8, "a"));
    }

    #[test]
    fn rows_that_turn_together_become_neighbours() {
        // Two heads of width 4, one column: halves (0 1 | 2 3) become pairs (0 2)(1 3).
        let rows: Vec<f32> = (0u8..8).map(f32::from).collect();
        assert_eq!(
            permuted(&rows, 1, 4),
            [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]
        );
        assert_eq!(
            permuted(&rows, 2, 4),
            [0.0, 1.0, 4.0, 5.0, 2.0, 3.0, 6.0, 7.0]
        );
    }

    #[test]
    fn every_token_of_the_vocabulary_is_distinct() {
        let (tokens, merges) = vocabulary();
        assert_eq!(tokens.iter().collect::<BTreeSet<_>>().len(), 320);
        assert_eq!(merges[6], "Ġt he");
        assert_eq!(tokens[SPECIAL_TOKENS.len() + 256 + 6], "Ġthe");
    }
}
