//! The server's answers as words.

use redis::Value;

use crate::link::shown;

/// An answer that the scripts of this version do not give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable(pub String);

/// Says that an answer can't be read.
pub fn unreadable(value: &Value) -> Unreadable {
    Unreadable(format!("an answer that this version does not know: {}", shown(value)))
}

/// The parts of a list.
///
/// # Errors
/// If it is no list.
pub fn list(value: &Value) -> Result<&[Value], Unreadable> {
    match value {
        Value::Array(parts) => Ok(parts),
        other => Err(unreadable(other)),
    }
}

/// The bytes of a text; nothing at all for what is nil.
///
/// # Errors
/// If it is something else.
pub fn bytes(value: &Value) -> Result<Option<&[u8]>, Unreadable> {
    match value {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => Ok(Some(bytes)),
        other => Err(unreadable(other)),
    }
}

/// A text; nothing at all for what is nil.
///
/// # Errors
/// If it is something else.
pub fn text(value: &Value) -> Result<Option<&str>, Unreadable> {
    bytes(value)?.map(std::str::from_utf8).transpose().map_err(|_| unreadable(value))
}

/// The words of a list, or the only one of a text; nothing at all for what is nil.
///
/// # Errors
/// If there is something else in it.
pub fn words(value: &Value) -> Result<Vec<Option<&str>>, Unreadable> {
    match value {
        Value::Array(parts) => parts.iter().map(|part| text(part).map_err(|_| unreadable(value))).collect(),
        one => Ok(vec![text(one)?]),
    }
}

/// The one answer to one call.
///
/// # Errors
/// If there is another number of them.
pub fn only(values: &[Value]) -> Result<&Value, Unreadable> {
    match values {
        [value] => Ok(value),
        several => Err(Unreadable(format!("{} answers to one call", several.len()))),
    }
}

/// Whether a script did its part and wants to be called again.
pub(crate) fn wants_more(value: &Value) -> bool {
    words(value).is_ok_and(|parts| parts == [Some("ok"), Some("more")])
}
