//! Every order in which threads can take units: `make model`.

use loom::sync::Arc;
use loom::thread;
use tensorhold_core::ErrorKind;

use super::*;

#[test]
fn every_unit_is_taken_once_and_the_first_failure_ends_the_work() {
    for bad in [None, Some(1)] {
        loom::model(move || {
            let queue = Arc::new(Queue::new(3));
            let help = move |queue: &Queue| {
                let mut taken = Vec::new();
                while let Some(unit) = queue.take() {
                    taken.push(unit);
                    if bad == Some(unit) {
                        queue.fail(Error::new(ErrorKind::Io, "it fails"));
                    }
                }
                taken
            };
            let other = {
                let queue = Arc::clone(&queue);
                thread::spawn(move || help(&queue))
            };
            let mut taken = help(&queue);
            taken.extend(other.join().expect("it does not panic"));
            taken.sort_unstable();
            let Ok(queue) = Arc::try_unwrap(queue) else {
                unreachable!("the other thread is gone");
            };
            match bad {
                None => {
                    assert_eq!(taken, [0, 1, 2]);
                    queue.done().expect("nothing fails");
                }
                Some(bad) => {
                    assert_eq!(taken, (0..taken.len()).collect::<Vec<_>>());
                    assert!(taken.contains(&bad));
                    assert!(queue.done().is_err());
                }
            }
        });
    }
}
