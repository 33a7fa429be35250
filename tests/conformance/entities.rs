//! Conversations, messages and sessions: what is kept, in which order, and what is refused.

use std::time::Duration;

use greenroom::{
    model::{
        conversation::{
            Conversation, ConversationId, ConversationWrite, MessageId, NewConversation, NewMessage,
            StoredMessage,
        },
        session::{Expect, Session, SessionChange, SessionWrite},
    },
    store::{ConversationFilter, KeyWrite, MessagePage, Refusal, Unit, Verdict},
};
use jiff::Timestamp;
use serde_json::json as value;
use uuid::Uuid;

use crate::support::*;

fn creating(id: ConversationId) -> Unit {
    Unit { conversations: vec![ConversationWrite::Create(NewConversation::new(id))], ..Unit::default() }
}

fn deleting(id: ConversationId) -> Unit {
    Unit { conversations: vec![ConversationWrite::Delete(id)], ..Unit::default() }
}

fn message(conversation: ConversationId, text: &str) -> NewMessage {
    NewMessage {
        id: MessageId::fresh(),
        conversation,
        role: "user".into(),
        content: json(&value!(text).to_string()),
    }
}

fn saying(messages: impl IntoIterator<Item = NewMessage>) -> Unit {
    Unit { messages: messages.into_iter().collect(), ..Unit::default() }
}

/// A unit that only writes a session, with the key by which it is known.
fn writing(id: &str, change: SessionChange) -> Unit {
    let key = KeyWrite {
        scope: Uuid::nil(),
        key: Uuid::now_v7().to_string(),
        request: [0; 16],
        task: None,
        reply: None,
        expires_at: Timestamp::MAX,
    };
    Unit { keys: vec![key], sessions: vec![SessionWrite { id: id.into(), change }], ..Unit::default() }
}

fn put(data: u32, ttl: Duration, expect: Expect) -> SessionChange {
    SessionChange::Put { version: Uuid::now_v7(), data: json(&data.to_string()).into(), ttl, expect }
}

const HOUR: Duration = Duration::from_secs(3_600);

impl World {
    async fn made(&self) -> ConversationId {
        let id = ConversationId::fresh();
        self.must(creating(id)).await;
        id
    }

    async fn conversation(&self, id: ConversationId) -> Option<Conversation> {
        self.store.conversations(&[id]).await.unwrap().pop().unwrap()
    }

    /// All messages, in order: place and text.
    async fn said(&self, id: ConversationId) -> Vec<(i64, String)> {
        let page = self.store.message_page(id, MessagePage::Forth { after: 0, limit: 1_000 }).await.unwrap();
        page.iter().map(|m| (m.seq, m.read().unwrap())).collect()
    }

    async fn session(&self, id: &str) -> Option<Session> {
        self.store.sessions(&[id.to_owned()]).await.unwrap().pop().unwrap()
    }

    /// What the session holds.
    async fn held(&self, id: &str) -> Option<String> {
        self.session(id).await.map(|s| s.data.get().to_owned())
    }
}

fn seqs(page: &[StoredMessage]) -> Vec<i64> {
    page.iter().map(|m| m.seq).collect()
}

