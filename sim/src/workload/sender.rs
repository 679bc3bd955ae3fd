//! All of a workload's requests, one after the other.

use std::sync::Arc;

use paceline_core::Random;

use super::arrivals::Stream;
use paceline_trace::{Row, TENANTS_MAX, Trace};

use super::sequences::Followers;
use super::sizes::Sizer;
use super::weights::Weights;
use super::{InvalidWorkload, Sending, Workload};

/// The requests of a workload in the order in which they are sent.
///
/// Everything is drawn from the seed: the same workload, seed and trace give the same requests on
/// any machine. What is drawn for one thing (arrivals, sizes, tenants, sequences) comes from a
/// stream of its own, so that changing one leaves the others alone. Cost: some five random numbers
/// for each thing that is drawn; memory that does not grow with the number of requests.
#[derive(Clone, Debug)]
pub struct Sender {
    arriving: Arriving,
    upcoming: Option<Upcoming>,
    followers: Option<Followers>,
    tenants: Vec<String>,
    /// Where each tenant of the trace stands among `tenants`.
    traced_tenants: Vec<u32>,
    mix: Weights,
    mixing: Random,
    sizers: [Sizer; 4],
    sizing: [Random; 4],
    left: u64,
}

#[derive(Clone, Debug)]
enum Arriving {
    Drawn(Stream),
    Traced {
        trace: Arc<Trace>,
        next: usize,
        end_nanos: u64,
    },
}

/// A single request, or the first of a sequence.
#[derive(Clone, Copy, Debug)]
struct Upcoming {
    at_nanos: u64,
    row: Option<Row>,
}

impl Sender {
    /// What `workload` sends with this seed. Arrivals of a trace want the trace, others none.
    ///
    /// # Errors
    /// [`InvalidWorkload`] names the first setting that is not allowed.
    pub fn new(
        workload: &Workload,
        seed: u64,
        trace: Option<Arc<Trace>>,
    ) -> Result<Self, InvalidWorkload> {
        workload.check()?;
        let end_nanos = workload.duration_ms * 1_000_000;
        let mut tenants: Vec<String> = workload
            .tenants
            .iter()
            .map(|tenant| tenant.name.clone())
            .collect();
        let mut traced_tenants = Vec::new();
        let arriving = match (Stream::new(&workload.arrivals, seed, end_nanos), trace) {
            (Some(stream), None) => Arriving::Drawn(stream),
            (None, Some(trace)) => {
                traced_tenants = join(&mut tenants, trace.tenants())?;
                Arriving::Traced {
                    trace,
                    next: 0,
                    end_nanos,
                }
            }
            (Some(_), Some(_)) => return Err(misfit("not of a trace, but one is given", "none")),
            (None, None) => return Err(misfit("of a trace that is not given", "the trace, read")),
        };
        let random = |label: &str| Random::stream(seed, label);
        let sizes = [
            &workload.rows,
            &workload.tokens,
            &workload.tokens_out,
            &workload.bytes,
        ];
        let followers = workload
            .sequences
            .as_ref()
            .map(|sequences| Followers::new(sequences, random("workload.sequences"), end_nanos));
        let mut sender = Self {
            arriving,
            upcoming: None,
            followers,
            tenants,
            traced_tenants,
            mix: Weights::new(workload.tenants.iter().map(|tenant| tenant.weight)),
            mixing: random("workload.tenants"),
            sizers: sizes.map(Sizer::new),
            sizing: [
                random("workload.rows"),
                random("workload.tokens"),
                random("workload.tokens_out"),
                random("workload.bytes"),
            ],
            left: workload.requests_max.unwrap_or(u64::MAX),
        };
        sender.upcoming = sender.arrive();
        Ok(sender)
    }

    /// The tenants' names, which [`Sending::tenant`] points into: those of the workload, then
    /// those that only the trace names, in the order in which it does.
    pub fn tenants(&self) -> &[String] {
        &self.tenants
    }

