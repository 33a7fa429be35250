//! What operators have set: one document, written whole over the generation that was read.

use greenroom::store::KeptSettings;
use serde_json::json;

use crate::support::*;

fn kept(generation: i64, key: &str) -> KeptSettings {
    let values = [(key.to_owned(), json!({"nested": ["Zoë", 1]}))].into();
    KeptSettings { generation, values }
}

rules! {
    async fn settings_are_written_over_the_generation_that_was_read(w: &mut World) {
        assert_eq!(w.store.settings().await.unwrap(), KeptSettings::default());
        assert!(w.store.keep_settings(&kept(1, "app.a.x")).await.unwrap());
        assert!(!w.store.keep_settings(&kept(1, "app.b.y")).await.unwrap(), "somebody else was first");
        assert!(!w.store.keep_settings(&kept(3, "app.b.y")).await.unwrap(), "nobody read generation 2");
        assert_eq!(w.store.settings().await.unwrap(), kept(1, "app.a.x"));
        assert!(w.store.keep_settings(&kept(2, "log.level")).await.unwrap());
        assert_eq!(w.store.settings().await.unwrap(), kept(2, "log.level"), "the document is replaced whole");
    }

    async fn settings_sent_again_are_recognised(w: &mut World) {
        assert!(w.store.keep_settings(&kept(1, "app.a.x")).await.unwrap());
        assert!(w.store.keep_settings(&kept(1, "app.a.x")).await.unwrap());
        assert_eq!(w.store.settings().await.unwrap().generation, 1);
    }
}
