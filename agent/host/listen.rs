//! Hearing that a port of this machine begins to listen.
//!
//! The kernel tells nobody by itself, so it is asked, by `sock_diag(7)`: what would a connection request find? That costs a
//! tenth of a connection, and the thread that asks sleeps in between without the runtime's work for each timer.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket};
use tokio::sync::oneshot;

use super::gather::netlink::{HEADER, NLM_F_REQUEST, NLMSG_ERROR};

/// How often it asks. A timer's wake-up is most of what a question costs, and half of the pause is what a port's opening
/// is noticed late: who has waited for [`SOON`] is told a little later, and costs less.
pub const PACE: Duration = Duration::from_millis(8);
const LATER: Duration = Duration::from_millis(16);
const SOON: Duration = Duration::from_secs(3);

/// `SOCK_DIAG_BY_FAMILY` of `linux/sock_diag.h`: the type of the question and of its answer.
const BY_FAMILY: u16 = 20;

/// `TCP_LISTEN` of `net/tcp_states.h`.
const LISTEN: u8 = 10;

/// `AF_INET`, `AF_INET6` and `IPPROTO_TCP`.
const IPV4: u8 = 2;
const IPV6: u8 = 10;
const TCP: u8 = 6;

/// The length of a `struct nlmsghdr` with a `struct inet_diag_req_v2`.
const QUESTION: u8 = 16 + 56;

/// Asks for as long as it lives.
#[derive(Debug)]
pub struct ListenWatch {
    heard: oneshot::Receiver<()>,
    is_over: Arc<AtomicBool>,
}

impl ListenWatch {
    /// Begins to ask about these addresses of this machine. Nothing where asking is of no use: a kernel or a sandbox
    /// that does not answer, or one that says that something listens already, of which the caller knows better.
    pub fn new(addresses: Vec<SocketAddr>) -> Option<Self> {
        let kernel = Kernel::open().ok()?;
        if addresses.is_empty() || !matches!(kernel.listens_at(&addresses), Ok(false)) {
            return None;
        }
        let (tell, heard) = oneshot::channel();
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let ask = move || {
            let begun = Instant::now();
            while !over.load(Ordering::Relaxed) {
                thread::sleep(if begun.elapsed() < SOON { PACE } else { LATER });
                // A kernel that answers no longer is the caller's to notice.
                if !matches!(kernel.listens_at(&addresses), Ok(false)) {
                    // Nobody may be there to hear it any more.
                    let _ = tell.send(());
                    return;
                }
            }
        };
        thread::Builder::new().name("listen".to_owned()).spawn(ask).ok()?;
        Some(Self { heard, is_over })
    }

    /// Returns when something listens, or when that is no longer known.
    pub async fn heard(&mut self) {
        let _ = (&mut self.heard).await;
    }
}

