//! Request bodies that can be sent again.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::tape::{Reader, State, Tape, at_least};

pub(super) type BoxError = Box<dyn Error + Send + Sync>;

/// A request body that is kept while it is sent, as long as it is short enough.
///
/// A body whose data is at hand (`Full<Bytes>`, `String`, a unary gRPC message) is taken as it is. Any other is recorded
/// while the first attempt streams it: nothing waits for its end, so that both directions of a gRPC stream go on. A
/// copy first sends what was recorded and then goes on where the attempt before it stopped. Where that one is still
/// sending, stuck perhaps, its body fails: the call is with the later attempt. A body that grows over the limit is
/// forgotten, goes on streaming, and cannot be sent again.
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
    /// Whether its length is told. Not of a body with trailers that did not tell it: HTTP/1.1 would drop them.
    is_exact: bool,
}

impl<B: Body<Data = Bytes, Error: Into<BoxError>>> ReplayBody<B> {
    pub(crate) fn new(body: B, limit: usize) -> Self {
        let tape = Tape::of(body, limit);
        let content = match tape.state {
            State::Complete => Content::Whole {
                whole: Whole::of(tape),
                sent: 0,
            },
            State::Recording | State::Forgotten => Content::Recorded(Reader::first(tape)),
        };
        Self { content }
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
            Content::Recorded(reader) => Content::Recorded(reader.next()),
        };
        Some(Self { content }).filter(Self::can_be_sent)
    }

    /// Whether this copy, of which nothing was sent, still has all of its content.
    pub(crate) fn can_be_sent(&self) -> bool {
        match &self.content {
            Content::Whole { .. } => true,
            Content::Recorded(reader) => reader.state() != State::Forgotten,
        }
    }
}

impl Whole {
    fn of<B>(tape: Tape<B>) -> Self {
        let mut chunks = tape.chunks.into_iter();
        Self {
            first: chunks.next().unwrap_or_default(),
            more: Some(chunks).filter(|rest| rest.len() > 0).map(Iterator::collect),
            is_exact: tape.length.is_some() || tape.trailers.is_none(),
            trailers: tape.trailers.map(Arc::new),
        }
    }

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
            Content::Recorded(reader) => reader.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole { whole, sent } if whole.is_exact => SizeHint::with_exact(whole.left(*sent)),
            Content::Whole { whole, sent } => at_least(whole.left(*sent)),
            Content::Recorded(reader) => reader.size_hint(),
        }
    }
}

