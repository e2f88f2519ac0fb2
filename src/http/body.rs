//! Request bodies that can be sent again.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

type BoxError = Box<dyn Error + Send + Sync>;

/// A request body that is kept while it is sent, as long as it is short enough.
///
/// A body whose data is at hand (`Full<Bytes>`, `String`, a unary gRPC message) is taken as it is. Any other is recorded
/// while the first attempt streams it: nothing waits for its end, so that both directions of a gRPC stream go on. A
/// copy first sends what was recorded and then goes on where the attempt before it stopped. A body that grows over the
/// limit is forgotten, goes on streaming, and cannot be sent again.
pub struct ReplayBody<B> {
    content: Content<B>,
}

enum Content<B> {
    /// The whole body is known.
    Whole { whole: Whole, sent: usize },
    /// It is known as far as it has been read.
    Recorded(Reader<B>),
}

/// A body that is known to its end.
#[derive(Clone)]
struct Whole {
    first: Bytes,
    more: Option<Arc<[Bytes]>>,
    trailers: Option<Arc<HeaderMap>>,
}

/// One attempt's place on the tape.
struct Reader<B> {
    tape: Arc<Mutex<Tape<B>>>,
    /// The rest of the body, while it is this attempt that reads it.
    source: Option<Pin<Box<B>>>,
    position: usize,
    trailers_sent: bool,
}

/// What is known of a body, and the rest of it while no attempt is reading.
struct Tape<B> {
    chunks: Vec<Bytes>,
    size: usize,
    limit: usize,
    trailers: Option<HeaderMap>,
    rest: Option<Pin<Box<B>>>,
    /// What the body ended with, until an attempt has passed it on.
    error: Option<BoxError>,
    state: State,
    /// An attempt that waits for the one before it to let go of the rest.
    waiting: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Recorded so far, and not at its end.
    Recording,
    /// At its end.
    Complete,
    /// Longer than the limit, or broken: not to be sent again.
    Forgotten,
}

impl<B: Body<Data = Bytes, Error: Into<BoxError>>> ReplayBody<B> {
    pub(crate) fn new(body: B, limit: usize) -> Self {
        let mut tape = Tape {
            chunks: Vec::new(),
            size: 0,
            limit,
            trailers: None,
            rest: None,
            error: None,
            state: State::Recording,
            waiting: None,
        };
        if body.is_end_stream() {
            tape.state = State::Complete;
        } else if body.size_hint().lower() > u64::try_from(limit).unwrap_or(u64::MAX) {
            tape.state = State::Forgotten;
            tape.rest = Some(Box::pin(body));
        } else {
            tape.read_ahead(Box::pin(body));
        }
        Self {
            content: tape.into_content(),
        }
    }
}

impl<B> ReplayBody<B> {
    /// Another body with the same content, if it can still be had.
    pub(crate) fn copy(&self) -> Option<Self> {
        let content = match &self.content {
            Content::Whole { whole, .. } => Content::Whole {
                whole: whole.clone(),
                sent: 0,
            },
            Content::Recorded(reader) => Content::Recorded(Reader::new(Arc::clone(&reader.tape))),
        };
        Some(Self { content }).filter(Self::can_be_sent)
    }

    /// Whether this copy, of which nothing was sent, still has all of its content.
    pub(crate) fn can_be_sent(&self) -> bool {
        match &self.content {
            Content::Whole { .. } => true,
            Content::Recorded(reader) => lock(&reader.tape).state != State::Forgotten,
        }
    }
}

fn lock<B>(tape: &Mutex<Tape<B>>) -> MutexGuard<'_, Tape<B>> {
    // The body is never polled under the lock: nothing in there panics half-way.
    tape.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many frames are read ahead: a bound for bodies that are always ready with little.
const FRAMES_AHEAD: usize = 64;

impl<B: Body<Data = Bytes, Error: Into<BoxError>>> Tape<B> {
    /// Reads what is at hand, up to the limit, without waiting for more.
    fn read_ahead(&mut self, mut body: Pin<Box<B>>) {
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..FRAMES_AHEAD {
            match body.as_mut().poll_frame(&mut cx) {
                Poll::Pending => break,
                Poll::Ready(None) => {
                    self.state = State::Complete;
                    return;
                }
                Poll::Ready(Some(Err(error))) => {
                    self.state = State::Forgotten;
                    self.error = Some(error.into());
                    return;
                }
                Poll::Ready(Some(Ok(frame))) => {
                    if self.record(&frame) == State::Forgotten {
                        // The frame that was one too many has been read: it stays, to be streamed.
                        self.chunks.extend(frame.into_data().ok());
                        break;
                    }
                }
            }
        }
        self.rest = Some(body);
    }
}

impl<B> Tape<B> {
    /// Keeps a frame, if it still fits.
    fn record(&mut self, frame: &Frame<Bytes>) -> State {
        if self.state != State::Recording {
            return self.state;
        }
        if let Some(data) = frame.data_ref() {
            self.size = self.size.saturating_add(data.len());
            if self.size > self.limit {
                self.state = State::Forgotten;
            } else if !data.is_empty() {
                self.chunks.push(data.clone());
            }
        } else if let Some(trailers) = frame.trailers_ref() {
            self.trailers = Some(trailers.clone());
        }
        self.state
    }

    fn into_content(self) -> Content<B> {
        if self.state != State::Complete {
            return Content::Recorded(Reader::new(Arc::new(Mutex::new(self))));
        }
        let mut chunks = self.chunks.into_iter();
        let whole = Whole {
            first: chunks.next().unwrap_or_default(),
            more: Some(chunks).filter(|rest| rest.len() > 0).map(Iterator::collect),
            trailers: self.trailers.map(Arc::new),
        };
        Content::Whole { whole, sent: 0 }
    }
}

