//! What is recorded of a request body while it streams, and the attempts that read it.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::body::BoxError;

/// One attempt's place on the tape.
pub(super) struct Reader<B> {
    tape: Arc<Mutex<Tape<B>>>,
    /// Which attempt it is; the latest one that has begun reads.
    number: u32,
    /// The rest of the body, while it is polled.
    source: Option<Pin<Box<B>>>,
    position: usize,
    sent: u64,
    trailers_sent: bool,
    /// Whether it has, or had, all of what is forgotten, so that it alone may go on.
    is_alone: bool,
}

/// What is known of a body, and the rest of it while it is not polled.
pub(super) struct Tape<B> {
    pub(super) chunks: Vec<Bytes>,
    size: usize,
    limit: usize,
    /// The length that the body announced: every attempt announces the same.
    pub(super) length: Option<u64>,
    pub(super) trailers: Option<HeaderMap>,
    rest: Option<Pin<Box<B>>>,
    /// What the body ended with, until an attempt has passed it on.
    error: Option<BoxError>,
    pub(super) state: State,
    /// The latest attempt that has begun to read.
    latest: u32,
    /// That attempt, where it is pending: on the source, or on the attempt before it, which is polling the source.
    pending: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Recorded so far, and not at its end.
    Recording,
    /// At its end.
    Complete,
    /// Longer than the limit, or broken: what was recorded is gone, but for the one attempt that has had all of it.
    Forgotten,
}

fn lock<B>(tape: &Mutex<Tape<B>>) -> MutexGuard<'_, Tape<B>> {
    // The body is never polled under the lock: nothing in there panics half-way.
    tape.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many frames are read ahead: a bound for bodies that are always ready with little.
pub(super) const FRAMES_AHEAD: usize = 64;

impl<B: Body<Data = Bytes, Error: Into<BoxError>>> Tape<B> {
    /// A tape for `body`, which keeps up to `limit` bytes, with what is at hand already on it.
    pub(super) fn of(body: B, limit: usize) -> Self {
        let mut tape = Tape {
            chunks: Vec::new(),
            size: 0,
            limit,
            length: body.size_hint().exact(),
            trailers: None,
            rest: None,
            error: None,
            state: State::Recording,
            latest: 0,
            pending: None,
        };
        if body.is_end_stream() {
            tape.state = State::Complete;
        } else if body.size_hint().lower() > u64::try_from(limit).unwrap_or(u64::MAX) {
            tape.state = State::Forgotten;
            tape.rest = Some(Box::pin(body));
        } else {
            tape.read_ahead(Box::pin(body));
        }
        tape
    }

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
}

impl<B> Reader<B> {
    /// The first attempt's.
    pub(super) fn first(tape: Tape<B>) -> Self {
        let is_alone = tape.state == State::Forgotten;
        Self::new(Arc::new(Mutex::new(tape)), 0, is_alone)
    }

    /// The next attempt's.
    pub(super) fn next(&self) -> Self {
        Self::new(Arc::clone(&self.tape), self.number + 1, false)
    }

    fn new(tape: Arc<Mutex<Tape<B>>>, number: u32, is_alone: bool) -> Self {
        Self {
            tape,
            number,
            source: None,
            position: 0,
            sent: 0,
            trailers_sent: false,
            is_alone,
        }
    }

    #[cfg(test)]
    pub(super) fn recorded(&self) -> usize {
        lock(&self.tape).chunks.iter().map(Bytes::len).sum()
    }

    /// What is known of the body.
    pub(super) fn state(&self) -> State {
        lock(&self.tape).state
    }

    fn passes_on(&mut self, frame: &Frame<Bytes>, is_recorded: bool) {
        match frame.data_ref() {
            Some(data) => {
                self.sent += u64::try_from(data.len()).unwrap_or(u64::MAX);
                self.position += usize::from(is_recorded && !data.is_empty());
            }
            None => self.trailers_sent = true,
        }
    }
}

