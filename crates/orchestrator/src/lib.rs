//! Two-phase commit and sagas for any set of services: driver, ports, recovery.
