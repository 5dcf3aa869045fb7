//! LISTEN and NOTIFY: every notification comes once, in order, and soon.

use super::stage::Stage;
use crate::Message;
use std::time::Duration;

const PAUSE: Duration = Duration::from_millis(30);
const LAST: &str = "no more";

/// Tells all listeners its count and the time.
pub(super) fn reporter(stage: &Stage) {
    let mut client = stage.door.enter();
    let mut count = 0;
    while stage.goes_on() {
        stage.query(&mut client, &format!("notify news, '{count} {}'", stage.pulse.clock.micros()));
        count += 1;
        Stage::think_up_to(PAUSE);
    }
    stage.query(&mut client, &format!("notify news, '{LAST}'"));
}

/// Asks nothing, and hears everything.
pub(super) fn listener(stage: &Stage) {
    let mut client = stage.door.enter();
    assert!(client.query("listen news").errors.is_empty());
    let mut expected = None;
    loop {
        let told = payload(&client.read());
        if told == LAST {
            break;
        }
        let (count, sent) = told.split_once(' ').unwrap();
        let (count, sent): (u64, u64) = (count.parse().unwrap(), sent.parse().unwrap());
        assert_eq!(count, expected.unwrap_or(count), "each comes once, in order");
        expected = Some(count + 1);
        stage.pulse.beat(Duration::from_micros(stage.pulse.clock.micros() - sent));
    }
}

/// What a NotificationResponse says behind the pid and the channel.
fn payload(message: &Message) -> String {
    assert_eq!(message.kind, b'A', "{message:?}");
    let text = message.body[4..].split(|&byte| byte == 0).nth(1).unwrap();
    String::from_utf8_lossy(text).into_owned()
}
