//! Content codings (RFC 9110, section 8.4): bodies that come compressed, and answers that go so.
//!
//! What a body is limited to is its size once it is decompressed. It is decompressed piece by piece
//! and no further than that, so a bomb costs what any body of that size may.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use hyper::Response;
use hyper::header::{self, HeaderMap, HeaderValue};
use paceline_protocol::{ErrorCode, Failure};

use super::bodies::{Bodies, Place};
use super::body::AnswerBody;
use super::inflate::{Inflate, STEP_READ_BYTES_MAX, Step};

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// RFC 1952.
    Gzip,
    /// RFC 1950, as HTTP calls it: with the wrapper of zlib.
    Deflate,
}

/// A body that is being decompressed.
struct Inflating {
    inflate: Inflate,
    out: Vec<u8>,
    place: Place,
    limit: usize,
}

/// How far to go.
#[derive(Clone, Copy)]
struct Bounds {
    written: usize,
    /// Bytes that are read in a step, and in all more than are written.
    read: usize,
}

impl Coding {
    /// How a request's body is compressed, if it is.
    ///
    /// # Errors
    /// In a way that is not known, or in several.
    pub(super) fn of_body(headers: &HeaderMap) -> Result<Option<Self>, Failure> {
        let Some(first) = headers.get(header::CONTENT_ENCODING) else {
            return Ok(None);
        };
        let name = first.as_bytes().trim_ascii();
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        let is_one = headers.get_all(header::CONTENT_ENCODING).iter().count() == 1;
        if is_one && is("identity") {
            Ok(None)
        } else if is_one && (is("gzip") || is("x-gzip")) {
            Ok(Some(Self::Gzip))
        } else if is_one && is("deflate") {
            Ok(Some(Self::Deflate))
        } else {
            let message = "Content-Encoding may be gzip, deflate or identity, and one of them";
            Err(Failure::new(ErrorCode::Unsupported, message))
        }
    }

    /// How the client would have its answer compressed, if it would.
    pub(super) fn wanted(headers: &HeaderMap) -> Option<Self> {
        let accepted = headers.get_all(header::ACCEPT_ENCODING);
        let accepted = accepted.iter().filter_map(|value| value.to_str().ok());
        let mut gzip = None;
        let mut deflate = None;
        let mut others = None;
        for choice in accepted.flat_map(|value| value.split(',')) {
            let (name, weight) = choice.split_once(';').unwrap_or((choice, "q=1"));
            let weight = weight.trim().strip_prefix("q=").unwrap_or_default();
            let weight = Some(weight.parse::<f32>().unwrap_or(0.0));
            let name = name.trim();
            if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") {
                gzip = weight;
            } else if name.eq_ignore_ascii_case("deflate") {
                deflate = weight;
            } else if name == "*" {
                others = weight;
            }
        }
        let weight = |named: Option<f32>| named.or(others).unwrap_or(0.0);
        let (gzip, deflate) = (weight(gzip), weight(deflate));
        match gzip >= deflate {
            true if gzip > 0.0 => Some(Self::Gzip),
            false if deflate > 0.0 => Some(Self::Deflate),
            _ => None,
        }
    }

    fn name(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        })
    }

    /// The body of a request as it was before it was compressed.
    ///
    /// # Errors
    /// It has more than `limit` bytes, is malformed or cut off, or there is no room for it.
    pub(super) async fn inflate(
        self,
        body: Bytes,
        limit: usize,
        bodies: &Bodies,
    ) -> Result<Bytes, Failure> {
        let mut inflating = self.inflating(body, limit, bodies);
        if inflating.run(Bounds::INLINE)? {
            return Ok(inflating.whole());
        }
        let work = move || {
            inflating.run(Bounds::NONE)?;
            Ok(inflating.whole())
        };
        bodies.work(work).await
    }

    fn inflating(self, body: Bytes, limit: usize, bodies: &Bodies) -> Inflating {
        Inflating {
            inflate: match self {
                Self::Gzip => Inflate::gzip(body),
                Self::Deflate => Inflate::zlib(body),
            },
            out: Vec::new(),
            place: bodies.place(),
            limit,
        }
    }

    /// The same bytes, compressed fast.
    fn deflate(self, parts: &[Bytes]) -> io::Result<Vec<u8>> {
        let (out, level) = (Vec::new(), Compression::fast());
        match self {
            Self::Gzip => {
                let mut encoder = GzEncoder::new(out, level);
                parts.iter().try_for_each(|part| encoder.write_all(part))?;
                encoder.finish()
            }
            Self::Deflate => {
                let mut encoder = ZlibEncoder::new(out, level);
                parts.iter().try_for_each(|part| encoder.write_all(part))?;
                encoder.finish()
            }
        }
    }
}

