//! Files inside the root.
/// The tree that is read and written.
#[derive(Clone)]
pub struct Root;
