//! Tests on real nodes. Each has a lab, hence a network, of its own.
//!
//! They need root and the packages that `tests/lab/setup.sh` installs; where the lab cannot run, they fail.

#![allow(clippy::disallowed_methods, reason = "the lab runs programs and writes files on the machine that tests")]

mod agent;
mod bootstrap;
mod cluster;
mod cluster_days;
mod cluster_late;
mod cluster_service;
mod cluster_skew;
mod config_drive;
mod csr;
mod drill;
mod edge;
mod etcd;
mod etcd_discovery;
mod etcd_join;
mod etcd_snapshots;
mod flannel;
mod ha;
mod harness;
mod images;
mod kernel;
mod kill;
mod kubeadm;
mod network;
mod power;
mod renew;
mod signature;
mod systemd;
mod the_lab;
mod wait;
