//! Control on the stream, data in datagrams.

use super::{Kind, udp_control::pair_with};

/// `--transport udp-data`.
pub(crate) const KIND: Kind =
    Kind { name: "udp-data", is_data_ordered: false, pair: || pair_with(true) };
