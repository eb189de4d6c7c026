//! A load generator and auditor for any server that speaks the checkout contract.
