//! Where values come from: the defaults, a file, the environment, the command line; each over those before it.

use std::net::SocketAddr;
use std::path::Path;

use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};
use protocol::Name;
use serde::Deserialize;

use super::keys::{self, Kind, SECTIONS};

/// What one source says, and what people know it by.
#[derive(Debug, Clone)]
pub(super) struct Source {
    name: String,
    values: Dict,
}

impl Provider for Source {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        Ok(Map::from([(Profile::Default, self.values.clone())]))
    }
}

/// Variables that begin as ours do and are for other commands.
const OTHERS: [&str; 5] = ["SETTLE_LOG", "SETTLE_CONFIG", "SETTLE_DATA", "SETTLE_DURABILITY", "SETTLE_BIN"];
/// Never in a file that may be read by many, and never printed.
pub(super) const SECRET: &str = "password";

impl Source {
    pub(super) fn says(&self, section: &str) -> bool {
        self.values.contains_key(section)
    }

    /// A file in TOML: what it says of keys that there are, and what is wrong with the others.
    pub(super) fn file(path: &Path) -> Result<(Self, Vec<String>), String> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {name}: {error}"))?;
        Self::toml(&name, &text)
    }

    fn toml(name: &str, text: &str) -> Result<(Self, Vec<String>), String> {
        use figment::providers::{Format, Toml};
        let mut values: Dict = Toml::from_str(text).map_err(|error| format!("{name} is not TOML: {error}"))?;
        let mut problems = vec![];
        values.retain(|key, value| {
            let (section, _) = match SECTIONS.iter().find(|(section, _)| section == key) {
                Some(found) => found,
                None => return is_known(key, name, &mut problems),
            };
            let Value::Dict(_, inner) = value else {
                problems.push(format!("`{section}` in {name} must be a section: [{section}]"));
                return false;
            };
            inner.retain(|key, _| is_known(&format!("{section}.{key}"), name, &mut problems));
            true
        });
        Ok((Self { name: name.to_owned(), values }, problems))
    }

    /// One environment variable; `None` if it is none of ours, or a secret, which is read elsewhere.
    pub(super) fn variable(name: &str, text: &str) -> Result<Option<Self>, String> {
        let Some(path) = path_of(name) else { return Ok(None) };
        Self::text(format!("the environment variable {name}"), &path, text).map(Some)
    }

    /// One environment variable of the OpenTelemetry specification; `None` if it is none that is heeded.
    pub(super) fn standard(name: &str, text: &str) -> Result<Option<Self>, String> {
        let path = match name {
            "OTEL_EXPORTER_OTLP_ENDPOINT" => "telemetry.endpoint",
            "OTEL_EXPORTER_OTLP_PROTOCOL" => "telemetry.protocol",
            "OTEL_TRACES_SAMPLER_ARG" => "telemetry.sample_ratio",
            "OTEL_SERVICE_NAME" => "telemetry.service",
            _ => return Ok(None),
        };
        if text.is_empty() {
            return Ok(None);
        }
        Self::text(format!("the environment variable {name}"), path, text).map(Some)
    }

    /// One flag.
    pub(super) fn flag(flag: &str, path: &str, text: &str) -> Result<Self, String> {
        let name = format!("the flag {flag}");
        if is_secret(path) {
            return Err(format!("{name}: everybody can read a command line; set {} instead", keys::variable(path)));
        }
        Self::text(name, path, text)
    }

    /// The default of one key.
    pub(super) fn default(path: &str, text: &str) -> Result<Self, String> {
        Self::text("the defaults".to_owned(), path, text)
    }

    /// Something that a key of this path may be, to go on behind one that is wrong.
    pub(super) fn stand_in(path: &str) -> Option<Self> {
        let key = keys::find(path)?;
        let text = match key.kind {
            _ if !key.default.is_empty() => key.default,
            Kind::Text => "stand-in",
            Kind::List | Kind::Switch => "",
            Kind::Whole | Kind::Number => "1",
        };
        Self::default(path, text).ok()
    }

    fn text(name: String, path: &str, text: &str) -> Result<Self, String> {
        if let Some(problem) = unknown(path, &name) {
            return Err(problem);
        }
        let key = keys::find(path).ok_or_else(|| format!("unknown key `{path}`"))?;
        let wrong = || format!("`{path}` in {name} is `{text}`; allowed: {}", key.allowed);
        let value = match key.kind {
            Kind::Text => Value::from(text),
            Kind::List => Value::from(listed(text)),
            Kind::Whole => Value::from(text.trim().parse::<u64>().map_err(|_| wrong())?),
            Kind::Number => Value::from(text.trim().parse::<f64>().map_err(|_| wrong())?),
            Kind::Switch => Value::from(switch(text).ok_or_else(wrong)?),
        };
        let nested = figment::util::nest(path, value);
        Ok(Self { name, values: nested.into_dict().unwrap_or_default() })
    }
}

/// Whether `path` is a password's.
fn is_secret(path: &str) -> bool {
    path.split_once('.').is_some_and(|(section, key)| key == SECRET && SECTIONS.iter().any(|(s, _)| *s == section))
}

/// Whether a path is a key's; if not, that is one of the problems.
fn is_known(path: &str, source: &str, problems: &mut Vec<String>) -> bool {
    let problem = unknown(path, source);
    let known = problem.is_none();
    problems.extend(problem);
    known
}

