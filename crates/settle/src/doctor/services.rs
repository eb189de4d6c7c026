//! The distributed services: their configuration, and every server that it names.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use protocol::Name;
use redis_store::{Examined, Options, examine as examine_database, meta};
use shop::checkout::{PAYMENT, STOCK};
use shop::redis_orders::ORDERS;

use super::machine::disk;
use super::{Findings, places};
use crate::config::{Config, ConfigArgs, Service};
use crate::service::{apart, connect_once};

/// Clocks further apart than this are not kept together by anyone. Milliseconds.
const SKEW_MS: i64 = 500;
/// How long a broker may take to answer.
const BROKER_PATIENCE: Duration = Duration::from_secs(3);

pub(super) fn examine(file: &Path, findings: &mut Findings) {
    let config = match ConfigArgs::of_file(file.to_owned()).load() {
        Ok(config) => config,
        Err(error) => {
            for problem in error.to_string().lines() {
                findings.wrong("configuration", problem.trim());
            }
            return;
        }
    };
    findings.ok("configuration", format!("{} can be read", file.display()));
    exposure(&config, findings);
    traces(&config, findings);
    places::own(&config, findings);
    places::others(&config, findings);
    for file in config.password_files() {
        secrecy(file, findings);
    }
    let databases: Vec<_> =
        Service::ALL.into_iter().filter_map(|service| Some((service, config.redis(service).ok()?))).collect();
    for (at, (service, options)) in databases.iter().enumerate() {
        let about = format!("{} database", service.section());
        if let Some((other, _)) = databases.iter().take(at).find(|(_, other)| other.place == options.place) {
            findings.warning(
                &about,
                format!(
                    "it is in the same place as that of {}: they fail together. Give each its own",
                    other.section()
                ),
            );
        }
        database(&about, &examine_database(options), findings);
    }
    belonging(&databases, findings);
    broker(&config, findings);
}

/// Whether the databases are of one system, as far as they are named here and say so.
fn belonging(databases: &[(Service, Options)], findings: &mut Findings) {
    let of = |wanted: Service, name: Name| {
        databases.iter().find(|(service, _)| *service == wanted).and_then(|(_, options)| meta(name, options).ok())
    };
    let Some(orders) = of(Service::Orders, ORDERS) else { return };
    for (service, name) in [(Service::Stock, STOCK), (Service::Payment, PAYMENT)] {
        let Some(ledger) = of(service, name) else { continue };
        match apart(name, &ledger, &orders) {
            Some(why) => findings.wrong(
                &format!("{name} database"),
                format!("{why}: one of the two addresses is wrong, or two systems were mixed up on one broker; docs/failures.md#a-second-system-on-the-same-broker"),
            ),
            None => findings.ok(&format!("{name} database"), "it belongs to these orders, or to none yet"),
        }
    }
}

fn exposure(config: &Config, findings: &mut Findings) {
    if config.chaos && !config.listen.ip().is_loopback() {
        findings.warning(
            "configuration",
            format!(
                "faults can be injected by whoever reaches {}: set `chaos = false`, or `listen` to 127.0.0.1",
                config.listen
            ),
        );
    }
    if !config.production && !config.listen.ip().is_loopback() {
        findings.warning(
            "configuration",
            format!("whoever reaches {} can replace every order by batch_init: set `production = true`", config.listen),
        );
    }
}

fn traces(config: &Config, findings: &mut Findings) {
    match (config.traces(), config.trace_url()) {
        (Some(told), Some(url)) => {
            findings.ok("traces", format!("they go to {}, and the page links to {url}", told.endpoint));
        }
        (Some(told), None) => findings.ok(
            "traces",
            format!("they go to {}; set `telemetry.trace_url` for the page to link to them", told.endpoint),
        ),
        (None, Some(_)) => findings.warning(
            "traces",
            "the page links to none, since nothing is traced: set `telemetry.endpoint`, or remove `telemetry.trace_url`",
        ),
        (None, None) => {}
    }
}

fn secrecy(file: &Path, findings: &mut Findings) {
    let shown = file.display();
    match std::fs::metadata(file) {
        Ok(found) if found.mode() & 0o077 != 0 => {
            findings.wrong("password", format!("others than its owner may read {shown}: `chmod 600 {shown}`"));
        }
        Ok(_) => findings.ok("password", format!("{shown} is its owner's alone")),
        Err(error) => findings.wrong("password", format!("{shown}: {error}")),
    }
}

fn database(about: &str, examined: &Examined, findings: &mut Findings) {
    examined.problems.iter().for_each(|problem| findings.wrong(about, problem));
    examined.warnings.iter().for_each(|warning| findings.warning(about, warning));
    examined.facts.iter().for_each(|fact| findings.ok(about, fact));
    if let Some(ahead) = examined.ahead {
        clock(about, ahead, findings);
    }
    match &examined.folder {
        Some(folder) if Path::new(folder).is_dir() => disk(Path::new(folder), findings),
        _ => findings.ok("disk", format!("that of the {about} is not seen from here: look at it on its own machine")),
    }
}

fn clock(about: &str, ahead: i64, findings: &mut Findings) {
    if ahead.abs() > SKEW_MS {
        let way = if ahead > 0 { "ahead of" } else { "behind" };
        findings.wrong(
            about,
            format!(
                "its clock is {} ms {way} this machine's: have both follow a time server (`chronyc tracking`)",
                ahead.abs()
            ),
        );
    } else {
        findings.ok(about, format!("its clock and this machine's agree to within {} ms", ahead.abs().max(1)));
    }
}

fn broker(config: &Config, findings: &mut Findings) {
    let about = "broker";
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return findings.wrong(about, format!("cannot look: {error}")),
    };
    let looked = runtime.block_on(async {
        let nats = connect_once(config, BROKER_PATIENCE).await?;
        Ok::<_, nats::StartError>(nats.refusals(&[STOCK, PAYMENT]).await)
    });
    match looked {
        Ok(refusals) if refusals.is_empty() => {
            findings.ok(about, format!("{} can be used", config.nats.url.join(", ")));
        }
        Ok(refusals) => refusals.iter().for_each(|refusal| findings.wrong(about, refusal.to_string())),
        Err(error) => findings.wrong(about, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_clock_that_is_off_is_named_with_its_direction() {
        for (ahead, expected) in
            [(0, None), (-499, None), (10_000, Some("10000 ms ahead of")), (-700, Some("700 ms behind"))]
        {
            let mut findings = Findings::default();
            clock("stock database", ahead, &mut findings);
            let said = findings.0.iter().find(|finding| finding.verdict == Verdict::Wrong);
            let said = said.map(|finding| finding.what.as_str());
            assert_eq!(said.is_some(), expected.is_some());
            assert!(said.is_none_or(|said| said.contains(expected.unwrap_or_default())), "{said:?}");
        }
    }
}
