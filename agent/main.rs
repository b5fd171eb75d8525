//! Parse, start logging, dispatch, exit code; nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    nodeagent::cli::main()
}
