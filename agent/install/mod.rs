//! Fetch, verify, place.
