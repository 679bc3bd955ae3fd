//! What is allowed in a configuration.

use std::net::SocketAddr;

use paceline_protocol::limits::{
    BODY_BYTES_MAX, NAME_BYTES_MAX, RECORD_BYTES_MAX, REQUEST_BUDGET_MAX_MS,
};

use super::{Config, ConfigError};

impl Config {
    /// Checks every value, before anything is opened.
    ///
    /// # Errors
    /// The first that is not allowed, with its key and what is.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        check_name("node.name", &self.node.name)?;
        check_name("node.zone", &self.node.zone)?;
        self.check_limits()?;
        self.check_raft()?;
        self.check_addresses()?;
        self.check_tls()?;
        self.log.check().map_err(|error| ConfigError::Syntax {
            source_name: "effective configuration".to_owned(),
            cause: error.to_string(),
        })
    }

    fn check_limits(&self) -> Result<(), ConfigError> {
        let http = &self.http;
        check_range(
            "http.body_bytes_max",
            http.body_bytes_max as u64,
            1_024,
            BODY_BYTES_MAX as u64,
        )?;
        let (least, bodies) = (http.body_bytes_max as u64, http.bodies_bytes_max);
        check_range("http.bodies_bytes_max", bodies, least, 1 << 40)?;
        let connections = http.connections_max as u64;
        check_range("http.connections_max", connections, 1, 1_000_000)?;
        let header = http.header_timeout_ms;
        check_range("http.header_timeout_ms", header, 100, 600_000)?;
        let idle = http.idle_timeout_ms;
        check_range("http.idle_timeout_ms", idle, 100, 3_600_000)?;
        let permits = self.admission.permits.into();
        check_range("admission.permits", permits, 1, 1_000_000)?;
        let delay = self.admission.queue_delay_max_ms;
        check_range(
            "admission.queue_delay_max_ms",
            delay,
            0,
            REQUEST_BUDGET_MAX_MS,
        )?;
        self.check_device()?;
        let record = self.debug.record_bytes;
        if record != 0 && !(RECORD_BYTES_LEAST..=RECORD_BYTES_MOST).contains(&record) {
            let allowed = format!("0, or {RECORD_BYTES_LEAST} to {RECORD_BYTES_MOST}");
            return Err(wrong("debug.record_bytes", record, &allowed));
        }
        Ok(())
    }

    fn check_device(&self) -> Result<(), ConfigError> {
        let device = &self.device;
        check_range("device.threads", device.threads.into(), 0, 1_024)?;
        let bytes = device.process_bytes_max;
        if bytes != 0 && bytes < PROCESS_BYTES_LEAST {
            let allowed = format!("0, or at least {PROCESS_BYTES_LEAST}");
            return Err(wrong("device.process_bytes_max", bytes, &allowed));
        }
        let hung = device.hung_after_ms;
        check_range("device.hung_after_ms", hung, 100, 3_600_000)?;
        let canary = device.canary_interval_ms;
        check_range("device.canary_interval_ms", canary, 100, 86_400_000)
    }

    fn check_raft(&self) -> Result<(), ConfigError> {
        let raft = &self.raft;
        check_range("raft.heartbeat_ms", raft.heartbeat_ms, 10, 10_000)?;
        let shortest = raft.heartbeat_ms * 4;
        check_range(
            "raft.election_min_ms",
            raft.election_min_ms,
            shortest,
            60_000,
        )?;
        let longest = raft.election_min_ms + 1;
        check_range(
            "raft.election_max_ms",
            raft.election_max_ms,
            longest,
            120_000,
        )?;
        check_range(
            "raft.snapshot_entries",
            raft.snapshot_entries,
            10,
            10_000_000,
        )
    }

    fn check_addresses(&self) -> Result<(), ConfigError> {
        if let Some(advertise) = self.node.advertise
            && (advertise.is_unspecified() || advertise.is_multicast())
        {
            let allowed = "the address by which other machines reach this one, as in 10.0.0.5";
            return Err(wrong("node.advertise", advertise, allowed));
        }
        let insecure = self.node.insecure;
        let is_open = |listen: SocketAddr| !listen.ip().is_loopback() && !insecure;
        for (key, listen) in [
            ("http.listen", self.http.listen),
            ("grpc.listen", self.grpc.listen),
        ] {
            if is_open(listen) && !self.is_guarded() {
                let allowed = "a loopback address; or any with TLS and keys: tls.cert, tls.key \
                               (--tls-cert, --tls-key) and admission.keys_required = true; or set \
                               node.insecure = true (--insecure) on a network that you trust. \
                               Other nodes and SDKs need neither: for them, --advertise IP is \
                               enough";
                return Err(wrong(key, listen, allowed));
            }
        }
        if is_open(self.metrics.listen) {
            let allowed = "a loopback address, since metrics have no TLS and no keys; or set \
                           node.insecure = true (--insecure) on a network that you trust";
            return Err(wrong("metrics.listen", self.metrics.listen, allowed));
        }
        // The QUIC doors may be anywhere: nodes show certificates there, and so do members to
        // SDKs and to machines that join.
        for (key, listen) in [
            ("http.listen", self.http.listen),
            ("grpc.listen", self.grpc.listen),
            ("metrics.listen", self.metrics.listen),
            ("sdk.listen", self.sdk.listen),
            ("peer.listen", self.peer.listen),
        ] {
            if listen.ip().is_unspecified() && self.node.advertise.is_none() {
                let allowed = "an address that others can be told; or say besides, with \
                               node.advertise (--advertise IP), by which they reach this machine";
                return Err(wrong(key, listen, allowed));
            }
        }
        Ok(())
    }
}

impl Config {
    /// Whether whoever reaches HTTP must show a key, over TLS.
    pub(crate) fn is_guarded(&self) -> bool {
        self.tls.files().is_some() && self.admission.keys_required
    }

    fn check_tls(&self) -> Result<(), ConfigError> {
        let missing = |key, other| {
            let allowed = format!("a file, since {other} is set");
            Err(wrong(key, "none", &allowed))
        };
        match (&self.tls.cert, &self.tls.key) {
            (Some(_), None) => missing("tls.key", "tls.cert"),
            (None, Some(_)) => missing("tls.cert", "tls.key"),
            _ => Ok(self.tls.files().map_or(Ok(()), |files| files.check())?),
        }
    }
}

/// Less would hold a few steps of each machine, and tell nothing.
const RECORD_BYTES_LEAST: usize = 256 << 10;
/// A process with the stacks of its threads and nothing loaded.
const PROCESS_BYTES_LEAST: u64 = 64 << 20;
/// A record is encoded in at most twice the memory that it has taken.
const RECORD_BYTES_MOST: usize = RECORD_BYTES_MAX / 2;

fn check_name(key: &'static str, name: &str) -> Result<(), ConfigError> {
    let checked = paceline_protocol::ModelName::new(name).map(drop);
    checked.map_err(|error| {
        let allowed = format!("{error} (at most {NAME_BYTES_MAX} bytes)");
        wrong(key, format!("{name:?}"), &allowed)
    })
}

fn check_range(key: &'static str, value: u64, min: u64, max: u64) -> Result<(), ConfigError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(wrong(key, value, &format!("{min} to {max}")))
}

fn wrong(key: &'static str, value: impl ToString, allowed: &str) -> ConfigError {
    ConfigError::Value {
        key,
        value: value.to_string(),
        allowed: allowed.to_owned(),
    }
}
