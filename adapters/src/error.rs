//! Everything that can be wrong with an adapter's files, names and paths.

use std::path::PathBuf;

use crate::json::shorten;

/// Most names an error message lists before it only counts the rest.
const LISTED: usize = 8;

/// Why an adapter was refused. Every variant carries the facts that its message states.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// The file system failed; the message names the path.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A file of the directory is not there.
    #[error("{} does not exist; an adapter directory holds adapter_config.json and adapter_model.safetensors", .path.display())]
    MissingFile {
        /// The absent file.
        path: PathBuf,
    },
    /// Something that is not a plain file stands in a file's place.
    #[error("{} is not a regular file", .path.display())]
    NotAFile {
        /// The offending path.
        path: PathBuf,
    },
    /// The weights are a pickle, which may run code when read.
    #[error("{} is a pickle and is never read; save the adapter as adapter_model.safetensors (safe_serialization=True)", .path.display())]
    PickledWeights {
        /// The pickle.
        path: PathBuf,
    },
    /// A file is larger than its limit.
    #[error("{file} has {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// Name of the file.
        file: String,
        /// Its size.
        bytes: u64,
        /// The largest size accepted.
        limit: u64,
    },
    /// A JSON file that does not parse.
    #[error("{file} is not a JSON object: {reason}")]
    InvalidJson {
        /// Name of the file.
        file: &'static str,
        /// What the parser met, and where.
        reason: String,
    },
    /// A field of adapter_config.json has a wrong type or an impossible value.
    #[error("adapter_config.json: {field} is {got}, expected {expected}")]
    InvalidField {
        /// Name of the field.
        field: String,
        /// What would be right.
        expected: &'static str,
        /// What was found.
        got: String,
    },
    /// A field of adapter_config.json turns on something that changes the result and that is not
    /// implemented.
    #[error("adapter_config.json: {field} = {got} is not supported; {accepted}")]
    Unsupported {
        /// Name of the field.
        field: String,
        /// Its value, shortened.
        got: String,
        /// What is supported in its place.
        accepted: &'static str,
    },
    /// A target names a module that the base does not have or that cannot be adapted here.
    #[error(
        "adapter_config.json: target module {target:?} matches nothing that can be adapted; the modules are {modules} of {layers} layers"
    )]
    UnknownTarget {
        /// The target as written.
        target: String,
        /// The names of the base's modules.
        modules: String,
        /// Layers of the base model.
        layers: usize,
    },
    /// A regular expression that does not compile or that costs too much.
    #[error("adapter_config.json: {field}: the pattern {pattern:?} cannot be used: {reason}")]
    InvalidPattern {
        /// The field that holds it.
        field: &'static str,
        /// The pattern, shortened.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A manifest that does not parse.
    #[error("manifest.json: {reason}")]
    InvalidManifest {
        /// What is wrong, and where.
        reason: String,
    },
    /// The adapter was made for another base model.
    #[error(
        "the adapter was made for the base model '{made_for}' and the one being served is '{served}': {reason}"
    )]
    WrongBase {
        /// The base it says it was made for, empty when it does not.
        made_for: String,
        /// The base in use.
        served: String,
        /// How that was seen.
        reason: String,
    },
    /// The weights are not a whole safetensors file.
    #[error(
        "adapter_model.safetensors cannot be read: {reason}; the file may be truncated or damaged"
    )]
    CorruptWeights {
        /// What the format's own checks say.
        reason: String,
    },
    /// A tensor has a type that is not a float type read here.
    #[error("tensor {tensor} has type {dtype}, expected F32, F16 or BF16")]
    UnsupportedDtype {
        /// Its name.
        tensor: String,
        /// Its type.
        dtype: String,
    },
    /// Tensors that no target of the configuration calls for.
    #[error("tensors that match no target module of the configuration ({}): {}", .tensors.len(), listed(.tensors))]
    UnmatchedTensors {
        /// All of them, sorted.
        tensors: Vec<String>,
    },
    /// Tensors that the configuration calls for and the file does not have.
    #[error("tensors that the configuration calls for and the file does not have ({}): {}", .tensors.len(), listed(.tensors))]
    MissingTensors {
        /// All of them, in the order of the model.
        tensors: Vec<String>,
    },
    /// Two spellings of one tensor's name in the same file.
    #[error("tensors {first} and {second} are the same matrix")]
    DuplicateTensor {
        /// One spelling.
        first: String,
        /// The other.
        second: String,
    },
    /// A matrix does not fit the base model or its configured rank.
    #[error("tensor {tensor} has shape {got:?}, expected {expected:?}")]
    WrongShape {
        /// Its name.
        tensor: String,
        /// The shape that the base and the rank call for.
        expected: Vec<usize>,
        /// The shape found.
        got: Vec<usize>,
    },
    /// A rank above the limit.
    #[error("module {module} has rank {rank}, the limit is {limit}")]
    RankTooHigh {
        /// Path of the module.
        module: String,
        /// Its rank.
        rank: usize,
        /// The largest rank accepted.
        limit: usize,
    },
    /// A NaN or an infinity among the weights.
    #[error("tensor {tensor} holds {value} at index {index}, every value must be finite")]
    NotFinite {
        /// Its name.
        tensor: String,
        /// Position in row-major order.
        index: usize,
        /// The value.
        value: f32,
    },
    /// Modules handed to the writer that its configuration does not describe.
    #[error("module {module} cannot be written: {reason}")]
    InvalidModule {
        /// Path of the module.
        module: String,
        /// What disagrees.
        reason: String,
    },
    /// A path that is absolute or leads outside of every root.
    #[error("the path {requested:?} leads outside of the folders that adapters may be loaded from")]
    PathEscapes {
        /// The path as requested.
        requested: String,
    },
    /// A path inside the roots where there is no directory.
    #[error("there is no directory {requested:?} in the folders that adapters may be loaded from")]
    PathNotFound {
        /// The path as requested.
        requested: String,
    },
    /// A name outside of the alphabet.
    #[error(
        "the adapter name {name:?} is not valid: 1 to 64 of A-Z a-z 0-9 . _ - and a letter or digit first"
    )]
    InvalidName {
        /// The name, shortened.
        name: String,
    },
    /// A name that already means something else.
    #[error("the adapter name {name:?} is reserved")]
    ReservedName {
        /// The name.
        name: String,
    },
    /// A version that is not a digest.
    #[error("{text:?} is not a version: 64 lower-case hex digits")]
    InvalidVersion {
        /// What was given, shortened.
        text: String,
    },
}

