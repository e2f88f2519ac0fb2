//! What a retry reports of a call.

use std::io;
use std::time::Duration;

use steadfast::retry::Retry;

const WAIT: Duration = Duration::from_millis(40);

#[tokio::test(start_paused = true)]
async fn the_time_of_a_call_that_only_ever_waited_for_its_backoff_is_that_backoff() {
    let retry = Retry::constant(WAIT).build().unwrap();
    let fail_at_once = || async { Err::<(), _>(io::Error::from(io::ErrorKind::ConnectionReset)) };
    let (_, report) = retry.call(fail_at_once).with_report().await;
    assert_eq!(
        (report.attempts, report.waited, report.elapsed),
        (3, 2 * WAIT, 2 * WAIT)
    );
}
