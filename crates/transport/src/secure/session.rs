//! One end of a session: messages in, control frames out, and back. Knows no certificates.

use std::{
    fmt,
    io::{BufRead as _, Write as _},
};

use rustls::{AlertDescription, CertificateError, Connection};

use super::crypto::ALPN;
use relay_protocol::{
    DecodeError, Message, MessageDecoder, Pin, UploadKey, encode_control, encode_message,
    limits::{BINDING_BYTES, DATAGRAM_SECRET_BYTES, TLS_HANDSHAKE_BYTES_MAX, TLS_RECORD_BYTES_MAX},
};

/// The label under which both sides export what binds a proof to their session (RFC 9266, 2).
const BINDING_LABEL: &[u8] = b"EXPORTER-Channel-Binding";

/// The label under which they export the secret of their datagrams.
const DATAGRAMS_LABEL: &[u8] = b"EXPORTER-psp-relay-datagrams";

/// The label under which they export the key of what the peer supplies.
const UPLOADS_LABEL: &[u8] = b"EXPORTER-psp-relay-uploads";

/// One end of what is said on a stream.
pub struct Secure {
    tls: Tls,
    /// Said, and not sealed yet. The caller bounds it.
    said: Vec<u8>,
    heard: MessageDecoder,
    /// Bytes that came since the last that said something, as TLS may keep them.
    silent_bytes: usize,
    is_handshaking: bool,
    /// Whether TLS has something for the stream by itself. Kept here, since it is asked far more often than it
    /// changes, and what TLS knows lies elsewhere in memory.
    has_records: bool,
    is_secured_told: bool,
}

enum Tls {
    Session(Box<Connection>),
    /// Nothing around it: for tests of what is inside, which no product build has.
    #[cfg(any(test, feature = "exercise"))]
    Clear(std::collections::VecDeque<u8>),
}

impl fmt::Debug for Secure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secure").field("said_bytes", &self.said.len()).finish_non_exhaustive()
    }
}

/// The relay's key is not the expected one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the relay has the pin {found}, and {expected} is expected")]
pub struct WrongPin {
    /// What a ticket, or an earlier connection, says.
    pub expected: Pin,
    /// What came.
    pub found: Pin,
}

/// Why nothing more can be heard.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SecureError {
    /// The relay has another key than the one that is expected.
    #[error(transparent)]
    WrongPin(WrongPin),
    /// An authority vouches for the relay, or is wanted to, and the certificate does not hold.
    #[error("its certificate is not accepted: {0}")]
    Certificate(CertificateError),
    /// The other side refuses this one.
    #[error("the other side ended TLS: {0:?}")]
    Refused(AlertDescription),
    /// A handshake or a record without end.
    #[error("{0} bytes of TLS that say nothing")]
    TooLong(usize),
    /// The other side serves another protocol by this key, or none.
    #[error("the other side does not say that it speaks this protocol")]
    OtherProtocol,
    /// Bytes were damaged on the way, or forged, or are not TLS.
    #[error("what came is not what the other side sealed: {0}")]
    Damaged(rustls::Error),
    /// The other side broke the protocol inside of TLS.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

impl From<rustls::Error> for SecureError {
    fn from(error: rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(CertificateError::Other(other)) => {
                match other.0.downcast_ref::<WrongPin>() {
                    Some(wrong) => Self::WrongPin(*wrong),
                    None => Self::Certificate(CertificateError::Other(other)),
                }
            }
            rustls::Error::InvalidCertificate(error) => Self::Certificate(error),
            rustls::Error::AlertReceived(alert) => Self::Refused(alert),
            error => Self::Damaged(error),
        }
    }
}

impl Secure {
    pub(super) fn over(connection: impl Into<Connection>) -> Self {
        let mut connection = connection.into();
        // Who pushes bounds what waits; TLS must not drop any of it.
        connection.set_buffer_limit(None);
        Self::with(Tls::Session(Box::new(connection)))
    }

    fn with(tls: Tls) -> Self {
        let mut secure = Self {
            tls,
            said: Vec::new(),
            heard: MessageDecoder::new(),
            silent_bytes: 0,
            is_handshaking: false,
            has_records: false,
            is_secured_told: false,
        };
        secure.look();
        secure
    }

    /// After TLS has done something.
    fn look(&mut self) {
        match &self.tls {
            Tls::Session(tls) => {
                (self.is_handshaking, self.has_records) = (tls.is_handshaking(), tls.wants_write());
            }
            #[cfg(any(test, feature = "exercise"))]
            Tls::Clear(_) => {}
        }
    }

    /// One end with nothing around it.
    #[cfg(any(test, feature = "exercise"))]
    #[must_use]
    pub fn clear() -> Self {
        Self::with(Tls::Clear(std::collections::VecDeque::new()))
    }

    /// A message, to be sealed with the next write.
    pub fn push(&mut self, message: &Message) {
        encode_message(message, &mut self.said);
    }

    /// Bytes where messages are expected, whatever they are: as a side says it that breaks the protocol.
    #[cfg(any(test, feature = "exercise"))]
    pub fn push_said(&mut self, bytes: &[u8]) {
        self.said.extend_from_slice(bytes);
    }

    /// Bytes of messages that wait to be sealed.
    #[must_use]
    pub fn said_bytes(&self) -> usize {
        self.said.len()
    }

    /// Whether [`Self::seal`] has something for the stream now: before the handshake is over, messages wait.
    #[must_use]
    pub fn wants_write(&self) -> bool {
        self.has_records || !self.said.is_empty() && !self.is_handshaking
    }