impl<B> Reader<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match ready!(self.next_recorded(cx)) {
            Next::Frame(frame) => {
                self.passes_on(&frame, true);
                Poll::Ready(Some(Ok(frame)))
            }
            Next::End => Poll::Ready(None),
            Next::Error(error) => Poll::Ready(Some(Err(error))),
            Next::Source(source) => {
                // Kept here for the case that it panics: see the drop of this reader.
                let frame = self.source.insert(source).as_mut().poll_frame(cx);
                self.put_back(frame, cx)
            }
        }
    }

    /// The next recorded frame; past the last one, the source.
    fn next_recorded(&mut self, cx: &mut Context<'_>) -> Poll<Next<B>> {
        let mut tape = lock(&self.tape);
        let overtaken = if self.number > tape.latest {
            tape.latest = self.number;
            tape.pending.take()
        } else {
            None
        };
        let next = self.next_on(&mut tape, cx);
        drop(tape);
        if let Some(overtaken) = overtaken {
            // It is to fail now, and to let go of its connection.
            overtaken.wake();
        }
        next
    }

    fn next_on(&self, tape: &mut Tape<B>, cx: &Context<'_>) -> Poll<Next<B>> {
        Poll::Ready(
            if self.number < tape.latest || (tape.state == State::Forgotten && !self.is_alone) {
                Next::Error(Box::new(ForgottenBody))
            } else if let Some(chunk) = tape.chunks.get(self.position) {
                Next::Frame(Frame::data(chunk.clone()))
            } else if let Some(trailers) = tape.trailers.clone().filter(|_| !self.trailers_sent) {
                Next::Frame(Frame::trailers(trailers))
            } else if let Some(source) = tape.rest.take().filter(|_| tape.state != State::Complete) {
                Next::Source(source)
            } else if let Some(error) = tape.error.take() {
                Next::Error(error)
            } else if tape.state == State::Recording {
                tape.pending = Some(cx.waker().clone());
                return Poll::Pending;
            } else {
                Next::End
            },
        )
    }

    /// Records what the source answered, and gives it back to the tape while it has more.
    fn put_back(
        &mut self,
        frame: Poll<Option<Result<Frame<Bytes>, B::Error>>>,
        cx: &Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let source = self.source.take();
        let tape = Arc::clone(&self.tape);
        let mut tape = lock(&tape);
        match &frame {
            Poll::Pending | Poll::Ready(Some(Ok(_))) => tape.rest = source,
            Poll::Ready(Some(Err(_))) => tape.state = State::Forgotten,
            Poll::Ready(None) if tape.state == State::Recording => tape.state = State::Complete,
            Poll::Ready(None) => {}
        }
        if let Poll::Ready(Some(Ok(frame))) = &frame {
            let is_recorded = tape.record(frame) == State::Recording;
            self.passes_on(frame, is_recorded);
        }
        if tape.state == State::Forgotten {
            self.is_alone = true;
            tape.chunks = Vec::new();
        }
        let pending = Some(cx.waker().clone()).filter(|_| frame.is_pending());
        // Overtaken while it was polling: the latest attempt may go on now, and this one is to fail.
        let woken = if self.number < tape.latest {
            [tape.pending.take(), pending]
        } else {
            tape.pending = pending;
            [None, None]
        };
        drop(tape);
        woken.into_iter().flatten().for_each(Waker::wake);
        frame.map(|frame| frame.map(|frame| frame.map_err(Into::into)))
    }
}

/// What comes next in the body.
enum Next<B> {
    Frame(Frame<Bytes>),
    /// What the source has.
    Source(Pin<Box<B>>),
    /// The body failed, or grew over the limit, or a later attempt has begun.
    Error(BoxError),
    End,
}

/// A source that panicked is not polled again.
impl<B> Drop for Reader<B> {
    fn drop(&mut self) {
        let Some(source) = self.source.take() else { return };
        let woken = {
            let mut tape = lock(&self.tape);
            tape.state = State::Forgotten;
            tape.pending.take()
        };
        drop(source);
        if let Some(woken) = woken {
            woken.wake();
        }
    }
}

impl<B: Body> Reader<B> {
    pub(super) fn is_end_stream(&self) -> bool {
        let tape = lock(&self.tape);
        let has_frames = tape.chunks.len() > self.position || (tape.trailers.is_some() && !self.trailers_sent);
        let is_at_end = tape.state == State::Complete || tape.rest.as_ref().is_some_and(Body::is_end_stream);
        !has_frames && is_at_end
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let tape = lock(&self.tape);
        if let Some(length) = tape.length {
            return SizeHint::with_exact(length.saturating_sub(self.sent));
        }
        let recorded: usize = tape.chunks.iter().skip(self.position).map(Bytes::len).sum();
        let recorded = u64::try_from(recorded).unwrap_or(u64::MAX);
        if tape.state == State::Complete && tape.trailers.is_none() {
            return SizeHint::with_exact(recorded);
        }
        let rest = tape.rest.as_ref().map_or_else(SizeHint::new, Body::size_hint);
        let mut hint = at_least(recorded.saturating_add(rest.lower()));
        if let Some(upper) = rest.upper().filter(|_| tape.trailers.is_none()) {
            hint.set_upper(recorded.saturating_add(upper));
        }
        hint
    }
}

pub(super) fn at_least(bytes: u64) -> SizeHint {
    let mut hint = SizeHint::new();
    hint.set_lower(bytes);
    hint
}

#[derive(Debug)]
pub(super) struct ForgottenBody;

impl fmt::Display for ForgottenBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the request body cannot be sent here: it is longer than the limit for replayed bodies, it failed, or a \
             later attempt has taken it over",
        )
    }
}

impl Error for ForgottenBody {}