impl AdapterError {
    /// A stable name of the kind of error, in snake case, for clients to branch on.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io(_) => "io",
            Self::MissingFile { .. } => "missing_file",
            Self::NotAFile { .. } => "not_a_file",
            Self::PickledWeights { .. } => "pickled_weights",
            Self::TooLarge { .. } => "adapter_too_large",
            Self::InvalidJson { .. } => "invalid_json",
            Self::InvalidField { .. } => "invalid_config",
            Self::Unsupported { .. } => "unsupported_adapter",
            Self::UnknownTarget { .. } => "unknown_target",
            Self::InvalidPattern { .. } => "invalid_pattern",
            Self::InvalidManifest { .. } => "invalid_manifest",
            Self::WrongBase { .. } => "wrong_base",
            Self::CorruptWeights { .. } => "corrupt_weights",
            Self::UnsupportedDtype { .. } => "unsupported_dtype",
            Self::UnmatchedTensors { .. } => "unmatched_tensors",
            Self::MissingTensors { .. } => "missing_tensors",
            Self::DuplicateTensor { .. } => "duplicate_tensor",
            Self::WrongShape { .. } => "wrong_shape",
            Self::RankTooHigh { .. } => "rank_too_high",
            Self::NotFinite { .. } => "not_finite",
            Self::InvalidModule { .. } => "invalid_module",
            Self::PathEscapes { .. } => "path_escapes",
            Self::PathNotFound { .. } => "path_not_found",
            Self::InvalidName { .. } => "invalid_name",
            Self::ReservedName { .. } => "reserved_name",
            Self::InvalidVersion { .. } => "invalid_version",
        }
    }
}

/// The first few names and how many more there are.
fn listed(names: &[String]) -> String {
    let shown: Vec<String> = names
        .iter()
        .take(LISTED)
        .map(|name| shorten(name))
        .collect();
    let shown = shown.join(", ");
    match names.len().saturating_sub(LISTED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
