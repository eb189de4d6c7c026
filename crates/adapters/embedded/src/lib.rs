//! A durable store: a deterministic state machine in memory under a journal of its own.
