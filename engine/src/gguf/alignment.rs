//! `general.alignment` of a GGUF file, looked up before candle's reader, which divides by it. Whatever else may be wrong with a file
//! is that reader's to find.

/// The key.
const KEY: &[u8] = b"general.alignment";

/// Number of the type `string` in the format.
const STRING: u32 = 8;
/// Number of the type `array`.
const ARRAY: u32 = 9;
/// Deepest lists of lists that are followed, as far as candle's reader goes.
const DEPTH: usize = 64;

/// Whether the metadata sets the alignment to zero; false for a file that cannot be followed to its end.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    Header::new(bytes).and_then(Header::sets_zero) == Some(true)
}

/// What is left of a header. Everything is `None` where the bytes end.
struct Header<'a> {
    bytes: &'a [u8],
    /// Lengths take four bytes in version 1 and eight in later ones.
    short_lengths: bool,
}

impl<'a> Header<'a> {
    fn new(bytes: &'a [u8]) -> Option<Self> {
        let mut header = Self {
            bytes,
            short_lengths: false,
        };
        header.take(4)?;
        header.short_lengths = header.number()? == 1;
        Some(header)
    }

    fn sets_zero(mut self) -> Option<bool> {
        let _tensors = self.length()?;
        for _ in 0..self.length()? {
            let key = self.text()?;
            let kind = self.number()?;
            let before = self.bytes;
            self.skip(kind, 0)?;
            let value = &before[..before.len() - self.bytes.len()];
            if key == KEY && ![STRING, ARRAY].contains(&kind) && value.iter().all(|byte| *byte == 0)
            {
                return Some(true);
            }
        }
        Some(false)
    }

    /// Passes over a value.
    fn skip(&mut self, kind: u32, depth: usize) -> Option<()> {
        match kind {
            STRING => self.text().map(drop),
            ARRAY if depth < DEPTH => {
                let kind = self.number()?;
                let length = self.length()?;
                match width(kind) {
                    Some(width) => self.take(length.checked_mul(width)?).map(drop),
                    None => (0..length).try_for_each(|_| self.skip(kind, depth + 1)),
                }
            }
            _ => self.take(width(kind)?).map(drop),
        }
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.length()?;
        self.take(length)
    }

    fn length(&mut self) -> Option<usize> {
        let width = if self.short_lengths { 4 } else { 8 };
        let mut number = [0; 8];
        number[..width].copy_from_slice(self.take(width)?);
        usize::try_from(u64::from_le_bytes(number)).ok()
    }

    fn number(&mut self) -> Option<u32> {
        let bytes = self.take(4)?.try_into().ok()?;
        Some(u32::from_le_bytes(bytes))
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(count)?;
        self.bytes = rest;
        Some(taken)
    }
}

/// Bytes of a value of a type that always has the same size.
fn width(kind: u32) -> Option<usize> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}