    fn arrive(&mut self) -> Option<Upcoming> {
        match &mut self.arriving {
            Arriving::Drawn(stream) => {
                let at_nanos = stream.next()?;
                let row = None;
                Some(Upcoming { at_nanos, row })
            }
            Arriving::Traced {
                trace,
                next,
                end_nanos,
            } => {
                let row = trace.row(*next)?;
                *next += 1;
                (row.at_nanos < *end_nanos).then_some(Upcoming {
                    at_nanos: row.at_nanos,
                    row: Some(row),
                })
            }
        }
    }

    /// Sends a later member of a sequence.
    fn follow(&mut self) -> Option<Sending> {
        let member = self.followers.as_mut()?.take()?;
        Some(self.send(
            member.at_nanos,
            None,
            (member.tenant, Some(member.sequence)),
        ))
    }

    /// Sends what arrives.
    fn lead(&mut self, upcoming: Upcoming) -> Sending {
        self.upcoming = self.arrive();
        let drawn = self.mix.draw(&mut self.mixing) as u32;
        let traced = upcoming.row.and_then(|row| row.tenant);
        let tenant = traced.map_or(drawn, |index| self.traced_tenants[index as usize]);
        let followers = self.followers.as_mut();
        let sequence = followers.and_then(|all| all.begin(upcoming.at_nanos, tenant));
        self.send(upcoming.at_nanos, upcoming.row, (tenant, sequence))
    }

    /// Each size is drawn even where the trace has one, so that a trace's columns do not shift
    /// what is drawn later.
    fn send(
        &mut self,
        at_nanos: u64,
        row: Option<Row>,
        (tenant, sequence): (u32, Option<u64>),
    ) -> Sending {
        let mut drawn = self.sizers.iter().zip(&mut self.sizing);
        let mut size = || drawn.next().map_or(0, |(sizer, random)| sizer.draw(random));
        let [rows, tokens, tokens_out, bytes] = [size(), size(), size(), size()];
        Sending {
            at_nanos,
            rows: row.and_then(|row| row.rows).unwrap_or(rows),
            tokens: row.and_then(|row| row.tokens).unwrap_or(tokens),
            tokens_out: row.and_then(|row| row.tokens_out).unwrap_or(tokens_out),
            bytes: row.and_then(|row| row.bytes).unwrap_or(bytes),
            tenant,
            sequence,
        }
    }
}

impl Iterator for Sender {
    type Item = Sending;

    /// The next request; times do not go back. At the same nanosecond, members of sequences come
    /// before what arrives.
    fn next(&mut self) -> Option<Sending> {
        self.left = self.left.checked_sub(1)?;
        let member_at = self.followers.as_ref().and_then(Followers::next_at);
        match (self.upcoming, member_at) {
            (Some(upcoming), Some(at_nanos)) if at_nanos > upcoming.at_nanos => {
                Some(self.lead(upcoming))
            }
            (Some(upcoming), None) => Some(self.lead(upcoming)),
            (_, Some(_)) => self.follow(),
            (None, None) => None,
        }
    }
}

/// Adds the names that are not there yet, and says where each stands.
fn join(tenants: &mut Vec<String>, traced: &[String]) -> Result<Vec<u32>, InvalidWorkload> {
    let mut places = Vec::with_capacity(traced.len());
    for name in traced {
        let known = tenants.iter().position(|tenant| tenant == name);
        let place = known.unwrap_or_else(|| {
            tenants.push(name.clone());
            tenants.len() - 1
        });
        places.push(place as u32);
    }
    if tenants.len() > TENANTS_MAX {
        let value = format!("{} with those of the trace", tenants.len());
        let allowed = format!("1 to {TENANTS_MAX} in all");
        return Err(InvalidWorkload::new("tenants", value, allowed));
    }
    Ok(places)
}

fn misfit(value: &str, allowed: &str) -> InvalidWorkload {
    InvalidWorkload::new("arrivals", value, allowed)
}
