//! What goes into one step, in buffers that are used again from step to step. Who is chosen is decided elsewhere.

use std::ops::Range;
use std::sync::Arc;

use crate::adapter::PreparedAdapter;
use crate::batch::{Segment, Wanted};

/// The rows of one step.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) entries: Vec<Planned>,
    /// Tokens of all entries.
    pub(super) tokens: Vec<u32>,
    /// Block tables of all entries.
    pub(super) tables: Vec<u32>,
    /// What may follow the token that is planned next.
    pub(super) guesses: Vec<u32>,
    /// Room for the segments of a step; empty between steps.
    pub(super) segments: Vec<Segment<'static>>,
}

/// Consecutive tokens of a running sequence that go into a step.
pub(super) struct Planned {
    /// Index into the running sequences.
    pub(super) sequence: usize,
    pub(super) tenant: usize,
    pub(super) work: Work,
    /// Where in the plan's tokens.
    pub(super) tokens: Range<usize>,
    /// Position of the first token.
    pub(super) start: usize,
    /// Where in the plan's tables.
    pub(super) table: Range<usize>,
    pub(super) wanted: Wanted,
    /// Position from which on the tokens' hidden states are wanted, `usize::MAX` for none.
    pub(super) hidden_from: usize,
    pub(super) adapter: Option<Arc<PreparedAdapter>>,
}

/// What an entry's rows are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Known tokens that are computed in chunks.
    Prompt,
    /// The last token of an answer, and guesses at those that follow.
    Decode,
    /// Tokens of the continuation of that number, scored behind the sequence's prompt.
    Branch(usize),
}

impl Work {
    /// What a row costs its tenant, in the units of Sheng et al. 2024 (*Fairness in Serving Large Language Models*): a
    /// generated token counts as two of a prompt.
    pub(super) fn charge(self) -> u64 {
        match self {
            Self::Prompt | Self::Branch(_) => 1,
            Self::Decode => 2,
        }
    }
}

impl Planned {
    /// Where in the batch: beside rows of the same adapter, then in a fixed order.
    pub(super) fn place(&self) -> (usize, usize, usize) {
        (self.tenant, self.sequence, self.tokens.start)
    }
}

impl Plan {
    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.tokens.clear();
        self.tables.clear();
    }

    /// Keeps a block table in two parts; returns where.
    pub(super) fn add_table(&mut self, shared: &[u32], own: &[u32]) -> Range<usize> {
        let first = self.tables.len();
        self.tables.extend_from_slice(shared);
        self.tables.extend_from_slice(own);
        first..self.tables.len()
    }

    pub(super) fn rows(&self) -> usize {
        self.entries.iter().map(|entry| entry.tokens.len()).sum()
    }

    /// Rows of answers, guesses included.
    pub(super) fn decode_rows(&self) -> usize {
        let decodes = self.entries.iter();
        let decodes = decodes.filter(|entry| entry.work == Work::Decode);
        decodes.map(|entry| entry.tokens.len()).sum()
    }

    pub(super) fn segment<'a>(&'a self, planned: &'a Planned) -> Segment<'a> {
        Segment {
            tokens: &self.tokens[planned.tokens.clone()],
            start: planned.start,
            table: &self.tables[planned.table.clone()],
            adapter: planned.adapter.as_deref(),
            wanted: planned.wanted,
            hidden_from: planned.hidden_from,
        }
    }
}

/// The same memory, empty, for segments of another step.
#[expect(
    clippy::unnecessary_filter_map,
    reason = "a filter would keep the lifetime that is to be changed"
)]
pub(super) fn recycled<'b>(mut segments: Vec<Segment<'_>>) -> Vec<Segment<'b>> {
    segments.clear();
    // Collecting a vector's own iterator into elements of the same layout keeps its memory.
    segments.into_iter().filter_map(|_| None).collect()
}
