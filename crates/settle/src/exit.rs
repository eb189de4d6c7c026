//! Exit codes, all of them.
//!
//! | code | meaning                                                                  |
//! |------|--------------------------------------------------------------------------|
//! | 0    | done, and nothing is off                                                 |
//! | 1    | an audit, or the doctor, found something off; or the shop had to stop    |
//! | 2    | bad arguments, a data folder in use or damaged, a server out of reach, an audit that could not compare |

use std::process::ExitCode;

/// Something is off.
pub(crate) const OFF: u8 = 1;
/// The request can't be carried out.
pub(crate) const UNUSABLE: u8 = 2;

/// A failure that is the system's, not the caller's: exit code [`OFF`].
#[derive(Debug)]
pub(crate) struct Stopped(pub(crate) String);

impl std::fmt::Display for Stopped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Stopped {}

/// Says what went wrong, if anything did, and gives the code for it.
pub(crate) fn code(result: anyhow::Result<ExitCode>) -> ExitCode {
    match result {
        Ok(code) => code,
        Err(error) => {
            let said = whole(&error);
            if telemetry::logs::is_json() {
                tracing::error!("{said}")
            } else {
                eprintln!("settle: {said}")
            }
            ExitCode::from(if error.is::<Stopped>() { OFF } else { UNUSABLE })
        }
    }
}

/// The error and its causes, without saying again what an error has said of its cause itself.
fn whole(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let error = anyhow::anyhow!("no space").context("cannot write: no space").context("the shop");
        assert_eq!(whole(&error), "the shop: cannot write: no space");
    }
}