/// What is wrong with a path that is no key's.
fn unknown(path: &str, source: &str) -> Option<String> {
    if keys::find(path).is_some() {
        return None;
    }
    if is_secret(path) {
        return Some(format!(
            "`{path}` in {source}: a secret does not belong there; set {}, or give `password_file`",
            keys::variable(path)
        ));
    }
    let hint = nearest(path, keys::paths().map(|(known, _)| known)).map_or_else(
        || "`settle config example` shows all there are".to_owned(),
        |near| format!("did you mean `{near}`?"),
    );
    Some(format!("unknown key `{path}` in {source}: {hint}"))
}

/// The path that a variable says something about; `None` if it is none of ours, or a secret's.
fn path_of(variable: &str) -> Option<String> {
    let rest = variable.strip_prefix("SETTLE_")?;
    if OTHERS.contains(&variable) || is_of_the_platform(rest) {
        return None;
    }
    let path = rest.to_lowercase().replace("__", ".");
    (!is_secret(&path)).then_some(path)
}

/// What of `known` may be meant by `word`.
fn nearest(word: &str, known: impl Iterator<Item = String>) -> Option<String> {
    known.min_by_key(|it| distance(word, it)).filter(|it| distance(word, it) <= 3)
}

/// What is wrong with the name of a variable that a program heeds only if it is one of `heeded`, if it is neither that nor another command's.
pub(super) fn misspelt(variable: &str, heeded: &[String]) -> Option<String> {
    let path = path_of(variable)?;
    if keys::find(&path).is_some() || heeded.iter().any(|it| it == variable) {
        return None;
    }
    let near = nearest(variable, heeded.iter().cloned());
    let hint = near.map_or_else(|| "nothing reads it: take it out".to_owned(), |it| format!("did you mean {it}?"));
    Some(format!("unknown environment variable {variable}: {hint}"))
}

/// Variables that Kubernetes and Docker set for a service that is called `settle…`.
fn is_of_the_platform(rest: &str) -> bool {
    rest.ends_with("SERVICE_HOST") || rest.contains("SERVICE_PORT") || rest == "PORT" || rest.ends_with("_PORT") || {
        let mut parts = rest.split('_').skip_while(|part| *part != "PORT").skip(1);
        parts.next().is_some_and(|part| part.parse::<u16>().is_ok())
    }
}

/// The parts between commas, without blanks around them.
pub(super) fn listed(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

fn switch(text: &str) -> Option<bool> {
    match text.trim().to_lowercase().as_str() {
        "1" | "y" | "yes" | "t" | "true" | "on" => Some(true),
        "" | "0" | "n" | "no" | "f" | "false" | "off" => Some(false),
        _ => None,
    }
}

/// How many characters must be changed to make `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut above_left = row[0];
        row[0] = i + 1;
        for (j, y) in b.chars().enumerate() {
            let replaced = above_left + usize::from(x != y);
            above_left = row[j + 1];
            row[j + 1] = replaced.min(above_left + 1).min(row[j] + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

/// A name.
pub(super) fn name<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Name, D::Error> {
    let text = String::deserialize(from)?;
    Name::new(&text).map_err(|_| serde::de::Error::unknown_variant(&text, &[]))
}

/// An address and a port.
pub(super) fn address<'de, D: serde::Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(from)?;
    text.parse().map_err(|_| serde::de::Error::unknown_variant(&text, &[]))
}

/// One text, or several.
pub(super) fn one_or_many<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a text or a list of texts")]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match OneOrMany::deserialize(from)? {
        OneOrMany::One(text) => listed(&text),
        OneOrMany::Many(texts) => texts,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_platform_sets_for_its_services_is_not_taken_for_a_key() {
        for name in [
            "SETTLE_SERVICE_HOST",
            "SETTLE_ORDER_SERVICE_PORT_HTTP",
            "SETTLE_PORT",
            "SETTLE_ORDER_PORT",
            "SETTLE_PORT_8001_TCP_ADDR",
        ] {
            assert!(matches!(Source::variable(name, "tcp://10.0.0.1:8001"), Ok(None)), "{name}");
        }
        assert!(Source::variable("SETTLE_LISTNE", "127.0.0.1:1").is_err());
    }

    #[test]
    fn a_misspelt_variable_is_told_its_neighbour_and_no_other_command_s_is_misspelt() {
        let heeded = ["SETTLE_PRODUCTION".to_owned(), "SETTLE_RESTART".to_owned()];
        let said = misspelt("SETTLE_PRODUCTOIN", &heeded).unwrap();
        assert_eq!(said, "unknown environment variable SETTLE_PRODUCTOIN: did you mean SETTLE_PRODUCTION?");
        let said = misspelt("SETTLE_COLOUR", &heeded).unwrap();
        assert_eq!(said, "unknown environment variable SETTLE_COLOUR: nothing reads it: take it out");
        for name in [
            "SETTLE_RESTART",
            "SETTLE_LOG",
            "SETTLE_BIN",
            "SETTLE_STOCK__PASSWORD",
            "SETTLE_ORDERS__REDIS",
            "SETTLE_PORT",
            "PATH",
        ] {
            assert_eq!(misspelt(name, &heeded), None, "{name}");
        }
    }

    #[test]
    fn a_misspelt_key_is_told_its_neighbour() {
        assert_eq!(distance("kitten", "sitting"), 3);
        let (_, said) = Source::toml("f.toml", "[orders]\nredsi = \"h:1\"").expect("it is TOML");
        assert_eq!(said, ["unknown key `orders.redsi` in f.toml: did you mean `orders.redis`?"]);
    }
}
