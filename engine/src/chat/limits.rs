//! What a chat template may cost: instructions, text, and the sizes it asks filters for. A template comes with a model's file and its
//! messages from whoever sends a request; neither may keep the process busy or fill its memory with one number.

use std::io;

use minijinja::value::{Kwargs, Rest, StringInput, Value};
use minijinja::{Environment, Error, ErrorKind, State, filters};
use minijinja_contrib::pycompat;

/// Instructions for one conversation. A turn takes the templates of published models about a hundred.
pub(super) const FUEL: u64 = 10_000_000;
/// Largest text of one conversation, in bytes.
pub(super) const MOST_TEXT: usize = 64 << 20;
/// Largest template, in bytes. Published ones have up to twenty thousand.
pub(super) const MOST_SOURCE: usize = 1 << 20;
/// Largest width, indentation or number of columns that a template may ask for.
const MOST_WIDTH: usize = 1024;
/// Longest list that is joined or cut into pieces.
const MOST_ITEMS: usize = 1 << 20;

/// Sets the limits, and puts filters that keep to them in place of minijinja's.
pub(super) fn set(environment: &mut Environment<'static>) {
    environment.set_fuel(Some(FUEL));
    environment.add_filter("batch", batch);
    environment.add_filter("slice", slice);
    environment.add_filter("indent", indent);
    environment.add_filter("format", format);
    environment.add_filter("replace", replace);
    environment.add_filter("join", join);
    environment.set_unknown_method_callback(method);
}

/// A text that grows up to [`MOST_TEXT`].
#[derive(Default)]
pub(super) struct Text {
    pub(super) bytes: Vec<u8>,
    /// Whether there was more to write than it holds.
    pub(super) is_full: bool,
}

impl io::Write for Text {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > MOST_TEXT {
            self.is_full = true;
            return Err(io::Error::other("the text is too long"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A number of columns or characters that is no more than a template can need.
pub(super) fn width(width: usize) -> Result<usize, Error> {
    within(width, MOST_WIDTH, "a width")
}

fn within(found: usize, most: usize, what: &str) -> Result<usize, Error> {
    if found <= most {
        return Ok(found);
    }
    let reason = format!("{what} of {found} is too large, at most {most}");
    Err(Error::new(ErrorKind::InvalidOperation, reason))
}

fn batch(
    state: &State,
    value: Value,
    count: usize,
    fill_with: Option<Value>,
) -> Result<Value, Error> {
    items(&value)?;
    filters::batch(state, value, width(count)?, fill_with)
}

fn slice(
    state: &State,
    value: Value,
    count: usize,
    fill_with: Option<Value>,
) -> Result<Value, Error> {
    items(&value)?;
    filters::slice(state, value, width(count)?, fill_with)
}

fn indent(
    value: StringInput<'_>,
    columns: Option<usize>,
    first: Option<bool>,
    blank: Option<bool>,
    options: Kwargs,
) -> Result<Value, Error> {
    let named = options.peek::<Option<usize>>("width").unwrap_or_default();
    width(columns.or(named).unwrap_or_default())?;
    filters::indent(value, columns, first, blank, options)
}

fn format(state: &State, format: &Value, arguments: Rest<Value>) -> Result<Value, Error> {
    widths(format, &arguments)?;
    filters::format(state, format, arguments)
}

fn replace(
    state: &State,
    text: StringInput<'_>,
    from: StringInput<'_>,
    to: StringInput<'_>,
) -> Result<Value, Error> {
    replaced(text.as_str(), from.as_str(), to.as_str())?;
    filters::replace(state, text, from, to)
}

fn join(state: &State, list: &Value, between: Option<StringInput<'_>>) -> Result<Value, Error> {
    let text = between.as_ref().map_or("", |between| between.as_str());
    joined(list, text)?;
    filters::join(state, list, between)
}

/// Python's methods, where none of them makes more of its arguments than a text may hold.
fn method(state: &State, value: &Value, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    match (name, value.as_str(), arguments) {
        ("format", Some(_), _) => widths(value, arguments)?,
        ("replace", Some(text), [from, to, ..]) => {
            replaced(text, &from.to_string(), &to.to_string())?;
        }
        ("join", Some(between), [list]) => joined(list, between)?,
        _ => {}
    }
    pycompat::unknown_method_callback(state, value, name, arguments)
}

/// No width in a format, written there or given as an argument, is too large.
fn widths(format: &Value, arguments: &[Value]) -> Result<(), Error> {
    let written = format.as_str().unwrap_or_default();
    let written = written.split(|character: char| !character.is_ascii_digit());
    // Too many digits for a number are too large a width.
    let written = written.filter(|digits| !digits.is_empty());
    written
        .map(|digits| digits.parse().unwrap_or(usize::MAX))
        .try_for_each(|columns| width(columns).map(drop))?;
    let given = arguments.iter().filter_map(Value::as_usize);
    match written_as_argument(format) {
        true => given
            .into_iter()
            .try_for_each(|columns| width(columns).map(drop)),
        false => Ok(()),
    }
}

/// Whether a format takes a width from its arguments: `%*d`, `{:{}}`.
fn written_as_argument(format: &Value) -> bool {
    let text = format.as_str().unwrap_or_default();
    text.contains('*') || text.contains(":{")
}

/// What replacing would make is no more than a text may hold.
fn replaced(text: &str, from: &str, to: &str) -> Result<(), Error> {
    let added = text.matches(from).count().saturating_mul(to.len());
    within(text.len().saturating_add(added), MOST_TEXT, "a text").map(drop)
}

/// What joining would make is no more than a text may hold.
fn joined(list: &Value, between: &str) -> Result<(), Error> {
    items(list)?;
    let Ok(list) = list.try_iter() else {
        return Ok(());
    };
    let lengths = list.map(|item| {
        item.as_str()
            .map_or(0, str::len)
            .saturating_add(between.len())
    });
    let length = lengths.fold(0, usize::saturating_add);
    within(length, MOST_TEXT, "a text").map(drop)
}

/// A list is no longer than a template can need.
fn items(list: &Value) -> Result<(), Error> {
    within(list.len().unwrap_or_default(), MOST_ITEMS, "a list").map(drop)
}
