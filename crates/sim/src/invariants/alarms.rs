//! No command ever contradicts its branch and nothing is ever repaired, for no run loses data behind an acknowledgement.
//! Source: "a bug or lost data: a person must look", at [`protocol::Reply::Violation`].

use ledger::LedgerReply;
use protocol::{Command, Reply};

use crate::oracle::{Check, Violation};

/// After every command to a participant.
pub(crate) fn reply(name: &str, command: &Command, reply: &LedgerReply) -> Check {
    let LedgerReply::Branch { reply, repaired } = reply else { return Ok(()) };
    let what = match reply {
        _ if *repaired => "had to be repaired".to_owned(),
        Reply::Violation(state) => format!("contradicts the branch, which is {state:?}"),
        _ => return Ok(()),
    };
    Err(Violation::new("alarms", format!("{name}: {} of {} {what}", command.verb, command.branch)))
}

/// An engine raised an alarm.
pub(crate) fn raised(what: String) -> Check {
    Err(Violation::new("alarms", what))
}
