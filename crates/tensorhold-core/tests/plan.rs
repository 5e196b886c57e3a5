//! Plans: each wanted byte once, nothing else, and the same result as slicing the whole tensor.

use std::sync::Arc;

use proptest::prelude::*;
use tensorhold_core::{
    Bounds, Cut, Dtype, Header, Index, LayoutOptions, LoadPlan, Place, Request, Rules, Selection,
    Tasks, TensorSpec, layout,
};

/// A file of random bytes in memory.
struct Sample {
    bytes: Vec<u8>,
    header: Arc<Header>,
}

fn file(tensors: &[(Dtype, Vec<u64>)], seed: u64) -> Sample {
    let names: Vec<String> = (0..tensors.len()).map(|n| format!("t{n}")).collect();
    let specs: Vec<TensorSpec<'_>> = tensors
        .iter()
        .zip(&names)
        .map(|((dtype, shape), name)| TensorSpec {
            name,
            dtype: *dtype,
            shape,
        })
        .collect();
    let layout = layout(&specs, None, &LayoutOptions::default()).expect("it has room");
    let mut bytes = layout.head;
    let mut state = seed | 1;
    while (bytes.len() as u64) < layout.file_size {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        bytes.push((state >> 56) as u8);
    }
    let header = Arc::new(Header::parse_file(&bytes, Rules::Strict).expect("just written"));
    Sample { bytes, header }
}

/// Carries out `tasks` one byte after the other, and gives the buffers with how often each byte was filled.
fn carry_out(plan: &LoadPlan, tasks: &Tasks, files: &[Sample]) -> Vec<(Vec<u8>, Vec<u32>)> {
    let mut buffers: Vec<(Vec<u8>, Vec<u32>)> = plan
        .buffers()
        .iter()
        .map(|&size| (vec![0; size as usize], vec![0; size as usize]))
        .collect();
    for task in tasks.tasks() {
        for piece in tasks.pieces(task) {
            assert!(task.extent.range.start <= piece.range.start);
            assert!(piece.range.end <= task.extent.range.end);
            let bytes = &files[task.extent.file].bytes;
            let span = &bytes[piece.range.start as usize..piece.range.end as usize];
            let (into, count) = &mut buffers[piece.buffer];
            let place = piece.place.start as usize..piece.place.end as usize;
            count[place.clone()].iter_mut().for_each(|n| *n += 1);
            match &piece.selection {
                Some(selection) => selection.gather_span(span, &mut into[place]),
                None => into[place].copy_from_slice(span),
            }
        }
    }
    buffers
}

fn shape() -> impl Strategy<Value = Vec<u64>> {
    prop::collection::vec(0u64..7, 0..4)
}

fn dtype() -> impl Strategy<Value = Dtype> {
    prop::sample::select(vec![Dtype::U8, Dtype::BF16, Dtype::F32, Dtype::I64])
}

fn part() -> impl Strategy<Value = (Option<i64>, Option<i64>, i64)> {
    let bound = || prop::option::of(-8i64..8);
    let step = prop::sample::select(vec![-3i64, -2, -1, 1, 2, 3]);
    (bound(), bound(), step)
}

fn cut() -> impl Strategy<Value = Cut> {
    (1u64..64, 0u64..200, 0u64..40).prop_map(|(piece_bytes, window_bytes, max_gap_bytes)| Cut {
        piece_bytes,
        window_bytes,
        max_gap_bytes,
    })
}

