//! A GGUF file as a list of what stands in it, so that it can be changed in one place and still be read up to there.

use std::path::Path;

use arbitrary::Arbitrary;
use candle_core::quantized::gguf_file::{Content, Value};

/// Where tensors begin, unless `general.alignment` says otherwise.
const ALIGNMENT: usize = 32;

/// Keys that a change may add: those the engine looks for.
const KEYS: [&str; 24] = [
    "general.alignment",
    "general.architecture",
    "llama.attention.key_length",
    "llama.attention.scale",
    "llama.attention.sliding_window",
    "llama.attn_logit_softcapping",
    "llama.expert_count",
    "llama.rope.scale_linear",
    "llama.rope.scaling.attn_factor",
    "llama.rope.scaling.factor",
    "llama.rope.scaling.original_context_length",
    "llama.rope.scaling.type",
    "gemma3.attention.sliding_window_pattern",
    "gemma3.attention.scale",
    "phi3.rope.scaling.attn_factor",
    "tokenizer.ggml.add_bos_token",
    "tokenizer.ggml.add_eos_token",
    "tokenizer.ggml.add_space_prefix",
    "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.model",
    "tokenizer.ggml.pre",
    "tokenizer.ggml.remove_extra_whitespaces",
    "tokenizer.ggml.scores",
    "tokenizer.ggml.unknown_token_id",
];

/// Texts that some key or tensor has a meaning for.
const WORDS: [&str; 16] = [
    "llama",
    "qwen2",
    "qwen3",
    "gemma3",
    "phi3",
    "gpt2",
    "gpt-2",
    "llama-bpe",
    "qwen2",
    "tekken",
    "gpt-4o",
    "linear",
    "longrope",
    "<0x0A>",
    "output.weight",
    "rope_freqs.weight",
];

/// A tensor as the file's index describes it.
#[derive(Debug, Clone)]
pub struct Tensor {
    name: String,
    dimensions: Vec<u64>,
    dtype: u32,
    offset: u64,
}

/// Everything in a file.
#[derive(Debug, Clone)]
pub struct File {
    version: u32,
    metadata: Vec<(String, Value)>,
    tensors: Vec<Tensor>,
    data: Vec<u8>,
}

/// A number or a text of any type that metadata can have.
#[derive(Debug, Clone, Arbitrary)]
pub enum Scalar {
    /// One byte.
    U8(u8),
    /// Four bytes.
    U32(u32),
    /// Signed.
    I32(i32),
    /// Eight bytes.
    U64(u64),
    /// Single precision.
    F32(f32),
    /// A truth value.
    Bool(bool),
    /// Any text.
    Text(String),
    /// A text that means something.
    Word(u8),
    /// A list of that many numbers.
    Numbers(u8, i32),
    /// A list of texts.
    Texts(Vec<String>),
}

/// A change to a file.
#[derive(Debug, Clone, Arbitrary)]
pub enum Edit {
    /// Another value under a key that is there.
    Set(u8, Scalar),
    /// A key that was not there.
    Add(u8, Scalar),
    /// A key is gone.
    Remove(u8),
    /// One element of a list.
    Element(u8, u16, Scalar),
    /// A list ends early.
    Shorten(u8, u16),
    /// A tensor's dimensions.
    Dimensions(u8, Vec<u64>),
    /// A tensor's type.
    Type(u8, u8),
    /// Where a tensor begins.
    Offset(u8, u64),
    /// A tensor's name.
    Name(u8, Scalar),
    /// A tensor is gone.
    Drop(u8),
    /// A byte of the written file, counted from its beginning.
    Byte(u16, u8),
    /// The file ends early.
    Truncate(u16),
    /// The version of the format.
    Version(u8),
}

impl Scalar {
    fn value(self) -> Value {
        match self {
            Self::U8(number) => Value::U8(number),
            Self::U32(number) => Value::U32(number),
            Self::I32(number) => Value::I32(number),
            Self::U64(number) => Value::U64(number),
            Self::F32(number) => Value::F32(number),
            Self::Bool(flag) => Value::Bool(flag),
            Self::Text(text) => Value::String(text),
            Self::Word(index) => Value::String(WORDS[usize::from(index) % WORDS.len()].to_owned()),
            Self::Numbers(count, number) => {
                Value::Array(vec![Value::I32(number); usize::from(count)])
            }
            Self::Texts(texts) => Value::Array(texts.into_iter().map(Value::String).collect()),
        }
    }

    fn text(self) -> String {
        match self.value() {
            Value::String(text) => text,
            _ => "token_embd.weight".to_owned(),
        }
    }
}

impl File {
    /// Takes a file apart that is known to be good.
    pub fn read(path: &Path) -> Self {
        let bytes = fs_err::read(path).expect("a file just written");
        let content = Content::read(&mut std::io::Cursor::new(&bytes)).expect("a valid file");
        let start = usize::try_from(content.tensor_data_offset).expect("a small file");
        let mut metadata: Vec<_> = content.metadata.into_iter().collect();
        metadata.sort_by(|one, other| one.0.cmp(&other.0));
        let tensors = content.tensor_infos.into_iter().map(|(name, info)| Tensor {
            name,
            dimensions: info
                .shape
                .dims()
                .iter()
                .rev()
                .map(|side| *side as u64)
                .collect(),
            dtype: dtype_number(info.ggml_dtype),
            offset: info.offset,
        });
        let mut tensors: Vec<_> = tensors.collect();
        tensors.sort_by_key(|tensor| tensor.offset);
        Self {
            version: 3,
            metadata,
            tensors,
            data: bytes[start..].to_vec(),
        }
    }

