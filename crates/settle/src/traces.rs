//! Whether and how a process traces, from what it was told.
//!
//! What the OpenTelemetry specification names is heeded where nothing of our own says otherwise: `OTEL_EXPORTER_OTLP_ENDPOINT`,
//! `OTEL_EXPORTER_OTLP_PROTOCOL`, `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_SERVICE_NAME`, `OTEL_TRACES_SAMPLER_ARG`. The headers may hold a token: they come from the
//! environment alone.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use telemetry::logs::Origin;
use telemetry::traces::{self, Endpoint, Protocol, Settings};

/// Of the requests whose client does not say, this part is traced.
pub(crate) const DEFAULT_RATIO: f64 = 0.01;
/// What takes so long is kept in any case. Milliseconds.
pub(crate) const DEFAULT_SLOW_MS: u64 = 1_000;
/// How long a stop waits for the last spans.
const LAST: Duration = Duration::from_secs(2);
/// What stands for the id of a trace in where it is shown.
const TRACE_ID: &str = "{trace_id}";
pub(crate) const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";

/// What `settle serve` can be told of traces.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct TracesArgs {
    /// Where traces go, in OTLP: `http://HOST:PORT`. Without it nothing is traced.
    #[arg(long, env = "SETTLE_TELEMETRY__ENDPOINT", value_name = "URL")]
    otlp_endpoint: Option<String>,
    /// How they travel: grpc (port 4317) or http (port 4318).
    #[arg(long, env = "SETTLE_TELEMETRY__PROTOCOL", value_name = "grpc|http")]
    otlp_protocol: Option<String>,
    /// Which part of the requests is traced, 0 to 1, if their clients do not say. What fails or is slow is kept besides.
    #[arg(long, env = "SETTLE_TELEMETRY__SAMPLE_RATIO", value_name = "RATIO")]
    trace_ratio: Option<f64>,
    /// What takes so long is kept in any case. Milliseconds.
    #[arg(long, env = "SETTLE_TELEMETRY__SLOW_MS", value_name = "MS")]
    trace_slow_ms: Option<u64>,
    /// Where the back end shows a trace, for the page to link to, such as `http://127.0.0.1:16686/trace/{trace_id}`.
    #[arg(long, env = "SETTLE_TELEMETRY__TRACE_URL", value_name = "URL")]
    trace_url: Option<String>,
}

/// Where traces are shown is an address that a page may link to, with a place for the id.
///
/// # Errors
/// In words that go behind its key, if it is none.
pub(crate) fn check_trace_url(url: &str) -> Result<(), String> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let strange = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '"' | '<' | '>' | '\\' | '`');
    let is_one =
        rest.is_some_and(|rest| rest.find('/').is_some_and(|host| host > 0 && rest[host..].contains(TRACE_ID)));
    if is_one && !url.contains(strange) {
        return Ok(());
    }
    Err(format!(
        "is `{url}`: it is an address such as http://127.0.0.1:16686/trace/{TRACE_ID}, of http or https, with {TRACE_ID} behind the host"
    ))
}

/// Where `settle up` has traces shown, if the environment that its services inherit says so.
pub(crate) fn trace_url_of_environment() -> anyhow::Result<Option<String>> {
    let traced = variable("SETTLE_TELEMETRY__ENDPOINT").or_else(|| variable("OTEL_EXPORTER_OTLP_ENDPOINT"));
    let args = TracesArgs {
        otlp_endpoint: traced,
        trace_url: variable("SETTLE_TELEMETRY__TRACE_URL"),
        ..TracesArgs::default()
    };
    args.trace_url()
}

/// How a process traces, as it was told.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Told {
    pub(crate) endpoint: String,
    pub(crate) protocol: String,
    pub(crate) ratio: f64,
    pub(crate) slow_ms: u64,
    pub(crate) service: Option<String>,
    pub(crate) headers: Option<String>,
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

impl TracesArgs {
    /// Where traces are shown, if there are any.
    ///
    /// # Errors
    /// If that is no address with a place for the id.
    pub(crate) fn trace_url(&self) -> anyhow::Result<Option<String>> {
        let Some(url) = self.trace_url.clone().filter(|url| !url.is_empty()) else { return Ok(None) };
        if let Err(what) = check_trace_url(&url) {
            bail!("--trace-url {what}");
        }
        Ok(self.told()?.map(|_| url))
    }