proptest! {
    #[test]
    fn every_wanted_byte_comes_once_and_as_sliced(
        shapes in prop::collection::vec((dtype(), shape()), 1..6),
        wanted in prop::collection::vec((0usize..6, 0usize..2, prop::collection::vec(part(), 0..4)), 0..8),
        cuts in (cut(), cut()),
        seed in any::<u64>(),
    ) {
        let files = [file(&shapes, seed), file(&shapes, !seed)];
        let mut plan = LoadPlan::new();
        for (number, file) in files.iter().enumerate() {
            plan.add_file(&format!("{number}.safetensors"), Arc::clone(&file.header));
        }
        let mut expected = Vec::new();
        for (tensor, file, parts) in wanted {
            let tensor = tensor % shapes.len();
            let info = files[file].header.tensor_at(tensor).unwrap();
            let index: Vec<Index> = parts
                .iter()
                .take(info.shape.len())
                .map(|&(start, stop, step)| Index::Range { start, stop, step: Some(step) })
                .collect();
            let selection = Selection::resolve(info.dtype, info.shape, &index, Bounds::Clamped).unwrap();
            let start = (files[file].header.data_start() + info.offsets.start) as usize;
            let bytes = &files[file].bytes[start..start + info.size_bytes() as usize];
            let mut sliced = vec![0; selection.size_bytes() as usize];
            selection.gather(bytes, &mut sliced);
            expected.push(sliced);
            plan.add_new(Request::whole(file, tensor).part(selection)).unwrap();
        }
        let tasks = plan.tasks(|file| if file == 0 { cuts.0 } else { cuts.1 }).unwrap();
        let filled = carry_out(&plan, &tasks, &files);
        for ((bytes, counts), expected) in filled.iter().zip(&expected) {
            prop_assert_eq!(bytes, expected);
            prop_assert!(counts.iter().all(|&n| n == 1));
        }
        let sizes: u64 = expected.iter().map(|bytes| bytes.len() as u64).sum();
        prop_assert_eq!(plan.size_bytes(), sizes);
        check_tasks(&tasks, [cuts.0, cuts.1]);
    }

    #[test]
    fn stretches_are_all_tasks_in_order(
        shapes in prop::collection::vec((dtype(), shape()), 1..6),
        n_workers in 1usize..5,
        cut in cut(),
    ) {
        let sample = file(&shapes, 1);
        let mut plan = LoadPlan::new();
        plan.add_file("x", Arc::clone(&sample.header));
        for tensor in 0..shapes.len() {
            plan.add_new(Request::whole(0, tensor)).unwrap();
        }
        let tasks = plan.tasks(|_| cut).unwrap();
        let stretches = tasks.stretches(n_workers);
        prop_assert!(stretches.len() <= n_workers);
        let all: Vec<usize> = stretches.into_iter().flatten().collect();
        prop_assert_eq!(all, (0..tasks.tasks().len()).collect::<Vec<_>>());
    }
}

/// No read is longer than allowed, and none takes along more unwanted bytes in a row than allowed.
fn check_tasks(tasks: &Tasks, cuts: [Cut; 2]) {
    for task in tasks.tasks() {
        let cut = cuts[task.extent.file];
        let pieces = tasks.pieces(task);
        let most = match pieces {
            [one] if one.selection.is_none() => cut.piece_bytes,
            // A single row may be longer than a piece should be, where it cannot be cut.
            [_] => u64::MAX,
            _ => cut.window_bytes,
        };
        assert!(task.extent.range.len() <= most, "{task:?} {cut:?}");
        let mut wanted = vec![false; task.extent.range.len() as usize];
        for piece in pieces {
            let from = (piece.range.start - task.extent.range.start) as usize;
            let runs: Vec<_> = match &piece.selection {
                None => vec![(0, piece.range.len())],
                Some(selection) => {
                    let first = selection.span().start;
                    let relative = |run: tensorhold_core::ByteRange| (run.start - first, run.len());
                    selection.runs().map(relative).collect()
                }
            };
            for (start, len) in runs {
                wanted[from + start as usize..][..len as usize].fill(true);
            }
        }
        let gaps = wanted.split(|&wanted| wanted).map(|gap| gap.len() as u64);
        assert!(gaps.max().unwrap_or(0) <= cut.max_gap_bytes, "{task:?}");
    }
}

#[test]
fn long_runs_are_cut_where_the_file_is_aligned() {
    let sample = file(&[(Dtype::U8, vec![100_000])], 7);
    let mut plan = LoadPlan::new();
    plan.add_file("x", Arc::clone(&sample.header));
    plan.add_new(Request::whole(0, 0)).unwrap();
    let cut = Cut {
        piece_bytes: 32 << 10,
        window_bytes: 0,
        max_gap_bytes: 0,
    };
    let tasks = plan.tasks(|_| cut).unwrap();
    let (last, others) = tasks.tasks().split_last().unwrap();
    assert!(!others.is_empty());
    assert!(
        others
            .iter()
            .all(|task| task.extent.range.end.is_multiple_of(4096))
    );
    assert_eq!(last.extent.range.end, sample.bytes.len() as u64);
    assert_eq!(tasks.read_bytes(), 100_000);
}

