//! Files of certificates in PEM: a relay's chain, or the authorities that a user believes.
//!
//! Certificates are public: such a file may be read by all. Judges nothing of what is in them.

use std::{fs::File, io::Read as _, path::Path};

use rustls_pki_types::{CertificateDer, pem::PemObject as _};

/// Bytes of such a file, at most: the bundle of some 150 authorities that systems have is a quarter of that.
pub const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The certificates of a file, in its order: at least one.
///
/// # Errors
/// Why there is none, and what the file should be.
pub fn read(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let mut pem = Vec::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    let read = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut pem);
    if read.map_err(|error| error.to_string())? as u64 > FILE_BYTES_MAX {
        return Err(format!(
            "it has more than {FILE_BYTES_MAX} bytes: give a file of certificates"
        ));
    }
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let certificates = certificates.map_err(|error| format!("it is no PEM: {error}"))?;
    match certificates.len() {
        0 => Err("it holds no certificate in PEM".into()),
        _ => Ok(certificates),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_of_certificates_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("chain.pem");
        assert!(read(&path).unwrap_err().contains("No such file"));
        std::fs::write(&path, "hello").unwrap();
        assert!(read(&path).unwrap_err().contains("no certificate"));
        std::fs::write(&path, "-----BEGIN CERTIFICATE-----\n?\n").unwrap();
        assert!(read(&path).unwrap_err().contains("no PEM"));
        std::fs::write(&path, vec![b'x'; 1024 * 1024 + 1]).unwrap();
        assert!(read(&path).unwrap_err().contains("more than"));
        let pem = "-----BEGIN CERTIFICATE-----\naHVzaA==\n-----END CERTIFICATE-----\n";
        std::fs::write(&path, pem.repeat(2)).unwrap();
        assert_eq!(read(&path).unwrap(), vec![CertificateDer::from(b"hush".to_vec()); 2]);
    }
}
