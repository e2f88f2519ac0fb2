//! The code of a step: async closures, async functions, and anything that implements the traits.

use std::pin::Pin;
use std::sync::Arc;

use super::cx::Cx;
use super::error::{StepError, StepResult};
use super::event::Reality;

/// An async closure whose future has a name, so that it can be asked to be `Send`.
#[doc(hidden)]
pub trait AsyncOnce<A, R>: AsyncFnOnce(A) -> R + FnOnce(A) -> <Self as AsyncOnce<A, R>>::Fut {
    /// The future.
    type Fut: Future<Output = R>;
}

impl<F, Fut, A, R> AsyncOnce<A, R> for F
where
    F: AsyncFnOnce(A) -> R + FnOnce(A) -> Fut,
    Fut: Future<Output = R>,
{
    type Fut = Fut;
}

/// The action of a step, or its undo: `async |cx: &mut Cx<Order>| { .. Ok(()) }`, or an `async fn` of that form.
///
/// It is cloned for each run, so what it captures has to be `Clone`; and its future has to be `Send`.
#[diagnostic::on_unimplemented(
    message = "this is no action for a saga over `{C}` with `{D}`",
    label = "expected an async closure or function from `&mut Cx<{C}, {D}>` to `StepResult`",
    note = "write `async move |cx: &mut Cx<..>| {{ ..; Ok(()) }}`",
    note = "what it captures has to be `Clone + Send + Sync + 'static`, and what it holds over an `.await` has to be `Send`"
)]
pub trait Action<C, D>:
    for<'a> AsyncOnce<&'a mut Cx<C, D>, StepResult, Fut: Send> + Clone + Send + Sync + 'static
{
}

impl<C, D, F> Action<C, D> for F where
    F: for<'a> AsyncOnce<&'a mut Cx<C, D>, StepResult, Fut: Send> + Clone + Send + Sync + 'static
{
}

/// A hook that finds out what an action has done.
#[diagnostic::on_unimplemented(
    message = "this is no reconcile hook for a saga over `{C}` with `{D}`",
    label = "expected an async closure or function from `&mut Cx<{C}, {D}>` to `Result<Reality, StepError>`"
)]
pub trait Reconcile<C, D>:
    for<'a> AsyncOnce<&'a mut Cx<C, D>, Result<Reality, StepError>, Fut: Send> + Clone + Send + Sync + 'static
{
}

impl<C, D, F> Reconcile<C, D> for F where
    F: for<'a> AsyncOnce<&'a mut Cx<C, D>, Result<Reality, StepError>, Fut: Send> + Clone + Send + Sync + 'static
{
}

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What the methods of a [`DynStep`] give.
pub type StepFuture<'a> = BoxFuture<'a, StepResult>;

/// What a step does, as a trait object: for steps that are chosen at run time, and for types that keep what they need.
/// [`Step::object`](super::Step::object) makes a step of it.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use steadfast::saga::{Cx, DynStep, Saga, Step, StepFuture};
///
/// struct Reserve {
///     warehouse: String,
/// }
///
/// impl DynStep<Vec<String>> for Reserve {
///     fn act<'a>(&'a self, cx: &'a mut Cx<Vec<String>>) -> StepFuture<'a> {
///         Box::pin(async move {
///             cx.push(self.warehouse.clone());
///             Ok(())
///         })
///     }
///
///     fn undo<'a>(&'a self, cx: &'a mut Cx<Vec<String>>) -> StepFuture<'a> {
///         Box::pin(async move {
///             cx.retain(|reserved| *reserved != self.warehouse);
///             Ok(())
///         })
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let steps: Vec<Arc<dyn DynStep<Vec<String>>>> = vec![
///     Arc::new(Reserve { warehouse: "north".into() }),
///     Arc::new(Reserve { warehouse: "south".into() }),
/// ];
/// let mut saga = Saga::builder("stock");
/// for (n, step) in steps.into_iter().enumerate() {
///     saga = saga.with(Step::object(format!("reserve-{n}"), step));
/// }
/// assert_eq!(saga.build()?.run(Vec::new()).await?, ["north", "south"]);
/// # Ok(())
/// # }
/// ```
pub trait DynStep<C, D = ()>: Send + Sync + 'static {
    /// The action.
    fn act<'a>(&'a self, cx: &'a mut Cx<C, D>) -> StepFuture<'a>;

    /// Takes the action back. Not asked for after the pivot.
    fn undo<'a>(&'a self, cx: &'a mut Cx<C, D>) -> StepFuture<'a>;
}

/// Code without its type.
pub(crate) trait Code<C, D, T>: Send + Sync {
    fn call<'a>(&self, cx: &'a mut Cx<C, D>) -> BoxFuture<'a, T>;
}

struct Closure<F>(F);

impl<C, D, T, F> Code<C, D, T> for Closure<F>
where
    C: Send + 'static,
    D: Send + Sync + 'static,
    T: 'static,
    F: for<'a> AsyncOnce<&'a mut Cx<C, D>, T, Fut: Send> + Clone + Send + Sync + 'static,
{
    fn call<'a>(&self, cx: &'a mut Cx<C, D>) -> BoxFuture<'a, T> {
        Box::pin((self.0.clone())(cx))
    }
}

/// One of the two things that a trait object does.
pub(crate) struct Object<C, D> {
    pub(crate) step: Arc<dyn DynStep<C, D>>,
    pub(crate) undoes: bool,
}

impl<C: Send + 'static, D: Send + Sync + 'static> Code<C, D, StepResult> for Object<C, D> {
    fn call<'a>(&self, cx: &'a mut Cx<C, D>) -> StepFuture<'a> {
        let (step, undoes) = (Arc::clone(&self.step), self.undoes);
        Box::pin(async move {
            if undoes {
                step.undo(cx).await
            } else {
                step.act(cx).await
            }
        })
    }
}

pub(crate) type SharedCode<C, D, T> = Arc<dyn Code<C, D, T>>;

pub(crate) fn action<C, D>(action: impl Action<C, D>) -> SharedCode<C, D, StepResult>
where
    C: Send + 'static,
    D: Send + Sync + 'static,
{
    Arc::new(Closure(action))
}

pub(crate) fn reconcile<C, D>(hook: impl Reconcile<C, D>) -> SharedCode<C, D, Result<Reality, StepError>>
where
    C: Send + 'static,
    D: Send + Sync + 'static,
{
    Arc::new(Closure(hook))
}
