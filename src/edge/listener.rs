//! The listening socket. Its connections read in large pieces while bytes come in crowds and keep nothing while they do not,
//! so that a WebSocket above needs a small buffer only, and none while it is idle.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::serve::Listener;
use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// Bytes asked of a socket at once. So many stay with a connection whose reader does not take them.
const PIECE: usize = 16 << 10;
/// A reader that asks for no more than this is a WebSocket.
pub const SMALL: usize = 512;
/// What a WebSocket gets of a new piece: no more than a frame's header can have. It makes room for a frame on top of what it
/// holds of it by then, and keeps that room.
const HEADER: usize = 14;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; PIECE].into());
}

/// A TCP listener whose connections read in pieces.
pub struct PieceListener(pub TcpListener);

impl Listener for PieceListener {
    type Io = Pieces<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (socket, peer) = Listener::accept(&mut self.0).await;
        (Pieces::new(socket), peer)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

/// A connection that is read in pieces; writes go through.
#[derive(Debug)]
pub struct Pieces<S> {
    socket: S,
    /// What the last piece had beyond what was asked for.
    rest: Bytes,
}

impl<S> Pieces<S> {
    pub fn new(socket: S) -> Self {
        Self { socket, rest: Bytes::new() }
    }

    pub fn get_ref(&self) -> &S {
        &self.socket
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Pieces<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { socket, rest } = &mut *self;
        if !rest.is_empty() {
            let taken = rest.len().min(into.remaining());
            into.put_slice(&rest[..taken]);
            rest.advance(taken);
            if rest.is_empty() {
                *rest = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
        if into.remaining() >= PIECE {
            return Pin::new(socket).poll_read(context, into);
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let mut piece = ReadBuf::new(scratch);
            ready!(Pin::new(socket).poll_read(context, &mut piece))?;
            let most = if into.remaining() <= SMALL { HEADER } else { PIECE };
            let (now, later) = piece.filled().split_at(piece.filled().len().min(into.remaining()).min(most));
            into.put_slice(now);
            *rest = Bytes::copy_from_slice(later);
            Poll::Ready(Ok(()))
        })
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Pieces<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn bytes_arrive_whole_and_in_order_however_they_are_written_and_read(
            writes in prop::collection::vec(0_usize..3 * PIECE, 1..8),
            reads in prop::collection::vec(1_usize..2 * PIECE, 1..8),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let sent: Vec<u8> = (0..writes.iter().sum()).map(|number: usize| (number % 251) as u8).collect();
            let heard = runtime.block_on(async {
                let (mut near, far) = tokio::io::duplex(2 * PIECE);
                let bytes = sent.clone();
                tokio::spawn(async move {
                    let mut from = 0;
                    for length in writes {
                        near.write_all(&bytes[from..from + length]).await.unwrap();
                        from += length;
                    }
                });
                let (mut pieces, mut heard) = (Pieces::new(far), Vec::new());
                for length in reads.iter().cycle() {
                    let mut buffer = vec![0; *length];
                    match pieces.read(&mut buffer).await.unwrap() {
                        0 => break,
                        length => heard.extend_from_slice(&buffer[..length]),
                    }
                }
                heard
            });
            prop_assert!(heard == sent);
        }
    }

    #[tokio::test]
    async fn a_connection_that_was_read_keeps_nothing() {
        let (mut near, far) = tokio::io::duplex(PIECE);
        let mut pieces = Pieces::new(far);
        near.write_all(&[7; 1000]).await.unwrap();
        let mut buffer = [0; 600];
        assert_eq!(pieces.read(&mut buffer).await.unwrap(), 600);
        assert_eq!(pieces.rest.len(), 400);
        assert_eq!(pieces.read(&mut buffer).await.unwrap(), 400);
        assert!(pieces.rest.is_empty());
    }

    #[tokio::test]
    async fn a_websocket_reads_a_header_first() {
        let (mut near, far) = tokio::io::duplex(PIECE);
        let mut pieces = Pieces::new(far);
        near.write_all(&[7; 1000]).await.unwrap();
        let mut buffer = [0; SMALL];
        let mut lengths = Vec::new();
        while lengths.iter().sum::<usize>() < 1000 {
            lengths.push(pieces.read(&mut buffer).await.unwrap());
        }
        assert_eq!(lengths, [HEADER, SMALL, 1000 - HEADER - SMALL]);
    }
}
