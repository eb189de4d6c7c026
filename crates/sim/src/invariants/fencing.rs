//! After a take-over or a restart nothing changes under the old epoch; and nobody is taken over while the lease stands.
//! Source: "every append carries owner and epoch, and an append under an old epoch is refused", in `docs/protocol`.

use protocol::Timestamp;
use protocol::log::{LogCommand, LogReply, LogState, Writer};

use crate::oracle::{Check, Violation};

/// What must be known before a command is applied.
pub(crate) struct Before {
    fenced: Option<Writer>,
    lease_until: Option<Timestamp>,
}

/// Before every command to the log.
pub(crate) fn before(log: &LogState, command: &LogCommand) -> Before {
    let (writer, lease_until) = match command {
        LogCommand::Renew { writer, .. }
        | LogCommand::Stage { writer, .. }
        | LogCommand::Decide { writer, .. }
        | LogCommand::Finish { writer, .. }
        | LogCommand::Tried { writer, .. }
        | LogCommand::Park { writer, .. } => (Some(*writer), None),
        LogCommand::TakeOver { writer, from, .. } => {
            (Some(*writer), log.instances().get(from).and_then(|lease| lease.expires))
        }
        _ => (None, None),
    };
    let current = |writer: &Writer| log.instances().get(&writer.instance).map(|lease| lease.epoch);
    Before { fenced: writer.filter(|writer| current(writer) != Some(writer.epoch)), lease_until }
}

/// After it.
pub(crate) fn after(before: &Before, command: &LogCommand, reply: &LogReply, changed: bool) -> Check {
    if let Some(writer) = before.fenced.filter(|_| changed) {
        let what = format!("{} changed the log under its old epoch {}: {command:?}", writer.instance, writer.epoch.0);
        return Err(Violation::new("fencing", what));
    }
    if let (LogCommand::TakeOver { from, now, .. }, LogReply::Taken(_), Some(until)) =
        (command, reply, before.lease_until)
        && *now <= until
    {
        let what = format!("{from} was taken over at {}, while its lease stood until {}", now.0, until.0);
        return Err(Violation::new("fencing", what));
    }
    Ok(())
}
