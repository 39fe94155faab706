//! TLS to PostgreSQL, in libpq's five words.
//!
//! `prefer` and `require` keep listeners out but take any certificate, since that is what they promise and what
//! servers with self-signed certificates need; `verify-ca` asks that one of the roots signed it, `verify-full`
//! that it is also for the host in the URL. rustls does the work: no OpenSSL to link or to keep patched.

use crate::url::{Server, SslMode, Tls};
use crate::{Result, StorageError};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_postgres_rustls::MakeRustlsConnect;

/// The connector that the URL asks for.
pub(crate) fn connector(server: &Server) -> Result<MakeRustlsConnect> {
    let refuse = |what: String| StorageError::Url(what);
    let tls = &server.tls;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match tls.mode {
        SslMode::VerifyFull => chain(tls, &provider, true)?,
        SslMode::VerifyCa => chain(tls, &provider, false)?,
        // As libpq: who gives a root wants it used.
        SslMode::Require if tls.roots.is_some() => chain(tls, &provider, false)?,
        SslMode::Disable | SslMode::Prefer | SslMode::Require => Arc::new(Anybody(Arc::clone(&provider))),
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| refuse(format!("TLS: {error}")))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let config = match &tls.identity {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let key = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| refuse(format!("sslkey {}: {error}", key.display())))?;
            config
                .with_client_auth_cert(certificates(certificate, "sslcert")?, key)
                .map_err(|error| refuse(format!("sslcert and sslkey: {error}")))?
        }
    };
    Ok(MakeRustlsConnect::new(config))
}

/// A verifier of the chain and, if asked for, of the name.
fn chain(tls: &Tls, provider: &Arc<CryptoProvider>, name: bool) -> Result<Arc<Chain>> {
    let own = tls.roots.clone().or_else(|| {
        let path = PathBuf::from(std::env::var_os("HOME")?).join(".postgresql/root.crt");
        path.is_file().then_some(path)
    });
    let mut roots = RootCertStore::empty();
    let mut pinned = Vec::new();
    match own {
        Some(path) => {
            pinned = certificates(&path, "sslrootcert")?;
            for certificate in &pinned {
                roots
                    .add(certificate.clone())
                    .map_err(|error| StorageError::Url(format!("sslrootcert {}: {error}", path.display())))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(StorageError::Url("no root certificates were found: give sslrootcert".to_string()));
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| StorageError::Url(format!("sslrootcert: {error}")))?;
    Ok(Arc::new(Chain { verifier, pinned, name }))
}

fn certificates(path: &Path, parameter: &str) -> Result<Vec<CertificateDer<'static>>> {
    let failed = |what: String| StorageError::Url(format!("{parameter} {}: {what}", path.display()));
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| failed(error.to_string()))?;
    if found.is_empty() {
        return Err(failed("there is no certificate in it".to_string()));
    }
    Ok(found)
}

/// The chain is checked, and perhaps the name.
#[derive(Debug)]
struct Chain {
    verifier: Arc<WebPkiServerVerifier>,
    /// Certificates of `sslrootcert`: a server that signs its own certificate shows one of them.
    pinned: Vec<CertificateDer<'static>>,
    name: bool,
}

/// Nothing is checked but that the other end has the key of the certificate that it shows.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Chain {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        if self.pinned.contains(end_entity) {
            if self.name {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        match self.verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is the last thing looked at, after the chain.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.name => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
