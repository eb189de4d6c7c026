//! A request under an idempotency key takes effect once, however often it is sent; every answer to it is the same; and what was answered
//! has taken effect. Source: "a repeat gets the first answer", in `ledger::idempotency`.

use std::sync::Arc;

use crate::oracle::{Check, Oracle, View, Violation};

fn broken(what: String) -> Check {
    Err(Violation::new("idempotency", what))
}

/// What is known of a key.
#[derive(Debug, Default)]
pub(crate) struct Keyed {
    durable: bool,
    answer: Option<String>,
}

/// A request under a key has changed something, durably.
pub(crate) fn took_effect(oracle: &mut Oracle, key: &Arc<str>) -> Check {
    let keyed = oracle.keys.entry(Arc::clone(key)).or_default();
    if std::mem::replace(&mut keyed.durable, true) {
        return broken(format!("what was asked under `{key}` was done twice"));
    }
    Ok(())
}

/// A client is told that a request under a key was done.
pub(crate) fn answered(oracle: &mut Oracle, key: &Arc<str>, answer: String) -> Check {
    let keyed = oracle.keys.entry(Arc::clone(key)).or_default();
    match &keyed.answer {
        Some(first) if *first != answer => broken(format!("`{key}` was answered {first}, and then {answer}")),
        _ if !keyed.durable => broken(format!("`{key}` was answered {answer}, and nothing of it is on disk")),
        _ => {
            keyed.answer = Some(answer);
            Ok(())
        }
    }
}

/// Everything is settled: all that ever came in is what was credited, each deposit once, and what replacements brought.
pub(crate) fn at_rest(oracle: &Oracle, view: &View<'_>) -> Check {
    for ((name, ledger), credited) in ["stock", "payment"].iter().zip(view.ledgers).zip(oracle.credited) {
        let found = ledger.totals().credited;
        if found != credited {
            return broken(format!("{name}: {found} came in, {credited} was credited"));
        }
    }
    Ok(())
}
