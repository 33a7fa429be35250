//! Schedules under the test's clock.

use greenroom::{
    Misfire, Overlap, ScheduleOptions, Target,
    prelude::*,
    runtime::views::{ScheduleRequest, ScheduleView},
    testkit,
};
use serde_json::json;

/// Counts, and is busy for so long.
#[derive(Default, Serialize, Deserialize, Debug, PartialEq)]
struct Tally {
    times: u64,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Count {
    n: u64,
}
message!(Count -> u64);

impl Agent for Tally {
    const KIND: &'static str = "tally";
    type Messages = Count;
}
impl Handler<Count> for Tally {
    async fn handle(&mut self, count: Count, _: &Turn<Self>) -> Result<u64> {
        self.times += count.n;
        Ok(self.times)
    }
}

/// Takes so many seconds.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Dig {
    seconds: u64,
}
message!(Dig -> ());

async fn dig(dig: Dig, _: Call) -> Result<()> {
    tokio::time::sleep(Duration::from_secs(dig.seconds)).await;
    Ok(())
}

const HOUR: Duration = Duration::from_secs(3_600);

async fn seen(kit: &testkit::Kit, name: &str) -> ScheduleView {
    kit.handle().operator().schedule(name).await.unwrap()
}

/// How many tasks are in this state.
async fn tasks(kit: &testkit::Kit, state: &str) -> usize {
    let page = kit.handle().operator().tasks(&Default::default()).await.unwrap();
    page.items.iter().filter(|task| task.state.name() == state).count()
}

#[test]
fn a_schedule_fires_when_the_test_lets_its_time_come() -> Result<()> {
    let to = Target::agent::<Tally, _>("a");
    let program = Runtime::builder().agent::<Tally>().schedule("hourly", "30 * * * *", to, Count { n: 2 });
    testkit::run(program, async |kit| {
        let first = seen(kit, "hourly").await;
        let until = Duration::try_from(kit.now().duration_until(first.next_at.unwrap()))?;
        kit.advance(until - Duration::from_secs(1)).await;
        assert_eq!(seen(kit, "hourly").await.last_at, None);
        kit.advance(Duration::from_secs(1)).await;
        assert_eq!(kit.state::<Tally>("a")?.times, 2);
        let second = seen(kit, "hourly").await;
        assert_eq!((second.last_at, second.next_at), (first.next_at, first.upcoming.get(1).copied()));
        assert_eq!(second.last_task_state.map(|state| state.name()), Some("succeeded"));
        for n in 2..=5 {
            kit.advance(HOUR).await;
            assert_eq!(kit.state::<Tally>("a")?.times, 2 * n);
        }
        // of what the clock leaps over, one is fired
        kit.handle().operator().pause_schedule("hourly", true).await?;
        kit.advance(3 * HOUR).await;
        assert_eq!(kit.state::<Tally>("a")?.times, 10, "it was held up");
        let resumed = kit.handle().operator().pause_schedule("hourly", false).await?;
        assert!(resumed.next_at.unwrap() > kit.now());
        kit.advance(HOUR).await;
        assert_eq!(kit.state::<Tally>("a")?.times, 12, "what passed meanwhile is gone");
        let (task, _) = kit.handle().operator().run_schedule("hourly", None).await?;
        kit.settle().await;
        assert_eq!((kit.state::<Tally>("a")?.times, task.idempotency_key), (14, None));
        Ok(())
    })
}

fn digging(overlap: Overlap, seconds: u64) -> greenroom::Builder {
    Runtime::builder().tool_fn("dig", Effect::Pure, dig).schedule_with(
        "dig",
        "every 1m",
        Target::tool("dig"),
        Dig { seconds },
        ScheduleOptions::default().overlap(overlap).misfire(Misfire::All).timeout(HOUR),
    )
}

/// Half a minute after its first time, with what that has begun still going on.
async fn first_time(kit: &testkit::Kit) {
    let next = seen(kit, "dig").await.next_at.unwrap();
    let until = Duration::try_from(kit.now().duration_until(next)).unwrap();
    tokio::time::sleep(until + Duration::from_secs(30)).await;
}

/// Lets so many minutes pass, whatever goes on.
async fn minutes(n: u64) {
    tokio::time::sleep(Duration::from_secs(60 * n)).await;
}

/// Waits for the end of what goes on, with nothing more to come.
async fn rest(kit: &testkit::Kit) {
    kit.handle().operator().pause_schedule("dig", true).await.unwrap();
    kit.settle().await;
}

#[test]
fn a_time_passes_while_the_last_task_has_not_ended() -> Result<()> {
    testkit::run(digging(Overlap::Skip, 150), async |kit| {
        first_time(kit).await;
        minutes(7).await;
        assert_eq!((tasks(kit, "succeeded").await, tasks(kit, "running").await), (2, 1));
        let view = seen(kit, "dig").await;
        assert_eq!((view.overlap, view.timeout_ms), (Overlap::Skip, Some(3_600_000)));
        rest(kit).await;
        assert_eq!(tasks(kit, "succeeded").await, 3);
        Ok(())
    })
}

#[test]
fn one_task_waits_for_the_last_one_and_no_more() -> Result<()> {
    testkit::run(digging(Overlap::QueueOne, 150), async |kit| {
        first_time(kit).await;
        let now = async || {
            (tasks(kit, "succeeded").await, tasks(kit, "running").await, tasks(kit, "blocked").await)
        };
        assert_eq!(now().await, (0, 1, 0));
        minutes(1).await;
        assert_eq!(now().await, (0, 1, 1));
        minutes(2).await;
        assert_eq!(now().await, (1, 1, 1), "one has passed, and the next waits");
        rest(kit).await;
        assert_eq!(now().await, (3, 0, 0));
        Ok(())
    })
}

#[test]
fn tasks_run_side_by_side_where_they_may() -> Result<()> {
    testkit::run(digging(Overlap::Allow, 150), async |kit| {
        first_time(kit).await;
        minutes(2).await;
        assert_eq!(tasks(kit, "running").await, 3);
        rest(kit).await;
        Ok(())
    })
}

#[test]
fn a_schedule_that_is_added_later_is_fired_too() -> Result<()> {
    testkit::run(Runtime::builder().agent::<Tally>(), async |kit| {
        let request = ScheduleRequest {
            name: "each minute".into(),
            cron: "* * * * * Asia/Kathmandu".into(),
            target: "tally/a".into(),
            message: Some("Count".into()),
            input: Some(json!({"n": 1})),
            ..ScheduleRequest::default()
        };
        kit.handle().operator().add_schedule(request).await?;
        kit.advance(Duration::from_secs(180)).await;
        assert_eq!(kit.state::<Tally>("a")?.times, 3);
        kit.handle().operator().remove_schedule("each minute").await?;
        kit.advance(Duration::from_secs(180)).await;
        assert_eq!(kit.state::<Tally>("a")?.times, 3);
        Ok(())
    })
}
