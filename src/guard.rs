//! Runs when it is dropped, unless it was disarmed.

/// Gives back what `value` stands for when it is dropped, whether by a cancelled future, an early return or a panic.
///
/// `undo` is a plain function, so that the guard costs no more than its value.
#[derive(Debug)]
pub(crate) struct Guard<T> {
    value: Option<T>,
    undo: fn(T),
}

impl<T> Guard<T> {
    pub(crate) fn new(value: T, undo: fn(T)) -> Self {
        Self {
            value: Some(value),
            undo,
        }
    }

    /// Keeps what the guard stands for.
    pub(crate) fn disarm(mut self) {
        self.value = None;
    }
}

impl<T> Drop for Guard<T> {
    fn drop(&mut self) {
        if let Some(value) = self.value.take() {
            (self.undo)(value);
        }
    }
}
