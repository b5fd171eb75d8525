//! A stand-in for a node component that no package ships: it says what it was started with, reports itself ready to
//! systemd, and answers its health check. Which component it stands for is the name that it was started by.
//!
//! In pods, too: `pause` holds a pod's namespaces and does nothing, `greeter` answers with its pod's name and with who asked,
//! looks a name up, or fetches a URL, and `coredns` stands in for the cluster's DNS. Flannel's two are in [`flannel`].

#![allow(clippy::disallowed_methods, reason = "a program of its own: the rules are the agent's")]

#[path = "standin/dns.rs"]
mod dns;
#[path = "standin/flannel.rs"]
mod flannel;

use std::{
    env,
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream, ToSocketAddrs},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    path::Path,
    thread,
    time::Duration,
};

use nix::sys::signal::{SigSet, Signal};

/// A client that asks for nothing is not waited for longer.
const PATIENCE: Duration = Duration::from_secs(5);

fn main() -> io::Result<()> {
    let args: Vec<String> = env::args().collect();
    let role =
        Path::new(&args[0]).file_name().map_or_else(|| "nothing".into(), |name| name.to_string_lossy().into_owned());
    if args[1..] == ["--version"] {
        println!("{role} stand-in (not Kubernetes)");
        return Ok(());
    }
    match role.as_str() {
        // What it prints is for the container runtime to read.
        "flannel" => return flannel::plugin(),
        "pause" => return until_told_to_end(),
        "greeter" if args.get(1).is_some_and(|arg| arg == "resolve") => {
            let found = (args[2].as_str(), 0).to_socket_addrs()?;
            return found.into_iter().try_for_each(|address| writeln!(io::stdout(), "{}", address.ip()));
        }
        "greeter" if args.get(1).is_some_and(|arg| arg == "fetch") => {
            return write!(io::stdout(), "{}", fetch(&args[2])?);
        }
        "coredns" => {
            told_to_end().thread_block()?;
            dns::serve(&args[1..])?;
            return until_told_to_end();
        }
        "greeter" => {
            // The threads that serve block what this one waits for.
            told_to_end().thread_block()?;
            thread::spawn(greet);
            return until_told_to_end();
        }
        _ => (),
    }
    println!("stand-in for {role}, started as: {}", args.join(" "));
    if role == "flanneld" {
        return flannel::daemon(&args[1..]);
    }

    // The real components' health ports.
    let port = if role == "kube-proxy" { 10256 } else { 10248 };
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    notify("READY=1\nSTATUS=stand-in: answering /healthz")?;
    println!("stand-in for {role}: 127.0.0.1:{port}/healthz");
    // SIGTERM ends it by default, which systemd takes for a clean end.
    for client in listener.incoming() {
        if let Err(error) = client.and_then(|client| answer(client, "/healthz", "ok")) {
            eprintln!("stand-in for {role}: {error}");
        }
    }
    Ok(())
}

/// What ends a program, and is ignored by the first process of a pod unless it says otherwise.
fn told_to_end() -> SigSet {
    [Signal::SIGTERM, Signal::SIGINT].into_iter().collect()
}

fn until_told_to_end() -> io::Result<()> {
    let signals = told_to_end();
    signals.thread_block()?;
    signals.wait()?;
    Ok(())
}

/// Who is asked by whom, to whoever asks.
fn greet() -> io::Result<()> {
    let name = env::var("HOSTNAME").unwrap_or_default();
    for client in TcpListener::bind(("0.0.0.0", 8080))?.incoming() {
        // One that has gone already is not waited for.
        let Ok((client, asker)) = client.and_then(|client| client.peer_addr().map(|asker| (client, asker))) else {
            continue;
        };
        let greeting = format!("this is {name}, asked by {}\n", asker.ip());
        if let Err(error) = answer(client, "/", &greeting) {
            eprintln!("greeter: {error}");
        }
    }
    Ok(())
}

/// What a server of HTTP has at a URL.
fn fetch(url: &str) -> io::Result<String> {
    let other = |what: &str| io::Error::other(format!("{url}: {what}"));
    let (host, path) =
        url.strip_prefix("http://").and_then(|rest| rest.split_once('/')).ok_or_else(|| other("no URL"))?;
    let address = host.to_socket_addrs()?.next().ok_or_else(|| other("no address"))?;
    let mut server = TcpStream::connect_timeout(&address, PATIENCE)?;
    server.set_read_timeout(Some(PATIENCE))?;
    write!(server, "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    server.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(body.to_owned()),
        _ => Err(other(&answer)),
    }
}

/// Answers every request for `path` on a port, from now on.
fn keep_answering(port: u16, path: &'static str, text: &'static str) -> io::Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", port))?;
    thread::spawn(move || {
        for client in listener.incoming() {
            if let Err(error) = client.and_then(|client| answer(client, path, text)) {
                eprintln!("{path}: {error}");
            }
        }
    });
    Ok(())
}

/// Answers one request: `text` to whoever asks for `path`.
fn answer(mut client: TcpStream, path: &str, text: &str) -> io::Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    let mut request = String::new();
    let mut lines = BufReader::new(client.try_clone()?);
    lines.read_line(&mut request)?;
    // All of the request is read, or closing the connection would cancel the answer.
    let mut header = String::new();
    while lines.read_line(&mut header)? > 2 {
        header.clear();
    }
    let known = request.starts_with(&format!("GET {path} "));
    let (status, body) = if known { ("200 OK", text) } else { ("404 Not Found", "") };
    write!(client, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

/// Tells systemd, when it asked to be told.
fn notify(state: &str) -> io::Result<()> {
    let Ok(path) = env::var("NOTIFY_SOCKET") else { return Ok(()) };
    let address = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}
