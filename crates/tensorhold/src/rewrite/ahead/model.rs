//! Every order in which makers and taker can meet: `make model`.

use loom::sync::Arc;
use loom::thread;

use super::*;

/// Has `n_makers` threads make `n_things`, each its number but for `bad`, which fails, and hands them to `take`.
fn model(
    n_makers: usize,
    n_things: usize,
    bad: Option<usize>,
    take: impl Fn(&Ahead<usize>) + Send + Sync + Copy + 'static,
) {
    loom::model(move || {
        let ahead = Arc::new(Ahead::new(n_things, 1));
        let makers: Vec<_> = (0..n_makers)
            .map(|_| {
                let ahead = Arc::clone(&ahead);
                let make = move |number: usize, (): &mut ()| match bad == Some(number) {
                    false => Ok(number),
                    true => Err(Error::new(ErrorKind::Io, "it fails")),
                };
                thread::spawn(move || ahead.make_all((), &make))
            })
            .collect();
        {
            let _over = Over(&ahead);
            take(&ahead);
        }
        for maker in makers {
            maker.join().expect("no maker panics");
        }
    });
}

#[test]
fn each_thing_is_taken_once_and_in_its_order() {
    for (n_makers, n_things) in [(1, 3), (2, 2)] {
        model(n_makers, n_things, None, |ahead| {
            for number in 0..ahead.n_things {
                assert_eq!(ahead.next().expect("nothing fails"), number);
                let state = ahead.state();
                let n_apart = state.next_to_make - state.next_to_take;
                assert!(n_apart <= ahead.n_ahead, "{n_apart} are made and not taken");
            }
        });
    }
}

#[test]
fn a_failure_is_taken_where_its_thing_would_be() {
    model(2, 3, Some(1), |ahead| {
        assert_eq!(ahead.next().expect("it does not fail"), 0);
        assert_eq!(ahead.next().expect_err("it fails").message(), "it fails");
    });
}

#[test]
fn a_taker_that_goes_ends_the_makers() {
    model(2, 3, None, |ahead| {
        assert_eq!(ahead.next().expect("nothing fails"), 0);
    });
}

#[test]
fn a_maker_that_goes_ends_the_taker() {
    loom::model(|| {
        let ahead = Arc::new(Ahead::<usize>::new(2, 1));
        let gone = {
            let ahead = Arc::clone(&ahead);
            // As a panic while a thing is made: its number is taken, and nothing put down.
            thread::spawn(move || {
                let _over = Over(&ahead);
                assert_eq!(ahead.number(), Some(0));
            })
        };
        let error = ahead.next().expect_err("nobody makes it");
        assert_eq!(error.kind(), ErrorKind::Io);
        gone.join().expect("it does not panic");
    });
}
