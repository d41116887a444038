//! The connection of a websocket, to which whole frames are written: by the client's task, by the websocket library within
//! it, and by whoever has a message for a client that waits for nothing else.
//!
//! None of them leaves half a frame to another: what the kernel does not take stays here and goes first.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::batch::Batch;
use crate::sessions::{self, Message, Sent};

#[derive(Debug)]
pub(super) struct Line {
    stream: TcpStream,
    unsent: Mutex<Batch>,
}

/// The websocket library's side of it.
#[derive(Debug)]
pub(super) struct End(pub(super) Arc<Line>);

impl Line {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, unsent: Mutex::default() }
    }

    /// Messages in the form that the socket asked for, behind what is unsent.
    pub(super) fn add(&self, messages: impl Iterator<Item = Message>, with_metadata: bool) {
        let mut unsent = self.unsent();
        messages.for_each(|message| unsent.add(&message, with_metadata));
    }

    /// Until everything is sent.
    pub(super) async fn flush(&self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_flush(cx)).await
    }

    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.write(&mut self.unsent())? {
                return Poll::Ready(Ok(()));
            }
            ready!(self.stream.poll_write_ready(cx))?;
        }
    }

    /// As much as the kernel takes; true if that is all.
    fn write(&self, unsent: &mut Batch) -> io::Result<bool> {
        let written = unsent.write(|slices| match slices {
            [one] => self.stream.try_write(one),
            several => self.stream.try_write_vectored(several),
        });
        match written {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            written => written.map(|()| true),
        }
    }

    fn unsent(&self) -> MutexGuard<'_, Batch> {
        self.unsent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For sockets that want previews with metadata: others' messages change places.
impl sessions::Line for Line {
    fn send(&self, message: &Message) -> Sent {
        let mut unsent = self.unsent();
        if !unsent.is_empty() {
            return Sent::No;
        }
        unsent.add(message, true);
        match self.write(&mut unsent) {
            Ok(true) => Sent::Whole,
            // The reader comes upon the error when it sends the rest.
            Ok(false) | Err(_) => Sent::Begun,
        }
    }
}

impl AsyncRead for End {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let stream = &self.0.stream;
        loop {
            ready!(stream.poll_read_ready(cx))?;
            match stream.try_read(into.initialize_unfilled()) {
                Ok(read) => {
                    into.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

/// The library writes whole frames, and the next one when this one has gone.
impl AsyncWrite for End {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.0.poll_flush(cx))?;
        let mut unsent = self.0.unsent();
        unsent.add_frame(bytes);
        self.0.write(&mut unsent)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_flush(cx)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::{SinkExt, StreamExt};
    use tokio::net::TcpListener;
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::Message as Ws;
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;
    use crate::comfy::frame::{Frame, Utf8Bytes, image_with_metadata};
    use crate::sessions::Line as _;

    async fn connection() -> (Arc<Line>, WebSocketStream<TcpStream>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (ours, _) = listener.accept().await.unwrap();
        (Arc::new(Line::new(ours)), WebSocketStream::from_raw_socket(client, Role::Client, None).await)
    }

    fn preview(size: usize) -> Message {
        let metadata = br#"{"node_id":"3","prompt_id":"p","image_type":"image/jpeg"}"#;
        match Frame::binary(image_with_metadata(metadata, &vec![7; size])) {
            Frame::Preview(preview) => Message::preview(&"p".into(), preview),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn payloads_of_every_length_arrive_whole_and_in_order() {
        let (line, client) = connection().await;
        let texts = [0, 1, 125, 126, 2_048, 2_050, 0xffff, 0x1_0000, 3_000_000];
        let texts = texts.map(|length| Utf8Bytes::from("é".repeat(length / 2)));
        let messages = texts.clone().map(Message::ordinary);
        let writing = async {
            for message in messages {
                line.add([message].into_iter(), false);
                line.flush().await.unwrap();
            }
        };
        let reading = client.take(texts.len()).map(Result::unwrap).collect::<Vec<_>>();
        assert_eq!(tokio::join!(writing, reading).1, texts.map(Ws::Text));
    }

    #[tokio::test]
    async fn a_preview_has_the_form_that_was_asked_for() {
        let (line, mut client) = connection().await;
        for size in [10, 100_000] {
            for with_metadata in [false, true] {
                line.add([preview(size)].into_iter(), with_metadata);
                let (written, read) = tokio::join!(line.flush(), client.next());
                written.unwrap();
                let bytes = read.unwrap().unwrap().into_data();
                if with_metadata {
                    assert_eq!(bytes[..4], [0, 0, 0, 4]);
                    assert!(
                        matches!(Frame::binary(bytes), Frame::Preview(preview) if preview.image().len() == size)
                    );
                } else {
                    assert_eq!((&bytes[..8], bytes.len()), (&b"\0\0\0\x01\0\0\0\x01"[..], 8 + size));
                }
            }
        }
    }

    /// The library answers pings while others write, and the client reads slowly.
    #[tokio::test]
    async fn frames_of_all_writers_stay_whole() {
        let (line, mut client) = connection().await;
        let mut library = WebSocketStream::from_raw_socket(End(line.clone()), Role::Server, None).await;
        let (mut sent, mut begun) = (0, 0);
        let writing = async {
            for round in 0..400_u32 {
                match line.send(&preview(60_000)) {
                    Sent::No => {}
                    Sent::Whole => sent += 1,
                    Sent::Begun => (sent, begun) = (sent + 1, begun + 1),
                }
                library.feed(Ws::Pong(Bytes::copy_from_slice(&round.to_be_bytes()))).await.unwrap();
                if round % 50 == 0 {
                    library.flush().await.unwrap();
                }
            }
            library.flush().await.unwrap();
        };
        let reading = async {
            let (mut previews, mut pongs) = (0, 0);
            while pongs < 400 {
                match client.next().await.unwrap().unwrap() {
                    Ws::Binary(bytes) if matches!(Frame::binary(bytes.clone()), Frame::Preview(_)) => {
                        previews += 1
                    }
                    Ws::Pong(round) => {
                        assert_eq!(round[..], u32::to_be_bytes(pongs));
                        pongs += 1;
                    }
                    other => panic!("{other:?}"),
                }
            }
            previews
        };
        let ((), read) = tokio::join!(writing, reading);
        assert_eq!(read, sent);
        assert!(begun > 0, "the kernel took everything at once");
    }
}
