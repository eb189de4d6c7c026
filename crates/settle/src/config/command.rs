//! `settle config`: check a configuration, or print an example.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use figment::Figment;

use super::{Config, ConfigArgs, EXAMPLE, Service, environment, keys};
use crate::gateway::Profile;
use crate::output::say;

/// Checks a configuration, or prints an example.
#[derive(Debug, Args)]
pub(crate) struct ConfigCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Say whether a service would start with this file and this environment, and what it would go by.
    Check {
        /// The configuration, in TOML.
        file: PathBuf,
    },
    /// Print a configuration with every key, its default and its meaning.
    Example,
    /// Print the compose file for a deployment in containers.
    Compose {
        /// How large it is.
        #[arg(value_enum)]
        profile: Profile,
    },
    /// Print the configuration of HAProxy for a deployment in containers.
    Haproxy {
        /// How large it is.
        #[arg(value_enum)]
        profile: Profile,
    },
}

/// Carries it out.
pub(crate) fn config(command: &ConfigCommand) -> anyhow::Result<ExitCode> {
    match &command.what {
        What::Example => _ = say(EXAMPLE.trim_end())?,
        What::Compose { profile } => _ = say(profile.compose().trim_end())?,
        What::Haproxy { profile } => _ = say(profile.gateway().configuration().trim_end())?,
        What::Check { file } => {
            let args = ConfigArgs::of_file(file.clone());
            for line in effective(&args.load()?, &args.sources(&environment()).0) {
                if !say(&line)? {
                    break;
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The configuration as TOML, each value with where it came from; and who may be missing.
fn effective(config: &Config, sources: &Figment) -> Vec<String> {
    let mut lines = vec![];
    let mut section = String::new();
    for (path, _) in keys::paths() {
        let Ok(value) = sources.find_value(&path) else { continue };
        let (of, key) = path.split_once('.').unwrap_or(("", &path));
        if of != section {
            of.clone_into(&mut section);
            lines.push(format!("\n[{section}]"));
        }
        let from = sources.find_metadata(&path).map_or("", |from| &from.name);
        lines
            .push(format!("{:<48} # {from}", format!("{key} = {}", serde_json::to_string(&value).unwrap_or_default())));
    }
    if sources.find_value("instance").is_err() {
        lines.insert(0, "# instance: a name is made up at every start".to_owned());
    }
    if config.nats.password().is_some() {
        lines.push("# the password for nats is known, and not shown".to_owned());
    }
    for service in Service::ALL {
        let section = service.section();
        match config.redis(service) {
            Ok(store) if store.credentials.password.is_some() => {
                lines.push(format!("# the password for {section} is known, and not shown"));
            }
            Ok(_) => {}
            Err(_) => lines.push(format!("# no [{section}]: its service cannot start with this configuration")),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_a_configuration_that_says_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("first.toml"), folder.path().join("second.toml"));
        std::fs::write(&first, EXAMPLE).unwrap();
        let args = ConfigArgs::of_file(first);
        let secret = [("SETTLE_STOCK__PASSWORD".to_owned(), "hush".to_owned())];
        let (sources, _) = args.sources(&secret);
        let config = args.load_with(&secret).unwrap();
        let printed = effective(&config, &sources).join("\n");
        assert!(!printed.contains("hush") && printed.contains("the password for stock is known"), "{printed}");
        std::fs::write(&second, &printed).unwrap();
        assert_eq!(ConfigArgs::of_file(second).load_with(&secret).unwrap(), config, "{printed}");
    }
}
