mod queue;
mod semaphore;
