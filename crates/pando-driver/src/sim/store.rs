//! The store in memory: transactions are atomic because the world is locked while one is applied.

use std::sync::Arc;

use async_trait::async_trait;

use super::faults::Outcome;
use super::state::State;
use super::{Connection, SimWorld};
use crate::store::{
    AuditEntry, AuditRow, Guard, Journal, JournalEnd, JournalEntry, JournalQuery, JournalRecord,
    Order, Query, Row, Store, StoreError, Table, Transaction,
};

struct SimStore(Connection);

impl Connection {
    /// Returns the world's store.
    pub fn store(&self) -> Arc<dyn Store> {
        Arc::new(SimStore(self.clone()))
    }

    /// Returns the world's journal.
    pub fn journal(&self) -> Arc<dyn Journal> {
        Arc::new(SimJournal(self.world.clone()))
    }
}

struct SimJournal(SimWorld);

impl Journal for SimJournal {
    fn append(&self, entry: &JournalEntry) -> std::io::Result<()> {
        self.0.state().journal.push(JournalRecord { entry: entry.clone(), end: None });
        Ok(())
    }

    fn end(&self, end: &JournalEnd) -> std::io::Result<()> {
        let mut state = self.0.state();
        if let Some(of) = state.journal.iter_mut().find(|of| of.entry.id == end.ends) {
            of.end = Some(end.clone());
        }
        Ok(())
    }

    fn read(&self, query: &JournalQuery) -> std::io::Result<Vec<JournalRecord>> {
        let state = self.0.state();
        Ok(state.journal.iter().filter(|of| query.fits(&of.entry)).cloned().collect())
    }
}

/// Checks everything first, so that a refused transaction changes nothing.
fn check(state: &State, transaction: &Transaction) -> Result<(), StoreError> {
    let row = |table: &Table, key: &String| state.tables.get(table).and_then(|t| t.get(key));
    for guard in &transaction.guards {
        let (Guard::Present(table, key) | Guard::Absent(table, key) | Guard::Status(table, key, _)) =
            guard;
        let found = row(table, key);
        let holds = match guard {
            Guard::Present(..) => found.is_some(),
            Guard::Absent(..) => found.is_none(),
            Guard::Status(_, _, status) => found.is_some_and(|row| row.status == *status),
        };
        if !holds {
            return Err(StoreError::Guard { table: *table, key: key.clone() });
        }
    }
    for (place, (table, put)) in transaction.puts.iter().enumerate() {
        let Some(name) = &put.name else { continue };
        let clashes = |other: &Row| {
            other.name.as_ref() == Some(name) && other.scope == put.scope && other.key != put.key
        };
        let leaves = |other: &Row| {
            let goes = |(gone, key): &(Table, String)| gone == table && *key == other.key;
            let moves = |(moved, row): &(Table, Row)| moved == table && row.key == other.key;
            transaction.deletes.iter().any(goes) || transaction.puts.iter().any(moves)
        };
        let stored = state.tables.get(table).into_iter().flat_map(|rows| rows.values());
        let taken = stored.into_iter().any(|other| clashes(other) && !leaves(other));
        let earlier = transaction.puts.iter().take(place);
        if taken || earlier.into_iter().any(|(other, row)| other == table && clashes(row)) {
            return Err(StoreError::NameTaken { table: *table, name: name.clone() });
        }
    }
    Ok(())
}

fn apply(state: &mut State, transaction: &Transaction) -> Result<(), StoreError> {
    check(state, transaction)?;
    for (table, key) in &transaction.deletes {
        state.tables.entry(*table).or_default().remove(key);
    }
    for (table, row) in &transaction.puts {
        state.tables.entry(*table).or_default().insert(row.key.clone(), row.clone());
    }
    for entry in &transaction.audit {
        append_audit(state, entry);
    }
    Ok(())
}

/// The chain's hashes are counters here: what they are made of is the real store's.
fn append_audit(state: &mut State, entry: &AuditEntry) {
    let seq = state.audit.len() as u64 + 1;
    state.audit.push(AuditRow {
        seq,
        prev_hash: format!("{:064}", seq - 1),
        hash: format!("{seq:064}"),
        entry: entry.clone(),
    });
}

fn matches(row: &Row, query: &Query) -> bool {
    query.scope.as_ref().is_none_or(|scope| row.scope == *scope)
        && query.name.as_ref().is_none_or(|name| row.name.as_ref() == Some(name))
        && query
            .name_prefix
            .as_ref()
            .is_none_or(|prefix| row.name.as_ref().is_some_and(|name| name.starts_with(prefix)))
        && (query.statuses.is_empty() || query.statuses.contains(&row.status))
}

#[async_trait]
impl Store for SimStore {
    async fn write(&self, transaction: &Transaction) -> Result<(), StoreError> {
        let failed = || StoreError::Io { what: "write", detail: "simulated failure".to_owned() };
        tokio::task::yield_now().await;
        self.0.world.faults.may_begin("store.write").await;
        let (before, after) = self.0.world.faults.decide("store.write", self.0.life);
        match before {
            Outcome::Go => {}
            Outcome::Fail => return Err(failed()),
            Outcome::Hang => std::future::pending().await,
        }
        let result = apply(&mut self.0.world.state(), transaction);
        match after {
            Outcome::Go => result,
            Outcome::Fail => result.and_then(|()| Err(failed())),
            Outcome::Hang => {
                self.0.world.faults.crash();
                std::future::pending().await
            }
        }
    }

    async fn row(&self, table: Table, key: &str) -> Result<Option<String>, StoreError> {
        let state = self.0.world.state();
        Ok(state.tables.get(&table).and_then(|rows| rows.get(key)).map(|row| row.body.clone()))
    }

    async fn rows(&self, table: Table, query: &Query) -> Result<Vec<String>, StoreError> {
        let state = self.0.world.state();
        let rows = state.tables.get(&table).into_iter().flat_map(|rows| rows.values());
        let mut rows: Vec<&Row> = rows.filter(|row| matches(row, query)).collect();
        rows.sort_by_key(|row| (row.created_us, &row.key));
        if query.order == Order::NewestFirst {
            rows.reverse();
        }
        let position = query.after.as_ref().map(|after| (after.created_us, &after.key));
        let rest = rows.into_iter().filter(|row| {
            let own = (row.created_us, &row.key);
            position.is_none_or(|after| match query.order {
                Order::OldestFirst => own > after,
                Order::NewestFirst => own < after,
            })
        });
        let limit = query.limit.map_or(usize::MAX, |limit| limit as usize);
        Ok(rest.take(limit).map(|row| row.body.clone()).collect())
    }

    async fn count(&self, table: Table, query: &Query) -> Result<u64, StoreError> {
        let state = self.0.world.state();
        let rows = state.tables.get(&table).into_iter().flat_map(|rows| rows.values());
        Ok(rows.filter(|row| matches(row, query)).count() as u64)
    }

    async fn audit(&self, after_seq: u64, limit: u32) -> Result<Vec<AuditRow>, StoreError> {
        let state = self.0.world.state();
        let rows = state.audit.iter().filter(|row| row.seq > after_seq);
        Ok(rows.take(limit as usize).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_simulated_store_keeps_the_contract() {
        crate::conformance::store(async || SimWorld::new().connect().store()).await;
    }
}
