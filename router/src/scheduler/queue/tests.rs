use proptest::prelude::*;

use super::*;

fn row(seq: u64, score: f64, ageing: f64, since: u64) -> Waiting {
    Waiting {
        id: JobId::mint(),
        seq,
        place: 0,
        priority: Priority { score, ageing_per_second: ageing },
        number: 0.0,
        class: JobClass::Standard,
        since: Tick(since),
        ready_at: Tick(0),
        held: false,
        deadline: None,
    }
}

#[test]
fn ageing_overtakes_score_in_time() {
    let mut queue = Queue::default();
    let (urgent, patient) = (row(2, 10.0, 0.0, 1000), row(1, 0.0, 1.0, 0));
    queue.push(urgent);
    queue.push(patient);
    assert_eq!(queue.best(Tick(1000), |_| true).map(|r| r.id), Some(urgent.id));
    assert_eq!(queue.best(Tick(11_000), |_| true).map(|r| r.id), Some(patient.id));
    assert_eq!(queue.ordered(Tick(11_000)), [patient.id, urgent.id]);
}

#[test]
fn equals_run_in_order_of_arrival_and_the_unready_wait() {
    let mut queue = Queue::default();
    let (mut first, second) = (row(1, 0.0, 0.0, 0), row(2, 0.0, 0.0, 0));
    first.ready_at = Tick(500);
    first.held = true;
    queue.push(second);
    queue.push(first);
    queue.wake(Tick(100));
    assert_eq!(queue.best(Tick(100), |_| true).map(|r| r.id), Some(second.id));
    assert_eq!(queue.ordered(Tick(100)), [first.id, second.id], "shown where it will run");
    queue.unhold();
    assert_eq!(queue.best(Tick(100), |_| true).map(|r| r.id), Some(first.id));
    assert!(queue.best(Tick(100), |_| false).is_none());
}

#[test]
fn equals_in_priority_run_by_number_and_the_operators_place_comes_before_all() {
    let mut queue = Queue::default();
    let numbered = |seq, number| Waiting { number, ..row(seq, 0.0, 0.0, 0) };
    // What ComfyUI gives for: plain, front, front.
    let rows = [numbered(0, 0.0), numbered(1, -1.0), numbered(2, -2.0)];
    rows.into_iter().for_each(|row| queue.push(row));
    assert_eq!(queue.ordered(Tick(0)), [rows[2].id, rows[1].id, rows[0].id]);
    let urgent = row(3, 1e12, 0.0, 0);
    queue.push(urgent);
    let (front, back) = queue.front_and_back();
    assert!(queue.change(rows[0].id, |row| row.place = front));
    assert!(queue.change(urgent.id, |row| row.place = back));
    assert_eq!(queue.ordered(Tick(0)), [rows[0].id, rows[2].id, rows[1].id, urgent.id]);
    let (ahead, _) = queue.front_and_back();
    queue.change(rows[1].id, |row| row.place = ahead);
    assert_eq!(queue.best(Tick(0), |_| true).map(|row| row.id), Some(rows[1].id));
    assert!(!queue.change(JobId::mint(), |_| ()));
}

#[test]
fn limits_pass_one_by_one_and_classes_are_counted() {
    let mut queue = Queue::default();
    let mut late = row(1, 0.0, 0.0, 0);
    late.deadline = Some(Tick(50));
    late.class = JobClass::Batch;
    queue.push(late);
    queue.push(row(2, 0.0, 0.0, 0));
    assert!(queue.late(Tick(49)).is_empty());
    assert_eq!(queue.late(Tick(50)), [late.id]);
    queue.change(late.id, |row| row.deadline = None);
    assert!(queue.late(Tick(99)).is_empty());
    assert_eq!((queue.waiting_of(JobClass::Batch), queue.waiting_of(JobClass::Standard)), (1, 1));
    queue.remove(late.id);
    assert_eq!((queue.waiting_of(JobClass::Batch), queue.len()), (0, 1));
}

