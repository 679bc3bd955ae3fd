//! Who the nodes are: tokens, admission, and what is agreed on of each node's condition.
//!
//! A node's seat is made when it is admitted and lasts until it is removed; then its id and its
//! key are burnt. Whether a node is *suspect* is not here: that is each router's own view.

use paceline_protocol::limits::{BURNT_IDS_MAX, NODES_MAX, TOKENS_MAX};
use paceline_protocol::registry::{Change, Command, Refusal, Reply, TokenRecord};
use paceline_protocol::{Digest, Epoch, NodeId, TokenId};
use serde::{Deserialize, Serialize};

use super::{BTreeMap, BTreeSet, Registry};

/// What is agreed on of a node's condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeState {
    /// It takes work.
    Up,
    /// It was not heard for long; its replicas are replaced.
    Down,
    /// It leaves since this epoch: it gets no new replicas, and finishes what it has.
    Draining {
        /// The index of the drain.
        since: Epoch,
        /// How long that may take, in milliseconds, from when the node has applied it.
        deadline_ms: u64,
    },
    /// It has ended what it had, and takes no new work.
    Drained {
        /// The index of the drain.
        since: Epoch,
    },
}

/// A node's place in the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seat {
    /// Its name; no other node has it.
    pub(super) name: String,
    /// SHA-256 of its public key; the founder of a cluster was admitted by nobody.
    key_sha256: Option<Digest>,
    zone: String,
    is_down: bool,
    drain: Option<Drain>,
}

/// How many nodes there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NodesMax(pub(super) usize);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Drain {
    since: Epoch,
    deadline_ms: u64,
    is_done: bool,
}

/// A machine that wants to be a node.
struct Candidate<'a> {
    token: TokenId,
    secret_sha256: Digest,
    key_sha256: Digest,
    name: &'a str,
    zone: &'a str,
}

impl Registry {
    /// The condition of a node; `None` if there is none.
    pub fn node_state(&self, node: NodeId) -> Option<NodeState> {
        self.seats.get(&node).map(Seat::state)
    }

    /// Every node that was admitted, also before it has said where it is reached.
    pub fn seats(&self) -> impl Iterator<Item = (NodeId, NodeState)> {
        self.seats.iter().map(|(node, seat)| (*node, seat.state()))
    }

    /// What people call a node that was admitted.
    pub fn name_of(&self, node: NodeId) -> Option<&str> {
        self.seats.get(&node).map(|seat| seat.name.as_str())
    }

    /// Where a node stands, as it said when it was admitted or registered.
    pub fn zone(&self, node: NodeId) -> Option<&str> {
        let registered = self.nodes.get(&node).map(|record| record.zone.as_str());
        registered.or_else(|| self.seats.get(&node).map(|seat| seat.zone.as_str()))
    }

    /// Whether a node was removed: whoever shows its id or its key is not believed.
    pub fn is_burnt(&self, node: NodeId) -> bool {
        self.burnt.contains_key(&node)
    }

    /// Nodes that were removed.
    pub fn burnt(&self) -> BTreeSet<NodeId> {
        self.burnt.keys().copied().collect()
    }

    /// SHA-256 of the public key that a node was admitted with.
    pub fn key_of(&self, node: NodeId) -> Option<Digest> {
        self.seats.get(&node)?.key_sha256
    }

    /// Join tokens by id.
    pub fn tokens(&self) -> &BTreeMap<TokenId, TokenRecord> {
        &self.tokens
    }

