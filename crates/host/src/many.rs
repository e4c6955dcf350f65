//! The same work for many things: on all processors where there are so many that it pays.

use std::num::NonZero;
use std::thread;

/// With fewer for each, starting a thread takes longer than it saves.
const EACH_MIN: usize = 32;

/// More than these do not help those who look at files and ask keepers.
const THREADS_MAX: usize = 8;

/// What comes of this work for each of them, in their order. Work that panics takes the caller along.
pub fn each<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let processors = thread::available_parallelism().map_or(1, NonZero::get).min(THREADS_MAX);
    let threads = processors.min(items.len() / EACH_MIN);
    if threads < 2 {
        return items.iter().map(work).collect();
    }
    let work = &work;
    thread::scope(|scope| {
        let parts = items.chunks(items.len().div_ceil(threads));
        let parts = parts.map(|part| scope.spawn(move || part.iter().map(work).collect::<Vec<R>>()));
        let parts: Vec<_> = parts.collect();
        let ended = parts.into_iter().map(thread::ScopedJoinHandle::join);
        ended
            .flat_map(|results| match results {
                Ok(results) => results,
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn all_come_in_their_order_however_many_there_are() {
        for count in [0, 1, EACH_MIN, 2 * EACH_MIN, 1000, 1001] {
            let items: Vec<usize> = (0..count).collect();
            let doubled: Vec<usize> = items.iter().map(|item| item * 2).collect();
            assert_eq!(each(&items, |item| item * 2), doubled);
        }
    }

    #[test]
    fn many_are_done_by_several() {
        let items = [(); 4 * EACH_MIN];
        let ids = each(&items, |()| format!("{:?}", thread::current().id()));
        let threads = ids.into_iter().collect::<BTreeSet<_>>().len();
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        assert_eq!(threads, processors.min(4));
    }

    #[test]
    #[should_panic(expected = "the last")]
    fn a_panic_is_the_callers() {
        each(&[false; 200], |_| ());
        let mut items = [false; 200];
        items[199] = true;
        each(&items, |is_last| assert!(!is_last, "the last"));
    }
}
