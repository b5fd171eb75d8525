//! Modules and sysctls.