#[derive(Debug, Clone)]
enum Deed {
    Push { score: i8, ageing: u8, number: i8, place: i8, sleep: u16 },
    Remove(usize),
    Change { which: usize, score: i8, ageing: u8, place: i8, sleep: u16 },
    Pass(u16),
    Unhold,
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        5 => (any::<i8>(), 0..3u8, -2..3i8, -1..2i8, 0..900u16)
            .prop_map(|(score, ageing, number, place, sleep)| Deed::Push { score, ageing, number, place, sleep }),
        2 => any::<usize>().prop_map(Deed::Remove),
        3 => (any::<usize>(), any::<i8>(), 0..3u8, -1..2i8, 0..900u16)
            .prop_map(|(which, score, ageing, place, sleep)| Deed::Change { which, score, ageing, place, sleep }),
        3 => (0..20u16).prop_map(Deed::Pass),
        1 => Just(Deed::Unhold),
    ]
}

/// What the order means, said plainly: sort everything, take the first that may be routed.
#[derive(Default)]
struct Plain(Vec<Waiting>);

impl Plain {
    fn ordered(&self, now: Tick) -> Vec<JobId> {
        let mut rows = self.0.clone();
        let urgency = |row: &Waiting| {
            row.priority.score + row.priority.ageing_per_second * (now.0 as f64 - row.since.0 as f64) / 1000.0
        };
        rows.sort_by(|a, b| {
            b.place
                .cmp(&a.place)
                .then(urgency(b).total_cmp(&urgency(a)))
                .then(a.number.total_cmp(&b.number))
                .then(a.seq.cmp(&b.seq))
        });
        rows.iter().map(|row| row.id).collect()
    }

    fn best(&self, now: Tick) -> Option<JobId> {
        let ready = |id: &JobId| self.0.iter().any(|row| row.id == *id && row.ready_at <= now);
        self.ordered(now).into_iter().find(ready)
    }
}

proptest! {
    #[test]
    fn the_order_is_that_of_a_plain_sort_whatever_happened(deeds in prop::collection::vec(deed(), 1..120)) {
        let (mut queue, mut plain, mut now) = (Queue::default(), Plain::default(), 1_000_000u64);
        for (seq, deed) in (0..).zip(deeds) {
            let asleep = |sleep: u16| if sleep < 300 { Tick(0) } else { Tick(now + u64::from(sleep)) };
            match deed {
                Deed::Push { score, ageing, number, place, sleep } => {
                    let mut new = row(seq, f64::from(score / 32), f64::from(ageing), now);
                    (new.number, new.place) = (f64::from(number), place.into());
                    (new.ready_at, new.held) = (asleep(sleep), sleep % 2 == 0);
                    queue.push(new);
                    plain.0.push(new);
                }
                Deed::Remove(which) if !plain.0.is_empty() => {
                    let gone = plain.0.swap_remove(which % plain.0.len());
                    prop_assert_eq!(queue.remove(gone.id).map(|row| row.seq), Some(gone.seq));
                }
                Deed::Change { which, score, ageing, place, sleep } if !plain.0.is_empty() => {
                    let at = which % plain.0.len();
                    let change = |row: &mut Waiting| {
                        row.priority.score = score.into();
                        row.priority.ageing_per_second = ageing.into();
                        (row.place, row.ready_at, row.held) = (place.into(), asleep(sleep), false);
                    };
                    change(&mut plain.0[at]);
                    queue.change(plain.0[at].id, change);
                }
                // Parts of a second that binary fractions hold exactly.
                Deed::Pass(eighths) => now += 125 * u64::from(eighths),
                Deed::Unhold => {
                    queue.unhold();
                    plain.0.iter_mut().filter(|row| row.held).for_each(|row| row.ready_at = Tick(0));
                }
                _ => {}
            }
            queue.wake(Tick(now));
            prop_assert_eq!(queue.ordered(Tick(now)), plain.ordered(Tick(now)));
            prop_assert_eq!(queue.best(Tick(now), |_| true).map(|row| row.id), plain.best(Tick(now)));
            let ready = |id: &JobId| plain.0.iter().any(|row| row.id == *id && row.ready_at <= Tick(now));
            let first: Vec<JobId> = plain.ordered(Tick(now)).into_iter().filter(ready).take(3).collect();
            prop_assert_eq!(queue.first(Tick(now), 3, |_| true), first);
            prop_assert_eq!(queue.len(), plain.0.len());
        }
    }
}
