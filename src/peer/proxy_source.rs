//! A proxy as the command line, or a variable, has it.
//!
//! It is read when it is needed, not while the command line is: messages about a command line would repeat it, with
//! the password in it.

use std::fmt;

use crate::client::{Proxy, ProxyUrlError};

/// The URL of a proxy. Not printed for debugging.
#[derive(Clone)]
pub struct ProxySource(String);

impl fmt::Debug for ProxySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProxySource(..)")
    }
}

impl From<String> for ProxySource {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl ProxySource {
    /// The proxy.
    ///
    /// # Errors
    /// It is none that can be used. The error repeats nothing of it.
    pub(super) fn read(&self) -> Result<Proxy, ProxyUrlError> {
        self.0.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_read_and_its_password_never_shown() {
        let source = ProxySource::from("socks5h://user:hunter2@proxy".to_owned());
        assert_eq!(source.read().unwrap().to_string(), "socks5h://proxy:1080");
        assert!(!format!("{source:?}").contains("hunter2"));
        let error = ProxySource::from("hunter2".to_owned()).read().unwrap_err();
        assert!(!error.to_string().contains("hunter2"));
    }
}
