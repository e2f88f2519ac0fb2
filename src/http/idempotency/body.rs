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
        for chunk in &self.chunks {
            whole.extend_from_slice(chunk);
        }
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

/// So that [`server`](crate::http::server) can stand around the layer.
impl<B: Body> From<Bytes> for ResponseBody<B> {
    fn from(data: Bytes) -> Self {
        Self::whole(data, None)
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

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// A body of these frames that says how long it is at the least.
    struct Scripted {
        frames: VecDeque<Result<Frame<Bytes>, &'static str>>,
        told: u64,
    }

    impl Body for Scripted {
        type Data = Bytes;
        type Error = &'static str;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
            Poll::Ready(self.frames.pop_front())
        }

        fn is_end_stream(&self) -> bool {
            self.frames.is_empty()
        }

        fn size_hint(&self) -> SizeHint {
            let mut hint = SizeHint::new();
            hint.set_lower(self.told);
            hint
        }
    }

    #[allow(clippy::unnecessary_wraps, reason = "it stands in a row with errors")]
    fn data(data: &'static str) -> Result<Frame<Bytes>, &'static str> {
        Ok(Frame::data(Bytes::from_static(data.as_bytes())))
    }

    fn trailers() -> HeaderMap {
        HeaderMap::from_iter([("digest".parse().unwrap(), "abc".parse().unwrap())])
    }

    fn scripted(frames: impl IntoIterator<Item = Result<Frame<Bytes>, &'static str>>) -> Scripted {
        let frames = frames.into_iter().collect();
        Scripted { frames, told: 0 }
    }

    fn read(limit: usize, body: Scripted) -> Read<Scripted> {
        use futures::FutureExt;
        Read::up_to(limit, body).now_or_never().unwrap()
    }

    /// What is left of a body: the data, then the trailers or the error.
    fn rest(mut body: ResponseBody<Scripted>) -> (String, Option<Result<HeaderMap, &'static str>>) {
        let (mut text, mut end, mut told) = (String::new(), None, Vec::new());
        loop {
            let at_end = body.is_end_stream();
            told.push(u64::try_from(text.len()).unwrap() + body.size_hint().lower());
            let polled = Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop()));
            let Poll::Ready(frame) = polled else {
                panic!("nothing is waited for")
            };
            assert_eq!(at_end, frame.is_none());
            match frame {
                None => {
                    let length = u64::try_from(text.len()).unwrap();
                    assert!(told.iter().all(|told| *told <= length), "{told:?} of {length}");
                    return (text, end);
                }
                Some(Err(error)) => end = Some(Err(error)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => text.push_str(std::str::from_utf8(&data).unwrap()),
                    Err(frame) => end = frame.into_trailers().ok().map(Ok),
                },
            }
        }
    }

    #[test]
    fn a_body_within_the_limit_is_known_with_its_trailers() {
        let frames = [data("one "), data(""), data("two"), Ok(Frame::trailers(trailers()))];
        let body = ResponseBody::read(read(7, scripted(frames)));
        let (chunks, known) = body.known().unwrap();
        assert_eq!((chunks.len(), known), (2, Some(&trailers())));
        // Of an exact length HTTP/1.1 would drop the trailers.
        assert_eq!((body.size_hint().lower(), body.size_hint().exact()), (7, None));
        assert_eq!(rest(body), ("one two".to_owned(), Some(Ok(trailers()))));
        let body = ResponseBody::read(read(7, scripted([data("one "), data("two")])));
        assert_eq!(body.size_hint().exact(), Some(7));
    }

    #[test]
    fn a_body_over_the_limit_is_passed_on_in_whole() {
        let frames = || {
            [
                data("one "),
                data("two "),
                data("three"),
                Ok(Frame::trailers(trailers())),
            ]
        };
        for limit in 0..12 {
            let body = ResponseBody::read(read(limit, scripted(frames())));
            assert!(body.known().is_none(), "{limit}");
            assert_eq!(
                rest(body),
                ("one two three".to_owned(), Some(Ok(trailers()))),
                "{limit}"
            );
        }
        assert!(ResponseBody::read(read(13, scripted(frames()))).known().is_some());
    }

    #[test]
    fn a_body_that_says_it_is_too_long_is_not_read() {
        let mut body = scripted([data("12345678")]);
        body.told = 8;
        assert_eq!(read(7, body).chunks, VecDeque::new());
        let mut body = scripted([data("12345678")]);
        body.told = 8;
        assert_eq!(read(8, body).concat(), "12345678");
    }

    #[test]
    fn a_broken_body_breaks_at_the_same_place() {
        let body = ResponseBody::read(read(100, scripted([data("half"), Err("the disk is gone")])));
        assert!(body.known().is_none());
        assert_eq!(rest(body), ("half".to_owned(), Some(Err("the disk is gone"))));
    }

    #[test]
    fn a_body_in_pieces_is_put_together() {
        assert_eq!(read(100, scripted([])).concat(), "");
        assert_eq!(read(100, scripted([data("one")])).concat(), "one");
        assert_eq!(read(100, scripted([data("one "), data("two")])).concat(), "one two");
    }

    #[test]
    fn an_untouched_body_is_the_handlers_own() {
        let body = ResponseBody::untouched(scripted([data("one"), Err("the disk is gone")]));
        assert_eq!(body.size_hint().lower(), 0);
        let mut body = body;
        let polled = Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(polled, Poll::Ready(Some(Ok(_)))));
        assert!(body.known().is_none() && !body.is_end_stream());
    }
}
