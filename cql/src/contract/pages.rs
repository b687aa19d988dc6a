//! Scans: rows in the order of their bytes, one page of one partition at a time.

use std::ops::Bound::{self, Excluded, Included, Unbounded};

use super::*;

pub(super) async fn all(store: &Shared) {
    rows_come_in_the_order_of_their_bytes(store).await;
    bounds_hold_in_both_orders(store).await;
    bounds_that_leave_nothing_give_no_rows(store).await;
    pages_join_without_gap_or_repeat(store).await;
    pages_keep_their_place_while_rows_arrive(store).await;
    a_missing_partition_has_no_rows(store).await;
}

/// Clustering keys that are prefixes of each other, with the smallest and greatest bytes.
const KEYS: [&[u8]; 9] = [b"", b"\0", b"\0\0", b"a", b"a\0", b"a\0b", b"ab", b"b", b"\xff\xff"];

async fn filled(store: &Shared, keys: &[&'static [u8]]) -> Bytes {
    let part = fresh();
    let writes = keys.iter().rev().map(|key| put(Table::Stat, &part, *key, *key)).collect();
    store.write(writes).await.unwrap();
    part
}

async fn keys_of(store: &Shared, range: Range) -> Vec<Bytes> {
    store.scan(range).await.unwrap().into_iter().map(|row| row.clustering).collect()
}

async fn rows_come_in_the_order_of_their_bytes(store: &Shared) {
    let part = filled(store, &KEYS).await;
    let mut range = Range::all(Table::Stat, part, 100);
    assert_eq!(keys_of(store, range.clone()).await, KEYS);
    let rows = store.scan(range.clone()).await.unwrap();
    assert!(rows.iter().all(|row| row.clustering == row.value));
    range.order = Order::Descending;
    let mut down = keys_of(store, range).await;
    down.reverse();
    assert_eq!(down, KEYS);
}

async fn bounds_hold_in_both_orders(store: &Shared) {
    let part = filled(store, &KEYS).await;
    let bounds = |key: &'static [u8]| [Included(Bytes::from(key)), Excluded(Bytes::from(key)), Unbounded];
    for lower in bounds(b"\0\0").into_iter().chain(bounds(b"a")) {
        for upper in bounds(b"b").into_iter().chain(bounds(b"a\0a")) {
            let within = |key: &&[u8]| {
                let above = match &lower {
                    Included(bound) => *key >= &bound[..],
                    Excluded(bound) => *key > &bound[..],
                    Unbounded => true,
                };
                let below = match &upper {
                    Included(bound) => *key <= &bound[..],
                    Excluded(bound) => *key < &bound[..],
                    Unbounded => true,
                };
                above && below
            };
            let expected: Vec<_> = KEYS.into_iter().filter(within).collect();
            for order in [Order::Ascending, Order::Descending] {
                let mut range = Range::all(Table::Stat, part.clone(), 100);
                (range.lower, range.upper, range.order) = (lower.clone(), upper.clone(), order);
                let mut found = keys_of(store, range.clone()).await;
                if order == Order::Descending {
                    found.reverse();
                }
                assert_eq!(found, expected, "{range:?}");
                range.limit = 2;
                let first: Vec<_> = match order {
                    Order::Ascending => expected.iter().take(2).copied().collect(),
                    Order::Descending => expected.iter().rev().take(2).copied().collect(),
                };
                assert_eq!(keys_of(store, range).await, first);
            }
        }
    }
}

async fn bounds_that_leave_nothing_give_no_rows(store: &Shared) {
    let part = filled(store, &KEYS).await;
    let pairs: [[Bound<&'static [u8]>; 2]; 5] = [
        [Included(b"b"), Included(b"a")],
        [Excluded(b"a"), Excluded(b"a")],
        [Included(b"a"), Excluded(b"a")],
        [Excluded(b"\xff\xff"), Unbounded],
        [Unbounded, Excluded(b"")],
    ];
    for [lower, upper] in pairs {
        for order in [Order::Ascending, Order::Descending] {
            let mut range = Range::all(Table::Stat, part.clone(), 100);
            (range.lower, range.upper, range.order) = (lower.map(Bytes::from), upper.map(Bytes::from), order);
            assert_eq!(keys_of(store, range.clone()).await, Vec::<Bytes>::new(), "{range:?}");
        }
    }
    assert_eq!(keys_of(store, Range::all(Table::Stat, part, 0)).await, Vec::<Bytes>::new(), "no rows asked for");
}

fn number(n: u32) -> Bytes {
    Bytes::copy_from_slice(&n.to_be_bytes())
}

async fn pages_join_without_gap_or_repeat(store: &Shared) {
    let part = fresh();
    store.write((0..1000).map(|n| put(Table::Stat, &part, number(n), "")).collect()).await.unwrap();
    for (order, limit) in
        [(Order::Ascending, 7), (Order::Descending, 7), (Order::Ascending, 400), (Order::Descending, 1000)]
    {
        let mut range = Range::all(Table::Stat, part.clone(), limit);
        range.order = order;
        let mut walked = Vec::new();
        loop {
            let page = keys_of(store, range.clone()).await;
            let Some(last) = page.last() else { break };
            assert!(page.len() <= limit);
            range = range.after(last);
            let short = page.len() < limit;
            walked.extend(page);
            if short {
                break;
            }
        }
        if order == Order::Descending {
            walked.reverse();
        }
        assert!(walked.iter().eq((0..1000).map(number).collect::<Vec<_>>().iter()), "{order:?} by {limit}");
    }
}

async fn pages_keep_their_place_while_rows_arrive(store: &Shared) {
    let part = fresh();
    store.write((0..20).map(|n| put(Table::Stat, &part, number(n * 10), "")).collect()).await.unwrap();
    let mut range = Range::all(Table::Stat, part.clone(), 5);
    range.order = Order::Descending;
    let first = keys_of(store, range.clone()).await;
    assert_eq!(first, [190, 180, 170, 160, 150].map(number));
    let arriving = [300, 155, 145, 5].map(|n| put(Table::Stat, &part, number(n), ""));
    store.write(arriving.into()).await.unwrap();
    store.write(vec![Write::delete(Key::new(Table::Stat, part.clone(), number(150)))]).await.unwrap();
    range = range.after(&first[4]);
    assert_eq!(keys_of(store, range).await, [145, 140, 130, 120, 110].map(number));
}

async fn a_missing_partition_has_no_rows(store: &Shared) {
    assert_eq!(super::all(store, Table::Stat, &fresh()).await, []);
}
