//! The stand-in for `CoreDNS`, which no registry that can be reached has: it reads a Corefile, and has one address for all
//! names of the cluster's domain.

use std::{
    fs, io,
    net::{Ipv4Addr, UdpSocket},
    thread,
};

/// What every name of the cluster's domain leads to.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 53);

const HEADER: usize = 12;
const A: u16 = 1;
const NAME_ERROR: u8 = 3;

/// Serves as it is told, as the real one is: `-conf FILE`.
pub fn serve(args: &[String]) -> io::Result<()> {
    let bad = |why: String| io::Error::new(io::ErrorKind::InvalidInput, why);
    let [flag, file] = args else { return Err(bad(format!("-conf FILE is wanted, not {args:?}"))) };
    if flag != "-conf" {
        return Err(bad(format!("{flag} is unknown")));
    }
    let corefile = fs::read_to_string(file)?;
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let of_cluster = corefile.lines().map(words).find(|words| words.first().is_some_and(|word| word == "kubernetes"));
    let zone = of_cluster.and_then(|words| words.get(1).cloned()).ok_or_else(|| bad(format!("no zone: {corefile}")))?;
    let socket = UdpSocket::bind(("0.0.0.0", 53))?;
    super::keep_answering(8080, "/health", "OK")?;
    super::keep_answering(8181, "/ready", "OK")?;
    thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((length, client)) = socket.recv_from(&mut query) {
            if let Some(answer) = answer(&query[..length], &zone)
                && let Err(error) = socket.send_to(&answer, client)
            {
                eprintln!("answer {client}: {error}");
            }
        }
    });
    Ok(())
}

/// The answer to a query with one question (RFC 1035, 4.1).
fn answer(query: &[u8], zone: &str) -> Option<Vec<u8>> {
    let mut at = HEADER;
    let mut name = String::new();
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        name.push_str(str::from_utf8(query.get(at..at + length)?).ok()?);
        name.push('.');
        at += length;
    }
    let kind = u16::from_be_bytes(query.get(at..at + 2)?.try_into().ok()?);
    let question = query.get(HEADER..at + 4)?;
    let known = name.to_ascii_lowercase().ends_with(&format!(".{zone}."));
    let found = known && kind == A;
    let mut answer = query.get(..2)?.to_vec();
    // An answer, with recursion as far as it was asked for.
    answer.extend([0x84 | (query.get(2)? & 1), if known { 0 } else { NAME_ERROR }]);
    answer.extend([0, 1, 0, u8::from(found), 0, 0, 0, 0]);
    answer.extend(question);
    if found {
        // The name is the question's; a minute.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(ADDRESS.octets());
    }
    Some(answer)
}
