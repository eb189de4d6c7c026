//! A keyed table whose snapshots cost nothing while they are being written out.
