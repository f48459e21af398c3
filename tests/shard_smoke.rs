use assent::model::*;
use assent::shard::*;
use std::sync::Arc;
use std::time::Instant;

struct Source { ids: Arc<Vec<ApprovalId>>, name: String, at: usize, end: usize }
impl CommandSource for Source {
    fn len(&self) -> usize { self.end - self.at }
    fn fill<'a>(&'a mut self, max: usize, into: &mut Vec<VoteCommand<'a>>, _: &mut Vec<(u32, Refusal)>) -> bool {
        let start = self.at;
        let end = (self.at + max).min(self.end);
        self.at = end;
        for i in start..end {
            into.push(VoteCommand { approval: self.ids[(i * 7919) % self.ids.len()], validator: &self.name, decision: Decision::Approved, extras: None, item: i as u32 });
        }
        self.at < self.end
    }
}

fn options(dir: &std::path::Path, shards: usize, executor: Executor) -> Options {
    Options { data: dir.into(), shards, executor, executor_options: Default::default(), pin: false, ring_capacity: 4096,
        limits: assent::engine::Limits::for_memory(8 << 30), snapshot: Default::default(), journal: Default::default(), accept_clock: false }
}

fn run(executor: Executor, n: usize, validators: usize) {
    let dir = tempfile::tempdir_in(".").unwrap();
    let metrics = vec![Arc::new(assent::metrics::ShardMetrics::default())];
    let opts = options(dir.path(), 1, executor);
    let go = |opts: &Options| match executor {
        Executor::Plain => start(assent::journal::PosixStorage, opts, &metrics).unwrap(),
        Executor::Glommio => start(assent::journal::GlommioStorage, opts, &metrics).unwrap(),
    };
    let started = go(&opts);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let answers = started.answers.clone();
    runtime.spawn(async move { while let Some(batch) = answers.receive().await { for a in batch { a() } } });
    let ids: Arc<Vec<_>> = Arc::new((0..n).map(|i| { let mut b = [7u8; 16]; b[..8].copy_from_slice(&(i as u64).wrapping_mul(0x9E3779B97F4A7C15).to_be_bytes()); ApprovalId(b) }).collect());
    let shards = started.shards.clone();
    let ledger = shards.ledger();
    let t = Instant::now();
    let mut sent = 0u64;
    runtime.block_on(async {
        for chunk in ids.chunks(1024) {
            let requests: Vec<_> = chunk.iter().enumerate().map(|(i, id)| OpenItem { item: sent + i as u64, request: OpenRequest {
                id: *id, approval_type: ApprovalType::Other, priority: Priority::Normal, requester: RequesterId([1; 16]), content: Default::default(),
                content_hash: ContentHash::Sha256([0; 32]), required: 171, total: 256, expires_at: None, eligible: None, digest: [0; 16] } }).collect();
            sent += chunk.len() as u64;
            ledger.sending(0, sent);
            let mut work = Some(Work::Opens { stream: ledger.clone(), end: sent, requests });
            std::future::poll_fn(|cx| shards.poll_push(cx, 0, &mut work)).await;
        }
        std::future::poll_fn(|cx| { ledger.register(cx.waker()); if ledger.acked_through(sent) == sent { std::task::Poll::Ready(()) } else { std::task::Poll::Pending } }).await;
    });
    println!("{executor:?} opens {:.2} M/s {:?}", n as f64 / t.elapsed().as_secs_f64() / 1e6, ledger.totals());
    let t = Instant::now();
    let first = sent;
    runtime.block_on(async {
        for v in 0..validators {
            let mut at = 0;
            while at < n {
                let end = (at + 4096).min(n);
                while sent - ledger.acked_through(sent) > 64 * 4096 {
                    std::future::poll_fn(|cx| { ledger.register(cx.waker()); if sent - ledger.acked_through(sent) <= 64 * 4096 { std::task::Poll::Ready(()) } else { std::task::Poll::Pending } }).await;
                }
                let source = Box::new(Source { ids: ids.clone(), name: format!("validator-{v}"), at, end });
                let work_first = sent - at as u64;
                sent += (end - at) as u64;
                ledger.sending(0, sent);
                let mut work = Some(Work::Votes { stream: ledger.clone(), first_item: work_first, end: sent, source });
                std::future::poll_fn(|cx| shards.poll_push(cx, 0, &mut work)).await;
                at = end;
            }
        }
        std::future::poll_fn(|cx| { ledger.register(cx.waker()); if ledger.acked_through(sent) == sent { std::task::Poll::Ready(()) } else { std::task::Poll::Pending } }).await;
    });
    println!("{executor:?} votes {:.2} M/s {:?}", (sent - first) as f64 / t.elapsed().as_secs_f64() / 1e6, ledger.totals());
    let t = Instant::now();
    let vote = |i: usize| { let shards = shards.clone(); let id = ids[i]; async move { shards.vote(OwnedVote { approval: id, validator: ValidatorId::parse("late").unwrap(), decision: Decision::Rejected, extras: None }).await.unwrap() } };
    for i in 0..200 { let v = runtime.block_on(vote(i)); assert_eq!(v.state.tally.rejections, 1); }
    println!("{executor:?} lone unary {:?}", t.elapsed() / 200);
    drop(shards);
    let durable = ledger.totals();
    started.finish().unwrap();
    let t = Instant::now();
    let started = go(&opts);
    println!("recovered {:?} in {:?}", started.reports, t.elapsed());
    let answers = started.answers.clone();
    runtime.spawn(async move { while let Some(batch) = answers.receive().await { for a in batch { a() } } });
    for i in 0..100 {
        let s = runtime.block_on(started.shards.status(ids[i], Default::default(), 1000)).unwrap();
        assert_eq!(s.state.tally.approvals as usize, validators); assert_eq!(s.state.tally.rejections, 1); assert_eq!(s.votes.len(), validators + 1);
    }
    let _ = durable;
    started.finish().unwrap();
}

#[test]
fn smoke() {
    let n: usize = std::env::var("N").ok().and_then(|n| n.parse().ok()).unwrap_or(100_000);
    run(Executor::Plain, n, 10);
    run(Executor::Glommio, n, 10);
}