impl<B> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.content {
            Content::Whole { .. } => State::Complete,
            Content::Recorded(reader) => reader.state(),
        };
        f.debug_struct("ReplayBody")
            .field("state", &state)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use proptest::prelude::*;

    use super::super::tape::{FRAMES_AHEAD, ForgottenBody};
    use super::*;

    type Script = ReplayBody<Scripted>;
    type Delivered = Result<(Vec<u8>, Option<HeaderMap>), String>;

    /// One poll of a scripted body.
    #[derive(Clone, Debug)]
    enum Step {
        Data(&'static [u8]),
        Trailers,
        /// Pending; the waker is woken at once.
        Pause,
        /// Pending until the test opens the gate.
        Gate,
        Error,
    }

    use Step::{Data, Gate, Pause, Trailers};

    /// A body that does as it is told, and fails the test when it is polled after its end.
    struct Scripted {
        steps: VecDeque<Step>,
        ended: bool,
        polls: Arc<AtomicUsize>,
        gate: Arc<AtomicUsize>,
        length: Option<u64>,
    }

    impl Body for Scripted {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            self.polls.fetch_add(1, Ordering::Relaxed);
            assert!(!self.ended, "polled after its end");
            if let Some(Step::Gate) = self.steps.front() {
                if self.gate.load(Ordering::Relaxed) == 0 {
                    return Poll::Pending;
                }
                self.gate.fetch_sub(1, Ordering::Relaxed);
                self.steps.pop_front();
            }
            let step = self.steps.pop_front();
            let length = self.length;
            Poll::Ready(match step {
                Some(Step::Pause) => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Some(Step::Gate) => return Poll::Pending,
                Some(Step::Data(data)) => {
                    let sent = u64::try_from(data.len()).unwrap();
                    self.length = length.map(|length| length - sent);
                    Some(Ok(Frame::data(Bytes::from_static(data))))
                }
                Some(Step::Trailers) => Some(Ok(Frame::trailers(trailers()))),
                Some(Step::Error) => {
                    self.ended = true;
                    Some(Err("the disk is gone".into()))
                }
                None => {
                    self.ended = true;
                    None
                }
            })
        }

        fn size_hint(&self) -> SizeHint {
            self.length.map_or_else(SizeHint::new, SizeHint::with_exact)
        }
    }

    fn trailers() -> HeaderMap {
        HeaderMap::from_iter([("digest".parse().unwrap(), "abc".parse().unwrap())])
    }

    fn scripted(steps: &[Step]) -> Scripted {
        Scripted {
            steps: steps.iter().cloned().collect(),
            ended: false,
            polls: Arc::default(),
            gate: Arc::default(),
            length: None,
        }
    }

    fn body(steps: &[Step], limit: usize) -> Script {
        ReplayBody::new(scripted(steps), limit)
    }

    /// A body whose gates the test opens one by one.
    fn gated(steps: &[Step], limit: usize) -> (Script, Arc<AtomicUsize>) {
        let source = scripted(steps);
        let gate = Arc::clone(&source.gate);
        (ReplayBody::new(source, limit), gate)
    }

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Wakes {
        fn count(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    type Frames = Poll<Option<Result<Frame<Bytes>, BoxError>>>;

    fn poll<B: Body<Data = Bytes, Error: Into<BoxError>>>(body: &mut ReplayBody<B>) -> Frames {
        Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop()))
    }

    fn poll_with<B>(body: &mut ReplayBody<B>, wakes: &Arc<Wakes>) -> Frames
    where
        B: Body<Data = Bytes, Error: Into<BoxError>>,
    {
        Pin::new(body).poll_frame(&mut Context::from_waker(&Waker::from(Arc::clone(wakes))))
    }

    fn data<B: Body<Data = Bytes, Error: Into<BoxError>>>(body: &mut ReplayBody<B>) -> Bytes {
        match poll(body) {
            Poll::Ready(Some(Ok(frame))) => frame.into_data().expect("data"),
            other => panic!("no data, but {other:?}"),
        }
    }

    /// Everything that is left, which has to come without help from outside. What the size hint says on the way has to
    /// turn out true.
    fn rest<B: Body<Data = Bytes, Error: Into<BoxError>>>(body: &mut ReplayBody<B>) -> Delivered {
        let (mut bytes, mut trailers) = (Vec::new(), None);
        let mut hints = Vec::new();
        for _ in 0..1_000 {
            hints.push((bytes.len(), body.size_hint()));
            let at_end = body.is_end_stream();
            match poll(body) {
                Poll::Pending => {}
                Poll::Ready(Some(Ok(frame))) => {
                    assert!(!at_end, "the end was announced before {frame:?}");
                    assert!(trailers.is_none(), "after the trailers came {frame:?}");
                    match frame.into_data() {
                        Ok(data) => bytes.extend_from_slice(&data),
                        Err(frame) => trailers = frame.into_trailers().ok(),
                    }
                }
                Poll::Ready(Some(Err(error))) => return Err(error.to_string()),
                Poll::Ready(None) => {
                    for (before, hint) in hints {
                        let left = u64::try_from(bytes.len() - before).unwrap();
                        assert!(hint.lower() <= left, "{hint:?} for {left}");
                        assert!(hint.upper().is_none_or(|upper| upper >= left), "{hint:?} for {left}");
                    }
                    return Ok((bytes, trailers));
                }
            }
        }
        panic!("it does not end");
    }

    #[allow(clippy::unnecessary_wraps, reason = "to be compared with what was delivered")]
    fn content(bytes: &[u8]) -> Delivered {
        Ok((bytes.to_vec(), None))
    }

    #[test]
    fn a_body_that_is_at_hand_is_taken_whole_and_repeats_itself() {
        let mut first = body(&[Data(b"ab"), Data(b""), Data(b"c"), Trailers], 3);
        let mut second = first.copy().unwrap();
        let third = second.copy().unwrap();
        let all = Ok((b"abc".to_vec(), Some(trailers())));
        assert_eq!((rest(&mut first), rest(&mut second)), (all.clone(), all.clone()));
        assert!(third.can_be_sent());
        assert_eq!(rest(&mut second.copy().unwrap()), all);
        assert!(first.is_end_stream() && matches!(poll(&mut first), Poll::Ready(None)));
    }

    #[test]
    fn an_empty_body_has_no_frames_and_says_so() {
        for empty in [body(&[], 0), body(&[Data(b"")], 0), body(&[Data(b""), Data(b"")], 9)] {
            let mut first = empty;
            assert!(first.is_end_stream());
            assert_eq!(first.size_hint().exact(), Some(0));
            assert_eq!(rest(&mut first.copy().unwrap()), content(b""));
            assert_eq!(rest(&mut first), content(b""));
        }
    }

    #[test]
    fn trailers_alone_are_delivered_before_the_end_is_announced() {
        let mut first = body(&[Trailers], 0);
        assert!(!first.is_end_stream());
        assert_eq!(rest(&mut first), Ok((Vec::new(), Some(trailers()))));
        assert!(first.is_end_stream());
    }

    #[test]
    fn full_bytes_keep_their_exact_size_below_and_above_the_limit() {
        for limit in [0, 9, 10, 11] {
            let full = http_body_util::Full::new(Bytes::from_static(b"0123456789"));
            let mut first = ReplayBody::new(full, limit);
            assert_eq!(first.size_hint().exact(), Some(10), "limit {limit}");
            assert_eq!(first.copy().is_some(), limit >= 10, "limit {limit}");
            assert_eq!(data(&mut first), "0123456789");
            assert!(first.is_end_stream(), "limit {limit}");
            assert_eq!(first.size_hint().exact(), Some(0), "limit {limit}");
        }
    }

    #[test]
    fn a_body_of_the_limit_is_kept_and_one_byte_more_is_streamed_once() {
        let mut fits = body(&[Data(b"ab"), Pause, Data(b"c")], 3);
        let mut copy = fits.copy().unwrap();
        assert_eq!(rest(&mut fits), content(b"abc"));
        drop(fits);
        assert_eq!(rest(&mut copy), content(b"abc"));

        let mut over = body(&[Data(b"ab"), Pause, Data(b"cd"), Data(b"e"), Trailers], 3);
        let copy = over.copy().unwrap();
        assert_eq!(rest(&mut over), Ok((b"abcde".to_vec(), Some(trailers()))));
        assert!(!copy.can_be_sent() && copy.copy().is_none() && over.copy().is_none());
    }

    #[test]
    fn a_body_found_too_long_before_it_is_sent_is_streamed_in_full() {
        let mut over = body(&[Data(b"ab"), Data(b"cd"), Data(b"e"), Pause, Data(b"f"), Trailers], 3);
        assert!(over.copy().is_none() && !over.can_be_sent());
        assert_eq!(rest(&mut over), Ok((b"abcdef".to_vec(), Some(trailers()))));
    }

    #[test]
    fn a_limit_of_zero_keeps_nothing_and_sends_everything() {
        let mut first = body(&[Data(b"a"), Data(b"b")], 0);
        assert!(first.copy().is_none());
        assert_eq!(rest(&mut first), content(b"ab"));
    }

    #[test]
    fn always_ready_empty_frames_are_read_ahead_only_so_far() {
        let empty = vec![Data(b""); 10 * FRAMES_AHEAD];
        let source = scripted(&empty);
        let polls = Arc::clone(&source.polls);
        let mut first = ReplayBody::new(source, 1);
        assert_eq!(polls.load(Ordering::Relaxed), FRAMES_AHEAD);
        assert_eq!(rest(&mut first), content(b""));
    }

    #[test]
    fn memory_is_bounded_by_the_limit_and_one_frame() {
        const BIG: &[u8] = &[7; 100];
        let kept = |body: &Script| match &body.content {
            Content::Whole { whole, .. } => usize::try_from(whole.left(0)).unwrap(),
            Content::Recorded(reader) => reader.recorded(),
        };
        for limit in [0, 99, 100, 150, 250] {
            for pause_at in 0..6 {
                let mut steps = vec![Data(BIG); 6];
                steps.insert(pause_at, Pause);
                let mut first = body(&steps, limit);
                let copy = first.copy();
                loop {
                    assert!(kept(&first) <= limit + BIG.len(), "limit {limit}, pause at {pause_at}");
                    match poll(&mut first) {
                        Poll::Ready(None) => break,
                        Poll::Ready(frame) => assert!(frame.is_some_and(|frame| frame.is_ok())),
                        Poll::Pending => {}
                    }
                }
                assert_eq!(kept(&first), 0, "a body that cannot be sent again is not kept");
                assert!(copy.is_none_or(|copy| !copy.can_be_sent()));
            }
        }
    }

    #[test]
    fn an_error_at_once_reaches_the_client_once() {
        let mut first = body(&[Step::Error], 10);
        assert!(first.copy().is_none());
        assert!(!first.is_end_stream());
        assert_eq!(rest(&mut first), Err("the disk is gone".to_owned()));
        assert!(matches!(poll(&mut first), Poll::Ready(None)));
    }

    #[test]
    fn an_error_on_the_way_reaches_the_client_after_the_data_before_it() {
        for pause in [None, Some(Pause)] {
            let steps: Vec<_> = [Data(b"ab")].into_iter().chain(pause).chain([Step::Error]).collect();
            let mut first = body(&steps, 10);
            assert_eq!(data(&mut first), "ab");
            assert_eq!(rest(&mut first), Err("the disk is gone".to_owned()));
        }
    }

    #[test]
    fn a_copy_of_a_body_that_broke_on_the_way_fails_and_is_not_cut_short() {
        let mut first = body(&[Data(b"ab"), Pause, Step::Error], 10);
        let mut copy = first.copy().unwrap();
        assert!(rest(&mut first).is_err());
        assert!(!copy.can_be_sent());
        drop(first);
        assert_eq!(rest(&mut copy), Err(ForgottenBody.to_string()));
    }

    #[test]
    fn a_copy_goes_on_where_the_first_was_dropped() {
        let steps = [Data(b"a"), Pause, Data(b"b"), Data(b"c"), Pause, Data(b"d"), Trailers];
        for read in 0..4 {
            let mut first = body(&steps, 10);
            let mut copy = first.copy().unwrap();
            let mut third = copy.copy().unwrap();
            for _ in 0..read {
                while poll(&mut first).is_pending() {}
            }
            drop(first);
            let all = Ok((b"abcd".to_vec(), Some(trailers())));
            assert_eq!(rest(&mut copy), all, "after {read} frames");
            assert_eq!(rest(&mut third), all, "after {read} frames");
        }
    }

    #[test]
    fn trailers_that_were_recorded_come_exactly_once_with_each_attempt() {
        let mut first = body(&[Pause, Data(b"a"), Trailers, Pause], 10);
        let mut second = first.copy().unwrap();
        let mut third = second.copy().unwrap();
        while !matches!(poll(&mut first), Poll::Ready(Some(Ok(frame))) if frame.is_trailers()) {}
        drop(first);
        let all = Ok((b"a".to_vec(), Some(trailers())));
        assert_eq!(rest(&mut second), all);
        drop(second);
        assert_eq!(rest(&mut third), all);
    }

    #[test]
    fn a_copy_takes_over_from_a_first_that_is_still_held() {
        let (mut first, gate) = gated(&[Data(b"a"), Gate, Data(b"b")], 10);
        let mut copy = first.copy().unwrap();
        let (one, two) = (Arc::new(Wakes::default()), Arc::new(Wakes::default()));
        assert!(poll_with(&mut first, &one).is_ready());
        assert!(poll_with(&mut first, &one).is_pending());

        assert_eq!(data(&mut copy), "a");
        assert_eq!(one.count(), 1, "the first is told that it is overtaken");
        assert!(poll_with(&mut copy, &two).is_pending());
        assert!(poll_with(&mut first, &one).is_ready_and_err());
        gate.store(1, Ordering::Relaxed);
        assert_eq!(rest(&mut copy), content(b"b"));
        assert!(poll(&mut first).is_ready_and_err(), "it stays failed");
        assert_eq!(one.count(), 1, "once");
    }

    #[test]
    fn the_first_reads_on_while_its_copy_is_only_kept() {
        let (mut first, gate) = gated(&[Data(b"a"), Gate, Data(b"b")], 10);
        let mut copy = first.copy().unwrap();
        let kept = copy.copy().unwrap();
        assert_eq!(data(&mut first), "a");
        gate.store(1, Ordering::Relaxed);
        assert_eq!(rest(&mut first), content(b"b"));
        drop(kept);
        assert_eq!(rest(&mut copy), content(b"ab"));
    }

    type Copies = Arc<Mutex<Vec<(ReplayBody<Reentrant>, Arc<Wakes>)>>>;

    /// A body that polls copies of itself, as other threads could, while it is polled for the second time.
    struct Reentrant {
        copies: Copies,
        polls: usize,
        /// Whether it is pending at that poll.
        stalls: bool,
        frames: VecDeque<&'static str>,
    }

    impl Reentrant {
        /// A first attempt, and the later ones that are polled in the middle of it.
        fn bodies(later: usize, stalls: bool) -> (ReplayBody<Self>, Copies) {
            let copies = Copies::default();
            let source = Self {
                copies: Arc::clone(&copies),
                polls: 0,
                stalls,
                frames: VecDeque::from(["a", "b"]),
            };
            let first = ReplayBody::new(source, 10);
            for _ in 0..later {
                let mut copies = copies.lock().unwrap();
                let copy = copies.last().map_or(&first, |(last, _)| last).copy().unwrap();
                copies.push((copy, Arc::default()));
            }
            (first, copies)
        }
    }

    impl Body for Reentrant {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            self.polls += 1;
            if self.polls == 2 {
                for (copy, wakes) in self.copies.lock().unwrap().iter_mut() {
                    assert_eq!(copy.size_hint().exact(), Some(2), "as the first announced");
                    assert!(poll_with(copy, wakes).is_pending());
                }
            }
            if self.polls == 1 || (self.polls == 2 && self.stalls) {
                return Poll::Pending;
            }
            let frame = self.frames.pop_front();
            Poll::Ready(frame.map(|data| Ok(Frame::data(Bytes::from(data)))))
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(u64::try_from(self.frames.len()).unwrap())
        }
    }

    fn wakes_of(copies: &Copies) -> Vec<usize> {
        copies.lock().unwrap().iter().map(|(_, wakes)| wakes.count()).collect()
    }

    /// The latest copy, taken out so that its source may look at the others.
    fn last_of(copies: &Copies) -> ReplayBody<Reentrant> {
        copies.lock().unwrap().pop().unwrap().0
    }

    #[test]
    fn a_copy_that_comes_while_the_first_is_polled_waits_and_is_woken() {
        let (mut first, copies) = Reentrant::bodies(1, false);
        assert_eq!(data(&mut first), "a", "what was read is delivered");
        assert_eq!(wakes_of(&copies), [1]);
        assert!(poll(&mut first).is_ready_and_err());
        assert_eq!(rest(&mut last_of(&copies)), content(b"ab"));
    }

    #[test]
    fn a_first_that_is_overtaken_while_it_is_polled_and_finds_nothing_is_woken_to_fail() {
        let (mut first, copies) = Reentrant::bodies(1, true);
        let wakes = Arc::<Wakes>::default();
        assert!(poll_with(&mut first, &wakes).is_pending());
        assert_eq!((wakes.count(), wakes_of(&copies)), (1, vec![1]));
        assert!(poll(&mut first).is_ready_and_err());
        assert_eq!(rest(&mut last_of(&copies)), content(b"ab"));
    }

    #[test]
    fn a_copy_that_is_overtaken_while_it_waits_for_the_first_is_woken_to_fail() {
        let (mut first, copies) = Reentrant::bodies(2, false);
        assert_eq!(data(&mut first), "a");
        assert_eq!(wakes_of(&copies), [1, 1]);
        let mut latest = last_of(&copies);
        assert!(poll(&mut last_of(&copies)).is_ready_and_err());
        assert_eq!(rest(&mut latest), content(b"ab"));
    }

    trait IsError {
        fn is_ready_and_err(&self) -> bool;
    }

    impl IsError for Frames {
        fn is_ready_and_err(&self) -> bool {
            matches!(self, Poll::Ready(Some(Err(_))))
        }
    }

    #[test]
    fn a_copy_that_is_sent_after_the_first_went_over_the_limit_fails_at_once() {
        let mut first = body(&[Data(b"a"), Pause, Data(b"bc"), Pause, Data(b"d")], 2);
        let mut copy = first.copy().unwrap();
        while !matches!(poll(&mut first), Poll::Ready(Some(Ok(frame))) if frame.data_ref().is_some_and(|data| data == "bc"))
        {
        }
        drop(first);
        assert_eq!(rest(&mut copy), Err(ForgottenBody.to_string()));
    }

    #[test]
    fn two_threads_that_read_at_once_cut_nothing_short() {
        fn drain(mut body: Script) -> Result<Vec<u8>, BoxError> {
            let mut bytes = Vec::new();
            loop {
                let frame = futures::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx));
                match futures::executor::block_on(frame) {
                    Some(frame) => bytes.extend_from_slice(&frame?.into_data().expect("data")),
                    None => return Ok(bytes),
                }
            }
        }

        for _ in 0..2_000 {
            let first = body(&[Data(b"a"), Pause, Data(b"bc"), Pause, Pause, Data(b"def"), Pause], 6);
            let copy = first.copy().unwrap();
            let (first, copy) = std::thread::scope(|scope| {
                let first = scope.spawn(|| drain(first));
                let copy = scope.spawn(|| drain(copy));
                (first.join().unwrap(), copy.join().unwrap())
            });
            assert_eq!(copy.unwrap(), b"abcdef");
            assert!(first.map_or(true, |bytes| bytes == b"abcdef"), "whole, or overtaken");
        }
    }

    /// A body that panics when it is polled for the second time.
    struct Panics(usize);

    impl Body for Panics {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            self.0 += 1;
            assert!(self.0 < 2, "on purpose");
            Poll::Pending
        }
    }

    #[test]
    fn a_body_that_panicked_is_not_polled_by_a_copy() {
        let mut first = ReplayBody::new(Panics(0), 10);
        let mut copy = first.copy().unwrap();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || poll(&mut first).is_pending()));
        assert!(panicked.is_err());
        assert_eq!(rest(&mut copy), Err(ForgottenBody.to_string()));
    }

    #[test]
    fn a_copy_announces_the_length_that_the_first_announced() {
        let mut source = scripted(&[Data(b"ab"), Pause, Data(b"cd"), Pause, Data(b"e")]);
        source.length = Some(5);
        let mut first = ReplayBody::new(source, 10);
        let mut copy = first.copy().unwrap();
        assert_eq!(first.size_hint().exact(), Some(5));
        assert_eq!((data(&mut first), first.size_hint().exact()), ("ab".into(), Some(3)));
        while poll(&mut first).is_pending() {}
        assert_eq!(first.size_hint().exact(), Some(1));
        assert_eq!(copy.size_hint().exact(), Some(5), "while the first still reads");
        assert_eq!((data(&mut copy), copy.size_hint().exact()), ("ab".into(), Some(3)));
        drop(first);
        assert_eq!(copy.size_hint().exact(), Some(3));
        assert_eq!(rest(&mut copy), content(b"cde"));
    }

    #[test]
    fn trailers_keep_a_body_of_unknown_length_without_one() {
        // HTTP/1.1 has trailers only where it has no Content-Length, and an exact size makes one.
        let at_hand = body(&[Data(b"ab"), Trailers], 10);
        assert_eq!((at_hand.size_hint().lower(), at_hand.size_hint().upper()), (2, None));

        let mut first = body(&[Data(b"ab"), Pause, Trailers], 10);
        let copy = first.copy().unwrap();
        assert!(rest(&mut first).is_ok());
        assert_eq!((copy.size_hint().lower(), copy.size_hint().upper()), (2, None));
    }

    #[test]
    fn nothing_of_the_content_is_in_the_debug_output() {
        let first = body(&[Data(b"secret"), Pause], 10);
        let shown = format!("{first:?} {:?}", body(&[Data(b"secret")], 10));
        assert!(!shown.contains("secret") && !shown.contains("115"), "{shown}");
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => prop::sample::select(vec![&b""[..], b"a", b"bc", b"def"]).prop_map(Data),
            3 => Just(Pause),
        ]
    }

    /// Data and pauses; then perhaps trailers, and an end or an error.
    fn script() -> impl Strategy<Value = Vec<Step>> {
        let end = prop::sample::select(vec![vec![], vec![Trailers], vec![Trailers, Pause], vec![Step::Error]]);
        (prop::collection::vec(step(), 0..12), end).prop_map(|(steps, end)| [steps, end].concat())
    }

    proptest! {
        #![proptest_config(crate::histories::histories(4_000))]

        /// Three attempts, polled in any order and dropped at any time. Each delivers the content from its beginning:
        /// all of it, or an error; and it always comes to an end.
        #[test]
        fn no_attempt_is_cut_short_or_sees_a_byte_twice(
            steps in script(),
            limit in 0_usize..16,
            exact in any::<bool>(),
            turns in prop::collection::vec((0_usize..3, 0_u8..12), 0..40),
        ) {
            let mut all = Vec::new();
            let mut source = scripted(&steps);
            for step in &steps {
                if let Data(data) = step {
                    all.extend_from_slice(data);
                }
            }
            let breaks = matches!(steps.last(), Some(Step::Error));
            let trailing = steps.iter().any(|step| matches!(step, Trailers)).then(trailers);
            source.length = exact.then(|| u64::try_from(all.len()).unwrap());

            let first = ReplayBody::new(source, limit);
            let second = first.copy();
            let third = second.as_ref().and_then(ReplayBody::copy);
            let mut attempts = [Some(first), second, third];
            let mut seen: [(Vec<u8>, Option<HeaderMap>, bool); 3] = Default::default();
            let mut ends: [Option<Result<(), String>>; 3] = Default::default();
            let mut latest = 0;

            let in_turn = turns.into_iter().chain((0..3).flat_map(|who| (0..200).map(move |_| (who, 1))));
            for (who, what) in in_turn {
                let Some(attempt) = &mut attempts[who] else { continue };
                if what == 0 {
                    attempts[who] = None;
                    continue;
                }
                if ends[who].is_some() {
                    continue;
                }
                latest = latest.max(who);
                let hint = attempt.size_hint();
                let left = u64::try_from(all.len() - seen[who].0.len()).unwrap();
                let at_end = attempt.is_end_stream();
                prop_assert!(breaks || hint.lower() <= left, "{:?} for {}", hint, left);
                prop_assert!(breaks || hint.upper().is_none_or(|upper| upper >= left), "{:?} for {}", hint, left);
                match poll(attempt) {
                    Poll::Pending => {}
                    Poll::Ready(Some(Ok(frame))) => {
                        prop_assert!(!at_end);
                        match frame.into_data() {
                            Ok(data) => seen[who].0.extend_from_slice(&data),
                            Err(frame) => {
                                prop_assert!(seen[who].1.is_none(), "trailers twice");
                                seen[who].1 = frame.into_trailers().ok();
                            }
                        }
                        prop_assert!(all.starts_with(&seen[who].0), "{:?} of {:?}", seen[who].0, all);
                    }
                    Poll::Ready(Some(Err(error))) => ends[who] = Some(Err(error.to_string())),
                    Poll::Ready(None) => ends[who] = Some(Ok(())),
                }
            }
            for who in 0..3 {
                match &ends[who] {
                    // The end is all of the content, and a body that breaks has none.
                    Some(Ok(())) => {
                        prop_assert!(!breaks);
                        prop_assert_eq!(&seen[who].0, &all);
                        prop_assert_eq!(&seen[who].1, &trailing);
                    }
                    Some(Err(error)) => {
                        let is_overtaken = who < latest;
                        prop_assert!(breaks || all.len() > limit || is_overtaken, "{}", error);
                    }
                    None => prop_assert!(attempts[who].is_none(), "attempt {} hangs", who),
                }
            }
        }
    }
}
