//! The ports of a node: a block of five from its HTTP port upwards.

use std::net::SocketAddr;

use super::options::loopback;

/// Where a node listens when only its HTTP port P is named: HTTP at P, gRPC at P+1, metrics at
/// P+2, QUIC for SDKs at P+3 and for other nodes at P+4. A block at 0 takes free ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    http: u16,
}

impl Block {
    /// From one local node's block to the next: a block and room for five more doors.
    pub const STRIDE: u16 = 10;

    /// The block at an HTTP port.
    ///
    /// # Errors
    /// There is no room above the port.
    pub fn at(http: u16) -> Result<Self, String> {
        if http > u16::MAX - PEER {
            let most = u16::MAX - PEER;
            return Err(format!(
                "HTTP port {http} leaves no room for the node's other doors; allowed: 0 to {most}"
            ));
        }
        Ok(Self { http })
    }

    /// The block of the local node `node`, counted from 0, where the first is this one.
    ///
    /// # Errors
    /// There is no room for it.
    pub fn of_node(self, node: usize) -> Result<Self, String> {
        if self.http == 0 {
            return Ok(self);
        }
        let above = u16::try_from(node)
            .ok()
            .and_then(|node| node.checked_mul(Self::STRIDE));
        let port = above.and_then(|above| self.http.checked_add(above));
        port.map_or_else(
            || {
                Err(format!(
                    "HTTP port {} leaves no room for node {node}",
                    self.http
                ))
            },
            Self::at,
        )
    }

    /// The HTTP port.
    pub fn http(self) -> u16 {
        self.http
    }

    /// Each door's key and where it listens.
    pub fn listens(self) -> [(&'static str, SocketAddr); 5] {
        let at = |above: u16| match self.http {
            0 => loopback(0),
            http => loopback(http + above),
        };
        [
            ("http.listen", at(0)),
            ("grpc.listen", at(GRPC)),
            ("metrics.listen", at(METRICS)),
            ("sdk.listen", at(SDK)),
            ("peer.listen", at(PEER)),
        ]
    }
}

const GRPC: u16 = 1;
const METRICS: u16 = 2;
const SDK: u16 = 3;
const PEER: u16 = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn blocks_stand_side_by_side_and_end_below_the_last_port() {
        let ports = |block: Block| block.listens().map(|(_, listen)| listen.port());
        let first = Block::at(8000).unwrap();
        assert_eq!(ports(first), [8000, 8001, 8002, 8003, 8004]);
        let third = first.of_node(2).unwrap();
        assert_eq!(ports(third), [8020, 8021, 8022, 8023, 8024]);
        assert_eq!(ports(Block::at(0).unwrap().of_node(5).unwrap()), [0; 5]);
        assert_eq!(ports(Block::at(65_531).unwrap())[4], 65_535);
        assert!(Block::at(65_532).is_err());
        assert!(Block::at(65_520).unwrap().of_node(2).is_err());
        assert!(first.of_node(usize::MAX).is_err());
    }

    #[test]
    fn the_defaults_are_the_block_at_8000() {
        let Config {
            http,
            grpc,
            metrics,
            sdk,
            peer,
            ..
        } = Config::default();
        let defaults = [
            http.listen,
            grpc.listen,
            metrics.listen,
            sdk.listen,
            peer.listen,
        ];
        let block = Block::at(8000).unwrap().listens();
        assert_eq!(block.map(|(_, listen)| listen), defaults);
    }
}