    pub(super) fn change_members(
        &mut self,
        epoch: Epoch,
        command: &Command,
    ) -> Result<Reply, Refusal> {
        match &command.change {
            Change::CreateToken(token) => self.create_token(token, command.stamped_ms),
            Change::RevokeToken { token } => {
                let revoked = self.tokens.remove(token);
                revoked.map(|_| Reply::Done).ok_or(Refusal::TokenUnknown)
            }
            Change::AdmitNode {
                token,
                secret_sha256,
                key_sha256,
                name,
                zone,
            } => {
                let candidate = Candidate {
                    token: *token,
                    secret_sha256: *secret_sha256,
                    key_sha256: *key_sha256,
                    name,
                    zone,
                };
                self.admit(epoch, &candidate, command.stamped_ms)
            }
            Change::MarkDown { node, computed_at } => {
                self.check_current(*computed_at)?;
                self.mark(epoch, *node, true)
            }
            Change::MarkUp { node, computed_at } => {
                self.check_current(*computed_at)?;
                self.mark(epoch, *node, false)
            }
            Change::Drain {
                node,
                deadline_ms,
                computed_at,
            } => self.drain(epoch, (*node, *deadline_ms), *computed_at),
            Change::Drained { node, since } => self.drained(epoch, *node, *since),
            Change::Undrain { node } => {
                if self.seat(*node)?.drain.take().is_some() {
                    self.assignments_changed_at = epoch;
                }
                Ok(Reply::Done)
            }
            Change::RemoveNode { node } => self.remove_node(epoch, *node),
            Change::RegisterNode(_)
            | Change::PublishVersion { .. }
            | Change::Deploy { .. }
            | Change::Activate { .. }
            | Change::Assign { .. }
            | Change::Unassign { .. }
            | Change::DeleteModel { .. }
            | Change::SetTenant { .. }
            | Change::DeleteTenant { .. }
            | Change::AddKey { .. }
            | Change::RevokeKey { .. }
            | Change::BeginCanary { .. }
            | Change::AdvanceCanary { .. }
            | Change::PromoteCanary { .. }
            | Change::AbortCanary { .. }
            | Change::Rollback { .. }
            | Change::SetLabel { .. }
            | Change::SetShadow { .. }
            | Change::EndShadow { .. }
            | Change::Undeploy { .. } => unreachable!("not a change of members"),
        }
    }

    /// Names are for people, who must be able to tell nodes apart by them.
    pub(super) fn check_name(&self, name: &str, owner: Option<NodeId>) -> Result<(), Refusal> {
        let twin = self
            .seats
            .iter()
            .find(|(node, seat)| seat.name == name && Some(**node) != owner);
        twin.map_or(Ok(()), |(node, _)| {
            Err(Refusal::NodeName {
                name: name.to_owned(),
                node: *node,
            })
        })
    }

    /// Whether there may be another node beside so many.
    pub(super) fn check_room(&self, nodes: usize) -> Result<(), Refusal> {
        let limit = self.nodes_max.0;
        if nodes < limit {
            return Ok(());
        }
        Err(Refusal::Limit {
            what: "nodes".into(),
            limit: limit as u64,
        })
    }

    /// The first of `n0`, `n1`, … that no node has.
    fn free_name(&self) -> String {
        let taken: BTreeSet<&str> = self.seats.values().map(|seat| &*seat.name).collect();
        (0..=taken.len())
            .map(|number| format!("n{number}"))
            .find(|name| !taken.contains(&**name))
            .expect("of more names than there are nodes one is free")
    }

    fn create_token(&mut self, token: &TokenRecord, now_ms: u64) -> Result<Reply, Refusal> {
        self.tokens.retain(|_, known| known.expires_ms > now_ms);
        // One that is used up is kept to say so, as long as there is room for it.
        if self.tokens.len() >= TOKENS_MAX {
            self.tokens.retain(|_, known| known.uses_left > 0);
        }
        if self.tokens.contains_key(&token.id) {
            return Err(Refusal::TokenExists);
        }
        if self.tokens.len() >= TOKENS_MAX {
            return Err(Refusal::Limit {
                what: "join tokens".into(),
                limit: TOKENS_MAX as u64,
            });
        }
        self.tokens.insert(token.id, token.clone());
        Ok(Reply::Done)
    }

