//! Each byte of a file that is to be written comes from one place.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use tensorhold_core::{Dtype, Layout, LayoutOptions, Order, Origin, SavePlan, TensorSpec, layout};

fn layout_of(sizes: &[u64], align: Option<u32>, order: Order) -> Layout {
    let names: Vec<String> = (0..sizes.len()).map(|index| format!("{index}")).collect();
    let shapes: Vec<[u64; 1]> = sizes.iter().map(|&size| [size]).collect();
    let tensors: Vec<TensorSpec<'_>> = names
        .iter()
        .zip(&shapes)
        .map(|(name, shape)| TensorSpec {
            name,
            dtype: Dtype::U8,
            shape,
        })
        .collect();
    layout(&tensors, None, &LayoutOptions { align, order }).unwrap()
}

/// The file as one thread writes it: the head, then each tensor after the other.
fn in_sequence(layout: &Layout, tensors: &[Vec<u8>]) -> Vec<u8> {
    let mut file = layout.head.clone();
    for &index in &layout.order {
        file.extend_from_slice(&tensors[index]);
    }
    file
}

proptest! {
    #[test]
    fn every_byte_of_the_file_is_written_once_and_is_the_right_one(
        sizes in prop::collection::vec(0u64..300, 0..40),
        align in prop::sample::select(vec![None, Some(64), Some(4096)]),
        order in prop::sample::select(vec![Order::Reference, Order::Given]),
        write_bytes in prop::sample::select(vec![1, 7, 64, 256, 4096, 1 << 20]),
    ) {
        let layout = layout_of(&sizes, align, order);
        let tensors: Vec<Vec<u8>> = sizes
            .iter()
            .enumerate()
            .map(|(index, &size)| (0..size).map(|byte| (byte + 31 * index as u64) as u8).collect())
            .collect();
        let plan = SavePlan::new(&layout, write_bytes);
        prop_assert_eq!(plan.size_bytes(), layout.file_size);
        let mut file = vec![None; layout.file_size as usize];
        for write in 0..plan.n_writes() {
            let range = plan.range(write);
            prop_assert_eq!(range.start, write * write_bytes);
            let mut at = range.start;
            for part in plan.parts(write) {
                prop_assert_eq!(part.position, at);
                prop_assert!(!part.bytes.is_empty());
                let from = match part.origin {
                    Origin::Head => &layout.head,
                    Origin::Tensor(index) => &tensors[index],
                };
                for &byte in &from[part.bytes.start as usize..part.bytes.end as usize] {
                    prop_assert!(file[at as usize].replace(byte).is_none());
                    at += 1;
                }
            }
            prop_assert_eq!(at, range.end);
        }
        let file: Vec<u8> = file.into_iter().map(Option::unwrap).collect();
        prop_assert_eq!(file, in_sequence(&layout, &tensors));
    }
}

#[test]
fn a_plan_shows_whose_bytes_go_where() {
    let layout = layout_of(&[100, 0, 300], Some(256), Order::Given);
    let plan = SavePlan::new(&layout, 256);
    let shown = "\
0..256: head 0..256
256..356: tensor 0 0..100
356..512: tensor 2 0..156
512..656: tensor 2 156..300
3 writes, 656 bytes";
    assert_eq!(plan.to_string(), shown);
    assert_eq!(plan.parts(3).count(), 0);
}
