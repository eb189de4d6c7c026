//! The escrow ledger and the branch barrier, as a pure state machine.
