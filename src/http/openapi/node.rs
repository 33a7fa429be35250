//! The node: health, supervision tree, events and logs.

use serde_json::json;

use super::{
    operation::{Operation, get, patch, post},
    patterns::{ID, KEY, whole_or_empty},
    schemas::{Schemas, accepted, list},
};
use crate::{
    config::{Shown, settings_schema},
    model::{access::Scope, crash_group::CrashGroup, supervision::CrashReport},
    runtime::{
        Applied,
        views::{CrashDetail, KindInfo, MemberInfo, Status, TreeNode},
    },
};

const LEVELS: &[&str] = &["debug", "info", "warn", "error", "critical"];

pub(super) fn operations(s: &mut Schemas) -> Vec<Operation> {
    let health = json!({
        "type": "object", "required": ["status", "reasons"],
        "properties": {"status": {"const": "ok"}, "reasons": {"type": "array"}},
    });
    let record = json!({
        "type": "object", "description": "A record as the log's JSON lines have it, with its number.",
        "required": ["ts", "level", "event", "msg", "node", "boot", "subject", "seq"],
        "properties": {
            "ts": {"type": "integer"}, "level": {"type": "string", "enum": LEVELS}, "event": {"type": "string"},
            "msg": {"type": "string"}, "subject": {"type": "string"}, "seq": {"type": "integer"},
        },
    });
    let mut logs = list(record);
    logs["properties"]["boot"] = json!({"type": "string", "description": "Whose log it is."});
    logs["properties"]["last"] =
        json!({"type": "integer", "description": "The number to go on from, with the boot: BOOT:N."});
    let mut config = list(s.answer::<Shown>());
    config["properties"]["generation"] = json!({"type": "integer"});
    config["properties"]["needs_restart"] = json!({"type": "array", "items": {"type": "string"}});
    let mut all = vec![
        get("/openapi.json", "getOpenApi", "This document.").public().answers(
            200,
            "The item.",
            json!({"type": "object"}),
        ),
        get("/health/live", "getLive", "Whether the process is alive.").public().answers(
            200,
            "It does.",
            health.clone(),
        ),
        get("/health/ready", "getReady", "Whether the node accepts work.")
            .public()
            .answers(200, "Ready.", health),
        get("/metrics", "getMetrics", "Metrics for Prometheus.")
            .answers_text(200, "The metrics.", "text/plain; version=0.0.4; charset=utf-8")
            .refuses(&[(404, "not_found")]),
        get("/status", "getStatus", "Shows the node's health, with reasons and remedies.").answers(
            200,
            "How it is.",
            s.answer::<Status>(),
        ),
        get("/tree", "getTree", "Shows the supervision tree.")
            .number("children", "How many children of each; 1,000 where it is absent.", 0, 1_000)
            .answers(200, "The tree.", s.answer::<TreeNode>()),
        get("/tree/{kind}", "listRunningAgents", "Lists the running agents of a kind, by their keys.")
            .paged(KEY)
            .answers(200, "A page.", s.list::<TreeNode>())
            .refuses(&[(404, "unknown_kind")]),
        get("/kinds", "listKinds", "Lists kinds of agents, with their messages and schemas.").answers(
            200,
            "All items.",
            s.list::<KindInfo>(),
        ),
        get("/kinds/{kind}", "getKind", "Shows a kind.")
            .answers(200, "The item.", s.answer::<KindInfo>())
            .refuses(&[(404, "unknown_kind")]),
        get("/nodes", "listNodes", "Lists the nodes that share the store.").answers(
            200,
            "All items.",
            s.list::<MemberInfo>(),
        ),
        post("/nodes/{boot}/stop", "stopNode", "Shuts a node down gracefully.").needs(Scope::Admin).answers(
            202,
            "It will end.",
            accepted(),
        ),
        get("/crashes", "listCrashes", "Lists the last crashes of this node, newest first: 1,024 at most.")
            .within("Only from this moment on.", "Only from before this moment.")
            .query("cursor", "From the page before.", whole_or_empty(ID))
            .number("limit", "The size of a page; all where it is absent.", 1, 1_000)
            .answers(200, "The items.", s.list::<CrashReport>()),
        get("/crashes/groups", "listCrashGroups", "Lists crash groups by site, those with the latest crashes first.")
            .within(
                "Only those with a crash from this moment on.",
                "Only those with a crash before this moment.",
            )
            .paged(&format!("[0-9]{{1,15}}\\.{ID}"))
            .answers(200, "A page.", s.list::<CrashGroup>()),
        get("/crashes/{id}", "getCrash", "Shows a crash, or the last one of a group.").answers(
            200,
            "The item.",
            s.answer::<CrashDetail>(),
        ),
        get("/logs", "listLogs", "Lists the last records of the log, and with `after` and `wait` the next ones.")
            .word("level", "This level, and all above it.", LEVELS)
            .text("subject", "Only about this subject.")
            .number("tail", "How many of the last ones.", 0, u64::MAX)
            .number("n", "The same.", 0, u64::MAX)
            .query(
                "after",
                "Only those after this one: BOOT:N, or N alone. Of another boot's, all that is kept.",
                whole_or_empty("([^:]+:)?[0-9]{1,19}"),
            )
            .duration("wait", "How long to wait where there are none; at most a minute.")
            .answers(200, "The items.", logs),
        get("/events", "followEvents", "Streams events as Server-Sent Events.")
            .text("subject", "Only about this subject, or all that begin so, with a `*` at the end.")
            .text("event", "Only these events, by commas; `task.*` is all that begin so.")
            .query("after", "Only those after this id.", json!({"type": "string"}))
            .number(
                "tail",
                "How many of the last ones come first: none, or, where it does not follow, all.",
                0,
                u64::MAX,
            )
            .flag("follow", "Whether it goes on with what follows; it does.")
            .header(
                "Last-Event-ID",
                "The same; a browser sends it when it connects again.",
                json!({"type": "string"}),
            )
            .answers_text(200, "The stream.", "text/event-stream")
            .refuses(&[(429, "overloaded")]),
        get("/config", "getConfig", "Shows every setting with its origin; secrets as ***.")
            .answers(200, "The effective settings.", config)
            .tells("ETag", "For `If-Match`."),
        patch(
            "/config",
            "changeConfig",
            "A JSON merge patch of all sections: applied whole or not at all, kept for all nodes.",
        )
        .needs(Scope::Admin)
        .if_match()
        .flag("dry_run", "Only say what would come of it.")
        .takes(settings_schema())
        .says(
            "Any key of `GET /config` but secrets, those of `store` and `node`, and what opens the machine itself \
             (`http.tls`, `http.token_file`, `http.behind_proxy`, `tools.fs.roots`, `log.file.path`); \
             `null` takes away what was set. \
             The outermost names may be dotted keys: `{\"sessions.ttl\": \"1h\"}`.",
        )
        .answers(200, "The result.", s.answer::<Applied>())
        .tells("ETag", "For `If-Match`.")
        .writes(),
    ];
    for (action, does) in [("drain", "Has a node begin no tasks."), ("resume", "Ends that.")] {
        all.push(
            post(&format!("/nodes/{{boot}}/{action}"), &format!("{action}Node"), does)
                .needs(Scope::Admin)
                .answers(202, "Done.", accepted())
                .refuses(&[(409, "wrong_state")]),
        );
    }
    for (action, does) in [("pause", "Starts none of a kind's tasks any more."), ("resume", "Ends that.")] {
        all.push(
            post(&format!("/kinds/{{kind}}/{action}"), &format!("{action}Kind"), does)
                .answers(202, "Done.", accepted())
                .refuses(&[(404, "unknown_kind")])
                .writes(),
        );
    }
    all
}
