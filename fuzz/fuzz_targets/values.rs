//! Every checked value: its text reads back as itself, and what paths and URLs are made into is as good as they are.
#![no_main]

use std::fmt::{Debug, Display};
use std::str::FromStr;

use libfuzzer_sys::fuzz_target;
use nodeagent::config::values::{
    ArtifactName, ArtifactVersion, BadValue, CertName, Cidr, CommonName, DnsDomain, Every, HttpUrl, ImageName,
    InterfaceName, Keep, KeyHash, LabelKey, LabelValue, Limit, ModuleName, NodeName, Parallel, ProxyUrl, Rate,
    RootPath, Sha256, Sha512, Span, SysctlKey, UnitName, Version, check_format,
};

fuzz_target!(|text: &str| {
    round_trip::<UnitName>("unit", text);
    round_trip::<NodeName>("node-name", text);
    round_trip::<InterfaceName>("interface", text);
    round_trip::<ModuleName>("module", text);
    round_trip::<Sha256>("sha256", text);
    round_trip::<KeyHash>("key-hash", text);
    round_trip::<Sha512>("sha512", text);
    round_trip::<Version>("version", text);
    round_trip::<ArtifactName>("artifact", text);
    round_trip::<ArtifactVersion>("artifact-version", text);
    round_trip::<DnsDomain>("dns-domain", text);
    round_trip::<Limit>("limit", text);
    round_trip::<Span>("span", text);
    round_trip::<Rate>("rate", text);
    round_trip::<Parallel>("parallel", text);
    round_trip::<Every>("every", text);
    round_trip::<Keep>("keep", text);
    round_trip::<ImageName>("image-name", text);
    round_trip::<LabelKey>("label-key", text);
    round_trip::<LabelValue>("label-value", text);
    round_trip::<CommonName>("common-name", text);
    round_trip::<CertName>("cert-name", text);
    let proxy = text.parse::<ProxyUrl>();
    assert_eq!(proxy.is_ok(), check_format("proxy-url", text).is_ok());
    if let Err(error) = proxy {
        assert!(!error.to_string().contains(char::is_control), "{error:?}");
    }
    if let Some(path) = round_trip::<RootPath>("path", text) {
        assert!(inside(path.as_str()) && inside(path.parent().as_str()), "{path}");
        assert!(!path.relative().starts_with('/') && !path.relative().split('/').any(|part| part == ".."));
        if check_format("path", path.as_str()).is_ok() {
            let below = path.join("a.pem");
            assert_eq!((below.name(), &below.parent()), ("a.pem", &path));
        }
    }
    if let Some(key) = round_trip::<SysctlKey>("sysctl", text) {
        let file: RootPath = key.file().parse().unwrap_or_else(|error| panic!("{key}: {error}"));
        assert!(file.as_str().starts_with("/proc/sys/") && file.as_str() == key.file(), "{key}: {file}");
    }
    if let Some(url) = round_trip::<HttpUrl>("http-url", text) {
        let (host, port) = url.host_port();
        assert!(!host.is_empty() && port > 0, "{url}");
        let joined = url.join("/a/b");
        assert_eq!(joined.as_str().parse(), Ok(joined));
    }
    if let Some(cidr) = round_trip::<Cidr>("cidr", text) {
        assert!(cidr.contains(cidr.nth(0)), "{cidr}");
    }
});

fn inside(path: &str) -> bool {
    path.starts_with('/') && !path.split('/').any(|part| part == "..")
}

/// The value, if the text is one.
fn round_trip<T: FromStr<Err = BadValue> + Display + Debug + PartialEq>(format: &str, text: &str) -> Option<T> {
    let value = text.parse::<T>();
    // The configuration takes shorter paths than the type: files are named below them.
    let same = value.is_ok() == check_format(format, text).is_ok();
    assert!(same || (format == "path" && text.len() > 1024), "{format}: {text:?}");
    match value {
        Ok(value) => {
            let shown = value.to_string();
            assert!(!shown.contains(char::is_control), "{format}: {shown:?}");
            assert_eq!(shown.parse::<T>().as_ref(), Ok(&value), "{format}: {shown:?}");
            Some(value)
        }
        Err(error) => {
            assert!(!error.to_string().contains(char::is_control), "{error:?}");
            None
        }
    }
}
