//! What an adapter without sense makes of every output.

/// What an adapter without sense makes of every output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Degeneration {
    /// Logits that are not numbers.
    #[error("makes the model's output non-finite; its weights are too large to serve")]
    NotFinite,
    /// All tokens as likely as each other.
    #[error(
        "makes every next token as likely as any other; its weights have wiped out what the model knows"
    )]
    Uniform,
}
