//! Every order in which threads can meet at the exchange: `make model`.

use std::sync::Arc as StdArc;

use loom::sync::Arc;
use loom::thread;
use tensorhold_core::{Cut, Dtype, Header, LayoutOptions, Request, Rules, TensorSpec, layout};

use super::*;

/// Two tensors of 4 bytes, each in two pieces.
fn plan() -> (LoadPlan, Tasks) {
    let spec = |name| TensorSpec {
        name,
        dtype: Dtype::U8,
        shape: &[4],
    };
    let layout = layout(&[spec("a"), spec("b")], None, &LayoutOptions::default())
        .expect("two small tensors");
    let text = layout.head[8..].to_vec();
    let header = Header::parse(text, layout.file_size, Rules::Strict).expect("just made");
    let mut plan = LoadPlan::new();
    plan.add_file("x", StdArc::new(header));
    for tensor in 0..2 {
        plan.add_new(Request::whole(0, tensor))
            .expect("it is there");
    }
    let cut = Cut {
        piece_bytes: 2,
        window_bytes: 0,
        max_gap_bytes: 0,
    };
    let tasks = plan.tasks(|_| cut).expect("nothing overlaps");
    (plan, tasks)
}

fn exchange(plan: &LoadPlan, tasks: &Tasks, memory_limit: Option<u64>) -> Arc<Exchange> {
    promised(plan, tasks, &[], memory_limit)
}

fn promised(
    plan: &LoadPlan,
    tasks: &Tasks,
    promised: &[usize],
    memory_limit: Option<u64>,
) -> Arc<Exchange> {
    let queue = Queue::of(tasks.stretches(1));
    let exchange = Exchange::new(plan, tasks, queue, Vec::new(), promised, memory_limit);
    Arc::new(exchange.expect("no buffer is empty"))
}

/// Fills what it gets with the number of the task.
fn work(exchange: &Exchange, tasks: &Tasks, worker: usize) {
    while let Ok(Some(job)) = exchange.job(worker, tasks, Patience::Wait) {
        let mut complete = Vec::new();
        for (piece, lent) in tasks.pieces(&tasks.tasks()[job.task]).iter().zip(job.lent) {
            let Lent::Part(Share::Host(mut part)) = lent else {
                unreachable!("every buffer has two pieces, on the host");
            };
            part.fill(u8::try_from(job.task).expect("four tasks") + 1);
            complete.extend(part.join().map(|buffer| (piece.buffer, buffer.into())));
        }
        exchange.finish(complete);
    }
}

fn check(number: usize, memory: &Memory) {
    let buffer = memory.as_host().expect("it is the host's");
    let first = u8::try_from(number).expect("two buffers") * 2 + 1;
    assert_eq!(buffer[..], [first, first, first + 1, first + 1]);
}

#[test]
fn promised_memory_is_waited_for() {
    for memory_limit in [None, Some(4)] {
        loom::model(move || {
            let (plan, tasks) = plan();
            let exchange = promised(&plan, &tasks, &[0, 1], memory_limit);
            let tasks = StdArc::new(tasks);
            let worker = {
                let (exchange, tasks) = (Arc::clone(&exchange), StdArc::clone(&tasks));
                thread::spawn(move || work(&exchange, &tasks, 0))
            };
            for _ in 0..2 {
                let owed = exchange.owed(&tasks).into_iter();
                exchange.offer(
                    owed.map(|(number, size)| (number, allocate(size).expect("4 bytes")))
                        .collect(),
                );
                let (number, buffer) = exchange.next().expect("nothing fails").expect("two");
                check(number, &buffer);
            }
            worker.join().expect("it does not panic");
        });
    }
}

#[test]
fn every_buffer_is_given_out_complete_and_once() {
    for memory_limit in [None, Some(4)] {
        loom::model(move || {
            let (plan, tasks) = plan();
            let exchange = exchange(&plan, &tasks, memory_limit);
            let tasks = StdArc::new(tasks);
            let workers: Vec<_> = (0..2)
                .map(|number| {
                    let (exchange, tasks) = (exchange.clone(), StdArc::clone(&tasks));
                    thread::spawn(move || work(&exchange, &tasks, number))
                })
                .collect();
            let mut given = Vec::new();
            while given.len() < 2 {
                if !exchange.poll_all(&mut given).expect("nothing fails") {
                    given.extend(exchange.next().expect("nothing fails"));
                }
            }
            for (number, buffer) in &given {
                check(*number, buffer);
            }
            assert_ne!(given[0].0, given[1].0);
            assert!(exchange.next().expect("nothing fails").is_none());
            for worker in workers {
                worker.join().expect("no worker panics");
            }
        });
    }
}

#[test]
fn what_is_demanded_comes_under_any_limit() {
    loom::model(|| {
        let (plan, tasks) = plan();
        let exchange = exchange(&plan, &tasks, Some(1));
        let tasks = StdArc::new(tasks);
        let worker = {
            let (exchange, tasks) = (exchange.clone(), StdArc::clone(&tasks));
            thread::spawn(move || work(&exchange, &tasks, 0))
        };
        for number in [1, 0] {
            exchange.demand(number, &tasks);
            let buffer = exchange.take(number).expect("nothing fails");
            check(number, &buffer.expect("it was not given out"));
        }
        worker.join().expect("no worker panics");
    });
}

#[test]
fn cancelling_ends_workers_and_consumers() {
    loom::model(|| {
        let (plan, tasks) = plan();
        let exchange = exchange(&plan, &tasks, Some(4));
        let worker = {
            let exchange = exchange.clone();
            thread::spawn(move || work(&exchange, &tasks, 0))
        };
        let consumer = {
            let exchange = exchange.clone();
            thread::spawn(move || while let Ok(Some(_)) = exchange.next() {})
        };
        exchange.cancel();
        worker.join().expect("no worker panics");
        consumer.join().expect("no consumer panics");
    });
}
