//! A stand-in for a mirror that misbehaves on purpose: it answers each path with what its script says, one answer after
//! the other, the last one for ever, and remembers what it was asked.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::socket::{setsockopt, sockopt};

/// How long a client may take to send its request, and a test to see one.
const PATIENCE: Duration = Duration::from_secs(20);

/// One answer of the stand-in.
#[derive(Clone)]
pub enum Answer {
    /// As a real server would: ranges, validators, the length.
    File(Arc<Vec<u8>>),
    /// The whole file whatever was asked for, and no validator.
    NoRanges(Arc<Vec<u8>>),
    /// Like [`Answer::File`], but this many bytes only, and then as [`End`] says.
    Part(Arc<Vec<u8>>, usize, End),
    /// One byte of it after the other, each after this time.
    Trickle(Arc<Vec<u8>>, Duration),
    /// Another part than the one that was asked for.
    OtherRange(Arc<Vec<u8>>),
    /// A head of its own, and a body.
    Raw(String, Vec<u8>),
}

/// What comes after a part.
#[derive(Clone, Copy, PartialEq)]
pub enum End {
    /// The connection is closed in good order.
    Close,
    /// It is reset.
    Reset,
    /// Nothing: it stays open until the client goes.
    Stall,
}

impl Answer {
    /// A status and nothing else.
    pub fn status(line: &str) -> Self {
        Self::Raw(format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n"), Vec::new())
    }

    /// A redirect.
    pub fn redirect(to: &str) -> Self {
        Self::status(&format!("302 Found\r\nLocation: {to}"))
    }
}

/// What was asked, and what was given.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The path; the whole URL of a request to a proxy.
    pub path: String,
    /// `Range`.
    pub range: Option<String>,
    /// `If-Range`.
    pub if_range: Option<String>,
    /// `Proxy-Authorization`.
    pub login: Option<String>,
    /// When it came.
    pub at: Instant,
    /// Bytes of the body that were sent: all of them are on their way when the answer is over.
    pub sent: usize,
}

#[derive(Default)]
struct State {
    scripts: BTreeMap<String, Vec<Answer>>,
    asked: Vec<Asked>,
}

/// The stand-in. Its threads end with the tests.
pub struct Faulty {
    address: SocketAddr,
    state: Arc<(Mutex<State>, Condvar)>,
}

impl Faulty {
    /// Listens on a port of loopback.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listen on loopback")?;
        let address = listener.local_addr()?;
        let state: Arc<(Mutex<State>, Condvar)> = Arc::default();
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                // A client that goes away in the middle is what many of the tests are about.
                thread::spawn(move || serve(client, &state).ok());
            }
        });
        Ok(Self { address, state })
    }

    /// What it answers to requests for a path from now on.
    pub fn script(&self, path: &str, answers: impl IntoIterator<Item = Answer>) {
        self.lock().scripts.insert(path.to_owned(), answers.into_iter().collect());
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Every request for a path so far.
    pub fn asked(&self, path: &str) -> Vec<Asked> {
        self.lock().asked.iter().filter(|asked| asked.path == path).cloned().collect()
    }

    /// Waits until so many bytes of a path were sent, in all answers together.
    pub fn wait_sent(&self, path: &str, bytes: usize) -> Result<()> {
        let sent = |state: &mut State| {
            state.asked.iter().filter(|asked| asked.path == path).map(|asked| asked.sent).sum::<usize>() < bytes
        };
        let waited = self.state.1.wait_timeout_while(self.lock(), PATIENCE, sent);
        let timed_out = waited.map_err(|_| anyhow::anyhow!("a server thread panicked"))?.1.timed_out();
        ensure!(!timed_out, "{bytes} bytes of {path} were not sent within {PATIENCE:?}");
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn serve(client: TcpStream, shared: &(Mutex<State>, Condvar)) -> Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(client.try_clone()?);
    let mut line = String::new();
    lines.read_line(&mut line)?;
    let mut asked = Asked {
        path: line.split(' ').nth(1).unwrap_or_default().to_owned(),
        range: None,
        if_range: None,
        login: None,
        at: Instant::now(),
        sent: 0,
    };
    loop {
        let mut header = String::new();
        if lines.read_line(&mut header)? <= 2 {
            break;
        }
        let (name, value) = header.trim_end().split_once(": ").unwrap_or_default();
        match name.to_ascii_lowercase().as_str() {
            "range" => asked.range = Some(value.to_owned()),
            "if-range" => asked.if_range = Some(value.to_owned()),
            "proxy-authorization" => asked.login = Some(value.to_owned()),
            _ => {}
        }
    }
    let (index, answer) = {
        let mut state = shared.0.lock().map_err(|_| anyhow::anyhow!("poisoned"))?;
        let nth = state.asked.iter().filter(|other| other.path == asked.path).count();
        let script = state.scripts.get(&asked.path);
        let answer = script.and_then(|script| script.get(nth).or(script.last())).cloned();
        state.asked.push(asked.clone());
        (state.asked.len() - 1, answer.unwrap_or_else(|| Answer::status("404 Not Found")))
    };
    let mut out = Out { client, index, shared };
    out.answer(&asked, answer)
}

struct Out<'s> {
    client: TcpStream,
    index: usize,
    shared: &'s (Mutex<State>, Condvar),
}