impl Whole {
    fn chunk(&self, index: usize) -> Option<&Bytes> {
        match index.checked_sub(1) {
            None => Some(&self.first),
            Some(index) => self.more.as_ref()?.get(index),
        }
    }

    fn len(&self) -> usize {
        1 + self.more.as_ref().map_or(0, |more| more.len())
    }

    fn next(&self, sent: &mut usize) -> Option<Frame<Bytes>> {
        let index = *sent;
        *sent += 1;
        match self.chunk(index) {
            // An empty body has one empty chunk.
            Some(chunk) if chunk.is_empty() => self.next(sent),
            Some(chunk) => Some(Frame::data(chunk.clone())),
            None if index == self.len() => self
                .trailers
                .as_ref()
                .map(|trailers| Frame::trailers((**trailers).clone())),
            None => None,
        }
    }

    fn left(&self, sent: usize) -> u64 {
        let chunks = (sent..self.len()).filter_map(|index| self.chunk(index));
        chunks.map(|chunk| u64::try_from(chunk.len()).unwrap_or(u64::MAX)).sum()
    }
}

impl<B> Reader<B> {
    fn new(tape: Arc<Mutex<Tape<B>>>) -> Self {
        Self {
            tape,
            source: None,
            position: 0,
            trailers_sent: false,
        }
    }
}

impl<B> Reader<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let source = match &mut self.source {
            Some(source) => source,
            None => match ready!(self.next_recorded(cx)) {
                Ok(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(None) => return Poll::Ready(None),
                Err(Missing::Rest(source)) => self.source.insert(source),
                Err(Missing::Error(error)) => return Poll::Ready(Some(Err(error))),
            },
        };
        let frame = ready!(source.as_mut().poll_frame(cx));
        let mut tape = lock(&self.tape);
        match frame {
            Some(Ok(frame)) => {
                if tape.record(&frame) == State::Forgotten {
                    tape.chunks = Vec::new();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                tape.state = State::Forgotten;
                Poll::Ready(Some(Err(error.into())))
            }
            None => {
                if tape.state == State::Recording {
                    tape.state = State::Complete;
                }
                Poll::Ready(None)
            }
        }
    }

    /// The next recorded frame; past the last one, what is missing.
    fn next_recorded(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, Missing<B>>> {
        let mut tape = lock(&self.tape);
        if let Some(chunk) = tape.chunks.get(self.position) {
            self.position += 1;
            return Poll::Ready(Ok(Some(Frame::data(chunk.clone()))));
        }
        if let Some(trailers) = tape.trailers.clone().filter(|_| !self.trailers_sent) {
            self.trailers_sent = true;
            return Poll::Ready(Ok(Some(Frame::trailers(trailers))));
        }
        if tape.state == State::Complete {
            return Poll::Ready(Ok(None));
        }
        if let Some(source) = tape.rest.take() {
            return Poll::Ready(Err(Missing::Rest(source)));
        }
        if tape.state == State::Forgotten {
            let error = tape.error.take().unwrap_or_else(|| Box::new(ForgottenBody));
            return Poll::Ready(Err(Missing::Error(error)));
        }
        tape.waiting = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// What comes after the tape.
enum Missing<B> {
    /// The rest of the body, to be read from here.
    Rest(Pin<Box<B>>),
    /// Nothing: the body failed, or it grew over the limit while this copy was waiting for its turn.
    Error(BoxError),
}

/// Lets the next attempt go on from where this one stopped.
impl<B> Drop for Reader<B> {
    fn drop(&mut self) {
        let Some(source) = self.source.take() else { return };
        let waiting = {
            let mut tape = lock(&self.tape);
            tape.rest = Some(source);
            tape.waiting.take()
        };
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }
}

#[derive(Debug)]
struct ForgottenBody;

impl fmt::Display for ForgottenBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the request body cannot be sent again: it is longer than the limit for replayed bodies, or it failed",
        )
    }
}

impl Error for ForgottenBody {}

impl<B> Body for ReplayBody<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.get_mut().content {
            Content::Whole { whole, sent } => Poll::Ready(whole.next(sent).map(Ok)),
            Content::Recorded(reader) => reader.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Whole { whole, sent } => {
                whole.left(*sent) == 0 && (whole.trailers.is_none() || *sent > whole.len())
            }
            Content::Recorded(reader) => reader.source.as_ref().is_some_and(Body::is_end_stream),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole { whole, sent } => SizeHint::with_exact(whole.left(*sent)),
            Content::Recorded(reader) => reader.size_hint(),
        }
    }
}

impl<B: Body> Reader<B> {
    fn size_hint(&self) -> SizeHint {
        if let Some(source) = &self.source {
            return source.size_hint();
        }
        let tape = lock(&self.tape);
        let recorded: usize = tape.chunks.iter().skip(self.position).map(Bytes::len).sum();
        let recorded = u64::try_from(recorded).unwrap_or(u64::MAX);
        let mut hint = match (&tape.rest, tape.state) {
            (_, State::Complete) => SizeHint::with_exact(0),
            (Some(rest), _) => rest.size_hint(),
            (None, _) => SizeHint::new(),
        };
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(recorded));
        }
        hint.set_lower(hint.lower().saturating_add(recorded));
        hint
    }
}

impl<B> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.content {
            Content::Whole { .. } => State::Complete,
            Content::Recorded(reader) => lock(&reader.tape).state,
        };
        f.debug_struct("ReplayBody")
            .field("state", &state)
            .finish_non_exhaustive()
    }
}
