//! The decoder answers every input with a value or an error. The same property is fuzzed under `fuzz/`.

use proptest::prelude::*;
use protocol::log::{LogCommand, Record};
use protocol::record::{VERSION, decode, encode};

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_bytes_a_record_is_read_whole_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Some(first) = bytes.first_mut() {
            *first = VERSION;
        }
        if let Ok(command) = decode::<LogCommand>(&bytes) {
            let written = encode(&command, Vec::new()).unwrap();
            prop_assert_eq!(decode::<LogCommand>(&written).unwrap(), command);
        }
        _ = decode::<Record>(&bytes);
    }
}
