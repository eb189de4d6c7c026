//! Whatever the bytes, a decoder answers with a value or an error; and what it read, it writes back to what reads the same.
//! `cargo fuzz run records`

#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::{Payload, record};
use serde::{Serialize, de::DeserializeOwned};

fn round_trip<T: Serialize + DeserializeOwned + PartialEq>(bytes: &[u8]) {
    if let Ok(value) = record::decode::<T>(bytes) {
        let written = record::encode(&value, Vec::new()).expect("what was read can be written");
        let again: T = record::decode(&written).expect("what was written can be read");
        assert!(again == value, "a record changed on its way through");
    }
}

fuzz_target!(|bytes: &[u8]| {
    round_trip::<protocol::log::LogCommand>(bytes);
    round_trip::<protocol::log::Record>(bytes);
    round_trip::<ledger::LedgerCommand>(bytes);
    round_trip::<shop::orders::OrdersCommand>(bytes);
    let payload = Payload::from(bytes);
    _ = ledger::entries::decode(&payload);
    _ = shop::checkout::Claim::decode(&payload);
});
