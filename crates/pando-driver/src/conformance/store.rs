//! The suite for [`Store`].

#![expect(clippy::unwrap_used, reason = "a test suite: an error is a failed test")]

use std::sync::Arc;

use jiff::Timestamp;
use pando_model::commit::Tag;
use pando_model::{Cluster, ClusterId, ClusterState, CommitId, Uplink};

use crate::store::{
    AuditEntry, Cursor, Decision, Guard, Order, Query, Record, Store, StoreError, Table,
    Transaction,
};

fn cluster(name: &str, created_us: i64) -> Cluster {
    Cluster {
        id: ClusterId::random(),
        name: name.parse().unwrap(),
        state: ClusterState::Ready,
        nodes: Vec::new(),
        uplink: Uplink::None,
        networks: Vec::new(),
        topology: None,
        faults: Vec::new(),
        snapshots: std::collections::BTreeMap::new(),
        labels: std::collections::BTreeMap::new(),
        created_at: Timestamp::from_microsecond(created_us).unwrap(),
        created_by: "local".to_owned(),
    }
}

fn entry(verb: &str) -> AuditEntry {
    AuditEntry {
        at: Timestamp::UNIX_EPOCH,
        request: "rq_1".to_owned(),
        principal: "local".to_owned(),
        role: "owner".to_owned(),
        session: None,
        verb: verb.to_owned(),
        params: serde_json::json!({"name": "a"}),
        decision: Decision::Allowed,
        error: None,
        operation: None,
        duration_us: 3,
    }
}

/// Checks a store; `make` returns a fresh, empty one each time.
pub async fn store(make: impl AsyncFn() -> Arc<dyn Store>) {
    records_are_written_replaced_and_deleted(&*make().await).await;
    names_are_unique_in_their_scope(&*make().await).await;
    a_refused_transaction_writes_nothing(&*make().await).await;
    lists_are_filtered_ordered_and_paged(&*make().await).await;
    audit_rows_form_a_chain(&*make().await).await;
    one_of_many_racing_writers_gets_the_name(make().await).await;
}

async fn records_are_written_replaced_and_deleted(store: &dyn Store) {
    let mut shop = cluster("shop", 1);
    assert_eq!(store.get::<Cluster>(&shop.key()).await.unwrap(), None);
    store.write(Transaction::new().put(&shop)).await.unwrap();
    shop.state = ClusterState::Deleting;
    store.write(Transaction::new().put(&shop)).await.unwrap();
    assert_eq!(store.get(&shop.key()).await.unwrap(), Some(shop.clone()));
    store.write(Transaction::new().delete::<Cluster>(shop.key())).await.unwrap();
    store.write(Transaction::new().delete::<Cluster>(shop.key())).await.unwrap();
    assert_eq!(store.get::<Cluster>(&shop.key()).await.unwrap(), None);
}

async fn names_are_unique_in_their_scope(store: &dyn Store) {
    let (first, second) = (cluster("shop", 1), cluster("shop", 2));
    store.write(Transaction::new().put(&first)).await.unwrap();
    let refused = store.write(Transaction::new().put(&second)).await;
    let taken = StoreError::NameTaken { table: Table::Clusters, name: "shop".to_owned() };
    assert_eq!(refused, Err(taken));
    // One transaction may hand a name over.
    let mut handover = Transaction::new();
    handover.delete::<Cluster>(first.key()).put(&second);
    store.write(&handover).await.unwrap();
    assert_eq!(store.named::<Cluster>("", "shop").await.unwrap(), Some(second));
    // The same name in two scopes is two names.
    for scope in [ClusterId::random(), ClusterId::random()] {
        let tag = Tag { cluster: scope, name: "v1".parse().unwrap(), commit: CommitId::random() };
        store.write(Transaction::new().put(&tag)).await.unwrap();
        assert_eq!(store.named(tag.cluster.as_str(), "v1").await.unwrap(), Some(tag));
    }
}