    /// Appends control frames with all that is to go out.
    pub fn seal(&mut self, out: &mut Vec<u8>) {
        match &mut self.tls {
            Tls::Session(tls) => {
                if !self.said.is_empty() {
                    // What comes too early TLS keeps until it may go. A session that has failed takes nothing more:
                    // what is left to be told is why, which TLS has by itself.
                    tls.writer().write_all(&self.said).ok();
                    self.said.clear();
                }
                let mut frames = Frames(out);
                while tls.wants_write() {
                    tls.write_tls(&mut frames).expect("a vector takes everything");
                }
            }
            #[cfg(any(test, feature = "exercise"))]
            Tls::Clear(_) => {
                encode_control(&self.said, out);
                self.said.clear();
            }
        }
        self.look();
    }

    /// Takes in some of what came in control frames; false if there is nothing more of it. After each call that
    /// gave true, ask [`Self::poll_message`] until it has none.
    ///
    /// # Errors
    /// [`SecureError`]; nothing more can be heard. What [`Self::seal`] gives then tells the other side.
    pub fn open(&mut self, input: &mut &[u8]) -> Result<bool, SecureError> {
        if input.is_empty() {
            return Ok(false);
        }
        match &mut self.tls {
            Tls::Session(tls) => {
                let before = input.len();
                tls.read_tls(input).map_err(|error| {
                    SecureError::Damaged(rustls::Error::General(error.to_string()))
                })?;
                let taken = before - input.len();
                if taken == 0 {
                    // TLS takes nothing more from a side that has said farewell.
                    return Err(SecureError::Refused(AlertDescription::CloseNotify));
                }
                let was_handshaking = tls.is_handshaking();
                let processed = tls.process_new_packets();
                self.look();
                self.silent_bytes += taken;
                if processed?.plaintext_bytes_to_read() > 0 {
                    self.silent_bytes = 0;
                }
                let most = match was_handshaking {
                    true => TLS_HANDSHAKE_BYTES_MAX,
                    false => TLS_RECORD_BYTES_MAX,
                };
                if self.silent_bytes > most {
                    return Err(SecureError::TooLong(self.silent_bytes));
                }
                if was_handshaking && !self.is_handshaking {
                    self.silent_bytes = 0;
                    self.check_protocol()?;
                }
            }
            #[cfg(any(test, feature = "exercise"))]
            Tls::Clear(heard) => {
                heard.extend(*input);
                *input = &[];
            }
        }
        Ok(true)
    }

    /// Both sides speak this protocol, or none.
    fn check_protocol(&self) -> Result<(), SecureError> {
        match &self.tls {
            Tls::Session(tls) if tls.alpn_protocol() != Some(ALPN) => {
                Err(SecureError::OtherProtocol)
            }
            _ => Ok(()),
        }
    }

    /// The next message that came.
    ///
    /// # Errors
    /// The other side broke the protocol.
    pub fn poll_message(&mut self) -> Result<Option<Message>, DecodeError> {
        loop {
            let (message, has_ended) = match &mut self.tls {
                Tls::Session(tls) => {
                    let mut reader = tls.reader();
                    // Nothing there is an error to it.
                    let Ok(mut input) = reader.fill_buf() else { return Ok(None) };
                    let before = input.len();
                    let message = self.heard.decode(&mut input);
                    let taken = before - input.len();
                    reader.consume(taken);
                    (message?, taken == 0)
                }
                #[cfg(any(test, feature = "exercise"))]
                Tls::Clear(heard) => {
                    let mut input = &*heard.make_contiguous();
                    let before = input.len();
                    let message = self.heard.decode(&mut input);
                    let taken = before - input.len();
                    heard.drain(..taken);
                    (message?, taken == 0)
                }
            };
            if message.is_some() || has_ended {
                return Ok(message);
            }
        }
    }

    /// Once, when the handshake is over: what binds a proof to this session.
    pub fn poll_secured(&mut self) -> Option<[u8; BINDING_BYTES]> {
        if self.is_secured_told {
            return None;
        }
        let binding = self.export(BINDING_LABEL)?;
        self.is_secured_told = true;
        Some(binding)
    }

    /// Whether the handshake is not over.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.is_handshaking
    }

    /// What this connection's datagrams are proved by to belong to it; `None` before the handshake is over.
    #[must_use]
    pub fn datagram_secret(&self) -> Option<[u8; DATAGRAM_SECRET_BYTES]> {
        self.export(DATAGRAMS_LABEL)
    }

    /// What makes the checksums of what the peer supplies; `None` before the handshake is over.
    #[must_use]
    pub fn upload_key(&self) -> Option<UploadKey> {
        self.export(UPLOADS_LABEL).map(UploadKey::new)
    }

    /// The same bytes on both sides of this session, and no other.
    fn export<const N: usize>(&self, label: &[u8]) -> Option<[u8; N]> {
        match &self.tls {
            Tls::Session(tls) if tls.is_handshaking() => None,
            Tls::Session(tls) => tls.export_keying_material([0; N], label, Some(&[])).ok(),
            #[cfg(any(test, feature = "exercise"))]
            Tls::Clear(_) => Some([0; N]),
        }
    }
}

/// Puts what is written into control frames.
struct Frames<'a>(&'a mut Vec<u8>);

impl std::io::Write for Frames<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        encode_control(bytes, self.0);
        Ok(bytes.len())
    }

    fn write_vectored(&mut self, slices: &[std::io::IoSlice<'_>]) -> std::io::Result<usize> {
        slices.iter().map(|slice| self.write(slice)).sum()
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
