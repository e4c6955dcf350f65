//! What other resolvers said, kept for as long as they allow and within a bound: what would end first goes first.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::Question;
use super::reply::Reply;

/// A cache. Times are in seconds from any fixed moment.
#[derive(Debug, Default)]
pub struct Cache {
    kept: HashMap<Arc<Question>, Kept>,
    /// By their end; the number tells apart what ends in the same second.
    ends: BTreeSet<(u64, u64, Arc<Question>)>,
    bytes: usize,
    number: u64,
}

#[derive(Debug)]
struct Kept {
    reply: Arc<Reply>,
    since_s: u64,
    end_s: u64,
    number: u64,
}

/// A switchboard at rest is to stay below 8 MiB.
pub const CACHE_MAX_BYTES: usize = 1 << 20;
/// What an entry costs beside the reply: the maps' own, and the question.
const ENTRY_BYTES: usize = 256;

impl Cache {
    /// What was said, and how many seconds ago.
    pub fn find(&self, question: &Question, now_s: u64) -> Option<(Arc<Reply>, u32)> {
        let kept = self.kept.get(question).filter(|kept| kept.end_s > now_s)?;
        Some((Arc::clone(&kept.reply), u32::try_from(now_s.saturating_sub(kept.since_s)).ok()?))
    }

    /// Keeps what was said, if it may be kept.
    pub fn keep(&mut self, question: &Question, reply: &Arc<Reply>, now_s: u64) {
        self.forget(question);
        let size = reply.bytes() + ENTRY_BYTES;
        if reply.lifetime_s == 0 || size > CACHE_MAX_BYTES / 16 {
            return;
        }
        while self.bytes + size > CACHE_MAX_BYTES {
            let Some((_, _, oldest)) = self.ends.first().cloned() else { return };
            self.forget(&oldest);
        }
        let (end_s, number) = (now_s + u64::from(reply.lifetime_s), self.number);
        self.number += 1;
        self.bytes += size;
        let question = Arc::new(question.clone());
        self.ends.insert((end_s, number, Arc::clone(&question)));
        let kept = Kept { reply: Arc::clone(reply), since_s: now_s, end_s, number };
        self.kept.insert(question, kept);
    }

    /// Forgets everything: the resolvers have changed, and with them perhaps what they can see.
    pub fn clear(&mut self) {
        *self = Self { number: self.number, ..Self::default() };
    }

    fn forget(&mut self, question: &Question) {
        if let Some((question, kept)) = self.kept.remove_entry(question) {
            self.bytes = self.bytes.saturating_sub(kept.reply.bytes() + ENTRY_BYTES);
            self.ends.remove(&(kept.end_s, kept.number, question));
        }
    }
}

#[cfg(test)]
mod tests;
