//! The tools that this program replaces, by their names: called through a link of such a name, it does that tool's job,
//! so that an existing cloud-config works while it is moved over.
//!
//! | called as | is |
//! | --- | --- |
//! | `setup-network-environment [-o FILE]` | `nodeagent network --boot`, which fails less: see [`network::NetworkArgs`] |
//! | `wupiao HOST:PORT[/PATH]` | `nodeagent wait --method HEAD http://HOST:PORT[/PATH]` |

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Parser;

use super::{Cli, Command, Global, network, wait};
use crate::network::ENV_FILE;
use crate::wait::target::{BadTarget, Target};

/// Reads the command line: as this program's own, or as that of the tool whose name it was called by.
pub(super) fn parse(args: Vec<OsString>) -> Result<Cli, clap::Error> {
    let name = args.first().and_then(|path| Path::new(path).file_name()).and_then(|name| name.to_str());
    let command = match name {
        Some("wupiao") => Command::Wait(wait::WaitArgs::for_head(Wupiao::try_parse_from(args)?.target)),
        Some("setup-network-environment") => {
            Command::Network(network::NetworkArgs::for_old_tool(SetupNetworkEnvironment::try_parse_from(args)?.file))
        }
        _ => return Cli::try_parse_from(args),
    };
    Ok(Cli { global: Global::default(), command })
}

/// Wait until a web server answers with 2xx or 3xx (nodeagent, called as wupiao)
///
/// Gives up after five minutes, with exit code 3. 401 and 403 mean an open port of a server that wants credentials, and
/// are waited on, as the script did: `nodeagent wait HOST:PORT` waits for the port alone.
#[derive(Parser)]
#[command(name = "wupiao", max_term_width = 80)]
struct Wupiao {
    /// What to ask, by HEAD: HOST:PORT or HOST:PORT/PATH
    #[arg(value_name = "HOST:PORT[/PATH]", value_parser = http)]
    target: Target,
}

/// Write this machine's addresses to a file for units to read (nodeagent, called as setup-network-environment)
///
/// Succeeds without a default address, as the tool did, but waits for one first and says why there is none.
#[derive(Parser)]
#[command(name = "setup-network-environment", max_term_width = 80)]
struct SetupNetworkEnvironment {
    /// The file
    // Go's flags take one dash or two.
    #[arg(short = 'o', long = "o", value_name = "FILE", default_value = ENV_FILE)]
    file: PathBuf,
    /// The tool ignored whatever else it was given
    #[arg(hide = true)]
    ignored: Vec<OsString>,
}

/// The script put `http://` before whatever it was given.
fn http(text: &str) -> Result<Target, String> {
    format!("http://{text}").parse().map_err(|error: BadTarget| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn called(args: &[&str]) -> Result<Command, String> {
        let args = args.iter().map(OsString::from).collect();
        parse(args).map(|cli| cli.command).map_err(|error| error.to_string())
    }

    #[test]
    fn as_wupiao() {
        for (text, shown) in [
            ("127.0.0.1:2379/v2/machines", "http://127.0.0.1:2379/v2/machines"),
            ("10.10.30.11:8080", "http://10.10.30.11:8080/"),
        ] {
            match called(&["/opt/bin/wupiao", text]) {
                Ok(Command::Wait(args)) => assert_eq!(args.targets[0].to_string(), shown, "{text}"),
                _ => panic!("{text} is not waited for"),
            }
        }
        for (args, why) in [
            (&["wupiao"][..], "HOST:PORT"),
            (&["wupiao", ":8080"], "names no host (an empty variable?)"),
            (&["wupiao", "a:1", "b:2"], "unexpected argument"),
        ] {
            match called(args) {
                Ok(_) => panic!("{args:?} was accepted"),
                Err(error) => assert!(error.contains(why), "{args:?}: {error}"),
            }
        }
    }

    #[test]
    fn as_setup_network_environment() {
        for args in [&[][..], &["-o", "/tmp/x"], &["-o=/tmp/x"], &["--o", "/tmp/x"], &["-o", "/tmp/x", "ignored"]] {
            let args = [&["/opt/bin/setup-network-environment"], args].concat();
            assert!(matches!(called(&args), Ok(Command::Network(_))), "{args:?}");
        }
        assert!(called(&["setup-network-environment", "--boot"]).is_err(), "a flag that it never had");
    }

    #[test]
    fn by_any_other_name() {
        assert!(matches!(called(&["/opt/bin/nodeagent", "schema"]), Ok(Command::Schema)));
        assert!(matches!(called(&["agent-v2", "schema"]), Ok(Command::Schema)));
        assert!(called(&[]).is_err(), "without a name there is no command either");
    }

    #[test]
    fn help_fits_a_screen() {
        for mut command in [Wupiao::command(), SetupNetworkEnvironment::command()] {
            let help = command.render_help().to_string();
            assert!(help.lines().all(|line| line.chars().count() <= 80), "too wide:\n{help}");
        }
    }
}
