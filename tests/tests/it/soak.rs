//! Many jobs in one life: none is lost, and the memory stays flat.

#![expect(clippy::print_stdout, reason = "the figures are the result")]

use comfy_router_tests::soak::{Report, Soak};

fn show(report: &Report) {
    let (first, last) = (report.resident_kib[0] / 1024, report.resident_kib[19] / 1024);
    println!(
        "{} jobs in {:.1} s; resident {first} MiB after a twentieth, {last} MiB at the end, {:.2} KiB for each \
         job of the second half\n{:?}",
        report.jobs,
        report.took.as_secs_f64(),
        report.growth_kib_per_job(),
        report.resident_kib
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_jobs_of_fifty_clients_are_all_delivered() {
    let report = Soak { instances: 4, clients: 50, jobs: 500, open: 5 }.run().await;
    show(&report);
    assert_eq!(report.jobs, 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_jobs_of_two_hundred_clients_leave_the_memory_flat() {
    let report = Soak { instances: 8, clients: 200, jobs: 5_000, open: 5 }.run().await;
    show(&report);
    assert_eq!(report.jobs, 5_000);
    assert!(report.growth_kib_per_job() < 4.0, "{} KiB for each job", report.growth_kib_per_job());
}
