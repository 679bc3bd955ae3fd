//! A QUIC stream as the port has it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use quinn::{RecvStream, SendStream, VarInt};
use tokio::io::AsyncWrite;

use crate::transport::{SendHalf, Stream};

/// The sending half: abandoned, unless it was finished.
struct Sending {
    stream: SendStream,
    ended: bool,
}

pub(super) fn stream_of(send: SendStream, receive: RecvStream) -> Stream {
    Stream {
        send: Box::new(Sending {
            stream: send,
            ended: false,
        }),
        // Dropped before its end, it tells the peer to stop by itself.
        receive: Box::new(receive),
    }
}

impl AsyncWrite for Sending {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.stream), context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}

impl SendHalf for Sending {
    fn finish(&mut self) {
        self.ended = true;
        // A stream that the peer has stopped, or that was reset, has ended already.
        let _ = self.stream.finish();
    }

    fn reset(&mut self) {
        self.ended = true;
        let _ = self.stream.reset(ABANDONED);
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if !self.ended {
            self.reset();
        }
    }
}

const ABANDONED: VarInt = VarInt::from_u32(1);