impl Out<'_> {
    fn answer(&mut self, asked: &Asked, answer: Answer) -> Result<()> {
        match answer {
            Answer::File(file) => {
                let from = self.head(asked, &file)?;
                self.body(&file[from..])
            }
            Answer::NoRanges(file) => {
                self.write_head(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n", file.len()))?;
                self.body(&file)
            }
            Answer::Part(file, bytes, end) => {
                let from = self.head(asked, &file)?;
                self.body(&file[from..file.len().min(from + bytes)])?;
                match end {
                    End::Close => Ok(()),
                    End::Reset => {
                        let now = nix::libc::linger { l_onoff: 1, l_linger: 0 };
                        Ok(setsockopt(&self.client, sockopt::Linger, &now)?)
                    }
                    End::Stall => self.until_the_client_goes(),
                }
            }
            Answer::Trickle(file, pause) => {
                let from = self.head(asked, &file)?;
                for byte in &file[from..] {
                    self.body(std::slice::from_ref(byte))?;
                    thread::sleep(pause);
                }
                Ok(())
            }
            Answer::OtherRange(file) => {
                let Some(_) = &asked.range else { return self.answer(asked, Answer::File(file)) };
                let (last, total) = (file.len() - 1, file.len());
                let head = format!("Content-Range: bytes 1-{last}/{total}\r\nContent-Length: {last}\r\n");
                self.write_head(&format!("HTTP/1.1 206 Partial Content\r\n{head}"))?;
                self.body(&file[1..])
            }
            Answer::Raw(head, body) => {
                self.write_head(&head)?;
                self.body(&body)
            }
        }
    }

    /// The head of what a real server would answer; returns where its body begins.
    fn head(&mut self, asked: &Asked, file: &[u8]) -> Result<usize> {
        let etag = etag(file);
        let from =
            asked.range.as_deref().and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
        let same = asked.if_range.as_ref().is_none_or(|validator| *validator == etag);
        let (status, from, range) = match from {
            Some(from) if same && from < file.len() => {
                let range = format!("Content-Range: bytes {from}-{}/{}\r\n", file.len() - 1, file.len());
                ("206 Partial Content", from, range)
            }
            Some(_) if same => {
                ("416 Range Not Satisfiable", file.len(), format!("Content-Range: bytes */{}\r\n", file.len()))
            }
            _ => ("200 OK", 0, String::new()),
        };
        let length = file.len() - from;
        self.write_head(&format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nETag: {etag}\r\n{range}"))?;
        Ok(from)
    }

    fn write_head(&mut self, head: &str) -> Result<()> {
        Ok(self.client.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes())?)
    }

    fn body(&mut self, bytes: &[u8]) -> Result<()> {
        for piece in bytes.chunks(16 << 10) {
            self.client.write_all(piece)?;
            let mut state = self.shared.0.lock().map_err(|_| anyhow::anyhow!("poisoned"))?;
            state.asked[self.index].sent += piece.len();
            self.shared.1.notify_all();
        }
        Ok(())
    }

    fn until_the_client_goes(&mut self) -> Result<()> {
        self.client.set_read_timeout(None)?;
        let mut rest = BufReader::new(self.client.try_clone()?);
        Ok(rest.read_until(0, &mut Vec::new()).map(drop)?)
    }
}

/// What the stand-in calls a file.
pub fn etag(file: &[u8]) -> String {
    format!("\"{}\"", &crate::snapshot::digest(file)[..16])
}
