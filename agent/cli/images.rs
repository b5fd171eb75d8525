//! `nodeagent images`: the images that the node has archives of, in containerd. A unit runs it before each start of the
//! kubelet.

use clap::Args;

use super::node;
use super::{Exit, Global};
use crate::engine::fault::{Class, Explain, Fault};
use crate::install::images;
use crate::journal::Teller;

/// Arguments of `images`.
#[derive(Args)]
pub struct ImagesArgs {}

/// containerd is the running machine's.
#[derive(Debug, thiserror::Error)]
#[error("--root: images are imported into the running machine's containerd, and into no tree")]
struct NotThisMachine;

impl Explain for NotThisMachine {
    fn class(&self) -> Class {
        Class::Usage
    }

    fn advice(&self) -> Option<String> {
        Some("`nodeagent install --root DIR` places the archives; the node imports them when it boots".to_owned())
    }
}

/// Imports what is missing.
pub async fn run(_: ImagesArgs, global: &Global, tell: &Teller) -> Result<Exit, Fault> {
    let host = node::host(global)?;
    if !host.is_live() {
        return Err(NotThisMachine.into());
    }
    let settings = node::settings(global, &host)?;
    // Where an archive is kept does not depend on the architecture.
    images::import(&images::archives(&settings, ""), &host.root, tell).await.map(|()| Exit::Done)
}
