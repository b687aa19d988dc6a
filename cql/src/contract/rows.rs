//! Single rows: what was written last is there, byte for byte, and for as long as it should.

use std::num::NonZeroU32;

use super::*;

pub(super) async fn all(store: &Shared) {
    a_row_is_what_was_put_last(store).await;
    an_empty_value_is_not_an_absent_row(store).await;
    big_values_come_back_whole(store).await;
    many_rows_in_one_call(store).await;
    tables_are_apart(store).await;
    partitions_are_apart(store).await;
    the_empty_partition_and_the_empty_clustering_key_are_keys(store).await;
    the_larger_stamp_wins_in_any_order(store).await;
    an_old_stamp_does_not_bring_back_a_deleted_row(store).await;
    rows_of_several_writers_are_neighbours(store).await;
    a_row_ends_with_its_time_to_live(store).await;
}

async fn a_row_is_what_was_put_last(store: &Shared) {
    let part = fresh();
    assert_eq!(value(store, Table::Worker, &part, "a").await, None);
    for text in ["one", "two", "two"] {
        store.write(vec![put(Table::Worker, &part, "a", text)]).await.unwrap();
        assert_eq!(value(store, Table::Worker, &part, "a").await, Some(text.into()));
    }
    for _ in 0..2 {
        store.write(vec![Write::delete(Key::new(Table::Worker, part.clone(), "a"))]).await.unwrap();
        assert_eq!(value(store, Table::Worker, &part, "a").await, None);
    }
    store.write(vec![put(Table::Worker, &part, "a", "three")]).await.unwrap();
    assert_eq!(value(store, Table::Worker, &part, "a").await, Some("three".into()));
    store.write(Vec::new()).await.unwrap();
}

async fn an_empty_value_is_not_an_absent_row(store: &Shared) {
    let part = fresh();
    store.write(vec![put(Table::TaskRoot, &part, "a", "")]).await.unwrap();
    assert_eq!(value(store, Table::TaskRoot, &part, "a").await, Some(Bytes::new()));
    assert_eq!(super::all(store, Table::TaskRoot, &part).await, [("a".into(), Bytes::new())]);
}

async fn big_values_come_back_whole(store: &Shared) {
    let part = fresh();
    let big: Bytes = (0..300 * 1024_u32).map(|n| (n * 31 % 251) as u8).collect::<Vec<_>>().into();
    let writes = ["a", "b", "c"].map(|row| put(Table::Task, &part, row, big.clone()));
    store.write(writes.into()).await.unwrap();
    assert_eq!(value(store, Table::Task, &part, "b").await, Some(big.clone()));
    assert!(super::all(store, Table::Task, &part).await.iter().all(|(_, value)| *value == big));
}

async fn many_rows_in_one_call(store: &Shared) {
    let parts = [fresh(), fresh(), fresh()];
    let rows = |part: &Bytes| {
        (0..400_u32).map(|n| put(Table::Task, part, n.to_be_bytes().to_vec(), vec![n as u8; 700])).collect::<Vec<_>>()
    };
    // Neither sorted nor grouped by partition.
    let mut writes: Vec<_> = parts.iter().flat_map(rows).collect();
    writes.rotate_left(555);
    writes.reverse();
    store.write(writes).await.unwrap();
    for part in &parts {
        let stored = super::all(store, Table::Task, part).await;
        assert_eq!(stored.len(), 400);
        assert!(
            stored
                .iter()
                .zip(0_u32..)
                .all(|((key, value), n)| key[..] == n.to_be_bytes() && value[..] == [n as u8; 700])
        );
    }
}

async fn tables_are_apart(store: &Shared) {
    let part = fresh();
    store.write(vec![put(Table::Worker, &part, "a", "worker"), put(Table::Queue, &part, "a", "queue")]).await.unwrap();
    assert_eq!(value(store, Table::Worker, &part, "a").await, Some("worker".into()));
    assert_eq!(value(store, Table::Queue, &part, "a").await, Some("queue".into()));
    assert_eq!(value(store, Table::Project, &part, "a").await, None);
    assert_eq!(super::all(store, Table::Queue, &part).await.len(), 1);
}

async fn partitions_are_apart(store: &Shared) {
    let part = fresh();
    let longer: Bytes = [&part[..], b"a"].concat().into();
    let rows = [(&part, "ab"), (&part, "a"), (&longer, "b"), (&longer, "")];
    let writes = rows.map(|(part, row)| put(Table::Command, part, row, format!("{}{row}", part.len())));
    store.write(writes.into()).await.unwrap();
    let of = |part: Bytes| async move { super::all(store, Table::Command, &part).await };
    assert_eq!(of(part.clone()).await, [("a".into(), "16a".into()), ("ab".into(), "16ab".into())]);
    assert_eq!(of(longer.clone()).await, [("".into(), "17".into()), ("b".into(), "17b".into())]);
}

