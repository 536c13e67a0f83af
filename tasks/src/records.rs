//! JSON records into examples, in the paper's layout: objects with the task's input fields and `output`, in a list or one a line.
//! Other fields, such as `idx`, are passed over. Which file to read is `catalog`'s affair.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::data_error::DataError;
use crate::example::{Example, Fields};
use crate::task::{Kind, Task};

/// The gold label of an example on which the annotators did not agree; such examples are dropped.
const NO_GOLD: &str = "-";

/// The usable examples of a file, in file order.
#[derive(Debug)]
pub(crate) struct Records {
    pub(crate) examples: Vec<Example>,
    /// How many were left out for want of a gold label.
    pub(crate) dropped: usize,
}

/// Whether the ids of records count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ids {
    /// They are passed over.
    Ignored,
    /// No two records may have the same.
    Unique,
}

/// The fields that may hold a record's id.
const ID_FIELDS: [&str; 2] = ["idx", "id"];

/// Parses a whole file; `path` is for messages only. A file without a usable example is an error.
pub(crate) fn parse(task: Task, path: &Path, json: &[u8], ids: Ids) -> Result<Records, DataError> {
    let mut examples = Vec::new();
    let mut dropped = 0;
    let mut seen = HashMap::new();
    for (index, object) in parse_objects(path, json)?.into_iter().enumerate() {
        let place = Place {
            task,
            path,
            record: index,
        };
        if ids == Ids::Unique {
            place.check_id(&object, &mut seen)?;
        }
        match place.example(object)? {
            Some(example) => examples.push(example),
            None => dropped += 1,
        }
    }
    if examples.is_empty() {
        return Err(DataError::Empty {
            path: path.to_owned(),
            dropped,
        });
    }
    Ok(Records { examples, dropped })
}

struct Place<'a> {
    task: Task,
    path: &'a Path,
    record: usize,
}

impl Place<'_> {
    fn check_id(
        &self,
        object: &Map<String, Value>,
        seen: &mut HashMap<(&'static str, String), usize>,
    ) -> Result<(), DataError> {
        for field in ID_FIELDS {
            let Some(id) = object.get(field).filter(|id| !id.is_null()) else {
                continue;
            };
            if let Some(first) = seen.insert((field, id.to_string()), self.record) {
                return Err(DataError::DuplicateId {
                    path: self.path.to_owned(),
                    record: self.record,
                    first,
                    field,
                    id: id.to_string(),
                });
            }
        }
        Ok(())
    }

    fn example(&self, mut object: Map<String, Value>) -> Result<Option<Example>, DataError> {
        let mut fields = Fields::default();
        for name in self.task.fields() {
            let text = self.text(&mut object, name)?;
            fields.0.insert((*name).to_owned(), text);
        }
        let output = self.text(&mut object, "output")?;
        if self.task.kind() == Kind::Classification {
            if output == NO_GOLD {
                return Ok(None);
            }
            if self.task.label_index(&output).is_none() {
                return Err(DataError::UnknownLabel {
                    path: self.path.to_owned(),
                    record: self.record,
                    label: output,
                    task: self.task,
                });
            }
        }
        Ok(Some(Example { fields, output }))
    }

    fn text(
        &self,
        object: &mut Map<String, Value>,
        field: &'static str,
    ) -> Result<String, DataError> {
        match object.remove(field) {
            Some(Value::String(text)) => Ok(text),
            Some(other) => Err(DataError::NotAString {
                path: self.path.to_owned(),
                record: self.record,
                field,
                found: type_name(&other),
            }),
            None => Err(DataError::MissingField {
                path: self.path.to_owned(),
                record: self.record,
                field,
                task: self.task,
            }),
        }
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// What begins with an object holds one object a line; everything else must be a list.
fn parse_objects(path: &Path, json: &[u8]) -> Result<Vec<Map<String, Value>>, DataError> {
    match json.iter().find(|byte| !byte.is_ascii_whitespace()) {
        None => Ok(Vec::new()),
        Some(b'{') => parse_lines(path, json),
        Some(_) => parse_list(path, json),
    }
}

fn parse_lines(path: &Path, json: &[u8]) -> Result<Vec<Map<String, Value>>, DataError> {
    let lines = json.split(|byte| *byte == b'\n').enumerate();
    let lines = lines.filter(|(_, line)| !line.trim_ascii().is_empty());
    let objects = lines.enumerate().map(|(record, (line, text))| {
        serde_json::from_slice(text).map_err(|error| {
            let message = error.to_string();
            let what = message.split(" at line ").next().unwrap_or_default();
            DataError::Malformed {
                path: path.to_owned(),
                record: Some(record),
                message: format!("{what} at line {} column {}", line + 1, error.column()),
            }
        })
    });
    objects.collect()
}

fn parse_list(path: &Path, json: &[u8]) -> Result<Vec<Map<String, Value>>, DataError> {
    let record = Cell::new(None);
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let objects = ObjectList { record: &record }.deserialize(&mut deserializer);
    objects
        .and_then(|objects| deserializer.end().map(|()| objects))
        .map_err(|error| DataError::Malformed {
            path: path.to_owned(),
            record: record.get(),
            message: error.to_string(),
        })
}

/// Reads the list element by element so that a syntax error is known to lie in a certain record.
struct ObjectList<'a> {
    record: &'a Cell<Option<usize>>,
}

impl<'de> DeserializeSeed<'de> for ObjectList<'_> {
    type Value = Vec<Map<String, Value>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for ObjectList<'_> {
    type Value = Vec<Map<String, Value>>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut objects = Vec::new();
        self.record.set(Some(0));
        while let Some(object) = list.next_element()? {
            objects.push(object);
            self.record.set(Some(objects.len()));
        }
        self.record.set(None);
        Ok(objects)
    }
}

#[cfg(test)]
mod tests;
