//! Bodies that are read up to a limit, and what can still be sent of them.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project::pin_project;

/// The body of a response under the layer: the handler's own, or the same from memory.
#[pin_project]
pub struct ResponseBody<B: Body>(#[pin] Content<B>);

#[pin_project(project = ContentProjection)]
enum Content<B: Body> {
    /// The handler's, of which nothing was read.
    Untouched(#[pin] B),
    Read(Read<B>),
}

/// What was read of a body, and how it goes on.
pub(super) struct Read<B: Body> {
    pub(super) chunks: VecDeque<Bytes>,
    pub(super) tail: Tail<B>,
}

pub(super) enum Tail<B: Body> {
    /// Not at all: it was read to its end.
    End(Option<HeaderMap>),
    /// It is longer than the limit.
    Rest(Pin<Box<B>>),
    /// It broke, `None` once that was told.
    Broken(Option<B::Error>),
}

impl<B: Body<Data = Bytes>> Read<B> {
    /// Reads `body` to its end, to the first frame that exceeds `limit` bytes, or to an error.
    ///
    /// A body that says beforehand that it is longer is not read at all.
    pub(super) async fn up_to(limit: usize, body: B) -> Self {
        let mut body = Box::pin(body);
        let mut chunks = VecDeque::new();
        let mut trailers = None;
        let mut left = u64::try_from(limit).unwrap_or(u64::MAX);
        let tail = loop {
            if body.size_hint().lower() > left {
                break Tail::Rest(body);
            }
            let frame = match poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => break Tail::Broken(Some(error)),
                None => break Tail::End(trailers),
            };
            match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => {
                    let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
                    chunks.push_back(data);
                    let Some(rest) = left.checked_sub(length) else {
                        break Tail::Rest(body);
                    };
                    left = rest;
                }
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        };
        Self { chunks, tail }
    }

    /// The whole of it in one piece.
    pub(super) fn concat(mut self) -> Bytes {
        if self.chunks.len() <= 1 {
            return self.chunks.pop_front().unwrap_or_default();
        }
        let mut whole = BytesMut::with_capacity(self.chunks.iter().map(Bytes::len).sum());
        self.chunks.iter().for_each(|chunk| whole.extend_from_slice(chunk));
        whole.freeze()
    }
}

impl<B: Body> ResponseBody<B> {
    pub(super) fn untouched(body: B) -> Self {
        Self(Content::Untouched(body))
    }

    pub(super) fn read(read: Read<B>) -> Self {
        Self(Content::Read(read))
    }

    /// A body from memory.
    pub(super) fn whole(data: Bytes, trailers: Option<HeaderMap>) -> Self {
        let chunks = Some(data).filter(Buf::has_remaining).into_iter().collect();
        let tail = Tail::End(trailers);
        Self(Content::Read(Read { chunks, tail }))
    }

    /// Its data and trailers, if it was read to its end.
    pub(super) fn known(&self) -> Option<(&VecDeque<Bytes>, Option<&HeaderMap>)> {
        match &self.0 {
            Content::Read(Read {
                chunks,
                tail: Tail::End(trailers),
            }) => Some((chunks, trailers.as_ref())),
            Content::Read(_) | Content::Untouched(_) => None,
        }
    }
}

impl<B: Body<Data = Bytes>> Body for ResponseBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let read = match self.project().0.project() {
            ContentProjection::Untouched(body) => return body.poll_frame(cx),
            ContentProjection::Read(read) => read,
        };
        if let Some(chunk) = read.chunks.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        Poll::Ready(match &mut read.tail {
            Tail::End(trailers) => trailers.take().map(Frame::trailers).map(Ok),
            Tail::Rest(body) => ready!(body.as_mut().poll_frame(cx)),
            Tail::Broken(error) => error.take().map(Err),
        })
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Content::Untouched(body) => body.is_end_stream(),
            Content::Read(read) => {
                read.chunks.is_empty()
                    && match &read.tail {
                        Tail::End(trailers) => trailers.is_none(),
                        Tail::Rest(body) => body.is_end_stream(),
                        Tail::Broken(error) => error.is_none(),
                    }
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        let read = match &self.0 {
            Content::Untouched(body) => return body.size_hint(),
            Content::Read(read) => read,
        };
        let at_hand: usize = read.chunks.iter().map(Bytes::len).sum();
        let at_hand = u64::try_from(at_hand).unwrap_or(u64::MAX);
        let mut hint = SizeHint::new();
        match &read.tail {
            Tail::End(None) => hint.set_exact(at_hand),
            Tail::Rest(body) => {
                let rest = body.size_hint();
                hint.set_lower(at_hand.saturating_add(rest.lower()));
                if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(at_hand)) {
                    hint.set_upper(upper);
                }
            }
            // Of a length that is known HTTP/1.1 would drop the trailers, and a broken body has none.
            Tail::End(Some(_)) | Tail::Broken(_) => hint.set_lower(at_hand),
        }
        hint
    }
}

impl<B: Body> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").finish_non_exhaustive()
    }
}
