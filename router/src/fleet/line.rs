//! A connection to an instance between two requests, and for the plainest of them all the way.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::plain::{Head, Plain};
use super::pool::Pool;

/// A head, and a small body with it.
const FIRST_READ: usize = 8 << 10;
/// Reads of what is left grow from the one to the other as long as they are filled.
const READ: usize = 64 << 10;
const MAX_READ: usize = 512 << 10;

#[derive(Debug)]
pub(super) struct Line {
    stream: TcpStream,
    /// Empty between two requests; it is the memory that is kept.
    buffer: BytesMut,
}

/// What came of a request.
#[derive(Debug)]
pub(super) enum Heard {
    /// The head, and what has been read of the body.
    Plain(Head, Bytes),
    /// Something else, read so far.
    Other(Bytes),
}

impl Line {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    pub(super) fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Nothing has come over it that nobody asked for, its end included.
    pub(super) fn is_quiet(&self) -> bool {
        matches!(self.stream.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Sends a request and reads the beginning of its answer. What is there already, is none.
    pub(super) async fn exchange(&mut self, request: &Plain) -> io::Result<Heard> {
        let ended = || io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended before the answer");
        if !self.is_quiet() {
            return Err(ended());
        }
        // An instance that has closed may have answered before: what is read has the last word.
        let _ = self.stream.write_all(&request.bytes).await;
        self.buffer.reserve(FIRST_READ);
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            return Err(ended());
        }
        let mut heard = self.buffer.split().freeze();
        Ok(match Head::read(&heard, &request.method) {
            Some(head) if (heard.len() - head.end) as u64 <= head.body_bytes => {
                let body = heard.split_off(head.end);
                Heard::Plain(head, body)
            }
            // More than was announced is hyper's to judge, too.
            _ => Heard::Other(heard),
        })
    }

    /// Without the memory that a large answer took.
    pub(super) fn trimmed(mut self) -> Self {
        if self.buffer.capacity() > 2 * FIRST_READ {
            self.buffer = BytesMut::new();
        }
        self
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<Bytes>> {
        self.buffer.reserve(most);
        let read = ready!(pin!(self.stream.read_buf(&mut self.buffer)).poll(cx))?;
        Poll::Ready(match read {
            0 => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the connection ended before the answer did",
            )),
            _ => Ok(self.buffer.split().freeze()),
        })
    }
}

/// The rest of an answer. It owns the connection until it ends, and then gives it back.
#[derive(Debug)]
pub(super) struct Rest {
    /// None once nothing more comes.
    line: Option<Line>,
    begun: Bytes,
    left: u64,
    read: usize,
    keep: bool,
    pool: Arc<Pool>,
}

impl Rest {
    pub(super) fn new(line: Line, begun: Bytes, head: &Head, pool: Arc<Pool>) -> Self {
        Self { line: Some(line), begun, left: head.body_bytes, read: READ, keep: head.keep, pool }
    }

    fn piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let Some(line) = self.line.as_mut().filter(|_| self.left > 0) else { return Poll::Ready(None) };
        if !self.begun.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.begun))));
        }
        let most = usize::try_from(self.left).unwrap_or(MAX_READ).min(self.read);
        let piece = ready!(line.poll_read(cx, most));
        if piece.as_ref().is_ok_and(|piece| piece.len() >= self.read) {
            self.read = (self.read * 2).min(MAX_READ);
        }
        Poll::Ready(Some(piece))
    }
}

impl hyper::body::Body for Rest {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let Some(piece) = ready!(self.piece(cx)) else { return Poll::Ready(None) };
        let mut piece = match piece {
            Ok(piece) => piece,
            Err(error) => {
                self.line = None;
                return Poll::Ready(Some(Err(error)));
            }
        };
        // What comes after the end belongs to no answer of ours.
        if piece.len() as u64 > self.left {
            piece.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
            self.keep = false;
        }
        self.left -= piece.len() as u64;
        if self.left == 0
            && let Some(line) = self.line.take()
            && self.keep
        {
            self.pool.keep_line(line.trimmed());
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
