//! The values of all sources, taken into the schema; and every one that is of a wrong kind.

use figment::Figment;
use figment::error::{Actual, Kind};

use super::sources::Source;
use super::{Config, keys};

/// A value that is not of its key's kind.
pub(super) struct Wrong {
    pub(super) path: String,
    pub(super) told: String,
}

/// A configuration as it was said, with something else in the place of what is wrong; none if nothing can be put there.
pub(super) struct Extracted {
    pub(super) config: Option<Config>,
    pub(super) wrong: Vec<Wrong>,
}

impl Extracted {
    /// Figment ends at the first value that is wrong. With another one in its place the next shows.
    pub(super) fn from(figment: &Figment) -> Self {
        let (mut figment, mut wrong) = (figment.clone(), Vec::<Wrong>::new());
        loop {
            let error = match figment.extract() {
                Ok(config) => return Self { config: Some(config), wrong },
                Err(error) => error,
            };
            for error in error {
                let path = error.path.join(".");
                let is_again = wrong.iter().any(|wrong| wrong.path == path);
                let stand_in = Source::stand_in(&path);
                wrong.push(Wrong { told: told(&path, &error), path });
                match stand_in {
                    Some(source) if !is_again => figment = figment.merge(source),
                    _ => return Self { config: None, wrong },
                }
            }
        }
    }
}

/// What figment found wrong, with the key, where it stands, and what is allowed.
fn told(path: &str, error: &figment::Error) -> String {
    let source = error.metadata.as_ref().map_or_else(String::new, |metadata| format!(" in {}", metadata.name));
    let allowed = keys::find(path).map_or_else(String::new, |key| format!("; allowed: {}", key.allowed));
    let what = match &error.kind {
        Kind::InvalidType(is, _) | Kind::InvalidValue(is, _) => format!("is {}", in_words(is)),
        Kind::UnknownVariant(is, _) => format!("is `{is}`"),
        other => other.to_string(),
    };
    format!("`{path}`{source}: {what}{allowed}")
}

/// A value of the wrong kind.
fn in_words(is: &Actual) -> String {
    match is {
        Actual::Bool(it) => format!("`{it}`"),
        Actual::Unsigned(it) => format!("`{it}`"),
        Actual::Signed(it) => format!("`{it}`"),
        Actual::Float(it) => format!("`{it}`"),
        Actual::Str(it) => format!("the text `{it}`"),
        Actual::Seq => "a list".to_owned(),
        Actual::Map => "a section".to_owned(),
        other => other.to_string(),
    }
}
