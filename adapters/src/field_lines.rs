//! JSON with a field on each line, as people read it, and arrays on one: a domain profile has more than a thousand
//! numbers.

use std::io::{Result, Write};

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};

/// The text of a value, with a line break at its end.
pub(crate) fn to_bytes<T: Serialize>(value: &T) -> serde_json::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut bytes, FieldLines::default());
    value.serialize(&mut serializer)?;
    bytes.push(b'\n');
    Ok(bytes)
}

#[derive(Default)]
struct FieldLines {
    pretty: PrettyFormatter<'static>,
    /// Arrays that are open; within one, all is compact.
    arrays: usize,
}

impl Formatter for FieldLines {
    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> Result<()> {
        self.arrays += 1;
        writer.write_all(b"[")
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> Result<()> {
        self.arrays -= 1;
        writer.write_all(b"]")
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> Result<()> {
        match self.arrays {
            0 => self.pretty.begin_object(writer),
            _ => CompactFormatter.begin_object(writer),
        }
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> Result<()> {
        match self.arrays {
            0 => self.pretty.end_object(writer),
            _ => CompactFormatter.end_object(writer),
        }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> Result<()> {
        match self.arrays {
            0 => self.pretty.begin_object_key(writer, first),
            _ => CompactFormatter.begin_object_key(writer, first),
        }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> Result<()> {
        match self.arrays {
            0 => self.pretty.begin_object_value(writer),
            _ => CompactFormatter.begin_object_value(writer),
        }
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> Result<()> {
        match self.arrays {
            0 => self.pretty.end_object_value(writer),
            _ => CompactFormatter.end_object_value(writer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_have_lines_and_arrays_have_one() {
        let value = serde_json::json!({
            "a": [1, 2.5, [3]], "b": {"c": null, "d": {}}, "e": [{"f": 1, "g": {"h": []}}], "i": {"j": "k"}
        });
        let bytes = to_bytes(&value).expect("plain data");
        let text = String::from_utf8(bytes.clone()).expect("JSON is text");
        insta::assert_snapshot!(text, @r#"
        {
          "a": [1,2.5,[3]],
          "b": {
            "c": null,
            "d": {}
          },
          "e": [{"f":1,"g":{"h":[]}}],
          "i": {
            "j": "k"
          }
        }
        "#);
        let back: serde_json::Value = serde_json::from_slice(&bytes).expect("valid JSON");
        assert_eq!(back, value);
    }
}