    /// The file with these changes, as bytes.
    pub fn edited(&self, edits: Vec<Edit>) -> Vec<u8> {
        let mut file = self.clone();
        let mut damages = Vec::new();
        for edit in edits {
            match edit {
                Edit::Byte(..) | Edit::Truncate(_) => damages.push(edit),
                edit => file.change(edit),
            }
        }
        let mut bytes = file.bytes();
        for damage in damages {
            match damage {
                Edit::Byte(at, value) => {
                    if let Some(byte) = bytes.get_mut(usize::from(at)) {
                        *byte = value;
                    }
                }
                Edit::Truncate(length) => bytes.truncate(usize::from(length)),
                _ => {}
            }
        }
        bytes
    }

    fn change(&mut self, edit: Edit) {
        let keys = self.metadata.len();
        let tensors = self.tensors.len();
        let at = |index: u8, length: usize| usize::from(index) % length.max(1);
        match edit {
            Edit::Add(key, scalar) => {
                let key = KEYS[at(key, KEYS.len())].to_owned();
                self.metadata.push((key, scalar.value()));
            }
            Edit::Version(version) => self.version = version.into(),
            Edit::Set(key, scalar) if keys > 0 => self.metadata[at(key, keys)].1 = scalar.value(),
            Edit::Remove(key) if keys > 0 => drop(self.metadata.remove(at(key, keys))),
            Edit::Element(key, index, scalar) if keys > 0 => {
                if let Value::Array(values) = &mut self.metadata[at(key, keys)].1
                    && !values.is_empty()
                {
                    let index = usize::from(index) % values.len();
                    values[index] = scalar.value();
                }
            }
            Edit::Shorten(key, length) if keys > 0 => {
                if let Value::Array(values) = &mut self.metadata[at(key, keys)].1 {
                    values.truncate(length.into());
                }
            }
            Edit::Dimensions(which, dimensions) if tensors > 0 => {
                self.tensors[at(which, tensors)].dimensions = dimensions;
            }
            Edit::Type(which, dtype) if tensors > 0 => {
                self.tensors[at(which, tensors)].dtype = dtype.into();
            }
            Edit::Offset(which, offset) if tensors > 0 => {
                self.tensors[at(which, tensors)].offset = offset;
            }
            Edit::Name(which, name) if tensors > 0 => {
                self.tensors[at(which, tensors)].name = name.text();
            }
            Edit::Drop(which) if tensors > 0 => drop(self.tensors.remove(at(which, tensors))),
            _ => {}
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            put_text(&mut bytes, key);
            bytes.extend(type_number(value).to_le_bytes());
            put(&mut bytes, value);
        }
        for tensor in &self.tensors {
            put_text(&mut bytes, &tensor.name);
            bytes.extend((tensor.dimensions.len() as u32).to_le_bytes());
            tensor
                .dimensions
                .iter()
                .for_each(|side| bytes.extend(side.to_le_bytes()));
            bytes.extend(tensor.dtype.to_le_bytes());
            bytes.extend(tensor.offset.to_le_bytes());
        }
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        bytes.extend_from_slice(&self.data);
        bytes
    }
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

fn put(bytes: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(number) => bytes.push(*number),
        Value::I8(number) => bytes.extend(number.to_le_bytes()),
        Value::U16(number) => bytes.extend(number.to_le_bytes()),
        Value::I16(number) => bytes.extend(number.to_le_bytes()),
        Value::U32(number) => bytes.extend(number.to_le_bytes()),
        Value::I32(number) => bytes.extend(number.to_le_bytes()),
        Value::U64(number) => bytes.extend(number.to_le_bytes()),
        Value::I64(number) => bytes.extend(number.to_le_bytes()),
        Value::F32(number) => bytes.extend(number.to_le_bytes()),
        Value::F64(number) => bytes.extend(number.to_le_bytes()),
        Value::Bool(flag) => bytes.push(u8::from(*flag)),
        Value::String(text) => put_text(bytes, text),
        Value::Array(values) => {
            bytes.extend(values.first().map_or(4, type_number).to_le_bytes());
            bytes.extend((values.len() as u64).to_le_bytes());
            values.iter().for_each(|value| put(bytes, value));
        }
    }
}

/// The numbers of the GGUF specification.
fn type_number(value: &Value) -> u32 {
    match value {
        Value::U8(_) => 0,
        Value::I8(_) => 1,
        Value::U16(_) => 2,
        Value::I16(_) => 3,
        Value::U32(_) => 4,
        Value::I32(_) => 5,
        Value::F32(_) => 6,
        Value::Bool(_) => 7,
        Value::String(_) => 8,
        Value::Array(_) => 9,
        Value::U64(_) => 10,
        Value::I64(_) => 11,
        Value::F64(_) => 12,
    }
}

/// ggml's numbers of the types that the small models have.
fn dtype_number(dtype: candle_core::quantized::GgmlDType) -> u32 {
    use candle_core::quantized::GgmlDType;
    match dtype {
        GgmlDType::F16 => 1,
        GgmlDType::Q4_1 => 3,
        GgmlDType::Q8_0 => 8,
        _ => 0,
    }
}
