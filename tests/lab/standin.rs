//! A stand-in for a node component that no package ships: it says what it was started with, reports itself ready to
//! systemd, and answers its health check. Which component it stands for is the name that it was started by.

#![allow(clippy::disallowed_methods, reason = "a program of its own: the rules are the agent's")]

use std::{
    env,
    io::{self, BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    path::Path,
    time::Duration,
};

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
    println!("stand-in for {role}, started as: {}", args.join(" "));

    // The real components' health ports.
    let port = if role == "kube-proxy" { 10256 } else { 10248 };
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    notify("READY=1\nSTATUS=stand-in: answering /healthz")?;
    println!("stand-in for {role}: 127.0.0.1:{port}/healthz");
    // SIGTERM ends it by default, which systemd takes for a clean end.
    for client in listener.incoming() {
        if let Err(error) = client.and_then(answer) {
            eprintln!("stand-in for {role}: {error}");
        }
    }
    Ok(())
}

fn answer(mut client: TcpStream) -> io::Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    let mut request = String::new();
    let mut lines = BufReader::new(client.try_clone()?);
    lines.read_line(&mut request)?;
    // All of the request is read, or closing the connection would cancel the answer.
    let mut header = String::new();
    while lines.read_line(&mut header)? > 2 {
        header.clear();
    }
    let (status, body) = if request.starts_with("GET /healthz ") { ("200 OK", "ok") } else { ("404 Not Found", "") };
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
