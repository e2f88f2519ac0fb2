//! How the policies judge: the classifiers that their builders make, and the rule that rejections come first.

use std::error::Error;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::outcome::{Classify, Verdict};
use crate::rejected::Reason;

/// Judges errors by a predicate, and responses as the classifier before it did; made by setters such as `retry_if`.
pub struct ErrorPredicate<C, E, F> {
    base: C,
    predicate: F,
    otherwise: Verdict,
    error: PhantomData<fn(&E)>,
}

/// Judges whole results by a function; made by setters such as `classify`.
pub struct OutcomeFn<C, T, E, F> {
    base: C,
    judge: F,
    outcome: PhantomData<fn(&T, &E)>,
}

impl<C, T, E, F> Classify<T, E> for ErrorPredicate<C, E, F>
where
    C: Classify<T, E>,
    F: Fn(&E) -> bool,
{
    #[inline]
    fn classify(&self, result: Result<&T, &E>) -> Verdict {
        match result {
            Ok(_) => self.base.classify(result),
            Err(error) if (self.predicate)(error) => Verdict::TRANSIENT,
            Err(_) => self.otherwise,
        }
    }

    #[inline]
    fn as_error<'e>(&self, error: &'e E) -> Option<&'e (dyn Error + 'static)> {
        self.base.as_error(error)
    }
}

impl<C, T, E, F> Classify<T, E> for OutcomeFn<C, T, E, F>
where
    C: Classify<T, E>,
    F: Fn(Result<&T, &E>) -> Verdict,
{
    #[inline]
    fn classify(&self, result: Result<&T, &E>) -> Verdict {
        (self.judge)(result)
    }

    #[inline]
    fn as_error<'e>(&self, error: &'e E) -> Option<&'e (dyn Error + 'static)> {
        self.base.as_error(error)
    }
}

/// A classifier whose type names the result it judges and nothing else: for a field of a struct.
pub struct Erased<T, E>(Arc<dyn Classify<T, E> + Send + Sync>);

impl<T, E> Classify<T, E> for Erased<T, E> {
    fn classify(&self, result: Result<&T, &E>) -> Verdict {
        self.0.classify(result)
    }

    fn as_error<'e>(&self, error: &'e E) -> Option<&'e (dyn Error + 'static)> {
        self.0.as_error(error)
    }
}

impl<T, E> Clone for Erased<T, E> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// The classifier alone, without the rule.
impl<T, E, C: Classify<T, E>> Classify<T, E> for Judgement<C> {
    fn classify(&self, result: Result<&T, &E>) -> Verdict {
        self.classifier.classify(result)
    }

    #[inline]
    fn as_error<'e>(&self, error: &'e E) -> Option<&'e (dyn Error + 'static)> {
        self.classifier.as_error(error)
    }
}

impl<C: fmt::Debug, E, F> fmt::Debug for ErrorPredicate<C, E, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ErrorPredicate").field(&self.base).finish()
    }
}

impl<C: fmt::Debug, T, E, F> fmt::Debug for OutcomeFn<C, T, E, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OutcomeFn").field(&self.base).finish()
    }
}

impl<T, E> fmt::Debug for Erased<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Erased")
    }
}

/// A policy's classifier, with the rule that rejections are judged by the table first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Judgement<C> {
    pub(crate) classifier: C,
    /// Whether the classifier sees rejections too.
    pub(crate) judge_rejections: bool,
}

/// One judged result.
pub(crate) struct Judged<'e> {
    pub(crate) verdict: Verdict,
    /// The error as a standard one, where it can be seen as one.
    pub(crate) error: Option<&'e (dyn Error + 'static)>,
    /// The rejection in it.
    pub(crate) rejected: Option<&'e Reason>,
}

impl Judged<'_> {
    /// A response that was judged before.
    #[inline]
    pub(crate) fn response(verdict: Verdict) -> Self {
        Self {
            verdict,
            error: None,
            rejected: None,
        }
    }
}

impl<C> Judgement<C> {
    pub(crate) fn new(classifier: C) -> Self {
        Self {
            classifier,
            judge_rejections: false,
        }
    }

    /// The same rule over another classifier.
    pub(crate) fn with<D>(self, make: impl FnOnce(C) -> D) -> Judgement<D> {
        Judgement {
            classifier: make(self.classifier),
            judge_rejections: self.judge_rejections,
        }
    }

    /// An error that `predicate` is true for is `Transient`, any other is `otherwise`.
    pub(crate) fn by_predicate<E, F>(self, predicate: F, otherwise: Verdict) -> Judgement<ErrorPredicate<C, E, F>> {
        self.with(|base| ErrorPredicate {
            base,
            predicate,
            otherwise,
            error: PhantomData,
        })
    }

    /// A result means what `judge` says.
    pub(crate) fn by_outcome<T, E, F>(self, judge: F) -> Judgement<OutcomeFn<C, T, E, F>> {
        self.with(|base| OutcomeFn {
            base,
            judge,
            outcome: PhantomData,
        })
    }

    #[inline]
    pub(crate) fn judge<'e, T, E>(&self, result: Result<&'e T, &'e E>) -> Judged<'e>
    where
        C: Classify<T, E>,
    {
        match result {
            Ok(_) => Judged::response(self.classifier.classify(result)),
            Err(error) => self.judge_error(error),
        }
    }

    #[inline]
    fn judge_error<'e, T, E>(&self, error: &'e E) -> Judged<'e>
    where
        C: Classify<T, E>,
    {
        let standard = self.classifier.as_error(error);
        let rejected = standard.and_then(Reason::find);
        let verdict = match rejected {
            Some(reason) if !self.judge_rejections || reason.is_final() => reason.verdict(),
            Some(reason) => self.classifier.classify(Err(error)).not_before(reason.retry_after()),
            None => self.classifier.classify(Err(error)),
        };
        Judged {
            verdict,
            error: standard,
            rejected,
        }
    }
}

impl<T, E> Erased<T, E> {
    pub(crate) fn new(classifier: Arc<impl Classify<T, E> + Send + Sync + 'static>) -> Self {
        Self(classifier)
    }
}
