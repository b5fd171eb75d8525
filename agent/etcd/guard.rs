//! A former member whose data is gone must not begin a new cluster: the API server would take that for its own, and every
//! node would be told to stop what it runs.
//!
//! Two marks tell: etcd's `member` directory in the data directory, and a file of the agent's own elsewhere, written once
//! the member was ready. The second without the first is a disk that is not mounted, or data that somebody removed.

use crate::config::values::RootPath;
use crate::engine::change::Meta;
use crate::engine::fault::{Explain, Fault};
use crate::host::root::Root;
use crate::host::seen::Entry;

/// Says that a member was ready here, and with which data: outside of the data directory, and of what undoing removes.
const MARK: &str = "/var/lib/nodeagent/etcd-member";

/// A member was here, and its data is not.
#[derive(Debug, thiserror::Error)]
#[error("{data_dir}: it holds no data of etcd, but a member of the cluster was ready on this node, with data in {was}")]
struct DataLost {
    data_dir: RootPath,
    was: String,
}

impl Explain for DataLost {
    fn advice(&self) -> Option<String> {
        Some(format!(
            "etcd was not started: it would have begun a new, empty cluster. Bring the data back (is its disk mounted? \
             was etcd.dataDir changed?). If it is lost, and most members live: stop etcd.service here; on another \
             member remove this one by `etcdctl member remove` and add it by `etcdctl member add`; here set etcd.join: \
             true, remove {MARK}, and run `nodeagent bootstrap`. If most do not live, restore a snapshot: `nodeagent etcd \
             restore FILE`"
        ))
    }
}

/// Refuses a start that would make a new, empty cluster.
pub fn check(root: &Root, data_dir: &RootPath) -> Result<(), Fault> {
    let Some(mark) = root.read(&RootPath::literal(MARK))? else { return Ok(()) };
    if matches!(root.entry(&data_dir.join("member"), false)?, Entry::Dir(_)) {
        return Ok(());
    }
    let was = String::from_utf8_lossy(&mark).trim().to_owned();
    Err(DataLost { data_dir: data_dir.clone(), was }.into())
}

/// Remembers that a member was ready here.
pub fn remember(root: &Root, data_dir: &RootPath) -> Result<(), Fault> {
    let mark = RootPath::literal(MARK);
    let says = format!("{data_dir}\n");
    if root.read(&mark)?.as_deref() != Some(says.as_bytes()) {
        root.make_own_dirs(&mark.parent(), Meta::root(0o700))?;
        root.put(&mark, says.as_bytes(), Meta::SECRET)?;
    }
    Ok(())
}
