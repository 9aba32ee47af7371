//! The peer's proof that both its stream and its datagrams are its own: what comes first on its first stream of QUIC.

use quinn_proto::Connection;

use super::{
    arrivals::Arrivals,
    lanes::{KIND_OF_PROOF, Lanes},
    outcome::DatagramError,
    reading::{Next, next},
};
use relay_protocol::{Side, limits::DATAGRAM_SECRET_BYTES};

/// The label under which both sides export what binds the proof to QUIC's TLS session.
const PROOF_LABEL: &[u8] = b"EXPORTER-psp-relay-datagrams-proof";

/// Bytes of the proof.
const PROOF_BYTES: usize = blake3::OUT_LEN;

/// That the peer is the one of the stream.
#[derive(Debug)]
pub(super) struct Proof {
    pub(super) side: Side,
    pub(super) secret: [u8; DATAGRAM_SECRET_BYTES],
    /// What came of it, behind the byte that says what it is.
    came: Vec<u8>,
    /// The peer has said it, the relay has checked it.
    pub(super) is_done: bool,
}

impl Proof {
    /// Nothing was said.
    pub(super) fn new(side: Side, secret: [u8; DATAGRAM_SECRET_BYTES]) -> Self {
        Self { side, secret, came: Vec::new(), is_done: false }
    }

    /// What proves to the other end of QUIC's session that this one has the stream's secret.
    fn make(&self, connection: &Connection) -> Option<[u8; PROOF_BYTES]> {
        let mut session = [0; 32];
        let crypto = connection.crypto_session();
        crypto.export_keying_material(&mut session, PROOF_LABEL, &[]).ok()?;
        Some(*blake3::keyed_hash(&self.secret, &session).as_bytes())
    }

    /// The peer's first words: this proof.
    pub(super) fn say<E>(
        &mut self,
        connection: &mut Connection,
        lanes: &mut Lanes,
    ) -> Result<(), DatagramError<E>> {
        let proof = self.make(connection).ok_or(DatagramError::Unproven)?;
        lanes.push_proof(connection, &proof);
        self.is_done = true;
        Ok(())
    }

    /// Reads what the peer says first, as far as it has come.
    pub(super) fn check<E>(
        &mut self,
        connection: &mut Connection,
        arrivals: &mut Arrivals,
        lanes: &mut Lanes,
    ) -> Result<(), DatagramError<E>> {
        let Some(id) = arrivals.first() else { return Ok(()) };
        while self.came.len() <= PROOF_BYTES
            && let Next::Bytes(bytes) =
                next(connection, id, (PROOF_BYTES + 1 - self.came.len()) as u64)
        {
            self.came.extend_from_slice(&bytes);
        }
        if self.came.len() <= PROOF_BYTES {
            return Ok(());
        }
        let expected = self.make(connection).map(blake3::Hash::from);
        let proof = <[u8; PROOF_BYTES]>::try_from(&self.came[1..]).map(blake3::Hash::from);
        // Hashes are compared in constant time.
        if self.came[0] != KIND_OF_PROOF || expected.is_none() || proof.ok() != expected {
            return Err(DatagramError::Unproven);
        }
        arrivals.hand_over_first(lanes, KIND_OF_PROOF);
        (self.is_done, self.came) = (true, Vec::new());
        Ok(())
    }
}
