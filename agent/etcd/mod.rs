//! The store that runs on this node, as far as it is more than a unit: what stands around a member's start, its snapshots,
//! and the way back from one.
//!
//! | file | owns |
//! | --- | --- |
//! | `guard.rs` | the mark that a member was ready here, without which lost data would look like a new member |
//! | `member.rs` | the member of this node, asked in JSON |
//! | `snapshot.rs` | taking a snapshot: streamed, verified, put in place whole |
//! | `seal.rs` | the digest that a snapshot ends with |
//! | `shelf.rs` | the directory of snapshots: names, the list, what is too old |
//! | `restore.rs` | a snapshot in the place of a member's data |
//! | `tool.rs` | etcd's own program that makes data of a snapshot |

pub mod guard;
pub mod member;
pub mod restore;
mod seal;
pub mod shelf;
pub mod snapshot;
mod tool;

pub use seal::{BadSnapshot, Sealed, verify};
