//! Downloads from mirrors that misbehave on purpose: each ends with the right exit code, a message that names the URL and
//! the cause, and no wrong byte at a place where it could be run.

use std::{
    fs,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use crate::faulty::{Answer, End, etag};
use crate::site::{PARTIAL, PATIENCE, Site, file};

/// One mirror with a fault.
struct Fault {
    name: &'static str,
    answers: Vec<Answer>,
    code: i32,
    says: &'static [&'static str],
    /// How often the mirror is asked; nothing if as often as there is time for.
    asked: Option<usize>,
}

#[test]
fn a_mirror_with_a_fault_is_named_with_its_cause() -> Result<()> {
    let file = file();
    let mut flipped = file.to_vec();
    flipped[1_000_000] ^= 1;
    let html =
        |head: &str| Answer::Raw(format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n{head}"), b"<html>".to_vec());
    let head = |length: usize| format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n");
    let whole = file.len();
    let (flipped_file, part) =
        (Answer::File(Arc::new(flipped)), |bytes, end| Answer::Part(Arc::clone(&file), bytes, end));
    let faults = [
        Fault {
            name: "404",
            answers: vec![Answer::status("404 Not Found")],
            code: 1,
            says: &["HTTP 404"],
            asked: Some(1),
        },
        Fault {
            name: "403",
            answers: vec![Answer::status("403 Forbidden")],
            code: 1,
            says: &["HTTP 403"],
            asked: Some(1),
        },
        Fault {
            name: "500",
            answers: vec![Answer::status("500 Oops")],
            code: 3,
            says: &["HTTP 500", "not within 3 s"],
            asked: None,
        },
        Fault {
            name: "503 for an hour",
            answers: vec![Answer::status("503 Busy\r\nRetry-After: 3600")],
            code: 3,
            says: &["HTTP 503", "Retry-After: 3600 s"],
            asked: Some(1),
        },
        Fault {
            name: "408 and 429 once",
            answers: vec![Answer::status("408 Slow"), Answer::status("429 Many"), Answer::File(Arc::clone(&file))],
            code: 0,
            says: &["HTTP 408"],
            asked: Some(3),
        },
        Fault {
            name: "flipped",
            answers: vec![flipped_file],
            code: 4,
            says: &["its sha256 is", "not the pinned"],
            asked: Some(1),
        },
        Fault {
            name: "html",
            answers: vec![html("Content-Length: 6\r\n")],
            code: 4,
            says: &["6 B of text/html"],
            asked: Some(1),
        },
        Fault {
            name: "html without length",
            answers: vec![html("")],
            code: 4,
            says: &["6 B of text/html"],
            asked: Some(1),
        },
        Fault {
            name: "shorter than it is",
            answers: vec![Answer::Raw(head(whole - 1), file.to_vec())],
            code: 4,
            says: &["its sha256 is"],
            asked: Some(1),
        },
        Fault {
            name: "longer than it is, of which the right part comes",
            answers: vec![Answer::Raw(head(whole + 1), file.to_vec())],
            code: 0,
            says: &[],
            asked: Some(1),
        },
        Fault {
            name: "longer than it is, of which more comes than should",
            answers: vec![Answer::Raw(head(whole + 1), [&file[..], b"x"].concat())],
            code: 4,
            says: &["its sha256 is"],
            asked: Some(1),
        },
        Fault {
            name: "truncated, and no ranges",
            answers: vec![Answer::Raw(head(whole), file[..1000].to_vec())],
            code: 3,
            says: &["it broke off after 1.0 kB of", "end of file"],
            asked: None,
        },
        Fault {
            name: "truncated late, and no ranges",
            answers: vec![Answer::Raw(head(whole), file[..2 << 20].to_vec())],
            code: 3,
            says: &["it broke off after 2.1 MB of"],
            asked: None,
        },
        Fault {
            name: "encoded",
            answers: vec![Answer::Raw("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n".into(), b"x".to_vec())],
            code: 1,
            says: &["it is encoded (gzip)"],
            asked: Some(1),
        },
        Fault {
            name: "no http",
            answers: vec![Answer::Raw("SSH-2.0-x\r\n".into(), Vec::new())],
            code: 3,
            says: &["invalid HTTP"],
            asked: None,
        },
        Fault {
            name: "stall",
            answers: vec![part(10_000, End::Stall)],
            code: 3,
            says: &["the server sent", "in 1 s"],
            asked: None,
        },
        Fault {
            name: "trickle",
            answers: vec![Answer::Trickle(Arc::clone(&file), Duration::from_millis(200))],
            code: 3,
            says: &["the server sent only", "B in 1 s"],
            asked: None,
        },
        Fault {
            name: "reset",
            answers: vec![part(10_000, End::Reset), part(whole, End::Close)],
            code: 0,
            says: &["Connection reset"],
            asked: Some(2),
        },
        Fault {
            name: "broken off",
            answers: vec![part(10_000, End::Close), part(whole, End::Close)],
            code: 0,
            says: &["it broke off"],
            asked: Some(2),
        },
        Fault {
            name: "no ranges",
            answers: vec![part(10_000, End::Reset), Answer::NoRanges(Arc::clone(&file))],
            code: 0,
            says: &[],
            asked: Some(2),
        },
        Fault {
            name: "other range",
            answers: vec![part(10_000, End::Reset), Answer::OtherRange(Arc::clone(&file))],
            code: 0,
            says: &[],
            asked: Some(3),
        },
        Fault {
            name: "changed in between",
            answers: vec![Answer::Part(Arc::new(vec![0; whole]), 10_000, End::Reset), part(whole, End::Close)],
            code: 0,
            says: &[],
            asked: Some(2),
        },
        Fault {
            name: "changed to something shorter in between",
            answers: vec![part(10_000, End::Reset), Answer::File(Arc::new(vec![0; 100]))],
            code: 4,
            says: &["100 B of"],
            asked: None,
        },
    ];
    for fault in faults {
        let what = || format!("{}:", fault.name);
        let site = Site::new(&["/a"], "stallAfter: 1s, deadline: 3s").with_context(what)?;
        site.script("/a", fault.answers.clone());
        let (code, told) = site.run().with_context(what)?;
        let asked = site.ranges("/a");
        ensure!(code == fault.code, "{} it ended with {code}: {told}", what());
        for text in fault.says {
            ensure!(told.contains(text), "{} it does not say {text:?}: {told}", what());
        }
        ensure!(
            fault.says.is_empty() || told.contains(&site.mirror.url(&Site::path("/a"))),
            "{} no URL: {told}",
            what()
        );
        ensure!(fault.asked.is_none_or(|times| times == asked.len()), "{} it asked for {asked:?}: {told}", what());
        ensure!(asked.len() <= 15, "{} it was asked {} times in 3 s: without pauses", what(), asked.len());
        site.check_placed(code).with_context(what)?;
        let wrong = site.partials()?.into_iter().filter(|_| code == 0 || code == 4).collect::<Vec<_>>();
        ensure!(wrong.is_empty(), "{} left behind: {wrong:?}", what());
    }
    Ok(())
}

#[test]
fn the_deadline_ends_a_mirror_that_is_just_fast_enough() -> Result<()> {
    let site = Site::new(&["/a"], "minimumRate: 1, deadline: 2s")?;
    site.script("/a", [Answer::Trickle(Arc::clone(&site.file), Duration::from_millis(100))]);
    let (code, told) = site.run()?;
    let says = format!("not within 2 s: {}: it broke off after", site.mirror.url(&Site::path("/a")));
    ensure!(code == 3 && told.contains(&says) && told.contains("the time was over"), "{code}: {told}");
    ensure!(!site.partials()?.is_empty(), "what came is not kept");
    site.check_placed(code)
}

#[test]
fn redirects_have_their_limits() -> Result<()> {
    for (name, hops, circle, code, says) in [
        ("ten", 10, false, 0, ""),
        ("eleven", 11, false, 1, "more than 10 redirects, the last one to 127.0.0.1"),
        ("a circle", 3, true, 1, "the redirects go round in a circle at 127.0.0.1"),
    ] {
        let site = Site::new(&["/a"], "deadline: 5s")?;
        let at = |hop: usize| if hop == 0 { Site::path("/a") } else { format!("/hop/{hop}") };
        for hop in 0..hops {
            let to = if circle && hop == hops - 1 { at(0) } else { at(hop + 1) };
            // A key in a redirect's URL is nobody's business.
            site.mirror.script(&at(hop), [Answer::redirect(&site.mirror.url(&to))]);
        }
        if !circle {
            site.mirror.script(&at(hops), [Answer::File(Arc::clone(&site.file))]);
        }
        let (code_got, told) = site.run()?;
        ensure!(code_got == code && told.contains(says), "{name}: {code_got}: {told}");
        ensure!(code == 0 || told.contains(&site.mirror.url(&at(0))), "{name}: no URL: {told}");
        site.check_placed(code).context(name)?;
        assert_eq!(site.ranges("/a").len(), 1, "{name}: asked once");
    }
    Ok(())
}

#[test]
fn a_resume_behind_a_redirect_begins_at_the_original_url() -> Result<()> {
    let site = Site::new(&["/a"], "deadline: 10s")?;
    site.script("/a", [Answer::redirect(&site.mirror.url("/b?key=s3cret"))]);
    let part = Answer::Part(Arc::clone(&site.file), 100_000, End::Close);
    site.mirror.script("/b?key=s3cret", [part, Answer::File(Arc::clone(&site.file))]);
    let (code, told) = site.run()?;
    ensure!(code == 0, "{told}");
    site.check_placed(code)?;
    assert_eq!(site.ranges("/a"), [None, Some("bytes=100000-".to_owned())]);
    let asked = site.mirror.asked("/b?key=s3cret");
    assert_eq!(asked[1].range.as_deref(), Some("bytes=100000-"));
    assert_eq!(asked[1].if_range, Some(etag(&site.file)));
    ensure!(!told.contains("s3cret"), "the redirect's key was told: {told}");
    Ok(())
}

#[test]
fn what_a_server_asks_for_is_waited() -> Result<()> {
    let site = Site::new(&["/a"], "deadline: 10s")?;
    site.script("/a", [Answer::status("503 Busy\r\nRetry-After: 1"), Answer::File(Arc::clone(&site.file))]);
    let (code, told) = site.run()?;
    ensure!(code == 0, "{told}");
    let asked = site.mirror.asked(&Site::path("/a"));
    assert_eq!(asked.len(), 2);
    ensure!(asked[1].at.duration_since(asked[0].at) >= Duration::from_secs(1), "it did not wait: {asked:?}");
    Ok(())
}

#[test]
fn the_next_mirror_continues_the_same_file() -> Result<()> {
    for (name, end) in [("stalls", End::Stall), ("resets", End::Reset), ("closes", End::Close)] {
        let site = Site::new(&["/a", "/b", "/c"], "stallAfter: 1s")?;
        site.script("/a", [Answer::Part(Arc::clone(&site.file), 1_000_000, end)]);
        site.script("/b", [Answer::status("404 Not Found")]);
        site.script("/c", [Answer::File(Arc::clone(&site.file))]);
        let (code, told) = site.run()?;
        ensure!(code == 0, "{name}: {told}");
        site.check_placed(code).context(name)?;
        let asked = site.mirror.asked(&Site::path("/c"));
        assert_eq!(asked.len(), 1, "{name}");
        let from =
            asked[0].range.as_deref().and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
        let from: usize = from.with_context(|| format!("{name}: no range: {asked:?}"))?;
        // A reset takes with it what the kernel had not handed over yet.
        ensure!(from == 1_000_000 || (end == End::Reset && from < 1_000_000), "{name}: it continued at {from}");
        assert_eq!(asked[0].if_range, None, "{name}: the validator is another mirror's");
    }
    Ok(())
}

#[test]
fn after_a_bad_digest_the_next_mirror_begins_from_zero() -> Result<()> {
    let site = Site::new(&["/a", "/b"], "stallAfter: 1s")?;
    site.script("/a", [Answer::File(Arc::new(vec![0; site.file.len()]))]);
    site.script("/b", [Answer::File(Arc::clone(&site.file))]);
    let (code, told) = site.run()?;
    ensure!(code == 0, "{told}");
    site.check_placed(code)?;
    assert_eq!((site.ranges("/a"), site.ranges("/b")), (vec![None], vec![None]));
    Ok(())
}

#[test]
fn an_error_names_each_mirrors_reason() -> Result<()> {
    let site = Site::new(&["/a", "/b", "/c"], "stallAfter: 1s, deadline: 3s")?;
    site.script("/a", [Answer::status("404 Not Found")]);
    site.script("/b", [Answer::File(Arc::new(vec![0; 1000]))]);
    site.script("/c", [Answer::status("502 Bad Gateway")]);
    let (code, told) = site.run()?;
    ensure!(code == 4, "verification goes before a deadline: {code}: {told}");
    for (mirror, why) in [("/a", "HTTP 404"), ("/b", "its sha256 is"), ("/c", "HTTP 502")] {
        let says = format!("{}: {why}", site.mirror.url(&Site::path(mirror)));
        ensure!(told.contains(&says), "it does not say {says:?}: {told}");
    }
    Ok(())
}

#[test]
fn a_resumed_file_that_is_wrong_is_fetched_once_whole() -> Result<()> {
    // A power cut can leave zeros where bytes should be.
    let site = Site::new(&["/a"], "deadline: 10s")?;
    site.leave(&[0; 1000], &etag(&site.file))?;
    site.script("/a", [Answer::File(Arc::clone(&site.file))]);
    let (code, told) = site.run()?;
    ensure!(code == 0, "{told}");
    site.check_placed(code)?;
    assert_eq!(site.ranges("/a"), [Some("bytes=1000-".to_owned()), None]);

    // And only once: then it is the mirror's.
    let site = Site::new(&["/a"], "deadline: 10s")?;
    let wrong = Arc::new(vec![1; 5000]);
    site.leave(&[0; 1000], &etag(&wrong))?;
    site.script("/a", [Answer::File(wrong)]);
    let (code, told) = site.run()?;
    ensure!(code == 4, "{told}");
    site.check_placed(code)?;
    assert_eq!(site.ranges("/a"), [Some("bytes=1000-".to_owned()), None]);
    ensure!(site.partials()?.is_empty(), "wrong bytes were kept: {:?}", site.partials()?);
    Ok(())
}

#[test]
fn a_file_longer_than_it_should_be_is_fetched_anew() -> Result<()> {
    let site = Site::new(&["/a"], "deadline: 10s")?;
    site.leave(&vec![0; site.file.len() + 1], &etag(&site.file))?;
    site.script("/a", [Answer::File(Arc::clone(&site.file))]);
    let (code, told) = site.run()?;
    ensure!(code == 0, "{told}");
    site.check_placed(code)
}

#[test]
fn what_was_complete_needs_no_mirror() -> Result<()> {
    let site = Site::new(&["/a"], "deadline: 10s")?;
    site.leave(&site.file, &etag(&site.file))?;
    let (code, told) = site.run()?;
    ensure!(code == 0 && told.contains("had been fetched before"), "{told}");
    site.check_placed(code)?;
    ensure!(site.ranges("/a").is_empty(), "it asked for {:?}", site.ranges("/a"));
    Ok(())
}

#[test]
fn after_a_kill_at_half_way_the_rest_is_fetched() -> Result<()> {
    let site = Site::new(&["/a"], "deadline: 10s")?;
    let half = site.file.len() / 2;
    site.script("/a", [Answer::Part(Arc::clone(&site.file), half, End::Stall), Answer::File(Arc::clone(&site.file))]);
    let running = site.start(&["install"])?;
    site.mirror.wait_sent(&Site::path("/a"), half)?;
    let begun = Instant::now();
    while fs::metadata(site.partial()).map_or(0, |meta| meta.len()) < half as u64 {
        ensure!(begun.elapsed() < PATIENCE, "the half that came was not written");
        thread::sleep(Duration::from_millis(2));
    }
    running.kill()?;
    let (code, told) = site.run()?;
    ensure!(code == 0 && told.contains("of it before"), "{told}");
    site.check_placed(code)?;
    let asked = site.mirror.asked(&Site::path("/a"));
    assert_eq!(asked[1].if_range, Some(etag(&site.file)));
    let sent: usize = asked.iter().map(|asked| asked.sent).sum();
    ensure!(sent <= site.file.len() + (1 << 20), "{} bytes were sent twice", sent - site.file.len());
    ensure!(site.partials()?.is_empty(), "left behind: {:?}", site.partials()?);
    Ok(())
}

#[test]
fn a_failed_run_keeps_what_can_be_resumed_and_nothing_else() -> Result<()> {
    let site = Site::new(&["/a"], "stallAfter: 1s, deadline: 2s")?;
    fs::create_dir_all(site.root().join(PARTIAL))?;
    fs::write(site.root().join(PARTIAL).join("kubectl-000000000000"), "of another version")?;
    fs::write(site.root().join(PARTIAL).join("nodeagent"), "cloud-config's own")?;
    site.script("/a", [Answer::Part(Arc::clone(&site.file), 1000, End::Stall)]);
    let (code, told) = site.run()?;
    ensure!(code == 3, "{told}");
    let name = site.partial().file_name().context("a name")?.to_string_lossy().into_owned();
    assert_eq!(site.partials()?, [name.clone(), format!("{name}.from"), "nodeagent".to_owned()]);

    site.script("/a", [Answer::File(Arc::clone(&site.file))]);
    let (code, told) = site.run()?;
    ensure!(code == 0, "{told}");
    assert_eq!(site.partials()?, ["nodeagent"]);
    Ok(())
}

#[test]
fn two_agents_at_once_fetch_it_once() -> Result<()> {
    let site = Site::new(&["/a"], "deadline: 10s")?;
    site.script("/a", [Answer::File(Arc::clone(&site.file))]);
    let both = [site.start(&["install"])?, site.start(&["install"])?];
    for running in both {
        let (code, told) = running.end()?;
        ensure!(code == 0, "{told}");
        site.check_placed(code)?;
    }
    assert_eq!(site.ranges("/a").len(), 1);
    Ok(())
}

#[test]
fn a_proxy_is_told_its_password_and_nobody_else_is() -> Result<()> {
    let site = Site::new(&["/a"], "deadline: 3s")?;
    let proxy = site.mirror.url("").replace("http://", "http://me:s3cret@");
    site.configure(&["/a"], &format!("deadline: 3s, proxy: \"{proxy}\""))?;
    let small = Arc::new(b"small".to_vec());
    for path in ["/kubelet", "/kube-proxy"] {
        site.mirror.script(&site.mirror.url(path), [Answer::File(Arc::clone(&small))]);
    }
    // A proxy is asked for whole URLs.
    let url = site.mirror.url(&Site::path("/a"));
    site.mirror.script(&url, [Answer::status("407 Who are you"), Answer::File(Arc::clone(&site.file))]);
    let (code, told) = site.run()?;
    ensure!(code == 1 && told.contains("HTTP 407"), "{code}: {told}");
    let (code, again) = site.run()?;
    ensure!(code == 0, "{again}");
    site.check_placed(code)?;
    let login = site.mirror.asked(&url)[1].login.clone().context("a login")?;
    assert_eq!(login, "Basic bWU6czNjcmV0");

    // A proxy that is not there, one that does not speak http, and what is misspelt.
    let mut all = told + &again;
    for proxy in
        ["http://me:s3cret@127.0.0.1:1", "https://me:s3cret@127.0.0.1:1", "htp://me:s3cret@x", "http://me:s3cret@"]
    {
        site.configure(&["/a"], &format!("deadline: 1s, proxy: \"{proxy}\""))?;
        fs::remove_dir_all(site.root().join("opt"))?;
        let (code, told) = site.run()?;
        ensure!(code == 3 || code == 2, "{proxy}: {code}: {told}");
        fs::create_dir_all(site.root().join("opt"))?;
        all.push_str(&told);
        all.push_str(&site.start(&["plan", "-o", "json"])?.printed()?);
    }
    ensure!(!all.contains("s3cret") && !all.contains("czNjcmV0"), "the password was told: {all}");
    Ok(())
}

#[test]
fn certificates_that_cannot_be_used_are_named() -> Result<()> {
    for (content, says) in
        [(None, "there is no such file"), (Some(""), "it holds no certificate"), (Some("x"), "/etc/mirror.pem")]
    {
        let site = Site::new(&["/a"], "ca: /etc/mirror.pem, deadline: 3s")?;
        if let Some(content) = content {
            fs::write(site.root().join("etc/mirror.pem"), content)?;
        }
        let (code, told) = site.run()?;
        ensure!(code == 1 && told.contains("/etc/mirror.pem") && told.contains(says), "{content:?}: {code}: {told}");
    }
    Ok(())
}
