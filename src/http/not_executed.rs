//! What a response says about the handler.

/// An extension of a response: nothing was done for this request.
///
/// The idempotency layer gives the key free again for it, whatever the status is, so that a corrected request may use
/// it. [`server`](super::server) sets it for what a policy refused before the handler was called; set it yourself where
/// a check of your own refuses.
///
/// # Examples
///
/// ```
/// use axum::{Extension, http::StatusCode};
/// use steadfast::http::NotExecuted;
///
/// async fn transfer() -> (StatusCode, Extension<NotExecuted>) {
///     (StatusCode::UNPROCESSABLE_ENTITY, Extension(NotExecuted))
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotExecuted;
