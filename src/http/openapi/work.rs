//! Schedules, and the program's tools.

use serde_json::{Value, json};

use super::{
    operation::{Operation, delete, get, post},
    schemas::{Schemas, own},
};
use crate::{
    model::task::TaskView,
    runtime::views::{ScheduleRequest, ScheduleView, ToolInfo},
};

pub(super) fn operations(s: &mut Schemas, to: &Value, tools: &[ToolInfo]) -> Vec<Operation> {
    let (schedule, view) = ("/schedules/{name}", s.answer::<ScheduleView>());
    let mut all = vec![
        get("/schedules", "listSchedules", "Lists schedules, by name.").answers(
            200,
            "All items.",
            s.list::<ScheduleView>(),
        ),
        post("/schedules", "addSchedule", "Adds a schedule.")
            .takes(json!({"allOf": [s.request::<ScheduleRequest>(), to]}))
            .answers(201, "The item.", view.clone())
            .tells("Location", "Where it is.")
            .refuses(&[
                (404, "unknown_kind"),
                (404, "unknown_message"),
                (404, "not_found"),
                (409, "wrong_state"),
            ])
            .writes(),
        get(schedule, "getSchedule", "Shows a schedule.").answers(200, "The item.", view.clone()),
        delete(schedule, "removeSchedule", "Removes a schedule.")
            .answers_nothing(204, "It is gone.")
            .refuses(&[(409, "wrong_state")])
            .writes(),
        post(&format!("{schedule}/run"), "runSchedule", "Submits a task of a schedule now.")
            .idempotent()
            .answers(202, "The task.", s.answer::<TaskView>())
            .tells("Location", "Where it is.")
            .refuses(&[(409, "wrong_state"), (429, "overloaded"), (504, "outcome_unknown")])
            .writes(),
        get("/tools", "listTools", "Lists the program's tools.").answers(
            200,
            "All items.",
            s.list::<ToolInfo>(),
        ),
        get("/tools/{name}", "getTool", "Shows a tool.").answers(200, "The item.", s.answer::<ToolInfo>()),
    ];
    for (action, does) in [("pause", "Fires it no more."), ("resume", "Ends that.")] {
        all.push(
            post(&format!("{schedule}/{action}"), &format!("{action}Schedule"), does)
                .answers(202, "Done.", view.clone())
                .refuses(&[(409, "wrong_state")])
                .writes(),
        );
    }
    all.extend(tools.iter().map(call));
    all
}

fn call(tool: &ToolInfo) -> Operation {
    let path = format!("/tools/{}/call", tool.name);
    post(&path, &format!("call_{}", tool.name.replace('.', "_")), &format!("Calls `{}`.", tool.name))
        .patience()
        .idempotent()
        .takes_own(input(tool))
        .answers(200, "The output.", own(&tool.output))
        .tells("Idempotency-Replayed", "Where this is the first outcome under its key.")
        .refuses(&[(404, "not_found")])
        .runs_code()
}

fn input(tool: &ToolInfo) -> Value {
    let schema = own(&tool.input);
    if schema.is_null() { json!({}) } else { schema }
}
