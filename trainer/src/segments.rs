//! The shape of a ragged batch: which rows belong to which sequence and what else each sequence sees.
//!
//! Belongs here: row ranges and positions. Does not belong here: tokens ([`crate::batch`]) and arithmetic.

use std::ops::Range;

/// A run of consecutive rows that attend to each other causally, after the rows of `prefix`, which all of them see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Rows of the flattened batch.
    pub rows: Range<usize>,
    /// Rows of earlier segments seen by every row of this one, in order of position.
    pub prefix: Vec<Range<usize>>,
}

impl Segment {
    /// Number of rows of the prefix: the position of this segment's first row.
    pub(crate) fn prefix_length(&self) -> usize {
        self.prefix.iter().map(ExactSizeIterator::len).sum()
    }

    /// The ranges of rows whose keys the first `own` rows of this segment may see.
    pub(crate) fn key_ranges(&self, own: usize) -> impl Iterator<Item = Range<usize>> + '_ {
        self.prefix
            .iter()
            .cloned()
            .chain(std::iter::once(self.rows.start..self.rows.start + own))
    }
}

/// All segments of a batch, in row order and without gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segments {
    segments: Vec<Segment>,
    positions: Vec<usize>,
}

impl Segments {
    /// Checks that the rows are consecutive from 0 and that a prefix names earlier rows only.
    ///
    /// # Panics
    /// When they are not: the batch builder is wrong, and attention would mix sequences.
    #[must_use]
    pub fn new(segments: Vec<Segment>) -> Self {
        let mut positions = Vec::new();
        for segment in &segments {
            assert_eq!(
                segment.rows.start,
                positions.len(),
                "segments must be consecutive"
            );
            let seen = segment
                .prefix
                .iter()
                .all(|range| range.end <= segment.rows.start);
            assert!(seen, "a prefix must come before its segment");
            let first = segment.prefix_length();
            positions.extend((0..segment.rows.len()).map(|row| first + row));
        }
        Self {
            segments,
            positions,
        }
    }

    /// Independent sequences of the given lengths.
    #[must_use]
    pub fn independent(lengths: &[usize]) -> Self {
        let mut start = 0;
        let segment = |&length: &usize| {
            let rows = start..start + length;
            start = rows.end;
            Segment {
                rows,
                prefix: Vec::new(),
            }
        };
        Self::new(lengths.iter().map(segment).collect())
    }

    /// Number of rows of the batch.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.positions.len()
    }

    /// Position of each row.
    #[must_use]
    pub fn positions(&self) -> &[usize] {
        &self.positions
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, Segment> {
        self.segments.iter()
    }
}