    fn admit(
        &mut self,
        epoch: Epoch,
        candidate: &Candidate<'_>,
        now_ms: u64,
    ) -> Result<Reply, Refusal> {
        let key = Some(candidate.key_sha256);
        if let Some((node, _)) = self.burnt.iter().find(|(_, burnt)| **burnt == key) {
            return Err(Refusal::NodeBurnt { node: *node });
        }
        let token = self.tokens.get(&candidate.token);
        let token = token.filter(|token| token.secret_sha256 == candidate.secret_sha256);
        let token = token.ok_or(Refusal::TokenUnknown)?;
        // An answer that was lost is asked for again, with the same key and the same token.
        let known = self.seats.iter().find(|(_, seat)| seat.key_sha256 == key);
        if let Some((node, _)) = known {
            return Ok(Reply::Admitted(*node));
        }
        if token.expires_ms <= now_ms {
            return Err(Refusal::TokenExpired);
        }
        if token.uses_left == 0 {
            return Err(Refusal::TokenUsed);
        }
        let name = match candidate.name {
            "" => self.free_name(),
            name => name.to_owned(),
        };
        self.check_name(&name, None)?;
        self.check_room(self.seats.len())?;
        if let Some(token) = self.tokens.get_mut(&candidate.token) {
            token.uses_left -= 1;
        }
        let node = NodeId(epoch.0);
        let seat = Seat {
            name,
            key_sha256: key,
            zone: candidate.zone.to_owned(),
            ..Seat::default()
        };
        self.seats.insert(node, seat);
        Ok(Reply::Admitted(node))
    }

    fn drain(
        &mut self,
        epoch: Epoch,
        (node, deadline_ms): (NodeId, u64),
        computed_at: Epoch,
    ) -> Result<Reply, Refusal> {
        // A drain that is under way is not begun anew.
        if self.seat(node)?.drain.is_some() {
            return Ok(Reply::Done);
        }
        // Two drains at a time, each harmless alone, may be too many together.
        self.check_current(computed_at)?;
        self.seat(node)?.drain = Some(Drain {
            since: epoch,
            deadline_ms,
            is_done: false,
        });
        self.assignments_changed_at = epoch;
        Ok(Reply::Done)
    }

    fn drained(&mut self, epoch: Epoch, node: NodeId, since: Epoch) -> Result<Reply, Refusal> {
        match &mut self.seat(node)?.drain {
            Some(drain) if drain.since == since => drain.is_done = true,
            _ => return Err(Refusal::NotDraining { node, since }),
        }
        self.assignments_changed_at = epoch;
        Ok(Reply::Done)
    }

    fn mark(&mut self, epoch: Epoch, node: NodeId, is_down: bool) -> Result<Reply, Refusal> {
        let seat = self.seat(node)?;
        if seat.is_down != is_down {
            seat.is_down = is_down;
            self.assignments_changed_at = epoch;
        }
        Ok(Reply::Done)
    }

    fn remove_node(&mut self, epoch: Epoch, node: NodeId) -> Result<Reply, Refusal> {
        let key_sha256 = self.seat(node)?.key_sha256;
        if self.seats.len() == 1 {
            return Err(Refusal::LastNode { node });
        }
        self.seats.remove(&node);
        self.nodes.remove(&node);
        self.replicas.remove_node(node);
        self.burnt.insert(node, key_sha256);
        // The oldest first: ids rise, and its certificate has expired long ago.
        while self.burnt.len() > BURNT_IDS_MAX {
            self.burnt.pop_first();
        }
        self.assignments_changed_at = epoch;
        Ok(Reply::Done)
    }

    fn seat(&mut self, node: NodeId) -> Result<&mut Seat, Refusal> {
        if self.burnt.contains_key(&node) {
            return Err(Refusal::NodeBurnt { node });
        }
        let seat = self.seats.get_mut(&node);
        seat.ok_or(Refusal::NodeUnknown { node })
    }
}

impl Default for NodesMax {
    fn default() -> Self {
        Self(NODES_MAX)
    }
}

impl Seat {
    fn state(&self) -> NodeState {
        match self.drain {
            _ if self.is_down => NodeState::Down,
            None => NodeState::Up,
            Some(Drain {
                since,
                is_done: true,
                ..
            }) => NodeState::Drained { since },
            Some(Drain {
                since, deadline_ms, ..
            }) => NodeState::Draining { since, deadline_ms },
        }
    }
}