async fn the_empty_partition_and_the_empty_clustering_key_are_keys(store: &Shared) {
    let (nowhere, row) = (Bytes::new(), fresh());
    store.write(vec![put(Table::Project, &nowhere, row.clone(), "project")]).await.unwrap();
    assert_eq!(value(store, Table::Project, &nowhere, row.clone()).await, Some("project".into()));
    assert!(super::all(store, Table::Project, &nowhere).await.contains(&(row.clone(), "project".into())));
    store.write(vec![put(Table::LedgerHead, &row, "", "head")]).await.unwrap();
    assert_eq!(value(store, Table::LedgerHead, &row, "").await, Some("head".into()));
}

async fn the_larger_stamp_wins_in_any_order(store: &Shared) {
    for order in [[1, 2, 3], [3, 2, 1], [2, 3, 1], [3, 1, 2]] {
        let part = fresh();
        for stamp in order {
            let write = put(Table::Command, &part, "a", format!("value {stamp}")).stamped(stamp);
            store.write(vec![write]).await.unwrap();
        }
        assert_eq!(value(store, Table::Command, &part, "a").await, Some("value 3".into()), "{order:?}");
        let writes = order.map(|stamp| put(Table::Command, &part, "b", format!("value {stamp}")).stamped(stamp));
        store.write(writes.into()).await.unwrap();
        assert_eq!(value(store, Table::Command, &part, "b").await, Some("value 3".into()), "{order:?} at once");
    }
    let part = fresh();
    for text in ["b", "c", "a"] {
        store.write(vec![put(Table::Command, &part, "a", text).stamped(5)]).await.unwrap();
    }
    assert_eq!(value(store, Table::Command, &part, "a").await, Some("c".into()), "the greater of equal stamps");
}

async fn an_old_stamp_does_not_bring_back_a_deleted_row(store: &Shared) {
    let part = fresh();
    let delete = Write::delete(Key::new(Table::Open, part.clone(), "a"));
    store.write(vec![put(Table::Open, &part, "a", "open").stamped(1)]).await.unwrap();
    store.write(vec![delete.clone().stamped(3)]).await.unwrap();
    store.write(vec![put(Table::Open, &part, "a", "late").stamped(2)]).await.unwrap();
    store.write(vec![put(Table::Open, &part, "a", "equal").stamped(3)]).await.unwrap();
    assert_eq!(value(store, Table::Open, &part, "a").await, None);
    assert_eq!(super::all(store, Table::Open, &part).await, []);
    store.write(vec![put(Table::Open, &part, "a", "again").stamped(4)]).await.unwrap();
    store.write(vec![delete.stamped(3)]).await.unwrap();
    assert_eq!(value(store, Table::Open, &part, "a").await, Some("again".into()));
}

async fn rows_of_several_writers_are_neighbours(store: &Shared) {
    let part = fresh();
    let key = |id: u64, writer: u32| [&id.to_be_bytes()[..], &writer.to_be_bytes()].concat();
    let keys = [(7, 0), (8, 0), (8, 1), (8, 256), (9, 3)];
    let writes = keys.map(|(id, writer)| put(Table::Task, &part, key(id, writer), format!("{id}/{writer}")));
    store.write(writes.into_iter().rev().collect()).await.unwrap();
    let values: Vec<_> = super::all(store, Table::Task, &part).await.into_iter().map(|(_, value)| value).collect();
    assert_eq!(values, ["7/0", "8/0", "8/1", "8/256", "9/3"]);
}

async fn a_row_ends_with_its_time_to_live(store: &Shared) {
    let (part, unique) = (fresh(), fresh());
    let soon = NonZeroU32::new(2);
    let brief = |row: &'static str| put(Table::Idem, &part, row, "brief").with_ttl(soon);
    store.write(vec![brief("a"), put(Table::Idem, &part, "b", "long"), brief("c"), brief("d")]).await.unwrap();
    let mut claim = Commit::insert(Key::new(Table::Unique, unique.clone(), "name"), "first");
    claim.writes[0].1 = WriteOp::Put { value: "first".into(), ttl: soon };
    decided(store, claim).await.unwrap();
    assert_eq!(value(store, Table::Idem, &part, "a").await, Some("brief".into()));
    assert_eq!(super::all(store, Table::Idem, &part).await.len(), 4);
    // A later put without a time to live stays.
    store.write(vec![put(Table::Idem, &part, "d", "kept")]).await.unwrap();

    tokio::time::sleep(Duration::from_millis(3200)).await;
    assert_eq!(value(store, Table::Idem, &part, "a").await, None);
    let left = super::all(store, Table::Idem, &part).await;
    assert_eq!(left, [("b".into(), "long".into()), ("d".into(), "kept".into())]);
    let limited = Range::all(Table::Idem, part.clone(), 1);
    assert_eq!(store.scan(limited).await.unwrap()[0].clustering, "b", "an expired row takes no place in a page");
    decided(store, Commit::insert(Key::new(Table::Unique, unique.clone(), "name"), "second")).await.unwrap();
    assert_eq!(value(store, Table::Unique, &unique, "name").await, Some("second".into()));
}
