//! The application's bytes in the log, in words and in JSON: a context is a claim, a payload is a list of entries.

use ledger::{EntityId, entries};
use protocol::{Payload, Transaction};
use serde_json::{Value, json};
use shop::checkout::Claim;

/// The order that a transaction is about.
pub(crate) fn order(transaction: &Transaction) -> Option<EntityId> {
    Claim::decode(&transaction.context).ok().map(|claim| claim.order)
}

/// Puts beside every `payload` and `context`, which are hexadecimal text, the `entries` and the `claim` that they encode.
pub(crate) fn annotate(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(annotate),
        Value::Object(members) => {
            members.values_mut().for_each(annotate);
            let bytes = |name: &str| serde_json::from_value::<Payload>(members.get(name)?.clone()).ok();
            let entries = bytes("payload").and_then(|payload| entries::decode(&payload).ok());
            let claim = bytes("context").and_then(|context| Claim::decode(&context).ok());
            if let Some(entries) = entries {
                members.insert("entries".to_owned(), json!(entries));
            }
            if let Some(claim) = claim {
                members.insert("claim".to_owned(), json!(claim));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use ledger::Entry;

    use super::*;

    #[test]
    fn entries_and_claims_stand_beside_their_bytes() {
        let payload = entries::encode(&[Entry { account: EntityId::number(7), amount: 3 }]).unwrap();
        let context = Claim { order: EntityId::number(9), version: 2 }.encode().unwrap();
        let mut value = json!({ "steps": [{ "payload": payload }, { "payload": "zz" }], "context": context });
        annotate(&mut value);
        assert_eq!(value["steps"][0]["entries"], json!([{ "account": "7", "amount": 3 }]));
        assert_eq!(value["claim"], json!({ "order": "9", "version": 2 }));
        assert_eq!(value["steps"][1], json!({ "payload": "zz" }));
    }
}