rules! {
    async fn a_conversation_is_read_back_as_it_was_made(w: &mut World) {
        let id = ConversationId::fresh();
        assert_eq!(w.conversation(id).await, None);
        let metadata = value!({"topic": "shoes", "n": 1}).as_object().unwrap().clone();
        let new = NewConversation { id, title: Some("Schuhe für Zoë".into()), metadata: metadata.clone() };
        let before = Timestamp::now().round(jiff::Unit::Millisecond).unwrap();
        w.must(Unit { conversations: vec![ConversationWrite::Create(new)], ..Unit::default() }).await;
        let found = w.conversation(id).await.unwrap();
        assert_eq!((found.id, found.title.as_deref(), &found.metadata), (id, Some("Schuhe für Zoë"), &metadata));
        assert_eq!((found.last_seq, found.created_at), (0, found.updated_at));
        assert!(found.created_at.duration_since(before).as_secs().abs() < 60);
        // made again, it stays as it is
        w.must(creating(id)).await;
        assert_eq!(w.conversation(id).await.unwrap(), found);
    }

    async fn messages_get_the_next_places_in_their_order(w: &mut World) {
        let (a, b) = (w.made().await, ConversationId::fresh());
        w.must(saying([message(a, "one"), message(a, "two")])).await;
        // one unit may make a conversation and speak in it, and in another
        let mut unit = creating(b);
        unit.messages = vec![message(b, "eins"), message(a, "three"), message(b, "zwei")];
        w.must(unit).await;
        assert_eq!(w.said(a).await, [(1, "one".into()), (2, "two".into()), (3, "three".into())]);
        assert_eq!(w.said(b).await, [(1, "eins".into()), (2, "zwei".into())]);
        let found = w.conversation(a).await.unwrap();
        assert_eq!(found.last_seq, 3);
        assert!(found.version > 1 && found.updated_at >= found.created_at);
        // many units of one call, some for the same conversation
        let units: Vec<_> = (0..20).map(|n| saying([message([a, b][n % 2], &n.to_string())])).collect();
        assert_eq!(w.commit(&units).await, vec![Verdict::Durable; 20]);
        assert_eq!(w.conversation(a).await.unwrap().last_seq, 13);
        assert_eq!(w.said(a).await[3..].iter().map(|m| &*m.1).collect::<Vec<_>>(), ["0", "2", "4", "6", "8", "10", "12", "14", "16", "18"]);
    }

    async fn a_message_is_read_back_as_it_was_said(w: &mut World) {
        let a = w.made().await;
        let content = r#"{"text":"a \"b\" \u0000 ü","parts":[1.50,null]}"#;
        let new = NewMessage { role: "assistant".into(), content: json(content), ..message(a, "") };
        let unknown = MessageId::fresh();
        w.must(saying([new.clone()])).await;
        let found = w.store.messages(&[unknown, new.id, new.id]).await.unwrap();
        assert!(found[0].is_none() && found[2].is_some());
        let found = found[1].as_ref().unwrap();
        assert_eq!((found.conversation, found.seq, &*found.role, found.content.get()), (a, 1, "assistant", content));
        // more than are read in place
        let more: Vec<_> = (0..30).map(|n| message(a, &n.to_string())).collect();
        w.must(saying(more.clone())).await;
        let ids: Vec<_> = more.iter().rev().map(|m| m.id).collect();
        let found: Vec<_> = w.store.messages(&ids).await.unwrap().into_iter().flatten().collect();
        assert_eq!(seqs(&found), (2..=31).rev().collect::<Vec<_>>());
    }

    async fn the_same_message_twice_is_one(w: &mut World) {
        let a = w.made().await;
        let (one, two, three) = (message(a, "one"), message(a, "two"), message(a, "three"));
        let unit = saying([one.clone(), two.clone(), one.clone()]);
        w.must(unit.clone()).await;
        w.must(unit.clone()).await;
        assert_eq!(w.commit(&[unit, saying([two, three.clone()]), saying([three])]).await, vec![Verdict::Durable; 3]);
        assert_eq!(w.said(a).await, [(1, "one".into()), (2, "two".into()), (3, "three".into())]);
        // in another conversation it is a mistake
        let b = w.made().await;
        let verdict = w.commit_one(saying([NewMessage { conversation: b, ..one }])).await;
        assert!(matches!(verdict, Verdict::Refused(Refusal::Bad(_))), "{verdict:?}");
        assert_eq!(w.conversation(b).await.unwrap().last_seq, 0);
    }

    async fn what_a_turn_says_commits_with_it_or_not_at_all(w: &mut World) {
        let a = w.made().await;
        let mut unit = w.turn("x", 0, "1");
        unit.messages.push(message(a, "one"));
        unit.sessions.push(SessionWrite { id: "s".into(), change: put(1, HOUR, Expect::Any) });
        w.must(unit.clone()).await;
        // a try whose reply was lost is sent again
        w.must(unit.clone()).await;
        assert_eq!(w.commit(&[unit.clone(), unit]).await, vec![Verdict::Durable; 2]);
        let version = w.session("s").await.unwrap().version;
        let mut stale = w.turn("x", 0, "stale");
        stale.conversations.push(ConversationWrite::Create(NewConversation::new(ConversationId::fresh())));
        stale.messages.push(message(a, "never"));
        stale.sessions.push(SessionWrite { id: "s".into(), change: put(2, HOUR, Expect::Any) });
        let lost = Unit { messages: vec![message(a, "two")], ..w.turn("y", 0, "1") };
        assert_eq!(w.commit(&[stale.clone(), lost.clone()]).await.len(), 2);
        w.must(w.turn("x", 1, "2")).await;
        assert_eq!(w.commit_one(stale).await, fenced());
        assert_eq!(w.said(a).await, [(1, "one".into()), (2, "two".into())]);
        assert_eq!((w.held("s").await.as_deref(), w.session("s").await.unwrap().version), (Some("1"), version));
        assert_eq!(w.store.conversation_page(&ConversationFilter { before: None, limit: 9 }).await.unwrap().len(), 1);
    }

    async fn nobody_speaks_in_a_conversation_that_is_not_there(w: &mut World) {
        let (a, nowhere) = (w.made().await, ConversationId::fresh());
        let gone = w.made().await;
        w.must(saying([message(gone, "x")])).await;
        w.must(deleting(gone)).await;
        for unknown in [nowhere, gone] {
            let mut turn = w.turn("x", 0, "1");
            turn.messages = vec![message(a, "never"), message(unknown, "never")];
            let verdicts = w.commit(&[turn, saying([message(a, "once")])]).await;
            assert_eq!(verdicts, [Verdict::Refused(Refusal::ConversationUnknown(unknown)), Verdict::Durable]);
            assert_eq!(w.state("x").await, None);
        }
        assert_eq!(w.said(a).await, [(1, "once".into()), (2, "once".into())]);
    }

    async fn a_deleted_conversation_is_gone_at_once_and_for_good(w: &mut World) {
        let (a, b) = (w.made().await, w.made().await);
        let said: Vec<_> = (0..30).map(|n| message(a, &n.to_string())).collect();
        w.must(saying(said.clone())).await;
        w.must(saying([message(b, "stays")])).await;
        let mut unit = deleting(a);
        unit.messages.push(message(a, "the last word"));
        w.must(unit).await;
        for forgotten in [false, true] {
            assert_eq!(w.conversation(a).await, None);
            assert_eq!(w.said(a).await, []);
            assert!(w.store.messages(&[said[0].id]).await.unwrap()[0].is_none());
            let page = w.store.conversation_page(&ConversationFilter { before: None, limit: 9 }).await.unwrap();
            assert_eq!(page.iter().map(|c| c.id).collect::<Vec<_>>(), [b]);
            if !forgotten {
                w.must(creating(a)).await;
                assert_eq!(w.conversation(a).await, None, "an id is not used again");
                assert_eq!(w.store.forget(Timestamp::now(), None).await.unwrap().rows, 32, "31 messages and their conversation");
                assert_eq!(w.store.forget(Timestamp::now(), None).await.unwrap().rows, 0);
            }
        }
        w.must(deleting(a)).await;
        w.must(deleting(ConversationId::fresh())).await;
        assert_eq!(w.said(b).await.len(), 1);
        assert_eq!(w.verify().await.messages, 1);
    }

    async fn conversations_and_messages_are_read_page_by_page(w: &mut World) {
        let mut all = Vec::new();
        for _ in 0..7 {
            all.push(w.made().await);
        }
        let (mut seen, mut before) = (Vec::new(), None);
        loop {
            let page = w.store.conversation_page(&ConversationFilter { before, limit: 3 }).await.unwrap();
            let Some(last) = page.last() else { break };
            before = Some(last.id);
            assert!(page.len() <= 3);
            seen.extend(page.iter().map(|c| c.id));
        }
        all.reverse();
        assert_eq!(seen, all);
        let a = all[0];
        w.must(saying((1..=10).map(|n| message(a, &n.to_string())))).await;
        let read = async |page| seqs(&w.store.message_page(a, page).await.unwrap());
        assert_eq!(read(MessagePage::Back { before: None, limit: 3 }).await, [10, 9, 8]);
        assert_eq!(read(MessagePage::Back { before: Some(8), limit: 3 }).await, [7, 6, 5]);
        assert_eq!(read(MessagePage::Back { before: Some(2), limit: 3 }).await, [1]);
        assert_eq!(read(MessagePage::Back { before: Some(1), limit: 3 }).await, [0_i64; 0]);
        assert_eq!(read(MessagePage::Forth { after: 0, limit: 3 }).await, [1, 2, 3]);
        assert_eq!(read(MessagePage::Forth { after: 9, limit: 3 }).await, [10]);
        assert_eq!(read(MessagePage::Forth { after: 10, limit: 3 }).await, [0_i64; 0]);
        let many: Vec<_> = all.iter().chain(&all).copied().chain([ConversationId::fresh()]).collect();
        let found = w.store.conversations(&many).await.unwrap();
        assert_eq!(found.iter().map(|c| c.as_ref().map(|c| c.id)).collect::<Vec<_>>(), many.iter().take(14).map(|id| Some(*id)).chain([None]).collect::<Vec<_>>());
    }

    async fn a_session_is_read_back_until_it_expires(w: &mut World) {
        assert!(w.session("a").await.is_none());
        w.must(writing("a", put(1, HOUR, Expect::Any))).await;
        let first = w.session("a").await.unwrap();
        assert_eq!((&*first.id, first.data.get(), first.ttl), ("a", "1", HOUR));
        assert_eq!(first.expires_at, first.updated_at + HOUR);
        w.must(writing("a", put(2, HOUR * 2, Expect::Any))).await;
        let second = w.session("a").await.unwrap();
        assert_eq!((second.data.get(), second.created_at), ("2", first.created_at));
        assert!(second.version != first.version && second.revision > first.revision);
        w.must(writing("b", put(3, Duration::from_millis(1), Expect::Any))).await;
        until_gone(w, "b").await;
        let ids = ["b", "a", "nobody", "a"].map(str::to_owned);
        let found = w.store.sessions(&ids).await.unwrap();
        assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true, false, true]);
    }

    async fn a_session_is_written_only_as_it_was_seen(w: &mut World) {
        let moved = |id: &str| Verdict::Refused(Refusal::SessionMoved(id.into()));
        let nobody = Expect::Version(Uuid::now_v7());
        assert_eq!(w.commit_one(writing("a", put(1, HOUR, nobody))).await, moved("a"));
        w.must(writing("a", put(1, HOUR, Expect::Absent))).await;
        let seen = Expect::Version(w.session("a").await.unwrap().version);
        assert_eq!(w.commit_one(writing("a", put(2, HOUR, Expect::Absent))).await, moved("a"));
        assert_eq!(w.commit_one(writing("a", put(2, HOUR, nobody))).await, moved("a"));
        assert_eq!(w.held("a").await.as_deref(), Some("1"));
        // of two that saw the same one wins, and the turn of the other is undone
        let mut turn = w.turn("x", 0, "1");
        turn.sessions.push(SessionWrite { id: "a".into(), change: put(3, HOUR, seen) });
        assert_eq!(w.commit(&[writing("a", put(2, HOUR, seen)), turn]).await, [Verdict::Durable, moved("a")]);
        assert_eq!((w.held("a").await.as_deref(), w.state("x").await), (Some("2"), None));
        let remove = |expect| SessionChange::Remove { expect };
        assert_eq!(w.commit_one(writing("a", remove(seen))).await, moved("a"));
        let seen = Expect::Version(w.session("a").await.unwrap().version);
        w.must(writing("a", remove(seen))).await;
        assert!(w.session("a").await.is_none());
        w.must(writing("a", remove(Expect::Any))).await;
        assert_eq!(w.commit_one(writing("a", remove(seen))).await, moved("a"));
        w.must(writing("a", remove(Expect::Absent))).await;
        // one that has expired is not there
        w.must(writing("b", put(1, Duration::from_millis(1), Expect::Any))).await;
        let seen = Expect::Version(Uuid::nil());
        until_gone(w, "b").await;
        assert_eq!(w.commit_one(writing("b", put(2, HOUR, seen))).await, moved("b"));
        w.must(writing("b", put(2, HOUR, Expect::Absent))).await;
        assert_eq!(w.held("b").await.as_deref(), Some("2"));
    }

    async fn a_session_made_anew_has_a_later_revision(w: &mut World) {
        for ttl in [HOUR, Duration::from_millis(1)] {
            w.must(writing("a", put(1, HOUR, Expect::Any))).await;
            w.must(writing("a", put(2, HOUR, Expect::Any))).await;
            let before = w.session("a").await.unwrap().revision;
            if ttl == HOUR {
                w.must(writing("a", SessionChange::Remove { expect: Expect::Any })).await;
            } else {
                w.must(writing("a", put(3, ttl, Expect::Any))).await;
                until_gone(w, "a").await;
            }
            w.must(writing("a", put(3, HOUR, Expect::Any))).await;
            let after = w.session("a").await.unwrap();
            assert!(after.revision > before, "{} is not above {before}", after.revision);
            assert_eq!(after.created_at, after.updated_at);
        }
    }

    async fn a_use_starts_the_time_to_live_again(w: &mut World) {
        w.must(writing("a", put(1, Duration::from_secs(1), Expect::Any))).await;
        let first = w.session("a").await.unwrap();
        let touch = || Unit { sessions: vec![SessionWrite { id: "a".into(), change: SessionChange::Touch }], ..Unit::default() };
        // for longer than it would have lived
        while Timestamp::now() < first.expires_at + Duration::from_millis(200) {
            w.must(touch()).await;
            assert!(w.session("a").await.is_some());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let used = w.session("a").await.unwrap();
        assert!(used.expires_at > first.expires_at && used.revision > first.revision);
        assert_eq!((used.version, used.updated_at), (first.version, first.updated_at));
        until_gone(w, "a").await;
        w.must(touch()).await;
        assert!(w.session("a").await.is_none(), "what has expired does not come back");
        let nobody = Unit { sessions: vec![SessionWrite { id: "b".into(), change: SessionChange::Touch }], ..Unit::default() };
        w.must(nobody).await;
        assert!(w.session("b").await.is_none());
    }

    async fn a_session_write_sent_again_does_not_undo_a_later_one(w: &mut World) {
        let first = writing("a", put(1, HOUR, Expect::Any));
        w.must(first.clone()).await;
        let seen = Expect::Version(w.session("a").await.unwrap().version);
        let second = writing("a", put(2, HOUR, seen));
        w.must(second.clone()).await;
        assert_eq!(w.commit(&[first, second.clone()]).await, vec![Verdict::Durable; 2]);
        assert_eq!(w.held("a").await.as_deref(), Some("2"));
        let removal = writing("a", SessionChange::Remove { expect: Expect::Any });
        w.must(removal.clone()).await;
        assert_eq!(w.commit(&[second, removal]).await, vec![Verdict::Durable; 2]);
        assert!(w.session("a").await.is_none());
    }

    async fn what_has_had_its_time_is_forgotten(w: &mut World) {
        let (old, used) = (w.made().await, w.made().await);
        w.must(saying([message(old, "x"), message(old, "y")])).await;
        w.must(writing("short", put(1, Duration::from_millis(1), Expect::Any))).await;
        w.must(writing("long", put(1, HOUR, Expect::Any))).await;
        until_gone(w, "short").await;
        let between = Timestamp::now();
        while Timestamp::now() == between {}
        w.must(saying([message(used, "z")])).await;
        let now = Timestamp::now();
        assert_eq!(w.store.forget(now, None).await.unwrap().rows, 1, "the session that has expired");
        assert_eq!(w.store.forget(now, None).await.unwrap().rows, 0);
        assert!(w.conversation(old).await.is_some(), "without a limit conversations stay");
        let (mut gone, mut deleted) = (0, Vec::new());
        loop {
            let forgotten = w.store.forget(now, Some(between)).await.unwrap();
            deleted.extend(forgotten.conversations);
            match forgotten.rows {
                0 => break,
                n => gone += n,
            }
        }
        assert!(gone >= 3, "{gone}");
        assert_eq!(deleted, [old]);
        assert_eq!((w.conversation(old).await, w.said(used).await.len()), (None, 1));
        let report = w.verify().await;
        assert_eq!((report.conversations, report.messages, report.sessions), (1, 1, 1));
        // in an hour the other session has expired too
        assert_eq!(w.store.forget(now + HOUR * 2, None).await.unwrap().rows, 1);
    }

    async fn a_long_conversation_is_forgotten_bit_by_bit(w: &mut World) {
        let a = w.made().await;
        for _ in 0..11 {
            w.must(saying((0..1_000).map(|_| message(a, "x")))).await;
        }
        w.must(deleting(a)).await;
        let (mut calls, mut gone) = (0, 0);
        loop {
            match w.store.forget(Timestamp::now(), None).await.unwrap().rows {
                0 => break,
                n => (calls, gone) = (calls + 1, gone + n),
            }
        }
        assert_eq!(gone, 11_001);
        assert!(calls > 1, "all in one call");
    }

    async fn many_writers_at_once_leave_no_gap_and_one_winner(w: &mut World) {
        let (id, other, boot) = (ConversationId::fresh(), w.made().await, w.boot);
        let writers = (0..8).map(|n| {
            let store = w.store.clone();
            tokio::spawn(async move {
                let mut won = 0;
                for round in 0..25 {
                    // Each makes the conversation, speaks in two of them, in either order, and wants to be
                    // the first in a session.
                    let mut unit = creating(id);
                    unit.messages = vec![message(id, "a"), message(other, "b"), message(id, "c")];
                    if n % 2 == 0 {
                        unit.messages.reverse();
                    }
                    let first = writing(&round.to_string(), put(n, HOUR, Expect::Absent));
                    let any = writing("any", put(n, HOUR, Expect::Any));
                    let units = [unit, first, any];
                    let verdicts = loop {
                        match store.commit(boot, &units).await {
                            // on a busy machine the others may keep all connections for too long
                            Err(greenroom::store::StoreError::NotDone(_)) => {}
                            done => break done.unwrap(),
                        }
                    };
                    assert_eq!((&verdicts[0], &verdicts[2]), (&Verdict::Durable, &Verdict::Durable));
                    match &verdicts[1] {
                        Verdict::Durable => won += 1,
                        lost => assert_eq!(*lost, Verdict::Refused(Refusal::SessionMoved(round.to_string()))),
                    }
                }
                won
            })
        });
        let won: i32 = futures_util::future::join_all(writers).await.into_iter().map(Result::unwrap).sum();
        assert_eq!(won, 25, "each session has one maker");
        let last = |c: Option<Conversation>| c.unwrap().last_seq;
        assert_eq!((last(w.conversation(id).await), last(w.conversation(other).await)), (400, 200));
        // That there is no gap is looked at when the test ends, as always.
        assert_eq!(w.said(id).await.len(), 400);
    }

    async fn all_of_it_survives_the_end_of_the_process(w: &mut World) {
        let a = w.made().await;
        w.must(saying([message(a, "one")])).await;
        w.must(writing("s", put(1, HOUR, Expect::Any))).await;
        w.crash().await;
        assert_eq!(w.said(a).await, [(1, "one".into())]);
        assert_eq!(w.held("s").await.as_deref(), Some("1"));
        w.must(saying([message(a, "two")])).await;
        assert_eq!(w.conversation(a).await.unwrap().last_seq, 2);
    }
}

/// Waits until a session has expired.
async fn until_gone(w: &World, id: &str) {
    let began = std::time::Instant::now();
    while w.session(id).await.is_some() {
        assert!(began.elapsed() < Duration::from_secs(20), "`{id}` does not expire");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
