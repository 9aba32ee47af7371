//! The metrics of a relay's uplinks. Without `--upstream` they stay at zero.

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};

use crate::uplinks::UplinkPort;

/// Their handles.
pub(super) struct Uplinks {
    port: Option<UplinkPort>,
    swarms: Gauge,
    connected: Gauge,
    bytes: [Counter; 2],
}

impl Uplinks {
    pub(super) fn new(port: Option<&UplinkPort>) -> Self {
        describe_gauge!("relay_uplink_swarms", "Files that have an uplink");
        describe_gauge!("relay_uplink_connected", "Of them, those joined at the upstream relay");
        describe_counter!("relay_uplink_bytes_total", "Chunk bytes that crossed uplinks");
        let bytes = |direction| counter!("relay_uplink_bytes_total", "direction" => direction);
        Self {
            port: port.cloned(),
            swarms: gauge!("relay_uplink_swarms"),
            connected: gauge!("relay_uplink_connected"),
            bytes: [bytes("in"), bytes("out")],
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "gauges are f64")]
    pub(super) fn flush(&self) {
        let counted = self.port.as_ref().map(|port| port.cells.get()).unwrap_or_default();
        let [swarms, connected, in_bytes, out_bytes] = counted;
        self.swarms.set(swarms as f64);
        self.connected.set(connected as f64);
        self.bytes[0].absolute(in_bytes);
        self.bytes[1].absolute(out_bytes);
    }
}
