//! Drop-ins and live properties.