#[test]
fn several_tensors_fill_one_buffer() {
    let sample = file(&[(Dtype::U8, vec![3]), (Dtype::U8, vec![4])], 3);
    let mut plan = LoadPlan::new();
    plan.add_file("x", Arc::clone(&sample.header));
    let buffer = plan.add_buffer(7);
    plan.add(Request::whole(0, 1).at(Place { buffer, offset: 0 }))
        .unwrap();
    plan.add(Request::whole(0, 0).at(Place { buffer, offset: 4 }))
        .unwrap();
    let cut = Cut {
        piece_bytes: 2,
        window_bytes: 9,
        max_gap_bytes: 0,
    };
    let tasks = plan.tasks(|_| cut).unwrap();
    let filled = carry_out(&plan, &tasks, std::slice::from_ref(&sample));
    let data = &sample.bytes[sample.bytes.len() - 7..];
    assert_eq!(filled[0].0, [&data[3..], &data[..3]].concat());
}

#[test]
fn overlap_holes_and_want_of_room_are_refused() {
    let sample = file(&[(Dtype::U8, vec![3]), (Dtype::U8, vec![4])], 3);
    let refused = |buffer_bytes: u64, places: &[(usize, u64)]| {
        let mut plan = LoadPlan::new();
        plan.add_file("x", Arc::clone(&sample.header));
        let buffer = plan.add_buffer(buffer_bytes);
        for &(tensor, offset) in places {
            if let Err(error) = plan.add(Request::whole(0, tensor).at(Place { buffer, offset })) {
                return error.to_string();
            }
        }
        let cut = Cut {
            piece_bytes: 9,
            window_bytes: 9,
            max_gap_bytes: 0,
        };
        plan.tasks(|_| cut).unwrap_err().to_string()
    };
    assert_eq!(
        refused(7, &[(0, 0), (1, 2)]),
        "bytes 2..3 of buffer 0 would be filled twice (tensor `t1`)"
    );
    assert_eq!(
        refused(9, &[(0, 0), (1, 5)]),
        "bytes 3..5 of buffer 0 would be filled never (tensor `t1`)"
    );
    assert_eq!(
        refused(9, &[(0, 0), (1, 3)]),
        "bytes 7..9 of buffer 0 would be filled never"
    );
    assert_eq!(
        refused(3, &[(1, 0)]),
        "buffer 0 has no room for 4 bytes at 0 (tensor `t1`)"
    );
}

#[test]
fn a_plan_prints_what_goes_where() {
    let sample = file(&[(Dtype::F32, vec![4, 2])], 3);
    let start = sample.header.data_start();
    let mut plan = LoadPlan::new();
    plan.add_file("model.safetensors", Arc::clone(&sample.header));
    let rows = Index::Range {
        start: Some(1),
        stop: Some(3),
        step: None,
    };
    let selection = Selection::resolve(Dtype::F32, &[4, 2], &[rows], Bounds::Clamped).unwrap();
    plan.add_new(Request::whole(0, 0).part(selection)).unwrap();
    plan.add_new(Request::whole(0, 0)).unwrap();
    assert_eq!(
        plan.to_string(),
        format!(
            "model.safetensors {}..{}: t0 F32 [2, 2] of [4, 2] -> buffer 0 at 0, 16 bytes\n\
             model.safetensors {}..{}: t0 F32 [4, 2] -> buffer 1 at 0, 32 bytes\n\
             2 requests, 1 files, 2 buffers, 48 bytes",
            start + 8,
            start + 24,
            start,
            start + 32
        )
    );
}

#[test]
fn a_cast_is_cut_between_elements_and_fills_its_own_width() {
    // The first tensor puts the second on an odd position of the file.
    let sample = file(&[(Dtype::BF16, vec![50_000]), (Dtype::U8, vec![1])], 3);
    let mut plan = LoadPlan::new();
    plan.add_file("x", Arc::clone(&sample.header));
    plan.add_new(Request::whole(0, 0).cast(Dtype::F32)).unwrap();
    plan.add_new(Request::whole(0, 0).cast(Dtype::BF16))
        .unwrap();
    assert_eq!(plan.buffers(), [200_000, 100_000]);
    let cut = Cut {
        piece_bytes: 9_999,
        window_bytes: 9_999,
        max_gap_bytes: 0,
    };
    let tasks = plan.tasks(|_| cut).unwrap();
    let (cast, kept): (Vec<_>, Vec<_>) = tasks
        .all_pieces()
        .iter()
        .partition(|piece| piece.cast.is_some());
    assert!(cast.len() > 1 && kept.len() > 1);
    for piece in cast {
        assert_eq!(piece.range.len() % 2, 0);
        assert_eq!(piece.place.len(), piece.range.len() * 2);
        assert_eq!(piece.cast, Some(Dtype::F32));
    }
    let odd = plan
        .add_new(Request::whole(0, 1).cast(Dtype::F4))
        .unwrap_err();
    assert_eq!(odd.message(), "U8 cannot be cast to F4 on the way");
}