/// Compresses an answer that is whole and gains by it, if its client wants that.
pub(super) async fn compressed(
    mut response: Response<AnswerBody>,
    wanted: Option<Coding>,
    bodies: &Bodies,
) -> Response<AnswerBody> {
    let AnswerBody::Parts(parts) = response.body() else {
        return response;
    };
    let length: usize = parts.iter().map(Bytes::len).sum();
    if length < COMPRESSED_BYTES_MIN {
        return response;
    }
    let vary = HeaderValue::from_static("accept-encoding");
    response.headers_mut().append(header::VARY, vary);
    let AnswerBody::Parts(parts) = response.body() else {
        return response;
    };
    let Some(coding) = wanted.filter(|coding| gains(*coding, parts)) else {
        return response;
    };
    let parts: Vec<Bytes> = parts.iter().cloned().collect();
    let compressed = if length <= INLINE_BYTES_MAX {
        coding.deflate(&parts).ok()
    } else {
        let work = move || coding.deflate(&parts).ok();
        bodies.work_now(work).await.flatten()
    };
    let Some(compressed) = compressed else {
        // It goes as it is: every thread that could do it has work.
        return response;
    };
    *response.body_mut() = AnswerBody::one(compressed.into());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_ENCODING, coding.name());
    response
}

/// Whether compressing pays, to judge by the beginning of what is most of the answer: a tensor's
/// random mantissas stay as long as they are.
fn gains<'a>(coding: Coding, parts: impl IntoIterator<Item = &'a Bytes>) -> bool {
    let largest = parts.into_iter().max_by_key(|part| part.len());
    let Some(largest) = largest else { return false };
    let sample = largest.slice(..largest.len().min(SAMPLE_BYTES));
    let length = sample.len();
    let compressed = coding.deflate(&[sample]);
    compressed.is_ok_and(|compressed| compressed.len() < length * 9 / 10)
}

impl Inflating {
    /// Goes on until so many bytes are written, or too many were read for them, or to the end, which it
    /// tells.
    fn run(&mut self, bounds: Bounds) -> Result<bool, Failure> {
        while self.out.len() < bounds.written
            && self.inflate.read().saturating_sub(self.out.len()) < bounds.read
        {
            let begun = self.out.len();
            let step = STEP_BYTES.min(bounds.written - begun);
            self.place.grow(begun + step)?;
            self.out.resize(begun + step, 0);
            let into = &mut self.out[begun..];
            let done = self.inflate.step(into, bounds.read);
            let done = done.map_err(|_| malformed("it is malformed, or cut off"))?;
            let written = match done {
                Step::Wrote(written) => written,
                Step::Read | Step::End(_) => 0,
            };
            self.out.truncate(begun + written);
            if self.out.len() > self.limit {
                let limit = self.limit;
                let message = format!(
                    "the body has more than {limit} bytes once it is decompressed; at most that are allowed"
                );
                return Err(Failure::new(ErrorCode::TooLarge, message));
            }
            match done {
                Step::End(0) => return Ok(true),
                Step::End(_) => return Err(malformed("bytes follow after its end")),
                Step::Wrote(_) | Step::Read => {}
            }
        }
        Ok(false)
    }

    fn whole(self) -> Bytes {
        self.place.hold(self.out)
    }
}

impl Bounds {
    /// Where its connection is served.
    const INLINE: Self = Self {
        written: INLINE_BYTES_MAX,
        read: STEP_READ_BYTES_MAX,
    };
    const NONE: Self = Self {
        written: usize::MAX,
        read: usize::MAX,
    };
}

fn malformed(what: &str) -> Failure {
    let message = format!("the body cannot be decompressed as its Content-Encoding says: {what}");
    Failure::new(ErrorCode::BinaryInvalid, message)
}

