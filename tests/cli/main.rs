//! Tests of the program against file trees: no systemd, no network but loopback. Failing storage needs root, to mount.
#![allow(clippy::disallowed_methods, reason = "tests prepare trees and run the program")]

mod apply;
mod certs;
mod certs_clients;
mod certs_cluster;
mod certs_operator;
mod certs_refused;
mod certs_renew;
mod certs_unreachable;
mod cloud_config;
mod config;
mod docs;
mod downgrade;
mod download;
mod etcd;
mod etcd_snapshots;
mod faulty;
mod flannel;
mod free_port;
mod golden;
mod images;
mod install;
mod kill;
mod lock;
mod nginx;
mod offline;
mod privileges;
mod routes;
mod site;
mod snapshot;
mod storage;
mod versions;
mod wait;
mod world;
