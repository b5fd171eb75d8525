//! The one CA certificate that the controller manager signs with.
//!
//! `pki.ca` may hold several: old and new while a CA is replaced. kube-controller-manager's `--cluster-signing-cert-file` takes
//! exactly one (kubernetes.io/docs/tasks/tls/manual-rotation-of-ca-certificates), so the one that is its key's stands by itself.

use super::authority::Authority;
use super::key::Key;
use crate::config::settings::{Role, Settings, Signer};
use crate::config::values::RootPath;
use crate::engine::file::ManagedFile;
use crate::engine::resource::{CannotTell, Diff, Resource, Seen, Thing};

/// The certificate of the CA's key, in a file of its own.
pub(super) struct SigningCa {
    /// The cluster's CA certificates.
    pub ca: RootPath,
    /// The key that signs.
    pub key: RootPath,
    /// The file to write.
    pub path: RootPath,
}

impl SigningCa {
    /// That of a controller whose controller manager signs.
    pub fn of(settings: &Settings) -> Option<Self> {
        match &settings.certs.signer {
            Signer::Local { key, remove_after_use: false } if settings.role == Role::Controller => Some(Self {
                ca: settings.certs.ca.clone(),
                key: key.clone(),
                path: settings.certs.dir.join("signing-ca.pem"),
            }),
            _ => None,
        }
    }
}

impl Resource for SigningCa {
    fn summary(&self) -> String {
        format!("{} (the certificate of {}, for the controller manager)", self.path, self.key)
    }

    fn reads(&self) -> Vec<Thing> {
        let files = [&self.ca, &self.key, &self.path].map(|path| Thing::File(path.clone()));
        files.into_iter().chain([Thing::Clock]).collect()
    }

    fn makes(&self) -> Vec<Thing> {
        vec![Thing::File(self.path.clone())]
    }

    fn diff(&self, seen: &Seen) -> Result<Diff, CannotTell> {
        let ca = Authority::seen(&self.ca, seen)?;
        let Some(key) = seen.bytes(&self.key)? else {
            let advice = "put the CA's private key there, or choose another pki.signer";
            let why = "there is no such file";
            return Err(CannotTell { advice: Some(advice.to_owned()), ..CannotTell::new(&self.key, why) });
        };
        let key = Key::from_pem(key).map_err(|error| CannotTell::because(&self.key, &error))?;
        let certificate = ca.certificate_of(&key).and_then(|certificate| certificate.to_pem().ok());
        let Some(text) = certificate.and_then(|pem| String::from_utf8(pem).ok()) else {
            let advice = "pki.ca and pki.signer.local.key must be certificate and key of one CA";
            let why = format!("it is not the key of {}", ca.subjects());
            return Err(CannotTell { advice: Some(advice.to_owned()), ..CannotTell::new(&self.key, why) });
        };
        ManagedFile::new(self.path.clone(), text).diff(seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::testing::{Ca, CaKind, seen_files};
    use crate::engine::change::{Body, Change, Meta};

    #[test]
    fn of_several_certificates_the_keys_own_is_taken() {
        let (old, new) = (Ca::valid(CaKind::Rsa), Ca::valid(CaKind::Ec));
        let signing = SigningCa {
            ca: RootPath::literal("/etc/kubernetes/pki/ca.pem"),
            key: RootPath::literal("/etc/kubernetes/pki/ca-key.pem"),
            path: RootPath::literal("/etc/kubernetes/pki/signing-ca.pem"),
        };
        let both = [old.pem(), new.pem()].concat();
        let diff = |key: Option<&[u8]>| {
            let key = key.map(|key| (key, Meta::SECRET));
            let files =
                [(&signing.ca, Some((both.as_slice(), Meta::FILE))), (&signing.key, key), (&signing.path, None)];
            signing.diff(&seen_files(&files))
        };
        let Ok(Diff::Differs { known, .. }) = diff(Some(&new.key_pem())) else { panic!("nothing to write") };
        let Some(Change::Put { body: Body::Bytes(bytes), .. }) = known.last() else { panic!("{known:?}") };
        assert_eq!(*bytes, new.pem());
        let stranger = Ca::valid(CaKind::Ec);
        for (key, why) in [(None, "no such file"), (Some(stranger.key_pem()), "not the key of")] {
            let error = diff(key.as_deref()).expect_err(why);
            assert!(error.why.contains(why) && error.advice.is_some(), "{}", error.why);
        }
    }
}
