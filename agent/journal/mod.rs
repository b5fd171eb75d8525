//! Events: one type owns each message's `MESSAGE_ID`, fields and text, and goes to every sink there is.

/// Tells events to every sink. Cheap to clone.
#[derive(Clone)]
pub struct Teller;
