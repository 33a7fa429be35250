//! Probes: what comes to one is expected, answered, and seen once.

use std::cell::Cell;

use greenroom::{model::task::TaskState, prelude::*, testkit};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

/// Sends its peer what it is told to.
#[derive(Default, Serialize, Deserialize, Debug, PartialEq)]
struct Shop {
    paid: u64,
    refused: bool,
}
/// What it must not come to in these tests.
#[derive(Default, Serialize, Deserialize, Debug)]
struct Bank {
    cents: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
struct Charge {
    cents: u64,
}
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("no money")]
struct Broke {}
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
struct Note {
    n: u64,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Ask {}
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
struct Tell {
    n: u64,
}
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct Submit {}
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
struct Publish {}
message! { Charge -> u64 | Broke; Note -> (); Ask -> u64; Tell -> (); Submit -> (); Publish -> () }

static NOTES: Topic<Note> = Topic::new("notes");

impl Agent for Shop {
    const KIND: &'static str = "shop";
    type Messages = (Ask, Tell, Submit, Publish, Done<Charge>);
}
impl Handler<Ask> for Shop {
    async fn handle(&mut self, _: Ask, turn: &Turn<Self>) -> Result<u64> {
        Ok(turn.agent::<Bank>("b").ask(Charge { cents: 5 }).await?)
    }
}
impl Handler<Tell> for Shop {
    async fn handle(&mut self, tell: Tell, turn: &Turn<Self>) -> Result<()> {
        turn.agent::<Bank>("b").tell(Note { n: tell.n });
        Ok(())
    }
}
impl Handler<Submit> for Shop {
    async fn handle(&mut self, _: Submit, turn: &Turn<Self>) -> Result<()> {
        turn.agent::<Bank>("b").submit(Charge { cents: 7 }).notify();
        Ok(())
    }
}
impl Handler<Publish> for Shop {
    async fn handle(&mut self, _: Publish, turn: &Turn<Self>) -> Result<()> {
        turn.publish(&NOTES, Note { n: 3 });
        Ok(())
    }
}
impl Handler<Done<Charge>> for Shop {
    async fn handle(&mut self, done: Done<Charge>, _: &Turn<Self>) -> Result<()> {
        match done.outcome {
            Outcome::Succeeded(cents) => self.paid += cents,
            Outcome::Refused(Broke {}) => self.refused = true,
            other => bail!("{other:?}"),
        }
        Ok(())
    }
}

impl Agent for Bank {
    const KIND: &'static str = "bank";
    type Messages = (Charge, Note);
    async fn on_start(&mut self, turn: &Turn<Self>) -> Result<()> {
        ensure!(turn.key() != "shut", "the real bank is shut");
        Ok(())
    }
}
impl Handler<Charge> for Bank {
    fn check(&self, charge: &Charge) -> Result<(), Broke> {
        if charge.cents > 100 { Err(Broke {}) } else { Ok(()) }
    }
    async fn handle(&mut self, charge: Charge, _: &Turn<Self>) -> Result<u64> {
        self.cents += charge.cents;
        Ok(self.cents)
    }
}
impl Handler<Note> for Bank {
    async fn handle(&mut self, _: Note, _: &Turn<Self>) -> Result<()> {
        bail!("the real bank is shut")
    }
}

fn program() -> greenroom::Builder {
    Runtime::builder().agent::<Shop>().agent::<Bank>()
}

#[test]
fn a_probe_gets_what_is_told_in_its_order_and_nobody_else_does() -> Result<()> {
    testkit::run(program(), async |kit| {
        let mut bank = kit.probe::<Bank>("b");
        for n in 1..=3 {
            kit.agent::<Shop>("a").tell(Tell { n }).await?;
        }
        for n in 1..=3 {
            assert_eq!(*bank.expect::<Note>().await?, Note { n });
        }
        bank.expect_none(HOUR).await?;
        assert!(kit.state::<Bank>("b").is_err(), "it has neither state nor turns");
        let mut shut = kit.probe::<Bank>("shut");
        kit.agent::<Bank>("shut").ask(Note { n: 4 }).await?;
        assert_eq!(shut.expect::<Note>().await?.n, 4, "no hook runs");
        assert_eq!(kit.agent::<Bank>("other").ask(Charge { cents: 1 }).await?, 1, "others are as they were");
        Ok(())
    })
}

#[test]
fn an_ask_waits_for_the_scenarios_answer() -> Result<()> {
    testkit::run(program(), async |kit| {
        let mut bank = kit.probe::<Bank>("b");
        let shop = kit.agent::<Shop>("a");
        let asking = tokio::task::spawn_local(async move { shop.ask(Ask {}).await });
        let charge = bank.expect::<Charge>().await?;
        assert!(charge.is_awaited() && charge.cents == 5 && !asking.is_finished());
        assert_eq!(charge.reply(9)?, Charge { cents: 5 });
        assert_eq!(asking.await??, 9);
        // Let go, it is an error for its sender, at once.
        let shop = kit.agent::<Shop>("a");
        let asking = tokio::task::spawn_local(async move { shop.ask(Ask {}).await });
        drop(bank.expect::<Charge>().await?);
        let error = asking.await?.unwrap_err().to_string();
        assert!(error.contains("the probe of bank/b did not answer `Charge`"), "{error}");
        kit.agent::<Shop>("a").tell(Tell { n: 1 }).await?;
        let note = bank.expect::<Note>().await?;
        assert!(!note.is_awaited());
        assert!(note.reply(()).unwrap_err().to_string().contains("nobody waits"));
        Ok(())
    })
}

#[test]
fn a_probe_that_knows_the_answer_gives_it_by_itself() -> Result<()> {
    testkit::run(program(), async |kit| {
        let mut bank = kit.probe::<Bank>("b");
        bank.answer(|charge: &Charge| Ok(charge.cents * 2));
        assert_eq!(kit.agent::<Shop>("a").ask(Ask {}).await?, 10);
        bank.answer(|_: &Charge| Err(Charge::refuse(Broke {})));
        let refused = kit.agent::<Bank>("b").ask(Charge { cents: 1 }).await;
        assert!(matches!(refused, Err(AskError::Refused(Broke {}))), "{refused:?}");
        // a unit needs no answer; and neither does the agent's own check count
        kit.agent::<Bank>("b").ask(Note { n: 1 }).await?;
        assert_eq!(bank.expect::<Charge>().await?.cents, 5);
        assert_eq!(bank.expect::<Charge>().await?.cents, 1);
        assert_eq!(bank.expect::<Note>().await?.n, 1);
        Ok(())
    })
}

#[test]
fn an_answer_ends_a_task_and_a_failure_has_it_tried_again() -> Result<()> {
    testkit::run(program(), async |kit| {
        let mut bank = kit.probe::<Bank>("b");
        kit.agent::<Shop>("a").ask(Submit {}).await?;
        bank.expect::<Charge>().await?.fail(anyhow!("not today"))?;
        bank.expect::<Charge>().await?.reply(70)?;
        kit.settle().await;
        assert_eq!(kit.state::<Shop>("a")?.paid, 70, "its submitter is told");
        kit.agent::<Shop>("a").ask(Submit {}).await?;
        bank.expect::<Charge>().await?.fail(Charge::refuse(Broke {}))?;
        kit.settle().await;
        assert!(kit.state::<Shop>("a")?.refused);
        bank.answer(|_: &Charge| Ok(1));
        let id = kit.agent::<Bank>("b").submit(Charge { cents: 1_000 }).await?;
        kit.settle().await;
        assert_eq!(bank.expect::<Charge>().await?.cents, 1_000);
        assert_eq!(kit.handle().operator().task(id).await?.state, TaskState::Succeeded);
        Ok(())
    })
}

/// Whatever the sender's turn goes through.
#[test]
fn what_was_committed_comes_once_wherever_its_sender_is_cut_off() -> Result<()> {
    let runs = Cell::new(0);
    testkit::for_each_crash_point(program, async |kit| {
        runs.set(runs.get() + 1);
        let (mut bank, mut notes) = (kit.probe::<Bank>("b"), kit.topic_probe(&NOTES));
        bank.answer(|charge: &Charge| Ok(charge.cents));
        let shop = kit.agent::<Shop>("a");
        shop.submit(Tell { n: 1 }).await?;
        assert_eq!(bank.expect::<Note>().await?.n, 1);
        shop.submit(Submit {}).await?;
        assert_eq!(bank.expect::<Charge>().await?.cents, 7);
        kit.settle().await;
        shop.submit(Publish {}).await?;
        assert_eq!(notes.expect().await?.n, 3);
        kit.settle().await;
        assert_eq!(kit.state::<Shop>("a")?.paid, 7);
        bank.expect_none(MINUTE).await?;
        notes.expect_none(MINUTE).await
    })?;
    // four turns of the shop, four places each; the probe's have none
    assert_eq!(runs.get(), 1 + 4 * 4);
    Ok(())
}

#[test]
fn an_agent_that_runs_leaves_for_its_probe() -> Result<()> {
    testkit::run(program(), async |kit| {
        let agent = kit.agent::<Bank>("b");
        assert_eq!(agent.ask(Charge { cents: 3 }).await?, 3);
        let mut bank = kit.probe::<Bank>("b");
        agent.tell(Note { n: 2 }).await?;
        assert_eq!(bank.expect::<Note>().await?.n, 2);
        // neither idle time nor a crash brings it back
        kit.advance(24 * HOUR).await;
        kit.crash::<Bank>("b").await;
        agent.tell(Note { n: 3 }).await?;
        assert_eq!(bank.expect::<Note>().await?.n, 3);
        assert_eq!(kit.state::<Bank>("b")?.cents, 3, "its state is as it was");
        // dropped, it stands there still
        drop(bank);
        agent.ask(Note { n: 4 }).await?;
        assert_eq!(agent.ask(Charge { cents: 1 }).await.unwrap_err().code(), "handler_failed");
        Ok(())
    })
}

#[test]
fn what_did_not_come_is_told_with_what_did() -> Result<()> {
    testkit::run(program(), async |kit| {
        let (mut bank, mut notes) = (kit.probe::<Bank>("b"), kit.topic_probe(&NOTES));
        let began = kit.now();
        let error = bank.expect::<Note>().await.unwrap_err().to_string();
        assert_eq!(error, "bank/b: `Note` was expected, and nothing came within 60s");
        assert_eq!(kit.now().as_second() - began.as_second(), 60);
        assert!(bank.expect_within::<Note>(HOUR).await.is_err());
        assert_eq!(kit.now().as_second() - began.as_second(), 3_660);
        assert!(notes.expect().await.is_err());
        kit.agent::<Shop>("a").tell(Tell { n: 8 }).await?;
        kit.agent::<Shop>("a").tell(Publish {}).await?;
        kit.settle().await;
        let error = format!("{:#}", bank.expect::<Charge>().await.unwrap_err());
        assert_eq!(error, "bank/b: `Charge` was expected, and `Note` {\"n\":8} came");
        let error = bank.expect_none(HOUR).await.unwrap_err().to_string();
        assert_eq!(error, "bank/b: nothing was expected, and `Note` {\"n\":8} came");
        assert_eq!(bank.expect::<Note>().await?.into_inner(), Note { n: 8 }, "it is there still");
        assert_eq!(notes.expect().await?.n, 3);
        Ok(())
    })
}

#[test]
fn a_probe_of_what_is_not_registered_fails_the_scenario() {
    let lonely = Runtime::builder().agent::<Shop>();
    let error = testkit::run(lonely, async |kit| {
        kit.probe::<Bank>("b");
        Ok(())
    });
    let error = error.unwrap_err().to_string();
    assert!(error.contains("no kind `bank`"), "{error}");
}