impl Drop for ListenWatch {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// The kernel, ready to be asked.
struct Kernel(OwnedFd);

impl Kernel {
    fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkSockDiag)?;
        Ok(Self(socket))
    }

    /// Whether a connection to any of them would find a listener.
    fn listens_at(&self, addresses: &[SocketAddr]) -> io::Result<bool> {
        for address in addresses {
            if self.listens(*address)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn listens(&self, address: SocketAddr) -> io::Result<bool> {
        let socket = self.0.as_raw_fd();
        sendto(socket, &question(address), &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        let mut buffer = [0; 1024];
        // The kernel answers before the question's call returns.
        let length = recv(socket, &mut buffer, MsgFlags::empty())?;
        answer(&buffer[..length])
    }
}

/// A `struct inet_diag_req_v2` about the one socket that a connection request from anywhere would reach.
fn question(to: SocketAddr) -> [u8; QUESTION as usize] {
    let mut bytes = [0; QUESTION as usize];
    let mut at = 0;
    let mut put = |piece: &[u8]| {
        bytes[at..at + piece.len()].copy_from_slice(piece);
        at += piece.len();
    };
    put(&u32::from(QUESTION).to_ne_bytes());
    put(&BY_FAMILY.to_ne_bytes());
    put(&NLM_F_REQUEST.to_ne_bytes());
    // Sequence and sender: one question at a time, and the kernel fills in who asks.
    put(&[0; 8]);
    put(&[if to.is_ipv4() { IPV4 } else { IPV6 }, TCP, 0, 0]);
    put(&(1_u32 << LISTEN).to_ne_bytes());
    put(&to.port().to_be_bytes());
    put(&[0; 2]);
    let mut source = [0; 16];
    match to.ip() {
        IpAddr::V4(ip) => source[..4].copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => source.copy_from_slice(&ip.octets()),
    }
    put(&source);
    // No peer, any link, any cookie (`INET_DIAG_NOCOOKIE`).
    put(&[0; 20]);
    put(&[0xff; 8]);
    bytes
}

/// Whether the answer is a socket that listens. Its errno is `ENOENT` where there is none.
fn answer(bytes: &[u8]) -> io::Result<bool> {
    let word = |at: usize| bytes.get(at..at + 4).and_then(|word| <[u8; 4]>::try_from(word).ok());
    let kind = bytes.get(4..6).and_then(|kind| <[u8; 2]>::try_from(kind).ok()).map(u16::from_ne_bytes);
    match kind {
        // After the family of a `struct inet_diag_msg` comes its state.
        Some(BY_FAMILY) => Ok(bytes.get(HEADER + 1) == Some(&LISTEN)),
        Some(NLMSG_ERROR) => match word(HEADER).map(i32::from_ne_bytes) {
            Some(number) if Errno::from_raw(number.wrapping_neg()) == Errno::ENOENT => Ok(false),
            Some(number) => Err(io::Error::from_raw_os_error(number.wrapping_neg())),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        },
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// For each way to listen, which addresses of the loopback link are reached.
    #[test]
    fn the_kernel_is_asked_what_a_connection_would_find() {
        let kernel = Kernel::open().expect("a netlink socket");
        for (listens, reached, not) in [
            ("127.0.0.1:0", "127.0.0.1", "127.0.0.2"),
            ("0.0.0.0:0", "127.0.0.2", "::1"),
            ("[::1]:0", "::1", "127.0.0.1"),
        ] {
            let listener = TcpListener::bind(listens).expect(listens);
            let port = listener.local_addr().expect("its address").port();
            let at = |ip: &str| SocketAddr::new(ip.parse().expect(ip), port);
            assert!(kernel.listens(at(reached)).expect("an answer"), "{listens}: {reached}");
            assert!(!kernel.listens(at(not)).expect("an answer"), "{listens}: {not}");
            assert!(kernel.listens_at(&[at(not), at(reached)]).expect("an answer"));
            drop(listener);
            assert!(!kernel.listens(at(reached)).expect("an answer"), "{listens}: closed");
        }
        // One socket for both families.
        let both = TcpListener::bind("[::]:0").expect("both");
        let port = both.local_addr().expect("its address").port();
        for ip in ["127.0.0.1", "::1"] {
            assert!(kernel.listens(SocketAddr::new(ip.parse().expect(ip), port)).expect("an answer"), "{ip}");
        }
        // A connection is no listener.
        let client = std::net::TcpStream::connect(("127.0.0.1", port)).expect("a connection");
        assert!(!kernel.listens(client.local_addr().expect("its address")).expect("an answer"));
    }

    #[tokio::test]
    async fn what_listens_already_or_begins_to() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("its address");
        assert!(ListenWatch::new(vec![address]).is_none(), "it listens already");
        assert!(ListenWatch::new(Vec::new()).is_none(), "nothing to ask about");
        drop(listener);
        let mut watch = ListenWatch::new(vec![address]).expect("a kernel that can be asked");
        let early = tokio::time::timeout(Duration::from_millis(50), watch.heard()).await;
        assert!(early.is_err(), "heard before anything listened");
        let _listener = TcpListener::bind(address).expect("the same port");
        let heard = tokio::time::timeout(Duration::from_secs(10), watch.heard()).await;
        assert!(heard.is_ok(), "never heard");
    }

    #[test]
    fn answers_that_say_nothing() {
        for bytes in [&[][..], &[0; 16], &[2; 64]] {
            assert!(answer(bytes).is_err(), "{bytes:?}");
        }
        let mut refused = vec![0; 20];
        refused[4] = 2;
        refused[16..].copy_from_slice(&(-(Errno::EPERM as i32)).to_ne_bytes());
        assert_eq!(answer(&refused).expect_err("refused").raw_os_error(), Some(Errno::EPERM as i32));
    }
}
