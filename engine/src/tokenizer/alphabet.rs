//! The alphabet of byte-level BPE: one printable character for each of the 256 bytes (Radford et al. 2019, GPT-2).
//! Only the mapping; vocabularies and merges belong to the parent module.

/// The character that stands for `byte` in a byte-level vocabulary.
///
/// Bytes that print as Latin-1 stand for themselves; the other 68 are numbered upwards from U+0100 in byte order.
pub(crate) fn character_of(byte: u8) -> char {
    if prints(byte) {
        return char::from(byte);
    }
    let rank = (0..byte).filter(|&lower| !prints(lower)).count();
    u32::try_from(rank)
        .ok()
        .and_then(|rank| char::from_u32(0x100 + rank))
        .expect("fewer than 256 code points above U+0100 are all assigned")
}

/// The bytes a vocabulary entry stands for, or `None` when it has a character outside the alphabet.
pub(crate) fn bytes_of(entry: &str, table: &ByteTable) -> Option<Vec<u8>> {
    entry
        .chars()
        .map(|character| table.byte(character))
        .collect()
}

/// [`character_of`] the other way round, as a table.
pub(crate) struct ByteTable([Option<u8>; 0x144]);

impl ByteTable {
    /// The table of all 256 bytes.
    pub(crate) fn new() -> Self {
        let mut table = [None; 0x144];
        for byte in 0..=u8::MAX {
            table[character_of(byte) as usize] = Some(byte);
        }
        Self(table)
    }

    fn byte(&self, character: char) -> Option<u8> {
        self.0.get(character as usize).copied().flatten()
    }
}

fn prints(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_do_not_print_are_numbered_from_u_0100() {
        let characters: Vec<char> = [b' ', b'\n', b'\t', b'A', 0x7f, 0xa0, 0xad, 0xff]
            .map(character_of)
            .to_vec();
        assert_eq!(characters, ['Ġ', 'Ċ', 'ĉ', 'A', 'ġ', 'ł', 'Ń', 'ÿ']);
    }

    #[test]
    fn every_byte_comes_back_from_its_character() {
        let table = ByteTable::new();
        for byte in 0..=u8::MAX {
            assert_eq!(table.byte(character_of(byte)), Some(byte));
        }
        assert_eq!(bytes_of("Ġthé", &table), Some(vec![b' ', b't', b'h', 0xe9]));
        assert_eq!(bytes_of("日", &table), None);
    }
}
