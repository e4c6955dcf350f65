//! Several jobs at once, in threads that end before the call does.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::anyhow;

/// Does all jobs, at most `workers` at once. After a failure no further ones are begun, and the first is told.
pub fn each<T: Send, E: From<anyhow::Error> + Send>(
    jobs: Vec<T>,
    workers: usize,
    work: impl Fn(T) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let workers = workers.clamp(1, jobs.len().max(1));
    let left = Mutex::new(jobs.into_iter());
    let failed = AtomicBool::new(false);
    let next = || left.lock().ok().and_then(|mut left| left.next());
    let run = || {
        while !failed.load(Ordering::Relaxed) {
            let Some(job) = next() else { break };
            work(job).inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..workers).map(|_| scope.spawn(run)).collect();
        let mut answer = run();
        for other in others {
            let panicked = |_| Err(anyhow!("a thread of ours stopped, which is a bug").into());
            let its = other.join().unwrap_or_else(panicked);
            answer = answer.and(its);
        }
        answer
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_jobs_are_done_and_after_a_failure_no_more() {
        let done = Mutex::new(Vec::new());
        each((0..100).collect(), 4, |job| {
            done.lock().unwrap().push(job);
            anyhow::Ok(())
        })
        .unwrap();
        let mut done = done.into_inner().unwrap();
        done.sort_unstable();
        assert_eq!(done, (0..100).collect::<Vec<_>>());
        let count = Mutex::new(0);
        let error = each((0..100).collect(), 1, |job| {
            *count.lock().unwrap() += 1;
            if job == 2 { Err(anyhow!("no {job}")) } else { Ok(()) }
        });
        assert_eq!((error.unwrap_err().to_string(), count.into_inner().unwrap()), ("no 2".to_owned(), 3));
        each(Vec::<u8>::new(), 4, |_| anyhow::Ok(())).unwrap();
    }
}