    /// What it comes to, with what the environment says; `None` if nothing is to be traced.
    ///
    /// # Errors
    /// If that contradicts itself.
    pub(crate) fn told(&self) -> anyhow::Result<Option<Told>> {
        let endpoint = self.otlp_endpoint.clone().filter(|text| !text.is_empty());
        let Some(endpoint) = endpoint.or_else(|| variable("OTEL_EXPORTER_OTLP_ENDPOINT")) else { return Ok(None) };
        let protocol = self.otlp_protocol.clone().or_else(|| variable("OTEL_EXPORTER_OTLP_PROTOCOL"));
        let ratio = match (self.trace_ratio, variable("OTEL_TRACES_SAMPLER_ARG")) {
            (Some(ratio), _) => ratio,
            (None, Some(text)) => text
                .parse()
                .with_context(|| format!("OTEL_TRACES_SAMPLER_ARG is `{text}`: it is a number from 0 to 1"))?,
            (None, None) => DEFAULT_RATIO,
        };
        Ok(Some(Told {
            endpoint,
            protocol: protocol.unwrap_or_else(|| "grpc".to_owned()),
            ratio,
            slow_ms: self.trace_slow_ms.unwrap_or(DEFAULT_SLOW_MS),
            service: variable("OTEL_SERVICE_NAME"),
            headers: variable(HEADERS),
        }))
    }
}

impl Told {
    /// What is wrong with it, if anything: the key, and what it should be.
    pub(crate) fn problem(&self) -> Option<(&'static str, String)> {
        let protocol: Protocol = match self.protocol.parse() {
            Ok(protocol) => protocol,
            Err(bad) => return Some(("protocol", format!("is `{}`: {bad}", self.protocol))),
        };
        if let Err(bad) = Endpoint::new(protocol, &self.endpoint) {
            return Some(("endpoint", format!("cannot be used: {bad}")));
        }
        if !(0.0..=1.0).contains(&self.ratio) {
            return Some(("sample_ratio", format!("is `{}`: it is a number from 0 to 1", self.ratio)));
        }
        None
    }

    /// Where that is, `HOST:PORT`, if it can be used.
    pub(crate) fn address(&self) -> Option<String> {
        Some(Endpoint::new(self.protocol.parse().ok()?, &self.endpoint).ok()?.authority().to_owned())
    }

    fn settings(&self, origin: Origin, remote: bool) -> anyhow::Result<Settings> {
        if let Some((key, what)) = self.problem() {
            bail!("`telemetry.{key}` {what}");
        }
        let service = self.service.clone().unwrap_or(origin.service);
        Ok(Settings {
            endpoint: Endpoint::new(self.protocol.parse()?, &self.endpoint)?,
            headers: self.headers.as_deref().map(headers).unwrap_or_default(),
            ratio: self.ratio,
            slow: Duration::from_millis(self.slow_ms),
            origin: Origin { service, instance: origin.instance },
            remote,
        })
    }
}

/// Names and values: `name=value,name=value`, values with `%20` and the like.
fn headers(text: &str) -> Vec<(String, String)> {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.trim().to_lowercase(), decoded(value.trim()))).collect()
}

fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, behind)) = rest.split_first() {
        let code = behind.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = behind.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Begins to trace, if it is to be. `remote`: commands go to other processes.
///
/// # Errors
/// If it cannot be done as told.
pub(crate) fn begin(told: Option<&Told>, origin: Origin, remote: bool) -> anyhow::Result<()> {
    let Some(told) = told else { return Ok(()) };
    let settings = told.settings(origin, remote)?;
    let (endpoint, ratio) = (settings.endpoint.to_string(), settings.ratio);
    traces::start(settings).context("cannot start the thread for traces")?;
    tracing::info!(endpoint, ratio, "traces");
    Ok(())
}

/// Exports what is left.
pub(crate) async fn end() {
    _ = tokio::task::spawn_blocking(|| traces::stop(LAST)).await;
}

/// How contexts go along with commands and questions.
pub(crate) struct AlongNats;

impl nats::Tracing for AlongNats {
    fn outgoing(&self) -> Option<nats::TraceContext> {
        let context = telemetry::Scope::current()?.context()?;
        nats::TraceContext::new(&context.parent(), context.state.as_deref())
    }

    fn incoming(&self, context: &nats::TraceContext, work: &mut dyn FnMut()) {
        let trace = telemetry::TraceContext::read(context.parent(), context.state());
        telemetry::Scope { trace, ..telemetry::Scope::default() }.within(work);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_the_specification_writes_them() {
        let expected = [("authorization", "Bearer a=b"), ("x-team", "shop")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        assert_eq!(headers("Authorization=Bearer%20a=b, x-team = shop,nonsense"), expected);
        assert_eq!(decoded("100%"), "100%");
        assert_eq!(decoded("%e9%zz"), "\u{fffd}%zz");
    }
}
