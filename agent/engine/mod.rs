//! One engine, six steps.
//!
//! ```text
//! identify -> Identity     who am I, and which address          (crate::identity)
//! plan     -> Plan         pure: no clock, no randomness, no I/O (the step folders)
//! see      -> Seen         what the resources say they read      (crate::host)
//! diff     -> differences  pure                                  (Resource::diff)
//! obtain   -> Changes      downloads, keys, signers: scratch only (Resource::obtain)
//! commit   -> the machine  recorded first, then made             (commit)
//! settle                   debts paid, limits and units proven   (settle)
//! ```

pub mod apply;
pub mod block;
pub mod change;
pub mod commit;
pub mod compaction;
pub mod fault;
pub mod file;
pub mod history;
pub mod id;
pub mod ledger;
pub mod plan;
pub mod receipt;
pub mod record;
pub mod resource;
pub mod rollback;
pub mod seal;
pub mod settle;
pub mod undo;
pub mod unitfile;
