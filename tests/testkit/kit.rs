//! A scenario's kit.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Instant,
};

use greenroom::{Call, model::task::TaskState, prelude::*, runtime::views::TaskRequest, testkit};
use serde_json::json;

use crate::agents::*;

const HOUR: Duration = Duration::from_secs(3_600);

#[test]
fn what_is_scheduled_happens_at_its_moment_and_not_before() -> Result<()> {
    let began = Instant::now();
    testkit::run(program(), async |kit| {
        kit.agent::<Tally>("a").submit(Remind { hours: 3 }).await?;
        kit.settle().await;
        kit.advance(2 * HOUR).await;
        assert_eq!(kit.state::<Tally>("a")?.words, 0);
        kit.advance(HOUR).await;
        assert_eq!(kit.state::<Tally>("a")?.words, 1);
        Ok(())
    })?;
    assert!(began.elapsed() < HOUR, "it waits in earnest");
    Ok(())
}

#[test]
fn turns_timers_and_the_kit_have_one_time() -> Result<()> {
    testkit::run(program(), async |kit| {
        let tally = kit.agent::<Tally>("a");
        let (began, timers) = (tally.ask(Now {}).await?, tokio::time::Instant::now());
        kit.advance(6 * HOUR).await;
        let passed = tally.ask(Now {}).await? - began;
        assert_eq!((passed, timers.elapsed().as_secs()), (6 * 3_600, 6 * 3_600));
        assert_eq!(kit.now().as_second() - began, passed);
        Ok(())
    })
}

/// It had as long as if its caller's turn had only begun.
#[test]
fn who_is_asked_has_what_is_left_of_its_callers_turn() -> Result<()> {
    testkit::run(program(), async |kit| {
        let left = kit.agent::<Tally>("a").ask(Pass { seconds: 20 }).await?;
        assert!((5..=10).contains(&left), "{left}");
        Ok(())
    })
}

#[test]
fn time_stands_still_while_there_is_work_and_goes_on_while_all_wait() -> Result<()> {
    testkit::run(program(), async |kit| {
        let began = tokio::time::Instant::now();
        for n in 1..=100 {
            assert_eq!(kit.agent::<Tally>("a").ask(Add { n: 1 }).await?, n);
        }
        assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
        kit.agent::<Tally>("a").ask(Sleep { seconds: 20 }).await?;
        assert_eq!(began.elapsed().as_secs(), 20);
        Ok(())
    })
}

#[test]
fn rest_is_when_the_last_turn_has_ended_and_the_last_retry() -> Result<()> {
    testkit::run(program(), async |kit| {
        kit.agent::<Tally>("a").tell(Sleep { seconds: 5 }).await?;
        let doomed = kit.agent::<Tally>("b").submit(Panic {}).await?;
        kit.settle().await;
        assert_eq!(kit.state::<Tally>("a")?.words, 1);
        let view = kit.handle().operator().task(doomed).await?;
        assert_eq!((view.state, view.attempt), (TaskState::Failed, view.max_attempts));
        Ok(())
    })
}

#[test]
fn a_stand_in_answers_for_a_tool() -> Result<()> {
    let letters = Arc::new(AtomicU64::new(0));
    testkit::run(program(), async |kit| {
        let seen = letters.clone();
        kit.fake_tool::<Post>(move |letter| {
            ensure!(letter.to == "a", "to whom?");
            // the first one is lost, and sent again
            ensure!(seen.fetch_add(1, SeqCst) > 0, "not today");
            Ok(7)
        });
        kit.agent::<Tally>("a").submit(Write {}).await?;
        kit.settle().await;
        assert_eq!(kit.state::<Tally>("a")?, Tally { words: 0, sent: 7 });
        assert_eq!(kit.tool::<Post>().call(Letter { to: "a".into() }).await?, 7);
        Ok(())
    })?;
    assert_eq!(letters.load(SeqCst), 3);
    Ok(())
}

#[test]
fn a_killed_agent_comes_back_with_what_was_durable() -> Result<()> {
    testkit::run(program(), async |kit| {
        let tally = kit.agent::<Tally>("a");
        tally.ask(Add { n: 2 }).await?;
        kit.crash::<Tally>("a").await;
        let crashes = kit.handle().operator().agent("tally", "a").await?;
        assert_eq!(crashes.restarts, 1);
        assert_eq!(tally.ask(Add { n: 1 }).await?, 3);
        kit.crash::<Tally>("nobody").await;
        assert!(kit.state::<Tally>("nobody").is_err());
        Ok(())
    })
}

fn error_of(scenario: impl AsyncFnOnce(&testkit::Kit) -> Result<()>) -> String {
    format!("{:#}", testkit::run(program(), scenario).unwrap_err())
}

#[test]
fn a_state_that_could_not_be_restored_fails_the_scenario() {
    let error = error_of(async |kit| {
        kit.agent::<Vague>("a").ask(Add { n: 1 }).await?;
        Ok(())
    });
    assert!(error.contains("vague/a") && error.contains("total"), "{error}");
}

#[test]
fn an_agent_that_does_not_end_fails_the_scenario() {
    let program = program().set("agents.tally.ask_timeout", "1h");
    let leaky = testkit::run(program, async |kit| {
        kit.agent::<Tally>("a").tell(Sleep { seconds: 3_000 }).await?;
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok(())
    });
    let error = leaky.unwrap_err().to_string();
    assert!(error.contains("tally/a"), "{error}");
}

#[test]
fn a_call_of_a_tool_that_does_not_end_fails_the_scenario() {
    let hangs = |_: Left, _: Call| std::future::pending::<Result<u64>>();
    let program = program().tool_fn("hangs", Effect::Idempotent, hangs);
    let leaky = testkit::run(program, async |kit| {
        let request =
            TaskRequest { target: "tool:hangs".into(), input: Some(json!({})), ..Default::default() };
        kit.handle().operator().submit(request).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(())
    });
    let error = leaky.unwrap_err().to_string();
    assert!(error.contains("tool:hangs"), "{error}");
}

#[test]
fn what_finds_no_rest_and_what_is_not_there_fail_the_scenario() {
    let program = program().set("agents.tally.ask_timeout", "1h");
    let busy = testkit::run(program, async |kit| {
        kit.agent::<Tally>("a").tell(Sleep { seconds: 1_000 }).await?;
        kit.settle().await;
        kit.advance(HOUR).await;
        Ok(())
    });
    let error = busy.unwrap_err().to_string();
    assert!(error.contains("no rest") && error.contains("tally/a"), "{error}");
    let error = error_of(async |kit| {
        kit.fake_tool_fn::<Letter>("post.receive", |_| Ok(1));
        Ok(())
    });
    assert!(error.contains("post.receive"), "{error}");
    let error = error_of(async |kit| {
        kit.fake_tool_fn::<Now>("post.send", |_| Ok(1));
        Ok(())
    });
    assert!(error.contains("post.send"), "{error}");
}

#[test]
fn the_scenarios_own_error_is_its_end() {
    assert_eq!(error_of(async |_| bail!("no")), "no");
}

#[test]
#[should_panic(expected = "the scenario says so")]
fn the_scenarios_panic_is_the_tests() {
    let _ = testkit::run(program(), async |_| panic!("the scenario says so"));
}

#[tokio::test]
async fn on_a_thread_with_a_runtime_it_says_what_to_do() {
    let error = error_of(async |_| Ok(()));
    assert!(error.contains("plain #[test]"), "{error}");
}