/// Answers below it go as they are: they travel in the first ten packets of a connection, in which
/// compressing saves no round trip (RFC 6928).
const COMPRESSED_BYTES_MIN: usize = 14_600;
/// What is compressed or decompressed where its connection is served: half a millisecond.
const INLINE_BYTES_MAX: usize = 64 << 10;
/// What is decompressed at a time.
const STEP_BYTES: usize = 64 << 10;
/// What of an answer is compressed to see whether it gains.
const SAMPLE_BYTES: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::threads::Threads;

    fn headers(name: header::HeaderName, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(&name, HeaderValue::try_from(*value).unwrap());
        }
        headers
    }

    fn bodies() -> Bodies {
        Bodies::new(1 << 30, Threads::Own)
    }

    #[test]
    fn what_a_client_wants_is_read_with_its_weights() {
        let wanted = |values: &[&str]| Coding::wanted(&headers(header::ACCEPT_ENCODING, values));
        let (gzip, deflate) = (Some(Coding::Gzip), Some(Coding::Deflate));
        assert_eq!(wanted(&["gzip, deflate"]), gzip);
        assert_eq!(wanted(&["deflate, gzip;q=1.0, *;q=0.5"]), gzip);
        assert_eq!(wanted(&["gzip;q=0.2", "Deflate; q=0.8"]), deflate);
        assert_eq!(wanted(&["*"]), gzip);
        assert_eq!(wanted(&["gzip;q=0, *"]), deflate);
        for none in ["", "identity", "br, zstd", "gzip;q=0", "*;q=0", "gzip;q=x"] {
            assert_eq!(wanted(&[none]), None, "{none}");
        }
        assert_eq!(Coding::wanted(&HeaderMap::new()), None);
    }

    #[test]
    fn one_known_coding_of_a_body_is_taken() {
        let of = |values: &[&str]| Coding::of_body(&headers(header::CONTENT_ENCODING, values));
        assert_eq!(of(&["X-GZip"]).unwrap(), Some(Coding::Gzip));
        assert_eq!(of(&[" deflate "]).unwrap(), Some(Coding::Deflate));
        assert_eq!(of(&["identity"]).unwrap(), None);
        for bad in [&["br"][..], &["gzip, gzip"], &["gzip", "gzip"], &[""]] {
            assert_eq!(of(bad).unwrap_err().code, ErrorCode::Unsupported, "{bad:?}");
        }
    }

    #[tokio::test]
    async fn bodies_come_back_as_they_were() {
        for coding in [Coding::Gzip, Coding::Deflate] {
            for length in [0, 1, 65_536, 65_537, 1_000_000] {
                let body: Vec<u8> = (0..length).map(|at| (at / 7) as u8).collect();
                let sent = coding.deflate(&[body.clone().into()]).unwrap();
                let got = coding.inflate(sent.into(), length, &bodies()).await;
                assert_eq!(got.unwrap(), body, "{coding:?} {length}");
            }
        }
    }

    /// What takes longer than where its connection is served it may goes to a thread, though nothing
    /// comes of it.
    #[tokio::test]
    async fn a_body_of_nothing_holds_up_no_connection() {
        for is_gzip in [true, false] {
            let body = crate::gateway::inflate::nothing(200_000, is_gzip);
            let coding = if is_gzip {
                Coding::Gzip
            } else {
                Coding::Deflate
            };
            let mut inflating = coding.inflating(body.clone(), 1, &bodies());
            assert!(
                !inflating.run(Bounds::INLINE).unwrap(),
                "it goes on elsewhere"
            );
            let whole = coding.inflate(body, 1, &bodies()).await;
            assert_eq!(whole.unwrap(), Bytes::new());
        }
    }

    #[tokio::test]
    async fn bombs_and_what_is_malformed_are_refused_at_the_limit() {
        let bodies = bodies();
        for coding in [Coding::Gzip, Coding::Deflate] {
            let limit = 100_000;
            let bomb = coding.deflate(&[vec![0; 50 * limit].into()]).unwrap();
            assert!(bomb.len() < limit / 2, "it is a bomb");
            let refused = coding.inflate(bomb.into(), limit, &bodies).await;
            assert_eq!(refused.unwrap_err().code, ErrorCode::TooLarge);
            let good = coding.deflate(&[vec![7; limit].into()]).unwrap();
            let mut cases = vec![good[..good.len() - 1].to_vec(), Vec::new(), vec![9; 40]];
            cases.push([&good[..], b"x"].concat());
            let mut flipped = good.clone();
            // The checksum: in front of a length in the one format, at the end in the other.
            let behind = if coding == Coding::Gzip { 5 } else { 1 };
            let checksum = flipped.len() - behind;
            flipped[checksum] ^= 1;
            cases.push(flipped);
            for case in cases {
                let refused = coding.inflate(case.into(), limit, &bodies).await;
                let refused = refused.map(|body| body.len()).unwrap_err();
                assert_eq!(refused.code, ErrorCode::BinaryInvalid);
            }
        }
        let small = Bodies::new(80 << 10, Threads::Own);
        let body = Coding::Gzip.deflate(&[vec![0; 100_000].into()]).unwrap();
        let refused = Coding::Gzip.inflate(body.into(), 1 << 20, &small).await;
        assert_eq!(refused.unwrap_err().code, ErrorCode::Overloaded);
    }

    #[tokio::test]
    async fn answers_are_compressed_when_that_is_wanted_and_pays() {
        let bodies = bodies();
        let answer = async |length: usize, wanted, random: bool| {
            let mut draw = paceline_core::Random::from_seed(1);
            let mut byte = |at: usize| match random {
                true => draw.next_u64() as u8,
                false => b'0' + (at % 10) as u8,
            };
            let body: Vec<u8> = (0..length).map(&mut byte).collect();
            let response = Response::new(AnswerBody::one(body.into()));
            let response = compressed(response, wanted, &bodies).await;
            let is = response.headers().contains_key(header::CONTENT_ENCODING);
            (is, response.headers().contains_key(header::VARY))
        };
        let gzip = Some(Coding::Gzip);
        assert_eq!(answer(14_599, gzip, false).await, (false, false));
        assert_eq!(answer(14_600, gzip, false).await, (true, true));
        assert_eq!(answer(14_600, None, false).await, (false, true));
        assert_eq!(answer(1 << 20, gzip, false).await, (true, true));
        assert_eq!(answer(1 << 20, gzip, true).await, (false, true));
    }
}
