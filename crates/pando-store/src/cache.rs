//! Answers that were read before. The daemon is the only writer of its database, so an answer is
//! true until one of its table's records is written; finding it here costs no other thread.
//!
//! ```text
//!   reader: version ──▶ read SQLite ──▶ keep, if the version is still that
//!   writer: commit  ──▶ version + 1, forget ──▶ acknowledge
//! ```
//!
//! What a reader saw before a commit is therefore never kept after it, and who was told that a
//! write is done never gets an older answer.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pando_driver::store::{Query, Table, Transaction};

/// Bytes that the answers of all tables may take together.
const MAX_BYTES: usize = 4 << 20;
/// An answer of more bytes is read anew each time.
const MAX_ANSWER_BYTES: usize = 256 << 10;
/// What an entry costs besides its text: keys, pointers.
const ENTRY_BYTES: usize = 256;

/// What was asked of a table.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Question {
    /// One record, by key.
    Row(String),
    /// The records of a query.
    Rows(Query),
    /// How many records a query has.
    Count(Query),
}

/// What the database said: records' bodies, or only how many there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) bodies: Vec<String>,
    pub(crate) count: u64,
}

impl Answer {
    fn bytes(&self) -> usize {
        let text = self.bodies.iter().map(|body| body.len() + size_of::<String>());
        ENTRY_BYTES + text.sum::<usize>()
    }
}

/// The state of a table when a question was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Version(u64);

#[derive(Default)]
struct Answers {
    tables: HashMap<Table, TableAnswers>,
    bytes: usize,
}

#[derive(Default)]
struct TableAnswers {
    version: u64,
    answers: HashMap<Question, Answer>,
}

/// See the module. The lock is held for a look-up only.
#[derive(Default)]
pub(crate) struct Cache(Mutex<Answers>);

impl Cache {
    fn lock(&self) -> MutexGuard<'_, Answers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the answer, or the version to keep it under once it was read.
    pub(crate) fn find(&self, table: Table, question: &Question) -> Result<Answer, Version> {
        let mut all = self.lock();
        let of_table = all.tables.entry(table).or_default();
        of_table.answers.get(question).cloned().ok_or(Version(of_table.version))
    }

    /// Keeps an answer that was read since `version`, unless the table was written meanwhile.
    pub(crate) fn keep(&self, table: Table, version: Version, question: Question, answer: &Answer) {
        let bytes = answer.bytes();
        if bytes > MAX_ANSWER_BYTES {
            return;
        }
        let mut all = self.lock();
        if all.bytes + bytes > MAX_BYTES {
            all.tables.values_mut().for_each(|of_table| of_table.answers.clear());
            all.bytes = 0;
        }
        let of_table = all.tables.entry(table).or_default();
        if of_table.version != version.0 {
            return;
        }
        // Two readers may have asked the same; both read the same.
        if of_table.answers.insert(question, answer.clone()).is_none() {
            all.bytes += bytes;
        }
    }

    /// Forgets what transactions may have changed. Called after their commit, before anybody hears
    /// of it.
    pub(crate) fn forget<'a>(&self, written: impl IntoIterator<Item = &'a Transaction>) {
        let mut all = self.lock();
        for transaction in written {
            let deleted = transaction.deletes.iter().map(|(table, _)| *table);
            for table in transaction.puts.iter().map(|(table, _)| *table).chain(deleted) {
                let of_table = all.tables.entry(table).or_default();
                of_table.version += 1;
                let gone: usize = of_table.answers.drain().map(|(_, answer)| answer.bytes()).sum();
                all.bytes -= gone;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writes(table: Table) -> Transaction {
        Transaction { deletes: vec![(table, "k".to_owned())], ..Transaction::new() }
    }

    fn body(text: &str) -> Answer {
        Answer { bodies: vec![text.to_owned()], count: 1 }
    }

    #[test]
    fn an_answer_is_kept_until_its_table_is_written() {
        let cache = Cache::default();
        let question = Question::Row("k".to_owned());
        let answer = body("{}");
        let version = cache.find(Table::Tags, &question).unwrap_err();
        cache.keep(Table::Tags, version, question.clone(), &answer);
        assert_eq!(cache.find(Table::Tags, &question), Ok(answer.clone()));
        cache.forget([&writes(Table::Images)]);
        assert_eq!(cache.find(Table::Tags, &question), Ok(answer));
        cache.forget([&writes(Table::Tags)]);
        assert!(cache.find(Table::Tags, &question).is_err());
        assert_eq!(cache.lock().bytes, 0);
    }

    #[test]
    fn what_was_read_before_a_write_is_not_kept_after_it() {
        let cache = Cache::default();
        let question = Question::Count(Query::all());
        let version = cache.find(Table::Tags, &question).unwrap_err();
        cache.forget([&writes(Table::Tags)]);
        cache.keep(
            Table::Tags,
            version,
            question.clone(),
            &Answer { count: 1, ..Answer::default() },
        );
        assert!(cache.find(Table::Tags, &question).is_err());
    }

    #[test]
    fn answers_never_take_more_than_their_share() {
        let cache = Cache::default();
        let row = "r".repeat(100 << 10);
        for number in 0..200 {
            let question = Question::Row(number.to_string());
            let version = cache.find(Table::Events, &question).unwrap_err();
            cache.keep(Table::Events, version, question, &body(&row));
            assert!(cache.lock().bytes <= MAX_BYTES);
        }
        let question = Question::Row("huge".to_owned());
        let version = cache.find(Table::Events, &question).unwrap_err();
        let huge = body(&"r".repeat(MAX_ANSWER_BYTES));
        cache.keep(Table::Events, version, question.clone(), &huge);
        assert!(cache.find(Table::Events, &question).is_err());
    }
}