async fn a_refused_transaction_writes_nothing(store: &dyn Store) {
    let (kept, other) = (cluster("kept", 1), cluster("other", 2));
    store.write(Transaction::new().put(&kept)).await.unwrap();
    let guards = [
        Guard::Absent(Table::Clusters, kept.key()),
        Guard::Present(Table::Clusters, other.key()),
        Guard::Status(Table::Clusters, kept.key(), "creating"),
        Guard::Status(Table::Clusters, other.key(), "ready"),
    ];
    for guard in guards {
        let mut transaction = Transaction::new();
        transaction.guard(guard.clone()).delete::<Cluster>(kept.key()).put(&other);
        transaction.audit.push(entry("vm_create"));
        let refused = store.write(&transaction).await;
        assert!(matches!(refused, Err(StoreError::Guard { .. })), "{guard:?}");
    }
    let mut taken = cluster("kept", 3);
    taken.created_by = "another".to_owned();
    let mut transaction = Transaction::new();
    transaction.put(&other).put(&taken);
    assert!(matches!(store.write(&transaction).await, Err(StoreError::NameTaken { .. })));
    let there: Vec<Cluster> = store.list(&Query::all()).await.unwrap();
    assert_eq!(there, std::slice::from_ref(&kept));
    assert!(store.audit(0, 10).await.unwrap().is_empty());
    let mut transaction = Transaction::new();
    transaction
        .guard(Guard::Present(Table::Clusters, kept.key()))
        .guard(Guard::Absent(Table::Clusters, other.key()))
        .guard(Guard::Status(Table::Clusters, kept.key(), "ready"))
        .put(&other);
    store.write(&transaction).await.unwrap();
}

async fn lists_are_filtered_ordered_and_paged(store: &dyn Store) {
    let mut all: Vec<Cluster> =
        (0..7).map(|n| cluster(&format!("shop-{n}"), 100 + i64::from(n) / 2)).collect();
    all[3].state = ClusterState::Creating;
    let mut transaction = Transaction::new();
    for cluster in &all {
        transaction.put(cluster);
    }
    transaction.put(&cluster("10_a", 1)).put(&cluster("10xa", 1));
    store.write(&transaction).await.unwrap();
    all.sort_by_key(|cluster| (cluster.created_at, cluster.key()));
    let of_shop = Query { name_prefix: Some("shop-".to_owned()), ..Query::all() };
    assert_eq!(store.list::<Cluster>(&of_shop).await.unwrap(), all);
    assert_eq!(store.count(Table::Clusters, &of_shop).await.unwrap(), 7);
    let wild = Query { name_prefix: Some("10_".to_owned()), ..Query::all() };
    assert_eq!(store.count(Table::Clusters, &wild).await.unwrap(), 1);
    let creating = Query { statuses: vec!["creating", "deleting"], ..of_shop.clone() };
    assert_eq!(store.list::<Cluster>(&creating).await.unwrap().len(), 1);
    for order in [Order::OldestFirst, Order::NewestFirst] {
        if order == Order::NewestFirst {
            all.reverse();
        }
        let mut seen: Vec<Cluster> = Vec::new();
        loop {
            let after = seen.last().map(|last| Cursor {
                created_us: last.created_at.as_microsecond(),
                key: last.key(),
            });
            let page = Query { order, after, limit: Some(2), ..of_shop.clone() };
            assert_eq!(store.count(Table::Clusters, &page).await.unwrap(), 7);
            let rows = store.list::<Cluster>(&page).await.unwrap();
            if rows.is_empty() {
                break;
            }
            seen.extend(rows);
        }
        assert_eq!(seen, all, "{order:?}");
    }
}

async fn audit_rows_form_a_chain(store: &dyn Store) {
    for verbs in [vec!["vm_create", "exec_run"], vec!["vm_delete"]] {
        let audit = verbs.into_iter().map(entry).collect();
        store.write(&Transaction { audit, ..Transaction::new() }).await.unwrap();
    }
    let rows = store.audit(0, 10).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.seq).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(rows[2].entry, entry("vm_delete"));
    for pair in rows.windows(2) {
        assert_eq!(pair[1].prev_hash, pair[0].hash);
        assert_ne!(pair[1].hash, pair[0].hash);
    }
    assert_eq!(store.audit(1, 1).await.unwrap(), rows[1..2]);
}

async fn one_of_many_racing_writers_gets_the_name(store: Arc<dyn Store>) {
    let racers: Vec<_> = (0..20)
        .map(|n| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                store.write(Transaction::new().put(&cluster("shop", n))).await.is_ok()
            })
        })
        .collect();
    let mut winners = 0;
    for racer in racers {
        winners += u32::from(racer.await.unwrap());
    }
    assert_eq!(winners, 1);
    assert_eq!(store.count(Table::Clusters, &Query::all()).await.unwrap(), 1);
}
