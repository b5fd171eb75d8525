//! The agent, end to end, on a node that cloud-init set up.
