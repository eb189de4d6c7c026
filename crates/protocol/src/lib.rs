//! The decisions of Settle, sans-I/O: coordinator, barrier, recovery, policy, breaker, log.
