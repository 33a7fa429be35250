//! A crash at every place of every turn.

use std::{cell::Cell, time::Duration};

use greenroom::{prelude::*, testkit};

use crate::agents::*;

const HOUR: Duration = Duration::from_secs(3_600);

#[test]
fn what_was_submitted_happens_once_wherever_it_is_cut_off() -> Result<()> {
    let runs = Cell::new(0);
    testkit::for_each_crash_point(program, async |kit| {
        runs.set(runs.get() + 1);
        kit.fake_tool::<Post>(|_| Ok(1));
        let tally = kit.agent::<Tally>("docs");
        tally.submit(Add { n: 2 }).idempotency_key("a").await?;
        tally.submit(Remind { hours: 1 }).await?;
        tally.submit(Write {}).await?;
        kit.settle().await;
        assert_eq!(kit.state::<Tally>("docs")?, Tally { words: 2, sent: 1 });
        kit.advance(HOUR).await;
        tally.submit(Add { n: 2 }).idempotency_key("a").await?;
        kit.crash::<Tally>("docs").await;
        assert_eq!(kit.state::<Tally>("docs")?, Tally { words: 3, sent: 1 });
        Ok(())
    })?;
    // Five turns: four places each, unless a commit covers several of them.
    assert!((1 + 5 * 2 + 2..=1 + 5 * 4).contains(&runs.get()), "{} runs", runs.get());
    Ok(())
}

#[test]
fn an_ask_that_was_cut_off_is_asked_again_under_its_key() -> Result<()> {
    let cut_off = Cell::new(0);
    testkit::for_each_crash_point(program, async |kit| {
        let tally = kit.agent::<Tally>("docs");
        let total = loop {
            match tally.ask(Add { n: 2 }).idempotency_key("a").await {
                Ok(total) => break total,
                Err(_) => cut_off.set(cut_off.get() + 1),
            }
        };
        kit.settle().await;
        assert_eq!((total, kit.state::<Tally>("docs")?.words), (2, 2));
        Ok(())
    })?;
    // before the handler, after it, and between commit and answer
    assert_eq!(cut_off.get(), 3);
    Ok(())
}

#[test]
fn the_place_where_a_scenario_breaks_is_told() {
    // Without a key whoever asks again adds again, where the first one was durable.
    let careless = testkit::for_each_crash_point(program, async |kit| {
        let tally = kit.agent::<Tally>("docs");
        while tally.ask(Add { n: 2 }).await.is_err() {}
        let words = kit.state::<Tally>("docs")?.words;
        ensure!(words == 2, "{words} words");
        Ok(())
    });
    let error = format!("{:#}", careless.unwrap_err());
    assert!(error.contains("place 3 of 4") && error.contains("before the answers"), "{error}");
    assert!(error.contains("tally/docs") && error.ends_with("4 words"), "{error}");
    // Nothing is proved of a place to which it does not come.
    let fickle = Cell::new(0);
    let fickle = testkit::for_each_crash_point(program, async |kit| {
        for _ in fickle.replace(1)..2 {
            let _ = kit.agent::<Tally>("docs").ask(Add { n: 1 }).await;
        }
        Ok(())
    });
    let error = format!("{:#}", fickle.unwrap_err());
    assert!(error.contains("to which it did not come"), "{error}");
    let panics = testkit::for_each_crash_point(program, async |kit| {
        assert!(kit.agent::<Tally>("docs").ask(Add { n: 2 }).await.is_ok());
        Ok(())
    });
    let error = format!("{:#}", panics.unwrap_err());
    assert!(error.contains("place 1 of 4") && error.contains("before the handler"), "{error}");
    assert!(error.contains("`Add` in tally/docs") && error.contains("panicked"), "{error}");
}
